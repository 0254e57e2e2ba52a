use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::MAX_FRAME_OF_ANSWER;
use crate::pulse::UnderWay;

/// An answer's body on its way out. Its request is under way until this is dropped or read to its end.
#[derive(Debug)]
pub struct Outbound<B> {
    body: Pin<Box<B>>,
    /// What is left of a long piece.
    rest: Bytes,
    /// `None` at the end.
    under_way: Option<UnderWay>,
    name: u64,
}

impl<B> Outbound<B> {
    pub(crate) fn new(body: B, under_way: UnderWay) -> Self {
        let name = under_way.pulse().name();
        Self { body: Box::pin(body), rest: Bytes::new(), under_way: Some(under_way), name }
    }

    fn end(&mut self) {
        if let Some(under_way) = self.under_way.take() {
            under_way.pulse().taken(self.name);
        }
    }
}

impl<B> Drop for Outbound<B> {
    fn drop(&mut self) {
        self.end();
    }
}

impl<B: Body<Data = Bytes>> Body for Outbound<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let polled = if this.rest.is_empty() {
            this.body.as_mut().poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))))
        };
        // A long piece is handed out in parts.
        let polled = match polled {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(mut data) if data.len() > MAX_FRAME_OF_ANSWER => {
                    this.rest = data.split_off(MAX_FRAME_OF_ANSWER);
                    Poll::Ready(Some(Ok(Frame::data(data))))
                }
                Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            other => other,
        };
        match &polled {
            Poll::Ready(None | Some(Err(_))) => this.end(),
            Poll::Ready(Some(Ok(_))) if this.is_end_stream() => this.end(),
            Poll::Ready(Some(Ok(_))) => {
                if let Some(under_way) = &this.under_way {
                    under_way.pulse().handed(this.name);
                }
            }
            // The service is waited for now, and not the client.
            Poll::Pending => {
                if let Some(under_way) = &this.under_way {
                    under_way.pulse().taken(this.name);
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(rest));
        }
        whole
    }
}
