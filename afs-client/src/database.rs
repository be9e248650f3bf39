//! Asking the database servers of a cell: one after the other, until one answers.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rxrpc::net::{Endpoint, Target};
use rxrpc::proto::{CallError, CallLimits};
use rxrpc::security::Security;

use crate::cell::Cell;
use crate::clock;
use crate::rpc::Procedure;
use crate::rpc::client::{RpcError, call};
use crate::rpc::vl;

/// Who asks which service of a cell's database servers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Database<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) cell: &'a Cell,
    /// The port of the service, if it is not the location service.
    pub(crate) port: Option<u16>,
    pub(crate) security: &'a Security,
}

impl Database<'_> {
    /// Asks each of the servers, twice at the most. Cancel safe if the procedure may be made twice.
    ///
    /// # Errors
    ///
    /// None answers before the deadline, or one refuses.
    pub(crate) async fn ask<P: Procedure>(
        &self,
        request: &P,
        deadline: Instant,
    ) -> Result<P::Reply, RpcError> {
        let mut last = RpcError::Transport(CallError::TimedOut);
        for (server, reach) in self.cell.known().chain(self.cell.known()) {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                break;
            }
            let limits = CallLimits {
                dead_in: left.min(DEAD_IN),
                idle_in: None,
                hard_in: Some(left.min(DEAD_IN * 2)),
            };
            let port = self.port.unwrap_or_else(|| server.port());
            let target = Target {
                scope: Arc::clone(self.cell.name.shared()),
                limits,
                security: self.security.clone(),
                ..Target::new(SocketAddrV4::new(*server.ip(), port), P::SERVICE)
            };
            let answer = call(self.endpoint, &target, request).await;
            // Of another service of the host it says nothing.
            let reach = reach.filter(|_| self.port.is_none());
            if let Some(reach) = reach {
                let changed = match &answer {
                    Err(RpcError::Transport(_)) => reach.mark_down(target.peer, clock::now()),
                    _ => reach.mark_up(target.peer, clock::now()),
                };
                if let Some(changed) = changed {
                    tracing::info!(server = %target.peer, cell = %self.cell.name, ?changed, "location server");
                }
            }
            match answer {
                Err(error @ RpcError::Transport(_)) => last = error,
                // No quorum, or trouble with the database: another server may do better (afs-rpc.md 7.3).
                Err(RpcError::Aborted(code)) if matches!(code.0, 5376..=5630 | vl::IO | -1_000..=-1) => {
                    last = RpcError::Aborted(code);
                }
                answer => return answer,
            }
        }
        Err(last)
    }
}

const DEAD_IN: Duration = Duration::from_secs(10);
