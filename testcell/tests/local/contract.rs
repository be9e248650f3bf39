//! docs/semantics.md promises nothing that no test checks, on the embedded cell and on the real one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The tests in a source.
fn tests_in(text: &str) -> BTreeSet<String> {
    let after = text.split("#[test]\nfn ").skip(1);
    after
        .map(|after| after.split('(').next().unwrap().to_owned())
        .collect()
}

/// The tests in the sources below a folder.
fn tests_below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut tests_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.append(&mut tests_in(&read(&path)));
        }
    }
    found
}

/// The tests in files that are compiled for both cells.
fn tests_of_both(tests: &Path) -> BTreeSet<String> {
    let (local, real) = (
        read(&tests.join("local/main.rs")),
        read(&tests.join("cell/main.rs")),
    );
    let modules = local.split("#[path = \"../cell/").skip(1);
    let names = modules.map(|after| after.split(".rs\"]").next().unwrap());
    let both: Vec<_> = names
        .filter(|name| real.lines().any(|line| line == format!("mod {name};")))
        .collect();
    assert!(both.len() > 5, "{both:?}");
    let sources = both
        .iter()
        .map(|name| read(&tests.join(format!("cell/{name}.rs"))));
    sources.flat_map(|text| tests_in(&text)).collect()
}

/// What stands between back quotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn each_line_of_the_contract_has_a_test_for_both_cells() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let contract = read(&root.join("../docs/semantics.md"));
    let tests = root.join("tests");
    let (all, both) = (tests_below(&tests), tests_of_both(&tests));
    let elsewhere = contract.split(ELSEWHERE).nth(1).expect(ELSEWHERE);
    let elsewhere: BTreeSet<_> = quoted(elsewhere.split("\n\n").next().unwrap())
        .into_iter()
        .collect();
    let mut named = BTreeSet::new();
    let lines = contract
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| What |"));
    for line in lines {
        let last = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names = quoted(last);
        assert!(!names.is_empty(), "no test for: {line}");
        for name in names {
            let found = if elsewhere.contains(name) { &all } else { &both };
            assert!(found.contains(name), "no test {name:?} for: {line}");
            named.insert(name);
        }
    }
    assert!(named.len() > 30, "{named:?}");
    for name in elsewhere {
        assert!(named.contains(name), "{name} is a test of no line");
        assert!(!both.contains(name), "{name} is a test of both cells");
    }
    for file in FOR_THE_CONTRACT {
        for name in tests_in(&read(&tests.join("cell").join(file))) {
            assert!(
                named.contains(&name[..]),
                "{name} checks what the contract does not say"
            );
        }
    }
}

/// What the contract says before it names the tests that do not run on both cells, in one paragraph.
const ELSEWHERE: &str = "On one of the two cells only:";
/// Files whose tests are there for the contract's sake.
const FOR_THE_CONTRACT: [&str; 5] = [
    "arguments.rs",
    "programs.rs",
    "rights.rs",
    "semantics.rs",
    "signals.rs",
];
