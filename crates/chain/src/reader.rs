//! Reads of many callers in few calls.
//!
//! A read that finds nothing on its way goes at once. While calls are on their way, those that arrive gather until a
//! call comes back or the window ends, so a read takes about one round trip, and load makes calls larger and not later.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_primitives::{Bytes, hex};
use farthing_engine::ChainError;
use farthing_evm::abi::{Call, aggregate3, aggregate3_results};
use farthing_evm::call::{plan, suspicious};
use farthing_evm::{Address, Read, ReadKind, ReadResult};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use crate::config::ChainConfig;
use crate::node::{Answer, Ask, Node};
use crate::nodes::{Blame, Nodes, Trouble, result, single};
use crate::wire;

/// Token reads take 3,000 to 40,000 units of gas, a simulated payment about 100,000.
const GAS_PER_READ: u64 = 300_000;
/// Code that a payer chose may deploy a wallet or check a passkey, and no more.
const GAS_PER_UNTRUSTED_READ: u64 = 5_000_000;
/// What the call itself takes.
const GAS_PER_CALL: u64 = 200_000;
/// Each byte of calldata, at its dearest (EIP-7623: 40), and passing it on.
const GAS_PER_BYTE: u64 = 64;
/// Below the most that any node gives to one call (EIP-7825: 16,777,216).
const MAX_CALL_GAS: u64 = 16_000_000;
/// How many payments may have code of their payer's run at once: they never share calls, and may be slow on purpose.
const MAX_UNTRUSTED: usize = 16;
/// How many more may wait for that.
const MAX_UNTRUSTED_WAITING: usize = 256;
/// How many answers the mirror holds.
const MAX_MIRRORED: usize = 65_536;

type Outcome = Result<Vec<ReadResult>, ChainError>;

pub(crate) struct Reader {
    nodes: Arc<Nodes>,
    max_reads: usize,
    max_flights: usize,
    max_queued: usize,
    window: Duration,
    block_time: Arc<crate::head::BlockTime>,
    queue: Mutex<Queue>,
    mirror: Mirror,
    untrusted: Semaphore,
    untrusted_waiting: Semaphore,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    reads: usize,
    flights: usize,
    window_open: bool,
}

struct Waiting {
    reads: Vec<Read>,
    reply: oneshot::Sender<Outcome>,
}

impl Reader {
    pub(crate) fn new(
        nodes: Arc<Nodes>,
        config: &ChainConfig,
        block_time: Arc<crate::head::BlockTime>,
    ) -> Self {
        Self {
            nodes,
            max_reads: config.max_reads_per_call.max(1),
            max_flights: config.max_calls_in_flight.max(1),
            max_queued: config.max_queued_reads,
            window: config.batch_window,
            block_time,
            queue: Mutex::new(Queue::default()),
            mirror: Mirror::new(config.mirror),
            untrusted: Semaphore::new(MAX_UNTRUSTED),
            untrusted_waiting: Semaphore::new(MAX_UNTRUSTED + MAX_UNTRUSTED_WAITING),
        }
    }

    /// Reads at the tip, sharing calls with others.
    pub(crate) async fn read(self: &Arc<Self>, reads: Vec<Read>) -> Outcome {
        if reads.iter().any(|read| read.kind == ReadKind::Untrusted) {
            return self.read_untrusted(reads).await;
        }
        if let Some(answers) = self.mirror.answers(&reads) {
            return Ok(answers);
        }
        let keys = self.mirror.keys(&reads);
        let (reply, answer) = oneshot::channel();
        {
            let mut queue = self.queue();
            if queue.reads.saturating_add(reads.len()) > self.max_queued {
                return Err(self.busy());
            }
            queue.reads += reads.len();
            queue.waiting.push_back(Waiting { reads, reply });
        }
        self.pump(false);
        let outcome = answer.await.unwrap_or_else(|_| Err(ChainError::Down(self.nodes.network().clone())))?;
        self.mirror.keep(keys, &outcome);
        Ok(outcome)
    }

    /// Keeps what payers' code does out of the way of everybody else.
    async fn read_untrusted(&self, reads: Vec<Read>) -> Outcome {
        let _room = self.untrusted_waiting.try_acquire().map_err(|_| self.busy())?;
        // INVARIANT: the semaphore is never closed.
        let _turn = self.untrusted.acquire().await.map_err(|_| self.busy())?;
        self.read_at(reads, "latest").await
    }

    fn busy(&self) -> ChainError {
        ChainError::Busy(self.nodes.network().clone())
    }

    /// Reads for one payment, alone, and never out of the mirror.
    pub(crate) async fn read_at(&self, reads: Vec<Read>, block: &str) -> Outcome {
        let groups = [reads];
        let mut outcome = Err(ChainError::Down(self.nodes.network().clone()));
        self.perform(&groups, block, |_, done| outcome = done).await;
        outcome
    }

    /// Forgets what was mirrored: there is a new tip.
    pub(crate) fn new_tip(&self) {
        self.mirror.clear();
    }

    /// Sends what waits, if it is time.
    fn pump(self: &Arc<Self>, window_over: bool) {
        loop {
            let batch = {
                let mut queue = self.queue();
                if queue.waiting.is_empty() || queue.flights >= self.max_flights {
                    return;
                }
                let due = window_over || queue.flights == 0 || queue.reads >= self.max_reads;
                if !due {
                    self.open_window(&mut queue);
                    return;
                }
                let batch = queue.take(self.max_reads);
                if batch.is_empty() {
                    return;
                }
                queue.flights += 1;
                batch
            };
            let flight = Flight(Arc::clone(self));
            tokio::spawn(async move { flight.0.fly(batch).await });
        }
    }

    fn open_window(self: &Arc<Self>, queue: &mut Queue) {
        if queue.window_open {
            return;
        }
        queue.window_open = true;
        let reader = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(reader.window).await;
            reader.queue().window_open = false;
            reader.pump(true);
        });
    }

    async fn fly(&self, batch: Vec<Waiting>) {
        let (groups, mut replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.reads, Some(waiting.reply))).unzip();
        self.perform(&groups, "latest", |group, outcome| {
            if let Some(reply) = replies.get_mut(group).and_then(Option::take) {
                // Whoever asked may have left.
                let _ = reply.send(outcome);
            }
        })
        .await;
    }

    /// Runs the reads of each group, and says `done` for a group as soon as all of its calls are back.
    async fn perform(&self, groups: &[Vec<Read>], block: &str, mut done: impl FnMut(usize, Outcome) + Send) {
        let mut progress: Vec<Progress> = groups.iter().map(|reads| Progress::new(reads.len())).collect();
        let mut running = FuturesUnordered::new();
        for members in plan(groups, self.max_reads) {
            for group in groups_of(&members) {
                progress[group].calls += 1;
            }
            running.push(self.call(groups, members, block));
        }
        for (group, state) in progress.iter_mut().enumerate() {
            if state.calls == 0 {
                done(group, Ok(Vec::new()));
            }
        }
        while let Some((members, outcome)) = running.next().await {
            let owners = groups_of(&members);
            let shared = owners.len() > 1;
            for group in owners {
                let mine: Vec<(usize, usize)> =
                    members.iter().copied().filter(|member| member.0 == group).collect();
                let results = mine_of(group, &members, &outcome);
                // A neighbour may have burnt the gas: then this payment's part is asked for again without neighbours.
                let neighbours = members.len() - mine.len();
                let starved = match &results {
                    Ok(results) => results.iter().any(|result| suspicious(result, neighbours)),
                    Err(CallError::Failed) => shared,
                    Err(CallError::Chain(_)) => false,
                };
                if starved {
                    running.push(self.call(groups, mine, block));
                    continue;
                }
                let state = &mut progress[group];
                state.fill(&mine, results);
                if state.calls == 0 {
                    done(group, state.finish());
                }
            }
        }
    }

    /// Performs one call, which may hold reads of many groups.
    async fn call(
        &self,
        groups: &[Vec<Read>],
        members: Vec<(usize, usize)>,
        block: &str,
    ) -> (Vec<(usize, usize)>, Result<Vec<ReadResult>, CallError>) {
        let reads: Vec<&Read> = members.iter().map(|(group, read)| &groups[*group][*read]).collect();
        let untrusted = reads.iter().any(|read| read.kind == ReadKind::Untrusted);
        let blame = if untrusted { Blame::Payer } else { Blame::Node };
        let multicall = self.nodes.multicall();
        let shared = |node: &Node| multicall.filter(|_| node.has_multicall());
        let outcome = self
            .nodes
            .query(
                blame,
                self.block_time.get(),
                |node| match shared(node) {
                    Some(contract) => vec![ask_shared(contract, &reads, block)],
                    None => reads.iter().map(|read| ask_alone(read, block)).collect(),
                },
                |node, answers| match shared(node) {
                    Some(_) => read_shared(node, answers, reads.len()),
                    None => read_alone(answers),
                },
            )
            .await;
        let outcome = match outcome {
            Ok(Some(results)) => Ok(results),
            Ok(None) => Err(CallError::Failed),
            // Nothing that a payer's code does to its call may be more than an unanswered read of that payment.
            Err(ChainError::Node { .. } | ChainError::Unreadable(_)) if untrusted => Err(CallError::Failed),
            Err(error) => Err(CallError::Chain(error)),
        };
        (members, outcome)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere leaves whole entries behind.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a call has no results.
#[derive(Debug, Clone)]
enum CallError {
    /// The call as a whole failed on the chain, for instance out of gas.
    Failed,
    Chain(ChainError),
}

/// A call on its way. Its end, even by a panic, lets the next one go.
struct Flight(Arc<Reader>);

impl Drop for Flight {
    fn drop(&mut self) {
        self.0.queue().flights -= 1;
        // While the runtime shuts down nothing can be started.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.0.pump(true);
        }
    }
}

impl Queue {
    /// Takes whole groups, in order of arrival, up to `max_reads` reads but at least one group.
    fn take(&mut self, max_reads: usize) -> Vec<Waiting> {
        let mut batch = Vec::new();
        let mut taken = 0;
        while let Some(next) = self.waiting.front() {
            let count = next.reads.len();
            if !batch.is_empty() && taken + count > max_reads {
                break;
            }
            let Some(next) = self.waiting.pop_front() else { break };
            self.reads -= count;
            if !next.reply.is_closed() {
                taken += count;
                batch.push(next);
            }
        }
        batch
    }
}

/// How far the reads of one group are.
struct Progress {
    results: Vec<Option<ReadResult>>,
    calls: usize,
    error: Option<ChainError>,
}

impl Progress {
    fn new(reads: usize) -> Self {
        Self { results: vec![None; reads], calls: 0, error: None }
    }

    fn fill(&mut self, mine: &[(usize, usize)], results: Result<Vec<ReadResult>, CallError>) {
        self.calls = self.calls.saturating_sub(1);
        match results {
            Ok(results) => {
                for ((_, read), result) in mine.iter().zip(results) {
                    self.results[*read] = Some(result);
                }
            }
            Err(CallError::Failed) => {
                for (_, read) in mine {
                    self.results[*read] = Some(ReadResult::Unavailable);
                }
            }
            Err(CallError::Chain(error)) => self.error = Some(error),
        }
    }

    fn finish(&mut self) -> Outcome {
        match self.error.take() {
            Some(error) => Err(error),
            None => {
                Ok(self.results.drain(..).map(|result| result.unwrap_or(ReadResult::Unavailable)).collect())
            }
        }
    }
}

/// The groups of a call, each once, in order of appearance.
fn groups_of(members: &[(usize, usize)]) -> Vec<usize> {
    let mut groups: Vec<usize> = members.iter().map(|(group, _)| *group).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn mine_of(
    group: usize,
    members: &[(usize, usize)],
    outcome: &Result<Vec<ReadResult>, CallError>,
) -> Result<Vec<ReadResult>, CallError> {
    let results = outcome.as_ref().map_err(Clone::clone)?;
    Ok(members
        .iter()
        .zip(results)
        .filter(|(member, _)| member.0 == group)
        .map(|(_, result)| result.clone())
        .collect())
}

fn gas_for(reads: &[&Read]) -> u64 {
    reads
        .iter()
        .map(|read| {
            let execution =
                if read.kind == ReadKind::Untrusted { GAS_PER_UNTRUSTED_READ } else { GAS_PER_READ };
            let bytes = u64::try_from(read.data.len()).unwrap_or(u64::MAX);
            execution.saturating_add(bytes.saturating_mul(GAS_PER_BYTE))
        })
        .fold(GAS_PER_CALL, u64::saturating_add)
        .min(MAX_CALL_GAS)
}

fn eth_call(to: Address, data: &[u8], gas: u64, block: &str) -> Ask {
    let mut params = String::with_capacity(2 * data.len() + 128);
    // Writing to a string cannot fail.
    let _ = write!(params, "[{{\"to\":\"{to:#x}\",\"data\":\"0x");
    params.push_str(&hex::encode(data));
    let _ = write!(params, "\",\"gas\":\"{gas:#x}\"}},\"{block}\"]");
    Ask::new("eth_call", params)
}

fn ask_alone(read: &Read, block: &str) -> Ask {
    eth_call(read.to, &read.data, gas_for(&[read]), block)
}

fn ask_shared(contract: Address, reads: &[&Read], block: &str) -> Ask {
    let calls = reads.iter().map(|read| Call { to: read.to, data: read.data.clone(), may_fail: true });
    eth_call(contract, &aggregate3(calls), gas_for(reads), block)
}

/// The results of one shared call; `None` if the call itself failed on the chain.
fn read_shared(
    node: &Node,
    answers: Vec<Answer>,
    expected: usize,
) -> Result<Option<Vec<ReadResult>>, Trouble> {
    if let [Err(error)] = answers.as_slice()
        && wire::revert(error).is_some()
    {
        return Ok(None);
    }
    let data: Bytes = wire::read(&single(answers)?)?;
    let Some(results) = aggregate3_results(&data, expected) else {
        // For instance a chain that was reset, and has no Multicall3 any more.
        node.doubt();
        return Err(Trouble::Unreadable);
    };
    let results = results
        .into_iter()
        .map(|(success, data)| if success { ReadResult::Returned(data) } else { ReadResult::Reverted(data) });
    Ok(Some(results.collect()))
}

/// The results of one call for each read.
fn read_alone(answers: Vec<Answer>) -> Result<Option<Vec<ReadResult>>, Trouble> {
    let results = answers.into_iter().map(|answer| match answer {
        Err(error) if wire::revert(&error).is_some() => {
            Ok(ReadResult::Reverted(wire::revert(&error).unwrap_or_default()))
        }
        other => Ok(ReadResult::Returned(wire::read(&result(other)?)?)),
    });
    results.collect::<Result<Vec<_>, Trouble>>().map(Some)
}

/// Answers to view reads that are young enough to be given again.
struct Mirror {
    keeps: Duration,
    /// Counts the tips: what was asked before the latest is not kept.
    tips: AtomicU64,
    answers: Mutex<HashMap<(Address, Bytes), (ReadResult, Instant)>>,
}

/// Which reads may be kept when they are back, and when they were asked.
struct Keys {
    asked: Instant,
    tip: u64,
    keys: Vec<Option<(Address, Bytes)>>,
}

impl Mirror {
    fn new(keeps: Duration) -> Self {
        Self { keeps, tips: AtomicU64::new(0), answers: Mutex::new(HashMap::new()) }
    }

    /// The answers to all reads, if all are views and known.
    fn answers(&self, reads: &[Read]) -> Option<Vec<ReadResult>> {
        if self.keeps.is_zero() {
            return None;
        }
        let answers = self.lock();
        let known = |read: &Read| {
            let key = view_key(read)?;
            let (result, asked) = answers.get(&key)?;
            (asked.elapsed() < self.keeps).then(|| result.clone())
        };
        reads.iter().map(known).collect()
    }

    fn keys(&self, reads: &[Read]) -> Option<Keys> {
        (!self.keeps.is_zero()).then(|| Keys {
            asked: Instant::now(),
            tip: self.tips.load(Ordering::Relaxed),
            keys: reads.iter().map(view_key).collect(),
        })
    }

    fn keep(&self, keys: Option<Keys>, results: &[ReadResult]) {
        let Some(Keys { asked, tip, keys }) = keys else { return };
        let mut answers = self.lock();
        if tip != self.tips.load(Ordering::Relaxed) {
            return;
        }
        if answers.len() + keys.len() > MAX_MIRRORED {
            answers.clear();
        }
        for (key, result) in keys.into_iter().zip(results) {
            if let (Some(key), ReadResult::Returned(_)) = (key, result) {
                answers.insert(key, (result.clone(), asked));
            }
        }
    }

    fn clear(&self) {
        let mut answers = self.lock();
        self.tips.fetch_add(1, Ordering::Relaxed);
        answers.clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(Address, Bytes), (ReadResult, Instant)>> {
        // A panic elsewhere leaves whole entries behind.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn view_key(read: &Read) -> Option<(Address, Bytes)> {
    (read.kind == ReadKind::View).then(|| (read.to, read.data.clone()))
}
