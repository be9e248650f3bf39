//! What a security class does to the DATA packets of a connection.

use bytes::Bytes;

use crate::proto::{AbortCode, CallNumber, ChannelIndex, SecurityIndex, Seq};

/// The security class of one connection, as the call machine sees it.
///
/// A packet is sealed once, when it is queued: what is sent again is the same bytes.
pub trait PacketSecurity: Send + Sync {
    /// Its number on the wire.
    fn index(&self) -> SecurityIndex;

    /// Application bytes that fit into a packet with `room` bytes of body.
    fn payload_max(&self, room: usize) -> usize;

    /// Makes the body of a packet out of application bytes.
    fn seal(&self, place: Place, payload: Bytes) -> Sealed;

    /// Takes the application bytes out of a received body.
    ///
    /// # Errors
    /// The code with which to abort the call when the body was tampered with.
    fn open(&self, place: Place, checksum: u16, body: Bytes) -> Result<Bytes, AbortCode>;
}

/// Where a DATA packet stands: what a class binds its seal to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The channel of the call.
    pub channel: ChannelIndex,
    /// The call.
    pub call: CallNumber,
    /// The packet.
    pub seq: Seq,
}

/// A body ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// What follows the header.
    pub body: Bytes,
    /// The checksum field of the header.
    pub checksum: u16,
}
