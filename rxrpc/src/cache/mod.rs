//! The connection cache: a connection is never lost while it dies.
//!
//! The machine: connections live on one [`List`], which holds a reference to each, and are found through [`Tree`]s.
//! Callers and the receive path take references ([`Ref`]) from a tree on any thread; a reaper walks the list and
//! retires what has been idle for too long. Whoever meets a connection after the reaper decided puts a fresh one in its
//! place in the same step, so that no packet and no call is ever turned away because a connection is dying.
//!
//! 1. A connection on the list carries one extra reference *for the list*: usage 1 is idle, more is in use, 0 is dying,
//!    for ever.
//! 2. Reuse takes a reference only if usage > 0. At 0 the looker-up replaces the connection in the tree by a candidate
//!    of its own, under the tree's lock.
//! 3. Two flags say whether a connection is in the client tree (used to send) and in the service tree (used on
//!    receipt). Removal tests and clears the flag under the lock under which replacement clears it, so a replacement is
//!    never removed in its predecessor's name.
//! 4. The reaper flips usage 1 -> 0 by one compare-and-swap. If that fails the connection has come back to life and is
//!    left alone.
//!
//! Memory safety comes from `Arc`; *liveness* comes from the usage count. Nothing here reads a clock, sleeps or wakes by
//! itself: time is milliseconds since a base the host chooses, and [`Host`] is how the cache calls back.
//!
//! Lock order: a tree's shard, then the list. No tree's lock is ever taken under the list's; putting a reference takes
//! no lock at all.
//!
//! `docs/connection-cache.md` has the table of races and the loom model for each.

mod bell;
mod list;
mod refs;
mod tree;

pub use bell::Host;
pub use list::{Expiry, List, Reaped};
pub use refs::{Cached, Hold, Life, Ref, Was};
pub use tree::{Lookup, Published, Tree};

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
