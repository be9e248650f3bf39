//! Everything that can be done to names and attributes, seen again by a client that has nothing cached.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use testcell::run;

use crate::shared;

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn names_and_attributes_last() {
    let cell = shared();
    let one = cell.mount(1).unwrap();
    let work = one.work("lasting").unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);

    fs::write(work.join("file"), "contents").unwrap();
    fs::set_permissions(work.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
    File::options()
        .write(true)
        .open(work.join("file"))
        .unwrap()
        .set_modified(time)
        .unwrap();
    fs::hard_link(work.join("file"), work.join("second")).unwrap();
    symlink("file", work.join("link")).unwrap();
    fs::create_dir_all(work.join("a/b")).unwrap();
    fs::write(work.join("moving"), "moved").unwrap();
    fs::rename(work.join("moving"), work.join("a/b/moved")).unwrap();
    fs::write(work.join("old"), "old").unwrap();
    fs::write(work.join("new"), "new").unwrap();
    fs::rename(work.join("new"), work.join("old")).unwrap();

    let two = cell.mount(2).unwrap();
    let seen = two.path("work/lasting");
    let file = seen.join("file").metadata().unwrap();
    assert_eq!((file.len(), file.mode() & 0o7777, file.nlink()), (8, 0o640, 2));
    assert_eq!(file.modified().unwrap(), time);
    assert_eq!(seen.join("second").metadata().unwrap().ino(), file.ino());
    assert_eq!(fs::read_link(seen.join("link")).unwrap().to_str(), Some("file"));
    assert_eq!(fs::read_to_string(seen.join("link")).unwrap(), "contents");
    assert_eq!(fs::read_to_string(seen.join("a/b/moved")).unwrap(), "moved");
    assert_eq!(fs::read_to_string(seen.join("old")).unwrap(), "new");
    assert!(!seen.join("new").exists() && !seen.join("moving").exists());
    fs::remove_dir_all(&work).unwrap();
    assert!(
        testcell::eventually(Duration::from_secs(5), || !seen.exists()),
        "the break was answered, and then the kernel heard of it"
    );
}

#[test]
fn lengths_grow_shrink_and_leave_holes() {
    let cell = shared();
    let one = cell.mount(1).unwrap();
    let work = one.work("lengths").unwrap();
    let path = work.join("file");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    file.write_all(&[1; 10_000]).unwrap();
    file.set_len(5_000).unwrap();
    file.seek(SeekFrom::Start(20_000)).unwrap();
    file.write_all(b"end").unwrap();
    drop(file);
    File::options()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"more")
        .unwrap();
    let mut expected = vec![0; 20_007];
    expected[..5_000].fill(1);
    expected[20_000..].copy_from_slice(b"endmore");
    let two = cell.mount(2).unwrap();
    assert!(
        fs::read(two.path("work/lengths/file")).unwrap() == expected,
        "holes are zeros"
    );
    // A part is rewritten by the one who read it.
    let mut theirs = File::options()
        .write(true)
        .open(two.path("work/lengths/file"))
        .unwrap();
    theirs.seek(SeekFrom::Start(4_999)).unwrap();
    theirs.write_all(&[2; 2]).unwrap();
    drop(theirs);
    expected[4_999..5_001].fill(2);
    assert!(fs::read(&path).unwrap() == expected, "the part, and nothing else");
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn a_removed_file_lives_until_it_is_closed() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("removed").unwrap();
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(work.join("f"))
        .unwrap();
    file.write_all(b"still here").unwrap();
    fs::remove_file(work.join("f")).unwrap();
    assert!(!work.join("f").exists());
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
    drop(file);
    assert!(
        testcell::eventually(Duration::from_secs(5), || fs::read_dir(&work).unwrap().count()
            == 0),
        "nothing is left behind"
    );
    fs::remove_dir(&work).unwrap();
}

#[test]
fn an_open_file_outlives_its_replacement_and_stays_if_that_fails() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let other = cell.mount(2).unwrap();
    let work = mount.work("replaced").unwrap();
    fs::create_dir(work.join("sub")).unwrap();
    for (name, text) in [("target", "old"), ("new", "new"), ("sub/two", "two")] {
        fs::write(work.join(name), text).unwrap();
    }
    fs::hard_link(work.join("sub/two"), work.join("sub/names")).unwrap();
    let mut open = File::options()
        .read(true)
        .write(true)
        .open(work.join("target"))
        .unwrap();
    // What has two names does not leave its directory.
    let refused = fs::rename(work.join("sub/two"), work.join("target")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::CrossesDevices);
    open.write_all(b"OLD").unwrap();
    open.sync_all().unwrap();
    let seen = other.path("work/replaced");
    assert_eq!(fs::read_to_string(seen.join("target")).unwrap(), "OLD");
    assert_eq!(fs::read_dir(&seen).unwrap().count(), 3, "nothing beside them");

    fs::rename(work.join("new"), work.join("target")).unwrap();
    let mut text = String::new();
    open.rewind().unwrap();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "OLD", "it is there for who has it open");
    assert_eq!(fs::read_to_string(seen.join("target")).unwrap(), "new");
    drop(open);
    let rest = || fs::read_dir(&seen).unwrap().count() == 2;
    assert!(
        testcell::eventually(Duration::from_secs(5), rest),
        "nothing is left behind"
    );
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn a_folder_of_a_thousand_names() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("thousand").unwrap();
    for name in 0..1_000 {
        File::create(work.join(format!("name-{name:04}"))).unwrap();
    }
    let two = cell.mount(2).unwrap();
    let mut listed: Vec<_> = fs::read_dir(two.path("work/thousand"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    listed.sort();
    assert_eq!(listed.len(), 1_000);
    assert_eq!(listed[999], "name-0999");
    let all = run(
        LIMIT,
        std::process::Command::new("ls")
            .arg("-l")
            .arg(two.path("work/thousand")),
    )
    .unwrap();
    assert_eq!(all.ok().unwrap().text().lines().count(), 1_001);
    let calls = two
        .metrics()
        .unwrap()
        .sum("afs_rpc_calls_total", &[("service", "fs")]);
    assert!(
        calls < 200.0,
        "a thousand files took {calls} calls: status comes in bulk"
    );
    fs::remove_dir_all(&work).unwrap();
}
