//! `afs demo` as a visitor meets it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use testcell::{Metrics, afs_program, eventually, run};

const SOON: Duration = Duration::from_secs(30);
/// What it says last when all is there.
const READY: &str = "leaves nothing behind.";

/// A running demo. Its drop kills it.
struct Demo {
    child: Child,
    said: PathBuf,
}

impl Demo {
    /// Starts one whose temporary files go to `place`.
    fn start(place: &Path, name: &str, arguments: &[&str]) -> Self {
        let said = place.join(name);
        let child = Command::new(afs_program().unwrap())
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", place)
            .stdin(Stdio::null())
            .stdout(File::create(&said).unwrap())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, said }
    }

    /// Starts one on a terminal of its own; gives the other end of that.
    fn start_on_terminal(place: &Path) -> (Self, File) {
        let other_end = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        unlockpt(&other_end).unwrap();
        let name = ptsname(&other_end, Vec::new()).unwrap();
        let terminal = File::options()
            .read(true)
            .write(true)
            .open(OsStr::from_bytes(name.to_bytes()));
        let terminal = terminal.unwrap();
        let said = place.join("said");
        let mut shown = File::create(&said).unwrap();
        // It becomes the program: the status is that of `afs`.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(afs_program().unwrap())
            .arg("demo")
            .env("TMPDIR", place)
            .stdin(terminal.try_clone().unwrap())
            .stdout(terminal.try_clone().unwrap())
            .stderr(terminal)
            .spawn()
            .unwrap();
        let other_end = File::from(other_end);
        let mut from = other_end.try_clone().unwrap();
        // Ends with an error when nobody has the terminal open any more.
        std::thread::spawn(move || std::io::copy(&mut from, &mut shown));
        (Self { child, said }, other_end)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.said).unwrap()).into_owned()
    }

    /// Waits until it is there; gives the mount point.
    fn ready(&self) -> PathBuf {
        assert!(
            eventually(SOON, || self.text().contains(READY)),
            "{}",
            self.text()
        );
        let text = self.text();
        let place = text.split(" is mounted at ").nth(1).unwrap();
        PathBuf::from(place.split(". Try:").next().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .unwrap();
        let _ = kill_process_group(pid, signal);
    }

    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        let over = || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        };
        assert!(eventually(SOON, over), "it goes on: {}", self.text());
        status.unwrap()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::INT);
            std::thread::sleep(Duration::from_secs(3));
            self.signal(Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// One at a time, so that nobody sweeps what another is about to use.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_mounted(point: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == point.to_str())
}

/// What demos have left in a folder.
fn left(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn a_visitor_can_play_and_nothing_is_left() {
    let _turn = turn();
    let place = tempfile::tempdir().unwrap();
    let point = place.path().join("point");
    fs::create_dir(&point).unwrap();
    let mut demo = Demo::start(place.path(), "said", &["--mountpoint", point.to_str().unwrap()]);
    assert_eq!(demo.ready(), point);
    let top = point.join("demo.example");
    assert_eq!(
        fs::read_to_string(top.join("ro/hello")).unwrap(),
        "hello, world\n"
    );
    fs::write(top.join("work/mine"), "mine").unwrap();
    assert_eq!(fs::read_to_string(top.join("work/mine")).unwrap(), "mine");
    // Somebody else changes it, and the promise is broken.
    let clock = || fs::read_to_string(top.join("work/clock")).unwrap();
    assert!(eventually(SOON, || clock().starts_with("changed ")));
    let before = clock();
    assert!(eventually(SOON, || clock() != before), "{before}");
    let text = demo.text();
    let address = text.split("Metrics: http://").nth(1).unwrap();
    let address = address.split("/metrics").next().unwrap().parse().unwrap();
    let metrics = Metrics::fetch(address).unwrap();
    assert!(metrics.sum("afs_callback_breaks_total", &[]) >= 1.0, "{metrics}");
    assert_eq!(text.matches("\n  ").count(), 5, "five things to try:\n{text}");
    demo.signal(Signal::INT);
    assert!(demo.ended().success());
    assert!(!is_mounted(&point));
    assert_eq!(left(place.path()), [point], "its own folder is gone");
}

#[test]
fn what_a_killed_one_left_is_gone_with_the_next_start() {
    let _turn = turn();
    let place = tempfile::tempdir().unwrap();
    let mut killed = Demo::start(place.path(), "first", &[]);
    let dead = killed.ready();
    killed.signal(Signal::KILL);
    assert!(!killed.ended().success());
    assert!(is_mounted(&dead), "a kill cleans nothing");
    let mut next = Demo::start(place.path(), "second", &[]);
    let point = next.ready();
    assert!(!is_mounted(&dead) && !dead.parent().unwrap().exists());
    assert!(point.join("demo.example/README").exists());
    next.signal(Signal::TERM);
    assert!(next.ended().success());
    assert!(!is_mounted(&point));
    assert_eq!(left(place.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_terminal_has_a_live_line_and_control_c_ends_it() {
    let _turn = turn();
    let place = tempfile::tempdir().unwrap();
    let (mut demo, mut terminal) = Demo::start_on_terminal(place.path());
    let point = demo.ready();
    fs::read(point.join("demo.example/ro/hello")).unwrap();
    let shows = |what: &str| demo.text().contains(what);
    for what in [" calls/s  connections ", " callback breaks  cache hits ", " %"] {
        assert!(eventually(SOON, || shows(what)), "no {what:?}: {}", demo.text());
    }
    terminal.write_all(b"\x03").unwrap();
    let status = demo.ended();
    assert!(status.success(), "{status}: {}", demo.text());
    assert!(!is_mounted(&point));
    assert_eq!(left(place.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_fault_file_acts_or_is_refused_with_its_place() {
    let _turn = turn();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("faults");
    fs::write(&file, "on 1 fs any: delay 1ms\non 1 fs any: explode\n").unwrap();
    let mut command = Command::new(afs_program().unwrap());
    command.args(["demo", "--faults", file.to_str().unwrap()]);
    let refused = run(SOON, &mut command).unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        refused.stderr.contains("line 2, column 14: `explode' is not"),
        "{}",
        refused.stderr
    );
    fs::write(&file, "on 1 fs CreateFile: abort UAEDQUOT\n").unwrap();
    let mut demo = Demo::start(place.path(), "said", &["--faults", file.to_str().unwrap()]);
    let new = demo.ready().join("demo.example/work/new");
    let refused = File::create(&new).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(122), "{refused}");
    fs::write(&new, "after").unwrap();
    demo.signal(Signal::INT);
    assert!(demo.ended().success());
}
