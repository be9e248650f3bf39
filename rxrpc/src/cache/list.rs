//! Every connection there is, and the walk that retires the idle ones.
//!
//! The machine: the list owns one usage of each connection on it. A walk looks at each usage word; what has been idle
//! for its expiry is retired by compare-and-swap, taken off the list and handed to the caller, who takes it out of the
//! trees and drops it. The walk tells when the next one is worth while; between walks nothing runs. It goes in slices,
//! so that whoever adopts a new connection waits for one slice, not for the whole list.

use std::fmt;
use std::sync::Arc as StdArc;

use super::bell::{Bell, Host};
use super::refs::{Cached, Life, Ref, Seen};
use crate::sync::{Arc, Mutex, lock};

/// The list of all living connections, each with the list's own reference.
pub struct List<T> {
    pub(super) bell: StdArc<Bell>,
    /// Held throughout a walk: there is one walker at a time. Lock order: walk, then entries.
    walk: Mutex<()>,
    /// Lock order: a tree's shard, then this. Held for one push or one slice of a walk.
    pub(super) entries: Mutex<Entries<T>>,
}

pub(super) struct Entries<T> {
    conns: Vec<Arc<T>>,
    /// Above this number the reaper wants to be called, because a shorter expiry applies from there on.
    ring_above: usize,
    /// Set for ever by the first drain: every expiry is 0 from then on.
    draining: bool,
}

impl<T: Cached> List<T> {
    /// An empty list that calls back to `host`.
    pub fn new(host: Box<dyn Host>) -> Self {
        Self {
            bell: StdArc::new(Bell::new(host)),
            walk: Mutex::new(()),
            entries: Mutex::new(Entries {
                conns: Vec::new(),
                ring_above: usize::MAX,
                draining: false,
            }),
        }
    }

    /// The part of a new connection that belongs to the cache, good for one [`adopt`](Self::adopt) into this list.
    pub fn life(&self, now_ms: u64) -> Life {
        Life::new(now_ms, StdArc::clone(&self.bell))
    }

    /// Takes a new connection in and gives its creator the first reference.
    pub fn adopt(&self, conn: T) -> Ref<T> {
        let conn = Arc::new(conn);
        let mut entries = lock(&self.entries);
        debug_assert!(
            !conn.life().is_listed() && conn.life().usage() == 2,
            "not new: {:?}",
            conn.life()
        );
        conn.life().listed.set();
        entries.conns.push(Arc::clone(&conn));
        let over = entries.conns.len() > entries.ring_above;
        if over {
            entries.ring_above = usize::MAX;
        }
        drop(entries);
        if over {
            self.bell.ring();
        }
        Ref::first(conn)
    }

    /// Retires what has been idle for too long.
    ///
    /// The caller unpublishes each of `dead` from the trees it may be in and drops it. It calls again at `next_ms`, or
    /// when the host is woken, whichever is first.
    pub fn reap(&self, now_ms: u64, expiry: Expiry) -> Reaped<T> {
        self.walk(now_ms, expiry, retire)
    }

    /// Retires everything idle, however recently used, and goes on doing so: after the first drain every walk of this
    /// list is one.
    ///
    /// For shutdown, when nobody looks up any more: drain, then wait to be woken and drain again, until `left` is 0.
    pub fn drain(&self) -> Reaped<T> {
        lock(&self.entries).draining = true;
        self.walk(
            0,
            Expiry {
                idle_ms: 0,
                fast_ms: 0,
                soft_limit: usize::MAX,
            },
            retire,
        )
    }

    /// Reaps like a reaper that is often interrupted between look and swap: for the storm, so that reaps are lost in it.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn reap_slowly(&self, now_ms: u64, expiry: Expiry) -> Reaped<T> {
        self.walk(now_ms, expiry, |life, seen| {
            interrupt(seen);
            retire(life, seen)
        })
    }

    /// Takes idle ones off the list by their look alone, as a cache without rule 4 would, interrupted as often: for the
    /// storm to compare with.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn forget_idle(&self, now_ms: u64, expiry: Expiry) -> Reaped<T> {
        self.walk(now_ms, expiry, |_, seen| {
            interrupt(seen);
            Ok(())
        })
    }

    /// One walk, in slices. `retire` is an argument for the sake of tests that do it slowly or wrong.
    pub(super) fn walk(&self, now_ms: u64, expiry: Expiry, retire: Retire) -> Reaped<T> {
        let _one_walker = lock(&self.walk);
        // Before the first look: see `bell`.
        self.bell.ask();
        let mut reaped = Reaped {
            dead: Vec::new(),
            lost: 0,
            next_ms: None,
            left: 0,
            shortest_ms: u64::MAX,
        };
        let mut at = 0;
        while let Some(next) = self.slice(at, now_ms, expiry, retire, &mut reaped) {
            at = next;
        }
        if let Some(due_ms) = reaped.next_ms {
            self.bell.unask();
            // Connections that fall due one after the other are reaped together, at most a sixteenth of the expiry late,
            // so that walking costs nothing in the long run.
            let soonest = now_ms.saturating_add((reaped.shortest_ms / 16).max(1));
            reaped.next_ms = Some(due_ms.max(soonest));
        }
        reaped
    }

    /// One slice of a walk from position `at`; gives the position to go on from. Positions stay good between slices
    /// because only the one walker removes, and adopting appends.
    pub(super) fn slice(
        &self,
        mut at: usize,
        now_ms: u64,
        expiry: Expiry,
        retire: Retire,
        reaped: &mut Reaped<T>,
    ) -> Option<usize> {
        let mut entries = lock(&self.entries);
        let entries = &mut *entries;
        for _ in 0..SLICE {
            let total = entries.conns.len();
            let Some(conn) = entries.conns.get(at) else {
                let over = total > expiry.soft_limit;
                entries.ring_above = if over { usize::MAX } else { expiry.soft_limit };
                reaped.left = total;
                return None;
            };
            let life = conn.life();
            let expiry_ms = if entries.draining {
                0
            } else {
                expiry.of(life, total)
            };
            let seen = life.usage.load();
            let due_ms = seen.stamp_ms().saturating_add(expiry_ms);
            if seen.count() != 1 {
                // Its put will ring, or the walk at `next_ms` will meet it.
                at += 1;
            } else if due_ms > now_ms && !entries.draining {
                reaped.next_ms = Some(reaped.next_ms.map_or(due_ms, |next| next.min(due_ms)));
                reaped.shortest_ms = reaped.shortest_ms.min(expiry_ms);
                at += 1;
            } else if retire(life, seen).is_ok() {
                life.listed.test_and_clear();
                reaped.dead.push(entries.conns.swap_remove(at));
            } else {
                // It came back to life, and may be idle again already: look anew at the same one.
                reaped.lost += 1;
            }
        }
        Some(at)
    }

    /// Number of connections on the list.
    pub fn len(&self) -> usize {
        lock(&self.entries).conns.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of idle connections. Looks at each one.
    pub fn idle(&self) -> usize {
        self.snapshot()
            .iter()
            .filter(|conn| conn.life().is_idle())
            .count()
    }

    /// The connection at a place of the list, for looking at. Others may move there when one is taken off.
    pub fn nth(&self, place: usize) -> Option<Arc<T>> {
        lock(&self.entries).conns.get(place).cloned()
    }

    /// All connections, for looking at: taking part in their life needs [`Ref::get_live`].
    pub fn snapshot(&self) -> Vec<Arc<T>> {
        lock(&self.entries).conns.clone()
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("List")
            .field("bell", &self.bell)
            .finish_non_exhaustive()
    }
}

/// How long a connection may be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The ordinary expiry.
    pub idle_ms: u64,
    /// The expiry while more than `soft_limit` connections are on the list, of a connection in neither tree, which nobody
    /// can find any more, and of one that its owner has [hurried](Life::hurry).
    pub fast_ms: u64,
    /// See `fast_ms`.
    pub soft_limit: usize,
}

impl Expiry {
    fn of(self, life: &Life, total: usize) -> u64 {
        let findable = life.in_client() || life.in_service();
        if findable && !life.is_brief() && total <= self.soft_limit {
            self.idle_ms
        } else {
            self.fast_ms.min(self.idle_ms)
        }
    }
}

/// The yield of one walk.
#[must_use = "what was reaped must be taken out of the trees"]
pub struct Reaped<T> {
    /// Retired and off the list: unpublish and drop them.
    pub dead: Vec<Arc<T>>,
    /// How many came back to life between the look and the compare-and-swap.
    pub lost: usize,
    /// When to walk again. `None`: nothing is idle; the host is woken when something is.
    pub next_ms: Option<u64>,
    /// How many are still on the list.
    pub left: usize,
    /// The shortest expiry of those that are idle and not due.
    pub(super) shortest_ms: u64,
}

impl<T> fmt::Debug for Reaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reaped")
            .field("dead", &self.dead.len())
            .field("lost", &self.lost)
            .field("next_ms", &self.next_ms)
            .field("left", &self.left)
            .finish()
    }
}

pub(super) type Retire = fn(&Life, Seen) -> Result<(), Seen>;

pub(super) fn retire(life: &Life, seen: Seen) -> Result<(), Seen> {
    life.usage.retire(seen)
}

/// Lets others run between look and deed, once for every few looks.
#[cfg(all(test, not(loom)))]
fn interrupt(seen: Seen) {
    if seen.stamp_ms().is_multiple_of(8) {
        std::thread::sleep(std::time::Duration::from_micros(1));
    }
}

/// Entries looked at under one hold of the lock.
const SLICE: usize = 1024;
