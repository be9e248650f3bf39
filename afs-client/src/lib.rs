//! An AFS cache manager: cells, volumes, vnodes, callbacks and the data cache.
#![forbid(unsafe_code)]

pub mod auth;
mod callback;
pub mod cell;
pub mod clock;
pub mod codes;
mod database;
pub mod dir;
pub mod error;
pub mod events;
pub mod fs;
mod hidden;
pub mod history;
pub mod lock;
pub mod mount_point;
pub mod names;
pub mod op;
pub mod rpc;
pub mod server;
mod store;
pub mod sysname;
mod trace;
pub mod types;
mod vnode;
pub mod volume;
pub mod xdr;
