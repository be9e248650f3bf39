//! A service connection on probation, and what forgers get out of it.

use std::time::Duration;

use bytes::Bytes;

use super::tests::params;
use super::*;
use crate::proto::{
    AckPacket, AckReason, CallNumber, Flags, Header, Packet, PacketType, Rejected, Seq, parse,
};

const SECRET: Serial = Serial(0x1234_5678);

#[expect(
    clippy::disallowed_methods,
    reason = "a first instant, from which the tests count on"
)]
fn start() -> Instant {
    Instant::now()
}

fn doubted(now: Instant) -> Connection {
    let mut service = Connection::new(params(Side::Service));
    service.put_on_probation(now, Some(SECRET));
    service
}

/// What a connection has to send now, and its bytes.
fn sent(conn: &mut Connection, now: Instant) -> (Vec<Packet>, usize) {
    let (mut packets, mut bytes) = (Vec::new(), 0);
    let mut out = Vec::new();
    while let Some(run) = conn.poll_transmit(now, &mut out) {
        bytes += out.len();
        for datagram in out.chunks(run.segment_size) {
            packets.extend(parse(Bytes::copy_from_slice(datagram)).unwrap());
        }
        out.clear();
    }
    (packets, bytes)
}

fn reason(packet: &Packet) -> AckReason {
    assert_eq!(packet.header.packet_type, PacketType::Ack, "{packet:?}");
    AckPacket::parse(&packet.body).unwrap().reason
}

/// A client with a request of `len` bytes on its way.
fn client(now: Instant, len: usize) -> (Connection, Slot) {
    let mut client = Connection::new(params(Side::Client));
    let slot = client.start_call(now, CallLimits::default()).unwrap();
    let mut request = Bytes::from(vec![7; len]);
    client.write(now, slot, &mut request).unwrap();
    client.finish(now, slot).unwrap();
    (client, slot)
}

/// Gives packets to a connection; gives the calls that are to be executed.
fn give(conn: &mut Connection, now: Instant, packets: Vec<Packet>) -> Vec<Slot> {
    let outcomes = packets.into_iter().map(|packet| conn.handle_packet(now, packet));
    outcomes.flat_map(|outcome| outcome.ready).flatten().collect()
}

#[test]
fn an_answer_to_the_ping_lets_the_call_go() {
    let now = start();
    let (mut client, slot) = client(now, 100);
    let mut service = doubted(now);
    let ready = give(&mut service, now, sent(&mut client, now).0);
    assert_eq!(ready, [], "nothing is executed unasked");
    assert_eq!(service.snapshot().calls[0].state, 1, "it waits");
    let (asked, _) = sent(&mut service, now);
    assert_eq!(asked.iter().map(reason).collect::<Vec<_>>(), [AckReason::Ping]);
    give(&mut client, now, asked);
    let ready = give(&mut service, now, sent(&mut client, now).0);
    assert_eq!(ready, [slot]);
    assert!(!service.is_doubted() && service.is_on_probation());
    assert_eq!(service.read(now, slot), Ok(Read::Data(vec![7; 100].into())));
    assert_eq!(service.read(now, slot), Ok(Read::End));
    service.finish(now, slot).unwrap();
    service.release(now, slot);
    assert!(!service.is_on_probation(), "it has served");
    give(&mut client, now, sent(&mut service, now).0);
    assert_eq!(client.read(now, slot), Ok(Read::End));
}

/// Whatever is lost, the client's own timers bring the call through.
#[test]
fn lost_pings_and_answers_are_made_up_for() {
    for lost in 0..3 {
        let mut now = start();
        let (mut client, slot) = client(now, 100);
        let mut service = doubted(now);
        let mut ready = Vec::new();
        for round in 0.. {
            assert!(round < 20, "{lost} answers lost");
            let (packets, _) = sent(&mut client, now);
            ready.extend(give(&mut service, now, packets));
            let (asked, _) = sent(&mut service, now);
            // First the PING is lost, then the answers to it.
            if round > 0 {
                give(&mut client, now, asked);
                let (answers, _) = sent(&mut client, now);
                if round > lost {
                    ready.extend(give(&mut service, now, answers));
                }
            }
            if !ready.is_empty() {
                break;
            }
            let next = client.next_timeout().unwrap();
            now = next;
            client.handle_timeout(now);
        }
        assert_eq!(ready, [slot]);
    }
}

/// Who cannot see what we send to the address that he uses gets nothing executed, and no more out of us than he puts in.
#[test]
fn a_forged_address_gets_nothing_executed() {
    let now = start();
    let (mut client, slot) = client(now, 100);
    let request = sent(&mut client, now).0.remove(0);
    let mut service = doubted(now);
    let (mut packets, mut answers, mut asked_bytes, mut answered_bytes) = (0, 0, 0, 0);
    let mut forge = |service: &mut Connection, packet: Packet| {
        packets += 1;
        asked_bytes += Header::LEN + packet.body.len();
        assert_eq!(give(service, now, vec![packet]), []);
        let (sent, bytes) = sent(service, now);
        assert!(sent.len() <= 1, "{sent:?}");
        answers += sent.len();
        answered_bytes += bytes;
    };
    for _ in 0..10 {
        forge(&mut service, request.clone());
    }
    // Guesses: numbers that others would begin with, none, and the one before the first.
    for serial in (0..1000).chain([SECRET.0, SECRET.0 - 1, u32::MAX, SECRET.0 + 0x4000_0000]) {
        let mut body = Vec::new();
        AckPacket::new(Seq(1), Seq(0), Serial(serial), AckReason::PingResponse).encode(&mut body);
        let header = Header {
            packet_type: PacketType::Ack,
            flags: Flags::CLIENT_INITIATED,
            seq: Seq(0),
            ..request.header
        };
        let body = body.into();
        forge(&mut service, Packet { header, body });
    }
    assert!(service.is_doubted());
    assert!(answers <= packets);
    assert!(
        answered_bytes <= asked_bytes * 3,
        "{answered_bytes} for {asked_bytes}"
    );

    let until = service.next_timeout().unwrap();
    assert_eq!(until, now + Duration::from_secs(20), "no other timer runs");
    let outcome = service.handle_timeout(until);
    assert!(outcome.given_up);
    assert_eq!(service.read(until, slot), Err(CallError::Released));
    assert!(service.is_idle(), "its memory can go");
    assert_eq!(sent(&mut service, until).0, [], "silently");
}

#[test]
fn a_doubted_call_holds_few_packets() {
    let now = start();
    let (mut client, slot) = client(now, 60_000);
    let mut service = doubted(now);
    let header = sent(&mut client, now).0.remove(0).header;
    let mut rejected = Vec::new();
    for seq in 1..200 {
        let header = Header {
            seq: Seq(seq),
            ..header
        };
        let body = Bytes::from(vec![7; 1416]);
        rejected.extend(service.handle_packet(now, Packet { header, body }).rejected);
    }
    assert_eq!(
        rejected
            .iter()
            .filter(|reason| **reason == Rejected::Doubted)
            .count(),
        189
    );
    assert!(service.believe(now).contains(&Some(slot)));
    let mut held = 0;
    while let Ok(Read::Data(_)) = service.read(now, slot) {
        held += 1;
    }
    assert_eq!(held, 10);
    // A first packet that is larger than any path carries begins nothing.
    let mut service = doubted(now);
    let header = Header {
        seq: Seq(1),
        ..header
    };
    let outcome = service.handle_packet(
        now,
        Packet {
            header,
            body: vec![7; 1445].into(),
        },
    );
    assert_eq!(
        (outcome.begun, outcome.rejected),
        (false, Some(Rejected::Doubted))
    );
}

/// A call superseded while it waits is not executed; the one that superseded it is.
#[test]
fn only_the_newest_call_of_a_channel_waits() {
    let now = start();
    let (mut client, slot) = client(now, 100);
    let request = sent(&mut client, now).0.remove(0);
    let mut service = doubted(now);
    assert!(service.handle_packet(now, request.clone()).begun);
    let header = Header {
        call: CallNumber(2),
        ..request.header
    };
    let body = request.body;
    assert!(service.handle_packet(now, Packet { header, body }).begun);
    let ready: Vec<_> = service.believe(now).into_iter().flatten().collect();
    let newest = Slot {
        call: CallNumber(2),
        ..slot
    };
    assert_eq!(ready, [newest]);
}

#[test]
fn a_proven_connection_that_serves_nothing_is_given_up() {
    let now = start();
    let mut service = Connection::new(params(Side::Service));
    service.put_on_probation(now, None);
    let minute = Duration::from_mins(1);
    assert_eq!(service.next_timeout(), Some(now + minute));
    assert!(service.handle_timeout(now + minute).given_up);
    assert_eq!(
        service.next_timeout(),
        Some(now + 2 * minute),
        "packets may still come"
    );

    // One that executes a call goes on.
    let (mut client, slot) = client(now, 100);
    assert_eq!(give(&mut service, now, sent(&mut client, now).0), [slot]);
    assert!(!service.handle_timeout(now + 2 * minute).given_up);
}

#[test]
fn shutdown_and_unreachable_peers_end_what_waits() {
    let ends: [fn(&mut Connection, Instant); 2] = [
        |service, now| assert_eq!(service.close(now), [false; 4]),
        |service, now| assert_eq!(service.unreachable(now, 111, None), [false; 4]),
    ];
    for end in ends {
        let now = start();
        let (mut client, _) = client(now, 100);
        let mut service = doubted(now);
        give(&mut service, now, sent(&mut client, now).0);
        sent(&mut service, now);
        assert!(!service.is_idle());
        end(&mut service, now);
        assert!(service.is_idle());
        assert_eq!(sent(&mut service, now).0, [], "silently");
    }
}
