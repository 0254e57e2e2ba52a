//! The HTTP face and the clock that mines.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;

use crate::chain::Chain;
use crate::rpc::{Node, is_heavy};
use crate::{BlockTime, CLIENT_VERSION, DevnetConfig, DevnetError, MAX_BODY_BYTES};

/// Requests per core that run the EVM at a time; the others wait. More threads would only take turns.
const RUNS_PER_CORE: usize = 4;

/// How long a shutdown waits for open connections.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(1);

/// A running embedded chain. It stops when it is dropped.
#[derive(Debug)]
pub struct Devnet {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
    clock: JoinHandle<()>,
}

impl Devnet {
    /// Builds the first block and begins to listen.
    ///
    /// # Errors
    /// [`DevnetError::NotLoopback`] if other machines could reach the address and the configuration does not allow
    /// it; [`DevnetError::Listen`] if the address is taken; [`DevnetError::Genesis`] if the configured balances
    /// cannot be.
    pub async fn start(config: DevnetConfig) -> Result<Self, DevnetError> {
        if !config.listen.ip().is_loopback() && !config.allow_non_loopback {
            return Err(DevnetError::NotLoopback(config.listen));
        }
        let interval = match config.block_time {
            BlockTime::Instant => None,
            BlockTime::Interval(Duration::ZERO) => return Err(DevnetError::ZeroInterval),
            BlockTime::Interval(interval) => Some(interval),
        };
        let listen = |source| DevnetError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let chain = Chain::new(&config).map_err(|error| DevnetError::Genesis(error.to_string()))?;
        let node = Arc::new(Node::new(chain, interval));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let face = Face {
            node: Arc::clone(&node),
            runs: Arc::new(Semaphore::new(cores * RUNS_PER_CORE)),
            delay: config.rpc_delay,
        };
        let clock = tokio::spawn(mine_by_the_clock(Arc::clone(&node), node.interval.subscribe()));
        let router = Router::new()
            .route("/", post(answer).get(|| async { CLIENT_VERSION }))
            .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
            .with_state(face);
        let (stop, stopped) = oneshot::channel();
        // Answers are small and awaited: a delayed acknowledgement would cost each of them 40 ms.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let server = tokio::spawn(async move {
            let serving = axum::serve(listener, router).with_graceful_shutdown(async {
                let _ = stopped.await;
            });
            if let Err(error) = serving.await {
                tracing::error!(%error, "embedded chain stopped serving");
            }
        });
        tracing::info!(%address, chain_id = config.chain_id, "embedded chain listens (development only)");
        Ok(Self { address, stop: Some(stop), server, clock })
    }

    /// Returns where JSON-RPC is spoken.
    pub fn rpc_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the address it listens on, with the port it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops listening; requests under way are answered within a second. All state is lost.
    pub async fn shutdown(mut self) {
        self.clock.abort();
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = tokio::time::timeout(SHUTDOWN_GRACE, &mut self.server).await;
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        self.clock.abort();
        self.server.abort();
    }
}

#[derive(Debug, Clone)]
struct Face {
    node: Arc<Node>,
    runs: Arc<Semaphore>,
    delay: Duration,
}

async fn answer(State(Face { node, runs, delay }): State<Face>, body: Bytes) -> Response {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let text = if is_heavy(&body) {
        let Ok(permit) = runs.acquire_owned().await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let run = move || {
            // Held by the run itself: a client that hangs up doesn't make room for another one early.
            let _permit = permit;
            node.handle(&body)
        };
        match tokio::task::spawn_blocking(run).await {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "request failed inside the embedded chain");
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
        }
    } else {
        node.handle(&body)
    };
    match text {
        Some(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn mine_by_the_clock(node: Arc<Node>, mut interval: watch::Receiver<Option<Duration>>) {
    loop {
        let current = *interval.borrow_and_update();
        let Some(period) = current else {
            if interval.changed().await.is_err() {
                return;
            }
            continue;
        };
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let node = Arc::clone(&node);
                    if tokio::task::spawn_blocking(move || node.write().mine()).await.is_err() {
                        return;
                    }
                }
                changed = interval.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    break;
                }
            }
        }
    }
}
