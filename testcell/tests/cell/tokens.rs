//! Tokens on one mount: everybody works with their own rights, and sees nothing of what is cached for others.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use testcell::{Cell, Mount, MountOptions, afs_program, run, shared};

const LIMIT: Duration = Duration::from_secs(20);
const ALICE: u32 = 1001;
const BOB: u32 = 1002;
const STRANGER: u32 = 1003;

/// What a command said and how it ended, run by a user.
struct Said {
    ok: bool,
    text: String,
}

/// A mount, and a folder in which everybody can find things.
struct Stage<'c> {
    cell: &'c Cell,
    mount: Mount<'c>,
    folder: tempfile::TempDir,
}

impl<'c> Stage<'c> {
    fn new(cell: &'c Cell, options: &MountOptions) -> Self {
        let mount = cell.mount_with(1, options).unwrap();
        let open = Permissions::from_mode(0o755);
        fs::set_permissions(mount.point().parent().unwrap(), open.clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), open.clone()).unwrap();
        fs::copy(cell.conf_dir().join("krb5.conf"), folder.path().join("krb5.conf")).unwrap();
        fs::copy(afs_program().unwrap(), folder.path().join("afs")).unwrap();
        for file in ["krb5.conf", "afs"] {
            fs::set_permissions(folder.path().join(file), open.clone()).unwrap();
        }
        Self { cell, mount, folder }
    }

    /// Runs a shell line as a user; `$afs` is the program and `$home` the home of alice.
    fn by(&self, user: u32, line: &str) -> Said {
        let mut command: Command = self.cell.client_command(1, "setpriv");
        command
            .args([
                &format!("--reuid={user}"),
                &format!("--regid={user}"),
                "--clear-groups",
            ])
            .args(["sh", "-c", line])
            .env("afs", self.folder.path().join("afs"))
            .env("home", self.mount.path("home/alice"))
            .env("KRB5_CONFIG", self.folder.path().join("krb5.conf"))
            .current_dir("/");
        let finished = run(LIMIT, &mut command).unwrap();
        let text = finished.text() + &finished.stderr;
        Said {
            ok: finished.ok().is_ok(),
            text,
        }
    }

    fn well(&self, user: u32, line: &str) -> String {
        let said = self.by(user, line);
        assert!(said.ok, "{user}: {line}: {}\n{}", said.text, self.mount.said());
        said.text
    }

    fn denied(&self, user: u32, line: &str) {
        let said = self.by(user, line);
        assert!(!said.ok, "{user}: {line}: {}", said.text);
        assert!(
            said.text.contains("Permission denied"),
            "{user}: {line}: {}",
            said.text
        );
    }

    /// Gets a token for a user of this machine with the key of a user of the cell.
    fn aklog(&self, user: u32, name: &str) -> Result<()> {
        let keytab = self.folder.path().join(format!("{user}.keytab"));
        fs::copy(self.cell.keytab(name), &keytab)?;
        fs::set_permissions(&keytab, Permissions::from_mode(0o600))?;
        chown(&keytab, Some(user), None)?;
        let line = format!(
            "$afs aklog -d -c {} --keytab {} --principal {name}",
            self.cell.cell_name(),
            keytab.display()
        );
        self.well(user, &line);
        Ok(())
    }
}

#[test]
fn nobody_gets_the_rights_of_another() {
    let cell = shared();
    let stage = Stage::new(&cell, &MountOptions::default());
    stage.denied(ALICE, "ls $home");
    stage.aklog(ALICE, "alice").unwrap();
    stage.aklog(BOB, "bob").unwrap();

    // Alice fills every cache with what is hers.
    stage.well(
        ALICE,
        "mkdir $home/box && echo secret > $home/box/file && ln -s file $home/box/link",
    );
    let read = "cd $home/box && ls -la && cat file && readlink link && stat file link . && cat link";
    let seen = stage.well(ALICE, read);
    assert!(seen.contains("secret"), "{seen}");
    stage.well(ALICE, read);

    for other in [BOB, STRANGER, 0] {
        for line in [
            "ls $home",
            "ls $home/box",
            "cat $home/box/file",
            "stat $home/box/file",
            "stat $home/box",
            "readlink $home/box/link || stat $home/box/link",
            "stat $home/box/nothing",
            "echo x > $home/box/new",
            "echo x > $home/box/file",
            "rm $home/box/file",
        ] {
            stage.denied(other, line);
        }
        // And alice works on, from what is cached for her.
        stage.well(ALICE, read);
    }
    // What was written is at the server: nothing was given up.
    assert!(cell.held("home.alice").unwrap().contains_key("box/file"));

    let tokens = stage.well(ALICE, "$afs tokens");
    assert!(
        tokens.contains("alice@LAB.EXAMPLE's tokens for afs@lab.example [Expires "),
        "{tokens}"
    );
    assert!(!tokens.contains("bob@"), "{tokens}");
    let none = stage.well(STRANGER, "$afs tokens");
    assert!(!none.contains('@'), "{none}");
    let all = stage.well(0, "$afs tokens --json");
    assert!(
        all.contains("\"owner\":\"uid 1001\"") && all.contains("\"owner\":\"uid 1002\""),
        "{all}"
    );

    // A right goes with the token, for what is cached too.
    stage.well(ALICE, "$afs unlog");
    stage.denied(ALICE, "cat $home/box/file");
    stage.aklog(ALICE, "alice").unwrap();
    stage.well(ALICE, &format!("{read} && cd / && rm -r $home/box"));
}

#[test]
fn a_mount_may_be_one_identity() {
    let cell = shared();
    let options = MountOptions::default().argument("--identity").argument("mount");
    let stage = Stage::new(&cell, &options);
    let refused = stage.by(BOB, "$afs unlog");
    assert!(
        !refused.ok && refused.text.contains("whoever mounted it"),
        "{}",
        refused.text
    );
    stage.aklog(0, "alice").unwrap();
    stage.well(BOB, "echo by bob > $home/file && cat $home/file && rm $home/file");
    stage.well(0, "$afs unlog -c lab.example");
    stage.denied(BOB, "ls $home");
}

#[test]
fn commands_without_a_mount_or_a_ticket_say_what_to_do() {
    let cell = shared();
    let folder = tempfile::tempdir().unwrap();
    let aklog = |conf: &Path, cache: &str| {
        let mut command = cell.client_command(1, afs_program().unwrap());
        command
            .args(["aklog", "-c", "lab.example"])
            .env("KRB5_CONFIG", conf)
            .env("KRB5CCNAME", cache);
        let finished = run(LIMIT, &mut command).unwrap();
        let said = finished.stderr.clone();
        assert!(finished.ok().is_err());
        said
    };
    let conf = cell.conf_dir().join("krb5.conf");
    let missing = format!("FILE:{}", folder.path().join("none").display());
    assert_eq!(
        aklog(&conf, &missing),
        format!("afs: there is no credential cache {missing}: run kinit\n")
    );
    assert!(aklog(&conf, "MEMORY:x").contains("choose FILE, DIR, KEYRING or KCM"));
    let broken = folder.path().join("broken.conf");
    fs::write(&broken, "[realms]\nX = {\n").unwrap();
    assert!(aklog(&broken, &missing).contains("broken.conf:2: the file ends inside a block"));
}
