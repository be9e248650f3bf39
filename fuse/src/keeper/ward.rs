//! The side of the process that serves: it gets a mount from its keeper, and gives it back if the keeper was replaced.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::io::Interest;

use super::message::{Held, Message, Place, receive, send};
use crate::failure::{Failure, Kind};

/// A mount that somebody keeps.
#[derive(Debug)]
pub struct Ward {
    socket: PathBuf,
    /// The keeper takes its end for ours.
    connection: UnixStream,
    /// Where it is.
    pub place: Place,
    /// Its descriptors.
    pub held: Held,
}

impl Ward {
    /// Asks the keeper for its mount. Waits for a keeper that is not there yet, and for the process that serves now to end.
    pub fn take(socket: &Path) -> Result<Self, Failure> {
        let shown = socket.display();
        let failed = |error: io::Error| {
            Failure::new(
                Kind::Fuse,
                format!("the keeper at {shown} gives nothing: {error}"),
            )
            .cure("see that `afs keeper' runs with the same --socket, and lets this user in (--server-uid)")
        };
        let until = Instant::now() + PATIENCE;
        let connection = loop {
            match dial(socket) {
                Ok(connection) => break connection,
                Err(error) if is_absent(&error) && Instant::now() < until => std::thread::sleep(PAUSE),
                Err(error) => return Err(failed(error)),
            }
        };
        connection.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        send(connection.as_fd(), &Message::Take, None).map_err(failed)?;
        match receive(connection.as_fd()).map_err(failed)? {
            Some((Message::Given(place), Some(held))) => Ok(Self {
                socket: socket.to_owned(),
                connection,
                place,
                held,
            }),
            Some((Message::Refused(why), _)) => Err(failed(io::Error::other(why))),
            Some(_) => Err(failed(io::ErrorKind::InvalidData.into())),
            None => Err(failed(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Tells the keeper something.
    pub fn tell(&self, message: &Message) -> io::Result<()> {
        send(self.connection.as_fd(), message, None)
    }

    /// Stays in touch with the keeper, or with the one that replaces it. Returns when the mount is to be left to the next
    /// process, which gets it when this is dropped.
    pub async fn stay(&mut self) -> io::Result<()> {
        loop {
            if hears_retire(&self.connection).await? {
                return Ok(());
            }
            tracing::warn!(
                "the keeper has gone: the mount lasts as long as this process until there is another one"
            );
            self.connection = loop {
                tokio::time::sleep(PAUSE).await;
                if let Ok(connection) = dial(&self.socket)
                    && send(
                        connection.as_fd(),
                        &Message::Keep(self.place.clone()),
                        Some(&self.held),
                    )
                    .is_ok()
                    && send(connection.as_fd(), &Message::Serving, None).is_ok()
                {
                    break connection;
                }
            };
            tracing::info!("a new keeper was given the mount");
        }
    }
}

/// Listens to a keeper until it says to retire (true) or is gone (false).
async fn hears_retire(connection: &UnixStream) -> io::Result<bool> {
    connection.set_nonblocking(true)?;
    let connection = tokio::net::UnixStream::from_std(connection.try_clone()?)?;
    loop {
        connection.readable().await?;
        match connection.try_io(Interest::READABLE, || receive(connection.as_fd())) {
            Ok(Some((Message::Retire, _))) => return Ok(true),
            Ok(Some((Message::Refused(why), _))) => {
                tracing::error!(why, "the keeper does not take the mount");
                return Ok(false);
            }
            Ok(Some(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) | Err(_) => return Ok(false),
        }
    }
}

fn dial(path: &Path) -> io::Result<UnixStream> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// How long a keeper is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(100);
