//! Packets sent and received, counted by type until they can be reported.
//!
//! Output is made under the lock of a connection, where no event may be emitted; the counts wait here for the unlock.

use crate::events::{Event, Sink};
use crate::proto::PacketType;

/// Packets and bytes of one batch, by number of the packet type.
#[derive(Debug, Default)]
pub(crate) struct Traffic([(u64, u64); TYPES]);

impl Traffic {
    /// Counts a run of datagrams of `segment` bytes each but for the last.
    pub(crate) fn count_run(&mut self, segment: usize, run: &[u8]) {
        for datagram in run.chunks(segment.max(1)) {
            self.count(datagram);
        }
    }

    /// Counts one datagram by the type in its first header.
    pub(crate) fn count(&mut self, datagram: &[u8]) {
        let number = datagram.get(TYPE_OFFSET).copied().map(usize::from);
        if let Some((packets, bytes)) = number.and_then(|number| self.0.get_mut(number)) {
            *packets += 1;
            *bytes += datagram.len() as u64;
        }
    }

    /// Emits what was counted.
    pub(crate) fn report(&self, sent: bool, sink: &dyn Sink) {
        for (number, &(packets, bytes)) in (0..).zip(&self.0) {
            if packets > 0
                && let Some(packet_type) = PacketType::from_number(number)
            {
                sink.event(&Event::Packet { sent, packet_type, packets, bytes });
            }
        }
    }
}

/// Where the type stands in a header.
const TYPE_OFFSET: usize = 20;
/// The highest number of a type is 13.
const TYPES: usize = 14;
