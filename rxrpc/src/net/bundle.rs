//! Bundles: what calls to the same target share, and how a call comes by a channel.
//!
//! The machine: a bundle has so many places as configured, each for one connection of four channels, and as many permits as
//! channels. A call waits for a permit, then takes the first free channel in the order of the places, so that few
//! connections are kept busy and the others may idle away. What is found in a place decides: usable and free is used,
//! unusable is replaced, dying or absent is published anew. While the server has not said whether it has a newer service
//! a connection carries one call only; a call that finds all connections of its bundle like that waits for a change.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::client::Target;
use super::connection::{BundleKey, Connection, Key};
use super::endpoint::{Endpoint, Shared};
use crate::cache::{Life, Ref};
use crate::events::{Acquire, Event};
use crate::proto::{self, CallError, ChannelIndex, ConnectionId, ServiceId, Side, Slot, Upgrade};

/// The bundles of an endpoint.
pub(crate) struct Bundles {
    all: Mutex<HashMap<BundleKey, Arc<Bundle>>>,
    /// Connections of each.
    places: usize,
}

#[derive(Debug)]
struct Bundle {
    permits: Arc<Semaphore>,
    /// Held while a permit is turned into a channel. Calls end without it, so the free channels only grow meanwhile, and
    /// as there are no more permits than channels the search finds one.
    choosing: Mutex<()>,
    /// A call has ended, or a connection has opened its other channels.
    changed: Notify,
}

/// Why a permit could not be turned into a channel.
#[derive(Clone, Copy, Debug)]
enum NoChannel {
    /// All connections that have room wait for the server to name its service.
    UpgradePending,
    /// The peer has aborted connection after connection between lookup and use: others go first.
    Aborted,
}

/// A channel with a call on it, and the right to have it.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) conn: Ref<Connection>,
    pub(crate) slot: Slot,
    pub(crate) acquired: Acquire,
    pub(crate) permit: Permit,
}

/// The right to have a channel of a bundle.
#[derive(Debug)]
pub(crate) struct Permit {
    bundle: Arc<Bundle>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.bundle.changed.notify_waiters();
    }
}

/// A call that waits for a channel; told when it begins, and when it ends in whatever way.
struct Waiting<'a> {
    shared: &'a Shared,
    service: ServiceId,
    from: Instant,
}

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared, service: ServiceId) -> Self {
        shared.sink.event(&Event::ChannelAwaited { service });
        let from = shared.clock.now();
        Self {
            shared,
            service,
            from,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let now = self.shared.clock.now();
        self.shared.sink.event(&Event::ChannelWaited {
            service: self.service,
            waited: now.saturating_duration_since(self.from),
        });
    }
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
                permits: Arc::new(Semaphore::new(self.places * ChannelIndex::COUNT)),
                choosing: Mutex::new(()),
                changed: Notify::new(),
            })
        });
        Arc::clone(bundle)
    }

    /// A connection of this bundle has opened its other channels.
    pub(crate) fn on_opened(&self, key: &BundleKey) {
        if let Some(bundle) = self.all.lock().get(key) {
            bundle.changed.notify_waiters();
        }
    }

    /// Forgets the bundles that no call uses or waits for.
    pub(crate) fn forget_unused(&self) {
        self.all.lock().retain(|_, bundle| Arc::strong_count(bundle) > 1);
    }
}

impl fmt::Debug for Bundles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bundles").field(&self.all.lock().len()).finish()
    }
}

impl Endpoint {
    /// Starts a call to `target` on a channel of its bundle, waiting for one if all are busy. Cancel safe.
    pub(crate) async fn acquire(&self, target: &Target) -> Result<Channel, CallError> {
        let key = BundleKey {
            peer: target.peer,
            service: target.service,
            scope: Arc::clone(&target.scope),
            upgrade: target.upgrade,
            security: target.security.clone(),
        };
        if self.shared.is_closing() {
            return Err(CallError::Shutdown);
        }
        let bundle = self.shared.bundles.get(&key);
        if let Ok(permit) = Arc::clone(&bundle.permits).try_acquire_owned()
            && let Ok(channel) = self.begin(&bundle, permit, &key, target)
        {
            return Ok(channel);
        }
        let _waiting = Waiting::new(&self.shared, target.service);
        let limit = target.limits.hard_in.unwrap_or(target.limits.dead_in);
        let channel = tokio::time::timeout(limit, self.wait(&bundle, &key, target)).await;
        channel.unwrap_or(Err(CallError::TimedOut))
    }

    async fn wait(
        &self,
        bundle: &Arc<Bundle>,
        key: &BundleKey,
        target: &Target,
    ) -> Result<Channel, CallError> {
        loop {
            // From here on no change is missed.
            let mut changed = pin!(bundle.changed.notified());
            changed.as_mut().enable();
            let permit = Arc::clone(&bundle.permits).acquire_owned().await;
            let permit = permit.map_err(|_closed| CallError::Shutdown)?;
            if self.shared.is_closing() {
                return Err(CallError::Shutdown);
            }
            match self.begin(bundle, permit, key, target) {
                Ok(channel) => return Ok(channel),
                Err(NoChannel::UpgradePending) => changed.await,
                Err(NoChannel::Aborted) => tokio::task::yield_now().await,
            }
        }
    }

    /// Turns a permit into a channel with a call on it.
    fn begin(
        &self,
        bundle: &Arc<Bundle>,
        permit: OwnedSemaphorePermit,
        key: &BundleKey,
        target: &Target,
    ) -> Result<Channel, NoChannel> {
        let (conn, slot, outcome) = self.choose(bundle, key, target)?;
        conn.count_call();
        self.shared.sink.event(&Event::Acquired {
            side: Side::Client,
            scope: &target.scope,
            service: target.service,
            security: target.security.index(),
            outcome,
        });
        Ok(Channel {
            conn,
            slot,
            acquired: outcome,
            permit: Permit {
                bundle: Arc::clone(bundle),
                _permit: permit,
            },
        })
    }

    fn choose(
        &self,
        bundle: &Bundle,
        key: &BundleKey,
        target: &Target,
    ) -> Result<(Ref<Connection>, Slot, Acquire), NoChannel> {
        let _choosing = bundle.choosing.lock();
        let mut none = NoChannel::Aborted;
        for place in 0..self.shared.bundles.places {
            let make = |life| self.shared.client_connection(life, key, place);
            let at = || (key.clone(), place);
            let (conn, outcome) = self.connections.publish_client(at(), &make);
            let now = self.shared.clock.now();
            let mut start = |conn: &Ref<Connection>| {
                conn.turn(now, |turn| {
                    let proto = &mut turn.state.proto;
                    let slot = proto.start_call(now, target.limits);
                    if slot.is_none() && proto.awaits_upgrade() {
                        none = NoChannel::UpgradePending;
                    }
                    slot
                })
            };
            if let Some(slot) = start(&conn) {
                return Ok((conn, slot, outcome));
            }
            if !conn.usable() {
                let (conn, outcome) = self.connections.replace_client(at(), &conn, &make);
                if let Some(slot) = start(&conn) {
                    return Ok((conn, slot, outcome));
                }
            }
        }
        Err(none)
    }
}

impl Shared {
    fn client_connection(self: &Arc<Self>, life: Life, key: &BundleKey, slot: usize) -> Connection {
        let cid = self.next_cid();
        let params = proto::ConnectionParams {
            side: Side::Client,
            epoch: self.epoch,
            cid,
            service: key.service,
            upgrade: if key.upgrade {
                Upgrade::Asked
            } else {
                Upgrade::Fixed
            },
            security: key.security.index(),
            window: self.config.receive_window,
            datagram: self.config.max_datagram,
            jumbograms: self.config.jumbograms,
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
            key.security.connect(params),
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
