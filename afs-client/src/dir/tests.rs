use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::layout::{self, PAGE_BYTES, SLOT_BYTES, entry, page};
use super::*;

fn directory() -> Directory {
    Directory::new((VnodeId(5), Uniquifier(5)), (VnodeId(1), Uniquifier(1)))
}

fn blob_with(edit: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut directory = directory();
    directory.create(b"f1", VnodeId(6), Uniquifier(6)).unwrap();
    directory.create(&[b'n'; 255], VnodeId(8), Uniquifier(7)).unwrap();
    let mut blob = BytesMut::from(&directory.blob()[..]);
    edit(&mut blob);
    blob.freeze()
}

fn listing(directory: &Directory) -> BTreeMap<Vec<u8>, (u32, u32)> {
    directory
        .iter()
        .map(|entry| (entry.name.to_vec(), (entry.vnode.0, entry.unique.0)))
        .collect()
}

#[test]
fn hash_has_the_known_answers() {
    let known: [(&[u8], usize); 14] = [
        (b".", 46),
        (b"..", 68),
        (b"a", 97),
        (b"f1", 31),
        (b"f2", 32),
        (b"mp", 25),
        (b"test", 28),
        (b"README", 6),
        (b"Makefile", 98),
        (b"hello.txt", 18),
        (b"lost+found", 43),
        (b"file123", 26),
        (b"\xc3\xa9t\xc3\xa9", 76),
        (&[b'n'; 255], 102),
    ];
    for (name, bucket) in known {
        assert_eq!(layout::bucket(name), bucket, "{}", name.escape_ascii());
    }
}

#[test]
fn entries_take_the_known_number_of_slots() {
    for (lengths, slots) in [
        (1..=15, 1),
        (16..=47, 2),
        (48..=79, 3),
        (80..=111, 4),
        (112..=143, 5),
        (255..=255, 9),
    ] {
        for length in lengths {
            assert_eq!(layout::slots_for(length), slots, "{length}");
        }
    }
}

/// The page of the reference: `f1 f2 sl mp` in a directory with vnode 5 below the root.
#[test]
fn edits_make_the_servers_bytes() {
    let mut made = directory();
    for (name, vnode) in [(&b"f1"[..], 6), (b"f2", 8), (b"sl", 10), (b"mp", 12)] {
        made.create(name, VnodeId(vnode), Uniquifier(vnode)).unwrap();
    }
    let blob = made.blob();
    assert_eq!(blob.len(), PAGE_BYTES);
    assert_eq!(&blob[..8], hex_literal::hex!("0001 04d2 33 ffff07"));
    assert_eq!(&blob[8..32], [0; 24]);
    assert_eq!(&blob[32..36], hex_literal::hex!("2d404040"));
    assert_eq!(
        &blob[0x1a0..0x1ae],
        hex_literal::hex!("0100 0000 00000005 00000005 2e00")
    );
    assert_eq!(
        &blob[0x1c0..0x1cf],
        hex_literal::hex!("0100 0000 00000001 00000001 2e2e00")
    );
    assert_eq!(
        &blob[0x1e0..0x1ef],
        hex_literal::hex!("0100 0000 00000006 00000006 663100")
    );
    assert_eq!(&blob[page::HASH + 2 * 31..][..2], [0, 15]);
    let parsed = Directory::parse(blob.clone()).unwrap();
    assert_eq!(parsed.len(), 6);
    assert_eq!(parsed.lookup(b"mp"), Some((VnodeId(12), Uniquifier(12))));
    assert_eq!(parsed.lookup(b"MP"), None);
    let slots: Vec<_> = parsed.iter().map(|entry| entry.slot).collect();
    assert_eq!(slots, [13, 14, 15, 16, 17, 18]);
}

#[test]
fn a_listing_goes_on_where_it_was() {
    let mut directory = directory();
    for number in 0..200_u32 {
        directory
            .create(
                format!("name-{number}").as_bytes(),
                VnodeId(2 * number + 2),
                Uniquifier(number),
            )
            .unwrap();
    }
    let first: Vec<_> = directory
        .iter()
        .take(100)
        .map(|entry| entry.name.to_vec())
        .collect();
    let after = directory.iter().nth(99).unwrap().slot + 1;
    directory.remove(&first[99]).unwrap();
    let rest = directory.iter_from(after).map(|entry| entry.name.to_vec());
    assert_eq!(first.into_iter().chain(rest).count(), 202);
    assert_eq!(directory.iter_from(u16::MAX).count(), 0);
}

#[test]
fn a_full_directory_says_so() {
    let mut directory = directory();
    let mut made = 0_u32;
    let full = loop {
        let name = format!("{made:0>255}");
        match directory.create(name.as_bytes(), VnodeId(2), Uniquifier(made)) {
            Ok(()) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, EditError::Full);
    // Five of nine slots fit in page 0, seven in each of the other 1022.
    assert_eq!(made, 5 + 1022 * 7);
    assert_eq!(
        Directory::parse(directory.blob().clone()).unwrap().len(),
        directory.len()
    );
}

#[test]
fn edits_keep_the_rules() {
    let mut directory = directory();
    directory.create(b"a", VnodeId(2), Uniquifier(1)).unwrap();
    let before = directory.clone();
    assert_eq!(
        directory.create(b"a", VnodeId(4), Uniquifier(1)),
        Err(EditError::Exists)
    );
    assert_eq!(directory.remove(b"b"), Err(EditError::NotFound));
    assert_eq!(directory.rename(b"b", b"c"), Err(EditError::NotFound));
    for name in [&b""[..], b"a/b", b"a\0b", &[b'n'; 257]] {
        assert_eq!(
            directory.create(name, VnodeId(4), Uniquifier(1)),
            Err(EditError::BadName)
        );
        assert_eq!(directory.rename(b"a", name), Err(EditError::BadName));
    }
    assert_eq!(directory.blob(), before.blob());
    directory.retarget(b"..", VnodeId(9), Uniquifier(8)).unwrap();
    assert_eq!(directory.lookup(b".."), Some((VnodeId(9), Uniquifier(8))));
    assert_eq!(before.lookup(b".."), Some((VnodeId(1), Uniquifier(1))));
    directory.create(b"b", VnodeId(6), Uniquifier(3)).unwrap();
    directory.rename(b"a", b"b").unwrap();
    assert_eq!(directory.lookup(b"b"), Some((VnodeId(2), Uniquifier(1))));
    assert!(!directory.is_empty());
    directory.remove(b"b").unwrap();
    assert!(directory.is_empty());
}

#[test]
fn lies_are_found() {
    let (f1, long) = (15 * SLOT_BYTES, 16 * SLOT_BYTES);
    let lie = |edit: fn(&mut BytesMut)| Directory::parse(blob_with(edit)).unwrap_err();
    Directory::parse(blob_with(|_| ())).unwrap();
    assert_eq!(
        Directory::parse(Bytes::new()).unwrap_err(),
        BadDirectory::Length(0)
    );
    assert_eq!(lie(|blob| blob.truncate(2000)), BadDirectory::Length(2000));
    assert_eq!(
        lie(|blob| blob[1] = 2),
        BadDirectory::PageCount { claimed: 2, held: 1 }
    );
    assert_eq!(lie(|blob| blob[3] = 0), BadDirectory::Tag(0));
    assert_eq!((f1, long), (480, 512));
    assert_eq!(lie(|blob| blob[480] = 0), BadDirectory::Entry(15));
    assert_eq!(lie(|blob| blob[480 + entry::NAME] = 0), BadDirectory::Entry(15));
    assert_eq!(
        lie(|blob| blob[480 + entry::NAME] = b'/'),
        BadDirectory::Entry(15)
    );
    assert_eq!(
        lie(|blob| blob[512 + entry::NAME + 255..][..2].fill(b'n')),
        BadDirectory::Entry(16)
    );
    assert_eq!(lie(|blob| blob[page::BITMAP + 2] = 0x81), BadDirectory::Span(16));
    assert_eq!(
        lie(|blob| blob[480 + entry::NEXT + 1] = 15),
        BadDirectory::Chain { bucket: 31, slot: 15 }
    );
    assert_eq!(
        lie(|blob| blob[page::HASH + 1] = 15),
        BadDirectory::Chain { bucket: 0, slot: 15 }
    );
    assert_eq!(
        lie(|blob| blob[page::HASH] = 255),
        BadDirectory::Chain {
            bucket: 0,
            slot: 0xff00
        }
    );
    assert_eq!(
        lie(|blob| blob[page::HASH + 2 * 31 + 1] = 0),
        BadDirectory::Unchained(1)
    );
    // A directory of the oldest style counts its pages in the allocation map.
    Directory::parse(blob_with(|blob| blob[1] = 0)).unwrap();
}

#[derive(Clone, Debug)]
enum Change {
    Create(Vec<u8>, u32),
    Remove(Vec<u8>),
    Rename(Vec<u8>, Vec<u8>),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    // Few letters, so that names meet again and chains grow.
    (0..3_u8, 1..60_usize).prop_map(|(letter, length)| vec![b'a' + letter; length])
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (name(), any::<u32>()).prop_map(|(name, vnode)| Change::Create(name, vnode)),
        1 => name().prop_map(Change::Remove),
        1 => (name(), name()).prop_map(|(old, new)| Change::Rename(old, new)),
    ]
}

proptest! {
    #[test]
    fn random_bytes_are_harmless(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let _ = Directory::parse(Bytes::from(bytes));
    }

    /// Damage that keeps the outer form reaches the inner checks; what passes can be used.
    #[test]
    fn damaged_blobs_are_harmless(
        names in proptest::collection::btree_set(name(), 0..80),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut directory = directory();
        for name in &names {
            directory.create(name, VnodeId(2), Uniquifier(1)).unwrap();
        }
        let mut blob = BytesMut::from(&directory.blob()[..]);
        for (place, byte) in damage {
            let at = place.index(blob.len());
            blob[at] = byte;
        }
        if let Ok(mut parsed) = Directory::parse(blob.freeze()) {
            prop_assert_eq!(parsed.iter().count(), parsed.len());
            for name in &names {
                let _ = parsed.lookup(name);
                let _ = parsed.remove(name);
                let _ = parsed.create(name, VnodeId(4), Uniquifier(4));
            }
        }
    }

    #[test]
    fn edits_follow_the_model(changes in proptest::collection::vec(change(), 0..300)) {
        let mut directory = directory();
        let mut model = listing(&directory);
        for change in changes {
            match change {
                Change::Create(name, vnode) => {
                    let made = directory.create(&name, VnodeId(vnode), Uniquifier(7));
                    prop_assert_eq!(made.is_ok(), !model.contains_key(&name));
                    model.entry(name).or_insert((vnode, 7));
                }
                Change::Remove(name) => {
                    let stood_for = directory.remove(&name).ok().map(|(vnode, unique)| (vnode.0, unique.0));
                    prop_assert_eq!(stood_for, model.remove(&name));
                }
                Change::Rename(old, new) => {
                    let renamed = directory.rename(&old, &new);
                    prop_assert_eq!(renamed.is_ok(), model.contains_key(&old));
                    if let Some(stood_for) = model.remove(&old) {
                        model.insert(new, stood_for);
                    }
                }
            }
        }
        let parsed = Directory::parse(directory.blob().clone()).unwrap();
        prop_assert_eq!(listing(&parsed), model.clone());
        prop_assert_eq!(parsed.len(), model.len());
        for (name, stood_for) in &model {
            let found = parsed.lookup(name).map(|(vnode, unique)| (vnode.0, unique.0));
            prop_assert_eq!(found, Some(*stood_for));
        }
    }
}
