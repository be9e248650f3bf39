//! Local changes: bytes and lengths that no server has yet. What the disk does not take stays in memory until it is stored.

use super::*;

impl CacheFile {
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
        if crate::store::is_full(&error) && self.write_here(offset, data).is_ok() {
            return Ok(());
        }
        self.move_to_memory()?;
        self.write_here(offset, data)
    }

    /// The disk does not do its work: what is dirty moves into memory.
    fn move_to_memory(&self) -> io::Result<()> {
        let memory = crate::store::open_memory()?;
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
                state.read(&file, buffer, at)?;
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
        state.allocated = Pages::of(state.dirty_pages.clone(), false);
        let freed = before - state.allocated.bytes();
        state.path = None;
        state.seal = None;
        state.backing = Some(Arc::new(Backing::Plain(memory)));
        // If that fails, the next start removes it.
        let _ = place::remove_file(&path);
        drop(state);
        self.shared.freed(freed);
        self.mark();
        Ok(())
    }

    /// Nothing is dirty any more of what was moved into memory: the disk may be tried again.
    pub(super) fn leave_memory(&self) {
        let Some((key, place)) = self.key.zip(self.shared.place.as_ref()) else {
            return;
        };
        let mut state = self.state.write();
        if state.path.is_some() || state.content.is_modified() || !state.filling.is_empty() {
            return;
        }
        state.content.evict(0..u64::MAX);
        let freed = state.allocated.clear();
        state.backing = None;
        state.lie_in(place, key);
        drop(state);
        self.shared.freed(freed);
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
            if state.lent.is_some() {
                let freed = state.leave_lent();
                drop(state);
                self.shared.freed(freed);
                continue;
            }
            if state.has_unverified(&range) {
                drop(state);
                self.verify(&range);
                continue;
            }
            state.forget_sums(&range);
            // Eviction may have closed it in between.
            let Some(file) = &state.backing else { continue };
            if state.allocated.cost(&cover) > reserved.bytes {
                // Evicted between the reservation and the lock.
                drop(state);
                reserved = self.reserve(&cover)?;
                continue;
            }
            let written = file.write(data, offset, &|page| state.counts(page));
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
        let mut freed = state.leave_lent();
        if len < before {
            let cut = len - len % CHUNK..before;
            freed += chunks(&cut).filter_map(|chunk| state.verify(chunk)).sum::<u64>();
            state.forget_sums(&cut);
        }
        self.note(&state, &Step::Truncate(len));
        state.content.truncate(len);
        if len < before {
            freed += state.cut(len);
        }
        freed += state.count_dirty(&self.shared, self.id);
        drop(state);
        self.shared.freed(freed);
        self.filled.notify_waiters();
        self.mark();
    }
}
