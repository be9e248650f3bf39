//! What goes wrong in a scenario, and which errors that explains.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use afs_client::codes;
use afs_client::error::{Error, errno};
use afs_client::rpc::Procedure;
use afs_client::rpc::fs::{CreateFile, FETCH_DATA, FetchStatusOf, InlineBulkStatus, RemoveFile, STORE_DATA};
use rustix::io::Errno;
use testcell::Random;
use testcell::embedded::faults::{Action, Calls, Faults, Lie, Memory, Moment, Rule, When};

/// The rules of a scenario, and how often each has acted.
#[derive(Debug)]
pub(super) struct Told(Vec<One>);

#[derive(Debug)]
struct One {
    shown: String,
    action: Action,
    times: Arc<AtomicU64>,
}

impl One {
    fn has_acted(&self) -> bool {
        self.times.load(Ordering::Acquire) > 0
    }
}

impl Told {
    /// How often something went wrong.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|one| one.times.load(Ordering::Acquire)).sum()
    }

    /// Has a server lost its memory of whom it promised what?
    pub(super) fn has_forgotten(&self) -> bool {
        let forgets = |one: &One| matches!(one.action, Action::Restart(Memory::Lost)) && one.has_acted();
        self.0.iter().any(forgets)
    }

    /// Does something that went wrong explain this error?
    pub(super) fn explains(&self, error: &Error) -> Result<(), String> {
        let acted = self.0.iter().filter(|one| one.has_acted());
        let fits = acted.flat_map(|one| comes_to(&one.action));
        if fits.map(Errno::raw_os_error).any(|known| known == error.errno()) {
            Ok(())
        } else {
            Err(format!("nothing explains errno {}: {error}", error.errno()))
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, one) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "; " };
            write!(
                f,
                "{comma}{} (acted {} times)",
                one.shown,
                one.times.load(Ordering::Acquire)
            )?;
        }
        Ok(())
    }
}

/// The errors that a client may come to.
fn comes_to(action: &Action) -> Vec<Errno> {
    match action {
        // A call that is refused again and again, until the operation has no time left.
        Action::Abort(code) => vec![errno(*code)],
        Action::Lie(Lie::ShortData | Lie::DirectoryPage) => vec![Errno::IO],
        // What became of the call nobody knows: it may have been done, which its repetition meets.
        Action::DropReply | Action::Restart(_) => {
            vec![Errno::TIMEDOUT, Errno::EXIST, Errno::NOENT, Errno::STALE]
        }
        _ => Vec::new(),
    }
}

/// Makes up one to three rules.
pub(super) fn make(random: &mut Random, faults: &Faults) -> Told {
    let count = 1 + random.below(3);
    let rules = (0..count).map(|_| rule(random, faults));
    Told(rules.collect())
}

fn rule(random: &mut Random, faults: &Faults) -> One {
    let action = action(random);
    let opcode = match action {
        Action::Lie(Lie::ShortData | Lie::DirectoryPage) => FETCH_DATA,
        Action::HalfBandwidth => pick(random, &[FETCH_DATA, STORE_DATA]),
        _ => pick(random, &OPCODES),
    };
    let first = 1 + random.below(3);
    let when = When::Between(first, first + random.below(2));
    let times = Arc::<AtomicU64>::default();
    let acted = Arc::clone(&times);
    let note = Action::Run(
        Moment::Before,
        Arc::new(move || {
            acted.fetch_add(1, Ordering::AcqRel);
            Box::pin(std::future::ready(()))
        }),
    );
    faults.add(Rule::new(when, Calls::to(opcode), [note, action.clone()]));
    One {
        shown: format!("{when:?} of {opcode}: {action:?}"),
        action,
        times,
    }
}

fn action(random: &mut Random) -> Action {
    let moments = [Moment::Before, Moment::Between, Moment::After];
    let mut millis = |most| Duration::from_millis(1 + random.below(most));
    let (short, long) = (millis(30), millis(200));
    match random.below(20) {
        0 | 1 => Action::Delay(short),
        2..=5 => Action::Abort(codes::named(pick(random, &CODES)).unwrap()),
        6..=9 => Action::Break(pick(random, &moments)),
        10 | 11 => Action::Duplicate,
        12..=14 => Action::Lie(pick(
            random,
            &[Lie::ShortData, Lie::DirectoryPage, Lie::DataVersion],
        )),
        15 => Action::HalfBandwidth,
        16 => Action::Freeze(long),
        17 => Action::DropReply,
        _ => Action::Restart(pick(random, &[Memory::Kept, Memory::Lost])),
    }
}

fn pick<T: Clone>(random: &mut Random, from: &[T]) -> T {
    from[random.below(from.len() as u64) as usize].clone()
}

const OPCODES: [u32; 8] = [
    FETCH_DATA,
    FETCH_DATA,
    STORE_DATA,
    STORE_DATA,
    CreateFile::OPCODE,
    RemoveFile::OPCODE,
    FetchStatusOf::OPCODE,
    InlineBulkStatus::OPCODE,
];
const CODES: [&str; 18] = [
    "VBUSY",
    "VMOVED",
    "VNOVOL",
    "VOFFLINE",
    "VSALVAGE",
    "VSALVAGING",
    "VRESTARTING",
    "VNOSERVICE",
    "VNOVNODE",
    "VIO",
    "VDISKFULL",
    "VOVERQUOTA",
    "UAEIO",
    "UAEACCES",
    "UAENOSPC",
    "UAETIMEDOUT",
    "RXKADEXPIRED",
    "RXGEN_OPCODE",
];
