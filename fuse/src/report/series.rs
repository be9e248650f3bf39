//! The metrics at one moment, as numbers: what `afs top` computes rates of.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Reports;

/// All series at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Where it is mounted.
    pub at: std::path::PathBuf,
    /// For how long it had been served.
    pub uptime_seconds: f64,
    /// The series: of a histogram its `_sum` and its `_count`.
    pub series: Vec<Series>,
}

/// One series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// The metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Reports {
    /// The metrics now.
    pub fn sample(&self) -> Sample {
        Sample {
            at: self.served.at.clone(),
            uptime_seconds: self.served.started.0.elapsed().as_secs_f64(),
            series: self.metrics.series(),
        }
    }
}

impl Sample {
    /// The sum of the series of a metric that have all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |series: &&Series| {
            let mut labels = labels.iter();
            series.name == name && labels.all(|(label, value)| series.label(label) == *value)
        };
        // The sum of nothing is -0.
        self.series
            .iter()
            .filter(has)
            .fold(0.0, |sum, series| sum + series.value)
    }

    /// The values that a label of a metric takes.
    pub fn values<'a>(&'a self, name: &str, label: &str) -> Vec<&'a str> {
        let of = self.series.iter().filter(|series| series.name == name);
        let mut values: Vec<_> = of.map(|series| series.label(label)).collect();
        values.sort_unstable();
        values.dedup();
        values
    }
}

impl Series {
    fn label(&self, label: &str) -> &str {
        self.labels.get(label).map_or("", String::as_str)
    }
}
