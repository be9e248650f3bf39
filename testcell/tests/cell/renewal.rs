//! Tokens that end while there is work: they are renewed, waited for, or missed.

use std::time::Duration;

use testcell::{Cell, MountOptions, eventually, shared, shared_for};

use crate::stage::{ALICE, BOB, LIMIT, STRANGER, Stage};

/// The longest life of what the KDC gives to somebody, or for a service. It is as before when this is dropped.
struct ShortLife<'c>(&'c Cell, &'static str);

impl<'c> ShortLife<'c> {
    fn of(cell: &'c Cell, whose: &'static str, life: &str) -> Self {
        let said = cell
            .kadmin(&format!("modprinc -maxlife \"{life}\" {whose}"))
            .unwrap();
        assert!(said.contains("modified"), "{said}");
        Self(cell, whose)
    }
}

impl Drop for ShortLife<'_> {
    fn drop(&mut self) {
        self.0
            .kadmin(&format!("modprinc -maxlife \"1 day\" {}", self.1))
            .unwrap();
    }
}

/// When the token of a user ends, as root sees it.
fn expiry(stage: &Stage<'_>, user: u32) -> u64 {
    let all = stage.well(0, "$afs tokens --json");
    let owner = format!("\"owner\":\"uid {user}\"");
    let line = all
        .lines()
        .find(|line| line.contains(&owner))
        .unwrap_or_else(|| panic!("{all}"));
    let (_, rest) = line.split_once("\"expires\":").unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

/// Three minutes of writing with tickets of 75 seconds, or with `AFS_LONG_JOB` set ten minutes with tickets of three: from
/// a keytab, from a renewable ticket, and from a cache in which somebody puts a new one in time.
#[test]
fn a_job_that_is_longer_than_its_ticket_loses_nothing() {
    let (life, length) = match std::env::var_os("AFS_LONG_JOB") {
        Some(_) => (180, 600),
        None => (75, 185),
    };
    let cell = shared_for(Duration::from_secs(2 * length));
    let stage = Stage::new(&cell, &MountOptions::default(), 1);
    let _short = ShortLife::of(&cell, "alice", &format!("{life} seconds"));
    stage.aklog(ALICE, "alice").unwrap();
    for (user, options) in [
        (BOB, format!("-l {life}s -r 1h")),
        (STRANGER, format!("-l {life}s")),
    ] {
        let key = stage.give_key(user, "bob").unwrap();
        let line = format!(
            "kinit {options} -k -t {} bob && $afs aklog -c lab.example",
            key.display()
        );
        stage.well(user, &line);
    }
    let begun = [ALICE, BOB, STRANGER].map(|user| expiry(&stage, user));
    let job = stage.start(
        ALICE,
        &format!(
            "exec 3>$home/long || exit 1; i=0; end=$(($(date +%s) + {length}))
             while [ $(date +%s) -lt $end ]; do
                 echo line $i >>$home/log || exit 2
                 echo line $i >&3 || exit 3
                 i=$((i + 1)); sleep 0.2
             done
             exec 3>&- || exit 4; echo $i"
        ),
    );
    // The cache of the third user is refreshed before each end, as a human or a login does it.
    let key = stage.give_key(STRANGER, "bob").unwrap();
    let refresher = stage.start(
        STRANGER,
        &format!(
            "end=$(($(date +%s) + {length}))
             while sleep {}; [ $(date +%s) -lt $end ]; do kinit -l {life}s -k -t {} bob || exit 1; done",
            life * 2 / 3,
            key.display()
        ),
    );
    let job = job.wait_with_output().unwrap();
    assert!(job.status.success(), "{job:?}\n{}", stage.mount.said());
    let refresher = refresher.wait_with_output().unwrap();
    assert!(refresher.status.success(), "{refresher:?}");
    for (user, begun) in [ALICE, BOB, STRANGER].into_iter().zip(begun) {
        let now = expiry(&stage, user);
        // At 75 % of its life, again and again.
        assert!(
            now >= begun + length - life,
            "{user}: {begun} {now}\n{}",
            stage.mount.said()
        );
    }
    // Bob's and the third user's calls are bob's still.
    for user in [BOB, STRANGER] {
        let file = format!("$work/by-{user}");
        let owner = stage.well(user, &format!("echo x >{file} && stat -c %u {file} && rm {file}"));
        assert_eq!(owner.trim(), "1002", "{user}");
    }
    let count: usize = String::from_utf8_lossy(&job.stdout).trim().parse().unwrap();
    assert!(count > 100, "{count}");
    let expected: String = (0..count).map(|line| format!("line {line}\n")).collect();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("expected"), expected).unwrap();
    let sum = testcell::sha256(&folder.path().join("expected")).unwrap();
    let held = cell.held("home.alice").unwrap();
    for name in ["log", "long"] {
        assert_eq!(held.get(name), Some(&sum), "{name}");
    }
    let metrics = stage.mount.metrics().unwrap();
    assert!(metrics.sum("afs_tokens", &[("cell", "lab.example"), ("state", "valid")]) >= 3.0);
    assert!(metrics.sum("afs_token_renewals_total", &[("result", "ok")]) >= 6.0);
    let first = metrics.sum("afs_token_expiry_timestamp_seconds", &[("cell", "lab.example")]);
    assert!(
        first
            >= [ALICE, BOB, STRANGER]
                .map(|user| expiry(&stage, user))
                .into_iter()
                .min()
                .unwrap() as f64
                - life as f64
    );
    stage.well(ALICE, "rm $home/log $home/long");
}

/// When there is no new token dirty data is held, then close() says that the key has expired; when there is, it is stored.
#[test]
fn what_is_dirty_waits_for_a_token() {
    let cell = shared();
    let options = MountOptions::default().argument("--token-wait").argument("12");
    let stage = Stage::new(&cell, &options, 1);
    let alice = stage.aklog_line(ALICE, "alice").unwrap();
    let short = ShortLife::of(&cell, "afs/lab.example", "6 seconds");
    stage.well(ALICE, &format!("{alice} --no-renew"));
    let held = stage.start(
        ALICE,
        "exec 3>$home/held || exit 1; echo first >&3; sleep 8; echo second >&3 || exit 2
         exec 3>&- ; cat $home/held",
    );
    std::thread::sleep(Duration::from_secs(10));
    // The job waits in close(). Nobody reads by a token that has expired, not even what is in the cache.
    let read = stage.by(ALICE, "cat $home/held");
    assert!(!read.ok && read.text.contains("Key has expired"), "{}", read.text);
    drop(short);
    stage.well(ALICE, &alice);
    let held = held.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&held.stdout),
        "first\nsecond\n",
        "{held:?}\n{}",
        stage.mount.said()
    );

    let short = ShortLife::of(&cell, "afs/lab.example", "6 seconds");
    stage.well(ALICE, &format!("{alice} --no-renew"));
    let lost = stage.start(
        ALICE,
        "sleep 1; echo late | (sleep 7; cat) | dd of=$home/late status=none",
    );
    let lost = lost.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&lost.stderr);
    assert!(
        !lost.status.success() && said.contains("Key has expired"),
        "{said}\n{}",
        stage.mount.said()
    );
    drop(short);
    // It is kept all the same, until there is a token.
    stage.well(ALICE, &alice);
    let stored = || {
        cell.held("home.alice").unwrap().contains_key("late") && stage.by(ALICE, "grep late $home/late").ok
    };
    assert!(
        eventually(Duration::from_secs(40), stored),
        "{}",
        stage.mount.said()
    );
    stage.well(ALICE, "rm $home/held $home/late");
}

#[test]
fn who_has_an_expired_token_may_read_as_nobody_if_that_is_allowed() {
    let cell = shared();
    let options = MountOptions::default()
        .argument("--expired")
        .argument("anonymous");
    let stage = Stage::new(&cell, &options, 1);
    let alice = stage.aklog_line(ALICE, "alice").unwrap();
    let _short = ShortLife::of(&cell, "afs/lab.example", "6 seconds");
    stage.well(ALICE, &format!("{alice} --no-renew && ls $home"));
    assert!(eventually(LIMIT, || stage
        .by(ALICE, "ls $home")
        .text
        .contains("Permission denied")));
    stage.well(ALICE, "ls $work");
    // Only reading: what nobody may change is not changed as nobody.
    let made = stage.by(ALICE, "mkdir $work/by-nobody");
    assert!(!made.ok && made.text.contains("Key has expired"), "{}", made.text);
}
