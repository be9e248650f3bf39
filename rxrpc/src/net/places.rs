//! How many of something there may be: in all, and for one host.
//!
//! The machine: whoever makes one takes a place first and gives it back by dropping it, so that the count is true
//! whatever happens to the thing. The limit for one host is what keeps it from taking all there are; ports do not count,
//! because a host has as many of them as it likes.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;

/// How many of something there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In all.
    pub in_all: usize,
    /// For one host, whatever its ports.
    pub per_host: usize,
}

/// Places of one kind.
#[derive(Debug)]
pub(crate) struct Places {
    limit: Limit,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_host: HashMap<Ipv4Addr, usize>,
}

/// The right to be there. Dropped, it is given back.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    host: Ipv4Addr,
}

impl Places {
    pub(crate) fn new(limit: Limit) -> Arc<Self> {
        let taken = Mutex::default();
        Arc::new(Self { limit, taken })
    }

    /// A place for `host`, if there is one.
    pub(crate) fn take(self: &Arc<Self>, host: Ipv4Addr) -> Option<Place> {
        let mut taken = self.taken.lock();
        let of_host = taken.by_host.get(&host).copied().unwrap_or(0);
        let free = taken.in_all < self.limit.in_all && of_host < self.limit.per_host;
        free.then(|| self.enter(&mut taken, host))
    }

    /// A place for `host`, also where there is none: for what was counted as something else until now.
    pub(crate) fn take_anyway(self: &Arc<Self>, host: Ipv4Addr) -> Place {
        self.enter(&mut self.taken.lock(), host)
    }

    /// Places taken.
    pub(crate) fn taken(&self) -> usize {
        self.taken.lock().in_all
    }

    fn enter(self: &Arc<Self>, taken: &mut Taken, host: Ipv4Addr) -> Place {
        taken.in_all += 1;
        *taken.by_host.entry(host).or_default() += 1;
        Place {
            places: Arc::clone(self),
            host,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock();
        taken.in_all = taken.in_all.saturating_sub(1);
        if let Some(of_host) = taken.by_host.get_mut(&self.host) {
            *of_host = of_host.saturating_sub(1);
            if *of_host == 0 {
                taken.by_host.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_gets_its_share_and_all_get_no_more_than_there_is() {
        let limit = Limit {
            in_all: 5,
            per_host: 2,
        };
        let places = Places::new(limit);
        let host = |number| Ipv4Addr::new(10, 0, 0, number);
        let mut taken: Vec<_> = (0..9).filter_map(|_| places.take(host(1))).collect();
        assert_eq!(taken.len(), 2);
        taken.extend((2..9).filter_map(|number| places.take(host(number))));
        assert_eq!(taken.len(), 5);
        taken.push(places.take_anyway(host(9)));
        assert_eq!(places.taken(), 6);
        taken.remove(0);
        assert!(places.take(host(3)).is_none(), "still full");
        drop(taken);
        assert_eq!(places.taken(), 0);
        assert!(
            places.taken.lock().by_host.is_empty(),
            "nothing is left of a host that left"
        );
    }
}
