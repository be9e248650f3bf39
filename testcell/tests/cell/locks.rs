//! Locks among programs of one machine and of two.

use std::fs::{File, TryLockError};
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use testcell::{MountOptions, eventually};

use crate::shared;

const SOON: Duration = Duration::from_secs(20);

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn is_locked(result: Result<(), TryLockError>) -> bool {
    match result {
        Ok(()) => false,
        Err(TryLockError::WouldBlock) => true,
        Err(TryLockError::Error(error)) => panic!("{error}"),
    }
}

#[test]
fn a_lock_on_a_whole_file_is_one_for_every_client() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    std::fs::write(one.path("work/locked"), "x").unwrap();
    let (here, there) = (open(&one.path("work/locked")), open(&two.path("work/locked")));
    here.lock().unwrap();
    assert!(one.metrics().unwrap().sum("afs_locks", &[]) >= 1.0);
    assert!(is_locked(there.try_lock()) && is_locked(there.try_lock_shared()));
    assert!(
        is_locked(open(&one.path("work/locked")).try_lock()),
        "nor for others here"
    );
    here.unlock().unwrap();
    // Readers share, and one that becomes a writer is alone.
    here.lock_shared().unwrap();
    there.lock_shared().unwrap();
    assert!(is_locked(there.try_lock()));
    here.unlock().unwrap();
    there.lock().unwrap();
    assert!(is_locked(here.try_lock_shared()));
    // What was written under the lock is there for the next who has it.
    std::fs::write(two.path("work/locked"), "by two").unwrap();
    drop(there);
    assert!(
        eventually(SOON, || !is_locked(here.try_lock())),
        "close() gives it back"
    );
    assert_eq!(
        std::fs::read_to_string(one.path("work/locked")).unwrap(),
        "by two"
    );
    // fcntl(2) takes the same one.
    drop(here);
    let (here, there) = (open(&one.path("work/locked")), open(&two.path("work/locked")));
    fcntl_lock(&here, FlockOperation::LockExclusive).unwrap();
    let refused = fcntl_lock(&there, FlockOperation::NonBlockingLockExclusive);
    assert_eq!(refused, Err(Errno::AGAIN));
    assert!(is_locked(there.try_lock()));
    drop(here);
    assert!(eventually(SOON, || fcntl_lock(
        there.as_fd(),
        FlockOperation::NonBlockingLockShared
    )
    .is_ok()));
    drop(there);
    std::fs::remove_file(one.path("work/locked")).unwrap();
}

fn waiting(path: &Path) -> Child {
    Command::new("flock")
        .arg(path)
        .args(["echo", "mine"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn who_waits_for_a_lock_gets_it_or_can_be_interrupted() {
    let cell = shared();
    let (one, two) = (cell.mount(1).unwrap(), cell.mount(2).unwrap());
    let path = one.path("work/waited");
    std::fs::write(&path, "x").unwrap();
    let held = open(&path);
    held.lock().unwrap();
    let mut interrupted = waiting(&two.path("work/waited"));
    let (here, there) = (waiting(&path), waiting(&two.path("work/waited")));
    // They are in the call, or will be soon: then they are let go, too.
    std::thread::sleep(Duration::from_millis(500));
    interrupted.kill().unwrap();
    assert!(eventually(SOON, || interrupted.try_wait().unwrap().is_some()));
    drop(held);
    for waiting in [here, there] {
        let got = waiting.wait_with_output().unwrap();
        assert_eq!(got.stdout, b"mine\n");
    }
    std::fs::remove_file(&path).unwrap();
}

/// Locks so many bytes of a file from a start, 0 for all there will be, if nobody else has them, and holds them until its
/// input ends.
const HOLD: &str = "
import fcntl, sys
file = open(sys.argv[1], 'r+b')
start, length = map(int, sys.argv[2:])
try:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
except BlockingIOError:
    print('no')
    sys.exit()
print('yes', flush=True)
sys.stdin.read()
";

/// Who holds bytes of a file; `None` if somebody else does.
fn hold(path: &Path, (start, length): (u64, u64)) -> Option<Child> {
    let mut program = Command::new("python3")
        .args(["-c", HOLD])
        .arg(path)
        .args([start.to_string(), length.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    let mut says = BufReader::new(program.stdout.take().unwrap());
    says.read_line(&mut said).unwrap();
    match said.as_str() {
        "yes\n" => Some(program),
        "no\n" => {
            program.wait().unwrap();
            None
        }
        other => panic!("{other:?}"),
    }
}

/// It is held, and then not any more.
fn can_hold(path: &Path, span: (u64, u64)) -> bool {
    let Some(held) = hold(path, span) else {
        return false;
    };
    assert!(held.wait_with_output().unwrap().status.success());
    true
}

const WHOLE: (u64, u64) = (0, 0);

#[test]
fn who_hears_of_a_lock_is_said_by_the_mount() {
    let cell = shared();
    for (scope, part_there, whole_there) in [
        ("whole", true, false),
        ("strict", false, false),
        ("local", true, true),
    ] {
        let options = MountOptions::default().argument("--locks").argument(scope);
        let [one, two] = [1, 2].map(|client| cell.mount_with(client, &options).unwrap());
        let (here, there) = (one.path("work/parts"), two.path("work/parts"));
        std::fs::write(&here, "0123456789 123456789").unwrap();
        let part = hold(&here, (0, 10)).unwrap();
        assert!(!can_hold(&here, (5, 10)), "{scope}: it is held here");
        assert!(can_hold(&here, (10, 10)), "{scope}: another part");
        for span in [(5, 10), (10, 10), WHOLE] {
            assert_eq!(can_hold(&there, span), part_there, "{scope}: {span:?} elsewhere");
        }
        part.wait_with_output().unwrap();
        let whole = hold(&here, WHOLE).unwrap();
        assert!(!can_hold(&here, (5, 10)), "{scope}: it is held here");
        assert_eq!(can_hold(&there, WHOLE), whole_there, "{scope}: elsewhere");
        whole.wait_with_output().unwrap();
        assert!(
            eventually(SOON, || can_hold(&there, WHOLE)),
            "{scope}: given back"
        );
        std::fs::remove_file(&here).unwrap();
    }
}
