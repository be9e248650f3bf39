//! Attributes that are set on a file while what was written to it is not stored: they go with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use afs_client::fs::{HandleId, SetAttr};
use afs_client::rpc::Procedure as _;
use afs_client::rpc::fs::{STORE_DATA, StoreStatusOf};
use afs_client::types::Fid;
use rustix::io::Errno;
use testcell::embedded::Cell;
use testcell::embedded::faults::{Action, Calls, Hook, Moment, Rule, When};

use super::client::{Client, FLAGS, cell, refusing, run};
use super::conflicts::{asides, begin};
use super::restart::crashed as copied;

const FILE: &str = "lab.example/work/file";
const LONG_AGO: u64 = 1_000_000_000;

fn time() -> SetAttr {
    SetAttr {
        mtime: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(LONG_AGO)),
        ..SetAttr::default()
    }
}

fn mode(bits: u16) -> SetAttr {
    SetAttr {
        mode: Some(bits),
        ..SetAttr::default()
    }
}

fn owner(user: u32) -> SetAttr {
    SetAttr {
        uid: Some(user),
        ..SetAttr::default()
    }
}

/// A new file, open, with something in it that is not stored.
async fn begun(client: &Client) -> HandleId {
    let dir = client.fid("lab.example/work").await.unwrap();
    let (_, opened) = client.fs.create(dir, b"file", 0o644, FLAGS).await.unwrap();
    client.fs.write(opened.handle, 0, b"data").await.unwrap();
    opened.handle
}

async fn set(client: &Client, set: SetAttr) -> i32 {
    let fid = client.fid(FILE).await.unwrap();
    match client.fs.setattr(fid, set).await {
        Ok(_) => 0,
        Err(error) => error.errno(),
    }
}

/// Mode and time of modification as a client shows them.
async fn shown(client: &Client) -> (u16, u64) {
    let attr = client.attr(FILE).await.unwrap();
    let since = attr.mtime.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    (attr.mode, since.as_secs())
}

/// How often data was stored, and attributes alone.
fn calls(cell: &Cell) -> (u64, u64) {
    let calls = |opcode| cell.calls(1, opcode).unwrap();
    (calls(STORE_DATA), calls(StoreStatusOf::OPCODE))
}

/// Sets attributes while the first store is under way.
fn setting_in_store(client: &Client, fid: Fid, attributes: SetAttr) -> Rule {
    let fs = client.fs.clone();
    let hook: Hook = Arc::new(move || {
        let fs = fs.clone();
        Box::pin(async move { fs.setattr(fid, attributes).await.map(drop).unwrap() })
    });
    let set = Action::Run(Moment::Before, hook);
    Rule::new(When::nth(1), Calls::to(STORE_DATA), [set])
}

/// Whoever sets something waits for one call: that of the data, or of the attributes if there is nothing dirty any more.
#[test]
fn what_is_set_goes_with_the_data() {
    run(async {
        let cell = cell(1).await;
        let (client, other) = (Client::new(&cell).await, Client::new(&cell).await);
        let handle = begun(&client).await;
        assert_eq!(set(&client, mode(0o600)).await, 0);
        assert_eq!(calls(&cell), (1, 0));
        assert_eq!(cell.read("work", "file").unwrap(), b"data");
        assert_eq!(set(&client, time()).await, 0);
        client.fs.flush(handle).await.unwrap();
        assert_eq!(calls(&cell), (1, 1));
        for client in [&client, &other] {
            assert_eq!(shown(client).await, (0o600, LONG_AGO));
        }
        client.fs.release(handle).await;
        for client in [client, other] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// The same errors at the same place, whether the file is dirty or not; the data is stored without what was refused.
#[test]
fn what_may_not_be_set_is_refused_as_of_a_file_that_is_not_dirty() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        for behind in [false, true] {
            let client = if behind {
                Client::behind(&cell, dir.path()).await
            } else {
                Client::new(&cell).await
            };
            // Somebody else's: of their own, people may ask for it, and do not get it.
            cell.write("work", "file", b"").await.unwrap();
            let handle = begin(&client, FILE, 0, b"once").await;
            let before = shown(&client).await.0;
            for text in [b"more", b"last"] {
                for is_dirty in [true, false] {
                    assert_eq!(client.fs.is_dirty(client.fid(FILE).await.unwrap()), is_dirty);
                    assert_eq!(set(&client, owner(77)).await, Errno::PERM.raw_os_error());
                    assert_eq!(set(&client, mode(0o4755)).await, Errno::ACCESS.raw_os_error());
                    client.fs.fsync(handle).await.unwrap();
                }
                client.fs.write(handle, 0, text).await.unwrap();
            }
            client.fs.fsync(handle).await.unwrap();
            assert_eq!(cell.read("work", "file").unwrap(), b"last");
            assert_eq!(shown(&client).await.0, before);
            client.fs.release(handle).await;
            client.shutdown().await;
            cell.remove("work", "file").await.unwrap();
        }
        cell.shutdown().await;
    });
}

/// `fchmod`, `futimens`, `close`: nobody waits, and one call stores all of it.
#[test]
fn what_is_set_is_stored_behind_with_the_data() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let (client, other) = (Client::behind(&cell, dir.path()).await, Client::new(&cell).await);
        let handle = begun(&client).await;
        assert_eq!(set(&client, mode(0o400)).await, 0);
        assert_eq!(set(&client, time()).await, 0);
        assert_eq!(set(&client, mode(0o600)).await, 0);
        assert_eq!(calls(&cell), (0, 0));
        assert_eq!(shown(&client).await, (0o600, LONG_AGO));
        assert_eq!(shown(&other).await.0, 0o644);
        client.close_behind(handle).await;
        assert_eq!(calls(&cell), (1, 0));
        for client in [&client, &other] {
            assert_eq!(client.read(FILE).await.unwrap(), "data");
            assert_eq!(shown(client).await, (0o600, LONG_AGO));
        }
        // Of a file that is not dirty the server is asked.
        assert_eq!(set(&client, mode(0o640)).await, 0);
        assert_eq!(calls(&cell), (1, 1));
        for client in [client, other] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// A time belongs to what was written before it was set.
#[test]
fn what_is_written_later_has_a_later_time() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let client = Client::behind(&cell, dir.path()).await;
        let handle = begun(&client).await;
        assert_eq!(set(&client, time()).await, 0);
        client.fs.write(handle, 0, b"late").await.unwrap();
        client.close_behind(handle).await;
        assert!(shown(&client).await.1 > LONG_AGO);
        assert_eq!(calls(&cell), (1, 0));
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// What is set in the middle of a store goes behind it.
#[test]
fn what_is_set_during_a_store_follows_it() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let (client, other) = (Client::behind(&cell, dir.path()).await, Client::new(&cell).await);
        let handle = begun(&client).await;
        let fid = client.fid(FILE).await.unwrap();
        assert_eq!(set(&client, time()).await, 0);
        cell.faults().add(setting_in_store(&client, fid, mode(0o600)));
        client.close_behind(handle).await;
        assert_eq!(calls(&cell), (1, 1));
        assert!(!client.fs.is_dirty(fid));
        for client in [client, other] {
            assert_eq!(shown(&client).await, (0o600, LONG_AGO));
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// The next program stores the data and what was set on it, or what was set alone if the data was stored.
#[test]
fn what_is_set_outlives_the_program() {
    run(async {
        for stored in [0, 1] {
            let cell = cell(1).await;
            let dir = tempfile::tempdir().unwrap();
            let (client, other) = (Client::behind(&cell, dir.path()).await, Client::new(&cell).await);
            let handle = begun(&client).await;
            let fid = client.fid(FILE).await.unwrap();
            let both = SetAttr {
                mtime: time().mtime,
                ..mode(0o600)
            };
            if stored == 0 {
                assert_eq!(set(&client, both).await, 0);
                cell.faults()
                    .add(refusing(When::ALWAYS, STORE_DATA, "VOVERQUOTA"));
            } else {
                cell.faults().add(setting_in_store(&client, fid, both));
                cell.faults()
                    .add(refusing(When::ALWAYS, StoreStatusOf::OPCODE, "VOVERQUOTA"));
            }
            client.close_behind(handle).await;
            assert!(client.fs.is_dirty(fid));
            assert_eq!(cell.read("work", "file").unwrap().len(), 4 * stored);
            assert_eq!(shown(&client).await, (0o600, LONG_AGO));
            assert_eq!(shown(&other).await.0, 0o644);

            let died = copied(dir.path());
            cell.faults().clear();
            let second = Client::behind(&cell, died.path()).await;
            while shown(&other).await != (0o600, LONG_AGO) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert_eq!(other.read(FILE).await.unwrap(), "data");
            assert_eq!(calls(&cell), (if stored == 0 { 2 } else { 1 }, 2 * stored as u64));
            for client in [client, second, other] {
                client.shutdown().await;
            }
            cell.shutdown().await;
        }
    });
}

/// What cannot be stored takes along what was set, and that is told.
#[test]
fn what_is_set_aside_says_what_was_set() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let client = Client::behind(&cell, dir.path()).await;
        let handle = begun(&client).await;
        let fid = client.fid(FILE).await.unwrap();
        assert_eq!(set(&client, mode(0o600)).await, 0);
        assert_eq!(set(&client, time()).await, 0);
        cell.faults().add(refusing(When::ALWAYS, STORE_DATA, "UAEACCES"));
        client.close_behind(handle).await;
        assert!(!client.fs.is_dirty(fid));
        let [(data, about)] = asides(&client).try_into().unwrap();
        assert_eq!(data, b"data");
        assert!(
            about.contains("\nmode set here: 0600\ntime set here: 1000000000 (seconds)\n"),
            "{about}"
        );
        assert_eq!(shown(&client).await.0, 0o644);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// Attributes that wait for a server hide nothing of what others do to the contents, and are told of if they are refused.
#[test]
fn what_waits_alone_leaves_the_contents_to_others() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let (client, other) = (Client::behind(&cell, dir.path()).await, Client::new(&cell).await);
        let handle = begun(&client).await;
        let fid = client.fid(FILE).await.unwrap();
        cell.faults().add(setting_in_store(&client, fid, mode(0o600)));
        cell.faults()
            .add(refusing(When::ALWAYS, StoreStatusOf::OPCODE, "VOVERQUOTA"));
        client.close_behind(handle).await;
        assert!(client.fs.is_dirty(fid));
        other.write(FILE, b"theirs").await.unwrap();
        while client.read(FILE).await.unwrap() != "theirs" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!((shown(&client).await.0, shown(&other).await.0), (0o600, 0o644));
        assert!(asides(&client).is_empty());
        cell.faults().clear();
        cell.faults()
            .add(refusing(When::ALWAYS, StoreStatusOf::OPCODE, "UAEACCES"));
        let again = client.fs.open(fid, FLAGS).await.unwrap().handle;
        client.close_behind(again).await;
        assert!(!client.fs.is_dirty(fid));
        let [(data, about)] = asides(&client).try_into().unwrap();
        assert_eq!(data, b"theirs");
        assert!(about.contains("\nmode set here: 0600\n"), "{about}");
        assert_eq!(shown(&client).await.0, 0o644);
        for client in [client, other] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}
