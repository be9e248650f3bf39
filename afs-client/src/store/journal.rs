//! The journal of what only we have: from it a program that follows one that died knows which bytes nobody else has.
//!
//! The machine: every change to a file that is, or becomes, different from the server's is one record, appended and not
//! waited for: the process may die at any time, the machine's crash is another matter (`Entry::is_doubtful`). The records of
//! one file are steps of its [`Content`]; the journal takes the same steps on a copy, so what is read from it later is what
//! it holds now. A step that adds bytes is written after them, one that takes bytes away before. A file whose contents are
//! the server's again has no entry. When it has grown the journal is written anew from its entries.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::{Attempt, Content, Mark, StoreCall};
use super::ranges::RangeSet;
use super::record::{Input, ObjectKey, checksum_of};
use crate::auth::tokens::Identity;
use crate::cell::CellName;
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
    size: u64,
    /// At this size it is written anew.
    full: u64,
    entries: HashMap<u64, Entry>,
    boot: String,
    said: bool,
}

impl Journal {
    /// Reads what an earlier program left, and begins anew. What is behind a damage is not believed.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Entry>)> {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        let left = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let read = read(&left);
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
        let journal = Self {
            path: path.to_owned(),
            file: None,
            size: 0,
            full: FULL,
            entries: HashMap::new(),
            boot,
            said: false,
        };
        Ok((journal, entries))
    }

    /// Has a file an entry?
    pub(super) fn has(&self, id: u64) -> bool {
        self.entries.contains_key(&id)
    }

    /// What there is of it.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// A file is about to differ from the server's.
    pub(super) fn begin(&mut self, id: u64, entry: Entry) {
        let mut out = Vec::new();
        frame(&mut out, |out| put_entry(out, id, &entry));
        self.entries.insert(id, entry);
        self.append(&out);
    }

    /// A file of an earlier program has this number now; to be followed by `rewrite`.
    pub(super) fn keep(&mut self, id: u64, entry: Entry) {
        self.entries.insert(id, entry);
    }

    /// Nothing of a file is on the disk any more.
    pub(super) fn forget(&mut self, id: u64) {
        if self.entries.remove(&id).is_some() {
            let mut out = Vec::new();
            frame(&mut out, |out| put_step(out, id, &Step::Forget));
            self.append(&out);
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
        if !entry.content.is_modified() {
            self.entries.remove(&id);
        }
        let mut out = Vec::new();
        frame(&mut out, |out| put_step(out, id, step));
        self.append(&out);
    }

    /// Begins a new file with what there is.
    pub(super) fn rewrite(&mut self) -> io::Result<()> {
        let mut all = Vec::from(MAGIC);
        frame(&mut all, |out| put_text(out, &self.boot));
        for (id, entry) in &self.entries {
            frame(&mut all, |out| put_entry(out, *id, entry));
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
        self.said = false;
        Ok(())
    }

    fn append(&mut self, record: &[u8]) {
        let appended = match &mut self.file {
            Some(file) if self.size < self.full => file.write_all(record).map(|()| record.len()),
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

/// What a journal held.
#[derive(Debug, Default)]
struct Read {
    boot: String,
    entries: HashMap<u64, Entry>,
    damaged_at: Option<usize>,
}

/// Reads a journal as far as it is one. What is cut off in the middle of its last record was being written.
fn read(bytes: &[u8]) -> Read {
    let mut read = Read::default();
    if bytes.is_empty() {
        return read;
    }
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        read.damaged_at = Some(0);
        return read;
    };
    let mut input = Input(rest);
    let mut first = true;
    loop {
        let at = bytes.len() - input.0.len();
        match next_frame(&mut input) {
            Framed::End => return read,
            Framed::Record(body) if first => match take_text(&mut Input(body)) {
                Some(boot) => read.boot = boot,
                None => {
                    read.damaged_at = Some(at);
                    return read;
                }
            },
            Framed::Record(body) if take_record(&mut read.entries, &mut Input(body)).is_some() => {}
            Framed::Record(_) | Framed::Damaged => {
                read.damaged_at = Some(at);
                return read;
            }
        }
        first = false;
    }
}

enum Framed<'a> {
    Record(&'a [u8]),
    End,
    Damaged,
}

fn next_frame<'a>(input: &mut Input<'a>) -> Framed<'a> {
    let (Some(len), Some(sum)) = (input.u32(), input.u64()) else {
        return Framed::End;
    };
    let Some((body, rest)) = usize::try_from(len)
        .ok()
        .and_then(|len| input.0.split_at_checked(len))
    else {
        // Cut off, unless nothing so long was ever written.
        return if len > LONGEST {
            Framed::Damaged
        } else {
            Framed::End
        };
    };
    if checksum_of(body) != sum {
        return Framed::Damaged;
    }
    input.0 = rest;
    Framed::Record(body)
}

/// A record: its length, its checksum, and what `body` puts.
fn frame(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME]);
    body(out);
    let (head, body) = out.split_at_mut(start + FRAME);
    let sum = checksum_of(body);
    let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let head = head.get_mut(start..).unwrap_or_default();
    let (first, second) = head.split_at_mut(4);
    first.copy_from_slice(&len.to_be_bytes());
    second.copy_from_slice(&sum.to_be_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_text(input: &mut Input<'_>) -> Option<String> {
    let len = usize::try_from(input.u64()?).ok()?;
    let (text, rest) = input.0.split_at_checked(len)?;
    input.0 = rest;
    Some(std::str::from_utf8(text).ok()?.to_owned())
}

fn put_range(out: &mut Vec<u8>, range: &Range<u64>) {
    put_u64(out, range.start);
    put_u64(out, range.end);
}

fn take_range(input: &mut Input<'_>) -> Option<Range<u64>> {
    let range = input.u64()?..input.u64()?;
    (range.start <= range.end && range.end <= i64::MAX as u64).then_some(range)
}

fn put_call(out: &mut Vec<u8>, call: &StoreCall, mark: Mark) {
    put_range(out, &call.range);
    put_u64(out, call.file_length);
    put_u64(out, mark.mtime.into());
    put_u64(out, mark.sum);
}

fn take_call(input: &mut Input<'_>) -> Option<(StoreCall, Mark)> {
    let call = StoreCall {
        range: take_range(input)?,
        file_length: input.u64()?,
    };
    let mark = Mark {
        mtime: u32::try_from(input.u64()?).ok()?,
        sum: input.u64()?,
    };
    Some((call, mark))
}

fn put_entry(out: &mut Vec<u8>, id: u64, entry: &Entry) {
    out.push(ENTRY);
    put_u64(out, id);
    out.extend_from_slice(&entry.key.to_bytes());
    put_text(out, entry.cell.as_str());
    let (kind, user, scope) = match entry.author.who {
        Identity::Nobody => (0, 0, 0),
        Identity::User(user) => (1, user, 0),
        Identity::UserInGroup(user, group) => (2, user, group),
        Identity::UserInScope(user, scope) => (3, user, scope),
        Identity::Everybody => (4, 0, 0),
    };
    put_u64(out, kind);
    put_u64(out, user.into());
    put_u64(out, scope);
    // No principal has no name.
    put_text(out, entry.author.principal.as_deref().unwrap_or_default());
    put_u64(out, entry.since.into());
    put_u64(out, entry.is_doubtful.into());
    entry.content.put(out);
}

fn put_step(out: &mut Vec<u8>, id: u64, step: &Step) {
    let mut head = |tag| {
        out.push(tag);
        put_u64(out, id);
    };
    match step {
        Step::Write(range) => {
            head(WRITE);
            put_range(out, range);
        }
        Step::Truncate(len) => {
            head(TRUNCATE);
            put_u64(out, *len);
        }
        Step::BeginStore => head(BEGIN_STORE),
        Step::Sending(call, mark) => {
            head(SENDING);
            put_call(out, call, *mark);
        }
        Step::PartStored(version, len) => {
            head(PART_STORED);
            put_u64(out, version.0);
            put_u64(out, *len);
        }
        Step::Stored(version, len, alone) => {
            head(STORED);
            put_u64(out, version.0);
            put_u64(out, *len);
            put_u64(out, (*alone).into());
        }
        Step::StoreFailed => head(STORE_FAILED),
        Step::Discard => head(DISCARD),
        Step::Forget => head(FORGET),
    }
}

/// Reads a record and does what it says.
fn take_record(entries: &mut HashMap<u64, Entry>, input: &mut Input<'_>) -> Option<()> {
    let (tag, rest) = input.0.split_first()?;
    input.0 = rest;
    let id = input.u64()?;
    if *tag == ENTRY {
        let entry = take_entry(input)?;
        entries.insert(id, entry);
        return input.0.is_empty().then_some(());
    }
    let step = match *tag {
        WRITE => Step::Write(take_range(input)?),
        TRUNCATE => Step::Truncate(input.u64().filter(|len| *len <= i64::MAX as u64)?),
        BEGIN_STORE => Step::BeginStore,
        SENDING => {
            let (call, mark) = take_call(input)?;
            Step::Sending(call, mark)
        }
        PART_STORED => Step::PartStored(DataVersion(input.u64()?), input.u64()?),
        STORED => Step::Stored(DataVersion(input.u64()?), input.u64()?, input.u64()? != 0),
        STORE_FAILED => Step::StoreFailed,
        DISCARD => Step::Discard,
        FORGET => Step::Forget,
        _ => return None,
    };
    if !input.0.is_empty() {
        return None;
    }
    let entry = entries.get_mut(&id)?;
    entry.content.take(&step);
    entry.content.evict(0..u64::MAX);
    if !entry.content.is_modified() {
        entries.remove(&id);
    }
    Some(())
}

fn take_entry(input: &mut Input<'_>) -> Option<Entry> {
    let (key, rest) = input.0.split_at_checked(16)?;
    input.0 = rest;
    let key = ObjectKey::from_bytes(key)?;
    let cell = CellName::new(&take_text(input)?).ok()?;
    let (kind, user, scope) = (input.u64()?, u32::try_from(input.u64()?).ok()?, input.u64()?);
    let who = match kind {
        0 => Identity::Nobody,
        1 => Identity::User(user),
        2 => Identity::UserInGroup(user, scope),
        3 => Identity::UserInScope(user, scope),
        4 => Identity::Everybody,
        _ => return None,
    };
    let principal = take_text(input)?;
    Some(Entry {
        key,
        cell,
        author: Author {
            who,
            principal: (!principal.is_empty()).then(|| principal.into()),
            is_earlier: false,
        },
        since: u32::try_from(input.u64()?).ok()?,
        is_doubtful: input.u64()? != 0,
        content: Content::from_input(input)?,
    })
}

impl Content {
    /// Writes down what differs from the server's.
    fn put(&self, out: &mut Vec<u8>) {
        let parts = self.parts();
        put_u64(out, parts.version.map_or(0, |version| version.0));
        put_u64(out, parts.version.is_some().into());
        put_u64(out, parts.server_len);
        put_u64(out, parts.cut.unwrap_or(u64::MAX));
        put_u64(out, parts.grow);
        for set in [parts.dirty, parts.storing] {
            put_u64(out, set.iter().count() as u64);
            for range in set.iter() {
                put_range(out, &range);
            }
        }
        put_u64(out, parts.attempt.map_or(0, |attempt| attempt.tries.into()));
        if let Some(attempt) = parts.attempt {
            put_call(out, &attempt.call, attempt.mark);
        }
    }

    fn from_input(input: &mut Input<'_>) -> Option<Self> {
        let (version, has_version) = (DataVersion(input.u64()?), input.u64()? != 0);
        let (server_len, cut, grow) = (input.u64()?, input.u64()?, input.u64()?);
        let mut sets = [RangeSet::default(), RangeSet::default()];
        for set in &mut sets {
            for _ in 0..input.u64()? {
                set.insert(take_range(input)?);
            }
        }
        let tries = u32::try_from(input.u64()?).ok()?;
        let attempt = if tries == 0 {
            None
        } else {
            let (call, mark) = take_call(input)?;
            Some(Attempt { call, mark, tries })
        };
        let version = has_version.then_some(version);
        let cut = (cut != u64::MAX).then_some(cut);
        Some(Self::local(version, (server_len, cut, grow), sets, attempt))
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

const MAGIC: &[u8] = b"afs-fuse journal 1\n";
/// Length and checksum.
const FRAME: usize = 12;
/// It is not worth writing anew before.
const FULL: u64 = 4 << 20;
/// More than any record: a file in so many pieces has been stored long before.
const LONGEST: u32 = 64 << 20;
/// Changes when the machine starts (Linux, proc(5)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const ENTRY: u8 = 1;
const WRITE: u8 = 2;
const TRUNCATE: u8 = 3;
const BEGIN_STORE: u8 = 4;
const SENDING: u8 = 5;
const PART_STORED: u8 = 6;
const STORED: u8 = 7;
const STORE_FAILED: u8 = 8;
const DISCARD: u8 = 9;
const FORGET: u8 = 10;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;

    fn entry(vnode: u32) -> Entry {
        let mut content = Content::default();
        content.set_server(DataVersion(3), 5000);
        Entry {
            key: ObjectKey {
                cell: 1,
                volume: 2,
                vnode,
                unique: 9,
            },
            cell: CellName::new("lab.example").unwrap(),
            author: Author {
                who: Identity::UserInGroup(1000, 77),
                principal: Some("alice@LAB".into()),
                is_earlier: false,
            },
            since: 123,
            content,
            is_doubtful: false,
        }
    }

    fn call(range: Range<u64>) -> StoreCall {
        StoreCall {
            file_length: range.end,
            range,
        }
    }

    /// Two files, one of which is stored in the end, and one in the middle of it.
    fn steps() -> Vec<(u64, Step)> {
        vec![
            (1, Step::Write(10..20)),
            (1, Step::Truncate(15)),
            (2, Step::Write(0..9000)),
            (1, Step::BeginStore),
            (1, Step::Sending(call(10..15), Mark { mtime: 99, sum: 5 })),
            (1, Step::Write(100..200)),
            (2, Step::BeginStore),
            (2, Step::Sending(call(0..9000), Mark { mtime: 98, sum: 5 })),
            (2, Step::Sending(call(0..9000), Mark { mtime: 98, sum: 5 })),
            (2, Step::Stored(DataVersion(4), 9000, true)),
            (1, Step::PartStored(DataVersion(4), 15)),
        ]
    }

    fn written(dir: &Path) -> PathBuf {
        let path = dir.join("journal");
        let (mut journal, left) = Journal::open(&path).unwrap();
        assert!(left.is_empty());
        for (id, step) in steps() {
            if !journal.has(id) {
                journal.begin(id, entry(id as u32));
            }
            journal.step(id, &step);
        }
        path
    }

    fn told(entry: &Entry) -> String {
        let parts = entry.content.parts();
        format!(
            "{:?} {:?} {:?} {:?}",
            parts.dirty, parts.cut, parts.grow, parts.attempt
        )
    }

    #[test]
    fn what_was_written_is_read() {
        let dir = super::super::model::fast_dir();
        let path = written(dir.path());
        let (mut journal, left) = Journal::open(&path).unwrap();
        let [left] = left.as_slice() else {
            panic!("{left:?}")
        };
        assert_eq!(left.key.vnode, 1);
        assert_eq!(
            left.author,
            Author {
                is_earlier: true,
                ..entry(1).author
            }
        );
        assert!(!left.is_doubtful);
        // What was being stored is dirty again, with what was written meanwhile.
        let dirty: Vec<_> = left.content.dirty().iter().collect();
        assert_eq!(dirty, [10..15, 100..200]);
        assert_eq!(left.content.parts().cut, Some(15));
        assert_eq!(left.content.version(), Some(DataVersion(4)));
        assert_eq!(left.content.attempt(), None);
        // And from a journal that was written anew.
        journal.keep(7, left.clone());
        journal.rewrite().unwrap();
        let (_, again) = Journal::open(&path).unwrap();
        assert_eq!(told(&again[0]), told(left));
    }

    /// The program may die in the middle of a write; what it had written before counts.
    #[test]
    fn a_journal_that_is_cut_off_is_read_up_to_there() {
        let dir = super::super::model::fast_dir();
        let path = written(dir.path());
        let whole = fs::read(&path).unwrap();
        let mut seen = Vec::new();
        for len in MAGIC.len()..=whole.len() {
            let read = read(&whole[..len]);
            assert_eq!(read.damaged_at, None, "at {len}");
            let mut now: Vec<_> = read.entries.values().map(told).collect();
            now.sort();
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        assert!(seen.len() > 8, "{seen:?}");
    }

    #[test]
    fn a_changed_byte_ends_it() {
        let dir = super::super::model::fast_dir();
        let path = written(dir.path());
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let read = read(&bytes);
            // A length that points behind the end looks like a record that was being written.
            let rest = whole.len() - at;
            assert!(
                read.damaged_at.is_some_and(|damaged| damaged <= at) || rest < whole.len(),
                "at {at}"
            );
            assert!(read.entries.len() <= 2);
        }
        fs::write(&path, b"not a journal").unwrap();
        let (_, left) = Journal::open(&path).unwrap();
        assert!(left.is_empty());
        assert_eq!(
            fs::read(dir.path().join("journal.damaged")).unwrap(),
            b"not a journal"
        );
    }

    #[test]
    fn what_another_boot_has_left_is_doubtful() {
        let dir = super::super::model::fast_dir();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.boot = "another".to_owned();
        journal.begin(1, entry(1));
        journal.step(1, &Step::Write(0..10));
        let (_, left) = Journal::open(&path).unwrap();
        assert!(left[0].is_doubtful);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let dir = super::super::model::fast_dir();
        let path = dir.path().join("journal");
        let (mut journal, _) = Journal::open(&path).unwrap();
        journal.begin(1, entry(1));
        for round in 0..200_000u64 {
            journal.step(1, &Step::Write(round % 100 * 10..round % 100 * 10 + 5));
        }
        let size = fs::metadata(&path).unwrap().len();
        assert!(size <= FULL, "{size}");
        let (_, left) = Journal::open(&path).unwrap();
        assert_eq!(left[0].content.dirty().bytes(), 500);
    }
}
