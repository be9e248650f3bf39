//! What is committed is what the tables say, and the tables name nothing that the program does not have.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use deploy::manifest::{self, Manifest};
use deploy::rules::{ALERTS, RECORDINGS};
use deploy::{dashboards, files, query, root};
use fuse::telemetry::families::DEFINITIONS;
use serde_json::{Value, json};

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
    promtool(&rules, &["check", "rules", "recording.yaml", "alerts.yaml"]);
    promtool(&rules, &["test", "rules", "tests.yaml"]);
}

#[test]
fn prometheus_takes_its_configuration() {
    let monitoring = root().join("deploy/monitoring");
    promtool(&monitoring, &["check", "config", "prometheus.yml"]);
}

/// Pods of the examples, as Kubernetes tells of them, become targets with the labels that rules and dashboards ask for.
#[test]
fn prometheus_finds_pods() {
    let monitoring = root().join("deploy/monitoring").canonicalize().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = fs::read_to_string(monitoring.join("prometheus-pods.yml")).unwrap();
    let mut config: Value = serde_yaml_ng::from_str(&config).unwrap();
    let scrape = &mut config["scrape_configs"][0];
    let asked = json!([{"role": "pod", "selectors": [{"role": "pod", "label": "afs-fuse=true"}]}]);
    assert_eq!(scrape["kubernetes_sd_configs"], asked);
    // Debian's Prometheus is built without Kubernetes. What it would be told there, a file tells it here.
    scrape.as_object_mut().unwrap().remove("kubernetes_sd_configs");
    scrape["file_sd_configs"] = json!([{"files": ["found.json"]}]);
    for rules in config["rule_files"].as_array_mut().unwrap() {
        *rules = json!(monitoring.join(rules.as_str().unwrap()));
    }
    fs::write(folder.path().join("prometheus.yml"), config.to_string()).unwrap();
    let mut found = discovered("job", "Succeeded");
    found.extend(discovered("software", "Running"));
    fs::write(folder.path().join("found.json"), json!(found).to_string()).unwrap();

    promtool(folder.path(), &["check", "config", "prometheus.yml"]);
    let arguments = [
        "check",
        "service-discovery",
        "--timeout=1s",
        "prometheus.yml",
        "afs",
    ];
    let told: Value = serde_json::from_str(&promtool(folder.path(), &arguments)).unwrap();
    let labels = told.as_array().unwrap().iter().map(|target| &target["labels"]);
    let targets: Vec<_> = labels
        .filter(|labels| !labels["__address__"].is_null())
        .map(|labels| ["__address__", "job", "instance", "node"].map(|label| labels[label].clone()))
        .collect();
    assert_eq!(targets, [["10.0.0.1:9465", "afs", "demo/software", "one"]]);
}

/// What Prometheus is told of a pod of an example in namespace demo: a target for each port, of sidecars too.
fn discovered(example: &str, phase: &str) -> Vec<Value> {
    let file = root().join(format!("deploy/kubernetes/rendered/{example}.yaml"));
    let manifests = manifest::read(&file).unwrap();
    let pod = manifests.iter().find_map(Manifest::pod).unwrap();
    assert_eq!(pod["metadata"]["labels"]["afs-fuse"], "true", "{example}");
    let ports = manifest::containers(pod)
        .into_iter()
        .flat_map(|container| container["ports"].as_array().cloned().unwrap_or_default());
    ports
        .map(|port| {
            json!({
                "targets": [format!("10.0.0.1:{}", port["containerPort"])],
                "labels": {
                    "__meta_kubernetes_namespace": "demo",
                    "__meta_kubernetes_pod_name": example,
                    "__meta_kubernetes_pod_phase": phase,
                    "__meta_kubernetes_pod_node_name": "one",
                    "__meta_kubernetes_pod_container_port_name": port["name"],
                },
            })
        })
        .collect()
}

fn promtool(folder: &Path, arguments: &[&str]) -> String {
    let said = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("promtool, of Debian's package prometheus");
    let out = String::from_utf8_lossy(&said.stdout).into_owned();
    let error = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{arguments:?}: {out}{error}");
    out
}

/// What alerts alone ask for.
const ON_NO_DASHBOARD: &[&str] = &[
    "afs_fuse_attaches_total",
    "afs_token_expiry_timestamp_seconds",
    "afs_token_renewals_total",
    "afs_telemetry_dropped_total",
];
