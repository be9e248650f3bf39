//! Spans of what is done for one request, for whoever traces it.
//!
//! The machine: a request that is traced runs inside a span, and what is done for it makes spans below that one. Outside of
//! such a span none is made, so requests that are not traced pay for one look at the current span in each call. AFS has no
//! place for the number of a trace: epoch, connection id and call number find the same call in packets and at the server.

use std::fmt::Display;
use std::net::SocketAddrV4;

use rxrpc::events::{Acquire, SPAN_TARGET};
use rxrpc::net::{ClientCall, Target};
use tracing::Span;
use tracing::field::Empty;

use crate::rpc::client::RpcError;

/// A span below the current one; none if there is none.
macro_rules! child {
    ($($field:tt)*) => {
        if tracing::Span::current().is_none() {
            tracing::Span::none()
        } else {
            tracing::info_span!(target: rxrpc::events::SPAN_TARGET, $($field)*)
        }
    };
}

pub(crate) use child;

/// The span of a call (semantic conventions of OpenTelemetry for RPC).
pub(crate) fn rpc(target: &Target, procedure: &'static str) -> Span {
    child!(
        "rpc",
        otel.name = %format_args!("{}/{procedure}", service(target)),
        otel.kind = "client",
        otel.status_code = Empty,
        rpc.system = "rxrpc",
        rpc.service = service(target),
        rpc.method = procedure,
        server.address = %target.peer.ip(),
        server.port = target.peer.port(),
        network.transport = "udp",
        error.type = Empty,
        rx.epoch = Empty,
        rx.connection.id = Empty,
        rx.call.number = Empty,
    )
}

/// The span of a call's wait for its connection.
pub(crate) fn acquire() -> Span {
    child!("conn.acquire", rx.acquire.outcome = Empty)
}

/// A call has its connection.
pub(crate) fn acquired(acquire: &Span, call: &ClientCall) {
    if acquire.is_none() {
        return;
    }
    let outcome = match call.acquired() {
        Acquire::Created => "created",
        Acquire::Reused => "reused",
        Acquire::Revived => "revived",
        Acquire::Replaced => "replaced",
        Acquire::RefusedDying => "refused_dying",
    };
    acquire.record("rx.acquire.outcome", outcome);
    let (rpc, id) = (Span::current(), call.id());
    rpc.record("rx.epoch", format_args!("{:08x}", id.epoch.0).to_string());
    rpc.record("rx.connection.id", format_args!("{:08x}", id.cid).to_string());
    rpc.record("rx.call.number", id.number.0);
}

/// A call has ended.
pub(crate) fn ended<T>(rpc: &Span, result: &Result<T, RpcError>) {
    if let (false, Err(error)) = (rpc.is_none(), result) {
        rpc.record("otel.status_code", "ERROR");
        rpc.record("error.type", error.to_string());
    }
}

/// A break has come: a trace of its own.
pub(crate) fn callback_break(objects: usize) -> Span {
    tracing::info_span!(
        target: SPAN_TARGET,
        parent: None,
        "callback.break",
        otel.kind = "consumer",
        afs.objects = objects,
    )
}

/// A server has said that it remembers no promise: a trace of its own.
pub(crate) fn promises_forgotten(peer: SocketAddrV4) -> Span {
    tracing::info_span!(
        target: SPAN_TARGET,
        parent: None,
        "callback.init_state",
        otel.kind = "consumer",
        server.address = %peer.ip(),
        server.port = peer.port(),
        afs.objects = Empty,
    )
}

/// What the current trace is about counts no more, and so do the promises that these requests may get.
pub(crate) fn undone(what: impl Display, requests: impl FnOnce() -> Vec<tracing::Id>) {
    let span = Span::current();
    if span.is_none() {
        return;
    }
    tracing::info!(target: SPAN_TARGET, %what, "invalidated");
    for request in requests() {
        span.follows_from(request);
    }
}

const fn service(target: &Target) -> &'static str {
    match target.service.0 {
        1 => "RXAFS",
        52 => "VL",
        73 => "PR",
        _ => "other",
    }
}
