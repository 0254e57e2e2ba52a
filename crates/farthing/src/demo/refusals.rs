//! What must not work: each attempt is made for real, and nothing may be served or moved.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use farthing_evm::{Address, Key, U256, from_alloy};
use farthing_primitives::{Registry, Timestamp};
use farthing_rails::exact_evm::buy::{self, Nonce};
use farthing_rails::exact_evm::{Presented, Requirement, Tokens};
use farthing_rails::x402;
use farthing_wire::x402::{Message, header, v2};
use serde::Serialize;

use crate::cli::Failure;

/// How long the attacker's signatures would be valid.
const VALIDITY: Duration = Duration::from_secs(60);

/// What every forecast has in it, and nothing else.
const GOODS: &str = "celsius";

/// What became of an attempt.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    pub name: &'static str,
    /// What was tried, for people.
    pub tried: String,
    pub status: u16,
    /// The code or reason with which it was refused.
    pub answer: String,
    /// It was refused as it must be, nothing was served and no atom moved.
    pub held: bool,
}

/// An answer, as far as it matters here.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// `error` of the challenge, or of the body.
    pub code: String,
    /// Whether there is anything in the body that only a buyer gets.
    pub goods: bool,
}

/// Somebody who signs well-formed payments and then does what no honest wallet does.
pub struct Attacker {
    http: reqwest::Client,
    key: Key,
    tokens: Tokens,
}

impl std::fmt::Debug for Attacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attacker")
    }
}

/// A payment that is signed, and in what it can be altered.
#[derive(Debug, Clone)]
pub struct Forged {
    offer: v2::PaymentRequirements,
    resource: v2::ResourceInfo,
    extensions: Option<farthing_wire::x402::Extensions>,
    presented: Presented,
}

impl Attacker {
    pub fn new(http: reqwest::Client, key: Key) -> Self {
        Self { http, key, tokens: Tokens::new(&Registry::builtin()) }
    }

    pub fn address(&self) -> Address {
        self.key.address()
    }

    /// Asks for a price and signs a payment of the first offer, altered by `alter` before it is signed.
    pub async fn sign(
        &self,
        url: &str,
        alter: impl FnOnce(&mut v2::PaymentRequirements),
    ) -> Result<Forged, Failure> {
        let failed = |why: String| Failure::failed(format!("{url}: {why}"));
        let answer = self.http.get(url).send().await.map_err(|error| failed(error.to_string()))?;
        let value = answer.headers().get(header::PAYMENT_REQUIRED);
        let value = value.ok_or_else(|| failed(format!("answers {} and asks nothing", answer.status())))?;
        let asked =
            v2::PaymentRequired::from_header(value.as_bytes()).map_err(|error| failed(error.to_string()))?;
        let mut offer = asked
            .accepts
            .into_iter()
            .next()
            .ok_or_else(|| failed("offers nothing that can be read".to_owned()))?;
        alter(&mut offer);
        let requirement =
            x402::requirement_v2(&offer, &self.tokens).map_err(|error| failed(error.to_string()))?;
        let presented = self.pay(&requirement).map_err(|error| failed(error.to_string()))?;
        Ok(Forged { offer, resource: asked.resource, extensions: asked.extensions, presented })
    }

    fn pay(&self, requirement: &Requirement) -> Result<Presented, buy::BuyError> {
        let mut nonce = [0u8; 32];
        // INVARIANT: nothing of value hangs on this nonce, which is never settled; a zero one would do.
        let _ = getrandom::fill(&mut nonce);
        let payer = from_alloy(self.key.address());
        let unsigned = buy::authorize(requirement, &payer, Nonce(nonce), VALIDITY, now())?;
        Ok(unsigned.signed(&self.key.sign(unsigned.digest()), None))
    }

    /// Shows a payment at `url`.
    pub async fn show(&self, url: &str, forged: &Forged) -> Result<Answer, Failure> {
        let Forged { offer, resource, extensions, presented } = forged.clone();
        let payment = x402::payment_v2(&offer, &presented, Some(resource), extensions)
            .ok_or_else(|| Failure::failed("a forged payment cannot be written"))?;
        self.show_header(url, header::PAYMENT_SIGNATURE, &payment.to_header()).await
    }

    /// Shows a header that somebody signed.
    pub async fn show_header(&self, url: &str, name: &str, value: &str) -> Result<Answer, Failure> {
        let failed = |error: reqwest::Error| Failure::failed(format!("{url}: {error}"));
        let answer = self.http.get(url).header(name, value).send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let asked = answer.headers().get(header::PAYMENT_REQUIRED);
        let asked = asked.and_then(|value| v2::PaymentRequired::from_header(value.as_bytes()).ok());
        let body = answer.text().await.map_err(failed)?;
        let said: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let code = asked.and_then(|asked| asked.error).or_else(|| said["error"].as_str().map(str::to_owned));
        let goods = body.contains(GOODS);
        Ok(Answer { status, code: code.unwrap_or_default(), goods })
    }
}

impl Forged {
    /// Lowers what is to be moved, after it was signed.
    pub fn lowered(mut self) -> Self {
        if let Presented::Eip3009 { authorization, .. } = &mut self.presented {
            authorization.value = U256::from(1u64);
        }
        self
    }

    /// Sends it elsewhere, after it was signed.
    pub fn redirected(mut self, to: Address) -> Self {
        if let Presented::Eip3009 { authorization, .. } = &mut self.presented {
            authorization.to = to;
        }
        self
    }
}

/// Lets an HTTP client answer for itself.
pub fn http() -> Result<reqwest::Client, Failure> {
    let built = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build();
    built.map_err(|error| Failure::failed(format!("the HTTP client cannot be set up: {error}")))
}

/// A key of the embedded chain's.
pub fn dev_key(account: &farthing_devnet::DevAccount) -> Result<Key, Failure> {
    Key::from_bytes(account.private_key.0)
        .map_err(|error| Failure::failed(format!("a development key cannot be used: {error}")))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
