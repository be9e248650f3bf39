//! One packet for each rule of a connection: how it is counted, and what is sent in answer.

use bytes::Bytes;

use super::tests::params;
use super::*;
use crate::proto::{
    AckPacket, AckReason, BadAck, CallNumber, Flags, Header, Packet, PacketType, Place, Rejected, Sealed,
    Seq, parse,
};

/// What a packet is answered with.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Nothing,
    Ack(AckReason),
    Abort(AbortCode),
}

const BROKEN: Answer = Answer::Abort(abort_codes::RX_PROTOCOL_ERROR);

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

fn packet(header: Header, body: &[u8]) -> Packet {
    let body = Bytes::copy_from_slice(body);
    Packet { header, body }
}

/// What `conn` sends now, at the most one packet.
fn answer(conn: &mut Connection, now: Instant) -> Answer {
    let mut out = Vec::new();
    let Some(run) = conn.poll_transmit(now, &mut out) else {
        return Answer::Nothing;
    };
    assert_eq!(run.count, 1, "one answer to one packet");
    let packet = parse(out.into()).unwrap().next().unwrap();
    match packet.header.packet_type {
        PacketType::Ack => Answer::Ack(AckPacket::parse(&packet.body).unwrap().reason),
        PacketType::Abort => {
            Answer::Abort(AbortCode(i32::from_be_bytes(packet.body[..].try_into().unwrap())))
        }
        other => panic!("{other:?}"),
    }
}

/// DATA that begins the second call of a channel and has more to come.
fn first() -> Header {
    let params = params(Side::Client);
    Header {
        epoch: params.epoch,
        cid: params.cid,
        channel: ChannelIndex::ALL[0],
        call: CallNumber(2),
        seq: Seq(1),
        serial: Serial(1),
        packet_type: PacketType::Data,
        flags: Flags::CLIENT_INITIATED,
        user_status: 0,
        security: params.security,
        cksum: 0,
        service: params.service,
    }
}

/// A service that has had the first packet of a call.
fn service(now: Instant) -> Connection {
    let mut service = Connection::new(params(Side::Service));
    assert!(service.handle_packet(now, packet(first(), b"request")).begun);
    assert_eq!(answer(&mut service, now), Answer::Nothing);
    service
}

#[test]
fn each_rule_of_a_service_has_its_name_and_its_answer() {
    use Answer::{Ack, Nothing};
    let data = first();
    let of = |packet_type| Header {
        packet_type,
        seq: Seq(0),
        ..data
    };
    let seq = |number| Header {
        seq: Seq(number),
        ..data
    };
    let call = |number, header| Header {
        call: CallNumber(number),
        ..header
    };
    let mut zero = Vec::new();
    AckPacket::new(Seq(0), Seq(0), Serial(0), AckReason::Idle).encode(&mut zero);
    let mut ahead = Vec::new();
    AckPacket::new(Seq(9), Seq(8), Serial(0), AckReason::Idle).encode(&mut ahead);
    let cases: [(Rejected, Header, &[u8], Answer); 14] = [
        (
            Rejected::SecurityMismatch,
            Header {
                security: SecurityIndex(2),
                ..data
            },
            b"",
            Nothing,
        ),
        (
            Rejected::ServiceMismatch,
            Header {
                service: ServiceId(9),
                ..data
            },
            b"",
            Nothing,
        ),
        (Rejected::StaleCall, call(1, data), b"", Nothing),
        (
            Rejected::UnknownCall,
            call(3, of(PacketType::Ack)),
            &[0; 30],
            Nothing,
        ),
        (Rejected::UnknownCall, call(3, seq(65)), b"", Nothing),
        (
            Rejected::NothingAsked,
            call(0, of(PacketType::Response)),
            &[0; 30],
            BROKEN,
        ),
        (Rejected::Unexpected, of(PacketType::Response), &[0; 30], Nothing),
        (Rejected::Duplicate, data, b"request", Ack(AckReason::Duplicate)),
        (
            Rejected::BeyondWindow,
            seq(66),
            b"",
            Ack(AckReason::ExceedsWindow),
        ),
        (
            Rejected::EndMoved,
            Header {
                flags: data.flags | Flags::LAST_PACKET,
                ..data
            },
            b"",
            BROKEN,
        ),
        (
            Rejected::BadAck(BadAck::Short),
            of(PacketType::Ack),
            &[0; 17],
            BROKEN,
        ),
        (
            Rejected::BadAck(BadAck::FirstZero),
            of(PacketType::Ack),
            &zero,
            BROKEN,
        ),
        (
            Rejected::BadAck(BadAck::TableCut),
            of(PacketType::Ack),
            &[9; 20],
            BROKEN,
        ),
        (Rejected::AckBeyondSent, of(PacketType::Ack), &ahead, BROKEN),
    ];
    for (reason, header, body, expected) in cases {
        let now = start();
        let mut service = service(now);
        if reason == Rejected::AckBeyondSent {
            // Only what sends can be acknowledged.
            let last = Header {
                seq: Seq(2),
                flags: data.flags | Flags::LAST_PACKET,
                ..data
            };
            let slot = Slot {
                channel: data.channel,
                call: data.call,
            };
            service.handle_packet(now, packet(last, b""));
            service
                .write(now, slot, &mut Bytes::from_static(b"reply"))
                .unwrap();
            answer(&mut service, now);
        }
        let outcome = service.handle_packet(now, packet(header, body));
        assert_eq!(outcome.rejected, Some(reason));
        assert_eq!(answer(&mut service, now), expected, "{reason:?}");
        assert_eq!(answer(&mut service, now), Nothing, "{reason:?}: once");
    }
}

#[test]
fn strays_are_answered_one_to_one_from_memory() {
    let now = start();
    let mut service = service(now);
    let slot = Slot {
        channel: first().channel,
        call: first().call,
    };
    service.abort(now, slot, AbortCode(7));
    service.release(now, slot);
    assert_eq!(answer(&mut service, now), Answer::Abort(AbortCode(7)));
    for _ in 0..5 {
        let outcome = service.handle_packet(now, packet(first(), b"request"));
        assert_eq!(outcome.rejected, Some(Rejected::CallOver));
        assert_eq!(answer(&mut service, now), Answer::Abort(AbortCode(7)));
        assert_eq!(answer(&mut service, now), Answer::Nothing);
    }
    let abort = Header {
        packet_type: PacketType::Abort,
        seq: Seq(0),
        ..first()
    };
    let outcome = service.handle_packet(now, packet(abort, &[0; 4]));
    assert_eq!(outcome.rejected, Some(Rejected::CallOver));
    assert_eq!(
        answer(&mut service, now),
        Answer::Nothing,
        "an ABORT is never answered"
    );
}

#[test]
fn a_reply_before_the_end_of_the_request_breaks_the_call() {
    let now = start();
    let mut client = Connection::new(params(Side::Client));
    let slot = client.start_call(now, CallLimits::default()).unwrap();
    client.write(now, slot, &mut vec![1; 3000].into()).unwrap();
    let mut out = Vec::new();
    while client.poll_transmit(now, &mut out).is_some() {}
    let reply = Header {
        call: slot.call,
        flags: Flags::LAST_PACKET,
        ..first()
    };
    let outcome = client.handle_packet(now, packet(reply, b"early"));
    assert_eq!(outcome.rejected, Some(Rejected::EarlyReply));
    assert_eq!(answer(&mut client, now), BROKEN);
}

/// A class that finds every packet tampered with: on receipt, or only when it is read.
struct Suspicious {
    at_once: bool,
}

impl PacketSecurity for Suspicious {
    fn index(&self) -> SecurityIndex {
        SecurityIndex(0)
    }

    fn payload_max(&self, room: usize) -> usize {
        room
    }

    fn seal(&self, _: Place, _: &mut [Sealed]) {}

    fn check(&self, _: Place, _: u16, _: &[u8]) -> Result<(), AbortCode> {
        if self.at_once { Err(TAMPERED) } else { Ok(()) }
    }

    fn open(&self, _: Place, _: u16, _: Bytes) -> Result<Bytes, AbortCode> {
        Err(TAMPERED)
    }

    fn respond(&self, _: &[u8], _: [CallNumber; ChannelIndex::COUNT]) -> Result<Bytes, AbortCode> {
        Err(TAMPERED)
    }
}

#[test]
fn a_broken_seal_is_as_good_as_lost_or_ends_the_call() {
    let now = start();
    let mut service = Connection::new(params(Side::Service));
    service.security = Arc::new(Suspicious { at_once: true });
    let outcome = service.handle_packet(now, packet(first(), b"request"));
    assert_eq!(outcome.rejected, Some(Rejected::BadSeal));
    assert!(
        service.poll_transmit(now, &mut Vec::new()).is_none(),
        "anybody may have sent it"
    );

    let mut service = Connection::new(params(Side::Service));
    service.security = Arc::new(Suspicious { at_once: false });
    let slot = service.handle_packet(now, packet(first(), b"request")).new_call();
    let read = service.read(now, slot.unwrap());
    assert_eq!(read, Err(CallError::Protocol(TAMPERED)));
    assert_eq!(answer(&mut service, now), Answer::Abort(TAMPERED));
}

const TAMPERED: AbortCode = AbortCode(19_270_410);
