//! What a call makes of the packets that come for it.

use std::time::Instant;

use bytes::Bytes;

use super::receive::{Arrival, EndMoved};
use super::send::{AckFault, Received};
use super::state::Step;
use super::{ACK_DELAY, Call, CallError, Path, Phase};
use crate::proto::rejected::Rejected;
use crate::proto::secure::Place;
use crate::proto::{AbortCode, AckPacket, AckReason, BadAck, Header, Seq, Serial, Side, abort_codes};

/// What became of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proto) struct Taken {
    /// The application should look.
    pub(in crate::proto) woke: bool,
    pub(in crate::proto) rejected: Option<Rejected>,
}

impl Taken {
    const NOTHING: Self = Self {
        woke: false,
        rejected: None,
    };
    const WOKE: Self = Self {
        woke: true,
        rejected: None,
    };

    fn rejected(reason: Rejected) -> Self {
        Self {
            woke: false,
            rejected: Some(reason),
        }
    }
}

impl Call {
    /// DATA of the peer's direction.
    pub(in crate::proto) fn on_data(&mut self, path: &mut Path<'_>, header: &Header, body: Bytes) -> Taken {
        self.heard = path.now;
        if self.side == Side::Client && !self.receive_reply() {
            return self.broken(Rejected::EarlyReply);
        }
        if !self.phase.receives() {
            // The whole direction is here: the peer has missed an ACK.
            self.owe(AckReason::Duplicate, header.serial);
            return Taken::rejected(Rejected::Duplicate);
        }
        let last = header.flags.last();
        match self.receive.judge(header.seq, last) {
            Err(EndMoved) => self.broken(Rejected::EndMoved),
            Ok(Arrival::Duplicate) => {
                self.owe(AckReason::Duplicate, header.serial);
                Taken::rejected(Rejected::Duplicate)
            }
            Ok(Arrival::BeyondWindow) => {
                self.owe(AckReason::ExceedsWindow, header.serial);
                Taken::rejected(Rejected::BeyondWindow)
            }
            Ok(arrival @ (Arrival::Ahead | Arrival::InOrder { .. })) => {
                let place = Place {
                    channel: self.slot.channel,
                    call: self.slot.call,
                    seq: header.seq,
                };
                match path.security.open(place, header.cksum, body) {
                    Err(code) => self.broken_with(Rejected::BadSeal, code),
                    Ok(payload) => {
                        self.receive.insert(header.seq, last, payload);
                        self.acknowledge(path, header, arrival);
                        Taken {
                            woke: arrival != Arrival::Ahead,
                            rejected: None,
                        }
                    }
                }
            }
        }
    }

    /// The first of the reply acknowledges all of the request. False if part of that was never sent.
    fn receive_reply(&mut self) -> bool {
        match self.phase {
            Phase::SendRequest => false,
            Phase::AwaitReply => {
                let whole = self.send.on_all_acked(&mut Default::default());
                self.retransmit_at = None;
                self.step(Step::ReplyBegun);
                whole
            }
            _ => true,
        }
    }

    fn acknowledge(&mut self, path: &Path<'_>, header: &Header, arrival: Arrival) {
        self.moved = path.now;
        self.unacked += 1;
        if arrival == Arrival::Ahead {
            return self.owe(AckReason::OutOfSequence, header.serial);
        }
        if header.flags.request_ack() {
            self.owe(AckReason::Requested, header.serial);
        } else if arrival == (Arrival::InOrder { fills_gap: true }) {
            self.owe(AckReason::Delay, header.serial);
        }
        if self.receive.is_complete() {
            if self.side == Side::Service {
                self.ack_at.get_or_insert(path.now + ACK_DELAY);
            }
            self.step(Step::ReceivedAll);
        } else if self.unacked >= ACK_EVERY {
            self.owe(AckReason::Idle, header.serial);
        } else {
            self.ack_at.get_or_insert(path.now + ACK_DELAY);
        }
    }

    /// An ACK of our direction.
    pub(in crate::proto) fn on_ack(&mut self, path: &mut Path<'_>, header: &Header, body: &[u8]) -> Taken {
        let ack = match AckPacket::parse(body) {
            Ok(ack) => ack,
            Err(bad) => return self.broken_with(Rejected::BadAck(bad), BadAck::CODE),
        };
        self.heard = path.now;
        self.measure(path, &ack);
        if ack.reason == AckReason::Ping {
            self.owe(AckReason::PingResponse, header.serial);
        } else if header.flags.request_ack() {
            self.owe(AckReason::Requested, header.serial);
        }
        if self.is_forgotten(&ack) {
            self.fail(CallError::CallLost, None);
            return Taken::WOKE;
        }
        path.mtu.on_trailer(&ack.trailer);
        if let Some(window) = ack.trailer.rwind {
            // A closed window is probed with one packet, as OpenAFS does.
            self.send
                .set_peer_window(u32::from(window.max(1)), ack.trailer.jumbo_max.is_some());
        }
        if !self.phase.sends() {
            return Taken::NOTHING;
        }
        let received = Received {
            first: ack.first,
            previous: ack.previous,
            serial: ack.serial,
            acks: ack.acks,
        };
        let limited = self.send.in_flight() + 1 >= self.congestion.window() as usize;
        match self.send.on_ack(&received) {
            // Overtaken on the way: what it says is known.
            Err(AckFault::Stale) => Taken::NOTHING,
            Err(AckFault::BeyondSent) => self.broken(Rejected::AckBeyondSent),
            Ok(progress) => {
                if let Some(lost) = progress.lost {
                    self.congestion.on_loss(lost, self.send.sent());
                }
                if progress.newly > 0 {
                    self.congestion.on_acked(progress.newly, progress.newest, limited);
                    self.backoff = 0;
                    self.moved = path.now;
                    self.retransmit_at = None;
                }
                if self.send.is_acked() {
                    self.retransmit_at = None;
                    // An OpenAFS client may never ack more than softly (rxrpc.md 5.3).
                    self.step(Step::SentAll);
                }
                self.arm(path.now, path.rtt);
                Taken {
                    woke: progress.freed > 0 || self.is_over(),
                    rejected: None,
                }
            }
        }
    }

    /// Takes a round-trip sample if the ACK answers one certain packet (rxrpc.md 8.1).
    fn measure(&mut self, path: &mut Path<'_>, ack: &AckPacket) {
        if ack.serial == Serial(0) || ack.reason == AckReason::Delay {
            return;
        }
        let sample = if ack.reason == AckReason::PingResponse {
            self.ping
                .take_if(|(serial, _)| *serial == ack.serial)
                .map(|(_, sent)| path.now.saturating_duration_since(sent))
        } else {
            self.send.sample(ack.serial, path.now)
        };
        if let Some(sample) = sample {
            path.rtt.sample(sample);
        }
    }

    /// The server holds nothing of a call that it must have known: it has restarted (rxrpc.md 6.4).
    fn is_forgotten(&self, ack: &AckPacket) -> bool {
        self.side == Side::Client
            && ack.reason == AckReason::ExceedsWindow
            && (ack.first, ack.previous) == (Seq(1), Seq(0))
            && ack.acks.is_empty()
    }

    /// Everything we sent has arrived, says an old peer.
    pub(in crate::proto) fn on_ack_all(&mut self, path: &Path<'_>) -> Taken {
        self.heard = path.now;
        if !self.phase.sends() {
            return Taken::NOTHING;
        }
        if !self.send.on_all_acked(&mut Default::default()) {
            return self.broken(Rejected::AckBeyondSent);
        }
        self.retransmit_at = None;
        self.moved = path.now;
        self.step(Step::SentAll);
        Taken::WOKE
    }

    /// The service still works on the call before this one (BUSY), or has not heard of this one: it lives, and will take
    /// the call later.
    pub(in crate::proto) fn on_sign_of_life(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The peer has ended the call.
    pub(in crate::proto) fn on_abort(&mut self, code: AbortCode) -> Taken {
        self.fail(CallError::Aborted(code), None);
        Taken::WOKE
    }

    fn broken(&mut self, reason: Rejected) -> Taken {
        self.broken_with(reason, abort_codes::RX_PROTOCOL_ERROR)
    }

    fn broken_with(&mut self, reason: Rejected, code: AbortCode) -> Taken {
        self.fail(CallError::Protocol(code), Some(code));
        Taken {
            woke: true,
            rejected: Some(reason),
        }
    }
}

/// DATA packets to one ACK (OpenAFS `rxi_SoftAckRate`).
const ACK_EVERY: u32 = 2;
