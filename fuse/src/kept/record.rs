//! What is written down of a mount, one step at a time.

use afs_client::auth::Identity;
use afs_client::fs::{HandleId, OpenFlags};
use afs_client::lock::{LeftLocks, LockAsked, LockKind, LockOwner, Span};
use afs_client::types::{CellId, Fid, Uniquifier, VnodeId, VolumeId};
use afs_client::xdr::{Decoder, Encode, XdrError, put_counted};
use zeroize::Zeroizing;

/// One step. The cell of a FID is a number of the log: see [`Record::Cell`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// What the kernel asked first, and the capabilities that both sides agreed on.
    Init(Init),
    /// A process serves from here on.
    Attached,
    /// From here on, this number stands for a cell.
    Cell(CellId, String),
    /// The kernel was given a node id so many times more.
    Looked {
        /// The node id.
        node: u64,
        /// What it stands for.
        fid: Fid,
        /// How many times.
        times: u64,
    },
    /// The kernel gave a node id back so many times.
    Forgot {
        /// The node id.
        node: u64,
        /// How many times.
        times: u64,
    },
    /// The kernel may come to believe in a name of a directory, found or absent.
    Name(u64, Box<[u8]>),
    /// A file was opened.
    Opened(OpenFile),
    /// An open file was closed.
    Released(u64),
    /// An open file is read by the kernel, through this node.
    Lent {
        /// The handle.
        handle: u64,
        /// The node id.
        node: u64,
    },
    /// The object of a node has, or gets, another one.
    Retired(u64),
    /// Something was written to a file that no server has.
    Dirty(Fid),
    /// A server has all that was written to a file.
    Clean(Fid),
    /// Who has which tokens from here on, each as a request of the control socket.
    Tokens(Vec<(Identity, Zeroizing<Vec<u8>>)>),
    /// A file that was removed while it was open has a hidden name, in words of the file system; or it has gone.
    Hidden(String, bool),
    /// The locks that programs hold on a file from here on.
    Locks(Fid, LeftLocks),
    /// A change is about to be made, for this request. What its name led to, if that was asked.
    Begun(u64, Option<Fid>),
    /// What came of it.
    Done(u64, Outcome),
    /// The kernel knows: it will not ask again.
    Answered(u64),
}

/// How the session with the kernel began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Init {
    /// FUSE_INIT as the kernel sent it.
    pub request: Vec<u8>,
    /// The capabilities of the answer.
    pub agreed: u64,
}

/// A file that the kernel has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// The request by which it was opened.
    pub unique: u64,
    /// The number that the kernel was given.
    pub handle: u64,
    /// Which file.
    pub fid: Fid,
    /// What for.
    pub flags: OpenFlags,
    /// With whose rights.
    pub who: Identity,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was refused.
    Failed(i32),
    /// It was made, and there is nothing to tell.
    Made,
    /// It was made, and led to this object.
    Found(Fid),
    /// It was made, and led to this object, which is open now.
    Open(Fid, u64),
}

impl Record {
    /// As bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Init(init) => {
                INIT.encode(out);
                put_counted(out, &init.request);
                init.agreed.encode(out);
            }
            Self::Attached => ATTACHED.encode(out),
            Self::Cell(id, name) => {
                CELL.encode(out);
                id.0.encode(out);
                put_counted(out, name.as_bytes());
            }
            Self::Looked { node, fid, times } => {
                LOOKED.encode(out);
                node.encode(out);
                put_fid(out, *fid);
                times.encode(out);
            }
            Self::Forgot { node, times } => {
                FORGOT.encode(out);
                node.encode(out);
                times.encode(out);
            }
            Self::Name(directory, name) => {
                NAME.encode(out);
                directory.encode(out);
                put_counted(out, name);
            }
            Self::Opened(file) => {
                OPENED.encode(out);
                file.unique.encode(out);
                file.handle.encode(out);
                put_fid(out, file.fid);
                put_flags(out, file.flags);
                put_identity(out, file.who);
            }
            Self::Released(handle) => {
                RELEASED.encode(out);
                handle.encode(out);
            }
            Self::Lent { handle, node } => {
                LENT.encode(out);
                handle.encode(out);
                node.encode(out);
            }
            Self::Retired(node) => {
                RETIRED.encode(out);
                node.encode(out);
            }
            Self::Dirty(fid) => {
                DIRTY.encode(out);
                put_fid(out, *fid);
            }
            Self::Clean(fid) => {
                CLEAN.encode(out);
                put_fid(out, *fid);
            }
            Self::Tokens(tokens) => {
                TOKENS.encode(out);
                for (who, token) in tokens {
                    put_identity(out, *who);
                    put_counted(out, token);
                }
            }
            Self::Hidden(words, is_hidden) => {
                HIDDEN.encode(out);
                u32::from(*is_hidden).encode(out);
                put_counted(out, words.as_bytes());
            }
            Self::Locks(fid, left) => {
                LOCKS.encode(out);
                put_fid(out, *fid);
                put_identity(out, left.who);
                u32::from(left.lost).encode(out);
                for (handle, asked) in &left.held {
                    handle.0.encode(out);
                    put_lock(out, asked);
                }
            }
            Self::Begun(unique, seen) => {
                BEGUN.encode(out);
                unique.encode(out);
                u32::from(seen.is_some()).encode(out);
                if let Some(fid) = seen {
                    put_fid(out, *fid);
                }
            }
            Self::Done(unique, outcome) => {
                DONE.encode(out);
                unique.encode(out);
                match outcome {
                    Outcome::Failed(errno) => {
                        FAILED.encode(out);
                        errno.encode(out);
                    }
                    Outcome::Made => MADE.encode(out),
                    Outcome::Found(fid) => {
                        FOUND.encode(out);
                        put_fid(out, *fid);
                    }
                    Outcome::Open(fid, handle) => {
                        OPEN.encode(out);
                        put_fid(out, *fid);
                        handle.encode(out);
                    }
                }
            }
            Self::Answered(unique) => {
                ANSWERED.encode(out);
                unique.encode(out);
            }
        }
    }

    /// Of bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, XdrError> {
        let mut input = Decoder::new(bytes);
        let from = &mut input;
        let record = match from.word()? {
            INIT => Self::Init(Init {
                request: from.counted(u32::MAX)?.to_vec(),
                agreed: long(from)?,
            }),
            ATTACHED => Self::Attached,
            CELL => Self::Cell(CellId(from.word()?), text(from)?),
            LOOKED => Self::Looked {
                node: long(from)?,
                fid: fid(from)?,
                times: long(from)?,
            },
            FORGOT => Self::Forgot {
                node: long(from)?,
                times: long(from)?,
            },
            NAME => Self::Name(long(from)?, from.counted(u32::MAX)?.into()),
            OPENED => Self::Opened(OpenFile {
                unique: long(from)?,
                handle: long(from)?,
                fid: fid(from)?,
                flags: flags(from)?,
                who: identity(from)?,
            }),
            RELEASED => Self::Released(long(from)?),
            LENT => Self::Lent {
                handle: long(from)?,
                node: long(from)?,
            },
            RETIRED => Self::Retired(long(from)?),
            DIRTY => Self::Dirty(fid(from)?),
            CLEAN => Self::Clean(fid(from)?),
            TOKENS => {
                let mut tokens = Vec::new();
                while !from.rest().is_empty() {
                    let who = identity(from)?;
                    tokens.push((who, Zeroizing::new(from.counted(u32::MAX)?.to_vec())));
                }
                Self::Tokens(tokens)
            }
            HIDDEN => {
                let is_hidden = from.word()? != 0;
                Self::Hidden(text(from)?, is_hidden)
            }
            LOCKS => {
                let (file, who, lost) = (fid(from)?, identity(from)?, from.word()? != 0);
                let mut held = Vec::new();
                while !from.rest().is_empty() {
                    held.push((HandleId(long(from)?), lock(from)?));
                }
                Self::Locks(file, LeftLocks { who, held, lost })
            }
            BEGUN => {
                let unique = long(from)?;
                let seen = (from.word()? != 0).then(|| fid(from)).transpose()?;
                Self::Begun(unique, seen)
            }
            DONE => Self::Done(long(from)?, outcome(from)?),
            ANSWERED => Self::Answered(long(from)?),
            other => return Err(XdrError::BadValue(other)),
        };
        input.end()?;
        Ok(record)
    }
}

fn put_fid(out: &mut Vec<u8>, fid: Fid) {
    for word in [fid.cell.0, fid.volume.0, fid.vnode.0, fid.unique.0] {
        word.encode(out);
    }
}

fn fid(from: &mut Decoder<'_>) -> Result<Fid, XdrError> {
    Ok(Fid {
        cell: CellId(from.word()?),
        volume: VolumeId(from.word()?),
        vnode: VnodeId(from.word()?),
        unique: Uniquifier(from.word()?),
    })
}

fn put_flags(out: &mut Vec<u8>, flags: OpenFlags) {
    let bits = [flags.read, flags.write, flags.truncate, flags.append];
    let word = bits
        .into_iter()
        .rev()
        .fold(0, |word, bit| word << 1 | u32::from(bit));
    word.encode(out);
}

fn flags(from: &mut Decoder<'_>) -> Result<OpenFlags, XdrError> {
    let word = from.word()?;
    let [read, write, truncate, append] = [0, 1, 2, 3].map(|bit| word >> bit & 1 == 1);
    Ok(OpenFlags {
        read,
        write,
        truncate,
        append,
    })
}

fn put_identity(out: &mut Vec<u8>, who: Identity) {
    let (kind, user, number) = match who {
        Identity::Nobody => (0, 0, 0),
        Identity::User(user) => (1, user, 0),
        Identity::UserInGroup(user, group) => (2, user, group),
        Identity::UserInScope(user, scope) => (3, user, scope),
        Identity::Everybody => (4, 0, 0),
    };
    kind.encode(out);
    user.encode(out);
    number.encode(out);
}

fn identity(from: &mut Decoder<'_>) -> Result<Identity, XdrError> {
    let (kind, user, number) = (from.word()?, from.word()?, long(from)?);
    Ok(match kind {
        0 => Identity::Nobody,
        1 => Identity::User(user),
        2 => Identity::UserInGroup(user, number),
        3 => Identity::UserInScope(user, number),
        4 => Identity::Everybody,
        other => return Err(XdrError::BadValue(other)),
    })
}

fn put_lock(out: &mut Vec<u8>, asked: &LockAsked) {
    asked.owner.0.encode(out);
    asked.span.first.encode(out);
    asked.span.last.encode(out);
    u32::from(asked.kind == LockKind::Exclusive).encode(out);
    asked.pid.encode(out);
}

fn lock(from: &mut Decoder<'_>) -> Result<LockAsked, XdrError> {
    Ok(LockAsked {
        owner: LockOwner(long(from)?),
        span: Span {
            first: long(from)?,
            last: long(from)?,
        },
        kind: match from.word()? {
            0 => LockKind::Shared,
            1 => LockKind::Exclusive,
            other => return Err(XdrError::BadValue(other)),
        },
        pid: from.word()?,
    })
}

fn outcome(from: &mut Decoder<'_>) -> Result<Outcome, XdrError> {
    Ok(match from.word()? {
        FAILED => Outcome::Failed(from.word()?.cast_signed()),
        MADE => Outcome::Made,
        FOUND => Outcome::Found(fid(from)?),
        OPEN => Outcome::Open(fid(from)?, long(from)?),
        other => return Err(XdrError::BadValue(other)),
    })
}

fn long(from: &mut Decoder<'_>) -> Result<u64, XdrError> {
    Ok((u64::from(from.word()?) << 32) | u64::from(from.word()?))
}

fn text(from: &mut Decoder<'_>) -> Result<String, XdrError> {
    let bytes = from.counted(u32::MAX)?;
    String::from_utf8(bytes.to_vec()).map_err(|_| XdrError::BadValue(0))
}

const INIT: u32 = 1;
const ATTACHED: u32 = 2;
const CELL: u32 = 3;
const LOOKED: u32 = 4;
const FORGOT: u32 = 5;
const NAME: u32 = 6;
const OPENED: u32 = 7;
const RELEASED: u32 = 8;
const DIRTY: u32 = 9;
const CLEAN: u32 = 10;
const BEGUN: u32 = 11;
const DONE: u32 = 12;
const ANSWERED: u32 = 13;
const TOKENS: u32 = 14;
const HIDDEN: u32 = 15;
const LENT: u32 = 16;
const RETIRED: u32 = 17;
const LOCKS: u32 = 18;
const FAILED: u32 = 0;
const MADE: u32 = 1;
const FOUND: u32 = 2;
const OPEN: u32 = 3;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::kept) fn fid_of(vnode: u32) -> Fid {
        Fid {
            cell: CellId(1),
            volume: VolumeId(2),
            vnode: VnodeId(vnode),
            unique: Uniquifier(4),
        }
    }

    /// What is held through a handle, if it is.
    pub(in crate::kept) fn locks_of(handle: Option<u64>) -> LeftLocks {
        let held = handle.map(|handle| {
            let asked = LockAsked {
                owner: LockOwner(1 << 60),
                span: Span { first: 3, last: 9 },
                kind: LockKind::Exclusive,
                pid: 77,
            };
            (HandleId(handle), asked)
        });
        LeftLocks {
            who: Identity::User(7),
            held: held.into_iter().collect(),
            lost: handle.is_none(),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let file = OpenFile {
            unique: 1 << 40,
            handle: 7,
            fid: fid_of(3),
            flags: OpenFlags {
                read: true,
                append: true,
                ..OpenFlags::default()
            },
            who: Identity::UserInGroup(1000, 1 << 33),
        };
        for record in [
            Record::Init(Init {
                request: vec![1; 104],
                agreed: 1 << 63,
            }),
            Record::Attached,
            Record::Cell(CellId(1), "example.org".to_owned()),
            Record::Looked {
                node: 9,
                fid: fid_of(3),
                times: 2,
            },
            Record::Forgot { node: 9, times: 1 },
            Record::Name(9, b"a\nb".as_slice().into()),
            Record::Opened(file),
            Record::Released(7),
            Record::Lent { handle: 7, node: 9 },
            Record::Retired(9),
            Record::Dirty(fid_of(3)),
            Record::Clean(fid_of(3)),
            Record::Tokens(vec![(Identity::User(7), Zeroizing::new(vec![1, 2, 3]))]),
            Record::Hidden("a.example 1 2 3".to_owned(), true),
            Record::Locks(fid_of(3), locks_of(Some(7))),
            Record::Locks(fid_of(3), locks_of(None)),
            Record::Begun(8, None),
            Record::Begun(8, Some(fid_of(5))),
            Record::Done(8, Outcome::Failed(-5)),
            Record::Done(8, Outcome::Made),
            Record::Done(8, Outcome::Found(fid_of(1))),
            Record::Done(8, Outcome::Open(fid_of(1), 3)),
            Record::Answered(8),
        ] {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert_eq!(Record::decode(&bytes), Ok(record));
            bytes.extend([0; 3]);
            assert!(Record::decode(&bytes).is_err());
        }
    }
}
