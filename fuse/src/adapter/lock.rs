//! Locks on open files.

use afs_client::fs::HandleId;
use afs_client::lock::{LockAsked, LockKind, LockOwner, Span};
use fuser::{Errno, FileHandle, ReplyEmpty, ReplyLock};
use rustix::io::Errno as Code;

use super::Adapter;
use super::reply::Asked;
use super::shared::Limit;
use crate::process::Signals;

/// What a program wants.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    owner: LockOwner,
    span: Span,
    /// `None`: nothing any more.
    kind: Option<LockKind>,
    pid: u32,
}

impl Wanted {
    pub(super) fn new(owner: fuser::LockOwner, (first, last): (u64, u64), kind: i32, pid: u32) -> Self {
        let kind = match kind {
            libc::F_RDLCK => Some(LockKind::Shared),
            libc::F_WRLCK => Some(LockKind::Exclusive),
            _ => None,
        };
        Self {
            owner: LockOwner(owner.0),
            span: Span { first, last },
            kind,
            pid,
        }
    }

    fn asked(&self) -> Option<LockAsked> {
        let &Self {
            owner,
            span,
            kind,
            pid,
        } = self;
        kind.map(|kind| LockAsked {
            owner,
            span,
            kind,
            pid,
        })
    }
}

impl Adapter {
    /// Who is in the way?
    pub(super) fn do_getlk(&self, asked: Asked<ReplyLock>, handle: FileHandle, wanted: Wanted) {
        let Some(lock) = wanted.asked() else {
            return asked.fail(Errno::EINVAL);
        };
        let (fs, handle) = (asked.fs().clone(), HandleId(handle.0));
        let work = async move { fs.lock_conflict(handle, lock).await };
        self.shared
            .wait(Limit::Deadline, asked, work, |_, asked, conflict| {
                asked.ok(|reply| match conflict {
                    None => reply.locked(0, 0, libc::F_UNLCK, 0),
                    Some(held) => {
                        let kind = match held.kind {
                            LockKind::Shared => libc::F_RDLCK,
                            LockKind::Exclusive => libc::F_WRLCK,
                        };
                        // The kernel takes no more for the end of a file.
                        let last = held.span.last.min(i64::MAX.cast_unsigned());
                        reply.locked(held.span.first, last, kind, held.pid);
                    }
                });
            });
    }

    /// Takes a lock, waits for it if it is to, or gives it back.
    pub(super) fn do_setlk(&self, asked: Asked<ReplyEmpty>, handle: FileHandle, wanted: Wanted, wait: bool) {
        let (fs, handle, thread) = (asked.fs().clone(), HandleId(handle.0), asked.thread());
        let work = async move {
            let Some(lock) = wanted.asked() else {
                return fs.unlock(handle, wanted.owner, wanted.span).await;
            };
            loop {
                match fs.lock(handle, lock).await {
                    Err(error) if wait && error.errno() == Code::AGAIN.raw_os_error() => {}
                    result => return result,
                }
                // Any signal ends the wait for a lock.
                if Signals::of(thread).is_some_and(|signals| signals.interrupt()) {
                    return Err(Code::INTR.into());
                }
                fs.locks_changed(handle).await;
            }
        };
        self.shared
            .wait(Limit::Own, asked, work, |_, asked, ()| asked.ok(ReplyEmpty::ok));
    }
}
