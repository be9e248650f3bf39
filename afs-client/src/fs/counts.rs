//! Counts of hits and misses, for xstat_cm_test.

use std::sync::atomic::{AtomicU32, Ordering};

/// Counts from the start. Relaxed: they are only read to be shown.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) status_hits: AtomicU32,
    pub(crate) status_misses: AtomicU32,
    pub(crate) data_hits: AtomicU32,
    pub(crate) data_misses: AtomicU32,
    pub(crate) breaks: AtomicU32,
    pub(crate) conflicts: AtomicU32,
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

    pub(crate) fn broken(&self, count: usize) {
        self.breaks
            .fetch_add(u32::try_from(count).unwrap_or(u32::MAX), Ordering::Relaxed);
    }
}
