//! A process that takes a mount over has the tokens of the one before, or gets its own.

use testcell::{MountOptions, shared};

use crate::stage::{ALICE, BOB, Users};

/// What `examples/home` is in Kubernetes: all who use the mount are alice, whose key table the server has.
#[test]
fn a_server_with_a_key_table_writes_on_after_a_crash() {
    let cell = shared();
    let options = |table: &str| {
        MountOptions::default()
            .argument("--identity=mount")
            .argument("--principal=alice")
            .argument("--keytab")
            .argument(&cell.keytab(table).display().to_string())
            .environment(
                "KRB5_CONFIG",
                &cell.conf_dir().join("krb5.conf").display().to_string(),
            )
    };
    let refused = format!("{:#}", cell.keep(1, &options("bob")).unwrap_err());
    assert!(
        refused.contains("alice") && refused.contains("bob.keytab"),
        "{refused}"
    );

    let kept = cell.keep(1, &options("alice")).unwrap();
    let users = Users::new(&cell, 1, kept.path(""));
    for round in 0..3 {
        // Whoever it is on this machine.
        users.well(
            BOB,
            &format!("echo written {round} >>$home/log && chmod 600 $home/log"),
        );
        let tokens = kept.metrics().unwrap();
        let valid = [("cell", "lab.example"), ("state", "valid")];
        assert_eq!(tokens.sum("afs_tokens", &valid), 1.0);
        assert!(
            tokens.sum("afs_token_expiry_timestamp_seconds", &[]) > 0.0,
            "it is renewed"
        );
        kept.kill_server().unwrap();
        kept.serve().unwrap();
    }
    assert_eq!(
        users.well(ALICE, "cat $home/log"),
        "written 0\nwritten 1\nwritten 2\n"
    );
    let owner = users.well(ALICE, "stat -c %u $home/log && rm $home/log");
    assert_eq!(owner.trim(), "1001");
}

#[test]
fn the_token_of_a_user_outlives_the_process() {
    let cell = shared();
    let kept = cell.keep(1, &MountOptions::default()).unwrap();
    let users = Users::new(&cell, 1, kept.path(""));
    users.aklog(ALICE, "alice").unwrap();
    // A job that has a file open for reading all the time, and writes others.
    let job = users.start(
        ALICE,
        "echo begun >$home/job && exec 4<$home/job
         i=0; while [ $i -lt 40 ]; do echo $i >$home/job.$((i % 3)) || exit 2; i=$((i + 1)); sleep 0.1; done
         cat <&4",
    );
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(700));
        kept.kill_server().unwrap();
        kept.serve().unwrap();
    }
    let job = job.wait_with_output().unwrap();
    assert!(job.status.success(), "{job:?}");
    assert_eq!(String::from_utf8_lossy(&job.stdout), "begun\n");
    assert!(users.well(ALICE, "$afs tokens").contains("lab.example"));
    users.denied(BOB, "cat $home/job");
    assert_eq!(users.well(ALICE, "cat $home/job.0 && rm $home/job*").trim(), "39");
}
