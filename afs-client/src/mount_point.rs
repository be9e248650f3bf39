//! What a mount point says about where it leads.
//!
//! A mount point is a symbolic link without any execute bit whose text is a type character, a target, and one byte
//! (a full stop) that carries no meaning: `#root.cell.`, `%lab.example:root.cell.`, `#536870918.`

use crate::cell::CellName;
use crate::types::{Uniquifier, VnodeId, VolumeId};
use crate::volume::VolumeKind;

/// Longest name a volume can have in the volume location database.
const VOLUME_NAME_MAX: usize = 64;

/// Which copy of the volume a mount point asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// `#`: the copy that suits the volume it stands in.
    Normal,
    /// `%`: the read-write volume, or exactly the volume named.
    ForceReadWrite,
}

/// Where a mount point leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MountTarget {
    /// Which copy it asks for.
    pub kind: MountKind,
    /// The cell it names; without one it is the cell of the volume the mount point stands in.
    pub cell: Option<CellName>,
    /// Name of the volume as written, suffix included, or its number.
    pub volume: String,
    /// The directory in that volume, where it is not the root.
    pub root: Option<(VnodeId, Uniquifier)>,
}

/// A text that is no mount point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMountPoint {
    /// It does not begin with `#` or `%`.
    #[error("a mount point begins with # or %")]
    Kind,
    /// It does not end with a full stop.
    #[error("a mount point ends with a full stop")]
    End,
    /// The cell cannot be one.
    #[error("a mount point names no valid cell")]
    Cell,
    /// The volume cannot be one.
    #[error("a mount point names no valid volume")]
    Volume,
    /// The part behind the volume is no vnode and uniquifier.
    #[error("a mount point names no valid directory")]
    Root,
}

impl MountTarget {
    /// Reads the text of a mount point.
    ///
    /// # Errors
    /// The rule it breaks.
    pub fn parse(text: &[u8]) -> Result<Self, BadMountPoint> {
        let (kind, rest) = match text.split_first() {
            Some((b'#', rest)) => (MountKind::Normal, rest),
            Some((b'%', rest)) => (MountKind::ForceReadWrite, rest),
            _ => return Err(BadMountPoint::Kind),
        };
        let target = rest.strip_suffix(b".").ok_or(BadMountPoint::End)?;
        let target = std::str::from_utf8(target).map_err(|_| BadMountPoint::Volume)?;
        let parts: Vec<&str> = target.splitn(5, ':').collect();
        let (cell, volume, root) = match *parts.as_slice() {
            [volume] => (None, volume, None),
            [cell, volume] => (Some(cell), volume, None),
            [volume, vnode, unique] => (None, volume, Some((vnode, unique))),
            [cell, volume, vnode, unique] => (Some(cell), volume, Some((vnode, unique))),
            _ => return Err(BadMountPoint::Root),
        };
        let cell = cell
            .map(CellName::new)
            .transpose()
            .map_err(|_| BadMountPoint::Cell)?;
        if !is_volume_name(volume) {
            return Err(BadMountPoint::Volume);
        }
        let root = root.map(|(vnode, unique)| Some((number(vnode)?, number(unique)?)));
        let root = match root {
            Some(None) => return Err(BadMountPoint::Root),
            Some(Some((vnode, unique))) => Some((VnodeId(vnode), Uniquifier(unique))),
            None => None,
        };
        Ok(Self {
            kind,
            cell,
            volume: volume.to_owned(),
            root,
        })
    }

    /// The target `volume` of the cell the asker is in, as a plain mount point would name it.
    ///
    /// # Errors
    /// No volume can have this name.
    pub fn volume(volume: &str) -> Result<Self, BadMountPoint> {
        if !is_volume_name(volume) {
            return Err(BadMountPoint::Volume);
        }
        Ok(Self {
            kind: MountKind::Normal,
            cell: None,
            volume: volume.to_owned(),
            root: None,
        })
    }

    /// The volume's number, if it is named by number.
    #[must_use]
    pub fn id(&self) -> Option<VolumeId> {
        number(&self.volume).map(VolumeId)
    }

    /// The volume's name without suffix, and the kind of copy that the suffix asks for.
    #[must_use]
    pub fn base_and_suffix(&self) -> (&str, Option<VolumeKind>) {
        if let Some(base) = self.volume.strip_suffix(".readonly") {
            (base, Some(VolumeKind::ReadOnly))
        } else if let Some(base) = self.volume.strip_suffix(".backup") {
            (base, Some(VolumeKind::Backup))
        } else {
            (&self.volume, None)
        }
    }

    /// The text of a mount point that leads here.
    #[must_use]
    pub fn to_text(&self) -> String {
        let kind = match self.kind {
            MountKind::Normal => '#',
            MountKind::ForceReadWrite => '%',
        };
        let cell = self
            .cell
            .as_ref()
            .map_or_else(String::new, |cell| format!("{cell}:"));
        let root = self.root.map_or_else(String::new, |(vnode, unique)| {
            format!(":{}:{}", vnode.0, unique.0)
        });
        format!("{kind}{cell}{}{root}.", self.volume)
    }
}

/// True if the volume location database can know this name (numbers included).
fn is_volume_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let base = name
        .strip_suffix(".readonly")
        .or_else(|| name.strip_suffix(".backup"))
        .unwrap_or(name);
    !base.is_empty() && name.len() <= VOLUME_NAME_MAX && name.bytes().all(legal)
}

/// A decimal number without sign.
fn number(text: &str) -> Option<u32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<MountTarget, BadMountPoint> {
        MountTarget::parse(text.as_bytes())
    }

    #[test]
    fn texts_of_the_reference_are_read() {
        let plain = parse("#root.cell.").unwrap();
        assert_eq!(plain, MountTarget::volume("root.cell").unwrap());
        assert_eq!(parse("%root.cell.").unwrap().kind, MountKind::ForceReadWrite);
        let foreign = parse("#Lab.Example:test.vol.").unwrap();
        assert_eq!(foreign.cell.unwrap().as_str(), "lab.example");
        assert_eq!(foreign.volume, "test.vol");
        assert_eq!(parse("#536870918.").unwrap().id(), Some(VolumeId(536_870_918)));
        let read_only = parse("#test.vol.readonly.").unwrap();
        assert_eq!(
            read_only.base_and_suffix(),
            ("test.vol", Some(VolumeKind::ReadOnly))
        );
        assert_eq!(read_only.id(), None);
        let inside = parse("#vol:3:77.").unwrap();
        assert_eq!(
            (inside.cell, inside.root),
            (None, Some((VnodeId(3), Uniquifier(77))))
        );
        assert_eq!(
            parse("%c.d:vol:3:77.").unwrap().root,
            Some((VnodeId(3), Uniquifier(77)))
        );
        assert_eq!(parse("#a.b..").unwrap().volume, "a.b.");
    }

    #[test]
    fn other_texts_are_not() {
        use BadMountPoint::{Cell, End, Kind, Root, Volume};
        let long = format!("#{}.", "v".repeat(65));
        for (text, rule) in [
            ("", Kind),
            ("/afs/x", Kind),
            ("#", End),
            ("#root.cell", End),
            ("#.", Volume),
            ("#.readonly.", Volume),
            ("#a b.", Volume),
            ("#x:.", Volume),
            (":vol.", Kind),
            ("#:vol.", Cell),
            ("#a/b:vol.", Cell),
            ("#vol:1:x.", Root),
            ("#vol:+1:1.", Root),
            ("#c:vol:1:1:1.", Root),
            (&long, Volume),
        ] {
            assert_eq!(parse(text), Err(rule), "{text}");
        }
        assert_eq!(MountTarget::parse(b"#\xff."), Err(Volume));
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written(text in "[#%]([a-z.]{1,9}:)?[a-z0-9._-]{1,9}(:[0-9]{1,5}:[0-9]{1,5})?\\.") {
            if let Ok(target) = parse(&text) {
                prop_assert_eq!(parse(&target.to_text()), Ok(target));
            }
        }

        #[test]
        fn random_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = MountTarget::parse(&bytes);
        }
    }
}
