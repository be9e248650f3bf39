//! Storing what was written.
//!
//! The machine: one store of a file runs at a time; while it does, writes go on. What the server has is looked at first: if
//! somebody else changed it, nothing is sent, ours is set aside, and whoever closes the file is told. A call of which we do
//! not know what became is recognised by what the server has afterwards. Attributes that were set on what is dirty go with
//! its last call or, if nothing is dirty any more, in one of their own behind it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::core::Caller;
use super::data::ROUNDS;
use super::types::Invalidation;
use crate::clock;
use crate::error::Error;
use crate::events::Flow;
use crate::op::Class;
use crate::rpc::client::store_data;
use crate::rpc::fs::{STORE_DATA_NAME, StoreDataArgs};
use crate::rpc::types::StoreStatus;
use crate::store::{Attempt as StoreAttempt, Author, Mark, StoreCall, checksum_of};
use crate::types::DataVersion;
use crate::vnode::Vnode;
use crate::vnode::status::{Status, to_seconds};

impl Caller {
    /// Stores what is dirty of a file, as who wrote it last. With `sync` the server writes to its disk before it answers.
    ///
    /// # Errors
    ///
    /// `ESTALE`: somebody else has changed the file since; what was written here is set aside, if there is a place for that,
    /// and theirs stays. `ETIMEDOUT`: also if that came of a store that was waited for. Others: those of the way and of the
    /// server; the data is dirty as before.
    pub(crate) async fn store(&self, vnode: &Arc<Vnode>, sync: bool) -> Result<(), Error> {
        let set = StoreStatus {
            mask: if sync { StoreStatus::FSYNC } else { 0 },
            ..StoreStatus::default()
        };
        self.store_with(vnode, set).await.map(drop)
    }

    /// The same, and sets attributes with it; false if there were no contents that they could go with.
    pub(super) async fn store_with(&self, vnode: &Arc<Vnode>, set: StoreStatus) -> Result<bool, Error> {
        let asked = clock::now();
        let mut silent_at = vnode.storing.lock().await;
        if silent_at.is_some_and(|at| at >= asked) {
            return Err(Error::new(
                Errno::TIMEDOUT,
                "the store before this one had no answer",
            ));
        }
        let stored = self.store_alone(vnode, set).await;
        if let Err(error) = &stored
            && error.errno() == Errno::TIMEDOUT.raw_os_error()
        {
            *silent_at = Some(clock::now());
        }
        stored
    }

    /// The same, while nobody else stores the file.
    async fn store_alone(&self, vnode: &Arc<Vnode>, set: StoreStatus) -> Result<bool, Error> {
        let mut stored = false;
        if vnode.is_unstored() {
            let author = vnode.data().author();
            let writer = self.as_identity(author.who);
            writer.may_store(vnode, &author)?;
            stored = writer.store_contents(vnode, set).await?;
            writer.store_noted(vnode).await?;
        }
        if set.has(StoreStatus::FSYNC) {
            self.sync_stored(vnode).await?;
        }
        Ok(stored)
    }

    /// Stores what is dirty, with the attributes that are noted and those that are `set`; false if nothing is.
    async fn store_contents(&self, vnode: &Arc<Vnode>, set: StoreStatus) -> Result<bool, Error> {
        if !vnode.is_modified() {
            return Ok(false);
        }
        self.check_base(vnode).await?;
        if !vnode.is_modified() {
            return Ok(false);
        }
        let before = vnode.data().version();
        let plan = vnode.data().begin_store();
        let noted = vnode.noted();
        let set = noted.then(set);
        let mut left = plan.calls.iter();
        let (mut base, mut alone, mut ours) = (before, true, true);
        let mut last = None;
        while let Some(part) = left.next() {
            let is_last = left.len() == 0;
            // Bits or an owner could keep us from sending the rest.
            let every = StoreStatus::SET_MTIME | StoreStatus::FSYNC;
            let request = store_request(vnode, part, if is_last { set } else { set.only(every) });
            let (status, sent) = match self.store_part(vnode, part, &request).await {
                Ok(done) => done,
                Err(error) => {
                    self.counts.store_failed(error.errno());
                    vnode.data().store_failed();
                    vnode.distrust();
                    return Err(error);
                }
            };
            let steps = base.map_or(1, |base| status.version.0.wrapping_sub(base.0));
            alone &= steps == 1;
            // Whatever we have sent may have been executed.
            ours = (1..=sent).contains(&steps);
            if !is_last {
                if !ours {
                    vnode.data().store_failed();
                    return Err(self.conflict(vnode, status.version));
                }
                if steps == 1 {
                    vnode.data().part_stored(status.served());
                } else {
                    vnode.data().rebase(status.served());
                }
            }
            base = Some(status.version);
            last = Some(status);
        }
        let Some(status) = last else {
            return Ok(false);
        };
        let is_synced = set.has(StoreStatus::FSYNC);
        vnode.unsynced.store(!is_synced, Ordering::Release);
        vnode.data().end_store(status.served(), alone, noted);
        {
            let mut shown = vnode.shown.lock();
            if alone && *shown == before {
                *shown = Some(status.version);
            }
        }
        if !ours {
            self.counts.conflict();
            tracing::warn!(
                fid = %vnode.fid, version = %status.version,
                "somebody else has changed the file in the very moment in which it was stored: of the same bytes ours are left"
            );
        }
        if !alone {
            self.invalidate(Invalidation::Data(vnode.fid));
        }
        Ok(true)
    }

    /// Has the server set what is noted, unless there is something dirty again that it can go with.
    async fn store_noted(&self, vnode: &Vnode) -> Result<(), Error> {
        for _ in 0..ROUNDS {
            let noted = vnode.noted();
            if noted.mask == 0 || vnode.is_modified() {
                break;
            }
            self.set_status(vnode, noted).await?;
            vnode.data().status_stored(noted);
        }
        Ok(())
    }

    /// Has the server write to its disk what was stored before: a call that changes nothing, but for the version.
    async fn sync_stored(&self, vnode: &Arc<Vnode>) -> Result<(), Error> {
        if !vnode.unsynced.load(Ordering::Acquire) {
            return Ok(());
        }
        let writer = self.as_identity(vnode.data().author().who);
        let (status, _) = writer.status(vnode).await?;
        let nothing = StoreCall {
            range: status.size..status.size,
            file_length: status.size,
        };
        let set = StoreStatus {
            mask: StoreStatus::SET_MTIME | StoreStatus::FSYNC,
            client_mod_time: status.modified,
            ..StoreStatus::default()
        };
        let request = store_request(vnode, &nothing, set);
        writer.send_part(vnode, &request, || ()).await?;
        vnode.unsynced.store(false, Ordering::Release);
        Ok(())
    }

    /// One call of a store; gives how often it was sent.
    async fn store_part(
        &self,
        vnode: &Arc<Vnode>,
        part: &StoreCall,
        request: &StoreDataArgs,
    ) -> Result<(Status, u64), Error> {
        let sample = part.sample();
        let len = usize::try_from(sample.end - sample.start).unwrap_or_default();
        let mark = Mark {
            mtime: request.status.client_mod_time,
            sum: checksum_of(&vnode.data().read_for_store(sample.start, len)?),
        };
        self.send_part(vnode, request, || vnode.data().sending(part, mark))
            .await
    }

    /// Sends it; each time `sending` is called before.
    async fn send_part(
        &self,
        vnode: &Arc<Vnode>,
        request: &StoreDataArgs,
        sending: impl Fn(),
    ) -> Result<(Status, u64), Error> {
        let mut rotation = self
            .rotation(vnode, STORE_DATA_NAME, Class::Idempotent, self.until())?
            .bulk();
        let mut sent = 0;
        loop {
            let attempt = rotation.next().await?;
            let noted = self.note(vnode, &attempt);
            sent += 1;
            sending();
            let mut source = |at, len| vnode.data().read_for_store(at, len);
            match store_data(&self.endpoint, &attempt.target, request, &mut source).await {
                Ok(reply) => {
                    rotation.succeeded(&attempt);
                    self.counts.flows.add(Flow::Stored, request.length);
                    let status = self.learn(vnode, &reply.status, None, &noted)?;
                    return Ok((status, sent));
                }
                Err(error) => {
                    self.on_error(vnode, &error);
                    rotation.failed(&attempt, error).await?;
                }
            }
        }
    }

    /// May the caller store what an earlier program took from its author? Only who they were then may, in the cell too.
    fn may_store(&self, vnode: &Vnode, author: &Author) -> Result<(), Error> {
        let cell = &vnode.volume.cell.name;
        match &author.principal {
            Some(principal)
                if author.is_earlier && self.tokens.principal(self.who, cell).as_ref() != Some(principal) =>
            {
                Err(Error::new(
                    Errno::NOKEY,
                    format!("data waits for a token of {principal}: run afs aklog"),
                ))
            }
            _ => Ok(()),
        }
    }

    /// Sees that the server has what local changes are based on.
    async fn check_base(&self, vnode: &Arc<Vnode>) -> Result<(), Error> {
        if vnode.stands(clock::now(), &self.all).is_none()
            && let Err(error) = self.fetch_status(vnode).await
        {
            if error.errno() == Errno::ACCESS.raw_os_error() {
                // Who may put something there need not be one who may look. The reply to the store tells.
                return Ok(());
            }
            return Err(error);
        }
        let (Some(status), Some(base)) = (vnode.status(), vnode.data().version()) else {
            return Ok(());
        };
        if status.version == base {
            return Ok(());
        }
        if let Some(attempt) = vnode.data().attempt()
            && self.is_ours(vnode, base, &attempt, &status).await?
        {
            vnode.data().rebase(status.served());
            if self.is_there(vnode, &attempt, &status).await? {
                // To send it again might take away what somebody else writes meanwhile.
                vnode.data().begin_store();
                // Whether what is noted now went with it is not known.
                let noted = StoreStatus::default();
                vnode.data().end_store(status.served(), true, noted);
            }
            return Ok(());
        }
        if status.size == 0 && vnode.data().server_len() == 0 {
            // It was empty and is. The salvager gives another version to what was made just before its server died.
            vnode.data().rebase(status.served());
            return Ok(());
        }
        Err(self.conflict(vnode, status.version))
    }

    /// Was it a call of ours, of which we did not hear what became, that made the file what it is? The time of its last
    /// modification is then the one that we sent, its version is as many higher as we have sent calls, and what we sent is
    /// there, or its first packet: a call that was cut off leaves as much as had arrived.
    async fn is_ours(
        &self,
        vnode: &Arc<Vnode>,
        base: DataVersion,
        attempt: &StoreAttempt,
        status: &Status,
    ) -> Result<bool, Error> {
        let steps = status.version.0.wrapping_sub(base.0);
        if steps > attempt.tries.into() || status.modified != attempt.mark.mtime {
            return Ok(false);
        }
        let range = &attempt.call.range;
        if range.is_empty() {
            return Ok(status.size == range.end);
        }
        match self.fetch_range(vnode, attempt.call.sample()).await {
            Ok((_, theirs)) => Ok(checksum_of(&theirs) == attempt.mark.sum),
            // Who may write need not be one who may read.
            Err(error) if error.errno() == Errno::ACCESS.raw_os_error() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Has the server all that is dirty, by a call of ours of which we did not hear?
    async fn is_there(
        &self,
        vnode: &Arc<Vnode>,
        attempt: &StoreAttempt,
        status: &Status,
    ) -> Result<bool, Error> {
        let range = &attempt.call.range;
        let len = range.end - range.start;
        if status.size != vnode.data().len() || !vnode.data().is_dirty_within(range) || len > COMPARED {
            return Ok(false);
        }
        let ours = vnode
            .data()
            .read_for_store(range.start, usize::try_from(len).unwrap_or_default())?;
        match self.fetch_range(vnode, range.clone()).await {
            Ok((version, theirs)) => Ok(version == status.version && ours == theirs),
            Err(error) if error.errno() == Errno::ACCESS.raw_os_error() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Somebody else has changed the file since what is dirty of it was written: sets that aside.
    fn conflict(&self, vnode: &Arc<Vnode>, version: DataVersion) -> Error {
        self.counts.conflict();
        let base = vnode.data().version().unwrap_or_default();
        let reason =
            format!("somebody else has changed the file: version {base} here, {version} on the server");
        let error = self.set_aside(vnode, &reason);
        if vnode.opens.load(Ordering::Acquire) > 0 {
            vnode.owe(error.clone());
        }
        error
    }

    /// Takes what is dirty of a file out of the way. Without a place for it it stays, until the file is closed.
    pub(super) fn set_aside(&self, vnode: &Arc<Vnode>, reason: &str) -> Error {
        let why = match vnode.data().set_aside(reason) {
            Some(Ok(path)) => {
                self.give_up(vnode);
                format!("{reason}; what was written here is in {}", path.display())
            }
            Some(Err(error)) => {
                tracing::error!(fid = %vnode.fid, %error, "data cannot be set aside");
                format!("{reason}; what was written here cannot be set aside: {error}")
            }
            None => {
                if vnode.opens.load(Ordering::Acquire) == 0 {
                    tracing::error!(fid = %vnode.fid, reason, "what was written here is given up: it has no cache directory");
                    self.give_up(vnode);
                }
                reason.to_owned()
            }
        };
        Error::new(Errno::STALE, why)
    }

    /// What is dirty of a file counts no more.
    pub(super) fn give_up(&self, vnode: &Vnode) {
        vnode.data().discard();
        vnode.distrust();
        self.invalidate(Invalidation::Node(vnode.fid));
    }
}

/// One call of a store. Its time of modification is now, unless another one is set. With `FSYNC` the server writes the file to
/// its disk before it answers, whatever of it was stored when.
fn store_request(vnode: &Vnode, part: &StoreCall, set: StoreStatus) -> StoreDataArgs {
    let now = StoreStatus {
        mask: StoreStatus::SET_MTIME,
        client_mod_time: to_seconds(clock::wall()),
        ..StoreStatus::default()
    };
    StoreDataArgs {
        fid: vnode.fid.into(),
        status: now.then(set),
        position: part.range.start,
        length: part.range.end - part.range.start,
        file_length: part.file_length,
    }
}

/// As much is fetched to see whether it is what we have sent.
const COMPARED: u64 = 8 << 20;
