//! Whether somebody who waits for an answer is to end.
//!
//! fuser answers FUSE_INTERRUPT by ENOSYS, whereupon the kernel lets nobody go before the answer is there. So a request that
//! waits long looks for itself, in `/proc`, whether its thread has been sent a signal that is to end it.

use std::time::Duration;

use crate::process::Signals;

/// Returns when a thread that has waited for a while is asked to end; never for 0, which cannot be seen from here.
/// Cancel safe.
pub(super) async fn asked_to_end(thread: u32) {
    tokio::time::sleep(PATIENCE).await;
    loop {
        match Signals::of(thread) {
            Some(signals) if signals.ask_to_end() => return,
            Some(_) => tokio::time::sleep(LOOKED_AT).await,
            None => std::future::pending().await,
        }
    }
}

/// Most answers come sooner, and nobody looks.
const PATIENCE: Duration = Duration::from_millis(300);
const LOOKED_AT: Duration = Duration::from_millis(200);
