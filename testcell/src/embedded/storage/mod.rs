//! What a file server keeps: volumes of vnodes, and the rules by which they change.
//!
//! The machine: a [`Volume`] is a table of vnodes with a quota. Every operation takes the [`Caller`] and the time as
//! arguments, checks rights and limits, changes vnodes, and says which promises the change breaks. Nothing here knows a
//! client, a clock or a network; numbers are given out in order, so that the same operations make the same volume.

mod acl;
mod data;
mod namespace;
#[cfg(test)]
mod tests;
mod vnode;
mod volume;

pub(crate) use acl::{ADMINISTRATORS, Acl, Caller, Rights};
pub(crate) use data::{Data, Spill};
pub(crate) use vnode::Content;
pub(crate) use volume::{At, Broken, ROOT, Readable, Store, Volume};

use afs_client::error::{unified_code, vice};
use rustix::io::Errno;
use rxrpc::proto::AbortCode;

/// Why something is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// An error of files, which has two forms on the wire.
    Errno(Errno),
    /// A code of the volume package or of Rx.
    Code(i32),
}

impl Refusal {
    /// The file is not there any more.
    pub(crate) const GONE: Self = Self::Code(vice::NO_VNODE);
    /// The quota is used up.
    pub(crate) const OVER_QUOTA: Self = Self::Code(vice::OVER_QUOTA);

    /// The code on the wire: unified for those who understand that, else the number of this system.
    pub(crate) fn code(self, unified: bool) -> AbortCode {
        match self {
            Self::Errno(errno) if unified => unified_code(errno),
            Self::Errno(errno) => AbortCode(errno.raw_os_error()),
            Self::Code(code) => AbortCode(code),
        }
    }
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}
