//! `farthing approval serve`: the page on which people answer with their passkeys.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Args;
use farthing_approval::{ApprovalId, Assertion, Ballot, Proof, Verdict};
use farthing_wallet::journal::approvals::ApprovalError;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::desk::Desk;
use super::webhook::{Webhook, WebhookArgs};
use crate::cli::local_page::{self, HTML, Refused, SCRIPT, bytes, file};
use crate::cli::wallet::home;
use crate::cli::{Failure, print_ready, until_stopped};

/// How long the page waits for news before it asks again.
const WAITS: Duration = Duration::from_secs(25);
/// How many tabs may wait at once.
pub(super) const MAX_WAITING: usize = 32;

/// Serve a page on this machine that shows what waits, and takes answers by passkey
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing approver add carol --passkey       once: her passkey is for the page at http://localhost:8405
  farthing approval serve                     open the link that it prints; it works once
  farthing approval serve --webhook https://hooks.acme.example/farthing --webhook-secret env:HOOK

The page is for people on this machine: it listens on loopback, answers to its own name only, and takes nothing from other
pages. With --webhook it also tells a URL of yours of each new request, signed as Standard Webhooks has it; the message
asks nothing of whoever gets it, and silence is no.

Exit codes: 0 stopped as asked; 1 failed; 2 called wrongly.")]
pub struct ServeArgs {
    /// A loopback address and port. Passkeys are for one port: made for another, they do not answer here
    #[arg(long, value_name = "ADDRESS", default_value = local_page::LISTENS_AT)]
    listen: SocketAddr,
    #[command(flatten)]
    webhook: WebhookArgs,
}

pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    let webhook = Webhook::new(args.webhook)?;
    let journal = Arc::new(home()?.journal()?);
    let opened = local_page::open(args.listen).await?;
    let desk = Arc::new(Desk::new(journal, opened.page.site().clone())?);
    let looking = tokio::spawn({
        let desk = desk.clone();
        async move { desk.keep_looking().await }
    });
    let telling = webhook.map(|webhook| {
        let (board, page) = (desk.board(), opened.page.site().origin().to_owned());
        tokio::spawn(async move { webhook.keep_telling(board, page).await })
    });
    print_ready("approval", opened.page.site().origin(), &[("open", &opened.page.link())]);
    let stop = {
        let desk = desk.clone();
        async move {
            until_stopped().await;
            desk.close();
        }
    };
    opened.serve(files(), routes(desk), stop).await;
    looking.abort();
    if let Some(telling) = telling {
        telling.abort();
    }
    Ok(())
}

fn files() -> Router {
    Router::new()
        .route("/", get(file(HTML, include_str!("page.html"))))
        .route("/page.js", get(file(SCRIPT, include_str!("page.js"))))
}

pub(super) fn routes(desk: Arc<Desk>) -> Router {
    let places = Arc::new(Semaphore::new(MAX_WAITING));
    Router::new()
        .route("/waiting", get(waiting))
        .route("/answer", post(answer))
        .with_state(Page { desk, places })
}

#[derive(Clone)]
struct Page {
    desk: Arc<Desk>,
    places: Arc<Semaphore>,
}

#[derive(Deserialize)]
struct Seen {
    #[serde(default)]
    seen: String,
}

/// What waits, as soon as it is something else than what was seen.
async fn waiting(State(page): State<Page>, Query(Seen { seen }): Query<Seen>) -> Response {
    let Ok(_place) = page.places.try_acquire() else {
        let message = "too many tabs show this page";
        return Refused::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_tabs", message).into_response();
    };
    let _ = tokio::time::timeout(WAITS, page.desk.news(&seen)).await;
    let board = page.desk.board().borrow().clone();
    Json(json!({ "tag": board.tag, "board": board.shown })).into_response()
}

/// What a browser got from a passkey; byte strings in base64url without padding.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answered {
    approval: String,
    approver: String,
    verdict: String,
    #[serde(deserialize_with = "bytes")]
    authenticator_data: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    client_data: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    signature: Vec<u8>,
}

async fn answer(State(page): State<Page>, Json(said): Json<Answered>) -> Result<Json<Value>, Refused> {
    let malformed = |what: &str| Refused::new(StatusCode::BAD_REQUEST, "malformed", what);
    let id: ApprovalId = said.approval.parse().map_err(|_| malformed("no approval is named so"))?;
    let verdict = Verdict::parse(&said.verdict).ok_or_else(|| malformed("approve or deny"))?;
    let assertion = Assertion {
        authenticator_data: said.authenticator_data,
        client_data: said.client_data,
        signature: said.signature,
    };
    let ballot = Ballot { verdict, proof: Proof::Passkey(assertion) };
    page.desk.vote(id, said.approver, ballot).await.map(Json).map_err(refused)
}

fn refused(error: ApprovalError) -> Refused {
    let status = match &error {
        ApprovalError::NotFound(_) => StatusCode::NOT_FOUND,
        ApprovalError::Journal(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::FORBIDDEN,
    };
    Refused::new(status, error.code(), error.to_string())
}
