//! What went over the wire, counted with an array access.

use std::sync::OnceLock;

use prometheus::{IntCounter, IntCounterVec};
use rxrpc::proto::{AckReason, PacketType};

use super::families::Families;
use super::labels::{direction, packet_slot};

/// Packets and bytes, resolved once for each direction and type, and ACKs for each direction and reason.
pub(super) struct Wire {
    children: [[OnceLock<(IntCounter, IntCounter)>; PACKET_TYPES]; 2],
    families: (IntCounterVec, IntCounterVec),
    acks: [[OnceLock<IntCounter>; ACK_REASONS]; 2],
    acks_family: IntCounterVec,
}

impl Wire {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            children: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            families: (families.packets.clone(), families.bytes.clone()),
            acks: std::array::from_fn(|_| std::array::from_fn(|_| OnceLock::new())),
            acks_family: families.acks.clone(),
        }
    }

    pub(super) fn count_acks(&self, sent: bool, reason: AckReason, packets: u64) {
        let row = self.acks.get(usize::from(sent));
        if let Some(child) = row.and_then(|row| row.get(usize::from(reason.number()))) {
            child
                .get_or_init(|| {
                    self.acks_family
                        .with_label_values(&[direction(sent), reason.name()])
                })
                .inc_by(packets);
        }
    }

    pub(super) fn count(&self, sent: bool, packet_type: PacketType, packets: u64, bytes: u64) {
        let (slot, name) = packet_slot(packet_type);
        let Some(child) = self.children.get(usize::from(sent)).and_then(|row| row.get(slot)) else {
            return;
        };
        let (packet_counter, byte_counter) = child.get_or_init(|| {
            let labels = [direction(sent), name];
            (
                self.families.0.with_label_values(&labels),
                self.families.1.with_label_values(&labels),
            )
        });
        packet_counter.inc_by(packets);
        byte_counter.inc_by(bytes);
    }
}

const PACKET_TYPES: usize = 9;
/// The highest number of a reason is 9.
const ACK_REASONS: usize = 10;
