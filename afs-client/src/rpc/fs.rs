//! RXAFS: the file service (OpenAFS `afsint.xg`). FetchData and StoreData carry file data outside of XDR: see
//! [`client`](super::client) and [`serve`](super::serve).

use super::service;
use super::types::{
    AclText, AfsFid, BULK_MAX, CallBack, Capabilities, FetchStatus, Name, PATH_MAX, StoreStatus,
    StoreVolumeStatus, VolSync, VolumeStatus,
};
use crate::types::VnodeId;
use crate::vnode::status::{BadStatus, Status};
use crate::xdr::{List, Text};

service! {
    /// A file server.
    service 1, trait FileServer;

    /// The access control list that governs a file: text, closed by a NUL.
    131 FetchAcl fetch_acl (fid: AfsFid) -> FetchAclReply (acl: AclText, status: FetchStatus, sync: VolSync);
    /// The attributes of a file, and a promise.
    132 FetchStatusOf fetch_status (fid: AfsFid)
        -> FetchStatusReply (status: FetchStatus, callback: CallBack, sync: VolSync) if is_status_of;
    /// Sets the access control list of a directory.
    134 StoreAcl store_acl (fid: AfsFid, acl: AclText) -> StoreAclReply (status: FetchStatus, sync: VolSync);
    /// Sets attributes.
    135 StoreStatusOf store_status (fid: AfsFid, status: StoreStatus)
        -> StoreStatusReply (status: FetchStatus, sync: VolSync);
    /// Removes a name that is not a directory's.
    136 RemoveFile remove_file (dir: AfsFid, name: Name)
        -> RemoveFileReply (dir_status: FetchStatus, sync: VolSync);
    /// Makes a file.
    137 CreateFile create_file (dir: AfsFid, name: Name, status: StoreStatus)
        -> CreateFileReply (fid: AfsFid, status: FetchStatus, dir_status: FetchStatus, callback: CallBack, sync: VolSync);
    /// Renames within a volume.
    138 Rename rename (from_dir: AfsFid, from: Name, to_dir: AfsFid, to: Name)
        -> RenameReply (from_status: FetchStatus, to_status: FetchStatus, sync: VolSync);
    /// Makes a symbolic link or a mount point.
    139 Symlink symlink (dir: AfsFid, name: Name, target: Text<PATH_MAX>, status: StoreStatus)
        -> SymlinkReply (fid: AfsFid, status: FetchStatus, dir_status: FetchStatus, sync: VolSync);
    /// Makes a hard link in the directory of the file.
    140 Link link (dir: AfsFid, name: Name, fid: AfsFid)
        -> LinkReply (status: FetchStatus, dir_status: FetchStatus, sync: VolSync);
    /// Makes a directory.
    141 MakeDir make_dir (dir: AfsFid, name: Name, status: StoreStatus)
        -> MakeDirReply (fid: AfsFid, status: FetchStatus, dir_status: FetchStatus, callback: CallBack, sync: VolSync);
    /// Removes an empty directory.
    142 RemoveDir remove_dir (dir: AfsFid, name: Name)
        -> RemoveDirReply (dir_status: FetchStatus, sync: VolSync);
    /// Gives promises up; what is said about them is ignored.
    147 GiveUpCallBacks give_up_call_backs (fids: List<AfsFid, BULK_MAX>, callbacks: List<CallBack, BULK_MAX>)
        -> GiveUpCallBacksReply ();
    /// Quota and space of a volume.
    149 GetVolumeStatus get_volume_status (volume: u32)
        -> GetVolumeStatusReply (status: VolumeStatus, name: Text<256>, offline: Text<1024>, motd: Text<1024>);
    /// Sets the quota and the texts of a volume.
    150 SetVolumeStatus set_volume_status (volume: u32, status: StoreVolumeStatus, name: Text<256>, offline: Text<1024>,
        motd: Text<1024>) -> SetVolumeStatusReply ();
    /// The server's clock; a way to see whether it lives.
    153 GetTime get_time () -> GetTimeReply (seconds: u32, microseconds: u32);
    /// The attributes of many files; all fail if one does.
    155 BulkStatus bulk_status (fids: List<AfsFid, BULK_MAX>)
        -> BulkStatusReply (statuses: List<FetchStatus, BULK_MAX>, callbacks: List<CallBack, BULK_MAX>, sync: VolSync);
    /// Locks a file, 0 for reading or 1 for writing, for 300 s.
    156 SetLock set_lock (fid: AfsFid, kind: i32) -> SetLockReply (sync: VolSync);
    /// Renews whatever lock the file has.
    157 ExtendLock extend_lock (fid: AfsFid) -> ExtendLockReply (sync: VolSync);
    /// Takes one lock away.
    158 ReleaseLock release_lock (fid: AfsFid) -> ReleaseLockReply (sync: VolSync);
    /// The attributes of many files; each may fail by itself.
    65536 InlineBulkStatus inline_bulk_status (fids: List<AfsFid, BULK_MAX>)
        -> InlineBulkStatusReply (statuses: List<FetchStatus, BULK_MAX>, callbacks: List<CallBack, BULK_MAX>, sync: VolSync);
    /// Gives all promises of this client up.
    65539 GiveUpAllCallBacks give_up_all_call_backs () -> GiveUpAllCallBacksReply ();
    /// What the server can do.
    65540 GetCapabilities get_capabilities () -> GetCapabilitiesReply (capabilities: Capabilities);
}

fn is_status_of(request: &FetchStatusOf, reply: &FetchStatusReply) -> Result<(), BadStatus> {
    Status::check(VnodeId(request.fid.vnode), &reply.status).map(drop)
}

/// The first word of FetchData64.
pub const FETCH_DATA: u32 = 65537;
/// Its name.
pub const FETCH_DATA_NAME: &str = "FetchData64";
/// The first word of StoreData64.
pub const STORE_DATA: u32 = 65538;
/// Its name.
pub const STORE_DATA_NAME: &str = "StoreData64";

/// The first word of FetchData (130), for files below 2 GiB.
pub const FETCH_DATA_32: u32 = 130;
/// Its name.
pub const FETCH_DATA_32_NAME: &str = "FetchData";
/// The first word of StoreData (133), for files below 2 GiB.
pub const STORE_DATA_32: u32 = 133;
/// Its name.
pub const STORE_DATA_32_NAME: &str = "StoreData";

crate::xdr::xdr_struct! {
    /// The arguments of FetchData, whose reply begins with a length of one word.
    pub struct FetchData32Args {
        /// The file.
        fid: AfsFid,
        /// First byte.
        position: i32,
        /// Most bytes.
        length: i32,
    }

    /// The arguments of StoreData, which the data follows.
    pub struct StoreData32Args {
        /// The file.
        fid: AfsFid,
        /// Attributes to set with it.
        status: StoreStatus,
        /// First byte.
        position: u32,
        /// How many bytes follow.
        length: u32,
        /// Length of the file: it is cut to that first.
        file_length: u32,
    }

    /// The arguments of FetchData64.
    pub struct FetchDataArgs {
        /// The file.
        fid: AfsFid,
        /// First byte.
        position: u64,
        /// Most bytes.
        length: u64,
    }

    /// What follows the data in the reply of FetchData64.
    pub struct FetchDataReply {
        /// The state of the file at the time of the read.
        status: FetchStatus,
        /// A promise.
        callback: CallBack,
        /// The volume.
        sync: VolSync,
    }

    /// The arguments of StoreData64, which the data follows.
    pub struct StoreDataArgs {
        /// The file.
        fid: AfsFid,
        /// Attributes to set with it.
        status: StoreStatus,
        /// First byte.
        position: u64,
        /// How many bytes follow.
        length: u64,
        /// Length of the file: it is cut to that first.
        file_length: u64,
    }

    /// What StoreData64 is answered with.
    pub struct StoreDataReply {
        /// The new state of the file.
        status: FetchStatus,
        /// The volume.
        sync: VolSync,
    }
}

impl From<FetchData32Args> for FetchDataArgs {
    /// What is negative stays that, as bits.
    fn from(narrow: FetchData32Args) -> Self {
        let wide = |word: i32| i64::from(word).cast_unsigned();
        Self {
            fid: narrow.fid,
            position: wide(narrow.position),
            length: wide(narrow.length),
        }
    }
}

impl From<StoreData32Args> for StoreDataArgs {
    fn from(narrow: StoreData32Args) -> Self {
        Self {
            fid: narrow.fid,
            status: narrow.status,
            position: narrow.position.into(),
            length: narrow.length.into(),
            file_length: narrow.file_length.into(),
        }
    }
}
