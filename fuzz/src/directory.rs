//! Directories: blobs that a server could have sent, with damage, read and edited.

use afs_client::dir::Directory;
use afs_client::types::{Uniquifier, VnodeId};
use bytes::Bytes;

use crate::input::Input;

/// A damaged directory is refused or consistent; a consistent one stays so through every edit.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let Some(entries) = input.byte() else { return };
    let mut directory = Directory::new((VnodeId(1), Uniquifier(1)), (VnodeId(1), Uniquifier(1)));
    for at in 0..u32::from(entries) {
        let name = format!("{:01$}", at, 1 + usize::from(entries) * 3 % 40);
        let _ = directory.create(name.as_bytes(), VnodeId(at * 2 + 2), Uniquifier(at));
    }
    let mut blob = directory.blob().to_vec();
    let damages = input.byte().unwrap_or(0) % 16;
    for _ in 0..damages {
        let (Some(place), Some(value)) = (input.word(), input.byte()) else {
            break;
        };
        let place = usize::try_from(place >> 16).unwrap_or(0) % blob.len();
        blob[place] = value;
    }
    let Ok(mut directory) = Directory::parse(Bytes::from(blob)) else {
        return;
    };
    consistent(&directory);
    while let Some(choice) = input.byte() {
        let length = usize::from(input.byte().unwrap_or(1));
        let name = input.bytes(length).to_vec();
        let known = directory.lookup(&name).is_some();
        let count = directory.len();
        match choice % 3 {
            0 => {
                let created = directory.create(&name, VnodeId(2), Uniquifier(3));
                assert!(created.is_err() || !known);
                assert_eq!(directory.len(), count + usize::from(created.is_ok()));
            }
            1 => {
                let removed = directory.remove(&name);
                assert_eq!(removed.is_ok(), known);
                assert_eq!(directory.len(), count - usize::from(known));
            }
            _ => {
                let _ = directory.rename(&name, b"renamed");
            }
        }
        consistent(&directory);
    }
}

/// Listing and lookup agree, and what it is written as is the same directory.
fn consistent(directory: &Directory) {
    let listed: Vec<_> = directory
        .iter()
        .map(|entry| (entry.name.to_vec(), entry.slot))
        .collect();
    assert_eq!(listed.len(), directory.len());
    for (name, _) in &listed {
        assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0));
        assert!(
            directory.lookup(name).is_some(),
            "listed, but not found: {name:?}"
        );
    }
    let again = Directory::parse(Bytes::copy_from_slice(directory.blob())).expect("its own blob");
    assert_eq!(
        again
            .iter()
            .map(|entry| (entry.name.to_vec(), entry.slot))
            .collect::<Vec<_>>(),
        listed
    );
}
