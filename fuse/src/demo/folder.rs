//! What a demo has on disk, and how the next one finds what a killed one left.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;

use crate::failure::{Failure, Kind};
use crate::mount::{FS_TYPE, mounted_at, unmount};

/// The folder of a running demo.
#[derive(Debug)]
pub(super) struct Folder {
    folder: PathBuf,
    mount_point: PathBuf,
    /// Locked as long as the process lives.
    _lock: File,
}

impl Folder {
    /// Makes it, with a mount point in it unless one is given.
    pub(super) fn make(mount_point: Option<&Path>) -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("{}{}", prefix(), std::process::id()));
        Self::make_at(folder.clone(), mount_point)
            .map_err(|error| Failure::new(Kind::Other, format!("{}: {error}", folder.display())))
    }

    fn make_at(folder: PathBuf, mount_point: Option<&Path>) -> io::Result<Self> {
        // A name that somebody else took is an error, not a place to work in.
        DirBuilder::new().mode(0o700).create(&folder)?;
        let lock = File::create(folder.join(LOCK))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let mount_point = match mount_point {
            Some(given) => std::path::absolute(given)?,
            None => {
                let own = folder.join(MOUNT_POINT);
                fs::create_dir(&own)?;
                own
            }
        };
        let link = folder.join(WHERE);
        std::os::unix::fs::symlink(&mount_point, link)?;
        Ok(Self {
            folder,
            mount_point,
            _lock: lock,
        })
    }

    /// A file in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the cell is mounted.
    pub(super) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Removes it.
    pub(super) fn remove(self) {
        clear(&self.folder);
    }
}

/// Removes what demos of this user left that were killed.
pub(super) fn sweep() {
    sweep_in(&std::env::temp_dir());
}

fn sweep_in(place: &Path) {
    let Ok(entries) = fs::read_dir(place) else { return };
    let prefix = prefix();
    for entry in entries.flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(&prefix)
            && fs::symlink_metadata(entry.path())
                .is_ok_and(|found| found.is_dir() && found.uid() == rustix::process::getuid().as_raw());
        if is_ours && is_left(&entry.path()) {
            clear(&entry.path());
        }
    }
}

/// Is the one who made the folder gone?
fn is_left(folder: &Path) -> bool {
    match File::open(folder.join(LOCK)) {
        Ok(lock) => rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
        // It was killed before it had a lock, or is about to get one.
        Err(_) => fs::metadata(folder).is_ok_and(|found| {
            found
                .modified()
                .is_ok_and(|time| time.elapsed().is_ok_and(|age| age > BIRTH))
        }),
    }
}

/// Removes a folder, file by file: what is mounted in it is never entered.
fn clear(folder: &Path) {
    if let Ok(point) = fs::read_link(folder.join(WHERE))
        && mounted_at(&point).is_some_and(|mounted| mounted.fs_type == FS_TYPE)
        && let Err(error) = unmount(&point, Duration::ZERO)
    {
        tracing::warn!(mount_point = %point.display(), %error, "a dead mount stays");
        return;
    }
    let _ = fs::remove_dir(folder.join(MOUNT_POINT));
    // The lock last: a folder without one is not known for what it is.
    for name in ["CellServDB", "log", WHERE, LOCK] {
        let _ = fs::remove_file(folder.join(name));
    }
    if let Err(error) = fs::remove_dir(folder) {
        tracing::warn!(folder = %folder.display(), %error, "a folder of a demo stays");
    }
}

/// Folders of this user begin with it.
fn prefix() -> String {
    format!("afs-demo-{}-", rustix::process::getuid().as_raw())
}

const LOCK: &str = "lock";
const MOUNT_POINT: &str = "mnt";
/// A link to the mount point.
const WHERE: &str = "where";
/// A folder without a lock is given so long to get one.
const BIRTH: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_demo_left_is_removed_and_what_runs_stays() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(format!("{}{name}", prefix()));
        let running = Folder::make_at(at("1"), None).unwrap();
        let killed = Folder::make_at(at("2"), None).unwrap();
        fs::write(killed.path("CellServDB"), "x").unwrap();
        // The kernel closes the lock of a process that is killed.
        drop(killed);
        fs::create_dir(place.path().join("afs-demo-other")).unwrap();
        fs::create_dir(at("young")).unwrap();
        sweep_in(place.path());
        let mut left: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        left.sort();
        let mut expected = vec![at("1"), at("young"), place.path().join("afs-demo-other")];
        expected.sort();
        assert_eq!(left, expected);
        assert!(running.mount_point().is_dir());
        running.remove();
        assert!(!at("1").exists());
    }

    #[test]
    fn a_name_that_is_taken_is_not_used() {
        let place = tempfile::tempdir().unwrap();
        let taken = Folder::make_at(place.path().to_owned(), None).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    }
}
