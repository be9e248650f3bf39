//! A client with its cache on disk ends, or dies, and starts again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use afs_client::rpc::fs::STORE_DATA;
use rxrpc::events::{Event, NullSink, Sink};
use rxrpc::proto::Side;
use testcell::embedded::Cell;
use testcell::embedded::faults::{Action, Calls, Rule, When};

use super::client::{Client, cell, run};
use super::conflicts::{asides, begin};
use super::identities;

/// Counts the calls of a client.
#[derive(Default)]
struct Counted(AtomicU64);

impl Sink for Counted {
    fn event(&self, event: &Event<'_>) {
        if matches!(
            event,
            Event::CallEnded {
                side: Side::Client,
                ..
            }
        ) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn contents(number: usize) -> Vec<u8> {
    format!("file {number} ").repeat(100 + number % 300).into_bytes()
}

/// What was read before is there again, at the price of one question for fifty files. (The issue: fewer than 300 calls for
/// 10,000 files: RESTART_FILES asks for so many, in `make bench'.)
#[test]
fn a_restart_fetches_nothing_again() {
    let files = std::env::var("RESTART_FILES").map_or(400, |files| files.parse::<usize>().unwrap());
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        cell.make_dir("work", "many").await.unwrap();
        for number in 0..files {
            let path = format!("many/f{number}");
            cell.write("work", &path, &contents(number)).await.unwrap();
        }
        cell.symlink("work", "many/link", "f7").await.unwrap();
        let path = |number| format!("lab.example/work/many/f{number}");
        let first = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        for number in 0..files {
            assert_eq!(first.read(&path(number)).await.unwrap(), contents(number));
        }
        let link = first.fid("lab.example/work/many/link").await.unwrap();
        assert_eq!(first.fs.readlink(link).await.unwrap(), "f7");
        first.shutdown().await;
        drop(first);

        let fetched = || cell.calls(1, FETCH_DATA).unwrap();
        let before = fetched();
        let calls = Arc::new(Counted::default());
        let second = Client::on_disk(&cell, dir.path(), Arc::clone(&calls) as Arc<dyn Sink>).await;
        for number in 0..files {
            assert_eq!(second.read(&path(number)).await.unwrap(), contents(number));
        }
        let link = second.fid("lab.example/work/many/link").await.unwrap();
        assert_eq!(second.fs.readlink(link).await.unwrap(), "f7");
        // Nothing was fetched: not data, nor directories, links and mount points.
        assert_eq!(fetched(), before);
        let calls = calls.0.load(Ordering::Relaxed);
        eprintln!("{files} files read again with {calls} calls");
        assert!(calls <= files as u64 / 50 + 12, "{calls} calls");
        second.shutdown().await;
        cell.shutdown().await;
    });
}

/// What changed while the client was away is seen.
#[test]
fn what_changed_meanwhile_is_fetched() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        for name in ["same", "other", "gone"] {
            cell.write("work", name, b"before").await.unwrap();
        }
        let path = |name: &str| format!("lab.example/work/{name}");
        let first = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        for name in ["same", "other", "gone"] {
            assert_eq!(first.read(&path(name)).await.unwrap(), "before");
        }
        first.shutdown().await;
        drop(first);
        cell.write("work", "other", b"behind").await.unwrap();
        cell.write("work", "new", b"behind").await.unwrap();
        cell.remove("work", "gone").await.unwrap();
        let second = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        assert_eq!(second.read(&path("same")).await.unwrap(), "before");
        assert_eq!(second.read(&path("other")).await.unwrap(), "behind");
        assert_eq!(second.read(&path("new")).await.unwrap(), "behind");
        assert!(second.read(&path("gone")).await.is_err());
        second.shutdown().await;
        cell.shutdown().await;
    });
}

/// A cell of the same name with the same numbers and versions is another cell all the same.
#[test]
fn another_cell_of_that_name_gets_nothing() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let read = async |data: &'static str| {
            let cell = cell(1).await;
            cell.write("work", "note", data.as_bytes()).await.unwrap();
            let client = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
            let read = client.read("lab.example/work/note").await.unwrap();
            client.shutdown().await;
            cell.shutdown().await;
            read
        };
        assert_eq!(read("of one").await, "of one");
        // The file server counts in seconds when a file changed last.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(read("of two").await, "of two");
    });
}

const NOTE: &str = "lab.example/work/note";

/// What a cache directory holds at this moment: a client that starts on it is one after a crash.
pub(super) fn crashed(dir: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        for entry in std::fs::read_dir(from).unwrap() {
            let (from, to) = (
                entry.as_ref().unwrap().path(),
                to.join(entry.unwrap().file_name()),
            );
            if from.is_dir() {
                std::fs::create_dir(&to).unwrap();
                copy(&from, &to);
            } else {
                std::fs::copy(from, to).unwrap();
            }
        }
    }
    let copied = tempfile::tempdir().unwrap();
    copy(dir, copied.path());
    copied
}

/// Waits until the server holds a file with these contents.
async fn arrives(cell: &Cell, expected: &[u8]) {
    while cell.read("work", "note").unwrap() != expected {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn nothing_waits(client: &Client) {
    while !client.fs.kept_files().waiting.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Written and not closed: it is brought to the server at the next start, and only that.
#[test]
fn what_was_not_stored_is_stored_after_a_crash() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", b"in the beginning").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let first = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        begin(&first, NOTE, 3, b"ONE").await;
        let dir = crashed(dir.path());
        let second = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        arrives(&cell, b"in ONE beginning").await;
        nothing_waits(&second).await;
        assert_eq!(second.read(NOTE).await.unwrap(), "in ONE beginning");
        second.shutdown().await;
        drop(second);
        // It is not done twice.
        cell.write("work", "note", b"later").await.unwrap();
        let third = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        assert_eq!(third.read(NOTE).await.unwrap(), "later");
        assert_eq!(third.fs.kept_files(), afs_client::fs::KeptState::default());
        third.shutdown().await;
        cell.shutdown().await;
    });
}

/// The same with a cache that is encrypted, and a key that is given again; with another one it is not touched.
#[test]
fn an_encrypted_cache_is_recovered_with_its_key() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", b"in the beginning").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, [7; 32]).unwrap();
        let cache = dir.path().join("cache");
        let first = Client::on_encrypted_disk(&cell, &cache, &key).await;
        begin(&first, NOTE, 3, b"ONE").await;
        let died = crashed(&cache);
        let second = Client::on_encrypted_disk(&cell, died.path(), &key).await;
        arrives(&cell, b"in ONE beginning").await;
        nothing_waits(&second).await;
        second.shutdown().await;
        drop(second);
        let fetched = cell.calls(1, FETCH_DATA).unwrap();
        let third = Client::on_encrypted_disk(&cell, died.path(), &key).await;
        assert_eq!(third.read(NOTE).await.unwrap(), "in ONE beginning");
        // All but what was not read through this cache: the bytes around those that were written.
        assert!(cell.calls(1, FETCH_DATA).unwrap() <= fetched + 4);
        third.shutdown().await;
        cell.shutdown().await;
    });
}

/// Cut by `ftruncate`, written behind that, and not stored: the length is part of what is recovered.
#[test]
fn a_truncation_is_recovered() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", &[7; 100_000]).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let first = Client::on_disk_within(&cell, dir.path(), Duration::from_secs(1)).await;
        let fid = first.fid(NOTE).await.unwrap();
        let handle = begin(&first, NOTE, 99_990, b"over the end").await;
        cell.stop(1).await.unwrap();
        let set = afs_client::fs::SetAttr {
            size: Some(50_000),
            ..afs_client::fs::SetAttr::default()
        };
        assert!(
            first.fs.setattr(fid, set).await.is_err(),
            "the server does not hear of it"
        );
        first.fs.write(handle, 60_000, b"behind").await.unwrap();
        let dir = crashed(dir.path());
        cell.restart(1, testcell::embedded::faults::Memory::Kept)
            .await
            .unwrap();
        let second = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        let mut expected = vec![7; 50_000];
        expected.resize(60_000, 0);
        expected.extend_from_slice(b"behind");
        arrives(&cell, &expected).await;
        second.shutdown().await;
        cell.shutdown().await;
    });
}

/// Somebody else has changed the file while nobody was there: theirs stays.
#[test]
fn what_was_not_stored_is_set_aside_if_the_file_has_changed() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", b"in the beginning").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let first = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        first.read(NOTE).await.unwrap();
        begin(&first, NOTE, 3, b"ONE").await;
        let dir = crashed(dir.path());
        cell.write("work", "note", b"newer").await.unwrap();
        let second = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        nothing_waits(&second).await;
        assert_eq!(cell.read("work", "note").unwrap(), b"newer");
        let [(data, about)] = asides(&second).try_into().unwrap();
        assert_eq!((data.len(), &data[3..6]), (16, &b"ONE"[..]));
        assert!(about.contains("owner: the mount (without a token)"), "{about}");
        assert_eq!(second.read(NOTE).await.unwrap(), "newer");
        second.shutdown().await;
        cell.shutdown().await;
    });
}

/// The server has executed a store of which the program that died did not hear.
#[test]
fn a_store_that_arrived_is_known_again_after_a_crash() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", b"in the beginning").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let first = Client::on_disk_within(&cell, dir.path(), Duration::from_secs(1)).await;
        let handle = begin(&first, NOTE, 3, b"ONE").await;
        let rule = Rule::new(When::nth(1), Calls::to(STORE_DATA), [Action::DropReply]);
        cell.faults().add(rule);
        assert!(first.fs.flush(handle).await.is_err());
        arrives(&cell, b"in ONE beginning").await;
        let dir = crashed(dir.path());
        let second = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        nothing_waits(&second).await;
        assert_eq!(asides(&second), []);
        assert_eq!(cell.read("work", "note").unwrap(), b"in ONE beginning");
        second.shutdown().await;
        cell.shutdown().await;
    });
}

/// Tokens are not kept. What alice wrote waits for her, and nobody else's token will do.
#[test]
fn what_was_not_stored_waits_for_the_token_of_its_author() {
    run(async {
        let cell = identities::cell().await;
        let dir = tempfile::tempdir().unwrap();
        let diary = "lab.example/home/alice/diary";
        let first = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        let alice = identities::login(&first, 1001, "alice");
        let before = alice.read(diary).await.unwrap();
        begin(&alice, diary, 0, b"DEAR").await;
        let dir = crashed(dir.path());
        let second = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        let [waiting] = second.fs.kept_files().waiting.try_into().unwrap();
        assert!(
            waiting.owner.starts_with("user 1001 (alice@"),
            "{}",
            waiting.owner
        );
        identities::login(&second, 1001, "bob");
        second.fs.store_all().await;
        assert_eq!(second.fs.kept_files().waiting.len(), 1);
        identities::login(&second, 1001, "alice");
        second.fs.store_all().await;
        nothing_waits(&second).await;
        let after = cell.read("home.alice", "diary").unwrap();
        assert_eq!((&after[..4], &after[4..]), (&b"DEAR"[..], &before[4..]));
        assert_eq!(asides(&second), []);
        second.shutdown().await;
        cell.shutdown().await;
    });
}

const FETCH_DATA: u32 = 65_537;
