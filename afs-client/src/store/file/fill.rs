//! A fetch of a piece that is under way, from its announcement until its bytes count.

use super::*;

impl CacheFile {
    /// Marks what of `want` must be fetched as being fetched, in aligned pieces of `unit`, and gives the pieces. What
    /// others fetch already is left to them.
    pub(crate) fn begin_fills(&self, want: Range<u64>, unit: u64) -> Vec<Fill> {
        let Some(me) = self.me.upgrade() else {
            return Vec::new();
        };
        let mut state = self.state.write();
        let limit = state.content.base_len();
        let mut freed = 0;
        if state.lent.is_some()
            && !state
                .content
                .is_present(&(want.start.min(limit)..want.end.min(limit)))
        {
            freed = state.leave_lent();
        }
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
        drop(state);
        self.shared.freed(freed);
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
}

impl Filling {
    /// Why the fetch failed, if it did: `Some(None)` if it was for the cache.
    pub(crate) fn failure(&self) -> Option<Option<&Error>> {
        self.failure.get().map(Option::as_ref)
    }
}

impl Fill {
    /// What those who wait for it look at.
    pub(crate) fn filling(&self) -> Arc<Filling> {
        Arc::clone(&self.filling)
    }

    /// The range to fetch.
    pub(crate) fn range(&self) -> &Range<u64> {
        &self.filling.range
    }

    /// Takes room for the range. To be called once, before `put`.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        if self.file.key.is_some() && self.file.state.read().path.is_none() {
            return Err(io::Error::other("the file is in memory until it is stored"));
        }
        let cover = pages(&self.filling.range);
        let mut reserved = self.file.reserve(&cover)?;
        self.file.ensure_backing()?;
        let mut state = self.file.state.write();
        if self.is_overtaken() {
            return Ok(());
        }
        // Eviction may have closed it in between; then `put` says so.
        if let Some(file) = &state.backing {
            let new = state.allocated.without(&cover);
            state.found_zeros(file, &new)?;
        }
        // Pages of this range cannot be evicted while it is being filled, so there were as many or fewer before.
        reserved.keep(state.allocate(cover));
        let len = state.content.len();
        drop(state);
        self.file
            .shared
            .touch(self.file.id, chunks(&self.filling.range), len);
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
            return file.write_pieces(data, offset, &|page| state.counts_here_only(page));
        }
        let flat: Vec<u8> = data.iter().flat_map(|part| part.iter().copied()).collect();
        for part in free {
            let from = usize::try_from(part.start - range.start).map_err(|_| io::ErrorKind::InvalidData)?;
            let to = usize::try_from(part.end - range.start).map_err(|_| io::ErrorKind::InvalidData)?;
            let bytes = flat.get(from..to).unwrap_or_default();
            file.write(bytes, part.start, &|page| state.counts_here_only(page))?;
        }
        Ok(())
    }

    /// All bytes up to `end` were put; they are those of `version`. False if they came too late to be of use.
    pub(crate) fn commit(self, end: u64, version: DataVersion) -> bool {
        let range = self.filling.range.start..self.filling.range.end.min(end);
        if range.is_empty() {
            return !self.is_overtaken();
        }
        self.file.verify(&range);
        let mut state = self.file.state.write();
        state.forget_sums(&range);
        let is_of_use = !self.is_overtaken() && state.content.filled(&range, version);
        drop(state);
        self.file.mark();
        is_of_use
    }

    /// The fetch failed: tells those who wait for it.
    pub(crate) fn fail(self, error: Error) {
        let _ = self.filling.failure.set(Some(error));
    }

    /// The cache does not take what is fetched: tells those who wait for it to have it past the cache.
    pub(crate) fn fail_here(self, error: &io::Error) {
        self.file.shared.bypass(error);
        let _ = self.filling.failure.set(None);
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
