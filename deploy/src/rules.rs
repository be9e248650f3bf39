//! Recording rules and alerts, and the tests that promtool runs on them.
//!
//! The machine: each alert is a row with its expression, and with two histories: one at whose end it fires and one at
//! whose end it does not. Three files are made of the rows: the rules, and a unit test for promtool of each history.

mod alerts;

use serde_json::json;

pub use alerts::ALERTS;

/// A series that is computed once for many to use.
#[derive(Clone, Copy, Debug)]
pub struct Recording {
    /// Its name: level, metric, operation.
    pub name: &'static str,
    /// How it is computed.
    pub query: &'static str,
}

/// Something that somebody should know.
#[derive(Clone, Copy, Debug)]
pub struct Alert {
    /// Its name; its runbook is called so too.
    pub name: &'static str,
    /// When it is so.
    pub query: &'static str,
    /// For how long it must have been so.
    pub lasting: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// In one sentence.
    pub summary: &'static str,
    /// A history at whose end it fires.
    pub fires: History,
    /// The labels with which it does, beside the severity.
    pub labels: &'static [(&'static str, &'static str)],
    /// A history at whose end it does not.
    pub quiet: History,
}

/// Series, with values one minute apart in the notation of promtool, and the minute at which is looked.
pub type History = (&'static [(&'static str, &'static str)], u32);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Info,
    /// To be looked at in the daytime.
    Warning,
    /// Users suffer, or data is at risk.
    Critical,
}

impl Severity {
    const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// The recording rules.
#[must_use]
pub fn recording_yaml() -> String {
    let mut text = String::from(HEAD);
    text += "groups:\n  - name: afs-recording\n    rules:\n";
    for rule in RECORDINGS {
        text += &format!(
            "      - record: {}\n        expr: {}\n",
            rule.name,
            quoted(rule.query)
        );
    }
    text
}

/// The alerts.
#[must_use]
pub fn alerts_yaml() -> String {
    let mut text = String::from(HEAD);
    text += "groups:\n  - name: afs-alerts\n    rules:\n";
    for alert in ALERTS {
        text += &format!(
            "      - alert: {}\n        expr: {}\n        for: {}\n        labels:\n          severity: {}\n        \
             annotations:\n          summary: {}\n          runbook: {}\n",
            alert.name,
            quoted(alert.query),
            alert.lasting,
            alert.severity.name(),
            quoted(alert.summary),
            quoted(&runbook(alert)),
        );
    }
    text
}

/// The tests of the alerts, for `promtool test rules`.
#[must_use]
pub fn tests_yaml() -> String {
    let mut text = String::from(HEAD);
    text += "rule_files: [recording.yaml, alerts.yaml]\nevaluation_interval: 1m\ntests:\n";
    for alert in ALERTS {
        for ((series, minute), fires) in [(alert.fires, true), (alert.quiet, false)] {
            let word = if fires { "fires" } else { "does not fire" };
            text += &format!(
                "  - name: {}\n    interval: 1m\n    input_series:\n",
                quoted(&format!("{} {word}", alert.name))
            );
            if series.is_empty() {
                // promtool wants one.
                text += "      - series: unrelated\n        values: '1x60'\n";
            }
            for (series, values) in series {
                text += &format!("      - series: {}\n        values: '{values}'\n", quoted(series));
            }
            text += &format!(
                "    alert_rule_test:\n      - eval_time: {minute}m\n        alertname: {}\n        exp_alerts:",
                alert.name
            );
            if !fires {
                text += " []\n";
                continue;
            }
            text += &format!(
                "\n          - exp_labels:\n              severity: {}\n",
                alert.severity.name()
            );
            for (label, value) in alert.labels {
                text += &format!("              {label}: {}\n", quoted(value));
            }
            text += &format!(
                "            exp_annotations:\n              summary: {}\n              runbook: {}\n",
                quoted(alert.summary),
                quoted(&runbook(alert)),
            );
        }
    }
    text
}

/// Where it is written what to do.
#[must_use]
pub fn runbook(alert: &Alert) -> String {
    format!("deploy/monitoring/runbooks/{}.md", alert.name)
}

/// A string of JSON is one of YAML.
fn quoted(text: &str) -> String {
    json!(text).to_string()
}

const HEAD: &str = "# Made by `cargo run -p deploy` from deploy/src/rules.rs.\n";

/// The recording rules.
pub const RECORDINGS: &[Recording] = &[
    Recording {
        name: "afs:rx_acquires:rate5m",
        query: "sum by (instance, cell, service, outcome) (rate(afs_rx_connection_acquires_total[5m]))",
    },
    Recording {
        name: "afs:rx_reuse:ratio5m",
        query: r#"sum by (instance, cell, service) (afs:rx_acquires:rate5m{outcome=~"reused|revived"}) / sum by (instance, cell, service) (afs:rx_acquires:rate5m)"#,
    },
    Recording {
        name: "afs:fuse_errors:ratio5m",
        query: r#"sum by (instance) (rate(afs_fuse_requests_total{result!~"ok|ENOENT|EEXIST|EACCES|EPERM|ENODATA|EOPNOTSUPP|EINTR|ENOTEMPTY|EROFS"}[5m])) / sum by (instance) (rate(afs_fuse_requests_total[5m]))"#,
    },
];
