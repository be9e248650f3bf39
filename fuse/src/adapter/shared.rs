//! What requests have in common, and the tasks of those that wait.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use afs_client::error::Error;
use afs_client::fs::{AfsFs, Attr};
use afs_client::types::Fid;
use fuser::{Errno, FileAttr};
use tokio::runtime::Handle;
use tracing::Instrument;

use super::convert;
use super::directory::Streams;
use super::reply::{Answer, Asked, errno_of};
use crate::identity::Identities;
use crate::inode::{InodeTable, Names};
use crate::owners::Owners;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace;

/// What requests and their tasks need.
pub struct Shared {
    pub(super) fs: AfsFs,
    pub(super) inodes: Arc<InodeTable>,
    pub(super) names: Arc<Names>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) streams: Streams,
    pub(super) identities: Arc<Identities>,
    owners: Owners,
    runtime: Handle,
    deadline: Duration,
    /// The kernel can doubt names without dropping them.
    pub(super) expires: AtomicBool,
}

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
            owners: Owners::here(),
            // The file system's own error, which says more, is to come first.
            deadline: deadline + Duration::from_secs(1),
            expires: AtomicBool::new(false),
            fs,
            metrics,
            runtime,
        })
    }

    /// Attributes as the kernel takes them.
    pub(super) fn attributes(&self, id: u64, attr: &Attr) -> FileAttr {
        convert::attributes(id, attr, self.owners.shown(attr.uid, attr.gid))
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
        self.inodes.retain(fid, || self.fs.retain(fid))
    }

    pub(super) fn forget(&self, id: u64, count: u64) {
        self.inodes.forget(id, count, |fid| {
            self.fs.forget(fid);
            self.names.forget(id);
        });
    }

    /// Answers a request from a task.
    pub(super) fn wait<R, T, W, A>(self: &Arc<Self>, limit: Limit, asked: Asked<R>, work: W, answer: A)
    where
        R: Answer,
        T: Send + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        A: FnOnce(&Self, Asked<R>, T) + Send + 'static,
    {
        let shared = Arc::clone(self);
        let span = trace::request_span(asked.op(), asked.unique(), asked.node());
        let task = async move {
            let _counted = InFlight::count(&shared.metrics);
            let result = match limit {
                Limit::Own => Ok(work.await),
                Limit::Deadline => tokio::time::timeout(shared.deadline, work).await,
            };
            match result {
                Ok(Ok(value)) => answer(&shared, asked, value),
                Ok(Err(error)) => {
                    tracing::debug!(op = asked.op().name(), node = asked.node(), %error, "failed");
                    asked.fail(errno_of(&error));
                }
                Err(_) => {
                    tracing::warn!(op = asked.op().name(), node = asked.node(), "deadline passed");
                    asked.fail(Errno::ETIMEDOUT);
                }
            }
        };
        self.runtime.spawn(task.instrument(span));
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
