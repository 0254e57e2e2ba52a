//! Our side of the comparison with the published codec, line by line.
//!
//! `codec generate SEED COUNT` prints so many messages of each kind: the kind, the message in base64, our verdict.
//! `codec judge` reads kinds and messages and prints the verdicts.

use std::io::{BufRead, Write};
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farthing_fuzzing::codec_peer::{KINDS, judge, message};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["generate", seed, count] => match (seed.parse(), count.parse()) {
            (Ok(seed), Ok(count)) => generate(seed, count),
            _ => return usage(),
        },
        ["judge"] => judge_lines(),
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("codec: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: codec generate SEED COUNT | codec judge");
    ExitCode::FAILURE
}

fn generate(seed: u64, count: u64) -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for n in 0..count {
        for kind in KINDS {
            let bytes = message(kind, seed, n);
            writeln!(out, "{kind}\t{}\t{}", STANDARD.encode(&bytes), judge(kind, &bytes))?;
        }
    }
    out.flush()
}

fn judge_lines() -> std::io::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let parts = line.split_once('\t').and_then(|(kind, text)| Some((kind, STANDARD.decode(text).ok()?)));
        let Some((kind, bytes)) = parts.filter(|(kind, _)| KINDS.contains(kind)) else {
            return Err(std::io::Error::other("a line is a kind and a message in base64"));
        };
        writeln!(out, "{}", judge(kind, &bytes))?;
    }
    out.flush()
}
