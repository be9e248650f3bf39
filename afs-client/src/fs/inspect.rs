//! One object, as far as can be told to somebody who wants to know why it is slow or refused.

use std::net::SocketAddrV4;
use std::time::Duration;

use super::AfsFs;
use super::state::{VolumeState, volume_state};
use super::synthetic::is_synthetic;
use super::types::Kind;
use crate::auth::Identity;
use crate::clock;
use crate::error::Error;
use crate::history::CallRecord;
use crate::op::Class;
use crate::types::{DataVersion, Fid};
use crate::vnode::status::Status;

/// What is known of an object, and what its caller may do with it.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The volume that it is in.
    pub volume: VolumeState,
    /// Whose token calls about it are made with; `None`: without any.
    pub client: Option<String>,
    /// Why calls about it are not made at all.
    pub no_proof: Option<Error>,
    /// What the caller may be told of its status, if that is known.
    pub status: Option<Known>,
    /// Who has promised to tell of changes, where it is called, and for how long the promise stands.
    pub promise: Option<(Option<SocketAddrV4>, Duration)>,
    /// Bytes of its data that are in the cache.
    pub cached: u64,
    /// Bytes that only we have.
    pub dirty: u64,
    /// The kernel reads its data by itself.
    pub lent: bool,
    /// The last calls about it, the oldest first: those made for the caller, or for all.
    pub calls: Vec<CallRecord>,
}

/// A status, and the rights that go with it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub size: u64,
    /// The server's change counter.
    pub version: DataVersion,
    /// Permission bits.
    pub mode: u16,
    /// What the caller may do (OpenAFS `prs_fs.h`); `a` says of what is no directory that it is the caller's own.
    pub rights: u32,
    /// What anybody may do.
    pub public: u32,
    /// The caller may read it: list it, if it is a directory.
    pub readable: bool,
    /// The caller may write it: make entries in it, if it is a directory.
    pub writable: bool,
}

impl AfsFs {
    /// What is known of an object at this moment. Asks no server. `all` tells of the calls of everybody.
    ///
    /// # Errors
    ///
    /// `ENODEV`: it is in no volume, as the root is. `ESTALE`: its volume was not entered.
    pub fn inspect(&self, fid: Fid, all: bool) -> Result<Inspection, Error> {
        let core = &self.0;
        let fid = core.crossed_cached(fid).unwrap_or(fid);
        if is_synthetic(fid) {
            return Err(Error::bare(rustix::io::Errno::NODEV));
        }
        let vnode = core.vnode(fid)?;
        let now = clock::now();
        let proof = core.proof(&vnode, Class::Reading);
        let held = core.tokens.list().into_iter();
        let cell = &vnode.volume.cell.name;
        let mine = |who: Identity| {
            held.clone()
                .find(|held| held.owner == who && held.token.cell == *cell)
        };
        let (cached, dirty) = vnode.data().held();
        Ok(Inspection {
            volume: volume_state(&vnode.volume, now),
            client: mine(core.who).map(|held| held.token.client.to_string()),
            no_proof: proof.err(),
            status: core.valid(&vnode).map(|(status, _)| Known::from(status)),
            promise: vnode
                .promised(now, &core.all)
                .map(|(server, left)| (server.best_address(|_| false), left)),
            cached,
            dirty,
            lent: vnode.data().is_lent(),
            calls: core.history.of(fid, (!all).then_some(core.who), now),
        })
    }
}

impl From<Status> for Known {
    fn from(status: Status) -> Self {
        Self {
            kind: status.kind,
            size: status.size,
            version: status.version,
            mode: status.mode,
            rights: status.access,
            public: status.public,
            readable: status.is_readable_with(status.access),
            writable: match status.kind {
                Kind::Directory => status.access & crate::vnode::status::INSERT != 0,
                _ => status.is_writable_with(status.access),
            },
        }
    }
}
