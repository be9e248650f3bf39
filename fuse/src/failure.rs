//! What ends a command: one line that says what is wrong and how to cure it, and an exit status per kind.

use std::fmt;
use std::io::Write as _;
use std::process::ExitCode;

/// The kinds of failure, each with its own exit status (listed in `afs mount --help`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything that has no kind of its own.
    Other,
    /// The command line is wrong.
    Usage,
    /// The mount point cannot be used.
    MountPoint,
    /// FUSE cannot be used here.
    Fuse,
    /// The cell is unknown or its configuration is broken.
    Cell,
    /// The cell is known but none of its servers answers.
    NoServer,
    /// A port or address cannot be used.
    Address,
    /// The cache cannot be used.
    Cache,
}

impl Kind {
    /// The exit status of the program.
    pub const fn status(self) -> u8 {
        match self {
            Self::Other => 1,
            Self::Usage => 2,
            Self::MountPoint => 3,
            Self::Fuse => 4,
            Self::Cell => 5,
            Self::NoServer => 6,
            Self::Address => 7,
            Self::Cache => 8,
        }
    }
}

/// A failure of a command: what is wrong, then the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    kind: Kind,
    what: String,
    cure: Option<String>,
}

impl Failure {
    /// A failure whose cause suggests no particular cure.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
            cure: None,
        }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn cure(mut self, cure: impl Into<String>) -> Self {
        self.cure = Some(cure.into());
        self
    }

    /// Its kind.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Tells it on standard error, and gives the exit status.
    pub fn show(&self) -> ExitCode {
        Self::show_line(&self.to_string());
        self.exit_code()
    }

    /// Tells a line as this program's.
    pub fn show_line(line: &str) {
        // Without standard error there is nobody to tell.
        let _ = writeln!(std::io::stderr(), "afs: {line}");
    }

    /// The exit status that tells it.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.kind.status())
    }
}

impl fmt::Display for Failure {
    /// Always one line: control characters of foreign texts become spaces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", one_line(&self.what))?;
        match &self.cure {
            Some(cure) => write!(f, "; {}", one_line(cure)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

fn one_line(text: &str) -> String {
    let spaced: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    spaced.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_cure() {
        let failure = Failure::new(Kind::Cell, "unknown cell `x'\n").cure("look at\nCellServDB");
        assert_eq!(failure.to_string(), "unknown cell `x'; look at CellServDB");
        assert_eq!(failure.kind().status(), 5);
    }
}
