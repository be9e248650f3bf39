//! What a log says in the end: the state of a mount at one moment.

use std::collections::{BTreeMap, HashMap, HashSet};

use afs_client::auth::Identity;
use afs_client::lock::LeftLocks;
use afs_client::types::{CellId, Fid};
use zeroize::Zeroizing;

use super::record::{Init, OpenFile, Outcome, Record};

/// The state of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// How the session with the kernel began, if it has.
    pub init: Option<Init>,
    /// How many processes have served it.
    pub attached: u64,
    /// The cells, by the numbers that the log has for them.
    pub cells: BTreeMap<CellId, String>,
    /// What the kernel holds.
    pub nodes: HashMap<u64, Node>,
    /// The names that the kernel may believe in, by directory.
    pub names: HashMap<u64, HashSet<Box<[u8]>>>,
    /// The files that the kernel has open, by handle.
    pub open: BTreeMap<u64, OpenFile>,
    /// By which nodes the kernel reads open files by itself, by handle.
    pub lent: BTreeMap<u64, u64>,
    /// Nodes whose objects have another one, or get one.
    pub retired: HashSet<u64>,
    /// Files with something that no server has.
    pub dirty: HashSet<Fid>,
    /// Who has which tokens.
    pub tokens: Vec<(Identity, Zeroizing<Vec<u8>>)>,
    /// Files that were removed while they were open, in words of the file system.
    pub hidden: HashSet<String>,
    /// The files on which programs hold locks.
    pub locks: HashMap<Fid, LeftLocks>,
    /// Changes whose requests were not answered yet.
    pub changes: HashMap<u64, Change>,
}

/// An object that the kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Which one; none if so far it was only given back.
    pub fid: Option<Fid>,
    /// How often the kernel was given it, less what it gave back. Steps of several threads may be written down in another
    /// order than they were made in: below zero for a moment.
    lookups: i64,
}

impl Node {
    /// How often the kernel was given it and did not give it back.
    pub fn lookups(self) -> u64 {
        self.lookups.try_into().unwrap_or(0)
    }
}

/// A change that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What its name led to before.
    pub seen: Option<Fid>,
    /// What came of it, if that was written down.
    pub outcome: Option<Outcome>,
}

impl Image {
    /// Takes one more step.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Init(init) => self.init = Some(init),
            Record::Attached => self.attached += 1,
            Record::Cell(id, name) => {
                self.cells.insert(id, name);
            }
            Record::Looked { node, fid, times } => self.count(node, Some(fid), signed(times)),
            Record::Forgot { node, times } => self.count(node, None, -signed(times)),
            Record::Name(directory, name) => {
                self.names.entry(directory).or_default().insert(name);
            }
            Record::Opened(file) => {
                self.open.insert(file.handle, file);
            }
            Record::Released(handle) => {
                self.open.remove(&handle);
                self.lent.remove(&handle);
            }
            Record::Lent { handle, node } => {
                self.lent.insert(handle, node);
            }
            Record::Retired(node) => {
                self.retired.insert(node);
            }
            Record::Dirty(fid) => {
                self.dirty.insert(fid);
            }
            Record::Clean(fid) => {
                self.dirty.remove(&fid);
            }
            Record::Tokens(tokens) => self.tokens = tokens,
            Record::Hidden(words, true) => drop(self.hidden.insert(words)),
            Record::Hidden(words, false) => drop(self.hidden.remove(&words)),
            Record::Locks(fid, left) if left.held.is_empty() => drop(self.locks.remove(&fid)),
            Record::Locks(fid, left) => drop(self.locks.insert(fid, left)),
            Record::Begun(unique, seen) => {
                let outcome = None;
                self.changes.insert(unique, Change { seen, outcome });
            }
            Record::Done(unique, outcome) => {
                if let Some(change) = self.changes.get_mut(&unique) {
                    change.outcome = Some(outcome);
                }
            }
            Record::Answered(unique) => {
                self.changes.remove(&unique);
            }
        }
    }

    fn count(&mut self, id: u64, fid: Option<Fid>, times: i64) {
        let node = self.nodes.entry(id).or_insert(Node {
            fid: None,
            lookups: 0,
        });
        node.lookups = node.lookups.saturating_add(times);
        node.fid = fid.or(node.fid);
        if node.lookups == 0 {
            self.nodes.remove(&id);
            self.names.remove(&id);
            self.retired.remove(&id);
        }
    }

    /// The steps that lead to it.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let begun = self.init.iter().cloned().map(Record::Init);
        let attached = (0..self.attached).map(|_| Record::Attached);
        let cells = self
            .cells
            .iter()
            .map(|(id, name)| Record::Cell(*id, name.clone()));
        let nodes = self.nodes.iter().map(|(node, known)| {
            let (node, times) = (*node, known.lookups.unsigned_abs());
            match known.fid {
                Some(fid) if known.lookups > 0 => Record::Looked { node, fid, times },
                _ => Record::Forgot { node, times },
            }
        });
        let names = self
            .names
            .iter()
            .flat_map(|(directory, names)| names.iter().map(|name| Record::Name(*directory, name.clone())));
        let open = self.open.values().copied().map(Record::Opened);
        let lent = self.lent.iter().map(|(handle, node)| {
            let (handle, node) = (*handle, *node);
            Record::Lent { handle, node }
        });
        let retired = self.retired.iter().copied().map(Record::Retired);
        let dirty = self.dirty.iter().copied().map(Record::Dirty);
        let tokens = std::iter::once(Record::Tokens(self.tokens.clone()));
        let hidden = self
            .hidden
            .iter()
            .map(|words| Record::Hidden(words.clone(), true));
        let locks = self
            .locks
            .iter()
            .map(|(fid, left)| Record::Locks(*fid, left.clone()));
        let changes = self.changes.iter().flat_map(|(unique, change)| {
            let done = change.outcome.map(|outcome| Record::Done(*unique, outcome));
            [Some(Record::Begun(*unique, change.seen)), done]
                .into_iter()
                .flatten()
        });
        let first = begun.chain(attached).chain(cells).chain(nodes);
        first
            .chain(names)
            .chain(open)
            .chain(lent)
            .chain(retired)
            .chain(dirty)
            .chain(tokens)
            .chain(hidden)
            .chain(locks)
            .chain(changes)
    }
}

fn signed(times: u64) -> i64 {
    times.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{fid_of, locks_of};
    use super::*;

    #[test]
    fn lookups_are_counted_in_any_order() {
        let mut image = Image::default();
        let looked = |times| Record::Looked {
            node: 5,
            fid: fid_of(5),
            times,
        };
        image.apply(Record::Forgot { node: 5, times: 1 });
        image.apply(looked(1));
        assert!(image.nodes.is_empty());
        image.apply(looked(3));
        image.apply(Record::Name(5, b"x".as_slice().into()));
        image.apply(Record::Forgot { node: 5, times: 2 });
        assert_eq!(image.nodes.get(&5).map(|node| node.lookups()), Some(1));
        image.apply(Record::Forgot { node: 5, times: 1 });
        assert!(image.nodes.is_empty() && image.names.is_empty());
    }

    #[test]
    fn its_steps_lead_to_it() {
        let mut image = Image::default();
        for record in [
            Record::Attached,
            Record::Cell(CellId(1), "example.org".to_owned()),
            Record::Looked {
                node: 5,
                fid: fid_of(5),
                times: 2,
            },
            Record::Forgot { node: 6, times: 1 },
            Record::Name(5, b"x".as_slice().into()),
            Record::Lent { handle: 8, node: 5 },
            Record::Retired(5),
            Record::Dirty(fid_of(1)),
            Record::Locks(fid_of(1), locks_of(Some(8))),
            Record::Locks(fid_of(2), locks_of(Some(9))),
            Record::Locks(fid_of(2), locks_of(None)),
            Record::Begun(2, Some(fid_of(3))),
            Record::Begun(4, None),
            Record::Done(4, Outcome::Made),
            Record::Begun(6, None),
            Record::Answered(6),
        ] {
            image.apply(record);
        }
        let mut again = Image::default();
        image.records().for_each(|record| again.apply(record));
        assert_eq!(again, image);
        assert_eq!((image.changes.len(), image.locks.len()), (2, 1));
    }
}
