//! Keeping keys inside this process.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::failure::{Failure, Kind};

/// From now on no core of this process is dumped, and no other process of its user can look into it.
pub fn keep() -> Result<(), Failure> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| Failure::new(Kind::Other, format!("keys would not be safe here: {error}")))
}
