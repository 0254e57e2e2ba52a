//! From a policy to formulas: what [`Policy::decide`] says of a payment, condition by condition and in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farthing_primitives::{AssetId, Registry};

use super::Untold;
use super::scale::Scale;
use super::term::{Cond, Key, all, any, at_least, at_most, flag, implies, not, one_of, same};
use crate::policy::{
    Allow, Calendar, Follow, Followed, Hours, Limit, MAX_QUORUM, Matcher, PayTo, Per, Policy, Screener, Span,
    Weekday,
};
use crate::{AgentName, Asks, Bucket, DOLLAR_DECIMALS, HostPattern, MAX_MOMENTS, Origin, Taint};

/// Amounts are read best as millionths of a dollar.
const MICRO: u128 = 1_000_000_000_000;
/// The most formulas that one policy may become.
const MAX_CLAUSES: usize = 50_000;
/// The most relations between sums that are looked for.
const MAX_PAIRS: usize = 250_000;

/// Names of attributes that every payment has.
pub(super) mod name {
    pub const AGENT: &str = "agent";
    pub const ASSET: &str = "asset";
    pub const DOLLAR: &str = "dollar";
    pub const USD: &str = "usd";
    pub const HOST: &str = "host";
    pub const PORT: &str = "port";
    pub const LOCAL: &str = "local";
    pub const SAFE: &str = "safe";
    pub const PATH: &str = "path";
    pub const PLAIN: &str = "plain";
    pub const METHOD: &str = "method";
    pub const TOOL: &str = "tool";
    pub const HAS_TOOL: &str = "has_tool";
    pub const SCHEME: &str = "scheme";
    pub const PAYEE: &str = "payee";
    pub const PINNED: &str = "pinned";
    pub const PINNED_HERE: &str = "pinned_to_payee";
    pub const SECRET: &str = "secret";
    pub const VALIDITY: &str = "validity";
    pub const MINUTE: &str = "minute";
    pub const VOICES: &str = "voices";
    pub const GRANT: &str = "grant";
    pub const HOST_NAMED: &str = "host_named_first_by_others";
    pub const PAYEE_NAMED: &str = "payee_named_first_by_others";
}

const WEEK: i64 = 7 * 1440;

/// Whose payments a policy is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who<'a> {
    /// Whoever the payment says.
    Anybody,
    Agent(&'a AgentName),
}

impl<'a> Who<'a> {
    /// Marks what is known of one agent, and not of all.
    fn own(self, key: String) -> Key {
        match self {
            Self::Anybody => key,
            Self::Agent(agent) => format!("{key} [{agent}]"),
        }
    }

    pub const fn agent(self) -> Option<&'a AgentName> {
        match self {
            Self::Anybody => None,
            Self::Agent(agent) => Some(agent),
        }
    }
}

/// A policy, and whom it is asked about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    pub policy: &'a Policy,
    pub who: Who<'a>,
}

/// One of the rules that Cedar goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub name: String,
    pub permits: bool,
    pub when: Cond,
}

/// Something that is added up.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Meter {
    budget: AgentName,
    /// What is paid by whoever has no name counts in it.
    nobodys: bool,
    per: Per,
    span: Span,
    /// `None` if it counts payments.
    bucket: Option<Bucket>,
}

/// How something that is not looked into is known in Cedar, and what it is.
pub(super) type Opaque = BTreeMap<Key, String>;

/// What the sides of a comparison have in common: the names of things, and how amounts are counted.
#[derive(Debug)]
pub(super) struct Model<'a> {
    pub registry: &'a Registry,
    usd: Scale,
    assets: BTreeMap<AssetId, Scale>,
    named: BTreeMap<AssetId, BTreeSet<u128>>,
    meters: BTreeMap<Key, Meter>,
    refusals: BTreeMap<Duration, Key>,
    jumps: BTreeMap<&'static str, BTreeMap<u32, Key>>,
    rooms: BTreeMap<Key, BTreeMap<u32, Key>>,
    screens: BTreeSet<Key>,
    pub opaque: Opaque,
    /// The most that a number is compared with, by attribute.
    compared: BTreeMap<Key, i64>,
}

/// So many atoms of an asset that is a dollar, in units of 10^-18 dollars.
fn in_dollars(registry: &Registry, id: &AssetId, atoms: u128) -> Option<Option<u128>> {
    let asset = registry.get(id).filter(|_| registry.is_dollar(id))?;
    let each = 10u128.checked_pow(DOLLAR_DECIMALS.checked_sub(asset.decimals)?.into());
    Some(each.and_then(|each| atoms.checked_mul(each)))
}

/// Every amount that a policy names, so that numbers can be chosen that tell all of them apart.
fn amounts(policy: &Policy) -> impl Iterator<Item = (&Bucket, u128)> {
    let limits = policy.budgets.values().flat_map(|budget| &budget.limits);
    let limits = limits.flat_map(|limit| [(&limit.bucket, limit.most), (&limit.bucket, limit.floor())]);
    let rules = policy.allow.iter().map(|rule| &rule.most);
    let rules = rules.chain(policy.deny.iter().map(|rule| &rule.over));
    let rules = rules.chain(policy.approve.iter().map(|rule| &rule.over));
    limits.chain(rules.flatten().map(|(bucket, amount)| (bucket, *amount)))
}

impl<'a> Model<'a> {
    pub fn new<'p>(
        policies: impl IntoIterator<Item = &'p Policy>,
        registry: &'a Registry,
    ) -> Result<Self, Untold> {
        let (mut usd, mut named) = (BTreeSet::new(), BTreeMap::<AssetId, BTreeSet<u128>>::new());
        for policy in policies {
            for (bucket, amount) in amounts(policy) {
                match bucket {
                    Bucket::Dollar => {
                        usd.insert(amount);
                    }
                    Bucket::Asset(id) => {
                        match in_dollars(registry, id, amount) {
                            Some(dollars) => usd.extend(dollars),
                            // Rounded to dollars, its atoms are not told apart any more.
                            None if registry.is_dollar(id) => return Err(Untold::Decimals(id.clone())),
                            None => {}
                        }
                        named.entry(id.clone()).or_default().insert(amount);
                    }
                }
            }
        }
        Ok(Self {
            registry,
            usd: Scale::new(&usd, MICRO),
            assets: named.iter().map(|(id, named)| (id.clone(), Scale::new(named, 1))).collect(),
            named,
            meters: BTreeMap::new(),
            refusals: BTreeMap::new(),
            jumps: BTreeMap::new(),
            rooms: BTreeMap::new(),
            screens: BTreeSet::new(),
            opaque: Opaque::new(),
            compared: BTreeMap::new(),
        })
    }

    /// How amounts of a bucket are counted.
    pub fn scale(&self, bucket: &Bucket) -> &Scale {
        match bucket {
            Bucket::Dollar => &self.usd,
            Bucket::Asset(id) => self.assets.get(id).unwrap_or(&self.usd),
        }
    }

    fn compare(&mut self, key: &str, most: i64) -> Cond {
        let held = self.compared.entry(key.to_owned()).or_insert(most);
        *held = most.max(*held);
        at_most(key, most)
    }

    /// Whether the payment counts in a bucket.
    fn counts(bucket: &Bucket) -> Cond {
        match bucket {
            Bucket::Dollar => flag(name::DOLLAR),
            Bucket::Asset(id) => same(name::ASSET, id.to_string()),
        }
    }

    /// The attribute that has the payment's amount in a bucket.
    pub fn amount_key(&self, bucket: &Bucket) -> Key {
        match bucket {
            Bucket::Dollar => name::USD.to_owned(),
            Bucket::Asset(id) if self.registry.is_dollar(id) => name::USD.to_owned(),
            Bucket::Asset(id) => format!("atoms of {id}"),
        }
    }

    /// Whether the payment, which counts in the bucket, is at most this.
    fn amount_within(&mut self, bucket: &Bucket, most: u128) -> Cond {
        let key = self.amount_key(bucket);
        let most = match bucket {
            Bucket::Dollar => self.usd.number(Some(most)),
            Bucket::Asset(id) => match in_dollars(self.registry, id, most) {
                // What it is worth is always counted, so that this is more than all there is.
                Some(None) => return Cond::Is(true),
                Some(Some(dollars)) => self.usd.number(Some(dollars)),
                None => self.scale(bucket).number(Some(most)),
            },
        };
        self.compare(&key, most)
    }

    fn is_over(&mut self, over: &[(Bucket, u128)]) -> Cond {
        if over.is_empty() {
            return Cond::Is(true);
        }
        any(over
            .iter()
            .map(|(bucket, most)| all([Self::counts(bucket), not(self.amount_within(bucket, *most))])))
    }

    /// All that a policy does, as rules for Cedar.
    pub fn clauses(&mut self, side: Side<'_>) -> Result<Vec<Clause>, Untold> {
        let mut clauses = Vec::new();
        self.allowed(side, &mut clauses)?;
        let policy = side.policy;
        let mut forbid = |name: String, when: Cond| clauses.push(Clause { name, permits: false, when });
        for rule in &policy.deny {
            let fits = all([self.matcher(&rule.matcher, side, true), self.is_over(&rule.over)]);
            let (holds, fails) = self.when(&rule.matcher, side);
            forbid(format!("deny: {}", rule.name), all([fits, any([holds, fails])]));
        }
        for rule in &policy.approve {
            let newcomer = if rule.new_payee { not(flag(name::PINNED)) } else { Cond::Is(true) };
            let fits = all([self.matcher(&rule.matcher, side, true), self.is_over(&rule.over), newcomer]);
            let (holds, fails) = self.when(&rule.matcher, side);
            let asked = all([holds, not(at_least(name::VOICES, rule.quorum.into()))]);
            forbid(format!("approve: {}", rule.name), all([fits, any([asked, fails])]));
        }
        if !policy.secrets_in_url {
            forbid("secrets_in_url".to_owned(), flag(name::SECRET));
        }
        if let Some(breaker) = policy.breaker {
            let key = refusals_key(breaker.within);
            self.refusals.insert(breaker.within, key.clone());
            let within = self.compare(&key, i64::from(breaker.refusals) - 1);
            forbid("breaker: refusals".to_owned(), not(within));
        }
        if let Some(times) = policy.price_jump {
            forbid("breaker: price_jump".to_owned(), self.jump(PRICE_IS, times));
        }
        if let Some(times) = policy.velocity_jump {
            forbid("breaker: velocity_jump".to_owned(), self.jump(MINUTE_IS, times));
        }
        if let Some(when) = named_first(side) {
            forbid("taint".to_owned(), when);
        }
        if let Some(screener) = &policy.screen {
            let when = self.screened(screener);
            forbid(format!("screen: {}", screener.asks), not(when));
        }
        self.budgets(side, &mut clauses);
        if clauses.len() > MAX_CLAUSES {
            return Err(Untold::TooLarge);
        }
        Ok(clauses)
    }

    /// As [`Policy::allowed`]: the first rule that covers a payment says for how long it may be valid, and whether its payee
    /// is pinned; and an expression without a value that stands before it denies.
    fn allowed(&mut self, side: Side<'_>, clauses: &mut Vec<Clause>) -> Result<(), Untold> {
        struct Covering {
            covers: Cond,
            terms: (bool, Duration),
        }
        let mut before: Vec<Covering> = Vec::new();
        let mut parts = 0usize;
        for rule in &side.policy.allow {
            let fits = all([self.matcher(&rule.matcher, side, false), self.permits(rule)]);
            let (holds, fails) = self.when(&rule.matcher, side);
            let longest =
                rule.max_validity.map_or(side.policy.max_validity, |own| own.min(side.policy.max_validity));
            let terms = (rule.pay_to == PayTo::Pin, longest);
            if fails != Cond::Is(false) {
                let first = before.iter().map(|earlier| not(earlier.covers.clone()));
                let when = all([fits.clone(), fails.clone()].into_iter().chain(first));
                parts = parts.saturating_add(before.len());
                clauses.push(Clause {
                    name: format!("allow: {} (without a value)", rule.name),
                    permits: false,
                    when,
                });
            }
            let covers = all([fits, holds, not(fails)]);
            // One before it on the same terms allows what it covers, too.
            let others: Vec<Cond> = before
                .iter()
                .filter(|earlier| earlier.terms != terms)
                .map(|earlier| not(earlier.covers.clone()))
                .collect();
            parts = parts.saturating_add(others.len());
            if parts > MAX_CLAUSES {
                return Err(Untold::TooLarge);
            }
            let payee = if terms.0 {
                any([not(flag(name::PINNED)), flag(name::PINNED_HERE)])
            } else {
                Cond::Is(true)
            };
            let longest = self.compare(name::VALIDITY, i64::try_from(longest.as_secs()).unwrap_or(i64::MAX));
            let when = all([covers.clone(), payee, longest].into_iter().chain(others));
            clauses.push(Clause { name: format!("allow: {}", rule.name), permits: true, when });
            before.push(Covering { covers, terms });
        }
        Ok(())
    }

    fn permits(&mut self, rule: &Allow) -> Cond {
        let mut parts: Vec<Cond> = rule
            .most
            .iter()
            .map(|(bucket, most)| implies(Self::counts(bucket), self.amount_within(bucket, *most)))
            .collect();
        if let PayTo::Only(payees) = &rule.pay_to {
            parts.push(one_of(name::PAYEE, payees));
        }
        if !rule.private {
            parts.push(not(flag(name::LOCAL)));
        }
        if !rule.plaintext {
            parts.push(flag(name::SAFE));
        }
        all(parts)
    }

    /// All conditions of a rule but its expression. A rule that stops fits every path that can be read in two ways.
    fn matcher(&mut self, matcher: &Matcher, side: Side<'_>, stops: bool) -> Cond {
        let mut parts = Vec::new();
        if let Some(hosts) = &matcher.hosts {
            parts.push(any(hosts.iter().map(host)));
        }
        if let Some(agents) = &matcher.agents {
            parts.push(any(agents.iter().map(|one| match side.who {
                Who::Anybody => within(one),
                Who::Agent(agent) => Cond::Is(agent.is_within(one)),
            })));
        }
        if let Some(tools) = &matcher.tools {
            parts.push(all([flag(name::HAS_TOOL), one_of(name::TOOL, tools)]));
        }
        if let Some(methods) = &matcher.methods {
            parts.push(one_of(name::METHOD, methods));
        }
        if let Some(paths) = &matcher.paths {
            let fits = any(paths.iter().map(|pattern| path(pattern)));
            let twofold = if stops && !paths.is_empty() { not(flag(name::PLAIN)) } else { Cond::Is(false) };
            parts.push(any([twofold, fits]));
        }
        if let Some(networks) = &matcher.networks {
            // An asset by CAIP-19 begins with its network, which has no slash.
            let on = |network: &farthing_primitives::Network| {
                Cond::Begins(name::ASSET.to_owned(), format!("{network}/"))
            };
            parts.push(any(networks.iter().map(on)));
        }
        if let Some(assets) = &matcher.assets {
            parts.push(one_of(name::ASSET, assets));
        }
        if let Some(schemes) = &matcher.schemes {
            parts.push(one_of(name::SCHEME, schemes));
        }
        if let Some(payees) = &matcher.payees {
            parts.push(one_of(name::PAYEE, payees));
        }
        if let Some(hours) = &matcher.hours {
            parts.push(within_hours(hours));
        }
        all(parts)
    }

    /// Whether a rule's expression is true, and whether it has no value: its own text is its name, for it depends on the
    /// payment and the time alone.
    fn when(&mut self, matcher: &Matcher, side: Side<'_>) -> (Cond, Cond) {
        let Some(expression) = &matcher.when else { return (Cond::Is(true), Cond::Is(false)) };
        let source = expression.source();
        // The same text is something else of another agent, if it speaks of agents.
        let own = |key: String| if source.contains("agent") { side.who.own(key) } else { key };
        let holds = own(format!("when: {source}"));
        let fails = own(format!("when without a value: {source}"));
        self.opaque.insert(holds.clone(), format!("the expression {source}"));
        self.opaque.insert(fails.clone(), format!("whether the expression {source} has a value"));
        (all([flag(holds), not(flag(fails.clone()))]), flag(fails))
    }

    /// Something is so many times what is usual, or more.
    fn jump(&mut self, what: &'static str, times: u32) -> Cond {
        let key = format!("{what} {times} times the usual");
        self.jumps.entry(what).or_default().insert(times, key.clone());
        flag(key)
    }

    /// 0 is no answer and a no, 1 wants people, 2 is a yes.
    fn screened(&mut self, screener: &Screener) -> Cond {
        let key = screen_key(screener);
        self.screens.insert(key.clone());
        self.opaque.insert(key.clone(), format!("what the screener ({}) says", screener.asks));
        let people = all([not(flag(name::GRANT)), at_least(name::VOICES, screener.quorum.into())]);
        any([at_least(key.clone(), 2), all([at_least(key, 1), people])])
    }

    fn budgets(&mut self, side: Side<'_>, clauses: &mut Vec<Clause>) {
        let policy = side.policy;
        let mut limited = Vec::new();
        for (name, budget) in &policy.budgets {
            let pays = spends(side, name);
            if pays == Cond::Is(false) {
                continue;
            }
            let buckets: BTreeSet<&Bucket> = budget.limits.iter().map(|limit| &limit.bucket).collect();
            limited.push(all([pays.clone(), any(buckets.into_iter().map(Self::counts))]));
            for limit in &budget.limits {
                let within = self.limit(policy, name, limit);
                let when = all([pays.clone(), Self::counts(&limit.bucket), not(within)]);
                let name = format!("budget {name}: {limit} ({})", limit.bucket);
                clauses.push(Clause { name, permits: false, when });
            }
            for count in &budget.counts {
                let key = self.meter(policy, name, Per::All, count.span, None);
                let within = self.compare(&key, count.most.into());
                let when = all([pays.clone(), not(within)]);
                let name = format!("budget {name}: payments in {}", count.span);
                clauses.push(Clause { name, permits: false, when });
            }
        }
        clauses.push(Clause {
            name: "some budget counts it".to_owned(),
            permits: false,
            when: not(any(limited)),
        });
    }

    /// The attribute with what a sum would be after the payment.
    fn meter(
        &mut self,
        policy: &Policy,
        budget: &AgentName,
        per: Per,
        span: Span,
        bucket: Option<&Bucket>,
    ) -> Key {
        let nobodys = policy.counts_in(None, budget);
        let key = meter_key(policy, budget, per, span, bucket);
        let meter = Meter { budget: budget.clone(), nobodys, per, span, bucket: bucket.cloned() };
        self.meters.insert(key.clone(), meter);
        key
    }

    fn limit(&mut self, policy: &Policy, budget: &AgentName, limit: &Limit) -> Cond {
        let (bucket, key) = (&limit.bucket, limit_key(policy, budget, limit));
        if limit.span != Span::Payment {
            self.meter(policy, budget, limit.per, limit.span, Some(bucket));
        }
        let mut within = |most: u128| {
            if limit.span == Span::Payment {
                return self.amount_within(bucket, most);
            }
            let most = self.scale(bucket).number(Some(most));
            self.compare(&key, most)
        };
        let ceiling = within(limit.most);
        let Some(follow) = &limit.follows else { return ceiling };
        let floor = within(follow.floor);
        // What a limit is made from: it is the floor or this part of it, whichever is more, and never above the ceiling.
        let (room, unknown) = room_keys(policy, budget, limit, follow);
        self.rooms.entry(unknown.clone()).or_default().insert(follow.percent, room.clone());
        self.opaque.insert(room.clone(), format!("what the limit of {budget} {limit} is at the time"));
        self.opaque.insert(unknown.clone(), format!("whether the limit of {budget} {limit} can be told"));
        all([ceiling, any([floor, flag(room)]), not(flag(unknown))])
    }

    /// What is true of every payment and every past. `exact`: also what is true of sums as long as none has so many moments
    /// that they are put together ([`MAX_MOMENTS`]).
    pub fn premises(&self, sides: &[Side<'_>], exact: bool) -> Result<Vec<(&'static str, Cond)>, Untold> {
        let mut found = Vec::new();
        let dollars: Vec<_> =
            self.registry.iter().filter(|asset| self.registry.is_dollar(&asset.id)).collect();
        let others = self.registry.iter().filter(|asset| !self.registry.is_dollar(&asset.id));
        let known = any([
            all([flag(name::DOLLAR), one_of(name::ASSET, dollars.iter().map(|asset| &asset.id))]),
            all([not(flag(name::DOLLAR)), one_of(name::ASSET, others.map(|asset| &asset.id))]),
        ]);
        found.push(("the asset is one that we know", known));
        found.push(("something is paid", at_least(name::USD, 1)));
        for id in self.assets.keys().filter(|id| !self.registry.is_dollar(id)) {
            found.push(("something is paid", at_least(self.amount_key(&Bucket::Asset(id.clone())), 1)));
        }
        found.push(("it is valid for a while", at_least(name::VALIDITY, 1)));
        found.push(("a port", all([at_least(name::PORT, 0), at_most(name::PORT, u16::MAX.into())])));
        found.push(("a minute of a week", all([at_least(name::MINUTE, 0), at_most(name::MINUTE, WEEK - 1)])));
        found.push(("voices are counted", at_least(name::VOICES, 0)));
        found.push(("no host begins with a dot", not(Cond::Begins(name::HOST.to_owned(), ".".to_owned()))));
        found.push(("who is pinned is pinned", implies(flag(name::PINNED_HERE), flag(name::PINNED))));
        self.local_hosts(sides, &mut found);
        for key in &self.screens {
            found.push(("an answer", all([at_least(key.clone(), 0), at_most(key.clone(), 2)])));
        }
        // The longer the time, the more refusals are in it.
        let refusals: Vec<_> = self.refusals.values().collect();
        for pair in refusals.windows(2) {
            if let [shorter, longer] = pair {
                found.push(("refusals", Cond::NotMore((*shorter).clone(), (*longer).clone())));
            }
        }
        for by_times in self.jumps.values() {
            let keys: Vec<_> = by_times.values().collect();
            for pair in keys.windows(2) {
                if let [fewer, more] = pair {
                    found.push(("a jump by more is one by less", implies(flag(*more), flag(*fewer))));
                }
            }
        }
        for by_percent in self.rooms.values() {
            let keys: Vec<_> = by_percent.values().collect();
            for pair in keys.windows(2) {
                if let [less, more] = pair {
                    found.push(("more percent are more", implies(flag(*less), flag(*more))));
                }
            }
        }
        self.sums(exact, &mut found)?;
        Ok(found)
    }

    /// What a host's name itself says, of those that rules name.
    fn local_hosts(&self, sides: &[Side<'_>], found: &mut Vec<(&'static str, Cond)>) {
        // Spec: RFC 6761 section 6.3: `localhost` and names below it are loopback.
        let own =
            any([same(name::HOST, "localhost"), Cond::Ends(name::HOST.to_owned(), ".localhost".to_owned())]);
        found.push(("localhost is local", implies(own, all([flag(name::LOCAL), flag(name::SAFE)]))));
        let mut seen = BTreeSet::new();
        for host in sides.iter().flat_map(|side| patterns(side.policy)) {
            if let HostPattern::Exact(host, _) = host
                && host.ip().is_some()
                && seen.insert(host)
            {
                let here = || same(name::HOST, host.as_str());
                if host.is_local() {
                    found.push(("an address of this network is local", implies(here(), flag(name::LOCAL))));
                }
                if (Origin { host: host.clone(), port: 0, tls: false }).is_loopback() {
                    found.push(("loopback needs no TLS", implies(here(), flag(name::SAFE))));
                }
            }
        }
    }

    fn sums(&self, exact: bool, found: &mut Vec<(&'static str, Cond)>) -> Result<(), Untold> {
        for (key, meter) in &self.meters {
            match &meter.bucket {
                None => found.push(("a payment counts", at_least(key.clone(), 1))),
                // Amounts in dollars and atoms of the same are told apart at what is named only.
                Some(bucket @ Bucket::Asset(id)) if self.registry.is_dollar(id) => {
                    for atoms in self.named.get(id).into_iter().flatten() {
                        if let Some(Some(dollars)) = in_dollars(self.registry, id, *atoms) {
                            let sum = at_most(key.clone(), self.scale(bucket).number(Some(*atoms)));
                            let own = at_most(name::USD, self.usd.number(Some(dollars)));
                            let counts = Self::counts(bucket);
                            found.push(("a sum has the payment in it", implies(all([counts, sum]), own)));
                        }
                    }
                }
                Some(bucket) => {
                    let own = Cond::NotMore(self.amount_key(bucket), key.clone());
                    found.push(("a sum has the payment in it", implies(Self::counts(bucket), own)));
                }
            }
        }
        if self.meters.len().saturating_mul(self.meters.len()) > MAX_PAIRS {
            // Without these less is known, and no more is proved.
            return if exact { Err(Untold::TooLarge) } else { Ok(()) };
        }
        for (key, part) in &self.meters {
            for (other, whole) in &self.meters {
                if key == other || !part.is_part_of(whole, exact) {
                    continue;
                }
                match (&part.bucket, &whole.bucket) {
                    (one, same) if one == same => {
                        found.push(("a part of a sum", Cond::NotMore(key.clone(), other.clone())));
                    }
                    // What was a dollar when it was paid is one now, as far as anybody knows.
                    (Some(bucket @ Bucket::Asset(id)), Some(Bucket::Dollar)) if exact => {
                        for atoms in self.named.get(id).into_iter().flatten() {
                            if let Some(Some(dollars)) = in_dollars(self.registry, id, *atoms) {
                                let whole = at_most(other.clone(), self.usd.number(Some(dollars)));
                                let part = at_most(key.clone(), self.scale(bucket).number(Some(*atoms)));
                                let counts = Self::counts(bucket);
                                found.push(("a part of a sum", implies(all([counts, whole]), part)));
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// What a counterexample rather is, so that a person sees what matters: no more than it takes, and nothing that is not
    /// looked into.
    pub fn ordinary(&self) -> Vec<(&'static str, Cond)> {
        let numbers = self.compared.iter().filter(|(_, most)| **most < i64::MAX - 1);
        let mut found: Vec<_> =
            numbers.map(|(key, most)| ("ordinary", at_most(key.clone(), most.saturating_add(1)))).collect();
        let flags =
            self.opaque.keys().filter(|key| !self.screens.contains(*key)).map(|key| not(flag(key.clone())));
        let flags = flags.chain([
            flag(name::SAFE),
            flag(name::PLAIN),
            not(flag(name::LOCAL)),
            not(flag(name::SECRET)),
        ]);
        found.extend(flags.map(|cond| ("ordinary", cond)));
        found.push(("ordinary", at_least(name::PORT, 1)));
        found.push(("ordinary", at_most(name::VOICES, MAX_QUORUM.into())));
        found
    }
}

impl Meter {
    /// Whether all that counts in this counts in `whole`.
    fn is_part_of(&self, whole: &Self, exact: bool) -> bool {
        let bucket = match (&self.bucket, &whole.bucket) {
            (Some(_), Some(Bucket::Dollar)) => true,
            (one, other) => one == other,
        };
        bucket
            && self.budget.is_within(&whole.budget)
            && (whole.nobodys || !self.nobodys)
            && (whole.per == self.per || whole.per == Per::All)
            && is_part(self.span, whole.span, exact)
    }
}

/// Whether one time lies in another, whenever it is now. A sum over a time that rolls may count up to a part in
/// [`MAX_MOMENTS`] of it longer; one over a part of the calendar, or all time, counts exactly.
fn is_part(part: Span, whole: Span, exact: bool) -> bool {
    let calendar = |part: Calendar| match part {
        Calendar::Hour => 3600,
        Calendar::Day => 86_400,
        Calendar::Week => 7 * 86_400,
        Calendar::Month => 31 * 86_400,
    };
    match (part, whole) {
        (Span::Payment, _) | (_, Span::Payment) => false,
        (_, Span::Lifetime) => true,
        (Span::Lifetime, _) => false,
        (Span::Rolling(a), Span::Rolling(b)) if exact => a <= b,
        (Span::Rolling(a), Span::Rolling(b)) => {
            let longer = a.as_secs().div_ceil(MAX_MOMENTS as u64).checked_add(1).map(Duration::from_secs);
            longer.and_then(|longer| a.checked_add(longer)).is_some_and(|a| a <= b)
        }
        (Span::Calendar(part), Span::Rolling(b)) => Duration::from_secs(calendar(part)) <= b,
        (Span::Calendar(a), Span::Calendar(b)) => {
            a == b
                || matches!((a, b), (Calendar::Hour, _) | (Calendar::Day, Calendar::Week | Calendar::Month))
        }
        (Span::Rolling(_), Span::Calendar(_)) => false,
    }
}

/// Minutes of a week by UTC.
pub(super) fn within_hours(hours: &Hours) -> Cond {
    let days = Weekday::ALL.iter().zip(0i64..).filter(|(day, _)| hours.days.contains(day));
    let spans = days.flat_map(|(_, day)| {
        let midnight = day * 1440 - i64::from(hours.offset);
        let (from, to) = (midnight + i64::from(hours.from), midnight + i64::from(hours.to));
        // What lies before or after this week lies at its other end.
        [-WEEK, 0, WEEK].map(|turn| (from + turn, to + turn))
    });
    let spans: Vec<_> = spans.filter(|(from, to)| *from < WEEK && *to > 0).collect();
    any(spans.into_iter().map(|(from, to)| {
        let begun = if from <= 0 { Cond::Is(true) } else { at_least(name::MINUTE, from) };
        let open = if to >= WEEK { Cond::Is(true) } else { at_most(name::MINUTE, to - 1) };
        all([begun, open])
    }))
}

/// Every host that a rule names.
pub(super) fn patterns(policy: &Policy) -> impl Iterator<Item = &HostPattern> {
    let allow = policy.allow.iter().map(|rule| &rule.matcher);
    let deny = policy.deny.iter().map(|rule| &rule.matcher);
    let approve = policy.approve.iter().map(|rule| &rule.matcher);
    allow.chain(deny).chain(approve).filter_map(|matcher| matcher.hosts.as_ref()).flatten()
}

fn within(agent: &AgentName) -> Cond {
    any([same(name::AGENT, agent.as_str()), Cond::Begins(name::AGENT.to_owned(), format!("{agent}/"))])
}

/// Whether what is paid counts in a budget. As [`Policy::chain`].
fn spends(side: Side<'_>, budget: &AgentName) -> Cond {
    match side.who {
        Who::Agent(agent) => Cond::Is(agent.is_within(budget)),
        Who::Anybody => {
            let chain = side.policy.chain(None).unwrap_or_default();
            let nobodys = chain.iter().any(|(name, _)| *name == budget);
            // Whoever has no name has an empty one.
            let nobody = if nobodys { same(name::AGENT, "") } else { Cond::Is(false) };
            any([within(budget), nobody])
        }
    }
}

fn host(pattern: &HostPattern) -> Cond {
    match pattern {
        HostPattern::Any => Cond::Is(true),
        // An address ends in a number or a bracket, and no name that can be below another does.
        HostPattern::Below(host) => Cond::Ends(name::HOST.to_owned(), format!(".{host}")),
        HostPattern::Exact(host, None) => same(name::HOST, host.as_str()),
        HostPattern::Exact(host, Some(port)) => {
            let port = i64::from(*port);
            all([same(name::HOST, host.as_str()), at_least(name::PORT, port), at_most(name::PORT, port)])
        }
    }
}

fn path(pattern: &str) -> Cond {
    if pattern == "/*" {
        return Cond::Is(true);
    }
    let fits = match pattern.strip_suffix("/*") {
        Some(above) => Cond::Begins(name::PATH.to_owned(), format!("{above}/")),
        None => same(name::PATH, pattern),
    };
    all([flag(name::PLAIN), fits])
}

/// As [`Policy::named_first`]: denied, or left to people.
fn named_first(side: Side<'_>) -> Option<Cond> {
    let policy = side.policy;
    if policy.taint == Taint::Off {
        return None;
    }
    let rules = || policy.allow.iter();
    let hosts = rules().filter_map(|rule| rule.matcher.hosts.as_ref()).flatten();
    let known = any(hosts.filter(|one| matches!(one, HostPattern::Exact(..))).map(host));
    let payees = rules().flat_map(|rule| {
        let only = match &rule.pay_to {
            PayTo::Only(payees) => payees.as_slice(),
            PayTo::Pin => &[],
        };
        only.iter().chain(rule.matcher.payees.iter().flatten())
    });
    let news = any([
        all([flag(name::HOST_NAMED), not(known)]),
        all([flag(name::PAYEE_NAMED), not(one_of(name::PAYEE, payees))]),
    ]);
    let lifted = match policy.taint {
        Taint::Ask => at_least(name::VOICES, 1),
        Taint::Deny | Taint::Off => Cond::Is(false),
    };
    Some(all([news, not(lifted)]))
}

/// How long it has is part of whether it answers. Words with a space in them are other words than those two.
pub(super) fn screen_key(screener: &Screener) -> Key {
    let within = screener.within.as_secs();
    match &screener.asks {
        Asks::Command(words) => {
            let words: Vec<String> = words.iter().map(|word| format!("{}:{word}", word.len())).collect();
            format!("screen within {within} s: command {}", words.join(" "))
        }
        Asks::Url(url) => format!("screen within {within} s: {url}"),
    }
}

/// The most times the usual that something is.
pub(super) fn jumped(context: &super::Context, what: &str) -> Option<u32> {
    let start = format!("{what} ");
    let jumps = context.iter().filter_map(|(key, value)| {
        let times = key.strip_prefix(&start)?.strip_suffix(" times the usual")?.parse().ok()?;
        (*value == super::Value::Flag(true)).then_some(times)
    });
    jumps.max()
}

pub(super) const PRICE_IS: &str = "the price is";
pub(super) const MINUTE_IS: &str = "payments a minute are";

pub(super) fn refusals_key(within: Duration) -> Key {
    format!("refusals in {} s", within.as_secs())
}

pub(super) fn meter_key(
    policy: &Policy,
    budget: &AgentName,
    per: Per,
    span: Span,
    bucket: Option<&Bucket>,
) -> Key {
    // Two policies may mean different owners: then what has no name counts in one and not in the other.
    let nobodys = if policy.counts_in(None, budget) { " and whoever has no name" } else { "" };
    let per = match per {
        Per::All => String::new(),
        one => format!(" of one {}", one.name()),
    };
    match bucket {
        Some(bucket) => format!("spent{per} by {budget}{nobodys} in {span} ({bucket})"),
        None => format!("payments by {budget}{nobodys} in {span}"),
    }
}

pub(super) fn limit_key(policy: &Policy, budget: &AgentName, limit: &Limit) -> Key {
    meter_key(policy, budget, limit.per, limit.span, Some(&limit.bucket))
}

/// Whether what a limit follows leaves room, and whether it cannot be told. The first is by percent, the second is not:
/// `Policy::in_force` fails for all of them alike.
pub(super) fn room_keys(policy: &Policy, budget: &AgentName, limit: &Limit, follow: &Follow) -> (Key, Key) {
    let what = match &follow.what {
        Followed::Price { per, last, after } => {
            format!("prices of one {} in {} s until {} s ago", per.name(), last.as_secs(), after.as_secs())
        }
        Followed::Spend { last } => format!("spending in {} s", last.as_secs()),
        Followed::Index(index) => match policy.indexes.get(index) {
            Some(known) => {
                let (least, most, stale) = (known.least, known.most, known.stale_after.as_secs());
                format!("the index {index} ({}, {least} to {most}, for {stale} s)", known.bucket)
            }
            None => format!("the index {index}"),
        },
    };
    let of = format!("{} follows {what}", limit_key(policy, budget, limit));
    (format!("{of}: {} percent leave room", follow.percent), format!("{of}: not told"))
}
