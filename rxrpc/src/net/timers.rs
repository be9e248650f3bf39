//! The timer queue of an endpoint.
//!
//! The machine: a heap of (instant, connection or peer). Either puts itself in only when its next deadline is earlier than
//! the entry it already has; deadlines that move later are noticed when the entry fires. So a bulk transfer, whose
//! deadlines move with every packet, costs one heap operation for each period of its timeout.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connection::Connection;
use super::peer::Peer;

/// Connections and peers by the instant at which they want to be looked at.
#[derive(Default)]
pub(crate) struct Timers {
    heap: Mutex<BinaryHeap<Entry>>,
    /// The first entry has become earlier.
    earlier: Notify,
}

/// Who wants to be looked at.
pub(super) enum Alarm {
    /// A connection.
    Connection(Weak<Connection>),
    /// A peer.
    Peer(Weak<Peer>),
}

/// Whose time has come.
pub(super) enum Due {
    /// A connection.
    Connection(Arc<Connection>),
    /// A peer.
    Peer(Arc<Peer>),
}

struct Entry {
    at: Instant,
    alarm: Alarm,
}

impl Timers {
    /// Has somebody looked at when `at` comes.
    pub(super) fn set(&self, at: Instant, alarm: Alarm) {
        let mut heap = self.heap.lock();
        let first = heap.peek().map(|entry| entry.at);
        heap.push(Entry { at, alarm });
        drop(heap);
        if first.is_none_or(|first| at < first) {
            self.earlier.notify_one();
        }
    }

    /// Waits for the next deadline and gives those that are due. Cancel safe.
    pub(super) async fn due(&self, now: impl Fn() -> Instant) -> Vec<Due> {
        loop {
            let (due, next) = self.take(now());
            if !due.is_empty() {
                return due;
            }
            let earlier = self.earlier.notified();
            match next {
                None => earlier.await,
                Some(at) => {
                    tokio::select! {
                        () = earlier => {}
                        () = tokio::time::sleep_until(at.into()) => {}
                    }
                }
            }
        }
    }

    fn take(&self, now: Instant) -> (Vec<Due>, Option<Instant>) {
        let mut due = Vec::new();
        let mut heap = self.heap.lock();
        loop {
            match heap.peek() {
                None => return (due, None),
                Some(entry) if entry.at > now => return (due, Some(entry.at)),
                Some(_) => due.extend(heap.pop().and_then(|entry| entry.alarm.upgrade())),
            }
        }
    }
}

impl Alarm {
    /// `None` if it is gone.
    fn upgrade(&self) -> Option<Due> {
        match self {
            Self::Connection(conn) => conn.upgrade().map(Due::Connection),
            Self::Peer(peer) => peer.upgrade().map(Due::Peer),
        }
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: `BinaryHeap` gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}
