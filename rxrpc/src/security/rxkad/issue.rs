//! Tickets that a server makes with its own key, for itself (`-localauth`) or for whom it likes (rx-security.md 6.3).

use std::time::Duration;

use der::asn1::{AnyRef, BitStringRef, GeneralizedTime, OctetStringRef};
use der::{Encode, Sequence, Tag};

use super::ticket::{EncryptedData, EncryptedPart, EncryptionKey, PART_TAG, PrincipalName, TICKET_USAGE};
use super::version_4::{Contents, Unfit};
use super::{SessionKey, TicketForm, Token};
use crate::crypto::des;
use crate::crypto::krb5::{BLOCK, Key};

/// What a ticket is to say.
#[derive(Clone, Debug)]
pub struct Issue<'a> {
    /// The parts of the client's name.
    pub name: &'a [&'a str],
    /// The client's realm; empty for a server's own tickets.
    pub realm: &'a str,
    /// The session key, made for this ticket.
    pub session: SessionKey,
    /// From when and until when it holds (unix seconds).
    pub times: (u64, u64),
}

#[derive(Sequence)]
struct Transited<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    kind: i32,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    contents: &'a OctetStringRef,
}

impl Issue<'_> {
    /// A token with the ticket, made with the server's key of version `kvno`. `confounder` is random and used once.
    ///
    /// # Errors
    ///
    /// A name is too long or a time too late for the format.
    pub fn token(&self, kvno: u32, key: &Key, confounder: [u8; BLOCK]) -> Result<Token, der::Error> {
        let cipher = key.encrypt(TICKET_USAGE, confounder, &self.plain()?);
        let ticket = EncryptedData {
            enctype: key.enctype().number(),
            kvno: Some(kvno),
            cipher: OctetStringRef::new(&cipher)?,
        };
        let form = TicketForm::EncryptedPart;
        Ok(Token::new(
            ticket.to_der()?.into(),
            form.kvno(),
            self.session.clone(),
        ))
    }

    /// A token with a ticket of Kerberos 4, made with the server's DES key of version `kvno`.
    ///
    /// # Errors
    ///
    /// A name is too long or has more than two parts, or the ticket holds too long.
    pub fn token_of_version_4(&self, kvno: u8, key: &des::Key) -> Result<Token, Unfit> {
        let (name, instance) = match *self.name {
            [name] => (name, ""),
            [name, instance] => (name, instance),
            _ => return Err(Unfit),
        };
        let contents = Contents {
            name,
            instance,
            cell: self.realm,
            session: &self.session,
            times: self.times,
        };
        let ticket = contents.seal(key)?.into();
        Ok(Token::new(ticket, kvno.into(), self.session.clone()))
    }

    /// What is inside the ticket.
    pub(super) fn plain(&self) -> Result<Vec<u8>, der::Error> {
        let string = |text| AnyRef::new(Tag::GeneralString, str::as_bytes(text));
        let time = |at| GeneralizedTime::from_unix_duration(Duration::from_secs(at));
        let (starts, ends) = self.times;
        let transited = Transited {
            kind: 0,
            contents: OctetStringRef::new(&[])?,
        }
        .to_der()?;
        let session = self.session.bytes();
        let part = EncryptedPart {
            flags: BitStringRef::from_bytes(&TRANSITED_POLICY_CHECKED)?,
            key: EncryptionKey {
                enctype: SessionKey::ENCTYPE,
                key: OctetStringRef::new(&session)?,
            },
            realm: string(self.realm)?,
            client: PrincipalName {
                kind: PRINCIPAL,
                parts: self
                    .name
                    .iter()
                    .map(|part| string(part))
                    .collect::<Result<_, _>>()?,
            },
            transited: AnyRef::try_from(transited.as_slice())?,
            authenticated: time(starts)?,
            starts: None,
            ends: time(ends)?,
            renew_till: None,
            addresses: None,
            authorization: None,
        };
        let tag = Tag::Application {
            constructed: true,
            number: PART_TAG,
        };
        AnyRef::new(tag, &part.to_der()?)?.to_der()
    }
}

/// RFC 4120 5.3: bit 12.
const TRANSITED_POLICY_CHECKED: [u8; 4] = [0, 8, 0, 0];
const PRINCIPAL: i32 = 1;
