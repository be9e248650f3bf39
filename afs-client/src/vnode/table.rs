//! The table of vnodes.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::Vnode;
use crate::types::Fid;

/// All vnodes, the least recently used ones first. Beyond the limit those that nothing needs are dropped.
#[derive(Debug)]
pub(crate) struct Vnodes {
    by_fid: Mutex<LruCache<Fid, Arc<Vnode>>>,
    limit: usize,
}

impl Vnodes {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            by_fid: Mutex::new(LruCache::unbounded()),
            limit,
        }
    }

    /// The vnode, if it is known.
    pub(crate) fn get(&self, fid: Fid) -> Option<Arc<Vnode>> {
        self.by_fid.lock().get(&fid).cloned()
    }

    /// The vnode, without taking this for use.
    pub(crate) fn peek(&self, fid: Fid) -> Option<Arc<Vnode>> {
        self.by_fid.lock().peek(&fid).cloned()
    }

    /// The vnode, made if need be, and those that have left the table for it.
    pub(crate) fn get_or_make(
        &self,
        fid: Fid,
        make: impl FnOnce() -> Vnode,
    ) -> (Arc<Vnode>, Vec<Arc<Vnode>>) {
        let mut dropped = Vec::new();
        let mut by_fid = self.by_fid.lock();
        let vnode = Arc::clone(by_fid.get_or_insert(fid, || Arc::new(make())));
        for _ in 0..CHANCES {
            if by_fid.len() <= self.limit {
                break;
            }
            let Some((fid, old)) = by_fid.pop_lru() else { break };
            if Arc::strong_count(&old) > 1 || old.is_needed() {
                by_fid.put(fid, old);
            } else {
                dropped.push(old);
            }
        }
        (vnode, dropped)
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<Vnode>> {
        self.recent(usize::MAX)
    }

    /// So many of those used last.
    pub(crate) fn recent(&self, most: usize) -> Vec<Arc<Vnode>> {
        let by_fid = self.by_fid.lock();
        by_fid
            .iter()
            .take(most)
            .map(|(_, vnode)| Arc::clone(vnode))
            .collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_fid.lock().len()
    }
}

/// Looks at so many old ones when a new one comes: those in use are passed over.
const CHANCES: usize = 8;
