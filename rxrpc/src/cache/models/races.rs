//! The races, one model each, and below each the schemes that must fail it.

use loom::thread;

use super::broken::*;
use super::*;

/// Lookup against reaper (19.3-1, 19.3-10): whoever comes is served by a living connection, the old one if it was
/// quicker than the reaper, a fresh one otherwise.
fn lookup_meets_reaper<S: Scheme>() {
    let (cache, old) = Cache::with_idle();
    let reaper = thread::spawn({
        let cache = Arc::clone(&cache);
        move || cache.reap::<S>()
    });
    let conn = match S::lookup(&cache.tree, KEY) {
        Lookup::Live(conn, _) => {
            met("revived");
            Some(conn)
        }
        Lookup::Dying => {
            met("refused dying");
            S::publish(&cache)
        }
        Lookup::Absent => {
            met("found absent");
            S::publish(&cache)
        }
    };
    let conn = conn.expect("a caller was turned away because the connection was dying");
    conn.work();
    let revived = std::ptr::eq(&raw const *conn, &raw const *old);
    drop(conn);
    let dead = reaper.join().expect("reaper");
    assert_eq!(
        dead.len(),
        usize::from(!revived),
        "reaped although used, or replaced although alive"
    );
    assert!(dead.iter().all(|work| *work == 0));
    assert!(
        matches!(cache.tree.lookup(&KEY), Lookup::Live(..)),
        "what was used just now is gone"
    );
}

#[test]
fn loom_lookup_reap() {
    passes(
        &[
            "revived",
            "refused dying",
            "found absent",
            "replaced",
            "inserted",
            "reap lost",
        ],
        lookup_meets_reaper::<Real>,
    );
}

#[test]
fn loom_lookup_reap_catches_check_then_store() {
    caught("reaped although used", lookup_meets_reaper::<CheckThenStore>);
}

#[test]
fn loom_lookup_reap_catches_lookup_without_increment_unless_zero() {
    caught("reaped although used", lookup_meets_reaper::<BlindLookup>);
}

#[test]
fn loom_lookup_reap_catches_turning_away_from_the_dying() {
    caught("turned away", lookup_meets_reaper::<NoSuperseding>);
}

/// Two publishers of one key whose connection is dying, while the reaper takes that one out (19.3-4).
fn two_publishers<S: Scheme>() {
    let (cache, old) = Cache::with_idle();
    let dead = cache.list.walk(NOW_MS, EXPIRY, S::retire).dead;
    assert_eq!(dead.len(), 1);
    let publish = || {
        let cache = Arc::clone(&cache);
        move || {
            let conn = S::publish(&cache).expect("turned away");
            conn.work();
            conn
        }
    };
    let (one, two) = (thread::spawn(publish()), thread::spawn(publish()));
    S::unpublish(&cache.tree, &old);
    drop(dead);
    let (one, two) = (one.join().expect("one"), two.join().expect("two"));
    assert!(Ref::ptr_eq(&one, &two), "two connections under one key");
    assert_eq!(cache.made(), 2, "more candidates than needed");
    assert!(one.life.in_service() && !old.life.in_service());
    assert_eq!(one.life.usage(), 3, "list and two users");
}

#[test]
fn loom_two_publishers() {
    passes(&["found", "inserted", "replaced"], two_publishers::<Real>);
}

#[test]
fn loom_two_publishers_catches_search_and_insert_under_two_locks() {
    caught(
        "two connections under one key",
        two_publishers::<LookupThenInsert>,
    );
}

/// A connection that a timer or a table of ids merely knows of is used and put back while the reaper judges it by an old
/// stamp (19.3-2, 19.3-7, 19.3-13): what was put just now is not reaped, and what is reaped is not used.
fn put_meets_reaper<S: Scheme>() {
    let (cache, conn) = Cache::with_idle();
    let user = || {
        let conn = Arc::clone(&conn);
        move || {
            let got = S::get_live(&conn).is_some();
            if got {
                conn.work();
                S::put(&conn, NOW_MS);
            }
            got
        }
    };
    let (one, two) = (thread::spawn(user()), thread::spawn(user()));
    let retired = S::reap_one(&conn, NOW_MS, EXPIRY.idle_ms);
    let (one, two) = (one.join().expect("one"), two.join().expect("two"));
    met(if retired {
        "reaped before use"
    } else {
        "used before"
    });
    assert!(
        !retired || !(one || two),
        "reaped sooner than its expiry after the last put"
    );
    assert!(retired || (one && two), "a user was refused a living connection");
    assert_eq!(conn.life.usage(), u64::from(!retired));
    drop(cache);
}

#[test]
fn loom_put_reap_fresh_stamp() {
    passes(
        &["reaped before use", "reap lost", "used before"],
        put_meets_reaper::<Real>,
    );
}

#[test]
fn loom_put_reap_catches_a_get_from_zero() {
    caught("reaped although used", put_meets_reaper::<BlindGet>);
}

#[test]
fn loom_put_reap_catches_stamp_after_decrement() {
    caught("reaped sooner", put_meets_reaper::<StampAfter>);
}

#[test]
fn loom_put_reap_catches_stamp_read_before_count() {
    caught("reaped sooner", put_meets_reaper::<StampReadFirst>);
}

#[test]
fn loom_put_reap_catches_swap_of_the_count_alone() {
    caught("reaped sooner", put_meets_reaper::<CountAlone>);
}

/// The reaper against a publisher who supersedes what it reaps (19.3-3): the replacement stays.
fn replaced_then_unpublished<S: Scheme>() {
    let (cache, _old) = Cache::with_idle();
    let reaper = thread::spawn({
        let cache = Arc::clone(&cache);
        move || cache.reap::<S>()
    });
    let conn = S::publish(&cache).expect("turned away");
    conn.work();
    let dead = reaper.join().expect("reaper");
    assert_eq!(cache.made(), 1 + dead.len() as u64);
    match cache.tree.lookup(&KEY) {
        Lookup::Live(found, Was::InUse) => assert!(Ref::ptr_eq(&found, &conn)),
        other => panic!("the replacement was removed in its predecessor's name: {other:?}"),
    }
    assert!(conn.life.in_service());
}

#[test]
fn loom_replaced_then_unpublished() {
    passes(
        &["found", "inserted", "replaced", "reap lost"],
        replaced_then_unpublished::<Real>,
    );
}

#[test]
fn loom_replaced_then_unpublished_catches_unconditional_removal() {
    caught(
        "in its predecessor's name",
        replaced_then_unpublished::<UnconditionalRemoval>,
    );
}

#[test]
fn loom_replaced_then_unpublished_catches_flag_tested_outside_the_lock() {
    caught(
        "in its predecessor's name",
        replaced_then_unpublished::<FlagOutsideLock>,
    );
}

/// Two callers find the same living connection unusable: it is superseded once.
fn two_replacers<S: Scheme>() {
    let (cache, old) = Cache::with_idle();
    let (held, _) = Ref::get_live(&old).expect("alive");
    let replace = || {
        let (cache, held) = (Arc::clone(&cache), held.clone());
        move || S::replace(&cache, &held)
    };
    let (one, two) = (thread::spawn(replace()), thread::spawn(replace()));
    let (one, two) = (one.join().expect("one"), two.join().expect("two"));
    assert!(Ref::ptr_eq(&one, &two), "two connections under one key");
    assert!(one.life.in_service() && !old.life.in_service());
    assert_eq!(old.life.usage(), 2, "list and holder");
}

#[test]
fn loom_two_replacers() {
    passes(&[], two_replacers::<Real>);
}

#[test]
fn loom_two_replacers_catches_replacing_whatever_is_there() {
    caught("two connections under one key", two_replacers::<ReplaceWhatever>);
}

/// The last two puts against the reaper (19.3-6, 19.3-14): it tears down only after both, sees all that the users did,
/// and finds the connection idle afterwards if it came too early.
fn last_put_meets_reaper<S: Scheme>() {
    let (cache, conn) = Cache::with_idle();
    for _ in 0..2 {
        assert!(S::get_live(&conn).is_some());
    }
    let user = || {
        let conn = Arc::clone(&conn);
        move || {
            conn.work();
            S::put(&conn, 0)
        }
    };
    let (one, two) = (thread::spawn(user()), thread::spawn(user()));
    let early = S::reap_one(&conn, NOW_MS, 0);
    met(if early {
        "after the last put"
    } else {
        "before the last put"
    });
    if early {
        assert_eq!(conn.work_seen(), 2, "torn down under its users' hands");
    }
    let (one, two) = (one.join().expect("one"), two.join().expect("two"));
    assert!(
        (one == Put::Idle) != (two == Put::Idle),
        "not exactly one of the puts was the last"
    );
    assert!(
        early || S::reap_one(&conn, NOW_MS, 0),
        "idle, but cannot be retired"
    );
    assert!(S::get_live(&conn).is_none(), "dying is for ever");
    drop(cache);
}

#[test]
fn loom_last_put() {
    passes(
        &["after the last put", "before the last put"],
        last_put_meets_reaper::<Real>,
    );
}

#[test]
fn loom_last_put_catches_decrement_by_load_and_store() {
    caught(
        "not exactly one of the puts was the last",
        last_put_meets_reaper::<LoadThenStorePut>,
    );
}

#[test]
fn loom_last_put_catches_a_revival_of_the_dying() {
    caught("dying is for ever", last_put_meets_reaper::<BlindGet>);
}

#[test]
fn loom_last_put_catches_a_put_that_publishes_nothing() {
    caught(
        "torn down under its users' hands",
        last_put_meets_reaper::<RelaxedPut>,
    );
}

#[test]
fn loom_last_put_catches_a_retirement_that_acquires_nothing() {
    caught(
        "torn down under its users' hands",
        last_put_meets_reaper::<RelaxedRetire>,
    );
}

/// A connection is revived after its last put: the reviver sees what the last user did.
fn revival_sees_earlier_work<S: Scheme>() {
    let (cache, conn) = Cache::with_idle();
    assert!(S::get_live(&conn).is_some());
    let user = thread::spawn({
        let conn = Arc::clone(&conn);
        move || {
            conn.work();
            S::put(&conn, NOW_MS)
        }
    });
    match S::get_live(&conn) {
        Some(Was::Idle) => {
            met("revived");
            assert_eq!(conn.work_seen(), 1, "revived, but earlier work is not seen");
        }
        _ => met("reused"),
    }
    S::put(&conn, NOW_MS);
    user.join().expect("user");
    drop(cache);
}

#[test]
fn loom_revival() {
    passes(&["reused", "revived"], revival_sees_earlier_work::<Real>);
}

#[test]
fn loom_revival_catches_a_get_that_acquires_nothing() {
    caught(
        "earlier work is not seen",
        revival_sees_earlier_work::<RelaxedGet>,
    );
}

/// Shutdown against users who still hold a connection (19.3-9): the drainer sleeps until called, is called after the last
/// put, and ends with nothing left.
fn shutdown_meets_users<S: Scheme>() {
    let (cache, conn) = Cache::with_idle();
    let user = || {
        let (held, _) = Ref::get_live(&conn).expect("alive");
        move || held.work()
    };
    let (one, two) = (thread::spawn(user()), thread::spawn(user()));
    let mut torn_down = Vec::new();
    let mut drain = || {
        let reaped = S::drain(&cache.list);
        torn_down.extend(reaped.dead.iter().map(|conn| cache.bury::<S>(conn)));
        reaped.left
    };
    let sleeps = S::stays(drain());
    one.join().expect("one");
    two.join().expect("two");
    if sleeps {
        assert!(
            cache.called.load(Ordering::Relaxed) > 0,
            "the drainer sleeps for ever"
        );
        met("called");
        assert_eq!(drain(), 0, "called too early");
    } else {
        met("drained at once");
    }
    assert_eq!(torn_down, [2], "not everything was torn down");
    assert!(cache.tree.is_empty() && cache.list.is_empty());
}

#[test]
fn loom_shutdown() {
    passes(&["drained at once", "called"], shutdown_meets_users::<Real>);
}

#[test]
fn loom_shutdown_catches_asking_after_the_walk() {
    caught("sleeps for ever", shutdown_meets_users::<AskAfterWalk>);
}

#[test]
fn loom_shutdown_catches_asking_without_a_fence() {
    caught("sleeps for ever", shutdown_meets_users::<AskWithoutFence>);
}

#[test]
fn loom_shutdown_catches_leaving_after_one_round() {
    caught("not everything was torn down", shutdown_meets_users::<OneRound>);
}

/// A put while the list's lock is held (19.3-8): it comes to its end without that lock.
fn put_under_the_lists_lock<S: Scheme>() {
    let (cache, conn) = Cache::with_idle();
    let (held, _) = Ref::get_live(&conn).expect("alive");
    let lists_lock = crate::sync::lock(&cache.list.entries);
    let user = thread::spawn({
        let cache = Arc::clone(&cache);
        move || S::put_in(&cache, held)
    });
    met(if conn.life.is_idle() {
        "put under the lock"
    } else {
        "put later"
    });
    drop(lists_lock);
    user.join().expect("user");
    assert!(conn.life.is_idle());
}

#[test]
fn loom_put_takes_no_lock() {
    passes(
        &["put later", "put under the lock"],
        put_under_the_lists_lock::<Real>,
    );
}

#[test]
fn loom_put_takes_no_lock_catches_one_that_does() {
    // The put is never seen before the lock is let go.
    passes(&["put later"], put_under_the_lists_lock::<LockingPut>);
}
