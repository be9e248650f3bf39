//! The bytes of a journal's records: entries, and steps of them.

use super::*;
use crate::xdr::{Decode, Encode, from_bytes};

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn take_text(input: &mut Input<'_>) -> Option<String> {
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

fn take_status(input: &mut Input<'_>) -> Option<StoreStatus> {
    let (status, rest) = input.0.split_at_checked(StoreStatus::MIN_LEN)?;
    input.0 = rest;
    let status = from_bytes::<StoreStatus>(status).ok()?;
    // What of others is set waits for the server and is not noted.
    let is_ours = status.mask & !(StoreStatus::SET_MTIME | StoreStatus::SET_MODE) == 0;
    is_ours.then_some(status)
}

pub(super) fn put_entry(out: &mut Vec<u8>, id: u64, entry: &Entry) {
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

pub(super) fn put_step(out: &mut Vec<u8>, id: u64, step: &Step) {
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
        Step::SetStatus(set) => {
            head(SET_STATUS);
            set.encode(out);
        }
        Step::StatusStored(stored) => {
            head(STATUS_STORED);
            stored.encode(out);
        }
        Step::Discard => head(DISCARD),
        Step::Forget => head(FORGET),
    }
}

/// Reads a record and does what it says.
pub(super) fn take_record(entries: &mut HashMap<u64, Entry>, input: &mut Input<'_>) -> Option<()> {
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
        SET_STATUS => Step::SetStatus(take_status(input)?),
        STATUS_STORED => Step::StatusStored(take_status(input)?),
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
    if !entry.content.is_unstored() {
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
        // Earlier programs know of none.
        if parts.noted.mask != 0 {
            parts.noted.encode(out);
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
        let noted = if input.0.is_empty() {
            StoreStatus::default()
        } else {
            take_status(input)?
        };
        let version = has_version.then_some(version);
        let cut = (cut != u64::MAX).then_some(cut);
        Some(Self::local(
            version,
            (server_len, cut, grow),
            sets,
            attempt,
            noted,
        ))
    }
}

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
const SET_STATUS: u8 = 11;
const STATUS_STORED: u8 = 12;
