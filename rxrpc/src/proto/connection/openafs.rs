//! A client of ours and a sender that does what OpenAFS's does (rxrpc.md 8.2, 8.3), on a path that loses: what our ACKs make of
//! its window.
//!
//! The machine: the sender has a reply without end. Packets and ACKs take half a round trip, a few are lost, and time jumps
//! to the next arrival or timer.

use std::collections::BTreeMap;
use std::time::Duration;

use super::by_hand::ByHand;
use super::*;
use crate::proto::{AckPacket, Flags};
use crate::random::Random;

/// What a packet of the sender's is, as long as it is not hard-acked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// To be sent, for the first time or again.
    Waiting,
    Sent,
    SoftAcked,
}

/// The sender: its window in packets, and how it shrinks and grows.
struct Sender {
    packets: BTreeMap<u32, State>,
    first: u32,
    /// Soft acks before the first gap.
    soft_acked: u32,
    window: u32,
    threshold: u32,
    /// What the window is when recovery ends.
    recovering: Option<u32>,
    nacks: u32,
    acked: u32,
    patience: Duration,
    expires: Option<Instant>,
    resent: u32,
    recoveries: u32,
    timeouts: u32,
}

impl Sender {
    fn new() -> Self {
        Self {
            packets: BTreeMap::new(),
            first: 1,
            soft_acked: 0,
            window: 1,
            threshold: SENT_MAX,
            recovering: None,
            nacks: 0,
            acked: 0,
            patience: PATIENCE,
            expires: None,
            resent: 0,
            recoveries: 0,
            timeouts: 0,
        }
    }

    /// The packets that leave now, and whether they ask for an ACK.
    fn send(&mut self, now: Instant) -> Vec<(u32, Flags)> {
        let end = self.first + SENT_MAX.min(self.soft_acked + self.window);
        let mut sent = Vec::new();
        for seq in self.first..end {
            let again = self.packets.contains_key(&seq);
            let state = self.packets.entry(seq).or_insert(State::Waiting);
            if *state == State::Waiting {
                *state = State::Sent;
                self.resent += u32::from(again);
                let asks = again || self.window <= 2;
                sent.push((seq, if asks { Flags::REQUEST_ACK } else { Flags::NONE }));
            }
        }
        if !sent.is_empty() {
            self.expires.get_or_insert(now + self.patience);
        }
        sent
    }

    fn on_ack(&mut self, now: Instant, ack: &AckPacket) {
        let first = ack.first.0;
        if first < self.first {
            return;
        }
        let kept = self.packets.split_off(&first);
        let gone = std::mem::replace(&mut self.packets, kept);
        let mut newly = gone.values().filter(|state| **state != State::SoftAcked).count();
        self.first = first;
        let (mut missing, mut nacked) = (false, 0);
        self.soft_acked = 0;
        for (seq, here) in (first..).zip(ack.acks.iter()) {
            let Some(state) = self.packets.get_mut(&seq) else {
                break;
            };
            if !here {
                missing = true;
                continue;
            }
            newly += usize::from(*state != State::SoftAcked);
            *state = State::SoftAcked;
            if missing {
                nacked += 1;
            } else {
                self.soft_acked += 1;
            }
        }
        self.nacks = if nacked > 0 { nacked.max(self.nacks + 1) } else { 0 };
        let newly = u32::try_from(newly).unwrap();
        if newly > 0 {
            self.patience = PATIENCE;
            let waits = self.packets.values().any(|state| *state == State::Sent);
            self.expires = waits.then(|| now + self.patience);
        }
        self.adjust(newly, nacked > 0);
    }

    fn adjust(&mut self, newly: u32, nacked: bool) {
        match self.recovering {
            Some(_) if newly == 0 => self.window = (self.window + 1).min(SENT_MAX),
            Some(window) => (self.recovering, self.window) = (None, window),
            None if nacked && self.nacks >= 3 => {
                self.recoveries += 1;
                self.threshold = self.window.clamp(4, SENT_MAX) / 2;
                self.window = (self.threshold + 3).min(SENT_MAX);
                self.recovering = Some(self.threshold);
                self.nacks = 0;
                let mut overtaken = false;
                for state in self.packets.values_mut().rev() {
                    match *state {
                        State::SoftAcked => overtaken = true,
                        State::Sent if overtaken => *state = State::Waiting,
                        State::Sent | State::Waiting => {}
                    }
                }
            }
            None if self.window < self.threshold => self.window = self.threshold.min(self.window + newly),
            None => {
                self.acked += newly;
                if self.acked >= self.window {
                    self.acked = 0;
                    self.window = (self.window + 1).min(SENT_MAX);
                }
            }
        }
    }

    fn on_time(&mut self, now: Instant) {
        if self.expires.is_none_or(|at| at > now) {
            return;
        }
        self.expires = None;
        self.timeouts += 1;
        self.patience *= 2;
        self.threshold = self.window.clamp(4, SENT_MAX) / 2;
        (self.window, self.recovering, self.nacks) = (1, Some(1), 0);
        for state in self.packets.values_mut().filter(|state| **state == State::Sent) {
            *state = State::Waiting;
        }
    }
}

/// What is under way.
enum Packet {
    Data(u32, Flags),
    Ack(AckPacket),
}

struct Path {
    ours: ByHand,
    theirs: Sender,
    under_way: BTreeMap<(Instant, u64), Packet>,
    order: u64,
    /// What becomes of a packet.
    loses: Box<dyn FnMut(&Packet) -> bool>,
}

impl Path {
    /// Our client has sent its request, and knows the round trip.
    fn new(loses: impl FnMut(&Packet) -> bool + 'static) -> Self {
        let mut ours = ByHand::sending_over(ROUND_TRIP, 1);
        ours.sent();
        Self {
            ours,
            theirs: Sender::new(),
            under_way: BTreeMap::new(),
            order: 0,
            loses: Box::new(loses),
        }
    }

    fn go_on(&mut self, round_trips: u32) {
        let until = self.ours.now + round_trips * ROUND_TRIP;
        loop {
            let now = self.ours.now;
            for (seq, flags) in self.theirs.send(now) {
                self.put(Packet::Data(seq, flags));
            }
            self.read();
            let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
            let timers = [arrival, self.ours.conn.next_timeout(), self.theirs.expires];
            let next = timers.into_iter().flatten().min().unwrap();
            if next > until {
                self.ours.now = until;
                return;
            }
            self.ours.now = now.max(next);
            self.arrive();
        }
    }

    /// Each packet by itself, so that ours has the most to say.
    fn arrive(&mut self) {
        let now = self.ours.now;
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
            match entry.remove() {
                Packet::Data(seq, flags) => drop(self.ours.data(seq, flags)),
                Packet::Ack(ack) => self.theirs.on_ack(now, &ack),
            }
            self.read();
        }
        self.ours.conn.handle_timeout(now);
        self.theirs.on_time(now);
    }

    fn read(&mut self) {
        while let Ok(Read::Data(_)) = self.ours.conn.read(self.ours.now, self.ours.slot) {}
        for ack in self.ours.sent_acks() {
            self.put(Packet::Ack(ack));
        }
    }

    fn put(&mut self, packet: Packet) {
        if !(self.loses)(&packet) {
            self.order += 1;
            let at = self.ours.now + ROUND_TRIP / 2;
            self.under_way.insert((at, self.order), packet);
        }
    }

    /// Packets hard-acked so far.
    fn done(&self) -> u32 {
        self.theirs.first - 1
    }
}

/// Loses these packets, each as often as it is named.
fn losing(seqs: &[u32]) -> impl FnMut(&Packet) -> bool + 'static {
    let mut seqs = seqs.to_vec();
    move |packet| {
        let place = seqs
            .iter()
            .position(|seq| matches!(packet, Packet::Data(lost, _) if lost == seq));
        place.map(|place| seqs.remove(place)).is_some()
    }
}

#[test]
fn nothing_lost_is_a_full_window_each_round_trip() {
    let mut path = Path::new(|_| false);
    path.go_on(100);
    assert!(path.done() >= 93 * SENT_MAX, "{}", path.done());
    assert_eq!((path.theirs.resent, path.theirs.timeouts), (0, 0));
}

#[test]
fn one_packet_lost_halves_the_window_once() {
    for lost in [500, 510, 520, 530] {
        let mut path = Path::new(losing(&[lost]));
        path.go_on(25);
        let theirs = path.theirs;
        assert_eq!(
            (theirs.recoveries, theirs.resent, theirs.timeouts),
            (1, 1, 0),
            "{lost}"
        );
        assert!(theirs.window >= SENT_MAX / 2, "{lost}: {}", theirs.window);
    }
}

#[test]
fn a_packet_that_is_lost_again_is_sent_again_without_a_timeout() {
    for lost in [20, 500, 520] {
        let mut path = Path::new(losing(&[lost, lost]));
        path.go_on(40);
        assert_eq!((path.theirs.recoveries, path.theirs.timeouts), (2, 0), "{lost}");
    }
}

#[test]
fn a_packet_lost_near_the_end_of_a_small_window_costs_no_timeout() {
    // Windows of 1, 2, 4 and 8 packets begin at 1, 2, 4 and 8: one or two come beyond what is lost.
    for lost in [2, 5, 6, 13, 14] {
        let mut path = Path::new(losing(&[lost]));
        path.go_on(20);
        assert_eq!(path.theirs.timeouts, 0, "{lost}");
        assert!(path.done() > 40, "{lost}: {}", path.done());
    }
}

#[test]
fn an_ack_lost_when_nothing_else_comes_is_given_again() {
    // The first ones answer windows of 1, 2 and 4 packets.
    for lost in 0..6 {
        let mut number = 0;
        let mut path = Path::new(move |packet| {
            let is_ack = matches!(packet, Packet::Ack(_));
            number += u32::from(is_ack);
            is_ack && (lost..lost + 2).contains(&(number - 1))
        });
        path.go_on(20);
        assert_eq!(path.theirs.timeouts, 0, "{lost}");
        assert!(path.done() > 200, "{lost}: {}", path.done());
    }
}

#[test]
fn a_service_that_has_nothing_to_send_is_asked_four_times() {
    let mut path = Path::new(|_| false);
    path.go_on(10);
    // It has no more; all is acknowledged.
    path.ours.wait(ROUND_TRIP);
    let said = path.ours.wait(Duration::from_millis(2900));
    assert_eq!(said.len(), 4);
}

#[test]
fn one_in_a_hundred_lost_each_way_leaves_what_halving_allows() {
    let mut random = Random::new(1);
    let mut path = Path::new(move |_| random.percent(1));
    let round_trips = 4000;
    path.go_on(round_trips);
    let per_round_trip = f64::from(path.done()) / f64::from(round_trips);
    // sqrt(3/2) / sqrt(0.01) is 12.2 (Mathis, Semke, Mahdavi and Ott, 1997). With an ACK for each packet beyond a gap it is 8.
    assert!(per_round_trip > 10.0, "{per_round_trip}");
    assert_eq!(path.theirs.timeouts, 0);
}

const ROUND_TRIP: Duration = Duration::from_millis(20);
/// OpenAFS `rx_maxSendWindow`.
const SENT_MAX: u32 = 32;
/// The least retransmission timeout.
const PATIENCE: Duration = Duration::from_millis(220);
