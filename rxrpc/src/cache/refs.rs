//! Usage counts and the references made of them: all atomics of the scheme are here and in `bell`.
//!
//! The machine: the usage count and the time of the last put share **one word**, so the compare-and-swap that retires a
//! connection is against both. A connection that was taken and put back between the reaper's look and its swap has
//! another stamp, and the swap fails: no connection is reaped sooner than its full expiry after its last put, and there
//! is no order of two stores to get wrong. The allowed changes of the count are
//!
//! | change | who | how |
//! |---|---|---|
//! | (new) -> 2 | creator | one for the list, one for the creator |
//! | n -> n+1, n > 0 | `get_live` from a tree, `get` from a reference | never from 0 |
//! | n -> n-1, n > 1 | `put` | stamps the time in the same change |
//! | 1 -> 0 | reaper | compare-and-swap against the word it judged |
//!
//! and 0 is for ever.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc as StdArc;

use super::bell::Bell;
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering};

/// Something that can live in the cache.
pub trait Cached {
    /// Its reference count, stamps and flags, made by [`List::life`](super::List::life).
    fn life(&self) -> &Life;
}

/// A reference that keeps a connection from being retired. Cloning takes another, dropping puts it.
///
/// Dropping takes no lock: it is one compare-and-swap, and a call to the host if the reaper asked for it.
pub struct Ref<T: Cached> {
    conn: Arc<T>,
    put_ms: Option<u64>,
}

impl<T: Cached> Ref<T> {
    /// The creator's reference, which the count of a new `Life` already includes.
    pub(super) fn first(conn: Arc<T>) -> Self {
        Self { conn, put_ms: None }
    }

    /// Takes a reference to a connection that the caller merely knows of, unless it is dying.
    ///
    /// For tables other than [`Tree`](super::Tree), such as one by connection id for what is received.
    pub fn get_live(conn: &Arc<T>) -> Option<(Self, Was)> {
        let was = conn.life().usage.get_live()?;
        Some((
            Self {
                conn: Arc::clone(conn),
                put_ms: None,
            },
            was,
        ))
    }

    /// The connection's memory. It says nothing about life: use [`get_live`](Self::get_live) to come back.
    pub fn shared(this: &Self) -> &Arc<T> {
        &this.conn
    }

    /// True if both refer to the same connection.
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        Arc::ptr_eq(&this.conn, &other.conn)
    }

    /// Takes another reference, for the connection itself to keep while it is busy.
    pub fn hold(this: &Self) -> Hold {
        this.conn.life().usage.get();
        Hold(())
    }

    /// The reference that this connection has kept.
    pub fn let_go(this: &Self, hold: Hold) -> Self {
        let Hold(()) = hold;
        Self {
            conn: Arc::clone(&this.conn),
            put_ms: None,
        }
    }

    /// Puts the reference at a time the caller knows, which saves asking the host for it.
    pub fn put_at(mut this: Self, now_ms: u64) {
        this.put_ms = Some(now_ms);
    }
}

impl<T: Cached> Deref for Ref<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.conn
    }
}

impl<T: Cached> Clone for Ref<T> {
    fn clone(&self) -> Self {
        self.conn.life().usage.get();
        Self {
            conn: Arc::clone(&self.conn),
            put_ms: None,
        }
    }
}

impl<T: Cached> Drop for Ref<T> {
    fn drop(&mut self) {
        // After the put the connection may be retired at any moment; the Arc in `self` keeps the memory until the end.
        let life = self.conn.life();
        let now_ms = self.put_ms.unwrap_or_else(|| life.bell.now_ms());
        if life.usage.put(now_ms) == Put::Idle {
            life.bell.became_idle();
        }
    }
}

impl<T: Cached> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ref").field(self.conn.life()).finish()
    }
}

/// A reference that a connection keeps to itself. It counts like any other, so the connection is not retired and stays on
/// its list; that has the memory. If it had the memory too, a connection that is busy would outlive its list, for ever.
///
/// Given back by [`Ref::let_go`]; dropped, it counts for ever.
#[derive(Debug)]
#[must_use = "dropped, it counts for ever"]
pub struct Hold(());

/// What the cache keeps in each connection.
pub struct Life {
    pub(super) usage: Usage,
    /// In the client tree. Changed only under the lock of that tree's shard.
    pub(super) in_client: Flag,
    /// In the service tree. Changed only under the lock of that tree's shard.
    pub(super) in_service: Flag,
    /// On the list. Changed only under the list's lock.
    pub(super) listed: Flag,
    /// Changed only by its owner, under a lock of the owner's.
    brief: Flag,
    born_ms: u64,
    bell: StdArc<Bell>,
}

impl Life {
    pub(super) fn new(now_ms: u64, bell: StdArc<Bell>) -> Self {
        Self {
            usage: Usage::new(now_ms),
            in_client: Flag::new(),
            in_service: Flag::new(),
            listed: Flag::new(),
            brief: Flag::new(),
            born_ms: now_ms,
            bell,
        }
    }

    /// The usage count just now: 0 dying, 1 idle, more in use. For looking only; nothing may be decided by it.
    pub fn usage(&self) -> u64 {
        self.usage.load().count()
    }

    /// When a reference was last put (or, before the first put, when it was made).
    pub fn idle_since_ms(&self) -> u64 {
        self.usage.load().stamp_ms()
    }

    /// When it was made.
    pub fn born_ms(&self) -> u64 {
        self.born_ms
    }

    /// True if only the list holds it.
    pub fn is_idle(&self) -> bool {
        self.usage() == IDLE
    }

    /// True once the reaper has retired it.
    pub fn is_dying(&self) -> bool {
        self.usage() == DYING
    }

    /// True while it is the one in the client tree.
    pub fn in_client(&self) -> bool {
        self.in_client.is_set()
    }

    /// True while it is the one in the service tree.
    pub fn in_service(&self) -> bool {
        self.in_service.is_set()
    }

    /// Has it reaped after the fast expiry, until [`keep`](Self::keep).
    pub fn hurry(&self) {
        self.brief.set();
    }

    /// Takes back [`hurry`](Self::hurry).
    pub fn keep(&self) {
        self.brief.test_and_clear();
    }

    /// True while the fast expiry is for it.
    pub fn is_brief(&self) -> bool {
        self.brief.is_set()
    }

    /// True while it is on its list.
    pub fn is_listed(&self) -> bool {
        self.listed.is_set()
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.usage.load();
        f.debug_struct("Life")
            .field("usage", &seen.count())
            .field("idle_since_ms", &seen.stamp_ms())
            .field("born_ms", &self.born_ms)
            .field("in_client", &self.in_client())
            .field("in_service", &self.in_service())
            .field("listed", &self.is_listed())
            .finish()
    }
}

/// The usage count and the time of the last put, in one word: count in the low 24 bits, milliseconds in the high 40.
///
/// Misuse is a panic in debug builds. In release builds a put too many changes nothing, and a count that reaches its
/// maximum stays there for ever: the connection is then never retired, which is the safe way to be wrong.
pub(super) struct Usage(pub(super) AtomicU64);

impl Usage {
    /// A new count of 2: one for the list, one for the creator.
    pub(super) fn new(now_ms: u64) -> Self {
        Self(AtomicU64::new(Seen::new(NEW, now_ms).0))
    }

    /// Increments unless zero. `None`: it is dying and must be replaced.
    pub(super) fn get_live(&self) -> Option<Was> {
        // Acquire on success: pairs with the Release of `put`; whoever revives a connection sees all that earlier users
        // did with it before they let go. Relaxed on failure: a dying connection is not looked into.
        let before = self
            .0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| Seen(word).more());
        match Seen(before.ok()?).count() {
            IDLE => Some(Was::Idle),
            _ => Some(Was::InUse),
        }
    }

    /// Increments on behalf of a caller that owns a reference.
    pub(super) fn get(&self) {
        // Relaxed: the caller's own reference already gives it sight of the connection, and an increment publishes
        // nothing. It is part of the release sequence of earlier puts, as every read-modify-write is.
        let before = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| Seen(word).more());
        debug_assert!(
            before.is_ok(),
            "reference taken from a dying connection: {self:?}"
        );
    }

    /// Decrements and stamps the time in the same change; the caller's reference is gone.
    pub(super) fn put(&self, now_ms: u64) -> Put {
        // Release on success: publishes what this user did to the connection to the reaper (Acquire in `retire`), which
        // tears it down, and to the next user (Acquire in `get_live`). The stamp needs no order: it is in the word.
        // Relaxed on failure: the loop only looks at the word.
        let before = self.0.fetch_update(Ordering::Release, Ordering::Relaxed, |word| {
            Seen(word).less(now_ms)
        });
        // Not while unwinding: a second panic would hide the first.
        debug_assert!(
            before.is_ok() || std::thread::panicking(),
            "put of a reference that nobody owned: {self:?}"
        );
        match before {
            Ok(word) if Seen(word).count() == NEW => Put::Idle,
            _ => Put::InUse,
        }
    }

    /// Looks at the count and the stamp together.
    pub(super) fn load(&self) -> Seen {
        // Relaxed: count and stamp cannot disagree, and whoever acts on them does so by compare-and-swap against this
        // very word.
        Seen(self.0.load(Ordering::Relaxed))
    }

    /// Flips 1 -> 0, provided nobody took a reference since `seen`, not even for a moment. Else gives the word as it is.
    ///
    /// # Errors
    ///
    /// The present word, when the connection was in use, dying or has come back to life.
    pub(super) fn retire(&self, seen: Seen) -> Result<(), Seen> {
        if seen.count() != IDLE {
            return Err(seen);
        }
        // Acquire on success: pairs with the Release of every put before it (a put's release sequence runs through the
        // gets and puts after it), so the teardown sees all that was ever done with the connection. No Release: who
        // sees the 0 looks no further. Relaxed on failure: the caller only reads the word.
        self.0
            .compare_exchange(
                seen.0,
                Seen::new(DYING, seen.stamp_ms()).0,
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .map(|_| ())
            .map_err(Seen)
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.load().fmt(f)
    }
}

/// A usage word at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen(pub(super) u64);

impl Seen {
    pub(super) fn new(count: u64, stamp_ms: u64) -> Self {
        Self(count.min(COUNT_MAX) | (stamp_ms.min(STAMP_MAX) << COUNT_BITS))
    }

    /// The usage count.
    pub(super) fn count(self) -> u64 {
        self.0 & COUNT_MAX
    }

    /// The time of the last put.
    pub(super) fn stamp_ms(self) -> u64 {
        self.0 >> COUNT_BITS
    }

    fn more(self) -> Option<u64> {
        match self.count() {
            DYING => None,
            COUNT_MAX => Some(self.0),
            count => Some(Self::new(count + 1, self.stamp_ms()).0),
        }
    }

    fn less(self, now_ms: u64) -> Option<u64> {
        match self.count() {
            DYING | IDLE => None,
            COUNT_MAX => Some(self.0),
            count => Some(Self::new(count - 1, self.stamp_ms().max(now_ms)).0),
        }
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "usage {} since {} ms", self.count(), self.stamp_ms())
    }
}

/// What a connection was before a reference to it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// Only the list held it: it was revived.
    Idle,
    /// Others held it: it was reused.
    InUse,
}

/// What a connection is after a reference to it was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Put {
    /// Only the list holds it now.
    Idle,
    /// Others still hold it.
    InUse,
}

/// A fact that is changed only under some lock and may be read without it.
pub(super) struct Flag(AtomicBool);

impl Flag {
    fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    // Relaxed throughout: deciding reads and all writes happen under the lock that the field names, which orders them.
    // A read without the lock is a hint.

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Clears it and tells whether it was set.
    pub(super) fn test_and_clear(&self) -> bool {
        let was_set = self.is_set();
        self.0.store(false, Ordering::Relaxed);
        was_set
    }
}

const DYING: u64 = 0;
const IDLE: u64 = 1;
const NEW: u64 = 2;
const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
/// 34 years.
const STAMP_MAX: u64 = u64::MAX >> COUNT_BITS;
