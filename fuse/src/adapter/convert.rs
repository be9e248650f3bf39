//! Types of the one side as types of the other.

use std::time::{Duration, SystemTime};

use afs_client::fs::{Access, Attr, Kind, OpenFlags, SetAttr};
use fuser::{AccessFlags, FileAttr, FileType, INodeNo, OpenAccMode, TimeOrNow};

/// Attributes as the kernel takes them.
pub(super) fn attributes(id: u64, attr: &Attr, (uid, gid): (u32, u32)) -> FileAttr {
    FileAttr {
        ino: INodeNo(id),
        size: attr.size,
        blocks: attr.blocks(),
        atime: attr.mtime,
        mtime: attr.mtime,
        ctime: attr.ctime,
        crtime: attr.ctime,
        kind: file_type(attr.kind),
        perm: attr.mode,
        nlink: attr.nlink,
        uid,
        gid,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// The attributes of nothing: with node id 0 they make a negative entry.
pub(super) const fn absent() -> FileAttr {
    unknown(0, Kind::File)
}

/// Attributes of an object of which nothing else is known.
pub(super) const fn unknown(id: u64, kind: Kind) -> FileAttr {
    let zero = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(id),
        size: 0,
        blocks: 0,
        atime: zero,
        mtime: zero,
        ctime: zero,
        crtime: zero,
        kind: file_type(kind),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

pub(super) const fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
    }
}

pub(super) fn open_flags(flags: fuser::OpenFlags) -> OpenFlags {
    let mode = flags.acc_mode();
    OpenFlags {
        read: mode != OpenAccMode::O_WRONLY,
        write: mode != OpenAccMode::O_RDONLY,
        truncate: flags.0 & libc::O_TRUNC != 0,
        append: flags.0 & libc::O_APPEND != 0,
    }
}

pub(super) fn access(mask: AccessFlags) -> Access {
    Access {
        read: mask.contains(AccessFlags::R_OK),
        write: mask.contains(AccessFlags::W_OK),
        execute: mask.contains(AccessFlags::X_OK),
    }
}

pub(super) fn set_attr(
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    mtime: Option<TimeOrNow>,
    is_open: bool,
) -> SetAttr {
    let mtime = mtime.map(|time| match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    });
    SetAttr {
        mode: mode.map(permissions),
        mtime,
        size,
        is_open: size.is_some() && is_open,
        uid,
        gid,
    }
}

/// The permission bits of a mode.
pub(super) fn permissions(mode: u32) -> u16 {
    u16::try_from(mode & 0o7777).unwrap_or(0)
}

/// No lifetime is longer than this, however long the promise: should a notification ever cross the reply that it is
/// about, the mistake ends by itself.
pub(super) fn lifetime(promise: Duration) -> Duration {
    promise.min(MAX_LIFETIME)
}

const MAX_LIFETIME: Duration = Duration::from_secs(120);
/// What programs are advised to read and write at once.
const BLOCK_SIZE: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_flags_keep_their_meaning() {
        let flags = open_flags(fuser::OpenFlags(libc::O_RDWR | libc::O_TRUNC | libc::O_CLOEXEC));
        assert_eq!(
            flags,
            OpenFlags {
                read: true,
                write: true,
                truncate: true,
                append: false
            }
        );
        let flags = open_flags(fuser::OpenFlags(libc::O_WRONLY | libc::O_APPEND));
        assert_eq!(
            flags,
            OpenFlags {
                read: false,
                write: true,
                truncate: false,
                append: true
            }
        );
        assert!(open_flags(fuser::OpenFlags(libc::O_RDONLY)).read);
    }

    #[test]
    fn only_permission_bits_pass() {
        assert_eq!(permissions(libc::S_IFREG | 0o4755), 0o4755);
    }

    #[test]
    fn lifetimes_are_bounded() {
        assert_eq!(lifetime(Duration::from_secs(9)), Duration::from_secs(9));
        assert_eq!(lifetime(Duration::MAX), MAX_LIFETIME);
    }
}
