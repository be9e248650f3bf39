//! Bytes that can be told apart: made from a seed, compared by checksum.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::command::run;

/// A small generator (SplitMix64): the same seed gives the same run on every machine.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below a bound, which must not be 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// Makes a file of so many bytes; the seed decides them.
pub fn fill(path: &Path, length: u64, seed: u64) -> Result<()> {
    const PIECE: u64 = 256 << 10;
    let mut random = Random::new(seed);
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut left = length;
    while left > 0 {
        let piece = left.min(PIECE);
        file.write_all(&random.bytes(usize::try_from(piece)?))
            .with_context(|| format!("write {}", path.display()))?;
        left -= piece;
    }
    Ok(())
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let said = run(
        Duration::from_secs(60),
        Command::new("sha256sum").arg("-b").arg(path),
    )?
    .ok()?
    .text();
    Ok(said.split(' ').next().unwrap_or_default().to_owned())
}

/// The SHA-256 of bytes that are written to it, as `sha256sum` sees them.
#[derive(Debug)]
pub struct Sum {
    program: Child,
    input: ChildStdin,
}

impl Sum {
    /// Of nothing yet.
    pub fn start() -> io::Result<Self> {
        let mut command = Command::new("sha256sum");
        let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = program.stdin.take();
        let input = input.ok_or_else(|| io::Error::other("no input"))?;
        Ok(Self { program, input })
    }

    /// In hexadecimal.
    pub fn end(self) -> io::Result<String> {
        drop(self.input);
        let said = self.program.wait_with_output()?.stdout;
        let said = String::from_utf8_lossy(&said);
        Ok(said.split(' ').next().unwrap_or_default().to_owned())
    }
}

impl Write for Sum {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.input.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.flush()
    }
}

/// Writes so many bytes to a file that is made new, then closes it. The errors (0 is none) of the writes, of fsync
/// if it is wanted, and of close: what the standard library hides.
pub fn write_and_close(path: &Path, length: u64, fsync: bool) -> Result<[i32; 3]> {
    const PROGRAM: &str = "
import os, sys
def tried(action):
    try:
        action()
        return 0
    except OSError as error:
        return error.errno
fd = os.open(sys.argv[1], os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o644)
data = b'quota ' * 10923
left = int(sys.argv[2])
wrote = 0
while left > 0 and not wrote:
    wrote = tried(lambda: os.write(fd, data[:left]))
    left -= len(data)
synced = tried(lambda: os.fsync(fd)) if sys.argv[3] == 'true' else 0
print(wrote, synced, tried(lambda: os.close(fd)))
";
    let mut command = Command::new("python3");
    command
        .args(["-c", PROGRAM])
        .arg(path)
        .args([length.to_string(), fsync.to_string()]);
    let said = run(Duration::from_secs(60), &mut command)?.ok()?.text();
    let numbers: Vec<i32> = said
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    numbers.try_into().ok().context("three errors")
}
