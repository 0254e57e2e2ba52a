//! Secrets: never in the file, only where to find them; never printed, and wiped after use.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use zeroize::Zeroizing;

/// The longest secret that is read from a file, in bytes.
pub const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// The value of an environment variable.
    Env(String),
    /// The content of a file, without blanks around it.
    File(PathBuf),
    /// A key of the wallet's keystore, by its name. For keys only.
    Keystore(String),
}

/// A secret text. Cannot be printed, compared or copied by accident.
pub struct Secret(Zeroizing<String>);

/// Why a secret is not there. Never says what it would have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error(
        "not a reference to a secret (env:NAME, file:PATH or keystore:NAME); secrets are not written here"
    )]
    NotAReference,
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[error("{path}: {error}")]
    File { path: PathBuf, error: String },
    #[error("the keystore holds keys, and this is no key")]
    KeystoreText,
    #[error("the secret is empty")]
    Empty,
}

impl FromStr for SecretRef {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("keystore", name)) if !name.is_empty() => Ok(Self::Keystore(name.to_owned())),
            // Whoever pastes a secret here must not find it in the error.
            _ => Err(SecretError::NotAReference),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Keystore(name) => write!(f, "keystore:{name}"),
        }
    }
}

impl SecretRef {
    /// Fetches the secret.
    pub fn resolve(&self) -> Result<Secret, SecretError> {
        let text = match self {
            Self::Env(name) => {
                Zeroizing::new(std::env::var(name).map_err(|_| SecretError::NoVariable(name.clone()))?)
            }
            Self::File(path) => {
                let fail = |error: String| SecretError::File { path: path.clone(), error };
                let size = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
                if size > MAX_SECRET_BYTES {
                    return Err(fail(format!("longer than {MAX_SECRET_BYTES} bytes")));
                }
                Zeroizing::new(std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?)
            }
            Self::Keystore(_) => return Err(SecretError::KeystoreText),
        };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            Err(SecretError::Empty)
        } else {
            Ok(Secret(Zeroizing::new(trimmed.to_owned())))
        }
    }
}

impl Secret {
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
