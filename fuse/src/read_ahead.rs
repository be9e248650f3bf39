//! How far the kernel reads ahead in a mount.
//!
//! The machine: the kernel limits it to 128 KiB, whatever the file system asks for when it is mounted, so it is set from outside
//! when the first question was answered. That takes root; without, each request for what lies in the cache directory is
//! smaller, and the reader waits for an answer more often.

use std::path::{Path, PathBuf};

use crate::mount::mounted_at;
use crate::mount_table::Device;

/// Has the kernel read ahead twice as far as it does by itself. Further is of no more use on the disk, and slows a cold read over
/// the network, which is answered when all of a request is there.
pub fn widen(at: &Path) {
    let Some(mount) = mounted_at(at) else { return };
    if let Err(error) = std::fs::write(limit_of(mount.device), KIB) {
        tracing::debug!(%error, "the kernel reads ahead no further than it does by itself");
    }
}

fn limit_of(Device { major, minor }: Device) -> PathBuf {
    PathBuf::from(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"))
}

const KIB: &str = "256";
