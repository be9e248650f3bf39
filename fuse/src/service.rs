//! What a service manager does for a mount: it is told when the mount answers and that it still does, and holds the mount's
//! descriptors for the next process (`FileDescriptorStoreMax=`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use sd_notify::NotifyState;

use crate::keeper::Held;

/// Says that the mount answers.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that it is about to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager nothing is said, and that is no error.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// Says again and again that the mount answers, if it does and the service manager wants to hear of it (`WatchdogSec=`).
/// Needs a tokio runtime.
pub fn watch(at: PathBuf) {
    let Some(patience) = sd_notify::watchdog_enabled() else {
        return;
    };
    tokio::spawn(async move {
        loop {
            let at = at.clone();
            let asked = tokio::task::spawn_blocking(move || {
                // Past what the kernel remembers. The root is in memory: no server is asked.
                statx(CWD, &at, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS).map(drop)
            });
            if let Ok(Ok(())) = asked.await {
                tell(&[NotifyState::Watchdog]);
            }
            tokio::time::sleep(patience.min(LONGEST) / 3).await;
        }
    });
}

/// Leaves the descriptors of a mount with the service manager.
pub fn store(held: &Held) -> io::Result<()> {
    for (name, descriptor) in [(DEVICE, held.device.as_fd()), (STATE, held.state.as_fd())] {
        sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(name)], &[descriptor])?;
    }
    Ok(())
}

/// Has the service manager let go of them.
pub fn forget() {
    for name in [DEVICE, STATE] {
        tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)]);
    }
}

/// What a process before has left with the service manager.
pub fn stored() -> io::Result<Option<Held>> {
    let (mut device, mut state) = (None, None);
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    for (number, name) in sd_notify::listen_fds_with_names()? {
        let wanted = match name.as_str() {
            DEVICE => &mut device,
            STATE => &mut state,
            _ => continue,
        };
        // A duplicate of what has no owner in this program.
        let duplicate: OwnedFd = pidfd_getfd(&own, number, PidfdGetfdFlags::empty())?;
        *wanted = Some(duplicate);
    }
    Ok(device.zip(state).map(|(device, state)| Held { device, state }))
}

const DEVICE: &str = "afs-device";
const STATE: &str = "afs-state";
const LONGEST: Duration = Duration::from_secs(60);
