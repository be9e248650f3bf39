//! fcrypt, the cipher of rxkad: blocks of 64 bits, a key of 56, sixteen rounds; and its chaining mode, PCBC.
//!
//! The machine: the halves of a block take turns in changing each other. What a half is changed by is the other one, after
//! a word of the key schedule was added to it, its four bytes each went through an S-box of their own and the whole was
//! turned by five bits. Tables and turn are joined beforehand into four tables of words, so that a round is four loads.
//!
//! A round must wait for the loads of the one before, and so a single block keeps a processor idle most of the time. Blocks
//! that do not depend on each other are therefore worked on side by side, in *lanes*: in decryption the blocks of one text
//! (the chaining is applied afterwards), in encryption the blocks at the same place of several texts, since within a
//! text each block needs the one before.
//!
//! Some processors can do much better in decryption, 64 blocks at once without a load: that is `wide`, chosen where the
//! processor has the instructions and the text is long enough. What is in this file works everywhere, and says what is right.
//!
//! fcrypt is weak. Its key can be searched for, and PCBC does not notice every change of a text. The tables of this file are
//! looked up by secret bytes, so that how long it takes may tell an observer on the same processor something about the key; a
//! cipher made of 8-bit tables leaves most processors no other way that is nearly as fast. It is here because every AFS server
//! speaks it: it keeps honest neighbours apart, and nothing more.

mod sboxes;
#[cfg(target_arch = "x86_64")]
mod wide;

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

pub use sboxes::SBOXES;
#[cfg(target_arch = "x86_64")]
use wide::Wide;

/// A key, laid out for use. Wiped when dropped, and never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Key {
    /// A word for each round, in pairs: the first for the left half, the second for the right.
    schedule: [[u32; 2]; 8],
}

impl Key {
    /// The key with these bytes. The lowest bit of each does not count.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Self {
        let mut bits = bytes
            .iter()
            .fold(0_u64, |bits, byte| (bits << 7) | u64::from(byte >> 1));
        let mut word = || {
            let low = low_word(bits);
            bits = ((bits >> 11) | (bits << 45)) & KEY_BITS;
            low
        };
        Self {
            schedule: std::array::from_fn(|_| [word(), word()]),
        }
    }

    /// Encrypts one block.
    #[must_use]
    pub fn encrypt_block(&self, block: u64) -> u64 {
        let [block] = self.encrypt([block]);
        block
    }

    /// Decrypts one block.
    #[must_use]
    pub fn decrypt_block(&self, block: u64) -> u64 {
        let [block] = self.decrypt([block]);
        block
    }

    /// Encrypts a text by PCBC. What is left of it after the last whole block stays as it is.
    pub fn encrypt_pcbc(&self, iv: u64, text: &mut [u8]) {
        self.encrypt_side_by_side(iv, [text]);
    }

    /// Encrypts several texts by PCBC, each from `iv` on.
    pub fn encrypt_pcbc_all(&self, iv: u64, texts: &mut [&mut [u8]]) {
        let mut groups = texts.chunks_exact_mut(TEXTS);
        for group in &mut groups {
            if let [a, b, c, d] = group {
                self.encrypt_side_by_side(iv, [a, b, c, d]);
            }
        }
        match groups.into_remainder() {
            [a, b, c] => self.encrypt_side_by_side(iv, [a, b, c]),
            [a, b] => self.encrypt_side_by_side(iv, [a, b]),
            [a] => self.encrypt_pcbc(iv, a),
            _ => {}
        }
    }

    /// Decrypts a text by PCBC. What is left of it after the last whole block stays as it is.
    pub fn decrypt_pcbc(&self, iv: u64, text: &mut [u8]) {
        self.decrypt_by(Wide::find(), iv, text);
    }

    /// Decrypts a text by PCBC, in the lanes of this processor or in those that every processor has. Both give the same.
    fn decrypt_by(&self, wide: Option<Wide>, iv: u64, text: &mut [u8]) {
        let mut chain = iv;
        let (mut rest, _) = text.as_chunks_mut::<8>();
        if let Some(wide) = wide {
            while rest.len() >= WORTH_WIDE {
                let (group, behind) = rest.split_at_mut(rest.len().min(WIDE_BLOCKS));
                self.decrypt_wide(wide, &mut chain, group);
                rest = behind;
            }
        }
        let (groups, rest) = rest.as_chunks_mut::<BLOCKS>();
        for group in groups {
            self.decrypt_group(&mut chain, group);
        }
        for block in rest {
            self.decrypt_group(&mut chain, std::array::from_mut(block));
        }
    }

    /// `group` has at most `WIDE_BLOCKS` blocks; lanes that it does not fill work on zeros.
    fn decrypt_wide(&self, wide: Wide, chain: &mut u64, group: &mut [[u8; 8]]) {
        let mut room: Room = [[0; 64]; 8];
        let (blocks, _) = room.as_flattened_mut().as_chunks_mut::<8>();
        blocks
            .iter_mut()
            .zip(&*group)
            .for_each(|(block, cipher)| *block = *cipher);
        wide.decrypt(&self.schedule, &mut room);
        let (blocks, _) = room.as_flattened().as_chunks::<8>();
        for (text, block) in group.iter_mut().zip(blocks) {
            unchain(chain, text, u64::from_be_bytes(*block));
        }
    }

    #[inline]
    fn decrypt_group<const N: usize>(&self, chain: &mut u64, group: &mut [[u8; 8]; N]) {
        let blocks = self.decrypt(group.map(u64::from_be_bytes));
        for (text, block) in group.iter_mut().zip(blocks) {
            unchain(chain, text, block);
        }
    }

    /// A text that is shorter than the others leaves its lane empty at the end.
    fn encrypt_side_by_side<const N: usize>(&self, iv: u64, texts: [&mut [u8]; N]) {
        let mut rests = texts.map(|text| text.as_chunks_mut::<8>().0.iter_mut());
        let mut chains = [iv; N];
        loop {
            let places = rests.each_mut().map(Iterator::next);
            if places.iter().all(Option::is_none) {
                return;
            }
            let plain = places
                .each_ref()
                .map(|place| place.as_deref().map_or(0, |text| u64::from_be_bytes(*text)));
            let mut blocks = chains;
            blocks
                .iter_mut()
                .zip(plain)
                .for_each(|(block, plain)| *block ^= plain);
            let cipher = self.encrypt(blocks);
            for (((place, chain), plain), cipher) in
                places.into_iter().zip(&mut chains).zip(plain).zip(cipher)
            {
                *chain = plain ^ cipher;
                if let Some(text) = place {
                    *text = cipher.to_be_bytes();
                }
            }
        }
    }

    #[inline]
    fn encrypt<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let (mut left, mut right) = halves_of(blocks);
        for [first, second] in &self.schedule {
            change(&mut left, *first, &right);
            change(&mut right, *second, &left);
        }
        blocks_of(left, right)
    }

    #[inline]
    fn decrypt<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let (mut left, mut right) = halves_of(blocks);
        for [first, second] in self.schedule.iter().rev() {
            change(&mut right, *second, &left);
            change(&mut left, *first, &right);
        }
        blocks_of(left, right)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(fcrypt)")
    }
}

/// How many blocks of a text this processor decrypts at once.
#[must_use]
pub fn decryption_lanes() -> usize {
    Wide::find().map_or(BLOCKS, |_| WIDE_BLOCKS)
}

/// The last step of decrypting a block: `text` is the cipher before and the plain text after.
#[inline]
fn unchain(chain: &mut u64, text: &mut [u8; 8], block: u64) {
    let cipher = u64::from_be_bytes(*text);
    *text = (block ^ *chain).to_be_bytes();
    // The plain text and the cipher; by the shortest way, as the next block waits for it.
    *chain ^= block ^ cipher;
}

/// What a half is changed by.
#[inline]
fn turned(word: u32) -> u32 {
    let [b3, b2, b1, b0] = word.to_le_bytes();
    let [t0, t1, t2, t3] = &TABLES;
    t0.at(b0) ^ t1.at(b1) ^ t2.at(b2) ^ t3.at(b3)
}

/// Changes the halves of all lanes by the others.
#[inline]
fn change<const N: usize>(halves: &mut [u32; N], key: u32, others: &[u32; N]) {
    for (half, other) in halves.iter_mut().zip(others) {
        *half ^= turned(key ^ *other);
    }
}

/// The left halves and the right: the higher words and the lower. Apart, they leave the compiler more registers.
#[inline]
fn halves_of<const N: usize>(blocks: [u64; N]) -> ([u32; N], [u32; N]) {
    (blocks.map(|block| low_word(block >> 32)), blocks.map(low_word))
}

#[inline]
fn blocks_of<const N: usize>(left: [u32; N], right: [u32; N]) -> [u64; N] {
    let mut blocks = left.map(|left| u64::from(left) << 32);
    blocks
        .iter_mut()
        .zip(right)
        .for_each(|(block, right)| *block |= u64::from(right));
    blocks
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower word is meant")]
const fn low_word(block: u64) -> u32 {
    block as u32
}

/// What one byte contributes to a word, for each of its values.
struct Table([u32; 256]);

impl Table {
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "a byte is within 256")]
    fn at(&self, byte: u8) -> u32 {
        self.0[usize::from(byte)]
    }

    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    const fn new(sbox: &[u8; 256], shift: u32) -> Self {
        let mut words = [0; 256];
        let mut at = 0;
        while at < 256 {
            words[at] = ((sbox[at] as u32) << shift).rotate_right(5);
            at += 1;
        }
        Self(words)
    }
}

/// By the place of the byte, the highest first: S0 and S1 change places with their bytes, S2 and S3 too, and the pairs.
static TABLES: [Table; 4] = {
    let [s0, s1, s2, s3] = &SBOXES;
    [
        Table::new(s0, 8),
        Table::new(s1, 0),
        Table::new(s2, 16),
        Table::new(s3, 24),
    ]
};

/// Processors of other kinds have no wide lanes.
#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy)]
enum Wide {}

#[cfg(not(target_arch = "x86_64"))]
impl Wide {
    const fn find() -> Option<Self> {
        None
    }

    const fn decrypt(self, _: &[[u32; 2]; 8], _: &mut Room) {
        match self {}
    }
}

/// The blocks of all wide lanes, by registers.
type Room = [[u8; 64]; 8];

const WIDE_BLOCKS: usize = 64;
/// From so many blocks on, the wide lanes are faster even if the rest of them is idle.
const WORTH_WIDE: usize = 11;
// Lanes, the best of those tried: more do not fit the registers, and texts want registers for their chains too.
const BLOCKS: usize = 8;
const TEXTS: usize = 4;
const KEY_BITS: u64 = (1 << 56) - 1;

#[cfg(test)]
mod tests;
