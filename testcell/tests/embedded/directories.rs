//! Directories of as many names as they can have.

use afs_client::fs::{Lookup, OpenFlags};
use afs_client::rpc::Procedure as _;
use afs_client::rpc::fs::{FETCH_DATA, FetchStatusOf, InlineBulkStatus};

use super::client::{Client, cell, run};

/// One fetch tells all names; from then on they are looked up and changed here.
#[test]
fn sixty_thousand_names_are_fetched_once() {
    const NAMES: usize = 60_000;
    run(async {
        let cell = cell(1).await;
        cell.make_dir("work", "large").await.unwrap();
        for number in 0..NAMES {
            let path = format!("large/n{number:06}");
            cell.write("work", &path, b"").await.unwrap();
        }
        let client = Client::new(&cell).await;
        let dir = client.fid("lab.example/work/large").await.unwrap();
        let calls = |opcode| cell.calls(1, opcode).unwrap();
        let fetched = calls(FETCH_DATA);
        let listing = client.fs.readdir(dir).await.unwrap();
        assert_eq!(listing.entries.len(), NAMES + 2);
        assert_eq!(calls(FETCH_DATA), fetched + 1);

        // A name that is not there costs nothing, one that is costs a call for fifty.
        let asked = || calls(FetchStatusOf::OPCODE) + calls(InlineBulkStatus::OPCODE);
        let before = asked();
        for number in 0..500 {
            let absent = client
                .fs
                .lookup(dir, format!("m{number}").as_bytes())
                .await
                .unwrap();
            assert!(matches!(absent, Lookup::Absent { .. }));
        }
        assert_eq!(asked(), before);
        for number in 30_000..30_500 {
            let name = format!("n{number:06}");
            let found = client.fs.lookup(dir, name.as_bytes()).await.unwrap();
            assert!(matches!(found, Lookup::Found(_)), "{name}");
        }
        assert!(asked() - before <= 12, "{}", asked() - before);

        let flags = OpenFlags::default();
        for number in 0..50 {
            let [old, new] = ["n", "m"].map(|first| format!("{first}{number:06}"));
            client
                .fs
                .rename(dir, old.as_bytes(), dir, new.as_bytes())
                .await
                .unwrap();
            let other = format!("o{number}");
            let made = client
                .fs
                .create(dir, other.as_bytes(), 0o644, flags)
                .await
                .unwrap();
            client.fs.release(made.1.handle).await;
            client.fs.unlink(dir, new.as_bytes()).await.unwrap();
        }
        assert_eq!(
            calls(FETCH_DATA),
            fetched + 1,
            "our own changes are made here too"
        );
        let names = client.names("lab.example/work/large").await.unwrap();
        assert_eq!(names.len(), NAMES);
        assert_eq!(calls(FETCH_DATA), fetched + 1);
        client.shutdown().await;

        // The server thinks the same.
        let other = Client::new(&cell).await;
        assert!(other.names("lab.example/work/large").await.unwrap() == names);
        other.shutdown().await;
        cell.shutdown().await;
    });
}
