//! The cached data of one vnode.

use std::fs::File;
use std::io::{self, IoSlice};
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::RwLock;
use rustix::fs::FallocateFlags;
use tokio::sync::Notify;

use super::content::{Content, PAGE, PAGE_BYTES, StorePlan, pages};
use super::ranges::RangeSet;
use super::{CHUNK, Shared};
use crate::error::Error;
use crate::types::DataVersion;

/// The cached data of one vnode: a sparse file and what is known of its contents.
#[derive(Debug)]
pub(crate) struct CacheFile {
    id: u64,
    me: Weak<Self>,
    shared: Arc<Shared>,
    /// Held for reading during a `pread`, so that nothing is punched out under it; for writing during a `pwrite`.
    state: RwLock<State>,
    /// A fill ended, well or not.
    filled: Notify,
}

#[derive(Debug, Default)]
struct State {
    content: Content,
    backing: Option<File>,
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
    failure: OnceLock<Error>,
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
    pub(super) fn new(id: u64, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            id,
            me: Weak::clone(me),
            shared,
            state: RwLock::default(),
            filled: Notify::new(),
        })
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

    /// Takes over what a status says; what is cached of another version is thrown away.
    pub(crate) fn set_server(&self, version: DataVersion, len: u64) {
        {
            let state = self.state.read();
            if state.content.version() == Some(version) && state.content.base_len() == len {
                return;
            }
        }
        let mut state = self.state.write();
        let freed = state.change(|content| content.set_server(version, len));
        drop(state);
        self.shared.freed(freed);
    }

    /// Appends the bytes of `range` to `out`. `Ok(false)`: some are not here. `range` is cut to the length.
    pub(crate) fn read(&self, range: Range<u64>, out: &mut Vec<u8>) -> io::Result<bool> {
        let state = self.state.read();
        let range = range.start..range.end.min(state.content.len());
        if range.is_empty() {
            return Ok(true);
        }
        if !state.content.is_present(&range) {
            return Ok(false);
        }
        let len = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
        let start = out.len();
        out.resize(start + len, 0);
        if let (Some(file), Some(buffer)) = (&state.backing, out.get_mut(start..)) {
            read_sparse(file, buffer, range.start)?;
        }
        drop(state);
        self.shared.touch_read(self.id, chunks(&range));
        Ok(true)
    }

    /// Writes local bytes.
    pub(crate) fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
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
        loop {
            self.ensure_backing()?;
            let mut state = self.state.write();
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
            state.content.write(range.clone());
            if state.dirty_pages.is_empty() {
                self.shared.became_dirty(self.id);
            }
            let added = state.dirty_pages.insert(cover);
            self.shared.dirty_changed(0, added);
            break;
        }
        self.shared.touch(self.id, chunks(&range), &self.me);
        Ok(())
    }

    /// Sets the length locally. No store may be under way.
    pub(crate) fn truncate(&self, len: u64) {
        let mut state = self.state.write();
        let before = state.content.len();
        state.content.truncate(len);
        let freed = if len < before { state.cut(len) } else { 0 };
        state.count_dirty(&self.shared, self.id);
        drop(state);
        self.shared.freed(freed);
        self.filled.notify_waiters();
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
        self.state.write().content.begin_store()
    }

    /// Bytes for a store, which are here as long as the store is.
    pub(crate) fn read_for_store(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        if let Some(file) = &self.state.read().backing {
            read_sparse(file, &mut buffer, offset)?;
        }
        Ok(buffer.into())
    }

    /// The store is done. `alone`: nobody else wrote in between.
    pub(crate) fn end_store(&self, version: DataVersion, len: u64, alone: bool) {
        let mut state = self.state.write();
        let freed = state.change(|content| {
            if alone {
                content.stored(version, len);
            } else {
                content.stored_among_others(version, len);
            }
        });
        state.count_dirty(&self.shared, self.id);
        drop(state);
        self.shared.freed(freed);
    }

    /// The store failed: what it took is dirty again.
    pub(crate) fn store_failed(&self) {
        let mut state = self.state.write();
        state.content.store_failed();
        state.count_dirty(&self.shared, self.id);
    }

    /// Gives local changes up.
    pub(crate) fn discard(&self) {
        let mut state = self.state.write();
        let freed = state.change(Content::discard);
        state.count_dirty(&self.shared, self.id);
        drop(state);
        self.shared.freed(freed);
    }

    /// Forgets what is clean in a chunk and gives its pages back. Accounting is the caller's.
    pub(super) fn evict_chunk(&self, chunk: u64) -> Evicted {
        let start = chunk.saturating_mul(CHUNK);
        let range = start..start.saturating_add(CHUNK);
        let mut state = self.state.write();
        state.content.evict(range.clone());
        let freed = state.punch(range.clone(), false);
        let empty = state.allocated.overlapping(range).next().is_none();
        let closed = state.allocated.is_empty() && state.filling.is_empty() && state.backing.take().is_some();
        Evicted { freed, empty, closed }
    }

    /// Closes the descriptor if nothing is lost by it; gives the bytes of its pages. Accounting is the caller's.
    pub(super) fn drop_backing(&self) -> Option<u64> {
        let mut state = self.state.write();
        if !state.dirty_pages.is_empty() || !state.filling.is_empty() {
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
        let file = self.shared.open_backing()?;
        let mut state = self.state.write();
        if state.backing.is_none() {
            state.backing = Some(file);
            drop(state);
            self.shared.opened(self.id, Weak::clone(&self.me));
        }
        Ok(())
    }
}

impl Drop for CacheFile {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        self.shared.dirty_changed(state.dirty_pages.bytes(), 0);
        self.shared.became_clean(self.id);
        let listed = state.listed.iter().flatten();
        self.shared.closed(self.id, state.allocated.bytes(), listed);
    }
}

impl State {
    /// Takes pages into use; gives the bytes of those that were not.
    fn allocate(&mut self, cover: Range<u64>) -> u64 {
        let chunks = chunks(&cover);
        self.listed.insert(*chunks.start()..chunks.end() + 1);
        self.allocated.insert(cover)
    }

    /// Changes the contents in a way that may throw clean bytes away or show less of the server's. What is not visible
    /// any more must not come to light again, so it is overwritten or cut off. Gives the bytes freed.
    fn change<R>(&mut self, change: impl FnOnce(&mut Content) -> R) -> u64 {
        let (base, len) = (self.content.base_len(), self.content.len());
        change(&mut self.content);
        let mut freed = 0;
        if self.content.len() < len {
            freed += self.cut(self.content.len());
        }
        if self.content.base_len() < base {
            self.zero(self.content.base_len()..base.min(self.content.len()));
        }
        freed + self.punch(0..u64::MAX, true)
    }

    /// Zeros what is not local in `range`.
    fn zero(&mut self, range: Range<u64>) {
        let Some(file) = &self.backing else { return };
        let zeros = [0; PAGE_BYTES];
        for used in self.allocated.overlapping(range) {
            for part in self.content.not_local(&used) {
                let mut at = part.start;
                while at < part.end {
                    let step =
                        usize::try_from(part.end - at).map_or(zeros.len(), |rest| rest.min(zeros.len()));
                    if let Err(error) = file.write_all_at(zeros.get(..step).unwrap_or_default(), at) {
                        tracing::warn!(%error, "cannot clear a cache file");
                    }
                    at += step as u64;
                }
            }
        }
    }

    /// Gives back the pages of `range` in which nothing counts; `keep_clean` says whether clean bytes do. Gives the
    /// bytes freed.
    fn punch(&mut self, range: Range<u64>, keep_clean: bool) -> u64 {
        let mut free: RangeSet = self.allocated.overlapping(range.clone()).collect();
        if free.is_empty() {
            return 0;
        }
        for part in self.dirty_pages.overlapping(range.clone()) {
            free.remove(part);
        }
        for filling in &self.filling {
            free.remove(pages(&filling.range));
        }
        if keep_clean {
            for part in self.content.clean_pages() {
                free.remove(part);
            }
        }
        let mut freed = 0;
        for part in free.iter() {
            if self
                .backing
                .as_ref()
                .is_some_and(|file| punch_hole(file, &part).is_err())
            {
                // The pages stay in use and are counted on.
                continue;
            }
            freed += self.allocated.remove(part);
        }
        freed
    }

    /// The file ends at `len`: nothing behind it may be seen again. Gives the bytes freed.
    fn cut(&mut self, len: u64) -> u64 {
        self.filling.retain(|filling| {
            let keep = filling.range.end <= len;
            if !keep {
                filling.overtaken.store(true, Ordering::Relaxed);
            }
            keep
        });
        if let Some(file) = &self.backing
            && let Err(error) = file.set_len(len)
        {
            tracing::warn!(%error, "cannot cut a cache file");
        }
        self.allocated.remove(len.next_multiple_of(PAGE)..u64::MAX)
    }

    fn count_dirty(&mut self, shared: &Shared, id: u64) {
        let now = self.content.dirty_pages();
        if now.is_empty() {
            shared.became_clean(id);
        }
        shared.dirty_changed(self.dirty_pages.bytes(), now.bytes());
        self.dirty_pages = now;
    }
}

impl Filling {
    /// Why the fetch failed, if it did.
    pub(crate) fn failure(&self) -> Option<&Error> {
        self.failure.get()
    }
}

impl Fill {
    /// The range to fetch.
    pub(crate) fn range(&self) -> &Range<u64> {
        &self.filling.range
    }

    /// Takes room for the range. To be called once, before `put`.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        let cover = pages(&self.filling.range);
        let mut reserved = self.file.reserve(&cover)?;
        self.file.ensure_backing()?;
        let mut state = self.file.state.write();
        if self.is_overtaken() {
            return Ok(());
        }
        // Pages of this range cannot be evicted while it is being filled, so there were as many or fewer before.
        reserved.keep(state.allocate(cover));
        drop(state);
        self.file
            .shared
            .touch(self.file.id, chunks(&self.filling.range), &self.file.me);
        Ok(())
    }

    /// Puts fetched bytes at `offset`. They count after `commit`.
    pub(crate) fn put(&self, offset: u64, data: &[Bytes]) -> io::Result<()> {
        let len: u64 = data.iter().map(|part| part.len() as u64).sum();
        let range = offset..offset.saturating_add(len);
        if range.start < self.filling.range.start || range.end > self.filling.range.end {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let state = self.file.state.write();
        if self.is_overtaken() {
            return Ok(());
        }
        let file = state.backing.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let free = state.content.fillable(&range);
        if free.first() == Some(&range) {
            return write_all_vectored(file, data, offset);
        }
        let flat: Vec<u8> = data.iter().flat_map(|part| part.iter().copied()).collect();
        for part in free {
            let from = usize::try_from(part.start - range.start).map_err(|_| io::ErrorKind::InvalidData)?;
            let to = usize::try_from(part.end - range.start).map_err(|_| io::ErrorKind::InvalidData)?;
            file.write_all_at(flat.get(from..to).unwrap_or_default(), part.start)?;
        }
        Ok(())
    }

    /// All bytes up to `end` were put; they are those of `version`. False if they came too late to be of use.
    pub(crate) fn commit(self, end: u64, version: DataVersion) -> bool {
        let mut state = self.file.state.write();
        let range = self.filling.range.start..self.filling.range.end.min(end);
        !self.is_overtaken() && state.content.filled(&range, version)
    }

    /// The fetch failed: tells those who wait for it.
    pub(crate) fn fail(self, error: Error) {
        let _ = self.filling.failure.set(error);
    }

    fn is_overtaken(&self) -> bool {
        self.filling.overtaken.load(Ordering::Relaxed)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        let mut state = self.file.state.write();
        state
            .filling
            .retain(|filling| !Arc::ptr_eq(filling, &self.filling));
        let freed = state.punch(pages(&self.filling.range), true);
        drop(state);
        self.file.shared.freed(freed);
        self.file.filled.notify_waiters();
    }
}

/// The chunks that `range`, not empty, touches.
fn chunks(range: &Range<u64>) -> RangeInclusive<u64> {
    range.start / CHUNK..=range.end.saturating_sub(1) / CHUNK
}

fn overlap(set: &RangeSet, range: &Range<u64>) -> u64 {
    set.overlapping(range.clone())
        .map(|part| part.end - part.start)
        .sum()
}

/// Fills `buffer`; what lies behind the end of the file is zeros.
fn read_sparse(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + done as u64) {
            Ok(0) => {
                rest.fill(0);
                break;
            }
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_all_vectored(file: &File, data: &[Bytes], mut offset: u64) -> io::Result<()> {
    for batch in data.chunks(MAX_SLICES) {
        let mut slices: Vec<_> = batch.iter().map(|part| IoSlice::new(part)).collect();
        let mut rest = slices.as_mut_slice();
        while !rest.is_empty() {
            let count = match rustix::io::pwritev(file, rest, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => count,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            offset += count as u64;
            IoSlice::advance_slices(&mut rest, count);
        }
    }
    Ok(())
}

fn punch_hole(file: &File, range: &Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, flags, range.start, range.end - range.start)?;
    Ok(())
}

/// Slices in one `pwritev`; well under IOV_MAX.
const MAX_SLICES: usize = 256;
