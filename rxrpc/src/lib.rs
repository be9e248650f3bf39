//! RxRPC, the transport of AFS: client and service on one UDP port.
//!
//! # The machine
//!
//! ```text
//!  callers' and services' tasks          one receiving task            one reaper for each side
//!        |  send, recv, finish                  |  packets                     |  idle for too long
//!        v                                      v                              v
//!  net: a turn of a shared connection, under its lock  <----  cache: who is found, who lives, who dies
//!        |  work on the protocol machine, send what it lays out, re-arm its timer, wake tasks
//!        v
//!  proto: connection -> channel -> call, without input, output or clock      security: what packets are sealed with
//! ```
//!
//! An [`Endpoint`](net::Endpoint) is one UDP port. It makes calls and answers them, on the same port, as AFS wants it: a
//! file server calls its clients back where their calls came from.
//!
//! * A **call** is one request and one reply, each a stream of bytes of any length. It occupies one of the four
//!   *channels* of a connection.
//! * A **connection** is what epoch and connection id name, between two addresses. It counts the packets of its calls and
//!   knows the security class.
//! * A **bundle** is the few connections that calls to the same [`Target`](net::Target) share. A call waits there for a
//!   channel.
//! * A **peer** is an address: its path MTU, its counts.
//!
//! Connections are kept after their last call, for the next one, and are reaped when they were idle for long. The
//! [`cache`] decides that, by a scheme in which a packet that comes for a dying connection is never lost: it is given to a
//! fresh one in its place, in the same turn.
//!
//! [`proto`] holds the rules of the protocol and nothing else: time and packets are arguments, so that a test can move the
//! clock and lose packets at will. [`events`] is what the outside may know of it all; this crate knows no metrics library.
//!
//! Streams are not copied: what is [sent](net::ClientCall::send) stays in the [`Bytes`](bytes::Bytes) that were handed in
//! until it is laid out as packets (parts that fill no packet are joined), and what is [received](net::ClientCall::recv)
//! is a slice of the buffer that the datagram was read into.
//!
//! # An example
//!
//! ```
//! use std::{future::Future, net::{Ipv4Addr, SocketAddrV4}, pin::Pin, sync::Arc};
//! use rxrpc::events::NullSink;
//! use rxrpc::net::{Endpoint, EndpointConfig, Service, ServiceCall, Target};
//! use rxrpc::proto::ServiceId;
//!
//! const SHOUT: ServiceId = ServiceId(42);
//!
//! struct Shouter;
//!
//! impl Service for Shouter {
//!     fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
//!         Box::pin(async move {
//!             let mut request = Vec::new();
//!             while let Ok(Some(part)) = call.recv().await {
//!                 request.extend_from_slice(&part);
//!             }
//!             let reply = request.to_ascii_uppercase();
//!             let _ = call.send_last(reply.into()).await; // fails if the caller has gone
//!         })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = EndpointConfig { bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), ..EndpointConfig::default() };
//! let server = Endpoint::bind(config.clone(), Arc::new(NullSink)).await?;
//! server.serve(SHOUT, Arc::new(Shouter));
//!
//! let client = Endpoint::bind(config, Arc::new(NullSink)).await?;
//! let mut call = client.call(&Target::new(server.local_addr(), SHOUT)).await?;
//! call.send_last("can you hear me".into()).await?;
//! assert_eq!(call.recv().await?.as_deref(), Some(&b"CAN YOU HEAR ME"[..]));
//! assert_eq!(call.recv().await?, None);
//!
//! client.shutdown().await;
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod cache;
#[cfg(not(loom))]
pub mod crypto;
#[cfg(not(loom))]
pub mod events;
#[cfg(not(loom))]
pub mod net;
#[cfg(not(loom))]
pub mod proto;
#[cfg(all(test, not(loom)))]
mod random;
#[cfg(not(loom))]
pub mod security;
mod sync;
