//! One connection of ours and a peer that a script plays, packet by packet: what other implementations have been seen to
//! do. The list is section 23 of rxrpc.md; `docs/testing.md` says where each of its items is tested.

use std::time::Duration;

use super::tests::params;
use super::*;
use crate::proto::{
    AckPacket, AckReason, AckTrailer, CallNumber, Flags, Header, Packet, PacketType, Rejected, Seq, parse,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// The script's side of a connection. It speaks of the first call on channel 0 unless told otherwise.
struct Script {
    now: Instant,
    ours: Connection,
    call: u32,
    serial: u32,
    /// What the checksum field holds: OpenAFS leaves old values in that of its ACKs.
    cksum: u16,
}

impl Script {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn against(ours: Side) -> Self {
        Self {
            now: Instant::now(),
            ours: Connection::new(params(ours)),
            call: 1,
            serial: 0,
            cksum: 0,
        }
    }

    /// A service, and a call to it whose request it has heard.
    fn called(request: &[u8]) -> (Self, Slot) {
        let mut script = Self::against(Side::Client);
        let slot = script.ours.start_call(script.now, CallLimits::default()).unwrap();
        let mut data = Bytes::copy_from_slice(request);
        script.ours.write(script.now, slot, &mut data).unwrap();
        script.ours.finish(script.now, slot).unwrap();
        assert!(!script.hears().is_empty());
        (script, slot)
    }

    /// Says one datagram. Gives the last outcome.
    fn says(&mut self, packet_type: PacketType, flags: Flags, seq: u32, body: &[u8]) -> Outcome {
        let ConnectionParams {
            side,
            epoch,
            cid,
            service,
            security,
            ..
        } = self.ours.params;
        self.serial += 1;
        let header = Header {
            epoch,
            cid,
            channel: ChannelIndex::from_wire(0),
            call: CallNumber(self.call),
            seq: Seq(seq),
            serial: Serial(self.serial),
            packet_type,
            flags: flags
                | Flags::sent_by(match side {
                    Side::Client => Side::Service,
                    Side::Service => Side::Client,
                }),
            user_status: 0,
            security,
            cksum: self.cksum,
            service,
        };
        let mut datagram = header.to_bytes().to_vec();
        datagram.extend_from_slice(body);
        let mut outcome = Outcome::default();
        for packet in parse(datagram.into()).unwrap() {
            self.serial = packet.header.serial.0;
            outcome = self.ours.handle_packet(self.now, packet);
        }
        outcome
    }

    fn acks(&mut self, ack: AckPacket) -> Outcome {
        let mut body = Vec::new();
        ack.encode(&mut body);
        self.says(PacketType::Ack, Flags::SLOW_START_OK, 0, &body)
    }

    /// All that ours sends now.
    fn hears(&mut self) -> Vec<Packet> {
        let (mut packets, mut out) = (Vec::new(), Vec::new());
        while let Some(run) = self.ours.poll_transmit(self.now, &mut out) {
            for datagram in out.chunks(run.segment_size) {
                packets.extend(parse(Bytes::copy_from_slice(datagram)).unwrap());
            }
            out.clear();
        }
        packets
    }

    /// All that ours sends in this time.
    fn hears_for(&mut self, time: Duration) -> Vec<Packet> {
        let until = self.now + time;
        let mut packets = self.hears();
        while let Some(next) = self.ours.next_timeout().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.ours.handle_timeout(self.now);
            packets.extend(self.hears());
        }
        self.now = until;
        packets
    }

    fn reads(&mut self, slot: Slot) -> Vec<u8> {
        let mut bytes = Vec::new();
        while let Read::Data(data) = self.ours.read(self.now, slot).unwrap() {
            bytes.extend_from_slice(&data);
        }
        bytes
    }
}

fn ack(reason: AckReason, first: u32, previous: u32) -> AckPacket {
    AckPacket::new(Seq(first), Seq(previous), Serial(0), reason)
}

fn ack_of(packet: &Packet) -> AckPacket {
    assert_eq!(packet.header.packet_type, PacketType::Ack);
    AckPacket::parse(&packet.body).unwrap()
}

fn data(packets: &[Packet]) -> impl Iterator<Item = &Header> {
    let headers = packets.iter().map(|packet| &packet.header);
    headers.filter(|header| header.packet_type == PacketType::Data)
}

/// Item 1: packets of 1416 and of 1412 bytes, jumbograms of 2 to 4 parts, the last of which may be empty.
#[test]
fn replies_come_in_packets_of_every_size() {
    let (mut script, slot) = Script::called(b"request");
    let mut expected = vec![1; 1416];
    script.says(PacketType::Data, Flags::NONE, 1, &expected);
    let mut seq = 2;
    for parts in 2..=4_u8 {
        let mut body = Vec::new();
        for part in 1..parts {
            let flags = if part + 1 < parts {
                Flags::JUMBO_PACKET
            } else if parts == 4 {
                Flags::LAST_PACKET
            } else {
                Flags::NONE
            };
            body.extend_from_slice(&[part; 1412]);
            body.extend_from_slice(&[flags.bits(), 0, 0, 0]);
            expected.extend_from_slice(&[part; 1412]);
        }
        if parts < 4 {
            body.push(parts);
            expected.push(parts);
        }
        script.says(PacketType::Data, Flags::JUMBO_PACKET, seq, &body);
        seq += u32::from(parts);
    }
    assert!(script.reads(slot) == expected);
    assert_eq!(script.ours.read(script.now, slot), Ok(Read::End));
    let last = ack_of(script.hears_for(SECOND).last().unwrap());
    assert_eq!((last.first, last.acks.len()), (Seq(11), 0), "the final ACK");
}

/// A sender whose packets are all acked with this trailer: the most that it had in flight from the second round on.
fn most_in_flight(trailer: AckTrailer, garbage: &[u8]) -> u32 {
    let mut script = Script::against(Side::Client);
    script.cksum = 0x0d68;
    let slot = script.ours.start_call(script.now, CallLimits::default()).unwrap();
    let mut rest = Bytes::from(vec![7; 1_000_000]);
    let (mut top, mut most) = (0, 0);
    for round in 0..40 {
        script.ours.write(script.now, slot, &mut rest).unwrap();
        let sent = script.hears_for(MS);
        let Some(newest) = data(&sent).map(|header| header.seq.0).max() else {
            break;
        };
        if round > 0 {
            most = most.max(newest - top);
        }
        top = newest;
        let mut body = Vec::new();
        AckPacket {
            trailer,
            ..ack(AckReason::Idle, top + 1, top)
        }
        .encode(&mut body);
        body.extend_from_slice(garbage);
        let outcome = script.says(PacketType::Ack, Flags::SLOW_START_OK, 0, &body);
        assert_eq!(outcome.rejected, None);
    }
    assert!(script.ours.read(script.now, slot).is_ok());
    most
}

/// Item 2: old peers send fewer words behind an ACK. Two say nothing about the window, three may only narrow it.
#[test]
fn ack_trailers_of_every_length() {
    let whole = |window| AckTrailer::new(5692, 1444, window, 4);
    let three = |window| AckTrailer {
        jumbo_max: None,
        ..whole(window)
    };
    let two = AckTrailer {
        rwind: None,
        ..three(0)
    };
    assert_eq!(most_in_flight(AckTrailer::default(), &[]), 16);
    assert_eq!(most_in_flight(two, &[]), 16);
    assert_eq!(most_in_flight(three(4), &[]), 4);
    assert_eq!(most_in_flight(three(64), &[]), 16);
    assert_eq!(most_in_flight(whole(64), &[]), 64);
    assert_eq!(
        most_in_flight(whole(64), b"garbage"),
        64,
        "what follows is ignored"
    );
    assert_eq!(most_in_flight(whole(1), &[]), 1);
}

/// Item 2: OpenAFS clients before 1.6.23 send a serial where the last packet received belongs.
#[test]
fn a_serial_in_the_place_of_the_previous_packet_is_tolerated() {
    let mut script = Script::against(Side::Client);
    let slot = script.ours.start_call(script.now, CallLimits::default()).unwrap();
    let mut rest = Bytes::from(vec![7; 8 * 1416 + 1]);
    script.ours.write(script.now, slot, &mut rest).unwrap();
    assert_eq!(data(&script.hears()).count(), 8);
    script.acks(AckPacket {
        acks: [false, true].into_iter().collect(),
        ..ack(AckReason::OutOfSequence, 1, 70_000)
    });
    // The next is smaller, and still not older.
    script.acks(AckPacket {
        acks: [true; 8].into_iter().collect(),
        ..ack(AckReason::Idle, 1, 4)
    });
    let again = script.hears_for(20 * SECOND);
    assert_eq!(data(&again).count(), 0, "all are known to have arrived");
}

/// Item 3: a window that closes, and one that shrinks below what is in flight.
#[test]
fn windows_close_shrink_and_open() {
    let mut script = Script::against(Side::Client);
    let limits = CallLimits {
        dead_in: 20 * SECOND,
        ..CallLimits::default()
    };
    let slot = script.ours.start_call(script.now, limits).unwrap();
    let mut rest = Bytes::from(vec![7; 40 * 1416]);
    script.ours.write(script.now, slot, &mut rest).unwrap();
    let sent = data(&script.hears()).count();
    assert!(sent >= 8, "{sent}");
    // It has four of them, and room for two.
    let narrow = |window, first| AckPacket {
        trailer: AckTrailer::new(1444, 1444, window, 1),
        ..ack(AckReason::Idle, first, first - 1)
    };
    script.acks(narrow(2, 5));
    let packets = script.hears_for(10 * MS);
    assert_eq!(
        data(&packets).count(),
        0,
        "more is in flight than it has room for"
    );
    script.acks(narrow(0, u32::try_from(sent).unwrap() + 1));
    for _ in 0..60 {
        let packets = script.hears_for(SECOND);
        assert!(
            data(&packets).all(|header| header.seq.0 == u32::try_from(sent).unwrap() + 1),
            "one probe at the most"
        );
        assert!(packets.len() < 30, "{} packets in a second", packets.len());
        // It is alive, and still has no room.
        script.acks(narrow(0, u32::try_from(sent).unwrap() + 1));
        script.hears();
    }
    assert_eq!(
        script.ours.read(script.now, slot),
        Ok(Read::Pending),
        "still alive after a minute"
    );
    script.acks(narrow(32, u32::try_from(sent).unwrap() + 1));
    assert!(data(&script.hears_for(SECOND)).count() > 1, "open again");
}

/// Item 4: the first packet of a request is lost, the second comes first.
#[test]
fn a_request_may_begin_with_its_second_packet() {
    let mut script = Script::against(Side::Service);
    let begun = script.says(PacketType::Data, Flags::LAST_PACKET, 2, b"second");
    let slot = begun.new_call().unwrap();
    let said = ack_of(&script.hears()[0]);
    assert_eq!(
        (said.reason, said.first, said.previous),
        (AckReason::OutOfSequence, Seq(1), Seq(2))
    );
    assert_eq!(said.acks.iter().collect::<Vec<_>>(), [false, true]);
    script.says(PacketType::Data, Flags::NONE, 1, b"first ");
    assert_eq!(script.reads(slot), b"first second");
    assert_eq!(script.ours.read(script.now, slot), Ok(Read::End));
}

/// Item 4: the final ACK is lost, and the service sends its reply again: one ACK from memory for each stray.
#[test]
fn a_lost_final_ack_is_given_once_for_each_stray() {
    let (mut script, slot) = Script::called(b"request");
    script.says(PacketType::Data, Flags::LAST_PACKET, 1, b"reply");
    assert_eq!(script.reads(slot), b"reply");
    script.ours.release(script.now, slot);
    assert_eq!(script.hears_for(SECOND).len(), 1, "lost");
    for _ in 0..5 {
        script.says(
            PacketType::Data,
            Flags::LAST_PACKET | Flags::REQUEST_ACK,
            1,
            b"reply",
        );
        let answers = script.hears_for(SECOND);
        assert_eq!(answers.len(), 1);
        let said = ack_of(&answers[0]);
        assert_eq!(
            (said.reason, said.first, said.acks.len()),
            (AckReason::Duplicate, Seq(2), 0)
        );
        assert_eq!(said.serial, Serial(script.serial));
    }
    // Those that ask for nothing are not answered.
    script.says(PacketType::Abort, Flags::NONE, 0, &[0, 0, 0, 1]);
    script.acks(ack(AckReason::PingResponse, 2, 1));
    assert_eq!(script.hears_for(SECOND).len(), 0);
    assert!(script.ours.is_idle());
}

/// Item 8: a service that is busy with the call before lives, however long it takes; its abort may come late.
#[test]
fn busy_is_a_sign_of_life_and_an_abort_may_be_late() {
    let mut script = Script::against(Side::Client);
    let limits = CallLimits {
        dead_in: 10 * SECOND,
        ..CallLimits::default()
    };
    let slot = script.ours.start_call(script.now, limits).unwrap();
    script.ours.finish(script.now, slot).unwrap();
    let mut tried = 0;
    for _ in 0..60 {
        tried += data(&script.hears_for(SECOND)).count();
        script.says(PacketType::Busy, Flags::NONE, 0, &[]);
    }
    assert_eq!(script.ours.read(script.now, slot), Ok(Read::Pending));
    assert!(
        (5..15).contains(&tried),
        "tried {tried} times: again and again, and ever more rarely"
    );
    script.says(PacketType::Abort, Flags::NONE, 0, &[0, 0, 0, 7]);
    assert_eq!(
        script.ours.read(script.now, slot),
        Err(CallError::Aborted(AbortCode(7)))
    );
    script.ours.release(script.now, slot);
    assert_eq!(script.hears_for(SECOND).len(), 0, "an ABORT is not answered");
    assert!(script.ours.usable());
}

/// Item 12: a client that comes back under the same epoch and cid begins to count anew. Its calls are stale: they are not
/// answered from the memory of others, until it counts beyond them.
#[test]
fn a_client_that_restarts_under_its_old_name_gets_no_old_answer() {
    let mut script = Script::against(Side::Service);
    script.call = 5;
    let slot = script
        .says(PacketType::Data, Flags::LAST_PACKET, 1, b"old")
        .new_call()
        .unwrap();
    let mut reply = Bytes::from_static(b"an old reply");
    assert_eq!(script.reads(slot), b"old");
    script.ours.write(script.now, slot, &mut reply).unwrap();
    script.ours.finish(script.now, slot).unwrap();
    script.ours.release(script.now, slot);
    script.hears();
    script.acks(ack(AckReason::Delay, 2, 1));
    script.hears_for(SECOND);
    for call in 1..5 {
        script.call = call;
        let outcome = script.says(PacketType::Data, Flags::LAST_PACKET, 1, b"new");
        assert_eq!(
            (outcome.new_call(), outcome.rejected),
            (None, Some(Rejected::StaleCall))
        );
        assert_eq!(script.hears_for(10 * SECOND).len(), 0);
    }
    script.call = 5;
    let outcome = script.says(PacketType::Data, Flags::LAST_PACKET, 1, b"new");
    assert_eq!(
        (outcome.new_call(), script.hears_for(10 * SECOND).len()),
        (None, 0)
    );
    script.call = 6;
    assert!(
        script
            .says(PacketType::Data, Flags::LAST_PACKET, 1, b"new")
            .new_call()
            .is_some()
    );
}

/// Item 14: a call takes its number when it is made, as in OpenAFS. One that is given up before anything was sent leaves
/// no trace on the wire; the next has the next number, and a service takes it.
#[test]
fn a_call_given_up_before_it_was_sent_leaves_a_gap_in_the_numbers() {
    let mut script = Script::against(Side::Client);
    let slot = script.ours.start_call(script.now, CallLimits::default()).unwrap();
    script.ours.abort(script.now, slot, AbortCode(-6));
    script.ours.release(script.now, slot);
    assert_eq!(script.hears_for(SECOND).len(), 0);
    let slot = script.ours.start_call(script.now, CallLimits::default()).unwrap();
    script.ours.finish(script.now, slot).unwrap();
    let sent = script.hears();
    assert_eq!(
        data(&sent).map(|header| header.call).collect::<Vec<_>>(),
        [CallNumber(2)]
    );
    // After it was sent the peer is told.
    script.ours.abort(script.now, slot, AbortCode(-6));
    let told = script.hears();
    assert_eq!((told.len(), told[0].header.packet_type), (1, PacketType::Abort));
    assert_eq!(told[0].body[..], [0xff, 0xff, 0xff, 0xfa]);

    let mut script = Script::against(Side::Service);
    script.call = 2;
    assert!(
        script
            .says(PacketType::Data, Flags::LAST_PACKET, 1, b"x")
            .new_call()
            .is_some()
    );
}

/// Item 15: a service that asks for an ACK of the end of its reply gets one at once. Ours asks only when it sends it again.
#[test]
fn an_ack_of_the_end_of_a_reply_is_asked_for_in_retransmissions_only() {
    let (mut script, slot) = Script::called(b"request");
    script.says(
        PacketType::Data,
        Flags::LAST_PACKET | Flags::REQUEST_ACK,
        1,
        b"reply",
    );
    let said = ack_of(&script.hears()[0]);
    assert_eq!((said.first, said.serial), (Seq(2), Serial(script.serial)));
    assert_eq!(script.reads(slot), b"reply");

    let mut script = Script::against(Side::Service);
    let slot = script
        .says(PacketType::Data, Flags::LAST_PACKET, 1, b"request")
        .new_call()
        .unwrap();
    script.reads(slot);
    script.ours.finish(script.now, slot).unwrap();
    script.ours.release(script.now, slot);
    let first = script.hears();
    assert!(data(&first).all(|header| header.flags.last() && !header.flags.request_ack()));
    let again = script.hears_for(10 * SECOND);
    assert!(data(&again).count() > 0);
    assert!(data(&again).all(|header| header.flags.request_ack()));
}

/// Item 9, of a connection without security: there is nothing to answer, and nothing more to say to who asks.
#[test]
fn a_challenge_without_a_secret_ends_the_connection() {
    for body in [&[0; 16][..], &[0; 8]] {
        let (mut script, slot) = Script::called(b"request");
        script.call = 0;
        let outcome = script.says(PacketType::Challenge, Flags::NONE, 0, body);
        assert_eq!(outcome.rejected, Some(Rejected::BadChallenge));
        assert_eq!(script.hears().len(), 1, "an ABORT");
        let code = abort_codes::RX_PROTOCOL_ERROR;
        assert_eq!(script.ours.read(script.now, slot), Err(CallError::Protocol(code)));
    }
}

/// A part of a request comes late, to a service that has restarted since: the client has ended the call, and answers every
/// PING from memory for ever. The service gives the call up after a minute. Its own slowness has no limit.
#[test]
fn a_request_that_stops_arriving_is_given_up() {
    let mut script = Script::against(Side::Service);
    let slot = script
        .says(PacketType::Data, Flags::NONE, 1, b"part")
        .new_call()
        .unwrap();
    assert_eq!(script.reads(slot), b"part");
    let mut seconds = 0;
    while script.ours.read(script.now, slot) == Ok(Read::Pending) {
        script.hears_for(SECOND);
        script.acks(ack(AckReason::Duplicate, 2, 1));
        seconds += 1;
        assert!(seconds <= 61, "it goes on for ever");
    }
    assert_eq!(script.ours.read(script.now, slot), Err(CallError::TimedOut));

    let mut script = Script::against(Side::Service);
    let slot = script
        .says(PacketType::Data, Flags::LAST_PACKET, 1, b"request")
        .new_call()
        .unwrap();
    assert_eq!(script.reads(slot), b"request");
    assert_eq!(script.hears_for(600 * SECOND).len(), 1, "one ACK while it works");
    script.ours.finish(script.now, slot).unwrap();
    assert_eq!(data(&script.hears()).count(), 1);
}
