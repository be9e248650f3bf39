//! Rules as text: one on each line.
//!
//! ```text
//! # the second store of this file meets a busy volume
//! on 2 fs StoreData64 fid 536870918.2.2: abort VBUSY
//! on 1-3 fs FetchData64 client 127.0.0.1: delay 200ms, break between
//! every 10 fs any server 2: restart lost
//! always vl GetEntryByName: delay 1s
//! ```
//!
//! What a word may be: `on N`, `on N-M`, `every N`, `always`; `fs` or `vl`; the name of a procedure or `any`; `fid V.N.U`,
//! `client ADDRESS[:PORT]`, `server N`; then a colon and the actions, with commas between them: `delay TIME`,
//! `drop-reply`, `duplicate`, `abort CODE`, `break before|between|after`, `restart kept|lost`, `unheard kept|lost`,
//! `lie short-data|data-version|status|directory-page`, `freeze TIME`, `half-bandwidth`.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use afs_client::codes;
use afs_client::rpc::types::AfsFid;
use afs_client::rpc::{fs, vl};

use super::{Action, Calls, Lie, Memory, Moment, Rule, Service, When};

/// A script makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {what}")]
pub struct ScriptError {
    /// Which line, from 1.
    pub line: usize,
    /// Which character of it, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
}

/// Reads a script.
///
/// # Errors
///
/// The first word that makes no sense, and where it is.
pub fn parse(text: &str) -> Result<Vec<Rule>, ScriptError> {
    let mut rules = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        let mut words = Words::of(code, index + 1);
        if !words.is_empty() {
            rules.push(rule(&mut words)?);
        }
    }
    Ok(rules)
}

fn rule(words: &mut Words<'_>) -> Result<Rule, ScriptError> {
    let when = match words.next("on, every or always")? {
        "always" => When::ALWAYS,
        "every" => words.read("a number from 1", |word| positive(word).map(When::Every))?,
        "on" => words.read("a number from 1, or two with a dash between", |word| {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let (first, last) = (positive(first)?, positive(last)?);
            (first <= last).then_some(When::Between(first, last))
        })?,
        _ => return words.unknown("on, every or always"),
    };
    let (service, procedures) = match words.next("fs or vl")? {
        "fs" => (Service::File, FILE_PROCEDURES.iter().chain(fs::PROCEDURES)),
        "vl" => (Service::Location, [].iter().chain(vl::PROCEDURES)),
        _ => return words.unknown("fs or vl"),
    };
    let opcode = words.read("a procedure of the service, or any", |word| {
        let named = |(_, name): &&(u32, &str)| *name == word || name.strip_suffix("Of") == Some(word);
        match word {
            "any" => Some(None),
            _ => procedures.clone().find(named).map(|(opcode, _)| Some(*opcode)),
        }
    })?;
    let mut calls = Calls {
        service,
        opcode,
        fid: None,
        client: None,
        server: None,
    };
    loop {
        match words.next("fid, client, server or a colon")? {
            ":" => break,
            "fid" => calls.fid = Some(words.read("three numbers with dots between", fid)?),
            "client" => calls.client = Some(words.read("an address, maybe with :PORT", client)?),
            "server" => {
                let server = words.read("a number from 1", positive)?;
                calls.server = Some(usize::try_from(server).unwrap_or(usize::MAX));
            }
            _ => return words.unknown("fid, client, server or a colon"),
        }
    }
    let mut actions = vec![action(words)?];
    while !words.is_empty() {
        match words.next("a comma")? {
            "," => actions.push(action(words)?),
            _ => return words.unknown("a comma"),
        }
    }
    Ok(Rule::new(when, calls, actions))
}

fn memory(word: &str) -> Option<Memory> {
    match word {
        "kept" => Some(Memory::Kept),
        "lost" => Some(Memory::Lost),
        _ => None,
    }
}

fn action(words: &mut Words<'_>) -> Result<Action, ScriptError> {
    Ok(match words.next(ACTIONS)? {
        "delay" => Action::Delay(words.read(TIME, time)?),
        "freeze" => Action::Freeze(words.read(TIME, time)?),
        "drop-reply" => Action::DropReply,
        "duplicate" => Action::Duplicate,
        "half-bandwidth" => Action::HalfBandwidth,
        "abort" => Action::Abort(words.read("a code like VBUSY, UAEIO or RXKADEXPIRED", codes::named)?),
        "break" => Action::Break(words.read("before, between or after", |word| {
            Some(match word {
                "before" => Moment::Before,
                "between" => Moment::Between,
                "after" => Moment::After,
                _ => return None,
            })
        })?),
        "unheard" => Action::Unheard(words.read("kept or lost", memory)?),
        "restart" => Action::Restart(words.read("kept or lost", memory)?),
        "lie" => Action::Lie(
            words.read("short-data, data-version, status or directory-page", |word| {
                Some(match word {
                    "short-data" => Lie::ShortData,
                    "data-version" => Lie::DataVersion,
                    "status" => Lie::Status,
                    "directory-page" => Lie::DirectoryPage,
                    _ => return None,
                })
            })?,
        ),
        _ => return words.unknown(ACTIONS),
    })
}

/// The words of a line; a comma, and a colon at the end of a word, are words of their own.
struct Words<'a> {
    line: usize,
    /// Column and word, the next one last.
    words: Vec<(usize, &'a str)>,
    /// Where the last word that was taken is, and what it was.
    here: (usize, &'a str),
}

impl<'a> Words<'a> {
    fn of(text: &'a str, line: usize) -> Self {
        let mut words = Vec::new();
        let mut begun: Option<(usize, usize)> = None;
        let mut characters = text.char_indices().zip(1..).peekable();
        while let Some(((at, character), column)) = characters.next() {
            let ends = characters
                .peek()
                .is_none_or(|((_, next), _)| next.is_whitespace());
            // Colons within words are those of ports.
            let alone = character == ',' || (character == ':' && ends);
            if !alone && !character.is_whitespace() {
                begun.get_or_insert((column, at));
                continue;
            }
            words.extend(begun.take().map(|(column, from)| (column, from..at)));
            words.extend(alone.then_some((column, at..at + 1)));
        }
        words.extend(begun.map(|(column, from)| (column, from..text.len())));
        let words = words.into_iter().rev();
        Self {
            line,
            words: words
                .map(|(column, place)| (column, text.get(place).unwrap_or_default()))
                .collect(),
            here: (1, ""),
        }
    }

    fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    fn next(&mut self, expected: &str) -> Result<&'a str, ScriptError> {
        let end = self.here.0 + self.here.1.chars().count();
        let Some(word) = self.words.pop() else {
            return Err(self.error(end, format!("the line ends where {expected} should be")));
        };
        self.here = word;
        Ok(word.1)
    }

    /// Takes a word that `read` understands.
    fn read<T>(&mut self, expected: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, ScriptError> {
        let word = self.next(expected)?;
        match read(word) {
            Some(value) => Ok(value),
            None => self.unknown(expected),
        }
    }

    /// The last word is not one that may stand here.
    fn unknown<T>(&self, expected: &str) -> Result<T, ScriptError> {
        let (column, word) = self.here;
        Err(self.error(column, format!("`{word}' is not {expected}")))
    }

    const fn error(&self, column: usize, what: String) -> ScriptError {
        ScriptError {
            line: self.line,
            column,
            what,
        }
    }
}

fn positive(word: &str) -> Option<u64> {
    word.parse().ok().filter(|number| *number > 0)
}

fn fid(word: &str) -> Option<AfsFid> {
    let mut numbers = word.split('.').map(|number| number.parse().ok());
    let mut next = || numbers.next().flatten();
    let fid = AfsFid {
        volume: next()?,
        vnode: next()?,
        unique: next()?,
    };
    numbers.next().is_none().then_some(fid)
}

fn client(word: &str) -> Option<SocketAddrV4> {
    let alone = |word: &str| Some(SocketAddrV4::new(word.parse::<Ipv4Addr>().ok()?, 0));
    word.parse().ok().or_else(|| alone(word))
}

fn time(word: &str) -> Option<Duration> {
    if let Some(number) = word.strip_suffix("ms") {
        return number.parse().ok().map(Duration::from_millis);
    }
    word.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}

const ACTIONS: &str =
    "delay, drop-reply, duplicate, abort, break, unheard, restart, lie, freeze or half-bandwidth";
const TIME: &str = "a time like 200ms or 2s";
/// Those that carry data are in no table.
const FILE_PROCEDURES: &[(u32, &str)] = &[
    (fs::FETCH_DATA, fs::FETCH_DATA_NAME),
    (fs::STORE_DATA, fs::STORE_DATA_NAME),
    (fs::FETCH_DATA_32, fs::FETCH_DATA_32_NAME),
    (fs::STORE_DATA_32, fs::STORE_DATA_32_NAME),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_script_is_read() {
        let text = "\n# nothing\n  \non 2 fs StoreData64 fid 7.2.3: abort VBUSY # comment\n\
            on 1-3 fs FetchStatus client 127.0.0.1:7001 server 2 : delay 200ms, break between,lie data-version\n\
            every 5 vl any: freeze 1s\nalways fs InlineBulkStatus: drop-reply, duplicate , restart lost\n";
        let rules = parse(text).unwrap();
        let shown: Vec<_> = rules
            .iter()
            .map(|rule| (rule.when, rule.calls.opcode, format!("{:?}", rule.actions)))
            .collect();
        assert_eq!(
            shown,
            [
                (When::Between(2, 2), Some(65_538), "[Abort(110)]".to_owned()),
                (
                    When::Between(1, 3),
                    Some(132),
                    "[Delay(200ms), Break(Between), Lie(DataVersion)]".to_owned()
                ),
                (When::Every(5), None, "[Freeze(1s)]".to_owned()),
                (
                    When::Every(1),
                    Some(65_536),
                    "[DropReply, Duplicate, Restart(Lost)]".to_owned()
                ),
            ]
        );
        assert_eq!(rules[0].calls.fid, Some(fid("7.2.3").unwrap()));
        assert_eq!(rules[1].calls.server, Some(2));
        assert_eq!(rules[2].calls.service, Service::Location);
    }

    #[test]
    fn an_unknown_word_is_refused_with_its_place() {
        for (text, line, column, part) in [
            (
                "\nwhen 1 fs any: duplicate",
                2,
                1,
                "`when' is not on, every or always",
            ),
            ("on 0 fs any: duplicate", 1, 4, "`0' is not a number from 1"),
            ("on 3-2 fs any: duplicate", 1, 4, "`3-2'"),
            ("on 1 pt any: duplicate", 1, 6, "`pt' is not fs or vl"),
            (
                "on 1 vl FetchData64: duplicate",
                1,
                9,
                "`FetchData64' is not a procedure",
            ),
            ("on 1 fs any with: duplicate", 1, 13, "`with' is not fid, client"),
            ("on 1 fs any fid 1.2: duplicate", 1, 17, "`1.2'"),
            ("on 1 fs any client x: duplicate", 1, 20, "`x' is not an address"),
            ("on 1 fs any: abort VBUZY", 1, 20, "`VBUZY' is not a code"),
            ("on 1 fs any: delay 5", 1, 20, "`5' is not a time"),
            ("on 1 fs any: delay 5s then", 1, 23, "`then' is not a comma"),
            ("on 1 fs any: explode", 1, 14, "`explode' is not delay"),
            ("on 1 fs any:", 1, 13, "the line ends where delay"),
            ("on 1 fs", 1, 8, "the line ends where a procedure"),
            ("on 1 fs any", 1, 12, "the line ends where fid"),
            ("ön", 1, 1, "`ön'"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!((error.line, error.column), (line, column), "{text:?}: {error}");
            assert!(error.what.contains(part), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_harmless(text in "([a-z0-9:,. #é]{0,9} ?){0,12}") {
            let _ = parse(&text);
        }
    }
}
