//! Changes to a directory, made where and how the server makes them.
//!
//! First fit in the lowest page with room, new entries at the head of their chain. Slots may still end up elsewhere than
//! on the server (its order of steps is not known for every operation), so copies are never compared byte by byte.

use bytes::{Bytes, BytesMut};

use super::layout::{
    self, MAPPED_PAGES, NOT_ALLOCATED, PAGE_BYTES, PAGE_SLOTS, PAGES_MAX, SLOT_BYTES, TAG, View, entry, page,
};
use super::{Directory, is_name};
use crate::types::{Uniquifier, VnodeId};

/// Why a directory was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is such a name already.
    #[error("the name exists")]
    Exists,
    /// There is no such name.
    #[error("no such name")]
    NotFound,
    /// No directory can hold this name: empty, too long, or with a slash or NUL in it.
    #[error("not a file name")]
    BadName,
    /// All pages are full.
    #[error("the directory is full")]
    Full,
}

impl Directory {
    /// A new directory, as the server makes it: only `.` and `..`.
    #[must_use]
    pub fn new(this: (VnodeId, Uniquifier), parent: (VnodeId, Uniquifier)) -> Self {
        let mut blob = BytesMut::zeroed(PAGE_BYTES);
        format_page(&mut blob, 0);
        put(&mut blob, page::COUNT, &1_u16.to_be_bytes());
        put(&mut blob, page::ALLOCATION, &[NOT_ALLOCATED; MAPPED_PAGES]);
        recount(&mut blob, 0);
        let mut directory = Self {
            blob: blob.freeze(),
            pages: 1,
            entries: 0,
        };
        for (name, (vnode, unique)) in [(&b"."[..], this), (b"..", parent)] {
            let added = directory.create(name, vnode, unique);
            debug_assert_eq!(added, Ok(()), "an empty page has room for two names");
        }
        directory
    }

    /// Adds a name.
    ///
    /// # Errors
    /// The name exists, cannot be one, or finds no room. Nothing is changed then.
    pub fn create(&mut self, name: &[u8], vnode: VnodeId, unique: Uniquifier) -> Result<(), EditError> {
        if !is_name(name) {
            return Err(EditError::BadName);
        }
        if self.find(name).is_some() {
            return Err(EditError::Exists);
        }
        let count = layout::slots_for(name.len());
        let (page, first) = self.room(count)?;
        let slot = layout::address(page, first).ok_or(EditError::Full)?;
        let span = layout::span(first, count).ok_or(EditError::Full)?;
        let bucket = layout::bucket(name);

        let fresh = page == self.pages;
        let mut blob = self.take();
        if fresh {
            blob.resize((page + 1) * PAGE_BYTES, 0);
            blob.iter_mut().skip(page * PAGE_BYTES).for_each(|byte| *byte = 0);
            format_page(&mut blob, page);
            self.pages += 1;
            put(
                &mut blob,
                page::COUNT,
                &u16::try_from(self.pages).unwrap_or(u16::MAX).to_be_bytes(),
            );
        }
        let used = View(&blob).bitmap(page).unwrap_or(u64::MAX) | span;
        put(&mut blob, page * PAGE_BYTES + page::BITMAP, &used.to_le_bytes());
        recount(&mut blob, page);

        let head = View(&blob).chain(bucket).unwrap_or(0);
        let at = usize::from(slot) * SLOT_BYTES;
        put(&mut blob, at + entry::FLAG, &[1, 0]);
        put(&mut blob, at + entry::NEXT, &head.to_be_bytes());
        put(&mut blob, at + entry::VNODE, &vnode.0.to_be_bytes());
        put(&mut blob, at + entry::UNIQUE, &unique.0.to_be_bytes());
        put(&mut blob, at + entry::NAME, name);
        put(&mut blob, page::HASH + 2 * bucket, &slot.to_be_bytes());
        self.blob = blob.freeze();
        self.entries += 1;
        Ok(())
    }

    /// Takes a name away and says what it stood for. Pages are never given back.
    ///
    /// # Errors
    /// There is no such name.
    pub fn remove(&mut self, name: &[u8]) -> Result<(VnodeId, Uniquifier), EditError> {
        let found = self.find(name).ok_or(EditError::NotFound)?;
        let (slot, stood_for) = (found.slot, (found.vnode, found.unique));
        let bucket = layout::bucket(name);
        let link = self.link_to(bucket, slot).ok_or(EditError::NotFound)?;
        let next = self.view().entry(slot).map_or(0, |raw| raw.next);
        let (page, first) = (usize::from(slot) / PAGE_SLOTS, usize::from(slot) % PAGE_SLOTS);
        let count = layout::slots_for(name.len());
        let span = layout::span(first, count).unwrap_or(0);

        let mut blob = self.take();
        put(&mut blob, link, &next.to_be_bytes());
        let used = View(&blob).bitmap(page).unwrap_or(u64::MAX) & !span;
        put(&mut blob, page * PAGE_BYTES + page::BITMAP, &used.to_le_bytes());
        let at = usize::from(slot) * SLOT_BYTES;
        blob.iter_mut()
            .skip(at)
            .take(count * SLOT_BYTES)
            .for_each(|byte| *byte = 0);
        recount(&mut blob, page);
        self.blob = blob.freeze();
        self.entries -= 1;
        Ok(stood_for)
    }

    /// Makes an existing name stand for something else (the `..` of a directory that was moved).
    ///
    /// # Errors
    /// There is no such name.
    pub fn retarget(&mut self, name: &[u8], vnode: VnodeId, unique: Uniquifier) -> Result<(), EditError> {
        let slot = self.find(name).ok_or(EditError::NotFound)?.slot;
        let at = usize::from(slot) * SLOT_BYTES;
        let mut blob = self.take();
        put(&mut blob, at + entry::VNODE, &vnode.0.to_be_bytes());
        put(&mut blob, at + entry::UNIQUE, &unique.0.to_be_bytes());
        self.blob = blob.freeze();
        Ok(())
    }

    /// Gives `old` the name `new`; what had that name before is gone from the directory.
    ///
    /// # Errors
    /// There is no `old`, or `new` cannot be a name or finds no room. Nothing is changed then.
    pub fn rename(&mut self, old: &[u8], new: &[u8]) -> Result<(), EditError> {
        let (vnode, unique) = self.lookup(old).ok_or(EditError::NotFound)?;
        if old == new {
            return Ok(());
        }
        let mut renamed = self.clone();
        if renamed.lookup(new).is_some() {
            renamed.remove(new)?;
        }
        renamed.create(new, vnode, unique)?;
        renamed.remove(old)?;
        *self = renamed;
        Ok(())
    }

    /// Page and first slot of `count` free slots in a row; the page may be the one behind the last.
    fn room(&self, count: usize) -> Result<(usize, usize), EditError> {
        let view = self.view();
        for page in 0..self.pages {
            let used = view.bitmap(page).unwrap_or(u64::MAX);
            let fits = |first: &usize| layout::span(*first, count).is_some_and(|span| used & span == 0);
            if let Some(first) = (layout::reserved(page)..PAGE_SLOTS).find(fits) {
                return Ok((page, first));
            }
        }
        if self.pages >= PAGES_MAX {
            return Err(EditError::Full);
        }
        Ok((self.pages, layout::reserved(self.pages)))
    }

    /// Byte offset of the link of a chain that leads to `slot`.
    fn link_to(&self, bucket: usize, slot: u16) -> Option<usize> {
        let view = self.view();
        let mut link = page::HASH + 2 * bucket;
        for _ in 0..=self.entries {
            let next = view.half(link)?;
            if next == slot {
                return Some(link);
            }
            if next == 0 {
                return None;
            }
            link = usize::from(next) * SLOT_BYTES + entry::NEXT;
        }
        None
    }

    /// The blob to write to: itself if nobody else holds it, else a copy. The caller puts it back.
    fn take(&mut self) -> BytesMut {
        std::mem::take(&mut self.blob)
            .try_into_mut()
            .unwrap_or_else(|shared: Bytes| BytesMut::from(&shared[..]))
    }
}

/// Writes at an offset inside the blob; what would leave it is cut.
fn put(blob: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in blob.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}

/// Writes the header of a page with nothing in it.
fn format_page(blob: &mut [u8], page: usize) {
    let (at, reserved) = (page * PAGE_BYTES, layout::reserved(page));
    let bits = layout::span(0, reserved).unwrap_or(0);
    put(blob, at + page::TAG, &TAG.to_be_bytes());
    put(
        blob,
        at + page::FREE,
        &[u8::try_from(PAGE_SLOTS - reserved).unwrap_or(0)],
    );
    put(blob, at + page::BITMAP, &bits.to_le_bytes());
}

/// Sets the free count of a page from its bitmap, where the allocation map has an entry for it.
fn recount(blob: &mut [u8], page: usize) {
    if page < MAPPED_PAGES {
        let free = View(blob).bitmap(page).map_or(0, u64::count_zeros);
        put(blob, page::ALLOCATION + page, &[u8::try_from(free).unwrap_or(0)]);
    }
}
