//! Copies of a store that are known to be good: taken while it runs, and put in its place again.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farthing_engine::StoreError;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::check::{Checked, check};
use crate::schema::{self, OpenError, log_path, with_suffix};

/// How many pages are copied at a time: a mebibyte.
const PAGES_A_STEP: i32 = 256;

/// How often, and how long each time, a copy waits for who has the target locked.
const BUSY_TRIES: u32 = 200;
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// The most stores that were put aside beside each other.
const MAX_ASIDE: u32 = 1000;

/// Why there is no backup, or nothing was restored. Whatever it is: no store and no backup that was there has changed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("{0} is there already")]
    Exists(PathBuf),
    #[error("{0} is in the way: another backup runs, or one was cut short and left it")]
    InTheWay(PathBuf),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be copied: {source}")]
    Copy { path: PathBuf, source: rusqlite::Error },
    #[error("the copy cannot be checked: {0}")]
    Check(#[from] StoreError),
    #[error("the copy is not good: {}", .0.join("; "))]
    Wrong(Vec<String>),
}

/// What is being done, of how much how much is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Copying { pages: u64, of: u64 },
    Checking { payments: u64, of: u64 },
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    pub checked: Checked,
    /// Where the store is now that was there before.
    pub replaced: Option<PathBuf>,
}

/// Copies a store, also one that another process writes, to a file that must not be there yet.
///
/// The copy is the store at one moment: that of the call. The writer goes on meanwhile, and its log grows until the
/// copy is done. The file has its name only once it is whole, checked and synced.
pub fn back_up(store: &Path, to: &Path, progress: &mut dyn FnMut(Stage)) -> Result<Checked, BackupError> {
    if to.try_exists().map_err(io(to))? {
        return Err(BackupError::Exists(to.to_owned()));
    }
    let source = schema::open_reader(store)?;
    let part = Part::make(with_suffix(to, ".part"))?;
    copy(&source, store, &part.path, progress)?;
    let checked = checked(&part.path, progress)?;
    part.link(to)?;
    Ok(checked)
}

/// Puts a copy in the place of a store that nobody writes, once the copy is known to be good.
///
/// A store that is there is replaced only if that is asked for, and is then kept beside it. A copy with an older schema
/// is brought up to date first.
pub fn restore(
    backup: &Path,
    store: &Path,
    replace: bool,
    progress: &mut dyn FnMut(Stage),
) -> Result<Restored, BackupError> {
    let source = open_any(backup)?;
    let _lock = schema::lock(store)?;
    let is_there = store.try_exists().map_err(io(store))?;
    if is_there && !replace {
        return Err(BackupError::Exists(store.to_owned()));
    }
    let part = Part::make(with_suffix(store, ".restoring"))?;
    copy(&source, backup, &part.path, progress)?;
    let migrated = schema::open_writer(&part.path)?;
    one_file(&migrated).map_err(|source| BackupError::Copy { path: part.path.clone(), source })?;
    drop(migrated);
    let checked = checked(&part.path, progress)?;
    let replaced = if is_there { Some(put_aside(store)?) } else { None };
    std::fs::rename(&part.path, store).map_err(io(store))?;
    sync_directory(store)?;
    Ok(Restored { checked, replaced })
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> BackupError {
    let path = path.to_owned();
    |source| BackupError::Io { path, source }
}

/// A file of ours under a name that it does not keep. If nothing becomes of it, it is removed.
struct Part {
    path: PathBuf,
}

impl Part {
    fn make(path: PathBuf) -> Result<Self, BackupError> {
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => Ok(Self { path }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(BackupError::InTheWay(path)),
            Err(error) => Err(io(&path)(error)),
        }
    }

    /// Gives the file its name, unless somebody else took that meanwhile.
    fn link(self, to: &Path) -> Result<(), BackupError> {
        match std::fs::hard_link(&self.path, to) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(BackupError::Exists(to.to_owned()));
            }
            // A file system without links: a moment in which somebody else's file could be replaced.
            Err(_) if !to.try_exists().map_err(io(to))? => {
                std::fs::rename(&self.path, to).map_err(io(to))?;
            }
            Err(error) => return Err(io(to)(error)),
        }
        sync_directory(to)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let _ = std::fs::remove_file(with_suffix(&self.path, suffix));
        }
    }
}

/// Any store of ours, whatever its schema.
fn open_any(path: &Path) -> Result<Connection, BackupError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    schema::version(path, &connection)?;
    Ok(connection)
}

/// Copies every page of one moment, and syncs them.
fn copy(
    source: &Connection,
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(Stage),
) -> Result<(), BackupError> {
    let failed = |source| BackupError::Copy { path: from.to_owned(), source };
    let mut target = Connection::open(to).map_err(failed)?;
    // Half a copy is thrown away, so it needs no journal of its own.
    target.pragma_update(None, "journal_mode", "OFF").map_err(failed)?;
    target.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    // A view of one moment: otherwise each commit of the writer would make the copy begin again.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema").map_err(failed)?;
    let mut tries = 0;
    {
        let backup = Backup::new(source, &mut target).map_err(failed)?;
        loop {
            let step = backup.step(PAGES_A_STEP).map_err(failed)?;
            let pages = backup.progress();
            let of = u64::try_from(pages.pagecount).unwrap_or(0);
            let left = u64::try_from(pages.remaining).unwrap_or(0);
            progress(Stage::Copying { pages: of.saturating_sub(left), of });
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                _ if tries < BUSY_TRIES => {
                    tries += 1;
                    std::thread::sleep(BUSY_WAIT);
                }
                _ => return Err(failed(busy())),
            }
        }
    }
    source.execute_batch("COMMIT").map_err(failed)?;
    one_file(&target).map_err(failed)?;
    drop(target);
    File::open(to).and_then(|file| file.sync_all()).map_err(io(to))
}

fn busy() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), None)
}

/// Everything in one file, without a log beside it.
fn one_file(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "DELETE")
}

fn checked(path: &Path, progress: &mut dyn FnMut(Stage)) -> Result<Checked, BackupError> {
    let connection = schema::open_reader(path)?;
    let mut told = |payments, of| progress(Stage::Checking { payments, of });
    let checked = check(&connection, &mut told)?;
    if checked.problems.is_empty() { Ok(checked) } else { Err(BackupError::Wrong(checked.problems)) }
}

/// Gives the store another name, log and all. Its own name stays until the new one is put there.
fn put_aside(store: &Path) -> Result<PathBuf, BackupError> {
    // What is in its log is moved into the file. If it cannot be read any more, nothing touches it, and the log goes
    // along as it is.
    if open_any(store).is_ok()
        && let Ok(whole) = schema::open_writer(store)
    {
        let _ = one_file(&whole);
    }
    let aside = (1..=MAX_ASIDE)
        .map(|n| with_suffix(store, &format!(".replaced-{n}")))
        .find(|path| !path.exists())
        .ok_or_else(|| BackupError::InTheWay(with_suffix(store, ".replaced-1")))?;
    std::fs::hard_link(store, &aside).map_err(io(&aside))?;
    // A log of the old store must never meet the new one.
    let log = log_path(store);
    if log.try_exists().map_err(io(&log))? {
        std::fs::rename(&log, log_path(&aside)).map_err(io(&log))?;
    }
    let index = with_suffix(store, "-shm");
    if index.try_exists().map_err(io(&index))? {
        std::fs::remove_file(&index).map_err(io(&index))?;
    }
    sync_directory(store)?;
    Ok(aside)
}

/// Makes the names in a file's directory durable.
fn sync_directory(file: &Path) -> Result<(), BackupError> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io(directory))
}
