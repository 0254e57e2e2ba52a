//! From an agent's wish to pay to a signature whose intent is durable, at a rate that does not wait, beside what the disk
//! itself syncs: under a policy of a thousand rules, by an agent four levels deep in the tree of budgets, with more or
//! less of a past.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farthing_evm::{Key, KeyError};
use farthing_policy::{AgentName, Origin};
use farthing_primitives::{Address, Network, PullMethod, Registry, RequestHash};
use farthing_rails::exact_evm::{Requirement, Tokens};
use farthing_rails::x402::{Extras, offer_v2};
use farthing_wallet::journal::law::ApplyError;
use farthing_wallet::journal::{Journal, JournalError};
use farthing_wallet::{Authorizer, Denied, Intent, LocalAuthorizer, Offer, OfferV2};
use farthing_wire::x402::v2;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::disk::{self, Syncs};

const AGENT: &str = "acme/research/weather/scout";
const RULES: usize = 1_000;
/// One of these is paid after the other.
const SELLERS: usize = 20;
const ATOMS: u128 = 100;
/// How many wishes at once give a journal its past.
const AT_ONCE: usize = 64;

/// What came of it, in milliseconds from the moment in which each was due.
#[derive(Debug, Clone, Serialize)]
pub struct Authorized {
    /// How many payments there were before, all of them in the windows that count.
    pub past: usize,
    /// In a second, what was asked and what was done.
    pub asked: f64,
    pub done: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub most_ms: f64,
    /// By how much the disk's own slowest hundredth is faster.
    pub beyond_sync_p99_ms: f64,
}

#[derive(Debug, Serialize)]
pub struct Measured {
    pub sync: Syncs,
    pub rows: Vec<Authorized>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorizeError {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the policy is not taken: {0}")]
    Policy(String),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("not authorized: {0}")]
    Denied(String),
}

impl From<ApplyError> for AuthorizeError {
    fn from(error: ApplyError) -> Self {
        Self::Policy(error.to_string())
    }
}

/// So many rules, each for a seller of its own, and limits that never stand in the way.
fn policy() -> String {
    let mut text = "version: 1\nbudgets:\n".to_owned();
    for name in ["acme", "acme/research", "acme/research/weather", AGENT] {
        let limits = "{per_payment: $1, rolling: {1h: $500000, 24h: $500000}, per_host: {24h: $500000}, payments: {1m: 1000000}}";
        let _ = writeln!(text, "  {name}: {limits}");
    }
    text.push_str("allow:\n");
    for i in 0..RULES {
        let _ = writeln!(
            text,
            "  - {{hosts: [seller-{i}.example], paths: [/v1/*], methods: [GET], schemes: [exact]}}"
        );
    }
    text
}

/// The wishes to pay each seller, who are the last that the policy names. What a program does to have a wish is not what
/// is measured.
fn intents() -> Vec<Intent> {
    let registry = Registry::builtin();
    (0..SELLERS).map(|number| intent(&registry, number)).collect()
}

fn intent(registry: &Registry, number: usize) -> Intent {
    let url = format!("https://seller-{}.example/v1/now", RULES - 1 - number);
    let network = Network::eip155(84532);
    let usdc = registry.dollar(&network).unwrap_or_else(|| unreachable!("it is listed"));
    let token = Tokens::new(registry).get(&usdc.id).cloned().unwrap_or_else(|| unreachable!("it is listed"));
    let payee = Address::from_evm_bytes([u8::try_from(number).unwrap_or(0) + 1; 20]);
    let asked =
        Requirement::new(token, &usdc.atoms(ATOMS), &payee, PullMethod::Eip3009, Duration::from_secs(60));
    let asked = asked.unwrap_or_else(|_| unreachable!("USDC takes EIP-3009"));
    let parsed = url.parse().ok().and_then(|url| Origin::of(&url).ok());
    Intent {
        offer: Offer::V2(Box::new(OfferV2 {
            requirements: offer_v2(&asked, Extras::default()),
            resource: v2::ResourceInfo::new(&url),
            extensions: None,
        })),
        origin: parsed.unwrap_or_else(|| unreachable!("it is a URL")),
        private: false,
        method: "GET".to_owned(),
        url,
        request_hash: RequestHash([7; 32]),
        body: None,
        tool: None,
        max: None,
        only: None,
        devnet: false,
        chain_time: None,
        permit_nonce: None,
        deposit: None,
    }
}

/// Authorizes, tells when that was done, and then shows the payment, as whoever pays does.
async fn authorize(wallet: &LocalAuthorizer, wish: Intent) -> Result<Instant, AuthorizeError> {
    let denied = |denied: Denied| AuthorizeError::Denied(denied.to_string());
    let id = wallet.authorize(wish).await.map_err(denied)?.id;
    let done = Instant::now();
    wallet.present(&id).await.map_err(denied)?;
    Ok(done)
}

async fn all(done: &mut JoinSet<Result<Duration, AuthorizeError>>) -> Result<Vec<Duration>, AuthorizeError> {
    let mut took = Vec::new();
    while let Some(one) = done.join_next().await {
        took.push(one.map_err(|error| AuthorizeError::Denied(error.to_string()))??);
    }
    Ok(took)
}

/// Lets `rate` wishes a second come for `length` over each past. Writes below `dir`.
pub async fn measure(
    dir: &Path,
    pasts: &[usize],
    rate: f64,
    length: Duration,
) -> Result<Measured, AuthorizeError> {
    let scratch = tempfile::tempdir_in(dir)?;
    let mut rows = Vec::new();
    let sync = disk::measure(dir, length)?;
    for past in pasts {
        let journal = Journal::open(&scratch.path().join(format!("wallet-{past}.db")))?;
        journal.apply_policy(&policy(), false)?;
        let agent: AgentName = AGENT.parse().unwrap_or_else(|_| unreachable!("it is a name"));
        let key = Key::from_bytes([7; 32])?;
        let wallet = LocalAuthorizer::new(key, Arc::new(journal), Registry::builtin()).for_agent(agent);
        let mut under_way = JoinSet::new();
        for lane in 0..AT_ONCE.min(*past) {
            let (wallet, past, wishes) = (wallet.clone(), *past, intents());
            under_way.spawn(async move {
                for wish in
                    wishes.iter().cycle().skip(lane % SELLERS).take((lane..past).step_by(AT_ONCE).len())
                {
                    authorize(&wallet, wish.clone()).await?;
                }
                Ok(Duration::ZERO)
            });
        }
        all(&mut under_way).await?;
        let wishes = intents();
        let mut wishes = wishes.iter().cycle();
        let (began, mut number, mut due) = (Instant::now(), 0, Instant::now());
        while due.duration_since(began) < length {
            tokio::time::sleep_until(due).await;
            let Some(wish) = wishes.next().cloned() else { break };
            let wallet = wallet.clone();
            under_way.spawn(async move {
                // From when it was due, so that nobody is spared a wait for those before.
                Ok(authorize(&wallet, wish).await?.duration_since(due))
            });
            number += 1;
            due = began + Duration::from_secs_f64(number as f64 / rate);
        }
        let mut took = all(&mut under_way).await?;
        let done = took.len() as f64 / began.elapsed().as_secs_f64();
        took.sort_unstable();
        let at = |part: usize| {
            let found = took.get((took.len().saturating_sub(1)) * part / 100).copied();
            found.unwrap_or_default().as_secs_f64() * 1000.0
        };
        rows.push(Authorized {
            past: *past,
            asked: rate,
            done,
            p50_ms: at(50),
            p99_ms: at(99),
            most_ms: at(100),
            beyond_sync_p99_ms: at(99) - sync.p99_ms,
        });
    }
    Ok(Measured { sync, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_measured_is_authorized() {
        let dir = tempfile::tempdir().unwrap();
        let measured = measure(dir.path(), &[0, 70], 200.0, Duration::from_millis(200)).await.unwrap();
        assert_eq!(measured.rows.iter().map(|row| row.past).collect::<Vec<_>>(), [0, 70]);
        assert!(measured.rows.iter().all(|row| row.done > 0.0 && row.p50_ms <= row.p99_ms));
    }
}
