//! The transport alone against the real servers: who shows a ticket has the rights of its owner, at every level.
//!
//! The tickets are made with the servers' own key, as their `-localauth` does it; the servers cannot tell.

use std::net::SocketAddrV4;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes};
use rxrpc::crypto::krb5::{Enctype, Key};
use rxrpc::events::NullSink;
use rxrpc::net::{Endpoint, EndpointConfig, Service, ServiceCall, Target};
use rxrpc::proto::{AbortCode, CallError, Level, ServiceId};
use rxrpc::security::Security;
use rxrpc::security::rxkad::{Fault, Issue, SessionKey};
use testcell::{Shared, run, shared};

pub(crate) const FILE_SERVICE: (ServiceId, u16) = (ServiceId(1), 7000);
pub(crate) const VOLUME_LOCATION: (ServiceId, u16) = (ServiceId(52), 7003);
pub(crate) const CALLBACK: ServiceId = ServiceId(1);
/// Opcodes (OpenAFS `afsint.xg`, `vldbint.xg`).
pub(crate) const FETCH_STATUS: u32 = 132;
const FETCH_DATA_64: u32 = 65_537;
pub(crate) const GET_ENTRY_BY_NAME_N: u32 = 519;
/// Where the id of the writable volume stands in an `nvldbentry`, and the caller's rights in an `AFSFetchStatus`.
pub(crate) const VOLUME_ID_AT: usize = 4 * (65 + 1 + 3 * 13);
pub(crate) const CALLER_ACCESS_AT: usize = 4 * 7;
const ALL_RIGHTS: u32 = 0x7f;
const EACCES: AbortCode = AbortCode(13);
/// VRESTARTING, VSALVAGE, VOFFLINE, VBUSY.
const NOT_NOW: [AbortCode; 4] = [AbortCode(-100), AbortCode(101), AbortCode(106), AbortCode(110)];

/// As much of a callback service as a file server asks for before it talks to us.
pub(crate) struct Callback;

impl Service for Callback {
    fn handle(&self, mut call: ServiceCall) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let opcode = match call.recv().await {
                Ok(Some(mut request)) => request.try_get_u32().unwrap_or_default(),
                _ => return,
            };
            while let Ok(Some(_)) = call.recv().await {}
            if matches!(opcode, 204..=206 | 213 | 214) {
                let _ = call.finish();
            } else {
                call.abort(AbortCode(-455));
            }
        })
    }
}

/// The newest key of the servers, as `klist` shows it: version and key.
fn server_key(cell: &Shared) -> Result<(u32, Key)> {
    let mut klist = Command::new("klist");
    klist.args(["-k", "-e", "-K"]).arg(cell.keytab("afs"));
    let shown = run(Duration::from_secs(20), &mut klist)?.ok()?.text();
    let line = shown
        .lines()
        .rfind(|line| line.contains("aes256-cts-hmac-sha1-96"))
        .context("no AES key")?;
    let kvno = line.split_whitespace().next().context("no version")?.parse()?;
    let (_, hex) = line.rsplit_once("(0x").context("no key")?;
    let hex = hex.trim_end_matches(')');
    let bytes: Vec<u8> = (0..hex.len() / 2)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16))
        .collect::<Result<_, _>>()?;
    Ok((kvno, Key::new(Enctype::Aes256Sha1, &bytes)?))
}

/// A user's identity from `starts` for ten minutes.
fn identity(name: &str, starts: u64, level: Level, (kvno, key): &(u32, Key)) -> Result<Security> {
    let issue = Issue {
        name: &[name],
        realm: "LAB.EXAMPLE",
        session: SessionKey::new([0x31, 0x32, 0x34, 0x37, 0x38, 0x3b, 0x3d, name.as_bytes()[0]]),
        times: (starts, starts + 600),
    };
    let token = Arc::new(issue.token(*kvno, key, [starts.to_le_bytes()[0]; 16])?);
    Ok(Security::Rxkad { token, level })
}

pub(crate) fn words(words: &[u32]) -> Bytes {
    words
        .iter()
        .flat_map(|word| word.to_be_bytes())
        .collect::<Vec<u8>>()
        .into()
}

/// Calls until the server has the volume: one that was just restarted may still be putting it in order.
pub(crate) async fn ask(endpoint: &Endpoint, target: &Target, request: Bytes) -> Result<Vec<u8>, CallError> {
    for _ in 0..60 {
        match ask_once(endpoint, target, request.clone()).await {
            Err(CallError::Aborted(code)) if NOT_NOW.contains(&code) => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            answer => return answer,
        }
    }
    ask_once(endpoint, target, request).await
}

async fn ask_once(endpoint: &Endpoint, target: &Target, request: Bytes) -> Result<Vec<u8>, CallError> {
    let mut call = endpoint.call(target).await?;
    call.send(request).await?;
    call.finish()?;
    let mut reply = Vec::new();
    while let Some(part) = call.recv().await? {
        reply.extend_from_slice(&part);
    }
    Ok(reply)
}

pub(crate) fn word_at(reply: &[u8], at: usize) -> Result<u32> {
    Ok(reply.get(at..).context("a short reply")?.try_get_u32()?)
}

async fn rights_follow_the_ticket(cell: &Shared) -> Result<()> {
    let endpoint = Endpoint::bind(EndpointConfig::default(), Arc::new(NullSink)).await?;
    endpoint.serve(CALLBACK, Arc::new(Callback));
    let key = server_key(cell)?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_secs();
    let target = |address, (service, port), security| Target {
        security,
        ..Target::new(SocketAddrV4::new(address, port), service)
    };
    let locations =
        |security| Ok::<_, anyhow::Error>(target(cell.database_address()?, VOLUME_LOCATION, security));
    let files = |security| Ok::<_, anyhow::Error>(target(cell.server_address(1)?, FILE_SERVICE, security));

    let name = b"home.alice\0\0";
    let lookup = [&words(&[GET_ENTRY_BY_NAME_N, 10])[..], name].concat();
    for level in Level::ALL {
        let alice = || identity("alice", now - 60, level, &key);
        let entry = ask(&endpoint, &locations(alice()?)?, lookup.clone().into())
            .await
            .with_context(|| format!("the location server, {level:?}"))?;
        let volume = word_at(&entry, VOLUME_ID_AT)?;

        let status = words(&[FETCH_STATUS, volume, 1, 1]);
        let reply = ask(&endpoint, &files(alice()?)?, status.clone())
            .await
            .with_context(|| format!("the file server, {level:?}, volume {volume}"))?;
        let rights = word_at(&reply, CALLER_ACCESS_AT)?;
        ensure!(
            rights & ALL_RIGHTS == ALL_RIGHTS,
            "alice has {rights:#x} on her home, {level:?}"
        );

        let fetch = words(&[FETCH_DATA_64, volume, 1, 1, 0, 0, 0, 1 << 16]);
        let folder = ask(&endpoint, &files(alice()?)?, fetch.clone()).await?;
        let has_diary = folder.windows(5).any(|name| name == b"diary");
        ensure!(
            folder.len() > 2048 && has_diary,
            "her folder as {level:?} carries it"
        );

        for other in [identity("bob", now - 60, level, &key)?, Security::None] {
            let reply = ask(&endpoint, &files(other.clone())?, status.clone()).await?;
            let rights = word_at(&reply, CALLER_ACCESS_AT)?;
            ensure!(rights == 0, "{other:?} has {rights:#x} on it");
            let refused = ask(&endpoint, &files(other.clone())?, fetch.clone()).await;
            ensure!(
                refused == Err(CallError::Aborted(EACCES)),
                "{other:?}: {refused:?}"
            );
        }
        let old = identity("alice", now - 3000, level, &key)?;
        let expired = ask(&endpoint, &files(old)?, status).await;
        let code = Fault::Expired.code();
        ensure!(
            expired == Err(CallError::ConnectionAborted(code)),
            "an old ticket: {expired:?}"
        );
    }
    let (kvno, _) = key;
    let stranger = (kvno, Key::new(Enctype::Aes256Sha1, &[7; 32])?);
    let forged = identity("alice", now - 60, Level::Crypt, &stranger)?;
    let refused = ask(&endpoint, &locations(forged)?, lookup.into()).await;
    let code = Fault::BadTicket.code();
    ensure!(
        refused == Err(CallError::ConnectionAborted(code)),
        "a forged ticket: {refused:?}"
    );
    endpoint.shutdown().await;
    Ok(())
}

#[test]
fn a_ticket_gives_the_rights_of_its_owner_at_every_level() {
    let cell = shared();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder
            .enable_all()
            .build()?
            .block_on(rights_follow_the_ticket(&cell))
    };
    cell.in_client(1, runtime).unwrap();
}
