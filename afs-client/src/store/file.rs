//! The cached data of one object.

mod fill;
mod sparse;
mod state;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::RwLock;
use rustix::fs::FallocateFlags;
use tokio::sync::Notify;

pub(super) use self::sparse::punch_hole;
use self::sparse::{ASIDE_MAX, SUM_STEP, chunks, overlap, read_sparse, steps, write_all_vectored};
use super::aside::{self, About};
use super::content::{Attempt, Content, Mark, PAGE, PAGE_BYTES, StoreCall, StorePlan, pages};
use super::journal::{Author, Entry, Step};
use super::place;
use super::ranges::RangeSet;
use super::record::{Checksum, ObjectKey, Record, Served, chunk_range};
use super::{CHUNK, Shared};
use crate::error::Error;
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
    /// Without one the contents are gone, or closed for a while if the file has a name.
    backing: Option<Arc<File>>,
    /// Pages of the backing file in use, whether what is in them counts or not.
    allocated: RangeSet,
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
        let allocated = record.clean.covering(PAGE);
        let listed = record.sums.keys().map(|chunk| *chunk..chunk + 1).collect();
        let state = State {
            content: Content::restored(record.served.version, record.served.len, record.clean),
            changed: record.served.changed,
            is_hearsay: true,
            unverified: record.sums,
            allocated,
            listed,
            ..State::default()
        };
        Self::with(id, shared, Some(key), state)
    }

    /// A file of which an earlier program has left changes. Whatever else is in it is cleared.
    pub(super) fn left(id: u64, shared: Arc<Shared>, entry: &Entry) -> io::Result<Arc<Self>> {
        let dirty = entry.content.dirty();
        let allocated = dirty.covering(PAGE);
        let listed = allocated.iter().map(|range| chunks(&range));
        let state = State {
            content: entry.content.clone(),
            author: entry.author.clone(),
            listed: listed.map(|chunks| *chunks.start()..chunks.end() + 1).collect(),
            dirty_pages: allocated.clone(),
            allocated,
            ..State::default()
        };
        let file = Self::with(id, shared, Some(entry.key), state);
        file.state.write().clear_around(&dirty)?;
        file.saved.store(true, Ordering::Relaxed);
        Ok(file)
    }

    fn with(id: u64, shared: Arc<Shared>, key: Option<ObjectKey>, mut state: State) -> Arc<Self> {
        state.path = key.zip(shared.place.as_ref()).map(|(key, place)| place.data(key));
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

    /// Tells the bytes of its pages and the chunks they are in.
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

    /// Does it outlive the program?
    pub(crate) fn is_kept(&self) -> bool {
        self.key.is_some()
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

    /// Is there anything that the server does not have?
    pub(crate) fn is_modified(&self) -> bool {
        self.state.read().content.is_modified()
    }

    /// Bytes of the pages in use, and of those with bytes that only we have.
    pub(crate) fn held(&self) -> (u64, u64) {
        let state = self.state.read();
        (state.allocated.bytes(), state.dirty_pages.bytes())
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

    /// Takes over what a status says; what is cached of another version is thrown away.
    pub(crate) fn set_server(&self, served: Served) {
        {
            let state = self.state.read();
            let is_known = state.content.version() == Some(served.version)
                && state.content.base_len() == served.len
                && state.changed == served.changed;
            if is_known && !state.is_hearsay {
                return;
            }
        }
        let mut state = self.state.write();
        if state.content.is_modified() {
            return;
        }
        let mut freed = 0;
        if state.is_hearsay {
            let found = (state.content.version(), state.content.base_len(), state.changed);
            if found != (Some(served.version), served.len, served.changed) {
                // Of an older version, or of something else under the same numbers.
                freed += state.change(|content| content.evict(0..u64::MAX));
            }
            state.is_hearsay = false;
        }
        state.changed = served.changed;
        freed += state.change(|content| content.set_server(served.version, served.len));
        drop(state);
        self.shared.freed(freed);
        self.mark();
    }

    /// The whole contents, if they are here and of this version.
    pub(crate) fn whole(&self, version: DataVersion) -> Option<Vec<u8>> {
        let len = {
            let state = self.state.read();
            if state.content.version() != Some(version) || state.is_hearsay {
                return None;
            }
            state.content.len()
        };
        let mut out = Vec::new();
        let here = self.read(0..len, &mut out).ok()? && out.len() as u64 == len;
        let is_same = self.state.read().content.version() == Some(version);
        (here && is_same).then_some(out)
    }

    /// Keeps the whole contents, which are of this version, unless they are here or the version is not current. That they
    /// are not kept costs a fetch.
    pub(crate) fn keep(&self, version: DataVersion, contents: Bytes) {
        let len = contents.len() as u64;
        {
            let state = self.state.read();
            let fits = state.content.version() == Some(version) && state.content.base_len() == len;
            if !fits || state.is_hearsay || state.content.is_present(&(0..len)) {
                return;
            }
        }
        for fill in self.begin_fills(0..len, CHUNK) {
            let range = fill.range().clone();
            let bounds = usize::try_from(range.start)
                .ok()
                .zip(usize::try_from(range.end).ok());
            let Some((start, end)) = bounds else { return };
            let part = contents.slice(start..end.min(contents.len()));
            let kept = fill.prepare().and_then(|()| fill.put(range.start, &[part]));
            if let Err(error) = kept {
                tracing::debug!(%error, "contents are not kept");
                return;
            }
            fill.commit(len, version);
        }
    }

    /// Appends the bytes of `range` to `out`. `Ok(false)`: some are not here. `range` is cut to the length.
    ///
    /// # Errors
    ///
    /// Bytes that only we have cannot be read. Others that cannot are forgotten.
    pub(crate) fn read(&self, range: Range<u64>, out: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let state = self.state.read();
            let range = range.start..range.end.min(state.content.len());
            if range.is_empty() {
                return Ok(true);
            }
            if !state.content.is_present(&range) {
                return Ok(false);
            }
            if state.has_unverified(&range) {
                drop(state);
                self.verify(&range);
                continue;
            }
            let is_closed = state.backing.is_none() && state.path.is_some();
            if is_closed && overlap(&state.allocated, &range) > 0 {
                drop(state);
                if let Err(error) = self.ensure_backing() {
                    self.lose(&range, error)?;
                }
                continue;
            }
            let len = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
            let start = out.len();
            out.resize(start + len, 0);
            if let (Some(file), Some(buffer)) = (&state.backing, out.get_mut(start..))
                && let Err(error) = read_sparse(file, buffer, range.start)
            {
                drop(state);
                out.truncate(start);
                self.lose(&range, error)?;
                continue;
            }
            drop(state);
            self.shared.touch_read(self.id, chunks(&range));
            return Ok(true);
        }
    }

    /// Looks at what was found in the cache directory. What is not as it was written is forgotten.
    fn verify(&self, range: &Range<u64>) {
        let mut freed = 0;
        for chunk in chunks(range) {
            freed += self.state.write().verify(chunk);
        }
        self.shared.freed(freed);
        self.mark();
    }

    /// The cache cannot be read there: what servers have is forgotten.
    fn lose(&self, range: &Range<u64>, error: io::Error) -> io::Result<()> {
        let mut state = self.state.write();
        if overlap(&state.content.dirty_pages(), range) > 0 {
            return Err(error);
        }
        tracing::warn!(%error, "a cache file cannot be read: its data is fetched again");
        let all = range.start - range.start % CHUNK..range.end.next_multiple_of(CHUNK);
        let freed = state.change(|content| content.evict(all));
        drop(state);
        self.shared.freed(freed);
        self.mark();
        Ok(())
    }

    /// Writes local bytes. What the disk does not take is kept in memory until it is stored.
    ///
    /// # Errors
    ///
    /// `StorageFull`: so much is dirty that there is no room. Others: bytes that only we have cannot be read.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let Err(error) = self.write_here(offset, data) else {
            return Ok(());
        };
        // An error without a number is not the disk's.
        if error.raw_os_error().is_none() || self.state.read().path.is_none() {
            return Err(error);
        }
        self.shared.bypass(&error);
        if super::is_full(&error) && self.write_here(offset, data).is_ok() {
            return Ok(());
        }
        self.move_to_memory()?;
        self.write_here(offset, data)
    }

    /// The disk does not do its work: what is dirty moves into memory.
    fn move_to_memory(&self) -> io::Result<()> {
        let memory = super::open_memory()?;
        let mut state = self.state.write();
        let Some(path) = state.path.clone() else {
            return Ok(());
        };
        let dirty = state.content.dirty();
        if !dirty.is_empty() {
            let file = state.existing()?.ok_or(io::ErrorKind::NotFound)?;
            let mut buffer = vec![0; SUM_STEP];
            for (at, step) in steps(&dirty) {
                let buffer = buffer.get_mut(..step).unwrap_or_default();
                read_sparse(&file, buffer, at)?;
                memory.write_all_at(buffer, at)?;
            }
        }
        if let Some(journal) = &self.shared.journal {
            // It is not on the disk any more.
            journal.lock().forget(self.id);
        }
        state.content.evict(0..u64::MAX);
        state.sums.clear();
        state.unverified.clear();
        let before = state.allocated.bytes();
        state.allocated = state.dirty_pages.clone();
        let freed = before - state.allocated.bytes();
        state.path = None;
        state.backing = Some(Arc::new(memory));
        // If that fails, the next start removes it.
        let _ = place::remove_file(&path);
        drop(state);
        self.shared.freed(freed);
        self.mark();
        Ok(())
    }

    /// Nothing is dirty any more of what was moved into memory: the disk may be tried again.
    fn leave_memory(&self) {
        let Some((key, place)) = self.key.zip(self.shared.place.as_ref()) else {
            return;
        };
        let mut state = self.state.write();
        if state.path.is_some() || state.content.is_modified() || !state.filling.is_empty() {
            return;
        }
        state.content.evict(0..u64::MAX);
        let freed = std::mem::take(&mut state.allocated).bytes();
        state.backing = None;
        state.path = Some(place.data(key));
        drop(state);
        self.shared.freed(freed);
    }

    /// The bytes of `range` as they are seen here, made of those that a server has sent of `version`; `None` if local
    /// changes are based on another one.
    ///
    /// # Errors
    ///
    /// Bytes that only we have cannot be read.
    pub(crate) fn patched(
        &self,
        range: &Range<u64>,
        version: DataVersion,
        sent: &[u8],
    ) -> io::Result<Option<Vec<u8>>> {
        let state = self.state.read();
        if state.content.is_modified() && state.content.version() != Some(version) {
            return Ok(None);
        }
        if !state.content.is_modified() {
            return Ok(Some(sent.to_vec()));
        }
        let len = state.content.len().min(range.end).saturating_sub(range.start);
        let visible = state.content.base_len().saturating_sub(range.start);
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut out = sent.to_vec();
        out.truncate(size(visible));
        out.resize(size(len), 0);
        let dirty: RangeSet = state.content.dirty().overlapping(range.clone()).collect();
        if !dirty.is_empty() {
            let file = state.existing()?.ok_or(io::ErrorKind::NotFound)?;
            for (at, step) in steps(&dirty) {
                let from = size(at - range.start);
                read_sparse(&file, out.get_mut(from..from + step).unwrap_or_default(), at)?;
            }
        }
        Ok(Some(out))
    }

    fn write_here(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= i64::MAX as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        let range = offset..end;
        if range.is_empty() {
            return Ok(());
        }
        let cover = pages(&range);
        let mut reserved = self.reserve(&cover)?;
        let len = loop {
            self.ensure_backing()?;
            let mut state = self.state.write();
            if state.has_unverified(&range) {
                drop(state);
                self.verify(&range);
                continue;
            }
            state.forget_sums(&range);
            // Eviction may have closed it in between.
            let Some(file) = &state.backing else { continue };
            let wanted = cover.end - cover.start - overlap(&state.allocated, &cover);
            if wanted > reserved.bytes {
                // Evicted between the reservation and the lock.
                drop(state);
                reserved = self.reserve(&cover)?;
                continue;
            }
            let written = file.write_all_at(data, offset);
            reserved.keep(state.allocate(cover.clone()));
            if let Err(error) = written {
                state.content.evict(range);
                return Err(error);
            }
            self.note(&state, &Step::Write(range.clone()));
            state.content.write(range.clone());
            if state.dirty_pages.is_empty() {
                self.shared.became_dirty(self.id);
            }
            let added = state.dirty_pages.insert(cover);
            self.shared.dirty_changed(0, added);
            break state.content.len();
        };
        self.shared.touch(self.id, chunks(&range), len);
        Ok(())
    }

    /// Sets the length locally. No store may be under way.
    pub(crate) fn truncate(&self, len: u64) {
        let mut state = self.state.write();
        let before = state.content.len();
        let mut freed = 0;
        if len < before {
            let cut = len - len % CHUNK..before;
            freed += chunks(&cut).map(|chunk| state.verify(chunk)).sum::<u64>();
            state.forget_sums(&cut);
        }
        self.note(&state, &Step::Truncate(len));
        state.content.truncate(len);
        if len < before {
            freed += state.cut(len);
        }
        state.count_dirty(&self.shared, self.id);
        drop(state);
        self.shared.freed(freed);
        self.filled.notify_waiters();
        self.mark();
    }

    /// Marks what of `want` must be fetched as being fetched, in aligned pieces of `unit`, and gives the pieces. What
    /// others fetch already is left to them.
    pub(crate) fn begin_fills(&self, want: Range<u64>, unit: u64) -> Vec<Fill> {
        let Some(me) = self.me.upgrade() else {
            return Vec::new();
        };
        let mut state = self.state.write();
        let limit = state.content.base_len();
        let mut fills = Vec::new();
        let mut at = want.start - want.start % unit;
        while at < want.end.min(limit) {
            let piece = at..at.saturating_add(unit).min(limit);
            at = at.saturating_add(unit);
            let mut needed: RangeSet = state.content.missing(&piece).collect();
            for other in &state.filling {
                needed.remove(other.range.clone());
            }
            let (Some(first), Some(last)) = (needed.iter().next(), needed.iter().last()) else {
                continue;
            };
            // Whole pages, so that eviction can give all of it back.
            let range = first.start - first.start % PAGE..last.end.next_multiple_of(PAGE).min(piece.end);
            let filling = Arc::new(Filling {
                range,
                overtaken: AtomicBool::new(false),
                failure: OnceLock::new(),
            });
            state.filling.push(Arc::clone(&filling));
            fills.push(Fill {
                file: Arc::clone(&me),
                filling,
            });
        }
        fills
    }

    /// The fetches under way that `range` waits for.
    pub(crate) fn filling(&self, range: &Range<u64>) -> Vec<Arc<Filling>> {
        let state = self.state.read();
        let touches = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        state
            .filling
            .iter()
            .filter(|filling| touches(&filling.range))
            .cloned()
            .collect()
    }

    /// Wakes when a fill ended. Ask for it before looking at the state.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.filled.notified()
    }

    /// Takes the dirty bytes for a store.
    pub(crate) fn begin_store(&self) -> StorePlan {
        let mut state = self.state.write();
        self.note(&state, &Step::BeginStore);
        state.content.begin_store()
    }

    /// One of the calls of a store is sent.
    pub(crate) fn sending(&self, call: &StoreCall, mark: Mark) {
        let mut state = self.state.write();
        self.note(&state, &Step::Sending(call.clone(), mark));
        state.content.sending(call, mark);
    }

    /// The server has executed the call that was sent last, and nothing of the base changed but by it. The store goes on.
    pub(crate) fn part_stored(&self, served: Served) {
        let mut state = self.state.write();
        self.note(&state, &Step::PartStored(served.version, served.len));
        state.content.part_stored(served.version, served.len);
        state.changed = served.changed;
    }

    /// What was sent before arrived after all, and made the server's file what it is now: that is what local changes are
    /// based on. Only what they touched is known to be as it was.
    pub(crate) fn rebase(&self, served: Served) {
        let mut state = self.state.write();
        self.note(&state, &Step::PartStored(served.version, served.len));
        let freed = state.change(|content| {
            content.evict(0..u64::MAX);
            content.part_stored(served.version, served.len);
        });
        state.changed = served.changed;
        drop(state);
        self.shared.freed(freed);
    }

    /// Bytes for a store, which are here as long as the store is.
    pub(crate) fn read_for_store(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        let end = offset.saturating_add(len as u64);
        loop {
            let state = self.state.read();
            if let Some(file) = &state.backing {
                read_sparse(file, &mut buffer, offset)?;
                return Ok(buffer.into());
            }
            if overlap(&state.allocated, &(offset..end)) == 0 {
                return Ok(buffer.into());
            }
            drop(state);
            self.ensure_backing()?;
        }
    }

    /// The store is done. `alone`: nobody else wrote in between.
    pub(crate) fn end_store(&self, served: Served, alone: bool) {
        let mut state = self.state.write();
        let base = state.content.base_len();
        self.note(&state, &Step::Stored(served.version, served.len, alone));
        let freed = state.change(|content| {
            if alone {
                content.stored(served.version, served.len);
            } else {
                content.stored_among_others(served.version, served.len);
            }
        });
        state.changed = served.changed;
        // What lies between the ends counts as clean now.
        state.forget_sums(&(base..served.len.max(base)));
        state.count_dirty(&self.shared, self.id);
        drop(state);
        self.shared.freed(freed);
        self.leave_memory();
        self.mark();
    }

    /// The store failed: what it took is dirty again.
    pub(crate) fn store_failed(&self) {
        let mut state = self.state.write();
        self.note(&state, &Step::StoreFailed);
        state.content.store_failed();
        state.count_dirty(&self.shared, self.id);
    }

    /// Gives local changes up.
    pub(crate) fn discard(&self) {
        let mut state = self.state.write();
        self.saved.store(false, Ordering::Relaxed);
        self.note(&state, &Step::Discard);
        let freed = state.change(Content::discard);
        state.count_dirty(&self.shared, self.id);
        drop(state);
        self.shared.freed(freed);
        self.leave_memory();
    }

    /// Copies what is here to a folder beside the cache, to be looked at by people; `None` if the cache is in memory. What is
    /// modified stays so.
    pub(crate) fn set_aside(&self, reason: &str) -> Option<io::Result<PathBuf>> {
        let (key, place) = self.key.zip(self.shared.place.as_ref())?;
        let cell = self.shared.cell_name(key.cell)?;
        let state = self.state.read();
        let dirty = state.content.dirty();
        let mut all = dirty.clone();
        let is_known = !state.is_hearsay && state.unverified.is_empty();
        if is_known && state.content.clean().bytes() <= ASIDE_MAX {
            all.extend(state.content.clean().iter());
        }
        let copy = |to: &File| {
            to.set_len(state.content.len())?;
            let Some(from) = state.existing()? else {
                return Ok(());
            };
            let mut buffer = vec![0; SUM_STEP];
            for part in all.iter() {
                let mut at = part.start;
                while at < part.end {
                    let step = usize::try_from(part.end - at).map_or(SUM_STEP, |rest| rest.min(SUM_STEP));
                    let buffer = buffer.get_mut(..step).unwrap_or_default();
                    read_sparse(&from, buffer, at)?;
                    to.write_all_at(buffer, at)?;
                    at += step as u64;
                }
            }
            Ok(())
        };
        let ranges: Vec<_> = dirty
            .iter()
            .map(|range| format!("{}-{}", range.start, range.end))
            .collect();
        let about = About {
            cell,
            key,
            author: state.author.clone(),
            reason: reason.to_owned(),
            base: state.content.version().unwrap_or_default(),
            len: state.content.len(),
            ranges: ranges.join(" "),
        };
        Some(
            aside::put(place, &about, copy)
                .inspect(|aside| self.shared.asides.lock().push(aside.clone()))
                .map(|aside| aside.path),
        )
    }

    /// Forgets what is clean in a chunk and gives its pages back. Accounting is the caller's.
    pub(super) fn evict_chunk(&self, chunk: u64) -> Evicted {
        let range = chunk_range(chunk);
        let mut state = self.state.write();
        state.content.evict(range.clone());
        state.sums.remove(&chunk);
        state.unverified.remove(&chunk);
        let is_all = state.allocated.bytes() == overlap(&state.allocated, &range)
            && state.dirty_pages.is_empty()
            && state.filling.is_empty();
        let freed = if is_all && state.path.is_some() {
            // The whole file goes.
            std::mem::take(&mut state.allocated).bytes()
        } else {
            state.punch(range.clone(), false)
        };
        let empty = overlap(&state.allocated, &range) == 0;
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
        Some(std::mem::take(&mut state.allocated).bytes())
    }

    fn reserve(&self, cover: &Range<u64>) -> io::Result<super::Reserved> {
        let here = overlap(&self.state.read().allocated, cover);
        self.shared.reserve(cover.end - cover.start - here)
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
        if self.is_modified() && !is_closed {
            self.store_failed();
            self.discard();
        }
        let recorded = if is_closed { None } else { self.recorded() };
        let state = self.state.get_mut();
        if let Some((key, Some(record))) = recorded {
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
        self.shared
            .closed(self.id, self.key, state.allocated.bytes(), listed);
    }
}
