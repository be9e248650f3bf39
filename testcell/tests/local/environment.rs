//! Variables of the environment that nobody reads.

use std::time::Duration;

use testcell::{Finished, afs_program, run};

use crate::shared;

const LIMIT: Duration = Duration::from_secs(20);
/// A usage that makes no sense.
const USAGE: i32 = 2;

#[test]
fn a_variable_that_is_misspelt_is_refused_with_the_one_that_is_meant() {
    let cell = shared();
    let told = |words: &[&str], name: &str, value: &str| -> Finished {
        let mut command = cell.client_command(1, afs_program().unwrap());
        run(LIMIT, command.args(words).env(name, value)).unwrap()
    };
    let commands: [&[&str]; 3] = [
        &["mount", "/nowhere"],
        &["serve", "--fd-socket", "/nowhere/socket"],
        &["keeper", "--socket", "/nowhere/socket", "/nowhere"],
    ];
    for words in commands {
        for (name, value, says) in [
            (
                "AFS_CEL",
                "lab.example",
                "AFS_CEL is no variable of afs; did you mean AFS_CELL?",
            ),
            ("AFS_CACHEDIR", "/tmp", "did you mean AFS_CACHE_DIR?"),
            ("AFS_LOG", "debgu", "debgu is no level; did you mean debug?"),
        ] {
            let finished = told(words, name, value);
            assert_eq!(
                finished.status.code(),
                Some(USAGE),
                "{words:?} {name}: {}",
                finished.stderr
            );
            assert!(
                finished.stderr.contains(says),
                "{words:?} {name}: {}",
                finished.stderr
            );
        }
        if words[0] == "serve" {
            // It waits for its keeper.
            continue;
        }
        // It goes on, to what is wrong besides.
        let finished = told(words, "AFS_HOUSE", "1");
        assert!(
            finished
                .stderr
                .contains("AFS_HOUSE is no variable of afs, and is not looked at")
                && finished.stderr.contains("/nowhere"),
            "{words:?}: {}",
            finished.stderr
        );
    }
    // Whoever asks a mount has no use for them.
    let finished = told(&["status", "/nowhere"], "AFS_CEL", "x");
    assert!(!finished.stderr.contains("AFS_CEL"), "{}", finished.stderr);
}
