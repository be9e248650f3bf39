//! Contents that are sealed page by page, in a sparse file.
//!
//! The machine: each chunk of contents lies behind the seals of its pages, four pages of them, one for each group of 64. So
//! pages stay whole pages that can be punched out, and any of them is read alone. A page has two stamps. A write puts the new
//! one in place of the older, and then the page; whenever the program dies, the page is what it was or what it is to be, and
//! opens with one of them. A page that opens with neither is damaged if it counts, and zeros if it does not.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::CHUNK;
use super::backing::{Counts, punch_hole, read_sparse};
use super::content::{PAGE, PAGE_BYTES};
use super::pages::GROUP;
use super::record::ObjectKey;
use super::seal::{Place, STAMP, Seal, Stamp};

/// A file of sealed pages. Whoever writes does so alone.
#[derive(Debug)]
pub(super) struct Sealed {
    file: File,
    key: ObjectKey,
    seal: Arc<Seal>,
}

/// Contents that were changed by somebody else.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("page {0} is not as it was sealed")]
pub(super) struct Damaged(u64);

/// The two stamps of a page.
type Stamps = [Stamp; 2];

/// One of them.
#[derive(Clone, Copy, Debug)]
enum Slot {
    One,
    Other,
}

impl Slot {
    fn opposite(self) -> Self {
        match self {
            Self::One => Self::Other,
            Self::Other => Self::One,
        }
    }

    fn of(self, [one, other]: &Stamps) -> &Stamp {
        match self {
            Self::One => one,
            Self::Other => other,
        }
    }

    fn of_mut(self, [one, other]: &mut Stamps) -> &mut Stamp {
        match self {
            Self::One => one,
            Self::Other => other,
        }
    }
}

impl Sealed {
    pub(super) fn new(file: File, key: ObjectKey, seal: Arc<Seal>) -> Self {
        Self { file, key, seal }
    }

    pub(super) fn read(&self, buffer: &mut [u8], at: u64, counts: Counts<'_>) -> io::Result<()> {
        let head = edge(at, buffer.len());
        let (first, rest) = buffer.split_at_mut(head);
        if head > 0 {
            self.read_within(first, at, counts)?;
        }
        let at = at + head as u64;
        let (whole, last) = rest.split_at_mut(rest.len() - rest.len() % PAGE_BYTES);
        let mut page = at / PAGE;
        for part in by_group(page, whole) {
            let stamps = self.stamps(page, part.len() / PAGE_BYTES)?;
            read_sparse(&self.file, part, place_of(page)?)?;
            for (bytes, stamps) in part.chunks_exact_mut(PAGE_BYTES).zip(&stamps) {
                self.open(page, stamps, bytes, counts)?;
                page += 1;
            }
        }
        if !last.is_empty() {
            self.read_within(last, page * PAGE, counts)?;
        }
        Ok(())
    }

    /// Fills `buffer` from within one page.
    fn read_within(&self, buffer: &mut [u8], at: u64, counts: Counts<'_>) -> io::Result<()> {
        let mut bytes = [0; PAGE_BYTES];
        self.read_page(at / PAGE, &mut bytes, counts)?;
        let from = in_page(at);
        buffer.copy_from_slice(bytes.get(from..from + buffer.len()).unwrap_or_default());
        Ok(())
    }

    /// Reads a page; true if it is one, false if it is zeros for want of it.
    fn read_page(&self, page: u64, bytes: &mut [u8; PAGE_BYTES], counts: Counts<'_>) -> io::Result<bool> {
        let stamps = self.stamps(page, 1)?;
        read_sparse(&self.file, bytes, place_of(page)?)?;
        let stamps = stamps.first().copied().unwrap_or([UNUSED; 2]);
        Ok(self.open(page, &stamps, bytes, counts)?.is_some())
    }

    /// Opens a page, and says with which of its stamps.
    fn open(
        &self,
        page: u64,
        stamps: &Stamps,
        bytes: &mut [u8],
        counts: Counts<'_>,
    ) -> io::Result<Option<Slot>> {
        let place = Place::Page(self.key, page);
        let [one, other] = stamps;
        let late = if self.seal.is_later(other, one).unwrap_or(false) {
            Slot::Other
        } else {
            Slot::One
        };
        for slot in [late, late.opposite()] {
            let stamp = slot.of(stamps);
            if *stamp != UNUSED && self.seal.open(place, stamp, bytes) {
                return Ok(Some(slot));
            }
        }
        if counts(&(page * PAGE..(page + 1) * PAGE)) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Damaged(page)));
        }
        bytes.fill(0);
        Ok(None)
    }

    pub(super) fn write(&self, mut data: Vec<u8>, at: u64, counts: Counts<'_>) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        let mut page = at / PAGE;
        let mut bytes = [0; PAGE_BYTES];
        let head = in_page(at);
        if head > 0 {
            self.read_page(page, &mut bytes, counts)?;
            data.splice(0..0, bytes.get(..head).unwrap_or_default().iter().copied());
        }
        let tail = data.len() % PAGE_BYTES;
        if tail > 0 {
            let last = page + (data.len() / PAGE_BYTES) as u64;
            self.read_page(last, &mut bytes, counts)?;
            data.extend_from_slice(bytes.get(tail..).unwrap_or_default());
        }
        for part in by_group(page, &mut data) {
            let from = place_of(page)?;
            let mut stamps = self.stamps(page, part.len() / PAGE_BYTES)?;
            let first = page;
            for (bytes, stamps) in part.chunks_exact_mut(PAGE_BYTES).zip(&mut stamps) {
                let stamp = self.seal.seal(Place::Page(self.key, page), bytes)?;
                *self.older(stamps).of_mut(stamps) = stamp;
                page += 1;
            }
            self.file
                .write_all_at(stamps.as_flattened().as_flattened(), stamps_of(first)?)?;
            self.file.write_all_at(part, from)?;
        }
        Ok(())
    }

    /// The stamp that a page can do without.
    fn older(&self, stamps: &Stamps) -> Slot {
        match stamps {
            [UNUSED, _] => Slot::One,
            [_, UNUSED] => Slot::Other,
            // If neither is of this run, the page is one that can be fetched again: others were settled.
            [one, other] if self.seal.is_later(one, other).unwrap_or(false) => Slot::Other,
            _ => Slot::One,
        }
    }

    /// Looks at pages that nobody else has, of an earlier run, and leaves each the one stamp that it opens with.
    ///
    /// # Errors
    ///
    /// One of them is damaged, or cannot be read or written.
    pub(super) fn settle(&self, pages: &Range<u64>) -> io::Result<()> {
        let mut bytes = [0; PAGE_BYTES];
        for page in pages.start / PAGE..pages.end / PAGE {
            let mut stamps = self.stamps(page, 1)?;
            read_sparse(&self.file, &mut bytes, place_of(page)?)?;
            let Some(stamps) = stamps.first_mut() else {
                continue;
            };
            if let Some(slot) = self.open(page, stamps, &mut bytes, &|_| true)? {
                *slot.opposite().of_mut(stamps) = UNUSED;
                self.file.write_all_at(stamps.as_flattened(), stamps_of(page)?)?;
            }
        }
        Ok(())
    }

    pub(super) fn cut(&self, len: u64, counts: Counts<'_>) -> io::Result<()> {
        let mut bytes = [0; PAGE_BYTES];
        let tail = in_page(len);
        if tail > 0 && self.read_page(len / PAGE, &mut bytes, counts)? {
            self.write(vec![0; PAGE_BYTES - tail], len, counts)?;
        }
        let end = match len.div_ceil(PAGE).checked_sub(1) {
            Some(last) => place_of(last)? + PAGE,
            None => 0,
        };
        if self.file.metadata()?.len() > end {
            self.file.set_len(end)?;
        }
        // The seals of the last chunk lie before its pages.
        let behind = len.next_multiple_of(GROUP);
        let chunk = len.next_multiple_of(CHUNK);
        if len > 0 && behind < chunk {
            self.punch_stamps(&(behind..chunk))?;
        }
        Ok(())
    }

    pub(super) fn punch(&self, pages: &Range<u64>, groups: &Range<u64>) -> io::Result<()> {
        let mut at = pages.start;
        // Nothing is behind its end, however far the caller looks.
        let end = pages.end.min(self.end()?.next_multiple_of(PAGE));
        while at < end {
            let next = (at - at % CHUNK).saturating_add(CHUNK).min(end);
            let start = place_of(at / PAGE)?;
            punch_hole(&self.file, &(start..start + (next - at)))?;
            at = next;
        }
        self.punch_stamps(&(groups.start..groups.end.min(end.next_multiple_of(GROUP))))
    }

    fn punch_stamps(&self, groups: &Range<u64>) -> io::Result<()> {
        let mut at = groups.start;
        while at < groups.end {
            let start = stamps_of(at / PAGE)?;
            punch_hole(&self.file, &(start..start + PAGE))?;
            at += GROUP;
        }
        Ok(())
    }

    pub(super) fn end(&self) -> io::Result<u64> {
        let len = self.file.metadata()?.len();
        Ok(len / STRIDE * CHUNK + (len % STRIDE).saturating_sub(STAMPS))
    }

    /// The stamps of pages of one group.
    fn stamps(&self, page: u64, count: usize) -> io::Result<Vec<Stamps>> {
        let mut stamps = vec![[UNUSED; 2]; count];
        read_sparse(
            &self.file,
            stamps.as_flattened_mut().as_flattened_mut(),
            stamps_of(page)?,
        )?;
        Ok(stamps)
    }
}

/// Whole pages from `page` on, cut where a group ends.
fn by_group(page: u64, bytes: &mut [u8]) -> impl Iterator<Item = &mut [u8]> {
    let mut rest = bytes;
    let mut room = usize::try_from(GROUP - page * PAGE % GROUP).unwrap_or(PAGE_BYTES);
    std::iter::from_fn(move || {
        let all = std::mem::take(&mut rest);
        let (part, behind) = all.split_at_mut(room.min(all.len()));
        rest = behind;
        room = usize::try_from(GROUP).unwrap_or(PAGE_BYTES);
        (!part.is_empty()).then_some(part)
    })
}

/// Bytes up to the first whole page of so many at `at`.
fn edge(at: u64, len: usize) -> usize {
    match in_page(at) {
        0 => 0,
        from => (PAGE_BYTES - from).min(len),
    }
}

fn in_page(at: u64) -> usize {
    usize::try_from(at % PAGE).unwrap_or(0)
}

/// Where a chunk begins in the file.
fn chunk_of(page: u64) -> io::Result<u64> {
    (page / (CHUNK / PAGE))
        .checked_mul(STRIDE)
        .filter(|start| *start <= (i64::MAX as u64) - STRIDE)
        .ok_or_else(|| io::ErrorKind::FileTooLarge.into())
}

/// Where a page lies.
fn place_of(page: u64) -> io::Result<u64> {
    Ok(chunk_of(page)? + STAMPS + page % (CHUNK / PAGE) * PAGE)
}

/// Where its stamps lie.
fn stamps_of(page: u64) -> io::Result<u64> {
    Ok(chunk_of(page)? + page % (CHUNK / PAGE) * 2 * STAMP as u64)
}

const UNUSED: Stamp = [0; STAMP];
/// Bytes of the stamps of a chunk.
const STAMPS: u64 = CHUNK / PAGE * 2 * STAMP as u64;
const STRIDE: u64 = STAMPS + CHUNK;
const _: () = assert!(GROUP / PAGE * 2 * STAMP as u64 == PAGE);
