use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// `frth`: what we write into the header of our files, so that no other program's file is taken for ours.
const APPLICATION_ID: i32 = 0x6672_7468;

/// How the schema came to be. The position in the list plus one is the version; what is here never changes,
/// later versions append.
pub(crate) const MIGRATIONS: &[&str] = &[
    include_str!("schema/1.sql"),
    include_str!("schema/2.sql"),
    include_str!("schema/3.sql"),
    include_str!("schema/4.sql"),
    include_str!("schema/5.sql"),
];

/// After how many pages in the log the writer moves them into the file: 32 MiB. Hot pages are written once for
/// many groups, and a restart has this much to read again.
pub(crate) const CHECKPOINT_PAGES: u32 = 8192;

/// How much of a log is written again at a time.
const REWRITE_CHUNK: usize = 1 << 20;

/// To what the log file is cut after it has grown beyond, in bytes.
const LOG_SIZE_LIMIT: u32 = 64 << 20;

/// How long a connection waits for another one. Only the short moments of opening and closing ever need it.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The page caches, in KiB. Keys are random, so that the writer touches index pages all over.
const WRITER_CACHE_KIB: u32 = 64 << 10;
const READER_CACHE_KIB: u32 = 8 << 10;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("another process has {0} open for writing")]
    InUse(PathBuf),
    #[error("{path} has schema {found}, and this version knows {known} at most")]
    Newer { path: PathBuf, found: i64, known: i64 },
    #[error("{path} has schema {found}, and is to be opened for writing once so that it becomes {known}")]
    Older { path: PathBuf, found: i64, known: i64 },
    #[error("{0} is a database, but not ours")]
    Foreign(PathBuf),
    #[error("{path} cannot be locked: {source}")]
    Lock { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be made durable: {source}")]
    Log { path: PathBuf, source: std::io::Error },
    #[error("no thread for the store: {0}")]
    Thread(std::io::Error),
    #[error("{path} cannot be opened: {source}")]
    Sqlite { path: PathBuf, source: rusqlite::Error },
}

/// Makes sure that one process writes: SQLite itself would let several take turns, and each would keep balances
/// and exposure in memory that the others change. The operating system takes the lock back if the process dies.
pub(crate) fn lock(path: &Path) -> Result<WriteLock, OpenError> {
    let lock_path = with_suffix(path, "-lock");
    let refuse = |source| OpenError::Lock { path: lock_path.clone(), source };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&lock_path)
        .map_err(refuse)?;
    match file.try_lock() {
        Ok(()) => Ok(WriteLock(file)),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(refuse(source)),
    }
}

/// The right to write to a store.
#[derive(Debug)]
pub(crate) struct WriteLock(File);

impl Drop for WriteLock {
    /// Closing is not enough: a child that was forked a moment ago shares the file until it runs its own program.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// SQLite's write-ahead log of this file.
pub(crate) fn log_path(path: &Path) -> PathBuf {
    with_suffix(path, "-wal")
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(crate) fn open_writer(path: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    rewrite_log(path).map_err(|source| OpenError::Log { path: log_path(path), source })?;
    let mut connection = open(path, flags).map_err(sqlite)?;
    // Nobody is told what this file is before it is ours, and nothing is written to another program's.
    version(path, &connection)?;
    set_up_writer(&connection).map_err(sqlite)?;
    // What the log has is answered from here on, so it must be on the disk, whatever became of its last sync. If
    // somebody reads an older state just now, the log stays, which `rewrite_log` has made durable.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(sqlite)?;
    begin_log(&connection).map_err(sqlite)?;
    migrate(path, &mut connection)?;
    Ok(connection)
}

/// Begins the emptied log anew with a commit that changes nothing. Its sync covers the emptying, and the log's new
/// salt fits no older frame.
pub(crate) fn begin_log(connection: &Connection) -> rusqlite::Result<()> {
    // Setting it writes the page that has it, also if it was so before.
    connection.pragma_update(None, "application_id", APPLICATION_ID)
}

/// Writes what a killed process left in the log once more, and syncs it.
///
/// After a sync that failed the operating system may go on showing what the disk does not have, and take it for
/// written, so that no sync tries again. Writing the same bytes in place makes it try.
fn rewrite_log(path: &Path) -> std::io::Result<()> {
    let mut log = match OpenOptions::new().read(true).write(true).open(log_path(path)) {
        Ok(log) => log,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut chunk = vec![0; REWRITE_CHUNK];
    let mut done = 0u64;
    loop {
        let len = log.read(&mut chunk)?;
        if len == 0 {
            return log.sync_all();
        }
        log.seek(SeekFrom::Start(done))?;
        log.write_all(chunk.get(..len).unwrap_or_default())?;
        done += len as u64;
    }
}

/// A connection that cannot write. Refuses what this version cannot read.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(sqlite)?;
    connection.pragma_update(None, "cache_size", -i64::from(READER_CACHE_KIB)).map_err(sqlite)?;
    let found = version(path, &connection)?;
    let known = known_version();
    if found < known {
        return Err(OpenError::Older { path: path.to_owned(), found, known });
    }
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    // Each connection has one thread, so SQLite need not lock it.
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

fn set_up_writer(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs the log at each COMMIT: what was answered survives a power cut, not only a crash of ours.
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Erased bodies are overwritten, not only forgotten.
    connection.pragma_update(None, "secure_delete", "ON")?;
    // The writer does it itself, after it has answered.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_SIZE_LIMIT)?;
    connection.pragma_update(None, "cache_size", -i64::from(WRITER_CACHE_KIB))?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

fn known_version() -> i64 {
    MIGRATIONS.len().try_into().unwrap_or(i64::MAX)
}

/// The schema's version; zero for a file with nothing in it.
pub(crate) fn version(path: &Path, connection: &Connection) -> Result<i64, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sqlite);
    let found = pragma("user_version")?;
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(sqlite)?;
    let ours = pragma("application_id")? == i64::from(APPLICATION_ID);
    if !ours && (found != 0 || tables != 0) {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    if found > known_version() {
        return Err(OpenError::Newer { path: path.to_owned(), found, known: known_version() });
    }
    Ok(found)
}

fn migrate(path: &Path, connection: &mut Connection) -> Result<(), OpenError> {
    let found = version(path, connection)?;
    let sqlite = |source| OpenError::Sqlite { path: path.to_owned(), source };
    let done = usize::try_from(found).unwrap_or(0);
    for (version, migration) in (1i64..).zip(MIGRATIONS).skip(done) {
        // One transaction each: a crash leaves the old version whole.
        let transaction = connection.transaction().map_err(sqlite)?;
        transaction.execute_batch(migration).map_err(sqlite)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(sqlite)?;
        transaction.pragma_update(None, "user_version", version).map_err(sqlite)?;
        transaction.commit().map_err(sqlite)?;
    }
    Ok(())
}
