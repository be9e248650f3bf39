//! What each procedure does: the table of [`FileServer`] over the storage.
//!
//! The machine: a [`OneCall`] is one call of one host. Its methods work under the server's lock, make the promises that
//! the reply carries, and note the breaks that are owed; they wait for nothing. Who sends the reply pays what is owed
//! first.

use std::net::SocketAddrV4;
use std::sync::Arc;

use afs_client::rpc::fs::*;
use afs_client::rpc::types::{AfsFid, CallBack, FetchStatus, VolSync};
use afs_client::types::VolumeId;
use afs_client::xdr::List;
use parking_lot::Mutex;
use rustix::io::Errno;
use rxrpc::proto::AbortCode;

use afs_client::error::vice;

use super::breaks::Owed;
use super::faults::Lie;
use super::hosts::HostId;
use super::promises::{FileId, Promises};
use super::server::Server;
use super::storage::{Acl, At, Broken, Caller, ROOT, Readable, Refusal, Store, Volume};

/// One call that is being answered.
#[derive(Debug)]
pub(crate) struct OneCall {
    pub(crate) server: Arc<Server>,
    pub(crate) host: HostId,
    pub(crate) caller: Caller,
    /// The host understands unified codes.
    pub(crate) unified: bool,
    pub(crate) lie: Option<Lie>,
    pub(crate) owed: Mutex<Owed>,
}

/// What a procedure works on.
pub(crate) struct Held<'a> {
    call: &'a OneCall,
    volume: &'a mut Volume,
    promises: &'a mut Promises,
    now: u32,
}

type Answer<T> = Result<T, AbortCode>;

impl OneCall {
    /// Works on a volume under the server's lock.
    pub(crate) fn on<T>(
        &self,
        fid: AfsFid,
        work: impl FnOnce(&mut Held<'_>, At) -> Result<T, Refusal>,
    ) -> Answer<T> {
        self.try_on(fid, work)
            .map_err(|refusal| refusal.code(self.unified))
    }

    fn try_on<T>(
        &self,
        fid: AfsFid,
        work: impl FnOnce(&mut Held<'_>, At) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let state = &mut *self.server.state.lock();
        let id = VolumeId(fid.volume);
        if id.0 == 0 {
            return Err(Errno::INVAL.into());
        }
        let volume = match state.volumes.get_mut(&id) {
            Some(volume) => volume,
            None if state.moved.contains(&id) => return Err(Refusal::Code(vice::MOVED)),
            None => return Err(Refusal::Code(vice::NO_VOLUME)),
        };
        if let Some(code) = volume.refuses {
            return Err(Refusal::Code(code));
        }
        let mut held = Held {
            call: self,
            volume,
            promises: &mut state.promises,
            now: self.server.now(),
        };
        work(&mut held, FileId::from(fid).at)
    }

    /// Status and promise of one of many.
    fn bulk(&self, fid: AfsFid) -> Result<(FetchStatus, CallBack, VolSync), Refusal> {
        self.try_on(fid, |held, at| {
            held.volume.may_see(at, &self.caller)?;
            Ok((held.status(at)?, held.promise(at, true), held.volume.sync()))
        })
    }

    /// Begins to read: the data, and what is said about it.
    pub(crate) fn fetch(&self, args: &FetchDataArgs) -> Answer<(Readable, FetchDataReply)> {
        self.on(args.fid, |held, at| {
            let signed = [args.position, args.length].map(i64::try_from);
            if signed.iter().any(Result::is_err) {
                return Err(Errno::FBIG.into());
            }
            let data = held.volume.read(at, &self.caller)?;
            let reply = FetchDataReply {
                status: held.status(at)?,
                callback: held.promise(at, false),
                sync: held.volume.sync(),
            };
            Ok((data, reply))
        })
    }

    /// Begins a store: others are owed a break of what they hold.
    pub(crate) fn begin_store(&self, args: &StoreDataArgs) -> Answer<Store> {
        self.on(args.fid, |held, at| {
            let store = held.volume.begin_store(args, &self.caller)?;
            held.broken([Broken::others(at)]);
            Ok(store)
        })
    }

    /// Stores once more what was just stored.
    pub(crate) fn store_again(&self, args: &StoreDataArgs) -> Answer<()> {
        let spill = &self.server.common.spill;
        self.on(args.fid, |held, at| {
            let stored = held.volume.read(at, &Caller::ADMINISTRATOR)?;
            let mut again = held.volume.begin_store(args, &self.caller)?;
            let (mut at_byte, end) = (args.position, args.position + args.length);
            while at_byte < end {
                let part = stored.part(at_byte, end - at_byte).map_err(|_| Errno::IO)?;
                if part.is_empty() {
                    break;
                }
                at_byte += part.len() as u64;
                again.write(&part, spill)?;
            }
            again.complete(spill)?;
            held.volume.finish_store(again, &self.caller, held.now)?;
            held.broken([Broken::others(at)]);
            Ok(())
        })
    }

    /// Ends a store. Who has asked for the file while it went on was told what it was, and is owed a break as well.
    pub(crate) fn finish_store(&self, fid: AfsFid, store: Store) -> Answer<StoreDataReply> {
        self.on(fid, |held, at| {
            held.volume.finish_store(store, &self.caller, held.now)?;
            held.broken([Broken::others(at)]);
            Ok(StoreDataReply {
                status: held.status(at)?,
                sync: held.volume.sync(),
            })
        })
    }
}

impl Held<'_> {
    fn status(&self, at: At) -> Result<FetchStatus, Refusal> {
        let mut status = self.volume.status(at, &self.call.caller, self.now)?;
        match self.call.lie {
            Some(Lie::DataVersion) => {
                status.version_low = status.version_low.wrapping_add(LIE_VERSIONS);
            }
            Some(Lie::Status) => status.file_type = LIE_TYPE,
            _ => {}
        }
        Ok(status)
    }

    fn promise(&mut self, at: At, bulk: bool) -> CallBack {
        let file = if self.volume.kind.is_read_only() {
            FileId::whole(self.volume.id)
        } else {
            FileId {
                volume: self.volume.id,
                at,
            }
        };
        self.promises.promise(file, self.call.host, bulk, self.now)
    }

    /// Takes the promises that a change breaks.
    fn broken(&mut self, broken: impl IntoIterator<Item = Broken>) {
        let mut owed = self.call.owed.lock();
        for Broken { at, caller_too } in broken {
            let file = FileId {
                volume: self.volume.id,
                at,
            };
            let except = (!caller_too).then_some(self.call.host);
            let told = self.promises.take(file, except, self.now);
            owed.extend(told.into_iter().map(|host| (host, file)));
        }
    }
}

/// A directory, for the volume's operations.
fn place(fid: AfsFid) -> At {
    FileId::from(fid).at
}

/// Two directories of one operation must be in one volume.
fn same_volume(one: AfsFid, other: AfsFid) -> Result<(), Refusal> {
    if one.volume == other.volume {
        Ok(())
    } else {
        Err(Errno::XDEV.into())
    }
}

fn named(fid: AfsFid, at: At) -> AfsFid {
    FileId {
        volume: VolumeId(fid.volume),
        at,
    }
    .into()
}

impl FileServer for OneCall {
    fn fetch_acl(&self, _: SocketAddrV4, request: FetchAcl) -> Answer<FetchAclReply> {
        self.on(request.fid, |held, at| {
            let text = held.volume.acl_text(at, &self.caller)?;
            Ok(FetchAclReply {
                acl: format!("{text}\0").as_bytes().into(),
                status: held.status(at)?,
                sync: held.volume.sync(),
            })
        })
    }

    fn store_acl(&self, _: SocketAddrV4, request: StoreAcl) -> Answer<StoreAclReply> {
        let is_known = |name: &str| self.server.common.names.iter().any(|known| known == name);
        self.on(request.fid, |held, at| {
            let acl = Acl::parse(&request.acl.0, is_known)?;
            // Of the caller's rights it says what they were before.
            let status = held.status(at)?;
            let broken = held.volume.set_acl(at, acl, &self.caller, held.now)?;
            held.broken([broken]);
            Ok(StoreAclReply {
                status,
                sync: held.volume.sync(),
            })
        })
    }

    fn fetch_status(&self, _: SocketAddrV4, request: FetchStatusOf) -> Answer<FetchStatusReply> {
        self.on(request.fid, |held, at| {
            held.volume.may_see(at, &self.caller)?;
            Ok(FetchStatusReply {
                status: held.status(at)?,
                callback: held.promise(at, false),
                sync: held.volume.sync(),
            })
        })
    }

    fn store_status(&self, _: SocketAddrV4, request: StoreStatusOf) -> Answer<StoreStatusReply> {
        self.on(request.fid, |held, at| {
            let broken = held
                .volume
                .set_status(at, &request.status, &self.caller, held.now)?;
            held.broken([broken]);
            Ok(StoreStatusReply {
                status: held.status(at)?,
                sync: held.volume.sync(),
            })
        })
    }

    fn remove_file(&self, _: SocketAddrV4, request: RemoveFile) -> Answer<RemoveFileReply> {
        self.on(request.dir, |held, dir| {
            let broken = held
                .volume
                .remove_file(dir, &request.name.0, &self.caller, held.now)?;
            held.broken(broken);
            Ok(RemoveFileReply {
                dir_status: held.status(dir)?,
                sync: held.volume.sync(),
            })
        })
    }

    fn create_file(&self, _: SocketAddrV4, request: CreateFile) -> Answer<CreateFileReply> {
        self.on(request.dir, |held, dir| {
            let (at, broken) =
                held.volume
                    .create_file(dir, &request.name.0, &request.status, &self.caller, held.now)?;
            held.broken(broken);
            Ok(CreateFileReply {
                fid: named(request.dir, at),
                status: held.status(at)?,
                dir_status: held.status(dir)?,
                callback: held.promise(at, false),
                sync: held.volume.sync(),
            })
        })
    }

    fn rename(&self, _: SocketAddrV4, request: Rename) -> Answer<RenameReply> {
        self.on(request.from_dir, |held, from_dir| {
            same_volume(request.from_dir, request.to_dir)?;
            let to_dir = place(request.to_dir);
            let (from, to) = (&request.from.0, &request.to.0);
            let broken = held
                .volume
                .rename(from_dir, from, to_dir, to, &self.caller, held.now)?;
            held.broken(broken);
            Ok(RenameReply {
                from_status: held.status(from_dir)?,
                to_status: held.status(to_dir)?,
                sync: held.volume.sync(),
            })
        })
    }

    fn symlink(&self, _: SocketAddrV4, request: Symlink) -> Answer<SymlinkReply> {
        self.on(request.dir, |held, dir| {
            let (at, broken) = held.volume.symlink(
                dir,
                &request.name.0,
                request.target.0.clone(),
                &request.status,
                &self.caller,
                held.now,
            )?;
            held.broken(broken);
            Ok(SymlinkReply {
                fid: named(request.dir, at),
                status: held.status(at)?,
                dir_status: held.status(dir)?,
                sync: held.volume.sync(),
            })
        })
    }

    fn link(&self, _: SocketAddrV4, request: Link) -> Answer<LinkReply> {
        self.on(request.dir, |held, dir| {
            same_volume(request.dir, request.fid)?;
            let file = place(request.fid);
            let broken = held
                .volume
                .link(dir, &request.name.0, file, &self.caller, held.now)?;
            held.broken(broken);
            Ok(LinkReply {
                status: held.status(file)?,
                dir_status: held.status(dir)?,
                sync: held.volume.sync(),
            })
        })
    }

    fn make_dir(&self, _: SocketAddrV4, request: MakeDir) -> Answer<MakeDirReply> {
        self.on(request.dir, |held, dir| {
            let (at, broken) =
                held.volume
                    .make_dir(dir, &request.name.0, &request.status, &self.caller, held.now)?;
            held.broken(broken);
            Ok(MakeDirReply {
                fid: named(request.dir, at),
                status: held.status(at)?,
                dir_status: held.status(dir)?,
                callback: held.promise(at, false),
                sync: held.volume.sync(),
            })
        })
    }

    fn remove_dir(&self, _: SocketAddrV4, request: RemoveDir) -> Answer<RemoveDirReply> {
        self.on(request.dir, |held, dir| {
            let broken = held
                .volume
                .remove_dir(dir, &request.name.0, &self.caller, held.now)?;
            held.broken(broken);
            Ok(RemoveDirReply {
                dir_status: held.status(dir)?,
                sync: held.volume.sync(),
            })
        })
    }

    fn give_up_call_backs(&self, _: SocketAddrV4, request: GiveUpCallBacks) -> Answer<GiveUpCallBacksReply> {
        if request.fids.0.len() < request.callbacks.0.len() {
            return Err(Refusal::Errno(Errno::INVAL).code(self.unified));
        }
        let mut state = self.server.state.lock();
        for fid in request.fids.0 {
            state.promises.give_up(fid.into(), self.host);
        }
        Ok(GiveUpCallBacksReply {})
    }

    fn get_volume_status(&self, _: SocketAddrV4, request: GetVolumeStatus) -> Answer<GetVolumeStatusReply> {
        self.on(root(request.volume), |held, _| {
            let name = held.volume.name.as_bytes().into();
            Ok(GetVolumeStatusReply {
                status: held.volume.volume_status(),
                name,
                offline: afs_client::xdr::Text(held.volume.offline_message().clone()),
                motd: afs_client::xdr::Text::default(),
            })
        })
    }

    fn set_volume_status(&self, _: SocketAddrV4, request: SetVolumeStatus) -> Answer<SetVolumeStatusReply> {
        self.on(root(request.volume), |held, _| {
            held.volume
                .set_volume_status(&request.status, &request.offline.0, &self.caller)?;
            Ok(SetVolumeStatusReply {})
        })
    }

    fn get_time(&self, _: SocketAddrV4, _: GetTime) -> Answer<GetTimeReply> {
        Ok(GetTimeReply {
            seconds: self.server.now(),
            microseconds: 0,
        })
    }

    fn bulk_status(&self, _: SocketAddrV4, request: BulkStatus) -> Answer<BulkStatusReply> {
        let mut reply = BulkStatusReply::default();
        some_asked(&request.fids.0)?;
        for (index, fid) in request.fids.0.into_iter().enumerate() {
            let (status, callback, sync) = self.bulk(fid).map_err(|refusal| refusal.code(self.unified))?;
            reply.statuses.0.push(status);
            reply.callbacks.0.push(callback);
            if index == 0 {
                reply.sync = sync;
            }
        }
        Ok(reply)
    }

    fn set_lock(&self, _: SocketAddrV4, request: SetLock) -> Answer<SetLockReply> {
        self.on(request.fid, |held, at| {
            let write = match request.kind {
                0 => false,
                1 => true,
                _ => return Err(Errno::INVAL.into()),
            };
            held.volume.set_lock(at, write, &self.caller, held.now)?;
            Ok(SetLockReply {
                sync: held.volume.sync(),
            })
        })
    }

    fn extend_lock(&self, _: SocketAddrV4, request: ExtendLock) -> Answer<ExtendLockReply> {
        self.on(request.fid, |held, at| {
            held.volume.extend_lock(at, held.now)?;
            Ok(ExtendLockReply {
                sync: held.volume.sync(),
            })
        })
    }

    fn release_lock(&self, _: SocketAddrV4, request: ReleaseLock) -> Answer<ReleaseLockReply> {
        self.on(request.fid, |held, at| {
            let broken = held.volume.release_lock(at, held.now)?;
            held.broken(broken);
            Ok(ReleaseLockReply {
                sync: held.volume.sync(),
            })
        })
    }

    fn inline_bulk_status(
        &self,
        _: SocketAddrV4,
        request: InlineBulkStatus,
    ) -> Answer<InlineBulkStatusReply> {
        let mut reply = InlineBulkStatusReply::default();
        some_asked(&request.fids.0)?;
        let mut sync = None;
        for fid in request.fids.0 {
            let (status, callback) = match self.bulk(fid) {
                Ok((status, callback, of_volume)) => {
                    sync.get_or_insert(of_volume);
                    (status, callback)
                }
                Err(refusal) => (failed(refusal.code(self.unified)), CallBack::default()),
            };
            reply.statuses.0.push(status);
            reply.callbacks.0.push(callback);
        }
        reply.sync = sync.unwrap_or_default();
        Ok(reply)
    }

    fn give_up_all_call_backs(
        &self,
        _: SocketAddrV4,
        _: GiveUpAllCallBacks,
    ) -> Answer<GiveUpAllCallBacksReply> {
        self.server.state.lock().promises.forget(self.host);
        Ok(GiveUpAllCallBacksReply {})
    }

    fn get_capabilities(&self, _: SocketAddrV4, _: GetCapabilities) -> Answer<GetCapabilitiesReply> {
        Ok(GetCapabilitiesReply {
            capabilities: List(vec![CAPABILITIES]),
        })
    }
}

/// Who asks for nothing is told so by the number of the system, whoever he is.
fn some_asked(fids: &[AfsFid]) -> Answer<()> {
    if fids.is_empty() {
        return Err(AbortCode(Errno::INVAL.raw_os_error()));
    }
    Ok(())
}

/// The root of a volume.
fn root(volume: u32) -> AfsFid {
    FileId {
        volume: VolumeId(volume),
        at: ROOT,
    }
    .into()
}

/// A slot of a bulk reply without a status.
fn failed(code: AbortCode) -> FetchStatus {
    FetchStatus {
        interface_version: 1,
        error_code: code.0,
        ..FetchStatus::default()
    }
}

/// Error translation, files of 64 bits, locks with WRITE.
const CAPABILITIES: u32 = 7;
/// The type of a status that is none.
const LIE_TYPE: u32 = 9;
/// How far a false data version is off.
const LIE_VERSIONS: u32 = 1_000;
