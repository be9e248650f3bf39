//! What goes wrong at the command line is said in one line, with a cure and an exit status of its own.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use testcell::{Shared, afs_program, run, shared};

const LIMIT: Duration = Duration::from_secs(60);

/// Exit status and standard error of `afs mount` with these words.
fn refused(cell: &Shared, words: &[&str]) -> (Option<i32>, String) {
    let finished = run(
        LIMIT,
        cell.client_command(1, afs_program().unwrap())
            .arg("mount")
            .args(words),
    )
    .unwrap();
    assert_eq!(
        finished.stderr.trim_end().lines().count(),
        1,
        "one line: {}",
        finished.stderr
    );
    (finished.status.code(), finished.stderr)
}

#[test]
fn failures_name_the_thing_and_the_cure() {
    let cell = shared();
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    let full = folder.path().join("full");
    fs::create_dir(&empty).unwrap();
    fs::create_dir_all(full.join("something")).unwrap();
    let db = cell.conf_dir().join("CellServDB");
    let (db, at) = (db.to_str().unwrap(), empty.to_str().unwrap());
    let absent = folder.path().join("absent");

    let (status, said) = refused(
        &cell,
        &[
            "--cell",
            "lab.example",
            "--cellservdb",
            db,
            absent.to_str().unwrap(),
        ],
    );
    assert_eq!(status, Some(3), "{said}");
    assert!(
        said.contains("does not exist") && said.contains("mkdir -p"),
        "{said}"
    );

    let (status, said) = refused(
        &cell,
        &[
            "--cell",
            "lab.example",
            "--cellservdb",
            db,
            full.to_str().unwrap(),
        ],
    );
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("not empty"), "{said}");

    let (status, said) = refused(&cell, &["--cell", "nowhere", "--cellservdb", db, at]);
    assert_eq!(status, Some(5), "{said}");
    assert!(
        said.contains("unknown cell nowhere") && said.contains("--cellservdb"),
        "{said}"
    );

    let silent = folder.path().join("silent");
    fs::write(&silent, format!(">lab.example\n{}\n", cell.unused_address())).unwrap();
    let silent = silent.to_str().unwrap();
    let (status, said) = refused(
        &cell,
        &[
            "--cell",
            "lab.example",
            "--cellservdb",
            silent,
            "--deadline",
            "3",
            at,
        ],
    );
    assert_eq!(status, Some(6), "{said}");

    let port = cell
        .in_client(1, || Ok(UdpSocket::bind("0.0.0.0:7011")?))
        .unwrap();
    let (status, said) = refused(
        &cell,
        &["--cell", "lab.example", "--cellservdb", db, "--port", "7011", at],
    );
    assert_eq!(status, Some(7), "{said}");
    assert!(said.contains("7011") && said.contains("--port"), "{said}");
    drop(port);
    assert!(
        fs::read_dir(&empty).unwrap().next().is_none(),
        "nothing is left mounted"
    );
}

#[test]
fn a_mount_returns_when_it_answers() {
    let cell = shared();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let log = folder.path().join("log");
    let mut command = cell.client_command(1, afs_program().unwrap());
    command
        .args(["mount", "--cell", "lab.example", "--cellservdb"])
        .arg(cell.conf_dir().join("CellServDB"));
    run(LIMIT, command.arg("--log-file").arg(&log).arg(&at))
        .unwrap()
        .ok()
        .unwrap();
    assert!(
        fs::read_to_string(at.join("lab.example/README"))
            .unwrap()
            .contains("lab.example")
    );
    let mut command = cell.client_command(1, afs_program().unwrap());
    run(LIMIT, command.arg("umount").arg(&at)).unwrap().ok().unwrap();
    let gone = || {
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .contains(at.to_str().unwrap())
    };
    assert!(testcell::eventually(LIMIT, gone));
    let ended = || fs::read_to_string(&log).unwrap_or_default().contains("ended");
    assert!(
        testcell::eventually(LIMIT, ended),
        "{}",
        fs::read_to_string(&log).unwrap()
    );
}
