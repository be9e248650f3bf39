//! RxRPC over UDP, on tokio.
//!
//! The machine: an [`Endpoint`] owns one socket. A call takes a channel of a connection from its `bundle`; a
//! received packet finds its connection in the `receiver`; every touch of a `connection` is one turn under its lock.
//! The [connection cache](crate::cache) decides who lives; the `timers` say when to look again.

mod answer;
mod buffers;
mod bundle;
mod call;
mod census;
mod client;
mod clock;
mod config;
mod connection;
mod connections;
mod endpoint;
mod network_errors;
mod outbox;
mod peer;
mod places;
mod proven;
mod receiver;
mod service;
mod socket;
mod timers;
mod traffic;
mod way_back;

pub use census::{Counted, Listed};
pub use client::{CallId, ClientCall, Target};
pub use config::EndpointConfig;
pub use endpoint::{BindError, ConnectionCount, Endpoint};
pub use peer::PeerCount;
pub use places::Limit;
pub use service::{Service, ServiceCall};
pub use way_back::KeepOpen;
