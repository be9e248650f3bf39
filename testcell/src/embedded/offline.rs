//! The servers without their ports, for those who throw any bytes at them.
//!
//! The machine: a request goes to the tables of procedures as it would from the network, and what it demands is done, but
//! for the calls to clients: nobody is there to be told.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use afs_client::rpc::fs::{
    FETCH_DATA, FETCH_DATA_32, FetchData32Args, FetchDataArgs, FileServer, STORE_DATA, STORE_DATA_32,
    StoreData32Args, StoreDataArgs,
};
use afs_client::rpc::types::{AfsFid, StoreVolumeStatus};
use afs_client::rpc::vl::LocationServer;
use afs_client::types::VolumeId;
use afs_client::volume::VolumeKind;
use afs_client::xdr::{Decode, Encode, from_bytes};
use bytes::Bytes;
use parking_lot::Mutex;
use rxrpc::proto::{AbortCode, Epoch, abort_codes};

use super::accounts::Accounts;
use super::clock::Clock;
use super::faults::{Faults, Service};
use super::hosts::Introduction;
use super::location::{Location, Machine, Site};
use super::procedures::OneCall;
use super::server::{Common, Server};
use super::storage::{Acl, Caller, Refusal, Rights, Spill, Volume};

/// A location server and a file server with two volumes: `work`, with a quota, and `ro`, with a copy of it.
#[derive(Debug)]
pub struct Offline {
    location: Location,
    call: OneCall,
}

impl Offline {
    /// The same each time.
    ///
    /// # Errors
    ///
    /// None that is known of.
    pub fn new() -> Result<Self, super::CellError> {
        let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7001);
        let common = Arc::new(Common {
            cell: "lab.example".to_owned(),
            clock: Clock::standing(NOW),
            spill: Spill::default(),
            faults: Faults::default(),
            patience: std::time::Duration::ZERO,
            names: vec!["system:anyuser".to_owned()],
            accounts: Accounts::default(),
        });
        let server = Arc::new(Server::new(1, Ipv4Addr::LOCALHOST, Arc::clone(&common)));
        let machines = vec![Machine {
            uuid: server.uuid,
            address: server.address,
        }];
        let site = |first: u32| Site {
            ids: [first, first + 1, first + 2].map(VolumeId),
            server: 0,
            replicas: vec![0],
            ahead: Vec::new(),
            backup: false,
        };
        let sites = [("work", site(WORK)), ("ro", site(COPIED))];
        let sites = sites.map(|(name, site)| (name.to_owned(), site));
        let location = Location {
            machines,
            sites: Mutex::new(sites.into()),
        };
        let host = {
            let mut state = server.state.lock();
            for (id, name) in [(WORK, "work"), (COPIED, "ro")] {
                let volume = filled(VolumeId(id), name, &common.spill)?;
                let copy = volume.snapshot(VolumeId(id + 1), VolumeKind::ReadOnly, NOW);
                state.volumes.insert(volume.id, volume);
                state.volumes.insert(copy.id, copy);
            }
            let who = Introduction {
                uuid: None,
                unified: true,
            };
            state.hosts.introduce(peer, Epoch(1), who, NOW).0
        };
        let call = OneCall {
            server,
            host,
            caller: Caller::ANONYMOUS,
            unified: true,
            lie: None,
            owed: Mutex::default(),
        };
        Ok(Self { location, call })
    }

    /// FIDs of what there is: the root, a directory, a file and a link of `work`; the root of the copy of `ro`.
    #[must_use]
    pub fn fids() -> [AfsFid; 5] {
        let at = |volume, vnode, unique| AfsFid {
            volume,
            vnode,
            unique,
        };
        [
            at(WORK, 1, 1),
            at(WORK, 3, 2),
            at(WORK, 2, 3),
            at(WORK, 4, 4),
            at(COPIED + 1, 1, 1),
        ]
    }

    /// Answers a request: all that comes after its first word, file data too.
    ///
    /// # Errors
    ///
    /// What it is refused with.
    pub fn answer(&self, service: Service, opcode: u32, request: &[u8]) -> Result<Vec<u8>, AbortCode> {
        let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7001);
        match (service, opcode) {
            (Service::Location, _) => self.location.dispatch(peer, opcode, request),
            (Service::File, FETCH_DATA) => self.fetch(&head(request)?.0),
            (Service::File, FETCH_DATA_32) => self.fetch(&head::<FetchData32Args>(request)?.0.into()),
            (Service::File, STORE_DATA) => {
                let (args, data) = head(request)?;
                self.store(&args, data)
            }
            (Service::File, STORE_DATA_32) => {
                let (args, data) = head::<StoreData32Args>(request)?;
                self.store(&args.into(), data)
            }
            (Service::File, _) => self.call.dispatch(peer, opcode, request),
        }
    }

    fn fetch(&self, args: &FetchDataArgs) -> Result<Vec<u8>, AbortCode> {
        let (data, reply) = self.call.fetch(args)?;
        let length = args.length.min(data.len().saturating_sub(args.position));
        let mut out = Vec::new();
        length.encode(&mut out);
        let part = data.part(args.position, length.min(SHOWN));
        out.extend_from_slice(&part.map_err(|_| abort_codes::RX_EOF)?);
        reply.encode(&mut out);
        Ok(out)
    }

    fn store(&self, args: &StoreDataArgs, data: &[u8]) -> Result<Vec<u8>, AbortCode> {
        let spill = &self.call.server.common.spill;
        let refused = |refusal: Refusal| refusal.code(true);
        let mut store = self.call.begin_store(args)?;
        for part in data.chunks(1000) {
            store.write(part, spill).map_err(refused)?;
        }
        store.complete(spill).map_err(refused)?;
        let mut out = Vec::new();
        self.call.finish_store(args.fid, store)?.encode(&mut out);
        Ok(out)
    }

    /// Lets time pass: locks and promises end.
    pub fn pass(&self, seconds: u32) {
        let time = std::time::Duration::from_secs(seconds.into());
        self.call.server.common.clock.advance(time);
    }

    /// What must hold between any two requests: says what does not.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub fn check(&self) -> Result<(), String> {
        self.call.owed.lock().clear();
        let state = self.call.server.state.lock();
        state.volumes.values().try_for_each(Volume::check)
    }
}

fn filled(id: VolumeId, name: &str, spill: &Spill) -> Result<Volume, Refusal> {
    let mut volume = Volume::new(id, name, Acl::anyuser(Rights::ALL), NOW);
    volume.put_dir("dir", NOW)?;
    volume.put_file("file", b"hello, world\n", spill, NOW)?;
    volume.put_link("link", "file", 0o755, NOW)?;
    volume.put_file("dir/inner", b"inside\n", spill, NOW)?;
    let quota = StoreVolumeStatus {
        mask: 2,
        min_quota: 0,
        max_quota: 10_000,
    };
    volume.set_volume_status(&quota, &Bytes::new(), &Caller::ADMINISTRATOR)?;
    Ok(volume)
}

/// The arguments before file data, and the data.
fn head<T: Decode>(request: &[u8]) -> Result<(T, &[u8]), AbortCode> {
    let (head, data) = request
        .split_at_checked(T::MIN_LEN)
        .ok_or(abort_codes::RXGEN_SS_UNMARSHAL)?;
    let head = from_bytes(head).map_err(|_| abort_codes::RXGEN_SS_UNMARSHAL)?;
    Ok((head, data))
}

const NOW: u32 = 1_700_000_000;
const WORK: u32 = 536_870_912;
const COPIED: u32 = 536_870_915;
/// So much of a file is read.
const SHOWN: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use afs_client::rpc::Procedure;
    use afs_client::rpc::fs::{FetchStatusOf, FetchStatusReply};

    use super::*;

    #[test]
    fn what_is_said_to_be_there_is_there() {
        let offline = Offline::new().unwrap();
        for (fid, kind) in Offline::fids().into_iter().zip([2, 2, 1, 3, 2]) {
            let mut request = Vec::new();
            fid.encode(&mut request);
            let reply = offline.answer(Service::File, FetchStatusOf::OPCODE, &request);
            let reply: FetchStatusReply = from_bytes(&reply.unwrap()).unwrap();
            assert_eq!(reply.status.file_type, kind, "{fid:?}");
        }
        offline.check().unwrap();
    }
}
