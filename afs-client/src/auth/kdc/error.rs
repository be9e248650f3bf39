//! Why there is no ticket, in words.

use std::time::{Duration, SystemTime};

use crate::auth::Principal;

/// No ticket could be had.
#[derive(Debug, thiserror::Error)]
pub enum KdcError {
    /// Nobody knows where the realm's key distribution centers are.
    #[error("no KDC of realm {realm} is known ({why}); name one in krb5.conf, section [realms]")]
    NoKdc {
        /// The realm.
        realm: String,
        /// Where it was looked for.
        why: String,
    },
    /// None of them answers.
    #[error("no KDC of realm {realm} answers ({tried}); check that it runs and that port 88 is open")]
    Unanswered {
        /// The realm.
        realm: String,
        /// Who was asked, and what became of it.
        tried: String,
    },
    /// A KDC refuses.
    #[error("{}", describe(*code, client, server, *ahead, text.as_deref()))]
    Refused {
        /// Its code (RFC 4120 7.5.9).
        code: i32,
        /// Who asked.
        client: Box<Principal>,
        /// For whom.
        server: Box<Principal>,
        /// By how many seconds its clock is ahead of ours.
        ahead: i64,
        /// Its own words.
        text: Option<String>,
    },
    /// The KDC has another key of the client than we.
    #[error("{}", wrong_key(.0, &.0.realm))]
    WrongKey(Box<Principal>),
    /// A reply makes no sense.
    #[error("the KDC of realm {realm} makes no sense: {what}")]
    Nonsense {
        /// The realm.
        realm: String,
        /// What is wrong with the reply.
        what: String,
    },
    /// The ticket that the exchange starts from is over.
    #[error("the ticket of {0} has expired: run kinit")]
    Expired(Box<Principal>),
    /// A key is of a kind that is not spoken here.
    #[error(
        "the ticket for {server} has a key of enctype {enctype}, which is not spoken here (17 to 20 are)"
    )]
    Enctype {
        /// For whom the ticket is.
        server: Box<Principal>,
        /// The kind of its key.
        enctype: i32,
    },
    /// From realm to realm, without end.
    #[error("the way from realm {from} to {server} leads from KDC to KDC without end")]
    Lost {
        /// Where it began.
        from: String,
        /// Where it should end.
        server: Box<Principal>,
    },
    /// No randomness, or a name too long to be sent.
    #[error("a request cannot be made: {0}")]
    Local(String),
}

impl KdcError {
    /// The KDC does not know the service: another name may be worth trying.
    #[must_use]
    pub const fn is_unknown_service(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: SERVER_UNKNOWN,
                ..
            }
        )
    }
}

/// How many seconds `theirs` is ahead of `ours`.
pub(super) fn ahead(theirs: Duration, ours: SystemTime) -> i64 {
    let ours = ours.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    seconds(theirs).saturating_sub(seconds(ours))
}

fn describe(code: i32, client: &Principal, server: &Principal, ahead: i64, text: Option<&str>) -> String {
    let realm = &server.realm;
    match code {
        CLIENT_EXPIRED => format!(
            "{client} has expired: ask the administrator of realm {}",
            client.realm
        ),
        CLIENT_UNKNOWN => format!("realm {realm} knows no {client}: check the spelling, or have it made"),
        SERVER_UNKNOWN => format!("realm {realm} knows no service {server}"),
        POLICY => format!("realm {realm} does not let {client} have a ticket for {server}"),
        ENCTYPE => format!("realm {realm} and we share no kind of key for {server}: it needs an AES key"),
        REVOKED => format!("{client} is locked: ask the administrator of realm {realm}"),
        KEY_EXPIRED => format!("the password of {client} has expired: change it with kpasswd"),
        PREAUTH_FAILED | INTEGRITY => wrong_key(client, realm),
        TICKET_EXPIRED => format!("the ticket of {client} has expired: run kinit"),
        SKEW => format!(
            "the clock of the KDC of realm {realm} is {} s {} ours: set this machine's clock",
            ahead.unsigned_abs(),
            if ahead < 0 { "behind" } else { "ahead of" }
        ),
        code => {
            let text = text.map(|text| format!(" ({text})")).unwrap_or_default();
            format!("realm {realm} refuses {client} a ticket for {server}: error {code}{text}")
        }
    }
}

fn wrong_key(client: &Principal, realm: &str) -> String {
    format!("the key of {client} is not the one that realm {realm} has: get a new keytab")
}

const CLIENT_EXPIRED: i32 = 1;
const CLIENT_UNKNOWN: i32 = 6;
const SERVER_UNKNOWN: i32 = 7;
const POLICY: i32 = 12;
const ENCTYPE: i32 = 14;
const REVOKED: i32 = 18;
const KEY_EXPIRED: i32 = 23;
const PREAUTH_FAILED: i32 = 24;
const INTEGRITY: i32 = 31;
const TICKET_EXPIRED: i32 = 32;
const SKEW: i32 = 37;
