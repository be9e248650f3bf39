//! The end of a mount loses nothing.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use crate::shared;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn sigterm_stores_what_is_dirty() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("sigterm").unwrap();
    let mut open = File::create(work.join("dirty")).unwrap();
    open.write_all(&vec![9; 3_000_000]).unwrap();
    let status = mount.terminate(LIMIT).unwrap();
    assert!(status.success(), "{status}");
    assert!(!mount.mounted());
    drop(open);
    let other = cell.mount(2).unwrap();
    assert!(fs::read(other.path("work/sigterm/dirty")).unwrap() == vec![9; 3_000_000]);
    fs::remove_dir_all(other.path("work/sigterm")).unwrap();
}

#[test]
fn umount_ends_the_program() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    fs::write(mount.work("umount").unwrap().join("file"), "stored").unwrap();
    let status = mount.umount(LIMIT).unwrap();
    assert!(status.success(), "{status}");
    assert!(!mount.mounted());
    let again = cell.mount(1).unwrap();
    assert_eq!(
        fs::read_to_string(again.path("work/umount/file")).unwrap(),
        "stored"
    );
    fs::remove_dir_all(again.path("work/umount")).unwrap();
}

#[test]
fn promises_are_given_up() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("given-up").unwrap();
    fs::write(work.join("file"), "1").unwrap();
    mount.terminate(LIMIT).unwrap();
    let other = cell.mount(2).unwrap();
    // A server that still counted on the dead client would wait for it.
    let start = std::time::Instant::now();
    fs::write(other.path("work/given-up/file"), "2").unwrap();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    fs::remove_dir_all(other.path("work/given-up")).unwrap();
}
