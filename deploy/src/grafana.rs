//! Dashboards, as far as Grafana needs to be told.
//!
//! The machine: a dashboard is a list of rows of panels; places are counted from left to right, so that a table only says
//! what is shown. The form is that of schema 39 (Grafana 11), which later versions read.

use serde_json::{Value, json};

use crate::query::for_grafana;

/// A dashboard.
#[derive(Clone, Copy, Debug)]
pub struct Dashboard {
    /// Its fixed name in addresses.
    pub uid: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What it answers.
    pub description: &'static str,
    /// What it shows.
    pub rows: &'static [Row],
}

/// Panels under a heading.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The heading.
    pub title: &'static str,
    /// The panels, left to right, then down.
    pub panels: &'static [Panel],
}

/// One panel.
#[derive(Clone, Copy, Debug)]
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// What it means, and what is good.
    pub description: &'static str,
    /// How it looks.
    pub look: Look,
    /// The unit, in Grafana's words.
    pub unit: Unit,
    /// What it asks for.
    pub queries: &'static [Query],
}

/// How a panel looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// One number.
    Number,
    /// Lines over time.
    Lines,
    /// Areas over time, one on top of the other.
    Stacked,
    /// A distribution over time: the query gives buckets.
    Heatmap,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Things each second.
    Rate,
    /// A share of 1.
    Share,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Bytes each second.
    ByteRate,
    /// Processors.
    Cores,
}

/// A question to Prometheus ([`crate::query`]), and how its answers are called.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The question.
    pub query: &'static str,
    /// The name of each series, with labels in double braces.
    pub legend: &'static str,
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Count => "short",
            Self::Rate => "ops",
            Self::Share => "percentunit",
            Self::Seconds => "s",
            Self::Bytes => "bytes",
            Self::ByteRate => "Bps",
            Self::Cores => "none",
        }
    }
}

impl Dashboard {
    /// The file that Grafana imports.
    #[must_use]
    pub fn json(&self) -> String {
        let mut panels = Vec::new();
        let mut place = Place::default();
        for row in self.rows {
            place.next_row();
            panels.push(json!({
                "id": panels.len() + 1, "type": "row", "title": row.title, "collapsed": false, "panels": [],
                "gridPos": {"x": 0, "y": place.y, "w": WIDTH, "h": 1},
            }));
            place.y += 1;
            for panel in row.panels {
                let at = place.take(panel.look);
                panels.push(panel.json(panels.len() + 1, &at));
            }
        }
        let dashboard = json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["afs"],
            "schemaVersion": 39,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": choices()},
            "links": [{"type": "dashboards", "tags": ["afs"], "title": "AFS", "asDropdown": true, "keepTime": true,
                       "includeVars": true}],
            "panels": panels,
        });
        let mut text = serde_json::to_string_pretty(&dashboard).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl Panel {
    fn json(&self, id: usize, at: &Value) -> Value {
        let heat = self.look == Look::Heatmap;
        let targets: Vec<_> = (b'A'..=b'Z')
            .zip(self.queries)
            .map(|(letter, query)| {
                json!({
                    "refId": char::from(letter).to_string(),
                    "datasource": source(),
                    "expr": for_grafana(query.query),
                    "legendFormat": query.legend,
                    "format": if heat { "heatmap" } else { "time_series" },
                    "instant": self.look == Look::Number,
                    "range": self.look != Look::Number,
                })
            })
            .collect();
        let (kind, options, custom) = match self.look {
            Look::Number => (
                "stat",
                json!({"colorMode": "value", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}),
                json!({}),
            ),
            Look::Lines => (
                "timeseries",
                lines_options(),
                json!({"lineWidth": 1, "fillOpacity": 0}),
            ),
            Look::Stacked => (
                "timeseries",
                lines_options(),
                json!({"lineWidth": 1, "fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}),
            ),
            Look::Heatmap => (
                "heatmap",
                json!({"calculate": false, "yAxis": {"unit": self.unit.name()}, "cellGap": 1}),
                json!({}),
            ),
        };
        let (least, most) = match self.unit {
            Unit::Share => (json!(0), json!(1)),
            _ => (Value::Null, Value::Null),
        };
        let defaults = json!({"unit": self.unit.name(), "custom": custom, "min": least, "max": most});
        json!({
            "id": id,
            "type": kind,
            "title": self.title,
            "description": self.description,
            "datasource": source(),
            "gridPos": at,
            "targets": targets,
            "options": options,
            "fieldConfig": {"defaults": defaults, "overrides": []},
        })
    }
}

fn lines_options() -> Value {
    json!({"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}})
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

/// What the viewer chooses.
fn choices() -> Value {
    let choice = |name: &str, query: &str| {
        json!({
            "name": name, "type": "query", "datasource": source(), "query": query, "definition": query,
            "includeAll": true, "multi": true, "allValue": ".*", "refresh": 2, "sort": 1,
            "current": {"text": ["All"], "value": ["$__all"]},
        })
    };
    json!([
        {"name": "datasource", "type": "datasource", "query": "prometheus", "refresh": 1},
        choice("job", "label_values(afs_build_info, job)"),
        choice("instance", r#"label_values(afs_build_info{job=~"$job"}, instance)"#),
        choice("cell", r#"label_values(afs_rx_connection_acquires_total{job=~"$job",instance=~"$instance"}, cell)"#),
    ])
}

/// Where the next panel goes.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    x: u32,
    y: u32,
    /// Height of the line of panels.
    height: u32,
}

impl Place {
    fn next_row(&mut self) {
        self.y += self.height;
        (self.x, self.height) = (0, 0);
    }

    fn take(&mut self, look: Look) -> Value {
        let (width, height) = match look {
            Look::Number => (WIDTH / 6, 4),
            Look::Lines | Look::Stacked | Look::Heatmap => (WIDTH / 3, 8),
        };
        if self.x + width > WIDTH {
            self.next_row();
        }
        let at = json!({"x": self.x, "y": self.y, "w": width, "h": height});
        self.x += width;
        self.height = self.height.max(height);
        at
    }
}

/// The columns of Grafana's grid.
const WIDTH: u32 = 24;
