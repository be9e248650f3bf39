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

/// The number that follows these words in what a tool said.
fn number_after(said: &str, words: &str) -> f64 {
    let after = said.split_once(words).map(|(_, after)| after.trim_start());
    let number = after.map(|after| after.split(|c: char| !c.is_ascii_digit()).next().unwrap());
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number after {words:?}: {said}"))
}

/// Every option prints sense, and the numbers lie between those of the metrics page before and after.
#[test]
fn rxdebug_tells_what_the_metrics_tell() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    fs::read(mount.path("README")).unwrap();
    let host = cell.client_address(1).unwrap().to_string();
    let server = cell.server_address(1).unwrap().to_string();
    let ask = |options: &[&str]| ask(&cell, "rxdebug", &[&[&host[..], "7001"], options].concat());

    let before = mount.metrics().unwrap();
    let stats = ask(&["-noconns", "-rxstats"]);
    let after = mount.metrics().unwrap();
    assert!(!stats.contains("Connection from"), "{stats}");
    let packets = |direction, packet_type| {
        let labels = [("direction", direction), ("type", packet_type)];
        [&before, &after].map(|metrics| metrics.sum("afs_rx_packets_total", &labels))
    };
    let resent = [&before, &after].map(|metrics| metrics.sum("afs_rx_retransmits_total", &[]));
    let [least, most] = packets("tx", "data");
    for (line, word, [least, most]) in [
        ("other read counters:", "data", packets("rx", "data")),
        ("other read counters:", "ack", packets("rx", "ack")),
        ("other send counters:", "ack", packets("tx", "ack")),
        (
            "other send counters:",
            "data",
            [least - resent[0], most - resent[1]],
        ),
        ("other send counters:", "resends), resends", resent),
    ] {
        let (_, counters) = stats.split_once(line).unwrap();
        let told = number_after(counters, word);
        assert!(
            (least..=most).contains(&told),
            "{line} {word} {least} {told} {most}: {stats}"
        );
    }
    let (_, samples) = stats.split_once("Average rtt is").unwrap();
    let samples = number_after(samples, "with");
    assert!(samples >= 1.0, "{stats}");

    let all = ask(&["-allconnections", "-long"]);
    let of_server = format!("Connection from host {server}, port 7000");
    assert!(all.contains(&of_server), "{all}");
    assert!(all.contains("client"), "{all}");
    let clients = ask(&["-allconnections", "-onlyclient"]);
    assert!(clients.contains(&of_server), "{clients}");
    assert!(!clients.contains("server"), "{clients}");
    let servers = ask(&["-allconnections", "-onlyserver"]);
    assert!(!servers.contains("client"), "{servers}");
    let of_port = ask(&["-allconnections", "-onlyport", "7003"]);
    assert!(!of_port.contains("port 7000"), "{of_port}");
    let of_host = ask(&["-allconnections", "-onlyhost", &server]);
    assert!(of_host.contains(&of_server), "{of_host}");
    let secure = ask(&["-allconnections", "-onlyauth", "crypt"]);
    assert!(!secure.contains("Connection from"), "{secure}");
    let quiet = ask(&["-nodally"]);
    assert!(!quiet.contains("state dally"), "{quiet}");
    let peers = ask(&["-peers", "-long", "-noconns"]);
    assert!(
        peers.contains(&format!("Peer at host {server}, port 7000")),
        "{peers}"
    );
    for said in [&stats, &all, &clients, &servers, &peers, &quiet] {
        assert!(
            said.contains("calls waiting for a thread") || said.contains("not waiting"),
            "{said}"
        );
        assert!(!said.contains("timed out") && !said.contains("WARNING"), "{said}");
    }
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
