use super::*;

fn entry(vnode: u32) -> Entry {
    let mut content = Content::default();
    content.set_server(DataVersion(3), 5000);
    Entry {
        key: ObjectKey {
            cell: 1,
            volume: 2,
            vnode,
            unique: 9,
        },
        cell: CellName::new("lab.example").unwrap(),
        author: Author {
            who: Identity::UserInGroup(1000, 77),
            principal: Some("alice@LAB".into()),
            is_earlier: false,
        },
        since: 123,
        content,
        is_doubtful: false,
    }
}

fn call(range: Range<u64>) -> StoreCall {
    StoreCall {
        file_length: range.end,
        range,
    }
}

fn set(mode: u32, modified: u32) -> StoreStatus {
    StoreStatus {
        mask: StoreStatus::SET_MODE | StoreStatus::SET_MTIME,
        unix_mode_bits: mode,
        client_mod_time: modified,
        ..StoreStatus::default()
    }
}

/// Two files, one of which is stored in the end, and one in the middle of it.
fn steps() -> Vec<(u64, Step)> {
    vec![
        (1, Step::Write(10..20)),
        (1, Step::Truncate(15)),
        (2, Step::Write(0..9000)),
        (1, Step::BeginStore),
        (1, Step::Sending(call(10..15), Mark { mtime: 99, sum: 5 })),
        (1, Step::Write(100..200)),
        (1, Step::SetStatus(set(0o600, 77))),
        (2, Step::SetStatus(set(0o400, 78))),
        (2, Step::BeginStore),
        (2, Step::Sending(call(0..9000), Mark { mtime: 98, sum: 5 })),
        (2, Step::Sending(call(0..9000), Mark { mtime: 98, sum: 5 })),
        (2, Step::Stored(DataVersion(4), 9000, true)),
        (2, Step::StatusStored(set(0o400, 78))),
        (1, Step::PartStored(DataVersion(4), 15)),
    ]
}

fn written(dir: &Path) -> PathBuf {
    let path = dir.join("journal");
    let (mut journal, left) = Journal::open(&path, None).unwrap();
    assert!(left.is_empty());
    for (id, step) in steps() {
        if !journal.has(id) {
            journal.begin(id, entry(id as u32));
        }
        journal.step(id, &step);
    }
    path
}

fn told(entry: &Entry) -> String {
    let parts = entry.content.parts();
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        parts.dirty, parts.cut, parts.grow, parts.attempt, parts.noted
    )
}

#[test]
fn what_was_written_is_read() {
    let dir = crate::store::model::fast_dir();
    let path = written(dir.path());
    let (mut journal, left) = Journal::open(&path, None).unwrap();
    let [left] = left.as_slice() else {
        panic!("{left:?}")
    };
    assert_eq!(left.key.vnode, 1);
    assert_eq!(
        left.author,
        Author {
            is_earlier: true,
            ..entry(1).author
        }
    );
    assert!(!left.is_doubtful);
    // What was being stored is dirty again, with what was written meanwhile.
    let dirty: Vec<_> = left.content.dirty().iter().collect();
    assert_eq!(dirty, [10..15, 100..200]);
    assert_eq!(left.content.parts().cut, Some(15));
    assert_eq!(left.content.version(), Some(DataVersion(4)));
    assert_eq!(left.content.attempt(), None);
    assert_eq!(left.content.noted(), set(0o600, 77));
    // And from a journal that was written anew.
    journal.keep(7, left.clone());
    journal.rewrite().unwrap();
    let (_, again) = Journal::open(&path, None).unwrap();
    assert_eq!(told(&again[0]), told(left));
}

#[test]
fn a_file_of_which_no_step_was_noted_was_not_changed() {
    let dir = crate::store::model::fast_dir();
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(&path, None).unwrap();
    journal.begin(1, entry(1));
    journal.begin(2, entry(2));
    journal.step(2, &Step::Write(10..20));
    let (_, left) = Journal::open(&path, None).unwrap();
    let vnodes: Vec<_> = left.iter().map(|entry| entry.key.vnode).collect();
    assert_eq!(vnodes, [2]);
}

/// The program may die in the middle of a write; what it had written before counts.
#[test]
fn a_journal_that_is_cut_off_is_read_up_to_there() {
    let dir = crate::store::model::fast_dir();
    let path = written(dir.path());
    let whole = fs::read(&path).unwrap();
    let mut seen = Vec::new();
    for len in b"afs-fuse journal 1\n".len()..=whole.len() {
        let read = read(&whole[..len], None);
        assert_eq!(read.damaged_at, None, "at {len}");
        let mut now: Vec<_> = read.entries.values().map(told).collect();
        now.sort();
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    assert!(seen.len() > 8, "{seen:?}");
}

#[test]
fn a_changed_byte_ends_it() {
    let dir = crate::store::model::fast_dir();
    let path = written(dir.path());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let read = read(&bytes, None);
        // A length that points behind the end looks like a record that was being written.
        let rest = whole.len() - at;
        assert!(
            read.damaged_at.is_some_and(|damaged| damaged <= at) || rest < whole.len(),
            "at {at}"
        );
        assert!(read.entries.len() <= 2);
    }
    fs::write(&path, b"not a journal").unwrap();
    let (_, left) = Journal::open(&path, None).unwrap();
    assert!(left.is_empty());
    assert_eq!(
        fs::read(dir.path().join("journal.damaged")).unwrap(),
        b"not a journal"
    );
}

#[test]
fn what_another_boot_has_left_is_doubtful() {
    let dir = crate::store::model::fast_dir();
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(&path, None).unwrap();
    journal.boot = "another".to_owned();
    journal.begin(1, entry(1));
    journal.step(1, &Step::Write(0..10));
    let (_, left) = Journal::open(&path, None).unwrap();
    assert!(left[0].is_doubtful);
}

#[test]
fn it_does_not_grow_without_end() {
    let dir = crate::store::model::fast_dir();
    let path = dir.path().join("journal");
    let (mut journal, _) = Journal::open(&path, None).unwrap();
    journal.begin(1, entry(1));
    for round in 0..200_000u64 {
        journal.step(1, &Step::Write(round % 100 * 10..round % 100 * 10 + 5));
    }
    let size = fs::metadata(&path).unwrap().len();
    assert!(size <= FULL, "{size}");
    let (_, left) = Journal::open(&path, None).unwrap();
    assert_eq!(left[0].content.dirty().bytes(), 500);
}
