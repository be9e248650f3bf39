//! Two connections, their applications and the network between them, all driven by the input.
//!
//! The machine: each byte is one step of somebody: an application begins, writes, reads or gives up a call; a datagram
//! arrives, is lost, doubled, overtaken or spoilt; time passes; a side restarts. After each step both sides send what
//! they have, and the [bounds](Pair::bounds) must hold. At the end everybody lets go, the network is good, and both
//! sides must come to rest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::{
    AbortCode, CallLimits, CallNumber, ChannelIndex, Connection, ConnectionId, ConnectionParams,
    DATAGRAM_USUAL, Epoch, Flags, Header, PacketType, Read, SecurityIndex, Seq, Serial, ServiceId, Side,
    Slot, Upgrade, parse,
};

use crate::input::Input;

/// Plays the steps.
pub(crate) fn run(bytes: &[u8]) {
    let mut pair = Pair::new();
    let mut input = Input::new(bytes);
    for _ in 0..STEPS_MAX {
        if pair.step(&mut input).is_none() {
            break;
        }
        pair.flush();
        pair.bounds();
    }
    pair.rest();
}

/// A service connection with a call that waits for its reply.
pub(crate) fn connection() -> Connection {
    let mut pair = Pair::new();
    for step in [&[0, 0][..], &[1, 0, 9], &[2, 0], &[7, 1]] {
        pair.step(&mut Input::new(step));
        pair.flush();
    }
    pair.service.connection
}

/// One end: its connection, and the calls its application holds.
struct End {
    connection: Connection,
    calls: Vec<Held>,
    /// What is under way to it.
    arriving: VecDeque<Vec<u8>>,
}

/// A call in the hands of an application. The bytes of both directions count up, so each says where it belongs.
struct Held {
    slot: Slot,
    written: usize,
    read: usize,
}

struct Pair {
    now: Instant,
    client: End,
    service: End,
    /// A packet was spoilt or made up, or a side forgot everything: bytes may be wrong from here on.
    tainted: bool,
    /// Packets other than DATA that may be sent: each arrival and each wait allows some.
    allowance: usize,
}

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new() -> Self {
        Self {
            now: Instant::now(),
            client: End::new(Side::Client),
            service: End::new(Side::Service),
            tainted: false,
            allowance: 0,
        }
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Service => &mut self.service,
        }
    }

    /// One step; `None` when the input is at its end.
    fn step(&mut self, input: &mut Input<'_>) -> Option<()> {
        let step = input.byte()?;
        // The high bit says whose step it is.
        let side = if step & 0x80 == 0 {
            Side::Client
        } else {
            Side::Service
        };
        let now = self.now;
        self.allowance += STEP_ALLOWANCE;
        match step & 0x0f {
            0 => self.begin(input.byte()?),
            1 => {
                let (which, length) = (input.byte()?, usize::from(input.byte()?));
                self.end(side).write(now, which, length * length);
            }
            2 => {
                let which = input.byte()?;
                self.end(side).with(which, |connection, call| {
                    let _ = connection.finish(now, call.slot);
                });
            }
            3 | 4 => {
                let (which, tainted) = (input.byte()?, self.tainted);
                self.end(side).read(now, which, tainted);
            }
            5 => {
                let which = input.byte()?;
                let abort = |connection: &mut Connection, call: &mut Held| {
                    connection.abort(now, call.slot, AbortCode(7));
                };
                self.end(side).with(which, abort);
            }
            6 => {
                let which = input.byte()?;
                self.end(side).release(now, which);
            }
            7 | 8 => {
                for _ in 0..input.byte()? {
                    let Some(datagram) = self.end(side).arriving.pop_front() else {
                        break;
                    };
                    self.deliver(side, datagram);
                }
            }
            9 => {
                let lost = self.end(side).arriving.pop_front();
                if input.byte()? & 1 == 1 {
                    // Overtaken by all others, not lost.
                    self.end(side).arriving.extend(lost);
                }
            }
            10 => {
                let again = self.end(side).arriving.front().cloned();
                self.end(side).arriving.extend(again);
            }
            11 => {
                let (place, value) = (usize::from(input.byte()?), input.byte()?);
                if let Some(datagram) = self.end(side).arriving.front_mut()
                    && let Some(byte) = datagram.get_mut(place)
                {
                    *byte ^= value;
                    self.tainted = true;
                }
            }
            12 => self.make_up(side, input)?,
            13 => self.wait(Duration::from_millis(1 << (input.byte()? % 18))),
            14 => self.wait_for_timer(),
            _ => match input.byte()? {
                0 => {
                    // A restart. The datagrams under way are still under way.
                    self.end(side).restart(side);
                    self.tainted = true;
                }
                1 => drop(self.end(side).connection.close(now)),
                2 => drop(self.end(side).connection.unreachable(now, 113, None)),
                mtu => self
                    .end(side)
                    .connection
                    .set_path_mtu(u16::from(mtu) * 8, DATAGRAM_USUAL),
            },
        }
        Some(())
    }

    fn begin(&mut self, limits: u8) {
        let second = Duration::from_secs(1);
        let limits = CallLimits {
            dead_in: second * (1 + u32::from(limits & 0x3f)),
            idle_in: (limits & 0x40 != 0).then_some(second * 20),
            hard_in: (limits & 0x80 != 0).then_some(second * 30),
        };
        if let Some(slot) = self.client.connection.start_call(self.now, limits) {
            self.client.hold(slot);
        }
    }

    fn deliver(&mut self, side: Side, datagram: Vec<u8>) {
        let Ok(packets) = parse(datagram.into()) else {
            return;
        };
        let now = self.now;
        for packet in packets {
            self.allowance += ARRIVAL_ALLOWANCE;
            let end = self.end(side);
            let outcome = end.connection.handle_packet(now, packet);
            for slot in outcome.ready.into_iter().flatten() {
                assert_eq!(side, Side::Service, "only a service is called");
                end.hold(slot);
            }
        }
    }

    /// A packet that nobody sent, with the right names.
    fn make_up(&mut self, side: Side, input: &mut Input<'_>) -> Option<()> {
        let from = match side {
            Side::Client => Flags::NONE,
            Side::Service => Flags::CLIENT_INITIATED,
        };
        let (number, flags, place) = (input.byte()?, input.byte()?, input.byte()?);
        let (seq, serial) = (
            i32::from(input.byte()?.cast_signed()),
            i32::from(input.byte()?.cast_signed()),
        );
        let (service, length) = (u16::from(number < 0x80), usize::from(input.byte()?));
        let params = params(side);
        let header = Header {
            epoch: params.epoch,
            cid: params.cid,
            channel: ChannelIndex::from_wire(u32::from(place & 3)),
            call: CallNumber(u32::from(place >> 2 & 7)),
            seq: Seq(seq.cast_unsigned()),
            serial: Serial(serial.cast_unsigned()),
            packet_type: PacketType::from_number(number & 0x0f)?,
            flags: Flags::from_bits(flags & !Flags::CLIENT_INITIATED.bits()) | from,
            user_status: 0,
            security: SecurityIndex(place >> 6 & 2),
            cksum: 0,
            service: ServiceId(service),
        };
        let mut datagram = header.to_bytes().to_vec();
        datagram.extend_from_slice(input.bytes(length));
        self.tainted = true;
        self.deliver(side, datagram);
        Some(())
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.allowance += WAIT_ALLOWANCE;
        for end in [&mut self.client, &mut self.service] {
            end.connection.handle_timeout(self.now);
        }
    }

    fn wait_for_timer(&mut self) {
        let next = [&self.client, &self.service].map(|end| end.connection.next_timeout());
        if let Some(next) = next.into_iter().flatten().min() {
            self.wait(next.saturating_duration_since(self.now));
        }
    }

    /// Both sides send what they have.
    fn flush(&mut self) {
        let now = self.now;
        for (from, to) in [(Side::Client, Side::Service), (Side::Service, Side::Client)] {
            let mut out = Vec::new();
            for run in 0.. {
                out.clear();
                let Some(sent) = self.end(from).connection.poll_transmit(now, &mut out) else {
                    break;
                };
                assert!(run < RUNS_MAX, "{from:?} sends for ever");
                for datagram in out.chunks(sent.segment_size) {
                    let header = *parse(Bytes::copy_from_slice(datagram))
                        .expect("our own packet")
                        .header();
                    assert_eq!(header.flags.sender(), from);
                    if header.packet_type != PacketType::Data {
                        let left = self.allowance.checked_sub(1);
                        self.allowance = left.expect("a storm of packets that nothing asked for");
                    }
                    self.end(to).arriving.push_back(datagram.to_vec());
                }
            }
        }
        for end in [&mut self.client, &mut self.service] {
            while end.arriving.len() > ARRIVING_MAX {
                end.arriving.pop_front();
            }
        }
    }

    /// What holds after every step: memory is bounded by the windows, and timers that are due come to an end.
    fn bounds(&mut self) {
        for end in [&self.client, &self.service] {
            let held = end.connection.held();
            assert!(
                held.incoming <= ChannelIndex::COUNT * usize::from(WINDOW),
                "{held:?}"
            );
            assert!(held.outgoing <= ChannelIndex::COUNT * SEND_MAX, "{held:?}");
        }
        for _ in 0..STANDSTILL_MAX {
            let next = [&self.client, &self.service].map(|end| end.connection.next_timeout());
            if next.into_iter().flatten().all(|next| next > self.now) {
                self.allowance = 0;
                return;
            }
            self.wait(Duration::ZERO);
            self.flush();
        }
        panic!("timers that are never served");
    }

    /// Everybody lets go and the network is good: both sides come to rest.
    fn rest(&mut self) {
        let now = self.now;
        for end in [&mut self.client, &mut self.service] {
            while !end.calls.is_empty() {
                end.release(now, 0);
            }
        }
        for _ in 0..REST_MAX {
            self.allowance = usize::MAX / 2;
            self.flush();
            let client = std::mem::take(&mut self.client.arriving);
            let service = std::mem::take(&mut self.service.arriving);
            let quiet = client.is_empty() && service.is_empty();
            client
                .into_iter()
                .for_each(|datagram| self.deliver(Side::Client, datagram));
            service
                .into_iter()
                .for_each(|datagram| self.deliver(Side::Service, datagram));
            let now = self.now;
            while !self.service.calls.is_empty() {
                self.service.release(now, 0);
            }
            if quiet && self.client.connection.is_idle() && self.service.connection.is_idle() {
                for end in [&self.client, &self.service] {
                    assert_eq!(end.connection.held(), Default::default(), "kept for nobody");
                }
                return;
            }
            if quiet {
                self.wait_for_timer();
            }
        }
        panic!(
            "no rest: {:?} {:?}",
            self.client.connection.snapshot(),
            self.service.connection.snapshot()
        );
    }
}

impl End {
    fn new(side: Side) -> Self {
        Self {
            connection: Connection::new(params(side)),
            calls: Vec::new(),
            arriving: VecDeque::new(),
        }
    }

    fn restart(&mut self, side: Side) {
        self.connection = Connection::new(params(side));
        self.calls.clear();
    }

    fn hold(&mut self, slot: Slot) {
        self.calls.push(Held {
            slot,
            written: 0,
            read: 0,
        });
    }

    fn with(&mut self, which: u8, work: impl FnOnce(&mut Connection, &mut Held)) {
        let count = self.calls.len().max(1);
        if let Some(call) = self.calls.get_mut(usize::from(which) % count) {
            work(&mut self.connection, call);
        }
    }

    fn release(&mut self, now: Instant, which: u8) {
        if !self.calls.is_empty() {
            let call = self.calls.swap_remove(usize::from(which) % self.calls.len());
            self.connection.release(now, call.slot);
        }
    }

    fn write(&mut self, now: Instant, which: u8, length: usize) {
        self.with(which, |connection, call| {
            let mut data: Bytes = (call.written..call.written + length).map(expected).collect();
            while let Ok(1..) = connection.write(now, call.slot, &mut data) {}
            call.written += length - data.len();
        });
    }

    fn read(&mut self, now: Instant, which: u8, tainted: bool) {
        self.with(which, |connection, call| {
            while let Ok(Read::Data(data)) = connection.read(now, call.slot) {
                assert!(!data.is_empty(), "an empty payload is never given");
                for byte in data {
                    assert!(tainted || byte == expected(call.read), "a wrong byte");
                    call.read += 1;
                }
            }
        });
    }
}

fn expected(at: usize) -> u8 {
    (at % 251).to_le_bytes()[0]
}

pub(crate) fn params(side: Side) -> ConnectionParams {
    ConnectionParams {
        side,
        epoch: Epoch(0x8000_0001),
        cid: ConnectionId(0x10),
        service: ServiceId(1),
        upgrade: Upgrade::Fixed,
        security: SecurityIndex(0),
        window: WINDOW,
        datagram: DATAGRAM_USUAL,
        jumbograms: false,
    }
}

const WINDOW: u8 = 32;
/// Packets of one direction that are kept until they are hard-acked.
const SEND_MAX: usize = 255;
const STEPS_MAX: usize = 1000;
/// A run carries at least one packet, and no more are kept.
const RUNS_MAX: usize = 2 * ChannelIndex::COUNT * (SEND_MAX + 2);
/// Each call has a few timers, and one that is late when it is set is served in the next turn.
const STANDSTILL_MAX: usize = 8 * ChannelIndex::COUNT;
const ARRIVING_MAX: usize = 500;
/// An application's step may end or open something on one channel.
const STEP_ALLOWANCE: usize = ChannelIndex::COUNT;
/// An answer, and the end of the call that it replaces.
const ARRIVAL_ALLOWANCE: usize = 2;
/// A PING or an ACK for each channel of each side.
const WAIT_ALLOWANCE: usize = 4 * ChannelIndex::COUNT;
/// Exchanges until everything is at rest: a dead peer is given up after a minute of retransmissions.
const REST_MAX: usize = 2_000;
