//! How an endpoint is set up.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::places::Limit;
use crate::proto::{DATAGRAM_USUAL, JUMBO_PARTS, JUMBO_PARTS_MAX};

/// How an endpoint is set up.
#[derive(Clone, Debug)]
pub struct EndpointConfig {
    /// Where it binds; port 0 means any.
    pub bind: SocketAddrV4,
    /// What it answers to a version question; at most 64 bytes are sent.
    pub version: String,
    /// Client connections idle for this long are reaped.
    pub client_idle: Duration,
    /// Service connections idle for this long are reaped.
    pub service_idle: Duration,
    /// Above this many connections of a side the idle ones are reaped after [`fast_idle`](Self::fast_idle).
    pub soft_limit: usize,
    /// See `soft_limit`.
    pub fast_idle: Duration,
    /// Connections that calls to the same target are spread over, from 1; each carries four calls at a time.
    pub connections_per_bundle: usize,
    /// Service connections; who wants another one is told that we are busy.
    pub max_service_connections: Limit,
    /// Service connections from addresses that have not answered us yet; who wants another one is told that we are busy.
    pub max_half_open: Limit,
    /// Calls that are answered or wait for that; who begins another one is told that we are busy.
    pub max_calls: Limit,
    /// Whether calls from an address that has not answered us yet must wait until it has. Without, anybody can have calls
    /// executed in another's name, unless their service asks for a security class.
    pub check_reach: bool,
    /// Packets of a reply that may wait for their reader, from 1 to 255. OpenAFS never sends more than 32 ahead.
    pub receive_window: u8,
    /// The same for requests that we are to answer.
    pub request_window: u8,
    /// Calls answered at the same time; further ones wait their turn.
    pub max_service_calls: usize,
    /// Whether rxdebug is told about connections, peers and counters. The version is always told.
    pub answer_debug: bool,
    /// The largest datagram that peers are told we take, in bytes of UDP payload. If it is more than the usual 1444, they are
    /// told as well that they may search for what the path takes, as Linux does. To peers that take more we send more
    /// whatever this says, as soon as a search has proved that the path does.
    pub max_datagram: u16,
    /// Send several DATA packets in one datagram to peers that say they take it, and say that we do. Leave it off unless
    /// both ends and the network between them are known to be good: the field knows cases of silent corruption, and a
    /// jumbogram that does not fit the path is lost with any of its fragments.
    pub jumbograms: bool,
}

impl EndpointConfig {
    /// Most DATA packets of a datagram that we take.
    pub(super) fn parts_max(&self) -> usize {
        if self.jumbograms {
            JUMBO_PARTS.into()
        } else if self.max_datagram > DATAGRAM_USUAL {
            // Linux fills what it may send with parts.
            JUMBO_PARTS_MAX
        } else {
            1
        }
    }
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0),
            version: concat!("afs-fuse rxrpc ", env!("CARGO_PKG_VERSION")).to_owned(),
            client_idle: Duration::from_mins(2),
            service_idle: Duration::from_mins(10),
            soft_limit: 900,
            fast_idle: Duration::from_secs(2),
            connections_per_bundle: 4,
            max_service_connections: Limit {
                in_all: 20_000,
                per_host: 5_000,
            },
            max_half_open: Limit {
                in_all: 512,
                per_host: 32,
            },
            max_calls: Limit {
                in_all: 4096,
                per_host: 1024,
            },
            check_reach: true,
            receive_window: 255,
            request_window: 32,
            max_service_calls: 2048,
            answer_debug: true,
            max_datagram: DATAGRAM_USUAL,
            jumbograms: false,
        }
    }
}
