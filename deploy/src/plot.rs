//! A dashboard's data as a picture: what Prometheus answered, drawn without a browser.
//!
//! The machine: each panel is a chart of its own with its series, from 0 to the largest value; charts stand in a grid. What
//! was 0 all the time is left out. The numbers come from a live run (`deploy/tests/live.rs`), never from here.

#![expect(clippy::cast_precision_loss, reason = "places of a few charts")]

use std::fmt::Write as _;

/// A panel with what its questions were answered.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its title.
    pub title: String,
    /// Its unit, as it stands behind the largest value.
    pub unit: &'static str,
    /// Its series.
    pub series: Vec<Series>,
}

/// One series.
#[derive(Clone, Debug)]
pub struct Series {
    /// What it is called.
    pub name: String,
    /// Seconds from the start, and values.
    pub points: Vec<(f64, f64)>,
}

/// The picture.
#[must_use]
pub fn svg(title: &str, charts: &[Chart]) -> String {
    let charts: Vec<_> = charts.iter().map(Chart::without_zeros).collect();
    let charts: Vec<_> = charts.iter().filter(|chart| !chart.series.is_empty()).collect();
    let rows = charts.len().div_ceil(COLUMNS);
    let (width, height) = (COLUMNS as f64 * CELL_WIDTH, HEAD + rows as f64 * CELL_HEIGHT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n<text x=\"14\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    for (place, chart) in charts.into_iter().enumerate() {
        let x = (place % COLUMNS) as f64 * CELL_WIDTH + 14.0;
        let y = HEAD + (place / COLUMNS) as f64 * CELL_HEIGHT;
        chart.draw(&mut out, x, y);
    }
    out + "</svg>\n"
}

impl Chart {
    fn without_zeros(&self) -> Self {
        let series = self.series.iter();
        let moved = series.filter(|series| series.points.iter().any(|(_, value)| *value != 0.0));
        Self {
            series: moved.cloned().collect(),
            ..self.clone()
        }
    }

    fn draw(&self, out: &mut String, x: f64, y: f64) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let most = points().map(|(_, value)| *value).fold(0.0, f64::max);
        let end = points().map(|(at, _)| *at).fold(1.0, f64::max);
        let scale = if most > 0.0 { most } else { 1.0 };
        let (wide, high) = (CELL_WIDTH - 28.0, 96.0);
        let (left, top) = (x, y + 20.0);
        let _ = writeln!(
            out,
            "<text x=\"{x:.0}\" y=\"{:.0}\" font-weight=\"bold\">{}</text>\n\
             <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\" fill=\"#666666\">{}</text>\n\
             <path d=\"M{left:.1} {top:.1}v{high:.1}h{wide:.1}\" fill=\"none\" stroke=\"#999999\"/>",
            y + 12.0,
            escaped(&self.title),
            left + wide,
            y + 12.0,
            escaped(&format!("{} {}", figure(most), self.unit)),
        );
        for (number, (series, color)) in self.series.iter().zip(COLORS).enumerate() {
            let place = |(at, value): &(f64, f64)| {
                let (across, up) = (at / end * wide, value / scale * high);
                format!("{:.1},{:.1}", left + across, top + high - up)
            };
            let line: Vec<_> = series.points.iter().map(place).collect();
            let _ = writeln!(
                out,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"1.5\"/>\n\
                 <text x=\"{:.0}\" y=\"{:.0}\" fill=\"{color}\">{}</text>",
                line.join(" "),
                left + (number % LEGENDS) as f64 * wide / LEGENDS as f64,
                top + high + 14.0 + (number / LEGENDS) as f64 * 13.0,
                escaped(&series.name),
            );
        }
    }
}

fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.4}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

const COLUMNS: usize = 3;
/// Names of series beside each other.
const LEGENDS: usize = 3;
const CELL_WIDTH: f64 = 330.0;
const CELL_HEIGHT: f64 = 172.0;
const HEAD: f64 = 38.0;
const COLORS: [&str; 9] = [
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#17becf",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_drawn_to_scale() {
        let chart = Chart {
            title: "a < b".to_owned(),
            unit: "/s",
            series: vec![Series {
                name: "x".to_owned(),
                points: vec![(0.0, 0.0), (10.0, 50.0), (20.0, 200.0)],
            }],
        };
        let mut empty = chart.clone();
        empty.title = "nothing".to_owned();
        empty.series[0].points = vec![(0.0, 0.0)];
        let picture = svg("all", &[empty, chart]);
        assert!(!picture.contains("nothing"), "{picture}");
        assert!(
            picture.contains("a &lt; b") && picture.contains("200 /s"),
            "{picture}"
        );
        assert!(
            picture.contains("points=\"14.0,154.0 165.0,130.0 316.0,58.0\""),
            "{picture}"
        );
    }
}
