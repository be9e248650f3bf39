//! Where the cache manager takes the time from.
//!
//! The one place below the program that asks for it. It goes through the runtime, so that tests can stop and move it.

use std::time::Instant;

/// The present.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until `at`. Cancel safe.
pub async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}
