//! What a call makes of the packets that come for it.

use std::time::Instant;

use bytes::Bytes;

use super::receive::{Arrival, EndMoved};
use super::send::{AckFault, Received};
use super::state::Step;
use super::{ACK_DELAY, Call, CallError, LossTimer, Path, Phase};
use crate::proto::rejected::Rejected;
use crate::proto::secure::{Place, Sealed};
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
                let checksum = header.cksum;
                if path.security.check(place, checksum, &body).is_err() {
                    // It is as if it had been lost: the peer's own will come.
                    return Taken::rejected(Rejected::BadSeal);
                }
                self.receive.insert(header.seq, last, Sealed { body, checksum });
                self.acknowledge(path, header, arrival);
                Taken {
                    woke: arrival != Arrival::Ahead,
                    rejected: None,
                }
            }
        }
    }

    /// The first of the reply acknowledges all of the request. False if part of that was never sent.
    fn receive_reply(&mut self) -> bool {
        match self.phase {
            Phase::SendRequest => false,
            Phase::AwaitReply => {
                let whole = self.send.on_all_acked();
                self.loss_timer = LossTimer::Off;
                self.step(Step::ReplyBegun);
                whole
            }
            _ => true,
        }
    }

    fn acknowledge(&mut self, path: &Path<'_>, header: &Header, arrival: Arrival) {
        self.moved = path.now;
        self.unacked += 1;
        self.repeated = 0;
        if arrival == Arrival::Ahead {
            let shown = self.side == Side::Service || self.gap.is_to_be_shown(self.receive.beyond_gap());
            if shown || header.flags.request_ack() {
                self.owe(AckReason::OutOfSequence, header.serial);
            }
            self.ack_at = self.patience(path).map(|patience| path.now + patience);
            return;
        }
        self.gap.close();
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
            self.ack_at = Some(path.now + self.patience(path).map_or(ACK_DELAY, |wait| wait.min(ACK_DELAY)));
        }
    }

    /// An ACK of our direction.
    pub(in crate::proto) fn on_ack(&mut self, path: &mut Path<'_>, header: &Header, body: &[u8]) -> Taken {
        let ack = match AckPacket::parse(body) {
            Ok(ack) => ack,
            Err(bad) => return self.broken_with(Rejected::BadAck(bad), BadAck::CODE),
        };
        self.heard = path.now;
        let measured = self.measure(path, &ack);
        if ack.reason == AckReason::Ping {
            self.answer = Some(header.serial);
        } else if header.flags.request_ack() {
            self.owe(AckReason::Requested, header.serial);
        }
        path.mtu.on_trailer(&ack.trailer);
        let to_ping = ack.reason == AckReason::PingResponse;
        path.mtu.on_answer(path.now, self.slot, ack.serial, to_ping);
        if !self.phase.sends() {
            return Taken::NOTHING;
        }
        let received = Received {
            own: header.serial,
            first: ack.first,
            previous: ack.previous,
            serial: ack.serial,
            reason: ack.reason,
            acks: ack.acks,
        };
        match self.send.accepts(&received) {
            _ if self.is_unheard_of(&ack) => self.forgotten(),
            Err(AckFault::Forgotten) if self.side == Side::Client => self.forgotten(),
            // Overtaken on the way: what it says is known.
            Err(AckFault::Stale | AckFault::Forgotten) => Taken::NOTHING,
            Err(AckFault::BeyondSent) => self.broken(Rejected::AckBeyondSent),
            Ok(()) => {
                if let Some(window) = ack.trailer.rwind {
                    self.send.set_peer_window(window, ack.trailer.jumbo_max.is_some());
                }
                self.acknowledged(path, &received, measured)
            }
        }
    }

    /// Applies an ACK that was accepted.
    fn acknowledged(&mut self, path: &Path<'_>, received: &Received, measured: bool) -> Taken {
        let (least, episode) = (path.rtt.least(), self.congestion.episode());
        let progress = self.send.on_ack(received, path.now, least, episode);
        self.congestion.on_unfounded(progress.unfounded);
        if progress.newly > 0 {
            let newest = self.send.newest_arrival();
            if self.congestion.on_acked(progress.newly, newest, self.limited) {
                self.send.on_recovered();
            }
            self.moved = path.now;
            self.silent_since = path.now;
            self.persist = 0;
        }
        if measured || progress.certain {
            self.backoff = 0;
        }
        if let Some(probe) = progress.repaired {
            self.on_loss(1, probe);
        }
        self.detect_losses(path);
        if self.send.is_acked() {
            // An OpenAFS client may never ack more than softly (rxrpc.md 5.3).
            self.step(Step::SentAll);
        }
        self.arm(path);
        Taken {
            woke: progress.freed > 0 || self.is_over(),
            rejected: None,
        }
    }

    /// Takes a round-trip sample if the ACK answers one certain packet at once (rxrpc.md 8.1); true if it did. DELAY does not,
    /// nor does IDLE: Linux turns a DELAY into one when its reader has caught up.
    fn measure(&mut self, path: &mut Path<'_>, ack: &AckPacket) -> bool {
        let sample = match ack.reason {
            _ if ack.serial == Serial(0) => None,
            AckReason::Unknown | AckReason::Ping | AckReason::Delay | AckReason::Idle => None,
            AckReason::PingResponse => self
                .ping
                .take_if(|(serial, _)| *serial == ack.serial)
                .map(|(_, sent)| path.now.saturating_duration_since(sent)),
            AckReason::Requested
            | AckReason::Duplicate
            | AckReason::OutOfSequence
            | AckReason::ExceedsWindow
            | AckReason::NoSpace => self.send.sample(ack.serial, path.now),
        };
        if let Some(sample) = sample {
            path.rtt.sample(path.now, sample);
        }
        sample.is_some()
    }

    /// The server holds nothing of a call of which it should: it has restarted, or takes us for another client (rxrpc.md
    /// 6.4). One that has acknowledged something before is found out by what it answers to.
    fn is_unheard_of(&self, ack: &AckPacket) -> bool {
        let reason = match ack.reason {
            AckReason::ExceedsWindow => true,
            AckReason::OutOfSequence => self.send.is_whole(),
            _ => false,
        };
        self.side == Side::Client
            && reason
            && (ack.first, ack.previous) == (Seq(1), Seq(0))
            && ack.acks.is_empty()
    }

    /// The server has lost the call. What it may have begun anew cannot be completed either.
    fn forgotten(&mut self) -> Taken {
        self.fail(CallError::CallLost, Some(abort_codes::RX_CALL_DEAD));
        Taken::WOKE
    }

    /// Everything we sent has arrived, says an old peer.
    pub(in crate::proto) fn on_ack_all(&mut self, path: &Path<'_>) -> Taken {
        self.heard = path.now;
        if !self.phase.sends() {
            return Taken::NOTHING;
        }
        if !self.send.on_all_acked() {
            return self.broken(Rejected::AckBeyondSent);
        }
        self.loss_timer = LossTimer::Off;
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
