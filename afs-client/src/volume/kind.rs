//! The three copies a volume can have, and which one a mount point leads to.

use std::fmt;

use crate::mount_point::{MountKind, MountTarget};

/// Which copy of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum VolumeKind {
    /// The one that can be written.
    ReadWrite,
    /// A released snapshot, maybe on several servers.
    ReadOnly,
    /// A snapshot beside the read-write volume.
    Backup,
}

impl VolumeKind {
    /// All of them, in the order of the location database.
    pub const ALL: [Self; 3] = [Self::ReadWrite, Self::ReadOnly, Self::Backup];

    /// Its name in metrics and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadWrite => "rw",
            Self::ReadOnly => "ro",
            Self::Backup => "bk",
        }
    }

    /// True if nothing in it can be changed.
    #[must_use]
    pub const fn is_read_only(self) -> bool {
        !matches!(self, Self::ReadWrite)
    }
}

impl fmt::Display for VolumeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a mount point stands in, as far as it matters for where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parent {
    /// The synthetic root: cells are entered through their read-only volumes.
    Root,
    /// A volume of the same cell as the target.
    SameCell(VolumeKind),
    /// A volume of another cell.
    OtherCell(VolumeKind),
}

/// A mount point leads to a copy that does not exist, or may not be entered from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoChoice {
    /// There is no such copy.
    #[error("the volume has no {0} copy")]
    Missing(VolumeKind),
    /// A backup volume mounted in a backup volume: such mounts make loops.
    #[error("a backup volume cannot be entered from a backup volume")]
    BackupInBackup,
}

/// The copy a mount point leads to.
///
/// `exact` is the kind of the volume whose number the target gives, if it is named by number; `exists` says which
/// copies there are. Explicit suffixes and `%` bind; otherwise a path that is on a read-write volume stays on
/// read-write volumes of the cell, and everything else prefers the read-only copy.
///
/// # Errors
/// The copy that is bound to be taken does not exist, or is a backup inside a backup.
pub fn choose(
    target: &MountTarget,
    exact: Option<VolumeKind>,
    parent: Parent,
    exists: impl Fn(VolumeKind) -> bool,
) -> Result<VolumeKind, NoChoice> {
    use VolumeKind::{Backup, ReadOnly, ReadWrite};
    let forced = target.kind == MountKind::ForceReadWrite;
    let bound = match (target.base_and_suffix().1, exact) {
        (Some(suffix), _) => Some(suffix),
        (None, Some(exact)) if forced => Some(exact),
        (None, _) => forced.then_some(ReadWrite),
    };
    let in_backup = matches!(parent, Parent::SameCell(Backup) | Parent::OtherCell(Backup));
    let preferences = match (bound, parent) {
        (Some(kind), _) => [Some(kind), None],
        (None, Parent::SameCell(ReadWrite)) => [Some(ReadWrite), None],
        (None, _) => [Some(ReadOnly), Some(ReadWrite)],
    };
    let chosen = preferences
        .into_iter()
        .flatten()
        .find(|kind| exists(*kind))
        .ok_or_else(|| NoChoice::Missing(preferences.into_iter().flatten().next().unwrap_or(ReadWrite)))?;
    if chosen == Backup && in_backup {
        Err(NoChoice::BackupInBackup)
    } else {
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::VolumeKind::{Backup, ReadOnly, ReadWrite};
    use super::*;

    fn walk(
        text: &str,
        exact: Option<VolumeKind>,
        parent: Parent,
        exists: &[VolumeKind],
    ) -> Result<VolumeKind, NoChoice> {
        let target = MountTarget::parse(text.as_bytes()).unwrap();
        choose(&target, exact, parent, |kind| exists.contains(&kind))
    }

    #[test]
    fn the_table_of_the_reference() {
        use Parent::{OtherCell, Root, SameCell};
        let (rw, both, all) = (
            &[ReadWrite][..],
            &[ReadWrite, ReadOnly][..],
            &[ReadWrite, ReadOnly, Backup][..],
        );
        for (text, exact, parent, exists, chosen) in [
            // % binds to read-write, or to the number given.
            ("%v.", None, SameCell(ReadOnly), both, Ok(ReadWrite)),
            (
                "%v.",
                None,
                Root,
                &[ReadOnly][..],
                Err(NoChoice::Missing(ReadWrite)),
            ),
            ("%9.", Some(ReadOnly), SameCell(ReadWrite), both, Ok(ReadOnly)),
            // Suffixes bind and have no substitute.
            ("#v.readonly.", None, SameCell(ReadWrite), both, Ok(ReadOnly)),
            (
                "#v.readonly.",
                None,
                SameCell(ReadOnly),
                rw,
                Err(NoChoice::Missing(ReadOnly)),
            ),
            ("%v.backup.", None, SameCell(ReadWrite), all, Ok(Backup)),
            (
                "#v.backup.",
                None,
                SameCell(ReadWrite),
                both,
                Err(NoChoice::Missing(Backup)),
            ),
            (
                "#v.backup.",
                None,
                SameCell(Backup),
                all,
                Err(NoChoice::BackupInBackup),
            ),
            // Read-write stays read-write inside the cell.
            ("#v.", None, SameCell(ReadWrite), both, Ok(ReadWrite)),
            (
                "#v.",
                None,
                SameCell(ReadWrite),
                &[ReadOnly][..],
                Err(NoChoice::Missing(ReadWrite)),
            ),
            ("#v.", None, OtherCell(ReadWrite), both, Ok(ReadOnly)),
            ("#v.", None, OtherCell(ReadWrite), rw, Ok(ReadWrite)),
            // Everything else prefers read-only.
            ("#v.", None, SameCell(ReadOnly), both, Ok(ReadOnly)),
            ("#v.", None, SameCell(ReadOnly), rw, Ok(ReadWrite)),
            ("#v.", None, SameCell(Backup), all, Ok(ReadOnly)),
            ("#v.", None, Root, both, Ok(ReadOnly)),
            ("#v.", None, Root, rw, Ok(ReadWrite)),
            ("#v.", None, Root, &[][..], Err(NoChoice::Missing(ReadOnly))),
            // A plain number stands for its group.
            ("#9.", Some(ReadWrite), SameCell(ReadOnly), both, Ok(ReadOnly)),
        ] {
            assert_eq!(walk(text, exact, parent, exists), chosen, "{text} in {parent:?}");
        }
    }
}
