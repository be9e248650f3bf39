//! Somebody in the middle: passes on what a client and a server send each other, and may change, repeat or invent packets.

use std::net::{SocketAddr, SocketAddrV4};

use rxrpc::proto::{Header, PacketType};
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;

use super::client::address;

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// A datagram and where it goes.
pub(crate) type Passing = (Way, Vec<u8>);

/// A relay for one client and one server. It ends when it is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddrV4,
    task: AbortHandle,
}

impl Relay {
    /// Stands before `server`. What comes is replaced by what `judge` makes of it.
    pub(crate) async fn before(
        server: SocketAddrV4,
        mut judge: impl FnMut(Passing) -> Vec<Passing> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind((address(), 0)).await.unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else {
            panic!("an address of IPv4")
        };
        let task = tokio::spawn(async move {
            let (mut buffer, mut client) = (vec![0; 65_536], None);
            loop {
                // What ICMP says of a port that is closed is not for us.
                let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                let way = if from == SocketAddr::V4(server) {
                    Way::ToClient
                } else {
                    client = Some(from);
                    Way::ToServer
                };
                for (way, packet) in judge((way, buffer[..len].to_vec())) {
                    let to = match (way, client) {
                        (Way::ToServer, _) => server.into(),
                        (Way::ToClient, Some(client)) => client,
                        (Way::ToClient, None) => continue,
                    };
                    let _ = socket.send_to(&packet, to).await;
                }
            }
        });
        Self {
            address,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The header of a packet.
pub(crate) fn header(packet: &[u8]) -> Header {
    Header::decode(packet.first_chunk().unwrap()).unwrap()
}

/// Is it of this type?
pub(crate) fn is(packet: &[u8], packet_type: PacketType) -> bool {
    header(packet).packet_type == packet_type
}

/// Where the body begins.
pub(crate) const BODY: usize = Header::LEN;
