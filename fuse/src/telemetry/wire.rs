//! What went over the wire, counted with an array access.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec};
use rxrpc::proto::{AckReason, PacketType};

use super::families::Families;
use super::labels::{direction, packet_slot};

/// Packets and bytes by type, and ACKs by reason.
pub(super) struct Wire {
    packets: Counters<PACKET_TYPES>,
    bytes: Counters<PACKET_TYPES>,
    acks: Counters<ACK_REASONS>,
}

/// A family with a direction and `N` values of another label; each of its counters is looked up once.
struct Counters<const N: usize> {
    family: IntCounterVec,
    found: [[OnceLock<IntCounter>; N]; 2],
}

impl<const N: usize> Counters<N> {
    fn new(family: &IntCounterVec) -> Self {
        Self {
            family: family.clone(),
            found: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
        }
    }

    fn add(&self, sent: bool, (slot, label): (usize, &str), count: u64) {
        let row = self.found.get(usize::from(sent));
        if let Some(counter) = row.and_then(|row| row.get(slot)) {
            counter
                .get_or_init(|| self.family.with_label_values(&[direction(sent), label]))
                .inc_by(count);
        }
    }
}

impl Wire {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            packets: Counters::new(&families.packets),
            bytes: Counters::new(&families.bytes),
            acks: Counters::new(&families.acks),
        }
    }

    pub(super) fn count_acks(&self, sent: bool, reason: AckReason, packets: u64) {
        self.acks
            .add(sent, (reason.number().into(), reason.name()), packets);
    }

    pub(super) fn count(&self, sent: bool, packet_type: PacketType, packets: u64, bytes: u64) {
        let value = packet_slot(packet_type);
        self.packets.add(sent, value, packets);
        self.bytes.add(sent, value, bytes);
    }
}

const PACKET_TYPES: usize = 9;
/// The highest number of a reason is 9.
const ACK_REASONS: usize = 10;
