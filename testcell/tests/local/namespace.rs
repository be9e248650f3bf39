//! The contract for who is not root: in a user namespace, where the owners of files in the cell have no numbers, and mounted by
//! fusermount3.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use testcell::{afs_program, run};

/// The tests that lines of docs/semantics.md name, but for those that wait for servers.
const CONTRACT: [&str; 11] = [
    "access::",
    "arguments::",
    "coherence::",
    "git::",
    "locks::",
    "misuse::",
    "names::",
    "places::",
    "rights::",
    "semantics::",
    "sharing::",
];

/// All of them pass.
fn passes(contract: &mut Command) {
    let said = run(Duration::from_secs(60), contract.args(CONTRACT)).unwrap();
    let all = format!("{}{}", said.text(), said.stderr);
    assert!(said.status.success() && all.contains(" 0 failed"), "{all}");
}

#[test]
fn a_user_namespace_is_as_good_as_root() {
    let mut unshare = Command::new("unshare");
    unshare.args(["--user", "--mount", "--map-root-user"]);
    passes(unshare.arg(std::env::current_exe().unwrap()));
}

/// Who is not root runs all tests so. For root there is a user of no rights, with a device that everybody may open, as it is on
/// most machines.
#[test]
fn fusermount3_is_as_good_as_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    const NOBODY: &str = "mknod $0/fuse c 10 229 && chmod 666 $0/fuse && mount --bind $0/fuse /dev/fuse &&
        AFS_BIN=$0/afs TMPDIR=$0 exec setpriv --reuid=65534 --regid=65534 --clear-groups $0/tests \"$@\"";
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    fs::copy(afs_program().unwrap(), folder.path().join("afs")).unwrap();
    fs::copy(std::env::current_exe().unwrap(), folder.path().join("tests")).unwrap();
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "sh", "-c", NOBODY]).arg(folder.path());
    passes(&mut unshare);
}
