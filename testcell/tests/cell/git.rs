//! Programs that use a file system hard: git and tar.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use testcell::{MountOptions, Random, eventually, run, run_in};

use crate::shared;

const LIMIT: Duration = Duration::from_secs(60);

/// Git without the user's own configuration. The owner of files in AFS is not the user who runs the test.
fn git(folder: &Path, words: &[&str]) -> String {
    let mut command = Command::new("git");
    command
        .args([
            "-c",
            "safe.directory=*",
            "-c",
            "user.name=test",
            "-c",
            "user.email=test@lab.example",
        ])
        .args(["-c", "init.defaultBranch=main", "-c", "core.hooksPath=/dev/null"])
        .args(words)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE");
    run_in(folder, LIMIT, &mut command).unwrap().ok().unwrap().text()
}

/// Files of many sizes in nested folders, an executable, links, an empty folder.
fn tree(root: &Path) {
    let mut random = Random::new(7);
    for folder in 0..6 {
        let folder = root.join(format!("folder {folder}/inner"));
        fs::create_dir_all(&folder).unwrap();
        for file in 0..20 {
            let size = random.below(20_000) as usize;
            fs::write(folder.join(format!("file-{file}")), random.bytes(size)).unwrap();
        }
    }
    fs::write(root.join("run.sh"), "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(root.join("run.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("run.sh", root.join("link")).unwrap();
    symlink("no/such/place", root.join("dangling")).unwrap();
}

#[test]
fn git_clone_status_commit_and_fsck() {
    let cell = shared();
    let local = tempfile::tempdir().unwrap();
    let origin = local.path().join("origin");
    fs::create_dir(&origin).unwrap();
    tree(&origin);
    git(&origin, &["init", "-q"]);
    git(&origin, &["add", "-A"]);
    git(&origin, &["commit", "-q", "-m", "first"]);

    let mount = cell.mount(1).unwrap();
    let work = mount.work("git").unwrap();
    git(
        local.path(),
        &[
            "clone",
            "-q",
            origin.to_str().unwrap(),
            work.join("clone").to_str().unwrap(),
        ],
    );
    let clone = work.join("clone");
    assert_eq!(
        git(&clone, &["status", "--porcelain"]),
        "",
        "a fresh clone is clean"
    );
    git(&clone, &["fsck", "--full"]);

    fs::write(clone.join("added"), "new\n").unwrap();
    assert_eq!(git(&clone, &["status", "--porcelain"]), "?? added\n");
    git(&clone, &["add", "added"]);
    git(&clone, &["commit", "-q", "-m", "second"]);
    git(&clone, &["gc", "-q"]);
    git(&clone, &["fsck", "--full"]);
    drop(mount);

    // A client with an empty cache sees the same repository.
    let other = cell.mount(2).unwrap();
    let clone = other.path("work/git/clone");
    assert_eq!(git(&clone, &["status", "--porcelain"]), "");
    assert_eq!(git(&clone, &["log", "--format=%s"]), "second\nfirst\n");
}

#[test]
fn tar_in_and_out() {
    let cell = shared();
    let local = tempfile::tempdir().unwrap();
    let before = local.path().join("before");
    let after = local.path().join("after");
    fs::create_dir_all(before.join("empty")).unwrap();
    fs::create_dir(&after).unwrap();
    tree(&before);

    let mount = cell.mount(1).unwrap();
    let inside = mount.work("tar").unwrap();
    copy_by_tar(&before, &inside);
    same_trees(&before, &inside);
    drop(mount);
    let other = cell.mount(2).unwrap();
    copy_by_tar(&other.path("work/tar"), &after);
    same_trees(&before, &after);
    let mode = fs::metadata(after.join("run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

/// With `--store-behind` each file is made by one call, and stored with its bits and its time by another one.
#[test]
fn tar_stores_bits_and_times_with_the_data() {
    const FILES: usize = 40;
    let cell = shared();
    let local = tempfile::tempdir().unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let name = |number| format!("file-{number}");
    for number in 0..FILES {
        let path = local.path().join(name(number));
        fs::write(&path, name(number)).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o604)).unwrap();
        File::open(&path).unwrap().set_modified(long_ago).unwrap();
    }
    let cache = tempfile::tempdir().unwrap();
    let options = MountOptions::default()
        .argument("--store-behind")
        .cache_dir(cache.path());
    let mount = cell.mount_with(1, &options).unwrap();
    let inside = mount.work("tar-behind").unwrap();
    let other = cell.mount(2).unwrap();
    let calls = || {
        let metrics = mount.metrics().unwrap();
        metrics.sum("afs_rpc_calls_total", &[("service", "fs")]) as usize
    };
    let before = calls();
    copy_by_tar(local.path(), &inside);
    let there = |number| {
        let path = other.path("work/tar-behind").join(name(number));
        let Ok(shown) = path.metadata() else { return false };
        let is_set = (shown.mode() & 0o7777, shown.modified().unwrap()) == (0o604, long_ago);
        is_set && fs::read_to_string(&path).unwrap() == name(number)
    };
    assert!(eventually(LIMIT, || (0..FILES).all(there)));
    let made = calls() - before;
    assert!(made < 2 * FILES + FILES / 2, "{made} calls for {FILES} files");
    fs::remove_dir_all(&inside).unwrap();
}

fn copy_by_tar(from: &Path, to: &Path) {
    let pipe = "set -o pipefail; tar -C \"$0\" -cf - . | tar -C \"$1\" --no-same-owner -xf -";
    run(LIMIT, Command::new("bash").args(["-c", pipe]).arg(from).arg(to))
        .unwrap()
        .ok()
        .unwrap();
}

fn same_trees(one: &Path, other: &Path) {
    run(
        LIMIT,
        Command::new("diff")
            .args(["-r", "--no-dereference"])
            .arg(one)
            .arg(other),
    )
    .unwrap()
    .ok()
    .unwrap();
}
