//! How the ends of a connection get to know each other: who may ask, who must answer, how often.
//!
//! The machine:
//!
//! | standing | on | becomes, and what is sent |
//! |---|---|---|
//! | quiet (a client) | a challenge, while a call is under way | quiet; a response to the newest, at most one a second after the first few |
//! | asking (a service) | DATA | asking; a challenge, again after 2 s, 50 times |
//! | asking | a response that holds | accepted: the calls that have waited are executed |
//! | asking | a response that does not hold | the connection is aborted |
//! | accepted | the end of what was proven | the connection is aborted |
//!
//! To one that has no call a challenge is worth nothing but the encryption of a text that its sender has chosen, so it is not
//! answered (rxrpc.md 10.3, 18). While the address at the other end is doubted, a challenge goes only to one that has just
//! sent something.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{AbortCode, Accepted, Acceptor, Caller, Rejected, Serial};

/// Where the two stand. Boxed, since most connections have none.
#[derive(Debug, Default)]
pub(super) enum Handshake {
    /// Nothing was asked.
    #[default]
    Quiet,
    /// We are a client that was asked.
    Answering(Box<Answering>),
    /// We are a service that asks.
    Asking(Box<Asking>),
    /// The client has proven who it is.
    Accepted(Box<Known>),
}

/// A handshake that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// A client has answered a challenge, or a service has been convinced. Otherwise the connection was aborted.
    pub given: bool,
    /// A client: from the start of its first call that waited for it; a service: from its first challenge.
    pub took: Duration,
}

/// A client and the challenges that came.
#[derive(Debug)]
pub(super) struct Answering {
    newest: Serial,
    answers: u32,
    answered_at: Instant,
    /// To be sent now.
    response: Option<Bytes>,
    /// To be told.
    proof: Option<Proof>,
}

/// A service that waits for a response.
#[derive(Debug)]
pub(super) struct Asking {
    acceptor: Box<dyn Acceptor>,
    /// How often it has asked, and when last.
    asked: u32,
    asked_at: Option<Instant>,
    first_asked_at: Option<Instant>,
    due: bool,
    /// To be told.
    proof: Option<Proof>,
}

/// Whom a service speaks to.
#[derive(Debug)]
pub(super) struct Known {
    caller: Arc<Caller>,
    until: Option<(Instant, AbortCode)>,
    /// To be told.
    proof: Option<Proof>,
}

/// What is to be sent of a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    Challenge(Bytes),
    Response(Bytes),
}

impl Handshake {
    /// A service that will ask.
    pub(super) fn asking(acceptor: Box<dyn Acceptor>) -> Self {
        Self::Asking(Box::new(Asking {
            acceptor,
            asked: 0,
            asked_at: None,
            first_asked_at: None,
            due: false,
            proof: None,
        }))
    }

    /// True while it is not known who is there.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self, Self::Asking(_))
    }

    pub(super) fn caller(&self) -> Option<&Arc<Caller>> {
        match self {
            Self::Accepted(known) => Some(&known.caller),
            _ => None,
        }
    }

    /// The code with which the connection ends if what was proven holds no more.
    pub(super) fn expired(&self, now: Instant) -> Option<AbortCode> {
        match self {
            Self::Accepted(known) => known
                .until
                .filter(|(until, _)| *until <= now)
                .map(|(_, code)| code),
            _ => None,
        }
    }

    /// A challenge came for a client; an error if it is not to be answered.
    pub(super) fn on_challenge(&mut self, now: Instant, serial: Serial) -> Result<(), Rejected> {
        match self {
            Self::Quiet => {
                *self = Self::Answering(Box::new(Answering {
                    newest: serial,
                    answers: 1,
                    answered_at: now,
                    response: None,
                    proof: None,
                }));
                Ok(())
            }
            Self::Answering(answering) => answering.on_challenge(now, serial),
            Self::Asking(_) | Self::Accepted(_) => Err(Rejected::Unexpected),
        }
    }

    /// The answer to the challenge that was taken last, if there can be one. Calls have waited for it since `since`.
    pub(super) fn answer(&mut self, now: Instant, since: Instant, response: Option<Bytes>) {
        if let Self::Answering(answering) = self {
            // A server asks again until it has heard the answer: that is no other handshake.
            if answering.answers == 1 || response.is_none() {
                answering.proof = Some(Proof {
                    given: response.is_some(),
                    took: now.saturating_duration_since(since),
                });
            }
            answering.response = response;
        }
    }

    /// DATA came from a client of which it is not known who it is.
    pub(super) fn on_data(&mut self, now: Instant) {
        if let Self::Asking(asking) = self {
            asking.due |= asking.asks_again_at().is_none_or(|at| at <= now) && asking.asked < ASKED_MAX;
        }
    }

    /// Judges a response. `None` if nothing was asked.
    pub(super) fn judge(&self, now: Instant, response: &[u8]) -> Option<Result<Accepted, AbortCode>> {
        match self {
            Self::Asking(asking) if asking.asked > 0 => Some(asking.acceptor.accept(now, response)),
            _ => None,
        }
    }

    /// The client has proven who it is.
    pub(super) fn accept(&mut self, now: Instant, caller: Arc<Caller>, until: Option<(Instant, AbortCode)>) {
        let proof = self.ended(now, true);
        *self = Self::Accepted(Box::new(Known { caller, until, proof }));
    }

    /// The client has not proven who it is.
    pub(super) fn refuse(&mut self, now: Instant) {
        let proof = self.ended(now, false);
        if let Self::Asking(asking) = self {
            asking.proof = proof;
        }
    }

    fn ended(&self, now: Instant, given: bool) -> Option<Proof> {
        let Self::Asking(asking) = self else { return None };
        let began = asking.first_asked_at?;
        let took = now.saturating_duration_since(began);
        Some(Proof { given, took })
    }

    /// The handshake that has ended since the last look.
    pub(super) fn take_proof(&mut self) -> Option<Proof> {
        match self {
            Self::Quiet => None,
            Self::Answering(answering) => answering.proof.take(),
            Self::Asking(asking) => asking.proof.take(),
            Self::Accepted(known) => known.proof.take(),
        }
    }

    /// When a service asks again if nothing comes.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        match self {
            Self::Asking(asking) => asking.asks_again_at(),
            _ => None,
        }
    }

    /// Has a service ask again if it is time. False if it has asked often enough.
    pub(super) fn on_timeout(&mut self, now: Instant) -> bool {
        match self {
            Self::Asking(asking) if asking.asks_again_at().is_some_and(|at| at <= now) => {
                asking.due = asking.asked < ASKED_MAX;
                asking.due
            }
            _ => true,
        }
    }

    /// What is to be sent now.
    pub(super) fn take_message(&mut self, now: Instant) -> Option<Message> {
        match self {
            Self::Answering(answering) => answering.response.take().map(Message::Response),
            Self::Asking(asking) => asking.take_challenge(now).map(Message::Challenge),
            Self::Quiet | Self::Accepted(_) => None,
        }
    }
}

impl Answering {
    fn on_challenge(&mut self, now: Instant, serial: Serial) -> Result<(), Rejected> {
        // OpenAFS numbers its challenges 0.
        if serial != Serial(0) && !serial.after(self.newest) {
            return Err(Rejected::StaleChallenge);
        }
        if self.answers >= ANSWERS_AT_ONCE && now.saturating_duration_since(self.answered_at) < ANSWER_EVERY {
            return Err(Rejected::TooManyChallenges);
        }
        self.newest = serial;
        self.answers = self.answers.saturating_add(1);
        self.answered_at = now;
        Ok(())
    }
}

impl Asking {
    fn take_challenge(&mut self, now: Instant) -> Option<Bytes> {
        std::mem::take(&mut self.due).then(|| {
            self.asked += 1;
            self.asked_at = Some(now);
            self.first_asked_at.get_or_insert(now);
            self.acceptor.challenge()
        })
    }

    fn asks_again_at(&self) -> Option<Instant> {
        self.asked_at.map(|at| at + ASK_EVERY)
    }
}

/// OpenAFS `RXS_CHALLENGE` events: every 2 s, 50 times.
const ASK_EVERY: Duration = Duration::from_secs(2);
const ASKED_MAX: u32 = 50;
/// Answers without delay: a server may ask again for each of our first packets.
const ANSWERS_AT_ONCE: u32 = 4;
const ANSWER_EVERY: Duration = Duration::from_secs(1);
