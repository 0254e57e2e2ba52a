use std::collections::BTreeSet;
use std::time::Duration;

use farthing_primitives::{Address, AssetId, Network, Timestamp};

use super::{Expression, Unfit};
use crate::{AgentName, Bucket, HostPattern, Request};

/// Which payments a rule is about. Each list that is given has to have something that fits; one that isn't, fits all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matcher {
    pub agents: Option<Vec<AgentName>>,
    pub hosts: Option<Vec<HostPattern>>,
    pub paths: Option<Vec<String>>,
    pub methods: Option<BTreeSet<String>>,
    pub tools: Option<BTreeSet<String>>,
    pub networks: Option<BTreeSet<Network>>,
    pub assets: Option<BTreeSet<AssetId>>,
    pub schemes: Option<BTreeSet<String>>,
    pub payees: Option<Vec<Address>>,
    pub hours: Option<Hours>,
    /// What has to be true besides; [`Matcher::holds`] says whether it is.
    pub when: Option<Expression>,
}

/// Some hours of some days, by a clock that is so far from UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    pub days: BTreeSet<Weekday>,
    /// Minutes since midnight; `from` is in, `to` is not.
    pub from: u16,
    pub to: u16,
    /// Minutes that are added to UTC.
    pub offset: i16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

impl Weekday {
    pub const ALL: [Self; 7] = [Self::Mon, Self::Tue, Self::Wed, Self::Thu, Self::Fri, Self::Sat, Self::Sun];

    /// The day that it is in UTC.
    pub fn of(now: Timestamp) -> Self {
        // The first day of 1970 was a Thursday.
        match (now.millis() / 86_400_000 + 3) % 7 {
            0 => Self::Mon,
            1 => Self::Tue,
            2 => Self::Wed,
            3 => Self::Thu,
            4 => Self::Fri,
            5 => Self::Sat,
            _ => Self::Sun,
        }
    }

    /// As a file names it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }
}

/// Which payees a rule allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayTo {
    /// Whoever the host asked to pay first, and nobody else later.
    Pin,
    Only(Vec<Address>),
}

/// A rule that allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    pub name: String,
    pub matcher: Matcher,
    pub pay_to: PayTo,
    /// The most that one payment may be, by bucket. Empty is no limit of its own: budgets have theirs.
    pub most: Vec<(Bucket, u128)>,
    pub max_validity: Option<Duration>,
    /// It may be an address of this machine or its network.
    pub private: bool,
    /// It may be paid without TLS. Loopback always may.
    pub plaintext: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deny {
    pub name: String,
    pub matcher: Matcher,
    /// From more than this on; empty is any amount.
    pub over: Vec<(Bucket, u128)>,
}

/// A rule that lets a payment wait for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approve {
    pub name: String,
    pub matcher: Matcher,
    pub over: Vec<(Bucket, u128)>,
    /// Only where this host was never paid on this network.
    pub new_payee: bool,
    /// How many people have to say yes.
    pub quorum: u32,
}

impl Matcher {
    /// Whether `request` is one that a rule stops, or may be to whoever serves it: a path that can be read in two ways
    /// fits every rule about some paths.
    pub fn stops(&self, request: &Request, now: Timestamp) -> bool {
        if is_plain(&request.caller.path) || self.paths.as_ref().is_none_or(Vec::is_empty) {
            return self.objection(request, now).is_none();
        }
        let anywhere = Self { paths: None, ..self.clone() };
        anywhere.objection(request, now).is_none()
    }

    /// Whether its expression is true; one that there isn't, is.
    ///
    /// # Errors
    /// [`Unfit`] if it has no value, which denies, whatever kind of rule it is.
    pub fn holds(&self, request: &Request, now: Timestamp) -> Result<bool, Unfit> {
        self.when.as_ref().map_or(Ok(true), |when| when.holds(request, now))
    }

    /// Whether its expression depends on how much is paid.
    pub fn names_amount(&self) -> bool {
        self.when.as_ref().is_some_and(Expression::names_amount)
    }

    /// Whether its expression could be true of a payment like `request` of another amount.
    pub fn may_hold(&self, request: &Request, now: Timestamp) -> bool {
        self.when.as_ref().is_none_or(|when| when.names_amount() || when.holds(request, now) != Ok(false))
    }

    /// The first condition that `request` does not meet, by its key in the file; all but its expression.
    pub fn objection(&self, request: &Request, now: Timestamp) -> Option<&'static str> {
        let asset = request.charge.money().asset();
        let caller = &request.caller;
        // The cheapest and most telling ones first.
        if self.hosts.as_ref().is_some_and(|all| !all.iter().any(|one| one.matches(&request.origin))) {
            return Some("hosts");
        }
        if self.agents.as_ref().is_some_and(|all| {
            caller.agent.as_ref().is_none_or(|agent| !all.iter().any(|one| agent.is_within(one)))
        }) {
            return Some("agents");
        }
        if self.tools.as_ref().is_some_and(|all| caller.tool.as_ref().is_none_or(|tool| !all.contains(tool)))
        {
            return Some("tools");
        }
        if self.methods.as_ref().is_some_and(|all| !all.contains(&caller.method)) {
            return Some("methods");
        }
        if self.paths.as_ref().is_some_and(|all| !all.iter().any(|one| path_matches(one, &caller.path))) {
            return Some("paths");
        }
        if self.networks.as_ref().is_some_and(|all| !all.contains(asset.network())) {
            return Some("networks");
        }
        if self.assets.as_ref().is_some_and(|all| !all.contains(asset)) {
            return Some("assets");
        }
        if self.schemes.as_ref().is_some_and(|all| !all.contains(&request.scheme)) {
            return Some("schemes");
        }
        if self.payees.as_ref().is_some_and(|all| !all.contains(&request.payee)) {
            return Some("payees");
        }
        if self.hours.as_ref().is_some_and(|hours| !hours.contain(now)) {
            return Some("hours");
        }
        None
    }
}

/// A path, or everything below one that ends in `/*`. A path with dots that climb, doubled slashes or escaped letters
/// matches only a rule for all paths: who serves it may read it as another.
fn path_matches(pattern: &str, path: &str) -> bool {
    if pattern == "/*" {
        return true;
    }
    is_plain(path)
        && match pattern.strip_suffix("/*") {
            Some(above) => path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')),
            None => path == pattern,
        }
}

/// Whether a path can be read in one way only.
pub(crate) fn is_plain(path: &str) -> bool {
    !path.contains(['%', '\\', ';'])
        && !path.contains("//")
        && !path.split('/').any(|part| part == ".." || part == ".")
}

impl Hours {
    pub fn contain(&self, now: Timestamp) -> bool {
        let minutes = now.millis() / 60_000;
        let Some(local) = minutes.checked_add_signed(self.offset.into()) else { return false };
        // The first day of 1970 was a Thursday.
        let weekday = usize::try_from((local / 1440 + 3) % 7).ok().and_then(|i| Weekday::ALL.get(i));
        let minute = local % 1440;
        weekday.is_some_and(|day| self.days.contains(day))
            && (u64::from(self.from)..u64::from(self.to)).contains(&minute)
    }
}

/// Whether a payment is more than one of these; of none is any.
pub(super) fn is_over(over: &[(Bucket, u128)], request: &Request) -> bool {
    over.is_empty()
        || over
            .iter()
            .any(|(bucket, most)| request.charge.amount_in(bucket).is_some_and(|asked| asked > *most))
}
