//! The tree as tiles: 256 hashes of one level in a file, which never changes once it is full.
//!
//! Spec: C2SP tlog-tiles, "Merkle Tree" and "Log entries".

use crate::merkle::{Hash, empty_root, node_hash, root_of};

/// How many hashes, or entries, a full tile holds.
pub const TILE_WIDTH: usize = 256;
/// A tile's height in levels of the tree.
pub(crate) const TILE_HEIGHT: u32 = 8;

/// The name of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    /// Which level of tiles; `None` for the entries themselves.
    pub level: Option<u32>,
    pub index: u64,
    /// How many it holds, 256 if it is full.
    pub width: usize,
}

impl Tile {
    /// Where it lies below the log's directory.
    ///
    /// Spec: C2SP tlog-tiles: `tile/<L>/<N>[.p/<W>]`, with the index in groups of three digits, all but the last of
    /// which begin with an `x`.
    pub fn path(&self) -> String {
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        let level = self.level.map_or_else(|| "entries".to_owned(), |level| level.to_string());
        let partial = if self.width < TILE_WIDTH { format!(".p/{}", self.width) } else { String::new() };
        format!("tile/{level}/{}{partial}", groups.join("/"))
    }

    /// The same tile once it is full.
    #[must_use]
    pub fn full(&self) -> Self {
        Self { width: TILE_WIDTH, ..*self }
    }

    /// The tile of a tree of `size` leaves that holds a hash of `level`; `None` if the tree has none there.
    pub fn of(level: u32, index: u64, size: u64) -> Option<Self> {
        let width = width(level, index, size)?;
        Some(Self { level: Some(level), index, width })
    }

    /// The bundle of entries with that number.
    pub fn entries(index: u64, size: u64) -> Option<Self> {
        Some(Self { level: None, index, width: width(0, index, size)? })
    }
}

fn width(level: u32, index: u64, size: u64) -> Option<usize> {
    let hashes = size.checked_shr(TILE_HEIGHT.checked_mul(level)?).unwrap_or(0);
    let left = hashes.checked_sub(index.checked_mul(TILE_WIDTH as u64)?)?;
    let width = usize::try_from(left.min(TILE_WIDTH as u64)).unwrap_or(TILE_WIDTH);
    if width == 0 { None } else { Some(width) }
}

/// What has to be remembered of a tree to let it grow: its tiles that are not full yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tree {
    size: u64,
    /// From the leaves up; each has fewer hashes than a full tile.
    levels: Vec<Vec<Hash>>,
}

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    /// A tree of `size` leaves, from its tiles that are not full, from the leaves up.
    ///
    /// `None` if they are not those of a tree of that size.
    pub fn restore(size: u64, levels: Vec<Vec<Hash>>) -> Option<Self> {
        let mut rest = size;
        for level in &levels {
            if level.len() as u64 != rest % TILE_WIDTH as u64 {
                return None;
            }
            rest /= TILE_WIDTH as u64;
        }
        if rest == 0 { Some(Self { size, levels }) } else { None }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf. `full` is given every tile that is full by it: one for 256 leaves, and one of the next level for 256
    /// of these.
    ///
    /// # Errors
    /// Those of `full`; the tree is of no use after that.
    pub fn push<E>(
        &mut self,
        leaf: Hash,
        mut full: impl FnMut(Tile, &[Hash]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.size += 1;
        let mut hash = leaf;
        for level in 0.. {
            let at = usize::try_from(level).unwrap_or(usize::MAX);
            if self.levels.len() == at {
                self.levels.push(Vec::new());
            }
            self.levels[at].push(hash);
            if self.levels[at].len() < TILE_WIDTH {
                return Ok(());
            }
            let tile = std::mem::take(&mut self.levels[at]);
            // INVARIANT: a tile of this level has just become full, so the size is a multiple of what it spans.
            let index = (self.size >> (TILE_HEIGHT * (level + 1))) - 1;
            full(Tile { level: Some(level), index, width: TILE_WIDTH }, &tile)?;
            hash = root_of(&tile);
        }
        Ok(())
    }

    /// The tiles that are not full and not empty, from the leaves up.
    pub fn partial(&self) -> impl Iterator<Item = (Tile, &[Hash])> {
        (0..).zip(&self.levels).filter_map(|(level, hashes)| {
            let index = self.size.checked_shr(TILE_HEIGHT * (level + 1)).unwrap_or(0);
            let tile = Tile { level: Some(level), index, width: hashes.len() };
            if hashes.is_empty() { None } else { Some((tile, &hashes[..])) }
        })
    }

    /// The hashes of the leaves that are in no full tile.
    pub(crate) fn last_leaves(&self) -> &[Hash] {
        self.levels.first().map_or(&[], |level| &level[..])
    }

    pub fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        // From the right: what is complete to the left of it goes above it, the largest last.
        for hashes in &self.levels {
            let mut end = hashes.len();
            while end > 0 {
                let start = end & (end - 1);
                let complete = root_of(&hashes[start..end]);
                root = Some(root.map_or(complete, |right| node_hash(&complete, &right)));
                end = start;
            }
        }
        root.unwrap_or_else(empty_root)
    }
}
