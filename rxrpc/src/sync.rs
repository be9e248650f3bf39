//! Atomics and locks, from std or, under `--cfg loom`, from the model checker.
//!
//! Only `cache` uses this: its transitions are what loom explores. Everything else uses `parking_lot`.

use std::sync::PoisonError;

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering, fence},
};

/// Takes a lock. A thread that panicked while it held one left no half-made change behind: what the cache does under
/// its locks are single inserts, removals and flag changes, so poison is ignored.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
