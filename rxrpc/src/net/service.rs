//! Calls we answer.

use std::net::SocketAddrV4;
use std::pin::Pin;

use bytes::Bytes;

use crate::proto::{AbortCode, CallError, ServiceId};

/// What answers the calls of a service.
pub trait Service: Send + Sync + 'static {
    /// Answers one call. What it leaves unfinished is aborted.
    fn handle(&self, call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// A call we answer. Dropped before `finish`, it is aborted.
#[derive(Debug)]
pub struct ServiceCall {
    peer: SocketAddrV4,
    service: ServiceId,
}

#[expect(clippy::unimplemented, unused_variables, reason = "signatures first")]
#[expect(
    clippy::unused_async,
    clippy::missing_errors_doc,
    missing_docs,
    reason = "signatures first"
)]
impl ServiceCall {
    /// Who calls.
    pub fn peer(&self) -> SocketAddrV4 {
        self.peer
    }

    /// Which service was called.
    pub fn service(&self) -> ServiceId {
        self.service
    }

    pub async fn recv(&mut self) -> Result<Option<Bytes>, CallError> {
        unimplemented!()
    }

    pub async fn send(&mut self, data: Bytes) -> Result<(), CallError> {
        unimplemented!()
    }

    pub async fn finish(&mut self) -> Result<(), CallError> {
        unimplemented!()
    }

    pub fn abort(self, code: AbortCode) {
        unimplemented!()
    }
}
