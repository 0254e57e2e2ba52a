//! A log's directory, as it is read: whatever lies there may be anybody's, so that nothing is read without a bound.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::leaf::MAX_LEAF_BYTES;
use crate::merkle::{Hash, Nodes, root_of};
use crate::note::MAX_NOTE_BYTES;
use crate::tiles::{TILE_HEIGHT, TILE_WIDTH, Tile};

/// How long a checkpoint may be.
pub const MAX_CHECKPOINT_BYTES: usize = MAX_NOTE_BYTES;
/// How long an entry bundle may be: each entry has its length in two bytes.
const MAX_BUNDLE_BYTES: usize = TILE_WIDTH * (2 + MAX_LEAF_BYTES);
/// The name of the checkpoint's file.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// How many tiles a reader remembers.
const MAX_CACHED_TILES: usize = 64;

/// Why a part of a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("{0} is missing")]
    Missing(String),
    #[error("{0} is damaged")]
    Damaged(String),
    #[error("{0} cannot be read: {1}")]
    Io(String, io::Error),
}

/// A directory in the layout of C2SP tlog-tiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDir(PathBuf);

impl LogDir {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The checkpoint's bytes; `None` if nothing was published.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn checkpoint(&self) -> Result<Option<Vec<u8>>, ReadError> {
        match self.bytes(CHECKPOINT, MAX_CHECKPOINT_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ReadError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The hashes of a tile.
    ///
    /// # Errors
    /// [`ReadError`]; [`ReadError::Damaged`] if the file is not exactly as long as the tile is wide.
    pub fn tile(&self, tile: &Tile) -> Result<Vec<Hash>, ReadError> {
        let (found, bytes) = self.or_full(tile, TILE_WIDTH * 32)?;
        if bytes.len() != found.width * 32 {
            return Err(ReadError::Damaged(found.path()));
        }
        let mut hashes: Vec<Hash> = bytes.chunks_exact(32).filter_map(|hash| hash.try_into().ok()).collect();
        hashes.truncate(tile.width);
        Ok(hashes)
    }

    /// The entries of a bundle that can be told apart, and whether these are all.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(crate) fn entries(&self, tile: &Tile) -> Result<(Vec<Vec<u8>>, bool), ReadError> {
        let (found, bytes) = self.or_full(tile, MAX_BUNDLE_BYTES)?;
        let mut entries = Vec::new();
        let mut rest = &bytes[..];
        // Spec: C2SP tlog-tiles, "Log entries": each with its length as a big-endian uint16 before it.
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some((entry, after)) = after.split_at_checked(length) else { break };
            if entries.len() == found.width {
                break;
            }
            entries.push(entry.to_vec());
            rest = after;
        }
        let is_whole = rest.is_empty() && entries.len() == found.width;
        entries.truncate(tile.width);
        Ok((entries, is_whole))
    }

    /// One entry of a log of `size`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn entry(&self, index: u64, size: u64) -> Result<Vec<u8>, ReadError> {
        let width = TILE_WIDTH as u64;
        let Some(bundle) = Tile::entries(index / width, size) else {
            return Err(ReadError::Missing(format!("entry {index}")));
        };
        let at = usize::try_from(index % width).unwrap_or(TILE_WIDTH);
        let (entries, _) = self.entries(&bundle)?;
        entries.into_iter().nth(at).ok_or_else(|| ReadError::Damaged(bundle.path()))
    }

    /// A partial tile may be gone once the full one is there.
    ///
    /// Spec: C2SP tlog-tiles, "Partial Tiles".
    fn or_full(&self, tile: &Tile, most: usize) -> Result<(Tile, Vec<u8>), ReadError> {
        match self.bytes(&tile.path(), most) {
            Ok(bytes) => Ok((*tile, bytes)),
            Err(ReadError::Missing(name)) => match self.bytes(&tile.full().path(), most) {
                Ok(bytes) => Ok((tile.full(), bytes)),
                Err(ReadError::Missing(_)) => Err(ReadError::Missing(name)),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn bytes(&self, name: &str, most: usize) -> Result<Vec<u8>, ReadError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::Missing(name.to_owned()),
            _ => ReadError::Io(name.to_owned(), error),
        };
        let path = self.0.join(name);
        // What is no file, a pipe say, could be read without an end.
        if !std::fs::metadata(&path).map_err(failed)?.is_file() {
            return Err(ReadError::Damaged(name.to_owned()));
        }
        let mut bytes = Vec::new();
        let file = File::open(&path).map_err(failed)?;
        file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > most { Err(ReadError::Damaged(name.to_owned())) } else { Ok(bytes) }
    }

    /// A reader of the hashes of a published tree.
    pub fn nodes(&self, size: u64) -> TileNodes<'_> {
        TileNodes { dir: self, size, cache: HashMap::new() }
    }
}

/// The hashes of a tree of one size, from its tiles. What they are worth is what the root says that they lead to.
#[derive(Debug)]
pub struct TileNodes<'a> {
    dir: &'a LogDir,
    size: u64,
    cache: HashMap<(u32, u64), Vec<Hash>>,
}

impl Nodes for TileNodes<'_> {
    type Error = ReadError;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, ReadError> {
        let level = height / TILE_HEIGHT;
        let within = height % TILE_HEIGHT;
        let first = index << within;
        let (tile, at) = (first / TILE_WIDTH as u64, first % TILE_WIDTH as u64);
        let name = Tile::of(level, tile, self.size)
            .ok_or_else(|| ReadError::Missing(format!("tile/{level}/{tile}")))?;
        if self.cache.len() > MAX_CACHED_TILES {
            self.cache.clear();
        }
        let hashes = match self.cache.entry((level, tile)) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(empty) => empty.insert(self.dir.tile(&name)?),
        };
        let from = usize::try_from(at).unwrap_or(TILE_WIDTH);
        let wanted = hashes.get(from..from + (1 << within)).ok_or(ReadError::Missing(name.path()))?;
        Ok(root_of(wanted))
    }
}
