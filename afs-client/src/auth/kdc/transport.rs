//! Getting a request to a key distribution center and its reply back (RFC 4120 7.2).
//!
//! The machine: every address is tried by UDP, again with more patience, and then by TCP; a request that is long, or
//! whose reply is, goes by TCP at once. The first answer counts. Nothing waits longer than [`PATIENCE`].

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Sends the request to one address after the other.
///
/// # Errors
///
/// Who was asked and what became of it.
pub(super) async fn exchange(
    addresses: &[SocketAddr],
    request: &[u8],
    udp_limit: usize,
    is_too_big: impl Fn(&[u8]) -> bool,
) -> Result<Vec<u8>, String> {
    let mut failures = Vec::new();
    let all = async {
        if request.len() <= udp_limit {
            'rounds: for patience in UDP_ROUNDS {
                for address in addresses {
                    match timeout(patience, by_udp(*address, request)).await {
                        Ok(Ok(reply)) if is_too_big(&reply) => break 'rounds,
                        Ok(Ok(reply)) => return Some(reply),
                        Ok(Err(error)) => failures.push(format!("{address} by UDP: {error}")),
                        Err(_) => failures.push(format!("{address} by UDP: no answer")),
                    }
                }
            }
        }
        for address in addresses {
            match timeout(TCP_PATIENCE, by_tcp(*address, request)).await {
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(error)) => failures.push(format!("{address} by TCP: {error}")),
                Err(_) => failures.push(format!("{address} by TCP: no answer")),
            }
        }
        None
    };
    if let Ok(Some(reply)) = timeout(PATIENCE, all).await {
        return Ok(reply);
    }
    let mut said = Vec::new();
    for failure in failures {
        if !said.contains(&failure) {
            said.push(failure);
        }
    }
    Err(said.join(", "))
}

async fn by_udp(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if address.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await?;
    // From then on only this address can answer, and that it cannot be reached is an error.
    socket.connect(address).await?;
    socket.send(request).await?;
    let mut reply = vec![0; UDP_MAX];
    let len = socket.recv(&mut reply).await?;
    reply.truncate(len);
    Ok(reply)
}

async fn by_tcp(address: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let length = u32::try_from(request.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream
        .write_all(&[&length.to_be_bytes(), request].concat())
        .await?;
    let length = stream.read_u32().await?;
    if length > TCP_MAX {
        let what = format!("a reply of {length} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut reply = vec![0; usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

const UDP_ROUNDS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];
const TCP_PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(25);
const UDP_MAX: usize = 65_536;
/// No ticket is longer.
const TCP_MAX: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_is_too_big_for_udp_goes_by_tcp() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).await.unwrap();
        let server = tokio::spawn(async move {
            let mut request = [0; 100];
            let (_, from) = udp.recv_from(&mut request).await.unwrap();
            udp.send_to(b"too big", from).await.unwrap();
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut request = vec![0; usize::try_from(stream.read_u32().await.unwrap()).unwrap()];
            stream.read_exact(&mut request).await.unwrap();
            stream.write_all(&5_u32.to_be_bytes()).await.unwrap();
            stream.write_all(b"reply").await.unwrap();
            request
        });
        let is_too_big = |reply: &[u8]| reply == b"too big";
        let reply = exchange(&[address], b"request", 1000, is_too_big).await;
        assert_eq!(reply.as_deref(), Ok(&b"reply"[..]));
        assert_eq!(server.await.unwrap(), b"request");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_named_and_the_next_is_asked() {
        let dead = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut request = [0; 100];
            let (len, from) = udp.recv_from(&mut request).await.unwrap();
            udp.send_to(&request[..len], from).await.unwrap();
        });
        let reply = exchange(&[dead, address], b"echo", 1000, |_| false).await;
        assert_eq!(reply.as_deref(), Ok(&b"echo"[..]));
        server.await.unwrap();
        let failure = exchange(&[dead], b"echo", 0, |_| false).await.unwrap_err();
        assert!(failure.starts_with(&format!("{dead} by TCP: ")), "{failure}");
    }

    #[tokio::test]
    async fn a_reply_without_end_is_not_waited_for() {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = tcp.accept().await.unwrap();
            stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        });
        let failure = exchange(&[address], b"x", 0, |_| false).await.unwrap_err();
        assert!(failure.contains("a reply of 4294967295 bytes"), "{failure}");
    }
}
