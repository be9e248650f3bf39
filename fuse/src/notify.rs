//! Tells the kernel what it must forget: one thread, fed by the file system's queue.
//!
//! A notification takes the kernel's lock of the inode or directory concerned, which a request on the same object may
//! hold until we have answered it; so it is never sent from a thread that answers requests. While it waits, other
//! invalidations wait behind it, at most as long as the deadline of requests.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use afs_client::fs::Invalidation;
use afs_client::types::Fid;
use bytes::Bytes;
use fuser::{INodeNo, Notifier};
use rustix::io::Errno;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::inode::{InodeTable, Names};
use crate::telemetry::metrics::{Forgotten, Metrics};

/// What the kernel can be told.
pub trait Kernel: Send + 'static {
    /// Forget attributes and cached contents.
    fn forget_inode(&self, id: u64) -> io::Result<()>;
    /// Ask again before using the name.
    fn doubt_entry(&self, directory: u64, name: &[u8]) -> io::Result<()>;
}

/// The kernel behind a session.
pub struct Device {
    notifier: Notifier,
    /// A duplicate of the session's descriptor, for what [`Notifier`] cannot say. `None` on kernels before 6.2.
    expire: Option<OwnedFd>,
}

impl Device {
    /// With `expire` names are marked as doubtful and keep their place in the kernel's tree; without it they are
    /// dropped from it, which a process whose working directory is dropped would notice in `getcwd`.
    pub fn new(notifier: Notifier, expire: Option<OwnedFd>) -> Self {
        Self { notifier, expire }
    }
}

impl Kernel for Device {
    fn forget_inode(&self, id: u64) -> io::Result<()> {
        self.notifier.inval_inode(INodeNo(id), 0, 0)
    }

    fn doubt_entry(&self, directory: u64, name: &[u8]) -> io::Result<()> {
        let Some(device) = &self.expire else {
            return self
                .notifier
                .inval_entry(INodeNo(directory), OsStr::from_bytes(name));
        };
        let head = expire_entry(directory, name)?;
        match rustix::io::writev(
            device,
            &[IoSlice::new(&head), IoSlice::new(name), IoSlice::new(b"\0")],
        ) {
            // The kernel does not have the name: as good as done.
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Applies invalidations until the queue ends or the mount is gone.
pub struct Notify<K> {
    kernel: K,
    inodes: Arc<InodeTable>,
    names: Arc<Names>,
    metrics: Arc<Metrics>,
}

impl<K: Kernel> Notify<K> {
    /// Everything the thread needs.
    pub fn new(kernel: K, inodes: Arc<InodeTable>, names: Arc<Names>, metrics: Arc<Metrics>) -> Self {
        Self {
            kernel,
            inodes,
            names,
            metrics,
        }
    }

    /// Starts the thread.
    pub fn spawn(self, queue: UnboundedReceiver<Invalidation>) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("afs-notify".to_owned())
            .spawn(move || self.run(queue))
    }

    fn run(&self, mut queue: UnboundedReceiver<Invalidation>) {
        let mut batch = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let taken = Instant::now();
            batch.push(first);
            while batch.len() < MAX_BATCH
                && let Ok(next) = queue.try_recv()
            {
                batch.push(next);
            }
            if batch.len() == MAX_BATCH {
                tracing::warn!(
                    queued = batch.len(),
                    "too many invalidations: the kernel is told to forget all"
                );
                while queue.try_recv().is_ok() {}
                batch.clear();
                batch.push(Invalidation::All);
            }
            let Ok(()) = self.apply(&batch) else {
                tracing::debug!("the mount is gone");
                return;
            };
            batch.clear();
            self.metrics.invalidation_applied(taken.elapsed());
        }
    }

    /// Applies a batch. An error means that the mount is gone.
    fn apply(&self, batch: &[Invalidation]) -> Result<(), Gone> {
        if batch.iter().any(|one| matches!(one, Invalidation::All)) {
            return self.forget_all();
        }
        let mut nodes: HashSet<(Fid, bool)> = HashSet::new();
        let mut entries: HashSet<(Fid, &Bytes)> = HashSet::new();
        for one in batch {
            match one {
                Invalidation::Node(fid) => {
                    if nodes.insert((*fid, true)) {
                        self.forget_node(*fid, true)?;
                    }
                }
                Invalidation::Data(fid) => {
                    if !nodes.contains(&(*fid, true)) && nodes.insert((*fid, false)) {
                        self.forget_node(*fid, false)?;
                    }
                }
                Invalidation::Entry { dir, name } => {
                    if entries.insert((*dir, name))
                        && let Some(id) = self.inodes.known(*dir)
                    {
                        self.names.take_one(id, name);
                        self.doubt_entry(id, name)?;
                    }
                }
                Invalidation::All => {}
            }
        }
        Ok(())
    }

    fn forget_node(&self, fid: Fid, with_names: bool) -> Result<(), Gone> {
        let Some(id) = self.inodes.known(fid) else {
            return Ok(());
        };
        self.forget_inode(id)?;
        if with_names {
            self.doubt_names(id)?;
        }
        Ok(())
    }

    fn forget_all(&self) -> Result<(), Gone> {
        for id in self.names.directories() {
            self.doubt_names(id)?;
        }
        self.forget_inode(crate::inode::ROOT)?;
        self.inodes
            .ids()
            .into_iter()
            .try_for_each(|id| self.forget_inode(id))
    }

    fn doubt_names(&self, id: u64) -> Result<(), Gone> {
        self.names
            .take(id)
            .iter()
            .try_for_each(|name| self.doubt_entry(id, name))
    }

    fn forget_inode(&self, id: u64) -> Result<(), Gone> {
        self.count(Forgotten::Inode, self.kernel.forget_inode(id))
    }

    fn doubt_entry(&self, directory: u64, name: &[u8]) -> Result<(), Gone> {
        self.count(Forgotten::Entry, self.kernel.doubt_entry(directory, name))
    }

    fn count(&self, what: Forgotten, result: io::Result<()>) -> Result<(), Gone> {
        self.metrics.invalidated(what, result.is_ok());
        match result {
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Err(Gone),
            Err(error) => {
                tracing::debug!(?what, %error, "the kernel refused a notification");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}

#[derive(Debug)]
struct Gone;

/// The header and body of FUSE_NOTIFY_INVAL_ENTRY with FUSE_EXPIRE_ONLY; the name and a zero byte follow.
#[expect(clippy::host_endian_bytes, reason = "the kernel on this machine reads it")]
fn expire_entry(directory: u64, name: &[u8]) -> io::Result<[u8; 32]> {
    let too_long = |_| io::Error::from(Errno::NAMETOOLONG);
    let name_len = u32::try_from(name.len()).map_err(too_long)?;
    let whole = u32::try_from(name.len() + 33).map_err(too_long)?;
    let mut message = Vec::with_capacity(32);
    message.extend_from_slice(&whole.to_ne_bytes());
    message.extend_from_slice(&NOTIFY_INVAL_ENTRY.to_ne_bytes());
    message.extend_from_slice(&0_u64.to_ne_bytes());
    message.extend_from_slice(&directory.to_ne_bytes());
    message.extend_from_slice(&name_len.to_ne_bytes());
    message.extend_from_slice(&EXPIRE_ONLY.to_ne_bytes());
    message.try_into().map_err(|_| io::Error::from(Errno::INVAL))
}

const NOTIFY_INVAL_ENTRY: i32 = 3;
const EXPIRE_ONLY: u32 = 1;
/// More than this at once is answered by forgetting everything.
const MAX_BATCH: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use afs_client::types::{CellId, Uniquifier, VnodeId, VolumeId};
    use parking_lot::Mutex;

    use super::*;

    #[derive(Default)]
    struct Log {
        lines: Mutex<Vec<String>>,
    }

    impl Kernel for Arc<Log> {
        fn forget_inode(&self, id: u64) -> io::Result<()> {
            self.lines.lock().push(format!("inode {id}"));
            Ok(())
        }

        fn doubt_entry(&self, directory: u64, name: &[u8]) -> io::Result<()> {
            self.lines
                .lock()
                .push(format!("entry {directory} {}", String::from_utf8_lossy(name)));
            Ok(())
        }
    }

    fn fid(vnode: u32) -> Fid {
        Fid {
            cell: CellId(1),
            volume: VolumeId(2),
            vnode: VnodeId(vnode),
            unique: Uniquifier(1),
        }
    }

    fn told(batch: &[Invalidation], prepare: impl FnOnce(&InodeTable, &Names)) -> Vec<String> {
        let log = Arc::new(Log::default());
        let (inodes, names) = (Arc::new(InodeTable::new(fid(1))), Arc::new(Names::default()));
        prepare(&inodes, &names);
        let notify = Notify::new(Arc::clone(&log), inodes, names, Arc::new(Metrics::new().unwrap()));
        notify.apply(batch).unwrap();
        let mut lines = std::mem::take(&mut *log.lines.lock());
        lines.sort();
        lines
    }

    #[test]
    fn a_broken_directory_takes_its_names_along() {
        let lines = told(
            &[Invalidation::Node(fid(1)), Invalidation::Node(fid(1))],
            |_, names| {
                names.remember(1, b"a");
                names.remember(1, b"b");
            },
        );
        assert_eq!(lines, ["entry 1 a", "entry 1 b", "inode 1"]);
    }

    #[test]
    fn data_leaves_the_names() {
        let lines = told(&[Invalidation::Data(fid(1))], |_, names| {
            names.remember(1, b"a");
        });
        assert_eq!(lines, ["inode 1"]);
    }

    #[test]
    fn what_the_kernel_does_not_know_is_not_told() {
        let name = Bytes::from_static(b"a");
        let batch = [
            Invalidation::Node(fid(3)),
            Invalidation::Entry { dir: fid(3), name },
        ];
        assert!(told(&batch, |_, _| ()).is_empty());
    }

    #[test]
    fn all_is_all() {
        let lines = told(
            &[Invalidation::Node(fid(3)), Invalidation::All],
            |inodes, names| {
                inodes.retain(fid(3), || ());
                names.remember(1, b"x");
            },
        );
        assert_eq!(lines.len(), 3, "{lines:?}");
    }

    #[test]
    fn the_message_is_as_the_kernel_reads_it() {
        let head = expire_entry(0x0102_0304_0506_0708, b"abc").unwrap();
        assert_eq!(head[0], 36, "32 + name + zero byte");
        assert_eq!(head[24], 3);
        assert_eq!(head[28], 1);
    }
}
