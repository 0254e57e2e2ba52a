//! A little of what the fuzzer does, in every run of the tests: inputs near those that are known, and paths put
//! together from what servers read differently. Each run draws others.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::OnceLock;

use farthing_fuzzing::seeds::seeds;
use farthing_fuzzing::{TARGETS, run};
use proptest::collection::vec;
use proptest::prelude::*;

/// The seeds of each target, in the order of [`TARGETS`].
fn all_seeds() -> &'static [Vec<Vec<u8>>] {
    static SEEDS: OnceLock<Vec<Vec<Vec<u8>>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors");
        TARGETS.iter().map(|target| seeds(target.name, &vectors)).collect()
    })
}

/// What servers are known to read in more than one way.
const PIECES: &[&str] = &[
    "paid", "free", "x", "y", "a", "b", "PAID", "/", "//", "%2F", "%2f", "%252F", "%25252F", ".", "..",
    "%2e", "%2E%2E", "%252e", ";", ";v=1", "%3B", "%253B", "?", "%3F", "%253F", "#", "%23", "%", "%25",
    "%zz", "%25zz", "%5C", "\\", "%255C", "%00", "%2500", "%20", "+", "%70", "%2570", "%C3%A9", "\u{e9}",
    "\u{df}", "{id}", "*", "~", "@", ":",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn inputs_near_the_known_ones_hold(
        target in 0..TARGETS.len(),
        seed: prop::sample::Index,
        edits in vec((any::<prop::sample::Index>(), 0usize..3, vec(any::<u8>(), 0..3)), 0..6),
    ) {
        let mut input = seed.get(&all_seeds()[target]).clone();
        for (at, out, with) in edits {
            let at = at.index(input.len() + 1);
            let end = (at + out).min(input.len());
            input.splice(at..end, with);
        }
        run(TARGETS[target].name, &input);
    }

    #[test]
    fn no_spelling_of_a_path_has_another_price(table in 0u8..4, method in 0u8..4, pieces in vec(prop::sample::select(PIECES.to_vec()), 0..12)) {
        let path = format!("/{}", pieces.concat());
        run("path", &[&[table, method], path.as_bytes()].concat());
    }

    #[test]
    fn a_patterns_name_is_that_pattern(pieces in vec(prop::sample::select(PIECES.to_vec()), 0..8), method in "(GET |POST\\|GET |\\* |)") {
        run("path", &[&[7], format!("{method}/{}", pieces.concat()).as_bytes()].concat());
    }
}
