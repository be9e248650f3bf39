//! AFS client.

pub mod fs;
