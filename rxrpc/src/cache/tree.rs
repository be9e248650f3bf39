//! Where connections are found.
//!
//! The machine: a map from key to connection that holds *no* reference in the sense of usage, only memory. A lookup
//! takes a reference under the lock unless the connection is dying. Publishing looks up and, if nothing living is there,
//! makes and inserts in one turn of the same lock: of any number of publishers of one key exactly one makes a
//! connection, and all get the same.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::ptr;

use super::refs::{Cached, Flag, Life, Ref, Was};
use crate::sync::{Arc, Mutex, lock};

/// The client tree or the service tree.
///
/// A connection may be in one tree of each kind. Invariant, under the shard's lock: a connection's flag is set if and
/// only if it is the one under its key.
pub struct Tree<K, T> {
    kind: Kind,
    /// Keyed by a random secret, so that a peer cannot choose ids that fall into one bucket.
    hasher: RandomState,
    /// Sharded, because each received packet looks up, on any of several threads; a lock is held for one map operation
    /// and at most one making of a candidate. Lock order: shard, then list.
    shards: [Mutex<Shard<K, T>>; SHARDS],
}

pub(super) type Shard<K, T> = HashMap<K, Arc<T>, RandomState>;

impl<K: Hash + Eq, T: Cached> Tree<K, T> {
    /// The tree in which callers look for a connection to send on.
    pub fn client() -> Self {
        Self::new(Kind::Client)
    }

    /// The tree in which the receive path looks for the connection of a packet.
    pub fn service() -> Self {
        Self::new(Kind::Service)
    }

    fn new(kind: Kind) -> Self {
        let hasher = RandomState::new();
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(hasher.clone())));
        Self { kind, hasher, shards }
    }

    /// Finds a connection and takes a reference to it.
    pub fn lookup(&self, key: &K) -> Lookup<T> {
        let shard = lock(self.shard(key));
        match shard.get(key) {
            None => Lookup::Absent,
            Some(conn) => match Ref::get_live(conn) {
                Some((conn, was)) => Lookup::Live(conn, was),
                None => Lookup::Dying,
            },
        }
    }

    /// Finds the connection or puts a new one in its place, whatever the reaper is doing.
    ///
    /// `candidate` is called at most once and only if its result goes into the tree, so that nothing is made in vain
    /// and what is made is what was created. It runs under the shard's lock: it may adopt into a list, but must not
    /// touch a tree or block.
    pub fn publish(&self, key: K, candidate: impl FnOnce() -> Ref<T>) -> Published<T> {
        self.settle(key, None, candidate)
    }

    /// Puts a new connection in the place of `old`, which lives but can carry no more calls.
    ///
    /// Only if `old` is still the one in the tree: if another caller was quicker, its connection is found as by
    /// [`publish`](Self::publish). `old` is not otherwise touched: its users finish, then it idles away.
    pub fn replace(&self, key: K, old: &T, candidate: impl FnOnce() -> Ref<T>) -> Published<T> {
        self.settle(key, Some(old), candidate)
    }

    fn settle(&self, key: K, old: Option<&T>, candidate: impl FnOnce() -> Ref<T>) -> Published<T> {
        let mut shard = lock(self.shard(&key));
        match shard.entry(key) {
            Entry::Vacant(vacant) => {
                let conn = candidate();
                self.flag(conn.life()).set();
                vacant.insert(Arc::clone(Ref::shared(&conn)));
                Published::Inserted(conn)
            }
            Entry::Occupied(mut occupied) => {
                let present = occupied.get();
                let unusable = old.is_some_and(|old| ptr::eq(&raw const **present, old));
                if !unusable && let Some((conn, was)) = Ref::get_live(present) {
                    return Published::Found(conn, was);
                }
                let conn = candidate();
                let was_set = self.flag(present.life()).test_and_clear();
                debug_assert!(was_set, "in the tree without its flag: {:?}", present.life());
                self.flag(conn.life()).set();
                let displaced = occupied.insert(Arc::clone(Ref::shared(&conn)));
                // The last reference to its memory may be this one: it must not be torn down under the lock.
                drop(shard);
                drop(displaced);
                Published::Replaced(conn)
            }
        }
    }

    /// Takes `conn` out, unless it is no longer the one in the tree. Tells whether it did.
    pub fn unpublish(&self, key: &K, conn: &T) -> bool {
        let mut shard = lock(self.shard(key));
        // The flag is tested under the lock of the removal: once a replacement has cleared it, what is under the key
        // belongs to somebody else.
        if !self.flag(conn.life()).is_set() {
            return false;
        }
        if !shard
            .get(key)
            .is_some_and(|present| ptr::eq(&raw const **present, conn))
        {
            debug_assert!(
                false,
                "unpublished under a key that is not its own: {:?}",
                conn.life()
            );
            return false;
        }
        self.flag(conn.life()).test_and_clear();
        let removed = shard.remove(key);
        drop(shard);
        drop(removed);
        true
    }

    /// Number of connections in the tree.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn flag<'a>(&self, life: &'a Life) -> &'a Flag {
        match self.kind {
            Kind::Client => &life.in_client,
            Kind::Service => &life.in_service,
        }
    }

    pub(super) fn shard(&self, key: &K) -> &Mutex<Shard<K, T>> {
        // The map inside uses the low bits and the top seven of the same hash: take others.
        let [.., byte, _, _, _] = self.hasher.hash_one(key).to_le_bytes();
        #[expect(clippy::indexing_slicing, reason = "the remainder is below the length")]
        &self.shards[usize::from(byte) % SHARDS]
    }
}

impl<K, T> fmt::Debug for Tree<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What a lookup found.
pub enum Lookup<T: Cached> {
    /// A living connection, and what it was before: idle (now revived) or in use (now reused).
    Live(Ref<T>, Was),
    /// One that the reaper has retired and not yet taken out: publish to supersede it.
    Dying,
    /// Nothing.
    Absent,
}

impl<T: Cached> fmt::Debug for Lookup<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live(conn, was) => f.debug_tuple("Live").field(conn).field(was).finish(),
            Self::Dying => f.write_str("Dying"),
            Self::Absent => f.write_str("Absent"),
        }
    }
}

/// How a publisher came by its connection.
pub enum Published<T: Cached> {
    /// A living one was there, idle (now revived) or in use (now reused). No candidate was made.
    Found(Ref<T>, Was),
    /// Nothing was there: the candidate is now.
    Inserted(Ref<T>),
    /// The candidate superseded one that was dying or, from [`Tree::replace`], unusable.
    Replaced(Ref<T>),
}

impl<T: Cached> Published<T> {
    /// The connection, however come by.
    pub fn into_ref(self) -> Ref<T> {
        match self {
            Self::Found(conn, _) | Self::Inserted(conn) | Self::Replaced(conn) => conn,
        }
    }
}

impl<T: Cached> fmt::Debug for Published<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(conn, was) => f.debug_tuple("Found").field(conn).field(was).finish(),
            Self::Inserted(conn) => f.debug_tuple("Inserted").field(conn).finish(),
            Self::Replaced(conn) => f.debug_tuple("Replaced").field(conn).finish(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Client,
    Service,
}

/// One under loom: more locks would be more schedules, not more behaviour.
const SHARDS: usize = if cfg!(loom) { 1 } else { 16 };
