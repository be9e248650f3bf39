//! A whole file of the cache that the kernel reads by itself, past this program.
//!
//! The machine: before a file is lent it is marked on the disk, by its mode: the kernel may have it longer than this program
//! lives, and a mapping of it longer than it is open. A file that is marked does not change any more. Whatever would change it
//! removes it as a whole, and what is cached of the object next gets a new one; who has the old one keeps it. While a file is
//! lent it is not evicted, and its pages count, under its name or without. So only a part of the cache is lent at a time.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;

use parking_lot::Mutex;

use super::*;

/// A file of the cache that is lent, until this is dropped.
#[derive(Debug)]
pub struct Loan {
    file: Arc<CacheFile>,
    lent: Arc<Lent>,
    version: DataVersion,
    bytes: u64,
}

/// What is known of a file that was lent.
#[derive(Debug, Default)]
pub(super) struct Lent(Mutex<Out>);

#[derive(Debug, Default)]
struct Out {
    /// How often it is lent.
    loans: u32,
    /// Bytes of its pages, if it was removed meanwhile: the last loan gives them back.
    owed: u64,
}

impl Lent {
    fn is_out(&self) -> bool {
        self.0.lock().loans > 0
    }

    /// It is removed; gives what of its bytes is free now.
    fn removed(&self, bytes: u64) -> u64 {
        let mut out = self.0.lock();
        if out.loans == 0 {
            return bytes;
        }
        out.owed += bytes;
        0
    }

    fn returned(&self) -> u64 {
        let mut out = self.0.lock();
        out.loans = out.loans.saturating_sub(1);
        if out.loans == 0 {
            std::mem::take(&mut out.owed)
        } else {
            0
        }
    }
}

impl Loan {
    /// The version of the contents.
    #[must_use]
    pub fn version(&self) -> DataVersion {
        self.version
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let shared = &self.file.shared;
        shared.lent.fetch_sub(self.bytes, Ordering::Relaxed);
        shared.freed(self.lent.returned());
        // The kernel has read it without telling.
        shared.touch_read(self.file.id, chunks(&(0..self.bytes.max(1))));
    }
}

impl CacheFile {
    /// Is it lent now?
    pub(crate) fn is_lent(&self) -> bool {
        self.state.read().is_lent()
    }

    /// Lends the file, if it lies plainly in a directory, all of it is here and of this version, there is no doubt about it,
    /// and not too much is lent. With the file itself, of which the kernel makes one of its own. The caller holds no lock.
    pub(crate) fn lend(&self, version: DataVersion) -> Option<(Loan, OwnedFd)> {
        let file = self.me.upgrade()?;
        // Mostly it cannot, and then nobody is to wait.
        if !self.state.read().can_be_lent(version) {
            return None;
        }
        let mut state = self.state.write();
        if !state.can_be_lent(version) {
            return None;
        }
        let bytes = state.allocated.bytes();
        let most = self.shared.limit() / LENT_SHARE;
        let lend = |lent: u64| lent.checked_add(bytes).filter(|lent| *lent <= most);
        let relaxed = Ordering::Relaxed;
        self.shared.lent.fetch_update(relaxed, relaxed, lend).ok()?;
        match state.mark_lent() {
            Ok((open, lent)) => {
                let loan = Loan {
                    file,
                    lent,
                    version,
                    bytes,
                };
                Some((loan, open.into()))
            }
            Err(error) => {
                drop(state);
                self.shared.lent.fetch_sub(bytes, relaxed);
                tracing::debug!(%error, "a cache file cannot be lent");
                None
            }
        }
    }
}

impl State {
    fn can_be_lent(&self, version: DataVersion) -> bool {
        let content = &self.content;
        let len = content.len();
        self.path.is_some()
            && self.seal.is_none()
            && content.version() == Some(version)
            && !self.is_hearsay
            && self.unverified.is_empty()
            && !content.is_modified()
            && self.filling.is_empty()
            && len > 0
            && content.clean().contains(&(0..len))
    }

    /// Marks the file. From here on it is opened for reading only, so that what would change it fails.
    fn mark_lent(&mut self) -> io::Result<(File, Arc<Lent>)> {
        let path = self.path.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let open = File::open(path)?;
        if self.lent.is_none() {
            // The kernel sees the end of the file, and not ours.
            File::options()
                .write(true)
                .open(path)?
                .set_len(self.content.len())?;
            open.set_permissions(Permissions::from_mode(LENT_MODE))?;
        }
        let found = open.metadata()?;
        if !is_marked(&found) || found.len() != self.content.len() {
            return Err(io::Error::other("it is not as it was marked"));
        }
        // What was open for writing too.
        self.backing = None;
        let lent = Arc::clone(self.lent.get_or_insert_default());
        lent.0.lock().loans += 1;
        Ok((open, lent))
    }

    /// Is it lent now, so that its pages are not free before it is given back?
    pub(super) fn is_lent(&self) -> bool {
        self.lent.as_ref().is_some_and(|lent| lent.is_out())
    }

    /// The file is about to change: one that was lent is removed, with all that is known of it. Gives the bytes freed.
    #[must_use]
    pub(super) fn leave_lent(&mut self) -> u64 {
        let Some(lent) = self.lent.take() else {
            return 0;
        };
        // If that fails, the next one opened in its place tries again, and is not made before.
        self.unlink();
        self.backing = None;
        self.content.evict(0..u64::MAX);
        self.sums.clear();
        self.unverified.clear();
        lent.removed(self.allocated.clear())
    }
}

/// Was this file lent at any time?
pub(in crate::store) fn is_marked(metadata: &std::fs::Metadata) -> bool {
    metadata.permissions().mode() & 0o7777 == LENT_MODE
}

/// The mode of a file that was lent.
const LENT_MODE: u32 = 0o444;
/// What is lent at a time may have one part of so many of the cache.
const LENT_SHARE: u64 = 4;
