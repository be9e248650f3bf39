//! RxRPC, the transport of AFS: client and service on one UDP port.
#![forbid(unsafe_code)]

pub mod cache;
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
