//! What a cache directory holds in formats of our own: the journal and the records of the index.

/// Damaged records are refused; others say the same when they are written again.
pub(crate) fn run(bytes: &[u8]) {
    afs_client::fs::fuzz_records(bytes);
}
