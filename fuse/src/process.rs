//! What `/proc` tells of a process: which one it is, and whose child.
//!
//! A number names a process only as long as that lives. Together with the time at which it started it names it for good:
//! the next process with the number started later.

use std::fs;

use rustix::process::Signal;

/// A process, or a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// The process that is its parent; 0 if that cannot be seen from here.
    pub parent: u32,
    /// When it started, in ticks of the clock since the machine did.
    pub start: u64,
}

impl Process {
    /// The process or thread with a number.
    pub fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        Some(Self {
            parent: stat_field(stat, 4)?.try_into().ok()?,
            start: stat_field(stat, 22)?,
        })
    }
}

/// A number in `/proc/PID/stat`, by the place that proc(5) gives it. The name in brackets may hold anything, closing
/// brackets too; the fields behind it begin with the third.
pub fn stat_field(stat: &str, place: usize) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_ascii_whitespace();
    fields.nth(place.checked_sub(3)?)?.parse().ok()
}

/// Has the first thread of a process ended, and nobody asked yet how? Others of it may be left in the kernel.
pub fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, fields)| fields.starts_with('Z'))
}

/// The process that a thread is of.
pub fn process_of(thread: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    group.trim().parse().ok()
}

/// The signals that wait for a thread, as bits (proc_pid_status(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signals {
    pending: u64,
    blocked: u64,
    ignored: u64,
}

impl Signals {
    /// Those of a thread that can be seen from here.
    pub fn of(thread: u32) -> Option<Self> {
        // 0 is a thread that cannot.
        if thread == 0 {
            return None;
        }
        Self::parse(&fs::read_to_string(format!("/proc/{thread}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let mask = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            u64::from_str_radix(line.trim(), 16).ok()
        };
        Some(Self {
            pending: mask("SigPnd:")? | mask("ShdPnd:")?,
            blocked: mask("SigBlk:")?,
            ignored: mask("SigIgn:")?,
        })
    }

    /// Is there one that would end the wait for a lock?
    pub const fn interrupt(self) -> bool {
        self.pending & !self.blocked & !self.ignored != 0
    }

    /// Is there one by which somebody asks a process to end? What is certain to end it the kernel turns into SIGKILL.
    pub fn ask_to_end(self) -> bool {
        let asking = [Signal::KILL, Signal::INT, Signal::TERM, Signal::QUIT, Signal::HUP];
        let bits = asking.map(|signal| 1_u64 << (signal.as_raw() - 1));
        let heard = self.pending & !self.blocked & !self.ignored;
        bits.iter().any(|bit| heard & bit != 0)
    }
}

/// The control group of a process: its path in the unified hierarchy.
pub fn control_group(pid: u32) -> Option<String> {
    // 0 is a process that cannot be seen from here.
    if pid == 0 {
        return None;
    }
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let stat = "7 (a) S 9 (b)) S 12 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 7777 21 22";
        let expected = Process {
            parent: 12,
            start: 7777,
        };
        assert_eq!(Process::parse(stat), Some(expected));
        assert_eq!(Process::parse("7 (a) S"), None);
        assert_eq!(Process::parse(""), None);
    }

    #[test]
    fn some_signals_ask_to_end() {
        let signals = |thread: &str, process: &str, blocked: &str| {
            let status = format!(
                "Name:\tcat\nSigPnd:\t{thread}\nShdPnd:\t{process}\nSigBlk:\t{blocked}\nSigIgn:\t0\n"
            );
            Signals::parse(&status).unwrap()
        };
        assert!(!signals("0000000000000000", "0000000000000000", "0").interrupt());
        let killed = signals("0000000000000100", "0", "0");
        assert!(killed.ask_to_end() && killed.interrupt());
        let by_hand = signals("0", "0000000000000002", "0");
        assert!(by_hand.ask_to_end());
        let a_child_ended = signals("0", "0000000000010000", "0");
        assert!(!a_child_ended.ask_to_end() && a_child_ended.interrupt());
        assert!(!signals("0", "2", "2").interrupt(), "it is blocked");
        assert_eq!(Signals::parse("Name:\tcat\n"), None);
        assert_eq!(Signals::of(0), None);
        assert!(Signals::of(std::process::id()).is_some());
    }

    #[test]
    fn threads_are_of_a_process_and_children_of_a_parent() {
        let mine = std::process::id();
        let thread = rustix::thread::gettid().as_raw_pid().unsigned_abs();
        assert_eq!(process_of(thread), Some(mine));
        let me = Process::read(mine).unwrap();
        assert_eq!(Process::read(mine), Some(me));
        let parent = Process::read(me.parent).unwrap();
        assert!(parent.start <= me.start);
        assert_eq!(Process::read(0), None);
    }

    #[test]
    fn who_has_ended_and_was_not_asked_is_a_zombie() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let started = std::time::Instant::now();
        while !is_zombie(child.id()) && started.elapsed().as_secs() < 20 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert!(is_zombie(child.id()) && !is_zombie(std::process::id()));
        child.wait().unwrap();
        assert!(!is_zombie(child.id()));
    }
}
