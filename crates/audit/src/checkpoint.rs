//! What a log says of itself: its name, its size and its root.
//!
//! Spec: C2SP tlog-checkpoint.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::merkle::Hash;
use crate::note::{Note, NoteError, SignatureError, SigningKey, VerifierKey};

/// A tree larger than this is none that anybody can hold.
const MAX_SIZE: u64 = 1 << 62;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("the note is no checkpoint")]
    Form,
    #[error("the checkpoint's size is no number, or too large")]
    Size,
    #[error("the checkpoint's root is no hash")]
    Root,
    #[error("{0}")]
    Signature(#[from] SignatureError),
    #[error("the checkpoint is of another log")]
    Origin,
}

impl Checkpoint {
    /// Reads the text of a note.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn read(text: &str) -> Result<Self, CheckpointError> {
        let lines = text.strip_suffix('\n').ok_or(CheckpointError::Form)?;
        let mut lines = lines.split('\n');
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(CheckpointError::Form);
        };
        // Spec: C2SP tlog-checkpoint, "Note text": origin and extension lines are not empty.
        if origin.is_empty() || lines.any(str::is_empty) {
            return Err(CheckpointError::Form);
        }
        let number: u64 = size.parse().map_err(|_| CheckpointError::Size)?;
        // No leading zeroes, no sign.
        if number.to_string() != size || number > MAX_SIZE {
            return Err(CheckpointError::Size);
        }
        let root = STANDARD.decode(root).map_err(|_| CheckpointError::Root)?;
        let root = root.try_into().map_err(|_| CheckpointError::Root)?;
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }

    /// Reads a checkpoint that the log with this key signed. Its name is its key's.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(note: &[u8], key: &VerifierKey) -> Result<(Self, Note), CheckpointError> {
        let note = Note::read(note)?;
        // Spec: C2SP signed-note: the text is to be ignored unless its signature was verified.
        note.check(key)?;
        let checkpoint = Self::read(&note.text)?;
        if checkpoint.origin == key.name() { Ok((checkpoint, note)) } else { Err(CheckpointError::Origin) }
    }

    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Signs it. The caller sees to it that it is consistent with whatever this key signed before.
    ///
    /// Spec: C2SP tlog-checkpoint, "Signatures".
    pub(crate) fn sign(&self, key: &SigningKey) -> Note {
        key.sign_note(self.text())
    }
}
