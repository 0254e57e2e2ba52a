//! The body of a metered stream: an event leaves once it is charged, and not before.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farthing_channel::{Need, Receipt as State, Refusal};
use farthing_engine::{Ticket, TillError, Woken, World};
use farthing_wire::mpp::WireTime;
use farthing_wire::mpp::sse::{Event as Ours, NeedVoucher};
use futures_util::future::{Either, poll_immediate, select};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::count::{Count, in_json, millis};
use super::credential::Words;
use super::events::{Splitter, read};
use crate::body::{BoxError, PaywallBody};
use crate::limit::Hold;
use crate::paywall::Shared;

/// How many events that came together are charged together.
const MOST_AT_ONCE: usize = 64;
/// How often time is charged while nothing comes.
const TICK: Duration = Duration::from_secs(1);
/// How long one look lasts whether the stream is over for other reasons; then the next begins.
const LOOK: Duration = Duration::from_secs(3600);
/// No voucher is for so much: what waits for it hears of the stream's end alone.
const NEVER: Need = Need { required: u128::MAX, accepted: 0, deposit: 0 };

/// How a stream is charged, and what is said of it.
pub(super) struct Rules {
    pub count: Count,
    /// What each event is worth, where its head says it.
    pub worth: u64,
    pub patience: Duration,
    pub words: Words,
}

/// Something to be charged, and then to leave.
struct Piece {
    bytes: Bytes,
    units: u64,
}

/// Where the relay stands.
enum Phase {
    Running,
    /// The upstream has nothing more.
    Drained,
    /// The last event is out, and the stream breaks.
    Broken(BoxError),
    Over,
}

/// Reads the upstream, and passes on what is paid.
pub(super) struct Relay {
    upstream: PaywallBody,
    splitter: Splitter,
    hold: Hold,
    held: usize,
    /// Dropped with the body, whoever drops it: what left is charged, and nothing else.
    ticket: Option<Ticket>,
    world: Arc<dyn World>,
    rules: Rules,
    ready: VecDeque<Piece>,
    /// Whether what is ready is charged piece by piece: together it was too much.
    narrow: bool,
    waiting: Option<Need>,
    /// Since when time is not charged yet.
    since: Duration,
    /// The units of this request, and what the channel was at last.
    units: u64,
    state: State,
    phase: Phase,
}

type Step = Result<Frame<Bytes>, BoxError>;

/// What the upstream, or time, brought.
enum News {
    Frame(Option<Step>),
    Tick,
    Over,
    /// It cannot be told whether the stream may go on.
    Unknown(TillError),
}

impl Relay {
    pub fn new(upstream: PaywallBody, ticket: Ticket, state: State, rules: Rules, shared: &Shared) -> Self {
        Self {
            upstream,
            splitter: Splitter::default(),
            // For all together: a stream holds a part of one event.
            hold: shared.memory.hold(None),
            held: 0,
            ticket: Some(ticket),
            world: shared.world.clone(),
            since: shared.world.monotonic(),
            rules,
            ready: VecDeque::new(),
            narrow: false,
            waiting: None,
            units: 0,
            state,
            phase: Phase::Running,
        }
    }

    pub fn into_body(self) -> PaywallBody {
        let steps = stream::unfold(self, |mut relay| async move {
            let step = relay.step().await?;
            Some((step, relay))
        });
        StreamBody::new(steps).boxed_unsync()
    }

    async fn step(&mut self) -> Option<Step> {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Broken(error) => return Some(Err(error)),
                phase => self.phase = phase,
            }
            if let Some(need) = self.waiting.take()
                && let Some(last) = self.wait(&need).await
            {
                return Some(last);
            }
            if !self.ready.is_empty() {
                match self.pay().await {
                    Some(step) => return Some(step),
                    None => continue,
                }
            }
            self.narrow = false;
            if matches!(self.phase, Phase::Drained) {
                return Some(self.finish(None).await);
            }
            if let Some(last) = self.fetch().await {
                return Some(last);
            }
        }
    }

    /// Waits for a voucher. Returns the stream's last event if none comes.
    async fn wait(&mut self, need: &Need) -> Option<Step> {
        let ticket = self.ticket.as_ref()?;
        match ticket.wait(need, self.rules.patience).await {
            Ok(Woken::Covered) => {
                self.narrow = false;
                // Time stood still meanwhile.
                self.since = self.world.monotonic();
                None
            }
            Ok(Woken::TimedOut | Woken::Over) => Some(self.finish(None).await),
            Err(error) => Some(self.finish(Some(error.into())).await),
        }
    }

    /// Charges what is ready, and lets it leave. `None` if there is nothing to send for it.
    ///
    /// Spec: draft-evm-session-00, "Per-Request Processing" 3: charged, durably, before it is delivered.
    async fn pay(&mut self) -> Option<Step> {
        let together = if self.narrow { 1 } else { self.ready.len().min(MOST_AT_ONCE) };
        let units = self.ready.iter().take(together).fold(0u64, |sum, piece| sum.saturating_add(piece.units));
        if units > 0 {
            let ticket = self.ticket.as_ref()?;
            match ticket.meter(units).await {
                Ok(state) => {
                    self.units = self.units.saturating_add(units);
                    self.state = state;
                }
                Err(TillError::Refused(Refusal::NeedsVoucher(_))) if together > 1 => {
                    self.narrow = true;
                    return None;
                }
                // Spec: draft-evm-session-00, "Insufficient Balance During Streaming".
                Err(TillError::Refused(Refusal::NeedsVoucher(need))) => {
                    self.waiting = Some(need);
                    return Some(Ok(Frame::data(self.need(&need))));
                }
                // Another stream took its place, or the channel is being closed.
                Err(TillError::Refused(_) | TillError::NotRunning) => return Some(self.finish(None).await),
                Err(error) => return Some(self.finish(Some(error.into())).await),
            }
        }
        let mut bytes = BytesMut::new();
        let mut pieces = self.ready.drain(..together);
        // One alone need not be copied.
        let only = if together == 1 { pieces.next().map(|piece| piece.bytes) } else { None };
        pieces.for_each(|piece| bytes.extend_from_slice(&piece.bytes));
        let bytes = only.unwrap_or_else(|| bytes.freeze());
        (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
    }

    /// Waits for more. Returns the stream's last event if there will be none.
    async fn fetch(&mut self) -> Option<Step> {
        let timed = self.rules.count == Count::Elapsed;
        let news = {
            let ticket = self.ticket.as_ref()?;
            let mut frame = pin!(self.upstream.frame());
            match poll_immediate(frame.as_mut()).await {
                Some(frame) => News::Frame(frame),
                None => {
                    let over = pin!(ticket.wait(&NEVER, LOOK));
                    let tick = self.world.sleep(if timed { TICK } else { LOOK });
                    match select(frame, select(over, tick)).await {
                        Either::Left((frame, _)) => News::Frame(frame),
                        Either::Right((Either::Left((Ok(Woken::Over), _)), _)) => News::Over,
                        Either::Right((Either::Left((Err(error), _)), _)) => News::Unknown(error),
                        Either::Right(_) => News::Tick,
                    }
                }
            }
        };
        match news {
            News::Frame(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.take(&data).await,
                // A stream of events has no trailers that anybody reads.
                Err(_) => None,
            },
            News::Frame(Some(Err(error))) => Some(self.finish(Some(error)).await),
            News::Frame(None) => {
                self.phase = Phase::Drained;
                if let Some(raw) = self.splitter.rest() {
                    self.put(raw);
                }
                None
            }
            News::Tick => {
                if timed {
                    let units = self.elapsed();
                    self.ready.push_back(Piece { bytes: Bytes::new(), units });
                }
                None
            }
            News::Over => Some(self.finish(None).await),
            News::Unknown(error) => Some(self.finish(Some(error.into())).await),
        }
    }

    async fn take(&mut self, data: &[u8]) -> Option<Step> {
        if self.splitter.push(data).is_err() {
            return Some(self.finish(Some("an event of the upstream is too long".into())).await);
        }
        while let Some(raw) = self.splitter.next() {
            self.put(raw);
        }
        let more = self.splitter.held().saturating_sub(self.held);
        if !self.hold.grow(more) {
            return Some(self.finish(Some("there is no room for another event".into())).await);
        }
        self.held += more;
        None
    }

    /// What an event costs.
    fn put(&mut self, raw: Bytes) {
        let event = read(&raw);
        // Only we say what is paid: an upstream's word would be taken for ours.
        if event.ours {
            tracing::debug!("an event of the upstream has a name that is the paywall's, and is left out");
            return;
        }
        let units = match (&self.rules.count, &event.data) {
            (Count::Elapsed, _) => self.elapsed(),
            // Nobody is delivered an event without data.
            (_, None) => 0,
            // The first event stands for the request.
            (Count::Request, Some(_)) => {
                let begun = self.units > 0 || self.ready.iter().any(|piece| piece.units > 0);
                u64::from(!begun)
            }
            (Count::Events, Some(_)) => 1,
            (Count::Header(_), Some(_)) => self.rules.worth,
            (Count::Bytes, Some(_)) => raw.len() as u64,
            (Count::Json(path), Some(data)) => in_json(path, data).unwrap_or(0),
        };
        self.ready.push_back(Piece { bytes: raw, units });
    }

    /// The milliseconds that are not charged yet; they are somebody's now.
    fn elapsed(&mut self) -> u64 {
        let now = self.world.monotonic();
        millis(now.saturating_sub(std::mem::replace(&mut self.since, now)))
    }

    fn need(&self, need: &Need) -> Bytes {
        let event = Ours::NeedVoucher(NeedVoucher {
            channel_id: self.rules.words.channel().0,
            required_cumulative: need.required,
            accepted_cumulative: need.accepted,
            deposit: need.deposit,
        });
        event.print().into()
    }

    /// The last event, and the end: a clean one, unless something broke.
    ///
    /// Spec: draft-evm-session-00, "Receipt Generation".
    async fn finish(&mut self, error: Option<BoxError>) -> Step {
        if let Some(ticket) = self.ticket.take() {
            if matches!(self.phase, Phase::Drained) && self.rules.count == Count::Elapsed {
                // What is left of the time since the last event; where it is not covered, it is too little to ask for.
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
        self.phase = error.map_or(Phase::Over, Phase::Broken);
        let receipt =
            self.rules.words.receipt(&self.state, Some(self.units), WireTime::from(self.world.now()));
        Ok(Frame::data(Ours::Receipt(receipt).print().into()))
    }
}
