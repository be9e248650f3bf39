//! One connection whose peer is played by hand, packet by packet.

use std::time::Duration;

use super::tests::params;
use super::*;
use crate::proto::{AckPacket, AckReason, AckTrailer, Flags, Header, Packet, PacketType, Resent, Seq, parse};

/// A connection and the next serial of its peer.
pub(super) struct ByHand {
    pub(super) now: Instant,
    pub(super) conn: Connection,
    pub(super) serial: u32,
    pub(super) slot: Slot,
    /// What is still to be written, and whether that is the end.
    rest: Bytes,
    ending: bool,
    /// What it has sent again, by reason.
    pub(super) resent: Resent,
}

impl ByHand {
    /// A client with one call, nothing of it written.
    pub(super) fn client() -> Self {
        let mut hand = Self::of(Side::Client);
        let limits = CallLimits::default();
        hand.slot = hand.conn.start_call(hand.now, limits).unwrap();
        hand
    }

    /// A service without a call: its first is on channel 0.
    pub(super) fn service() -> Self {
        Self::of(Side::Service)
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn of(side: Side) -> Self {
        Self {
            now: Instant::now(),
            conn: Connection::new(params(side)),
            serial: 0,
            slot: Slot {
                channel: ChannelIndex::ALL[0],
                call: crate::proto::CallNumber(1),
            },
            rest: Bytes::new(),
            ending: false,
            resent: Resent::default(),
        }
    }

    /// A client that has a request of `packets` full packets to send, all of them and LAST.
    pub(super) fn sending(packets: usize) -> Self {
        let mut hand = Self::client();
        hand.ending = true;
        hand.write(packets);
        hand
    }

    /// A client whose peer is `round_trip` away, as measured, with a request to send.
    pub(super) fn sending_over(round_trip: Duration, packets: usize) -> Self {
        let mut hand = Self::client();
        hand.measured(round_trip);
        hand.ending = true;
        hand.write(packets);
        hand
    }

    /// A service that has a reply of `packets` full packets to send.
    pub(super) fn replying(packets: usize) -> Self {
        let mut hand = Self::service();
        hand.data(1, Flags::LAST_PACKET);
        hand.conn.read(hand.now, hand.slot).unwrap();
        assert_eq!(hand.conn.read(hand.now, hand.slot), Ok(Read::End));
        hand.ending = true;
        hand.write(packets);
        hand
    }

    /// The round trip is known.
    pub(super) fn measured(&mut self, round_trip: Duration) {
        for _ in 0..3 {
            self.conn.rtt.sample(self.now, round_trip);
        }
    }

    /// Has so many full packets written, as soon as there is room.
    pub(super) fn write(&mut self, packets: usize) {
        self.rest = Bytes::from(vec![0; packets * 1416]);
        self.go_on();
    }

    fn go_on(&mut self) {
        if !self.rest.is_empty() && self.conn.write(self.now, self.slot, &mut self.rest).is_err() {
            self.rest.clear();
        }
        if self.ending && self.rest.is_empty() {
            self.ending = false;
            // A call that has ended in the meantime says so when it is read.
            let _ = self.conn.finish(self.now, self.slot);
        }
    }

    fn header(&mut self, packet_type: PacketType, flags: Flags, seq: u32) -> Header {
        self.serial += 1;
        let params = &self.conn.params;
        let from_client = match params.side {
            Side::Client => Side::Service,
            Side::Service => Side::Client,
        };
        Header {
            epoch: params.epoch,
            cid: params.cid,
            channel: self.slot.channel,
            call: self.slot.call,
            seq: Seq(seq),
            serial: Serial(self.serial),
            packet_type,
            flags: flags | Flags::sent_by(from_client),
            user_status: 0,
            security: params.security,
            cksum: 0,
            service: params.service,
        }
    }

    /// A packet of this type, with this body, comes from the peer.
    pub(super) fn take(&mut self, packet_type: PacketType, flags: Flags, seq: u32, body: Bytes) -> Outcome {
        let header = self.header(packet_type, flags, seq);
        self.conn.handle_packet(self.now, Packet { header, body })
    }

    /// DATA comes.
    pub(super) fn data(&mut self, seq: u32, flags: Flags) -> Outcome {
        self.take(PacketType::Data, flags, seq, Bytes::from_static(b"x"))
    }

    /// An ACK comes.
    pub(super) fn ack(&mut self, ack: AckPacket, flags: Flags) -> Outcome {
        let mut body = Vec::new();
        ack.encode(&mut body);
        self.take(PacketType::Ack, flags, 0, body.into())
    }

    /// An ACK comes that answers to `serial`, with a window of 255.
    pub(super) fn acked(&mut self, first: u32, serial: u32, reason: AckReason, table: &[u8]) -> Outcome {
        self.ack(said(first, serial, reason, table), Flags::NONE)
    }

    /// All that is to be sent now.
    pub(super) fn sent(&mut self) -> Vec<Packet> {
        self.go_on();
        let mut packets = Vec::new();
        let mut out = Vec::new();
        while let Some(run) = self.conn.poll_transmit(self.now, &mut out) {
            self.resent.add(&run.resent);
            for datagram in out.chunks(run.segment_size) {
                packets.extend(parse(Bytes::copy_from_slice(datagram)).unwrap());
            }
            out.clear();
        }
        packets
    }

    /// The sequence numbers of the DATA among it.
    pub(super) fn sent_data(&mut self) -> Vec<u32> {
        let data = |packet: &Packet| packet.header.packet_type == PacketType::Data;
        self.sent()
            .iter()
            .filter(|packet| data(packet))
            .map(|packet| packet.header.seq.0)
            .collect()
    }

    /// The ACKs among it.
    pub(super) fn sent_acks(&mut self) -> Vec<AckPacket> {
        self.sent()
            .iter()
            .filter(|packet| packet.header.packet_type == PacketType::Ack)
            .map(|packet| AckPacket::parse(&packet.body).unwrap())
            .collect()
    }

    /// Time passes, timers fire as they are due, and what they send is given with the time since `self.now`.
    pub(super) fn wait(&mut self, time: Duration) -> Vec<(Duration, Packet)> {
        let (start, end) = (self.now, self.now + time);
        let mut packets = Vec::new();
        while let Some(at) = self.conn.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.conn.handle_timeout(self.now);
            let since = self.now - start;
            packets.extend(self.sent().into_iter().map(|packet| (since, packet)));
        }
        self.now = end;
        packets
    }
}

/// An ACK with a window of 255.
pub(super) fn said(first: u32, serial: u32, reason: AckReason, table: &[u8]) -> AckPacket {
    let len = u32::try_from(table.len()).unwrap();
    let previous = Seq(first.wrapping_add(len).wrapping_sub(1));
    AckPacket {
        acks: table.iter().map(|entry| *entry == 1).collect(),
        trailer: AckTrailer::new(1444, 1444, 255, 1),
        ..AckPacket::new(Seq(first), previous, Serial(serial), reason)
    }
}
