//! The transmit queue of a call: what was queued, what is under way, what is to be sent again.
//!
//! The machine: the queue holds every packet from the first that is not hard-acked. A packet is unsent, in flight, acked
//! (softly: it is kept, since the peer may still drop it) or lost. Transmissions are numbered in order; a packet is lost
//! when one sent three later has arrived (RFC 9002, section 6.1.1) or when the retransmission timer runs out. Lost packets
//! go before unsent ones.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::proto::secure::Sealed;
use crate::proto::{SackTable, Seq, Serial};

/// Packets to the peer that are not hard-acked.
#[derive(Debug)]
pub(super) struct SendQueue {
    packets: VecDeque<Outgoing>,
    /// The packet at the front of the queue.
    bottom: Seq,
    /// Index of the first packet that was never sent.
    unsent: usize,
    in_flight: usize,
    lost: usize,
    acked: usize,
    /// LAST is queued.
    ended: bool,
    /// Packets from `bottom` that the peer has room for.
    peer_window: usize,
    /// Where the last accepted ACK said it was (it may be a serial: some peers err).
    previous: Seq,
    /// Transmissions made.
    sent: u64,
    newest_acked: u64,
}

/// A packet in the queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) body: Bytes,
    pub(super) checksum: u16,
    pub(super) last: bool,
    flight: Flight,
    sendings: Option<Sendings>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flight {
    Unsent,
    Sent,
    Acked,
    Lost,
}

/// When a packet was sent, first and last.
#[derive(Clone, Copy, Debug)]
struct Sendings {
    first: Sending,
    latest: Sending,
}

#[derive(Clone, Copy, Debug)]
struct Sending {
    serial: Serial,
    order: u64,
    at: Instant,
}

/// What an ACK says about what we sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    pub(super) first: Seq,
    pub(super) previous: Seq,
    /// The packet that provoked the ACK, 0 if none.
    pub(super) serial: Serial,
    /// One entry for each packet from `first` on.
    pub(super) acks: SackTable,
}

/// What became of an ACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    /// Packets acked for the first time.
    pub(super) newly: u32,
    /// Packets that left the queue.
    pub(super) freed: u32,
    /// The newest transmission that arrived.
    pub(super) newest: u64,
    /// The newest transmission that is now taken for lost.
    pub(super) lost: Option<u64>,
}

/// Why an ACK was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckFault {
    /// It is older than one applied before.
    Stale,
    /// It acknowledges what was never sent.
    BeyondSent,
}

impl SendQueue {
    pub(super) fn new() -> Self {
        Self {
            packets: VecDeque::new(),
            bottom: Seq(1),
            unsent: 0,
            in_flight: 0,
            lost: 0,
            acked: 0,
            ended: false,
            peer_window: WINDOW_FIRST,
            previous: Seq(0),
            sent: 0,
            newest_acked: 0,
        }
    }

    /// Packets that the application may still queue.
    pub(super) fn room(&self) -> usize {
        (self.peer_window * 2)
            .clamp(WINDOW_FIRST, WINDOW_MAX)
            .saturating_sub(self.packets.len())
    }

    /// The number of the next packet queued.
    pub(super) fn next_seq(&self) -> Seq {
        self.seq(self.packets.len())
    }

    /// Queues a packet.
    pub(super) fn push(&mut self, sealed: Sealed, last: bool) {
        self.ended |= last;
        self.packets.push_back(Outgoing {
            body: sealed.body,
            checksum: sealed.checksum,
            last,
            flight: Flight::Unsent,
            sendings: None,
        });
    }

    /// The packet that should leave now, if `congestion_window` allows one.
    pub(super) fn next_to_send(&self, congestion_window: u32) -> Option<usize> {
        if self.in_flight >= congestion_window as usize {
            None
        } else if self.lost > 0 {
            self.packets
                .iter()
                .position(|packet| packet.flight == Flight::Lost)
        } else {
            (self.unsent < self.packets.len() && self.unsent < self.peer_window).then_some(self.unsent)
        }
    }

    /// The packet at an index.
    pub(super) fn packet(&self, index: usize) -> Option<&Outgoing> {
        self.packets.get(index)
    }

    /// The number of the packet at an index.
    pub(super) fn seq(&self, index: usize) -> Seq {
        self.bottom.plus(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// True if the packet at an index was sent before.
    pub(super) fn was_sent(&self, index: usize) -> bool {
        index < self.unsent
    }

    /// The packet at an index leaves.
    pub(super) fn on_sent(&mut self, index: usize, serial: Serial, now: Instant) {
        self.sent += 1;
        let latest = Sending {
            serial,
            order: self.sent,
            at: now,
        };
        if let Some(packet) = self.packets.get_mut(index) {
            let first = packet.sendings.map_or(latest, |sendings| sendings.first);
            packet.sendings = Some(Sendings { first, latest });
        }
        self.fly(index, Flight::Sent);
        self.unsent = self.unsent.max(index + 1);
    }

    /// The time since the sending of exactly the packet that an ACK answers.
    pub(super) fn sample(&self, serial: Serial, now: Instant) -> Option<Duration> {
        self.packets
            .iter()
            .take(self.unsent)
            .filter_map(|packet| packet.sendings)
            .find_map(|sendings| {
                [sendings.latest, sendings.first]
                    .into_iter()
                    .find(|sending| sending.serial == serial)
                    .map(|sending| now.saturating_duration_since(sending.at))
            })
    }

    /// The peer says how many packets it has room for.
    pub(super) fn set_peer_window(&mut self, packets: u32, may_grow: bool) {
        let packets = (packets as usize).min(WINDOW_MAX);
        if may_grow || packets < self.peer_window {
            self.peer_window = packets;
        }
    }

    /// Judges an ACK by its place among others.
    pub(super) fn accepts(&self, ack: &Received) -> Result<(), AckFault> {
        let hard = usize::try_from(ack.first.since(self.bottom)).map_err(|_| AckFault::Stale)?;
        let implausible =
            usize::try_from(self.previous.since(self.bottom)).is_ok_and(|ahead| ahead > WINDOW_MAX);
        if hard == 0 && ack.previous.before(self.previous) && !implausible {
            return Err(AckFault::Stale);
        }
        if hard + ack.acks.len() > self.unsent {
            return Err(AckFault::BeyondSent);
        }
        Ok(())
    }

    /// Applies an ACK.
    pub(super) fn on_ack(&mut self, ack: &Received) -> Result<Progress, AckFault> {
        self.accepts(ack)?;
        self.previous = ack.previous;
        let mut progress = Progress::default();
        let hard = usize::try_from(ack.first.since(self.bottom)).unwrap_or(0);
        self.free(hard, ack.serial, &mut progress);
        for (index, here) in ack.acks.iter().enumerate() {
            match self.packets.get(index).map(|packet| packet.flight) {
                Some(Flight::Sent | Flight::Lost) if here => {
                    progress.newly += 1;
                    self.note_arrival(index, ack.serial);
                    self.fly(index, Flight::Acked);
                }
                // The peer has dropped it again.
                Some(Flight::Acked) if !here => self.fly(index, Flight::Sent),
                _ => {}
            }
        }
        progress.newest = self.newest_acked;
        progress.lost = self.detect_losses();
        Ok(progress)
    }

    /// All that was sent has arrived. False if that is not all there is.
    pub(super) fn on_all_acked(&mut self, progress: &mut Progress) -> bool {
        let whole = self.ended && self.unsent == self.packets.len();
        if whole {
            self.free(self.unsent, Serial(0), progress);
        }
        whole
    }

    /// Nothing more will be sent.
    pub(super) fn clear(&mut self) {
        let count = self.packets.len();
        self.free(count, Serial(0), &mut Progress::default());
        self.ended = true;
    }

    /// Takes everything in flight for lost; gives how many that were.
    pub(super) fn on_timeout(&mut self) -> usize {
        let before = self.lost;
        for index in 0..self.unsent {
            if self
                .packets
                .get(index)
                .is_some_and(|packet| packet.flight == Flight::Sent)
            {
                self.fly(index, Flight::Lost);
            }
        }
        self.lost - before
    }

    /// LAST is queued.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// Nothing waits to be acknowledged or sent.
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// LAST was queued and every packet is acked, if only softly.
    pub(super) fn is_acked(&self) -> bool {
        self.ended && self.acked == self.packets.len()
    }

    /// LAST is queued and has been sent.
    pub(super) fn is_sent(&self) -> bool {
        self.ended && self.unsent == self.packets.len()
    }

    /// No packet was sent twice, and none has left the queue.
    pub(super) fn is_first_sending(&self) -> bool {
        self.sent == self.unsent as u64
    }

    /// LAST is in flight.
    pub(super) fn awaits_last(&self) -> bool {
        self.is_sent() && !self.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Transmissions made.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// True if after the packet at `index` the peer's window or the congestion window is as good as used up.
    pub(super) fn is_tight(&self, index: usize, congestion_window: u32) -> bool {
        index + TIGHT >= self.peer_window || self.in_flight + TIGHT >= congestion_window as usize
    }

    /// Frees the first `count` packets.
    fn free(&mut self, count: usize, serial: Serial, progress: &mut Progress) {
        for _ in 0..count.min(self.packets.len()) {
            if self
                .packets
                .front()
                .is_some_and(|packet| packet.flight != Flight::Acked)
            {
                progress.newly += 1;
                self.note_arrival(0, serial);
            }
            // Out of every count but the acked one, which the removal takes it out of.
            self.fly(0, Flight::Acked);
            self.packets.pop_front();
            self.acked -= 1;
            self.unsent = self.unsent.saturating_sub(1);
            self.bottom = self.bottom.next();
            progress.freed += 1;
        }
    }

    /// The packet at `index` has arrived. If it was sent more than once, and the ACK was provoked by something older than
    /// its latest sending, it was the first sending that arrived.
    fn note_arrival(&mut self, index: usize, provoked_by: Serial) {
        if let Some(sendings) = self.packets.get(index).and_then(|packet| packet.sendings) {
            let latest = provoked_by != Serial(0) && !provoked_by.before(sendings.latest.serial);
            let order = if latest {
                sendings.latest.order
            } else {
                sendings.first.order
            };
            self.newest_acked = self.newest_acked.max(order);
        }
    }

    fn detect_losses(&mut self) -> Option<u64> {
        let mut newest_lost = None;
        for index in 0..self.unsent {
            let Some(packet) = self.packets.get(index) else {
                break;
            };
            let Some(sendings) = packet.sendings else { break };
            let order = sendings.latest.order;
            if packet.flight == Flight::Sent && order + REORDERING <= self.newest_acked {
                self.fly(index, Flight::Lost);
                newest_lost = newest_lost.max(Some(order));
            }
        }
        newest_lost
    }

    /// Changes the state of a packet and the counts with it.
    fn fly(&mut self, index: usize, flight: Flight) {
        let Some(packet) = self.packets.get_mut(index) else {
            return;
        };
        let before = std::mem::replace(&mut packet.flight, flight);
        for (state, by) in [(before, -1), (flight, 1)] {
            let count = match state {
                Flight::Unsent => continue,
                Flight::Sent => &mut self.in_flight,
                Flight::Acked => &mut self.acked,
                Flight::Lost => &mut self.lost,
            };
            *count = count.saturating_add_signed(by);
        }
    }
}

/// What every peer has room for before it says so (OpenAFS and Linux begin with as many).
const WINDOW_FIRST: usize = 16;
/// An ACK can describe no more.
const WINDOW_MAX: usize = 255;
/// A packet is lost when one sent this much later has arrived.
const REORDERING: u64 = 3;
/// With so few packets left to send an acknowledgement is wanted at once.
const TIGHT: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(packets: usize) -> SendQueue {
        let mut queue = SendQueue::new();
        for index in 0..packets {
            let body = Bytes::from_static(b"x");
            queue.push(Sealed { body, checksum: 0 }, index + 1 == packets);
        }
        queue
    }

    fn send_all(queue: &mut SendQueue, serial: &mut u32, now: Instant) -> Vec<u32> {
        let mut sent = Vec::new();
        while let Some(index) = queue.next_to_send(100) {
            *serial += 1;
            sent.push(queue.seq(index).0);
            queue.on_sent(index, Serial(*serial), now);
        }
        sent
    }

    fn ack(first: u32, serial: u32, table: &[u8]) -> Received {
        let previous = Seq(first
            .wrapping_add(u32::try_from(table.len()).unwrap())
            .wrapping_sub(1));
        Received {
            first: Seq(first),
            previous,
            serial: Serial(serial),
            acks: table.iter().map(|&entry| entry == 1).collect(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn third_later_arrival_makes_a_loss() {
        let (mut queue, mut serial, now) = (queue(8), 0, now());
        assert_eq!(send_all(&mut queue, &mut serial, now).len(), 8);
        let progress = queue.on_ack(&ack(2, 4, &[0, 1, 1])).unwrap();
        assert_eq!((progress.newly, progress.freed, progress.lost), (3, 1, None));
        let progress = queue.on_ack(&ack(2, 5, &[0, 1, 1, 1])).unwrap();
        assert_eq!((progress.newly, progress.lost), (1, Some(2)));
        assert_eq!(send_all(&mut queue, &mut serial, now), [2]);
        let progress = queue.on_ack(&ack(9, 9, &[])).unwrap();
        assert_eq!(progress.freed, 7);
        assert!(queue.is_empty() && queue.is_acked() && queue.in_flight() == 0);
    }

    #[test]
    fn lost_retransmission_is_lost_again() {
        let (mut queue, mut serial, now) = (queue(12), 0, now());
        queue.set_peer_window(6, true);
        send_all(&mut queue, &mut serial, now);
        assert_eq!(queue.on_ack(&ack(1, 4, &[0, 1, 1, 1])).unwrap().lost, Some(1));
        assert_eq!(send_all(&mut queue, &mut serial, now), [1]);
        queue.set_peer_window(12, true);
        assert_eq!(send_all(&mut queue, &mut serial, now).len(), 6);
        let progress = queue.on_ack(&ack(1, 10, &[0, 1, 1, 1, 1, 1, 1, 1, 1])).unwrap();
        assert_eq!(
            progress.lost,
            Some(7),
            "sent as the seventh, the tenth has arrived"
        );
    }

    #[test]
    fn stale_and_impossible_acks() {
        let (mut queue, mut serial, now) = (queue(8), 0, now());
        send_all(&mut queue, &mut serial, now);
        queue.on_ack(&ack(4, 3, &[])).unwrap();
        assert_eq!(queue.on_ack(&ack(3, 2, &[1])), Err(AckFault::Stale));
        assert_eq!(queue.on_ack(&ack(10, 2, &[])), Err(AckFault::BeyondSent));
        assert_eq!(
            queue.on_ack(&ack(4, 2, &[1, 1, 1, 1, 1, 1])),
            Err(AckFault::BeyondSent)
        );
    }

    #[test]
    fn reneged_packets_fly_again() {
        let (mut queue, mut serial, now) = (queue(4), 0, now());
        send_all(&mut queue, &mut serial, now);
        queue.on_ack(&ack(1, 4, &[1, 1, 1, 1])).unwrap();
        assert!(queue.is_acked());
        queue.on_ack(&ack(1, 4, &[1, 0, 1, 1])).unwrap();
        assert_eq!(queue.in_flight(), 1);
        assert_eq!(queue.on_timeout(), 1);
        assert_eq!(send_all(&mut queue, &mut serial, now), [2]);
    }
}
