//! What time does to a call.

use std::time::{Duration, Instant};

use super::{Call, CallError, Path, Phase};
use crate::proto::{AckReason, Serial, abort_codes};

impl Call {
    /// When [`on_timeout`](Self::on_timeout) has something to do.
    pub(in crate::proto) fn next_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        [
            self.ack_at,
            self.loss_timer.at(),
            self.resume_at,
            self.ping_at(),
            self.dead_at(),
            self.idle_at(),
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
        let hard_at = self.limits.hard_in.map(|limit| self.started + limit);
        if is_due(self.idle_at()) || is_due(hard_at) {
            self.fail(CallError::TimedOut, Some(abort_codes::RX_CALL_TIMEOUT));
            return true;
        }
        if is_due(self.ack_at) {
            self.ack_at = None;
            self.repeated = self.repeated.saturating_add(1);
            self.gap.show_again();
            self.owe(AckReason::Delay, Serial(0));
        }
        if is_due(self.resume_at) {
            self.resume_at = None;
        }
        self.on_loss_timer(path);
        if is_due(self.ping_at()) {
            self.owe(AckReason::Ping, Serial(0));
        }
        false
    }

    /// An ACK leaves: when the next one does if nothing comes. A reply that stands still has lost packets or an ACK of
    /// ours, unless the service has nothing to send. Left alone OpenAFS finds that out by a timeout of 220 ms and more, and
    /// begins again with one packet; an ACK of what is here has it go on at once.
    pub(super) fn expect_more(&mut self, path: &Path<'_>) {
        self.ack_at = self.patience(path).map(|patience| path.now + patience);
        if self.gap.on_shown(self.receive.beyond_gap()) {
            self.owe(AckReason::Delay, Serial(0));
        }
    }

    /// How long the next DATA of a reply is waited for before what is here is acknowledged once more. A service does not do
    /// so: a stranger's packet is worth one answer.
    pub(super) fn patience(&self, path: &Path<'_>) -> Option<Duration> {
        let waits = self.phase == Phase::ReceiveReply && self.receive.room() > 0;
        (waits && self.repeated < REPEATED_MAX).then(|| path.rtt.patience() * (1 << self.repeated))
    }

    /// When the peer is to be asked whether it is there: it owes us something and has been silent.
    fn ping_at(&self) -> Option<Instant> {
        let asked = self.ping.map_or(self.heard, |(_, sent)| sent.max(self.heard));
        let owed = self.ack.is_none_or(|due| due.reason != AckReason::Ping);
        // A window that stays closed, or soft acks that become no hard ones: the ACK that would tell may be lost.
        let blocked = self.phase.sends()
            && self.send.in_flight() == 0
            && !self.send.is_empty()
            && self.send.next_to_send().is_none();
        let patience = if blocked {
            (PING_BLOCKED_AFTER * (1 << self.persist.min(8))).min(PING_AFTER)
        } else {
            PING_AFTER
        };
        (self.exposed.is_some() && owed && self.phase != Phase::Execute).then(|| asked + patience)
    }

    /// When a call that does not move has taken too long. That of a service waits for its own application as long as that
    /// takes: only a client that owes something runs out of time.
    fn idle_at(&self) -> Option<Instant> {
        let owed = match self.phase {
            Phase::ReceiveRequest => self.receive.is_drained(),
            Phase::SendReply => !self.send.is_empty(),
            Phase::Execute => false,
            _ => true,
        };
        self.limits
            .idle_in
            .filter(|_| owed)
            .map(|limit| self.moved + limit)
    }

    fn dead_at(&self) -> Option<Instant> {
        (self.exposed.is_some() && self.phase != Phase::Execute).then(|| self.heard + self.limits.dead_in)
    }
}

/// ACKs of what is here while a reply stands still: after the last of them the service has had 20 round trips.
const REPEATED_MAX: u8 = 4;
/// OpenAFS gives a silent peer 12 s at the least (rxrpc.md 22).
const PING_AFTER: Duration = Duration::from_secs(3);
/// Linux `idle_ack_delay`.
const PING_BLOCKED_AFTER: Duration = Duration::from_millis(500);
