//! What a connection has to do with its security class, beyond the packets of calls.

use std::sync::Arc;
use std::time::Instant;

use super::{Connection, Fate, Outcome};
use crate::proto::call::Call;
use crate::proto::handshake::{Handshake, Message, Proof};
use crate::proto::send_run::Run;
use crate::proto::wire::{Flags, Packet, PacketType};
use crate::proto::{
    AbortCode, Acceptor, CallError, CallNumber, Caller, ChannelIndex, ConnectionParams, PacketSecurity,
    Rejected, Seq, Side, Slot, abort_codes,
};

impl Connection {
    /// A client's connection of a security class.
    #[must_use]
    pub fn secured(params: ConnectionParams, security: Arc<dyn PacketSecurity>) -> Self {
        Self {
            security,
            ..Self::new(params)
        }
    }

    /// A service's connection of a security class: its calls wait until the client has proven who it is.
    #[must_use]
    pub fn asking(params: ConnectionParams, acceptor: Box<dyn Acceptor>) -> Self {
        Self {
            handshake: Handshake::asking(acceptor),
            ..Self::new(params)
        }
    }

    /// What its packets are sealed with. It does not change while a call is executed.
    #[must_use]
    pub fn security(&self) -> &Arc<dyn PacketSecurity> {
        &self.security
    }

    /// Who is at the other end, if we are a service and the class has found out.
    #[must_use]
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        self.handshake.caller()
    }

    /// A service has asked who is there. It may be anybody.
    pub(super) fn on_challenge(&mut self, now: Instant, packet: &Packet) -> Outcome {
        if self.params.side != Side::Client {
            return Outcome::rejected(Rejected::Unexpected);
        }
        let calls = self.channels.iter().filter_map(|channel| channel.call.as_deref());
        let waiting = calls.filter(|call| !call.is_over()).map(Call::started);
        let Some(since) = waiting.min() else {
            return Outcome::rejected(Rejected::NothingAsked);
        };
        if let Err(reason) = self.handshake.on_challenge(now, packet.header.serial) {
            return Outcome::rejected(reason);
        }
        let last = self.channels.each_ref().map(|channel| channel.number);
        match self.security.respond(&packet.body, last) {
            Ok(response) => {
                self.handshake.answer(now, since, Some(response));
                Outcome::default()
            }
            Err(code) => {
                self.handshake.answer(now, since, None);
                self.refuse(now, code, Rejected::BadChallenge)
            }
        }
    }

    /// A client says who it is.
    pub(super) fn on_response(&mut self, now: Instant, packet: &Packet) -> Outcome {
        if self.params.security == crate::security::Null.index() {
            return self.refuse(now, abort_codes::RX_PROTOCOL_ERROR, Rejected::NothingAsked);
        }
        match self.handshake.judge(now, &packet.body) {
            None => Outcome::rejected(Rejected::NothingAsked),
            Some(Err(code)) => {
                self.handshake.refuse(now);
                self.refuse(now, code, Rejected::BadResponse)
            }
            Some(Ok(accepted)) => {
                self.security = accepted.security;
                self.handshake.accept(now, accepted.caller, accepted.until);
                for (channel, last) in self.channels.iter_mut().zip(accepted.calls) {
                    // Its last call may still be on the way; what came before that is a replay.
                    let before = CallNumber(last.0.saturating_sub(1));
                    if channel.call.is_none() && before.after(channel.number) {
                        channel.number = before;
                        channel.memory = None;
                    }
                }
                Outcome {
                    // Only who has seen the challenge can answer it.
                    ready: self.believe(now),
                    ..Outcome::default()
                }
            }
        }
    }

    /// The handshake that has ended since the last look.
    pub fn take_proof(&mut self) -> Option<Proof> {
        self.handshake.take_proof()
    }

    /// True while calls are queued and not executed.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_doubted() || self.handshake.is_asking()
    }

    /// When the client is asked again.
    pub(super) fn asks_again_at(&self) -> Option<Instant> {
        let waiting = self.probation.held.contains(&true) && !self.is_doubted();
        self.handshake.next_timeout().filter(|_| waiting)
    }

    /// Asks again, or no more.
    pub(super) fn ask_again(&mut self, now: Instant) {
        if self.asks_again_at().is_some() && !self.handshake.on_timeout(now) {
            self.drop_held(now);
        }
    }

    /// Aborts the connection as a whole.
    pub(super) fn refuse(&mut self, now: Instant, code: AbortCode, reason: Rejected) -> Outcome {
        self.drop_held(now);
        self.fate = Fate::Refused { code, due: true };
        Outcome {
            touched: self.fail_all(now, CallError::Protocol(code), None, |_| true),
            ..Outcome::rejected(reason)
        }
    }

    /// A packet came for a connection that was aborted. Whoever does not know it yet is told again.
    pub(super) fn on_dead(&mut self, packet: &Packet) -> Outcome {
        if let Fate::Refused { due, .. } = &mut self.fate {
            *due |= packet.header.packet_type != PacketType::Abort;
        }
        Outcome::rejected(Rejected::ConnectionDead)
    }
}

/// Lays out what concerns the whole connection; false if there is nothing.
pub(super) fn poll(now: Instant, fate: &mut Fate, handshake: &mut Handshake, run: &mut Run<'_>) -> bool {
    let slot = Slot {
        channel: ChannelIndex::default(),
        call: CallNumber(0),
    };
    let mut packet = |packet_type, body: &[u8]| {
        run.packet(slot, packet_type, Flags::NONE, Seq(0), 0, |out| {
            out.extend_from_slice(body)
        });
    };
    if let Fate::Refused { code, due } = fate {
        if std::mem::take(due) {
            packet(PacketType::Abort, &code.0.to_be_bytes());
            return true;
        }
        return false;
    }
    match handshake.take_message(now) {
        Some(Message::Challenge(body)) => packet(PacketType::Challenge, &body),
        Some(Message::Response(body)) => packet(PacketType::Response, &body),
        None => return false,
    }
    true
}
