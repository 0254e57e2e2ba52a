//! `farthing policy index`: numbers that the owner sets, and that limits may follow.

use clap::{Args, Subcommand};
use farthing_policy::{Bucket, Dollars};
use farthing_primitives::parse_atoms;
use farthing_wallet::journal::indexes::{IndexError, KnownIndex};
use farthing_wallet::system_clock;
use serde_json::{Value, json};

use crate::cli::Failure;
use crate::cli::wallet::{Out, home};

/// Set the numbers that limits of the policy in force follow
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing policy index set gpu-hour '$2.10'
  farthing policy index show

The policy names each index under indexes, with what it may be and when it is too old. Beyond that it
takes another policy. Where an index is not set, or too old, limits that follow it are at their floor.")]
pub(super) struct IndexArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Set(Set),
    Show(Show),
}

/// Say what an index is, from the next payment on
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing policy index set gpu-hour '$2.10'     of dollars
  farthing policy index set kwh 120000           of another asset, in atoms")]
struct Set {
    /// Its name in the policy
    name: String,
    /// Dollars as '$2.10', or atoms of the asset that the index is of
    value: String,
}

/// Print the indexes of the policy in force, and whether they count
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  farthing policy index show")]
struct Show {}

pub(super) fn run(args: IndexArgs, out: &Out) -> Result<(), Failure> {
    match args.command {
        Command::Set(set) => set_one(&set, out),
        Command::Show(Show {}) => show(out),
    }
}

impl From<IndexError> for Failure {
    fn from(error: IndexError) -> Self {
        let code = match &error {
            IndexError::Unknown(_) => 2,
            IndexError::OutOfBounds { .. } => 3,
            IndexError::NotOwner | IndexError::Journal(_) => 1,
        };
        let hint = if code == 3 { "\nNothing was changed. If you mean it, change the policy." } else { "" };
        Self { message: format!("{error}{hint}"), code }
    }
}

fn set_one(set: &Set, out: &Out) -> Result<(), Failure> {
    let journal = home()?.journal()?;
    let clock = system_clock();
    let known = journal.indexes(&clock)?.into_iter().find(|known| known.name == set.name);
    let known = known.ok_or_else(|| IndexError::Unknown(set.name.clone()))?;
    let value = match (&known.index.bucket, set.value.starts_with('$')) {
        (Bucket::Dollar, true) => Dollars::parse(&set.value).map(|dollars| dollars.0),
        (Bucket::Asset(_), false) => parse_atoms(&set.value),
        (Bucket::Dollar, false) => {
            return Err(Failure::usage(format!("{} is of dollars, written '$2.10'", set.name)));
        }
        (Bucket::Asset(id), true) => {
            return Err(Failure::usage(format!("{} is of {id}, in atoms", set.name)));
        }
    };
    let value = value.map_err(|error| Failure::usage(format!("{:?}: {error}", set.value)))?;
    let value = journal.set_index(&set.name, value, &clock)?;
    let json = json!({
        "index": set.name,
        "of": value.bucket.to_string(),
        "value": amount(&value.bucket, value.value),
        "set_ms": value.set.millis(),
    });
    out.say(&json, &format!("{} is {}\n", set.name, spelt(&value.bucket, value.value)));
    Ok(())
}

fn show(out: &Out) -> Result<(), Failure> {
    let indexes = home()?.journal()?.indexes(&system_clock())?;
    let mut text = String::new();
    for known in &indexes {
        let KnownIndex { name, index, value, counts } = known;
        let said = match (value, counts) {
            (None, _) => "not set: limits are at their floor".to_owned(),
            (Some(value), true) => spelt(&value.bucket, value.value),
            (Some(value), false) => {
                format!(
                    "{}, too old or out of its bounds: limits are at their floor",
                    spelt(&value.bucket, value.value)
                )
            }
        };
        let [least, most] = [index.least, index.most].map(|n| spelt(&index.bucket, n));
        text += &format!("{name}  {said} (from {least} to {most})\n");
    }
    if indexes.is_empty() {
        text += "the policy in force has no indexes\n";
    }
    out.say(&json!({ "indexes": indexes.iter().map(shown).collect::<Vec<_>>() }), &text);
    Ok(())
}

fn shown(known: &KnownIndex) -> Value {
    let KnownIndex { name, index, value, counts } = known;
    json!({
        "index": name,
        "of": index.bucket.to_string(),
        "least": amount(&index.bucket, index.least),
        "most": amount(&index.bucket, index.most),
        "stale_after_s": index.stale_after.as_secs(),
        "value": value.as_ref().map(|value| amount(&value.bucket, value.value)),
        "set_ms": value.as_ref().map(|value| value.set.millis()),
        "counts": counts,
    })
}

/// Dollars as a decimal, others in atoms.
fn amount(bucket: &Bucket, n: u128) -> String {
    match bucket {
        Bucket::Dollar => Dollars(n).plain(),
        Bucket::Asset(_) => n.to_string(),
    }
}

fn spelt(bucket: &Bucket, n: u128) -> String {
    match bucket {
        Bucket::Dollar => Dollars(n).to_string(),
        Bucket::Asset(id) => format!("{n} atoms of {id}"),
    }
}
