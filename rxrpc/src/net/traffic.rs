//! Packets sent and received, counted by type.
//!
//! The machine: output is made under the lock of a connection, where no event may be emitted; the counts of one batch
//! wait in a [`Traffic`] for the unlock. [`Totals`] add them up for rxdebug.

use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::events::{Event, Sink};
use crate::proto::{AckReason, DropReason, Header, PacketType, Rejected, Resent, RttTally, Transmit, debug};

/// Packets and bytes of one batch, by number of the packet type.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    by_type: [(u64, u64); TYPES],
    packets: u64,
    bytes: u64,
    resent: Resent,
    probes: u64,
    /// ACKs by the number of their reason.
    acks: [u64; ACK_REASONS],
    /// There is no way to the peer (an `errno`).
    pub(crate) unreachable: Option<i32>,
}

/// Which way packets went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// They came.
    In,
    /// They were sent.
    Out,
}

/// Counts from the start of an endpoint. They wrap, as those of OpenAFS do.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    read: [AtomicU32; TYPES],
    sent: [AtomicU32; TYPES],
    resent: AtomicU32,
    pings_sent: AtomicU32,
    send_failures: AtomicU32,
    bogus: AtomicU32,
    spurious: AtomicU32,
    duplicate: AtomicU32,
    late: AtomicU32,
    answered: AtomicU32,
    waited: AtomicU32,
    rtt: Mutex<RttTally>,
}

impl Traffic {
    /// Counts a run.
    pub(crate) fn count_run(&mut self, run: &Transmit, bytes: &[u8]) {
        for datagram in bytes.chunks(run.segment_size.max(1)) {
            self.count(datagram);
        }
        self.resent.add(&run.resent);
        self.probes += u64::from(run.probe);
    }

    /// Counts one datagram by the type in its first header.
    pub(crate) fn count(&mut self, datagram: &[u8]) {
        let number = datagram.get(TYPE_OFFSET).copied().map(usize::from);
        if let Some((packets, bytes)) = number.and_then(|number| self.by_type.get_mut(number)) {
            *packets += 1;
            *bytes += datagram.len() as u64;
            self.packets += 1;
            self.bytes += datagram.len() as u64;
        }
        if number == Some(ACK)
            && let Some(reason) = datagram.get(REASON_OFFSET)
            && let Some(acks) = self
                .acks
                .get_mut(usize::from(AckReason::from_number(*reason).number()))
        {
            *acks += 1;
        }
    }

    /// Packets and bytes of all types.
    pub(crate) fn total(&self) -> (u64, u64) {
        (self.packets, self.bytes)
    }

    /// True if nothing was counted.
    pub(crate) fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// PINGs that tried the size of the path.
    pub(crate) fn probes(&self) -> u64 {
        self.probes
    }

    /// DATA packets sent again.
    pub(crate) fn resent(&self) -> u64 {
        self.resent.total()
    }

    /// ACKs that ask for an answer.
    fn pings(&self) -> u64 {
        let ping = usize::from(AckReason::Ping.number());
        self.acks.get(ping).copied().unwrap_or(0)
    }

    /// Emits what was counted.
    pub(crate) fn report(&self, way: Way, sink: &dyn Sink) {
        for (number, &(packets, bytes)) in (0..).zip(&self.by_type) {
            if packets > 0
                && let Some(packet_type) = PacketType::from_number(number)
            {
                sink.event(&Event::Packet {
                    sent: way == Way::Out,
                    packet_type,
                    packets,
                    bytes,
                });
            }
        }
        for (number, &packets) in (0..).zip(&self.acks) {
            if packets > 0 {
                sink.event(&Event::Acks {
                    sent: way == Way::Out,
                    reason: AckReason::from_number(number),
                    packets,
                });
            }
        }
        for (why, packets) in self.resent.iter().filter(|(_, packets)| *packets > 0) {
            sink.event(&Event::Retransmitted { why, packets });
        }
    }
}

// Relaxed everywhere: they are only read to be shown.
impl Totals {
    /// Adds a batch.
    pub(crate) fn add(&self, traffic: &Traffic, way: Way) {
        let totals = match way {
            Way::In => &self.read,
            Way::Out => &self.sent,
        };
        for (total, (packets, _)) in totals.iter().zip(traffic.by_type) {
            if packets > 0 {
                total.fetch_add(wrapped(packets), Ordering::Relaxed);
            }
        }
        if way == Way::In {
            return;
        }
        let (resent, pings) = (traffic.resent(), traffic.pings());
        if resent > 0 {
            self.resent.fetch_add(wrapped(resent), Ordering::Relaxed);
        }
        if pings > 0 {
            self.pings_sent.fetch_add(wrapped(pings), Ordering::Relaxed);
        }
        if traffic.unreachable.is_some() {
            self.send_failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One packet was thrown away.
    pub(crate) fn add_dropped(&self, reason: DropReason) {
        let counter = match reason {
            DropReason::Malformed(_) => &self.bogus,
            DropReason::Rejected(Rejected::Duplicate) => &self.duplicate,
            DropReason::Rejected(Rejected::CallOver) => &self.late,
            DropReason::Unplaced(_) | DropReason::Rejected(_) => &self.spurious,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// One call waited until others were answered.
    pub(crate) fn add_waited(&self) {
        self.waited.fetch_add(1, Ordering::Relaxed);
    }

    /// Round trips were measured.
    pub(crate) fn add_rtt(&self, samples: &RttTally) {
        if samples.samples > 0 {
            self.rtt.lock().add(samples);
        }
    }

    /// One call was begun by a peer.
    pub(crate) fn add_answered(&self) {
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// What they say, but for what is counted elsewhere.
    pub(crate) fn read(&self) -> debug::Totals {
        let mut totals = debug::Totals {
            bogus: self.bogus.load(Ordering::Relaxed),
            spurious: self.spurious.load(Ordering::Relaxed),
            duplicate: self.duplicate.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            resent: self.resent.load(Ordering::Relaxed),
            pings_sent: self.pings_sent.load(Ordering::Relaxed),
            send_failures: self.send_failures.load(Ordering::Relaxed),
            calls_executed: self.answered.load(Ordering::Relaxed),
            calls_waited: self.waited.load(Ordering::Relaxed),
            rtt: *self.rtt.lock(),
            ..debug::Totals::default()
        };
        let counts = [
            (&mut totals.packets_read, &self.read),
            (&mut totals.packets_sent, &self.sent),
        ];
        for (shown, counted) in counts {
            // Type 0 does not exist.
            for (shown, counted) in shown.iter_mut().zip(counted.iter().skip(1)) {
                *shown = counted.load(Ordering::Relaxed);
            }
        }
        totals
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the totals wrap")]
fn wrapped(count: u64) -> u32 {
    count as u32
}

/// The number of the type ACK, and where its reason stands.
const ACK: usize = 2;
const REASON_OFFSET: usize = Header::LEN + 16;
/// Where the type stands in a header.
const TYPE_OFFSET: usize = 20;
/// The highest number of a reason is 9.
const ACK_REASONS: usize = 10;
/// The highest number of a type is 13.
const TYPES: usize = 14;
