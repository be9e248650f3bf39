//! A request that is to be answered exactly once, and counted when it is.

use std::sync::Arc;
use std::time::Instant;

use afs_client::error::Error;
use afs_client::fs::AfsFs;
use fuser::{
    Errno, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyLock, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
};

use tracing::Span;

use super::shared::{Part, Shared};
use crate::kept::is_resent;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::op::Op;
use crate::telemetry::trace;

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
    ReplyLock ReplyStatfs ReplyWrite ReplyXattr
}

/// What is counted about a request.
pub(super) struct Ticket {
    op: Op,
    unique: u64,
    thread: u32,
    node: u64,
    start: Instant,
    metrics: Arc<Metrics>,
    /// Where it is written down that the kernel has the answer.
    settles: Option<Arc<Shared>>,
    /// The trace of it; none unless it is traced.
    span: Span,
    waits: bool,
    _part: Option<Part>,
}

impl Ticket {
    pub(super) fn new(
        op: Op,
        request: &Request,
        node: u64,
        start: Instant,
        metrics: Arc<Metrics>,
        part: Option<Part>,
    ) -> Self {
        if is_resent(request.unique().0) {
            metrics.resent();
        }
        Self {
            op,
            unique: request.unique().0,
            thread: request.pid(),
            node,
            start,
            metrics,
            settles: None,
            span: trace::request_span(op, request.unique().0, node),
            waits: false,
            _part: part,
        }
    }

    fn done(&self, result: Result<(), i32>) {
        self.metrics.fuse_done(self.op, result, self.start.elapsed());
        trace::request_answered(&self.span, self.waits, result);
    }

    fn answered(&self) {
        if let Some(kept) = self.settles.as_ref().and_then(|shared| shared.kept()) {
            kept.answered(self.unique);
        }
    }
}

/// A request that waits for its answer.
pub(super) struct Asked<R> {
    /// None when whoever asked does not wait any more.
    reply: Option<R>,
    ticket: Ticket,
    fs: AfsFs,
}

impl<R: Answer> Asked<R> {
    /// `fs` is the file system as whoever asks sees it.
    pub(super) fn new(reply: R, ticket: Ticket, fs: AfsFs) -> Self {
        let reply = Some(reply);
        Self { reply, ticket, fs }
    }

    /// Has it written down when the kernel has the answer.
    pub(super) fn settles(&mut self, shared: &Arc<Shared>) {
        self.ticket.settles = Some(Arc::clone(shared));
    }

    /// What is to be answered; none if whoever asked does not wait any more.
    pub(super) fn reply(&self) -> Option<&R> {
        self.reply.as_ref()
    }

    /// The file system as whoever asks sees it.
    pub(super) fn fs(&self) -> &AfsFs {
        &self.fs
    }

    /// It waits for the network from now on: the span in which that is done.
    pub(super) fn waits(&mut self) -> Span {
        self.ticket.waits = true;
        self.ticket.span.clone()
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

    /// The thread that asks; 0 if it cannot be seen from here.
    pub(super) fn thread(&self) -> u32 {
        self.ticket.thread
    }

    /// Says yes. Counted first: who sees the answer also sees the count.
    pub(super) fn ok(self, answer: impl FnOnce(R)) {
        if let Some(reply) = self.reply {
            self.ticket.done(Ok(()));
            answer(reply);
        }
        self.ticket.answered();
    }

    /// Says no.
    pub(super) fn fail(self, errno: Errno) {
        if let Some(reply) = self.reply {
            self.ticket.done(Err(errno.code()));
            reply.fail(errno);
        }
        self.ticket.answered();
    }

    /// Whoever asked is to end and waits no longer; what was begun may go on.
    pub(super) fn interrupt(&mut self) {
        if let Some(reply) = self.reply.take() {
            self.ticket.done(Err(Errno::EINTR.code()));
            reply.fail(Errno::EINTR);
        }
    }

    /// Says no in a way that is not an error reply.
    pub(super) fn negative(self, errno: Errno, answer: impl FnOnce(R)) {
        if let Some(reply) = self.reply {
            self.ticket.done(Err(errno.code()));
            answer(reply);
        }
    }
}

/// The number that the kernel is told.
pub(super) fn errno_of(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}
