//! Two write the same file: what is detected, and what becomes of the data.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use afs_client::fs::{HandleId, OpenFlags};
use afs_client::rpc::fs::STORE_DATA;
use rustix::io::Errno;
use rxrpc::events::NullSink;
use testcell::embedded::Cell;
use testcell::embedded::faults::{Action, Calls, Rule, When};

use super::client::{Client, cell, errno, run};

const NOTE: &str = "lab.example/work/note";
const STALE: i32 = Errno::STALE.raw_os_error();

/// Opens a file for writing, and writes to it without closing it.
pub(crate) async fn begin(client: &Client, path: &str, at: u64, data: &[u8]) -> HandleId {
    let fid = client.fid(path).await.unwrap();
    let flags = OpenFlags {
        read: true,
        write: true,
        ..OpenFlags::default()
    };
    let handle = client.fs.open(fid, flags).await.unwrap().handle;
    client.fs.write(handle, at, data).await.unwrap();
    handle
}

/// What was set aside: the data and what is said of it.
pub(crate) fn asides(client: &Client) -> Vec<(Vec<u8>, String)> {
    let asides = client.fs.kept_files().set_aside;
    let read = |path: &Path| std::fs::read(path.join("data")).unwrap();
    asides
        .into_iter()
        .map(|aside| (read(&aside.path), aside.about))
        .collect()
}

async fn held(cell: &Cell, expected: &[u8]) {
    assert_eq!(cell.read("work", "note").unwrap(), expected);
}

/// A version more of an empty file takes nothing away from anybody.
#[test]
fn an_empty_file_that_has_another_version_is_written() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", b"").await.unwrap();
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        let handle = begin(&one, NOTE, 0, b"mine").await;
        two.write(NOTE, b"").await.unwrap();
        cell.write("work", "note", b"").await.unwrap();
        one.fs.flush(handle).await.unwrap();
        one.fs.release(handle).await;
        assert_eq!(two.read(NOTE).await.unwrap(), "mine");
        one.shutdown().await;
        two.shutdown().await;
        cell.shutdown().await;
    });
}

/// Who closes last does not win: theirs stays, ours is set aside, and `close` says so.
#[test]
fn a_file_changed_by_somebody_else_is_not_overwritten() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", b"in the beginning").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let one = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        let two = Client::new(&cell).await;
        assert_eq!(one.read(NOTE).await.unwrap(), "in the beginning");
        let handle = begin(&one, NOTE, 3, b"ONE").await;
        two.write(NOTE, b"two was here").await.unwrap();

        let error = one.fs.flush(handle).await.unwrap_err();
        assert_eq!(error.errno(), STALE, "{error}");
        assert!(error.to_string().contains("set-aside"), "{error}");
        held(&cell, b"two was here").await;
        let [(data, about)] = asides(&one).try_into().unwrap();
        assert_eq!(data, b"in ONE beginning");
        for part in [
            "somebody else has changed the file",
            "cell: lab.example",
            "written here: 3-6",
        ] {
            assert!(about.contains(part), "{about}");
        }
        assert_eq!(one.fs.state().unstored.conflicts, 1);
        // It was said once, and what is here is theirs.
        one.fs.flush(handle).await.unwrap();
        assert_eq!(one.fs.read(handle, 0, 100).await.unwrap(), "two was here");
        one.fs.release(handle).await;
        assert_eq!(one.fs.state().cache.dirty, 0);
        one.shutdown().await;
        cell.shutdown().await;
    });
}

/// Without a cache directory there is no place for it: until the file is closed it is still there to be read.
#[test]
fn in_memory_the_file_is_not_overwritten_either() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", b"in the beginning").await.unwrap();
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        let handle = begin(&one, NOTE, 0, b"IN THE BEGINNING").await;
        two.write(NOTE, b"two was here").await.unwrap();
        assert_eq!(errno(one.fs.fsync(handle).await), STALE);
        assert_eq!(one.fs.read(handle, 0, 100).await.unwrap(), "IN THE BEGINNING");
        one.fs.release(handle).await;
        held(&cell, b"two was here").await;
        assert_eq!(one.read(NOTE).await.unwrap(), "two was here");
        one.shutdown().await;
        cell.shutdown().await;
    });
}

/// What is written after somebody else's change is based on it, however long the file was open.
#[test]
fn writing_goes_on_behind_a_change_of_somebody_else() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", b"in the beginning").await.unwrap();
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        let handle = begin(&one, NOTE, 0, b"IN").await;
        one.fs.flush(handle).await.unwrap();
        two.write(NOTE, b"two was here").await.unwrap();
        one.fs.write(handle, 0, b"TWO").await.unwrap();
        one.fs.flush(handle).await.unwrap();
        one.fs.release(handle).await;
        held(&cell, b"TWO was here").await;
        one.shutdown().await;
        cell.shutdown().await;
    });
}

/// The background found it out: the next `close` says it.
#[test]
fn a_conflict_found_by_a_read_is_told() {
    run(async {
        let cell = cell(1).await;
        let large: Vec<u8> = (0..3_000_000u32).map(|i| i as u8).collect();
        cell.write("work", "note", &large).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let one = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        let two = Client::new(&cell).await;
        let handle = begin(&one, NOTE, 0, b"ONE").await;
        two.write(NOTE, b"two was here").await.unwrap();
        // What is missing of the old version cannot be had any more.
        assert_eq!(errno(one.fs.read(handle, 2_000_000, 100).await), STALE);
        assert_eq!(errno(one.fs.flush(handle).await), STALE);
        one.fs.flush(handle).await.unwrap();
        one.fs.release(handle).await;
        assert_eq!(asides(&one).len(), 1);
        held(&cell, b"two was here").await;
        one.shutdown().await;
        cell.shutdown().await;
    });
}

/// A store of ours that the server executed and we did not hear of is no change of somebody else.
#[test]
fn a_store_with_unknown_outcome_is_no_conflict() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "note", b"in the beginning").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let cache = Client::on_disk_within(&cell, dir.path(), Duration::from_secs(2)).await;
        let handle = begin(&cache, NOTE, 3, b"ONE").await;
        cell.faults().add(Rule::new(
            When::nth(1),
            Calls::to(STORE_DATA),
            [Action::DropReply],
        ));
        let first = cache.fs.flush(handle).await;
        assert_eq!(errno(first), Errno::TIMEDOUT.raw_os_error());
        held(&cell, b"in ONE beginning").await;
        cache.fs.write(handle, 7, b"BEG").await.unwrap();
        cache.fs.flush(handle).await.unwrap();
        cache.fs.release(handle).await;
        held(&cell, b"in ONE BEGinning").await;
        assert_eq!(asides(&cache), []);
        assert_eq!(cache.fs.state().unstored.conflicts, 0);
        cache.shutdown().await;
        cell.shutdown().await;
    });
}
