//! Servers: who they are, where they are, and whether they answer.
//!
//! A file server is its UUID; addresses are only ways to reach it, and callback promises belong to the server. An
//! address goes down when a call to it got no answer and comes up with any answer at all (an abort is one); a server is
//! down when all its addresses are. Database servers are kept the same way, each with one address.

mod failures;
mod latency;
mod pace;
mod registry;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use failures::Failures;
pub(crate) use latency::Hedges;
use latency::Latencies;
pub(crate) use pace::Aim;
use pace::{AHEAD_MAX, Begun, Pace};
pub use registry::{Origin, Servers};

use crate::rpc::types::AfsUuid;

/// Most addresses remembered for one server.
const ADDRESSES_MAX: usize = 32;
/// Rank of a server on this host.
const RANK_HOST: u32 = 5_000;
/// Rank of a server anywhere else.
const RANK_OTHER: u32 = 40_000;
/// What the round trip time can add to a rank, in tenths of milliseconds.
const RANK_RTT_MAX: u32 = 9_000;
/// What it adds if all calls fail, in the same: a call that fails costs the better part of a second, or more.
const RANK_FAILURES: f64 = 9_000.0;
/// Who fails more of its calls than this gets no share of what others can send.
const OFTEN: f64 = 0.25;

/// What makes a server itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerId {
    /// A file server.
    Uuid(AfsUuid),
    /// A file server so old that it registered no UUID.
    Address(Ipv4Addr),
    /// A database server.
    Database(SocketAddrV4),
}

/// Whether a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers, or was never asked.
    Up,
    /// None of its addresses answers.
    Down {
        /// Since when.
        since: Instant,
    },
}

/// A change of [`State`] that the caller is to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The first address came up.
    Up,
    /// The last address went down.
    Down,
}

/// A server.
pub struct Server {
    id: ServerId,
    /// Raised by each InitCallBackState: promises made under an older value are gone.
    init_counter: AtomicU64,
    /// Spreads clients over servers of equal rank.
    spread: u32,
    /// Short and last: nothing else is locked under it.
    reach: Mutex<Reach>,
    /// As `reach`; those that follow too.
    pace: Mutex<Pace>,
    latencies: Mutex<Latencies>,
    first_bytes: Mutex<Latencies>,
    failures: Mutex<Failures>,
    /// For what is fetched ahead of readers.
    turns: Semaphore,
}

/// File data that a server is sending.
#[derive(Debug)]
pub(crate) struct Sending<'a> {
    server: &'a Server,
    begun: Begun,
    ended: Option<(Instant, u64)>,
}

/// What is known about reaching a server.
#[derive(Debug, Default)]
struct Reach {
    addresses: Vec<Address>,
    /// Version of the address list that `addresses` came from.
    list_version: Option<i32>,
    preference: Option<u16>,
    capabilities: Option<u32>,
    last_contact: Option<Instant>,
    last_probe: Option<Instant>,
    /// When the last of its promises ends.
    promised_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Address {
    peer: SocketAddrV4,
    down_since: Option<Instant>,
    rtt: Option<Duration>,
}

impl Server {
    /// A server that nothing is known about but its addresses. `spread` is a random number.
    #[must_use]
    pub fn new(id: ServerId, addresses: &[SocketAddrV4], spread: u32) -> Self {
        let server = Self {
            id,
            init_counter: AtomicU64::new(0),
            spread: spread % 16,
            reach: Mutex::new(Reach::default()),
            pace: Mutex::default(),
            latencies: Mutex::default(),
            first_bytes: Mutex::default(),
            failures: Mutex::default(),
            turns: Semaphore::new(AHEAD_MAX),
        };
        server.set_addresses(None, addresses);
        server
    }

    /// What makes it itself.
    #[must_use]
    pub const fn id(&self) -> ServerId {
        self.id
    }

    /// Its addresses, as listed.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddrV4> {
        self.reach
            .lock()
            .addresses
            .iter()
            .map(|address| address.peer)
            .collect()
    }

    /// Replaces the addresses; what is known about those that stay is kept. `list_version` is the location database's
    /// number for this list.
    pub fn set_addresses(&self, list_version: Option<i32>, addresses: &[SocketAddrV4]) {
        let mut reach = self.reach.lock();
        let fresh = |peer: &SocketAddrV4| Address {
            peer: *peer,
            down_since: None,
            rtt: None,
        };
        let mut listed: Vec<Address> = Vec::new();
        for peer in addresses {
            if listed.len() < ADDRESSES_MAX && !listed.iter().any(|address| address.peer == *peer) {
                let known = reach
                    .addresses
                    .iter()
                    .find(|address| address.peer == *peer)
                    .copied();
                listed.push(known.unwrap_or_else(|| fresh(peer)));
            }
        }
        reach.addresses = listed;
        reach.list_version = list_version.or(reach.list_version);
    }

    /// Version of the address list in use.
    #[must_use]
    pub fn list_version(&self) -> Option<i32> {
        self.reach.lock().list_version
    }

    /// Whether it answers.
    #[must_use]
    pub fn state(&self) -> State {
        self.reach.lock().state()
    }

    /// True if some address answers, or was never asked.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.state() == State::Up
    }

    /// The best address that is up and for which `skip` is false.
    #[must_use]
    pub fn best_address(&self, skip: impl Fn(SocketAddrV4) -> bool) -> Option<SocketAddrV4> {
        let reach = self.reach.lock();
        let usable = reach
            .addresses
            .iter()
            .filter(|address| address.down_since.is_none() && !skip(address.peer));
        usable
            .min_by_key(|address| reach.rank(address))
            .map(|address| address.peer)
    }

    /// How good it is compared with others: lower is better.
    #[must_use]
    pub fn rank(&self, now: Instant) -> u32 {
        let by_failures = cost_of(self.failing(now));
        let reach = self.reach.lock();
        let best = reach.addresses.iter().map(|address| reach.rank(address)).min();
        best.unwrap_or(u32::MAX / 2) + by_failures + self.spread
    }

    /// Fixes the rank (lower is better) in place of what the addresses suggest; `None` undoes it.
    pub fn set_preference(&self, preference: Option<u16>) {
        self.reach.lock().preference = preference;
    }

    /// The round trip time of the best address that was measured.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.reach
            .lock()
            .addresses
            .iter()
            .filter_map(|address| address.rtt)
            .min()
    }

    /// Notes that a probe of `peer` took `rtt`.
    pub fn record_rtt(&self, peer: SocketAddrV4, rtt: Duration) {
        if let Some(address) = self.reach.lock().address(peer) {
            // Smoothed like a transport's: seven parts of the old to one of the new.
            address.rtt = Some(address.rtt.map_or(rtt, |old| (old * 7 + rtt) / 8));
        }
    }

    /// It is about to be asked for so many bytes of file data.
    pub(crate) fn begin_sending(&self, now: Instant, bytes: u64) -> Sending<'_> {
        Sending {
            server: self,
            begun: self.pace.lock().begin(now, bytes),
            ended: None,
        }
    }

    /// How much is fetched ahead of somebody who reads what it has.
    pub(crate) fn aim(&self) -> Aim {
        self.pace.lock().aim()
    }

    /// What one call for file data carries at its best, in bytes a second; 0 as long as that has not been proved.
    pub(crate) fn single_pace(&self) -> u64 {
        self.pace.lock().single()
    }

    /// Is it time to see again how fast it is?
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.pace.lock().is_due(now)
    }

    /// How much it has to do if it gets so many bytes more to send.
    pub(crate) fn load(&self, bytes: u64) -> u64 {
        self.pace.lock().load(bytes)
    }

    /// A call to it has ended: it has failed if that was the server's fault, or nobody has answered.
    pub(crate) fn record_outcome(&self, now: Instant, failed: bool) {
        self.failures.lock().add(now, failed);
    }

    /// The share of the calls to it that have failed of late, of 1.
    #[must_use]
    pub fn failing(&self, now: Instant) -> f64 {
        self.failures.lock().share(now)
    }

    /// Do so many calls to it fail that what others can send is not asked of it?
    #[must_use]
    pub fn fails_often(&self, now: Instant) -> bool {
        self.failing(now) > OFTEN
    }

    /// A small call to it took so long.
    pub(crate) fn record_latency(&self, took: Duration) {
        self.latencies.lock().add(took);
    }

    /// How long nearly all small calls to it have taken; `None` as long as that is not known.
    pub(crate) fn patience(&self) -> Option<Duration> {
        self.latencies.lock().patience()
    }

    /// File data took so long to begin to come from it.
    pub(crate) fn record_first_byte(&self, took: Duration) {
        self.first_bytes.lock().add(took);
    }

    /// In how long nearly all file data has begun to come from it; `None` as long as that is not known.
    pub(crate) fn patience_for_data(&self) -> Option<Duration> {
        self.first_bytes.lock().patience()
    }

    /// Turns to ask it for what nobody waits for yet.
    pub(crate) const fn turns(&self) -> &Semaphore {
        &self.turns
    }

    /// Notes that `peer` answered.
    pub fn mark_up(&self, peer: SocketAddrV4, now: Instant) -> Option<Change> {
        let mut reach = self.reach.lock();
        let was = reach.state();
        reach.last_contact = Some(now);
        if let Some(address) = reach.address(peer) {
            address.down_since = None;
        }
        (was != State::Up && reach.state() == State::Up).then_some(Change::Up)
    }

    /// Notes that `peer` did not answer.
    pub fn mark_down(&self, peer: SocketAddrV4, now: Instant) -> Option<Change> {
        let mut reach = self.reach.lock();
        let was = reach.state();
        if let Some(address) = reach.address(peer) {
            address.down_since.get_or_insert(now);
        }
        (was == State::Up && reach.state() != State::Up).then_some(Change::Down)
    }

    /// The addresses that are down.
    #[must_use]
    pub fn down_addresses(&self) -> Vec<SocketAddrV4> {
        let reach = self.reach.lock();
        reach
            .addresses
            .iter()
            .filter(|address| address.down_since.is_some())
            .map(|down| down.peer)
            .collect()
    }

    /// When it last answered or called.
    #[must_use]
    pub fn last_contact(&self) -> Option<Instant> {
        self.reach.lock().last_contact
    }

    /// When the last probe of it ended.
    #[must_use]
    pub fn last_probe(&self) -> Option<Instant> {
        self.reach.lock().last_probe
    }

    /// Notes that a probe ended.
    pub fn record_probe(&self, now: Instant) {
        self.reach.lock().last_probe = Some(now);
    }

    /// What it can do, once it has said so.
    #[must_use]
    pub fn capabilities(&self) -> Option<u32> {
        self.reach.lock().capabilities
    }

    /// Notes what it can do; `None` forgets it.
    pub fn set_capabilities(&self, capabilities: Option<u32>) {
        self.reach.lock().capabilities = capabilities;
    }

    /// How often it has told us that all its promises are gone. Taken before a call is sent and compared when its reply
    /// arrives, it tells whether the reply's promise stands.
    #[must_use]
    pub fn init_counter(&self) -> u64 {
        self.init_counter.load(Ordering::Acquire)
    }

    /// It has promised something until then.
    pub fn record_promise(&self, until: Instant) {
        let mut reach = self.reach.lock();
        reach.promised_until = reach.promised_until.max(Some(until));
    }

    /// True if it may have something to tell us of: a promise that has neither ended nor gone.
    #[must_use]
    pub fn may_call_back(&self, now: Instant) -> bool {
        self.reach.lock().promised_until.is_some_and(|until| until > now)
    }

    /// All promises of this server are gone (InitCallBackState): constant time, however many there were.
    pub fn drop_promises(&self) {
        self.init_counter.fetch_add(1, Ordering::AcqRel);
        let mut reach = self.reach.lock();
        reach.capabilities = None;
        reach.promised_until = None;
    }
}

/// What a share of failed calls adds to a rank.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is between 0 and RANK_FAILURES"
)]
fn cost_of(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * RANK_FAILURES) as u32
}

impl Sending<'_> {
    /// It has sent so many bytes.
    pub(crate) fn end(mut self, now: Instant, got: u64) {
        self.ended = Some((now, got));
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.server.pace.lock().end(&self.begun, self.ended);
    }
}

impl Reach {
    fn state(&self) -> State {
        let mut since = None;
        for address in &self.addresses {
            match address.down_since {
                None => return State::Up,
                // It went down when the last of its addresses did.
                Some(at) => since = since.max(Some(at)),
            }
        }
        since.map_or(State::Up, |since| State::Down { since })
    }

    fn address(&mut self, peer: SocketAddrV4) -> Option<&mut Address> {
        self.addresses.iter_mut().find(|address| address.peer == peer)
    }

    fn rank(&self, address: &Address) -> u32 {
        let near = if address.peer.ip().is_loopback() {
            RANK_HOST
        } else {
            RANK_OTHER
        };
        let tenths = address.rtt.map_or(0, |rtt| rtt.as_micros() / 100);
        let by_rtt = u32::try_from(tenths).unwrap_or(RANK_RTT_MAX).min(RANK_RTT_MAX);
        self.preference.map_or(near, u32::from) + by_rtt
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Server")
            .field("id", &self.id)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => write!(f, "{uuid}"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Database(peer) => write!(f, "{peer}"),
        }
    }
}

impl fmt::Debug for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, last), 7000)
    }

    fn server(addresses: &[SocketAddrV4]) -> Server {
        Server::new(ServerId::Address(Ipv4Addr::new(192, 0, 2, 1)), addresses, 0)
    }

    #[test]
    fn it_is_down_when_all_addresses_are() {
        let (server, start) = (server(&[peer(1), peer(2)]), crate::clock::now());
        let later = start + Duration::from_secs(1);
        assert_eq!(server.mark_down(peer(1), start), None);
        assert_eq!(server.best_address(|_| false), Some(peer(2)));
        assert_eq!(server.mark_down(peer(2), later), Some(Change::Down));
        assert_eq!(server.mark_down(peer(2), later), None);
        assert_eq!(server.state(), State::Down { since: later });
        assert_eq!(
            (server.best_address(|_| false), server.down_addresses().len()),
            (None, 2)
        );
        assert_eq!(server.mark_up(peer(1), later), Some(Change::Up));
        assert_eq!(server.mark_up(peer(2), later), None);
        assert_eq!(server.last_contact(), Some(later));
    }

    #[test]
    fn rank_follows_preference_then_nearness_then_time() {
        let (near, far) = (
            server(&[SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000)]),
            server(&[peer(1), peer(2)]),
        );
        let now = crate::clock::now();
        assert!(near.rank(now) < far.rank(now));
        far.record_rtt(peer(1), Duration::from_millis(20));
        far.record_rtt(peer(2), Duration::from_millis(10));
        assert_eq!(far.best_address(|_| false), Some(peer(2)));
        assert_eq!(far.best_address(|address| address == peer(2)), Some(peer(1)));
        assert_eq!(far.rtt(), Some(Duration::from_millis(10)));
        far.record_rtt(peer(2), Duration::from_secs(8));
        assert_eq!(far.best_address(|_| false), Some(peer(1)));
        far.set_preference(Some(1));
        assert!(far.rank(now) < near.rank(now));
    }

    #[test]
    fn a_server_that_fails_counts_as_farther_for_a_while() {
        let (one, other) = (server(&[peer(1)]), server(&[peer(2)]));
        let now = crate::clock::now();
        one.record_rtt(peer(1), Duration::from_millis(1));
        other.record_rtt(peer(2), Duration::from_millis(40));
        one.record_outcome(now, true);
        assert!(one.rank(now) > other.rank(now));
        assert!(!one.fails_often(now), "once is an accident");
        let later = now + Duration::from_secs(60);
        assert!(one.rank(later) < other.rank(later));
        for _ in 0..8 {
            one.record_outcome(now, true);
        }
        assert!(one.fails_often(now));
        for _ in 0..16 {
            one.record_outcome(now, false);
        }
        assert!(!one.fails_often(now));
    }

    #[test]
    fn new_lists_keep_what_is_known() {
        let (server, now) = (server(&[peer(1)]), crate::clock::now());
        server.mark_down(peer(1), now);
        server.set_addresses(Some(3), &[peer(1), peer(2), peer(2)]);
        assert_eq!(server.addresses(), [peer(1), peer(2)]);
        assert_eq!(
            (server.down_addresses(), server.list_version()),
            (vec![peer(1)], Some(3))
        );
    }

    #[test]
    fn dropped_promises_are_counted() {
        let server = server(&[peer(1)]);
        server.set_capabilities(Some(2));
        let now = crate::clock::now();
        server.record_promise(now + Duration::from_secs(9));
        server.record_promise(now + Duration::from_secs(5));
        assert!(
            server.may_call_back(now + Duration::from_secs(8)),
            "the longest counts"
        );
        assert!(!server.may_call_back(now + Duration::from_secs(9)));
        server.drop_promises();
        assert_eq!((server.init_counter(), server.capabilities()), (1, None));
        assert!(!server.may_call_back(now));
    }
}
