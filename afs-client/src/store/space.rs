//! The file system that the cache is on: how much of it there is, and what went wrong with it.

use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use super::*;

/// What went wrong with the file system that the cache is on.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// It was said that it is full, and that it fails otherwise.
    pub(super) said: [AtomicBool; 2],
    /// How often something went past the cache because it was full, and because it failed.
    pub(super) bypassed: [AtomicU64; 2],
    /// How often something was not as it had been written, or could not be read.
    pub(super) damaged: AtomicU64,
}

impl Shared {
    /// The index has this size now, and the journal its own.
    pub(super) fn count_overhead(&self, index: u64) {
        let journal = self.journal.as_ref().map_or(0, |journal| journal.lock().size());
        self.overhead.store(index + journal, Ordering::Relaxed);
    }

    /// Sees how much there is of the bound: what others leave of the file system, but for a reserve.
    pub(super) fn look_at_space(self: &Arc<Self>) {
        let Some(place) = &self.place else { return };
        let ours = self
            .max_bytes
            .saturating_sub(self.overhead.load(Ordering::Relaxed));
        let limit = match place.space() {
            Ok((free, all)) => {
                let reserve = (all / FREE_SHARE).min(MAX_FREE);
                ours.min((self.used() + free).saturating_sub(reserve))
            }
            Err(_) => ours,
        };
        // With less nothing works. If there is not even so much, it goes past the cache.
        self.limit.store(limit.max(MIN_BYTES), Ordering::Relaxed);
        drop(self.reserve(0));
    }

    /// The file system that the cache is on has refused something, which goes past the cache. That is said once.
    pub(super) fn bypass(self: &Arc<Self>, error: &io::Error) {
        let is_full = is_full(error) || error.kind() == io::ErrorKind::StorageFull;
        let kind = usize::from(!is_full);
        if let Some(count) = self.trouble.bypassed.get(kind) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let said = self.trouble.said.get(kind);
        if said.is_some_and(|said| !said.swap(true, Ordering::Relaxed)) {
            tracing::error!(%error, "the cache cannot be used as it should: what it cannot take goes past it, and is slower");
        }
        if self::is_full(error) {
            self.shrink();
        }
    }

    /// Others have filled the file system: gives something back, so that there is room for what comes next.
    pub(super) fn shrink(self: &Arc<Self>) {
        let used = self.used();
        let limit = used.saturating_sub((used / 16).max(CHUNK));
        self.limit.store(limit.max(MIN_BYTES), Ordering::Relaxed);
        drop(self.reserve(0));
    }
}

/// Has the file system no room, as against the bound of the cache?
pub(super) fn is_full(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::NOSPC.raw_os_error())
        || error.raw_os_error() == Some(Errno::DQUOT.raw_os_error())
}

/// A file in memory.
pub(super) fn open_memory() -> io::Result<File> {
    Ok(rustix::fs::memfd_create("afs-cache", MemfdFlags::CLOEXEC)?.into())
}

/// Raises the soft limit of open descriptors to the hard one, and says how many the cache may use.
pub(super) fn raise_descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(MAX_DESCRIPTORS + SPARE_DESCRIPTORS, |max| {
        max.min(2 * MAX_DESCRIPTORS)
    });
    let mut granted = limit.current.unwrap_or(wanted);
    if granted < wanted {
        let raised = Rlimit {
            current: Some(wanted),
            maximum: limit.maximum,
        };
        if rustix::process::setrlimit(Resource::Nofile, raised).is_ok() {
            granted = wanted;
        }
    }
    let spare = SPARE_DESCRIPTORS.min(granted / 2);
    (granted - spare).clamp(1, MAX_DESCRIPTORS)
}

/// Descriptors that the cache leaves to others, and the most it uses.
const SPARE_DESCRIPTORS: u64 = 256;
const MAX_DESCRIPTORS: u64 = 65_536;
/// What is left free of the file system that the cache is on: one part of so many, and at most so much.
const FREE_SHARE: u64 = 50;
const MAX_FREE: u64 = 1 << 30;
