//! The table of vnodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};

use super::Vnode;
use super::shelf::Shelf;
use crate::types::Fid;

/// All vnodes, the least recently used ones first. Beyond the limit those that nothing needs are dropped.
#[derive(Debug)]
pub(crate) struct Vnodes {
    by_fid: Mutex<LruCache<Fid, Arc<Vnode>>>,
    limit: usize,
    /// Lock order: before the table.
    directories: Mutex<Shelf>,
}

impl Vnodes {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            by_fid: Mutex::new(LruCache::unbounded()),
            limit,
            directories: Mutex::new(Shelf::new(MAX_DIRECTORIES)),
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
        let mut by_fid = self.by_fid.lock();
        let vnode = Arc::clone(by_fid.get_or_insert(fid, || Arc::new(make())));
        (vnode, self.trim(by_fid))
    }

    /// The kernel forgot a vnode: it may go. Gives those that have left the table.
    pub(crate) fn forgot(&self, fid: Fid) -> Vec<Arc<Vnode>> {
        let mut by_fid = self.by_fid.lock();
        let Some(vnode) = by_fid.peek(&fid) else {
            return Vec::new();
        };
        vnode.retained.store(false, Ordering::Release);
        if by_fid.len() <= self.limit {
            return Vec::new();
        }
        by_fid.demote(&fid);
        self.trim(by_fid)
    }

    /// Drops what is too much, as far as it is found at once.
    fn trim(&self, mut by_fid: MutexGuard<'_, LruCache<Fid, Arc<Vnode>>>) -> Vec<Arc<Vnode>> {
        let mut dropped = Vec::new();
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
        drop(by_fid);
        for old in &dropped {
            self.directories.lock().remove(old.fid);
        }
        dropped
    }

    /// A vnode has its directory in memory, or has it no more; others may have to lose theirs.
    pub(crate) fn shelve(&self, vnode: &Vnode) {
        let gone = {
            let mut directories = self.directories.lock();
            match vnode.directory_bytes() {
                0 => {
                    directories.remove(vnode.fid);
                    Vec::new()
                }
                bytes => {
                    let consulted = |fid| self.peek(fid).is_some_and(|vnode| vnode.was_consulted());
                    directories.put(vnode.fid, bytes, consulted)
                }
            }
        };
        for fid in gone {
            if let Some(vnode) = self.peek(fid) {
                vnode.drop_directory();
            }
        }
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

/// Bytes of directories in memory, whatever the number of vnodes.
const MAX_DIRECTORIES: usize = 128 << 20;
/// Looks at so many old ones when a new one comes: those in use are passed over.
const CHANCES: usize = 8;
