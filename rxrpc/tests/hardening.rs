//! The page `docs/hardening.md` says what the code says.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rxrpc::proto::DropReason;

/// The rows of the tables: what stands in the columns `Where`, `Counter` and `Test`.
fn rows(page: &str) -> Vec<[String; 3]> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_matches('|');
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = Vec::new();
    let mut places: Option<[usize; 3]> = None;
    for line in page.lines() {
        if !line.starts_with('|') {
            places = None;
            continue;
        }
        let row = cells(line);
        let Some([place, counter, test]) = places else {
            places = Some(["Where", "Counter", "Test"].map(|name| {
                row.iter()
                    .position(|cell| cell == name)
                    .unwrap_or_else(|| panic!("no column {name}: {line}"))
            }));
            continue;
        };
        if !row[0].starts_with("---") {
            rows.push([row[place].clone(), row[counter].clone(), row[test].clone()]);
        }
    }
    rows
}

/// The words between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn the_page_names_every_reason_and_only_tests_that_are() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(crate_folder.join("../docs/hardening.md")).unwrap();
    let rows = rows(&page);
    assert!(rows.len() > 40, "{rows:?}");

    let counters: Vec<_> = rows.iter().flat_map(|[_, counter, _]| quoted(counter)).collect();
    let told: BTreeSet<_> = counters.iter().copied().collect();
    assert_eq!(told.len(), counters.len(), "a reason has one row");
    assert_eq!(told, DropReason::names().collect());

    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        sources(&crate_folder.join(folder), &mut files);
    }
    let code: String = files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    for [place, _, test] in &rows {
        for file in quoted(place) {
            assert!(crate_folder.join("src").join(file).is_file(), "{file}");
        }
        for name in quoted(test) {
            assert!(code.contains(&format!("fn {name}(")), "no test {name}");
        }
        assert!(test.contains('`'), "a rule without a test: {place}");
    }
}
