//! Locks that programs on this machine hold on one file.
//!
//! The machine: a table of who holds which bytes, by the rules of fcntl(2): an owner does not conflict with itself, and
//! what it asks for replaces what it has there. What the table needs of the server, which knows only whole files and no
//! owners, is the strongest lock in it that others are to hear of.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::auth::Identity;
use crate::fs::HandleId;

/// Who holds a lock: a number that the kernel gives to a process, or to an opening of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LockOwner(pub u64);

/// What a lock excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockKind {
    /// Exclusive ones.
    Shared,
    /// All others.
    Exclusive,
}

/// Which locks the server hears of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LockScope {
    /// None: they are among the programs of this machine.
    Local,
    /// Those on whole files. Those on parts of a file are among the programs of this machine.
    #[default]
    Whole,
    /// All, as locks on the whole file.
    Strict,
}

impl LockScope {
    /// Does the server hear of a lock on these bytes?
    pub(crate) const fn hears_of(self, span: Span) -> bool {
        match self {
            Self::Local => false,
            Self::Whole => span.is_whole(),
            Self::Strict => true,
        }
    }
}

/// Bytes of a file, from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: u64,
    /// The last; `i64::MAX` and more is wherever the file ends.
    pub last: u64,
}

/// A lock that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockAsked {
    /// For whom.
    pub owner: LockOwner,
    /// On which bytes.
    pub span: Span,
    /// What it excludes.
    pub kind: LockKind,
    /// The process, which others are told of; 0 if it is not of this machine.
    pub pid: u32,
}

impl Span {
    /// All bytes there can ever be.
    pub const WHOLE: Self = Self {
        first: 0,
        last: u64::MAX,
    };

    /// Is it the whole file, as it is and as it may become?
    #[must_use]
    pub const fn is_whole(self) -> bool {
        self.first == 0 && self.last >= i64::MAX.cast_unsigned()
    }

    const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// What is left of it without `hole`.
    fn without(self, hole: Self) -> impl Iterator<Item = Self> {
        let before = (self.first < hole.first).then(|| Self {
            last: self.last.min(hole.first - 1),
            ..self
        });
        let after = (self.last > hole.last).then(|| Self {
            first: self.first.max(hole.last + 1),
            ..self
        });
        before.into_iter().chain(after)
    }
}

/// A lock that is held.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) asked: LockAsked,
    /// What it was taken through.
    pub(crate) handle: HandleId,
    /// Of that: whether the server has lost a lock.
    pub(crate) lost: Arc<AtomicBool>,
}

/// The locks on one file, as another process that serves the same mount can take them over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftLocks {
    /// With whose rights the server was asked.
    pub who: Identity,
    /// What is held, and through which handle.
    pub held: Vec<(HandleId, LockAsked)>,
    /// The server has lost them.
    pub lost: bool,
}

/// The locks on one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct LockTable(Vec<Held>);

impl LockTable {
    /// A lock of somebody else that excludes what is asked for.
    pub(crate) fn conflict(&self, asked: &LockAsked) -> Option<LockAsked> {
        let excludes = |held: &LockAsked| {
            held.owner != asked.owner
                && held.span.overlaps(asked.span)
                && (held.kind == LockKind::Exclusive || asked.kind == LockKind::Exclusive)
        };
        self.0.iter().map(|held| held.asked).find(excludes)
    }

    /// Enters a lock in place of what its owner has there.
    pub(crate) fn set(&mut self, held: Held) {
        self.clear(held.asked.owner, held.asked.span);
        self.0.push(held);
    }

    /// Takes away what an owner has there.
    pub(crate) fn clear(&mut self, owner: LockOwner, span: Span) {
        let (of_owner, mut rest): (Vec<_>, Vec<_>) = self
            .0
            .drain(..)
            .partition(|held| held.asked.owner == owner && held.asked.span.overlaps(span));
        for held in of_owner {
            for left in held.asked.span.without(span) {
                let asked = LockAsked {
                    span: left,
                    ..held.asked
                };
                rest.push(Held {
                    asked,
                    ..held.clone()
                });
            }
        }
        self.0 = rest;
    }

    /// Takes away what was taken through a handle; false if there was nothing.
    pub(crate) fn clear_handle(&mut self, handle: HandleId) -> bool {
        let before = self.0.len();
        self.0.retain(|held| held.handle != handle);
        self.0.len() < before
    }

    /// The lock that the server must hold for us.
    pub(crate) fn need(&self, scope: LockScope) -> Option<LockKind> {
        let heard_of = self.0.iter().filter(|held| scope.hears_of(held.asked.span));
        heard_of.map(|held| held.asked.kind).max()
    }

    pub(crate) fn has(&self, owner: LockOwner) -> bool {
        self.0.iter().any(|held| held.asked.owner == owner)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held> {
        self.0.iter()
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use proptest::prelude::*;

    use super::LockKind::{Exclusive, Shared};
    use super::*;

    fn lock(owner: u64, first: u64, last: u64, kind: LockKind) -> LockAsked {
        LockAsked {
            owner: LockOwner(owner),
            span: Span { first, last },
            kind,
            pid: 7,
        }
    }

    fn enter(table: &mut LockTable, asked: LockAsked) {
        table.set(Held {
            asked,
            handle: HandleId(asked.owner.0),
            lost: Arc::default(),
        });
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let mut table = LockTable::default();
        enter(&mut table, lock(1, 0, 9, Shared));
        assert_eq!(table.conflict(&lock(2, 5, 20, Shared)), None);
        assert_eq!(
            table.conflict(&lock(2, 5, 20, Exclusive)),
            Some(lock(1, 0, 9, Shared))
        );
        assert_eq!(table.conflict(&lock(2, 10, 20, Exclusive)), None);
        assert_eq!(table.conflict(&lock(1, 0, 9, Exclusive)), None, "its own");
    }

    #[test]
    fn the_server_hears_of_whole_files() {
        let mut table = LockTable::default();
        enter(&mut table, lock(1, 0, 9, Exclusive));
        assert_eq!(table.need(LockScope::Whole), None);
        assert_eq!(table.need(LockScope::Strict), Some(Exclusive));
        enter(&mut table, lock(2, 0, i64::MAX.cast_unsigned(), Shared));
        assert_eq!(table.need(LockScope::Whole), Some(Shared));
        table.clear(LockOwner(2), Span::WHOLE);
        assert_eq!(table.need(LockScope::Whole), None);
        assert_eq!(table.need(LockScope::Local), None);
        assert!(table.clear_handle(HandleId(1)) && !table.clear_handle(HandleId(1)));
        assert!(table.is_empty());
    }

    proptest! {
        /// Byte by byte, each owner has what it asked for last.
        #[test]
        fn each_byte_has_what_was_asked_for_last(
            ops in prop::collection::vec((0u64..3, 0u64..30, 0u64..30, 0u8..3), 0..30)
        ) {
            let mut table = LockTable::default();
            let mut bytes = vec![[None; 3]; 30];
            for (owner, a, b, what) in ops {
                let (first, last) = (a.min(b), a.max(b));
                let kind = [None, Some(Shared), Some(Exclusive)][usize::from(what)];
                match kind {
                    None => table.clear(LockOwner(owner), Span { first, last }),
                    Some(kind) => enter(&mut table, lock(owner, first, last, kind)),
                }
                for byte in first..=last {
                    bytes[byte as usize][owner as usize] = kind;
                }
            }
            for (byte, of) in (0u64..).zip(&bytes) {
                for asking in 0..3 {
                    for kind in [Shared, Exclusive] {
                        let expected = (0..3).filter(|other| *other != asking).any(|other| {
                            of[other as usize].is_some_and(|held| held == Exclusive || kind == Exclusive)
                        });
                        let found = table.conflict(&lock(asking, byte, byte, kind));
                        prop_assert_eq!(found.is_some(), expected);
                    }
                }
            }
        }
    }
}
