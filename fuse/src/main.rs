//! The afs program: see `afs help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fuse::program::run()
}
