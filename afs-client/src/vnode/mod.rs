//! Vnodes: what is known of each object, and whether it can be relied on.
//!
//! The machine: a vnode is made when its FID is first heard of and stays in the table as long as the kernel, a handle or
//! unstored data needs it; beyond that the table is bounded. Its status counts while its promise stands; everything else
//! about it (directory, link text, data) is labelled with the data version it belongs to.

pub(crate) mod promise;
mod shelf;
pub(crate) mod status;
mod table;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::auth::tokens::{Identity, ProofId};
use crate::dir::Directory;
use crate::error::Error;
use crate::fs::Listing;
use crate::rpc::types::StoreStatus;
use crate::store::{Author, CacheFile, DataCache};
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
    cache: DataCache,
    /// Its data, since somebody asked for it: most objects are only looked at.
    data: OnceLock<Arc<CacheFile>>,
    /// Held by whoever changes what the server has of the data: when that had no answer last.
    pub(crate) storing: tokio::sync::Mutex<Option<Instant>>,
    /// What is being written is stored before somebody asks for it, or that has failed since somebody did.
    pub(crate) stored_early: AtomicBool,
    /// Something was stored that the server was not asked to write to its disk.
    pub(crate) unsynced: AtomicBool,
    /// The version of the data that the kernel may hold pages of.
    pub(crate) shown: Mutex<Option<DataVersion>>,
    /// Handles that are open.
    pub(crate) opens: AtomicU64,
    /// The kernel knows it.
    pub(crate) retained: AtomicBool,
    /// The mount points by which the kernel may know it.
    led_to_by: Mutex<Vec<Fid>>,
    /// Removed by us while open: the name under which it waits for its last release.
    pub(crate) doomed: Mutex<Option<(Fid, Bytes)>>,
    /// Held by who looks whether they may change the data, and does.
    writing: Mutex<()>,
    /// Data was lost to somebody else's change behind the back of who wrote it.
    owed: Mutex<Option<Error>>,
}

#[derive(Debug, Default)]
struct Known {
    status: Option<Status>,
    promise: Option<Promise>,
    /// We may have changed the object without hearing what became of it: the promise tells of others only.
    doubted: bool,
    /// Changes of ours that were answered, or given up.
    changes: u64,
    /// Rights that were found out while the promise stood, by proof. Those of a directory count for all that is in it; of
    /// anything else they only tell whether it is the caller's own.
    rights: Vec<Rights>,
    directory: Option<(DataVersion, Directory)>,
    /// The entries of the directory, as long as somebody reads them.
    listing: Weak<Listing>,
    /// The directory was asked for since somebody looked at this.
    consulted: AtomicBool,
    link: Option<(DataVersion, Bytes)>,
    /// Where the mount point with this version leads.
    mounted: Option<(DataVersion, Fid)>,
}

/// What is known of a reply beside what it says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// What it was asked for with.
    pub(crate) proof: ProofId,
    /// Nothing was broken since it was asked for.
    pub(crate) is_current: bool,
    /// It tells of a change of ours.
    pub(crate) is_change: bool,
    /// Changes of ours that were answered before it was asked for.
    pub(crate) changes: u64,
}

/// What a server said that the holder of a proof may do with the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights {
    proof: ProofId,
    access: u32,
}

impl Vnode {
    pub(crate) fn new(fid: Fid, volume: Arc<Volume>, cache: DataCache) -> Self {
        Self {
            fid,
            volume,
            breaks: Breaks::default(),
            known: RwLock::default(),
            fetching: tokio::sync::Mutex::default(),
            cache,
            data: OnceLock::new(),
            storing: tokio::sync::Mutex::default(),
            stored_early: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
            shown: Mutex::default(),
            opens: AtomicU64::new(0),
            retained: AtomicBool::new(false),
            led_to_by: Mutex::default(),
            doomed: Mutex::default(),
            writing: Mutex::default(),
            owed: Mutex::default(),
        }
    }

    /// The data. It may have to be looked for on the disk.
    pub(crate) fn data(&self) -> &Arc<CacheFile> {
        if let Some(data) = self.data.get() {
            return data;
        }
        let data = self
            .data
            .get_or_init(|| self.cache.file(&self.volume.cell.name, self.fid));
        // What was learned before it was here. Who learns something from now on sees it.
        self.tell_data();
        data
    }

    /// The data, if anybody has asked for it.
    pub(crate) fn loaded(&self) -> Option<&Arc<CacheFile>> {
        self.data.get()
    }

    /// Is there anything that the server does not have: bytes, a length, attributes?
    pub(crate) fn is_unstored(&self) -> bool {
        self.loaded().is_some_and(|data| data.is_unstored())
    }

    /// Do its contents differ from the server's?
    pub(crate) fn is_modified(&self) -> bool {
        self.loaded().is_some_and(|data| data.is_modified())
    }

    /// The attributes that were set and that the server does not have.
    pub(crate) fn noted(&self) -> StoreStatus {
        self.loaded().map(|data| data.noted()).unwrap_or_default()
    }

    /// Notes attributes that somebody sets, to go with what they have written. False if there is nothing of theirs.
    pub(crate) fn set_status_as(&self, who: Identity, set: StoreStatus) -> bool {
        let _one = self.writing.lock();
        self.is_unstored_of(who) && self.data().set_status(set)
    }

    /// Is there something that the server does not have, and that this one has written?
    pub(crate) fn is_unstored_of(&self, who: Identity) -> bool {
        self.is_unstored() && self.writer() == who
    }

    /// Tells the data what the server has, unless there are local changes.
    pub(crate) fn tell_data(&self) {
        if let Some(data) = self.loaded()
            && !data.is_modified()
            && let Some(status) = self.status()
        {
            data.set_server(status.served());
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

    /// For how long the status can be relied on; `None` if it cannot. It says nothing of rights.
    pub(crate) fn stands(&self, now: Instant, all: &Breaks) -> Option<Duration> {
        let stamp = self.stamp(all);
        self.known.read().stands(stamp, now)
    }

    /// The status, for how long it can be relied on, and the rights that go with `proof` if they are known; `None` if it
    /// cannot be relied on.
    pub(crate) fn valid(
        &self,
        now: Instant,
        all: &Breaks,
        proof: ProofId,
    ) -> Option<(Status, Duration, Option<u32>)> {
        let stamp = self.stamp(all);
        let known = self.known.read();
        let left = known.stands(stamp, now)?;
        Some((known.status?, left, known.rights_with(proof)))
    }

    /// The rights that go with `proof`, and for how long we would hear of a change.
    pub(crate) fn rights(&self, now: Instant, all: &Breaks, proof: ProofId) -> Option<(u32, Duration)> {
        let stamp = self.stamp(all);
        let known = self.known.read();
        let left = known.promise.as_ref()?.remaining(stamp, now)?;
        Some((known.rights_with(proof)?, left))
    }

    /// Who wrote last: whose rights the store will need.
    pub(crate) fn writer(&self) -> Identity {
        self.data().author().who
    }

    /// Changes the data as somebody, who is asked for if it is not known yet; `None` if there is something in it that
    /// somebody else wrote: it is to be stored first, with their rights. So what is dirty is always one identity's.
    pub(crate) fn write_as<T>(
        &self,
        who: Identity,
        author: impl FnOnce() -> Author,
        change: impl FnOnce(&CacheFile) -> T,
    ) -> Option<T> {
        let _one = self.writing.lock();
        if !self.is_unstored() {
            self.data().set_author(author());
        } else if self.writer() != who {
            return None;
        }
        Some(change(self.data()))
    }

    /// Is there something in it that was written while it was open, is not stored, and based on another version?
    pub(crate) fn is_left_behind(&self, status: &Status) -> bool {
        self.opens.load(Ordering::Acquire) == 0
            && self.is_modified()
            && self.data().version() != Some(status.version)
    }

    /// Remembers an error that the next `close` or `fsync` has to tell.
    pub(crate) fn owe(&self, error: Error) {
        *self.owed.lock() = Some(error);
    }

    /// Is there an error to be told?
    pub(crate) fn owes(&self) -> bool {
        self.owed.lock().is_some()
    }

    /// The error that was not told yet.
    pub(crate) fn take_owed(&self) -> Option<Error> {
        self.owed.lock().take()
    }

    /// The status known last.
    pub(crate) fn status(&self) -> Option<Status> {
        self.known.read().status
    }

    /// How many changes of ours were answered, or given up.
    pub(crate) fn changes(&self) -> u64 {
        self.known.read().changes
    }

    /// Takes a status over, and a promise if one came with it. A status that is older than a reliable one is not taken: a late
    /// reply, or a server that has said something else before. Which of the two the next question tells. Nor is one that was
    /// asked for before a change of ours was answered, unless it is newer than that answer: the server may have given it
    /// before it made the change. The promise that comes with it is as good as any. What a change of ours has made newer is
    /// taken even if something was broken and promised anew meanwhile: of our own changes no server tells us.
    pub(crate) fn learn(
        &self,
        status: Status,
        promise: Option<Promise>,
        told: Told,
        now: Instant,
        all: &Breaks,
    ) {
        let stamp = self.stamp(all);
        let mut known = self.known.write();
        let stands = known.stands(stamp, now).is_some();
        let old = known.status.map(|old| old.version);
        let is_older = old.is_some_and(|old| old > status.version);
        let is_newer = old.is_none_or(|old| old < status.version);
        let is_overtaken = known.changes != told.changes && !is_newer;
        if told.is_change {
            known.changes += 1;
            // Two changes at a time that left the version as it was: nobody knows which of the answers tells of both.
            known.doubted |= is_overtaken && !is_older;
        }
        let contradicts = told.is_current && is_older && !is_overtaken;
        if stands && contradicts {
            known.promise = None;
        }
        let is_news = told.is_current || (told.is_change && is_newer);
        if stands && (!is_news || contradicts) {
            return;
        }
        let is_promised = |promise: &Promise| promise.remaining(stamp, now).is_some();
        if !known.promise.as_ref().is_some_and(is_promised) {
            // Nobody would have told of a change.
            known.rights.clear();
        }
        if told.is_current {
            let rights = Rights {
                proof: told.proof,
                access: status.access,
            };
            let at = known
                .rights
                .binary_search_by_key(&told.proof, |rights| rights.proof);
            match at.map(|at| known.rights.get_mut(at)) {
                Ok(Some(told)) => *told = rights,
                Ok(None) => {}
                Err(at) => known.rights.insert(at, rights),
            }
            if known.rights.len() > MAX_RIGHTS {
                // Those of the oldest token.
                known.rights.remove(0);
            }
        }
        if !is_overtaken && (told.is_current || !is_older) {
            known.status = Some(status);
        }
        if promise.is_some() {
            known.promise = promise;
            known.doubted &= known.changes != told.changes;
        }
    }

    /// The status cannot be relied on any more, until the server was asked.
    pub(crate) fn distrust(&self) {
        let mut known = self.known.write();
        known.doubted = true;
        known.changes += 1;
    }

    /// The server that promised, if the promise stands.
    pub(crate) fn promised_by(&self, now: Instant, all: &Breaks) -> Option<Arc<crate::server::Server>> {
        self.promised(now, all).map(|(server, _)| server)
    }

    /// The server that promised, and for how long its promise stands.
    pub(crate) fn promised(
        &self,
        now: Instant,
        all: &Breaks,
    ) -> Option<(Arc<crate::server::Server>, Duration)> {
        let stamp = self.stamp(all);
        let known = self.known.read();
        let promise = known.promise.as_ref()?;
        let left = promise.remaining(stamp, now)?;
        Some((Arc::clone(promise.server()), left))
    }

    /// The directory of this version.
    pub(crate) fn directory(&self, version: DataVersion) -> Option<Directory> {
        let known = self.known.read();
        known.consulted.store(true, Ordering::Relaxed);
        known
            .directory
            .as_ref()
            .filter(|(at, _)| *at == version)
            .map(|(_, directory)| directory.clone())
    }

    /// The directory of whatever version: good for what names stood for, not for what they stand for.
    pub(crate) fn last_directory(&self) -> Option<Directory> {
        let known = self.known.read();
        known.directory.as_ref().map(|(_, directory)| directory.clone())
    }

    pub(crate) fn set_directory(&self, version: DataVersion, directory: Directory) {
        self.known.write().directory = Some((version, directory));
    }

    /// The entries of the directory of this version; made by `list` if nobody reads them already.
    pub(crate) fn listing(&self, version: DataVersion, list: impl FnOnce() -> Listing) -> Arc<Listing> {
        let there = self.known.read().listing.upgrade();
        there
            .filter(|listing| listing.version == version)
            .unwrap_or_else(|| {
                let listing = Arc::new(list());
                self.known.write().listing = Arc::downgrade(&listing);
                listing
            })
    }

    /// Bytes of the directory in memory.
    pub(crate) fn directory_bytes(&self) -> usize {
        let known = self.known.read();
        known
            .directory
            .as_ref()
            .map_or(0, |(_, directory)| directory.blob().len())
    }

    /// Was the directory asked for since this was?
    pub(crate) fn was_consulted(&self) -> bool {
        self.known.read().consulted.swap(false, Ordering::Relaxed)
    }

    /// Has others have the memory. What the cache keeps of it stays there.
    pub(crate) fn drop_directory(&self) {
        self.keep_contents();
        self.known.write().directory = None;
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

    /// Has the cache keep the directory or link text over a restart, if it can.
    pub(crate) fn keep_contents(&self) {
        if self.cache.is_memory() {
            return;
        }
        let known = self.known.read();
        let directory = known.directory.as_ref();
        let contents = directory
            .map(|(version, directory)| (*version, directory.blob().clone()))
            .or_else(|| known.link.clone());
        drop(known);
        if let Some((version, contents)) = contents {
            self.data().keep(version, contents);
        }
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

    /// Where it led when it was followed last.
    pub(crate) fn last_mounted(&self) -> Option<Fid> {
        self.known.read().mounted.map(|(_, root)| root)
    }

    /// The kernel may know it by this mount point from now on.
    pub(crate) fn led_to(&self, point: Fid) {
        let mut points = self.led_to_by.lock();
        if !points.contains(&point) {
            points.push(point);
        }
    }

    /// The kernel does not know it by this mount point any more.
    pub(crate) fn not_led_to(&self, point: Fid) {
        self.led_to_by.lock().retain(|known| *known != point);
    }

    /// The mount points by which the kernel may know it.
    pub(crate) fn points(&self) -> Vec<Fid> {
        self.led_to_by.lock().clone()
    }

    /// Does the kernel know it by two names, of which what is done by one does not show by the other?
    pub(crate) fn is_known_twice(&self) -> bool {
        let points = self.led_to_by.lock().len();
        points + usize::from(self.retained.load(Ordering::Acquire)) > 1
    }

    /// Something outside the table needs it.
    pub(crate) fn is_needed(&self) -> bool {
        self.retained.load(Ordering::Acquire)
            || self.opens.load(Ordering::Acquire) > 0
            || self.is_unstored()
            || !self.led_to_by.lock().is_empty()
    }
}

impl Known {
    fn stands(&self, stamp: Stamp, now: Instant) -> Option<Duration> {
        let promise = self.promise.as_ref().filter(|_| !self.doubted)?;
        promise.remaining(stamp, now)
    }

    fn rights_with(&self, proof: ProofId) -> Option<u32> {
        let at = self.rights.binary_search_by_key(&proof, |rights| rights.proof);
        at.ok()
            .and_then(|at| self.rights.get(at))
            .map(|rights| rights.access)
    }
}

/// Identities whose rights on one object are remembered.
const MAX_RIGHTS: usize = 4096;
