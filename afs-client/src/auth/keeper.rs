//! Keeping a token: the next one before it is over.
//!
//! The machine: a task for each token that is held. It sleeps until three quarters of the token's life are over, a little
//! more or less so that not all come at once, and asks the token's [`Source`] for the next one; when that fails it tries
//! again, at growing distances, after the end too. What it cannot do it says in the log, in time. It sleeps by the clock on
//! the wall, which goes on while the machine does not.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use super::credential::from_unix;
use super::krb5_conf::Krb5Conf;
use super::source::{NoToken, Source};
use super::token::Token;
use super::tokens::{Identity, TokenRules};
use crate::cell::CellName;
use crate::clock;
use crate::fs::core::{Caller, Core};

/// The task of one token. Its drop ends it.
#[derive(Debug)]
pub(crate) struct Keeper(tokio::task::AbortHandle);

impl Keeper {
    /// Starts to keep a token. Needs a tokio runtime.
    pub(crate) fn start(of: &Caller, token: &Token, source: Option<Source>) -> Self {
        let kept = Kept {
            core: Arc::downgrade(&of.core),
            who: of.who,
            cell: token.cell.clone(),
            span: Span::of(token),
            source,
            said: None,
        };
        Self(tokio::spawn(kept.keep()).abort_handle())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the task knows.
struct Kept {
    core: Weak<Core>,
    who: Identity,
    cell: CellName,
    span: Span,
    source: Option<Source>,
    /// What was said last: it is said once.
    said: Option<String>,
}

/// From when and until when a token can be used (unix seconds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    begins: u32,
    ends: u32,
}

impl Span {
    const fn of(token: &Token) -> Self {
        Self {
            begins: token.begins,
            ends: token.expires,
        }
    }

    fn life(self) -> Duration {
        Duration::from_secs(u64::from(self.ends.saturating_sub(self.begins)).max(1))
    }

    /// When the next one is asked for; `luck` is between 0 and 1.
    fn due(self, luck: f64) -> SystemTime {
        from_unix(self.begins) + self.life().mul_f64(0.7 + 0.1 * luck)
    }

    /// How long to wait after so many failures.
    fn pause(self, failures: u32, luck: f64) -> Duration {
        let first = (self.life() / 16).clamp(SHORTEST, Duration::from_mins(1));
        let longest = (self.life() / 4).clamp(SHORTEST, Duration::from_mins(10));
        let grown = first.saturating_mul(1 << failures.min(16)).min(longest);
        grown.mul_f64(0.75 + 0.5 * luck)
    }
}

impl Kept {
    async fn keep(mut self) {
        loop {
            sleep_until(self.span.due(luck())).await;
            let mut failures = 0;
            let renewed = loop {
                // Its many states are not kept while we sleep.
                match Box::pin(self.next()).await {
                    Ok(token) => break token,
                    Err(NoToken::Shutdown) => return,
                    Err(error) => {
                        self.say(&error);
                        if self.source.is_none() {
                            sleep_until(from_unix(self.span.ends)).await;
                            self.say(&error);
                            return;
                        }
                    }
                }
                let pause = self.span.pause(failures, luck());
                let is_watched = self.source.as_ref().is_some_and(Source::is_watched);
                let pause = if is_watched { pause.min(LOOK_EVERY) } else { pause };
                failures += 1;
                sleep_until(clock::wall() + pause).await;
            };
            self.span = Span::of(&renewed);
            self.said = None;
            let Some(core) = self.core.upgrade() else { return };
            let (cell, client) = (&self.cell, renewed.client.to_string());
            match core.tokens.renew(self.who, renewed) {
                Ok(true) => tracing::info!(%cell, client, expires = self.span.ends, "the token was renewed"),
                // It was forgotten, or is somebody else's now, with a keeper of its own.
                Ok(false) => return,
                Err(error) => tracing::error!(%cell, client, %error, "the new token cannot be used"),
            }
        }
    }

    async fn next(&mut self) -> Result<Token, NoToken> {
        let source = self.source.as_mut().ok_or(NoToken::Nothing)?;
        let listed = {
            let core = self.core.upgrade().ok_or(NoToken::Shutdown)?;
            let TokenRules { krb5_config, .. } = core.tokens.rules();
            krb5_config.clone()
        };
        let conf = tokio::task::spawn_blocking(move || Krb5Conf::load(listed.as_deref()));
        let conf = conf.await.map_err(|_| NoToken::Shutdown)??;
        source.token(&conf, &self.cell, self.span.ends).await
    }

    fn say(&mut self, error: &NoToken) {
        let left = from_unix(self.span.ends).duration_since(clock::wall());
        let when = match left {
            Ok(left) if !left.is_zero() => "expires soon",
            _ => "has expired",
        };
        let what = format!(
            "the token of {:?} for cell {} {when}: {error}",
            self.who, self.cell
        );
        if self.said.as_ref() != Some(&what) {
            let left = left.map_or(0, |left| left.as_secs());
            tracing::warn!(seconds_left = left, "{what}");
            self.said = Some(what);
        }
    }
}

/// Waits until it is so late, on the wall.
async fn sleep_until(at: SystemTime) {
    while let Ok(left) = at.duration_since(clock::wall()) {
        if left.is_zero() {
            return;
        }
        clock::sleep_until(clock::now() + left.min(DOZE)).await;
    }
}

/// Between 0 and 1. Without randomness, in the middle.
fn luck() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 0.5,
    }
}

const SHORTEST: Duration = Duration::from_secs(1);
/// How often a cache is looked at in which a newer ticket may appear.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A machine that was asleep is noticed within this.
const DOZE: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_about_three_quarters() {
        let span = Span {
            begins: 1000,
            ends: 1000 + 36_000,
        };
        assert_eq!(span.due(0.5), from_unix(1000 + 27_000));
        assert!(span.due(0.0) >= from_unix(1000 + 25_199) && span.due(1.0) <= from_unix(1000 + 28_801));
        let odd = Span {
            begins: 2000,
            ends: 1000,
        };
        assert!(odd.due(1.0) < from_unix(2002));
    }

    #[test]
    fn pauses_grow_to_a_bound_and_fit_the_life() {
        let long = Span {
            begins: 0,
            ends: 86_400,
        };
        let pauses: Vec<_> = (0..40).map(|failures| long.pause(failures, 0.5)).collect();
        assert_eq!(pauses[0], Duration::from_mins(1));
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[39], Duration::from_mins(10));
        let short = Span { begins: 0, ends: 60 };
        assert!(short.pause(0, 1.0) < Duration::from_secs(5));
        assert!(short.pause(9, 1.0) < Duration::from_secs(20));
    }
}
