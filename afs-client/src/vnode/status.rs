//! The fetched attributes of a vnode, checked.

use std::time::{Duration, SystemTime};

use rustix::io::Errno;

use crate::error::Error;
use crate::fs::{Attr, Kind, OpenFlags};
use crate::rpc::types::{FetchStatus, StoreStatus};
use crate::store::Served;
use crate::types::{DataVersion, Fid, Uniquifier, VnodeId};

/// The fetched attributes of a vnode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) kind: Kind,
    pub(crate) links: u32,
    pub(crate) size: u64,
    pub(crate) version: DataVersion,
    pub(crate) owner: u32,
    pub(crate) group: u32,
    pub(crate) mode: u16,
    /// Rights of the identity that asked.
    pub(crate) access: u32,
    /// Rights of everybody.
    pub(crate) public: u32,
    /// The directory it is in, or was put in last; the root of a volume is in itself.
    pub(crate) parent: (VnodeId, Uniquifier),
    pub(crate) modified: u32,
    pub(crate) changed: u32,
}

/// A status that no honest server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadStatus {
    #[error("interface version {0}")]
    Version(u32),
    #[error("file type {0}")]
    Type(u32),
    #[error("error code {0} in a status that stands alone")]
    Code(i32),
    #[error("no parent")]
    Parent,
    #[error("length {0}")]
    Length(u64),
    #[error("an odd vnode number is a directory, an even one is not")]
    Parity,
}

impl Status {
    /// Checks what came from the wire for a vnode.
    pub(crate) fn check(vnode: VnodeId, wire: &FetchStatus) -> Result<Self, BadStatus> {
        if wire.interface_version != 1 {
            return Err(BadStatus::Version(wire.interface_version));
        }
        if wire.error_code != 0 {
            return Err(BadStatus::Code(wire.error_code));
        }
        let kind = match wire.file_type {
            1 => Kind::File,
            2 => Kind::Directory,
            3 => Kind::Symlink,
            other => return Err(BadStatus::Type(other)),
        };
        if wire.parent_vnode == 0 || wire.parent_unique == 0 {
            return Err(BadStatus::Parent);
        }
        if (kind == Kind::Directory) != vnode.is_directory() {
            return Err(BadStatus::Parity);
        }
        let size = wire.length();
        let longest = match kind {
            Kind::File => i64::MAX as u64,
            Kind::Directory => MAX_DIRECTORY,
            Kind::Symlink => MAX_LINK,
        };
        if size > longest {
            return Err(BadStatus::Length(size));
        }
        Ok(Self {
            kind,
            links: wire.link_count,
            size,
            version: wire.data_version(),
            owner: wire.owner,
            group: wire.group,
            // Setuid and setgid of a foreign cell mean nothing here.
            mode: u16::try_from(wire.unix_mode_bits & 0o1777).unwrap_or_default(),
            access: wire.caller_access,
            public: wire.anonymous_access,
            parent: (VnodeId(wire.parent_vnode), Uniquifier(wire.parent_unique)),
            modified: wire.client_mod_time,
            changed: wire.server_mod_time,
        })
    }

    /// What it says of the contents.
    pub(crate) const fn served(&self) -> Served {
        Served {
            version: self.version,
            len: self.size,
            changed: self.changed,
        }
    }

    /// As it will be once the server has what was set here and is noted: nothing but bits and a time.
    pub(crate) fn with(self, noted: StoreStatus) -> Self {
        let mode = u16::try_from(noted.unix_mode_bits).ok();
        Self {
            mode: mode
                .filter(|_| noted.has(StoreStatus::SET_MODE))
                .unwrap_or(self.mode),
            modified: if noted.has(StoreStatus::SET_MTIME) {
                noted.client_mod_time
            } else {
                self.modified
            },
            ..self
        }
    }

    /// May the contents be read by who has these rights? (afs-rpc.md 4, "who may do what": of a file the owner's mode bits
    /// count, but not for the owner.)
    pub(crate) const fn is_readable_with(&self, access: u32) -> bool {
        match self.kind {
            Kind::Directory => access & LOOKUP != 0,
            Kind::File => {
                (access & READ != 0 && (self.mode & 0o500 != 0 || access & OWNER != 0)) || is_own(access)
            }
            Kind::Symlink => access & (LOOKUP | READ) != 0,
        }
    }

    /// May a file be written by who has these rights?
    pub(crate) const fn is_writable_with(&self, access: u32) -> bool {
        (access & WRITE != 0 && self.mode & 0o200 != 0) || is_own(access)
    }

    /// May the attributes of a file be set by who has these rights?
    pub(crate) const fn is_settable_with(&self, access: u32) -> bool {
        access & WRITE != 0 || is_own(access)
    }

    /// Do the owner's bits let anybody open a file so? Servers do not ask them of its owner; clients do, of whoever opens it
    /// after it was made.
    pub(crate) fn may_open(&self, flags: OpenFlags) -> Result<(), Error> {
        let may_read = !flags.read || self.mode & 0o500 != 0;
        let may_write = !(flags.write || flags.truncate) || self.mode & 0o200 != 0;
        if self.kind != Kind::File || (may_read && may_write) {
            Ok(())
        } else {
            Err(Errno::ACCESS.into())
        }
    }

    /// Could it change what the caller may do with a file if it were the caller's own?
    pub(crate) const fn depends_on_owner(&self, access: u32) -> bool {
        let own = access | OWNER;
        self.is_readable_with(own) != self.is_readable_with(access)
            || self.is_writable_with(own) != self.is_writable_with(access)
    }

    /// The directory that it is in, as far as its volume goes.
    pub(crate) const fn directory_of(&self, fid: Fid) -> Fid {
        let (vnode, unique) = self.parent;
        fid.sibling(vnode, unique)
    }

    /// Who may not look names up in a directory learns of none.
    ///
    /// # Errors
    ///
    /// `EACCES`.
    pub(crate) const fn may_search(&self) -> Result<(), Error> {
        if self.access & LOOKUP != 0 {
            Ok(())
        } else {
            Err(Error::bare(Errno::ACCESS))
        }
    }

    /// Is it written as mount points are? Its contents decide.
    pub(crate) fn may_be_mount_point(&self) -> bool {
        self.kind == Kind::Symlink && self.mode & 0o111 == 0
    }

    /// As the file system shows it.
    pub(crate) fn attr(&self, fid: Fid) -> Attr {
        Attr {
            fid,
            kind: self.kind,
            size: self.size,
            data_version: self.version,
            mode: self.mode,
            nlink: self.links,
            uid: self.owner,
            gid: self.group,
            mtime: from_seconds(self.modified),
            ctime: from_seconds(self.modified.max(self.changed)),
        }
    }
}

/// Who may insert may do with what they have inserted as they like.
const fn is_own(access: u32) -> bool {
    access & (INSERT | OWNER) == INSERT | OWNER
}

/// A time of the protocol.
pub(crate) fn from_seconds(seconds: u32) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into())
}

/// A time for the protocol: whole seconds, and what does not fit is clamped.
pub(crate) fn to_seconds(time: SystemTime) -> u32 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

// Rights of an ACL (OpenAFS prs_fs.h).
pub(crate) const READ: u32 = 1;
pub(crate) const WRITE: u32 = 2;
pub(crate) const INSERT: u32 = 4;
pub(crate) const LOOKUP: u32 = 8;
pub(crate) const DELETE: u32 = 16;
/// In the rights to what is not a directory: it is the caller's own (afs-rpc.md 3, ADMINISTER).
pub(crate) const OWNER: u32 = 64;
/// The longest directory blob: 1023 pages.
pub(crate) const MAX_DIRECTORY: u64 = 1023 * 2048;
/// The longest link text; servers take 1024 bytes, other implementations up to a page.
pub(crate) const MAX_LINK: u64 = 4095;
