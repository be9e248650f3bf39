//! The real servers, procedure by procedure.

use testcell::shared;

use crate::transcript;

/// The embedded servers are held against the same text (`tests/embedded/procedures.rs`): a difference between the two fails
/// here or there. `TRANSCRIPT=FILE` writes down what is said.
#[test]
fn the_servers_say_what_is_expected_of_the_embedded_ones() {
    let cell = shared();
    let (here, location) = (cell.client_address(3).unwrap(), cell.database_address().unwrap());
    let server = cell.server_address(1).unwrap();
    let said = cell
        .in_client(3, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            Ok(runtime.block_on(transcript::of(here, location, server)))
        })
        .unwrap();
    if let Ok(file) = std::env::var("TRANSCRIPT") {
        std::fs::write(file, &said).unwrap();
    }
    let differences = transcript::differences(transcript::EXPECTED, &said);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
