//! docs/semantics.md promises nothing that no test checks.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The tests in the sources below a folder.
fn tests_in(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).unwrap();
                for after in text.split("#[test]\nfn ").skip(1) {
                    found.insert(after.split('(').next().unwrap().to_owned());
                }
            }
        }
    }
    found
}

#[test]
fn each_line_of_the_contract_has_a_test() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let contract = fs::read_to_string(root.join("../docs/semantics.md")).unwrap();
    let lines = contract
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| What"));
    let all = tests_in(&root.join("tests"));
    let mut named = BTreeSet::new();
    for line in lines {
        let last = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in last.split(", ").map(|name| name.trim_matches('`')) {
            assert!(all.contains(name), "no test {name:?} for: {line}");
            named.insert(name.to_owned());
        }
    }
    assert!(named.len() > 10, "{named:?}");
    let file = fs::read_to_string(root.join("tests/cell/semantics.rs")).unwrap();
    for after in file.split("#[test]\nfn ").skip(1) {
        let name = after.split('(').next().unwrap();
        assert!(
            named.contains(name),
            "{name} checks what the contract does not say"
        );
    }
}
