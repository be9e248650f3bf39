//! The reference of the metrics, made from the program's own table.

use fuse::telemetry::families::{DEFINITIONS, Kind, Stability};

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\nMade by `cargo run -p deploy` from `fuse/src/telemetry/families.rs`. Of a stable family name, labels \
         and meaning stay;\nan experimental one may change. No label ever holds a path, a FID, a user, an address or a \
         number that was made up\nat run time; beyond 16 cells the rest is `other`.\n\n| name | type | labels | | meaning \
         |\n|---|---|---|---|---|\n",
    );
    for row in DEFINITIONS {
        let labels: Vec<_> = row.labels.iter().map(|label| format!("`{label}`")).collect();
        let word = match row.stability {
            Stability::Stable => "stable",
            Stability::Experimental => "experimental",
        };
        page += &format!(
            "| `{}` | {} | {} | {word} | {} |\n",
            row.name,
            row.type_name(),
            labels.join(" "),
            row.help.replace('|', "\\|"),
        );
    }
    page += "\nUpper bounds of the histograms, in seconds where the name says so:\n\n";
    for row in DEFINITIONS {
        if let Kind::Histogram(bounds) = row.kind {
            let bounds: Vec<_> = bounds.iter().map(f64::to_string).collect();
            page += &format!("* `{}`: {}\n", row.name, bounds.join(", "));
        }
    }
    page
}
