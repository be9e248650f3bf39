//! Calls we answer.

use std::net::SocketAddrV4;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::call::Call;
use super::connection::{Connection, Key};
use crate::cache::Ref;
use crate::events::CallResult;
use crate::proto::{AbortCode, CallError, Caller, Epoch, ServiceId, Slot};

/// What answers the calls of a service.
pub trait Service: Send + Sync + 'static {
    /// Answers one call. What it leaves unfinished is aborted.
    fn handle(&self, call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A call we answer. Dropped before `finish`, it is aborted; dropped after, it goes on until the reply has arrived.
#[derive(Debug)]
pub struct ServiceCall(Call);

impl ServiceCall {
    pub(super) fn new(conn: Ref<Connection>, slot: Slot) -> Self {
        Self(Call::new(conn, slot))
    }

    /// Which procedure was called: events name it.
    pub fn set_name(&mut self, name: &'static str) {
        self.0.set_name(name);
    }

    /// Where the call comes from.
    #[must_use]
    pub fn peer(&self) -> SocketAddrV4 {
        self.0.connection().peer.address()
    }

    /// Which incarnation of the caller calls: another one has forgotten what this one was told.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        let connection = self.0.connection();
        match &connection.key {
            Key::Service(key) => key.epoch,
            Key::Client { .. } => connection.shared.epoch,
        }
    }

    /// Which service was called.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.0.connection().service
    }

    /// Who calls, as the security class of the connection has found out. `None` if it has none: it may be anybody.
    #[must_use]
    pub fn caller(&self) -> Option<Arc<Caller>> {
        self.0.connection().caller()
    }

    /// The payload of the next packet of the request, `None` at its end. Cancel safe.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, CallError> {
        self.0.recv().await
    }

    /// Queues a part of the reply, waiting until all of it fits into the window. Not cancel safe: a cancelled send may
    /// have queued a part.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub async fn send(&mut self, data: Bytes) -> Result<(), CallError> {
        self.0.send(data).await
    }

    /// Queues the last part of the reply as [`send`](Self::send) does, and ends it. Packets that belong to both leave
    /// together, which [`finish`](Self::finish) after a `send` cannot have.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub async fn send_last(&mut self, data: Bytes) -> Result<(), CallError> {
        self.0.send_last(data).await?;
        self.0.ended(CallResult::Ok);
        Ok(())
    }

    /// Ends the reply. Does not wait for its arrival.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub fn finish(&mut self) -> Result<(), CallError> {
        self.0.finish()?;
        self.0.ended(CallResult::Ok);
        Ok(())
    }

    /// Refuses the call with `code`.
    pub fn abort(mut self, code: AbortCode) {
        self.0.ended(CallResult::Aborted(code));
        self.0.abort(code);
    }
}
