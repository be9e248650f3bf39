//! The afs program: see `afs help`.

fn main() {}
