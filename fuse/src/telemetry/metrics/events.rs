//! The events of the transport, counted.

use prometheus::IntGauge;
use rxrpc::events::{CallResult, Event};
use rxrpc::proto::Side;

use super::{Metrics, count};
use crate::telemetry::labels::{
    acquire_name, close_name, code_name, network_error, security_name, service_name, side_name,
};
use crate::telemetry::service::Services;

impl rxrpc::events::Sink for Metrics {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Packet {
                sent,
                packet_type,
                packets,
                bytes,
            } => {
                self.wire.count(*sent, *packet_type, *packets, *bytes);
            }
            Event::Acquired {
                side,
                scope,
                service,
                security,
                outcome,
            } => self.with_cell(scope, |cell| {
                if *side == Side::Client {
                    self.services.in_flight.count(*side, *service, IntGauge::inc);
                }
                let service = service_name(*side, *service);
                self.families
                    .acquires
                    .with_label_values(&[cell, service, security_name(*security), acquire_name(*outcome)])
                    .inc();
            }),
            Event::Closed {
                side,
                scope,
                service,
                reason,
                age,
                calls,
            } => self.with_cell(scope, |cell| {
                let name = service_name(*side, *service);
                self.families
                    .closed
                    .with_label_values(&[cell, name, close_name(*reason)])
                    .inc();
                let Services {
                    lifetime,
                    calls_carried,
                    ..
                } = &self.services;
                lifetime.count(*side, *service, |all| all.observe(age.as_secs_f64()));
                calls_carried.count(*side, *service, |all| all.observe(count(*calls)));
            }),
            Event::ReapLost { side } => {
                self.families
                    .reap_lost
                    .with_label_values(&[side_name(*side)])
                    .inc();
            }
            Event::ChannelAwaited { service } => {
                self.services.waiting.count(Side::Client, *service, IntGauge::inc);
            }
            Event::ChannelWaited { service, waited } => {
                let Services {
                    waiting,
                    channel_wait,
                    ..
                } = &self.services;
                waiting.count(Side::Client, *service, IntGauge::dec);
                channel_wait.count(Side::Client, *service, |all| all.observe(waited.as_secs_f64()));
            }
            Event::CallEnded {
                side,
                scope,
                service,
                name,
                result,
                duration,
                window,
            } => {
                if *side == Side::Client {
                    self.services.in_flight.count(*side, *service, IntGauge::dec);
                }
                if let Some(window) = window {
                    let window = f64::from(*window);
                    self.services
                        .window
                        .count(*side, *service, |all| all.observe(window));
                }
                let service = service_name(*side, *service);
                if !name.is_empty() {
                    self.families
                        .rpc_duration
                        .with_label_values(&[service, name])
                        .observe(duration.as_secs_f64());
                }
                if let CallResult::Aborted(code) = result {
                    let code = code_name(*code);
                    self.families.rpc_aborts.with_label_values(&[service, code]).inc();
                }
                let result = match result {
                    CallResult::Ok => "ok",
                    CallResult::Aborted(_) => "abort",
                    CallResult::TimedOut => "timeout",
                    CallResult::NetworkError => "net",
                    CallResult::Cancelled => "cancelled",
                };
                self.with_cell(scope, |cell| {
                    self.families
                        .rpc_calls
                        .with_label_values(&[cell, service, result])
                        .inc();
                });
            }
            Event::Secured {
                side,
                security,
                proof,
            } => {
                let (side, result) = (side_name(*side), if proof.given { "ok" } else { "failed" });
                self.families
                    .handshakes
                    .with_label_values(&[side, security_name(*security), result])
                    .inc();
                self.families
                    .handshake_time
                    .with_label_values(&[side])
                    .observe(proof.took.as_secs_f64());
            }
            Event::Dropped { reason, .. } => {
                self.families.dropped.with_label_values(&[reason.name()]).inc();
            }
            Event::NetworkError { errno, .. } => {
                let error = network_error(*errno);
                self.families.network_errors.with_label_values(&[error]).inc();
            }
            Event::KeptAlive { .. } => self.keep_alives.inc(),
            Event::PathChanged { black_hole, .. } => {
                let reason = if *black_hole { "black_hole" } else { "search" };
                self.families.path_changes.with_label_values(&[reason]).inc();
            }
            Event::UpgradeAnswered { service, answered } => {
                let outcome = if service == answered { "kept" } else { "upgraded" };
                self.families
                    .upgrades
                    .with_label_values(&[service_name(Side::Client, *service), outcome])
                    .inc();
            }
            Event::Retransmitted { why, packets } => {
                let reason = why.name();
                self.families
                    .retransmits
                    .with_label_values(&[reason])
                    .inc_by(*packets);
            }
            Event::Acks {
                sent,
                reason,
                packets,
            } => self.wire.count_acks(*sent, *reason, *packets),
            Event::RoundTrip { side, service, rtt } => {
                self.services
                    .rtt
                    .count(*side, *service, |all| all.observe(rtt.as_secs_f64()));
            }
            _ => {}
        }
    }
}
