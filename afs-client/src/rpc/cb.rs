//! RXAFSCB: what file servers, and tools that look at cache managers, ask of us (OpenAFS `afscbint.xg`).

use super::service;
use super::types::{self, AfsFid, AfsUuid, BULK_MAX, Capabilities, InterfaceAddr};
use crate::xdr::{List, Text};

service! {
    /// A cache manager. Breaks must be applied when the method returns: the server lets its writer go on then.
    service 1, trait CallbackServer;

    /// Breaks promises.
    204 CallBack call_back (fids: List<AfsFid, BULK_MAX>, callbacks: List<types::CallBack, BULK_MAX>)
        -> CallBackReply ();
    /// The server has lost its promises.
    205 InitCallBackState init_callback_state () -> InitCallBackStateReply ();
    /// Is it there?
    206 Probe probe () -> ProbeReply ();
    /// The n-th lock.
    207 GetLock get_lock (index: i32) -> GetLockReply (name: [u32; 16], lock: [u32; 8]);
    /// The n-th vnode, with a length of 32 bits.
    208 GetCacheEntry get_cache_entry (index: i32)
        -> GetCacheEntryReply (address: u32, cell: u32, fid: AfsFid, length: u32, data_version: u32, lock: [u32; 8],
            callback: u32, expires: u32, references: u32, opens: u32, writers: u32, mount: u32, states: u32);
    /// The version of the statistics.
    209 XStatsVersion xstats_version () -> XStatsVersionReply (version: i32);
    /// A collection of statistics.
    210 GetXStats get_xstats (version: i32, collection: i32)
        -> GetXStatsReply (version: i32, time: i32, words: List<i32, 2048>);
    /// Obsolete: never answered.
    211 InitCallBackState2 init_callback_state_2 () -> InitCallBackState2Reply (interface: InterfaceAddr);
    /// Who are you, and where?
    212 WhoAreYou who_are_you () -> WhoAreYouReply (interface: InterfaceAddr);
    /// The server has lost its promises, and says who it is.
    213 InitCallBackState3 init_callback_state_3 (server: AfsUuid) -> InitCallBackState3Reply ();
    /// Are you this client still?
    214 ProbeUuid probe_uuid (client: AfsUuid) -> ProbeUuidReply ();
    /// The n-th server, and how it is ranked.
    215 GetServerPrefs get_server_prefs (index: i32) -> GetServerPrefsReply (address: i32, rank: i32);
    /// The n-th cell.
    216 GetCellServDb get_cell_serv_db (index: i32)
        -> GetCellServDbReply (name: Text<256>, hosts: List<u32, 8>);
    /// The home cell.
    217 GetLocalCell get_local_cell () -> GetLocalCellReply (name: Text<256>);
    /// How the cache is set up.
    218 GetCacheConfig get_cache_config (version: u32)
        -> GetCacheConfigReply (version: u32, bytes: u32, config: List<u32, 64>);
    /// The n-th vnode.
    65536 GetCacheEntry64 get_cache_entry_64 (index: i32)
        -> GetCacheEntry64Reply (address: u32, cell: u32, fid: AfsFid, length: u64, data_version: u32, lock: [u32; 8],
            callback: u32, expires: u32, references: u32, opens: u32, writers: u32, mount: u32, states: u32);
    /// The cell with this number.
    65537 GetCellByNum get_cell_by_num (number: i32)
        -> GetCellByNumReply (name: Text<256>, hosts: List<u32, 8>);
    /// Who are you, where, and what can you do?
    65538 TellMeAboutYourself tell_me_about_yourself ()
        -> TellMeAboutYourselfReply (interface: InterfaceAddr, capabilities: Capabilities);
}
