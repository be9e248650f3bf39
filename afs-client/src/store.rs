//! The data cache: one sparse, nameless file per vnode, in a directory or in memory.
//!
//! The machine: bytes are accounted by the pages they occupy. Whoever adds pages reserves them first, which evicts
//! chunks that were not used for longest (their pages are punched out) until there is room; so the bound is hard. Pages
//! with bytes that only we have are never evicted. Open descriptors are bounded in the same way: the file that was not
//! used for longest and has nothing dirty is dropped. The files have no names, so a crash leaves nothing behind.

mod content;
mod file;
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod model;
mod ranges;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use lru::LruCache;
use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::process::{Resource, Rlimit};

use crate::clock;
use crate::events::{Eviction, Tally};

pub(crate) use file::{CacheFile, Fill};

/// The unit of eviction.
pub(crate) const CHUNK: u64 = 1024 * 1024;
/// The smallest cache that can hold what is fetched at once beside what is dirty.
const MIN_BYTES: u64 = 8 * 1024 * 1024;
/// The most dirty data, whatever the size of the cache.
const MAX_DIRTY: u64 = 64 * 1024 * 1024;
/// Descriptors that the cache leaves to others, and the most it uses.
const SPARE_DESCRIPTORS: u64 = 256;
const MAX_DESCRIPTORS: u64 = 65_536;

/// The cache of file data.
#[derive(Clone, Debug)]
pub(crate) struct DataCache(Arc<Shared>);

#[derive(Debug)]
pub(super) struct Shared {
    place: Place,
    max_bytes: u64,
    max_open: usize,
    /// Pages that must not be evicted, in bytes.
    dirty: AtomicU64,
    /// Since when files have had such pages. Locked last, and only when a file gets its first or loses its last.
    dirty_since: Mutex<HashMap<u64, Instant>>,
    evictions: Tally<Eviction>,
    evicted: AtomicU64,
    next_file: AtomicU64,
    /// Lock order: this, then the state of a file.
    books: Mutex<Books>,
}

#[derive(Debug)]
enum Place {
    Memory,
    Dir(PathBuf),
}

/// Who uses what, least recently used first.
#[derive(Debug)]
struct Books {
    used: u64,
    chunks: LruCache<ChunkKey, Weak<CacheFile>>,
    open: LruCache<u64, Weak<CacheFile>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ChunkKey {
    file: u64,
    chunk: u64,
}

impl DataCache {
    /// A cache in memory.
    pub(crate) fn in_memory(max_bytes: u64) -> Self {
        Self::new(Place::Memory, max_bytes)
    }

    /// A cache in nameless files under `dir`, which is made if it is missing. Files that an earlier program left there
    /// under our prefix are removed.
    pub(crate) fn in_dir(dir: &Path, max_bytes: u64) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(PREFIX.as_bytes())
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        let cache = Self::new(Place::Dir(dir.to_owned()), max_bytes);
        // A directory that cannot be written shows now, not at the first read.
        drop(cache.0.open_backing()?);
        Ok(cache)
    }

    fn new(place: Place, max_bytes: u64) -> Self {
        let books = Books {
            used: 0,
            chunks: LruCache::unbounded(),
            open: LruCache::unbounded(),
        };
        Self(Arc::new(Shared {
            place,
            max_bytes: max_bytes.max(MIN_BYTES),
            max_open: usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX),
            dirty: AtomicU64::new(0),
            dirty_since: Mutex::default(),
            evictions: Tally::default(),
            evicted: AtomicU64::new(0),
            next_file: AtomicU64::new(1),
            books: Mutex::new(books),
        }))
    }

    /// A file without contents. It takes a descriptor once there are bytes.
    pub(crate) fn file(&self) -> Arc<CacheFile> {
        let id = self.0.next_file.fetch_add(1, Ordering::Relaxed);
        CacheFile::new(id, Arc::clone(&self.0))
    }

    /// The bound.
    pub(crate) fn max_bytes(&self) -> u64 {
        self.0.max_bytes
    }

    /// Is it in memory?
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.0.place, Place::Memory)
    }

    /// Bytes that pages in use take.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.0.books.lock().used
    }

    /// Chunks in use.
    pub(crate) fn chunks(&self) -> usize {
        self.0.books.lock().chunks.len()
    }

    /// Bytes in pages that only we have.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.0.dirty.load(Ordering::Relaxed)
    }

    /// How many files have such bytes, and since when the first of them has.
    pub(crate) fn dirty_files(&self) -> (usize, Option<Instant>) {
        let since = self.0.dirty_since.lock();
        (since.len(), since.values().min().copied())
    }

    /// Chunks and files that left it for others.
    pub(crate) fn evictions(&self) -> &Tally<Eviction> {
        &self.0.evictions
    }

    /// Bytes that left it so.
    pub(crate) fn evicted_bytes(&self) -> u64 {
        self.0.evicted.load(Ordering::Relaxed)
    }

    /// Beyond this a writer stores first.
    pub(crate) fn dirty_limit(&self) -> u64 {
        MAX_DIRTY.min(self.0.max_bytes / 2)
    }
}

impl Shared {
    /// Makes room for `bytes` and takes it. The caller holds no lock of a file.
    fn reserve(self: &Arc<Self>, bytes: u64) -> io::Result<Reserved> {
        // Files whose last reference falls here must not be dropped under the lock: their drop takes it.
        let mut visited = Vec::new();
        let mut books = self.books.lock();
        let mut chances = books.chunks.len();
        while books.used.saturating_add(bytes) > self.max_bytes && chances > 0 {
            chances -= 1;
            let Some((key, weak)) = books.chunks.pop_lru() else {
                break;
            };
            let Some(file) = weak.upgrade() else { continue };
            let evicted = file.evict_chunk(key.chunk);
            books.used -= evicted.freed;
            self.count_eviction(Eviction::Room, evicted.freed);
            if !evicted.empty {
                books.chunks.put(key, weak);
            }
            if evicted.closed {
                books.open.pop(&key.file);
            }
            visited.push(file);
        }
        let fits = books.used.saturating_add(bytes) <= self.max_bytes;
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

    /// Opens a new backing file, dropping others if there are too many. The caller holds no lock of a file.
    fn open_backing(&self) -> io::Result<File> {
        let mut visited = Vec::new();
        let mut books = self.books.lock();
        let mut chances = books.open.len();
        while books.open.len() >= self.max_open && chances > 0 {
            chances -= 1;
            let Some((id, weak)) = books.open.pop_lru() else {
                break;
            };
            let Some(file) = weak.upgrade() else { continue };
            match file.drop_backing() {
                Some(freed) => {
                    books.used -= freed;
                    self.count_eviction(Eviction::Descriptors, freed);
                }
                None => {
                    books.open.put(id, weak);
                }
            }
            visited.push(file);
        }
        drop(books);
        drop(visited);
        let descriptor = match &self.place {
            Place::Memory => rustix::fs::memfd_create("afs-cache", MemfdFlags::CLOEXEC)?,
            Place::Dir(dir) => self.open_nameless(dir)?,
        };
        Ok(File::from(descriptor))
    }

    fn open_nameless(&self, dir: &Path) -> io::Result<OwnedFd> {
        let mode = Mode::RUSR | Mode::WUSR;
        match rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
            Ok(file) => Ok(file),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::NOENT) => {
                let id = self.next_file.fetch_add(1, Ordering::Relaxed);
                let path = dir.join(format!("{PREFIX}{}-{id}", std::process::id()));
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
                let file = rustix::fs::open(&path, flags, mode)?;
                std::fs::remove_file(&path)?;
                Ok(file)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A file got its backing.
    fn opened(&self, file: u64, weak: Weak<CacheFile>) {
        self.books.lock().open.put(file, weak);
    }

    /// Chunks were written to: they are the most recently used.
    fn touch(&self, file: u64, chunks: std::ops::RangeInclusive<u64>, weak: &Weak<CacheFile>) {
        let mut books = self.books.lock();
        for chunk in chunks {
            books.chunks.put(ChunkKey { file, chunk }, weak.clone());
        }
        books.open.promote(&file);
    }

    /// Chunks were read. Order is a hint, so nobody waits for it.
    fn touch_read(&self, file: u64, chunks: std::ops::RangeInclusive<u64>) {
        if let Some(mut books) = self.books.try_lock() {
            for chunk in chunks {
                books.chunks.promote(&ChunkKey { file, chunk });
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
    fn closed(&self, file: u64, bytes: u64, chunks: impl Iterator<Item = u64>) {
        let mut books = self.books.lock();
        books.used -= bytes;
        for chunk in chunks {
            books.chunks.pop(&ChunkKey { file, chunk });
        }
        books.open.pop(&file);
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

/// How our files in a cache directory are named, for the moment that they have a name.
const PREFIX: &str = "afs-cache-";
