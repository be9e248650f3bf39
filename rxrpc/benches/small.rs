//! Small calls: one after the other and many at a time, beside raw UDP that sends datagrams of the same sizes to and fro.
//!
//! A call carries what a `GetTime` does: a request of 4 bytes, a reply of 12, security class null. Raw UDP is two tokio
//! sockets in two tasks: one sends and awaits the answer, the other answers, with one system call for each datagram and
//! no timeouts, so that a lost datagram would stop the bench. All candidates run on one tokio runtime and take turns;
//! medians of the rounds count.

#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing
)]

mod report;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use report::{Table, cpu, median};
use rxrpc::events::NullSink;
use rxrpc::net::{Endpoint, EndpointConfig, Service, ServiceCall, Target};
use rxrpc::proto::{Header, ServiceId};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = Runtime::new().expect("tokio starts");
    let bench = runtime.block_on(Bench::new());
    let mut runs: [Vec<Run>; 3] = Default::default();
    for round in 0..ROUNDS {
        for at in 0..runs.len() {
            let candidate = if round % 2 == 0 { at } else { runs.len() - 1 - at };
            let used = cpu();
            let (seconds, mut times) = runtime.block_on(async {
                match candidate {
                    0 => bench.concurrent_calls(1).await,
                    1 => bench.concurrent_calls(CONCURRENT).await,
                    _ => raw().await,
                }
            });
            let used = cpu().saturating_sub(used);
            times.sort_unstable();
            // The first round warms up.
            if round > 0 {
                runs[candidate].push(Run {
                    rate: times.len() as f64 / seconds,
                    median: micros(times[times.len() / 2]),
                    p99: micros(times[times.len() * 99 / 100]),
                    cpu: micros(used) / times.len() as f64,
                });
            }
        }
    }
    let of = |runs: &[Run], what: fn(&Run) -> f64| median(runs.iter().map(what));
    let names = [
        "calls, one at a time",
        "calls, 256 at a time",
        "raw UDP, one at a time",
    ];
    for (name, runs) in names.iter().zip(&runs) {
        println!(
            "{name:<22} {:>7.0} a second; median {:>6.1} us, p99 {:>6.1} us; {:>5.1} us of processor time for each",
            of(runs, |run| run.rate),
            of(runs, |run| run.median),
            of(runs, |run| run.p99),
            of(runs, |run| run.cpu),
        );
    }
    let [one, many, raw] = &runs;
    let mut table = Table::default();
    table.at_least(
        "calls one at a time, rate relative to raw UDP",
        of(one, |run| run.rate) / of(raw, |run| run.rate),
        0.6,
    );
    table.at_most(
        "calls one at a time, p99 relative to the median",
        of(one, |run| run.p99 / run.median),
        3.0,
    );
    table.for_the_record(
        "raw UDP, p99 relative to the median",
        of(raw, |run| run.p99 / run.median),
        "for comparison",
    );
    table.at_least(
        "256 concurrent calls, rate relative to one at a time",
        of(many, |run| run.rate) / of(one, |run| run.rate),
        3.0,
    );
    table.conclude()
}

/// One round of a candidate: exchanges a second, and what one takes in microseconds.
struct Run {
    rate: f64,
    median: f64,
    p99: f64,
    cpu: f64,
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A service and a client of it.
struct Bench {
    client: Endpoint,
    server: Endpoint,
}

impl Bench {
    async fn new() -> Self {
        let config = EndpointConfig {
            bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            ..EndpointConfig::default()
        };
        let bind = || Endpoint::bind(config.clone(), Arc::new(NullSink));
        let server = bind().await.expect("a port is free");
        server.serve(TIME, Arc::new(Time));
        let client = bind().await.expect("a port is free");
        Self { client, server }
    }

    /// `EXCHANGES` calls, `count` at a time; gives the seconds in all and the time of each. Calls that go on at the same
    /// time are of as many scopes as it takes for each to have a channel.
    async fn concurrent_calls(&self, count: usize) -> (f64, Vec<Duration>) {
        let start = Instant::now();
        let callers: Vec<_> = (0..count)
            .map(|caller| {
                let client = self.client.clone();
                let target = Target {
                    scope: Arc::from(format!("bench-{}", caller / CHANNELS)),
                    ..Target::new(self.server.local_addr(), TIME)
                };
                tokio::spawn(async move {
                    let mut times = Vec::with_capacity(EXCHANGES / count);
                    for _ in 0..EXCHANGES / count {
                        let start = Instant::now();
                        call(&client, &target).await;
                        times.push(start.elapsed());
                    }
                    times
                })
            })
            .collect();
        let mut times = Vec::with_capacity(EXCHANGES);
        for caller in callers {
            times.extend(caller.await.expect("all calls were answered"));
        }
        (start.elapsed().as_secs_f64(), times)
    }
}

async fn call(client: &Endpoint, target: &Target) {
    let mut call = client.call(target).await.expect("a channel is free");
    call.send(Bytes::from_static(&REQUEST)).await.expect("sends");
    call.finish().expect("sends");
    let reply = call.recv().await.expect("receives");
    assert_eq!(reply.as_deref(), Some(REPLY.as_slice()));
    let end = call.recv().await.expect("receives");
    assert_eq!(end, None);
}

/// Answers with what stands for the time.
struct Time;

impl Service for Time {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Ok(Some(request)) = call.recv().await {
                assert_eq!(request, REQUEST.as_slice());
            }
            call.send(Bytes::from_static(&REPLY)).await.expect("sends");
            call.finish().expect("sends");
        })
    }
}

/// `EXCHANGES` datagrams to and fro; gives the seconds in all and the time of each.
async fn raw() -> (f64, Vec<Duration>) {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
    let (client, server) = (bind().await.expect("binds"), bind().await.expect("binds"));
    let peer = server.local_addr().expect("bound");
    let answering = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let reply = [[0; Header::LEN].as_slice(), &REPLY].concat();
        for _ in 0..EXCHANGES {
            let (len, from) = server.recv_from(&mut buffer).await.expect("receives");
            assert_eq!(buffer[Header::LEN..len], REQUEST);
            server.send_to(&reply, from).await.expect("sends");
        }
    });
    let start = Instant::now();
    let asking = tokio::spawn(async move {
        let mut buffer = [0; 2048];
        let request = [[0; Header::LEN].as_slice(), &REQUEST].concat();
        let mut times = Vec::with_capacity(EXCHANGES);
        for _ in 0..EXCHANGES {
            let start = Instant::now();
            client.send_to(&request, peer).await.expect("sends");
            let (len, _) = client.recv_from(&mut buffer).await.expect("receives");
            assert_eq!(buffer[Header::LEN..len], REPLY);
            times.push(start.elapsed());
        }
        times
    });
    let times = asking.await.expect("all was answered");
    let seconds = start.elapsed().as_secs_f64();
    answering.await.expect("all was answered");
    (seconds, times)
}

const TIME: ServiceId = ServiceId(7);
const REQUEST: [u8; 4] = [0, 0, 0, 146];
const REPLY: [u8; 12] = [0, 0, 0, 0, 0x6a, 0x2b, 0x3c, 0x4d, 0, 1, 2, 3];
const CONCURRENT: usize = 256;
/// Channels of the connections to one target.
const CHANNELS: usize = 16;
const EXCHANGES: usize = CONCURRENT * 100;
const ROUNDS: usize = 10;
