//! Which directories are in memory, and how much they take.
//!
//! The machine: a directory that comes in pushes out those that came first, until all together take no more than they may. One
//! that was consulted since it came, or since it was passed over, is passed over.

use lru::LruCache;

use crate::fs::DirectoriesState;
use crate::types::Fid;

/// The directories in memory.
#[derive(Debug)]
pub(super) struct Shelf {
    /// With their bytes.
    by_fid: LruCache<Fid, usize>,
    bytes: usize,
    limit: usize,
}

impl Shelf {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            by_fid: LruCache::unbounded(),
            bytes: 0,
            limit,
        }
    }

    /// How many there are, and what they take.
    pub(super) fn state(&self) -> DirectoriesState {
        DirectoriesState {
            count: self.by_fid.len(),
            bytes: self.bytes,
            limit: self.limit,
        }
    }

    /// A directory has so many bytes in memory now. Gives those that have to go; not this one, whatever it takes.
    pub(super) fn put(&mut self, fid: Fid, bytes: usize, mut consulted: impl FnMut(Fid) -> bool) -> Vec<Fid> {
        self.remove(fid);
        self.by_fid.put(fid, bytes);
        self.bytes += bytes;
        let mut gone = Vec::new();
        let mut chances = CHANCES;
        while self.bytes > self.limit && self.by_fid.len() > 1 {
            let Some((old, bytes)) = self.by_fid.pop_lru() else {
                break;
            };
            if old == fid || (chances > 0 && consulted(old)) {
                chances -= usize::from(old != fid);
                self.by_fid.put(old, bytes);
            } else {
                self.bytes -= bytes;
                gone.push(old);
            }
        }
        gone
    }

    /// A directory is not in memory any more.
    pub(super) fn remove(&mut self, fid: Fid) {
        if let Some(bytes) = self.by_fid.pop(&fid) {
            self.bytes -= bytes;
        }
    }
}

/// So many are passed over at once.
const CHANCES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{CellId, Uniquifier, VnodeId, VolumeId};

    fn fid(vnode: u32) -> Fid {
        Fid {
            cell: CellId(1),
            volume: VolumeId(1),
            vnode: VnodeId(vnode),
            unique: Uniquifier(1),
        }
    }

    #[test]
    fn those_that_nobody_consults_go_first() {
        let mut shelf = Shelf::new(100);
        for vnode in 1..=10 {
            assert!(shelf.put(fid(vnode), 10, |_| false).is_empty());
        }
        assert_eq!(shelf.put(fid(11), 20, |old| old == fid(1)), [fid(2), fid(3)]);
        // It has grown.
        assert_eq!(shelf.put(fid(4), 30, |_| false), [fid(5), fid(6)]);
        shelf.remove(fid(4));
        assert_eq!(shelf.bytes, 70);
        assert!(shelf.put(fid(12), 30, |_| false).is_empty());
    }

    #[test]
    fn the_bound_holds_when_all_are_consulted_and_the_last_one_stays() {
        let mut shelf = Shelf::new(100);
        for vnode in 1..100 {
            shelf.put(fid(vnode), 10, |_| true);
            assert!(shelf.bytes <= 100);
        }
        let gone = shelf.put(fid(1000), 5000, |_| true);
        assert_eq!((gone.len(), shelf.bytes), (10, 5000));
        assert_eq!(shelf.put(fid(1001), 1, |_| false), [fid(1000)]);
    }
}
