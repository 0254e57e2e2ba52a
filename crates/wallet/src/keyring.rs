//! The passphrase of a wallet's keys in the kernel's keyring, where nothing of it is on a disk.
//!
//! Linux only. It is gone when the machine starts again, and may be when the last process of the user has ended. Whatever
//! runs as the same user can read it, as it can the memory of a program that opened the keys.
//!
//! Spec: keyrings(7), user-keyring(7).

use std::path::Path;

use crate::keystore::Passphrase;

/// The longest passphrase that is kept, in bytes.
pub const MAX_PASSPHRASE_BYTES: usize = 1024;

/// Why the keyring is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    #[error("the kernel's keyring holds no passphrase for this wallet")]
    None,
    #[error("a passphrase for the keyring has 1 to {MAX_PASSPHRASE_BYTES} bytes")]
    Length,
    #[error("what the kernel's keyring holds for this wallet is no text")]
    NotText,
    #[error(
        "there is no keyring here that farthing knows: it is the kernel's of Linux alone; use --password-file or \
         FARTHING_PASSPHRASE"
    )]
    Absent,
    #[error(
        "the kernel's keyring cannot be used ({0}): containers often forbid it; use --password-file or FARTHING_PASSPHRASE"
    )]
    Kernel(String),
}

/// The kernel's keyring of whoever runs this process.
#[derive(Debug, Clone)]
pub struct Keyring {
    /// What the entry is called: one for each wallet.
    name: String,
}

impl Keyring {
    /// Of the wallet in this folder.
    pub fn of(home: &Path) -> Self {
        let home = std::fs::canonicalize(home).unwrap_or_else(|_| home.to_owned());
        Self { name: format!("farthing:passphrase:{}", home.display()) }
    }

    /// Keeps a passphrase, in place of another.
    ///
    /// # Errors
    /// [`KeyringError`].
    pub fn store(&self, passphrase: &Passphrase) -> Result<(), KeyringError> {
        let text = passphrase.expose();
        if !(1..=MAX_PASSPHRASE_BYTES).contains(&text.len()) {
            return Err(KeyringError::Length);
        }
        kernel::store(&self.name, text.as_bytes())
    }

    /// The passphrase that is kept.
    ///
    /// # Errors
    /// [`KeyringError::None`] if there is none.
    pub fn load(&self) -> Result<Passphrase, KeyringError> {
        let mut bytes = zeroize::Zeroizing::new([0u8; MAX_PASSPHRASE_BYTES]);
        let len = kernel::load(&self.name, bytes.as_mut())?;
        let text = bytes.get(..len).ok_or(KeyringError::Length)?;
        let text = std::str::from_utf8(text).map_err(|_| KeyringError::NotText)?;
        Ok(Passphrase::new(text.to_owned()))
    }

    /// Forgets it.
    ///
    /// # Errors
    /// [`KeyringError::None`] if there is none.
    pub fn remove(&self) -> Result<(), KeyringError> {
        kernel::remove(&self.name)
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    use linux_keyutils::{KeyError, KeyRing, KeyRingIdentifier};

    use super::KeyringError;

    fn failed(error: KeyError) -> KeyringError {
        match error {
            KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked => KeyringError::None,
            error => KeyringError::Kernel(error.to_string()),
        }
    }

    /// The user's keyring, which this process has from here on: a key is read by whoever can find it from a keyring of
    /// its own, and the session that a service or an SSH login begins need not lead to the user's.
    fn ring() -> Result<KeyRing, KeyringError> {
        let users = KeyRing::from_special_id(KeyRingIdentifier::User, true).map_err(failed)?;
        let own = KeyRing::from_special_id(KeyRingIdentifier::Process, true).map_err(failed)?;
        own.link_keyring(users).map_err(failed)?;
        Ok(users)
    }

    pub fn store(name: &str, secret: &[u8]) -> Result<(), KeyringError> {
        ring()?.add_key(name, secret).map(drop).map_err(failed)
    }

    pub fn load(name: &str, into: &mut [u8]) -> Result<usize, KeyringError> {
        let key = ring()?.search(name).map_err(failed)?;
        key.read(&mut &mut *into).map_err(failed)
    }

    pub fn remove(name: &str) -> Result<(), KeyringError> {
        let ring = ring()?;
        let key = ring.search(name).map_err(failed)?;
        // Whoever has found it before has nothing any more.
        key.revoke().map_err(failed)?;
        ring.unlink_key(key).map_err(failed)
    }
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    use super::KeyringError;

    pub fn store(_: &str, _: &[u8]) -> Result<(), KeyringError> {
        Err(KeyringError::Absent)
    }

    pub fn load(_: &str, _: &mut [u8]) -> Result<usize, KeyringError> {
        Err(KeyringError::Absent)
    }

    pub fn remove(_: &str) -> Result<(), KeyringError> {
        Err(KeyringError::Absent)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn pass(text: &str) -> Passphrase {
        Passphrase::new(text.to_owned())
    }

    #[test]
    fn the_kernels_keyring_keeps_a_passphrase_for_each_wallet_and_forgets_it() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (ring, other) = (Keyring::of(one.path()), Keyring::of(two.path()));
        match ring.store(&pass("correct horse")) {
            // A container that forbids it: said, and nothing else is.
            Err(error @ KeyringError::Kernel(_)) => {
                assert!(error.to_string().contains("--password-file"));
                assert!(matches!(ring.load(), Err(KeyringError::Kernel(_))));
                return;
            }
            stored => stored.unwrap(),
        }
        assert!(ring.load().unwrap() == pass("correct horse"));
        assert_eq!(other.load().unwrap_err(), KeyringError::None, "another wallet's is another's");
        ring.store(&pass("battery")).unwrap();
        assert!(ring.load().unwrap() == pass("battery"), "in place of the first");
        // Another thread, as another process, finds it as well.
        let again = ring.clone();
        assert!(std::thread::spawn(move || again.load().unwrap() == pass("battery")).join().unwrap());
        ring.remove().unwrap();
        assert_eq!(ring.load().unwrap_err(), KeyringError::None);
        assert_eq!(ring.remove().unwrap_err(), KeyringError::None);
    }

    #[test]
    fn the_kernels_keyring_takes_no_passphrase_that_is_none() {
        let home = tempfile::tempdir().unwrap();
        let ring = Keyring::of(home.path());
        for text in ["", &"x".repeat(MAX_PASSPHRASE_BYTES + 1)] {
            assert_eq!(ring.store(&pass(text)), Err(KeyringError::Length));
        }
    }
}
