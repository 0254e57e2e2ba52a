//! The load itself: some connections, over a list of requests that are each sent once.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::http::{Connection, Connector, HttpError, Target};
use crate::judge::{Kind, Wrong, judge};
use crate::offer::Offer;
use crate::payers::{Payers, Run};
use crate::schedule::Schedule;
use crate::stats::{Report, Tally, Times};

/// What is sent.
#[derive(Debug)]
pub enum Script {
    /// Bodies for `/verify`, or `/settle`, or the values of the payment header: signed before the clock starts. Each
    /// is used once; when they are used up the run is over.
    Signed(Kind, Vec<Bytes>),
    /// So often: ask for the resource, sign what it asks, and ask again with the payment. Both answers and the
    /// signature (some 50 µs) are in the latency.
    Buy(Arc<Buyer>, usize),
    /// So often: ask for the resource and pay nothing.
    Ask(usize),
}

/// Signs while the clock runs.
#[derive(Debug)]
pub struct Buyer {
    pub payers: Payers,
    pub run: Run,
    /// The most atoms of one payment; what costs more is not paid.
    pub most: u128,
}

impl Script {
    fn len(&self) -> usize {
        match self {
            Self::Signed(_, payments) => payments.len(),
            Self::Buy(_, count) | Self::Ask(count) => *count,
        }
    }
}

#[derive(Debug)]
pub enum Pace {
    /// Each connection sends as soon as it has its answer, for at most so long.
    Closed(Duration),
    /// Each request is due at its time, whatever the server does. A latency counts from the moment a request was
    /// due, so that a server which stalls cannot hide it (coordinated omission).
    Open { schedule: Schedule, rate: f64, length: Duration },
}

#[derive(Debug)]
pub struct Plan {
    pub target: Target,
    pub script: Script,
    pub connections: usize,
    pub pace: Pace,
    /// How long an answer may take, and how long after it was due a request may still be sent.
    pub patience: Duration,
    /// A refusal by this code is what the run is about, and counts as good.
    pub expect: Option<String>,
    /// To be watched while it runs.
    pub watch: Arc<Watch>,
}

/// How far a run is.
#[derive(Debug, Default)]
pub struct Watch {
    pub good: AtomicU64,
    pub wrong: AtomicU64,
    pub in_flight: AtomicU64,
}

struct Shared {
    plan: Plan,
    connector: Connector,
    next: AtomicUsize,
    began: Instant,
    /// One permit for each request that is due.
    due: Semaphore,
    tally: Mutex<Tally>,
}

/// Runs the plan to its end.
///
/// # Errors
/// [`HttpError::Connect`] if the connections cannot all be made before the clock starts.
pub async fn drive(plan: Plan) -> Result<Report, HttpError> {
    let connector = Connector::new(&plan.target)?;
    // All connections stand before the clock starts.
    let mut connections = Vec::with_capacity(plan.connections);
    for _ in 0..plan.connections.max(1) {
        let mut connection = Connection::new(&connector, &plan.target);
        connection.open().await?;
        connections.push(connection);
    }
    let shared = Arc::new(Shared {
        plan,
        connector,
        next: AtomicUsize::new(0),
        began: Instant::now(),
        due: Semaphore::new(0),
        tally: Mutex::new(Tally::default()),
    });
    let pacer = Pacer::start(&shared, connections.len());
    let mut workers = tokio::task::JoinSet::new();
    for connection in connections {
        workers.spawn(work(Arc::clone(&shared), connection));
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    }
    let elapsed = shared.began.elapsed();
    drop(pacer);
    let tally = std::mem::take(&mut *shared.tally());
    let (offered, length) = match &shared.plan.pace {
        Pace::Closed(_) => (None, elapsed),
        Pace::Open { rate, length, .. } => (Some(*rate), *length),
    };
    Ok(tally.report(offered, length, elapsed))
}

/// Lets requests go when they are due. A thread, not a task: the system wakes a thread within a tenth of a millisecond
/// of its time, an asynchronous timer within one or two.
struct Pacer {
    stop: Arc<AtomicBool>,
}

/// The longest that it sleeps before it looks whether it is still wanted.
const NAP: Duration = Duration::from_millis(100);

impl Pacer {
    fn start(shared: &Arc<Shared>, connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        if matches!(shared.plan.pace, Pace::Open { .. }) {
            let (shared, stop) = (Arc::clone(shared), Arc::clone(&stop));
            std::thread::spawn(move || {
                let Pace::Open { schedule, .. } = &shared.plan.pace else { return };
                let mut i = 0;
                while let Some(due) = schedule.due(i) {
                    loop {
                        let wait = due.saturating_sub(shared.began.elapsed());
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        if wait.is_zero() {
                            break;
                        }
                        std::thread::sleep(wait.min(NAP));
                    }
                    shared.due.add_permits(1);
                    i += 1;
                }
                // Whoever finds that nothing is left ends.
                shared.due.add_permits(connections);
            });
        }
        Self { stop }
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        // A panic elsewhere leaves whole entries behind.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next request, and since when it is due; `None` when the run is over.
    async fn next(&self) -> Option<(usize, Instant)> {
        let length = match &self.plan.pace {
            Pace::Closed(length) => length,
            Pace::Open { schedule, .. } => {
                let free = match self.due.try_acquire() {
                    Ok(permit) => {
                        permit.forget();
                        false
                    }
                    Err(_) => {
                        // The semaphore is never closed.
                        self.due.acquire().await.ok()?.forget();
                        true
                    }
                };
                let i = self.next.fetch_add(1, Ordering::Relaxed);
                let due = self.began + schedule.due(i).filter(|_| i < self.plan.script.len())?;
                if free {
                    self.tally().lag(due.elapsed());
                }
                return Some((i, due));
            }
        };
        let i = self.next.fetch_add(1, Ordering::Relaxed);
        let now = Instant::now();
        (i < self.plan.script.len() && now.duration_since(self.began) < *length).then_some((i, now))
    }
}

async fn work(shared: Arc<Shared>, mut connection: Connection) {
    let plan = &shared.plan;
    while let Some((i, due)) = shared.next().await {
        if due.elapsed() > plan.patience {
            plan.watch.wrong.fetch_add(1, Ordering::Relaxed);
            shared.tally().wrong(HttpError::NotSent.into());
            continue;
        }
        let sent = Instant::now();
        plan.watch.in_flight.fetch_add(1, Ordering::Relaxed);
        let verdict = match tokio::time::timeout(plan.patience, perform(plan, &mut connection, i)).await {
            Ok(verdict) => verdict,
            Err(_) => {
                connection = Connection::new(&shared.connector, &plan.target);
                Err(HttpError::Timeout.into())
            }
        };
        plan.watch.in_flight.fetch_sub(1, Ordering::Relaxed);
        let at = match &plan.pace {
            Pace::Closed(_) => 0.0,
            Pace::Open { length, .. } => {
                due.duration_since(shared.began).as_secs_f64() / length.as_secs_f64().max(f64::MIN_POSITIVE)
            }
        };
        match verdict {
            Err(wrong) if plan.expect.as_ref() != Some(&wrong.code) => {
                plan.watch.wrong.fetch_add(1, Ordering::Relaxed);
                shared.tally().wrong(wrong);
            }
            _ => {
                plan.watch.good.fetch_add(1, Ordering::Relaxed);
                shared.tally().good(Times { latency: due.elapsed(), service: sent.elapsed(), at });
            }
        }
    }
}

/// One request of the script, and what is thought of its answer.
async fn perform(plan: &Plan, connection: &mut Connection, i: usize) -> Result<(), Wrong> {
    let target = &plan.target;
    let (kind, request) = match &plan.script {
        Script::Signed(kind, payments) => {
            let payment = payments.get(i).cloned().unwrap_or_default();
            match kind {
                Kind::Verify | Kind::Settle => (*kind, target.post(payment)?),
                Kind::Paid | Kind::Challenge => (*kind, target.get(Some((PAYMENT, payment)))?),
            }
        }
        Script::Ask(_) => (Kind::Challenge, target.get(None)?),
        Script::Buy(buyer, _) => {
            let (status, headers, body) = connection.exchange(target.get(None)?).await?;
            judge(Kind::Challenge, status, &headers, &body)?;
            let unreadable = |why: String| Wrong::new("unreadable_offer", why);
            let offer = Offer::read(&headers).map_err(|error| unreadable(error.to_string()))?;
            let offer = offer.ok_or_else(|| unreadable("no offer".to_owned()))?;
            if offer.terms().atoms > buyer.most {
                return Err(Wrong::new("price_rose", offer.accepted()));
            }
            (Kind::Paid, target.get(Some((PAYMENT, buyer.payers.header(&offer, buyer.run, i))))?)
        }
    };
    let (status, headers, body) = connection.exchange(request).await?;
    judge(kind, status, &headers, &body)
}

/// Spec: x402 v2, HTTP transport.
const PAYMENT: &str = "payment-signature";

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::service::service_fn;

    use super::*;
    use crate::payers::tests::terms;
    use crate::payers::{Generation, Payers};
    use crate::schedule::Arrivals;

    /// A server that answers every request as `answer` says, and counts them.
    async fn server<F, R>(answer: F) -> (String, Arc<AtomicUsize>)
    where
        F: Fn(hyper::Request<hyper::body::Incoming>, usize) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = hyper::Response<Full<Bytes>>> + Send,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (count, answer) = (Arc::clone(&count), answer.clone());
                let answer = service_fn(move |request| {
                    let number = count.fetch_add(1, Ordering::Relaxed);
                    let answer = answer.clone();
                    async move { Ok::<_, hyper::Error>(answer(request, number).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), answer),
                );
            }
        });
        (format!("http://{address}/verify"), seen)
    }

    fn says(body: &'static str) -> hyper::Response<Full<Bytes>> {
        hyper::Response::new(Full::from(body))
    }

    const YES: &str = r#"{"isValid":true}"#;

    fn plan(url: &str, count: usize, connections: usize, pace: Pace) -> Plan {
        Plan {
            target: Target::parse(url).unwrap(),
            script: Script::Signed(Kind::Verify, vec![Bytes::from_static(b"{}"); count]),
            connections,
            pace,
            patience: Duration::from_secs(5),
            expect: None,
            watch: Arc::default(),
        }
    }

    fn open(rate: f64, length: Duration) -> Pace {
        Pace::Open { schedule: Schedule::new(Arrivals::Constant, rate, length), rate, length }
    }

    #[tokio::test]
    async fn each_payment_is_sent_once_and_a_no_is_not_counted() {
        let (url, seen) = server(|_, _| async { says(YES) }).await;
        let closed = Pace::Closed(Duration::from_secs(20));
        let report = drive(plan(&url, 40, 4, closed)).await.unwrap();
        assert_eq!((report.good, report.wrong.len(), seen.load(Ordering::Relaxed)), (40, 0, 40));

        let (url, _) = server(|_, _| async { says(r#"{"isValid":false,"invalidReason":"no"}"#) }).await;
        let report = drive(plan(&url, 40, 4, open(10_000.0, Duration::from_millis(4)))).await.unwrap();
        assert_eq!((report.good, report.wrong["no"]), (0, 40));
        let mut expecting = plan(&url, 40, 4, Pace::Closed(Duration::from_secs(20)));
        expecting.expect = Some("no".to_owned());
        assert_eq!(drive(expecting).await.unwrap().good, 40);
    }

    #[tokio::test]
    async fn fewer_payments_than_arrivals_end_the_run() {
        let (url, seen) = server(|_, _| async { says(YES) }).await;
        let report = drive(plan(&url, 7, 2, open(10_000.0, Duration::from_millis(50)))).await.unwrap();
        assert_eq!((report.good, seen.load(Ordering::Relaxed)), (7, 7));
    }

    #[tokio::test]
    async fn a_stall_counts_for_all_who_were_due_meanwhile() {
        // One connection, and the first answer comes only when the test lets it, after every other request was due: a
        // closed loop would see one slow answer and nineteen quick ones.
        let (let_go, gate) = tokio::sync::watch::channel(false);
        let (url, _) = server(move |_, number| {
            let mut gate = gate.clone();
            async move {
                if number == 0 {
                    gate.wait_for(|open| *open).await.unwrap();
                }
                says(YES)
            }
        })
        .await;
        const STALL: Duration = Duration::from_millis(60);
        tokio::spawn(async move {
            tokio::time::sleep(STALL).await;
            let_go.send(true).unwrap();
        });
        let report = drive(plan(&url, 20, 1, open(2_000.0, Duration::from_millis(10)))).await.unwrap();
        assert_eq!(report.good, 20);
        // The requests were due in the first 10 ms, so all of them waited for most of the stall.
        assert!(report.p50_ms > 40.0, "{report:?}");
        assert!(report.service.p50_ms < report.p50_ms, "{report:?}");
    }

    #[tokio::test]
    async fn who_never_answers_is_waited_for_only_so_long() {
        let (url, _) = server(|_, _| std::future::pending()).await;
        let mut plan = plan(&url, 3, 1, open(1_000.0, Duration::from_millis(3)));
        plan.patience = Duration::from_millis(20);
        let report = drive(plan).await.unwrap();
        assert_eq!(report.good, 0);
        // The first is sent and not answered; the others may find no connection in time.
        assert_eq!(report.wrongs(), 3, "{report:?}");
        assert!(report.wrong["no_answer_in_time"] >= 1);
    }

    #[tokio::test]
    async fn who_buys_asks_first_and_pays_what_is_asked() {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let terms = terms();
        let offer = format!(
            r#"{{"resource":{{"url":"/w"}},"accepts":[{{"scheme":"exact","network":"eip155:84532","amount":"1000","asset":"{}","payTo":"{}","maxTimeoutSeconds":60,"extra":{{"name":"USDC","version":"2"}}}}]}}"#,
            terms.token, terms.pay_to
        );
        let (url, seen) = server(move |request, _| {
            let offer = offer.clone();
            async move {
                let builder = hyper::Response::builder();
                match request.headers().get("payment-signature") {
                    None => builder
                        .status(402)
                        .header("payment-required", STANDARD.encode(offer))
                        .body(Full::default()),
                    Some(payment) => {
                        let json: serde_json::Value =
                            serde_json::from_slice(&STANDARD.decode(payment).unwrap()).unwrap();
                        assert_eq!(json["accepted"]["amount"], "1000");
                        let receipt = format!(r#"{{"success":true,"transaction":"0x{}"}}"#, "ab".repeat(32));
                        builder.header("payment-response", STANDARD.encode(receipt)).body(Full::default())
                    }
                }
                .unwrap()
            }
        })
        .await;
        let run = Run { salt: 1, now_secs: 1_800_000_000 };
        let buy = |most| {
            let buyer = Arc::new(Buyer { payers: Payers::new("seed", 0, 3), run, most });
            let closed = Pace::Closed(Duration::from_secs(20));
            Plan { script: Script::Buy(buyer, 5), ..plan(&url, 0, 2, closed) }
        };
        let report = drive(buy(1000)).await.unwrap();
        assert_eq!((report.good, seen.load(Ordering::Relaxed)), (5, 10), "{report:?}");
        let report = drive(buy(999)).await.unwrap();
        assert_eq!((report.good, report.wrong["price_rose"], seen.load(Ordering::Relaxed)), (0, 5, 15));
        // Nothing here depends on how a body is made, but the two must not be confused.
        assert_eq!(Payers::new("seed", 0, 3).requests(&terms, Generation::V2, run, 1).len(), 1);
    }
}
