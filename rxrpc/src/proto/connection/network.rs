//! Two connections with a bad network between them: time, loss, duplicates, disorder, jitter and restarts, all from a seed.
//!
//! The machine: datagrams lie in a queue by time of arrival, and time jumps to the next arrival or timer. The client makes
//! calls on all channels; the service answers each with bytes that follow from its request. Whatever the weather, bytes
//! are intact, every call ends, and neither side sends without limit. A failing seed is run again with
//! `RXRPC_SEED=<seed> cargo test -p rxrpc --lib one_seed -- --nocapture`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::tests::params;
use super::*;
use crate::proto::{PacketType, parse};
use crate::random::Random;

/// What the network does to a datagram. Percentages, and microseconds.
#[derive(Clone, Copy, Debug)]
struct Weather {
    lose: u64,
    duplicate: u64,
    latency: u64,
    jitter: u64,
    /// Longer ones never arrive.
    mtu: usize,
    /// After so many deliveries the service forgets everything.
    restart: Option<u64>,
}

impl Weather {
    fn of(random: &mut Random) -> Self {
        let fair = random.percent(30);
        let spread = |random: &mut Random, end| if fair { 0 } else { random.below(end) };
        Self {
            lose: spread(random, 25),
            duplicate: spread(random, 20),
            latency: 10 << random.below(14),
            jitter: spread(random, 20_000),
            mtu: if random.percent(20) { 1444 } else { 65_000 },
            restart: random.percent(10).then(|| 5 + random.below(200)),
        }
    }
}

/// A call of the client.
struct Calling {
    slot: Slot,
    rest: Bytes,
    finished: bool,
    reply: Vec<u8>,
    expected: Vec<u8>,
}

/// A call at the service.
struct Answering {
    slot: Slot,
    heard: Vec<u8>,
    reply: Option<Bytes>,
}

/// What has been sent, by type.
#[derive(Default, Debug)]
struct Sent {
    data: u64,
    acks: u64,
    others: u64,
}

/// A datagram: when it arrives, its number, whether it is for the client.
type UnderWay = (Instant, u64, bool, Vec<u8>);

struct Network {
    random: Random,
    weather: Weather,
    start: Instant,
    now: Instant,
    client: Connection,
    service: Connection,
    order: u64,
    under_way: BinaryHeap<Reverse<UnderWay>>,
    delivered: u64,
    sent: [Sent; 2],
    answering: Vec<Answering>,
}

impl Network {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let weather = Weather::of(&mut random);
        let now = Instant::now();
        Self {
            random,
            weather,
            start: now,
            now,
            client: Connection::new(params(Side::Client)),
            service: Connection::new(params(Side::Service)),
            order: 0,
            under_way: BinaryHeap::new(),
            delivered: 0,
            sent: Default::default(),
            answering: Vec::new(),
        }
    }

    fn flush(&mut self) {
        for from_client in [true, false] {
            let mut out = Vec::new();
            loop {
                out.clear();
                let side = if from_client {
                    &mut self.client
                } else {
                    &mut self.service
                };
                let Some(run) = side.poll_transmit(self.now, &mut out) else {
                    break;
                };
                for datagram in out.chunks(run.segment_size) {
                    self.send(from_client, datagram);
                }
            }
        }
    }

    fn send(&mut self, from_client: bool, datagram: &[u8]) {
        let header = parse(Bytes::copy_from_slice(datagram))
            .unwrap()
            .next()
            .unwrap()
            .header;
        let sent = &mut self.sent[usize::from(from_client)];
        match header.packet_type {
            PacketType::Data => sent.data += 1,
            PacketType::Ack => sent.acks += 1,
            _ => sent.others += 1,
        }
        if datagram.len() > self.weather.mtu {
            return;
        }
        let copies = 1 + u64::from(self.random.percent(self.weather.duplicate));
        for _ in 0..copies {
            if self.random.percent(self.weather.lose) {
                continue;
            }
            let jitter = if self.weather.jitter > 0 {
                self.random.below(self.weather.jitter)
            } else {
                0
            };
            let at = self.now + Duration::from_micros(self.weather.latency + jitter);
            self.order += 1;
            self.under_way
                .push(Reverse((at, self.order, !from_client, datagram.to_vec())));
        }
    }

    /// Moves time to the next thing that happens; false if nothing will.
    fn advance(&mut self) -> bool {
        let arrival = self.under_way.peek().map(|Reverse((at, ..))| *at);
        let timers = [self.client.next_timeout(), self.service.next_timeout()];
        let Some(next) = timers.into_iter().flatten().chain(arrival).min() else {
            return false;
        };
        self.now = self.now.max(next);
        while let Some(Reverse((at, ..))) = self.under_way.peek()
            && *at <= self.now
        {
            let Some(Reverse((_, _, to_client, datagram))) = self.under_way.pop() else {
                break;
            };
            self.deliver(to_client, datagram.into());
        }
        self.client.handle_timeout(self.now);
        self.service.handle_timeout(self.now);
        true
    }

    fn deliver(&mut self, to_client: bool, datagram: Bytes) {
        self.delivered += 1;
        if self.weather.restart == Some(self.delivered) {
            self.service = Connection::new(params(Side::Service));
            self.answering.clear();
        }
        for packet in parse(datagram).unwrap() {
            if to_client {
                self.client.handle_packet(self.now, packet);
            } else {
                let outcome = self.service.handle_packet(self.now, packet);
                for slot in outcome.ready.into_iter().flatten() {
                    self.answering.retain(|call| call.slot.channel != slot.channel);
                    self.answering.push(Answering {
                        slot,
                        heard: Vec::new(),
                        reply: None,
                    });
                }
            }
        }
    }

    /// The service reads and answers as far as it can.
    fn answer(&mut self) {
        let (now, service) = (self.now, &mut self.service);
        self.answering.retain_mut(|call| {
            while call.reply.is_none() {
                match service.read(now, call.slot) {
                    Ok(Read::Data(data)) => call.heard.extend_from_slice(&data),
                    Ok(Read::Pending) => return true,
                    Ok(Read::End) => call.reply = Some(answer_to(&call.heard).into()),
                    Err(_) => {
                        service.release(now, call.slot);
                        return false;
                    }
                }
            }
            let Some(reply) = &mut call.reply else { return true };
            while !reply.is_empty() {
                match service.write(now, call.slot, reply) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(_) => {
                        service.release(now, call.slot);
                        return false;
                    }
                }
            }
            let _ = service.finish(now, call.slot);
            service.release(now, call.slot);
            false
        });
    }
}

impl Calling {
    fn begin(network: &mut Network) -> Option<Self> {
        let limits = CallLimits {
            dead_in: Duration::from_secs(60),
            idle_in: None,
            hard_in: Some(Duration::from_secs(600)),
        };
        let slot = network.client.start_call(network.now, limits)?;
        let random = &mut network.random;
        let bits = 1 + random.below(17);
        let request: Vec<u8> = (0..1 + random.below(1 << bits))
            .map(|_| random.next().to_le_bytes()[0])
            .collect();
        Some(Self {
            slot,
            expected: answer_to(&request),
            rest: request.into(),
            finished: false,
            reply: Vec::new(),
        })
    }

    /// Goes on as far as it can; gives the result at the end.
    fn poll(&mut self, now: Instant, client: &mut Connection) -> Option<Result<(), CallError>> {
        let slot = self.slot;
        let mut step = || -> Result<bool, CallError> {
            while !self.rest.is_empty() {
                if client.write(now, slot, &mut self.rest)? == 0 {
                    break;
                }
            }
            if self.rest.is_empty() && !self.finished {
                client.finish(now, slot)?;
                self.finished = true;
            }
            loop {
                match client.read(now, slot)? {
                    Read::Data(data) => self.reply.extend_from_slice(&data),
                    Read::Pending => return Ok(false),
                    Read::End => return Ok(true),
                }
            }
        };
        match step() {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    }
}

/// As long as the request says, and made of its bytes.
fn answer_to(request: &[u8]) -> Vec<u8> {
    let len = request
        .iter()
        .take(2)
        .fold(0, |len, byte| len * 256 + usize::from(*byte));
    let sum = request
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    (0..=len)
        .map(|at| at.to_le_bytes()[0].wrapping_add(sum))
        .collect()
}

/// Runs one seed; panics with it in hand.
fn run(seed: u64) {
    let mut network = Network::new(seed);
    let weather = network.weather;
    let mut to_begin = 1 + network.random.below(12);
    let mut calling: Vec<Calling> = Vec::new();
    let (mut done, mut failed) = (0, 0);
    for _ in 0..STEPS_MAX {
        while to_begin > 0
            && let Some(call) = Calling::begin(&mut network)
        {
            to_begin -= 1;
            calling.push(call);
        }
        network.answer();
        let (now, client) = (network.now, &mut network.client);
        calling.retain_mut(|call| match call.poll(now, client) {
            None => true,
            Some(result) => {
                match result {
                    Ok(()) => {
                        assert!(
                            call.reply == call.expected,
                            "seed {seed}: wrong bytes, {weather:?}"
                        );
                        done += 1;
                    }
                    Err(error) => {
                        assert!(
                            weather.restart.is_some() || network.weather.lose > 15,
                            "seed {seed}: {error:?}, {weather:?}"
                        );
                        failed += 1;
                    }
                }
                client.release(now, call.slot);
                false
            }
        });
        network.flush();
        if calling.is_empty() && to_begin == 0 && network.client.is_idle() && network.service.is_idle() {
            break;
        }
        assert!(
            network.advance(),
            "seed {seed}: nothing will happen any more, {weather:?}"
        );
    }
    assert!(
        calling.is_empty() && to_begin == 0,
        "seed {seed}: it goes on for ever, {weather:?}, {:?}",
        network.sent
    );
    assert!(done + failed > 0);
    // An ACK answers something, and a timer sends few.
    for (mine, theirs) in [(0, 1), (1, 0)] {
        let seconds = (network.now - network.start).as_secs();
        let provoked = network.sent[theirs].data + network.sent[theirs].acks;
        let acks = network.sent[mine].acks;
        assert!(
            acks <= provoked * 2 + 2 * seconds + 20,
            "seed {seed}: {:?}, {weather:?}",
            network.sent
        );
    }
}

/// Far more events than any of these calls needs.
const STEPS_MAX: usize = 200_000;

#[test]
fn thousands_of_seeds() {
    let seeds: u64 = std::env::var("RXRPC_SEEDS").map_or(20_000, |seeds| seeds.parse().unwrap());
    let halves = [0, 1].map(|half| {
        std::thread::spawn(move || {
            for seed in (half..seeds).step_by(2) {
                run(seed);
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
        run(seed.parse().unwrap());
    }
}
