//! What is refused, and with which error.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, getxattr, listxattr, mknodat, setxattr};
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
    // Of what is in one volume the first is the same; the inode's number is not that of the vnode.
    let dir = get(&work, "afs.fid").unwrap();
    let (volume, vnode) = (&parts[..1], parts[1]);
    assert_eq!(dir.split(':').next(), Some(&*format!("{:x}", volume[0])));
    assert!(vnode.is_multiple_of(2) && parts[2] > 0, "a file: {fid}");
    let top = mount.path("work");
    let root = get(&top, "afs.fid").unwrap();
    assert!(
        root.ends_with(":1:1") && root.split(':').next() == dir.split(':').next(),
        "{root}"
    );
    let by_number = format!("{}:{}", get(&file, "afs.cell").unwrap(), volume[0]);
    let same = mount
        .point()
        .join(".:mount")
        .join(by_number)
        .join("attributes/file");
    assert_eq!(get(&same, "afs.fid").unwrap(), fid);
    assert_eq!(listxattr(&file, &mut [0; 99][..]), Ok(0), "none is listed");
    assert_eq!(listxattr(&work, &mut [0; 0][..]), Ok(0));
    for name in ["afs.yfs.acl", "afs.yfs.vol_acl", "afs.nonsense"] {
        assert_eq!(get(&file, name), Err(Errno::NODATA), "{name}");
    }
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        assert_eq!(get(&work, name), Err(Errno::OPNOTSUPP), "{name}");
    }
    assert_eq!(getxattr(&file, "afs.fid", &mut [0; 2][..]), Err(Errno::RANGE));
    assert_eq!(get(&file, "user.mine"), Err(Errno::OPNOTSUPP));
    assert_eq!(get(&file, "security.capability"), Err(Errno::OPNOTSUPP));
    let set =
        |path: &Path, name: &str, value: &str| setxattr(path, name, value.as_bytes(), XattrFlags::empty());
    assert_eq!(set(&file, "user.mine", "x"), Err(Errno::OPNOTSUPP));
    for name in ["afs.cell", "afs.fid", "afs.volume"] {
        assert_eq!(set(&file, name, "x"), Err(Errno::PERM), "{name}");
    }
    let made = setxattr(
        &work,
        "afs.acl",
        b"1\n0\nsystem:anyuser\t127\n",
        XattrFlags::CREATE,
    );
    assert_eq!(made, Err(Errno::INVAL), "it is there");
    // The kernel asks nobody whether there are POSIX ACLs if the caller is neither root nor the owner by number.
    let is_root = rustix::process::geteuid().is_root();
    let no = if is_root { Errno::OPNOTSUPP } else { Errno::PERM };
    let set_acl = setxattr(
        &file,
        "system.posix_acl_access",
        &READ_FOR_ALL,
        XattrFlags::empty(),
    );
    assert_eq!(set_acl, Err(no));
    // Programs that copy find nothing to copy, and nothing to complain about.
    let copied = run(
        LIMIT,
        std::process::Command::new("cp")
            .arg("--preserve=timestamps,xattr")
            .arg(&file)
            .arg(work.join("copy")),
    );
    assert_eq!(copied.unwrap().ok().unwrap().stderr, "");

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

/// A POSIX ACL as the kernel takes it: version 2; owner, group and others, each with rights and no number.
const READ_FOR_ALL: [u8; 28] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 4, 0, 255, 255, 255, 255, 32, 0, 4, 0, 255, 255, 255,
    255,
];
