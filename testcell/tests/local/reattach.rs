//! Mounts that survive the process that serves them: killed, replaced, and left alone for too long.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{sleep, spawn};
use std::time::Duration;

use testcell::{eventually, local};

use crate::passthrough::{again, data, holds, is_allowed, lent, with_cache};

/// A process that does something over and over until it is told to stop. Not this process: a child of it closes the files of
/// the mount before it becomes a server, and would wait for itself.
struct Worker(Child);

impl Worker {
    fn start(what: &str, places: &[&Path]) -> io::Result<Self> {
        const PROGRAM: &str = "
import os, select, sys
what, places = sys.argv[1], sys.argv[2:]
def small():
    assert open(places[0] + '/small').read() == 'small'
held = os.open(places[0] + '/big', os.O_RDONLY) if what == 'held' else None
def hold():
    at = times * 4099 % 2900000
    # The page cache answers again what it has answered.
    os.posix_fadvise(held, 0, 0, os.POSIX_FADV_DONTNEED)
    assert os.pread(held, 5000, at) == bytes((at + i) // 7 % 256 for i in range(5000))
def names():
    assert len(os.listdir(places[1])) == 200
def attributes():
    found = os.stat(places[0] + '/small')
    assert (found.st_ino, found.st_size) == (first.st_ino, 5)
    assert not os.path.exists(places[0] + '/none')
first = os.stat(places[0])
if what == 'attributes':
    first = os.stat(places[0] + '/small')
def make():
    one, two = places[0] + '/%d' % times, places[0] + '/%d.new' % times
    with open(one, 'w') as file:
        file.write(str(times))
    os.rename(one, two)
    assert open(two).read() == str(times)
    os.remove(two)
does = {'small': small, 'held': hold, 'names': names, 'attributes': attributes, 'make': make}[what]
times = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    does()
    times += 1
assert times > 3, times
";
        let worker = Command::new("python3")
            .args(["-c", PROGRAM, what])
            .args(places)
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Self(worker))
    }

    /// Did all go well?
    fn stop(mut self) -> io::Result<bool> {
        drop(self.0.stdin.take());
        Ok(self.0.wait()?.success())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn whole(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

/// A process that has a file open for writing, and tells what came of what it does with it. Not this process: a child of it
/// closes such files before it becomes a server, and would wait for itself.
struct Writer {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(path: &Path) -> io::Result<Self> {
        const PROGRAM: &str = "
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o644)
does = {'write': lambda: os.write(file, b'some '), 'fsync': lambda: os.fsync(file), 'close': lambda: os.close(file),
        'lock': lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB), 'unlock': lambda: fcntl.flock(file, fcntl.LOCK_UN),
        'lock part': lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)}
for word in sys.stdin:
    try:
        does[word.strip()]()
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
";
        let mut process = Command::new("python3")
            .args(["-c", PROGRAM])
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = process.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self {
            process,
            said: BufReader::new(said),
        })
    }

    /// The error that it gets; 0 is none.
    fn does(&mut self, what: &str) -> io::Result<i32> {
        let input = self.process.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{what}")?;
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        line.trim().parse().map_err(io::Error::other)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn readers_see_nothing_of_twenty_kills() {
    let cell = local();
    let kept = cell.keep(1, &[]).unwrap();
    let folder = kept.work("twenty").unwrap();
    fs::write(folder.join("small"), "small").unwrap();
    let big: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8).collect();
    fs::write(folder.join("big"), &big).unwrap();
    let listed = kept.path("ro/dir");
    let readers: Vec<_> = ["small", "held", "names", "attributes"]
        .iter()
        .map(|what| Worker::start(what, &[&folder, &listed]).unwrap())
        .collect();
    for _ in 0..20 {
        // Now and then in the middle of something.
        sleep(Duration::from_millis(150));
        kept.kill_server().unwrap();
        kept.serve().unwrap();
    }
    for reader in readers {
        assert!(reader.stop().unwrap());
    }
}

#[test]
fn what_was_closed_is_there_and_what_was_not_is_told() {
    let cell = local();
    let kept = cell.keep(1, &[]).unwrap();
    let folder = kept.work("writers").unwrap();
    fs::write(folder.join("closed"), "closed").unwrap();
    let mut synced = Writer::start(&folder.join("synced")).unwrap();
    assert_eq!(synced.does("write").unwrap(), 0);
    assert_eq!(synced.does("fsync").unwrap(), 0);
    let mut lost = Writer::start(&folder.join("lost")).unwrap();
    assert_eq!(lost.does("write").unwrap(), 0);
    kept.kill_server().unwrap();
    kept.serve().unwrap();

    assert_eq!(whole(&folder.join("closed")).unwrap(), "closed");
    assert_eq!(whole(&folder.join("synced")).unwrap(), "some ");
    for what in ["write", "fsync", "close"] {
        assert_eq!((what, synced.does(what).unwrap()), (what, 0));
    }
    assert_eq!(whole(&folder.join("synced")).unwrap(), "some some ");
    for what in ["fsync", "write", "close"] {
        assert_eq!((what, lost.does(what).unwrap()), (what, EIO));
    }
    // Opened again it is as good as any.
    fs::write(folder.join("lost"), "again").unwrap();
    assert_eq!(whole(&folder.join("lost")).unwrap(), "again");
    assert_eq!(cell.held("work").unwrap().len(), 3);
}

#[test]
fn a_removed_file_goes_with_its_last_close_whoever_serves_it() {
    let cell = local();
    let kept = cell.keep(1, &[]).unwrap();
    let folder = kept.work("removed").unwrap();
    let path = folder.join("file");
    let mut open = Writer::start(&path).unwrap();
    assert_eq!(open.does("fsync").unwrap(), 0);
    fs::remove_file(&path).unwrap();
    let hidden = || {
        let held = cell.held("work").ok()?;
        let names = held.keys().filter(|path| path.starts_with("removed/.__afs"));
        Some(names.count())
    };
    assert_eq!(hidden(), Some(1));
    kept.kill_server().unwrap();
    kept.serve().unwrap();
    for what in ["write", "fsync"] {
        assert_eq!((what, open.does(what).unwrap()), (what, 0));
    }
    assert_eq!(hidden(), Some(1), "it is open still");
    assert_eq!(open.does("close").unwrap(), 0);
    assert!(eventually(Duration::from_secs(5), || hidden() == Some(0)));
}

#[test]
fn locks_outlive_the_process() {
    const AGAIN: i32 = rustix::io::Errno::AGAIN.raw_os_error();
    let cell = local();
    let kept = cell.keep(1, &[]).unwrap();
    let other = cell.mount(2).unwrap();
    let folder = kept.work("locked").unwrap();
    let start = |path: &Path| Writer::start(path).unwrap();
    let [mut holder, mut here] = [0; 2].map(|_| start(&folder.join("file")));
    let [mut of_part, mut wants_part] = [0; 2].map(|_| start(&folder.join("parts")));
    let mut far = start(&other.path("work/locked/file"));
    assert_eq!(holder.does("lock").unwrap(), 0);
    assert_eq!(of_part.does("lock part").unwrap(), 0);
    let mut stand = || {
        assert_eq!(here.does("lock").unwrap(), AGAIN);
        assert_eq!(far.does("lock").unwrap(), AGAIN);
        assert_eq!(wants_part.does("lock part").unwrap(), AGAIN);
    };
    stand();
    kept.kill_server().unwrap();
    kept.serve().unwrap();
    stand();
    // The one that is told to go leaves them too.
    kept.serve().unwrap();
    stand();
    assert_eq!(holder.does("unlock").unwrap(), 0);
    assert_eq!(far.does("lock").unwrap(), 0);
    assert_eq!(wants_part.does("lock part").unwrap(), AGAIN);
    assert_eq!(of_part.does("close").unwrap(), 0);
    assert_eq!(wants_part.does("lock part").unwrap(), 0);
}

#[test]
fn an_upgrade_costs_nobody_anything() {
    let cell = local();
    let kept = cell.keep(1, &[]).unwrap();
    let folder = kept.work("upgrade").unwrap();
    let mut open = Writer::start(&folder.join("open")).unwrap();
    assert_eq!(open.does("write").unwrap(), 0);
    let maker = Worker::start("make", &[&folder]).unwrap();
    for _ in 0..3 {
        kept.serve().unwrap();
        sleep(Duration::from_millis(200));
    }
    assert!(kept.terminate_server().unwrap().success());
    kept.serve().unwrap();
    assert!(maker.stop().unwrap());
    for what in ["write", "fsync", "close"] {
        assert_eq!((what, open.does(what).unwrap()), (what, 0));
    }
    assert_eq!(whole(&folder.join("open")).unwrap(), "some some ");
}

#[test]
fn a_change_is_made_once() {
    let cell = local();
    let kept = cell.keep(1, &[]).unwrap();
    let folder = kept.work("once").unwrap();
    for name in ["removed", "renamed"] {
        fs::write(folder.join(name), name).unwrap();
    }
    fs::create_dir(folder.join("gone")).unwrap();
    // The server does it and does not say so; then nobody is there to hear it.
    let lost = |procedure: &str, change: Box<dyn FnOnce() -> io::Result<()> + Send>| {
        cell.fail(&format!("on 1 fs {procedure}: drop-reply")).unwrap();
        let calls = cell.calls(procedure);
        let waiting = spawn(change);
        assert!(eventually(Duration::from_secs(10), || cell.calls(procedure) > calls));
        sleep(Duration::from_millis(100));
        kept.kill_server().unwrap();
        kept.serve().unwrap();
        waiting.join().unwrap()
    };
    let at = |name: &str| folder.join(name);
    let path = at("removed");
    lost("RemoveFile", Box::new(move || fs::remove_file(path))).unwrap();
    let (from, to) = (at("renamed"), at("new"));
    lost("Rename", Box::new(move || fs::rename(from, to))).unwrap();
    let path = at("gone");
    lost("RemoveDir", Box::new(move || fs::remove_dir(path))).unwrap();
    let (from, to) = (at("new"), at("link"));
    lost("Link", Box::new(move || fs::hard_link(from, to))).unwrap();
    let path = at("made");
    lost("CreateFile", Box::new(move || fs::write(path, "made"))).unwrap();
    // Was it we who made the directory, or somebody else? Nobody knows.
    let path = at("directory");
    let made = lost("MakeDir", Box::new(move || fs::create_dir(path)));
    assert_eq!(made.unwrap_err().raw_os_error(), Some(EIO));
    let server = kept.metrics().unwrap();
    assert_eq!(
        server.sum("afs_fuse_attaches_total", &[("kind", "reattach")]),
        1.0
    );
    assert_eq!(
        server.sum("afs_fuse_resent_requests_total", &[("outcome", "failed")]),
        1.0
    );
    let keeper = kept.keeper_metrics().unwrap();
    assert_eq!(
        keeper.sum("afs_keeper_servers_total", &[("result", "given")]),
        7.0
    );
    assert_eq!(keeper.sum("afs_keeper_orphan_seconds_count", &[]), 6.0);
    assert_eq!(keeper.sum("afs_keeper_orphaned_mounts", &[]), 0.0);

    let mut names: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["directory", "link", "made", "new"]);
    assert_eq!(whole(&at("link")).unwrap(), "renamed");
    assert_eq!(whole(&at("made")).unwrap(), "made");
}

#[test]
fn what_changed_meanwhile_is_seen() {
    let cell = local();
    let kept = cell.keep(1, &[]).unwrap();
    let other = cell.mount(2).unwrap();
    let folder = kept.work("meanwhile").unwrap();
    for name in ["file", "removed"] {
        fs::write(folder.join(name), "old").unwrap();
    }
    assert!(!folder.join("new").exists());
    kept.kill_server().unwrap();
    let there = other.path("work/meanwhile");
    fs::write(there.join("file"), "newer").unwrap();
    fs::write(there.join("new"), "new").unwrap();
    fs::remove_file(there.join("removed")).unwrap();
    kept.serve().unwrap();
    assert!(eventually(Duration::from_secs(5), || {
        whole(&folder.join("file")).unwrap() == "newer"
            && folder.join("new").exists()
            && !folder.join("removed").exists()
    }));
}

#[test]
fn a_keeper_may_be_killed_too() {
    let cell = local();
    let kept = cell.keep(1, &[]).unwrap();
    let folder = kept.work("keeper").unwrap();
    fs::write(folder.join("file"), "file").unwrap();
    let mut held = Writer::start(&folder.join("held")).unwrap();
    for _ in 0..2 {
        kept.kill_keeper().unwrap();
        assert_eq!(whole(&folder.join("file")).unwrap(), "file");
        kept.start_keeper().unwrap();
        kept.kill_server().unwrap();
        kept.serve().unwrap();
        assert_eq!(held.does("write").unwrap(), 0);
        assert_eq!(held.does("fsync").unwrap(), 0);
    }
    drop(held);
    assert!(kept.terminate_keeper().unwrap().success());
    assert!(!kept.mounted());
}

#[test]
fn without_a_server_programs_get_errors_in_the_end() {
    let cell = local();
    let kept = cell.keep(1, &["--orphan-deadline", "1"]).unwrap();
    let folder = kept.work("orphan").unwrap();
    fs::write(folder.join("file"), "file").unwrap();
    kept.kill_server().unwrap();
    let told = fs::read_dir(&folder).map(drop).unwrap_err();
    // Who waits is told so; who comes later, that there is nobody.
    assert_eq!(told.raw_os_error(), Some(ECONNABORTED));
    assert!(!kept.keeper_ended(Duration::from_secs(5)).unwrap().success());
    // An error is better than an empty directory.
    assert_eq!(
        fs::read_dir(kept.point()).unwrap_err().raw_os_error(),
        Some(ENOTCONN)
    );
    drop(kept);

    let kept = cell.keep(1, &["--orphan-deadline", "1", "--remount"]).unwrap();
    let path = kept.path("work/orphan/file");
    assert_eq!(whole(&path).unwrap(), "file");
    kept.kill_server().unwrap();
    assert!(eventually(Duration::from_secs(10), || {
        fs::metadata(kept.path("work/orphan")).is_err()
    }));
    kept.serve().unwrap();
    assert_eq!(whole(&path).unwrap(), "file");
}

#[test]
fn what_is_lent_outlives_the_process() {
    if !is_allowed() {
        return;
    }
    let (cell, dir) = (local(), tempfile::tempdir().unwrap());
    let versions = [1, 2].map(data);
    cell.release_with("ro.data", "big", &versions[0]).unwrap();
    let kept = cell.keep_with(1, &with_cache(&dir)).unwrap();
    let path = kept.path("ro/big");
    let read = |expected: &[u8]| fs::read(&path).unwrap() == expected;
    assert!(read(&versions[0]));
    for kill in [true, false] {
        let held = lent(&kept, &path);
        if kill {
            kept.kill_server().unwrap();
            assert!(holds(&held, &versions[0]), "nobody is needed for it");
        }
        kept.serve().unwrap();
        assert!(holds(&held, &versions[0]));
        assert!(read(&versions[0]));
        assert_eq!(again(&held).unwrap_err().raw_os_error(), Some(ESTALE));
        let next = lent(&kept, &path);
        assert!(holds(&next, &versions[0]) && holds(&held, &versions[0]));
    }
    // Nobody is there to hear of it; and what was lent is not changed by who comes then.
    let held = lent(&kept, &path);
    kept.kill_server().unwrap();
    cell.release_with("ro.data", "big", &versions[1]).unwrap();
    kept.serve().unwrap();
    assert!(eventually(Duration::from_secs(10), || read(&versions[1])));
    assert!(holds(&held, &versions[0]));
    drop(held);
    assert!(holds(&lent(&kept, &path), &versions[1]));
}

const EIO: i32 = 5;
const ECONNABORTED: i32 = 103;
const ENOTCONN: i32 = 107;
const ESTALE: i32 = 116;
