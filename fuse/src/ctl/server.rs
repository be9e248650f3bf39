//! The side of the mount.

use std::fs::{self, DirBuilder, Permissions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use afs_client::auth::Identity;
use afs_client::fs::AfsFs;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::proto::MESSAGE_MAX;
use super::{Held, Reply, Request, own_directories, passing};
use crate::identity::Identities;
use crate::report::unstored::Told;
use crate::report::{Reports, Served};
use crate::telemetry::trace;

/// The socket of one mount. Its drop removes it.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    task: tokio::task::AbortHandle,
}

/// Who may do what: everybody what concerns their own tokens. Those of a mount that makes all its users one are its
/// owner's. Root may look at all, but nobody ever gets a key back.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Whose mount it is, and who may use it.
    pub served: Arc<Served>,
    /// Who is who.
    pub identities: Arc<Identities>,
}

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug)]
struct Asker {
    user: u32,
    process: u32,
}

impl Socket {
    /// Listens. Needs a tokio runtime.
    pub fn listen(name: &str, reports: Reports, policy: Policy) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "XDG_RUNTIME_DIR is not set");
        for directory in own_directories() {
            match Self::listen_in(&directory, name, &reports, &policy) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn listen_in(directory: &Path, name: &str, reports: &Reports, policy: &Policy) -> io::Result<Self> {
        secure(directory, policy.served.owner)?;
        sweep(directory, FRESH)?;
        // Addresses of sockets are short.
        let name: String = name.chars().take(NAME_MAX).filter(char::is_ascii).collect();
        // Mounts of several containers may share the directory, and their processes have the same ids.
        let number = RandomState::new().build_hasher().finish();
        let path = directory.join(format!("{name}.{number:016x}.sock"));
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        let task = tokio::spawn(serve(listener, reports.clone(), policy.clone())).abort_handle();
        Ok(Self { path, task })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
        // Whoever connects to what is left is refused.
        let _ = fs::remove_file(&self.path);
    }
}

/// Makes the directory, or sees that nobody else can put sockets there.
fn secure(directory: &Path, owner: u32) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o755).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(directory)?;
    if !found.is_dir() || found.uid() != owner || found.mode() & 0o022 != 0 {
        let what = format!("{} can be written by others", directory.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
    }
    Ok(())
}

/// Removes sockets that nobody listens on any more. One that was just made may be about to be listened on.
fn sweep(directory: &Path, fresh: Duration) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let refused = std::os::unix::net::UnixStream::connect(&path);
        let is_dead = refused.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
        let made = entry.metadata().and_then(|found| found.modified());
        if is_dead && made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age >= fresh)) {
            // Another mount that starts may have done it already.
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

async fn serve(listener: UnixListener, reports: Reports, policy: Policy) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (reports, policy) = (reports.clone(), policy.clone());
                tokio::spawn(async move {
                    let answered = tokio::time::timeout(PATIENCE, converse(stream, &reports, &policy)).await;
                    if let Ok(Err(error)) = answered {
                        tracing::debug!(%error, "a command gave up");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket takes nobody");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(mut stream: UnixStream, reports: &Reports, policy: &Policy) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let asker = Asker {
        user: peer.uid(),
        process: peer.pid().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
    };
    let (length, along) = passing::receive(&stream).await?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let reply = if length > MESSAGE_MAX {
        Reply::Refused(format!("a request of {length} bytes is too long"))
    } else {
        let mut request = Zeroizing::new(vec![0; length]);
        stream.read_exact(&mut request).await?;
        match Request::decode(&request) {
            Ok(request) => policy.answer(reports, asker, request, along).await,
            Err(nonsense) => Reply::Refused(nonsense.to_string()),
        }
    };
    let reply = reply.encode();
    stream
        .write_u32(u32::try_from(reply.len()).unwrap_or(u32::MAX))
        .await?;
    stream.write_all(&reply).await
}

impl Policy {
    async fn answer(
        &self,
        reports: &Reports,
        asker: Asker,
        request: Request,
        along: Option<OwnedFd>,
    ) -> Reply {
        let fs = &reports.fs;
        let who = match request {
            Request::SetToken(..) => {
                let held = || fs.tokens().into_iter().map(|held| held.owner).collect();
                self.identities.of_holder(asker.user, asker.process, held)
            }
            _ => self.identities.of(asker.user, asker.process),
        };
        if let Some(why) = self.refusal(who, asker.user, &request) {
            return Reply::Refused(why.to_owned());
        }
        let mine = fs.as_identity(who);
        let done = match request {
            Request::SetToken(token, offer) => {
                tracing::info!(cell = %token.cell, client = %token.client, owner = shown(who), "a token was set");
                let source = offer.map(|offer| offer.source(asker.user, along));
                mine.set_token(*token, source).map_err(|error| error.to_string())
            }
            Request::ListTokens => {
                return Reply::Tokens(held(fs, |owner| owner == who || asker.user == ROOT));
            }
            Request::ForgetTokens(cell) => {
                mine.forget_tokens(cell.as_ref());
                Ok(())
            }
            Request::OpenScope => self.open_scope(fs, asker).map_err(|error| error.to_string()),
            Request::Status => {
                let may_see = |owner| {
                    (owner == who && self.refusal(who, asker.user, &LIST).is_none()) || asker.user == ROOT
                };
                let all = asker.user == ROOT || asker.user == self.served.owner;
                let told = if all { Told::All } else { Told::Of(asker.user) };
                return reported(&reports.status(held(fs, may_see), told));
            }
            Request::Why(path) => {
                let all = asker.user == ROOT;
                return reported(&reports.why(&mine, &path, shown(who), all).await);
            }
            Request::Sample => return reported(&reports.sample()),
            Request::Trace(ratio, slow_ms) => {
                trace::trace(ratio, slow_ms);
                let now = trace::traced();
                tracing::info!(
                    ratio = now.ratio,
                    slow_ms = now.slow_ms,
                    "what is traced was asked or changed"
                );
                return reported(&now);
            }
        };
        done.map_or_else(Reply::Refused, |()| Reply::Done)
    }

    /// Why it is not done.
    fn refusal(&self, who: Identity, user: u32, request: &Request) -> Option<&'static str> {
        match (who, request) {
            (_, Request::Trace(..)) => {
                (user != ROOT && user != self.served.owner).then_some("that is its owner's to say")
            }
            (_, Request::Status | Request::Why(_) | Request::Sample) => {
                (!self.served.may_ask(user)).then_some("it is for its owner alone")
            }
            (Identity::Everybody, Request::OpenScope) => Some("all who use it are one (--identity mount)"),
            (Identity::Everybody | Identity::Nobody, Request::ListTokens) if user == ROOT => None,
            (Identity::Everybody, _) if user == self.served.owner => None,
            (Identity::Everybody, _) => Some("its tokens are those of whoever mounted it"),
            (Identity::Nobody, Request::OpenScope) => None,
            (Identity::Nobody, _) => Some("your control group cannot be told from here"),
            _ => None,
        }
    }

    fn open_scope(&self, fs: &AfsFs, asker: Asker) -> io::Result<()> {
        let number = self.identities.scopes.open(asker.user, asker.process)?;
        let identities = Arc::clone(&self.identities);
        let who = fs.as_identity(Identity::UserInScope(asker.user, number));
        tokio::spawn(async move {
            while !identities.scopes.has_ended(number) {
                tokio::time::sleep(LOOKED_AT).await;
            }
            identities.scopes.close(number);
            // What it left open or unstored is done with its rights still.
            while who.is_in_use() {
                tokio::time::sleep(LOOKED_AT).await;
            }
            who.forget_tokens(None);
        });
        Ok(())
    }
}

fn reported(report: &impl Serialize) -> Reply {
    match serde_json::to_string(report) {
        Ok(json) => Reply::Report(json),
        Err(error) => Reply::Refused(format!("the report cannot be written: {error}")),
    }
}

/// What anybody may know of the tokens of some.
fn held(fs: &AfsFs, of: impl Fn(Identity) -> bool) -> Vec<Held> {
    let mut held: Vec<_> = fs
        .tokens()
        .iter()
        .filter(|held| of(held.owner))
        .map(|held| Held {
            owner: shown(held.owner),
            cell: held.token.cell.to_string(),
            client: held.token.client.to_string(),
            expires: held.token.expires,
            renews: held.renews,
        })
        .collect();
    held.sort();
    held
}

/// Whose a token is, in a word.
fn shown(who: Identity) -> String {
    match who {
        Identity::Nobody => "nobody".to_owned(),
        Identity::User(user) => format!("uid {user}"),
        Identity::UserInGroup(user, group) => format!("uid {user} in control group {group}"),
        Identity::UserInScope(user, scope) => format!("uid {user} in scope {scope}"),
        Identity::Everybody => "the mount".to_owned(),
    }
}

const ROOT: u32 = 0;
const LIST: Request = Request::ListTokens;
const NAME_MAX: usize = 50;
/// How long after its birth a socket on which nobody listens is let be.
const FRESH: Duration = Duration::from_secs(10);
/// Commands that are answered at the same time.
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether a scope has ended, and whether it has left something open.
const LOOKED_AT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Rule;

    #[test]
    fn who_may_do_what() {
        let may = |who, user, request: &Request| {
            let identities = Arc::new(Identities::new(Rule::Uid));
            let served = Served {
                at: "/afs".into(),
                device: None,
                owner: 1001,
                allow_other: false,
                read_only: false,
                started: (std::time::Instant::now(), std::time::SystemTime::now()),
                metrics: None,
            };
            let policy = Policy {
                served: Arc::new(served),
                identities,
            };
            policy.refusal(who, user, request).is_none()
        };
        let forget = Request::ForgetTokens(None);
        let scope = Request::OpenScope;
        for (user, ask) in [(1001, true), (0, true), (1002, false)] {
            assert_eq!(may(Identity::User(user), user, &Request::Trace(None, None)), ask);
        }
        for (user, ask) in [(1001, true), (0, true), (1002, false)] {
            for request in [Request::Status, Request::Why("/".into()), Request::Sample] {
                assert_eq!(may(Identity::User(user), user, &request), ask, "{user}");
            }
        }
        for (user, look, change) in [(1001, true, true), (0, true, false), (1002, false, false)] {
            let mount = Identity::Everybody;
            assert_eq!(may(mount, user, &Request::ListTokens), look, "{user}");
            assert_eq!(may(mount, user, &forget), change, "{user}");
            assert!(!may(mount, user, &scope));
            // Only ever their own.
            let mine = Identity::User(user);
            assert!(may(mine, user, &forget) && may(mine, user, &Request::ListTokens));
            assert!(may(mine, user, &scope));
            assert!(!may(Identity::Nobody, user, &forget));
        }
    }

    #[test]
    fn directories_of_others_are_not_used_and_dead_sockets_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let mine = rustix::process::geteuid().as_raw();
        let path = dir.path().join("run");
        secure(&path, mine).unwrap();
        secure(&path, mine).unwrap();
        assert!(secure(&path, mine + 1).is_err());
        fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
        assert!(secure(&path, mine).is_err());
        drop(std::os::unix::net::UnixListener::bind(path.join("dead")).unwrap());
        let living = std::os::unix::net::UnixListener::bind(path.join("living")).unwrap();
        sweep(&path, FRESH).unwrap();
        assert!(path.join("dead").exists());
        sweep(&path, Duration::ZERO).unwrap();
        assert!(!path.join("dead").exists() && path.join("living").exists());
        drop(living);
    }
}
