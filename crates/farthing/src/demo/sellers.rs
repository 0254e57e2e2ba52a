//! The sellers' own services, as they were before they met us: none of them knows anything of payments.
//!
//! They trust the `X-Farthing-*` headers, which the gateway before them sets and strips from what comes in.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedSender;

use super::child;

/// Watt-hours in one slice.
const SLICE_WH: u64 = 100;
/// What a car that comes here still needs, in watt-hours.
const BATTERY_WH: u64 = 800;
/// Atoms of USDC for a slice while nobody else charges.
const SLICE_ATOMS: u64 = 18_000;
/// By how much of that each slice which was sold raises the next one: the grid's load, in percent.
const LOAD_PERCENT: u64 = 5;
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
    /// Slices that each payer was served.
    slices: Mutex<HashMap<String, u64>>,
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
            .route("/volt/quote", any(quote))
            .route("/volt/slices", post(slice))
            .route("/coder/jobs", post(job))
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

/// Who paid, as the gateway says.
fn payer(headers: &HeaderMap) -> String {
    headers.get("x-farthing-payer").and_then(|value| value.to_str().ok()).unwrap_or("nobody").to_lowercase()
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

/// The gateway's question what the next slice costs: the more was drawn, the dearer.
async fn quote(State(world): State<Arc<World>>) -> Json<Value> {
    let sold = lock(&world.slices).values().fold(0u64, |sum, slices| sum.saturating_add(*slices));
    Json(json!({ "atoms": slice_atoms(sold).to_string(), "valid_for_seconds": 60 }))
}

fn slice_atoms(sold: u64) -> u64 {
    let percent = 100u64.saturating_add(LOAD_PERCENT.saturating_mul(sold));
    SLICE_ATOMS.saturating_mul(percent) / 100
}

/// 0.1 kWh into the payer's battery.
async fn slice(State(world): State<Arc<World>>, headers: HeaderMap) -> Response {
    let payer = payer(&headers);
    let slices = {
        let mut all = lock(&world.slices);
        let slices = all.entry(payer).or_default();
        if slices.saturating_mul(SLICE_WH) >= BATTERY_WH {
            // Only 200–299 is charged: a full car does not pay.
            return refuse(StatusCode::CONFLICT, "the battery is full");
        }
        *slices = slices.saturating_add(1);
        *slices
    };
    count(&world, "volt");
    let charged = slices.saturating_mul(SLICE_WH);
    Json(json!({ "charged_wh": charged, "battery_wh": BATTERY_WH, "battery_full": charged >= BATTERY_WH }))
        .into_response()
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
    let order = json!({ "program": "primes", "below": below }).to_string();
    let mut command = child::command(
        &agent.program,
        ["fetch", &agent.compute, "-X", "POST", "--json", &order, "--max", "0.02"],
    );
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

/// Counts primes, for whoever paid.
async fn compute(State(world): State<Arc<World>>, Json(order): Json<Value>) -> Response {
    let below = order["below"].as_u64().and_then(|n| usize::try_from(n).ok());
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
    fn each_slice_costs_more() {
        assert_eq!(slice_atoms(0), 18_000);
        assert_eq!(slice_atoms(1), 18_900);
        assert_eq!((0..8).map(slice_atoms).sum::<u64>(), 169_200);
    }
}
