//! One target under libFuzzer: the one that `$FUZZ_TARGET` names. Built by `fuzz/run`.
#![no_main]

use std::sync::OnceLock;

use fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<Target> = OnceLock::new();

fuzz_target!(|input: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = fuzz::TARGETS.iter().find(|target| target.name == name);
        *found.unwrap_or_else(|| panic!("no target {name:?}"))
    });
    (target.run)(input);
});
