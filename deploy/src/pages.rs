//! Manual pages and completions, made from the definitions of the command line.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};
use fuse::cli::Cli;

/// Writes `man/` and `completions/` into a folder.
///
/// # Errors
///
/// The folder cannot be written.
pub fn write(folder: &Path) -> Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    for made in [&man, &completions] {
        fs::create_dir_all(made).with_context(|| format!("{}", made.display()))?;
    }
    let mut command = Cli::command().disable_help_subcommand(true);
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut command, "afs", &completions)?;
    }
    clap_mangen::generate_to(command, &man)?;
    Ok(())
}
