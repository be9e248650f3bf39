//! Cells: their names, where they are configured, and where their servers are.

mod cells;
mod dns;
mod name;
mod servdb;

pub use cells::{Cell, Cells, CellsConfig, CellsError};
pub(crate) use dns::{realm_of_domain, services_of};
pub use name::{BadCellName, CellName};
pub use servdb::{BadLine, CellEntry, CellServDb, DbServer, LineProblem};
