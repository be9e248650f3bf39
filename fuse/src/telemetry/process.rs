//! The standard figures of the process, read from /proc when asked.

use std::fs;
use std::net::SocketAddrV4;
use std::path::Path;

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
    families
        .memory_limit
        .with_label_values(empty)
        .set(signed(memory_limit().unwrap_or(0)));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    families
        .max_fds
        .with_label_values(empty)
        .set(signed(limit.unwrap_or(u64::MAX)));
}

/// Datagrams that were thrown away because the queue of our socket at this address was full. None: it cannot be seen.
pub(super) fn socket_drops(ours: SocketAddrV4) -> Option<u64> {
    let table = fs::read_to_string("/proc/self/net/udp").ok()?;
    drops_of(&table, ours)
}

/// The last column of the line for this address (proc_net_udp(5)).
#[expect(
    clippy::host_endian_bytes,
    reason = "Linux prints the word that the address is in memory"
)]
fn drops_of(table: &str, ours: SocketAddrV4) -> Option<u64> {
    let ip = u32::from_ne_bytes(ours.ip().octets());
    let ours = format!("{ip:08X}:{:04X}", ours.port());
    let mut lines = table.lines();
    let line = lines.find(|line| line.split_ascii_whitespace().nth(1) == Some(ours.as_str()))?;
    line.split_ascii_whitespace().next_back()?.parse().ok()
}

/// The least that the control group of this process, or one around it, may take. None: no limit that can be seen from here.
fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let limits = groups
        .lines()
        .filter_map(limit_file)
        .flat_map(|(mount, path, file)| {
            // A container sees its own group as the root.
            let folders = Path::new(path).ancestors();
            let folders = folders.map(move |folder| mount.join(folder.strip_prefix("/").unwrap_or(folder)));
            folders.filter_map(move |folder| fs::read_to_string(folder.join(file)).ok())
        });
    let bytes = limits.filter_map(|text| text.trim().parse().ok());
    bytes.filter(|bytes| *bytes < NO_LIMIT).min()
}

/// Where the limit is, for a line of /proc/self/cgroup: the mount, the group in it, the file.
fn limit_file(line: &str) -> Option<(&'static Path, &str, &'static str)> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    if controllers.is_empty() {
        return Some((Path::new("/sys/fs/cgroup"), path, "memory.max"));
    }
    let is_memory = controllers.split(',').any(|name| name == "memory");
    is_memory.then_some((Path::new("/sys/fs/cgroup/memory"), path, "memory.limit_in_bytes"))
}

/// The first version of control groups writes "none" as the most whole pages that fit in 63 bits.
const NO_LIMIT: u64 = 1 << 60;

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
    fn the_memory_of_a_control_group_is_looked_up_in_both_versions() {
        let found = limit_file("0::/kubepods/pod7").unwrap();
        assert_eq!(
            found,
            (Path::new("/sys/fs/cgroup"), "/kubepods/pod7", "memory.max")
        );
        let found = limit_file("9:cpu,memory:/a:b").unwrap();
        assert_eq!(
            found,
            (
                Path::new("/sys/fs/cgroup/memory"),
                "/a:b",
                "memory.limit_in_bytes"
            )
        );
        assert_eq!(limit_file("3:cpuset:/"), None);
        assert_eq!(limit_file(""), None);
    }

    /// Ten datagrams into a queue with room for one, at which nobody looks.
    #[test]
    fn what_the_queue_of_a_socket_has_no_room_for_is_told() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1).unwrap();
        let std::net::SocketAddr::V4(ours) = socket.local_addr().unwrap() else {
            panic!("an address of IPv4");
        };
        assert_eq!(socket_drops(ours), Some(0));
        for _ in 0..10 {
            socket.send_to(&[0; 1400], ours).unwrap();
        }
        assert!(socket_drops(ours).unwrap() >= 5);
        let nobody = SocketAddrV4::new(*ours.ip(), 1);
        assert_eq!(socket_drops(nobody), None);
    }

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
