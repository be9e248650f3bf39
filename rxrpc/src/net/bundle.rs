//! Bundles: what calls to the same target share, and how a call comes by a channel.
//!
//! The machine: a bundle has so many places as configured, each for one connection of four channels, and as many permits as
//! channels. A call waits for a permit, then takes the first free channel in the order of the places, so that few
//! connections are kept busy and the others may idle away. What is found in a place decides: usable and free is used,
//! unusable is replaced, dying or absent is published anew.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::client::Target;
use super::connection::{BundleKey, Connection, Key};
use super::endpoint::Shared;
use crate::cache::{Life, Ref};
use crate::events::{Acquire, Event};
use crate::proto::{self, CallError, ChannelIndex, ConnectionId, SecurityIndex, Side, Slot};

/// The bundles of an endpoint.
pub(crate) struct Bundles {
    all: Mutex<HashMap<BundleKey, Arc<Bundle>>>,
    /// Connections of each.
    places: usize,
}

struct Bundle {
    permits: Arc<Semaphore>,
    /// Held while a permit is turned into a channel. Calls end without it, so the free channels only grow meanwhile, and
    /// as there are no more permits than channels the search finds one.
    choosing: Mutex<()>,
}

/// A channel with a call on it, and the right to have it.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) conn: Ref<Connection>,
    pub(crate) slot: Slot,
    pub(crate) permit: OwnedSemaphorePermit,
}

impl Bundles {
    /// None yet; each is to have so many connections.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            all: Mutex::default(),
            places: places.clamp(1, PLACES_MAX),
        }
    }

    fn get(&self, key: &BundleKey) -> Arc<Bundle> {
        let mut bundles = self.all.lock();
        let bundle = bundles.entry(key.clone()).or_insert_with(|| {
            Arc::new(Bundle {
                permits: Arc::new(Semaphore::new(self.channels())),
                choosing: Mutex::new(()),
            })
        });
        Arc::clone(bundle)
    }

    /// Calls that a bundle carries at a time.
    fn channels(&self) -> usize {
        self.places * ChannelIndex::COUNT
    }

    /// Forgets the bundles that no call uses or waits for.
    pub(crate) fn forget_unused(&self) {
        let channels = self.channels();
        self.all.lock().retain(|_, bundle| {
            Arc::strong_count(bundle) > 1 || bundle.permits.available_permits() < channels
        });
    }
}

impl fmt::Debug for Bundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bundles").field(&self.all.lock().len()).finish()
    }
}

impl Shared {
    /// Starts a call to `target` on a channel of its bundle, waiting for one if all are busy. Cancel safe.
    pub(crate) async fn acquire(self: &Arc<Self>, target: &Target) -> Result<Channel, CallError> {
        let key = BundleKey {
            peer: target.peer,
            service: target.service,
            scope: Arc::clone(&target.scope),
        };
        loop {
            if self.is_closing() {
                return Err(CallError::Shutdown);
            }
            let bundle = self.bundles.get(&key);
            let permit = self.permit(&bundle, target).await?;
            // Only if a peer aborts connection after connection between lookup and use is none found: others go first.
            let Some((conn, slot, outcome)) = self.choose(&bundle, &key, target) else {
                drop(permit);
                tokio::task::yield_now().await;
                continue;
            };
            conn.count_call();
            self.sink.event(&Event::Acquired {
                side: Side::Client,
                scope: &target.scope,
                service: target.service,
                outcome,
            });
            return Ok(Channel { conn, slot, permit });
        }
    }

    async fn permit(&self, bundle: &Bundle, target: &Target) -> Result<OwnedSemaphorePermit, CallError> {
        let permits = Arc::clone(&bundle.permits);
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            return Ok(permit);
        }
        let from = self.clock.now();
        let limit = target.limits.hard_in.unwrap_or(target.limits.dead_in);
        let permit = tokio::time::timeout(limit, permits.acquire_owned()).await;
        let waited = self.clock.now().saturating_duration_since(from);
        self.sink.event(&Event::ChannelWaited {
            service: target.service,
            waited,
        });
        match permit {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(CallError::Shutdown),
            Err(_elapsed) => Err(CallError::TimedOut),
        }
    }

    fn choose(
        self: &Arc<Self>,
        bundle: &Bundle,
        key: &BundleKey,
        target: &Target,
    ) -> Option<(Ref<Connection>, Slot, Acquire)> {
        let _choosing = bundle.choosing.lock();
        for place in 0..self.bundles.places {
            let make = |life| self.client_connection(life, key, place);
            let at = || (key.clone(), place);
            let (conn, outcome) = self.connections.publish_client(at(), &make);
            let now = self.clock.now();
            let start = |conn: &Ref<Connection>| {
                conn.turn(now, |turn| turn.state.proto.start_call(now, target.limits))
            };
            if let Some(slot) = start(&conn) {
                return Some((conn, slot, outcome));
            }
            if !conn.usable() {
                let (conn, outcome) = self.connections.replace_client(at(), &conn, &make);
                if let Some(slot) = start(&conn) {
                    return Some((conn, slot, outcome));
                }
            }
        }
        None
    }

    fn client_connection(self: &Arc<Self>, life: Life, key: &BundleKey, slot: usize) -> Connection {
        let now = self.clock.now();
        let cid = self.next_cid();
        let params = proto::ConnectionParams {
            side: Side::Client,
            epoch: self.epoch,
            cid,
            service: key.service,
            security: SecurityIndex(0),
            window: self.config.receive_window,
        };
        Connection::new(
            Arc::clone(self),
            life,
            Key::Client {
                bundle: key.clone(),
                slot,
                cid,
            },
            self.peers.get(key.peer),
            Arc::clone(&key.scope),
            proto::Connection::new(params),
            now,
        )
    }

    fn next_cid(&self) -> ConnectionId {
        // Relaxed: only uniqueness matters. Ids go around after a thousand million connections.
        ConnectionId(
            self.next_cid
                .fetch_add(CID_STEP, std::sync::atomic::Ordering::Relaxed),
        )
    }
}

/// More than calls can come by.
const PLACES_MAX: usize = 1 << 16;
/// The two low bits are the channel.
const CID_STEP: u32 = 4;
