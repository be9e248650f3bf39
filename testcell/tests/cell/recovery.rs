//! Servers die and come back.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use testcell::{MountOptions, eventually};

use crate::shared;

#[test]
fn a_killed_file_server_is_found_again() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let work = mount.work("killed").unwrap();
    fs::write(work.join("before"), "before").unwrap();
    cell.kill_server(1).unwrap();
    assert_eq!(fs::read_to_string(work.join("before")).unwrap(), "before");
    fs::write(work.join("after"), "after").unwrap();
    let other = cell.mount(2).unwrap();
    assert_eq!(
        fs::read_to_string(other.path("work/killed/after")).unwrap(),
        "after"
    );
    // The server has forgotten its promises, and both clients know.
    fs::write(other.path("work/killed/after"), "changed").unwrap();
    assert!(eventually(Duration::from_secs(2), || fs::read_to_string(
        work.join("after")
    )
    .unwrap()
        == "changed"));
    fs::remove_dir_all(&work).unwrap();
}

/// Writes a file, says so, and what close says when its input has ended.
const WRITER: &str = "
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(file, b'new')
print('written', flush=True)
sys.stdin.read()
try:
    os.close(file)
    print('closed')
except OSError as error:
    print(error.errno)
";

#[test]
fn without_any_server_operations_end_in_time_and_the_mount_stays_usable() {
    let cell = shared();
    let mount = cell.mount_with(1, &MountOptions::default().deadline(6)).unwrap();
    let work = mount.work("silence").unwrap();
    fs::write(work.join("known"), "known").unwrap();
    let looked_at = || {
        let entries = fs::read_dir(mount.path("")).unwrap();
        let kinds = entries.map(|entry| entry?.metadata().map(|seen| seen.is_dir()));
        kinds.collect::<io::Result<Vec<_>>>().unwrap()
    };
    let before = looked_at();
    // A server that hears of a client for the first time has it forget all promises, if late.
    assert_eq!(fs::read_to_string(work.join("known")).unwrap(), "known");
    // A process of its own: what this one has open would be stored when it starts a program to stop the server.
    let mut writer = Command::new("python3")
        .args(["-c", WRITER])
        .arg(work.join("open"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(writer.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "written");
    cell.stop_server(1).unwrap();
    let start = Instant::now();
    drop(writer.stdin.take());
    let timed_out = Errno::TIMEDOUT.raw_os_error().to_string();
    assert_eq!(said.next().unwrap().unwrap(), timed_out, "it cannot be stored");
    let took = start.elapsed();
    assert!(
        took < Duration::from_secs(12),
        "close took {took:?} with a deadline of 6 s"
    );
    writer.wait().unwrap();
    let start = Instant::now();
    let failed = fs::write(work.join("new"), "x").unwrap_err();
    let took = start.elapsed();
    assert_eq!(failed.kind(), ErrorKind::TimedOut);
    assert!(took < Duration::from_secs(12), "{took:?} with a deadline of 6 s");
    // What is cached and promised can be read meanwhile.
    assert_eq!(fs::read_to_string(work.join("known")).unwrap(), "known");
    // Volumes are seen, whether they were crossed or not, and not entered.
    assert_eq!(looked_at(), before);
    let tiny = fs::read_dir(mount.path("tiny")).unwrap_err();
    assert_eq!(tiny.kind(), ErrorKind::TimedOut);
    cell.start_server(1).unwrap();
    assert!(
        eventually(Duration::from_secs(40), || fs::write(work.join("new"), "x")
            .is_ok()),
        "usable again"
    );
    let other = cell.mount(2).unwrap();
    let stored = || fs::read_to_string(other.path("work/silence/open")).is_ok_and(|text| text == "new");
    assert!(
        eventually(Duration::from_secs(40), stored),
        "what was written is stored then"
    );
    fs::remove_dir_all(&work).unwrap();
}
