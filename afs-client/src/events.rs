//! What the cache manager tells about itself, beside the transport's own events: how often things happened, by closed sets
//! of what they were.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// A closed set of things that are counted.
pub trait Kind: Copy + 'static {
    /// All of them, in order.
    const ALL: &'static [Self];

    /// The label under which it is counted.
    fn name(self) -> &'static str;

    /// Its place in [`ALL`](Self::ALL).
    fn place(self) -> usize;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident { $($(#[$kind_doc:meta])* $kind:ident $label:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub enum $name {
                $($(#[$kind_doc])* $kind,)*
            }

            impl Kind for $name {
                const ALL: &'static [Self] = &[$(Self::$kind),*];

                fn name(self) -> &'static str {
                    match self {
                        $(Self::$kind => $label,)*
                    }
                }

                fn place(self) -> usize {
                    self as usize
                }
            }
        )*
    };
}

kinds! {
    /// What became of a break.
    Broken {
        /// It ended, or would have ended, a promise on something we know.
        Applied "applied",
        /// A server lost all its promises.
        Server "server",
        /// We know no such file: nothing depended on it.
        Unknown "unknown",
        /// From a host that is no server we know.
        Stranger "stranger",
    }

    /// What a break is of.
    Scope {
        /// An object.
        File "file",
        /// A volume.
        Volume "volume",
        /// All that a server has promised.
        Server "server",
    }

    /// Why a call to a file server is made once more.
    Retry {
        /// No answer came.
        NoAnswer "no_answer",
        /// The server or the volume is busy, or the server gave the call up.
        Busy "busy",
        /// The volume is not there, or not on line there.
        Moved "moved",
        /// The server could not read its disk.
        ReadError "read_error",
        /// The connection was refused as it was protected.
        Security "security",
        /// The replica is slower than usual: another one is asked too.
        Slow "slow",
        /// The replica makes no sense.
        Nonsense "nonsense",
    }

    /// Why a replica is left alone for a while.
    Misfit {
        /// What it says makes no sense.
        Nonsense "nonsense",
        /// It has another release of the volume than the one that is being read.
        Release "release",
    }

    /// How a question where a volume is was answered.
    Located {
        /// It was known.
        Hit "hit",
        /// A location server was asked.
        Miss "miss",
        /// What was known was too old, or had proved wrong: a location server was asked again.
        Stale "stale",
        /// There is no such volume.
        Negative "negative",
    }

    /// What a cache knows.
    Cached {
        /// Bytes of files.
        Data "data",
        /// The status of objects.
        Status "status",
        /// Contents of directories.
        Directory "dir",
        /// Names that are not there.
        Absence "negative",
        /// Where mount points lead.
        MountPoint "mountpoint",
    }

    /// What became of promises that nobody needed.
    GivenUp {
        /// The server knows.
        Done "ok",
        /// It could not be told.
        Failed "failed",
    }

    /// Where bytes of file data went.
    Flow {
        /// From the cache to a reader who did not wait.
        ServedHit "served_hit",
        /// From a server to the cache.
        Fetched "fetched",
        /// Into the cache ahead of a reader, who did not read it then.
        AheadUnused "ahead_unused",
        /// From the cache to a server.
        Stored "stored",
    }

    /// Why something left the cache of file data.
    Eviction {
        /// Others needed the room.
        Room "room",
        /// Others needed the descriptor.
        Descriptors "descriptors",
    }
}

/// How many there were, by kind. Relaxed: they are only read to be shown.
#[derive(Debug)]
pub struct Tally<K> {
    counts: [AtomicU64; KINDS_MAX],
    of: PhantomData<K>,
}

impl<K> Default for Tally<K> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            of: PhantomData,
        }
    }
}

impl<K: Kind> Tally<K> {
    /// One more.
    pub(crate) fn count(&self, kind: K) {
        self.add(kind, 1);
    }

    /// So many more.
    pub(crate) fn add(&self, kind: K, more: u64) {
        if let Some(count) = self.counts.get(kind.place()) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// How many of a kind.
    #[must_use]
    pub fn get(&self, kind: K) -> u64 {
        let count = self.counts.get(kind.place());
        count.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Labels and counts of all kinds.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        K::ALL.iter().map(|kind| (kind.name(), self.get(*kind)))
    }
}

/// No set is larger.
const KINDS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn fits<K: Kind>() {
        assert!(K::ALL.len() <= KINDS_MAX);
        for (place, kind) in K::ALL.iter().enumerate() {
            assert_eq!(kind.place(), place);
        }
    }

    #[test]
    fn kinds_are_counted_apart() {
        fits::<Broken>();
        fits::<Scope>();
        fits::<Retry>();
        fits::<Misfit>();
        fits::<Located>();
        fits::<Cached>();
        fits::<GivenUp>();
        fits::<Flow>();
        fits::<Eviction>();
        let tally = Tally::default();
        tally.count(Flow::Stored);
        tally.add(Flow::Stored, 4);
        tally.count(Flow::Fetched);
        let counts: Vec<_> = tally.iter().collect();
        assert_eq!(
            counts,
            [
                ("served_hit", 0),
                ("fetched", 1),
                ("ahead_unused", 0),
                ("stored", 5)
            ]
        );
    }
}
