//! What a call sends.

use super::{AckDue, Call, Path, Phase};
use crate::proto::send_run::Run;
use crate::proto::{AckPacket, AckReason, Flags, PacketType, Side};

impl Call {
    /// Lays out the ACK that is due, if one is.
    pub(in crate::proto) fn poll_ack(&mut self, path: &Path<'_>, run: &mut Run<'_>) -> bool {
        let Some(AckDue { reason, serial }) = self.ack.take() else {
            return false;
        };
        self.receive.on_advertised();
        self.unacked = 0;
        self.ack_at = None;
        let window = u8::try_from(self.receive.room()).unwrap_or(u8::MAX);
        let acks = self.receive.table();
        let (first, previous) = (self.receive.next(), self.receive.highest());
        let ack = AckPacket {
            acks,
            ..AckPacket::new(first, previous, serial, reason)
        };
        let sent = run.ack(self.slot, ack, window);
        if reason == AckReason::Ping {
            self.ping = Some((sent, path.now));
        }
        true
    }

    /// Lays out as much DATA as the windows let go, as datagrams of one size. False if there is none.
    pub(in crate::proto) fn poll_data(&mut self, path: &Path<'_>, run: &mut Run<'_>) -> bool {
        if !self.phase.sends() {
            return false;
        }
        let mut any = false;
        while let Some(index) = self.send.next_to_send(self.congestion.window()) {
            let Some(packet) = self.send.packet(index) else {
                break;
            };
            let (body, checksum, last) = (packet.body.clone(), packet.checksum, packet.last);
            if !run.has_room(body.len()) {
                break;
            }
            let (seq, again) = (self.send.seq(index), self.send.was_sent(index));
            if self.exposed.is_none() {
                self.exposed = Some(path.now);
                self.heard = path.now;
            }
            self.send.on_sent(index, run.next_serial(), path.now);
            let more = self.send.next_to_send(self.congestion.window()).is_some();
            let mut flags = Flags::NONE;
            if last {
                flags = flags | Flags::LAST_PACKET;
            }
            if more {
                flags = flags | Flags::MORE_PACKETS;
            }
            if self.wants_ack(path, index, last, again, more) {
                flags = flags | Flags::REQUEST_ACK;
            }
            run.packet(self.slot, PacketType::Data, flags, seq, checksum, |out| {
                out.extend_from_slice(&body);
            });
            run.resent(again);
            any = true;
        }
        if any {
            // DATA of a reply says that the request is here.
            if self.side == Side::Service {
                self.ack_at = None;
            }
            self.arm(path.now, path.rtt);
        }
        any
    }

    /// Never on the first sending of the end of a reply: an OpenAFS client would ack it softly and leave it at that
    /// (rxrpc.md 7.1).
    fn wants_ack(&self, path: &Path<'_>, index: usize, last: bool, again: bool, more: bool) -> bool {
        if again {
            return true;
        }
        if last {
            return self.side == Side::Client && path.rtt.is_young();
        }
        !more || self.send.is_tight(index, self.congestion.window()) || path.rtt.is_young()
    }

    /// For a DEBUG reply: what the application waits for.
    pub(in crate::proto) fn waits_for_peer(&self) -> bool {
        matches!(
            self.phase,
            Phase::AwaitReply | Phase::ReceiveReply | Phase::ReceiveRequest
        ) && self.receive.is_drained()
    }
}
