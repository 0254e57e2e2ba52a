//! The secret behind offers: given by the operator, or made once and kept beside the store.

use std::io::Write;
use std::path::{Path, PathBuf};

use farthing_rails::offer::BindingKey;
use sha2::{Digest, Sha256};

use super::GatewayError;
use crate::config::SecretRef;

/// The shortest secret that an operator may give, in bytes.
pub const MIN_SECRET_BYTES: usize = 32;

/// The key that seals offers. It survives restarts, so that offers do.
///
/// Several gateways that make one another's offers need the same one: give it as a reference then.
pub fn offer_key(reference: Option<&SecretRef>, store: &Path) -> Result<BindingKey, GatewayError> {
    let bytes = match reference {
        Some(reference) => {
            let secret = reference.resolve().map_err(|error| GatewayError::OfferKey(error.to_string()))?;
            let text = secret.expose().as_bytes();
            if text.len() < MIN_SECRET_BYTES {
                return Err(GatewayError::OfferKey(format!(
                    "{reference} is shorter than {MIN_SECRET_BYTES} bytes"
                )));
            }
            Sha256::digest(text).into()
        }
        None => kept_beside(store)?,
    };
    Ok(BindingKey::new(bytes, None))
}

fn kept_beside(store: &Path) -> Result<[u8; 32], GatewayError> {
    let path = path_beside(store);
    let fail = |error: std::io::Error| GatewayError::OfferKey(format!("{}: {error}", path.display()));
    match std::fs::read(&path) {
        Ok(bytes) => bytes
            .as_slice()
            .try_into()
            .map_err(|_| GatewayError::OfferKey(format!("{} does not hold 32 bytes", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes)
                .map_err(|_| GatewayError::OfferKey("the system gives no random bytes".to_owned()))?;
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).map_err(fail)?;
            }
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(&path).map_err(fail)?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(fail)?;
            Ok(bytes)
        }
        Err(error) => Err(fail(error)),
    }
}

fn path_beside(store: &Path) -> PathBuf {
    let mut name = store.file_name().unwrap_or_default().to_owned();
    name.push(".offer-key");
    store.with_file_name(name)
}
