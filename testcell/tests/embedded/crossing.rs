//! Mount points: what is asked of whom before somebody goes in, and what the kernel is told of them.

use std::time::Duration;

use afs_client::codes;
use afs_client::fs::{Fakestat, Invalidation, Kind, Lookup, OpenFlags};
use afs_client::types::Fid;

use super::client::{CELL, Client, cell, run};

/// Volumes that were entered, and questions to the location servers.
fn entered(client: &Client) -> (usize, u64) {
    let state = client.fs.state();
    let asked = state.counts.lookups.iter().map(|(_, count)| count).sum();
    (state.volumes, asked)
}

/// Looks at all that a directory has, as `ls -l` does.
async fn looked_at(client: &Client, dir: Fid) -> Vec<String> {
    let listing = client.fs.readdir(dir).await.unwrap();
    let mut names = Vec::new();
    for entry in &listing.entries {
        if matches!(&*entry.name, b"." | b"..") {
            continue;
        }
        let Lookup::Found(found) = client.fs.lookup(dir, &entry.name).await.unwrap() else {
            panic!("{entry:?} is not there")
        };
        assert_eq!(found.fid, entry.fid, "its number is that of the listing");
        client.fs.retain(found.fid);
        let (attr, _) = client.fs.getattr(found.fid).await.unwrap();
        assert_eq!((attr.fid, attr.kind), (found.fid, found.attr.kind));
        names.push(String::from_utf8_lossy(&entry.name).into_owned());
    }
    names
}

#[test]
fn who_only_looks_asks_nobody_behind_a_mount_point() {
    run(async {
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        assert_eq!(looked_at(&client, client.fs.root()).await, [CELL]);
        assert_eq!(entered(&client), (0, 0), "no cell was entered");

        let top = client.fid(CELL).await.unwrap();
        let names = looked_at(&client, top).await;
        assert!(
            names.contains(&"work".into()) && names.contains(&"work2".into()),
            "{names:?}"
        );
        assert_eq!(entered(&client).0, 1, "the volume that was listed");
        let work = client.entry("lab.example/work").await.unwrap();
        assert_eq!((work.attr.kind, work.attr.mode), (Kind::Directory, 0o755));
        assert_eq!(work.attr_ttl, Duration::ZERO, "what is made up does not stand");

        // Who goes in changes what is told of it, but not what it is.
        cell.set_mode("work", "", 0o700).await.unwrap();
        client.fs.opendir(work.fid).await.unwrap();
        assert_eq!(entered(&client).0, 2);
        let (attr, ttl) = client.fs.getattr(work.fid).await.unwrap();
        assert_eq!((attr.fid, attr.mode), (work.fid, 0o700));
        assert!(ttl > Duration::ZERO);
        let again = client.entry("lab.example/work").await.unwrap();
        assert_eq!((again.fid, again.attr), (work.fid, attr));
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_change_of_a_root_is_told_by_its_mount_point() {
    run(async {
        let cell = cell(1).await;
        let (one, two) = (Client::new(&cell).await, Client::new(&cell).await);
        let mut told = one.fs.take_invalidations().unwrap();
        let point = one.fid("lab.example/work").await.unwrap();
        one.fs.retain(point);
        one.names("lab.example/work").await.unwrap();
        two.write("lab.example/work/new", b"new").await.unwrap();
        while told.recv().await.unwrap() != Invalidation::Node(point) {}
        assert_eq!(one.names("lab.example/work").await.unwrap(), ["new"]);
        // Nothing is told of what the kernel has forgotten.
        one.fs.forget(point);
        one.names("lab.example/ro").await.unwrap();
        while told.try_recv().is_ok() {}
        two.write("lab.example/work/newer", b"newer").await.unwrap();
        assert!(matches!(told.recv().await.unwrap(), Invalidation::Node(root) if root != point));
        one.shutdown().await;
        two.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn what_is_done_by_one_name_of_a_volume_shows_by_the_other() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        let mut told = client.fs.take_invalidations().unwrap();
        let paths = ["lab.example/work", ".:mount/lab.example:work"];
        let mut places = Vec::new();
        for path in paths {
            let fid = client.fid(path).await.unwrap();
            client.fs.retain(fid);
            client.fs.opendir(fid).await.unwrap();
            places.push(fid);
        }
        assert_ne!(places[0], places[1]);
        let flags = OpenFlags::default();
        let made = client.fs.create(places[0], b"new", 0o644, flags).await.unwrap();
        client.fs.release(made.1.handle).await;
        while told.recv().await.unwrap() != Invalidation::Node(places[1]) {}
        let found = client.fs.lookup(places[1], b"new").await.unwrap();
        assert!(matches!(found, Lookup::Found(entry) if entry.fid == made.0.fid));
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_volume_that_does_not_answer_holds_up_nobody_above_it() {
    run(async {
        let cell = cell(1).await;
        // Whoever waits for the volume fails by the limit of the test.
        let client = Client::with_deadline(&cell, Duration::from_secs(600)).await;
        let work = client.fid("lab.example/work").await.unwrap();
        client.fs.opendir(work).await.unwrap();
        let (known, _) = client.fs.getattr(work).await.unwrap();
        let busy = codes::named("VBUSY").map(|code| code.0);
        cell.refuse("work", busy).await.unwrap();
        cell.refuse("tiny", busy).await.unwrap();
        let top = client.fid(CELL).await.unwrap();
        assert!(looked_at(&client, top).await.contains(&"tiny".into()));
        let entry = client.entry("lab.example/work").await.unwrap();
        assert_eq!((entry.fid, entry.attr_ttl), (work, Duration::ZERO));
        cell.refuse("work", None).await.unwrap();
        while client.fs.getattr(work).await.unwrap().0 != known {}
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn mount_points_that_are_not_faked_are_crossed_at_sight() {
    run(async {
        let cell = cell(1).await;
        cell.mount("work", "here", "#ro.data.").await.unwrap();
        cell.mount("work", "elsewhere", "#nowhere.example:root.cell.")
            .await
            .unwrap();
        for (fakestat, volumes) in [(Fakestat::All, 2), (Fakestat::Cells, 3), (Fakestat::Off, 3)] {
            let client = Client::faking(&cell, fakestat).await;
            let here = client.entry("lab.example/work/here").await.unwrap();
            assert_eq!(entered(&client).0, volumes, "{fakestat:?}");
            assert_eq!(here.attr_ttl > Duration::ZERO, fakestat != Fakestat::All);
            let elsewhere = client.entry("lab.example/work/elsewhere").await;
            assert_eq!(elsewhere.is_ok(), fakestat != Fakestat::Off, "{fakestat:?}");
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}
