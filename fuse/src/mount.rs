//! The mount point: what must hold before mounting, and how to get rid of a mount.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::failure::{Failure, Kind};
pub use crate::mount_table::at as mounted_at;

/// The file system type that the kernel shows for our mounts.
pub const FS_TYPE: &str = "fuse.afs";
/// The source that the kernel shows for our mounts. No file is called so: mount(8) would take `afs` for one that is there.
pub const SOURCE: &str = "afs-fuse";

/// Checks that FUSE can be used by this process.
pub fn check_fuse(allow_other: bool) -> Result<(), Failure> {
    let device = "/dev/fuse";
    let root = rustix::process::geteuid().is_root();
    if let Err(error) = OpenOptions::new().read(true).write(true).open(device) {
        return Err(match error.kind() {
            ErrorKind::NotFound => Failure::new(Kind::Fuse, format!("{device} does not exist"))
                .cure("load the module with `modprobe fuse', or give the container --device /dev/fuse"),
            // Without root the set-uid helper opens the device.
            _ if !root && error.kind() == ErrorKind::PermissionDenied && helper().is_some() => return Ok(()),
            ErrorKind::PermissionDenied => {
                Failure::new(Kind::Fuse, format!("no permission to open {device}"))
                    .cure("run as root, or give the container --device /dev/fuse --cap-add SYS_ADMIN")
            }
            _ => Failure::new(Kind::Fuse, format!("cannot open {device}: {error}"))
                .cure("load the module with `modprobe fuse'"),
        });
    }
    if root {
        return Ok(());
    }
    if helper().is_none() {
        return Err(Failure::new(
            Kind::Fuse,
            "mounting without root needs fusermount3, which is not installed",
        )
        .cure("install the package fuse3, or run as root"));
    }
    if allow_other && !user_allow_other() {
        return Err(
            Failure::new(Kind::Fuse, "--allow-other without root is not permitted here")
                .cure("add the line user_allow_other to /etc/fuse.conf, or run as root"),
        );
    }
    Ok(())
}

/// Checks the mount point and gives its absolute path. A dead mount that an earlier afs left there is removed. One that is
/// mounted on demand (autofs, `x-systemd.automount`) is taken as it is.
pub fn check_mount_point(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::new(Kind::MountPoint, format!("mount point {shown}: {error}")))?;
    // Where systemd or autofs waits for somebody to look, this mount is what they wait for: looking would wait for itself.
    if mounted_at(&lexical(&absolute)).is_some_and(|mounted| mounted.fs_type == "autofs") {
        return Ok(lexical(&absolute));
    }
    let mut found = fs::metadata(&absolute);
    // The kernel may know the attributes of a dead one still.
    let opened = fs::read_dir(&absolute).map(drop);
    let is_dead = |error: Option<&io::Error>| {
        error.and_then(io::Error::raw_os_error) == Some(Errno::NOTCONN.raw_os_error())
    };
    if is_dead(found.as_ref().err()) || is_dead(opened.as_ref().err()) {
        match mounted_at(&lexical(&absolute)) {
            Some(mounted) if mounted.fs_type == FS_TYPE => {
                tracing::warn!(mount_point = %shown, "removing a dead mount that an earlier afs left");
                unmount(&absolute, Duration::ZERO).map_err(|error| stale(&absolute, &error.to_string()))?;
                found = fs::metadata(&absolute);
            }
            _ => return Err(stale(&absolute, "transport endpoint is not connected")),
        }
    }
    let metadata = found.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::new(Kind::MountPoint, format!("mount point {shown} does not exist"))
            .cure(format!("create it with `mkdir -p {shown}'")),
        _ => Failure::new(Kind::MountPoint, format!("mount point {shown}: {error}"))
            .cure("choose a directory you may use"),
    })?;
    if !metadata.is_dir() {
        return Err(Failure::new(
            Kind::MountPoint,
            format!("mount point {shown} is not a directory"),
        )
        .cure("choose an empty directory"));
    }
    let canonical = fs::canonicalize(&absolute)
        .map_err(|error| Failure::new(Kind::MountPoint, format!("mount point {shown}: {error}")))?;
    if let Some(mounted) = mounted_at(&canonical)
        && (mounted.fs_type.starts_with("fuse") || mounted.fs_type.ends_with("afs"))
    {
        let what = format!(
            "{shown} is already a mount of {} ({})",
            mounted.source, mounted.fs_type
        );
        return Err(Failure::new(Kind::MountPoint, what).cure(format!(
            "unmount it with `afs umount {shown}', or choose another directory"
        )));
    }
    let mut entries = fs::read_dir(&canonical).map_err(|error| {
        Failure::new(
            Kind::MountPoint,
            format!("mount point {shown} cannot be read: {error}"),
        )
        .cure("choose a directory you may use")
    })?;
    if entries.next().is_some() {
        return Err(
            Failure::new(Kind::MountPoint, format!("mount point {shown} is not empty"))
                .cure("choose an empty directory"),
        );
    }
    Ok(canonical)
}

/// Unmounts. A busy mount is retried for `patience`, then detached: its last user still gets answers while the
/// process that serves it lives.
pub fn unmount(path: &Path, patience: Duration) -> io::Result<Unmounted> {
    let until = Instant::now() + patience;
    loop {
        match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
            Ok(()) => return Ok(Unmounted::Clean),
            // Not a mount point (any more).
            Err(Errno::INVAL | Errno::NOENT) => return Ok(Unmounted::Already),
            Err(Errno::PERM) => return unmount_by_helper(path),
            Err(Errno::BUSY) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Err(_) => break,
        }
    }
    rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
    Ok(Unmounted::Detached)
}

/// How an unmount went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// Gone at once.
    Clean,
    /// Out of the tree; gone when its last user is.
    Detached,
    /// There was nothing to do.
    Already,
}

/// The path with `.` and `..` resolved by name alone, because a dead mount cannot be looked at.
pub fn lexical(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

fn stale(path: &Path, why: &str) -> Failure {
    Failure::new(
        Kind::MountPoint,
        format!("mount point {} holds a dead mount: {why}", path.display()),
    )
    .cure(format!("remove it with `umount -l {}'", path.display()))
}

fn unmount_by_helper(path: &Path) -> io::Result<Unmounted> {
    let Some(helper) = helper() else {
        return Err(io::Error::new(
            ErrorKind::PermissionDenied,
            "unmounting without root needs fusermount3",
        ));
    };
    let mut last = String::new();
    for (flags, outcome) in [("-u", Unmounted::Clean), ("-uz", Unmounted::Detached)] {
        let output = Command::new(&helper)
            .arg(flags)
            .arg("--")
            .arg(path)
            .stdin(Stdio::null())
            .output()?;
        if output.status.success() {
            return Ok(outcome);
        }
        last = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    Err(io::Error::other(last))
}

fn helper() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("FUSERMOUNT_PATH") {
        return Some(PathBuf::from(path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/bin", "/usr/bin", "/sbin"].map(PathBuf::from))
        .flat_map(|dir| ["fusermount3", "fusermount"].map(|name| dir.join(name)))
        .find(|candidate| candidate.is_file())
}

fn user_allow_other() -> bool {
    fs::read_to_string("/etc/fuse.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "user_allow_other"))
}

/// Asks the kernel through the mount itself: proof that the mount is served.
pub fn answers(path: &Path) -> io::Result<()> {
    File::open(path)?.metadata().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lexical_paths() {
        assert_eq!(lexical(Path::new("/a/./b/../c")), PathBuf::from("/a/c"));
    }

    #[test]
    fn unusable_mount_points_are_told_with_a_cure() {
        let dir = tempfile::tempdir().unwrap();
        let missing = check_mount_point(&dir.path().join("x")).unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("does not exist; create it with `mkdir -p"),
            "{missing}"
        );
        fs::write(dir.path().join("file"), b"").unwrap();
        let file = check_mount_point(&dir.path().join("file")).unwrap_err();
        assert!(
            file.to_string()
                .contains("is not a directory; choose an empty directory"),
            "{file}"
        );
        let full = check_mount_point(dir.path()).unwrap_err();
        assert!(
            full.to_string()
                .contains("is not empty; choose an empty directory"),
            "{full}"
        );
        assert!(
            [missing, file, full]
                .iter()
                .all(|failure| failure.kind() == Kind::MountPoint)
        );
        fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(check_mount_point(&dir.path().join("empty")).is_ok());
    }
}
