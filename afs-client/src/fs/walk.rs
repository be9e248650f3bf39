//! Names: the synthetic root, directories, links and mount points.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;

use super::core::{Caller, Core};
use super::crossing::made_up;
use super::synthetic::{self, FOREVER, MOUNTS, ROOT, is_synthetic};
use super::types::{Attr, Entry, Kind, ListEntry, Listing, Lookup};
use crate::cell::CellName;
use crate::dir::Directory;
use crate::error::Error;
use crate::events::Cached;
use crate::mount_point::{MountKind, MountTarget};
use crate::op::Class;
use crate::rpc::Procedure as _;
use crate::rpc::client::fetch_data;
use crate::rpc::fs::{FETCH_DATA_NAME, FetchDataArgs, InlineBulkStatus};
use crate::rpc::types::AfsFid;
use crate::types::{DataVersion, Fid, Uniquifier, VnodeId};
use crate::vnode::Vnode;
use crate::vnode::status::{MAX_DIRECTORY, MAX_LINK, Status};
use crate::volume::Parent;
use crate::xdr::List;

/// A name that the kernel hands us must be one that AFS can have.
pub(crate) fn check_name(name: &[u8]) -> Result<(), Error> {
    if name.len() > NAME_MAX {
        return Err(Errno::NAMETOOLONG.into());
    }
    let is_reserved = name.is_empty() || name == b"." || name == b".." || name.ends_with(SYSTEM);
    if is_reserved || name.contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    Ok(())
}

impl Core {
    pub(crate) fn attr(vnode: &Vnode, status: &Status) -> Attr {
        let noted = vnode.noted();
        if status.kind == Kind::File && vnode.is_modified() {
            return Attr {
                size: vnode.data().len(),
                ..status.with(noted).attr(vnode.fid)
            };
        }
        // If it was stored since the status was looked at, there is a newer one.
        let known = vnode.status().filter(|known| known.version > status.version);
        known.unwrap_or(*status).with(noted).attr(vnode.fid)
    }
}

/// For how long the kernel may believe in a name.
#[derive(Clone, Copy, Debug)]
struct Stands {
    /// If it is that of a directory.
    directory: Duration,
    /// If it is that of anything else, which only what anybody may see is kept of.
    other: Duration,
}

impl Stands {
    const FOREVER: Self = Self {
        directory: FOREVER,
        other: FOREVER,
    };

    /// One that stands for another one may stand for yet another after the next change: the kernel is to ask each time.
    fn of(self, name: &[u8]) -> Self {
        if name.ends_with(SYSTEM) {
            self.at_most(Duration::ZERO)
        } else {
            self
        }
    }

    fn at_most(self, ttl: Duration) -> Self {
        Self {
            directory: self.directory.min(ttl),
            other: self.other.min(ttl),
        }
    }
}

impl Caller {
    /// For how long names in a directory stand, whose status stands for `ttl`.
    fn stands(&self, dir: &Status, ttl: Duration) -> Stands {
        Stands {
            directory: ttl,
            other: self.kept(dir, ttl),
        }
    }

    /// Looks a name up without waiting.
    pub(crate) fn lookup_cached(&self, dir: Fid, name: &[u8]) -> Option<Result<Lookup, Error>> {
        if name.len() > NAME_MAX {
            return Some(Err(Errno::NAMETOOLONG.into()));
        }
        if is_synthetic(dir) {
            return self.lookup_synthetic_cached(dir, name).map(Ok);
        }
        let parent = self.vnodes.get(dir)?;
        let (dir_status, dir_ttl) = self.valid(&parent)?;
        if dir_status.may_search().is_err() {
            return Some(self.kept_in_place(&parent, name));
        }
        let stands = self.stands(&dir_status, dir_ttl).of(name);
        let directory = parent.directory(dir_status.version)?;
        let Some((vnode, unique)) = self.find(&directory, name) else {
            self.counts.hits.count(Cached::Absence);
            return Some(Ok(Lookup::Absent { ttl: stands.other }));
        };
        let found = self.vnodes.get(dir.sibling(vnode, unique))?;
        let (status, ttl) = self.valid(&found)?;
        self.counts.hits.count(Cached::Directory);
        let entry = match self.target_cached(&found, &status)? {
            Some(target) => {
                let told = self.attr_of_point_cached(self.sight(&found, &status, &target))?;
                point(told, stands.at_most(ttl))
            }
            None => self.found(&found, &status, ttl, stands),
        };
        self.counts.hits.count(Cached::Status);
        Some(Ok(Lookup::Found(entry)))
    }

    /// Looks a name up.
    pub(crate) async fn lookup(&self, dir: Fid, name: &[u8]) -> Result<Lookup, Error> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        if is_synthetic(dir) {
            return self.lookup_synthetic(dir, name).await;
        }
        let parent = self.vnode(dir)?;
        let (dir_status, dir_ttl, directory) = match self.directory(&parent).await {
            Err(error) if error.errno() == Errno::ACCESS.raw_os_error() => {
                return self.kept_in_place(&parent, name);
            }
            result => result?,
        };
        let stands = self.stands(&dir_status, dir_ttl).of(name);
        let Some((vnode, unique)) = self.find(&directory, name) else {
            self.counts.misses.count(Cached::Absence);
            return Ok(Lookup::Absent { ttl: stands.other });
        };
        let found = self.vnode_in(dir.sibling(vnode, unique), &parent.volume);
        if self.valid(&found).is_none() {
            // Who asks for one name will ask for its neighbours. If that fails the single question says why.
            let before = directory
                .iter()
                .find(|entry| (entry.vnode, entry.unique) == (vnode, unique))
                .map_or(0, |entry| entry.slot);
            let _ = self.prefetch(dir, before.into()).await;
        }
        self.entry(&found, stands).await.map(Lookup::Found)
    }

    /// What a name leads to. One that ends in `@sys` stands for the first of those that there is.
    fn find(&self, directory: &Directory, name: &[u8]) -> Option<(VnodeId, Uniquifier)> {
        let Some(stem) = name.strip_suffix(SYSTEM) else {
            return directory.lookup(name);
        };
        let mut names = self.sysnames.iter();
        names.find_map(|sysname| directory.lookup(&[stem, sysname.as_bytes()].concat()))
    }

    /// The attributes of what is nowhere but here.
    pub(crate) fn synthetic(&self, fid: Fid) -> Attr {
        synthetic::attr(fid, self.cells.home().as_str())
    }

    /// What a name is to somebody who may not search the directory: refused, but for a directory that the kernel has
    /// already. It would drop that one, and with it the place of everybody who works below it. Its attributes are told with
    /// no lifetime: who wants to see them has to ask for them.
    fn kept_in_place(&self, parent: &Vnode, name: &[u8]) -> Result<Lookup, Error> {
        self.in_place(parent, name)
            .map(Lookup::Found)
            .ok_or_else(|| Errno::ACCESS.into())
    }

    fn in_place(&self, parent: &Vnode, name: &[u8]) -> Option<Entry> {
        // It may have changed since: who may search it will see.
        let (vnode, unique) = self.find(&parent.last_directory()?, name)?;
        let found = self.vnodes.get(parent.fid.sibling(vnode, unique))?;
        let status = found.status()?;
        let attr = match self.target_cached(&found, &status)? {
            Some(_) => made_up(found.fid, &status),
            None => Core::attr(&found, &status),
        };
        let is_known = found.retained.load(Ordering::Acquire);
        (is_known && attr.kind == Kind::Directory).then_some(Entry {
            fid: found.fid,
            attr,
            attr_ttl: Duration::ZERO,
            entry_ttl: Duration::ZERO,
        })
    }

    /// What is told of an object whose name stands so long. The names of directories are never dropped by the kernel without
    /// need: who is at work below one would lose their place. Only its attributes and its contents are kept from others.
    fn found(&self, vnode: &Vnode, status: &Status, ttl: Duration, stands: Stands) -> Entry {
        Entry {
            fid: vnode.fid,
            attr: Core::attr(vnode, status),
            attr_ttl: self.kept(status, ttl),
            entry_ttl: if status.kind == Kind::Directory {
                stands.directory
            } else {
                stands.other
            },
        }
    }

    /// The entry of an object whose name stands so long.
    async fn entry(&self, found: &Arc<Vnode>, stands: Stands) -> Result<Entry, Error> {
        let (status, ttl) = self.status(found).await?;
        let Some(target) = self.target(found, &status).await? else {
            return Ok(self.found(found, &status, ttl, stands));
        };
        let told = self.attr_of_point(self.sight(found, &status, &target)).await?;
        Ok(point(told, stands.at_most(ttl)))
    }

    /// A name in what is nowhere but here.
    async fn lookup_synthetic(&self, dir: Fid, name: &[u8]) -> Result<Lookup, Error> {
        if dir == MOUNTS {
            return self.lookup_volume(name).await;
        }
        if dir != ROOT {
            return Err(Errno::NOTDIR.into());
        }
        match self.lookup_synthetic_cached(dir, name) {
            Some(found) => Ok(found),
            None => self.lookup_cell(name).await,
        }
    }

    /// The same, as far as it is known from the first: cells that are listed are there, whether they answer or not.
    fn lookup_synthetic_cached(&self, dir: Fid, name: &[u8]) -> Option<Lookup> {
        if dir != ROOT {
            return None;
        }
        if let Some((_, fid)) = synthetic::NAMES.into_iter().find(|(known, _)| *known == name) {
            return Some(Lookup::Found(Entry {
                fid,
                attr: self.synthetic(fid),
                attr_ttl: FOREVER,
                entry_ttl: FOREVER,
            }));
        }
        let (kind, name) = cell_name(name)?;
        if !self.cells.is_listed(&name) {
            return None;
        }
        let fid = synthetic::cell(&name, kind);
        let told = self.attr_of_point_cached(self.sight_of_cell(fid))?;
        Some(Lookup::Found(point(told, Stands::FOREVER)))
    }

    /// `/afs/.:mount/<cell>:<volume>`.
    async fn lookup_volume(&self, name: &[u8]) -> Result<Lookup, Error> {
        let absent = Ok(Lookup::Absent { ttl: ABSENT_CELL });
        let Ok(target) = MountTarget::parse(&[b"%", name, b"."].concat()) else {
            return absent;
        };
        let Some(cell) = &target.cell else {
            return absent;
        };
        let gone = [Errno::NOENT, Errno::NODEV].map(Errno::raw_os_error);
        let volume = async {
            let cell = self.cells.resolve(cell).await?;
            self.volumes
                .enter(&cell, &target, Parent::Root, self.until())
                .await
        };
        match volume.await {
            Ok(volume) => {
                let root = self.root_of(&volume, &target);
                self.entry(&root, Stands::FOREVER).await.map(Lookup::Found)
            }
            Err(error) if gone.contains(&error.errno()) => absent,
            Err(error) => Err(error),
        }
    }

    /// `/afs/<cell>` and `/afs/.<cell>`.
    async fn lookup_cell(&self, name: &[u8]) -> Result<Lookup, Error> {
        let absent = Ok(Lookup::Absent { ttl: ABSENT_CELL });
        let Some((kind, mut name)) = cell_name(name) else {
            return absent;
        };
        if !self.cells.is_listed(&name) {
            // Programs probe for all sorts of names; only what can be a cell is asked for.
            name = match self.cells.resolve(&name).await {
                Ok(cell) => cell.name.clone(),
                Err(error) if error.errno() == Errno::NOENT.raw_os_error() => {
                    tracing::debug!(%error, "no such cell");
                    return absent;
                }
                Err(error) => return Err(error),
            };
        }
        let fid = synthetic::cell(&name, kind);
        let told = self.attr_of_point(self.sight_of_cell(fid)).await?;
        Ok(Lookup::Found(point(told, Stands::FOREVER)))
    }

    /// The text of a link.
    pub(crate) async fn link_text(&self, link: &Arc<Vnode>, status: &Status) -> Result<Bytes, Error> {
        if !status.is_readable_with(status.access) {
            return Err(Errno::ACCESS.into());
        }
        if let Some(text) = link.link(status.version) {
            return Ok(text);
        }
        let (version, text) = match link.data().whole(status.version) {
            Some(text) => (status.version, text.into()),
            None => self.whole(link, MAX_LINK).await?,
        };
        link.set_link(version, text.clone());
        link.keep_contents();
        Ok(text)
    }

    /// A directory with its status and for how long both stand.
    pub(crate) async fn directory(&self, dir: &Arc<Vnode>) -> Result<(Status, Duration, Directory), Error> {
        for _ in 0..ROUNDS {
            let (status, ttl) = self.status(dir).await?;
            if status.kind != Kind::Directory {
                return Err(Errno::NOTDIR.into());
            }
            status.may_search()?;
            if let Some(directory) = dir.directory(status.version) {
                self.counts.hits.count(Cached::Directory);
                return Ok((status, ttl, directory));
            }
            let kept = dir.data().whole(status.version).map(Bytes::from);
            if let Some(directory) = kept.and_then(|blob| Directory::parse(blob).ok()) {
                dir.set_directory(status.version, directory.clone());
                self.vnodes.shelve(dir);
                self.counts.hits.count(Cached::Directory);
                return Ok((status, ttl, directory));
            }
            self.counts.misses.count(Cached::Directory);
            let parse = |blob| {
                Directory::parse(blob).map_err(|bad| {
                    tracing::warn!(fid = %dir.fid, %bad, "server sent a damaged directory");
                    Error::new(Errno::IO, format!("directory {}: {bad}", dir.fid))
                })
            };
            let (version, directory) = self.fetch_checked(dir, 0..MAX_DIRECTORY, parse).await?;
            dir.set_directory(version, directory.clone());
            self.vnodes.shelve(dir);
            dir.keep_contents();
            if version == status.version {
                return Ok((status, ttl, directory));
            }
        }
        // Somebody changes it all the time.
        Err(Errno::AGAIN.into())
    }

    /// The whole contents of a directory or link, with their version.
    async fn whole(&self, vnode: &Arc<Vnode>, max: u64) -> Result<(DataVersion, Bytes), Error> {
        self.fetch_range(vnode, 0..max).await
    }

    /// A part of the contents, past the cache, with their version. Shorter than asked at the end.
    pub(super) async fn fetch_range(
        &self,
        vnode: &Arc<Vnode>,
        range: Range<u64>,
    ) -> Result<(DataVersion, Bytes), Error> {
        self.fetch_checked(vnode, range, Ok).await
    }

    /// The same, as what `check` makes of it. Who sends what it refuses makes no sense.
    async fn fetch_checked<T>(
        &self,
        vnode: &Arc<Vnode>,
        range: Range<u64>,
        check: impl Fn(Bytes) -> Result<T, Error>,
    ) -> Result<(DataVersion, T), Error> {
        let mut rotation = self
            .rotation(vnode, FETCH_DATA_NAME, Class::Reading, self.until())?
            .bulk();
        let request = FetchDataArgs {
            fid: vnode.fid.into(),
            position: range.start,
            length: range.end - range.start,
        };
        loop {
            let attempt = rotation.next().await?;
            let noted = self.note(vnode, &attempt);
            let mut blob = BytesMut::new();
            let mut sink = |_, parts: &[Bytes]| {
                parts.iter().for_each(|part| blob.extend_from_slice(part));
                Ok(())
            };
            match fetch_data(&self.endpoint, &attempt.target, &request, &mut sink).await {
                Ok((_, reply)) => {
                    rotation.succeeded(&attempt);
                    let checked = check(blob.freeze()).and_then(|checked| {
                        let status = self.learn(vnode, &reply.status, Some(&reply.callback), &noted)?;
                        Ok((status.version, checked))
                    });
                    match checked {
                        Err(error) if self.turns_away(vnode, &noted, &error) => {}
                        done => return done,
                    }
                }
                Err(error) => {
                    self.on_error(vnode, &error);
                    rotation.failed(&attempt, error).await?;
                }
            }
        }
    }

    /// The version of a directory that may be listed.
    pub(crate) async fn opendir(&self, dir: Fid) -> Result<DataVersion, Error> {
        if is_synthetic(dir) {
            return Ok(synthetic::VERSION);
        }
        let (status, _, _) = self.directory(&self.vnode(dir)?).await?;
        Ok(status.version)
    }

    /// The version of a directory that may be listed, without waiting.
    pub(crate) fn opendir_cached(&self, dir: Fid) -> Option<Result<DataVersion, Error>> {
        if is_synthetic(dir) {
            return Some(Ok(synthetic::VERSION));
        }
        let listable = self.listable(dir)?;
        Some(listable.map(|(_, version, _)| version))
    }

    /// The entries of a directory.
    pub(crate) async fn listing(&self, dir: Fid) -> Result<Arc<Listing>, Error> {
        if is_synthetic(dir) {
            return Ok(Arc::new(self.list_synthetic(dir)));
        }
        let dir = self.vnode(dir)?;
        let (status, _, directory) = self.directory(&dir).await?;
        Ok(list(&dir, status.version, &directory))
    }

    /// The entries of a directory, without waiting.
    pub(crate) fn listing_cached(&self, dir: Fid) -> Option<Result<Arc<Listing>, Error>> {
        if is_synthetic(dir) {
            return Some(Ok(Arc::new(self.list_synthetic(dir))));
        }
        let listable = self.listable(dir)?;
        Some(listable.map(|(vnode, version, directory)| list(&vnode, version, &directory)))
    }

    /// What a listing is made of, if it is known.
    #[expect(clippy::type_complexity, reason = "three things that belong together, once")]
    fn listable(&self, dir: Fid) -> Option<Result<(Arc<Vnode>, DataVersion, Directory), Error>> {
        let vnode = self.vnodes.get(dir)?;
        let (status, _) = self.valid(&vnode)?;
        if let Err(error) = status.may_search() {
            return Some(Err(error));
        }
        let directory = vnode.directory(status.version)?;
        Some(Ok((vnode, status.version, directory)))
    }

    /// The cells, or nothing.
    fn list_synthetic(&self, dir: Fid) -> Listing {
        let names = if dir == ROOT {
            self.cells.names()
        } else {
            Vec::new()
        };
        let dots = [&b"."[..], b".."].map(Bytes::from_static);
        let plain = names
            .iter()
            .map(|name| Bytes::copy_from_slice(name.as_str().as_bytes()));
        let entries = dots.into_iter().chain(plain).zip(1..);
        let entry = |(name, cookie): (Bytes, u64)| {
            let cell = cell_name(&name).filter(|_| cookie > 2);
            let fid = cell.map_or(ROOT, |(kind, name)| synthetic::cell(&name, kind));
            ListEntry {
                cookie,
                name,
                fid,
                kind: Some(Kind::Directory),
            }
        };
        Listing {
            version: synthetic::VERSION,
            entries: entries.map(entry).collect(),
        }
    }

    /// Fetches the status of up to fifty entries behind `cookie` whose status cannot be relied on.
    pub(crate) async fn prefetch(&self, dir: Fid, cookie: u64) -> Result<(), Error> {
        if is_synthetic(dir) {
            return Ok(());
        }
        let parent = self.vnode(dir)?;
        let (status, _, directory) = self.directory(&parent).await?;
        let listing = list(&parent, status.version, &directory);
        let wanted: Vec<_> = listing
            .after(cookie)
            .iter()
            .filter(|entry| *entry.name != *b"." && *entry.name != *b"..")
            .take(PREFETCH)
            .map(|entry| self.vnode_in(entry.fid, &parent.volume))
            .filter(|vnode| self.valid(vnode).is_none())
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.bulk_status(&parent, &wanted).await
    }

    /// Fetches the status of up to fifty objects of a volume. Of what failed, each shows its error when it is asked for.
    pub(super) async fn bulk_status(&self, parent: &Vnode, wanted: &[Arc<Vnode>]) -> Result<(), Error> {
        let request = InlineBulkStatus {
            fids: List(wanted.iter().map(|vnode| AfsFid::from(vnode.fid)).collect()),
        };
        let mut rotation = self.rotation(parent, InlineBulkStatus::NAME, Class::Reading, self.until())?;
        loop {
            let attempt = rotation.next().await?;
            let noted: Vec<_> = wanted.iter().map(|vnode| self.note(vnode, &attempt)).collect();
            match crate::rpc::client::call(&self.endpoint, &attempt.target, &request).await {
                Ok(reply) => {
                    rotation.succeeded(&attempt);
                    let slots = reply.statuses.0.iter().zip(&reply.callbacks.0);
                    for ((vnode, noted), (status, callback)) in wanted.iter().zip(&noted).zip(slots) {
                        if status.error_code == 0 {
                            let _ = self.learn(vnode, status, Some(callback), noted);
                        }
                    }
                    return Ok(());
                }
                Err(error) => rotation.failed(&attempt, error).await?,
            }
        }
    }
}

/// The entry of a mount point or cell with these attributes, which stand for so long.
fn point((attr, attr_ttl): (Attr, Duration), stands: Stands) -> Entry {
    Entry {
        fid: attr.fid,
        attr,
        attr_ttl,
        entry_ttl: stands.directory,
    }
}

/// What may be a cell in the directory of cells.
fn cell_name(name: &[u8]) -> Option<(MountKind, CellName)> {
    let (kind, bare) = match name.strip_prefix(b".") {
        Some(rest) => (MountKind::ForceReadWrite, rest),
        None => (MountKind::Normal, name),
    };
    let name = CellName::new(std::str::from_utf8(bare).ok()?).ok()?;
    Some((kind, name))
}

/// The entries of a directory, which are made once for all who read them.
fn list(dir: &Vnode, version: DataVersion, directory: &Directory) -> Arc<Listing> {
    dir.listing(version, || {
        let mut entries: Vec<_> = directory
            .iter()
            .map(|entry| ListEntry {
                cookie: u64::from(entry.slot) + 1,
                name: Bytes::copy_from_slice(entry.name),
                fid: dir.fid.sibling(entry.vnode, entry.unique),
                kind: entry.vnode.is_directory().then_some(Kind::Directory),
            })
            .collect();
        entries.sort_by_key(|entry| entry.cookie);
        Listing { version, entries }
    })
}

/// What a name ends with that stands for others.
const SYSTEM: &[u8] = b"@sys";
/// Servers take one byte more; POSIX clients do not.
const NAME_MAX: usize = 255;
/// How long a name that is no cell is believed to stay so.
const ABSENT_CELL: Duration = Duration::from_secs(30);
/// A directory that changes more often while it is being read is given up.
const ROUNDS: usize = 8;
/// As many as one call takes.
pub(super) const PREFETCH: usize = 50;
