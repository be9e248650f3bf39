//! The standard figures of the process, read from /proc when asked.

use std::fs;

use super::families::Families;
use crate::process::stat_field;

/// Reads /proc/self and sets the gauges. What cannot be read keeps its last value.
pub(super) fn refresh(families: &Families) {
    let empty: &[&str] = &[];
    if let Ok(stat) = fs::read_to_string("/proc/self/stat")
        && let Some(stat) = Stat::parse(&stat)
    {
        let ticks = u32::try_from(rustix::param::clock_ticks_per_second())
            .unwrap_or(100)
            .max(1);
        let cpu = families.cpu_seconds.with_label_values(empty);
        cpu.reset();
        cpu.inc_by(seconds(stat.cpu_ticks, ticks));
        families
            .threads
            .with_label_values(empty)
            .set(signed(stat.threads));
        families
            .virtual_bytes
            .with_label_values(empty)
            .set(signed(stat.virtual_bytes));
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        families
            .resident_bytes
            .with_label_values(empty)
            .set(signed(stat.resident_pages.saturating_mul(page)));
        if let Some(boot) = boot_time() {
            let start = boot.saturating_add(stat.start_ticks / u64::from(ticks));
            families.start_time.with_label_values(empty).set(signed(start));
        }
    }
    if let Ok(entries) = fs::read_dir("/proc/self/fd") {
        // One of them is the directory itself.
        let open = u64::try_from(entries.count())
            .unwrap_or(u64::MAX)
            .saturating_sub(1);
        families.open_fds.with_label_values(empty).set(signed(open));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    families
        .max_fds
        .with_label_values(empty)
        .set(signed(limit.unwrap_or(u64::MAX)));
}

/// The fields of /proc/PID/stat that are wanted.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        let field = |place| stat_field(text, place);
        Some(Self {
            cpu_ticks: field(14)?.saturating_add(field(15)?),
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn boot_time() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a figure for people: 2^53 ticks are a million years"
)]
fn seconds(ticks: u64, per_second: u32) -> f64 {
    ticks as f64 / f64::from(per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_hold_parentheses() {
        let line = "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 100 20 0 0 20 0 7 0 5000 4096000 321 1 2 3";
        let stat = Stat::parse(line).unwrap();
        let want = Stat {
            cpu_ticks: 120,
            threads: 7,
            start_ticks: 5000,
            virtual_bytes: 4_096_000,
            resident_pages: 321,
        };
        assert_eq!(stat, want);
        assert_eq!(Stat::parse("42 (a"), None);
    }
}
