//! What goes wrong, for the caller: an errno and a sentence.

use std::fmt;
use std::sync::Arc;

use rustix::io::Errno;
use rxrpc::proto::{AbortCode, CallError, abort_codes};
use rxrpc::security::rxkad::Fault;

use crate::rpc::client::RpcError;
use crate::rpc::vl;

/// An operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    errno: Errno,
    why: Option<Arc<str>>,
}

impl Error {
    /// An error with an explanation.
    #[must_use]
    pub fn new(errno: Errno, why: impl Into<Arc<str>>) -> Self {
        Self {
            errno,
            why: Some(why.into()),
        }
    }

    /// An error that needs no explanation.
    #[must_use]
    pub(crate) const fn bare(errno: Errno) -> Self {
        Self { errno, why: None }
    }

    /// Its errno.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        self.errno.raw_os_error()
    }
}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self { errno, why: None }
    }
}

impl From<std::io::Error> for Error {
    /// Trouble with the cache.
    fn from(error: std::io::Error) -> Self {
        Self::new(
            Errno::from_io_error(&error).unwrap_or(Errno::IO),
            format!("cache: {error}"),
        )
    }
}

impl From<RpcError> for Error {
    fn from(error: RpcError) -> Self {
        let errno = match &error {
            RpcError::Aborted(code) => errno(*code),
            RpcError::Transport(CallError::Protocol(code)) if error.fault().is_some() => {
                return Self::new(errno(*code), describe(*code));
            }
            RpcError::Transport(_) => Errno::TIMEDOUT,
            RpcError::Reply(_)
            | RpcError::Status(_)
            | RpcError::TooMuchData(_)
            | RpcError::TooLittleData { .. } => Errno::IO,
            RpcError::Cache(error) => Errno::from_io_error(error).unwrap_or(Errno::IO),
        };
        Self::new(errno, error.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            Some(why) => f.write_str(why),
            None => fmt::Display::fmt(&self.errno, f),
        }
    }
}

impl std::error::Error for Error {}

/// Codes of the volume package (OpenAFS `errors.h`), which never are an errno.
pub mod vice {
    /// The volume must be salvaged.
    pub const SALVAGE: i32 = 101;
    /// There is no such vnode (any more).
    pub const NO_VNODE: i32 = 102;
    /// The volume is not on this server.
    pub const NO_VOLUME: i32 = 103;
    /// The server gives no service now.
    pub const NO_SERVICE: i32 = 105;
    /// The volume is off line.
    pub const OFFLINE: i32 = 106;
    /// The partition is full.
    pub const DISK_FULL: i32 = 108;
    /// The quota is used up.
    pub const OVER_QUOTA: i32 = 109;
    /// The volume is busy: try again.
    pub const BUSY: i32 = 110;
    /// The volume has moved.
    pub const MOVED: i32 = 111;
    /// The server had an input or output error.
    pub const IO: i32 = 112;
    /// The volume is being salvaged.
    pub const SALVAGING: i32 = 113;
    /// The server is starting.
    pub const RESTARTING: i32 = -100;
}

/// The errno for the code that a server refused a call with (afs-rpc.md 10). The only place where that is decided.
#[must_use]
pub fn errno(code: AbortCode) -> Errno {
    if let Some(fault) = Fault::from_code(code) {
        return errno_of_fault(fault);
    }
    match code.0 {
        vice::NO_VNODE => Errno::STALE,
        vice::NO_VOLUME | vice::MOVED | vice::SALVAGE | vice::OFFLINE | vice::SALVAGING => Errno::NODEV,
        104 => Errno::EXIST,
        // What became of the call nobody knows.
        vice::NO_SERVICE | RX_CALL_DEAD | RX_CALL_TIMEOUT => Errno::TIMEDOUT,
        vice::DISK_FULL => Errno::NOSPC,
        vice::OVER_QUOTA => Errno::DQUOT,
        vice::BUSY | vice::RESTARTING => Errno::BUSY,
        code @ 1..=35 => Errno::from_raw_os_error(code),
        vl::NO_ENTRY | vl::EMPTY | vl::ENTRY_DELETED => Errno::NODEV,
        vl::BAD_NAME => Errno::INVAL,
        vl::PERM => Errno::ACCESS,
        code => unified(code).unwrap_or(Errno::IO),
    }
}

/// As Linux tells applications about rxkad.
const fn errno_of_fault(fault: Fault) -> Errno {
    match fault {
        Fault::Expired => Errno::KEYEXPIRED,
        Fault::Inconsistency | Fault::PacketShort | Fault::OutOfSequence => Errno::PROTO,
        Fault::LevelFail
        | Fault::TicketLength
        | Fault::NoAuth
        | Fault::BadKey
        | Fault::BadTicket
        | Fault::UnknownKey
        | Fault::SealedInconsistent
        | Fault::DataLength
        | Fault::IllegalLevel => Errno::KEYREJECTED,
    }
}

/// What is wrong, and what helps.
const fn cure(fault: Fault) -> &'static str {
    match fault {
        Fault::Expired => "the token has expired: run afs aklog",
        Fault::NoAuth => {
            "the server does not take the token yet, or never: compare its clock with this one, and run afs aklog"
        }
        Fault::UnknownKey => {
            "the server has no key of the version and kind of the token: give it the newest keytab of the service, or run \
             afs aklog if that was changed back"
        }
        Fault::BadTicket => {
            "the server cannot open the token: its key is not the one that the KDC has; give it a new keytab"
        }
        Fault::BadKey | Fault::TicketLength => "the server has no use for such a token: run afs aklog",
        Fault::LevelFail | Fault::IllegalLevel => {
            "the server wants calls to be better protected: give afs mount a higher --security"
        }
        Fault::SealedInconsistent | Fault::DataLength => {
            "a packet was sealed with another key, or changed on its way: run afs aklog if it goes on"
        }
        Fault::Inconsistency | Fault::PacketShort | Fault::OutOfSequence => {
            "server and client do not understand each other about tokens"
        }
    }
}

/// The "unified AFS errors" (OpenAFS `uae.et`): an index into a list of errors that has the order of Linux.
fn unified(code: i32) -> Option<Errno> {
    let index = code.checked_sub(UAE_BASE)?;
    let errno = match index {
        // Into its own subtree: EMSGSIZE is what the translation makes of the server's number (afs-rpc.md 4.4).
        0x58 => return Some(Errno::INVAL),
        0x00..=0x27 => index + 1,
        0x28 => return Some(Errno::AGAIN),
        0x29..=0x38 => index + 1,
        0x39..=0x7b => index + 2,
        0x7c => 131,
        0x7d => 95,
        0x7f => 130,
        _ => return None,
    };
    Some(Errno::from_raw_os_error(errno))
}

/// The unified code of an errno: what a server that translates its errors says.
#[must_use]
pub fn unified_code(errno: Errno) -> AbortCode {
    let code = (UAE_BASE..=UAE_BASE + 0x81).find(|code| unified(*code) == Some(errno));
    AbortCode(code.unwrap_or(UAE_OTHER))
}

/// A sentence about a code.
#[must_use]
pub fn describe(code: AbortCode) -> String {
    if let Some(fault) = Fault::from_code(code) {
        return format!("{} ({fault})", cure(fault));
    }
    let name = match code.0 {
        vice::SALVAGE => "the volume must be salvaged",
        vice::NO_VNODE => "the file does not exist any more",
        vice::NO_VOLUME => "the volume is not on this server",
        vice::NO_SERVICE => "the server gives no service",
        vice::OFFLINE => "the volume is off line",
        vice::DISK_FULL => "the partition is full",
        vice::OVER_QUOTA => "the quota of the volume is used up",
        vice::BUSY => "the volume is busy",
        vice::MOVED => "the volume has moved",
        vice::SALVAGING => "the volume is being salvaged",
        vice::RESTARTING => "the server is starting",
        vl::NO_ENTRY => "there is no such volume",
        _ => match abort_codes::name(code) {
            Some(name) => name,
            None => return format!("{} (code {code})", errno(code)),
        },
    };
    format!("{name} (code {code})")
}

/// The first of the unified codes, `UAEPERM`.
pub const UAE_BASE: i32 = 49_733_376;
/// An error that has no name of its own.
const UAE_OTHER: i32 = UAE_BASE + 0x7e;
const RX_CALL_DEAD: i32 = abort_codes::RX_CALL_DEAD.0;
const RX_CALL_TIMEOUT: i32 = abort_codes::RX_CALL_TIMEOUT.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_errors() {
        for (code, expected) in [
            (13, Errno::ACCESS),
            (109, Errno::DQUOT),
            (49_733_376, Errno::PERM),
            (49_733_388, Errno::ACCESS),
            (49_733_392, Errno::EXIST),
            (49_733_405, Errno::ROFS),
            (49_733_415, Errno::LOOP),
            (49_733_416, Errno::AGAIN),
            (49_733_417, Errno::from_raw_os_error(42)),
            (49_733_432, Errno::from_raw_os_error(57)),
            (49_733_433, Errno::from_raw_os_error(59)),
            (49_733_464, Errno::INVAL),
            (49_733_484, Errno::TIMEDOUT),
            (49_733_496, Errno::DQUOT),
            (363_524, Errno::NODEV),
            (-1, Errno::TIMEDOUT),
            (-3, Errno::TIMEDOUT),
            (-455, Errno::IO),
            (i32::MIN, Errno::IO),
        ] {
            assert_eq!(errno(AbortCode(code)), expected, "{code}");
        }
    }

    #[test]
    fn faults_of_rxkad_are_about_keys_or_the_protocol() {
        let [expired, rejected, protocol] = [Errno::KEYEXPIRED, Errno::KEYREJECTED, Errno::PROTO];
        let expected = [
            protocol, protocol, rejected, rejected, protocol, rejected, rejected, rejected, rejected,
            expired, rejected, rejected, rejected,
        ];
        for (fault, expected) in Fault::ALL.iter().zip(expected) {
            for error in [
                RpcError::Aborted(fault.code()),
                CallError::ConnectionAborted(fault.code()).into(),
                CallError::Protocol(fault.code()).into(),
            ] {
                let error = Error::from(error);
                assert_eq!(error.errno(), expected.raw_os_error(), "{fault}");
                assert!(error.to_string().ends_with(&format!(" ({fault})")), "{error}");
            }
        }
        let other = Error::from(RpcError::Transport(CallError::Protocol(AbortCode(-5))));
        assert_eq!(other.errno(), Errno::TIMEDOUT.raw_os_error());
    }

    #[test]
    fn errors_have_unified_codes() {
        for raw in (1..=40).chain([42, 57, 59, 60, 95, 110, 116, 122, 130, 131]) {
            let expected = Errno::from_raw_os_error(raw);
            assert_eq!(errno(unified_code(expected)), expected, "{raw}");
        }
        assert_eq!(unified_code(Errno::INVAL).0, 49_733_397);
        assert_eq!(unified_code(Errno::from_raw_os_error(524)).0, UAE_OTHER);
    }
}
