//! Connections counted and listed, for whoever looks at the endpoint from outside.
//!
//! The machine: counting reads the lists and no connection; listing looks into each connection under its lock for a
//! moment, and into no more of them than was asked for.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::endpoint::{Endpoint, Shared};
use crate::proto::{ConnectionSnapshot, RoundTrip, ServiceId, Side};

/// One connection, as far as it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Which side of it we are.
    pub side: Side,
    /// Scope of the target, empty for service connections.
    pub scope: Arc<str>,
    /// The service it speaks to.
    pub service: ServiceId,
    /// Only the list holds it.
    pub idle: bool,
}

/// One connection, as far as can be told of it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What is counted of it.
    pub counted: Counted,
    /// The other end.
    pub peer: SocketAddrV4,
    /// Time from its making.
    pub age: Duration,
    /// Calls it has carried.
    pub calls: u64,
    /// The round trip, if it was measured.
    pub rtt: Option<RoundTrip>,
    /// What its protocol machine says.
    pub state: ConnectionSnapshot,
}

impl Endpoint {
    /// The connections that there are now, one by one.
    #[must_use]
    pub fn census(&self) -> Vec<Counted> {
        let all = self.connections.snapshot();
        all.iter().map(|conn| counted(conn)).collect()
    }

    /// At most `most` of the connections that there are now, those to servers first, and how many there are.
    #[must_use]
    pub fn list(&self, most: usize) -> (Vec<Listed>, usize) {
        let all = self.connections.snapshot();
        let listed = all.iter().take(most).map(|conn| listed(&self.shared, conn));
        (listed.collect(), all.len())
    }
}

fn counted(conn: &Connection) -> Counted {
    Counted {
        side: conn.side(),
        scope: Arc::clone(conn.scope()),
        service: conn.service,
        idle: conn.life.is_idle(),
    }
}

fn listed(shared: &Shared, conn: &Connection) -> Listed {
    let now_ms = shared.clock.millis(shared.clock.now());
    Listed {
        counted: counted(conn),
        peer: conn.peer.address(),
        age: Duration::from_millis(now_ms.saturating_sub(conn.life.born_ms())),
        calls: conn.calls(),
        rtt: conn.rtt(),
        state: conn.snapshot(),
    }
}
