//! Atomics and locks, from std or, under `--cfg loom`, from the model checker.
//!
//! Only `cache` uses this: its transitions are what loom explores. Everything else uses `parking_lot`.

use std::sync::PoisonError;

#[cfg(loom)]
pub(crate) use self::explored::{AtomicBool, AtomicU64};
#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{Ordering, fence},
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

/// Loom's atomics with every order of accesses explored.
///
/// Loom 0.7 decides which accesses to try in the other order by the *last* access to an atomic only. A thread that loads
/// and then swaps hides thereby every earlier load by others, and "their load after my swap" is never tried: models of
/// compare-and-swap loops pass without ever having met the race. So each access here is preceded by a failing
/// compare-and-swap on a companion that never changes. It is a read-modify-write for the scheduler, which therefore tries
/// all orders, and nothing at all for the memory model: it stores nothing and synchronizes nothing.
#[cfg(loom)]
mod explored {
    use loom::sync::atomic::{self, Ordering};

    macro_rules! explored {
        ($name:ident, $value:ty, { $($method:ident($($arg:ident: $type:ty),*) -> $result:ty;)* }) => {
            #[derive(Debug)]
            pub(crate) struct $name {
                inner: atomic::$name,
                turn: atomic::AtomicBool,
            }

            #[allow(dead_code, reason = "some are for models only")]
            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self { inner: atomic::$name::new(value), turn: atomic::AtomicBool::new(false) }
                }

                $(pub(crate) fn $method(&self, $($arg: $type),*) -> $result {
                    let _always_fails = self.turn.compare_exchange(true, true, Ordering::Relaxed, Ordering::Relaxed);
                    self.inner.$method($($arg),*)
                })*
            }
        };
    }

    explored!(AtomicBool, bool, {
        load(order: Ordering) -> bool;
        store(value: bool, order: Ordering) -> ();
        swap(value: bool, order: Ordering) -> bool;
    });
    explored!(AtomicU64, u64, {
        load(order: Ordering) -> u64;
        store(value: u64, order: Ordering) -> ();
        fetch_add(value: u64, order: Ordering) -> u64;
        fetch_sub(value: u64, order: Ordering) -> u64;
        fetch_max(value: u64, order: Ordering) -> u64;
        compare_exchange(old: u64, new: u64, success: Ordering, failure: Ordering) -> Result<u64, u64>;
    });

    impl AtomicU64 {
        pub(crate) fn fetch_update(
            &self,
            success: Ordering,
            failure: Ordering,
            mut update: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            let mut before = self.load(failure);
            while let Some(after) = update(before) {
                match self.compare_exchange(before, after, success, failure) {
                    Ok(_) => return Ok(before),
                    Err(now) => before = now,
                }
            }
            Err(before)
        }
    }
}
