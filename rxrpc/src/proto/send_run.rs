//! A run of datagrams of one size, as one system call can send it.

use super::jumbo;
use super::mtu::Mtu;
use super::wire::{Flags, Header, PacketType};
use super::{AckPacket, ConnectionParams, Seq, Serial, Slot};

/// What [`poll_transmit`](super::Connection::poll_transmit) laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes of each datagram; the last may be shorter.
    pub segment_size: usize,
    /// How many datagrams there are.
    pub count: usize,
    /// The DATA in them that was sent again.
    pub resent: Resent,
    /// It is a PING that tries the size of the path.
    pub probe: bool,
}

/// Why DATA is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resend {
    /// Packets that were sent later have arrived (RACK).
    Overtaken,
    /// Nothing was heard for too long.
    TimedOut,
    /// Its ACK is to show what else is missing (a tail loss probe).
    Probe,
}

impl Resend {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Overtaken, Self::TimedOut, Self::Probe];

    /// The label under which it is counted.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overtaken => "rack",
            Self::TimedOut => "rto",
            Self::Probe => "tlp",
        }
    }
}

/// Packets sent again, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resent([u64; Resend::ALL.len()]);

impl Resent {
    pub(crate) fn count(&mut self, why: Resend) {
        if let Some(packets) = self.0.get_mut(why as usize) {
            *packets += 1;
        }
    }

    /// As many more.
    pub(crate) fn add(&mut self, other: &Self) {
        for (packets, more) in self.0.iter_mut().zip(other.0) {
            *packets += more;
        }
    }

    /// How many there were for each reason.
    pub fn iter(&self) -> impl Iterator<Item = (Resend, u64)> + '_ {
        Resend::ALL.into_iter().zip(self.0)
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

/// A DATA packet to be laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outgoing<'a> {
    pub(super) flags: Flags,
    pub(super) seq: Seq,
    pub(super) cksum: u16,
    pub(super) body: &'a [u8],
    /// Why, if it was sent before.
    pub(super) again: Option<Resend>,
}

/// The run that is being laid out.
pub(super) struct Run<'a> {
    params: &'a ConnectionParams,
    mtu: Mtu,
    /// The serial used last on the connection.
    serial: &'a mut Serial,
    out: &'a mut Vec<u8>,
    segment: usize,
    count: usize,
    resent: Resent,
    probe: bool,
    closed: bool,
    /// The datagram laid out last, if another packet may still become a part of it.
    open: Option<Open>,
}

/// A datagram of DATA that goes on as a jumbogram if another packet fits.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Where it begins in the output.
    start: usize,
    /// Where the flags of its last part are.
    flags_at: usize,
    slot: Slot,
    parts: usize,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        params: &'a ConnectionParams,
        mtu: Mtu,
        serial: &'a mut Serial,
        out: &'a mut Vec<u8>,
    ) -> Self {
        Self {
            params,
            mtu,
            serial,
            out,
            segment: 0,
            count: 0,
            resent: Resent::default(),
            probe: false,
            closed: false,
            open: None,
        }
    }

    /// True if a datagram with a body of `len` bytes may be added.
    pub(super) fn has_room(&self, len: usize) -> bool {
        !self.closed
            && self.count < RUN_MAX
            && self.out.len() < RUN_BYTES
            && (self.count == 0 || Header::LEN + len <= self.segment)
    }

    /// True if DATA with a body of `len` bytes may be added.
    pub(super) fn has_room_for_data(&self, slot: Slot, len: usize, again: bool) -> bool {
        self.has_room(len) || self.joins(slot, len, again).is_some()
    }

    /// The datagram that DATA may become a part of: what is sent again never does (rxrpc.md 9.2).
    fn joins(&self, slot: Slot, len: usize, again: bool) -> Option<Open> {
        let open = self.open?;
        let total = self.out.len() - open.start + jumbo::HEADER_LEN + len;
        let fits = !again
            && open.slot == slot
            && open.parts < self.mtu.parts()
            && len <= jumbo::PART_LEN
            && (self.count == 1 || total <= self.segment)
            // The serial of a part is that of the part before it and 1.
            && self.next_serial() == self.serial.next();
        fits.then_some(open)
    }

    /// Adds DATA, as a part of the last datagram if it may be one; gives its serial.
    pub(super) fn data(&mut self, slot: Slot, packet: &Outgoing<'_>) -> Serial {
        let Outgoing {
            flags,
            seq,
            cksum,
            body,
            again,
        } = *packet;
        let joined = self.joins(slot, body.len(), again.is_some());
        let (start, flags_at, serial, parts) = match joined {
            Some(open) => {
                let serial = self.next_serial();
                *self.serial = serial;
                if let Some(before) = self.out.get_mut(open.flags_at) {
                    *before |= Flags::JUMBO_PACKET.bits();
                }
                let flags_at = self.out.len();
                jumbo::encode_header(flags | Flags::sent_by(self.params.side), cksum, self.out);
                self.out.extend_from_slice(body);
                self.measure(open.start);
                (open.start, flags_at, serial, open.parts + 1)
            }
            None => {
                let start = self.out.len();
                let serial = self.packet(slot, PacketType::Data, flags, seq, cksum, |out| {
                    out.extend_from_slice(body);
                });
                (start, start + Header::FLAGS_AT, serial, 1)
            }
        };
        let full = body.len() == jumbo::PART_LEN && !flags.last() && again.is_none();
        self.open = full.then_some(Open {
            start,
            flags_at,
            slot,
            parts,
        });
        if let Some(why) = again {
            self.resent.count(why);
        }
        serial
    }

    /// The last datagram, which begins at `start`, decides about the size of the run or about its end.
    fn measure(&mut self, start: usize) {
        let len = self.out.len() - start;
        if self.count == 1 {
            self.segment = len;
        }
        self.closed = len < self.segment;
    }

    /// The serial of the next packet.
    pub(super) fn next_serial(&self) -> Serial {
        // 0 means "none" (rxrpc.md 1).
        match self.serial.next() {
            Serial(0) => Serial(1),
            serial => serial,
        }
    }

    /// Adds a datagram whose body `body` appends; gives its serial.
    pub(super) fn packet(
        &mut self,
        slot: Slot,
        packet_type: PacketType,
        flags: Flags,
        seq: Seq,
        cksum: u16,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> Serial {
        let serial = self.next_serial();
        *self.serial = serial;
        let before = self.out.len();
        let header = Header {
            epoch: self.params.epoch,
            cid: self.params.cid,
            channel: slot.channel,
            call: slot.call,
            seq,
            serial,
            packet_type,
            flags: flags | Flags::sent_by(self.params.side),
            user_status: self.params.upgrade.user_status(packet_type, seq),
            security: self.params.security,
            cksum,
            service: self.params.service,
        };
        header.encode(self.out);
        body(self.out);
        self.count += 1;
        self.open = None;
        self.measure(before);
        serial
    }

    /// Adds an ACK that tells the peer of a receive window of `window` packets; gives its serial.
    pub(super) fn ack(&mut self, slot: Slot, ack: AckPacket, window: u8) -> Serial {
        let trailer = self.mtu.advertised(window);
        let ack = AckPacket { trailer, ..ack };
        let mut flags = Flags::SLOW_START_OK;
        if ack.reason == super::AckReason::Ping {
            flags = flags | Flags::REQUEST_ACK;
        }
        self.packet(slot, PacketType::Ack, flags, Seq(0), 0, |out| ack.encode(out))
    }

    /// Adds a PING padded to a datagram of `datagram` bytes; gives its serial. It has the run for itself.
    pub(super) fn padded_ping(&mut self, slot: Slot, ack: AckPacket, window: u8, datagram: u16) -> Serial {
        let trailer = self.mtu.advertised(window);
        let ack = AckPacket { trailer, ..ack };
        let flags = Flags::SLOW_START_OK | Flags::REQUEST_ACK;
        let end = self.out.len() + usize::from(datagram);
        self.probe = true;
        self.packet(slot, PacketType::Ack, flags, Seq(0), 0, |out| {
            ack.encode(out);
            // Whatever follows the trailer is ignored.
            out.resize(end.max(out.len()), 0);
        })
    }

    /// What was laid out, if anything.
    pub(super) fn done(self) -> Option<Transmit> {
        (self.count > 0).then_some(Transmit {
            segment_size: self.segment,
            count: self.count,
            resent: self.resent,
            probe: self.probe,
        })
    }
}

/// So many full datagrams fit the largest run that the kernel takes at once.
const RUN_MAX: usize = 44;
/// No datagram is begun after so many bytes.
const RUN_BYTES: usize = 60_000;
