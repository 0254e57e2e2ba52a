//! The one thread that writes. It takes whatever is queued, makes it one transaction, and answers after COMMIT.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use farthing_engine::StoreError;
use rusqlite::hooks::Wal;
use rusqlite::{Connection, ffi};
use tokio::sync::oneshot;

use crate::apply::{Answer, Fail, Request};
use crate::books::{Books, Exposure};
use crate::limits::QUEUE_LEN;
use crate::read::store_error;
use crate::schema::{CHECKPOINT_PAGES, OpenError, WriteLock, begin_log};

/// The most changes that share one transaction: a sync is shared by many long before, and none waits long.
const MAX_GROUP: usize = 1024;

/// The most bytes of bodies that share one transaction, one change excepted.
const MAX_GROUP_BYTES: usize = 32 << 20;

/// What everybody may know of the writer.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// A COMMIT failed, and it cannot be told yet whether its changes are durable. Nothing may be read until then,
    /// since "it is not there" might not be the last word.
    in_doubt: AtomicBool,
    /// A sync failed. An operating system may forget what it could not write and call the next sync a success, so
    /// no answer of this disk is believed before the file is opened anew.
    sync_failed: AtomicBool,
    latency_nanos: AtomicU64,
    groups: AtomicU64,
}

impl Health {
    /// Why nothing may be asked or changed now, if so.
    pub(crate) fn refusal(&self) -> Option<StoreError> {
        if self.sync_failed.load(Ordering::Acquire) {
            Some(StoreError::Down("the disk failed to sync; the store must be opened again".to_owned()))
        } else if self.in_doubt.load(Ordering::Acquire) {
            Some(StoreError::Down("an earlier commit is in doubt".to_owned()))
        } else {
            None
        }
    }

    pub(crate) fn latency(&self) -> Duration {
        Duration::from_nanos(self.latency_nanos.load(Ordering::Relaxed))
    }

    pub(crate) fn groups(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    /// Keeps a moving average, of which the last eight groups are the larger part.
    fn took(&self, duration: Duration) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let before = self.latency_nanos.load(Ordering::Relaxed);
        let after = if before == 0 { nanos } else { before - before / 8 + nanos / 8 };
        self.latency_nanos.store(after, Ordering::Relaxed);
    }
}

/// The request goes back to its caller with the answer, so that the writer need not take it apart.
type Reply = oneshot::Sender<(Result<Answer, StoreError>, Option<Request>)>;

#[derive(Debug)]
enum Job {
    Change(Request, Reply),
    /// Moves everything from the log into the file and empties the log.
    EmptyLog(Reply),
}

/// The queue in front of the writer. Dropping it lets the writer finish what is queued, and waits for that.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(
        mut connection: Connection,
        path: &Path,
        lock: WriteLock,
        health: Arc<Health>,
    ) -> Result<Self, OpenError> {
        let (queue, jobs) = sync_channel(QUEUE_LEN);
        let log_pages = Arc::new(AtomicU32::new(0));
        let told = Arc::clone(&log_pages);
        let hook = move |_: &mut Wal, pages| {
            told.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        };
        connection
            .wal_hook(Some(hook))
            .map_err(|source| OpenError::Sqlite { path: path.to_owned(), source })?;
        let work = move || {
            let (books, exposure) = (Books::default(), Exposure::default());
            let mut loop_ = Loop { connection, log_pages, health, books, exposure };
            loop_.run(&jobs);
            // The connection is closed before others may have the file.
            drop(loop_);
            drop(lock);
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(work)
            .map_err(OpenError::Thread)?;
        Ok(Self { queue: Some(queue), thread: Some(thread) })
    }

    pub(crate) async fn change(&self, request: Request) -> Result<Answer, StoreError> {
        self.ask(|reply| Job::Change(request, reply)).await
    }

    pub(crate) async fn empty_log(&self) -> Result<(), StoreError> {
        self.ask(Job::EmptyLog).await.map(|_| ())
    }

    async fn ask(&self, job: impl FnOnce(Reply) -> Job) -> Result<Answer, StoreError> {
        let stopped = || StoreError::Down("the writer has stopped".to_owned());
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.try_send(job(reply)).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => stopped(),
        })?;
        match answer.await {
            Ok((answer, _request)) => answer,
            // The writer took the job and went away with it: nobody knows how far it came.
            Err(_) => Err(StoreError::Unknown("the writer has stopped".to_owned())),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has said so already.
            let _ = thread.join();
        }
    }
}

struct Loop {
    connection: Connection,
    /// How long the log is since the last commit.
    log_pages: Arc<AtomicU32>,
    health: Arc<Health>,
    books: Books,
    exposure: Exposure,
}

/// What became of a group before its COMMIT.
enum Group {
    /// Each request's own answer, if the group commits.
    Ready(Vec<Result<Answer, StoreError>>),
    /// One request failed after it had written something: the group must be done again, with each by itself.
    Spoiled,
    /// The transaction is lost, whatever is to blame.
    Lost(StoreError),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Isolation {
    /// A request that fails has nearly always written nothing, so nothing needs to be undone.
    Together,
    /// Each request has a savepoint to go back to.
    Each,
}

impl Loop {
    fn run(&mut self, jobs: &Receiver<Job>) {
        let mut group: Vec<(Request, Reply)> = Vec::with_capacity(MAX_GROUP);
        while let Ok(first) = jobs.recv() {
            let mut next = Some(first);
            let mut bytes = 0usize;
            let mut empty_log = None;
            while let Some(job) = next.take() {
                match job {
                    Job::Change(request, reply) => {
                        bytes = bytes.saturating_add(request.weight());
                        group.push((request, reply));
                    }
                    Job::EmptyLog(reply) => {
                        empty_log = Some(reply);
                        break;
                    }
                }
                if group.len() < MAX_GROUP && bytes < MAX_GROUP_BYTES {
                    next = jobs.try_recv().ok();
                }
            }
            if !group.is_empty() {
                self.write(&mut group);
            }
            if let Some(reply) = empty_log {
                let _ = reply.send((self.empty_log().map(|()| Answer::Done), None));
            }
        }
    }

    /// Makes the group durable, or none of it, and then answers. A caller that went away is not missed.
    fn write(&mut self, group: &mut Vec<(Request, Reply)>) {
        let started = Instant::now();
        let answers = self.answers(group);
        self.health.took(started.elapsed());
        for ((request, reply), answer) in group.drain(..).zip(answers) {
            let _ = reply.send((answer, Some(request)));
        }
        // Nobody needs to wait for this.
        if self.log_pages.load(Ordering::Relaxed) >= CHECKPOINT_PAGES {
            self.shorten_log();
        }
    }

    /// Moves what is in the log into the file, as far as nobody reads an older state.
    fn shorten_log(&self) {
        if self.health.refusal().is_some() {
            return;
        }
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
            // Everything is in the log, and durable; it only grows.
            self.note(&error);
            tracing::error!(%error, "the log cannot be moved into the file");
        }
    }

    /// Remembers a sync that failed, wherever it did.
    fn note(&self, error: &rusqlite::Error) {
        let code = error.sqlite_error().map(|error| error.extended_code);
        if matches!(code, Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)) {
            tracing::error!(%error, "the disk failed to sync: nothing is answered until the store is opened again");
            self.health.sync_failed.store(true, Ordering::Release);
        }
    }

    /// What the error means to the caller.
    fn told(&self, error: &rusqlite::Error) -> StoreError {
        self.note(error);
        store_error(error)
    }

    fn answers(&mut self, group: &[(Request, Reply)]) -> Vec<Result<Answer, StoreError>> {
        if self.health.in_doubt.load(Ordering::Acquire) {
            // Whether it was settled is asked below.
            let _ = self.settle_doubt();
        }
        if let Some(refusal) = self.health.refusal() {
            return vec![Err(refusal); group.len()];
        }
        let mut result = self.apply_all(group, Isolation::Together);
        if matches!(result, Group::Spoiled) {
            self.roll_back();
            result = self.apply_all(group, Isolation::Each);
        }
        match result {
            Group::Ready(answers) => match self.connection.execute_batch("COMMIT") {
                Ok(()) => answers,
                Err(error) => {
                    let verdict = self.commit_failed(&error);
                    // A request that was refused before changed nothing, and still did not.
                    let verdict_of = |answer: Result<Answer, StoreError>| match answer {
                        Ok(_) => Err(verdict.clone()),
                        refused => refused,
                    };
                    answers.into_iter().map(verdict_of).collect()
                }
            },
            Group::Spoiled => {
                self.all_lost(group, StoreError::Down("the change cannot be undone".to_owned()))
            }
            Group::Lost(error) => self.all_lost(group, error),
        }
    }

    fn all_lost(&mut self, group: &[(Request, Reply)], error: StoreError) -> Vec<Result<Answer, StoreError>> {
        self.roll_back();
        tracing::error!(%error, changes = group.len(), "the store could not write");
        vec![Err(error); group.len()]
    }

    fn apply_all(&mut self, group: &[(Request, Reply)], isolation: Isolation) -> Group {
        if let Err(error) = self.connection.execute_batch("BEGIN IMMEDIATE") {
            return Group::Lost(self.told(&error));
        }
        let mut answers = Vec::with_capacity(group.len());
        for (request, _) in group {
            let answer = match isolation {
                Isolation::Together => self.apply(request),
                Isolation::Each => self.apply_alone(request),
            };
            match answer {
                Ok(answer) => answers.push(answer),
                Err(failed) => return failed,
            }
        }
        if let Err(error) = self.books.flush(&self.connection) {
            return Group::Lost(self.told(&error));
        }
        Group::Ready(answers)
    }

    /// The request's answer, or what its failure does to the group.
    fn apply(&mut self, request: &Request) -> Result<Result<Answer, StoreError>, Group> {
        let written = self.connection.total_changes();
        let fail = match request.apply(&self.connection, &mut self.books, &mut self.exposure) {
            Ok(answer) => return Ok(Ok(answer)),
            Err(fail) => fail,
        };
        if self.connection.is_autocommit() {
            // SQLite gave up the whole transaction, e.g. because the disk is full.
            return Err(Group::Lost(self.fail(fail)));
        }
        match fail {
            Fail::Refused(error) if self.connection.total_changes() == written => Ok(Err(error)),
            _ => Err(Group::Spoiled),
        }
    }

    fn apply_alone(&mut self, request: &Request) -> Result<Result<Answer, StoreError>, Group> {
        self.connection.execute_batch("SAVEPOINT change").map_err(|error| Group::Lost(self.told(&error)))?;
        let answer = request.apply(&self.connection, &mut self.books, &mut self.exposure);
        let answer = answer.map_err(|fail| self.fail(fail));
        if self.connection.is_autocommit() {
            let ended = || StoreError::Down("the transaction has ended by itself".to_owned());
            return Err(Group::Lost(answer.err().unwrap_or_else(ended)));
        }
        let end = if answer.is_ok() { "RELEASE change" } else { "ROLLBACK TO change; RELEASE change" };
        self.connection.execute_batch(end).map_err(|error| Group::Lost(self.told(&error)))?;
        Ok(answer)
    }

    fn roll_back(&mut self) {
        if !self.connection.is_autocommit() {
            // If this fails, the next BEGIN does so too, and says why.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        self.books.forget();
        self.exposure.forget();
    }

    /// What is true of the group's changes after COMMIT failed.
    fn commit_failed(&mut self, error: &rusqlite::Error) -> StoreError {
        tracing::error!(%error, "a commit failed");
        self.note(error);
        self.roll_back();
        self.health.in_doubt.store(true, Ordering::Release);
        let settled = self.settle_doubt();
        if settled.is_ok() && !self.health.sync_failed.load(Ordering::Acquire) {
            store_error(error)
        } else {
            // Also if the log could be emptied after a failed sync: that rests on a sync of the same disk.
            StoreError::Unknown(error.to_string())
        }
    }

    /// Makes certain that a failed commit is not durable.
    ///
    /// Its frames may be in the log, complete, though SQLite has taken back its own count of them: after a crash
    /// they could be found and taken for committed. So the log is emptied and begun anew.
    fn settle_doubt(&mut self) -> Result<(), StoreError> {
        self.empty_log()?;
        if let Err(error) = begin_log(&self.connection) {
            let error = self.told(&error);
            self.roll_back();
            return Err(error);
        }
        self.health.in_doubt.store(false, Ordering::Release);
        Ok(())
    }

    fn empty_log(&self) -> Result<(), StoreError> {
        let busy = self
            .connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
            .map_err(|error| self.told(&error))?;
        if busy { Err(StoreError::Down("the log is being read".to_owned())) } else { Ok(()) }
    }

    fn fail(&self, fail: Fail) -> StoreError {
        match fail {
            Fail::Refused(error) => error,
            Fail::Sqlite(error) => self.told(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use farthing_primitives::Timestamp;

    use super::*;

    fn ask(writer: &Writer) -> Result<Answer, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(writer.change(Request::erase(Timestamp::from_secs(1))))
    }

    /// Who takes a change and goes away with it may have made it durable.
    #[test]
    fn a_writer_that_goes_away_with_a_change_leaves_it_unknown() {
        let (queue, jobs) = sync_channel(1);
        let thread = std::thread::spawn(move || drop(jobs.recv()));
        let writer = Writer { queue: Some(queue), thread: Some(thread) };
        assert!(matches!(ask(&writer), Err(StoreError::Unknown(_))));
    }

    #[test]
    fn a_writer_that_takes_nothing_has_changed_nothing() {
        let (queue, jobs) = sync_channel(1);
        drop(jobs);
        assert!(matches!(ask(&Writer { queue: Some(queue), thread: None }), Err(StoreError::Down(_))));
        let (queue, _jobs) = sync_channel(0);
        assert_eq!(ask(&Writer { queue: Some(queue), thread: None }), Err(StoreError::Busy));
    }

    #[test]
    fn a_failed_sync_outweighs_a_settled_doubt() {
        let health = Health::default();
        assert_eq!(health.refusal(), None);
        health.in_doubt.store(true, Ordering::Release);
        assert!(matches!(health.refusal(), Some(StoreError::Down(why)) if why.contains("in doubt")));
        health.sync_failed.store(true, Ordering::Release);
        health.in_doubt.store(false, Ordering::Release);
        assert!(matches!(health.refusal(), Some(StoreError::Down(why)) if why.contains("opened again")));
    }
}
