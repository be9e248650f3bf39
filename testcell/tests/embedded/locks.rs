//! Locks that a server holds for a client, and what becomes of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use afs_client::fs::HandleId;
use afs_client::lock::{LockAsked, LockKind, LockOwner, Span};
use afs_client::types::Fid;
use rustix::io::Errno;
use testcell::embedded::Cell;
use testcell::embedded::faults::Memory;

use super::client::{Client, FLAGS, cell, errno, run};

const FILE: &str = "lab.example/work/file";

fn asked(owner: u64, kind: LockKind) -> LockAsked {
    LockAsked {
        owner: LockOwner(owner),
        span: Span::WHOLE,
        kind,
        pid: 1,
    }
}

async fn open(client: &Client) -> HandleId {
    let fid = client.fid(FILE).await.unwrap();
    client.fs.open(fid, FLAGS).await.unwrap().handle
}

const SET_LOCK: u32 = 156;
const RELEASE_LOCK: u32 = 158;

fn calls(cell: &Cell) -> (u64, u64) {
    (
        cell.calls(1, SET_LOCK).unwrap(),
        cell.calls(1, RELEASE_LOCK).unwrap(),
    )
}

#[test]
fn the_server_hears_of_one_lock_for_all_programs_of_a_client() {
    run(async {
        let cell = cell(1).await;
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        one.write(FILE, b"x").await.unwrap();
        let (here, also, there) = (open(&one).await, open(&one).await, open(&two).await);
        one.fs.lock(here, asked(1, LockKind::Shared)).await.unwrap();
        one.fs.lock(also, asked(2, LockKind::Shared)).await.unwrap();
        assert_eq!(calls(&cell), (1, 0));
        let part = Span { first: 0, last: 9 };
        let of_part = LockAsked {
            span: part,
            ..asked(3, LockKind::Shared)
        };
        one.fs.lock(here, of_part).await.unwrap();
        assert_eq!(one.fs.lock_counts(), (3, 0));
        // The server says that there is one, and not whose.
        let found = two
            .fs
            .lock_conflict(there, asked(9, LockKind::Exclusive))
            .await
            .unwrap();
        assert_eq!(
            found.map(|found| (found.kind, found.pid)),
            Some((LockKind::Shared, 0))
        );
        assert_eq!(
            errno(two.fs.lock(there, asked(9, LockKind::Exclusive)).await),
            Errno::AGAIN.raw_os_error()
        );
        one.fs.unlock(here, LockOwner(1), Span::WHOLE).await.unwrap();
        assert_eq!(calls(&cell).1, 0, "another program has it still");
        one.fs.release(also).await;
        one.fs.unlock(here, LockOwner(2), Span::WHOLE).await.unwrap();
        assert_eq!(calls(&cell).1, 1);
        two.fs.lock(there, asked(9, LockKind::Exclusive)).await.unwrap();
        // It cannot be had, and what was held before stands.
        assert_eq!(
            errno(one.fs.lock(here, asked(1, LockKind::Shared)).await),
            Errno::AGAIN.raw_os_error()
        );
        two.shutdown().await;
        one.fs.lock(here, asked(1, LockKind::Shared)).await.unwrap();
        one.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_lock_that_the_server_has_lost_is_an_error_until_it_is_given_back() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        client.write(FILE, b"x").await.unwrap();
        let (holds, looks) = (open(&client).await, open(&client).await);
        client
            .fs
            .lock(holds, asked(1, LockKind::Exclusive))
            .await
            .unwrap();
        cell.restart(1, Memory::Lost).await.unwrap();
        // The next contact tells that it has forgotten what it knew of us.
        client.write("lab.example/work/other", b"").await.unwrap();
        while client.fs.lock_counts().1 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(errno(client.fs.read(holds, 0, 1).await), Errno::IO.raw_os_error());
        assert_eq!(
            errno(client.fs.write(holds, 0, b"y").await),
            Errno::IO.raw_os_error()
        );
        assert_eq!(
            client.fs.read(looks, 0, 1).await.unwrap(),
            b"x"[..],
            "who held none is not concerned"
        );
        client.fs.unlock(holds, LockOwner(1), Span::WHOLE).await.unwrap();
        assert_eq!(client.fs.read(holds, 0, 1).await.unwrap(), b"x"[..]);
        client
            .fs
            .lock(holds, asked(1, LockKind::Exclusive))
            .await
            .unwrap();
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// What an earlier process held, the next one holds; what its server has forgotten meanwhile is lost as ever.
#[test]
fn locks_are_taken_over_and_lost_if_the_server_has_lost_them() {
    run(async {
        let cell = cell(1).await;
        let (first, other) = (Client::new(&cell).await, Client::new(&cell).await);
        let left = Arc::new(Mutex::new(None));
        let told = Arc::clone(&left);
        first
            .fs
            .witness_locks(move |fid, held| *told.lock().unwrap() = Some((fid, held)));
        first.write(FILE, b"x").await.unwrap();
        let handle = open(&first).await;
        let exclusive = asked(1, LockKind::Exclusive);
        first.fs.lock(handle, exclusive).await.unwrap();
        first.fs.leave_locks().await;
        first.shutdown().await;

        let (fid, held) = left.lock().unwrap().take().unwrap();
        assert_eq!(held.held, [(handle, exclusive)]);
        let take_over = async || {
            let next = Client::new(&cell).await;
            let name = first.fs.cell_name(fid.cell).unwrap();
            let number = next.fs.enter_volume(&name, fid.volume).await.unwrap();
            let fid = Fid { cell: number, ..fid };
            next.fs.adopt_handle(handle, fid, FLAGS).unwrap();
            next.fs.adopt_locks(fid, held.clone()).unwrap();
            next
        };
        let second = take_over().await;
        let theirs = open(&other).await;
        let again = Errno::AGAIN.raw_os_error();
        assert_eq!(errno(other.fs.lock(theirs, exclusive).await), again);
        let (local, of_another) = (open(&second).await, asked(2, LockKind::Shared));
        assert_eq!(errno(second.fs.lock(local, of_another).await), again);
        assert_eq!(second.fs.read(handle, 0, 1).await.unwrap(), "x");

        cell.restart(1, Memory::Lost).await.unwrap();
        let third = take_over().await;
        while third.fs.lock_counts().1 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(errno(third.fs.read(handle, 0, 1).await), Errno::IO.raw_os_error());
        third.fs.unlock(handle, LockOwner(1), Span::WHOLE).await.unwrap();
        assert_eq!(third.fs.read(handle, 0, 1).await.unwrap(), "x");
        for client in [second, third, other] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}
