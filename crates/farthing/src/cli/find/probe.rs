//! Asking what something really costs. Nothing is paid, nothing is signed, and no credential is sent.

use std::time::Duration;

use farthing_discovery::read::{Operation, Said};
use farthing_policy::{Charge, Dollars, Rules};
use farthing_primitives::{Registry, Timestamp};
use farthing_rails::exact_evm::Tokens;
use farthing_wallet::Offer;
use farthing_wallet::client::{Challenge, Exchange, HttpRequest, Reach};
use http::{Method, StatusCode};
use url::Url;

/// How long one answer may take.
pub const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes: a challenge is shorter.
pub const MAX_PROBE_BYTES: usize = 256 * 1024;

/// What a seller answered to an unpaid request.
#[derive(Debug)]
pub enum Probe {
    /// It asks for a payment, in these ways that the wallet knows how to pay.
    Priced(Vec<Way>),
    /// It answers without one.
    Free,
    /// Nobody was asked.
    NotAsked(&'static str),
    /// There was no answer, or none that can be understood. A stable code.
    Failed(&'static str),
}

/// One way to pay.
#[derive(Debug)]
pub struct Way {
    pub offer: Offer,
    pub dollars: Option<Dollars>,
    /// Whether the wallet's owner allows its network and its scheme.
    pub permitted: bool,
}

impl Way {
    /// Whether the price is for a whole answer, and not for one unit of it.
    pub fn is_whole(&self) -> bool {
        match &self.offer {
            Offer::Session(offer) => offer.is_by_request(),
            Offer::V1(_) | Offer::V2(_) | Offer::Mpp(_) => true,
        }
    }
}

/// What a probe goes by.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    pub registry: &'a Registry,
    pub tokens: &'a Tokens,
    pub rules: &'a Rules,
    pub now: Timestamp,
}

/// Asks once. A POST is sent only to what the seller itself says costs something, and has no body.
pub async fn probe(
    exchange: &impl Exchange,
    operation: &Operation,
    url: Url,
    reach: Reach,
    ground: Ground<'_>,
) -> Probe {
    let method = match operation.method.as_str() {
        "GET" => Method::GET,
        "POST" if operation.paid => Method::POST,
        "POST" => return Probe::NotAsked("a_post_without_a_price"),
        _ => return Probe::NotAsked("method"),
    };
    let request = HttpRequest { method, ..HttpRequest::get(url) };
    let answer = match exchange.send(&request, None, reach, PROBE_TIMEOUT).await {
        Ok(answer) => answer,
        Err(farthing_wallet::client::SendError::Private(_)) => return Probe::Failed("private_address"),
        Err(farthing_wallet::client::SendError::Timeout) => return Probe::Failed("timeout"),
        Err(_) => return Probe::Failed("unreachable"),
    };
    match answer.status {
        StatusCode::PAYMENT_REQUIRED => {}
        status if status.is_success() => return Probe::Free,
        status if status.is_redirection() => return Probe::Failed("redirected"),
        _ => return Probe::Failed("http_error"),
    }
    let Ok(challenge) = Challenge::read(&answer, ground.now) else { return Probe::Failed("unreadable_402") };
    let ways: Vec<Way> = challenge.offers.into_iter().filter_map(|offer| way(offer, ground)).collect();
    if ways.is_empty() { Probe::Failed("nothing_payable") } else { Probe::Priced(ways) }
}

/// An offer that the wallet can pay at all: of a token, a scheme and a flow that it knows.
fn way(offer: Offer, ground: Ground<'_>) -> Option<Way> {
    if !matches!(offer, Offer::Session(_)) {
        offer.requirement(ground.tokens).ok()?;
    }
    let charge = Charge::of(ground.registry, offer.money()).ok()?;
    let network = charge.money().asset().network().clone();
    let permitted = ground.rules.networks.contains(&network) && ground.rules.schemes.contains(offer.scheme());
    Some(Way { dollars: charge.dollars(), permitted, offer })
}

/// Whether what a document says agrees with what was asked; `None` where it says nothing that can be compared.
pub fn agrees(said: &[Said], paid: bool, probe: &Probe, registry: &Registry) -> Option<bool> {
    match probe {
        Probe::NotAsked(_) | Probe::Failed(_) => None,
        Probe::Free => Some(!paid),
        Probe::Priced(_) if !paid => Some(false),
        Probe::Priced(ways) => {
            let each: Vec<bool> = said.iter().filter_map(|said| holds(said, ways, registry)).collect();
            (!each.is_empty()).then(|| each.iter().all(|holds| *holds))
        }
    }
}

/// Whether one price of a document is among those that are asked.
fn holds(said: &Said, ways: &[Way], registry: &Registry) -> Option<bool> {
    let kind = |way: &&Way| match (said.protocol.as_str(), &way.offer) {
        ("mpp", Offer::Mpp(_)) => said.intent.as_deref().is_none_or(|intent| intent == "charge"),
        ("mpp", Offer::Session(_)) => said.intent.as_deref() == Some("session"),
        ("x402", Offer::V1(_) | Offer::V2(_)) => true,
        _ => false,
    };
    // Of other methods we would have read no challenge.
    if said.protocol == "mpp" && said.method.as_deref().is_some_and(|method| method != "evm") {
        return None;
    }
    let mut of_kind = ways.iter().filter(kind).peekable();
    if let Some(dollars) = &said.dollars {
        let wanted = Dollars::parse(dollars).ok()?;
        return Some(of_kind.any(|way| way.dollars == Some(wanted)));
    }
    let atoms = said.atoms.as_ref()?;
    let same_token = |way: &Way| {
        let money = way.offer.money();
        let contract = money.asset().address().to_string();
        said.currency.as_ref().is_none_or(|currency| {
            let symbol = registry.get(money.asset()).map(|asset| asset.symbol.as_str());
            currency.eq_ignore_ascii_case(&contract) || symbol == Some(currency)
        })
    };
    Some(of_kind.any(|way| same_token(way) && way.offer.money().atoms().to_string() == *atoms))
}

/// The dollars that a document asks for, where nobody is asked: the least of what can be counted.
pub fn claimed(said: &[Said], registry: &Registry) -> Option<Dollars> {
    let one = |said: &Said| {
        if let Some(dollars) = &said.dollars {
            return Dollars::parse(dollars).ok();
        }
        if said.intent.as_deref() == Some("session") {
            return None;
        }
        let (atoms, currency) = (said.atoms.as_ref()?.parse().ok()?, said.currency.as_ref()?);
        let is_it = |asset: &&farthing_primitives::Asset| {
            asset.id.address().to_string().eq_ignore_ascii_case(currency)
        };
        let asset = registry.iter().find(is_it)?;
        Charge::of(registry, asset.atoms(atoms)).ok()?.dollars()
    };
    said.iter().filter_map(one).min()
}
