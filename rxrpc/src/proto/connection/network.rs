//! Two ends with a bad network between them: loss, copies, disorder, jitter, a path that narrows, a restart of either
//! side, all from a seed.
//!
//! The machine: datagrams lie in a queue by time of arrival, and time jumps to the next arrival or timer. The client makes
//! calls on all channels; the service answers each with bytes that follow from its request. Whatever the weather, bytes
//! are intact, every call ends, both sides come to rest, keep no more than the windows allow, and send no ACK that nothing
//! asked for. A failing seed prints the line that plays it again, packet by packet.

mod applications;
mod weather;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use applications::{Answering, Calling};
use weather::Weather;

use super::tests::params;
use super::*;
use crate::proto::{DATAGRAM_USUAL, Packet, PacketType, parse};
use crate::random::Random;

/// A connection of the service, and the calls on it. Those of a client that has restarted come to rest by themselves.
struct Serving {
    epoch: Epoch,
    connection: Connection,
    answering: Vec<Answering>,
}

/// What a side has sent, and how its path became known to it.
#[derive(Default, Debug)]
struct Sent {
    data: u64,
    acks: u64,
    others: u64,
    /// Datagrams that were too long for the path.
    vanished: u64,
    /// It knows the path, and sends what is too long in fragments, as the driver does.
    told: bool,
}

/// A datagram: when it arrives, its number, whom it is for.
type UnderWay = (Instant, u64, bool, Vec<u8>);

struct Network {
    random: Random,
    weather: Weather,
    /// Prints every datagram.
    trace: bool,
    start: Instant,
    now: Instant,
    client: Connection,
    epoch: Epoch,
    to_begin: u64,
    calling: Vec<Calling>,
    serving: Vec<Serving>,
    order: u64,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    delivered: u64,
    /// Turns in which only timers ran and time stood still.
    standstill: usize,
    done: u64,
    sent: [Sent; 2],
}

impl Network {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new(seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let weather = Weather::of(&mut random);
        let now = Instant::now();
        let params = params(Side::Client);
        Self {
            weather,
            trace,
            start: now,
            now,
            epoch: params.epoch,
            client: Connection::new(params),
            to_begin: 1 + random.below(12),
            calling: Vec::new(),
            serving: Vec::new(),
            order: 0,
            under_way: BinaryHeap::new(),
            delivered: 0,
            standstill: 0,
            done: 0,
            sent: Default::default(),
            random,
        }
    }

    /// The applications go on as far as they can.
    fn work(&mut self) {
        let (now, weather) = (self.now, self.weather);
        while self.to_begin > 0
            && let Some(call) = Calling::begin(now, &mut self.client, &mut self.random)
        {
            self.to_begin -= 1;
            self.calling.push(call);
        }
        for serving in &mut self.serving {
            let connection = &mut serving.connection;
            serving.answering.retain_mut(|call| call.poll(now, connection));
        }
        let client = &mut self.client;
        self.calling.retain_mut(|call| {
            let Some(result) = call.poll(now, client) else {
                return true;
            };
            match result {
                Ok(()) => assert!(call.is_answered(), "wrong bytes"),
                Err(error) => assert!(weather.excuses_failure(), "{error:?}"),
            }
            client.release(now, call.slot);
            self.done += 1;
            false
        });
    }

    fn flush(&mut self) {
        let mut out = Vec::new();
        let mut runs = Vec::new();
        let mut flush = |from_client, connection: &mut Connection, now| {
            while let Some(run) = connection.poll_transmit(now, &mut out) {
                runs.extend(
                    out.chunks(run.segment_size)
                        .map(|datagram| (from_client, datagram.to_vec())),
                );
                out.clear();
            }
        };
        flush(true, &mut self.client, self.now);
        for serving in &mut self.serving {
            flush(false, &mut serving.connection, self.now);
        }
        for (from_client, datagram) in runs {
            self.send(from_client, datagram);
        }
    }

    fn send(&mut self, from_client: bool, datagram: Vec<u8>) {
        let header = *parse(datagram.clone().into()).unwrap().header();
        self.print("->", from_client, &header, datagram.len());
        let mtu = self.weather.mtu(self.delivered);
        let sent = &mut self.sent[usize::from(from_client)];
        match header.packet_type {
            PacketType::Data => sent.data += 1,
            PacketType::Ack => sent.acks += 1,
            _ => sent.others += 1,
        }
        let mut fragments = 1;
        if datagram.len() > usize::from(mtu) {
            sent.vanished += 1;
            if !sent.told {
                sent.told = sent.vanished >= VANISHED_UNTIL_TOLD;
                return self.tell_path();
            }
            fragments = datagram.len().div_ceil(usize::from(mtu));
        }
        for _ in 0..=u64::from(self.random.percent(self.weather.duplicate)) {
            let arrives = (0..fragments).all(|_| !self.random.percent(self.weather.lose));
            let jitter = match self.weather.jitter {
                0 => 0,
                jitter => self.random.below(jitter),
            };
            if arrives {
                let at = self.now + Duration::from_micros(self.weather.latency + jitter);
                self.order += 1;
                self.under_way
                    .push(Reverse((at, self.order, !from_client, datagram.clone())));
            }
        }
    }

    /// Those who were told of the path keep to it.
    fn tell_path(&mut self) {
        let mtu = self.weather.mtu(self.delivered);
        let [service, client] = &self.sent;
        if client.told {
            self.client.set_path_mtu(mtu, DATAGRAM_USUAL);
        }
        if service.told {
            self.serving
                .iter_mut()
                .for_each(|serving| serving.connection.set_path_mtu(mtu, DATAGRAM_USUAL));
        }
    }

    /// Moves time to the next thing that happens; false if nothing will.
    fn advance(&mut self) -> bool {
        let arrival = self.under_way.peek().map(|Reverse((at, ..))| *at);
        let Some(next) = self.timers().chain(arrival).min() else {
            return false;
        };
        if next > self.now || arrival.is_some_and(|at| at <= self.now) {
            self.standstill = 0;
        } else {
            // A timer may be late when it is set, and is served in the next turn.
            self.standstill += 1;
            assert!(self.standstill < STANDSTILL_MAX, "timers that are never served");
        }
        self.now = self.now.max(next);
        while let Some(Reverse((at, ..))) = self.under_way.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, to_client, datagram))) = self.under_way.pop() else {
                break;
            };
            self.deliver(to_client, datagram.into());
        }
        let now = self.now;
        for connection in self.connections() {
            connection.handle_timeout(now);
        }
        true
    }

    fn timers(&self) -> impl Iterator<Item = Instant> {
        let services = self.serving.iter().map(|serving| &serving.connection);
        services
            .chain([&self.client])
            .filter_map(Connection::next_timeout)
    }

    fn deliver(&mut self, to_client: bool, datagram: Bytes) {
        self.delivered += 1;
        if let Some((_, side)) = self.weather.restart.filter(|(after, _)| *after == self.delivered) {
            self.restart(side);
        }
        for packet in parse(datagram).unwrap() {
            self.print("=>", !to_client, &packet.header, packet.body.len());
            if !to_client {
                self.serve(packet);
            } else if packet.header.epoch == self.epoch {
                self.client.handle_packet(self.now, packet);
            }
        }
    }

    /// As the receive path does: DATA of a connection that is not there makes one.
    fn serve(&mut self, packet: Packet) {
        let (epoch, now) = (packet.header.epoch, self.now);
        if !self.serving.iter().any(|serving| serving.epoch == epoch) {
            if packet.header.packet_type != PacketType::Data {
                return;
            }
            let params = params(Side::Service);
            self.serving.push(Serving {
                epoch,
                connection: Connection::new(ConnectionParams { epoch, ..params }),
                answering: Vec::new(),
            });
            self.tell_path();
        }
        for serving in self.serving.iter_mut().filter(|serving| serving.epoch == epoch) {
            let outcome = serving.connection.handle_packet(now, packet.clone());
            for slot in outcome.ready.into_iter().flatten() {
                serving.answering.retain(|call| call.slot.channel != slot.channel);
                serving.answering.push(Answering::new(slot));
            }
        }
    }

    /// A side forgets everything. A client comes back under another epoch, and makes one more call.
    fn restart(&mut self, side: Side) {
        match side {
            Side::Service => self.serving.clear(),
            Side::Client => {
                self.epoch = Epoch(self.epoch.0 + 1);
                let params = params(Side::Client);
                self.client = Connection::new(ConnectionParams {
                    epoch: self.epoch,
                    ..params
                });
                self.calling.clear();
                self.to_begin += 1;
                self.tell_path();
            }
        }
    }

    /// What holds after every step.
    fn check(&self) {
        let services = self.serving.iter().map(|serving| &serving.connection);
        for connection in services.chain([&self.client]) {
            let (held, window) = (connection.held(), usize::from(connection.params.window));
            assert!(held.incoming <= ChannelIndex::COUNT * window, "{held:?}");
            assert!(held.outgoing <= ChannelIndex::COUNT * OUTGOING_MAX, "{held:?}");
        }
        // An ACK answers something, and a timer sends few.
        let seconds = (self.now - self.start).as_secs();
        for (mine, theirs) in [(0, 1), (1, 0)] {
            let provoked = self.sent[theirs].data + self.sent[theirs].acks;
            let acks = self.sent[mine].acks;
            assert!(acks <= provoked * 2 + 2 * seconds + 20, "a storm of ACKs");
        }
    }

    fn connections(&mut self) -> impl Iterator<Item = &mut Connection> {
        let services = self.serving.iter_mut().map(|serving| &mut serving.connection);
        services.chain([&mut self.client])
    }

    fn is_over(&self) -> bool {
        let services = || self.serving.iter().map(|serving| &serving.connection);
        self.calling.is_empty()
            && self.to_begin == 0
            && services().chain([&self.client]).all(Connection::is_idle)
    }

    fn print(&self, what: &str, from_client: bool, header: &crate::proto::Header, len: usize) {
        if self.trace {
            let from = if from_client { "client" } else { "service" };
            let at = (self.now - self.start).as_micros();
            println!(
                "{at:>10} us {what} {from} {:?} {:?} {:?} seq {} serial {} flags {:02x} {len} bytes",
                header.channel,
                header.call,
                header.packet_type,
                header.seq.0,
                header.serial.0,
                header.flags.bits()
            );
        }
    }
}

/// Prints how to play a seed again when it fails.
struct Replay(u64, Weather);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self(seed, weather) = self;
            println!("{weather:?}");
            println!("replay: RXRPC_SEED={seed} cargo test -p rxrpc --lib one_seed -- --nocapture");
        }
    }
}

fn run(seed: u64, trace: bool) {
    let mut network = Network::new(seed, trace);
    let _replay = Replay(seed, network.weather);
    for _ in 0..STEPS_MAX {
        network.work();
        network.flush();
        network.check();
        if network.is_over() {
            assert!(network.done > 0);
            return;
        }
        assert!(network.advance(), "nothing will happen any more");
    }
    panic!("it goes on for ever: {:?}", network.sent);
}

/// Far more events than any of these calls needs.
const STEPS_MAX: usize = 200_000;
/// Packets of one direction of a call that are kept until they are hard-acked.
const OUTGOING_MAX: usize = 255;
/// Each call has a few timers.
const STANDSTILL_MAX: usize = 4 * ChannelIndex::COUNT;
/// ICMP comes, but not at once.
const VANISHED_UNTIL_TOLD: u64 = 3;

#[test]
fn thousands_of_seeds() {
    let seeds: u64 = std::env::var("RXRPC_SEEDS").map_or(20_000, |seeds| seeds.parse().unwrap());
    let halves = [0, 1].map(|half| {
        std::thread::spawn(move || {
            for seed in (half..seeds).step_by(2) {
                run(seed, false);
            }
        })
    });
    for half in halves {
        half.join().unwrap();
    }
}

#[test]
fn one_seed() {
    if let Ok(seed) = std::env::var("RXRPC_SEED") {
        run(seed.parse().unwrap(), true);
    }
}
