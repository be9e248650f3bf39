//! What all operations share: status, data and the bookkeeping of promises.
//!
//! The machine: what is known of an object is shared by all who ask, but nothing of it is given to somebody whose rights
//! on that object are not known: then the server is asked as that somebody, and its answer says both. The kernel's own
//! caches tell users not apart: it is told to keep only what anybody may see.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use rustix::io::Errno;
use rxrpc::net::Endpoint;
use tokio::sync::mpsc;

use super::series::Opens;
use super::types::{Fakestat, HandleId, Invalidation, Kind};
use crate::auth::tokens::{Identity, Proof, ProofId, Tokens};
use crate::cell::Cells;
use crate::clock;
use crate::error::{Error, vice};
use crate::events::{Broken, Cached, Misfit, Tally};
use crate::hidden::Hidden;
use crate::history::{About, History};
use crate::op::{Attempt, Class, Rotation};
use crate::rpc::Procedure;
use crate::rpc::client::RpcError;
use crate::rpc::fs::FetchStatusOf;
use crate::rpc::types::{AfsUuid, CallBack, FetchStatus};
use crate::server::Servers;
use crate::store::{DataCache, Left};
use crate::sysname::SysNames;
use crate::types::Fid;
use crate::vnode::promise::{Breaks, Issued, Promise, Stamp};
use crate::vnode::status::{LOOKUP, OWNER, Status};
use crate::vnode::{Told, Vnode, Vnodes};
use crate::volume::{Volume, Volumes};

/// The file system behind [`AfsFs`](super::AfsFs).
pub(crate) struct Core {
    pub(crate) cells: Arc<Cells>,
    pub(crate) endpoint: Endpoint,
    /// Where what nobody waits for is done, whoever notices that it should be.
    pub(crate) runtime: tokio::runtime::Handle,
    /// All that is dirty is being stored, to make room.
    pub(super) storing_all: AtomicBool,
    pub(crate) servers: Arc<Servers>,
    pub(crate) volumes: Volumes,
    pub(crate) vnodes: Vnodes,
    pub(crate) cache: DataCache,
    pub(super) store_behind: bool,
    pub(crate) read_only: bool,
    pub(crate) deadline: Duration,
    pub(crate) uuid: AfsUuid,
    pub(crate) handles: Mutex<HashMap<HandleId, super::data::Handle>>,
    pub(crate) next_handle: AtomicU64,
    pub(crate) invalidations: mpsc::UnboundedSender<Invalidation>,
    pub(crate) queue: Mutex<Option<mpsc::UnboundedReceiver<Invalidation>>>,
    /// Breaks of everything.
    pub(crate) all: Breaks,
    /// Breaks of FIDs that were not in the table: a reply that was under way then makes no promise.
    pub(crate) unknown: Breaks,
    pub(crate) broken: Tally<Broken>,
    pub(crate) started: Instant,
    pub(crate) tokens: Tokens,
    pub(crate) tasks: Mutex<Vec<tokio::task::AbortHandle>>,
    pub(crate) counts: super::counts::Counts,
    pub(crate) requests: Arc<crate::rpc::serve::RequestCounts>,
    pub(crate) locks: super::locking::Locks,
    pub(crate) sysnames: SysNames,
    pub(super) fakestat: Fakestat,
    /// The roots of the cells in the directory of cells that were entered.
    pub(super) cell_roots: Mutex<HashMap<Fid, Fid>>,
    pub(crate) hidden: Hidden,
    pub(crate) history: History,
    /// How files of the directories that were read from last are opened.
    pub(super) series: Mutex<LruCache<Fid, Opens>>,
    pub(crate) unwanted: super::unwanted::Unwanted,
    /// A volume may have been released.
    pub(crate) released: tokio::sync::Notify,
}

/// The file system as one identity sees it.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) core: Arc<Core>,
    pub(crate) who: Identity,
}

impl Deref for Caller {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

/// What was noted before a call, for one vnode: the counters, and what the call was made with.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    stamp: Stamp,
    issued: Issued,
    proof: ProofId,
    changes: u64,
}

impl Noted {
    /// Was nothing broken since that concerns the vnode?
    fn is_current(&self, vnode: &Vnode, core: &Core) -> bool {
        self.stamp == vnode.stamp(&core.all)
            && self.issued.server_inits == self.issued.server.init_counter()
            && self.issued.unknown == core.unknown.count()
    }

    /// The same call, for an object that its reply is the first to speak of.
    pub(crate) fn for_new(&self, vnode: &Vnode, all: &Breaks) -> Self {
        let stamp = Stamp {
            volume: self.stamp.volume,
            all: self.stamp.all,
            ..vnode.stamp(all)
        };
        Self {
            stamp,
            issued: self.issued.clone(),
            changes: vnode.changes(),
            ..*self
        }
    }
}

impl Core {
    pub(crate) fn until(&self) -> Instant {
        clock::now() + self.deadline
    }

    /// The vnode of a FID whose volume was entered.
    pub(crate) fn vnode(&self, fid: Fid) -> Result<Arc<Vnode>, Error> {
        if let Some(vnode) = self.vnodes.get(fid) {
            return Ok(vnode);
        }
        let volume = self.volumes.get(fid.cell, fid.volume).ok_or(Errno::STALE)?;
        Ok(self.vnode_in(fid, &volume))
    }

    /// The vnode of a FID in this volume.
    pub(crate) fn vnode_in(&self, fid: Fid, volume: &Arc<Volume>) -> Arc<Vnode> {
        if let Some(vnode) = self.vnodes.get(fid) {
            return vnode;
        }
        let make = || Vnode::new(fid, Arc::clone(volume), self.cache.clone());
        let (vnode, dropped) = self.vnodes.get_or_make(fid, make);
        self.dropped(dropped);
        vnode
    }

    /// Has the kernel forget something. What it knows by mount points too it forgets there as well.
    pub(crate) fn invalidate(&self, what: Invalidation) {
        let fid = match &what {
            Invalidation::Node(fid) | Invalidation::Data(fid) | Invalidation::Entry { dir: fid, .. } => *fid,
            Invalidation::All => return self.tell(Invalidation::All),
        };
        if fid.vnode.is_directory()
            && let Some(vnode) = self.vnodes.peek(fid)
        {
            for point in vnode.points() {
                self.tell(match &what {
                    Invalidation::Data(_) => Invalidation::Data(point),
                    Invalidation::Entry { name, .. } => Invalidation::Entry {
                        dir: point,
                        name: name.clone(),
                    },
                    _ => Invalidation::Node(point),
                });
            }
        }
        self.tell(what);
    }

    fn tell(&self, what: Invalidation) {
        // Nobody listens when the kernel has gone.
        let _ = self.invalidations.send(what);
    }
}

impl Caller {
    /// The file system as nobody in particular sees it.
    pub(crate) fn nobody(core: &Arc<Core>) -> Self {
        let core = Arc::clone(core);
        let who = Identity::Nobody;
        Self { core, who }
    }

    /// The vnode of a file that an earlier program has left changes of.
    pub(crate) async fn vnode_of_left(&self, left: &Left) -> Result<Arc<Vnode>, Error> {
        let cell = self.cells.resolve(&left.cell).await?;
        let volume = self.volumes.enter_id(&cell, left.volume, self.until()).await?;
        let fid = Fid {
            vnode: left.vnode,
            unique: left.unique,
            ..volume.root()
        };
        let vnode = self.vnode_in(fid, &volume);
        // It is not forgotten while it has data that is not stored.
        vnode.data();
        Ok(vnode)
    }

    /// The same file system, as somebody else sees it.
    pub(crate) fn as_identity(&self, who: Identity) -> Self {
        let core = Arc::clone(&self.core);
        Self { core, who }
    }

    /// What calls about this vnode are made with.
    pub(crate) fn proof(&self, vnode: &Vnode, class: Class) -> Result<Proof, Error> {
        self.tokens.proof(self.who, &vnode.volume.cell.name, class)
    }

    /// The servers to try for a call of this procedure about this vnode.
    pub(crate) fn rotation(
        &self,
        vnode: &Vnode,
        procedure: &'static str,
        class: Class,
        deadline: Instant,
    ) -> Result<Rotation<'_>, Error> {
        let proof = self.proof(vnode, class)?;
        let volume = Arc::clone(&vnode.volume);
        let about = About {
            fid: vnode.fid,
            who: self.who,
            procedure,
        };
        let told = (&self.core.history, about);
        Ok(Rotation::new(
            &self.core.volumes,
            volume,
            told,
            class,
            deadline,
            proof,
        ))
    }

    /// The status with the rights of the caller, and how long both stand; `None` if either is not known.
    pub(crate) fn valid(&self, vnode: &Vnode) -> Option<(Status, Duration)> {
        let proof = self.proof(vnode, Class::Reading).ok()?.id;
        let now = clock::now();
        // Before the status: what is stored in between is in that.
        let noted = vnode.noted();
        let (status, left, told) = vnode.valid(now, &self.all, proof)?;
        let mut status = status.with(noted);
        if status.kind == Kind::Directory {
            status.access = told?;
            return Some((status, left));
        }
        // Its rights are those of its directory, by whose promise we hear of a changed ACL.
        let directory = self.vnodes.peek(status.directory_of(vnode.fid))?;
        let (access, directory_left) = directory.rights(now, &self.all, proof)?;
        status.access = (access & !OWNER) | (told.unwrap_or(0) & OWNER);
        let is_shown = status.kind == Kind::Symlink || status.is_readable_with(status.access);
        if !is_shown || (told.is_none() && status.depends_on_owner(status.access)) {
            return None;
        }
        Some((status, left.min(directory_left)))
    }

    /// The rights of the caller are others now. What the kernel keeps of it for everybody is of no use then; of what only
    /// some may see it keeps nothing.
    pub(crate) fn rights_changed(&self) {
        if self.who == Identity::Everybody {
            self.invalidate(Invalidation::All);
        }
    }

    /// For how long the kernel, which shows it to everybody, may keep what stands for `ttl`.
    pub(crate) fn kept(&self, status: &Status, ttl: Duration) -> Duration {
        if self.who == Identity::Everybody || status.is_readable_with(status.public) {
            ttl
        } else {
            Duration::ZERO
        }
    }

    /// Notes the counters before a call is sent.
    pub(crate) fn note(&self, vnode: &Vnode, attempt: &Attempt) -> Noted {
        Noted {
            proof: attempt.proof,
            changes: vnode.changes(),
            stamp: vnode.stamp(&self.all),
            issued: Issued {
                at: attempt.at,
                server: Arc::clone(&attempt.server),
                server_inits: attempt.server.init_counter(),
                unknown: self.unknown.count(),
            },
        }
    }

    /// Takes over what a reply says about a vnode: of a change of ours, if no promise comes with it. If that cannot be, what was
    /// known of it counts no more: no break tells of a change of ours.
    pub(crate) fn learn(
        &self,
        vnode: &Vnode,
        wire: &FetchStatus,
        callback: Option<&CallBack>,
        noted: &Noted,
    ) -> Result<Status, Error> {
        let status = Status::check(vnode.fid.vnode, wire).map_err(|bad| {
            tracing::warn!(fid = %vnode.fid, server = ?noted.issued.server.id(), %bad, "server sent a bad status");
            vnode.distrust();
            self.invalidate(Invalidation::Node(vnode.fid));
            Error::new(Errno::IO, format!("bad status of {}: {bad}", vnode.fid))
        })?;
        let promise = callback
            .filter(|_| noted.issued.unknown == self.unknown.count())
            .filter(|_| self.unwanted.counts(vnode.fid, noted.issued.at))
            .filter(|_| !vnode.volume.is_reserve(&noted.issued.server))
            .and_then(|callback| {
                Promise::from_reply(
                    callback,
                    noted.stamp,
                    &noted.issued,
                    vnode.volume.kind.is_read_only(),
                )
            });
        if let Some(promise) = &promise {
            promise.server().record_promise(promise.expires_at());
        }
        let told = Told {
            proof: noted.proof,
            is_current: noted.is_current(vnode, self),
            is_change: callback.is_none(),
            changes: noted.changes,
        };
        vnode.learn(status, promise, told, clock::now(), &self.all);
        vnode.tell_data();
        Ok(status)
    }

    /// The status of a vnode with the rights of the caller, and how long both stand; asks the server if they cannot be
    /// relied on.
    pub(crate) async fn status(&self, vnode: &Arc<Vnode>) -> Result<(Status, Duration), Error> {
        if let Some(valid) = self.valid(vnode) {
            self.counts.hits.count(Cached::Status);
            return Ok(valid);
        }
        // Known, but not what the caller may do there: the directory says that for all that is in it.
        if let Some(known) = vnode.status()
            && known.kind != Kind::Directory
            && vnode.stands(clock::now(), &self.all).is_some()
        {
            self.rights_of_directory(vnode, &known).await;
            if let Some(valid) = self.valid(vnode) {
                return Ok(valid);
            }
        }
        let status = self.fetch_status(vnode).await?;
        if status.kind != Kind::Directory && self.valid(vnode).is_none() {
            self.rights_of_directory(vnode, &status).await;
        }
        Ok(self.valid(vnode).unwrap_or((status, Duration::ZERO)))
    }

    /// Finds out what the caller may do in the directory of what is none itself. If that fails the object's own status is
    /// asked for each time.
    async fn rights_of_directory(&self, vnode: &Vnode, status: &Status) {
        let directory = self.vnode_in(status.directory_of(vnode.fid), &vnode.volume);
        let proof = self.proof(vnode, Class::Reading).map(|proof| proof.id);
        let known = proof.is_ok_and(|proof| directory.rights(clock::now(), &self.all, proof).is_some());
        if !known && let Err(error) = self.fetch_status(&directory).await {
            tracing::debug!(fid = %directory.fid, %error, "the rights to a directory are not known");
        }
    }

    pub(super) async fn fetch_status(&self, vnode: &Arc<Vnode>) -> Result<Status, Error> {
        let deadline = self.until();
        let _one = tokio::time::timeout_at(deadline.into(), vnode.fetching.lock())
            .await
            .map_err(|_| Errno::TIMEDOUT)?;
        if let Some((status, _)) = self.valid(vnode) {
            return Ok(status);
        }
        self.counts.misses.count(Cached::Status);
        let request = FetchStatusOf {
            fid: vnode.fid.into(),
        };
        let (reply, noted) = self.procedure(vnode, Class::Reading, &request, deadline).await?;
        let told = self.learn(vnode, &reply.status, Some(&reply.callback), &noted)?;
        // A change of ours may have overtaken it.
        Ok(vnode.status().map_or(told, |known| Status {
            access: told.access,
            ..known
        }))
    }

    /// A server of a read-only volume has said what cannot be, and is left alone for a while. Is there another one to ask?
    pub(crate) fn turns_away(&self, vnode: &Vnode, noted: &Noted, error: &Error) -> bool {
        let (volume, server, now) = (&vnode.volume, &noted.issued.server, clock::now());
        if !volume.kind.is_read_only() {
            return false;
        }
        self.history.misfits.count(Misfit::Nonsense);
        server.record_outcome(now, true);
        volume.leave_alone(server, Misfit::Nonsense, error.to_string(), now);
        let mut others = volume.servers().into_iter();
        others.any(|other| other.is_up() && !volume.is_left_alone(&other, now))
    }

    /// May the caller see the attributes of a directory, the status of which they were given? The servers give it to
    /// everybody. Who may neither search it nor the directory that it is in has no business with it; the root of a volume
    /// is in another one.
    pub(crate) async fn may_see(&self, vnode: &Vnode, status: &Status) -> Result<(), Error> {
        if status.kind != Kind::Directory || status.access & LOOKUP != 0 || vnode.fid == vnode.volume.root() {
            return Ok(());
        }
        let parent = self.vnode_in(status.directory_of(vnode.fid), &vnode.volume);
        let (parent, _) = self.status(&parent).await?;
        parent.may_search()
    }

    /// Calls a procedure of a server of the vnode's volume. The counters of the vnode are noted before.
    pub(crate) async fn procedure<P: Procedure>(
        &self,
        vnode: &Vnode,
        class: Class,
        request: &P,
        deadline: Instant,
    ) -> Result<(P::Reply, Noted), Error> {
        let mut rotation = self.rotation(vnode, P::NAME, class, deadline)?;
        loop {
            let attempt = rotation.next().await?;
            let (attempt, noted, result) = self.call_hedged(vnode, &rotation, attempt, request).await;
            match result {
                Ok(reply) => {
                    rotation.succeeded(&attempt);
                    return Ok((reply, noted));
                }
                Err(error) => {
                    self.on_error(vnode, &error);
                    tracing::debug!(fid = %vnode.fid, procedure = P::NAME, %error, "refused or lost");
                    rotation.failed(&attempt, error).await?;
                }
            }
        }
    }

    /// What an error tells about the vnode itself.
    pub(crate) fn on_error(&self, vnode: &Vnode, error: &RpcError) {
        match error {
            // It is gone: nothing that is known of it counts.
            RpcError::Aborted(code) if code.0 == vice::NO_VNODE => {
                vnode.distrust();
                self.invalidate(Invalidation::Node(vnode.fid));
            }
            // What became of the call is not known.
            RpcError::Transport(_) => vnode.distrust(),
            _ => {}
        }
    }
}
