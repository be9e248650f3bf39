//! The whole client on the embedded cell, through the library: no kernel, no root, faults at exact places.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

mod attributes;
mod callbacks;
mod client;
mod conflicts;
mod crossing;
mod directories;
mod failures;
mod hidden;
mod identities;
mod interleavings;
mod locks;
#[path = "../common/peer.rs"]
mod peer;
mod procedures;
mod reading;
mod relay;
mod restart;
mod rxkad;
mod spans;
mod storing;
mod storms;
#[path = "../common/transcript.rs"]
mod transcript;
