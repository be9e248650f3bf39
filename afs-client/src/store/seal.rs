//! What hides a cache directory from whoever has no key: AES-256-GCM for contents and texts, AES-256 for names.
//!
//! The machine: the key that is given and the salt of the directory make a root (HKDF, RFC 5869), of which everything else is
//! made: for each run of the program, which calls itself by ten random bytes, a key of its own; and one for names. Within a
//! run a counter numbers what is sealed, so no nonce comes twice under a key. Run and number stand beside what was sealed, so
//! that a later run makes the same key. What is sealed is bound to its purpose and place: elsewhere it does not open.
//! The name of an object is one block, so the cipher itself, without a nonce, hides it: the same object has the same name.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aes::Aes256;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt};
use aes_gcm::aead::Nonce;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Tag};
use hkdf::Hkdf;
use lru::LruCache;
use parking_lot::Mutex;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::key::CacheKey;
use super::record::ObjectKey;

/// Tells directories apart that have the same key.
pub(super) type Salt = [u8; 16];
/// What stands beside what was sealed: run, number and tag.
pub(super) type Stamp = [u8; STAMP];
pub(super) const STAMP: usize = RUN + NUMBER + 16;

/// Where something sealed belongs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// A page of an object's contents.
    Page(ObjectKey, u64),
    /// The record of an object in the index.
    Record([u8; 16]),
    /// The name of a cell in the index.
    Cell(u32),
    /// A frame of a journal.
    Frame([u8; 16], u64),
    /// The text beside what was set aside.
    About,
}

/// The keys of a directory.
pub(super) struct Seal {
    salt: Salt,
    root: Zeroizing<[u8; 32]>,
    names: Aes256,
    run: [u8; RUN],
    cipher: Aes256Gcm,
    last: AtomicU64,
    /// Ciphers of earlier runs.
    earlier: Mutex<LruCache<[u8; RUN], Arc<Aes256Gcm>>>,
}

impl Place {
    fn bytes(self) -> [u8; 25] {
        let (purpose, whose, number) = match self {
            Self::Page(key, page) => (1, key.to_bytes(), page),
            Self::Record(name) => (2, name, 0),
            Self::Cell(number) => (3, [0; 16], number.into()),
            Self::Frame(journal, number) => (4, journal, number),
            Self::About => (5, [0; 16], 0),
        };
        let mut bytes = [0; 25];
        let (head, tail) = bytes.split_at_mut(17);
        if let Some((first, rest)) = head.split_first_mut() {
            *first = purpose;
            rest.copy_from_slice(&whose);
        }
        tail.copy_from_slice(&number.to_be_bytes());
        bytes
    }
}

impl Seal {
    /// The keys of the directory with this salt.
    pub(super) fn new(key: &CacheKey, salt: Salt) -> io::Result<Self> {
        let (root, _) = Hkdf::<Sha256>::extract(Some(&salt), key.bytes());
        let root = Zeroizing::new(root.into());
        let mut run = [0; RUN];
        getrandom::fill(&mut run).map_err(io::Error::other)?;
        Ok(Self {
            salt,
            names: Aes256::new((&*derived(&root, b"names", &[])).into()),
            cipher: run_cipher(&root, &run),
            root,
            run,
            last: AtomicU64::new(0),
            earlier: Mutex::new(LruCache::new(EARLIER)),
        })
    }

    pub(super) fn salt(&self) -> Salt {
        self.salt
    }

    /// By what a key is known again.
    pub(super) fn check(&self) -> [u8; 32] {
        *derived(&self.root, b"check", &[])
    }

    /// Seals `bytes` for their place.
    pub(super) fn seal(&self, place: Place, bytes: &mut [u8]) -> io::Result<Stamp> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        if number >> (8 * NUMBER) != 0 {
            return Err(io::Error::other("the numbers of a run are used up"));
        }
        let [_, _, number @ ..] = number.to_be_bytes();
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce(number), &place.bytes(), bytes.into())
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut stamp = [0; STAMP];
        let (run, rest) = stamp.split_at_mut(RUN);
        run.copy_from_slice(&self.run);
        let (counted, end) = rest.split_at_mut(NUMBER);
        counted.copy_from_slice(&number);
        end.copy_from_slice(&tag);
        Ok(stamp)
    }

    /// Opens `bytes`, which are changed only if they were sealed for this place, with this stamp.
    pub(super) fn open(&self, place: Place, stamp: &Stamp, bytes: &mut [u8]) -> bool {
        let Some((run, number, tag)) = parts(stamp) else {
            return false;
        };
        let tag = Tag::from(tag);
        let mut open = |cipher: &Aes256Gcm| {
            cipher
                .decrypt_inout_detached(&nonce(number), &place.bytes(), bytes.into(), &tag)
                .is_ok()
        };
        if run == self.run {
            return open(&self.cipher);
        }
        let cipher = {
            let mut earlier = self.earlier.lock();
            let made = || Arc::new(run_cipher(&self.root, &run));
            Arc::clone(earlier.get_or_insert(run, made))
        };
        open(&cipher)
    }

    /// Seals a text: its stamp, and then itself.
    pub(super) fn seal_text(&self, place: Place, text: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = vec![0; STAMP];
        out.extend_from_slice(text);
        let (head, body) = out.split_at_mut(STAMP);
        head.copy_from_slice(&self.seal(place, body)?);
        Ok(out)
    }

    /// Opens a text.
    pub(super) fn open_text(&self, place: Place, sealed: &[u8]) -> Option<Vec<u8>> {
        let (stamp, body) = sealed.split_first_chunk()?;
        let mut body = body.to_vec();
        self.open(place, stamp, &mut body).then_some(body)
    }

    /// The name of an object.
    pub(super) fn name(&self, key: ObjectKey) -> [u8; 16] {
        let mut block = key.to_bytes().into();
        self.names.encrypt_block(&mut block);
        block.into()
    }

    /// The object of a name.
    pub(super) fn key(&self, name: [u8; 16]) -> Option<ObjectKey> {
        let mut block = name.into();
        self.names.decrypt_block(&mut block);
        ObjectKey::from_bytes(&block)
    }

    /// Which of two stamps is the later one, if that is known: this run counts, and comes after all others.
    pub(super) fn is_later(&self, one: &Stamp, other: &Stamp) -> Option<bool> {
        let number = |stamp| parts(stamp).and_then(|(run, number, _)| (run == self.run).then_some(number));
        match (number(one), number(other)) {
            (None, None) => None,
            (one, other) => Some(one > other),
        }
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal(..)")
    }
}

fn parts(stamp: &Stamp) -> Option<([u8; RUN], [u8; NUMBER], [u8; 16])> {
    let (run, rest) = stamp.split_first_chunk()?;
    let (number, tag) = rest.split_first_chunk()?;
    Some((*run, *number, tag.try_into().ok()?))
}

fn nonce(number: [u8; NUMBER]) -> Nonce<Aes256Gcm> {
    let mut nonce = [0; 12];
    nonce.split_at_mut(12 - NUMBER).1.copy_from_slice(&number);
    nonce.into()
}

fn run_cipher(root: &[u8; 32], run: &[u8; RUN]) -> Aes256Gcm {
    Aes256Gcm::new((&*derived(root, b"run", run)).into())
}

/// A key for a purpose.
fn derived(root: &[u8; 32], purpose: &[u8], which: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    // The root has the length that it must have, and so has the key: neither can fail.
    if let Ok(root) = Hkdf::<Sha256>::from_prk(root) {
        let _ = root.expand_multi_info(&[b"afs-fuse cache, ", purpose, b" ", which], &mut *key);
    }
    key
}

/// Bytes of the name of a run, and of a number in it.
const RUN: usize = 10;
const NUMBER: usize = 6;
/// Ciphers that are remembered.
const EARLIER: NonZeroUsize = NonZeroUsize::new(64).unwrap();
