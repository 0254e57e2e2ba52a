//! A machine that buys by the production wallet: what it wants, and what it may not do.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use farthing_evm::B256;
use farthing_wallet::client::{Answer, Exchange, HttpRequest, Options, Outcome, Reach, SendError};
use farthing_wallet::journal::{Header, Journal};
use farthing_wire::mpp::evm::ChargePayload;
use farthing_wire::mpp::{self, Credential};
use farthing_wire::x402::exact_evm::{Authorization, Payload};
use farthing_wire::x402::{Message as _, v2};
use http::Method;

use crate::exec::lock;
use crate::facts::Signed;
use crate::gateway::{Shelf, short};
use crate::home::{self, Home};

/// What an owner allows in a day and in an hour, in atoms: about half of what it wants.
pub const BUDGET: u128 = 4000;
/// Where owners' numbers begin, beside the other buyers'.
pub const FIRST: usize = 100;
/// How often a wallet's keeper asks the chain about what is open.
const ROUND: Duration = Duration::from_secs(15);

#[derive(Debug)]
pub struct Owner {
    pub home: Home,
    /// What is wanted and not had.
    pub wants: Mutex<Vec<(u64, Shelf)>>,
}

impl Deref for Owner {
    type Target = Home;

    fn deref(&self) -> &Home {
        &self.home
    }
}

/// A journal with the owner's rules in it.
pub fn journal() -> Journal {
    home::journal(BUDGET, BUDGET, |_| {})
}

impl Owner {
    pub fn boot(self: &Arc<Self>) {
        let Some(rig) = self.start(Arc::new(ToGateway { owner: self.clone() })) else { return };
        let owner = self.clone();
        self.run(async move {
            owner.came_all(&owner.recover_in_the_end(&rig, &Options::default()).await);
            loop {
                rig.world.sleep(ROUND).await;
                // What cannot be asked now is asked in the next round.
                let _ = rig.client.reconcile_all().await;
            }
        });
        let open = lock(&self.wants).clone();
        open.into_iter().for_each(|(n, shelf)| self.pursue(n, shelf));
    }

    pub fn want(self: &Arc<Self>, shelf: Shelf) {
        let n = self.wanted.fetch_add(1, Ordering::Relaxed);
        lock(&self.wants).push((n, shelf));
        self.note(|| format!("wants {} #{n}", shelf.path));
        self.pursue(n, shelf);
    }

    fn request(&self, n: u64, shelf: Shelf) -> Option<HttpRequest> {
        let url = format!("https://api.example{}?n={}-{n}", shelf.path, self.number).parse().ok()?;
        let method = if shelf.method == "POST" { Method::POST } else { Method::GET };
        Some(HttpRequest { method, ..HttpRequest::get(url) })
    }

    /// Asks until there is an outcome: as a person would who gives the same command again.
    fn pursue(self: &Arc<Self>, n: u64, shelf: Shelf) {
        let Some(rig) = self.rig() else { return };
        let Some(request) = self.request(n, shelf) else { return };
        let owner = self.clone();
        self.run(async move {
            for attempt in 0..4 {
                // Whoever took up what was left behind has the goods by now; to ask again would be to want more.
                if attempt > 0 && owner.has_goods_of(&request) {
                    break;
                }
                let outcome = rig.client.fetch_once(request.clone(), &Options::default()).await;
                let outcome = outcome.map_err(|error| error.to_string());
                owner.came(&outcome);
                match outcome {
                    Ok(Outcome::Unknown { .. }) | Err(_) => owner.exec.sleep(Duration::from_secs(10)).await,
                    Ok(Outcome::Free(answer)) if !answer.status.is_success() => {
                        owner.exec.sleep(Duration::from_secs(10)).await;
                    }
                    Ok(_) => break,
                }
            }
            lock(&owner.wants).retain(|(wanted, _)| *wanted != n);
        });
    }

    fn has_goods_of(&self, request: &HttpRequest) -> bool {
        let bought = self.journal.history(1000).unwrap_or_default();
        bought.iter().any(|purchase| purchase.delivered && purchase.url == request.url.as_str())
    }

    /// The last word, when all is well: what is open is looked at, and asked for, once more.
    pub fn look_again(self: &Arc<Self>) {
        let Some(rig) = self.rig() else { return };
        let owner = self.clone();
        self.run(async move {
            if let Ok(shown) = owner.recover(&rig, &Options::default()).await {
                owner.came_all(&shown);
            }
        });
    }

    fn came_all(&self, shown: &[Result<Outcome, String>]) {
        shown.iter().for_each(|outcome| self.came(outcome));
    }

    /// Takes down what a call brought.
    fn came(&self, outcome: &Result<Outcome, String>) {
        let say = |what: String| self.note(|| what);
        match outcome {
            Ok(Outcome::Paid { answer, payment }) => {
                let body = answer.body.complete().cloned().unwrap_or_default();
                let body = String::from_utf8_lossy(&body).into_owned();
                say(format!("{} is paid, {}: {body}", payment.id, payment.settlement.name()));
                if let Some(id) = body.strip_prefix("goods for ").and_then(|id| id.parse().ok()) {
                    *lock(&self.ledger.facts).received.entry(id).or_default() += 1;
                }
            }
            Ok(Outcome::Free(answer)) => {
                if answer.status.is_success() {
                    self.ledger.broken(format!("wallet {} was served for nothing", self.number));
                }
                say(format!("told {}", answer.status));
            }
            Ok(Outcome::Refused { payment, reason, .. }) => {
                say(format!("{} is refused: {reason}", payment.id))
            }
            Ok(Outcome::Unknown { payment, why, .. }) => say(format!("{} is unknown: {why}", payment.id)),
            Ok(Outcome::Denied { denied, .. }) => {
                say(format!("denied: {}", denied.as_ref().map_or("no offer", |denied| denied.code())));
            }
            Ok(Outcome::Planned(_)) => {}
            Err(error) => say(format!("failed: {error}")),
        }
    }

    fn was_refused(&self, nonce: &B256) -> bool {
        let nonce = nonce.to_string();
        let all = self.journal.history(1000).unwrap_or_default();
        let of_it = all.iter().find(|purchase| purchase.consumption.as_str().contains(&nonce));
        of_it.is_some_and(|purchase| purchase.state == farthing_wallet::journal::State::Refused)
    }

    /// Checker: what leaves the wallet was signed for the gateway, in the budget, and once for each request.
    fn shows(&self, request: &HttpRequest, payment: &Header) {
        let Some(authorization) = shown(payment) else {
            return self.ledger.broken(format!("wallet {} shows no payment", self.number));
        };
        let nonce = B256::new(authorization.nonce);
        let address = |text: String| text.parse().unwrap_or_default();
        let value = authorization.value.to_string().parse().unwrap_or(u128::MAX);
        let shelf = crate::gateway::SHELVES.into_iter().find(|shelf| shelf.path == request.url.path());
        let signed = Signed {
            buyer: self.number,
            intent: 0,
            path: shelf.map_or("", |shelf| shelf.path),
            url: request.url.to_string(),
            from: address(authorization.from.to_string()),
            to: address(authorization.to.to_string()),
            value,
            expires_secs: authorization.valid_before.to_string().parse().unwrap_or(u64::MAX),
            at: self.exec.micros(),
        };
        let mut facts = lock(&self.ledger.facts);
        if facts.signed.contains_key(&nonce) {
            return;
        }
        self.note(|| format!("shows {} for {}", short(&nonce.to_string()), request.url));
        facts.signed.insert(nonce, signed);
        // Against what the chain says, not against what the journal does.
        let chain = lock(&self.tip.chain);
        let (used, time) = (&chain.tip().state.used, chain.tip().time);
        let mine = facts.signed.iter().filter(|(_, signed)| signed.buyer == self.number);
        let live = mine.filter(|(nonce, signed): &(&B256, &Signed)| {
            signed.expires_secs > time || used.contains_key(&(signed.from, **nonce))
        });
        let (mut exposed, mut for_this) = (0, 0);
        for (nonce, signed) in live {
            exposed += signed.value;
            // A seller's clear no leaves the buyer free to try again; what was reserved stays so.
            let refused = self.was_refused(nonce);
            for_this += u64::from(signed.url == request.url.as_str() && !refused);
        }
        if exposed > BUDGET {
            self.ledger.broken(format!("wallet {} may spend {exposed} atoms of {BUDGET}", self.number));
        }
        if for_this > 1 {
            self.ledger.broken(format!("wallet {} pays twice for {}", self.number, request.url));
        }
    }
}

/// The transfer that a payment authorizes, in whatever dialect the wallet chose.
fn shown(payment: &Header) -> Option<Authorization> {
    if let Ok(credential) = Credential::parse(payment.value.as_bytes()) {
        return match credential.payload() {
            Ok(mpp::Payload::EvmCharge(ChargePayload::Authorization { authorization, .. })) => {
                Some(authorization)
            }
            _ => None,
        };
    }
    let payment = v2::PaymentPayload::from_header(payment.value.as_bytes()).ok()?;
    match Payload::parse(&payment.payload) {
        Ok(Payload::Eip3009 { authorization, .. }) => Some(authorization),
        _ => None,
    }
}

/// The wallet's way to the gateway.
struct ToGateway {
    owner: Arc<Owner>,
}

#[async_trait]
impl Exchange for ToGateway {
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        _: Reach,
        within: Duration,
    ) -> Result<Answer, SendError> {
        if let Some(payment) = payment {
            self.owner.shows(request, payment);
        }
        self.owner.home.send(request, payment, within).await
    }
}
