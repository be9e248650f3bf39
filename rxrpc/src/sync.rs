//! Atomics and locks, from std or, under `--cfg loom`, from the model checker.
//!
//! Only `cache` uses this: its transitions are what loom explores. Everything else uses `parking_lot`.

#[cfg(loom)]
pub(crate) use loom::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};
