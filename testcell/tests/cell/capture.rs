//! What the network sees of ordinary work, in the eyes of Wireshark's dissectors.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testcell::{MountOptions, Shared, eventually, fill, run, sha256, shared};

use crate::stage::{ALICE, Stage};

const LIMIT: Duration = Duration::from_secs(60);

/// A capture in a client's namespace. Its drop ends it.
struct Capture(Child);

impl Capture {
    fn start(cell: &Shared, k: u8, file: &Path) -> Self {
        let mut command = cell.client_command(k, "dumpcap");
        command
            .args(["-q", "-B", "64", "-i", "eth0", "-f", "udp", "-w"])
            .arg(file);
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let capture = Self(child);
        let begun = || fs::metadata(file).is_ok_and(|file| file.len() > 0);
        assert!(eventually(Duration::from_secs(20), begun), "no capture begins");
        capture
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw).unwrap();
        let _ = kill_process(pid, signal);
    }

    /// Writes out what was seen: at its end dumpcap drops what it has not read yet.
    fn end(mut self, file: &Path) {
        let mut known = 0;
        let settled = || {
            let before = known;
            known = fs::metadata(file).unwrap().len();
            std::thread::sleep(Duration::from_secs(1));
            before == known
        };
        assert!(eventually(Duration::from_secs(20), settled), "it still grows");
        self.signal(Signal::INT);
        assert!(
            eventually(Duration::from_secs(20), || self.0.try_wait().unwrap().is_some()),
            "it goes on"
        );
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none() {
            self.signal(Signal::KILL);
            let _ = self.0.wait();
        }
    }
}

/// The lines that tshark prints about a capture.
fn read(file: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("tshark");
    let said = run(LIMIT, command.arg("-n").arg("-r").arg(file).args(arguments))
        .unwrap()
        .ok()
        .unwrap();
    said.text().lines().map(str::to_owned).collect()
}

#[test]
fn wireshark_finds_nothing_malformed() {
    let cell = shared();
    let local = tempfile::tempdir().unwrap();
    let seen = local.path().join("seen.pcapng");
    // Else runs of datagrams would be seen as one.
    let segments = |most| {
        let change = ["link", "set", "eth0", "gso_max_segs", most];
        run(LIMIT, cell.client_command(1, "ip").args(change))
            .unwrap()
            .ok()
            .unwrap();
    };
    segments("1");
    let capture = Capture::start(&cell, 1, &seen);
    let mount = cell.mount(1).unwrap();
    let work = mount.work("captured").unwrap();
    fill(&local.path().join("file"), 3 << 20, 7).unwrap();
    let expected = sha256(&local.path().join("file")).unwrap();
    fs::copy(local.path().join("file"), work.join("file")).unwrap();
    fs::rename(work.join("file"), work.join("renamed")).unwrap();
    fs::create_dir(work.join("folder")).unwrap();
    std::os::unix::fs::symlink("renamed", work.join("link")).unwrap();
    assert_eq!(fs::read_dir(&work).unwrap().count(), 3);
    // Another client's change comes as a callback break, and is read.
    let other = cell.mount(2).unwrap();
    fs::write(other.path("work/captured/other"), "other").unwrap();
    assert!(eventually(Duration::from_secs(5), || work.join("other").exists()));
    fs::copy(local.path().join("file"), other.path("work/captured/file")).unwrap();
    assert_eq!(sha256(&work.join("file")).unwrap(), expected);
    // What is refused is aborted.
    assert!(fs::read_dir(mount.path("home/alice")).is_err());
    let host = cell.client_address(1).unwrap().to_string();
    for option in ["-version", "-rxstats", "-allconnections", "-peers"] {
        run(
            LIMIT,
            cell.client_command(2, "rxdebug").args([&host, "7001", option]),
        )
        .unwrap()
        .ok()
        .unwrap();
    }
    fs::remove_dir_all(&work).unwrap();
    assert!(mount.terminate(Duration::from_secs(20)).unwrap().success());
    capture.end(&seen);
    segments("65535");

    let malformed = read(&seen, &["-Y", "_ws.malformed"]);
    assert!(malformed.is_empty(), "{malformed:#?}");
    let ours = format!("ip.src == {host} && udp");
    let foreign = read(&seen, &["-Y", &format!("{ours} && !rx")]);
    assert!(foreign.is_empty(), "{foreign:#?}");
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    for line in read(&seen, &["-Y", &ours, "-T", "fields", "-e", "rx.type"]) {
        *types.entry(line).or_default() += 1;
    }
    // DATA, ACK, DEBUG, VERSION: we refuse nobody, and nobody challenges us.
    let known: Vec<_> = types.keys().map(String::as_str).collect();
    assert_eq!(known, ["1", "13", "2", "8"], "{types:?}");
    // Much was written, and acknowledged. How much of it a loaded machine captures is not ours to say.
    assert!(types["1"] > 500 && types["2"] > 100, "{types:?}");
    let asked = format!("ip.dst == {host} && afs.cb.opcode == 204");
    assert!(!read(&seen, &["-Y", &asked]).is_empty(), "no break came");
    let answered = format!("{ours} && rx.type == 1 && rx.flags.client_init == 0");
    assert!(
        !read(&seen, &["-Y", &answered]).is_empty(),
        "no break was answered"
    );
}

/// At every level the calls of a token carry its class; what can be read of them is what the level leaves.
#[test]
fn calls_with_a_token_are_protected_as_asked() {
    let cell = shared();
    let local = tempfile::tempdir().unwrap();
    let host = cell.client_address(1).unwrap();
    let marker = "what alice has written is for nobody else to read";
    for (level, opcode_shows, data_shows) in [
        ("clear", true, true),
        ("lab.example=auth", false, true),
        ("crypt", false, false),
    ] {
        let seen = local.path().join(format!("{level}.pcapng"));
        let capture = Capture::start(&cell, 1, &seen);
        let options = MountOptions::default().argument("--security").argument(level);
        let stage = Stage::new(&cell, &options, 1);
        stage.aklog(ALICE, "alice").unwrap();
        stage.well(ALICE, &format!("echo {marker} >$home/wire && rm $home/wire"));
        drop(stage);
        capture.end(&seen);
        let sealed = format!("ip.src == {host} && rx.type == 1 && rx.securityindex == 2");
        assert!(!read(&seen, &["-Y", &sealed]).is_empty(), "{level}");
        let stores = read(&seen, &["-Y", &format!("{sealed} && afs.fs.opcode == 65538")]);
        assert_eq!(!stores.is_empty(), opcode_shows, "{level}: {stores:?}");
        let bytes = fs::read(&seen).unwrap();
        let shows = bytes.windows(marker.len()).any(|part| part == marker.as_bytes());
        assert_eq!(shows, data_shows, "{level}");
    }
    let options = MountOptions::default()
        .argument("--min-security")
        .argument("crypt");
    let stage = Stage::new(&cell, &options, 1);
    let refused = stage.by(ALICE, "ls $work");
    assert!(
        !refused.ok && refused.text.contains("Required key not available"),
        "{}",
        refused.text
    );
    stage.aklog(ALICE, "alice").unwrap();
    stage.well(ALICE, "ls $work $home");
}
