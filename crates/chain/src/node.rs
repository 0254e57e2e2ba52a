//! One node: asking it, and what we know of its health.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use alloy_json_rpc::{ErrorPayload, Id, Request, RequestPacket, Response, ResponsePacket, ResponsePayload};
use futures_util::future::try_join_all;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::http::{Failure, Http};
use crate::wire;

/// The first failure costs nothing; from the second in a row on, the node is left alone for this time, doubled by each
/// further failure.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LAST_BACK_OFF: Duration = Duration::from_secs(10);
/// A node of another chain is a mistake in a configuration, which takes a person to mend.
const REFUSED_FOR: Duration = Duration::from_secs(60);
/// A contract may be deployed later, so a node without Multicall3 is looked at again.
const MULTICALL_AGAIN: Duration = Duration::from_secs(60);

/// One JSON-RPC request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub method: &'static str,
    pub params: Box<RawValue>,
}

/// What the node said to one request: a result, or an error of JSON-RPC.
pub(crate) type Answer = Result<Box<RawValue>, ErrorPayload>;

impl Ask {
    /// `params` is JSON that we wrote ourselves.
    pub(crate) fn new(method: &'static str, params: String) -> Self {
        // INVARIANT: the callers format hex and fixed words into JSON arrays.
        #[allow(clippy::expect_used)]
        let params = RawValue::from_string(params).expect("our own parameters are JSON");
        Self { method, params }
    }
}

pub(crate) struct Node {
    http: Http,
    max_batch: usize,
    next_id: AtomicU64,
    /// Some nodes take no batches, and say so once.
    batches: AtomicBool,
    /// The highest block that it told us of; zero if none.
    height: AtomicU64,
    health: Mutex<Health>,
    /// Held while its chain id is asked for, so that one request does it for all that wait.
    pub checking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Health {
    checked: Option<Checked>,
    failures: u32,
    failed_at: Option<Instant>,
    retry_at: Option<Instant>,
}

/// Whether a node has the contract through which reads share calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Multicall {
    Present,
    Missing,
    NotWanted,
}

/// What was learned when the node's chain id was found right.
#[derive(Debug, Clone, Copy)]
struct Checked {
    multicall: bool,
    until: Option<Instant>,
}

impl Node {
    pub(crate) fn new(http: Http, max_batch: usize) -> Self {
        Self {
            http,
            max_batch: max_batch.max(1),
            next_id: AtomicU64::new(1),
            batches: AtomicBool::new(true),
            height: AtomicU64::new(0),
            health: Mutex::new(Health::default()),
            checking: tokio::sync::Mutex::new(()),
        }
    }

    pub(crate) fn shown(&self) -> String {
        self.http.shown()
    }

    pub(crate) fn height(&self) -> u64 {
        self.height.load(Ordering::Relaxed)
    }

    pub(crate) fn reached(&self, height: u64) {
        self.height.store(height, Ordering::Relaxed);
    }

    /// Whether its chain id is known to be right. Not so before the first use, and not so after a failure.
    pub(crate) fn checked(&self, now: Instant) -> bool {
        let checked = self.health().checked;
        checked.is_some_and(|checked| checked.until.is_none_or(|until| now < until))
    }

    pub(crate) fn has_multicall(&self) -> bool {
        self.health().checked.is_some_and(|checked| checked.multicall)
    }

    pub(crate) fn passed_check(&self, multicall: Multicall, now: Instant) {
        let again = (multicall == Multicall::Missing).then(|| now + MULTICALL_AGAIN);
        let multicall = multicall == Multicall::Present;
        self.health().checked = Some(Checked { multicall, until: again });
    }

    /// Asks for a new check before the next use, without blame.
    pub(crate) fn doubt(&self) {
        self.health().checked = None;
    }

    pub(crate) fn backs_off(&self, now: Instant) -> bool {
        self.health().retry_at.is_some_and(|at| now < at)
    }

    pub(crate) fn failed_since(&self, then: Instant) -> bool {
        self.health().failed_at.is_some_and(|at| at >= then)
    }

    pub(crate) fn refuse(&self, now: Instant) {
        let mut health = self.health();
        health.checked = None;
        health.retry_at = Some(now + REFUSED_FOR);
    }

    pub(crate) fn worked(&self) {
        let mut health = self.health();
        health.failures = 0;
        health.retry_at = None;
    }

    /// Takes note of the failure of a request that began at `began`. Requests that were under way together when the
    /// node failed count once, so that load doesn't make a short fault a long one.
    pub(crate) fn failed(&self, began: Instant, now: Instant) {
        let mut health = self.health();
        health.checked = None;
        if health.failed_at.is_some_and(|at| began <= at) {
            return;
        }
        health.failures = health.failures.saturating_add(1);
        health.failed_at = Some(now);
        let doublings = health.failures.saturating_sub(2).min(16);
        let pause = FIRST_BACK_OFF.saturating_mul(1 << doublings).min(LAST_BACK_OFF);
        health.retry_at = (health.failures > 1).then(|| now + pause);
    }

    /// Asks all in one HTTP request (or in a few, within the node's limits); the answers are in the order of `asks`.
    pub(crate) async fn ask(&self, asks: &[Ask]) -> Result<Vec<Answer>, Failure> {
        if asks.len() <= self.max_batch {
            return self.ask_once(asks).await;
        }
        let parts = try_join_all(asks.chunks(self.max_batch).map(|chunk| self.ask_once(chunk))).await?;
        Ok(parts.into_iter().flatten().collect())
    }

    async fn ask_once(&self, asks: &[Ask]) -> Result<Vec<Answer>, Failure> {
        if let [ask] = asks {
            return Ok(vec![self.ask_one(ask).await?]);
        }
        if asks.is_empty() {
            return Ok(Vec::new());
        }
        if !self.batches.load(Ordering::Relaxed) {
            return try_join_all(asks.iter().map(|ask| self.ask_one(ask))).await;
        }
        let count = u64::try_from(asks.len()).unwrap_or(u64::MAX);
        let first = self.next_id.fetch_add(count, Ordering::Relaxed);
        let requests = (first..).zip(asks).map(|(id, ask)| request(id, ask));
        let packet = RequestPacket::Batch(requests.collect::<Result<_, _>>()?);
        match self.http.send(&packet).await? {
            ResponsePacket::Batch(responses) => in_order(first, asks.len(), responses),
            ResponsePacket::Single(response) => match response.payload {
                ResponsePayload::Failure(error) if wire::rate_limited(&error) => Err(Failure::RateLimited),
                ResponsePayload::Failure(_) => {
                    tracing::info!(node = self.shown(), "takes no batches: asking one by one");
                    self.batches.store(false, Ordering::Relaxed);
                    try_join_all(asks.iter().map(|ask| self.ask_one(ask))).await
                }
                ResponsePayload::Success(_) => Err(Failure::Unreadable),
            },
        }
    }

    async fn ask_one(&self, ask: &Ask) -> Result<Answer, Failure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        match self.http.send(&RequestPacket::Single(request(id, ask)?)).await? {
            ResponsePacket::Single(response) if response.id == Id::Number(id) => answer(response.payload),
            // A node that could not even read our request has no id to answer with; its error counts all the same.
            ResponsePacket::Single(Response {
                id: Id::None,
                payload: payload @ ResponsePayload::Failure(_),
            }) => answer(payload),
            _ => Err(Failure::Unreadable),
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // A panic elsewhere leaves plain values behind, none of them half written.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn request(id: u64, ask: &Ask) -> Result<alloy_json_rpc::SerializedRequest, Failure> {
    let request = Request::new(ask.method, Id::Number(id), ask.params.clone());
    // INVARIANT: a method name, a number and JSON serialize always.
    request.serialize().map_err(|_| Failure::Unreadable)
}

fn answer(payload: ResponsePayload) -> Result<Answer, Failure> {
    match payload {
        ResponsePayload::Success(result) => Ok(Ok(result)),
        ResponsePayload::Failure(error) if wire::rate_limited(&error) => Err(Failure::RateLimited),
        ResponsePayload::Failure(error) => Ok(Err(error)),
    }
}

/// Sorts the answers of a batch by their ids. Each request must have exactly one, and nothing else may be there.
///
/// Spec: JSON-RPC 2.0 section 6: the answers may come in any order.
fn in_order(first: u64, count: usize, responses: Vec<Response>) -> Result<Vec<Answer>, Failure> {
    if responses.len() != count {
        return Err(Failure::Unreadable);
    }
    let mut answers: Vec<Option<Answer>> = Vec::new();
    answers.resize_with(count, || None);
    for response in responses {
        let Id::Number(id) = response.id else { return Err(Failure::Unreadable) };
        let place = id.checked_sub(first).and_then(|place| usize::try_from(place).ok());
        let slot = place.and_then(|place| answers.get_mut(place)).ok_or(Failure::Unreadable)?;
        if slot.replace(answer(response.payload)?).is_some() {
            return Err(Failure::Unreadable);
        }
    }
    answers.into_iter().collect::<Option<_>>().ok_or(Failure::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn node() -> Node {
        let url = "http://127.0.0.1:1".parse().unwrap();
        let mut clients = crate::http::Clients::new(Duration::from_secs(1), 1);
        Node::new(Http::new(url, &mut clients).unwrap(), 10)
    }

    #[test]
    fn the_pause_grows_with_each_failure_and_ends_with_a_success() {
        let node = node();
        let mut now = Instant::now();
        node.passed_check(Multicall::Present, now);
        node.failed(now, now);
        // Once is no habit, but the chain id is asked for again.
        assert!(!node.backs_off(now) && !node.checked(now));
        for pause_ms in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            now += MS;
            node.failed(now, now);
            now += Duration::from_millis(pause_ms);
            assert!(node.backs_off(now - MS) && !node.backs_off(now), "{pause_ms}");
        }
        node.worked();
        now += MS;
        node.failed(now, now);
        assert!(!node.backs_off(now));
    }

    #[test]
    fn requests_that_fail_together_count_once() {
        let node = node();
        let began = Instant::now();
        for _ in 0..100 {
            node.failed(began, began + MS);
        }
        assert!(!node.backs_off(began + MS));
    }

    #[test]
    fn a_refused_node_is_left_alone_for_a_minute() {
        let node = node();
        let now = Instant::now();
        node.refuse(now);
        assert!(node.backs_off(now + REFUSED_FOR - MS) && !node.checked(now));
        assert!(!node.backs_off(now + REFUSED_FOR));
    }

    #[test]
    fn a_node_without_multicall_is_looked_at_again() {
        let node = node();
        let now = Instant::now();
        node.passed_check(Multicall::Missing, now);
        assert!(node.checked(now) && !node.has_multicall());
        assert!(!node.checked(now + MULTICALL_AGAIN));
        for multicall in [Multicall::NotWanted, Multicall::Present] {
            node.passed_check(multicall, now);
            assert!(node.checked(now + MULTICALL_AGAIN));
        }
    }
}
