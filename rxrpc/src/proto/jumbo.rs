//! Several DATA packets in one datagram (rxrpc.md 9).
//!
//! They are taken as strictly as they are defined, and in no greater number than the peer was told. They are sent only by
//! an endpoint that was set up to, because silent corruption of what came in jumbograms is known from the field, and only
//! to a peer that says how many it takes: full packets that are sent for the first time.
//!
//! All parts but the last carry exactly 1412 bytes and are followed by a header of 4 bytes (flags, padding,
//! checksum) of the next part, which inherits the rest of its header: sequence number and serial count up.

use bytes::{Buf, BufMut, Bytes};

use super::malformed::Malformed;
use super::wire::{Flags, Header, PacketType};

/// Bytes of every part but the last.
pub(super) const PART_LEN: usize = 1412;
/// Most parts of a jumbogram: no more full ones fit a datagram.
pub const JUMBO_PARTS_MAX: usize = 46;

/// Most parts of a datagram that we send or ask for (OpenAFS asks for as many, rxrpc.md 9.2).
pub const JUMBO_PARTS: u8 = 4;

/// Bytes between two parts.
pub(super) const HEADER_LEN: usize = 4;

/// Walks the framing of a datagram's body to its end: how many packets it carries.
pub(super) fn count(header: &Header, body: &[u8]) -> Result<usize, Malformed> {
    let mut parts = 1;
    if header.packet_type != PacketType::Data {
        return Ok(parts);
    }
    let (mut flags, mut seq, mut rest) = (header.flags, header.seq, body);
    while flags.jumbo() {
        if flags.last() {
            return Err(Malformed::JumboAfterLast);
        }
        let (_, after) = rest.split_at_checked(PART_LEN).ok_or(Malformed::JumboShort)?;
        let ([bits, ..], after) = after
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(Malformed::JumboShort)?;
        let next = Flags::from_bits(*bits);
        if next.sender() != flags.sender() {
            return Err(Malformed::JumboDirection);
        }
        seq = seq.next();
        if seq.0 == 0 {
            return Err(Malformed::DataWithoutSeq);
        }
        parts += 1;
        if parts > JUMBO_PARTS_MAX {
            return Err(Malformed::JumboTooMany);
        }
        (flags, rest) = (next, after);
    }
    Ok(parts)
}

/// Bytes of a datagram of so many parts, of which the last is full too.
pub(super) const fn datagram_len(parts: usize) -> usize {
    Header::LEN + parts * (PART_LEN + HEADER_LEN) - HEADER_LEN
}

/// Appends what stands before the body of a part but the first.
pub(super) fn encode_header(flags: Flags, cksum: u16, out: &mut Vec<u8>) {
    out.put_u8(flags.bits());
    out.put_u8(0);
    out.put_u16(cksum);
}

/// Takes the body of the packet `header` off a jumbogram of which more parts follow, and makes the header of the next.
/// `None` only if the framing was not checked by [`count`].
pub(super) fn split(header: &Header, rest: &mut Bytes) -> Option<(Bytes, Header)> {
    if rest.len() < PART_LEN + HEADER_LEN {
        return None;
    }
    let body = rest.split_to(PART_LEN);
    let flags = Flags::from_bits(rest.get_u8());
    rest.advance(1);
    let cksum = rest.get_u16();
    let next = Header {
        seq: header.seq.next(),
        serial: header.serial.next(),
        flags,
        cksum,
        user_status: 0,
        ..*header
    };
    Some((body, next))
}
