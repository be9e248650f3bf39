//! The volume location service (OpenAFS `vldbint.xg`).

use super::service;
use super::types::{AddressQuery, AfsUuid, VolumeEntry};
use crate::xdr::{List, Text};

service! {
    /// A volume location server.
    service 52, trait LocationServer;

    /// Is it there?
    514 ProbeServer probe_server () -> ProbeServerReply ();
    /// Where a volume is; the name may be a number.
    527 GetEntryByName get_entry_by_name (name: Text<65>) -> GetEntryByNameReply (entry: VolumeEntry);
    /// Where a file server is.
    533 GetAddrs get_addrs (query: AddressQuery)
        -> GetAddrsReply (uuid: AfsUuid, unique: u32, count: u32, addresses: List<u32, 500>);
}

// Codes of the service (OpenAFS `vl_errors.et`).
/// The database cannot be read.
pub const IO: i32 = 363_521;
/// The volume is not in the database.
pub const NO_ENTRY: i32 = 363_524;
/// There is no volume at all.
pub const EMPTY: i32 = 363_525;
/// The volume was deleted from the database.
pub const ENTRY_DELETED: i32 = 363_526;
/// No volume can have such a name.
pub const BAD_NAME: i32 = 363_527;
/// The caller may not do that.
pub const PERM: i32 = 363_546;
