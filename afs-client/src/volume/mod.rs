//! Volumes.
mod kind;
pub use kind::{NoChoice, Parent, VolumeKind, choose};
