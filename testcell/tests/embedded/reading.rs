//! Reading: what is fetched ahead and what is not, and several replicas at a time.

use std::sync::Arc;
use std::time::Duration;

use afs_client::error::vice;
use afs_client::events::Misfit;
use afs_client::fs::{HandleId, LeftAloneState, OpenFlags};
use afs_client::rpc::Procedure as _;
use afs_client::rpc::fs::{FETCH_DATA, FetchStatusOf};
use afs_client::types::Fid;
use rxrpc::proto::AbortCode;
use testcell::embedded::faults::{Action, Calls, Lie, Moment, Rule, When};
use testcell::embedded::{Cell, CellError};

use super::client::{Client, cell, run};

const PART: u32 = 128 << 10;
const MIB: u64 = 1 << 20;

/// Bytes of which no part is like another.
fn content(mib: u64, seed: u64) -> Vec<u8> {
    let words = (0..mib * MIB / 8).map(|word| (word ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    words.flat_map(u64::to_be_bytes).collect()
}

impl Client {
    async fn open_to_read(&self, fid: Fid) -> HandleId {
        let flags = OpenFlags {
            read: true,
            ..OpenFlags::default()
        };
        self.fs.open(fid, flags).await.unwrap().handle
    }

    /// As the kernel asks: what is here is taken without waiting.
    async fn part(&self, handle: HandleId, offset: u64, len: u32) -> bytes::Bytes {
        let mut out = Vec::new();
        match self.fs.read_cached(handle, offset, len, &mut out) {
            Some(read) => read.map(|()| out.into()).unwrap(),
            None => self.fs.read(handle, offset, len).await.unwrap(),
        }
    }

    async fn all_parts(&self, path: &str) -> Vec<u8> {
        let handle = self.open_to_read(self.fid(path).await.unwrap()).await;
        let mut all = Vec::new();
        loop {
            let part = self.part(handle, all.len() as u64, PART).await;
            if part.is_empty() {
                break;
            }
            all.extend_from_slice(&part);
        }
        self.fs.release(handle).await;
        all
    }

    fn flow(&self, name: &str) -> u64 {
        let flows = self.fs.state().counts.flows;
        flows.iter().find(|(flow, _)| *flow == name).unwrap().1
    }
}

/// Lets what is under way come to its end: nothing has been fetched for a while.
async fn settled(cell: &Cell) -> u64 {
    let count = || {
        (1..=cell.servers())
            .map(|server| cell.calls(server, FETCH_DATA).unwrap())
            .sum()
    };
    loop {
        let before: u64 = count();
        tokio::time::sleep(Duration::from_millis(150)).await;
        if count() == before {
            return before;
        }
    }
}

/// A rule for the fetches of file data from one server.
fn fetches(server: usize, when: When, action: Action) -> Rule {
    let calls = Calls {
        server: Some(server),
        ..Calls::to(FETCH_DATA)
    };
    Rule::new(when, calls, [action])
}

#[test]
fn a_sequence_is_fetched_ahead_and_once() {
    run(async {
        let cell = cell(1).await;
        let data = content(24, 1);
        cell.write("work", "big", &data).await.unwrap();
        let client = Client::new(&cell).await;
        client.fid("lab.example/work/big").await.unwrap();
        let before = client.flow("fetched");
        assert!(client.all_parts("lab.example/work/big").await == data);
        settled(&cell).await;
        assert_eq!(client.flow("fetched") - before, data.len() as u64);
        assert_eq!(client.flow("ahead_unused"), 0);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn who_reads_the_beginning_or_jumps_fetches_little() {
    run(async {
        let cell = cell(1).await;
        let data = content(32, 1);
        cell.write("work", "big", &data).await.unwrap();
        let client = Client::new(&cell).await;
        let fid = client.fid("lab.example/work/big").await.unwrap();
        let before = client.flow("fetched");
        let handle = client.open_to_read(fid).await;
        let mut place = 5_u64;
        for _ in 0..200 {
            place = place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let offset = (2 * MIB + place % (30 * MIB)) & !4095;
            let part = client.part(handle, offset, 4096).await;
            assert!(part[..] == data[offset as usize..offset as usize + 4096]);
        }
        client.fs.release(handle).await;
        settled(&cell).await;
        let scattered = client.flow("fetched") - before;
        assert!(scattered <= 200 * 4096, "{scattered} bytes for 200 pages");

        let before = client.flow("fetched");
        let handle = client.open_to_read(fid).await;
        client.part(handle, 0, PART).await;
        settled(&cell).await;
        client.fs.release(handle).await;
        let begun = client.flow("fetched") - before;
        assert!(begun <= 2 * MIB, "{begun} bytes for the first {PART}");
        let unused = client.flow("ahead_unused");
        assert!((MIB / 2..=begun).contains(&unused), "{unused} of them unused");
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// The 200 small files of a directory, in its order.
async fn small_files(client: &Client) -> Vec<(Fid, String)> {
    let mut files = Vec::new();
    for name in client.names("lab.example/ro/dir").await.unwrap() {
        let path = format!("lab.example/ro/dir/{name}");
        files.push((client.fid(&path).await.unwrap(), path));
    }
    files
}

#[test]
fn small_files_are_fetched_ahead_in_their_order() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        let files = small_files(&client).await;
        let before = settled(&cell).await;
        for (fid, _) in &files[..20] {
            let handle = client.open_to_read(*fid).await;
            client.part(handle, 0, PART).await;
            client.fs.release(handle).await;
        }
        let fetched = settled(&cell).await - before;
        assert!((30..=60).contains(&fetched), "{fetched} files for 20");
        for (number, (fid, path)) in files.iter().enumerate().skip(20) {
            let handle = client.open_to_read(*fid).await;
            let text = format!("{number}\n");
            assert_eq!(client.part(handle, 0, PART).await, text.as_bytes(), "{path}");
            client.fs.release(handle).await;
        }
        assert_eq!(settled(&cell).await - before, 200, "each once");
        assert_eq!(client.flow("ahead_unused"), 0);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn small_files_out_of_order_are_fetched_alone() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        let files = small_files(&client).await;
        let before = settled(&cell).await;
        for number in 0..60 {
            let (fid, _) = files[number * 67 % 200];
            let handle = client.open_to_read(fid).await;
            client.part(handle, 0, PART).await;
            client.fs.release(handle).await;
        }
        assert_eq!(settled(&cell).await - before, 60);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// A cell with a large file on three replicas, and a client that has not looked at it yet.
async fn replicated(data: &[u8]) -> Result<(Cell, Client), CellError> {
    let cell = cell(3).await;
    cell.set_quota("ro.data", 4_000_000).await?;
    cell.write("ro.data", "big", data).await?;
    cell.release("ro.data", &[1, 2, 3]).await?;
    let client = Client::new(&cell).await;
    Ok((cell, client))
}

const BIG: &str = "lab.example/ro/big";

#[test]
fn replicas_share_a_large_file_and_a_slow_one_gets_little() {
    run(async {
        let data = content(40, 1);
        let (cell, client) = replicated(&data).await.unwrap();
        cell.faults().add(fetches(
            2,
            When::ALWAYS,
            Action::Delay(Duration::from_millis(250)),
        ));
        client.fid(BIG).await.unwrap();
        let before: Vec<_> = (1..=3)
            .map(|server| cell.calls(server, FETCH_DATA).unwrap())
            .collect();
        assert!(client.all_parts(BIG).await == data);
        let calls: Vec<_> = (1..=3)
            .map(|server| cell.calls(server, FETCH_DATA).unwrap() - before[server - 1])
            .collect();
        assert!(calls[0] >= 4 && calls[2] >= 4, "{calls:?}");
        assert!(calls[1] <= calls.iter().sum::<u64>() / 4, "{calls:?}");
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_replica_dies_in_the_middle_of_a_large_file() {
    run(async {
        let data = content(24, 1);
        let (cell, client) = replicated(&data).await.unwrap();
        let cell = Arc::new(cell);
        let doomed = Arc::clone(&cell);
        let stop: Action = Action::Run(
            Moment::Between,
            Arc::new(move || {
                let cell = Arc::clone(&doomed);
                Box::pin(async move {
                    tokio::spawn(async move { cell.stop(3).await });
                })
            }),
        );
        cell.faults().add(fetches(3, When::nth(4), stop));
        assert!(client.all_parts(BIG).await == data);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn replicas_of_different_releases_are_not_mixed() {
    run(async {
        let (old, new) = (content(16, 1), content(16, 2));
        let (cell, client) = replicated(&old).await.unwrap();
        assert!(client.all_parts(BIG).await == old);
        cell.write("ro.data", "big", &new).await.unwrap();
        for released in [vec![2], vec![1, 2], vec![1, 2, 3]] {
            cell.release("ro.data", &released).await.unwrap();
            let fresh = Client::new(&cell).await;
            for client in [&client, &fresh] {
                let read = client.all_parts(BIG).await;
                assert!(read == old || read == new, "a file of two releases");
                assert!(
                    read == new || released.len() < 3,
                    "the old release is everywhere gone"
                );
            }
            fresh.shutdown().await;
        }
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// The server that a client asks for the status of the root of `ro`: releases break its promise.
async fn asked_for_status(cell: &Cell, client: &Client, root: Fid) -> Vec<u64> {
    let calls = || [1, 2].map(|server| cell.calls(server, FetchStatusOf::OPCODE).unwrap());
    let before = calls();
    cell.release("ro.data", &[1, 2]).await.unwrap();
    client.fs.getattr(root).await.unwrap();
    calls()
        .iter()
        .zip(before)
        .map(|(after, before)| after - before)
        .collect()
}

/// The server that is asked first.
async fn asked_first(cell: &Cell, client: &Client, root: Fid) -> usize {
    loop {
        let calls = asked_for_status(cell, client, root).await;
        if let Some(first) = calls.iter().position(|calls| *calls > 0) {
            return 1 + first;
        }
    }
}

#[test]
fn another_replica_is_asked_when_the_first_is_slow() {
    run(async {
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        let root = client.fid("lab.example/ro").await.unwrap();
        // Nobody is asked for what nobody has crossed.
        client.fs.opendir(root).await.unwrap();
        let mut first = 0;
        for _ in 0..40 {
            let calls = asked_for_status(&cell, &client, root).await;
            first = 1 + calls.iter().position(|calls| *calls > 0).unwrap();
        }
        let slow = Calls {
            server: Some(first),
            ..Calls::to(FetchStatusOf::OPCODE)
        };
        let stuck = Action::Delay(Duration::from_secs(60));
        cell.faults().add(Rule::new(When::nth(1), slow, [stuck]));
        let calls = asked_for_status(&cell, &client, root).await;
        assert_eq!(calls[2 - first], 1, "the other one has answered");
        let retries = client.fs.state().counts.retries;
        assert!(retries.iter().any(|(why, count)| *why == "slow" && *count >= 1));
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// Why replicas of `ro.data` are left alone.
fn left_alone(client: &Client) -> Vec<LeftAloneState> {
    let volumes = client.fs.volumes().into_iter();
    let servers = volumes
        .filter(|volume| volume.name == "ro.data")
        .flat_map(|volume| volume.servers);
    servers.filter_map(|server| server.left_alone).collect()
}

#[test]
fn a_replica_with_a_damaged_directory_is_left_alone() {
    run(async {
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        let root = client.fid("lab.example/ro").await.unwrap();
        client.names("lab.example/ro").await.unwrap();
        let first = asked_first(&cell, &client, root).await;
        cell.faults()
            .add(fetches(first, When::ALWAYS, Action::Lie(Lie::DirectoryPage)));
        assert_eq!(client.names("lab.example/ro/dir").await.unwrap().len(), 200);
        let left = left_alone(&client);
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].why.starts_with("directory "), "{left:?}");
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// The server that file data comes from, when all are idle; it is known by then how long that takes.
async fn accustomed(cell: &Cell, client: &Client, files: &[(Fid, String)]) -> usize {
    for number in 0..40 {
        // In no order: nothing is to be fetched ahead.
        let (fid, path) = &files[number * 67 % 200];
        assert!(!client.read_fid(*fid).await.unwrap().is_empty(), "{path}");
    }
    settled(cell).await;
    let calls = [1, 2].map(|server| cell.calls(server, FETCH_DATA).unwrap());
    assert!(calls[0].max(calls[1]) >= 20, "{calls:?}");
    if calls[0] > calls[1] { 1 } else { 2 }
}

#[test]
fn data_is_asked_of_another_replica_when_the_first_is_slow_to_begin() {
    run(async {
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        let files = small_files(&client).await;
        let first = accustomed(&cell, &client, &files).await;
        let before = cell.calls(3 - first, FETCH_DATA).unwrap();
        let stuck = Action::Delay(Duration::from_secs(60));
        cell.faults().add(fetches(first, When::nth(1), stuck));
        let (fid, _) = files[41 * 67 % 200];
        let number = 41 * 67 % 200;
        assert_eq!(client.read_fid(fid).await.unwrap(), format!("{number}\n"));
        assert_eq!(cell.calls(3 - first, FETCH_DATA).unwrap(), before + 1);
        let calls = client.fs.inspect(fid, true).unwrap().calls;
        let given_up = calls
            .iter()
            .filter(|call| call.error.as_deref() == Some("given up"));
        assert_eq!(given_up.count(), 1, "{calls:?}");
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn the_replica_that_is_asked_too_may_not_have_another_release() {
    run(async {
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        let files = small_files(&client).await;
        let first = accustomed(&cell, &client, &files).await;
        let number = 41 * 67 % 200;
        let (fid, path) = &files[number];
        let name = path.rsplit_once("lab.example/ro/").unwrap().1;
        cell.write("ro.data", name, b"of the next release").await.unwrap();
        cell.release("ro.data", &[3 - first]).await.unwrap();
        let slow = Action::Delay(Duration::from_millis(300));
        cell.faults().add(fetches(first, When::ALWAYS, slow));
        assert_eq!(client.read_fid(*fid).await.unwrap(), format!("{number}\n"));
        let state = client.fs.state();
        let of_other = |why: &str| {
            let counts = &state.counts.misfits;
            counts.iter().find(|(misfit, _)| *misfit == why).unwrap().1
        };
        assert_eq!(of_other("release"), 1);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_replica_that_fails_is_asked_less() {
    run(async {
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        let root = client.fid("lab.example/ro").await.unwrap();
        client.names("lab.example/ro").await.unwrap();
        let first = asked_first(&cell, &client, root).await;
        let failing = Calls {
            server: Some(first),
            ..Calls::to(FetchStatusOf::OPCODE)
        };
        let broken = Action::Abort(AbortCode(vice::IO));
        cell.faults().add(Rule::new(When::ALWAYS, failing, [broken]));
        let mut asked = [0, 0];
        for _ in 0..20 {
            let calls = asked_for_status(&cell, &client, root).await;
            asked = [asked[0] + calls[0], asked[1] + calls[1]];
        }
        assert_eq!(asked[2 - first], 20, "the other one answers");
        assert!((1..=3).contains(&asked[first - 1]), "{asked:?}");
        let volumes = client.fs.volumes();
        let volume = volumes.iter().find(|volume| volume.name == "ro.data").unwrap();
        let failing = volume.servers.iter().filter(|server| server.failing > 0.05);
        assert_eq!(failing.count(), 1, "{:?}", volume.servers);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_replica_that_makes_no_sense_is_left_alone() {
    run(async {
        let data = content(8, 1);
        for (lie, why) in [
            (Lie::ShortData, "bytes of data where there are"),
            (Lie::Status, "status"),
        ] {
            let (cell, client) = replicated(&data).await.unwrap();
            cell.faults().add(fetches(2, When::ALWAYS, Action::Lie(lie)));
            assert!(client.all_parts(BIG).await == data, "{lie:?}");
            let before = cell.calls(2, FETCH_DATA).unwrap();
            cell.release("ro.data", &[1, 2, 3]).await.unwrap();
            assert!(client.all_parts(BIG).await == data, "{lie:?}");
            assert_eq!(cell.calls(2, FETCH_DATA).unwrap(), before, "{lie:?}");
            let left = left_alone(&client);
            assert_eq!(left.len(), 1, "{left:?}");
            assert_eq!((left[0].misfit, &*left[0].volume), (Misfit::Nonsense, "ro.data"));
            assert!(left[0].why.contains(why), "{left:?}");
            client.shutdown().await;
            cell.shutdown().await;
        }
    });
}
