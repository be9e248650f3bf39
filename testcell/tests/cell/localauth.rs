//! Who has the key of the servers is a super-user to those that keep the databases and the volumes.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use afs_client::auth::localauth::ServerKey;
use afs_client::cell::CellName;
use anyhow::{Context, Result, ensure};
use rxrpc::events::NullSink;
use rxrpc::net::{Endpoint, EndpointConfig, Target};
use rxrpc::proto::{AbortCode, CallError, Level, ServiceId};
use rxrpc::security::Security;
use testcell::{Shared, shared};

use super::rxkad::{
    CALLBACK, CALLER_ACCESS_AT, Callback, FETCH_STATUS, FILE_SERVICE, GET_ENTRY_BY_NAME_N, VOLUME_ID_AT,
    VOLUME_LOCATION, ask, word_at, words,
};

const PROTECTION: (ServiceId, u16) = (ServiceId(73), 7002);
const VOLUMES: (ServiceId, u16) = (ServiceId(4), 7005);
/// What only super-users may do (OpenAFS `vldbint.xg`, `ptint.xg`, `volint.xg`).
const GET_NEW_VOLUME_ID: u32 = 505;
const LIST_ENTRIES: u32 = 521;
const USERS_AND_GROUPS: u32 = 3;
const BEGIN_TRANSACTION: u32 = 108;
const READ_ONLY: u32 = 8;
const END_TRANSACTION: u32 = 104;
const VL_PERM: AbortCode = AbortCode(363_546);
const PR_PERM: AbortCode = AbortCode(267_269);
const DES_KEY: [u8; 8] = [0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01];

/// The folder of the first server's configuration.
fn server_folder(cell: &Shared) -> Result<PathBuf> {
    let conf = cell.conf_dir();
    let cell = conf.parent().context("the folder of the cell")?;
    Ok(cell.join("s1/etc/server"))
}

fn security(file: &Path, level: Level) -> Result<Security> {
    let token = ServerKey::read(file)?.token(CellName::new("lab.example")?)?;
    ensure!(token.client.to_string() == "afs@" && token.begins == 0);
    Ok(Security::Rxkad {
        token: Arc::new(token.rxkad()?),
        level,
    })
}

async fn super_user(cell: &Shared, file: &Path, level: Level) -> Result<()> {
    let endpoint = Endpoint::bind(EndpointConfig::default(), Arc::new(NullSink)).await?;
    endpoint.serve(CALLBACK, Arc::new(Callback));
    let whose = security(file, level)?;
    let target = |address, (service, port), security: &Security| Target {
        security: security.clone(),
        ..Target::new(SocketAddrV4::new(address, port), service)
    };
    let (database, server) = (cell.database_address()?, cell.server_address(1)?);
    let as_server = |address, service| target(address, service, &whose);
    let as_nobody = |address, service| target(address, service, &Security::None);

    let new_id = words(&[GET_NEW_VOLUME_ID, 0]);
    let refused = ask(&endpoint, &as_nobody(database, VOLUME_LOCATION), new_id.clone()).await;
    ensure!(refused == Err(CallError::Aborted(VL_PERM)), "nobody: {refused:?}");
    let granted = ask(&endpoint, &as_server(database, VOLUME_LOCATION), new_id).await;
    ensure!(word_at(&granted.context("the location server")?, 0)? >= 0x2000_0000);

    let everybody = words(&[LIST_ENTRIES, USERS_AND_GROUPS, 0]);
    let refused = ask(&endpoint, &as_nobody(database, PROTECTION), everybody.clone()).await;
    ensure!(refused == Err(CallError::Aborted(PR_PERM)), "nobody: {refused:?}");
    let granted = ask(&endpoint, &as_server(database, PROTECTION), everybody).await;
    ensure!(word_at(&granted.context("the protection server")?, 0)? > 5);

    let name = b"home.alice\0\0";
    let lookup = [&words(&[GET_ENTRY_BY_NAME_N, 10])[..], name].concat();
    let entry = ask(&endpoint, &as_server(database, VOLUME_LOCATION), lookup.into()).await?;
    let volume = word_at(&entry, VOLUME_ID_AT)?;
    let begin = words(&[BEGIN_TRANSACTION, volume, 0, READ_ONLY]);
    let refused = ask(&endpoint, &as_nobody(server, VOLUMES), begin.clone()).await;
    ensure!(
        matches!(refused, Err(CallError::Aborted(_))),
        "nobody: {refused:?}"
    );
    let granted = ask(&endpoint, &as_server(server, VOLUMES), begin).await;
    let transaction = word_at(&granted.context("the volume server")?, 0)?;
    let end = words(&[END_TRANSACTION, transaction]);
    ask(&endpoint, &as_server(server, VOLUMES), end).await?;

    // The file server gives it no more than anybody has.
    let status = words(&[FETCH_STATUS, volume, 1, 1]);
    let reply = ask(&endpoint, &as_server(server, FILE_SERVICE), status).await?;
    ensure!(word_at(&reply, CALLER_ACCESS_AT)? == 0, "rights on alice's home");
    endpoint.shutdown().await;
    Ok(())
}

fn is_super_user(cell: &Shared, file: &Path, level: Level) -> Result<()> {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder
            .enable_all()
            .build()?
            .block_on(super_user(cell, file, level))
    };
    cell.in_client(1, runtime)
        .with_context(|| format!("{}, {level:?}", file.display()))
}

#[test]
fn the_key_of_the_servers_gives_super_user_rights_at_every_level() {
    let cell = shared();
    let folder = server_folder(&cell).unwrap();
    for file in ["rxkad.keytab", "KeyFileExt"] {
        for level in Level::ALL {
            is_super_user(&cell, &folder.join(file), level).unwrap();
        }
    }
}

/// A server that still has a key of DES takes the tickets of Kerberos 4 that are made with it.
#[test]
fn a_key_of_des_does_as_well() {
    let cell = shared();
    let folder = server_folder(&cell).unwrap();
    let file = folder.join("KeyFile");
    let record = [&1_u32.to_be_bytes()[..], &3_u32.to_be_bytes(), &DES_KEY].concat();
    std::fs::write(&file, record).unwrap();
    // Servers read their keys again when this is newer, but they do not look at each call.
    let db = folder.join("CellServDB");
    std::fs::write(&db, std::fs::read(&db).unwrap()).unwrap();
    let mut result = is_super_user(&cell, &file, Level::Clear);
    for _ in 0..60 {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
        result = is_super_user(&cell, &file, Level::Clear);
    }
    let result = result.and_then(|()| is_super_user(&cell, &file, Level::Crypt));
    std::fs::remove_file(&file).unwrap();
    result.unwrap();
}
