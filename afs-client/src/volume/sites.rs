//! The sites of a copy, as an entry of the location database lists them, and which of them are used while a volume is released.
//!
//! The machine: `vos release` brings the new contents to one site after the other, and marks those that have them. As long as
//! fewer than half have, only the others are used, and from then on only those: nobody is shown the one and the other in turn
//! (cache-manager.md 2.2).

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

    const fn is_new(&self) -> bool {
        self.flags & NEW_RELEASE != 0
    }
}

/// The sites to use for a copy, and whether the volume is being released.
pub(super) fn of(entry: &VolumeEntry, kind: VolumeKind) -> (Vec<Site>, bool) {
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
    let mut sites: Vec<_> = sites
        .filter(|site| site.flags & wanted != 0 && site.flags & DO_NOT_USE == 0)
        .collect();
    let new = sites.iter().filter(|site| site.is_new()).count();
    let is_released = kind.is_read_only() && new > 0;
    if is_released {
        let takes_new = 2 * new >= sites.len();
        sites.retain(|site| site.is_new() == takes_new);
    }
    (sites, is_released)
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

    fn used(flags: &[u32], kind: VolumeKind) -> (Vec<u32>, bool) {
        let mut entry = VolumeEntry {
            servers: u32::try_from(flags.len()).unwrap(),
            ..VolumeEntry::default()
        };
        for (number, flags) in flags.iter().enumerate() {
            entry.uniques[number] = u32::try_from(number).unwrap();
            entry.server_flags[number] = *flags;
        }
        let (sites, is_released) = of(&entry, kind);
        (sites.iter().map(|site| site.unique).collect(), is_released)
    }

    #[test]
    fn old_and_new_sites_are_not_mixed() {
        let read_only = |flags: &[u32]| used(flags, VolumeKind::ReadOnly);
        assert_eq!(read_only(&[0x14, 0x12, 0x12, 0x12]), (vec![1, 2, 3], false));
        assert_eq!(read_only(&[0x14, 0x13, 0x12, 0x12]), (vec![2, 3], true));
        assert_eq!(read_only(&[0x14, 0x13, 0x13, 0x12]), (vec![1, 2], true));
        assert_eq!(read_only(&[0x14, 0x13, 0x12]), (vec![1], true), "half are enough");
        assert_eq!(read_only(&[0x14, 0x13, 0x13]), (vec![1, 2], true));
        // One that is not to be used does not count.
        assert_eq!(read_only(&[0x14, 0x33, 0x12, 0x12]), (vec![2, 3], false));
        let read_write = used(&[0x14, 0x13, 0x12], VolumeKind::ReadWrite);
        assert_eq!(read_write, (vec![0], false));
        assert_eq!(read_only(&[0x14]), (vec![], false));
    }
}
