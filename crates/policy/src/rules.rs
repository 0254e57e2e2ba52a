use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use farthing_primitives::{Address, Network};

use crate::mention::Named;
use crate::meter::Number;
use crate::policy::{Basis, Limit, ScreenFault, Span, Unfit};
use crate::secrets::Secret;
use crate::{AgentName, Bucket, Charge, Dollars, HostPattern};

/// The most that may be spent, in the unit of the bucket that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    pub per_payment: u128,
    /// In any 60 minutes.
    pub hour: u128,
    /// In any 24 hours.
    pub day: u128,
}

/// A rolling window, which ends now. Calendar windows would let twice the cap through around midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Window {
    Hour,
    Day,
}

impl Window {
    pub const ALL: [Self; 2] = [Self::Hour, Self::Day];

    pub const fn length(self) -> Duration {
        match self {
            Self::Hour => Duration::from_secs(3600),
            Self::Day => Duration::from_secs(86_400),
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A host that the owner allows to be paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRule {
    pub pattern: HostPattern,
    /// It may be an address of this machine or its network.
    pub private: bool,
    /// It may be paid without TLS. Loopback always may.
    pub plaintext: bool,
}

impl HostRule {
    /// The rule for a pattern as an owner names it. Whoever spells a local address means it.
    pub fn new(pattern: HostPattern) -> Self {
        Self { private: pattern.is_local(), plaintext: pattern.is_local(), pattern }
    }
}

/// A seller that takes payments and refuses the goods is not paid again for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    pub refusals: u32,
    pub within: Duration,
}

/// What the owner allows. `Rules::default()` allows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules {
    /// Nothing is signed while this is set.
    pub frozen: bool,
    /// Payment schemes, e.g. `exact`.
    pub schemes: BTreeSet<String>,
    /// Networks on which may be paid. A testnet does not stand for its mainnet, nor the other way round.
    pub networks: BTreeSet<Network>,
    /// Caps by bucket. An asset that counts in no bucket may not be paid with.
    pub caps: BTreeMap<Bucket, Caps>,
    pub hosts: Vec<HostRule>,
    /// The longest time that a signed payment may stay valid. Zero permits none.
    pub max_validity: Duration,
    pub breaker: Option<Breaker>,
}

impl Rules {
    /// The number of a cap among its like; `None` if there is none.
    pub(crate) fn number(&self, bucket: &Bucket, window: Window) -> Option<Number> {
        let place = self.caps.keys().position(|capped| capped == bucket)?;
        let windows = Window::ALL.len();
        let at = Window::ALL.iter().position(|one| *one == window)?;
        Number::try_from(place * windows + at).ok()
    }

    /// What a new wallet starts with: cents, and no host at all until the owner names one.
    ///
    /// $0.10 for one payment, $1 in any hour, $5 in any day, the `exact` scheme, five minutes of validity.
    pub fn tight(networks: impl IntoIterator<Item = Network>) -> Self {
        let cents = |n: u128| n * 10u128.pow(16);
        let caps = Caps { per_payment: cents(10), hour: cents(100), day: cents(500) };
        Self {
            frozen: false,
            schemes: BTreeSet::from(["exact".to_owned()]),
            networks: networks.into_iter().collect(),
            caps: BTreeMap::from([(Bucket::Dollar, caps)]),
            hosts: Vec::new(),
            max_validity: Duration::from_secs(300),
            breaker: Some(Breaker { refusals: 3, within: Duration::from_secs(600) }),
        }
    }
}

/// What one rule found. Every variant is a fact with its numbers; [`Fact::code`] is stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    NotFrozen,
    Frozen,
    SchemeAllowed(String),
    SchemeNotAllowed(String),
    NetworkAllowed(Network),
    /// `allowed` is what the owner permits, so that a mainnet offer for a testnet task is seen for what it is.
    NetworkNotAllowed {
        asked: Network,
        allowed: Vec<Network>,
    },
    HostAllowed {
        host: String,
        by: HostPattern,
    },
    HostNotAllowed(String),
    PrivateNotAllowed(String),
    PlaintextNotAllowed(String),
    ZeroAmount,
    SecretInUrl(Secret),
    NoCapFor(Charge),
    WithinMax {
        limit: u128,
        asked: u128,
    },
    OverMax {
        limit: u128,
        asked: u128,
    },
    WithinPayment {
        bucket: Bucket,
        limit: u128,
        asked: u128,
    },
    OverPayment {
        bucket: Bucket,
        limit: u128,
        asked: u128,
    },
    WithinWindow {
        window: Window,
        bucket: Bucket,
        limit: u128,
        before: u128,
        after: u128,
    },
    /// `after` is `None` if it cannot even be counted.
    OverWindow {
        window: Window,
        bucket: Bucket,
        limit: u128,
        before: u128,
        after: Option<u128>,
    },
    PayeeFirstUse {
        authority: String,
        payee: Address,
    },
    PayeePinned {
        authority: String,
        payee: Address,
    },
    PayeeChanged {
        authority: String,
        pinned: Vec<Address>,
        asked: Address,
    },
    ValidityAllowed(Duration),
    ValidityTooLong {
        asked: Duration,
        limit: Duration,
    },
    BreakerClosed {
        refusals: u32,
    },
    BreakerOpen {
        authority: String,
        refusals: u32,
        limit: u32,
    },
    /// Of a policy: the rule that covers everything.
    AllowedByRule(String),
    /// The rule that comes nearest, and its keys that the payment does not meet.
    NotAllowedBy {
        rule: String,
        lacks: Vec<String>,
    },
    DeniedByRule(String),
    /// The payee is one of those that the rule names.
    PayeeNamed {
        payee: Address,
        rule: String,
    },
    /// There is no budget for whoever wants to pay.
    AgentUnknown(Option<AgentName>),
    WithinBudget {
        budget: AgentName,
        limit: Limit,
        before: u128,
        after: u128,
    },
    /// `after` is `None` if it cannot even be counted.
    OverBudget {
        budget: AgentName,
        limit: Limit,
        before: u128,
        after: Option<u128>,
    },
    /// What a limit that follows something is now, which is in `limit`.
    LimitFollows {
        budget: AgentName,
        limit: Limit,
        basis: Basis,
    },
    /// It cannot be told what the limit is.
    LimitUnknown {
        budget: AgentName,
        limit: Limit,
    },
    WithinCount {
        budget: AgentName,
        span: Span,
        most: u32,
        before: u64,
    },
    OverCount {
        budget: AgentName,
        span: Span,
        most: u32,
        before: u64,
    },
    UsualPrice {
        usual: u128,
        asked: u128,
    },
    PriceJump {
        usual: u128,
        asked: u128,
        times: u32,
    },
    UsualVelocity {
        minute: u64,
        usual: u64,
    },
    VelocityJump {
        minute: u64,
        usual: u64,
        times: u32,
    },
    Approved {
        rule: String,
        quorum: u32,
        by: String,
    },
    /// Denies until so many people agree.
    ApprovalRequired {
        rule: String,
        quorum: u32,
        /// The request that people were asked with, if they were.
        pending: Option<String>,
    },
    /// The expression of a rule has no value.
    ExpressionFailed {
        rule: String,
        why: Unfit,
    },
    /// A screener has to be asked, and was not: it is not asked about what is denied anyway.
    Unscreened,
    /// What a screener said was of another payment, or is another screener's word.
    ScreenedOther,
    ScreenAllowed {
        by: String,
        reason: Option<String>,
    },
    ScreenDenied {
        by: String,
        reason: Option<String>,
    },
    /// It wants people to say yes, which is looked at beside.
    ScreenHeld {
        by: String,
        reason: Option<String>,
    },
    ScreenFailed {
        by: String,
        fault: ScreenFault,
    },
    /// Something else named it before the owner did, and it was never paid. Where it does not deny, people are asked, which
    /// is looked at beside.
    NamedFirst {
        what: Named,
        by: String,
        denies: bool,
    },
    /// Found by another process that decided, in its words.
    Told {
        code: String,
        denies: bool,
        text: String,
    },
}

impl Fact {
    pub fn denies(&self) -> bool {
        match self {
            Self::Told { denies, .. } | Self::NamedFirst { denies, .. } => *denies,
            Self::NotFrozen
            | Self::SchemeAllowed(_)
            | Self::NetworkAllowed(_)
            | Self::HostAllowed { .. }
            | Self::WithinMax { .. }
            | Self::WithinPayment { .. }
            | Self::WithinWindow { .. }
            | Self::PayeeFirstUse { .. }
            | Self::PayeePinned { .. }
            | Self::ValidityAllowed(_)
            | Self::BreakerClosed { .. }
            | Self::AllowedByRule(_)
            | Self::PayeeNamed { .. }
            | Self::WithinBudget { .. }
            | Self::WithinCount { .. }
            | Self::LimitFollows { .. }
            | Self::UsualPrice { .. }
            | Self::UsualVelocity { .. }
            | Self::ScreenAllowed { .. }
            | Self::ScreenHeld { .. }
            | Self::Approved { .. } => false,
            Self::Frozen
            | Self::SchemeNotAllowed(_)
            | Self::NetworkNotAllowed { .. }
            | Self::HostNotAllowed(_)
            | Self::PrivateNotAllowed(_)
            | Self::PlaintextNotAllowed(_)
            | Self::ZeroAmount
            | Self::SecretInUrl(_)
            | Self::NoCapFor(_)
            | Self::OverMax { .. }
            | Self::OverPayment { .. }
            | Self::OverWindow { .. }
            | Self::PayeeChanged { .. }
            | Self::ValidityTooLong { .. }
            | Self::BreakerOpen { .. }
            | Self::NotAllowedBy { .. }
            | Self::DeniedByRule(_)
            | Self::AgentUnknown(_)
            | Self::OverBudget { .. }
            | Self::OverCount { .. }
            | Self::LimitUnknown { .. }
            | Self::PriceJump { .. }
            | Self::VelocityJump { .. }
            | Self::ExpressionFailed { .. }
            | Self::Unscreened
            | Self::ScreenedOther
            | Self::ScreenDenied { .. }
            | Self::ScreenFailed { .. }
            | Self::ApprovalRequired { .. } => true,
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::Told { code, .. } => code,
            Self::NotFrozen => "not_frozen",
            Self::Frozen => "frozen",
            Self::SchemeAllowed(_) => "scheme_allowed",
            Self::SchemeNotAllowed(_) => "scheme_not_allowed",
            Self::NetworkAllowed(_) => "network_allowed",
            Self::NetworkNotAllowed { .. } => "network_not_allowed",
            Self::HostAllowed { .. } => "host_allowed",
            Self::HostNotAllowed(_) => "host_not_allowed",
            Self::PrivateNotAllowed(_) => "private_address_not_allowed",
            Self::PlaintextNotAllowed(_) => "plaintext_not_allowed",
            Self::ZeroAmount => "zero_amount",
            Self::SecretInUrl(_) => "secret_in_url",
            Self::NoCapFor(_) => "asset_not_allowed",
            Self::WithinMax { .. } => "within_max",
            Self::OverMax { .. } => "over_max",
            Self::WithinPayment { .. } => "within_payment_cap",
            Self::OverPayment { .. } => "over_payment_cap",
            Self::WithinWindow { window: Window::Hour, .. } => "within_hour_cap",
            Self::WithinWindow { window: Window::Day, .. } => "within_day_cap",
            Self::OverWindow { window: Window::Hour, .. } => "over_hour_cap",
            Self::OverWindow { window: Window::Day, .. } => "over_day_cap",
            Self::PayeeFirstUse { .. } => "payee_first_use",
            Self::PayeePinned { .. } => "payee_pinned",
            Self::PayeeChanged { .. } => "payee_changed",
            Self::ValidityAllowed(_) => "validity_allowed",
            Self::ValidityTooLong { .. } => "validity_too_long",
            Self::BreakerClosed { .. } => "breaker_closed",
            Self::BreakerOpen { .. } => "breaker_open",
            Self::AllowedByRule(_) => "allowed_by_rule",
            Self::NotAllowedBy { .. } => "not_allowed",
            Self::DeniedByRule(_) => "denied_by_rule",
            Self::PayeeNamed { .. } => "payee_named",
            Self::AgentUnknown(_) => "agent_unknown",
            Self::WithinBudget { .. } => "within_budget",
            Self::OverBudget { .. } => "over_budget",
            Self::LimitFollows { .. } => "limit_follows",
            Self::LimitUnknown { .. } => "limit_unknown",
            Self::WithinCount { .. } => "within_count",
            Self::OverCount { .. } => "over_count",
            Self::UsualPrice { .. } => "usual_price",
            Self::PriceJump { .. } => "price_jump",
            Self::UsualVelocity { .. } => "usual_velocity",
            Self::VelocityJump { .. } => "velocity_jump",
            Self::Approved { .. } => "approved",
            Self::ApprovalRequired { .. } => "approval_required",
            Self::ExpressionFailed { .. } => "expression_failed",
            Self::Unscreened => "screen_not_asked",
            Self::ScreenedOther => "screen_of_another",
            Self::ScreenAllowed { .. } => "screen_allowed",
            Self::ScreenDenied { .. } => "screen_denied",
            Self::ScreenHeld { .. } => "screen_held",
            Self::ScreenFailed { fault, .. } => fault.code(),
            Self::NamedFirst { .. } => "named_first",
        }
    }
}

pub(crate) fn amount(bucket: &Bucket, n: u128) -> String {
    match bucket {
        Bucket::Dollar => Dollars(n).to_string(),
        Bucket::Asset(id) => format!("{n} atoms of {id}"),
    }
}

/// What a screener says, with its reason.
fn said(f: &mut fmt::Formatter<'_>, what: &str, by: &str, reason: Option<&str>) -> fmt::Result {
    write!(f, "the screener ({by}) {what}")?;
    reason.map_or(Ok(()), |reason| write!(f, ": {reason}"))
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// One line for a person, lower case, with the numbers.
impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told { text, .. } => f.write_str(text),
            Self::NotFrozen => f.write_str("the wallet is not frozen"),
            Self::Frozen => f.write_str("the wallet is frozen"),
            Self::SchemeAllowed(scheme) => write!(f, "the scheme {scheme} is allowed"),
            Self::SchemeNotAllowed(scheme) => write!(f, "the scheme {scheme:?} is not allowed"),
            Self::NetworkAllowed(network) => write!(f, "the network {network} is allowed"),
            Self::NetworkNotAllowed { asked, allowed } => {
                write!(f, "the network {asked} is not allowed (allowed: {})", list(allowed))
            }
            Self::HostAllowed { host, by } => write!(f, "{host} is allowed by {by}"),
            Self::HostNotAllowed(host) => write!(f, "{host} is not a host that the owner allows"),
            Self::PrivateNotAllowed(host) => {
                write!(f, "{host} is on this machine or its network, which the owner did not allow")
            }
            Self::PlaintextNotAllowed(host) => write!(f, "{host} is asked without TLS"),
            Self::ZeroAmount => f.write_str("a payment of nothing is not made"),
            Self::SecretInUrl(secret) => {
                write!(
                    f,
                    "the address holds {secret}, which would be passed on and kept; a policy with secrets_in_url: allow pays all the same"
                )
            }
            Self::NoCapFor(charge) => {
                write!(f, "no cap covers the asset {} ({})", charge.symbol(), charge.money().asset())
            }
            Self::WithinMax { limit, asked } => {
                write!(f, "{asked} atoms are within this call's maximum of {limit}")
            }
            Self::OverMax { limit, asked } => {
                write!(f, "{asked} atoms are above this call's maximum of {limit}")
            }
            Self::WithinPayment { bucket, limit, asked } => {
                let (asked, limit) = (amount(bucket, *asked), amount(bucket, *limit));
                write!(f, "{asked} is within the cap per payment of {limit}")
            }
            Self::OverPayment { bucket, limit, asked } => {
                let (asked, limit) = (amount(bucket, *asked), amount(bucket, *limit));
                write!(f, "{asked} is above the cap per payment of {limit}")
            }
            Self::WithinWindow { window, bucket, limit, before, after } => {
                let (before, after) = (amount(bucket, *before), amount(bucket, *after));
                write!(f, "the last {window} goes from {before} to {after} of {}", amount(bucket, *limit))
            }
            Self::OverWindow { window, bucket, limit, before, after } => {
                let after = after.map_or_else(|| "too much to count".to_owned(), |n| amount(bucket, n));
                let (before, limit) = (amount(bucket, *before), amount(bucket, *limit));
                write!(f, "the last {window} would go from {before} to {after}, above {limit}")
            }
            Self::PayeeFirstUse { authority, payee } => {
                write!(f, "{authority} is paid for the first time, and pinned to {payee}")
            }
            Self::PayeePinned { authority, payee } => write!(f, "{authority} is known to be paid at {payee}"),
            Self::PayeeChanged { authority, pinned, asked } => {
                write!(f, "{authority} is pinned to {} and now asks to pay {asked}", list(pinned))
            }
            Self::ValidityAllowed(d) => write!(f, "the payment stays valid for {} s", d.as_secs()),
            Self::ValidityTooLong { asked, limit } => {
                write!(
                    f,
                    "the payment would stay valid for {} s, above {} s",
                    asked.as_secs(),
                    limit.as_secs()
                )
            }
            Self::BreakerClosed { refusals } => write!(f, "{refusals} payments were refused here lately"),
            Self::BreakerOpen { authority, refusals, limit } => {
                write!(f, "{authority} refused {refusals} payments lately, and {limit} open the breaker")
            }
            Self::AllowedByRule(rule) => write!(f, "it is allowed by {rule}"),
            Self::NotAllowedBy { rule, lacks } => {
                write!(f, "no rule allows it; {rule} does not for its {}", list(lacks))
            }
            Self::DeniedByRule(rule) => write!(f, "it is denied by {rule}"),
            Self::PayeeNamed { payee, rule } => write!(f, "{payee} is named by {rule}"),
            Self::AgentUnknown(Some(agent)) => write!(f, "there is no budget for {agent}"),
            Self::AgentUnknown(None) => f.write_str("there is no budget for whoever pays without a name"),
            Self::WithinBudget { budget, limit, before, after } => {
                let [before, after, most] = [*before, *after, limit.most].map(|n| amount(&limit.bucket, n));
                write!(f, "the budget {budget} goes {limit} from {before} to {after} of {most}")
            }
            Self::OverBudget { budget, limit, before, after } => {
                let after =
                    after.map_or_else(|| "too much to count".to_owned(), |n| amount(&limit.bucket, n));
                let [before, most] = [*before, limit.most].map(|n| amount(&limit.bucket, n));
                write!(f, "the budget {budget} would go {limit} from {before} to {after}, above {most}")
            }
            Self::LimitFollows { budget, limit, basis } => {
                let most = amount(&limit.bucket, limit.most);
                write!(f, "the limit of the budget {budget} {limit} is {most} by ")?;
                basis.print(&limit.bucket, f)
            }
            Self::LimitUnknown { budget, limit } => {
                write!(f, "what the budget {budget} may spend {limit} follows what cannot be counted")
            }
            Self::WithinCount { budget, span, most, before } => {
                write!(f, "the budget {budget} has made {before} of {most} payments in {span}")
            }
            Self::OverCount { budget, span, most, before } => {
                write!(f, "the budget {budget} has made {before} payments in {span}, and may make {most}")
            }
            Self::UsualPrice { usual, asked } => write!(f, "it costs {asked} atoms, and cost {usual} before"),
            Self::PriceJump { usual, asked, times } => {
                write!(f, "it costs {asked} atoms, {times} times what it cost before ({usual}) or more")
            }
            Self::UsualVelocity { minute, usual } => {
                write!(f, "{minute} payments in the last minute, where {usual} are usual")
            }
            Self::VelocityJump { minute, usual, times } => {
                write!(f, "{minute} payments in the last minute, {times} times the usual {usual} or more")
            }
            Self::ExpressionFailed { rule, why } => {
                write!(f, "the expression of {rule} has no value here: {why}")
            }
            Self::Unscreened => f.write_str("the screener is not asked about what is denied anyway"),
            Self::ScreenedOther => f.write_str("the screener's answer is not about this payment"),
            Self::ScreenAllowed { by, reason } => said(f, "allows it", by, reason.as_deref()),
            Self::ScreenDenied { by, reason } => said(f, "denies it", by, reason.as_deref()),
            Self::ScreenHeld { by, reason } => said(f, "wants people to look at it", by, reason.as_deref()),
            Self::ScreenFailed { by, fault } => write!(f, "the screener ({by}): {fault}"),
            Self::NamedFirst { what, by, .. } => write!(f, "{what} was first named in what {by} wrote"),
            Self::Approved { rule, by, .. } => write!(f, "what {rule} asks for is approved ({by})"),
            Self::ApprovalRequired { rule, quorum, pending } => {
                let people = if *quorum == 1 { "a person".to_owned() } else { format!("{quorum} people") };
                write!(f, "{rule} asks for the approval of {people}")?;
                pending.as_ref().map_or(Ok(()), |id| write!(f, ", who are asked by {id}"))
            }
        }
    }
}
