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
mod exerciser;
mod fstab;
#[path = "../cell/git.rs"]
mod git;
#[path = "../cell/identity.rs"]
mod identity;
#[path = "../cell/locks.rs"]
mod locks;
#[path = "../cell/names.rs"]
mod names;
mod namespace;
mod passthrough;
mod reattach;
#[path = "../cell/recovery.rs"]
mod recovery;
#[path = "../cell/semantics.rs"]
mod semantics;
mod slow;
#[path = "../cell/stop.rs"]
mod stop;
mod traces;
#[path = "../cell/watch.rs"]
mod watch;
