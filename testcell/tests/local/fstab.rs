//! mount(8) and /etc/fstab, in a mount namespace of their own in which the program is a mount helper.

use std::process::Command;
use std::time::Duration;

use testcell::{Finished, LocalCell, afs_program, local, run};

/// Runs a script in which `mount` knows the type `fuse.afs`, by a folder at $AT.
fn with_helper(cell: &LocalCell, script: &str) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let prepare = "set -e
        mount --bind \"$AFS\" /usr/sbin/mount.fuse3
        mount -t tmpfs none \"$AT\"
        mkdir \"$AT/afs\"
        trap 'umount -l \"$AT/afs\" 2>/dev/null || true' EXIT
        options=\"cell=lab.example,cellservdb=$DB,address=$ADDRESS,log_file=$AT/log\"
        ";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", &format!("{prepare}{script}")])
        .env("AFS", afs_program().unwrap())
        .env("AT", folder.path())
        .env("DB", cell.servers_file())
        .env("ADDRESS", cell.address(1).to_string());
    run(Duration::from_secs(30), &mut command).unwrap()
}

#[test]
fn mount_and_umount_know_it() {
    let cell = local();
    let said = with_helper(
        &cell,
        "mount -t fuse.afs afs-fuse \"$AT/afs\" -o \"_netdev,ro,$options\"
         cat \"$AT/afs/lab.example/ro/hello\"
         findmnt -n -o FSTYPE,SOURCE \"$AT/afs\"
         echo \"options $(grep \" $AT/afs \" /proc/self/mounts | cut -d' ' -f4)\"
         touch \"$AT/afs/.lab.example/work/new\" 2>&1 || true
         umount \"$AT/afs\"
         ls \"$AT/afs\"",
    );
    let said = said.ok().unwrap().text();
    assert!(said.starts_with("hello, world\nfuse.afs"), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    let options = said.lines().find_map(|line| line.strip_prefix("options "));
    let options: Vec<_> = options.unwrap().split(',').collect();
    for option in ["ro", "nosuid", "nodev"] {
        assert!(options.contains(&option), "{option} in {options:?}");
    }
}

#[test]
fn fstab_lines_are_mounted_once() {
    let cell = local();
    let said = with_helper(
        &cell,
        "echo \"afs-fuse $AT/afs fuse.afs defaults,_netdev,x-systemd.automount,nofail,$options 0 0\" > \"$AT/fstab\"
         mount -T \"$AT/fstab\" -a
         mount -T \"$AT/fstab\" -a
         grep -c \" $AT/afs fuse.afs \" /proc/self/mounts
         mount -t fuse.afs afs-fuse \"$AT/afs\" -o \"cel=lab.example\" 2>&1 || echo \"exit $?\"",
    );
    let said = said.ok().unwrap().text();
    let expected =
        "1\nafs: mount option cel is not known; did you mean cell? `afs mount --help' lists them\n";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("exit "), "{said}");
}
