//! A disk in memory below SQLite that fails, fills up, rots and loses power as a seed says.
//!
//! [`Disk::new`] makes a directory; whatever SQLite opens below it lives in memory, everything else is on the real
//! disk as ever. The shim is the default VFS of the process, so that code which opens a path needs no change. A
//! disk remembers what was written since each file's last successful sync: [`Disk::restart`] after a power cut keeps
//! what was synced, and of the rest what the seed chooses: none, all, the first part, some sectors, or torn ones.
//!
//! ```
//! use farthing_faultdisk::{Crash, Disk, Fault, Kind};
//!
//! let disk = Disk::new(7);
//! let open = || rusqlite::Connection::open(disk.path("a.db"));
//! let connection = open()?;
//! connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n); INSERT INTO t VALUES (1)")?;
//! disk.inject(Fault::sync_fails().on(Kind::Log).after(2));
//! disk.inject(Fault::power_cut().after(40));
//! while connection.execute("INSERT INTO t VALUES (2)", []).is_ok() {}
//! drop(connection); // Changes nothing if the power is off.
//! disk.restart(Crash::Power);
//! disk.heal();
//! let rows: u32 = open()?.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?;
//! assert!(rows >= 1);
//! # Ok::<(), rusqlite::Error>(())
//! ```
//!
//! The same operations on the same seed give the same disk: chance is drawn from the seed and from what is counted,
//! never from how threads happen to run. Files that code makes without SQLite (a lock file) are on the real disk,
//! in the same directory.

mod disk;
mod rng;
mod vfs;

pub use disk::{Counts, Crash, Disk, Fault, Kind, SECTOR};
pub use rng::Rng;
