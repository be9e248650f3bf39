//! The messages of Kerberos (RFC 4120 5), as far as a client writes and reads them.

use std::time::{Duration, SystemTime};

use der::asn1::{Any, Application, BitString, GeneralizedTime, OctetString};
use der::{
    Decode, DecodeValue, Encode, EncodeValue, FixedTag, Header, Length, Reader, Sequence, SliceReader, Tag,
    TagMode, TagNumber, Tagged, Writer,
};

use crate::auth::Principal;

/// `KerberosString`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl FixedTag for Text {
    const TAG: Tag = Tag::GeneralString;
}

impl<'a> DecodeValue<'a> for Text {
    type Error = der::Error;

    fn decode_value<R: Reader<'a>>(reader: &mut R, header: Header) -> der::Result<Self> {
        let bytes = reader.read_vec(header.length())?;
        Ok(Self(
            String::from_utf8(bytes).map_err(|error| error.utf8_error())?,
        ))
    }
}

impl EncodeValue for Text {
    fn value_len(&self) -> der::Result<Length> {
        self.0.len().try_into()
    }

    fn encode_value(&self, writer: &mut impl Writer) -> der::Result<()> {
        writer.write(self.0.as_bytes())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct PrincipalName {
    #[asn1(context_specific = "0")]
    pub(super) name_type: i32,
    #[asn1(context_specific = "1")]
    pub(super) components: Vec<Text>,
}

impl From<&Principal> for PrincipalName {
    fn from(principal: &Principal) -> Self {
        Self {
            name_type: if principal.grants_for().is_some() {
                NT_SRV_INST
            } else {
                NT_PRINCIPAL
            },
            components: principal.components.iter().cloned().map(Text).collect(),
        }
    }
}

impl PrincipalName {
    pub(super) fn in_realm(&self, realm: &Text) -> Principal {
        Principal {
            components: self.components.iter().map(|text| text.0.clone()).collect(),
            realm: realm.0.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct EncryptedData {
    #[asn1(context_specific = "0")]
    pub(super) enctype: i32,
    #[asn1(context_specific = "1", optional = "true")]
    pub(super) version: Option<i64>,
    #[asn1(context_specific = "2")]
    pub(super) cipher: OctetString,
}

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct EncryptionKey {
    #[asn1(context_specific = "0")]
    pub(super) enctype: i32,
    #[asn1(context_specific = "1")]
    pub(super) bytes: OctetString,
}

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct Checksum {
    #[asn1(context_specific = "0")]
    pub(super) kind: i32,
    #[asn1(context_specific = "1")]
    pub(super) bytes: OctetString,
}

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct PaData {
    #[asn1(context_specific = "1")]
    pub(super) kind: i32,
    #[asn1(context_specific = "2")]
    pub(super) value: OctetString,
}

/// `PA-ENC-TS-ENC`: the time, to be encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct Timestamp {
    #[asn1(context_specific = "0")]
    pub(super) time: GeneralizedTime,
    #[asn1(context_specific = "1", optional = "true")]
    pub(super) micros: Option<u32>,
}

/// An element of `ETYPE-INFO2`.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct EtypeInfo {
    #[asn1(context_specific = "0")]
    pub(super) enctype: i32,
    #[asn1(context_specific = "1", optional = "true")]
    pub(super) salt: Option<Text>,
    #[asn1(context_specific = "2", optional = "true")]
    pub(super) parameters: Option<OctetString>,
}

/// `AS-REQ` and `TGS-REQ`.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct Request {
    #[asn1(context_specific = "1")]
    pub(super) protocol: u8,
    #[asn1(context_specific = "2")]
    pub(super) kind: u8,
    #[asn1(context_specific = "3", optional = "true")]
    pub(super) padata: Option<Vec<PaData>>,
    #[asn1(context_specific = "4")]
    pub(super) body: RequestBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct RequestBody {
    #[asn1(context_specific = "0")]
    pub(super) options: BitString,
    #[asn1(context_specific = "1", optional = "true")]
    pub(super) client: Option<PrincipalName>,
    #[asn1(context_specific = "2")]
    pub(super) realm: Text,
    #[asn1(context_specific = "3", optional = "true")]
    pub(super) server: Option<PrincipalName>,
    #[asn1(context_specific = "5")]
    pub(super) till: GeneralizedTime,
    #[asn1(context_specific = "7")]
    pub(super) nonce: u32,
    #[asn1(context_specific = "8")]
    pub(super) enctypes: Vec<i32>,
}

/// `AS-REP` and `TGS-REP`.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct Reply {
    #[asn1(context_specific = "0")]
    pub(super) protocol: u8,
    #[asn1(context_specific = "1")]
    pub(super) kind: u8,
    #[asn1(context_specific = "2", optional = "true")]
    pub(super) padata: Option<Vec<PaData>>,
    #[asn1(context_specific = "3")]
    pub(super) client_realm: Text,
    #[asn1(context_specific = "4")]
    pub(super) client: PrincipalName,
    /// Passed on byte by byte.
    #[asn1(context_specific = "5")]
    pub(super) ticket: Any,
    #[asn1(context_specific = "6")]
    pub(super) sealed: EncryptedData,
}

/// `EncKDCRepPart`.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct ReplyPart {
    #[asn1(context_specific = "0")]
    pub(super) key: EncryptionKey,
    #[asn1(context_specific = "1")]
    pub(super) last_request: Any,
    #[asn1(context_specific = "2")]
    pub(super) nonce: i64,
    #[asn1(context_specific = "3", optional = "true")]
    pub(super) key_expiration: Option<GeneralizedTime>,
    #[asn1(context_specific = "4")]
    pub(super) flags: BitString,
    #[asn1(context_specific = "5")]
    pub(super) authenticated: GeneralizedTime,
    #[asn1(context_specific = "6", optional = "true")]
    pub(super) starts: Option<GeneralizedTime>,
    #[asn1(context_specific = "7")]
    pub(super) ends: GeneralizedTime,
    #[asn1(context_specific = "8", optional = "true")]
    pub(super) renew_till: Option<GeneralizedTime>,
    #[asn1(context_specific = "9")]
    pub(super) server_realm: Text,
    #[asn1(context_specific = "10")]
    pub(super) server: PrincipalName,
    #[asn1(context_specific = "11", optional = "true")]
    pub(super) addresses: Option<Any>,
    #[asn1(context_specific = "12", optional = "true")]
    pub(super) padata: Option<Any>,
}

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct ApRequest {
    #[asn1(context_specific = "0")]
    pub(super) protocol: u8,
    #[asn1(context_specific = "1")]
    pub(super) kind: u8,
    #[asn1(context_specific = "2")]
    pub(super) options: BitString,
    #[asn1(context_specific = "3")]
    pub(super) ticket: Any,
    #[asn1(context_specific = "4")]
    pub(super) authenticator: EncryptedData,
}

#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct Authenticator {
    #[asn1(context_specific = "0")]
    pub(super) protocol: u8,
    #[asn1(context_specific = "1")]
    pub(super) client_realm: Text,
    #[asn1(context_specific = "2")]
    pub(super) client: PrincipalName,
    #[asn1(context_specific = "3", optional = "true")]
    pub(super) checksum: Option<Checksum>,
    #[asn1(context_specific = "4")]
    pub(super) micros: u32,
    #[asn1(context_specific = "5")]
    pub(super) time: GeneralizedTime,
}

/// `KRB-ERROR`.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub(super) struct Refusal {
    #[asn1(context_specific = "0")]
    pub(super) protocol: u8,
    #[asn1(context_specific = "1")]
    pub(super) kind: u8,
    #[asn1(context_specific = "2", optional = "true")]
    pub(super) client_time: Option<GeneralizedTime>,
    #[asn1(context_specific = "3", optional = "true")]
    pub(super) client_micros: Option<u32>,
    #[asn1(context_specific = "4")]
    pub(super) time: GeneralizedTime,
    #[asn1(context_specific = "5")]
    pub(super) micros: u32,
    #[asn1(context_specific = "6")]
    pub(super) code: i32,
    #[asn1(context_specific = "7", optional = "true")]
    pub(super) client_realm: Option<Text>,
    #[asn1(context_specific = "8", optional = "true")]
    pub(super) client: Option<PrincipalName>,
    #[asn1(context_specific = "9")]
    pub(super) realm: Text,
    #[asn1(context_specific = "10")]
    pub(super) server: PrincipalName,
    #[asn1(context_specific = "11", optional = "true")]
    pub(super) text: Option<Text>,
    #[asn1(context_specific = "12", optional = "true")]
    pub(super) data: Option<OctetString>,
}

/// Encodes a message under its number.
pub(super) fn encode<T: EncodeValue + Tagged>(number: u32, value: T) -> der::Result<Vec<u8>> {
    Application {
        tag_number: TagNumber(number),
        tag_mode: TagMode::Explicit,
        value,
    }
    .to_der()
}

/// Decodes a message; `None` if it has another number.
pub(super) fn decode<'a, T: Decode<'a, Error = der::Error>>(
    number: u32,
    bytes: &'a [u8],
) -> der::Result<Option<T>> {
    let mut reader = SliceReader::new(bytes)?;
    let Some(message) = Application::decode_explicit(&mut reader, TagNumber(number))? else {
        return Ok(None);
    };
    reader.finish()?;
    Ok(Some(message.value))
}

/// The flags of a request.
pub(super) fn options(bits: u32) -> der::Result<BitString> {
    BitString::from_bytes(&bits.to_be_bytes())
}

/// Whole seconds, and the microseconds behind them.
pub(super) fn time(at: SystemTime) -> der::Result<(GeneralizedTime, u32)> {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let whole = GeneralizedTime::from_unix_duration(Duration::from_secs(since.as_secs()))?;
    Ok((whole, since.subsec_micros()))
}

/// Seconds since 1970; a time that does not fit is as late as can be.
pub(super) fn seconds(time: &GeneralizedTime) -> u32 {
    u32::try_from(time.to_unix_duration().as_secs()).unwrap_or(u32::MAX)
}

pub(super) const PROTOCOL: u8 = 5;
pub(super) const AUTHENTICATOR: u32 = 2;
pub(super) const AS_REQ: u8 = 10;
pub(super) const AS_REP: u8 = 11;
pub(super) const TGS_REQ: u8 = 12;
pub(super) const TGS_REP: u8 = 13;
pub(super) const AP_REQ: u8 = 14;
pub(super) const ENC_AS_REP_PART: u32 = 25;
pub(super) const ENC_TGS_REP_PART: u32 = 26;
pub(super) const KRB_ERROR: u8 = 30;
const NT_PRINCIPAL: i32 = 1;
const NT_SRV_INST: i32 = 2;
