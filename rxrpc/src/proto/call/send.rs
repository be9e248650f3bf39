//! The transmit queue of a call: what was queued, what is under way, what is to be sent again.
//!
//! The machine: the queue holds every packet from the first that is not hard-acked. Those that were sent are acked (softly:
//! they are kept, since the peer may still drop them), lost, or in flight. Every sending is remembered in
//! [`Flights`]; [`Rack`] judges by what has arrived which of them are lost. Lost packets go before unsent ones, and none
//! goes beyond the peer's window. An ACK costs as many steps as packets change their state by it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::bits::Bits;
use super::flights::{Flight, Flights};
use super::rack::{OVERTAKING, Rack};
use crate::proto::rtt::RttEstimator;
use crate::proto::secure::Sealed;
use crate::proto::{AckReason, SackTable, Seq, Serial};

/// Packets to the peer that are not hard-acked.
#[derive(Debug)]
pub(super) struct SendQueue {
    packets: VecDeque<Outgoing>,
    /// The packet at the front of the queue.
    bottom: Seq,
    /// How many of the packets have been sent: those at the front.
    sent: usize,
    acked: Bits,
    lost: Bits,
    in_flight: usize,
    flights: Flights,
    rack: Rack,
    /// LAST is queued.
    ended: bool,
    /// Packets from `bottom` that the peer has room for.
    peer_window: usize,
    newest_ack: Option<NewestAck>,
    /// The last serial sent before the first hard-ack came: what answers to a later one knows of that.
    known_since: Option<Serial>,
    probe: Option<Probe>,
    /// Transmissions made.
    sendings: u64,
    last_sending: Option<(Serial, Instant)>,
}

/// A packet in the queue.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) body: Bytes,
    pub(super) checksum: u16,
    pub(super) last: bool,
    latest: Option<Flight>,
    /// It was sent more than once.
    again: bool,
    /// It was taken for lost when so many transmissions had been made.
    suspected: Option<u64>,
}

/// The ACK accepted last.
#[derive(Clone, Copy, Debug)]
struct NewestAck {
    /// The serial that it had itself.
    serial: Serial,
    /// Where it said it was (it may be a serial: some peers err).
    previous: Seq,
}

/// A packet sent to have the end of what is in flight acknowledged.
#[derive(Clone, Copy, Debug)]
struct Probe {
    /// The transmission that it is.
    order: u64,
    /// The packet had been sent before.
    again: bool,
}

/// What an ACK says about what we sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received {
    /// The serial of the ACK itself.
    pub(super) own: Serial,
    pub(super) first: Seq,
    pub(super) previous: Seq,
    /// The packet that provoked the ACK, 0 if none.
    pub(super) serial: Serial,
    pub(super) reason: AckReason,
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
    /// One of them was sent only once: nothing about its time is in doubt.
    pub(super) certain: bool,
    /// Packets that had been taken for lost in the present episode and had arrived all the same.
    pub(super) unfounded: u32,
    /// The tail probe has repaired a loss that nothing else would have shown: of this transmission.
    pub(super) repaired: Option<u64>,
}

/// Transmissions taken for lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    pub(super) packets: u32,
    /// The newest of them.
    pub(super) newest: u64,
}

/// Why an ACK was not applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AckFault {
    /// It is older than one applied before.
    Stale,
    /// It acknowledges what was never sent.
    BeyondSent,
    /// Its sender has had more of the call than it says, and must have known when it said so: it has forgotten.
    Forgotten,
}

impl SendQueue {
    pub(super) fn new() -> Self {
        Self {
            packets: VecDeque::new(),
            bottom: Seq(1),
            sent: 0,
            acked: Bits::default(),
            lost: Bits::default(),
            in_flight: 0,
            flights: Flights::default(),
            rack: Rack::new(),
            ended: false,
            peer_window: WINDOW_FIRST,
            newest_ack: None,
            known_since: None,
            probe: None,
            sendings: 0,
            last_sending: None,
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
            latest: None,
            again: false,
            suspected: None,
        });
    }

    /// The packet that should leave now, if the peer has room for one.
    pub(super) fn next_to_send(&self) -> Option<usize> {
        let unsent = (self.sent < self.packets.len()).then_some(self.sent);
        self.lost
            .lowest()
            .or(unsent)
            .filter(|index| *index < self.peer_window)
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
        index < self.sent
    }

    /// The packet at an index leaves.
    pub(super) fn on_sent(&mut self, index: usize, serial: Serial, now: Instant) {
        let seq = self.seq(index);
        let again = self.was_sent(index);
        let Some(packet) = self.packets.get_mut(index) else {
            return;
        };
        self.sendings += 1;
        let flight = Flight {
            seq,
            serial,
            order: self.sendings,
            at: now,
        };
        packet.latest = Some(flight);
        packet.again |= again;
        self.flights.push(flight);
        self.last_sending = Some((serial, now));
        self.lost.remove(index);
        self.sent = self.sent.max(index + 1);
        self.in_flight += 1;
    }

    /// The packet that has just left is to have the rest acknowledged.
    pub(super) fn on_probe_sent(&mut self, again: bool) {
        self.probe = Some(Probe {
            order: self.sendings,
            again,
        });
    }

    /// The time since the sending of exactly the packet that an ACK answers.
    pub(super) fn sample(&self, serial: Serial, now: Instant) -> Option<Duration> {
        let flight = self.flights.find(serial)?;
        Some(now.saturating_duration_since(flight.at))
    }

    /// The peer says how many packets it has room for.
    pub(super) fn set_peer_window(&mut self, packets: u8, may_grow: bool) {
        let packets = usize::from(packets);
        if may_grow || packets < self.peer_window {
            self.peer_window = packets;
        }
    }

    /// Judges an ACK by its place among others (rxrpc.md 6.4).
    pub(super) fn accepts(&self, ack: &Received) -> Result<(), AckFault> {
        let Ok(hard) = usize::try_from(ack.first.since(self.bottom)) else {
            let knew = |since: Serial| ack.serial != Serial(0) && ack.serial.after(since);
            return Err(if ack.first == Seq(1) && self.known_since.is_some_and(knew) {
                AckFault::Forgotten
            } else {
                AckFault::Stale
            });
        };
        // Of two that free the same the later counts. OpenAFS may go back with `previous`, a restarted peer with serials.
        let older = |newest: NewestAck| ack.own.before(newest.serial) && !ack.previous.after(newest.previous);
        if hard == 0 && self.newest_ack.is_some_and(older) {
            return Err(AckFault::Stale);
        }
        if hard + ack.acks.len() > self.sent {
            return Err(AckFault::BeyondSent);
        }
        Ok(())
    }

    /// Applies an ACK that was accepted. `episode`: the transmission at which the present episode of loss began.
    pub(super) fn on_ack(
        &mut self,
        ack: &Received,
        now: Instant,
        least: Option<Duration>,
        episode: u64,
    ) -> Progress {
        self.newest_ack = Some(NewestAck {
            serial: ack.own,
            previous: ack.previous,
        });
        if ack.reason == AckReason::Duplicate && self.sendings > self.highest_sent() {
            self.rack.on_duplicate(self.sendings);
        }
        let mut arrivals = Arrivals {
            provoked_by: ack.serial,
            duplicate: ack.reason == AckReason::Duplicate,
            now,
            least: least.unwrap_or_default(),
            episode,
            progress: Progress::default(),
        };
        let hard = usize::try_from(ack.first.since(self.bottom)).unwrap_or(0);
        self.free(hard, Some(&mut arrivals));
        let here = Bits::received(&ack.acks);
        for index in here.without(self.acked) {
            self.arrive(index, &mut arrivals);
        }
        // The peer has dropped these again.
        for index in self.acked.without(here).and(Bits::below(ack.acks.len())) {
            self.acked.remove(index);
            self.lost.insert(index);
        }
        if self.probe.is_some_and(|probe| probe.order <= self.rack.newest()) {
            self.probe = None;
        }
        self.prune();
        arrivals.progress
    }

    /// Takes for lost what has been overtaken for longer than `window`.
    pub(super) fn detect_losses(&mut self, window: Duration, now: Instant) -> Losses {
        let mut losses = Losses::default();
        while let Some(flight) = self.oldest_flight()
            && self.rack.is_overtaken(&flight)
            && self.rack.is_overdue(&flight, window, now)
        {
            self.lose(&flight, &mut losses);
        }
        losses
    }

    /// The retransmission timer ran out: takes the oldest transmission for lost, and all others that have had their time
    /// (RFC 8985, section 6.3).
    pub(super) fn on_timeout(&mut self, window: Duration, now: Instant) -> Losses {
        let mut losses = Losses::default();
        while let Some(flight) = self.oldest_flight()
            && (losses.packets == 0 || self.rack.is_overdue(&flight, window, now))
        {
            self.lose(&flight, &mut losses);
        }
        self.probe = None;
        losses
    }

    /// Makes ready a packet whose arrival would show what else is missing: a new one, or the highest in flight. False if
    /// there is none that the peer has room for.
    pub(super) fn ready_probe(&mut self) -> bool {
        if self.next_to_send().is_none()
            && let Some(index) = Bits::below(self.sent.min(self.peer_window))
                .without(self.acked)
                .without(self.lost)
                .highest()
        {
            self.lost.insert(index);
            self.in_flight -= 1;
        }
        self.next_to_send().is_some()
    }

    /// How much later than its successors a packet may arrive.
    pub(super) fn reordering_window(&self, recovering: bool, rtt: &RttEstimator) -> Duration {
        let hasty = recovering || self.acked.len() >= OVERTAKING;
        self.rack.reordering_window(hasty, rtt)
    }

    /// When something that was overtaken will be lost, if anything was.
    pub(super) fn reordering_ends(&mut self, window: Duration) -> Option<Instant> {
        let oldest = self.oldest_flight()?;
        if self.rack.is_overtaken(&oldest) {
            self.rack.reordering_ends(window)
        } else {
            None
        }
    }

    /// An episode of loss is over.
    pub(super) fn on_recovered(&mut self) {
        self.rack.on_recovered();
    }

    /// The newest transmission that has arrived.
    pub(super) fn newest_arrival(&self) -> u64 {
        self.rack.newest()
    }

    /// All that was sent has arrived. False if that is not all there is.
    pub(super) fn on_all_acked(&mut self) -> bool {
        let whole = self.ended && self.sent == self.packets.len();
        if whole {
            self.free(self.sent, None);
        }
        whole
    }

    /// Nothing more will be sent.
    pub(super) fn clear(&mut self) {
        self.free(self.packets.len(), None);
        self.flights.clear();
        self.ended = true;
    }

    /// The packets that are kept.
    pub(super) fn held(&self) -> impl Iterator<Item = &Bytes> {
        self.packets.iter().map(|packet| &packet.body)
    }

    /// LAST is queued.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }

    /// A packet waits to be sent for the first time.
    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.packets.len()
    }

    /// Nothing waits to be acknowledged or sent.
    pub(super) fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Nothing has been hard-acked.
    pub(super) fn is_whole(&self) -> bool {
        self.known_since.is_none()
    }

    /// LAST was queued and every packet is acked, if only softly.
    pub(super) fn is_acked(&self) -> bool {
        self.ended && self.acked.len() == self.packets.len()
    }

    /// No packet was sent twice, and none has left the queue.
    pub(super) fn is_first_sending(&self) -> bool {
        self.sendings == self.sent as u64
    }

    /// LAST has been sent and is not acked.
    pub(super) fn awaits_last(&self) -> bool {
        self.ended && self.sent == self.packets.len() && !self.is_acked()
    }

    /// Every packet queued so far has been sent, and there will be more.
    pub(super) fn is_drained(&self) -> bool {
        !self.ended && self.sent == self.packets.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// A packet waits to be sent again.
    pub(super) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// A probe of the tail is under way.
    pub(super) fn is_probed(&self) -> bool {
        self.probe.is_some()
    }

    /// Transmissions made.
    pub(super) fn sendings(&self) -> u64 {
        self.sendings
    }

    /// When the last packet left.
    pub(super) fn last_sent_at(&self) -> Option<Instant> {
        self.last_sending.map(|(_, at)| at)
    }

    /// True if with the packet at `index` the peer's window is as good as used up.
    pub(super) fn is_tight(&self, index: usize) -> bool {
        index + TIGHT >= self.peer_window
    }

    /// Packets that have been sent at least once since the call began.
    fn highest_sent(&self) -> u64 {
        u64::from(self.seq(self.sent).0.wrapping_sub(1))
    }

    /// Frees the first `count` packets.
    fn free(&mut self, count: usize, mut arrivals: Option<&mut Arrivals>) {
        let count = count.min(self.packets.len());
        if count == 0 {
            return;
        }
        for index in Bits::below(count).without(self.acked) {
            match &mut arrivals {
                Some(arrivals) => self.arrive(index, arrivals),
                None if self.lost.contains(index) || index >= self.sent => {}
                None => self.in_flight -= 1,
            }
        }
        self.packets.drain(..count);
        self.acked.advance(count);
        self.lost.advance(count);
        self.sent = self.sent.saturating_sub(count);
        self.bottom = self.seq(count);
        if let Some(arrivals) = arrivals {
            arrivals.progress.freed = u32::try_from(count).unwrap_or(u32::MAX);
        }
        let last_sent = self.last_sending.map(|(serial, _)| serial);
        self.known_since = self.known_since.or(last_sent);
    }

    /// The packet at an index, which was sent, is acked for the first time.
    fn arrive(&mut self, index: usize, arrivals: &mut Arrivals) {
        self.acked.insert(index);
        if self.lost.contains(index) {
            self.lost.remove(index);
        } else {
            self.in_flight -= 1;
        }
        let Some(packet) = self.packets.get_mut(index) else {
            return;
        };
        let Some(flight) = packet.latest else { return };
        let suspected = packet.suspected.take();
        // Taken for lost and not sent again, it cannot be but the one sending that has arrived.
        let resent = packet.again && suspected.is_none_or(|at| flight.order > at);
        let earlier = resent && arrivals.shows_earlier(&flight);
        let progress = &mut arrivals.progress;
        progress.newly += 1;
        progress.certain |= !packet.again;
        if (earlier || !resent) && suspected.is_some_and(|at| at >= arrivals.episode) {
            progress.unfounded += 1;
        }
        if let Some(probe) = self.probe.take_if(|probe| probe.order == flight.order)
            && probe.again
            && !earlier
        {
            progress.repaired = Some(flight.order);
        }
        if earlier {
            return;
        }
        self.rack.on_arrival(flight, !packet.again, arrivals.now);
    }

    /// The oldest transmission that flies and was not judged.
    fn oldest_flight(&mut self) -> Option<Flight> {
        let Self {
            flights,
            packets,
            bottom,
            acked,
            lost,
            ..
        } = self;
        flights.oldest(|flight| flies(flight, *bottom, packets, acked, lost))
    }

    fn lose(&mut self, flight: &Flight, losses: &mut Losses) {
        self.flights.judge();
        let Ok(index) = usize::try_from(flight.seq.since(self.bottom)) else {
            return;
        };
        if let Some(packet) = self.packets.get_mut(index) {
            packet.suspected = Some(self.sendings);
        }
        self.lost.insert(index);
        self.in_flight -= 1;
        losses.packets += 1;
        losses.newest = losses.newest.max(flight.order);
    }

    fn prune(&mut self) {
        let Self {
            flights,
            packets,
            bottom,
            acked,
            lost,
            ..
        } = self;
        let arrived = |flight: &Flight| {
            let place = usize::try_from(flight.seq.since(*bottom));
            !place.is_ok_and(|index| !acked.contains(index))
        };
        flights.prune(arrived, |flight| flies(flight, *bottom, packets, acked, lost));
    }
}

/// True if a transmission is the latest of its packet and that is neither acked nor lost.
fn flies(flight: &Flight, bottom: Seq, packets: &VecDeque<Outgoing>, acked: &Bits, lost: &Bits) -> bool {
    usize::try_from(flight.seq.since(bottom)).is_ok_and(|index| {
        let latest = packets.get(index).and_then(|packet| packet.latest);
        latest.is_some_and(|latest| latest.order == flight.order)
            && !acked.contains(index)
            && !lost.contains(index)
    })
}

/// What is known while the packets of one ACK are gone through.
struct Arrivals {
    provoked_by: Serial,
    duplicate: bool,
    now: Instant,
    /// The least round trip, 0 if unknown.
    least: Duration,
    episode: u64,
    progress: Progress,
}

impl Arrivals {
    /// True if of a packet that was sent again an earlier sending has arrived: the ACK answers to something older than
    /// the latest, or says that the latest came second, or came sooner than any answer to it could.
    fn shows_earlier(&self, latest: &Flight) -> bool {
        let older = self.provoked_by != Serial(0) && self.provoked_by.before(latest.serial);
        let second = self.duplicate && self.provoked_by == latest.serial;
        older || second || self.now.saturating_duration_since(latest.at) < self.least
    }
}

/// What every peer has room for before it says so (OpenAFS and Linux begin with as many).
const WINDOW_FIRST: usize = 16;
/// An ACK can describe no more.
const WINDOW_MAX: usize = 255;
/// With so few packets left to send an acknowledgement is wanted at once.
const TIGHT: usize = 2;

#[cfg(test)]
mod tests;
