//! Keeping the way back from a peer open.
//!
//! The machine: a NAT between a peer and us lets its packets in as long as it remembers ours, and a file server calls back
//! when it likes. So a peer that may call is sent a packet that asks nothing whenever it was sent nothing for an
//! *interval* (rxrpc.md 11.3). How long NATs remember differs, so the interval follows what is seen, from 20 s on:
//!
//! * A call of the peer that comes at its first sending, when we had been silent for three quarters of the interval or
//!   more, shows that the way was open: the interval grows by half, up to 100 s.
//! * A call whose first sendings were lost, and which comes within a second after we broke such a silence, shows that the
//!   way was shut until then: the interval falls to half of that silence, but not below 5 s, and never again grows to
//!   as much as the silence that was too long.

use std::time::{Duration, Instant};

use super::endpoint::datagram;
use super::wire::{Flags, Header, PacketType};
use super::{CallNumber, ChannelIndex, ConnectionId, Epoch, SecurityIndex, Seq, Serial, ServiceId};

/// When one peer is to be sent something.
#[derive(Clone, Copy, Debug)]
pub struct KeepAlive {
    interval: Duration,
    /// What the interval never exceeds.
    ceiling: Duration,
    /// When the peer was last sent anything; never, as far as is known.
    sent: Option<Instant>,
    /// The last long silence of ours: how long it was, and when it ended.
    broken: Option<(Duration, Instant)>,
}

impl KeepAlive {
    /// Nobody knows when the peer was last sent something, so it is due at once.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            interval: FIRST,
            ceiling: LONGEST,
            sent: None,
            broken: None,
        }
    }

    /// The longest silence of ours.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// When the peer is to be sent something, unless it is before; `None`: now.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.sent.map(|sent| sent + self.interval)
    }

    /// True if the peer is to be sent something now.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.due().is_none_or(|due| due <= now)
    }

    /// The peer was sent something.
    pub fn on_sent(&mut self, now: Instant) {
        let silence = self.silence(now);
        if self.is_long(silence) {
            self.broken = Some((silence, now));
        }
        self.sent = Some(now);
    }

    /// The peer has begun a call, whose first packet came at its first sending or later. True if the interval is another
    /// now.
    pub fn on_call(&mut self, now: Instant, first_sending: bool) -> bool {
        let before = self.interval;
        if first_sending {
            if self.is_long(self.silence(now)) {
                self.interval = (self.interval * 3 / 2).min(self.ceiling);
            }
        } else if let Some((silence, ended)) = self.broken.take()
            && now.saturating_duration_since(ended) <= AT_ONCE
        {
            self.ceiling = self.ceiling.min(silence * 3 / 4).max(LEAST);
            self.interval = (silence / 2).max(LEAST);
        }
        self.interval != before
    }

    fn silence(&self, now: Instant) -> Duration {
        self.sent
            .map_or(Duration::ZERO, |sent| now.saturating_duration_since(sent))
    }

    fn is_long(&self, silence: Duration) -> bool {
        silence >= self.interval * 3 / 4
    }
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self::new()
    }
}

/// The packet: a VERSION that is no question, because it is not from a client.
#[must_use]
pub fn keep_alive(epoch: Epoch) -> Vec<u8> {
    let header = Header {
        epoch,
        cid: ConnectionId(0),
        channel: ChannelIndex::from_wire(0),
        call: CallNumber(0),
        seq: Seq(0),
        serial: Serial(0),
        packet_type: PacketType::Version,
        flags: Flags::LAST_PACKET,
        user_status: 0,
        security: SecurityIndex(0),
        cksum: 0,
        service: ServiceId(0),
    };
    datagram(&header, &[0])
}

/// Both OpenAFS and Linux begin, and stay, with this.
const FIRST: Duration = Duration::from_secs(20);
const LEAST: Duration = Duration::from_secs(5);
/// A NAT is to remember for two minutes (RFC 4787, REQ-5).
const LONGEST: Duration = Duration::from_secs(100);
/// A peer sends again what was not answered after half a second or more, at growing intervals.
const AT_ONCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn begun() -> (KeepAlive, Instant) {
        let (mut keep, now) = (KeepAlive::new(), Instant::now());
        assert!(keep.is_due(now), "at once");
        keep.on_sent(now);
        (keep, now)
    }

    #[test]
    fn it_is_due_after_twenty_seconds_of_silence() {
        let (mut keep, start) = begun();
        assert!(!keep.is_due(start + 19 * S));
        assert!(keep.is_due(start + 20 * S));
        keep.on_sent(start + 19 * S);
        assert!(!keep.is_due(start + 20 * S), "anything that is sent counts");
        assert_eq!(keep.due(), Some(start + 39 * S));
    }

    #[test]
    fn calls_that_come_through_a_silence_lengthen_it_to_a_limit() {
        let (mut keep, mut now) = begun();
        assert!(!keep.on_call(now + 14 * S, true), "no long silence");
        assert!(keep.on_call(now + 15 * S, true));
        assert_eq!(keep.interval(), 30 * S);
        for _ in 0..20 {
            now += keep.interval();
            keep.on_call(now, true);
            keep.on_sent(now);
        }
        assert_eq!(keep.interval(), 100 * S);
        assert!(!keep.on_call(now + 100 * S, true));
    }

    #[test]
    fn calls_that_wait_for_us_shorten_it_for_good() {
        let (mut keep, start) = begun();
        keep.on_call(start + 20 * S, true);
        let now = start + 30 * S;
        keep.on_sent(now);
        assert!(keep.on_call(now + S / 2, false));
        assert_eq!(keep.interval(), 15 * S);
        assert!(!keep.on_call(now + S / 2, false), "one silence counts once");
        let mut now = now;
        for _ in 0..20 {
            now += keep.interval();
            keep.on_call(now, true);
            keep.on_sent(now);
        }
        assert_eq!(keep.interval(), Duration::from_millis(22_500), "never 30 s again");
        for _ in 0..20 {
            now += keep.interval();
            keep.on_sent(now);
            keep.on_call(now, false);
        }
        assert_eq!(keep.interval(), LEAST);
        now += keep.interval();
        keep.on_call(now, true);
        assert_eq!(keep.interval(), LEAST, "what has failed stays failed");
    }

    #[test]
    fn a_loss_that_has_nothing_to_do_with_a_silence_changes_nothing() {
        let (mut keep, start) = begun();
        assert!(!keep.on_call(start + S, false));
        keep.on_sent(start + 10 * S);
        assert!(!keep.on_call(start + 10 * S, false), "the silence was short");
        keep.on_sent(start + 30 * S);
        assert!(!keep.on_call(start + 32 * S, false), "too long after it");
    }

    #[test]
    fn the_packet_asks_nothing() {
        assert_eq!(
            keep_alive(Epoch(0x8000_0001)),
            hex!("80000001 00000000 00000000 00000000 00000000 0d040000 00000000 00")
        );
    }
}
