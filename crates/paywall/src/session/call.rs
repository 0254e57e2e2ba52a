//! An answer that is read to its end, charged, and then given.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farthing_channel::{Receipt as State, Refusal};
use farthing_engine::{Asked, Started, StoredResponse, Ticket, TillError, UpstreamAnswer, World};
use farthing_payment::Reason;
use farthing_primitives::{Address, PaymentId, RequestHash};
use farthing_wire::mpp::sse;
use farthing_wire::mpp::{IdempotencyKey, ProblemType, header as mpp_header};
use futures_channel::oneshot;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use sha2::{Digest, Sha256};
use tower::Service;

use super::count::Count;
use super::credential::{Kept, Paying, Refused, Signed};
use super::events::MAX_EVENT_ID_BYTES;
use super::resume::{self, Resumable, Resumed};
use crate::answer;
use crate::body::BoxError;
use crate::hash::request_hash;
use crate::headers::{
    X_FARTHING_ASSET, X_FARTHING_NETWORK, X_FARTHING_PAYER, X_FARTHING_PAYMENT, X_FARTHING_REPLAYED,
    clean_paid_request, make_private, no_store,
};
use crate::service::{Answer, Visit};
use crate::upstream::{Call, Template, reasons};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Kept with an answer that its client gave a key: what was asked for. No upstream can set it, no client gets to see it.
const FINGERPRINT: &str = "x-farthing-request";

/// What a request is called, so that it is charged once.
pub(super) struct Identity {
    pub request: RequestHash,
    /// What a stream is looked for by, if it is to go on where it broke off.
    pub stream: RequestHash,
    /// Of a request that its client named: what is asked for under that name.
    pub named: Option<String>,
}

impl Identity {
    /// Without a key it is the voucher that tells two requests apart: shown once more with the same request, it is the
    /// same purchase, and its lost answer is given again.
    ///
    /// Spec: draft-evm-session-00, "Request Idempotency". The channel stands for the challenge: a client that asks again
    /// may have been given a fresh one.
    pub fn of(
        paying: &Paying<'_>,
        voucher: &Signed,
        key: Option<&IdempotencyKey>,
        (parts, headers): (&Parts, &HeaderMap),
        resource: &str,
        body: &[u8],
    ) -> Self {
        let asked = request_hash(&paying.channel.0, &parts.method, resource, headers, body);
        let mut hash = Sha256::new();
        // Each field goes in after its length, so that no two requests make the same bytes.
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(b"farthing session v1");
        field(&paying.channel.0);
        match key {
            Some(key) => {
                field(b"key");
                field(key.as_str().as_bytes());
            }
            None => {
                field(b"voucher");
                field(&voucher.cumulative.to_be_bytes());
                field(&asked.0);
            }
        }
        let named = key.map(|_| asked.to_string());
        let request = RequestHash(hash.finalize().into());
        Self { request, stream: request, named }
    }

    /// The same, where the upstream is asked to go on after an event: a purchase of its own.
    fn going_on(self, world: &dyn World) -> Self {
        let mut request = [0; 32];
        world.random(&mut request);
        Self { request: RequestHash(request), ..self }
    }

    /// Whether a stored answer is one to this request; and the answer as its client gets it.
    fn opens(&self, mut stored: StoredResponse) -> Option<StoredResponse> {
        let kept = stored.headers.iter().position(|(name, _)| name == FINGERPRINT);
        let kept = kept.map(|at| stored.headers.swap_remove(at).1);
        (kept.as_deref() == self.named.as_deref().map(str::as_bytes)).then_some(stored)
    }

    fn keep(&self, mut stored: StoredResponse) -> StoredResponse {
        if let Some(named) = &self.named {
            stored.headers.push((FINGERPRINT.to_owned(), named.clone().into_bytes()));
        }
        stored
    }
}

/// What became of a call.
enum Called {
    Sold {
        charge: PaymentId,
        state: State,
        units: u64,
        answer: StoredResponse,
    },
    /// Nothing was charged.
    Unsold {
        reason: Reason,
        answer: Option<StoredResponse>,
    },
    Refused(TillError),
}

impl Visit {
    /// Serves what a voucher pays for.
    pub(super) async fn buy<S, B, R>(
        &self,
        inner: S,
        paying: &Paying<'_>,
        voucher: &Signed,
        parts: Parts,
        (body, hold): Kept,
    ) -> Answer
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: From<Bytes> + Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let lines = parts.headers.get_all(mpp_header::IDEMPOTENCY_KEY).into_iter().map(HeaderValue::as_bytes);
        let Ok(key) = IdempotencyKey::parse(lines) else {
            let refused = Refused::Code("invalid_idempotency_key", ProblemType::BadRequest);
            return self.turned_away(&parts, &body, refused, Some(paying.channel), paying.client).await;
        };
        let mut headers = parts.headers.clone();
        clean_paid_request(&mut headers);
        let identity = Identity::of(paying, voucher, key.as_ref(), (&parts, &headers), &self.resource, &body);
        let terms = paying.session.terms();
        let mut identity = identity;
        let last = last_event_id(&parts.headers);
        if terms.stream
            && identity.named.is_some()
            && let Some(stream) = self.shared.streams.find(identity.stream)
        {
            // Whoever has no event of it begins with the first.
            let last = last.as_deref().unwrap_or_default();
            return self.take_up(paying, voucher, (&stream, &identity, last), (&parts, &body)).await;
        }
        // Spec: draft-evm-session-00, "Request Idempotency": what was named and streamed is not charged a second time,
        // and nobody kept it. Where the upstream knows its own events, it can go on after the last that arrived.
        if terms.stream && identity.named.is_some() && self.was_streamed(paying, &identity).await {
            if last.as_ref().is_some_and(|id| !id.is_empty() && !resume::is_ours(id)) {
                identity = identity.going_on(&*self.shared.world);
            } else {
                return answer::error(
                    StatusCode::CONFLICT,
                    "stream_not_kept",
                    "a stream was served under this Idempotency-Key, and is not kept: name the next one anew",
                );
            }
        }
        let asked = Asked {
            seller: &paying.seller,
            shown: paying.shown(voucher),
            request: identity.request,
            price: terms.price.clone(),
            most_units: (!terms.stream).then_some(terms.most_units),
        };
        let started = paying.till.start_charge(&asked).await;
        let ticket = match started {
            Ok(Started::Serve(ticket)) => ticket,
            Ok(Started::Again { charge, answer, receipt }) => {
                return match identity.opens(answer) {
                    Some(answer) => self.sold(paying, charge, &receipt, None, answer),
                    None => answer::error(
                        StatusCode::CONFLICT,
                        "idempotency_conflict",
                        "this Idempotency-Key was used for another request",
                    ),
                };
            }
            Err(error) => {
                return self
                    .turned_away(&parts, &body, error.into(), Some(paying.channel), paying.client)
                    .await;
            }
        };
        let payer = match paying.till.channel(&paying.seller, paying.channel).await {
            Ok(payee) => payee.terms().payer.clone(),
            Err(error) => {
                return self
                    .turned_away(&parts, &body, error.into(), Some(paying.channel), paying.client)
                    .await;
            }
        };
        let unpaid = parts.clone();
        // What is counted inside of it must not come packed.
        if terms.stream || matches!(terms.count, Count::Json(_)) {
            headers.remove(http::header::ACCEPT_ENCODING);
        }
        let mut parts = parts;
        parts.headers = headers;
        let template = Template { parts, body: body.clone(), _hold: Arc::new(hold) };
        let told = Told { payer, charge: ticket.id(), request: identity.request };
        let request: Request<B> = template.prepared(|headers| announce(headers, paying, &told));
        if terms.stream {
            return self.stream(inner, request, paying, (voucher, &identity), ticket, (&unpaid, &body)).await;
        }
        let called = self.call(inner, request, paying, identity, ticket).await;
        self.answered(paying, called, (&unpaid, &body)).await
    }

    /// Goes on with a stream that broke off: what followed the last event that arrived is given again, and not charged.
    async fn take_up(
        &self,
        paying: &Paying<'_>,
        voucher: &Signed,
        (stream, identity, last): (&Resumable, &Identity, &str),
        (parts, body): (&Parts, &Bytes),
    ) -> Answer {
        let shown = paying.shown(voucher);
        let state = match paying.till.voucher(&paying.seller, &shown).await {
            // An older one proves who asks.
            Err(TillError::Refused(Refusal::Decreasing { .. })) => {
                paying.till.receipt(&paying.seller, &shown).await
            }
            state => state,
        };
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                return self
                    .turned_away(parts, body, error.into(), Some(paying.channel), paying.client)
                    .await;
            }
        };
        if !identity.named.as_deref().is_some_and(|named| stream.is_for(named)) {
            return answer::error(
                StatusCode::CONFLICT,
                "idempotency_conflict",
                "this Idempotency-Key was used for another request",
            );
        }
        let Ok(Resumed { body, replayed }) = stream.attach(Some(last)) else {
            return answer::error(
                StatusCode::CONFLICT,
                "stream_not_kept",
                "what followed this event is not kept any more",
            );
        };
        let mut answer = Response::new(body);
        let headers = answer.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(sse::CONTENT_TYPE));
        make_private(headers);
        self.put_state(headers, paying, &state, None, None);
        put(headers, X_FARTHING_REPLAYED, &replayed.to_string());
        answer
    }

    async fn was_streamed(&self, paying: &Paying<'_>, identity: &Identity) -> bool {
        let former = paying.till.store().charge(paying.channel, identity.request).await;
        // A store that cannot tell refuses the charge itself a moment later.
        former.ok().flatten().is_some_and(|charge| charge.most_units.is_none() && charge.units > 0)
    }

    /// Calls the upstream and charges what it gave, whether the client waits for it or not: it finds it when it asks
    /// again.
    async fn call<S, B, R>(
        &self,
        inner: S,
        request: Request<B>,
        paying: &Paying<'_>,
        identity: Identity,
        ticket: Ticket,
    ) -> Option<Called>
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: From<Bytes> + Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let call = Call::new(&self.paid, &self.shared, self.client);
        let (count, most) = (paying.session.terms().count.clone(), paying.session.terms().most_units);
        let world = self.shared.world.clone();
        let (done, called) = oneshot::channel();
        self.shared.world.spawn(Box::pin(async move {
            let began = world.monotonic();
            let answer = call.complete(inner, request).await;
            let took = world.monotonic().saturating_sub(began);
            // Whoever went away asks again.
            let _ = done.send(charged(answer, &count, most, took, &identity, ticket).await);
        }));
        called.await.ok()
    }

    async fn answered(
        &self,
        paying: &Paying<'_>,
        called: Option<Called>,
        (parts, body): (&Parts, &Bytes),
    ) -> Answer {
        match called {
            Some(Called::Sold { charge, state, units, answer }) => {
                self.sold(paying, charge, &state, Some(units), answer)
            }
            Some(Called::Unsold { reason, answer }) => self.unsold(reason.code(), answer),
            Some(Called::Refused(error)) => {
                self.turned_away(parts, body, error.into(), Some(paying.channel), paying.client).await
            }
            // Our own task came to nothing, and with it the charge.
            None => answer::unavailable("session_unavailable"),
        }
    }

    /// Paid and complete.
    fn sold(
        &self,
        paying: &Paying<'_>,
        charge: PaymentId,
        state: &State,
        units: Option<u64>,
        stored: StoredResponse,
    ) -> Answer {
        self.held(stored.body.len(), || {
            let mut answer = answer::from_stored(stored);
            let headers = answer.headers_mut();
            make_private(headers);
            self.put_state(headers, paying, state, units, None);
            put(headers, X_FARTHING_PAYMENT, &charge.to_string());
            answer
        })
    }

    /// The upstream's own answer, or why there is none. Nothing was charged, and there is no receipt.
    pub(super) fn unsold(&self, reason: &str, stored: Option<StoredResponse>) -> Answer {
        let bytes = stored.as_ref().map_or(0, |stored| stored.body.len());
        self.held(bytes, || {
            let mut answer = answer::unsold(reason, stored);
            no_store(answer.headers_mut());
            answer
        })
    }

    /// Sells an answer of a route that streams, which is no stream: it is charged for what it turned out to take, in one
    /// commit with it.
    pub(super) async fn sell_whole(
        &self,
        paying: &Paying<'_>,
        (voucher, identity): (&Signed, &Identity),
        ticket: Ticket,
        (answer, took): (UpstreamAnswer, Duration),
        asked_by: (&Parts, &Bytes),
    ) -> Answer {
        let terms = paying.session.terms();
        // The stream that never was is not charged.
        drop(ticket.fail().await);
        let complete = match answer {
            UpstreamAnswer::Complete(stored) => stored,
            UpstreamAnswer::Failed { reason, response } => return self.unsold(reason.code(), response),
        };
        let Some(units) = terms.count.of_answer(&complete, took) else {
            return self.unsold(reasons::UNITS_UNKNOWN, None);
        };
        let asked = Asked {
            seller: &paying.seller,
            shown: paying.shown(voucher),
            request: identity.request,
            price: terms.price.clone(),
            most_units: Some(units),
        };
        let called = match paying.till.start_charge(&asked).await {
            Ok(Started::Serve(ticket)) => {
                let charge = ticket.id();
                match ticket.finish(units, identity.keep(complete.clone())).await {
                    Ok(state) => Called::Sold { charge, state, units, answer: complete },
                    Err(error) => Called::Refused(error),
                }
            }
            Ok(Started::Again { charge, answer, receipt }) => match identity.opens(answer) {
                Some(answer) => return self.sold(paying, charge, &receipt, None, answer),
                None => Called::Refused(TillError::AnswerGone(charge)),
            },
            Err(error) => Called::Refused(error),
        };
        self.answered(paying, Some(called), asked_by).await
    }
}

/// Charges a complete answer for what it took, in the commit that keeps it.
async fn charged(
    answer: UpstreamAnswer,
    count: &Count,
    most: u64,
    took: Duration,
    identity: &Identity,
    ticket: Ticket,
) -> Called {
    let unsold = |reason, answer| Called::Unsold { reason, answer };
    let (charge, complete) = match answer {
        UpstreamAnswer::Complete(stored) => (ticket.id(), stored),
        UpstreamAnswer::Failed { reason, response } => {
            return match ticket.fail().await {
                Ok(()) | Err(TillError::NotRunning) => unsold(reason, response),
                Err(error) => Called::Refused(error),
            };
        }
    };
    let Some(counted) = count.of_answer(&complete, took) else {
        tracing::warn!(%count, "the upstream does not say how many units its answer took");
        drop(ticket.fail().await);
        return unsold(Reason::new(reasons::UNITS_UNKNOWN, farthing_payment::Fault::Payee), None);
    };
    if counted > most {
        tracing::warn!(
            counted,
            most,
            "an answer took more units than the route's most_units, which is charged"
        );
    }
    // A request never costs more than was set aside for it.
    let units = counted.min(most);
    match ticket.finish(units, identity.keep(complete.clone())).await {
        Ok(state) => Called::Sold { charge, state, units, answer: complete },
        Err(error) => Called::Refused(error),
    }
}

/// The id of the last event that a client has; one that nobody gave is none.
///
/// Spec: HTML, section 9.2.4.
fn last_event_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(LAST_EVENT_ID)?.to_str().ok()?;
    (value.len() <= MAX_EVENT_ID_BYTES).then(|| value.to_owned())
}

/// What the upstream is told of a request that a channel pays for.
pub(super) struct Told {
    pub payer: Address,
    pub charge: PaymentId,
    pub request: RequestHash,
}

pub(super) fn announce(headers: &mut HeaderMap, paying: &Paying<'_>, told: &Told) {
    let asset = paying.session.asset();
    put(headers, X_FARTHING_PAYER, told.payer.as_str());
    put(headers, X_FARTHING_ASSET, asset.address().as_str());
    put(headers, X_FARTHING_NETWORK, &asset.network().to_string());
    put(headers, X_FARTHING_PAYMENT, &told.charge.to_string());
    let key = HeaderName::from_static(mpp_header::IDEMPOTENCY_KEY);
    if !headers.contains_key(&key) {
        // The same for a request that is served again because its first answer never was durable.
        put(headers, key, &told.request.to_string());
    }
}

pub(super) fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
