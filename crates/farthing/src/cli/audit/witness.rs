//! `farthing audit witness` and `farthing audit attach`: somebody else's word that there is one log.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farthing_audit::{CosignError, Disk, LogDir, MAX_CHECKPOINT_BYTES, VerifierKey, publish_cosigned};
use farthing_primitives::Timestamp;
use farthing_wallet::{WitnessDesk, WitnessDeskError, system_clock};
use serde_json::json;

use super::{Failure, Out, opened, read_bounded};

/// Be a witness of somebody's log: say that it goes on from what you saw of it, and nothing else
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing audit witness new --state ~/witness --name witness.example/w1
  rsync -a seller:log/ copy/
  farthing audit witness sign copy/ --key 'farthing-wallet/…+…+…' --state ~/witness > cosigned

Give `cosigned` back to the log's owner, who runs `farthing audit attach`. A witness should not be run by who
keeps the log. Its state is what makes its word worth something: whoever sets it back can be shown another log.")]
pub(super) struct WitnessArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(New),
    Key(Key),
    Sign(Sign),
}

/// Make a witness's key, and print its public part
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing audit witness new --state ~/witness --name witness.example/w1")]
struct New {
    /// Where the witness keeps its key and what it saw
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// What it is called: a host of yours and a path, without spaces and `+`
    #[arg(long)]
    name: String,
}

/// Print a witness's public key
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing audit witness key --state ~/witness > witness.vkey")]
struct Key {
    /// Where the witness keeps its key and what it saw
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// Cosign what a copy of a log publishes, if it begins with what was seen before
#[derive(Debug, Args)]
#[command(after_help = "Example:
  farthing audit witness sign copy/ --key 'farthing-wallet/…+…+…' --state ~/witness > cosigned

What is printed is the checkpoint with the witness's line below it. Exit codes: 0 cosigned; 1 not, and why.")]
struct Sign {
    /// A copy of the log
    log: PathBuf,
    /// The log's public key, from its owner
    #[arg(long, value_name = "VKEY")]
    key: VerifierKey,
    /// Where the witness keeps its key and what it saw
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
}

/// Put a witness's line below the published checkpoint
#[derive(Debug, Args)]
#[command(after_help = "Example:
  farthing audit attach cosigned --witness 'witness.example/w1+…+…'

The line stays until the log grows; then the witness is to see it again. `farthing audit verify --witness` demands it.")]
pub(super) struct Attach {
    /// What the witness gave
    file: PathBuf,
    /// The witness's public key, from the witness
    #[arg(long, value_name = "VKEY")]
    witness: VerifierKey,
    /// The log's directory, if it is not the wallet's own
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The log's public key, if it is not the wallet's own
    #[arg(long, value_name = "VKEY")]
    key: Option<VerifierKey>,
}

impl From<WitnessDeskError> for Failure {
    fn from(error: WitnessDeskError) -> Self {
        Self::failed(format!("{error} ({})", error.code()))
    }
}

impl From<CosignError> for Failure {
    fn from(error: CosignError) -> Self {
        Self::failed(format!("{error} ({})", error.code()))
    }
}

pub(super) fn run(args: &WitnessArgs, out: &Out) -> Result<ExitCode, Failure> {
    match &args.command {
        Command::New(New { state, name }) => {
            let key = WitnessDesk::new(state).make(name)?.to_string();
            out.say(&json!({ "key": key }), &key);
        }
        Command::Key(Key { state }) => {
            let key = WitnessDesk::new(state).verifier()?.to_string();
            out.say(&json!({ "key": key }), &key);
        }
        Command::Sign(Sign { log, key, state }) => {
            let now = system_clock().wall.secs();
            let cosigned = WitnessDesk::new(state).cosign(key, &LogDir::new(log), now)?;
            // Bytes for a file, on a terminal and in a pipe.
            let written = std::io::stdout().write_all(cosigned.note.as_bytes());
            written.map_err(|error| Failure::failed(format!("the output cannot be written: {error}")))?;
            let (before, size) = (cosigned.before, cosigned.checkpoint.size);
            eprintln!("cosigned: {size} leaves, which begin with the {before} that were seen before");
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn attach(args: &Attach, out: &Out) -> Result<(), Failure> {
    let cosigned = read_bounded(&args.file, MAX_CHECKPOINT_BYTES)?;
    let dir = match &args.dir {
        Some(dir) => LogDir::new(dir),
        None => opened()?.0.audit().dir(),
    };
    let key = match &args.key {
        Some(key) => key.clone(),
        None => opened()?.0.audit().key()?.verifier().clone(),
    };
    let (checkpoint, at) = publish_cosigned(&dir, &key, &args.witness, &cosigned, &mut Disk::new())?;
    let at = Timestamp::from_secs(at);
    let name = args.witness.name();
    out.say(
        &json!({ "witness": name, "size": checkpoint.size, "seen_at": at.to_string() }),
        &format!("{name} saw these {} leaves at {at}", checkpoint.size),
    );
    Ok(())
}
