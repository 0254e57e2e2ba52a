//! A log that proves itself. Leaves are canonical JSON; a Merkle tree over them is kept as static tiles; a signed
//! checkpoint says how large the tree is and what its root is; and anybody who has the log's public key can tell, offline,
//! whether a leaf was edited, deleted or cut off, or whether two people were shown different logs.
//!
//! The core is pure: hashing, proofs, notes and the form of leaves. [`LogDir`], [`publish`] and [`verify`] are a thin
//! shell over files. Nothing here asks for the time or for randomness.
//!
//! Spec: RFC 9162, section 2.1 (the tree); RFC 8785 (the leaves); C2SP signed-note, tlog-checkpoint, tlog-tiles and
//! tlog-cosignature (what lies in the directory).

mod canonical;
mod checkpoint;
mod directory;
mod leaf;
mod merkle;
mod note;
mod proof;
mod publish;
mod tiles;
mod verify;
mod witness;

#[cfg(test)]
mod tests;

pub use canonical::{MAX_DEPTH, NotCanonical, Value};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use directory::{LogDir, MAX_CHECKPOINT_BYTES, ReadError};
pub use leaf::{Commitment, Kind, Leaf, LeafError, MAX_LEAF_BYTES, SALT_BYTES, Secret};
pub use merkle::{
    Hash, MAX_PATH, Nodes, consistency_proof, empty_root, inclusion_proof, is_consistent, is_included,
    leaf_hash, node_hash, root_of,
};
pub use note::{
    KeyError, KeyKind, MAX_NOTE_BYTES, MAX_SIGNATURES, Note, NoteError, Signature, SignatureError,
    SigningKey, VerifierKey,
};
pub use proof::{Consistency, Inclusion, MAX_PROOF_BYTES, ProofError};
pub use publish::{
    CosignError, Disk, Leaves, LeavesError, PublishError, Published, publish, publish_cosigned,
};
pub use tiles::{TILE_WIDTH, Tile, Tree};
pub use verify::{Check, Fault, MAX_FAULTS, Report, verify};
pub use witness::{Cosignature, Seen, Witness, WitnessError, attach};
