//! The rules of afs-rpc.md 4, operation by operation, and a volume that stays whole whatever is done to it.

use afs_client::rpc::fs::StoreDataArgs;
use afs_client::rpc::types::{AfsFid, StoreStatus};
use afs_client::types::{Uniquifier, VnodeId, VolumeId};
use afs_client::volume::VolumeKind;
use bytes::Bytes;
use proptest::prelude::*;
use rustix::io::Errno;

use super::volume::{At, ROOT};
use super::{Acl, Broken, Caller, Refusal, Rights, Spill, Volume};

const ANYONE: Caller = Caller::ANONYMOUS;
const NOW: u32 = 1_000_000;

fn volume(rights: Rights) -> Volume {
    Volume::new(VolumeId(7), "work", Acl::anyuser(rights), NOW)
}

fn nothing() -> StoreStatus {
    StoreStatus::default()
}

fn mode(bits: u32) -> StoreStatus {
    StoreStatus {
        mask: StoreStatus::SET_MODE,
        unix_mode_bits: bits,
        ..nothing()
    }
}

fn file(volume: &mut Volume, dir: At, name: &str) -> At {
    volume
        .create_file(dir, name.as_bytes(), &nothing(), &ANYONE, NOW)
        .unwrap()
        .0
}

fn dir(volume: &mut Volume, at: At, name: &str) -> At {
    volume
        .make_dir(at, name.as_bytes(), &nothing(), &ANYONE, NOW)
        .unwrap()
        .0
}

fn store(volume: &mut Volume, at: At, position: u64, data: &[u8], file_length: u64) -> Result<(), Refusal> {
    let args = StoreDataArgs {
        fid: AfsFid {
            volume: 7,
            vnode: at.0.0,
            unique: at.1.0,
        },
        status: nothing(),
        position,
        length: data.len() as u64,
        file_length,
    };
    let mut store = volume.begin_store(&args, &ANYONE)?;
    store.write(data, &Spill::default())?;
    store.complete(&Spill::default())?;
    volume.finish_store(store, &ANYONE, NOW + 1)
}

fn errno<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Errno {
    match result {
        Err(Refusal::Errno(errno)) => errno,
        other => panic!("{other:?}"),
    }
}

fn version(volume: &Volume, at: At) -> u64 {
    volume.vnode(at).unwrap().version.0
}

#[test]
fn numbers_are_even_for_files_and_used_again_with_another_uniquifier() {
    let mut work = volume(Rights::ALL);
    let (first, sub, second) = (
        file(&mut work, ROOT, "a"),
        dir(&mut work, ROOT, "d"),
        file(&mut work, ROOT, "b"),
    );
    assert_eq!((first.0, sub.0, second.0), (VnodeId(2), VnodeId(3), VnodeId(4)));
    work.remove_file(ROOT, b"a", &ANYONE, NOW).unwrap();
    let again = file(&mut work, ROOT, "c");
    assert_eq!(again, (VnodeId(2), Uniquifier(5)));
    assert_eq!(work.vnode(first).unwrap_err(), Refusal::GONE);
    work.check().unwrap();
}

#[test]
fn a_new_object_is_what_the_rules_say() {
    let mut work = volume(Rights::ALL);
    let at = file(&mut work, ROOT, "f");
    let status = work.status(at, &ANYONE, NOW).unwrap();
    assert_eq!(
        (
            status.unix_mode_bits,
            status.link_count,
            status.version_low,
            status.owner
        ),
        (0o777, 1, 0, 32_766)
    );
    assert_eq!((status.parent_vnode, status.caller_access), (1, 0x7f));
    let sub = dir(&mut work, ROOT, "d");
    let status = work.status(sub, &ANYONE, NOW).unwrap();
    assert_eq!(
        (
            status.link_count,
            status.length_low,
            status.version_low,
            status.parent_vnode
        ),
        (2, 2048, 0, sub.0.0)
    );
    assert_eq!((version(&work, ROOT), work.vnode(ROOT).unwrap().links), (2, 3));
}

#[test]
fn stores_follow_the_rules_of_length_and_version() {
    let mut work = volume(Rights::ALL);
    let at = file(&mut work, ROOT, "f");
    let len = |work: &Volume| work.vnode(at).unwrap().len();
    store(&mut work, at, 0, &[1; 2000], 2000).unwrap();
    assert_eq!((len(&work), version(&work, at)), (2000, 1));
    store(&mut work, at, 0, &[], 3000).unwrap();
    assert_eq!(
        (len(&work), version(&work, at)),
        (2000, 2),
        "FileLength does not extend"
    );
    store(&mut work, at, 3000, &[], 3000).unwrap();
    assert_eq!(len(&work), 3000, "Pos does");
    store(&mut work, at, 100, &[2; 10], 50).unwrap();
    assert_eq!(len(&work), 110, "cut first, then written");
    let data = work.read(at, &ANYONE).unwrap().part(0, 200).unwrap();
    assert_eq!((&data[..50], &data[100..]), (&[1; 50][..], &[2; 10][..]));
    assert!(data[50..100].iter().all(|byte| *byte == 0));
    assert_eq!(errno(store(&mut work, ROOT, 0, b"x", 1)), Errno::ISDIR);
    assert_eq!(errno(store(&mut work, at, u64::MAX, b"", 0)), Errno::FBIG);
    work.check().unwrap();
}

#[test]
fn a_store_is_seen_when_it_ends_and_not_before() {
    let mut work = volume(Rights::ALL);
    let at = file(&mut work, ROOT, "f");
    store(&mut work, at, 0, b"old", 3).unwrap();
    let fid = AfsFid {
        volume: 7,
        vnode: at.0.0,
        unique: at.1.0,
    };
    let args = StoreDataArgs {
        fid,
        length: 3,
        file_length: 3,
        ..StoreDataArgs::default()
    };
    let mut under_way = work.begin_store(&args, &ANYONE).unwrap();
    under_way.write(b"ne", &Spill::default()).unwrap();
    let now = |work: &Volume| work.read(at, &ANYONE).unwrap().part(0, 9).unwrap();
    assert_eq!(&now(&work)[..], b"old");
    assert!(
        under_way.write(b"wer", &Spill::default()).is_err(),
        "more than announced"
    );
    assert!(
        under_way.complete(&Spill::default()).is_err(),
        "less than announced"
    );
    under_way.write(b"w", &Spill::default()).unwrap();
    under_way.complete(&Spill::default()).unwrap();
    work.finish_store(under_way, &ANYONE, NOW).unwrap();
    assert_eq!((&now(&work)[..], version(&work, at)), (&b"new"[..], 2));
}

#[test]
fn names_are_refused_as_the_server_does() {
    let mut work = volume(Rights::ALL);
    file(&mut work, ROOT, "f");
    let sub = dir(&mut work, ROOT, "d");
    let inner = file(&mut work, sub, "inner");
    for name in [&b""[..], b"a/b", b"x@sys"] {
        let made = work.create_file(ROOT, name, &nothing(), &ANYONE, NOW);
        assert_eq!(errno(made), Errno::INVAL, "{name:?}");
    }
    assert_eq!(
        errno(work.make_dir(ROOT, b"f", &nothing(), &ANYONE, NOW)),
        Errno::EXIST
    );
    assert_eq!(errno(work.remove_file(ROOT, b"d", &ANYONE, NOW)), Errno::ISDIR);
    assert_eq!(errno(work.remove_dir(ROOT, b"f", &ANYONE, NOW)), Errno::NOTDIR);
    assert_eq!(errno(work.remove_dir(ROOT, b"d", &ANYONE, NOW)), Errno::EXIST);
    assert_eq!(errno(work.remove_dir(sub, b"..", &ANYONE, NOW)), Errno::INVAL);
    assert_eq!(errno(work.remove_file(ROOT, b"none", &ANYONE, NOW)), Errno::NOENT);
    assert_eq!(errno(work.link(ROOT, b"l", inner, &ANYONE, NOW)), Errno::XDEV);
    assert_eq!(errno(work.link(ROOT, b"l", sub, &ANYONE, NOW)), Errno::ISDIR);
    let mut rename =
        |from_dir, from: &[u8], to_dir, to: &[u8]| work.rename(from_dir, from, to_dir, to, &ANYONE, NOW);
    assert_eq!(errno(rename(ROOT, b"f", ROOT, b"d")), Errno::ISDIR);
    assert_eq!(errno(rename(ROOT, b"d", ROOT, b"f")), Errno::NOTDIR);
    assert_eq!(errno(rename(ROOT, b"f", ROOT, b"f")), Errno::INVAL);
    assert_eq!(rename(ROOT, b"d", sub, b"deeper"), Err(Refusal::Code(49_733_464)));
    work.check().unwrap();
}

#[test]
fn a_rename_breaks_what_it_changes() {
    let mut work = volume(Rights::ALL);
    let (a, b) = (dir(&mut work, ROOT, "a"), dir(&mut work, ROOT, "b"));
    let moved = dir(&mut work, a, "moved");
    let before = [a, b, moved].map(|at| version(&work, at));
    let broken = work.rename(a, b"moved", b, b"here", &ANYONE, NOW).unwrap();
    assert_eq!(broken, [Broken::others(a), Broken::others(b), Broken::all(moved)]);
    let after = [a, b, moved].map(|at| version(&work, at));
    assert_eq!(after, before.map(|version| version + 1));
    // Within a directory one change is one version.
    let once = version(&work, b);
    assert_eq!(
        work.rename(b, b"here", b, b"there", &ANYONE, NOW).unwrap(),
        [Broken::others(b)]
    );
    assert_eq!(version(&work, b), once + 1);
    // A link that stays is broken for everybody.
    let first = file(&mut work, b, "one");
    work.link(b, b"two", first, &ANYONE, NOW).unwrap();
    file(&mut work, b, "new");
    let broken = work.rename(b, b"new", b, b"two", &ANYONE, NOW).unwrap();
    assert_eq!(broken, [Broken::others(b), Broken::all(first)]);
    assert_eq!(
        errno(work.rename(b, b"none", a, b"x", &ANYONE, NOW)),
        Errno::NOENT
    );
    work.check().unwrap();
}

#[test]
fn rights_decide() {
    let mut work = volume(Rights::ALL);
    let at = file(&mut work, ROOT, "f");
    let link = work
        .symlink(ROOT, b"l", Bytes::from_static(b"f"), &nothing(), &ANYONE, NOW)
        .unwrap()
        .0;
    let mut with = |rights| {
        let list = Acl::anyuser(rights);
        work.set_acl(ROOT, list, &Caller::ADMINISTRATOR, NOW).unwrap();
        let looks = |at| work.may_see(at, &ANYONE).is_ok();
        (
            looks(ROOT),
            looks(at),
            looks(link),
            work.read(ROOT, &ANYONE).is_ok(),
        )
    };
    assert_eq!(with(Rights::default()), (true, false, false, false));
    assert_eq!(with(Rights::LOOKUP), (true, false, true, true));
    assert_eq!(with(Rights::READ), (true, true, false, false));
    // Who made a file may write to it with INSERT alone.
    with(Rights::INSERT);
    store(&mut work, at, 0, b"mine", 4).unwrap();
    let mount_point = work.symlink(ROOT, b"m", Bytes::from_static(b"#v."), &mode(0o644), &ANYONE, NOW);
    assert_eq!(errno(mount_point), Errno::ACCESS, "needs ADMINISTER");
    let theirs = StoreStatus {
        mask: StoreStatus::SET_OWNER,
        owner: 5,
        ..nothing()
    };
    assert_eq!(errno(work.set_status(at, &theirs, &ANYONE, NOW)), Errno::PERM);
    work.set_status(at, &mode(0o4755), &ANYONE, NOW).unwrap();
    assert_eq!(work.vnode(at).unwrap().mode, 0o755, "setuid is dropped");
    work.set_status(at, &theirs, &Caller::ADMINISTRATOR, NOW).unwrap();
    assert_eq!(errno(store(&mut work, at, 0, b"", 0)), Errno::ACCESS);
    assert_eq!(
        errno(work.set_acl(ROOT, Acl::default(), &ANYONE, NOW)),
        Errno::ACCESS
    );
}

#[test]
fn a_quota_is_kept() {
    let mut tiny = volume(Rights::ALL);
    let set = afs_client::rpc::types::StoreVolumeStatus {
        mask: 2,
        max_quota: 10,
        ..Default::default()
    };
    assert_eq!(
        errno(tiny.set_volume_status(&set, &Bytes::new(), &ANYONE)),
        Errno::ACCESS
    );
    tiny.set_volume_status(&set, &Bytes::new(), &Caller::ADMINISTRATOR)
        .unwrap();
    let at = file(&mut tiny, ROOT, "f");
    assert_eq!(
        store(&mut tiny, at, 0, &[0; 9000], 9000),
        Err(Refusal::OVER_QUOTA)
    );
    store(&mut tiny, at, 0, &[0; 8000], 8000).unwrap();
    let full = tiny.create_file(ROOT, b"g", &nothing(), &ANYONE, NOW);
    assert_eq!(full.unwrap_err(), Refusal::OVER_QUOTA);
    store(&mut tiny, at, 0, b"", 0).unwrap();
    assert_eq!(tiny.volume_status().blocks_in_use, 3);
    file(&mut tiny, ROOT, "g");
    tiny.check().unwrap();
}

#[test]
fn locks_conflict_expire_and_have_no_owner() {
    let mut work = volume(Rights::ALL);
    let at = file(&mut work, ROOT, "f");
    let count = |work: &Volume, now| work.status(at, &ANYONE, now).unwrap().lock_count;
    work.set_lock(at, false, &ANYONE, NOW).unwrap();
    work.set_lock(at, false, &ANYONE, NOW).unwrap();
    assert_eq!(count(&work, NOW), 2);
    assert_eq!(errno(work.set_lock(at, true, &ANYONE, NOW)), Errno::AGAIN);
    assert_eq!(work.release_lock(at, NOW).unwrap(), None);
    assert_eq!(work.release_lock(at, NOW).unwrap(), Some(Broken::others(at)));
    assert_eq!(work.release_lock(at, NOW).unwrap(), None, "no lock is no error");
    assert_eq!(errno(work.extend_lock(at, NOW)), Errno::INVAL);
    work.set_lock(at, true, &ANYONE, NOW).unwrap();
    assert_eq!(count(&work, NOW), u32::MAX);
    work.extend_lock(at, NOW + 299).unwrap();
    assert_eq!(errno(work.set_lock(at, false, &ANYONE, NOW + 598)), Errno::AGAIN);
    work.set_lock(at, false, &ANYONE, NOW + 599).unwrap();
    assert_eq!(count(&work, NOW + 599), 1);
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let mut work = volume(Rights::ALL);
    let at = file(&mut work, ROOT, "f");
    store(&mut work, at, 0, b"then", 4).unwrap();
    work.set_lock(at, true, &ANYONE, NOW).unwrap();
    let mut copy = work.snapshot(VolumeId(8), VolumeKind::ReadOnly, NOW + 9);
    store(&mut work, at, 0, b"now", 3).unwrap();
    assert_eq!(
        (copy.name.as_str(), copy.parent, copy.sync().creation),
        ("work.readonly", VolumeId(7), NOW + 9)
    );
    assert_eq!(&copy.read(at, &ANYONE).unwrap().part(0, 9).unwrap()[..], b"then");
    assert_eq!(copy.status(at, &ANYONE, NOW).unwrap().lock_count, 0);
    assert_eq!(errno(store(&mut copy, at, 0, b"x", 1)), Errno::ROFS);
    assert_eq!(errno(copy.remove_file(ROOT, b"f", &ANYONE, NOW)), Errno::ROFS);
    copy.set_lock(at, false, &ANYONE, NOW).unwrap();
    assert_eq!(errno(copy.set_lock(at, true, &ANYONE, NOW)), Errno::ROFS);
}

#[derive(Clone, Debug)]
enum Step {
    File(u8, u8),
    Dir(u8, u8),
    Link(u8, u8, u8),
    Remove(u8, u8),
    Rmdir(u8, u8),
    Rename(u8, u8, u8, u8),
    Store(u8, u16),
}

fn step() -> impl Strategy<Value = Step> {
    let (dir, name) = (0..4_u8, 0..6_u8);
    prop_oneof![
        (dir.clone(), name.clone()).prop_map(|(d, n)| Step::File(d, n)),
        (dir.clone(), name.clone()).prop_map(|(d, n)| Step::Dir(d, n)),
        (dir.clone(), name.clone(), name.clone()).prop_map(|(d, n, m)| Step::Link(d, n, m)),
        (dir.clone(), name.clone()).prop_map(|(d, n)| Step::Remove(d, n)),
        (dir.clone(), name.clone()).prop_map(|(d, n)| Step::Rmdir(d, n)),
        (dir.clone(), name.clone(), dir, name.clone()).prop_map(|(d, n, e, m)| Step::Rename(d, n, e, m)),
        (name, 0..5000_u16).prop_map(|(n, len)| Step::Store(n, len)),
    ]
}

proptest! {
    /// Whatever is done, and done or refused: names, links, blocks and directories agree; and twice the same is the same.
    #[test]
    fn a_volume_stays_whole(steps in proptest::collection::vec(step(), 0..80)) {
        let run = || {
            let mut work = volume(Rights::ALL);
            let mut dirs = vec![ROOT];
            for step in &steps {
                let name = |number: &u8| format!("n{number}").into_bytes();
                let dir = |number: &u8| dirs[usize::from(*number) % dirs.len()];
                let lookup = |work: &Volume, at, number| {
                    work.names(at).ok().and_then(|names| names.lookup(&name(number)))
                };
                match step {
                    Step::File(d, n) => drop(work.create_file(dir(d), &name(n), &nothing(), &ANYONE, NOW)),
                    Step::Dir(d, n) => {
                        if let Ok((made, _)) = work.make_dir(dir(d), &name(n), &nothing(), &ANYONE, NOW) {
                            dirs.push(made);
                        }
                    }
                    Step::Link(d, n, m) => {
                        if let Some(at) = lookup(&work, dir(d), n) {
                            drop(work.link(dir(d), &name(m), at, &ANYONE, NOW));
                        }
                    }
                    Step::Remove(d, n) => drop(work.remove_file(dir(d), &name(n), &ANYONE, NOW)),
                    Step::Rmdir(d, n) => drop(work.remove_dir(dir(d), &name(n), &ANYONE, NOW)),
                    Step::Rename(d, n, e, m) => {
                        drop(work.rename(dir(d), &name(n), dir(e), &name(m), &ANYONE, NOW));
                    }
                    Step::Store(n, len) => {
                        if let Some(at) = lookup(&work, ROOT, n) {
                            let _ = store(&mut work, at, 0, &vec![0; usize::from(*len)], 0);
                        }
                    }
                }
                if let Err(wrong) = work.check() {
                    panic!("after {step:?}: {wrong}");
                }
            }
            format!("{work:?}")
        };
        prop_assert_eq!(run(), run());
    }
}
