//! One UDP port that makes and answers calls.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use super::{ClientCall, Service, Target};
use crate::events::Sink;
use crate::proto::{CallError, ServiceId};

/// How an endpoint is set up.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Where it binds; port 0 means any.
    pub bind: SocketAddrV4,
    /// What it answers to a version question; at most 64 bytes are sent.
    pub version: String,
    /// Client connections idle for this long are reaped.
    pub client_idle: Duration,
    /// Service connections idle for this long are reaped.
    pub service_idle: Duration,
}

/// The port cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind UDP {address}: {source}")]
pub struct BindError {
    /// Where it was to be bound.
    pub address: SocketAddrV4,
    /// Why not.
    pub source: std::io::Error,
}

/// A UDP port that makes and answers calls. Clones share it.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<()>);

#[expect(clippy::unimplemented, unused_variables, reason = "signatures first")]
#[expect(
    clippy::unused_async,
    clippy::missing_errors_doc,
    missing_docs,
    reason = "signatures first"
)]
impl Endpoint {
    pub async fn bind(config: EndpointConfig, sink: Arc<dyn Sink>) -> Result<Self, BindError> {
        unimplemented!()
    }

    pub fn local_addr(&self) -> SocketAddrV4 {
        unimplemented!()
    }

    pub fn serve(&self, service: ServiceId, handler: Arc<dyn Service>) {
        unimplemented!()
    }

    pub async fn call(&self, target: &Target) -> Result<ClientCall, CallError> {
        unimplemented!()
    }

    pub async fn shutdown(&self) {
        unimplemented!()
    }
}
