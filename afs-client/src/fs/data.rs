//! File data: handles, reading through the cache, and writing into it.
//!
//! The machine: a read takes what is here, has the rest fetched in pieces ([`fetching`](super::fetching)) and waits for
//! those that it needs; whether it waited or not, more is fetched ahead of somebody who reads in sequence
//! ([`readahead`](super::readahead)). A write goes into the cache; `close` and `fsync` store ([`storing`](super::storing)).

use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;
use tracing::Instrument as _;

use super::core::Caller;
use super::fetching::For;
use super::readahead::{Reader, unit_of};
use super::types::{HandleId, Kind, OpenFlags, Opened};
use crate::auth::tokens::Identity;
use crate::clock;
use crate::error::Error;
use crate::events::{Cached, Flow};
use crate::server::Aim;
use crate::store::{Author, CacheFile, Loan};
use crate::trace::child;
use crate::vnode::Vnode;
use crate::vnode::status::{INSERT, Status, WRITE};

/// An open file.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(crate) vnode: Arc<Vnode>,
    flags: OpenFlags,
    /// Who opened it: all that is done through it is done with that one's rights, whoever the kernel says asks.
    pub(crate) who: Identity,
    /// How it is read.
    reader: Arc<Mutex<Reader>>,
    /// A lock that was taken through it is gone, and others may have had it since.
    pub(super) lost: Arc<AtomicBool>,
}

impl Handle {
    pub(super) fn new(vnode: Arc<Vnode>, flags: OpenFlags, who: Identity) -> Self {
        Self {
            vnode,
            flags,
            who,
            reader: Arc::default(),
            lost: Arc::default(),
        }
    }

    fn check_writing(&self) -> Result<(), Error> {
        if !self.flags.write {
            return Err(Errno::BADF.into());
        }
        self.check_locks()
    }

    fn check_locks(&self) -> Result<(), Error> {
        if self.lost.load(Ordering::Acquire) {
            return Err(Error::new(Errno::IO, "the server has lost the lock on this file"));
        }
        Ok(())
    }
}

impl Caller {
    pub(crate) fn handle(&self, id: HandleId) -> Result<Handle, Error> {
        self.handles
            .lock()
            .get(&id)
            .cloned()
            .ok_or_else(|| Errno::BADF.into())
    }

    /// Opens a vnode whose status is valid.
    pub(crate) fn open_valid(
        &self,
        vnode: &Arc<Vnode>,
        status: &Status,
        flags: OpenFlags,
    ) -> Result<Opened, Error> {
        match status.kind {
            Kind::File => {}
            Kind::Directory => return Err(Errno::ISDIR.into()),
            Kind::Symlink => return Err(Errno::LOOP.into()),
        }
        let has = |rights| status.access & rights != 0;
        if flags.write || flags.truncate {
            self.writable(vnode)?;
            // Who may insert may write what is their own: the server knows what is.
            if !has(WRITE | INSERT) {
                return Err(Errno::ACCESS.into());
            }
        }
        if flags.read && !status.is_readable_with(status.access) {
            return Err(Errno::ACCESS.into());
        }
        if flags.read && !flags.truncate {
            self.note_open(vnode, status);
        }
        let keep_cache = vnode.shown.lock().replace(status.version) == Some(status.version);
        vnode.opens.fetch_add(1, Ordering::AcqRel);
        let id = HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed));
        let handle = Handle::new(Arc::clone(vnode), flags, self.who);
        self.handles.lock().insert(id, handle);
        Ok(Opened {
            handle: id,
            keep_cache,
            version: Some(status.version),
        })
    }

    /// May anything in the volume be changed?
    pub(crate) fn writable(&self, vnode: &Vnode) -> Result<(), Error> {
        if self.read_only || vnode.volume.kind.is_read_only() {
            return Err(Errno::ROFS.into());
        }
        Ok(())
    }

    pub(crate) async fn open(&self, vnode: &Arc<Vnode>, flags: OpenFlags) -> Result<Opened, Error> {
        let (mut status, _) = self.status(vnode).await?;
        if vnode.is_left_behind(&status) {
            // Written before, and overtaken: who opens it now begins with what there is.
            let _ = self.store(vnode, false).await;
            (status, _) = self.status(vnode).await?;
        }
        status.may_open(flags)?;
        let opened = self.open_valid(vnode, &status, flags)?;
        if flags.truncate && vnode.data().len() > 0 {
            self.cut(vnode, 0).await?;
        }
        Ok(opened)
    }

    /// Fills `out` with what is here, if the status can be relied on.
    pub(crate) fn read_cached(
        &self,
        id: HandleId,
        offset: u64,
        len: u32,
        out: &mut Vec<u8>,
    ) -> Option<Result<(), Error>> {
        let handle = match self.handle(id) {
            Ok(handle) => handle,
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = handle.check_locks() {
            return Some(Err(error));
        }
        let opener = self.as_identity(handle.who);
        let vnode = &handle.vnode;
        let (status, _) = opener.valid(vnode)?;
        if !status.is_readable_with(status.access) {
            return None;
        }
        match vnode.data().read(offset..offset.saturating_add(len.into()), out) {
            Ok(true) => {
                self.counts.hits.count(Cached::Data);
                self.counts.flows.add(Flow::ServedHit, out.len() as u64);
                opener.read_ahead(&handle, &(offset..offset + out.len() as u64));
                Some(Ok(()))
            }
            Ok(false) => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Reads; fetches what is not here, and ahead of a sequential reader more than that.
    pub(crate) async fn read(&self, id: HandleId, offset: u64, len: u32) -> Result<Bytes, Error> {
        let handle = self.handle(id)?;
        handle.check_locks()?;
        let opener = self.as_identity(handle.who);
        let vnode = &handle.vnode;
        let range = offset..offset.saturating_add(len.into());
        let mut is_first = true;
        for _ in 0..ROUNDS {
            let (status, _) = opener.status(vnode).await?;
            if !status.is_readable_with(status.access) {
                return Err(Errno::ACCESS.into());
            }
            let mut out = Vec::new();
            if vnode.data().read(range.clone(), &mut out)? {
                return Ok(out.into());
            }
            if vnode.is_modified() && vnode.data().version() != Some(status.version) {
                // What is missing beside the changes cannot be had any more, or a store is about to end.
                self.store(vnode, false).await?;
                continue;
            }
            self.counts.misses.count(Cached::Data);
            let aim = self.aim(vnode);
            let (ahead, is_sequential) = {
                let mut reader = handle.reader.lock();
                let ahead = is_first.then(|| reader.note(&range, || aim)).flatten();
                (ahead, reader.is_sequential())
            };
            is_first = false;
            let unit = if is_sequential { aim.unit } else { unit_of(&range) };
            let begun = opener.begin_fetch(vnode, range.clone(), unit, &For::Waiting(self.until()));
            if let Some(ahead) = ahead {
                opener.begin_fetch(vnode, ahead, unit, &For::Reader(Arc::clone(&handle.reader)));
            }
            let fetched = self
                .fetched(vnode, &range, begun)
                .instrument(child!("cache.wait"))
                .await?;
            if !fetched && let Some(bytes) = opener.read_past(vnode, &range).await? {
                return Ok(bytes);
            }
        }
        // Somebody changes it all the time.
        Err(Errno::AGAIN.into())
    }

    /// Fetches ahead of somebody who has read what was here.
    fn read_ahead(&self, handle: &Handle, read: &Range<u64>) {
        let vnode = &handle.vnode;
        let (ahead, unit) = {
            let mut reader = handle.reader.lock();
            (reader.note(read, || self.aim(vnode)), reader.unit())
        };
        if let Some(ahead) = ahead {
            self.begin_fetch(vnode, ahead, unit, &For::Reader(Arc::clone(&handle.reader)));
        }
    }

    /// How much is fetched ahead: what the servers can make use of, but not so much that others lose what they have cached.
    fn aim(&self, vnode: &Vnode) -> Aim {
        let aim = vnode.volume.aim();
        let window = aim.window.min(self.cache.max_bytes() / CACHE_SHARE);
        Aim { window, ..aim }
    }

    /// Lends a whole file. Of one that may change here or elsewhere whoever has it open is to see that, so none is lent.
    pub(crate) fn lend(&self, opened: &Opened) -> Option<(Loan, OwnedFd)> {
        let handle = self.handle(opened.handle).ok()?;
        let vnode = &handle.vnode;
        if !vnode.volume.kind.is_read_only() || handle.flags.write || !handle.flags.read {
            return None;
        }
        let data = vnode.data();
        if data.len() < LENT_MIN {
            return None;
        }
        data.lend(opened.version?)
    }

    /// May the file be lent at all?
    pub(crate) fn is_constant(&self, id: HandleId) -> bool {
        self.handle(id)
            .is_ok_and(|handle| handle.vnode.volume.kind.is_read_only())
    }

    /// The kernel reads the file by itself: what it has kept of it from before is not looked at, nor renewed.
    pub(crate) fn is_lent(&self, id: HandleId) {
        if let Ok(handle) = self.handle(id) {
            *handle.vnode.shown.lock() = None;
        }
    }

    /// Writes into the cache without waiting, if there is room for it.
    pub(crate) fn write_cached(&self, id: HandleId, offset: u64, data: &[u8]) -> Option<Result<(), Error>> {
        let handle = match self.handle(id) {
            Ok(handle) => handle,
            Err(error) => return Some(Err(error)),
        };
        let end = offset.saturating_add(data.len() as u64);
        if let Err(error) = handle.check_writing().and_then(|()| check_length(end)) {
            return Some(Err(error));
        }
        if self.cache.is_too_dirty(data.len() as u64) {
            return None;
        }
        let vnode = &handle.vnode;
        if !vnode.is_modified() && vnode.stands(clock::now(), &self.all).is_none() {
            // What is written now is to be based on what the server has now.
            return None;
        }
        self.write_here(&handle, offset, data)
    }

    /// Changes the data of a file in the caller's name; `None` if somebody else's is in it that is not stored yet.
    pub(crate) fn change_data<T>(&self, vnode: &Vnode, change: impl FnOnce(&CacheFile) -> T) -> Option<T> {
        let author = || Author {
            who: self.who,
            principal: self.tokens.principal(self.who, &vnode.volume.cell.name),
            is_earlier: false,
        };
        vnode.write_as(self.who, author, change)
    }

    /// Writes into the cache; `None` if something else must be stored first.
    fn write_here(&self, handle: &Handle, offset: u64, data: &[u8]) -> Option<Result<(), Error>> {
        let append = handle.flags.append;
        let writer = self.as_identity(handle.who);
        let written = writer.change_data(&handle.vnode, |file| {
            let offset = if append { file.len() } else { offset };
            file.write(offset, data)
                .map(|()| file.dirty_around(offset + data.len() as u64))
        });
        match written? {
            Ok(dirty) => {
                if dirty >= EARLY {
                    writer.store_early(&handle.vnode);
                }
                Some(Ok(()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => None,
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Writes into the cache. If too much is dirty there, what is dirty of this file is stored first: others' data may wait for
    /// a server that does not answer.
    pub(crate) async fn write(&self, id: HandleId, offset: u64, data: &[u8]) -> Result<(), Error> {
        let handle = self.handle(id)?;
        handle.check_writing()?;
        check_length(offset.saturating_add(data.len() as u64))?;
        if !handle.vnode.is_modified() {
            // If that fails the store will tell.
            let _ = self.as_identity(handle.who).status(&handle.vnode).await;
        }
        let end = self.until();
        let is_full = || self.cache.is_too_dirty(data.len() as u64);
        for _ in 0..ROUNDS {
            if is_full() {
                self.store_patiently(&handle.vnode, false).await?;
                if is_full() {
                    self.begin_store_others(handle.vnode.fid);
                }
            }
            if let Some(written) = self.write_here(&handle, offset, data) {
                return written;
            }
            // Somebody else has written to it, or there is no room at all.
            self.store_patiently(&handle.vnode, false).await?;
            let others = self.store_others(handle.vnode.fid);
            if tokio::time::timeout_at(end.into(), others).await.is_err() {
                return Err(Error::new(
                    Errno::TIMEDOUT,
                    "no room in the cache: what is written in it waits for servers",
                ));
            }
        }
        Err(Errno::NOSPC.into())
    }

    /// The handle is gone; the last one takes a file with it that was removed meanwhile.
    pub(crate) async fn release(&self, id: HandleId) {
        let Some(handle) = self.handles.lock().remove(&id) else {
            return;
        };
        let vnode = handle.vnode;
        let unused = handle.reader.lock().leave(vnode.data().len());
        self.counts.flows.add(Flow::AheadUnused, unused);
        self.as_identity(handle.who).unlock_handle(id, &vnode).await;
        let doomed = if vnode.opens.fetch_sub(1, Ordering::AcqRel) == 1 {
            vnode.doomed.lock().take()
        } else {
            None
        };
        if let Some((dir, name)) = doomed {
            self.as_identity(handle.who)
                .remove_doomed(dir, &name, &vnode)
                .await;
        } else if handle.flags.write && vnode.is_unstored() {
            self.store_late(&vnode).await;
        }
    }
}

/// Can a file be so long? OpenAFS 1.8 that was asked for 2^63 - 1 bytes gave no answer any more.
pub(super) fn check_length(bytes: u64) -> Result<(), Error> {
    if bytes > LONGEST {
        return Err(Errno::FBIG.into());
    }
    Ok(())
}

/// So much that was written in one piece is not left for `close` to store.
const EARLY: u64 = 8 << 20;
/// Of a shorter file there is less to gain than lending it costs at each open.
const LENT_MIN: u64 = 1 << 20;
/// What a volume can hold: it counts KiB, in 31 bits.
const LONGEST: u64 = (i32::MAX as u64) << 10;
/// Of the cache, what is fetched ahead of one reader may have so much.
const CACHE_SHARE: u64 = 8;
/// A file that changes more often while it is being read is given up.
pub(super) const ROUNDS: usize = 8;
