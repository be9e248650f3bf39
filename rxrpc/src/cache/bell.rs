//! The bell by which whoever makes a connection idle calls a reaper that sleeps without a deadline.
//!
//! The machine: while something on the list is idle the reaper knows when to look again and needs no call. Only when
//! nothing is idle (or the list is being drained) does it leave its *ask* standing and sleep until called. The danger is
//! the call that nobody makes: the reaper sees a connection in use, the user puts it and sees no ask. Therefore the
//! reaper asks **before** it walks, and ask/walk and put/look are separated by a sequentially consistent fence on both
//! sides: at least one of the two sees the other.

use std::fmt;

use crate::sync::{AtomicBool, Ordering, fence};

/// What the cache needs of the program around it.
///
/// Both are called from `Drop` of a [`Ref`](super::Ref) on any thread, and possibly under a tree's lock: they must be
/// quick, must not block and must not call the cache.
pub trait Host: Send + Sync + 'static {
    /// Milliseconds since the base of time that all calls into the cache use. Need not be strictly ordered across
    /// threads: stamps only ever move forward.
    fn now_ms(&self) -> u64;

    /// Makes the reaper run soon. May be called more often than needed.
    fn wake(&self);
}

/// Shared by a list and every connection made for it.
pub(super) struct Bell {
    /// True while the reaper relies on being called.
    pub(super) asked: AtomicBool,
    host: Box<dyn Host>,
}

impl Bell {
    pub(super) fn new(host: Box<dyn Host>) -> Self {
        Self {
            asked: AtomicBool::new(false),
            host,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.host.now_ms()
    }

    /// Reaper, before its walk: from here on a connection that the walk sees in use rings when it becomes idle.
    pub(super) fn ask(&self) {
        // Relaxed: the fence orders it. The store comes before the fence, the walk's loads of the usage words after
        // it. Pairs with the fence in `became_idle`.
        self.asked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Reaper, after its walk, when it knows by itself when to look again.
    pub(super) fn unask(&self) {
        // Relaxed: publishes nothing. A put that still sees the ask rings once too often; one that does not is met by
        // the walk at the known time.
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Putter, after the decrement that made a connection idle.
    pub(super) fn became_idle(&self) {
        // The decrement comes before the fence, the look at the ask after it. If the reaper's fence is first in the
        // single order of such fences, the load below sees the ask; if this one is, the walk sees the count at 1.
        fence(Ordering::SeqCst);
        // A load first: while nobody sleeps the line stays shared between processors. The swap makes one ring of many
        // puts; losing it to another putter means that one rings.
        if self.asked.load(Ordering::Relaxed) && self.asked.swap(false, Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Calls the reaper whether it asked or not.
    pub(super) fn ring(&self) {
        self.host.wake();
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell")
            .field("asked", &self.asked.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}
