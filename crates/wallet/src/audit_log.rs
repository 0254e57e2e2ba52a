//! Where a wallet's audit log is published, and the key that signs it: another than those that pay, in a file of its own.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use farthing_audit::{
    Checkpoint, CheckpointError, Disk, KeyError, KeyKind, LogDir, MAX_CHECKPOINT_BYTES, PublishError,
    Published, SigningKey, publish,
};
use zeroize::Zeroizing;

use crate::journal::Journal;
use crate::keystore::{create_private_dir, create_private_file, write_new};

/// How long the file of a log's key may be.
pub(crate) const MAX_KEY_BYTES: u64 = 1024;

#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the log's key {0} cannot be used: {1}")]
    Key(PathBuf, KeyError),
    #[error("{0} cannot be used: {1}")]
    Io(PathBuf, io::Error),
    #[error("what {0} says was signed last cannot be used: {1}")]
    Last(PathBuf, CheckpointError),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A wallet's own audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLog(PathBuf);

impl AuditLog {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Where it is published if nothing else is said.
    pub fn dir(&self) -> LogDir {
        LogDir::new(self.0.join("log"))
    }

    fn key_path(&self) -> PathBuf {
        self.0.join("log.key")
    }

    fn last_path(&self) -> PathBuf {
        self.0.join("signed")
    }

    /// The key that signs the log; made now, readable by its owner alone, if there is none.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn key(&self) -> Result<SigningKey, AuditError> {
        let path = self.key_path();
        let failed = |error| AuditError::Io(path.clone(), error);
        if let Some(text) = read(&path, MAX_KEY_BYTES).map_err(failed)? {
            return parse_key(&path, &text);
        }
        let mut seed = Zeroizing::new([0; 32]);
        let mut name = [0; 8];
        let no_random = |_| failed(io::Error::other("no random bytes"));
        getrandom::fill(&mut *seed).map_err(no_random)?;
        getrandom::fill(&mut name).map_err(no_random)?;
        let name = format!("farthing-wallet/{}", hex::encode(name));
        let key = SigningKey::from_seed(&name, KeyKind::Note, *seed)
            .map_err(|error| AuditError::Key(path.clone(), error))?;
        create_private_dir(&self.0).map_err(failed)?;
        match write_new(&path, Zeroizing::new(key.secret_text()).as_bytes()) {
            Ok(()) => Ok(key),
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let text = read(&path, MAX_KEY_BYTES).map_err(failed)?.unwrap_or_default();
                parse_key(&path, &text)
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The last checkpoint that was signed here, wherever it was published, as a note.
    ///
    /// # Errors
    /// [`AuditError::Io`].
    pub fn last_signed(&self) -> Result<Option<Vec<u8>>, AuditError> {
        let path = self.last_path();
        let text = read(&path, MAX_CHECKPOINT_BYTES as u64).map_err(|error| AuditError::Io(path, error))?;
        Ok(text.map(|text| text.to_vec()))
    }

    /// Publishes what the journal holds to `dir`. What contradicts the last checkpoint that was signed here is not signed,
    /// also where the directory is another or was deleted.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn publish(&self, journal: &Journal, dir: &LogDir) -> Result<Published, AuditError> {
        let key = self.key()?;
        let last = match self.last_signed()? {
            Some(note) => Some(
                Checkpoint::open(&note, key.verifier())
                    .map_err(|error| AuditError::Last(self.last_path(), error))?
                    .0,
            ),
            None => None,
        };
        let published = publish(dir, &key, last.as_ref(), journal, &mut Disk::new())?;
        if last.is_none_or(|last| last.size < published.checkpoint.size) {
            let path = self.last_path();
            replace(&path, published.note.as_bytes()).map_err(|error| AuditError::Io(path, error))?;
        }
        Ok(published)
    }
}

fn parse_key(path: &Path, text: &[u8]) -> Result<SigningKey, AuditError> {
    let malformed = |error| AuditError::Key(path.to_owned(), error);
    SigningKey::from_secret_text(std::str::from_utf8(text).map_err(|_| malformed(KeyError::Form))?)
        .map_err(malformed)
}

/// A file's bytes, `None` if there is none.
pub(crate) fn read(path: &Path, most: u64) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long"));
    }
    Ok(Some(bytes))
}

/// Puts a file in the place of another, whole and durably.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("tmp");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_private_file(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
}
