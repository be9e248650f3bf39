//! Notes for the next program: a small file of lines beside the cache, sealed as the cache is.
//!
//! The machine: whoever opens it reads what there is, and begins it anew with what of that still counts. Then each line is
//! appended and not waited for, and when nothing counts any more the file goes. Whoever writes it holds a lock on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frames::{Framed, Frames};
use super::record::Input;
use super::seal::Seal;

/// A file of notes.
#[derive(Debug)]
pub(crate) struct Notes {
    path: PathBuf,
    /// `None` before it is begun, and when a part of a line may be in it.
    file: Option<File>,
    frames: Frames,
}

impl Notes {
    /// Notes beside no cache, whose file nobody else may be using.
    ///
    /// # Errors
    ///
    /// `WouldBlock`: a program that uses it is alive. Others: it cannot be read.
    pub(crate) fn alone(path: &Path) -> io::Result<(Self, Vec<String>)> {
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            file => file?.try_lock_shared()?,
        }
        Self::open(path.to_owned(), None)
    }

    /// The notes, to be begun anew, and the lines that there are, up to the first damage.
    pub(super) fn open(path: PathBuf, seal: Option<Arc<Seal>>) -> io::Result<(Self, Vec<String>)> {
        let left = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            left => left?,
        };
        let (lines, is_whole) = read(&left, seal.as_ref());
        if !is_whole {
            tracing::warn!(path = %path.display(), "it is damaged: what is behind that is not believed");
        }
        let frames = Frames::new(KIND, seal)?;
        let notes = Self {
            path,
            file: None,
            frames,
        };
        Ok((notes, lines))
    }

    /// Is it to be begun before anything is added?
    pub(crate) fn is_to_begin(&self) -> bool {
        self.file.is_none()
    }

    /// Begins anew, with these lines.
    ///
    /// # Errors
    ///
    /// It is as it was, and to be begun.
    pub(crate) fn begin(&mut self, lines: impl IntoIterator<Item = String>) -> io::Result<()> {
        self.file = None;
        let mut all = self.frames.begin()?;
        for line in lines {
            all.extend(self.framed(&line)?);
        }
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        // It is ours as long as we live.
        file.try_lock()?;
        file.write_all(&all)?;
        fs::rename(&new, &self.path)?;
        self.file = Some(file);
        Ok(())
    }

    /// Adds a line.
    ///
    /// # Errors
    ///
    /// It is not there, and the notes are to be begun.
    pub(crate) fn add(&mut self, line: &str) -> io::Result<()> {
        let framed = self.framed(line)?;
        let Some(mut file) = self.file.take() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        file.write_all(&framed)?;
        self.file = Some(file);
        Ok(())
    }

    /// Nothing counts any more: the file goes.
    ///
    /// # Errors
    ///
    /// It is there still, and to be begun.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file = None;
        fs::remove_file(&self.path)
    }

    fn framed(&mut self, line: &str) -> io::Result<Vec<u8>> {
        self.frames.frame(|out| out.extend_from_slice(line.as_bytes()))
    }
}

/// The lines of a file, and whether that is all of it. What was cut off at its end was being written.
fn read(bytes: &[u8], seal: Option<&Arc<Seal>>) -> (Vec<String>, bool) {
    let mut lines = Vec::new();
    if bytes.is_empty() {
        return (lines, true);
    }
    let Some((mut frames, rest)) = Frames::of(KIND, bytes, seal) else {
        return (lines, false);
    };
    let mut input = Input(rest);
    loop {
        match frames.next(&mut input) {
            Framed::Record(line) => lines.extend(String::from_utf8(line.into_owned())),
            Framed::End => return (lines, true),
            Framed::Damaged => return (lines, false),
        }
    }
}

const KIND: &str = "afs-fuse hidden files 1";

#[cfg(test)]
mod tests {
    use super::super::key::CacheKey;
    use super::*;

    fn seal() -> Arc<Seal> {
        Arc::new(Seal::new(&CacheKey::random().unwrap(), [1; 16]).unwrap())
    }

    fn lines(path: &Path, seal: Option<&Arc<Seal>>) -> Vec<String> {
        Notes::open(path.to_owned(), seal.cloned()).unwrap().1
    }

    #[test]
    fn what_is_noted_is_there_again() {
        for seal in [None, Some(seal())] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("hidden");
            let (mut notes, left) = Notes::open(path.clone(), seal.clone()).unwrap();
            assert!(left.is_empty() && notes.is_to_begin());
            notes.begin(["one".to_owned()]).unwrap();
            notes.add("two").unwrap();
            assert_eq!(lines(&path, seal.as_ref()), ["one", "two"]);
            // Whoever wrote last was cut short.
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..whole.len() - 1]).unwrap();
            assert_eq!(lines(&path, seal.as_ref()), ["one"]);
            notes.clear().unwrap();
            assert!(!path.exists() && notes.is_to_begin());
            notes.begin(["three".to_owned()]).unwrap();
            assert_eq!(lines(&path, seal.as_ref()), ["three"]);
        }
    }

    #[test]
    fn notes_of_a_program_that_is_alive_are_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hidden");
        let (mut notes, _) = Notes::alone(&path).unwrap();
        notes.begin(["one".to_owned()]).unwrap();
        let refused = Notes::alone(&path).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        drop(notes);
        assert_eq!(Notes::alone(&path).unwrap().1, ["one"]);
    }

    /// Nobody without the key can read them, leave some out, or put others there.
    #[test]
    fn sealed_notes_are_neither_told_nor_changed() {
        let (dir, seal) = (tempfile::tempdir().unwrap(), seal());
        let path = dir.path().join("hidden");
        let (mut notes, _) = Notes::open(path.clone(), Some(Arc::clone(&seal))).unwrap();
        notes.begin([]).unwrap();
        let head = fs::read(&path).unwrap().len();
        notes.add("the first").unwrap();
        let first = fs::read(&path).unwrap().len();
        notes.add("the second").unwrap();
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(5).any(|window| window == b"first"));
        assert!(lines(&path, None).is_empty());
        fs::write(&path, [&bytes[..head], &bytes[first..]].concat()).unwrap();
        assert!(lines(&path, Some(&seal)).is_empty(), "one was left out");
        let (mut plain, _) = Notes::open(path.clone(), None).unwrap();
        plain.begin(["somebody else's".to_owned()]).unwrap();
        assert_eq!(lines(&path, None).len(), 1);
        assert!(lines(&path, Some(&seal)).is_empty());
    }
}
