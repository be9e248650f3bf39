//! The timer queue of an endpoint.
//!
//! The machine: the connections in the order of the instants at which they want to be looked at, each once. A connection
//! moves its entry only when its next deadline is earlier; deadlines that move later are noticed when the entry fires. So a
//! bulk transfer, whose deadlines move with every packet, costs one move for each period of its timeout.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::connection::Connection;

/// Connections by the instant at which they want to be looked at.
#[derive(Default)]
pub(crate) struct Timers {
    entries: Mutex<BTreeMap<Key, Weak<Connection>>>,
    /// The first entry has become earlier.
    earlier: Notify,
}

/// An instant, and the address of the connection: its memory is kept from being used again by the entry.
type Key = (Instant, usize);

impl Timers {
    /// Has `connection` looked at when `at` comes, and not any more when `before` comes.
    pub(super) fn set(&self, at: Instant, before: Option<Instant>, connection: &Arc<Connection>) {
        let address = Arc::as_ptr(connection).addr();
        let mut entries = self.entries.lock();
        if let Some(before) = before {
            entries.remove(&(before, address));
        }
        let first = entries.first_key_value().map(|((first, _), _)| *first);
        entries.insert((at, address), Arc::downgrade(connection));
        drop(entries);
        if first.is_none_or(|first| at < first) {
            self.earlier.notify_one();
        }
    }

    /// Waits for the next deadline and gives the connections that are due, with the instants they asked for. Cancel safe.
    pub(super) async fn due(&self, now: impl Fn() -> Instant) -> Vec<(Instant, Arc<Connection>)> {
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

    fn take(&self, now: Instant) -> (Vec<(Instant, Arc<Connection>)>, Option<Instant>) {
        let mut due = Vec::new();
        let mut entries = self.entries.lock();
        while let Some(entry) = entries.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                return (due, Some(at));
            }
            due.extend(entry.remove().upgrade().map(|connection| (at, connection)));
        }
        (due, None)
    }
}
