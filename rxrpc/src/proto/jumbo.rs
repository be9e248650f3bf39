//! Several DATA packets in one datagram. They are only received: we never send them.
//!
//! All parts but the last carry exactly 1412 bytes and are followed by a header of 4 bytes (flags, padding,
//! checksum) of the next part, which inherits the rest of its header: sequence number and serial count up.

use bytes::{Buf, Bytes};

use super::malformed::Malformed;
use super::wire::{Flags, Header, PacketType};

/// Bytes of every part but the last.
pub(super) const PART_LEN: usize = 1412;
/// Most parts of a jumbogram: no more full ones fit a datagram.
pub(super) const MAX_PARTS: usize = 46;

const HEADER_LEN: usize = 4;

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
        if parts > MAX_PARTS {
            return Err(Malformed::JumboTooMany);
        }
        (flags, rest) = (next, after);
    }
    Ok(parts)
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
