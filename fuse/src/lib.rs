//! The parts of the afs program.
