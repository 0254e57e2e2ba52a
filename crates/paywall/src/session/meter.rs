//! What of a stream may leave: an event or a message is charged, and then it leaves, and not before.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use farthing_channel::{ChannelId, Need, Receipt as State, Refusal};
use farthing_engine::{Ticket, TillError, Woken, World};
use farthing_wire::mpp::sse::NeedVoucher;
use farthing_wire::mpp::{Receipt, WireTime};

use super::count::{Count, in_json, millis};
use super::credential::Words;
use super::refuse::needs;
use crate::body::BoxError;

/// How many pieces that came together are charged together.
const MOST_AT_ONCE: usize = 64;
/// How often time is charged while nothing comes.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// How long one look lasts whether the stream is over for other reasons; then the next begins.
pub(super) const LOOK: Duration = Duration::from_secs(3600);

/// How a stream is charged, and what is said of it.
pub(super) struct Rules {
    pub count: Count,
    /// What each piece is worth, where the stream's head says it.
    pub worth: u64,
    pub patience: Duration,
    pub words: Words,
}

/// Something to be charged, and then to leave.
struct Piece<T> {
    what: T,
    units: u64,
}

/// What came of an attempt to pay for what is ready.
pub(super) enum Charged {
    /// So many pieces are charged, and leave: see [`Meter::leaving`].
    Leave(usize),
    /// Together they were too much; the next attempt is for the first alone.
    Narrower,
    /// Nothing leaves before a voucher covers this.
    Need(Need),
    /// Another stream took its place, or the channel is being closed.
    Over,
    /// It cannot be told whether the stream may go on.
    Failed(BoxError),
}

/// Counts what a stream brings, and charges it in order.
pub(super) struct Meter<T> {
    /// Dropped with the stream, whoever drops it: what left is charged, and nothing else.
    ticket: Option<Ticket>,
    world: Arc<dyn World>,
    rules: Rules,
    ready: VecDeque<Piece<T>>,
    /// Whether what is ready is charged piece by piece: together it was too much.
    narrow: bool,
    /// How many units wait for a voucher.
    uncovered: Option<u64>,
    /// Since when time is not charged yet.
    since: Duration,
    /// The units of this request, and what the channel was at last.
    units: u64,
    state: State,
}

impl<T> Meter<T> {
    pub fn new(ticket: Ticket, state: State, rules: Rules, world: Arc<dyn World>) -> Self {
        Self {
            ticket: Some(ticket),
            since: world.monotonic(),
            world,
            rules,
            ready: VecDeque::new(),
            narrow: false,
            uncovered: None,
            units: 0,
            state,
        }
    }

    /// What it is charged by; `None` once it came to its end.
    pub fn ticket(&self) -> Option<&Ticket> {
        self.ticket.as_ref()
    }

    pub fn channel(&self) -> ChannelId {
        self.rules.words.channel()
    }

    pub fn patience(&self) -> Duration {
        self.rules.patience
    }

    pub fn is_timed(&self) -> bool {
        self.rules.count == Count::Elapsed
    }

    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
    }

    /// Whether one more piece would be charged with those that are ready.
    pub fn has_room(&self) -> bool {
        self.ready.len() < MOST_AT_ONCE
    }

    /// Takes in a piece. `data` is what the buyer reads of it, `bytes` how long it is; one without data is delivered to
    /// nobody, and costs nothing.
    pub fn put(&mut self, what: T, data: Option<&[u8]>, bytes: usize) {
        let units = match (&self.rules.count, data) {
            (Count::Elapsed, _) => self.elapsed(),
            (_, None) => 0,
            // The first piece stands for the request.
            (Count::Request, Some(_)) => {
                let begun = self.units > 0 || self.ready.iter().any(|piece| piece.units > 0);
                u64::from(!begun)
            }
            (Count::Events, Some(_)) => 1,
            (Count::Header(_), Some(_)) => self.rules.worth,
            (Count::Bytes, Some(_)) => bytes as u64,
            (Count::Json(path), Some(data)) => in_json(path, data).unwrap_or(0),
        };
        self.ready.push_back(Piece { what, units });
    }

    /// Time went on, and nothing came: `nothing` stands for it.
    pub fn tick(&mut self, nothing: T) {
        let units = self.elapsed();
        self.ready.push_back(Piece { what: nothing, units });
    }

    /// The milliseconds that are not charged yet; they are somebody's now.
    fn elapsed(&mut self) -> u64 {
        let now = self.world.monotonic();
        millis(now.saturating_sub(std::mem::replace(&mut self.since, now)))
    }

    /// Charges what is ready.
    ///
    /// Spec: draft-evm-session-00, "Per-Request Processing" 3: charged, durably, before it is delivered.
    pub async fn pay(&mut self) -> Charged {
        let together = if self.narrow { 1 } else { self.ready.len().min(MOST_AT_ONCE) };
        let units = self.ready.iter().take(together).fold(0u64, |sum, piece| sum.saturating_add(piece.units));
        if units > 0 {
            let Some(ticket) = self.ticket.as_ref() else { return Charged::Over };
            match ticket.meter(units).await {
                Ok(state) => {
                    self.units = self.units.saturating_add(units);
                    self.state = state;
                }
                Err(TillError::Refused(Refusal::NeedsVoucher(_))) if together > 1 => {
                    self.narrow = true;
                    return Charged::Narrower;
                }
                // Spec: draft-evm-session-00, "Insufficient Balance During Streaming".
                Err(TillError::Refused(Refusal::NeedsVoucher(need))) => {
                    self.uncovered = Some(units);
                    return Charged::Need(need);
                }
                Err(TillError::Refused(_) | TillError::NotRunning) => return Charged::Over,
                Err(error) => return Charged::Failed(error.into()),
            }
        }
        Charged::Leave(together)
    }

    /// What was charged, in order.
    pub fn leaving(&mut self, many: usize) -> impl Iterator<Item = T> {
        let leaving = self.ready.drain(..many.min(self.ready.len()));
        leaving.map(|piece| piece.what)
    }

    /// Nothing is ready any more, so that what comes next is charged together again.
    pub fn widen(&mut self) {
        self.narrow = false;
    }

    /// Waits until a voucher covers what is needed, for at most so long; where nothing is, for the stream's end.
    pub async fn wait(&self, patience: Duration) -> Result<Woken, TillError> {
        match &self.ticket {
            Some(ticket) => ticket.wait(self.uncovered, patience).await,
            None => Ok(Woken::Over),
        }
    }

    /// The need is covered, and the stream goes on. Time stood still meanwhile.
    pub fn covered(&mut self) {
        self.narrow = false;
        self.uncovered = None;
        self.since = self.world.monotonic();
    }

    pub fn need(&self, need: &Need) -> NeedVoucher {
        needs(self.channel(), &self.ticket().map_or(*need, |ticket| ticket.asks(*need)))
    }

    /// The end of the charge, and the receipt that is the stream's last word. `whole`: the upstream has nothing more.
    ///
    /// Spec: draft-evm-session-00, "Receipt Generation".
    pub async fn finish(&mut self, whole: bool) -> Receipt {
        if let Some(ticket) = self.ticket.take() {
            if whole && self.is_timed() {
                // What is left of the time since the last piece; where it is not covered, it is too little to ask for.
                let rest = self.elapsed();
                if rest > 0 && ticket.meter(rest).await.is_ok() {
                    self.units = self.units.saturating_add(rest);
                }
            }
            if let Ok(state) = ticket.receipt().await {
                self.state = state;
            }
            if let Ok(state) = ticket.end(0).await {
                self.state = state;
            }
        }
        self.ready.clear();
        self.rules.words.receipt(&self.state, Some(self.units), WireTime::from(self.world.now()))
    }
}
