//! Speaks FUSE for [`AfsFs`](afs_client::fs::AfsFs): translates types, decides no semantics.
//!
//! The machine: a request that the file system can answer from memory is answered on the session's own thread. Any other
//! moves its owned reply into a task, under a deadline; the thread takes the next request. Each reply is counted.

mod begun;
mod change;
mod convert;
mod directory;
mod file;
mod interrupt;
mod lock;
mod namespace;
mod node;
mod passthrough;
mod reply;
mod shared;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use afs_client::lock::LockScope;
use afs_client::types::Fid;
use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use crate::identity::Rule;
use crate::telemetry::op::Op;
use reply::{Answer, Asked, Ticket};
use shared::Limit;

pub use passthrough::Passthrough;
pub use shared::Shared;

/// The FUSE side of one mount.
pub struct Adapter {
    shared: Arc<Shared>,
}

impl Adapter {
    /// The adapter of a mount.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn asked<R: Answer>(&self, op: Op, request: &Request, node: INodeNo, reply: R) -> Asked<R> {
        let part = self.shared.take_part();
        let metrics = Arc::clone(&self.shared.metrics);
        let who = self.shared.identities.of(request.uid(), request.pid());
        Asked::new(
            reply,
            Ticket::new(op, request, node.0, Instant::now(), metrics, part),
            self.shared.fs.as_identity(who),
        )
    }

    /// The object behind a node id; answers `ESTALE` itself if there is none.
    fn object<R: Answer>(&self, node: INodeNo, asked: Asked<R>) -> Option<(Fid, Asked<R>)> {
        match self.shared.inodes.fid(node.0) {
            Some(fid) => Some((fid, asked)),
            None => {
                asked.fail(Errno::ESTALE);
                None
            }
        }
    }
}

/// Keeps a panic from ending the session's thread: the request fails with EIO, because its reply is dropped.
fn guarded(answer: impl FnOnce()) {
    // The panic hook has logged it. What the closure touches is locked without poisoning and stays usable.
    let _ = catch_unwind(AssertUnwindSafe(answer));
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let able = config.capabilities();
        // Those that fuser passes on without being able to honour them must not be asked for; hence a list.
        let mut wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_ASYNC_DIO
            // There are no such bits to be dropped; else the kernel asks for security.capability before every write.
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        // Else the kernel keeps locks by itself.
        wanted.set(
            InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS,
            self.shared.fs.lock_scope() != LockScope::Local,
        );
        // The kernel shows what it keeps to everybody, and asks nobody before.
        wanted.set(
            InitFlags::FUSE_CACHE_SYMLINKS,
            self.shared.identities.rule == Rule::Mount,
        );
        if self.shared.passthrough.is_on() {
            wanted |= InitFlags::FUSE_PASSTHROUGH;
            // One: the files lie on a file system that is not stacked, and another may be stacked on this one.
            if config.set_max_stack_depth(1).is_err() {
                tracing::debug!("the session lends nothing");
            }
        }
        for flag in wanted.iter() {
            if config.add_capabilities(flag).is_err() {
                tracing::debug!(?flag, "the kernel does not offer");
            }
        }
        self.shared
            .expires
            .store(able.contains(InitFlags::FUSE_HAS_EXPIRE_ONLY), Ordering::Relaxed);
        for refused in [
            config.set_max_write(MAX_WRITE).err(),
            config.set_max_background(MAX_BACKGROUND).err().map(u32::from),
            config
                .set_time_granularity(Duration::from_secs(1))
                .err()
                .map(|_| 1),
        ]
        .into_iter()
        .flatten()
        {
            tracing::debug!(refused, "the session keeps a default");
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        guarded(|| {
            self.do_lookup(
                self.asked(Op::Lookup, request, parent, reply),
                parent,
                name.as_bytes(),
            )
        });
    }

    fn forget(&self, _request: &Request, node: INodeNo, count: u64) {
        let _part = self.shared.take_part();
        guarded(|| self.shared.forget(node.0, count));
        self.shared.metrics.inodes(self.shared.inodes.len());
    }

    fn getattr(&self, request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        guarded(|| self.do_getattr(self.asked(Op::Getattr, request, node, reply), node));
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = convert::set_attr(mode, uid, gid, size, mtime, handle.is_some());
        guarded(|| self.do_setattr(self.asked(Op::Setattr, request, node, reply), node, set));
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        guarded(|| self.do_readlink(self.asked(Op::Readlink, request, node, reply), node));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            self.do_mknod(
                self.asked(Op::Mknod, request, parent, reply),
                parent,
                name.as_bytes(),
                mode,
            )
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            self.do_mkdir(
                self.asked(Op::Mkdir, request, parent, reply),
                parent,
                name.as_bytes(),
                mode,
            )
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            self.do_unlink(
                self.asked(Op::Unlink, request, parent, reply),
                parent,
                name.as_bytes(),
            )
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guarded(|| {
            self.do_rmdir(
                self.asked(Op::Rmdir, request, parent, reply),
                parent,
                name.as_bytes(),
            )
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes();
        guarded(|| {
            self.do_symlink(
                self.asked(Op::Symlink, request, parent, reply),
                parent,
                name.as_bytes(),
                target,
            )
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let asked = self.asked(Op::Rename, request, parent, reply);
        let (from, to) = ((parent, name.as_bytes()), (new_parent, new_name.as_bytes()));
        guarded(|| self.do_rename(asked, from, to, flags));
    }

    fn link(
        &self,
        request: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        guarded(|| {
            self.do_link(
                self.asked(Op::Link, request, node, reply),
                node,
                new_parent,
                new_name.as_bytes(),
            )
        });
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        guarded(|| self.do_open(self.asked(Op::Open, request, node, reply), node, flags));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let asked = self.asked(Op::Create, request, parent, reply);
        guarded(|| self.do_create(asked, parent, name.as_bytes(), mode, OpenFlags(flags)));
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guarded(|| self.do_read(self.asked(Op::Read, request, node, reply), handle, offset, size));
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guarded(|| self.do_write(self.asked(Op::Write, request, node, reply), handle, offset, data));
    }

    fn flush(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        guarded(|| self.do_flush(self.asked(Op::Flush, request, node, reply), handle, owner));
    }

    fn release(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        guarded(|| self.do_release(self.asked(Op::Release, request, node, reply), handle, owner));
    }

    fn fsync(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        guarded(|| self.do_fsync(self.asked(Op::Fsync, request, node, reply), handle));
    }

    fn opendir(&self, request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        guarded(|| self.do_opendir(self.asked(Op::Opendir, request, node, reply), node));
    }

    fn readdir(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        guarded(|| self.do_readdir(self.asked(Op::Readdir, request, node, reply), handle, offset));
    }

    fn readdirplus(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        guarded(|| self.do_readdir(self.asked(Op::Readdirplus, request, node, reply), handle, offset));
    }

    fn releasedir(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.shared.streams.close(handle.0);
        self.asked(Op::Releasedir, request, node, reply)
            .ok(ReplyEmpty::ok);
    }

    fn fsyncdir(
        &self,
        request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        // Directories are changed on the server only.
        self.asked(Op::Fsyncdir, request, node, reply).ok(ReplyEmpty::ok);
    }

    fn statfs(&self, request: &Request, node: INodeNo, reply: ReplyStatfs) {
        guarded(|| self.do_statfs(self.asked(Op::Statfs, request, node, reply), node));
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let asked = self.asked(Op::Setxattr, request, node, reply);
        guarded(|| self.do_setxattr(asked, node, name.as_bytes(), value, flags));
    }

    fn getxattr(&self, request: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guarded(|| {
            self.do_getxattr(
                self.asked(Op::Getxattr, request, node, reply),
                node,
                name.as_bytes(),
                size,
            )
        });
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        // Those of ours are there but not listed, lest programs that copy files try to copy them.
        self.asked(Op::Listxattr, request, node, reply)
            .ok(|reply| match size {
                0 => reply.size(0),
                _ => reply.data(&[]),
            });
    }

    fn removexattr(&self, request: &Request, node: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        self.asked(Op::Removexattr, request, node, reply)
            .fail(Errno::EOPNOTSUPP);
    }

    fn access(&self, request: &Request, node: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        guarded(|| self.do_access(self.asked(Op::Access, request, node, reply), node, mask));
    }

    fn getlk(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        first: u64,
        last: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        let wanted = lock::Wanted::new(owner, (first, last), kind, pid);
        guarded(|| self.do_getlk(self.asked(Op::Getlk, request, node, reply), handle, wanted));
    }

    fn setlk(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        first: u64,
        last: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        let wanted = lock::Wanted::new(owner, (first, last), kind, pid);
        guarded(|| self.do_setlk(self.asked(Op::Setlk, request, node, reply), handle, wanted, sleep));
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        guarded(|| {
            self.do_fallocate(
                self.asked(Op::Fallocate, request, node, reply),
                handle,
                (offset, length),
                mode,
            );
        });
    }

    // With ENOSYS the kernel does these itself from then on.

    fn lseek(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _offset: i64,
        _whence: i32,
        reply: ReplyLseek,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn copy_file_range(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _to: INodeNo,
        _to_handle: FileHandle,
        _to_offset: u64,
        _len: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn poll(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _notifier: fuser::PollNotifier,
        _events: fuser::PollEvents,
        _flags: fuser::PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: fuser::IoctlFlags,
        _command: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }
}

/// The largest write that the kernel hands over at once; its own limit is the same by default.
const MAX_WRITE: u32 = 1 << 20;
/// Read-ahead requests in flight: enough for several parallel ranges of several files.
const MAX_BACKGROUND: u16 = 64;
