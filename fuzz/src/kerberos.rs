//! What Kerberos keeps in files and says over the network: credential caches, key files, `krb5.conf`, replies of a KDC.

use std::path::Path;

use afs_client::auth::Principal;
use afs_client::auth::ccache::Credentials;
use afs_client::auth::kdc::{KdcError, read_reply};
use afs_client::auth::keytab::{Keytab, KeytabError};
use afs_client::auth::krb5_conf::{Krb5Conf, Krb5ConfError};
use afs_client::auth::localauth::{LocalauthError, ServerKey};
use afs_client::cell::CellName;
use rxrpc::crypto::krb5::{Enctype, Key, Usage};

/// What is damaged is named with its place in the input; no more is read out than was in.
pub(crate) fn ccache(bytes: &[u8]) {
    match Credentials::parse(bytes) {
        Err(malformed) => assert!(malformed.at <= bytes.len(), "{malformed}"),
        Ok(found) => {
            let taken: usize = found
                .credentials
                .iter()
                .map(|credential| credential.ticket.len() + credential.key.len())
                .sum();
            assert!(taken <= bytes.len());
            if let Some(granting) = found.ticket_granting() {
                assert_eq!(granting.server.grants_for(), Some(found.owner.realm.as_str()));
            }
        }
    }
}

/// Key tables, and the servers' own key files. A key that was found gives a token that a service could take.
pub(crate) fn keytab(bytes: &[u8]) {
    let path = Path::new("keys");
    match Keytab::parse(path, bytes) {
        Err(KeytabError::Malformed { malformed, .. }) => assert!(malformed.at <= bytes.len()),
        Err(error) => panic!("{error}"),
        Ok(table) => {
            let _ = table.keys_of(&Principal::new(&["afs", "lab.example"], "LAB.EXAMPLE"));
            if let Ok((_, keys)) = table.keys_of_service("afs") {
                assert!(!keys.is_empty() && keys.len() * 16 <= bytes.len());
            }
        }
    }
    match ServerKey::parse(path, bytes) {
        Err(LocalauthError::Malformed { malformed, .. }) => assert!(malformed.at <= bytes.len()),
        Err(_) => {}
        Ok(key) => {
            let cell = CellName::new("lab.example").expect("a name");
            let token = key.token(cell).expect("a token");
            assert_eq!(token.rxkad().expect("a key").kvno(), token.kvno);
        }
    }
}

/// A line that makes no sense is named, and it is there. Files that the text includes are not for a fuzzer.
pub(crate) fn krb5_conf(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("include") {
        return;
    }
    match Krb5Conf::from_bytes(bytes, Path::new("krb5.conf")) {
        Err(Krb5ConfError::Line { line, .. }) => assert!(line <= text.lines().count()),
        Err(error) => panic!("{error}"),
        Ok(conf) => {
            let _ = (conf.default_realm(), conf.flag("dns_lookup_kdc", true));
            for host in ["", ".", "lab.example", "a.b.lab.example"] {
                let realm = conf.realm_of(host).unwrap_or("LAB.EXAMPLE");
                assert!(conf.kdcs(realm).count() <= text.lines().count());
            }
        }
    }
}

/// The input is a reply, or what the KDC has sealed in one. No ticket comes of a reply to another question.
pub(crate) fn kdc_reply(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    let client = Principal::new(&["alice"], "LAB");
    let key = Key::new(Enctype::Aes256Sha384, &[7; 32]).expect("a key");
    let reply = if choice & 1 == 0 {
        rest.to_vec()
    } else {
        reply_with(&key.encrypt(AS_REP_SEALED, [3; 16], rest))
    };
    let read = |nonce| read_reply(&Krb5Conf::default(), &reply, &client, &key, nonce);
    match read(NONCE) {
        Ok(got) => {
            assert_eq!(got.client.realm, client.realm);
            assert!(got.ticket.len() <= reply.len());
            assert!(matches!(read(NONCE + 1), Err(KdcError::Nonsense { .. })));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// An AS-REP for alice with a ticket that nobody can open (RFC 4120 5.4.2).
fn reply_with(sealed: &[u8]) -> Vec<u8> {
    let name = |parts: &[&str]| {
        let parts: Vec<_> = parts
            .iter()
            .map(|part| der(GENERAL_STRING, part.as_bytes()))
            .collect();
        let fields = [der(0xa0, &integer(1)), der(0xa1, &der(SEQUENCE, &parts.concat()))];
        der(SEQUENCE, &fields.concat())
    };
    let encrypted = |cipher: &[u8]| {
        let kind = der(0xa0, &integer(20));
        der(SEQUENCE, &[kind, der(0xa2, &der(OCTET_STRING, cipher))].concat())
    };
    let realm = der(0xa1, &der(GENERAL_STRING, b"LAB"));
    let ticket = [
        der(0xa0, &integer(5)),
        realm,
        der(0xa2, &name(&["krbtgt", "LAB"])),
        der(0xa3, &encrypted(&[9; 40])),
    ];
    let fields = [
        der(0xa0, &integer(5)),
        der(0xa1, &integer(11)),
        der(0xa3, &der(GENERAL_STRING, b"LAB")),
        der(0xa4, &name(&["alice"])),
        der(0xa5, &der(0x61, &der(SEQUENCE, &ticket.concat()))),
        der(0xa6, &encrypted(sealed)),
    ];
    der(0x6b, &der(SEQUENCE, &fields.concat()))
}

fn integer(number: u8) -> Vec<u8> {
    der(2, &[number])
}

fn der(tag: u8, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(value.len()).expect("inputs are short");
    let [high, low] = len.to_be_bytes();
    let head = match len {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, value.to_vec()].concat()
}

const AS_REP_SEALED: Usage = Usage(3);
const NONCE: u32 = 77;
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 4;
const GENERAL_STRING: u8 = 0x1b;
