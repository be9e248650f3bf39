//! Directories as file servers store and send them.
//!
//! A directory is a file of 2048-byte pages cut into 32-byte slots. Page 0 holds a count of free slots per page and a
//! hash table with 128 chains; an entry is one run of slots inside a page, linked into the chain of its name. A blob is
//! checked as a whole when it is parsed: chains and bitmaps must name the same entries, so that lookup (by chain) and
//! listing (by bitmap) agree and both end. After that it can be edited the way the server does it, which lets a client
//! keep its copy over its own changes.

mod edit;
mod layout;
#[cfg(test)]
mod tests;

use bytes::Bytes;

pub use edit::EditError;
use layout::{BUCKETS, NAME_MAX, NOT_ALLOCATED, PAGE_BYTES, PAGE_SLOTS, PAGES_MAX, TAG, View, page};

use crate::types::{Uniquifier, VnodeId};

/// A directory whose blob has been checked. Clones share the blob until one of them is edited.
#[derive(Clone, Debug)]
pub struct Directory {
    blob: Bytes,
    pages: usize,
    entries: usize,
}

/// One name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Where it starts, in slots from the start of the blob. It stays there as long as it exists.
    pub slot: u16,
    /// The name, raw bytes without NUL and never empty.
    pub name: &'a [u8],
    /// The vnode it names, in the directory's own volume.
    pub vnode: VnodeId,
    /// Tells apart the users of that vnode number.
    pub unique: Uniquifier,
}

/// The rule of the format that a blob breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDirectory {
    /// Empty, or not a whole number of pages.
    #[error("directory of {0} bytes is not a whole number of pages")]
    Length(usize),
    /// More pages are claimed than there are, or none.
    #[error("directory claims {claimed} pages and has {held}")]
    PageCount {
        /// Pages according to the header.
        claimed: usize,
        /// Pages in the blob.
        held: usize,
    },
    /// A page without the tag of directories.
    #[error("page {0} is no directory page")]
    Tag(usize),
    /// An entry without flag or name, without end, with a name that is too long, or with a slash in it.
    #[error("entry at slot {0} is damaged")]
    Entry(u16),
    /// An entry runs over slots that are marked free or over the end of its page.
    #[error("entry at slot {0} uses slots that are not its own")]
    Span(u16),
    /// A chain leads to something that is no entry of it, or twice to the same.
    #[error("hash chain {bucket} is damaged at slot {slot}")]
    Chain {
        /// The chain.
        bucket: usize,
        /// Where it went wrong.
        slot: u16,
    },
    /// Entries that no chain leads to.
    #[error("{0} entries are in no hash chain")]
    Unchained(usize),
}

impl Directory {
    /// Checks a blob as fetched from a server.
    ///
    /// # Errors
    /// The first rule of the format it breaks. Time is linear in its length, whatever it says.
    pub fn parse(blob: Bytes) -> Result<Self, BadDirectory> {
        let held = blob.len() / PAGE_BYTES;
        if blob.is_empty() || !blob.len().is_multiple_of(PAGE_BYTES) {
            return Err(BadDirectory::Length(blob.len()));
        }
        let view = View(&blob);
        let pages = match view.half(page::COUNT).map_or(0, usize::from) {
            0 => allocated_pages(view),
            claimed => claimed,
        };
        if pages == 0 || pages > held || pages > PAGES_MAX {
            return Err(BadDirectory::PageCount { claimed: pages, held });
        }
        let mut heads = Vec::with_capacity(pages);
        for page in 0..pages {
            heads.push(page_heads(view, page)?);
        }
        let entries = heads.iter().map(|heads| heads.count_ones()).sum::<u32>();
        check_chains(view, &mut heads)?;
        let entries = usize::try_from(entries).unwrap_or(usize::MAX);
        Ok(Self { blob, pages, entries })
    }

    /// What a name stands for. Names are bytes: case matters.
    #[must_use]
    pub fn lookup(&self, name: &[u8]) -> Option<(VnodeId, Uniquifier)> {
        self.find(name).map(|found| (found.vnode, found.unique))
    }

    /// All entries in the order they are stored, `.` and `..` included.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(0)
    }

    /// The entries that start at slot `first` or behind it. Entries never move, so a listing that was interrupted goes
    /// on behind the slot of the last entry it took, whatever has been added and removed.
    pub fn iter_from(&self, first: u16) -> Iter<'_> {
        let page = usize::from(first) / PAGE_SLOTS;
        Iter {
            directory: self,
            first,
            page,
            slot: layout::reserved(page),
        }
    }

    /// Number of entries, `.` and `..` included.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries
    }

    /// True if there is no entry besides `.` and `..`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().all(|entry| matches!(entry.name, b"." | b".."))
    }

    /// The blob, edits included.
    #[must_use]
    pub const fn blob(&self) -> &Bytes {
        &self.blob
    }

    fn view(&self) -> View<'_> {
        View(&self.blob)
    }

    fn find(&self, name: &[u8]) -> Option<DirEntry<'_>> {
        let view = self.view();
        let mut slot = view.chain(layout::bucket(name))?;
        // A checked chain ends; the bound costs nothing and needs no proof.
        for _ in 0..self.entries {
            if slot == 0 {
                return None;
            }
            let raw = view.entry(slot)?;
            if raw.name == name {
                return Some(DirEntry {
                    slot,
                    name: raw.name,
                    vnode: raw.vnode,
                    unique: raw.unique,
                });
            }
            slot = raw.next;
        }
        None
    }
}

impl<'a> IntoIterator for &'a Directory {
    type Item = DirEntry<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The entries of a directory in the order they are stored.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    directory: &'a Directory,
    first: u16,
    page: usize,
    slot: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = DirEntry<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let view = self.directory.view();
        while self.page < self.directory.pages {
            let used = view.bitmap(self.page)?;
            while self.slot < PAGE_SLOTS {
                let here = self.slot;
                if used & (1 << here) == 0 {
                    self.slot += 1;
                    continue;
                }
                let slot = layout::address(self.page, here)?;
                let raw = view.entry(slot)?;
                self.slot += layout::slots_for(raw.name.len());
                if slot >= self.first {
                    return Some(DirEntry {
                        slot,
                        name: raw.name,
                        vnode: raw.vnode,
                        unique: raw.unique,
                    });
                }
            }
            self.page += 1;
            self.slot = layout::reserved(self.page);
        }
        None
    }
}

/// Pages of a directory so old that its header does not count them.
fn allocated_pages(view: View<'_>) -> usize {
    (0..layout::MAPPED_PAGES)
        .take_while(|page| {
            view.byte(page::ALLOCATION + page)
                .is_some_and(|free| free != NOT_ALLOCATED)
        })
        .count()
}

/// The slots of a page where entries start, as bits; every entry of the page is checked.
fn page_heads(view: View<'_>, page: usize) -> Result<u64, BadDirectory> {
    if view.half(page * PAGE_BYTES + page::TAG) != Some(TAG) {
        return Err(BadDirectory::Tag(page));
    }
    let used = view.bitmap(page).ok_or(BadDirectory::Tag(page))?;
    let mut heads = 0_u64;
    let mut slot = layout::reserved(page);
    while slot < PAGE_SLOTS {
        if used & (1 << slot) == 0 {
            slot += 1;
            continue;
        }
        let address = layout::address(page, slot).ok_or(BadDirectory::Tag(page))?;
        let raw = view.entry(address).ok_or(BadDirectory::Entry(address))?;
        if raw.flag == 0 || !is_name(raw.name) {
            return Err(BadDirectory::Entry(address));
        }
        let count = layout::slots_for(raw.name.len());
        match layout::span(slot, count) {
            Some(span) if used & span == span => {}
            _ => return Err(BadDirectory::Span(address)),
        }
        heads |= 1 << slot;
        slot += count;
    }
    Ok(heads)
}

/// Walks every chain and strikes out each entry met: what is met twice or left over is damage.
fn check_chains(view: View<'_>, heads: &mut [u64]) -> Result<(), BadDirectory> {
    for bucket in 0..BUCKETS {
        let mut slot = view.chain(bucket).unwrap_or(0);
        while slot != 0 {
            let damaged = BadDirectory::Chain { bucket, slot };
            let page = heads.get_mut(usize::from(slot) / PAGE_SLOTS).ok_or(damaged)?;
            let bit = 1_u64 << (usize::from(slot) % PAGE_SLOTS);
            if *page & bit == 0 {
                return Err(damaged);
            }
            *page &= !bit;
            let raw = view.entry(slot).ok_or(damaged)?;
            if layout::bucket(raw.name) != bucket {
                return Err(damaged);
            }
            slot = raw.next;
        }
    }
    match heads.iter().map(|left| left.count_ones() as usize).sum() {
        0 => Ok(()),
        left => Err(BadDirectory::Unchained(left)),
    }
}

/// True if a directory can hold this name.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_MAX && !name.contains(&b'/') && !name.contains(&0)
}
