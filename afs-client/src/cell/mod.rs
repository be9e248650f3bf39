//! Cells.
mod name;
mod servdb;
pub use name::{BadCellName, CellName};
pub use servdb::{BadLine, CellEntry, CellServDb, DbServer, LineProblem};
