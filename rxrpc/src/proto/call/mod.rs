//! Calls: one request and one reply on a channel.
//!
//! The machine: a call has a [phase](state::Phase), a transmit queue for its own direction and a receive window for the
//! peer's. Packets come in through [`input`], leave through [`output`], and time passes in [`clock`]. [`rack`] says what is
//! lost, [`loss_timer`] when nobody else would, [`pacing`] how fast a window leaves. What is left of a call that is over -
//! its final ACK or ABORT - is the business of the channel's memory, not of the call.

mod bits;
mod clock;
mod error;
mod flights;
mod gap;
mod input;
mod loss_timer;
mod output;
mod pacing;
mod rack;
mod receive;
mod send;
mod state;

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

pub use error::{CallError, CallLimits};
pub(super) use input::Taken;
pub(super) use state::Phase;

use super::congestion::{Congestion, Seen};
use super::mtu::Mtu;
use super::rtt::RttEstimator;
use super::secure::{PacketSecurity, Place, Sealed, Unopened};
use super::send_run::Resend;
use super::{AbortCode, AckReason, Seq, Serial, Side, Slot, abort_codes};
use gap::Gap;
use loss_timer::{Exempt, LossTimer};
use pacing::Pacing;
use receive::ReceiveQueue;
use send::SendQueue;
use state::Step;

/// One call.
pub(super) struct Call {
    side: Side,
    slot: Slot,
    phase: Phase,
    error: Option<CallError>,
    /// The code that the peer is to be told.
    told: Option<AbortCode>,
    send: SendQueue,
    /// What was written and does not fill a packet, or is not known not to be the last.
    tail: Bytes,
    receive: ReceiveQueue,
    congestion: Congestion,
    limits: CallLimits,
    pacing: Pacing,
    /// The congestion window or pacing, not the application or the peer, held packets back last time.
    limited: bool,
    exempt: Exempt,
    /// When pacing lets the next packet go.
    resume_at: Option<Instant>,
    /// When DATA last asked for an ACK.
    asked_at: Option<Instant>,
    ack: Option<AckDue>,
    /// The PING to answer.
    answer: Option<Serial>,
    /// When an ACK is due although nothing asks for it.
    ack_at: Option<Instant>,
    /// DATA taken since the last ACK left.
    unacked: u32,
    /// ACKs in a row that were given because a reply stood still.
    repeated: u8,
    /// How clearly the peer was shown the present gap.
    gap: Gap,
    loss_timer: LossTimer,
    /// How packets were last found to be lost.
    lost_by: Resend,
    /// DATA packets sent again so far.
    resent: u64,
    /// Since when nothing that is in flight has been acknowledged.
    silent_since: Instant,
    /// Retransmission timeouts in a row.
    backoff: u32,
    /// PINGs in a row while the peer's window was closed.
    persist: u32,
    /// The last PING: its answer measures the round trip.
    ping: Option<(Serial, Instant)>,
    started: Instant,
    /// When the peer was last heard of in this call.
    heard: Instant,
    /// When the call last moved.
    moved: Instant,
    /// Since when the peer may know of the call.
    exposed: Option<Instant>,
    released: bool,
}

/// An ACK that must leave with the next output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AckDue {
    pub(super) reason: AckReason,
    /// Serial of the packet that it answers, 0 if none.
    pub(super) serial: Serial,
}

/// What a connection lends to its calls.
pub(super) struct Path<'a> {
    pub(super) now: Instant,
    pub(super) rtt: &'a mut RttEstimator,
    pub(super) mtu: &'a mut Mtu,
    pub(super) security: &'a dyn PacketSecurity,
}

/// What is kept for calls. No peer can make it more than the windows allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Packets that the application has not read, or that wait for others before them.
    pub incoming: usize,
    /// Packets that are not hard-acked.
    pub outgoing: usize,
    /// Bytes of all of them, and of what does not fill a packet yet.
    pub bytes: usize,
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read<T = Bytes> {
    /// The next packet, or its payload.
    Data(T),
    /// Nothing more is here yet.
    Pending,
    /// The stream is at its end.
    End,
}

impl Call {
    /// A call that begins with what the last one found of the path, and which takes `window` packets ahead of its reader.
    pub(super) fn new(
        side: Side,
        slot: Slot,
        limits: CallLimits,
        congestion: Option<Seen>,
        window: u8,
        now: Instant,
    ) -> Self {
        Self {
            side,
            slot,
            phase: Phase::first(side),
            error: None,
            told: None,
            send: SendQueue::new(),
            tail: Bytes::new(),
            receive: ReceiveQueue::new(usize::from(window)),
            congestion: Congestion::new(congestion),
            limits,
            pacing: Pacing::default(),
            limited: false,
            exempt: Exempt::No,
            resume_at: None,
            asked_at: None,
            ack: None,
            answer: None,
            ack_at: None,
            unacked: 0,
            repeated: 0,
            gap: Gap::default(),
            loss_timer: LossTimer::Off,
            lost_by: Resend::Overtaken,
            resent: 0,
            silent_since: now,
            backoff: 0,
            persist: 0,
            ping: None,
            started: now,
            heard: now,
            moved: now,
            exposed: (side == Side::Service).then_some(now),
            released: false,
        }
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// DATA packets sent again so far.
    pub(super) fn resent(&self) -> u64 {
        self.resent
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// The code that the peer is to be told about its end.
    pub(super) fn told(&self) -> Option<AbortCode> {
        self.told
    }

    /// How it failed.
    pub(super) fn error(&self) -> Option<CallError> {
        self.error
    }

    /// The next packet expected from the peer.
    pub(super) fn next_expected(&self) -> Seq {
        self.receive.next()
    }

    /// When it began.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Packets that may be under way to the peer.
    pub(super) fn window(&self) -> u32 {
        self.congestion.window()
    }

    /// What it has found of the path, for the next call.
    pub(super) fn congestion(&self) -> Seen {
        self.congestion.seen()
    }

    /// The ACK that was due when the call ended.
    pub(super) fn take_ack(&mut self) -> Option<AckDue> {
        let answer = self.answer.take().map(|serial| AckDue {
            reason: AckReason::PingResponse,
            serial,
        });
        self.ack.take().or(answer)
    }

    /// Packets are queued in the direction to the application, and to the peer.
    pub(super) fn queued(&self) -> (bool, bool) {
        (!self.receive.is_drained(), !self.send.is_empty())
    }

    /// What it keeps, and how many bytes that are.
    pub(super) fn held(&self) -> Held {
        let mut held = Held::default();
        for packet in self.receive.held() {
            held.incoming += 1;
            held.bytes += packet.body.len();
        }
        for body in self.send.held() {
            held.outgoing += 1;
            held.bytes += body.len();
        }
        held.bytes += self.tail.len();
        held
    }

    /// Takes application bytes as far as the window allows; gives how many.
    pub(super) fn write(&mut self, path: &Path<'_>, data: &mut Bytes) -> Result<usize, CallError> {
        self.begin_sending(path.now)?;
        let max = path.security.payload_max(path.mtu.body());
        let before = data.len();
        let mut full = [const { Sealed::EMPTY }; SEALED_AT_ONCE];
        let mut count = 0;
        while !data.is_empty() {
            if self.tail.len() >= max {
                if self.send.room() <= count {
                    break;
                }
                if let Some(packet) = full.get_mut(count) {
                    packet.body = std::mem::take(&mut self.tail);
                    count += 1;
                }
                if count == SEALED_AT_ONCE {
                    self.queue(path, &mut full, false);
                    count = 0;
                }
            }
            let part = data.split_to(data.len().min(max.saturating_sub(self.tail.len()).max(1)));
            self.tail = if self.tail.is_empty() {
                part
            } else {
                joined(&self.tail, &part, max)
            };
        }
        if let Some(full) = full.get_mut(..count) {
            self.queue(path, full, false);
        }
        let taken = before - data.len();
        if taken > 0 {
            self.moved = path.now;
        }
        Ok(taken)
    }

    /// Nothing more will be written.
    pub(super) fn finish(&mut self, path: &Path<'_>) -> Result<(), CallError> {
        self.begin_sending(path.now)?;
        if !self.send.is_ended() {
            self.moved = path.now;
            let body = std::mem::take(&mut self.tail);
            self.queue(path, &mut [Sealed { body, checksum: 0 }], true);
            self.step(Step::Finished);
        }
        Ok(())
    }

    /// The next packet.
    pub(super) fn take(&mut self, now: Instant) -> Result<Read<Unopened>, CallError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        match self.receive.pop() {
            Some((seq, sealed)) => {
                self.moved = now;
                if self.phase.receives() && self.receive.has_opened() {
                    self.owe(AckReason::Idle, Serial(0));
                }
                let place = self.place(seq);
                Ok(Read::Data(Unopened { place, sealed }))
            }
            None if self.receive.is_complete() => Ok(Read::End),
            None => Ok(Read::Pending),
        }
    }

    /// The reply has arrived, as far as the peer tells.
    pub(super) fn is_sent(&self) -> bool {
        self.send.is_ended() && (self.is_over() || self.send.is_acked()) && self.error.is_none()
    }

    /// The application wants no more of it. True if the call may go on without it: its reply is on the way.
    pub(super) fn release(&mut self) -> bool {
        self.released = true;
        self.receive.discard();
        matches!(self.phase, Phase::AwaitAck | Phase::Over)
    }

    /// The application is done with it.
    pub(super) fn is_released(&self) -> bool {
        self.released
    }

    /// Its reply is written to the end and on its way.
    pub(super) fn is_replying(&self) -> bool {
        self.phase == Phase::AwaitAck
    }

    /// Nobody holds it and nothing is left to do.
    pub(super) fn is_spent(&self) -> bool {
        self.released && self.is_over()
    }

    /// Ends the call without success; `told` is what the peer shall hear. Has no effect on a call that is over.
    pub(super) fn fail(&mut self, error: CallError, told: Option<AbortCode>) {
        if self.step(Step::Failed) {
            self.error = Some(error);
            self.told = told.filter(|_| self.exposed.is_some());
            self.receive.discard();
        }
    }

    /// The network cannot reach the peer. `refused` says that it was a packet of this call that could not be delivered.
    pub(super) fn unreachable(&mut self, now: Instant, errno: i32, refused: bool) {
        let just_sent = self.exposed.is_none_or(|since| since == now);
        let never_whole = refused && self.exposed == Some(self.heard) && self.send.is_first_sending();
        let error = if just_sent || never_whole {
            CallError::Unreachable(errno)
        } else {
            CallError::PathBroken(errno)
        };
        self.fail(error, None);
    }

    /// Ends a call whose peer has begun the next one on the channel: that acknowledges all of its reply.
    pub(super) fn supersede(&mut self) {
        if self.phase != Phase::AwaitAck || !self.step(Step::SentAll) {
            self.fail(CallError::LocalAbort(abort_codes::RX_CALL_DEAD), None);
        }
    }

    fn begin_sending(&mut self, now: Instant) -> Result<(), CallError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        match self.phase {
            Phase::SendRequest | Phase::SendReply => Ok(()),
            Phase::Execute => {
                // The peer's silence while we worked says nothing about it.
                self.heard = now;
                self.moved = now;
                self.step(Step::ReplyQueued);
                Ok(())
            }
            // A reply before the end of the request, or bytes after the end of the stream: an error of the caller.
            _ => Err(CallError::Released),
        }
    }

    /// Seals payloads and queues them as packets.
    fn queue(&mut self, path: &Path<'_>, payloads: &mut [Sealed], last: bool) {
        path.security.seal(self.place(self.send.next_seq()), payloads);
        for sealed in payloads {
            self.send.push(std::mem::take(sealed), last);
        }
    }

    fn place(&self, seq: Seq) -> Place {
        Place {
            channel: self.slot.channel,
            call: self.slot.call,
            seq,
        }
    }

    /// Takes a step; true if it changed the phase. A call that is over sends nothing more.
    fn step(&mut self, step: Step) -> bool {
        let Some(next) = self.phase.after(step) else {
            return false;
        };
        self.phase = next;
        if next == Phase::Over {
            self.send.clear();
            self.tail = Bytes::new();
            self.ack_at = None;
            self.loss_timer = LossTimer::Off;
            self.resume_at = None;
            self.exempt = Exempt::No;
        }
        true
    }

    /// Has a PING sent with the next output, whatever else was to be said.
    pub(super) fn owe_ping(&mut self) {
        self.answer = None;
        self.ack = (!self.is_over()).then_some(AckDue {
            reason: AckReason::Ping,
            serial: Serial(0),
        });
    }

    /// Has an ACK sent with the next output. Of several the one that says most wins; of equals the newest.
    fn owe(&mut self, reason: AckReason, serial: Serial) {
        if self.ack.is_none_or(|due| weight(reason) >= weight(due.reason)) {
            self.ack = Some(AckDue { reason, serial });
        }
    }
}

/// How much an ACK for this reason says (the order of Linux, rxrpc.md 6.5).
fn weight(reason: AckReason) -> u8 {
    match reason {
        AckReason::Unknown | AckReason::Ping => 0,
        AckReason::Idle => 1,
        AckReason::Delay => 2,
        AckReason::Requested => 3,
        AckReason::PingResponse => 4,
        AckReason::Duplicate => 5,
        AckReason::ExceedsWindow => 6,
        AckReason::NoSpace => 7,
        AckReason::OutOfSequence => 8,
    }
}

fn joined(front: &Bytes, back: &Bytes, capacity: usize) -> Bytes {
    let mut whole = BytesMut::with_capacity(capacity);
    whole.extend_from_slice(front);
    whole.extend_from_slice(back);
    whole.freeze()
}

/// Packets are sealed together so that the cipher can work on them side by side.
const SEALED_AT_ONCE: usize = 8;
/// How long an ACK that nothing asks for may wait (OpenAFS `rx_softAckDelay`).
const ACK_DELAY: Duration = Duration::from_millis(100);
