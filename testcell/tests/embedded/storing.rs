//! When what was written is stored, and what a store must not wait for.

use std::time::Duration;

use afs_client::fs::HandleId;
use afs_client::rpc::fs::STORE_DATA;
use rustix::io::Errno;
use testcell::embedded::faults::When;

use super::client::{Client, FLAGS, cell, errno, refusing, run};
use super::conflicts::asides;
use super::restart::crashed as copied;

const PIECE: usize = 256 << 10;
const MIB: usize = 1 << 20;

/// A new file in a directory, open.
async fn made(client: &Client, dir: &str, name: &[u8]) -> HandleId {
    let dir = client.fid(dir).await.unwrap();
    let (_, opened) = client.fs.create(dir, name, 0o644, FLAGS).await.unwrap();
    opened.handle
}

/// Writes so many bytes to a file, one after the other.
async fn fill(client: &Client, handle: HandleId, len: usize) {
    for at in (0..len).step_by(PIECE) {
        let data = vec![b'x'; PIECE.min(len - at)];
        match client.fs.write_cached(handle, at as u64, &data) {
            Some(done) => done.unwrap(),
            None => client.fs.write(handle, at as u64, &data).await.unwrap(),
        }
    }
}

#[test]
fn what_is_written_in_one_piece_is_stored_before_it_is_closed() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        let handle = made(&client, "lab.example/work", b"long").await;
        fill(&client, handle, 9 * MIB).await;
        let mut stored = 0;
        for _ in 0..500 {
            stored = cell.read("work", "long").unwrap().len();
            if stored >= 8 * MIB {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(
            stored >= 8 * MIB,
            "{stored} bytes are stored of a file that is open"
        );
        client.fs.flush(handle).await.unwrap();
        assert_eq!(cell.read("work", "long").unwrap(), vec![b'x'; 9 * MIB]);
        client.fs.release(handle).await;
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// A store that nobody has asked for fails for nobody: `close` tries again, and tells.
#[test]
fn what_a_server_refuses_early_close_tells() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        let handle = made(&client, "lab.example/work", b"long").await;
        cell.faults()
            .add(refusing(When::ALWAYS, STORE_DATA, "VOVERQUOTA"));
        fill(&client, handle, 12 * MIB).await;
        assert_eq!(errno(client.fs.flush(handle).await), Errno::DQUOT.raw_os_error());
        cell.faults().clear();
        client.fs.flush(handle).await.unwrap();
        assert_eq!(cell.read("work", "long").unwrap().len(), 12 * MIB);
        client.fs.release(handle).await;
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// `fsync` is about all that was ever stored of the file, by whichever `close`; and only once.
#[test]
fn fsync_has_the_server_write_what_close_has_stored() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        client.write("lab.example/work/file", b"stored").await.unwrap();
        let fid = client.fid("lab.example/work/file").await.unwrap();
        let handle = client.fs.open(fid, FLAGS).await.unwrap().handle;
        cell.faults().add(refusing(When::nth(1), STORE_DATA, "UAEIO"));
        assert_eq!(errno(client.fs.fsync(handle).await), Errno::IO.raw_os_error());
        client.fs.fsync(handle).await.unwrap();
        cell.faults().clear();
        cell.faults().add(refusing(When::ALWAYS, STORE_DATA, "UAEIO"));
        client.fs.fsync(handle).await.unwrap();
        assert_eq!(client.fs.read(handle, 0, 9).await.unwrap(), "stored");
        assert_eq!(cell.read("work", "file").unwrap(), b"stored");
        client.fs.release(handle).await;
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// Who has waited for the store of another, which had no answer, does not begin to wait anew.
#[test]
fn those_who_wait_for_one_store_end_with_it() {
    run(async {
        let cell = cell(1).await;
        let deadline = Duration::from_secs(2);
        let client = Client::with_deadline(&cell, deadline).await;
        let handle = made(&client, "lab.example/work", b"file").await;
        fill(&client, handle, 5000).await;
        cell.freeze(1, true).unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let fs = client.fs.clone();
            waiting.spawn(async move { errno(fs.fsync(handle).await) });
        }
        let said = tokio::time::timeout(4 * deadline, waiting.join_all()).await;
        let said = said.expect("they do not wait one after the other");
        assert_eq!(said, [Errno::TIMEDOUT.raw_os_error(); 8]);
        cell.freeze(1, false).unwrap();
        client.fs.fsync(handle).await.unwrap();
        client.fs.release(handle).await;
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// What waits for a server that does not answer fills what may be dirty; a file of another server is written all the same.
#[test]
fn a_writer_does_not_wait_for_the_server_of_another() {
    run(async {
        let cell = cell(2).await;
        let client = Client::with_deadline(&cell, Duration::from_secs(2)).await;
        let stuck = made(&client, "lab.example/work2", b"stuck").await;
        let handle = made(&client, "lab.example/work", b"file").await;
        cell.freeze(2, true).unwrap();
        fill(&client, stuck, 32 * MIB).await;
        fill(&client, handle, 4 * MIB).await;
        client.fs.flush(handle).await.unwrap();
        assert_eq!(cell.read("work", "file").unwrap(), vec![b'x'; 4 * MIB]);
        cell.freeze(2, false).unwrap();
        client.fs.flush(stuck).await.unwrap();
        assert_eq!(cell.read("work2", "stuck").unwrap().len(), 32 * MIB);
        for handle in [stuck, handle] {
            client.fs.release(handle).await;
        }
        client.shutdown().await;
        cell.shutdown().await;
    });
}

async fn dirty(client: &Client) -> bool {
    let fid = client.fid("lab.example/work/file").await;
    fid.is_ok_and(|fid| client.fs.is_dirty(fid))
}

/// `close` that does not wait: the journal has what the server has not, and the next program stores it.
#[test]
fn what_is_stored_behind_outlives_the_program() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let client = Client::behind(&cell, dir.path()).await;
        cell.faults()
            .add(refusing(When::ALWAYS, STORE_DATA, "VOVERQUOTA"));
        let handle = made(&client, "lab.example/work", b"file").await;
        fill(&client, handle, 5000).await;
        client.close_behind(handle).await;
        assert_eq!(cell.read("work", "file").unwrap(), b"");
        assert_eq!(client.read("lab.example/work/file").await.unwrap().len(), 5000);

        let crashed = copied(dir.path());
        cell.faults().clear();
        let second = Client::behind(&cell, crashed.path()).await;
        while cell.read("work", "file").unwrap() != vec![b'x'; 5000] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for client in [client, second] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// Nobody was told: what waits for space waits on, what is refused is set aside, and what was removed is nothing any more.
#[test]
fn what_cannot_be_stored_behind_is_not_lost() {
    run(async {
        let cell = cell(1).await;
        let dir = tempfile::tempdir().unwrap();
        let client = Client::behind(&cell, dir.path()).await;
        let write = async |code: &str| {
            cell.faults().clear();
            cell.faults().add(refusing(When::ALWAYS, STORE_DATA, code));
            let handle = made(&client, "lab.example/work", b"file").await;
            fill(&client, handle, 5000).await;
            client.close_behind(handle).await;
        };
        let remove = async || {
            let work = client.fid("lab.example/work").await.unwrap();
            client.fs.unlink(work, b"file").await.unwrap();
        };
        write("VOVERQUOTA").await;
        assert!(dirty(&client).await && asides(&client).is_empty());
        remove().await;
        write("UAENOENT").await;
        assert!(!dirty(&client).await && asides(&client).is_empty());
        remove().await;
        write("UAEACCES").await;
        assert!(!dirty(&client).await && asides(&client).len() == 1);
        client.shutdown().await;
        cell.shutdown().await;
    });
}
