//! What requests have in common, and the tasks of those that wait.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use afs_client::error::Error;
use afs_client::fs::{AfsFs, Attr};
use afs_client::types::Fid;
use fuser::{Errno, FileAttr};
use tokio::runtime::Handle;
use tracing::Instrument;

use super::begun;
use super::convert;
use super::directory::Streams;
use super::interrupt;
use super::passthrough::Passthrough;
use super::reply::{Answer, Asked, errno_of};
use crate::identity::Identities;
use crate::inode::{InodeTable, Names, ROOT};
use crate::kept::{Image, Kept, Log};
use crate::owners::Owners;
use crate::telemetry::metrics::Metrics;

/// What requests and their tasks need.
pub struct Shared {
    pub(super) fs: AfsFs,
    pub(super) inodes: Arc<InodeTable>,
    pub(super) names: Arc<Names>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) streams: Streams,
    pub(super) identities: Arc<Identities>,
    pub(super) passthrough: Passthrough,
    owners: Owners,
    runtime: Handle,
    deadline: Duration,
    /// Requests that are not answered yet, if another process may take the mount over.
    under_way: AtomicUsize,
    /// The kernel can doubt names without dropping them.
    pub(super) expires: AtomicBool,
    kept: OnceLock<Kept>,
    /// Requests are left to the next process.
    resting: AtomicBool,
}

/// How often it is looked whether requests are under way still.
const LOOKED_AT: Duration = Duration::from_millis(20);

/// How long a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// The deadline of requests.
    Deadline,
    /// As long as the file system makes progress: it moves data, and bounds its waits itself.
    Own,
}

impl Shared {
    /// Makes what the adapter and the notifier share. `runtime` runs the tasks of requests that wait.
    pub fn new(
        fs: AfsFs,
        runtime: Handle,
        deadline: Duration,
        metrics: Arc<Metrics>,
        identities: Arc<Identities>,
    ) -> Arc<Self> {
        Arc::new(Self {
            inodes: Arc::new(InodeTable::new(fs.root())),
            names: Arc::default(),
            streams: Streams::default(),
            identities,
            passthrough: Passthrough::default(),
            owners: Owners::here(),
            // The file system's own error, which says more, is to come first.
            deadline: deadline + Duration::from_secs(1),
            expires: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            kept: OnceLock::new(),
            resting: AtomicBool::new(false),
            fs,
            metrics,
            runtime,
        })
    }

    /// Writes down from now on what another process needs to go on from here. To be called once, before the session begins.
    pub fn keep(&self, log: Log, image: &Image) -> &Kept {
        self.streams.begin_at(image.attached << 40);
        self.kept
            .get_or_init(|| Kept::new(log, image, Arc::clone(&self.names), self.fs.clone()))
    }

    /// What is written down, if anything is.
    pub fn kept(&self) -> Option<&Kept> {
        self.kept.get()
    }

    /// The file system.
    pub fn fs(&self) -> &AfsFs {
        &self.fs
    }

    /// Leaves requests to the next process: those that come are not answered any more, and the kernel will send them to it.
    pub fn rest(&self) {
        self.resting.store(true, Ordering::SeqCst);
    }

    /// Waits until no request is under way.
    pub async fn at_rest(&self) {
        while self.under_way.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(LOOKED_AT).await;
        }
    }

    /// Counts a request until what this gives is dropped. If requests are left to the next process, the thread that has just
    /// taken one is kept for ever, and with it the request.
    pub(super) fn take_part(self: &Arc<Self>) -> Option<Part> {
        self.kept()?;
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let part = Part(Arc::clone(self));
        // Counted first: who waits for rest either sees the count, or is seen here.
        if self.resting.load(Ordering::SeqCst) {
            drop(part);
            loop {
                std::thread::park();
            }
        }
        Some(part)
    }

    /// Attributes as the kernel takes them.
    pub(super) fn attributes(&self, id: u64, attr: &Attr) -> FileAttr {
        convert::attributes(id, attr, self.owners.shown(attr.uid, attr.gid))
    }

    /// What the kernel reads by itself.
    pub fn passthrough(&self) -> &Passthrough {
        &self.passthrough
    }

    /// The node ids.
    pub fn inodes(&self) -> &Arc<InodeTable> {
        &self.inodes
    }

    /// The names that the kernel believes in.
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Did the kernel say that it can doubt names without dropping them?
    pub fn expires(&self) -> bool {
        self.expires.load(Ordering::Relaxed)
    }

    /// The kernel learns of an object.
    pub(super) fn retain(&self, fid: Fid) -> u64 {
        let id = self.inodes.retain(fid, || self.fs.retain(fid));
        if let Some(kept) = self.kept()
            && id != ROOT
        {
            kept.looked(id, fid);
        }
        id
    }

    pub(super) fn forget(&self, id: u64, count: u64) {
        if let Some(kept) = self.kept()
            && id != ROOT
        {
            kept.forgot(id, count);
        }
        self.inodes.forget(id, count, |fid| {
            self.fs.forget(fid);
            self.names.forget(id);
        });
    }

    /// Answers a request from a task.
    pub(super) fn wait<R, T, W, A>(self: &Arc<Self>, limit: Limit, mut asked: Asked<R>, work: W, answer: A)
    where
        R: Answer,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        A: FnOnce(&Self, Asked<R>, T) + Send + 'static,
    {
        let shared = Arc::clone(self);
        let span = asked.waits();
        let task = async move {
            let _counted = InFlight::count(&shared.metrics);
            let mut work = pin!(work);
            let result = tokio::select! {
                biased;
                result = &mut work => Some(result),
                () = tokio::time::sleep(shared.deadline), if limit == Limit::Deadline => None,
                () = interrupt::asked_to_end(asked.thread()) => {
                    asked.interrupt();
                    match limit {
                        // What it moves is not only for whoever asked.
                        Limit::Own => Some(work.await),
                        Limit::Deadline => return,
                    }
                }
            };
            match result {
                Some(Ok(value)) => answer(&shared, asked, value),
                Some(Err(error)) => {
                    tracing::debug!(op = asked.op().name(), node = asked.node(), %error, "failed");
                    asked.fail(errno_of(&error));
                }
                None => {
                    tracing::warn!(op = asked.op().name(), node = asked.node(), "deadline passed");
                    asked.fail(Errno::ETIMEDOUT);
                }
            }
        };
        begun::begin(&self.runtime, Box::pin(task.instrument(span)));
    }

    /// Has something done that nobody waits for.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }
}

/// A request of a mount that others may take over, until it is answered.
pub(super) struct Part(Arc<Shared>);

impl Drop for Part {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts a request while it waits.
struct InFlight(Arc<Metrics>);

impl InFlight {
    fn count(metrics: &Arc<Metrics>) -> Self {
        metrics.fuse_in_flight(1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fuse_in_flight(-1);
    }
}
