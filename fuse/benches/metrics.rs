//! What metrics cost: calls that are counted beside calls that are not, and a page of all there is.
//!
//! The machine: two clients call one service on one runtime, alike but for their sinks: one counts nothing, one is the program's
//! own. They take short turns, in another order each time; of each pair of neighbours the ratio of the rates counts, and of those the
//! median. All are made anew several times, because two that are alike differ by a hundredth for as long as they live. The service
//! counts nothing: that of a mount is on another machine. Then pages are made: of what a mount has that did nothing yet, and of one
//! that has seen everything of four cells.

#![allow(
    missing_docs,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used
)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use afs_client::rpc::{cb, fs, vl};
use bytes::Bytes;
use fuse::telemetry::metrics::Metrics;
use fuse::telemetry::op::Op;
use rxrpc::events::{Acquire, CallResult, CloseReason, Event, NullSink, Sink};
use rxrpc::net::{Endpoint, EndpointConfig, Service, ServiceCall, Target};
use rxrpc::proto::{AbortCode, SecurityIndex, ServiceId, Side};
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = Runtime::new().unwrap();
    let mut ratios: Vec<_> = (0..STANDS).flat_map(|_| runtime.block_on(turns())).collect();
    ratios.sort_by(f64::total_cmp);
    let within = ratios.get(ratios.len() / 2).copied().unwrap();
    let mut met = wanted(
        "calls that are counted, of the rate of others",
        within,
        within >= 0.98,
        ">= 0.98",
    );

    let idle = Metrics::new().unwrap();
    let loaded = Metrics::new().unwrap();
    load(&loaded);
    for (name, metrics, most) in [
        ("idle", &idle, 64.0),
        ("loaded, four cells", &loaded, f64::INFINITY),
    ] {
        let page = metrics.render().unwrap();
        let series = page.lines().filter(|line| !line.starts_with('#')).count();
        let (size, took) = (page.len() as f64 / 1024.0, page_time(metrics));
        println!("{name}: {series} series");
        met &= wanted("  KiB", size, size < most, &format!("< {most}"));
        met &= wanted("  ms to make a page, the median", took, took < 5.0, "< 5");
    }
    ExitCode::from(u8::from(!met))
}

fn wanted(what: &str, is: f64, met: bool, wanted: &str) -> bool {
    let verdict = if met { "" } else { "  MISSED" };
    println!("{what}: {is:.3} (wanted: {wanted}){verdict}");
    met
}

/// The rates of those that are counted, relative to their neighbours.
async fn turns() -> Vec<f64> {
    let config = EndpointConfig {
        bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        ..EndpointConfig::default()
    };
    let bind = |sink: Arc<dyn Sink>| Endpoint::bind(config.clone(), sink);
    let server = bind(Arc::new(NullSink)).await.unwrap();
    server.serve(FS, Arc::new(Answers));
    let plain = bind(Arc::new(NullSink)).await.unwrap();
    let counted = bind(Arc::new(Metrics::new().unwrap())).await.unwrap();
    let target = Target {
        scope: Arc::from("lab.example"),
        ..Target::new(server.local_addr(), FS)
    };
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let (counted_time, plain_time) = if round % 2 == 0 {
            let counted = calls(&counted, &target).await;
            (counted, calls(&plain, &target).await)
        } else {
            let plain = calls(&plain, &target).await;
            (calls(&counted, &target).await, plain)
        };
        // The first warms up.
        if round > 0 {
            ratios.push(plain_time.as_secs_f64() / counted_time.as_secs_f64());
        }
    }
    ratios
}

/// The time of so many calls, one after the other.
async fn calls(client: &Endpoint, target: &Target) -> Duration {
    let from = Instant::now();
    for _ in 0..CALLS {
        let mut call = client.call(target).await.unwrap().named("FetchStatus");
        call.send(Bytes::from_static(&REQUEST)).await.unwrap();
        call.finish().unwrap();
        assert_eq!(call.recv().await.unwrap().as_deref(), Some(REPLY.as_slice()));
        assert_eq!(call.recv().await.unwrap(), None);
    }
    from.elapsed()
}

/// Answers with as much as the status of a file takes.
struct Answers;

impl Service for Answers {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while let Ok(Some(_)) = call.recv().await {}
            call.send(Bytes::from_static(&REPLY)).await.unwrap();
            call.finish().unwrap();
        })
    }
}

/// Every procedure of every service in four cells, with every end that it can come to, and every operation of the kernel.
fn load(metrics: &Metrics) {
    let services = [
        (Side::Client, FS, fs::PROCEDURES),
        (Side::Client, ServiceId(52), vl::PROCEDURES),
        (Side::Service, ServiceId(1), cb::PROCEDURES),
    ];
    for cell in ["a.example", "b.example", "c.example", "d.example"] {
        let scope = Arc::from(cell);
        for (side, service, procedures) in services {
            for outcome in [
                Acquire::Created,
                Acquire::Reused,
                Acquire::Revived,
                Acquire::Replaced,
                Acquire::RefusedDying,
            ] {
                for security in [0, 2, 4].map(SecurityIndex) {
                    let scope = &scope;
                    metrics.event(&Event::Acquired {
                        side,
                        scope,
                        service,
                        security,
                        outcome,
                    });
                }
            }
            for reason in [
                CloseReason::IdleReaped,
                CloseReason::Aborted,
                CloseReason::PeerDead,
            ] {
                let (scope, age, calls) = (&scope, Duration::from_secs(30), 4);
                metrics.event(&Event::Closed {
                    side,
                    scope,
                    service,
                    reason,
                    age,
                    calls,
                });
            }
            for (_, name) in procedures {
                for result in [
                    CallResult::Ok,
                    CallResult::Aborted(AbortCode(13)),
                    CallResult::TimedOut,
                    CallResult::NetworkError,
                ] {
                    let (scope, duration, window) = (&scope, Duration::from_millis(3), Some(10));
                    metrics.event(&Event::CallEnded {
                        side,
                        scope,
                        service,
                        name,
                        result,
                        duration,
                        window,
                    });
                }
            }
        }
    }
    for op in Op::ALL {
        for result in [Ok(()), Err(2), Err(13), Err(110)] {
            metrics.fuse_done(*op, result, Duration::from_micros(80));
        }
    }
}

/// Milliseconds to make one, the median.
fn page_time(metrics: &Metrics) -> f64 {
    let mut times: Vec<_> = (0..PAGES)
        .map(|_| {
            let from = Instant::now();
            assert!(!metrics.render().unwrap().is_empty());
            from.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times.get(PAGES / 2).copied().unwrap()
}

const FS: ServiceId = ServiceId(1);
const REQUEST: [u8; 16] = [0, 0, 0, 132, 0x20, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
const REPLY: [u8; 148] = [1; 148];
const CALLS: usize = 1_000;
const ROUNDS: usize = 31;
const STANDS: usize = 10;
const PAGES: usize = 101;
