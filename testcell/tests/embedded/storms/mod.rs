//! A thousand fault scenarios, each its seed.
//!
//! The machine: a scenario is a cell of its own with two clients, some fault rules, and some steps: a client writes,
//! removes, reads or lists, or one writes while the other reads. Beside it goes a [`Reference`], which knows what every
//! file may be. Nobody may read anything else, no error may come that no fault explains, nothing may hang; and when the
//! faults are over both clients see what the server has, which is what was stored last. What is waited for in a scenario
//! is other people's time, so a hundred are played at once. One that fails tells its seed, its faults and what was done;
//! `STORM_SEED=N` plays it alone, `STORM_SEEDS=N` plays so many, and `STORM_FROM=N` begins with another one than 0.

mod faults;
mod reference;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use afs_client::error::Error;
use afs_client::fs::{Lookup, OpenFlags};
use rustix::io::Errno;
use testcell::Random;
use testcell::embedded::{Cell, Settings};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use self::faults::Told;
use self::reference::{Reference, State};
use super::client::{CELL, Client, address};

/// One scenario that is being played.
struct Play {
    random: Random,
    cell: Cell,
    clients: [Client; 2],
    reference: Reference,
    told: Told,
    began: Instant,
    /// What was done, when, and what came of it.
    past: String,
    /// Somebody has waited in vain.
    late: bool,
}

/// A scenario that did not end well.
struct Failed {
    why: String,
    /// Somebody has waited in vain: where the machine has no time for us that is nobody's fault.
    late: bool,
}

impl Play {
    async fn new(seed: u64) -> Result<Self, Error> {
        let mut random = Random::new(seed);
        let cell = Cell::start(Settings::new(CELL, address())).await.unwrap();
        cell.make_volume("root.cell", 1, "rl").unwrap();
        cell.make_volume("work", 1, "rlidwka").unwrap();
        cell.mount("root.cell", "work", "#work.").await.unwrap();
        let clients = [
            Client::with_deadline(&cell, DEADLINE).await,
            Client::with_deadline(&cell, DEADLINE).await,
        ];
        for client in &clients {
            assert_eq!(client.names(DIR).await?, [""; 0]);
        }
        let told = faults::make(&mut random, cell.faults());
        Ok(Self {
            random,
            cell,
            clients,
            reference: Reference::default(),
            told,
            began: Instant::now(),
            past: String::new(),
            late: false,
        })
    }

    /// Notes what a client has done.
    fn did<T>(&mut self, who: usize, what: &str, came: &Result<T, Error>, is: impl FnOnce(&T) -> String) {
        let came = match came {
            Ok(is_now) => is(is_now),
            Err(error) => {
                self.late |= is_late(error);
                format!("errno {}, {error}", error.errno())
            }
        };
        let at = self.began.elapsed().as_millis();
        self.past += &format!("\n  {at:6} ms: client {who} {what}: {came}");
    }

    async fn step(&mut self) -> Result<(), String> {
        let who = self.random.below(2) as usize;
        let name = NAMES[self.random.below(NAMES.len() as u64) as usize];
        match self.random.below(10) {
            0..=2 => self.write(who, name).await,
            3 => self.remove(who, name).await,
            4 => self.list(who).await,
            5 => self.write_and_read(who, name).await,
            _ => self.read(who, name).await,
        }
    }

    fn data(&mut self) -> Vec<u8> {
        let length = 1 + self.random.below(30_000) as usize;
        self.random.bytes(length)
    }

    async fn write(&mut self, who: usize, name: &str) -> Result<(), String> {
        let data = self.data();
        self.reference.begins(name, &data);
        let written = self.clients[who].write(&path(name), &data).await;
        self.did(who, &format!("writes {name}"), &written, |()| shown(Some(&data)));
        self.written(who, name, data, written)
    }

    fn written(
        &mut self,
        who: usize,
        name: &str,
        data: Vec<u8>,
        written: Result<(), Error>,
    ) -> Result<(), String> {
        match written {
            Ok(()) => self.reference.written(who, name, data),
            Err(error) => {
                let kept = error.errno() == Errno::TIMEDOUT.raw_os_error();
                self.reference.failed(who, name, kept.then_some(data));
                self.told
                    .explains(&error)
                    .map_err(|why| format!("client {who} writes {name}: {why}"))?;
            }
        }
        Ok(())
    }

    async fn write_and_read(&mut self, who: usize, name: &str) -> Result<(), String> {
        let data = self.data();
        self.reference.begins(name, &data);
        let place = path(name);
        let (written, seen) = tokio::join!(
            self.clients[who].write(&place, &data),
            look(&self.clients[1 - who], &place),
        );
        let meanwhile = format!("reads {name} while client {who} writes {}", shown(Some(&data)));
        self.did(1 - who, &meanwhile, &seen, |seen| shown(seen.as_ref()));
        self.did(who, &format!("writes {name}"), &written, |()| "done".to_owned());
        self.seen(1 - who, name, seen)?;
        self.written(who, name, data, written)
    }

    async fn remove(&mut self, who: usize, name: &str) -> Result<(), String> {
        let client = &self.clients[who];
        let removed = match client.fid(DIR).await {
            Ok(dir) => client.fs.unlink(dir, name.as_bytes()).await,
            Err(error) => Err(error),
        };
        self.did(who, &format!("removes {name}"), &removed, |()| "done".to_owned());
        match removed {
            Ok(()) => {
                self.reference.removed(who, name);
                Ok(())
            }
            Err(error) => {
                self.reference.may_be_removed(name);
                self.refused(who, name, &error)
                    .map_err(|why| format!("client {who} removes {name}: {why}"))
            }
        }
    }

    async fn read(&mut self, who: usize, name: &str) -> Result<(), String> {
        let seen = look(&self.clients[who], &path(name)).await;
        self.did(who, &format!("reads {name}"), &seen, |seen| shown(seen.as_ref()));
        self.seen(who, name, seen)
    }

    fn seen(&mut self, who: usize, name: &str, seen: Result<State, Error>) -> Result<(), String> {
        let stale = self.told.has_forgotten();
        let fits = match seen {
            Ok(state) => self.reference.sees(who, name, state, stale),
            Err(error) => self.refused(who, name, &error),
        };
        fits.map_err(|why| format!("client {who} reads {name}: {why}"))
    }

    /// Something was refused because of a fault, or because there is no such file any more.
    fn refused(&mut self, who: usize, name: &str, error: &Error) -> Result<(), String> {
        let explained = self.told.explains(error);
        if explained.is_err() && is_absence(error) {
            let stale = self.told.has_forgotten();
            return self.reference.sees(who, name, None, stale);
        }
        explained
    }

    async fn list(&mut self, who: usize) -> Result<(), String> {
        let names = self.clients[who].names(DIR).await;
        self.did(who, "lists", &names, |names| format!("{names:?}"));
        let fits = match names {
            Ok(names) => self.reference.lists(&names, self.told.has_forgotten()),
            Err(error) => self.told.explains(&error),
        };
        fits.map_err(|why| format!("client {who} lists: {why}"))
    }

    /// With nothing wrong any more: what was kept is stored, and both clients see what the server has.
    async fn settle(&mut self) -> Result<(), String> {
        self.cell.faults().clear();
        for who in 0..2 {
            // A call of its own, so that the client hears what it missed.
            let own = path(&format!("own{who}"));
            let mut tries = 1;
            while let Err(error) = self.clients[who].write(&own, b"here").await {
                self.late |= is_late(&error);
                tries += 1;
                if tries > TRIES {
                    return Err(format!("client {who} cannot write again: {error}"));
                }
                // A server that is about to restart refuses at once.
                tokio::time::sleep(PAUSE).await;
            }
        }
        for client in &self.clients {
            client.fs.store_all().await;
        }
        for name in NAMES {
            let truth = self.cell.read("work", name).ok();
            self.reference
                .allows(name, &truth)
                .map_err(|why| format!("the server's {name}: {why}"))?;
            for (who, client) in self.clients.iter().enumerate() {
                match look(client, &path(name)).await {
                    Ok(state) if state == truth => {}
                    Err(error) if is_late(&error) => {
                        self.late = true;
                        return Err(format!("client {who} does not see {name} in the end: {error}"));
                    }
                    seen => return Err(format!("client {who} sees another {name} in the end: {seen:?}")),
                }
            }
        }
        Ok(())
    }
}

/// What a file is: one read, so that nobody changes it in between.
async fn look(client: &Client, path: &str) -> Result<State, Error> {
    let dir = client.fid(DIR).await?;
    let name = path.rsplit('/').next().unwrap();
    let Lookup::Found(entry) = client.fs.lookup(dir, name.as_bytes()).await? else {
        return Ok(None);
    };
    let flags = OpenFlags {
        read: true,
        ..OpenFlags::default()
    };
    let handle = client.fs.open(entry.fid, flags).await?.handle;
    let read = client.fs.read(handle, 0, 128 << 10).await;
    client.fs.release(handle).await;
    Ok(Some(read?.to_vec()))
}

fn is_late(error: &Error) -> bool {
    error.errno() == Errno::TIMEDOUT.raw_os_error()
}

/// The file was removed before it could be looked at.
fn is_absence(error: &Error) -> bool {
    [Errno::NOENT, Errno::STALE]
        .map(Errno::raw_os_error)
        .contains(&error.errno())
}

fn path(name: &str) -> String {
    format!("{DIR}/{name}")
}

/// A file, short.
fn shown(file: Option<&Vec<u8>>) -> String {
    let Some(data) = file else {
        return "none".to_owned();
    };
    let head = &data[..data.len().min(4)];
    format!("{} bytes, {head:02x?}", data.len())
}

/// Plays a scenario; what does not fit, with all that is needed to see why.
async fn play(seed: u64) -> Result<u64, Failed> {
    let mut play = Play::new(seed).await.map_err(|error| Failed {
        why: format!("it does not begin: {error}"),
        late: is_late(&error),
    })?;
    let steps = async {
        for step in 0..STEPS {
            play.step().await.map_err(|why| format!("step {step}: {why}"))?;
        }
        play.settle().await
    };
    let played = match tokio::time::timeout(LIMIT, steps).await {
        Ok(played) => played,
        Err(_) => {
            play.late = false;
            Err(format!("it hangs for more than {LIMIT:?}"))
        }
    };
    let played = played.map_err(|why| Failed {
        why: format!("{why}\n  of {}; before that:{}", play.told, play.past),
        late: play.late,
    });
    for client in &play.clients {
        client.shutdown().await;
    }
    play.cell.shutdown().await;
    played.map(|()| play.told.count())
}

impl From<JoinError> for Failed {
    fn from(error: JoinError) -> Self {
        let panic = error.try_into_panic().ok();
        let text = panic.as_ref().and_then(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| panic.downcast_ref::<&str>().copied())
        });
        Self {
            why: format!("it panics: {}", text.unwrap_or("without a word")),
            late: false,
        }
    }
}

/// Plays a scenario in a task of its own: one that panics is a failure like others, of this seed.
async fn played(seed: u64) -> Result<u64, Failed> {
    tokio::spawn(play(seed)).await?
}

/// How late the runtime comes to what is due: what waits for a reply has as much less of its time.
async fn lateness(most: Arc<AtomicU64>) {
    loop {
        let due = Instant::now() + BEAT;
        tokio::time::sleep_until(due).await;
        let late = due.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        most.fetch_max(late, Ordering::Relaxed);
    }
}

#[test]
fn a_thousand_scenarios_end_well() {
    let asked = |name| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
    let seeds = match asked("STORM_SEED") {
        Some(seed) => seed..seed + 1,
        None => {
            let from = asked("STORM_FROM").unwrap_or(0);
            from..from + asked("STORM_SEEDS").unwrap_or(SCENARIOS)
        }
    };
    let seeds = Arc::new(seeds.collect::<Vec<_>>());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let began = Instant::now();
    let (next, fired) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let most_late = Arc::<AtomicU64>::default();
    let failures = runtime.block_on(async {
        tokio::spawn(lateness(Arc::clone(&most_late)));
        let mut players = JoinSet::new();
        for _ in 0..PLAYERS {
            let (seeds, next, fired) = (Arc::clone(&seeds), Arc::clone(&next), Arc::clone(&fired));
            players.spawn(async move {
                let mut failures = Vec::new();
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    match played(*seed).await {
                        Ok(count) => drop(fired.fetch_add(count, Ordering::Relaxed)),
                        Err(failed) => failures.push((*seed, failed)),
                    }
                }
                failures
            });
        }
        let mut failures = Vec::new();
        for (seed, failed) in players.join_all().await.into_iter().flatten() {
            let late = most_late.load(Ordering::Relaxed);
            if failed.late && late > STARVED {
                eprintln!(
                    "seed {seed} is played again, as the machine was {late} ms late: {}",
                    failed.why
                );
                failures.extend(played(seed).await.err().map(|failed| (seed, failed.why)));
            } else {
                failures.push((seed, failed.why));
            }
        }
        failures
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    let fired = fired.load(Ordering::Relaxed);
    eprintln!("{} scenarios, {fired} faults, {:?}", seeds.len(), began.elapsed());
    for (seed, why) in &failures {
        eprintln!("seed {seed}: {why}");
        eprintln!("again: STORM_SEED={seed} cargo test -p testcell --test embedded storms -- --nocapture");
    }
    assert!(failures.is_empty(), "{} scenarios failed", failures.len());
    assert!(
        seeds.len() == 1 || fired >= seeds.len() as u64,
        "only {fired} faults"
    );
}

const SCENARIOS: u64 = 1_000;
const PLAYERS: u64 = 100;
const STEPS: u64 = 12;
const NAMES: [&str; 3] = ["a", "b", "c"];
const DIR: &str = "lab.example/work";
/// A client waits so long for a reply that does not come.
const DEADLINE: Duration = Duration::from_secs(5);
/// No scenario takes so long, however loaded the machine is.
const LIMIT: Duration = Duration::from_secs(120);
const BEAT: Duration = Duration::from_millis(20);
/// A machine that comes so many milliseconds late to what is due may come too late for a deadline: an operation is a hundred
/// such things. What timed out is then played once more when nothing else is.
const STARVED: u64 = 100;
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);
