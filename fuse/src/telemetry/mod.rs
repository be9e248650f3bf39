//! Telemetry: the only place that names prometheus and opentelemetry.
//!
//! The machine: the layers below emit plain events into [`metrics::Metrics`], which is a sink of each of them; the
//! adapter and the notifier count through the same object. [`http`] shows it and the pages of debugging, [`trace`] sets up logs and spans.

mod export;
pub mod families;
pub mod http;
pub mod keeper;
pub(crate) mod labels;
pub mod metrics;
pub mod op;
pub mod page;
pub mod process;
mod service;
pub mod trace;
mod wire;
