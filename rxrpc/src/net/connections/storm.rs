//! The storm: calls at full rate over thousands of connections that die all the time.
//!
//! The machine: an endpoint whose connections expire after a millisecond answers calls from threads of
//! [bare callers](peers), and [makes calls](outgoing) to a service that often aborts the connection. The reapers have
//! something to do in every millisecond. Every call carries a number, and the ledger has how often each was executed.
//! The same storm goes over a naive cache, which takes out what it saw idle without asking whether it still is.
//!
//! `cargo test --release -p rxrpc storm -- --nocapture` prints both. `RXRPC_STORM_CALLS` sets the number of calls.

mod outgoing;
mod peers;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Buf;
use parking_lot::Mutex;

use self::outgoing::call_out;
use self::peers::{Orders, Tally, call_all};
use super::*;
use crate::net::{Endpoint, EndpointConfig, Limit, Service, ServiceCall};
use crate::proto::ServiceId;

/// How connections of callers are reaped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scheme {
    /// As shipped.
    RefOnList,
    /// What was idle at a look is removed.
    Naive,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn storm_over_a_cache_as_shipped_and_a_naive_one() {
    let calls = std::env::var("RXRPC_STORM_CALLS").map_or(100_000, |calls| calls.parse().unwrap());
    let calls = u64::next_multiple_of(calls, THREADS);
    let events = Arc::new(Events::default());
    let ours = storm(Scheme::RefOnList, calls, &events).await;
    let mut naive = storm(Scheme::Naive, calls, &Arc::default()).await;
    ours.assert_nothing_lost(calls);
    // On a busy machine a storm now and then meets the reaper too seldom, over either cache.
    for _ in 0..RETRIES {
        if naive.lost() == 0 {
            naive = storm(Scheme::Naive, calls, &Arc::default()).await;
        }
        if !events.never_happened().is_empty() {
            storm(Scheme::RefOnList, calls, &events)
                .await
                .assert_nothing_lost(calls);
        }
    }
    for ((what, ours), (_, naive)) in ours.rows().into_iter().zip(naive.rows()) {
        println!("| {what} | {ours} | {naive} |");
    }
    assert!(
        naive.lost() > 0,
        "the naive cache passed: the storm proves nothing"
    );
    assert_eq!(events.never_happened(), Vec::<String>::new());
}

/// What came of a storm.
struct Report {
    tally: Tally,
    /// Calls executed never, once, more often.
    executed: [u64; 3],
    failed_outgoing: u64,
    events: Arc<Events>,
    took: Duration,
}

async fn storm(scheme: Scheme, calls: u64, events: &Arc<Events>) -> Report {
    let config = EndpointConfig {
        bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        client_idle: EXPIRY,
        service_idle: match scheme {
            Scheme::RefOnList => EXPIRY,
            Scheme::Naive => Duration::from_hours(1),
        },
        soft_limit: usize::MAX,
        // The callers answer nothing.
        check_reach: false,
        max_calls: Limit {
            in_all: usize::MAX,
            per_host: usize::MAX,
        },
        ..EndpointConfig::default()
    };
    let endpoint = Endpoint::bind(config, Arc::clone(events) as Arc<dyn Sink>)
        .await
        .unwrap();
    let ledger = Arc::new(Ledger((0..calls).map(|_| AtomicU8::new(0)).collect()));
    endpoint.serve(CALLBACK, Arc::new(Arc::clone(&ledger)));
    let reaper = tokio::spawn(reap(scheme, Arc::clone(&endpoint.connections)));

    let started = endpoint.shared.clock.now();
    let over = Arc::new(AtomicBool::new(false));
    let outgoing = tokio::spawn(call_out(endpoint.clone(), Arc::clone(&over)));
    let share = calls / THREADS;
    let callers: Vec<_> = (0..THREADS)
        .map(|thread| Orders {
            callee: endpoint.local_addr(),
            service: CALLBACK,
            connections: CONNECTIONS,
            first: thread * share,
            calls: share,
            expiry: EXPIRY,
        })
        .map(|orders| thread::spawn(move || call_all(orders).unwrap()))
        .collect();
    let tally = tokio::task::spawn_blocking(move || {
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .fold(Tally::default(), Tally::and)
    })
    .await
    .unwrap();
    let took = endpoint.shared.clock.now() - started;
    over.store(true, Ordering::Relaxed);
    let failed_outgoing = outgoing.await.unwrap();
    reaper.abort();
    endpoint.shutdown().await;
    Report {
        tally,
        executed: ledger.executed(),
        failed_outgoing,
        events: Arc::clone(events),
        took,
    }
}

/// Reaps the connections of callers all the time: by the shipped scheme, beside the endpoint's own reaper but often
/// interrupted between look and swap, or as a cache does that anybody would write, in which what was seen idle is removed.
async fn reap(scheme: Scheme, connections: Arc<Connections>) {
    let list = &connections.service.list;
    let expiry = Expiry {
        idle_ms: u64::try_from(EXPIRY.as_millis()).unwrap(),
        fast_ms: 0,
        soft_limit: usize::MAX,
    };
    let mut forgotten: Vec<Arc<Connection>> = Vec::new();
    loop {
        let now_ms = connections.clock.millis(connections.clock.now());
        let reaped = match scheme {
            Scheme::RefOnList => list.reap_slowly(now_ms, expiry),
            Scheme::Naive => list.forget_idle(now_ms, expiry),
        };
        let dead = reaped.dead.clone();
        connections.bury(Side::Service, reaped, None);
        // The list had the memory of the busy ones: they go on with what they are busy with.
        forgotten.extend(dead);
        forgotten.retain(|conn| conn.life.usage() > 1);
        tokio::time::sleep(EXPIRY).await;
    }
}

/// How often each call was executed.
struct Ledger(Vec<AtomicU8>);

impl Ledger {
    fn executed(&self) -> [u64; 3] {
        let mut executed = [0; 3];
        for times in &self.0 {
            executed[usize::from(times.load(Ordering::Relaxed).min(2))] += 1;
        }
        executed
    }
}

impl Service for Arc<Ledger> {
    /// Notes the number at the start of the request and sends it back.
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let ledger = Self::clone(self);
        Box::pin(async move {
            let Ok(Some(number)) = call.recv().await else {
                return;
            };
            while let Ok(Some(_)) = call.recv().await {}
            ledger.0[usize::try_from(number.clone().get_u64()).unwrap()].fetch_add(1, Ordering::Relaxed);
            if call.send(number).await.is_ok() {
                // Fails if the caller is gone.
                let _ = call.finish();
            }
        })
    }
}

#[derive(Default)]
struct Events {
    acquired: Mutex<BTreeMap<String, u64>>,
    dropped: Mutex<BTreeMap<&'static str, u64>>,
    reaps_lost: AtomicU64,
    closed: AtomicU64,
    resent: AtomicU64,
}

impl Events {
    fn acquired(&self, side: Side, outcome: Acquire) -> u64 {
        let key = format!("{side:?} {outcome:?}");
        self.acquired.lock().get(&key).copied().unwrap_or(0)
    }

    /// What a storm must see for its result to mean something.
    fn never_happened(&self) -> Vec<String> {
        let mut never: Vec<_> = [
            (Side::Service, Acquire::Created),
            (Side::Service, Acquire::Reused),
            (Side::Service, Acquire::Revived),
            (Side::Service, Acquire::RefusedDying),
            (Side::Client, Acquire::Created),
            (Side::Client, Acquire::Revived),
            (Side::Client, Acquire::Replaced),
        ]
        .into_iter()
        .filter(|(side, outcome)| self.acquired(*side, *outcome) == 0)
        .map(|(side, outcome)| format!("{side:?} {outcome:?}"))
        .collect();
        if self.reaps_lost.load(Ordering::Relaxed) == 0 {
            never.push("ReapLost".to_owned());
        }
        never
    }
}

impl Sink for Events {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Acquired { side, outcome, .. } => {
                *self
                    .acquired
                    .lock()
                    .entry(format!("{side:?} {outcome:?}"))
                    .or_default() += 1;
            }
            Event::Dropped { reason, .. } => *self.dropped.lock().entry(reason.name()).or_default() += 1,
            Event::ReapLost { .. } => drop(self.reaps_lost.fetch_add(1, Ordering::Relaxed)),
            Event::Closed { .. } => drop(self.closed.fetch_add(1, Ordering::Relaxed)),
            Event::Retransmitted { packets, .. } => drop(self.resent.fetch_add(*packets, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Report {
    fn assert_nothing_lost(&self, calls: u64) {
        assert_eq!(self.tally.answered, calls);
        assert_eq!(
            self.executed,
            [0, calls, 0],
            "calls executed never, once, more often"
        );
        assert_eq!(*self.events.dropped.lock(), BTreeMap::new(), "packets dropped");
        assert_eq!((self.tally.refused, self.failed_outgoing), (0, 0));
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let [never, once, again] = self.executed;
        let events = &self.events;
        let of = |outcome| events.acquired(Side::Service, outcome).to_string();
        vec![
            ("calls answered", self.tally.answered.to_string()),
            (
                "calls per second",
                (self.tally.answered * 1000 / self.took_ms()).to_string(),
            ),
            (
                "executed never / once / more often",
                format!("{never} / {once} / {again}"),
            ),
            ("requests sent again", self.tally.resent.to_string()),
            (
                "replies sent again",
                events.resent.load(Ordering::Relaxed).to_string(),
            ),
            (
                "longest wait for an answer",
                format!("{:.0?}", self.tally.longest),
            ),
            ("packets dropped", format!("{:?}", events.dropped.lock())),
            (
                "connections closed",
                events.closed.load(Ordering::Relaxed).to_string(),
            ),
            ("acquired: created", of(Acquire::Created)),
            ("acquired: reused", of(Acquire::Reused)),
            ("acquired: revived", of(Acquire::Revived)),
            ("acquired: refused_dying (superseded)", of(Acquire::RefusedDying)),
            (
                "our own calls: replaced",
                events.acquired(Side::Client, Acquire::Replaced).to_string(),
            ),
            (
                "reaps lost to a revival",
                events.reaps_lost.load(Ordering::Relaxed).to_string(),
            ),
        ]
    }

    fn took_ms(&self) -> u64 {
        u64::try_from(self.took.as_millis()).unwrap().max(1)
    }

    /// Calls that were not executed once, and packets of theirs that found nobody.
    fn lost(&self) -> u64 {
        let [never, _, again] = self.executed;
        never + again + self.tally.resent + self.events.dropped.lock().values().sum::<u64>()
    }
}

const CALLBACK: ServiceId = ServiceId(1);
const THREADS: u64 = 2;
/// Of each thread of callers.
const CONNECTIONS: u32 = 2000;
const EXPIRY: Duration = Duration::from_millis(1);
const RETRIES: usize = 20;
