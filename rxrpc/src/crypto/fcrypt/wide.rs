//! Decryption of 64 blocks at once, for processors that permute the bytes of 512-bit registers.
//!
//! The machine: eight registers of eight blocks each are turned into eight *planes*: the first has the highest byte of every
//! block, the last the lowest. So a plane needs one byte of a round's key and one S-box, for all blocks alike. An S-box lies
//! in four registers; two permutations look up the lower half of it and the upper, and the top bit of each byte says which
//! counts. In the end the planes become blocks again.
//!
//! What turns blocks into planes is one step, repeated: of a byte's place among the 512, the number of its register and its
//! number within a lane of sixteen together are seven bits, and interleaving the bytes of each register of the first four
//! with those of its counterpart among the last rotates these seven bits left by one. Four times makes the number within
//! the block the number of the register, and another three lead back. (The lanes themselves never mix.)
//!
//! No address and no branch here depends on a key or a text, so that caches tell nobody about them, as they may of the tables
//! in memory. That is true of this file only: the last few blocks of a text and all of encryption go through those tables.
//! Planes of a key live in registers and on the stack of a call, and are not wiped.

use std::arch::x86_64::{
    __m512i, _mm512_mask_blend_epi8, _mm512_movepi8_mask, _mm512_permutex2var_epi8, _mm512_set1_epi8,
    _mm512_ternarylogic_epi64, _mm512_unpackhi_epi8, _mm512_unpacklo_epi8, _mm512_xor_si512,
};

use fearless_simd::{Avx512, Level, SimdFrom, kernel, u8x64};

use super::{Room, SBOXES};

/// Witness that the processor has the instructions.
#[derive(Clone, Copy)]
pub(super) struct Wide(Avx512);

impl Wide {
    /// `None` where the processor lacks them, or anything else that Ice Lake has of the kind. It is asked once per process.
    pub(super) fn find() -> Option<Self> {
        Level::new().as_avx512().map(Self)
    }

    /// Decrypts the blocks, by a schedule that has a word for each round, in pairs for the left half and the right.
    pub(super) fn decrypt(self, schedule: &[[u32; 2]; 8], blocks: &mut Room) {
        decrypt(self.0, schedule, blocks);
    }
}

kernel! {
    fn decrypt(avx512: Avx512, schedule: &[[u32; 2]; 8], blocks: &mut Room) {
        let sboxes = TURNED.map(|sbox| sbox.map(|quarter| u8x64::simd_from(avx512, quarter).into()));
        let mut planes = blocks.map(|register| u8x64::simd_from(avx512, register).into());
        for _ in 0..4 {
            planes = rotated(planes);
        }
        let [a, b, c, d, e, f, g, h] = planes;
        let (mut left, mut right) = ([a, b, c, d], [e, f, g, h]);
        for [first, second] in schedule.iter().rev() {
            right = changed(&sboxes, right, *second, left);
            left = changed(&sboxes, left, *first, right);
        }
        let ([a, b, c, d], [e, f, g, h]) = (left, right);
        let mut registers = [a, b, c, d, e, f, g, h];
        for _ in 0..3 {
            registers = rotated(registers);
        }
        *blocks = registers.map(|register| u8x64::simd_from(avx512, register).into());
    }
}

/// The planes of a half, changed by those of the other.
#[inline]
#[target_feature(enable = "avx512bw,avx512vbmi")]
fn changed(sboxes: &[[__m512i; 4]; 4], half: [__m512i; 4], key: u32, other: [__m512i; 4]) -> [__m512i; 4] {
    let ([s0, s1, s2, s3], [k0, k1, k2, k3], [b0, b1, b2, b3]) = (sboxes, key.to_be_bytes(), other);
    let [h0, h1, h2, h3] = half;
    // S0 and S1 change places with their bytes, S2 and S3 too, and the pairs.
    let (t0, t1) = (substituted(s3, b3, k3), substituted(s2, b2, k2));
    let (t2, t3) = (substituted(s0, b0, k0), substituted(s1, b1, k1));
    [
        _mm512_xor_si512(h0, shared(t3, t0)),
        _mm512_xor_si512(h1, shared(t0, t1)),
        _mm512_xor_si512(h2, shared(t1, t2)),
        _mm512_xor_si512(h3, shared(t2, t3)),
    ]
}

/// The bytes, after that of the key was added to each, through the S-box.
#[inline]
#[target_feature(enable = "avx512bw,avx512vbmi")]
fn substituted([q0, q1, q2, q3]: &[__m512i; 4], bytes: __m512i, key: u8) -> __m512i {
    let places = _mm512_xor_si512(bytes, _mm512_set1_epi8(key.cast_signed()));
    let lower = _mm512_permutex2var_epi8(*q0, places, *q1);
    let upper = _mm512_permutex2var_epi8(*q2, places, *q3);
    _mm512_mask_blend_epi8(_mm512_movepi8_mask(places), lower, upper)
}

/// The rotation of words right by five bits, for one byte of each: five bits of it come from the byte above and three of its
/// own stay. The S-boxes have put both where they belong.
#[inline]
#[target_feature(enable = "avx512bw")]
fn shared(above: __m512i, own: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<WHERE_FIRST_SECOND_ELSE_THIRD>(_mm512_set1_epi8(0b111), own, above)
}

/// Moves each byte to the place whose number is its own, rotated; see the [machine](self).
#[inline]
#[target_feature(enable = "avx512bw")]
fn rotated([a, b, c, d, e, f, g, h]: [__m512i; 8]) -> [__m512i; 8] {
    [
        _mm512_unpacklo_epi8(a, e),
        _mm512_unpackhi_epi8(a, e),
        _mm512_unpacklo_epi8(b, f),
        _mm512_unpackhi_epi8(b, f),
        _mm512_unpacklo_epi8(c, g),
        _mm512_unpackhi_epi8(c, g),
        _mm512_unpacklo_epi8(d, h),
        _mm512_unpackhi_epi8(d, h),
    ]
}

/// The truth table of the ternary instruction: the first operand chooses between the others.
const WHERE_FIRST_SECOND_ELSE_THIRD: i32 = 0xca;

/// The S-boxes in quarters, with every byte rotated left by three bits, which is what a rotation of words right by five does
/// to the bits within each byte.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
static TURNED: [[[u8; 64]; 4]; 4] = {
    let mut turned = [[[0; 64]; 4]; 4];
    let mut at = 0;
    while at < 4 * 256 {
        let (sbox, byte) = (at / 256, at % 256);
        turned[sbox][byte / 64][byte % 64] = SBOXES[sbox][byte].rotate_left(3);
        at += 1;
    }
    turned
};
