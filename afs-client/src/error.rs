//! stub
/// e
#[derive(Clone, Debug, thiserror::Error)]
#[error("x")]
pub struct Error;
