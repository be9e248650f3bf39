//! A file server: its state, its port, and the switches by which it fails.
//!
//! The machine: volumes, hosts and promises stand under one lock, so that what a caller is told and what it is promised
//! belong together; no lock is held while anything is sent. The endpoint is the part that goes away when the server
//! fails: without it the port is closed and everything else is as it was.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Weak};
use std::time::Duration;

use afs_client::rpc::types::AfsUuid;
use afs_client::types::VolumeId;
use parking_lot::Mutex;
use rxrpc::events::NullSink;
use rxrpc::net::{BindError, Endpoint, EndpointConfig};
use rxrpc::proto::ServiceId;
use tokio::sync::watch;

use super::accounts::Accounts;
use super::answer::Answers;
use super::clock::Clock;
use super::faults::{Faults, Memory};
use super::hosts::Hosts;
use super::promises::{FileId, Promises};
use super::storage::{Spill, Volume};

/// What the servers of a cell share.
#[derive(Debug)]
pub(crate) struct Common {
    /// The cell's name.
    pub(crate) cell: String,
    pub(crate) clock: Clock,
    pub(crate) spill: Spill,
    pub(crate) faults: Faults,
    /// How long a client may take to answer a break.
    pub(crate) patience: Duration,
    /// The names that access control lists may hold.
    pub(crate) names: Vec<String>,
    pub(crate) accounts: Accounts,
}

impl Common {
    /// Takes calls with tickets, if there is a key for them.
    pub(crate) fn accept_tickets(&self, endpoint: &Endpoint) {
        if let Some(keys) = self.accounts.server_keys() {
            endpoint.accept_rxkad(keys, self.accounts.least);
        }
    }
}

/// A file server.
#[derive(Debug)]
pub(crate) struct Server {
    /// From 1.
    pub(crate) number: usize,
    pub(crate) uuid: AfsUuid,
    pub(crate) address: Ipv4Addr,
    pub(crate) common: Arc<Common>,
    pub(crate) state: Mutex<State>,
    /// Stores to one file wait for each other.
    stores: Mutex<HashMap<FileId, Weak<Order>>>,
    /// Calls from an address that is not known wait until it has said who it is.
    greetings: Mutex<HashMap<SocketAddrV4, Weak<Order>>>,
    endpoint: Mutex<Option<Endpoint>>,
    frozen: watch::Sender<bool>,
    /// How often the port was closed: calls that began before the last time are over.
    closed: watch::Sender<u64>,
    /// One failure at a time.
    switching: Order,
    counts: Mutex<BTreeMap<u32, u64>>,
}

/// Lets one through at a time.
pub(crate) type Order = tokio::sync::Mutex<()>;

/// What a server remembers.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) volumes: BTreeMap<VolumeId, Volume>,
    /// Volumes that were here and are elsewhere now.
    pub(crate) moved: Vec<VolumeId>,
    pub(crate) hosts: Hosts,
    pub(crate) promises: Promises,
}

impl Server {
    pub(crate) fn new(number: usize, address: Ipv4Addr, common: Arc<Common>) -> Self {
        let [a, b, c, d] = address.octets();
        Self {
            number,
            uuid: AfsUuid([a, b, c, d, 0x5f, 0x41, 0x46, 0x53, 0x80, 0, 0, 0, 0, 0, 0, 1]),
            address,
            common,
            state: Mutex::default(),
            stores: Mutex::default(),
            greetings: Mutex::default(),
            endpoint: Mutex::new(None),
            frozen: watch::Sender::new(false),
            closed: watch::Sender::new(0),
            switching: Order::default(),
            counts: Mutex::default(),
        }
    }

    /// Opens the port.
    pub(crate) async fn start(self: &Arc<Self>) -> Result<(), BindError> {
        let _turn = self.switching.lock().await;
        self.open().await
    }

    async fn open(self: &Arc<Self>) -> Result<(), BindError> {
        if self.endpoint.lock().is_some() {
            return Ok(());
        }
        let endpoint = bind(SocketAddrV4::new(self.address, FILE_PORT)).await?;
        endpoint.serve(FILE_SERVICE, Arc::new(Answers(Arc::clone(self))));
        self.common.accept_tickets(&endpoint);
        *self.endpoint.lock() = Some(endpoint);
        Ok(())
    }

    /// Closes the port. Calls under way die.
    pub(crate) async fn stop(&self) {
        let _turn = self.switching.lock().await;
        self.close().await;
    }

    async fn close(&self) {
        let endpoint = self.endpoint.lock().take();
        if let Some(endpoint) = endpoint {
            // The calls are dead when those who answer them are told: they say nothing more.
            let tell = async { self.closed.send_modify(|times| *times += 1) };
            tokio::join!(biased; endpoint.shutdown(), tell);
        }
    }

    /// Goes away and comes back.
    pub(crate) async fn restart(self: &Arc<Self>, memory: Memory) -> Result<(), BindError> {
        let _turn = self.switching.lock().await;
        self.close().await;
        if memory == Memory::Lost {
            let mut state = self.state.lock();
            state.hosts = Hosts::default();
            state.promises = Promises::default();
            state.volumes.values_mut().for_each(Volume::forget_locks);
        }
        self.open().await
    }

    /// Resolves when the port is closed that is open now.
    pub(crate) fn closing(&self) -> impl Future<Output = ()> + use<> {
        let mut closed = self.closed.subscribe();
        // Without a server there is no port.
        async move { drop(closed.changed().await) }
    }

    /// From now on calls are taken and not answered, or answered again.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// Waits while the server is frozen.
    pub(crate) async fn thawed(&self) {
        // The sender lives as long as the server.
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
    }

    /// The endpoint, if the server is up.
    pub(crate) fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint.lock().clone()
    }

    /// Who may store to this file next.
    pub(crate) fn order_of_stores(&self, file: FileId) -> Arc<Order> {
        shared(&self.stores, file)
    }

    /// Who may greet this address next.
    pub(crate) fn order_of_greetings(&self, address: SocketAddrV4) -> Arc<Order> {
        shared(&self.greetings, address)
    }

    pub(crate) fn count(&self, opcode: u32) {
        *self.counts.lock().entry(opcode).or_default() += 1;
    }

    /// Calls of a procedure so far.
    pub(crate) fn calls(&self, opcode: u32) -> u64 {
        self.counts.lock().get(&opcode).copied().unwrap_or(0)
    }

    pub(crate) fn now(&self) -> u32 {
        self.common.clock.now()
    }
}

/// The order for a key, as long as somebody uses it.
fn shared<K: Eq + std::hash::Hash>(orders: &Mutex<HashMap<K, Weak<Order>>>, key: K) -> Arc<Order> {
    let mut orders = orders.lock();
    if let Some(order) = orders.get(&key).and_then(Weak::upgrade) {
        return order;
    }
    orders.retain(|_, order| order.strong_count() > 0);
    let order = Arc::new(Order::default());
    orders.insert(key, Arc::downgrade(&order));
    order
}

/// Binds a port of the cell. One that was closed a moment ago may take a moment.
pub(crate) async fn bind(address: SocketAddrV4) -> Result<Endpoint, BindError> {
    let config = EndpointConfig {
        bind: address,
        version: concat!("afs-fuse embedded cell ", env!("CARGO_PKG_VERSION")).to_owned(),
        ..EndpointConfig::default()
    };
    for _ in 0..BIND_TRIES {
        match Endpoint::bind(config.clone(), Arc::new(NullSink)).await {
            Err(error) if error.source.kind() == std::io::ErrorKind::AddrInUse => {
                tokio::time::sleep(BIND_PAUSE).await;
            }
            bound => return bound,
        }
    }
    Endpoint::bind(config, Arc::new(NullSink)).await
}

/// The file service.
const FILE_SERVICE: ServiceId = ServiceId(1);
const FILE_PORT: u16 = 7000;
const BIND_TRIES: usize = 50;
const BIND_PAUSE: Duration = Duration::from_millis(10);
