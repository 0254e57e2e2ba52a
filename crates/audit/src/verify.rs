//! Whether a published log is what its key signed, and what others have seen of it. Needs no network, and changes nothing.

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::directory::{LogDir, ReadError};
use crate::leaf::{Leaf, LeafError};
use crate::merkle::{Hash, leaf_hash};
use crate::note::{SignatureError, VerifierKey};
use crate::publish::{Leaves, LeavesError};
use crate::tiles::{TILE_WIDTH, Tile, Tree};
use crate::witness::Cosignature;

/// How many faults a report lists before the search ends.
pub const MAX_FAULTS: usize = 100;

/// Something that is wrong with a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("there is no checkpoint")]
    CheckpointMissing,
    #[error("the checkpoint cannot be used: {0}")]
    CheckpointMalformed(CheckpointError),
    #[error("the checkpoint is not signed by this key")]
    CheckpointUnsigned,
    #[error("the checkpoint's signature is wrong: it was edited, or made by somebody else")]
    CheckpointForged,
    #[error("the checkpoint is of another log")]
    OtherLog,
    #[error("the witness {0} did not cosign the checkpoint")]
    WitnessMissing(String),
    #[error("the cosignature of the witness {0} is wrong")]
    WitnessForged(String),
    #[error("entries {from} to {to} are missing")]
    EntryMissing { from: u64, to: u64 },
    #[error("the bundle of the entries from {from} on does not end where it should")]
    EntryDamaged { from: u64 },
    #[error("entry {index} is not the one that was signed")]
    EntryEdited { index: u64 },
    #[error("entry {index} is no leaf: {error}")]
    EntryMalformed { index: u64, error: LeafError },
    #[error("{0} is missing")]
    TileMissing(String),
    #[error("{0} is not as long as it should be")]
    TileDamaged(String),
    #[error("{0} does not hold what was signed")]
    TileEdited(String),
    #[error("the log does not lead to the root that was signed")]
    RootMismatch,
    #[error("the log has {size} leaves, and one of {known} was signed before: the end was cut off")]
    Truncated { known: u64, size: u64 },
    #[error(
        "the log's first {size} leaves are not those of the checkpoint that is known: there are two logs"
    )]
    Fork { size: u64 },
    #[error("the checkpoint that is known cannot be used: {0}")]
    KnownMalformed(CheckpointError),
    #[error("the checkpoint that is known is not signed by this key")]
    KnownForged,
    #[error("the journal has {count} leaves, and {size} are published: the journal was set back")]
    JournalTruncated { count: u64, size: u64 },
    #[error("leaf {index} of the journal is not the one that is published")]
    JournalDiffers { index: u64 },
    #[error(transparent)]
    Journal(LeavesError),
    #[error("{0}")]
    Unreadable(String),
}

impl Fault {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CheckpointMissing => "checkpoint_missing",
            Self::CheckpointMalformed(_) => "checkpoint_malformed",
            Self::CheckpointUnsigned => "checkpoint_unsigned",
            Self::CheckpointForged => "checkpoint_forged",
            Self::OtherLog => "other_log",
            Self::WitnessMissing(_) => "witness_missing",
            Self::WitnessForged(_) => "witness_forged",
            Self::EntryMissing { .. } => "entry_missing",
            Self::EntryDamaged { .. } => "entry_damaged",
            Self::EntryEdited { .. } => "entry_edited",
            Self::EntryMalformed { .. } => "entry_malformed",
            Self::TileMissing(_) => "tile_missing",
            Self::TileDamaged(_) => "tile_damaged",
            Self::TileEdited(_) => "tile_edited",
            Self::RootMismatch => "root_mismatch",
            Self::Truncated { .. } => "truncated",
            Self::Fork { .. } => "fork",
            Self::KnownMalformed(_) => "known_checkpoint_malformed",
            Self::KnownForged => "known_checkpoint_forged",
            Self::JournalTruncated { .. } => "journal_truncated",
            Self::JournalDiffers { .. } => "journal_differs",
            Self::Journal(_) => "journal_unavailable",
            Self::Unreadable(_) => "unreadable",
        }
    }

    fn of_tile(error: ReadError) -> Self {
        match error {
            ReadError::Missing(name) => Self::TileMissing(name),
            ReadError::Damaged(name) => Self::TileDamaged(name),
            error @ ReadError::Io(..) => Self::Unreadable(error.to_string()),
        }
    }

    fn of_checkpoint(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Signature(SignatureError::Missing) => Self::CheckpointUnsigned,
            CheckpointError::Signature(SignatureError::Wrong) => Self::CheckpointForged,
            CheckpointError::Origin => Self::OtherLog,
            error => Self::CheckpointMalformed(error),
        }
    }
}

/// What a log is held against.
#[derive(Clone, Copy)]
pub struct Check<'a> {
    pub key: &'a VerifierKey,
    /// Who has to have cosigned.
    pub witnesses: &'a [VerifierKey],
    /// Checkpoints that somebody kept, as notes.
    pub known: &'a [Vec<u8>],
    /// The leaves that the log was made from, where they are at hand.
    pub leaves: Option<&'a dyn Leaves>,
}

impl std::fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Check of {}", self.key)
    }
}

/// What came of it. The log holds if there are no faults.
#[derive(Debug, Default)]
pub struct Report {
    pub checkpoint: Option<Checkpoint>,
    /// How many leaves of the journal are not published yet.
    pub unpublished: u64,
    pub faults: Vec<Fault>,
}

impl Report {
    pub fn holds(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Reads a whole log and holds it against its signature, older checkpoints, witnesses and leaves.
pub fn verify(dir: &LogDir, check: &Check<'_>) -> Report {
    let mut report = Report::default();
    let mut known = Vec::new();
    for note in check.known {
        match Checkpoint::open(note, check.key) {
            Ok((checkpoint, _)) => known.push(checkpoint),
            Err(CheckpointError::Signature(_) | CheckpointError::Origin) => {
                report.faults.push(Fault::KnownForged);
            }
            Err(error) => report.faults.push(Fault::KnownMalformed(error)),
        }
    }
    let Some(checkpoint) = open(dir, check, &mut report.faults) else { return report };
    for known in &known {
        if known.size > checkpoint.size {
            report.faults.push(Fault::Truncated { known: known.size, size: checkpoint.size });
        }
    }
    known.retain(|known| known.size <= checkpoint.size);
    if let Some(leaves) = check.leaves {
        match leaves.count() {
            Ok(count) if count < checkpoint.size => {
                report.faults.push(Fault::JournalTruncated { count, size: checkpoint.size });
            }
            Ok(count) => report.unpublished = count - checkpoint.size,
            Err(error) => report.faults.push(Fault::Journal(error)),
        }
    }
    Walk::new(dir, &checkpoint, &known, check.leaves).run(&mut report.faults);
    report.faults.truncate(MAX_FAULTS);
    report.checkpoint = Some(checkpoint);
    report
}

fn open(dir: &LogDir, check: &Check<'_>, faults: &mut Vec<Fault>) -> Option<Checkpoint> {
    let note = match dir.checkpoint() {
        Ok(Some(note)) => note,
        Ok(None) => {
            faults.push(Fault::CheckpointMissing);
            return None;
        }
        Err(error) => {
            faults.push(Fault::Unreadable(error.to_string()));
            return None;
        }
    };
    match Checkpoint::open(&note, check.key) {
        Ok((checkpoint, note)) => {
            for witness in check.witnesses {
                let name = || witness.name().to_owned();
                match Cosignature::check(&note, witness) {
                    Ok(_) => {}
                    Err(SignatureError::Missing) => faults.push(Fault::WitnessMissing(name())),
                    Err(SignatureError::Wrong) => faults.push(Fault::WitnessForged(name())),
                }
            }
            Some(checkpoint)
        }
        Err(error) => {
            faults.push(Fault::of_checkpoint(error));
            None
        }
    }
}

/// A tree that grows beside the files, and what of the files above it is not as it says.
#[derive(Clone, Default)]
struct Side {
    tree: Tree,
    /// The roots at the sizes of the checkpoints that are known.
    roots: Vec<(u64, Hash)>,
    faults: Vec<Fault>,
}

impl Side {
    fn push(&mut self, dir: &LogDir, leaf: Hash, known: &[Checkpoint]) {
        let faults = &mut self.faults;
        let done = self.tree.push(leaf, |tile, hashes| {
            faults.extend(compare(dir, tile, hashes));
            Ok::<(), std::convert::Infallible>(())
        });
        match done {
            Ok(()) => {}
            Err(never) => match never {},
        }
        let size = self.tree.size();
        if known.iter().any(|known| known.size == size) {
            self.roots.push((size, self.tree.root()));
        }
    }

    /// What is wrong at the end, with the tiles that are not full.
    fn finish(mut self, dir: &LogDir) -> Vec<Fault> {
        for (tile, hashes) in self.tree.partial() {
            self.faults.extend(compare(dir, tile, hashes));
        }
        self.faults
    }
}

/// Whether a tile holds these hashes. Those of the leaves were looked at one by one.
fn compare(dir: &LogDir, tile: Tile, hashes: &[Hash]) -> Option<Fault> {
    if tile.level == Some(0) {
        return None;
    }
    match dir.tile(&tile) {
        Ok(there) if there == hashes => None,
        Ok(_) => Some(Fault::TileEdited(tile.path())),
        Err(error) => Some(Fault::of_tile(error)),
    }
}

/// Goes through all entries once. Where an entry and its hash in the tile do not fit, both are followed: which of them was
/// edited, the signed root tells in the end.
struct Walk<'a> {
    dir: &'a LogDir,
    checkpoint: &'a Checkpoint,
    known: &'a [Checkpoint],
    /// `None` once one differed, or could not be read.
    leaves: Option<&'a dyn Leaves>,
    by_entries: Side,
    /// `None` as long as it is the same.
    by_tiles: Option<Side>,
    /// Where an entry does not fit its tile.
    differ: Vec<(u64, Tile)>,
    /// An entry and its hash are both gone, or there are too many faults: no root can be told.
    is_lost: bool,
}

impl<'a> Walk<'a> {
    fn new(
        dir: &'a LogDir,
        checkpoint: &'a Checkpoint,
        known: &'a [Checkpoint],
        leaves: Option<&'a dyn Leaves>,
    ) -> Self {
        let mut by_entries = Side::default();
        by_entries.roots.push((0, by_entries.tree.root()));
        Self {
            dir,
            checkpoint,
            known,
            leaves,
            by_entries,
            by_tiles: None,
            differ: Vec::new(),
            is_lost: false,
        }
    }

    fn run(mut self, faults: &mut Vec<Fault>) {
        let bundles = self.checkpoint.size.div_ceil(TILE_WIDTH as u64);
        for bundle in 0..bundles {
            self.bundle(bundle, faults);
            let found = faults.len() + self.by_entries.faults.len() + self.differ.len();
            // A size that is a lie is not counted through.
            self.is_lost |= found >= MAX_FAULTS;
            if self.is_lost {
                break;
            }
        }
        self.conclude(faults);
    }

    fn bundle(&mut self, index: u64, faults: &mut Vec<Fault>) {
        let size = self.checkpoint.size;
        let (Some(tile), Some(bundle)) = (Tile::of(0, index, size), Tile::entries(index, size)) else {
            return;
        };
        let hashes = self.dir.tile(&tile).unwrap_or_else(|error| {
            faults.push(Fault::of_tile(error));
            Vec::new()
        });
        let from = index * TILE_WIDTH as u64;
        let to = from + tile.width as u64 - 1;
        let entries = match self.dir.entries(&bundle) {
            Ok((entries, true)) => entries,
            Ok((entries, false)) => {
                faults.push(Fault::EntryDamaged { from: from + entries.len() as u64 });
                entries
            }
            Err(ReadError::Missing(_)) => {
                faults.push(Fault::EntryMissing { from, to });
                Vec::new()
            }
            Err(error) => {
                faults.push(Fault::Unreadable(error.to_string()));
                Vec::new()
            }
        };
        self.compare_leaves(from, &entries, faults);
        for (i, index) in (0..tile.width).zip(from..) {
            let (entry, by_tile) = (entries.get(i), hashes.get(i));
            let by_entry = entry.map(|entry| leaf_hash(entry));
            let (Some(left), Some(right)) = (by_entry.or(by_tile.copied()), by_tile.copied().or(by_entry))
            else {
                self.is_lost = true;
                return;
            };
            if left != right {
                self.by_tiles.get_or_insert_with(|| self.by_entries.clone());
                self.differ.push((index, tile));
            } else if let Some(Err(error)) = entry.map(|entry| Leaf::read(entry)) {
                faults.push(Fault::EntryMalformed { index, error });
            }
            self.by_entries.push(self.dir, left, self.known);
            if let Some(side) = &mut self.by_tiles {
                side.push(self.dir, right, self.known);
            }
        }
    }

    fn compare_leaves(&mut self, from: u64, entries: &[Vec<u8>], faults: &mut Vec<Fault>) {
        let Some(leaves) = self.leaves else { return };
        match leaves.read(from, entries.len()) {
            Ok(there) => {
                // That the journal ends earlier is said elsewhere.
                let differs = entries.iter().zip(&there).position(|(entry, leaf)| entry != leaf);
                if let Some(at) = differs {
                    faults.push(Fault::JournalDiffers { index: from + at as u64 });
                    self.leaves = None;
                }
            }
            Err(error) => {
                faults.push(Fault::Journal(error));
                self.leaves = None;
            }
        }
    }

    fn conclude(self, faults: &mut Vec<Fault>) {
        let signed = self.checkpoint.root;
        let edited = |(index, _): &(u64, Tile)| Fault::EntryEdited { index: *index };
        if self.is_lost {
            faults.extend(self.differ.iter().map(edited));
            faults.extend(self.by_entries.faults);
            return;
        }
        let side = match self.by_tiles {
            Some(tiles) if tiles.tree.root() == signed => {
                faults.extend(self.differ.iter().map(edited));
                tiles
            }
            _ if self.by_entries.tree.root() == signed => {
                let mut tiles: Vec<Fault> =
                    self.differ.iter().map(|(_, tile)| Fault::TileEdited(tile.path())).collect();
                tiles.dedup();
                faults.extend(tiles);
                self.by_entries
            }
            _ => {
                faults.extend(self.differ.iter().map(edited));
                faults.push(Fault::RootMismatch);
                self.by_entries
            }
        };
        for known in self.known {
            if side.roots.iter().any(|(size, root)| *size == known.size && *root != known.root) {
                faults.push(Fault::Fork { size: known.size });
            }
        }
        faults.extend(side.finish(self.dir));
    }
}
