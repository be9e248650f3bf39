//! RxRPC.

pub mod cache;
mod sync;
