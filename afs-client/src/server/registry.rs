//! All file servers, by identity and by address.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::RwLock;

use super::{Server, ServerId};

/// The port of file servers.
const FILE_PORT: u16 = 7000;
/// Most addresses learnt from calls that named their server.
const LEARNT_MAX: usize = 1024;

/// All file servers of all cells.
#[derive(Debug)]
pub struct Servers {
    /// Taken before the lock of a server.
    known: RwLock<Known>,
    port: u16,
    spread: AtomicU32,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<ServerId, Arc<Server>>,
    by_address: HashMap<Ipv4Addr, Arc<Server>>,
    /// Addresses that the location database does not list, seen in calls of the server.
    learnt: HashMap<Ipv4Addr, Arc<Server>>,
}

/// Who sent a call.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A server we know.
    Server(Arc<Server>),
    /// Nobody we know. A break from there is applied all the same: it can only cost a status fetch, while leaving it out
    /// can cost coherence when a server speaks from an address it has not registered.
    Stranger(SocketAddrV4),
}

impl Servers {
    /// No servers yet. `seed` is random and decides the order of servers of equal rank.
    #[must_use]
    pub fn new(seed: u32) -> Self {
        Self::with_port(seed, FILE_PORT)
    }

    /// No servers yet, and those to come listen on another port than 7000.
    #[must_use]
    pub fn with_port(seed: u32, port: u16) -> Self {
        Self {
            known: RwLock::default(),
            port,
            spread: AtomicU32::new(seed),
        }
    }

    /// The server with this identity.
    #[must_use]
    pub fn by_id(&self, id: &ServerId) -> Option<Arc<Server>> {
        self.known.read().by_id.get(id).cloned()
    }

    /// The server that has, or once spoke from, this address.
    #[must_use]
    pub fn by_address(&self, address: Ipv4Addr) -> Option<Arc<Server>> {
        let known = self.known.read();
        known
            .by_address
            .get(&address)
            .or_else(|| known.learnt.get(&address))
            .cloned()
    }

    /// Who sent a call from `peer`. The port says nothing: it may have been changed on the way.
    #[must_use]
    pub fn origin(&self, peer: SocketAddrV4) -> Origin {
        self.by_address(*peer.ip())
            .map_or(Origin::Stranger(peer), Origin::Server)
    }

    /// The server with this identity, made if need be, at exactly these addresses from now on.
    pub fn place(&self, id: ServerId, list_version: Option<i32>, addresses: &[Ipv4Addr]) -> Arc<Server> {
        let peers: Vec<_> = addresses
            .iter()
            .map(|address| SocketAddrV4::new(*address, self.port))
            .collect();
        let mut known = self.known.write();
        let server = known
            .by_id
            .entry(id)
            .or_insert_with(|| Arc::new(Server::new(id, &[], self.random())));
        let server = Arc::clone(server);
        let before = server.addresses();
        server.set_addresses(list_version, &peers);
        let after = server.addresses();
        for gone in before.iter().filter(|peer| !after.contains(peer)) {
            if known
                .by_address
                .get(gone.ip())
                .is_some_and(|owner| Arc::ptr_eq(owner, &server))
            {
                known.by_address.remove(gone.ip());
            }
        }
        for peer in after {
            known.by_address.insert(*peer.ip(), Arc::clone(&server));
        }
        server
    }

    /// Notes that a call from `address` named `server` as its sender. The address is not called, only recognised.
    pub fn learn(&self, address: Ipv4Addr, server: &Arc<Server>) {
        let mut known = self.known.write();
        if !known.by_address.contains_key(&address) && known.learnt.len() < LEARNT_MAX {
            known.learnt.insert(address, Arc::clone(server));
        }
    }

    /// All servers.
    #[must_use]
    pub fn list(&self) -> Vec<Arc<Server>> {
        self.known.read().by_id.values().cloned().collect()
    }

    /// The next of a sequence that visits all residues, from the seed on.
    fn random(&self) -> u32 {
        self.spread.fetch_add(0x9e37_79b9, Ordering::Relaxed) >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const TWO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const THREE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

    fn is(found: Option<Arc<Server>>, server: &Arc<Server>) -> bool {
        found.is_some_and(|found| Arc::ptr_eq(&found, server))
    }

    #[test]
    fn servers_are_found_by_any_address() {
        let servers = Servers::new(1);
        let (a, b) = (ServerId::Address(ONE), ServerId::Address(THREE));
        let one = servers.place(a, Some(1), &[ONE, TWO]);
        assert!(is(servers.by_id(&a), &one) && is(servers.by_address(TWO), &one));
        assert_eq!(
            one.addresses(),
            [SocketAddrV4::new(ONE, 7000), SocketAddrV4::new(TWO, 7000)]
        );

        // An address that moves to another server leads there, whatever order the lists arrive in.
        let other = servers.place(b, None, &[TWO, THREE]);
        assert!(is(servers.by_address(TWO), &other));
        assert!(Arc::ptr_eq(&servers.place(a, Some(2), &[ONE]), &one));
        assert!(is(servers.by_address(TWO), &other) && is(servers.by_address(ONE), &one));
        assert_eq!(servers.list().len(), 2);
    }

    #[test]
    fn strangers_become_known_by_naming_themselves() {
        let servers = Servers::new(1);
        let one = servers.place(ServerId::Address(ONE), None, &[ONE]);
        let odd = SocketAddrV4::new(TWO, 31_234);
        assert!(matches!(servers.origin(odd), Origin::Stranger(peer) if peer == odd));
        servers.learn(TWO, &one);
        assert!(matches!(servers.origin(odd), Origin::Server(server) if Arc::ptr_eq(&server, &one)));
        assert_eq!(one.addresses().len(), 1);
    }
}
