//! Where the cache manager takes the time from.
//!
//! The one place below the program that asks for it. It goes through the runtime, so that tests can stop and move it.

use std::time::{Instant, SystemTime};

/// The present.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The time of day, for what is compared with that of others: tickets, and files.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that asks for it")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Waits until `at`. Cancel safe.
pub async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}
