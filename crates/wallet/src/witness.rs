//! A witness of other people's audit logs: its key, and what it saw of each log, in a directory of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use farthing_audit::{
    Checkpoint, CheckpointError, KeyError, KeyKind, LogDir, MAX_CHECKPOINT_BYTES, ReadError, Seen,
    SigningKey, VerifierKey, Witness, WitnessError, attach, consistency_proof,
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::audit_log::{MAX_KEY_BYTES, read, replace};
use crate::keystore::{create_private_dir, write_new};

#[derive(Debug, thiserror::Error)]
pub enum WitnessDeskError {
    #[error("there is no witness in {0}; make one with `farthing audit witness new`")]
    None(PathBuf),
    #[error("there is a witness in {0} already")]
    There(PathBuf),
    #[error("the witness's key {0} cannot be used: {1}")]
    Key(PathBuf, KeyError),
    #[error("{0} cannot be used: {1}")]
    Io(PathBuf, io::Error),
    #[error("what {0} says was seen last cannot be used: {1}")]
    Last(PathBuf, CheckpointError),
    #[error("another process cosigns")]
    Busy,
    #[error("nothing is published in {0}")]
    Nothing(PathBuf),
    #[error(transparent)]
    Log(#[from] ReadError),
    #[error("not cosigned: {0}")]
    Refused(#[from] WitnessError),
    #[error("the checkpoint has as many signatures as it can hold")]
    Full,
}

impl WitnessDeskError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::None(_) => "witness_none",
            Self::There(_) => "witness_there",
            Self::Key(..) => "witness_key",
            Self::Io(..) => "io",
            Self::Last(..) => "seen_damaged",
            Self::Busy => "busy",
            Self::Nothing(_) => "nothing_published",
            Self::Log(_) => "published_damaged",
            Self::Refused(error) => error.code(),
            Self::Full => "checkpoint_full",
        }
    }
}

/// What a witness says of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosigned {
    pub checkpoint: Checkpoint,
    /// The log's checkpoint with the witness's line below it.
    pub note: String,
    /// How large the log was when it was seen before.
    pub before: u64,
}

/// A witness's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessDesk(PathBuf);

impl WitnessDesk {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    fn key_path(&self) -> PathBuf {
        self.0.join("witness.key")
    }

    /// What was seen of the log with that key.
    fn seen_path(&self, log: &VerifierKey) -> PathBuf {
        self.0.join(format!("seen-{}", hex::encode(Sha256::digest(log.to_string()))))
    }

    /// Makes a new witness.
    ///
    /// # Errors
    /// [`WitnessDeskError`]; [`WitnessDeskError::There`] if there is one.
    pub fn make(&self, name: &str) -> Result<VerifierKey, WitnessDeskError> {
        let path = self.key_path();
        let failed = |error| WitnessDeskError::Io(path.clone(), error);
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|_| failed(io::Error::other("no random bytes")))?;
        let key = SigningKey::from_seed(name, KeyKind::Cosignature, *seed)
            .map_err(|error| WitnessDeskError::Key(path.clone(), error))?;
        create_private_dir(&self.0).map_err(failed)?;
        match write_new(&path, Zeroizing::new(key.secret_text()).as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(WitnessDeskError::There(self.0.clone()))
            }
            done => done.map(|()| key.verifier().clone()).map_err(failed),
        }
    }

    fn witness(&self) -> Result<Witness, WitnessDeskError> {
        let path = self.key_path();
        let text = read(&path, MAX_KEY_BYTES).map_err(|error| WitnessDeskError::Io(path.clone(), error))?;
        let text = text.ok_or_else(|| WitnessDeskError::None(self.0.clone()))?;
        let malformed = |error| WitnessDeskError::Key(path.clone(), error);
        let text = std::str::from_utf8(&text).map_err(|_| malformed(KeyError::Form))?;
        Ok(Witness::new(SigningKey::from_secret_text(text).map_err(malformed)?)?)
    }

    /// # Errors
    /// [`WitnessDeskError`].
    pub fn verifier(&self) -> Result<VerifierKey, WitnessDeskError> {
        Ok(self.witness()?.verifier().clone())
    }

    /// Cosigns what is published in `dir`, a copy of the log with that key, if it goes on from what was seen last.
    ///
    /// # Errors
    /// [`WitnessDeskError`]; what was seen stays what it was.
    pub fn cosign(
        &self,
        log: &VerifierKey,
        dir: &LogDir,
        now_secs: u64,
    ) -> Result<Cosigned, WitnessDeskError> {
        let witness = self.witness()?;
        // Two at once could each cosign what the other does not know of.
        let lock = self.lock()?;
        let path = self.seen_path(log);
        let seen = self.seen(&path, log)?;
        let published = dir.checkpoint()?.ok_or_else(|| WitnessDeskError::Nothing(dir.path().to_owned()))?;
        let (checkpoint, mut note) = Checkpoint::open(&published, log).map_err(WitnessError::from)?;
        let way = match checkpoint.size >= seen.size {
            true => consistency_proof(&mut dir.nodes(checkpoint.size), seen.size, checkpoint.size)?,
            false => Vec::new(),
        };
        let (line, _) = witness.cosign(&seen, &published, log, &way, now_secs)?;
        if !attach(&mut note, line) {
            return Err(WitnessDeskError::Full);
        }
        let note = note.to_string();
        // One that could not be read again would have to be forgotten.
        if note.len() > MAX_CHECKPOINT_BYTES {
            return Err(WitnessDeskError::Full);
        }
        // INVARIANT: it is on the disk before anybody has the line, so that no crash makes it forgotten.
        replace(&path, note.as_bytes()).map_err(|error| WitnessDeskError::Io(path, error))?;
        drop(lock);
        Ok(Cosigned { checkpoint, note, before: seen.size })
    }

    fn seen(&self, path: &Path, log: &VerifierKey) -> Result<Seen, WitnessDeskError> {
        let note = read(path, MAX_CHECKPOINT_BYTES as u64)
            .map_err(|error| WitnessDeskError::Io(path.to_owned(), error))?;
        let Some(note) = note else { return Ok(Seen::default()) };
        let (last, _) =
            Checkpoint::open(&note, log).map_err(|error| WitnessDeskError::Last(path.to_owned(), error))?;
        Ok(Seen { size: last.size, root: last.root })
    }

    fn lock(&self) -> Result<fs::File, WitnessDeskError> {
        let path = self.0.join(".lock");
        let failed = |error| WitnessDeskError::Io(path.clone(), error);
        let file = fs::File::create(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(fs::TryLockError::WouldBlock) => Err(WitnessDeskError::Busy),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use farthing_audit::{
        Check, Disk, Kind, Leaf, Leaves, LeavesError, Published, publish, publish_cosigned, verify,
    };

    use super::*;

    struct Kept(Vec<Vec<u8>>);

    impl Kept {
        fn numbered(from: u64, count: u64) -> Self {
            Self((from..from + count).map(|n| Leaf::new(Kind::Outcome, n).encode().unwrap()).collect())
        }
    }

    impl Leaves for Kept {
        fn count(&self) -> Result<u64, LeavesError> {
            Ok(self.0.len() as u64)
        }

        fn read(&self, from: u64, most: usize) -> Result<Vec<Vec<u8>>, LeavesError> {
            let from = usize::try_from(from).unwrap();
            Ok(self.0.iter().skip(from).take(most).cloned().collect())
        }
    }

    #[test]
    fn a_witness_goes_on_from_what_it_saw_and_the_log_bears_its_line() {
        let home = tempfile::tempdir().unwrap();
        let desk = WitnessDesk::new(home.path().join("witness"));
        let key = SigningKey::from_seed("log.example", KeyKind::Note, [1; 32]).unwrap();
        let log = key.verifier();
        let dir = |name: &str| LogDir::new(home.path().join(name));
        let put = |name: &str, leaves: Kept| -> Published {
            publish(&dir(name), &key, None, &leaves, &mut Disk::new()).unwrap()
        };
        assert_eq!(desk.verifier().unwrap_err().code(), "witness_none");
        let public = desk.make("witness.example").unwrap();
        assert_eq!(desk.make("witness.example").unwrap_err().code(), "witness_there");
        assert_eq!(desk.verifier().unwrap(), public);
        assert_eq!(desk.cosign(log, &dir("log"), 5).unwrap_err().code(), "nothing_published");

        for (size, before) in [(3, 0), (3, 3), (300, 3)] {
            put("log", Kept::numbered(0, size));
            let cosigned = desk.cosign(log, &dir("log"), 1_700_000_000).unwrap();
            assert_eq!((cosigned.checkpoint.size, cosigned.before), (size, before));
            let put_up =
                |note: &str| publish_cosigned(&dir("log"), log, &public, note.as_bytes(), &mut Disk::new());
            assert_eq!(put_up(&cosigned.note).unwrap(), (cosigned.checkpoint.clone(), 1_700_000_000));
            let witnesses = [public.clone()];
            let check = Check { key: log, witnesses: &witnesses, known: &[], leaves: None };
            assert!(verify(&dir("log"), &check).holds());
            // Publishing nothing new keeps the line.
            assert!(put("log", Kept::numbered(0, size)).note.contains("witness.example"));
            let forged = cosigned.note.replace("\u{2014} witness.example ", "\u{2014} witness.example AAAA");
            assert!(matches!(
                put_up(&forged).unwrap_err().code(),
                "witness_missing" | "cosignature_unreadable"
            ));
            let unsigned: String = cosigned.note.lines().take(5).map(|line| format!("{line}\n")).collect();
            assert_eq!(put_up(&unsigned).unwrap_err().code(), "witness_missing");
        }
        let old = desk.cosign(log, &dir("log"), 1).unwrap().note;
        put("log", Kept::numbered(0, 301));
        let late = publish_cosigned(&dir("log"), log, &public, old.as_bytes(), &mut Disk::new());
        assert_eq!(late.unwrap_err().code(), "other_checkpoint");

        // The same key signs another history, or a part of this one.
        put("other", Kept::numbered(7, 400));
        assert_eq!(desk.cosign(log, &dir("other"), 1).unwrap_err().code(), "fork");
        put("short", Kept::numbered(0, 200));
        assert_eq!(desk.cosign(log, &dir("short"), 1).unwrap_err().code(), "older_than_seen");
        // Another log is another log.
        let stranger = SigningKey::from_seed("log.example", KeyKind::Note, [2; 32]).unwrap();
        assert_eq!(
            desk.cosign(stranger.verifier(), &dir("log"), 1).unwrap_err().code(),
            "checkpoint_invalid"
        );
        // What was seen may not be made up, nor forgotten without being noticed by whoever looks.
        fs::write(desk.seen_path(log), "x").unwrap();
        assert_eq!(desk.cosign(log, &dir("log"), 1).unwrap_err().code(), "seen_damaged");
    }
}
