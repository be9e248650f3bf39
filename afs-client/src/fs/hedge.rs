//! Asking a second replica when the first is slow.
//!
//! The machine: a call that changes nothing, to a server of a read-only volume, has as long as 19 of 20 calls to that server
//! have taken of late. Then the next best replica is asked too, if there is one and the budget allows it. The first good
//! answer counts, and the other call is given up.

use std::pin::pin;

use super::core::{Caller, Noted};
use crate::op::{Attempt, Rotation};
use crate::rpc::Procedure;
use crate::rpc::client::{RpcError, call};
use crate::vnode::Vnode;

impl Caller {
    /// Makes a call, and if the server is slow the same one to another replica. Gives the attempt that was answered, and what
    /// was noted before it.
    pub(super) async fn call_hedged<P: Procedure>(
        &self,
        vnode: &Vnode,
        rotation: &Rotation<'_>,
        attempt: Attempt,
        request: &P,
    ) -> (Attempt, Noted, Result<P::Reply, RpcError>) {
        let noted = self.note(vnode, &attempt);
        let target = attempt.target.clone();
        let mut first = pin!(call(&self.endpoint, &target, request));
        let Some(patience) = rotation.patience(&attempt) else {
            return (attempt, noted, first.await);
        };
        if let Ok(result) = tokio::time::timeout(patience, &mut first).await {
            return (attempt, noted, result);
        }
        let Some(second) = rotation.second(&attempt) else {
            return (attempt, noted, first.await);
        };
        let second_noted = self.note(vnode, &second);
        let target = second.target.clone();
        let mut other = pin!(call(&self.endpoint, &target, request));
        let early = tokio::select! {
            result = &mut first => Ok(result),
            result = &mut other => Err(result),
        };
        match early {
            Ok(Err(error)) => match other.await {
                Ok(reply) => (second, second_noted, Ok(reply)),
                Err(_) => (attempt, noted, Err(error)),
            },
            Ok(result) => (attempt, noted, result),
            Err(Ok(reply)) => {
                // It would have taken at least so long.
                rotation.overtaken(&attempt);
                (second, second_noted, Ok(reply))
            }
            Err(Err(_)) => (attempt, noted, first.await),
        }
    }
}
