//! Writes the seeds of a target into a folder, one file each: `seeds TARGET FOLDER`. Without arguments it lists the
//! targets, each with the longest input worth trying.

use std::path::Path;
use std::process::ExitCode;

use farthing_fuzzing::TARGETS;
use farthing_fuzzing::seeds::seeds;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => {
            for target in TARGETS {
                println!("{} {}", target.name, target.max_len);
            }
            ExitCode::SUCCESS
        }
        [target, folder] if TARGETS.iter().any(|known| known.name == target) => {
            write(target, Path::new(folder))
        }
        _ => {
            eprintln!("usage: seeds [TARGET FOLDER]");
            ExitCode::FAILURE
        }
    }
}

fn write(target: &str, folder: &Path) -> ExitCode {
    let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors");
    for (at, seed) in seeds(target, &vectors).iter().enumerate() {
        let path = folder.join(format!("seed-{at:03}"));
        if let Err(error) = std::fs::write(&path, seed) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
