//! What became of a sale, as HTTP. Nothing here invites anybody to pay for what may be paid already.

use farthing_engine::{ConflictKind, StoredResponse};
use farthing_payment::{Dialect, Payment, TxRef};
use farthing_primitives::PaymentId;
use farthing_rails::mpp;
use farthing_wire::mpp::header::PAYMENT_RECEIPT;
use farthing_wire::mpp::{Problem, ProblemType, status::PROBLEM_CONTENT_TYPE};
use farthing_wire::x402::header::{PAYMENT_REQUIRED, PAYMENT_RESPONSE, X_PAYMENT_RESPONSE};
use farthing_wire::x402::{ErrorCode, Message, SettlementResponse};
use farthing_wire::{Json, Object};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::admit::PaidBy;
use crate::body::{self, PaywallBody};
use crate::headers::{X_FARTHING_PAYMENT, X_FARTHING_STATUS, make_private, no_store};
use crate::offer::Challenge;
use crate::upstream::reasons;

/// After how many seconds a buyer may ask again what became of its payment.
pub const RETRY_PENDING_SECS: u64 = 2;
/// After how many seconds to try again when something that we need is out of order.
pub const RETRY_UNAVAILABLE_SECS: u64 = 5;

/// Where a payment's state can be asked for: this and its id.
pub const STATUS_PATH: &str = "/.well-known/farthing/payments/";

/// How a payment's answers are addressed: in its dialect, with its network by the name used there.
#[derive(Debug, Clone)]
pub(crate) struct Addressee {
    pub dialect: Dialect,
    pub network: String,
    /// The challenge that it answered, in MPP.
    pub challenge: Option<String>,
    /// The plug-in that it was made by.
    pub by: Option<PaidBy>,
    /// Whether the payment buys one answer: in MPP, unless its request is named.
    ///
    /// Spec: draft-httpauth-payment-00, "Idempotency and Side Effects".
    pub once: bool,
    /// The public address that [`STATUS_PATH`] is under.
    pub base: String,
}

impl Addressee {
    /// In MPP there are no receipts of anything but success.
    ///
    /// Spec: draft-httpauth-payment-00, "Receipt Status Semantics".
    fn put_receipt(&self, headers: &mut HeaderMap, receipt: &SettlementResponse) {
        let name = match self.dialect {
            Dialect::X402V1 => X_PAYMENT_RESPONSE,
            Dialect::X402V2 => PAYMENT_RESPONSE,
            Dialect::Mpp => return,
        };
        if let Ok(value) = HeaderValue::from_str(&receipt.to_header()) {
            headers.insert(name, value);
        }
    }

    /// Spec: x402 v2 section 5.3, and draft-evm-charge-00, "Receipt Generation", for a payment whose money is in a block.
    pub fn put_success(&self, headers: &mut HeaderMap, payment: &Payment) {
        let tx = payment.tx().map(TxRef::as_str).unwrap_or_default();
        if let Some(challenge) = &self.challenge {
            let network = payment.terms.money.asset().network();
            let receipt = match &self.by {
                Some(by) => by.method.receipt(challenge, tx, by.external_id.as_deref(), payment.updated),
                None => mpp::receipt(challenge, tx, network, payment.updated),
            };
            let receipt = receipt.to_header();
            if let Ok(value) = HeaderValue::from_str(&receipt) {
                headers.insert(PAYMENT_RECEIPT, value);
            }
            return;
        }
        let payer = payment.terms.payer.as_str();
        self.put_receipt(headers, &SettlementResponse::settled(&self.network, tx, Some(payer)));
    }

    /// Spec: x402 v2 section 5.3, for a payment of which no money moves: a buyer that reads it need not wonder.
    pub fn put_not_charged(&self, headers: &mut HeaderMap, payment: &Payment, reason: &str) {
        let payer = payment.terms.payer.as_str();
        self.put_receipt(
            headers,
            &SettlementResponse::failed(&self.network, ErrorCode::from(reason), Some(payer)),
        );
    }

    pub fn put_payment(&self, headers: &mut HeaderMap, id: PaymentId) {
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            headers.insert(X_FARTHING_PAYMENT, value);
        }
        if let Ok(value) = HeaderValue::from_str(&self.status_url(id)) {
            headers.insert(X_FARTHING_STATUS, value);
        }
    }

    fn status_url(&self, id: PaymentId) -> String {
        format!("{}{STATUS_PATH}{id}", self.base)
    }
}

/// An error of ours: a stable code, and a sentence for people.
pub(crate) fn error(status: StatusCode, code: &str, message: &str) -> Response<PaywallBody> {
    json(status, Object::new().with("error", code).with("message", message))
}

pub(crate) fn json(status: StatusCode, object: Object) -> Response<PaywallBody> {
    let mut response = Response::new(body::full(Json::from(object).to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    no_store(response.headers_mut());
    response
}

/// A failure as MPP tells it, where no challenge goes with it: to pay again would not mend it.
pub(crate) fn problem(
    status: StatusCode,
    kind: ProblemType,
    code: &str,
    message: &str,
) -> Response<PaywallBody> {
    problem_with(status, kind, code, message, &Object::new())
}

/// The same with further members.
pub(crate) fn problem_with(
    status: StatusCode,
    kind: ProblemType,
    code: &str,
    message: &str,
    also: &Object,
) -> Response<PaywallBody> {
    let mut problem = Problem::new(kind, message);
    problem.status = status.as_u16();
    problem.other = also.clone();
    let object = problem.to_object().with("error", code).with("message", message);
    let mut response = json(status, object);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
    response
}

/// 402 with the offers in all dialects; 412 where the payer must approve Permit2 first.
///
/// Spec: x402 v2 HTTP transport, "Payment Required Signaling"; 412 as from the published server.
pub(crate) fn challenge(challenge: &Challenge, code: Option<&str>) -> Response<PaywallBody> {
    let approve_first = code == Some(ErrorCode::Permit2AllowanceRequired.as_str());
    let status = if approve_first { StatusCode::PRECONDITION_FAILED } else { StatusCode::PAYMENT_REQUIRED };
    let mut response = Response::new(body::full(challenge.body()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    // Readers of version 1 read the body whatever it is called.
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_CONTENT_TYPE));
    // A route that is sold by the unit alone has no offer of x402.
    if !challenge.v2.accepts.is_empty()
        && let Ok(value) = HeaderValue::from_str(&challenge.header())
    {
        headers.insert(PAYMENT_REQUIRED, value);
    }
    for value in challenge.mpp_headers() {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(header::WWW_AUTHENTICATE, value);
        }
    }
    no_store(headers);
    response
}

/// Paid and complete.
pub(crate) fn served(to: &Addressee, payment: &Payment, response: StoredResponse) -> Response<PaywallBody> {
    let mut answer = from_stored(response);
    let headers = answer.headers_mut();
    make_private(headers);
    to.put_success(headers, payment);
    to.put_payment(headers, payment.id);
    answer
}

/// The upstream's own answer, or 502 or 504 where that cannot be shown. Nothing was charged, and the receipt says so.
pub(crate) fn not_charged(
    to: &Addressee,
    payment: &Payment,
    reason: &str,
    response: Option<StoredResponse>,
) -> Response<PaywallBody> {
    let mut answer = unsold(reason, response);
    let headers = answer.headers_mut();
    no_store(headers);
    to.put_not_charged(headers, payment, reason);
    to.put_payment(headers, payment.id);
    answer
}

/// The upstream's own answer, or why there is none to show.
pub(crate) fn unsold(reason: &str, response: Option<StoredResponse>) -> Response<PaywallBody> {
    match response {
        Some(response) => from_stored(response),
        None if reason == reasons::TIMEOUT => error(
            StatusCode::GATEWAY_TIMEOUT,
            reason,
            "the service did not answer in time; nothing was charged",
        ),
        None if reason == reasons::NO_ROOM => unavailable(reason),
        None => error(
            StatusCode::BAD_GATEWAY,
            reason,
            "the service gave no answer worth charging for; nothing was charged",
        ),
    }
}

/// The attempt came to nothing, and the authorization may still be used: no challenge beside it.
///
/// Spec: x402 v2 HTTP transport, "Settlement Response Delivery", example (failure).
pub(crate) fn settlement_failed(to: &Addressee, payment: &Payment, reason: &str) -> Response<PaywallBody> {
    if to.dialect == Dialect::Mpp {
        // Spec: draft-httpauth-payment-00: a 402 carries a challenge, and this must not.
        let message = "the payment came to nothing; sign no other before it ends";
        let kind = ProblemType::VerificationFailed;
        let mut answer = self::problem(StatusCode::CONFLICT, kind, reason, message);
        to.put_payment(answer.headers_mut(), payment.id);
        return answer;
    }
    let mut answer = Response::new(body::full("{}"));
    *answer.status_mut() = StatusCode::PAYMENT_REQUIRED;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    no_store(headers);
    to.put_not_charged(headers, payment, reason);
    to.put_payment(headers, payment.id);
    answer
}

/// It cannot be told yet whether the money moved: ask again with the same payment, and sign no other.
pub(crate) fn pending(
    to: &Addressee,
    id: PaymentId,
    tx: Option<&TxRef>,
    payer: &str,
) -> Response<PaywallBody> {
    let tx = tx.map(TxRef::as_str).unwrap_or_default();
    let object = Object::new()
        .with("error", ErrorCode::SettlementPending.as_str())
        .with("message", "the payment is not settled yet: ask again with the same payment, and sign no other")
        .with("payment", id.to_string())
        .with("transaction", tx)
        .with("status", to.status_url(id));
    let mut answer = json(StatusCode::SERVICE_UNAVAILABLE, object);
    let headers = answer.headers_mut();
    headers.insert(header::RETRY_AFTER, RETRY_PENDING_SECS.into());
    to.put_receipt(headers, &SettlementResponse::pending(&to.network, tx, Some(payer)));
    to.put_payment(headers, id);
    answer
}

/// `id` is of the payment that is in the way, if whoever asks may know it.
pub(crate) fn conflict(to: &Addressee, id: Option<PaymentId>, kind: ConflictKind) -> Response<PaywallBody> {
    let message = match kind {
        ConflictKind::OtherRequest => "this payment was made for another request",
        ConflictKind::UsedUp => "this payment was used, and its answer is not kept any more",
        ConflictKind::Interrupted => {
            "the service was interrupted, and asking it again is not safe; nothing was charged"
        }
        ConflictKind::InProgress => "this payment is being served already",
        ConflictKind::NameTaken => {
            "another payment of this payer has this payment-identifier: show that one, or name this one anew"
        }
    };
    let object = Object::new()
        .with("error", kind.code())
        .with("message", message)
        .with_some("payment", id.map(|id| id.to_string()))
        .with_some("status", id.map(|id| to.status_url(id)));
    let mut answer = json(StatusCode::CONFLICT, object);
    if let Some(id) = id {
        to.put_payment(answer.headers_mut(), id);
    }
    answer
}

/// Something that we need is out of order. Nothing was served, and nobody is asked to pay.
pub(crate) fn unavailable(code: &str) -> Response<PaywallBody> {
    let mut answer =
        error(StatusCode::SERVICE_UNAVAILABLE, code, "not available now: ask again with the same payment");
    answer.headers_mut().insert(header::RETRY_AFTER, RETRY_UNAVAILABLE_SECS.into());
    answer
}

/// The same payment is being answered to another request.
pub(crate) fn in_progress() -> Response<PaywallBody> {
    let code = ConflictKind::InProgress.code();
    let mut answer =
        error(StatusCode::CONFLICT, code, "this payment is being served already: ask again with it");
    answer.headers_mut().insert(header::RETRY_AFTER, 1.into());
    answer
}

pub(crate) fn too_many(what: &str) -> Response<PaywallBody> {
    let mut answer = error(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", what);
    answer.headers_mut().insert(header::RETRY_AFTER, 1.into());
    answer
}

/// What anybody who knows its id may know of a payment.
pub(crate) fn status(payment: &Payment) -> Response<PaywallBody> {
    let money = &payment.terms.money;
    let object = Object::new()
        .with("payment", payment.id.to_string())
        .with("state", payment.state.name())
        .with("delivery", payment.delivery.name())
        .with("transaction", payment.tx().map(TxRef::as_str).unwrap_or_default())
        .with("amount", money.atoms().to_string())
        .with("asset", money.asset().address().to_string())
        .with("network", money.asset().network().to_string())
        .with_some("reason", payment.reason().map(|reason| reason.code().to_owned()))
        .with("updated", payment.updated.to_string());
    json(StatusCode::OK, object)
}

pub(crate) fn from_stored(response: StoredResponse) -> Response<PaywallBody> {
    let (mut headers, trailers) = (map_of(response.headers), map_of(response.trailers));
    // Spec: RFC 9110 section 6.6.2: over HTTP/1.1 only what is announced is sent.
    let names = trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    headers.remove(header::TRAILER);
    if let Ok(value) = HeaderValue::from_str(&names)
        && !names.is_empty()
    {
        headers.insert(header::TRAILER, value);
    }
    let mut answer = Response::new(body::stored(response.body, trailers));
    // What the store holds came from an answer with a valid status.
    *answer.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::BAD_GATEWAY);
    *answer.headers_mut() = headers;
    answer
}

fn map_of(pairs: Vec<(String, Vec<u8>)>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}
