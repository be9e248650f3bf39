//! How fast fcrypt is, beside a plain implementation of the same cipher, in turns of one run.
//!
//! The machine: each round times every case once, so that what else the machine does falls on all alike; each case is
//! known by its best round. Both implementations must give the same bytes before anything is timed.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods
)]

mod report;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rxrpc::crypto::fcrypt::{Key, SBOXES, decryption_lanes};

/// A full packet at level crypt.
const PACKET: usize = 1416;
const BATCH: usize = 8;
const ROUNDS: usize = 60;
const TIMES: usize = 100;
const KEY: [u8; 8] = *b"abcdefgh";
const IV: u64 = u64::from_be_bytes(KEY);

/// One block after the other, and the function of the cipher as its description reads.
struct Plain([u32; 16]);

impl Plain {
    fn new(key: [u8; 8]) -> Self {
        let mut bits = key
            .iter()
            .fold(0_u64, |bits, byte| bits << 7 | u64::from(byte >> 1));
        Self(std::array::from_fn(|_| {
            let word = bits as u32;
            bits = (bits >> 11 | bits << 45) & ((1 << 56) - 1);
            word
        }))
    }

    fn function(word: u32) -> u32 {
        let b = word.to_be_bytes().map(usize::from);
        let s = |n: usize, byte: usize| u32::from(SBOXES[n][byte]);
        (s(3, b[3]) << 24 | s(2, b[2]) << 16 | s(0, b[0]) << 8 | s(1, b[1])).rotate_right(5)
    }

    fn encrypt_block(&self, block: u64) -> u64 {
        let (mut left, mut right) = ((block >> 32) as u32, block as u32);
        for pair in self.0.chunks(2) {
            left ^= Self::function(pair[0] ^ right);
            right ^= Self::function(pair[1] ^ left);
        }
        u64::from(left) << 32 | u64::from(right)
    }

    fn decrypt_block(&self, block: u64) -> u64 {
        let (mut left, mut right) = ((block >> 32) as u32, block as u32);
        for pair in self.0.chunks(2).rev() {
            right ^= Self::function(pair[1] ^ left);
            left ^= Self::function(pair[0] ^ right);
        }
        u64::from(left) << 32 | u64::from(right)
    }

    fn encrypt(&self, text: &mut [u8]) {
        let mut chain = IV;
        for block in text.as_chunks_mut::<8>().0 {
            let plain = u64::from_be_bytes(*block);
            let cipher = self.encrypt_block(plain ^ chain);
            chain = plain ^ cipher;
            *block = cipher.to_be_bytes();
        }
    }

    fn decrypt(&self, text: &mut [u8]) {
        let mut chain = IV;
        for block in text.as_chunks_mut::<8>().0 {
            let cipher = u64::from_be_bytes(*block);
            let plain = self.decrypt_block(cipher) ^ chain;
            chain = plain ^ cipher;
            *block = plain.to_be_bytes();
        }
    }
}

/// A case: its name and what it does to a batch of packets, of which it takes so many.
type Case<'a> = (&'a str, usize, &'a dyn Fn(&mut [&mut [u8]]));

fn main() -> ExitCode {
    let (plain, ours) = (Plain::new(KEY), Key::new(KEY));
    let cases: [Case<'_>; 5] = [
        ("plain: encrypt", 1, &|packets| {
            packets.iter_mut().for_each(|text| plain.encrypt(text))
        }),
        ("plain: decrypt", 1, &|packets| {
            packets.iter_mut().for_each(|text| plain.decrypt(text))
        }),
        ("ours: encrypt 1 packet", 1, &|packets| {
            ours.encrypt_pcbc_all(IV, packets)
        }),
        ("ours: encrypt 8 packets", BATCH, &|packets| {
            ours.encrypt_pcbc_all(IV, packets)
        }),
        ("ours: decrypt", 1, &|packets| {
            packets.iter_mut().for_each(|text| ours.decrypt_pcbc(IV, text))
        }),
    ];
    agree(&plain, &ours);
    let mut best = [Duration::MAX; 5];
    for _ in 0..ROUNDS {
        for ((_, packets, work), best) in cases.iter().zip(&mut best) {
            let mut data = vec![[0x5a_u8; PACKET]; *packets];
            let mut texts: Vec<&mut [u8]> = data.iter_mut().map(<[u8; PACKET]>::as_mut_slice).collect();
            let from = Instant::now();
            for _ in 0..TIMES {
                work(black_box(&mut texts));
            }
            *best = (*best).min(from.elapsed() / TIMES as u32 / *packets as u32);
        }
    }
    println!("decryption in {} lanes", decryption_lanes());
    let mib = |time: Duration| PACKET as f64 / (1 << 20) as f64 / time.as_secs_f64();
    println!("{:<26}{:>12}{:>12}{:>12}", "", "ns/packet", "MiB/s", "x plain");
    let ratio = |which: usize| {
        let reference = best[usize::from(cases[which].0.ends_with("decrypt"))];
        reference.as_secs_f64() / best[which].as_secs_f64()
    };
    for (which, ((name, ..), time)) in cases.iter().zip(best).enumerate() {
        let ratio = ratio(which);
        println!(
            "{name:<26}{:>12}{:>12.0}{ratio:>12.2}",
            time.as_nanos(),
            mib(time)
        );
    }
    let mut table = report::Table::default();
    table.at_least("encryption of 8 packets, speed relative to plain", ratio(3), 3.0);
    table.at_least("decryption of a packet, speed relative to plain", ratio(4), 4.0);
    table.conclude()
}

fn agree(plain: &Plain, ours: &Key) {
    let text: Vec<u8> = (0..PACKET).map(|at| (at * 31 % 251) as u8).collect();
    let [mut one, mut other] = [text.clone(), text.clone()];
    plain.encrypt(&mut one);
    ours.encrypt_pcbc(IV, &mut other);
    assert_eq!(one, other);
    plain.decrypt(&mut one);
    ours.decrypt_pcbc(IV, &mut other);
    assert!(one == text && other == text);
}
