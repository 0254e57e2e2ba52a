use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use farthing_engine::Permit;
use farthing_payment::{Fault, Flow, Reason};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of every answer that leaves the paywall.
pub type PaywallBody = UnsyncBoxBody<Bytes, BoxError>;

pub(crate) fn empty() -> PaywallBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> PaywallBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn boxed<B>(body: B) -> PaywallBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// A stored body, and its trailers.
pub(crate) fn stored(bytes: Bytes, trailers: HeaderMap) -> PaywallBody {
    if trailers.is_empty() {
        return full(bytes);
    }
    // A body that tells its length is sent without chunks over HTTP/1.1, and nothing can follow it there.
    let frames = [Ok(Frame::data(bytes)), Ok::<_, BoxError>(Frame::trailers(trailers))];
    StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync()
}

/// A body that keeps something until it is sent, or given up.
pub(crate) fn keeping<G: Send + Unpin + 'static>(body: PaywallBody, guard: G) -> PaywallBody {
    Keeping { body, _guard: guard }.boxed_unsync()
}

struct Keeping<G> {
    body: PaywallBody,
    _guard: G,
}

impl<G: Unpin> Body for Keeping<G> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Calls back once it is known whether what was handed to the connection left for the client.
type WhenGone = dyn Fn(Box<dyn FnOnce(bool) + Send>) + Send + Sync;

/// The way out to the client, where the server knows: put it into the request's extensions.
///
/// Without it an answer counts as delivered once the server has taken its last piece, which may then lie in a buffer
/// while the client hangs up.
#[derive(Clone)]
pub struct ClientExit(Arc<WhenGone>);

impl ClientExit {
    /// `when_gone` is given what to call: with `true` once everything that the connection was handed before has left
    /// for the client, with `false` once it is known that it never will.
    pub fn new(when_gone: impl Fn(Box<dyn FnOnce(bool) + Send>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(when_gone))
    }
}

impl fmt::Debug for ClientExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientExit")
    }
}

/// A body that is on its way to the payer, with the duty to say whether it got there whole.
///
/// It reports when it is given up by the server, which does so when it has taken the last piece, or will take no more.
/// Given up before its end, it reports an interrupted delivery: whoever paid is owed one. Whoever has not paid yet
/// is not: a payer that hangs up before the last byte has what came before it, and that is charged for.
pub(crate) struct Delivery<B> {
    inner: Pin<Box<B>>,
    permit: Option<Permit>,
    flow: Flow,
    exit: Option<ClientExit>,
    begun: bool,
    whole: bool,
}

impl<B: Body> Delivery<B> {
    /// `bodiless` is whether the server may send the answer without ever asking for its body.
    pub fn new(inner: B, permit: Permit, flow: Flow, exit: Option<ClientExit>, bodiless: bool) -> Self {
        let whole = bodiless || inner.is_end_stream();
        Self { inner: Box::pin(inner), permit: Some(permit), flow, exit, begun: false, whole }
    }
}

impl<B> Drop for Delivery<B> {
    fn drop(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        match (self.flow, self.exit.take()) {
            (Flow::Background, _) if self.whole || self.begun => permit.delivered(),
            // It was taken to its end; whether it leaves is seen at the connection.
            (_, Some(exit)) if self.whole => (exit.0)(Box::new(move |left| {
                if left {
                    permit.delivered();
                }
            })),
            (_, None) if self.whole => permit.delivered(),
            _ => {}
        }
    }
}

/// A stored answer on its way to whoever paid: says when all of it is gone, and nothing if it never is.
pub(crate) struct Parting {
    body: PaywallBody,
    gone: Option<Box<dyn FnOnce() + Send>>,
    exit: Option<ClientExit>,
    whole: bool,
}

impl Parting {
    /// `bodiless` is whether the server may send the answer without ever asking for its body. What `gone` holds is
    /// dropped when it is called, or known never to be.
    pub fn new(
        body: PaywallBody,
        exit: Option<ClientExit>,
        bodiless: bool,
        gone: impl FnOnce() + Send + 'static,
    ) -> Self {
        let whole = bodiless || body.is_end_stream();
        Self { body, gone: Some(Box::new(gone)), exit, whole }
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        let Some(gone) = self.gone.take().filter(|_| self.whole) else { return };
        match self.exit.take() {
            Some(exit) => (exit.0)(Box::new(move |left| {
                if left {
                    gone();
                }
            })),
            None => gone(),
        }
    }
}

impl Body for Parting {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        // The server may not ask again after the last frame.
        self.whole |= match &polled {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => self.body.is_end_stream(),
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Body for Delivery<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = self.inner.as_mut().poll_frame(cx);
        match &polled {
            Poll::Ready(None) => self.whole = true,
            Poll::Ready(Some(Err(_))) => {
                if let Some(permit) = self.permit.take() {
                    permit.failed(Reason::new("upstream_truncated", Fault::Payee));
                }
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.begun |= frame.data_ref().is_some_and(|data| !data.is_empty());
                // The server may not ask again after the last frame.
                self.whole |= self.inner.is_end_stream();
            }
            Poll::Pending => {}
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
