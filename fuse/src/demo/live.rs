//! The line at the bottom of the terminal: what goes on in the mount.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use afs_client::events::Cached;
use afs_client::fs::AfsFs;

use crate::telemetry::metrics::Metrics;

/// The line; gone when dropped.
#[derive(Debug)]
pub(super) struct Live {
    done: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Shows it once each second.
    pub(super) fn start(fs: AfsFs, metrics: Arc<Metrics>) -> Self {
        let (done, ended) = channel();
        let thread = std::thread::Builder::new()
            .name("afs-live".to_owned())
            .spawn(move || {
                let mut before = calls(&metrics);
                while ended.recv_timeout(SECOND) == Err(RecvTimeoutError::Timeout) {
                    let now = calls(&metrics);
                    show(&format!("\r{}\x1b[K", line(&fs, &metrics, now - before)));
                    before = now;
                }
                show("\r\x1b[K");
            });
        Self {
            done: Some(done),
            // Without a thread there is no line.
            thread: thread.ok(),
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    // A terminal that is gone sees nothing.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn calls(metrics: &Metrics) -> f64 {
    metrics.sum("afs_rpc_calls_total", &[])
}

fn line(fs: &AfsFs, metrics: &Metrics, calls: f64) -> String {
    let census = fs.census();
    let idle = census.iter().filter(|connection| connection.idle).count();
    let acquired = |outcome| metrics.sum("afs_rx_connection_acquires_total", &[("outcome", outcome)]);
    Shown {
        calls,
        live: census.len() - idle,
        idle,
        reused: acquired("reused") + acquired("revived"),
        breaks: fs.breaks_received(),
        hits: ratio(
            fs.cache_counts()
                .map(|tally| tally.get(Cached::Status) + tally.get(Cached::Data)),
        ),
    }
    .text()
}

/// Hits of all look-ups in the caches, if there were any.
#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn ratio([hits, misses]: [u64; 2]) -> Option<f64> {
    let all = hits + misses;
    (all > 0).then(|| hits as f64 / all as f64)
}

/// What the line shows.
struct Shown {
    calls: f64,
    live: usize,
    idle: usize,
    reused: f64,
    breaks: u64,
    hits: Option<f64>,
}

impl Shown {
    fn text(&self) -> String {
        let hits = match self.hits {
            Some(ratio) => format!("{:.1} %", ratio * 100.0),
            None => "-".to_owned(),
        };
        format!(
            "{:.0} calls/s  connections {} live, {} idle, reused {:.0} times  {} callback breaks  cache hits {hits}",
            self.calls, self.live, self.idle, self.reused, self.breaks
        )
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_was_counted() {
        let mut shown = Shown {
            calls: 12.4,
            live: 1,
            idle: 3,
            reused: 99.0,
            breaks: 7,
            hits: ratio([94, 6]),
        };
        assert_eq!(
            shown.text(),
            "12 calls/s  connections 1 live, 3 idle, reused 99 times  7 callback breaks  cache hits 94.0 %"
        );
        shown.hits = ratio([0; 2]);
        assert!(shown.text().ends_with("cache hits -"));
    }
}
