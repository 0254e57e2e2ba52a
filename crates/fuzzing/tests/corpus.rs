//! Replays what the fuzzer starts from, what it found worth keeping, and what it once broke: on the stable compiler,
//! in every run of the tests.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farthing_fuzzing::seeds::seeds;
use farthing_fuzzing::{TARGETS, Target};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The files of a folder, in the order of their names; none if it is not there.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
}

fn replay(target: &Target, what: &str, input: &[u8]) {
    let broken = std::panic::catch_unwind(|| (target.run)(input)).is_err();
    assert!(!broken, "{}: a law is broken by {what}", target.name);
}

/// The committed corpus of a target: an input on each line, in base64.
fn kept(target: &Target) -> Vec<Vec<u8>> {
    let path = root().join(format!("fuzz/corpus/{}.txt", target.name));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| STANDARD.decode(line).expect("base64")).collect()
}

#[test]
fn everything_that_was_kept_holds() {
    for target in TARGETS {
        let kept = kept(target);
        assert!(kept.len() >= 10, "{}: a corpus of {} inputs", target.name, kept.len());
        for (at, input) in kept.iter().enumerate() {
            assert!(input.len() <= target.max_len);
            replay(target, &format!("fuzz/corpus/{}.txt, line {}", target.name, at + 1), input);
        }
    }
}

/// Named after what they once broke.
#[test]
fn everything_that_was_found_stays_mended() {
    for target in TARGETS {
        for (path, input) in files(&root().join("fuzz/found").join(target.name)) {
            replay(target, &path.display().to_string(), &input);
        }
    }
}

#[test]
fn the_golden_vectors_hold() {
    for target in TARGETS {
        let seeds = seeds(target.name, &root().join("vectors"));
        assert!(seeds.len() >= 5, "{}: {} seeds", target.name, seeds.len());
        for (at, input) in seeds.iter().enumerate() {
            replay(target, &format!("seed {at}: {:?}", String::from_utf8_lossy(input)), input);
        }
    }
}

/// No input at all, each first byte alone, and inputs of one byte many times: what a fuzzer tries first.
#[test]
fn the_plainest_inputs_hold() {
    for target in TARGETS {
        replay(target, "nothing", b"");
        for byte in 0..=255u8 {
            replay(target, "one byte", &[byte]);
            replay(target, "zeros", &[&[byte][..], &[0; 400]].concat());
            replay(target, "ones", &[&[byte][..], &[0xff; 400]].concat());
            replay(target, "the same", &[byte; 300]);
        }
    }
}

/// The corpus is committed, so it stays small.
#[test]
fn the_corpus_is_small() {
    const MAX_BYTES: usize = 432 * 1024;
    let of = |folder: PathBuf| files(&folder).iter().map(|(_, input)| input.len()).sum::<usize>();
    let found = TARGETS.iter().map(|target| of(root().join("fuzz/found").join(target.name))).sum::<usize>();
    let total = of(root().join("fuzz/corpus")) + found;
    assert!(total <= MAX_BYTES, "{total} bytes");
}

#[test]
fn each_target_has_its_fuzzer_and_each_folder_its_target() {
    let fuzz = root().join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("fuzz/Cargo.toml");
    for target in TARGETS {
        let path = fuzz.join(format!("fuzz_targets/{}.rs", target.name));
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(text.contains(&format!("run(\"{}\"", target.name)), "{}", path.display());
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)), "{}", target.name);
    }
    for kind in ["corpus", "found"] {
        for entry in std::fs::read_dir(fuzz.join(kind)).into_iter().flatten() {
            let name = entry.expect("an entry").file_name().into_string().expect("UTF-8");
            let of = name.trim_end_matches(".txt");
            assert!(TARGETS.iter().any(|target| target.name == of), "fuzz/{kind}/{name} has no target");
        }
    }
}
