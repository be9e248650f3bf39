//! What programs see while volumes move, servers die and the network is gone: three file servers, two clients.

#![allow(clippy::disallowed_methods, clippy::indexing_slicing, clippy::unwrap_used)]

mod load;

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use testcell::{Cell, MountOptions, Shared, eventually, shared_as, write_and_close};

use load::{Load, under_load};

fn shared() -> Shared {
    shared_as(LIMIT, || Cell::up_with_partition(3, SMALL))
}

#[test]
fn volumes_that_move_and_are_released_and_taken_away_cost_time_only() {
    let cell = shared();
    let [writer, reader] = [1, 2].map(|k| cell.mount(k).unwrap());
    let load = Load::new(&cell, &writer, &reader, "moves");
    let [one, two, three] = [1, 2, 3].map(|i| cell.server_address(i).unwrap().to_string());
    let vos = |words: &[&str]| {
        let finished = cell.vos(words).unwrap();
        finished.ok().unwrap();
    };
    under_load(&load, || {
        vos(&["move", "work", &one, "a", &three, "a"]);
        vos(&["release", "ro.data"]);
        vos(&["offline", &three, "a", "work", "-sleep", "3"]);
        // Never back: OpenAFS's server may keep files of the volume open that it deletes while clients ask for it. When the volume
        // comes again it reads them, "in use", and has it salvaged for ever (seen in /proc: volume header and indexes, deleted).
        vos(&["move", "work", &three, "a", &two, "a"]);
    });
    load.check();
}

#[test]
fn each_server_may_be_killed_under_readers_and_writers() {
    let cell = shared();
    let [writer, reader] = [1, 2].map(|k| cell.mount(k).unwrap());
    let load = Load::new(&cell, &writer, &reader, "kills");
    under_load(&load, || {
        for server in [1, 2, 3] {
            cell.kill_server(server).unwrap();
            sleep(Duration::from_secs(1));
        }
    });
    load.check();
}

/// With `AFS_OUTAGE` for so many seconds.
#[test]
fn without_a_network_nothing_waits_beyond_its_deadline_and_nothing_is_lost() {
    const DEADLINE: u32 = 8;
    let outage = std::env::var("AFS_OUTAGE").map_or(20, |text| text.parse().unwrap());
    let cell = shared();
    let mount = cell
        .mount_with(1, &MountOptions::default().deadline(DEADLINE))
        .unwrap();
    let folder = mount.work("cut").unwrap();
    fs::write(folder.join("known"), "known").unwrap();
    let paths: Vec<PathBuf> = ["ro/hello", "work2", "home"]
        .iter()
        .map(|path| mount.path(path))
        .collect();
    for server in [1, 2, 3] {
        cell.cut_server(server, true).unwrap();
    }
    let began = Instant::now();
    let mut tried = 0;
    let mut unstored = Vec::new();
    while began.elapsed().as_secs() < outage {
        let start = Instant::now();
        match tried % 3 {
            2 => {
                let name = format!("unstored-{tried}");
                // It cannot even be made: there is nobody who knows whether it is there.
                let made = fs::write(folder.join(&name), &name).unwrap_err();
                assert_eq!(made.kind(), ErrorKind::TimedOut);
            }
            0 => {
                // Once it is not known whether something was made in the folder, its names are not either.
                match File::options().write(true).open(folder.join("known")) {
                    Ok(mut file) => {
                        let text = format!("written at {tried:04}");
                        file.write_all(text.as_bytes()).unwrap();
                        assert_eq!(file.sync_all().unwrap_err().kind(), ErrorKind::TimedOut);
                        unstored.push(text);
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
                }
            }
            _ => drop(fs::read(&paths[tried / 3 % paths.len()])),
        }
        let took = start.elapsed();
        assert!(
            took < Duration::from_secs((2 * DEADLINE + 4).into()),
            "{tried}: {took:?} with a deadline of {DEADLINE} s"
        );
        tried += 1;
    }
    for server in [1, 2, 3] {
        cell.cut_server(server, false).unwrap();
    }
    let usable = || fs::write(folder.join("after"), "after").is_ok();
    assert!(eventually(Duration::from_secs(60), usable), "{}", mount.said());
    let last = unstored.last().expect("it was known");
    let other = cell.mount(2).unwrap();
    let read = || fs::read_to_string(other.path("work/cut/known")).unwrap();
    assert!(
        eventually(Duration::from_secs(40), || read() == *last),
        "what could not be stored is stored later: {:?} of {unstored:?}",
        read()
    );
    assert!(paths.iter().all(|path| fs::metadata(path).is_ok()));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_full_partition_is_said_at_close_and_at_fsync() {
    let cell = shared();
    let mount = cell.mount(1).unwrap();
    let full = Errno::NOSPC.raw_os_error();
    let file = mount.path("work2/too-big");
    for fsync in [false, true] {
        let [written, synced, closed] = write_and_close(&file, 64 << 20, fsync).unwrap();
        assert_eq!(written, 0);
        assert_eq!(if fsync { synced } else { closed }, full, "fsync: {fsync}");
    }
    fs::remove_file(&file).unwrap();
    let small = mount.path("work2/small");
    fs::write(&small, "fits").unwrap();
    let other = cell.mount(2).unwrap();
    assert_eq!(fs::read_to_string(other.path("work2/small")).unwrap(), "fits");
    fs::remove_file(&small).unwrap();
}

const LIMIT: Duration = Duration::from_secs(240);
/// The partition of server 2.
const SMALL: &str = "40m";
