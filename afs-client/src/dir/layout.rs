//! Where things stand in a directory blob, and reads that cannot leave it.

use crate::types::{Uniquifier, VnodeId};

/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 2048;
/// Bytes of a slot.
pub(super) const SLOT_BYTES: usize = 32;
/// Slots of a page.
pub(super) const PAGE_SLOTS: usize = PAGE_BYTES / SLOT_BYTES;
/// Slots of page 0 that the headers take.
pub(super) const FIRST_PAGE_RESERVED: usize = 13;
/// Slots of every other page that its header takes.
pub(super) const PAGE_RESERVED: usize = 1;
/// Pages that a slot number can reach.
pub(super) const PAGES_MAX: usize = 1023;
/// Pages with an entry in the allocation map.
pub(super) const MAPPED_PAGES: usize = 128;
/// Chains of the hash table.
pub(super) const BUCKETS: usize = 128;
/// Longest name.
pub(super) const NAME_MAX: usize = 256;
/// Says that a page belongs to a directory.
pub(super) const TAG: u16 = 1234;
/// Allocation map entry of a page that is not there.
pub(super) const NOT_ALLOCATED: u8 = 64;

/// Byte offsets in a page header.
pub(super) mod page {
    pub(in crate::dir) const COUNT: usize = 0;
    pub(in crate::dir) const TAG: usize = 2;
    pub(in crate::dir) const FREE: usize = 4;
    pub(in crate::dir) const BITMAP: usize = 5;
    /// In page 0 only.
    pub(in crate::dir) const ALLOCATION: usize = 32;
    /// In page 0 only.
    pub(in crate::dir) const HASH: usize = 160;
}

/// Byte offsets in the first slot of an entry.
pub(super) mod entry {
    pub(in crate::dir) const FLAG: usize = 0;
    pub(in crate::dir) const NEXT: usize = 2;
    pub(in crate::dir) const VNODE: usize = 4;
    pub(in crate::dir) const UNIQUE: usize = 8;
    pub(in crate::dir) const NAME: usize = 12;
}

/// How many slots an entry with a name of `length` bytes takes.
pub(super) const fn slots_for(length: usize) -> usize {
    1 + (length + 16) / SLOT_BYTES
}

/// Slots at the start of `page` that no entry may use.
pub(super) const fn reserved(page: usize) -> usize {
    if page == 0 {
        FIRST_PAGE_RESERVED
    } else {
        PAGE_RESERVED
    }
}

/// The chain that a name belongs to.
pub(super) fn bucket(name: &[u8]) -> usize {
    let hash = name.iter().fold(0_u32, |hash, byte| {
        hash.wrapping_mul(173).wrapping_add(u32::from(*byte))
    });
    let low = (hash % 128) as usize;
    if low != 0 && hash >= 0x8000_0000 {
        BUCKETS - low
    } else {
        low
    }
}

/// An entry as it stands in the blob.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawEntry<'a> {
    pub(super) flag: u8,
    /// Next of the same chain, 0 at its end.
    pub(super) next: u16,
    pub(super) vnode: VnodeId,
    pub(super) unique: Uniquifier,
    pub(super) name: &'a [u8],
}

/// A view of a blob. Every read is checked; what lies outside is `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct View<'a>(pub(super) &'a [u8]);

impl<'a> View<'a> {
    pub(super) fn byte(self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    pub(super) fn half(self, at: usize) -> Option<u16> {
        self.0.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    pub(super) fn word(self, at: usize) -> Option<u32> {
        self.0.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
    }

    /// The bits of a page's slots: bit n stands for slot n.
    pub(super) fn bitmap(self, page: usize) -> Option<u64> {
        let at = page * PAGE_BYTES + page::BITMAP;
        self.0.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
    }

    /// First slot of a chain, 0 if it is empty.
    pub(super) fn chain(self, bucket: usize) -> Option<u16> {
        self.half(page::HASH + 2 * bucket)
    }

    /// The entry that starts at `slot`. Its name ends at a NUL in the same page or it is none.
    pub(super) fn entry(self, slot: u16) -> Option<RawEntry<'a>> {
        let at = usize::from(slot) * SLOT_BYTES;
        let page_end = (usize::from(slot) / PAGE_SLOTS + 1) * PAGE_BYTES;
        let text = self.0.get(at + entry::NAME..page_end)?;
        let length = text.iter().take(NAME_MAX + 1).position(|byte| *byte == 0)?;
        Some(RawEntry {
            flag: self.byte(at + entry::FLAG)?,
            next: self.half(at + entry::NEXT)?,
            vnode: VnodeId(self.word(at + entry::VNODE)?),
            unique: Uniquifier(self.word(at + entry::UNIQUE)?),
            name: text.get(..length)?,
        })
    }
}

/// The bits of `count` slots from `first` on; `None` if they leave the page.
pub(super) fn span(first: usize, count: usize) -> Option<u64> {
    if count == 0 || first + count > PAGE_SLOTS {
        return None;
    }
    Some((u64::MAX >> (PAGE_SLOTS - count)) << first)
}

/// Slot address of `slot` in `page`.
pub(super) fn address(page: usize, slot: usize) -> Option<u16> {
    u16::try_from(page * PAGE_SLOTS + slot).ok()
}
