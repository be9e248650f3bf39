//! Calls that carry bytes without end over one emulated link.
//!
//! The machine: events lie in a queue by virtual time. Each call has a connection of its own, so that calls share nothing
//! but the link. Applications write whenever there is room and read at once. Timers fire on whole milliseconds, no finer
//! than those of the real driver.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::proto::{
    CallLimits, Connection, ConnectionId, ConnectionParams, DATAGRAM_USUAL, Epoch, PacketType, Read,
    Rejected, SecurityIndex, ServiceId, Side, Slot, Upgrade, parse,
};

use crate::link::{Direction, Link, Random};

/// Which way the bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In requests.
    Store,
    /// In replies.
    Fetch,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Report {
    /// Payload bytes that each call delivered.
    pub(crate) delivered: Vec<u64>,
    /// DATA packets sent, and those of them that had been sent before.
    pub(crate) data: u64,
    pub(crate) resent: u64,
    /// Packets sent again that were there already.
    pub(crate) spurious: u64,
}

struct Pair {
    ends: [Connection; 2],
    client_slot: Slot,
    service_slot: Option<Slot>,
    delivered: u64,
}

/// A datagram under way: when it arrives, its number, for which pair and end.
type UnderWay = (Duration, u64, usize, usize, Vec<u8>);

struct Net {
    base: Instant,
    now: Duration,
    way: Way,
    pairs: Vec<Pair>,
    directions: [Direction; 2],
    under_way: BinaryHeap<Reverse<UnderWay>>,
    order: u64,
    report: Report,
    out: Vec<u8>,
}

/// Runs `calls` calls at a time and counts what arrives between `from` and `until`.
pub(crate) fn run(link: Link, way: Way, calls: usize, seed: u64, from: Duration, until: Duration) -> Report {
    let mut random = Random(seed);
    let mut net = Net::new(link, way, seed);
    let mut counting = false;
    // Calls do not begin at the same moment.
    let mut starts: Vec<_> = (0..calls)
        .map(|_| Duration::from_micros(random.next() % 100_000))
        .collect();
    starts.sort_unstable();
    starts.reverse();
    while net.now < until {
        while starts.last().is_some_and(|at| *at <= net.now) {
            starts.pop();
            net.begin();
        }
        if !counting && net.now >= from {
            counting = true;
            net.report = Report::default();
            net.pairs.iter_mut().for_each(|pair| pair.delivered = 0);
        }
        net.step(starts.last().copied());
    }
    net.report.delivered = net.pairs.iter().map(|pair| pair.delivered).collect();
    net.report
}

impl Net {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new(link: Link, way: Way, seed: u64) -> Self {
        Self {
            base: Instant::now(),
            now: Duration::ZERO,
            way,
            pairs: Vec::new(),
            directions: [
                Direction::new(link, seed ^ 0x5eed),
                Direction::new(link, seed ^ 0xfeed),
            ],
            under_way: BinaryHeap::new(),
            order: 0,
            report: Report::default(),
            out: Vec::new(),
        }
    }

    fn at(&self) -> Instant {
        self.base + self.now
    }

    fn begin(&mut self) {
        let cid = ConnectionId(4 * (1 + self.pairs.len() as u32));
        let params = |side| ConnectionParams {
            side,
            epoch: Epoch(0x8000_0001),
            cid,
            service: ServiceId(1),
            upgrade: Upgrade::default(),
            security: SecurityIndex(0),
            window: 255,
            datagram: DATAGRAM_USUAL,
            jumbograms: false,
        };
        let mut client = Connection::new(params(Side::Client));
        let now = self.at();
        let slot = client
            .start_call(now, CallLimits::default())
            .expect("a channel is free");
        if self.way == Way::Fetch {
            client.finish(now, slot).expect("the request is empty");
        }
        self.pairs.push(Pair {
            ends: [client, Connection::new(params(Side::Service))],
            client_slot: slot,
            service_slot: None,
            delivered: 0,
        });
        self.work(self.pairs.len() - 1);
    }

    /// Moves time to the next event, no further than `limit`.
    fn step(&mut self, limit: Option<Duration>) {
        let arrival = self.under_way.peek().map(|Reverse((at, ..))| *at);
        let timer = self
            .pairs
            .iter()
            .flat_map(|pair| &pair.ends)
            .filter_map(Connection::next_timeout)
            .min()
            .map(|at| whole_milliseconds(at.saturating_duration_since(self.base)));
        let next = [arrival, timer, limit].into_iter().flatten().min();
        self.now = self.now.max(next.expect("calls without end have timers"));
        if arrival.is_some_and(|at| at <= self.now)
            && let Some(Reverse((_, _, pair, end, datagram))) = self.under_way.pop()
        {
            self.deliver(pair, end, datagram);
            return self.work(pair);
        }
        let now = self.at();
        for index in 0..self.pairs.len() {
            let due = self.pairs[index].ends.each_mut().map(|end| {
                let due = end.next_timeout().is_some_and(|at| at <= now);
                if due {
                    end.handle_timeout(now);
                }
                due
            });
            if due.contains(&true) {
                self.work(index);
            }
        }
    }

    fn deliver(&mut self, pair: usize, end: usize, datagram: Vec<u8>) {
        let now = self.at();
        let pair = &mut self.pairs[pair];
        for packet in parse(Bytes::from(datagram)).expect("it was well made") {
            let outcome = pair.ends[end].handle_packet(now, packet);
            pair.service_slot = outcome.ready.into_iter().flatten().next().or(pair.service_slot);
            if outcome.rejected == Some(Rejected::Duplicate) {
                self.report.spurious += 1;
            }
        }
    }

    /// Both applications of a pair do what they can, and what that gives rise to is sent.
    fn work(&mut self, index: usize) {
        let (now, store) = (self.at(), self.way == Way::Store);
        let pair = &mut self.pairs[index];
        let slots = [Some(pair.client_slot), pair.service_slot];
        let (writer, reader) = if store { (0, 1) } else { (1, 0) };
        if let Some(slot) = slots[reader] {
            while let Read::Data(data) = pair.ends[reader].read(now, slot).expect("the call goes on") {
                pair.delivered += data.len() as u64;
            }
        }
        if let Some(slot) = slots[writer] {
            // A service may write once the request is here.
            let ready = store || pair.ends[writer].read(now, slot) == Ok(Read::End);
            let mut data = Bytes::from_static(&ZEROS);
            while ready
                && pair.ends[writer]
                    .write(now, slot, &mut data)
                    .expect("the call goes on")
                    > 0
            {
                data = Bytes::from_static(&ZEROS);
            }
        }
        for end in 0..2 {
            loop {
                self.out.clear();
                let Some(run) = self.pairs[index].ends[end].poll_transmit(now, &mut self.out) else {
                    break;
                };
                self.report.resent += run.resent.total();
                for datagram in self.out.chunks(run.segment_size) {
                    self.report.data += u64::from(datagram[TYPE_OFFSET] == PacketType::Data.number());
                    if let Some(at) = self.directions[end].send(self.now, datagram.len()) {
                        self.order += 1;
                        let to = 1 - end;
                        self.under_way
                            .push(Reverse((at, self.order, index, to, datagram.to_vec())));
                    }
                }
            }
        }
    }
}

fn whole_milliseconds(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// Where the type stands in a header.
const TYPE_OFFSET: usize = 20;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
