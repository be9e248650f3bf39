//! The embedded servers: any series of calls, with any arguments.

use afs_client::rpc::{fs, vl};
use afs_client::xdr::Encode;
use testcell::embedded::Offline;
use testcell::embedded::faults::Service;

use crate::input::Input;

/// Calls, one after the other: which procedure, how its arguments begin, how many words of them follow.
pub(crate) fn run(bytes: &[u8]) {
    let offline = Offline::new().unwrap_or_else(|error| panic!("{error}"));
    let procedures = procedures();
    let mut input = Input::new(bytes);
    while let (Some(which), Some(start), Some(words)) = (input.byte(), input.byte(), input.byte()) {
        let (service, opcode) = procedures[usize::from(which) % procedures.len()];
        let mut request = Vec::new();
        // A file that is there, so that it gets further.
        if let Some(fid) = Offline::fids().get(usize::from(start)) {
            fid.encode(&mut request);
        }
        request.extend_from_slice(input.bytes(usize::from(words) * 4));
        if let Ok(reply) = offline.answer(service, opcode, &request) {
            assert!(reply.len() <= REPLY_MAX, "{opcode}: {} bytes", reply.len());
        }
        if start == u8::MAX {
            offline.pass(words.into());
        }
    }
    offline.check().unwrap_or_else(|wrong| panic!("{wrong}"));
}

/// All of both services, and one that neither has.
fn procedures() -> Vec<(Service, u32)> {
    let with_data = [
        fs::FETCH_DATA,
        fs::STORE_DATA,
        fs::FETCH_DATA_32,
        fs::STORE_DATA_32,
        9_999,
    ];
    let files = fs::PROCEDURES.iter().map(|(opcode, _)| *opcode);
    let locations = vl::PROCEDURES.iter().map(|(opcode, _)| *opcode);
    let files = files.chain(with_data).map(|opcode| (Service::File, opcode));
    files
        .chain(locations.map(|opcode| (Service::Location, opcode)))
        .collect()
}

/// As much of a file as is read at once, and what is said about it; no other reply is longer.
const REPLY_MAX: usize = (64 << 10) + 512;
