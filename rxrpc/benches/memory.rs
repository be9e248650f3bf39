//! Memory: allocations for each packet of a transfer, and what calls in flight and idle connections hold.
//!
//! A counting allocator sees both ends, client and service, which share a process. What is resident is asked of the
//! kernel; each part has a process of its own, so that it is not given what another has left.

#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::indexing_slicing
)]

mod report;

use std::alloc::System;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use report::{Table, cpu};
use rxrpc::events::NullSink;
use rxrpc::net::{ClientCall, Endpoint, EndpointConfig, Limit, Service, ServiceCall, Target};
use rxrpc::proto::{ServiceId, Side};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    let part = std::env::args()
        .nth(1)
        .filter(|part| PARTS.contains(&part.as_str()));
    let Some(part) = part else {
        let program = std::env::current_exe().expect("Linux tells");
        let run = |part: &str| Command::new(&program).arg(part).status().expect("it starts");
        let missed = PARTS.into_iter().filter(|part| !run(part).success()).count();
        return ExitCode::from(u8::from(missed > 0));
    };
    let runtime = Runtime::new().expect("tokio starts");
    let mut table = Table::default();
    runtime.block_on(async {
        match part.as_str() {
            STEADY_STATE => steady_state(&mut table).await,
            CALLS_IN_FLIGHT => calls_in_flight(&mut table).await,
            _ => idle_connections(&mut table).await,
        }
    });
    table.conclude()
}

/// Allocations in the middle of a long reply that is read as it comes. It is written in pieces that fill packets: what
/// straddles two pieces is put together in a buffer of its own.
async fn steady_state(table: &mut Table) {
    let ends = Ends::new(Arc::new(Stream)).await;
    let mut call = stream(&ends, 1 << 20).await;
    let payload = call.recv().await.expect("receives").expect("a packet").len();
    drop(call);
    let mut call = stream(&ends, payload * PIECE_PACKETS).await;
    receive(&mut call, WARM_UP).await;
    let before = ALLOCATOR.stats();
    let packets = receive(&mut call, STEADY).await;
    let after = ALLOCATOR.stats();
    let count = after.allocations + after.reallocations - before.allocations - before.reallocations;
    println!("{packets} packets received: {count} allocations at both ends");
    table.at_most(
        "allocations for each packet sent and received",
        count as f64 / packets as f64,
        NONE,
    );
    drop(call);
    ends.shut_down().await;
}

/// Begins a call whose reply is written in such pieces.
async fn stream(ends: &Ends, piece_bytes: usize) -> ClientCall {
    let mut call = ends.client.call(&ends.target("bulk")).await.expect("a channel");
    let request = Bytes::copy_from_slice(&piece_bytes.to_be_bytes());
    call.send(request).await.expect("sends");
    call.finish().expect("sends");
    call
}

/// Reads `bytes` or a little more; gives how many packets that were.
async fn receive(call: &mut ClientCall, bytes: usize) -> usize {
    let (mut left, mut packets) = (bytes, 0);
    while left > 0 {
        let data = call.recv().await.expect("receives").expect("it has no end");
        left = left.saturating_sub(data.len());
        packets += 1;
    }
    packets
}

/// Calls that have begun at both ends and wait there, each with a packet that nobody reads.
async fn calls_in_flight(table: &mut Table) {
    let (held, released) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let before = Held::now();
    let hold = Hold {
        held: Arc::clone(&held),
        released: Arc::clone(&released),
    };
    let ends = Ends::new(Arc::new(hold)).await;
    let mut calls = Vec::with_capacity(CALLS);
    for scope in 0..CALLS / CHANNELS {
        let target = ends.target(&format!("scope-{scope}"));
        for _ in 0..CHANNELS {
            let mut call = ends.client.call(&target).await.expect("a channel");
            call.finish().expect("sends");
            calls.push(call);
        }
        // One packet of each call is in the socket at a time.
        while held.available_permits() < calls.len() {
            tokio::task::yield_now().await;
        }
    }
    tokio::time::sleep(SETTLE).await;
    let used = Held::now().since(&before);
    table.at_most(
        "10,000 calls in flight, MB of heap for both ends",
        used.heap / 1e6,
        64.0,
    );
    table.at_most(
        "10,000 calls in flight, MB resident for both ends",
        used.resident / 1e6,
        64.0,
    );
    for call in &mut calls {
        let data = call.recv().await.expect("receives").expect("a packet");
        assert_eq!(data.len(), HELD_BYTES, "each has its packet");
    }
    drop(calls);
    released.close();
    ends.shut_down().await;
}

/// Connections that were used once, at both ends.
async fn idle_connections(table: &mut Table) {
    let before = Held::now();
    let ends = Ends::new(Arc::new(Stop)).await;
    for scope in 0..CONNECTIONS / PLACES {
        let target = ends.target(&format!("scope-{scope}"));
        let mut calls = Vec::with_capacity(CHANNELS);
        for _ in 0..CHANNELS {
            calls.push(ends.client.call(&target).await.expect("a channel"));
        }
        // One call on each connection goes to the end.
        for call in calls.iter_mut().step_by(CHANNELS / PLACES) {
            call.finish().expect("sends");
        }
        for call in calls.iter_mut().step_by(CHANNELS / PLACES) {
            assert_eq!(call.recv().await.expect("receives"), None);
        }
    }
    tokio::time::sleep(SETTLE).await;
    for side in [Side::Client, Side::Service] {
        let (end, name) = match side {
            Side::Client => (&ends.client, "client"),
            Side::Service => (&ends.server, "service"),
        };
        let count = end.connections(side);
        println!("{name} connections: {} idle, {} in use", count.idle, count.active);
        assert_eq!((count.idle, count.active), (CONNECTIONS, 0));
    }
    let used = Held::now().since(&before);
    let each = 2.0 * CONNECTIONS as f64;
    table.at_most(
        "100,000 idle connections at each end, bytes of heap for each",
        used.heap / each,
        1024.0,
    );
    table.at_most(
        "100,000 idle connections at each end, bytes resident for each",
        used.resident / each,
        1024.0,
    );
    let (from, before) = (Instant::now(), cpu());
    tokio::time::sleep(IDLE).await;
    let busy = cpu().saturating_sub(before).as_secs_f64() / from.elapsed().as_secs_f64();
    table.at_most("processor time that they use, percent", busy * 100.0, 0.1);
    ends.shut_down().await;
}

/// A client and a service with room for all that is wanted here.
struct Ends {
    client: Endpoint,
    server: Endpoint,
}

impl Ends {
    async fn new(service: Arc<dyn Service>) -> Self {
        let config = EndpointConfig {
            bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
            soft_limit: usize::MAX,
            max_service_connections: UNLIMITED,
            max_half_open: UNLIMITED,
            max_calls: UNLIMITED,
            max_service_calls: CALLS,
            ..EndpointConfig::default()
        };
        let bind = || Endpoint::bind(config.clone(), Arc::new(NullSink));
        let server = bind().await.expect("a port is free");
        server.serve(SERVICE, service);
        let client = bind().await.expect("a port is free");
        Self { client, server }
    }

    fn target(&self, scope: &str) -> Target {
        Target {
            scope: Arc::from(scope),
            ..Target::new(self.server.local_addr(), SERVICE)
        }
    }

    async fn shut_down(self) {
        self.client.shutdown().await;
        self.server.shutdown().await;
    }
}

/// Memory of this process, in bytes.
struct Held {
    heap: f64,
    resident: f64,
}

impl Held {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
        let pages = statm
            .split(' ')
            .nth(1)
            .and_then(|pages| pages.parse::<f64>().ok());
        Self {
            heap: stats.bytes_allocated as f64 - stats.bytes_deallocated as f64,
            resident: pages.expect("a number") * PAGE,
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            heap: self.heap - before.heap,
            resident: self.resident - before.resident,
        }
    }
}

/// A reply without end.
struct Stream;

impl Service for Stream {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let Ok(Some(piece)) = call.recv().await else {
                return;
            };
            let bytes = piece
                .first_chunk()
                .map_or(1, |bytes| usize::from_be_bytes(*bytes));
            let data = Bytes::from(vec![7; bytes]);
            while call.send(data.clone()).await.is_ok() {}
        })
    }
}

/// Sends one packet of a reply, tells that it did, and waits until it is released.
struct Hold {
    held: Arc<Semaphore>,
    released: Arc<Semaphore>,
}

impl Service for Hold {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (held, released) = (Arc::clone(&self.held), Arc::clone(&self.released));
        Box::pin(async move {
            // A packet leaves when more than it holds is written.
            let data = Bytes::from_static(&[7; HELD_BYTES + 1]);
            call.send(data).await.expect("sends");
            held.add_permits(1);
            assert!(released.acquire().await.is_err(), "it is only ever closed");
        })
    }
}

/// An empty reply.
struct Stop;

impl Service for Stop {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Ok(Some(_)) = call.recv().await {}
            call.finish().expect("sends");
        })
    }
}

const STEADY_STATE: &str = "steady-state";
const CALLS_IN_FLIGHT: &str = "calls-in-flight";
const IDLE_CONNECTIONS: &str = "idle-connections";
const PARTS: [&str; 3] = [STEADY_STATE, CALLS_IN_FLIGHT, IDLE_CONNECTIONS];
const SERVICE: ServiceId = ServiceId(7);
/// No packet costs one. What is left is the receiver's stock of buffers, which grows to the window of the call, and a
/// timer now and then.
const NONE: f64 = 0.005;
const PIECE_PACKETS: usize = 700;
const WARM_UP: usize = 64 << 20;
const STEADY: usize = 512 << 20;
const CALLS: usize = 10_000;
const UNLIMITED: Limit = Limit {
    in_all: usize::MAX,
    per_host: usize::MAX,
};
const CONNECTIONS: usize = 100_000;
/// Connections to one target, and the channels of all of them.
const PLACES: usize = 4;
const CHANNELS: usize = 16;
const HELD_BYTES: usize = 1416;
/// Longer than any timer that a call leaves behind.
const SETTLE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(4);
const PAGE: f64 = 4096.0;
