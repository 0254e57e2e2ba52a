//! A stream of events, charged as it goes.

use bytes::Bytes;
use farthing_engine::Ticket;
use farthing_wire::mpp::sse;
use futures_util::future::{Either, select};
use http::request::Parts;
use http::{HeaderMap, Request, Response, header};
use http_body::Body;
use tower::{Service, ServiceExt};

use super::call::{Identity, put};
use super::credential::{Paying, Signed, Words};
use super::meter::Rules;
use super::relay::Relay;
use super::resume::{self, Resumed};
use crate::body::{BoxError, boxed};
use crate::headers::{X_FARTHING_PAYMENT, clean_upstream_response, make_private, no_store};
use crate::service::{Answer, Visit};
use crate::upstream::{Call, judge, reasons};

impl Visit {
    /// Passes a stream of events on as its channel pays for it. What is no stream is sold as a whole.
    ///
    /// Spec: draft-evm-session-00, "Insufficient Balance During Streaming" and "Receipt Generation".
    pub(super) async fn stream<S, B, R>(
        &self,
        inner: S,
        request: Request<B>,
        paying: &Paying<'_>,
        (voucher, identity): (&Signed, &Identity),
        ticket: Ticket,
        asked_by: (&Parts, &Bytes),
    ) -> Answer
    where
        S: Service<Request<B>, Response = Response<R>> + Send,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: From<Bytes>,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let world = &self.shared.world;
        let (began, method) = (world.monotonic(), request.method().clone());
        let timeout = world.sleep(self.paid.upstream_timeout);
        let call = std::pin::pin!(inner.oneshot(request));
        let answered = match select(call, timeout).await {
            Either::Left((answered, _)) => answered.map_err(|error| {
                tracing::warn!(error = %error.into(), "the upstream cannot be reached");
                reasons::UNREACHABLE
            }),
            Either::Right(_) => Err(reasons::TIMEOUT),
        };
        let response = match answered {
            Ok(response) => response,
            Err(reason) => return self.nothing_streamed(ticket, reason).await,
        };
        if !is_events(response.headers()) {
            let answer =
                Call::new(&self.paid, &self.shared, self.client).read_in_time(response, &method).await;
            let took = world.monotonic().saturating_sub(began);
            return self.sell_whole(paying, (voucher, identity), ticket, (answer, took), asked_by).await;
        }
        let (mut parts, body) = response.into_parts();
        match judge(parts.status) {
            Ok(()) => {}
            Err(reasons::NOT_OK) => {
                drop(ticket.fail().await);
                clean_upstream_response(&mut parts.headers);
                no_store(&mut parts.headers);
                return Response::from_parts(parts, boxed(body));
            }
            Err(reason) => return self.nothing_streamed(ticket, reason).await,
        }
        // Where one event ends cannot be seen in what is packed.
        if is_packed(&parts.headers) {
            return self.nothing_streamed(ticket, reasons::PACKED).await;
        }
        let terms = paying.session.terms();
        let Some(worth) = terms.count.of_head(&parts.headers) else {
            return self.nothing_streamed(ticket, reasons::UNITS_UNKNOWN).await;
        };
        let state = match ticket.receipt().await {
            Ok(state) => state,
            Err(error) => {
                let (parts, body) = asked_by;
                return self
                    .turned_away(parts, body, error.into(), Some(paying.channel), paying.client)
                    .await;
            }
        };
        clean_upstream_response(&mut parts.headers);
        parts.headers.remove(header::CONTENT_LENGTH);
        make_private(&mut parts.headers);
        // Spec: draft-evm-session-00, "Receipt Generation": in the first headers, and as the last event.
        self.put_state(&mut parts.headers, paying, &state, Some(0), None);
        put(&mut parts.headers, X_FARTHING_PAYMENT, &ticket.id().to_string());
        let rules = Rules {
            count: terms.count.clone(),
            worth,
            patience: terms.patience,
            words: Words::of(paying, None),
        };
        let relay = Relay::new(boxed(body), ticket, state, rules, &self.shared);
        // One with a name can be asked for again: it goes on without its client for a while.
        let hold = self.shared.memory.hold(self.client);
        let named = identity.named.as_deref();
        let stream =
            named.and_then(|named| self.shared.streams.begin(identity.stream, paying.channel, named, hold));
        match stream.as_ref().map(|stream| (stream, stream.attach(None))) {
            Some((stream, Ok(Resumed { body, .. }))) => {
                let relay = relay.recorded(stream.clone());
                let (all, world) = (self.shared.streams.clone(), world.clone());
                let running = resume::run(relay, stream.clone(), all, identity.stream, world.clone());
                world.spawn(Box::pin(running));
                Response::from_parts(parts, body)
            }
            _ => Response::from_parts(parts, relay.into_body()),
        }
    }

    async fn nothing_streamed(&self, ticket: Ticket, reason: &str) -> Answer {
        drop(ticket.fail().await);
        self.unsold(reason, None)
    }
}

fn is_events(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(sse::CONTENT_TYPE)
}

fn is_packed(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}
