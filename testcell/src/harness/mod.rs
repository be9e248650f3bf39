//! Cells under test with the program `afs` mounted on them: a real OpenAFS cell, and the embedded one.
//!
//! The machine: [`Cell`] drives the script `testcell/cell/cell`, which starts Debian's servers in namespaces;
//! [`Mount`] runs the `afs` program in the namespace of one of the cell's clients; [`Metrics`] is what its metrics
//! page said. A test takes the cell of its binary with [`shared`], which also serialises the tests of a binary,
//! limits how long each may take and, if it fails, prints the logs of the servers and of the clients. A test that takes
//! it with [`local`] instead runs on the embedded cell, with the same words.
//!
//! Every wait has a limit and only processes that were started here are ended. A cell outlives its process only
//! for a moment: a guardian process holds the other end of a pipe and takes the cell down when the pipe closes,
//! however the process ended.

// Real servers live in real time.
#![allow(clippy::disallowed_methods)]

mod cell;
mod command;
mod content;
mod kept;
mod local;
mod metrics;
mod mount;
mod needs;
mod netns;
mod shared;
mod site;
mod watch;

pub use cell::Cell;
pub use command::{Finished, run, run_in, tail};
pub use content::{Random, Sum, fill, sha256, write_and_close};
pub use kept::Kept;
pub use local::{LocalCell, LocalShared, local, local_for};
pub use metrics::{Metrics, get};
pub use mount::{Mount, MountOptions, afs_program};
pub use shared::{Shared, shared, shared_as, shared_for};

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Waits until the condition holds; false if it does not within the limit.
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        sleep(Duration::from_millis(20));
    }
}
