//! Calls.

mod error;

pub use error::{CallError, CallLimits};
