//! What `afs why` and the probes say of servers that say nothing.

use std::time::Duration;

use testcell::{afs_program, eventually, local, run};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn why_names_the_server_that_does_not_answer() {
    let cell = local();
    let mount = cell.mount(1).unwrap();
    let path = mount.path("work/file");
    std::fs::write(&path, "x").unwrap();
    let verdict = || {
        let mut command = cell.client_command(1, afs_program().unwrap());
        let said = run(LIMIT, command.arg("why").arg(&path))
            .unwrap()
            .ok()
            .unwrap()
            .text();
        said.lines().last().unwrap().to_owned()
    };
    assert!(verdict().starts_with("fine: "), "{}", verdict());
    cell.freeze(1, true).unwrap();
    // The writer is a process of its own: another one that has the file open would store it at its own exec.
    let mut writer = cell.client_command(1, "sh");
    writer.arg("-c").arg("echo y > \"$0\"").arg(&path);
    let writer = std::thread::spawn(move || run(LIMIT, &mut writer)?.ok());
    let waits = || verdict().starts_with("slow: StoreData64 has not been answered by 127.");
    assert!(eventually(LIMIT, waits), "{}", verdict());
    cell.freeze(1, false).unwrap();
    writer.join().unwrap().unwrap();
    let late = verdict();
    assert!(
        late.contains(" did not answer StoreData64 for ") && late.ends_with(" ago"),
        "{late}"
    );
}

#[test]
fn a_mount_without_servers_is_not_ready() {
    let cell = local();
    let mount = cell
        .mount_with(1, &testcell::MountOptions::default().deadline(2))
        .unwrap();
    assert_eq!(mount.page("/readyz").unwrap(), "ready\n");
    cell.stop_server(1).unwrap();
    assert!(std::fs::read(mount.path("public/README")).is_err());
    let why = format!("{:#}", mount.page("/readyz").unwrap_err());
    assert!(
        why.contains("503") && why.contains("none of 1 file servers of cell lab.example answers"),
        "{why}"
    );
    assert_eq!(mount.page("/healthz").unwrap(), "ok\n");
    cell.start_server(1).unwrap();
}

#[test]
fn a_server_that_makes_no_sense_is_named_with_its_reason() {
    let cell = local();
    let mount = cell.mount(1).unwrap();
    let path = mount.path("ro/hello");
    std::fs::metadata(&path).unwrap();
    cell.fail("on 1 fs FetchData64: lie short-data").unwrap();
    // There is no other one: it fails, or succeeds when it is asked again because it was to be fetched ahead.
    drop(std::fs::read(&path));
    let afs = |words: &[&std::ffi::OsStr]| {
        let mut command = cell.client_command(1, afs_program().unwrap());
        run(LIMIT, command.args(words)).unwrap().ok().unwrap().text()
    };
    let reason = "6 bytes of data where there are 13 (ro.data)";
    for said in [
        afs(&["status".as_ref(), mount.point().as_os_str()]),
        afs(&["why".as_ref(), path.as_os_str()]),
    ] {
        let server = said.lines().find(|line| line.contains("  server  ")).unwrap();
        assert!(server.contains(" % of calls, LEFT ALONE for "), "{said}");
        assert!(server.ends_with(reason), "{said}");
    }
    let metrics = mount.metrics().unwrap();
    let labels = |reason| [("cell", "lab.example"), ("reason", reason)];
    for (reason, count) in [("nonsense", 1.0), ("release", 0.0), ("failing", 0.0)] {
        let avoided = metrics.sum("afs_servers_avoided", &labels(reason));
        assert_eq!(avoided.to_bits(), f64::to_bits(count), "{reason}");
    }
    let times = metrics.sum("afs_replicas_left_alone_total", &[("reason", "nonsense")]);
    assert!(times >= 1.0);
    // As soon as it makes sense, it is used all the same: there is nobody else.
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "hello, world\n");
}
