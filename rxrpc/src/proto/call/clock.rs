//! What time does to a call.

use std::time::{Duration, Instant};

use super::{Call, CallError, Path, Phase};
use crate::proto::rtt::RttEstimator;
use crate::proto::{AckReason, Serial, Side, abort_codes};

impl Call {
    /// When [`on_timeout`](Self::on_timeout) has something to do.
    pub(in crate::proto) fn next_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        [
            self.ack_at,
            self.retransmit_at,
            self.ping_at(),
            self.dead_at(),
            self.limits.idle_in.map(|limit| self.moved + limit),
            self.limits.hard_in.map(|limit| self.started + limit),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due at `path.now`. True if the application should look.
    pub(in crate::proto) fn on_timeout(&mut self, path: &Path<'_>) -> bool {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= path.now);
        if self.is_over() {
            return false;
        }
        if is_due(self.dead_at()) {
            self.fail(CallError::PeerDead, Some(abort_codes::RX_CALL_DEAD));
            return true;
        }
        let idle_at = self.limits.idle_in.map(|limit| self.moved + limit);
        let hard_at = self.limits.hard_in.map(|limit| self.started + limit);
        if is_due(idle_at) || is_due(hard_at) {
            self.fail(CallError::TimedOut, Some(abort_codes::RX_CALL_TIMEOUT));
            return true;
        }
        if is_due(self.ack_at) {
            self.ack_at = None;
            self.owe(AckReason::Delay, Serial(0));
        }
        if is_due(self.retransmit_at) {
            self.retransmit_at = None;
            let in_flight = u32::try_from(self.send.in_flight()).unwrap_or(u32::MAX);
            if self.send.on_timeout() > 0 {
                self.congestion.on_timeout(in_flight, self.send.sent());
                self.backoff = self.backoff.saturating_add(1);
            }
        }
        if is_due(self.ping_at()) {
            self.owe(AckReason::Ping, Serial(0));
        }
        false
    }

    /// Arms the retransmission timer if DATA is in flight and it is not running.
    pub(super) fn arm(&mut self, now: Instant, rtt: &RttEstimator) {
        if self.retransmit_at.is_none() && self.send.in_flight() > 0 {
            // A service may wait for its reply before it acks the end of the request (OpenAFS `rx_lastAckDelay`).
            let extra = if self.side == Side::Client && self.send.awaits_last() {
                LAST_ACK_DELAY
            } else {
                Duration::ZERO
            };
            self.retransmit_at = Some(now + rtt.timeout(self.backoff, extra));
        }
    }

    /// When the peer is to be asked whether it is there: it owes us something and has been silent.
    fn ping_at(&self) -> Option<Instant> {
        let asked = self.ping.map_or(self.heard, |(_, sent)| sent.max(self.heard));
        let owed = self.ack.is_none_or(|due| due.reason != AckReason::Ping);
        // A window that stays closed: the ACK that opened it may be lost.
        let blocked = self.phase.sends() && self.send.in_flight() == 0 && !self.send.is_empty();
        let patience = if blocked { PING_BLOCKED_AFTER } else { PING_AFTER };
        (self.exposed.is_some() && owed && self.phase != Phase::Execute).then(|| asked + patience)
    }

    fn dead_at(&self) -> Option<Instant> {
        (self.exposed.is_some() && self.phase != Phase::Execute).then(|| self.heard + self.limits.dead_in)
    }
}

/// OpenAFS gives a silent peer 12 s at the least (rxrpc.md 22).
const PING_AFTER: Duration = Duration::from_secs(3);
/// Linux `idle_ack_delay`.
const PING_BLOCKED_AFTER: Duration = Duration::from_millis(500);
const LAST_ACK_DELAY: Duration = Duration::from_millis(400);
