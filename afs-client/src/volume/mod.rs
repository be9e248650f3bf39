//! Volumes: which copy a path leads to, and where it is.

mod kind;
mod volumes;

use std::sync::Arc;

use parking_lot::RwLock;

pub use kind::{NoChoice, Parent, VolumeKind, choose};
pub use volumes::Volumes;

use crate::cell::Cell;
use crate::server::Server;
use crate::types::{Fid, Uniquifier, VnodeId, VolumeId};
use crate::vnode::promise::Breaks;

/// One copy of a volume.
#[derive(Debug)]
pub struct Volume {
    /// Its cell.
    pub cell: Arc<Cell>,
    /// Its id.
    pub id: VolumeId,
    /// Name of its group, without suffix.
    pub name: String,
    /// Which copy it is.
    pub kind: VolumeKind,
    servers: RwLock<Vec<Arc<Server>>>,
    /// Breaks of the whole volume.
    pub(crate) breaks: Breaks,
}

impl Volume {
    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> Fid {
        Fid {
            cell: self.cell.id,
            volume: self.id,
            vnode: VnodeId(1),
            unique: Uniquifier(1),
        }
    }

    /// The servers that have it.
    #[must_use]
    pub fn servers(&self) -> Vec<Arc<Server>> {
        self.servers.read().clone()
    }
}
