//! The control socket: how commands of this program speak to its mounts.
//!
//! The machine: every mount listens on a socket of its own in a directory that only its user, or root, can write:
//! `/run/afs-fuse` for mounts of root, `$XDG_RUNTIME_DIR/afs-fuse` for others. Commands find mounts by listing both. The
//! kernel tells a mount who asks (SO_PEERCRED); the command makes sure that whoever answers is root or its own user
//! before it hands anything over. One request and one reply, each behind its length, and the connection ends.

pub mod client;
pub mod offer;
mod passing;
mod proto;
pub mod server;

use std::path::PathBuf;

pub use proto::{Held, Reply, Request};

/// Where mounts of this user have their sockets: the first of these that can be used. Root in a user namespace may not be
/// able to use that of root.
fn own_directories() -> Vec<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return directories();
    }
    runtime_directory().into_iter().collect()
}

/// Where a command looks for mounts.
fn directories() -> Vec<PathBuf> {
    [Some(ROOT_DIRECTORY.into()), runtime_directory()]
        .into_iter()
        .flatten()
        .collect()
}

fn runtime_directory() -> Option<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty())?;
    Some(PathBuf::from(runtime).join("afs-fuse"))
}

const ROOT_DIRECTORY: &str = "/run/afs-fuse";
