//! Test cell.
