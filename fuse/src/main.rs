//! The afs program.
fn main() {}
