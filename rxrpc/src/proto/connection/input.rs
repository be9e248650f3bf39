//! What a connection makes of the packets that come for it.

use std::time::{Duration, Instant};

use super::{Connection, Fate};
use crate::proto::call::{Call, Path, Taken};
use crate::proto::probation::Probation;
use crate::proto::rejected::Rejected;
use crate::proto::wire::{Packet, PacketType};
use crate::proto::{
    AbortCode, AckPacket, CallError, CallLimits, ChannelIndex, Header, SecurityIndex, Serial, ServiceId,
    Side, Slot, Upgrade, abort_codes,
};

/// What a packet, or time, has led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The peer has begun a call.
    pub begun: bool,
    /// Packets that the peer sent before the one that has begun the call have not come.
    pub late: bool,
    /// The calls that are to be executed from now on.
    pub ready: [Option<Slot>; ChannelIndex::COUNT],
    /// The channels whose applications should look.
    pub touched: [bool; ChannelIndex::COUNT],
    /// The server has said which service it is: all channels may be used.
    pub upgrade_settled: bool,
    /// Why the packet changed nothing, or did harm to its call.
    pub rejected: Option<Rejected>,
    /// The connection has nothing to show for itself and should be forgotten.
    pub given_up: bool,
}

impl Outcome {
    /// The first call that is to be executed.
    #[cfg(test)]
    pub(super) fn new_call(&self) -> Option<Slot> {
        self.ready.into_iter().flatten().next()
    }

    pub(super) fn rejected(reason: Rejected) -> Self {
        Self {
            rejected: Some(reason),
            ..Self::default()
        }
    }

    fn add_ready(&mut self, held: [Option<Slot>; ChannelIndex::COUNT]) {
        for (ready, held) in self.ready.iter_mut().zip(held) {
            *ready = ready.or(held);
        }
    }
}

impl Connection {
    /// Takes a packet that names this connection by epoch, id and direction.
    pub fn handle_packet(&mut self, now: Instant, packet: Packet) -> Outcome {
        let header = packet.header;
        let raw = header.packet_type == PacketType::Abort && header.service == ServiceId(0);
        // What is refused without a connection has no serial, and with Linux no class.
        let stateless = header.serial == Serial(0)
            && header.security == SecurityIndex(0)
            && matches!(header.packet_type, PacketType::Abort | PacketType::Busy);
        if header.security != self.params.security && !raw && !stateless {
            return Outcome::rejected(Rejected::SecurityMismatch);
        }
        if self.is_aborted() {
            return self.on_dead(&packet);
        }
        if let Some(code) = self.handshake.expired(now) {
            return self.refuse(now, code, Rejected::Expired);
        }
        let Ok(answered) = self.params.upgrade.judge(self.params.service, &header) else {
            return Outcome::rejected(Rejected::ServiceMismatch);
        };
        let gap = header.serial.after(self.heard.next());
        let mut outcome = self.on_accepted_packet(now, packet);
        outcome.late = gap && outcome.begun;
        if header.serial.after(self.heard) {
            self.heard = header.serial;
        }
        // A packet that has no place here decides nothing.
        if let Some(service) = answered.filter(|_| outcome.rejected.is_none()) {
            self.params.service = service;
            self.params.upgrade = Upgrade::Fixed;
            outcome.upgrade_settled = true;
        }
        outcome
    }

    fn on_accepted_packet(&mut self, now: Instant, packet: Packet) -> Outcome {
        let header = packet.header;
        let proven = self.probation.is_proof(&header, &packet.body, self.serial);
        let ready = if proven {
            self.believe(now)
        } else {
            Default::default()
        };
        if header.call.0 == 0 {
            let mut outcome = match (header.packet_type, abort_code(&packet)) {
                (PacketType::Abort, Some(code)) => self.on_connection_abort(now, code),
                (PacketType::Challenge, _) => self.on_challenge(now, &packet),
                (PacketType::Response, _) => self.on_response(now, &packet),
                _ => Outcome::rejected(Rejected::Unexpected),
            };
            outcome.add_ready(ready);
            return outcome;
        }
        let mut outcome = self.on_call_packet(now, packet);
        outcome.add_ready(ready);
        outcome
    }

    /// True if the packet begins a call that would be executed at once.
    #[must_use]
    pub fn begins_call(&self, header: &Header) -> bool {
        let channel = self.channels.get(header.channel.index());
        !self.is_waiting()
            && self.may_begin(header)
            && channel.is_some_and(|channel| header.call.after(channel.number))
    }

    fn on_connection_abort(&mut self, now: Instant, code: AbortCode) -> Outcome {
        self.fate = Fate::Aborted(code);
        let touched = self.fail_all(now, CallError::ConnectionAborted(code), None, |_| true);
        Outcome {
            touched,
            ..Outcome::default()
        }
    }

    fn on_call_packet(&mut self, now: Instant, packet: Packet) -> Outcome {
        let header = packet.header;
        let Some(channel) = self.channels.get_mut(header.channel.index()) else {
            return Outcome::rejected(Rejected::Unexpected);
        };
        let mut outcome = Outcome::default();
        if header.call.before(channel.number) {
            // It has not heard of the new call yet, but it lives.
            if let Some(call) = &mut channel.call {
                call.on_sign_of_life(now);
            }
            return Outcome::rejected(Rejected::StaleCall);
        }
        if header.call.after(channel.number) {
            if !self.may_begin(&header) {
                let touched = self.end_before(now, &header);
                return Outcome {
                    touched,
                    ..Outcome::rejected(Rejected::UnknownCall)
                };
            }
            if self.is_too_much(&packet) {
                return Outcome::rejected(Rejected::Doubted);
            }
            let slot = self.begin(now, &header, &mut outcome.touched);
            outcome.begun = true;
            let waiting = self.is_waiting();
            let place = header.channel.index();
            if let Some(held) = self.probation.held.get_mut(place) {
                *held = waiting;
            }
            if let Some(ready) = outcome.ready.get_mut(place) {
                *ready = (!waiting).then_some(slot);
            }
        }
        let too_much = self.is_too_much(&packet);
        if header.packet_type == PacketType::Data {
            self.handshake.on_data(now);
        }
        let doubted = self.is_doubted();
        let Some(channel) = self.channels.get_mut(header.channel.index()) else {
            return outcome;
        };
        let mut path = Path {
            now,
            rtt: &mut self.rtt,
            mtu: &mut self.mtu,
            security: &*self.security,
        };
        let taken = match channel.call.as_mut().filter(|call| !call.is_over()) {
            None => {
                let reason = (header.packet_type == PacketType::Ack)
                    .then(|| AckPacket::parse(&packet.body).ok().map(|ack| ack.reason))
                    .flatten();
                channel.on_stray(&header, reason);
                Taken {
                    woke: false,
                    rejected: Some(Rejected::CallOver),
                }
            }
            Some(call) => match (header.packet_type, abort_code(&packet)) {
                (PacketType::Data, _) if too_much => Taken {
                    woke: false,
                    rejected: Some(Rejected::Doubted),
                },
                (PacketType::Data, _) => call.on_data(&mut path, &header, packet.body),
                (PacketType::Ack, _) => call.on_ack(&mut path, &header, &packet.body),
                (PacketType::AckAll, _) => call.on_ack_all(&path),
                (PacketType::Abort, Some(code)) => call.on_abort(code),
                (PacketType::Busy, _) => {
                    call.on_sign_of_life(now);
                    Taken::default()
                }
                _ => Taken {
                    woke: false,
                    rejected: Some(Rejected::Unexpected),
                },
            },
        };
        if let Some(touched) = outcome.touched.get_mut(header.channel.index()) {
            *touched |= taken.woke;
        }
        outcome.rejected = taken.rejected;
        if doubted && let Some(call) = &mut channel.call {
            call.owe_ping();
        }
        channel.settle(self.params.side, now);
        outcome
    }

    /// True for DATA that is not queued while it is not known from whom it is.
    fn is_too_much(&self, packet: &Packet) -> bool {
        self.is_waiting() && Probation::is_too_much(&packet.header, &packet.body)
    }

    /// A call may begin with DATA within the first window only.
    fn may_begin(&self, header: &Header) -> bool {
        self.params.side == Side::Service
            && self.usable()
            && header.packet_type == PacketType::Data
            && header.seq.0 <= u32::from(self.params.window)
    }

    /// The peer begins a call that this connection carries no more: what it says of the call before counts all the same, or
    /// its reply would wait for an acknowledgement that never comes. Gives the channels whose applications should look.
    fn end_before(&mut self, now: Instant, header: &Header) -> [bool; ChannelIndex::COUNT] {
        let mut touched = [false; ChannelIndex::COUNT];
        if self.params.side == Side::Service
            && self.fate == Fate::Closed
            && header.packet_type == PacketType::Data
            && let (Some(channel), Some(touched)) = (
                self.channels.get_mut(header.channel.index()),
                touched.get_mut(header.channel.index()),
            )
            && let Some(old) = &mut channel.call
        {
            old.supersede();
            *touched = true;
            channel.settle(Side::Service, now);
        }
        touched
    }

    /// The peer begins a call. One that is still on the channel is over: its own client has moved on (rxrpc.md 5.4).
    fn begin(&mut self, now: Instant, header: &Header, touched: &mut [bool; ChannelIndex::COUNT]) -> Slot {
        let slot = Slot {
            channel: header.channel,
            call: header.call,
        };
        if let (Some(channel), Some(touched)) = (
            self.channels.get_mut(slot.channel.index()),
            touched.get_mut(slot.channel.index()),
        ) {
            if let Some(old) = &mut channel.call {
                old.supersede();
                *touched = true;
            }
            channel.memory = None;
            channel.number = slot.call;
            channel.call = Some(Box::new(Call::new(
                Side::Service,
                slot,
                SERVICE_LIMITS,
                self.congestion,
                self.params.window,
                now,
            )));
        }
        slot
    }
}

/// The code of an ABORT. 0 would read as success and says no more than that the call is over (rxrpc.md 10.1).
fn abort_code(packet: &Packet) -> Option<AbortCode> {
    let is_abort = packet.header.packet_type == PacketType::Abort;
    let code = packet.body.first_chunk().filter(|_| is_abort)?;
    Some(match i32::from_be_bytes(*code) {
        0 => abort_codes::RX_CALL_DEAD,
        code => AbortCode(code),
    })
}

/// A client that lives may still have forgotten its call: its side of the channel answers every PING. It has as long to go
/// on as with OpenAFS (rxrpc.md 11.1).
const SERVICE_LIMITS: CallLimits = CallLimits {
    dead_in: Duration::from_secs(50),
    idle_in: Some(Duration::from_mins(1)),
    hard_in: None,
};
