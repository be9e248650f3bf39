//! A change of one client is seen by the other at its next look, because the server broke its promise.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use testcell::eventually;

use crate::shared;

/// From the reply to the one client until the kernel of the other has forgotten.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_changed_file_is_new_at_the_next_open() {
    let cell = shared();
    let one = cell.mount(1).unwrap();
    let two = cell.mount(2).unwrap();
    let mine = one.work("changed").unwrap().join("file");
    let theirs = two.path("work/changed/file");
    fs::write(&mine, "round 0").unwrap();
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "round 0");
    let before = two.metrics().unwrap();
    for round in 1..=20 {
        // Lengths differ: an old length with new bytes would show.
        let text = format!("round {round} {}", "x".repeat(round * 100));
        fs::write(&mine, &text).unwrap();
        assert_eq!(
            fs::read_to_string(&theirs).unwrap(),
            text,
            "the next open of client 2"
        );
        fs::write(&theirs, round.to_string()).unwrap();
        assert_eq!(
            fs::read_to_string(&mine).unwrap(),
            round.to_string(),
            "the next open of client 1"
        );
    }
    let after = two.metrics().unwrap();
    let grown = |name, labels| after.sum(name, labels) - before.sum(name, labels);
    assert!(
        grown("afs_callback_breaks_received_total", &[]) >= 10.0,
        "breaks received:\n{after}"
    );
    assert!(
        grown("afs_callback_breaks_total", &[("outcome", "applied")]) >= 10.0,
        "breaks applied:\n{after}"
    );
    assert!(
        grown("afs_callback_requests_total", &[("rpc", "CallBack")]) >= 10.0,
        "{after}"
    );
}

#[test]
fn an_unchanged_file_is_read_without_a_call() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let file = mount.work("unchanged").unwrap().join("file");
    fs::write(&file, vec![7; 100_000]).unwrap();
    fs::read(&file).unwrap();
    let calls = || {
        mount
            .metrics()
            .unwrap()
            .sum("afs_rpc_calls_total", &[("service", "fs")])
    };
    let before = calls();
    for _ in 0..50 {
        assert_eq!(fs::read(&file).unwrap().len(), 100_000);
    }
    assert!(
        calls() - before <= 2.0,
        "{} calls for what was cached",
        calls() - before
    );
}

#[test]
fn names_come_go_and_change() {
    let cell = shared();
    let one = cell.mount(1).unwrap();
    let two = cell.mount(2).unwrap();
    let mine = one.work("names").unwrap();
    let theirs = two.path("work/names");
    let absent = |path: &std::path::Path| {
        fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
    };
    for round in 0..5 {
        let name = format!("name-{round}");
        // Asked first, so that its absence is cached.
        assert!(absent(&theirs.join(&name)));
        fs::write(mine.join(&name), "here").unwrap();
        assert!(
            eventually(SOON, || theirs.join(&name).exists()),
            "a new name after a negative lookup"
        );
        assert_eq!(fs::read_to_string(theirs.join(&name)).unwrap(), "here");

        let renamed = format!("renamed-{round}");
        assert!(absent(&theirs.join(&renamed)));
        fs::rename(mine.join(&name), mine.join(&renamed)).unwrap();
        assert!(
            eventually(SOON, || absent(&theirs.join(&name))),
            "the old name after a rename"
        );
        assert!(
            eventually(SOON, || theirs.join(&renamed).exists()),
            "the new name after a rename"
        );

        fs::create_dir(mine.join(&name)).unwrap();
        assert!(
            eventually(SOON, || theirs.join(&name).is_dir()),
            "a folder where a file was"
        );
        let listed = fs::read_dir(&theirs).unwrap().count();
        assert_eq!(listed, 2, "the listing of client 2");

        fs::remove_dir(mine.join(&name)).unwrap();
        fs::remove_file(mine.join(&renamed)).unwrap();
        assert!(
            eventually(SOON, || absent(&theirs.join(&renamed))),
            "an unlinked name"
        );
        assert!(
            eventually(SOON, || fs::read_dir(&theirs).unwrap().count() == 0),
            "an emptied folder"
        );
    }
}

#[test]
fn attributes_follow() {
    let cell = shared();
    let one = cell.mount(1).unwrap();
    let two = cell.mount(2).unwrap();
    let mine = one.work("attributes").unwrap().join("file");
    let theirs = two.path("work/attributes/file");
    fs::write(&mine, "12345").unwrap();
    assert_eq!(theirs.metadata().unwrap().len(), 5);
    fs::write(&mine, "1234567").unwrap();
    assert!(
        eventually(SOON, || theirs.metadata().unwrap().len() == 7),
        "the length"
    );
    fs::OpenOptions::new()
        .write(true)
        .open(&mine)
        .unwrap()
        .set_len(2)
        .unwrap();
    assert!(
        eventually(SOON, || theirs.metadata().unwrap().len() == 2),
        "the length after truncate"
    );
}

#[test]
fn a_known_folder_is_listed_by_the_kernel_alone() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("listed").unwrap();
    for name in ["a", "b", "c"] {
        fs::write(work.join(name), name).unwrap();
    }
    let theirs = two.path("work/listed");
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&theirs)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names.concat()
    };
    let reads = || {
        let metrics = two.metrics().unwrap();
        ["readdir", "readdirplus"].map(|op| metrics.sum("afs_fuse_requests_total", &[("op", op)]))
    };
    // The kernel keeps what it has read to the end, if it was told at its opening that this is the same as before.
    for _ in 0..2 {
        assert_eq!(names(), "abc");
    }
    let before = reads();
    assert_eq!((names(), reads()), ("abc".to_owned(), before));
    fs::rename(work.join("b"), work.join("d")).unwrap();
    assert!(eventually(SOON, || names() == "acd"));
    fs::write(theirs.join("e"), "e").unwrap();
    assert_eq!(names(), "acde", "its own change too");
    fs::remove_dir_all(&work).unwrap();
}
