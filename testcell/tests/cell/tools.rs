//! OpenAFS's own tools look at the client from another machine.

use std::fs;
use std::time::Duration;

use testcell::{Shared, run, shared};

const LIMIT: Duration = Duration::from_secs(40);

/// What a tool says when it is run as client 2.
fn ask(cell: &Shared, tool: &str, arguments: &[&str]) -> String {
    let finished = run(LIMIT, cell.client_command(2, tool).args(arguments))
        .unwrap()
        .ok()
        .unwrap();
    finished.text() + &finished.stderr
}

#[test]
fn rxdebug_answers() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    fs::read(mount.path("README")).unwrap();
    let host = cell.client_address(1).unwrap().to_string();
    let version = ask(&cell, "rxdebug", &[&host, "7001", "-version"]);
    assert!(version.contains("AFS version"), "{version}");
    let connections = ask(&cell, "rxdebug", &[&host, "7001", "-allconnections"]);
    // The connection over which the README came.
    let server = cell.server_address(1).unwrap().to_string();
    assert!(
        connections.contains(&format!("Connection from host {server}, port 7000")),
        "{connections}"
    );
    assert!(!connections.contains("aborting"), "{connections}");
}

#[test]
fn cmdebug_answers() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    fs::read(mount.path("README")).unwrap();
    let host = cell.client_address(1).unwrap().to_string();
    let entries = ask(&cell, "cmdebug", &["-servers", &host, "-long"]);
    assert!(
        entries.contains("Cache entry @") && entries.contains("lab.example"),
        "{entries}"
    );
    let addresses = ask(&cell, "cmdebug", &["-servers", &host, "-addrs"]);
    assert!(addresses.contains(&host), "{addresses}");
    let cells = ask(&cell, "cmdebug", &["-servers", &host, "-cellservdb"]);
    assert!(cells.contains("lab.example"), "{cells}");
    let cache = ask(&cell, "cmdebug", &["-servers", &host, "-cache"]);
    assert!(cache.to_lowercase().contains("cache"), "{cache}");
}

#[test]
fn xstat_answers() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    fs::read(mount.path("README")).unwrap();
    let host = cell.client_address(1).unwrap().to_string();
    let said = ask(
        &cell,
        "xstat_cm_test",
        &["-cmname", &host, "-collID", "2", "-onceonly"],
    );
    assert!(
        said.contains("AFSCB_XSTATSCOLL_FULL_PERF_INFO") || said.contains("XSTAT"),
        "{said}"
    );
    assert!(!said.to_lowercase().contains("connection timed out"), "{said}");
}
