//! What a front asks of an owner's books, beside having payments made.

use async_trait::async_trait;
use farthing_policy::{Bucket, Caps, Dollars, HostPattern, Law, Window};
use farthing_primitives::{Registry, RequestHash};
use sha2::{Digest, Sha256};

use crate::authorizer::{Denied, LocalAuthorizer};
use crate::journal::law::Standing;
use crate::journal::{Journal, JournalError, Purchase};
use crate::system_clock;

/// Keeps secrets of agents apart from the owner's, which they are made of.
const AGENTS_SECRET: &[u8] = b"farthing agent call secret v1";

/// The books as one customer may see them: an agent sees its own purchases and budgets alone.
#[async_trait]
pub trait Books: Send + Sync {
    /// The hosts that the owner's rules, or the policy that takes their place, allow to be paid.
    async fn hosts(&self) -> Result<Vec<HostPattern>, Denied>;

    /// The latest purchase of exactly this request, whatever became of it.
    async fn latest_for(&self, request: &RequestHash) -> Result<Option<Purchase>, Denied>;

    /// The latest purchases, latest first, no more than `limit`.
    async fn history(&self, limit: u32) -> Result<Vec<Purchase>, Denied>;

    /// What may be spent, what of it is spent, and what is left.
    async fn budget(&self) -> Result<Budget, Denied>;

    /// Binds a caller's name for a call to the request that it is for. See [`Journal::bind_call`].
    async fn bind_call(&self, name: &str, request: &RequestHash) -> Result<RequestHash, Denied>;

    /// Forgets names that came to nothing. See [`Journal::forget_calls`].
    async fn forget_calls(&self) -> Result<(), Denied>;

    /// By what callers' names are made unguessable before a seller sees them; the same at every call.
    async fn call_secret(&self) -> Result<[u8; 32], Denied>;
}

/// What somebody may spend, in words and digits for people and models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    pub frozen: bool,
    pub limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Limits {
    /// Those of the policy in force.
    Policy(Vec<Share>),
    /// Those that the owner set by hand, and whom they let be paid.
    ByHand { caps: Vec<Cap>, networks: Vec<String>, hosts: Vec<String> },
}

/// One limit of one budget of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    pub budget: String,
    /// What is counted: dollars, or an asset.
    pub of: String,
    pub within: String,
    pub limit: String,
    /// `None` if it cannot be counted.
    pub spent: Option<String>,
    pub left: String,
}

/// The limits of one kind of money that were set by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cap {
    pub of: String,
    pub per_payment: String,
    pub hour: Used,
    pub day: Used,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    pub limit: String,
    pub spent: String,
    pub left: String,
}

#[async_trait]
impl Books for LocalAuthorizer {
    async fn hosts(&self) -> Result<Vec<HostPattern>, Denied> {
        self.on_disk(|this| Ok(named_hosts(&this.journal.law()?))).await
    }

    async fn latest_for(&self, request: &RequestHash) -> Result<Option<Purchase>, Denied> {
        let request = *request;
        self.on_disk(move |this| Ok(this.journal.latest_for(&request)?)).await
    }

    async fn history(&self, limit: u32) -> Result<Vec<Purchase>, Denied> {
        self.on_disk(move |this| Ok(this.journal.history(limit)?)).await
    }

    async fn budget(&self) -> Result<Budget, Denied> {
        self.on_disk(|this| Ok(budget(&this.journal, &this.registry)?)).await
    }

    async fn bind_call(&self, name: &str, request: &RequestHash) -> Result<RequestHash, Denied> {
        let (name, request) = (name.to_owned(), *request);
        self.on_disk(move |this| Ok(this.journal.bind_call(&name, &request, &(this.clock)())?)).await
    }

    async fn forget_calls(&self) -> Result<(), Denied> {
        self.on_disk(|this| Ok(this.journal.forget_calls(&(this.clock)()).map(drop)?)).await
    }

    async fn call_secret(&self) -> Result<[u8; 32], Denied> {
        self.on_disk(|this| {
            let secret = this.journal.call_secret(this.random()?)?;
            Ok(match this.journal.agent() {
                None => secret,
                // An agent that knew the owner's could tell what the others' calls are named.
                Some(agent) => {
                    let mut hash = Sha256::new();
                    hash.update(AGENTS_SECRET);
                    hash.update(secret);
                    hash.update(agent.as_str());
                    hash.finalize().into()
                }
            })
        })
        .await
    }
}

/// The hosts that the owner names, in rules or in a policy.
pub fn named_hosts(law: &Law) -> Vec<HostPattern> {
    match law {
        Law::Rules(rules) => rules.hosts.iter().map(|rule| rule.pattern.clone()).collect(),
        Law::Policy { policy, .. } => {
            policy.allow.iter().filter_map(|rule| rule.matcher.hosts.as_ref()).flatten().cloned().collect()
        }
    }
}

fn budget(journal: &Journal, registry: &Registry) -> Result<Budget, JournalError> {
    let clock = system_clock();
    // Frozen by its own name, by what it is part of, or with all the wallet.
    let frozen = match journal.may_sign_now() {
        Ok(()) => false,
        Err(JournalError::Frozen) => true,
        Err(error) => return Err(error),
    };
    if let Some(standing) = journal.standing(&clock)? {
        let shares = standing.iter().map(|one| share(registry, one)).collect();
        return Ok(Budget { frozen, limits: Limits::Policy(shares) });
    }
    let rules = journal.rules()?;
    let mut caps = Vec::new();
    for (bucket, cap) in &rules.caps {
        caps.push(by_hand(registry, bucket, cap, &journal.spent(bucket, &clock)?));
    }
    let networks = rules.networks.iter().map(ToString::to_string).collect();
    let hosts = rules.hosts.iter().map(|rule| rule.pattern.to_string()).collect();
    Ok(Budget { frozen, limits: Limits::ByHand { caps, networks, hosts } })
}

fn share(registry: &Registry, one: &Standing) -> Share {
    let bucket = &one.limit.bucket;
    let spent = one.spent.unwrap_or(u128::MAX);
    Share {
        budget: one.budget.to_string(),
        of: bucket.to_string(),
        within: one.limit.span.to_string(),
        limit: shown(registry, bucket, one.limit.most),
        spent: one.spent.map(|spent| shown(registry, bucket, spent)),
        left: shown(registry, bucket, one.limit.most.saturating_sub(spent)),
    }
}

fn by_hand(registry: &Registry, bucket: &Bucket, caps: &Caps, spent: &[(Window, u128)]) -> Cap {
    let used = |window: Window, limit: u128| {
        let spent = spent.iter().find(|(one, _)| *one == window).map_or(0, |(_, spent)| *spent);
        Used {
            limit: shown(registry, bucket, limit),
            spent: shown(registry, bucket, spent),
            left: shown(registry, bucket, limit.saturating_sub(spent)),
        }
    };
    Cap {
        of: bucket.to_string(),
        per_payment: shown(registry, bucket, caps.per_payment),
        hour: used(Window::Hour, caps.hour),
        day: used(Window::Day, caps.day),
    }
}

fn shown(registry: &Registry, bucket: &Bucket, n: u128) -> String {
    match bucket {
        Bucket::Dollar => Dollars(n).plain(),
        Bucket::Asset(id) => registry.get(id).map_or_else(|| n.to_string(), |asset| asset.format(n)),
    }
}
