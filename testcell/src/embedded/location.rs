//! The volume location server: which servers have which copy of a volume (afs-rpc.md 7).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use afs_client::rpc::types::{AfsUuid, NameWords, VolumeEntry};
use afs_client::rpc::vl::{
    BAD_NAME, GetAddrs, GetAddrsReply, GetEntryByName, GetEntryByNameReply, LocationServer, NO_ENTRY,
    ProbeServer, ProbeServerReply,
};
use afs_client::types::VolumeId;
use afs_client::xdr::List;
use parking_lot::Mutex;
use rxrpc::proto::AbortCode;

/// A volume and its copies. Servers are numbered from 0.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// Ids of the read-write, read-only and backup volume, whether they exist or not.
    pub(crate) ids: [VolumeId; 3],
    /// Who has the read-write volume, and the backup.
    pub(crate) server: usize,
    /// Who has a read-only copy.
    pub(crate) replicas: Vec<usize>,
    /// Which of them have a release already that the others have not.
    pub(crate) ahead: Vec<usize>,
    pub(crate) backup: bool,
}

/// A file server, for those who look for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) uuid: AfsUuid,
    pub(crate) address: Ipv4Addr,
}

/// The database.
#[derive(Debug)]
pub(crate) struct Location {
    pub(crate) machines: Vec<Machine>,
    pub(crate) sites: Mutex<BTreeMap<String, Site>>,
}

impl Location {
    /// Finds a volume by its name, with or without suffix, or by one of its numbers.
    fn find(&self, name: &str) -> Option<(String, Site)> {
        let sites = self.sites.lock();
        let base = name
            .strip_suffix(".readonly")
            .or_else(|| name.strip_suffix(".backup"))
            .unwrap_or(name);
        let found = match name.parse().map(VolumeId) {
            Ok(id) => sites.iter().find(|(_, site)| site.ids.contains(&id)),
            Err(_) => sites.get_key_value(base),
        };
        found.map(|(name, site)| (name.clone(), site.clone()))
    }

    fn entry(&self, name: &str, site: &Site) -> VolumeEntry {
        let mut entry = VolumeEntry {
            name: NameWords::new(name),
            ids: site.ids.map(|id| id.0),
            flags: RW_EXISTS
                | if site.replicas.is_empty() { 0 } else { RO_EXISTS }
                | if site.backup { BACKUP_EXISTS } else { 0 },
            ..VolumeEntry::default()
        };
        let copies = std::iter::once((site.server, HAS_RW)).chain(site.replicas.iter().map(|server| {
            let ahead = if site.ahead.contains(server) { NEW_RO } else { 0 };
            (*server, HAS_RO | ahead)
        }));
        let slots = entry
            .uuids
            .iter_mut()
            .zip(&mut entry.uniques)
            .zip(&mut entry.server_flags);
        for (((uuid, unique), flags), (server, has)) in slots.zip(copies) {
            if let Some(machine) = self.machines.get(server) {
                (*uuid, *unique, *flags) = (machine.uuid, 1, has | IS_UUID);
                entry.servers += 1;
            }
        }
        entry
    }
}

impl LocationServer for Location {
    fn probe_server(&self, _: SocketAddrV4, _: ProbeServer) -> Result<ProbeServerReply, AbortCode> {
        Ok(ProbeServerReply {})
    }

    fn get_entry_by_name(
        &self,
        _: SocketAddrV4,
        request: GetEntryByName,
    ) -> Result<GetEntryByNameReply, AbortCode> {
        let name = request.name.lossy();
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !name.chars().all(legal) {
            return Err(AbortCode(BAD_NAME));
        }
        let (name, site) = self.find(&name).ok_or(AbortCode(NO_ENTRY))?;
        Ok(GetEntryByNameReply {
            entry: self.entry(&name, &site),
        })
    }

    fn get_addrs(&self, _: SocketAddrV4, request: GetAddrs) -> Result<GetAddrsReply, AbortCode> {
        let wanted = request.query.uuid;
        let machine = self
            .machines
            .iter()
            .find(|machine| request.query.mask == BY_UUID && machine.uuid == wanted)
            .ok_or(AbortCode(NO_ENTRY))?;
        Ok(GetAddrsReply {
            uuid: machine.uuid,
            unique: 1,
            count: 1,
            addresses: List(vec![machine.address.to_bits()]),
        })
    }
}

const BY_UUID: u32 = 4;
const RW_EXISTS: u32 = 0x1000;
const RO_EXISTS: u32 = 0x2000;
const BACKUP_EXISTS: u32 = 0x4000;
const HAS_RO: u32 = 0x02;
const NEW_RO: u32 = 0x01;
const HAS_RW: u32 = 0x04;
const IS_UUID: u32 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_found_by_any_of_its_names_and_numbers() {
        let machine = |number| Machine {
            uuid: AfsUuid([number; 16]),
            address: Ipv4Addr::new(127, 0, 0, number),
        };
        let site = Site {
            ids: [7, 8, 9].map(VolumeId),
            server: 0,
            replicas: vec![0, 1],
            ahead: Vec::new(),
            backup: false,
        };
        let location = Location {
            machines: vec![machine(1), machine(2)],
            sites: Mutex::new(BTreeMap::from([("work".to_owned(), site)])),
        };
        let peer = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
        let ask = |name: &str| {
            let name = name.as_bytes().into();
            location.get_entry_by_name(peer, GetEntryByName { name })
        };
        for name in ["work", "work.readonly", "work.backup", "7", "8", "9"] {
            let entry = ask(name).unwrap().entry;
            assert_eq!(
                (entry.name.text().as_str(), entry.servers, entry.flags),
                ("work", 3, 0x3000)
            );
            assert_eq!(entry.server_flags[..4], [0x14, 0x12, 0x12, 0]);
            assert_eq!(entry.uuids[2], AfsUuid([2; 16]));
        }
        assert_eq!(ask("none").unwrap_err().0, NO_ENTRY);
        assert_eq!(ask("10").unwrap_err().0, NO_ENTRY);
        assert_eq!(ask("no/name").unwrap_err().0, BAD_NAME);
    }
}
