//! The lines of docs/semantics.md that no other test checks.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{
    Access, AtFlags, CWD, FallocateFlags, Mode, OFlags, RenameFlags, accessat, copy_file_range, fallocate,
    open, renameat_with, statvfs,
};
use rustix::io::Errno;
use testcell::{MountOptions, eventually, run};

use crate::shared;

const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn code<T: std::fmt::Debug>(result: std::io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&result.unwrap_err())
}

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<(), Errno> {
    renameat_with(CWD, from, CWD, to, flags)
}

#[test]
fn names_are_bytes() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("bytes").unwrap();
    for name in [&b"two\nlines"[..], b"\xff\xfe", b" ", b"*", "\u{e4}".as_bytes()] {
        let path = work.join(OsStr::from_bytes(name));
        fs::write(&path, name).unwrap();
        assert_eq!(fs::read(&path).unwrap(), name);
    }
    assert_eq!(fs::read_dir(&work).unwrap().count(), 5);
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn a_rename_replaces_or_not_as_asked() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("renames").unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| work.join(name));
    fs::write(&a, "a").unwrap();
    fs::write(&b, "b").unwrap();
    fs::create_dir(work.join("sub")).unwrap();
    let not_over = RenameFlags::NOREPLACE;
    assert_eq!(rename(&a, &b, not_over), Err(Errno::EXIST));
    rename(&a, &c, not_over).unwrap();
    assert!(!a.exists());
    assert_eq!(
        (
            fs::read_to_string(&c).unwrap().as_str(),
            c.metadata().unwrap().nlink()
        ),
        ("a", 1)
    );
    assert_eq!(
        rename(&c, &work.join("sub/c"), not_over),
        Err(Errno::INVAL),
        "it would be a race"
    );
    assert_eq!(
        rename(&work.join("sub"), &work.join("other"), not_over),
        Err(Errno::INVAL)
    );
    assert_eq!(rename(&b, &c, RenameFlags::EXCHANGE), Err(Errno::INVAL));
    assert_eq!(code(fs::rename(&c, work.join("sub"))), Some(Errno::ISDIR));
    // A file with two names stays in its directory.
    fs::hard_link(&b, work.join("second")).unwrap();
    assert_eq!(code(fs::rename(&b, work.join("sub/b"))), Some(Errno::XDEV));
    assert_eq!(
        code(fs::rename(&c, mount.path("tiny/c"))),
        Some(Errno::XDEV),
        "another volume"
    );
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn links_are_of_files_in_one_directory() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("links").unwrap();
    fs::create_dir(work.join("sub")).unwrap();
    fs::write(work.join("file"), "x").unwrap();
    assert_eq!(
        code(fs::hard_link(work.join("sub"), work.join("other"))),
        Some(Errno::PERM)
    );
    fs::hard_link(work.join("file"), work.join("second")).unwrap();
    fs::remove_file(work.join("file")).unwrap();
    assert_eq!(fs::read_to_string(work.join("second")).unwrap(), "x");
    let target = "t".repeat(1023);
    symlink(&target, work.join("link")).unwrap();
    assert_eq!(
        fs::read_link(work.join("link")).unwrap().as_os_str(),
        target.as_str()
    );
    assert_eq!(
        code(symlink("t".repeat(1025), work.join("longer"))),
        Some(Errno::NAMETOOLONG)
    );
    assert_eq!(code(fs::remove_file(work.join("sub"))), Some(Errno::ISDIR));
    assert_eq!(code(fs::remove_dir(work.join("second"))), Some(Errno::NOTDIR));
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn times_are_seconds_and_owners_are_of_the_cell() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("times").unwrap();
    let path = work.join("file");
    fs::write(&path, "x").unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_000_900);
    file.set_modified(time).unwrap();
    let seen = path.metadata().unwrap();
    assert_eq!((seen.mtime(), seen.mtime_nsec()), (1_000_000_000, 0));
    assert_eq!(
        (seen.atime(), seen.atime_nsec()),
        (1_000_000_000, 0),
        "there is no time of access"
    );
    file.set_times(fs::FileTimes::new().set_accessed(SystemTime::now()))
        .unwrap();
    assert_eq!(path.metadata().unwrap().atime(), 1_000_000_000);
    drop(file);
    // Bits are kept and shown; those that would give rights of their owner away are not honoured.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o755);
    assert_eq!(code(chown(&path, Some(0), None)), Some(Errno::PERM));
    // What the bits of a directory say is not asked.
    fs::set_permissions(&work, fs::Permissions::from_mode(0o000)).unwrap();
    fs::write(work.join("second"), "x").unwrap();
    fs::set_permissions(&work, fs::Permissions::from_mode(0o755)).unwrap();
    accessat(CWD, &path, Access::READ_OK | Access::WRITE_OK, AtFlags::empty()).unwrap();
    let home = mount.path("home/alice");
    assert_eq!(
        accessat(CWD, &home, Access::READ_OK, AtFlags::empty()),
        Err(Errno::ACCESS)
    );
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn files_open_write_and_end_as_posix_has_it() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("opening").unwrap();
    let path = work.join("file");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let again = File::options().write(true).create_new(true).open(&path);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
    file.write_all(b"0123456789").unwrap();
    let mut end = File::options().append(true).open(&path).unwrap();
    end.write_all(b"end").unwrap();
    assert_eq!(file.read_at(&mut [0; 9], 8).unwrap(), 5);
    assert_eq!(
        file.read_at(&mut [0; 9], 1 << 40).unwrap(),
        0,
        "behind the end there is nothing"
    );
    assert_eq!(
        code(file.write_at(b"x", i64::MAX as u64)),
        Some(Errno::INVAL),
        "no offset goes so far"
    );
    // Holes are told as data, up to the end of the file.
    file.set_len(100_000).unwrap();
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)).unwrap(),
        100_000
    );
    assert_eq!(
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(50_000)).unwrap(),
        50_000
    );
    fallocate(&file, FallocateFlags::empty(), 0, 4096).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 100_000, "there is room for that");
    fallocate(&file, FallocateFlags::empty(), 90_000, 20_000).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 110_000);
    let mut zeros = [1; 9];
    file.read_exact_at(&mut zeros, 109_991).unwrap();
    assert_eq!(zeros, [0; 9]);
    // The quota, or the partition if there is none.
    let too_much = fallocate(&file, FallocateFlags::empty(), 0, 1 << 40);
    assert!(
        matches!(too_much, Err(Errno::DQUOT | Errno::NOSPC)),
        "{too_much:?}"
    );
    assert_eq!(file.metadata().unwrap().len(), 110_000, "as it was");
    file.sync_all().unwrap();
    let keep = FallocateFlags::KEEP_SIZE;
    for other in [
        keep,
        keep | FallocateFlags::PUNCH_HOLE,
        FallocateFlags::ZERO_RANGE,
        FallocateFlags::COLLAPSE_RANGE,
    ] {
        assert_eq!(
            fallocate(&file, other, 0, 4096),
            Err(Errno::OPNOTSUPP),
            "{other:?}"
        );
    }
    let said = run(LIMIT, std::process::Command::new("lsattr").arg(&path)).unwrap();
    assert!(
        !said.status.success()
            && (said.stderr.contains("not supported") || said.stderr.contains("Inappropriate ioctl")),
        "{}",
        said.stderr
    );
    assert_eq!(
        open(&work, OFlags::TMPFILE | OFlags::RDWR, Mode::RWXU).unwrap_err(),
        Errno::OPNOTSUPP
    );
    // O_TRUNC, and a copy within the mount.
    let copy = File::create(work.join("copy")).unwrap();
    let mut copied = 0;
    while copied < 110_000 {
        let part = copy_file_range(
            &file,
            Some(&mut (copied as u64)),
            &copy,
            Some(&mut (copied as u64)),
            110_000,
        );
        copied += part.unwrap();
    }
    drop(copy);
    assert!(fs::read(work.join("copy")).unwrap() == fs::read(&path).unwrap());
    drop(File::create(&path).unwrap());
    assert_eq!(path.metadata().unwrap().len(), 0);
    let direct = File::options()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(work.join("copy"));
    let mut all = Vec::new();
    direct.unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 110_000);
    drop((file, end));
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn a_mapping_is_written_and_read_by_others() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("mapped").unwrap();
    let path = work.join("file");
    fs::write(&path, vec![b'a'; 10_000]).unwrap();
    // Python maps, changes, flushes and closes.
    let script = "import mmap, sys
with open(sys.argv[1], 'r+b') as file, mmap.mmap(file.fileno(), 0) as map:
    assert map[5000:5004] == b'aaaa'
    map[5000:5004] = b'MMAP'
    map.flush()";
    run(
        LIMIT,
        std::process::Command::new("python3")
            .args(["-c", script])
            .arg(&path),
    )
    .unwrap()
    .ok()
    .unwrap();
    let seen = two.path("work/mapped/file");
    let there = || fs::read(&seen).is_ok_and(|all| &all[5000..5004] == b"MMAP" && all.len() == 10_000);
    assert!(eventually(LIMIT, there));
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn places_have_numbers_and_a_way_up() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let top = mount.path("").canonicalize().unwrap();
    let (root, volume) = (top.metadata().unwrap(), top.join("work").metadata().unwrap());
    assert_eq!(root.dev(), volume.dev(), "one device");
    assert_ne!(root.ino(), volume.ino());
    assert_eq!(top.join("work/..").metadata().unwrap().ino(), root.ino());
    assert_eq!(
        top.join("work").metadata().unwrap().ino(),
        volume.ino(),
        "and the numbers stay"
    );
    let above = top.parent().unwrap();
    assert_eq!(code(fs::create_dir(above.join("new.example"))), Some(Errno::ROFS));
    let space = statvfs(top.join("tiny")).unwrap();
    assert_eq!(space.f_blocks * space.f_frsize, 1_000 << 10, "the quota");
    assert!(space.f_bavail <= space.f_blocks && space.f_namemax == 255);
}

#[test]
fn mount_points_are_seen_before_they_are_crossed() {
    let cell = shared();
    // There is a folder in the volume: its root has three links.
    let work = cell.mount(2).unwrap().work("crossed").unwrap();
    let mount = cell.mount(1).unwrap();
    let asked = || mount.metrics().unwrap().sum("afs_vldb_lookups_total", &[]);
    let before = asked();
    let see = |dir: &Path, name: &OsStr| {
        let mut entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let entry = entries.find(|entry| entry.file_name() == name).unwrap();
        let seen = entry.metadata().unwrap();
        assert_eq!(entry.ino(), seen.ino(), "{name:?}");
        assert!(seen.is_dir() && entry.file_type().unwrap().is_dir(), "{name:?}");
        (seen.ino(), seen.nlink(), seen.mode() & 0o7777)
    };
    let top = mount.path("");
    see(&mount.point(), top.file_name().unwrap());
    let (ino, links, mode) = see(&top, OsStr::new("work"));
    assert_eq!((links, mode), (2, 0o755), "made up");
    assert_eq!(asked(), before, "nobody was asked where it is");
    assert!(fs::read_dir(top.join("work")).unwrap().count() > 0);
    assert!(asked() > before);
    let (after, links, _) = see(&top, OsStr::new("work"));
    assert!(after == ino && links > 2, "{links}");
    drop(mount);
    let at_once = MountOptions::default().argument("--fakestat").argument("off");
    let mount = cell.mount_with(1, &at_once).unwrap();
    assert!(mount.path("work").metadata().unwrap().nlink() > 2);
    drop(mount);
    let mount = cell.mount(2).unwrap();
    fs::remove_dir(mount.path("work").join(work.file_name().unwrap())).unwrap();
}

#[test]
fn what_is_open_shows_what_others_have_closed() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("sharing").unwrap();
    let path = work.join("file");
    fs::write(&path, "old").unwrap();
    let mut reader = File::open(two.path("work/sharing/file")).unwrap();
    let mut writer = File::options().write(true).open(&path).unwrap();
    writer.write_all(b"new").unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old", "not before close() or fsync()");
    drop(writer);
    let read = || {
        let mut text = String::new();
        reader.seek(SeekFrom::Start(0)).unwrap();
        reader.read_to_string(&mut text).unwrap();
        text == "new"
    };
    assert!(eventually(LIMIT, read), "an open file follows");
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn some_names_stand_for_others() {
    let cell = shared();
    let sysnames = MountOptions::default()
        .argument("--sysname")
        .argument("first_linux26,second_linux26");
    let mount = cell.mount_with(1, &sysnames).unwrap();
    let (top, home) = (mount.point(), mount.path(""));
    let home = home.file_name().unwrap();
    assert_eq!(fs::read_link(top.join("@cell")).unwrap(), home);
    assert_eq!(
        fs::read_link(top.join(".@cell")).unwrap().as_os_str(),
        format!(".{}", home.display()).as_str()
    );
    let readme = fs::read(mount.path("README")).unwrap();
    assert_eq!(fs::read(top.join("@cell/README")).unwrap(), readme);
    // Any volume, whether a mount point leads to it or not.
    let named = |volume: &str| top.join(".:mount").join(format!("{}:{volume}", home.display()));
    assert_eq!(fs::read(named("root.cell").join("README")).unwrap(), readme);
    for absent in ["no.such.volume", "", "x:y:z"] {
        assert_eq!(code(named(absent).metadata()), Some(Errno::NOENT), "{absent:?}");
    }
    assert_eq!(fs::read_dir(top.join(".:mount")).unwrap().count(), 0);
    assert_eq!(code(fs::create_dir(top.join(".:mount/new"))), Some(Errno::ROFS));
    let listed = fs::read_dir(&top)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert!(!listed.into_iter().any(|name| name.as_bytes().contains(&b'@')));

    let work = mount.work("systems").unwrap();
    let same = named("work").join("systems").metadata().unwrap();
    assert_eq!(same.ino(), work.metadata().unwrap().ino());
    let file = work.join("lib@sys/file");
    assert_eq!(code(fs::read(&file)), Some(Errno::NOENT));
    for system in ["second_linux26", "first_linux26"] {
        fs::create_dir(work.join(format!("lib{system}"))).unwrap();
        fs::write(work.join(format!("lib{system}/file")), system).unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            system,
            "the first that there is"
        );
    }
    assert_eq!(code(fs::write(work.join("new@sys"), "x")), Some(Errno::INVAL));
    fs::remove_dir_all(&work).unwrap();
}
