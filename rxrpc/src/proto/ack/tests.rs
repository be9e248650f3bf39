use hex_literal::hex;
use proptest::prelude::*;

use super::*;

fn ack(acks: &str, trailer: AckTrailer) -> AckPacket {
    AckPacket {
        buffer_space: 0,
        max_skew: 0,
        first: Seq(2),
        previous: Seq(1),
        serial: Serial(0),
        reason: AckReason::Delay,
        acks: acks.bytes().map(|byte| byte == b'+').collect(),
        trailer,
    }
}

fn encoded(ack: &AckPacket) -> Vec<u8> {
    let mut out = Vec::new();
    ack.encode(&mut out);
    out
}

#[test]
fn known_ack_is_read_and_written() {
    let bytes = hex!("0000 0000 00000002 00000001 00000000 08 00 000000 0000163c 000005a4 00000020 00000004");
    let expected = ack("", AckTrailer::new(5692, 1444, 32, 4));
    assert_eq!(AckPacket::parse(&bytes), Ok(expected));
    assert_eq!(encoded(&expected), bytes);
}

#[test]
fn table_is_masked_and_followed_by_three_bytes() {
    let bytes = hex!("0000 0000 00000002 00000001 00000000 08 03 feff01 aabbcc 000005a4 000005a4");
    let read = AckPacket::parse(&bytes).unwrap();
    assert_eq!(
        read.soft_acks().collect::<Vec<_>>(),
        [(Seq(2), false), (Seq(3), true), (Seq(4), true)]
    );
    assert_eq!(read.acks.received(), 2);
    assert_eq!((read.trailer.max_mtu, read.trailer.rwind), (Some(1444), None));
    assert_eq!(format!("{:?}", read.acks), "\"-++\"");
}

#[test]
fn trailer_may_be_missing_short_or_long() {
    let whole = AckTrailer::new(1444, 1445, 64, 1);
    let bytes = encoded(&ack("+-+", whole));
    let trailer = |len: usize| AckPacket::parse(&bytes[..len]).unwrap().trailer;
    // 18 fixed, 3 table, 3 padding; then the words.
    for len in 21..32 {
        assert_eq!(trailer(len), AckTrailer::default(), "{len}");
    }
    assert_eq!(
        trailer(32),
        AckTrailer {
            rwind: None,
            jumbo_max: None,
            ..whole
        }
    );
    assert_eq!(
        trailer(36),
        AckTrailer {
            jumbo_max: None,
            ..whole
        }
    );
    assert_eq!(trailer(40), whole);
    let padded = [bytes.as_slice(), &[0; 1200]].concat();
    assert_eq!(AckPacket::parse(&padded).unwrap().trailer, whole);
}

#[test]
fn trailer_is_clamped_and_without_mtu_ignored() {
    let head = hex!("0000 0000 00000002 00000001 00000000 08 00 000000");
    let parse = |trailer: [u8; 16]| {
        AckPacket::parse(&[head.as_slice(), &trailer].concat())
            .unwrap()
            .trailer
    };
    assert_eq!(parse([0xff; 16]), AckTrailer::new(65535, 65535, 255, 255));
    assert_eq!(
        parse(hex!("00000000 000005a4 00000020 00000004")),
        AckTrailer::default()
    );
}

#[test]
fn each_rule_refuses() {
    let bytes = encoded(&ack("+++", AckTrailer::default()));
    assert_eq!(AckPacket::parse(&bytes[..17]), Err(BadAck::Short));
    assert_eq!(AckPacket::parse(&bytes[..20]), Err(BadAck::TableCut));
    let mut zero = bytes;
    zero[7] = 0;
    assert_eq!(AckPacket::parse(&zero), Err(BadAck::FirstZero));
}

#[test]
fn table_holds_255_entries() {
    let mut table: SackTable = std::iter::repeat_n(true, 300).collect();
    assert_eq!((table.len(), table.received()), (255, 255));
    assert!(!table.push(true));
    assert_eq!((table.get(254), table.get(255)), (Some(true), None));
}

#[test]
fn reasons_and_numbers_match() {
    for number in 1..=9 {
        assert_eq!(AckReason::from_number(number).number(), number);
    }
    assert_eq!(AckReason::from_number(10), AckReason::Unknown);
}

fn any_trailer() -> impl Strategy<Value = AckTrailer> {
    (0..=4, 1_u16.., any::<u16>(), any::<u8>(), any::<u8>()).prop_map(
        |(words, max, interface, rwind, jumbo)| {
            let whole = AckTrailer::new(max, interface, rwind, jumbo);
            match words {
                0 | 1 => AckTrailer::default(),
                2 => AckTrailer {
                    rwind: None,
                    jumbo_max: None,
                    ..whole
                },
                3 => AckTrailer {
                    jumbo_max: None,
                    ..whole
                },
                _ => whole,
            }
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(ack) = AckPacket::parse(&bytes) {
            prop_assert_eq!(ack.soft_acks().count(), ack.acks.len());
        }
    }

    #[test]
    fn encode_then_parse_is_identity(
        (buffer_space, max_skew) in any::<(u16, u16)>(),
        first in 1_u32..,
        (previous, serial) in any::<(u32, u32)>(),
        reason in 0_u8..10,
        acks in prop::collection::vec(any::<bool>(), 0..256),
        trailer in any_trailer(),
    ) {
        let ack = AckPacket {
            buffer_space,
            max_skew,
            first: Seq(first),
            previous: Seq(previous),
            serial: Serial(serial),
            reason: AckReason::from_number(reason),
            acks: acks.iter().copied().collect(),
            trailer,
        };
        prop_assert!(ack.acks.iter().eq(acks));
        prop_assert_eq!(AckPacket::parse(&encoded(&ack)), Ok(ack));
    }
}
