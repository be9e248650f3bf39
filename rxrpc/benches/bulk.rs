//! Bulk: one call from a service of ours to a client of ours over loopback, beside raw UDP with the same datagrams.
//!
//! Both ends of each candidate are tasks of one tokio runtime, and the receiver compares every byte with what was to be
//! sent. Raw UDP loses nothing because its sender never has more than `WINDOW` datagrams under way, as many as a call of ours:
//! the receiver reports its count for every `REPORT` datagrams, or for each batch. The datagrams of raw UDP lie ready to be sent: only the system
//! calls and the comparison are measured. The candidates take turns; medians of the rounds count.

#![allow(
    clippy::cast_possible_truncation,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::disallowed_methods
)]

mod report;

use std::io::IoSliceMut;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use report::{Table, cpu, median};
use rxrpc::events::NullSink;
use rxrpc::net::{Endpoint, EndpointConfig, Service, ServiceCall, Target};
use rxrpc::proto::{Header, ServiceId};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = Runtime::new().expect("tokio starts");
    let bench = runtime.block_on(Bench::new());
    let mut runs: [Vec<Run>; 4] = Default::default();
    for round in 0..ROUNDS {
        for at in 0..runs.len() {
            let candidate = if round % 2 == 0 { at } else { runs.len() - 1 - at };
            let run = runtime.block_on(async {
                match candidate {
                    0 => measured(bench.calls(1)).await,
                    1 => measured(bench.calls(4)).await,
                    2 => measured(bench.raw_single()).await,
                    _ => measured(bench.raw_batched()).await,
                }
            });
            // The first round warms up.
            if round > 0 {
                runs[candidate].push(run);
            }
        }
    }
    let names = [
        "one call",
        "four calls",
        "raw UDP, one by one",
        "raw UDP, batched",
    ];
    for (name, runs) in names.iter().zip(&runs) {
        println!(
            "{name:<20} {:>6.0} MiB/s {:>8.3} ms of processor time for each MiB",
            speed(runs),
            cpu_ms(runs)
        );
    }
    let [one, four, single, batched] = &runs;
    let mut table = Table::default();
    table.at_least(
        "one call, speed relative to raw UDP with one datagram for each system call",
        speed(one) / speed(single),
        1.0,
    );
    table.at_least(
        "one call, speed relative to raw UDP with the same batching",
        speed(one) / speed(batched),
        0.4,
    );
    let four_to_one = "four calls in parallel, speed relative to one";
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores >= 4 {
        table.at_least(four_to_one, speed(four) / speed(one), 1.5);
    } else {
        let why = format!(">= 1.5 is wanted where cores allow: {cores} cores do both ends");
        table.for_the_record(four_to_one, speed(four) / speed(one), &why);
    }
    table.for_the_record(
        "one call, processor time relative to raw UDP one by one",
        cpu_ms(one) / cpu_ms(single),
        "reported",
    );
    table.for_the_record(
        "one call, processor time relative to raw UDP batched",
        cpu_ms(one) / cpu_ms(batched),
        "reported",
    );
    table.conclude()
}

/// What one transfer of `TOTAL` bytes took, in seconds.
struct Run {
    wall: f64,
    cpu: f64,
}

async fn measured(work: impl Future<Output = ()>) -> Run {
    let (wall, used) = (Instant::now(), cpu());
    work.await;
    Run {
        wall: wall.elapsed().as_secs_f64(),
        cpu: cpu().saturating_sub(used).as_secs_f64(),
    }
}

fn speed(runs: &[Run]) -> f64 {
    (TOTAL >> 20) as f64 / median(runs.iter().map(|run| run.wall))
}

fn cpu_ms(runs: &[Run]) -> f64 {
    median(runs.iter().map(|run| run.cpu)) * 1000.0 / (TOTAL >> 20) as f64
}

/// The two ends of every candidate.
struct Bench {
    pattern: Bytes,
    client: Endpoint,
    target: Target,
    /// The payload of a full packet.
    payload: usize,
}

impl Bench {
    async fn new() -> Self {
        let pattern: Bytes = (0..PATTERN).map(|at| (at * 31 + at / 251) as u8).collect();
        let config = EndpointConfig {
            bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            ..EndpointConfig::default()
        };
        let bind = || Endpoint::bind(config.clone(), Arc::new(NullSink));
        let server = bind().await.expect("a port is free");
        let source = Source(pattern.clone());
        server.serve(BULK, Arc::new(source));
        let client = bind().await.expect("a port is free");
        let target = Target::new(server.local_addr(), BULK);
        let mut bench = Self {
            pattern,
            client,
            target,
            payload: 0,
        };
        bench.payload = bench.call(1 << 20).await;
        bench
    }

    async fn calls(&self, count: usize) {
        let calls: Vec<_> = (0..count)
            .map(|_| {
                let (client, target, pattern) =
                    (self.client.clone(), self.target.clone(), self.pattern.clone());
                tokio::spawn(call(client, target, pattern, TOTAL / count))
            })
            .collect();
        for call in calls {
            call.await.expect("the call did not panic");
        }
    }

    async fn call(&self, bytes: usize) -> usize {
        call(
            self.client.clone(),
            self.target.clone(),
            self.pattern.clone(),
            bytes,
        )
        .await
    }

    /// One datagram for each system call.
    async fn raw_single(&self) {
        let (sender, receiver) = sockets().await;
        let (payload, pattern) = (self.payload, self.pattern.clone());
        let (datagrams, count) = self.laid_out();
        let receiving = tokio::spawn(async move {
            let mut datagram = vec![0; Header::LEN + payload];
            let mut expected = Expected::new(pattern);
            for received in 1..=count {
                let (len, from) = receiver.recv_from(&mut datagram).await.expect("receives");
                expected.check(&datagram[Header::LEN..len]);
                if received % REPORT == 0 || received == count {
                    let report = received.to_be_bytes();
                    receiver.send_to(&report, from).await.expect("sends");
                }
            }
        });
        let (mut sent, mut reported) = (0, 0);
        for datagram in datagrams.chunks(Header::LEN + payload).cycle().take(count) {
            while sent - reported >= WINDOW {
                reported = hear(&sender).await;
            }
            sender.send(datagram).await.expect("sends");
            sent += 1;
        }
        receiving.await.expect("what came is what was sent");
    }

    /// Runs of datagrams in one system call, as they leave and come in our endpoints.
    async fn raw_batched(&self) {
        let (sender, receiver) = sockets().await;
        let (payload, pattern) = (self.payload, self.pattern.clone());
        let (datagrams, count) = self.laid_out();
        let peer = receiver.local_addr().expect("bound");
        let receiving = tokio::spawn(async move {
            let state = UdpSocketState::new(UdpSockRef::from(&receiver)).expect("a UDP socket");
            let mut slots = vec![vec![0; 1 << 16]; BATCH_SIZE];
            let mut metas = [RecvMeta::default(); BATCH_SIZE];
            let mut expected = Expected::new(pattern);
            let mut received = 0;
            while received < count {
                receiver.readable().await.expect("polls");
                let got = receiver.try_io(Interest::READABLE, || {
                    let mut slices: Vec<_> = slots.iter_mut().map(|slot| IoSliceMut::new(slot)).collect();
                    state.recv(UdpSockRef::from(&receiver), &mut slices, &mut metas)
                });
                let Ok(got) = got else { continue };
                for (meta, slot) in metas.iter().zip(&slots).take(got) {
                    for datagram in slot[..meta.len].chunks(meta.stride) {
                        expected.check(&datagram[Header::LEN..]);
                        received += 1;
                    }
                }
                let report = received.to_be_bytes();
                receiver.send_to(&report, metas[0].addr).await.expect("sends");
            }
        });
        let state = UdpSocketState::new(UdpSockRef::from(&sender)).expect("a UDP socket");
        let datagram = Header::LEN + payload;
        let (mut sent, mut reported) = (0, 0);
        while sent < count {
            while WINDOW <= sent - reported {
                reported = hear(&sender).await;
            }
            let at = sent % (datagrams.len() / datagram);
            let run = (WINDOW - (sent - reported)).min(RUN).min(count - sent);
            let run = datagrams[at * datagram..].chunks(datagram).take(run).count();
            let transmit = Transmit {
                destination: peer,
                ecn: None,
                contents: &datagrams[at * datagram..(at + run) * datagram],
                segment_size: (run > 1).then_some(datagram),
                src_ip: None,
            };
            let attempt = || state.try_send(UdpSockRef::from(&sender), &transmit);
            match sender.try_io(Interest::WRITABLE, attempt) {
                Ok(()) => sent += run,
                Err(_full) => sender.writable().await.expect("polls"),
            }
        }
        receiving.await.expect("what came is what was sent");
    }

    /// The datagrams of the pattern, and how many of them, over and over, make up `TOTAL`.
    fn laid_out(&self) -> (Vec<u8>, usize) {
        let mut datagrams = Vec::new();
        for payload in self.pattern.chunks_exact(self.payload) {
            datagrams.extend_from_slice(&[0; Header::LEN]);
            datagrams.extend_from_slice(payload);
        }
        (datagrams, TOTAL / self.payload)
    }
}

/// One call for `bytes`; gives the payload of its packets.
async fn call(client: Endpoint, target: Target, pattern: Bytes, bytes: usize) -> usize {
    let mut call = client.call(&target).await.expect("a channel is free");
    let wanted = Bytes::copy_from_slice(&bytes.to_be_bytes());
    call.send(wanted).await.expect("sends");
    call.finish().expect("sends");
    let mut expected = Expected::new(pattern);
    let (mut received, mut largest) = (0, 0);
    while let Some(data) = call.recv().await.expect("receives") {
        expected.check(&data);
        received += data.len();
        largest = largest.max(data.len());
    }
    assert_eq!(received, bytes, "the reply is whole");
    largest
}

/// Compares a stream with the pattern, over and over.
struct Expected {
    pattern: Bytes,
    at: usize,
}

impl Expected {
    fn new(pattern: Bytes) -> Self {
        Self { pattern, at: 0 }
    }

    fn check(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let ahead = &self.pattern[self.at..];
            let (part, rest) = data.split_at(data.len().min(ahead.len()));
            assert!(part == &ahead[..part.len()], "other bytes than were sent");
            self.at = (self.at + part.len()) % self.pattern.len();
            data = rest;
        }
    }
}

/// Answers with as many bytes of the pattern as it is asked for.
struct Source(Bytes);

impl Service for Source {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let pattern = self.0.clone();
        Box::pin(async move {
            let Ok(Some(wanted)) = call.recv().await else {
                return;
            };
            let mut left = wanted
                .first_chunk()
                .map_or(0, |bytes| usize::from_be_bytes(*bytes));
            while left > 0 {
                let part = pattern.slice(..left.min(pattern.len()));
                left -= part.len();
                if call.send(part).await.is_err() {
                    return;
                }
            }
            // A client that has gone wants no end of it.
            let _ = call.finish();
        })
    }
}

/// A connected sender and a receiver, with the buffers of our endpoints.
async fn sockets() -> (UdpSocket, UdpSocket) {
    let bind = || async {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port is free");
        let state = UdpSocketState::new(UdpSockRef::from(&socket)).expect("a UDP socket");
        for set in [
            UdpSocketState::set_recv_buffer_size,
            UdpSocketState::set_send_buffer_size,
        ] {
            set(&state, UdpSockRef::from(&socket), 4 << 20).expect("the kernel clamps it");
        }
        socket
    };
    let (sender, receiver) = (bind().await, bind().await);
    let peer = receiver.local_addr().expect("bound");
    assert!(matches!(peer, SocketAddr::V4(_)));
    sender.connect(peer).await.expect("loopback is there");
    (sender, receiver)
}

/// The receiver's next report.
async fn hear(sender: &UdpSocket) -> usize {
    let mut report = [0; size_of::<usize>()];
    sender.recv(&mut report).await.expect("receives");
    usize::from_be_bytes(report)
}

const BULK: ServiceId = ServiceId(7);
const TOTAL: usize = 192 << 20;
/// A multiple of all payloads in use would be too long; what is left of the last packet is not laid out.
const PATTERN: usize = 1416 * 720;
const WINDOW: usize = 255;
const REPORT: usize = 64;
/// As many as fit a UDP datagram that the kernel cuts up.
const RUN: usize = 44;
const ROUNDS: usize = 8;
