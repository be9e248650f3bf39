//! Several realms, each with a KDC of a few lines on loopback, which checks what it is sent.

use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::SystemTime;

use super::*;

/// The realm of the client in all of them.
const HOME: &str = "A";

/// What the KDC of one realm gives to those who ask for something: that, or something else.
struct Kdc {
    realm: &'static str,
    gives: HashMap<&'static str, &'static str>,
    /// It answers other questions than it was asked.
    confused: bool,
}

impl Kdc {
    fn new(realm: &'static str, gives: &[(&'static str, &'static str)]) -> Self {
        Self {
            realm,
            gives: gives.iter().copied().collect(),
            confused: false,
        }
    }

    /// Serves on a thread that ends with the test; gives the line for `krb5.conf`.
    fn serve(self) -> String {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let line = format!(
            "{} = {{\nkdc = {}\n}}\n",
            self.realm,
            socket.local_addr().unwrap()
        );
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                socket.send_to(&self.answer(&buffer[..len]), from).unwrap();
            }
        });
        line
    }

    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let request: Request = messages::decode(TGS_REQ.into(), request).unwrap().unwrap();
        let body = request.body;
        let [proof] = &request.padata.unwrap()[..] else {
            panic!("one proof")
        };
        let proof: ApRequest = messages::decode(AP_REQ.into(), proof.value.as_bytes())
            .unwrap()
            .unwrap();
        let key = key(proof.ticket.value()[0]);
        let sealed = proof.authenticator.cipher.as_bytes();
        let opened = key.decrypt(TGS_REQ_AUTHENTICATOR, sealed).unwrap();
        let said: Authenticator = messages::decode(AUTHENTICATOR, &opened).unwrap().unwrap();
        let signed = key.checksum(TGS_REQ_CHECKSUM, &body.to_der().unwrap());
        assert_eq!(said.checksum.unwrap().bytes.as_bytes(), signed);
        assert_eq!((&*said.client_realm.0, &*body.realm.0), (HOME, self.realm));

        let asked: Vec<_> = body
            .server
            .unwrap()
            .components
            .into_iter()
            .map(|part| part.0)
            .collect();
        let asked = asked.join("/");
        let given = self.gives.get(&*asked).copied();
        let Some(given) = given else {
            return self.refusal(&asked);
        };
        let given = Principal::parse(given, Some(self.realm)).unwrap();
        // The next KDC finds the key in the ticket, as a real one would.
        let number = given.components.last().unwrap().as_bytes()[0];
        let part = ReplyPart {
            key: messages::EncryptionKey {
                enctype: ENCTYPE.number(),
                bytes: OctetString::new(self::key(number).bytes()).unwrap(),
            },
            last_request: Any::null(),
            nonce: i64::from(body.nonce) + i64::from(self.confused),
            key_expiration: None,
            flags: BitString::from_bytes(&[0; 4]).unwrap(),
            authenticated: at(0),
            starts: None,
            ends: at(3600),
            renew_till: None,
            server_realm: Text(self.realm.to_owned()),
            server: (&given).into(),
            addresses: None,
            padata: None,
        };
        let part = messages::encode(ENC_TGS_REP_PART, part).unwrap();
        let reply = Reply {
            protocol: PROTOCOL,
            kind: TGS_REP,
            padata: None,
            client_realm: said.client_realm,
            client: said.client,
            ticket: Any::new(der::Tag::OctetString, [number]).unwrap(),
            sealed: super::sealed(&key, TGS_REP_SEALED, &part).unwrap(),
        };
        messages::encode(TGS_REP.into(), reply).unwrap()
    }

    fn refusal(&self, asked: &str) -> Vec<u8> {
        let refusal = Refusal {
            protocol: PROTOCOL,
            kind: KRB_ERROR,
            client_time: None,
            client_micros: None,
            time: at(0),
            micros: 0,
            code: SERVER_UNKNOWN,
            client_realm: None,
            client: None,
            realm: Text(self.realm.to_owned()),
            server: (&Principal::parse(asked, Some(self.realm)).unwrap()).into(),
            text: None,
            data: None,
        };
        messages::encode(KRB_ERROR.into(), refusal).unwrap()
    }
}

/// The session key of the tickets for whatever begins with this letter.
fn key(letter: u8) -> Key {
    Key::new(ENCTYPE, &[letter; 32]).unwrap()
}

fn at(seconds: u64) -> der::asn1::GeneralizedTime {
    messages::time(clock::wall() + Duration::from_secs(seconds))
        .unwrap()
        .0
}

/// Asks for a service as alice of realm A.
fn ask(kdcs: impl IntoIterator<Item = Kdc>, server: &str) -> Result<Credential, KdcError> {
    let realms: String = kdcs.into_iter().map(Kdc::serve).collect();
    let conf = Krb5Conf::from_text(&format!(
        "[libdefaults]\ndns_lookup_kdc = false\n[realms]\n{realms}"
    ));
    let now = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let granting = Credential {
        client: Principal::new(&["alice"], HOME),
        server: Principal::ticket_granter(HOME, HOME),
        enctype: ENCTYPE.number(),
        key: Zeroizing::new(key(b'A').bytes().to_vec()),
        starts: 0,
        ends: u32::try_from(now.as_secs()).unwrap() + 600,
        renew_till: 0,
        ticket: Any::new(der::Tag::OctetString, [b'A']).unwrap().to_der().unwrap(),
    };
    let server = Principal::parse(server, None).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(KdcClient::new(&conf).service(&granting, &server))
}

#[test]
fn referrals_are_followed_from_realm_to_realm() {
    let own = |realm| Kdc::new(realm, &[("afs/lab", "afs/lab")]);
    for (kdcs, asked, found) in [
        (vec![own("A")], "afs/lab@A", "afs/lab@A"),
        // The home KDC knows where it is.
        (
            vec![Kdc::new("A", &[("afs/lab", "krbtgt/B")]), own("B")],
            "afs/lab@A",
            "afs/lab@B",
        ),
        // The client knows the realm, and the home KDC that realm's.
        (
            vec![Kdc::new("A", &[("krbtgt/B", "krbtgt/B")]), own("B")],
            "afs/lab@B",
            "afs/lab@B",
        ),
        // The way leads through another realm.
        (
            vec![
                Kdc::new("A", &[("krbtgt/C", "krbtgt/B")]),
                Kdc::new("B", &[("krbtgt/C", "krbtgt/C")]),
                own("C"),
            ],
            "afs/lab@C",
            "afs/lab@C",
        ),
    ] {
        let got = ask(kdcs, asked).unwrap();
        assert_eq!(got.server.to_string(), found, "{asked}");
        assert_eq!(got.client, Principal::new(&["alice"], HOME));
        assert_eq!(got.key[..], [b'l'; 32], "the key of the last ticket");
    }
}

#[test]
fn ways_that_lead_nowhere_end() {
    let circle = [
        Kdc::new("A", &[("afs/lab", "krbtgt/B")]),
        Kdc::new("B", &[("afs/lab", "krbtgt/A")]),
    ];
    assert!(matches!(ask(circle, "afs/lab@A"), Err(KdcError::Lost { .. })));
    let other_service = [Kdc::new("A", &[("afs/lab", "afs/other")])];
    assert!(matches!(
        ask(other_service, "afs/lab@A"),
        Err(KdcError::Lost { .. })
    ));
    let nowhere = [Kdc::new("A", &[("afs/lab", "krbtgt/B")])];
    let lost = ask(nowhere, "afs/lab@A").unwrap_err();
    assert!(
        matches!(&lost, KdcError::NoKdc { realm, .. } if realm == "B"),
        "{lost}"
    );
    let unknown = ask([Kdc::new("A", &[])], "afs/lab@A").unwrap_err();
    assert!(unknown.is_unknown_service(), "{unknown}");
}

#[test]
fn a_reply_to_another_question_is_none() {
    let confused = Kdc {
        confused: true,
        ..Kdc::new("A", &[("afs/lab", "afs/lab")])
    };
    assert!(matches!(
        ask([confused], "afs/lab@A"),
        Err(KdcError::Nonsense { .. })
    ));
}

const ENCTYPE: Enctype = Enctype::Aes256Sha1;
/// RFC 4120 7.5.9.
const SERVER_UNKNOWN: i32 = 7;
