//! What is known of one file's contents: which bytes are here, which of them only here, and how long the file is.
//!
//! The machine: `version` and `server_len` say what the server has. Local changes stand beside them: `cut` is the
//! smallest length the file was truncated to, `grow` the length that writes and extensions ask for. While there are some,
//! `version` is what they are based on, whatever the server has since. Bytes of the server are visible up to `base_len = min(server_len, cut)`; behind it everything that is not dirty reads as zeros and is
//! never fetched. A store takes the dirty ranges away as `storing`; they become clean when the server has them, or
//! dirty again. `noted` are attributes that were set meanwhile: they go with the next store, or after it.

use std::ops::Range;

use super::ranges::RangeSet;
use crate::rpc::types::StoreStatus;
use crate::types::DataVersion;

/// No packet of a store is smaller, but the last.
const SAMPLE: u64 = 1024;
/// Size of the pages that backing files are made of.
pub(crate) const PAGE: u64 = PAGE_BYTES as u64;
/// The same, for buffers.
pub(crate) const PAGE_BYTES: usize = 4096;

/// `range`, widened to whole pages.
pub(crate) fn pages(range: &Range<u64>) -> Range<u64> {
    let start = range.start - range.start % PAGE;
    start..range.end.div_ceil(PAGE).saturating_mul(PAGE)
}

/// The contents of one file, without the bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    version: Option<DataVersion>,
    server_len: u64,
    cut: Option<u64>,
    grow: u64,
    clean: RangeSet,
    dirty: RangeSet,
    storing: RangeSet,
    attempt: Option<Attempt>,
    noted: StoreStatus,
}

/// A StoreData call of which we do not know what became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) call: StoreCall,
    /// By what it is known again.
    pub(crate) mark: Mark,
    /// How often it was sent.
    pub(crate) tries: u32,
}

/// What a StoreData call leaves behind on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The time of modification that it sets, in unix seconds.
    pub(crate) mtime: u32,
    /// The checksum of its first bytes, as many as `sample` says.
    pub(crate) sum: u64,
}

impl StoreCall {
    /// The first bytes of it: no more than a server has got if it has got anything.
    pub(crate) fn sample(&self) -> Range<u64> {
        self.range.start..self.range.end.min(self.range.start + SAMPLE)
    }
}

/// What differs from the server's, part by part.
pub(super) struct Parts<'a> {
    pub(super) version: Option<DataVersion>,
    pub(super) server_len: u64,
    pub(super) cut: Option<u64>,
    pub(super) grow: u64,
    pub(super) dirty: &'a RangeSet,
    pub(super) storing: &'a RangeSet,
    pub(super) attempt: Option<&'a Attempt>,
    pub(super) noted: StoreStatus,
}

/// What a store has to send: see `Content::begin_store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StorePlan {
    /// The StoreData calls, in order.
    pub(crate) calls: Vec<StoreCall>,
}

/// One StoreData call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StoreCall {
    /// Bytes to send; an empty range sets the length only.
    pub(crate) range: Range<u64>,
    /// The FileLength argument. Shorter than the server's file cuts it before the bytes are written.
    pub(crate) file_length: u64,
}

impl Content {
    /// Length as seen here.
    pub(crate) fn len(&self) -> u64 {
        self.base_len().max(self.grow)
    }

    /// Up to here the server's bytes are visible.
    pub(crate) fn base_len(&self) -> u64 {
        self.server_len.min(self.cut.unwrap_or(u64::MAX))
    }

    /// Length on the server.
    pub(crate) fn server_len(&self) -> u64 {
        self.server_len
    }

    /// The version of the clean bytes.
    pub(crate) fn version(&self) -> Option<DataVersion> {
        self.version
    }

    /// Is there anything that the server does not have: bytes, a length, attributes?
    pub(crate) fn is_unstored(&self) -> bool {
        self.is_modified() || self.noted.mask != 0
    }

    /// Do the contents differ from the server's?
    pub(crate) fn is_modified(&self) -> bool {
        !self.dirty.is_empty() || self.is_storing() || self.length_modified()
    }

    /// Is a store under way?
    pub(crate) fn is_storing(&self) -> bool {
        !self.storing.is_empty()
    }

    fn length_modified(&self) -> bool {
        self.cut.is_some_and(|cut| cut < self.server_len) || self.grow > self.server_len
    }

    /// Pages that may not be evicted because only we have bytes in them.
    pub(crate) fn dirty_pages(&self) -> RangeSet {
        self.dirty().covering(PAGE)
    }

    /// Fetched bytes that are here.
    pub(crate) fn clean(&self) -> &RangeSet {
        &self.clean
    }

    /// Pages with fetched bytes in them.
    pub(crate) fn clean_pages(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.clean.iter().map(|range| pages(&range))
    }

    /// Takes over what a status says; nothing may be modified. Clean bytes of another version are thrown away.
    pub(crate) fn set_server(&mut self, version: DataVersion, server_len: u64) {
        debug_assert!(!self.is_modified(), "what local changes are based on stays");
        self.server_len = server_len;
        self.cut = None;
        self.grow = 0;
        if self.version == Some(version) {
            // Same version, so same bytes; a length that differs all the same is the server's to decide.
            self.clean.remove(server_len..u64::MAX);
        } else {
            self.version = Some(version);
            self.clean = RangeSet::default();
        }
    }

    /// Takes over what is left from earlier times.
    pub(super) fn restored(version: DataVersion, server_len: u64, clean: RangeSet) -> Self {
        Self {
            version: Some(version),
            server_len,
            clean,
            ..Self::default()
        }
    }

    /// Contents that differ from the server's: the server's length, where they were cut and to what they are to grow, what
    /// is dirty and what is being stored.
    pub(super) fn local(
        version: Option<DataVersion>,
        (server_len, cut, grow): (u64, Option<u64>, u64),
        [dirty, storing]: [RangeSet; 2],
        attempt: Option<Attempt>,
        noted: StoreStatus,
    ) -> Self {
        Self {
            version,
            server_len,
            cut,
            grow,
            clean: RangeSet::default(),
            dirty,
            storing,
            attempt,
            noted,
        }
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts {
            version: self.version,
            server_len: self.server_len,
            cut: self.cut,
            grow: self.grow,
            dirty: &self.dirty,
            storing: &self.storing,
            attempt: self.attempt.as_ref(),
            noted: self.noted,
        }
    }

    /// Without what is clean.
    pub(super) fn without_clean(&self) -> Self {
        Self {
            version: self.version,
            server_len: self.server_len,
            cut: self.cut,
            grow: self.grow,
            clean: RangeSet::default(),
            dirty: self.dirty.clone(),
            storing: self.storing.clone(),
            attempt: self.attempt.clone(),
            noted: self.noted,
        }
    }

    /// Bytes that only we have.
    pub(crate) fn dirty(&self) -> RangeSet {
        let mut all = self.dirty.clone();
        all.extend(self.storing.iter());
        all
    }

    /// How much is dirty in one piece around the end of a write, and not being stored.
    pub(crate) fn dirty_around(&self, end: u64) -> u64 {
        self.dirty.up_to(end).map_or(0, |range| range.end - range.start)
    }

    /// The call of which we do not know what became.
    pub(crate) fn attempt(&self) -> Option<&Attempt> {
        self.attempt.as_ref()
    }

    /// A call is sent.
    pub(crate) fn sending(&mut self, call: &StoreCall, mark: Mark) {
        match &mut self.attempt {
            Some(attempt) if attempt.call == *call && attempt.mark == mark => attempt.tries += 1,
            attempt => {
                *attempt = Some(Attempt {
                    call: call.clone(),
                    mark,
                    tries: 1,
                });
            }
        }
    }

    /// The server has executed the last call that was sent. The store goes on.
    pub(crate) fn part_stored(&mut self, version: DataVersion, server_len: u64) {
        self.version = Some(version);
        self.server_len = server_len;
        self.attempt = None;
    }

    /// Is every byte of `range` here? `range` must lie within `len`.
    pub(crate) fn is_present(&self, range: &Range<u64>) -> bool {
        let visible = range.start..range.end.min(self.base_len());
        self.clean.contains(&visible) || self.missing(range).next().is_none()
    }

    /// The parts of `range` that must be fetched.
    pub(crate) fn missing(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> + use<> {
        let visible = range.start..range.end.min(self.base_len());
        let mut missing: RangeSet = std::iter::once(visible.clone()).collect();
        for set in [&self.clean, &self.dirty, &self.storing] {
            for part in set.overlapping(visible.clone()) {
                missing.remove(part);
            }
        }
        missing.iter().collect::<Vec<_>>().into_iter()
    }

    /// The parts of `range` into which fetched bytes may be put: those without local ones.
    pub(crate) fn fillable(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        self.not_local(&(range.start..range.end.min(self.base_len())))
    }

    /// The parts of `range` that no local bytes are in.
    pub(crate) fn not_local(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut free: RangeSet = std::iter::once(range.clone()).collect();
        for set in [&self.dirty, &self.storing] {
            for part in set.overlapping(range.clone()) {
                free.remove(part);
            }
        }
        free.iter().collect()
    }

    /// Are any bytes of `range` here, as against zeros that nobody has to hold?
    pub(super) fn has_any(&self, range: &Range<u64>) -> bool {
        [&self.clean, &self.dirty, &self.storing]
            .iter()
            .any(|set| set.overlapping(range.clone()).next().is_some())
    }

    /// Fetched bytes of `version` are in the file. False if they are of no use: another version is current.
    pub(crate) fn filled(&mut self, range: &Range<u64>, version: DataVersion) -> bool {
        if self.version != Some(version) {
            return false;
        }
        let free = self.fillable(range);
        self.clean.extend(free);
        true
    }

    /// Clean bytes are forgotten.
    pub(crate) fn evict(&mut self, range: Range<u64>) {
        self.clean.remove(range);
    }

    /// Attributes were set that the server does not have.
    pub(crate) fn set_status(&mut self, set: StoreStatus) {
        self.noted = self.noted.then(set);
    }

    /// The attributes that were set and that the server does not have.
    pub(crate) fn noted(&self) -> StoreStatus {
        self.noted
    }

    /// The server has these. What was set otherwise since stays.
    pub(crate) fn status_stored(&mut self, stored: StoreStatus) {
        self.noted = self.noted.without(stored);
    }

    /// A change of the contents: a time that was set before is not theirs any more.
    fn touch(&mut self) {
        self.noted = self.noted.only(!StoreStatus::SET_MTIME);
    }

    /// Local bytes were written.
    pub(crate) fn write(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        self.touch();
        self.clean.remove(range.clone());
        self.grow = self.grow.max(range.end);
        self.dirty.insert(range);
    }

    /// Sets the length. What lies behind it is gone; no store may be under way.
    pub(crate) fn truncate(&mut self, len: u64) {
        debug_assert!(!self.is_storing(), "truncation waits for the store");
        self.touch();
        if len < self.len() {
            self.cut = Some(self.cut.map_or(len, |cut| cut.min(len)));
            self.clean.remove(len..u64::MAX);
            self.dirty.remove(len..u64::MAX);
        }
        self.grow = len;
    }

    /// Takes the dirty bytes for a store and says how to send them. The plan is empty if the server has everything.
    pub(crate) fn begin_store(&mut self) -> StorePlan {
        let len = self.len();
        let mut size = self.server_len;
        let mut cut = self.cut.filter(|cut| *cut < size);
        self.storing = std::mem::take(&mut self.dirty);
        let mut calls = Vec::new();
        for range in self.storing.iter() {
            // A FileLength below what the server has would cut other people's data, so only a cut of ours asks for it.
            let file_length = cut.take().unwrap_or_else(|| size.max(range.end));
            size = size.min(file_length).max(range.end);
            calls.push(StoreCall { range, file_length });
        }
        if cut.is_some() || len > size {
            calls.push(StoreCall {
                range: len..len,
                file_length: cut.unwrap_or(len),
            });
        }
        StorePlan { calls }
    }

    /// The server has everything that `begin_store` took, and nobody else wrote: what was stored is clean under
    /// `version`.
    pub(crate) fn stored(&mut self, version: DataVersion, server_len: u64) {
        let storing = std::mem::take(&mut self.storing);
        self.attempt = None;
        let base = self.base_len();
        self.settle(server_len);
        self.version = Some(version);
        // What lies between the old end and the new one and was not written is known to be zeros.
        for range in storing.iter().chain(std::iter::once(base..server_len.max(base))) {
            let free = self.fillable(&range);
            self.clean.extend(free);
        }
    }

    /// As `stored`, but somebody else wrote too: nothing clean can be relied on.
    pub(crate) fn stored_among_others(&mut self, version: DataVersion, server_len: u64) {
        self.storing = RangeSet::default();
        self.clean = RangeSet::default();
        self.attempt = None;
        self.settle(server_len);
        self.version = Some(version);
    }

    fn settle(&mut self, server_len: u64) {
        self.server_len = server_len;
        self.cut = None;
        if self.dirty.is_empty() {
            self.grow = 0;
        }
    }

    /// The store failed: what it took is dirty again.
    pub(crate) fn store_failed(&mut self) {
        let storing = std::mem::take(&mut self.storing);
        self.dirty.extend(storing.iter());
    }

    /// Gives local changes up.
    pub(crate) fn discard(&mut self) {
        self.dirty = RangeSet::default();
        self.cut = None;
        self.grow = 0;
        self.attempt = None;
        self.noted = StoreStatus::default();
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "ranges are what is compared")]
mod tests {
    use super::*;

    fn fresh(len: u64) -> Content {
        let mut content = Content::default();
        content.set_server(DataVersion(1), len);
        content
    }

    /// A time that was set is that of what was written before. What is set while something is stored stays.
    #[test]
    fn what_is_set_goes_with_what_was_written_before() {
        let set = |mode, modified| StoreStatus {
            mask: StoreStatus::SET_MODE | StoreStatus::SET_MTIME,
            unix_mode_bits: mode,
            client_mod_time: modified,
            ..StoreStatus::default()
        };
        let mut content = fresh(0);
        content.write(0..10);
        content.set_status(set(0o600, 5));
        content.write(10..20);
        assert_eq!(content.noted().mask, StoreStatus::SET_MODE);
        let sent = content.noted().then(set(0o600, 6));
        content.set_status(sent);
        content.begin_store();
        content.set_status(set(0o400, 6));
        content.stored(DataVersion(2), 20);
        content.status_stored(sent);
        assert_eq!(content.noted(), set(0o400, 6).only(StoreStatus::SET_MODE));
        assert!(content.is_unstored() && !content.is_modified());
        content.status_stored(content.noted());
        assert!(!content.is_unstored());
    }

    #[test]
    fn zeros_behind_the_server_are_not_fetched() {
        let mut content = fresh(100);
        content.write(500..510);
        assert_eq!(content.len(), 510);
        assert_eq!(content.missing(&(0..510)).collect::<Vec<_>>(), [0..100]);
        assert_eq!(
            content.begin_store().calls,
            [StoreCall {
                range: 500..510,
                file_length: 510
            }]
        );
    }

    #[test]
    fn cut_then_written_behind_is_one_call() {
        let mut content = fresh(5000);
        content.truncate(100);
        content.write(1000..1100);
        assert_eq!(content.missing(&(0..1100)).collect::<Vec<_>>(), [0..100]);
        assert_eq!(
            content.begin_store().calls,
            [StoreCall {
                range: 1000..1100,
                file_length: 100
            }]
        );
    }

    #[test]
    fn cut_and_extended_is_one_call() {
        let mut content = fresh(5000);
        content.truncate(100);
        content.truncate(300);
        assert_eq!(
            content.begin_store().calls,
            [StoreCall {
                range: 300..300,
                file_length: 100
            }]
        );
    }

    #[test]
    fn writes_during_a_store_stay_dirty() {
        let mut content = fresh(0);
        content.write(0..100);
        content.begin_store();
        content.write(50..60);
        content.stored(DataVersion(2), 100);
        assert_eq!(content.dirty.bytes(), 10);
        assert!(content.is_present(&(0..100)));
    }

    #[test]
    fn failed_store_is_dirty_again() {
        let mut content = fresh(10);
        content.write(0..5);
        content.begin_store();
        content.store_failed();
        assert_eq!(content.dirty.bytes(), 5);
        assert!(content.is_modified());
    }
}
