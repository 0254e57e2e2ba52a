//! The body of a metered stream of events.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use farthing_channel::Receipt as State;
use farthing_engine::{Ticket, TillError, Woken, World};
use farthing_wire::mpp::sse::Event as Ours;
use futures_util::future::{Either, poll_immediate, select};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::events::{Splitter, read};
use super::meter::{Charged, LOOK, Meter, Rules, TICK};
use super::resume::Resumable;
use crate::body::{BoxError, PaywallBody};
use crate::limit::Hold;
use crate::paywall::Shared;

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
    meter: Meter<Piece>,
    /// Where what was charged is remembered, if it is.
    record: Option<Arc<Resumable>>,
    world: Arc<dyn World>,
    waiting: bool,
    phase: Phase,
}

/// What leaves: an event, with the id that it has.
#[derive(Default)]
struct Piece {
    bytes: Bytes,
    id: Option<String>,
    /// A reader that has it has another last id.
    moves_on: bool,
}

pub(super) type Step = Result<Frame<Bytes>, BoxError>;

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
            meter: Meter::new(ticket, state, rules, shared.world.clone()),
            record: None,
            world: shared.world.clone(),
            waiting: false,
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

    /// Remembers what is charged.
    pub fn recorded(self, record: Arc<Resumable>) -> Self {
        Self { record: Some(record), ..self }
    }

    /// Nobody listened for a while, and that is nobody's time.
    pub fn stood_still(&mut self) {
        self.meter.covered();
    }

    /// Ends it, with nobody there to be told.
    pub async fn give_up(&mut self) {
        let _ = self.finish(None).await;
    }

    pub async fn step(&mut self) -> Option<Step> {
        loop {
            match std::mem::replace(&mut self.phase, Phase::Over) {
                Phase::Over => return None,
                Phase::Broken(error) => return Some(Err(error)),
                phase => self.phase = phase,
            }
            if std::mem::take(&mut self.waiting)
                && let Some(last) = self.wait().await
            {
                return Some(last);
            }
            if !self.meter.is_empty() {
                match self.pay().await {
                    Some(step) => return Some(step),
                    None => continue,
                }
            }
            self.meter.widen();
            if matches!(self.phase, Phase::Drained) {
                return Some(self.finish(None).await);
            }
            if let Some(last) = self.fetch().await {
                return Some(last);
            }
        }
    }

    /// Waits for a voucher. Returns the stream's last event if none comes.
    async fn wait(&mut self) -> Option<Step> {
        match self.meter.wait(self.meter.patience()).await {
            Ok(Woken::Covered) => {
                self.meter.covered();
                if let Some(record) = &self.record {
                    record.covered();
                }
                None
            }
            Ok(Woken::TimedOut | Woken::Over) => Some(self.finish(None).await),
            Err(error) => Some(self.finish(Some(error.into())).await),
        }
    }

    /// Charges what is ready, and lets it leave. `None` if there is nothing to send for it.
    async fn pay(&mut self) -> Option<Step> {
        let together = match self.meter.pay().await {
            Charged::Leave(together) => together,
            Charged::Narrower => return None,
            Charged::Need(need) => {
                self.waiting = true;
                let event: Bytes = Ours::NeedVoucher(self.meter.need(&need)).print().into();
                if let Some(record) = &self.record {
                    record.needs(event.clone());
                }
                return Some(Ok(Frame::data(event)));
            }
            Charged::Over => return Some(self.finish(None).await),
            Charged::Failed(error) => return Some(self.finish(Some(error)).await),
        };
        let mut bytes = BytesMut::new();
        let record = self.record.clone();
        let mut pieces = self.meter.leaving(together).map(|piece| match &record {
            Some(record) if piece.moves_on => record.event(piece.bytes, piece.id.as_deref()),
            _ => piece.bytes,
        });
        // One alone need not be copied.
        let only = if together == 1 { pieces.next() } else { None };
        pieces.for_each(|piece| bytes.extend_from_slice(&piece));
        let bytes = only.unwrap_or_else(|| bytes.freeze());
        (!bytes.is_empty()).then(|| Ok(Frame::data(bytes)))
    }

    /// Waits for more. Returns the stream's last event if there will be none.
    async fn fetch(&mut self) -> Option<Step> {
        let timed = self.meter.is_timed();
        let news = {
            let ticket = self.meter.ticket()?;
            let mut frame = pin!(self.upstream.frame());
            match poll_immediate(frame.as_mut()).await {
                Some(frame) => News::Frame(frame),
                None => {
                    let over = pin!(ticket.wait(None, LOOK));
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
                    self.meter.tick(Piece::default());
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

    fn put(&mut self, raw: Bytes) {
        let event = read(&raw);
        // Only we say what is paid: an upstream's word would be taken for ours.
        if event.ours {
            tracing::debug!("an event of the upstream has a name that is the paywall's, and is left out");
            return;
        }
        let bytes = raw.len();
        let piece = Piece { bytes: raw, id: event.id, moves_on: event.data.is_some() || event.renames };
        self.meter.put(piece, event.data.as_deref(), bytes);
    }

    /// The last event, and the end: a clean one, unless something broke.
    async fn finish(&mut self, error: Option<BoxError>) -> Step {
        let whole = matches!(self.phase, Phase::Drained);
        self.phase = error.map_or(Phase::Over, Phase::Broken);
        let receipt = self.meter.finish(whole).await;
        let last: Bytes = Ours::Receipt(receipt).print().into();
        if let Some(record) = &self.record {
            record.ends(last.clone());
        }
        Ok(Frame::data(last))
    }
}
