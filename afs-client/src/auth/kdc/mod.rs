//! A client of Kerberos: tickets from the key distribution centers of realms (RFC 4120, with the referrals of RFC 6806).
//!
//! The machine: with a key from a keytab, [`KdcClient::initial`] proves that it knows the time and the key and gets a
//! ticket-granting ticket. With such a ticket, [`KdcClient::service`] asks the KDC that gave it for a service; a KDC that
//! is not responsible answers with a ticket for the KDC of another realm, which is asked next. Every reply is checked
//! against its request; every wait is bounded.

mod error;
mod locate;
mod messages;
mod transport;

use std::time::Duration;

use der::asn1::{Any, BitString, OctetString};
use der::{Decode, Encode};
use rxrpc::crypto::krb5::{BLOCK, Enctype, Key, Usage};
use zeroize::Zeroizing;

use super::credential::Credential;
use super::krb5_conf::Krb5Conf;
use super::principal::Principal;
use crate::clock;
use messages::{
    AP_REQ, AS_REP, AS_REQ, AUTHENTICATOR, ApRequest, Authenticator, Checksum, ENC_AS_REP_PART,
    ENC_TGS_REP_PART, EncryptedData, EtypeInfo, KRB_ERROR, PROTOCOL, PaData, PrincipalName, Refusal, Reply,
    ReplyPart, Request, RequestBody, TGS_REP, TGS_REQ, Text, Timestamp,
};

pub use error::KdcError;

/// Asks KDCs.
#[derive(Clone, Copy, Debug)]
pub struct KdcClient<'a> {
    conf: &'a Krb5Conf,
}

/// What a KDC answered.
enum Answer {
    Reply(Box<Reply>),
    Refusal(Box<Refusal>),
}

impl<'a> KdcClient<'a> {
    /// A client that finds KDCs by this configuration.
    #[must_use]
    pub const fn new(conf: &'a Krb5Conf) -> Self {
        Self { conf }
    }

    /// A ticket-granting ticket for whoever has one of these keys, the best first. Cancel safe.
    ///
    /// # Errors
    ///
    /// No KDC of the realm answers, or the one that does refuses.
    pub async fn initial(&self, client: &Principal, keys: &[Key]) -> Result<Credential, KdcError> {
        let server = Principal::ticket_granter(&client.realm, &client.realm);
        let exchange = Exchange::new(self.conf, client, &server)?;
        let enctypes: Vec<_> = keys.iter().map(|key| key.enctype().number()).collect();
        let body = exchange.body(Some(client), enctypes)?;
        let mut padata = Vec::new();
        for _ in 0..2 {
            let request = messages::encode(
                AS_REQ.into(),
                Request {
                    protocol: PROTOCOL,
                    kind: AS_REQ,
                    padata: (!padata.is_empty()).then(|| std::mem::take(&mut padata)),
                    body: body.clone(),
                },
            )
            .map_err(local)?;
            match exchange.ask(&request, AS_REP).await? {
                Answer::Reply(reply) => {
                    let key = keys
                        .iter()
                        .find(|key| key.enctype().number() == reply.sealed.enctype)
                        .ok_or_else(|| KdcError::Enctype {
                            server: Box::new(client.clone()),
                            enctype: reply.sealed.enctype,
                        })?;
                    return exchange.ticket_granting(&reply, key);
                }
                Answer::Refusal(refusal) if refusal.code == PREAUTH_REQUIRED => {
                    let key = choose(keys, refusal.data.as_ref())
                        .ok_or_else(|| exchange.refused(&refusal, ETYPE_NOT_SUPPORTED))?;
                    padata.push(timestamp(key)?);
                }
                Answer::Refusal(refusal) => return Err(exchange.refused(&refusal, refusal.code)),
            }
        }
        Err(exchange.nonsense("it asks for proof over and over"))
    }

    /// The same ticket-granting ticket, with a new life. Cancel safe.
    ///
    /// # Errors
    ///
    /// It is over, it cannot be renewed (any more), or no KDC answers.
    pub async fn renew(&self, granting: &Credential) -> Result<Credential, KdcError> {
        let here = granting.server.grants_for().ok_or_else(|| KdcError::Lost {
            from: granting.client.realm.clone(),
            server: Box::new(granting.server.clone()),
        })?;
        self.one_step(granting, here, &granting.server, RENEW | RENEWABLE)
            .await
    }

    /// A ticket for a service, by way of other realms if need be. Cancel safe.
    ///
    /// # Errors
    ///
    /// The ticket to start from is over, no KDC answers, or one refuses.
    pub async fn service(&self, granting: &Credential, server: &Principal) -> Result<Credential, KdcError> {
        let lost = || KdcError::Lost {
            from: granting.client.realm.clone(),
            server: Box::new(server.clone()),
        };
        if !granting.is_valid(clock::wall()) {
            return Err(KdcError::Expired(Box::new(granting.client.clone())));
        }
        let mut granting = granting.clone();
        let mut wanted = server.clone();
        for _ in 0..MAX_REALMS {
            let here = granting.server.grants_for().ok_or_else(lost)?.to_owned();
            let asked = if wanted.realm == here {
                wanted.clone()
            } else {
                Principal::ticket_granter(&wanted.realm, &here)
            };
            let got = self.one_step(&granting, &here, &asked, 0).await?;
            match got.server.grants_for() {
                // Passed on: the service may be known in the next realm under its own name.
                Some(next) if wanted.grants_for().is_none() && next != here => {
                    if asked == wanted {
                        next.clone_into(&mut wanted.realm);
                    }
                    granting = got;
                }
                _ if got.server.components == asked.components => return Ok(got),
                _ => return Err(lost()),
            }
        }
        Err(lost())
    }

    /// Asks the KDC of realm `here` with a ticket for it. `options` are those beyond the usual ones.
    async fn one_step(
        &self,
        granting: &Credential,
        here: &str,
        server: &Principal,
        options: u32,
    ) -> Result<Credential, KdcError> {
        let server = Principal {
            realm: here.to_owned(),
            ..server.clone()
        };
        let exchange = Exchange::new(self.conf, &granting.client, &server)?;
        let enctype = Enctype::from_number(granting.enctype);
        let key = enctype
            .and_then(|enctype| Key::new(enctype, &granting.key).ok())
            .ok_or_else(|| KdcError::Enctype {
                server: Box::new(granting.server.clone()),
                enctype: granting.enctype,
            })?;
        let mut body = exchange.body(None, Enctype::ALL.map(Enctype::number).to_vec())?;
        body.options = messages::options(CANONICALIZE | RENEWABLE_OK | options).map_err(local)?;
        let proof = proof(granting, &key, &body)?;
        let request = messages::encode(
            TGS_REQ.into(),
            Request {
                protocol: PROTOCOL,
                kind: TGS_REQ,
                padata: Some(vec![pa_data(PA_TGS_REQ, proof)?]),
                body,
            },
        )
        .map_err(local)?;
        match exchange.ask(&request, TGS_REP).await? {
            Answer::Reply(reply) => exchange.credential(&reply, &key, TGS_REP_SEALED),
            Answer::Refusal(refusal) => Err(exchange.refused(&refusal, refusal.code)),
        }
    }
}

/// What a KDC's reply to a question for a ticket-granting ticket comes to: what [`KdcClient::initial`] makes of what it gets,
/// for a reply that came another way. `nonce` is that of the question.
///
/// # Errors
///
/// It refuses, cannot be opened with the key, or answers another question.
pub fn read_reply(
    conf: &Krb5Conf,
    reply: &[u8],
    client: &Principal,
    key: &Key,
    nonce: u32,
) -> Result<Credential, KdcError> {
    let server = &Principal::ticket_granter(&client.realm, &client.realm);
    let exchange = Exchange {
        conf,
        client,
        server,
        nonce,
    };
    match exchange.judge(reply, AS_REP)? {
        Answer::Reply(reply) => exchange.ticket_granting(&reply, key),
        Answer::Refusal(refusal) => {
            // What it asks for is looked at as well.
            let _ = choose(std::slice::from_ref(key), refusal.data.as_ref());
            Err(exchange.refused(&refusal, refusal.code))
        }
    }
}

/// One question to the KDCs of one realm.
struct Exchange<'a> {
    conf: &'a Krb5Conf,
    client: &'a Principal,
    server: &'a Principal,
    nonce: u32,
}

impl<'a> Exchange<'a> {
    fn new(conf: &'a Krb5Conf, client: &'a Principal, server: &'a Principal) -> Result<Self, KdcError> {
        // Some take it for a signed number.
        let nonce = u32::from_be_bytes(random()?) >> 1;
        Ok(Self {
            conf,
            client,
            server,
            nonce,
        })
    }

    fn body(&self, client: Option<&Principal>, enctypes: Vec<i32>) -> Result<RequestBody, KdcError> {
        let (till, _) = messages::time(clock::wall() + LIFETIME).map_err(local)?;
        Ok(RequestBody {
            options: messages::options(CANONICALIZE | RENEWABLE_OK).map_err(local)?,
            client: client.map(PrincipalName::from),
            realm: Text(self.server.realm.clone()),
            server: Some(self.server.into()),
            till,
            nonce: self.nonce,
            enctypes,
        })
    }

    async fn ask(&self, request: &[u8], expected: u8) -> Result<Answer, KdcError> {
        let realm = &self.server.realm;
        let addresses = locate::addresses(self.conf, realm).await?;
        let udp_limit = self
            .conf
            .default_of("udp_preference_limit")
            .and_then(|limit| limit.parse().ok())
            .unwrap_or(UDP_LIMIT);
        let is_too_big = |reply: &[u8]| matches!(messages::decode::<Refusal>(KRB_ERROR.into(), reply), Ok(Some(refusal)) if refusal.code == TOO_BIG);
        let reply = transport::exchange(&addresses, request, udp_limit, is_too_big)
            .await
            .map_err(|tried| KdcError::Unanswered {
                realm: realm.clone(),
                tried,
            })?;
        self.judge(&reply, expected)
    }

    fn judge(&self, reply: &[u8], expected: u8) -> Result<Answer, KdcError> {
        let bad = |error| self.nonsense(format!("its reply cannot be read: {error}"));
        if let Some(refusal) = messages::decode(KRB_ERROR.into(), reply).map_err(bad)? {
            return Ok(Answer::Refusal(Box::new(refusal)));
        }
        let reply = messages::decode(expected.into(), reply).map_err(bad)?;
        let reply = reply.ok_or_else(|| self.nonsense("its reply is to another kind of request"))?;
        Ok(Answer::Reply(Box::new(reply)))
    }

    /// The ticket of a reply to a question for a ticket-granting one, and for no other.
    fn ticket_granting(&self, reply: &Reply, key: &Key) -> Result<Credential, KdcError> {
        let credential = self.credential(reply, key, AS_REP_SEALED)?;
        if credential.server != *self.server {
            return Err(self.nonsense(format!("its ticket is for {}", credential.server)));
        }
        Ok(credential)
    }

    /// Opens a reply and checks that it answers this question.
    fn credential(&self, reply: &Reply, key: &Key, usage: Usage) -> Result<Credential, KdcError> {
        let sealed = reply.sealed.cipher.as_bytes();
        let plain = key
            .decrypt(usage, sealed)
            .map_err(|_| KdcError::WrongKey(Box::new(self.client.clone())))?;
        // Some send one number for both.
        let part = [ENC_AS_REP_PART, ENC_TGS_REP_PART]
            .into_iter()
            .find_map(|number| messages::decode::<ReplyPart>(number, &plain).transpose())
            .ok_or_else(|| self.nonsense("what it sealed is no part of a reply"))?
            .map_err(|error| self.nonsense(format!("what it sealed cannot be read: {error}")))?;
        if part.nonce != i64::from(self.nonce) {
            return Err(self.nonsense("its reply is to another request"));
        }
        let client = reply.client.in_realm(&reply.client_realm);
        if client.realm != self.client.realm {
            return Err(self.nonsense(format!("its ticket is for {client}")));
        }
        let ticket = reply.ticket.to_der().map_err(local)?;
        Ok(Credential {
            client,
            server: part.server.in_realm(&part.server_realm),
            enctype: part.key.enctype,
            key: Zeroizing::new(part.key.bytes.into_bytes().into()),
            starts: messages::seconds(part.starts.as_ref().unwrap_or(&part.authenticated)),
            ends: messages::seconds(&part.ends),
            renew_till: part.renew_till.as_ref().map_or(0, messages::seconds),
            ticket,
        })
    }

    fn refused(&self, refusal: &Refusal, code: i32) -> KdcError {
        KdcError::Refused {
            code,
            client: Box::new(self.client.clone()),
            server: Box::new(self.server.clone()),
            ahead: error::ahead(refusal.time.to_unix_duration(), clock::wall()),
            text: refusal.text.as_ref().map(|text| text.0.clone()),
        }
    }

    fn nonsense(&self, what: impl Into<String>) -> KdcError {
        KdcError::Nonsense {
            realm: self.server.realm.clone(),
            what: what.into(),
        }
    }
}

/// The key that the KDC takes, by the kinds that it names in the data of its refusal; the best if it names none.
fn choose<'k>(keys: &'k [Key], data: Option<&OctetString>) -> Option<&'k Key> {
    let named = data
        .and_then(|data| Vec::<PaData>::from_der(data.as_bytes()).ok())
        .and_then(|methods| methods.into_iter().find(|method| method.kind == PA_ETYPE_INFO2))
        .and_then(|method| Vec::<EtypeInfo>::from_der(method.value.as_bytes()).ok());
    match named {
        Some(kinds) => kinds
            .iter()
            .find_map(|kind| keys.iter().find(|key| key.enctype().number() == kind.enctype)),
        None => keys.first(),
    }
}

/// Proof of knowing the key: the time, encrypted.
fn timestamp(key: &Key) -> Result<PaData, KdcError> {
    let (time, micros) = messages::time(clock::wall()).map_err(local)?;
    let stamp = Timestamp {
        time,
        micros: Some(micros),
    };
    let stamp = stamp.to_der().map_err(local)?;
    let sealed = sealed(key, PREAUTH_STAMP, &stamp)?.to_der().map_err(local)?;
    pa_data(PA_ENC_TIMESTAMP, sealed)
}

/// Proof of holding a ticket with its key, bound to the body of the request.
fn proof(granting: &Credential, key: &Key, body: &RequestBody) -> Result<Vec<u8>, KdcError> {
    let (time, micros) = messages::time(clock::wall()).map_err(local)?;
    let checksum = key.checksum(TGS_REQ_CHECKSUM, &body.to_der().map_err(local)?);
    let authenticator = messages::encode(
        AUTHENTICATOR,
        Authenticator {
            protocol: PROTOCOL,
            client_realm: Text(granting.client.realm.clone()),
            client: (&granting.client).into(),
            checksum: Some(Checksum {
                kind: key.enctype().checksum_number(),
                bytes: OctetString::new(checksum).map_err(local)?,
            }),
            micros,
            time,
        },
    )
    .map_err(local)?;
    messages::encode(
        AP_REQ.into(),
        ApRequest {
            protocol: PROTOCOL,
            kind: AP_REQ,
            options: BitString::from_bytes(&[0; 4]).map_err(local)?,
            ticket: Any::from_der(&granting.ticket).map_err(local)?,
            authenticator: sealed(key, TGS_REQ_AUTHENTICATOR, &authenticator)?,
        },
    )
    .map_err(local)
}

fn sealed(key: &Key, usage: Usage, plain: &[u8]) -> Result<EncryptedData, KdcError> {
    let cipher = key.encrypt(usage, random::<BLOCK>()?, plain);
    Ok(EncryptedData {
        enctype: key.enctype().number(),
        version: None,
        cipher: OctetString::new(cipher).map_err(local)?,
    })
}

fn pa_data(kind: i32, value: Vec<u8>) -> Result<PaData, KdcError> {
    let value = OctetString::new(value).map_err(local)?;
    Ok(PaData { kind, value })
}

fn random<const N: usize>() -> Result<[u8; N], KdcError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| KdcError::Local(format!("no random numbers: {error}")))?;
    Ok(bytes)
}

fn local(error: der::Error) -> KdcError {
    KdcError::Local(error.to_string())
}

// What keys are used for (RFC 4120 7.5.1).
const PREAUTH_STAMP: Usage = Usage(1);
const AS_REP_SEALED: Usage = Usage(3);
const TGS_REQ_CHECKSUM: Usage = Usage(6);
const TGS_REQ_AUTHENTICATOR: Usage = Usage(7);
const TGS_REP_SEALED: Usage = Usage(8);
// Kinds of pre-authentication data (RFC 4120 7.5.2).
const PA_TGS_REQ: i32 = 1;
const PA_ENC_TIMESTAMP: i32 = 2;
const PA_ETYPE_INFO2: i32 = 19;
// Options of a request (RFC 4120 5.4.1, RFC 6806 3).
const RENEWABLE: u32 = 1 << 23;
const CANONICALIZE: u32 = 1 << 16;
const RENEWABLE_OK: u32 = 1 << 4;
const RENEW: u32 = 1 << 1;
// Codes of refusals (RFC 4120 7.5.9).
const ETYPE_NOT_SUPPORTED: i32 = 14;
const PREAUTH_REQUIRED: i32 = 25;
const TOO_BIG: i32 = 52;
/// What is asked for; KDCs cut it to what they allow.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Longer requests go by TCP (MIT's `udp_preference_limit`).
const UDP_LIMIT: usize = 1465;
/// A way through more realms is a circle.
const MAX_REALMS: usize = 10;

#[cfg(test)]
mod tests;
