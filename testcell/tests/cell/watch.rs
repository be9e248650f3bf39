//! What a mount tells of itself: `afs status`, `afs why` and `afs top`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use testcell::{Finished, afs_program, run};

use crate::shared;

const LIMIT: Duration = Duration::from_secs(20);

/// Runs `afs` with these words where client 1 lives.
macro_rules! afs {
    ($cell:expr, $($word:expr),*) => {{
        let mut command = $cell.client_command(1, afs_program().unwrap());
        $(command.arg($word);)*
        run(LIMIT, &mut command).unwrap()
    }};
}

fn json(finished: Finished) -> Value {
    serde_json::from_str(&finished.ok().unwrap().text()).unwrap()
}

#[test]
fn status_tells_how_the_mount_is() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    fs::read(mount.path("ro/hello")).unwrap();
    let at = mount.point();
    let status = json(afs!(cell, "status", "--json", &at));
    assert_eq!(status["mount"]["at"], at.to_str().unwrap());
    assert_eq!(status["mount"]["process"], mount.pid());
    assert_eq!(status["cells"][0]["name"], "lab.example");
    assert_eq!(status["cells"][0]["home"], true);
    let server = &status["servers"][0];
    assert_eq!((&server["up"], &server["promised"]), (&true.into(), &true.into()));
    assert!(
        server["addresses"][0]["rtt_seconds"].as_f64().unwrap() > 0.0,
        "{status}"
    );
    let volumes = status["volumes"].as_array().unwrap();
    assert!(
        volumes
            .iter()
            .any(|volume| volume["name"] == "ro.data" && volume["kind"] == "ro")
    );
    let open = |state: &str| status["to_servers"][state].as_u64().unwrap();
    assert!(open("idle") + open("active") > 0, "{status}");
    assert!(status["cache"]["used"].as_u64().unwrap() > 0);
    assert_eq!(status["dirty"]["bytes"], 0);
    assert_eq!(status["unstored"]["waiting"], 0);
    assert_eq!(status["unstored"]["files"], Value::Array(Vec::new()));
    assert_eq!(status["metrics"]["error"], Value::Null);
    // An idle mount costs little to be looked at.
    let scraped = mount.page("/metrics").unwrap();
    let series = scraped.lines().filter(|line| !line.starts_with('#')).count();
    assert!(
        series <= 1500 && scraped.len() < 64 << 10,
        "{series} series, {} bytes",
        scraped.len()
    );
    // It is found among all, too, and said in words.
    let words = afs!(cell, "status").ok().unwrap().text();
    for part in [
        at.to_str().unwrap(),
        "cell         lab.example (home)",
        ": up",
        "nothing: all is on",
    ] {
        assert!(words.contains(part), "{words}");
    }
    let page = afs!(cell, "top", "--once", &at).ok().unwrap().text();
    for part in ["requests ", "connections  to servers", "MiB resident"] {
        assert!(page.contains(part), "{page}");
    }
}

/// By cell, from the break on that another client's write has caused. Figures of the cache and of the socket are there, too.
#[test]
fn a_cell_that_has_called_says_when() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let file = mount.path("work/called");
    fs::write(&file, "mine").unwrap();
    let other = cell.mount(2).unwrap();
    fs::write(other.path("work/called"), "theirs").unwrap();
    let metrics = mount.metrics().unwrap();
    let of_cell = &[("cell", "lab.example")];
    let called = metrics.sum("afs_callback_path_last_seen_timestamp_seconds", of_cell);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now - 60.0..=now).contains(&called), "{called}, and it is {now}");
    for family in [
        "afs_cache_size_bytes",
        "afs_cache_entries",
        "afs_cache_limit_bytes",
    ] {
        assert!(metrics.sum(family, &[("cache", "directory")]) > 0.0, "{family}");
    }
    let page = mount.page("/metrics").unwrap();
    assert!(
        page.contains("\nafs_rx_socket_drops_total "),
        "the socket is found in /proc"
    );
}

#[test]
fn probes_and_pages_tell_what_there_is() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    fs::read(mount.path("ro/hello")).unwrap();
    assert_eq!(mount.page("/healthz").unwrap(), "ok\n");
    assert_eq!(mount.page("/readyz").unwrap(), "ready\n");
    for (page, column, in_row) in [
        ("connections", "age_seconds", "lab.example"),
        ("calls", "epoch", ""),
        ("peers", "packets_resent", ":7003"),
        ("servers", "rtt_seconds", ":7000"),
        ("callbacks", "first_ends_seconds", ":7000"),
        ("tokens", "expires", ""),
    ] {
        let table = mount.page(&format!("/debug/{page}")).unwrap();
        assert!(
            table.contains(column) && table.contains(in_row),
            "{page}: {table}"
        );
        let json = mount.page(&format!("/debug/{page}?format=json")).unwrap();
        let json: Value = serde_json::from_str(&json).unwrap();
        let rows = json["rows"].as_array().unwrap();
        assert_eq!(json["total"].as_u64().unwrap(), rows.len() as u64, "{json}");
        assert!(rows.iter().all(|row| row.get(column).is_some()), "{json}");
    }
    let wrong = mount.page("/debug/calls?format=yaml").unwrap_err();
    assert!(
        format!("{wrong:#}").contains("?format=json or ?format=text"),
        "{wrong:#}"
    );
}

#[test]
fn a_taken_metrics_address_does_not_stop_the_mount() {
    let cell = shared();
    let first = cell.mount(1).unwrap();
    let second = cell.mount(1).unwrap();
    fs::read(second.path("README")).unwrap();
    let status = json(afs!(cell, "status", "--json", second.point()));
    let error = status["metrics"]["error"].as_str().unwrap();
    assert!(error.contains("in use"), "{error}");
    assert!(
        second.said().contains("metrics are not shown"),
        "{}",
        second.said()
    );
    let words = afs!(cell, "status", second.point()).ok().unwrap().text();
    assert!(words.contains("NOT SHOWN"), "{words}");
    assert!(json(afs!(cell, "status", "--json", first.point()))["metrics"]["error"].is_null());
}

#[test]
fn why_says_what_hinders() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    fs::read(mount.path("ro/hello")).unwrap();
    fs::write(mount.path("work/why"), "to be written").unwrap();
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join("link");
    std::os::unix::fs::symlink(mount.path("ro"), &link).unwrap();
    let verdict = |path: &Path| {
        let why = json(afs!(cell, "why", "--json", path));
        (why["verdict"].as_str().unwrap().to_owned(), why)
    };
    for (path, begins) in [
        (
            link.join("hello"),
            "fine to read; nothing can be written to the read-only copy",
        ),
        (
            mount.path("ro/link"),
            "fine to read; nothing can be written to the read-only copy",
        ),
        (
            mount.rw_path("README"),
            "fine to read; you have rl, writing needs w; you have no token",
        ),
        (
            mount.path("work/why"),
            "fine: all of it is in the cache, and its server will tell of changes",
        ),
        (
            mount.path("ro/missing"),
            "missing: there is no missing in lab.example/ro",
        ),
        (
            mount.path("home/alice/diary"),
            "denied: you have none on lab.example/home/alice, looking names up there needs l; you have no token",
        ),
        (mount.point(), "fine: the root of a mount"),
    ] {
        let (said, why) = verdict(&path);
        assert!(said.starts_with(begins), "{}: {why}", path.display());
    }
    let (_, why) = verdict(&mount.path("work/why"));
    let object = &why["object"];
    assert_eq!(object["volume"]["name"], "work");
    assert_eq!(object["status"]["size"], 13);
    assert!(
        object["status"]["rights"].as_str().unwrap().starts_with("rlidwk"),
        "{why}"
    );
    assert!(object["promise"]["left_seconds"].as_f64().unwrap() > 0.0, "{why}");
    let calls = object["calls"].as_array().unwrap();
    assert!(
        calls.iter().any(|call| call["procedure"] == "StoreData64"),
        "{why}"
    );
    let words = afs!(cell, "why", mount.path("work/why")).ok().unwrap().text();
    assert!(
        words.ends_with('\n') && words.trim_end().lines().last().unwrap().starts_with("fine: "),
        "{words}"
    );
}

#[test]
fn who_asks_for_what_is_not_there_is_told_so() {
    let cell = shared();
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path();
    for (words, says) in [
        (["status", "/"], "not of afs"),
        (["status", plain.to_str().unwrap()], "is not a mount"),
        (["why", "/etc/passwd"], "is in no mount of afs"),
        (["top", "/nowhere"], "is not a mount"),
    ] {
        let finished = afs!(cell, words[0], words[1]);
        assert_eq!(finished.status.code(), Some(3), "{words:?}: {}", finished.stderr);
        assert!(finished.stderr.contains(says), "{words:?}: {}", finished.stderr);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    }
    let mount = cell.mount(1).unwrap();
    mount.kill().unwrap();
    let finished = afs!(cell, "why", mount.path("README"));
    assert_eq!(finished.status.code(), Some(3));
    for part in [
        "does not answer here",
        "if it has ended, clean up with `afs umount",
    ] {
        assert!(finished.stderr.contains(part), "{}", finished.stderr);
    }
}
