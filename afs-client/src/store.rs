//! The data cache: one sparse file per object, in a directory or in memory.
//!
//! The machine: bytes are accounted by the pages they occupy. Whoever adds pages reserves them first, which evicts
//! chunks that were not used for longest (their pages are punched out) until there is room; so the bound is hard. Pages
//! with bytes that only we have are never evicted. Open descriptors are bounded in the same way. Chunks of files that are
//! large beside the cache are kept apart and may have a quarter of it: reading one of them once pushes nothing else out.
//!
//! In memory a file ends with its vnode. In a directory it has a name, and a record in the index ([`ledger`]): when nothing
//! stands for it any more it is dormant, over restarts too, until it is asked for again or evicted.

mod aside;
mod backing;
mod books;
mod content;
mod file;
mod frames;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod hidden;
mod index;
mod inheritance;
mod journal;
mod key;
mod ledger;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod lent;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod limits;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod model;
mod notes;
mod pages;
mod place;
mod ranges;
mod record;
mod seal;
mod sealed;
mod space;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod survival;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::cell::CellName;
use crate::clock;
use crate::events::{Eviction, Tally};
use crate::types::{Fid, Uniquifier, VnodeId, VolumeId};
use backing::Backing;
use books::{Books, ChunkKey, Object, Reserved};
use index::{Forgetful, Held, Index, Redb};
use journal::{Entry, Journal};
use ledger::Ledger;
use pages::Pages;
use place::{Lying, Place};
pub(crate) use record::checksum_of;
use record::{ObjectKey, Record};
use seal::Seal;
use space::{Trouble, is_full, open_memory, raise_descriptor_limit};

pub(crate) use aside::Owner as Writer;
pub use aside::{Aside, reveal};
pub(crate) use content::{Attempt, Mark, StoreCall};
pub use file::Loan;
pub(crate) use file::{CacheFile, Fill, Filling};
pub(crate) use journal::Author;
pub use journal::fuzz_records;
pub use key::{CacheKey, CacheKeyError, Encryption};
pub(crate) use notes::Notes;
pub use place::CacheError;
pub(crate) use record::Served;

/// The unit of eviction.
pub(crate) const CHUNK: u64 = 1024 * 1024;
/// The smallest cache that can hold what is fetched at once beside what is dirty.
const MIN_BYTES: u64 = 8 * 1024 * 1024;
/// The most dirty data, whatever the size of the cache.
const MAX_DIRTY: u64 = 64 * 1024 * 1024;
/// Objects in a directory, each of which takes some 250 bytes of memory.
const MAX_OBJECTS: usize = 1 << 20;
/// What large files may have of the cache: one part of so many.
const PASSING_SHARE: u64 = 4;

/// The cache of file data.
#[derive(Clone, Debug)]
pub(crate) struct DataCache(Arc<Owner>);

/// Ends the thread of the index with the last handle.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
    ledger: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(super) struct Shared {
    place: Option<Place>,
    max_bytes: u64,
    /// What of `max_bytes` there is: the index takes some, and the file system may be filled by others.
    limit: AtomicU64,
    /// Bytes that index and journal take.
    overhead: AtomicU64,
    max_open: usize,
    /// Pages that must not be evicted, in bytes.
    dirty: AtomicU64,
    /// Bytes of the files that are lent to the kernel.
    lent: AtomicU64,
    /// Since when files have had such pages. Locked last, and only when a file gets its first or loses its last.
    dirty_since: Mutex<HashMap<u64, Instant>>,
    evictions: Tally<Eviction>,
    evicted: AtomicU64,
    next_file: AtomicU64,
    ledger: Ledger,
    /// Lock order: after the state of a file.
    journal: Option<Mutex<Journal>>,
    /// Files with changes of an earlier program, until somebody takes them.
    left: Mutex<Vec<(Arc<CacheFile>, CellName)>>,
    asides: Mutex<Vec<Aside>>,
    /// Files of an earlier program that wait, as counted last.
    waiting: AtomicUsize,
    /// The numbers of cells.
    cells: Mutex<HashMap<String, u32>>,
    /// Nothing is written any more.
    closed: AtomicBool,
    trouble: Trouble,
    /// Lock order: this, then the state of a file.
    books: Mutex<Books>,
    /// Bytes that pages in use take. Changed by who has the books, and read by anybody.
    used: AtomicU64,
    /// A file went.
    gone: Condvar,
}

/// A file with changes that an earlier program has not stored.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) file: Arc<CacheFile>,
    pub(crate) cell: CellName,
    pub(crate) volume: VolumeId,
    pub(crate) vnode: VnodeId,
    pub(crate) unique: Uniquifier,
}

impl DataCache {
    /// A cache in memory.
    pub(crate) fn in_memory(max_bytes: u64) -> Self {
        Self(Arc::new(Owner {
            shared: Arc::new(Shared::new(None, None, max_bytes)),
            ledger: Mutex::default(),
        }))
    }

    /// A cache in a directory, which is made if it is missing. What an earlier program left there is taken over.
    ///
    /// # Errors
    ///
    /// The directory cannot be used.
    pub(crate) fn in_dir(dir: &Path, max_bytes: u64, encryption: &Encryption) -> Result<Self, CacheError> {
        let place = Place::open(dir, encryption)?;
        let failed = |error| CacheError::Io {
            path: dir.to_owned(),
            error,
        };
        let (index, held, journal, left): (Box<dyn Index>, _, _, _) = if place.lasts() {
            let (index, held) = Redb::open(&place.index(), place.seal()).map_err(failed)?;
            let (journal, left) = Journal::open(&place.journal(), place.seal()).map_err(failed)?;
            (Box::new(index), held, Some(journal), left)
        } else {
            (Box::new(Forgetful), Held::default(), None, Vec::new())
        };
        let asides = aside::list(&place).map_err(failed)?;
        if !asides.is_empty() {
            let (count, folder) = (asides.len(), place.set_aside());
            tracing::warn!(count, folder = %folder.display(), "there is data that was set aside: look at it, and remove it");
        }
        let shared = Arc::new(Shared::new(Some(place), journal, max_bytes));
        shared.count_overhead(index.taken());
        *shared.asides.lock() = asides;
        shared.take_over(held, left).map_err(failed)?;
        let thread = Ledger::start(&shared, index).map_err(failed)?;
        Ok(Self(Arc::new(Owner {
            shared,
            ledger: Mutex::new(Some(thread)),
        })))
    }

    /// The file of an object: in a directory, with what is left of it from earlier times.
    pub(crate) fn file(&self, cell: &CellName, fid: Fid) -> Arc<CacheFile> {
        let shared = &self.0.shared;
        let key = shared.place.as_ref().map(|_| ObjectKey {
            cell: shared.cell(cell.as_str()),
            volume: fid.volume.0,
            vnode: fid.vnode.0,
            unique: fid.unique.0,
        });
        shared.file(key)
    }

    /// The files with changes that an earlier program has not stored. They are the first caller's to hold and to store.
    pub(crate) fn take_left(&self) -> Vec<Left> {
        let shared = &self.0.shared;
        let left = std::mem::take(&mut *shared.left.lock());
        left.into_iter()
            .filter_map(|(file, cell)| {
                let key = file.key()?;
                Some(Left {
                    file,
                    cell,
                    volume: VolumeId(key.volume),
                    vnode: VnodeId(key.vnode),
                    unique: Uniquifier(key.unique),
                })
            })
            .collect()
    }

    /// What an earlier program has not stored, and nobody has stored since: cell, file, who wrote it, since when.
    pub(crate) fn waiting(&self) -> Vec<Entry> {
        let Some(journal) = &self.0.shared.journal else {
            return Vec::new();
        };
        let journal = journal.lock();
        journal
            .entries()
            .filter(|entry| entry.author.is_earlier)
            .cloned()
            .collect()
    }

    /// How many files that are; while somebody writes the journal, as many as were seen last.
    pub(crate) fn waiting_files(&self) -> usize {
        let shared = &self.0.shared;
        if let Some(journal) = shared.journal.as_ref().and_then(Mutex::try_lock) {
            let count = journal.entries().filter(|entry| entry.author.is_earlier).count();
            shared.waiting.store(count, Ordering::Relaxed);
        }
        shared.waiting.load(Ordering::Relaxed)
    }

    /// The notes on files that are hidden on servers, and what an earlier program has noted; `None` without a directory that
    /// a later one can read.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub(crate) fn hidden_notes(&self) -> io::Result<Option<(Notes, Vec<String>)>> {
        match &self.0.shared.place {
            Some(place) if place.lasts() => Notes::open(place.hidden(), place.seal().cloned()).map(Some),
            _ => Ok(None),
        }
    }

    /// What was set aside.
    pub(crate) fn asides(&self) -> Vec<Aside> {
        let asides = &self.0.shared.asides;
        let (there, gone): (Vec<_>, Vec<_>) = asides
            .lock()
            .clone()
            .into_iter()
            .partition(|aside| aside.path.exists());
        asides.lock().retain(|aside| !gone.contains(aside));
        there
    }

    /// How many files that are.
    pub(crate) fn set_aside_files(&self) -> usize {
        self.0.shared.asides.lock().len()
    }

    /// How often something went past the cache: because its file system was full, and because that failed otherwise.
    pub(crate) fn bypassed(&self) -> [u64; 2] {
        let bypassed = &self.0.shared.trouble.bypassed;
        bypassed.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// How often something in it was not as it had been written, or could not be read.
    pub(crate) fn damaged(&self) -> u64 {
        self.0.shared.trouble.damaged.load(Ordering::Relaxed)
    }

    /// Writes down what there is, and gives the directory up. Nothing of it is used any more afterwards.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// The bound.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.0.shared.max_bytes
    }

    /// Is it in memory? Then what is put there ends with the vnodes that it is of.
    pub(crate) fn is_memory(&self) -> bool {
        self.0.shared.place.is_none()
    }

    /// Bytes that pages in use take.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.0.shared.used()
    }

    /// Chunks in use.
    pub(crate) fn chunks(&self) -> usize {
        let books = self.0.shared.books.lock();
        books.recent.len() + books.passing.len()
    }

    /// Bytes in pages that only we have.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.0.shared.dirty.load(Ordering::Relaxed)
    }

    /// How many files have such bytes, and since when the first of them has.
    pub(crate) fn dirty_files(&self) -> (usize, Option<Instant>) {
        let since = self.0.shared.dirty_since.lock();
        (since.len(), since.values().min().copied())
    }

    /// Chunks and files that left it for others.
    pub(crate) fn evictions(&self) -> &Tally<Eviction> {
        &self.0.shared.evictions
    }

    /// Bytes that left it so.
    pub(crate) fn evicted_bytes(&self) -> u64 {
        self.0.shared.evicted.load(Ordering::Relaxed)
    }

    /// Would so many bytes more be too many that only we have? Then a writer stores first.
    pub(crate) fn is_too_dirty(&self, more: u64) -> bool {
        self.dirty_bytes().saturating_add(more) > MAX_DIRTY.min(self.0.shared.max_bytes / 2)
    }
}

impl Owner {
    fn close(&self) {
        let Some(thread) = self.ledger.lock().take() else {
            return;
        };
        let live: Vec<_> = {
            let books = self.shared.books.lock();
            books.objects.values().filter_map(Object::file).collect()
        };
        for file in &live {
            self.shared.ledger.mark(Arc::downgrade(file));
        }
        self.shared.ledger.end();
        if thread.join().is_err() {
            tracing::error!("the thread of the index has died");
        }
        self.shared.closed.store(true, Ordering::Release);
        if let Some(place) = &self.shared.place {
            place.unlock();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn new(place: Option<Place>, journal: Option<Journal>, max_bytes: u64) -> Self {
        let max_bytes = max_bytes.max(MIN_BYTES);
        Self {
            place,
            max_bytes,
            limit: AtomicU64::new(max_bytes),
            overhead: AtomicU64::new(0),
            max_open: usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX),
            dirty: AtomicU64::new(0),
            lent: AtomicU64::new(0),
            dirty_since: Mutex::default(),
            evictions: Tally::default(),
            evicted: AtomicU64::new(0),
            next_file: AtomicU64::new(1),
            ledger: Ledger::default(),
            journal: journal.map(Mutex::new),
            left: Mutex::default(),
            asides: Mutex::default(),
            waiting: AtomicUsize::new(0),
            cells: Mutex::default(),
            closed: AtomicBool::new(false),
            trouble: Trouble::default(),
            books: Mutex::new(Books::new()),
            used: AtomicU64::new(0),
            gone: Condvar::new(),
        }
    }

    /// What hides what lies in the directory.
    fn seal(&self) -> Option<&Arc<Seal>> {
        self.place.as_ref()?.seal()
    }

    fn next_id(&self) -> u64 {
        self.next_file.fetch_add(1, Ordering::Relaxed)
    }

    /// The number of a cell.
    fn cell(&self, name: &str) -> u32 {
        let mut cells = self.cells.lock();
        if let Some(number) = cells.get(name) {
            return *number;
        }
        let number = cells.values().max().map_or(1, |last| last + 1);
        cells.insert(name.to_owned(), number);
        self.ledger.cell(number, name.to_owned());
        number
    }

    /// The name of a cell.
    fn cell_name(&self, number: u32) -> Option<CellName> {
        let cells = self.cells.lock();
        let (name, _) = cells.iter().find(|(_, known)| **known == number)?;
        CellName::new(name).ok()
    }

    /// The file of an object; there is one at a time.
    fn file(self: &Arc<Self>, key: Option<ObjectKey>) -> Arc<CacheFile> {
        let mut visited = Vec::new();
        let mut books = self.books.lock();
        while let Some(id) = key.and_then(|key| books.by_key.get(&key).copied()) {
            if let Some(file) = books.wake(id, self) {
                return file;
            }
            // It is being dropped.
            self.gone.wait(&mut books);
        }
        let mut chances = CHANCES;
        while books.by_key.len() >= MAX_OBJECTS && chances > 0 {
            chances -= 1;
            self.evict_oldest(&mut books, &mut visited);
        }
        let id = self.next_id();
        let file = CacheFile::new(id, Arc::clone(self), key);
        books.objects.insert(id, Object::Live(Arc::downgrade(&file)));
        if let Some(key) = key {
            books.by_key.insert(key, id);
        }
        drop(books);
        drop(visited);
        file
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn became_dirty(&self, file: u64) {
        self.dirty_since.lock().entry(file).or_insert_with(clock::now);
    }

    fn became_clean(&self, file: u64) {
        self.dirty_since.lock().remove(&file);
    }

    fn dirty_changed(&self, before: u64, after: u64) {
        if after >= before {
            self.dirty.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.dirty.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

/// The present, in unix seconds.
fn seconds() -> u32 {
    let since = clock::wall()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// Looks at so many old objects when a new one comes and there are too many.
const CHANCES: usize = 8;
