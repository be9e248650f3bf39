//! A server that forgets the locks that it has granted, as seen by programs on a mount. One that is killed keeps them with its
//! vnodes; it is the embedded one that can lose them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use testcell::{eventually, local};

const SOON: Duration = Duration::from_secs(20);

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

#[test]
fn a_lost_lock_is_an_error_until_it_is_given_back() {
    let cell = local();
    let mount = cell.mount(1).unwrap();
    let (path, beside) = (mount.path("work/lost"), mount.path("work/lost-beside"));
    fs::write(&path, "x").unwrap();
    let (held, other) = (open(&path), open(&path));
    held.lock().unwrap();
    cell.kill_server(1).unwrap();
    let failed = |file: &File| {
        file.read_at(&mut [0], 0)
            .err()
            .and_then(|error| error.raw_os_error())
    };
    let io = Some(Errno::IO.raw_os_error());
    // It is found out as soon as the server is asked for anything.
    let lost = || {
        fs::write(&beside, "x").unwrap();
        failed(&held) == io
    };
    assert!(eventually(SOON, lost));
    assert_eq!(
        held.write_at(b"y", 0)
            .err()
            .and_then(|error| error.raw_os_error()),
        io
    );
    assert_eq!(failed(&other), None, "who held none goes on");
    held.unlock().unwrap();
    assert_eq!(failed(&held), None);
    held.lock().unwrap();
    drop((held, other));
    assert_eq!(fs::read_to_string(&path).unwrap(), "x");
    for path in [path, beside] {
        fs::remove_file(path).unwrap();
    }
}
