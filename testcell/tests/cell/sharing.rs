//! What two clients, or two openings, see of one file.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::io::Errno;
use testcell::{MountOptions, eventually, run};

use crate::rights::close;
use crate::shared;

const LIMIT: Duration = Duration::from_secs(20);

fn python(script: &str, path: &Path) {
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(path);
    run(LIMIT, &mut command).unwrap().ok().unwrap();
}

#[test]
fn a_mapping_is_stored_without_msync() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("unsynced").unwrap();
    // The descriptor goes first, or the mapping, or both with the process.
    for (name, end) in [
        (
            "descriptor",
            "file.close(); map[5000:5004] = b'MMAP'; map.close()",
        ),
        ("mapping", "map[5000:5004] = b'MMAP'; map.close(); file.close()"),
        ("process", "map[5000:5004] = b'MMAP'; import os; os._exit(0)"),
    ] {
        let path = work.join(name);
        fs::write(&path, vec![b'a'; 10_000]).unwrap();
        let seen = two.path("work/unsynced").join(name);
        assert!(fs::read(&seen).unwrap().iter().all(|byte| *byte == b'a'));
        let script = format!(
            "import mmap, sys\nfile = open(sys.argv[1], 'r+b')\nmap = mmap.mmap(file.fileno(), 0)\n{end}"
        );
        python(&script, &path);
        let stored = || fs::read(&seen).is_ok_and(|all| &all[5000..5004] == b"MMAP" && all.len() == 10_000);
        assert!(eventually(LIMIT, stored), "{name}");
    }
    // What is private stays so.
    let path = work.join("mapping");
    let before = fs::read(&path).unwrap();
    let script = "import mmap, sys
with open(sys.argv[1], 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as map:
    map[:4] = b'MINE'
    assert map[:4] == b'MINE'";
    python(script, &path);
    assert!(fs::read(&path).unwrap() == before);
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn who_appends_at_the_same_time_as_another_client_is_told() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("appended").unwrap();
    let (path, there) = (work.join("file"), two.path("work/appended/file"));
    fs::write(&path, "begin ").unwrap();
    let append = |path: &Path| File::options().append(true).open(path).unwrap();
    let lines = |of: &Path| fs::read_to_string(of).unwrap();
    // One after the other.
    for (path, text) in [(&path, "one "), (&there, "two ")] {
        append(path).write_all(text.as_bytes()).unwrap();
    }
    assert_eq!(lines(&path), "begin one two ");
    // Two openings here are one file; those of another client begin at the same end.
    let (mut first, mut second, mut other) = (append(&path), append(&path), append(&there));
    first.write_all(b"a").unwrap();
    second.write_all(b"b").unwrap();
    other.write_all(b"C").unwrap();
    drop((first, second));
    // It has heard by then that they were faster.
    assert_eq!(close(other), Some(Errno::STALE));
    assert_eq!(lines(&path), "begin one two ab");
    assert!(eventually(LIMIT, || lines(&there) == "begin one two ab"));
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn a_file_that_another_client_removes_is_gone() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let work = one.work("removed").unwrap();
    let (path, there) = (work.join("file"), two.path("work/removed/file"));
    fs::write(&there, "content").unwrap();
    let mut file = File::options().read(true).write(true).open(&path).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    fs::remove_file(&there).unwrap();
    assert!(eventually(LIMIT, || !path.exists()));
    let stale =
        |result: std::io::Result<()>| Errno::from_io_error(&result.unwrap_err()) == Some(Errno::STALE);
    file.write_all_at(b"new", 0).unwrap();
    assert!(stale(file.sync_all()));
    assert_eq!(close(file), Some(Errno::STALE));
    fs::remove_dir_all(&work).unwrap();
}

#[test]
fn what_a_crash_has_left_hidden_goes_with_the_next_mount() {
    let cell = shared();
    let cache = tempfile::tempdir().unwrap();
    let options = MountOptions::default().cache_dir(cache.path());
    let two = cell.mount(2).unwrap();
    let mount = cell.mount_with(1, &options).unwrap();
    let work = mount.work("hidden").unwrap();
    fs::write(work.join("file"), "x").unwrap();
    let open = File::open(work.join("file")).unwrap();
    fs::remove_file(work.join("file")).unwrap();
    let names = || {
        let entries = fs::read_dir(two.path("work/hidden")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names.collect::<Vec<_>>()
    };
    assert!(
        names().len() == 1 && names()[0].to_str().unwrap().starts_with(".__afs"),
        "{:?}",
        names()
    );
    mount.kill().unwrap();
    drop(open);
    drop(mount);
    assert_eq!(names().len(), 1);
    let again = cell.mount_with(1, &options).unwrap();
    assert!(eventually(LIMIT, || names().is_empty()), "{:?}", names());
    fs::remove_dir(again.path("work/hidden")).unwrap();
}
