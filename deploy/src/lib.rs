//! What is deployed beside the program, generated from tables.
//!
//! The machine: dashboards and rules are tables of panels and alerts, whose queries may use no metric and no label that
//! the program does not have ([`query`]). [`files`] makes of them every file that is committed below `deploy/monitoring`
//! and the reference of the metrics; `cargo run -p deploy` writes them, and a test compares.

pub mod dashboards;
pub mod grafana;
pub mod plot;
pub mod query;
pub mod reference;
pub mod rules;

use std::path::PathBuf;

/// A generated file, with its path below the root of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// Where it is committed.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// All that is generated.
#[must_use]
pub fn files() -> Vec<Generated> {
    let file = |path: String, text: String| Generated {
        path: path.into(),
        text,
    };
    let mut files: Vec<_> = dashboards::all()
        .iter()
        .map(|dashboard| {
            let name = dashboard.uid.trim_start_matches("afs-");
            file(
                format!("deploy/monitoring/dashboards/{name}.json"),
                dashboard.json(),
            )
        })
        .collect();
    files.extend([
        file(
            "deploy/monitoring/rules/recording.yaml".to_owned(),
            rules::recording_yaml(),
        ),
        file(
            "deploy/monitoring/rules/alerts.yaml".to_owned(),
            rules::alerts_yaml(),
        ),
        file(
            "deploy/monitoring/rules/tests.yaml".to_owned(),
            rules::tests_yaml(),
        ),
        file("docs/reference/metrics.md".to_owned(), reference::markdown()),
    ]);
    files
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
