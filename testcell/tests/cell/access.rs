//! What is refused, and with which error.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, getxattr, mknodat, setxattr};
use rustix::io::Errno;
use testcell::{run, write_and_close};

use crate::shared;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn names_types_and_places_that_afs_does_not_have() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("refused").unwrap();
    let long = File::create(work.join("x".repeat(256))).unwrap_err();
    assert_eq!(long.raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
    File::create(work.join("x".repeat(255))).unwrap();
    let special = mknodat(CWD, work.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap_err();
    assert_eq!(special, Errno::PERM);
    fs::create_dir(work.join("sub")).unwrap();
    File::create(work.join("file")).unwrap();
    let across = fs::hard_link(work.join("file"), work.join("sub/link")).unwrap_err();
    assert_eq!(across.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
    let taken = fs::create_dir(work.join("file")).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    File::create(work.join("sub/inner")).unwrap();
    let full = fs::remove_dir(work.join("sub")).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(Errno::NOTEMPTY.raw_os_error()));
    let loop_ = fs::rename(work.join("sub"), work.join("sub/deeper")).unwrap_err();
    assert_eq!(loop_.kind(), ErrorKind::InvalidInput);
    symlink("loop", work.join("loop")).unwrap();
    assert!(fs::read(work.join("loop")).is_err());
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn acls_and_read_only_volumes_are_respected() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let home = fs::read_dir(mount.path("home/alice")).unwrap_err();
    assert_eq!(home.kind(), ErrorKind::PermissionDenied);
    let replica = File::create(mount.path("ro/new")).unwrap_err();
    assert_eq!(replica.kind(), ErrorKind::ReadOnlyFilesystem);
    drop(mount);
    let options = testcell::MountOptions::default().read_only();
    let mount = cell.mount_with(1, &options).unwrap();
    let refused = File::create(mount.path("work/new")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn a_full_quota_shows_at_close_and_at_fsync() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let quota = Errno::DQUOT.raw_os_error();
    let file = mount.path("tiny/too-big");
    let [written, _, closed] = write_and_close(&file, 3 << 20, false).unwrap();
    assert_eq!((written, closed), (0, quota), "write, close");
    let [_, synced, _] = write_and_close(&file, 3 << 20, true).unwrap();
    assert_eq!(synced, quota, "fsync");
    fs::remove_file(&file).unwrap();
    let mut small = File::create(mount.path("tiny/small")).unwrap();
    small.write_all(b"fits").unwrap();
    small.sync_all().unwrap();
    let space = run(
        LIMIT,
        std::process::Command::new("df").arg("-k").arg(mount.path("tiny")),
    )
    .unwrap()
    .ok()
    .unwrap();
    assert!(
        space.text().contains(" 1000 "),
        "the quota is the size: {}",
        space.text()
    );
    fs::remove_file(mount.path("tiny/small")).unwrap();
}

#[test]
fn extended_attributes_tell_what_afs_knows() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("attributes").unwrap();
    let file = work.join("file");
    fs::write(&file, "x").unwrap();
    let get = |path: &Path, name: &str| {
        let mut value = [0; 1024];
        let length = getxattr(path, name, &mut value)?;
        Ok::<_, Errno>(String::from_utf8(value[..length].to_vec()).unwrap())
    };
    assert_eq!(get(&file, "afs.volume").unwrap(), "work");
    assert!(
        mount
            .path("")
            .to_str()
            .unwrap()
            .contains(&get(&file, "afs.cell").unwrap())
    );
    let fid = get(&file, "afs.fid").unwrap();
    let parts: Vec<_> = fid
        .split(':')
        .map(|part| u32::from_str_radix(part, 16).unwrap())
        .collect();
    assert_eq!(parts.len(), 3);
    assert_eq!(getxattr(&file, "afs.fid", &mut [0; 2][..]), Err(Errno::RANGE));
    assert_eq!(get(&file, "user.mine"), Err(Errno::OPNOTSUPP));
    assert_eq!(get(&file, "security.capability"), Err(Errno::OPNOTSUPP));
    let set =
        |path: &Path, name: &str, value: &str| setxattr(path, name, value.as_bytes(), XattrFlags::empty());
    assert_eq!(set(&file, "user.mine", "x"), Err(Errno::OPNOTSUPP));
    assert_eq!(set(&file, "afs.cell", "x"), Err(Errno::PERM));

    // A list of rights is text; with it go the rights, for what is known already too.
    let all = get(&work, "afs.acl").unwrap();
    assert!(all.contains("\nsystem:anyuser\t127\n"), "{all:?}");
    assert_eq!(get(&file, "afs.acl").unwrap(), all, "that of its directory");
    set(&work, "afs.acl", "1\n0\nsystem:anyuser\t73\n").unwrap();
    assert_eq!(
        fs::write(work.join("new"), "x").unwrap_err().kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    assert_eq!(set(&file, "afs.acl", &all), Err(Errno::NOTDIR));
    assert_eq!(set(&work, "afs.acl", "nonsense"), Err(Errno::INVAL));
    set(&work, "afs.acl", &all).unwrap();
    fs::write(work.join("new"), "x").unwrap();
    fs::remove_dir_all(&work).unwrap();
}
