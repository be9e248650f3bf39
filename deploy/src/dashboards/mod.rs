//! The dashboards: what is shown, and nothing about how it is drawn.

mod cache;
mod connections;
mod node;
mod overview;

use crate::grafana::Dashboard;

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
