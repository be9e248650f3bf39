//! Directories, mount points and links as stat(2) and readdir(3) tell of them.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Dir, Mode, OFlags, RenameFlags, open, renameat_with, rmdir, unlink};
use rustix::io::Errno;

use crate::shared;

/// The numbers of the entries of a directory.
fn listed(dir: &Path) -> HashMap<String, u64> {
    let file = open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let entries = Dir::new(file).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().to_str().unwrap().to_owned(), entry.ino()))
        .collect()
}

fn number(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().ino()
}

#[test]
fn dots_are_listed_with_the_numbers_of_where_they_lead() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let (top, home) = (mount.point(), mount.path(""));
    let work = mount.work("dots").unwrap();
    fs::create_dir_all(work.join("inner/deep")).unwrap();
    fs::write(work.join("file"), "x").unwrap();
    let by_number = top
        .join(".:mount")
        .join(format!("{}:work", home.file_name().unwrap().to_str().unwrap()));
    let cross = |path: &Path| assert!(fs::read_dir(path).is_ok());
    let same = |dir: &Path, above: &Path| {
        cross(dir);
        let found = listed(dir);
        assert_eq!(found["."], number(dir), "{}", dir.display());
        assert_eq!(found[".."], number(above), "above {}", dir.display());
        for (name, ino) in found {
            if name != "." && name != ".." {
                assert_eq!(ino, number(&dir.join(&name)), "{name} in {}", dir.display());
            }
        }
    };
    assert_eq!(listed(&top)["."], number(&top));
    same(&home, &top);
    same(&mount.path("work"), &home);
    same(&mount.path("home"), &home);
    same(&work, &mount.path("work"));
    same(&work.join("inner"), &work);
    same(&work.join("inner/deep"), &work.join("inner"));
    // Moved up, to below the root of the volume, and by another way to the same volume.
    fs::rename(work.join("inner/deep"), mount.path("work/dots-moved")).unwrap();
    same(&mount.path("work/dots-moved"), &mount.path("work"));
    same(&by_number, &top.join(".:mount"));
    same(&by_number.join("dots-moved"), &by_number);
    same(&mount.path("work/dots-moved"), &mount.path("work"));
    fs::remove_dir(mount.path("work/dots-moved")).unwrap();
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn a_mount_point_has_times_of_its_own_until_it_is_crossed() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let seen = || {
        let seen = one.path("work").metadata().unwrap();
        (seen.mtime(), seen.uid(), seen.mode() & 0o7777)
    };
    let made_up = seen();
    // The time of the root is set to one that the mount point cannot have.
    let root = File::open(two.path("work")).unwrap();
    let before = root.metadata().unwrap().modified().unwrap();
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_001);
    root.set_modified(later).unwrap();
    assert_eq!(seen(), made_up);
    assert_ne!(made_up.0, 1_000_000_001);
    assert_eq!(made_up.2, 0o755);
    assert!(fs::read_dir(one.path("work")).unwrap().count() < 1_000);
    assert_eq!(seen().0, 1_000_000_001);
    root.set_modified(before).unwrap();
}

#[test]
fn a_mount_point_stays_where_it_is() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("in-place").unwrap();
    let home = mount.path("").file_name().unwrap().to_str().unwrap().to_owned();
    let [point, above] = ["tiny", "README"].map(|name| mount.point().join(format!(".{home}")).join(name));
    for crossed in [false, true] {
        if crossed {
            fs::read_dir(&point).unwrap();
        }
        let refused = [Errno::ACCESS, Errno::NOTDIR];
        assert!(
            refused.contains(&rmdir(&point).unwrap_err()),
            "{:?}",
            rmdir(&point)
        );
        assert_eq!(unlink(&point), Err(Errno::ISDIR));
        let moved = |from: &Path, to: &Path| renameat_with(CWD, from, CWD, to, RenameFlags::empty());
        assert_eq!(moved(&work, &point), Err(Errno::XDEV));
        assert_eq!(moved(&point, &work), Err(Errno::XDEV));
        assert_eq!(moved(&above, &point), Err(Errno::ISDIR));
        assert!(point.metadata().unwrap().is_dir());
    }
    // The root of a volume from within.
    assert_eq!(rmdir(mount.path("work/.")), Err(Errno::INVAL));
    assert_eq!(rmdir(work.join("..")), Err(Errno::NOTEMPTY));
    fs::remove_dir(&work).unwrap();
}

#[test]
fn links_are_counted_and_changes_have_a_time() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("counted").unwrap();
    let there = two.path("work/counted");
    let links = |path: &Path| path.metadata().unwrap().nlink();
    assert_eq!(links(&work), 2);
    fs::create_dir(work.join("a")).unwrap();
    fs::create_dir(work.join("b")).unwrap();
    let file = work.join("file");
    fs::write(&file, "x").unwrap();
    assert_eq!(
        (links(&work), links(&there)),
        (4, 4),
        "one for each directory in it"
    );
    fs::rename(work.join("b"), work.join("a/b")).unwrap();
    assert_eq!((links(&work), links(&work.join("a"))), (3, 3));
    fs::remove_dir(work.join("a/b")).unwrap();
    assert_eq!((links(&work.join("a")), links(&there.join("a"))), (2, 2));
    fs::hard_link(&file, work.join("second")).unwrap();
    assert_eq!((links(&file), links(&there.join("second"))), (2, 2));
    let open = File::open(&file).unwrap();
    fs::remove_file(work.join("second")).unwrap();
    assert_eq!(open.metadata().unwrap().nlink(), 1);

    // What is new has the group of its directory, which only administrators of the cell change.
    let group = work.metadata().unwrap().gid();
    assert_eq!(file.metadata().unwrap().gid(), group);
    let other = if group == 7 { 8 } else { 7 };
    let refused = chown(&file, None, Some(other)).unwrap_err();
    // The kernel itself refuses a number that the user namespace does not have.
    let refusals = [Some(Errno::PERM), Some(Errno::INVAL)];
    assert!(refusals.contains(&Errno::from_io_error(&refused)), "{refused}");
    chown(&file, None, Some(group)).unwrap();

    // The server's time of the last change, never before that of the contents.
    let times = || {
        let seen = file.metadata().unwrap();
        (seen.mtime(), seen.ctime())
    };
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    open.set_modified(old).unwrap();
    let (modified, changed) = times();
    assert!(modified == 1_000_000_000 && changed > 1_600_000_000, "{changed}");
    std::thread::sleep(Duration::from_millis(1_100));
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let (modified, later) = times();
    assert!(
        modified == 1_000_000_000 && later > changed,
        "{later} after {changed}"
    );
    let future = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    open.set_modified(future).unwrap();
    assert_eq!(times(), (4_000_000_000, 4_000_000_000));
    // What is removed while it is open has a name until it is closed: its directory is not empty.
    fs::remove_file(&file).unwrap();
    assert_eq!(rmdir(&work), Err(Errno::NOTEMPTY));
    drop(open);
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn a_link_may_be_1024_bytes_long() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("long-links").unwrap();
    let link = |length: usize| {
        let path = work.join(length.to_string());
        let text = "t".repeat(length);
        symlink(&text, &path)?;
        let read = fs::read_link(&path)?;
        assert_eq!(read.as_os_str(), text.as_str());
        Ok::<_, std::io::Error>(path.symlink_metadata()?.len())
    };
    let lengths = [1023, 1024, 1025].map(|length| link(length).map_err(|error| Errno::from_io_error(&error)));
    let long = Err(Some(Errno::NAMETOOLONG));
    assert_eq!(lengths, [Ok(1023), Ok(1024), long]);
    fs::remove_dir_all(&work).unwrap();
}
