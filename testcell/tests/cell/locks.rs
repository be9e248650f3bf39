//! Locks among programs of one machine and of two.

use std::fs::{File, TryLockError};
use std::io::Read;
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

/// Locks each of the spans of a file, so many bytes from a start, 0 for all there will be; holds the last of them until its
/// input ends, if that is told, and gives the others back.
const LOCK: &str = "
import fcntl, sys
file = open(sys.argv[1], 'r+b')
for span in sys.argv[2:]:
    start, length = map(int, span.split(','))
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
        print('yes', flush=True)
        sys.stdin.read()
        fcntl.lockf(file, fcntl.LOCK_UN, length, start)
    except BlockingIOError:
        print('no')
";

fn locker(path: &Path, spans: &[(u64, u64)], input: Stdio) -> Child {
    let mut program = Command::new("python3");
    program.args(["-c", LOCK]).arg(path);
    for (start, length) in spans {
        program.arg(format!("{start},{length}"));
    }
    program.stdin(input).stdout(Stdio::piped()).spawn().unwrap()
}

/// Somebody who holds bytes of a file until it is waited for.
fn hold(path: &Path, span: (u64, u64)) -> Child {
    let mut program = locker(path, &[span], Stdio::piped());
    let mut said = [0; 4];
    program.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"yes\n");
    program
}

/// Which spans can be had.
fn free(path: &Path, spans: &[(u64, u64)]) -> String {
    let said = locker(path, spans, Stdio::null()).wait_with_output().unwrap();
    String::from_utf8(said.stdout).unwrap().replace('\n', " ")
}

const WHOLE: (u64, u64) = (0, 0);

#[test]
fn who_hears_of_a_lock_is_said_by_the_mount() {
    let cell = shared();
    for (scope, part_there, whole_there) in [
        ("whole", "yes yes yes ", "yes yes no "),
        ("strict", "no no no ", "no no no "),
        ("local", "yes yes yes ", "yes yes yes "),
    ] {
        let options = MountOptions::default().argument("--locks").argument(scope);
        let [one, two] = [1, 2].map(|client| cell.mount_with(client, &options).unwrap());
        let (here, there) = (one.path("work/parts"), two.path("work/parts"));
        std::fs::write(&here, "0123456789 123456789").unwrap();
        let spans = [(5, 10), (10, 10), WHOLE];
        let part = hold(&here, (0, 10));
        assert_eq!(free(&here, &spans), "no yes no ", "{scope}: a part");
        assert_eq!(free(&there, &spans), part_there, "{scope}: a part, elsewhere");
        part.wait_with_output().unwrap();
        let whole = hold(&here, WHOLE);
        assert_eq!(free(&here, &spans), "no no no ", "{scope}: the whole");
        assert_eq!(free(&there, &spans), whole_there, "{scope}: the whole, elsewhere");
        whole.wait_with_output().unwrap();
        assert!(
            eventually(SOON, || free(&there, &spans) == "yes yes yes "),
            "{scope}: given back"
        );
        std::fs::remove_file(&here).unwrap();
    }
}
