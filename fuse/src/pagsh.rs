//! `afs pagsh`: a command, or a shell, with tokens of its own.
//!
//! The machine: it tells every mount that it is a scope, and becomes the command, which so is the same process. What the
//! command starts is in the scope as long as the line of its parents leads to it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::ctl::client::ask_all;
use crate::ctl::{Reply, Request};
use crate::failure::{Failure, Kind};

/// Options of `afs pagsh`.
#[derive(Args, Clone, Debug)]
pub struct Pagsh {
    /// What to run [default: $SHELL, else /bin/sh]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Runs `afs pagsh`. It comes back only if that fails.
pub fn pagsh(options: &Pagsh) -> ExitCode {
    become_command(options).show()
}

fn become_command(options: &Pagsh) -> Failure {
    let asked = ask_all(&Request::OpenScope, None);
    if !asked
        .answers
        .iter()
        .any(|answer| matches!(answer.reply, Ok(Reply::Done)))
    {
        return asked.nobody_does("opens a scope");
    }
    let shell = || std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let words = match &*options.command {
        [] => vec![shell().unwrap_or_else(|| "/bin/sh".into())],
        words => words.to_vec(),
    };
    let Some((program, arguments)) = words.split_first() else {
        return Failure::new(Kind::Usage, "there is no command");
    };
    let error = Command::new(program).args(arguments).exec();
    Failure::new(
        Kind::Other,
        format!("{} cannot be run: {error}", program.to_string_lossy()),
    )
}
