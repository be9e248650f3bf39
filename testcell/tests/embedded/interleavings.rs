//! Two clients and a server, in thousands of orders of what they do, against a register.
//!
//! The machine: a scenario is some operations of one client, and others that the second client does in the middle of them: at
//! an exact moment (before anything is done, between deed and reply, after the reply) of an exact call to the server.
//! Promises are broken in vain, requests done twice, servers restarted, replies lost and breaks not heard at such moments as
//! well. Each operation
//! has a beginning, an end and an outcome, told by a clock that only counts. Whatever the order was, there must be one that
//! explains all outcomes, in which nothing comes before what had ended when it began ([`explained`]). So there is no stale
//! read once a writer has been answered, no update that is lost unseen, nothing that comes back.
//!
//! Who has not heard a break is down for the server, and told of it by the answer to their next call; until then what they read
//! may be old, as with all of AFS, but must have been true once ([`is_invented`]). What is lost with a reply was done, and its
//! client does not know.
//!
//! A file holds a number, twice, and each change writes a number of its own. It writes one half, and then reads the other, which must
//! be that of the version that the change is based on: so it counts as one step, unless its client has said that somebody else
//! wrote in the moment that AFS leaves open, while the file was closed; then it only writes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use afs_client::error::Error;
use afs_client::fs::{Lookup, OpenFlags};
use afs_client::types::Fid;
use rustix::io::Errno;
use testcell::Random;
use testcell::embedded::faults::{Action, Calls, Memory, Moment, Rule, Service, When};
use testcell::embedded::{Cell, Settings};
use tokio::task::JoinSet;

use super::client::{Client, cell_with, settings};

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Read,
    /// Reads the number and writes another.
    Change,
    Make,
    Remove,
}

/// What happens at a call of the first client, besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// The second client does something, from beginning to end if the server lets it.
    Deed(Deed),
    Break,
    Twice,
    Restart(Memory),
    /// It is done, and the first client does not hear of it.
    Lost,
    /// It is done, and the second client does not hear of it.
    Unheard(Memory),
}

/// The n-th call of the first client from here on, and when in it.
#[derive(Clone, Copy, Debug)]
struct At {
    call: u64,
    moment: Moment,
    event: Event,
}

/// What is played. It prints what it takes to play it again.
#[derive(Clone, Debug)]
struct Scenario {
    deeds: Vec<Deed>,
    events: Vec<At>,
    /// Which clients have read the file before.
    warm: [bool; 2],
}

/// What an operation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// The file held this, or was not there.
    Saw(Option<u64>),
    /// The same, of a client that had not heard a break, and had asked nobody since.
    SawOld(Option<u64>),
    /// What it saw, and what it wrote.
    Changed(u64, u64),
    /// It wrote, and its client has said that somebody else did too. When it began to be closed; 0: nobody can tell.
    Overwrote(u64, u64),
    /// It was made, and is empty.
    Made,
    Removed,
    /// It failed, and has changed nothing.
    Nothing,
    /// It failed, and may have come to this before or later.
    Maybe(Option<u64>),
}

#[derive(Clone, Debug)]
struct Outcome {
    who: usize,
    deed: Deed,
    began: u64,
    ended: u64,
    came: Came,
}

impl Scenario {
    /// How long its clients wait for a server: what comes of a lost reply shows only then.
    fn deadline(&self) -> Duration {
        let is_lost = self.events.iter().any(|at| at.event == Event::Lost);
        if is_lost { HASTY } else { ORDINARY }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            who,
            deed,
            began,
            ended,
            came,
        } = self;
        write!(f, "  {began:3}..{ended:<3} {who} {deed:?}: {came:?}")
    }
}

/// Is there an order of these that explains them, from a file that holds `state`?
fn explained(outcomes: &[Outcome], state: Option<u64>) -> bool {
    if outcomes.is_empty() {
        return true;
    }
    // What had ended before another began comes before it.
    let first_end = outcomes.iter().map(|outcome| outcome.ended).min().unwrap_or(0);
    outcomes.iter().enumerate().any(|(number, outcome)| {
        if outcome.began > first_end {
            return false;
        }
        let mut rest = outcomes.to_vec();
        rest.remove(number);
        let is_explained = |state| explained(&rest, state);
        match outcome.came {
            Came::Saw(seen) => seen == state && is_explained(state),
            Came::Changed(from, to) => state == Some(from) && is_explained(Some(to)),
            Came::Overwrote(to, _) => state.is_some() && is_explained(Some(to)),
            Came::Made => state.is_none() && is_explained(Some(EMPTY)),
            Came::Removed => state.is_some() && is_explained(None),
            Came::Nothing | Came::SawOld(_) => is_explained(state),
            Came::Maybe(to) => {
                // It may come true whenever somebody else looks, or never.
                is_explained(state) || is_explained(to) || {
                    let mut later = rest.clone();
                    later
                        .iter()
                        .position(|other| other.ended > outcome.ended)
                        .is_some_and(|_| {
                            let last = rest.iter().map(|other| other.ended).max().unwrap_or(0);
                            later.push(Outcome {
                                began: outcome.ended + 1,
                                ended: last + 1,
                                came: Came::Maybe(to),
                                ..outcome.clone()
                            });
                            outcome.ended <= last && explained(&later, state)
                        })
                }
            }
        }
    })
}

/// Did a client that may see what is old see what had never been so, or what was written after it had looked?
fn is_invented(outcomes: &[Outcome]) -> bool {
    let was = |seen: Option<u64>, by: u64| {
        seen == Some(1)
            || outcomes.iter().any(|made| {
                made.began < by
                    && match made.came {
                        Came::Changed(_, to) | Came::Overwrote(to, _) => seen == Some(to),
                        Came::Maybe(to) => seen == to,
                        Came::Made => seen == Some(EMPTY),
                        Came::Removed => seen.is_none(),
                        Came::Saw(_) | Came::SawOld(_) | Came::Nothing => false,
                    }
            })
    };
    outcomes.iter().any(|outcome| match outcome.came {
        Came::SawOld(seen) => !was(seen, outcome.ended),
        _ => false,
    })
}

/// Was something overwritten that had been there when the file began to be closed? Then it had to be seen.
fn is_careless(outcomes: &[Outcome]) -> bool {
    outcomes
        .iter()
        .enumerate()
        .any(|(number, outcome)| match outcome.came {
            Came::Overwrote(_, closing) if closing > 0 => {
                !outcomes.iter().enumerate().any(|(other, made)| {
                    let is_change = !matches!(made.came, Came::Saw(_) | Came::SawOld(_) | Came::Nothing);
                    other != number && is_change && made.ended > closing
                })
            }
            _ => false,
        })
}

/// A cell with two clients, on which scenarios are played one after another, each on a file of its own.
struct Stage {
    cell: Cell,
    clients: [Client; 2],
    dirs: [Fid; 2],
    files: AtomicU64,
}

/// A scenario that is being played: what its hooks share.
struct Play {
    stage: Arc<Stage>,
    name: String,
    clock: AtomicU64,
    numbers: AtomicU64,
    outcomes: parking_lot::Mutex<Vec<Outcome>>,
    /// What the second client is at. One thing at a time.
    second: tokio::sync::Mutex<()>,
    /// How many things of it have not ended.
    begun: AtomicU64,
    /// A server went away.
    is_doubtful: std::sync::atomic::AtomicBool,
    /// How often breaks were not heard.
    unheard: AtomicU64,
}

impl Stage {
    /// Clients wait for so long for a server.
    async fn new(deadline: Duration) -> Self {
        // Nobody dies here: on a machine that has much to do a client may be slow to answer a break, and is waited for.
        let cell = cell_with(Settings {
            patience: LIMIT,
            ..settings(1)
        })
        .await;
        let clients = [
            Client::with_deadline(&cell, deadline).await,
            Client::with_deadline(&cell, deadline).await,
        ];
        let dirs = [
            clients[0].fid(DIR).await.unwrap(),
            clients[1].fid(DIR).await.unwrap(),
        ];
        Self {
            cell,
            clients,
            dirs,
            files: AtomicU64::new(0),
        }
    }
}

impl Stage {
    async fn end(&self) {
        for client in &self.clients {
            client.shutdown().await;
        }
        self.cell.shutdown().await;
    }
}

impl Play {
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    async fn act(&self, who: usize, deed: Deed) {
        let began = self.now();
        let came = self.come(who, deed).await;
        let ended = self.now();
        self.outcomes.lock().push(Outcome {
            who,
            deed,
            began,
            ended,
            came,
        });
    }

    /// Has a client missed a break and not called the server since? And how often were breaks missed.
    fn deafness(&self, who: usize) -> (bool, u64) {
        let (stage, address) = (&self.stage, self.stage.clients[who].fs.local_addr());
        let missed = stage.cell.has_missed(1, address).unwrap();
        (missed, self.unheard.load(Ordering::SeqCst))
    }

    async fn come(&self, who: usize, deed: Deed) -> Came {
        let before = self.deafness(who);
        let hears = || before == (false, self.unheard.load(Ordering::SeqCst)) && !self.deafness(who).0;
        let done = match deed {
            Deed::Read => {
                let saw = self.look(who).await;
                saw.map(if hears() { Came::Saw } else { Came::SawOld })
            }
            Deed::Change => return self.change(who).await,
            Deed::Make => self.make(who).await,
            Deed::Remove => self.remove(who).await,
        };
        match done {
            Ok(came) => came,
            Err(error) => self.failed(deed, &error),
        }
    }

    /// What an error tells.
    fn failed(&self, deed: Deed, error: &Error) -> Came {
        let is = |errno: Errno| error.errno() == errno.raw_os_error();
        let doubtful = self.is_doubtful.load(Ordering::SeqCst);
        match deed {
            // A file that goes while it is read.
            Deed::Read | Deed::Change if is(Errno::NOENT) || is(Errno::STALE) => Came::Nothing,
            Deed::Read => Came::Nothing,
            Deed::Make if is(Errno::EXIST) && !doubtful => Came::Nothing,
            Deed::Make => Came::Maybe(Some(EMPTY)),
            Deed::Remove if is(Errno::NOENT) && !doubtful => Came::Nothing,
            Deed::Remove => Came::Maybe(None),
            Deed::Change => Came::Nothing,
        }
    }

    async fn find(&self, who: usize) -> Result<Option<Fid>, Error> {
        let client = &self.stage.clients[who];
        Ok(
            match client
                .fs
                .lookup(self.stage.dirs[who], self.name.as_bytes())
                .await?
            {
                Lookup::Found(entry) => Some(entry.fid),
                Lookup::Absent { .. } => None,
            },
        )
    }

    async fn look(&self, who: usize) -> Result<Option<u64>, Error> {
        let Some(fid) = self.find(who).await? else {
            return Ok(None);
        };
        let bytes = self.stage.clients[who].read_fid(fid).await?;
        Ok(Some(number(&bytes)))
    }

    async fn change(&self, who: usize) -> Came {
        let fs = &self.stage.clients[who].fs;
        let to = self.numbers.fetch_add(1, Ordering::SeqCst);
        let conflicts = fs.state().unstored.conflicts;
        let flags = OpenFlags {
            read: true,
            write: true,
            ..OpenFlags::default()
        };
        let begun = async {
            let fid = self.find(who).await?.ok_or(Errno::NOENT)?;
            Ok::<_, Error>(fs.open(fid, flags).await?.handle)
        };
        let heard = self.deafness(who);
        let handle = match begun.await {
            Ok(handle) => handle,
            Err(error) => return self.failed(Deed::Change, &error),
        };
        let half = format!("{to:016}");
        // From here on it is based on one version, which the other half still shows.
        if let Err(error) = fs.write(handle, 0, half.as_bytes()).await {
            fs.release(handle).await;
            return self.failed(Deed::Change, &error);
        }
        let before = fs.read(handle, HALF, 100).await;
        if let Err(error) = fs.write(handle, HALF, half.as_bytes()).await {
            panic!("half of it is written: {error}");
        }
        let closing = self.now();
        let stored = fs.flush(handle).await;
        fs.release(handle).await;
        let is_doubtful = self.is_doubtful.load(Ordering::SeqCst);
        let is_deaf = heard != (false, self.unheard.load(Ordering::SeqCst));
        let has_conflict = fs.state().unstored.conflicts > conflicts;
        match (before, stored) {
            // A call that went down with its server is sent again: whose the versions in between were nobody can tell.
            (Ok(_), Ok(())) if is_doubtful => Came::Overwrote(to, 0),
            // What it is based on was old: that it comes to light with the store is all that can be had.
            (Ok(_), Ok(())) if has_conflict && is_deaf => Came::Overwrote(to, 0),
            (Ok(_), Ok(())) if has_conflict => Came::Overwrote(to, closing),
            (Ok(before), Ok(())) => Came::Changed(half_of(&before), to),
            // It could not be seen what was there.
            (Err(_), Ok(())) => Came::Overwrote(to, 0),
            (_, Err(error)) if error.errno() != Errno::STALE.raw_os_error() => Came::Maybe(Some(to)),
            (_, Err(_)) => Came::Nothing,
        }
    }

    async fn make(&self, who: usize) -> Result<Came, Error> {
        let fs = &self.stage.clients[who].fs;
        let flags = OpenFlags {
            write: true,
            ..OpenFlags::default()
        };
        let (_, opened) = fs
            .create(self.stage.dirs[who], self.name.as_bytes(), 0o644, flags)
            .await?;
        fs.release(opened.handle).await;
        Ok(Came::Made)
    }

    async fn remove(&self, who: usize) -> Result<Came, Error> {
        let fs = &self.stage.clients[who].fs;
        fs.unlink(self.stage.dirs[who], self.name.as_bytes()).await?;
        Ok(Came::Removed)
    }

    /// What the rule of an event does.
    fn actions(self: &Arc<Self>, at: At) -> Vec<Action> {
        match at.event {
            Event::Break => vec![Action::Break(at.moment)],
            Event::Twice => vec![Action::Duplicate],
            Event::Lost => vec![Action::DropReply],
            Event::Unheard(memory) => {
                let play = Arc::clone(self);
                let note = Action::Run(
                    Moment::Before,
                    Arc::new(move || {
                        play.unheard.fetch_add(1, Ordering::SeqCst);
                        Box::pin(std::future::ready(()))
                    }),
                );
                vec![note, Action::Unheard(memory)]
            }
            Event::Restart(memory) => {
                let play = Arc::clone(self);
                let note = Action::Run(
                    Moment::Before,
                    Arc::new(move || {
                        play.is_doubtful.store(true, Ordering::SeqCst);
                        Box::pin(std::future::ready(()))
                    }),
                );
                vec![note, Action::Restart(memory)]
            }
            Event::Deed(deed) => {
                let play = Arc::clone(self);
                let hook = move || {
                    let play = Arc::clone(&play);
                    play.begun.fetch_add(1, Ordering::SeqCst);
                    let doing = tokio::spawn(async move {
                        let _one = play.second.lock().await;
                        play.act(1, deed).await;
                        play.begun.fetch_sub(1, Ordering::SeqCst);
                    });
                    // If it waits for this very call, it goes on behind it.
                    let done = async move { drop(tokio::time::timeout(BLOCKED, doing).await) };
                    Box::pin(done) as std::pin::Pin<Box<dyn Future<Output = ()> + Send>>
                };
                vec![Action::Run(at.moment, Arc::new(hook))]
            }
        }
    }
}

/// What a file holds.
fn contents(number: u64) -> Vec<u8> {
    format!("{number:016}{number:016}").into_bytes()
}

/// The number that a file holds, twice.
fn number(bytes: &[u8]) -> u64 {
    let (one, other) = bytes.split_at(bytes.len() / 2);
    if one == other { half_of(one) } else { NONSENSE }
}

fn half_of(bytes: &[u8]) -> u64 {
    match std::str::from_utf8(bytes).unwrap_or("not a text") {
        "" => EMPTY,
        text => text.parse().unwrap_or(NONSENSE),
    }
}

async fn play(stage: &Arc<Stage>, scenario: &Scenario) -> Result<(), String> {
    let name = format!("file-{}", stage.files.fetch_add(1, Ordering::Relaxed));
    stage.cell.write("work", &name, &contents(1)).await.unwrap();
    let play = Arc::new(Play {
        stage: Arc::clone(stage),
        name,
        clock: AtomicU64::new(1),
        numbers: AtomicU64::new(2),
        outcomes: parking_lot::Mutex::default(),
        second: tokio::sync::Mutex::default(),
        begun: AtomicU64::new(0),
        is_doubtful: false.into(),
        unheard: AtomicU64::new(0),
    });
    for who in 0..2 {
        if scenario.warm[who] {
            play.act(who, Deed::Read).await;
        }
    }
    let first = Calls {
        service: Service::File,
        opcode: None,
        fid: None,
        client: Some(stage.clients[0].fs.local_addr()),
        server: None,
    };
    for at in &scenario.events {
        let rule = Rule::new(When::nth(at.call), first.clone(), play.actions(*at));
        stage.cell.faults().add(rule);
    }
    let deeds = async {
        for deed in &scenario.deeds {
            play.act(0, *deed).await;
        }
        stage.cell.faults().clear();
        // What the second client began has to end.
        while play.begun.load(Ordering::SeqCst) > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if play.is_doubtful.load(Ordering::SeqCst) {
            // A server that has forgotten its promises tells whoever calls it; until then they may be wrong, as all of AFS is.
            play.outcomes
                .lock()
                .retain(|outcome| !matches!(outcome.came, Came::Saw(_)));
        }
        if play.is_doubtful.load(Ordering::SeqCst) || play.unheard.load(Ordering::SeqCst) > 0 {
            // Now everybody asks.
            for (who, client) in stage.clients.iter().enumerate() {
                let own = format!("{DIR}/{}-own-{who}", play.name);
                while client.write(&own, b"here").await.is_err() {
                    tokio::time::sleep(BLOCKED).await;
                }
            }
        }
        for client in &stage.clients {
            client.fs.store_all().await;
        }
        for who in [0, 1, 0] {
            play.act(who, Deed::Read).await;
        }
    };
    if tokio::time::timeout(LIMIT, deeds).await.is_err() {
        return Err(format!("it hangs: {:#?}", play.outcomes.lock()));
    }
    let mut outcomes = play.outcomes.lock().clone();
    let came = stage
        .cell
        .read("work", &play.name)
        .ok()
        .map(|bytes| number(&bytes));
    let now = play.now();
    outcomes.push(Outcome {
        who: 2,
        deed: Deed::Read,
        began: now,
        ended: now,
        came: Came::Saw(came),
    });
    // What a server does twice looks to its client like somebody else.
    let is_twice = scenario.events.iter().any(|at| at.event == Event::Twice);
    if explained(&outcomes, Some(1)) && !is_invented(&outcomes) && (is_twice || !is_careless(&outcomes)) {
        Ok(())
    } else {
        outcomes.sort_by_key(|outcome| outcome.began);
        let lines: Vec<_> = outcomes.iter().map(ToString::to_string).collect();
        Err(format!("no order explains\n{}", lines.join("\n")))
    }
}

fn scenario(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let deed = |random: &mut Random| match random.below(10) {
        0..=3 => Deed::Change,
        4..=6 => Deed::Read,
        7 => Deed::Make,
        _ => Deed::Remove,
    };
    let memory = |random: &mut Random| [Memory::Kept, Memory::Lost][random.below(2) as usize];
    let deeds = (0..=random.below(3)).map(|_| deed(&mut random)).collect();
    let count = 1 + random.below(3);
    let events = (0..count)
        .map(|_| {
            let event = match random.below(40) {
                0..=2 => Event::Break,
                3 | 4 => Event::Twice,
                5 => Event::Restart(memory(&mut random)),
                // Each costs a deadline.
                6 if random.below(2) == 0 => Event::Lost,
                6..=8 => Event::Unheard(memory(&mut random)),
                _ => Event::Deed(deed(&mut random)),
            };
            // A break that nobody waits for may be under way when the next writer is answered: AFS leaves that open.
            let moments = if event == Event::Break { 2 } else { 3 };
            At {
                call: 1 + random.below(5),
                moment: [Moment::Before, Moment::Between, Moment::After][random.below(moments) as usize],
                event,
            }
        })
        .collect();
    let warm = [random.below(2) == 0, random.below(2) == 0];
    Scenario { deeds, events, warm }
}

/// Leaves out what is not needed to fail.
async fn shrunk(mut failing: Scenario) -> Scenario {
    loop {
        let mut smaller = Vec::new();
        for number in 0..failing.events.len() {
            let mut less = failing.clone();
            less.events.remove(number);
            smaller.push(less);
        }
        for number in 0..failing.deeds.len() {
            let mut less = failing.clone();
            less.deeds.remove(number);
            smaller.push(less);
        }
        let mut found = None;
        for less in smaller {
            let stage = Arc::new(Stage::new(less.deadline()).await);
            let fails = play(&stage, &less).await.is_err();
            stage.end().await;
            if fails {
                found = Some(less);
                break;
            }
        }
        match found {
            Some(less) => failing = less,
            None => return failing,
        }
    }
}

#[test]
fn every_order_is_explained() {
    let asked = |name| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
    let seeds = match asked("ORDER_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..asked("ORDER_SEEDS").unwrap_or(ORDERS),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let began = tokio::time::Instant::now();
    let failures = runtime.block_on(async {
        let mut players = JoinSet::new();
        let (next, last) = (Arc::new(AtomicU64::new(seeds.start)), seeds.end);
        for _ in 0..PLAYERS {
            let next = Arc::clone(&next);
            players.spawn(async move {
                let mut failures = Vec::new();
                let mut stage = Arc::new(Stage::new(ORDINARY).await);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= last || failures.len() >= SHOWN {
                        stage.end().await;
                        return failures;
                    }
                    let scenario = scenario(seed);
                    let is_restarted = scenario
                        .events
                        .iter()
                        .any(|at| matches!(at.event, Event::Restart(_)));
                    if scenario.deadline() != ORDINARY {
                        stage.end().await;
                        stage = Arc::new(Stage::new(scenario.deadline()).await);
                    }
                    if let Err(why) = play(&stage, &scenario).await {
                        let shrunk = if failures.is_empty() {
                            shrunk(scenario).await
                        } else {
                            scenario
                        };
                        failures.push(format!("seed {seed}: {why}\n  of {shrunk:?}"));
                        stage.end().await;
                        stage = Arc::new(Stage::new(ORDINARY).await);
                    } else if is_restarted || scenario.deadline() != ORDINARY {
                        // Not everybody knows of it yet.
                        stage.end().await;
                        stage = Arc::new(Stage::new(ORDINARY).await);
                    }
                }
            });
        }
        players.join_all().await.concat()
    });
    runtime.shutdown_timeout(Duration::from_millis(100));
    eprintln!("{} orders, {:?}", seeds.end - seeds.start, began.elapsed());
    for why in failures.iter().take(SHOWN) {
        eprintln!("{why}");
    }
    assert!(failures.is_empty(), "{} orders are not explained", failures.len());
}

/// What the model takes for wrong.
#[test]
fn a_register_knows_what_is_wrong() {
    let outcome = |(began, ended), came| Outcome {
        who: 0,
        deed: Deed::Read,
        began,
        ended,
        came,
    };
    let stale = [
        outcome((1, 2), Came::Changed(1, 2)),
        outcome((3, 4), Came::Saw(Some(1))),
    ];
    let meanwhile = [
        outcome((1, 4), Came::Changed(1, 2)),
        outcome((2, 3), Came::Saw(Some(1))),
    ];
    let lost = [
        outcome((1, 4), Came::Changed(1, 2)),
        outcome((2, 3), Came::Changed(1, 3)),
        outcome((5, 6), Came::Saw(Some(2))),
    ];
    let told = [
        outcome((1, 4), Came::Overwrote(2, 0)),
        outcome((2, 3), Came::Changed(1, 3)),
        outcome((5, 6), Came::Saw(Some(2))),
    ];
    let back = [
        outcome((1, 2), Came::Removed),
        outcome((3, 4), Came::Saw(None)),
        outcome((5, 6), Came::Saw(Some(1))),
    ];
    let late = [
        outcome((1, 2), Came::Maybe(Some(2))),
        outcome((3, 4), Came::Saw(Some(1))),
        outcome((5, 6), Came::Saw(Some(2))),
    ];
    let cases = [
        (&stale[..], false),
        (&meanwhile, true),
        (&lost, false),
        (&told, true),
        (&back, false),
        (&late, true),
    ];
    for (outcomes, is_right) in cases {
        assert_eq!(explained(outcomes, Some(1)), is_right, "{outcomes:#?}");
    }
    let deaf = |seen| {
        let changed = outcome((1, 2), Came::Changed(1, 2));
        let later = outcome((9, 10), Came::Changed(2, 3));
        [changed, outcome((3, 4), Came::SawOld(seen)), later]
    };
    for (seen, is_right) in [(Some(1), true), (Some(2), true), (Some(3), false), (None, false)] {
        let outcomes = deaf(seen);
        assert!(explained(&outcomes, Some(1)));
        assert_eq!(is_invented(&outcomes), !is_right, "{outcomes:#?}");
    }
}

const DIR: &str = "lab.example/work";
const ORDERS: u64 = 3_000;
const PLAYERS: u64 = 24;
const SHOWN: usize = 2;
const HALF: u64 = 16;
/// An empty file, and one that nobody has written so.
const EMPTY: u64 = 0;
const NONSENSE: u64 = u64::MAX;
/// Somebody who waits for a call that is held up here waits for so long, and then behind it.
const BLOCKED: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);
const ORDINARY: Duration = Duration::from_secs(10);
const HASTY: Duration = Duration::from_millis(300);
