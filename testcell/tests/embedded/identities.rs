//! Several identities on one file system: what each may do with what is cached, and what an identity costs.

use std::time::{Duration, SystemTime};

use afs_client::auth::{Identity, Principal, Token};
use afs_client::cell::CellName;
use afs_client::fs::{Access, Invalidation, OpenFlags};
use afs_client::rpc::Procedure;
use afs_client::rpc::fs::{FETCH_DATA, FetchStatusOf, STORE_DATA};
use bytes::Bytes;
use rustix::io::Errno;
use rxrpc::crypto::krb5::{Enctype, Key};
use rxrpc::security::rxkad::{Issue, SessionKey};
use testcell::embedded::{Accounts, Cell, Settings};

use super::client::{CELL, Client, alone, cell_with, errno, run, settings};

const KVNO: u32 = 4;
const HOME: &str = "lab.example/home/alice";
const DIARY: &str = "lab.example/home/alice/diary";

fn key() -> Key {
    Key::new(Enctype::Aes256Sha384, &[5; 32]).unwrap()
}

/// A cell that takes tokens.
pub(crate) async fn cell() -> Cell {
    cell_with(Settings {
        accounts: Accounts::default().with_key(KVNO, key()),
        ..settings(1)
    })
    .await
}

#[expect(clippy::disallowed_methods, reason = "tickets are dated by the calendar")]
fn now() -> u32 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_secs() as u32
}

/// What the cell's realm gives to a user. The session key is one of DES: it is used as it is.
fn token(name: &str, session: u64, ends: u32) -> Token {
    let realm = CELL.to_ascii_uppercase();
    let session = session.to_be_bytes();
    let issue = Issue {
        name: &[name],
        realm: &realm,
        session: SessionKey::new(session),
        times: (u64::from(now() - 60), u64::from(now() + 3600)),
    };
    Token {
        cell: CellName::new(CELL).unwrap(),
        client: Principal::new(&[name], &realm),
        kvno: 213,
        enctype: 1,
        key: session.to_vec().into(),
        ticket: issue.token(KVNO, &key(), [9; 16]).unwrap().ticket().to_vec(),
        begins: now() - 60,
        expires: ends,
    }
}

/// The file system as a user sees it, who has a token.
pub(crate) fn login(client: &Client, user: u32, name: &str) -> Client {
    let fs = client.fs.as_identity(Identity::User(user));
    fs.set_token(token(name, 0x1020_3040 + u64::from(user), now() + 3600), None)
        .unwrap();
    Client { fs }
}

#[test]
fn a_changed_acl_is_heard_of_though_the_file_stays_promised() {
    run(async {
        let cell = cell().await;
        let client = Client::new(&cell).await;
        let (alice, bob) = (login(&client, 1001, "alice"), login(&client, 1002, "bob"));
        let denied = Errno::ACCESS.raw_os_error();
        let diary = alice.read(DIARY).await.unwrap();
        let file = alice.fid(DIARY).await.unwrap();
        for nobody in [&bob, &client] {
            assert_eq!(errno(nobody.read(DIARY).await), denied);
            // Nor by its number, with the data here and promised.
            assert_eq!(errno(nobody.read_fid(file).await), denied);
            assert_eq!(errno(nobody.fs.getattr(file).await), denied);
            let read = Access {
                read: true,
                ..Access::default()
            };
            assert_eq!(errno(nobody.fs.access(file, read).await), denied);
        }
        cell.allow("home.alice", "", "bob", "rl").await.unwrap();
        let fetched = cell.calls(1, FETCH_DATA).unwrap();
        assert_eq!(bob.read(DIARY).await.unwrap(), diary);
        assert_eq!(errno(client.read(DIARY).await), denied);
        let write = OpenFlags {
            write: true,
            ..OpenFlags::default()
        };
        assert_eq!(errno(bob.fs.open(file, write).await), denied);
        cell.allow("home.alice", "", "bob", "").await.unwrap();
        assert_eq!(errno(bob.read_fid(file).await), denied);
        assert_eq!(alice.read(DIARY).await.unwrap(), diary);
        // One copy served them all: at most the directory was fetched again.
        assert!(cell.calls(1, FETCH_DATA).unwrap() <= fetched + 2);

        // With the token goes the right.
        alice.fs.forget_tokens(None);
        assert_eq!(errno(alice.read_fid(file).await), denied);
        let alice = login(&client, 1001, "alice");
        assert_eq!(alice.read_fid(file).await.unwrap(), diary);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// The kernel moves a name with all that it believes of it; the new directory may be closed to those who could see the old.
#[test]
fn the_kernel_has_to_ask_anew_about_what_was_moved() {
    run(async {
        let cell = cell().await;
        let client = Client::new(&cell).await;
        let alice = login(&client, 1001, "alice");
        let home = alice.fid(HOME).await.unwrap();
        let inner = alice.fs.mkdir(home, b"inner", 0o755).await.unwrap().fid;
        alice.write(&format!("{HOME}/file"), b"x").await.unwrap();
        let file = alice.fid(&format!("{HOME}/file")).await.unwrap();
        let mut queue = client.fs.take_invalidations().unwrap();
        while queue.try_recv().is_ok() {}
        alice.fs.rename(home, b"file", inner, b"moved").await.unwrap();
        let mut told = Vec::new();
        while let Ok(one) = queue.try_recv() {
            told.push(one);
        }
        let name = Bytes::from_static(b"moved");
        let entry = Invalidation::Entry { dir: inner, name };
        for one in [Invalidation::Node(file), entry] {
            assert!(told.contains(&one), "{one:?} {told:?}");
        }
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// Rights are found out once for a directory, not for each file in it.
#[test]
fn one_question_for_each_directory_tells_an_identity_its_rights() {
    run(async {
        let cell = cell().await;
        let client = Client::new(&cell).await;
        let alice = login(&client, 1001, "alice");
        for file in 0..20 {
            alice.write(&format!("{HOME}/file{file}"), b"x").await.unwrap();
        }
        alice.read(&format!("{HOME}/file0")).await.unwrap();
        let other = login(&client, 1003, "alice");
        let home = other.fid(HOME).await.unwrap();
        other.fs.readdir(home).await.unwrap();
        let before = cell.calls(1, FetchStatusOf::OPCODE).unwrap();
        for file in 0..20 {
            other.read(&format!("{HOME}/file{file}")).await.unwrap();
        }
        assert_eq!(cell.calls(1, FetchStatusOf::OPCODE).unwrap(), before);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn what_is_dirty_is_stored_with_the_rights_of_who_wrote_it() {
    run(async {
        let cell = cell().await;
        cell.allow("home.alice", "", "bob", "rliw").await.unwrap();
        let client = Client::new(&cell).await;
        let (alice, bob) = (login(&client, 1001, "alice"), login(&client, 1002, "bob"));
        let flags = OpenFlags {
            read: true,
            write: true,
            ..OpenFlags::default()
        };
        let file = alice.fid(DIARY).await.unwrap();
        let [hers, his] = [&alice, &bob].map(|who| who.fs.open(file, flags));
        let (hers, his) = (hers.await.unwrap().handle, his.await.unwrap().handle);
        alice.fs.write(hers, 0, b"hers").await.unwrap();
        // Bob loses the right to write, but not what alice has written before him.
        cell.allow("home.alice", "", "bob", "rl").await.unwrap();
        bob.fs.write(his, 0, b"his!").await.unwrap();
        let stored = cell.read("home.alice", "diary").unwrap();
        assert!(stored.starts_with(b"hers"), "{stored:?}");
        assert_eq!(errno(bob.fs.flush(his).await), Errno::ACCESS.raw_os_error());
        bob.fs.release(his).await;
        alice.fs.release(hers).await;
        assert!(cell.read("home.alice", "diary").unwrap().starts_with(b"hers"));
        assert!(cell.calls(1, STORE_DATA).unwrap() >= 2);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_token_that_has_expired_is_of_no_use_and_a_new_one_is() {
    run(async {
        let cell = cell().await;
        let client = Client::new(&cell).await;
        let alice = login(&client, 1001, "alice");
        let diary = alice.read(DIARY).await.unwrap();
        alice.fs.set_token(token("alice", 77, now() - 1), None).unwrap();
        assert_eq!(errno(alice.read(DIARY).await), Errno::KEYEXPIRED.raw_os_error());
        // A key that the ticket does not hold: the server cannot read what is sealed with it.
        let wrong = Token {
            key: vec![1, 2, 3, 4, 5, 6, 7, 8].into(),
            ..token("alice", 78, now() + 600)
        };
        alice.fs.set_token(wrong, None).unwrap();
        assert!(alice.read(DIARY).await.is_err());
        alice.fs.set_token(token("alice", 79, now() + 600), None).unwrap();
        assert_eq!(alice.read(DIARY).await.unwrap(), diary);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// Each has a token, a connection (with its other end here too) and the rights on the way to a file.
#[test]
fn a_thousand_identities_cost_less_than_ten_kilobytes_each() {
    const COUNT: u32 = 1000;
    // Other tests take memory too.
    if !alone("identities::a_thousand_identities_cost_less_than_ten_kilobytes_each") {
        return;
    }
    run(async {
        let cell = cell().await;
        let client = Client::new(&cell).await;
        let read = async |user: u32| {
            let who = login(&client, user, "alice");
            who.read(DIARY).await.unwrap();
        };
        // What is made once is made now.
        for user in 0..50 {
            read(10_000 + user).await;
        }
        let before = resident_bytes();
        for user in 0..COUNT {
            read(20_000 + user).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let each = resident_bytes().saturating_sub(before) / u64::from(COUNT);
        println!("{each} bytes for each identity, both ends");
        assert!(each < 10_000, "{each} bytes for each identity");
        client.shutdown().await;
        cell.shutdown().await;
    });
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let resident = pages.split(' ').nth(1).unwrap();
    resident.parse::<u64>().unwrap() * rustix::param::page_size() as u64
}
