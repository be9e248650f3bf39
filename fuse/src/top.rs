//! `afs top`: a mount at work, once a second.
//!
//! The machine: the mount is asked for its metrics again and again; what is shown are the rates between two answers. On a
//! terminal each page is drawn over the last one; anywhere else they follow each other.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::ctl::Request;
use crate::ctl::client::{Answer, ask};
use crate::failure::{Failure, Kind};
use crate::report::series::Sample;
use crate::report::status::Status;
use crate::report::text::{bytes, seconds};
use crate::status;

/// Options of `afs top`.
#[derive(Args, Clone, Debug)]
pub struct Top {
    /// Show one page and end
    #[arg(long)]
    pub once: bool,

    /// Seconds between two looks
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,

    /// Which mount [default: the only one]
    #[arg(value_name = "MOUNTPOINT")]
    pub mount_point: Option<PathBuf>,
}

/// Runs `afs top`: for ever, but for `--once` and a mount that ends.
pub fn top(options: &Top) -> Result<(), Failure> {
    let socket = match &options.mount_point {
        Some(at) => status::mount_at(at)?.socket,
        None => only(status::all()?)?,
    };
    let screen = io::stdout().is_terminal() && !options.once;
    let mut before = look(&socket)?.0;
    if screen {
        print!("\x1b[2J");
    }
    loop {
        std::thread::sleep(Duration::from_secs(options.interval));
        let (now, status) = look(&socket)?;
        let page = page(&before, &now, &status);
        let shown = if screen {
            on_screen(&page, rows())
        } else {
            format!("{page}\n")
        };
        let mut out = io::stdout().lock();
        if out
            .write_all(shown.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
            || options.once
        {
            // Who has gone sees no more.
            return Ok(());
        }
        before = now;
    }
}

fn only(mut found: Vec<status::Found>) -> Result<PathBuf, Failure> {
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one.socket),
        (last, _) => {
            let all = found.iter().chain(&last);
            let points: Vec<_> = all
                .map(|found| found.status.mount.at.display().to_string())
                .collect();
            Err(Failure::new(Kind::Usage, "there are several mounts")
                .cure(format!("name one: {}", points.join(", "))))
        }
    }
}

fn look(socket: &Path) -> Result<(Sample, Status), Failure> {
    let gone =
        |answer: &Answer| Failure::new(Kind::Other, format!("the mount has ended: {}", answer.refusal()));
    let (sample, status) = (ask(socket, &Request::Sample), ask(socket, &Request::Status));
    let numbers = sample.report().ok_or_else(|| gone(&sample))?.0;
    Ok((numbers, status.report().ok_or_else(|| gone(&status))?.0))
}

/// What one page says.
fn page(before: &Sample, now: &Sample, status: &Status) -> String {
    let rates = Rates { before, now };
    let mut out = String::new();
    let mount = &status.mount;
    let _ = writeln!(
        out,
        "{}  afs {}  up {}",
        mount.at.display(),
        mount.version,
        seconds(mount.uptime_seconds)
    );
    rates.requests(&mut out);
    rates.calls(&mut out);
    rates.connections(&mut out, status);
    rates.cache(&mut out, status);
    rates.process(&mut out);
    for server in &status.servers {
        let _ = writeln!(out, "server       {server}");
    }
    if let Some(error) = status.metrics.as_ref().and_then(|page| page.error.as_deref()) {
        let _ = writeln!(out, "metrics      NOT SHOWN: {error}");
    }
    out
}

/// Two looks at the metrics, and what went on between them.
struct Rates<'a> {
    before: &'a Sample,
    now: &'a Sample,
}

/// A line of a table: how often, how long, how many failed.
struct Line {
    name: String,
    rate: f64,
    mean: f64,
    failed: f64,
}

impl Rates<'_> {
    fn elapsed(&self) -> f64 {
        (self.now.uptime_seconds - self.before.uptime_seconds).max(0.001)
    }

    fn rise(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        (self.now.sum(name, labels) - self.before.sum(name, labels)).max(0.0)
    }

    fn rate(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.rise(name, labels) / self.elapsed()
    }

    /// The mean of a histogram.
    fn mean(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let count = self.rise(&format!("{name}_count"), labels);
        if count > 0.0 {
            self.rise(&format!("{name}_sum"), labels) / count
        } else {
            0.0
        }
    }

    /// Share of `outcomes` in all that a family counted.
    fn share(&self, name: &str, labels: &[(&str, &str)], outcomes: &[&str]) -> Option<f64> {
        let of = |outcome: &&str| {
            let with: Vec<_> = labels.iter().copied().chain([("outcome", *outcome)]).collect();
            self.rise(name, &with)
        };
        let all = self.rise(name, labels);
        (all > 0.0).then(|| outcomes.iter().map(of).sum::<f64>() / all)
    }

    fn requests(&self, out: &mut String) {
        let name = "afs_fuse_requests_total";
        let failed =
            |op: &str| self.rate(name, &[("op", op)]) - self.rate(name, &[("op", op), ("result", "ok")]);
        let ops = self.now.values(name, "op").into_iter();
        let lines = ops.map(|op| Line {
            name: op.to_owned(),
            rate: self.rate(name, &[("op", op)]),
            mean: self.mean("afs_fuse_request_duration_seconds", &[("op", op)]),
            failed: failed(op),
        });
        let waiting = self.now.sum("afs_fuse_in_flight", &[]);
        let _ = writeln!(
            out,
            "requests     {:.0} /s, {waiting:.0} wait for the network",
            self.rate(name, &[])
        );
        table(out, lines.collect());
    }

    fn calls(&self, out: &mut String) {
        let name = "afs_rpc_duration_seconds_count";
        let mut lines = Vec::new();
        for service in self.now.values(name, "service") {
            for rpc in self.now.values(name, "rpc") {
                let labels = [("service", service), ("rpc", rpc)];
                lines.push(Line {
                    name: format!("{service} {rpc}"),
                    rate: self.rate(name, &labels),
                    mean: self.mean("afs_rpc_duration_seconds", &labels),
                    failed: 0.0,
                });
            }
        }
        let calls = "afs_rpc_calls_total";
        let failed = self.rate(calls, &[]) - self.rate(calls, &[("result", "ok")]);
        let _ = writeln!(
            out,
            "calls        {:.0} /s, {failed:.0} /s failed, {:.0} /s packets sent again",
            self.rate(calls, &[]),
            self.rate("afs_rx_retransmits_total", &[])
        );
        table(out, lines);
    }

    fn connections(&self, out: &mut String, status: &Status) {
        let name = "afs_rx_connection_acquires_total";
        let reuse = self.share(name, &[], &["reused", "revived"]);
        let (to, from) = (&status.to_servers, &status.from_servers);
        let _ = writeln!(
            out,
            "connections  to servers {} active, {} idle; from servers {} active, {} idle; reused {}",
            to.active,
            to.idle,
            from.active,
            from.idle,
            percent(reuse)
        );
        let _ = writeln!(
            out,
            "callbacks    {:.1} /s broken",
            self.rate("afs_callback_breaks_received_total", &[])
        );
    }

    fn cache(&self, out: &mut String, status: &Status) {
        let hits = |cache| self.share("afs_cache_requests_total", &[("cache", cache)], &["hit"]);
        let _ = writeln!(
            out,
            "cache        hits: status {}, data {}; {} of {}",
            percent(hits("status")),
            percent(hits("data")),
            bytes(status.cache.used),
            bytes(status.cache.limit)
        );
        let _ = writeln!(out, "dirty        {}", status.dirty);
    }

    fn process(&self, out: &mut String) {
        let _ = writeln!(
            out,
            "process      {:.0} % of a processor, {:.1} MiB resident, {:.0} descriptors, {:.0} threads",
            self.rate("process_cpu_seconds_total", &[]) * 100.0,
            self.now.sum("process_resident_memory_bytes", &[]) / 1_048_576.0,
            self.now.sum("process_open_fds", &[]),
            self.now.sum("process_threads", &[])
        );
    }
}

/// The busiest of the lines that are not idle.
fn table(out: &mut String, mut lines: Vec<Line>) {
    lines.retain(|line| line.rate > 0.0);
    lines.sort_by(|a, b| b.rate.total_cmp(&a.rate));
    for line in lines.iter().take(LINES) {
        let failed = if line.failed > 0.0 {
            format!("  {:.1} /s refused or failed", line.failed)
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "  {:24} {:9.1} /s  {:>10}{failed}",
            line.name,
            line.rate,
            seconds(line.mean)
        );
    }
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// The page drawn over the one before, as far as there is room.
fn on_screen(page: &str, rows: usize) -> String {
    let lines = page.lines().take(rows.saturating_sub(1));
    let mut shown = String::from("\x1b[H");
    for line in lines {
        let _ = writeln!(shown, "{line}\x1b[K");
    }
    shown + "\x1b[J"
}

fn rows() -> usize {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(usize::MAX, |size| match size.ws_row {
        0 => usize::MAX,
        rows => rows.into(),
    })
}

/// Lines of a table.
const LINES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::series::Series;

    type Value<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

    fn sample(uptime: f64, values: &[Value<'_>]) -> Sample {
        let series = values.iter().map(|(name, labels, value)| Series {
            name: (*name).to_owned(),
            labels: labels
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            value: *value,
        });
        Sample {
            uptime_seconds: uptime,
            series: series.collect(),
            ..Sample::default()
        }
    }

    #[test]
    fn rates_are_between_two_looks() {
        let name = "afs_fuse_requests_total";
        let duration = "afs_fuse_request_duration_seconds";
        let look = |uptime: f64, scale: f64| {
            sample(
                uptime,
                &[
                    (name, &[("op", "read"), ("result", "ok")], 10.0 * scale),
                    (name, &[("op", "read"), ("result", "EIO")], 2.0 * scale),
                    (name, &[("op", "open"), ("result", "ok")], 7.0),
                    (&format!("{duration}_sum"), &[("op", "read")], 0.06 * scale),
                    (&format!("{duration}_count"), &[("op", "read")], 12.0 * scale),
                ],
            )
        };
        let (before, now) = (look(5.0, 1.0), look(7.0, 2.0));
        let rates = Rates {
            before: &before,
            now: &now,
        };
        let mut out = String::new();
        rates.requests(&mut out);
        assert_eq!(
            out,
            "requests     6 /s, 0 wait for the network\n  \
             read                           6.0 /s      5.0 ms  1.0 /s refused or failed\n"
        );
    }

    #[test]
    fn a_page_is_cut_to_the_screen() {
        assert_eq!(on_screen("a\nb\nc\n", 3), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(percent(None), "-");
        assert_eq!(percent(Some(0.5)), "50.0 %");
    }
}
