//! The file system: operations on FIDs. All semantics live here; what speaks FUSE only translates.
//!
//! The machine: an operation finds its vnode, sees whether the promise on it stands, and answers from memory if so.
//! Otherwise it asks a server through the one rotation loop, with the break counters noted before the call was sent,
//! and merges the reply. The `*_cached` methods never wait: `None` means that the asynchronous method is needed.

mod types;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rxrpc::events::Sink;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::types::Fid;

pub use types::{
    Attr, CacheConfig, Config, Entry, HandleId, Invalidation, Kind, ListEntry, Listing, Lookup, OpenFlags, Opened,
    SetAttr, StatFs,
};

/// An AFS file system. Clones share it.
#[derive(Clone)]
pub struct AfsFs(Arc<Core>);

struct Core {}

/// The file system did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint did not bind.
    #[error("{0}")]
    Bind(#[from] rxrpc::net::BindError),
    /// The cache cannot be used.
    #[error("cache: {0}")]
    Cache(#[source] std::io::Error),
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

#[expect(clippy::unimplemented, unused_variables, reason = "signatures first")]
impl AfsFs {
    /// Binds the endpoint, opens the cache and starts to serve callbacks. Needs a tokio runtime.
    pub async fn start(config: Config, sink: Arc<dyn Sink>) -> Result<Self, StartError> { unimplemented!() }
    /// The root: the directory of cells.
    pub fn root(&self) -> Fid { unimplemented!() }
    /// The queue of what the kernel must forget. Some for the first caller only.
    pub fn take_invalidations(&self) -> Option<mpsc::UnboundedReceiver<Invalidation>> { unimplemented!() }
    /// The kernel knows the object (a lookup reply was sent): its vnode is kept.
    pub fn retain(&self, fid: Fid) { unimplemented!() }
    /// The kernel forgot the object wholly.
    pub fn forget(&self, fid: Fid) { unimplemented!() }
    /// Stores dirty data, gives promises up, closes the endpoint. Bounded in time. Errors were logged.
    pub async fn shutdown(&self) { unimplemented!() }

    /// Looks a name up without waiting.
    pub fn lookup_cached(&self, dir: Fid, name: &[u8]) -> Option<Result<Lookup, Error>> { unimplemented!() }
    /// Looks a name up. `.` and `..` work but are the kernel's business.
    pub async fn lookup(&self, dir: Fid, name: &[u8]) -> Result<Lookup, Error> { unimplemented!() }
    /// Attributes and how long they stand, without waiting.
    pub fn getattr_cached(&self, fid: Fid) -> Option<Result<(Attr, Duration), Error>> { unimplemented!() }
    /// Attributes and how long they stand.
    pub async fn getattr(&self, fid: Fid) -> Result<(Attr, Duration), Error> { unimplemented!() }
    /// Changes attributes; gives the new ones.
    pub async fn setattr(&self, fid: Fid, set: SetAttr, handle: Option<HandleId>) -> Result<(Attr, Duration), Error> { unimplemented!() }
    /// May the (anonymous) identity of this mount do that?
    pub async fn access(&self, fid: Fid, access: Access) -> Result<(), Error> { unimplemented!() }
    /// The text of a symbolic link.
    pub async fn readlink(&self, fid: Fid) -> Result<Bytes, Error> { unimplemented!() }
    /// An extended attribute: `afs.cell`, `afs.fid`, `afs.volume`; others are `ENODATA`.
    pub async fn getxattr(&self, fid: Fid, name: &[u8]) -> Result<Bytes, Error> { unimplemented!() }
    /// Space of the volume that holds the object.
    pub async fn statfs(&self, fid: Fid) -> Result<StatFs, Error> { unimplemented!() }

    /// Opens without waiting.
    pub fn open_cached(&self, fid: Fid, flags: OpenFlags) -> Option<Result<Opened, Error>> { unimplemented!() }
    /// Opens a file: its status is valid afterwards.
    pub async fn open(&self, fid: Fid, flags: OpenFlags) -> Result<Opened, Error> { unimplemented!() }
    /// Makes a file and opens it. `EEXIST` if the name is taken.
    pub async fn create(&self, dir: Fid, name: &[u8], mode: u16, flags: OpenFlags) -> Result<(Entry, Opened), Error> { unimplemented!() }
    /// Reads without waiting. Shorter than asked only at the end of the file.
    pub fn read_cached(&self, handle: HandleId, offset: u64, len: u32) -> Option<Result<Bytes, Error>> { unimplemented!() }
    /// Reads. Shorter than asked only at the end of the file.
    pub async fn read(&self, handle: HandleId, offset: u64, len: u32) -> Result<Bytes, Error> { unimplemented!() }
    /// Writes without waiting; all of `data` is taken.
    pub fn write_cached(&self, handle: HandleId, offset: u64, data: &[u8]) -> Option<Result<(), Error>> { unimplemented!() }
    /// Writes; all of `data` is taken. Beyond the dirty limit data is stored first.
    pub async fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> Result<(), Error> { unimplemented!() }
    /// Is there nothing that `flush` would have to do?
    pub fn flush_cached(&self, handle: HandleId) -> Option<Result<(), Error>> { unimplemented!() }
    /// `close()`: stores what is dirty and reports the error.
    pub async fn flush(&self, handle: HandleId) -> Result<(), Error> { unimplemented!() }
    /// `fsync()`: as `flush`, and the server writes to its disk.
    pub async fn fsync(&self, handle: HandleId) -> Result<(), Error> { unimplemented!() }
    /// The handle is gone. Stores what is still dirty; a file unlinked while open is removed at its last release.
    pub async fn release(&self, handle: HandleId) { unimplemented!() }

    /// Makes a directory.
    pub async fn mkdir(&self, dir: Fid, name: &[u8], mode: u16) -> Result<Entry, Error> { unimplemented!() }
    /// Makes a symbolic link.
    pub async fn symlink(&self, dir: Fid, name: &[u8], target: &[u8]) -> Result<Entry, Error> { unimplemented!() }
    /// Makes a hard link, in the same directory only (`EXDEV` otherwise).
    pub async fn link(&self, fid: Fid, dir: Fid, name: &[u8]) -> Result<Entry, Error> { unimplemented!() }
    /// Removes a name that is not a directory.
    pub async fn unlink(&self, dir: Fid, name: &[u8]) -> Result<(), Error> { unimplemented!() }
    /// Removes an empty directory.
    pub async fn rmdir(&self, dir: Fid, name: &[u8]) -> Result<(), Error> { unimplemented!() }
    /// Renames within a volume; replaces the target. `no_replace` is refused with `EINVAL` unless it is known to be absent.
    pub async fn rename(&self, from_dir: Fid, from: &[u8], to_dir: Fid, to: &[u8]) -> Result<(), Error> { unimplemented!() }
    /// The entries of a directory, without waiting.
    pub fn readdir_cached(&self, dir: Fid) -> Option<Result<Arc<Listing>, Error>> { unimplemented!() }
    /// The entries of a directory; asks nothing about the entries themselves.
    pub async fn readdir(&self, dir: Fid) -> Result<Arc<Listing>, Error> { unimplemented!() }
    /// For readdirplus: fetches the status of up to about fifty entries behind `cookie` in one call, so that
    /// `lookup_cached` finds them. Failures of single entries show at their lookup.
    pub async fn prefetch_status(&self, dir: Fid, cookie: u64) -> Result<(), Error> { unimplemented!() }
}
