//! The sites of a copy, as an entry of the location database lists them, and which of them are used while a volume is released.
//!
//! The machine: `vos release` brings the new contents to one site after the other, and marks those that have them. As long as
//! fewer than half have, only the others are used, and from then on only those: nobody is shown the one and the other in turn
//! (cache-manager.md 2.2). Those that are not used are the reserve, for when none of the others answers.

use super::VolumeKind;
use crate::rpc::types::{AfsUuid, VolumeEntry};

/// A server that has a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// Its UUID, or its address in the first word.
    pub(super) uuid: AfsUuid,
    /// The version of its list of addresses.
    pub(super) unique: u32,
    flags: u32,
}

impl Site {
    /// Is it named by its UUID?
    pub(super) const fn is_uuid(&self) -> bool {
        self.flags & IS_UUID != 0
    }
}

/// The sites of a copy.
#[derive(Debug, Default)]
pub(super) struct Sites {
    /// Those that have one release.
    pub(super) used: Vec<Site>,
    /// Those that have the other one while the volume is being released, or since that has failed half-way.
    pub(super) reserve: Vec<Site>,
    /// It is being released.
    pub(super) is_released: bool,
}

/// The sites of a copy that an entry lists. What is marked as not to be used holds nothing, or what nobody is to see any more:
/// it is not even in the reserve, as with OpenAFS.
pub(super) fn of(entry: &VolumeEntry, kind: VolumeKind) -> Sites {
    let wanted = match kind {
        VolumeKind::ReadOnly => HAS_READ_ONLY,
        // The backup copy lies beside the read-write volume.
        VolumeKind::ReadWrite | VolumeKind::Backup => HAS_READ_WRITE,
    };
    let listed = entry
        .uuids
        .iter()
        .zip(&entry.uniques)
        .zip(&entry.server_flags)
        .take(usize::try_from(entry.servers).unwrap_or(0));
    let sites = listed.map(|((uuid, unique), flags)| Site {
        uuid: *uuid,
        unique: *unique,
        flags: *flags,
    });
    let usable = sites.filter(|site| site.flags & wanted != 0 && site.flags & DO_NOT_USE == 0);
    let (new, old): (Vec<_>, Vec<_>) =
        usable.partition(|site| kind.is_read_only() && site.flags & NEW_RELEASE != 0);
    let is_released = !new.is_empty();
    let (used, reserve) = if new.len() >= old.len() {
        (new, old)
    } else {
        (old, new)
    };
    Sites {
        used,
        reserve,
        is_released,
    }
}

// OpenAFS vlserver.h, VLSF_*.
const NEW_RELEASE: u32 = 0x01;
const HAS_READ_ONLY: u32 = 0x02;
const HAS_READ_WRITE: u32 = 0x04;
const IS_UUID: u32 = 0x10;
const DO_NOT_USE: u32 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the sites with these flags are used, and which are the reserve.
    fn split(flags: &[u32], kind: VolumeKind) -> (Vec<u32>, Vec<u32>) {
        let mut entry = VolumeEntry {
            servers: u32::try_from(flags.len()).unwrap(),
            ..VolumeEntry::default()
        };
        for (number, flags) in flags.iter().enumerate() {
            entry.uniques[number] = u32::try_from(number).unwrap();
            entry.server_flags[number] = *flags;
        }
        let sites = of(&entry, kind);
        let new = flags.iter().filter(|flags| **flags & 0x23 == 0x03).count();
        assert_eq!(sites.is_released, kind.is_read_only() && new > 0);
        let numbers = |sites: Vec<Site>| sites.iter().map(|site| site.unique).collect();
        (numbers(sites.used), numbers(sites.reserve))
    }

    #[test]
    fn old_and_new_sites_are_not_mixed() {
        let read_only = |flags: &[u32]| split(flags, VolumeKind::ReadOnly);
        assert_eq!(read_only(&[0x14, 0x12, 0x12, 0x12]), (vec![1, 2, 3], vec![]));
        assert_eq!(read_only(&[0x14, 0x13, 0x12, 0x12]), (vec![2, 3], vec![1]));
        assert_eq!(read_only(&[0x14, 0x13, 0x13, 0x12]), (vec![1, 2], vec![3]));
        assert_eq!(
            read_only(&[0x14, 0x13, 0x12]),
            (vec![1], vec![2]),
            "half are enough"
        );
        assert_eq!(read_only(&[0x14, 0x13, 0x13]), (vec![1, 2], vec![]));
        // Those that are not to be used do not count. So does vos release mark what it has not reached yet.
        assert_eq!(read_only(&[0x14, 0x33, 0x12, 0x12]), (vec![2, 3], vec![]));
        assert_eq!(read_only(&[0x15, 0x13, 0x32, 0x32]), (vec![1], vec![]));
        let read_write = split(&[0x15, 0x13, 0x12], VolumeKind::ReadWrite);
        assert_eq!(read_write, (vec![0], vec![]));
        assert_eq!(read_only(&[0x14]), (vec![], vec![]));
    }
}
