//! Callback promises, and the race between a break and a reply.
//!
//! The machine: every break only raises a counter: of the vnode, of its volume, of the server that lost its memory, or
//! of everything. Before a call is sent the counters are noted ([`Issued`]). A promise that comes with the reply counts
//! only if none of them moved since, and it stands as long as none moves later. Nothing is ever scanned.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::rpc::types::CallBack;
use crate::server::Server;

/// A counter of breaks.
#[derive(Debug, Default)]
pub(crate) struct Breaks(AtomicU64);

impl Breaks {
    /// One more.
    pub(crate) fn bump(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The counters that a promise on one vnode depends on, but for the server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Breaks of the vnode.
    pub(crate) vnode: u64,
    /// Breaks of the volume.
    pub(crate) volume: u64,
    /// Breaks of everything.
    pub(crate) all: u64,
}

/// What was noted before a call was sent.
#[derive(Clone, Debug)]
pub(crate) struct Issued {
    /// When it was sent.
    pub(crate) at: Instant,
    /// To whom.
    pub(crate) server: Arc<Server>,
    /// How often that server had lost its memory.
    pub(crate) server_inits: u64,
    /// Breaks of FIDs that were not known.
    pub(crate) unknown: u64,
}

/// The server's undertaking to notify.
#[derive(Clone, Debug)]
pub(crate) struct Promise {
    expires_at: Instant,
    server: Arc<Server>,
    server_inits: u64,
    stamp: Stamp,
}

impl Promise {
    /// The promise that `callback` gives, if it gives one. It was sent at `issued.at`, from which the server's relative
    /// time is counted: that errs on the safe side.
    pub(crate) fn from_reply(
        callback: &CallBack,
        stamp: Stamp,
        issued: &Issued,
        read_only: bool,
    ) -> Option<Self> {
        if callback.version != 1 || !matches!(callback.callback_type, 1 | 2) {
            return None;
        }
        let seconds = match callback.expiration_time {
            0 if read_only => READ_ONLY_DEFAULT,
            0 => return None,
            seconds => u64::from(seconds).min(LONGEST),
        };
        Some(Self {
            expires_at: issued.at + Duration::from_secs(seconds).saturating_sub(MARGIN),
            server: Arc::clone(&issued.server),
            server_inits: issued.server_inits,
            stamp,
        })
    }

    /// How long it still stands at `now`, given the counters of now; `None` if it does not.
    pub(crate) fn remaining(&self, stamp: Stamp, now: Instant) -> Option<Duration> {
        if self.stamp != stamp || self.server.init_counter() != self.server_inits {
            return None;
        }
        self.expires_at
            .checked_duration_since(now)
            .filter(|rest| !rest.is_zero())
    }

    /// When it ends, if nothing ends it before.
    pub(crate) fn expires_at(&self) -> Instant {
        self.expires_at
    }

    /// Who gave it.
    pub(crate) fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

/// A promise is not relied on in its last seconds.
const MARGIN: Duration = Duration::from_secs(10);
/// What a promise of a read-only volume without a time means.
const READ_ONLY_DEFAULT: u64 = 3600;
/// No server promises for longer than this; one that does is not believed.
const LONGEST: u64 = 7 * 24 * 3600;
