//! The one place where the driver reads a clock.

use std::time::{Instant, SystemTime};

use crate::proto::WallClock;

/// Time as the endpoint sees it: instants for the protocol, milliseconds since its start for the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Instant,
}

impl Clock {
    /// A clock that starts at 0 ms.
    pub(crate) fn start() -> Self {
        Self { base: read() }
    }

    /// The instant it is.
    #[expect(clippy::unused_self, reason = "time is asked of a clock, not of the world")]
    pub(crate) fn now(self) -> Instant {
        read()
    }

    /// What the calendar says.
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    pub(crate) fn wall(self) -> WallClock {
        WallClock {
            read_at: self.now(),
            unix: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    /// Milliseconds from the start of the clock to `at`.
    pub(crate) fn millis(self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.base).as_millis()).unwrap_or(u64::MAX)
    }

    /// The instant `millis` after the start of the clock.
    pub(crate) fn at(self, millis: u64) -> Instant {
        self.base + std::time::Duration::from_millis(millis)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place")]
fn read() -> Instant {
    Instant::now()
}
