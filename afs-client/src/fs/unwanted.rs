//! Promises that nobody needs any more, given back to their servers in batches (cache-manager.md 5; OpenAFS `afs_FlushVCBs`).
//!
//! The machine: a vnode that leaves the table leaves its promise here. When as many wait as one call can name, or a while has
//! passed, the call is made. Meanwhile somebody may ask for the object again. As long as the promise waits it is simply kept. Once
//! the call is on its way nobody knows which of the two questions the server hears first: a promise counts then only if it was
//! asked for after the answer; if no answer came, only after a time in which the server must have forgotten the call.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::core::Core;
use super::tasks::short_call;
use crate::clock;
use crate::events::GivenUp;
use crate::rpc::client::call;
use crate::rpc::fs::GiveUpCallBacks;
use crate::rpc::types::{BULK_MAX, CallBack};
use crate::types::Fid;
use crate::vnode::Vnode;
use crate::xdr::List;

/// Promises of one server, to be given up in one call.
#[derive(Debug)]
pub(crate) struct Batch {
    peer: SocketAddrV4,
    cell: Arc<str>,
    fids: Vec<Fid>,
}

/// The promises that nobody needs.
#[derive(Debug, Default)]
pub(crate) struct Unwanted {
    /// Is there anything? Most replies need not look further.
    any: AtomicBool,
    /// A call is full.
    full: Notify,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: HashMap<SocketAddrV4, Batch>,
    full: Vec<Batch>,
    /// What is being given up, or was: promises asked for before that time do not count. None: the call is on its way.
    gone: HashMap<Fid, Option<Instant>>,
}

impl Unwanted {
    /// Takes a promise over.
    fn add(&self, peer: SocketAddrV4, cell: &Arc<str>, fid: Fid) {
        let mut state = self.state.lock();
        if state.gone.len() >= GONE_MAX || state.waiting.len() >= SERVERS_MAX {
            // The server will tell of a change, and hear that we do not know the object.
            return;
        }
        self.any.store(true, Ordering::Release);
        let batch = state.waiting.entry(peer).or_insert_with(|| Batch {
            peer,
            cell: Arc::clone(cell),
            fids: Vec::new(),
        });
        batch.fids.push(fid);
        if batch.fids.len() >= FULL
            && let Some(batch) = state.waiting.remove(&peer)
        {
            state.sent(&batch);
            state.full.push(batch);
            self.full.notify_one();
        }
    }

    /// What is full, or all.
    fn take(&self, all: bool, now: Instant) -> Vec<Batch> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut state = self.state.lock();
        let mut batches = std::mem::take(&mut state.full);
        if all {
            let waiting: Vec<_> = state.waiting.drain().map(|(_, batch)| batch).collect();
            waiting.iter().for_each(|batch| state.sent(batch));
            batches.extend(waiting);
            let remembered = |until: &Option<Instant>| until.is_none_or(|until| until + REMEMBERED > now);
            state.gone.retain(|_, until| remembered(until));
            self.any.store(!state.gone.is_empty(), Ordering::Release);
        }
        batches
    }

    /// Promises of a batch that were asked for up to then do not count.
    fn gone(&self, batch: &Batch, until: Instant) {
        let mut state = self.state.lock();
        state
            .gone
            .extend(batch.fids.iter().map(|fid| (*fid, Some(until))));
    }

    /// Does a promise on the object count that was asked for at this time? It is wanted again.
    pub(crate) fn counts(&self, fid: Fid, asked: Instant) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return true;
        }
        let mut state = self.state.lock();
        for batch in state.waiting.values_mut() {
            batch.fids.retain(|unwanted| *unwanted != fid);
        }
        match state.gone.get(&fid) {
            None => true,
            Some(Some(until)) if *until < asked => {
                state.gone.remove(&fid);
                true
            }
            Some(_) => false,
        }
    }
}

impl State {
    fn sent(&mut self, batch: &Batch) {
        self.gone.extend(batch.fids.iter().map(|fid| (*fid, None)));
    }
}

impl Core {
    /// Vnodes that have left the table. A promise on a read-only volume is on all of it, and stays.
    pub(crate) fn dropped(&self, vnodes: Vec<Arc<Vnode>>) {
        let now = clock::now();
        for vnode in vnodes {
            if !vnode.volume.kind.is_read_only()
                && let Some(server) = vnode.promised_by(now, &self.all)
                && let Some(peer) = server.best_address(|_| false)
            {
                let cell = vnode.volume.cell.name.shared();
                self.unwanted.add(peer, cell, vnode.fid);
            }
            self.leads_no_more(vnode.fid, vnode.last_mounted());
            // Its data goes back to the cache.
            vnode.keep_contents();
        }
    }

    async fn give_up(&self, batch: Batch) {
        let dropped = CallBack {
            version: 1,
            expiration_time: 0,
            callback_type: DROPPED,
        };
        let request = GiveUpCallBacks {
            fids: List(batch.fids.iter().map(|fid| (*fid).into()).collect()),
            callbacks: List(batch.fids.iter().map(|_| dropped).collect()),
        };
        let target = short_call(batch.peer, Arc::clone(&batch.cell));
        let done = call(&self.endpoint, &target, &request).await;
        let (what, until) = match &done {
            Ok(_) => (GivenUp::Done, clock::now()),
            Err(error) => {
                tracing::debug!(peer = %batch.peer, %error, "promises not given up");
                (GivenUp::Failed, clock::now() + UNHEARD)
            }
        };
        self.counts.given_up.add(what, batch.fids.len() as u64);
        self.unwanted.gone(&batch, until);
    }
}

/// Gives promises up as soon as a call is full of them, and the rest after a while. For ever.
pub(super) async fn give_up_unwanted(core: Arc<Core>) {
    let mut next = clock::now() + WAIT;
    loop {
        let all = tokio::select! {
            () = core.unwanted.full.notified() => false,
            () = clock::sleep_until(next) => true,
        };
        let now = clock::now();
        if all {
            next = now + WAIT;
        }
        for batch in core.unwanted.take(all, now) {
            core.give_up(batch).await;
        }
    }
}

/// So long promises wait at most for others.
const WAIT: Duration = Duration::from_secs(20);
/// CB_DROPPED of `afsint.xg`.
const DROPPED: u32 = 3;
/// As many as a call may name.
const FULL: usize = BULK_MAX as usize;
/// No more are remembered as gone, and no more servers have some that wait.
const GONE_MAX: usize = 16_384;
const SERVERS_MAX: usize = 256;
/// A server may hear of a call so long after we have given it up.
const UNHEARD: Duration = Duration::from_secs(120);
/// A reply does not come later than this after its call was made.
const REMEMBERED: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::types::{CellId, Uniquifier, VnodeId, VolumeId};

    fn fid(number: u32) -> Fid {
        Fid {
            cell: CellId(1),
            volume: VolumeId(7),
            vnode: VnodeId(number),
            unique: Uniquifier(1),
        }
    }

    #[test]
    fn a_promise_that_is_wanted_again_counts_unless_its_end_is_under_way() {
        let unwanted = Unwanted::default();
        let (peer, cell) = (SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000), "x.example".into());
        let at = |seconds| clock::now() + Duration::from_secs(seconds);
        let (early, now, late) = (clock::now(), at(10), at(20));
        assert!(unwanted.counts(fid(1), early));
        for number in 1..=3 {
            unwanted.add(peer, &cell, fid(number));
        }
        assert!(unwanted.counts(fid(1), early), "it waits still");
        let batches = unwanted.take(true, now);
        assert_eq!(batches.len(), 1);
        assert_eq!(batches[0].fids, [fid(2), fid(3)], "1 is wanted");
        assert!(
            !unwanted.counts(fid(2), early) && !unwanted.counts(fid(2), late),
            "it is on its way"
        );
        unwanted.gone(&batches[0], now);
        assert!(!unwanted.counts(fid(2), early), "which of the two came first?");
        assert!(unwanted.counts(fid(2), late));
        assert!(unwanted.counts(fid(2), early), "and has counted since");
        assert!(!unwanted.counts(fid(3), early));
        unwanted.take(true, now + REMEMBERED + UNHEARD);
        assert!(unwanted.counts(fid(3), early) && unwanted.state.lock().gone.is_empty());
    }

    #[test]
    fn a_call_names_as_many_as_it_can_and_what_is_kept_is_bounded() {
        let unwanted = Unwanted::default();
        let (peer, cell) = (SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000), "x.example".into());
        (0..40_000).for_each(|number| unwanted.add(peer, &cell, fid(number)));
        let full = unwanted.take(false, clock::now());
        assert!(full.iter().all(|batch| batch.fids.len() == FULL));
        assert_eq!(full.len(), GONE_MAX.div_ceil(FULL));
    }
}
