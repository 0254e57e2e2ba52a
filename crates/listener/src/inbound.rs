use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{BoxError, Limits};

/// A request's body as it comes in. It ends with an error if it does not come fast enough.
///
/// That holds until the answer begins: from then on both may talk as they like.
#[derive(Debug)]
pub struct Inbound {
    body: Incoming,
    pace: Pace,
}

/// How long a sender kept us waiting, and what it sent for that.
#[derive(Debug)]
struct Pace {
    limits: Limits,
    answered: Arc<AtomicBool>,
    /// For how long it was waited for in all, without the present time.
    waited: Duration,
    bytes: u64,
    /// Since when it is waited for now, and until when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

/// The sender was too slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSlow;

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request's body came too slowly")
    }
}

impl std::error::Error for TooSlow {}

impl Inbound {
    /// `answered` is set by whoever begins the answer.
    pub(crate) fn new(body: Incoming, limits: Limits, answered: Arc<AtomicBool>) -> Self {
        Self { body, pace: Pace { limits, answered, waited: Duration::ZERO, bytes: 0, waiting: None } }
    }
}

impl Pace {
    fn came(&mut self, bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.limits.min_rate == 0 {
            self.waited = Duration::ZERO;
        }
    }

    /// # Errors
    /// [`TooSlow`] when the time is up.
    fn wait(&mut self, cx: &mut Context<'_>) -> Result<(), TooSlow> {
        let (_, until) = self.waiting.get_or_insert_with(|| {
            let bought =
                if self.limits.min_rate == 0 { Duration::ZERO } else { self.limits.bought_by(self.bytes) };
            let allowed = self.limits.stall_timeout.saturating_add(bought).saturating_sub(self.waited);
            let now = Instant::now();
            // What cannot be counted is for ever: a day is.
            let until = now.checked_add(allowed).unwrap_or(now + Duration::from_secs(86_400));
            (now, Box::pin(sleep_until(until)))
        });
        if until.as_mut().poll(cx).is_pending() || self.answered.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(TooSlow)
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref().map(Bytes::len));
                self.pace.came(bytes.unwrap_or_default());
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => match self.pace.wait(cx) {
                Ok(()) => Poll::Pending,
                Err(slow) => Poll::Ready(Some(Err(slow.into()))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
