//! Names and numbers of users and groups, from the real protection server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use afs_client::cell::{CellName, Cells, CellsConfig};
use afs_client::names::Names;
use anyhow::{Result, ensure};
use rxrpc::events::NullSink;
use rxrpc::net::{Endpoint, EndpointConfig};
use rxrpc::security::Security;
use testcell::{Shared, shared};

async fn names_and_numbers(cell: &Shared) -> Result<()> {
    let name = CellName::new(cell.cell_name())?;
    let cells = Cells::load(&CellsConfig {
        home: Some(name.clone()),
        cellservdb: Some(cell.conf_dir().join("CellServDB")),
    })?;
    let endpoint = Endpoint::bind(EndpointConfig::default(), Arc::new(NullSink)).await?;
    let names = Names::new(endpoint.clone());
    let deadline = || Instant::now() + Duration::from_secs(20);
    let lab = cells.resolve(&name).await?;

    let asked = [
        "alice",
        "System:AnyUser",
        "nobody-such",
        "BOB",
        "alice",
        "anonymous",
    ];
    let ids = names.ids_of(&lab, &asked, &Security::None, deadline()).await?;
    let [alice, anyuser, nobody, bob, again, anonymous] = ids[..] else {
        anyhow::bail!("{ids:?}");
    };
    ensure!(
        anyuser == Some(-101) && nobody.is_none() && anonymous == Some(32_766),
        "{ids:?}"
    );
    ensure!(
        alice == again && alice.is_some() && bob.is_some() && alice != bob,
        "{ids:?}"
    );
    let (alice, bob) = (alice.unwrap_or(0), bob.unwrap_or(0));
    let asked = [bob, -204, 987_654, alice];
    let found = names.names_of(&lab, &asked, &Security::None, deadline()).await?;
    let found: Vec<_> = found.iter().map(Option::as_deref).collect();
    ensure!(
        found == [Some("bob"), Some("system:administrators"), None, Some("alice")],
        "{found:?}"
    );
    let long = "n".repeat(64);
    let unfit = names.ids_of(&lab, &[&long], &Security::None, deadline()).await?;
    ensure!(unfit == [None]);

    // What is known needs no server; what is not, does.
    endpoint.shutdown().await;
    let kept = names.names_of(&lab, &asked, &Security::None, deadline()).await?;
    ensure!(kept.iter().map(Option::as_deref).eq(found));
    ensure!(
        names
            .names_of(&lab, &[alice + 1000], &Security::None, deadline())
            .await
            .is_err()
    );
    Ok(())
}

#[test]
fn names_and_numbers_are_translated_and_kept() {
    let cell = shared();
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build()?.block_on(names_and_numbers(&cell))
    };
    cell.in_client(1, runtime).unwrap();
}
