//! What `afs` does on a real OpenAFS cell whose servers stay up. One cell for all tests, one test at a time.

#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use testcell::shared;

mod access;
mod arguments;
mod bulk;
mod capture;
mod coherence;
mod command_line;
mod exerciser;
mod git;
mod hostile;
mod identity;
mod kerberos;
mod localauth;
mod locks;
mod misuse;
mod names;
mod network;
#[path = "../common/peer.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod peer;
mod places;
mod procedures;
mod programs;
mod protection;
mod recovery;
mod renewal;
mod rights;
mod rxkad;
mod semantics;
mod sharing;
mod signals;
mod stage;
mod stop;
mod takeover;
mod tokens;
mod tools;
#[path = "../common/transcript.rs"]
mod transcript;
mod watch;

/// Of each program of the exerciser.
const EXERCISER_STEPS: u32 = 80;
