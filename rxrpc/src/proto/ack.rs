//! ACK packets: what the peer has, what it lacks, and how much it may be sent.

use bytes::{Buf, BufMut};

use super::abort_codes;
use super::reason::reasons;
use super::seq::{AbortCode, Seq, Serial};

/// Why an ACK was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckReason {
    /// A number that has no meaning.
    Unknown,
    /// DATA asked for it.
    Requested,
    /// DATA had come before.
    Duplicate,
    /// DATA has a gap before it.
    OutOfSequence,
    /// DATA was beyond the window and was dropped.
    ExceedsWindow,
    /// DATA was dropped for want of room.
    NoSpace,
    /// A question whether the peer is there.
    Ping,
    /// The answer to it.
    PingResponse,
    /// Nothing in particular: the delayed ACK is due.
    Delay,
    /// The receiver has taken what there was.
    Idle,
}

impl AckReason {
    /// The reason with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Requested,
            2 => Self::Duplicate,
            3 => Self::OutOfSequence,
            4 => Self::ExceedsWindow,
            5 => Self::NoSpace,
            6 => Self::Ping,
            7 => Self::PingResponse,
            8 => Self::Delay,
            9 => Self::Idle,
            _ => Self::Unknown,
        }
    }

    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Requested => 1,
            Self::Duplicate => 2,
            Self::OutOfSequence => 3,
            Self::ExceedsWindow => 4,
            Self::NoSpace => 5,
            Self::Ping => 6,
            Self::PingResponse => 7,
            Self::Delay => 8,
            Self::Idle => 9,
        }
    }

    /// The label under which it is counted.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Requested => "requested",
            Self::Duplicate => "duplicate",
            Self::OutOfSequence => "out_of_sequence",
            Self::ExceedsWindow => "exceeds_window",
            Self::NoSpace => "no_space",
            Self::Ping => "ping",
            Self::PingResponse => "ping_response",
            Self::Delay => "delay",
            Self::Idle => "idle",
        }
    }
}

/// Which packets beyond the hard-ack point were received: one entry for each, at most 255.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SackTable {
    // Bits at and beyond `len` are 0.
    words: [u64; 4],
    len: u8,
}

impl SackTable {
    /// Most entries.
    pub const MAX: usize = 255;

    /// A table without entries.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            words: [0; 4],
            len: 0,
        }
    }

    /// How many entries it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// True if it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Entry `index`: true if that packet was received. `None` beyond the end: nothing is known of it.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<bool> {
        if index >= self.len() {
            return None;
        }
        self.words
            .get(index / 64)
            .map(|word| word >> (index % 64) & 1 == 1)
    }

    /// Adds an entry. False, and nothing happens, if the table is full.
    pub fn push(&mut self, received: bool) -> bool {
        let index = self.len();
        let Some(len) = self.len.checked_add(1) else {
            return false;
        };
        if let Some(word) = self.words.get_mut(index / 64) {
            *word |= u64::from(received) << (index % 64);
        }
        self.len = len;
        true
    }

    /// The entries as bits, from the lowest of the first word on; those beyond the end are 0.
    pub(super) const fn words(&self) -> &[u64; 4] {
        &self.words
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = bool> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// How many entries say that the packet was received.
    #[must_use]
    pub fn received(&self) -> usize {
        self.iter().filter(|received| *received).count()
    }
}

impl std::fmt::Debug for SackTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("\"")?;
        self.iter()
            .try_for_each(|received| f.write_str(if received { "+" } else { "-" }))?;
        f.write_str("\"")
    }
}

impl FromIterator<bool> for SackTable {
    /// Entries beyond the 255th are left out.
    fn from_iter<I: IntoIterator<Item = bool>>(entries: I) -> Self {
        let mut table = Self::new();
        for received in entries {
            if !table.push(received) {
                break;
            }
        }
        table
    }
}

/// What the sender of an ACK can take. Old peers send only the first words of it, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AckTrailer {
    /// Largest datagram that it takes, header included, in bytes (clamped to 65535).
    pub max_mtu: Option<u16>,
    /// Datagram size that fits its interface, in bytes (clamped to 65535).
    pub if_mtu: Option<u16>,
    /// Receive window in packets, counted from `first` (clamped to 255). If no `jumbo_max` follows it, it may only
    /// narrow the window.
    pub rwind: Option<u8>,
    /// Most packets in a datagram (clamped to 255). 0: the peer does path MTU discovery.
    pub jumbo_max: Option<u8>,
}

impl AckTrailer {
    /// A whole trailer.
    #[must_use]
    pub const fn new(max_mtu: u16, if_mtu: u16, rwind: u8, jumbo_max: u8) -> Self {
        Self {
            max_mtu: Some(max_mtu),
            if_mtu: Some(if_mtu),
            rwind: Some(rwind),
            jumbo_max: Some(jumbo_max),
        }
    }

    /// A trailer shorter than two words, or one whose first is 0, says nothing.
    fn parse(mut bytes: &[u8]) -> Self {
        let mut word = || bytes.try_get_u32().ok();
        let (Some(max_mtu @ 1..), Some(if_mtu)) = (word(), word()) else {
            return Self::default();
        };
        Self {
            max_mtu: Some(clamp_u16(max_mtu)),
            if_mtu: Some(clamp_u16(if_mtu)),
            rwind: word().map(clamp_u8),
            jumbo_max: word().map(clamp_u8),
        }
    }

    /// Appends the words up to the first that is missing.
    fn encode(&self, out: &mut Vec<u8>) {
        let words = [
            self.max_mtu.map(u32::from),
            self.if_mtu.map(u32::from),
            self.rwind.map(u32::from),
            self.jumbo_max.map(u32::from),
        ];
        words
            .iter()
            .map_while(|word| *word)
            .for_each(|word| out.put_u32(word));
    }
}

/// The body of an ACK packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AckPacket {
    /// Without meaning today: send 0, ignore.
    pub buffer_space: u16,
    /// Without meaning today: send 0, ignore.
    pub max_skew: u16,
    /// The lowest sequence number that is not hard-acked; the first entry of the table is about it. Never 0.
    pub first: Seq,
    /// Meant to be the last packet received. Some peers put a serial here: only good to order ACKs.
    pub previous: Seq,
    /// The serial of the packet that made the peer send this; 0 if none did.
    pub serial: Serial,
    /// Why it was sent.
    pub reason: AckReason,
    /// Soft acks from `first` on.
    pub acks: SackTable,
    /// What its sender can take.
    pub trailer: AckTrailer,
}

impl AckPacket {
    /// Reads the body of an ACK. Padding, and bytes after the trailer, are ignored.
    ///
    /// # Errors
    ///
    /// The rule it breaks; the call is then aborted with [`BadAck::CODE`].
    pub fn parse(body: &[u8]) -> Result<Self, BadAck> {
        let (fixed, rest) = body.split_first_chunk::<FIXED_LEN>().ok_or(BadAck::Short)?;
        // The gets read 18 bytes in all.
        let mut fixed = fixed.as_slice();
        let (buffer_space, max_skew) = (fixed.get_u16(), fixed.get_u16());
        let first = Seq(fixed.get_u32());
        if first.0 == 0 {
            return Err(BadAck::FirstZero);
        }
        let (previous, serial) = (Seq(fixed.get_u32()), Serial(fixed.get_u32()));
        let reason = AckReason::from_number(fixed.get_u8());
        let (acks, rest) = rest
            .split_at_checked(fixed.get_u8().into())
            .ok_or(BadAck::TableCut)?;
        Ok(Self {
            buffer_space,
            max_skew,
            first,
            previous,
            serial,
            reason,
            acks: acks.iter().map(|ack| ack & 1 == 1).collect(),
            trailer: AckTrailer::parse(rest.get(PADDING_LEN..).unwrap_or_default()),
        })
    }

    /// One without soft acks and trailer.
    #[must_use]
    pub const fn new(first: Seq, previous: Seq, serial: Serial, reason: AckReason) -> Self {
        Self {
            buffer_space: 0,
            max_skew: 0,
            first,
            previous,
            serial,
            reason,
            acks: SackTable::new(),
            trailer: AckTrailer {
                max_mtu: None,
                if_mtu: None,
                rwind: None,
                jumbo_max: None,
            },
        }
    }

    /// Appends the body to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u16(self.buffer_space);
        out.put_u16(self.max_skew);
        out.put_u32(self.first.0);
        out.put_u32(self.previous.0);
        out.put_u32(self.serial.0);
        out.put_u8(self.reason.number());
        out.put_u8(self.acks.len);
        out.extend(self.acks.iter().map(u8::from));
        out.put_bytes(0, PADDING_LEN);
        self.trailer.encode(out);
    }

    /// Each packet the table speaks of, and whether it was received.
    pub fn soft_acks(&self) -> impl Iterator<Item = (Seq, bool)> + '_ {
        (0..)
            .zip(self.acks.iter())
            .map(|(by, received)| (self.first.plus(by), received))
    }
}

reasons! {
    /// A rule of the wire that an ACK breaks. A protocol error of its call.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
    pub enum BadAck {
        /// Shorter than its fixed part.
        #[error("ACK shorter than its fixed part")]
        Short = "ack_short",
        /// It acks the packet before the first.
        #[error("ACK with first packet 0")]
        FirstZero = "ack_first_zero",
        /// It ends within its table.
        #[error("ACK ends within its table")]
        TableCut = "ack_table_cut",
    }
}

impl BadAck {
    /// What the call is aborted with.
    pub const CODE: AbortCode = abort_codes::RX_PROTOCOL_ERROR;
}

fn clamp_u16(word: u32) -> u16 {
    u16::try_from(word).unwrap_or(u16::MAX)
}

fn clamp_u8(word: u32) -> u8 {
    u8::try_from(word).unwrap_or(u8::MAX)
}

const FIXED_LEN: usize = 18;
/// Between table and trailer, whatever the length of the table.
const PADDING_LEN: usize = 3;

#[cfg(test)]
mod tests;
