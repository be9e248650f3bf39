//! The numbers of the protocol, each a type of its own, with comparison that survives wrapping.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

macro_rules! sequence {
    ($name:ident) => {
        impl $name {
            /// The number `by` further on, wrapping.
            #[must_use]
            pub const fn plus(self, by: u32) -> Self {
                Self(self.0.wrapping_add(by))
            }

            /// The number after this one, wrapping.
            #[must_use]
            pub const fn next(self) -> Self {
                self.plus(1)
            }

            /// How far this is beyond `other`: negative if it comes before it.
            #[must_use]
            pub const fn since(self, other: Self) -> i32 {
                self.0.wrapping_sub(other.0).cast_signed()
            }

            /// True if this comes before `other` in the half circle around it.
            #[must_use]
            pub const fn before(self, other: Self) -> bool {
                self.since(other) < 0
            }

            /// True if this comes after `other` in the half circle around it.
            #[must_use]
            pub const fn after(self, other: Self) -> bool {
                self.since(other) > 0
            }
        }
    };
}

number! {
    /// When a client started, as far as its peers care: names it together with the connection id.
    Epoch(u32), "{:08x}"
}
number! {
    /// A connection of an epoch. The two low bits are 0: on the wire they carry the channel.
    ConnectionId(u32), "{:08x}"
}
number! {
    /// The n-th call of a channel, from 1.
    CallNumber(u32), "{}"
}
number! {
    /// The n-th DATA packet of one direction of a call, from 1.
    Seq(u32), "{}"
}
number! {
    /// The n-th packet sent on a connection, from 1; 0 where a packet answers nothing in particular.
    Serial(u32), "{}"
}
number! {
    /// What kind of service a connection speaks to (a file server is 1).
    ServiceId(u16), "{}"
}
number! {
    /// Why a call or connection was aborted: negative for Rx itself, else the service's own.
    AbortCode(i32), "{}"
}
number! {
    /// The security class of a connection: 0 none, 2 rxkad.
    SecurityIndex(u8), "{}"
}
sequence!(CallNumber);
sequence!(Seq);
sequence!(Serial);

/// One of the four channels of a connection; each carries one call at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChannelIndex(u8);

impl ChannelIndex {
    /// How many there are.
    pub const COUNT: usize = 4;

    /// All of them, in order.
    pub const ALL: [Self; Self::COUNT] = [Self(0), Self(1), Self(2), Self(3)];

    /// The channel in the low two bits of a connection id on the wire.
    #[must_use]
    pub const fn from_wire(cid: u32) -> Self {
        Self((cid & 3) as u8)
    }

    /// Its place in an array of four.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ChannelIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl ConnectionId {
    /// The id in the high bits of a connection id on the wire.
    #[must_use]
    pub const fn from_wire(cid: u32) -> Self {
        Self(cid & !3)
    }

    /// Id and channel as they stand on the wire.
    #[must_use]
    pub const fn with_channel(self, channel: ChannelIndex) -> u32 {
        self.0 | channel.0 as u32
    }
}

/// Names one call on a connection. A slot that is out of date names no call, never another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The channel.
    pub channel: ChannelIndex,
    /// The call on it.
    pub call: CallNumber,
}

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// We make the calls.
    Client,
    /// We answer them.
    Service,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_comparison_wraps() {
        assert!(Seq(1).after(Seq(u32::MAX)));
        assert!(Seq(u32::MAX).before(Seq(1)));
        assert_eq!(Seq(3).since(Seq(u32::MAX)), 4);
        assert!(!Seq(7).before(Seq(7)) && !Seq(7).after(Seq(7)));
    }

    #[test]
    fn connection_id_and_channel_share_a_word() {
        let cid = ConnectionId::from_wire(0x1234_5677);
        let channel = ChannelIndex::from_wire(0x1234_5677);
        assert_eq!((cid.0, channel.index()), (0x1234_5674, 3));
        assert_eq!(cid.with_channel(channel), 0x1234_5677);
    }
}
