//! Counts that are kept from the start: for metrics, and for xstat_cm_test.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::events::{Flow, Scope, Tally};

/// Counts from the start. Relaxed: they are only read to be shown.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) status_hits: AtomicU32,
    pub(crate) status_misses: AtomicU32,
    pub(crate) data_hits: AtomicU32,
    pub(crate) data_misses: AtomicU32,
    pub(crate) conflicts: AtomicU32,
    pub(crate) scopes: Tally<Scope>,
    pub(crate) flows: Tally<Flow>,
    /// Stores that failed, by errno.
    store_errors: Mutex<BTreeMap<i32, u64>>,
}

impl Counts {
    pub(crate) fn status_hit(&self) {
        self.status_hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn status_miss(&self) {
        self.status_misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn data_hit(&self) {
        self.data_hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn data_miss(&self) {
        self.data_misses.fetch_add(1, Ordering::Relaxed);
    }

    /// A file that was written here was changed by somebody else.
    pub(crate) fn conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    /// Objects and volumes that breaks have named.
    pub(crate) fn breaks(&self) -> u64 {
        self.scopes.get(Scope::File) + self.scopes.get(Scope::Volume)
    }

    pub(crate) fn store_failed(&self, errno: i32) {
        *self.store_errors.lock().entry(errno).or_default() += 1;
    }

    pub(crate) fn store_errors(&self) -> BTreeMap<i32, u64> {
        self.store_errors.lock().clone()
    }
}
