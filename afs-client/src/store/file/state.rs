//! What stands in a file of the cache: pages, checksums, changes. Whoever calls holds the lock on it.

use std::path::Path;

use super::*;

impl State {
    /// Must a page be there? Some of its bytes are here, and were written.
    pub(super) fn counts(&self, page: &Range<u64>) -> bool {
        let is_used = self.allocated.data().overlapping(page.clone()).next().is_some();
        is_used && self.content.has_any(page)
    }

    /// Must a page be there, or is it being fetched? Nobody else has some of its bytes.
    pub(super) fn counts_here_only(&self, page: &Range<u64>) -> bool {
        self.content.not_local(page) != std::slice::from_ref(page)
    }

    /// Pages are taken into use in which bytes are known to be zeros, and were not written: they are, from now on.
    pub(super) fn found_zeros(&self, file: &Backing, new: &RangeSet) -> io::Result<()> {
        let Backing::Sealed(_) = file else {
            return Ok(());
        };
        let known = new.iter().flat_map(|part| self.content.clean().overlapping(part));
        for page in known.collect::<RangeSet>().covering(PAGE).iter() {
            for at in (page.start..page.end).step_by(PAGE_BYTES) {
                file.write(&[0; PAGE_BYTES], at, &|_| false)?;
            }
        }
        Ok(())
    }

    /// The same for a page that was in use, and in which nothing counted.
    pub(super) fn keep_zeros(&self, page: &Range<u64>) {
        if overlap(self.allocated.data(), page) == 0 {
            return;
        }
        let kept = self.existing().and_then(|file| {
            file.map_or(Ok(()), |file| {
                self.found_zeros(&file, &RangeSet::from_iter([page.clone()]))
            })
        });
        if let Err(error) = kept {
            // The page is taken for damaged, and fetched again.
            tracing::debug!(%error, "zeros are not kept");
        }
    }

    /// Fills `buffer` with what is there, and zeros where nothing is.
    pub(super) fn read(&self, file: &Backing, buffer: &mut [u8], at: u64) -> io::Result<()> {
        file.read(buffer, at, &|page| self.counts(page))
    }

    /// Takes pages into use; gives the bytes of those that were not.
    pub(super) fn allocate(&mut self, cover: Range<u64>) -> u64 {
        let chunks = chunks(&cover);
        self.listed.insert(*chunks.start()..chunks.end() + 1);
        self.allocated.insert(cover)
    }

    /// Changes the contents in a way that may throw clean bytes away or show less of the server's. What is not visible
    /// any more must not come to light again, so it is overwritten or cut off. Gives the bytes freed.
    pub(super) fn change<R>(&mut self, change: impl FnOnce(&mut Content) -> R) -> u64 {
        let (base, len) = (self.content.base_len(), self.content.len());
        let clean = self.content.clean().bytes();
        change(&mut self.content);
        let mut freed = 0;
        let is_less = self.content.clean().bytes() < clean;
        if is_less || self.content.len() != len || self.content.base_len() != base {
            freed += self.leave_lent();
        }
        if is_less {
            // Of which chunks it was is not worth knowing.
            self.sums.clear();
            self.unverified.retain(|chunk, _| {
                let clean = &self.content.clean();
                clean.overlapping(chunk_range(*chunk)).next().is_some()
            });
        }
        if self.content.len() < len {
            freed += self.cut(self.content.len());
        }
        if self.content.base_len() < base {
            self.zero(self.content.base_len()..base.min(self.content.len()));
        }
        freed + self.punch(0..u64::MAX, true)
    }

    /// It has a place in the cache directory.
    pub(super) fn lie_in(&mut self, place: &Place, key: ObjectKey) {
        self.path = Some(place.data(key));
        self.seal = place.seal_of(key);
        if self.allocated.is_empty() {
            self.allocated = Pages::of(RangeSet::default(), self.seal.is_some());
        }
    }

    /// The file, to be opened or made.
    pub(super) fn open(&self) -> io::Result<Backing> {
        let Some(path) = &self.path else {
            return crate::store::open_memory().map(Backing::Plain);
        };
        let file = self.open_path(path)?;
        Ok(Backing::new(file, self.seal.as_ref()))
    }

    fn open_path(&self, path: &Path) -> io::Result<File> {
        if self.allocated.is_empty() {
            return place::make_file(path);
        }
        File::options().read(true).write(self.lent.is_none()).open(path)
    }

    /// The file, if it has anything in it. One that is closed is opened for the moment.
    pub(super) fn existing(&self) -> io::Result<Option<Arc<Backing>>> {
        if self.backing.is_some() || self.path.is_none() || self.allocated.is_empty() {
            return Ok(self.backing.clone());
        }
        self.open().map(|file| Some(Arc::new(file)))
    }

    /// The file takes no place any more.
    pub(super) fn unlink(&mut self) {
        if let Some(path) = &self.path
            && let Err(error) = place::remove_file(path)
        {
            tracing::warn!(%error, "cannot remove a cache file");
        }
    }

    pub(super) fn has_unverified(&self, range: &Range<u64>) -> bool {
        !self.unverified.is_empty() && self.unverified.range(chunks(range)).next().is_some()
    }

    pub(super) fn forget_sums(&mut self, range: &Range<u64>) {
        if range.is_empty() || self.sums.is_empty() {
            return;
        }
        let touched: Vec<_> = self.sums.range(chunks(range)).map(|(chunk, _)| *chunk).collect();
        for chunk in touched {
            self.sums.remove(&chunk);
        }
    }

    /// The first chunk from `from` on that has clean bytes and no checksum.
    pub(super) fn next_without_sum(&self, from: u64) -> Option<u64> {
        let start = from.saturating_mul(CHUNK);
        let mut parts = self.content.clean().overlapping(start..u64::MAX);
        let mut all = parts.by_ref().flat_map(|part| chunks(&part));
        all.find(|chunk| !self.sums.contains_key(chunk) && !self.unverified.contains_key(chunk))
    }

    /// The checksum of the clean bytes of a chunk.
    pub(super) fn sum(&self, chunk: u64) -> io::Result<u64> {
        let file = self.existing()?.ok_or(io::ErrorKind::NotFound)?;
        let mut sum = Checksum::new();
        let mut buffer = vec![0; SUM_STEP];
        for part in self.content.clean().overlapping(chunk_range(chunk)) {
            let mut at = part.start;
            while at < part.end {
                let step = usize::try_from(part.end - at).map_or(SUM_STEP, |rest| rest.min(SUM_STEP));
                let buffer = buffer.get_mut(..step).unwrap_or_default();
                self.read(&file, buffer, at)?;
                sum.add(buffer);
                at += step as u64;
            }
        }
        Ok(sum.end())
    }

    /// Takes the checksum of a chunk. Bytes that cannot be read are not recorded.
    pub(super) fn take_sum(&mut self, chunk: u64) {
        match self.sum(chunk) {
            Ok(sum) => drop(self.sums.insert(chunk, sum)),
            Err(error) => tracing::debug!(%error, chunk, "no checksum"),
        }
    }

    /// Looks at a chunk that was found in the cache directory. If it is not as it was written: gives the bytes freed.
    pub(super) fn verify(&mut self, chunk: u64) -> Option<u64> {
        let expected = self.unverified.remove(&chunk)?;
        if self.sum(chunk).is_ok_and(|sum| sum == expected) {
            self.sums.insert(chunk, expected);
            return None;
        }
        tracing::debug!(chunk, "a chunk is not as it was written: it is fetched again");
        Some(self.change(|content| content.evict(chunk_range(chunk))))
    }

    /// What the index is to hold.
    pub(super) fn record(&self) -> Option<Box<[u8]>> {
        let mut sums = self.sums.clone();
        sums.extend(&self.unverified);
        let mut clean = RangeSet::default();
        for chunk in sums.keys() {
            clean.extend(self.content.clean().overlapping(chunk_range(*chunk)));
        }
        sums.retain(|chunk, _| clean.overlapping(chunk_range(*chunk)).next().is_some());
        self.path.as_ref()?;
        let version = self.content.version()?;
        let record = Record {
            served: Served {
                version,
                len: self.content.server_len(),
                changed: self.changed,
            },
            used: crate::store::seconds(),
            clean,
            sums,
        };
        (!record.sums.is_empty()).then(|| record.encode())
    }

    /// Sees that what is dirty is there, and clears everything else: it is not known what it was.
    pub(super) fn settle(&mut self, dirty: &RangeSet) -> io::Result<()> {
        let Some(file) = self.existing()? else {
            return Ok(());
        };
        if let Backing::Sealed(sealed) = &*file {
            for pages in self.dirty_pages.iter() {
                sealed.settle(&pages)?;
            }
        }
        let end = file.end()?;
        if end > self.content.len() {
            file.cut(self.content.len(), &|page| self.counts(page))?;
        }
        let mut rest: RangeSet = std::iter::once(0..end.next_multiple_of(PAGE)).collect();
        for part in self.dirty_pages.iter() {
            rest.remove(part);
        }
        for part in rest.iter() {
            file.punch(&part, &self.allocated.lonely(&part))?;
        }
        let mut edges = self.dirty_pages.clone();
        for part in dirty.iter() {
            edges.remove(part);
        }
        for part in edges.iter() {
            let len = usize::try_from(part.end.min(end).saturating_sub(part.start)).unwrap_or_default();
            file.write(&vec![0; len], part.start, &|page| self.counts(page))?;
        }
        Ok(())
    }

    /// Zeros what is not local in `range`.
    pub(super) fn zero(&mut self, range: Range<u64>) {
        let file = match self.existing() {
            Ok(Some(file)) => file,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "cannot clear a cache file"),
        };
        let zeros = [0; PAGE_BYTES];
        for used in self.allocated.data().overlapping(range) {
            for part in self.content.not_local(&used) {
                let mut at = part.start;
                while at < part.end {
                    let step =
                        usize::try_from(part.end - at).map_or(zeros.len(), |rest| rest.min(zeros.len()));
                    let zeros = zeros.get(..step).unwrap_or_default();
                    if let Err(error) = file.write(zeros, at, &|page| self.counts(page)) {
                        tracing::warn!(%error, "cannot clear a cache file");
                    }
                    at += step as u64;
                }
            }
        }
    }

    /// Gives back the pages of `range` in which nothing counts; `keep_clean` says whether clean bytes do. Gives the
    /// bytes freed.
    pub(super) fn punch(&mut self, range: Range<u64>, keep_clean: bool) -> u64 {
        let mut free: RangeSet = self.allocated.data().overlapping(range.clone()).collect();
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
        if free.is_empty() {
            return 0;
        }
        if self.lent.is_some() {
            return self.leave_lent();
        }
        let file = match self.existing() {
            Ok(file) => file,
            // Somebody removed it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return 0,
        };
        let mut freed = 0;
        for part in free.iter() {
            let groups = self.allocated.lonely(&part);
            if file
                .as_ref()
                .is_some_and(|file| file.punch(&part, &groups).is_err())
            {
                // The pages stay in use and are counted on.
                continue;
            }
            freed += self.allocated.remove(part);
        }
        freed
    }

    /// The file ends at `len`: nothing behind it may be seen again. Gives the bytes freed.
    pub(super) fn cut(&mut self, len: u64) -> u64 {
        self.filling.retain(|filling| {
            let keep = filling.range.end <= len;
            if !keep {
                filling.overtaken.store(true, Ordering::Relaxed);
            }
            keep
        });
        if self.lent.is_some() {
            return self.leave_lent();
        }
        let cut = self
            .existing()
            .and_then(|file| file.map_or(Ok(()), |file| file.cut(len, &|page| self.counts(page))));
        if let Err(error) = cut {
            tracing::warn!(%error, "cannot cut a cache file");
        }
        self.allocated.remove(len.next_multiple_of(PAGE)..u64::MAX)
    }

    /// What is dirty has changed: counts it, and gives back the pages in which nothing counts any more. Gives the bytes freed.
    #[must_use]
    pub(super) fn count_dirty(&mut self, shared: &Shared, id: u64) -> u64 {
        let now = self.content.dirty_pages();
        if now.is_empty() {
            shared.became_clean(id);
        }
        shared.dirty_changed(self.dirty_pages.bytes(), now.bytes());
        self.dirty_pages = now;
        self.punch(0..u64::MAX, true)
    }

    /// Gives back what the index does not know of, now that nobody has the file any more. Gives the bytes freed.
    pub(super) fn forget_unrecorded(&mut self) -> u64 {
        while let Some(chunk) = self.next_without_sum(0) {
            self.content.evict(chunk_range(chunk));
        }
        self.punch(0..u64::MAX, true)
    }
}
