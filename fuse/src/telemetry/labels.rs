//! The values of labels: closed sets, each written once.

use afs_client::codes;
use rxrpc::events::{Acquire, CloseReason};
use rxrpc::proto::{AbortCode, PacketType, SecurityIndex, ServiceId, Side};
use rxrpc::security::rxkad;

use super::op::result_name;

/// The number of rxkad on the wire.
const RXKAD: u8 = rxkad::INDEX.0;

pub(super) const fn direction(sent: bool) -> &'static str {
    if sent { "tx" } else { "rx" }
}

pub(crate) const fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Service => "service",
    }
}

pub(super) const fn packet_slot(packet_type: PacketType) -> (usize, &'static str) {
    match packet_type {
        PacketType::Data => (0, "data"),
        PacketType::Ack => (1, "ack"),
        PacketType::Abort => (2, "abort"),
        PacketType::Busy => (3, "busy"),
        PacketType::Challenge => (4, "challenge"),
        PacketType::Response => (5, "response"),
        PacketType::Version => (6, "version"),
        PacketType::Debug => (7, "debug"),
        _ => (8, "other"),
    }
}

pub(crate) const fn service_name(side: Side, service: ServiceId) -> &'static str {
    service_slot(side, service).1
}

pub(super) const fn service_slot(side: Side, service: ServiceId) -> (usize, &'static str) {
    match (side, service.0) {
        (Side::Client, 1) => (0, "fs"),
        (Side::Service, 1) => (1, "cb"),
        (_, 52) => (2, "vl"),
        (_, 73) => (3, "pr"),
        _ => (4, "other"),
    }
}

/// How many slots there are of services.
pub(super) const SERVICES: usize = 5;

pub(crate) const fn security_name(security: SecurityIndex) -> &'static str {
    match security.0 {
        0 => "none",
        RXKAD => "rxkad",
        _ => "other",
    }
}

/// The name of an abort code: as servers call it, or that of the errno that it is.
pub(super) fn code_name(code: AbortCode) -> &'static str {
    codes::name(code)
        .or_else(|| result_name(code.0))
        .unwrap_or("other")
}

pub(super) const fn acquire_name(outcome: Acquire) -> &'static str {
    match outcome {
        Acquire::Created => "created",
        Acquire::Reused => "reused",
        Acquire::Revived => "revived",
        Acquire::Replaced => "replaced",
        Acquire::RefusedDying => "refused_dying",
    }
}

pub(super) const fn close_name(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::IdleReaped => "idle_reaped",
        CloseReason::CallNumbersExhausted => "callno_exhausted",
        CloseReason::Aborted => "aborted",
        CloseReason::PeerDead => "peer_dead",
        CloseReason::OverLimit => "over_limit",
        CloseReason::Shutdown => "shutdown",
    }
}

/// The names of `errno.h` that ICMP is translated to (Linux `icmp_err_convert`).
pub(super) const fn network_error(errno: i32) -> &'static str {
    match errno {
        90 => "too_large",
        101 => "network_unreachable",
        111 => "refused",
        112 => "host_down",
        113 => "host_unreachable",
        _ => "other",
    }
}
