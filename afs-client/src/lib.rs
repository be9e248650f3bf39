//! AFS client.

pub mod types;
pub mod error;
mod store;
