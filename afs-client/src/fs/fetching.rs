//! Fetching file data into the cache.
//!
//! The machine: what is missing is fetched in pieces, each by a task of its own, so that several calls are under way. What
//! somebody waits for is asked for at once. What is fetched ahead takes its turn, because a server has few threads, and is
//! given up if nobody wants it any more when its turn comes. For the first piece that somebody waits for another replica is
//! asked too when the first is slow ([`hedge`](super::hedge)). Of a read-only volume each replica gets a share of the pieces;
//! one that has another release than the one that is being read is left alone for a while.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use rustix::io::Errno;
use tracing::Instrument as _;

use super::core::Caller;
use super::readahead::Reader;
use super::series::{Member, Opens, Step};
use super::types::Kind;
use super::walk::PREFETCH;
use crate::clock;
use crate::dir::Directory;
use crate::error::Error;
use crate::events::Flow;
use crate::op::Class;
use crate::rpc::client::RpcError;
use crate::rpc::fs::{FETCH_DATA_NAME, FetchDataArgs};
use crate::store::{Fill, Filling};
use crate::types::Fid;
use crate::vnode::Vnode;
use crate::vnode::status::Status;

/// What something is fetched for.
#[derive(Clone, Debug)]
pub(super) enum For {
    /// Somebody waits for it, until then.
    Waiting(Instant),
    /// Somebody may want it, who reads in sequence.
    Reader(Arc<Mutex<Reader>>),
    /// Somebody opens the files of a directory one after the other, as long as this is true.
    Series(Arc<AtomicBool>),
}

/// Whether another replica is asked too if the first is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Haste {
    Hedged,
    Alone,
}

impl For {
    /// Is it still wanted?
    fn wants(&self, range: &Range<u64>) -> bool {
        match self {
            Self::Waiting(_) => true,
            Self::Reader(reader) => reader.lock().wants(range),
            Self::Series(goes_on) => goes_on.load(Ordering::Relaxed),
        }
    }
}

impl Caller {
    /// Starts a task for each piece of `want` that is not here and not under way, and gives what to wait for.
    pub(super) fn begin_fetch(
        &self,
        vnode: &Arc<Vnode>,
        want: Range<u64>,
        unit: u64,
        what_for: &For,
    ) -> Vec<Arc<Filling>> {
        let fills = vnode.data().begin_fills(want, unit);
        let begun = fills.iter().map(Fill::filling).collect();
        for (number, fill) in fills.into_iter().enumerate() {
            let (caller, vnode, what_for) = (self.clone(), Arc::clone(vnode), what_for.clone());
            // What comes first is what is waited for.
            let haste = if number == 0 { Haste::Hedged } else { Haste::Alone };
            let fetch = async move { caller.fetch_in_turn(&vnode, fill, what_for, haste).await };
            self.runtime.spawn(fetch.in_current_span());
        }
        begun
    }

    /// Reads past the cache, which does not do its work; `None` if the file has changed meanwhile.
    pub(super) async fn read_past(
        &self,
        vnode: &Arc<Vnode>,
        range: &Range<u64>,
    ) -> Result<Option<Bytes>, Error> {
        let (version, sent) = self.fetch_range(vnode, range.clone()).await?;
        Ok(vnode.data().patched(range, version, &sent)?.map(Bytes::from))
    }

    /// Waits until nothing of `range` is under way, as long as pieces of the file arrive. False if something of it can only
    /// be had past the cache. What was `begun` for it may have ended already.
    pub(super) async fn fetched(
        &self,
        vnode: &Vnode,
        range: &Range<u64>,
        begun: Vec<Arc<Filling>>,
    ) -> Result<bool, Error> {
        let mut waited_for = begun;
        loop {
            let mut changed = pin!(vnode.data().changed());
            changed.as_mut().enable();
            let filling = vnode.data().filling(range);
            // Looked for after that: what is not under way any more has told by now how it ended.
            match waited_for.iter().find_map(|filling| filling.failure()) {
                Some(Some(error)) => return Err(error.clone()),
                Some(None) => return Ok(false),
                None if filling.is_empty() => return Ok(true),
                None => waited_for = filling,
            }
            let limit = self.until() + SLACK;
            if tokio::time::timeout_at(limit.into(), changed).await.is_err() {
                return Err(Errno::TIMEDOUT.into());
            }
        }
    }

    /// Somebody opens a file to read it: if files of this directory are opened one after the other, the next ones are fetched
    /// ahead. Of directories whose files are here no note is taken.
    pub(super) fn note_open(&self, vnode: &Vnode, status: &Status) {
        let (dir, file) = (
            status.directory_of(vnode.fid),
            (vnode.fid.vnode, vnode.fid.unique),
        );
        let directory = self.vnodes.peek(dir).and_then(|parent| {
            let version = parent.status()?.version;
            parent.directory(version).map(|directory| (version, directory))
        });
        let Some((version, directory)) = directory else {
            return;
        };
        let now = clock::now();
        let step = {
            let mut all = self.series.lock();
            let Some(opens) = all.get_mut(&dir) else {
                if vnode.data().held().0 < status.size {
                    let old = all.push(dir, Opens::first(file));
                    drop(all);
                    self.count_unused(old.iter().map(|(dir, opens)| (*dir, opens)));
                }
                return;
            };
            self.count_unused(opens.strayed(file).then_some((dir, &*opens)));
            opens.note(file, version, now)
        };
        let step = if matches!(step, Step::Compare) {
            // Outside of the lock: the directory may be large.
            let orders = orders_of(&directory);
            let mut all = self.series.lock();
            let Some(opens) = all.get_mut(&dir) else { return };
            opens.ordered(file, version, &orders, now)
        } else {
            step
        };
        if let Step::Ahead(members, goes_on) = step {
            let (caller, volume) = (self.clone(), Arc::clone(&vnode.volume));
            let next = members
                .into_iter()
                .map(|(vnode, unique)| self.vnode_in(dir.sibling(vnode, unique), &volume));
            let next: Vec<_> = next.collect();
            let fetch = async move { caller.fetch_series(&next, goes_on).await };
            self.runtime.spawn(fetch.in_current_span());
        }
    }

    /// Fetches the small ones of files that may be opened next.
    async fn fetch_series(&self, next: &[Arc<Vnode>], goes_on: Arc<AtomicBool>) {
        let unknown = next.iter().filter(|vnode| self.valid(vnode).is_none());
        let unknown: Vec<_> = unknown.take(PREFETCH).cloned().collect();
        if let Some(first) = unknown.first() {
            // One that fails says so when it is opened.
            let _ = self.bulk_status(first, &unknown).await;
        }
        let what_for = For::Series(goes_on);
        for vnode in next {
            let small = self.valid(vnode).filter(|(status, _)| {
                status.kind == Kind::File
                    && status.size <= SMALL_FILE
                    && status.is_readable_with(status.access)
                    && !vnode.data().is_modified()
            });
            if let Some((status, _)) = small {
                self.begin_fetch(vnode, 0..status.size, SMALL_FILE, &what_for);
            }
        }
    }

    /// Counts what was fetched ahead of opens that did not come.
    fn count_unused<'a>(&self, opens: impl IntoIterator<Item = (Fid, &'a Opens)>) {
        for (dir, opens) in opens {
            let members = opens.unused().iter();
            let vnodes = members.filter_map(|(vnode, unique)| self.vnodes.peek(dir.sibling(*vnode, *unique)));
            let bytes = vnodes.map(|vnode| vnode.data().held().0).sum();
            self.counts.flows.add(Flow::AheadUnused, bytes);
        }
    }

    /// Fetches one piece when it is its turn, if it is wanted then.
    async fn fetch_in_turn(&self, vnode: &Vnode, fill: Fill, what_for: For, haste: Haste) {
        if let For::Waiting(deadline) = what_for {
            return self.fetch(vnode, fill, deadline, haste).await;
        }
        let range = fill.range();
        let servers = vnode.volume.ranked(Some(range.end - range.start));
        let Some(server) = servers
            .iter()
            .find(|server| server.is_up())
            .or_else(|| servers.first())
        else {
            return;
        };
        let Ok(_turn) = server.turns().acquire().await else {
            return;
        };
        if what_for.wants(fill.range()) {
            self.fetch(vnode, fill, self.until(), Haste::Alone).await;
        }
    }

    /// Fetches one piece.
    async fn fetch(&self, vnode: &Vnode, fill: Fill, deadline: Instant, haste: Haste) {
        if let Err(error) = fill.prepare() {
            return fill.fail_here(&error);
        }
        let range = fill.range().clone();
        let length = range.end - range.start;
        let request = FetchDataArgs {
            fid: vnode.fid.into(),
            position: range.start,
            length,
        };
        let mut rotation = match self.rotation(vnode, FETCH_DATA_NAME, Class::Reading, deadline) {
            Ok(rotation) => rotation.bulk().spread(length),
            Err(error) => return fill.fail(error),
        };
        loop {
            let attempt = match rotation.next().await {
                Ok(attempt) => attempt,
                Err(error) => return fill.fail(error),
            };
            let (attempt, noted, fetched) = match haste {
                Haste::Hedged => {
                    self.fetch_hedged(vnode, &rotation, attempt, &request, &fill)
                        .await
                }
                Haste::Alone => {
                    let noted = self.note(vnode, &attempt);
                    let fetched = self.fetch_alone(&attempt, &request, &fill).await;
                    (attempt, noted, fetched)
                }
            };
            match fetched {
                Ok((length, reply)) => {
                    rotation.succeeded(&attempt);
                    self.counts.flows.add(Flow::Fetched, length);
                    // As long as it is promised; after that whatever comes counts.
                    let stands = vnode.stands(clock::now(), &self.all).is_some();
                    let known = vnode.status().filter(|_| stands).map(|status| status.version);
                    if rotation.is_of_another_release(&attempt, known, &reply.status) {
                        continue;
                    }
                    match self.learn(vnode, &reply.status, Some(&reply.callback), &noted) {
                        Ok(status) => drop(fill.commit(range.start + length, status.version)),
                        Err(error) => fill.fail(error),
                    }
                    return;
                }
                Err(RpcError::Cache(error)) => return fill.fail_here(&error),
                Err(error) => {
                    self.on_error(vnode, &error);
                    if let Err(error) = rotation.failed(&attempt, error).await {
                        return fill.fail(error);
                    }
                }
            }
        }
    }
}

/// The files of a directory, in its own order and in that of their names.
fn orders_of(directory: &Directory) -> [Arc<[Member]>; 2] {
    let files = directory.iter().filter(|entry| entry.vnode.0.is_multiple_of(2));
    let mut files: Vec<_> = files
        .map(|entry| (entry.name, (entry.vnode, entry.unique)))
        .collect();
    let members = |files: &[(&[u8], Member)]| files.iter().map(|(_, member)| *member).collect();
    let listed = members(&files);
    files.sort_unstable();
    [listed, members(&files)]
}

/// What is fetched ahead of an open.
const SMALL_FILE: u64 = 64 << 10;
/// The fetch has the deadline itself; the wait for it gives it time to say so.
const SLACK: Duration = Duration::from_secs(2);
