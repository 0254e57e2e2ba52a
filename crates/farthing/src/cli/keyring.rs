//! `farthing wallet keyring`: the passphrase in the system's keyring instead of a file.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use farthing_wallet::keyring::{Keyring, KeyringError};
use farthing_wallet::keystore::{KeystoreError, Passphrase};
use serde_json::json;

use super::Failure;
use super::wallet::{Out, home, passphrase_but_for_keyring};

/// Keep the passphrase in the system's keyring, so that it is in no file and in no environment
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet keyring store          asks for the passphrase, and keeps it if it opens a key
  farthing wallet keyring status
  farthing wallet keyring remove

The keyring is the kernel's own (Linux): nothing is written to a disk, and it is gone when the machine starts
again, and may be when the user's last process ends. Whatever runs as the same user can read it. It is asked
where neither --password-file nor FARTHING_PASSPHRASE says the passphrase, for keys in files alone: a device's
PIN is never taken from it. Other systems' keyrings are not spoken to.

Exit codes: 0 done; 1 it could not be done; 2 called wrongly.")]
pub struct KeyringArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Store(Store),
    /// Say whether it is there. It is not printed
    #[command(after_help = "Example:\n  farthing wallet keyring status")]
    Status,
    /// Forget it
    #[command(after_help = "Example:\n  farthing wallet keyring remove")]
    Remove,
}

/// Keep the passphrase, in place of another
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing wallet keyring store
  farthing wallet keyring store --password-file /media/stick/passphrase")]
struct Store {
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl From<KeyringError> for Failure {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Length => Self::usage(error.to_string()),
            error => Self::failed(error.to_string()),
        }
    }
}

pub fn run(args: KeyringArgs, out: &Out) -> Result<(), Failure> {
    let home = home()?;
    home.make().map_err(|error| Failure::failed(format!("{}: {error}", home.path().display())))?;
    let keyring = Keyring::of(home.path());
    let said = |stored: bool| json!({ "keyring": "kernel", "stored": stored });
    match args.command {
        Command::Store(store) => {
            let passphrase = passphrase_but_for_keyring(store.password_file.as_ref(), "Passphrase: ")?;
            opens_a_key(&passphrase)?;
            keyring.store(&passphrase)?;
            out.say(&said(true), "the kernel's keyring has it until the machine starts again");
        }
        Command::Status => match keyring.load() {
            Ok(_) => out.say(&said(true), "the kernel's keyring has this wallet's passphrase"),
            Err(error @ KeyringError::None) => out.say(&said(false), &error.to_string()),
            Err(error) => return Err(error.into()),
        },
        Command::Remove => {
            keyring.remove()?;
            out.say(&said(false), "the kernel's keyring has it no more");
        }
    }
    Ok(())
}

/// What opens nothing would be found out when nobody is there to be asked.
fn opens_a_key(passphrase: &Passphrase) -> Result<(), Failure> {
    let home = home()?;
    let mut wrong = None;
    for keys in [home.keystore(), home.session_keys()] {
        for key in keys.list()? {
            match keys.load(&key.name, passphrase) {
                Ok(_) => return Ok(()),
                Err(KeystoreError::WrongPassphrase) => wrong = Some(KeystoreError::WrongPassphrase),
                Err(error) => return Err(error.into()),
            }
        }
    }
    wrong.map_or(Ok(()), |error| Err(error.into()))
}
