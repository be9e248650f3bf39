//! The cached data of one object.

mod fill;
mod lending;
mod reading;
mod sparse;
mod state;
mod storing;
mod writing;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use self::lending::Lent;
pub use self::lending::Loan;
pub(super) use self::lending::is_marked;
use self::sparse::{ASIDE_MAX, SUM_STEP, chunks, overlap, steps};
use super::aside::{self, About};
use super::backing::Backing;
use super::content::{Attempt, Content, Mark, PAGE, PAGE_BYTES, StoreCall, StorePlan, pages};
use super::journal::{Author, Entry, Journal, Step};
use super::pages::Pages;
use super::place::{self, Place};
use super::ranges::RangeSet;
use super::record::{Checksum, ObjectKey, Record, Served, chunk_range};
use super::seal::Seal;
use super::{CHUNK, Shared};
use crate::error::Error;
use crate::rpc::types::StoreStatus;
use crate::types::DataVersion;

/// The cached data of one object: a sparse file and what is known of its contents.
#[derive(Debug)]
pub(crate) struct CacheFile {
    id: u64,
    /// Its name in the cache directory, if there is one.
    key: Option<ObjectKey>,
    me: Weak<Self>,
    shared: Arc<Shared>,
    /// Held for reading during a `pread`, so that nothing is punched out under it; for writing during a `pwrite`.
    state: RwLock<State>,
    /// A fill ended, well or not.
    filled: Notify,
    /// The index is told of it.
    marked: AtomicBool,
    /// Changes that an earlier program has left were taken over, and not set aside or given up since.
    saved: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    content: Content,
    /// Who wrote what is modified.
    author: Author,
    /// When the server saw the last change of this version.
    changed: u32,
    /// What is clean was found in the cache directory, and no server has said yet that it is so.
    is_hearsay: bool,
    /// Checksums of clean bytes, by chunk, where nothing has changed since they were taken.
    sums: BTreeMap<u64, u64>,
    /// Checksums of what was found in the cache directory and not looked at yet.
    unverified: BTreeMap<u64, u64>,
    /// Where the file lies, if it has a name.
    path: Option<PathBuf>,
    /// What it is sealed with there, if it is, and as what.
    seal: Option<(ObjectKey, Arc<Seal>)>,
    /// It was lent at some time, by this program or an earlier one: it does not change any more.
    lent: Option<Arc<Lent>>,
    /// Without one the contents are gone, or closed for a while if the file has a name.
    backing: Option<Arc<Backing>>,
    /// Pages of the backing file in use, whether what is in them counts or not.
    allocated: Pages,
    /// Chunks that ever had pages: those that the books may list, whether anything is left of them or not.
    listed: RangeSet,
    /// Pages with bytes that only we have; what of the shared dirty count is ours.
    dirty_pages: RangeSet,
    filling: Vec<Arc<Filling>>,
}

/// A range that is being fetched.
#[derive(Debug)]
pub(crate) struct Filling {
    range: Range<u64>,
    /// Some local change made what is fetched useless.
    overtaken: AtomicBool,
    /// Why it failed; `None` if it was the cache, past which it can be had.
    failure: OnceLock<Option<Error>>,
}

/// The right to put fetched bytes into a range. Dropped without `commit`, the range stays absent.
#[derive(Debug)]
pub(crate) struct Fill {
    file: Arc<CacheFile>,
    filling: Arc<Filling>,
}

/// What an eviction did.
pub(super) struct Evicted {
    /// Bytes of pages given back.
    pub(super) freed: u64,
    /// Nothing of the chunk is left.
    pub(super) empty: bool,
    /// The descriptor was closed.
    pub(super) closed: bool,
}

impl CacheFile {
    pub(super) fn new(id: u64, shared: Arc<Shared>, key: Option<ObjectKey>) -> Arc<Self> {
        Self::with(id, shared, key, State::default())
    }

    /// A file that lies in the cache directory.
    pub(super) fn restored(id: u64, shared: Arc<Shared>, key: ObjectKey, record: &[u8]) -> Arc<Self> {
        // It was read before. If it cannot be read again the file is of no use, and its pages go at once.
        let record = Record::decode(record).unwrap_or_default();
        let allocated = Pages::of(record.clean.covering(PAGE), shared.seal().is_some());
        let listed = record.sums.keys().map(|chunk| *chunk..chunk + 1).collect();
        let state = State {
            content: Content::restored(record.served.version, record.served.len, record.clean),
            changed: record.served.changed,
            is_hearsay: true,
            unverified: record.sums,
            allocated,
            listed,
            lent: place::was_lent(&shared, key).then(Arc::default),
            ..State::default()
        };
        Self::with(id, shared, Some(key), state)
    }

    /// A file of which an earlier program has left changes. Whatever else is in it is cleared.
    pub(super) fn left(id: u64, shared: Arc<Shared>, entry: &Entry) -> io::Result<Arc<Self>> {
        let dirty = entry.content.dirty();
        let pages = dirty.covering(PAGE);
        let listed = pages.iter().map(|range| chunks(&range));
        let state = State {
            content: entry.content.clone(),
            author: entry.author.clone(),
            listed: listed.map(|chunks| *chunks.start()..chunks.end() + 1).collect(),
            allocated: Pages::of(pages.clone(), shared.seal().is_some()),
            dirty_pages: pages,
            ..State::default()
        };
        let file = Self::with(id, shared, Some(entry.key), state);
        file.state.write().settle(&dirty)?;
        file.saved.store(true, Ordering::Relaxed);
        Ok(file)
    }

    fn with(id: u64, shared: Arc<Shared>, key: Option<ObjectKey>, mut state: State) -> Arc<Self> {
        if let Some((key, place)) = key.zip(shared.place.as_ref()) {
            state.lie_in(place, key);
        }
        Arc::new_cyclic(|me| Self {
            id,
            key,
            me: Weak::clone(me),
            shared,
            state: RwLock::new(state),
            filled: Notify::new(),
            marked: AtomicBool::new(false),
            saved: AtomicBool::new(false),
        })
    }

    pub(super) fn key(&self) -> Option<ObjectKey> {
        self.key
    }

    /// Tells the bytes of its pages and the chunks that they are in.
    pub(super) fn listed(&self, tell: impl FnOnce(u64, Vec<u64>)) {
        let state = self.state.read();
        let (bytes, chunks) = (state.allocated.bytes(), state.listed.iter().flatten().collect());
        drop(state);
        tell(bytes, chunks);
    }

    /// Was what an earlier program has left of it taken over, and stored or kept?
    pub(crate) fn is_saved(&self) -> bool {
        self.saved.load(Ordering::Relaxed)
    }

    /// The record in the index is to follow.
    fn mark(&self) {
        if self.key.is_some() && !self.marked.swap(true, Ordering::AcqRel) {
            self.shared.ledger.mark(Weak::clone(&self.me));
        }
    }

    /// What the index is to hold of it; no record if nothing is here. Takes the checksums that are missing.
    pub(super) fn recorded(&self) -> Option<(ObjectKey, Option<Box<[u8]>>)> {
        let key = self.key?;
        self.marked.store(false, Ordering::Release);
        let mut from = 0;
        loop {
            // One at a time, so that nobody waits long.
            let mut state = self.state.write();
            let Some(chunk) = state.next_without_sum(from) else {
                return Some((key, state.record()));
            };
            state.take_sum(chunk);
            from = chunk + 1;
        }
    }

    /// Length as seen here.
    pub(crate) fn len(&self) -> u64 {
        self.state.read().content.len()
    }

    /// What changes are based on was so long on the server.
    pub(crate) fn server_len(&self) -> u64 {
        self.state.read().content.server_len()
    }

    /// Is there anything that the server does not have: bytes, a length, attributes?
    pub(crate) fn is_unstored(&self) -> bool {
        self.state.read().content.is_unstored()
    }

    /// Do the contents differ from the server's?
    pub(crate) fn is_modified(&self) -> bool {
        self.state.read().content.is_modified()
    }

    /// The attributes that were set and that the server does not have.
    pub(crate) fn noted(&self) -> StoreStatus {
        self.state.read().content.noted()
    }

    /// Bytes of the pages in use, and of those with bytes that only we have.
    pub(crate) fn held(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.allocated.bytes(), state.dirty_pages.bytes())
    }

    /// Would the next program find what only we have?
    pub(crate) fn is_journaled(&self) -> bool {
        let in_journal = |journal: &Mutex<Journal>| journal.lock().has(self.id);
        self.state.read().path.is_some() && self.shared.journal.as_ref().is_some_and(in_journal)
    }

    /// Who wrote what is modified, or wrote last.
    pub(crate) fn author(&self) -> Author {
        self.state.read().author.clone()
    }

    /// Somebody is about to write.
    pub(crate) fn set_author(&self, author: Author) {
        let mut state = self.state.write();
        if state.author != author {
            state.author = author;
        }
    }

    /// The version that the contents have, or that changes are based on.
    pub(crate) fn version(&self) -> Option<DataVersion> {
        self.state.read().content.version()
    }

    /// The call of a store of which we do not know what became.
    pub(crate) fn attempt(&self) -> Option<Attempt> {
        self.state.read().content.attempt().cloned()
    }

    /// Is all that only we have within `range`?
    pub(crate) fn is_dirty_within(&self, range: &Range<u64>) -> bool {
        let dirty = self.state.read().content.dirty();
        dirty
            .iter()
            .all(|part| range.start <= part.start && part.end <= range.end)
    }

    /// How much is dirty in one piece around the end of a write, and not being stored.
    pub(crate) fn dirty_around(&self, end: u64) -> u64 {
        self.state.read().content.dirty_around(end)
    }

    /// Tells the journal of a step: before it, if it takes something away.
    fn note(&self, state: &State, step: &Step) {
        let (Some(key), Some(journal)) = (self.key, &self.shared.journal) else {
            return;
        };
        if state.path.is_none() {
            // It is in memory.
            return;
        }
        let mut journal = journal.lock();
        if !journal.has(self.id) {
            if !matches!(step, Step::Write(_) | Step::Truncate(_)) {
                return;
            }
            let Some(cell) = self.shared.cell_name(key.cell) else {
                return;
            };
            let entry = Entry {
                key,
                cell,
                author: state.author.clone(),
                since: super::seconds(),
                content: state.content.without_clean(),
                is_doubtful: false,
            };
            journal.begin(self.id, entry);
        }
        journal.step(self.id, step);
    }

    /// Forgets what is clean in a chunk and gives its pages back. Accounting is the caller's.
    pub(super) fn evict_chunk(&self, chunk: u64) -> Evicted {
        let range = chunk_range(chunk);
        let mut state = self.state.write();
        if state.is_lent() {
            return Evicted {
                freed: 0,
                empty: false,
                closed: false,
            };
        }
        if state.lent.is_some() {
            let freed = state.leave_lent();
            drop(state);
            self.mark();
            return Evicted {
                freed,
                empty: true,
                closed: true,
            };
        }
        state.content.evict(range.clone());
        state.sums.remove(&chunk);
        state.unverified.remove(&chunk);
        let is_all = state.allocated.data().bytes() == overlap(state.allocated.data(), &range)
            && state.dirty_pages.is_empty()
            && state.filling.is_empty();
        let freed = if is_all && state.path.is_some() {
            // The whole file goes.
            state.allocated.clear()
        } else {
            state.punch(range.clone(), false)
        };
        let empty = overlap(state.allocated.data(), &range) == 0;
        let is_unused = state.allocated.is_empty() && state.filling.is_empty();
        let closed = is_unused && state.backing.take().is_some();
        if is_unused {
            state.unlink();
        }
        drop(state);
        self.mark();
        Evicted { freed, empty, closed }
    }

    /// Closes the descriptor if nothing is lost by it; gives the bytes of its pages if they are. Accounting is the caller's.
    pub(super) fn drop_backing(&self) -> Option<u64> {
        let mut state = self.state.write();
        if !state.filling.is_empty() {
            return None;
        }
        if state.path.is_some() {
            state.backing = None;
            return Some(0);
        }
        if !state.dirty_pages.is_empty() {
            return None;
        }
        state.content.evict(0..u64::MAX);
        state.backing = None;
        Some(state.allocated.clear())
    }

    fn reserve(&self, cover: &Range<u64>) -> io::Result<super::Reserved> {
        let cost = self.state.read().allocated.cost(cover);
        self.shared.reserve(cost)
    }

    fn ensure_backing(&self) -> io::Result<()> {
        if self.state.read().backing.is_some() {
            return Ok(());
        }
        self.shared.close_some();
        let mut state = self.state.write();
        if state.backing.is_none() {
            if state.path.is_some() && self.shared.is_closed() {
                return Err(io::Error::other("the cache is closed"));
            }
            state.backing = Some(Arc::new(state.open()?));
            drop(state);
            self.shared.opened(self.id);
        }
        Ok(())
    }
}

impl Drop for CacheFile {
    fn drop(&mut self) {
        let is_closed = self.shared.is_closed();
        if self.is_unstored() && !is_closed {
            self.store_failed();
            self.discard();
        }
        let recorded = if is_closed { None } else { self.recorded() };
        let state = self.state.get_mut();
        let mut bytes = 0;
        if !is_closed && state.next_without_sum(0).is_some() {
            // Only a part of it would stay.
            bytes = state.leave_lent();
        }
        if let Some((key, Some(record))) = recorded.filter(|_| bytes == 0) {
            self.shared.freed(state.forget_unrecorded());
            self.shared.sleeps(self.id, key, record);
            return;
        }
        if is_closed {
            self.shared.dirty_changed(state.dirty_pages.bytes(), 0);
            self.shared.became_clean(self.id);
        } else {
            state.unlink();
        }
        let listed = state.listed.iter().flatten();
        bytes += state.allocated.bytes();
        self.shared.closed(self.id, self.key, bytes, listed);
    }
}
