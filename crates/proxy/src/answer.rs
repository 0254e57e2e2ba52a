//! Answers as programs get them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use farthing_listener::{BoxError, Departures};
use farthing_wallet::Denied;
use farthing_wallet::client::{Answer, Body as Came, Payment, Pieces, Plan};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Response};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use crate::headers;

/// The body of an answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Names the purchase that an answer belongs to.
pub(crate) const PURCHASE: HeaderName = HeaderName::from_static("farthing-purchase");
/// What was paid for it: atoms, and their asset.
const PAID: HeaderName = HeaderName::from_static("farthing-paid");
/// Why nothing was paid, in stable codes, and in words.
const DENIED: HeaderName = HeaderName::from_static("farthing-denied");
const DENIED_DETAIL: HeaderName = HeaderName::from_static("farthing-denied-detail");
/// What the seller says of a payment that it did not take.
const REFUSED: HeaderName = HeaderName::from_static("farthing-refused");

/// How many codes are told, and the longest text, in bytes.
const MAX_CODES: usize = 8;
const MAX_TEXT_BYTES: usize = 400;
/// How long a body may pause.
const BETWEEN_PIECES: Duration = Duration::from_secs(300);

pub(crate) fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn empty() -> Body {
    full(Bytes::new())
}

/// A seller's answer, passed on as it comes.
pub(crate) fn passed(answer: Answer, rest: Option<Box<dyn Pieces>>) -> Response<Body> {
    let body = match rest {
        None => full(came(&answer.body)),
        Some(rest) => {
            let pieces = futures_util::stream::unfold(Some(rest), |rest| async {
                let mut rest = rest?;
                match rest.next(BETWEEN_PIECES).await {
                    Ok(Some(piece)) => Some((Ok(Frame::data(piece)), Some(rest))),
                    Ok(None) => None,
                    // The connection breaks off, so that nothing seems whole that is not.
                    Err(error) => Some((Err(BoxError::from(error)), None)),
                }
            });
            StreamBody::new(pieces).boxed_unsync()
        }
    };
    respond(answer, body)
}

fn respond(answer: Answer, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    headers::of_answer(response.headers_mut());
    response
}

/// As much of a body as came.
fn came(body: &Came) -> Bytes {
    match body {
        Came::Complete(bytes) | Came::Truncated(bytes) => bytes.clone(),
        Came::TooLarge { .. } => Bytes::new(),
    }
}

/// A whole answer that a purchase brought, or a refusal. `told` is called with whether it left for the program.
pub(crate) fn bought(
    answer: Answer,
    method: &Method,
    payment: &Payment,
    exit: Option<Departures>,
    told: impl FnOnce(bool) + Send + 'static,
) -> Response<Body> {
    let data = came(&answer.body);
    let bodiless = *method == Method::HEAD;
    // Without a body of its own it says how long one would be.
    let mut answer = answer;
    if !bodiless {
        answer.headers.remove(header::CONTENT_LENGTH);
    }
    let whole = bodiless || data.is_empty();
    let parcel = Parcel { data: (!whole).then_some(data), whole, exit, told: Some(Box::new(told)) };
    let mut response = respond(answer, parcel.boxed_unsync());
    purchase(response.headers_mut(), payment);
    response
}

fn purchase(headers: &mut HeaderMap, payment: &Payment) {
    say(headers, PURCHASE, &payment.id.to_string());
    say(headers, PAID, &format!("{} {}", payment.money.atoms(), payment.money.asset()));
}

/// An answer to a payment that was not taken.
pub(crate) fn refused(answer: Answer, payment: &Payment, reason: &str) -> Response<Body> {
    let mut answer = answer;
    answer.headers.remove(header::CONTENT_LENGTH);
    let body = full(came(&answer.body));
    let mut response = respond(answer, body);
    say(response.headers_mut(), PURCHASE, &payment.id.to_string());
    say(response.headers_mut(), REFUSED, reason);
    response
}

/// The price that a seller asks, and why it is not paid.
pub(crate) fn unpaid(asked: Answer, why: &Unpaid) -> Response<Body> {
    let mut response = passed(asked, None);
    say(response.headers_mut(), DENIED, &why.codes.join(", "));
    say(response.headers_mut(), DENIED_DETAIL, &why.text);
    response
}

/// Why a price was not paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpaid {
    /// Of the policy's facts, or of rules as their owner names them.
    codes: Vec<String>,
    text: String,
}

impl Unpaid {
    pub fn new(code: &str, text: impl fmt::Display) -> Self {
        Self { codes: vec![code.to_owned()], text: text.to_string() }
    }

    /// What stood against each offer; or against the best, when it was to be paid.
    pub fn of(plan: &Plan, denied: Option<&Denied>) -> Self {
        if let Some(denied) = denied {
            return Self::new(denied.code(), denied);
        }
        let objections: Vec<_> =
            plan.considered.iter().filter_map(|considered| considered.objection.as_ref()).collect();
        let Some(first) = objections.first() else {
            return Self::new("no_offer", "no offer is one that this wallet can read and pay");
        };
        let mut codes: Vec<String> = Vec::new();
        for code in objections.iter().map(|objection| objection.code()) {
            if codes.len() < MAX_CODES && codes.iter().all(|known| known != code) {
                codes.push(code.to_owned());
            }
        }
        Self { codes, text: first.to_string() }
    }
}

/// Writes a text where only plain characters may stand. Some of it may be a counterparty's word.
fn say(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    let plain = text.chars().map(|c| if matches!(c, ' '..='~') { c } else { '?' });
    let plain: String = plain.take(MAX_TEXT_BYTES).collect();
    if let Ok(value) = HeaderValue::from_str(&plain) {
        headers.insert(name, value);
    }
}

type Told = Box<dyn FnOnce(bool) + Send>;

/// Goods on their way to a program: says whether all of them left.
struct Parcel {
    data: Option<Bytes>,
    /// Whether the server took everything.
    whole: bool,
    exit: Option<Departures>,
    told: Option<Told>,
}

impl http_body::Body for Parcel {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.whole = true;
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

impl Drop for Parcel {
    fn drop(&mut self) {
        let Some(told) = self.told.take() else { return };
        match self.exit.take() {
            // The server took it to its end; whether it leaves is seen at the connection.
            Some(exit) if self.whole => exit.when_gone(told),
            _ => told(false),
        }
    }
}
