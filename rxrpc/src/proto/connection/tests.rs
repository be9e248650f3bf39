//! Two connections face to face, without a network: what one lays out the other takes, or not.

mod authentication;
mod jumbo;
mod path;
mod upgrade;

use std::collections::VecDeque;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::proto::{
    AckPacket, CallNumber, DATAGRAM_USUAL, Flags, Header, Packet, PacketType, Rejected, Seq, parse,
};

const MS: Duration = Duration::from_millis(1);

/// A client and a service with time of their own.
struct Pair {
    now: Instant,
    client: Connection,
    service: Connection,
    /// Datagrams under way, each with the side that it is for.
    wire: VecDeque<(Side, Bytes)>,
    sent: Vec<(Side, Header)>,
    /// Longer datagrams are lost, unless they may travel in fragments.
    mtu: usize,
    fragments: bool,
    /// All that was ever put on the wire.
    datagrams: Vec<Bytes>,
    calls: Vec<Slot>,
    rejected: Vec<Rejected>,
}

pub(super) fn params(side: Side) -> ConnectionParams {
    ConnectionParams {
        side,
        epoch: Epoch(0x8000_0001),
        cid: ConnectionId(0x10),
        service: ServiceId(1),
        upgrade: Upgrade::default(),
        security: SecurityIndex(0),
        window: 64,
        datagram: DATAGRAM_USUAL,
        jumbograms: false,
    }
}

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn pair() -> Pair {
    Pair {
        now: Instant::now(),
        client: Connection::new(params(Side::Client)),
        service: Connection::new(params(Side::Service)),
        wire: VecDeque::new(),
        sent: Vec::new(),
        mtu: usize::MAX,
        fragments: false,
        datagrams: Vec::new(),
        calls: Vec::new(),
        rejected: Vec::new(),
    }
}

impl Pair {
    fn side(&mut self, side: Side) -> &mut Connection {
        match side {
            Side::Client => &mut self.client,
            Side::Service => &mut self.service,
        }
    }

    /// Puts what both sides have to send on the wire.
    fn flush(&mut self) {
        for (from, to) in [(Side::Client, Side::Service), (Side::Service, Side::Client)] {
            let now = self.now;
            loop {
                let mut out = Vec::new();
                let Some(run) = self.side(from).poll_transmit(now, &mut out) else {
                    break;
                };
                assert_eq!(
                    out.chunks(run.segment_size).count(),
                    run.count,
                    "a run is what it says"
                );
                for datagram in out.chunks(run.segment_size) {
                    let datagram = Bytes::copy_from_slice(datagram);
                    self.sent.push((from, *parse(datagram.clone()).unwrap().header()));
                    self.datagrams.push(datagram.clone());
                    self.wire.push_back((to, datagram));
                }
            }
        }
    }

    fn deliver(&mut self, side: Side, datagram: Bytes) {
        let now = self.now;
        for packet in parse(datagram).unwrap() {
            let outcome = self.side(side).handle_packet(now, packet);
            self.calls.extend(outcome.ready.into_iter().flatten());
            self.rejected.extend(outcome.rejected);
        }
    }

    /// Delivers everything until the wire is silent; `lose` decides about each datagram.
    fn settle(&mut self, mut lose: impl FnMut(Side) -> bool) {
        self.flush();
        while let Some((side, datagram)) = self.wire.pop_front() {
            let fits = self.fragments || datagram.len() <= self.mtu;
            if !lose(side) && fits {
                self.deliver(side, datagram);
            }
            self.flush();
        }
    }

    /// Moves time to the next deadline; false if there is none.
    fn wait(&mut self) -> bool {
        let next = [self.client.next_timeout(), self.service.next_timeout()]
            .into_iter()
            .flatten()
            .min();
        let Some(next) = next else { return false };
        self.now = self.now.max(next);
        let now = self.now;
        self.client.handle_timeout(now);
        self.service.handle_timeout(now);
        let holes = [self.client.take_black_hole(), self.service.take_black_hole()];
        self.fragments |= holes.contains(&true);
        true
    }

    fn start(&mut self, limits: CallLimits) -> Slot {
        self.client.start_call(self.now, limits).unwrap()
    }

    /// Packets of a type that a side has sent.
    fn count(&self, side: Side, packet_type: PacketType) -> usize {
        self.sent
            .iter()
            .filter(|(from, header)| *from == side && header.packet_type == packet_type)
            .count()
    }
}

/// Reads what is there; `None` at the end.
fn read_all(conn: &mut Connection, now: Instant, slot: Slot, into: &mut Vec<u8>) -> Option<()> {
    loop {
        match conn.read(now, slot).unwrap() {
            Read::Data(data) => into.extend_from_slice(&data),
            Read::Pending => return Some(()),
            Read::End => return None,
        }
    }
}

/// One call that is answered with what it sent, whatever is lost. Gives the reply.
fn echo(pair: &mut Pair, request: &[u8], mut lose: impl FnMut(Side) -> bool) -> Vec<u8> {
    let slot = pair.start(CallLimits::default());
    let mut rest = Bytes::copy_from_slice(request);
    let (mut finished, mut heard, mut replied, mut reply) = (false, Vec::new(), None, Vec::new());
    let mut answering = None;
    for _ in 0..100_000 {
        let now = pair.now;
        if !finished {
            pair.client.write(now, slot, &mut rest).unwrap();
            if rest.is_empty() {
                pair.client.finish(now, slot).unwrap();
                finished = true;
            }
        }
        pair.settle(&mut lose);
        if answering.is_none() {
            answering = pair.calls.pop();
        }
        if let Some(call) = answering {
            if replied.is_none() && read_all(&mut pair.service, now, call, &mut heard).is_none() {
                replied = Some(Bytes::from(heard.clone()));
            }
            if let Some(left) = &mut replied
                && pair.service.write(now, call, left).is_ok()
                && left.is_empty()
                && pair.service.finish(now, call).is_ok()
            {
                pair.service.release(now, call);
                answering = Some(Slot {
                    call: CallNumber(u32::MAX),
                    ..call
                });
                replied = Some(Bytes::new());
            }
        }
        pair.settle(&mut lose);
        if finished && read_all(&mut pair.client, now, slot, &mut reply).is_none() {
            pair.client.release(now, slot);
            pair.settle(&mut lose);
            return reply;
        }
        // Nothing is delivered between the last look and the wait: what came would not be seen.
        pair.flush();
        if pair.wire.is_empty() {
            assert!(pair.wait(), "nothing under way and no timer: {pair:?}");
        }
    }
    panic!("the call goes on for ever");
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} {:?} {:?}",
            self.client.snapshot(),
            self.service.snapshot(),
            self.rejected
        )
    }
}

fn nothing_lost(_: Side) -> bool {
    false
}

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

#[test]
fn a_call_is_a_request_a_reply_and_a_final_ack() {
    let mut pair = pair();
    assert_eq!(echo(&mut pair, b"hello", nothing_lost), b"hello");
    assert!(!pair.client.is_idle(), "the final ACK is still to come");
    while pair.wait() {
        pair.settle(nothing_lost);
    }
    assert!(pair.client.is_idle() && pair.service.is_idle());
    assert_eq!(
        (
            pair.count(Side::Client, PacketType::Data),
            pair.count(Side::Service, PacketType::Data)
        ),
        (1, 1)
    );
    assert!(pair.count(Side::Client, PacketType::Ack) <= 2);
    assert_eq!(pair.rejected, []);
}

#[test]
fn data_of_the_next_call_is_the_final_ack_of_the_last() {
    let mut pair = pair();
    for _ in 0..10 {
        assert_eq!(echo(&mut pair, b"again", nothing_lost), b"again");
    }
    let final_acks = pair.count(Side::Client, PacketType::Ack);
    while pair.wait() {
        pair.settle(nothing_lost);
    }
    assert_eq!(
        pair.count(Side::Client, PacketType::Ack),
        final_acks + 1,
        "only the last call needs one"
    );
    assert!(pair.client.is_idle() && pair.service.is_idle());
}

#[test]
fn sizes_around_packets_and_windows() {
    let mut pair = pair();
    for len in [
        1,
        1415,
        1416,
        1417,
        2832,
        2833,
        16 * 1416,
        17 * 1416,
        64 * 1416 + 1,
        500_000,
    ] {
        assert!(
            echo(&mut pair, &pattern(len), nothing_lost) == pattern(len),
            "{len}"
        );
    }
    // A window that a slow reader has closed is probed with one packet.
    assert!(
        pair.rejected
            .iter()
            .all(|reason| *reason == Rejected::BeyondWindow),
        "{:?}",
        pair.rejected
    );
}

#[test]
fn a_lost_final_ack_is_sent_again_from_memory() {
    let mut pair = pair();
    let slot = pair.start(CallLimits::default());
    pair.client.finish(pair.now, slot).unwrap();
    pair.settle(nothing_lost);
    let call = pair.calls.pop().unwrap();
    let mut data = Bytes::from_static(b"reply");
    assert_eq!(pair.service.read(pair.now, call), Ok(Read::End));
    pair.service.write(pair.now, call, &mut data).unwrap();
    pair.service.finish(pair.now, call).unwrap();
    pair.service.release(pair.now, call);
    pair.settle(nothing_lost);
    assert_eq!(
        pair.client.read(pair.now, slot),
        Ok(Read::Data(Bytes::from_static(b"reply")))
    );
    assert_eq!(pair.client.read(pair.now, slot), Ok(Read::End));
    pair.client.release(pair.now, slot);
    // The final ACK, and everything until the service sends its reply again.
    let lost_until = pair.now + 100 * MS;
    while pair.now < lost_until {
        assert!(pair.wait());
        pair.settle(|to| to == Side::Service);
    }
    assert!(!pair.service.is_idle());
    for _ in 0..4 {
        pair.settle(nothing_lost);
        pair.wait();
    }
    assert!(pair.service.is_idle(), "{pair:?}");
    assert!(pair.rejected.contains(&Rejected::CallOver));
}

#[test]
fn aborts_end_calls_and_leave_channels() {
    let mut pair = pair();
    let slot = pair.start(CallLimits::default());
    pair.client.finish(pair.now, slot).unwrap();
    pair.settle(nothing_lost);
    let call = pair.calls.pop().unwrap();
    pair.service.abort(pair.now, call, AbortCode(42));
    pair.service.release(pair.now, call);
    pair.settle(nothing_lost);
    assert_eq!(
        pair.client.read(pair.now, slot),
        Err(CallError::Aborted(AbortCode(42)))
    );
    pair.client.release(pair.now, slot);
    assert!(pair.client.usable());
    assert_eq!(echo(&mut pair, b"next", nothing_lost), b"next");

    // One that the peer never heard of is not aborted on the wire.
    let slot = pair.start(CallLimits::default());
    pair.client.abort(pair.now, slot, AbortCode(7));
    pair.client.release(pair.now, slot);
    let before = pair.count(Side::Client, PacketType::Abort);
    pair.settle(nothing_lost);
    assert_eq!(pair.count(Side::Client, PacketType::Abort), before);
    assert_eq!(
        pair.client.read(pair.now, slot),
        Err(CallError::Released),
        "the slot names nothing any more"
    );
}

#[test]
fn four_calls_at_a_time() {
    let mut pair = pair();
    let slots: Vec<_> = (0..4).map(|_| pair.start(CallLimits::default())).collect();
    assert_eq!(pair.client.start_call(pair.now, CallLimits::default()), None);
    for slot in &slots {
        pair.client.finish(pair.now, *slot).unwrap();
    }
    pair.settle(nothing_lost);
    assert_eq!(pair.calls.len(), 4);
    pair.client.release(pair.now, slots[2]);
    assert_eq!(
        pair.start(CallLimits::default()),
        Slot {
            channel: slots[2].channel,
            call: CallNumber(2)
        }
    );
}

#[test]
fn silence_is_death_and_pings_keep_alive() {
    let mut pair = pair();
    let limits = CallLimits {
        dead_in: Duration::from_secs(10),
        ..CallLimits::default()
    };
    let slot = pair.start(limits);
    pair.client.finish(pair.now, slot).unwrap();
    pair.settle(nothing_lost);
    // The service works for a minute: pings are answered.
    let start = pair.now;
    while pair.now < start + Duration::from_secs(60) {
        assert!(pair.wait());
        pair.settle(nothing_lost);
        assert_eq!(pair.client.read(pair.now, slot), Ok(Read::Pending));
    }
    // Then it is gone.
    let silent = pair.now;
    while pair.client.read(pair.now, slot) == Ok(Read::Pending) {
        assert!(pair.wait());
        pair.settle(|to| to == Side::Service);
    }
    assert_eq!(pair.client.read(pair.now, slot), Err(CallError::PeerDead));
    assert!(pair.now <= silent + Duration::from_secs(11));
}

#[test]
fn limits_end_calls_of_a_peer_that_lives() {
    for (limits, least) in [
        (
            CallLimits {
                idle_in: Some(Duration::from_secs(20)),
                ..CallLimits::default()
            },
            20,
        ),
        (
            CallLimits {
                hard_in: Some(Duration::from_secs(30)),
                ..CallLimits::default()
            },
            30,
        ),
    ] {
        let mut pair = pair();
        let slot = pair.start(limits);
        pair.client.finish(pair.now, slot).unwrap();
        pair.settle(nothing_lost);
        let start = pair.now;
        while pair.client.read(pair.now, slot) == Ok(Read::Pending) {
            assert!(pair.wait());
            pair.settle(nothing_lost);
        }
        assert_eq!(pair.client.read(pair.now, slot), Err(CallError::TimedOut));
        assert_eq!((pair.now - start).as_secs(), least);
    }
}

#[test]
fn a_raw_abort_without_a_service_ends_the_call() {
    let mut pair = pair();
    let slot = pair.start(CallLimits::default());
    pair.client.finish(pair.now, slot).unwrap();
    pair.flush();
    pair.wire.clear();
    let header = Header {
        packet_type: PacketType::Abort,
        flags: Flags::NONE,
        seq: Seq(0),
        serial: Serial(0),
        service: ServiceId(0),
        ..pair.sent[0].1
    };
    let body = Bytes::from_static(&[0xff, 0xff, 0xff, 0xfe]);
    pair.client.handle_packet(pair.now, Packet { header, body });
    assert_eq!(
        pair.client.read(pair.now, slot),
        Err(CallError::Aborted(AbortCode(-2)))
    );
}

#[test]
fn a_connection_abort_ends_all_calls_and_the_connection() {
    let mut pair = pair();
    let slots = [
        pair.start(CallLimits::default()),
        pair.start(CallLimits::default()),
    ];
    let finished = slots.map(|slot| pair.client.finish(pair.now, slot));
    assert_eq!(finished, [Ok(()), Ok(())]);
    pair.flush();
    let header = Header {
        packet_type: PacketType::Abort,
        flags: Flags::NONE,
        call: CallNumber(0),
        seq: Seq(0),
        ..pair.sent[0].1
    };
    pair.client.handle_packet(
        pair.now,
        Packet {
            header,
            body: Bytes::from_static(&[0, 0, 0, 9]),
        },
    );
    for slot in slots {
        assert_eq!(
            pair.client.read(pair.now, slot),
            Err(CallError::ConnectionAborted(AbortCode(9)))
        );
    }
    assert!(!pair.client.usable() && pair.client.is_aborted());
}

#[test]
fn a_new_call_on_a_busy_channel_ends_the_old_one() {
    let mut pair = pair();
    let slot = pair.start(CallLimits::default());
    pair.client.finish(pair.now, slot).unwrap();
    pair.settle(nothing_lost);
    let old = pair.calls.pop().unwrap();
    // The client gives up, its ABORT is lost, and it calls again.
    pair.client.abort(pair.now, slot, AbortCode(-6));
    pair.client.release(pair.now, slot);
    pair.flush();
    pair.wire.clear();
    let slot = pair.start(CallLimits::default());
    pair.client.finish(pair.now, slot).unwrap();
    pair.settle(nothing_lost);
    assert_eq!(pair.service.read(pair.now, old), Err(CallError::Released));
    assert_eq!(pair.calls.pop(), Some(slot));
}

/// A server that goes away waits for the acknowledgement of its last reply; the client's next call is one.
#[test]
fn a_new_call_on_a_closed_connection_is_the_final_ack_of_the_last() {
    for closes in [Connection::close, Connection::give_up] {
        let mut pair = pair();
        let slot = pair.start(CallLimits::default());
        pair.client.finish(pair.now, slot).unwrap();
        pair.settle(nothing_lost);
        let call = pair.calls.pop().unwrap();
        pair.service.finish(pair.now, call).unwrap();
        pair.service.release(pair.now, call);
        pair.settle(nothing_lost);
        assert_eq!(pair.client.read(pair.now, slot), Ok(Read::End));
        pair.client.release(pair.now, slot);
        assert_eq!(pair.service.close(pair.now), [false; 4]);
        assert!(!pair.service.is_idle(), "the reply may not have arrived");
        closes(&mut pair.service, pair.now);
        let next = pair.start(CallLimits::default());
        pair.client.finish(pair.now, next).unwrap();
        pair.settle(nothing_lost);
        assert_eq!(pair.calls, [], "no call begins any more");
        assert!(pair.service.is_idle());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is lost, the bytes are those that were sent.
    #[test]
    fn calls_survive_loss(len in 0_usize..60_000, seed: u64, percent in 0_u64..35) {
        let mut state = seed | 1;
        let lose = move |_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % 100 < percent
        };
        let mut pair = pair();
        prop_assert!(echo(&mut pair, &pattern(len), lose) == pattern(len));
    }

    /// No packet with the right names makes either side panic, and none harms the call on another channel.
    #[test]
    fn strange_packets_are_harmless(
        packets in proptest::collection::vec((0_u8..14, any::<u8>(), 0_u32..4, 0_u32..6, any::<u32>(), any::<Vec<u8>>()), 0..60)
    ) {
        let mut pair = pair();
        let slot = pair.start(CallLimits::default());
        pair.client.finish(pair.now, slot).unwrap();
        pair.flush();
        let template = pair.sent[0].1;
        for (number, bits, channel, call, seq, body) in packets {
            let Some(packet_type) = PacketType::from_number(number) else { continue };
            // Channel 0 has the call: the strange packets are for the others, or for nothing.
            let header = Header {
                packet_type,
                flags: Flags::from_bits(bits),
                channel: ChannelIndex::from_wire(channel.max(1)),
                call: CallNumber(call.max(1)),
                seq: Seq(seq),
                ..template
            };
            let mut datagram = header.to_bytes().to_vec();
            datagram.extend_from_slice(&body);
            if let Ok(parsed) = parse(datagram.into()) {
                for packet in parsed {
                    let now = pair.now;
                    pair.client.handle_packet(now, packet.clone());
                    pair.service.handle_packet(now, packet);
                }
            }
        }
        prop_assert_eq!(pair.client.read(pair.now, slot), Ok(Read::Pending));
    }
}
