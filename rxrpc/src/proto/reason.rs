//! Why packets are thrown away.
//!
//! The machine: a packet may break a rule of the wire ([`Malformed`]), belong to no connection and be allowed to begin
//! none ([`Unplaced`]), or break a rule of the connection that it is for ([`Rejected`]). Each rule is one variant of one
//! of these enums, declared with the name under which it is counted, and [`DropReason::names`] gives the names of all:
//! the set of labels is closed. The page `docs/hardening.md` has a line for each.

use super::{Malformed, Rejected, Unplaced};

/// Declares an enum of rules with their names; rules of another such enum may be taken in after a semicolon.
macro_rules! reasons {
    (
        $(#[$meta:meta])*
        $vis:vis enum $Reasons:ident {
            $($(#[$doc:meta])* $Rule:ident $(($value:ty))? = $name:literal,)*
            $(; $($(#[$taken_doc:meta])* $Taken:ident($reasons:ty),)+)?
        }
    ) => {
        $(#[$meta])*
        $vis enum $Reasons {
            $($(#[$doc])* $Rule $(($value))?,)*
            $($($(#[$taken_doc])* $Taken($reasons),)+)?
        }

        impl $Reasons {
            /// The label under which it is counted.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$Rule { .. } => $name,)*
                    $($(Self::$Taken(reason) => reason.name(),)+)?
                }
            }

            /// The names of all.
            pub fn names() -> impl Iterator<Item = &'static str> {
                let names: &[&str] = &[$($name),*];
                names.iter().copied()$($(.chain(<$reasons>::names()))+)?
            }
        }
    };
}

pub(super) use reasons;

reasons! {
    /// Why a packet was thrown away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum DropReason {
        ;
        /// It breaks a rule of the wire.
        Malformed(Malformed),
        /// It belongs to no connection, and may begin none.
        Unplaced(Unplaced),
        /// It breaks a rule of its connection's state.
        Rejected(Rejected),
    }
}

impl From<Malformed> for DropReason {
    fn from(reason: Malformed) -> Self {
        Self::Malformed(reason)
    }
}

impl From<Unplaced> for DropReason {
    fn from(reason: Unplaced) -> Self {
        Self::Unplaced(reason)
    }
}

impl From<Rejected> for DropReason {
    fn from(reason: Rejected) -> Self {
        Self::Rejected(reason)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::proto::BadAck;

    #[test]
    fn names_are_unique_and_fit_a_label() {
        let all: Vec<_> = DropReason::names().collect();
        let unique: BTreeSet<_> = all.iter().collect();
        assert_eq!(unique.len(), all.len(), "{all:?}");
        for name in all {
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{name}"
            );
        }
    }

    #[test]
    fn names_of_nested_reasons_are_among_all() {
        for reason in [
            DropReason::from(Malformed::UnknownType(77)),
            Unplaced::NoConnection.into(),
            Rejected::BadAck(BadAck::TableCut).into(),
        ] {
            assert!(
                DropReason::names().any(|name| name == reason.name()),
                "{reason:?}"
            );
        }
        assert_eq!(Malformed::UnknownType(77).name(), "unknown_type");
    }
}
