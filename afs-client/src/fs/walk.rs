//! Names: the synthetic root, directories, links and mount points.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::io::Errno;

use super::core::{Caller, Core};
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
use crate::volume::{Parent, Volume};
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
        let mut attr = status.attr(vnode.fid);
        if status.kind == Kind::File && vnode.is_modified() {
            attr.size = vnode.data().len();
        }
        attr
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
            return None;
        }
        let parent = self.vnodes.get(dir)?;
        let (dir_status, dir_ttl) = self.valid(&parent)?;
        if dir_status.may_search().is_err() {
            return Some(self.kept_in_place(&parent, name));
        }
        let mut stands = self.stands(&dir_status, dir_ttl).of(name);
        let directory = parent.directory(dir_status.version)?;
        let Some((vnode, unique)) = self.find(&directory, name) else {
            self.counts.hits.count(Cached::Absence);
            return Some(Ok(Lookup::Absent { ttl: stands.other }));
        };
        let mut found = self.vnodes.get(dir.sibling(vnode, unique))?;
        let (mut status, mut ttl) = self.valid(&found)?;
        self.counts.hits.count(Cached::Directory);
        if status.may_be_mount_point() {
            if let Some(root) = found.mounted(status.version) {
                stands = stands.at_most(ttl);
                found = self.vnodes.get(root)?;
                (status, ttl) = self.valid(&found)?;
                self.counts.hits.count(Cached::MountPoint);
            } else if let Some(text) = found.link(status.version)
                && MountTarget::parse(&text).is_err()
            {
                // A link that only looks like one.
            } else {
                return None;
            }
        }
        self.counts.hits.count(Cached::Status);
        Some(Ok(Lookup::Found(self.found(&found, &status, ttl, stands))))
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
        self.entry(found, stands).await.map(Lookup::Found)
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
        let mut found = self.vnodes.get(parent.fid.sibling(vnode, unique))?;
        if let Some(root) = found.mounted(found.status()?.version) {
            found = self.vnodes.get(root)?;
        }
        let status = found.status()?;
        let is_known = found.retained.load(Ordering::Acquire);
        (is_known && status.kind == Kind::Directory).then(|| Entry {
            fid: found.fid,
            attr: Core::attr(&found, &status),
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

    /// The entry of an object whose name stands so long; a mount point is followed.
    async fn entry(&self, mut found: Arc<Vnode>, mut stands: Stands) -> Result<Entry, Error> {
        let (mut status, mut ttl) = self.status(&found).await?;
        if status.may_be_mount_point()
            && let Some(root) = self.follow(&found, &status).await?
        {
            stands = stands.at_most(ttl);
            found = root;
            (status, ttl) = self.status(&found).await?;
        }
        Ok(self.found(&found, &status, ttl, stands))
    }

    /// The root directory that a mount point leads to; `None` if it is a mere link.
    async fn follow(&self, point: &Arc<Vnode>, status: &Status) -> Result<Option<Arc<Vnode>>, Error> {
        if let Some(root) = point.mounted(status.version) {
            self.counts.hits.count(Cached::MountPoint);
            return self.vnode(root).map(Some);
        }
        let text = self.link_text(point, status).await?;
        let Ok(target) = MountTarget::parse(&text) else {
            return Ok(None);
        };
        let here = &point.volume;
        let (cell, parent) = match &target.cell {
            Some(name) if *name != here.cell.name => {
                (self.cells.resolve(name).await?, Parent::OtherCell(here.kind))
            }
            _ => (Arc::clone(&here.cell), Parent::SameCell(here.kind)),
        };
        let volume = self.volumes.enter(&cell, &target, parent, self.until()).await?;
        let root = self.root_of(&volume, &target);
        self.counts.misses.count(Cached::MountPoint);
        point.set_mounted(status.version, root.fid);
        Ok(Some(root))
    }

    fn root_of(&self, volume: &Arc<Volume>, target: &MountTarget) -> Arc<Vnode> {
        let root = match target.root {
            Some((vnode, unique)) => volume.root().sibling(vnode, unique),
            None => volume.root(),
        };
        self.vnode_in(root, volume)
    }

    /// A name in what is nowhere but here.
    async fn lookup_synthetic(&self, dir: Fid, name: &[u8]) -> Result<Lookup, Error> {
        if dir == MOUNTS {
            return self.lookup_volume(name).await;
        }
        if dir != ROOT {
            return Err(Errno::NOTDIR.into());
        }
        match synthetic::NAMES.into_iter().find(|(known, _)| *known == name) {
            Some((_, fid)) => Ok(Lookup::Found(Entry {
                fid,
                attr: self.synthetic(fid),
                attr_ttl: FOREVER,
                entry_ttl: FOREVER,
            })),
            None => self.lookup_cell(name).await,
        }
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
                self.entry(root, Stands::FOREVER).await.map(Lookup::Found)
            }
            Err(error) if gone.contains(&error.errno()) => absent,
            Err(error) => Err(error),
        }
    }

    /// `/afs/<cell>` and `/afs/.<cell>`.
    async fn lookup_cell(&self, name: &[u8]) -> Result<Lookup, Error> {
        let (kind, bare) = match name.strip_prefix(b".") {
            Some(rest) => (MountKind::ForceReadWrite, rest),
            None => (MountKind::Normal, name),
        };
        let absent = Ok(Lookup::Absent { ttl: ABSENT_CELL });
        let Some(name) = std::str::from_utf8(bare)
            .ok()
            .and_then(|name| CellName::new(name).ok())
        else {
            return absent;
        };
        // Programs probe for all sorts of names; only what can be a cell is asked for.
        let cell = match self.cells.resolve(&name).await {
            Ok(cell) => cell,
            Err(error) if error.errno() == Errno::NOENT.raw_os_error() => {
                tracing::debug!(%error, "no such cell");
                return absent;
            }
            Err(error) => return Err(error),
        };
        let target = MountTarget {
            kind,
            cell: None,
            volume: ROOT_CELL.to_owned(),
            root: None,
        };
        let volume = self
            .volumes
            .enter(&cell, &target, Parent::Root, self.until())
            .await?;
        let root = self.root_of(&volume, &target);
        self.entry(root, Stands::FOREVER).await.map(Lookup::Found)
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
            // The number only tells entries apart: the object is known when it is looked up.
            let number = u32::try_from(cookie).unwrap_or(u32::MAX);
            let fid = if cookie <= 2 {
                ROOT
            } else {
                ROOT.sibling(VnodeId(1), Uniquifier(number))
            };
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

/// The entries of a directory, which are made once for all who read them.
fn list(dir: &Vnode, version: DataVersion, directory: &Directory) -> Arc<Listing> {
    dir.listing(version, || {
        let mut entries: Vec<_> = directory
            .iter()
            .map(|entry| ListEntry {
                cookie: u64::from(entry.slot) + 1,
                name: Bytes::copy_from_slice(entry.name),
                fid: dir.fid.sibling(entry.vnode, entry.unique),
                kind: (entry.vnode.0 % 2 == 1).then_some(Kind::Directory),
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
const ROOT_CELL: &str = "root.cell";
/// How long a name that is no cell is believed to stay so.
const ABSENT_CELL: Duration = Duration::from_secs(30);
/// A directory that changes more often while it is being read is given up.
const ROUNDS: usize = 8;
/// As many as one call takes.
pub(super) const PREFETCH: usize = 50;
