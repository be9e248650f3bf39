//! The dashboards: what is shown, and nothing about how it is drawn.

mod cache;
mod connections;
mod node;
mod overview;

use crate::grafana::{Dashboard, Look, Panel, Query, Unit};

/// All of them.
#[must_use]
pub const fn all() -> [Dashboard; 4] {
    [
        overview::DASHBOARD,
        connections::DASHBOARD,
        cache::DASHBOARD,
        node::DASHBOARD,
    ]
}

/// Stands on more than one of them.
const WAITING: Panel = Panel {
    title: "Wait for the network",
    description: "Requests that the caches could not answer, now.",
    look: Look::Lines,
    unit: Unit::Count,
    queries: &[Query {
        query: r"sum by (instance) (afs_fuse_in_flight{@})",
        legend: "{{instance}}",
    }],
};
