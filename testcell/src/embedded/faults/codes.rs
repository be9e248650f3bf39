//! Abort codes by name (afs-rpc.md 10).

use afs_client::error::{UAE_BASE, vice};
use rxrpc::proto::{AbortCode, abort_codes};

/// The code with this name: one of the volume package, of the unified errors, of rxkad, of the location database or of
/// Rx itself.
#[must_use]
pub fn named(name: &str) -> Option<AbortCode> {
    let listed = NAMED
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, code)| *code);
    let in_table = |prefix: &str, names: &str, base: i32| {
        let wanted = name.strip_prefix(prefix)?;
        let index = names.split(' ').position(|known| known == wanted)?;
        Some(base + i32::try_from(index).ok()?)
    };
    listed
        .or_else(|| in_table("UAE", UAE, UAE_BASE))
        .or_else(|| in_table("RXKAD", RXKAD, RXKAD_BASE))
        .map(AbortCode)
        .or_else(|| {
            RX_CODES
                .map(AbortCode)
                .find(|code| abort_codes::name(*code) == Some(name))
        })
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
    ("VL_NOENT", 363_524),
    ("VL_IO", 363_521),
    ("VL_PERM", 363_546),
    ("UNOQUORUM", 5_376),
];

const RX_CODES: std::ops::RangeInclusive<i32> = -500..=-1;
const RXKAD_BASE: i32 = 19_270_400;
const RXKAD: &str = "INCONSISTENCY PACKETSHORT LEVELFAIL TICKETLEN OUTOFSEQUENCE NOAUTH BADKEY BADTICKET UNKNOWNKEY \
     EXPIRED SEALEDINCON DATALEN ILLEGALLEVEL";
const UAE: &str = "PERM NOENT SRCH INTR IO NXIO 2BIG NOEXEC BADF CHILD AGAIN NOMEM ACCES FAULT NOTBLK BUSY EXIST XDEV \
     NODEV NOTDIR ISDIR INVAL NFILE MFILE NOTTY TXTBSY FBIG NOSPC SPIPE ROFS MLINK PIPE DOM RANGE DEADLK NAMETOOLONG \
     NOLCK NOSYS NOTEMPTY LOOP WOULDBLOCK NOMSG IDRM CHRNG L2NSYNC L3HLT L3RST LNRNG UNATCH NOCSI L2HLT BADE BADR XFULL \
     NOANO BADRQC BADSLT BFONT NOSTR NODATA TIME NOSR NONET NOPKG REMOTE NOLINK ADV SRMNT COMM PROTO MULTIHOP DOTDOT \
     BADMSG OVERFLOW NOTUNIQ BADFD REMCHG LIBACC LIBBAD LIBSCN LIBMAX LIBEXEC ILSEQ RESTART STRPIPE USERS NOTSOCK \
     DESTADDRREQ MSGSIZE PROTOTYPE NOPROTOOPT PROTONOSUPPORT SOCKTNOSUPPORT OPNOTSUPP PFNOSUPPORT AFNOSUPPORT ADDRINUSE \
     ADDRNOTAVAIL NETDOWN NETUNREACH NETRESET CONNABORTED CONNRESET NOBUFS ISCONN NOTCONN SHUTDOWN TOOMANYREFS TIMEDOUT \
     CONNREFUSED HOSTDOWN HOSTUNREACH ALREADY INPROGRESS STALE UCLEAN NOTNAM NAVAIL ISNAM REMOTEIO DQUOT NOMEDIUM \
     MEDIUMTYPE CANCELED NOTRECOVERABLE NOTSUP OTHER OWNERDEAD PROCLIM DISCON";

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
        }
        for name in ["", "UAE", "VBUSYX", "RXKAD", "EPERM"] {
            assert_eq!(named(name), None, "{name:?}");
        }
    }
}
