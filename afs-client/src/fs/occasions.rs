//! When what was written is stored, and what becomes of it if it cannot be.
//!
//! The machine: `close` and `fsync` store, and tell what went wrong, also of a store before them that nobody waited for. A
//! long write is stored while it goes on, and with `--store-behind` a file that is closed; what others have written is stored
//! when there is no room for more. What nobody waits for is tried again as long as that can help, and set aside or given up
//! after that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use tokio::task::JoinSet;

use super::core::Caller;
use crate::auth::tokens::ProofId;
use crate::clock;
use crate::error::Error;
use crate::types::Fid;
use crate::vnode::Vnode;

impl Caller {
    /// Stores whatever else is dirty, all at the same time.
    pub(super) async fn store_others(&self, but: Fid) {
        let mut stores = JoinSet::new();
        for vnode in self.vnodes.all() {
            if vnode.fid != but && vnode.is_modified() {
                let core = self.clone();
                // Its own writer hears of the error when it closes.
                stores.spawn(async move { core.store(&vnode, false).await.is_ok() });
            }
        }
        while stores.join_next().await.is_some() {}
    }

    /// Begins to do so, unless that is under way.
    pub(super) fn begin_store_others(&self, but: Fid) {
        if self.storing_all.swap(true, Ordering::AcqRel) {
            return;
        }
        let core = self.clone();
        self.runtime.spawn(async move {
            core.store_others(but).await;
            core.storing_all.store(false, Ordering::Release);
        });
    }

    /// Begins to store what somebody is still writing, so that there is less left for `close`. What fails of that is dirty as
    /// before: `close` tries again, and tells.
    pub(super) fn store_early(&self, vnode: &Arc<Vnode>) {
        if vnode.doomed.lock().is_some() || vnode.stored_early.swap(true, Ordering::AcqRel) {
            return;
        }
        let (writer, vnode) = (self.clone(), Arc::clone(vnode));
        self.runtime.spawn(async move {
            match writer.store(&vnode, false).await {
                Ok(()) => vnode.stored_early.store(false, Ordering::Release),
                Err(error) => tracing::debug!(fid = %vnode.fid, %error, "left for close to store"),
            }
        });
    }

    /// Stores what is dirty of a file. If the token of who wrote it has expired, the data is held and a new one waited for.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store); `EKEYEXPIRED`: there was no new token in time.
    pub(crate) async fn store_patiently(&self, vnode: &Arc<Vnode>, sync: bool) -> Result<(), Error> {
        let end = clock::now() + self.tokens.rules().patience;
        loop {
            let (writer, cell) = (vnode.writer(), &vnode.volume.cell.name);
            let used = self.tokens.number(writer, cell);
            let Err(error) = self.store(vnode, sync).await else {
                return Ok(());
            };
            // Without a token none can expire, whatever the server says.
            if !is_expiry(&error) || used == Some(ProofId::NONE) {
                return Err(error);
            }
            tracing::warn!(fid = %vnode.fid, %error, "data is held until there is a new token");
            let renewed = self.tokens.renewed(writer, cell, used);
            if tokio::time::timeout_at(end.into(), renewed).await.is_err() {
                return Err(error);
            }
        }
    }

    /// Stores for `close` or `fsync`: what is owed of errors is told, once.
    ///
    /// # Errors
    ///
    /// As [`store_patiently`](Self::store_patiently).
    pub(crate) async fn store_and_tell(&self, vnode: &Arc<Vnode>, sync: bool) -> Result<(), Error> {
        vnode.stored_early.store(false, Ordering::Release);
        let stored = self.store_patiently(vnode, sync).await;
        match vnode.take_owed() {
            Some(owed) => stored.and(Err(owed)),
            None => stored,
        }
    }

    /// May `close` leave it to us? Nothing of it may be lost with the program, and there must be room for more.
    pub(super) fn stores_behind(&self, vnode: &Vnode) -> bool {
        self.store_behind && !self.cache.is_too_dirty(0) && vnode.data().is_journaled()
    }

    /// Stores what `close` could not, or did not wait for. What a server has refused is given up if `close` has said so, and
    /// set aside if nobody was told. What did not reach a server, or waits for a token or for space, is kept for a later try.
    pub(crate) async fn store_late(&self, vnode: &Arc<Vnode>) {
        let is_earlier = vnode.data().author().is_earlier;
        let is_untold = is_earlier || self.store_behind;
        let Err(error) = self.store(vnode, false).await else {
            if is_earlier {
                tracing::info!(fid = %vnode.fid, "what an earlier program had not stored is stored");
            }
            return;
        };
        let mut waits = vec![Errno::TIMEDOUT, Errno::KEYEXPIRED];
        if self.store_behind {
            waits.extend([Errno::DQUOT, Errno::NOSPC]);
        }
        let is = |errno: &Errno| error.errno() == errno.raw_os_error();
        if !vnode.is_unstored() {
            // It was set aside.
        } else if is(&Errno::NOKEY) {
            tracing::debug!(fid = %vnode.fid, %error, "data is kept");
        } else if waits.iter().any(is) {
            tracing::warn!(fid = %vnode.fid, %error, "data is kept until it can be stored");
        } else if self.store_behind && !is_earlier && is(&Errno::NOENT) {
            tracing::debug!(fid = %vnode.fid, "it was removed before it was stored");
            self.give_up(vnode);
        } else if is_untold {
            self.set_aside(vnode, &format!("the server refused it: {error}"));
        } else if vnode.opens.load(Ordering::Acquire) == 0 {
            tracing::error!(fid = %vnode.fid, %error, "data that the server refused is given up");
            self.give_up(vnode);
        }
    }
}

fn is_expiry(error: &Error) -> bool {
    error.errno() == Errno::KEYEXPIRED.raw_os_error()
}
