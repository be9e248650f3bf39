//! Packets as they stand on the wire.
//!
//! A datagram is a header of 28 bytes and a body; all numbers are big endian. [`parse`] is the one place where lengths
//! and the rules that need no state are checked: what it returns holds them. A jumbogram comes out as the packets that
//! it carries, and only if its framing is sound to the end.

use bytes::{Buf, BufMut, Bytes};

use super::jumbo;
use super::malformed::Malformed;
use super::seq::{
    CallNumber, ChannelIndex, ConnectionId, Epoch, SecurityIndex, Seq, Serial, ServiceId, Side,
};

/// What a packet is. Numbers as in OpenAFS `rx_packet.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketType {
    /// Part of a request or reply.
    Data,
    /// What was received.
    Ack,
    /// The peer has no room for another call.
    Busy,
    /// A call or a connection is over.
    Abort,
    /// Everything was received.
    AckAll,
    /// The service asks who the client is.
    Challenge,
    /// The client's answer.
    Response,
    /// A question about the state of an endpoint.
    Debug,
    /// Path MTU parameters: a number that nobody sends. [`parse`] refuses it.
    Params,
    /// A question for the version of the program.
    Version,
}

impl PacketType {
    /// The type with this number, if it has a name.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Data,
            2 => Self::Ack,
            3 => Self::Busy,
            4 => Self::Abort,
            5 => Self::AckAll,
            6 => Self::Challenge,
            7 => Self::Response,
            8 => Self::Debug,
            9 => Self::Params,
            13 => Self::Version,
            _ => return None,
        })
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Ack => 2,
            Self::Busy => 3,
            Self::Abort => 4,
            Self::AckAll => 5,
            Self::Challenge => 6,
            Self::Response => 7,
            Self::Debug => 8,
            Self::Params => 9,
            Self::Version => 13,
        }
    }
}

/// The flags of a header. Bits without a meaning on the wire are dropped when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// None.
    pub const NONE: Self = Self(0);
    /// The sender is the client of the connection.
    pub const CLIENT_INITIATED: Self = Self(0x01);
    /// The sender wants an ACK now.
    pub const REQUEST_ACK: Self = Self(0x02);
    /// DATA: the last packet of this direction of the call. VERSION and DEBUG set it by convention.
    pub const LAST_PACKET: Self = Self(0x04);
    /// DATA: more packets follow at once. A hint.
    pub const MORE_PACKETS: Self = Self(0x08);
    /// DATA: another packet follows in the same datagram.
    pub const JUMBO_PACKET: Self = Self(0x20);
    /// ACK: the sender knows slow start. The same bit as [`Self::JUMBO_PACKET`].
    pub const SLOW_START_OK: Self = Self(0x20);

    const KNOWN: u8 = 0x2f;

    /// The flags of a byte on the wire; unknown bits are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::KNOWN)
    }

    /// The byte on the wire.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The direction flag of what this side of a connection sends.
    #[must_use]
    pub const fn sent_by(side: Side) -> Self {
        match side {
            Side::Client => Self::CLIENT_INITIATED,
            Side::Service => Self::NONE,
        }
    }

    /// Which side of the connection sent it.
    #[must_use]
    pub const fn sender(self) -> Side {
        if self.client_initiated() {
            Side::Client
        } else {
            Side::Service
        }
    }

    /// True if all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and `other`.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The sender is the client of the connection.
    #[must_use]
    pub const fn client_initiated(self) -> bool {
        self.contains(Self::CLIENT_INITIATED)
    }

    /// The sender wants an ACK now.
    #[must_use]
    pub const fn request_ack(self) -> bool {
        self.contains(Self::REQUEST_ACK)
    }

    /// The last packet of this direction of the call.
    #[must_use]
    pub const fn last(self) -> bool {
        self.contains(Self::LAST_PACKET)
    }

    /// More packets follow at once.
    #[must_use]
    pub const fn more(self) -> bool {
        self.contains(Self::MORE_PACKETS)
    }

    /// Of DATA: another packet follows in the same datagram.
    #[must_use]
    pub const fn jumbo(self) -> bool {
        self.contains(Self::JUMBO_PACKET)
    }

    /// Of ACK: the sender knows slow start.
    #[must_use]
    pub const fn slow_start(self) -> bool {
        self.contains(Self::SLOW_START_OK)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

/// What stands before every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Names the client endpoint's life. Both directions carry it.
    pub epoch: Epoch,
    /// The connection.
    pub cid: ConnectionId,
    /// The channel, from the low bits of the connection id.
    pub channel: ChannelIndex,
    /// The call on the channel, from 1; 0 if the packet concerns the whole connection.
    pub call: CallNumber,
    /// DATA: its place in the stream, from 1. Else 0.
    pub seq: Seq,
    /// Counts the packets that its sender sent on the connection, from 1; 0 in answers made without a connection.
    pub serial: Serial,
    /// What the packet is.
    pub packet_type: PacketType,
    /// Its flags.
    pub flags: Flags,
    /// The application's byte; 1 in the first packet of a connection offers a service upgrade.
    pub user_status: u8,
    /// The security class of the connection.
    pub security: SecurityIndex,
    /// Checksum of secured DATA. Has no meaning elsewhere: OpenAFS leaves old values in it.
    pub cksum: u16,
    /// The service.
    pub service: ServiceId,
}

impl Header {
    /// Bytes of a header.
    pub const LEN: usize = 28;

    /// Where the flags stand.
    pub(super) const FLAGS_AT: usize = 21;

    /// Reads a header. Its type must be one that is sent.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        // The gets read 28 bytes in all.
        let mut bytes = bytes.as_slice();
        let epoch = Epoch(bytes.get_u32());
        let cid = bytes.get_u32();
        let call = CallNumber(bytes.get_u32());
        let seq = Seq(bytes.get_u32());
        let serial = Serial(bytes.get_u32());
        let number = bytes.get_u8();
        let packet_type = match PacketType::from_number(number) {
            None | Some(PacketType::Params) => return Err(Malformed::UnknownType(number)),
            Some(packet_type) => packet_type,
        };
        Ok(Self {
            epoch,
            cid: ConnectionId::from_wire(cid),
            channel: ChannelIndex::from_wire(cid),
            call,
            seq,
            serial,
            packet_type,
            flags: Flags::from_bits(bytes.get_u8()),
            user_status: bytes.get_u8(),
            security: SecurityIndex(bytes.get_u8()),
            cksum: bytes.get_u16(),
            service: ServiceId(bytes.get_u16()),
        })
    }

    /// The header as it stands on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        // The puts write 28 bytes in all.
        let mut out = bytes.as_mut_slice();
        out.put_u32(self.epoch.0);
        out.put_u32(self.cid.with_channel(self.channel));
        out.put_u32(self.call.0);
        out.put_u32(self.seq.0);
        out.put_u32(self.serial.0);
        out.put_u8(self.packet_type.number());
        out.put_u8(self.flags.bits());
        out.put_u8(self.user_status);
        out.put_u8(self.security.0);
        out.put_u16(self.cksum);
        out.put_u16(self.service.0);
        bytes
    }

    /// Appends the header to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    /// The rules of the wire that need no state, but for those of jumbograms.
    fn check(&self, body: &[u8]) -> Result<(), Malformed> {
        let client = self.flags.client_initiated();
        let exempt = matches!(
            self.packet_type,
            PacketType::Version | PacketType::Debug | PacketType::Abort
        );
        if self.service.0 == 0 && !exempt {
            return Err(Malformed::NoService);
        }
        match self.packet_type {
            PacketType::Data if self.call.0 == 0 => Err(Malformed::DataWithoutCall),
            PacketType::Data if self.seq.0 == 0 => Err(Malformed::DataWithoutSeq),
            PacketType::Ack | PacketType::AckAll | PacketType::Busy if self.call.0 == 0 => {
                Err(Malformed::AckWithoutCall)
            }
            PacketType::Busy if client => Err(Malformed::BusyFromClient),
            PacketType::Challenge if client => Err(Malformed::ChallengeFromClient),
            PacketType::Response if !client => Err(Malformed::ResponseFromService),
            PacketType::Abort if body.len() < 4 => Err(Malformed::AbortWithoutCode),
            _ => Ok(()),
        }
    }
}

/// One packet: of a jumbogram, one of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub body: Bytes,
}

/// The packets of one datagram, in order: one, or those of a jumbogram. Made by [`parse`].
#[derive(Clone, Debug)]
pub struct Packets {
    next: Header,
    rest: Bytes,
    left: usize,
}

/// Takes a datagram apart.
///
/// # Errors
///
/// The first rule that it breaks. Then nothing of it may be used.
pub fn parse(datagram: Bytes) -> Result<Packets, Malformed> {
    let mut rest = datagram;
    let header = Header::decode(rest.first_chunk().ok_or(Malformed::Short)?)?;
    rest.advance(Header::LEN);
    header.check(&rest)?;
    let left = jumbo::count(&header, &rest)?;
    Ok(Packets {
        next: header,
        rest,
        left,
    })
}

impl Packets {
    /// The header of the datagram; of a jumbogram, that of its first packet until it is taken.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.next
    }
}

impl Iterator for Packets {
    type Item = Packet;

    fn next(&mut self) -> Option<Packet> {
        let header = self.next;
        let body = match self.left {
            0 => return None,
            1 => std::mem::take(&mut self.rest),
            _ => {
                let (body, next) = jumbo::split(&header, &mut self.rest)?;
                self.next = next;
                body
            }
        };
        self.left -= 1;
        Some(Packet { header, body })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Packets {}

#[cfg(test)]
mod tests;
