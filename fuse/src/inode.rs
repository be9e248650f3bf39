//! The inode table: which node ids the kernel holds, and which names it may believe in.
//!
//! A node id is a hash of the FID, so that it stays the same after the kernel forgot it and across restarts. Two FIDs
//! with one hash are told apart by letting the later one take the next free number for as long as the kernel knows it.
//! The kernel counts how often an id was given to it; the entry goes when it gave all of them back. A node that is retired goes
//! on until then, and its object has another number meanwhile.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};

use afs_client::types::Fid;
use parking_lot::{Mutex, RwLock};

/// The node id of the root.
pub const ROOT: u64 = 1;

/// Node ids and FIDs.
pub struct InodeTable {
    root: Fid,
    hash: fn(Fid) -> u64,
    nodes: RwLock<Nodes>,
    doubts: AtomicU64,
}

#[derive(Default)]
struct Nodes {
    by_id: HashMap<u64, Node>,
    /// FIDs whose id is not their hash.
    displaced: HashMap<Fid, u64>,
    /// Nodes that the kernel has open still, and whose objects get, or have, another one.
    retired: HashSet<u64>,
}

struct Node {
    fid: Fid,
    lookups: u64,
    /// Of a directory: the node from which it was walked last; 0 if that is not known.
    above: u64,
}

impl InodeTable {
    /// A table that knows the root for ever.
    pub fn new(root: Fid) -> Self {
        Self::with_hash(root, hash)
    }

    fn with_hash(root: Fid, hash: fn(Fid) -> u64) -> Self {
        Self {
            root,
            hash,
            nodes: RwLock::default(),
            doubts: AtomicU64::new(0),
        }
    }

    /// How many objects were doubted so far. One that is doubted while the kernel does not know it yet shows here: to be
    /// read before the file system is asked, and again after [`retain`](Self::retain).
    pub fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::SeqCst)
    }

    /// The node id of an object whose attributes are not true any more, if the kernel knows it.
    pub fn doubt(&self, fid: Fid) -> Option<u64> {
        // Before the look: either it finds what `retain` put there, or who retained sees the new count.
        self.doubts.fetch_add(1, Ordering::SeqCst);
        self.known(fid)
    }

    /// The object behind a node id.
    pub fn fid(&self, id: u64) -> Option<Fid> {
        if id == ROOT {
            return Some(self.root);
        }
        self.nodes.read().by_id.get(&id).map(|node| node.fid)
    }

    /// The node id that an object has, or would get if the kernel learned of it now.
    pub fn id(&self, fid: Fid) -> u64 {
        if fid == self.root {
            return ROOT;
        }
        self.nodes.read().place(fid, (self.hash)(fid)).0
    }

    /// The node id of an object that the kernel knows.
    pub fn known(&self, fid: Fid) -> Option<u64> {
        if fid == self.root {
            return Some(ROOT);
        }
        let (id, known) = self.nodes.read().place(fid, (self.hash)(fid));
        known.then_some(id)
    }

    /// Counts a node id that is about to be given to the kernel. `first` runs if the kernel did not know the object;
    /// it runs under the table's lock, so that it cannot overtake the `last` of [`Self::forget`].
    pub fn retain(&self, fid: Fid, first: impl FnOnce()) -> u64 {
        if fid == self.root {
            return ROOT;
        }
        let preferred = (self.hash)(fid);
        let mut nodes = self.nodes.write();
        let (id, known) = nodes.place(fid, preferred);
        if known {
            if let Some(node) = nodes.by_id.get_mut(&id) {
                node.lookups = node.lookups.saturating_add(1);
            }
            return id;
        }
        if id != preferred {
            nodes.displaced.insert(fid, id);
        }
        let node = Node {
            fid,
            lookups: 1,
            above: 0,
        };
        nodes.by_id.insert(id, node);
        first();
        id
    }

    /// A directory is walked to from another, or was moved there.
    pub fn walked(&self, id: u64, above: u64) {
        if let Some(node) = self.nodes.write().by_id.get_mut(&id) {
            node.above = above;
        }
    }

    /// The node from which a directory was walked last.
    pub fn above(&self, id: u64) -> Option<u64> {
        let nodes = self.nodes.read();
        let above = nodes.by_id.get(&id)?.above;
        (above != 0).then_some(above)
    }

    /// The kernel gave `count` lookups back. `last` runs if it does not know the object any more.
    pub fn forget(&self, id: u64, count: u64, last: impl FnOnce(Fid)) {
        let mut nodes = self.nodes.write();
        let Entry::Occupied(mut entry) = nodes.by_id.entry(id) else {
            return;
        };
        let node = entry.get_mut();
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups == 0 {
            let fid = entry.remove().fid;
            if nodes.displaced.get(&fid) == Some(&id) {
                nodes.displaced.remove(&fid);
            }
            nodes.retired.remove(&id);
            if !nodes.has(fid, (self.hash)(fid)) {
                last(fid);
            }
        }
    }

    /// The object behind a node gets another one when the kernel learns of it next. False if that was so before.
    pub fn retire(&self, id: u64) -> bool {
        let mut nodes = self.nodes.write();
        let Some(fid) = nodes.by_id.get(&id).map(|node| node.fid) else {
            return false;
        };
        if nodes.displaced.get(&fid) == Some(&id) {
            nodes.displaced.remove(&fid);
        }
        nodes.retired.insert(id)
    }

    /// Has the object behind a node another one, or will it get one?
    pub fn is_retired(&self, id: u64) -> bool {
        self.nodes.read().retired.contains(&id)
    }

    /// The kernel holds an object, and learned of it from an earlier process.
    pub fn adopt(&self, id: u64, fid: Fid, lookups: u64, is_retired: bool) {
        let mut nodes = self.nodes.write();
        if is_retired {
            nodes.retired.insert(id);
        } else if id != (self.hash)(fid) {
            nodes.displaced.insert(fid, id);
        }
        let above = 0;
        nodes.by_id.insert(id, Node { fid, lookups, above });
    }

    /// Nothing is true any more: every object that the kernel knows beside the root.
    pub fn doubt_all(&self) -> Vec<u64> {
        self.doubts.fetch_add(1, Ordering::SeqCst);
        self.nodes.read().by_id.keys().copied().collect()
    }

    /// How many objects the kernel knows beside the root.
    pub fn len(&self) -> usize {
        self.nodes.read().by_id.len()
    }

    /// Does the kernel know the root only?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Nodes {
    /// Does the kernel know an object, by whatever node?
    fn has(&self, fid: Fid, preferred: u64) -> bool {
        let is_of = |id| self.by_id.get(id).is_some_and(|node: &Node| node.fid == fid);
        self.retired.iter().any(is_of) || self.place(fid, preferred).1
    }

    /// Where an object is, or where it would go; and whether it is there.
    fn place(&self, fid: Fid, preferred: u64) -> (u64, bool) {
        if let Some(id) = self.displaced.get(&fid) {
            return (*id, true);
        }
        let mut id = preferred;
        loop {
            match self.by_id.get(&id) {
                _ if id <= ROOT => {}
                Some(node) if node.fid == fid && !self.retired.contains(&id) => return (id, true),
                None => return (id, false),
                Some(_) => {}
            }
            id = (id.wrapping_add(1)) & MASK;
        }
    }
}

/// The names that the kernel may believe in, found or absent, by directory.
///
/// A name is remembered *before* the file system is asked about it, and the directory's version is noted; so a change
/// of the directory either finds the name here, or is seen by the asker, who then gives the kernel no lifetime.
#[derive(Default)]
pub struct Names {
    directories: Mutex<Directories>,
}

#[derive(Default)]
struct Directories {
    by_id: HashMap<u64, Known>,
    total: usize,
}

#[derive(Default)]
struct Known {
    version: u64,
    names: HashSet<Box<[u8]>>,
}

/// What [`Names::remember`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembered {
    version: u64,
    kept: bool,
}

impl Names {
    /// Remembers a name of a directory.
    pub fn remember(&self, directory: u64, name: &[u8]) -> Remembered {
        let mut directories = self.directories.lock();
        let room = directories.total < MAX_NAMES;
        let known = directories.by_id.entry(directory).or_default();
        let version = known.version;
        if known.names.contains(name) {
            return Remembered { version, kept: true };
        }
        if room {
            known.names.insert(name.into());
            directories.total += 1;
        }
        Remembered { version, kept: room }
    }

    /// Is it one of those that the kernel may believe in?
    pub fn knows(&self, directory: u64, name: &[u8]) -> bool {
        let directories = self.directories.lock();
        let known = directories.by_id.get(&directory);
        known.is_some_and(|known| known.names.contains(name))
    }

    /// May the kernel believe in the name, given what was seen when it was remembered?
    pub fn stands(&self, directory: u64, seen: Remembered) -> bool {
        let directories = self.directories.lock();
        seen.kept
            && directories
                .by_id
                .get(&directory)
                .is_some_and(|known| known.version == seen.version)
    }

    /// The directory changed: gives its names, which the kernel is about to be told to doubt.
    pub fn take(&self, directory: u64) -> Vec<Box<[u8]>> {
        let mut directories = self.directories.lock();
        let Some(known) = directories.by_id.get_mut(&directory) else {
            return Vec::new();
        };
        known.version += 1;
        let names: Vec<_> = known.names.drain().collect();
        directories.total -= names.len();
        names
    }

    /// One name changed.
    pub fn take_one(&self, directory: u64, name: &[u8]) {
        let mut directories = self.directories.lock();
        if let Some(known) = directories.by_id.get_mut(&directory) {
            known.version += 1;
            if known.names.remove(name) {
                directories.total -= 1;
            }
        }
    }

    /// Drops a name that the kernel was given only a short lifetime for.
    pub fn drop_one(&self, directory: u64, name: &[u8]) {
        let mut directories = self.directories.lock();
        if directories
            .by_id
            .get_mut(&directory)
            .is_some_and(|known| known.names.remove(name))
        {
            directories.total -= 1;
        }
    }

    /// The kernel forgot the directory, and with it the names in it.
    pub fn forget(&self, directory: u64) {
        let mut directories = self.directories.lock();
        if let Some(known) = directories.by_id.remove(&directory) {
            directories.total -= known.names.len();
        }
    }

    /// Directories with names.
    pub fn directories(&self) -> Vec<u64> {
        self.directories.lock().by_id.keys().copied().collect()
    }
}

/// A 63-bit hash, the same in every run and on every machine.
fn hash(fid: Fid) -> u64 {
    let words = [
        (u64::from(fid.cell.0) << 32) | u64::from(fid.volume.0),
        (u64::from(fid.vnode.0) << 32) | u64::from(fid.unique.0),
    ];
    words.into_iter().fold(0x9e37_79b9_7f4a_7c15, |state: u64, word| {
        let mut mixed = (state ^ word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^= mixed >> 31;
        mixed = mixed.wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 29)
    }) & MASK
}

/// Node ids are positive as signed numbers, for programs that print them so.
const MASK: u64 = u64::MAX >> 1;
/// Names remembered at most; those beyond get a short lifetime instead.
const MAX_NAMES: usize = 500_000;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use afs_client::types::{CellId, Uniquifier, VnodeId, VolumeId};

    use super::*;

    fn fid(vnode: u32) -> Fid {
        Fid {
            cell: CellId(1),
            volume: VolumeId(536_870_912),
            vnode: VnodeId(vnode),
            unique: Uniquifier(vnode),
        }
    }

    #[test]
    fn the_root_is_always_known() {
        let table = InodeTable::new(fid(1));
        assert_eq!(
            (table.fid(ROOT), table.id(fid(1)), table.known(fid(1))),
            (Some(fid(1)), ROOT, Some(ROOT))
        );
        table.forget(ROOT, 1000, |_| panic!("the root is never forgotten"));
        assert_eq!(table.fid(ROOT), Some(fid(1)));
    }

    #[test]
    fn an_object_stays_as_long_as_its_lookups() {
        let table = InodeTable::new(fid(1));
        let firsts = Cell::new(0);
        let id = table.retain(fid(2), || firsts.set(firsts.get() + 1));
        assert_eq!(table.retain(fid(2), || firsts.set(firsts.get() + 1)), id);
        assert_eq!((firsts.get(), table.len(), table.known(fid(2))), (1, 1, Some(id)));
        table.forget(id, 1, |_| panic!("one lookup is left"));
        let gone = Cell::new(None);
        table.forget(id, 1, |fid| gone.set(Some(fid)));
        assert_eq!(
            (gone.get(), table.fid(id), table.known(fid(2))),
            (Some(fid(2)), None, None)
        );
        assert_eq!(table.id(fid(2)), id, "the same number when it comes back");
        table.forget(id, 7, |_| panic!("not known"));
    }

    #[test]
    fn equal_hashes_are_told_apart() {
        let table = InodeTable::with_hash(fid(1), |_| 77);
        let [first, second, third] = [2, 3, 4].map(|vnode| table.retain(fid(vnode), || ()));
        assert_eq!([first, second, third], [77, 78, 79]);
        table.forget(first, 1, |_| ());
        // The others are still found although the chain has a hole now.
        assert_eq!((table.known(fid(3)), table.known(fid(4))), (Some(78), Some(79)));
        assert_eq!(table.retain(fid(3), || panic!("known")), 78);
        assert_eq!(table.retain(fid(5), || ()), 77);
        assert_eq!((table.fid(77), table.fid(78)), (Some(fid(5)), Some(fid(3))));
    }

    #[test]
    fn a_retired_node_goes_on_beside_another() {
        let table = InodeTable::new(fid(1));
        let firsts = Cell::new(0);
        let retain = || table.retain(fid(2), || firsts.set(firsts.get() + 1));
        let old = retain();
        assert!(table.retire(old) && !table.retire(old) && table.is_retired(old));
        assert_eq!(table.known(fid(2)), None, "it is to be looked up");
        let new = retain();
        assert_ne!(new, old);
        assert_eq!([old, new].map(|id| table.fid(id)), [Some(fid(2)); 2]);
        assert_eq!(table.known(fid(2)), Some(new));
        // And once more.
        table.retire(new);
        let newest = retain();
        assert_eq!((table.known(fid(2)), firsts.get()), (Some(newest), 3));
        for (id, is_last) in [(newest, false), (old, false), (new, true)] {
            let last = Cell::new(false);
            table.forget(id, 1, |_| last.set(true));
            assert_eq!(last.get(), is_last);
        }
        assert_eq!((retain(), table.is_retired(old)), (old, false));
    }

    #[test]
    fn low_numbers_are_never_given() {
        for low in [|_| 0_u64, |_| 1, |_| MASK] {
            let table = InodeTable::with_hash(fid(1), low);
            let ids = [2, 3].map(|vnode| table.retain(fid(vnode), || ()));
            assert!(ids.iter().all(|id| *id > ROOT), "{ids:?}");
        }
    }

    #[test]
    fn numbers_do_not_change_between_versions() {
        // Worked out by another program.
        assert_eq!(hash(fid(2)), 4_621_960_924_080_725_575);
    }

    #[test]
    fn a_changed_directory_gives_its_names_once() {
        let names = Names::default();
        let seen = names.remember(5, b"a");
        names.remember(5, b"b");
        names.remember(6, b"c");
        assert!(names.stands(5, seen));
        let mut taken = names.take(5);
        taken.sort();
        assert_eq!(taken, [Box::from(*b"a"), Box::from(*b"b")] as [Box<[u8]>; 2]);
        assert!(!names.stands(5, seen), "asked before the change");
        assert!(names.take(5).is_empty());
        assert_eq!(names.take(6).len(), 1);
        names.forget(6);
        assert_eq!(names.directories.lock().total, 0);
    }
}
