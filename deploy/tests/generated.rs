//! What is committed is what the tables say, and the tables name nothing that the program does not have.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use deploy::rules::{ALERTS, RECORDINGS};
use deploy::{dashboards, files, query, root};
use fuse::telemetry::families::DEFINITIONS;

#[test]
fn committed_files_are_up_to_date() {
    for file in files() {
        let committed = fs::read_to_string(root().join(&file.path)).unwrap_or_default();
        assert!(
            committed == file.text,
            "{} is not what the tables say: cargo run -p deploy",
            file.path.display()
        );
    }
}

#[test]
fn no_query_names_what_is_not_there() {
    let recorded: Vec<_> = RECORDINGS.iter().map(|rule| rule.name).collect();
    let of_dashboards = dashboards::all().into_iter().flat_map(|dashboard| {
        let panels = dashboard.rows.iter().flat_map(|row| row.panels);
        panels.flat_map(|panel| panel.queries.iter().map(|query| query.query))
    });
    let of_rules = RECORDINGS.iter().map(|rule| rule.query);
    let of_alerts = ALERTS.iter().map(|alert| alert.query);
    for asked in of_dashboards.chain(of_rules).chain(of_alerts) {
        let unknown = query::unknown(asked, &recorded);
        assert!(unknown.is_empty(), "{asked}: there is no {unknown:?}");
    }
}

/// A figure that nobody looks at helps nobody.
#[test]
fn every_metric_is_on_a_dashboard() {
    let panels: Vec<_> = dashboards::all()
        .into_iter()
        .flat_map(|dashboard| dashboard.rows.iter().flat_map(|row| row.panels))
        .collect();
    let asked: Vec<_> = panels
        .iter()
        .flat_map(|panel| panel.queries)
        .map(|query| query.query)
        .collect();
    let unseen: Vec<_> = DEFINITIONS
        .iter()
        .map(|row| row.name)
        .filter(|name| !asked.iter().any(|query| query.contains(name)))
        .collect();
    assert_eq!(
        unseen, ON_NO_DASHBOARD,
        "of these, and of no others, alerts and people at a page have use"
    );
}

#[test]
fn every_panel_says_what_it_means() {
    for dashboard in dashboards::all() {
        let panels: Vec<_> = dashboard.rows.iter().flat_map(|row| row.panels).collect();
        let titles: BTreeSet<_> = panels.iter().map(|panel| panel.title).collect();
        assert_eq!(titles.len(), panels.len(), "{}: titles", dashboard.uid);
        for panel in panels {
            let said = !panel.description.is_empty() && !panel.queries.is_empty();
            assert!(said, "{}: {}", dashboard.uid, panel.title);
        }
    }
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let folder = root().join("deploy/monitoring/runbooks");
    let books: BTreeSet<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let wanted: BTreeSet<_> = ALERTS.iter().map(|alert| format!("{}.md", alert.name)).collect();
    assert_eq!(books, wanted);
    for alert in ALERTS {
        let text = fs::read_to_string(root().join(deploy::rules::runbook(alert))).unwrap();
        for part in ["## What it means", "## What to look at", "## What to do"] {
            assert!(text.contains(part), "{}: {part}", alert.name);
        }
    }
}

/// Prometheus reads the rules, and each alert fires when it should and only then.
#[test]
fn rules_pass_their_tests() {
    let rules = root().join("deploy/monitoring/rules");
    for arguments in [
        ["check", "rules", "recording.yaml", "alerts.yaml"].as_slice(),
        ["test", "rules", "tests.yaml"].as_slice(),
    ] {
        let said = Command::new("promtool")
            .args(arguments)
            .current_dir(&rules)
            .output()
            .expect("promtool, of Debian's package prometheus");
        assert!(
            said.status.success(),
            "{}{}",
            String::from_utf8_lossy(&said.stdout),
            String::from_utf8_lossy(&said.stderr)
        );
    }
}

/// What alerts alone ask for.
const ON_NO_DASHBOARD: &[&str] = &[
    "afs_fuse_attaches_total",
    "afs_token_expiry_timestamp_seconds",
    "afs_token_renewals_total",
    "afs_telemetry_dropped_total",
];
