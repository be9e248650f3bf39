//! Calls that the endpoint in the storm makes itself, to a service that often aborts the whole connection.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::EXPIRY;
use crate::net::{Endpoint, Target};
use crate::proto::{
    CallError, CallNumber, Flags, Header, Packet, PacketType, Seq, ServiceId, abort_codes, parse,
};
use crate::random::Random;

/// Calls over many bundles until `over`. Gives the number of calls that were neither answered nor aborted.
pub(super) async fn call_out(endpoint: Endpoint, over: Arc<AtomicBool>) -> u64 {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let SocketAddr::V4(peer) = socket.local_addr().unwrap() else {
        unreachable!()
    };
    let done = Arc::new(AtomicBool::new(false));
    let no_more = Arc::clone(&done);
    let service = thread::spawn(move || answer_or_abort(&socket, &no_more));
    let callers: Vec<_> = (0..BUNDLES)
        .map(|bundle| {
            let target = Target {
                scope: Arc::from(bundle.to_string()),
                ..Target::new(peer, ServiceId(2))
            };
            tokio::spawn(call_until(
                endpoint.clone(),
                target,
                Random::new(bundle),
                Arc::clone(&over),
            ))
        })
        .collect();
    let mut failed = 0;
    for caller in callers {
        failed += caller.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    service.join().unwrap();
    failed
}

async fn call_until(endpoint: Endpoint, target: Target, mut random: Random, over: Arc<AtomicBool>) -> u64 {
    let mut failed = 0;
    while !over.load(Ordering::Relaxed) {
        match ask(&endpoint, &target).await {
            Ok(reply) if reply == QUESTION => {}
            Err(CallError::ConnectionAborted(_)) => {}
            _ => failed += 1,
        }
        tokio::time::sleep(EXPIRY * u32::try_from(random.below(6)).unwrap()).await;
    }
    failed
}

async fn ask(endpoint: &Endpoint, target: &Target) -> Result<Bytes, CallError> {
    let mut call = endpoint.call(target).await?;
    call.send(Bytes::from_static(QUESTION)).await?;
    call.finish()?;
    let reply = call.recv().await?.unwrap_or_default();
    let rest = call.recv().await?;
    Ok(rest.unwrap_or(reply))
}

/// Answers with what it was asked, or aborts the connection.
fn answer_or_abort(socket: &UdpSocket, done: &AtomicBool) {
    let mut random = Random::new(0);
    let mut datagram = [0; 2048];
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while !done.load(Ordering::Relaxed) {
        let Ok((len, caller)) = socket.recv_from(&mut datagram) else {
            continue;
        };
        for Packet { header, body } in parse(Bytes::copy_from_slice(&datagram[..len])).unwrap() {
            if header.packet_type != PacketType::Data {
                continue;
            }
            let reply = Header {
                serial: header.serial,
                flags: Flags::LAST_PACKET,
                ..header
            };
            let mut out = Vec::new();
            if random.percent(10) {
                let abort = Header {
                    packet_type: PacketType::Abort,
                    flags: Flags::NONE,
                    call: CallNumber(0),
                    seq: Seq(0),
                    ..reply
                };
                abort.encode(&mut out);
                out.extend_from_slice(&abort_codes::RX_CALL_DEAD.0.to_be_bytes());
            } else {
                reply.encode(&mut out);
                out.extend_from_slice(&body);
            }
            socket.send_to(&out, caller).unwrap();
        }
    }
}

const QUESTION: &[u8] = b"question";
const BUNDLES: u64 = 100;
