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
mod content;
mod file;
mod index;
mod inheritance;
mod journal;
mod ledger;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod model;
mod place;
mod ranges;
mod record;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod survival;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use lru::LruCache;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::cell::CellName;
use crate::clock;
use crate::events::{Eviction, Tally};
use crate::types::{Fid, Uniquifier, VnodeId, VolumeId};
use index::Redb;
use journal::{Entry, Journal};
use ledger::Ledger;
use place::{Lying, Place};
pub(crate) use record::checksum_of;
use record::{ObjectKey, Record};

pub use aside::Aside;
pub(crate) use aside::Owner as Writer;
pub(crate) use content::{Attempt, Mark, StoreCall};
pub(crate) use file::{CacheFile, Fill};
pub(crate) use journal::Author;
pub use journal::fuzz_records;
pub use place::CacheError;
pub(crate) use record::Served;

/// The unit of eviction.
pub(crate) const CHUNK: u64 = 1024 * 1024;
/// The smallest cache that can hold what is fetched at once beside what is dirty.
const MIN_BYTES: u64 = 8 * 1024 * 1024;
/// The most dirty data, whatever the size of the cache.
const MAX_DIRTY: u64 = 64 * 1024 * 1024;
/// Descriptors that the cache leaves to others, and the most it uses.
const SPARE_DESCRIPTORS: u64 = 256;
const MAX_DESCRIPTORS: u64 = 65_536;
/// Objects in a directory, each of which takes some 250 bytes of memory.
const MAX_OBJECTS: usize = 1 << 20;
/// What large files may have of the cache: one part of so many.
const PASSING_SHARE: u64 = 4;
/// What is left free of the file system that the cache is on: one part of so many, and at most so much.
const FREE_SHARE: u64 = 50;
const MAX_FREE: u64 = 1 << 30;

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
    /// Bytes that the index takes.
    overhead: AtomicU64,
    max_open: usize,
    /// Pages that must not be evicted, in bytes.
    dirty: AtomicU64,
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
    /// The numbers of cells.
    cells: Mutex<HashMap<String, u32>>,
    /// Nothing is written any more.
    closed: AtomicBool,
    trouble: Trouble,
    /// Lock order: this, then the state of a file.
    books: Mutex<Books>,
    /// A file went.
    gone: Condvar,
}

/// Who uses what, least recently used first.
#[derive(Debug)]
struct Books {
    used: u64,
    /// Chunks of most files.
    recent: LruCache<ChunkKey, ()>,
    /// Chunks of files that are large beside the cache.
    passing: LruCache<ChunkKey, ()>,
    open: LruCache<u64, ()>,
    objects: HashMap<u64, Object>,
    by_key: HashMap<ObjectKey, u64>,
}

/// What went wrong with the file system that the cache is on.
#[derive(Debug, Default)]
struct Trouble {
    /// It was said that it is full, and that it fails otherwise.
    said: [AtomicBool; 2],
    /// How often something went past the cache because it was full, and because it failed.
    bypassed: [AtomicU64; 2],
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

/// What there is of an object.
#[derive(Debug)]
enum Object {
    /// Somebody has it.
    Live(Weak<CacheFile>),
    /// It lies on the disk.
    Dormant(ObjectKey, Box<[u8]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ChunkKey {
    file: u64,
    chunk: u64,
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
    pub(crate) fn in_dir(dir: &Path, max_bytes: u64) -> Result<Self, CacheError> {
        let place = Place::open(dir)?;
        let failed = |error| CacheError::Io {
            path: dir.to_owned(),
            error,
        };
        let (index, held) = Redb::open(&place.index()).map_err(failed)?;
        let (journal, left) = Journal::open(&place.journal()).map_err(failed)?;
        let asides = aside::list(&place).map_err(failed)?;
        if !asides.is_empty() {
            let (count, folder) = (asides.len(), place.set_aside());
            tracing::warn!(count, folder = %folder.display(), "there is data that was set aside: look at it, and remove it");
        }
        let shared = Arc::new(Shared::new(Some(place), Some(journal), max_bytes));
        *shared.asides.lock() = asides;
        shared.take_over(held, left).map_err(failed)?;
        let thread = Ledger::start(&shared, Box::new(index)).map_err(failed)?;
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

    /// What was set aside.
    pub(crate) fn asides(&self) -> Vec<Aside> {
        self.0.shared.asides.lock().clone()
    }

    /// How often something went past the cache: because its file system was full, and because that failed otherwise.
    pub(crate) fn bypassed(&self) -> [u64; 2] {
        let bypassed = &self.0.shared.trouble.bypassed;
        bypassed.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Writes down what there is, and gives the directory up. Nothing of it is used any more afterwards.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// The bound.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.0.shared.max_bytes
    }

    /// Is it in memory?
    pub(crate) fn is_memory(&self) -> bool {
        self.0.shared.place.is_none()
    }

    /// Bytes that pages in use take.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.0.shared.books.lock().used
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

    /// Beyond this a writer stores first.
    pub(crate) fn dirty_limit(&self) -> u64 {
        MAX_DIRTY.min(self.0.shared.max_bytes / 2)
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

impl Object {
    fn file(&self) -> Option<Arc<CacheFile>> {
        match self {
            Self::Live(file) => file.upgrade(),
            Self::Dormant(..) => None,
        }
    }
}

impl Books {
    fn new() -> Self {
        Self {
            used: 0,
            recent: LruCache::unbounded(),
            passing: LruCache::unbounded(),
            open: LruCache::unbounded(),
            objects: HashMap::new(),
            by_key: HashMap::new(),
        }
    }

    /// The chunk to evict first.
    fn pop_oldest(&mut self, limit: u64) -> Option<(ChunkKey, bool)> {
        let passing = self.passing.len() as u64 * CHUNK > limit / PASSING_SHARE;
        let mut pop = |passing| {
            let chunks = if passing {
                &mut self.passing
            } else {
                &mut self.recent
            };
            chunks.pop_lru().map(|(key, ())| (key, passing))
        };
        pop(passing).or_else(|| pop(!passing))
    }

    fn list(&mut self, key: ChunkKey, passing: bool) {
        let (here, there) = if passing {
            (&mut self.passing, &mut self.recent)
        } else {
            (&mut self.recent, &mut self.passing)
        };
        there.pop(&key);
        here.put(key, ());
    }

    fn unlist(&mut self, key: &ChunkKey) {
        self.recent.pop(key);
        self.passing.pop(key);
    }

    /// The file of an object that is dormant or live; `None` while it goes.
    fn wake(&mut self, id: u64, shared: &Arc<Shared>) -> Option<Arc<CacheFile>> {
        let object = self.objects.get_mut(&id)?;
        match object {
            Object::Live(file) => file.upgrade(),
            Object::Dormant(key, record) => {
                let file = CacheFile::restored(id, Arc::clone(shared), *key, record);
                *object = Object::Live(Arc::downgrade(&file));
                Some(file)
            }
        }
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
            dirty_since: Mutex::default(),
            evictions: Tally::default(),
            evicted: AtomicU64::new(0),
            next_file: AtomicU64::new(1),
            ledger: Ledger::default(),
            journal: journal.map(Mutex::new),
            left: Mutex::default(),
            asides: Mutex::default(),
            cells: Mutex::default(),
            closed: AtomicBool::new(false),
            trouble: Trouble::default(),
            books: Mutex::new(Books::new()),
            gone: Condvar::new(),
        }
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

    /// What there is of the bound.
    fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Is a file of this length large beside the cache?
    fn is_large(&self, len: u64) -> bool {
        len > self.max_bytes / PASSING_SHARE
    }

    /// The index has this size now.
    fn set_overhead(&self, bytes: u64) {
        self.overhead.store(bytes, Ordering::Relaxed);
    }

    /// Sees how much there is of the bound: what others leave of the file system, but for a reserve.
    fn look_at_space(self: &Arc<Self>) {
        let Some(place) = &self.place else { return };
        let ours = self
            .max_bytes
            .saturating_sub(self.overhead.load(Ordering::Relaxed));
        let limit = match place.space() {
            Ok((free, all)) => {
                let reserve = (all / FREE_SHARE).min(MAX_FREE);
                ours.min((self.books.lock().used + free).saturating_sub(reserve))
            }
            Err(_) => ours,
        };
        // With less nothing works. If there is not even so much, it goes past the cache.
        self.limit.store(limit.max(MIN_BYTES), Ordering::Relaxed);
        drop(self.reserve(0));
    }

    /// The file system that the cache is on has refused something, which goes past the cache. That is said once.
    fn bypass(self: &Arc<Self>, error: &io::Error) {
        let is_full = is_full(error) || error.kind() == io::ErrorKind::StorageFull;
        let kind = usize::from(!is_full);
        if let Some(count) = self.trouble.bypassed.get(kind) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let said = self.trouble.said.get(kind);
        if said.is_some_and(|said| !said.swap(true, Ordering::Relaxed)) {
            tracing::error!(%error, "the cache cannot be used as it should: what it cannot take goes past it, and is slower");
        }
        if self::is_full(error) {
            self.shrink();
        }
    }

    /// Others have filled the file system: gives something back, so that there is room for what comes next.
    fn shrink(self: &Arc<Self>) {
        let used = self.books.lock().used;
        let limit = used.saturating_sub((used / 16).max(CHUNK));
        self.limit.store(limit.max(MIN_BYTES), Ordering::Relaxed);
        drop(self.reserve(0));
    }

    /// Evicts the chunk that was not used for longest. The files that were visited are to be dropped without the lock.
    fn evict_oldest(self: &Arc<Self>, books: &mut MutexGuard<'_, Books>, visited: &mut Vec<Arc<CacheFile>>) {
        let Some((key, passing)) = books.pop_oldest(self.limit()) else {
            return;
        };
        let Some(file) = books.wake(key.file, self) else {
            if books.objects.contains_key(&key.file) {
                // It is being dropped, and may stay on the disk.
                books.list(key, passing);
            }
            return;
        };
        let evicted = file.evict_chunk(key.chunk);
        books.used -= evicted.freed;
        self.count_eviction(Eviction::Room, evicted.freed);
        if !evicted.empty {
            books.list(key, passing);
        }
        if evicted.closed {
            books.open.pop(&key.file);
        }
        visited.push(file);
    }

    /// Makes room for `bytes` and takes it. The caller holds no lock of a file.
    fn reserve(self: &Arc<Self>, bytes: u64) -> io::Result<Reserved> {
        // Files whose last reference falls here must not be dropped under the lock: their drop takes it.
        let mut visited = Vec::new();
        let mut books = self.books.lock();
        let mut chances = books.recent.len() + books.passing.len();
        let limit = self.limit();
        while books.used.saturating_add(bytes) > limit && chances > 0 {
            chances -= 1;
            self.evict_oldest(&mut books, &mut visited);
        }
        let fits = books.used.saturating_add(bytes) <= limit;
        if fits {
            books.used += bytes;
        }
        drop(books);
        drop(visited);
        if fits {
            Ok(Reserved {
                shared: Arc::clone(self),
                bytes,
            })
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    /// Closes descriptors if there are too many. The caller holds no lock of a file.
    fn close_some(&self) {
        let mut visited = Vec::new();
        let mut books = self.books.lock();
        let mut chances = books.open.len();
        while books.open.len() >= self.max_open && chances > 0 {
            chances -= 1;
            let Some((id, ())) = books.open.pop_lru() else {
                break;
            };
            let Some(file) = books.objects.get(&id).and_then(Object::file) else {
                continue;
            };
            match file.drop_backing() {
                Some(freed) => {
                    books.used -= freed;
                    self.count_eviction(Eviction::Descriptors, freed);
                }
                None => {
                    books.open.put(id, ());
                }
            }
            visited.push(file);
        }
        drop(books);
        drop(visited);
    }

    /// A file got its backing.
    fn opened(&self, file: u64) {
        self.books.lock().open.put(file, ());
    }

    /// Chunks were written to: they are the most recently used.
    fn touch(&self, file: u64, chunks: std::ops::RangeInclusive<u64>, len: u64) {
        let passing = self.is_large(len);
        let mut books = self.books.lock();
        for chunk in chunks {
            books.list(ChunkKey { file, chunk }, passing);
        }
        books.open.promote(&file);
    }

    /// Chunks were read. Order is a hint, so nobody waits for it.
    fn touch_read(&self, file: u64, chunks: std::ops::RangeInclusive<u64>) {
        if let Some(mut books) = self.books.try_lock() {
            for chunk in chunks {
                books.recent.promote(&ChunkKey { file, chunk });
                books.passing.promote(&ChunkKey { file, chunk });
            }
            books.open.promote(&file);
        }
    }

    /// Pages were given back.
    fn freed(&self, bytes: u64) {
        if bytes > 0 {
            self.books.lock().used -= bytes;
        }
    }

    /// A file is gone with everything it had.
    fn closed(&self, file: u64, key: Option<ObjectKey>, bytes: u64, chunks: impl Iterator<Item = u64>) {
        let mut books = self.books.lock();
        books.used -= bytes;
        for chunk in chunks {
            books.unlist(&ChunkKey { file, chunk });
        }
        books.open.pop(&file);
        books.objects.remove(&file);
        if let Some(key) = key {
            books.by_key.remove(&key);
            self.ledger.record(key, None);
        }
        drop(books);
        self.gone.notify_all();
    }

    /// Nobody has the file any more, and it stays.
    fn sleeps(&self, file: u64, key: ObjectKey, record: Box<[u8]>) {
        self.ledger.record(key, Some(record.clone()));
        let mut books = self.books.lock();
        books.open.pop(&file);
        books.objects.insert(file, Object::Dormant(key, record));
        drop(books);
        self.gone.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn count_eviction(&self, why: Eviction, freed: u64) {
        // What gave nothing back was kept.
        if freed > 0 {
            self.evictions.count(why);
            self.evicted.fetch_add(freed, Ordering::Relaxed);
        }
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

/// Room that was taken and not filled yet. Goes back when dropped.
#[derive(Debug)]
struct Reserved {
    shared: Arc<Shared>,
    bytes: u64,
}

impl Reserved {
    /// `bytes` of it are pages in use from now on.
    fn keep(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.bytes, "no more than reserved");
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shared.freed(self.bytes);
    }
}

/// Has the file system no room, as against the bound of the cache?
fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOSPC.raw_os_error())
        || error.raw_os_error() == Some(Errno::DQUOT.raw_os_error())
}

/// A file in memory.
fn open_memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("afs-cache", MemfdFlags::CLOEXEC)?.into())
}

/// The present, in unix seconds.
fn seconds() -> u32 {
    let since = clock::wall()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// Raises the soft limit of open descriptors to the hard one, and says how many the cache may use.
fn raise_descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(MAX_DESCRIPTORS + SPARE_DESCRIPTORS, |max| {
        max.min(2 * MAX_DESCRIPTORS)
    });
    let mut granted = limit.current.unwrap_or(wanted);
    if granted < wanted {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        if rustix::process::setrlimit(Resource::Nofile, raised).is_ok() {
            granted = wanted;
        }
    }
    let spare = SPARE_DESCRIPTORS.min(granted / 2);
    (granted - spare).clamp(1, MAX_DESCRIPTORS)
}

/// Looks at so many old objects when a new one comes and there are too many.
const CHANCES: usize = 8;
