//! CHALLENGE and RESPONSE of rxkad: any bytes, and genuine ones that were changed on the way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rxrpc::crypto::krb5::{Enctype, Key};
use rxrpc::proto::{
    CallLimits, Connection, ConnectionParams, Level, Packet, PacketType, Side, WallClock, parse,
};
use rxrpc::security::rxkad::{Acceptor, Challenge, INDEX, Issue, Rxkad, ServerKeys, SessionKey, Token};

use crate::call_ops;
use crate::input::Input;

/// A client answers at most once for each challenge; a service takes nobody for another than the ticket says.
pub(crate) fn run(bytes: &[u8]) {
    if let Ok(challenge) = Challenge::parse(bytes) {
        assert_eq!(Challenge::parse(&challenge.encode()).ok(), Some(challenge));
    }
    let mut input = Input::new(bytes);
    let Some(choice) = input.byte() else { return };
    let mut pair = Pair::new();
    let asked = pair.ask();
    if choice & 1 == 0 {
        pair.challenge(&asked, &mut input);
    } else {
        pair.answer(&asked, &mut input);
    }
}

struct Pair {
    now: Instant,
    client: Connection,
    service: Connection,
}

impl Pair {
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn new() -> Self {
        let now = Instant::now();
        let key = Key::new(Enctype::Aes128Sha1, &[1; 16]).expect("a key");
        let issue = Issue {
            name: &["alice"],
            realm: "LAB.EXAMPLE",
            session: SessionKey::new(*b"\x10\x20\x31\x40\x51\x61\x70\x80"),
            times: (NOW - 60, NOW + 60),
        };
        let token: Token = issue.token(1, &key, [3; 16]).expect("a token");
        let (client, service) = (params(Side::Client), params(Side::Service));
        let rxkad = Rxkad::client(client.epoch, client.cid, &token, Level::Crypt);
        let acceptor = Acceptor {
            keys: Arc::new(ServerKeys::from_iter([(1, key)])),
            least: Level::Auth,
            nonce: 77,
            epoch: service.epoch,
            cid: service.cid,
            clock: WallClock {
                read_at: now,
                unix: Duration::from_secs(NOW),
            },
        };
        Self {
            now,
            client: Connection::secured(client, Arc::new(rxkad)),
            service: Connection::asking(service, Box::new(acceptor)),
        }
    }

    /// The client calls, and the service asks who it is.
    fn ask(&mut self) -> Packet {
        let slot = self
            .client
            .start_call(self.now, CallLimits::default())
            .expect("a channel");
        let written = self
            .client
            .write(self.now, slot, &mut Bytes::from_static(b"please"));
        assert_eq!((written, self.client.finish(self.now, slot)), (Ok(6), Ok(())));
        for packet in sent(&mut self.client, self.now) {
            self.service.handle_packet(self.now, packet);
        }
        let said = sent(&mut self.service, self.now);
        let asked = said
            .into_iter()
            .find(|packet| packet.header.packet_type == PacketType::Challenge);
        asked.expect("a challenge")
    }

    /// Challenges that the input has changed or made up come to the client.
    fn challenge(&mut self, asked: &Packet, input: &mut Input<'_>) {
        let mut challenges = 0;
        while let Some(choice) = input.byte() {
            let length = usize::from(input.byte().unwrap_or(0));
            let body = match choice & 1 {
                0 => Bytes::copy_from_slice(input.bytes(length)),
                _ => changed(&asked.body, input),
            };
            challenges += 1;
            self.client.handle_packet(
                self.now,
                Packet {
                    header: asked.header,
                    body,
                },
            );
            self.now += Duration::from_millis(u64::from(choice) * 8);
            self.client.handle_timeout(self.now);
            let said = sent(&mut self.client, self.now);
            let answers = said
                .iter()
                .filter(|packet| packet.header.packet_type == PacketType::Response);
            assert!(
                answers.clone().count() <= challenges,
                "more answers than questions"
            );
            assert!(
                answers
                    .map(|packet| packet.body.len())
                    .all(|len| len <= RESPONSE_MAX)
            );
        }
    }

    /// The client's own response comes to the service with changes.
    fn answer(&mut self, asked: &Packet, input: &mut Input<'_>) {
        self.client.handle_packet(self.now, asked.clone());
        let said = sent(&mut self.client, self.now);
        let response = said
            .into_iter()
            .find(|packet| packet.header.packet_type == PacketType::Response);
        let Packet { header, body } = response.expect("a response");
        let changed = changed(&body, input);
        let intact = changed == body;
        let fixed = changed.get(..FIXED_LEN) == body.get(..FIXED_LEN);
        self.service.handle_packet(
            self.now,
            Packet {
                header,
                body: changed,
            },
        );
        match self.service.caller() {
            None => assert!(!intact, "a genuine response is refused"),
            Some(caller) => {
                assert!(fixed, "a forged response is accepted");
                assert_eq!(
                    (caller.name.as_str(), caller.cell.as_str()),
                    ("alice", "LAB.EXAMPLE")
                );
                assert_eq!(caller.level, Level::Crypt);
            }
        }
        let said = sent(&mut self.service, self.now);
        assert!(said.len() <= 2, "{} packets in answer to one", said.len());
    }
}

/// A body in which up to 8 bytes are others, or that is cut or longer.
fn changed(body: &Bytes, input: &mut Input<'_>) -> Bytes {
    let mut body = body.to_vec();
    let changes = input.byte().unwrap_or(0);
    for _ in 0..changes & 7 {
        let (Some(place), Some(value)) = (input.byte(), input.byte()) else {
            break;
        };
        if let Some(byte) = body.get_mut(usize::from(place)) {
            *byte ^= value;
        }
    }
    match changes >> 6 {
        1 => body.truncate(usize::from(input.byte().unwrap_or(0))),
        2 => body.extend_from_slice(input.bytes(64)),
        _ => {}
    }
    body.into()
}

fn sent(connection: &mut Connection, now: Instant) -> Vec<Packet> {
    let (mut packets, mut out) = (Vec::new(), Vec::new());
    while let Some(run) = connection.poll_transmit(now, &mut out) {
        for datagram in out.chunks(run.segment_size) {
            packets.extend(parse(Bytes::copy_from_slice(datagram)).expect("our own packet"));
        }
        out.clear();
    }
    packets
}

fn params(side: Side) -> ConnectionParams {
    ConnectionParams {
        security: INDEX,
        ..call_ops::params(side)
    }
}

const NOW: u64 = 1_700_000_000;
/// All of a RESPONSE before the ticket.
const FIXED_LEN: usize = 56;
/// With the largest ticket that rxkad takes.
const RESPONSE_MAX: usize = FIXED_LEN + 12_000;
