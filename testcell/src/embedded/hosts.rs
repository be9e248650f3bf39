//! The clients that a file server knows (afs-rpc.md 11.4).
//!
//! The machine: a host is a UUID; addresses lead to it. An address that is new, or whose client is another incarnation,
//! has to say who it is before its call is served. A host that did not answer a break is down: what it was to be told
//! waits, and is the first thing it hears when it calls again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddrV4;

use afs_client::rpc::types::AfsUuid;
use rxrpc::proto::Epoch;

use super::promises::FileId;

/// Names a host of one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HostId(u32);

/// A client.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// None for one that does not know the question.
    pub(crate) uuid: Option<AfsUuid>,
    /// Where it called from last.
    pub(crate) address: SocketAddrV4,
    epoch: Epoch,
    /// It understands unified error codes.
    pub(crate) unified: bool,
    /// It does not answer; what it has to be told when it comes back.
    pub(crate) down: Option<Delayed>,
    /// When it called last, unix seconds.
    pub(crate) seen: u32,
}

/// What a host that is down has missed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delayed {
    /// Breaks of these files.
    Files(BTreeSet<FileId>),
    /// Everything.
    All,
}

impl Delayed {
    fn add(&mut self, files: impl IntoIterator<Item = FileId>) {
        if let Self::Files(waiting) = self {
            waiting.extend(files);
            if waiting.len() > DELAYED_MAX {
                *self = Self::All;
            }
        }
    }
}

/// What a host says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Introduction {
    pub(crate) uuid: Option<AfsUuid>,
    pub(crate) unified: bool,
}

/// The hosts of a server.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    by_address: HashMap<SocketAddrV4, HostId>,
    hosts: BTreeMap<HostId, Host>,
    next: u32,
}

impl Hosts {
    /// The host that calls, if it need not be asked who it is. It may still be down.
    pub(crate) fn known(&mut self, address: SocketAddrV4, epoch: Epoch, now: u32) -> Option<(HostId, Host)> {
        let id = *self.by_address.get(&address)?;
        let host = self.hosts.get_mut(&id).filter(|host| host.epoch == epoch)?;
        host.seen = now;
        host.address = address;
        Some((id, host.clone()))
    }

    pub(crate) fn get(&self, id: HostId) -> Option<&Host> {
        self.hosts.get(&id)
    }

    /// Takes a host in that has said who it is. Gives its id, whether it is new, and the host that had the address
    /// before, if that one is gone now.
    pub(crate) fn introduce(
        &mut self,
        address: SocketAddrV4,
        epoch: Epoch,
        who: Introduction,
        now: u32,
    ) -> (HostId, bool, Option<HostId>) {
        let same = who
            .uuid
            .and_then(|uuid| self.hosts.iter().find(|(_, host)| host.uuid == Some(uuid)))
            .map(|(id, _)| *id);
        let (id, is_new) = match same {
            Some(id) => (id, false),
            None => {
                self.next += 1;
                (HostId(self.next), true)
            }
        };
        let down = same.and_then(|id| self.hosts.get(&id)?.down.clone());
        let host = Host {
            uuid: who.uuid,
            address,
            epoch,
            unified: who.unified,
            down,
            seen: now,
        };
        self.hosts.insert(id, host);
        let before = self.by_address.insert(address, id).filter(|before| *before != id);
        let gone = before.filter(|before| !self.by_address.values().any(|other| other == before));
        if let Some(gone) = gone {
            self.hosts.remove(&gone);
        }
        (id, is_new, gone)
    }

    /// It did not answer when it was to be told about these files.
    pub(crate) fn missed(&mut self, id: HostId, files: impl IntoIterator<Item = FileId>) {
        if let Some(host) = self.hosts.get_mut(&id) {
            let nothing = || Delayed::Files(BTreeSet::new());
            host.down.get_or_insert_with(nothing).add(files);
        }
    }

    /// It has missed something, and nobody remembers what.
    pub(crate) fn missed_all(&mut self, id: HostId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.down = Some(Delayed::All);
        }
    }

    /// Is there a host at this address that has to be told something?
    pub(crate) fn is_down(&self, address: SocketAddrV4) -> bool {
        let host = self.by_address.get(&address).and_then(|id| self.hosts.get(id));
        host.is_some_and(|host| host.down.is_some())
    }

    /// It answers again and was told what it missed.
    pub(crate) fn caught_up(&mut self, id: HostId) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.down = None;
        }
    }

    /// Forgets a host.
    pub(crate) fn remove(&mut self, id: HostId) {
        self.hosts.remove(&id);
        self.by_address.retain(|_, other| *other != id);
    }

    /// Hosts that have said nothing since `when`.
    pub(crate) fn silent_since(&self, when: u32) -> Vec<(HostId, Host)> {
        let silent = self.hosts.iter().filter(|(_, host)| host.seen <= when);
        silent.map(|(id, host)| (*id, host.clone())).collect()
    }

    pub(crate) fn ids(&self) -> Vec<HostId> {
        self.hosts.keys().copied().collect()
    }
}

/// Beyond so many breaks a host is told to forget everything.
const DELAYED_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn at(port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }

    fn who(number: u8) -> Introduction {
        Introduction {
            uuid: Some(AfsUuid([number; 16])),
            unified: true,
        }
    }

    #[test]
    fn a_host_is_its_uuid() {
        let mut hosts = Hosts::default();
        let (one, new, gone) = hosts.introduce(at(1), Epoch(1), who(1), 0);
        assert!(new && gone.is_none());
        assert_eq!(hosts.known(at(1), Epoch(1), 5).unwrap().0, one);
        assert!(
            hosts.known(at(1), Epoch(2), 5).is_none(),
            "another incarnation is asked"
        );
        // The same from another port.
        assert_eq!(hosts.introduce(at(2), Epoch(3), who(1), 6), (one, false, None));
        assert_eq!(hosts.get(one).unwrap().address, at(2));
        // Another one on its first port; it can still be reached at the second.
        let (two, new, gone) = hosts.introduce(at(1), Epoch(9), who(2), 7);
        assert!(new && two != one && gone.is_none());
        let (_, _, gone) = hosts.introduce(at(2), Epoch(9), who(2), 7);
        assert_eq!(gone, Some(one), "nothing leads there any more");
    }

    #[test]
    fn what_was_missed_is_kept_and_does_not_grow_for_ever() {
        let mut hosts = Hosts::default();
        let (id, ..) = hosts.introduce(at(1), Epoch(1), who(1), 0);
        let file = |vnode| FileId::new(1, vnode, 1);
        hosts.missed(id, [file(1)]);
        hosts.missed(id, [file(2), file(1)]);
        let down = hosts.get(id).unwrap().down.clone();
        assert_eq!(down, Some(Delayed::Files(BTreeSet::from([file(1), file(2)]))));
        hosts.missed(id, (0..1000).map(file));
        assert_eq!(hosts.get(id).unwrap().down, Some(Delayed::All));
        hosts.caught_up(id);
        assert_eq!(hosts.get(id).unwrap().down, None);
    }
}
