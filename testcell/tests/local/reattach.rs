//! Mounts that survive the process that serves them: killed, replaced, and left alone for too long.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{ScopedJoinHandle, scope, sleep, spawn};
use std::time::Duration;

use testcell::{eventually, local};

/// Does something over and over until it is told to stop; gives how often it was done.
fn over_and_over<'s>(
    threads: &'s std::thread::Scope<'s, '_>,
    done: &'s AtomicBool,
    what: impl Fn() -> io::Result<()> + Send + 's,
) -> ScopedJoinHandle<'s, io::Result<u64>> {
    threads.spawn(move || {
        let mut times = 0;
        while !done.load(Ordering::Relaxed) {
            what()?;
            times += 1;
        }
        Ok(times)
    })
}

fn whole(path: &Path) -> io::Result<String> {
    fs::read_to_string(path)
}

fn expect(is: bool, what: &str) -> io::Result<()> {
    if is {
        Ok(())
    } else {
        Err(io::Error::other(what.to_owned()))
    }
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
import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o644)
does = {'write': lambda: os.write(file, b'some '), 'fsync': lambda: os.fsync(file), 'close': lambda: os.close(file)}
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
    let inode = fs::metadata(folder.join("small")).unwrap().ino();
    let held = File::open(folder.join("big")).unwrap();
    let listed = kept.path("ro/dir");
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    scope(|threads| {
        let readers = [
            over_and_over(threads, &done, || {
                reads.fetch_add(1, Ordering::Relaxed);
                expect(whole(&folder.join("small"))? == "small", "other contents")
            }),
            over_and_over(threads, &done, || {
                let at = reads.load(Ordering::Relaxed) * 4099 % 2_900_000;
                let mut some = [0; 5000];
                // The page cache answers again what it has answered.
                rustix::fs::fadvise(&held, 0, None, rustix::fs::Advice::DontNeed)?;
                held.read_exact_at(&mut some, at)?;
                let at = usize::try_from(at).map_err(io::Error::other)?;
                expect(some[..] == big[at..at + 5000], "other data through a handle")
            }),
            over_and_over(threads, &done, || {
                let names = fs::read_dir(&listed)?.collect::<io::Result<Vec<_>>>()?;
                expect(names.len() == 200, "other entries")
            }),
            over_and_over(threads, &done, || {
                let found = fs::metadata(folder.join("small"))?;
                expect((found.ino(), found.len()) == (inode, 5), "other attributes")?;
                match fs::metadata(folder.join("none")) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => Err(io::Error::other(format!("{other:?}"))),
                }
            }),
        ];
        for _ in 0..20 {
            let before = reads.load(Ordering::Relaxed);
            assert!(eventually(Duration::from_secs(10), || {
                reads.load(Ordering::Relaxed) > before + 5
            }));
            kept.kill_server().unwrap();
            kept.serve().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            let times = reader.join().unwrap().unwrap();
            assert!(times > 20, "read {times} times");
        }
    });
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
fn an_upgrade_costs_nobody_anything() {
    let cell = local();
    let kept = cell.keep(1, &[]).unwrap();
    let folder = kept.work("upgrade").unwrap();
    let mut open = Writer::start(&folder.join("open")).unwrap();
    assert_eq!(open.does("write").unwrap(), 0);
    let (done, made) = (AtomicBool::new(false), AtomicU64::new(0));
    scope(|threads| {
        let maker = over_and_over(threads, &done, || {
            let number = made.fetch_add(1, Ordering::Relaxed);
            let (one, two) = (
                folder.join(format!("{number}")),
                folder.join(format!("{number}.new")),
            );
            fs::write(&one, format!("{number}"))?;
            fs::rename(&one, &two)?;
            expect(whole(&two)? == format!("{number}"), "other contents")?;
            fs::remove_file(&two)
        });
        for _ in 0..3 {
            kept.serve().unwrap();
            sleep(Duration::from_millis(200));
        }
        assert!(kept.terminate_server().unwrap().success());
        kept.serve().unwrap();
        done.store(true, Ordering::Relaxed);
        assert!(maker.join().unwrap().unwrap() > 3);
    });
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
    let held = File::open(folder.join("file")).unwrap();
    for _ in 0..2 {
        kept.kill_keeper().unwrap();
        assert_eq!(whole(&folder.join("file")).unwrap(), "file");
        kept.start_keeper().unwrap();
        kept.kill_server().unwrap();
        kept.serve().unwrap();
        let mut bytes = [0; 4];
        held.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"file");
    }
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

const EIO: i32 = 5;
const ECONNABORTED: i32 = 103;
const ENOTCONN: i32 = 107;
