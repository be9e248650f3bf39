//! The table of vnodes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use lru::LruCache;
use parking_lot::{Mutex, MutexGuard};

use super::Vnode;
use super::shelf::Shelf;
use crate::fs::DirectoriesState;
use crate::types::Fid;

/// All vnodes, the least recently used ones first. Beyond the limit those that nothing needs are dropped.
#[derive(Debug)]
pub(crate) struct Vnodes {
    by_fid: Mutex<LruCache<Fid, Row>>,
    /// The same ones in no order, for who looks at all of them: they take a slice at a time, and keep nobody from the table.
    /// Lock order: after the table.
    listed: Mutex<Vec<Arc<Vnode>>>,
    limit: usize,
    /// Lock order: before the table.
    directories: Mutex<Shelf>,
}

#[derive(Debug)]
struct Row {
    vnode: Arc<Vnode>,
    /// Where it is in the list.
    place: usize,
}

impl Vnodes {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            by_fid: Mutex::new(LruCache::unbounded()),
            listed: Mutex::default(),
            limit,
            directories: Mutex::new(Shelf::new(MAX_DIRECTORIES)),
        }
    }

    /// The vnode, if it is known.
    pub(crate) fn get(&self, fid: Fid) -> Option<Arc<Vnode>> {
        self.by_fid.lock().get(&fid).map(|row| Arc::clone(&row.vnode))
    }

    /// The vnode, without taking this for use.
    pub(crate) fn peek(&self, fid: Fid) -> Option<Arc<Vnode>> {
        self.by_fid.lock().peek(&fid).map(|row| Arc::clone(&row.vnode))
    }

    /// The vnode, made if need be, and those that have left the table for it.
    pub(crate) fn get_or_make(
        &self,
        fid: Fid,
        make: impl FnOnce() -> Vnode,
    ) -> (Arc<Vnode>, Vec<Arc<Vnode>>) {
        let mut by_fid = self.by_fid.lock();
        let row = by_fid.get_or_insert(fid, || {
            let vnode = Arc::new(make());
            let mut listed = self.listed.lock();
            let place = listed.len();
            listed.push(Arc::clone(&vnode));
            Row { vnode, place }
        });
        let vnode = Arc::clone(&row.vnode);
        (vnode, self.trim(by_fid))
    }

    /// The kernel forgot a vnode: it may go. Gives those that have left the table.
    pub(crate) fn forgot(&self, fid: Fid) -> Vec<Arc<Vnode>> {
        let mut by_fid = self.by_fid.lock();
        let Some(row) = by_fid.peek(&fid) else {
            return Vec::new();
        };
        row.vnode.retained.store(false, Ordering::Release);
        if by_fid.len() <= self.limit {
            return Vec::new();
        }
        by_fid.demote(&fid);
        self.trim(by_fid)
    }

    /// Drops what is too much, as far as it is found at once.
    fn trim(&self, mut by_fid: MutexGuard<'_, LruCache<Fid, Row>>) -> Vec<Arc<Vnode>> {
        let mut dropped = Vec::new();
        for _ in 0..CHANCES {
            if by_fid.len() <= self.limit {
                break;
            }
            let Some((fid, old)) = by_fid.pop_lru() else { break };
            if Arc::strong_count(&old.vnode) > HELD_HERE || old.vnode.is_needed() {
                by_fid.put(fid, old);
                continue;
            }
            let moved = {
                let mut listed = self.listed.lock();
                listed.swap_remove(old.place);
                listed.get(old.place).map(|vnode| vnode.fid)
            };
            if let Some(row) = moved.and_then(|fid| by_fid.peek_mut(&fid)) {
                row.place = old.place;
            }
            dropped.push(old.vnode);
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

    /// The directories in memory.
    pub(crate) fn directories(&self) -> DirectoriesState {
        self.directories.lock().state()
    }

    /// All of them. Some may be there twice if others leave the table meanwhile.
    pub(crate) fn all(&self) -> Vec<Arc<Vnode>> {
        let mut all = Vec::new();
        self.each(|vnode| all.push(Arc::clone(vnode)));
        all
    }

    /// Looks at all that are there from now to the end, at some twice if others leave the table meanwhile. Nobody waits for this
    /// longer than it takes to copy a slice of the list.
    pub(crate) fn each(&self, look: impl FnMut(&Arc<Vnode>)) {
        self.sample(usize::MAX, look);
    }

    /// Looks at `most` of them, in slices from all parts of the list, or at all. Gives how many there were.
    pub(crate) fn sample(&self, most: usize, mut look: impl FnMut(&Arc<Vnode>)) -> usize {
        let total = self.len();
        let slices = total.min(most).div_ceil(SLICE);
        let stride = if total <= most { SLICE } else { total / slices };
        let mut slice = Vec::with_capacity(SLICE.min(total));
        // From the end on: what leaves the table is replaced in the list by what is last there, which was looked at already.
        for number in (0..slices).rev() {
            let from = number * stride;
            {
                let listed = self.listed.lock();
                let to = listed.len().min(from + SLICE);
                slice.extend_from_slice(listed.get(from..to).unwrap_or_default());
            }
            slice.iter().for_each(&mut look);
            slice.clear();
        }
        total
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.listed.lock().len()
    }
}

/// Bytes of directories in memory, whatever the number of vnodes.
const MAX_DIRECTORIES: usize = 128 << 20;
/// Looks at so many old ones when a new one comes: those in use are passed over.
const CHANCES: usize = 8;
/// The table and the list.
const HELD_HERE: usize = 2;
/// What is copied of the list at a time: some microseconds.
const SLICE: usize = 256;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::store::DataCache;
    use crate::types::{CellId, Uniquifier, VnodeId, VolumeId};
    use crate::volume::Volume;

    fn fid(number: u32) -> Fid {
        Fid {
            cell: CellId(1),
            volume: VolumeId(1),
            vnode: VnodeId(number),
            unique: Uniquifier(1),
        }
    }

    /// A table with that many vnodes, and room for no more.
    fn filled(count: u32) -> (Vnodes, impl Fn(&Vnodes, u32)) {
        let (volume, cache) = (Volume::example(), DataCache::in_memory(1 << 20));
        let make = move |vnodes: &Vnodes, number| {
            vnodes.get_or_make(fid(number), || {
                Vnode::new(fid(number), Arc::clone(&volume), cache.clone())
            });
        };
        let vnodes = Vnodes::new(count as usize);
        (0..count).for_each(|number| make(&vnodes, number));
        (vnodes, make)
    }

    /// Neither the table nor the list is locked while somebody looks, and they have hold of a slice, not of all.
    #[test]
    fn who_looks_at_all_keeps_nobody_from_the_table() {
        let (vnodes, _) = filled(100_000);
        let mut seen = 0;
        vnodes.each(|vnode| {
            assert!(
                vnodes
                    .by_fid
                    .try_lock()
                    .is_some_and(|mut table| table.get(&vnode.fid).is_some())
            );
            let listed = vnodes.listed.try_lock().unwrap();
            if seen == 0 {
                let held = listed.iter().filter(|vnode| Arc::strong_count(vnode) > HELD_HERE);
                assert!(held.count() <= SLICE);
            }
            seen += 1;
        });
        assert_eq!(seen, 100_000);
    }

    #[test]
    fn all_that_stay_are_seen_while_others_come_and_go() {
        let (vnodes, make) = filled(1_000);
        let (mut seen, mut next) = (HashSet::new(), 1_000);
        vnodes.each(|vnode| {
            seen.insert(vnode.fid);
            // Each takes the place of one that was not used for longest.
            make(&vnodes, next);
            next += 1;
        });
        assert!(next >= 2_000);
        let table = vnodes.by_fid.lock();
        let listed = vnodes.listed.lock();
        assert_eq!(table.len(), listed.len());
        for (fid, row) in table.iter() {
            assert!(fid.vnode.0 >= 1_000 || seen.contains(fid), "{fid}");
            assert!(Arc::ptr_eq(&listed[row.place], &row.vnode), "{fid}");
        }
    }

    #[test]
    fn a_sample_is_of_all_parts() {
        let (vnodes, _) = filled(10_000);
        let mut seen = Vec::new();
        let total = vnodes.sample(1_000, |vnode| seen.push(vnode.fid.vnode.0));
        assert_eq!((total, seen.len()), (10_000, 4 * SLICE));
        for quarter in 0..4 {
            let from = quarter * 2_500;
            assert!(
                seen.iter().any(|number| (from..from + 2_500).contains(number)),
                "{quarter}"
            );
        }
        assert_eq!(vnodes.all().len(), 10_000);
    }
}
