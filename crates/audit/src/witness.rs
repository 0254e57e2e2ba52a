//! Somebody else who saw the log, and says so: two people who want the same witness's word cannot be shown two logs.
//!
//! Spec: C2SP tlog-cosignature, "Ed25519 signed message".

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::merkle::{Hash, empty_root, is_consistent};
use crate::note::{KeyKind, MAX_SIGNATURES, Note, Signature, SignatureError, SigningKey, VerifierKey};

/// Spec: C2SP tlog-cosignature, "Format": a time must not exceed it.
const MAX_TIME: u64 = (1 << 63) - 1;

/// The largest log of one name that a witness has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub size: u64,
    pub root: Hash,
}

impl Default for Seen {
    /// Every log begins with nothing.
    fn default() -> Self {
        Self { size: 0, root: empty_root() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    #[error("the key is none of a witness")]
    Key,
    #[error("the checkpoint does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("a log of {seen} leaves was seen before, and this one has {size}")]
    Older { seen: u64, size: u64 },
    #[error("this log does not begin with the one that was seen before")]
    Fork,
    #[error("the time is none")]
    Time,
}

impl WitnessError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Key => "witness_key",
            Self::Checkpoint(_) => "checkpoint_invalid",
            Self::Older { .. } => "older_than_seen",
            Self::Fork => "fork",
            Self::Time => "witness_time",
        }
    }
}

/// Cosigns what is consistent with what it saw last, and nothing else. What it saw is the caller's to keep, durably
/// before the cosignature leaves.
#[derive(Debug)]
pub struct Witness {
    key: SigningKey,
}

impl Witness {
    /// # Errors
    /// [`WitnessError::Key`] for a key that signs notes: one key may not do both.
    pub fn new(key: SigningKey) -> Result<Self, WitnessError> {
        if key.verifier().kind() == KeyKind::Cosignature { Ok(Self { key }) } else { Err(WitnessError::Key) }
    }

    pub fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// Cosigns a log's checkpoint at `now_secs`. `path` proves that it begins with what was `seen`; it is empty for a
    /// log that was not seen before.
    ///
    /// # Errors
    /// [`WitnessError`].
    pub fn cosign(
        &self,
        seen: &Seen,
        note: &[u8],
        log: &VerifierKey,
        path: &[Hash],
        now_secs: u64,
    ) -> Result<(Cosignature, Seen), WitnessError> {
        let (checkpoint, note) = Checkpoint::open(note, log)?;
        if checkpoint.size < seen.size {
            return Err(WitnessError::Older { seen: seen.size, size: checkpoint.size });
        }
        if !is_consistent((seen.size, seen.root), (checkpoint.size, checkpoint.root), path) {
            return Err(WitnessError::Fork);
        }
        if now_secs > MAX_TIME {
            return Err(WitnessError::Time);
        }
        let mut bytes = now_secs.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.key.sign(&message(now_secs, &note.text)));
        let next = Seen { size: checkpoint.size, root: checkpoint.root };
        Ok((Cosignature(self.key.line(&bytes)), next))
    }
}

/// Spec: C2SP tlog-cosignature, "Ed25519 signed message".
fn message(time: u64, text: &str) -> Vec<u8> {
    format!("cosignature/v1\ntime {time}\n{text}").into_bytes()
}

/// A witness's line below a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cosignature(Signature);

impl Cosignature {
    /// When the witness with that key saw the checkpoint, in seconds since 1970.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn check(note: &Note, key: &VerifierKey) -> Result<u64, SignatureError> {
        Self::find(note, key).map(|(time, _)| time)
    }

    /// The witness's line below a note, and when it saw that.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn find(note: &Note, key: &VerifierKey) -> Result<(u64, Self), SignatureError> {
        let mut found = Err(SignatureError::Missing);
        for line in note.signatures.iter().filter(|line| key.is_named_by(line)) {
            let (time, signature) = line.bytes.split_first_chunk::<8>().ok_or(SignatureError::Wrong)?;
            let time = u64::from_be_bytes(*time);
            let fits = key.kind() == KeyKind::Cosignature && time <= MAX_TIME;
            if !fits || !key.has_signed(&message(time, &note.text), signature) {
                return Err(SignatureError::Wrong);
            }
            found = Ok((time, Self(line.clone())));
        }
        found
    }
}

/// Puts a cosignature below a checkpoint, in the place of an earlier one of the same witness.
///
/// Returns `false`, and leaves the note as it is, if it can hold no more.
pub fn attach(note: &mut Note, cosignature: Cosignature) -> bool {
    let line = cosignature.0;
    note.signatures.retain(|other| other.name != line.name || other.id != line.id);
    if note.signatures.len() >= MAX_SIGNATURES {
        return false;
    }
    note.signatures.push(line);
    true
}
