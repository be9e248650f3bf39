//! The timer queue of an endpoint.
//!
//! The machine: connections and peers in the order of the instants at which they want to be looked at, each once. Either
//! moves its entry only when its next deadline is earlier; deadlines that move later are noticed when the entry fires. So a
//! bulk transfer, whose deadlines move with every packet, costs one move for each period of its timeout.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connection::Connection;
use super::peer::Peer;

/// Connections and peers by the instant at which they want to be looked at.
#[derive(Default)]
pub(crate) struct Timers {
    entries: Mutex<BTreeMap<Key, Alarm>>,
    /// The first entry has become earlier.
    earlier: Notify,
}

/// An instant, and the address of who wants to be looked at: the entry keeps its memory from being used again.
type Key = (Instant, usize);

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

impl Timers {
    /// Has somebody looked at when `at` comes, and not any more when `before` comes.
    pub(super) fn set(&self, at: Instant, before: Option<Instant>, alarm: Alarm) {
        let address = alarm.address();
        let mut entries = self.entries.lock();
        if let Some(before) = before {
            entries.remove(&(before, address));
        }
        let first = entries.first_key_value().map(|((first, _), _)| *first);
        entries.insert((at, address), alarm);
        drop(entries);
        if first.is_none_or(|first| at < first) {
            self.earlier.notify_one();
        }
    }

    /// Waits for the next deadline and gives those that are due, with the instants they asked for. Cancel safe.
    pub(super) async fn due(&self, now: impl Fn() -> Instant) -> Vec<(Instant, Due)> {
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

    fn take(&self, now: Instant) -> (Vec<(Instant, Due)>, Option<Instant>) {
        let mut due = Vec::new();
        let mut entries = self.entries.lock();
        while let Some(entry) = entries.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                return (due, Some(at));
            }
            due.extend(entry.remove().upgrade().map(|who| (at, who)));
        }
        (due, None)
    }
}

impl Alarm {
    fn address(&self) -> usize {
        match self {
            Self::Connection(conn) => conn.as_ptr().addr(),
            Self::Peer(peer) => peer.as_ptr().addr(),
        }
    }

    /// `None` if it is gone.
    fn upgrade(&self) -> Option<Due> {
        match self {
            Self::Connection(conn) => conn.upgrade().map(Due::Connection),
            Self::Peer(peer) => peer.upgrade().map(Due::Peer),
        }
    }
}
