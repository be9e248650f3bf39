use bytes::Bytes;
use hex_literal::hex;
use proptest::prelude::*;

use super::super::jumbo::{JUMBO_PARTS_MAX, PART_LEN};
use super::*;

/// The ACK of a secured call that OpenAFS 1.8.9 sent.
const ACK: [u8; 65] = hex!(
    "9ddcd6a8 013fc7a4 00000001 00000000 00000003 02 21 00 02 0d68 1092"
    "0000 0000 00000002 00000001 00000000 08 00 000000 0000163c 000005a4 00000020 00000004"
);

fn data() -> Header {
    Header {
        epoch: Epoch(0x9ddc_d6a8),
        cid: ConnectionId::from_wire(0x013f_c7a4),
        channel: ChannelIndex::from_wire(2),
        call: CallNumber(7),
        seq: Seq(3),
        serial: Serial(9),
        packet_type: PacketType::Data,
        flags: Flags::CLIENT_INITIATED,
        user_status: 0,
        security: SecurityIndex(0),
        cksum: 0,
        service: ServiceId(1),
    }
}

fn datagram(header: &Header, body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    header.encode(&mut out);
    out.extend_from_slice(body);
    out.into()
}

fn refused(header: Header, body: &[u8]) -> Malformed {
    parse(datagram(&header, body)).unwrap_err()
}

#[test]
fn known_header_is_read_and_written() {
    let packets: Vec<_> = parse(Bytes::from_static(&ACK)).unwrap().collect();
    let [packet] = packets.as_slice() else {
        panic!("one packet")
    };
    let expected = Header {
        channel: ChannelIndex::from_wire(0),
        call: CallNumber(1),
        seq: Seq(0),
        serial: Serial(3),
        packet_type: PacketType::Ack,
        flags: Flags::CLIENT_INITIATED | Flags::SLOW_START_OK,
        security: SecurityIndex(2),
        cksum: 0x0d68,
        service: ServiceId(0x1092),
        ..data()
    };
    assert_eq!(packet.header, expected);
    assert_eq!(packet.body, ACK[28..]);
    assert_eq!(expected.to_bytes(), ACK[..28]);
}

#[test]
fn flags_without_a_meaning_are_dropped() {
    assert_eq!(Flags::from_bits(0xd5).bits(), 0x05);
    assert_eq!(Flags::from_bits(0x05).sender(), Side::Client);
    assert_eq!(Flags::LAST_PACKET.sender(), Side::Service);
}

#[test]
fn each_rule_refuses() {
    use PacketType as Type;
    let of = |packet_type, flags| Header {
        packet_type,
        flags,
        ..data()
    };
    let client = Flags::CLIENT_INITIATED;
    assert_eq!(
        parse(Bytes::from_static(&ACK[..27])).unwrap_err(),
        Malformed::Short
    );
    assert_eq!(
        refused(
            Header {
                call: CallNumber(0),
                ..data()
            },
            b""
        ),
        Malformed::DataWithoutCall
    );
    assert_eq!(
        refused(
            Header {
                seq: Seq(0),
                ..data()
            },
            b""
        ),
        Malformed::DataWithoutSeq
    );
    assert_eq!(
        refused(
            Header {
                service: ServiceId(0),
                ..data()
            },
            b""
        ),
        Malformed::NoService
    );
    for packet_type in [Type::Ack, Type::AckAll, Type::Busy] {
        let header = Header {
            call: CallNumber(0),
            ..of(packet_type, Flags::NONE)
        };
        assert_eq!(refused(header, &[0; 40]), Malformed::AckWithoutCall);
    }
    assert_eq!(refused(of(Type::Busy, client), b""), Malformed::BusyFromClient);
    assert_eq!(
        refused(of(Type::Challenge, client), b""),
        Malformed::ChallengeFromClient
    );
    assert_eq!(
        refused(of(Type::Response, Flags::NONE), b""),
        Malformed::ResponseFromService
    );
    assert_eq!(
        refused(of(Type::Abort, client), b"123"),
        Malformed::AbortWithoutCode
    );
}

#[test]
fn numbers_that_are_no_type_are_refused() {
    for number in (0..=255).filter(|number| !matches!(number, 1..=8 | 13)) {
        let mut bytes = data().to_bytes();
        bytes[20] = number;
        assert_eq!(
            parse(Bytes::copy_from_slice(&bytes)).unwrap_err(),
            Malformed::UnknownType(number)
        );
    }
}

#[test]
fn abort_version_and_debug_may_lack_a_service() {
    for packet_type in [PacketType::Abort, PacketType::Version, PacketType::Debug] {
        let header = Header {
            packet_type,
            service: ServiceId(0),
            ..data()
        };
        assert!(parse(datagram(&header, &[0; 8])).is_ok());
    }
}

#[test]
fn jumbogram_comes_out_as_packets() {
    let first = Header {
        flags: Flags::from_bits(0x29),
        cksum: 5,
        user_status: 1,
        ..data()
    };
    let mut body = vec![1; PART_LEN];
    body.extend_from_slice(&hex!("29 00 0006"));
    body.extend_from_slice(&[2; PART_LEN]);
    body.extend_from_slice(&hex!("05 00 0007"));
    let packets = parse(datagram(&first, &body)).unwrap();
    assert_eq!(packets.len(), 3);
    let packets: Vec<_> = packets.collect();
    let second = Header {
        seq: Seq(4),
        serial: Serial(10),
        cksum: 6,
        user_status: 0,
        ..first
    };
    let third = Header {
        seq: Seq(5),
        serial: Serial(11),
        cksum: 7,
        flags: Flags::CLIENT_INITIATED | Flags::LAST_PACKET,
        ..second
    };
    assert_eq!(
        packets.iter().map(|packet| packet.header).collect::<Vec<_>>(),
        [first, second, third]
    );
    assert_eq!(
        packets.iter().map(|packet| packet.body.len()).collect::<Vec<_>>(),
        [1412, 1412, 0]
    );
    assert!(packets[1].body.iter().all(|byte| *byte == 2));
}

#[test]
fn unsound_jumbograms_are_refused_whole() {
    let jumbo = Header {
        flags: Flags::from_bits(0x21),
        ..data()
    };
    for len in [0, PART_LEN, PART_LEN + 3] {
        assert_eq!(refused(jumbo, &vec![0; len]), Malformed::JumboShort);
    }
    let next = |flags: u8| [&[0; PART_LEN][..], &[flags, 0, 0, 0]].concat();
    assert_eq!(refused(jumbo, &next(0x21)), Malformed::JumboShort);
    assert_eq!(refused(jumbo, &next(0x25)), Malformed::JumboAfterLast);
    assert_eq!(refused(jumbo, &next(0x00)), Malformed::JumboDirection);
    assert_eq!(
        refused(
            Header {
                seq: Seq(u32::MAX),
                ..jumbo
            },
            &next(0x01)
        ),
        Malformed::DataWithoutSeq
    );

    let parts = |count: usize| [next(0x21).repeat(count - 2), next(0x01)].concat();
    assert_eq!(
        parse(datagram(&jumbo, &parts(JUMBO_PARTS_MAX))).unwrap().len(),
        JUMBO_PARTS_MAX
    );
    assert_eq!(
        refused(jumbo, &parts(JUMBO_PARTS_MAX + 1)),
        Malformed::JumboTooMany
    );
}

#[test]
fn slow_start_of_an_ack_is_no_jumbogram() {
    let ack = Header {
        packet_type: PacketType::Ack,
        flags: Flags::SLOW_START_OK,
        ..data()
    };
    assert_eq!(parse(datagram(&ack, &[0; 40])).unwrap().len(), 1);
}

fn any_header() -> impl Strategy<Value = Header> {
    let numbers = (
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
        any::<u32>(),
    );
    let types = prop::sample::select(vec![1_u8, 2, 3, 4, 5, 6, 7, 8, 13]);
    let bytes = (
        types,
        any::<u8>(),
        any::<u8>(),
        any::<u8>(),
        any::<u16>(),
        any::<u16>(),
    );
    (numbers, bytes).prop_map(|((epoch, cid, call, seq, serial), bytes)| {
        let (packet_type, flags, user_status, security, cksum, service) = bytes;
        Header {
            epoch: Epoch(epoch),
            cid: ConnectionId::from_wire(cid),
            channel: ChannelIndex::from_wire(cid),
            call: CallNumber(call),
            seq: Seq(seq),
            serial: Serial(serial),
            packet_type: PacketType::from_number(packet_type).unwrap(),
            flags: Flags::from_bits(flags),
            user_status,
            security: SecurityIndex(security),
            cksum,
            service: ServiceId(service),
        }
    })
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(packets) = parse(bytes.into()) {
            prop_assert_eq!(packets.len(), packets.count());
        }
    }

    #[test]
    fn any_body_behind_a_jumbo_header_never_panics(
        fill in any::<u8>(),
        len in 0_usize..20_000,
        marks in prop::collection::vec(prop::sample::select(vec![0x01_u8, 0x05, 0x20, 0x21, 0x29]), 15),
    ) {
        let mut body = vec![fill; len];
        for (place, mark) in marks.iter().enumerate() {
            if let Some(byte) = body.get_mut(PART_LEN + place * (PART_LEN + 4)) {
                *byte = *mark;
            }
        }
        let header = Header { flags: Flags::from_bits(0x21), ..data() };
        if let Ok(packets) = parse(datagram(&header, &body)) {
            let count = packets.len();
            let packets: Vec<_> = packets.collect();
            prop_assert_eq!(packets.len(), count);
            let carried: usize = packets.iter().map(|packet| packet.body.len()).sum();
            prop_assert_eq!(carried + 4 * (count - 1), body.len());
        }
    }

    #[test]
    fn encode_then_decode_is_identity(header in any_header()) {
        prop_assert_eq!(Header::decode(&header.to_bytes()), Ok(header));
    }
}
