//! AFS client.
