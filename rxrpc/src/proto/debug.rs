//! DEBUG packets: what rxdebug asks, and the layouts of the answers (rxrpc.md 13, OpenAFS `rx.h`).
//!
//! The machine: a question is a kind and an index; the owner answers it from snapshots it takes, and this module lays the
//! answer out. Offsets are those of the structures that OpenAFS sends; words we have nothing to say in are 0.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::endpoint::datagram;
use super::wire::{Flags, Header, Packet, PacketType};
use super::{ConnectionSnapshot, RoundTrip, RttTally, Side, abort_codes};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// About the endpoint.
    Endpoint,
    /// About the connection at an index among those that have something to do.
    Busy(usize),
    /// About the connection at an index among all.
    Connection(usize),
    /// The counters.
    Totals,
    /// About the peer at an index.
    Peer(usize),
    /// Something we do not know.
    Unknown,
}

/// What the counters of an endpoint say. All from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets received, by type number from 1.
    pub packets_read: [u32; 13],
    /// Packets sent, by type number from 1.
    pub packets_sent: [u32; 13],
    /// Datagrams that were no packets.
    pub bogus: u32,
    /// Packets for no connection, or that changed nothing on theirs.
    pub spurious: u32,
    /// DATA packets that were here already.
    pub duplicate: u32,
    /// Packets of calls that were over.
    pub late: u32,
    /// DATA packets sent again.
    pub resent: u32,
    /// PINGs among the ACKs sent.
    pub pings_sent: u32,
    /// Sendings that found no way to the peer.
    pub send_failures: u32,
    /// Round trips measured.
    pub rtt: RttTally,
    /// Calls answered.
    pub calls_executed: u32,
    /// How many of them waited for others.
    pub calls_waited: u32,
    /// Calls that wait at this moment.
    pub calls_waiting: u32,
    /// Calls that could be answered at once at this moment.
    pub idle_threads: u32,
    /// Connections of both sides at this moment.
    pub client_connections: u32,
    /// See `client_connections`.
    pub service_connections: u32,
    /// Peers at this moment.
    pub peers: u32,
}

/// What is known of a peer. All counts are from the making of the first of its connections that is still there, or from
/// when its way back was first kept open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSnapshot {
    /// Its address.
    pub address: SocketAddrV4,
    /// Connections to and from it.
    pub connections: u16,
    /// The round trip, if it was measured.
    pub rtt: Option<RoundTrip>,
    /// Bytes of UDP payload that travel to it in one piece.
    pub datagram: u16,
    /// PINGs that tried whether larger ones do.
    pub path_probes: u64,
    /// Packets sent to it.
    pub packets_sent: u64,
    /// How many of them were DATA sent again.
    pub packets_resent: u64,
    /// Packets from it.
    pub packets_received: u64,
    /// Bytes of the packets sent, Rx headers included.
    pub bytes_sent: u64,
    /// Bytes of the packets received, Rx headers included.
    pub bytes_received: u64,
    /// How often the network said that it cannot be reached.
    pub errors: u32,
    /// The longest silence of ours, if its way back to us is kept open.
    pub keep_alive: Option<Duration>,
    /// Packets sent to keep it open.
    pub keep_alives_sent: u64,
}

impl Question {
    /// Reads a question. `None` for what is no question: an answer, or something shorter than a kind.
    #[must_use]
    pub fn parse(packet: &Packet) -> Option<Self> {
        let header = &packet.header;
        if header.packet_type != PacketType::Debug || !header.flags.client_initiated() {
            return None;
        }
        let (kind, rest) = packet.body.split_first_chunk()?;
        // OpenAFS takes an index that is not there for 0.
        let index = rest.first_chunk().map_or(0, |index| u32::from_be_bytes(*index));
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        Some(match u32::from_be_bytes(*kind) {
            1 => Self::Endpoint,
            2 => Self::Busy(index),
            3 => Self::Connection(index),
            4 => Self::Totals,
            5 => Self::Peer(index),
            _ => Self::Unknown,
        })
    }
}

/// Answers [`Question::Endpoint`].
#[must_use]
pub fn endpoint(question: &Header, totals: &Totals) -> Vec<u8> {
    let mut body = Words::new(56);
    body.u32(8, totals.calls_executed);
    body.u8(14, VERSION);
    body.u32(16, totals.calls_waiting);
    body.u32(20, totals.idle_threads);
    body.u32(24, totals.calls_waited);
    body.reply(question)
}

/// Answers [`Question::Busy`] and [`Question::Connection`]; `None` ends the iteration.
#[must_use]
pub fn connection(question: &Header, about: Option<(SocketAddrV4, &ConnectionSnapshot)>) -> Vec<u8> {
    let mut body = Words::new(176);
    let Some((peer, conn)) = about else {
        body.u32(4, u32::MAX);
        return body.reply(question);
    };
    body.u32(0, peer.ip().to_bits());
    body.u32(4, conn.cid.0);
    body.u32(8, conn.serial.0);
    body.u32(28, conn.error.0.cast_unsigned());
    body.u16(32, peer.port());
    body.u8(
        35,
        match conn.side {
            Side::Client => 0,
            Side::Service => 1,
        },
    );
    body.u8(36, conn.security.0);
    for (place, call) in conn.calls.iter().enumerate() {
        body.u32(12 + 4 * place, call.number.0);
        body.u8(40 + place, call.state);
        body.u8(44 + place, call.mode);
        body.u8(48 + place, call.flags);
        body.u8(52 + place, call.other);
    }
    body.u8(56, SECURITY_NULL);
    body.u32(132, conn.epoch.0);
    body.reply(question)
}

/// True for the connections that [`Question::Busy`] counts: one with a call that is not over.
#[must_use]
pub fn is_busy(conn: &ConnectionSnapshot) -> bool {
    conn.calls
        .iter()
        .any(|call| call.state == 1 || call.state == 2 || call.mode == 1 || call.mode == 2)
}

/// Calls of a connection that are not over.
#[must_use]
pub fn calls(conn: &ConnectionSnapshot) -> u32 {
    conn.calls
        .iter()
        .map(|call| u32::from(matches!(call.state, 1 | 2 | 4)))
        .sum()
}

/// Answers [`Question::Totals`]; there are `calls` calls at this moment.
#[must_use]
pub fn totals(question: &Header, totals: &Totals, calls: u32) -> Vec<u8> {
    let mut body = Words::new(284);
    body.u32(20, totals.bogus);
    for (place, count) in totals.packets_read.iter().enumerate() {
        body.u32(44 + 4 * place, *count);
    }
    for (place, count) in totals.packets_sent.iter().enumerate() {
        body.u32(112 + 4 * place, *count);
    }
    let [data_read, ack_read, ..] = totals.packets_read;
    let [data_sent, ack_sent, busy_sent, abort_sent, ..] = totals.packets_sent;
    body.u32(96, data_read);
    body.u32(100, ack_read);
    body.u32(104, totals.duplicate);
    body.u32(108, totals.spurious);
    body.u32(164, ack_sent);
    body.u32(168, totals.pings_sent);
    body.u32(172, abort_sent);
    body.u32(176, busy_sent);
    // Those sent once or more; the rest is in the next word.
    body.u32(180, data_sent.wrapping_sub(totals.resent));
    body.u32(184, totals.resent);
    let (least, greatest) = totals.rtt.range();
    body.time(196, totals.rtt.total());
    body.time(204, least);
    body.time(212, greatest);
    body.u32(220, totals.rtt.samples);
    body.u32(224, totals.service_connections);
    body.u32(228, totals.client_connections);
    body.u32(232, totals.peers);
    body.u32(236, calls);
    body.u32(244, totals.send_failures);
    body.u32(252, totals.late);
    body.u32(264, busy_sent);
    body.reply(question)
}

/// Answers [`Question::Peer`]; `None` ends the iteration.
#[must_use]
pub fn peer(question: &Header, about: Option<&PeerSnapshot>) -> Vec<u8> {
    let mut body = Words::new(132);
    let Some(peer) = about else {
        body.u32(0, u32::MAX);
        return body.reply(question);
    };
    body.u32(0, peer.address.ip().to_bits());
    body.u16(4, peer.address.port());
    body.u16(12, peer.connections);
    if let Some(rtt) = peer.rtt {
        body.u32(24, millis(rtt.smoothed * 8));
        body.u32(28, millis(rtt.deviation * 4));
        body.time(32, rtt.timeout);
    }
    body.u32(40, wrapped(peer.packets_sent));
    body.u32(44, wrapped(peer.packets_resent));
    for offset in [6, 60, 62, 68] {
        body.u16(offset, peer.datagram);
    }
    body.u16(64, 1);
    body.u16(66, 1);
    body.put(76, peer.bytes_sent.to_be_bytes());
    body.put(84, peer.bytes_received.to_be_bytes());
    body.reply(question)
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rxdebug expects counters that wrap"
)]
fn wrapped(count: u64) -> u32 {
    count as u32
}

/// Answers [`Question::Unknown`]: both words are the marker of a bad kind.
#[must_use]
pub fn unknown(question: &Header) -> Vec<u8> {
    let mut body = Words::new(8);
    body.u32(0, abort_codes::RX_MSGSIZE.0.cast_unsigned());
    body.u32(4, abort_codes::RX_MSGSIZE.0.cast_unsigned());
    body.reply(question)
}

/// A body of fixed length, filled at offsets.
struct Words(Vec<u8>);

impl Words {
    fn new(len: usize) -> Self {
        Self(vec![0; len])
    }

    fn put<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        if let Some(place) = self.0.get_mut(offset..).and_then(<[u8]>::first_chunk_mut) {
            *place = bytes;
        }
    }

    fn u8(&mut self, offset: usize, value: u8) {
        self.put(offset, [value]);
    }

    fn u16(&mut self, offset: usize, value: u16) {
        self.put(offset, value.to_be_bytes());
    }

    fn u32(&mut self, offset: usize, value: u32) {
        self.put(offset, value.to_be_bytes());
    }

    /// Seconds and microseconds.
    fn time(&mut self, offset: usize, time: Duration) {
        self.u32(offset, u32::try_from(time.as_secs()).unwrap_or(u32::MAX));
        self.u32(offset + 4, time.subsec_micros());
    }

    fn reply(self, question: &Header) -> Vec<u8> {
        datagram(
            &Header {
                flags: Flags::LAST_PACKET,
                ..*question
            },
            &self.0,
        )
    }
}

/// The layouts here are of this version; rxdebug asks no newer ones (`RX_DEBUGI_VERSION`).
const VERSION: u8 = b'S';
const SECURITY_NULL: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::parse;
    use bytes::Bytes;
    use hex_literal::hex;

    fn packet(bytes: &[u8]) -> Packet {
        parse(Bytes::copy_from_slice(bytes)).unwrap().next().unwrap()
    }

    const ASKED: [u8; 36] =
        hex!("000003e7 00000000 00000065 00000000 00000000 08050000 00000000 00000003 00000007");

    #[test]
    fn questions() {
        assert_eq!(Question::parse(&packet(&ASKED)), Some(Question::Connection(7)));
        assert_eq!(
            Question::parse(&packet(&ASKED[..32])),
            Some(Question::Connection(0)),
            "no index"
        );
        assert_eq!(Question::parse(&packet(&ASKED[..30])), None);
        let mut answer = ASKED;
        answer[21] = 0x04;
        assert_eq!(
            Question::parse(&packet(&answer)),
            None,
            "an answer is no question"
        );
    }

    #[test]
    fn replies_have_their_lengths_and_ends() {
        let asked = packet(&ASKED).header;
        let end = connection(&asked, None);
        assert_eq!((end.len(), &end[28 + 4..28 + 8]), (28 + 176, &[0xff; 4][..]));
        assert_eq!(end[21], 0x04);
        let end = peer(&asked, None);
        assert_eq!((end.len(), &end[28..32]), (28 + 132, &[0xff; 4][..]));
        let counted = Totals {
            packets_sent: [10, 5, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            resent: 4,
            pings_sent: 1,
            rtt: {
                let mut rtt = RttTally::of(Duration::from_micros(500));
                rtt.add(&RttTally::of(Duration::from_secs(3)));
                rtt
            },
            ..Totals::default()
        };
        let reply = totals(&asked, &counted, 7);
        assert_eq!(reply.len(), 28 + 284);
        let word = |offset: usize| u32::from_be_bytes(*reply[28 + offset..].first_chunk().unwrap());
        assert_eq!([word(180), word(184), word(168), word(236)], [6, 4, 1, 7]);
        let rtt: Vec<_> = (196..224).step_by(4).map(word).collect();
        assert_eq!(rtt, [3, 500, 0, 500, 3, 0, 2], "total, least, greatest, samples");
        assert_eq!(endpoint(&asked, &Totals::default())[28 + 14], b'S');
        assert_eq!(unknown(&asked)[28..], hex!("fffffff8 fffffff8"));
    }
}
