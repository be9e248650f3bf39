//! Known answers of OpenAFS, and what a service makes of bad ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use der::asn1::AnyRef;
use der::{Encode, Tag, TagNumber};
use hex_literal::hex;
use proptest::prelude::*;

use super::*;
use crate::crypto::{des, krb5};
use crate::proto::{
    AbortCode, Acceptor as _, CallNumber, ChannelIndex, ConnectionId, Epoch, Level, PacketSecurity, Place,
    Sealed, Seq, WallClock,
};

const SESSION: SessionKey = SessionKey::new(hex!("1020314051617080"));
/// What OpenAFS's ticket maker put into a ticket of version 3 of its DES key.
const V4_TICKET: [u8; 48] =
    hex!("095f208dccb65a7c9e5692c6e8b08f81f1b52f1b077b94cf22aa42274e340d8a6722731fa171cf534583cd43333aa9db");

/// One connection between an OpenAFS client and service, as it was on the wire.
struct Transcript {
    level: Level,
    epoch: u32,
    cid: u32,
    /// Of the first and the second call.
    checksums: [u16; 2],
    requests: [&'static [u8]; 2],
    replies: [&'static [u8]; 2],
    challenge: [u8; 16],
    /// All of the response before the ticket.
    response: [u8; 56],
}

const TRANSCRIPTS: [Transcript; 3] = [
    Transcript {
        level: Level::Clear,
        epoch: 0x9ddc_d6a8,
        cid: 0x013f_c7a4,
        checksums: [0x0d68, 0x29b8],
        requests: [&hex!("000102030405060708090a0b0c0d0e0f10111213"); 2],
        replies: [&hex!("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0efeeedec"); 2],
        challenge: hex!("00000002fdd8722f0000000000000000"),
        response: hex!(
            "0000000200000000468ec21d162388e41df18185d1d48812d122d7fc5415e34421d5e220a587e043fe72efffe4bf4c70"
            "0000000300000030"
        ),
    },
    Transcript {
        level: Level::Auth,
        epoch: 0x9ddf_d1a5,
        cid: 0x2ecd_2918,
        checksums: [0x81b8, 0x5890],
        requests: [
            &hex!("6ec4fdb03285f19f0405060708090a0b0c0d0e0f10111213"),
            &hex!("0ebf4de33da2245c0405060708090a0b0c0d0e0f10111213"),
        ],
        replies: [
            &hex!("5193642a088596c0fbfaf9f8f7f6f5f4f3f2f1f0efeeedec"),
            &hex!("d128dd56e65d8b70fbfaf9f8f7f6f5f4f3f2f1f0efeeedec"),
        ],
        challenge: hex!("0000000221298c250000000000000000"),
        response: hex!(
            "00000002000000007a0701412d487ae561faaee1d4de3a365dc7a44a1645a24df1a55669610756b33ac20bf7059d5a1a"
            "0000000300000030"
        ),
    },
    Transcript {
        level: Level::Crypt,
        epoch: 0xbfa0_002b,
        cid: 0x6873_087c,
        checksums: [0x2e07, 0x87b0],
        requests: [
            &hex!("b5dde127f19e10530a38f8c6a481003c1f99bb0925cffa41214c340fe095ba69"),
            &hex!("4ae0cace6aaf840ecb0d6557d38b84554453c41b9b179d070738357e34a82f0c"),
        ],
        replies: [
            &hex!("b5dde127f19e10536ac58db330049051334084ad4bfd10de493b1d94423f6953"),
            &hex!("4ae0cace6aaf840ed34ffd28f89e0c4993f2acd4ba05908f767e6bd8c32647bb"),
        ],
        challenge: hex!("00000002c59b962e0000000000000000"),
        response: hex!(
            "00000002000000001fd42db3afd5dc9aa3a8fa47acaebb3ed102311f5892eee97e475e2fad1ef20272327c495d2ab331"
            "0000000300000030"
        ),
    },
];

fn place(call: u32, seq: u32) -> Place {
    Place {
        channel: ChannelIndex::default(),
        call: CallNumber(call),
        seq: Seq(seq),
    }
}

fn sealed(security: &Rxkad, place: Place, payload: &[u8]) -> Sealed {
    let mut sealed = [Sealed {
        body: Bytes::copy_from_slice(payload),
        checksum: 0,
    }];
    security.seal(place, &mut sealed);
    let [sealed] = sealed;
    sealed
}

fn client(level: Level) -> Rxkad {
    let token = Token::new(Bytes::from_static(&V4_TICKET), 3, SESSION);
    Rxkad::client(Epoch(0x8000_0001), ConnectionId(0x10), &token, level)
}

#[test]
fn transcripts() {
    let request: Vec<u8> = (0..20).collect();
    let reply: Vec<u8> = (0..20).map(|byte: u8| !byte).collect();
    for transcript in TRANSCRIPTS {
        let (epoch, cid, level) = (
            Epoch(transcript.epoch),
            ConnectionId(transcript.cid),
            transcript.level,
        );
        let token = Token::new(Bytes::from_static(&V4_TICKET), 3, SESSION);
        let client = Rxkad::client(epoch, cid, &token, level);
        let service = Rxkad::service(epoch, cid, &SESSION, level);
        for (at, call) in (1..=2).enumerate() {
            let (place, checksum) = (place(call, 1), transcript.checksums[at]);
            let directions = [
                (&client, &service, &request, transcript.requests[at]),
                (&service, &client, &reply, transcript.replies[at]),
            ];
            for (from, to, payload, body) in directions {
                let sealed = sealed(from, place, payload);
                assert_eq!((&sealed.body[..], sealed.checksum), (body, checksum), "{level:?}");
                assert_eq!(to.check(place, checksum, body), Ok(()));
                let opened = to.open(place, checksum, Bytes::from_static(body)).unwrap();
                assert_eq!(opened, payload[..]);
            }
        }
        let calls = [1, 0, 0, 0].map(CallNumber);
        let response = client.respond(&transcript.challenge, calls).unwrap();
        assert_eq!(response[..56], transcript.response, "{level:?}");
        assert_eq!(response[56..], V4_TICKET);
    }
}

/// The service that OpenAFS's was, with the same key, takes what its client has answered.
#[test]
fn transcripts_prove_who_is_there() {
    for transcript in TRANSCRIPTS {
        let key = des::Key::new(hex!("23456789abcdef01"));
        let (acceptor, now) = acceptor(Level::Clear);
        let acceptor = Acceptor {
            keys: Arc::new(ServerKeys::default().with_des(3, key)),
            nonce: u32::from_be_bytes(*transcript.challenge[4..].first_chunk().unwrap()),
            epoch: Epoch(transcript.epoch),
            cid: ConnectionId(transcript.cid),
            ..acceptor
        };
        assert_eq!(acceptor.challenge(), transcript.challenge[..]);
        let response = [&transcript.response[..], &V4_TICKET].concat();
        let accepted = acceptor.accept(now, &response).unwrap();
        assert_eq!(accepted.calls, [1, 0, 0, 0].map(CallNumber));
        let caller = crate::proto::Caller {
            name: "admin".to_owned(),
            instance: String::new(),
            cell: "lab.example".to_owned(),
            level: transcript.level,
        };
        assert_eq!(*accepted.caller, caller);
        let other = Acceptor {
            keys: Arc::new(keys().with_des(4, des::Key::new([2; 8]))),
            ..acceptor
        };
        assert_eq!(other.accept(now, &response).err(), Some(Fault::UnknownKey.code()));
    }
}

#[test]
fn version_numbers_stand_for_forms() {
    for (kvno, form) in [
        (0, Some(TicketForm::Version4(0))),
        (212, Some(TicketForm::Version4(212))),
        (213, Some(TicketForm::EncryptedPart)),
        (214, Some(TicketForm::Version4(214))),
        (255, Some(TicketForm::Version4(255))),
        (256, Some(TicketForm::Whole)),
        (257, None),
        (u32::MAX, None),
    ] {
        assert_eq!(TicketForm::from_kvno(kvno), form);
        assert!(form.is_none_or(|form| form.kvno() == kvno));
    }
}

#[test]
fn tickets_of_kerberos_4_are_made_and_opened() {
    let key = des::Key::new(hex!("23456789abcdef01"));
    let judge = |token: &Token| {
        let (acceptor, now) = acceptor(Level::Clear);
        let acceptor = Acceptor {
            keys: Arc::new(ServerKeys::default().with_des(3, key.clone())),
            ..acceptor
        };
        let client = Rxkad::client(acceptor.epoch, acceptor.cid, token, Level::Auth);
        let response = client.respond(&acceptor.challenge(), [CallNumber(1); 4]).unwrap();
        acceptor.accept(now, &response).map(|accepted| accepted.caller)
    };
    let made = |issue: Issue<'_>| issue.token_of_version_4(3, &key).unwrap();
    let caller = judge(&made(Issue {
        name: &["host", "admin"],
        ..user()
    }));
    let caller = caller.unwrap();
    assert_eq!((&*caller.name, &*caller.instance), ("host", "admin"));
    let ever = Issue {
        times: (0, 0xffff_ffff),
        ..local()
    };
    assert_eq!(judge(&made(ever)).unwrap().name, "afs");
    for (times, fault) in [
        ((NOW - 4000, NOW - 3000), Fault::Expired),
        ((NOW + 2000, NOW + 3000), Fault::NoAuth),
    ] {
        assert_eq!(judge(&made(Issue { times, ..user() })), Err(fault.code()));
    }
    let other = user().token_of_version_4(3, &des::Key::new([2; 8])).unwrap();
    assert_eq!(judge(&other), Err(Fault::BadTicket.code()));
    let three = Issue {
        name: &["a", "b", "c"],
        ..user()
    };
    assert!(three.token_of_version_4(3, &key).is_err());
}

#[test]
fn capacity_is_that_of_openafs() {
    let max = |room| Level::ALL.map(|level| client(level).payload_max(room));
    assert_eq!(max(1416), [1416, 1412, 1408]);
    assert_eq!(max(1412), [1412, 1408, 1400]);
    assert_eq!(max(0), [0, 0, 0]);
}

#[test]
fn a_packet_elsewhere_or_changed_is_not_the_peers() {
    for level in Level::ALL {
        let security = client(level);
        let here = place(7, 3);
        let Sealed { body, checksum } = sealed(&security, here, b"some bytes that matter");
        let code = Err(Fault::SealedInconsistent.code());
        assert_eq!(security.check(here, checksum, &body), Ok(()));
        let channel = ChannelIndex::from_wire(1);
        for elsewhere in [place(7, 4), place(8, 3), Place { channel, ..here }] {
            assert_eq!(security.check(elsewhere, checksum, &body), code, "{level:?}");
            assert_eq!(
                security.open(elsewhere, checksum, body.clone()),
                code.map(|()| Bytes::new())
            );
        }
        assert_eq!(security.check(here, checksum ^ 1, &body), code);
        if level != Level::Clear {
            let mut changed = body.to_vec();
            changed[0] ^= 0x80;
            assert_eq!(security.check(here, checksum, &changed), code, "{level:?}");
            assert_eq!(security.check(here, checksum, &body[..7]), code, "{level:?}");
            let cut = security.check(here, checksum, &body[..8]);
            assert_eq!(cut, Err(Fault::DataLength.code()), "{level:?}");
        }
    }
}

#[test]
fn linux_pads_behind_the_last_block() {
    let security = client(Level::Crypt);
    let Sealed { body, checksum } = sealed(&security, place(1, 1), &[7; 1400]);
    let mut padded = body.to_vec();
    padded.extend_from_slice(&[0; 4]);
    assert_eq!(padded.len(), 1412);
    let opened = security.open(place(1, 1), checksum, padded.into()).unwrap();
    assert_eq!(opened, [7; 1400][..]);
}

#[test]
fn challenges_that_are_not_answered() {
    let respond = |level, challenge: &[u8]| client(level).respond(challenge, [CallNumber(0); 4]);
    let fault = |fault: Fault| Err(fault.code());
    let least = |level: u32| [[0, 0, 0, 2], [9; 4], level.to_be_bytes(), [0; 4]].concat();
    assert_eq!(respond(Level::Crypt, &[0; 15]), fault(Fault::PacketShort));
    assert_eq!(respond(Level::Crypt, &[0; 16]), fault(Fault::Inconsistency));
    assert_eq!(respond(Level::Crypt, &least(3)), fault(Fault::LevelFail));
    assert_eq!(respond(Level::Auth, &least(2)), fault(Fault::LevelFail));
    assert_eq!(respond(Level::Clear, &least(1)), fault(Fault::LevelFail));
    assert!(respond(Level::Auth, &least(0)).is_ok());
    let service = Rxkad::service(Epoch(1), ConnectionId(4), &SESSION, Level::Crypt);
    assert_eq!(
        service.respond(&least(0), [CallNumber(0); 4]),
        fault(Fault::Inconsistency)
    );
}

fn server_key(enctype: krb5::Enctype) -> krb5::Key {
    let bytes: Vec<u8> = (0..32).collect();
    krb5::Key::new(enctype, &bytes[..enctype.key_len()]).unwrap()
}

fn keys() -> ServerKeys {
    krb5::Enctype::ALL
        .into_iter()
        .map(|enctype| (2, server_key(enctype)))
        .collect()
}

fn local() -> Issue<'static> {
    Issue {
        name: &["afs"],
        realm: "",
        session: SESSION,
        times: (0, 0x7fff_ffff),
    }
}

const NOW: u64 = 1_700_000_000;

fn user() -> Issue<'static> {
    Issue {
        name: &["alice"],
        realm: "LAB.EXAMPLE",
        session: SESSION,
        times: (NOW - 100, NOW + 36_000),
    }
}

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn acceptor(least: Level) -> (Acceptor, Instant) {
    let now = Instant::now();
    let acceptor = Acceptor {
        keys: Arc::new(keys()),
        least,
        nonce: 0xffff_ffff,
        epoch: Epoch(0x8000_0001),
        cid: ConnectionId(0x10),
        clock: WallClock {
            read_at: now,
            unix: Duration::from_secs(NOW),
        },
    };
    (acceptor, now)
}

/// What a service with `least` makes of the response of a client with `token` and `level`.
fn judged(token: &Token, level: Level, least: Level) -> Result<Arc<crate::proto::Caller>, AbortCode> {
    let (acceptor, now) = acceptor(least);
    let challenge = Challenge {
        least: Level::Clear,
        nonce: acceptor.nonce,
    };
    let client = Rxkad::client(acceptor.epoch, acceptor.cid, token, level);
    let response = client
        .respond(&challenge.encode(), [1, 0, 7, 0].map(CallNumber))
        .unwrap();
    let accepted = acceptor.accept(now, &response)?;
    assert_eq!(accepted.calls, [1, 0, 7, 0].map(CallNumber));
    Ok(accepted.caller)
}

fn token(issue: &Issue<'_>) -> Token {
    issue
        .token(2, &server_key(krb5::Enctype::Aes256Sha1), [9; 16])
        .unwrap()
}

#[test]
fn what_openafs_puts_into_a_ticket_of_its_own() {
    let known = hex!(
        "63693067a00703050000080000a1133011a003020101a10a04081020314051617080a2021b00a310300ea003020101a10730051b03"
        "616673a40b3009a003020100a1020400a511180f31393730303130313030303030305aa711180f3230333830313139303331343037"
        "5a"
    );
    assert_eq!(local().plain().unwrap(), known);
}

#[test]
fn tickets_of_openafs_open() {
    let ticket_17 = hex!(
        "308197a003020111a103020102a2818a048187c377227e8503bb51350d1df61ec4abd6bea6908e66efca11c689749cd160d7ca7e3a"
        "0c51e3b39156c8ea38479b40d53ee74c9946a08ca991b4b1756a46c6bd576747f1e1f6c43b4c1e03a756e587c4ef6a7d3b1cda7275"
        "8398e7e92afd0714616cd3881423464b69fe094d612fcf8cb2ba8084310b197436e1acaaf74733eb5991a965f3f16045"
    );
    let ticket_18 = hex!(
        "308197a003020112a103020102a2818a0481876f6899bb716a28681ea0a1c6dee5fbbd787a2044c6eb9b1a597ecbf84861b7551ad6"
        "44b5c31f4a2f0d55dd3714fdf465db42dcb21b5a08d7988cf47a580a62cee7dd1709287c790d3ecc556c4022fa8fc1564bc024fada"
        "b6fd1612846332cda948e3bbfb8d805f007efcfdd9e5b2b914b0dc7f9290ba62f3c845ff57507b4396606dc8628025b9"
    );
    for ticket in [ticket_17, ticket_18] {
        let opened = Ticket::open(TicketForm::EncryptedPart, &ticket, &keys()).unwrap();
        assert_eq!(opened.session_key().unwrap().bytes(), SESSION.bytes());
        assert_eq!(opened.check_times(NOW), Ok(()));
        let token = Token::new(Bytes::copy_from_slice(&ticket), 213, SESSION);
        let caller = judged(&token, Level::Crypt, Level::Crypt).unwrap();
        assert_eq!((&*caller.name, &*caller.instance, &*caller.cell), ("afs", "", ""));
        assert_eq!(caller.level, Level::Crypt);
    }
}

#[test]
fn a_whole_ticket_opens_too() {
    let part = token(&user());
    let whole = [
        &hex!("a003020105")[..],
        &hex!("a10d1b0b4c41422e4558414d504c45"),
        &hex!("a2183016a003020101a10f300d1b036166731b066578616d7065"),
    ]
    .concat();
    let encrypted = AnyRef::new(
        Tag::ContextSpecific {
            constructed: true,
            number: TagNumber(3),
        },
        &part.ticket,
    )
    .unwrap()
    .to_der()
    .unwrap();
    let inner = AnyRef::new(Tag::Sequence, &[whole, encrypted].concat())
        .unwrap()
        .to_der()
        .unwrap();
    let tag = Tag::Application {
        constructed: true,
        number: TagNumber(1),
    };
    let ticket = AnyRef::new(tag, &inner).unwrap().to_der().unwrap();
    let caller = judged(
        &Token::new(ticket.into(), 256, SESSION),
        Level::Auth,
        Level::Clear,
    )
    .unwrap();
    assert_eq!((&*caller.name, &*caller.cell), ("alice", "LAB.EXAMPLE"));
}

#[test]
fn bad_tickets_have_codes_of_their_own() {
    let at = |times| Issue { times, ..user() };
    let key = server_key(krb5::Enctype::Aes128Sha256);
    let day = 24 * 60 * 60;
    let cases = [
        (token(&at((NOW - 100, NOW - 1))), Fault::Expired),
        (token(&at((NOW + 2000, NOW + 3000))), Fault::NoAuth),
        (token(&at((NOW - 100, NOW + 31 * day))), Fault::BadTicket),
        (
            token(&Issue {
                name: &["a.b"],
                ..user()
            }),
            Fault::BadTicket,
        ),
        (
            token(&Issue {
                name: &["a", "b", "c"],
                ..user()
            }),
            Fault::BadTicket,
        ),
        (
            token(&Issue {
                name: &["host", "nodomain"],
                ..user()
            }),
            Fault::BadTicket,
        ),
        (user().token(3, &key, [1; 16]).unwrap(), Fault::UnknownKey),
        (
            Token {
                kvno: 3,
                ..token(&user())
            },
            Fault::UnknownKey,
        ),
        (
            Token {
                kvno: 256,
                ..token(&user())
            },
            Fault::BadTicket,
        ),
        (
            Token {
                ticket: Bytes::from_static(&[0x30; 31]),
                ..token(&user())
            },
            Fault::TicketLength,
        ),
        (
            Token {
                ticket: vec![0x30; 12_001].into(),
                ..token(&user())
            },
            Fault::TicketLength,
        ),
        (
            Token {
                ticket: Bytes::from_static(&[0x30; 40]),
                ..token(&user())
            },
            Fault::BadTicket,
        ),
        (
            Token {
                key: SessionKey::new([1; 8]),
                ..token(&user())
            },
            Fault::SealedInconsistent,
        ),
    ];
    for (token, fault) in cases {
        assert_eq!(
            judged(&token, Level::Crypt, Level::Clear),
            Err(fault.code()),
            "{token:?}, {fault:?}"
        );
    }
    let mut flipped = token(&user());
    let mut bytes = flipped.ticket.to_vec();
    bytes[60] ^= 1;
    flipped.ticket = bytes.into();
    assert_eq!(
        judged(&flipped, Level::Crypt, Level::Clear),
        Err(Fault::BadTicket.code())
    );
}

#[test]
fn names_are_those_of_kerberos_4() {
    for (name, expected) in [
        (&["alice"][..], ("alice", "")),
        (&["alice", "admin"], ("alice", "admin")),
        (&["host", "a.b.example"], ("rcmd", "a")),
        (&["imap", "mail.example"], ("imap", "mail")),
        (&["kadmin", "admin"], ("kadmin", "")),
    ] {
        let caller = judged(&token(&Issue { name, ..user() }), Level::Clear, Level::Clear).unwrap();
        assert_eq!((&*caller.name, &*caller.instance), expected);
    }
}

#[test]
fn a_level_below_the_least_fails() {
    for level in Level::ALL {
        for least in Level::ALL {
            let expected = if level < least {
                Err(Fault::LevelFail.code())
            } else {
                Ok(level)
            };
            let judged = judged(&token(&user()), level, least).map(|caller| caller.level);
            assert_eq!(judged, expected, "{level:?} for {least:?}");
        }
    }
}

#[test]
fn an_answer_is_good_for_its_challenge_and_connection_alone() {
    let (acceptor, now) = acceptor(Level::Clear);
    let respond = |epoch, cid, nonce| {
        let client = Rxkad::client(epoch, cid, &token(&user()), Level::Crypt);
        let least = Level::Clear;
        client
            .respond(&Challenge { nonce, least }.encode(), [CallNumber(1); 4])
            .unwrap()
    };
    let judge = |response: &[u8]| {
        acceptor
            .accept(now, response)
            .map(|_| ())
            .map_err(Fault::from_code)
    };
    let (epoch, cid, nonce) = (acceptor.epoch, acceptor.cid, acceptor.nonce);
    let good = respond(epoch, cid, nonce);
    assert_eq!(judge(&good), Ok(()));
    assert_eq!(judge(&[&good[..], b"trailing"].concat()), Ok(()));
    assert_eq!(
        judge(&respond(epoch, cid, nonce ^ 1)),
        Err(Some(Fault::OutOfSequence))
    );
    assert_eq!(
        judge(&respond(epoch, ConnectionId(0x14), nonce)),
        Err(Some(Fault::SealedInconsistent))
    );
    assert_eq!(
        judge(&respond(Epoch(3), cid, nonce)),
        Err(Some(Fault::SealedInconsistent))
    );
    assert_eq!(judge(&good[..55]), Err(Some(Fault::PacketShort)));
    assert_eq!(judge(&good[..good.len() - 1]), Err(Some(Fault::PacketShort)));
    let mut other = good.to_vec();
    other[3] = 1;
    assert_eq!(judge(&other), Err(Some(Fault::Inconsistency)));
}

#[test]
fn keys_are_not_shown() {
    let token = token(&user());
    let text = format!("{token:?} {SESSION:?} {:?} {:?}", keys(), client(Level::Crypt));
    assert_eq!(
        text,
        format!(
            "Token(kvno 213, ticket of {} bytes) SessionKey [2, 2, 2, 2] Rxkad {{ level: Crypt, .. }}",
            token.ticket.len()
        )
    );
}

proptest! {
    /// Whatever is sealed opens again, in batches of all sizes.
    #[test]
    fn sealed_packets_open(
        level in prop::sample::select(Level::ALL.to_vec()),
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..10),
        call: u32,
        seq: u32,
    ) {
        let (security, first) = (client(level), place(call, seq));
        let mut bodies: Vec<Sealed> = payloads.iter().map(|payload| Sealed {
            body: Bytes::copy_from_slice(payload),
            checksum: 0,
        }).collect();
        security.seal(first, &mut bodies);
        for (offset, (sealed, payload)) in (0..).zip(bodies.into_iter().zip(payloads)) {
            let here = Place { seq: first.seq.plus(offset), ..first };
            prop_assert_eq!(security.check(here, sealed.checksum, &sealed.body), Ok(()));
            prop_assert_eq!(&security.open(here, sealed.checksum, sealed.body).unwrap()[..], &payload[..]);
        }
    }

    /// No body, challenge, response or ticket makes a parser panic.
    #[test]
    fn junk_is_refused(junk in prop::collection::vec(any::<u8>(), 0..200), checksum: u16) {
        for level in Level::ALL {
            let security = client(level);
            let _ = security.check(place(1, 1), checksum, &junk);
            let _ = security.open(place(1, 1), checksum, junk.clone().into());
            let _ = security.respond(&junk, [CallNumber(0); 4]);
        }
        let (acceptor, now) = acceptor(Level::Clear);
        prop_assert!(acceptor.accept(now, &junk).is_err());
        for form in [TicketForm::EncryptedPart, TicketForm::Whole] {
            prop_assert!(Ticket::open(form, &junk, &keys()).is_err());
        }
    }
}
