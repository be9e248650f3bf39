//! What servers were asked about which object of late, and how long they took: why something is slow or refused.
//!
//! The machine: each try of a call is a record, begun when it is offered and ended when it has its answer or is given
//! up. The last few of each object are kept, for the objects that were asked about most recently; of an object with more,
//! those go first that were quick and well. A hit in the cache leaves no record and takes no lock here.

use std::collections::{HashSet, VecDeque};
use std::net::SocketAddrV4;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;

use crate::auth::Identity;
use crate::clock;
use crate::events::{Misfit, Retry, Tally};
use crate::types::Fid;

/// One try of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallRecord {
    /// The procedure.
    pub procedure: &'static str,
    /// Whom it was made to.
    pub server: SocketAddrV4,
    /// How long ago it was begun.
    pub ago: Duration,
    /// How long it took; `None` while it is under way.
    pub took: Option<Duration>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// The records of all objects.
#[derive(Debug)]
pub(crate) struct History {
    objects: Mutex<LruCache<Fid, VecDeque<Arc<Entry>>>>,
    /// Calls that were made once more.
    pub(crate) retries: Tally<Retry>,
    /// How many of them to another address.
    pub(crate) failovers: Tally<Retry>,
    /// Replicas that were left alone.
    pub(crate) misfits: Tally<Misfit>,
}

/// What a try is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About {
    pub(crate) fid: Fid,
    pub(crate) who: Identity,
    pub(crate) procedure: &'static str,
}

/// A try that is under way. Dropped without a word, it was given up.
#[derive(Debug)]
pub(crate) struct Record(Arc<Entry>);

#[derive(Debug)]
struct Entry {
    about: About,
    server: SocketAddrV4,
    began: Instant,
    /// What it is done for, if that is traced.
    span: Option<tracing::Id>,
    ended: OnceLock<Ended>,
}

#[derive(Debug)]
struct Ended {
    took: Duration,
    error: Option<String>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            objects: Mutex::new(LruCache::new(OBJECTS)),
            retries: Tally::default(),
            failovers: Tally::default(),
            misfits: Tally::default(),
        }
    }
}

impl History {
    /// A call is about to be made.
    pub(crate) fn begin(&self, about: About, server: SocketAddrV4, now: Instant) -> Record {
        let entry = Arc::new(Entry {
            about,
            server,
            began: now,
            span: tracing::Span::current().id(),
            ended: OnceLock::new(),
        });
        let mut objects = self.objects.lock();
        let tries = objects.get_or_insert_mut(about.fid, VecDeque::new);
        if tries.len() >= TRIES {
            let ordinary = tries.iter().position(|entry| entry.is_ordinary());
            tries.remove(ordinary.unwrap_or(0));
        }
        tries.push_back(Arc::clone(&entry));
        Record(entry)
    }

    /// The spans of what is under way about an object.
    pub(crate) fn spans(&self, fid: Fid) -> Vec<tracing::Id> {
        let objects = self.objects.lock();
        let entries = objects.peek(&fid).into_iter().flatten();
        let running = entries.filter(|entry| entry.ended.get().is_none());
        running.filter_map(|entry| entry.span.clone()).collect()
    }

    /// The spans of what is under way about objects and at servers, each once.
    pub(crate) fn spans_where(&self, which: impl Fn(&Fid, SocketAddrV4) -> bool) -> Vec<tracing::Id> {
        let objects = self.objects.lock();
        let entries = objects
            .iter()
            .flat_map(|(fid, tries)| tries.iter().map(move |entry| (fid, entry)));
        let running = entries.filter(|(fid, entry)| entry.ended.get().is_none() && which(fid, entry.server));
        let spans: HashSet<_> = running.filter_map(|(_, entry)| entry.span.clone()).collect();
        spans.into_iter().collect()
    }

    /// What is kept of an object, the oldest first: what was done in the name of `who`, or for all.
    pub(crate) fn of(&self, fid: Fid, who: Option<Identity>, now: Instant) -> Vec<CallRecord> {
        let entries: Vec<_> = self
            .objects
            .lock()
            .peek(&fid)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let told = entries.iter().filter(|entry| {
            let by = entry.about.who;
            by == Identity::Nobody || who.is_none_or(|who| by == who)
        });
        told.map(|entry| entry.told(now)).collect()
    }
}

impl Entry {
    /// It has ended, quickly and well.
    fn is_ordinary(&self) -> bool {
        let ended = self.ended.get();
        ended.is_some_and(|ended| ended.error.is_none() && ended.took < SLOW)
    }

    fn told(&self, now: Instant) -> CallRecord {
        let ended = self.ended.get();
        CallRecord {
            procedure: self.about.procedure,
            server: self.server,
            ago: now.saturating_duration_since(self.began),
            took: ended.map(|ended| ended.took),
            error: ended.and_then(|ended| ended.error.clone()),
        }
    }
}

impl Record {
    /// It was answered well.
    pub(crate) fn succeeded(&self) {
        self.end(|| None);
    }

    /// It failed.
    pub(crate) fn failed(&self, error: &dyn std::error::Error) {
        self.end(|| Some(error.to_string()));
    }

    fn end(&self, error: impl FnOnce() -> Option<String>) {
        let entry = &self.0;
        entry.ended.get_or_init(|| Ended {
            took: clock::now().saturating_duration_since(entry.began),
            error: error(),
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(|| Some("given up".to_owned()));
    }
}

/// Objects whose calls are remembered.
const OBJECTS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// Calls remembered of each.
const TRIES: usize = 8;
/// What takes longer is worth remembering.
const SLOW: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::types::{CellId, Uniquifier, VnodeId, VolumeId};

    const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000);

    fn about(vnode: u32, who: Identity) -> About {
        About {
            fid: Fid {
                cell: CellId(1),
                volume: VolumeId(1),
                vnode: VnodeId(vnode),
                unique: Uniquifier(1),
            },
            who,
            procedure: "FetchStatus",
        }
    }

    #[test]
    fn what_was_slow_or_failed_is_remembered_longest() {
        let history = History::default();
        let alice = Identity::User(1);
        let about = about(2, alice);
        let begin = || history.begin(about, SERVER, clock::now());
        history
            .begin(about, SERVER, clock::now().checked_sub(SLOW).unwrap())
            .succeeded();
        begin().failed(&std::io::Error::other("no"));
        for _ in 0..100 {
            begin().succeeded();
        }
        let running = begin();
        let told = history.of(about.fid, Some(alice), clock::now());
        assert_eq!(told.len(), TRIES);
        assert!(told[0].took >= Some(SLOW) && told[0].error.is_none());
        assert_eq!(told[1].error.as_deref(), Some("no"));
        assert_eq!(told[TRIES - 1].took, None);
        drop(running);
        let told = history.of(about.fid, None, clock::now());
        assert_eq!(told[TRIES - 1].error.as_deref(), Some("given up"));
        let bob = Identity::User(2);
        assert!(history.of(about.fid, Some(bob), clock::now()).is_empty());
    }

    #[test]
    fn objects_are_bounded() {
        let history = History::default();
        let objects = u32::try_from(OBJECTS.get()).unwrap();
        for vnode in 0..objects * 2 {
            history
                .begin(about(vnode, Identity::Nobody), SERVER, clock::now())
                .succeeded();
        }
        let count = |vnode| {
            let who = Some(Identity::User(1));
            history
                .of(about(vnode, Identity::Nobody).fid, who, clock::now())
                .len()
        };
        assert_eq!((count(0), count(objects * 2 - 1)), (0, 1));
    }
}
