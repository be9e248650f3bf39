//! The cache on ordinary threads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use super::*;

type Key = u64;

struct Conn {
    life: Life,
    key: Key,
}

impl Cached for Conn {
    fn life(&self) -> &Life {
        &self.life
    }
}

#[derive(Default)]
struct Clock {
    now_ms: AtomicU64,
    woken: AtomicUsize,
}

struct TestHost(Arc<Clock>);

impl Host for TestHost {
    fn now_ms(&self) -> u64 {
        self.0.now_ms.load(SeqCst)
    }

    fn wake(&self) {
        self.0.woken.fetch_add(1, SeqCst);
    }
}

struct Rig {
    clock: Arc<Clock>,
    list: List<Conn>,
    tree: Tree<Key, Conn>,
}

const EXPIRY: Expiry = Expiry {
    idle_ms: 1600,
    fast_ms: 160,
    soft_limit: 900,
};

impl Rig {
    fn new() -> Self {
        let clock = Arc::new(Clock::default());
        Self {
            list: List::new(Box::new(TestHost(clock.clone()))),
            tree: Tree::service(),
            clock,
        }
    }

    fn at(&self, now_ms: u64) -> &Self {
        self.clock.now_ms.store(now_ms, SeqCst);
        self
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms.load(SeqCst)
    }

    fn woken(&self) -> usize {
        self.clock.woken.swap(0, SeqCst)
    }

    fn create(&self, key: Key) -> Ref<Conn> {
        self.list.adopt(Conn {
            life: self.list.life(self.now_ms()),
            key,
        })
    }

    fn publish(&self, key: Key) -> Published<Conn> {
        self.tree.publish(key, || self.create(key))
    }

    fn reap(&self) -> Reaped<Conn> {
        self.list.reap(self.now_ms(), EXPIRY)
    }

    fn bury(&self, dead: Vec<Arc<Conn>>) -> usize {
        dead.iter()
            .filter(|conn| self.tree.unpublish(&conn.key, conn))
            .count()
    }
}

#[test]
fn a_new_connection_is_used_by_its_creator_and_the_list() {
    let rig = Rig::new();
    let conn = rig.at(7).publish(1).into_ref();
    assert_eq!(conn.life.usage(), 2);
    assert_eq!(conn.life.born_ms(), 7);
    assert!(conn.life.in_service() && conn.life.is_listed() && !conn.life.in_client());
    let memory = Arc::clone(Ref::shared(&conn));
    rig.at(9);
    drop(conn);
    assert!(memory.life.is_idle());
    assert_eq!(memory.life.idle_since_ms(), 9);
    assert_eq!((rig.list.len(), rig.list.idle(), rig.tree.len()), (1, 1, 1));
}

#[test]
fn what_a_connection_holds_of_itself_counts_but_goes_with_its_list() {
    let rig = Rig::new();
    let conn = rig.publish(1).into_ref();
    let hold = Ref::hold(&conn);
    Ref::put_at(conn, 0);
    assert!(rig.at(10_000).reap().dead.is_empty(), "it is in use");
    let Lookup::Live(conn, Was::InUse) = rig.tree.lookup(&1) else {
        panic!("not reused")
    };
    drop(Ref::let_go(&conn, hold));
    assert_eq!(conn.life.usage(), 2);
    let _for_ever = Ref::hold(&conn);
    let memory = Arc::downgrade(Ref::shared(&conn));
    drop((conn, rig));
    assert!(memory.upgrade().is_none());
}

#[test]
fn revived_and_reused_are_told_apart() {
    let rig = Rig::new();
    drop(rig.publish(1));
    let Lookup::Live(first, Was::Idle) = rig.tree.lookup(&1) else {
        panic!("not revived")
    };
    let Published::Found(second, Was::InUse) = rig.publish(1) else {
        panic!("not reused")
    };
    assert!(Ref::ptr_eq(&first, &second));
    let third = first.clone();
    assert_eq!(third.life.usage(), 4);
    assert!(matches!(
        Ref::get_live(Ref::shared(&third)),
        Some((_, Was::InUse))
    ));
    assert!(matches!(rig.tree.lookup(&2), Lookup::Absent));
}

#[test]
fn idle_connections_are_reaped_after_their_expiry_and_not_before() {
    let rig = Rig::new();
    drop(rig.at(100).publish(1));
    let early = rig.at(1699).reap();
    assert!(early.dead.is_empty());
    // Due at 1700, but no two walks are closer than a sixteenth of the expiry.
    assert_eq!((early.next_ms, early.left), (Some(1799), 1));
    let due = rig.at(1700).reap();
    assert_eq!((due.dead.len(), due.next_ms, due.left, due.lost), (1, None, 0, 0));
    assert!(due.dead[0].life.is_dying() && !due.dead[0].life.is_listed());
    assert_eq!(rig.bury(due.dead), 1);
    assert!(rig.tree.is_empty() && rig.list.is_empty());
}

#[test]
fn one_in_use_is_never_reaped() {
    let rig = Rig::new();
    let conn = rig.publish(1).into_ref();
    let walk = rig.at(1 << 30).reap();
    assert!(walk.dead.is_empty());
    assert_eq!((walk.next_ms, walk.left, conn.life.usage()), (None, 1, 2));
}

#[test]
fn a_put_stamps_the_callers_time_but_never_goes_back() {
    let rig = Rig::new();
    let conn = rig.at(50).publish(1).into_ref();
    Ref::put_at(conn.clone(), 70);
    assert_eq!(conn.life.idle_since_ms(), 70);
    Ref::put_at(conn.clone(), 60);
    assert_eq!(conn.life.idle_since_ms(), 70);
}

#[test]
fn a_dying_one_is_refused_and_superseded_and_its_successor_stays() {
    let rig = Rig::new();
    drop(rig.publish(1));
    let reaped = rig.at(2000).reap();
    assert!(matches!(rig.tree.lookup(&1), Lookup::Dying));
    assert!(Ref::get_live(&reaped.dead[0]).is_none());
    let Published::Replaced(fresh) = rig.publish(1) else {
        panic!("not replaced")
    };
    assert!(!reaped.dead[0].life.in_service());
    assert_eq!(rig.bury(reaped.dead), 0);
    let Lookup::Live(found, Was::InUse) = rig.tree.lookup(&1) else {
        panic!("the successor was removed")
    };
    assert!(Ref::ptr_eq(&found, &fresh));
}

#[test]
fn an_unusable_one_is_superseded_once() {
    let rig = Rig::new();
    let old = rig.publish(1).into_ref();
    let Published::Replaced(fresh) = rig.tree.replace(1, &old, || rig.create(1)) else {
        panic!("not replaced")
    };
    assert!(!old.life.in_service() && fresh.life.in_service());
    let Published::Found(found, Was::InUse) = rig.tree.replace(1, &old, || rig.create(1)) else {
        panic!("replaced a good one")
    };
    assert!(Ref::ptr_eq(&found, &fresh));
    assert!(!rig.tree.unpublish(&1, &old));
    assert!(rig.tree.unpublish(&1, &fresh));
    assert!(!rig.tree.unpublish(&1, &fresh));
    assert!(matches!(
        rig.tree.replace(1, &fresh, || rig.create(1)),
        Published::Inserted(_)
    ));
    assert_eq!(rig.list.len(), 3);
}

#[test]
fn one_that_nobody_can_find_goes_by_the_fast_expiry() {
    let rig = Rig::new();
    let old = rig.publish(1).into_ref();
    drop(rig.tree.replace(1, &old, || rig.create(1)));
    drop(old);
    let walk = rig.at(160).reap();
    assert_eq!((walk.dead.len(), walk.left), (1, 1));
    assert!(matches!(rig.tree.lookup(&1), Lookup::Live(..)));
}

#[test]
fn above_the_soft_limit_the_fast_expiry_applies_until_below_it() {
    let rig = Rig::new();
    let _ = rig.reap();
    for key in 0..900 {
        drop(rig.publish(key));
    }
    let _ = rig.reap();
    rig.woken();
    for key in 900..1000 {
        drop(rig.publish(key));
    }
    assert_eq!(rig.woken(), 1);
    let walk = rig.at(159).reap();
    assert_eq!((walk.dead.len(), walk.next_ms), (0, Some(169)));
    let walk = rig.at(169).reap();
    assert_eq!((walk.dead.len(), walk.left), (100, 900));
    assert_eq!(rig.bury(walk.dead), 100);
    assert_eq!(rig.tree.len(), 900);
    assert_eq!(rig.woken(), 0);
}

#[test]
fn a_put_wakes_the_reaper_only_when_it_sleeps_without_a_deadline() {
    let rig = Rig::new();
    let (a, b, c) = (
        rig.publish(1).into_ref(),
        rig.publish(2).into_ref(),
        rig.publish(3).into_ref(),
    );
    drop(a.clone());
    assert_eq!(rig.woken(), 0);
    assert_eq!(rig.reap().next_ms, None);
    drop(a.clone());
    assert_eq!(rig.woken(), 0, "still in use");
    drop(a);
    drop(b);
    assert_eq!(rig.woken(), 1, "the first of two is enough");
    assert_eq!(rig.reap().next_ms, Some(1600));
    drop(c);
    assert_eq!(rig.woken(), 0, "it has a deadline");
}

#[test]
fn draining_takes_the_idle_at_once_and_the_rest_when_they_are_put() {
    let rig = Rig::new();
    let held = rig.at(5).publish(1).into_ref();
    drop(rig.publish(2));
    let first = rig.list.drain();
    assert_eq!((first.dead.len(), first.left, first.next_ms), (1, 1, None));
    drop(held);
    assert_eq!(rig.woken(), 1);
    let second = rig.list.drain();
    assert_eq!((second.dead.len(), second.left), (1, 0));
    let late = rig.publish(3);
    assert_eq!(rig.reap().left, 1);
    drop(late);
    assert_eq!(
        (rig.woken(), rig.reap().dead.len()),
        (1, 1),
        "every walk after a drain is a drain"
    );
}

#[test]
fn long_walks_go_in_slices_and_miss_nothing() {
    let rig = Rig::new();
    for key in 0..5000 {
        drop(rig.at(key % 7).publish(key));
    }
    let expiry = Expiry {
        soft_limit: usize::MAX,
        ..EXPIRY
    };
    let walk = rig.list.reap(1603, expiry);
    let young = (0..5000).filter(|key| key % 7 > 3).count();
    assert_eq!((walk.dead.len(), walk.left), (5000 - young, young));
    assert_eq!(walk.next_ms, Some(1703));
    let left: BTreeSet<_> = rig.list.snapshot().iter().map(|conn| conn.key).collect();
    assert_eq!(left.len(), young);
    assert!(left.iter().all(|key| key % 7 > 3));
}

#[test]
fn an_idle_connection_costs_little_memory() {
    assert!(size_of::<Life>() <= 40, "{}", size_of::<Life>());
}

/// Users, a reaper that finds everything expired, and callers that find connections unusable, on a handful of keys.
///
/// Shown: no user ever holds a dying connection, there is never more than one published under a key, every one created
/// is reaped once, and each transition of the scheme really happened.
#[test]
fn storm() {
    const USERS: usize = 4;
    const KEYS: u64 = 3;
    let rig = Rig::new();
    let expiry = Expiry {
        idle_ms: 0,
        fast_ms: 0,
        soft_limit: usize::MAX,
    };
    let seen = Counts::default();
    let stop = AtomicBool::new(false);
    let reaped = AtomicUsize::new(0);
    let lost = AtomicUsize::new(0);
    let step = || {
        let yield_ = rig.list.walk(rig.now_ms(), expiry, retire_slowly);
        lost.fetch_add(yield_.lost, SeqCst);
        reaped.fetch_add(yield_.dead.len(), SeqCst);
        // Long enough now and then for the dying to be met in the tree.
        if !yield_.dead.is_empty() {
            await_turns(4);
        }
        rig.bury(yield_.dead);
    };
    thread::scope(|scope| {
        for user in 0..USERS {
            let (rig, seen, stop) = (&rig, &seen, &stop);
            scope.spawn(move || {
                let mut turn = user as u64;
                while !stop.load(SeqCst) {
                    turn += 1;
                    let now = rig.clock.now_ms.fetch_add(1, SeqCst);
                    let key = turn % KEYS;
                    let dying = matches!(rig.tree.lookup(&key), Lookup::Dying);
                    seen.refused_dying.fetch_add(usize::from(dying), SeqCst);
                    let conn = seen.count(rig.publish(key));
                    assert!(conn.life.usage() >= 2, "{:?}", conn.life);
                    assert_eq!(conn.key, key);
                    if turn.is_multiple_of(64) {
                        let published = rig.tree.replace(key, &conn, || rig.create(key));
                        let fresh = match published {
                            Published::Replaced(fresh) => {
                                seen.unusable.fetch_add(1, SeqCst);
                                fresh
                            }
                            other => seen.count(other),
                        };
                        assert!(!Ref::ptr_eq(&fresh, &conn));
                    }
                    let again = conn.clone();
                    drop(conn);
                    assert!(again.life.usage() >= 2, "{:?}", again.life);
                    // Others get their turn now and then while this one is used, now and then while it is idle.
                    if turn.is_multiple_of(8) {
                        thread::yield_now();
                    }
                    Ref::put_at(again, now);
                    TURNS.fetch_add(1, SeqCst);
                    if turn.is_multiple_of(4) {
                        thread::yield_now();
                    }
                }
            });
        }
        let (step, seen, stop, lost) = (&step, &seen, &stop, &lost);
        for _ in 0..2 {
            scope.spawn(move || {
                while !stop.load(SeqCst) {
                    step();
                }
            });
        }
        for _ in 0..150 {
            thread::sleep(Duration::from_millis(10));
            if seen.all() && lost.load(SeqCst) > 0 {
                break;
            }
        }
        stop.store(true, SeqCst);
    });
    loop {
        let yield_ = rig.list.drain();
        reaped.fetch_add(yield_.dead.len(), SeqCst);
        rig.bury(yield_.dead);
        if yield_.left == 0 {
            break;
        }
    }
    let lost = lost.into_inner();
    assert!(seen.all() && lost > 0, "{seen:?} lost {lost}");
    let made = seen.created.into_inner() + seen.replaced.into_inner() + seen.unusable.into_inner();
    assert_eq!(reaped.into_inner(), made);
    assert!(rig.tree.is_empty());
}

/// Lets others in between the reaper's look and its compare-and-swap, also where there is but one processor.
fn retire_slowly(life: &Life, seen: refs::Seen) -> Result<(), refs::Seen> {
    await_turns(1);
    life.usage.retire(seen)
}

/// Waits until the users of the storm have had some turns, or cannot because they wait for us.
fn await_turns(turns: usize) {
    let start = TURNS.load(SeqCst);
    for _ in 0..50 {
        if TURNS.load(SeqCst).wrapping_sub(start) >= turns {
            return;
        }
        thread::yield_now();
    }
}

static TURNS: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Default)]
struct Counts {
    created: AtomicUsize,
    revived: AtomicUsize,
    reused: AtomicUsize,
    refused_dying: AtomicUsize,
    /// Superseded a dying one.
    replaced: AtomicUsize,
    /// Superseded a living one.
    unusable: AtomicUsize,
}

impl Counts {
    fn count(&self, published: Published<Conn>) -> Ref<Conn> {
        let counter = match &published {
            Published::Found(_, Was::Idle) => &self.revived,
            Published::Found(_, Was::InUse) => &self.reused,
            Published::Inserted(_) => &self.created,
            Published::Replaced(_) => &self.replaced,
        };
        counter.fetch_add(1, SeqCst);
        published.into_ref()
    }

    fn all(&self) -> bool {
        [
            &self.created,
            &self.revived,
            &self.reused,
            &self.refused_dying,
            &self.replaced,
            &self.unusable,
        ]
        .iter()
        .all(|counter| counter.load(SeqCst) > 0)
    }
}
