//! The tower layer: what happens to one request.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use farthing_engine::{ConflictKind, Permit, Sale, SaleOutcome};
use farthing_payment::{self as payment, Dialect, Fault, Flow, Payment, Reason, State};
use farthing_primitives::PaymentId;
use farthing_rails::exact_evm::Requirement;
use farthing_rails::mpp;
use farthing_wire::mpp::{AcceptPayment, BodyDigest, ProblemType, header as mpp_header};
use farthing_wire::x402::WireError;
use futures_util::future::{BoxFuture, Either, select};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tower::{Layer, Service, ServiceExt};

use crate::admit::{Admitted, Bought, Candidate, HeaderError, Judge, Refused, Shown, admit, priced_method};
use crate::answer::{self, Addressee, STATUS_PATH};
use crate::body::{self, BoxError, ClientExit, Delivery, Parting, PaywallBody, boxed};
use crate::cors::{Cors, is_preflight};
use crate::hash::request_hash;
use crate::headers::{
    clean_inbound, clean_paid_request, clean_upstream_response, make_private, no_store, pays,
};
use crate::limit::{Alone, Hold, Turn};
use crate::offer::{
    self, Beside, Resource, Seal, Speech, Why, quoted, requirements, seal_context, sealed_route, told,
};
use crate::paywall::{Current, Paywall, Shared, Terms, Unmatched};
use crate::price::{Paid, Price, QuoteRequest, Route};
use crate::session::{is_session, routes_with_sessions, socket};
use crate::upstream::{Buffered, Template, judge, reasons};

/// The longest path and query of a paid request, in bytes.
pub const MAX_PAID_TARGET: usize = 8192;

/// Who sent the request, where the server knows: put it into the request's extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);

/// The scheme by which the client reached us, where the server knows; `http` if absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientScheme(pub &'static str);

/// The route that a request matched, for the service inside: the pattern in its normal form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedRoute(pub Arc<str>);

/// Puts a paywall in front of a service.
///
/// Wrap the whole router with it rather than single routes: the paywall must see every path that leads to a handler.
#[derive(Debug, Clone)]
pub struct PaywallLayer {
    paywall: Paywall,
}

impl PaywallLayer {
    pub fn new(paywall: Paywall) -> Self {
        Self { paywall }
    }
}

impl<S> Layer<S> for PaywallLayer {
    type Service = PaywallService<S>;

    fn layer(&self, inner: S) -> PaywallService<S> {
        PaywallService { inner, paywall: self.paywall.clone() }
    }
}

/// A service behind a paywall.
#[derive(Debug, Clone)]
pub struct PaywallService<S> {
    inner: S,
    paywall: Paywall,
}

impl<S, B, R> Service<Request<B>> for PaywallService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<PaywallBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The inner service is made ready where it is called, which for a paid request may be much later.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (inner, shared) = (self.inner.clone(), self.paywall.0.clone());
        Box::pin(async move { Ok(handle(inner, shared, request).await) })
    }
}

pub(crate) type Answer = Response<PaywallBody>;

async fn handle<S, B, R>(inner: S, shared: Arc<Shared>, mut request: Request<B>) -> Answer
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let current = shared.current();
    let is_head = request.method() == Method::HEAD;
    clean_inbound(request.headers_mut());
    // A credential in a URL ends up in logs and in other people's histories.
    if request.uri().authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return answer::error(
            StatusCode::BAD_REQUEST,
            "credentials_in_url",
            "the URL must not hold credentials",
        );
    }
    let found = match current.terms.routes.find(request.method(), request.uri().path()) {
        Ok(found) => found,
        Err(error) => return answer::error(StatusCode::BAD_REQUEST, error.code(), &error.to_string()),
    };
    let path = found.path.canonical();
    if let Some(id) = path.strip_prefix(STATUS_PATH) {
        let (head, _) = request.into_parts();
        return status(&shared, &current, &head, id).await;
    }
    let Some(resource) = canonical_target(&mut request, &path) else {
        return answer::error(StatusCode::BAD_REQUEST, "invalid_path", "the request target cannot be read");
    };
    // A path with a price on it gives away nothing under OPTIONS either.
    let priced = current.terms.routes.on_path(&found.path).any(|route| matches!(route, Route::Paid(_)));
    if priced && request.method() == Method::OPTIONS {
        return options(inner, &shared, &current, request).await;
    }
    let route = found.route.map(|(pattern, route)| (pattern.to_string(), route.clone()));
    let (route, own_method) = managed_here(&current, &request, &path, route);
    let origin = request.headers().get(header::ORIGIN).cloned();
    match route {
        None if current.terms.unmatched == Unmatched::NotFound => {
            answer::error(StatusCode::NOT_FOUND, "no_such_route", "there is nothing here")
        }
        None => pass(inner, &shared, request).await,
        Some((pattern, Route::Free)) => {
            request.extensions_mut().insert(MatchedRoute(pattern.into()));
            pass(inner, &shared, request).await
        }
        // It is stored with each payment that is shown for it.
        Some((_, Route::Paid(_))) if resource.len() > MAX_PAID_TARGET => {
            answer::error(StatusCode::URI_TOO_LONG, "target_too_long", "the path and the query are too long")
        }
        Some((pattern, Route::Paid(paid))) => {
            let pattern: Arc<str> = pattern.into();
            request.extensions_mut().insert(MatchedRoute(pattern.clone()));
            let client = client_of(request.extensions());
            let visit =
                Visit { shared, current: current.clone(), pattern, paid, resource, own_method, client };
            let mut answer = match socket::wanted(&visit, &request) {
                Some(upgrade) => socket::open(visit, request, upgrade).await,
                None => visit.serve(inner, request).await,
            };
            current.terms.cors.expose(origin.as_ref(), answer.headers_mut());
            if is_head && answer.status() == StatusCode::PAYMENT_REQUIRED {
                *answer.body_mut() = body::empty();
            }
            answer
        }
    }
}

/// The route that a request is for: one with a session, by whatever method, for who shows a credential of a session and
/// whose own method has none; and whether it is that of its own method.
fn managed_here<B>(
    current: &Current,
    request: &Request<B>,
    path: &str,
    route: Option<(String, Route)>,
) -> (Option<(String, Route)>, bool) {
    let has_session = matches!(&route, Some((_, Route::Paid(paid))) if paid.session.is_some());
    if has_session || !Shown::is_there(request.headers()) {
        return (route, true);
    }
    let shows = matches!(Shown::read(request.headers()), Ok(Some(Shown::Mpp(shown))) if is_session(&shown));
    let mut others =
        if shows { routes_with_sessions(&current.terms.routes, request.method(), path) } else { Vec::new() };
    match others.is_empty() {
        true => (route, true),
        false => {
            let (pattern, paid) = others.swap_remove(0);
            (Some((pattern.to_string(), Route::Paid(paid))), false)
        }
    }
}

/// Puts the path that was matched into the request, and says what the resource is called from here on.
fn canonical_target<B>(request: &mut Request<B>, path: &str) -> Option<String> {
    let resource = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(resource.as_str()).ok()?);
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(resource)
}

/// Unpaid, untouched, both ways.
async fn pass<S, B, R>(inner: S, shared: &Shared, request: Request<B>) -> Answer
where
    S: Service<Request<B>, Response = Response<R>> + Send,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let Some(place) = shared.calls.take(client_of(request.extensions())) else {
        return answer::too_many("too many requests from here are under way");
    };
    match inner.oneshot(request).await {
        Ok(response) => response.map(|body| body::keeping(boxed(body), place)),
        Err(error) => {
            // Also if it is the client that cannot: its body may have come to nothing.
            if shared.may_warn() {
                tracing::warn!(error = %error.into(), "a request did not get through to the upstream");
            }
            answer::error(StatusCode::BAD_GATEWAY, reasons::UNREACHABLE, "the service cannot be reached")
        }
    }
}

/// OPTIONS on a priced path: the headers are free, and there is no body.
async fn options<S, B, R>(inner: S, shared: &Shared, current: &Current, request: Request<B>) -> Answer
where
    S: Service<Request<B>, Response = Response<R>> + Send,
    S::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let cors = &current.terms.cors;
    if cors.answers() && is_preflight(&request) {
        let mut answer = Response::new(body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        cors.preflight(request.headers(), answer.headers_mut());
        return answer;
    }
    let mut answer = pass(inner, shared, request).await;
    Cors::extend(answer.headers_mut());
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer.headers_mut().remove(header::TRANSFER_ENCODING);
    *answer.body_mut() = body::empty();
    answer
}

async fn status(shared: &Shared, current: &Current, request: &http::request::Parts, id: &str) -> Answer {
    let unknown = || answer::error(StatusCode::NOT_FOUND, "no_such_payment", "no payment has this id");
    if request.method != Method::GET && request.method != Method::HEAD {
        return answer::error(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "only GET is allowed here",
        );
    }
    let Ok(id) = id.parse::<PaymentId>() else { return unknown() };
    // It costs a look into the store.
    if !shared.questions.admit(client_of(&request.extensions), shared.world.monotonic()) {
        return answer::too_many(TOO_MANY_QUESTIONS);
    }
    let mut answer = match shared.seller.payment(id).await {
        Ok(Some(payment)) if payment.tenant == shared.tenant => answer::status(&payment),
        Ok(_) => unknown(),
        Err(error) => {
            tracing::warn!(%error, "the store cannot be asked");
            answer::unavailable("store")
        }
    };
    current.terms.cors.expose(request.headers.get(header::ORIGIN), answer.headers_mut());
    answer
}

const TOO_MANY_PAYMENTS: &str = "too many payments from here";
const TOO_MANY_QUESTIONS: &str = "too many questions from here";

pub(crate) fn client_of(extensions: &http::Extensions) -> Option<IpAddr> {
    extensions.get::<ClientAddr>().map(|client| client.0)
}

/// One request to a priced route.
pub(crate) struct Visit {
    pub shared: Arc<Shared>,
    pub current: Arc<Current>,
    pub pattern: Arc<str>,
    pub paid: Arc<Paid>,
    /// Canonical path and query.
    pub resource: String,
    /// Whether the route is one of the request's own method. By another, its channel can be managed and nothing bought.
    pub own_method: bool,
    /// Whose share of the memory it takes.
    pub client: Option<IpAddr>,
}

impl Visit {
    async fn serve<S, B, R>(&self, inner: S, request: Request<B>) -> Answer
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let client = client_of(request.extensions());
        if !Shown::is_there(request.headers()) {
            return self.ask(request, client).await;
        }
        // Before anything is looked at: looking costs more than not listening.
        let now = self.shared.world.monotonic();
        if !self.shared.payments.admit(client, now) || !self.shared.refused_payments.has(client, now) {
            return answer::too_many(TOO_MANY_PAYMENTS);
        }
        let Some(place) = self.shared.in_flight.take(client) else {
            return answer::unavailable("too_many_requests");
        };
        let answer = self.serve_shown(inner, request, client).await;
        // Until it is sent: whoever does not take it must not have us hold many of them.
        answer.map(|body| body::keeping(body, place))
    }

    /// Notes that a payment came to nothing by its payer's doing.
    pub(crate) fn refused(&self, client: Option<IpAddr>) {
        self.shared.refused_payments.admit(client, self.shared.world.monotonic());
    }

    async fn serve_shown<S, B, R>(&self, inner: S, request: Request<B>, client: Option<IpAddr>) -> Answer
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let shown = match Shown::read(request.headers()) {
            Ok(Some(shown)) => shown,
            Ok(None) => return self.ask(request, client).await,
            // Well formed, and of a kind that we do not take: what we do take is said.
            Err(HeaderError::Wire(error @ (WireError::Network(_) | WireError::Version(_)))) => {
                self.refused(client);
                return self.challenge(&request.into_parts().0, &[], Some(error.code().as_str())).await;
            }
            // Spec: draft-httpauth-payment-00, "Status Codes": a malformed credential is 402, with a fresh challenge.
            Err(error @ HeaderError::Mpp(_)) if self.current.terms.mpp.spoken => {
                self.refused(client);
                let (parts, body) = request.into_parts();
                let why =
                    Why { code: Some(&error.code()), problem: &ProblemType::MalformedCredential, also: None };
                return match self.digest(&parts.headers, body).await {
                    Ok(digest) => self.challenge_for(&parts, digest, why).await,
                    Err(answer) => answer,
                };
            }
            // Spec: x402 v2 HTTP transport, "Error Handling": a malformed payment is 400.
            Err(error) => {
                self.refused(client);
                return malformed(&error);
            }
        };
        if let Shown::Mpp(credential) = &shown
            && is_session(credential)
        {
            if !self.current.terms.mpp.spoken {
                self.refused(client);
                return self.challenge(&request.into_parts().0, &[], Some("unsupported_scheme")).await;
            }
            return self.session(inner, request, credential, client).await;
        }
        // Spec: extensions/payment_identifier, "`id` Format": one that is none is no idempotency key.
        let name = match shown.name() {
            Ok(name) => name,
            Err(error) => {
                self.refused(client);
                return malformed(&HeaderError::Wire(error));
            }
        };
        let (parts, body) = request.into_parts();
        let (body, hold) = match self.spool(&parts.headers, body).await {
            Ok(spooled) => spooled,
            Err(answer) => return answer,
        };
        let presenter = shown.presenter(client);
        let hash = request_hash(&presenter, &parts.method, &self.resource, &parts.headers, &body);
        let candidates = match self.candidates(&shown, &parts).await {
            Ok(candidates) => candidates,
            Err(answer) => return answer,
        };
        let bought = Bought {
            method: &parts.method,
            resource: &self.resource,
            headers: &parts.headers,
            body: &body,
            request: hash,
        };
        let judge = Judge {
            tenant: &self.shared.tenant,
            key: &self.shared.key,
            secrets: &self.shared.secrets,
            tokens: &self.current.tokens,
            now: self.shared.world.now(),
            mark: self.shared.clock.now(),
        };
        let unspoken = shown.dialect() == Dialect::Mpp && !self.current.terms.mpp.spoken;
        let not_taken = || Refused { code: "unsupported_scheme".to_owned() };
        let mut admitted = match admit(&shown, &candidates, bought, judge) {
            Ok(admitted) => admitted,
            Err(refused) => {
                self.refused(client);
                let refused = if unspoken { not_taken() } else { refused };
                return self.challenge(&parts, &body, Some(&refused.code)).await;
            }
        };
        // What was bought while it was spoken is still given.
        if unspoken {
            admitted.lapsed = Some(not_taken());
        }
        // A plug-in's payment is named by its challenge.
        admitted.sale.name = admitted.sale.name.or(name);
        if admitted.asks_a_read && !self.shared.contract_payments.admit(client, self.shared.world.monotonic())
        {
            return answer::too_many(TOO_MANY_PAYMENTS);
        }
        let to = Addressee {
            dialect: shown.dialect(),
            network: shown.network_name(),
            challenge: shown.challenge_id(),
            by: admitted.by.clone(),
            once: shown.dialect() == Dialect::Mpp && !parts.headers.contains_key(mpp_header::IDEMPOTENCY_KEY),
            base: self.base(&parts),
        };
        let alone = match self.shared.answering.enter(to.once.then_some(&admitted.sale.key)) {
            Ok(alone) => alone,
            Err(Turn::Answered) => return answer::in_progress(),
            Err(Turn::Gone) => {
                return self.challenge(&parts, &body, Some(ConflictKind::UsedUp.code())).await;
            }
        };
        if let Some(lapsed) = &admitted.lapsed {
            match self.shared.seller.holder(&admitted.sale.key).await {
                // What was accepted then is what it buys, and nothing that it says of itself: its claim may be given
                // back between this look and the sale, which then claims it anew.
                Ok(Some(held)) if held.tenant == self.shared.tenant && held.binding.request == hash => {
                    admitted.sale.terms = held.terms;
                    admitted.sale.flow = held.flow;
                }
                Ok(Some(held)) => {
                    let kind = ConflictKind::OtherRequest;
                    return self.conflict(&parts, &body, &to, held.id, kind).await;
                }
                Ok(None) => {
                    self.refused(client);
                    return self.challenge(&parts, &body, Some(&lapsed.code)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the store cannot be asked");
                    return answer::unavailable("store");
                }
            }
        }
        let alone = Arc::new(alone);
        let answer = self.sell(inner, admitted, parts, (body, hold), client, (&to, &alone)).await;
        answer.map(|body| body::keeping(body, alone))
    }

    async fn sell<S, B, R>(
        &self,
        inner: S,
        admitted: Admitted,
        mut parts: http::request::Parts,
        (body, hold): (Bytes, Hold),
        client: Option<IpAddr>,
        (to, alone): (&Addressee, &Arc<Alone>),
    ) -> Answer
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let Admitted { sale, paid, asks_a_read, .. } = admitted;
        let unpaid = parts.clone();
        clean_paid_request(&mut parts.headers);
        let unpaid_body = body.clone();
        let template = Template { parts, body, _hold: Arc::new(hold) };
        let payer = sale.terms.payer.to_string();
        let upstream = Arc::new(Buffered::new(inner.clone(), template.clone(), &paid, &self.shared, client));
        log_sale(&sale);
        match self.shared.seller.sell(sale, upstream).await {
            SaleOutcome::Served { payment, .. } if to.once && payment.delivery == payment::Delivery::Sent => {
                self.challenge(&unpaid, &unpaid_body, Some(ConflictKind::UsedUp.code())).await
            }
            // What finds no room is not given, and may be asked for again.
            SaleOutcome::Served { payment, response } => self.held(response.body.len(), || {
                answer::served(to, &payment, response)
                    .map(|body| self.parting(body, &template, payment, alone))
            }),
            SaleOutcome::Deliver { payment, permit } => {
                self.deliver(inner, &template, &paid, &payment, permit, to).await
            }
            SaleOutcome::NotCharged { payment, reason, response } => {
                let bytes = response.as_ref().map_or(0, |response| response.body.len());
                self.held(bytes, || answer::not_charged(to, &payment, reason.code(), response))
            }
            SaleOutcome::Refused { reason } => match reason.fault() {
                Fault::Payer => {
                    self.refused(client);
                    self.challenge(&unpaid, &unpaid_body, Some(reason.code())).await
                }
                Fault::Payee => self.challenge(&unpaid, &unpaid_body, Some(reason.code())).await,
                Fault::Us | Fault::Chain => answer::unavailable(reason.code()),
            },
            SaleOutcome::SettlementFailed { payment, reason, .. } => {
                if reason.fault() == Fault::Payer {
                    self.refused(client);
                }
                // Proven that it moved nothing and never will: whoever pays anew does not pay twice.
                // Spec: draft-stripe-charge-00, "Settlement Procedure", step 4.
                if to.by.is_some() && matches!(payment.state, State::Failed { .. }) {
                    return self.challenge(&unpaid, &unpaid_body, Some(reason.code())).await;
                }
                answer::settlement_failed(to, &payment, reason.code())
            }
            SaleOutcome::Pending { payment, tx } => answer::pending(to, payment, tx.as_ref(), &payer),
            // Nobody has proven yet to be the payer whose other payment has this name.
            SaleOutcome::Conflict { kind: ConflictKind::NameTaken, .. } if asks_a_read => {
                answer::conflict(to, None, ConflictKind::NameTaken)
            }
            SaleOutcome::Conflict { payment, kind } => {
                self.conflict(&unpaid, &unpaid_body, to, payment, kind).await
            }
            SaleOutcome::OverExposed => {
                self.challenge(&unpaid, &unpaid_body, Some("exposure_limit_reached")).await
            }
            SaleOutcome::Unavailable { what } => answer::unavailable(what),
            // Only a facilitator's payment ends like this.
            SaleOutcome::Settled { payment } => answer::pending(to, payment.id, payment.tx(), &payer),
        }
    }

    /// An answer with a stored body of so many bytes, if we may hold that many more until they are sent.
    pub(crate) fn held(&self, bytes: usize, answer: impl FnOnce() -> Answer) -> Answer {
        let mut hold = self.shared.memory.hold(self.client);
        if !hold.grow(bytes) {
            return answer::unavailable(reasons::NO_ROOM);
        }
        answer().map(|body| body::keeping(body, hold))
    }

    /// A stored answer, which says when it is gone if that decides whether it is given again. Until then no copy of its
    /// payment is answered, and from then on none is given it.
    fn parting(
        &self,
        body: PaywallBody,
        template: &Template,
        payment: Box<Payment>,
        alone: &Arc<Alone>,
    ) -> PaywallBody {
        if payment.terms.dialect != Dialect::Mpp || payment.delivery == payment::Delivery::Sent {
            return body;
        }
        let exit = template.parts.extensions.get::<ClientExit>().cloned();
        let is_head = template.parts.method == Method::HEAD;
        let (shared, alone) = (self.shared.clone(), alone.clone());
        let gone = move || {
            alone.gone();
            let sent = shared.seller.sent(&payment);
            shared.world.spawn(Box::pin(async move {
                sent.await;
                drop(alone);
            }));
        };
        boxed(Parting::new(body, exit, is_head, gone))
    }

    /// The streaming flows: paid, or claimed and funded; the answer passes through and its end is reported.
    async fn deliver<S, B, R>(
        &self,
        inner: S,
        template: &Template,
        paid: &Paid,
        payment: &Payment,
        permit: Permit,
        to: &Addressee,
    ) -> Answer
    where
        S: Service<Request<B>, Response = Response<R>> + Send,
        S::Error: Into<BoxError>,
        B: From<Bytes>,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let is_head = template.parts.method == Method::HEAD;
        let timeout = self.shared.world.sleep(paid.upstream_timeout);
        let call = std::pin::pin!(inner.oneshot(template.request::<B>(payment)));
        let response = match select(call, timeout).await {
            Either::Left((Ok(response), _)) => response,
            Either::Left((Err(error), _)) => {
                tracing::warn!(payment = %payment.id, error = %error.into(), "the upstream cannot be reached");
                permit.failed(Reason::new(reasons::UNREACHABLE, Fault::Payee));
                return self.undelivered(to, payment, reasons::UNREACHABLE);
            }
            Either::Right(_) => {
                permit.failed(Reason::new(reasons::TIMEOUT, Fault::Payee));
                return self.undelivered(to, payment, reasons::TIMEOUT);
            }
        };
        let (mut parts, body) = response.into_parts();
        clean_upstream_response(&mut parts.headers);
        let mut answer = match judge(parts.status) {
            Ok(()) => {
                make_private(&mut parts.headers);
                let exit = template.parts.extensions.get::<ClientExit>().cloned();
                Response::from_parts(parts, boxed(Delivery::new(body, permit, payment.flow, exit, is_head)))
            }
            Err(reasons::NOT_OK) => {
                permit.failed(Reason::new(reasons::NOT_OK, Fault::Payee));
                no_store(&mut parts.headers);
                Response::from_parts(parts, boxed(body))
            }
            Err(reason) => {
                permit.failed(Reason::new(reason, Fault::Payee));
                return self.undelivered(to, payment, reason);
            }
        };
        self.put_receipt(to, payment, &mut answer);
        answer
    }

    /// Paid or claimed, and the upstream gave nothing.
    fn undelivered(&self, to: &Addressee, payment: &Payment, reason: &str) -> Answer {
        let (status, code) = match reason {
            reasons::TIMEOUT => (StatusCode::GATEWAY_TIMEOUT, reason),
            _ => (StatusCode::BAD_GATEWAY, reason),
        };
        let message = match payment.flow {
            Flow::Upfront => "paid and not delivered: ask again with the same payment",
            Flow::Authorization | Flow::Background => "the service gave no answer; nothing was charged",
        };
        let mut answer = answer::error(status, code, message);
        if payment.flow != Flow::Upfront {
            to.put_not_charged(answer.headers_mut(), payment, reason);
        }
        self.put_receipt(to, payment, &mut answer);
        answer
    }

    /// A receipt for what is settled; for what settles in the background, where to ask.
    fn put_receipt(&self, to: &Addressee, payment: &Payment, answer: &mut Answer) {
        // Spec: draft-httpauth-payment-00, "Receipt Status Semantics": none on an answer that is an error.
        let says = to.dialect != Dialect::Mpp || answer.status().is_success();
        if payment.flow == Flow::Upfront && says {
            to.put_success(answer.headers_mut(), payment);
        }
        to.put_payment(answer.headers_mut(), payment.id);
    }

    /// Reads the whole body before anything is claimed: it is a part of what is bought.
    pub(crate) async fn spool<B>(&self, headers: &HeaderMap, body: B) -> Result<(Bytes, Hold), Answer>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (mut bytes, mut hold) = (BytesMut::new(), self.shared.memory.hold(self.client));
        let keep = |data: Bytes| {
            let room = hold.grow(data.len());
            if room {
                bytes.extend_from_slice(&data);
            }
            room
        };
        self.read(headers, body, keep).await?;
        Ok((bytes.freeze(), hold))
    }

    /// The digest of a body that nobody has paid for: it is hashed as it comes, and nothing of it is held. `None` if the
    /// route binds no bodies, and for an empty one.
    pub(crate) async fn digest<B>(&self, headers: &HeaderMap, body: B) -> Result<Option<BodyDigest>, Answer>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        if !self.paid.digest {
            return Ok(None);
        }
        let (mut hash, mut empty) = (Sha256::new(), true);
        let see = |data: Bytes| {
            hash.update(&data);
            empty &= data.is_empty();
            true
        };
        self.read(headers, body, see).await?;
        Ok((!empty).then(|| BodyDigest::from_bytes(hash.finalize().into())))
    }

    /// Takes a body to its end, within the route's bound and in time. `each` says whether there is room for its piece.
    async fn read<B>(
        &self,
        headers: &HeaderMap,
        body: B,
        mut each: impl FnMut(Bytes) -> bool,
    ) -> Result<(), Answer>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let max = self.paid.max_request;
        let too_large = || {
            answer::error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "request_too_large",
                "the request's body is too long",
            )
        };
        let announced =
            headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|length| length > max) || body.size_hint().lower() > max as u64 {
            return Err(too_large());
        }
        let timeout = self.shared.world.sleep(self.shared.limits.request_timeout);
        let read = async {
            let mut body = std::pin::pin!(body);
            let mut left = max;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else {
                    return Err(answer::error(
                        StatusCode::BAD_REQUEST,
                        "incomplete_request",
                        "the request's body did not arrive",
                    ));
                };
                // Trailers are left out: what is not hashed is not bought.
                if let Ok(data) = frame.into_data() {
                    left = left.checked_sub(data.len()).ok_or_else(too_large)?;
                    if !each(data) {
                        return Err(answer::unavailable(reasons::NO_ROOM));
                    }
                }
            }
            Ok(())
        };
        match select(std::pin::pin!(read), timeout).await {
            Either::Left((read, _)) => read,
            Either::Right(_) => Err(answer::error(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "the request's body did not arrive in time",
            )),
        }
    }

    /// The route as it is, and as it was while offers of that time still hold.
    async fn candidates(
        &self,
        shown: &Shown,
        parts: &http::request::Parts,
    ) -> Result<Vec<Candidate>, Answer> {
        let now = self.shared.clock.now();
        let mut routes = vec![(self.pattern.clone(), self.paid.clone(), self.realm(parts))];
        for (until, old) in &self.current.old {
            if *until <= now {
                continue;
            }
            let Ok(found) = old.terms.routes.find(&parts.method, parts.uri.path()) else { continue };
            if let Some((pattern, Route::Paid(paid))) = found.route {
                routes.push((pattern.to_string().into(), paid.clone(), realm(&old.terms, parts)));
            }
        }
        let mut candidates = Vec::with_capacity(routes.len());
        for (pattern, paid, realm) in routes {
            let asked = match (&paid.price, shown.dialect()) {
                // A payment of v2 or MPP carries the quote that it accepts; a v1 payment must meet today's.
                (Price::Quoted { .. }, Dialect::X402V2 | Dialect::Mpp) => Vec::new(),
                _ => self.asked(&paid, parts).await?,
            };
            candidates.push(Candidate { pattern, paid, asked, realm });
        }
        Ok(candidates)
    }

    /// What this route asks for now.
    async fn asked(&self, paid: &Paid, parts: &http::request::Parts) -> Result<Vec<Requirement>, Answer> {
        let no_price = |error: &dyn std::fmt::Display| {
            if self.shared.may_warn() {
                tracing::warn!(%error, route = %self.pattern, "no price");
            }
            answer::unavailable("no_price")
        };
        match &paid.price {
            Price::Fixed(offers) => requirements(offers, paid.max_timeout).map_err(|error| no_price(&error)),
            Price::Quoted { hook, ways } => {
                let client = client_of(&parts.extensions);
                if !self.shared.questions.admit(client, self.shared.world.monotonic()) {
                    return Err(answer::too_many(TOO_MANY_QUESTIONS));
                }
                let request = QuoteRequest {
                    method: priced_as(&parts.method),
                    resource: self.resource.clone(),
                    headers: told(hook.as_ref(), &parts.headers),
                };
                let quote = hook.quote(&request).await.map_err(|error| no_price(&error))?;
                let holds = quote.valid_for.unwrap_or(paid.max_timeout).min(paid.max_timeout);
                let offers = quoted(&quote, ways).map_err(|error| no_price(&error))?;
                if offers.is_empty() {
                    return Err(no_price(&"no way to pay expresses the quote"));
                }
                requirements(&offers, holds).map_err(|error| no_price(&error))
            }
        }
    }

    /// Asks for payment where none was shown.
    async fn ask<B>(&self, request: Request<B>, client: Option<IpAddr>) -> Answer
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        // Without a digest the answer comes before the body, which a client may then keep to itself.
        if !self.current.terms.mpp.spoken || !self.paid.digest || !self.paid.charges() || body.is_end_stream()
        {
            return self.challenge(&parts, &[], None).await;
        }
        if !self.shared.questions.admit(client, self.shared.world.monotonic()) {
            return answer::too_many(TOO_MANY_QUESTIONS);
        }
        match self.digest(&parts.headers, body).await {
            Ok(digest) => {
                let why = Why { code: None, problem: &ProblemType::PaymentRequired, also: None };
                self.challenge_for(&parts, digest, why).await
            }
            Err(answer) => answer,
        }
    }

    /// The payment is somebody else's, or used up. A reader of MPP is told to pay anew, once that is no second payment
    /// for what this one may still bring.
    async fn conflict(
        &self,
        parts: &http::request::Parts,
        body: &[u8],
        to: &Addressee,
        id: PaymentId,
        kind: ConflictKind,
    ) -> Answer {
        if to.dialect == Dialect::Mpp && kind != ConflictKind::InProgress {
            let held = self.shared.seller.payment(id).await;
            if matches!(held, Ok(Some(held)) if is_over(&held) && !is_owed(&held)) {
                return self.challenge(parts, body, Some(kind.code())).await;
            }
        }
        answer::conflict(to, Some(id), kind)
    }

    /// Asks for payment, and says why if one was refused.
    async fn challenge(&self, parts: &http::request::Parts, body: &[u8], code: Option<&str>) -> Answer {
        let problem = code.map_or(ProblemType::PaymentRequired, mpp::problem_of);
        self.challenge_for(parts, self.digest_of(body), Why { code, problem: &problem, also: None }).await
    }

    /// The digest of a body that is here, as [`Visit::digest`] makes it.
    pub(crate) fn digest_of(&self, body: &[u8]) -> Option<BodyDigest> {
        (self.paid.digest && !body.is_empty()).then(|| BodyDigest::of(body))
    }

    pub(crate) async fn challenge_for(
        &self,
        parts: &http::request::Parts,
        digest: Option<BodyDigest>,
        why: Why<'_>,
    ) -> Answer {
        let asked = match self.asked(&self.paid, parts).await {
            Ok(asked) => asked,
            Err(answer) => return answer,
        };
        let session = self.paid.session.as_deref().filter(|_| self.shared.till.get().is_some());
        let by_mpp = session.is_some() || !self.paid.methods.is_empty();
        if asked.is_empty() && (!by_mpp || !self.current.terms.mpp.spoken) {
            return answer::unavailable("session_unavailable");
        }
        let url = format!("{}{}", self.base(parts), self.resource);
        let route = sealed_route(&self.pattern, &self.paid);
        let context = seal_context(&self.paid, &self.resource, &parts.headers);
        let seal = Seal {
            key: &self.shared.key,
            secrets: &self.shared.secrets,
            world: self.shared.world.as_ref(),
            tenant: &self.shared.tenant,
            route: &route,
            context: &context,
            method: priced_method(&parts.method),
        };
        let resource = Resource {
            url: &url,
            description: self.paid.description.as_deref(),
            mime_type: self.paid.mime_type.as_deref(),
        };
        let terms = &self.current.terms;
        let realm = self.realm(parts);
        let lines = |name: &str| parts.headers.get_all(name).into_iter().map(http::HeaderValue::as_bytes);
        // A preference that cannot be read is none.
        let accepts = AcceptPayment::parse(lines(mpp_header::ACCEPT_PAYMENT)).ok().flatten();
        let speech = Speech {
            realm: &realm,
            digest,
            own_header: parts.headers.get_all(header::AUTHORIZATION).iter().any(|value| !pays(value)),
            accepts: accepts.as_ref(),
            session,
            pattern: &self.pattern,
        };
        let beside = Beside { mpp: terms.mpp.spoken.then_some(speech), v1_body: terms.v1_body };
        let now = self.shared.clock.now();
        let made = offer::challenge(&asked, &self.paid, resource, seal, beside, why, now);
        // A plug-in may offer nothing: below the least that it takes, for one.
        if asked.is_empty() && made.mpp.is_empty() {
            return answer::unavailable("no_way_to_pay");
        }
        answer::challenge(&made, why.code)
    }

    /// The protection space that our challenges name.
    pub(crate) fn realm(&self, parts: &http::request::Parts) -> String {
        realm(&self.current.terms, parts)
    }

    fn base(&self, parts: &http::request::Parts) -> String {
        base(&self.current.terms, parts)
    }
}

/// The protection space that challenges by these terms name.
pub(crate) fn realm(terms: &Terms, parts: &http::request::Parts) -> String {
    if let Some(realm) = &terms.mpp.realm {
        return realm.clone();
    }
    let base = base(terms, parts).parse::<Uri>().ok();
    base.and_then(|base| base.host().map(str::to_owned)).unwrap_or_else(|| "localhost".to_owned())
}

/// The address that buyers reach us at, without a slash at its end.
fn base(terms: &Terms, parts: &http::request::Parts) -> String {
    if let Some(url) = &terms.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    let scheme = parts.extensions.get::<ClientScheme>().map_or("http", |scheme| scheme.0);
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| parts.uri.authority().map(|authority| authority.as_str()));
    // What a stranger wrote into `Host` ends up in our offer: only what looks like a host is repeated.
    let plain =
        |h: &&str| h.len() <= 255 && h.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    format!("{scheme}://{}", host.filter(plain).unwrap_or("localhost"))
}

fn priced_as(method: &Method) -> Method {
    if method == Method::HEAD { Method::GET } else { method.clone() }
}

/// Nothing more comes of this payment.
fn is_over(payment: &Payment) -> bool {
    matches!(
        payment.state,
        State::Settled { .. } | State::Refunded { .. } | State::Refused { .. } | State::Failed { .. }
    )
}

/// Paid, and as far as we know whoever paid has not got what was bought: nobody is told to pay for it again.
fn is_owed(payment: &Payment) -> bool {
    matches!(payment.state, State::Settled { .. }) && payment.delivery != payment::Delivery::Sent
}

fn malformed(error: &HeaderError) -> Answer {
    // Spec: draft-httpauth-payment-00: one credential a request.
    if *error == HeaderError::Several {
        let (code, message) = (error.code(), error.to_string());
        return answer::problem(StatusCode::BAD_REQUEST, ProblemType::BadRequest, &code, &message);
    }
    answer::error(StatusCode::BAD_REQUEST, &error.code(), &error.to_string())
}

fn log_sale(sale: &Sale) {
    tracing::debug!(
        payer = %sale.terms.payer,
        atoms = %sale.terms.money.atoms(),
        asset = %sale.terms.money.asset(),
        bound = ?sale.binding.bound,
        route_method = %sale.binding.method,
        "a payment was shown"
    );
}
