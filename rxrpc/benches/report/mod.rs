//! What the benches share: medians of rounds, processor time, and the table of what was wanted and what came out.
#![allow(dead_code, reason = "not every bench uses all of it")]

use std::process::ExitCode;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// The rows of a bench.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<[String; 4]>,
    missed: bool,
}

impl Table {
    /// A figure that must not be below `wanted`.
    pub(crate) fn at_least(&mut self, what: &str, figure: f64, wanted: f64) {
        self.row(what, figure, &format!(">= {wanted}"), figure >= wanted);
    }

    /// A figure that must not be above `wanted`.
    pub(crate) fn at_most(&mut self, what: &str, figure: f64, wanted: f64) {
        self.row(what, figure, &format!("<= {wanted}"), figure <= wanted);
    }

    /// A figure that nothing is wanted of, for the reason given.
    pub(crate) fn for_the_record(&mut self, what: &str, figure: f64, why: &str) {
        self.rows.push([
            what.to_owned(),
            format!("{figure:.2}"),
            String::new(),
            why.to_owned(),
        ]);
    }

    /// Prints the table; a failure if something was missed.
    pub(crate) fn conclude(self) -> ExitCode {
        let width = self.rows.iter().map(|row| row[0].len()).max().unwrap_or(0);
        println!();
        for [what, figure, wanted, verdict] in &self.rows {
            println!("{what:<width$}  {figure:>9}  {wanted:>9}  {verdict}");
        }
        ExitCode::from(u8::from(self.missed))
    }

    fn row(&mut self, what: &str, figure: f64, wanted: &str, met: bool) {
        let verdict = if met { "met" } else { "MISSED" };
        self.missed |= !met;
        self.rows.push([
            what.to_owned(),
            format!("{figure:.2}"),
            wanted.to_owned(),
            verdict.to_owned(),
        ]);
    }
}

/// The middle one; 0 if there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Processor time of this process, user and system.
pub(crate) fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("of oneself it is always told");
    [usage.user_time(), usage.system_time()]
        .map(|time| {
            let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
            Duration::from_micros(micros.unsigned_abs())
        })
        .iter()
        .sum()
}
