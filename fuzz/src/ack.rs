//! ACK bodies: any bytes, and what our own encoder makes.

use rxrpc::proto::{AckPacket, AckReason, AckTrailer, SackTable, Seq, Serial};

use crate::input::Input;

pub(crate) fn run(bytes: &[u8]) {
    if let Ok(ack) = AckPacket::parse(bytes) {
        assert!(ack.first.0 > 0);
        assert!(ack.acks.len() + 18 <= bytes.len(), "a table out of nothing");
        assert_eq!(ack.soft_acks().count(), ack.acks.len());
        assert!(ack.acks.received() <= ack.acks.len());
        reparse(&ack);
    }
    if let Some(ack) = made(Input::new(bytes)) {
        reparse(&ack);
    }
}

/// What is encoded is parsed as it was, whatever follows it.
fn reparse(ack: &AckPacket) {
    let mut body = Vec::new();
    ack.encode(&mut body);
    assert_eq!(AckPacket::parse(&body).as_ref(), Ok(ack));
    if ack.trailer.jumbo_max.is_some() {
        body.extend_from_slice(b"padding of an MTU probe");
        assert_eq!(AckPacket::parse(&body).as_ref(), Ok(ack));
    }
}

/// An ACK with the trailer of some peer: none, two, three or four words.
fn made(mut input: Input<'_>) -> Option<AckPacket> {
    let (words, max_mtu, rwind) = (input.byte()?, input.word()?, input.byte()?);
    let [max_mtu, if_mtu] =
        [max_mtu >> 16, max_mtu].map(|word| u16::try_from(word & 0xffff).unwrap_or(0).max(1));
    let trailer = match words % 4 {
        0 => AckTrailer::default(),
        1 => AckTrailer {
            rwind: None,
            jumbo_max: None,
            ..AckTrailer::new(max_mtu, if_mtu, 0, 0)
        },
        2 => AckTrailer {
            jumbo_max: None,
            ..AckTrailer::new(max_mtu, if_mtu, rwind, 0)
        },
        _ => AckTrailer::new(max_mtu, if_mtu, rwind, words),
    };
    let fixed = AckPacket::new(
        Seq(input.word()?.max(1)),
        Seq(input.word()?),
        Serial(input.word()?),
        AckReason::from_number(input.byte()?),
    );
    let acks: SackTable = input.rest().iter().map(|byte| byte & 1 == 1).collect();
    Some(AckPacket {
        trailer,
        acks,
        ..fixed
    })
}
