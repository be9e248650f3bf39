//! Cells to play with and to test on.
//!
//! Two kinds: [`embedded`] is a whole cell in this process, which needs nothing and fails on demand; `harness` runs a
//! real OpenAFS cell in namespaces, which needs root and its packages, and mounts either kind with the program `afs`.
#![forbid(unsafe_code)]

pub mod embedded;
#[cfg(feature = "harness")]
mod harness;

#[cfg(feature = "harness")]
pub use harness::*;
