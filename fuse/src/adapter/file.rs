//! Open files.

use std::cell::RefCell;
use std::sync::Arc;

use afs_client::error::Error;
use afs_client::fs::{AfsFs, Entry, HandleId, Lookup, OpenFlags, Opened};
use afs_client::lock::{LockOwner, Span};
use afs_client::types::Fid;
use bytes::Bytes;
use fuser::{
    Errno, FileHandle, FopenFlags, INodeNo, ReplyCreate, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite,
};

use super::change::Change;
use super::passthrough::Verdict;
use super::reply::{Answer, Asked, errno_of};
use super::{Adapter, Limit, Shared, convert};
use crate::telemetry::metrics::{Reads, Replay};

thread_local! {
    /// What is answered at once passes through here, so that no memory is made and cleared for each answer.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Adapter {
    pub(super) fn do_open(&self, asked: Asked<ReplyOpen>, node: INodeNo, flags: fuser::OpenFlags) {
        let Some((fid, asked)) = self.object(node, asked) else {
            return;
        };
        let is_direct = flags.0 & libc::O_DIRECT != 0;
        let flags = convert::open_flags(flags);
        let before = self
            .shared
            .kept()
            .and_then(|kept| kept.opened_before(asked.unique()));
        if let Some(handle) = before {
            self.shared.metrics.replayed(Replay::Journaled);
            // The kernel does not know of it: it may go another way now.
            self.shared.passthrough.release(node.0, handle.0);
            let opened = Opened::before(handle);
            return self.shared.answer_open(asked, fid, flags, opened, is_direct);
        }
        match asked.fs().open_cached(fid, flags) {
            Some(Ok(opened)) => self.shared.answer_open(asked, fid, flags, opened, is_direct),
            Some(Err(error)) => asked.fail(errno_of(&error)),
            None => {
                let fs = asked.fs().clone();
                let work = async move { fs.open(fid, flags).await };
                self.shared
                    .wait(Limit::Deadline, asked, work, move |shared, asked, opened| {
                        shared.answer_open(asked, fid, flags, opened, is_direct);
                    });
            }
        }
    }

    pub(super) fn do_create(
        &self,
        asked: Asked<ReplyCreate>,
        parent: INodeNo,
        name: &[u8],
        mode: u32,
        flags: fuser::OpenFlags,
    ) {
        let Some((dir, asked)) = self.named(parent, name, asked) else {
            return;
        };
        let place = self.shared.place(parent, name);
        let exclusive = flags.0 & libc::O_EXCL != 0;
        let flags = convert::open_flags(flags);
        let change = Change::open(dir, name, exclusive);
        let (fs, name) = (asked.fs().clone(), name.to_vec());
        let (asked_name, unique) = (name.clone(), asked.unique());
        let shared = Arc::clone(&self.shared);
        let work = async move {
            let made = match fs
                .create(dir, &asked_name, convert::permissions(mode), flags)
                .await
            {
                Err(error) if !exclusive && error.errno() == libc::EEXIST => {
                    open_existing(&fs, dir, &asked_name, flags, error).await
                }
                other => other,
            };
            if let (Ok((entry, opened)), Some(kept)) = (&made, shared.kept()) {
                kept.opened(unique, opened.handle, entry.fid, flags, fs.identity());
            }
            made
        };
        self.shared
            .change(asked, change, work, move |shared, asked, (entry, opened)| {
                let told = shared.tell(place, &name, &entry);
                shared.metrics.inodes(shared.inodes.len());
                let lifetime = told.attr_lifetime.min(told.entry_lifetime);
                let handle = FileHandle(opened.handle.0);
                asked.ok(|reply| {
                    reply.created(
                        &lifetime,
                        &told.attr,
                        told.generation,
                        handle,
                        open_reply(flags, opened),
                    );
                });
            });
    }

    pub(super) fn do_read(&self, asked: Asked<ReplyData>, handle: FileHandle, offset: u64, size: u32) {
        let Some(asked) = self.unspoiled(handle, asked) else {
            return;
        };
        let handle = HandleId(handle.0);
        BUFFER.with_borrow_mut(
            |buffer| match asked.fs().read_cached(handle, offset, size, buffer) {
                Some(Ok(())) => asked.ok(|reply| reply.data(buffer)),
                Some(Err(error)) => asked.fail(errno_of(&error)),
                None => {
                    let fs = asked.fs().clone();
                    let work = async move { fs.read(handle, offset, size).await };
                    self.shared
                        .wait(Limit::Deadline, asked, work, |_, asked, data: Bytes| {
                            asked.ok(|reply| reply.data(&data));
                        });
                }
            },
        );
    }

    pub(super) fn do_write(&self, asked: Asked<ReplyWrite>, handle: FileHandle, offset: u64, data: &[u8]) {
        let Some(asked) = self.unspoiled(handle, asked) else {
            return;
        };
        let handle = HandleId(handle.0);
        let written = u32::try_from(data.len()).unwrap_or(u32::MAX);
        match asked.fs().write_cached(handle, offset, data) {
            Some(Ok(())) => {
                self.shared.wrote(asked.node());
                asked.ok(|reply| reply.written(written));
            }
            Some(Err(error)) => asked.fail(errno_of(&error)),
            None => {
                // The session's buffer is needed for the next request: one copy.
                let (fs, data) = (asked.fs().clone(), data.to_vec());
                let work = async move { fs.write(handle, offset, &data).await };
                self.shared
                    .wait(Limit::Own, asked, work, move |shared, asked, ()| {
                        shared.wrote(asked.node());
                        asked.ok(|reply| reply.written(written));
                    });
            }
        }
    }

    /// `close()`: besides, what the process had locked of the file is free.
    pub(super) fn do_flush(&self, asked: Asked<ReplyEmpty>, handle: FileHandle, owner: fuser::LockOwner) {
        let Some(asked) = self.unspoiled(handle, asked) else {
            return;
        };
        let handle = HandleId(handle.0);
        let owner = LockOwner(owner.0);
        let storing = self.shared.storing(asked.node());
        match asked.fs().flush_cached(handle) {
            Some(Ok(())) if !asked.fs().has_locks(handle, owner) => {
                self.shared.stored(storing);
                asked.ok(ReplyEmpty::ok);
            }
            Some(Err(error)) => asked.fail(errno_of(&error)),
            _ => {
                let fs = asked.fs().clone();
                let work = async move {
                    let stored = fs.flush(handle).await;
                    fs.unlock(handle, owner, Span::WHOLE).await?;
                    stored
                };
                self.shared
                    .wait(Limit::Own, asked, work, move |shared, asked, ()| {
                        shared.stored(storing);
                        asked.ok(ReplyEmpty::ok);
                    });
            }
        }
    }

    pub(super) fn do_fsync(&self, asked: Asked<ReplyEmpty>, handle: FileHandle) {
        let Some(asked) = self.unspoiled(handle, asked) else {
            return;
        };
        let (fs, handle) = (asked.fs().clone(), HandleId(handle.0));
        let storing = self.shared.storing(asked.node());
        let work = async move { fs.fsync(handle).await };
        self.shared
            .wait(Limit::Own, asked, work, move |shared, asked, ()| {
                shared.stored(storing);
                asked.ok(ReplyEmpty::ok);
            });
    }

    /// A file can be made longer. No server takes a hole but at the end of a file, or keeps space behind it.
    pub(super) fn do_fallocate(
        &self,
        asked: Asked<ReplyEmpty>,
        handle: FileHandle,
        (offset, length): (u64, u64),
        mode: i32,
    ) {
        if mode != 0 {
            return asked.fail(Errno::EOPNOTSUPP);
        }
        let Some(asked) = self.unspoiled(handle, asked) else {
            return;
        };
        let (fs, handle) = (asked.fs().clone(), HandleId(handle.0));
        let work = async move { fs.allocate(handle, offset.saturating_add(length)).await };
        self.shared
            .wait(Limit::Own, asked, work, |_, asked, ()| asked.ok(ReplyEmpty::ok));
    }

    pub(super) fn do_release(
        &self,
        asked: Asked<ReplyEmpty>,
        handle: FileHandle,
        owner: Option<fuser::LockOwner>,
    ) {
        // The kernel has ended its own way to the file before it asked.
        self.shared.passthrough.release(asked.node(), handle.0);
        let (fs, handle) = (asked.fs().clone(), HandleId(handle.0));
        let storing = self.shared.storing(asked.node());
        let work = async move {
            if let Some(owner) = owner {
                fs.unlock(handle, LockOwner(owner.0), Span::WHOLE).await?;
            }
            fs.release(handle).await;
            Ok(())
        };
        self.shared
            .wait(Limit::Own, asked, work, move |shared, asked, ()| {
                // What could not be stored, close has told.
                shared.stored(storing);
                if let Some(kept) = shared.kept() {
                    kept.released(handle);
                }
                asked.ok(ReplyEmpty::ok);
            });
    }

    /// Says no itself if what was written through the handle was lost with the process before.
    fn unspoiled<R: Answer>(&self, handle: FileHandle, asked: Asked<R>) -> Option<Asked<R>> {
        if self.shared.kept().is_some_and(|kept| kept.is_spoiled(handle.0)) {
            asked.fail(Errno::EIO);
            return None;
        }
        Some(asked)
    }
}

/// What was written to a file before it is stored.
#[derive(Clone, Copy)]
struct Storing {
    fid: Fid,
    written: Option<u64>,
}

impl Shared {
    fn answer_open(
        &self,
        asked: Asked<ReplyOpen>,
        fid: Fid,
        flags: OpenFlags,
        opened: Opened,
        is_direct: bool,
    ) {
        let (node, handle) = (asked.node(), FileHandle(opened.handle.0));
        let verdict = self.verdict(&asked, &opened, is_direct);
        if let Some(kept) = self.kept() {
            kept.opened(asked.unique(), opened.handle, fid, flags, asked.fs().identity());
            if matches!(verdict, Verdict::Lent(_)) {
                kept.lent(opened.handle, node);
            }
        }
        match verdict {
            Verdict::Served => {
                self.metrics.opened(Reads::Served);
                let said = open_reply(flags, opened);
                asked.ok(|reply| reply.opened(handle, said));
            }
            Verdict::Lent(lent) => {
                self.metrics.opened(Reads::Lent);
                asked.fs().is_lent(opened.handle);
                // The kernel takes no other word beside.
                let said = FopenFlags::FOPEN_NOFLUSH;
                asked.ok(|reply| reply.opened_passthrough(handle, said, &lent.backing));
            }
            Verdict::Stale => {
                self.metrics.opened(Reads::Stale);
                self.retire(node);
                self.close(asked.fs(), opened.handle);
                asked.fail(Errno::ESTALE);
            }
        }
    }

    fn verdict(&self, asked: &Asked<ReplyOpen>, opened: &Opened, is_direct: bool) -> Verdict {
        let fs = asked.fs();
        let Some(reply) = asked.reply().filter(|_| fs.is_constant(opened.handle)) else {
            return Verdict::Served;
        };
        let node = asked.node();
        let lend = || {
            if is_direct || self.inodes.is_retired(node) {
                return None;
            }
            let (loan, file) = fs.lend(opened)?;
            self.passthrough.hand_over(loan, &file, reply)
        };
        let which = (node, opened.handle.0);
        self.passthrough.open(which, opened.version, asked.thread(), lend)
    }

    /// A node stands for an older version: its object gets another when it is looked up next.
    fn retire(&self, node: u64) {
        if self.inodes.retire(node)
            && let Some(kept) = self.kept()
        {
            kept.retired(node);
        }
    }

    /// Nobody is told of a handle that was had.
    fn close(&self, fs: &AfsFs, handle: HandleId) {
        if let Some(kept) = self.kept() {
            kept.released(handle);
        }
        let fs = fs.clone();
        self.spawn(async move { fs.release(handle).await });
    }

    fn wrote(&self, node: u64) {
        if let (Some(kept), Some(fid)) = (self.kept(), self.inodes.fid(node)) {
            kept.wrote(fid);
        }
    }

    fn storing(&self, node: u64) -> Option<Storing> {
        let (kept, fid) = (self.kept()?, self.inodes.fid(node)?);
        let written = kept.written(fid);
        Some(Storing { fid, written })
    }

    fn stored(&self, storing: Option<Storing>) {
        if let (Some(kept), Some(Storing { fid, written })) = (self.kept(), storing) {
            kept.stored_all(fid, written);
        }
    }
}

/// The name was taken after the kernel had looked: without O_EXCL that is no error.
async fn open_existing(
    fs: &AfsFs,
    dir: Fid,
    name: &[u8],
    flags: OpenFlags,
    exists: Error,
) -> Result<(Entry, Opened), Error> {
    match fs.lookup(dir, name).await? {
        Lookup::Found(entry) => Ok((entry, fs.open(entry.fid, flags).await?)),
        Lookup::Absent { .. } => Err(exists),
    }
}

fn open_reply(flags: OpenFlags, opened: Opened) -> FopenFlags {
    let mut reply = FopenFlags::empty();
    if opened.keep_cache && !flags.truncate {
        reply |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    if !flags.write {
        // close() has nothing to store. What was locked is free when nobody has it open any more.
        reply |= FopenFlags::FOPEN_NOFLUSH;
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_its_pages_and_needs_no_flush() {
        let opened = Opened {
            keep_cache: true,
            ..Opened::before(HandleId(1))
        };
        let reader = OpenFlags {
            read: true,
            ..OpenFlags::default()
        };
        assert_eq!(
            open_reply(reader, opened),
            FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH
        );
        let writer = OpenFlags {
            write: true,
            truncate: true,
            ..OpenFlags::default()
        };
        assert_eq!(open_reply(writer, opened), FopenFlags::empty());
    }
}
