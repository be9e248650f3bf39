//! Datagrams: any bytes, and jumbograms beside a second reading of their format.

use bytes::Bytes;
use rxrpc::proto::endpoint::{busy, raw_abort, version_reply};
use rxrpc::proto::{AbortCode, Flags, Header, PacketType, parse};

/// The parser: what it gives holds the rules of the wire, and says what the datagram said.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(packets) = parse(Bytes::copy_from_slice(bytes)) else {
        return;
    };
    let (header, count) = (*packets.header(), packets.len());
    let mut carried = 0;
    for (at, packet) in packets.enumerate() {
        carried += packet.body.len();
        let there = &packet.header;
        assert_eq!(
            (there.epoch, there.cid, there.call),
            (header.epoch, header.cid, header.call)
        );
        if there.packet_type == PacketType::Data {
            assert!(there.call.0 > 0 && there.seq.0 > 0);
            assert_eq!(there.seq.0, header.seq.0 + u32::try_from(at).unwrap_or(0));
        }
        if count == 1 {
            let mut again = there.to_bytes().to_vec();
            again.extend_from_slice(&packet.body);
            let again = parse(again.into()).map(Iterator::collect::<Vec<_>>);
            assert_eq!(again, Ok(vec![packet]), "parsed as it is encoded");
        }
    }
    assert_eq!(
        carried + Header::LEN + 4 * (count - 1),
        bytes.len(),
        "nothing is lost or made up"
    );
    answers(&header);
}

/// What is answered without a connection is sound, and answers no answer.
fn answers(header: &Header) {
    for answer in [raw_abort(header, AbortCode(-2)), busy(header)] {
        let (client, asked) = (header.flags.client_initiated(), header.packet_type);
        // Only DATA is refused, and only a service is busy.
        if client && asked == PacketType::Data {
            let answer = *parse(answer.into()).expect("a refusal").header();
            assert!(!answer.flags.client_initiated(), "it comes from the other side");
            assert_eq!((answer.serial.0, answer.seq.0), (0, 0));
        }
    }
    if header.packet_type == PacketType::Version {
        let reply = *parse(version_reply(header, "a version").into())
            .expect("a version")
            .header();
        assert!(!reply.flags.client_initiated(), "an answer is not answered");
    }
}

/// The same format read a second time, without the parser's types: both find the same parts or none.
pub(crate) fn jumbo(bytes: &[u8]) {
    let Some((flags, body)) = bytes.split_first() else {
        return;
    };
    let mut datagram = vec![0; Header::LEN];
    datagram[11] = 1;
    datagram[15] = 1;
    datagram[19] = 1;
    datagram[20] = PacketType::Data.number();
    datagram[21] = *flags;
    datagram[27] = 1;
    // Short inputs must be able to say long bodies: a byte of 0xff stands for a whole part.
    for byte in body {
        match byte {
            0xff => datagram.resize(datagram.len() + 1412, 0xff),
            byte => datagram.push(*byte),
        }
    }
    let expected = read(*flags, &datagram[Header::LEN..]);
    let parsed = parse(datagram.into()).ok().map(|packets| {
        packets
            .map(|packet| (packet.header.flags, packet.body.to_vec()))
            .collect::<Vec<_>>()
    });
    assert_eq!(parsed, expected);
}

fn read(flags: u8, mut body: &[u8]) -> Option<Vec<(Flags, Vec<u8>)>> {
    let (mut parts, mut flags) = (Vec::new(), flags);
    while flags & JUMBO != 0 {
        let next = *body.get(PART)?;
        if flags & LAST != 0 || body.len() < PART + 4 || (next ^ flags) & CLIENT != 0 {
            return None;
        }
        parts.push((Flags::from_bits(flags), body[..PART].to_vec()));
        (flags, body) = (next, &body[PART + 4..]);
    }
    parts.push((Flags::from_bits(flags), body.to_vec()));
    (parts.len() <= PARTS_MAX).then_some(parts)
}

const CLIENT: u8 = 0x01;
const LAST: u8 = 0x04;
const JUMBO: u8 = 0x20;
const PART: usize = 1412;
const PARTS_MAX: usize = 46;
