//! The security classes.

mod null;

pub use null::Null;
