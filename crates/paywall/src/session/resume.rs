//! Streams that go on where they broke off: what was charged and may not have arrived is given again, for nothing.
//!
//! A stream that its client gave a name runs in a task of its own, which outlives the connection for a while. The last
//! of what was charged is remembered with its ids; whoever comes back with the name and the last id it has (the header
//! `Last-Event-ID`) gets what followed, and then the rest of the stream. All of it is in memory: it ends with the
//! process.
//!
//! Spec: HTML, section 9.2.4, for the header; draft-evm-session-00, "Request Idempotency", for the name.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farthing_channel::ChannelId;
use farthing_engine::World;
use farthing_primitives::RequestHash;
use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use futures_util::future::{Either, poll_fn, select};
use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use super::events::named;
use super::relay::{Relay, Step};
use crate::body::PaywallBody;
use crate::limit::Hold;

/// How many events of a stream can be given again, at most.
pub const MAX_REPLAYED_EVENTS: usize = 4096;
/// How many bytes of them. One that is longer alone is not remembered.
pub const MAX_REPLAYED_BYTES: usize = 256 * 1024;
/// How long a stream waits for a client that is gone, and can be asked for again once it is over.
pub const RESUME_WITHIN: Duration = Duration::from_secs(30);
/// How often a stream that says nothing looks whether anybody listens.
const LOOK_FOR_READERS: Duration = Duration::from_secs(5);
/// How many streams can be taken up again, of all clients. Others end with their connection.
pub const MAX_RESUMABLE: usize = 256;
/// How many of them one channel pays for: whoever buys many short ones does not take all the places.
pub const MAX_RESUMABLE_OF_CHANNEL: usize = 16;

/// The ids that we give to events that have none.
const OURS: &str = "farthing-";

/// Whether an id was given by us, so that no upstream knows it.
pub(super) fn is_ours(id: &str) -> bool {
    id.starts_with(OURS)
}

/// The streams that can be taken up again, by the names of their requests.
#[derive(Default)]
pub(crate) struct Streams(Mutex<HashMap<RequestHash, Arc<Resumable>>>);

impl Streams {
    /// A stream that begins under this name, on this channel; `None` if there are too many.
    pub fn begin(
        &self,
        name: RequestHash,
        channel: ChannelId,
        asked: &str,
        hold: Hold,
    ) -> Option<Arc<Resumable>> {
        let mut all = lock(&self.0);
        // A name is used once; what is there under it is over.
        if !all.contains_key(&name) {
            let of_channel = all.values().filter(|stream| stream.channel == channel).count();
            if all.len() >= MAX_RESUMABLE || of_channel >= MAX_RESUMABLE_OF_CHANNEL {
                return None;
            }
        }
        let state = State { hold: Some(hold), ..State::default() };
        let stream = Arc::new(Resumable { asked: asked.to_owned(), channel, state: Mutex::new(state) });
        all.insert(name, stream.clone());
        Some(stream)
    }

    pub fn find(&self, name: RequestHash) -> Option<Arc<Resumable>> {
        lock(&self.0).get(&name).cloned()
    }

    /// As another process would.
    #[cfg(test)]
    pub fn forget_all(&self) {
        lock(&self.0).clear();
    }

    fn forget(&self, name: RequestHash, stream: &Arc<Resumable>) {
        let mut all = lock(&self.0);
        if all.get(&name).is_some_and(|known| Arc::ptr_eq(known, stream)) {
            all.remove(&name);
        }
    }
}

/// One stream, and who reads it.
pub(crate) struct Resumable {
    /// What was asked for under its name.
    asked: String,
    channel: ChannelId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    window: VecDeque<(String, Bytes)>,
    bytes: usize,
    /// How many events there were.
    events: u64,
    /// How many pieces were remembered, of whatever kind.
    recorded: u64,
    /// Whether the window still begins with the stream's first event.
    cut: bool,
    /// What the stream waits for now.
    need: Option<Bytes>,
    /// Its last word.
    last: Option<Bytes>,
    reader: Option<Reader>,
    /// How many readers there were.
    readers: u64,
    /// Who is told of the next reader.
    waiting: Option<oneshot::Sender<()>>,
    hold: Option<Hold>,
}

struct Reader {
    to: mpsc::Sender<Step>,
    number: u64,
    /// What was remembered when it came, it was given then.
    given: u64,
}

/// A stream that was taken up.
pub(super) struct Resumed {
    pub body: PaywallBody,
    /// How many events are given again.
    pub replayed: usize,
}

/// Nobody remembers an event of this id, or what followed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

impl Resumable {
    pub fn is_for(&self, asked: &str) -> bool {
        self.asked == asked
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// An event that is charged and about to leave: as it leaves, with an id.
    pub fn event(&self, raw: Bytes, id: Option<&str>) -> Bytes {
        let mut state = self.state();
        state.events = state.events.saturating_add(1);
        let (id, raw) = match id {
            Some(id) => (id.to_owned(), raw),
            None => {
                let id = format!("{OURS}{}", state.events);
                let named = named(&raw, &id);
                (id, named)
            }
        };
        state.recorded = state.recorded.saturating_add(1);
        state.need = None;
        let size = raw.len().saturating_add(id.len());
        let room = size <= MAX_REPLAYED_BYTES && state.hold.as_mut().is_some_and(|hold| hold.grow(size));
        if room {
            state.bytes = state.bytes.saturating_add(size);
            state.window.push_back((id, raw.clone()));
        } else {
            // What comes before it cannot be given without it.
            state.clear();
        }
        while state.window.len() > MAX_REPLAYED_EVENTS || state.bytes > MAX_REPLAYED_BYTES {
            state.cut = true;
            let Some((id, raw)) = state.window.pop_front() else { break };
            let size = id.len().saturating_add(raw.len());
            state.bytes = state.bytes.saturating_sub(size);
            if let Some(hold) = &mut state.hold {
                hold.shrink(size);
            }
        }
        raw
    }

    /// The stream waits for this.
    pub fn needs(&self, need: Bytes) {
        let mut state = self.state();
        state.recorded = state.recorded.saturating_add(1);
        state.need = Some(need);
    }

    /// The need is covered.
    pub fn covered(&self) {
        self.state().need = None;
    }

    /// The stream's last word.
    pub fn ends(&self, last: Bytes) {
        let mut state = self.state();
        state.recorded = state.recorded.saturating_add(1);
        (state.need, state.last) = (None, Some(last));
    }

    /// A reader that begins with what followed the event of this id; without one, with the first event. It takes the
    /// place of the one before.
    pub(super) fn attach(&self, after: Option<&str>) -> Result<Resumed, Gone> {
        let mut state = self.state();
        let from = match after {
            None | Some("") if !state.cut => 0,
            None | Some("") => return Err(Gone),
            Some(id) => {
                state.window.iter().rposition(|(known, _)| known == id).map(|at| at + 1).ok_or(Gone)?
            }
        };
        let events: Vec<Bytes> = state.window.iter().skip(from).map(|(_, raw)| raw.clone()).collect();
        let replayed = events.len();
        let control = state.need.iter().chain(&state.last).cloned();
        let again: Vec<Step> =
            events.into_iter().chain(control).map(|bytes| Ok(Frame::data(bytes))).collect();
        let (to, rest) = mpsc::channel(0);
        state.readers = state.readers.saturating_add(1);
        // One that is over has nothing more to say.
        state.reader = match &state.last {
            Some(_) => None,
            None => Some(Reader { to, number: state.readers, given: state.recorded }),
        };
        if let Some(waiting) = state.waiting.take() {
            // Whoever does not wait any more needs no news.
            let _ = waiting.send(());
        }
        drop(state);
        let body = StreamBody::new(stream::iter(again).chain(rest)).boxed_unsync();
        Ok(Resumed { body, replayed })
    }

    /// Gives a piece to whoever reads. `false` if nobody does.
    async fn give(&self, piece: Step) -> bool {
        let (mut reader, newer) = {
            let mut state = self.state();
            let Some(reader) = state.reader.take() else { return false };
            // It came after this was remembered, and has it.
            if reader.given >= state.recorded && piece.is_ok() {
                state.reader = Some(reader);
                return true;
            }
            let (tell, newer) = oneshot::channel();
            state.waiting = Some(tell);
            (reader, newer)
        };
        let ready = poll_fn(|cx| reader.to.poll_ready(cx));
        match select(pin!(ready), newer).await {
            Either::Left((Ok(()), _)) => {}
            // What is not given now was remembered, and the next reader gets it.
            Either::Left((Err(_), _)) => return false,
            Either::Right(_) => return true,
        }
        if reader.to.start_send(piece).is_err() {
            return false;
        }
        let mut state = self.state();
        if state.readers == reader.number {
            state.reader = Some(reader);
        }
        true
    }

    /// Returns once nobody has read for so long that nobody will.
    async fn deserted(&self, world: &dyn World) {
        let mut alone = Duration::ZERO;
        while alone < RESUME_WITHIN {
            world.sleep(LOOK_FOR_READERS).await;
            let is_read = self.state().reader.as_ref().is_some_and(|reader| !reader.to.is_closed());
            alone = if is_read { Duration::ZERO } else { alone.saturating_add(LOOK_FOR_READERS) };
        }
    }

    /// Waits for a reader. `false` if none comes.
    async fn wait(&self, world: &dyn World) -> bool {
        let newer = {
            let mut state = self.state();
            if state.reader.is_some() {
                return true;
            }
            let (tell, newer) = oneshot::channel();
            state.waiting = Some(tell);
            newer
        };
        matches!(select(newer, world.sleep(RESUME_WITHIN)).await, Either::Left((Ok(()), _)))
    }
}

impl State {
    fn clear(&mut self) {
        self.cut = true;
        self.window.clear();
        if let Some(hold) = &mut self.hold {
            hold.shrink(self.bytes);
        }
        self.bytes = 0;
    }
}

/// Reads a stream to its end, whoever listens, for as long as somebody does or may come back.
pub(super) async fn run(
    mut relay: Relay,
    stream: Arc<Resumable>,
    all: Arc<Streams>,
    name: RequestHash,
    world: Arc<dyn World>,
) {
    loop {
        let step = {
            // The service may say nothing for long, and then nobody would see that nobody listens.
            let (next, nobody) = (pin!(relay.step()), pin!(stream.deserted(&*world)));
            match select(next, nobody).await {
                Either::Left((step, _)) => step,
                Either::Right(_) => None,
            }
        };
        let Some(step) = step else { break };
        if stream.give(step).await {
            continue;
        }
        if !stream.wait(&*world).await {
            // Nobody came back: what left is charged, and nothing else.
            relay.give_up().await;
            break;
        }
        relay.stood_still();
    }
    // What it was paid from is free again, also if it was left in the middle of something.
    drop(relay);
    // It may not have arrived.
    stream.state().reader = None;
    world.sleep(RESUME_WITHIN).await;
    all.forget(name, &stream);
}

/// A panic elsewhere must not stop the service: every guarded value is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
