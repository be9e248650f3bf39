//! Networks that are not Ethernet without end: narrow paths, ports that are closed.

use std::fs;
use std::time::{Duration, Instant};

use testcell::{MountOptions, Shared, fill, run, sha256, shared};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs a program as client 2.
fn as_second(cell: &Shared, program: &str, arguments: &[&str]) -> String {
    run(LIMIT, cell.client_command(2, program).args(arguments))
        .unwrap()
        .ok()
        .unwrap()
        .text()
}

/// IP packets that the second client's kernel has cut to pieces.
fn fragmented(cell: &Shared) -> u64 {
    let counters = as_second(cell, "cat", &["/proc/net/snmp"]);
    let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "FragOKs").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// The path narrows under a mount, as when a tunnel comes up: files still arrive, and packets shrink to fit.
#[test]
fn a_path_that_narrows_carries_files() {
    let cell = shared();
    let mount = cell.mount(2).unwrap();
    let work = mount.work("narrow").unwrap();
    fs::write(work.join("wide"), "wide").unwrap();
    let route = as_second(&cell, "ip", &["-o", "route", "show", "scope", "link"]);
    let route: Vec<&str> = route.split_whitespace().take(3).collect();
    let change = |mtu: &str| {
        let route = [&["route", "replace"], &route[..], &["scope", "link", "mtu", mtu]].concat();
        as_second(&cell, "ip", &route);
    };
    change("1000");
    let before = fragmented(&cell);
    let local = tempfile::tempdir().unwrap();
    fill(&local.path().join("file"), 20 << 20, 9).unwrap();
    let expected = sha256(&local.path().join("file")).unwrap();
    fs::copy(local.path().join("file"), work.join("file")).unwrap();
    let cut = fragmented(&cell) - before;
    let other = cell.mount(1).unwrap();
    assert_eq!(sha256(&other.path("work/narrow/file")).unwrap(), expected);
    change("1500");
    // Those that were sealed before the first of them was refused.
    assert!(cut < 600, "{cut} of more than 20,000 packets were cut");
    fs::remove_dir_all(&work).unwrap();
}

/// A server whose port is closed is not waited for.
#[test]
fn a_closed_port_is_known_at_once() {
    let cell = shared();
    let mount = cell.mount_with(1, &MountOptions::default().deadline(4)).unwrap();
    let work = mount.work("closed").unwrap();
    cell.stop_server(1).unwrap();
    let start = Instant::now();
    assert!(fs::write(work.join("new"), "x").is_err());
    let took = start.elapsed();
    cell.start_server(1).unwrap();
    assert!(took < Duration::from_secs(8), "{took:?} with a deadline of 4 s");
    let refused = mount
        .metrics()
        .unwrap()
        .sum("afs_rx_network_errors_total", &[("reason", "refused")]);
    assert!(refused >= 1.0, "the network has said so");
    assert!(testcell::eventually(Duration::from_secs(40), || {
        fs::write(work.join("new"), "x").is_ok()
    }));
    fs::remove_dir_all(&work).unwrap();
}
