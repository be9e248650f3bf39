//! One UDP port that makes and answers calls.
//!
//! The machine: the endpoint is a socket, the connection cache and a few tasks that run until it is shut down: one
//! receives, one empties the outbox, one fires timers, one for each side reaps. Callers and services work on
//! connections from their own tasks and threads; nobody owns the endpoint.
//!
//! Who holds whom has no circle: handles and tasks hold the connections, a call holds its own, and those hold what is
//! `Shared`, which holds none. So all of it goes with the last handle, task and call, however they end.

use std::collections::HashMap;
use std::fmt;
use std::hash::RandomState;
use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::answer;
use super::bundle::Bundles;
use super::clock::Clock;
use super::config::EndpointConfig;
use super::connection::{Connection, Key};
use super::connections::Connections;
use super::network_errors;
use super::peer::{Peer, PeerCount, Peers};
use super::places::Places;
use super::proven::Proven;
use super::receiver::Receiver;
use super::socket::{SendError, Socket};
use super::timers::{Due, Timers};
use super::traffic::{Totals, Traffic, Way};
use super::way_back::{self, KeepOpen};
use super::{ClientCall, Service, Target};
use crate::cache::{Expiry, Ref};
use crate::events::{Event, Sink};
use crate::proto::debug::PeerSnapshot;
use crate::proto::{
    CallError, DATAGRAM_USUAL, DropReason, Epoch, Header, Level, Limiter, Packet, ServiceId, Side, Transmit,
    Upgrade, asks_for_upgrade,
};
use crate::security::rxkad::ServerKeys;

/// The port cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind UDP {address}: {source}")]
pub struct BindError {
    /// Where it was to be bound.
    pub address: SocketAddrV4,
    /// Why not.
    pub source: io::Error,
}

/// A UDP port that makes and answers calls. Clones share it. It lives until [`shutdown`](Self::shutdown) or until its runtime
/// ends; the port is free again once the last clone and the last call are dropped as well.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) shared: Arc<Shared>,
    /// A part of it, and not of what is shared: a connection holds that, and would hold itself.
    pub(super) connections: Arc<Connections>,
}

/// What all parts of an endpoint share, its connections as well. Nothing here holds one.
pub(crate) struct Shared {
    pub(super) clock: Clock,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) socket: Socket,
    pub(super) timers: Timers,
    pub(super) bundles: Bundles,
    pub(super) peers: Peers,
    /// What opens tickets, and the lowest level that is taken.
    pub(super) rxkad: RwLock<Option<(Arc<ServerKeys>, Level)>>,
    pub(super) services: RwLock<HashMap<ServiceId, Arc<dyn Service>>>,
    /// The newer services that are offered instead of older ones.
    upgrades: RwLock<HashMap<ServiceId, ServiceId>>,
    /// How often questions are answered without a connection.
    pub(super) questions: Mutex<Limiter>,
    /// Service connections, those of them that are doubted, and calls to be answered.
    pub(super) open: Arc<Places>,
    pub(super) half_open: Arc<Places>,
    pub(super) calls: Arc<Places>,
    pub(super) proven: Proven,
    /// Where the serials of doubted connections begin.
    pub(super) secret: RandomState,
    /// Calls being answered.
    pub(super) answering: Arc<Semaphore>,
    pub(super) totals: Totals,
    pub(super) config: EndpointConfig,
    pub(super) epoch: Epoch,
    pub(super) next_cid: AtomicU32,
    pub(super) closing: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Endpoint {
    /// Binds the port and starts the tasks. Needs a tokio runtime. Waits for nothing, so it cannot be cancelled half-way.
    ///
    /// # Errors
    ///
    /// The port is taken, or sockets are not to be had.
    pub async fn bind(config: EndpointConfig, sink: Arc<dyn Sink>) -> Result<Self, BindError> {
        let refused = |source| BindError {
            address: config.bind,
            source,
        };
        let socket = Socket::bind(config.bind).map_err(refused)?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| refused(io::Error::other(error)))?;
        let [epoch, cid] = [&random[..4], &random[4..]].map(|half| {
            half.iter()
                .fold(0_u32, |word, &byte| (word << 8) | u32::from(byte))
        });
        let clock = Clock::start();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let expiry = |idle: Duration| Expiry {
            idle_ms: millis(idle),
            fast_ms: millis(config.fast_idle),
            soft_limit: config.soft_limit,
        };
        let connections = Arc::new(Connections::new(
            clock,
            expiry(config.client_idle),
            expiry(config.service_idle),
            Arc::clone(&sink),
        ));
        let shared = Arc::new(Shared {
            clock,
            socket,
            timers: Timers::default(),
            bundles: Bundles::new(config.connections_per_bundle),
            peers: Peers::default(),
            rxkad: RwLock::default(),
            services: RwLock::default(),
            upgrades: RwLock::default(),
            questions: Mutex::new(answer::limiter(clock.now())),
            open: Places::new(config.max_service_connections),
            half_open: Places::new(config.max_half_open),
            calls: Places::new(config.max_calls),
            proven: Proven::default(),
            secret: RandomState::new(),
            answering: Arc::new(Semaphore::new(config.max_service_calls)),
            epoch: Epoch((epoch | RANDOM_EPOCH) & !RESERVED_EPOCH),
            next_cid: AtomicU32::new(cid & !3),
            closing: AtomicBool::new(false),
            totals: Totals::default(),
            tasks: Mutex::default(),
            sink,
            config,
        });
        let endpoint = Self { shared, connections };
        let tasks = [
            tokio::spawn(Receiver::new(endpoint.clone()).run()),
            tokio::spawn(drain_outbox(Arc::clone(&endpoint.shared))),
            tokio::spawn(network_errors::hear(endpoint.clone())),
            tokio::spawn(fire_timers(endpoint.clone())),
            tokio::spawn(reap(endpoint.clone(), Side::Client)),
            tokio::spawn(reap(endpoint.clone(), Side::Service)),
        ];
        endpoint
            .shared
            .tasks
            .lock()
            .extend(tasks.iter().map(tokio::task::JoinHandle::abort_handle));
        Ok(endpoint)
    }

    /// Where it is bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddrV4 {
        self.shared.socket.local_addr()
    }

    /// Answers calls to `service` from now on, until the shutdown: a handler that holds its endpoint keeps it until then.
    pub fn serve(&self, service: ServiceId, handler: Arc<dyn Service>) {
        self.shared.services.write().insert(service, handler);
    }

    /// Answers calls to `newer` from now on, as [`serve`](Self::serve) does, and offers it to the clients of `older` that
    /// ask for a newer service when they make a connection. Those that do not are served by what `older` is served by.
    pub fn serve_upgraded(&self, older: ServiceId, newer: ServiceId, handler: Arc<dyn Service>) {
        self.serve(newer, handler);
        self.shared.upgrades.write().insert(older, newer);
    }

    /// Answers calls with rxkad from now on: of clients whose tickets one of `keys` opens, at level `least` or higher. Calls
    /// without security are answered as before; a service sees [who calls](super::ServiceCall::caller).
    pub fn accept_rxkad(&self, keys: ServerKeys, least: Level) {
        *self.shared.rxkad.write() = Some((Arc::new(keys), least));
    }

    /// Starts a call, waiting for a channel if all to this target are busy. Cancel safe.
    ///
    /// # Errors
    ///
    /// No channel became free in the time the call may take, or the endpoint is shut down.
    pub async fn call(&self, target: &Target) -> Result<ClientCall, CallError> {
        let call = ClientCall::new(self.acquire(target).await?);
        // Its connection may be newer than the last look of the shutdown: nothing would ever end the call.
        if self.shared.is_closing() {
            return Err(CallError::Shutdown);
        }
        Ok(call)
    }

    /// Sends a packet that asks nothing to a peer whenever it was sent nothing for a while, beginning now, so that a NAT
    /// between it and us lets its calls in. It ends when what is given is dropped. Several may be held for one peer.
    pub fn keep_open(&self, peer: SocketAddrV4) -> KeepOpen {
        KeepOpen::new(&self.shared, self.shared.peers.get(peer))
    }

    /// Connections of one side, and how many of them are idle.
    #[must_use]
    pub fn connections(&self, side: Side) -> ConnectionCount {
        let idle = self.connections.idle(side);
        ConnectionCount {
            active: self.connections.len(side).saturating_sub(idle),
            idle,
        }
    }

    /// The peers that there are connections to or from, or whose way back is kept open, by address.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerSnapshot> {
        answer::peers(self)
    }

    /// How many peers there are.
    #[must_use]
    pub fn peer_count(&self) -> PeerCount {
        self.shared.peers.counts()
    }

    /// Fails the calls that are left, retires all connections, stops the tasks and lets go of the services. Waits a moment
    /// for replies to arrive. Cancel safe: what is done is done, and a second shutdown does the rest.
    pub async fn shutdown(&self) {
        let Self { shared, connections } = self;
        shared.closing.store(true, Ordering::Release);
        let patience = shared.clock.now() + SHUTDOWN_PATIENCE;
        let mut given_up = false;
        while !connections.drain() {
            if given_up {
                // What is left a step later is held by calls that somebody else holds, and goes with the last of them.
                tracing::debug!("connections left at shutdown: {connections:?}");
                break;
            }
            let now = shared.clock.now();
            given_up = now >= patience;
            let end = if given_up { Ref::give_up } else { Ref::shut_down };
            for conn in connections.snapshot() {
                if let Some((conn, _)) = Ref::get_live(&conn) {
                    end(&conn, now);
                }
            }
            tokio::time::sleep(SHUTDOWN_STEP).await;
        }
        for task in shared.tasks.lock().drain(..) {
            task.abort();
        }
        let services = std::mem::take(&mut *shared.services.write());
        // Under no lock: what a service does when it goes is its own affair.
        drop(services);
    }
}

/// How many connections there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCount {
    /// In use.
    pub active: usize,
    /// Only the list holds them.
    pub idle: usize,
}

impl Shared {
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Sends one run, laid out in `buffer`, and counts it. Under no lock.
    ///
    /// # Errors
    ///
    /// There is no way to the peer (an `errno`).
    pub(super) fn transmit(
        &self,
        peer: &Peer,
        run: &Transmit,
        buffer: &[u8],
        traffic: &mut Traffic,
    ) -> Result<(), i32> {
        traffic.count_run(run, buffer);
        let send = |whole| self.socket.send(peer.address(), whole, run.segment_size, buffer);
        let mut sent = send(peer.datagram());
        if let Err(SendError::TooLarge) = sent {
            peer.ask_route();
            sent = send(0);
        }
        match sent {
            Err(SendError::Unreachable(errno)) => Err(errno),
            Ok(()) | Err(SendError::TooLarge) => Ok(()),
        }
    }

    /// The service that a connection made by this packet is to speak to.
    pub(super) fn service_asked(&self, header: &Header) -> (ServiceId, Upgrade) {
        let newer = asks_for_upgrade(header)
            .then(|| self.upgrades.read().get(&header.service).copied())
            .flatten();
        match newer {
            Some(newer) => (newer, Upgrade::From(header.service)),
            None => (header.service, Upgrade::Fixed),
        }
    }

    /// How large datagrams to a peer may be tried, and how large ones are known to arrive.
    pub(super) fn path(&self, peer: &Peer) -> (u16, u16) {
        let (most, proven) = peer.path();
        if self.socket.allows_fragments() {
            (most.min(DATAGRAM_USUAL), proven)
        } else {
            (most, proven)
        }
    }

    /// A connection has found out how large datagrams to its peer may be, or that those it sends vanish.
    pub(super) fn path_changed(&self, peer: &Peer, proven: u16, black_hole: bool) {
        peer.set_proven(proven);
        if black_hole {
            self.socket.allow_fragments();
        }
        self.sink.event(&Event::PathChanged {
            peer: peer.address(),
            datagram: peer.datagram(),
            black_hole,
        });
    }

    /// The server has said which of its services a connection of ours speaks to.
    pub(super) fn upgrade_settled(&self, conn: &Connection) {
        if let Key::Client { bundle, .. } = &conn.key {
            self.bundles.on_opened(bundle);
        }
        self.sink.event(&Event::UpgradeAnswered {
            service: conn.service,
            answered: conn.service_now(),
        });
    }

    /// Refuses a packet, if the refusal is no longer than it is.
    pub(super) fn refuse(&self, peer: SocketAddrV4, packet: &Packet, refusal: &[u8]) {
        if refusal.len() <= Header::LEN + packet.body.len() {
            self.answer(peer, refusal);
        }
    }

    /// Sends one datagram that belongs to no connection.
    pub(super) fn answer(&self, peer: SocketAddrV4, datagram: &[u8]) {
        let mut traffic = Traffic::default();
        traffic.count(datagram);
        // Who cannot be reached gets no answer.
        if let Err(SendError::Unreachable(errno)) =
            self.socket.send(peer, DATAGRAM_USUAL, datagram.len(), datagram)
        {
            traffic.unreachable = Some(errno);
        }
        self.report(&traffic, Way::Out);
    }

    /// Reports packets that came or went. Under no lock.
    pub(super) fn report(&self, traffic: &Traffic, way: Way) {
        if !traffic.is_empty() {
            self.totals.add(traffic, way);
            traffic.report(way, &*self.sink);
        }
    }

    /// Reports a packet that was thrown away.
    pub(super) fn dropped(&self, peer: SocketAddrV4, reason: impl Into<DropReason>) {
        let reason = reason.into();
        tracing::trace!(%peer, reason = reason.name(), "packet dropped");
        self.totals.add_dropped(reason);
        self.sink.event(&Event::Dropped { reason, peer });
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("local", &self.local_addr())
            .field("epoch", &self.shared.epoch)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

async fn drain_outbox(shared: Arc<Shared>) {
    shared.socket.drain_outbox().await;
}

async fn fire_timers(Endpoint { shared, connections }: Endpoint) {
    loop {
        for (at, due) in shared.timers.due(|| shared.clock.now()).await {
            let now = shared.clock.now();
            match due {
                // A dying connection is idle: it has nothing left to time.
                Due::Connection(conn) => {
                    if let Some((conn, _)) = Ref::get_live(&conn) {
                        let given_up = conn.expire(now, at);
                        drop(conn);
                        if given_up {
                            connections.ring(Side::Service);
                        }
                    }
                }
                Due::Peer(peer) => way_back::on_timer(&shared, &peer, now),
            }
        }
    }
}

async fn reap(Endpoint { shared, connections }: Endpoint, side: Side) {
    connections
        .reap(side, || {
            shared.bundles.forget_unused();
            shared.peers.forget_unused();
        })
        .await;
}

/// A random epoch has the high bit set: OpenAFS then matches our packets by epoch and id alone (rxrpc.md 2.1, OpenAFS
/// `rx_InitHost`).
const RANDOM_EPOCH: u32 = 0x8000_0000;
const RESERVED_EPOCH: u32 = 0x4000_0000;
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);
const SHUTDOWN_STEP: Duration = Duration::from_millis(10);
