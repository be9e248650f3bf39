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
use crate::cell::CellName;
use crate::mount_point::MountKind;
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

/// A cell in the directory of cells: known by its name, so that it is the same in every run and before anything is known of it.
pub(super) fn cell(name: &CellName, kind: MountKind) -> Fid {
    // FNV-1a, of 64 bits.
    let hash = name
        .as_str()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
    let [a, b, c, d, unique @ ..] = hash.to_be_bytes();
    Fid {
        volume: VolumeId(u32::from_be_bytes([a, b, c, d])),
        unique: Uniquifier(u32::from_be_bytes(unique)),
        ..synthetic(match kind {
            MountKind::Normal => CELL,
            MountKind::ForceReadWrite => CELL_READ_WRITE,
        })
    }
}

/// Is it a cell in the directory of cells?
pub(super) fn is_cell(fid: Fid) -> bool {
    is_synthetic(fid) && matches!(fid.vnode.0, CELL | CELL_READ_WRITE)
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

/// Vnodes of `CELL` and `.CELL`.
const CELL: u32 = 5;
const CELL_READ_WRITE: u32 = 7;
/// None of it changes.
pub(super) const VERSION: DataVersion = DataVersion(1);
pub(super) const FOREVER: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_numbers_of_their_own() {
        let [a, b] = ["a.b", "b.a"].map(|name| CellName::new(name).unwrap());
        let all =
            [&a, &b].map(|name| [MountKind::Normal, MountKind::ForceReadWrite].map(|kind| cell(name, kind)));
        let different: std::collections::HashSet<_> = all.iter().flatten().collect();
        assert_eq!(different.len(), 4);
        assert!(
            all.iter()
                .flatten()
                .all(|fid| is_cell(*fid) && fid.vnode.is_directory())
        );
        assert!(!is_cell(ROOT) && !is_cell(MOUNTS));
        // Worked out by another program.
        assert_eq!(
            all[0][0],
            Fid {
                volume: VolumeId(0xe61d9919),
                unique: Uniquifier(0x466522c),
                ..synthetic(CELL)
            }
        );
    }

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
            assert_eq!(attr(fid, "a.b").kind == Kind::Directory, fid.vnode.is_directory());
        }
    }
}
