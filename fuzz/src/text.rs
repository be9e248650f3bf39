//! Texts that others write: `CellServDB`, cell names, the texts of mount points.

use std::path::Path;

use afs_client::cell::{CellName, CellServDb};
use afs_client::mount_point::MountTarget;

/// What is read can be read again from what it is written as.
pub(crate) fn run(bytes: &[u8]) {
    if let Ok(db) = CellServDb::parse(bytes, Path::new("CellServDB")) {
        for entry in db.cells() {
            assert!(db.cell(&entry.name).is_some());
        }
    }
    if let Ok(target) = MountTarget::parse(bytes) {
        let text = target.to_text();
        assert_eq!(
            MountTarget::parse(text.as_bytes()).as_ref(),
            Ok(&target),
            "{text}"
        );
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(name) = CellName::new(text)
    {
        assert_eq!(
            CellName::new(name.as_str()).as_ref(),
            Ok(&name),
            "a name is its own name"
        );
    }
}
