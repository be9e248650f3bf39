//! What goes on by itself: servers are probed, ways for callbacks kept open, what could not be stored is tried again.
//!
//! The machine: each is a task that sleeps until it is time, or until it is woken; all end with the file system.

use std::collections::HashMap;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rxrpc::net::{KeepOpen, Target};
use rxrpc::proto::{CallLimits, ServiceId};
use tokio::task::AbortHandle;

use super::core::{Caller, Core};
use super::unwanted::give_up_unwanted;
use crate::clock;
use crate::hidden::{HiddenFile, Hiding};
use crate::rpc::client::call;
use crate::rpc::fs::{GetTime, GiveUpAllCallBacks};
use crate::rpc::vl::ProbeServer;
use crate::store::{Left, Writer};

/// Starts them. `left` is what an earlier program has not stored.
pub(super) fn start(core: &Arc<Core>, left: Vec<Left>) -> [AbortHandle; 7] {
    [
        tokio::spawn(left_behind(Caller::nobody(core), left)),
        tokio::spawn(probe_servers(Arc::clone(core))),
        tokio::spawn(keep_callbacks_open(Arc::clone(core))),
        tokio::spawn(store_leftovers(Caller::nobody(core))),
        tokio::spawn(Caller::nobody(core).extend_locks()),
        tokio::spawn(give_up_unwanted(Arc::clone(core))),
        tokio::spawn(follow_releases(Arc::clone(core))),
    ]
    .map(|task| task.abort_handle())
}

impl Core {
    /// Tells every server that holds promises for us that they are not needed any more.
    pub(super) async fn give_up_promises(&self) {
        let now = clock::now();
        let mut told = Vec::new();
        for vnode in self.vnodes.all() {
            let Some(server) = vnode.promised_by(now, &self.all) else {
                continue;
            };
            let Some(peer) = server.best_address(|_| false) else {
                continue;
            };
            if told.contains(&peer) {
                continue;
            }
            told.push(peer);
            let target = short_call(peer, Arc::clone(vnode.volume.cell.name.shared()));
            if let Err(error) = call(&self.endpoint, &target, &GiveUpAllCallBacks {}).await {
                tracing::debug!(%peer, %error, "promises not given up");
            }
        }
    }
}

/// A call that is given up soon.
pub(super) fn short_call(peer: SocketAddrV4, scope: Arc<str>) -> Target {
    let limits = CallLimits {
        dead_in: SHORT,
        idle_in: None,
        hard_in: Some(SHORT),
    };
    Target {
        scope,
        limits,
        ..Target::new(peer, ServiceId(FILE_SERVICE))
    }
}

/// Follows volumes from site to site while they are released: at each break, and after a while, since the end is not told. For
/// ever.
async fn follow_releases(core: Arc<Core>) {
    loop {
        tokio::select! {
            // The break comes before the database knows.
            () = core.released.notified() => clock::sleep_until(clock::now() + SETTLE).await,
            () = clock::sleep_until(clock::now() + RELEASES_EVERY) => {}
        }
        for turned in core.volumes.relocate_released(SHORT).await {
            core.invalidate_all_of(|vnode| Arc::ptr_eq(&vnode.volume, &turned));
        }
    }
}

/// Asks servers that are down whether they are up again, and those that were silent for a while whether they still
/// know us: one that has restarted says at the first contact that it has forgotten its promises. For ever.
async fn probe_servers(core: Arc<Core>) {
    loop {
        clock::sleep_until(clock::now() + PROBE_EVERY).await;
        // The nearer of two copies is the better one.
        for peer in core.endpoint.peers() {
            if let Some(rtt) = peer.rtt
                && let Some(server) = core.servers.by_address(*peer.address.ip())
            {
                server.record_rtt(peer.address, rtt.smoothed);
            }
        }
        for cell in core.cells.known() {
            for location in cell.reach.iter().filter(|location| !location.is_up()) {
                for peer in location.down_addresses() {
                    let target = Target {
                        service: ServiceId(LOCATION_SERVICE),
                        ..short_call(peer, Arc::clone(cell.name.shared()))
                    };
                    if call(&core.endpoint, &target, &ProbeServer {}).await.is_ok()
                        && location.mark_up(peer, clock::now()).is_some()
                    {
                        tracing::info!(server = %peer, "location server answers again");
                    }
                }
            }
        }
        for server in core.servers.list() {
            let now = clock::now();
            let mut peers = server.down_addresses();
            let silent = server
                .last_contact()
                .is_some_and(|at| now.saturating_duration_since(at) > SILENCE);
            peers.extend(server.best_address(|_| false).filter(|_| silent));
            for peer in peers {
                let target = short_call(peer, Arc::clone(core.cells.home().shared()));
                if call(&core.endpoint, &target, &GetTime {}).await.is_ok()
                    && server.mark_up(peer, clock::now()).is_some()
                {
                    tracing::info!(server = %peer, "file server answers again");
                }
            }
        }
    }
}

/// Keeps the way open for the callbacks of the servers that have promised us some, at the address that they are called
/// at. For ever.
async fn keep_callbacks_open(core: Arc<Core>) {
    let mut open: HashMap<SocketAddrV4, KeepOpen> = HashMap::new();
    loop {
        let now = clock::now();
        let servers = core.servers.list();
        let wanted: Vec<_> = servers
            .iter()
            .filter(|server| server.may_call_back(now))
            .filter_map(|server| server.best_address(|_| false))
            .collect();
        open.retain(|peer, _| wanted.contains(peer));
        for peer in wanted {
            open.entry(peer).or_insert_with(|| core.endpoint.keep_open(peer));
        }
        clock::sleep_until(now + KEEP_OPEN_EVERY).await;
    }
}

/// Tries again to store what could not be stored when its file was closed, for ever.
async fn store_leftovers(core: Caller) {
    loop {
        clock::sleep_until(clock::now() + LEFTOVERS_EVERY).await;
        for vnode in core.vnodes.all() {
            if vnode.is_unstored() && vnode.opens.load(Ordering::Acquire) == 0 {
                core.store_late(&vnode).await;
            }
        }
    }
}

/// Brings to the servers what an earlier program has not stored. Ends when all of it has a vnode: with that it waits for a
/// server or a token, if it has to.
async fn left_behind(core: Caller, left: Vec<Left>) {
    for left in &left {
        tracing::warn!(
            cell = %left.cell, volume = %left.volume, vnode = %left.vnode,
            owner = %Writer(&left.file.author()), "data of an earlier program is not stored yet"
        );
    }
    again_and_again(left, |left| {
        let core = core.clone();
        async move {
            match core.vnode_of_left(&left).await {
                Ok(vnode) => core.store_late(&vnode).await,
                Err(error) => {
                    tracing::debug!(cell = %left.cell, volume = %left.volume, %error, "data of an earlier program waits");
                    return Some(left);
                }
            }
            None
        }
    })
    .await;
}

/// Removes the hidden names that an earlier program has left. Ends when none is left.
pub(super) async fn remove_hidden(core: Caller, left: Vec<(HiddenFile, Hiding)>) {
    again_and_again(left, |(file, hiding)| {
        let who = core.as_identity(hiding.who);
        async move {
            let error = who.remove_left_hidden(&file, hiding).await.err()?;
            tracing::debug!(?file, %error, "a removed file is left behind still");
            Some((file, hiding))
        }
    })
    .await;
}

/// Does something with each of them, and after a while again with those that are given back.
async fn again_and_again<T, F: Future<Output = Option<T>>>(mut left: Vec<T>, does: impl Fn(T) -> F) {
    while !left.is_empty() {
        let mut later = Vec::new();
        for one in left {
            later.extend(does(one).await);
        }
        left = later;
        if !left.is_empty() {
            clock::sleep_until(clock::now() + LEFTOVERS_EVERY).await;
        }
    }
}

const FILE_SERVICE: u16 = 1;
const LOCATION_SERVICE: u16 = 52;
/// So long after a break the location database tells which site has the new release.
const SETTLE: Duration = Duration::from_secs(2);
/// A release that has failed half-way stays so for long.
const RELEASES_EVERY: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_secs(3);
const PROBE_EVERY: Duration = Duration::from_secs(20);
/// Less than any NAT's memory.
const KEEP_OPEN_EVERY: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_mins(1);
const LEFTOVERS_EVERY: Duration = Duration::from_secs(15);
