//! What calls and connections are counted with by their service alone, looked up once.

use std::sync::OnceLock;

use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{Histogram, HistogramVec, IntGauge, IntGaugeVec};
use rxrpc::proto::{ServiceId, Side};

use super::families::Families;
use super::labels::{SERVICES, service_slot};

/// The families whose one label is the service.
pub(super) struct Services {
    pub(super) in_flight: ByService<IntGauge, IntGaugeVec>,
    pub(super) waiting: ByService<IntGauge, IntGaugeVec>,
    pub(super) channel_wait: ByService<Histogram, HistogramVec>,
    pub(super) lifetime: ByService<Histogram, HistogramVec>,
    pub(super) calls_carried: ByService<Histogram, HistogramVec>,
    pub(super) window: ByService<Histogram, HistogramVec>,
    pub(super) rtt: ByService<Histogram, HistogramVec>,
}

impl Services {
    pub(super) fn new(families: &Families) -> Self {
        Self {
            in_flight: ByService::new(&families.rpc_in_flight),
            waiting: ByService::new(&families.calls_waiting),
            channel_wait: ByService::new(&families.channel_wait),
            lifetime: ByService::new(&families.lifetime),
            calls_carried: ByService::new(&families.calls_carried),
            window: ByService::new(&families.window),
            rtt: ByService::new(&families.rtt),
        }
    }
}

/// A family, and what of it belongs to each service that something was counted for.
pub(super) struct ByService<M, V> {
    family: V,
    found: [OnceLock<M>; SERVICES],
}

impl<B: MetricVecBuilder> ByService<B::M, MetricVec<B>> {
    fn new(family: &MetricVec<B>) -> Self {
        Self {
            family: family.clone(),
            found: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    /// Counts for a service.
    pub(super) fn count(&self, side: Side, service: ServiceId, how: impl FnOnce(&B::M)) {
        let (slot, name) = service_slot(side, service);
        if let Some(found) = self.found.get(slot) {
            how(found.get_or_init(|| self.family.with_label_values(&[name])));
        }
    }
}
