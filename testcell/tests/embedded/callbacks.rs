//! What one client changes another one sees, because the server broke its promise first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use afs_client::events::Broken;
use afs_client::fs::{OpenFlags, SetAttr};
use afs_client::rpc::Procedure;
use afs_client::rpc::fs::{
    CreateFile, FETCH_DATA, FetchStatusOf, GiveUpCallBacks, InlineBulkStatus, STORE_DATA,
};
use rustix::io::Errno;
use rxrpc::events::NullSink;
use testcell::embedded::Cell;
use testcell::embedded::faults::{Action, Calls, Hook, Memory, Moment, Rule, When};
use tokio::sync::Semaphore;

use super::client::{Client, cell, cell_with, errno, run, settings};

const FILE: &str = "lab.example/work/file";

#[test]
fn a_cell_starts_soon_and_shows_its_content() {
    run(async {
        let began = tokio::time::Instant::now();
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        let text = client.read("lab.example/README").await.unwrap();
        assert_eq!(&text[..], b"The top of the test cell lab.example.\n");
        eprintln!("started, filled and read in {:?}", began.elapsed());
        assert_eq!(
            client.names("lab.example").await.unwrap(),
            ["README", "home", "public", "ro", "tiny", "work", "work2"]
        );
        assert_eq!(client.names("lab.example/ro/dir").await.unwrap().len(), 200);
        let link = client.fid("lab.example/ro/link").await.unwrap();
        assert_eq!(&client.fs.readlink(link).await.unwrap()[..], b"hello");
        let run = client.attr("lab.example/ro/run").await.unwrap();
        assert_eq!(run.mode, 0o755);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_change_is_seen_at_the_next_look() {
    run(async {
        let cell = cell(1).await;
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        one.write(FILE, b"round 0").await.unwrap();
        for round in 1..20 {
            let text = format!("round {round} {}", "x".repeat(round * 100));
            assert!(two.read(FILE).await.unwrap().starts_with(b"round"));
            one.write(FILE, text.as_bytes()).await.unwrap();
            assert_eq!(two.read(FILE).await.unwrap(), text.as_bytes(), "round {round}");
        }
        assert!(two.fs.breaks().get(Broken::Applied) >= 19);
        one.shutdown().await;
        two.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn what_is_promised_is_not_asked_again() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        client.write(FILE, &[7; 100_000]).await.unwrap();
        client.read(FILE).await.unwrap();
        let calls = || {
            [FETCH_DATA, FetchStatusOf::OPCODE, InlineBulkStatus::OPCODE]
                .map(|opcode| cell.calls(1, opcode).unwrap())
                .iter()
                .sum::<u64>()
        };
        let before = calls();
        for _ in 0..50 {
            assert_eq!(client.read(FILE).await.unwrap().len(), 100_000);
        }
        assert_eq!(calls(), before);
        client.shutdown().await;
        assert_eq!(cell.promises(1).unwrap(), 0, "all promises were given up");
        cell.shutdown().await;
    });
}

/// What has left the table is given back fifty at a time. Who asks for an object while its promise is being given back does not
/// believe the new one: the server may hear of the two in either order.
#[test]
fn promises_that_nobody_needs_are_given_back_and_none_that_somebody_does() {
    const FILES: usize = 1_300;
    run(async {
        let cell = cell(1).await;
        cell.make_dir("work", "many").await.unwrap();
        for number in 0..FILES {
            let path = format!("many/f{number}");
            cell.write("work", &path, b"old").await.unwrap();
        }
        let slow = [Action::Delay(Duration::from_millis(300))];
        cell.faults()
            .add(Rule::new(When::ALWAYS, Calls::to(GiveUpCallBacks::OPCODE), slow));
        let client = Client::new(&cell).await;
        let path = |number| format!("lab.example/work/many/f{number}");
        for number in 0..FILES {
            client.attr(&path(number)).await.unwrap();
        }
        // They have left the table, and are asked for again before the server hears that.
        for number in 0..40 {
            assert_eq!(client.attr(&path(number)).await.unwrap().size, 3);
        }
        let given_back = || cell.promises(1).unwrap() <= 1000 + 50;
        while !given_back() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(cell.calls(1, GiveUpCallBacks::OPCODE).unwrap() >= 5);
        for number in 0..40 {
            let path = format!("many/f{number}");
            cell.write("work", &path, b"newer").await.unwrap();
        }
        for number in 0..40 {
            assert_eq!(client.attr(&path(number)).await.unwrap().size, 5, "{number}");
        }
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// The break overtakes the reply of the very fetch whose promise it cancels: the promise must not be believed.
#[test]
fn a_break_between_the_data_and_the_end_of_a_fetch_is_not_lost() {
    for moment in [Moment::Before, Moment::Between, Moment::After] {
        run(async move {
            let cell = Arc::new(cell(1).await);
            let client = Client::new(&cell).await;
            cell.write("work", "file", b"old").await.unwrap();
            let (changed, changer) = (Arc::new(AtomicBool::new(false)), Arc::clone(&cell));
            let done = Arc::clone(&changed);
            let hook = Arc::new(move || {
                let (cell, done) = (Arc::clone(&changer), Arc::clone(&done));
                let change = async move {
                    cell.write("work", "file", b"new").await.unwrap();
                    done.store(true, Ordering::Release);
                };
                Box::pin(change) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
            });
            client.attr(FILE).await.unwrap();
            let fetch = Calls::to(FETCH_DATA);
            cell.faults()
                .add(Rule::new(When::nth(1), fetch, [Action::Run(moment, hook)]));
            let first = client.read(FILE).await.unwrap();
            assert!(
                first == b"old"[..] || first == b"new"[..],
                "{moment:?}: {first:?}"
            );
            while !changed.load(Ordering::Acquire) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(client.read(FILE).await.unwrap(), b"new"[..], "{moment:?}");
            client.shutdown().await;
            cell.shutdown().await;
        });
    }
}

/// While one site after the other gets a release, a client sees the old one until half of them have the new, and then only that.
#[test]
fn a_release_is_never_seen_mixed() {
    run(async {
        const HELLO: &str = "lab.example/ro/hello";
        let settings = settings(3);
        let addresses = settings.addresses.clone();
        let cell = cell_with(settings).await;
        let client = Client::new(&cell).await;
        let old = client.read(HELLO).await.unwrap();
        let sites = || {
            let volumes = client.fs.volumes().into_iter();
            let mut found = volumes.filter(|volume| volume.name == "ro.data");
            found.next().unwrap().servers
        };
        let used = || sites().len();
        assert_eq!(used(), 3);
        // Who has promised to tell tells; from the others nothing is read.
        let promised = sites().into_iter().find(|server| server.promised).unwrap();
        let first = addresses
            .iter()
            .position(|address| Some(*address) == promised.peer.map(|peer| *peer.ip()));
        let first = first.unwrap() + 1;
        let second = first % 3 + 1;
        cell.write("ro.data", "hello", b"hello again\n").await.unwrap();
        cell.begin_release("ro.data", &[first]).await.unwrap();
        while used() != 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(client.read(HELLO).await.unwrap(), old);
        cell.begin_release("ro.data", &[second]).await.unwrap();
        while client.read(HELLO).await.unwrap() == old {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(used(), 2);
        for _ in 0..5 {
            assert_eq!(client.read(HELLO).await.unwrap(), b"hello again\n"[..]);
        }
        // Somebody who comes in the middle of it sees the same.
        let other = Client::new(&cell).await;
        assert_eq!(other.read(HELLO).await.unwrap(), b"hello again\n"[..]);
        cell.release("ro.data", &[1, 2, 3]).await.unwrap();
        while used() != 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for client in [client, other] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// While no site of the release in use answers, what the others have is better than an error, and holds for the moment only.
#[test]
fn the_other_sites_of_a_release_are_the_last_resort() {
    run(async {
        const HELLO: &str = "lab.example/ro/hello";
        const RUN: &str = "lab.example/ro/run";
        let settings = settings(3);
        let addresses = settings.addresses.clone();
        let cell = cell_with(settings).await;
        let old = cell.read("ro.data", "hello").unwrap();
        for name in ["hello", "run"] {
            cell.write("ro.data", name, b"new").await.unwrap();
        }
        cell.begin_release("ro.data", &[1, 2]).await.unwrap();
        let client = Client::new(&cell).await;
        assert_eq!(client.read(HELLO).await.unwrap(), b"new"[..]);
        let volumes = client.fs.volumes();
        let volume = volumes.iter().find(|volume| volume.name == "ro.data").unwrap();
        let promised = volume.servers.iter().find(|server| server.promised).unwrap();
        let first = addresses
            .iter()
            .position(|address| Some(*address) == promised.peer.map(|peer| *peer.ip()));
        let first = first.unwrap() + 1;
        for new in [1, 2] {
            cell.stop(new).await.unwrap();
        }
        // What was promised stands; what is asked for is old, and nothing of it is promised.
        assert_eq!(client.read(HELLO).await.unwrap(), b"new"[..]);
        let stranger = Client::new(&cell).await;
        assert_eq!(stranger.read(HELLO).await.unwrap(), old);
        let fid = stranger.fid(HELLO).await.unwrap();
        assert!(stranger.fs.inspect(fid, true).unwrap().promise.is_none());
        assert!(client.read(RUN).await.is_ok());
        // As soon as one of the others is heard of, it is asked.
        cell.restart(first, Memory::Kept).await.unwrap();
        cell.begin_release("ro.data", &[first]).await.unwrap();
        while client.read(RUN).await.unwrap() != b"new"[..] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(client.read(HELLO).await.unwrap(), b"new"[..]);
        for client in [client, stranger] {
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

#[test]
fn a_release_is_seen_at_the_next_look_with_one_break() {
    run(async {
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        assert_eq!(
            client.read("lab.example/ro/hello").await.unwrap(),
            b"hello, world\n"[..]
        );
        client.names("lab.example/ro/dir").await.unwrap();
        cell.write("ro.data", "hello", b"hello again\n").await.unwrap();
        assert_eq!(
            client.read("lab.example/ro/hello").await.unwrap(),
            b"hello, world\n"[..]
        );
        let before = client.fs.breaks_received();
        cell.release("ro.data", &[1, 2]).await.unwrap();
        assert_eq!(client.fs.breaks_received() - before, 1, "one for the volume");
        assert_eq!(
            client.read("lab.example/ro/hello").await.unwrap(),
            b"hello again\n"[..]
        );
        assert_eq!(
            errno(client.write("lab.example/ro/new", b"").await),
            Errno::ROFS.raw_os_error()
        );
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_server_that_forgets_tells_so_at_the_next_contact() {
    run(async {
        let cell = cell(1).await;
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        one.write(FILE, b"first").await.unwrap();
        assert_eq!(two.read(FILE).await.unwrap(), b"first"[..]);
        cell.restart(1, Memory::Lost).await.unwrap();
        assert_eq!(cell.promises(1).unwrap(), 0);
        // Nobody tells the second client of this change: the server does not know it. Its next call is told.
        one.write(FILE, b"second").await.unwrap();
        two.write("lab.example/work/other", b"").await.unwrap();
        assert_eq!(two.read(FILE).await.unwrap(), b"second"[..]);
        assert!(two.fs.breaks().get(Broken::Server) >= 1);
        one.shutdown().await;
        two.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_server_that_remembers_breaks_after_a_restart() {
    run(async {
        let cell = cell(1).await;
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        one.write(FILE, b"first").await.unwrap();
        assert_eq!(two.read(FILE).await.unwrap(), b"first"[..]);
        cell.restart(1, Memory::Kept).await.unwrap();
        one.write(FILE, b"second").await.unwrap();
        assert_eq!(two.read(FILE).await.unwrap(), b"second"[..]);
        one.shutdown().await;
        two.shutdown().await;
        cell.shutdown().await;
    });
}

/// A store that meets readers on its way: they see the old file or the new one, and at its end the new one.
#[test]
fn readers_during_a_store_see_a_whole_file() {
    run(async {
        let cell = Arc::new(cell(1).await);
        let (one, two) = (Client::new(&cell).await, Arc::new(Client::new(&cell).await));
        let (old, new) = (vec![1; 300_000], vec![2; 400_000]);
        one.write(FILE, &old).await.unwrap();
        let reader = Arc::clone(&two);
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let read = Arc::clone(&seen);
        let hook = Arc::new(move || {
            let (reader, read) = (Arc::clone(&reader), Arc::clone(&read));
            let look = async move {
                let data = reader.read(FILE).await.unwrap();
                read.lock()
                    .push((data.len(), data.iter().all(|byte| *byte == data[0])));
            };
            Box::pin(look) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
        });
        let moments = [Moment::Before, Moment::Between].map(|when| Action::Run(when, hook.clone()));
        cell.faults()
            .add(Rule::new(When::ALWAYS, Calls::to(STORE_DATA), moments));
        one.write(FILE, &new).await.unwrap();
        cell.faults().clear();
        for (length, uniform) in seen.lock().iter() {
            assert!(*uniform && [0, old.len(), new.len()].contains(length), "{length}");
        }
        assert!(seen.lock().len() >= 2);
        assert!(two.read(FILE).await.unwrap() == new);
        one.shutdown().await;
        two.shutdown().await;
        cell.shutdown().await;
    });
}

/// The calls of a procedure wait at this moment: how many do, and what lets them go on.
fn held(cell: &Cell, procedure: u32, moment: Moment) -> (Arc<Semaphore>, Arc<Semaphore>) {
    let (waits, goes_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let hook: Hook = Arc::new({
        let (waits, goes_on) = (Arc::clone(&waits), Arc::clone(&goes_on));
        move || {
            let (waits, goes_on) = (Arc::clone(&waits), Arc::clone(&goes_on));
            Box::pin(async move {
                waits.add_permits(1);
                drop(goes_on.acquire().await);
            })
        }
    });
    cell.faults().add(Rule::new(
        When::ALWAYS,
        Calls::to(procedure),
        [Action::Run(moment, hook)],
    ));
    (waits, goes_on)
}

/// Two answers that the server has given before it cut the file for us, and that come after it has told so.
#[test]
fn an_answer_from_before_our_own_change_is_not_believed() {
    run(async {
        let cell = cell(1).await;
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        one.write(FILE, b"short").await.unwrap();
        let (file, dir) = (
            one.fid(FILE).await.unwrap(),
            one.fid("lab.example/work").await.unwrap(),
        );
        two.write(FILE, b"longer").await.unwrap();
        let (asked, cut) = held(&cell, InlineBulkStatus::OPCODE, Moment::Between);
        let late = [(); 2].map(|()| {
            let fs = one.fs.clone();
            tokio::spawn(async move { fs.prefetch_status(dir, 0).await })
        });
        drop(asked.acquire_many(2).await.unwrap());
        let size = SetAttr {
            size: Some(4),
            ..SetAttr::default()
        };
        assert_eq!(one.fs.setattr(file, size).await.unwrap().0.size, 4);
        cut.add_permits(2);
        for late in late {
            late.await.unwrap().unwrap();
        }
        assert_eq!(one.fs.getattr(file).await.unwrap().0.size, 4);
        assert_eq!(one.read_fid(file).await.unwrap(), b"long"[..]);
        one.shutdown().await;
        two.shutdown().await;
        cell.shutdown().await;
    });
}

/// Somebody else changes a directory, and it is asked for anew, while the server has not begun our own change yet: of that one
/// it tells nobody but by the answer.
#[test]
fn our_own_change_counts_though_something_was_promised_meanwhile() {
    run(async {
        let cell = cell(1).await;
        let cache = tempfile::tempdir().unwrap();
        let (one, two) = (
            Client::on_disk(&cell, cache.path(), Arc::new(NullSink)).await,
            Client::new(&cell).await,
        );
        let work = "lab.example/work";
        let (dir, theirs) = (one.fid(work).await.unwrap(), two.fid(work).await.unwrap());
        one.names(work).await.unwrap();
        let (waits, goes_on) = held(&cell, CreateFile::OPCODE, Moment::Before);
        let ours = tokio::spawn({
            let fs = one.fs.clone();
            async move { fs.create(dir, b"ours", 0o644, OpenFlags::default()).await }
        });
        drop(waits.acquire().await.unwrap());
        two.fs.mkdir(theirs, b"theirs", 0o755).await.unwrap();
        let names = one.names(work).await.unwrap();
        assert!(names.contains(&"theirs".to_owned()), "{names:?}");
        goes_on.add_permits(1);
        ours.await.unwrap().unwrap();
        let names = one.names(work).await.unwrap();
        assert!(names.contains(&"ours".to_owned()), "{names:?}");
        one.fs.unlink(dir, b"ours").await.unwrap();
        one.shutdown().await;
        two.shutdown().await;
        cell.shutdown().await;
    });
}

/// The same of a file that is cut.
#[test]
fn our_own_store_counts_though_something_was_promised_meanwhile() {
    run(async {
        let cell = cell(1).await;
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        one.write(FILE, b"short").await.unwrap();
        let file = one.fid(FILE).await.unwrap();
        let (waits, goes_on) = held(&cell, STORE_DATA, Moment::Before);
        let cut = tokio::spawn({
            let fs = one.fs.clone();
            let size = SetAttr {
                size: Some(4),
                ..SetAttr::default()
            };
            async move { fs.setattr(file, size).await }
        });
        drop(waits.acquire().await.unwrap());
        let mode = SetAttr {
            mode: Some(0o600),
            ..SetAttr::default()
        };
        two.fs.setattr(two.fid(FILE).await.unwrap(), mode).await.unwrap();
        assert_eq!(one.fs.getattr(file).await.unwrap().0.mode, 0o600);
        goes_on.add_permits(1);
        assert_eq!(cut.await.unwrap().unwrap().0.size, 4);
        assert_eq!(two.attr(FILE).await.unwrap().size, 4);
        assert_eq!(one.read_fid(file).await.unwrap(), b"shor"[..]);
        one.shutdown().await;
        two.shutdown().await;
        cell.shutdown().await;
    });
}
