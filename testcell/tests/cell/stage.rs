//! A mount that several users of this machine use, each with the tokens of whom they like.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use testcell::{Cell, Finished, Mount, MountOptions, afs_program, eventually, run};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);
pub(crate) const ALICE: u32 = 1001;
pub(crate) const BOB: u32 = 1002;
pub(crate) const STRANGER: u32 = 1003;

/// What a command said and how it ended, run by a user.
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) text: String,
}

/// Users of a mount, and a folder in which they find things.
pub(crate) struct Users<'c> {
    cell: &'c Cell,
    pub(crate) folder: tempfile::TempDir,
    client: u8,
    /// The home cell in the mount.
    top: PathBuf,
}

/// A mount with its users.
pub(crate) struct Stage<'c> {
    pub(crate) mount: Mount<'c>,
    users: Users<'c>,
}

impl<'c> Stage<'c> {
    pub(crate) fn new(cell: &'c Cell, options: &MountOptions, client: u8) -> Self {
        let mount = cell.mount_with(client, options).unwrap();
        fs::set_permissions(mount.point().parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        let users = Users::new(cell, client, mount.path(""));
        Self { mount, users }
    }
}

impl<'c> std::ops::Deref for Stage<'c> {
    type Target = Users<'c>;

    fn deref(&self) -> &Users<'c> {
        &self.users
    }
}

impl<'c> Users<'c> {
    /// `top` is where the home cell is mounted.
    pub(crate) fn new(cell: &'c Cell, client: u8, top: PathBuf) -> Self {
        let open = Permissions::from_mode(0o755);
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        fs::copy(cell.conf_dir().join("krb5.conf"), folder.path().join("krb5.conf")).unwrap();
        fs::copy(afs_program().unwrap(), folder.path().join("afs")).unwrap();
        for file in ["krb5.conf", "afs"] {
            fs::set_permissions(folder.path().join(file), open.clone()).unwrap();
        }
        Self {
            cell,
            folder,
            client,
            top,
        }
    }

    /// A shell line of a user; `$afs` is the program, `$home` the home of alice and `$work` where everybody writes.
    pub(crate) fn command(&self, user: u32, line: &str) -> Command {
        let mut command: Command = self.cell.client_command(self.client, "setpriv");
        command
            .args([
                &format!("--reuid={user}"),
                &format!("--regid={user}"),
                "--clear-groups",
            ])
            .args(["sh", "-c", line])
            .env("afs", self.folder.path().join("afs"))
            .env("home", self.top.join("home/alice"))
            .env("work", self.top.join("work"))
            .env("folder", self.folder.path())
            .env("KRB5_CONFIG", self.folder.path().join("krb5.conf"))
            .env("KRB5CCNAME", self.folder.path().join(format!("{user}.ccache")))
            .current_dir("/");
        command
    }

    /// Starts a shell line.
    pub(crate) fn start(&self, user: u32, line: &str) -> Child {
        let mut command = self.command(user, line);
        let pipes = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        pipes.spawn().unwrap()
    }

    /// Runs a shell line.
    pub(crate) fn by(&self, user: u32, line: &str) -> Said {
        said(run(LIMIT, &mut self.command(user, line)).unwrap())
    }

    pub(crate) fn well(&self, user: u32, line: &str) -> String {
        let said = self.by(user, line);
        assert!(said.ok, "{user}: {line}: {}", said.text);
        said.text
    }

    pub(crate) fn denied(&self, user: u32, line: &str) {
        let said = self.by(user, line);
        assert!(!said.ok, "{user}: {line}: {}", said.text);
        assert!(
            said.text.contains("Permission denied"),
            "{user}: {line}: {}",
            said.text
        );
    }

    /// Gives a user of this machine the key of a user of the cell.
    pub(crate) fn give_key(&self, user: u32, name: &str) -> Result<PathBuf> {
        let keytab = self.folder.path().join(format!("{user}-{name}.keytab"));
        // Not even root may write to what others own in such a folder (proc_sys_fs(5), protected_regular).
        let _ = fs::remove_file(&keytab);
        fs::copy(self.cell.keytab(name), &keytab)?;
        fs::set_permissions(&keytab, Permissions::from_mode(0o600))?;
        chown(&keytab, Some(user), None)?;
        Ok(keytab)
    }

    /// Gets a token for a user of this machine with the key of a user of the cell.
    pub(crate) fn aklog(&self, user: u32, name: &str) -> Result<()> {
        self.well(user, &self.aklog_line(user, name)?);
        Ok(())
    }

    pub(crate) fn aklog_line(&self, user: u32, name: &str) -> Result<String> {
        Ok(format!(
            "$afs aklog -d -c {} --keytab {} --principal {name}",
            self.cell.cell_name(),
            self.give_key(user, name)?.display()
        ))
    }
}

fn said(finished: Finished) -> Said {
    let text = finished.text() + &finished.stderr;
    Said {
        ok: finished.ok().is_ok(),
        text,
    }
}

/// A control group. Its drop removes it.
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn new(name: &str) -> Result<Self> {
        let table = fs::read_to_string("/proc/self/mounts")?;
        let root = table.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let at = fields.nth(1)?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(at))
        });
        let root = root.context("no unified hierarchy of control groups is mounted")?;
        let path = root.join(format!("afs-test-{}-{name}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The last process may take a moment to end.
        eventually(LIMIT, || fs::remove_dir(&self.0).is_ok());
    }
}

impl Stage<'_> {
    /// Runs a shell line in a control group.
    pub(crate) fn by_in(&self, group: &Group, user: u32, line: &str) -> Said {
        let inner = self.command(user, line);
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ >$0/cgroup.procs && exec \"$@\""])
            .arg(&group.0)
            .arg(inner.get_program())
            .args(inner.get_args())
            .envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
        said(run(LIMIT, &mut command).unwrap())
    }

    pub(crate) fn well_in(&self, group: &Group, user: u32, line: &str) {
        let said = self.by_in(group, user, line);
        assert!(said.ok, "{user}: {line}: {}", said.text);
    }
}
