//! Objects that are nowhere but here: the directory of cells, and what it has beside cells.
//!
//! | name | what it is |
//! |---|---|
//! | `CELL` | the root volume of a cell, read-only where there are replicas |
//! | `.CELL` | the same, read-write |
//! | `@cell`, `.@cell` | links to those of the home cell |
//! | `.:mount/CELL:VOLUME`, `.:mount/CELL:VOLUME:VNODE:UNIQUE` | any volume, as a mount point `%` would lead to it |
//!
//! Only the first kind is listed. Nothing here can be changed (afs-dir.md 5.1, cache-manager.md 12.1).

use std::time::{Duration, SystemTime};

use super::types::{Attr, Kind};
use crate::types::{CellId, DataVersion, Fid, Uniquifier, VnodeId, VolumeId};

/// The directory of cells.
pub(crate) const ROOT: Fid = synthetic(1);
/// `.:mount` in it.
pub(super) const MOUNTS: Fid = synthetic(3);
/// `@cell` in it.
pub(super) const HOME: Fid = synthetic(2);
/// `.@cell` in it.
pub(super) const HOME_READ_WRITE: Fid = synthetic(4);

/// What the directory of cells has beside cells.
pub(super) const NAMES: [(&[u8], Fid); 3] = [
    (b".:mount", MOUNTS),
    (b"@cell", HOME),
    (b".@cell", HOME_READ_WRITE),
];

/// As in every directory, what has an odd number is one.
const fn synthetic(vnode: u32) -> Fid {
    Fid {
        cell: CellId(0),
        volume: VolumeId(0),
        vnode: VnodeId(vnode),
        unique: Uniquifier(1),
    }
}

/// Is it one of these?
pub(crate) fn is_synthetic(fid: Fid) -> bool {
    fid.cell == ROOT.cell
}

/// What `@cell` or `.@cell` says; `None` for what is no link.
pub(super) fn target(fid: Fid, home: &str) -> Option<String> {
    match fid {
        HOME => Some(home.to_owned()),
        HOME_READ_WRITE => Some(format!(".{home}")),
        _ => None,
    }
}

/// The attributes of one of these; `home` is the name of the home cell.
pub(super) fn attr(fid: Fid, home: &str) -> Attr {
    let link = target(fid, home);
    let (kind, mode, nlink) = match link {
        Some(_) => (Kind::Symlink, 0o777, 1),
        None => (Kind::Directory, 0o755, 2),
    };
    Attr {
        fid,
        kind,
        size: link.map_or(2048, |text| text.len() as u64),
        data_version: VERSION,
        mode,
        nlink,
        uid: 0,
        gid: 0,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
    }
}

/// None of it changes.
pub(super) const VERSION: DataVersion = DataVersion(1);
pub(super) const FOREVER: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_to_the_home_cell() {
        assert_eq!(target(HOME, "a.b").as_deref(), Some("a.b"));
        assert_eq!(target(HOME_READ_WRITE, "a.b").as_deref(), Some(".a.b"));
        assert_eq!(target(MOUNTS, "a.b"), None);
        assert_eq!(
            (attr(HOME, "a.b").kind, attr(HOME, "a.b").size),
            (Kind::Symlink, 3)
        );
        for (name, fid) in NAMES {
            assert!(is_synthetic(fid), "{name:?}");
            assert_eq!(attr(fid, "a.b").kind == Kind::Directory, fid.vnode.0 % 2 == 1);
        }
    }
}
