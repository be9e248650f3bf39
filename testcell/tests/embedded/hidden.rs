//! Files that are removed while they are open keep a hidden name; it must not keep their directory.

use std::sync::Arc;
use std::time::Duration;

use afs_client::fs::{HandleId, OpenFlags};
use afs_client::types::Fid;
use rustix::io::Errno;
use rxrpc::events::NullSink;
use testcell::embedded::Cell;

use super::client::{Client, cell, errno, run};
use super::restart::crashed as copied;

const FLAGS: OpenFlags = OpenFlags {
    read: true,
    write: true,
    truncate: false,
    append: false,
};

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
        let mut left = hidden().await;
        for _ in 0..200 {
            if left.len() == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            left = hidden().await;
        }
        assert_eq!(left.len(), 1, "{left:?}");
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
