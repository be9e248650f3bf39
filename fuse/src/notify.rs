//! Tells the kernel what it must forget: one thread, fed by the file system's queue.
//!
//! A notification takes the kernel's lock of the inode or directory concerned, which a request on the same object may
//! hold until we have answered it; so it is never sent from a thread that answers requests. While it waits, other
//! invalidations wait behind it, at most as long as the deadline of requests.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use afs_client::fs::Invalidation;
use afs_client::types::Fid;
use bytes::Bytes;
use rustix::io::Errno;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::inode::{InodeTable, Names};
use crate::kernel::Kernel;
use crate::telemetry::metrics::{Forgotten, Metrics};

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
        let Some(id) = self.inodes.doubt(fid) else {
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
            .doubt_all()
            .into_iter()
            .try_for_each(|id| self.forget_inode(id))
    }

    fn doubt_names(&self, id: u64) -> Result<(), Gone> {
        self.names
            .take(id)
            .iter()
            .try_for_each(|name| self.doubt_entry(id, name))
    }

    /// An inode that was just given to the kernel may not be in its table yet: it is tried again for a moment.
    fn forget_inode(&self, id: u64) -> Result<(), Gone> {
        let mut result = self.kernel.forget_inode(id);
        for pause in PAUSES {
            if !is_absent(&result) || self.inodes.fid(id).is_none() {
                break;
            }
            std::thread::sleep(pause);
            result = self.kernel.forget_inode(id);
        }
        self.count(Forgotten::Inode, result)
    }

    fn doubt_entry(&self, directory: u64, name: &[u8]) -> Result<(), Gone> {
        self.count(Forgotten::Entry, self.kernel.doubt_entry(directory, name))
    }

    fn count(&self, what: Forgotten, result: io::Result<()>) -> Result<(), Gone> {
        let done = result.is_ok() || is_absent(&result);
        self.metrics.invalidated(what, done);
        match result {
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => Err(Gone),
            Err(error) if !done => {
                tracing::debug!(?what, %error, "the kernel refused a notification");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The kernel does not have it: nothing to forget.
fn is_absent(result: &io::Result<()>) -> bool {
    let absent = [Errno::NOENT, Errno::NOTDIR].map(Errno::raw_os_error);
    matches!(result, Err(error) if error.raw_os_error().is_some_and(|errno| absent.contains(&errno)))
}

#[derive(Debug)]
struct Gone;

/// How long the program that was woken by a reply may take to enter the inode into the kernel's table.
const PAUSES: [Duration; 3] = [
    Duration::from_micros(200),
    Duration::from_millis(1),
    Duration::from_millis(5),
];
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

    /// Knows an inode only at the third question.
    struct Slow(Mutex<u32>);

    impl Kernel for Arc<Slow> {
        fn forget_inode(&self, _: u64) -> io::Result<()> {
            let mut asked = self.0.lock();
            *asked += 1;
            if *asked < 3 {
                return Err(Errno::NOENT.into());
            }
            Ok(())
        }

        fn doubt_entry(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_inode_on_its_way_to_the_kernel_is_not_missed() {
        let slow = Arc::new(Slow(Mutex::new(0)));
        let inodes = Arc::new(InodeTable::new(fid(1)));
        inodes.retain(fid(3), || ());
        let notify = Notify::new(
            Arc::clone(&slow),
            Arc::clone(&inodes),
            Arc::default(),
            Arc::new(Metrics::new().unwrap()),
        );
        notify.apply(&[Invalidation::Node(fid(3))]).unwrap();
        assert_eq!(*slow.0.lock(), 3);
    }

    #[test]
    fn doubt_about_what_the_kernel_is_yet_to_learn_shows() {
        let inodes = InodeTable::new(fid(1));
        let before = inodes.doubts();
        assert_eq!(inodes.doubt(fid(3)), None);
        inodes.retain(fid(3), || ());
        assert_ne!(inodes.doubts(), before, "who retained it gives no lifetime");
        assert!(inodes.doubt(fid(3)).is_some());
    }
}
