//! The books: which chunk takes how much, which was not used for longest, and which object is awake.
//!
//! The machine: whoever adds pages reserves them first, which evicts until there is room, so the bound is hard. Chunks of files
//! that are large beside the cache have a list of their own and give way first when they have more than their share.

use lru::LruCache;

use super::*;

/// Who uses what, least recently used first.
#[derive(Debug)]
pub(super) struct Books {
    /// Chunks of most files.
    pub(super) recent: LruCache<ChunkKey, ()>,
    /// Chunks of files that are large beside the cache.
    pub(super) passing: LruCache<ChunkKey, ()>,
    pub(super) open: LruCache<u64, ()>,
    pub(super) objects: HashMap<u64, Object>,
    pub(super) by_key: HashMap<ObjectKey, u64>,
}

/// What there is of an object.
#[derive(Debug)]
pub(super) enum Object {
    /// Somebody has it.
    Live(Weak<CacheFile>),
    /// It lies on the disk.
    Dormant(ObjectKey, Box<[u8]>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChunkKey {
    pub(super) file: u64,
    pub(super) chunk: u64,
}

impl Object {
    pub(super) fn file(&self) -> Option<Arc<CacheFile>> {
        match self {
            Self::Live(file) => file.upgrade(),
            Self::Dormant(..) => None,
        }
    }
}

impl Books {
    pub(super) fn new() -> Self {
        Self {
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

    pub(super) fn list(&mut self, key: ChunkKey, passing: bool) {
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
    pub(super) fn wake(&mut self, id: u64, shared: &Arc<Shared>) -> Option<Arc<CacheFile>> {
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
    /// Bytes that pages in use take.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What there is of the bound.
    pub(super) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Is a file of this length large beside the cache?
    pub(super) fn is_large(&self, len: u64) -> bool {
        len > self.max_bytes / PASSING_SHARE
    }

    /// Evicts the chunk that was not used for longest. The files that were visited are to be dropped without the lock.
    pub(super) fn evict_oldest(
        self: &Arc<Self>,
        books: &mut MutexGuard<'_, Books>,
        visited: &mut Vec<Arc<CacheFile>>,
    ) {
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
        self.used.fetch_sub(evicted.freed, Ordering::Relaxed);
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
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> io::Result<Reserved> {
        // Files whose last reference falls here must not be dropped under the lock: their drop takes it.
        let mut visited = Vec::new();
        let mut books = self.books.lock();
        let mut chances = books.recent.len() + books.passing.len();
        let limit = self.limit();
        while self.used().saturating_add(bytes) > limit && chances > 0 {
            chances -= 1;
            self.evict_oldest(&mut books, &mut visited);
        }
        let fits = self.used().saturating_add(bytes) <= limit;
        if fits {
            self.used.fetch_add(bytes, Ordering::Relaxed);
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
    pub(super) fn close_some(&self) {
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
                    self.used.fetch_sub(freed, Ordering::Relaxed);
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
    pub(super) fn opened(&self, file: u64) {
        self.books.lock().open.put(file, ());
    }

    /// Chunks were written to: they are the most recently used.
    pub(super) fn touch(&self, file: u64, chunks: std::ops::RangeInclusive<u64>, len: u64) {
        let passing = self.is_large(len);
        let mut books = self.books.lock();
        for chunk in chunks {
            books.list(ChunkKey { file, chunk }, passing);
        }
        books.open.promote(&file);
    }

    /// Chunks were read. Order is a hint, so nobody waits for it.
    pub(super) fn touch_read(&self, file: u64, chunks: std::ops::RangeInclusive<u64>) {
        if let Some(mut books) = self.books.try_lock() {
            for chunk in chunks {
                books.recent.promote(&ChunkKey { file, chunk });
                books.passing.promote(&ChunkKey { file, chunk });
            }
            books.open.promote(&file);
        }
    }

    /// Pages were given back.
    pub(super) fn freed(&self, bytes: u64) {
        if bytes > 0 {
            let _books = self.books.lock();
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// A file is gone with everything it had.
    pub(super) fn closed(
        &self,
        file: u64,
        key: Option<ObjectKey>,
        bytes: u64,
        chunks: impl Iterator<Item = u64>,
    ) {
        let mut books = self.books.lock();
        self.used.fetch_sub(bytes, Ordering::Relaxed);
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
    pub(super) fn sleeps(&self, file: u64, key: ObjectKey, record: Box<[u8]>) {
        self.ledger.record(key, Some(record.clone()));
        let mut books = self.books.lock();
        books.open.pop(&file);
        books.objects.insert(file, Object::Dormant(key, record));
        drop(books);
        self.gone.notify_all();
    }

    fn count_eviction(&self, why: Eviction, freed: u64) {
        // What gave nothing back was kept.
        if freed > 0 {
            self.evictions.count(why);
            self.evicted.fetch_add(freed, Ordering::Relaxed);
        }
    }
}

/// Room that was taken and not filled yet. Goes back when dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    shared: Arc<Shared>,
    pub(super) bytes: u64,
}

impl Reserved {
    /// `bytes` of it are pages in use from now on.
    pub(super) fn keep(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.bytes, "no more than reserved");
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.shared.freed(self.bytes);
    }
}
