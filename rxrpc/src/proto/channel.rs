//! A channel: the call on it, and what is remembered of the last one.
//!
//! The machine: a channel counts its calls and holds at most one. When a call is over, its [`Memory`] answers for it:
//! it sends the final ACK or ABORT, and again for every stray packet that shows that the peer has missed it. The final
//! ACK waits a moment, because DATA of the next call says the same.

use std::time::{Duration, Instant};

use super::call::{AckDue, Call};
use super::send_run::Run;
use super::wire::{Flags, Header, PacketType};
use super::{AbortCode, AckPacket, AckReason, CallError, CallNumber, ChannelIndex, Seq, Serial, Side, Slot};

/// One of the four channels of a connection.
#[derive(Default)]
pub(super) struct Channel {
    /// The last call begun.
    pub(super) number: CallNumber,
    /// Boxed, because most channels of most connections are idle.
    pub(super) call: Option<Box<Call>>,
    pub(super) memory: Option<Memory>,
}

/// What the peer may still have to be told of a call that is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    call: CallNumber,
    last: Last,
    /// It is to be sent now: for this reason, in answer to this packet.
    due: Option<AckDue>,
    /// It is to be sent then, unless DATA of the next call goes first.
    later: Option<Instant>,
}

/// How we leave a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    /// The peer had the last word.
    Theirs,
    /// All before this packet has arrived.
    Ack(Seq),
    Abort(AbortCode),
}

impl Channel {
    pub(super) fn slot(&self, channel: ChannelIndex) -> Slot {
        Slot {
            channel,
            call: self.number,
        }
    }

    /// The call that `slot` names, if it is still here.
    pub(super) fn call_mut(&mut self, slot: Slot) -> Result<&mut Call, CallError> {
        self.call
            .as_deref_mut()
            .filter(|call| call.slot() == slot)
            .ok_or(CallError::Released)
    }

    /// Remembers a call that is over, and drops it if nobody holds it. Must follow whatever may end a call.
    pub(super) fn settle(&mut self, side: Side, now: Instant) {
        let Some(call) = &mut self.call else { return };
        if call.is_over() && self.memory.is_none_or(|memory| memory.call != call.slot().call) {
            let last = match (call.told(), call.error(), side) {
                (Some(code), _, _) => Last::Abort(code),
                (None, None, Side::Client) => Last::Ack(call.next_expected()),
                _ => Last::Theirs,
            };
            let (due, later) = match last {
                Last::Theirs => (None, None),
                Last::Abort(_) => (
                    Some(AckDue {
                        reason: AckReason::Unknown,
                        serial: Serial(0),
                    }),
                    None,
                ),
                Last::Ack(_) => {
                    let asked = call.take_ack().filter(|due| due.serial != Serial(0));
                    (asked, asked.is_none().then(|| now + FINAL_ACK_DELAY))
                }
            };
            self.memory = Some(Memory {
                call: call.slot().call,
                last,
                due,
                later,
            });
        }
        if call.is_spent() {
            self.call = None;
        }
    }

    /// Answers a packet of the call that is over.
    pub(super) fn on_stray(&mut self, header: &Header, reason: Option<AckReason>) {
        if header.packet_type == PacketType::Abort || reason == Some(AckReason::PingResponse) {
            return;
        }
        if let Some(memory) = self.memory.as_mut().filter(|memory| memory.last != Last::Theirs) {
            memory.later = None;
            memory.due = Some(AckDue {
                reason: AckReason::Duplicate,
                serial: header.serial,
            });
        }
    }

    /// DATA of the present call has left: all before it is acknowledged by that.
    pub(super) fn on_data_sent(&mut self) {
        if let Some(memory) = &mut self.memory
            && memory.call != self.number
        {
            memory.later = None;
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let call = self.call.as_deref().and_then(Call::next_timeout);
        let later = self.memory.and_then(|memory| memory.later);
        call.into_iter().chain(later).min()
    }

    /// Has the final ACK sent, if its time has come.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        if let Some(memory) = self.memory.as_mut()
            && memory.later.is_some_and(|at| at <= now)
        {
            memory.later = None;
            memory.due = Some(AckDue {
                reason: AckReason::Idle,
                serial: Serial(0),
            });
        }
    }

    /// Sends the final ACK now rather than later.
    pub(super) fn hurry(&mut self) {
        if let Some(at) = self.memory.and_then(|memory| memory.later) {
            self.on_timeout(at);
        }
    }

    /// Nothing to send for the last call.
    pub(super) fn is_settled(&self) -> bool {
        self.memory
            .is_none_or(|memory| memory.due.is_none() && memory.later.is_none())
    }

    /// Lays out the last word on the last call, if it is due.
    pub(super) fn poll_memory(&mut self, channel: ChannelIndex, window: u8, run: &mut Run<'_>) -> bool {
        let Some(memory) = &mut self.memory else {
            return false;
        };
        let Some(AckDue { reason, serial }) = memory.due.take() else {
            return false;
        };
        let slot = Slot {
            channel,
            call: memory.call,
        };
        match memory.last {
            Last::Theirs => return false,
            Last::Ack(next) => {
                let previous = Seq(next.0.wrapping_sub(1));
                run.ack(slot, AckPacket::new(next, previous, serial, reason), window);
            }
            Last::Abort(code) => {
                run.packet(slot, PacketType::Abort, Flags::NONE, Seq(0), 0, |out| {
                    out.extend_from_slice(&code.0.to_be_bytes())
                });
            }
        }
        true
    }

    /// True if a client may begin a call here.
    pub(super) fn is_free(&self) -> bool {
        self.call.is_none()
    }
}

/// Long enough for the next call of a busy channel, short against any retransmission timeout.
const FINAL_ACK_DELAY: Duration = Duration::from_millis(5);
