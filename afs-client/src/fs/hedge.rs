//! Asking a second replica when the first is slow.
//!
//! The machine: a call that changes nothing, to a server of a read-only volume, has as long as 19 of 20 calls to that server
//! have taken of late. Then the next best replica is asked too, if there is one and the budget allows it. The first good
//! answer counts, and the other call is given up. File data that somebody waits for is as late as its first byte: whoever
//! sends that has won, and nothing that the other one sends is looked at, so that what they have is never mixed.

use std::io;
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use super::core::{Caller, Noted};
use crate::clock;
use crate::op::{Attempt, Rotation};
use crate::rpc::Procedure;
use crate::rpc::client::{RpcError, call, fetch_data};
use crate::rpc::fs::{FetchDataArgs, FetchDataReply};
use crate::store::Fill;
use crate::vnode::Vnode;

/// What a fetch has come to: how many bytes there were, and what the server says about the file.
pub(super) type Fetched = Result<(u64, FetchDataReply), RpcError>;

/// One piece of a file that is asked for, of one replica or of two.
struct Piece<'a> {
    request: &'a FetchDataArgs,
    fill: &'a Fill,
    /// Whose bytes are taken.
    winner: OnceLock<Turn>,
    won: Notify,
}

/// Which of two calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    Second,
}

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

    /// Fetches a piece that nobody waits for yet.
    pub(super) async fn fetch_alone(
        &self,
        attempt: &Attempt,
        request: &FetchDataArgs,
        fill: &Fill,
    ) -> Fetched {
        self.transfer(&Piece::new(request, fill), attempt, Turn::First)
            .await
    }

    /// Fetches a piece that somebody waits for, and if the server is slow to begin with it, asks another replica for it too.
    /// Gives the attempt that has won, what was noted before it, and what it came to.
    pub(super) async fn fetch_hedged(
        &self,
        vnode: &Vnode,
        rotation: &Rotation<'_>,
        attempt: Attempt,
        request: &FetchDataArgs,
        fill: &Fill,
    ) -> (Attempt, Noted, Fetched) {
        let noted = self.note(vnode, &attempt);
        let piece = Piece::new(request, fill);
        let mut first = Box::pin(self.transfer(&piece, &attempt, Turn::First));
        let Some(patience) = rotation.patience(&attempt) else {
            let fetched = first.await;
            return (attempt, noted, fetched);
        };
        let early = tokio::select! {
            fetched = &mut first => Some(fetched),
            () = piece.won.notified() => Some(first.as_mut().await),
            () = clock::sleep_until(attempt.at + patience) => None,
        };
        if let Some(fetched) = early {
            drop(first);
            return (attempt, noted, fetched);
        }
        let Some(second) = rotation.second(&attempt) else {
            let fetched = first.await;
            return (attempt, noted, fetched);
        };
        let second_noted = self.note(vnode, &second);
        let other = Box::pin(self.transfer(&piece, &second, Turn::Second));
        match piece.raced(first, other).await {
            (Turn::First, fetched) => (attempt, noted, fetched),
            (Turn::Second, fetched) => {
                if fetched.is_ok() {
                    // It would have taken at least so long.
                    rotation.overtaken(&attempt);
                }
                (second, second_noted, fetched)
            }
        }
    }

    async fn transfer(&self, piece: &Piece<'_>, attempt: &Attempt, turn: Turn) -> Fetched {
        let (server, request) = (&attempt.server, piece.request);
        let got = AtomicU64::new(0);
        let sending = server.begin_sending(attempt.at, request.length);
        let mut sink = |at, parts: &[Bytes]| {
            if got.load(Ordering::Relaxed) == 0 {
                if !piece.is_won_by(turn) {
                    // The call is about to be given up.
                    return Err(io::ErrorKind::Interrupted.into());
                }
                server.record_first_byte(clock::now().saturating_duration_since(attempt.at));
            }
            let more = parts.iter().map(|part| part.len() as u64).sum();
            got.fetch_add(more, Ordering::Relaxed);
            piece.fill.put(at, parts)
        };
        let fetched = fetch_data(&self.endpoint, &attempt.target, request, &mut sink).await;
        sending.end(clock::now(), got.load(Ordering::Relaxed));
        fetched
    }
}

impl<'a> Piece<'a> {
    fn new(request: &'a FetchDataArgs, fill: &'a Fill) -> Self {
        Self {
            request,
            fill,
            winner: OnceLock::new(),
            won: Notify::new(),
        }
    }

    /// Lets two calls go on until one of them has begun; the other one is given up then.
    async fn raced<F, S>(&self, mut first: Pin<Box<F>>, mut second: Pin<Box<S>>) -> (Turn, Fetched)
    where
        F: Future<Output = Fetched>,
        S: Future<Output = Fetched>,
    {
        let early = tokio::select! {
            fetched = &mut first => Some((Turn::First, fetched)),
            fetched = &mut second => Some((Turn::Second, fetched)),
            () = self.won.notified() => None,
        };
        let has_won = |turn| self.winner.get() == Some(&turn);
        match early {
            Some((turn, fetched)) if fetched.is_ok() || has_won(turn) => (turn, fetched),
            // Nothing of it has counted.
            Some((Turn::First, failed)) => match second.await {
                fetched if fetched.is_ok() || has_won(Turn::Second) => (Turn::Second, fetched),
                _ => (Turn::First, failed),
            },
            Some((Turn::Second, _)) => (Turn::First, first.await),
            None if has_won(Turn::Second) => {
                drop(first);
                (Turn::Second, second.await)
            }
            None => {
                drop(second);
                (Turn::First, first.await)
            }
        }
    }

    /// The first byte has come to this call: is it the one whose bytes are taken?
    fn is_won_by(&self, turn: Turn) -> bool {
        let won = *self.winner.get_or_init(|| turn) == turn;
        if won {
            self.won.notify_one();
        }
        won
    }
}
