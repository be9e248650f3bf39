//! Servers that fail, and fault rules: what the client makes of each.

use std::time::Duration;

use afs_client::rpc::Procedure;
use afs_client::rpc::fs::{CreateFile, FETCH_DATA, FetchStatusOf, InlineBulkStatus, RemoveFile, STORE_DATA};
use rustix::io::Errno;
use testcell::embedded::faults::{Action, Calls, Lie, Memory, Moment, Rule, When, parse};

use super::client::{Client, abort, cell, errno, run};

const FILE: &str = "lab.example/work/file";

fn first(opcode: u32, actions: impl Into<Vec<Action>>) -> Rule {
    Rule::new(When::nth(1), Calls::to(opcode), actions)
}

#[test]
fn a_replica_takes_over() {
    run(async {
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        client.names("lab.example/ro").await.unwrap();
        cell.stop(1).await.unwrap();
        assert_eq!(
            client.read("lab.example/ro/hello").await.unwrap(),
            b"hello, world\n"[..]
        );
        cell.restart(1, Memory::Lost).await.unwrap();
        cell.stop(2).await.unwrap();
        assert_eq!(client.read("lab.example/ro/run").await.unwrap().len(), 39);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_server_that_is_gone_is_an_error_in_time_and_comes_back() {
    run(async {
        let cell = cell(1).await;
        let client = Client::with_deadline(&cell, Duration::from_secs(2)).await;
        client.write(FILE, b"known").await.unwrap();
        assert_eq!(client.read(FILE).await.unwrap(), b"known"[..]);
        let known = client.fid(FILE).await.unwrap();
        cell.stop(1).await.unwrap();
        let refused = client.write("lab.example/work/new", b"").await;
        assert_eq!(errno(refused), Errno::TIMEDOUT.raw_os_error());
        // What is cached and promised can be read meanwhile.
        assert_eq!(client.read_fid(known).await.unwrap(), b"known"[..]);
        cell.restart(1, Memory::Kept).await.unwrap();
        client.write("lab.example/work/new", b"new").await.unwrap();
        assert_eq!(cell.read("work", "new").unwrap(), b"new");
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_frozen_server_is_waited_for_and_no_longer_than_the_deadline() {
    run(async {
        let cell = cell(1).await;
        let client = Client::with_deadline(&cell, Duration::from_secs(1)).await;
        client.names("lab.example/work").await.unwrap();
        cell.freeze(1, true).unwrap();
        let refused = client.write(FILE, b"x").await;
        assert_eq!(errno(refused), Errno::TIMEDOUT.raw_os_error());
        cell.freeze(1, false).unwrap();
        client.write(FILE, b"after").await.unwrap();
        assert_eq!(cell.read("work", "file").unwrap(), b"after");
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_volume_that_moves_is_followed() {
    run(async {
        let cell = cell(2).await;
        let client = Client::new(&cell).await;
        client.write(FILE, b"before").await.unwrap();
        cell.move_volume("work", 2).await.unwrap();
        assert_eq!(client.read(FILE).await.unwrap(), b"before"[..]);
        client.write(FILE, b"after").await.unwrap();
        assert_eq!(cell.read("work", "file").unwrap(), b"after");
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn codes_that_pass_are_waited_out_and_others_are_told() {
    run(async {
        let cell = cell(1).await;
        let client = Client::with_deadline(&cell, Duration::from_secs(5)).await;
        client.write(FILE, b"data").await.unwrap();
        for (code, opcode) in [
            ("VBUSY", STORE_DATA),
            ("VRESTARTING", STORE_DATA),
            ("VNOVOL", STORE_DATA),
            ("VMOVED", STORE_DATA),
            ("VOFFLINE", STORE_DATA),
            ("VBUSY", CreateFile::OPCODE),
        ] {
            cell.faults().clear();
            cell.faults().add(first(opcode, abort(code)));
            let name = format!("lab.example/work/{code}{opcode}");
            client.write(&name, code.as_bytes()).await.unwrap();
            assert_eq!(client.read(&name).await.unwrap(), code.as_bytes(), "{code}");
        }
        for (code, expected) in [
            ("UAEACCES", Errno::ACCESS),
            ("UAENOSPC", Errno::NOSPC),
            ("VDISKFULL", Errno::NOSPC),
            ("VOVERQUOTA", Errno::DQUOT),
            ("UAEIO", Errno::IO),
            ("RXKADEXPIRED", Errno::KEYEXPIRED),
            ("RXGEN_OPCODE", Errno::IO),
        ] {
            cell.faults().clear();
            cell.faults().add(first(STORE_DATA, abort(code)));
            let stored = client.write("lab.example/work/refused", b"data").await;
            assert_eq!(errno(stored), expected.raw_os_error(), "{code}");
        }
        client.shutdown().await;
        cell.shutdown().await;
    });
}

/// A server that lies about data is an error, or is found out at the next look; never other bytes.
#[test]
fn lies_give_errors_and_no_wrong_data() {
    run(async {
        let cell = cell(1).await;
        let data = vec![3; 50_000];
        cell.write("work", "file", &data).await.unwrap();
        for (lie, expected) in [
            (Lie::ShortData, Some(Errno::IO)),
            (Lie::DirectoryPage, Some(Errno::IO)),
            (Lie::DataVersion, None),
        ] {
            let client = Client::new(&cell).await;
            cell.faults().clear();
            let [volume, ..] = cell.fid("work", "file").unwrap();
            let path = if lie == Lie::DirectoryPage { "" } else { "file" };
            let [_, vnode, unique] = cell.fid("work", path).unwrap();
            let fid = afs_client::rpc::types::AfsFid {
                volume,
                vnode,
                unique,
            };
            let calls = Calls {
                fid: Some(fid),
                ..Calls::to(FETCH_DATA)
            };
            cell.faults()
                .add(Rule::new(When::ALWAYS, calls, [Action::Lie(lie)]));
            let read = client.read(FILE).await;
            match expected {
                Some(expected) => assert_eq!(errno(read), expected.raw_os_error(), "{lie:?}"),
                None => assert!(read.unwrap() == data, "{lie:?}"),
            }
            cell.faults().clear();
            assert!(
                client.read(FILE).await.unwrap() == data,
                "the truth after {lie:?}"
            );
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// A version that is too high comes with a promise; what the server says afterwards looks old. It is asked again then, and
/// neither is what it said first believed for hours, nor is the file one that changes all the time.
#[test]
fn a_server_that_contradicts_itself_is_asked_again() {
    run(async {
        let cell = cell(1).await;
        for opcode in [CreateFile::OPCODE, FetchStatusOf::OPCODE, FETCH_DATA, STORE_DATA] {
            let client = Client::new(&cell).await;
            client.names("lab.example/work").await.unwrap();
            cell.faults().clear();
            cell.faults().add(first(opcode, [Action::Lie(Lie::DataVersion)]));
            let path = format!("{FILE}{opcode}");
            for text in ["first", "second, longer"] {
                client.write(&path, text.as_bytes()).await.unwrap();
                assert_eq!(client.read(&path).await.unwrap(), text.as_bytes(), "{opcode}");
                cell.write("work", &format!("file{opcode}"), b"other")
                    .await
                    .unwrap();
                assert_eq!(client.read(&path).await.unwrap(), b"other"[..], "{opcode}");
            }
            client.shutdown().await;
        }
        cell.shutdown().await;
    });
}

/// A status that is none is an error once. Nothing is believed of it, nor what was known before: the change that it came with
/// may have been made, and no break tells of that.
#[test]
fn a_status_that_is_none_harms_one_operation() {
    run(async {
        let cell = cell(1).await;
        cell.write("work", "old", b"old").await.unwrap();
        let lies = |opcode| {
            cell.faults().clear();
            cell.faults().add(first(opcode, [Action::Lie(Lie::Status)]));
        };
        let fails = Errno::IO.raw_os_error();
        lies(FetchStatusOf::OPCODE);
        let client = Client::new(&cell).await;
        assert_eq!(
            errno(client.names("lab.example/work").await),
            fails,
            "of the root"
        );
        assert_eq!(client.names("lab.example/work").await.unwrap(), ["old"]);

        lies(FETCH_DATA);
        assert_eq!(errno(client.read("lab.example/work/old").await), fails);
        assert_eq!(client.read("lab.example/work/old").await.unwrap(), b"old"[..]);

        lies(CreateFile::OPCODE);
        assert_eq!(errno(client.write(FILE, b"new").await), fails);
        assert_eq!(client.names("lab.example/work").await.unwrap(), ["file", "old"]);
        lies(STORE_DATA);
        assert_eq!(errno(client.write(FILE, b"new").await), fails);
        client.write(FILE, b"newer").await.unwrap();
        assert_eq!(client.read(FILE).await.unwrap(), b"newer"[..]);
        assert_eq!(cell.read("work", "file").unwrap(), b"newer");

        lies(RemoveFile::OPCODE);
        let dir = client.fid("lab.example/work").await.unwrap();
        assert_eq!(errno(client.fs.unlink(dir, b"old").await), fails);
        assert_eq!(client.names("lab.example/work").await.unwrap(), ["file"]);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_reply_that_is_lost_leaves_a_truth_that_is_found() {
    run(async {
        let cell = cell(1).await;
        let client = Client::with_deadline(&cell, Duration::from_secs(1)).await;
        client.names("lab.example/work").await.unwrap();
        // The file is made; the client does not know.
        cell.faults().add(first(CreateFile::OPCODE, [Action::DropReply]));
        let made = client.write(FILE, b"data").await;
        assert_eq!(errno(made), Errno::TIMEDOUT.raw_os_error());
        assert_eq!(client.attr(FILE).await.unwrap().size, 0, "it is there");
        client.write(FILE, b"data").await.unwrap();
        assert_eq!(cell.read("work", "file").unwrap(), b"data");
        // The same with its removal.
        cell.faults().clear();
        cell.faults().add(first(RemoveFile::OPCODE, [Action::DropReply]));
        let work = client.fid("lab.example/work").await.unwrap();
        let removed = client.fs.unlink(work, b"file").await;
        assert_eq!(errno(removed), Errno::TIMEDOUT.raw_os_error());
        assert_eq!(errno(client.attr(FILE).await), Errno::NOENT.raw_os_error());
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_call_that_is_done_twice_is_seen_through() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        client.names("lab.example/work").await.unwrap();
        let all = Calls {
            opcode: None,
            ..Calls::to(0)
        };
        cell.faults()
            .add(Rule::new(When::ALWAYS, all, [Action::Duplicate]));
        for number in 0..5 {
            client.write(&format!("{FILE}{number}"), b"data").await.unwrap();
        }
        let work = client.fid("lab.example/work").await.unwrap();
        client.fs.rename(work, b"file0", work, b"moved").await.unwrap();
        client.fs.unlink(work, b"file1").await.unwrap();
        client.fs.mkdir(work, b"dir", 0o755).await.unwrap();
        assert_eq!(
            client.names("lab.example/work").await.unwrap(),
            ["dir", "file2", "file3", "file4", "moved"]
        );
        assert_eq!(client.read("lab.example/work/moved").await.unwrap(), b"data"[..]);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn a_restart_in_the_middle_of_a_call_is_survived() {
    for memory in [Memory::Kept, Memory::Lost] {
        run(async move {
            let cell = cell(1).await;
            let client = Client::with_deadline(&cell, Duration::from_secs(20)).await;
            client.write(FILE, b"old").await.unwrap();
            for opcode in [
                STORE_DATA,
                FETCH_DATA,
                FetchStatusOf::OPCODE,
                InlineBulkStatus::OPCODE,
            ] {
                cell.faults().add(first(opcode, [Action::Restart(memory)]));
            }
            client.write(FILE, b"new").await.unwrap();
            let other = Client::with_deadline(&cell, Duration::from_secs(20)).await;
            assert_eq!(other.read(FILE).await.unwrap(), b"new"[..], "{memory:?}");
            assert_eq!(client.read(FILE).await.unwrap(), b"new"[..], "{memory:?}");
            client.shutdown().await;
            other.shutdown().await;
            cell.shutdown().await;
        });
    }
}

#[test]
fn a_script_acts_as_its_rules_say() {
    run(async {
        let cell = cell(1).await;
        let [volume, ..] = cell.fid("work", "").unwrap();
        let script = format!(
            "on 1 fs CreateFile fid {volume}.1.1: abort UAEDQUOT\n\
             on 2 fs StoreData64: delay 10ms, break before, half-bandwidth, break after\n\
             on 1-2 vl GetEntryByName: delay 20ms\n"
        );
        for rule in parse(&script).unwrap() {
            cell.faults().add(rule);
        }
        let client = Client::new(&cell).await;
        let refused = client.write(FILE, b"data").await;
        assert_eq!(errno(refused), Errno::DQUOT.raw_os_error());
        client.write(FILE, b"data").await.unwrap();
        let before = client.fs.breaks_received();
        client.write(FILE, &[1; 100_000]).await.unwrap();
        while client.fs.breaks_received() < before + 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(client.read(FILE).await.unwrap().len(), 100_000);
        client.shutdown().await;
        cell.shutdown().await;
    });
}

#[test]
fn breaks_at_every_place_of_a_fetch_cost_a_question_and_nothing_else() {
    run(async {
        let cell = cell(1).await;
        let client = Client::new(&cell).await;
        let data: Vec<u8> = (0..=250).cycle().take(200_000).collect();
        cell.write("work", "file", &data).await.unwrap();
        for moment in [Moment::Before, Moment::Between, Moment::After] {
            cell.faults().clear();
            let rule = Rule::new(When::ALWAYS, Calls::to(FETCH_DATA), [Action::Break(moment)]);
            cell.faults().add(rule);
            for round in 0..3_u8 {
                cell.write("work", "file", &[&data[..], &[round]].concat())
                    .await
                    .unwrap();
                let before = client.fs.breaks_received();
                let read = client.read(FILE).await.unwrap();
                assert!(read[..200_000] == data && read[200_000] == round, "{moment:?}");
                // The server has nobody to tell of the next change any more: who has not heard yet may see what is old.
                while client.fs.breaks_received() == before {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        client.shutdown().await;
        cell.shutdown().await;
    });
}
