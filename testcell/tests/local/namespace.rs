//! Inside a user namespace, where the owners of files in the cell have no numbers.

use std::process::Command;
use std::time::Duration;

use testcell::run;

#[test]
fn a_user_namespace_is_as_good_as_root() {
    let myself = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again
        .args(["--user", "--mount", "--map-root-user"])
        .arg(myself)
        .args(["--exact", "names::lengths_grow_shrink_and_leave_holes"]);
    let said = run(Duration::from_secs(60), &mut again).unwrap().ok().unwrap();
    assert!(said.text().contains("1 passed"), "{}", said.text());
}
