//! Peers whose way back to us is kept open.
//!
//! The machine: whoever expects calls of a peer holds a [`KeepOpen`]. While anybody does, the peer's [`KeepAlive`] is told
//! of what is sent to it and of the calls that come from it, and the endpoint's timer has the packets sent that it asks
//! for. A peer that nobody holds costs one look at a flag for each run of packets sent to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::endpoint::Shared;
use super::peer::Peer;
use super::timers::Alarm;
use crate::events::Event;
use crate::proto::{KeepAlive, keep_alive};

/// While it exists, the peer is sent a packet now and then, so that a NAT between it and us lets its calls in.
#[derive(Debug)]
#[must_use = "dropping it ends what it asks for"]
pub struct KeepOpen(Arc<Peer>);

impl KeepOpen {
    pub(super) fn new(shared: &Shared, peer: Arc<Peer>) -> Self {
        if let Some(at) = peer.way_back.hold(shared.clock.now()) {
            shared.timers.set(at, None, Alarm::Peer(Arc::downgrade(&peer)));
        }
        Self(peer)
    }
}

impl Drop for KeepOpen {
    fn drop(&mut self) {
        self.0.way_back.release();
    }
}

/// What one peer has of it.
#[derive(Debug, Default)]
pub(super) struct WayBack {
    /// Somebody holds it: the state is of interest.
    held: AtomicBool,
    sent: AtomicU64,
    /// Short and last: nothing else is locked under it.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    holders: usize,
    keep: KeepAlive,
    /// The entry in the timer queue that counts.
    armed: Option<Instant>,
}

impl WayBack {
    /// One more wants it open. Gives when the timer is to be set, if it is.
    fn hold(&self, now: Instant) -> Option<Instant> {
        let mut state = self.state.lock();
        state.holders += 1;
        if state.holders > 1 {
            return None;
        }
        self.held.store(true, Ordering::Relaxed);
        state.keep = KeepAlive::new();
        state.arm(now)
    }

    fn release(&self) {
        let mut state = self.state.lock();
        state.holders = state.holders.saturating_sub(1);
        if state.holders == 0 {
            self.held.store(false, Ordering::Relaxed);
        }
    }

    /// The peer was sent something.
    pub(super) fn on_sent(&self, now: Instant) {
        if self.is_held() {
            self.state.lock().keep.on_sent(now);
        }
    }

    /// The peer has begun a call. Must come before the call is answered. A shorter interval needs no other timer: the
    /// present one was set for the silence that has just ended.
    pub(super) fn on_call(&self, now: Instant, first_sending: bool) {
        if self.is_held() {
            self.state.lock().keep.on_call(now, first_sending);
        }
    }

    /// An entry in the timer queue has fired. Tells whether the peer is to be sent something.
    fn on_timer(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        // An entry that an earlier one has replaced.
        if state.armed.is_some_and(|at| at > now) {
            return false;
        }
        state.armed = None;
        let due = state.holders > 0 && state.keep.is_due(now);
        if due {
            state.keep.on_sent(now);
            self.sent.fetch_add(1, Ordering::Relaxed);
        }
        due
    }

    /// When the timer is to be set after it has fired.
    fn rearm(&self, now: Instant) -> Option<Instant> {
        self.state.lock().arm(now)
    }

    /// The longest silence, while somebody holds it.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.is_held().then(|| self.state.lock().keep.interval())
    }

    /// Packets sent for its sake.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Relaxed: whoever misses the change by a moment misses one packet.
    fn is_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }
}

impl State {
    /// When the timer is to be set, if its present entry comes too late.
    fn arm(&mut self, now: Instant) -> Option<Instant> {
        if self.holders == 0 {
            return None;
        }
        let due = self.keep.due().unwrap_or(now);
        let sooner = self.armed.is_none_or(|armed| due < armed);
        sooner.then(|| *self.armed.insert(due))
    }
}

/// The timer that was set for a peer has fired.
pub(super) fn on_timer(shared: &Shared, peer: &Arc<Peer>, now: Instant) {
    if peer.way_back.on_timer(now) {
        shared.answer(peer.address(), &keep_alive(shared.epoch));
        shared.sink.event(&Event::KeptAlive { peer: peer.address() });
    }
    if let Some(at) = peer.way_back.rearm(now) {
        shared.timers.set(at, None, Alarm::Peer(Arc::downgrade(peer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn it_asks_for_one_timer_at_a_time() {
        let (way, start) = (WayBack::default(), Instant::now());
        assert!(!way.on_timer(start), "nobody holds it");
        assert_eq!(way.hold(start), Some(start));
        assert_eq!(way.hold(start), None);
        assert!(way.on_timer(start));
        assert_eq!(way.rearm(start), Some(start + 20 * S));
        way.on_sent(start + 19 * S);
        assert!(!way.on_timer(start + 20 * S), "something else was sent");
        assert_eq!(way.rearm(start + 20 * S), Some(start + 39 * S));
        way.on_sent(start + 37 * S);
        way.on_call(start + 37 * S, false);
        assert!(!way.on_timer(start + 39 * S));
        assert_eq!(way.rearm(start + 39 * S), Some(start + 46 * S));
        way.release();
        assert_eq!(way.interval(), Some(9 * S));
        way.release();
        assert_eq!(way.interval(), None);
        assert_eq!(way.hold(start + 40 * S), Some(start + 40 * S), "at once, again");
        assert!(way.on_timer(start + 40 * S));
        assert_eq!(way.rearm(start + 40 * S), Some(start + 60 * S));
        assert!(!way.on_timer(start + 46 * S), "the entry that was replaced");
        assert_eq!(way.rearm(start + 46 * S), None);
        way.release();
        assert!(!way.on_timer(start + 60 * S));
        assert_eq!((way.rearm(start + 60 * S), way.sent()), (None, 2));
    }
}
