//! The one cell of a test binary.

use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use crate::harness::cell::Cell;
use crate::harness::watch::{Watch, locked};

/// A test may take so long before its clients are killed.
const LIMIT: Duration = Duration::from_secs(150);

static CELL: OnceLock<Result<Cell, String>> = OnceLock::new();
static TURN: Mutex<()> = Mutex::new(());

/// The cell, for one test at a time.
#[derive(Debug)]
pub struct Shared {
    cell: &'static Cell,
    _watch: Watch,
    _turn: MutexGuard<'static, ()>,
}

/// Takes the binary's cell, which is started by the first who asks.
///
/// # Panics
/// If the cell does not come up.
pub fn shared() -> Shared {
    shared_for(LIMIT)
}

/// Takes the cell for a test that may take so long.
///
/// # Panics
/// If the cell does not come up.
pub fn shared_for(limit: Duration) -> Shared {
    shared_as(limit, || Cell::up(1))
}

/// Takes the cell, which the first who asks starts so. A binary does so in one way only.
///
/// # Panics
/// If the cell does not come up.
pub fn shared_as(limit: Duration, up: impl FnOnce() -> anyhow::Result<Cell>) -> Shared {
    let turn = locked(&TURN);
    match CELL.get_or_init(|| up().map_err(|error| format!("{error:?}"))) {
        Ok(cell) => Shared {
            cell,
            _watch: Watch::start(cell.clients.clone(), limit),
            _turn: turn,
        },
        Err(error) => panic!("{error}"),
    }
}

impl Deref for Shared {
    type Target = Cell;

    fn deref(&self) -> &Cell {
        self.cell
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- newest lines of the servers' logs\n{}", self.cell.logs());
        }
    }
}
