//! The cache under loom: every race of `docs/connection-cache.md`, in every order the memory model allows.
//!
//! The machine: each model is a function over a [`Scheme`], the steps of the cache that the race is about. [`Real`] is
//! the code as shipped and must pass. Each broken scheme does one step wrong and must make the model's own assertion
//! fail: a model that cannot fail proves nothing. The words of the assertion are checked, so that a scheme is not caught
//! for some other reason.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p rxrpc loom`

mod broken;
mod races;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc as StdArc;

use super::bell::Host;
use super::list::{self, Expiry, List, Reaped};
use super::refs::{Cached, Life, Put, Ref, Seen, Was};
use super::tree::{Lookup, Published, Tree};
use crate::sync::{Arc, AtomicU64, Ordering};

/// The steps of the cache, as shipped unless overridden.
trait Scheme: 'static {
    fn get_live(conn: &Conn) -> Option<Was> {
        conn.life.usage.get_live()
    }

    fn put(conn: &Conn, now_ms: u64) -> Put {
        conn.life.usage.put(now_ms)
    }

    fn retire(life: &Life, seen: Seen) -> Result<(), Seen> {
        list::retire(life, seen)
    }

    /// The reaper's look at one connection, as in the walk.
    fn reap_one(conn: &Conn, now_ms: u64, expiry_ms: u64) -> bool {
        let seen = conn.life.usage.load();
        if seen.count() != 1 || seen.stamp_ms() + expiry_ms > now_ms {
            return false;
        }
        let retired = Self::retire(&conn.life, seen).is_ok();
        if !retired {
            met("reap lost");
        }
        retired
    }

    fn lookup(tree: &Tree<Key, Conn>, key: Key) -> Lookup<Conn> {
        tree.lookup(&key)
    }

    /// `None`: the caller is turned away.
    fn publish(cache: &Cache) -> Option<Ref<Conn>> {
        let published = cache.tree.publish(KEY, || cache.create());
        met(match published {
            Published::Found(..) => "found",
            Published::Inserted(_) => "inserted",
            Published::Replaced(_) => "replaced",
        });
        Some(published.into_ref())
    }

    fn replace(cache: &Cache, old: &Conn) -> Ref<Conn> {
        cache.tree.replace(KEY, old, || cache.create()).into_ref()
    }

    fn unpublish(tree: &Tree<Key, Conn>, conn: &Conn) -> bool {
        tree.unpublish(&KEY, conn)
    }

    fn put_in(_cache: &Cache, held: Ref<Conn>) {
        drop(held);
    }

    fn drain(list: &List<Conn>) -> Reaped<Conn> {
        list.drain()
    }

    /// Whether the drainer stays for a connection that was still in use.
    fn stays(left: usize) -> bool {
        left > 0
    }
}

/// The code as shipped.
struct Real;
impl Scheme for Real {}

type Key = u32;

const KEY: Key = 1;
const NOW_MS: u64 = 100;
const EXPIRY: Expiry = Expiry {
    idle_ms: 10,
    fast_ms: 10,
    soft_limit: usize::MAX,
};

struct Conn {
    life: Life,
    /// What users did with it. Loads are relaxed: they show what the usage word's own orderings publish.
    work: AtomicU64,
    /// For schemes that keep the stamp beside the count.
    stamp_ms: AtomicU64,
}

impl Cached for Conn {
    fn life(&self) -> &Life {
        &self.life
    }
}

impl Conn {
    /// Uses it as the owner of a reference.
    fn work(&self) {
        assert!(self.life.usage() >= 2, "reaped although used");
        self.work.fetch_add(1, Ordering::Relaxed);
        assert!(self.life.usage() >= 2, "reaped although used");
    }

    /// How much of its users' work is seen.
    fn work_seen(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }
}

/// Time stands at [`NOW_MS`]; calls are counted.
struct Caller(StdArc<AtomicU64>);

impl Host for Caller {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }

    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Cache {
    list: List<Conn>,
    tree: Tree<Key, Conn>,
    /// How often the reaper was called.
    called: StdArc<AtomicU64>,
    made: AtomicU64,
}

impl Cache {
    fn new() -> Arc<Self> {
        let called = StdArc::new(AtomicU64::new(0));
        let list = List::new(Box::new(Caller(StdArc::clone(&called))));
        Arc::new(Self {
            list,
            tree: Tree::service(),
            called,
            made: AtomicU64::new(0),
        })
    }

    /// With one connection published under the key and idle since 0.
    fn with_idle() -> (Arc<Self>, Arc<Conn>) {
        let cache = Self::new();
        let conn = cache.tree.publish(KEY, || cache.create()).into_ref();
        let memory = Arc::clone(Ref::shared(&conn));
        Ref::put_at(conn, 0);
        (cache, memory)
    }

    fn create(&self) -> Ref<Conn> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let conn = Conn {
            life: self.list.life(0),
            work: AtomicU64::new(0),
            stamp_ms: AtomicU64::new(0),
        };
        self.list.adopt(conn)
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// One round of the reaper; tells how much work was seen on each of the dead.
    fn reap<S: Scheme>(&self) -> Vec<u64> {
        let reaped = self.list.walk(NOW_MS, EXPIRY, S::retire);
        if reaped.lost > 0 {
            met("reap lost");
        }
        reaped.dead.iter().map(|conn| self.bury::<S>(conn)).collect()
    }

    fn bury<S: Scheme>(&self, conn: &Conn) -> u64 {
        let seen = conn.work_seen();
        S::unpublish(&self.tree, conn);
        seen
    }
}

/// Explores the code as shipped: no order may fail, and each outcome must have been met in some order. A model that
/// never gets into the race proves nothing either.
fn passes(outcomes: &[&'static str], model: impl Fn() + Send + Sync + 'static) {
    MET.take();
    explore(model);
    assert_eq!(MET.take(), outcomes.iter().copied().collect(), "outcomes met");
}

/// Explores a broken scheme: some order must fail, in the expected words.
fn caught(words: &str, model: impl Fn() + Send + Sync + 'static) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| explore(model))) else {
        panic!("the broken scheme passed: the model proves nothing");
    };
    let said = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied());
    assert!(
        said.is_some_and(|said| said.contains(words)),
        "caught for another reason: {said:?}"
    );
}

/// All orders with up to three preemptions, which is one more than any of these races needs.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// Notes that an outcome was met. Loom runs all threads of a model on the thread of the test.
fn met(outcome: &'static str) {
    MET.with_borrow_mut(|met| met.insert(outcome));
}

thread_local! {
    static MET: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}
