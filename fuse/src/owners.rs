//! Owners of files, in the numbers of our user namespace.
//!
//! The machine: the numbers of owners are the cell's. A kernel lets nobody write to a file whose owner has no number in the
//! user namespace of the mount, so what cannot be named there is shown as ours. In the first namespace every number can.

use std::ops::Range;

/// Which numbers have a meaning here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    users: Map,
    groups: Map,
}

/// Numbers that stand for something outside, and the one that is shown for all others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Map {
    known: Vec<Range<u64>>,
    other: u32,
}

impl Owners {
    /// Those of the namespace that we are in.
    #[must_use]
    pub fn here() -> Self {
        // Without /proc all numbers are taken for known: so they are in the first namespace.
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_else(|_| ALL.to_owned());
        Self {
            users: Map::parse(&read("/proc/self/uid_map"), rustix::process::geteuid().as_raw()),
            groups: Map::parse(&read("/proc/self/gid_map"), rustix::process::getegid().as_raw()),
        }
    }

    /// The user and the group that are shown for these.
    #[must_use]
    pub fn shown(&self, user: u32, group: u32) -> (u32, u32) {
        (self.users.shown(user), self.groups.shown(group))
    }
}

impl Map {
    /// Each line: first number here, first outside, how many (user_namespaces(7)).
    fn parse(text: &str, other: u32) -> Self {
        let range = |line: &str| {
            let mut words = line.split_whitespace().map(str::parse::<u64>);
            let (first, count) = (words.next()?.ok()?, words.nth(1)?.ok()?);
            Some(first..first.saturating_add(count))
        };
        Self {
            known: text.lines().filter_map(range).collect(),
            other,
        }
    }

    fn shown(&self, number: u32) -> u32 {
        let is_known = self.known.iter().any(|range| range.contains(&number.into()));
        if is_known { number } else { self.other }
    }
}

const ALL: &str = "0 0 4294967295";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_number_here_is_ours() {
        let map = Map::parse("         0       1000          1\n  100000 200000 65536\n", 0);
        for (number, shown) in [
            (0, 0),
            (1, 0),
            (99_999, 0),
            (100_000, 100_000),
            (165_535, 165_535),
            (165_536, 0),
        ] {
            assert_eq!(map.shown(number), shown, "{number}");
        }
        let all = Map::parse(ALL, 7);
        for number in [0, 32_766, u32::MAX - 1] {
            assert_eq!(all.shown(number), number);
        }
        assert_eq!(Map::parse("nonsense", 7).shown(3), 7);
    }
}
