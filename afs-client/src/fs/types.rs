//! What [`AfsFs`](super::AfsFs) takes and gives: attributes, entries, listings, flags.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use rxrpc::net::EndpointConfig;

use crate::auth::TokenRules;
use crate::cell::Cells;
use crate::lock::LockScope;
use crate::store::Encryption;
use crate::sysname::SysNames;
use crate::types::{DataVersion, Fid};

/// How a file system is set up.
#[derive(Clone)]
pub struct Config {
    /// The cells that are known; the home cell among them.
    pub cells: Arc<Cells>,
    /// Where the endpoint binds. Calls leave it and callbacks come back to it.
    pub endpoint: EndpointConfig,
    /// Where file data is kept.
    pub cache: CacheConfig,
    /// Where it is written down which removed files are open still, if the cache is in memory: the next program that is given
    /// this file removes what a crash has left of them. With a cache directory it is written there.
    pub notes: Option<PathBuf>,
    /// `close` returns when what was written is in the journal of the cache directory; it is stored behind, and so are bits
    /// and times that are set before.
    pub store_behind: bool,
    /// Refuse every modification with `EROFS`.
    pub read_only: bool,
    /// The longest time that one operation may wait for servers.
    pub deadline: Duration,
    /// How many vnodes are remembered when nothing uses them.
    pub max_vnodes: usize,
    /// How tokens are used.
    pub tokens: TokenRules,
    /// Which locks servers hear of.
    pub locks: LockScope,
    /// What `@sys` stands for.
    pub sysnames: SysNames,
    /// Which mount points are seen without being crossed.
    pub fakestat: Fakestat,
}

impl Config {
    /// So many vnodes are remembered by default.
    pub const MAX_VNODES: usize = 50_000;

    /// With what a mount has by default.
    #[must_use]
    pub fn new(cells: Arc<Cells>, endpoint: EndpointConfig, cache: CacheConfig) -> Self {
        Self {
            cells,
            endpoint,
            cache,
            notes: None,
            store_behind: false,
            read_only: false,
            deadline: Duration::from_mins(1),
            max_vnodes: Self::MAX_VNODES,
            tokens: TokenRules::default(),
            locks: LockScope::default(),
            sysnames: SysNames::default(),
            fakestat: Fakestat::default(),
        }
    }
}

/// Which mount points are seen without asking for what they lead to: their attributes are made up until somebody goes in.
/// The others are crossed when they are looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fakestat {
    /// All, and the cells in the directory of cells.
    #[default]
    All,
    /// Those that lead to another cell, and the cells in the directory of cells.
    Cells,
    /// None.
    Off,
}

/// Where file data is kept, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheConfig {
    /// In files under a directory of our own.
    Dir {
        /// The directory; made if missing. What an earlier run left there is used where servers say that it still is so.
        path: PathBuf,
        /// The most data kept.
        max_bytes: u64,
        /// How it is hidden from who has the directory.
        encryption: Encryption,
    },
    /// In memory.
    Memory {
        /// The most data kept.
        max_bytes: u64,
    },
}

/// What an object is. A mount point is a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// The attributes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// The object.
    pub fid: Fid,
    /// What it is.
    pub kind: Kind,
    /// Length in bytes; what was written here and not stored yet counts.
    pub size: u64,
    /// The server's change counter.
    pub data_version: DataVersion,
    /// Permission bits (12 bits, no type); setuid and setgid are masked.
    pub mode: u16,
    /// Link count.
    pub nlink: u32,
    /// Owner, a ViceId taken as uid.
    pub uid: u32,
    /// Group, taken as gid.
    pub gid: u32,
    /// Last modification; AFS keeps no access time, so this stands for it.
    pub mtime: SystemTime,
    /// Last change as the server saw it.
    pub ctime: SystemTime,
}

impl Attr {
    /// Blocks of 512 bytes, in whole KiB.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.size.div_ceil(1024).saturating_mul(2)
    }
}

/// A name that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The object. A mount point is known by its own FID, whether it was crossed or not; every operation on it that needs to
    /// is one on the root of its volume.
    pub fid: Fid,
    /// Its attributes; of a mount point those of the root of its volume, if it was crossed.
    pub attr: Attr,
    /// How long the attributes stand unless an [`Invalidation`] says otherwise.
    pub attr_ttl: Duration,
    /// How long the name leads to this object unless an [`Invalidation`] says otherwise.
    pub entry_ttl: Duration,
}

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// An object.
    Found(Entry),
    /// Nothing, and the directory is known to stay so for a while.
    Absent {
        /// How long the name stays absent unless an [`Invalidation`] says otherwise.
        ttl: Duration,
    },
}

/// Attributes to change. `None` keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Last modification.
    pub mtime: Option<SystemTime>,
    /// Length: cuts or extends with zeros.
    pub size: Option<u64>,
    /// By who has the file open: its bits count no more.
    pub is_open: bool,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// Data will be read.
    pub read: bool,
    /// Data will be written.
    pub write: bool,
    /// The file is cut to nothing first (`O_TRUNC` with atomic truncation).
    pub truncate: bool,
    /// Every write goes to the end of the file.
    pub append: bool,
}

/// Names one opening of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HandleId(pub u64);

/// A file was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The handle for reading, writing and closing.
    pub handle: HandleId,
    /// Pages that the kernel kept from the last opening are still right.
    pub keep_cache: bool,
    /// The version that is shown, if that is known.
    pub version: Option<DataVersion>,
}

impl Opened {
    /// A file that was opened before, of which no more is known.
    #[must_use]
    pub const fn before(handle: HandleId) -> Self {
        Self {
            handle,
            keep_cache: false,
            version: None,
        }
    }
}

/// A snapshot of a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The version of the directory: another listing of this one has the same entries.
    pub version: DataVersion,
    /// Its entries in the order of the directory, `.` and `..` among them. Cookies rise.
    pub entries: Vec<ListEntry>,
}

impl Listing {
    /// The entries behind `cookie`; 0 is the beginning.
    #[must_use]
    pub fn after(&self, cookie: u64) -> &[ListEntry] {
        let start = self.entries.partition_point(|entry| entry.cookie <= cookie);
        self.entries.get(start..).unwrap_or_default()
    }
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEntry {
    /// Where reading goes on behind this entry; stable while the entry exists, never 0.
    pub cookie: u64,
    /// The name.
    pub name: Bytes,
    /// The object as the directory names it: a mount point is named by its own FID.
    pub fid: Fid,
    /// What it is, if that is known without asking.
    pub kind: Option<Kind>,
}

/// Space of the volume that holds an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatFs {
    /// Size of a block in bytes.
    pub block_size: u32,
    /// All blocks: the quota, or the partition if there is none.
    pub blocks: u64,
    /// Blocks still to be had.
    pub free: u64,
    /// Longest name.
    pub name_max: u32,
}

/// Something the kernel may have cached is no longer so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Attributes and data of an object.
    Node(Fid),
    /// Data of a file, or the listing of a directory; attributes stand.
    Data(Fid),
    /// A name in a directory, found or absent.
    Entry {
        /// The directory.
        dir: Fid,
        /// The name.
        name: Bytes,
    },
    /// Everything.
    All,
}
