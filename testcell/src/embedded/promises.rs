//! The promises that a file server has made: for each file, or for a read-only volume as a whole (afs-rpc.md 11.2).

use std::collections::{BTreeSet, HashMap};

use afs_client::rpc::types::{AfsFid, CallBack};
use afs_client::types::{Uniquifier, VnodeId, VolumeId};

use super::hosts::HostId;
use super::storage::At;

/// Names a file in a cell; with vnode 0, a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileId {
    pub(crate) volume: VolumeId,
    pub(crate) at: At,
}

impl FileId {
    pub(crate) const fn new(volume: u32, vnode: u32, unique: u32) -> Self {
        Self {
            volume: VolumeId(volume),
            at: (VnodeId(vnode), Uniquifier(unique)),
        }
    }

    /// All of a volume.
    pub(crate) const fn whole(volume: VolumeId) -> Self {
        Self::new(volume.0, 0, 0)
    }
}

impl From<AfsFid> for FileId {
    fn from(fid: AfsFid) -> Self {
        Self::new(fid.volume, fid.vnode, fid.unique)
    }
}

impl From<FileId> for AfsFid {
    fn from(id: FileId) -> Self {
        Self {
            volume: id.volume.0,
            vnode: id.at.0.0,
            unique: id.at.1.0,
        }
    }
}

/// Who was promised what, and until when (unix seconds).
#[derive(Debug, Default)]
pub(crate) struct Promises(HashMap<FileId, HashMap<HostId, u32>>);

impl Promises {
    /// Promises a host to tell it before the file changes. `bulk`: one of many, which stand for less long.
    pub(crate) fn promise(&mut self, file: FileId, host: HostId, bulk: bool, now: u32) -> CallBack {
        let holders = self.0.entry(file).or_default();
        holders.retain(|_, until| *until > now);
        let bucket = holders.len() / HOSTS_PER_BUCKET + if bulk { BULK_BUCKETS } else { 0 };
        let life = if file.at.0 == VnodeId(0) {
            VOLUME_SECONDS
        } else {
            FILE_SECONDS.get(bucket).copied().unwrap_or(LEAST_SECONDS)
        };
        // Up to the next multiple of 128 of absolute time.
        let until = (now + life) / ROUND_SECONDS * ROUND_SECONDS + ROUND_SECONDS;
        holders.insert(host, until + GRACE_SECONDS);
        CallBack {
            version: 1,
            expiration_time: until - now,
            callback_type: SHARED,
        }
    }

    /// Ends the promises on a file, and says to whom they were made.
    pub(crate) fn take(&mut self, file: FileId, except: Option<HostId>, now: u32) -> Vec<HostId> {
        let Some(mut holders) = self.0.remove(&file) else {
            return Vec::new();
        };
        if let Some((except, until)) = except.and_then(|except| holders.remove_entry(&except)) {
            self.0.insert(file, HashMap::from([(except, until)]));
        }
        holders.retain(|_, until| *until > now);
        let mut told: Vec<_> = holders.into_keys().collect();
        told.sort_unstable();
        told
    }

    /// Ends every promise on a volume and its files, and says to whom they were made.
    pub(crate) fn take_volume(&mut self, volume: VolumeId, now: u32) -> Vec<HostId> {
        let files: Vec<_> = self
            .0
            .keys()
            .copied()
            .filter(|file| file.volume == volume)
            .collect();
        let told: BTreeSet<_> = files
            .into_iter()
            .flat_map(|file| self.take(file, None, now))
            .collect();
        told.into_iter().collect()
    }

    /// The host does not want to hear about the file any more.
    pub(crate) fn give_up(&mut self, file: FileId, host: HostId) {
        if let Some(holders) = self.0.get_mut(&file) {
            holders.remove(&host);
            if holders.is_empty() {
                self.0.remove(&file);
            }
        }
    }

    /// The host does not want to hear about anything.
    pub(crate) fn forget(&mut self, host: HostId) {
        self.0.retain(|_, holders| {
            holders.remove(&host);
            !holders.is_empty()
        });
    }

    /// Does the host hold any?
    pub(crate) fn any(&self, host: HostId, now: u32) -> bool {
        let stands = |holders: &HashMap<HostId, u32>| holders.get(&host).is_some_and(|until| *until > now);
        self.0.values().any(stands)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(HashMap::len).sum()
    }
}

const HOSTS_PER_BUCKET: usize = 8;
/// The more hosts, the shorter.
const FILE_SECONDS: [u32; 8] = [14_400, 3_600, 1_800, 900, 900, 600, 600, 600];
const LEAST_SECONDS: u32 = 420;
const BULK_BUCKETS: usize = 2;
const VOLUME_SECONDS: u32 = 7_200;
const ROUND_SECONDS: u32 = 128;
/// Kept for longer than was promised.
const GRACE_SECONDS: u32 = 180;
const SHARED: u32 = 2;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use rxrpc::proto::Epoch;

    use super::*;
    use crate::embedded::hosts::{Hosts, Introduction};

    fn hosts(count: u16) -> Vec<HostId> {
        let mut hosts = Hosts::default();
        let who = Introduction {
            uuid: None,
            unified: false,
        };
        let mut one = |port| {
            let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            hosts.introduce(address, Epoch(1), who, 0).0
        };
        (1..=count).map(&mut one).collect()
    }

    #[test]
    fn promises_last_as_long_as_the_table_says() {
        let now = 1_000_000;
        let file = FileId::new(1, 2, 3);
        let mut promises = Promises::default();
        let life = |promise: CallBack| promise.expiration_time;
        for (number, host) in hosts(70).into_iter().enumerate() {
            let seconds = life(promises.promise(file, host, false, now));
            let table = FILE_SECONDS.get(number / 8).copied().unwrap_or(420);
            assert!(
                (table + 1..=table + 128).contains(&seconds),
                "{number}: {seconds}"
            );
        }
        let host = hosts(1)[0];
        let bulk = life(promises.promise(FileId::new(1, 4, 4), host, true, now));
        assert!((1_801..=1_928).contains(&bulk), "{bulk}");
        let volume = life(promises.promise(FileId::whole(VolumeId(1)), host, true, now));
        assert!((7_201..=7_328).contains(&volume), "{volume}");
    }

    #[test]
    fn taken_promises_are_gone_and_expired_ones_are_not_told() {
        let (now, file) = (1_000_000, FileId::new(1, 2, 3));
        let hosts = hosts(3);
        let mut promises = Promises::default();
        for host in &hosts {
            promises.promise(file, *host, false, now);
        }
        assert_eq!(promises.take(file, Some(hosts[1]), now), [hosts[0], hosts[2]]);
        assert_eq!(promises.take(file, Some(hosts[1]), now), []);
        assert_eq!(promises.take(file, None, now), [hosts[1]]);
        promises.promise(file, hosts[0], false, now);
        assert!(promises.any(hosts[0], now + 14_400));
        assert_eq!(promises.take(file, None, now + 20_000), []);
        promises.promise(file, hosts[0], false, now);
        promises.promise(FileId::new(1, 9, 9), hosts[1], false, now);
        promises.promise(FileId::new(2, 9, 9), hosts[2], false, now);
        assert_eq!(promises.take_volume(VolumeId(1), now), [hosts[0], hosts[1]]);
        promises.forget(hosts[2]);
        assert_eq!(promises.len(), 0);
    }
}
