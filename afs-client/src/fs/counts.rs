//! Counts that are kept from the start: for metrics, and for xstat_cm_test.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::events::{Cached, Flow, GivenUp, Scope, Tally};

/// Counts from the start. Relaxed: they are only read to be shown.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) given_up: Tally<GivenUp>,
    /// Questions that a cache has answered.
    pub(crate) hits: Tally<Cached>,
    /// Questions that a server had to be asked for.
    pub(crate) misses: Tally<Cached>,
    pub(crate) scopes: Tally<Scope>,
    pub(crate) flows: Tally<Flow>,
    pub(crate) conflicts: AtomicU32,
    /// Stores that failed, by errno.
    store_errors: Mutex<BTreeMap<i32, u64>>,
}

impl Counts {
    /// Objects and volumes that breaks have named.
    pub(crate) fn breaks(&self) -> u64 {
        self.scopes.get(Scope::File) + self.scopes.get(Scope::Volume)
    }

    /// A file that was written here was changed by somebody else.
    pub(crate) fn conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn store_failed(&self, errno: i32) {
        *self.store_errors.lock().entry(errno).or_default() += 1;
    }

    pub(crate) fn store_errors(&self) -> BTreeMap<i32, u64> {
        self.store_errors.lock().clone()
    }
}
