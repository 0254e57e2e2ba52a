//! A seeded executor on a virtual clock: the tasks of all processes on one thread, in an order that the seed chooses.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use farthing_engine::BoxFuture;

use crate::rng::Rng;

/// A process of the world, in one of its lives: a restart is another process.
pub type ProcessId = u32;

/// The world's own: whatever must go on when processes die.
pub const WORLD: ProcessId = 0;

/// How many polls may happen in one instant of virtual time before something counts as spinning.
const MAX_POLLS_AT_ONCE: u64 = 200_000;

#[derive(Clone)]
pub struct Exec(Arc<Core>);

struct Core {
    state: Mutex<State>,
    /// Apart from the rest, as wakers ring while anything may be locked.
    ready: Mutex<Vec<usize>>,
}

struct State {
    /// Microseconds since the world began.
    now: u64,
    timers: BinaryHeap<Reverse<Timer>>,
    sequence: u64,
    tasks: Vec<Option<Task>>,
    free: Vec<usize>,
    dead: Vec<bool>,
    rng: Rng,
    polls: u64,
    polls_at_once: u64,
}

struct Task {
    process: ProcessId,
    /// Absent while it is being polled.
    future: Option<BoxFuture<'static, ()>>,
    bell: Arc<Bell>,
}

struct Bell {
    core: Weak<Core>,
    task: usize,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if !self.rung.swap(true, Ordering::Relaxed)
            && let Some(core) = self.core.upgrade()
        {
            lock(&core.ready).push(self.task);
        }
    }
}

struct Timer {
    at: u64,
    sequence: u64,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The time was over.
    Time,
    /// Nothing will ever happen again.
    Idle,
    /// Whoever looked on had seen enough.
    Stopped,
    /// Tasks ran on and on while no time passed.
    Spinning,
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Exec at {:?}", self.elapsed())
    }
}

impl Exec {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Core {
            state: Mutex::new(State {
                now: 0,
                timers: BinaryHeap::new(),
                sequence: 0,
                tasks: Vec::new(),
                free: Vec::new(),
                dead: vec![false],
                rng: Rng::stream(seed, "schedule"),
                polls: 0,
                polls_at_once: 0,
            }),
            ready: Mutex::default(),
        }))
    }

    /// Microseconds since the world began.
    pub fn micros(&self) -> u64 {
        lock(&self.0.state).now
    }

    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.micros())
    }

    pub fn polls(&self) -> u64 {
        lock(&self.0.state).polls
    }

    pub fn new_process(&self) -> ProcessId {
        let mut state = lock(&self.0.state);
        state.dead.push(false);
        ProcessId::try_from(state.dead.len() - 1).unwrap_or(ProcessId::MAX)
    }

    pub fn is_alive(&self, process: ProcessId) -> bool {
        lock(&self.0.state).dead.get(process as usize).is_some_and(|dead| !dead)
    }

    pub fn spawn(&self, process: ProcessId, future: BoxFuture<'static, ()>) {
        let mut state = lock(&self.0.state);
        if state.dead.get(process as usize).is_none_or(|dead| *dead) {
            drop(state);
            // The dead start nothing; what the future holds is let go outside of the lock.
            drop(future);
            return;
        }
        let id = state.free.pop().unwrap_or(state.tasks.len());
        let bell = Arc::new(Bell { core: Arc::downgrade(&self.0), task: id, rung: AtomicBool::new(true) });
        let task = Some(Task { process, future: Some(future), bell });
        if id == state.tasks.len() {
            state.tasks.push(task);
        } else {
            state.tasks[id] = task;
        }
        drop(state);
        lock(&self.0.ready).push(id);
    }

    /// Ends a process as SIGKILL does: between two instructions, with no goodbye.
    pub fn kill(&self, process: ProcessId) {
        let mut killed = Vec::new();
        {
            let mut state = lock(&self.0.state);
            if let Some(dead) = state.dead.get_mut(process as usize) {
                *dead = true;
            }
            for id in 0..state.tasks.len() {
                if state.tasks[id].as_ref().is_some_and(|task| task.process == process) {
                    killed.extend(state.tasks[id].take());
                    state.free.push(id);
                }
            }
        }
        // Letting a future go may ring bells and drop channels of others.
        drop(killed);
    }

    /// Ends all processes and the world's own tasks, for good. Tasks hold the executor that holds them.
    pub fn end(&self) {
        let (tasks, timers) = {
            let mut state = lock(&self.0.state);
            state.dead.fill(true);
            (std::mem::take(&mut state.tasks), std::mem::take(&mut state.timers))
        };
        drop((tasks, timers));
    }

    pub fn sleep(&self, duration: Duration) -> Sleep {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut state = lock(&self.0.state);
        // No timer is exact.
        let late = state.rng.below(1 + (micros / 50).min(3_000));
        let at = state.now.saturating_add(micros).saturating_add(late);
        drop(state);
        Sleep { exec: self.clone(), at, waker: None }
    }

    /// Runs until `until` (microseconds since the world began). `after` looks on after each poll.
    pub fn run(&self, until: u64, mut after: impl FnMut() -> ControlFlow<()>) -> Ended {
        loop {
            if let Some(id) = self.next_ready() {
                self.poll(id);
                if after().is_break() {
                    return Ended::Stopped;
                }
                if lock(&self.0.state).polls_at_once > MAX_POLLS_AT_ONCE {
                    return Ended::Spinning;
                }
                continue;
            }
            let mut state = lock(&self.0.state);
            let Some(Reverse(next)) = state.timers.peek() else {
                state.now = state.now.max(until);
                return Ended::Idle;
            };
            if next.at > until {
                state.now = state.now.max(until);
                return Ended::Time;
            }
            let now = next.at.max(state.now);
            if now > state.now {
                state.polls_at_once = 0;
            }
            state.now = now;
            let mut due = Vec::new();
            while state.timers.peek().is_some_and(|Reverse(timer)| timer.at <= now) {
                due.extend(state.timers.pop().and_then(|Reverse(timer)| lock(&timer.waker).take()));
            }
            drop(state);
            due.into_iter().for_each(Waker::wake);
        }
    }

    fn next_ready(&self) -> Option<usize> {
        let mut ready = lock(&self.0.ready);
        let count = ready.len() as u64;
        if count == 0 {
            return None;
        }
        let at = usize::try_from(lock(&self.0.state).rng.below(count)).unwrap_or(0);
        Some(ready.swap_remove(at))
    }

    fn poll(&self, id: usize) {
        let (mut future, bell) = {
            let mut state = lock(&self.0.state);
            state.polls += 1;
            state.polls_at_once += 1;
            let Some(Some(task)) = state.tasks.get_mut(id) else { return };
            let Some(future) = task.future.take() else { return };
            (future, task.bell.clone())
        };
        bell.rung.store(false, Ordering::Relaxed);
        let waker = Waker::from(bell.clone());
        let done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut state = lock(&self.0.state);
        // It may have ended its own process meanwhile, and its place may be another's.
        let place = state.tasks.get_mut(id).and_then(Option::as_mut);
        match place.filter(|task| Arc::ptr_eq(&task.bell, &bell)) {
            Some(task) if !done => {
                task.future = Some(future);
                return;
            }
            Some(_) => {
                state.tasks[id] = None;
                state.free.push(id);
            }
            None => {}
        }
        drop(state);
        drop(future);
    }
}

/// Resolves at its time.
pub struct Sleep {
    exec: Exec,
    at: u64,
    waker: Option<Arc<Mutex<Option<Waker>>>>,
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sleep({})", self.at)
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.exec.0.state);
        if state.now >= self.at {
            return Poll::Ready(());
        }
        if let Some(waker) = &self.waker {
            *lock(waker) = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let waker = Arc::new(Mutex::new(Some(cx.waker().clone())));
        state.sequence += 1;
        let timer = Timer { at: self.at, sequence: state.sequence, waker: waker.clone() };
        state.timers.push(Reverse(timer));
        drop(state);
        self.waker = Some(waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(waker) = &self.waker {
            lock(waker).take();
        }
    }
}

/// One thread: nothing can be poisoned but by a panic that ends the run.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
