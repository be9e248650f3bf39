//! Locks of programs, and the lock that the server holds for all of them.
//!
//! The machine: a file on which somebody holds a lock has a [`FileLocks`]: the table of the locks, and what the server
//! holds for us, which follows from the table. One change of a file's locks runs at a time. The server keeps a lock for
//! five minutes and knows no owner, so a task extends them; a server that knows of none any more has lost ours, and others
//! may have had it since: whoever holds it gets EIO from then on, until it is given back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use tokio::sync::Notify;

use super::core::Caller;
use super::data::Handle;
use super::types::{HandleId, Invalidation};
use crate::auth::tokens::Identity;
use crate::clock;
use crate::error::Error;
use crate::lock::{Held, LeftLocks, LockAsked, LockKind, LockOwner, LockScope, LockTable, Span};
use crate::op::Class;
use crate::rpc::fs::{ExtendLock, FetchStatusOf, ReleaseLock, SetLock};
use crate::types::Fid;
use crate::vnode::Vnode;

/// The files on which locks are held.
#[derive(Default)]
pub(crate) struct Locks {
    pub(crate) scope: LockScope,
    files: Mutex<HashMap<Fid, Arc<FileLocks>>>,
    /// A server has forgotten what it had promised: maybe its locks too.
    pub(crate) doubted: Notify,
    /// Those that servers have lost.
    pub(crate) lost: AtomicU64,
    witness: Mutex<Option<Witness>>,
}

/// Is told what is held on a file, at each change of it.
type Witness = Box<dyn Fn(Fid, LeftLocks) + Send + Sync>;

/// The locks on one file.
#[derive(Debug)]
struct FileLocks {
    vnode: Arc<Vnode>,
    /// One change at a time. Lock order: this, then the table.
    server: tokio::sync::Mutex<ServerLock>,
    table: Mutex<LockTable>,
    changed: Notify,
}

/// What the server holds for us.
#[derive(Debug, Default)]
struct ServerLock {
    held: Option<LockKind>,
    /// When the server last said so.
    at: Option<Instant>,
    /// With whose rights.
    who: Identity,
}

impl Locks {
    pub(crate) fn new(scope: LockScope) -> Self {
        Self {
            scope,
            ..Self::default()
        }
    }

    fn of(&self, vnode: &Arc<Vnode>) -> Arc<FileLocks> {
        let mut files = self.files.lock();
        let made = || {
            Arc::new(FileLocks {
                vnode: Arc::clone(vnode),
                server: tokio::sync::Mutex::default(),
                table: Mutex::default(),
                changed: Notify::new(),
            })
        };
        Arc::clone(files.entry(vnode.fid).or_insert_with(made))
    }

    fn known(&self, fid: Fid) -> Option<Arc<FileLocks>> {
        self.files.lock().get(&fid).cloned()
    }

    /// Forgets a file on which no lock is held, if nobody else is about to take one.
    fn tidy(&self, file: &Arc<FileLocks>) {
        let mut files = self.files.lock();
        // One reference is the table's, the other the caller's.
        if Arc::strong_count(file) == 2 && file.table.lock().is_empty() {
            files.remove(&file.vnode.fid);
        }
    }

    fn all(&self) -> Vec<Arc<FileLocks>> {
        self.files.lock().values().cloned().collect()
    }

    /// Tells what is held on a file; whoever calls has the server's lock.
    fn tell(&self, file: &FileLocks, server: &ServerLock) {
        let witness = self.witness.lock();
        let Some(witness) = witness.as_ref() else { return };
        let table = file.table.lock();
        let left = LeftLocks {
            who: server.who,
            held: table.iter().map(|held| (held.handle, held.asked)).collect(),
            lost: table.iter().any(|held| held.lost.load(Ordering::Acquire)),
        };
        drop(table);
        witness(file.vnode.fid, left);
    }

    /// How many locks there are.
    pub(crate) fn held(&self) -> usize {
        let files = self.all();
        files.iter().map(|file| file.table.lock().iter().count()).sum()
    }
}

impl Caller {
    /// Takes a lock, or says that it cannot be had now.
    ///
    /// # Errors
    ///
    /// `EAGAIN`: somebody else holds it, here or elsewhere. What the owner had there may be gone then: to convert a lock is
    /// not one step.
    pub(crate) async fn lock(&self, id: HandleId, asked: LockAsked) -> Result<(), Error> {
        let handle = self.handle(id)?;
        let file = self.locks.of(&handle.vnode);
        let result = self.try_lock(id, &handle, &file, asked).await;
        self.locks.tidy(&file);
        result
    }

    async fn try_lock(
        &self,
        id: HandleId,
        handle: &Handle,
        file: &Arc<FileLocks>,
        asked: LockAsked,
    ) -> Result<(), Error> {
        let mut server = self.server_of(file).await?;
        let held = Held {
            asked,
            handle: id,
            lost: Arc::clone(&handle.lost),
        };
        let need = {
            let table = file.table.lock();
            if table.conflict(&asked).is_some() {
                return Err(Errno::AGAIN.into());
            }
            let mut after = table.clone();
            after.set(held.clone());
            after.need(self.locks.scope)
        };
        let opener = self.as_identity(handle.who);
        opener.bring(file, &mut server, need).await?;
        handle.lost.store(false, Ordering::Release);
        file.table.lock().set(held);
        self.locks.tell(file, &server);
        drop(server);
        file.changed.notify_waiters();
        Ok(())
    }

    /// Gives back what an owner has there.
    pub(crate) async fn unlock(&self, id: HandleId, owner: LockOwner, span: Span) -> Result<(), Error> {
        let handle = self.handle(id)?;
        let Some(file) = self.locks.known(handle.vnode.fid) else {
            return Ok(());
        };
        if file.table.lock().has(owner) {
            let mut server = self.server_of(&file).await?;
            let need = {
                let mut table = file.table.lock();
                table.clear(owner, span);
                table.need(self.locks.scope)
            };
            handle.lost.store(false, Ordering::Release);
            let opener = self.as_identity(handle.who);
            if let Err(error) = opener.bring(&file, &mut server, need).await {
                // The server forgets it by itself.
                tracing::warn!(fid = %file.vnode.fid, %error, "a lock could not be given back");
            }
            self.locks.tell(&file, &server);
            drop(server);
            file.changed.notify_waiters();
        }
        self.locks.tidy(&file);
        Ok(())
    }

    /// Does an owner hold a lock there?
    pub(super) fn has_locks(&self, id: HandleId, owner: LockOwner) -> bool {
        let handle = self.handle(id).ok();
        let file = handle.and_then(|handle| self.locks.known(handle.vnode.fid));
        file.is_some_and(|file| file.table.lock().has(owner))
    }

    /// A handle is gone, and with it what was locked through it.
    pub(super) async fn unlock_handle(&self, id: HandleId, vnode: &Vnode) {
        let Some(file) = self.locks.known(vnode.fid) else {
            return;
        };
        if let Ok(mut server) = self.server_of(&file).await {
            let (had, need) = {
                let mut table = file.table.lock();
                (table.clear_handle(id), table.need(self.locks.scope))
            };
            if had && let Err(error) = self.bring(&file, &mut server, need).await {
                tracing::warn!(fid = %vnode.fid, %error, "a lock is left to end by itself");
            }
            if had {
                self.locks.tell(&file, &server);
            }
        }
        file.changed.notify_waiters();
        self.locks.tidy(&file);
    }

    /// Returns when the locks on a file may have changed: at once when they did here, after a moment in any case.
    /// Cancel safe.
    pub(crate) async fn locks_changed(&self, id: HandleId) {
        let file = self
            .handle(id)
            .ok()
            .and_then(|handle| self.locks.known(handle.vnode.fid));
        match file {
            Some(file) => drop(tokio::time::timeout(ASK_AGAIN, file.changed.notified()).await),
            None => tokio::time::sleep(ASK_AGAIN).await,
        }
    }

    /// A lock of somebody else that excludes what is asked for. The server does not say whose it is.
    pub(crate) async fn lock_conflict(
        &self,
        id: HandleId,
        asked: LockAsked,
    ) -> Result<Option<LockAsked>, Error> {
        let handle = self.handle(id)?;
        let vnode = &handle.vnode;
        let file = self.locks.known(vnode.fid);
        if let Some(file) = &file {
            if let Some(conflict) = file.table.lock().conflict(&asked) {
                return Ok(Some(conflict));
            }
            if self.server_of(file).await?.held.is_some() {
                return Ok(None);
            }
        }
        // On a read-only volume nobody writes, so nobody is excluded.
        if !self.locks.scope.hears_of(asked.span) || vnode.volume.kind.is_read_only() {
            return Ok(None);
        }
        let opener = self.as_identity(handle.who);
        let request = FetchStatusOf {
            fid: vnode.fid.into(),
        };
        let (reply, _) = opener
            .procedure(vnode, Class::Reading, &request, self.until())
            .await?;
        // A count of readers, or less than none: a writer (afs-rpc.md 4.5).
        let kind = match reply.status.lock_count.cast_signed() {
            0 => return Ok(None),
            1.. if asked.kind == LockKind::Shared => return Ok(None),
            1.. => LockKind::Shared,
            _ => LockKind::Exclusive,
        };
        Ok(Some(LockAsked {
            owner: LockOwner(0),
            span: Span::WHOLE,
            kind,
            pid: 0,
        }))
    }

    async fn server_of<'a>(
        &self,
        file: &'a FileLocks,
    ) -> Result<tokio::sync::MutexGuard<'a, ServerLock>, Error> {
        let lock = tokio::time::timeout_at(self.until().into(), file.server.lock()).await;
        lock.map_err(|_| Errno::TIMEDOUT.into())
    }

    /// Has the server hold what is needed. To change the kind is to give it back and to ask anew, between which somebody
    /// else may be faster.
    async fn bring(
        &self,
        file: &FileLocks,
        server: &mut ServerLock,
        need: Option<LockKind>,
    ) -> Result<(), Error> {
        let need = need.filter(|_| !file.vnode.volume.kind.is_read_only());
        let before = server.held;
        if before == need {
            return Ok(());
        }
        if before.is_some() {
            if before == Some(LockKind::Exclusive)
                && let Err(error) = self.store_patiently(&file.vnode, false).await
            {
                // close() will say so.
                tracing::warn!(fid = %file.vnode.fid, %error, "data is not stored while its lock is given back");
            }
            server.held = None;
            if let Err(error) = self.as_identity(server.who).release_lock(&file.vnode).await {
                if need.is_some() {
                    self.lose(file, server);
                }
                return Err(error);
            }
        }
        let Some(kind) = need else { return Ok(()) };
        match self.set_lock(&file.vnode, kind).await {
            Ok(at) => {
                *server = ServerLock {
                    held: need,
                    at: Some(at),
                    who: self.who,
                };
                Ok(())
            }
            Err(error) => {
                // What others here hold must stand all the same.
                if let Some(kind) = before {
                    match self.as_identity(server.who).set_lock(&file.vnode, kind).await {
                        Ok(at) => (server.held, server.at) = (before, Some(at)),
                        Err(_) => self.lose(file, server),
                    }
                }
                Err(error)
            }
        }
    }

    async fn set_lock(&self, vnode: &Vnode, kind: LockKind) -> Result<Instant, Error> {
        let at = clock::now();
        let request = SetLock {
            fid: vnode.fid.into(),
            kind: match kind {
                LockKind::Shared => 0,
                LockKind::Exclusive => 1,
            },
        };
        self.procedure(vnode, Class::Modifying, &request, self.until())
            .await?;
        Ok(at)
    }

    async fn release_lock(&self, vnode: &Vnode) -> Result<(), Error> {
        let request = ReleaseLock {
            fid: vnode.fid.into(),
        };
        self.procedure(vnode, Class::Modifying, &request, self.until())
            .await?;
        Ok(())
    }

    /// The server does not hold for us any more what it did.
    fn lose(&self, file: &FileLocks, server: &mut ServerLock) {
        server.held = None;
        let mut count = 0;
        for held in file.table.lock().iter() {
            held.lost.store(true, Ordering::Release);
            count += 1;
        }
        self.locks.lost.fetch_add(count, Ordering::Relaxed);
        self.locks.tell(file, server);
        tracing::error!(fid = %file.vnode.fid, count, "the server has lost the locks on a file");
        // What the kernel has of it would be shown without asking us.
        self.invalidate(Invalidation::Data(file.vnode.fid));
    }

    /// Extends the locks that servers hold for us, for ever.
    pub(crate) async fn extend_locks(self) {
        let mut next = EXTEND_EVERY;
        loop {
            let _ = tokio::time::timeout(next, self.locks.doubted.notified()).await;
            next = EXTEND_EVERY;
            for file in self.locks.all() {
                let mut server = file.server.lock().await;
                if server.held.is_none() {
                    continue;
                }
                let at = clock::now();
                let owner = self.as_identity(server.who);
                let request = ExtendLock {
                    fid: file.vnode.fid.into(),
                };
                match owner
                    .procedure(&file.vnode, Class::Idempotent, &request, self.until())
                    .await
                {
                    Ok(_) => server.at = Some(at),
                    Err(error) if error.errno() == Errno::INVAL.raw_os_error() => {
                        self.lose(&file, &mut server)
                    }
                    Err(error) => {
                        tracing::warn!(fid = %file.vnode.fid, %error, "a lock could not be extended");
                        next = RETRY_EVERY;
                        let kept = server.at.is_some_and(|at| clock::now() < at + LEASE);
                        if !kept {
                            self.lose(&file, &mut server);
                        }
                    }
                }
            }
        }
    }

    /// Has somebody told what is held on each file, from now on.
    pub(super) fn witness_locks(&self, witness: Witness) {
        *self.locks.witness.lock() = Some(witness);
    }

    /// Takes over what programs held through an earlier process, before anybody else asks. Whether the server has kept it
    /// meanwhile is asked soon.
    pub(super) fn adopt_locks(&self, vnode: &Arc<Vnode>, left: LeftLocks) {
        let file = self.locks.of(vnode);
        let Ok(mut server) = file.server.try_lock() else {
            return;
        };
        let mut table = file.table.lock();
        for (id, asked) in left.held {
            // Closed in the meantime.
            let Ok(handle) = self.handle(id) else { continue };
            handle.lost.store(left.lost, Ordering::Release);
            table.set(Held {
                asked,
                handle: id,
                lost: handle.lost,
            });
        }
        let need = table.need(self.locks.scope);
        drop(table);
        if !left.lost && !vnode.volume.kind.is_read_only() {
            *server = ServerLock {
                held: need,
                at: Some(clock::now()),
                who: left.who,
            };
        }
        drop(server);
        self.locks.doubted.notify_one();
        self.locks.tidy(&file);
    }

    /// What servers hold for us is the next process's.
    pub(super) async fn leave_locks(&self) {
        for file in self.locks.all() {
            file.server.lock().await.held = None;
        }
    }

    /// Gives back what servers hold for us.
    pub(crate) async fn release_locks(&self) {
        for file in self.locks.all() {
            let mut server = file.server.lock().await;
            if server.held.take().is_some()
                && let Err(error) = self.as_identity(server.who).release_lock(&file.vnode).await
            {
                tracing::debug!(fid = %file.vnode.fid, %error, "a lock is left to end by itself");
            }
        }
    }
}

/// As long as a server keeps a lock that nobody extends (afs-rpc.md 4.5).
const LEASE: Duration = Duration::from_mins(5);
const EXTEND_EVERY: Duration = Duration::from_mins(1);
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// Of other machines nobody tells us.
const ASK_AGAIN: Duration = Duration::from_secs(1);
