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
