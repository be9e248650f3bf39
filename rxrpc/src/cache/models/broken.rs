//! Ways to do it wrong, each of which somebody has done. Every scheme breaks one step and leaves the rest as shipped.

use super::*;
use crate::sync::lock;

/// The reaper checks the count and then stores the 0, instead of swapping it if unchanged.
pub(super) struct CheckThenStore;

impl Scheme for CheckThenStore {
    fn retire(life: &Life, seen: Seen) -> Result<(), Seen> {
        let now = life.usage.load();
        if now != seen {
            return Err(now);
        }
        life.usage
            .0
            .store(Seen::new(0, seen.stamp_ms()).0, Ordering::Release);
        Ok(())
    }
}

/// The lookup increments whatever the count is.
pub(super) struct BlindLookup;

impl Scheme for BlindLookup {
    fn lookup(tree: &Tree<Key, Conn>, key: Key) -> Lookup<Conn> {
        let shard = lock(tree.shard(&key));
        let Some(conn) = shard.get(&key) else {
            return Lookup::Absent;
        };
        conn.life.usage.0.fetch_add(1, Ordering::Acquire);
        Lookup::Live(Ref::first(Arc::clone(conn)), Was::InUse)
    }
}

/// Whoever merely knows of a connection - a timer, a table of ids - increments whatever the count is.
pub(super) struct BlindGet;

impl Scheme for BlindGet {
    fn get_live(conn: &Conn) -> Option<Was> {
        let before = Seen(conn.life.usage.0.fetch_add(1, Ordering::Acquire));
        Some(if before.count() == 1 {
            Was::Idle
        } else {
            Was::InUse
        })
    }
}

/// A dying connection keeps its place until the reaper takes it out; whoever comes meanwhile is turned away.
pub(super) struct NoSuperseding;

impl Scheme for NoSuperseding {
    fn publish(cache: &Cache) -> Option<Ref<Conn>> {
        match cache.tree.lookup(&KEY) {
            Lookup::Live(conn, _) => Some(conn),
            Lookup::Dying => None,
            Lookup::Absent => Some(cache.tree.publish(KEY, || cache.create()).into_ref()),
        }
    }
}

/// The publisher searches, lets go of the lock, and inserts without searching again.
pub(super) struct LookupThenInsert;

impl Scheme for LookupThenInsert {
    fn publish(cache: &Cache) -> Option<Ref<Conn>> {
        if let Lookup::Live(conn, _) = cache.tree.lookup(&KEY) {
            return Some(conn);
        }
        Some(insert(cache))
    }
}

/// The replacer does not look whether the connection it found unusable is still the one in the tree.
pub(super) struct ReplaceWhatever;

impl Scheme for ReplaceWhatever {
    fn replace(cache: &Cache, _old: &Conn) -> Ref<Conn> {
        insert(cache)
    }
}

/// Puts a fresh connection in the place of whatever is there.
fn insert(cache: &Cache) -> Ref<Conn> {
    let conn = cache.create();
    let mut shard = lock(cache.tree.shard(&KEY));
    conn.life.in_service.set();
    let displaced = shard.insert(KEY, Arc::clone(Ref::shared(&conn)));
    if let Some(displaced) = &displaced {
        displaced.life.in_service.test_and_clear();
    }
    drop(shard);
    conn
}

/// The stamp is a word of its own, written after the decrement that shows the connection idle.
pub(super) struct StampAfter;

impl Scheme for StampAfter {
    fn put(conn: &Conn, now_ms: u64) -> Put {
        let put = conn.life.usage.put(0);
        conn.stamp_ms.fetch_max(now_ms, Ordering::SeqCst);
        put
    }

    fn reap_one(conn: &Conn, now_ms: u64, expiry_ms: u64) -> bool {
        count_then_stamp(conn, now_ms, expiry_ms)
    }
}

/// The stamp is a word of its own, written before the decrement, but read before the count.
pub(super) struct StampReadFirst;

impl Scheme for StampReadFirst {
    fn put(conn: &Conn, now_ms: u64) -> Put {
        conn.stamp_ms.fetch_max(now_ms, Ordering::SeqCst);
        conn.life.usage.put(0)
    }

    fn reap_one(conn: &Conn, now_ms: u64, expiry_ms: u64) -> bool {
        let stamp_ms = conn.stamp_ms.load(Ordering::SeqCst);
        let seen = conn.life.usage.load();
        seen.count() == 1 && stamp_ms + expiry_ms <= now_ms && conn.life.usage.retire(seen).is_ok()
    }
}

/// The stamp is a word of its own, and written and read in the right order; but the swap is against the count alone, and
/// does not see that the connection was used and put back since the look.
pub(super) struct CountAlone;

impl Scheme for CountAlone {
    fn put(conn: &Conn, now_ms: u64) -> Put {
        conn.stamp_ms.fetch_max(now_ms, Ordering::SeqCst);
        conn.life.usage.put(0)
    }

    fn reap_one(conn: &Conn, now_ms: u64, expiry_ms: u64) -> bool {
        count_then_stamp(conn, now_ms, expiry_ms)
    }
}

fn count_then_stamp(conn: &Conn, now_ms: u64, expiry_ms: u64) -> bool {
    let seen = Seen(conn.life.usage.0.load(Ordering::Acquire));
    let stamp_ms = conn.stamp_ms.load(Ordering::SeqCst);
    seen.count() == 1 && stamp_ms + expiry_ms <= now_ms && conn.life.usage.retire(seen).is_ok()
}

/// The reaper removes by key, whoever is there.
pub(super) struct UnconditionalRemoval;

impl Scheme for UnconditionalRemoval {
    fn unpublish(tree: &Tree<Key, Conn>, conn: &Conn) -> bool {
        conn.life.in_service.test_and_clear();
        let removed = lock(tree.shard(&KEY)).remove(&KEY);
        removed.is_some()
    }
}

/// The flag is tested before the lock of the removal is taken.
pub(super) struct FlagOutsideLock;

impl Scheme for FlagOutsideLock {
    fn unpublish(tree: &Tree<Key, Conn>, conn: &Conn) -> bool {
        if !conn.life.in_service.test_and_clear() {
            return false;
        }
        let removed = lock(tree.shard(&KEY)).remove(&KEY);
        removed.is_some()
    }
}

/// The decrement is a load and a store.
pub(super) struct LoadThenStorePut;

impl Scheme for LoadThenStorePut {
    fn put(conn: &Conn, now_ms: u64) -> Put {
        let seen = conn.life.usage.load();
        conn.life
            .usage
            .0
            .store(Seen::new(seen.count() - 1, now_ms).0, Ordering::Release);
        if seen.count() == 2 { Put::Idle } else { Put::InUse }
    }
}

/// The decrement does not publish what the user did.
pub(super) struct RelaxedPut;

impl Scheme for RelaxedPut {
    fn put(conn: &Conn, _now_ms: u64) -> Put {
        let before = Seen(conn.life.usage.0.fetch_sub(1, Ordering::Relaxed));
        if before.count() == 2 {
            Put::Idle
        } else {
            Put::InUse
        }
    }
}

/// The increment does not take in what earlier users did.
pub(super) struct RelaxedGet;

impl Scheme for RelaxedGet {
    fn get_live(conn: &Conn) -> Option<Was> {
        let more = |word| (Seen(word).count() > 0).then_some(word + 1);
        let before = conn
            .life
            .usage
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        Some(if Seen(before.ok()?).count() == 1 {
            Was::Idle
        } else {
            Was::InUse
        })
    }
}

/// The swap does not take in what the users did.
pub(super) struct RelaxedRetire;

impl Scheme for RelaxedRetire {
    fn retire(life: &Life, seen: Seen) -> Result<(), Seen> {
        let dying = Seen::new(0, seen.stamp_ms());
        life.usage
            .0
            .compare_exchange(seen.0, dying.0, Ordering::Relaxed, Ordering::Relaxed)
            .map(|_| ())
            .map_err(Seen)
    }
}

/// The reaper asks to be called after it has looked, when it may be too late.
pub(super) struct AskAfterWalk;

impl Scheme for AskAfterWalk {
    fn drain(list: &List<Conn>) -> Reaped<Conn> {
        let reaped = drain_without_asking(list);
        list.bell.ask();
        reaped
    }
}

/// The reaper asks before it looks, but nothing keeps the look from being done first.
pub(super) struct AskWithoutFence;

impl Scheme for AskWithoutFence {
    fn drain(list: &List<Conn>) -> Reaped<Conn> {
        list.bell.asked.store(true, Ordering::Relaxed);
        drain_without_asking(list)
    }
}

fn drain_without_asking(list: &List<Conn>) -> Reaped<Conn> {
    let mut reaped = Reaped {
        dead: Vec::new(),
        lost: 0,
        next_ms: None,
        left: 0,
        shortest_ms: u64::MAX,
    };
    let now = Expiry {
        idle_ms: 0,
        fast_ms: 0,
        soft_limit: usize::MAX,
    };
    let end = list.slice(0, u64::MAX, now, list::retire, &mut reaped);
    assert!(end.is_none());
    reaped
}

/// The drainer takes what is idle and leaves.
pub(super) struct OneRound;

impl Scheme for OneRound {
    fn stays(_left: usize) -> bool {
        false
    }
}

/// The put takes the list's lock, to note the new state there.
pub(super) struct LockingPut;

impl Scheme for LockingPut {
    fn put_in(cache: &Cache, held: Ref<Conn>) {
        let _noted = lock(&cache.list.entries);
        drop(held);
    }
}
