//! An AFS cache manager: cells, volumes, vnodes, callbacks and the data cache.
#![forbid(unsafe_code)]

pub mod cell;
pub mod clock;
pub mod dir;
pub mod error;
pub mod mount_point;
pub mod rpc;
pub mod server;
pub mod fs;
pub mod op;
mod store;
mod vnode;
pub mod types;
pub mod volume;
pub mod xdr;
