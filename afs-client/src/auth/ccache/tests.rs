use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use proptest::prelude::*;

use super::super::ccache_file::parse;
use super::*;

fn conf() -> Krb5Conf {
    Krb5Conf::default()
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn principal(components: &[&str], realm: &str) -> Vec<u8> {
    let mut out = [
        1_u32.to_be_bytes(),
        u32::try_from(components.len()).unwrap().to_be_bytes(),
    ]
    .concat();
    out.extend(counted(realm.as_bytes()));
    components
        .iter()
        .for_each(|part| out.extend(counted(part.as_bytes())));
    out
}

/// A credential of alice, as it is in all stores.
fn credential(server: &[&str], realm: &str, ends: u32) -> Vec<u8> {
    let mut out = principal(&["alice"], "LAB");
    out.extend(principal(server, realm));
    out.extend([0, 18]);
    out.extend(counted(&[7; 32]));
    for time in [100_u32, 0, ends, 0] {
        out.extend(time.to_be_bytes());
    }
    out.extend([0, 0x40, 0xe1, 0, 0]);
    // One address, one piece of authorization data.
    for _ in 0..2 {
        out.extend(1_u32.to_be_bytes());
        out.extend([0, 2]);
        out.extend(counted(&[1, 2, 3, 4]));
    }
    out.extend(counted(b"ticket"));
    out.extend(counted(b""));
    out
}

fn file() -> Vec<u8> {
    let mut out = vec![5, 4, 0, 12, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend(principal(&["alice"], "LAB"));
    out.extend(credential(&["krb5_ccache_conf_data", "x"], "X-CACHECONF:", 0));
    out.extend(credential(&["krbtgt", "LAB"], "LAB", 900));
    out.extend(credential(&["krbtgt", "LAB"], "LAB", 1000));
    out.extend(credential(&["afs", "lab.example"], "LAB", 1100));
    out
}

fn check(found: &Credentials) {
    assert_eq!(found.owner.to_string(), "alice@LAB");
    assert_eq!(found.credentials.len(), 3);
    let granting = found.ticket_granting().unwrap();
    assert_eq!((granting.ends, granting.starts), (1000, 100));
    assert_eq!((granting.enctype, &granting.key[..]), (18, &[7; 32][..]));
    assert_eq!(granting.ticket, b"ticket");
    assert_eq!(
        format!("{granting:?}"),
        "Credential(alice@LAB for krbtgt/LAB@LAB, ends 1000)"
    );
}

#[test]
fn a_file_is_read() {
    check(&parse(&file()).unwrap());
}

#[test]
fn damage_is_named_with_its_place() {
    let whole = file();
    for len in 0..whole.len() {
        match parse(&whole[..len]) {
            Ok(found) => assert!(found.credentials.len() < 3, "{len}"),
            Err(malformed) => assert!(malformed.at <= len),
        }
    }
    let error = parse(&[5, 3, 0, 0]).unwrap_err();
    assert_eq!(error.to_string(), "byte 0: not a credential cache of version 4");
}

proptest! {
    #[test]
    fn nothing_makes_the_reader_panic(place: prop::sample::Index, byte: u8, tail in prop::collection::vec(any::<u8>(), 0..50)) {
        let mut data = file();
        let place = place.index(data.len());
        data[place] = byte;
        let _ = parse(&data);
        data.truncate(place);
        data.extend(tail);
        let _ = parse(&data);
    }
}

#[test]
fn names_say_which_store() {
    let shown = |text: &str| CcacheName::parse(text).map(|name| name.to_string());
    for (text, expected) in [
        ("/tmp/x", "FILE:/tmp/x"),
        ("FILE:/tmp/x:y", "FILE:/tmp/x:y"),
        ("/tmp/a:b", "FILE:/tmp/a:b"),
        ("DIR:/run/c", "DIR:/run/c"),
        ("DIR::/run/c/tktA", "FILE:/run/c/tktA"),
        ("KEYRING:persistent:1000", "KEYRING:persistent:1000"),
        ("KEYRING:session:c:one", "KEYRING:session:c:one"),
        ("KEYRING:c", "KEYRING:session:c"),
        ("KCM:", "KCM:"),
        ("KCM:1000:7", "KCM:1000:7"),
    ] {
        assert_eq!(shown(text).unwrap(), expected);
    }
    for (text, part) in [
        (
            "MEMORY:x",
            "MEMORY:x is in the memory of the program that made it",
        ),
        ("MSLSA:", "MSLSA: is of no kind that is known"),
    ] {
        let error = shown(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn the_default_is_the_environment_then_the_configuration_then_a_file() {
    let configured = Krb5Conf::from_text("[libdefaults]\ndefault_ccache_name = KEYRING:persistent:%{uid}\n");
    for (named, conf, expected) in [
        (Some("DIR:/d"), &configured, "DIR:/d"),
        (None, &configured, "KEYRING:persistent:7"),
        (Some(""), &conf(), "FILE:/tmp/krb5cc_7"),
    ] {
        let name = CcacheName::default_for(7, named, conf).unwrap();
        assert_eq!(name.to_string(), expected);
    }
}

#[test]
fn a_directory_has_a_primary_file() {
    let dir = tempfile::tempdir().unwrap();
    let name = CcacheName::Dir(dir.path().into());
    let missing = name.read(&conf()).unwrap_err();
    assert!(matches!(missing, CcacheError::Missing(_)), "{missing}");
    std::fs::write(dir.path().join("tkt"), file()).unwrap();
    check(&name.read(&conf()).unwrap());
    std::fs::rename(dir.path().join("tkt"), dir.path().join("tktB")).unwrap();
    std::fs::write(dir.path().join("primary"), "tktB\n").unwrap();
    check(&name.read(&conf()).unwrap());
    std::fs::write(dir.path().join("primary"), "../tktB\n").unwrap();
    let error = name.read(&conf()).unwrap_err().to_string();
    assert!(error.ends_with("the file `primary' names no cache"), "{error}");
}

/// Answers like a daemon that holds one cache with two credentials, and names an error for any other cache.
fn kcm(listener: &UnixListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut request = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut request).unwrap();
        let (head, parameters) = request.split_at(4);
        assert_eq!(head[..2], [2, 0]);
        let status_and_data = match (head[3], parameters) {
            (20, b"") => [&[0; 4][..], b"1000\0"].concat(),
            (8, b"1000\0") => [&[0; 4][..], &principal(&["alice"], "LAB")].concat(),
            (9, b"1000\0") => [&[0; 4][..], &[1; 16], &[2; 16], &[3; 16]].concat(),
            (10, rest) if rest.starts_with(b"1000\0") => {
                let credential = match rest[5] {
                    1 => credential(&["krbtgt", "LAB"], "LAB", 900),
                    2 => credential(&["krbtgt", "LAB"], "LAB", 1000),
                    _ => credential(&["afs"], "LAB", 5),
                };
                [&[0; 4][..], &credential].concat()
            }
            _ => (-1_765_328_243_i32).to_be_bytes().to_vec(),
        };
        let length = u32::try_from(status_and_data.len()).unwrap();
        let reply = [&length.to_be_bytes()[..], &[0; 4], &status_and_data].concat();
        stream.write_all(&reply).unwrap();
    }
}

#[test]
fn a_daemon_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = std::thread::spawn(move || {
        kcm(&listener);
        kcm(&listener);
    });
    let conf = Krb5Conf::from_text(&format!("[libdefaults]\nkcm_socket = {}\n", socket.display()));
    check(&CcacheName::parse("KCM:").unwrap().read(&conf).unwrap());
    let missing = CcacheName::parse("KCM:9").unwrap().read(&conf).unwrap_err();
    assert!(matches!(missing, CcacheError::Missing(_)), "{missing}");
    server.join().unwrap();
    drop(dir);
    let gone = CcacheName::parse("KCM:")
        .unwrap()
        .read(&conf)
        .unwrap_err()
        .to_string();
    assert!(gone.contains("socket: No such file"), "{gone}");
}

/// A cache like MIT's library makes one, in a session keyring of this thread's own.
#[test]
fn keyrings_of_the_kernel_are_read() {
    use keyutils::keytypes::User;
    use keyutils::{Keyring, SpecialKeyring};

    let mut anchor = Keyring::attach_or_create(SpecialKeyring::Thread).unwrap();
    let name = CcacheName::parse("KEYRING:thread:mine").unwrap();
    let missing = name.read(&conf()).unwrap_err();
    assert!(matches!(missing, CcacheError::Missing(_)), "{missing}");
    let mut collection = anchor.add_keyring("_krb_mine").unwrap();
    let mut cache = collection.add_keyring("other").unwrap();
    let mut add = |description: &str, payload: Vec<u8>| {
        cache
            .add_key::<User, _, _>(description.to_owned(), payload)
            .unwrap();
    };
    add("__krb5_princ__", principal(&["alice"], "LAB"));
    add("__krb5_time_offsets__", vec![0; 8]);
    add("one", credential(&["krbtgt", "LAB"], "LAB", 900));
    add("two", credential(&["krbtgt", "LAB"], "LAB", 1000));
    add("three", credential(&["afs"], "LAB", 5));
    add("note", credential(&["x"], "X-CACHECONF:", 5));
    // Without a primary it is the one named like the collection.
    assert!(matches!(name.read(&conf()), Err(CcacheError::Missing(_))));
    check(
        &CcacheName::parse("KEYRING:thread:mine:other")
            .unwrap()
            .read(&conf())
            .unwrap(),
    );
    let primary = [&1_u32.to_be_bytes()[..], &counted(b"other")].concat();
    collection
        .add_key::<User, _, _>("krb_ccache:primary".to_owned(), primary)
        .unwrap();
    check(&name.read(&conf()).unwrap());
}
