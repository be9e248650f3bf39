//! The committed inputs, and mutations of them: the same in every run.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, missing_docs)]
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fuzz::{TARGETS, Target};

/// Inputs of a target, in the order of their names.
fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut inputs: Vec<_> = files
        .map(|file| file.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    inputs.sort();
    assert!(
        inputs.len() >= 8,
        "{} holds {} inputs",
        folder.display(),
        inputs.len()
    );
    inputs
}

fn play(target: Target, input: &[u8], name: &dyn std::fmt::Display) {
    if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
        let kept = std::env::temp_dir().join(format!("fuzz-{}", target.name));
        fs::write(&kept, input).unwrap();
        panic!(
            "{}: {name} fails; the input is in {}",
            target.name,
            kept.display()
        );
    }
}

#[test]
fn committed_inputs() {
    for target in TARGETS {
        for (path, input) in corpus(*target) {
            play(*target, &input, &path.display());
        }
    }
}

/// A few thousand neighbours of the corpus. Not what libFuzzer finds, but it is there in every run.
#[test]
fn mutations_of_committed_inputs() {
    for target in TARGETS {
        let inputs = corpus(*target);
        let mut random = Random(0x5eed);
        for round in 0..ROUNDS {
            let (path, input) = &inputs[random.below(inputs.len())];
            let (_, other) = &inputs[random.below(inputs.len())];
            let mut input = input.clone();
            for _ in 0..=random.below(4) {
                mutate(&mut input, other, &mut random);
            }
            play(
                *target,
                &input,
                &format_args!("round {round}, from {}", path.display()),
            );
        }
    }
}

fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let place = random.below(input.len() + 1);
    match random.below(5) {
        0 if place < input.len() => input[place] ^= 1 << random.below(8),
        1 if place < input.len() => input[place] = random.byte(),
        2 => input.insert(place, random.byte()),
        3 => input.truncate(place),
        _ => {
            let from = random.below(other.len() + 1);
            input.splice(place.., other[from..].iter().copied());
        }
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap() % bound
    }
}

const ROUNDS: usize = 4_000;
