//! fcrypt: the block cipher of rxkad, 64 bits of block and 56 of key in 16 rounds, and its chaining (PCBC).
//!
//! The machine: a key becomes sixteen round keys; each round replaces the four bytes of a half by table lookups and
//! rotates them, which here is one lookup for each byte in a table that has the rotation in it. In PCBC a block of
//! cipher text depends on all before it, but what the cipher does to one block when decrypting does not depend on the
//! others: so blocks are decrypted several at a time, and several packets are encrypted side by side. A round waits for
//! its four lookups; lanes that do not wait for each other fill that time.
//!
//! The cipher is weak by any measure of today: its key is short, and its tables are looked up by bytes that depend on
//! the key, which whoever shares the processor's cache may observe. Nothing of that can be mended without another
//! protocol. It is here because file servers speak it.
//!
//! rx-security.md 2.1 (OpenAFS `fcrypt.c`, Linux `crypto/fcrypt.c`).

use std::fmt;

use hex_literal::hex;
use zeroize::ZeroizeOnDrop;

/// A key, ready for use. Its parity bits count for nothing.
#[derive(Clone, ZeroizeOnDrop)]
pub struct Fcrypt {
    schedule: [u32; ROUNDS],
}

impl Fcrypt {
    /// Bytes of a block.
    pub const BLOCK: usize = 8;

    /// Packets that are encrypted side by side.
    pub const LANES: usize = 4;

    /// Prepares a key.
    #[must_use]
    pub fn new(key: [u8; 8]) -> Self {
        let mut bits = key
            .iter()
            .fold(0_u64, |bits, byte| bits << 7 | u64::from(byte >> 1));
        let mut schedule = [0; ROUNDS];
        for round in &mut schedule {
            *round = low(bits);
            bits = (bits >> 11 | bits << (KEY_BITS - 11)) & KEY_MASK;
        }
        Self { schedule }
    }

    /// Encrypts a block.
    #[must_use]
    pub fn encrypt(&self, block: u64) -> u64 {
        let [block] = self.encrypt_lanes([block]);
        block
    }

    /// Decrypts a block.
    #[must_use]
    pub fn decrypt(&self, block: u64) -> u64 {
        let [block] = self.decrypt_lanes([block]);
        block
    }

    /// Encrypts `data` in place. What is beyond its last whole block is left as it is.
    pub fn pcbc_encrypt(&self, iv: u64, data: &mut [u8]) {
        self.pcbc_encrypt_lanes(iv, [data]);
    }

    /// Encrypts several pieces in place, each as [`pcbc_encrypt`](Self::pcbc_encrypt) would, in less time than one after the
    /// other takes if they are about equally long.
    pub fn pcbc_encrypt_lanes<const N: usize>(&self, iv: u64, pieces: [&mut [u8]; N]) {
        let mut lanes = pieces.map(|piece| piece.as_chunks_mut::<{ Self::BLOCK }>().0);
        let together = lanes.iter().map(|lane| lane.len()).min().unwrap_or(0);
        let mut chains = [iv; N];
        for at in 0..together {
            let mut mixed = chains;
            for (mixed, lane) in mixed.iter_mut().zip(&lanes) {
                *mixed ^= lane.get(at).map_or(0, |block| u64::from_be_bytes(*block));
            }
            let cipher = self.encrypt_lanes(mixed);
            for (((lane, chain), mixed), cipher) in lanes.iter_mut().zip(&mut chains).zip(mixed).zip(cipher) {
                if let Some(block) = lane.get_mut(at) {
                    *block = cipher.to_be_bytes();
                }
                // What was mixed is plain text and chain: this is plain text and cipher text.
                *chain ^= mixed ^ cipher;
            }
        }
        for (lane, mut chain) in lanes.iter_mut().zip(chains) {
            for block in lane.iter_mut().skip(together) {
                let plain = u64::from_be_bytes(*block);
                let cipher = self.encrypt(plain ^ chain);
                *block = cipher.to_be_bytes();
                chain = plain ^ cipher;
            }
        }
    }

    /// Decrypts `data` in place. What is beyond its last whole block is left as it is.
    pub fn pcbc_decrypt(&self, iv: u64, data: &mut [u8]) {
        let mut chain = iv;
        let mut unchain = |block: &mut [u8; Self::BLOCK], opened: u64| {
            let cipher = u64::from_be_bytes(*block);
            let plain = opened ^ chain;
            *block = plain.to_be_bytes();
            chain = plain ^ cipher;
        };
        let (blocks, rest) = data
            .as_chunks_mut::<{ Self::BLOCK }>()
            .0
            .as_chunks_mut::<DECRYPTED_AT_ONCE>();
        for blocks in blocks {
            let opened = self.decrypt_lanes(blocks.map(u64::from_be_bytes));
            for (block, opened) in blocks.iter_mut().zip(opened) {
                unchain(block, opened);
            }
        }
        for block in rest {
            let opened = self.decrypt(u64::from_be_bytes(*block));
            unchain(block, opened);
        }
    }

    #[inline]
    fn encrypt_lanes<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let mut left = blocks.map(|block| low(block >> 32));
        let mut right = blocks.map(low);
        let (pairs, _) = self.schedule.as_chunks::<2>();
        for [even, odd] in pairs {
            mix(&mut left, &right, *even);
            mix(&mut right, &left, *odd);
        }
        joined(left, right)
    }

    #[inline]
    fn decrypt_lanes<const N: usize>(&self, blocks: [u64; N]) -> [u64; N] {
        let mut left = blocks.map(|block| low(block >> 32));
        let mut right = blocks.map(low);
        let (pairs, _) = self.schedule.as_chunks::<2>();
        for [even, odd] in pairs.iter().rev() {
            mix(&mut right, &left, *odd);
            mix(&mut left, &right, *even);
        }
        joined(left, right)
    }
}

impl fmt::Debug for Fcrypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fcrypt")
    }
}

/// One round on every lane.
#[inline]
fn mix<const N: usize>(into: &mut [u32; N], from: &[u32; N], key: u32) {
    for (into, from) in into.iter_mut().zip(from) {
        let [b0, b1, b2, b3] = (from ^ key).to_be_bytes();
        *into ^= look(&TABLE_0, b0) ^ look(&TABLE_1, b1) ^ look(&TABLE_2, b2) ^ look(&TABLE_3, b3);
    }
}

#[inline]
fn look(table: &[u32; 256], byte: u8) -> u32 {
    // A byte is an index of every table: there is no branch here once it is compiled.
    table.get(usize::from(byte)).copied().unwrap_or(0)
}

fn joined<const N: usize>(left: [u32; N], right: [u32; N]) -> [u64; N] {
    let mut blocks = left.map(|half| u64::from(half) << 32);
    for (block, half) in blocks.iter_mut().zip(right) {
        *block |= u64::from(half);
    }
    blocks
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
const fn low(word: u64) -> u32 {
    word as u32
}

/// The lookups of one byte of a half, at their place in the word and rotated as the end of a round wants it.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn table(substitution: &[u8; 256], place: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        table[at] = ((substitution[at] as u32) << place).rotate_right(5);
        at += 1;
    }
    table
}

const ROUNDS: usize = 16;
const KEY_BITS: u32 = 56;
const KEY_MASK: u64 = (1 << KEY_BITS) - 1;
const DECRYPTED_AT_ONCE: usize = 4;

static TABLE_0: [u32; 256] = table(&S0, 8);
static TABLE_1: [u32; 256] = table(&S1, 0);
static TABLE_2: [u32; 256] = table(&S2, 16);
static TABLE_3: [u32; 256] = table(&S3, 24);

const S0: [u8; 256] = hex!(
    "ea7fb2649db0d911cd8686910ab293060e06d26573c52860f220b5387eda9fe3"
    "d2cfc43c61ff4a4a35acaa5f2bbbbc534e9d78a3dc093210c66f66d6aba9affd"
    "3b95e8349a8172809cf3ecda9f2676153e554dde84eeadc7f16b3dd30449aa24"
    "0b8a83bafa85a0a8b1d401d87064f051d2c3a7758ca564ef104eb7c66103eb44"
    "3de5b35baed5ad1dfa5a1e33ab93a2b7e7a845a4cd296344b6697e2e6203c8e0"
    "17bbc7f33f36ba718e97656069b6f6e66ee08159e8afdd952299fd63197461b1"
    "b65bae54b370ffc63b3ec1d7e10e76e5364f59c7086e82a693c4aa2649e02164"
    "079f64819cbff9d143f8b6b9f1247503e4b099463df5d1397212f6ba0c0d422e"
);
const S1: [u8; 256] = hex!(
    "7714a6feb25e8c3e676ca10dc2a2c1856c7b67c623e3f289509c03b773e6e139"
    "312c279fa56944d62383987d3cb42d991c1f8c20037c5fadf4fa95ca7644cdb6"
    "b8a1a1be9e548f0b1674318a231704fa7984b1f513abb52eaa0c606b5bc44bbc"
    "e2af4573fac949cd00927d977a18603dcf5bdec6e2e6bb8b06da08151b886a17"
    "89d0a9c1c9706be543f468c8d384280a5266a3caf2e37f7a31f788945e9c63d5"
    "2466fcb35725be8944c4e08f233c1252f51ef4cb18331ff869109dd3f728f830"
    "055e32c0d519bd458b5bfdbce25ca996ef70cfc22ab361ad804881b71d43d9d7"
    "45f0d88a597c57c179c734d643dfe4781606da927651e1d47003e02f96918280"
);
const S2: [u8; 256] = hex!(
    "f03724532a038386d1ec50f042782f6dbf80872795e2c55df96fdbb4656ee724"
    "c81abb49b50a7db9e8dcb7d945201bce599d6bbd0e8fa3a9bc74a6f67f5fb168"
    "84bca9fd5550e9b6135e07b89502c0d06a1a85bdb6fdfe173f09a38dfbedda1d"
    "6d1c6c015ae5713e8b6bbe29eb121934cdb3bd35ea4bd5ae2a795aa532127bdc"
    "2cd0224bb1855980c0309f73d3144840072d8f800fce0b5eb75eac24944a1815"
    "05e80277a9c7404589d1eade0c792a996c3e95dd8c7dad6fdcfffd6247b3218a"
    "ec8e1918b46e3dfd74541e0485d8bc1f56e73a5667d6c8a5f38edeae3749b7fa"
    "c8f41fe02a9b15d1340eb5e044788459566877a51406f52f8c8a738076b41086"
);
const S3: [u8; 256] = hex!(
    "a92a4851847e49e2b5b742337d5da61244486d28aa206d57d66b5d72f0925a1b"
    "538024709acca766a101a54197413182f114cf530da010cc2a7dd2bf4b1adb16"
    "47f65136edf3b91aa7df2943015470a4bfd40b5344609e23a118684ff02f82c2"
    "2a41b2420ced0c1d133a3c6e35dc606585e964029a3f9f8796dfbef2cbe56cd4"
    "5a83bf921b940042cf4b0075ba8f765f5d3a4d091208389517e4011d4ca9cc85"
    "824c9d2f3b66a13410cd5989a531cf05c884fac7ba4e8b1a19f1a13b181217b0"
    "988d0b23c33a2d20df13a0a84c0d6c2f471313521f2df5793da254bd69c86bf3"
    "0528f1164640b011d3b79549cfc31d8fd8e173dbadc8c9a9a1c2c5e3bafc0e25"
);

#[cfg(test)]
mod tests {
    use super::*;

    const FOX: &[u8; 48] = b"The quick brown fox jumps over the lazy dogs.\0\0\0";

    #[test]
    fn round_keys() {
        let words: Vec<u8> = Fcrypt::new(hex!("114477aadd003366"))
            .schedule
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        assert_eq!(
            words,
            hex!(
                "5dc00cb33babb80142277577598844ee00cb3108bb80196677577003844eeaee"
                "b31089dd01966211770032cceeaee006089dd5dc662113ba032cc422ee006598"
            )
        );
    }

    #[test]
    fn single_blocks() {
        let zero = Fcrypt::new([0; 8]);
        assert_eq!(zero.encrypt(0), 0x0e09_00c7_3ef7_ed41);
        let key = Fcrypt::new(hex!("114477aadd003366"));
        assert_eq!(key.encrypt(0x1234_5678_9abc_def0), 0xd8ed_7874_77ec_0680);
        assert_eq!(key.decrypt(0xd8ed_7874_77ec_0680), 0x1234_5678_9abc_def0);
    }

    #[test]
    fn chains() {
        let known: [([u8; 8], u64, &[u8], &[u8]); 3] = [
            (
                hex!("f0e1d2c3b4a59687"),
                0xfedc_ba98_7654_3210,
                FOX,
                &hex!(
                    "00f00e1175e62382eeac98624451e484c359d8aa6460aef7d2d9137972a34503"
                    "23b562d70cf527d1f8913cac442292ef"
                ),
            ),
            (
                hex!("fedcba9876543210"),
                0xf0e1_d2c3_b4a5_9687,
                FOX,
                &hex!(
                    "ca90f59dcbd4d23c01887f3e316e629dd8e057a3063a42582a28fe72522fdde0"
                    "1989091c2a8e8c94fcc768e488aade0f"
                ),
            ),
            (
                hex!("6162636465666768"),
                0x6162_6364_6566_6768,
                &hex!("00000000000000010000000200000003000000040000000500000006000000070000000800000009"),
                &hex!("2b77ed9ced78335f35c9ad9ce8d17a16bf10122fb556846575f107b1f57d1f77fb1bdc62e0744ad9"),
            ),
        ];
        for (key, iv, plain, cipher) in known {
            let key = Fcrypt::new(key);
            let mut data = plain.to_vec();
            key.pcbc_encrypt(iv, &mut data);
            assert_eq!(data, cipher);
            key.pcbc_decrypt(iv, &mut data);
            assert_eq!(data, plain);
        }
    }

    #[test]
    fn parity_counts_for_nothing() {
        let (odd, even) = (Fcrypt::new([0x31; 8]), Fcrypt::new([0x30; 8]));
        assert_eq!(odd.encrypt(7), even.encrypt(7));
    }

    /// Whatever is done at once is what would have been done one after the other, also to pieces that are not equally long.
    #[test]
    fn lanes_do_not_mix() {
        let key = Fcrypt::new(hex!("0123456789abcdef"));
        let mut pieces: [Vec<u8>; 4] = [40, 64, 0, 83].map(|len: u8| (0..len).collect());
        let alone = pieces.clone().map(|mut piece| {
            key.pcbc_encrypt(9, &mut piece);
            piece
        });
        key.pcbc_encrypt_lanes(9, pieces.each_mut().map(Vec::as_mut_slice));
        assert_eq!(pieces, alone);
        for (piece, len) in pieces.iter_mut().zip([40, 64, 0, 83]) {
            key.pcbc_decrypt(9, piece);
            assert_eq!(*piece, (0..len).collect::<Vec<u8>>());
        }
    }
}
