//! The journal of what only we have: from it a program that follows one that died knows which bytes nobody else has.
//!
//! The machine: every change to a file that is, or becomes, different from the server's is one record, appended and not
//! waited for: the process may die at any time, the machine's crash is another matter (`Entry::is_doubtful`). A record without
//! which nothing would be taken wrongly is held back until the next one. The records of one file are steps of its [`Content`];
//! the journal takes the same steps on a copy, so what is read from it later is what it holds now. A step that adds bytes is written after them, one that takes bytes away before. A file whose contents are
//! the server's again has no entry. When it has grown the journal is written anew from its entries.

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests;
mod text;

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::text::{put_entry, put_step, put_text, take_record, take_text};
use super::content::{Attempt, Content, Mark, StoreCall};
use super::frames::{Framed, Frames};
use super::ranges::RangeSet;
use super::record::{Input, ObjectKey};
use super::seal::Seal;
use crate::auth::tokens::Identity;
use crate::cell::CellName;
use crate::rpc::types::StoreStatus;
use crate::types::DataVersion;

/// Who wrote what is dirty of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Author {
    /// On this machine.
    pub(crate) who: Identity,
    /// In the cell, if there was a token.
    pub(crate) principal: Option<Arc<str>>,
    /// An earlier program took it: the token is not here, and nobody waits for what becomes of the data.
    pub(crate) is_earlier: bool,
}

impl Author {
    /// Had they a token by which a later program cannot know them again?
    pub(super) fn is_nameless(&self) -> bool {
        let passing = matches!(self.who, Identity::UserInGroup(..) | Identity::UserInScope(..));
        passing && self.principal.is_some()
    }
}

/// What only we have of a file.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: ObjectKey,
    pub(crate) cell: CellName,
    pub(crate) author: Author,
    /// When it became so, in unix seconds.
    pub(crate) since: u32,
    pub(super) content: Content,
    /// The machine went down since: bytes that the disk never got may be missing.
    pub(crate) is_doubtful: bool,
}

/// A step of a file's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Write(Range<u64>),
    Truncate(u64),
    BeginStore,
    /// A StoreData call is sent, by which that is known again.
    Sending(StoreCall, Mark),
    /// The server has executed one of the calls of a store.
    PartStored(DataVersion, u64),
    /// The store is done; alone, or not.
    Stored(DataVersion, u64, bool),
    StoreFailed,
    /// Attributes were set.
    SetStatus(StoreStatus),
    /// The server has attributes that were set.
    StatusStored(StoreStatus),
    Discard,
    /// The file has left the disk: there is no entry any more.
    Forget,
}

impl Content {
    /// Takes a step.
    pub(super) fn take(&mut self, step: &Step) {
        match step {
            Step::Write(range) => self.write(range.clone()),
            Step::Truncate(len) => {
                // Only a journal that is damaged says so during a store.
                self.store_failed();
                self.truncate(*len);
            }
            Step::BeginStore => drop(self.begin_store()),
            Step::Sending(call, mark) => self.sending(call, *mark),
            Step::PartStored(version, len) => self.part_stored(*version, *len),
            Step::Stored(version, len, true) => self.stored(*version, *len),
            Step::Stored(version, len, false) => self.stored_among_others(*version, *len),
            Step::StoreFailed => self.store_failed(),
            Step::SetStatus(set) => self.set_status(*set),
            Step::StatusStored(stored) => self.status_stored(*stored),
            Step::Discard => self.discard(),
            Step::Forget => {
                self.store_failed();
                self.discard();
            }
        }
    }
}

/// The journal of a cache directory.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
    frames: Frames,
    /// Records that go with the next one.
    held: Vec<u8>,
    size: u64,
    /// At this size it is written anew.
    full: u64,
    entries: HashMap<u64, Entry>,
    boot: String,
    said: bool,
}

impl Journal {
    /// Reads what an earlier program left, and begins anew. What is behind a damage is not believed.
    pub(super) fn open(path: &Path, seal: Option<&Arc<Seal>>) -> io::Result<(Self, Vec<Entry>)> {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let left = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let read = read(&left, seal);
        if let Some(at) = read.damaged_at {
            let aside = path.with_extension("damaged");
            let kept = fs::write(&aside, &left).is_ok();
            tracing::error!(
                at, kept, copy = %aside.display(),
                "the journal of the cache is damaged: what was written behind that is lost"
            );
        }
        let is_doubtful = boot.is_empty() || read.boot != boot;
        let mut entries: Vec<_> = read.entries.into_values().collect();
        for entry in &mut entries {
            entry.content.store_failed();
            entry.author.is_earlier = true;
            entry.is_doubtful |= is_doubtful;
        }
        // A program that dies before the first step of a file was noted has changed nothing of it.
        entries.retain(|entry| entry.content.is_unstored());
        let journal = Self {
            path: path.to_owned(),
            file: None,
            frames: Frames::new(KIND, seal.cloned())?,
            held: Vec::new(),
            size: 0,
            full: FULL,
            entries: HashMap::new(),
            boot,
            said: false,
        };
        Ok((journal, entries))
    }

    /// Bytes that it takes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Has a file an entry?
    pub(super) fn has(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }

    /// What there is of it.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// A file is about to differ from the server's: to be followed by the step that it does so by.
    pub(super) fn begin(&mut self, id: u64, entry: Entry) {
        let framed = self.frames.frame(|out| put_entry(out, id, &entry));
        self.entries.insert(id, entry);
        self.append(framed, Urgency::Held);
    }

    /// A file of an earlier program has this number now; to be followed by `rewrite`.
    pub(super) fn keep(&mut self, id: u64, entry: Entry) {
        self.entries.insert(id, entry);
    }

    /// Nothing of a file is on the disk any more.
    pub(super) fn forget(&mut self, id: u64) {
        if self.entries.remove(&id).is_some() {
            let framed = self.frames.frame(|out| put_step(out, id, &Step::Forget));
            self.append(framed, Urgency::Now);
        }
    }

    /// A file takes a step.
    pub(super) fn step(&mut self, id: u64, step: &Step) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.content.take(step);
        // What is clean is none of its business.
        entry.content.evict(0..u64::MAX);
        let is_modified = entry.content.is_modified();
        if !entry.content.is_unstored() {
            self.entries.remove(&id);
        }
        let framed = self.frames.frame(|out| put_step(out, id, step));
        let urgency = match step {
            // Whoever reads the journal takes a store that has sent nothing as none.
            Step::BeginStore => Urgency::Held,
            // The end of the store is next.
            Step::StatusStored(_) if is_modified => Urgency::Held,
            _ => Urgency::Now,
        };
        self.append(framed, urgency);
    }

    /// Begins a new file with what there is.
    pub(super) fn rewrite(&mut self) -> io::Result<()> {
        let mut all = self.frames.begin()?;
        all.extend(self.frames.frame(|out| put_text(out, &self.boot))?);
        for (id, entry) in &self.entries {
            all.extend(self.frames.frame(|out| put_entry(out, *id, entry))?);
        }
        let new = self.path.with_extension("new");
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .open(&new)?;
        file.write_all(&all)?;
        fs::rename(&new, &self.path)?;
        self.size = all.len() as u64;
        self.full = FULL.max(2 * self.size);
        self.file = Some(file);
        self.held.clear();
        self.said = false;
        Ok(())
    }

    fn append(&mut self, framed: io::Result<Vec<u8>>, urgency: Urgency) {
        let appended = match (&mut self.file, framed) {
            (Some(file), Ok(record)) if self.size < self.full => {
                self.held.extend(record);
                if urgency == Urgency::Held {
                    return;
                }
                let records = std::mem::take(&mut self.held);
                file.write_all(&records).map(|()| records.len())
            }
            // It is among what there is.
            _ => self.rewrite().map(|()| 0),
        };
        match appended {
            Ok(more) => self.size += more as u64,
            Err(error) => {
                // A part of a record may be in it. The next one begins anew.
                self.file = None;
                if !std::mem::replace(&mut self.said, true) {
                    tracing::error!(%error, "the journal of the cache cannot be written: what is not stored yet does not survive a crash of afs");
                }
            }
        }
    }
}

/// When a record must be in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Urgency {
    Now,
    /// With the next one.
    Held,
}

/// What a journal held.
#[derive(Debug, Default)]
struct Read {
    boot: String,
    entries: HashMap<u64, Entry>,
    damaged_at: Option<usize>,
}

/// Reads a journal as far as it is one. What is cut off in the middle of its last record was being written.
fn read(bytes: &[u8], seal: Option<&Arc<Seal>>) -> Read {
    let mut read = Read::default();
    if bytes.is_empty() {
        return read;
    }
    let Some((mut frames, rest)) = Frames::of(KIND, bytes, seal) else {
        read.damaged_at = Some(0);
        return read;
    };
    let mut input = Input(rest);
    let mut first = true;
    loop {
        let at = bytes.len() - input.0.len();
        match frames.next(&mut input) {
            Framed::End => return read,
            Framed::Record(body) if first => match take_text(&mut Input(&body)) {
                Some(boot) => read.boot = boot,
                None => {
                    read.damaged_at = Some(at);
                    return read;
                }
            },
            Framed::Record(body) if take_record(&mut read.entries, &mut Input(&body)).is_some() => {}
            Framed::Record(_) | Framed::Damaged => {
                read.damaged_at = Some(at);
                return read;
            }
        }
        first = false;
    }
}

/// Plays any bytes as records of a journal and of the index, for the fuzzer: past the checksums, which nothing but this
/// program gets right. What was read is written and read again as it was.
///
/// # Panics
///
/// It is not.
pub fn fuzz_records(bytes: &[u8]) {
    let mut entries = HashMap::new();
    let mut rest = bytes;
    while let Some((len, tail)) = rest.split_first() {
        let (body, tail) = tail.split_at(tail.len().min(usize::from(*len)));
        rest = tail;
        if take_record(&mut entries, &mut Input(body)).is_none() {
            break;
        }
    }
    for (id, entry) in &entries {
        let mut out = Vec::new();
        put_entry(&mut out, *id, entry);
        let mut again = HashMap::new();
        let taken = take_record(&mut again, &mut Input(&out));
        assert_eq!((taken, again.contains_key(id)), (Some(()), true));
        let mut twice = Vec::new();
        if let Some(entry) = again.get(id) {
            put_entry(&mut twice, *id, entry);
        }
        assert_eq!(out, twice);
    }
    super::record::fuzz_record(bytes);
}

const KIND: &str = "afs-fuse journal 1";
/// It is not worth writing anew before.
const FULL: u64 = 4 << 20;
/// Changes when the machine starts (Linux, proc(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
