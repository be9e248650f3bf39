//! Files of a directory that are opened one after the other.
//!
//! The machine: the first two opens in a directory say in which order its files are taken, that of the directory or that of
//! their names. As long as each is the next one, or little further, some of those behind it are fetched ahead, the more the
//! longer it goes on. An open elsewhere ends that; after a few of them the directory is left alone for a while. Nothing
//! here has a clock, and nothing is fetched here.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::types::{DataVersion, Uniquifier, VnodeId};

/// A file of the directory.
pub(crate) type Member = (VnodeId, Uniquifier);

/// The files of one directory, and how they are opened.
#[derive(Debug)]
pub(crate) struct Series {
    /// The directory that `files` was made from.
    version: DataVersion,
    files: Arc<[Member]>,
    /// The place of the one that was opened last.
    at: usize,
    /// To where was fetched, or is being.
    ahead: usize,
    /// How many are fetched ahead.
    window: usize,
    /// Whether what is to be fetched ahead is still wanted.
    goes_on: Arc<AtomicBool>,
}

/// What is known of the opens in a directory.
#[derive(Debug)]
pub(crate) enum Opens {
    /// One file was opened, and so many others before it that were no series.
    One(Member, u32),
    /// They are opened in an order.
    Ordered(Series),
    /// They are opened in no order: no look is taken at them until then.
    Scattered(Instant),
}

/// What to do about an open.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Fetch these ahead, as long as the flag is set.
    Ahead(Vec<Member>, Arc<AtomicBool>),
    /// See in which orders the files are: [`Opens::ordered`] wants them.
    Compare,
}

impl Opens {
    /// The first open.
    pub(crate) const fn first(file: Member) -> Self {
        Self::One(file, 0)
    }

    /// Notes another one, in a directory of this version.
    pub(crate) fn note(&mut self, file: Member, version: DataVersion, now: Instant) -> Step {
        match self {
            Self::One(before, _) if *before == file => Step::Nothing,
            Self::One(..) => Step::Compare,
            Self::Ordered(series) if series.version == version => match series.note(file) {
                Some(step) => step,
                None => {
                    *self = Self::One(file, 1);
                    Step::Nothing
                }
            },
            Self::Scattered(until) if now < *until => Step::Nothing,
            Self::Ordered(_) | Self::Scattered(_) => {
                *self = Self::first(file);
                Step::Nothing
            }
        }
    }

    /// Takes the first of the orders in which `file` follows the one before it.
    pub(crate) fn ordered<'a>(
        &mut self,
        file: Member,
        version: DataVersion,
        orders: impl IntoIterator<Item = &'a Arc<[Member]>>,
        now: Instant,
    ) -> Step {
        let Self::One(before, strays) = *self else {
            return Step::Nothing;
        };
        for files in orders {
            let Some(at) = files.iter().position(|member| *member == before) else {
                continue;
            };
            let mut series = Series {
                version,
                files: Arc::clone(files),
                at,
                ahead: at + 1,
                window: 0,
                goes_on: Arc::new(AtomicBool::new(true)),
            };
            if let Some(step) = series.note(file) {
                *self = Self::Ordered(series);
                return step;
            }
        }
        *self = if strays < STRAYS_MAX {
            Self::One(file, strays + 1)
        } else {
            Self::Scattered(now + REST)
        };
        Step::Nothing
    }

    /// Does the open of this file end a series?
    pub(crate) fn strayed(&self, file: Member) -> bool {
        matches!(self, Self::Ordered(series) if series.ahead_of(file).is_none())
    }

    /// What was fetched ahead and not opened.
    pub(crate) fn unused(&self) -> &[Member] {
        match self {
            Self::Ordered(series) => series.files.get(series.at + 1..series.ahead).unwrap_or_default(),
            Self::One(..) | Self::Scattered(_) => &[],
        }
    }
}

impl Series {
    /// How far ahead the file is; `None` if it is not one of the next.
    fn ahead_of(&self, file: Member) -> Option<usize> {
        let mut near = self.files.get(self.at..)?.iter().take(SKIPPED_MAX + 2);
        near.position(|member| *member == file)
    }

    /// `None` if the file is not one of the next.
    fn note(&mut self, file: Member) -> Option<Step> {
        let skipped = self.ahead_of(file)?;
        if skipped == 0 {
            return Some(Step::Nothing);
        }
        self.at += skipped;
        self.ahead = self.ahead.max(self.at + 1);
        if self.window > 0 && self.ahead > self.at + self.window / 2 {
            return Some(Step::Nothing);
        }
        self.window = (self.window * 2).clamp(WINDOW_FIRST, WINDOW_MAX);
        let want = Range {
            start: self.ahead,
            end: (self.at + 1 + self.window).min(self.files.len()),
        };
        let members = self.files.get(want.clone()).unwrap_or_default().to_vec();
        self.ahead = self.ahead.max(want.end);
        if members.is_empty() {
            return Some(Step::Nothing);
        }
        Some(Step::Ahead(members, Arc::clone(&self.goes_on)))
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
    }
}

/// So many files may be left out: directories among them, or what somebody does not care for.
const SKIPPED_MAX: usize = 7;
const WINDOW_FIRST: usize = 4;
const WINDOW_MAX: usize = 32;
/// So many opens in no order are looked at.
const STRAYS_MAX: u32 = 4;
/// For so long a directory is left alone after them.
const REST: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: DataVersion = DataVersion(1);

    fn member(number: u32) -> Member {
        (VnodeId(2 * number), Uniquifier(number))
    }

    fn order(numbers: impl IntoIterator<Item = u32>) -> Arc<[Member]> {
        numbers.into_iter().map(member).collect()
    }

    /// Opens files; how often the directory was looked at, and what was fetched ahead.
    fn open(
        opens: &mut Opens,
        numbers: impl IntoIterator<Item = u32>,
        orders: &[Arc<[Member]>],
    ) -> (usize, Vec<Member>) {
        let (now, mut looks, mut fetched) = (crate::clock::now(), 0, Vec::new());
        for number in numbers {
            let mut step = opens.note(member(number), ONE, now);
            if matches!(step, Step::Compare) {
                looks += 1;
                step = opens.ordered(member(number), ONE, orders, now);
            }
            if let Step::Ahead(members, _) = step {
                fetched.extend(members);
            }
        }
        (looks, fetched)
    }

    #[test]
    fn what_comes_next_is_fetched_once_each() {
        for orders in [
            vec![order(0..100)],
            vec![order((0..100).map(|n| n * 37 % 100)), order(0..100)],
        ] {
            let mut opens = Opens::first(member(0));
            let (looks, fetched) = open(&mut opens, 1..100, &orders);
            assert_eq!(looks, 1, "one look at the directory is enough");
            assert_eq!(fetched, (2..100).map(member).collect::<Vec<_>>());
            assert_eq!(opens.unused(), &[]);
        }
    }

    #[test]
    fn some_may_be_left_out() {
        let mut opens = Opens::first(member(0));
        let (looks, fetched) = open(&mut opens, (0..200).step_by(3).skip(1), &[order(0..200)]);
        assert_eq!((looks, fetched.len()), (1, 196));
    }

    #[test]
    fn no_order_is_left_alone() {
        let mut opens = Opens::first(member(0));
        let scattered = (1..500).map(|n| n * 7919 % 1000);
        let (looks, fetched) = open(&mut opens, scattered, &[order(0..1000)]);
        assert!(looks <= 1 + STRAYS_MAX as usize, "{looks} looks");
        assert!(fetched.len() <= WINDOW_FIRST, "{fetched:?}");
        assert!(matches!(opens, Opens::Scattered(_)));
        let later = crate::clock::now() + 2 * REST;
        opens.note(member(5), ONE, later);
        assert_eq!(
            open(&mut opens, 6..20, &[order(0..1000)]).0,
            1,
            "and looked at again"
        );
    }

    #[test]
    fn the_end_of_a_series_takes_back_what_is_not_begun() {
        let mut opens = Opens::first(member(0));
        let now = crate::clock::now();
        assert!(matches!(opens.note(member(1), ONE, now), Step::Compare));
        let Step::Ahead(_, goes_on) = opens.ordered(member(1), ONE, &[order(0..100)], now) else {
            panic!("it is a series");
        };
        assert_eq!(opens.unused().len(), WINDOW_FIRST);
        assert!(goes_on.load(Ordering::Relaxed));
        opens.note(member(70), ONE, now);
        assert!(!goes_on.load(Ordering::Relaxed));
    }

    #[test]
    fn a_directory_that_changed_is_looked_at_anew() {
        let mut opens = Opens::first(member(0));
        open(&mut opens, 1..5, &[order(0..100)]);
        opens.note(member(5), DataVersion(2), crate::clock::now());
        assert!(matches!(opens, Opens::One(_, 0)));
    }
}
