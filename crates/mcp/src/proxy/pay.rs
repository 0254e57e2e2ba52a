//! Paying for a call through the wallet, within its owner's rules and within the policy's spend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use farthing_primitives::{PurchaseId, Registry, RequestHash};
use farthing_toolguard::{Decision, Policy, Reservation};
use farthing_wallet::client::{
    AskedAnswer, Client, FetchError, HttpRequest, Options, Outcome, Patience, Payment, SendError, Sessions,
    request_hash,
};
use farthing_wallet::journal::State as PurchaseState;
use farthing_wallet::{Authorizer, ChainView, Denied, system_clock};
use http::{HeaderMap, HeaderValue, Method, header};
use rmcp::model::{CallToolResponse, ErrorData};
use serde_json::{Value, json};
use url::Url;

use super::bill::ToolExchange;
use super::forward::{Forward, Said};
use super::guard::Guard;
use super::reply::{APPROVAL, Denial, passed_on, with_payment};
use crate::facts;
use crate::sell::exchange::canonical;

/// How long a tool may take for one answer, and everything about one call that is paid.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(600);
const PAID_CALL_TIMEOUT: Duration = Duration::from_secs(900);
/// How many payments that brought nothing are remembered, so that the same call shows the same payment again.
const MAX_OPEN: usize = 1024;

/// Where people are asked.
const WAITS: &str =
    "nothing was paid; people are asked: once they agree, make the same call again with the same arguments";

/// What a call came to.
#[derive(Debug)]
pub enum Answered {
    Passed(Result<CallToolResponse, ErrorData>),
    Denied(Box<Denial>),
    /// The server cannot be reached, and nothing left for it.
    NotSent(Box<Denial>),
}

/// Whoever pays for calls.
pub struct Payer {
    authorizer: Arc<dyn Authorizer>,
    views: Vec<Arc<dyn ChainView>>,
    /// Whom the wallet's rules know the server by.
    server: Url,
    /// People are asked where a rule wants them to approve.
    asks: bool,
    /// Payments that were shown and brought nothing, by what they were for.
    open: Mutex<HashMap<RequestHash, PurchaseId>>,
}

impl std::fmt::Debug for Payer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Payer for {}", self.author())
    }
}

impl Payer {
    /// `server` is the address that is asked, or the name that the wallet's owner gave to a program.
    pub fn new(authorizer: Arc<dyn Authorizer>, views: Vec<Arc<dyn ChainView>>, server: Url) -> Self {
        Self { authorizer, views, server, asks: false, open: Mutex::default() }
    }

    /// Where a rule of the wallet's wants people to approve, they are asked.
    #[must_use]
    pub fn asking_people(mut self) -> Self {
        self.asks = true;
        self
    }

    fn author(&self) -> String {
        let port = self.server.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.server.host_str().unwrap_or_default())
    }

    /// Makes a call, and pays for it if the server asks and wallet and policy permit.
    pub async fn call(&self, guard: &Arc<Guard>, policy: &Arc<Policy>, forward: Forward) -> Answered {
        let tool = forward.params.name.to_string();
        let named = json!({ "name": &tool, "arguments": forward.params.arguments });
        let body = match named.as_object().map(canonical) {
            Some(Ok(body)) => body,
            Some(Err(error)) => return Answered::Passed(Err(error)),
            None => Bytes::new(),
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let url = self.server.clone();
        let request = HttpRequest { method: Method::POST, url, headers, body, socket: None };
        let exchange = Arc::new(ToolExchange::new(forward));
        let patience = Patience { answer: CALL_TIMEOUT, total: PAID_CALL_TIMEOUT, ..Patience::default() };
        let builder = Client::builder()
            .authorizer(self.authorizer.clone())
            .exchange(exchange.clone())
            .patience(patience);
        let builder = self.views.iter().fold(builder, |builder, view| builder.chain(view.clone()));
        let Ok(client) = builder.build() else {
            return denied("no_wallet", "the wallet cannot be used");
        };
        let sessions = Sessions::Never;
        let options =
            Options { tool: Some(tool.clone()), sessions, ask_people: self.asks, ..Options::default() };
        // Asked without a payment first: what is free costs nothing, and what is not says its price.
        let asked = client.compare(vec![request.clone()], &options).await;
        let asked = match asked.map(|(mut asked, _)| asked.pop()) {
            Ok(Some(asked)) => asked,
            Ok(None) => return denied("failed", "the server was not asked"),
            Err(error) => return self.failed(&error, &exchange),
        };
        let best = match &asked.answer {
            AskedAnswer::Free(_) => return passed(&exchange),
            AskedAnswer::Failed(error) => return self.failed(error, &exchange),
            AskedAnswer::Priced(plan) => {
                plan.best.is_some().then(|| asked.best().and_then(|best| best.dollars()))
            }
        };
        let hash = request_hash(&request);
        let (outcome, reservation) = match self.earlier(&client, &hash, &request, &options).await {
            Ok(Some(outcome)) => (Ok(outcome), None),
            Err(error) => return self.failed(&error, &exchange),
            Ok(None) => {
                let reservation = match best {
                    // Nothing of it is permitted, so nothing will be spent.
                    None => None,
                    Some(dollars) => {
                        match spend(guard, policy, &tool, dollars.map(|dollars| dollars.0)).await {
                            Decision::Allowed(reservation) => Some(reservation),
                            Decision::Denied(reasons) => {
                                return Answered::Denied(Box::new(Denial::of(reasons)));
                            }
                            Decision::NeedsApproval { .. } => {
                                return denied("approval_required", "nobody agreed");
                            }
                        }
                    }
                };
                (client.take(asked, &options).await, reservation)
            }
        };
        self.concluded(outcome, reservation, (guard, &hash, &exchange)).await
    }

    /// What a payment for exactly this call brings now that was made earlier and brought nothing then.
    async fn earlier(
        &self,
        client: &Client,
        hash: &RequestHash,
        request: &HttpRequest,
        options: &Options,
    ) -> Result<Option<Outcome>, FetchError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(hash).copied();
        let Some(id) = open else {
            return client.resume_any(std::slice::from_ref(request), options).await;
        };
        let mut purchase = self.authorizer.purchase(&id).await?;
        if purchase.expires <= system_clock().wall {
            client.reconcile(&id).await?;
            purchase = self.authorizer.purchase(&id).await?;
        }
        // INVARIANT: what may still be settled is shown again, and never paid beside.
        if purchase.header.is_none() || purchase.state == PurchaseState::Released {
            self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(hash);
            return Ok(None);
        }
        client.resume(&id, Some(request.clone()), options).await.map(Some)
    }

    async fn concluded(
        &self,
        outcome: Result<Outcome, FetchError>,
        reservation: Option<Reservation>,
        (guard, hash, exchange): (&Arc<Guard>, &RequestHash, &Arc<ToolExchange>),
    ) -> Answered {
        let registry = Registry::builtin();
        match outcome {
            Ok(Outcome::Free(_)) => passed(exchange),
            Ok(Outcome::Paid { payment, .. }) => {
                self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(hash);
                match passed(exchange) {
                    Answered::Passed(Ok(response)) => {
                        Answered::Passed(Ok(with_payment(response, &registry, &payment)))
                    }
                    other => other,
                }
            }
            Ok(Outcome::Denied { plan, denied }) => {
                // Our own wallet said no before anything was shown to anybody: that nothing moved is proven.
                if let Some(reservation) = reservation {
                    give_back(guard, reservation).await;
                }
                let why = denied.as_ref().map(facts::denied).or_else(|| facts::objection(&plan));
                let denial = Denial::new("payment_denied", "the wallet's owner does not permit this payment")
                    .with("denied", why.into())
                    .with("offers", facts::offers(&registry, &plan))
                    .with("advice", "nothing was paid; only the wallet's owner can allow more".into());
                Answered::Denied(Box::new(match &plan.ticket {
                    Some(Ok(ticket)) => {
                        denial.with(APPROVAL, facts::ticket(ticket)).with("advice", WAITS.into())
                    }
                    Some(Err(error)) => denial.with(APPROVAL, json!({ "error": error.code() })),
                    None => denial,
                }))
            }
            Ok(Outcome::Refused { payment, reason, .. }) => {
                self.remember(hash, &payment);
                let advice = "the amount stays reserved until the chain proves that it did not move";
                Answered::Denied(Box::new(
                    Denial::new("payment_refused", "the server did not take the payment")
                        .with("payment", facts::payment(&registry, &payment))
                        .with("advice", advice.into())
                        .with_note(&self.author(), "reason", &reason),
                ))
            }
            Ok(Outcome::Unknown { payment, why, .. }) => {
                self.remember(hash, &payment);
                let advice = "call the tool again with the same arguments: the same payment is shown again";
                Answered::Denied(Box::new(
                    Denial::new(
                        "payment_unknown",
                        "a payment was shown, and nothing tells what became of it",
                    )
                    .with("payment", facts::payment(&registry, &payment))
                    .with("advice", advice.into())
                    .with_note(&self.author(), "reason", &why),
                ))
            }
            Ok(Outcome::Planned(_)) => denied("failed", "nothing was to be paid"),
            Err(error) => self.failed(&error, exchange),
        }
    }

    fn remember(&self, hash: &RequestHash, payment: &Payment) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // The journal has them all; after a restart it is asked.
        if open.len() >= MAX_OPEN
            && let Some(any) = open.keys().next().copied()
        {
            open.remove(&any);
        }
        open.insert(*hash, payment.id);
    }

    fn failed(&self, error: &FetchError, exchange: &ToolExchange) -> Answered {
        let (code, text) = match error {
            FetchError::Challenge { .. } => {
                ("challenge_unreadable", "the server asks for a payment in a form that cannot be read")
            }
            FetchError::Denied(Denied::Unavailable) => ("wallet_unavailable", "the wallet cannot be asked"),
            FetchError::Denied(_) => ("payment_denied", "the wallet does not permit this payment"),
            FetchError::Send(SendError::Private(_)) => (
                "host_private",
                "the server is in this machine's network, which the wallet's owner did not allow",
            ),
            FetchError::Send(SendError::Timeout) => ("timeout", "the server did not answer in time"),
            FetchError::Send(_) => ("server_unreachable", "the server cannot be reached, or broke off"),
            _ => ("failed", "the call came to nothing"),
        };
        let mut denial = Denial::new(code, text).with_note(&self.author(), "reason", &error.to_string());
        if let FetchError::Denied(why) = error {
            denial = denial.with("denied", facts::denied(why));
        }
        if exchange.was_sent() {
            Answered::Denied(Box::new(denial))
        } else {
            Answered::NotSent(Box::new(denial))
        }
    }
}

/// The counters wait for their disk: not on a thread that carries connections.
async fn spend(guard: &Arc<Guard>, policy: &Arc<Policy>, tool: &str, dollars: Option<u128>) -> Decision {
    let (guard, policy, tool) = (guard.clone(), policy.clone(), tool.to_owned());
    let work = move || guard.decide_spend(&policy, &tool, dollars, system_clock().wall);
    match tokio::task::spawn_blocking(work).await {
        Ok(decision) => decision,
        Err(_) => Decision::Denied(Vec::new()),
    }
}

/// As for [`spend`].
pub async fn give_back(guard: &Arc<Guard>, reservation: Reservation) {
    let guard = guard.clone();
    let _ = tokio::task::spawn_blocking(move || guard.give_back(&reservation)).await;
}

fn passed(exchange: &ToolExchange) -> Answered {
    match exchange.last() {
        Some(said @ (Said::Result(_) | Said::Error(_))) => Answered::Passed(passed_on(said)),
        None => denied("failed", "the server's answer was lost"),
    }
}

fn denied(code: &'static str, text: &str) -> Answered {
    Answered::Denied(Box::new(Denial::new(code, text)))
}

/// Keys of an agent's `_meta` that pay, or name a payment: what an agent pays by itself no budget of ours knows.
pub fn pays(meta: &serde_json::Map<String, Value>) -> bool {
    meta.keys().any(|key| key.starts_with("x402/") || key.starts_with("org.paymentauth/"))
}
