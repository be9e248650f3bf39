//! Why an rxkad connection is refused.

use crate::proto::AbortCode;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $message:literal;)*) => {
        /// A rule of rxkad that a peer broke, or a ticket that does not do (rx-security.md 4.4).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum Refusal {
            $($(#[$doc])* #[error($message)] $name,)*
        }

        impl Refusal {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What the connection is aborted with.
            #[must_use]
            pub const fn code(self) -> AbortCode {
                AbortCode(match self { $(Self::$name => $code),* })
            }
        }
    };
}

refusals! {
    /// The packet contradicts the security class of its connection.
    Inconsistency = 19_270_400, "the packet contradicts the security class of its connection";
    /// A challenge or response is too short.
    PacketShort = 19_270_401, "a challenge or response is too short";
    /// The level is lower than the other side wants.
    LevelFail = 19_270_402, "the level is lower than the other side wants";
    /// The ticket is too short or too long.
    TicketLength = 19_270_403, "the ticket is too short or too long";
    /// The response answers another challenge.
    OutOfSequence = 19_270_404, "the response answers another challenge";
    /// The ticket names somebody who has no access, or is not valid yet.
    NoAuth = 19_270_405, "the ticket is not valid for this service";
    /// The session key is unusable.
    BadKey = 19_270_406, "the session key is unusable";
    /// The ticket cannot be read.
    BadTicket = 19_270_407, "the ticket cannot be read with the service's key";
    /// The service has no key of that version.
    UnknownKey = 19_270_408, "the service does not have the key that the ticket is sealed with";
    /// The ticket has expired.
    Expired = 19_270_409, "the ticket has expired";
    /// A packet or response was not sealed with the session key for its place.
    SealedInconsistent = 19_270_410, "not sealed with the session key for its place";
    /// A sealed packet claims more data than it has.
    DataLength = 19_270_411, "a sealed packet claims more data than it has";
    /// There is no such level.
    IllegalLevel = 19_270_412, "there is no such level";
}

impl Refusal {
    /// The refusal that an abort code stands for.
    #[must_use]
    pub fn from_code(code: AbortCode) -> Option<Self> {
        Self::ALL.iter().copied().find(|refusal| refusal.code() == code)
    }

    /// True if it is the token that does not do, so that trying again with it is of no use.
    #[must_use]
    pub const fn is_of_token(self) -> bool {
        matches!(
            self,
            Self::NoAuth | Self::BadTicket | Self::UnknownKey | Self::Expired
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_one_run_in_the_order_of_the_table() {
        for (offset, refusal) in Refusal::ALL.iter().enumerate() {
            let code = AbortCode(19_270_400 + i32::try_from(offset).unwrap());
            assert_eq!(refusal.code(), code);
            assert_eq!(Refusal::from_code(code), Some(*refusal));
        }
        assert_eq!(Refusal::from_code(AbortCode(19_270_413)), None);
    }
}
