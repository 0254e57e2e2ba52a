//! Keys by reference, for relayers and refunds.

use std::io::IsTerminal;

use farthing_evm::Key;
use farthing_wallet::keystore::{KeyRef, Keystore, KeystoreError, Passphrase};
use farthing_wallet::{Home, NoHome};

use super::SecretRef;

/// Holds the passphrase of an encrypted key, where nobody can be asked.
pub const PASSPHRASE_ENV: &str = "FARTHING_PASSPHRASE";
/// Names a file whose first line is that passphrase.
pub const PASSPHRASE_FILE_ENV: &str = "FARTHING_PASSPHRASE_FILE";

/// Why a key cannot be had. Never says anything of the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyRefError {
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    #[error(transparent)]
    NoHome(#[from] NoHome),
}

/// Reads the key that `env:NAME`, `file:PATH` or `keystore:NAME` points at.
///
/// An encrypted one is opened with `FARTHING_PASSPHRASE`, the file that `FARTHING_PASSPHRASE_FILE` names, or what a
/// person types.
pub fn read_key(reference: &str) -> Result<Key, KeyRefError> {
    let reference: KeyRef = reference.parse()?;
    // Only a name in the keystore needs a home to look in.
    let keystore = match (&reference, Home::from_env()) {
        (_, Ok(home)) => home.keystore(),
        (KeyRef::Keystore(_), Err(error)) => return Err(error.into()),
        (_, Err(_)) => Keystore::new(std::path::PathBuf::new()),
    };
    Ok(reference.load(&keystore, passphrase)?)
}

impl SecretRef {
    /// The key that this points at.
    pub fn read_key(&self) -> Result<Key, KeyRefError> {
        read_key(&self.to_string())
    }
}

fn passphrase() -> Result<Passphrase, KeystoreError> {
    if let Ok(text) = std::env::var(PASSPHRASE_ENV) {
        return Ok(Passphrase::new(text));
    }
    if let Some(path) = std::env::var_os(PASSPHRASE_FILE_ENV) {
        let path = std::path::PathBuf::from(path);
        return Passphrase::from_file(&path).map_err(|error| KeystoreError::Io { path, error });
    }
    if !std::io::stdin().is_terminal() {
        return Err(KeystoreError::NoPassphrase);
    }
    let typed = rpassword::prompt_password("Passphrase: ");
    typed.map(Passphrase::new).map_err(|error| KeystoreError::Io { path: "terminal".into(), error })
}
