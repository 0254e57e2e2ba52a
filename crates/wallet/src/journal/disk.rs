//! The journal's connection. Steps that come at once share one commit, so that a disk that is slow to sync makes them wait
//! for each other and not one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rusqlite::Connection;

use super::JournalError;
use super::tx::Tx;

/// How many steps share one commit at most. Other processes wait as long as these take.
pub(crate) const MAX_SHARED: usize = 64;

/// A connection that everybody in one process uses.
#[derive(Debug)]
pub(super) struct Disk {
    books: Mutex<Books>,
    /// A transaction ended, for whoever wants none to be open.
    ended: Condvar,
    /// How many want the connection, and do not have it yet.
    coming: AtomicUsize,
    /// How often something was undone that somebody keeps in memory.
    undone: AtomicU64,
    /// The step that has the connection put something of the books into memory.
    kept: AtomicBool,
}

#[derive(Debug)]
struct Books {
    db: Tx,
    /// How many steps are in the transaction that is open; none is open if there are none.
    steps: usize,
    /// What becomes of it.
    landing: Arc<Landing>,
}

/// What became of one transaction. Whoever waits for it waits here, and not for the connection, which others use meanwhile.
#[derive(Debug, Default)]
struct Landing {
    /// Why it was not committed, if it was not; `None` as long as it is open.
    landed: Mutex<Option<Result<(), String>>>,
    told: Condvar,
}

impl Landing {
    fn land(&self, committed: Result<(), String>) {
        *self.landed.lock().unwrap_or_else(PoisonError::into_inner) = Some(committed);
        self.told.notify_all();
    }

    fn wait(&self) -> Result<(), String> {
        let mut landed = self.landed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(landed) = landed.as_ref() {
                return landed.clone();
            }
            landed = self.told.wait(landed).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Disk {
    pub fn new(db: Connection) -> Self {
        let books = Books { db: Tx::new(db), steps: 0, landing: Arc::default() };
        Self {
            books: Mutex::new(books),
            ended: Condvar::new(),
            coming: AtomicUsize::new(0),
            undone: AtomicU64::new(0),
            kept: AtomicBool::new(false),
        }
    }

    /// Does one step, all of it or nothing, and returns when it is durable. An error undoes all of the step, and nothing
    /// of the others that share its commit.
    ///
    /// INVARIANT: whoever waits for a commit leaves somebody behind who makes it: the last one to come.
    pub fn step<T, E: From<JournalError>>(&self, work: impl FnOnce(&Tx) -> Result<T, E>) -> Result<T, E> {
        let mut books = self.come();
        if books.steps == 0 {
            books.db.begin("BEGIN IMMEDIATE").map_err(JournalError::from)?;
        }
        books.steps += 1;
        self.kept.store(false, Ordering::SeqCst);
        let done = catch_unwind(AssertUnwindSafe(|| books.one(work)));
        let is_well = matches!(done, Ok(Ok(_)));
        if !is_well {
            books.db.forget_kept();
            if self.kept.load(Ordering::SeqCst) {
                self.undone.fetch_add(1, Ordering::SeqCst);
            }
            // A panic left it open. What cannot be told apart from the others goes with them.
            if done.is_err() && books.db.execute_batch("ROLLBACK TO step; RELEASE step").is_err() {
                let _ = books.db.execute_batch("ROLLBACK");
            }
        }
        let landing = books.landing.clone();
        let ended = self.end_if_last(&mut books);
        drop(books);
        let landed = match ended {
            Some(landed) => landed,
            // Nothing of it is there to wait for.
            None if !is_well => Ok(()),
            None => landing.wait(),
        };
        match done {
            Ok(Ok(value)) => landed.map(|()| value).map_err(|why| JournalError::Undone(why).into()),
            Ok(Err(error)) => Err(error),
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Reads, and waits for no commit: what is read may be undone with a step that it was read beside. For what is asked
    /// again before anything depends on it.
    pub fn look<T, E: From<JournalError>>(&self, work: impl FnOnce(&Tx) -> Result<T, E>) -> Result<T, E> {
        let mut books = self.come();
        if books.steps == 0 {
            books.db.begin("BEGIN").map_err(JournalError::from)?;
            let done = catch_unwind(AssertUnwindSafe(|| work(&books.db)));
            // What cannot be ended is given up, so that the next transaction can begin.
            let ended = books.commit().map_err(JournalError::Undone);
            if ended.is_err() {
                books.db.forget_kept();
            }
            return match done {
                Ok(done) => done.and_then(|value| ended.map(|()| value).map_err(E::from)),
                Err(panic) => resume_unwind(panic),
            };
        }
        // It counts, so that looks without end keep nobody waiting.
        books.steps += 1;
        let done = catch_unwind(AssertUnwindSafe(|| work(&books.db)));
        // Those who wait took this for somebody who makes their commit, and are told what came of it.
        let _ = self.end_if_last(&mut books);
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Commits if nobody comes who would, or enough wait; `None` if it is left to somebody else.
    fn end_if_last(&self, books: &mut Books) -> Option<Result<(), String>> {
        if books.db.is_autocommit() {
            // SQLite itself gave up all of it, e.g. for want of room.
            let why = "another step failed, and all that it shared a commit with".to_owned();
            return Some(self.end(books, Err(why)));
        }
        if self.coming.load(Ordering::SeqCst) > 0 && books.steps < MAX_SHARED {
            return None;
        }
        let committed = books.commit();
        Some(self.end(books, committed))
    }

    /// Ends the transaction that is open, and tells those who wait for it.
    fn end(&self, books: &mut Books, committed: Result<(), String>) -> Result<(), String> {
        if committed.is_err() {
            books.db.forget_kept();
            self.undone.fetch_add(1, Ordering::SeqCst);
        }
        books.steps = 0;
        std::mem::take(&mut books.landing).land(committed.clone());
        self.ended.notify_all();
        committed
    }

    /// Uses the connection outside of any transaction.
    pub fn alone<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, JournalError> {
        let mut books = self.lock();
        while books.steps > 0 {
            books = self.ended.wait(books).unwrap_or_else(PoisonError::into_inner);
        }
        books.db.forget_kept();
        let done = work(&books.db);
        Ok(done?)
    }

    /// How often something was undone of what [`Disk::keep`] was said for.
    pub fn undone(&self) -> u64 {
        self.undone.load(Ordering::SeqCst)
    }

    /// Says that the step that has the connection keeps something of the books in memory, which is not true if it, or its
    /// commit, is undone.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::SeqCst);
    }

    /// Waits for the connection, as somebody who makes the commit of those who wait.
    fn come(&self) -> MutexGuard<'_, Books> {
        self.coming.fetch_add(1, Ordering::SeqCst);
        let books = self.lock();
        self.coming.fetch_sub(1, Ordering::SeqCst);
        books
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // What a panic left behind was put in order by whoever panicked.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn one<T, E: From<JournalError>>(&mut self, work: impl FnOnce(&Tx) -> Result<T, E>) -> Result<T, E> {
        self.db.execute_kept("SAVEPOINT step").map_err(JournalError::from)?;
        let done = work(&self.db);
        let ended = match done {
            Ok(_) => self.db.execute_kept("RELEASE step"),
            Err(_) => self.db.execute_batch("ROLLBACK TO step; RELEASE step"),
        };
        match ended {
            Ok(()) => done,
            // It cannot be told apart from the others any more, so they go with it.
            Err(error) => {
                let _ = self.db.execute_batch("ROLLBACK");
                done.and(Err(JournalError::from(error).into()))
            }
        }
    }

    fn commit(&mut self) -> Result<(), String> {
        self.db.execute_kept("COMMIT").map_err(|error| {
            if !self.db.is_autocommit() {
                let _ = self.db.execute_batch("ROLLBACK");
            }
            error.to_string()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn disk() -> Disk {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)").unwrap();
        Disk::new(db)
    }

    fn put(disk: &Disk, n: i64) -> Result<(), JournalError> {
        disk.step(|db| {
            db.execute("INSERT INTO t VALUES (?1)", [n])?;
            Ok(())
        })
    }

    fn count(disk: &Disk) -> i64 {
        disk.step(|db| Ok::<_, JournalError>(db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?))
            .unwrap()
    }

    /// Whether somebody waits for the transaction that is open.
    fn is_waited_for(disk: &Disk) -> bool {
        Arc::strong_count(&disk.lock().landing) > 1
    }

    #[test]
    fn steps_at_once_share_commits_and_each_is_all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = Connection::open(dir.path().join("t.db")).unwrap();
        db.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER PRIMARY KEY)").unwrap();
        let disk = Disk::new(db);
        let start = Barrier::new(16);
        thread::scope(|scope| {
            for thread in 0..16i64 {
                let (disk, start) = (&disk, &start);
                scope.spawn(move || {
                    start.wait();
                    for n in 0..50 {
                        let n = thread * 1000 + n;
                        // Every third is undone after it wrote, by an error or a panic.
                        let done = catch_unwind(AssertUnwindSafe(|| {
                            disk.step(|db| {
                                db.execute("INSERT INTO t VALUES (?1)", [n])?;
                                match n % 6 {
                                    0 => Err(JournalError::Frozen),
                                    3 => panic!("on purpose"),
                                    _ => Ok(()),
                                }
                            })
                        }));
                        match n % 6 {
                            0 => assert!(matches!(done, Ok(Err(JournalError::Frozen)))),
                            3 => assert!(done.is_err()),
                            _ => done.unwrap().unwrap(),
                        }
                    }
                });
            }
        });
        let expected =
            (0..16i64).flat_map(|t| (0..50).map(move |n| t * 1000 + n)).filter(|n| n % 3 != 0).count();
        assert_eq!(count(&disk), i64::try_from(expected).unwrap());
        // What was there before cannot be there twice, and says so.
        assert!(matches!(put(&disk, 1), Err(JournalError::Sqlite(_))));
    }

    #[test]
    fn what_shares_a_commit_that_fails_is_undone_and_knows_it() {
        let disk = disk();
        let (first, second) = thread::scope(|scope| {
            // Somebody is coming, so the first one waits.
            disk.coming.fetch_add(1, Ordering::SeqCst);
            let first = scope.spawn(|| put(&disk, 1));
            while !is_waited_for(&disk) {
                thread::yield_now();
            }
            disk.coming.fetch_sub(1, Ordering::SeqCst);
            let second = disk.step(|db| {
                disk.keep();
                // As SQLite does when a disk is full.
                db.execute_batch("ROLLBACK")?;
                Err::<(), _>(JournalError::Frozen)
            });
            (first.join().unwrap(), second)
        });
        assert!(matches!(first, Err(JournalError::Undone(_))), "{first:?}");
        assert!(matches!(second, Err(JournalError::Frozen) | Err(JournalError::Sqlite(_))), "{second:?}");
        assert_eq!(count(&disk), 0);
        assert!(disk.undone() > 0);
        put(&disk, 1).unwrap();
        assert_eq!(count(&disk), 1);
    }

    #[test]
    fn a_look_waits_for_nobody_and_leaves_nobody_waiting() {
        let disk = disk();
        let look = || {
            disk.look(|db| {
                Ok::<i64, JournalError>(db.query_row("SELECT count(*) FROM t", [], |row| row.get(0))?)
            })
        };
        assert_eq!(look().unwrap(), 0);
        thread::scope(|scope| {
            // Somebody is coming, so the first one waits; and then all that comes is a look.
            disk.coming.fetch_add(1, Ordering::SeqCst);
            let first = scope.spawn(|| put(&disk, 1));
            while !is_waited_for(&disk) {
                thread::yield_now();
            }
            disk.coming.fetch_sub(1, Ordering::SeqCst);
            assert_eq!(look().unwrap(), 1);
            first.join().unwrap().unwrap();
        });
        assert!(disk.look(|_| Err::<(), _>(JournalError::Frozen)).is_err());
        // A look in which SQLite gives the transaction up is the end of all that shared it.
        let lost = thread::scope(|scope| {
            disk.coming.fetch_add(1, Ordering::SeqCst);
            let waiting = scope.spawn(|| put(&disk, 2));
            while !is_waited_for(&disk) {
                thread::yield_now();
            }
            let _ = disk.look(|db| Ok::<_, JournalError>(db.execute_batch("ROLLBACK")?));
            disk.coming.fetch_sub(1, Ordering::SeqCst);
            waiting.join().unwrap()
        });
        assert!(matches!(lost, Err(JournalError::Undone(_))), "{lost:?}");
        assert_eq!(look().unwrap(), 1);
    }

    #[test]
    fn what_is_kept_in_memory_is_false_after_an_error_alone() {
        let disk = disk();
        let keep = |fails: bool, keeps: bool| {
            let _ = disk.step(|_| {
                if keeps {
                    disk.keep();
                }
                if fails { Err(JournalError::Frozen) } else { Ok(()) }
            });
            disk.undone()
        };
        assert_eq!(keep(false, true), 0);
        assert_eq!(keep(true, false), 0);
        assert_eq!(keep(true, true), 1);
        assert_eq!(keep(true, false), 1);
    }
}
