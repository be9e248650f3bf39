//! Which files the kernel reads by itself (FUSE_PASSTHROUGH), and in which way each node is open.
//!
//! The machine: the kernel has all opens of a node go one way, and if that is past this program, all to one file. So the first
//! open decides, and that stands until the last release. When a release of the volume has brought another version of a file
//! that is lent, its node is retired: whoever has it open goes on with what they have, and who opens it by its name is told
//! that the node is stale, so that the kernel looks the name up once more and gets a new node. Who comes to the old node again,
//! as by a link in /proc, gets what it was. What an earlier process has lent cannot be lent once more through the same node,
//! because the number that the kernel has for the file can be used by its owner only: that node is retired too.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use afs_client::fs::Loan;
use afs_client::types::DataVersion;
use fuser::{BackingId, ReplyOpen};
use parking_lot::Mutex;

/// Lends files to the kernel, where that is wanted and allowed.
#[derive(Debug, Default)]
pub struct Passthrough {
    /// It is wanted, and the kernel has not refused it.
    is_on: AtomicBool,
    nodes: Mutex<HashMap<u64, Open>>,
}

/// A node with opens, of a file that might be lent.
#[derive(Debug)]
struct Open {
    handles: HashSet<u64>,
    way: Way,
    /// The threads that were told that it is stale.
    told: HashSet<u32>,
}

#[derive(Debug)]
enum Way {
    Served,
    Lent(Arc<Lent>),
    /// An earlier process has lent it.
    Inherited,
}

/// A file that the kernel reads.
#[derive(Debug)]
pub(super) struct Lent {
    /// Dropped first: the kernel gives the file up before the cache takes it back.
    pub(super) backing: BackingId,
    loan: Loan,
}

/// How a file is open.
#[derive(Debug)]
pub(super) enum Verdict {
    /// We are asked for its data.
    Served,
    /// The kernel reads it.
    Lent(Arc<Lent>),
    /// It is not: its node stands for an older version.
    Stale,
}

impl Passthrough {
    /// Says, before the first request, whether files are to be lent.
    pub fn want(&self, wanted: bool) {
        self.is_on.store(wanted, Ordering::Relaxed);
    }

    /// Are files lent?
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// A thread opens a node for reading, of a file that could be lent, with this version of its contents. `lend` is asked if
    /// nobody has it open.
    pub(super) fn open(
        &self,
        (node, handle): (u64, u64),
        version: Option<DataVersion>,
        thread: u32,
        lend: impl FnOnce() -> Option<Lent>,
    ) -> Verdict {
        let mut nodes = self.nodes.lock();
        let open = match nodes.get_mut(&node) {
            Some(open) => open,
            None if !self.is_on() => return Verdict::Served,
            None => nodes.entry(node).or_insert(Open {
                handles: HashSet::new(),
                way: lend().map_or(Way::Served, |lent| Way::Lent(Arc::new(lent))),
                told: HashSet::new(),
            }),
        };
        let verdict = match &open.way {
            Way::Served => Verdict::Served,
            Way::Lent(lent) if version == Some(lent.loan.version()) || open.told.remove(&thread) => {
                Verdict::Lent(Arc::clone(lent))
            }
            Way::Lent(_) => {
                open.told.insert(thread);
                return Verdict::Stale;
            }
            Way::Inherited => return Verdict::Stale,
        };
        open.handles.insert(handle);
        verdict
    }

    /// Has the kernel take a file, for as long as what this gives lives. The first refusal is the last.
    pub(super) fn hand_over(&self, loan: Loan, file: &OwnedFd, reply: &ReplyOpen) -> Option<Lent> {
        match reply.open_backing(file) {
            Ok(backing) => Some(Lent { backing, loan }),
            Err(error) => {
                self.is_on.store(false, Ordering::Relaxed);
                tracing::info!(%error, "the kernel takes no file of the cache: it asks for all data (lending takes CAP_SYS_ADMIN, and a cache directory that is not on a stacked file system)");
                None
            }
        }
    }

    /// A handle was released. With the last one the kernel gives the file back.
    pub(super) fn release(&self, node: u64, handle: u64) {
        let mut nodes = self.nodes.lock();
        let Some(open) = nodes.get_mut(&node) else {
            return;
        };
        open.handles.remove(&handle);
        let closed = open.handles.is_empty().then(|| nodes.remove(&node));
        drop(nodes);
        drop(closed);
    }

    /// An earlier process has left an open file.
    pub fn inherit(&self, node: u64, handle: u64, was_lent: bool) {
        let mut nodes = self.nodes.lock();
        let open = nodes.entry(node).or_insert(Open {
            handles: HashSet::new(),
            way: Way::Served,
            told: HashSet::new(),
        });
        open.handles.insert(handle);
        if was_lent {
            open.way = Way::Inherited;
        }
    }

    /// Another process goes on: nobody could give the kernel's numbers back after this one has ended.
    pub fn end(&self) {
        let nodes = std::mem::take(&mut *self.nodes.lock());
        drop(nodes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u32 = 7;

    fn on() -> Passthrough {
        let passthrough = Passthrough::default();
        passthrough.want(true);
        passthrough
    }

    fn open(passthrough: &Passthrough, which: (u64, u64), lend: impl FnOnce() -> Option<Lent>) -> bool {
        let verdict = passthrough.open(which, Some(DataVersion(1)), ME, lend);
        match verdict {
            Verdict::Served => true,
            Verdict::Stale => false,
            Verdict::Lent(_) => panic!("there is nothing to lend"),
        }
    }

    #[test]
    fn the_first_open_decides_until_the_last_release() {
        let passthrough = on();
        let asked = || panic!("it was decided");
        assert!(open(&passthrough, (5, 1), || None));
        assert!(open(&passthrough, (5, 2), asked));
        passthrough.release(5, 1);
        // By another node, or twice: not counted.
        passthrough.release(6, 2);
        passthrough.release(5, 1);
        assert!(open(&passthrough, (5, 3), asked));
        passthrough.release(5, 2);
        passthrough.release(5, 3);
        let mut was_asked = false;
        assert!(open(&passthrough, (5, 4), || {
            was_asked = true;
            None
        }));
        assert!(was_asked && open(&passthrough, (6, 5), || None));
    }

    #[test]
    fn what_an_earlier_process_has_lent_is_stale_until_it_is_released() {
        for passthrough in [on(), Passthrough::default()] {
            passthrough.inherit(5, 1, false);
            passthrough.inherit(5, 2, true);
            passthrough.inherit(6, 3, false);
            let asked = || panic!("it is open");
            for _ in 0..2 {
                assert!(!open(&passthrough, (5, 4), asked));
            }
            assert!(open(&passthrough, (6, 5), asked));
            passthrough.release(5, 1);
            passthrough.release(5, 2);
            assert!(open(&passthrough, (5, 6), || None));
        }
    }
}
