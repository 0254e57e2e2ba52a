//! The page on which somebody makes the passkey that their word will count by. It is there until that is done.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_approval::{Credential, Passkey, PasskeyKey, Registration, Site};
use farthing_policy::AgentName;
use farthing_wallet::journal::Journal;
use farthing_wallet::journal::approvals::ApprovalError;
use farthing_wallet::system_clock;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::cli::local_page::{self, HTML, LocalPage, Refused, SCRIPT, bytes, file, unguessable};
use crate::cli::{Failure, print_ready, until_stopped};

/// Waits until somebody made a passkey, and writes it down as an approver's.
pub async fn run(
    journal: Journal,
    name: &str,
    runs: Option<AgentName>,
    listen: SocketAddr,
    answers_at: Site,
) -> Result<Passkey, Failure> {
    journal.has_room_for(name)?;
    let opened = local_page::open(listen).await?;
    if answers_at.rp_id() != opened.page.site().rp_id() {
        return Err(Failure::usage(format!(
            "a passkey that is made here is for localhost, and not for {}",
            answers_at.rp_id()
        )));
    }
    let (done, mut made) = watch::channel(None);
    let office = Arc::new(Office {
        journal,
        name: name.to_owned(),
        runs,
        page: opened.page.clone(),
        answers_at,
        challenge: Mutex::new(None),
        done,
    });
    print_ready("approver", opened.page.site().origin(), &[("open", &opened.page.link())]);
    let stop = {
        let mut made = made.clone();
        async move {
            tokio::select! {
                _ = made.wait_for(Option::is_some) => {}
                () = until_stopped() => {}
            }
        }
    };
    let files = Router::new()
        .route("/", get(file(HTML, include_str!("register.html"))))
        .route("/register.js", get(file(SCRIPT, include_str!("register.js"))));
    opened.serve(files, routes(office), stop).await;
    let passkey = made.borrow_and_update().clone();
    passkey.ok_or_else(|| Failure::failed("no passkey was made"))
}

fn routes(office: Arc<Office>) -> Router {
    Router::new().route("/begin", post(begin)).route("/finish", post(finish)).with_state(office)
}

struct Office {
    journal: Journal,
    name: String,
    runs: Option<AgentName>,
    page: Arc<LocalPage>,
    answers_at: Site,
    /// What a passkey is made for; each is good for one try.
    challenge: Mutex<Option<[u8; 32]>>,
    done: watch::Sender<Option<Passkey>>,
}

fn failed(failure: Failure) -> Refused {
    Refused::new(StatusCode::SERVICE_UNAVAILABLE, "failed", failure.message)
}

/// Spec: WebAuthn Level 3 section 5.4.
async fn begin(State(office): State<Arc<Office>>) -> Result<Json<Value>, Refused> {
    let challenge = unguessable().map_err(failed)?;
    // Spec: section 14.6.1: a user's handle says nothing of them.
    let handle = unguessable().map_err(failed)?;
    let known = office.journal.approvers().map_err(|error| refused(error.into()))?;
    let known: Vec<String> = known
        .iter()
        .filter_map(|one| match &one.credential {
            Credential::Passkey(passkey) => Some(URL_SAFE_NO_PAD.encode(passkey.id.as_bytes())),
            Credential::Key(_) => None,
        })
        .collect();
    *office.challenge.lock().unwrap_or_else(PoisonError::into_inner) = Some(challenge);
    Ok(Json(json!({
        "name": office.name,
        "runs": office.runs.as_ref().map(ToString::to_string),
        "page": office.answers_at.origin(),
        "rp_id": office.page.site().rp_id(),
        "challenge": URL_SAFE_NO_PAD.encode(challenge),
        "handle": URL_SAFE_NO_PAD.encode(handle),
        "algorithms": [PasskeyKey::ES256, PasskeyKey::EDDSA],
        "known": known,
    })))
}

/// What a browser got from a device; byte strings in base64url without padding.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    #[serde(deserialize_with = "bytes")]
    attestation_object: Vec<u8>,
    #[serde(deserialize_with = "bytes")]
    client_data: Vec<u8>,
}

async fn finish(State(office): State<Arc<Office>>, Json(made): Json<Made>) -> Result<Json<Value>, Refused> {
    let challenge = office.challenge.lock().unwrap_or_else(PoisonError::into_inner).take();
    let challenge = challenge
        .ok_or_else(|| Refused::new(StatusCode::CONFLICT, "not_begun", "this try is over: begin another"))?;
    let made = Registration { attestation_object: made.attestation_object, client_data: made.client_data };
    let passkey = made
        .check(&challenge, office.page.site(), &office.answers_at)
        .map_err(|error| Refused::new(StatusCode::FORBIDDEN, error.code(), error.to_string()))?;
    let added = tokio::task::spawn_blocking({
        let (office, passkey) = (office.clone(), passkey.clone());
        move || office.journal.add_passkey(&office.name, &passkey, office.runs.as_ref(), &system_clock())
    });
    added.await.map_err(|error| failed(Failure::failed(error.to_string())))?.map_err(refused)?;
    let key = passkey.key.to_string();
    office.done.send_replace(Some(passkey));
    Ok(Json(json!({ "key": key })))
}

fn refused(error: ApprovalError) -> Refused {
    Refused::new(StatusCode::CONFLICT, error.code(), error.to_string())
}
