//! What a call sends.

use std::time::{Duration, Instant};

use super::pacing::Pace;
use super::send::Outgoing as Queued;
use super::{AckDue, Call, Exempt, Path, Phase};
use crate::proto::send_run::{Outgoing, Resend, Run};
use crate::proto::{AckPacket, AckReason, DATAGRAM_LEAST, Flags, Header, Serial, Side};

impl Call {
    /// Lays out the ACK that is due, if one is.
    pub(in crate::proto) fn poll_ack(&mut self, path: &Path<'_>, run: &mut Run<'_>) -> bool {
        let Some(AckDue { reason, serial }) = self.next_ack() else {
            return false;
        };
        self.receive.on_advertised();
        self.unacked = 0;
        let window = u8::try_from(self.receive.room()).unwrap_or(u8::MAX);
        let acks = self.receive.table();
        let (first, previous) = (self.receive.next(), self.receive.highest());
        let ack = AckPacket {
            acks,
            ..AckPacket::new(first, previous, serial, reason)
        };
        let sent = run.ack(self.slot, ack, window);
        self.expect_more(path);
        if reason == AckReason::Ping {
            self.ping = Some((sent, path.now));
            self.persist += 1;
        }
        true
    }

    /// True if a search for the size of the path may send a PING with the DATA of this call: the peer knows it, and will
    /// acknowledge what is sent later.
    pub(in crate::proto) fn may_probe_path(&self) -> bool {
        let known = self.exposed.is_some_and(|since| self.heard > since);
        known && self.phase.sends() && self.send.in_flight() > 0 && self.send.has_unsent()
    }

    /// Lays out a PING that fills a datagram of `datagram` bytes, and nothing else; gives its serial.
    pub(in crate::proto) fn probe_path(&self, datagram: u16, run: &mut Run<'_>) -> Serial {
        let window = u8::try_from(self.receive.room()).unwrap_or(u8::MAX);
        let (first, previous) = (self.receive.next(), self.receive.highest());
        let ack = AckPacket::new(first, previous, Serial(0), AckReason::Ping);
        run.padded_ping(self.slot, ack, window, datagram)
    }

    /// True if large packets vanish on the way while others arrive: in several timeouts nothing that is in flight was
    /// acknowledged, but the peer was heard of.
    pub(in crate::proto) fn is_in_black_hole(&self) -> bool {
        let large = |packet: &Queued| Header::LEN + packet.body.len() > DATAGRAM_LEAST.into();
        self.backoff >= BLACK_HOLE_AFTER && self.heard > self.moved && self.send.packet(0).is_some_and(large)
    }

    /// The answer to a PING goes first: who sent it measures by it, so nothing may stand in for it. It says as much as an
    /// ACK that nothing asked for, and keeps the peer awake as well as a PING of ours.
    fn next_ack(&mut self) -> Option<AckDue> {
        let Some(serial) = self.answer.take() else {
            return self.ack.take();
        };
        let mild = |due: &AckDue| matches!(due.reason, AckReason::Ping | AckReason::Idle | AckReason::Delay);
        self.ack = self.ack.filter(|due| !mild(due));
        Some(AckDue {
            reason: AckReason::PingResponse,
            serial,
        })
    }

    /// Lays out as much DATA as the windows let go, as datagrams of one size. False if there is none.
    pub(in crate::proto) fn poll_data(&mut self, path: &Path<'_>, run: &mut Run<'_>) -> bool {
        if !self.phase.sends() {
            return false;
        }
        let pace = Pace::of(&self.congestion, path.rtt);
        let mut any = false;
        while let Some(index) = self.next_packet(path) {
            let Some(packet) = self.send.packet(index) else {
                break;
            };
            let (body, checksum, last) = (packet.body.clone(), packet.checksum, packet.last);
            let (seq, again) = (self.send.seq(index), self.send.was_sent(index));
            if !run.has_room_for_data(self.slot, body.len(), again) {
                break;
            }
            if self.exposed.is_none() {
                self.exposed = Some(path.now);
                self.heard = path.now;
            }
            if self.send.in_flight() == 0 {
                self.begin_flight(path);
            }
            self.send.on_sent(index, run.next_serial(), path.now);
            self.pacing.on_sent(pace, path.now);
            let exempt = std::mem::replace(&mut self.exempt, Exempt::No);
            let why = if exempt == Exempt::Probe {
                Resend::Probe
            } else {
                self.lost_by
            };
            if exempt == Exempt::Probe {
                self.send.on_probe_sent(again);
            }
            self.resent += u64::from(again);
            let more = self.next_packet(path).is_some();
            let mut flags = Flags::NONE;
            if last {
                flags = flags | Flags::LAST_PACKET;
            }
            if more {
                flags = flags | Flags::MORE_PACKETS;
            }
            if exempt == Exempt::Probe || self.wants_ack(path, index, last, again) {
                flags = flags | Flags::REQUEST_ACK;
                self.asked_at = Some(path.now);
            }
            run.data(
                self.slot,
                &Outgoing {
                    flags,
                    seq,
                    cksum: checksum,
                    body: &body,
                    again: again.then_some(why),
                },
            );
            any = true;
        }
        if any {
            // DATA of a reply says that the request is here.
            if self.side == Side::Service {
                self.ack_at = None;
            }
            self.persist = 0;
            self.arm(path);
        }
        self.limited = self.send.next_to_send().is_some();
        let held_until = self.pacing.held_until(path.now);
        self.resume_at = held_until.filter(|_| self.limited && self.has_window());
        any
    }

    /// The packet that may leave now.
    fn next_packet(&self, path: &Path<'_>) -> Option<usize> {
        if self.exempt != Exempt::No || self.has_window() && self.pacing.allows(path.now) {
            self.send.next_to_send()
        } else {
            None
        }
    }

    fn has_window(&self) -> bool {
        self.send.in_flight() < self.congestion.window() as usize
    }

    /// The first packet leaves after nothing was in flight. If that was for long, the congestion window has faded.
    fn begin_flight(&mut self, path: &Path<'_>) {
        self.silent_since = path.now;
        if let Some(sent) = self.send.last_sent_at() {
            let silence = path.now.saturating_duration_since(sent).as_micros();
            let timeouts = silence / path.rtt.timeout(0, Duration::ZERO).as_micros().max(1);
            self.congestion
                .on_idle(u32::try_from(timeouts).unwrap_or(u32::MAX));
        }
    }

    /// Whether a packet asks for an ACK (rxrpc.md 7.1): when something stands still until one comes, and once in each round
    /// trip to measure it. Never on the first sending of the end of a reply: an OpenAFS client would ack it softly and
    /// leave it at that.
    fn wants_ack(&self, path: &Path<'_>, index: usize, last: bool, again: bool) -> bool {
        if again {
            return true;
        }
        if last {
            return self.side == Side::Client && path.rtt.is_young();
        }
        let asked = |at: Instant| {
            let since = path.now.saturating_duration_since(at);
            path.rtt.smoothed().is_some_and(|rtt| since < rtt)
        };
        path.rtt.is_young()
            || self.congestion.window() <= SMALL_WINDOW
            || self.send.is_tight(index)
            || self.send.is_drained()
            || !self.asked_at.is_some_and(asked)
    }

    /// For a DEBUG reply: what the application waits for.
    pub(in crate::proto) fn waits_for_peer(&self) -> bool {
        matches!(
            self.phase,
            Phase::AwaitReply | Phase::ReceiveReply | Phase::ReceiveRequest
        ) && self.receive.is_drained()
    }
}

/// With a congestion window so small a peer that acks every other packet is too slow (Linux, in slow start).
const SMALL_WINDOW: u32 = 4;
/// With three of them pings have had the time to be answered.
const BLACK_HOLE_AFTER: u32 = 3;
