//! Into the background and back to the caller's terminal.
//!
//! The machine: `afs mount` starts itself once more, with a pipe for standard output, and waits at the other end. The child
//! writes one report, `ready` or an exit status with a line of text, when it knows how starting went; the parent shows it and
//! ends with that status. Only when the mount answers the child leaves the caller's session: an autofs mount lets nobody pass
//! but the process group of who fills it (systemd, automount). There is no fork of a process with threads, and the
//! child can be given its own environment.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cli;
use crate::failure::{Failure, Kind};

/// Starts the child and waits for its report.
pub fn start() -> ExitCode {
    match start_child() {
        Ok(code) => code,
        Err(failure) => failure.show(),
    }
}

fn start_child() -> Result<ExitCode, Failure> {
    let failed = |error: io::Error| Failure::new(Kind::Other, format!("cannot start the daemon: {error}"));
    let program = std::env::current_exe().map_err(failed)?;
    let mut arguments = std::env::args_os().skip(1);
    let mut child = Command::new(program)
        // By another name it would be a mount helper.
        .arg0("afs")
        // The subcommand comes first; `--` may follow.
        .args(arguments.next())
        .arg("--report-on-stdout")
        .args(arguments)
        // Fewer arenas of glibc's allocator keep less memory that was given back.
        .env(
            "MALLOC_ARENA_MAX",
            std::env::var_os("MALLOC_ARENA_MAX").unwrap_or_else(|| "2".into()),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let mut text = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut text).map_err(failed)?;
    }
    match Report::parse(&text) {
        Some(Report::Ready) => Ok(ExitCode::SUCCESS),
        Some(Report::Failed(status, line)) => {
            Failure::show_line(&line);
            Ok(ExitCode::from(status))
        }
        None => {
            let status = child.wait().map_err(failed)?;
            Err(Failure::new(
                Kind::Other,
                format!("the daemon ended while it started ({status})"),
            )
            .cure("see what it says with -f"))
        }
    }
}

/// How starting went.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Report {
    Ready,
    Failed(u8, String),
}

impl Report {
    fn parse(text: &str) -> Option<Self> {
        let (first, rest) = text.split_once('\n')?;
        if first == READY {
            return Some(Self::Ready);
        }
        Some(Self::Failed(first.parse().ok()?, rest.trim_end().to_owned()))
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready => writeln!(f, "{READY}"),
            Self::Failed(status, line) => write!(f, "{status}\n{line}\n"),
        }
    }
}

/// Who waits for the report: the parent, or a person at the terminal.
#[derive(Debug)]
pub struct Caller {
    waiting: bool,
    log: Option<PathBuf>,
}

impl Caller {
    /// Takes its place.
    pub fn new(options: &cli::Client, waiting: bool) -> io::Result<Self> {
        let log = match &options.log_file {
            Some(file) => Some(std::path::absolute(file)?),
            None => None,
        };
        Ok(Self { waiting, log })
    }

    /// Turns standard error into the log, when relative paths have been read: a daemon leaves the directory as well.
    pub fn leave(&self, at: &Path) -> Result<(), Failure> {
        let unusable = |file: &Path, error: &io::Error| {
            Failure::new(
                Kind::Other,
                format!("log file {} cannot be used: {error}", file.display()),
            )
            .cure("choose another with --log-file")
        };
        let log = match &self.log {
            Some(file) => Some(open_log(file).map_err(|error| unusable(file, &error))?),
            None if self.waiting => {
                Some(default_log(at).map_err(|error| unusable(Path::new(NOWHERE), &error))?)
            }
            None => None,
        };
        let failed = |error: io::Error| Failure::new(Kind::Other, format!("cannot become a daemon: {error}"));
        if let Some(log) = log {
            rustix::stdio::dup2_stderr(&log).map_err(|error| failed(error.into()))?;
        }
        if self.waiting {
            std::env::set_current_dir("/").map_err(failed)?;
        }
        Ok(())
    }

    /// Reports that the mount answers, and leaves the caller's session. An error means that nobody waits any more.
    pub fn ready(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.waiting) {
            // Before the parent ends, whose end may be that of the session.
            let left = rustix::process::setsid();
            send(&Report::Ready)?;
            rustix::stdio::dup2_stdout(File::options().write(true).open(NOWHERE)?)?;
            left?;
        }
        Ok(())
    }

    /// Reports a failure, and gives the exit status.
    pub fn failed(&mut self, failure: &Failure) -> ExitCode {
        if std::mem::take(&mut self.waiting) {
            // Without a reader there is nobody left to tell.
            let _ = send(&Report::Failed(failure.kind().status(), failure.to_string()));
            return failure.exit_code();
        }
        failure.show()
    }
}

fn send(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(report.to_string().as_bytes())?;
    out.flush()
}

fn open_log(file: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(file)
}

/// The first place that can be written to; nowhere, if there is none.
fn default_log(at: &Path) -> io::Result<File> {
    let name = log_name(at);
    for directory in directories("/var/log") {
        if let Ok(file) = open_log(&directory.join(&name)) {
            return Ok(file);
        }
    }
    OpenOptions::new().write(true).open(NOWHERE)
}

/// Where a mount without a cache directory writes down what the next one at that place has to know, if there is a place.
pub fn notes_of(at: &Path) -> Option<PathBuf> {
    let may = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let directory = directories("/var/lib").find(|directory| rustix::fs::access(directory, may).is_ok())?;
    Some(directory.join(format!("{}.hidden", name_of(at))))
}

/// Directories of this program that there are, or could be made: of the system, and of who runs it.
fn directories(of_system: &str) -> impl Iterator<Item = PathBuf> {
    let system = Some(PathBuf::from(of_system));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let places = [system, state, home].into_iter().flatten();
    places
        .map(|place| place.join("afs-fuse"))
        .filter(|directory| std::fs::create_dir_all(directory).is_ok())
}

/// `/mnt/afs` logs to `mnt-afs.log`.
fn log_name(at: &Path) -> String {
    format!("{}.log", name_of(at))
}

/// The mount at `/mnt/afs` is called `mnt-afs`.
pub fn name_of(at: &Path) -> String {
    let name: Vec<_> = at.iter().skip(1).map(|part| part.to_string_lossy()).collect();
    // A path may be longer than a name.
    let mut name = name.join("-");
    while name.len() > 200 {
        name.pop();
    }
    name
}

const READY: &str = "ready";
const NOWHERE: &str = "/dev/null";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_arrive_as_sent() {
        for report in [
            Report::Ready,
            Report::Failed(5, "unknown cell `x'; look at CellServDB".to_owned()),
        ] {
            assert_eq!(Report::parse(&report.to_string()), Some(report));
        }
        for text in ["", "ready", "no\nx\n", "999\nx\n"] {
            assert_eq!(Report::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn logs_are_named_after_the_mount_point() {
        assert_eq!(log_name(Path::new("/mnt/afs")), "mnt-afs.log");
        assert!(log_name(Path::new(&format!("/{}", "a/".repeat(300)))).len() <= 204);
    }
}
