//! Queries: what stands for the choices of a dashboard, and which metrics a query may name.
//!
//! The machine: tables write `{@}` for the instances that the viewer has chosen and `{@cell}` for those and the cells, with
//! more matchers before the closing brace if need be. A query is checked word by word against the program's own table of
//! metrics; that it is PromQL at all is for Prometheus to say, which the tests run.

use std::collections::BTreeSet;

use fuse::telemetry::families::{DEFINITIONS, Definition, Kind};

/// Matchers for the instances that the viewer has chosen.
const INSTANCE: &str = r#"job=~"$job",instance=~"$instance""#;
const CELL: &str = r#"job=~"$job",instance=~"$instance",cell=~"$cell""#;

/// A query as Grafana takes it.
#[must_use]
pub fn for_grafana(query: &str) -> String {
    query.replace("@cell", CELL).replace('@', INSTANCE)
}

/// A query as Prometheus takes it, for everything there is.
#[must_use]
pub fn for_prometheus(query: &str, interval: &str) -> String {
    for_grafana(query)
        .replace("$__rate_interval", interval)
        .replace("$__range", interval)
        .replace("$job", ".*")
        .replace("$instance", ".*")
        .replace("$cell", ".*")
}

/// What a query names that the program and the recording rules do not have: metrics, and labels of those it names.
#[must_use]
pub fn unknown(query: &str, recorded: &[&str]) -> Vec<String> {
    let mut labels: BTreeSet<&str> = OF_PROMETHEUS.iter().copied().collect();
    let mut unknown = Vec::new();
    let plain = without_strings(query);
    for word in words(&plain).filter(|word| is_metric(word)) {
        match definition(word) {
            Some(row) => labels.extend(row.labels),
            None if recorded.contains(&word) => {
                labels.extend(["cell", "service", "outcome", "instance"]);
            }
            None => unknown.push(word.to_owned()),
        }
    }
    let named = groups(&plain).chain(matchers(&plain));
    unknown.extend(named.filter(|label| !labels.contains(label)).map(str::to_owned));
    unknown
}

/// The row of the program's table that a series comes from.
fn definition(series: &str) -> Option<&'static Definition> {
    let named = |name: &str| DEFINITIONS.iter().find(|row| row.name == name);
    let part = || {
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| series.strip_suffix(suffix))?;
        named(family).filter(|row| matches!(row.kind, Kind::Histogram(_)))
    };
    named(series)
        .filter(|row| !matches!(row.kind, Kind::Histogram(_)))
        .or_else(part)
}

fn is_metric(word: &str) -> bool {
    ["afs_", "afs:", "process_"]
        .iter()
        .any(|prefix| word.starts_with(prefix))
}

fn words(query: &str) -> impl Iterator<Item = &str> {
    query
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'))
        .filter(|word| !word.is_empty())
}

/// The labels after `by` and `on`.
fn groups(query: &str) -> impl Iterator<Item = &str> {
    [" by (", " on ("].into_iter().flat_map(move |word| {
        query
            .split(word)
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .flat_map(|list| list.split(','))
            .map(str::trim)
            .filter(|label| !label.is_empty() && *label != "le")
    })
}

/// The labels that braces match.
fn matchers(query: &str) -> impl Iterator<Item = &str> {
    query
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split('}').next())
        .flat_map(|list| list.split(','))
        .filter(|matcher| !matcher.starts_with('@'))
        .map(|matcher| matcher.split(['=', '!']).next().unwrap_or_default().trim())
        .filter(|label| !label.is_empty())
}

/// The query with what is quoted left out: it may hold anything.
fn without_strings(query: &str) -> String {
    query.split('"').step_by(2).collect()
}

/// What Prometheus adds to each series.
const OF_PROMETHEUS: &[&str] = &["job", "instance"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_does_not_have_is_found() {
        let good =
            r#"sum by (cell, outcome) (rate(afs_rx_connection_acquires_total{@cell,outcome=~"a{b}|c"}[5m]))"#;
        assert_eq!(unknown(good, &[]), Vec::<String>::new());
        let quantile = "histogram_quantile(0.9, sum by (le, op) (rate(afs_fuse_request_duration_seconds_bucket{@}[1m])))";
        assert_eq!(unknown(quantile, &[]), Vec::<String>::new());
        for (query, missing) in [
            ("afs_rx_connection_acquires", "afs_rx_connection_acquires"),
            (
                "afs_rx_connection_acquires_total_sum",
                "afs_rx_connection_acquires_total_sum",
            ),
            (
                "afs_fuse_request_duration_seconds",
                "afs_fuse_request_duration_seconds",
            ),
            ("sum by (pod) (afs_fuse_in_flight)", "pod"),
            (r#"afs_fuse_in_flight{op="read"}"#, "op"),
            ("afs:nothing:rate5m", "afs:nothing:rate5m"),
        ] {
            assert_eq!(unknown(query, &[]), [missing], "{query}");
        }
        assert_eq!(
            unknown("afs:nothing:rate5m", &["afs:nothing:rate5m"]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn choices_are_filled_in() {
        let query = "sum(rate(afs_fuse_requests_total{@}[$__rate_interval]))";
        assert_eq!(
            for_prometheus(query, "20s"),
            r#"sum(rate(afs_fuse_requests_total{job=~".*",instance=~".*"}[20s]))"#
        );
        assert!(for_grafana("x{@cell}").contains(r#"cell=~"$cell""#));
    }
}
