//! The structures of the AFS-3 interfaces (OpenAFS `afsint.xg`, `afscbint.xg`, `vldbint.xg`).

use std::fmt;

use crate::types::{DataVersion, Fid, Uniquifier, VnodeId, VolumeId};
use crate::xdr::{Decode, Decoder, Encode, List, Text, XdrError, xdr_struct};

/// Longest name in a directory, on the wire.
pub const NAME_MAX: u32 = 256;
/// Longest text of a link.
pub const PATH_MAX: u32 = 1024;
/// Most FIDs in a bulk call.
pub const BULK_MAX: u32 = 50;

/// Most bytes of an access control list.
pub const ACL_MAX: u32 = 1024;

/// An access control list.
pub type AclText = Text<ACL_MAX>;
/// A name in a directory.
pub type Name = Text<NAME_MAX>;

xdr_struct! {
    /// `AFSFid`: a file, for the servers of one cell.
    pub struct AfsFid {
        /// Volume.
        volume: u32,
        /// Vnode; 0 in a break means the whole volume.
        vnode: u32,
        /// Uniquifier.
        unique: u32,
    }

    /// `AFSCallBack`: a promise.
    pub struct CallBack {
        /// 1.
        version: u32,
        /// Seconds from now for which it stands.
        expiration_time: u32,
        /// 1 exclusive, 2 shared, 3 dropped, 0 none.
        callback_type: u32,
    }

    /// `AFSVolSync`.
    pub struct VolSync {
        /// When the instance of the volume was made (unix seconds).
        creation: u32,
        /// Zero.
        spare: [u32; 5],
    }

    /// `AFSFetchStatus`.
    pub struct FetchStatus {
        /// 1.
        interface_version: u32,
        /// 1 file, 2 directory, 3 symbolic link or mount point.
        file_type: u32,
        /// Links.
        link_count: u32,
        /// Low word of the length.
        length_low: u32,
        /// Low word of the data version.
        version_low: u32,
        /// ViceId of the last writer.
        author: u32,
        /// ViceId of the owner.
        owner: u32,
        /// Rights of the caller.
        caller_access: u32,
        /// Rights of everybody.
        anonymous_access: u32,
        /// Mode, 12 bits.
        unix_mode_bits: u32,
        /// Vnode of the directory it is in (not for directories).
        parent_vnode: u32,
        /// Its uniquifier.
        parent_unique: u32,
        /// 1.
        residency_mask: u32,
        /// Modification time, unix seconds.
        client_mod_time: u32,
        /// Last change as the server saw it.
        server_mod_time: u32,
        /// Group.
        group: u32,
        /// 0.
        sync_counter: u32,
        /// High word of the data version.
        version_high: u32,
        /// Locks: readers, or -1 for a writer.
        lock_count: u32,
        /// High word of the length.
        length_high: u32,
        /// In bulk replies: why there is no status.
        error_code: i32,
    }

    /// `AFSStoreStatus`: the attributes to set.
    pub struct StoreStatus {
        /// Which fields count.
        mask: u32,
        /// Modification time.
        client_mod_time: u32,
        /// Owner.
        owner: u32,
        /// Group.
        group: u32,
        /// Mode.
        unix_mode_bits: u32,
        /// Ignored.
        segment_size: u32,
    }

    /// `AFSFetchVolumeStatus`; sizes in KiB.
    pub struct VolumeStatus {
        /// Id.
        id: u32,
        /// Id of the parent.
        parent: u32,
        /// Online.
        online: u32,
        /// In service.
        in_service: u32,
        /// Blessed.
        blessed: u32,
        /// To be salvaged.
        needs_salvage: u32,
        /// 0 read-only, 1 read-write.
        kind: u32,
        /// Smallest quota.
        min_quota: i32,
        /// Quota; 0 is none.
        max_quota: i32,
        /// Used.
        blocks_in_use: i32,
        /// Free on the partition.
        partition_available: i32,
        /// Size of the partition.
        partition_blocks: i32,
    }

    /// `AFSStoreVolumeStatus`.
    pub struct StoreVolumeStatus {
        /// Which fields count: 1 the smallest quota, 2 the quota.
        mask: u32,
        /// Smallest quota, KiB.
        min_quota: i32,
        /// Quota, KiB; 0 is none.
        max_quota: i32,
    }

    /// `interfaceAddr`: who a host is and where it can be reached.
    pub struct InterfaceAddr {
        /// How many of the addresses count.
        count: u32,
        /// Identity.
        uuid: AfsUuid,
        /// IPv4 addresses.
        addresses: [u32; 32],
        /// Their net masks.
        masks: [u32; 32],
        /// Their MTUs.
        mtus: [u32; 32],
    }

    /// `uvldbentry`: where a volume and its copies are.
    pub struct VolumeEntry {
        /// Name, one character in each word, zero-terminated.
        name: NameWords,
        /// How many of the servers count.
        servers: u32,
        /// Server UUIDs (or an address in the first word).
        uuids: [AfsUuid; 13],
        /// Versions of the servers' address lists.
        uniques: [u32; 13],
        /// Partitions.
        partitions: [u32; 13],
        /// What each server has.
        server_flags: [u32; 13],
        /// Ids of the read-write, read-only and backup copies.
        ids: [u32; 3],
        /// Clone under way.
        clone_id: u32,
        /// Which copies exist.
        flags: u32,
        /// Unused.
        match_index: u32,
        /// Unused.
        spare: [u32; 8],
    }

    /// `ListAddrByAttributes`: which server's addresses are wanted.
    pub struct AddressQuery {
        /// 4: by UUID.
        mask: u32,
        /// Address.
        address: u32,
        /// Index.
        index: u32,
        /// Unused.
        spare: u32,
        /// UUID.
        uuid: AfsUuid,
    }
}

impl Copy for AfsFid {}
impl Copy for CallBack {}
impl Copy for FetchStatus {}
impl Copy for StoreStatus {}

impl From<Fid> for AfsFid {
    fn from(fid: Fid) -> Self {
        Self {
            volume: fid.volume.0,
            vnode: fid.vnode.0,
            unique: fid.unique.0,
        }
    }
}

impl AfsFid {
    /// The file in the cell that `near` is in.
    #[must_use]
    pub const fn in_cell_of(self, near: Fid) -> Fid {
        Fid {
            cell: near.cell,
            volume: VolumeId(self.volume),
            vnode: VnodeId(self.vnode),
            unique: Uniquifier(self.unique),
        }
    }
}

impl FetchStatus {
    /// Length in bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        (u64::from(self.length_high) << 32) | u64::from(self.length_low)
    }

    /// Data version.
    #[must_use]
    pub fn data_version(&self) -> DataVersion {
        DataVersion((u64::from(self.version_high) << 32) | u64::from(self.version_low))
    }
}

impl StoreStatus {
    /// `client_mod_time` counts.
    pub const SET_MTIME: u32 = 1;
    /// `owner` counts.
    pub const SET_OWNER: u32 = 2;
    /// `group` counts.
    pub const SET_GROUP: u32 = 4;
    /// `unix_mode_bits` counts.
    pub const SET_MODE: u32 = 8;
    /// The server writes to its disk before it answers.
    pub const FSYNC: u32 = 1024;

    /// Does any of these bits count?
    #[must_use]
    pub const fn has(&self, bits: u32) -> bool {
        self.mask & bits != 0
    }

    /// Only what these bits name.
    #[must_use]
    pub const fn only(self, bits: u32) -> Self {
        Self {
            mask: self.mask & bits,
            ..self
        }
    }

    /// What comes of setting this and `later` after it.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        let latest = |bit, ours, theirs| if later.has(bit) { theirs } else { ours };
        Self {
            mask: self.mask | later.mask,
            client_mod_time: latest(Self::SET_MTIME, self.client_mod_time, later.client_mod_time),
            owner: latest(Self::SET_OWNER, self.owner, later.owner),
            group: latest(Self::SET_GROUP, self.group, later.group),
            unix_mode_bits: latest(Self::SET_MODE, self.unix_mode_bits, later.unix_mode_bits),
            ..self
        }
    }

    /// What is left of it to be set once `done` is.
    #[must_use]
    pub fn without(self, done: Self) -> Self {
        let is_same = [
            (Self::SET_MTIME, self.client_mod_time == done.client_mod_time),
            (Self::SET_OWNER, self.owner == done.owner),
            (Self::SET_GROUP, self.group == done.group),
            (Self::SET_MODE, self.unix_mode_bits == done.unix_mode_bits),
        ];
        let same = is_same.into_iter().filter(|(_, is_same)| *is_same);
        let same = same.fold(0, |bits, (bit, _)| bits | bit);
        self.only(!(same & done.mask))
    }
}

/// The name of a volume: 65 characters, one in each word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameWords([u32; 65]);

impl Default for NameWords {
    fn default() -> Self {
        Self([0; 65])
    }
}

impl NameWords {
    /// A name in words; what is longer than a name can be is cut.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut words = [0; 65];
        for (word, byte) in words.iter_mut().take(64).zip(name.bytes()) {
            *word = u32::from(byte);
        }
        Self(words)
    }

    /// The name.
    #[must_use]
    pub fn text(&self) -> String {
        let characters = self.0.iter().take_while(|word| **word & 0xff != 0);
        characters.map(|word| char::from((*word & 0x7f) as u8)).collect()
    }
}

impl Encode for NameWords {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
    }
}

impl Decode for NameWords {
    const MIN_LEN: usize = 65 * 4;

    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError> {
        Decode::decode(input).map(Self)
    }
}

/// `afsUUID`: 16 bytes, on the wire 11 words.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct AfsUuid(pub [u8; 16]);

impl AfsUuid {
    /// A random one (RFC 9562, version 4) out of 16 random bytes.
    #[must_use]
    pub const fn random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// The first word: where there is no UUID, an IPv4 address.
    #[must_use]
    pub const fn time_low(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl Encode for AfsUuid {
    fn encode(&self, out: &mut Vec<u8>) {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.0;
        u32::from_be_bytes([a, b, c, d]).encode(out);
        u32::from(u16::from_be_bytes([e, f])).encode(out);
        u32::from(u16::from_be_bytes([g, h])).encode(out);
        // Characters are signed.
        rest.iter()
            .for_each(|byte| i32::from(byte.cast_signed()).encode(out));
    }
}

impl Decode for AfsUuid {
    const MIN_LEN: usize = 44;

    fn decode(input: &mut Decoder<'_>) -> Result<Self, XdrError> {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend_from_slice(input.take(4)?);
        for width in [2, 2, 1, 1, 1, 1, 1, 1, 1, 1] {
            let word = input.take(4)?;
            bytes.extend_from_slice(word.get(4 - width..).unwrap_or_default());
        }
        bytes.try_into().map(Self).map_err(|_| XdrError::Short)
    }
}

impl fmt::Display for AfsUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for AfsUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The words of a capabilities reply.
pub type Capabilities = List<u32, 196>;

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;
    use crate::xdr::from_bytes;

    #[test]
    fn uuid_spreads_over_eleven_words() {
        let uuid = AfsUuid(hex!("00112233 4455 6677 ba 99 aabbccddeeff"));
        let mut out = Vec::new();
        uuid.encode(&mut out);
        assert_eq!(out.len(), 44);
        assert_eq!(out[..16], hex!("00112233 00004455 00006677 ffffffba"));
        assert_eq!(from_bytes::<AfsUuid>(&out), Ok(uuid));
        assert_eq!(uuid.to_string(), "00112233-4455-6677-ba99-aabbccddeeff");
    }

    #[test]
    fn structures_have_their_sizes() {
        assert_eq!(FetchStatus::MIN_LEN, 21 * 4);
        assert_eq!(InterfaceAddr::MIN_LEN, 108 * 4);
        assert_eq!(VolumeEntry::MIN_LEN, 262 * 4);
        assert_eq!(VolumeStatus::MIN_LEN, 12 * 4);
        assert_eq!(AddressQuery::MIN_LEN, 15 * 4);
    }
}
