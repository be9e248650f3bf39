//! The side of the commands.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::net;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde::de::DeserializeOwned;

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
    /// The report that was asked for, with its JSON.
    pub fn report<T: DeserializeOwned>(&self) -> Option<(T, &str)> {
        match &self.reply {
            Ok(Reply::Report(json)) => Some((serde_json::from_str(json).ok()?, json)),
            _ => None,
        }
    }

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
    let mut answers: Vec<_> = ask_each(request, along).collect();
    answers.sort_by(|a, b| a.socket.cmp(&b.socket));
    Asked { answers }
}

/// The answers of all mounts as they come: one that hangs holds up nobody who has heard enough.
pub fn ask_each(request: &Request, along: Option<BorrowedFd<'_>>) -> impl Iterator<Item = Answer> + use<> {
    let (tell, answers) = channel();
    let bytes = Arc::new(request.encode());
    // Without one the mount says what it lacks.
    let along = along
        .and_then(|along| along.try_clone_to_owned().ok())
        .map(Arc::new);
    for directory in directories() {
        let Ok(entries) = std::fs::read_dir(&directory) else {
            continue;
        };
        for socket in entries.flatten().map(|entry| entry.path()) {
            let (tell, bytes, along) = (tell.clone(), Arc::clone(&bytes), along.clone());
            std::thread::spawn(move || {
                let reply = converse(&socket, &bytes, along.as_ref().map(|along| along.as_fd()));
                // Nobody may want to hear it any more.
                let _ = tell.send(Answer { socket, reply });
            });
        }
    }
    answers.into_iter().filter(|answer| {
        let refused = answer.reply.as_ref().err().map(io::Error::kind);
        refused != Some(io::ErrorKind::ConnectionRefused)
    })
}

/// Asks the mount behind one socket.
pub fn ask(socket: &Path, request: &Request) -> Answer {
    Answer {
        reply: converse(socket, &request.encode(), None),
        socket: socket.to_owned(),
    }
}

/// Connects; waits no longer than it may if nobody accepts.
fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = net::socket_with(
        net::AddressFamily::UNIX,
        net::SocketType::STREAM,
        net::SocketFlags::CLOEXEC,
        None,
    )?;
    for direction in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&stream, direction, Some(PATIENCE))?;
    }
    net::connect(&stream, &net::SocketAddrUnix::new(socket)?)?;
    Ok(stream.into())
}

fn converse(socket: &Path, bytes: &[u8], along: Option<BorrowedFd<'_>>) -> io::Result<Reply> {
    let mut stream = connect(socket)?;
    let server = net::sockopt::socket_peercred(&stream)?.uid;
    if !server.is_root() && server != rustix::process::geteuid() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "another user listens there",
        ));
    }
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    passing::send(&stream, length, along)?;
    stream.write_all(bytes)?;
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

/// A little more than a mount takes for its answer.
const PATIENCE: Duration = Duration::from_secs(6);
const REPLY_MAX: u32 = 1 << 20;
