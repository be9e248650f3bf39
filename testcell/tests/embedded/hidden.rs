//! Files that are removed while they are open keep a hidden name; it must not keep their directory.

use std::sync::Arc;
use std::time::Duration;

use afs_client::fs::HandleId;
use afs_client::types::Fid;
use rustix::io::Errno;
use rxrpc::events::NullSink;
use testcell::embedded::Cell;
use testcell::embedded::faults::parse;

use super::client::{Client, FLAGS, cell, errno, run};
use super::restart::crashed as copied;

const WORK: &str = "lab.example/work";

/// A cell whose directory `work/dir` hides a file that a client has open, in `work`.
async fn hiding() -> (Cell, Client, Fid, HandleId) {
    let cell = cell(1).await;
    let client = Client::new(&cell).await;
    let work = client.fid("lab.example/work").await.unwrap();
    let dir = client.fs.mkdir(work, b"dir", 0o755).await.unwrap().fid;
    let handle = client
        .fs
        .create(dir, b"file", 0o644, FLAGS)
        .await
        .unwrap()
        .1
        .handle;
    client.fs.unlink(dir, b"file").await.unwrap();
    (cell, client, work, handle)
}

/// Waits until there is one name in `work`, as this client sees it: for four seconds.
async fn one_is_left(client: &Client) {
    let mut left = client.names(WORK).await.unwrap();
    for _ in 0..200 {
        if left.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        left = client.names(WORK).await.unwrap();
    }
    assert_eq!(left.len(), 1, "{left:?}");
}

/// `rm -r` of what was just read: the kernel tells of the close after the names are gone.
#[test]
fn a_directory_goes_once_what_it_hides_is_closed() {
    run(async {
        let (cell, client, work, handle) = hiding().await;
        assert_eq!(client.names("lab.example/work/dir").await.unwrap().len(), 1);
        let late = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            client.fs.release(handle).await;
        };
        let (removed, ()) = tokio::join!(client.fs.rmdir(work, b"dir"), late);
        removed.unwrap();
        assert_eq!(
            errno(client.fid("lab.example/work/dir").await),
            Errno::NOENT.raw_os_error()
        );
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_directory_that_stays_full_is_refused_in_time() {
    run(async {
        let (cell, client, work, handle) = hiding().await;
        let full = Errno::NOTEMPTY.raw_os_error();
        assert_eq!(
            errno(client.fs.rmdir(work, b"dir").await),
            full,
            "it is still open"
        );
        client.fs.release(handle).await;
        client.write("lab.example/work/dir/file", b"x").await.unwrap();
        assert_eq!(errno(client.fs.rmdir(work, b"dir").await), full);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// What was hidden when a program died goes when the next one starts there; what another client hides stays.
#[test]
fn what_is_left_hidden_after_a_crash_is_removed() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let first = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        let other = Client::new(&cell).await;
        let mut handles = Vec::new();
        for (client, name) in [(&first, "ours"), (&other, "theirs")] {
            let path = format!("lab.example/work/{name}");
            client.write(&path, b"x").await.unwrap();
            let work = client.fid("lab.example/work").await.unwrap();
            let fid = client.fid(&path).await.unwrap();
            handles.push(client.fs.open(fid, FLAGS).await.unwrap().handle);
            client.fs.unlink(work, name.as_bytes()).await.unwrap();
        }
        let hidden = || async { other.names("lab.example/work").await.unwrap() };
        assert_eq!(hidden().await.len(), 2, "{:?}", hidden().await);

        let crashed = copied(dir.path());
        let second = Client::on_disk(&cell, crashed.path(), Arc::new(NullSink)).await;
        second.fs.remove_hidden();
        one_is_left(&other).await;
        let theirs = other.fs.read(handles[1], 0, 9).await.unwrap();
        assert_eq!(theirs, "x", "they have it open still");
        other.fs.release(handles[1]).await;
        assert!(hidden().await.is_empty());
        for client in [first, second, other] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// Without a cache directory there is a file for that. One that a living program writes is left alone.
#[test]
fn what_is_left_hidden_by_a_mount_without_a_directory_is_removed() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let (notes, crashed) = (dir.path().join("notes"), dir.path().join("crashed"));
        let first = Client::noting(&cell, &notes).await;
        first.write("lab.example/work/file", b"x").await.unwrap();
        let work = first.fid(WORK).await.unwrap();
        let fid = first.fid("lab.example/work/file").await.unwrap();
        let handle = first.fs.open(fid, FLAGS).await.unwrap().handle;
        first.fs.unlink(work, b"file").await.unwrap();
        std::fs::copy(&notes, &crashed).unwrap();

        let beside = Client::noting(&cell, &notes).await;
        beside.fs.remove_hidden();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(first.fs.read(handle, 0, 9).await.unwrap(), "x");
        assert_eq!(beside.names(WORK).await.unwrap().len(), 1);

        let second = Client::noting(&cell, &crashed).await;
        second.fs.remove_hidden();
        while !beside.names(WORK).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        first.fs.release(handle).await;
        assert!(!notes.exists(), "nothing is hidden any more");
        for client in [first, beside, second] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// A file that was taken over with its handle goes with that.
#[test]
fn what_is_taken_over_stays_hidden_until_it_is_closed() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let first = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
        first.write("lab.example/work/file", b"x").await.unwrap();
        let work = first.fid("lab.example/work").await.unwrap();
        let fid = first.fid("lab.example/work/file").await.unwrap();
        let handle = first.fs.open(fid, FLAGS).await.unwrap().handle;
        first.fs.unlink(work, b"file").await.unwrap();

        let crashed = copied(dir.path());
        let second = Client::on_disk(&cell, crashed.path(), Arc::new(NullSink)).await;
        let name = first.fs.cell_name(fid.cell).unwrap();
        let number = second.fs.enter_volume(&name, fid.volume).await.unwrap();
        let fid = Fid { cell: number, ..fid };
        second.fs.adopt_handle(handle, fid, FLAGS).unwrap();
        second.fs.remove_hidden();
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(second.fs.read(handle, 0, 9).await.unwrap(), "x");
        second.fs.release(handle).await;
        assert!(second.names("lab.example/work").await.unwrap().is_empty());
        first.shutdown().await;
        second.shutdown().await;
        cell.shutdown().await;
    });
}

/// A client that has `work/old` open, and `work/new` to put in its place; what it can do fails as the script says.
async fn replacing(script: &str) -> (Cell, tempfile::TempDir, Client, Fid, HandleId) {
    let cell = cell(1).await;
    let dir = tempfile::tempdir().unwrap();
    let client = Client::on_disk(&cell, dir.path(), Arc::new(NullSink)).await;
    client.write("lab.example/work/old", b"old").await.unwrap();
    client.write("lab.example/work/new", b"new").await.unwrap();
    let work = client.fid(WORK).await.unwrap();
    let fid = client.fid("lab.example/work/old").await.unwrap();
    let handle = client.fs.open(fid, FLAGS).await.unwrap().handle;
    for rule in parse(script).unwrap() {
        cell.faults().add(rule);
    }
    (cell, dir, client, work, handle)
}

/// What a server refuses to replace stays where it is, though it is open, and so does what is written to it.
#[test]
fn a_rename_that_fails_leaves_an_open_target_in_its_place() {
    run(async {
        let (cell, _dir, client, work, handle) = replacing("on 1 fs Rename: abort UAEACCES").await;
        assert_eq!(
            errno(client.fs.rename(work, b"new", work, b"old").await),
            Errno::ACCESS.raw_os_error()
        );
        client.fs.write(handle, 3, b"er").await.unwrap();
        client.fs.flush(handle).await.unwrap();
        client.fs.release(handle).await;
        let other = Client::new(&cell).await;
        assert_eq!(other.read("lab.example/work/old").await.unwrap(), "older");
        assert_eq!(other.names(WORK).await.unwrap().len(), 2, "and nothing beside");
        client.shutdown().await;
        other.shutdown().await;
        cell.shutdown().await;
    });
}

/// Nobody sees a moment in which there is neither the one nor the other, and a crash in it takes nothing away.
#[test]
fn a_crash_in_a_rename_leaves_an_open_target_in_its_place() {
    run(async {
        let (cell, dir, client, work, handle) = replacing("on 1 fs Rename: delay 2s").await;
        let other = Client::new(&cell).await;
        let meanwhile = async {
            let hidden = || async { other.names(WORK).await.unwrap().len() == 3 };
            while !hidden().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let crashed = copied(dir.path());
            let read = other.read("lab.example/work/old").await.unwrap();
            (crashed, read)
        };
        let renamed = client.fs.rename(work, b"new", work, b"old");
        let (renamed, (crashed, read)) = tokio::join!(renamed, meanwhile);
        renamed.unwrap();
        assert_eq!(read, "old", "its name is there while the rename is on its way");
        assert_eq!(client.fs.read(handle, 0, 9).await.unwrap(), "old");
        assert_eq!(client.read("lab.example/work/old").await.unwrap(), "new");

        // The one that died before the rename: it removes the hidden name, and no other.
        let second = Client::on_disk(&cell, crashed.path(), Arc::new(NullSink)).await;
        second.fs.remove_hidden();
        one_is_left(&other).await;
        client.fs.release(handle).await;
        for client in [client, second, other] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// A rename of which we do not hear: the directory tells whether what was open has its name still.
#[test]
fn a_rename_that_is_not_heard_of_loses_nothing_that_is_open() {
    run(async {
        let (cell, _dir, client, work, handle) = replacing("on 1 fs Rename: drop-reply").await;
        // Whatever it gives: it was done.
        let _ = client.fs.rename(work, b"new", work, b"old").await;
        assert_eq!(client.fs.read(handle, 0, 9).await.unwrap(), "old");
        client.fs.release(handle).await;
        assert_eq!(client.read("lab.example/work/old").await.unwrap(), "new");
        assert_eq!(client.names(WORK).await.unwrap().len(), 1, "and nothing beside");
        client.shutdown().await;
        cell.shutdown().await;
    });
}
