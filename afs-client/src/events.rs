//! What the cache manager tells about itself, beside the transport's own events.

/// What became of a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Broken {
    /// It ended, or would have ended, a promise on something we know.
    Applied,
    /// A server lost all its promises.
    Server,
    /// We know no such file: nothing depended on it.
    Unknown,
    /// From a host that is no server we know.
    Stranger,
}

impl Broken {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Applied, Self::Server, Self::Unknown, Self::Stranger];

    /// The label under which it is counted.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Server => "server",
            Self::Unknown => "unknown",
            Self::Stranger => "stranger",
        }
    }
}

/// How many breaks there were, by what became of them.
#[derive(Debug, Default)]
pub struct BreakCounts([std::sync::atomic::AtomicU64; Broken::ALL.len()]);

impl BreakCounts {
    /// One more.
    pub(crate) fn count(&self, what: Broken) {
        if let Some(count) = self.0.get(what as usize) {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// How many of a kind.
    #[must_use]
    pub fn get(&self, what: Broken) -> u64 {
        self.0
            .get(what as usize)
            .map_or(0, |count| count.load(std::sync::atomic::Ordering::Relaxed))
    }
}
