//! What is here of an object, for readers: believed once a server has said that it is so and its checksums agree.

use super::*;

impl CacheFile {
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

    /// Fills `out` with the bytes of `range`, which is cut to the length. `Ok(false)`: some are not here. What `out` held does not
    /// count, but who reads again and again into the same one has nothing cleared in between.
    ///
    /// # Errors
    ///
    /// Bytes that only we have cannot be read. Others that cannot are forgotten.
    pub(crate) fn read(&self, range: Range<u64>, out: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let state = self.state.read();
            let range = range.start..range.end.min(state.content.len());
            if range.is_empty() {
                out.clear();
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
            if is_closed && overlap(state.allocated.data(), &range) > 0 {
                drop(state);
                if let Err(error) = self.ensure_backing() {
                    self.lose(&range, error)?;
                }
                continue;
            }
            let len = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::InvalidInput)?;
            out.resize(len, 0);
            match &state.backing {
                None => out.fill(0),
                Some(file) => {
                    if let Err(error) = state.read(file, out, range.start) {
                        drop(state);
                        self.lose(&range, error)?;
                        continue;
                    }
                }
            }
            drop(state);
            self.shared.touch_read(self.id, chunks(&range));
            return Ok(true);
        }
    }

    /// Looks at what was found in the cache directory. What is not as it was written is forgotten.
    pub(super) fn verify(&self, range: &Range<u64>) {
        let mut freed = 0;
        for chunk in chunks(range) {
            if let Some(lost) = self.state.write().verify(chunk) {
                self.shared.trouble.damaged.fetch_add(1, Ordering::Relaxed);
                freed += lost;
            }
        }
        self.shared.freed(freed);
        self.mark();
    }

    /// The cache cannot be read there: what servers have is forgotten.
    fn lose(&self, range: &Range<u64>, error: io::Error) -> io::Result<()> {
        let mut state = self.state.write();
        let dirty: RangeSet = state.content.dirty().overlapping(range.clone()).collect();
        if !dirty.is_empty() {
            let file = state.existing()?.ok_or(io::ErrorKind::NotFound)?;
            let mut buffer = vec![0; SUM_STEP];
            for (at, step) in steps(&dirty) {
                state.read(&file, buffer.get_mut(..step).unwrap_or_default(), at)?;
            }
        }
        tracing::warn!(%error, "a cache file cannot be read: its data is fetched again");
        self.shared.trouble.damaged.fetch_add(1, Ordering::Relaxed);
        let all = range.start - range.start % CHUNK..range.end.next_multiple_of(CHUNK);
        let freed = state.change(|content| content.evict(all));
        drop(state);
        self.shared.freed(freed);
        self.mark();
        Ok(())
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
                state.read(&file, out.get_mut(from..from + step).unwrap_or_default(), at)?;
            }
        }
        Ok(Some(out))
    }
}
