//! Calls we make.

use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::Bytes;

use super::bundle::{Channel, Permit};
use super::call::Call;
use crate::events::{Acquire, CallResult};
use crate::proto::{AbortCode, CallError, CallLimits, CallNumber, Epoch, ServiceId};
use crate::security::Security;

/// Whom to call, and how long it may take.
#[derive(Clone, Debug)]
pub struct Target {
    /// The peer.
    pub peer: SocketAddrV4,
    /// Which of its services.
    pub service: ServiceId,
    /// Stands in events for what the call is part of (the cell, for AFS). Calls of different scopes share no connection.
    pub scope: Arc<str>,
    /// As whom, and how well protected. Calls of different identities share no connection.
    pub security: Security,
    /// How long the call may take.
    pub limits: CallLimits,
    /// The server is asked for a newer service, which [`ClientCall::service`] then names; one that has none goes on as
    /// ever. Until it has answered the first call of a connection, that carries one call at a time.
    pub upgrade: bool,
}

impl Target {
    /// A call to a service of a peer, of no particular scope, as nobody in particular and with the usual limits.
    #[must_use]
    pub fn new(peer: SocketAddrV4, service: ServiceId) -> Self {
        Self {
            peer,
            service,
            scope: Arc::from(""),
            security: Security::None,
            limits: CallLimits::default(),
            upgrade: false,
        }
    }
}

/// A call we make. Dropped before the end of the reply, it is aborted.
#[derive(Debug)]
pub struct ClientCall {
    /// Before the permit: the channel is free before somebody is told so.
    call: Call,
    acquired: Acquire,
    _permit: Permit,
}

/// What names a call in packets, and in what others tell of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId {
    /// The epoch.
    pub epoch: Epoch,
    /// The connection id with the channel in its two low bits, as it stands on the wire.
    pub cid: u32,
    /// The call number.
    pub number: CallNumber,
}

impl ClientCall {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            call: Call::new(channel.conn, channel.slot),
            acquired: channel.acquired,
            _permit: channel.permit,
        }
    }

    /// Which procedure is called: events name it.
    #[must_use]
    pub fn named(mut self, name: &'static str) -> Self {
        self.call.set_name(name);
        self
    }

    /// What names it in packets.
    #[must_use]
    pub fn id(&self) -> CallId {
        let (conn, slot) = (self.call.connection(), self.call.slot());
        CallId {
            epoch: conn.shared.epoch,
            cid: conn.key.cid().with_channel(slot.channel),
            number: slot.call,
        }
    }

    /// How it came by its connection.
    #[must_use]
    pub const fn acquired(&self) -> Acquire {
        self.acquired
    }

    /// Whom we call.
    #[must_use]
    pub fn peer(&self) -> SocketAddrV4 {
        self.call.connection().peer.address()
    }

    /// Which of its services answers. If the target asks for an upgrade, that may change until the first of the reply has
    /// come; then it is settled.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.call.connection().service_now()
    }

    /// Queues a part of the request, waiting until all of it fits into the window. Not cancel safe: a cancelled send may
    /// have queued a part.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub async fn send(&mut self, data: Bytes) -> Result<(), CallError> {
        self.call.send(data).await
    }

    /// Queues the last part of the request as [`send`](Self::send) does, and ends it. Packets that belong to both leave
    /// together, which [`finish`](Self::finish) after a `send` cannot have.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub async fn send_last(&mut self, data: Bytes) -> Result<(), CallError> {
        self.call.send_last(data).await
    }

    /// Ends the request. Does not wait.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub fn finish(&mut self) -> Result<(), CallError> {
        self.call.finish()
    }

    /// The payload of the next packet of the reply, `None` at its end. Cancel safe.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, CallError> {
        let received = self.call.recv().await?;
        if received.is_none() {
            self.call.ended(CallResult::Ok);
        }
        Ok(received)
    }

    /// The payload of the next packet if it is here already, having come with the one that [`recv`](Self::recv) gave.
    pub fn recv_ready(&mut self) -> Option<Bytes> {
        self.call.recv_ready()
    }

    /// Gives the call up and tells the server so.
    pub fn abort(mut self, code: AbortCode) {
        self.call.abort(code);
    }
}
