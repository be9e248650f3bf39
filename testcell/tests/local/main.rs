//! The test list of the real cell on the embedded one: the same words, so that a difference between the two fails. Needs
//! /dev/fuse, and root, fusermount3 or a user namespace.

#![allow(
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

use testcell::local as shared;

#[path = "../cell/access.rs"]
mod access;
#[path = "../cell/arguments.rs"]
mod arguments;
mod calls;
#[path = "../cell/coherence.rs"]
mod coherence;
mod contract;
mod crash;
mod demo;
mod environment;
#[path = "../cell/exerciser.rs"]
mod exerciser;
mod fstab;
mod full;
#[path = "../cell/git.rs"]
mod git;
#[path = "../cell/identity.rs"]
mod identity;
#[path = "../cell/locks.rs"]
mod locks;
mod lost;
#[path = "../cell/misuse.rs"]
mod misuse;
mod mount_points;
#[path = "../cell/names.rs"]
mod names;
mod namespace;
mod passthrough;
#[path = "../cell/places.rs"]
mod places;
#[path = "../cell/programs.rs"]
mod programs;
mod reattach;
#[path = "../cell/recovery.rs"]
mod recovery;
#[path = "../cell/rights.rs"]
mod rights;
#[path = "../cell/semantics.rs"]
mod semantics;
#[path = "../cell/sharing.rs"]
mod sharing;
#[path = "../cell/signals.rs"]
mod signals;
mod slow;
#[path = "../cell/stop.rs"]
mod stop;
mod traces;
#[path = "../cell/watch.rs"]
mod watch;

/// Of each program of the exerciser.
const EXERCISER_STEPS: u32 = 600;
