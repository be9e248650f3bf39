//! Vnodes: what is known of each object, and whether it can be relied on.
//!
//! The machine: a vnode is made when its FID is first heard of and stays in the table as long as the kernel, a handle or
//! unstored data needs it; beyond that the table is bounded. Its status counts while its promise stands; everything else
//! about it (directory, link text, data) is labelled with the data version it belongs to.

pub(crate) mod promise;
pub(crate) mod status;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::dir::Directory;
use crate::store::CacheFile;
use crate::types::{DataVersion, Fid};
use crate::volume::Volume;
use promise::{Breaks, Promise, Stamp};
use status::Status;

pub(crate) use table::Vnodes;

/// One object.
#[derive(Debug)]
pub(crate) struct Vnode {
    pub(crate) fid: Fid,
    pub(crate) volume: Arc<Volume>,
    pub(crate) breaks: Breaks,
    known: RwLock<Known>,
    /// One status fetch at a time.
    pub(crate) fetching: tokio::sync::Mutex<()>,
    pub(crate) data: Arc<CacheFile>,
    /// Held by whoever changes what the server has of the data.
    pub(crate) storing: tokio::sync::Mutex<()>,
    /// The version of the data that the kernel may hold pages of.
    pub(crate) shown: Mutex<Option<DataVersion>>,
    /// Handles that are open.
    pub(crate) opens: AtomicU64,
    /// The kernel knows it.
    pub(crate) retained: AtomicBool,
    /// Removed by us while open: the name under which it waits for its last release.
    pub(crate) doomed: Mutex<Option<(Fid, Bytes)>>,
}

#[derive(Debug, Default)]
struct Known {
    status: Option<Status>,
    promise: Option<Promise>,
    directory: Option<(DataVersion, Directory)>,
    link: Option<(DataVersion, Bytes)>,
    /// Where the mount point with this version leads.
    mounted: Option<(DataVersion, Fid)>,
}

impl Vnode {
    pub(crate) fn new(fid: Fid, volume: Arc<Volume>, data: Arc<CacheFile>) -> Self {
        Self {
            fid,
            volume,
            breaks: Breaks::default(),
            known: RwLock::default(),
            fetching: tokio::sync::Mutex::default(),
            data,
            storing: tokio::sync::Mutex::default(),
            shown: Mutex::default(),
            opens: AtomicU64::new(0),
            retained: AtomicBool::new(false),
            doomed: Mutex::default(),
        }
    }

    /// The counters that a promise on it depends on, as they are now.
    pub(crate) fn stamp(&self, all: &Breaks) -> Stamp {
        Stamp {
            vnode: self.breaks.count(),
            volume: self.volume.breaks.count(),
            all: all.count(),
        }
    }

    /// The status, and for how long it can be relied on; `None` if it cannot.
    pub(crate) fn valid(&self, now: Instant, all: &Breaks) -> Option<(Status, Duration)> {
        let stamp = self.stamp(all);
        let known = self.known.read();
        let left = known.promise.as_ref()?.remaining(stamp, now)?;
        Some((known.status?, left))
    }

    /// The status known last.
    pub(crate) fn status(&self) -> Option<Status> {
        self.known.read().status
    }

    /// Takes a status over, and a promise if one came with it. A status that is older than a reliable one is not taken: a
    /// late reply, or a server that has said something else before. Which of the two the next question tells.
    pub(crate) fn learn(&self, status: Status, promise: Option<Promise>, now: Instant, all: &Breaks) {
        let stamp = self.stamp(all);
        let mut known = self.known.write();
        let stands = known
            .promise
            .as_ref()
            .is_some_and(|promise| promise.remaining(stamp, now).is_some());
        if stands && known.status.is_some_and(|old| old.version > status.version) {
            known.promise = None;
            return;
        }
        known.status = Some(status);
        if promise.is_some() {
            known.promise = promise;
        }
    }

    /// The promise cannot be relied on any more.
    pub(crate) fn distrust(&self) {
        self.known.write().promise = None;
    }

    /// The server that promised, if the promise stands.
    pub(crate) fn promised_by(&self, now: Instant, all: &Breaks) -> Option<Arc<crate::server::Server>> {
        let stamp = self.stamp(all);
        let known = self.known.read();
        let promise = known.promise.as_ref()?;
        promise
            .remaining(stamp, now)
            .map(|_| Arc::clone(promise.server()))
    }

    /// The directory of this version.
    pub(crate) fn directory(&self, version: DataVersion) -> Option<Directory> {
        let known = self.known.read();
        known
            .directory
            .as_ref()
            .filter(|(at, _)| *at == version)
            .map(|(_, directory)| directory.clone())
    }

    pub(crate) fn set_directory(&self, version: DataVersion, directory: Directory) {
        self.known.write().directory = Some((version, directory));
    }

    /// We changed the directory, and now it has `after`: if nobody else did, our copy follows.
    pub(crate) fn edit_directory(&self, after: DataVersion, edit: impl FnOnce(&mut Directory) -> bool) {
        let mut known = self.known.write();
        if let Some((version, mut directory)) = known.directory.take()
            && version.next() == after
            && edit(&mut directory)
        {
            known.directory = Some((after, directory));
        }
    }

    /// The link text of this version.
    pub(crate) fn link(&self, version: DataVersion) -> Option<Bytes> {
        let known = self.known.read();
        known
            .link
            .as_ref()
            .filter(|(at, _)| *at == version)
            .map(|(_, text)| text.clone())
    }

    pub(crate) fn set_link(&self, version: DataVersion, text: Bytes) {
        self.known.write().link = Some((version, text));
    }

    /// Where the mount point of this version leads, if it was followed.
    pub(crate) fn mounted(&self, version: DataVersion) -> Option<Fid> {
        let known = self.known.read();
        known
            .mounted
            .filter(|(at, _)| *at == version)
            .map(|(_, root)| root)
    }

    pub(crate) fn set_mounted(&self, version: DataVersion, root: Fid) {
        self.known.write().mounted = Some((version, root));
    }

    /// Something outside the table needs it.
    pub(crate) fn is_needed(&self) -> bool {
        self.retained.load(Ordering::Acquire)
            || self.opens.load(Ordering::Acquire) > 0
            || self.data.is_modified()
    }
}
