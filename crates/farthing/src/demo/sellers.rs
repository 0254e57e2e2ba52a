//! The sellers' own services, as they were before they met us: none of them knows anything of payments.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::child;

/// After how many watt-hours the charger says so: one event.
const STEP_WH: u64 = 20;
/// How long that takes. A real charger would take minutes.
const STEP: Duration = Duration::from_millis(15);
/// The most that can be asked for at once.
const MAX_WH: u64 = 100_000;
/// What the compute service asks for, in atoms of USDC: for any program, and for so many numbers one more.
const COMPUTE_ATOMS: u64 = 2_000;
const NUMBERS_PER_ATOM: u64 = 20;
/// Up to which number the compute service counts primes.
const MAX_COMPUTE: usize = 5_000_000;
/// Weather that a route is sold for.
const DAYS: [&str; 3] = ["today", "tomorrow", "archive"];

/// How the coding agent buys: with its own wallet, by the same command as everybody.
#[derive(Debug)]
pub struct CodingAgent {
    pub program: PathBuf,
    pub compute: String,
    pub env: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct World {
    agent: OnceLock<CodingAgent>,
    bought: OnceLock<UnboundedSender<Value>>,
    /// How often anything was served, so that nothing can be served unseen.
    served: Mutex<HashMap<&'static str, u64>>,
}

/// The sellers' services on one loopback port, each under its own path.
#[derive(Debug)]
pub struct Sellers {
    pub url: String,
    world: Arc<World>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Sellers {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sellers {
    pub async fn start() -> std::io::Result<Self> {
        let world = Arc::new(World::default());
        let routes = Router::new()
            .route("/{seller}/{day}", get(weather))
            .route("/volt/charge", get(charge))
            .route("/coder/jobs", post(job))
            .route("/compute/quote", any(quote))
            .route("/compute/run", post(compute))
            .with_state(world.clone());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            // It ends with the demonstration.
            let _ = axum::serve(listener, routes).await;
        });
        Ok(Self { url, world, task })
    }

    /// Lets the coding agent work. What it buys is told to `bought`.
    pub fn hire(&self, agent: CodingAgent, bought: UnboundedSender<Value>) {
        // There is one agent for the life of the sellers.
        let _ = self.world.agent.set(agent);
        let _ = self.world.bought.set(bought);
    }

    /// How often `seller` has served.
    pub fn served(&self, seller: &str) -> u64 {
        lock(&self.world.served).get(seller).copied().unwrap_or_default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count(world: &World, seller: &'static str) {
    let mut served = lock(&world.served);
    let times = served.entry(seller).or_default();
    *times = times.saturating_add(1);
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

/// The same forecast everywhere: what differs is the price, and who asks for it in what.
async fn weather(
    State(world): State<Arc<World>>,
    Path((seller, day)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let name = match seller.as_str() {
        "nimbus" => "nimbus",
        "stratus" => "stratus",
        "cirrus" => "cirrus",
        _ => return refuse(StatusCode::NOT_FOUND, "there is no such seller"),
    };
    let Some(at) = DAYS.iter().position(|known| *known == day) else {
        return refuse(StatusCode::NOT_FOUND, "there is no forecast for that");
    };
    count(&world, name);
    let city: String = query.get("city").map_or("Lisbon", String::as_str).chars().take(64).collect();
    let seed = city.bytes().fold(at as u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let skies = ["clear", "cloudy", "light rain", "rain", "windy"];
    let sky = skies.get(usize::try_from(seed % 5).unwrap_or(0)).copied().unwrap_or("clear");
    Json(json!({ "seller": name, "city": city, "day": day, "celsius": 8 + seed % 19, "sky": sky }))
        .into_response()
}

/// Electricity, while it flows: the charger says each time how much it gave. It stops when nobody listens any more.
async fn charge(State(world): State<Arc<World>>, Query(query): Query<HashMap<String, String>>) -> Response {
    let wanted = query.get("wh").and_then(|text| text.parse::<u64>().ok());
    let Some(wanted) = wanted.filter(|wh| (1..=MAX_WH).contains(wh)) else {
        return refuse(StatusCode::BAD_REQUEST, "say how many watt-hours: ?wh=800");
    };
    count(&world, "volt");
    let flow = futures_util::stream::unfold(0, move |given| async move {
        if given >= wanted {
            return None;
        }
        tokio::time::sleep(STEP).await;
        let wh = STEP_WH.min(wanted.saturating_sub(given));
        let given = given.saturating_add(wh);
        let event = Event::default().data(json!({ "wh": wh, "given_wh": given }).to_string());
        Some((Ok::<_, Infallible>(event), given))
    });
    Sse::new(flow).into_response()
}

/// The gateway's question what a program would cost: it depends on how much it is to count.
async fn quote(Json(request): Json<Value>) -> Response {
    let query = request["query"].as_str().unwrap_or_default();
    match query.strip_prefix("below=").and_then(|text| text.parse().ok()) {
        Some(below) => Json(json!({ "atoms": compute_atoms(below).to_string(), "valid_for_seconds": 60 }))
            .into_response(),
        None => refuse(StatusCode::BAD_REQUEST, "say below which number: ?below=1000"),
    }
}

fn compute_atoms(below: u64) -> u64 {
    COMPUTE_ATOMS.saturating_add(below / NUMBERS_PER_ATOM)
}

/// A job for the coding agent. It is paid upfront, and pays its own supplier from that.
async fn job(State(world): State<Arc<World>>, Json(job): Json<Value>) -> Response {
    let Some(agent) = world.agent.get() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "the agent is not there yet");
    };
    let Some(below) = job["below"].as_u64() else {
        return refuse(StatusCode::BAD_REQUEST, "a job needs a whole number below which to count");
    };
    let source =
        "def primes(n): return sum(all(i % d for d in range(2, int(i**.5) + 1)) for i in range(2, n))";
    let order = json!({ "program": "primes" }).to_string();
    let url = format!("{}?below={below}", agent.compute);
    let mut command =
        child::command(&agent.program, ["fetch", &url, "-X", "POST", "--json", &order, "--max", "0.02"]);
    command.envs(agent.env.iter().cloned());
    let report = match child::output(command).await {
        Ok(said) => said.json().unwrap_or_else(|| json!({ "error": said.stderr.trim(), "exit": said.code })),
        Err(failure) => json!({ "error": failure.message }),
    };
    if let Some(bought) = world.bought.get() {
        let _ = bought.send(report.clone());
    }
    let result = super::stage::body_of(&report);
    let Some(primes) = result["result"].as_u64() else {
        return refuse(StatusCode::BAD_GATEWAY, "the compute service did not answer the agent");
    };
    count(&world, "coder");
    Json(json!({ "source": source, "tested_below": below, "result": primes })).into_response()
}

/// Counts primes, for whoever paid. What is paid for is what the address says.
async fn compute(
    State(world): State<Arc<World>>,
    Query(query): Query<HashMap<String, String>>,
    Json(order): Json<Value>,
) -> Response {
    let below = query.get("below").and_then(|text| text.parse::<usize>().ok());
    let Some(below) = below.filter(|n| *n <= MAX_COMPUTE && order["program"] == "primes") else {
        return refuse(StatusCode::BAD_REQUEST, "only the program \"primes\" runs here, below 5000000");
    };
    let counted = tokio::task::spawn_blocking(move || count_primes(below)).await;
    let Ok(result) = counted else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the program failed");
    };
    count(&world, "compute");
    Json(json!({ "program": "primes", "below": below, "result": result })).into_response()
}

fn count_primes(below: usize) -> usize {
    let mut prime = vec![true; below];
    prime.iter_mut().take(2).for_each(|p| *p = false);
    let mut i = 2usize;
    while i.checked_mul(i).is_some_and(|square| square < below) {
        if prime.get(i) == Some(&true) {
            prime.iter_mut().skip(i.saturating_mul(i)).step_by(i).for_each(|p| *p = false);
        }
        i = i.saturating_add(1);
    }
    prime.into_iter().filter(|p| *p).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_counted() {
        for (below, count) in [(0, 0), (2, 0), (3, 1), (10, 4), (100, 25), (200_000, 17_984)] {
            assert_eq!(count_primes(below), count, "below {below}");
        }
    }

    #[test]
    fn what_counts_further_costs_more() {
        assert_eq!(compute_atoms(0), 2_000);
        assert_eq!(compute_atoms(200_000), 12_000);
    }
}
