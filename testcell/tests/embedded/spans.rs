//! What a call tells whoever traces it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use afs_client::rpc::client::call;
use afs_client::rpc::fs::GetTime;
use rxrpc::events::{NullSink, SPAN_TARGET};
use rxrpc::net::Target;
use rxrpc::proto::{PacketType, ServiceId};
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber as _;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::client::{alone, cell, run};
use super::peer::Peer;
use super::relay::{Passing, Relay, Way, is};

/// Adds up the packets that calls say they have sent again.
#[derive(Default)]
struct Resent {
    packets: Arc<AtomicU64>,
    spans: AtomicU64,
}

/// What an event says.
#[derive(Default)]
struct Said {
    packets: u64,
    resent: bool,
}

impl Visit for Said {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "packets" {
            self.packets = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.resent |= field.name() == "message" && format!("{value:?}") == "retransmitted";
    }
}

impl Subscriber for Resent {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == SPAN_TARGET
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        if said.resent {
            self.packets.fetch_add(said.packets, Ordering::Relaxed);
        }
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn a_call_tells_what_it_had_to_send_again() {
    // What is enabled is a matter of the whole process.
    if !alone("spans::a_call_tells_what_it_had_to_send_again") {
        return;
    }
    run(async {
        let cell = cell(1).await;
        let peer = Peer::watched(&cell, Arc::new(NullSink)).await;
        let lost = Arc::new(AtomicUsize::new(0));
        let losing = Arc::clone(&lost);
        let relay = Relay::before(peer.server, move |passing: Passing| {
            let is_request = passing.0 == Way::ToServer && is(&passing.1, PacketType::Data);
            if is_request && losing.fetch_add(1, Ordering::Relaxed) < 2 {
                return Vec::new();
            }
            vec![passing]
        })
        .await;
        let resent = Resent::default();
        let packets = Arc::clone(&resent.packets);
        let target = Target::new(relay.address, ServiceId(1));
        let asked = call(&peer.endpoint, &target, &GetTime {});
        asked.with_subscriber(resent).await.unwrap();
        // On a slow machine also what was not lost.
        assert!(packets.load(Ordering::Relaxed) >= 2);
        peer.endpoint.shutdown().await;
        cell.shutdown().await;
    });
}
