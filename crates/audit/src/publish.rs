//! Brings a directory up to the leaves that are durable. It only ever grows, and may be stopped anywhere.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::directory::{CHECKPOINT, LogDir, ReadError};
use crate::leaf::MAX_LEAF_BYTES;
use crate::merkle::{Hash, leaf_hash, root_at};
use crate::note::{MAX_SIGNATURES, Note, NoteError, SignatureError, SigningKey, VerifierKey};
use crate::tiles::{TILE_WIDTH, Tile, Tree};
use crate::witness::{Cosignature, attach};

/// How many leaves are asked for at once.
const BATCH: usize = TILE_WIDTH;
/// Whoever writes to the directory holds it.
const LOCK: &str = ".lock";

/// Where the leaves are that are durable, in their order.
pub trait Leaves {
    /// # Errors
    /// [`LeavesError`].
    fn count(&self) -> Result<u64, LeavesError>;

    /// The leaves from `from` on, `most` of them or as many as there are.
    ///
    /// # Errors
    /// [`LeavesError`].
    fn read(&self, from: u64, most: usize) -> Result<Vec<Vec<u8>>, LeavesError>;
}

/// Leaves that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the leaves cannot be read: {0}")]
pub struct LeavesError(pub String);

#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("what was published cannot be gone on with: {0}; `farthing audit verify` says more")]
    Read(#[from] ReadError),
    #[error("what was published cannot be gone on with: {0}; `farthing audit verify` says more")]
    Checkpoint(#[from] CheckpointError),
    #[error("the published tiles do not lead to the published root; `farthing audit verify` says more")]
    Root,
    #[error("the journal has {count} leaves, and a log of {signed} was signed: the journal was set back")]
    Shrunk { signed: u64, count: u64 },
    #[error("leaf {index} of the journal is not the one that was published")]
    Rewritten { index: u64 },
    #[error("the journal's first {size} leaves are not those that were signed before")]
    Forked { size: u64 },
    #[error("leaf {index} is longer than a log can hold")]
    TooLong { index: u64 },
    #[error("{path} is there already with something else in it")]
    Differs { path: PathBuf },
    #[error("another process is publishing")]
    Busy,
    #[error(transparent)]
    Leaves(#[from] LeavesError),
    #[error("the log cannot be written: {0}")]
    Io(#[from] io::Error),
}

impl PublishError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read(_) | Self::Checkpoint(_) | Self::Root => "published_damaged",
            Self::Shrunk { .. } => "journal_truncated",
            Self::Rewritten { .. } => "journal_differs",
            Self::Forked { .. } => "fork",
            Self::TooLong { .. } => "leaf_too_long",
            Self::Differs { .. } => "tile_differs",
            Self::Busy => "busy",
            Self::Leaves(_) => "journal_unavailable",
            Self::Io(_) => "io",
        }
    }
}

/// What is published now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    pub checkpoint: Checkpoint,
    /// The signed note.
    pub note: String,
    /// How many leaves there were before.
    pub before: u64,
}

/// How files are written: whole or not at all.
#[derive(Default)]
pub struct Disk {
    dirs: BTreeSet<PathBuf>,
    /// Asked before each step; an error ends the work there, as a crash would. For tests.
    before: Option<Box<dyn FnMut() -> io::Result<()>>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that is asked before each step and stops where the answer is an error.
    pub fn stopping(before: impl FnMut() -> io::Result<()> + 'static) -> Self {
        Self { dirs: BTreeSet::new(), before: Some(Box::new(before)) }
    }

    fn step(&mut self) -> io::Result<()> {
        self.before.as_mut().map_or(Ok(()), |before| before())
    }

    /// Puts bytes in a new place, or finds them there.
    fn put_new(&mut self, root: &Path, name: &str, bytes: &[u8]) -> Result<(), PublishError> {
        let path = root.join(name);
        match fs::read(&path) {
            Ok(there) if there == bytes => Ok(()),
            // Spec: C2SP tlog-tiles: what was served never changes.
            Ok(_) => Err(PublishError::Differs { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.put(root, name, bytes)?),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts bytes in a place, whole and synced; its directory is synced by [`Disk::sync_dirs`].
    fn put(&mut self, root: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = root.join(name);
        let dir = path.parent().unwrap_or(root);
        self.step()?;
        fs::create_dir_all(dir)?;
        // No two processes write here at once; what a crash left is written over.
        let draft = path.with_extension("tmp");
        let mut file = File::create(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.step()?;
        fs::rename(&draft, &path)?;
        let mut dir = Some(dir);
        while let Some(above) = dir.filter(|dir| dir.starts_with(root)) {
            self.dirs.insert(above.to_owned());
            dir = above.parent();
        }
        Ok(())
    }

    /// The names of what was put are durable after this.
    fn sync_dirs(&mut self) -> io::Result<()> {
        self.step()?;
        std::mem::take(&mut self.dirs).iter().try_for_each(|dir| File::open(dir)?.sync_all())
    }
}

/// Publishes every leaf that is durable, and a checkpoint over them.
///
/// `last` is the largest checkpoint that is known to have been signed with this key, wherever it was published: nothing is
/// signed that does not begin with it, and with what the directory holds.
///
/// Spec: C2SP tlog-checkpoint, "Signatures": a log must not sign what is inconsistent with what it signed.
///
/// # Errors
/// [`PublishError`]. Whatever was published before is still there and still verifies.
pub fn publish(
    dir: &LogDir,
    key: &SigningKey,
    last: Option<&Checkpoint>,
    leaves: &dyn Leaves,
    disk: &mut Disk,
) -> Result<Published, PublishError> {
    let root = dir.path();
    fs::create_dir_all(root)?;
    let lock = File::create(root.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(PublishError::Busy),
        Err(fs::TryLockError::Error(error)) => return Err(error.into()),
    }
    let found = match dir.checkpoint()? {
        Some(note) => Some(Checkpoint::open(&note, key.verifier())?),
        None => None,
    };
    let before = found.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size);
    let mut tree = restore(dir, found.as_ref().map(|(checkpoint, _)| checkpoint))?;
    let count = leaves.count()?;
    let signed = before.max(last.map_or(0, |last| last.size));
    if count < signed {
        return Err(PublishError::Shrunk { signed, count });
    }
    if let Some(last) = last.filter(|last| last.size <= before)
        && root_at(&mut dir.nodes(before), last.size)? != last.root
    {
        return Err(PublishError::Forked { size: last.size });
    }
    let mut bundle = unfinished(&tree, leaves)?;
    if let Some((checkpoint, note)) = found.filter(|_| count == before) {
        return Ok(Published { checkpoint, note: note.to_string(), before });
    }
    let mut now_full = Vec::new();
    while tree.size() < count {
        let some = usize::try_from(count - tree.size()).unwrap_or(BATCH).min(BATCH);
        let batch = leaves.read(tree.size(), some)?;
        if batch.is_empty() {
            return Err(PublishError::Leaves(LeavesError("some are missing".to_owned())));
        }
        for leaf in batch {
            let index = tree.size();
            append(&mut bundle, &leaf, index)?;
            tree.push(leaf_hash(&leaf), |tile, hashes| {
                if tile.level == Some(0) {
                    let entries = Tile { level: None, ..tile };
                    disk.put_new(root, &entries.path(), &std::mem::take(&mut bundle))?;
                    now_full.push(entries);
                }
                now_full.push(tile);
                disk.put_new(root, &tile.path(), &hashes.concat())
            })?;
            if last.is_some_and(|last| last.size == tree.size() && last.root != tree.root()) {
                return Err(PublishError::Forked { size: tree.size() });
            }
        }
    }
    for (tile, hashes) in tree.partial() {
        if tile.level == Some(0) {
            disk.put_new(root, &Tile { level: None, ..tile }.path(), &bundle)?;
        }
        disk.put_new(root, &tile.path(), &hashes.concat())?;
    }
    disk.sync_dirs()?;
    let checkpoint = Checkpoint { origin: key.verifier().name().to_owned(), size: count, root: tree.root() };
    let note = checkpoint.sign(key).to_string();
    // INVARIANT: all that the checkpoint promises is durable.
    disk.put(root, CHECKPOINT, note.as_bytes())?;
    disk.sync_dirs()?;
    for tile in now_full {
        disk.step()?;
        remove_partial(root, &tile)?;
    }
    Ok(Published { checkpoint, note, before })
}

#[derive(Debug, thiserror::Error)]
pub enum CosignError {
    #[error("nothing was published here")]
    Nothing,
    #[error("what was published cannot be read: {0}")]
    Read(#[from] ReadError),
    #[error("what was published is not what the log's key signed: {0}")]
    Checkpoint(#[from] CheckpointError),
    #[error("what the witness gave is no note: {0}")]
    Note(#[from] NoteError),
    #[error("the witness saw another checkpoint than the one that is published; let it see this one")]
    Other,
    #[error("the witness's line does not count: {0}")]
    Signature(#[from] SignatureError),
    #[error("the checkpoint has {MAX_SIGNATURES} signatures, and holds no more")]
    Full,
    #[error("another process is publishing")]
    Busy,
    #[error("the log cannot be written: {0}")]
    Io(#[from] io::Error),
}

impl CosignError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing_published",
            Self::Read(_) | Self::Checkpoint(_) => "published_damaged",
            Self::Note(_) => "cosignature_unreadable",
            Self::Other => "other_checkpoint",
            Self::Signature(SignatureError::Missing) => "witness_missing",
            Self::Signature(SignatureError::Wrong) => "witness_forged",
            Self::Full => "checkpoint_full",
            Self::Busy => "busy",
            Self::Io(_) => "io",
        }
    }
}

/// Puts a witness's line below the checkpoint that is published, from a copy of it that the witness cosigned. Returns the
/// checkpoint, and when the witness saw it, in seconds since 1970.
///
/// # Errors
/// [`CosignError`]; what is published stays as it is.
pub fn publish_cosigned(
    dir: &LogDir,
    log: &VerifierKey,
    witness: &VerifierKey,
    cosigned: &[u8],
    disk: &mut Disk,
) -> Result<(Checkpoint, u64), CosignError> {
    let published = dir.checkpoint()?.ok_or(CosignError::Nothing)?;
    // Published by somebody, so that the directory is there to be locked.
    let lock = File::create(dir.path().join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(CosignError::Busy),
        Err(fs::TryLockError::Error(error)) => return Err(error.into()),
    }
    // It may have grown until now.
    let published = dir.checkpoint()?.unwrap_or(published);
    let (checkpoint, mut note) = Checkpoint::open(&published, log)?;
    let seen = Note::read(cosigned)?;
    if seen.text != note.text {
        return Err(CosignError::Other);
    }
    let (time, line) = Cosignature::find(&seen, witness)?;
    if !attach(&mut note, line) {
        return Err(CosignError::Full);
    }
    disk.put(dir.path(), CHECKPOINT, note.to_string().as_bytes())?;
    disk.sync_dirs()?;
    Ok((checkpoint, time))
}

/// The tree that was published, from the tiles at its right edge.
fn restore(dir: &LogDir, checkpoint: Option<&Checkpoint>) -> Result<Tree, PublishError> {
    let Some(checkpoint) = checkpoint else { return Ok(Tree::new()) };
    let mut levels = Vec::new();
    let mut hashes = checkpoint.size;
    for level in 0.. {
        if hashes == 0 {
            break;
        }
        let width = usize::try_from(hashes % TILE_WIDTH as u64).unwrap_or_default();
        let index = hashes / TILE_WIDTH as u64;
        let tile = Tile { level: Some(level), index, width };
        levels.push(if width == 0 { Vec::new() } else { dir.tile(&tile)? });
        hashes = index;
    }
    let tree = Tree::restore(checkpoint.size, levels).ok_or(PublishError::Root)?;
    if tree.root() == checkpoint.root { Ok(tree) } else { Err(PublishError::Root) }
}

/// The entries of the bundle that is not full yet, if they are still those that were published.
fn unfinished(tree: &Tree, leaves: &dyn Leaves) -> Result<Vec<u8>, PublishError> {
    let published: &[Hash] = tree.last_leaves();
    let from = tree.size() - published.len() as u64;
    let mut bundle = Vec::new();
    let mut there = leaves.read(from, published.len())?.into_iter();
    for (index, hash) in (from..).zip(published) {
        match there.next() {
            Some(leaf) if leaf_hash(&leaf) == *hash => append(&mut bundle, &leaf, index)?,
            _ => return Err(PublishError::Rewritten { index }),
        }
    }
    Ok(bundle)
}

fn append(bundle: &mut Vec<u8>, leaf: &[u8], index: u64) -> Result<(), PublishError> {
    let length = u16::try_from(leaf.len()).ok().filter(|length| usize::from(*length) <= MAX_LEAF_BYTES);
    bundle.extend_from_slice(&length.ok_or(PublishError::TooLong { index })?.to_be_bytes());
    bundle.extend_from_slice(leaf);
    Ok(())
}

/// Spec: C2SP tlog-tiles, "Partial Tiles": they may go once the full one is there.
fn remove_partial(root: &Path, full: &Tile) -> io::Result<()> {
    let mut path = root.join(full.path()).into_os_string();
    path.push(".p");
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
