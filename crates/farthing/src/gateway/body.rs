use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use farthing_listener::Inbound;
use farthing_paywall::BoxError;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;

/// A request's body: as it comes in, or as the paywall kept it.
#[derive(Debug)]
pub enum RequestBody {
    Incoming(Inbound),
    Kept(Full<Bytes>),
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self::Kept(Full::new(bytes))
    }
}

impl From<Inbound> for RequestBody {
    fn from(body: Inbound) -> Self {
        Self::Incoming(body)
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Incoming(body) => Pin::new(body).poll_frame(cx),
            Self::Kept(body) => Pin::new(body).poll_frame(cx).map(|f| f.map(|f| f.map_err(Into::into))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Incoming(body) => body.is_end_stream(),
            Self::Kept(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Incoming(body) => body.size_hint(),
            Self::Kept(body) => body.size_hint(),
        }
    }
}
