//! Service upgrade: a connection to an old service that comes to speak to a newer one (rxrpc.md 15).
//!
//! The machine: a client that knows of a newer service marks the first packet of a new connection. A server that knows it
//! too, and knows it when this packet makes the connection, puts its id into everything it sends; one that does not goes
//! on as ever. So the service of the first packet that comes back is that of the connection, for good. Until then only
//! channel 0 is used: a call on another channel might be the one that makes the connection, unmarked.

use super::wire::{Header, PacketType};
use super::{Seq, Serial, ServiceId};

/// What becomes of the service of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// It stays as it is.
    #[default]
    Fixed,
    /// Client: the server is asked for a newer one, and has not said anything yet.
    Asked,
    /// Service: it is the newer one; the client had called this one.
    From(ServiceId),
}

/// A packet names a service that is not that of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongService;

impl Upgrade {
    /// True while the server has not said which service it is.
    pub(super) fn is_asked(self) -> bool {
        self == Self::Asked
    }

    /// Judges the service that a packet names, for a connection to `service`; gives it if it answers the question.
    pub(super) fn judge(
        self,
        service: ServiceId,
        header: &Header,
    ) -> Result<Option<ServiceId>, WrongService> {
        match self {
            // An ABORT of OpenAFS that has no connection (rxrpc.md 1.1): the parser lets no other packet do so.
            _ if header.service == ServiceId(0) => Ok(None),
            // What was answered without a connection (serial 0) echoes what was asked.
            Self::Asked if header.serial != Serial(0) => Ok(Some(header.service)),
            // The client has not heard from us when it sends the rest of its first request.
            Self::From(old) if header.service == old => Ok(None),
            _ if header.service == service => Ok(None),
            _ => Err(WrongService),
        }
    }

    /// The user status of a packet of ours.
    pub(super) fn user_status(self, packet_type: PacketType, seq: Seq) -> u8 {
        let marked = self.is_asked() && packet_type == PacketType::Data && seq == Seq(1);
        if marked { ASK } else { 0 }
    }
}

/// True for a packet whose sender asks for a newer service, should the packet make a connection.
#[must_use]
pub fn asks_for_upgrade(header: &Header) -> bool {
    header.packet_type == PacketType::Data && header.user_status == ASK
}

/// The user status that asks (Linux `RXRPC_USERSTATUS_SERVICE_UPGRADE`).
const ASK: u8 = 1;
