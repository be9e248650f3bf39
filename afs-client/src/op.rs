//! The one loop in which file servers are tried: which is next, what an error means, and when to give up.
//!
//! The machine: a [`Rotation`] belongs to one operation. The operation asks it for an [`Attempt`], makes the call, and
//! reports an error back; the rotation then waits, looks the volume up again or marks a server down, and offers the next
//! attempt, or fails for good. `decide` is the whole table. No operation outlives its deadline.

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rxrpc::net::Target;
use rxrpc::proto::{CallError, CallLimits, ServiceId};
use rxrpc::security::rxkad::Fault;

use crate::auth::tokens::{Proof, ProofId};
use crate::clock;
use crate::error::{Error, vice};
use crate::events::{Misfit, Retry};
use crate::history::{About, History, Record};
use crate::rpc::client::RpcError;
use crate::rpc::types::FetchStatus;
use crate::server::{Change, Server};
use crate::types::DataVersion;
use crate::volume::{Volume, VolumeKind, Volumes};

/// May a call whose outcome is unknown be made again?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It changes nothing.
    Reading,
    /// It changes something, and doing it twice is the same as once.
    Idempotent,
    /// Twice is not once.
    Modifying,
}

/// One try.
#[derive(Debug)]
pub struct Attempt {
    /// The server.
    pub server: Arc<Server>,
    /// Where and how it is called.
    pub target: Target,
    /// When it was offered.
    pub at: Instant,
    /// What it is made with.
    pub(crate) proof: ProofId,
    record: Record,
}

/// What to do about a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// Report the error.
    Fail,
    /// The address does not answer: try another one, or another server.
    Down,
    /// Wait and try again, here or elsewhere.
    Wait,
    /// Ask where the volume is, and try again.
    Relocate,
    /// Another copy may be better.
    Elsewhere,
    /// The server makes no sense: another copy, if there is one.
    Distrust,
    /// Try once more, on a new connection.
    Reconnect,
}

impl Action {
    /// As what the next try is counted; `None` if there is none.
    const fn retry(self) -> Option<Retry> {
        match self {
            Self::Fail => None,
            Self::Down => Some(Retry::NoAnswer),
            Self::Wait => Some(Retry::Busy),
            Self::Relocate => Some(Retry::Moved),
            Self::Elsewhere => Some(Retry::ReadError),
            Self::Distrust => Some(Retry::Nonsense),
            Self::Reconnect => Some(Retry::Security),
        }
    }
}

impl Class {
    /// Whether it may.
    const fn may_repeat(self) -> bool {
        !matches!(self, Self::Modifying)
    }
}

/// Is this the fault of the server, or of the way to it, and not of what was asked?
fn is_failure(error: &RpcError) -> bool {
    match error {
        RpcError::Aborted(code) => matches!(
            code.0,
            vice::RESTARTING | vice::NO_SERVICE | vice::IO | UAE_IO | -3 | -1
        ),
        RpcError::Transport(error) => !matches!(error, CallError::Shutdown | CallError::Protocol(_)),
        RpcError::Cache(_) => false,
        _ => error.is_nonsense(),
    }
}

fn decide(error: &RpcError, class: Class, kind: VolumeKind) -> Action {
    if let Some(fault) = error.fault() {
        let may_have_worked = fault.is_of_packet() && !class.may_repeat();
        return if fault.is_of_ticket() || may_have_worked {
            Action::Fail
        } else {
            Action::Reconnect
        };
    }
    match error {
        RpcError::Aborted(code) => match code.0 {
            vice::BUSY | vice::RESTARTING => Action::Wait,
            vice::NO_VOLUME | vice::MOVED | vice::OFFLINE | vice::SALVAGE | vice::SALVAGING => {
                Action::Relocate
            }
            vice::NO_SERVICE | -3 if class.may_repeat() => Action::Wait,
            vice::IO | UAE_IO if kind.is_read_only() => Action::Elsewhere,
            // Rx gave up on the other side: as good as no answer.
            -1 if class.may_repeat() => Action::Wait,
            _ => Action::Fail,
        },
        // The request did not reach the server whole.
        RpcError::Transport(CallError::Unreachable(_)) => Action::Down,
        RpcError::Transport(CallError::CallLost) => Action::Wait,
        RpcError::Transport(CallError::PeerDead | CallError::PathBroken(_) | CallError::TimedOut)
            if class.may_repeat() =>
        {
            Action::Down
        }
        error if error.is_nonsense() && kind.is_read_only() => Action::Distrust,
        RpcError::Transport(_)
        | RpcError::Reply(_)
        | RpcError::Status(_)
        | RpcError::TooMuchData(_)
        | RpcError::TooLittleData { .. }
        | RpcError::Cache(_) => Action::Fail,
    }
}

/// The tries of one operation.
#[derive(Debug)]
pub struct Rotation<'a> {
    volumes: &'a Volumes,
    volume: Arc<Volume>,
    history: &'a History,
    about: About,
    class: Class,
    deadline: Instant,
    /// Data is moved: the call may take long as long as it moves.
    bulk: bool,
    /// Whichever replica has sent so many bytes first will do.
    spread: Option<u64>,
    /// Addresses that failed in this operation.
    tried: Vec<SocketAddrV4>,
    /// Where the last try failed, and why there is another one.
    failed: Option<(SocketAddrV4, Retry)>,
    reconnected: bool,
    /// How often there was nobody to ask at once.
    pauses: u32,
    last: Option<Error>,
    relocated: bool,
    proof: Proof,
}

impl<'a> Rotation<'a> {
    /// An operation on `volume`, to be over at `deadline`.
    #[must_use]
    pub(crate) const fn new(
        volumes: &'a Volumes,
        volume: Arc<Volume>,
        (history, about): (&'a History, About),
        class: Class,
        deadline: Instant,
        proof: Proof,
    ) -> Self {
        Self {
            volumes,
            volume,
            history,
            about,
            class,
            deadline,
            bulk: false,
            spread: None,
            tried: Vec::new(),
            failed: None,
            reconnected: false,
            pauses: 0,
            last: None,
            relocated: false,
            proof,
        }
    }

    /// An operation that moves data: the deadline counts from the last progress.
    #[must_use]
    pub fn bulk(self) -> Self {
        Self { bulk: true, ..self }
    }

    /// An operation that has a server send so many bytes, one of many that may go on at the same time: of a read-only volume
    /// all replicas take their share.
    #[must_use]
    pub(crate) fn spread(self, bytes: u64) -> Self {
        let spread = self.volume.kind.is_read_only().then_some(bytes);
        Self { spread, ..self }
    }

    /// The next server to try.
    ///
    /// # Errors
    ///
    /// The deadline is over: the last error, or that no server answers.
    pub async fn next(&mut self) -> Result<Attempt, Error> {
        loop {
            let now = clock::now();
            let left = self.deadline.saturating_duration_since(now);
            if left.is_zero() {
                return Err(self.last.take().unwrap_or_else(|| self.no_answer()));
            }
            if let Some((server, peer)) = self.choose() {
                if let Some((last, why)) = self.failed.take() {
                    self.history.retries.count(why);
                    if last != peer {
                        self.history.failovers.count(why);
                    }
                }
                return Ok(self.attempt(server, peer, now, left));
            }
            // All were tried: from the beginning, after a while.
            self.tried.clear();
            self.pause().await;
        }
    }

    fn attempt(&self, server: Arc<Server>, peer: SocketAddrV4, now: Instant, left: Duration) -> Attempt {
        let dead_in = left.min(DEAD_IN);
        let limits = if self.bulk {
            CallLimits {
                dead_in,
                idle_in: Some(left),
                hard_in: None,
            }
        } else {
            CallLimits {
                dead_in,
                idle_in: None,
                hard_in: Some(left),
            }
        };
        let scope = Arc::clone(self.volume.cell.name.shared());
        let target = Target {
            scope,
            limits,
            security: self.proof.security.clone(),
            ..Target::new(peer, ServiceId(1))
        };
        Attempt {
            server,
            target,
            at: now,
            proof: self.proof.id,
            record: self.history.begin(self.about, peer, now),
        }
    }

    /// How long the server of this try has before another replica is asked too; `None` if that is not to be.
    pub(crate) fn patience(&self, first: &Attempt) -> Option<Duration> {
        if self.class != Class::Reading || !self.volume.kind.is_read_only() {
            return None;
        }
        self.volumes.hedges().lock().earn();
        // Without another one nobody needs to know.
        let patience = if self.bulk {
            Server::patience_for_data
        } else {
            Server::patience
        };
        self.volume.is_replicated().then(|| patience(&first.server))?
    }

    /// The same try with another replica, if there is one and the budget allows it.
    pub(crate) fn second(&self, first: &Attempt) -> Option<Attempt> {
        let now = clock::now();
        let left = self.deadline.saturating_duration_since(now);
        let (server, peer) = self.other(first)?;
        if left.is_zero() || !self.volumes.hedges().lock().spend() {
            return None;
        }
        self.history.retries.count(Retry::Slow);
        Some(self.attempt(server, peer, now, left))
    }

    /// The other replica was quicker.
    pub(crate) fn overtaken(&self, first: &Attempt) {
        let took = clock::now().saturating_duration_since(first.at);
        if self.bulk {
            first.server.record_first_byte(took);
        } else {
            first.server.record_latency(took);
        }
    }

    /// Another server that may have the same as the one of a try.
    fn other(&self, first: &Attempt) -> Option<(Arc<Server>, SocketAddrV4)> {
        let now = clock::now();
        let servers = self.volume.ranked(self.spread);
        servers.into_iter().find_map(|server| {
            if server.id() == first.server.id() || self.volume.is_left_alone(&server, now) {
                return None;
            }
            let peer = server.best_address(|peer| self.tried.contains(&peer))?;
            Some((server, peer))
        })
    }

    /// The best address that is up and was not tried, those of another release last; if all are down, the best that was not
    /// tried.
    fn choose(&self) -> Option<(Arc<Server>, SocketAddrV4)> {
        let servers = [self.volume.ranked(self.spread), self.volume.reserve()].concat();
        let skip = |peer| self.tried.contains(&peer);
        let up = servers
            .iter()
            .find_map(|server| Some((Arc::clone(server), server.best_address(skip)?)));
        up.or_else(|| {
            servers.iter().find_map(|server| {
                let peer = server.addresses().into_iter().find(|peer| !skip(*peer))?;
                Some((Arc::clone(server), peer))
            })
        })
    }

    /// The try succeeded.
    pub fn succeeded(&self, attempt: &Attempt) {
        attempt.record.succeeded();
        let now = clock::now();
        attempt.server.record_outcome(now, false);
        if !self.bulk {
            let took = now.saturating_duration_since(attempt.at);
            attempt.server.record_latency(took);
        }
        Self::answered(attempt);
    }

    /// Has the server of a read-only volume that was tried another version of an object than the `known` one, and may
    /// another server have that? Then it is to be tried: a release has reached some replicas and not others, and what they
    /// have must not be mixed.
    pub(crate) fn is_of_another_release(
        &mut self,
        attempt: &Attempt,
        known: Option<DataVersion>,
        found: &FetchStatus,
    ) -> bool {
        let differs = known.is_some_and(|known| found.data_version() != known);
        if !self.volume.kind.is_read_only() || !differs {
            return false;
        }
        self.leave_alone(attempt, Misfit::Release, "it has another release of the volume");
        self.other(attempt).is_some()
    }

    /// The server of a try is no good for this volume for a while.
    fn leave_alone(&mut self, attempt: &Attempt, misfit: Misfit, why: &str) {
        let (server, volume) = (attempt.target.peer, self.volume.id);
        tracing::warn!(%server, %volume, why, "a replica is left alone for a while");
        self.history.misfits.count(misfit);
        self.volume
            .leave_alone(&attempt.server, misfit, why, clock::now());
        self.tried.push(server);
    }

    fn answered(attempt: &Attempt) {
        if attempt.server.mark_up(attempt.target.peer, clock::now()) == Some(Change::Up) {
            tracing::info!(server = %attempt.target.peer, "file server answers again");
        }
    }

    /// The try failed. `Ok` means that the next may be made.
    ///
    /// # Errors
    ///
    /// The error is final.
    pub async fn failed(&mut self, attempt: &Attempt, error: RpcError) -> Result<(), Error> {
        attempt.record.failed(&error);
        attempt.server.record_outcome(clock::now(), is_failure(&error));
        let peer = attempt.target.peer;
        let action = decide(&error, self.class, self.volume.kind);
        tracing::debug!(server = %peer, volume = %self.volume.id, %error, ?action, "call failed");
        let silent = match error {
            RpcError::Transport(CallError::Unreachable(_) | CallError::PathBroken(_)) => true,
            // What had no time to answer is not down.
            RpcError::Transport(CallError::PeerDead | CallError::TimedOut) => {
                clock::now().saturating_duration_since(attempt.at) >= TIME_TO_ANSWER
            }
            _ => false,
        };
        if silent && attempt.server.mark_down(peer, clock::now()) == Some(Change::Down) {
            tracing::warn!(server = %peer, "file server does not answer");
        }
        if let RpcError::Aborted(_) = &error {
            // A refusal is an answer.
            Self::answered(attempt);
        }
        if error.fault().is_some_and(Fault::is_of_ticket) {
            self.proof.rejected(&self.volume.cell.name, peer, &error);
        }
        let why = error.to_string();
        let error = Error::from(error);
        match action {
            Action::Fail => return Err(error),
            Action::Distrust => {
                self.leave_alone(attempt, Misfit::Nonsense, &why);
                if self.other(attempt).is_none() && self.volume.reserve().is_empty() {
                    return Err(error);
                }
            }
            Action::Reconnect if self.reconnected => return Err(error),
            // The old one has died of it.
            Action::Reconnect => self.reconnected = true,
            Action::Down | Action::Elsewhere => self.tried.push(peer),
            // Another one may have time.
            Action::Wait if self.other(attempt).is_some() => self.tried.push(peer),
            Action::Wait => {
                self.tried.clear();
                self.pause().await;
            }
            Action::Relocate => {
                if self.relocated {
                    self.tried.push(peer);
                    self.pause().await;
                }
                self.relocated = true;
                let located = self.volumes.relocate(&self.volume, self.deadline).await;
                if let Err(error) = located {
                    // Without an answer what was known counts.
                    if error.errno() != Errno::TIMEDOUT.raw_os_error() {
                        return Err(error);
                    }
                    tracing::debug!(volume = %self.volume.id, %error, "it is not known where it is now");
                }
            }
        }
        self.failed = action.retry().map(|why| (peer, why));
        self.last = Some(error);
        Ok(())
    }

    async fn pause(&mut self) {
        let now = clock::now();
        let pause = PAUSE * (1 << self.pauses.min(PAUSES_DOUBLED));
        self.pauses += 1;
        // Not all clients at the same moment: from three quarters to five.
        let spread = u32::try_from(RandomState::new().hash_one(now) % 64).unwrap_or(0);
        let pause = pause * (96 + spread) / 128;
        clock::sleep_until((now + pause).min(self.deadline)).await;
    }

    fn no_answer(&self) -> Error {
        let why = format!(
            "no server of volume {} of cell {} answers",
            self.volume.name, self.volume.cell.name
        );
        Error::new(Errno::TIMEDOUT, why)
    }
}

/// A server that says nothing for so long is down. OpenAFS waits 50 s; the answer to a ping takes no time.
const DEAD_IN: Duration = Duration::from_secs(15);
/// A call that was given less, because the operation had no more left, says nothing of its server.
const TIME_TO_ANSWER: Duration = Duration::from_millis(500);
/// Between the first rounds, more or less. Twice as long after each, until it is two seconds.
const PAUSE: Duration = Duration::from_millis(250);
const PAUSES_DOUBLED: u32 = 3;
const UAE_IO: i32 = 49_733_380;

#[cfg(test)]
mod tests {
    use rxrpc::proto::AbortCode;

    use super::*;
    use Class::{Idempotent, Modifying};
    use VolumeKind::{ReadOnly, ReadWrite};

    #[test]
    fn the_table() {
        let aborted = |code| RpcError::Aborted(AbortCode(code));
        for (error, class, kind, action) in [
            (aborted(110), Modifying, ReadWrite, Action::Wait),
            (aborted(-100), Modifying, ReadWrite, Action::Wait),
            (aborted(103), Modifying, ReadWrite, Action::Relocate),
            (aborted(111), Idempotent, ReadOnly, Action::Relocate),
            (aborted(105), Modifying, ReadWrite, Action::Fail),
            (aborted(105), Idempotent, ReadWrite, Action::Wait),
            (aborted(112), Idempotent, ReadWrite, Action::Fail),
            (aborted(112), Idempotent, ReadOnly, Action::Elsewhere),
            (aborted(109), Idempotent, ReadWrite, Action::Fail),
            (aborted(102), Idempotent, ReadWrite, Action::Fail),
            (aborted(13), Idempotent, ReadWrite, Action::Fail),
            (aborted(19_270_409), Idempotent, ReadWrite, Action::Fail),
            (aborted(19_270_404), Modifying, ReadWrite, Action::Reconnect),
            (aborted(19_270_410), Modifying, ReadWrite, Action::Fail),
            (aborted(19_270_410), Idempotent, ReadWrite, Action::Reconnect),
            (
                RpcError::Transport(CallError::Protocol(AbortCode(19_270_411))),
                Idempotent,
                ReadWrite,
                Action::Reconnect,
            ),
            (
                RpcError::Transport(CallError::PeerDead),
                Idempotent,
                ReadWrite,
                Action::Down,
            ),
            (
                RpcError::Transport(CallError::PeerDead),
                Modifying,
                ReadWrite,
                Action::Fail,
            ),
            (
                RpcError::Transport(CallError::Unreachable(101)),
                Modifying,
                ReadWrite,
                Action::Down,
            ),
            (
                RpcError::Transport(CallError::PathBroken(111)),
                Modifying,
                ReadWrite,
                Action::Fail,
            ),
            (
                RpcError::Transport(CallError::PathBroken(111)),
                Idempotent,
                ReadWrite,
                Action::Down,
            ),
            (
                RpcError::Transport(CallError::CallLost),
                Modifying,
                ReadWrite,
                Action::Wait,
            ),
            (
                RpcError::Transport(CallError::Shutdown),
                Idempotent,
                ReadWrite,
                Action::Fail,
            ),
            (RpcError::TooMuchData(9), Idempotent, ReadOnly, Action::Distrust),
            (RpcError::TooMuchData(9), Idempotent, ReadWrite, Action::Fail),
        ] {
            assert_eq!(decide(&error, class, kind), action, "{error:?} {class:?} {kind}");
        }
    }
}
