//! Calls we make.

use std::net::SocketAddrV4;
use std::sync::Arc;

use bytes::Bytes;

use crate::proto::{AbortCode, CallError, CallLimits, ServiceId};

/// Whom to call, and how long it may take.
#[derive(Clone, Debug)]
pub struct Target {
    /// The peer.
    pub peer: SocketAddrV4,
    /// Which of its services.
    pub service: ServiceId,
    /// Stands in events for what the call is part of (the cell, for AFS). Calls of different scopes share no connection.
    pub scope: Arc<str>,
    /// How long the call may take.
    pub limits: CallLimits,
}

/// A call we make. Dropped before the end of the reply, it is aborted.
#[derive(Debug)]
pub struct ClientCall {
    peer: SocketAddrV4,
}

#[expect(clippy::unimplemented, unused_variables, reason = "signatures first")]
#[expect(
    clippy::unused_async,
    clippy::missing_errors_doc,
    missing_docs,
    reason = "signatures first"
)]
impl ClientCall {
    /// Whom we call.
    pub fn peer(&self) -> SocketAddrV4 {
        self.peer
    }

    pub async fn send(&mut self, data: Bytes) -> Result<(), CallError> {
        unimplemented!()
    }

    pub async fn finish(&mut self) -> Result<(), CallError> {
        unimplemented!()
    }

    pub async fn recv(&mut self) -> Result<Option<Bytes>, CallError> {
        unimplemented!()
    }

    pub fn abort(self, code: AbortCode) {
        unimplemented!()
    }
}
