//! RxRPC over UDP, on tokio.

mod client;
mod endpoint;
mod service;

pub use client::{ClientCall, Target};
pub use endpoint::{BindError, Endpoint, EndpointConfig};
pub use service::{Service, ServiceCall};
