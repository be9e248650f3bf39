//! The way of local changes to a server: taken for a store, sent, and clean in the end, or dirty again, or set aside.
//! Attributes that are set on the way are noted, and go with it.

use super::*;

impl CacheFile {
    /// Notes attributes that are set, for the next program too. False if nothing that they could go with is on its way.
    pub(crate) fn set_status(&self, set: StoreStatus) -> bool {
        let mut state = self.state.write();
        if !state.content.is_unstored() {
            return false;
        }
        self.note(&state, &Step::SetStatus(set));
        state.content.set_status(set);
        true
    }

    /// The server has these attributes.
    pub(crate) fn status_stored(&self, stored: StoreStatus) {
        let mut state = self.state.write();
        self.status_stored_of(&mut state, stored);
    }

    fn status_stored_of(&self, state: &mut State, stored: StoreStatus) {
        if stored.mask != 0 {
            self.note(state, &Step::StatusStored(stored));
            state.content.status_stored(stored);
        }
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
                state.read(file, &mut buffer, offset)?;
                return Ok(buffer.into());
            }
            if overlap(state.allocated.data(), &(offset..end)) == 0 {
                return Ok(buffer.into());
            }
            drop(state);
            self.ensure_backing()?;
        }
    }

    /// The store is done, with these of the attributes that were noted. `alone`: nobody else wrote in between.
    pub(crate) fn end_store(&self, served: Served, alone: bool, noted: StoreStatus) {
        let mut state = self.state.write();
        let base = state.content.base_len();
        let page = pages(&(base..base.saturating_add(1)));
        let is_hole = !state.counts(&page);
        self.status_stored_of(&mut state, noted);
        self.note(&state, &Step::Stored(served.version, served.len, alone));
        let mut freed = state.change(|content| {
            if alone {
                content.stored(served.version, served.len);
            } else {
                content.stored_among_others(served.version, served.len);
            }
        });
        state.changed = served.changed;
        if is_hole {
            state.keep_zeros(&page);
        }
        // What lies between the ends counts as clean now.
        state.forget_sums(&(base..served.len.max(base)));
        freed += state.count_dirty(&self.shared, self.id);
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
        let freed = state.count_dirty(&self.shared, self.id);
        drop(state);
        self.shared.freed(freed);
    }

    /// Gives local changes up.
    pub(crate) fn discard(&self) {
        let mut state = self.state.write();
        self.saved.store(false, Ordering::Relaxed);
        self.note(&state, &Step::Discard);
        let mut freed = state.change(Content::discard);
        freed += state.count_dirty(&self.shared, self.id);
        drop(state);
        self.shared.freed(freed);
        self.leave_memory();
    }

    /// Copies what is here to a folder beside the cache, to be looked at by people; `None` if nothing outlives the program. What
    /// is modified stays so.
    pub(crate) fn set_aside(&self, reason: &str) -> Option<io::Result<PathBuf>> {
        let (key, place) = self.key.zip(self.shared.place.as_ref())?;
        if !place.lasts() {
            return None;
        }
        let cell = self.shared.cell_name(key.cell)?;
        let state = self.state.read();
        let dirty = state.content.dirty();
        let mut all = dirty.clone();
        let is_known = !state.is_hearsay && state.unverified.is_empty();
        if is_known && state.content.clean().bytes() <= ASIDE_MAX {
            all.extend(state.content.clean().iter());
        }
        let copy = |to: &Backing| {
            to.cut(state.content.len(), &|_| false)?;
            let Some(from) = state.existing()? else {
                return Ok(());
            };
            let mut buffer = vec![0; SUM_STEP];
            for part in all.iter() {
                let mut at = part.start;
                while at < part.end {
                    let step = usize::try_from(part.end - at).map_or(SUM_STEP, |rest| rest.min(SUM_STEP));
                    let buffer = buffer.get_mut(..step).unwrap_or_default();
                    state.read(&from, buffer, at)?;
                    to.write(buffer, at, &|_| false)?;
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
            noted: state.content.noted(),
            held: all.clone(),
        };
        Some(
            aside::put(place, &about, copy)
                .inspect(|aside| self.shared.asides.lock().push(aside.clone()))
                .map(|aside| aside.path),
        )
    }
}
