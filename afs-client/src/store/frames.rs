//! A file that grows by records, each in a frame: a length, a checksum, and the record.
//!
//! The machine: the file begins with its kind. In an encrypted cache it has a random name besides, and each record is sealed
//! for its number in the file of that name, so none can be left out, moved, or taken from elsewhere; what is cut off at the
//! end is not noticed, as after a crash.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use super::record::{Input, checksum_of};
use super::seal::{Place, Seal};

/// What comes next in such a file.
pub(super) enum Framed<'a> {
    /// A record.
    Record(Cow<'a, [u8]>),
    /// Nothing, or what was cut off while it was written.
    End,
    /// Something else.
    Damaged,
}

/// The frames of one file.
#[derive(Debug)]
pub(super) struct Frames {
    kind: &'static str,
    /// And the name of the file.
    seal: Option<(Arc<Seal>, [u8; 16])>,
    /// The number of the next record.
    count: u64,
}

impl Frames {
    /// Those of a file that begins.
    pub(super) fn new(kind: &'static str, seal: Option<Arc<Seal>>) -> io::Result<Self> {
        let mut frames = Self {
            kind,
            seal: seal.map(|seal| (seal, [0; 16])),
            count: 0,
        };
        frames.begin()?;
        Ok(frames)
    }

    /// Those of a file that was written, and what is behind its head.
    pub(super) fn of<'a>(
        kind: &'static str,
        bytes: &'a [u8],
        seal: Option<&Arc<Seal>>,
    ) -> Option<(Self, &'a [u8])> {
        let rest = bytes.strip_prefix(kind.as_bytes())?;
        let (seal, rest) = match seal {
            None => (None, rest.strip_prefix(PLAIN)?),
            Some(seal) => {
                let (name, rest) = rest.strip_prefix(SEALED)?.split_first_chunk()?;
                (Some((Arc::clone(seal), *name)), rest)
            }
        };
        Some((Self { kind, seal, count: 0 }, rest))
    }

    /// Begins anew; gives the head of the file.
    pub(super) fn begin(&mut self) -> io::Result<Vec<u8>> {
        self.count = 0;
        let kind = self.kind.as_bytes();
        let Some((_, name)) = &mut self.seal else {
            return Ok([kind, PLAIN].concat());
        };
        getrandom::fill(name).map_err(io::Error::other)?;
        Ok([kind, SEALED, name.as_slice()].concat())
    }

    fn place(&mut self, name: [u8; 16]) -> Place {
        let place = Place::Frame(name, self.count);
        self.count += 1;
        place
    }

    /// A record: its length, its checksum, and what `body` puts.
    pub(super) fn frame(&mut self, body: impl FnOnce(&mut Vec<u8>)) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        body(&mut text);
        if let Some((seal, name)) = self.seal.clone() {
            text = seal.seal_text(self.place(name), &text)?;
        }
        let len = u32::try_from(text.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut out = Vec::with_capacity(text.len() + FRAME);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&checksum_of(&text).to_be_bytes());
        out.extend_from_slice(&text);
        Ok(out)
    }

    /// The next record of a file that was written.
    pub(super) fn next<'a>(&mut self, input: &mut Input<'a>) -> Framed<'a> {
        let (Some(len), Some(sum)) = (input.u32(), input.u64()) else {
            return Framed::End;
        };
        let Some((text, rest)) = usize::try_from(len)
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
        if checksum_of(text) != sum {
            return Framed::Damaged;
        }
        input.0 = rest;
        self.opened(text).map_or(Framed::Damaged, Framed::Record)
    }

    fn opened<'a>(&mut self, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self.seal.clone() {
            None => Some(Cow::Borrowed(text)),
            Some((seal, name)) => seal.open_text(self.place(name), text).map(Cow::Owned),
        }
    }
}

const PLAIN: &[u8] = b"\n";
const SEALED: &[u8] = b", encrypted\n";
/// Length and checksum.
const FRAME: usize = 12;
/// More than any record: a file in so many pieces has been stored long before.
const LONGEST: u32 = 64 << 20;
