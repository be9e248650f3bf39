//! Abort codes by name (afs-rpc.md 10).

use rxrpc::proto::{AbortCode, abort_codes};
use rxrpc::security::rxkad::Fault;

use crate::error::{UAE_BASE, vice};
use crate::rpc::vl;

/// The code with this name: one of the volume package, of the unified errors, of rxkad, of the location database or of
/// Rx itself.
#[must_use]
pub fn named(name: &str) -> Option<AbortCode> {
    let listed = NAMED
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, code)| *code);
    let unified = || {
        let index = UAE.split(' ').position(|known| known == name)?;
        Some(UAE_BASE + i32::try_from(index).ok()?)
    };
    let fault = || Fault::ALL.iter().find(|fault| fault.name() == name);
    listed
        .or_else(unified)
        .map(AbortCode)
        .or_else(|| fault().map(|fault| fault.code()))
        .or_else(|| {
            RX_CODES
                .map(AbortCode)
                .find(|code| abort_codes::name(*code) == Some(name))
        })
}

/// The name of a code, if it has one.
#[must_use]
pub fn name(code: AbortCode) -> Option<&'static str> {
    let unified = || {
        let index = usize::try_from(code.0.checked_sub(UAE_BASE)?).ok()?;
        UAE.split(' ').nth(index)
    };
    NAMED
        .iter()
        .find(|(_, known)| *known == code.0)
        .map(|(name, _)| *name)
        .or_else(unified)
        .or_else(|| Fault::from_code(code).map(Fault::name))
        .or_else(|| abort_codes::name(code))
}

const NAMED: &[(&str, i32)] = &[
    ("VSALVAGE", vice::SALVAGE),
    ("VNOVNODE", vice::NO_VNODE),
    ("VNOVOL", vice::NO_VOLUME),
    ("VVOLEXISTS", 104),
    ("VNOSERVICE", vice::NO_SERVICE),
    ("VOFFLINE", vice::OFFLINE),
    ("VONLINE", 107),
    ("VDISKFULL", vice::DISK_FULL),
    ("VOVERQUOTA", vice::OVER_QUOTA),
    ("VBUSY", vice::BUSY),
    ("VMOVED", vice::MOVED),
    ("VIO", vice::IO),
    ("VSALVAGING", vice::SALVAGING),
    ("VRESTARTING", vice::RESTARTING),
    ("VL_NOENT", vl::NO_ENTRY),
    ("VL_IO", vl::IO),
    ("VL_PERM", vl::PERM),
    ("UNOQUORUM", 5_376),
];

const RX_CODES: std::ops::RangeInclusive<i32> = -500..=-1;
/// The unified errors, one after the other.
const UAE: &str = "\
    UAEPERM UAENOENT UAESRCH UAEINTR UAEIO UAENXIO UAE2BIG UAENOEXEC UAEBADF UAECHILD UAEAGAIN UAENOMEM UAEACCES \
     UAEFAULT UAENOTBLK UAEBUSY UAEEXIST UAEXDEV UAENODEV UAENOTDIR UAEISDIR UAEINVAL UAENFILE UAEMFILE UAENOTTY \
     UAETXTBSY UAEFBIG UAENOSPC UAESPIPE UAEROFS UAEMLINK UAEPIPE UAEDOM UAERANGE UAEDEADLK UAENAMETOOLONG UAENOLCK \
     UAENOSYS UAENOTEMPTY UAELOOP UAEWOULDBLOCK UAENOMSG UAEIDRM UAECHRNG UAEL2NSYNC UAEL3HLT UAEL3RST UAELNRNG \
     UAEUNATCH UAENOCSI UAEL2HLT UAEBADE UAEBADR UAEXFULL UAENOANO UAEBADRQC UAEBADSLT UAEBFONT UAENOSTR UAENODATA \
     UAETIME UAENOSR UAENONET UAENOPKG UAEREMOTE UAENOLINK UAEADV UAESRMNT UAECOMM UAEPROTO UAEMULTIHOP UAEDOTDOT \
     UAEBADMSG UAEOVERFLOW UAENOTUNIQ UAEBADFD UAEREMCHG UAELIBACC UAELIBBAD UAELIBSCN UAELIBMAX UAELIBEXEC UAEILSEQ \
     UAERESTART UAESTRPIPE UAEUSERS UAENOTSOCK UAEDESTADDRREQ UAEMSGSIZE UAEPROTOTYPE UAENOPROTOOPT UAEPROTONOSUPPORT \
     UAESOCKTNOSUPPORT UAEOPNOTSUPP UAEPFNOSUPPORT UAEAFNOSUPPORT UAEADDRINUSE UAEADDRNOTAVAIL UAENETDOWN \
     UAENETUNREACH UAENETRESET UAECONNABORTED UAECONNRESET UAENOBUFS UAEISCONN UAENOTCONN UAESHUTDOWN UAETOOMANYREFS \
     UAETIMEDOUT UAECONNREFUSED UAEHOSTDOWN UAEHOSTUNREACH UAEALREADY UAEINPROGRESS UAESTALE UAEUCLEAN UAENOTNAM \
     UAENAVAIL UAEISNAM UAEREMOTEIO UAEDQUOT UAENOMEDIUM UAEMEDIUMTYPE UAECANCELED UAENOTRECOVERABLE UAENOTSUP \
     UAEOTHER UAEOWNERDEAD UAEPROCLIM UAEDISCON";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_codes() {
        for (name, code) in [
            ("VBUSY", 110),
            ("VMOVED", 111),
            ("VRESTARTING", -100),
            ("UAEPERM", 49_733_376),
            ("UAELOOP", 49_733_415),
            ("UAEWOULDBLOCK", 49_733_416),
            ("UAEBFONT", 49_733_433),
            ("UAEMSGSIZE", 49_733_464),
            ("UAETIMEDOUT", 49_733_484),
            ("UAEDQUOT", 49_733_496),
            ("UAEDISCON", 49_733_505),
            ("RXKADEXPIRED", 19_270_409),
            ("RXKADILLEGALLEVEL", 19_270_412),
            ("RXGEN_OPCODE", -455),
            ("RX_CALL_DEAD", -1),
        ] {
            assert_eq!(named(name), Some(AbortCode(code)), "{name}");
            assert_eq!(super::name(AbortCode(code)), Some(name), "{code}");
        }
        for name in ["", "UAE", "VBUSYX", "RXKAD", "EPERM"] {
            assert_eq!(named(name), None, "{name:?}");
        }
        for code in [0, 1, 99, 19_270_413, 49_733_506, i32::MIN, i32::MAX] {
            assert_eq!(name(AbortCode(code)), None, "{code}");
        }
    }
}
