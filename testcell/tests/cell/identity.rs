//! The bytes written are the bytes that a second client and the file server hold.

use testcell::{fill, sha256};

use crate::shared;

const SIZES: [(&str, u64); 5] = [
    ("empty", 0),
    ("one", 1),
    ("page", 4096),
    ("mega", (1 << 20) + 1),
    ("big", 300 << 20),
];

#[test]
fn written_bytes_arrive_at_another_client_and_at_the_server() {
    let cell = shared();
    let local = tempfile::tempdir().unwrap();
    let writer = cell.mount(1).unwrap();
    let reader = cell.mount(2).unwrap();
    let folder = writer.work("identity").unwrap();
    for (seed, (name, size)) in SIZES.into_iter().enumerate() {
        fill(&local.path().join(name), size, seed as u64).unwrap();
        fill(&folder.join(name), size, seed as u64).unwrap();
    }
    let held = cell.held("work").unwrap();
    for (name, size) in SIZES {
        let expected = sha256(&local.path().join(name)).unwrap();
        let path = reader.path("work/identity").join(name);
        assert_eq!(
            path.metadata().unwrap().len(),
            size,
            "length of {name} at the second client"
        );
        assert_eq!(sha256(&path).unwrap(), expected, "{name} at the second client");
        assert_eq!(
            held.get(&format!("identity/{name}")),
            Some(&expected),
            "{name} at the server"
        );
    }
    // The server has it, and so has the writer, from its own cache.
    assert_eq!(
        sha256(&folder.join("big")).unwrap(),
        sha256(&local.path().join("big")).unwrap()
    );
    std::fs::remove_dir_all(&folder).unwrap();
}
