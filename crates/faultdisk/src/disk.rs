//! The disk itself: files, what of them is durable, and what goes wrong. No SQLite and nothing unsafe in here.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;

use crate::rng::Rng;
use crate::vfs;

/// The unit in which a real disk writes: what a power cut keeps or loses as a whole, unless it tears it.
pub const SECTOR: usize = 512;

/// What a file is to SQLite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Database,
    /// The write-ahead log.
    Log,
    /// A rollback journal.
    Journal,
    Other,
}

/// How a run of the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The process dies; the operating system lives, and keeps what was written.
    Process,
    /// The power goes: of what was not synced the seed decides.
    Power,
}

/// Something that goes wrong: the operations of a kind that pass first, and how many fail then.
#[derive(Debug, Clone)]
pub struct Fault {
    what: What,
    on: Option<Kind>,
    after: u64,
    times: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Write,
    Sync { sticky: bool },
    Read,
    ShortRead,
    FlipBit,
    PowerCut,
}

impl Fault {
    fn new(what: What) -> Self {
        Self { what, on: None, after: 0, times: 1 }
    }

    /// A write fails (EIO); the seed decides how much of it was done.
    pub fn write_fails() -> Self {
        Self::new(What::Write)
    }

    /// A sync fails, and what it should have made durable is lost: the operating system takes it for written, no
    /// later sync tries again, and reading shows what the disk really has.
    pub fn sync_fails() -> Self {
        Self::new(What::Sync { sticky: false })
    }

    /// The same, but reading goes on to show what was lost, until the power goes.
    pub fn sync_fails_unseen() -> Self {
        Self::new(What::Sync { sticky: true })
    }

    /// A read fails (EIO).
    pub fn read_fails() -> Self {
        Self::new(What::Read)
    }

    /// A read ends early, as at the end of the file.
    pub fn short_read() -> Self {
        Self::new(What::ShortRead)
    }

    /// A read returns one bit that is wrong. The file keeps the right one; see [`Disk::flip`] for one that rots.
    pub fn bit_flips() -> Self {
        Self::new(What::FlipBit)
    }

    /// The power goes at an operation that would change something. It and all later ones fail until
    /// [`Disk::restart`].
    pub fn power_cut() -> Self {
        Self::new(What::PowerCut)
    }

    /// Only files of this kind are concerned; else all are.
    #[must_use]
    pub fn on(self, kind: Kind) -> Self {
        Self { on: Some(kind), ..self }
    }

    /// So many operations pass first.
    #[must_use]
    pub fn after(self, operations: u64) -> Self {
        Self { after: operations, ..self }
    }

    /// Then so many fail (one, if not said).
    #[must_use]
    pub fn times(self, operations: u64) -> Self {
        Self { times: operations, ..self }
    }

    /// And none works any more until [`Disk::heal`].
    #[must_use]
    pub fn for_good(self) -> Self {
        self.times(u64::MAX)
    }
}

/// What the disk was asked to do since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
    pub syncs: u64,
    /// Writes, syncs, truncations and deletions: the moments at which a power cut makes a difference.
    pub changes: u64,
    pub bytes_written: u64,
}

/// A directory whose SQLite files live in memory. Dropping it forgets them.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    directory: TempDir,
}

impl Disk {
    /// # Panics
    /// If there is no place for a temporary directory.
    #[allow(clippy::expect_used)]
    pub fn new(seed: u64) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().canonicalize().expect("a directory that was just made");
        let shared = Arc::new(Shared { root, state: Mutex::new(State { seed, ..State::default() }) });
        vfs::mount(&shared);
        Self { shared, directory }
    }

    /// Where a file of this name is for whoever opens it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.shared.root.join(name)
    }

    /// The directory; what is in it without SQLite is real.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn inject(&self, fault: Fault) {
        self.shared.state().faults.push(fault);
    }

    /// After so many more bytes of growth the disk is full.
    pub fn fill_after(&self, bytes: u64) {
        let mut state = self.shared.state();
        state.capacity = Some(state.used().saturating_add(bytes));
    }

    /// Nothing goes wrong any more. What was lost or flipped stays so, and the power stays off if it is.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.faults.clear();
        state.capacity = None;
    }

    /// Cuts the power now: every operation fails until [`Disk::restart`], and changes nothing.
    pub fn cut(&self) {
        self.shared.state().off = true;
    }

    pub fn is_cut(&self) -> bool {
        self.shared.state().off
    }

    /// What the next program finds. Whoever has files open from before can do nothing with them any more.
    pub fn restart(&self, crash: Crash) {
        self.shared.state().restart(crash);
    }

    pub fn counts(&self) -> Counts {
        self.shared.state().counts
    }

    /// The bytes of a file as a program reads them.
    pub fn image(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.shared.state();
        state.file(state.names.get(name)?.inode).map(|file| file.current.clone())
    }

    /// Makes or replaces a file, durably.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.shared.state();
        let inode = state.create(name);
        if let Some(named) = state.names.get_mut(name) {
            named.durable = true;
        }
        if let Some(file) = state.files.get_mut(&inode) {
            *file = File { current: bytes.to_vec(), durable: bytes.to_vec(), ..File::default() };
        }
    }

    /// One bit of a file rots. Whether there is such a bit.
    pub fn flip(&self, name: &str, offset: usize, bit: u8) -> bool {
        let mut state = self.shared.state();
        let Some(inode) = state.names.get(name).map(|named| named.inode) else { return false };
        let Some(file) = state.files.get_mut(&inode) else { return false };
        let mask = 1 << (bit % 8);
        if let Some(byte) = file.durable.get_mut(offset) {
            *byte ^= mask;
        }
        file.current.get_mut(offset).map(|byte| *byte ^= mask).is_some()
    }
}

/// What the disk and the files that are open share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    /// EIO.
    Io,
    /// ENOSPC.
    Full,
    /// Fewer bytes were there than were asked for; the rest is zeros.
    Short,
    Busy,
    Missing,
}

/// One file that is open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handle {
    inode: u64,
    id: u64,
    epoch: u64,
    kind: Kind,
}

/// Where a handle of a database stands, as SQLite numbers its locks.
pub(crate) type Level = u8;
pub(crate) const SHARED: Level = 1;
pub(crate) const RESERVED: Level = 2;
const PENDING: Level = 3;
pub(crate) const EXCLUSIVE: Level = 4;

#[derive(Debug, Default)]
pub(crate) struct State {
    seed: u64,
    /// Counts restarts; a handle of an earlier one is dead.
    epoch: u64,
    off: bool,
    names: BTreeMap<String, Named>,
    /// Names that were deleted without a sync of the directory: they may be there again after a power cut.
    ghosts: BTreeMap<String, u64>,
    files: BTreeMap<u64, File>,
    next_id: u64,
    faults: Vec<Fault>,
    capacity: Option<u64>,
    counts: Counts,
}

#[derive(Debug, Clone, Copy)]
struct Named {
    inode: u64,
    /// The name itself was synced, with the directory.
    durable: bool,
}

#[derive(Debug, Default)]
struct File {
    /// What a program reads.
    current: Vec<u8>,
    /// What the disk has.
    durable: Vec<u8>,
    /// What was done since the last sync, in order.
    pending: Vec<Pending>,
    locks: HashMap<u64, Level>,
    shared_memory: Option<SharedMemory>,
}

#[derive(Debug)]
struct Pending {
    order: u64,
    change: Change,
}

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate { len: usize },
}

/// The memory that connections to one database share. Regions never move, and live as long as somebody has one.
#[derive(Debug, Default)]
struct SharedMemory {
    regions: Vec<Region>,
    /// By handle: the locks it shares and those it has alone, as bits.
    locks: HashMap<u64, (u8, u8)>,
}

pub(crate) type Region = Arc<[AtomicU64]>;

impl State {
    pub(crate) fn open(&mut self, name: &str, kind: Kind, create: bool) -> Result<Handle, Error> {
        if self.off {
            return Err(Error::Io);
        }
        let inode = match self.names.get(name) {
            Some(named) => named.inode,
            None if create => self.create(name),
            None => return Err(Error::Missing),
        };
        let id = self.fresh();
        Ok(Handle { inode, id, epoch: self.epoch, kind })
    }

    pub(crate) fn close(&mut self, handle: Handle) {
        self.unmap(handle);
        if let Some(file) = self.files.get_mut(&handle.inode) {
            file.locks.remove(&handle.id);
        }
    }

    /// Like a Unix file that is there and not empty, which is what SQLite asks for.
    pub(crate) fn exists(&self, name: &str) -> Result<bool, Error> {
        if self.off {
            return Err(Error::Io);
        }
        let file = self.names.get(name).and_then(|named| self.file(named.inode));
        Ok(file.is_some_and(|file| !file.current.is_empty()))
    }

    pub(crate) fn delete(&mut self, name: &str, sync_directory: bool) -> Result<(), Error> {
        self.change(Kind::Other)?;
        let named = self.names.remove(name).ok_or(Error::Missing)?;
        if sync_directory {
            self.sync_directory();
        } else if named.durable {
            self.ghosts.insert(name.to_owned(), named.inode);
        }
        Ok(())
    }

    pub(crate) fn read(&mut self, handle: Handle, offset: usize, out: &mut [u8]) -> Result<(), Error> {
        self.alive(handle)?;
        self.counts.reads += 1;
        if self.fires(handle.kind, |what| what == What::Read).is_some() {
            return Err(Error::Io);
        }
        let short = self.fires(handle.kind, |what| what == What::ShortRead).is_some();
        let flip = self.fires(handle.kind, |what| what == What::FlipBit).is_some();
        let mut rng = Rng::of(self.seed, self.counts.reads);
        let file = self.file(handle.inode).ok_or(Error::Io)?;
        let there = file.current.get(offset..).unwrap_or_default();
        let mut len = there.len().min(out.len());
        if short {
            len = below(&mut rng, len);
        }
        let (from_file, zeros) = out.split_at_mut(len);
        from_file.copy_from_slice(there.get(..len).unwrap_or_default());
        zeros.fill(0);
        if flip {
            let at = below(&mut rng, out.len());
            if let Some(byte) = out.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        if len < out.len() { Err(Error::Short) } else { Ok(()) }
    }

    pub(crate) fn write(&mut self, handle: Handle, offset: usize, bytes: &[u8]) -> Result<(), Error> {
        self.alive(handle)?;
        let cut = self.change(handle.kind).is_err();
        self.counts.writes += 1;
        let mut rng = Rng::of(self.seed, self.counts.changes);
        let mut result = if cut { Err(Error::Io) } else { Ok(()) };
        let mut len = bytes.len();
        if !cut && self.fires(handle.kind, |what| what == What::Write).is_some() {
            len = below(&mut rng, len + 1);
            result = Err(Error::Io);
        }
        let room = self.capacity.map(|capacity| capacity.saturating_sub(self.used()));
        let order = self.counts.changes;
        let file = self.files.get_mut(&handle.inode).ok_or(Error::Io)?;
        if let Some(room) = room {
            // Only what makes the file longer needs new room.
            let fits = file.current.len().saturating_add(usize::try_from(room).unwrap_or(usize::MAX));
            if offset.saturating_add(len) > fits {
                len = fits.saturating_sub(offset);
                result = Err(Error::Full);
            }
        }
        let done = bytes.get(..len).unwrap_or_default();
        if !done.is_empty() {
            let change = Change::Write { offset, bytes: done.to_vec() };
            change.apply(&mut file.current);
            file.pending.push(Pending { order, change });
            self.counts.bytes_written += done.len() as u64;
        }
        result
    }

    pub(crate) fn truncate(&mut self, handle: Handle, len: usize) -> Result<(), Error> {
        self.alive(handle)?;
        let done = self.change(handle.kind);
        let order = self.counts.changes;
        let file = self.files.get_mut(&handle.inode).ok_or(Error::Io)?;
        let change = Change::Truncate { len };
        change.apply(&mut file.current);
        file.pending.push(Pending { order, change });
        done
    }

    pub(crate) fn sync(&mut self, handle: Handle) -> Result<(), Error> {
        self.alive(handle)?;
        self.change(handle.kind)?;
        self.counts.syncs += 1;
        let fault = self.fires(handle.kind, |what| matches!(what, What::Sync { .. }));
        let mut rng = Rng::of(self.seed, self.counts.changes);
        let file = self.files.get_mut(&handle.inode).ok_or(Error::Io)?;
        let pending = std::mem::take(&mut file.pending);
        if let Some(fault) = fault {
            let keep = Keep::choose(&mut rng, &pending);
            keep.apply(&mut rng, pending, &mut file.durable);
            if fault != (What::Sync { sticky: true }) {
                file.current.clone_from(&file.durable);
            }
            return Err(Error::Io);
        }
        for Pending { change, .. } in pending {
            change.apply(&mut file.durable);
        }
        // With a file's first sync its directory is synced, as SQLite's own VFS does for every log and journal.
        if self.names.values().any(|named| named.inode == handle.inode && !named.durable) {
            self.sync_directory();
        }
        Ok(())
    }

    fn sync_directory(&mut self) {
        self.names.values_mut().for_each(|named| named.durable = true);
        self.ghosts.clear();
    }

    pub(crate) fn size(&self, handle: Handle) -> Result<u64, Error> {
        self.alive(handle)?;
        self.file(handle.inode).map(|file| file.current.len() as u64).ok_or(Error::Io)
    }

    pub(crate) fn lock(&mut self, handle: Handle, level: Level) -> Result<(), Error> {
        self.alive(handle)?;
        let file = self.files.get_mut(&handle.inode).ok_or(Error::Io)?;
        let own = file.locks.get(&handle.id).copied().unwrap_or(0);
        if own >= level {
            return Ok(());
        }
        let others = file.locks.iter().filter(|(id, _)| **id != handle.id).map(|(_, level)| *level);
        let highest = others.max().unwrap_or(0);
        let (allowed, reached) = match level {
            SHARED => (highest < PENDING, SHARED),
            RESERVED => (highest < RESERVED, RESERVED),
            // Who waits for the readers to leave lets no new one in.
            _ if highest == SHARED => (false, PENDING),
            _ => (highest == 0, EXCLUSIVE),
        };
        if allowed || reached == PENDING {
            file.locks.insert(handle.id, reached);
        }
        if allowed { Ok(()) } else { Err(Error::Busy) }
    }

    pub(crate) fn unlock(&mut self, handle: Handle, level: Level) {
        if handle.epoch != self.epoch {
            return;
        }
        if let Some(file) = self.files.get_mut(&handle.inode) {
            if level == 0 {
                file.locks.remove(&handle.id);
            } else {
                file.locks.insert(handle.id, level);
            }
        }
    }

    pub(crate) fn is_reserved(&self, handle: Handle) -> Result<bool, Error> {
        self.alive(handle)?;
        let file = self.file(handle.inode).ok_or(Error::Io)?;
        Ok(file.locks.values().any(|level| *level >= RESERVED))
    }

    /// A region of shared memory, made if that is asked for.
    pub(crate) fn map(
        &mut self,
        handle: Handle,
        index: usize,
        bytes: usize,
        make: bool,
    ) -> Result<Option<Region>, Error> {
        self.alive(handle)?;
        let file = self.files.get_mut(&handle.inode).ok_or(Error::Io)?;
        let memory = file.shared_memory.get_or_insert_default();
        memory.locks.entry(handle.id).or_default();
        while make && memory.regions.len() <= index {
            memory.regions.push((0..bytes / 8).map(|_| AtomicU64::new(0)).collect());
        }
        Ok(memory.regions.get(index).cloned())
    }

    /// Takes or gives back locks of the shared memory: `mask` says which, one bit each.
    pub(crate) fn lock_memory(
        &mut self,
        handle: Handle,
        mask: u8,
        exclusive: bool,
        take: bool,
    ) -> Result<(), Error> {
        self.alive(handle)?;
        let file = self.files.get_mut(&handle.inode).ok_or(Error::Io)?;
        let memory = file.shared_memory.as_mut().ok_or(Error::Io)?;
        if take {
            let conflicts = |(shared, alone): (u8, u8)| mask & (alone | if exclusive { shared } else { 0 });
            let mut others = memory.locks.iter().filter(|(id, _)| **id != handle.id);
            if others.any(|(_, locks)| conflicts(*locks) != 0) {
                return Err(Error::Busy);
            }
        }
        let (shared, alone) = memory.locks.entry(handle.id).or_default();
        match (take, exclusive) {
            (true, false) => *shared |= mask,
            (true, true) => *alone |= mask,
            (false, _) => {
                *shared &= !mask;
                *alone &= !mask;
            }
        }
        Ok(())
    }

    /// The last one to leave takes the memory along.
    pub(crate) fn unmap(&mut self, handle: Handle) {
        if handle.epoch != self.epoch {
            return;
        }
        let Some(file) = self.files.get_mut(&handle.inode) else { return };
        if let Some(memory) = &mut file.shared_memory {
            memory.locks.remove(&handle.id);
            if memory.locks.is_empty() {
                file.shared_memory = None;
            }
        }
    }

    fn create(&mut self, name: &str) -> u64 {
        let inode = self.fresh();
        self.files.insert(inode, File::default());
        self.names.insert(name.to_owned(), Named { inode, durable: false });
        inode
    }

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn file(&self, inode: u64) -> Option<&File> {
        self.files.get(&inode)
    }

    fn used(&self) -> u64 {
        let len = |named: &Named| self.file(named.inode).map_or(0, |file| file.current.len() as u64);
        self.names.values().map(len).sum()
    }

    fn alive(&self, handle: Handle) -> Result<(), Error> {
        if self.off || handle.epoch != self.epoch { Err(Error::Io) } else { Ok(()) }
    }

    /// Counts a change, at which the power may go.
    fn change(&mut self, kind: Kind) -> Result<(), Error> {
        if self.off {
            return Err(Error::Io);
        }
        self.counts.changes += 1;
        if self.fires(kind, |what| what == What::PowerCut).is_some() {
            self.off = true;
            return Err(Error::Io);
        }
        Ok(())
    }

    fn fires(&mut self, kind: Kind, concerns: impl Fn(What) -> bool) -> Option<What> {
        let mut fired = None;
        for fault in &mut self.faults {
            if !concerns(fault.what) || fault.on.is_some_and(|on| on != kind) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                fired = Some(fault.what);
            }
        }
        fired
    }

    fn restart(&mut self, crash: Crash) {
        self.epoch += 1;
        self.off = false;
        for file in self.files.values_mut() {
            file.locks.clear();
            file.shared_memory = None;
        }
        if crash == Crash::Power {
            self.lose_power();
        }
        let named: Vec<u64> = self.names.values().map(|named| named.inode).collect();
        let kept = |inode: &u64| named.contains(inode) || self.ghosts.values().any(|ghost| ghost == inode);
        self.files.retain(|inode, _| kept(inode));
    }

    fn lose_power(&mut self) {
        let mut rng = Rng::of(self.seed, u64::MAX - self.epoch);
        let all = self.files.values_mut().flat_map(|file| file.pending.iter());
        let keep = Keep::choose(&mut rng, all);
        for file in self.files.values_mut() {
            let pending = std::mem::take(&mut file.pending);
            keep.apply(&mut rng, pending, &mut file.durable);
            file.current.clone_from(&file.durable);
        }
        // A name that was never synced may be lost, and one whose deletion was not may come back.
        self.names.retain(|_, named| named.durable || rng.chance(1, 2));
        for (name, inode) in std::mem::take(&mut self.ghosts) {
            if rng.chance(1, 2) && self.files.contains_key(&inode) {
                self.names.entry(name).or_insert(Named { inode, durable: true });
            }
        }
        self.names.values_mut().for_each(|named| named.durable = true);
    }
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Truncate { len } => image.resize(*len, 0),
            Self::Write { offset, bytes } => write_at(image, *offset, bytes),
        }
    }
}

fn write_at(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    if let Some(place) = image.get_mut(offset..end) {
        place.copy_from_slice(bytes);
    }
}

/// What of the changes that were not synced reaches the disk all the same.
#[derive(Debug, Clone, Copy)]
enum Keep {
    Nothing,
    Everything,
    /// What was done before this one, and a part of it.
    Before(u64),
    /// Each sector by itself, so many times of sixteen.
    Sectors {
        of_16: u64,
        torn: bool,
    },
}

impl Keep {
    fn choose<'a>(rng: &mut Rng, pending: impl IntoIterator<Item = &'a Pending>) -> Self {
        let orders: Vec<u64> = pending.into_iter().map(|pending| pending.order).collect();
        match rng.below(8) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 | 3 => {
                let (first, last) =
                    (orders.iter().min().copied().unwrap_or(0), orders.iter().max().copied().unwrap_or(0));
                Self::Before(first + rng.below(last - first + 1))
            }
            choice => Self::Sectors { of_16: 1 + rng.below(15), torn: choice % 2 == 0 },
        }
    }

    fn apply(self, rng: &mut Rng, pending: Vec<Pending>, durable: &mut Vec<u8>) {
        for Pending { order, change } in pending {
            match self {
                Self::Nothing => {}
                Self::Everything => change.apply(durable),
                Self::Before(last) if order < last => change.apply(durable),
                Self::Before(last) if order > last => {}
                Self::Before(_) => match &change {
                    Change::Truncate { .. } => change.apply(durable),
                    Change::Write { offset, bytes } => {
                        let len = below(rng, bytes.len() + 1);
                        write_at(durable, *offset, bytes.get(..len).unwrap_or_default());
                    }
                },
                Self::Sectors { of_16, torn } => match &change {
                    Change::Truncate { .. } if rng.chance(of_16, 16) => change.apply(durable),
                    Change::Truncate { .. } => {}
                    Change::Write { offset, bytes } => {
                        keep_sectors(rng, (of_16, torn), (*offset, bytes), durable);
                    }
                },
            }
        }
    }
}

/// Writes some of the sectors, and of a torn one a part: its beginning or its end.
fn keep_sectors(
    rng: &mut Rng,
    (of_16, torn): (u64, bool),
    (offset, bytes): (usize, &[u8]),
    durable: &mut Vec<u8>,
) {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done;
        let len = (SECTOR - at % SECTOR).min(bytes.len() - done);
        let sector = bytes.get(done..done + len).unwrap_or_default();
        done += len;
        if !rng.chance(of_16, 16) {
            continue;
        }
        if torn && rng.chance(1, 8) {
            let part = below(rng, len + 1);
            let (beginning, end) = sector.split_at(part);
            if rng.chance(1, 2) {
                write_at(durable, at, beginning);
            } else {
                write_at(durable, at + part, end);
            }
        } else {
            write_at(durable, at, sector);
        }
    }
}

fn below(rng: &mut Rng, bound: usize) -> usize {
    usize::try_from(rng.below(bound as u64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn begun(fault: Option<Fault>) -> (State, Handle) {
        let mut state = State { seed: 1, ..State::default() };
        let file = state.open("a", Kind::Log, true).unwrap();
        state.write(file, 0, &[1; 1024]).unwrap();
        state.sync(file).unwrap();
        state.faults.extend(fault);
        (state, file)
    }

    fn read(state: &mut State, file: Handle) -> Vec<u8> {
        let mut out = vec![0; 1024];
        state.read(file, 0, &mut out).unwrap();
        out
    }

    /// What the disk has when the power is back.
    fn after_a_cut(mut state: State) -> Vec<u8> {
        state.restart(Crash::Power);
        let file = state.open("a", Kind::Log, false).unwrap();
        read(&mut state, file)
    }

    #[test]
    fn what_was_synced_stays_and_a_cut_chooses_of_the_rest() {
        let mut seen = [false; 3];
        for seed in 0..200 {
            let (mut state, file) = begun(None);
            state.seed = seed;
            state.write(file, 0, &[2; 1024]).unwrap();
            let found = after_a_cut(state);
            assert!(found.iter().all(|byte| [1, 2].contains(byte)));
            let new = found.iter().filter(|byte| **byte == 2).count();
            seen[match new {
                0 => 0,
                1024 => 1,
                _ => 2,
            }] = true;
        }
        assert_eq!(seen, [true; 3], "nothing, everything and a part");
        let (mut state, file) = begun(None);
        state.write(file, 0, &[2; 1024]).unwrap();
        state.restart(Crash::Process);
        assert!(state.read(file, 0, &mut [0]).is_err(), "a file of the process that died");
        let file = state.open("a", Kind::Log, false).unwrap();
        assert_eq!(read(&mut state, file), [2; 1024]);
    }

    #[test]
    fn what_a_failed_sync_lost_no_later_sync_brings_back() {
        let (mut lost, mut kept) = (0, 0);
        for seed in 0..100 {
            for (fault, unseen) in [(Fault::sync_fails(), false), (Fault::sync_fails_unseen(), true)] {
                let (mut state, file) = begun(Some(fault));
                state.seed = seed;
                state.write(file, 0, &[2; 1024]).unwrap();
                assert_eq!(state.sync(file), Err(Error::Io));
                let shown = read(&mut state, file);
                state.sync(file).unwrap();
                let found = after_a_cut(state);
                // Either the truth is shown, or all of what was written although it is not there.
                assert_eq!(shown, if unseen { vec![2; 1024] } else { found.clone() });
                if found == [2; 1024] { kept += 1 } else { lost += 1 }
            }
        }
        assert!(lost > 50 && kept > 10, "{lost} lost, {kept} kept");
    }

    #[test]
    fn a_full_disk_takes_what_needs_no_room() {
        let (mut state, file) = begun(None);
        state.capacity = Some(1024 + 100);
        assert_eq!(state.write(file, 0, &[3; 1024]), Ok(()));
        assert_eq!(state.write(file, 1024, &[3; 200]), Err(Error::Full));
        assert_eq!(state.size(file), Ok(1124));
        state.truncate(file, 0).unwrap();
        assert_eq!(state.write(file, 0, &[3; 1124]), Ok(()));
    }

    #[test]
    fn a_name_is_durable_with_its_directory() {
        let (mut back, mut gone) = (0, 0);
        for seed in 0..40 {
            let (mut state, _) = begun(None);
            state.seed = seed;
            state.delete("a", false).unwrap();
            state.restart(Crash::Power);
            if state.open("a", Kind::Log, false).is_ok() {
                back += 1
            } else {
                gone += 1
            }
            let (mut state, _) = begun(None);
            state.seed = seed;
            state.delete("a", true).unwrap();
            state.restart(Crash::Power);
            assert_eq!(state.open("a", Kind::Log, false).err(), Some(Error::Missing));
        }
        assert!(back > 5 && gone > 5, "{back} back, {gone} gone");
    }

    #[test]
    fn locks_exclude_each_other() {
        let (mut state, one) = begun(None);
        let two = state.open("a", Kind::Database, false).unwrap();
        assert_eq!(state.lock(one, SHARED), Ok(()));
        assert_eq!(state.lock(two, SHARED), Ok(()));
        assert_eq!(state.lock(one, RESERVED), Ok(()));
        assert_eq!(state.lock(two, RESERVED), Err(Error::Busy));
        assert_eq!(state.lock(one, EXCLUSIVE), Err(Error::Busy));
        state.unlock(two, 0);
        assert_eq!(state.lock(two, SHARED), Err(Error::Busy), "one waits to be alone");
        assert_eq!(state.lock(one, EXCLUSIVE), Ok(()));
        state.close(one);
        assert_eq!(state.lock(two, EXCLUSIVE), Ok(()));

        state.map(two, 0, 32, true).unwrap();
        let three = state.open("a", Kind::Database, false).unwrap();
        assert_eq!(state.lock_memory(two, 0b11, true, true), Ok(()));
        assert_eq!(state.lock_memory(three, 0b10, false, true), Err(Error::Busy));
        assert_eq!(state.lock_memory(two, 0b11, true, false), Ok(()));
        assert_eq!(state.lock_memory(three, 0b10, false, true), Ok(()));
        assert_eq!(state.lock_memory(two, 0b10, true, true), Err(Error::Busy));
        assert_eq!(state.lock_memory(two, 0b10, false, true), Ok(()));
    }
}
