//! Requests that change names, each done once even if the process is killed while it does them.
//!
//! The machine: what a request is about to do is written down, then what came of it, then that the kernel knows. When the
//! kernel sends one again to the process that took over, what came of it is the answer. If only the beginning was written
//! down, the names are looked at: they tell whether it was done, or the request fails with EIO. A mount that nobody can take
//! over writes nothing down.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use afs_client::error::Error;
use afs_client::fs::{AfsFs, Entry, HandleId, Lookup, Opened};
use afs_client::types::Fid;
use fuser::Errno;

use super::reply::{Answer, Asked};
use super::shared::{Limit, Shared};
use crate::kept::{Outcome, is_resent};
use crate::telemetry::metrics::Replay;

/// What a request changes.
pub(super) enum Change {
    /// A name comes to be, which must not be there before.
    Make(Name),
    /// A name comes to be, if it is not there.
    Open,
    /// A name comes to lead to an object that there is.
    Link(Fid, Name),
    /// A name goes.
    Remove(Name),
    /// A name becomes another one.
    Rename(Name, Name),
}

/// A name in a directory.
pub(super) struct Name {
    dir: Fid,
    name: Box<[u8]>,
}

/// What the names say of a change that was begun.
enum Found {
    /// It was not made.
    NotMade,
    /// It was.
    Made(Outcome),
    /// They cannot tell.
    Unclear,
}

/// What a change gives.
pub(super) trait Made: Sized + Send {
    fn outcome(&self) -> Outcome;
    /// The same for a request that is sent again.
    fn again(fs: &AfsFs, outcome: Outcome) -> impl Future<Output = Result<Self, Error>> + Send;
}

impl Name {
    fn new(dir: Fid, name: &[u8]) -> Self {
        let name = name.into();
        Self { dir, name }
    }

    async fn leads_to(&self, fs: &AfsFs) -> Result<Option<Fid>, Error> {
        let known = match fs.lookup_cached(self.dir, &self.name) {
            Some(known) => known,
            None => fs.lookup(self.dir, &self.name).await,
        };
        Ok(match known? {
            Lookup::Found(entry) => Some(entry.fid),
            Lookup::Absent { .. } => None,
        })
    }
}

impl Change {
    pub(super) fn make(dir: Fid, name: &[u8]) -> Self {
        Self::Make(Name::new(dir, name))
    }

    pub(super) fn open(dir: Fid, name: &[u8], exclusive: bool) -> Self {
        if exclusive {
            Self::make(dir, name)
        } else {
            Self::Open
        }
    }

    pub(super) fn link(fid: Fid, dir: Fid, name: &[u8]) -> Self {
        Self::Link(fid, Name::new(dir, name))
    }

    pub(super) fn remove(dir: Fid, name: &[u8]) -> Self {
        Self::Remove(Name::new(dir, name))
    }

    pub(super) fn rename(from: (Fid, &[u8]), to: (Fid, &[u8])) -> Self {
        Self::Rename(Name::new(from.0, from.1), Name::new(to.0, to.1))
    }

    /// What the name that goes leads to.
    async fn seen(&self, fs: &AfsFs) -> Option<Fid> {
        match self {
            Self::Remove(name) | Self::Rename(name, _) => name.leads_to(fs).await.ok().flatten(),
            _ => None,
        }
    }

    /// Was it made? `seen`: what the name that goes led to before.
    async fn look(&self, fs: &AfsFs, seen: Option<Fid>) -> Result<Found, Error> {
        Ok(match self {
            // Made anew or found to be there: opened.
            Self::Open => Found::NotMade,
            // By us, or by somebody who was faster?
            Self::Make(name) => match name.leads_to(fs).await? {
                None => Found::NotMade,
                Some(_) => Found::Unclear,
            },
            Self::Link(fid, name) => match name.leads_to(fs).await? {
                None => Found::NotMade,
                Some(there) if there == *fid => Found::Made(Outcome::Found(there)),
                Some(_) => Found::Unclear,
            },
            Self::Remove(name) => match name.leads_to(fs).await? {
                there if there.is_some() && there == seen => Found::NotMade,
                // It is gone, or another one has come since.
                _ => Found::Made(Outcome::Made),
            },
            Self::Rename(from, to) => match (seen, from.leads_to(fs).await?, to.leads_to(fs).await?) {
                (Some(seen), Some(there), _) if seen == there => Found::NotMade,
                (Some(seen), _, Some(there)) if seen == there => Found::Made(Outcome::Made),
                _ => Found::Unclear,
            },
        })
    }
}

impl Shared {
    /// Answers a request that changes something from a task.
    pub(super) fn change<R, T, W, A>(
        self: &Arc<Self>,
        mut asked: Asked<R>,
        change: Change,
        work: W,
        answer: A,
    ) where
        R: Answer,
        T: Made + 'static,
        W: Future<Output = Result<T, Error>> + Send + 'static,
        A: FnOnce(&Self, Asked<R>, T) + Send + 'static,
    {
        if self.kept().is_none() {
            return self.wait(Limit::Deadline, asked, work, answer);
        }
        asked.settles(self);
        let (shared, fs, unique) = (Arc::clone(self), asked.fs().clone(), asked.unique());
        let once = async move { shared.once(&fs, unique, &change, work).await };
        self.wait(Limit::Deadline, asked, once, answer);
    }

    async fn once<T: Made>(
        &self,
        fs: &AfsFs,
        unique: u64,
        change: &Change,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let Some(kept) = self.kept() else {
            return work.await;
        };
        if is_resent(unique)
            && let Some(before) = kept.change_before(unique)
        {
            let found = match before.outcome {
                Some(outcome) => Found::Made(outcome),
                None => change.look(fs, before.seen).await?,
            };
            match found {
                Found::Made(outcome) => {
                    self.metrics.replayed(match before.outcome {
                        Some(_) => Replay::Journaled,
                        None => Replay::Found,
                    });
                    tracing::info!(?outcome, "a change is not made again");
                    kept.done(unique, outcome);
                    return T::again(fs, outcome).await;
                }
                Found::Unclear => {
                    self.metrics.replayed(Replay::Failed);
                    return Err(errno(
                        Errno::EIO,
                        "it is not known whether a change was made before the last process ended",
                    ));
                }
                Found::NotMade => {}
            }
        }
        kept.begun(unique, change.seen(fs).await);
        let result = work.await;
        kept.done(
            unique,
            result
                .as_ref()
                .map_or_else(|error| Outcome::Failed(error.errno()), T::outcome),
        );
        result
    }
}

impl Made for () {
    fn outcome(&self) -> Outcome {
        Outcome::Made
    }

    async fn again(_: &AfsFs, outcome: Outcome) -> Result<Self, Error> {
        refusal(outcome)
    }
}

impl Made for Entry {
    fn outcome(&self) -> Outcome {
        Outcome::Found(self.fid)
    }

    async fn again(fs: &AfsFs, outcome: Outcome) -> Result<Self, Error> {
        refusal(outcome)?;
        match outcome {
            Outcome::Found(fid) | Outcome::Open(fid, _) => {
                let (attr, _) = fs.getattr(fid).await?;
                Ok(Self {
                    fid,
                    attr,
                    attr_ttl: Duration::ZERO,
                    entry_ttl: Duration::ZERO,
                })
            }
            _ => Err(errno(Errno::EIO, "what was made is not known")),
        }
    }
}

impl Made for (Entry, Opened) {
    fn outcome(&self) -> Outcome {
        Outcome::Open(self.0.fid, self.1.handle.0)
    }

    async fn again(fs: &AfsFs, outcome: Outcome) -> Result<Self, Error> {
        let entry = Entry::again(fs, outcome).await?;
        match outcome {
            Outcome::Open(_, handle) => Ok((entry, Opened::before(HandleId(handle)))),
            _ => Err(errno(Errno::EIO, "what was opened is not known")),
        }
    }
}

fn refusal(outcome: Outcome) -> Result<(), Error> {
    match outcome {
        Outcome::Failed(code) => Err(errno(Errno::from_i32(code), "as it was refused before")),
        _ => Ok(()),
    }
}

fn errno(code: Errno, why: &str) -> Error {
    Error::new(rustix::io::Errno::from_raw_os_error(code.code()), why)
}
