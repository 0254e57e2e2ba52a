//! Proofs that travel alone: one JSON object and the log's public key are all that a stranger needs.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::leaf::{Leaf, LeafError};
use crate::merkle::{Hash, MAX_PATH, is_consistent, is_included, leaf_hash};
use crate::note::VerifierKey;

/// How long a proof may be as JSON.
pub const MAX_PROOF_BYTES: usize = 256 * 1024;

const INCLUSION: &str = "farthing-audit-inclusion-v1";
const CONSISTENCY: &str = "farthing-audit-consistency-v1";

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the proof is longer than {MAX_PROOF_BYTES} bytes")]
    TooLong,
    #[error("the proof is not written as one")]
    Form,
    #[error("its checkpoint does not hold: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("its leaf is none: {0}")]
    Leaf(#[from] LeafError),
    #[error("the leaf is not at that place of the log")]
    NotIncluded,
    #[error("the later log does not begin with the earlier one")]
    NotConsistent,
}

impl ProofError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLong => "proof_too_long",
            Self::Form => "proof_malformed",
            Self::Checkpoint(_) => "proof_checkpoint_invalid",
            Self::Leaf(_) => "proof_leaf_malformed",
            Self::NotIncluded => "not_included",
            Self::NotConsistent => "not_consistent",
        }
    }
}

/// That a leaf is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inclusion {
    pub index: u64,
    /// The leaf's bytes, as they are in the log.
    pub leaf: String,
    pub path: Vec<Hash>,
    /// A signed checkpoint, as a note.
    pub checkpoint: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InclusionRecord {
    #[serde(rename = "type")]
    kind: String,
    /// A text, since JSON numbers lose digits in careless readers.
    index: String,
    leaf: String,
    path: Vec<String>,
    checkpoint: String,
}

impl Inclusion {
    pub fn to_json(&self) -> serde_json::Value {
        let record = InclusionRecord {
            kind: INCLUSION.to_owned(),
            index: self.index.to_string(),
            leaf: self.leaf.clone(),
            path: print_path(&self.path),
            checkpoint: self.checkpoint.clone(),
        };
        // INVARIANT: a struct of texts always serializes; were it not so, nothing would verify.
        serde_json::to_value(record).unwrap_or_default()
    }

    /// # Errors
    /// [`ProofError::TooLong`] and [`ProofError::Form`].
    pub fn read(json: &[u8]) -> Result<Self, ProofError> {
        let record: InclusionRecord = read(json)?;
        if record.kind != INCLUSION {
            return Err(ProofError::Form);
        }
        let index: u64 = record.index.parse().map_err(|_| ProofError::Form)?;
        let path = read_path(&record.path)?;
        Ok(Self { index, leaf: record.leaf, path, checkpoint: record.checkpoint })
    }

    /// Checks everything, and returns what is proven: the leaf, and the log as it was signed.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(Leaf, Checkpoint), ProofError> {
        let (checkpoint, _) = Checkpoint::open(self.checkpoint.as_bytes(), key)?;
        let hash = leaf_hash(self.leaf.as_bytes());
        if !is_included(&hash, self.index, checkpoint.size, &self.path, &checkpoint.root) {
            return Err(ProofError::NotIncluded);
        }
        Ok((Leaf::read(self.leaf.as_bytes())?, checkpoint))
    }
}

/// That a later log begins with an earlier one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consistency {
    pub path: Vec<Hash>,
    /// Signed checkpoints, as notes.
    pub earlier: String,
    pub later: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsistencyRecord {
    #[serde(rename = "type")]
    kind: String,
    path: Vec<String>,
    earlier: String,
    later: String,
}

impl Consistency {
    pub fn to_json(&self) -> serde_json::Value {
        let record = ConsistencyRecord {
            kind: CONSISTENCY.to_owned(),
            path: print_path(&self.path),
            earlier: self.earlier.clone(),
            later: self.later.clone(),
        };
        // INVARIANT: as above.
        serde_json::to_value(record).unwrap_or_default()
    }

    /// # Errors
    /// [`ProofError::TooLong`] and [`ProofError::Form`].
    pub fn read(json: &[u8]) -> Result<Self, ProofError> {
        let record: ConsistencyRecord = read(json)?;
        if record.kind != CONSISTENCY {
            return Err(ProofError::Form);
        }
        let path = read_path(&record.path)?;
        Ok(Self { path, earlier: record.earlier, later: record.later })
    }

    /// # Errors
    /// [`ProofError`].
    pub fn verify(&self, key: &VerifierKey) -> Result<(Checkpoint, Checkpoint), ProofError> {
        let (earlier, _) = Checkpoint::open(self.earlier.as_bytes(), key)?;
        let (later, _) = Checkpoint::open(self.later.as_bytes(), key)?;
        if !is_consistent((earlier.size, earlier.root), (later.size, later.root), &self.path) {
            return Err(ProofError::NotConsistent);
        }
        Ok((earlier, later))
    }
}

fn read<T: for<'a> Deserialize<'a>>(json: &[u8]) -> Result<T, ProofError> {
    if json.len() > MAX_PROOF_BYTES {
        return Err(ProofError::TooLong);
    }
    serde_json::from_slice(json).map_err(|_| ProofError::Form)
}

fn print_path(path: &[Hash]) -> Vec<String> {
    path.iter().map(|hash| STANDARD.encode(hash)).collect()
}

fn read_path(path: &[String]) -> Result<Vec<Hash>, ProofError> {
    if path.len() > MAX_PATH {
        return Err(ProofError::Form);
    }
    let hash = |text: &String| STANDARD.decode(text).ok()?.try_into().ok();
    path.iter().map(|text| hash(text).ok_or(ProofError::Form)).collect()
}
