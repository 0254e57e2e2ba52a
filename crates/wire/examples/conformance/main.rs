//! Puts the MPP codec behind the public conformance harness: one request on standard input, one answer on standard
//! output. See `interop/mpp/conformance`.

mod answer;

use std::io::{Read, Write};
use std::process::ExitCode;

/// The longest request, in bytes.
const MAX_REQUEST_BYTES: u64 = 1024 * 1024;

fn main() -> ExitCode {
    let mut request = Vec::new();
    if let Err(error) = std::io::stdin().take(MAX_REQUEST_BYTES + 1).read_to_end(&mut request) {
        eprintln!("cannot read the request: {error}");
        return ExitCode::FAILURE;
    }
    match writeln!(std::io::stdout(), "{}", answer::answer(&request)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
