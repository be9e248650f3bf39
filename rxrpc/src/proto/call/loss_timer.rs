//! The one timer of what is in flight.
//!
//! The machine: while packets are in flight the timer runs in one of three modes, the first that applies. `Reorder`: some
//! have been overtaken, and are lost if they do not arrive in time. `TailProbe`: nothing is known to be amiss, and if
//! silence lasts one packet is sent so that its ACK shows what is missing at the end. `Retransmit`: the last resort, which
//! takes what is old for lost, closes the congestion window and doubles its own patience.
//!
//! Patience returns to one timeout when something certain is heard: a valid round-trip sample, or the ACK of a packet that was
//! sent only once. The ACK of a packet that was sent again may be one of its first sending, which would say that the
//! timeout is too short rather than that the way is free.

use std::time::{Duration, Instant};

use super::{Call, Path};
use crate::proto::Side;
use crate::proto::send_run::Resend;

/// What is waited for, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LossTimer {
    /// Nothing is in flight.
    Off,
    /// Overtaken packets may still arrive.
    Reorder(Instant),
    /// An ACK is asked for by one more packet.
    TailProbe(Instant),
    /// What is old is lost.
    Retransmit(Instant),
}

/// Whether one packet may leave although the congestion window is full or pacing holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exempt {
    /// None may.
    No,
    /// One that is sent again.
    Repair,
    /// A probe of the tail.
    Probe,
}

impl LossTimer {
    /// When it runs out.
    pub(super) const fn at(self) -> Option<Instant> {
        match self {
            Self::Off => None,
            Self::Reorder(at) | Self::TailProbe(at) | Self::Retransmit(at) => Some(at),
        }
    }
}

impl Call {
    /// Sets the timer by what is in flight. Must follow whatever changes that.
    pub(super) fn arm(&mut self, path: &Path<'_>) {
        self.loss_timer = self.loss_timer_now(path);
    }

    fn loss_timer_now(&mut self, path: &Path<'_>) -> LossTimer {
        if self.send.in_flight() == 0 || !self.phase.sends() {
            return LossTimer::Off;
        }
        let recovering = self.congestion.is_recovering();
        let window = self.send.reordering_window(recovering, path.rtt);
        if let Some(at) = self.send.reordering_ends(window) {
            return LossTimer::Reorder(at);
        }
        let extra = self.ack_delay_of_last();
        let retransmit_at = self.silent_since + path.rtt.timeout(self.backoff, extra);
        let probing = !(recovering || self.backoff > 0 || self.send.has_lost() || self.send.is_probed());
        match self.send.last_sent_at().filter(|_| probing) {
            Some(sent) => {
                let slack = extra.min(PROBE_SLACK);
                LossTimer::TailProbe(retransmit_at.min(sent + path.rtt.probe_timeout(slack)))
            }
            None => LossTimer::Retransmit(retransmit_at),
        }
    }

    /// Does what the timer says if it has run out.
    pub(super) fn on_loss_timer(&mut self, path: &Path<'_>) {
        if self.loss_timer.at().is_none_or(|at| at > path.now) {
            return;
        }
        match self.loss_timer {
            LossTimer::Off => {}
            LossTimer::Reorder(_) => self.detect_losses(path),
            LossTimer::TailProbe(_) if self.send.ready_probe() => {
                self.exempt = Exempt::Probe;
                self.silent_since = path.now;
            }
            // What is in flight lies beyond the window that the peer has left us.
            LossTimer::TailProbe(_) | LossTimer::Retransmit(_) => self.on_retransmission_timeout(path),
        }
        self.arm(path);
    }

    /// Has what is lost by now sent again.
    pub(super) fn detect_losses(&mut self, path: &Path<'_>) {
        let window = self
            .send
            .reordering_window(self.congestion.is_recovering(), path.rtt);
        let losses = self.send.detect_losses(window, path.now);
        if losses.packets > 0 {
            self.lost_by = Resend::Overtaken;
            self.on_loss(losses.packets, losses.newest);
        }
    }

    /// The first repair of an episode leaves at once: the halved window may be full for half a round trip.
    pub(super) fn on_loss(&mut self, packets: u32, newest: u64) {
        if self.congestion.on_loss(packets, newest, self.send.sendings()) {
            self.exempt = Exempt::Repair;
        }
    }

    fn on_retransmission_timeout(&mut self, path: &Path<'_>) {
        let window = self.send.reordering_window(true, path.rtt);
        let in_flight = u32::try_from(self.send.in_flight()).unwrap_or(u32::MAX);
        let losses = self.send.on_timeout(window, path.now);
        self.congestion
            .on_timeout(losses.packets, in_flight, self.send.sendings(), self.backoff > 0);
        self.lost_by = Resend::TimedOut;
        self.backoff = self.backoff.saturating_add(1);
        self.exempt = Exempt::Repair;
        self.silent_since = path.now;
    }

    /// A service may wait for its reply before it acks the end of the request (OpenAFS `rx_lastAckDelay`).
    fn ack_delay_of_last(&self) -> Duration {
        if self.side == Side::Client && self.send.awaits_last() {
            LAST_ACK_DELAY
        } else {
            Duration::ZERO
        }
    }
}

const LAST_ACK_DELAY: Duration = Duration::from_millis(400);
/// What a probe of the end of a request allows for beyond `rx_softAckDelay`, after which services of OpenAFS ack it in
/// fact (rxrpc.md 6.5): a timer that is late. A needless probe costs two packets, and a request that was lost the caller's time.
const PROBE_SLACK: Duration = Duration::from_millis(50);
