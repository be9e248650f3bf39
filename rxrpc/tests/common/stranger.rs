//! A stranger: a socket that sends what packets it likes, and sees all that comes back.
//!
//! The machine: an endpoint answers packets that need no connection in the order in which they came, so the answer to a
//! VERSION question says that all before it was dealt with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use rxrpc::proto::{
    AckPacket, AckReason, CallNumber, ChannelIndex, ConnectionId, Epoch, Flags, Header, Packet, PacketType,
    SecurityIndex, Seq, Serial, ServiceId, parse,
};

use super::ECHO;

/// A socket, whom it speaks to, and a header for its packets.
pub(crate) struct Stranger {
    pub(crate) socket: UdpSocket,
    pub(crate) peer: SocketAddrV4,
    /// Of DATA that begins the first call of a connection to the echo.
    pub(crate) header: Header,
    pub(crate) sent_bytes: usize,
}

impl Stranger {
    pub(crate) fn new(peer: SocketAddrV4) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, peer)
    }

    pub(crate) fn at(address: Ipv4Addr, peer: SocketAddrV4) -> Self {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            peer,
            header: Header {
                epoch: Epoch(0x8765_4321),
                cid: ConnectionId(0x40),
                channel: ChannelIndex::ALL[0],
                call: CallNumber(1),
                seq: Seq(1),
                serial: Serial(1),
                packet_type: PacketType::Data,
                flags: Flags::CLIENT_INITIATED | Flags::LAST_PACKET,
                user_status: 0,
                security: SecurityIndex(0),
                cksum: 0,
                service: ECHO,
            },
            sent_bytes: 0,
        }
    }

    pub(crate) fn address(&self) -> SocketAddrV4 {
        let SocketAddr::V4(address) = self.socket.local_addr().unwrap() else {
            unreachable!()
        };
        address
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, datagram: &[u8]) {
        self.sent_bytes += datagram.len();
        self.socket.send_to(datagram, self.peer).unwrap();
    }

    pub(crate) fn send(&mut self, header: Header, body: &[u8]) {
        let mut datagram = header.to_bytes().to_vec();
        datagram.extend_from_slice(body);
        self.send_bytes(&datagram);
    }

    /// Sends an ACK, as the side that its flags tell.
    pub(crate) fn acknowledge(&mut self, of: &Header, flags: Flags, ack: AckPacket) {
        let mut body = Vec::new();
        ack.encode(&mut body);
        let header = Header {
            packet_type: PacketType::Ack,
            seq: Seq(0),
            flags,
            ..*of
        };
        self.send(header, &body);
    }

    /// Answers a PING.
    pub(crate) fn answer(&mut self, ping: &Packet) {
        let asked = AckPacket::parse(&ping.body).unwrap();
        assert_eq!(asked.reason, AckReason::Ping);
        let ack = AckPacket::new(Seq(1), Seq(0), ping.header.serial, AckReason::PingResponse);
        self.acknowledge(&ping.header, Flags::CLIENT_INITIATED, ack);
    }

    /// The next packet that comes. It must.
    pub(crate) fn next(&self) -> Packet {
        self.try_next().expect("a packet within the time")
    }

    pub(crate) fn try_next(&self) -> io::Result<Packet> {
        let mut datagram = [0; 4096];
        let len = self.socket.recv(&mut datagram)?;
        let mut packets = parse(Bytes::copy_from_slice(&datagram[..len])).unwrap();
        Ok(packets.next().unwrap())
    }

    /// What came since the last look, up to the answer to a question that is asked now.
    pub(crate) fn answers(&mut self) -> Vec<Packet> {
        let question = Header {
            packet_type: PacketType::Version,
            service: ServiceId(0),
            ..self.header
        };
        self.send(question, &[0]);
        self.sent_bytes -= Header::LEN + 1;
        let mut answers = Vec::new();
        loop {
            let packet = self.next();
            if packet.header.packet_type == PacketType::Version {
                return answers;
            }
            answers.push(packet);
        }
    }
}

/// Longer than anything takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(10);
