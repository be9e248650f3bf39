//! The rules of rxkad, each with the code with which its breach aborts a connection (OpenAFS `rxkad_errs.et`).

use crate::proto::AbortCode;

macro_rules! faults {
    ($($(#[$doc:meta])* $Fault:ident = $code:literal $name:literal;)*) => {
        /// A rule of rxkad that was broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
        pub enum Fault {
            $($(#[$doc])* #[error($name)] $Fault,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$Fault),*];

            /// The code on the wire.
            #[must_use]
            pub const fn code(self) -> AbortCode {
                AbortCode(match self { $(Self::$Fault => $code,)* })
            }

            /// The fault that a code stands for, if it is one of rxkad.
            #[must_use]
            pub const fn from_code(code: AbortCode) -> Option<Self> {
                Some(match code.0 { $($code => Self::$Fault,)* _ => return None })
            }

            /// The name of the code.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$Fault => $name,)* }
            }
        }
    };
}

faults! {
    /// A message of another version, or none at all where one must be.
    Inconsistency = 19_270_400 "RXKADINCONSISTENCY";
    /// A message is too short.
    PacketShort = 19_270_401 "RXKADPACKETSHORT";
    /// The level is lower than asked for, or there is none such.
    LevelFail = 19_270_402 "RXKADLEVELFAIL";
    /// A ticket is too long or too short.
    TicketLength = 19_270_403 "RXKADTICKETLEN";
    /// A response does not answer the challenge.
    OutOfSequence = 19_270_404 "RXKADOUTOFSEQUENCE";
    /// The ticket may not be used, or not yet.
    NoAuth = 19_270_405 "RXKADNOAUTH";
    /// The ticket's key is none.
    BadKey = 19_270_406 "RXKADBADKEY";
    /// The ticket cannot be opened or read.
    BadTicket = 19_270_407 "RXKADBADTICKET";
    /// The server has no key of the version that the ticket needs.
    UnknownKey = 19_270_408 "RXKADUNKNOWNKEY";
    /// The ticket is no longer valid.
    Expired = 19_270_409 "RXKADEXPIRED";
    /// A seal does not match: another key, or somebody has changed it.
    SealedInconsistent = 19_270_410 "RXKADSEALEDINCON";
    /// A sealed packet says it is longer than it is.
    DataLength = 19_270_411 "RXKADDATALEN";
    /// The level is none that may be asked for.
    IllegalLevel = 19_270_412 "RXKADILLEGALLEVEL";
}

impl Fault {
    /// Whether it is the ticket that is refused, and would be again. What is wrong otherwise may be the connection alone.
    /// (OpenAFS and Linux throw tokens away for these; cache-manager.md 4, rx-security.md 4.4.)
    #[must_use]
    pub const fn is_of_ticket(self) -> bool {
        matches!(
            self,
            Self::Expired | Self::UnknownKey | Self::BadTicket | Self::NoAuth
        )
    }

    /// Whether it is one of packets, which may be found in the reply to a call that was executed. All others are found
    /// before the first call of a connection.
    #[must_use]
    pub const fn is_of_packet(self) -> bool {
        matches!(self, Self::SealedInconsistent | Self::DataLength)
    }
}

impl From<Fault> for AbortCode {
    fn from(fault: Fault) -> Self {
        fault.code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_faults_are_one_to_one() {
        for (offset, fault) in (0..).zip(Fault::ALL) {
            assert_eq!(fault.code(), AbortCode(19_270_400 + offset));
            assert_eq!(Fault::from_code(fault.code()), Some(*fault));
            assert_eq!(fault.to_string(), fault.name());
        }
        assert_eq!(Fault::from_code(AbortCode(19_270_413)), None);
        assert_eq!(Fault::from_code(AbortCode(-5)), None);
    }
}
