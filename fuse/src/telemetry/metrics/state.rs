//! What the file system counts itself, taken over when somebody asks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use afs_client::events::{Kind as _, Misfit};
use afs_client::fs::{AfsFs, CountState, State};
use prometheus::IntGaugeVec;
use rxrpc::security::rxkad;

use super::{Metrics, NO_LABELS, process, raise, whole};
use crate::telemetry::labels::{security_name, service_name};
use crate::telemetry::op::result_name;

impl Metrics {
    /// Takes over what the file system counts itself.
    pub(super) fn look_at(&self, fs: &AfsFs) {
        let families = &self.families;
        families.connections.reset();
        for counted in fs.census() {
            let state = if counted.idle { "idle" } else { "active" };
            let service = service_name(counted.side, counted.service);
            self.with_cell(&counted.scope, |cell| {
                families
                    .connections
                    .with_label_values(&[cell, service, state])
                    .inc();
            });
        }
        for (what, count) in fs.breaks().iter() {
            raise(&families.breaks.with_label_values(&[what]), count);
        }
        if let Some(drops) = process::socket_drops(fs.local_addr()) {
            raise(&families.socket_drops.with_label_values(NO_LABELS), drops);
        }
        let state = fs.state();
        self.show(&state);
        families.callback_path_last_seen.reset();
        for server in &state.servers {
            let addresses = server.addresses.iter().map(|(address, _)| *address.ip());
            let last = whole(fs.requests().last_of(addresses));
            self.with_cell(&server.cell, |cell| {
                let seen = families.callback_path_last_seen.with_label_values(&[cell]);
                seen.set(seen.get().max(last));
            });
        }
        self.show_counts(&state.counts);
        self.show_tokens(fs);
        let (held, lost) = fs.lock_counts();
        families
            .locks
            .with_label_values(NO_LABELS)
            .set(whole(held as u64));
        raise(&families.locks_lost.with_label_values(NO_LABELS), lost);
        for (rpc, count) in fs.requests().iter() {
            raise(&families.callback_requests.with_label_values(&[rpc]), count);
        }
        for (outcome, tally) in ["hit", "miss"].into_iter().zip(fs.cache_counts()) {
            for (cache, count) in tally.iter() {
                raise(
                    &families.cache_requests.with_label_values(&[cache, outcome]),
                    count,
                );
            }
        }
        let (promises, expiring) = fs.promise_counts();
        let valid = promises.saturating_sub(expiring);
        set_each(&families.callbacks, [("valid", valid), ("expiring", expiring)]);
        let peers = fs.peer_count();
        set_each(&families.peers, [("used", peers.used), ("kept_open", peers.kept)]);
    }

    pub(super) fn show(&self, state: &State) {
        let families = &self.families;
        families.servers.reset();
        families.promising.reset();
        families.avoided.reset();
        let count_server = |cell: &Arc<str>, service, up| {
            self.with_cell(cell, |cell| {
                let answers = if up { "up" } else { "down" };
                for state in ["up", "down"] {
                    let servers = families.servers.with_label_values(&[cell, service, state]);
                    servers.add(i64::from(state == answers));
                }
            });
        };
        for (cell, up) in &state.location_servers {
            count_server(cell, "vl", *up);
        }
        for server in &state.servers {
            count_server(&server.cell, "fs", server.up);
            self.with_cell(&server.cell, |cell| {
                let promising = families.promising.with_label_values(&[cell]);
                promising.add(i64::from(server.promised));
                let misfit = server.left_alone.as_ref().map(|left| left.misfit.name());
                let failing = (FAILING, server.fails_often);
                let misfits = Misfit::ALL
                    .iter()
                    .map(|of| (of.name(), misfit == Some(of.name())));
                for (reason, is_so) in misfits.chain([failing]) {
                    let avoided = families.avoided.with_label_values(&[cell, reason]);
                    avoided.add(i64::from(is_so));
                }
            });
        }
        let directories = state.directories;
        for (cache, size, limit) in [
            ("data", state.cache.used, state.cache.limit),
            ("directory", directories.bytes as u64, directories.limit as u64),
        ] {
            families.cache_size.with_label_values(&[cache]).set(whole(size));
            families.cache_limit.with_label_values(&[cache]).set(whole(limit));
        }
        raise(
            &families.cache_damaged.with_label_values(NO_LABELS),
            state.cache.damaged,
        );
        let oldest = state.cache.dirty_for.map(|age| SystemTime::now() - age);
        let oldest = oldest.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        for (gauge, value) in [
            (&families.dirty_bytes, state.cache.dirty),
            (&families.dirty_files, state.cache.dirty_files as u64),
            (&families.oldest_dirty, oldest.map_or(0, |at| at.as_secs())),
        ] {
            gauge.with_label_values(NO_LABELS).set(whole(value));
        }
        let unstored = state.unstored;
        set_each(
            &families.unstored,
            [("waiting", unstored.waiting), ("set-aside", unstored.set_aside)],
        );
        raise(
            &families.write_conflicts.with_label_values(NO_LABELS),
            unstored.conflicts,
        );
        let [full, failed] = state.cache.bypassed;
        for (reason, count) in [("full", full), ("failed", failed)] {
            raise(&families.cache_bypasses.with_label_values(&[reason]), count);
        }
        set_each(
            &families.cache_entries,
            [
                ("status", state.vnodes),
                ("volume", state.volumes),
                ("directory", directories.count),
            ],
        );
    }

    /// Takes over what the file system has counted by closed sets.
    pub(super) fn show_counts(&self, counts: &CountState) {
        let families = &self.families;
        for (family, labels, counted) in [
            (&families.retries, &["fs"][..], &counts.retries),
            (&families.failovers, &["fs"], &counts.failovers),
            (&families.left_alone, &[], &counts.misfits),
            (&families.vldb_lookups, &[], &counts.lookups),
            (&families.breaks_received, &[], &counts.breaks),
            (&families.given_up, &[], &counts.given_up),
            (&families.cache_bytes, &[], &counts.flows),
            (&families.cache_evictions, &["data"], &counts.evictions),
        ] {
            for (label, count) in counted {
                let labels: Vec<_> = labels.iter().copied().chain([*label]).collect();
                raise(&family.with_label_values(&labels), *count);
            }
        }
        // Several errors may share a label.
        let mut by_label = BTreeMap::new();
        for (errno, count) in &counts.store_errors {
            *by_label
                .entry(result_name(*errno).unwrap_or("other"))
                .or_insert(0) += count;
        }
        for (label, count) in by_label {
            raise(&families.store_errors.with_label_values(&[label]), count);
        }
    }

    fn show_tokens(&self, fs: &AfsFs) {
        let (tokens, expiry) = (&self.families.tokens, &self.families.token_expiry);
        tokens.reset();
        expiry.reset();
        let now = SystemTime::now();
        for held in fs.tokens() {
            let token = held.token;
            let state = if token.is_expired(now) { "expired" } else { "valid" };
            self.with_cell(token.cell.shared(), |cell| {
                tokens.with_label_values(&[cell, RXKAD, state]).inc();
                if held.renews {
                    let first = expiry.with_label_values(&[cell, RXKAD]);
                    let ends = i64::from(token.expires);
                    if first.get() == 0 || ends < first.get() {
                        first.set(ends);
                    }
                }
            });
        }
        for (cell, count) in fs.renewals() {
            self.with_cell(cell.shared(), |cell| {
                for (result, to) in [("ok", count.done), ("failed", count.failed)] {
                    let counter = self.families.token_renewals.with_label_values(&[cell, result]);
                    raise(&counter, to);
                }
            });
        }
    }
}

/// How many there are now, by the only label of the family.
fn set_each<const N: usize>(gauges: &IntGaugeVec, counts: [(&str, usize); N]) {
    for (label, count) in counts {
        gauges.with_label_values(&[label]).set(whole(count as u64));
    }
}

/// Too many calls to a server fail.
const FAILING: &str = "failing";
/// The only class with tokens.
const RXKAD: &str = security_name(rxkad::INDEX);
