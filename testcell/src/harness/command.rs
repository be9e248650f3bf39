//! Commands that must end: each runs in a process group of its own and is killed at its limit.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// What a command left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
    line: String,
}

impl Finished {
    /// The standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The result, if the command succeeded; otherwise an error that shows all it said.
    pub fn ok(self) -> Result<Self> {
        if self.status.success() {
            return Ok(self);
        }
        let how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        };
        bail!("`{}' ended with {how}\n{}{}", self.line, self.text(), self.stderr)
    }
}

/// Runs a command from `/`, never from inside a mount under test.
pub fn run(limit: Duration, command: &mut Command) -> Result<Finished> {
    run_in(Path::new("/"), limit, command)
}

/// Runs a command in a folder. At the limit its whole process group is killed.
pub fn run_in(folder: &Path, limit: Duration, command: &mut Command) -> Result<Finished> {
    let line = shown(command);
    // Files, not pipes: a daemon that the command leaves behind must not hold us up.
    let mut out = tempfile::tempfile().context("a file for the output")?;
    let mut err = tempfile::tempfile().context("a file for the messages")?;
    command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .process_group(0);
    let began = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{line}'"))?;
    let status = wait(&mut child, limit)?;
    let took = began.elapsed();
    let Some(status) = status else {
        kill_group(&child, Signal::KILL);
        // A process in an uninterruptible wait is left to its end rather than waited for.
        let _ = wait(&mut child, Duration::from_secs(5));
        let stderr = String::from_utf8_lossy(&whole(&mut err)?).into_owned();
        bail!("`{line}' did not end within {limit:?} and was killed\n{stderr}");
    };
    let stdout = whole(&mut out)?;
    let stderr = String::from_utf8_lossy(&whole(&mut err)?).into_owned();
    Ok(Finished {
        status,
        stdout,
        stderr,
        took,
        line,
    })
}

/// Waits for the end of a child; None at the limit.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        sleep(Duration::from_millis(5));
    }
}

/// Signals the group that a child leads. The child is not reaped yet, so its pid is still its own.
pub(crate) fn kill_group(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(pid, signal);
    }
}

/// The last lines of a file, or why it cannot be read.
pub fn tail(path: &Path, lines: usize) -> String {
    match std::fs::read(path) {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<_> = text.lines().collect();
            let newest = all.get(all.len().saturating_sub(lines)..).unwrap_or_default();
            newest.join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}

fn whole(file: &mut File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_killed_at_its_limit() {
        let began = Instant::now();
        let error = run(
            Duration::from_millis(200),
            Command::new("sh").args(["-c", "echo so far >&2; sleep 60"]),
        );
        let text = format!("{:?}", error.unwrap_err());
        assert!(text.contains("did not end") && text.contains("so far"), "{text}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_failure_shows_what_was_said() {
        let finished = run(
            Duration::from_secs(5),
            Command::new("sh").args(["-c", "echo why >&2; exit 3"]),
        )
        .unwrap();
        let text = format!("{:?}", finished.ok().unwrap_err());
        assert!(text.contains("exit status 3") && text.contains("why"), "{text}");
    }
}
