//! Tokens on one mount: everybody works with their own rights, and sees nothing of what is cached for others.

use std::fs::{self, Permissions};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use testcell::{Cell, MountOptions, afs_program, eventually, run, shared};

use crate::stage::{ALICE, BOB, Group, LIMIT, STRANGER, Stage};

#[test]
fn nobody_gets_the_rights_of_another() {
    let cell = shared();
    let stage = Stage::new(&cell, &MountOptions::default(), 1);
    stage.denied(ALICE, "ls $home");
    stage.aklog(ALICE, "alice").unwrap();
    stage.aklog(BOB, "bob").unwrap();

    // Alice fills every cache with what is hers.
    stage.well(
        ALICE,
        "mkdir $home/box && echo secret > $home/box/file && ln -s file $home/box/link",
    );
    let read = "cd $home/box && ls -la && cat file && readlink link && stat file link . && cat link";
    let seen = stage.well(ALICE, read);
    assert!(seen.contains("secret"), "{seen}");
    stage.well(ALICE, read);

    for other in [BOB, STRANGER, 0] {
        for line in [
            "ls $home",
            "ls $home/box",
            "cat $home/box/file",
            "stat $home/box/file",
            "stat $home/box",
            "readlink $home/box/link || stat $home/box/link",
            "stat $home/box/nothing",
            "echo x > $home/box/new",
            "echo x > $home/box/file",
            "rm $home/box/file",
        ] {
            stage.denied(other, line);
        }
        // And alice works on, from what is cached for her.
        stage.well(ALICE, read);
    }
    // What was written is at the server: nothing was given up.
    assert!(cell.held("home.alice").unwrap().contains_key("box/file"));

    // Alice keeps her place while others look, though the kernel is told to doubt every name.
    let elsewhere = Stage::new(&cell, &MountOptions::default(), 2);
    elsewhere.aklog(ALICE, "alice").unwrap();
    let stay = stage.start(
        ALICE,
        "cd $home/box && touch $home/there && while [ -e $home/there ]; do sleep 0.1; done; /bin/pwd",
    );
    assert!(eventually(LIMIT, || stage.by(ALICE, "test -e $home/there").ok));
    elsewhere.well(ALICE, "touch $home/doubt && rm $home/doubt");
    for line in [
        "stat $home/box",
        "find $home/box",
        "ls $home/box",
        "stat $home/box/file",
    ] {
        stage.denied(BOB, line);
    }
    elsewhere.well(ALICE, "rm $home/there");
    let place = stay.wait_with_output().unwrap();
    assert!(
        place.status.success(),
        "{}",
        String::from_utf8_lossy(&place.stderr)
    );
    assert!(String::from_utf8_lossy(&place.stdout).ends_with("/home/alice/box\n"));
    drop(elsewhere);

    let tokens = stage.well(ALICE, "$afs tokens");
    assert!(
        tokens.contains("alice@LAB.EXAMPLE's tokens for afs@lab.example [Expires "),
        "{tokens}"
    );
    assert!(!tokens.contains("bob@"), "{tokens}");
    let none = stage.well(STRANGER, "$afs tokens");
    assert!(!none.contains('@'), "{none}");
    let all = stage.well(0, "$afs tokens --json");
    assert!(
        all.contains("\"owner\":\"uid 1001\"") && all.contains("\"owner\":\"uid 1002\""),
        "{all}"
    );

    // Two users who are one number each in a namespace of their own are two.
    let as_thousand = "unshare --user --map-user=1000 sh -c 'test $(id -u) = 1000 && ls $home'";
    stage.well(ALICE, as_thousand);
    stage.denied(BOB, as_thousand);

    // A right goes with the token, for what is cached too.
    stage.well(ALICE, "$afs unlog");
    stage.denied(ALICE, "cat $home/box/file");
    stage.aklog(ALICE, "alice").unwrap();
    stage.well(ALICE, &format!("{read} && cd / && rm -r $home/box"));
}

#[test]
fn a_mount_may_be_one_identity() {
    let cell = shared();
    let options = MountOptions::default().argument("--identity").argument("mount");
    let stage = Stage::new(&cell, &options, 1);
    let refused = stage.by(BOB, "$afs unlog");
    assert!(
        !refused.ok && refused.text.contains("whoever mounted it"),
        "{}",
        refused.text
    );
    stage.aklog(0, "alice").unwrap();
    stage.well(BOB, "echo by bob > $home/file && cat $home/file && rm $home/file");
    stage.well(0, "$afs unlog -c lab.example");
    stage.denied(BOB, "ls $home");
}

/// Two shells of one user, each with tokens of its own; what they start has them too, and what is outside has not.
#[test]
fn process_trees_and_control_groups_have_tokens_of_their_own() {
    let cell = shared();
    let stage = Stage::new(&cell, &MountOptions::default(), 1);
    let alice = stage.aklog_line(ALICE, "alice").unwrap();
    let seen = stage.well(
        ALICE,
        &format!("$afs pagsh sh -c '{alice} && echo x >$home/file && (cat $home/file) && $afs tokens'; ! cat $home/file"),
    );
    assert!(seen.contains("alice@LAB.EXAMPLE's tokens"), "{seen}");
    assert!(seen.contains("(uid 1001 in scope 1)"), "{seen}");
    assert!(seen.contains("Permission denied"), "{seen}");
    // Outside alice, inside nobody, and below that bob.
    stage.aklog(ALICE, "alice").unwrap();
    let bob = stage.aklog_line(ALICE, "bob").unwrap();
    stage.well(
        ALICE,
        &format!("cat $home/file && $afs pagsh sh -c '! cat $home/file && {bob} && ! cat $home/file && $afs tokens | grep bob@'"),
    );
    // Who is given to another parent leaves the scope: the user's own tokens count again.
    stage.well(
        ALICE,
        "$afs pagsh sh -c '(sleep 1; sleep 1; cat $home/file >$folder/left 2>&1) & true'; sleep 4; true",
    );
    assert_eq!(stage.well(ALICE, "cat $folder/left"), "x\n");
    // A scope that has ended leaves no token.
    assert!(eventually(LIMIT, || !stage
        .well(0, "$afs tokens")
        .contains("in scope")));
    stage.well(ALICE, "rm $home/file; $afs unlog");
    drop(stage);

    let options = MountOptions::default()
        .argument("--identity")
        .argument("uid+cgroup");
    let stage = Stage::new(&cell, &options, 1);
    let (one, two) = (Group::new("one").unwrap(), Group::new("two").unwrap());
    let alice = stage.aklog_line(ALICE, "alice").unwrap();
    stage.well_in(
        &one,
        ALICE,
        &format!("{alice} && echo x >$home/file && cat $home/file"),
    );
    assert!(!stage.by_in(&two, ALICE, "cat $home/file").ok);
    assert!(!stage.by(ALICE, "cat $home/file").ok);
    stage.well_in(&one, ALICE, "rm $home/file");
    // The same user and the same group in a user namespace of its own are the same.
    stage.well_in(&one, ALICE, "unshare --user --map-root-user ls $home");
}

/// Each thing that can be wrong is one line that says what to do.
#[test]
fn what_goes_wrong_is_told_in_a_line_with_the_cure() {
    let cell = shared();
    let stage = Stage::new(&cell, &MountOptions::default(), 1);
    let refused = |environment: &str, arguments: &str| {
        let said = stage.by(
            ALICE,
            &format!("{environment} $afs aklog -c lab.example {arguments}"),
        );
        assert!(!said.ok, "{environment} {arguments}: {}", said.text);
        assert_eq!(said.text.lines().count(), 1, "{}", said.text);
        said.text
    };
    let missing = format!("FILE:{}", stage.folder.path().join("none").display());
    assert_eq!(
        refused(&format!("KRB5CCNAME={missing}"), ""),
        format!("afs: there is no credential cache {missing}: run kinit\n")
    );
    assert!(refused("KRB5CCNAME=MEMORY:x", "").contains("choose FILE, DIR, KEYRING or KCM"));
    // A ticket that is over.
    stage.well(
        ALICE,
        &format!(
            "kinit -l 1 -k -t {} alice && sleep 2",
            stage.give_key(ALICE, "alice").unwrap().display()
        ),
    );
    let over = refused("", "");
    assert!(over.contains("has expired: run kinit"), "{over}");
    // The wrong key; a key that was replaced.
    let wrong = stage.give_key(ALICE, "bob").unwrap();
    let none = refused("", &format!("--keytab {} --principal alice", wrong.display()));
    assert!(
        none.contains("alice@LAB.EXAMPLE") && none.contains(".keytab"),
        "{none}"
    );
    let old = stage.give_key(ALICE, "alice").unwrap();
    fs::copy(cell.keytab("alice"), stage.folder.path().join("stale.keytab")).unwrap();
    cell.kadmin("cpw -pw another alice").unwrap();
    let stale = refused("", &format!("--keytab {} --principal alice", old.display()));
    cell.kadmin("cpw -pw alice-password alice").unwrap();
    cell.kadmin(&format!(
        "ktadd -k {} -norandkey alice",
        cell.keytab("alice").display()
    ))
    .unwrap();
    assert!(stale.contains("get a new keytab"), "{stale}");
    // The KDC is down.
    let conf = stage.folder.path().join("down.conf");
    let address = cell.server_address(1).unwrap();
    fs::write(
        &conf,
        format!("[realms]\nLAB.EXAMPLE = {{\nkdc = {address}:9\n}}\n"),
    )
    .unwrap();
    fs::set_permissions(&conf, Permissions::from_mode(0o644)).unwrap();
    let key = stage.give_key(ALICE, "alice").unwrap();
    let down = refused(
        &format!("KRB5_CONFIG={}", conf.display()),
        &format!("--keytab {} --principal alice@LAB.EXAMPLE", key.display()),
    );
    assert!(down.contains("check that it runs"), "{down}");
    // Its clock is another one.
    let conf = stage.folder.path().join("skewed.conf");
    let skewed = skewed_kdc(&cell);
    let text =
        format!("[libdefaults]\nudp_preference_limit = 1\n[realms]\nLAB.EXAMPLE = {{\nkdc = {skewed}\n}}\n");
    fs::write(&conf, text).unwrap();
    fs::set_permissions(&conf, Permissions::from_mode(0o644)).unwrap();
    let ahead = refused(
        &format!("KRB5_CONFIG={}", conf.display()),
        &format!("--keytab {} --principal alice@LAB.EXAMPLE", key.display()),
    );
    assert!(
        ahead.contains("s ahead of ours: set this machine's clock"),
        "{ahead}"
    );
    // Files that make no sense.
    let broken = stage.folder.path().join("broken.conf");
    fs::write(&broken, "[realms]\nX = {\n").unwrap();
    fs::set_permissions(&broken, Permissions::from_mode(0o644)).unwrap();
    let said = refused(&format!("KRB5_CONFIG={}", broken.display()), "");
    assert!(said.contains("broken.conf:"), "{said}");
    drop(stage);

    let mut alone = cell.client_command(1, afs_program().unwrap());
    alone
        .args(["aklog", "-c", "lab.example", "--principal", "bob", "--keytab"])
        .arg(cell.keytab("bob"))
        .env("KRB5_CONFIG", cell.conf_dir().join("krb5.conf"));
    let said = run(LIMIT, &mut alone).unwrap().stderr;
    assert!(
        said.ends_with("mount first, with `afs mount MOUNTPOINT'\n"),
        "{said}"
    );
}

/// A KDC that finds our clock wrong: by its own it is the year 2038 (RFC 4120 5.9.1).
fn skewed_kdc(cell: &Cell) -> SocketAddr {
    fn field(tag: u8, contents: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(contents.len()).unwrap()], contents].concat()
    }
    let number = |tag, number: u8| field(tag, &field(2, &[number]));
    let text = |text: &str| field(0x1b, text.as_bytes());
    let names = field(0x30, &[text("krbtgt"), text("LAB.EXAMPLE")].concat());
    let refusal = [
        number(0xa0, 5),
        number(0xa1, 30),
        field(0xa4, &field(0x18, b"20380101000000Z")),
        number(0xa5, 0),
        number(0xa6, 37),
        field(0xa9, &text("LAB.EXAMPLE")),
        field(
            0xaa,
            &field(0x30, &[number(0xa0, 2), field(0xa1, &names)].concat()),
        ),
    ];
    let refusal = field(0x7e, &field(0x30, &refusal.concat()));
    let address = cell.client_address(1).unwrap();
    let listener = cell
        .in_client(1, || Ok(TcpListener::bind((address, 0))?))
        .unwrap();
    let bound = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut request = Vec::new();
        (&mut stream)
            .take(u32::from_be_bytes(length).into())
            .read_to_end(&mut request)?;
        let length = u32::try_from(refusal.len()).unwrap();
        stream.write_all(&[&length.to_be_bytes()[..], &refusal].concat())
    });
    bound
}

/// The servers' own key makes a token; to a file server its owner is nobody in particular.
#[test]
fn a_key_of_the_servers_makes_a_token() {
    let cell = shared();
    let stage = Stage::new(&cell, &MountOptions::default(), 1);
    let keys = cell.conf_dir().with_file_name("s1").join("etc/server/KeyFileExt");
    stage.well(
        0,
        &format!("$afs aklog -d -c lab.example --localauth {}", keys.display()),
    );
    let tokens = stage.well(0, "$afs tokens");
    assert!(
        tokens.contains("afs@'s tokens for afs@lab.example [Expires "),
        "{tokens}"
    );
    stage.well(0, "ls $work");
    stage.denied(0, "ls $home");
}

/// A user of another realm, to whom the realm of the cell gives tickets by a key that both realms have.
#[test]
fn a_user_of_another_realm_gets_a_token() {
    let cell = shared();
    let stage = Stage::new(&cell, &MountOptions::default(), 1);
    let key = stage.give_key(STRANGER, "carol").unwrap();
    let line = format!(
        "$afs aklog -d -c lab.example --keytab {} --principal carol@OTHER.EXAMPLE",
        key.display()
    );
    stage.well(STRANGER, &line);
    let tokens = stage.well(STRANGER, "$afs tokens");
    assert!(
        tokens.contains("carol@OTHER.EXAMPLE's tokens for afs@lab.example [Expires "),
        "{tokens}"
    );
    stage.well(STRANGER, "ls $work");
    stage.denied(STRANGER, "ls $home");
}
