//! The file system: operations on FIDs. All semantics live here; what speaks FUSE only translates.
//!
//! The machine: an operation finds its vnode, sees whether the promise on it stands, and answers from memory if so.
//! Otherwise it asks a server through the one rotation loop, with the break counters noted before the call was sent,
//! and merges the reply. The `*_cached` methods never wait: `None` means that the asynchronous method is needed.

mod adopt;
mod attr;
pub(crate) mod core;
pub(crate) mod counts;
mod crossing;
pub(crate) mod data;
mod edit;
mod fetching;
mod hedge;
mod inspect;
pub(crate) mod locking;
mod occasions;
mod readahead;
mod series;
mod state;
mod storing;
pub(crate) mod synthetic;
mod tasks;
mod types;
mod unwanted;
mod walk;
mod xattr;

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;
use rxrpc::events::Sink;
use rxrpc::net::Endpoint;
use rxrpc::proto::ServiceId;
use tokio::sync::mpsc;

use self::core::{Caller, Core};
use crate::auth::keeper::Keeper;
use crate::auth::source::Source;
use crate::auth::tokens::Tokens;
use crate::auth::{Holding, Identity, Renewals, Token};
use crate::callback::CallbackService;
use crate::cell::CellName;
use crate::clock;
use crate::error::Error;
use crate::events::{Broken, Cached, Tally};
use crate::hidden::Hidden;
use crate::lock::{LockAsked, LockOwner, LockScope, Span};
use crate::rpc::serve::{Callbacks, RequestCounts};
use crate::rpc::types::AfsUuid;
use crate::server::Servers;
use crate::store::DataCache;
use crate::types::{DataVersion, Fid};
use crate::vnode::Vnodes;
use crate::volume::Volumes;

pub use crate::store::{Aside, CacheError, CacheKey, CacheKeyError, Encryption, Loan, fuzz_records, reveal};
pub use inspect::{Inspection, Known};
pub use state::{
    CacheState, CountState, DirectoriesState, KeptState, LeftAloneState, PromiseState, ServerState, State,
    UnstoredState, VolumeState, Waiting,
};
pub use types::{
    Attr, CacheConfig, Config, Entry, Fakestat, HandleId, Invalidation, Kind, ListEntry, Listing, Lookup,
    OpenFlags, Opened, SetAttr, StatFs,
};

/// An AFS file system, as one identity sees it. Clones share it.
#[derive(Clone)]
pub struct AfsFs(Caller);

/// The file system did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint did not bind.
    #[error("{0}")]
    Bind(#[from] rxrpc::net::BindError),
    /// The cache cannot be used.
    #[error("cache: {0}")]
    Cache(#[from] CacheError),
    /// There is no randomness to be had.
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// `access(2)` modes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Read data or list.
    pub read: bool,
    /// Write data or change entries.
    pub write: bool,
    /// Run or search.
    pub execute: bool,
}

impl AfsFs {
    /// Binds the endpoint, opens the cache and starts to serve callbacks. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The port is taken, or the cache cannot be used.
    pub async fn start(config: Config, sink: Arc<dyn Sink>) -> Result<Self, StartError> {
        let cache = match &config.cache {
            CacheConfig::Dir {
                path,
                max_bytes,
                encryption,
            } => DataCache::in_dir(path, *max_bytes, encryption)?,
            CacheConfig::Memory { max_bytes } => DataCache::in_memory(*max_bytes),
        };
        let hidden = Hidden::beside(&cache, config.notes.as_deref());
        let mut random = [0; 20];
        getrandom::fill(&mut random).map_err(StartError::Random)?;
        let [a, b, c, d, uuid @ ..] = random;
        let endpoint = Endpoint::bind(config.endpoint, sink).await?;
        let servers = Arc::new(Servers::new(u32::from_be_bytes([a, b, c, d])));
        let (invalidations, queue) = mpsc::unbounded_channel();
        let core = Arc::new(Core {
            volumes: Volumes::new(endpoint.clone(), Arc::clone(&servers)),
            cells: config.cells,
            endpoint: endpoint.clone(),
            runtime: tokio::runtime::Handle::current(),
            storing_all: AtomicBool::new(false),
            servers,
            vnodes: Vnodes::new(config.max_vnodes),
            cache,
            store_behind: config.store_behind,
            read_only: config.read_only,
            deadline: config.deadline,
            uuid: AfsUuid::random(uuid),
            handles: Mutex::new(HashMap::new()),
            next_handle: AtomicU64::new(1),
            invalidations,
            queue: Mutex::new(Some(queue)),
            all: crate::vnode::promise::Breaks::default(),
            unknown: crate::vnode::promise::Breaks::default(),
            broken: Tally::default(),
            started: clock::now(),
            tokens: Tokens::new(config.tokens),
            tasks: Mutex::default(),
            counts: counts::Counts::default(),
            requests: Arc::default(),
            locks: locking::Locks::new(config.locks),
            sysnames: config.sysnames,
            fakestat: config.fakestat,
            cell_roots: Mutex::default(),
            hidden,
            history: crate::history::History::default(),
            series: Mutex::new(lru::LruCache::new(SERIES)),
            unwanted: unwanted::Unwanted::default(),
            released: tokio::sync::Notify::new(),
        });
        let callbacks = CallbackService(Arc::downgrade(&core));
        endpoint.serve(
            ServiceId(CALLBACK_SERVICE),
            Arc::new(Callbacks {
                server: Arc::new(callbacks),
                counts: Arc::clone(&core.requests),
            }),
        );
        let left = core.cache.take_left();
        core.tasks.lock().extend(tasks::start(&core, left));
        Ok(Self(Caller::nobody(&core)))
    }

    /// The same file system, as somebody else sees it.
    #[must_use]
    pub fn as_identity(&self, who: Identity) -> Self {
        Self(self.0.as_identity(who))
    }

    /// Makes calls of this identity to a cell with a token from now on, and with those that come after it from its source,
    /// if it has one. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// `EKEYREJECTED`: the servers of AFS have no use for a key of its kind. `ENOSPC`: the identity has too many.
    pub fn set_token(&self, token: Token, source: Option<Source>) -> Result<(), Error> {
        let keeper = Keeper::start(&self.0, &token, source);
        if self.0.tokens.set(self.0.who, token, Some(keeper))? {
            self.0.rights_changed();
        }
        Ok(())
    }

    /// Forgets the token for a cell, or all tokens of this identity.
    pub fn forget_tokens(&self, cell: Option<&CellName>) {
        self.0.tokens.forget(self.0.who, cell);
        self.0.rights_changed();
    }

    /// The tokens of all identities.
    #[must_use]
    pub fn tokens(&self) -> Vec<Holding> {
        self.0.tokens.list()
    }

    /// Has somebody told which tokens there are: now, and after each change, before who made it goes on. It must not block,
    /// nor change them itself.
    pub fn witness_tokens(&self, witness: impl Fn(&[Holding]) + Send + Sync + 'static) {
        self.0.tokens.witness(Box::new(witness));
    }

    /// How often tokens were renewed, by cell.
    #[must_use]
    pub fn renewals(&self) -> Vec<(CellName, Renewals)> {
        self.0.tokens.renewals()
    }

    /// Has this identity a file open, or written something that is not stored yet?
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let who = self.0.who;
        let opened = self.0.handles.lock().values().any(|handle| handle.who == who);
        opened || self.0.vnodes.all().iter().any(|vnode| vnode.is_unstored_of(who))
    }

    /// Where the endpoint is bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddrV4 {
        self.0.endpoint.local_addr()
    }

    /// The connections that there are now.
    #[must_use]
    pub fn census(&self) -> Vec<rxrpc::net::Counted> {
        self.0.endpoint.census()
    }

    /// How many questions the caches have answered, and how many a server had to be asked for.
    #[must_use]
    pub fn cache_counts(&self) -> [&Tally<Cached>; 2] {
        [&self.0.counts.hits, &self.0.counts.misses]
    }

    /// What became of the breaks received.
    #[must_use]
    pub fn breaks(&self) -> &Tally<Broken> {
        &self.0.broken
    }

    /// What servers and tools have asked of us.
    #[must_use]
    pub fn requests(&self) -> &RequestCounts {
        &self.0.requests
    }

    /// Breaks received, one for each file named.
    #[must_use]
    pub fn breaks_received(&self) -> u64 {
        self.0.counts.breaks()
    }

    /// The root: the directory of cells.
    #[must_use]
    pub fn root(&self) -> Fid {
        synthetic::ROOT
    }

    /// The queue of what the kernel must forget. Some for the first caller only.
    #[must_use]
    pub fn take_invalidations(&self) -> Option<mpsc::UnboundedReceiver<Invalidation>> {
        self.0.queue.lock().take()
    }

    /// The kernel knows the object (a lookup reply was sent): its vnode is kept.
    pub fn retain(&self, fid: Fid) {
        if let Some(vnode) = self.0.vnodes.get(fid) {
            vnode.retained.store(true, Ordering::Release);
        }
    }

    /// The kernel forgot the object wholly.
    pub fn forget(&self, fid: Fid) {
        self.0.forget_point(fid);
        self.0.dropped(self.0.vnodes.forgot(fid));
    }

    /// Removes what an earlier program has removed while it was open, and did not live to see closed. To be called when all
    /// files are known that are open still. It goes on for as long as it takes.
    pub fn remove_hidden(&self) {
        let left = self.0.hidden.all();
        if !left.is_empty() {
            let removal = tasks::remove_hidden(Caller::nobody(&self.0.core), left);
            let task = self.0.runtime.spawn(removal).abort_handle();
            self.0.tasks.lock().push(task);
        }
    }

    /// Finds the home cell and its root volume: what a mount needs at the least.
    ///
    /// # Errors
    ///
    /// The cell is unknown, or nobody answers.
    pub async fn check_home(&self) -> Result<(), Error> {
        match self.0.enter_home().await {
            // Nobody in particular may not ask the file server. That the volume was found must do.
            Err(error) if error.errno() == Errno::NOKEY.raw_os_error() => Ok(()),
            result => result,
        }
    }

    /// Stores what is dirty. Bounded in time. Errors were logged.
    pub async fn store_all(&self) {
        let core = &self.0;
        let all = async {
            for vnode in core.vnodes.all() {
                if vnode.is_unstored()
                    && vnode.doomed.lock().is_none()
                    && let Err(error) = core.store(&vnode, false).await
                {
                    tracing::error!(fid = %vnode.fid, %error, "data could not be stored");
                }
            }
        };
        if tokio::time::timeout(core.deadline, all).await.is_err() {
            tracing::error!("data could not be stored in time");
        }
    }

    /// Stores dirty data, gives promises up, closes the endpoint. Bounded in time. Errors were logged.
    pub async fn shutdown(&self) {
        let core = &self.0;
        for task in core.tasks.lock().drain(..) {
            task.abort();
        }
        self.store_all().await;
        core.release_locks().await;
        core.give_up_promises().await;
        core.endpoint.shutdown().await;
        for vnode in core.vnodes.all() {
            vnode.keep_contents();
        }
        let cache = core.cache.clone();
        // Bounded by what the disk takes to write the index.
        let _ = tokio::task::spawn_blocking(move || cache.close()).await;
    }

    /// Looks a name up without waiting.
    pub fn lookup_cached(&self, dir: Fid, name: &[u8]) -> Option<Result<Lookup, Error>> {
        self.0.lookup_cached(self.0.crossed_cached(dir)?, name)
    }

    /// Looks a name up.
    ///
    /// # Errors
    ///
    /// Those of the server and of the way there; so for all that follow.
    pub async fn lookup(&self, dir: Fid, name: &[u8]) -> Result<Lookup, Error> {
        self.0.lookup(self.0.crossed(dir).await?, name).await
    }

    /// May a disk have to be waited for where nothing else is? Not if the cache is in memory.
    pub fn waits_for_disk(&self) -> bool {
        !self.0.cache.is_memory()
    }

    /// Attributes and how long they stand, without waiting.
    pub fn getattr_cached(&self, fid: Fid) -> Option<Result<(Attr, Duration), Error>> {
        self.0.getattr_cached(fid)
    }

    /// Attributes and how long they stand.
    pub async fn getattr(&self, fid: Fid) -> Result<(Attr, Duration), Error> {
        self.0.getattr(fid).await
    }

    /// Changes attributes; gives the new ones.
    pub async fn setattr(&self, fid: Fid, set: SetAttr) -> Result<(Attr, Duration), Error> {
        self.0.setattr(self.0.crossed(fid).await?, set).await
    }

    /// May this identity do that?
    pub async fn access(&self, fid: Fid, access: Access) -> Result<(), Error> {
        self.0.access(self.0.crossed(fid).await?, access).await
    }

    /// The text of a symbolic link.
    pub async fn readlink(&self, fid: Fid) -> Result<Bytes, Error> {
        self.0.readlink(fid).await
    }

    /// An extended attribute: `afs.acl` (as on the wire), `afs.cell`, `afs.fid` (volume, vnode and uniquifier in
    /// hexadecimal), `afs.volume`; others are `ENODATA`.
    pub async fn getxattr(&self, fid: Fid, name: &[u8]) -> Result<Bytes, Error> {
        self.0.xattr(self.0.crossed(fid).await?, name).await
    }

    /// Sets an extended attribute: `afs.acl` of a directory. `EPERM` for the others of ours, `EOPNOTSUPP` for all else.
    pub async fn setxattr(&self, fid: Fid, name: &[u8], value: &[u8]) -> Result<(), Error> {
        self.0.set_xattr(self.0.crossed(fid).await?, name, value).await
    }

    /// Space of the volume that holds the object.
    pub async fn statfs(&self, fid: Fid) -> Result<StatFs, Error> {
        self.0.statfs(self.0.crossed(fid).await?).await
    }

    /// Opens without waiting.
    pub fn open_cached(&self, fid: Fid, flags: OpenFlags) -> Option<Result<Opened, Error>> {
        if flags.truncate {
            return None;
        }
        let vnode = self.0.vnodes.get(fid)?;
        let (status, _) = self.0.valid(&vnode)?;
        if vnode.is_left_behind(&status) {
            return None;
        }
        let may = status.may_open(flags);
        Some(may.and_then(|()| self.0.open_valid(&vnode, &status, flags)))
    }

    /// Opens a file: its status is valid afterwards.
    pub async fn open(&self, fid: Fid, flags: OpenFlags) -> Result<Opened, Error> {
        if synthetic::is_synthetic(fid) {
            return Err(Errno::ISDIR.into());
        }
        self.0.open(&self.0.vnode(fid)?, flags).await
    }

    /// Makes a file and opens it. `EEXIST` if the name is taken.
    pub async fn create(
        &self,
        dir: Fid,
        name: &[u8],
        mode: u16,
        flags: OpenFlags,
    ) -> Result<(Entry, Opened), Error> {
        let dir = self.0.crossed(dir).await?;
        self.0.create(dir, name, mode, flags).await
    }

    /// Reads without waiting into `into`, whatever that held. Shorter than asked only at the end of the file.
    pub fn read_cached(
        &self,
        handle: HandleId,
        offset: u64,
        len: u32,
        into: &mut Vec<u8>,
    ) -> Option<Result<(), Error>> {
        self.0.read_cached(handle, offset, len, into)
    }

    /// Reads. Shorter than asked only at the end of the file.
    pub async fn read(&self, handle: HandleId, offset: u64, len: u32) -> Result<Bytes, Error> {
        self.0.read(handle, offset, len).await
    }

    /// Writes without waiting; all of `data` is taken.
    pub fn write_cached(&self, handle: HandleId, offset: u64, data: &[u8]) -> Option<Result<(), Error>> {
        self.0.write_cached(handle, offset, data)
    }

    /// Writes; all of `data` is taken. Beyond the dirty limit data is stored first.
    pub async fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.0.write(handle, offset, data).await
    }

    /// Lends the cached contents of an open file to the kernel, which then reads them without asking: if all of it is in the
    /// cache directory and is what `open` has shown, in a volume in which nothing changes but by a release. The kernel has a
    /// way of its own to the file once it was given it.
    #[must_use]
    pub fn lend(&self, opened: &Opened) -> Option<(Loan, OwnedFd)> {
        self.0.lend(opened)
    }

    /// Is an open file in a volume in which nothing changes but by a release?
    #[must_use]
    pub fn is_constant(&self, handle: HandleId) -> bool {
        self.0.is_constant(handle)
    }

    /// The kernel reads an open file by itself: pages that it has kept from an earlier opening are not renewed.
    pub fn is_lent(&self, handle: HandleId) {
        self.0.is_lent(handle);
    }

    /// Is there nothing that `flush` would have to do?
    pub fn flush_cached(&self, handle: HandleId) -> Option<Result<(), Error>> {
        match self.0.handle(handle) {
            Ok(handle) => {
                let vnode = &handle.vnode;
                let nothing = !vnode.is_unstored() || self.0.stores_behind(vnode);
                (nothing && !vnode.owes()).then_some(Ok(()))
            }
            Err(error) => Some(Err(error)),
        }
    }

    /// `close()`: stores what is dirty and reports the error, unless that is to happen behind.
    pub async fn flush(&self, handle: HandleId) -> Result<(), Error> {
        let vnode = self.0.handle(handle)?.vnode;
        if vnode.doomed.lock().is_some() {
            return Ok(());
        }
        self.0.store_and_tell(&vnode, false).await
    }

    /// `fsync()`: as `flush`, and the server writes to its disk.
    pub async fn fsync(&self, handle: HandleId) -> Result<(), Error> {
        let vnode = self.0.handle(handle)?.vnode;
        self.0.store_and_tell(&vnode, true).await
    }

    /// `fallocate()`: the file has at least `end` bytes, those that are new are zeros, and the server counts them against the
    /// quota. If it refuses them (`EDQUOT`, `ENOSPC`), nothing has changed.
    pub async fn allocate(&self, handle: HandleId, end: u64) -> Result<(), Error> {
        self.0.allocate(handle, end).await
    }

    /// The handle is gone. Stores what is still dirty; a file unlinked while open is removed at its last release.
    pub async fn release(&self, handle: HandleId) {
        self.0.release(handle).await;
    }

    /// Makes a directory.
    pub async fn mkdir(&self, dir: Fid, name: &[u8], mode: u16) -> Result<Entry, Error> {
        self.0.mkdir(self.0.crossed(dir).await?, name, mode).await
    }

    /// Takes a lock on an open file, or says that it cannot be had now.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: somebody else holds it, on this machine or elsewhere. What the owner had there may be gone then.
    pub async fn lock(&self, handle: HandleId, asked: LockAsked) -> Result<(), Error> {
        self.0.lock(handle, asked).await
    }

    /// Gives back what an owner has there.
    pub async fn unlock(&self, handle: HandleId, owner: LockOwner, span: Span) -> Result<(), Error> {
        self.0.unlock(handle, owner, span).await
    }

    /// Does an owner hold a lock on an open file?
    #[must_use]
    pub fn has_locks(&self, handle: HandleId, owner: LockOwner) -> bool {
        self.0.has_locks(handle, owner)
    }

    /// A lock of somebody else that excludes what is asked for. One of another machine has no owner and no process.
    pub async fn lock_conflict(
        &self,
        handle: HandleId,
        asked: LockAsked,
    ) -> Result<Option<LockAsked>, Error> {
        self.0.lock_conflict(handle, asked).await
    }

    /// Returns when the locks on a file may have changed, after a second at the latest. Cancel safe.
    pub async fn locks_changed(&self, handle: HandleId) {
        self.0.locks_changed(handle).await;
    }

    /// Which locks servers hear of.
    #[must_use]
    pub fn lock_scope(&self) -> LockScope {
        self.0.locks.scope
    }

    /// Locks that programs of this machine hold, and how many servers have lost.
    #[must_use]
    pub fn lock_counts(&self) -> (usize, u64) {
        (self.0.locks.held(), self.0.locks.lost.load(Ordering::Relaxed))
    }

    /// Makes a symbolic link.
    pub async fn symlink(&self, dir: Fid, name: &[u8], target: &[u8]) -> Result<Entry, Error> {
        self.0.symlink(self.0.crossed(dir).await?, name, target).await
    }

    /// Makes a hard link, in the same directory only (`EXDEV` otherwise).
    pub async fn link(&self, fid: Fid, dir: Fid, name: &[u8]) -> Result<Entry, Error> {
        self.0.link(fid, self.0.crossed(dir).await?, name).await
    }

    /// Removes a name that is not a directory.
    pub async fn unlink(&self, dir: Fid, name: &[u8]) -> Result<(), Error> {
        self.0.unlink(self.0.crossed(dir).await?, name).await
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, dir: Fid, name: &[u8]) -> Result<(), Error> {
        self.0.rmdir(self.0.crossed(dir).await?, name).await
    }

    /// Renames within a volume; replaces the target.
    pub async fn rename(&self, from_dir: Fid, from: &[u8], to_dir: Fid, to: &[u8]) -> Result<(), Error> {
        let (from_dir, to_dir) = (self.0.crossed(from_dir).await?, self.0.crossed(to_dir).await?);
        self.0.rename(from_dir, from, to_dir, to).await
    }

    /// Renames a file within its directory if nothing has the new name (`EEXIST`). `EINVAL`: that cannot be done there
    /// without a race.
    pub async fn rename_new(&self, from_dir: Fid, from: &[u8], to_dir: Fid, to: &[u8]) -> Result<(), Error> {
        let (from_dir, to_dir) = (self.0.crossed(from_dir).await?, self.0.crossed(to_dir).await?);
        self.0.rename_new(from_dir, from, to_dir, to).await
    }

    /// The version of a directory that may be listed, without waiting: while it is the same, so are the entries.
    pub fn opendir_cached(&self, dir: Fid) -> Option<Result<DataVersion, Error>> {
        self.0.opendir_cached(self.0.crossed_cached(dir)?)
    }

    /// The version of a directory that may be listed.
    pub async fn opendir(&self, dir: Fid) -> Result<DataVersion, Error> {
        self.0.opendir(self.0.crossed(dir).await?).await
    }

    /// The entries of a directory, without waiting.
    pub fn readdir_cached(&self, dir: Fid) -> Option<Result<Arc<Listing>, Error>> {
        self.0.listing_cached(self.0.crossed_cached(dir)?)
    }

    /// The entries of a directory; asks nothing about the entries themselves.
    pub async fn readdir(&self, dir: Fid) -> Result<Arc<Listing>, Error> {
        self.0.listing(self.0.crossed(dir).await?).await
    }

    /// For readdirplus: fetches the status of up to fifty entries behind `cookie` in one call, so that `lookup_cached`
    /// finds them. Failures of single entries show at their lookup.
    pub async fn prefetch_status(&self, dir: Fid, cookie: u64) -> Result<(), Error> {
        self.0.prefetch(self.0.crossed(dir).await?, cookie).await
    }
}

/// Directories of which it is noted how their files are opened.
const SERIES: NonZeroUsize = NonZeroUsize::new(32).unwrap();
const CALLBACK_SERVICE: u16 = 1;
