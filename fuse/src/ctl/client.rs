//! The side of the commands.

use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Reply, Request, directories, passing};
use crate::failure::{Failure, Kind};

/// What one mount answered.
#[derive(Debug)]
pub struct Answer {
    /// Its socket.
    pub socket: PathBuf,
    /// The answer, or why there is none.
    pub reply: io::Result<Reply>,
}

/// What all of them answered.
#[derive(Debug)]
pub struct Asked {
    /// One by one.
    pub answers: Vec<Answer>,
}

impl Asked {
    /// None of them does what it should: why not.
    pub fn nobody_does(&self, what: &str) -> Failure {
        if self.answers.is_empty() {
            return Failure::new(Kind::Other, format!("no mount {what}: there is none"))
                .cure("mount first, with `afs mount MOUNTPOINT'");
        }
        let refusals: Vec<_> = self
            .answers
            .iter()
            .map(|answer| format!("{}: {}", answer.socket.display(), answer.refusal()))
            .collect();
        Failure::new(Kind::Other, format!("no mount {what} ({})", refusals.join(", ")))
    }
}

impl Answer {
    /// Why it was not done.
    pub fn refusal(&self) -> String {
        match &self.reply {
            Ok(Reply::Refused(why)) => why.clone(),
            Ok(_) => "it answers another question".to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

/// Asks every mount that this user can see, and hands it a descriptor. Those that have ended are left out.
pub fn ask_all(request: &Request, along: Option<BorrowedFd<'_>>) -> Asked {
    let mut answers = Vec::new();
    for directory in directories() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for socket in entries.flatten().map(|entry| entry.path()) {
            match ask(&socket, request, along) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                reply => answers.push(Answer { socket, reply }),
            }
        }
    }
    Asked { answers }
}

fn ask(socket: &Path, request: &Request, along: Option<BorrowedFd<'_>>) -> io::Result<Reply> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let server = rustix::net::sockopt::socket_peercred(&stream)?.uid;
    if !server.is_root() && server != rustix::process::geteuid() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "another user listens there",
        ));
    }
    let bytes = request.encode();
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    passing::send(&stream, length, along)?;
    stream.write_all(&bytes)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > REPLY_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the answer is too long",
        ));
    }
    let mut reply = Vec::new();
    stream.take(length.into()).read_to_end(&mut reply)?;
    Reply::decode(&reply).map_err(|nonsense| io::Error::new(io::ErrorKind::InvalidData, nonsense.to_string()))
}

const PATIENCE: Duration = Duration::from_secs(5);
const REPLY_MAX: u32 = 1 << 20;
