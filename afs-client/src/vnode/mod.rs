//! Vnodes.
pub(crate) mod promise;
pub(crate) mod status;
