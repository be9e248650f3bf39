//! What the servers of a cell take for the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// Unix time, from the system or as a test sets it. Clones share it.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System,
    /// Seconds.
    Set(AtomicU64),
}

impl Clock {
    /// The time of the system.
    #[must_use]
    pub fn system() -> Self {
        Self(Arc::new(Source::System))
    }

    /// A clock that stands until it is moved.
    #[must_use]
    pub fn standing(seconds: u32) -> Self {
        Self(Arc::new(Source::Set(AtomicU64::new(seconds.into()))))
    }

    /// Moves a standing clock on. That of the system goes by itself.
    pub fn advance(&self, by: Duration) {
        if let Source::Set(seconds) = &*self.0 {
            seconds.fetch_add(by.as_secs(), Ordering::Relaxed);
        }
    }

    /// Unix seconds.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "files carry the time of the world")]
    pub fn now(&self) -> u32 {
        let seconds = match &*self.0 {
            Source::System => SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |time| time.as_secs()),
            Source::Set(seconds) => seconds.load(Ordering::Relaxed),
        };
        u32::try_from(seconds).unwrap_or(u32::MAX)
    }
}
