//! A directory that takes no more names: 65,000 places of 32 bytes, of which the longest names take nine each.

use std::fs::{self, File};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use testcell::local;

#[test]
fn a_full_directory_takes_no_long_name() {
    let cell = local();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("full").unwrap();
    let first = work.join("first");
    File::create(&first).unwrap();
    let name = |number: usize| work.join(format!("{number:0255}"));
    let full = (0..).find_map(|number| {
        fs::hard_link(&first, name(number))
            .err()
            .map(|error| (number, error))
    });
    let (count, error) = full.unwrap();
    let too_big = Some(Errno::FBIG.raw_os_error());
    assert_eq!(error.raw_os_error(), too_big);
    assert!((7_000..7_300).contains(&count), "{count}");
    let long = name(count);
    assert_eq!(File::create(&long).unwrap_err().raw_os_error(), too_big);
    assert_eq!(fs::create_dir(&long).unwrap_err().raw_os_error(), too_big);
    let renamed = renameat_with(CWD, &first, CWD, &long, RenameFlags::empty());
    assert_eq!(renamed, Err(Errno::FBIG));
    // A short one has room still, and so have others once one has gone.
    File::create(work.join("short")).unwrap();
    assert_eq!(fs::read_dir(&work).unwrap().count(), count + 2);
    fs::remove_file(name(0)).unwrap();
    File::create(&long).unwrap();
    fs::remove_dir_all(&work).unwrap();
}
