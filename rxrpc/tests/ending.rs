//! What is left of two endpoints that were shut down, or whose runtime has ended: nothing, once nobody has a handle or a call.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod common;

use std::net::{SocketAddrV4, UdpSocket};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rxrpc::net::{ClientCall, Endpoint, Service, ServiceCall, Target};
use rxrpc::proto::{CallError, ServiceId, Side};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use common::{Counts, echo, local, pair, pattern};

const HANDED_ON: ServiceId = ServiceId(8);

/// Hands its calls on to somebody else.
struct HandsOn(UnboundedSender<ServiceCall>);

impl Service for HandsOn {
    fn handle(&self, call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.send(call).unwrap();
        Box::pin(async {})
    }
}

/// Has its endpoint at hand, as one that calls back does.
struct CallsBack(Endpoint);

impl Service for CallsBack {
    fn handle(&self, call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (endpoint, target) = (self.0.clone(), Target::new(call.peer(), HANDED_ON));
        Box::pin(async move { drop(endpoint.call(&target).await) })
    }
}

/// What shows whether anything is left.
struct Traces {
    ports: [SocketAddrV4; 2],
    /// Both endpoints and their connections tell it what happens.
    sink: Weak<Counts>,
}

impl Traces {
    fn of(ends: &[Endpoint; 2], counts: &Arc<Counts>) -> Self {
        Self {
            ports: ends.each_ref().map(Endpoint::local_addr),
            sink: Arc::downgrade(counts),
        }
    }

    fn are_gone(&self) -> bool {
        self.sink.strong_count() == 0 && self.ports.iter().all(|port| UdpSocket::bind(port).is_ok())
    }

    /// Tasks that were stopped end in their time.
    async fn vanish(&self) {
        let gone = async {
            while !self.are_gone() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone)
            .await
            .expect("something is left");
    }
}

/// Two endpoints with an idle connection, and a call on another that both ends hold.
async fn in_mid_call() -> (Traces, [Endpoint; 2], ClientCall, ServiceCall) {
    let (client, server, target, counts) = pair(local()).await;
    assert_eq!(echo(&client, &target, pattern(10)).await, Ok(pattern(10)));
    let (to, mut calls) = unbounded_channel();
    server.serve(HANDED_ON, Arc::new(HandsOn(to)));
    let target = Target {
        service: HANDED_ON,
        ..target
    };
    let mut asked = client.call(&target).await.unwrap();
    asked.send_last(pattern(10)).await.unwrap();
    let answered = calls.recv().await.unwrap();
    let ends = [client, server];
    (Traces::of(&ends, &counts), ends, asked, answered)
}

fn active([client, server]: &[Endpoint; 2]) -> [usize; 2] {
    [
        client.connections(Side::Client),
        server.connections(Side::Service),
    ]
    .map(|count| count.active)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_dropped_after_the_handles_leaves_nothing() {
    let (traces, ends, mut asked, answered) = in_mid_call().await;
    tokio::join!(ends[0].shutdown(), ends[1].shutdown());
    assert_eq!(active(&ends), [1, 1], "the calls hold their connections");
    drop(ends);
    assert_eq!(asked.recv().await, Err(CallError::Shutdown));
    drop((asked, answered));
    traces.vanish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_dropped_before_the_handles_leaves_nothing() {
    let (traces, ends, asked, answered) = in_mid_call().await;
    tokio::join!(ends[0].shutdown(), ends[1].shutdown());
    assert_eq!(active(&ends), [1, 1], "the calls hold their connections");
    drop((asked, answered));
    assert_eq!(active(&ends), [0, 0]);
    drop(ends);
    traces.vanish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_has_its_endpoint_at_hand_goes_with_the_shutdown() {
    let (client, server, _, counts) = pair(local()).await;
    server.serve(HANDED_ON, Arc::new(CallsBack(server.clone())));
    let ends = [client, server];
    let traces = Traces::of(&ends, &counts);
    drop(counts);
    tokio::join!(ends[0].shutdown(), ends[1].shutdown());
    drop(ends);
    traces.vanish().await;
}

/// Nobody shuts anything down. What the connections were busy with, calls and a reply that nobody has acknowledged, stands still.
#[test]
fn a_runtime_that_ends_leaves_nothing() {
    for replied in [false, true] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (traces, ends, asked, mut answered) = runtime.block_on(in_mid_call());
        if replied {
            runtime.block_on(answered.send_last(pattern(10))).unwrap();
        }
        drop(runtime);
        drop(answered);
        // The echo may be unacknowledged too.
        let [asking, answering] = active(&ends);
        assert!(asking >= 1 && answering >= usize::from(replied));
        assert!(!traces.are_gone());
        drop((ends, asked));
        assert!(traces.are_gone(), "replied: {replied}");
    }
}
