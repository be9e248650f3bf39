//! Answers that need no connection.

use super::abort_codes::RX_INVALID_OPERATION;
use super::wire::{Flags, Header, PacketType};
use super::{AbortCode, SecurityIndex, Seq, Serial, Side};

/// The answer to a VERSION question: `version`, cut to 64 bytes and padded with NUL to 65 (rxrpc.md 14; OpenAFS
/// `rxi_ReceiveVersionPacket`).
#[must_use]
pub fn version_reply(question: &Header, version: &str) -> Vec<u8> {
    let mut text = [0; VERSION_BYTES];
    for (place, byte) in text.iter_mut().zip(version.bytes().take(VERSION_BYTES - 1)) {
        *place = byte;
    }
    datagram(
        &Header {
            flags: question.flags.without(Flags::CLIENT_INITIATED),
            ..*question
        },
        &text,
    )
}

/// Refuses the call of a packet that belongs to no connection.
#[must_use]
pub fn raw_abort(refused: &Header, code: AbortCode) -> Vec<u8> {
    datagram(&raw(refused, PacketType::Abort), &code.0.to_be_bytes())
}

/// Refuses the call of a packet for which there is no room now.
#[must_use]
pub fn busy(refused: &Header) -> Vec<u8> {
    datagram(&raw(refused, PacketType::Busy), &[])
}

/// The code for a service or security class that we do not have.
pub const NO_SUCH_SERVICE: AbortCode = RX_INVALID_OPERATION;

/// What is sent without a connection has no number, and is from the other side (rxrpc.md 1, 18).
fn raw(refused: &Header, packet_type: PacketType) -> Header {
    Header {
        seq: Seq(0),
        serial: Serial(0),
        packet_type,
        flags: match refused.flags.sender() {
            Side::Client => Flags::NONE,
            Side::Service => Flags::CLIENT_INITIATED,
        },
        user_status: 0,
        security: SecurityIndex(0),
        cksum: 0,
        ..*refused
    }
}

pub(super) fn datagram(header: &Header, body: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(Header::LEN + body.len());
    header.encode(&mut datagram);
    datagram.extend_from_slice(body);
    datagram
}

const VERSION_BYTES: usize = 65;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::parse;
    use bytes::Bytes;
    use hex_literal::hex;

    fn question(bytes: &'static [u8]) -> Header {
        *parse(Bytes::from_static(bytes)).unwrap().header()
    }

    #[test]
    fn version_is_padded_and_cut() {
        let asked = question(&hex!(
            "000003e7 00000000 00000065 00000000 00000000 0d050000 00000000 00"
        ));
        let reply = version_reply(&asked, "afs-fuse");
        assert_eq!(reply.len(), 28 + 65);
        assert_eq!(
            &reply[..28],
            hex!("000003e7 00000000 00000065 00000000 00000000 0d040000 00000000")
        );
        assert_eq!(&reply[28..37], b"afs-fuse\0");
        let long = version_reply(&asked, &"x".repeat(100));
        assert_eq!((long.len(), long.last()), (28 + 65, Some(&0)));
    }

    #[test]
    fn refusals_echo_the_call_and_carry_no_numbers() {
        let data = question(&hex!(
            "80000001 00000011 00000003 00000001 00000009 01050002 12340034 00"
        ));
        let abort = raw_abort(&data, NO_SUCH_SERVICE);
        assert_eq!(
            abort,
            hex!("80000001 00000011 00000003 00000000 00000000 04000000 00000034 fffffffe")
        );
        assert_eq!(
            busy(&data),
            hex!("80000001 00000011 00000003 00000000 00000000 03000000 00000034")
        );
    }
}
