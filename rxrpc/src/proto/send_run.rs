//! A run of datagrams of one size, as one system call can send it.

use super::mtu::Mtu;
use super::wire::{Flags, Header, PacketType};
use super::{AckPacket, AckTrailer, ConnectionParams, Seq, Serial, Slot};

/// What [`poll_transmit`](super::Connection::poll_transmit) laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Bytes of each datagram; the last may be shorter.
    pub segment_size: usize,
    /// How many datagrams there are.
    pub count: usize,
    /// How many of them are DATA sent again.
    pub resent: usize,
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
    resent: usize,
    closed: bool,
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
            resent: 0,
            closed: false,
        }
    }

    /// True if a datagram with a body of `len` bytes may be added.
    pub(super) fn has_room(&self, len: usize) -> bool {
        !self.closed && self.count < RUN_MAX && (self.count == 0 || Header::LEN + len <= self.segment)
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
        let len = self.out.len() - before;
        if self.count == 0 {
            self.segment = len;
        } else if len < self.segment {
            self.closed = true;
        }
        self.count += 1;
        serial
    }

    /// Adds an ACK that tells the peer of a receive window of `window` packets; gives its serial.
    pub(super) fn ack(&mut self, slot: Slot, ack: AckPacket, window: u8) -> Serial {
        let mtu = self.mtu.advertised();
        let trailer = AckTrailer::new(mtu, mtu, window, PACKETS_PER_DATAGRAM);
        let ack = AckPacket { trailer, ..ack };
        let mut flags = Flags::SLOW_START_OK;
        if ack.reason == super::AckReason::Ping {
            flags = flags | Flags::REQUEST_ACK;
        }
        self.packet(slot, PacketType::Ack, flags, Seq(0), 0, |out| ack.encode(out))
    }

    /// Notes whether the last packet was sent before.
    pub(super) fn resent(&mut self, again: bool) {
        self.resent += usize::from(again);
    }

    /// What was laid out, if anything.
    pub(super) fn done(self) -> Option<Transmit> {
        (self.count > 0).then_some(Transmit {
            segment_size: self.segment,
            count: self.count,
            resent: self.resent,
        })
    }
}

/// So many full datagrams fit the largest run that the kernel takes at once.
const RUN_MAX: usize = 44;
/// More would invite jumbograms; 0 would promise path MTU discovery (rxrpc.md 22).
const PACKETS_PER_DATAGRAM: u8 = 1;
