//! The mount point: what must hold before mounting, and how to get rid of a mount.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::failure::{Failure, Kind};

/// The file system type that the kernel shows for our mounts.
pub const FS_TYPE: &str = "fuse.afs";
/// The source that the kernel shows for our mounts.
pub const SOURCE: &str = "afs";

/// The last mount at a path, from /proc/self/mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    /// File system type.
    pub fs_type: String,
    /// Source of the mount.
    pub source: String,
    /// Minor number of its device.
    pub minor: u32,
}

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

/// Checks the mount point and gives its absolute path. A dead mount that an earlier afs left there is removed.
pub fn check_mount_point(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let absolute = std::path::absolute(path)
        .map_err(|error| Failure::new(Kind::MountPoint, format!("mount point {shown}: {error}")))?;
    let mut found = fs::metadata(&absolute);
    if found.as_ref().err().and_then(io::Error::raw_os_error) == Some(Errno::NOTCONN.raw_os_error()) {
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

/// What is mounted exactly at a path, if anything; the uppermost if there are several.
pub fn mounted_at(path: &Path) -> Option<Mounted> {
    let table = fs::read("/proc/self/mountinfo").ok()?;
    parse_mountinfo(&table, path)
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

fn parse_mountinfo(table: &[u8], path: &Path) -> Option<Mounted> {
    let mut last = None;
    for line in table.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ');
        let (Some(device), Some(at)) = (fields.nth(2), fields.nth(1)) else {
            continue;
        };
        if unescape(at) != path.as_os_str().as_bytes() {
            continue;
        }
        // Optional fields end at a lone dash.
        let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
        let (Some(fs_type), Some(source), Some(minor)) = (rest.next(), rest.next(), minor(device)) else {
            continue;
        };
        last = Some(Mounted {
            fs_type: String::from_utf8_lossy(fs_type).into_owned(),
            source: String::from_utf8_lossy(&unescape(source)).into_owned(),
            minor,
        });
    }
    last
}

/// Of `major:minor`.
fn minor(device: &[u8]) -> Option<u32> {
    let (_, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    minor.parse().ok()
}

/// Undoes the `\ooo` escapes of the kernel's mount tables.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'\\'
            && let Some((digits, after)) = tail.split_at_checked(3)
            && let Some(byte) = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            out.push(byte);
            rest = after;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

/// Asks the kernel through the mount itself: proof that the mount is served.
pub fn answers(path: &Path) -> io::Result<()> {
    File::open(path)?.metadata().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_gives_the_uppermost_mount() {
        let table = b"22 1 0:20 / / rw - ext4 /dev/vda rw\n\
            40 22 0:40 / /a\\040b rw,nosuid shared:1 - tmpfs none rw\n\
            41 40 0:41 / /a\\040b rw,nosuid - fuse.afs afs rw\n";
        let mounted = parse_mountinfo(table, Path::new("/a b")).unwrap();
        assert_eq!(
            mounted,
            Mounted {
                fs_type: "fuse.afs".into(),
                source: "afs".into(),
                minor: 41
            }
        );
        assert_eq!(parse_mountinfo(table, Path::new("/a")), None);
        assert_eq!(parse_mountinfo(b"junk\n\n1 2\n", Path::new("/a")), None);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(b"a\\040b\\134c"), b"a b\\c");
        assert_eq!(unescape(b"tail\\04"), b"tail\\04");
    }

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
