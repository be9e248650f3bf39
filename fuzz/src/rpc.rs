//! The arguments of calls that servers make to us, and the results of ours.

use std::net::{Ipv4Addr, SocketAddrV4};

use afs_client::rpc::cb::CallbackServer;
use afs_client::rpc::{Procedure, cb, fs, vl};
use afs_client::xdr::{Decode, Encode, from_bytes};

struct Nobody;

impl CallbackServer for Nobody {}

/// The first byte chooses a procedure; the rest are its arguments and its results.
pub(crate) fn run(bytes: &[u8]) {
    let Some((which, body)) = bytes.split_first() else {
        return;
    };
    let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7000);
    for (opcode, _) in cb::PROCEDURES {
        // Nobody has any procedure: what is not unmarshalled well is refused before that is known.
        assert!(Nobody.dispatch(peer, *opcode, body).is_err());
    }
    match which % 12 {
        0 => both::<cb::CallBack>(body),
        1 => both::<cb::InitCallBackState3>(body),
        2 => both::<cb::TellMeAboutYourself>(body),
        3 => both::<cb::GetXStats>(body),
        4 => both::<fs::FetchStatusOf>(body),
        5 => both::<fs::Rename>(body),
        6 => both::<fs::InlineBulkStatus>(body),
        7 => both::<fs::StoreStatusOf>(body),
        8 => both::<fs::GetVolumeStatus>(body),
        9 => both::<fs::Symlink>(body),
        10 => both::<vl::GetEntryByName>(body),
        _ => both::<vl::GetAddrs>(body),
    }
}

fn both<P: Procedure>(body: &[u8]) {
    round_trip::<P>(body);
    round_trip::<P::Reply>(body);
}

/// A value that can be read is written as long as it was, and means the same.
fn round_trip<T: Decode + Encode>(body: &[u8]) {
    let Ok(value) = from_bytes::<T>(body) else { return };
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    value.encode(&mut once);
    assert!(once.len() <= body.len(), "a value out of nothing");
    from_bytes::<T>(&once)
        .unwrap_or_else(|error| panic!("{error}"))
        .encode(&mut twice);
    assert_eq!(once, twice);
}
