//! All connections of an endpoint: where they are found, and how they end.
//!
//! The machine: each side has a list (with a reaper of its own, because the expiries differ) and a tree. Client
//! connections are also found by connection id, which is how the packets of replies name them; that table takes part in
//! nobody's life. A reaper sleeps until the next connection falls due or the cache rings, walks its list, and takes what
//! it retired out of the tables.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::Notify;

use super::clock::Clock;
use super::connection::{BundleKey, Connection, Key, ServiceKey};
use crate::cache::{Cached, Expiry, Host, Life, List, Lookup, Published, Reaped, Ref, Tree, Was};
use crate::events::{Acquire, CloseReason, Event, Sink};
use crate::proto::{ConnectionId, Side};

/// The connection cache of an endpoint.
pub(crate) struct Connections {
    /// By bundle and place in it.
    client_tree: Tree<(BundleKey, usize), Connection>,
    service_tree: Tree<ServiceKey, Connection>,
    client_ids: RwLock<HashMap<ConnectionId, Arc<Connection>>>,
    client: Flock,
    service: Flock,
    clock: Clock,
    sink: Arc<dyn Sink>,
}

/// The connections of one side and what their reaper goes by.
struct Flock {
    list: List<Connection>,
    bell: Arc<Notify>,
    expiry: Expiry,
}

/// How a candidate is made, given the life it is to have.
pub(crate) type Make<'a> = &'a dyn Fn(Life) -> Connection;

impl Connections {
    pub(crate) fn new(
        clock: Clock,
        client_expiry: Expiry,
        service_expiry: Expiry,
        sink: Arc<dyn Sink>,
    ) -> Self {
        Self {
            client_tree: Tree::client(),
            service_tree: Tree::service(),
            client_ids: RwLock::default(),
            client: Flock::new(clock, client_expiry),
            service: Flock::new(clock, service_expiry),
            clock,
            sink,
        }
    }

    /// The client connection that a received packet names, if it lives.
    pub(crate) fn client_by_id(&self, cid: ConnectionId) -> Option<Ref<Connection>> {
        // A dying client connection has no call, so a packet for it is a stray.
        self.client_ids
            .read()
            .get(&cid)
            .and_then(Ref::get_live)
            .map(|(conn, _)| conn)
    }

    /// The service connection that a received packet names, if it lives. A dying one is as good as absent.
    pub(crate) fn service(&self, key: &ServiceKey) -> Option<(Ref<Connection>, Acquire)> {
        match self.service_tree.lookup(key) {
            Lookup::Live(conn, was) => Some((conn, outcome(was))),
            Lookup::Dying | Lookup::Absent => None,
        }
    }

    /// The service connection that a received packet names, made if there is none that lives.
    pub(crate) fn publish_service(&self, key: ServiceKey, make: Make<'_>) -> (Ref<Connection>, Acquire) {
        let published = self
            .service_tree
            .publish(key, || self.service.adopt(self.clock, make));
        settle(published, Acquire::RefusedDying)
    }

    /// The client connection at a place of a bundle, made if there is none that lives.
    pub(crate) fn publish_client(
        &self,
        place: (BundleKey, usize),
        make: Make<'_>,
    ) -> (Ref<Connection>, Acquire) {
        match self.client_tree.lookup(&place) {
            Lookup::Live(conn, was) => (conn, outcome(was)),
            Lookup::Dying | Lookup::Absent => {
                let published = self
                    .client_tree
                    .publish(place, || self.client.adopt(self.clock, make));
                self.known_by_id(settle(published, Acquire::RefusedDying))
            }
        }
    }

    /// A new client connection in the place of one that can carry no more calls.
    pub(crate) fn replace_client(
        &self,
        place: (BundleKey, usize),
        old: &Connection,
        make: Make<'_>,
    ) -> (Ref<Connection>, Acquire) {
        let published = self
            .client_tree
            .replace(place, old, || self.client.adopt(self.clock, make));
        self.known_by_id(settle(published, Acquire::Replaced))
    }

    /// Before its first packet leaves, so that no reply is ever a stray.
    fn known_by_id(&self, found: (Ref<Connection>, Acquire)) -> (Ref<Connection>, Acquire) {
        if let (conn, Acquire::Created | Acquire::Replaced | Acquire::RefusedDying) = &found
            && let Key::Client { cid, .. } = conn.key
        {
            self.client_ids.write().insert(cid, Arc::clone(Ref::shared(conn)));
        }
        found
    }

    /// Number of connections of one side.
    pub(crate) fn len(&self, side: Side) -> usize {
        self.flock(side).list.len()
    }

    /// Number of idle connections of one side.
    pub(crate) fn idle(&self, side: Side) -> usize {
        self.flock(side).list.idle()
    }

    /// All connections, client side first.
    pub(crate) fn snapshot(&self) -> Vec<Arc<Connection>> {
        let mut all = self.client.list.snapshot();
        all.extend(self.service.list.snapshot());
        all
    }

    /// One of all connections, in the order of [`snapshot`](Self::snapshot).
    pub(crate) fn nth(&self, place: usize) -> Option<Arc<Connection>> {
        let after = place.checked_sub(self.client.list.len());
        match after {
            None => self.client.list.nth(place),
            Some(place) => self.service.list.nth(place),
        }
    }

    /// Has the reaper of one side walk soon.
    pub(crate) fn ring(&self, side: Side) {
        self.flock(side).bell.notify_one();
    }

    /// Reaps one side for ever; calls `after` after each walk that retired something. Cancel safe.
    pub(crate) async fn reap(&self, side: Side, after: impl Fn()) {
        let flock = self.flock(side);
        loop {
            let reaped = flock.list.reap(self.clock.millis(self.clock.now()), flock.expiry);
            let next = reaped.next_ms;
            let some_died = !reaped.dead.is_empty();
            self.bury(side, reaped, None);
            if some_died {
                after();
            }
            match next {
                None => flock.bell.notified().await,
                Some(due) => tokio::select! {
                    () = flock.bell.notified() => {}
                    () = tokio::time::sleep_until(self.clock.at(due).into()) => {}
                },
            }
        }
    }

    /// Retires everything idle. True when nothing is left.
    pub(crate) fn drain(&self) -> bool {
        let mut left = 0;
        for side in [Side::Client, Side::Service] {
            let reaped = self.flock(side).list.drain();
            left += reaped.left;
            self.bury(side, reaped, Some(CloseReason::Shutdown));
        }
        left == 0
    }

    fn bury(&self, side: Side, reaped: Reaped<Connection>, reason: Option<CloseReason>) {
        for _ in 0..reaped.lost {
            self.sink.event(&Event::ReapLost { side });
        }
        let now_ms = self.clock.millis(self.clock.now());
        for conn in reaped.dead {
            match &conn.key {
                Key::Client { bundle, slot, cid } => {
                    self.client_tree.unpublish(&(bundle.clone(), *slot), &conn);
                    self.client_ids.write().remove(cid);
                }
                Key::Service(key) => {
                    self.service_tree.unpublish(key, &conn);
                }
            }
            let reason = reason
                .or_else(|| conn.close_reason())
                .unwrap_or_else(|| self.idle_reason(side, &conn));
            self.sink.event(&Event::Closed {
                side,
                scope: conn.scope(),
                service: conn.service,
                reason,
                age: Duration::from_millis(now_ms.saturating_sub(conn.life().born_ms())),
                calls: conn.calls(),
            });
        }
    }

    fn idle_reason(&self, side: Side, conn: &Connection) -> CloseReason {
        let now_ms = self.clock.millis(self.clock.now());
        if now_ms.saturating_sub(conn.life().idle_since_ms()) < self.flock(side).expiry.idle_ms {
            CloseReason::OverLimit
        } else {
            CloseReason::IdleReaped
        }
    }

    fn flock(&self, side: Side) -> &Flock {
        match side {
            Side::Client => &self.client,
            Side::Service => &self.service,
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("client", &self.client.list.len())
            .field("service", &self.service.list.len())
            .finish_non_exhaustive()
    }
}

impl Flock {
    fn new(clock: Clock, expiry: Expiry) -> Self {
        let bell = Arc::new(Notify::new());
        let host = Box::new(Ringer {
            clock,
            bell: Arc::clone(&bell),
        });
        Self {
            list: List::new(host),
            bell,
            expiry,
        }
    }

    fn adopt(&self, clock: Clock, make: Make<'_>) -> Ref<Connection> {
        self.list.adopt(make(self.list.life(clock.millis(clock.now()))))
    }
}

/// What the cache needs of us.
struct Ringer {
    clock: Clock,
    bell: Arc<Notify>,
}

impl Host for Ringer {
    fn now_ms(&self) -> u64 {
        self.clock.millis(self.clock.now())
    }

    fn wake(&self) {
        self.bell.notify_one();
    }
}

fn outcome(was: Was) -> Acquire {
    match was {
        Was::Idle => Acquire::Revived,
        Was::InUse => Acquire::Reused,
    }
}

fn settle(published: Published<Connection>, replaced: Acquire) -> (Ref<Connection>, Acquire) {
    match published {
        Published::Found(conn, was) => (conn, outcome(was)),
        Published::Inserted(conn) => (conn, Acquire::Created),
        Published::Replaced(conn) => (conn, replaced),
    }
}

#[cfg(test)]
mod storm;
