//! The variables of the environment, where mounts of units and pods are configured: what is not known is not passed over.
//!
//! The machine: a name that begins with `AFS_` is a variable of the command line, or one that tests and scripts of this
//! project are told by, or made by Kubernetes for a service of such a name; one that is like a variable is refused with that,
//! and any other is complained of.

use std::collections::BTreeSet;
use std::env;
use std::sync::LazyLock;

use clap::CommandFactory as _;
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;
use crate::failure::{Failure, Kind};
use crate::fstab::nearest;

/// The variables that `afs` reads.
static VARIABLES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let command = Cli::command();
    let named = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| Some(argument.get_env()?.to_string_lossy().into_owned()));
    named.chain([LOG.to_owned()]).collect()
});

/// What is wrong with a variable of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strange {
    /// It is none, but this one is, and is written nearly so.
    Misspelt(String),
    /// It is none.
    Unknown,
}

/// What is wrong with a variable, if anything is.
#[must_use]
pub fn strange(name: &str, value: &str) -> Option<Strange> {
    let rest = name.strip_prefix(OURS)?;
    let is_of_tests = OF_TESTS.iter().any(|begin| rest.starts_with(begin));
    if VARIABLES.contains(name) || is_of_tests || is_of_service(name, value) {
        return None;
    }
    let known = VARIABLES.iter().filter_map(|known| known.strip_prefix(OURS));
    Some(match nearest(rest, known) {
        Some(near) => Strange::Misspelt(format!("{OURS}{near}")),
        None => Strange::Unknown,
    })
}

/// Looks at the environment of a process that is to mount or to serve. What is unknown and like nothing is told on standard
/// error.
///
/// # Errors
///
/// A variable is misspelt, or says what cannot be understood.
pub fn check() -> Result<(), Failure> {
    for (name, value) in env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        match strange(&name, &value) {
            None => {}
            Some(Strange::Misspelt(near)) => {
                return Err(Failure::new(Kind::Usage, format!("{name} is no variable of afs"))
                    .cure(format!("did you mean {near}?")));
            }
            Some(Strange::Unknown) => {
                Failure::show_line(&format!("{name} is no variable of afs, and is not looked at"));
            }
        }
    }
    match env::var(LOG) {
        Ok(directives) => filter(&directives).map(drop),
        Err(_) => Ok(()),
    }
}

/// The filter of messages that `AFS_LOG` asks for.
///
/// # Errors
///
/// It cannot be understood, or has a word that is nearly a level.
pub fn filter(directives: &str) -> Result<EnvFilter, Failure> {
    let wrong = |what: String| Failure::new(Kind::Usage, format!("{LOG}={directives}: {what}"));
    let parts = directives.split(',').map(str::trim);
    for level in parts.map(|part| part.rsplit_once('=').map_or(part, |(_, level)| level)) {
        let level = level.to_ascii_lowercase();
        if LEVELS.contains(&level.as_str()) {
            continue;
        }
        if let Some(near) = nearest(&level, LEVELS.iter().copied()) {
            return Err(wrong(format!("{level} is no level")).cure(format!("did you mean {near}?")));
        }
    }
    EnvFilter::try_new(directives)
        .map_err(|error| wrong(error.to_string()).cure("write a level, or levels of parts: info,rxrpc=debug"))
}

/// Is it one of those that tell a container of a service of its namespace, as Kubernetes makes them?
fn is_of_service(name: &str, value: &str) -> bool {
    let is_port_of = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split("_PORT_").skip(1).any(is_port_of)
        || ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|begin| value.starts_with(begin))
}

const OURS: &str = "AFS_";
const LOG: &str = "AFS_LOG";
const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];
/// What variables begin with by which tests, benches and scripts of this project are told something.
const OF_TESTS: &[&str] = &[
    "BENCH_", "BIN", "DEMO_", "KILLS", "LINK", "LONG_JOB", "OUTAGE", "PLOT", "TEST",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_nearly_right_are_found() {
        let near = |name: &str| match strange(name, "x") {
            Some(Strange::Misspelt(near)) => near,
            other => panic!("{name}: {other:?}"),
        };
        for (name, meant) in [
            ("AFS_CEL", "AFS_CELL"),
            ("AFS_CACHEDIR", "AFS_CACHE_DIR"),
            ("AFS_CACHE_SIZES", "AFS_CACHE_SIZE"),
            ("AFS_METRIC", "AFS_METRICS"),
            ("AFS_READONLY", "AFS_READ_ONLY"),
            ("AFS_ORPHAN_DEADLINES", "AFS_ORPHAN_DEADLINE"),
            ("AFS_LOGS", "AFS_LOG"),
        ] {
            assert_eq!(near(name), meant);
        }
        for name in ["AFS_HOUSE", "AFS_ZZZ"] {
            assert_eq!(strange(name, "x"), Some(Strange::Unknown), "{name}");
        }
        for name in VARIABLES.iter() {
            assert_eq!(strange(name, "x"), None, "{name}");
        }
    }

    #[test]
    fn what_others_set_is_let_be() {
        for name in [
            "PATH",
            "AFSCELL",
            "RUST_LOG",
            "AFS_BIN",
            "AFS_BENCH_ROUNDS",
            "AFS_PLOT",
            "AFS_TESTCELL",
        ] {
            assert_eq!(strange(name, "x"), None, "{name}");
        }
        // A service called afs-metrics.
        for (name, value) in [
            ("AFS_METRICS_SERVICE_HOST", "10.0.0.1"),
            ("AFS_METRICS_SERVICE_PORT", "9465"),
            ("AFS_METRICS_PORT", "tcp://10.0.0.1:9465"),
            ("AFS_METRICS_PORT_9465_TCP_PROTO", "tcp"),
        ] {
            assert_eq!(strange(name, value), None, "{name}");
        }
    }

    #[test]
    fn levels_that_are_nearly_right_are_refused() {
        for good in [
            "debug",
            "WARN",
            "info,rxrpc=trace",
            "off",
            "afs_client::fs=debug,warn",
            "tokio",
        ] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for (bad, says) in [
            ("debgu", "debgu is no level; did you mean debug?"),
            ("info,rxrpc=trase", "trase is no level; did you mean trace?"),
            ("rxrpc=7x", "write a level"),
        ] {
            let said = filter(bad).unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }
}
