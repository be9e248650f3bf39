//! Who may do what, and where it is said.

use std::fs::{self, File, Permissions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, XattrFlags, accessat, fcntl_lock, setxattr};
use rustix::io::Errno;
use testcell::{MountOptions, eventually};

use crate::semantics::code;
use crate::shared;

const SOON: Duration = Duration::from_secs(20);

/// The rights of everybody in a directory, as letters of `rwildka`.
fn set_rights(dir: &Path, rights: &str) {
    let letters = ['r', 'w', 'i', 'l', 'd', 'k', 'a'];
    let bits = letters.iter().enumerate();
    let bits: u32 = bits
        .map(|(bit, letter)| u32::from(rights.contains(*letter)) << bit)
        .sum();
    let text = format!("1\n0\nsystem:anyuser\t{bits}\n");
    setxattr(dir, "afs.acl", text.as_bytes(), XattrFlags::empty()).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What close(2) says.
pub(crate) fn close(file: File) -> Option<Errno> {
    let closed = nix::unistd::close(file);
    closed.err().map(|error| Errno::from_raw_os_error(error as i32))
}

#[test]
fn the_owners_bits_of_a_file_count_for_everybody() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("bits").unwrap();
    let path = work.join("file");
    let there = two.path("work/bits/file");
    fs::write(&path, "x").unwrap();
    let may = |path: &Path| {
        let write = File::options().append(true).open(path).is_ok();
        (fs::read(path).is_ok(), write)
    };
    for (mode, expected) in [
        (0o644, (true, true)),
        (0o444, (true, false)),
        (0o200, (false, true)),
        (0o077, (false, false)),
        (0o000, (false, false)),
    ] {
        set_mode(&path, mode);
        assert_eq!(may(&path), expected, "{mode:o}");
        assert!(
            eventually(SOON, || may(&there) == expected),
            "{mode:o} for others"
        );
    }
    assert_eq!(code(File::open(&path)), Some(Errno::ACCESS));
    // Who makes a file that nobody may write has it open for writing all the same.
    let made = work.join("made");
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(&made)
        .unwrap();
    file.write_all(b"once").unwrap();
    assert_eq!(close(file), None);
    assert_eq!(fs::read_to_string(two.path("work/bits/made")).unwrap(), "once");
    assert_eq!(code(File::options().write(true).open(&made)), Some(Errno::ACCESS));
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn access_tells_the_truth() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("asked").unwrap();
    let path = work.join("file");
    fs::write(&path, "x").unwrap();
    let asks = |path: &Path, what| accessat(CWD, path, what, AtFlags::empty());
    let (reads, writes, runs) = (Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK);
    for (mode, expected) in [
        (0o644, [Ok(()), Ok(()), Err(Errno::ACCESS)]),
        (0o755, [Ok(()), Ok(()), Ok(())]),
        (0o444, [Ok(()), Err(Errno::ACCESS), Err(Errno::ACCESS)]),
        (0o000, [Err(Errno::ACCESS); 3]),
    ] {
        set_mode(&path, mode);
        assert_eq!(
            [reads, writes, runs].map(|what| asks(&path, what)),
            expected,
            "{mode:o}"
        );
    }
    assert_eq!(asks(&path, Access::EXISTS), Ok(()));
    assert_eq!(asks(&work.join("none"), Access::EXISTS), Err(Errno::NOENT));
    assert_eq!(asks(&work, reads | writes | runs), Ok(()));
    set_rights(&work, "rla");
    assert_eq!(asks(&work, writes), Err(Errno::ACCESS));
    assert_eq!(asks(&work, runs), Ok(()));
    set_rights(&work, "rwildka");
    let replica = mount.path("ro/hello");
    assert_eq!(asks(&replica, reads), Ok(()));
    assert_eq!(asks(&replica, writes), Err(Errno::ROFS));
    assert_eq!(asks(&mount.path("ro"), writes), Err(Errno::ROFS));
    assert_eq!(asks(&mount.point(), writes), Err(Errno::ROFS));
    set_mode(&path, 0o644);
    drop(mount);
    let mount = cell.mount_with(1, &MountOptions::default().read_only()).unwrap();
    assert_eq!(asks(&mount.path("work/asked/file"), writes), Err(Errno::ROFS));
    assert_eq!(asks(&mount.path("work/asked"), writes), Err(Errno::ROFS));
    drop(mount);
    let mount = cell.mount(1).unwrap();
    fs::remove_dir_all(mount.path("work/asked")).unwrap();
}

#[test]
fn a_lock_needs_the_right_to_lock_or_to_write() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("lockers").unwrap();
    let path = work.join("file");
    fs::write(&path, "x").unwrap();
    let locked = |result: Result<(), TryLockError>| match result {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(Errno::AGAIN),
        Err(TryLockError::Error(error)) => Err(Errno::from_io_error(&error).unwrap()),
    };
    let no = Err(Errno::ACCESS);
    for (rights, expected) in [
        ("rla", [no, no]),
        ("rlka", [Ok(()), no]),
        ("rlwa", [Ok(()), Ok(())]),
    ] {
        set_rights(&work, rights);
        let file = File::open(&path).unwrap();
        let shared = locked(file.try_lock_shared());
        file.unlock().unwrap();
        assert_eq!([shared, locked(file.try_lock())], expected, "{rights}");
        file.unlock().unwrap();
        let by_fcntl = fcntl_lock(&file, FlockOperation::NonBlockingLockShared);
        assert_eq!(by_fcntl, expected[0], "{rights}");
    }
    set_rights(&work, "rwildka");
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn a_store_that_is_refused_is_told_by_close_and_by_fsync() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("refused").unwrap();
    for way in ["close", "fsync"] {
        let path = work.join(way);
        fs::write(&path, "old").unwrap();
        let mut file = File::options().read(true).write(true).open(&path).unwrap();
        set_rights(&two.path("work/refused"), "rlda");
        file.write_all(b"new").unwrap();
        if way == "fsync" {
            assert_eq!(code(file.sync_all()), Some(Errno::ACCESS));
        }
        assert_eq!(close(file), Some(Errno::ACCESS), "{way}");
        // It is not kept for better times.
        let dirty = || one.metrics().unwrap().sum("afs_dirty_files", &[]);
        assert!(eventually(SOON, || dirty() == 0.0), "{way}");
        set_rights(&two.path("work/refused"), "rwildka");
        for seen in [&path, &two.path("work/refused").join(way)] {
            assert_eq!(fs::read_to_string(seen).unwrap(), "old", "{way}");
        }
    }
    fs::remove_dir_all(&work).unwrap();
}
