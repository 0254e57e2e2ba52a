//! The load itself: some connections, each with one request in flight, over a list of requests that are each sent once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farthing_evm::Address;
use http_body_util::Full;
use hyper::header::HeaderMap;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::http::{Connection, HttpError, Target};
use crate::payers::{Payers, Terms};
use crate::stats::{Report, Tally};

/// What is sent, and what answer is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `isValid` is `true`.
    Verify,
    /// `success` is `true` and a transaction is named.
    Settle,
    /// A paid resource: 200 with a receipt that says `success`.
    Pay,
    /// A priced resource without a payment: 402.
    Challenge,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each connection sends as soon as it has its answer.
    Closed,
    /// So many a second are due, whatever the server does. A latency counts from the moment a request was due, so
    /// that a server which stalls cannot hide it (coordinated omission).
    Open(f64),
}

#[derive(Debug)]
pub struct Plan {
    pub target: Target,
    pub kind: Kind,
    /// Bodies, or the values of the payment header. Each is used once; when they are used up the run is over.
    pub payments: Vec<Bytes>,
    pub connections: usize,
    pub pace: Pace,
    /// No request begins later than this.
    pub limit: Duration,
    /// How long an answer may take.
    pub patience: Duration,
}

struct Shared {
    plan: Plan,
    next: AtomicUsize,
    began: Instant,
}

/// Runs the plan to its end.
pub async fn drive(plan: Plan) -> Result<Report, HttpError> {
    // All connections stand before the clock starts.
    let mut connections = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections {
        let mut connection = Connection::new(&plan.target);
        connection.open().await?;
        connections.push(connection);
    }
    let shared = Arc::new(Shared { plan, next: AtomicUsize::new(0), began: Instant::now() });
    let tally = Arc::new(std::sync::Mutex::new(Tally::default()));
    let mut workers = tokio::task::JoinSet::new();
    for connection in connections {
        workers.spawn(work(Arc::clone(&shared), connection, Arc::clone(&tally)));
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    }
    let elapsed = shared.began.elapsed();
    let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    Ok(tally.report(elapsed))
}

async fn work(shared: Arc<Shared>, mut connection: Connection, tally: Arc<std::sync::Mutex<Tally>>) {
    let plan = &shared.plan;
    loop {
        let i = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(payment) = plan.payments.get(i) else { return };
        let due = match plan.pace {
            Pace::Closed => Instant::now(),
            Pace::Open(rate) => shared.began + Duration::from_secs_f64(i as f64 / rate),
        };
        if due.duration_since(shared.began) >= plan.limit {
            return;
        }
        tokio::time::sleep_until(due).await;
        let answer = match request(plan, payment.clone()) {
            Ok(request) => tokio::time::timeout(plan.patience, connection.exchange(request)).await,
            Err(error) => Ok(Err(error)),
        };
        let took = due.elapsed();
        let verdict = match answer {
            Ok(Ok((status, headers, body))) => judge(plan.kind, status, &headers, &body),
            Ok(Err(error)) => Err(Wrong::new(error.to_string(), String::new())),
            Err(_) => {
                // The answer may still come: it must not be taken for that of the next request.
                connection = Connection::new(&plan.target);
                Err(Wrong::new(HttpError::Timeout.to_string(), String::new()))
            }
        };
        let mut tally = tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match verdict {
            Ok(()) => tally.good(took),
            Err(Wrong { why, sample }) => tally.wrong(why, || sample),
        }
    }
}

fn request(plan: &Plan, payment: Bytes) -> Result<Request<Full<Bytes>>, HttpError> {
    let build = |error: hyper::http::Error| HttpError::Answer(error.to_string());
    match plan.kind {
        Kind::Verify | Kind::Settle => plan.target.post(payment),
        Kind::Pay => {
            let builder = plan.target.request("GET").header("payment-signature", payment.as_ref());
            builder.body(Full::default()).map_err(build)
        }
        Kind::Challenge => plan.target.request("GET").body(Full::default()).map_err(build),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    why: String,
    sample: String,
}

impl Wrong {
    fn new(why: impl Into<String>, sample: impl Into<String>) -> Self {
        Self { why: why.into(), sample: sample.into() }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    is_valid: bool,
    invalid_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settled {
    success: bool,
    transaction: Option<String>,
    error_reason: Option<String>,
}

/// Nothing counts but a plain yes.
fn judge(kind: Kind, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<(), Wrong> {
    let said = |why: String| Wrong::new(why, format!("{status} {}", String::from_utf8_lossy(body)));
    let unreadable = || said(format!("unreadable answer, status {}", status.as_u16()));
    match kind {
        Kind::Challenge if status == StatusCode::PAYMENT_REQUIRED => Ok(()),
        Kind::Challenge => Err(said(format!("status {}", status.as_u16()))),
        Kind::Verify => {
            let answer: Verified = serde_json::from_slice(body).map_err(|_| unreadable())?;
            if answer.is_valid && status == StatusCode::OK {
                return Ok(());
            }
            Err(said(answer.invalid_reason.unwrap_or_else(|| format!("status {}", status.as_u16()))))
        }
        Kind::Settle => {
            settled(serde_json::from_slice(body).map_err(|_| unreadable())?, status).map_err(said)
        }
        Kind::Pay => {
            if status != StatusCode::OK {
                return Err(said(format!("status {}", status.as_u16())));
            }
            let receipt = headers.get("payment-response").and_then(|text| STANDARD.decode(text).ok());
            let receipt = receipt.and_then(|json| serde_json::from_slice(&json).ok());
            settled(receipt.ok_or_else(|| said("200 without a receipt".to_owned()))?, status).map_err(said)
        }
    }
}

fn settled(answer: Settled, status: StatusCode) -> Result<(), String> {
    let named = answer.transaction.is_some_and(|hash| hash.len() == 66);
    if answer.success && named && status == StatusCode::OK {
        return Ok(());
    }
    Err(answer.error_reason.unwrap_or_else(|| format!("no transaction, status {}", status.as_u16())))
}

/// What a gateway asks for a resource, in its own words.
#[derive(Debug)]
pub struct Offer {
    accepted: Box<RawValue>,
    resource: Box<RawValue>,
}

#[derive(Deserialize)]
struct Required {
    resource: Box<RawValue>,
    accepts: Vec<Box<RawValue>>,
}

/// What the load reads of an offer; the rest is only repeated.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accepts {
    amount: String,
    pay_to: Address,
}

/// Asks for a priced resource once, for the offer that all payments of a run then take.
pub async fn ask(target: &Target) -> Result<Offer, HttpError> {
    let wrong = |why: &str| HttpError::Answer(why.to_owned());
    let request = target.request("GET").body(Full::default()).map_err(|_| wrong("no request"))?;
    let (status, headers, _) = Connection::new(target).exchange(request).await?;
    let header =
        headers.get("payment-required").ok_or_else(|| wrong(&format!("{status} without an offer")))?;
    let json = STANDARD.decode(header).map_err(|_| wrong("the offer is no base64"))?;
    let Required { resource, accepts } =
        serde_json::from_slice(&json).map_err(|_| wrong("the offer is not of version 2"))?;
    let accepted = accepts.into_iter().next().ok_or_else(|| wrong("nothing is offered"))?;
    Ok(Offer { accepted, resource })
}

impl Offer {
    /// Takes the offer `count` times.
    pub fn payments(
        &self,
        payers: &Payers,
        terms: &Terms,
        salt: u128,
        now_secs: u64,
        count: usize,
    ) -> Result<Vec<Bytes>, HttpError> {
        let asked: Result<Accepts, _> = serde_json::from_str(self.accepted.get());
        let asked = asked.map_err(|error| HttpError::Answer(error.to_string()))?;
        let atoms = asked.amount.parse().map_err(|_| HttpError::Answer("no amount".to_owned()))?;
        let terms = Terms { pay_to: asked.pay_to, atoms, ..terms.clone() };
        Ok(payers.headers(&terms, self.accepted.get(), self.resource.get(), salt, now_secs, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kind: Kind, status: u16, body: &str) -> Result<(), String> {
        judge(kind, StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
            .map_err(|wrong| wrong.why)
    }

    #[test]
    fn only_a_plain_yes_counts() {
        let tx = format!("0x{}", "ab".repeat(32));
        let settled = format!(r#"{{"success":true,"transaction":"{tx}","network":"eip155:84532"}}"#);
        let rows = [
            (Kind::Verify, 200, r#"{"isValid":true}"#.to_owned(), Ok(())),
            (Kind::Verify, 500, r#"{"isValid":true}"#.to_owned(), Err("status 500")),
            (Kind::Verify, 200, r#"{"isValid":false,"invalidReason":"a"}"#.to_owned(), Err("a")),
            (Kind::Verify, 200, r#"{"isValid":"true"}"#.to_owned(), Err("unreadable answer, status 200")),
            (Kind::Verify, 200, "{}".to_owned(), Err("unreadable answer, status 200")),
            (Kind::Settle, 200, settled.clone(), Ok(())),
            (Kind::Settle, 402, settled, Err("no transaction, status 402")),
            (
                Kind::Settle,
                200,
                r#"{"success":true,"transaction":""}"#.to_owned(),
                Err("no transaction, status 200"),
            ),
            (Kind::Settle, 200, r#"{"success":false,"errorReason":"b"}"#.to_owned(), Err("b")),
            (Kind::Pay, 200, String::new(), Err("200 without a receipt")),
            (Kind::Pay, 402, String::new(), Err("status 402")),
            (Kind::Challenge, 402, String::new(), Ok(())),
            (Kind::Challenge, 200, String::new(), Err("status 200")),
        ];
        for (kind, status, body, expected) in rows {
            assert_eq!(
                verdict(kind, status, &body),
                expected.map_err(str::to_owned),
                "{kind:?} {status} {body}"
            );
        }
    }

    #[test]
    fn a_receipt_in_the_header_counts() {
        let receipt = format!(r#"{{"success":true,"transaction":"0x{}"}}"#, "cd".repeat(32));
        let mut headers = HeaderMap::new();
        headers.insert("payment-response", STANDARD.encode(receipt).parse().unwrap());
        assert_eq!(judge(Kind::Pay, StatusCode::OK, &headers, b"sunny"), Ok(()));
    }

    /// A server that answers every request the same way and counts them.
    async fn server(body: &'static str) -> (String, Arc<AtomicUsize>) {
        use hyper::service::service_fn;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                let answer = service_fn(move |_| {
                    count.fetch_add(1, Ordering::Relaxed);
                    async move { Ok::<_, hyper::Error>(hyper::Response::new(Full::<Bytes>::from(body))) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), answer),
                );
            }
        });
        (format!("http://{address}/verify"), seen)
    }

    fn plan(url: &str, pace: Pace) -> Plan {
        Plan {
            target: Target::parse(url).unwrap(),
            kind: Kind::Verify,
            payments: vec![Bytes::from_static(b"{}"); 40],
            connections: 4,
            pace,
            limit: Duration::from_secs(20),
            patience: Duration::from_secs(5),
        }
    }

    #[tokio::test]
    async fn each_payment_is_sent_once_and_a_no_is_not_counted() {
        let (url, seen) = server(r#"{"isValid":true}"#).await;
        let report = drive(plan(&url, Pace::Closed)).await.unwrap();
        assert_eq!((report.good, report.wrong.len(), seen.load(Ordering::Relaxed)), (40, 0, 40));

        let (url, _) = server(r#"{"isValid":false,"invalidReason":"no"}"#).await;
        let report = drive(plan(&url, Pace::Open(10_000.0))).await.unwrap();
        assert_eq!((report.good, report.wrong["no"]), (0, 40));
    }
}
