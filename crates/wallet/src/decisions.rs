//! Decisions for programs that pay by themselves: the rules and the books of a wallet, without its key.
//!
//! What is allowed counts as spent from then on, since nobody says later what became of it. The books are this program's
//! own: they are never those of a wallet that signs.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farthing_evm::Key;
use farthing_policy::{Charge, Decision, Origin};
use farthing_primitives::{Registry, RequestHash};
use http::{HeaderMap, HeaderValue, StatusCode, Version};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::authorizer::{Authorizer, Denied, Intent, LocalAuthorizer};
use crate::client::{Answer, Body, Challenge, compare};
use crate::journal::Journal;
use crate::offer::Offer;

/// How many offers of one seller are weighed; a seller that makes more makes fun.
pub const MAX_OFFERS: usize = 64;

/// A payment that another program wants to make.
#[derive(Debug, Clone)]
pub struct Wish {
    pub method: String,
    /// What is really asked for.
    pub url: url::Url,
    /// The SHA-256 of the request's body, where it is known.
    pub body: Option<[u8; 32]>,
    pub tool: Option<String>,
    /// The most that it may cost, in whole units; `$` in front for dollars only.
    pub max: Option<String>,
    /// 1 or 2.
    pub x402_version: u64,
    /// The entries of the seller's `accepts`, as they were seen.
    pub offers: Vec<Value>,
}

/// Why an offer is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    pub offer: usize,
    pub code: String,
    pub text: String,
}

#[derive(Debug, Clone)]
pub enum Ruling {
    /// The offer that may be paid: the cheapest that is permitted. It counts as spent.
    Allow {
        offer: usize,
        charge: Charge,
        payee: String,
        decision: Decision,
    },
    Deny(Vec<Objection>),
}

/// Who decides.
#[derive(Debug, Clone)]
pub struct Decider {
    authorizer: LocalAuthorizer,
}

impl Decider {
    /// `seed` makes a key that signs nothing; it is there because books are somebody's.
    ///
    /// # Errors
    /// [`Denied::Unavailable`] for a seed that is no key, which one of 2^128 is.
    pub fn new(journal: Arc<Journal>, registry: Registry, seed: [u8; 32]) -> Result<Self, Denied> {
        let key = Key::from_bytes(seed).map_err(|_| Denied::Unavailable)?;
        Ok(Self { authorizer: LocalAuthorizer::new(key, journal, registry) })
    }

    /// The same for one agent.
    #[must_use]
    pub fn for_agent(&self, agent: farthing_policy::AgentName) -> Self {
        Self { authorizer: self.authorizer.for_agent(agent) }
    }

    /// Weighs each offer by itself, and lets the cheapest that is permitted be paid.
    pub async fn decide(&self, wish: &Wish) -> Ruling {
        let deny = |offer, code: &str, text: String| Objection { offer, code: code.to_owned(), text };
        let origin = match Origin::of(&wish.url) {
            Ok(origin) => origin,
            Err(error) => return Ruling::Deny(vec![deny(0, "address", error.to_string())]),
        };
        if wish.offers.len() > MAX_OFFERS {
            return Ruling::Deny(vec![deny(0, "too_many_offers", format!("more than {MAX_OFFERS} offers"))]);
        }
        let mut objections = Vec::new();
        let mut permitted: Vec<(usize, Intent, Charge)> = Vec::new();
        for (i, offer) in wish.offers.iter().enumerate() {
            let Some(offer) = read(wish, offer) else {
                objections.push(deny(i, "offer_unreadable", "the offer cannot be read".to_owned()));
                continue;
            };
            let intent = intent(wish, origin.clone(), offer);
            let charge = Charge::of(self.authorizer.registry(), intent.offer.money());
            let ruled = match charge {
                Ok(charge) => self.authorizer.preview(&intent).await.map(|decision| (charge, decision)),
                Err(error) => Err(error.into()),
            };
            match ruled {
                Ok((charge, decision)) if decision.is_allowed() => permitted.push((i, intent, charge)),
                Ok((_, decision)) => objections.push(against(i, &decision)),
                Err(denied) => objections.push(deny(i, denied.code(), denied.to_string())),
            }
        }
        permitted.sort_by(|(_, _, a), (_, _, b)| compare(Some(a), Some(b)));
        for (i, intent, charge) in permitted {
            match self.authorizer.count(&intent).await {
                Ok(decision) if decision.is_allowed() => {
                    let payee = intent.offer.payee().to_string();
                    return Ruling::Allow { offer: i, charge, payee, decision };
                }
                // Somebody else took what was left in between.
                Ok(decision) => objections.push(against(i, &decision)),
                Err(denied) => objections.push(deny(i, denied.code(), denied.to_string())),
            }
        }
        if objections.is_empty() {
            objections.push(deny(0, "no_offer", "nothing is offered".to_owned()));
        }
        Ruling::Deny(objections)
    }
}

fn against(offer: usize, decision: &Decision) -> Objection {
    let code = decision.denials().next().map_or("denied", |fact| fact.code());
    Objection { offer, code: code.to_owned(), text: decision.to_string() }
}

/// Reads one offer by the parsers that the paying client uses, as if it had come alone.
fn read(wish: &Wish, offer: &Value) -> Option<Offer> {
    let mut headers = HeaderMap::new();
    let mut body = Bytes::new();
    if wish.x402_version == 1 {
        let alone = json!({ "x402Version": 1, "error": "", "accepts": [offer] });
        body = Bytes::from(alone.to_string());
    } else {
        let alone = json!({ "x402Version": 2, "resource": { "url": wish.url.as_str() }, "accepts": [offer] });
        let text = STANDARD.encode(alone.to_string());
        headers.insert("payment-required", HeaderValue::from_str(&text).ok()?);
    }
    let answer = Answer {
        status: StatusCode::PAYMENT_REQUIRED,
        version: Version::HTTP_11,
        headers,
        body: Body::Complete(body),
        url: wish.url.clone(),
        private: false,
    };
    let read = Challenge::read(&answer, crate::system_clock().wall).ok()?;
    let mut offers = read.offers.into_iter();
    offers.next().filter(|_| offers.next().is_none() && read.unreadable.is_empty())
}

fn intent(wish: &Wish, origin: Origin, offer: Offer) -> Intent {
    let mut hash = Sha256::new();
    hash.update(b"farthing decision v1");
    for part in [wish.method.as_bytes(), wish.url.as_str().as_bytes(), &wish.body.unwrap_or_default()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Intent {
        offer,
        private: origin.host.is_local(),
        origin,
        method: wish.method.clone(),
        url: wish.url.to_string(),
        request_hash: RequestHash(hash.finalize().into()),
        body: wish.body,
        tool: wish.tool.clone(),
        max: wish.max.clone(),
        only: None,
        devnet: false,
        chain_time: None,
        permit_nonce: None,
        deposit: None,
    }
}
