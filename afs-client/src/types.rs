//! The numbers of AFS, each a type of its own, and the names of files.

use std::fmt;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(pub $inner);

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }
        )*
    };
}

numbers! {
    /// A volume of a cell.
    VolumeId(u32);
    /// A file, directory or link in a volume. Directories are odd.
    VnodeId(u32);
    /// Tells apart the objects that have had the same vnode number.
    Uniquifier(u32);
    /// Counts the changes to the data of a vnode.
    DataVersion(u64);
    /// A cell, as this program numbers them; 0 is the synthetic root.
    CellId(u32);
}

impl DataVersion {
    /// The version after one change.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

impl VnodeId {
    /// Is it one of a directory?
    #[must_use]
    pub const fn is_directory(self) -> bool {
        self.0 % 2 == 1
    }
}

/// Names an object in all of AFS, for this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fid {
    /// The cell.
    pub cell: CellId,
    /// The volume.
    pub volume: VolumeId,
    /// The vnode.
    pub vnode: VnodeId,
    /// Its uniquifier.
    pub unique: Uniquifier,
}

impl Fid {
    /// Another object of the same volume.
    #[must_use]
    pub const fn sibling(self, vnode: VnodeId, unique: Uniquifier) -> Self {
        Self {
            vnode,
            unique,
            ..self
        }
    }
}

impl fmt::Display for Fid {
    /// cell:volume.vnode.uniquifier
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}.{}.{}", self.cell, self.volume, self.vnode, self.unique)
    }
}
