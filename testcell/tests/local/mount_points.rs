//! Mount points where everybody may change names, which only an administrator of a cell makes.

use std::fs::{self, File};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with, rmdir, unlink};
use rustix::io::Errno;
use testcell::local;

#[test]
fn a_mount_point_is_a_name_and_leads_to_a_volume_or_not() {
    let cell = local();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("points").unwrap();
    let [dead, live, dir] = ["dead", "live", "dir"].map(|name| work.join(name));
    cell.mount_volume("work", "points/dead", "#no.such.volume.")
        .unwrap();
    cell.mount_volume("work", "points/live", "#tiny.").unwrap();
    fs::create_dir(&dir).unwrap();
    fs::write(work.join("file"), "x").unwrap();
    let code = |result: std::io::Result<()>| Errno::from_io_error(&result.unwrap_err());
    let moved = |from: &Path, to: &Path| renameat_with(CWD, from, CWD, to, RenameFlags::empty());
    assert!(dead.metadata().unwrap().is_dir(), "seen, and not crossed");
    assert_eq!(code(fs::read_dir(&dead).map(drop)), Some(Errno::NODEV));
    assert_eq!(code(File::create(dead.join("new")).map(drop)), Some(Errno::NODEV));
    assert!(dead.metadata().unwrap().is_dir(), "and seen still");
    for crossed in [false, true] {
        if crossed {
            fs::read_dir(&live).unwrap();
        }
        for point in [&dead, &live] {
            assert_eq!(rmdir(point), Err(Errno::NOTDIR));
            assert_eq!(unlink(point), Err(Errno::ISDIR));
            assert_eq!(moved(&work.join("file"), point), Err(Errno::ISDIR));
            assert_eq!(moved(&dir, point), Err(Errno::NOTDIR));
            // It is a name like another one, and leads where it led.
            let number = |path: &Path| fs::read_dir(path).map(Iterator::count).ok();
            let before = number(point);
            moved(point, &work.join("renamed")).unwrap();
            assert_eq!(number(&work.join("renamed")), before);
            moved(&work.join("renamed"), point).unwrap();
        }
    }
}
