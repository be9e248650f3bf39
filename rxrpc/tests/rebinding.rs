//! An endpoint and bare sockets: servers with several addresses, paths that change in mid-call, the choice of connections.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rxrpc::events::{Event, NullSink, Sink};
use rxrpc::net::{ClientCall, Endpoint, EndpointConfig, Service, ServiceCall, Target};
use rxrpc::proto::{CallError, CallLimits, Flags, Header, Packet, PacketType, Seq, Serial, ServiceId, parse};
use tokio::net::UdpSocket;
use tokio::time::timeout;

const SERVICE: ServiceId = ServiceId(7);
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
struct Dropped(Mutex<Vec<&'static str>>);

impl Sink for Dropped {
    fn event(&self, event: &Event<'_>) {
        if let Event::Dropped { reason, .. } = event {
            self.0.lock().unwrap().push(reason.name());
        }
    }
}

fn local() -> EndpointConfig {
    EndpointConfig {
        bind: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0),
        ..EndpointConfig::default()
    }
}

fn address(socket: &UdpSocket) -> SocketAddrV4 {
    let std::net::SocketAddr::V4(address) = socket.local_addr().unwrap() else {
        unreachable!()
    };
    address
}

/// The next packet of a type that comes, and who sent it.
async fn next(socket: &UdpSocket, wanted: PacketType) -> (Packet, std::net::SocketAddr) {
    let mut buffer = [0; 2000];
    let heard = async {
        loop {
            let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
            let packet = parse(Bytes::copy_from_slice(&buffer[..len]))
                .unwrap()
                .next()
                .unwrap();
            if packet.header.packet_type == wanted {
                return (packet, from);
            }
        }
    };
    timeout(PATIENCE, heard)
        .await
        .unwrap_or_else(|_| panic!("no {wanted:?} comes"))
}

/// The whole reply to the call of a request.
fn reply(request: &Header, body: &[u8]) -> Vec<u8> {
    let header = Header {
        seq: Seq(1),
        serial: Serial(1),
        flags: Flags::LAST_PACKET,
        ..*request
    };
    let mut datagram = header.to_bytes().to_vec();
    datagram.extend_from_slice(body);
    datagram
}

async fn begin(client: &Endpoint, target: &Target) -> ClientCall {
    let mut call = client.call(target).await.unwrap();
    call.send(Bytes::from_static(b"request")).await.unwrap();
    call.finish().unwrap();
    call
}

/// A server may answer from another of its addresses, but not from another port; we go on sending where we called
/// (rxrpc.md 2.4, 16).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_may_come_from_another_address_but_not_from_another_port() {
    let dropped = Arc::new(Dropped::default());
    let client = Endpoint::bind(local(), Arc::clone(&dropped) as Arc<dyn Sink>)
        .await
        .unwrap();
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = address(&server).port();
    let other_port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let other_address = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, 2), port))
        .await
        .unwrap();

    let mut call = begin(&client, &Target::new(address(&server), SERVICE)).await;
    let (request, from) = next(&server, PacketType::Data).await;
    other_port
        .send_to(&reply(&request.header, b"false"), from)
        .await
        .unwrap();
    let refused = async {
        while !dropped.0.lock().unwrap().contains(&"foreign_port") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
    other_address
        .send_to(&reply(&request.header, b"true"), from)
        .await
        .unwrap();
    let heard = timeout(PATIENCE, call.recv()).await.unwrap();
    assert_eq!(heard, Ok(Some(Bytes::from_static(b"true"))));
    drop(call);
    let (ack, _) = next(&server, PacketType::Ack).await;
    assert_eq!(ack.header.call, request.header.call);
    let mut buffer = [0; 2000];
    assert!(
        other_address.try_recv_from(&mut buffer).is_err(),
        "a learned address is never sent to"
    );
    client.shutdown().await;
}

/// Four calls share a connection, and a fifth goes to a second one (rxrpc.md 23, item 13).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fifth_call_goes_to_a_second_connection() {
    let client = Endpoint::bind(local(), Arc::new(NullSink)).await.unwrap();
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = Target::new(address(&server), SERVICE);
    let mut calls = Vec::new();
    let mut requests = Vec::new();
    for _ in 0..5 {
        calls.push(begin(&client, &target).await);
        let known = |header: &Header| {
            requests
                .iter()
                .any(|seen: &Header| (seen.cid, seen.channel) == (header.cid, header.channel))
        };
        // The earlier ones are sent again meanwhile.
        let header = loop {
            let (packet, _) = next(&server, PacketType::Data).await;
            if !known(&packet.header) {
                break packet.header;
            }
        };
        requests.push(header);
    }
    let channels = requests
        .iter()
        .map(|header| (header.cid == requests[0].cid, header.channel.index()));
    assert_eq!(
        channels.collect::<Vec<_>>(),
        [(true, 0), (true, 1), (true, 2), (true, 3), (false, 0)]
    );
    assert!(requests.iter().all(|header| header.call.0 == 1));
    drop(calls);
    client.shutdown().await;
}

struct Echo;

impl Service for Echo {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let mut request = Vec::new();
            while let Ok(Some(data)) = call.recv().await {
                request.push(data);
            }
            for data in request {
                if call.send(data).await.is_err() {
                    return;
                }
            }
            let _ = call.finish();
        })
    }
}

/// Carries datagrams between a client and a server, and changes its port towards the server after so many of the client's,
/// as a NAT box does that has forgotten them. What comes to an old port is lost.
async fn relay(front: UdpSocket, server: SocketAddrV4, mut datagrams_until_change: usize) {
    let mut back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (mut outward, mut inward) = ([0; 2000], [0; 2000]);
    let mut client = None;
    loop {
        tokio::select! {
            Ok((len, from)) = front.recv_from(&mut outward) => {
                client = Some(from);
                if datagrams_until_change == 0 {
                    back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                    datagrams_until_change = usize::MAX;
                }
                datagrams_until_change -= 1;
                let _ = back.send_to(&outward[..len], server).await;
            }
            Ok((len, _)) = back.recv_from(&mut inward) => {
                if let Some(client) = client {
                    let _ = front.send_to(&inward[..len], client).await;
                }
            }
        }
    }
}

/// To the server the rest of the call comes from a stranger. The call ends, well or with a documented error; no byte is
/// wrong, and the calls after it are as good as any.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_port_changes_in_mid_call_calls_again() {
    let server = Endpoint::bind(local(), Arc::new(NullSink)).await.unwrap();
    server.serve(SERVICE, Arc::new(Echo));
    let request: Bytes = (0..200_000_u32).map(|at| (at % 251).to_le_bytes()[0]).collect();
    for until_change in [0, 1, 3, 40, 150, 160, 200] {
        let client = Endpoint::bind(local(), Arc::new(NullSink)).await.unwrap();
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = Target {
            limits: CallLimits {
                dead_in: Duration::from_secs(2),
                ..CallLimits::default()
            },
            ..Target::new(address(&front), SERVICE)
        };
        let relay = tokio::spawn(relay(front, server.local_addr(), until_change));
        let mut failed = 0;
        for _ in 0..3 {
            match timeout(PATIENCE, echo(&client, &target, &request)).await.unwrap() {
                Ok(reply) => assert!(reply == request),
                Err(CallError::CallLost | CallError::PeerDead) => failed += 1,
                Err(error) => panic!("after {until_change}: {error:?}"),
            }
        }
        assert!(
            failed <= 1,
            "after {until_change}: {failed} calls failed of one change"
        );
        client.shutdown().await;
        relay.abort();
    }
    server.shutdown().await;
}

async fn echo(client: &Endpoint, target: &Target, request: &Bytes) -> Result<Vec<u8>, CallError> {
    let mut call = client.call(target).await?;
    call.send(request.clone()).await?;
    call.finish()?;
    let mut reply = Vec::new();
    while let Some(data) = call.recv().await? {
        reply.extend_from_slice(&data);
    }
    Ok(reply)
}
