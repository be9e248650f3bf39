//! What all operations share: status, data and the bookkeeping of promises.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use rxrpc::net::Endpoint;
use tokio::sync::mpsc;

use super::types::{HandleId, Invalidation};
use crate::cell::Cells;
use crate::clock;
use crate::error::{Error, vice};
use crate::op::{Attempt, Class, Rotation};
use crate::rpc::Procedure;
use crate::rpc::client::{RpcError, call};
use crate::rpc::fs::FetchStatusOf;
use crate::rpc::types::{AfsUuid, CallBack, FetchStatus};
use crate::server::Servers;
use crate::store::DataCache;
use crate::types::Fid;
use crate::vnode::promise::{Breaks, Issued, Promise, Stamp};
use crate::vnode::status::Status;
use crate::vnode::{Vnode, Vnodes};
use crate::volume::{Volume, Volumes};

/// The file system behind [`AfsFs`](super::AfsFs).
pub(crate) struct Core {
    pub(crate) cells: Arc<Cells>,
    pub(crate) endpoint: Endpoint,
    pub(crate) servers: Arc<Servers>,
    pub(crate) volumes: Volumes,
    pub(crate) vnodes: Vnodes,
    pub(crate) cache: DataCache,
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
    pub(crate) broken: crate::events::BreakCounts,
    pub(crate) started: Instant,
    pub(crate) tasks: Mutex<Vec<tokio::task::AbortHandle>>,
    pub(crate) counts: super::counts::Counts,
    pub(crate) requests: Arc<crate::rpc::serve::RequestCounts>,
}

/// The counters that were noted before a call, for one vnode.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    stamp: Stamp,
    issued: Issued,
}

impl Noted {
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
        self.vnodes
            .get_or_make(fid, || Vnode::new(fid, Arc::clone(volume), self.cache.file()))
    }

    /// Notes the counters before a call is sent.
    pub(crate) fn note(&self, vnode: &Vnode, attempt: &Attempt) -> Noted {
        let stamp = vnode.stamp(&self.all);
        Noted {
            stamp,
            issued: Issued {
                at: attempt.at,
                server: Arc::clone(&attempt.server),
                server_inits: attempt.server.init_counter(),
                unknown: self.unknown.count(),
            },
        }
    }

    /// Takes over what a reply says about a vnode.
    pub(crate) fn learn(
        &self,
        vnode: &Vnode,
        wire: &FetchStatus,
        callback: Option<&CallBack>,
        noted: &Noted,
    ) -> Result<Status, Error> {
        let status = Status::check(vnode.fid, wire).map_err(|bad| {
            tracing::warn!(fid = %vnode.fid, server = ?noted.issued.server.id(), %bad, "server sent a bad status");
            Error::new(Errno::IO, format!("bad status of {}: {bad}", vnode.fid))
        })?;
        let promise = callback
            .filter(|_| noted.issued.unknown == self.unknown.count())
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
        vnode.learn(status, promise, clock::now(), &self.all);
        if !vnode.data.is_modified() {
            let now = vnode.status().unwrap_or(status);
            vnode.data.set_server(now.version, now.size);
        }
        Ok(status)
    }

    /// The status of a vnode and how long it stands; asks the server if it cannot be relied on.
    pub(crate) async fn status(&self, vnode: &Arc<Vnode>) -> Result<(Status, Duration), Error> {
        let deadline = self.until();
        if let Some(valid) = vnode.valid(clock::now(), &self.all) {
            self.counts.status_hit();
            return Ok(valid);
        }
        let _one = tokio::time::timeout_at(deadline.into(), vnode.fetching.lock())
            .await
            .map_err(|_| Errno::TIMEDOUT)?;
        if let Some(valid) = vnode.valid(clock::now(), &self.all) {
            return Ok(valid);
        }
        self.counts.status_miss();
        let request = FetchStatusOf {
            fid: vnode.fid.into(),
        };
        let (reply, noted) = self
            .procedure(vnode, Class::Idempotent, &request, deadline)
            .await?;
        let status = self.learn(vnode, &reply.status, Some(&reply.callback), &noted)?;
        Ok(vnode
            .valid(clock::now(), &self.all)
            .unwrap_or((status, Duration::ZERO)))
    }

    /// Calls a procedure of a server of the vnode's volume. The counters of the vnode are noted before.
    pub(crate) async fn procedure<P: Procedure>(
        &self,
        vnode: &Vnode,
        class: Class,
        request: &P,
        deadline: Instant,
    ) -> Result<(P::Reply, Noted), Error> {
        let mut rotation = Rotation::new(&self.volumes, Arc::clone(&vnode.volume), class, deadline);
        loop {
            let attempt = rotation.next().await?;
            let noted = self.note(vnode, &attempt);
            match call(&self.endpoint, &attempt.target, request).await {
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

    pub(crate) fn invalidate(&self, what: Invalidation) {
        // Nobody listens when the kernel has gone.
        let _ = self.invalidations.send(what);
    }
}
