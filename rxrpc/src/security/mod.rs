//! The security classes.

mod null;
pub mod rxkad;

pub use null::Null;
