//! AFS client.
#![forbid(unsafe_code)]

pub mod cell;
pub mod dir;
pub mod mount_point;
pub mod types;
pub mod volume;
