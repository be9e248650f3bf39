//! A shared connection: the protocol machine behind a lock, its wakers, its timer and its liveness.
//!
//! The machine: every touch of a connection is one *turn*. A turn locks the state, lets the caller work on the protocol
//! machine, sends what the machine wants sent, re-arms the timer, unlocks, and only then wakes tasks. The lock is open while
//! the system sends, and one turn sends at a time, so that serial numbers leave in order: what other turns want sent
//! meanwhile it finds when it has the lock again, and nobody waits for a system call of another. While the protocol machine is busy (a
//! call, an unacknowledged reply, a pending final ACK) the connection holds a reference to itself, so the reaper can take only
//! what is truly idle.

use std::cell::RefCell;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::Waker;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};

use super::endpoint::Shared;
use super::peer::Peer;
use super::places::Place;
use super::timers::Alarm;
use super::traffic::{Traffic, Way};
use crate::cache::{Cached, Hold, Life, Ref};
use crate::events::{CloseReason, Event};
use crate::proto::{
    self, Caller, ChannelIndex, ConnectionId, Epoch, RoundTrip, SecurityIndex, ServiceId, Side, Slot,
};
use crate::security::Security;

/// A connection that threads share.
pub(crate) struct Connection {
    pub(super) life: Life,
    pub(super) key: Key,
    pub(super) peer: Arc<Peer>,
    /// The service that it was made for: a client may have been offered another since.
    pub(super) service: ServiceId,
    pub(super) security: SecurityIndex,
    calls: AtomicU64,
    /// Among the service connections.
    _place: Option<Place>,
    pub(super) shared: Arc<Shared>,
    state: Mutex<State>,
}

/// Where a connection stands in the lookup trees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// Used to send: the `slot`-th connection of a bundle.
    Client {
        bundle: BundleKey,
        slot: usize,
        cid: ConnectionId,
    },
    /// Used on receipt.
    Service(ServiceKey),
}

impl Key {
    /// The connection's id.
    pub(super) fn cid(&self) -> ConnectionId {
        match self {
            Self::Client { cid, .. } => *cid,
            Self::Service(key) => key.cid,
        }
    }
}

/// What client connections must share to serve the same calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BundleKey {
    pub(super) peer: SocketAddrV4,
    pub(super) service: ServiceId,
    pub(super) scope: Arc<str>,
    /// The service is asked for a newer one.
    pub(super) upgrade: bool,
    pub(super) security: Security,
}

/// How a received packet names its service connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServiceKey {
    pub(super) peer: SocketAddrV4,
    pub(super) epoch: Epoch,
    pub(super) cid: ConnectionId,
}

/// What the lock of a connection protects.
pub(super) struct State {
    pub(super) proto: proto::Connection,
    /// The tasks that wait, while there are calls.
    waiting: Option<Box<[ChannelWakers; ChannelIndex::COUNT]>>,
    /// A turn is at sending, and will look whether there is more.
    sending: bool,
    /// Where our entry in the timer queue stands.
    armed: Option<Instant>,
    /// The reference that a busy connection holds to itself.
    hold: Option<Hold>,
    /// While it is doubted.
    half_open: Option<Place>,
}

#[derive(Default)]
struct ChannelWakers {
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Cached for Connection {
    fn life(&self) -> &Life {
        &self.life
    }
}

impl Connection {
    pub(super) fn new(
        shared: Arc<Shared>,
        life: Life,
        key: Key,
        peer: Arc<Peer>,
        mut proto: proto::Connection,
    ) -> Self {
        proto.expect_round_trip(peer.round_trip());
        Self {
            life,
            key,
            peer,
            service: proto.service(),
            security: proto.security_index(),
            calls: AtomicU64::new(0),
            _place: None,
            shared,
            state: Mutex::new(State {
                proto,
                waiting: None,
                sending: false,
                armed: None,
                hold: None,
                half_open: None,
            }),
        }
    }

    /// Counts a new one among the service connections and, as long as it is doubted, among those that are half open.
    pub(super) fn counted(mut self, place: Option<Place>, half_open: Option<Place>) -> Self {
        self._place = place;
        self.state.get_mut().half_open = half_open;
        self.life.hurry();
        self
    }

    /// The scope of its target, empty for a service connection.
    pub(super) fn scope(&self) -> &Arc<str> {
        match &self.key {
            Key::Client { bundle, .. } => &bundle.scope,
            Key::Service(_) => &NO_SCOPE,
        }
    }

    pub(super) fn side(&self) -> Side {
        match self.key {
            Key::Client { .. } => Side::Client,
            Key::Service(_) => Side::Service,
        }
    }

    /// Why it is closed when the reaper did not close it, judged by its state.
    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        let state = self.state.lock();
        if state.proto.usable() {
            None
        } else if state.proto.is_aborted() {
            Some(CloseReason::Aborted)
        } else {
            Some(CloseReason::CallNumbersExhausted)
        }
    }

    /// One more call was carried.
    pub(super) fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls carried so far.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// True while it may carry further calls.
    pub(super) fn usable(&self) -> bool {
        self.state.lock().proto.usable()
    }

    /// The service that it speaks to now.
    pub(super) fn service_now(&self) -> ServiceId {
        self.state.lock().proto.service()
    }

    /// The round trip to the peer, if it was measured.
    pub(super) fn rtt(&self) -> Option<RoundTrip> {
        self.state.lock().proto.rtt()
    }

    /// Who is at the other end, if its security class has found out.
    pub(super) fn caller(&self) -> Option<Arc<Caller>> {
        self.state.lock().proto.caller().cloned()
    }

    pub(super) fn snapshot(&self) -> proto::ConnectionSnapshot {
        self.state.lock().proto.snapshot()
    }
}

impl Ref<Connection> {
    /// One turn: `work` on the protocol machine, then output, timer and wake-ups.
    pub(super) fn turn<R>(&self, now: Instant, work: impl FnOnce(&mut Turn<'_>) -> R) -> R {
        let shared = &self.shared;
        let mut released = None;
        let mut woken = Wakes::default();
        let mut state = self.state.lock();
        let mut turn = Turn {
            state: &mut state,
            wakes: &mut woken,
        };
        let (most, proven) = shared.path(&self.peer);
        turn.state.proto.set_path_mtu(most, proven);
        let result = work(&mut turn);

        let sent = self.send(&mut state, now);
        let mut turn = Turn {
            state: &mut state,
            wakes: &mut woken,
        };
        if sent.resent() > 0 {
            // Who traces the call tells when that was.
            turn.touched([true; 4]);
        }
        let found = (turn.state.proto.proven_mtu(), turn.state.proto.take_black_hole());
        if let Some(errno) = sent.unreachable {
            let touched = turn.state.proto.unreachable(now, errno, None);
            turn.touched(touched);
        }

        if state.proto.is_idle() {
            released = state.hold.take();
            state.waiting = None;
        } else if state.hold.is_none() {
            state.hold = Some(Self::hold(self));
        }
        let alarm = match (state.proto.next_timeout(), state.armed) {
            (Some(next), armed) if armed.is_none_or(|armed| next < armed) => {
                state.armed = Some(next);
                Some((next, armed))
            }
            _ => None,
        };
        let doubted = state.proto.is_doubted();
        let trusted = state.half_open.take_if(|_| !doubted);
        if self.life.is_brief() && !state.proto.is_on_probation() {
            self.life.keep();
        }
        let samples = state.proto.take_rtt_tally();
        let proof = state.proto.take_proof();
        let security = state.proto.security_index();
        drop(state);
        drop(trusted);
        shared.totals.add_rtt(&samples);
        if let Some(rtt) = samples.mean() {
            self.peer.set_round_trip(rtt);
            shared.sink.event(&Event::RoundTrip {
                side: self.side(),
                service: self.service,
                rtt,
            });
        }

        if let Some(proof) = proof {
            shared.sink.event(&Event::Secured {
                side: self.side(),
                security,
                proof,
            });
        }

        if let Some((at, before)) = alarm {
            let conn = Arc::downgrade(Self::shared(self));
            shared.timers.set(at, before, Alarm::Connection(conn));
        }
        if let Some(released) = released {
            Self::put_at(Self::let_go(self, released), shared.clock.millis(now));
        }
        woken.wake();
        shared.report(&sent, Way::Out);
        if found != (proven, false) {
            shared.path_changed(&self.peer, found.0, found.1);
        }
        result
    }

    /// Sends what the protocol machine wants sent, unless a turn is at it that will find it.
    fn send(&self, state: &mut MutexGuard<'_, State>, now: Instant) -> Traffic {
        let mut traffic = Traffic::default();
        if std::mem::replace(&mut state.sending, true) {
            return traffic;
        }
        let mut at = now;
        OUTPUT.with_borrow_mut(|buffer| {
            loop {
                buffer.clear();
                let Some(run) = state.proto.poll_transmit(at, buffer) else {
                    break;
                };
                let sent = MutexGuard::unlocked(state, || {
                    self.shared.transmit(&self.peer, &run, buffer, &mut traffic)
                });
                if let Err(errno) = sent {
                    traffic.unreachable = Some(errno);
                    break;
                }
                at = self.shared.clock.now();
            }
        });
        state.sending = false;
        if !traffic.is_empty() {
            self.peer.on_sent(&traffic);
            self.peer.way_back.on_sent(now);
        }
        traffic
    }

    /// The network has given back a datagram to its peer (an `errno`), of the call `refused` if that is known.
    pub(super) fn unreachable(&self, now: Instant, errno: i32, refused: Option<Slot>) {
        self.turn(now, |turn| {
            let touched = turn.state.proto.unreachable(now, errno, refused);
            turn.touched(touched);
        });
    }

    /// Fails its calls, but for replies that are on their way.
    pub(super) fn shut_down(&self, now: Instant) {
        self.turn(now, |turn| {
            let touched = turn.state.proto.close(now);
            turn.touched(touched);
        });
    }

    /// Fails all its calls, so that only who holds one holds the connection.
    pub(super) fn give_up(&self, now: Instant) {
        self.turn(now, |turn| {
            let touched = turn.state.proto.give_up(now);
            turn.touched(touched);
        });
    }

    /// The timer that was armed for `at` has fired. True if the connection should be forgotten.
    pub(super) fn expire(&self, now: Instant, at: Instant) -> bool {
        self.turn(now, |turn| {
            // Meanwhile it may have been armed anew.
            turn.state.armed = turn.state.armed.filter(|armed| *armed != at);
            let outcome = turn.state.proto.handle_timeout(now);
            turn.touched(outcome.touched);
            outcome.given_up
        })
    }
}

/// What a turn may work on.
pub(super) struct Turn<'a> {
    pub(super) state: &'a mut State,
    wakes: &'a mut Wakes,
}

impl Turn<'_> {
    /// Has the tasks of the touched channels look again.
    pub(super) fn touched(&mut self, touched: [bool; 4]) {
        let waiting = self
            .state
            .waiting
            .iter_mut()
            .flat_map(|waiting| waiting.iter_mut());
        for (channel, touched) in waiting.zip(touched) {
            if touched {
                self.wakes.add(channel.reader.take());
                self.wakes.add(channel.writer.take());
            }
        }
    }

    /// Registers the task that wants data or the end of the call.
    pub(super) fn read_later(&mut self, channel: ChannelIndex, waker: &Waker) {
        if let Some(channel) = self.waiting().get_mut(channel.index()) {
            channel.reader = Some(waker.clone());
        }
    }

    /// Registers the task that wants window.
    pub(super) fn write_later(&mut self, channel: ChannelIndex, waker: &Waker) {
        if let Some(channel) = self.waiting().get_mut(channel.index()) {
            channel.writer = Some(waker.clone());
        }
    }

    fn waiting(&mut self) -> &mut [ChannelWakers] {
        &mut **self.state.waiting.get_or_insert_default()
    }
}

/// Tasks to wake after the unlock; at most two for each channel.
#[derive(Default)]
struct Wakes([Option<Waker>; 8], usize);

impl Wakes {
    fn add(&mut self, waker: Option<Waker>) {
        if waker.is_some()
            && let Some(place) = self.0.get_mut(self.1)
        {
            *place = waker;
            self.1 += 1;
        }
    }

    fn wake(self) {
        for waker in self.0.into_iter().flatten() {
            waker.wake();
        }
    }
}

thread_local! {
    /// Where runs are laid out before they are sent. A thread sends for one connection at a time.
    static OUTPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

static NO_SCOPE: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));

#[cfg(test)]
mod tests {
    use super::*;

    /// With its places in the tables an idle connection stays under 1 KB (`benches/memory.rs` counts all of it).
    #[test]
    fn an_idle_connection_is_small() {
        assert!(
            size_of::<Connection>() <= 768,
            "{} bytes",
            size_of::<Connection>()
        );
    }
}
