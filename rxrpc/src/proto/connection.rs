//! A connection: four channels between two endpoints, without its input and output.
//!
//! The machine: the owner puts packets in ([`handle_packet`](Connection::handle_packet)), lets time pass
//! ([`handle_timeout`](Connection::handle_timeout)) and works on calls by their [`Slot`]; after each of these it takes
//! out what is to be sent ([`poll_transmit`](Connection::poll_transmit)) and asks when to come back
//! ([`next_timeout`](Connection::next_timeout)). A connection that was aborted stays so: its packets are dropped.

#[cfg(test)]
mod acks;
#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod doubt;
mod input;
#[cfg(test)]
mod interop;
#[cfg(test)]
mod network;
#[cfg(test)]
mod openafs;
#[cfg(test)]
mod rules;
mod security;
#[cfg(test)]
mod sending;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use input::Outcome;
pub use snapshot::{CallSnapshot, ConnectionSnapshot};

use super::call::{Call, Path, Read};
use super::channel::Channel;
use super::congestion::Seen;
use super::handshake::Handshake;
use super::mtu::Mtu;
use super::probation::Probation;
use super::rtt::RttEstimator;
use super::send_run::{Run, Transmit};
use super::{
    AbortCode, CallError, CallLimits, ChannelIndex, ConnectionId, Epoch, PacketSecurity, RoundTrip, RttTally,
    SecurityIndex, Serial, ServiceId, Side, Slot, Unopened, Upgrade, abort_codes,
};
use crate::security::Null;

/// What a connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionParams {
    /// Which side of it we are.
    pub side: Side,
    /// The client's epoch.
    pub epoch: Epoch,
    /// Its id.
    pub cid: ConnectionId,
    /// The service it speaks to.
    pub service: ServiceId,
    /// Whether that may still change.
    pub upgrade: Upgrade,
    /// Its security class.
    pub security: SecurityIndex,
    /// Packets of a call that we take ahead of its reader, from 1.
    pub window: u8,
    /// The largest datagram that we take, in bytes; the peer may search the path up to it if it is more than usual.
    pub datagram: u16,
    /// Several DATA packets may share a datagram, in either direction.
    pub jumbograms: bool,
}

/// A connection.
pub struct Connection {
    params: ConnectionParams,
    security: Arc<dyn PacketSecurity>,
    handshake: Handshake,
    channels: [Channel; ChannelIndex::COUNT],
    /// The serial used last.
    serial: Serial,
    /// The highest serial that the peer has used, as far as we know.
    heard: Serial,
    rtt: RttEstimator,
    mtu: Mtu,
    black_hole: bool,
    /// What the last call found of the path.
    congestion: Option<Seen>,
    fate: Fate,
    probation: Probation,
}

/// Whether a connection can still carry calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    /// The peer has aborted it as a whole.
    Aborted(AbortCode),
    /// We have.
    Refused {
        code: AbortCode,
        /// The peer is to be told now.
        due: bool,
    },
    /// No call is to be begun any more.
    Closed,
}

impl Connection {
    /// A connection without calls and without security.
    #[must_use]
    pub fn new(params: ConnectionParams) -> Self {
        Self {
            mtu: Mtu::new(params.datagram, params.jumbograms),
            black_hole: false,
            params,
            security: Arc::new(Null),
            handshake: Handshake::Quiet,
            channels: Default::default(),
            serial: Serial(0),
            heard: Serial(0),
            rtt: RttEstimator::default(),
            congestion: None,
            fate: Fate::Open,
            probation: Probation::NONE,
        }
    }

    /// Has a new service connection show that it is worth its keep; see `probation`. If `secret` is given, its address has
    /// never answered us: calls wait until it does, and our serials begin after that number, of which nobody must know.
    pub fn put_on_probation(&mut self, now: Instant, secret: Option<Serial>) {
        self.probation = Probation::begin(now, secret);
        self.serial = secret.unwrap_or(self.serial);
    }

    /// True while its address has never answered us.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.probation.is_doubted()
    }

    /// True until its calls were answered.
    #[must_use]
    pub fn is_on_probation(&self) -> bool {
        self.probation.until().is_some()
    }

    /// The address has answered, on this connection or another. Gives the calls that have waited for nothing but that.
    pub fn believe(&mut self, now: Instant) -> [Option<Slot>; ChannelIndex::COUNT] {
        self.probation.on_proof(now);
        if self.is_waiting() {
            Default::default()
        } else {
            self.take_held()
        }
    }

    fn take_held(&mut self) -> [Option<Slot>; ChannelIndex::COUNT] {
        let held = std::mem::take(&mut self.probation.held);
        let mut slots = [None; ChannelIndex::COUNT];
        for (((index, channel), held), slot) in ChannelIndex::ALL
            .into_iter()
            .zip(&self.channels)
            .zip(held)
            .zip(&mut slots)
        {
            *slot = held.then(|| channel.slot(index));
        }
        slots
    }

    /// Forgets the calls that no application has, and tells nobody.
    fn drop_held(&mut self, now: Instant) {
        for slot in self.take_held().into_iter().flatten() {
            let _ = self.with(now, slot, |call, _| {
                call.fail(CallError::PeerDead, None);
                call.release();
                Ok(())
            });
        }
    }

    /// False once it was aborted as a whole, was closed, or its call numbers ran out: it can carry no further call.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.fate == Fate::Open && self.channels.iter().all(|channel| channel.number.0 < CALLS_MAX)
    }

    /// True if it was aborted as a whole.
    #[must_use]
    pub fn is_aborted(&self) -> bool {
        matches!(self.fate, Fate::Aborted(_) | Fate::Refused { .. })
    }

    /// The service it speaks to: after an upgrade, the one that the server has offered.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.params.service
    }

    /// Its security class.
    #[must_use]
    pub fn security_index(&self) -> SecurityIndex {
        self.params.security
    }

    /// True while the server was asked for a newer service and has said nothing: calls may begin on channel 0 only.
    #[must_use]
    pub fn awaits_upgrade(&self) -> bool {
        self.params.upgrade.is_asked()
    }

    /// The route and ICMP know of nothing on the way to the peer that is narrower than `most` bytes of UDP payload, and
    /// datagrams of `proven` bytes have arrived.
    pub fn set_path_mtu(&mut self, most: u16, proven: u16) {
        self.mtu.set_path(most, proven);
    }

    /// The size of datagrams that have arrived, if it is more than usual.
    #[must_use]
    pub fn proven_mtu(&self) -> u16 {
        self.mtu.proven()
    }

    /// True, once, if packets as large as we send them vanish on the way: they must be allowed to travel in fragments.
    pub fn take_black_hole(&mut self) -> bool {
        std::mem::take(&mut self.black_hole)
    }

    /// The round trip to the peer, if it was measured.
    #[must_use]
    pub fn rtt(&self) -> Option<RoundTrip> {
        self.rtt.round_trip()
    }

    /// Other connections have measured this round trip to the peer.
    pub fn expect_round_trip(&mut self, rtt: Duration) {
        self.rtt.expect(rtt);
    }

    /// The samples of the round trip since the last look.
    pub fn take_rtt_tally(&mut self) -> RttTally {
        self.rtt.take_tally()
    }

    /// Begins a call of ours on the first free channel, if there is one.
    pub fn start_call(&mut self, now: Instant, limits: CallLimits) -> Option<Slot> {
        if !self.usable() || self.params.side != Side::Client {
            return None;
        }
        let open = if self.awaits_upgrade() {
            1
        } else {
            ChannelIndex::COUNT
        };
        let mut channels = ChannelIndex::ALL.into_iter().zip(&mut self.channels).take(open);
        let (index, channel) = channels.find(|(_, channel)| channel.is_free())?;
        channel.number = channel.number.next();
        let slot = channel.slot(index);
        channel.call = Some(Box::new(Call::new(
            Side::Client,
            slot,
            limits,
            self.congestion,
            self.params.window,
            now,
        )));
        Some(slot)
    }

    /// Queues bytes of our direction as far as the window allows; gives how many were taken from the front of `data`.
    /// 0: no room now.
    ///
    /// # Errors
    ///
    /// The call has failed, or its direction is not ours to write in.
    pub fn write(&mut self, now: Instant, slot: Slot, data: &mut Bytes) -> Result<usize, CallError> {
        self.with(now, slot, |call, path| call.write(path, data))
    }

    /// Ends our direction.
    ///
    /// # Errors
    ///
    /// As those of [`write`](Self::write).
    pub fn finish(&mut self, now: Instant, slot: Slot) -> Result<(), CallError> {
        self.with(now, slot, |call, path| call.finish(path))?;
        self.probation.on_served();
        Ok(())
    }

    /// Takes the next payload of the peer's direction. An empty one is never given.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub fn read(&mut self, now: Instant, slot: Slot) -> Result<Read, CallError> {
        loop {
            let packet = match self.take(now, slot)? {
                Read::Data(packet) => packet,
                Read::Pending => return Ok(Read::Pending),
                Read::End => return Ok(Read::End),
            };
            match packet.open(&*self.security) {
                Ok(payload) if payload.is_empty() => {}
                Ok(payload) => return Ok(Read::Data(payload)),
                Err(code) => {
                    self.abort(now, slot, code);
                    return Err(CallError::Protocol(code));
                }
            }
        }
    }

    /// Takes the next packet of the peer's direction, for its reader to [open](Unopened::open). A reader who cannot
    /// [aborts](Self::abort) the call.
    ///
    /// # Errors
    ///
    /// The call has failed.
    pub fn take(&mut self, now: Instant, slot: Slot) -> Result<Read<Unopened>, CallError> {
        self.with(now, slot, |call, path| call.take(path.now))
    }

    /// DATA packets of a call that were sent again so far.
    #[must_use]
    pub fn resent(&self, slot: Slot) -> u64 {
        self.call(slot).map_or(0, Call::resent)
    }

    /// Packets of a call that may be under way to the peer, as congestion control sees it.
    #[must_use]
    pub fn window(&self, slot: Slot) -> Option<u32> {
        self.call(slot).map(Call::window)
    }

    /// True when all of our direction has arrived.
    #[must_use]
    pub fn is_sent(&self, slot: Slot) -> bool {
        self.call(slot).is_some_and(Call::is_sent)
    }

    fn call(&self, slot: Slot) -> Option<&Call> {
        let channel = self.channels.get(slot.channel.index())?;
        channel.call.as_deref().filter(|call| call.slot() == slot)
    }

    /// Gives a call up; the peer is told `code` if it may know of the call.
    pub fn abort(&mut self, now: Instant, slot: Slot, code: AbortCode) {
        // A slot that is out of date names nothing to abort.
        let lived = self.with(now, slot, |call, _| {
            let lived = !call.is_over();
            call.fail(CallError::LocalAbort(code), Some(code));
            Ok(lived)
        });
        if lived == Ok(true) {
            self.probation.on_served();
        }
    }

    /// The application is done with a call: if its own part of it is not, the call is aborted. A reply that is written to
    /// its end goes on until it has arrived. The slot names nothing from now on.
    pub fn release(&mut self, now: Instant, slot: Slot) {
        let _ = self.with(now, slot, |call, _| {
            if !call.release() {
                let code = abort_codes::RX_USER_ABORT;
                call.fail(CallError::LocalAbort(code), Some(code));
            }
            Ok(())
        });
    }

    /// The network cannot reach the peer (an `errno`): all calls fail. Those that were first sent at `now` never left;
    /// `refused` is the call of the packet that the network gave back, if that is known.
    pub fn unreachable(
        &mut self,
        now: Instant,
        errno: i32,
        refused: Option<Slot>,
    ) -> [bool; ChannelIndex::COUNT] {
        self.drop_held(now);
        self.end_all(now, |call| {
            call.unreachable(now, errno, refused == Some(call.slot()));
            true
        })
    }

    /// Ends the connection: no call begins any more, those under way are aborted, but for replies that are on their way.
    /// Gives the channels whose applications should look.
    pub fn close(&mut self, now: Instant) -> [bool; ChannelIndex::COUNT] {
        if self.fate == Fate::Open {
            self.fate = Fate::Closed;
        }
        self.drop_held(now);
        self.channels.iter_mut().for_each(Channel::hurry);
        let unsent = |call: &Call| !(call.is_released() && call.is_replying());
        self.fail_all(now, CallError::Shutdown, Some(abort_codes::RX_CALL_DEAD), unsent)
    }

    /// Aborts the replies as well that `close` has left on their way: whoever they are for does not take them.
    pub fn give_up(&mut self, now: Instant) -> [bool; ChannelIndex::COUNT] {
        self.fail_all(now, CallError::Shutdown, Some(abort_codes::RX_CALL_DEAD), |_| {
            true
        })
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let calls = self.channels.iter().filter_map(Channel::next_timeout);
        // Nothing is sent on a timer to an address that may be forged.
        let calls = calls.filter(|_| !self.is_doubted());
        calls
            .chain(self.probation.until())
            .chain(self.asks_again_at())
            .min()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) -> Outcome {
        let mut outcome = Outcome {
            given_up: self.ends_probation(now),
            ..Outcome::default()
        };
        if self.is_doubted() {
            return outcome;
        }
        self.ask_again(now);
        for (channel, touched) in self.channels.iter_mut().zip(&mut outcome.touched) {
            channel.on_timeout(now);
            if let Some(call) = &mut channel.call {
                let path = Path {
                    now,
                    rtt: &mut self.rtt,
                    mtu: &mut self.mtu,
                    security: &*self.security,
                };
                *touched |= call.on_timeout(&path);
                if call.is_in_black_hole() {
                    self.mtu.on_black_hole(now);
                    self.black_hole = true;
                }
            }
            channel.settle(self.params.side, now);
        }
        outcome
    }

    /// True if its probation is over and it has nothing to show.
    fn ends_probation(&mut self, now: Instant) -> bool {
        if self.probation.until().is_none_or(|until| now < until) {
            return false;
        }
        // Until it is forgotten, or packets come for it after all.
        self.probation.extend(now);
        if self.is_doubted() {
            self.drop_held(now);
        }
        self.is_idle()
    }

    /// True when there is no call and nothing left to say about one.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.channels
            .iter()
            .all(|channel| channel.call.is_none() && channel.is_settled())
    }

    /// Appends the next run of datagrams to `out`; `None` when there is nothing to send now.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Transmit> {
        let Self {
            params,
            channels,
            serial,
            rtt,
            mtu,
            security,
            handshake,
            fate,
            ..
        } = self;
        let lives = |slot: Slot| {
            let channel = channels.get(slot.channel.index());
            let call = channel.and_then(|channel| channel.call.as_ref());
            call.is_some_and(|call| call.slot() == slot && !call.is_over())
        };
        let probe = mtu.probe(now, lives);
        let mut run = Run::new(params, *mtu, serial, out);
        if security::poll(now, fate, handshake, &mut run) {
            return run.done();
        }
        for (index, channel) in ChannelIndex::ALL.into_iter().zip(channels) {
            if channel.poll_memory(index, params.window, &mut run) {
                break;
            }
            let Some(call) = channel.call.as_mut().filter(|call| !call.is_over()) else {
                continue;
            };
            let path = Path {
                now,
                rtt: &mut *rtt,
                mtu: &mut *mtu,
                security: &**security,
            };
            if call.poll_ack(&path, &mut run) {
                break;
            }
            if let Some(size) = probe.filter(|_| call.may_probe_path()) {
                let serial = call.probe_path(size, &mut run);
                mtu.on_probe_sent(call.slot(), serial);
                break;
            }
            if call.poll_data(&path, &mut run) {
                channel.on_data_sent();
                break;
            }
        }
        run.done()
    }

    /// Works on the call that `slot` names.
    fn with<R>(
        &mut self,
        now: Instant,
        slot: Slot,
        work: impl FnOnce(&mut Call, &mut Path<'_>) -> Result<R, CallError>,
    ) -> Result<R, CallError> {
        let channel = self
            .channels
            .get_mut(slot.channel.index())
            .ok_or(CallError::Released)?;
        let mut path = Path {
            now,
            rtt: &mut self.rtt,
            mtu: &mut self.mtu,
            security: &*self.security,
        };
        let result = work(channel.call_mut(slot)?, &mut path);
        self.congestion = channel.call.as_deref().map(Call::congestion);
        channel.settle(self.params.side, now);
        result
    }

    fn fail_all(
        &mut self,
        now: Instant,
        error: CallError,
        told: Option<AbortCode>,
        which: impl Fn(&Call) -> bool,
    ) -> [bool; ChannelIndex::COUNT] {
        self.end_all(now, |call| {
            let fails = which(call);
            if fails {
                call.fail(error, told);
            }
            fails
        })
    }

    /// Has `end` look at every call; gives the channels where it says that it ended one.
    fn end_all(
        &mut self,
        now: Instant,
        mut end: impl FnMut(&mut Call) -> bool,
    ) -> [bool; ChannelIndex::COUNT] {
        let mut touched = [false; ChannelIndex::COUNT];
        for (channel, touched) in self.channels.iter_mut().zip(&mut touched) {
            *touched = channel.call.as_deref_mut().is_some_and(&mut end);
            channel.settle(self.params.side, now);
        }
        touched
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("params", &self.params)
            .field("fate", &self.fate)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

/// Linux stops here (rxrpc.md 2.3); rxkad counts calls in 31 bits.
const CALLS_MAX: u32 = 0x7fff_ffff;
