//! What a system call costs of calls to the file server, through the kernel: each is printed (`--nocapture`), and is the least
//! that the protocol allows.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use testcell::{LocalCell, MountOptions, local};

const FILES: u64 = 50;

/// How often something asks for each procedure.
type Calls = BTreeMap<&'static str, u64>;

/// The calls that were made while something was done, for each time that it was done.
fn each(cell: &LocalCell, what: &str, mut does: impl FnMut(u64)) -> Calls {
    let before = cell.all_calls();
    for number in 0..FILES {
        does(number);
    }
    since(cell, what, &before)
}

/// The calls that were made since.
fn since(cell: &LocalCell, what: &str, before: &Calls) -> Calls {
    let mut made = cell.all_calls();
    made.retain(|procedure, count| {
        *count -= before[procedure];
        // Of the server itself, not of what is done.
        *count > 0 && !matches!(*procedure, "GetTime" | "GetCapabilities")
    });
    let shown = made
        .iter()
        .map(|(procedure, count)| format!("{:.2} {procedure}", *count as f64 / FILES as f64));
    let shown: Vec<_> = shown.collect();
    println!(
        "{what:<24} {}",
        if shown.is_empty() {
            "none".to_owned()
        } else {
            shown.join(", ")
        }
    );
    made
}

fn one_each(procedure: &'static str) -> Calls {
    Calls::from([(procedure, FILES)])
}

#[test]
fn each_system_call_asks_the_server_as_little_as_can_be() {
    let cell = local();
    let mount = cell.mount(1).unwrap();
    let folder = mount.work("calls").unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    let name = |number: u64| folder.join(format!("file-{number}"));
    let none = Calls::new();

    let mut open = Vec::new();
    let made = each(&cell, "open, O_CREAT", |number| {
        open.push(File::create_new(name(number)).unwrap());
    });
    assert_eq!(made, one_each("CreateFile"));
    let made = each(&cell, "write of 4 KiB", |number| {
        open[number as usize].write_all(&[number as u8; 4096]).unwrap();
    });
    assert_eq!(made, none);
    // In the order in which they were made.
    let mut open = open.into_iter();
    let made = each(&cell, "close", |_| drop(open.next()));
    assert_eq!(made, one_each("StoreData64"));

    let made = each(&cell, "stat", |number| {
        assert_eq!(name(number).metadata().unwrap().len(), 4096);
    });
    assert_eq!(made, none);
    let made = each(&cell, "open, read, close", |number| {
        let mut data = Vec::new();
        File::open(name(number)).unwrap().read_to_end(&mut data).unwrap();
        assert_eq!(data, [number as u8; 4096]);
    });
    assert_eq!(made, none);
    let made = each(&cell, "chmod", |number| {
        fs::set_permissions(name(number), PermissionsExt::from_mode(0o600)).unwrap();
    });
    assert_eq!(made, one_each("StoreStatusOf"));
    // As tar and rsync do it: what is set first goes with the data, and comes back from the server.
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let write = |number| {
        let mut file = File::options().write(true).open(name(number)).unwrap();
        file.write_all(b"new").unwrap();
        file
    };
    let made = each(&cell, "write, futimens, close", |number| {
        write(number).set_modified(long_ago).unwrap();
    });
    assert_eq!(made, one_each("StoreData64"));
    assert_eq!(name(7).metadata().unwrap().modified().unwrap(), long_ago);
    let made = each(&cell, "write, fchmod, close", |number| {
        write(number)
            .set_permissions(PermissionsExt::from_mode(0o640))
            .unwrap();
    });
    assert_eq!(made, one_each("StoreData64"));
    assert_eq!(name(7).metadata().unwrap().mode() & 0o7777, 0o640);
    let made = each(&cell, "futimens", |number| {
        let file = File::options().write(true).open(name(number)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    });
    assert_eq!(made, one_each("StoreStatusOf"));
    let renamed = |path: &Path| path.with_extension("renamed");
    let made = each(&cell, "rename", |number| {
        fs::rename(name(number), renamed(&name(number))).unwrap();
    });
    assert_eq!(made, one_each("Rename"));
    let made = each(&cell, "unlink", |number| {
        fs::remove_file(renamed(&name(number))).unwrap();
    });
    assert_eq!(made, one_each("RemoveFile"));
    let made = each(&cell, "mkdir", |number| fs::create_dir(name(number)).unwrap());
    assert_eq!(made, one_each("MakeDir"));
    let made = each(&cell, "rmdir", |number| fs::remove_dir(name(number)).unwrap());
    assert_eq!(made, one_each("RemoveDir"));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

/// With `--store-behind` all of it is one call, behind everything.
#[test]
fn what_is_written_and_set_is_stored_behind_in_one_call() {
    let cell = local();
    let cache = tempfile::tempdir().unwrap();
    let options = MountOptions::default()
        .argument("--store-behind")
        .cache_dir(cache.path());
    let mount = cell.mount_with(1, &options).unwrap();
    let folder = mount.work("behind").unwrap();
    let other = cell.mount(2).unwrap();
    let before = cell.all_calls();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for number in 0..FILES {
        let mut file = File::create_new(folder.join(format!("file-{number}"))).unwrap();
        file.write_all(b"new").unwrap();
        file.set_permissions(PermissionsExt::from_mode(0o640)).unwrap();
        file.set_modified(long_ago).unwrap();
        let shown = file.metadata().unwrap();
        assert_eq!(
            (shown.mode() & 0o7777, shown.modified().unwrap()),
            (0o640, long_ago)
        );
    }
    mount.umount(Duration::from_secs(20)).unwrap();
    let made = since(&cell, "the same, stored behind", &before);
    assert_eq!(made["CreateFile"], FILES);
    assert_eq!(made["StoreData64"], FILES);
    assert!(!made.contains_key("StoreStatusOf"));
    for number in 0..FILES {
        let path = other.path("work/behind").join(format!("file-{number}"));
        assert_eq!(fs::read(&path).unwrap(), b"new");
        let shown = path.metadata().unwrap();
        assert_eq!(
            (shown.mode() & 0o7777, shown.modified().unwrap()),
            (0o640, long_ago)
        );
    }
    fs::remove_dir_all(other.path("work/behind")).unwrap();
}

/// Where we may say so.
#[test]
fn the_kernel_reads_ahead_as_far_as_it_was_told() {
    let cell = local();
    let mount = cell.mount(1).unwrap();
    let device = mount.path("").metadata().unwrap().dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let limit = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    let told = fs::read_to_string(&limit).unwrap();
    if fs::write(&limit, &told).is_ok() {
        assert_eq!(told.trim(), "256");
    }
}
