//! Files that are removed while they are open keep a hidden name; it must not keep their directory.

use std::time::Duration;

use afs_client::fs::{HandleId, OpenFlags};
use afs_client::types::Fid;
use rustix::io::Errno;
use testcell::embedded::Cell;

use super::client::{Client, cell, errno, run};

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
