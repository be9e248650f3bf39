//! Files that were removed while they were open: each has a hidden name until its last close.
//!
//! The machine: before a file is hidden that is written down in the cache directory, and when it is gone, that too. So the
//! program that starts there after a crash removes what is left. It removes nothing else: the hidden name of another client
//! looks the same, but that one may have the file open. Whoever had it open here is gone with the program that hid it, or is
//! taken over with its handle; and for everybody else the file went when it was removed. Without a cache directory it is written
//! down in a file of its own, if there is a place for one, and by somebody else who is told each line.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::Path;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::auth::tokens::Identity;
use crate::cell::CellName;
use crate::store::{DataCache, Notes};
use crate::types::{Fid, Uniquifier, VnodeId, VolumeId};

/// A file of a cell that has a hidden name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HiddenFile {
    pub(crate) cell: CellName,
    pub(crate) volume: VolumeId,
    pub(crate) file: (VnodeId, Uniquifier),
}

/// Where it is, and who removed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hiding {
    pub(crate) dir: (VnodeId, Uniquifier),
    pub(crate) who: Identity,
}

/// What is hidden.
#[derive(Default)]
pub(crate) struct Hidden(Mutex<Book>);

#[derive(Default)]
struct Book {
    /// Where it is written down; none without a cache directory that a later program can read.
    notes: Option<Notes>,
    hidden: HashMap<HiddenFile, Hiding>,
    witness: Option<Witness>,
}

/// Is told what is hidden, and whether it is so from now on or not any more.
type Witness = Box<dyn Fn(&str, bool) + Send + Sync>;

impl HiddenFile {
    pub(crate) fn new(cell: &CellName, fid: Fid) -> Self {
        Self {
            cell: cell.clone(),
            volume: fid.volume,
            file: (fid.vnode, fid.unique),
        }
    }

    pub(crate) fn name(&self) -> Bytes {
        hidden_name(self.file.0, self.file.1)
    }
}

impl Hidden {
    /// Goes on with what is written down beside the cache, or else in a file of its own. If that cannot be, nothing is written
    /// down from now on.
    pub(crate) fn beside(cache: &DataCache, otherwise: Option<&Path>) -> Self {
        let notes = cache.hidden_notes().and_then(|notes| match (notes, otherwise) {
            (None, Some(path)) => Notes::alone(path).map(Some),
            (notes, _) => Ok(notes),
        });
        match notes {
            Ok(Some((notes, lines))) => Self(Mutex::new(Book::new(notes, &lines))),
            Ok(None) => Self::default(),
            Err(error) => {
                complain(&error);
                Self::default()
            }
        }
    }

    /// It is about to be hidden.
    pub(crate) fn add(&self, file: &HiddenFile, hiding: Hiding) {
        self.0.lock().add(file, hiding);
    }

    /// It is gone.
    pub(crate) fn remove(&self, file: &HiddenFile) {
        self.0.lock().remove(file);
    }

    /// Where it is, if it was hidden here.
    pub(crate) fn find(&self, file: &HiddenFile) -> Option<Hiding> {
        self.0.lock().hidden.get(file).copied()
    }

    /// All that is hidden now.
    pub(crate) fn all(&self) -> Vec<(HiddenFile, Hiding)> {
        let book = self.0.lock();
        let all = book.hidden.iter();
        all.map(|(file, hiding)| (file.clone(), *hiding)).collect()
    }

    /// Has somebody told what is hidden: all of it now, and each change.
    pub(crate) fn witness(&self, witness: Witness) {
        let mut book = self.0.lock();
        for (file, hiding) in &book.hidden {
            witness(&words(file, *hiding), true);
        }
        book.witness = Some(witness);
    }

    /// It was hidden by an earlier program, as that has told its witness. What is not understood is not taken.
    pub(crate) fn adopt(&self, words: &str) {
        match parse(words) {
            Some((file, hiding)) => self.add(&file, hiding),
            None => tracing::debug!(words, "not understood"),
        }
    }
}

impl Book {
    fn new(notes: Notes, lines: &[String]) -> Self {
        let mut hidden = HashMap::new();
        for line in lines {
            match line
                .split_once(' ')
                .and_then(|(sign, rest)| Some((sign, parse(rest)?)))
            {
                Some(("+", (file, hiding))) => {
                    hidden.insert(file, hiding);
                }
                Some(("-", (file, _))) => {
                    hidden.remove(&file);
                }
                _ => tracing::debug!(line, "not understood"),
            }
        }
        let mut notes = notes;
        // Without what has come and gone.
        if !lines.is_empty()
            && let Err(error) = notes.begin(lines_of(&hidden))
        {
            complain(&error);
        }
        Self {
            notes: Some(notes),
            hidden,
            witness: None,
        }
    }

    fn add(&mut self, file: &HiddenFile, hiding: Hiding) {
        self.hidden.insert(file.clone(), hiding);
        self.tell(file, hiding, true);
        self.write('+', file, hiding);
    }

    fn remove(&mut self, file: &HiddenFile) {
        if let Some(hiding) = self.hidden.remove(file) {
            self.tell(file, hiding, false);
            self.write('-', file, hiding);
        }
    }

    fn tell(&self, file: &HiddenFile, hiding: Hiding, is_hidden: bool) {
        if let Some(witness) = &self.witness {
            witness(&words(file, hiding), is_hidden);
        }
    }

    fn write(&mut self, sign: char, file: &HiddenFile, hiding: Hiding) {
        let Some(notes) = &mut self.notes else { return };
        let written = if notes.is_to_begin() {
            notes.begin(lines_of(&self.hidden))
        } else if self.hidden.is_empty() {
            notes.clear()
        } else {
            notes.add(&line(sign, file, hiding))
        };
        if let Err(error) = written {
            complain(&error);
        }
    }
}

fn complain(error: &io::Error) {
    tracing::warn!(%error, "a file that is removed while it is open may be left after a crash");
}

fn lines_of(hidden: &HashMap<HiddenFile, Hiding>) -> impl Iterator<Item = String> {
    hidden.iter().map(|(file, hiding)| line('+', file, *hiding))
}

fn line(sign: char, file: &HiddenFile, hiding: Hiding) -> String {
    format!("{sign} {}", words(file, hiding))
}

fn words(file: &HiddenFile, hiding: Hiding) -> String {
    let (vnode, unique) = file.file;
    let (dir, dir_unique) = hiding.dir;
    format!(
        "{} {} {} {} {} {} {}",
        file.cell,
        file.volume.0,
        vnode.0,
        unique.0,
        dir.0,
        dir_unique.0,
        Who(hiding.who)
    )
}

fn parse(text: &str) -> Option<(HiddenFile, Hiding)> {
    let mut words = text.split(' ');
    let cell = CellName::new(words.next()?).ok()?;
    let mut number = || words.next()?.parse().ok();
    let file = HiddenFile {
        cell,
        volume: VolumeId(number()?),
        file: (VnodeId(number()?), Uniquifier(number()?)),
    };
    let dir = (VnodeId(number()?), Uniquifier(number()?));
    let who = match words.next()? {
        "-" => Identity::Nobody,
        "*" => Identity::Everybody,
        user => Identity::User(user.parse().ok()?),
    };
    words.next().is_none().then_some((file, Hiding { dir, who }))
}

/// As it is written down. Groups and scopes have numbers that end with the program.
struct Who(Identity);

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Identity::User(user) => write!(f, "{user}"),
            Identity::Everybody => f.write_str("*"),
            _ => f.write_str("-"),
        }
    }
}

/// Other clients hide names like this (OpenAFS `afs_newname`).
pub(crate) fn hidden_name(vnode: VnodeId, unique: Uniquifier) -> Bytes {
    format!(".__afs{:X}{:X}", vnode.0, unique.0).into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::store::{CacheKey, Encryption};

    fn file(vnode: u32) -> HiddenFile {
        HiddenFile {
            cell: CellName::new("a.example").unwrap(),
            volume: VolumeId(536_870_912),
            file: (VnodeId(vnode), Uniquifier(7)),
        }
    }

    fn key() -> Encryption {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), [7; 32]).unwrap();
        Encryption::Key(CacheKey::read(file.path()).unwrap())
    }

    fn cache(dir: &Path, encryption: &Encryption) -> DataCache {
        DataCache::in_dir(dir, 0, encryption).unwrap()
    }

    fn hiding(who: Identity) -> Hiding {
        let dir = (VnodeId(1), Uniquifier(1));
        Hiding { dir, who }
    }

    #[test]
    fn what_is_written_down_is_there_again() {
        for encryption in [Encryption::Off, key()] {
            let dir = tempfile::tempdir().unwrap();
            let first = cache(dir.path(), &encryption);
            let hidden = Hidden::beside(&first, None);
            for (vnode, who) in [
                (2, Identity::User(1001)),
                (4, Identity::Everybody),
                (6, Identity::Nobody),
            ] {
                hidden.add(&file(vnode), hiding(who));
            }
            hidden.remove(&file(4));
            let text = fs::read(dir.path().join("hidden")).unwrap();
            let is_told = text.windows(9).any(|window| window == b"a.example");
            assert_eq!(is_told, encryption == Encryption::Off);
            drop((hidden, first));
            let second = cache(dir.path(), &encryption);
            let again = Hidden::beside(&second, None);
            assert_eq!(again.all().len(), 2);
            assert_eq!(again.find(&file(2)), Some(hiding(Identity::User(1001))));
            assert_eq!(again.find(&file(4)), None);
            again.remove(&file(2));
            again.remove(&file(6));
            drop((again, second));
            assert!(
                Hidden::beside(&cache(dir.path(), &encryption), None)
                    .all()
                    .is_empty()
            );
        }
    }

    /// A key that goes with its program leaves nothing to read, so nothing is written.
    #[test]
    fn without_a_lasting_cache_nothing_is_written_down() {
        let dir = tempfile::tempdir().unwrap();
        let passing = cache(dir.path(), &Encryption::Passing);
        for cache in [DataCache::in_memory(0), passing] {
            let hidden = Hidden::beside(&cache, None);
            hidden.add(&file(2), hiding(Identity::Nobody));
        }
        assert!(!dir.path().join("hidden").exists());
    }

    /// What a plain cache told goes when it begins anew, encrypted.
    #[test]
    fn what_was_plain_goes_with_the_plain_cache() {
        let dir = tempfile::tempdir().unwrap();
        let plain = cache(dir.path(), &Encryption::Off);
        Hidden::beside(&plain, None).add(&file(2), hiding(Identity::Nobody));
        drop(plain);
        let sealed = cache(dir.path(), &key());
        assert!(!dir.path().join("hidden").exists());
        assert!(Hidden::beside(&sealed, None).all().is_empty());
    }

    #[test]
    fn a_witness_can_tell_the_next_program() {
        let hidden = Hidden::default();
        let hiding = hiding(Identity::User(1001));
        hidden.add(&file(2), hiding);
        let written = Arc::new(Mutex::new(HashSet::new()));
        let to = Arc::clone(&written);
        hidden.witness(Box::new(move |words, is_hidden| {
            let words = words.to_owned();
            let is_new = if is_hidden {
                to.lock().insert(words)
            } else {
                to.lock().remove(&words)
            };
            assert!(is_new);
        }));
        hidden.add(&file(4), hiding);
        hidden.remove(&file(2));
        let next = Hidden::default();
        written.lock().iter().for_each(|words| next.adopt(words));
        next.adopt("nonsense");
        assert_eq!(next.all(), [(file(4), hiding)]);
    }
}
