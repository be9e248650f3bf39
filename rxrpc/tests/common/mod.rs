//! What the tests on loopback share: two endpoints with an echo, and a [stranger](stranger) who speaks bare packets.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod stranger;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rxrpc::events::{Acquire, Event, Sink};
use rxrpc::net::{Endpoint, EndpointConfig, Service, ServiceCall, Target};
use rxrpc::proto::{AbortCode, CallError, CallLimits, DropReason, ServiceId, Side};

pub(crate) const ECHO: ServiceId = ServiceId(7);

/// Answers with what it was sent; an empty request is refused.
pub(crate) struct Echo;

impl Service for Echo {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut request = Vec::new();
            while let Ok(Some(data)) = call.recv().await {
                request.push(data);
            }
            if request.iter().all(Bytes::is_empty) {
                return call.abort(AbortCode(42));
            }
            for data in request {
                if call.send(data).await.is_err() {
                    return;
                }
            }
            let _ = call.finish();
        })
    }
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) acquired: Mutex<HashMap<(Side, Acquire), u64>>,
    pub(crate) dropped: Mutex<Vec<&'static str>>,
    pub(crate) closed: Mutex<u64>,
}

impl Counts {
    pub(crate) fn acquired(&self, side: Side, outcome: Acquire) -> u64 {
        self.acquired
            .lock()
            .unwrap()
            .get(&(side, outcome))
            .copied()
            .unwrap_or(0)
    }
}

impl Counts {
    /// How many packets were dropped for this reason.
    pub(crate) fn dropped(&self, reason: impl Into<DropReason>) -> usize {
        let name = reason.into().name();
        self.dropped
            .lock()
            .unwrap()
            .iter()
            .filter(|dropped| **dropped == name)
            .count()
    }
}

impl Sink for Counts {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Acquired { side, outcome, .. } => {
                *self
                    .acquired
                    .lock()
                    .unwrap()
                    .entry((*side, *outcome))
                    .or_default() += 1;
            }
            Event::Dropped { reason, .. } => self.dropped.lock().unwrap().push(reason.name()),
            Event::Closed { .. } => *self.closed.lock().unwrap() += 1,
            _ => {}
        }
    }
}

pub(crate) fn local() -> EndpointConfig {
    EndpointConfig {
        bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        ..EndpointConfig::default()
    }
}

pub(crate) async fn pair(config: EndpointConfig) -> (Endpoint, Endpoint, Target, Arc<Counts>) {
    let counts = Arc::new(Counts::default());
    let server = Endpoint::bind(config.clone(), Arc::clone(&counts) as Arc<dyn Sink>)
        .await
        .unwrap();
    server.serve(ECHO, Arc::new(Echo));
    let client = Endpoint::bind(config, Arc::clone(&counts) as Arc<dyn Sink>)
        .await
        .unwrap();
    let target = Target {
        scope: Arc::from("test"),
        limits: CallLimits {
            dead_in: Duration::from_secs(10),
            ..CallLimits::default()
        },
        ..Target::new(server.local_addr(), ECHO)
    };
    (client, server, target, counts)
}

pub(crate) async fn echo(client: &Endpoint, target: &Target, request: Bytes) -> Result<Bytes, CallError> {
    let mut call = client.call(target).await?;
    call.send(request).await?;
    call.finish()?;
    let mut reply = BytesMut::new();
    while let Some(data) = call.recv().await? {
        reply.extend_from_slice(&data);
    }
    Ok(reply.freeze())
}

pub(crate) fn pattern(len: usize) -> Bytes {
    (0..len).map(|at| (at * 31 + at / 251) as u8).collect()
}
