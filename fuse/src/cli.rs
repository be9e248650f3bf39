//! The command line. Help texts here are the reference of the options.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use afs_client::fs;
use afs_client::lock::LockScope;
use afs_client::sysname::SysNames;
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::identity::Rule;
use crate::keeper::Keeper;
use crate::pagsh::Pagsh;
use crate::protection::Protection;
use crate::size::Size;
use crate::status::Status;
use crate::token::{Aklog, Tokens, Unlog};
use crate::top::Top;
use crate::trace::Trace;
use crate::why::Why;

/// Mount AFS cells through FUSE.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "afs",
    version,
    about,
    arg_required_else_help = true,
    disable_help_subcommand = false
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Mount AFS at MOUNTPOINT: /MOUNTPOINT/CELL read-only where replicated, /MOUNTPOINT/.CELL read-write
    #[command(after_help = EXIT_STATUSES)]
    Mount(Mount),
    /// Unmount MOUNTPOINT: unsaved data is stored first, then the program that serves it ends
    #[command(after_help = EXIT_STATUSES)]
    Umount(Umount),
    /// Mount at MOUNTPOINT and hold the mount, for another process to serve it: `afs serve'. That one may be killed and
    /// replaced while programs use the mount; needs root
    #[command(after_help = EXIT_STATUSES)]
    Keeper(Keeper),
    /// Serve the mount that a keeper holds, from where the process before stopped. Needs no privileges
    #[command(after_help = EXIT_STATUSES)]
    Serve(Serve),
    /// Start a cell of its own, mount it, and let you play until Ctrl-C; leaves nothing behind
    #[command(after_help = EXIT_STATUSES)]
    Demo(Demo),
    /// Get a token for a cell out of a Kerberos ticket, and give it to the mounts of this machine
    Aklog(Aklog),
    /// List the tokens that mounts hold for you; root sees all
    Tokens(Tokens),
    /// Have mounts forget your tokens
    Unlog(Unlog),
    /// Run COMMAND, or a shell, with tokens of its own: it and all that it starts share them with nobody else
    Pagsh(Pagsh),
    /// Tell how mounts are: cells, servers, volumes, connections, cache, what is not stored yet, your tokens
    Status(Status),
    /// Tell why PATH is slow or refused: its server and volume, your rights, the promise, the cache, the last calls
    Why(Why),
    /// Trace a share of the requests of a mount, or those that are slow; shows what is traced. For root and the owner
    Trace(Trace),
    /// Show what an encrypted cache has set aside: its contents on standard output, what it was on standard error
    Reveal(Reveal),
    /// Watch a mount at work: requests, calls, connections, cache and servers, once a second
    Top(Top),
}

/// Which locks servers hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Locks {
    /// Those on whole files.
    #[default]
    Whole,
    /// All.
    Strict,
    /// None.
    Local,
}

impl From<Locks> for LockScope {
    fn from(locks: Locks) -> Self {
        match locks {
            Locks::Whole => Self::Whole,
            Locks::Strict => Self::Strict,
            Locks::Local => Self::Local,
        }
    }
}

/// Which mount points are seen without being crossed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Fakestat {
    /// All.
    #[default]
    All,
    /// Those to other cells.
    Cells,
    /// None.
    Off,
}

impl From<Fakestat> for fs::Fakestat {
    fn from(fakestat: Fakestat) -> Self {
        match fakestat {
            Fakestat::All => Self::All,
            Fakestat::Cells => Self::Cells,
            Fakestat::Off => Self::Off,
        }
    }
}

/// Which files the kernel reads by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Passthrough {
    /// Those that can be lent.
    #[default]
    Auto,
    /// None.
    Off,
}

/// Options of all that serves a mount.
#[derive(Args, Clone, Debug)]
pub struct Client {
    /// Home cell [default: from ThisCell]
    #[arg(long, env = "AFS_CELL", value_name = "NAME")]
    pub cell: Option<String>,

    /// Database servers of the cells [default: /etc/openafs/CellServDB, then DNS]
    #[arg(long, env = "AFS_CELLSERVDB", value_name = "FILE")]
    pub cellservdb: Option<PathBuf>,

    /// Keep cached data in this directory, over restarts; each mount needs one of its own
    #[arg(
        long,
        env = "AFS_CACHE_DIR",
        value_name = "DIR",
        conflicts_with = "cache_memory"
    )]
    pub cache_dir: Option<PathBuf>,

    /// How much --cache-dir may hold; a fiftieth of its file system, at most 1 GiB, is left free in any case
    #[arg(
        long,
        env = "AFS_CACHE_SIZE",
        value_name = "SIZE",
        default_value = "1G",
        conflicts_with = "cache_memory"
    )]
    pub cache_size: Size,

    /// Encrypt what is in --cache-dir with a key that ends with the program: nothing of it is there after a restart, nor what a
    /// crash left unstored
    #[arg(
        long,
        env = "AFS_CACHE_ENCRYPT",
        requires = "cache_dir",
        conflicts_with = "cache_key_file"
    )]
    pub cache_encrypt: bool,

    /// Encrypt what is in --cache-dir with the key in FILE (32 bytes or more; /dev/fd/N and credentials of systemd too); with
    /// the same key it is there after a restart
    #[arg(long, env = "AFS_CACHE_KEY_FILE", value_name = "FILE", requires = "cache_dir")]
    pub cache_key_file: Option<PathBuf>,

    /// Have close() return when what was written, and the bits and the time that were set on it, are in the journal of
    /// --cache-dir: servers get them behind, also after a crash of this program. Other clients see them later; what a server
    /// refuses is told by fsync(), the log and `afs status'
    #[arg(
        long,
        env = "AFS_STORE_BEHIND",
        requires = "cache_dir",
        conflicts_with = "cache_encrypt"
    )]
    pub store_behind: bool,

    /// Keep cached data in memory, at most so much [default: 128M unless --cache-dir is given]
    #[arg(long, env = "AFS_CACHE_MEMORY", value_name = "SIZE")]
    pub cache_memory: Option<Size>,

    /// Have the kernel read files of read-only and backup volumes by itself, those that are wholly in --cache-dir and not
    /// encrypted, where it allows that (as root, Linux 6.9 and newer); or have it ask for everything
    #[arg(
        long,
        env = "AFS_PASSTHROUGH",
        value_name = "WHEN",
        value_enum,
        default_value_t
    )]
    pub passthrough: Passthrough,

    /// UDP port for both directions [default: 7001 if free, else any]
    #[arg(long, env = "AFS_PORT", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Local IPv4 address to send from and to be called back at [default: all]
    #[arg(long, env = "AFS_ADDRESS", value_name = "ADDR")]
    pub address: Option<Ipv4Addr>,

    /// Serve Prometheus metrics at http://ADDR:PORT/metrics, and /healthz, /readyz, /debug/...; if it cannot be used the
    /// mount does without, and `afs status' says so
    #[arg(long, env = "AFS_METRICS", value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,

    /// Whose tokens a request is made with: those of the user who makes it, of the user in the same control group
    /// (containers), or of the mount, whoever makes it
    #[arg(long, env = "AFS_IDENTITY", value_name = "RULE", value_enum, default_value_t)]
    pub identity: Rule,

    /// Get the token that all share with the key of --principal in this key table, and renew it (with --identity mount)
    #[arg(long, env = "AFS_KEYTAB", value_name = "FILE", requires = "principal")]
    pub keytab: Option<PathBuf>,

    /// Whose key of --keytab is used
    #[arg(long, env = "AFS_PRINCIPAL", value_name = "NAME", requires = "keytab")]
    pub principal: Option<String>,

    /// How tokens are used.
    #[command(flatten)]
    pub protection: Protection,

    /// Which locks the servers hear of, so that they exclude programs on other machines: those on whole files, all (each
    /// takes the whole file), or none. Locks on parts of a file are else among the programs of this machine
    #[arg(long, env = "AFS_LOCKS", value_name = "WHICH", value_enum, default_value_t)]
    pub locks: Locks,

    /// What `@sys' in a path stands for: the first of these, with commas between them, that there is in the directory
    /// [default: what OpenAFS calls this system, e.g. amd64_linux26]
    #[arg(long, env = "AFS_SYSNAME", value_name = "NAMES")]
    pub sysname: Option<SysNames>,

    /// Which mount points are shown with attributes that are made up until somebody goes in, so that `ls -l' waits for no
    /// server of their volumes: all, or those to other cells. The others are crossed when they are looked at
    #[arg(long, env = "AFS_FAKESTAT", value_name = "WHICH", value_enum, default_value_t)]
    pub fakestat: Fakestat,

    /// Refuse every change
    #[arg(long, env = "AFS_READ_ONLY", action = ArgAction::SetTrue)]
    pub read_only: bool,

    /// An operation that no server answers ends in an error after so many seconds
    #[arg(long, env = "AFS_DEADLINE", value_name = "SECS", default_value = "60",
          value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub deadline: u64,

    /// An idle connection to a server is closed after so many seconds, one of a server to us after five times as many
    #[arg(long, env = "AFS_CONNECTION_EXPIRY", value_name = "SECS", default_value = "120",
          value_parser = clap::value_parser!(u32).range(1..=86400))]
    pub connection_expiry: u32,

    /// Where messages go; without it: standard error with -f, else /var/log/afs-fuse/NAME.log, else
    /// $XDG_STATE_HOME/afs-fuse/NAME.log, else nowhere (AFS_LOG sets the level, e.g. AFS_LOG=debug)
    #[arg(long, env = "AFS_LOG_FILE", value_name = "FILE")]
    pub log_file: Option<PathBuf>,
}

/// Options of `afs mount`.
#[derive(Args, Clone, Debug)]
pub struct Mount {
    /// How it is served.
    #[command(flatten)]
    pub client: Client,

    /// Let other users than the one who mounts use it (as root: yes; else needs user_allow_other in /etc/fuse.conf)
    #[arg(long, env = "AFS_ALLOW_OTHER", action = ArgAction::SetTrue)]
    pub allow_other: bool,

    /// Stay in the foreground [default: return once the mount answers]
    #[arg(short, long)]
    pub foreground: bool,

    /// As a service of systemd: leave the mount with it (FileDescriptorStoreMax=2), which gives it to the next process after a
    /// crash, or after SIGHUP, at which this one ends with exit status 75; stays in the foreground
    #[arg(long, env = "AFS_FD_STORE", action = ArgAction::SetTrue)]
    pub fd_store: bool,

    /// Set by the parent that waits for the daemon; see `daemon.rs`
    #[arg(long, hide = true)]
    pub report_on_stdout: bool,

    /// An empty directory
    #[arg(value_name = "MOUNTPOINT")]
    pub mount_point: PathBuf,
}

impl Client {
    /// The limit of one operation.
    pub const fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline)
    }

    /// How long idle connections live: those to servers, and those of servers to us.
    pub fn connection_idle(&self) -> (Duration, Duration) {
        let idle = Duration::from_secs(self.connection_expiry.into());
        (idle, idle * 5)
    }
}

/// Options of `afs serve`.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// How it is served.
    #[command(flatten)]
    pub client: Client,

    /// The socket of the keeper that holds the mount
    #[arg(long, env = "AFS_FD_SOCKET", value_name = "SOCKET")]
    pub fd_socket: PathBuf,
}

/// Options of `afs umount`.
#[derive(Args, Clone, Debug)]
pub struct Umount {
    /// Where it is mounted
    #[arg(value_name = "MOUNTPOINT")]
    pub mount_point: PathBuf,
}

/// Options of `afs demo`.
#[derive(Args, Clone, Debug)]
pub struct Demo {
    /// Which kind of cell: one inside this program, or real OpenAFS servers (needs the source tree and root)
    #[arg(long, value_enum, default_value = "embedded")]
    pub cell: DemoCell,

    /// Mount at this empty directory [default: one below the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub mountpoint: Option<PathBuf>,

    /// Serve Prometheus metrics at http://ADDR:PORT/metrics [default: port 9465 of a loopback address of its own]; with
    /// --cell openafs in the network namespace of the first client
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,

    /// Let the servers fail as this file says, one rule on each line, e.g. `on 3 fs FetchData64: abort VBUSY'
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,
}

/// The cells that `afs demo` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoCell {
    /// In this process.
    Embedded,
    /// By the script `testcell/demo`.
    Openafs,
}

/// Options of `afs reveal`.
#[derive(Args, Clone, Debug)]
pub struct Reveal {
    /// The key of the cache
    #[arg(long, env = "AFS_CACHE_KEY_FILE", value_name = "FILE")]
    pub cache_key_file: PathBuf,

    /// A folder in `set-aside' of the cache directory
    pub folder: PathBuf,
}

const EXIT_STATUSES: &str = "\
Exit status:
  0  done                          5  unknown cell, or its configuration is broken
  1  failed in some other way      6  no server of the home cell answers
  2  wrong command line            7  the port or address cannot be used
  3  the mount point is unusable   8  the cache directory is unusable
  4  FUSE is unusable here";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn mount(arguments: &[&str]) -> Result<Mount, String> {
        let all = ["afs", "mount"].iter().chain(arguments);
        match Cli::try_parse_from(all) {
            Ok(Cli {
                command: Command::Mount(mount),
            }) => Ok(mount),
            Ok(other) => Err(format!("{other:?}")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn defaults() {
        let mount = mount(&["/afs"]).unwrap();
        assert_eq!(mount.mount_point, PathBuf::from("/afs"));
        assert_eq!(mount.client.deadline(), Duration::from_secs(60));
        let minutes = (Duration::from_mins(2), Duration::from_mins(10));
        let client = mount.client;
        assert_eq!(client.connection_idle(), minutes);
        assert_eq!(client.cache_size, Size(1 << 30));
        assert_eq!(
            (client.cell, client.port, client.cache_memory),
            (None, None, None)
        );
        assert!(!mount.foreground && !client.read_only && !mount.allow_other && !mount.report_on_stdout);
    }

    #[test]
    fn every_option() {
        let line = "--cell a.b --cellservdb /c --cache-dir /d --cache-size 2G --port 7009 --address 10.0.0.1 \
                    --metrics 127.0.0.1:9465 --allow-other --read-only --deadline 5 --log-file /l -f /afs";
        let mount = mount(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
        let client = mount.client;
        assert_eq!(client.cell.as_deref(), Some("a.b"));
        assert_eq!(client.cache_size, Size(2 << 30));
        assert_eq!(client.port, Some(7009));
        assert_eq!(client.metrics, Some(SocketAddr::from(([127, 0, 0, 1], 9465))));
        assert!(mount.foreground && client.read_only && mount.allow_other);
    }

    #[test]
    fn wrong_lines_say_why() {
        for (line, part) in [
            (vec![], "<MOUNTPOINT>"),
            (vec!["--cache-memory", "12Q", "/afs"], "write a size like"),
            (
                vec!["--cache-memory", "1M", "--cache-dir", "/d", "/afs"],
                "cannot be used with",
            ),
            (vec!["--cache-encrypt", "/afs"], "--cache-dir <DIR>"),
            (vec!["--store-behind", "/afs"], "--cache-dir <DIR>"),
            (
                vec![
                    "--cache-dir",
                    "/d",
                    "--cache-encrypt",
                    "--cache-key-file",
                    "/k",
                    "/afs",
                ],
                "cannot be used with",
            ),
            (vec!["--port", "0", "/afs"], "not in 1..=65535"),
            (vec!["--metrics", "nine", "/afs"], "invalid socket address"),
            (vec!["--deadline", "0", "/afs"], "not in 1..=86400"),
            (vec!["--sysname", "a/b", "/afs"], "does not end in @sys"),
            (vec!["--connection-expiry", "0", "/afs"], "not in 1..=86400"),
        ] {
            let error = mount(&line).unwrap_err();
            assert!(error.contains(part), "{line:?}: {error}");
        }
    }
}
