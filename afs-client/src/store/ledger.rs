//! What keeps the index up to date: a thread that gathers changes and writes them in batches.
//!
//! The machine: a file whose contents changed is marked. Half a second later the thread asks every marked file for its
//! record, which takes the checksums that are missing, and commits all of them at once. What is lost when the program dies
//! before that is fetched again. When the index cannot be written nothing more is kept over restarts, and that is said once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::index::{Batch, Index};
use super::record::ObjectKey;
use super::{CacheFile, Shared};

/// The way to the thread.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    work: Mutex<Work>,
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    marked: Vec<Weak<CacheFile>>,
    cells: Vec<(u32, String)>,
    records: HashMap<ObjectKey, Option<Box<[u8]>>>,
    ending: bool,
}

impl Work {
    fn is_empty(&self) -> bool {
        self.marked.is_empty() && self.cells.is_empty() && self.records.is_empty()
    }
}

impl Ledger {
    /// Starts the thread. It ends with `end`.
    pub(super) fn start(shared: &Arc<Shared>, index: Box<dyn Index>) -> std::io::Result<JoinHandle<()>> {
        let shared = Arc::clone(shared);
        std::thread::Builder::new()
            .name("afs-index".to_owned())
            .spawn(move || shared.ledger.run(&shared, Some(index)))
    }

    /// The record of a file is not up to date.
    pub(super) fn mark(&self, file: Weak<CacheFile>) {
        self.change(|work| work.marked.push(file));
    }

    /// A cell got a number.
    pub(super) fn cell(&self, number: u32, name: String) {
        self.change(|work| work.cells.push((number, name)));
    }

    /// The record of an object that no file stands for any more.
    pub(super) fn record(&self, key: ObjectKey, record: Option<Box<[u8]>>) {
        self.change(|work| drop(work.records.insert(key, record)));
    }

    /// Writes what is left, and that all is written.
    pub(super) fn end(&self) {
        self.change(|work| work.ending = true);
    }

    fn change(&self, change: impl FnOnce(&mut Work)) {
        let mut work = self.work.lock();
        let was_empty = work.is_empty();
        change(&mut work);
        // While it gathers, the thread waits for the end only.
        if was_empty || work.ending {
            self.wanted.notify_one();
        }
    }

    fn run(&self, shared: &Arc<Shared>, mut index: Option<Box<dyn Index>>) {
        loop {
            let mut work = self.work.lock();
            while work.is_empty() && !work.ending {
                self.wanted.wait(&mut work);
            }
            if !work.ending {
                // More comes with it.
                self.wanted.wait_while_for(&mut work, |work| !work.ending, GATHER);
            }
            let Work {
                marked,
                cells,
                mut records,
                ending,
            } = std::mem::take(&mut *work);
            drop(work);
            for file in marked {
                if let Some(file) = file.upgrade()
                    && let Some((key, record)) = file.recorded()
                {
                    records.insert(key, record);
                }
            }
            let batch = Batch {
                cells,
                records: records.into_iter().collect(),
                closing: ending,
            };
            if let Some(open) = &mut index {
                match open.commit(&batch) {
                    Ok(()) => shared.count_overhead(open.taken()),
                    Err(error) => {
                        tracing::error!(%error, "the index of the cache cannot be written: what is cached from now on does not survive a restart");
                        index = None;
                    }
                }
            }
            shared.look_at_space();
            if ending {
                return;
            }
        }
    }
}

/// How long changes are gathered.
const GATHER: Duration = Duration::from_millis(500);
