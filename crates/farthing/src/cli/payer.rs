//! Whose key pays for what the commands buy.

use std::path::PathBuf;
use std::sync::Arc;

use farthing_primitives::Registry;
use farthing_wallet::journal::Journal;
use farthing_wallet::keystore::KeyRef;
use farthing_wallet::signer::Signer;
use farthing_wallet::{Home, LocalAuthorizer};

use super::Failure;
use super::session_key::{self, PREFIX};
use super::wallet::{default_key, dev_key, is_dev_key, key_ref, passphrase, passphrase_but_for_keyring};

/// What decides and signs: over the key that is named, or else the wallet's own, wherever it is.
pub(super) async fn authorizer(
    home: &Home,
    journal: &Arc<Journal>,
    named: Option<&String>,
    password_file: Option<&PathBuf>,
) -> Result<LocalAuthorizer, Failure> {
    let reference = named.map_or_else(|| default_key(home, journal), |reference| Ok(reference.clone()))?;
    let signer = signer(home, &reference, password_file).await?;
    let wallet = LocalAuthorizer::by(signer, journal.clone(), Registry::builtin());
    // A session key that was made in a wallet for development is for nothing else.
    let is_for_development = reference.starts_with(PREFIX) && journal.is_devnet()?;
    Ok(if is_for_development { wallet.with_dev_keys(|_| true) } else { wallet.with_dev_keys(is_dev_key) })
}

/// Who signs by a key: `NAME`, `keystore:NAME`, `session:NAME`, `env:NAME`, `file:PATH`, `dev:NUMBER`, `kms:REGION/KEY_ID`, `pkcs11:…`.
pub(super) async fn signer(
    home: &Home,
    reference: &str,
    password_file: Option<&PathBuf>,
) -> Result<Arc<dyn Signer>, Failure> {
    if let Some(number) = reference.strip_prefix("dev:") {
        return Ok(Arc::new(dev_key(number)?));
    }
    let file = password_file.cloned();
    if let Some(name) = reference.strip_prefix(PREFIX) {
        let (home, name) = (home.clone(), name.to_owned());
        let opened = tokio::task::spawn_blocking(move || {
            session_key::open(&home, &home.journal()?, &name, || passphrase(file.as_ref(), "Passphrase: "))
        });
        let opened =
            opened.await.map_err(|error| Failure::failed(format!("the key was not opened: {error}")))?;
        return Ok(Arc::new(opened?));
    }
    let (reference, keystore) = (key_ref(reference)?, home.keystore());
    // A person who types, a key file that is hard to open, and a service far away: all of them take their time.
    let opened = tokio::task::spawn_blocking(move || {
        // A device locks itself after a few wrong PINs: what opens key files is not tried on it.
        let ask = match reference {
            KeyRef::Pkcs11(_) => passphrase_but_for_keyring,
            _ => passphrase,
        };
        reference.signer(&keystore, || ask(file.as_ref(), "Passphrase: "))
    });
    let opened = opened.await.map_err(|error| Failure::failed(format!("the key was not opened: {error}")))?;
    Ok(opened?)
}
