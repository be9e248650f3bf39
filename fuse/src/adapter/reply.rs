//! A request that is to be answered exactly once, and counted when it is.

use std::sync::Arc;
use std::time::Instant;

use afs_client::error::Error;
use afs_client::fs::AfsFs;
use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};

use super::shared::{Part, Shared};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::op::Op;

/// A reply that can say no.
pub(super) trait Answer: Send + 'static {
    fn fail(self, errno: Errno);
}

macro_rules! answers {
    ($($reply:ident)*) => {
        $(impl Answer for $reply {
            fn fail(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

answers! {
    ReplyAttr ReplyCreate ReplyData ReplyDirectory ReplyDirectoryPlus ReplyEmpty ReplyEntry ReplyOpen
    ReplyStatfs ReplyWrite ReplyXattr
}

/// What is counted about a request.
pub(super) struct Ticket {
    op: Op,
    unique: u64,
    node: u64,
    start: Instant,
    metrics: Arc<Metrics>,
    /// Where it is written down that the kernel has the answer.
    settles: Option<Arc<Shared>>,
    _part: Option<Part>,
}

impl Ticket {
    pub(super) fn new(
        op: Op,
        unique: u64,
        node: u64,
        start: Instant,
        metrics: Arc<Metrics>,
        part: Option<Part>,
    ) -> Self {
        Self {
            op,
            unique,
            node,
            start,
            metrics,
            settles: None,
            _part: part,
        }
    }

    fn done(&self, result: Result<(), i32>) {
        self.metrics.fuse_done(self.op, result, self.start.elapsed());
    }

    fn answered(&self) {
        if let Some(kept) = self.settles.as_ref().and_then(|shared| shared.kept()) {
            kept.answered(self.unique);
        }
    }
}

/// A request that waits for its answer.
pub(super) struct Asked<R> {
    reply: R,
    ticket: Ticket,
    fs: AfsFs,
}

impl<R: Answer> Asked<R> {
    /// `fs` is the file system as whoever asks sees it.
    pub(super) fn new(reply: R, ticket: Ticket, fs: AfsFs) -> Self {
        Self { reply, ticket, fs }
    }

    /// Has it written down when the kernel has the answer.
    pub(super) fn settles(&mut self, shared: &Arc<Shared>) {
        self.ticket.settles = Some(Arc::clone(shared));
    }

    /// The file system as whoever asks sees it.
    pub(super) fn fs(&self) -> &AfsFs {
        &self.fs
    }

    pub(super) fn op(&self) -> Op {
        self.ticket.op
    }

    pub(super) fn unique(&self) -> u64 {
        self.ticket.unique
    }

    pub(super) fn node(&self) -> u64 {
        self.ticket.node
    }

    /// Says yes. Counted first: who sees the answer also sees the count.
    pub(super) fn ok(self, answer: impl FnOnce(R)) {
        self.ticket.done(Ok(()));
        answer(self.reply);
        self.ticket.answered();
    }

    /// Says no.
    pub(super) fn fail(self, errno: Errno) {
        self.ticket.done(Err(errno.code()));
        self.reply.fail(errno);
        self.ticket.answered();
    }

    /// Says no in a way that is not an error reply.
    pub(super) fn negative(self, errno: Errno, answer: impl FnOnce(R)) {
        self.ticket.done(Err(errno.code()));
        answer(self.reply);
    }
}

/// The number that the kernel is told.
pub(super) fn errno_of(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}
