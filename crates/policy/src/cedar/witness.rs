//! A counterexample as a payment, so that the policies themselves can be asked about it.

use std::collections::BTreeSet;
use std::time::Duration;

use farthing_primitives::{Address, AssetId, Money, Timestamp};

use super::model::{
    MINUTE_IS, Model, PRICE_IS, Side, Who, jumped, limit_key, meter_key, name, patterns, refusals_key,
    room_keys, screen_key,
};
use super::{Context, Value};
use crate::meter::{OWN_DAY, OWN_MINUTE};
use crate::policy::{
    Followed, IndexValue, Matcher, PayTo, Per, Policy, Question, Screened, Screening, is_plain,
};
use crate::{
    AgentName, Approval, Bucket, Caller, Charge, Decision, History, Host, HostPattern, Mention, Named,
    Origin, Request, Sums,
};

/// The first Monday of 2024, at midnight by UTC.
const MONDAY: u64 = 1_704_067_200;

/// A payment that shows that one policy allows what another does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refutation {
    pub request: Request,
    pub now: Timestamp,
    /// How many people said yes to it.
    pub voices: u32,
    /// Who may not make it where `request` may be made by another agent.
    pub instead: Option<AgentName>,
    pub allowed: Decision,
    pub denied: Decision,
}

/// Why a counterexample is none that we can show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unconfirmed {
    #[error("no payment is like it: {0}")]
    NoPayment(&'static str),
    #[error("asked about such a payment, the first does not allow it ({0})")]
    NotAllowed(String),
    #[error("asked about such a payment, the second allows it, too")]
    AllowedByBoth,
}

pub(super) fn confirm(
    model: &Model<'_>,
    narrow: Side<'_>,
    wide: Side<'_>,
    context: &Context,
) -> Result<Refutation, Unconfirmed> {
    let seen = Seen { model, context, policies: [narrow.policy, wide.policy] };
    let request = seen.request()?;
    let now = seen.now();
    let [first, second] = [narrow, wide].map(|side| {
        let mut request = request.clone();
        if let Some(agent) = side.who.agent() {
            request.caller.agent = Some(agent.clone());
        }
        request.screened = seen.screened(side.policy, &request);
        let history = seen.history(side.policy, &request, now);
        let decision = side.policy.decide(false, &history, &request, now);
        (request, decision)
    });
    let (request, allowed) = first;
    if !allowed.is_allowed() {
        return Err(Unconfirmed::NotAllowed(allowed.to_string()));
    }
    let (_, denied) = second;
    if denied.is_allowed() {
        return Err(Unconfirmed::AllowedByBoth);
    }
    let instead = match wide.who {
        Who::Anybody => None,
        Who::Agent(agent) => Some(agent.clone()),
    };
    Ok(Refutation { request, now, voices: seen.voices(), instead, allowed, denied })
}

struct Seen<'a> {
    model: &'a Model<'a>,
    context: &'a Context,
    policies: [&'a Policy; 2],
}

impl Seen<'_> {
    fn flag(&self, key: &str) -> bool {
        self.context.get(key) == Some(&Value::Flag(true))
    }

    fn number(&self, key: &str) -> Option<i64> {
        match self.context.get(key)? {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    fn text(&self, key: &str) -> &str {
        match self.context.get(key) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    fn voices(&self) -> u32 {
        u32::try_from(self.number(name::VOICES).unwrap_or(0).max(0)).unwrap_or(u32::MAX)
    }

    fn now(&self) -> Timestamp {
        let minute = u64::try_from(self.number(name::MINUTE).unwrap_or(0)).unwrap_or(0);
        Timestamp::from_secs(MONDAY.saturating_add(minute.saturating_mul(60)))
    }

    fn matchers(&self) -> impl Iterator<Item = &Matcher> {
        self.policies.iter().flat_map(|policy| {
            let allow = policy.allow.iter().map(|rule| &rule.matcher);
            let deny = policy.deny.iter().map(|rule| &rule.matcher);
            allow.chain(deny).chain(policy.approve.iter().map(|rule| &rule.matcher))
        })
    }

    /// The solver's text if a rule names it; otherwise one that none names, as it is rather written.
    fn one_of<'t>(&self, key: &str, named: impl Iterator<Item = &'t str>, others: &[&str]) -> String {
        let named: BTreeSet<&str> = named.collect();
        let text = self.text(key);
        let other = others.iter().copied().find(|other| !named.contains(other));
        if named.contains(text) { text.to_owned() } else { other.unwrap_or(text).to_owned() }
    }

    fn request(&self) -> Result<Request, Unconfirmed> {
        let charge = self.charge()?;
        let origin = self.origin()?;
        let path = self.path();
        let url = format!("{origin}{path}{}", if self.flag(name::SECRET) { "?api_key=secret" } else { "" });
        let named = self.matchers().filter_map(|matcher| matcher.methods.as_ref()).flatten();
        let method =
            self.one_of(name::METHOD, named.map(String::as_str), &["GET", "POST", "PUT", "PATCH", "LOCK"]);
        let named = self.matchers().filter_map(|matcher| matcher.tools.as_ref()).flatten();
        let tool = self.one_of(name::TOOL, named.map(String::as_str), &["other", "another", "third"]);
        let named = self.matchers().filter_map(|matcher| matcher.schemes.as_ref()).flatten();
        let scheme =
            self.one_of(name::SCHEME, named.map(String::as_str), &["exact", "upto", "session", "other"]);
        let validity = self.number(name::VALIDITY).and_then(|secs| u64::try_from(secs).ok()).unwrap_or(1);
        Ok(Request {
            scheme,
            charge,
            price: jumped(self.context, PRICE_IS).map(u128::from),
            payee: self.payee()?,
            private: self.flag(name::LOCAL) && !origin.host.is_local(),
            origin,
            max: None,
            only: None,
            validity: Duration::from_secs(validity),
            caller: Caller {
                agent: self.agent()?,
                tool: self.flag(name::HAS_TOOL).then_some(tool),
                method,
                url,
                path,
                ..Caller::default()
            },
            screened: None,
        })
    }

    fn charge(&self) -> Result<Charge, Unconfirmed> {
        let id: AssetId =
            self.text(name::ASSET).parse().map_err(|_| Unconfirmed::NoPayment("no such asset"))?;
        let decimals = self.model.registry.get(&id).map(|asset| asset.decimals);
        let decimals = decimals.ok_or(Unconfirmed::NoPayment("no such asset"))?;
        let bucket = Bucket::Asset(id.clone());
        let (counted, each) = if self.model.registry.is_dollar(&id) {
            let down = crate::DOLLAR_DECIMALS.checked_sub(decimals);
            (Bucket::Dollar, down.and_then(|down| 10u128.checked_pow(down.into())).unwrap_or(1))
        } else {
            (bucket, 1)
        };
        let number = self.number(&self.model.amount_key(&counted)).unwrap_or(1);
        let (over, most) = self.model.scale(&counted).amounts(number);
        let atoms = over.checked_div(each).and_then(|atoms| atoms.checked_add(1));
        let atoms = atoms.filter(|atoms| atoms.checked_mul(each).is_some_and(|worth| worth <= most));
        let atoms = atoms.ok_or(Unconfirmed::NoPayment("the asset has no atoms as small"))?;
        Charge::of(self.model.registry, Money::new(id, atoms))
            .map_err(|_| Unconfirmed::NoPayment("more than can be counted"))
    }

    fn payee(&self) -> Result<Address, Unconfirmed> {
        let only = self.policies.iter().flat_map(|policy| policy.allow.iter()).filter_map(|rule| match &rule
            .pay_to
        {
            PayTo::Only(payees) => Some(payees),
            PayTo::Pin => None,
        });
        let listed = self.matchers().filter_map(|matcher| matcher.payees.as_ref());
        let others: Vec<String> =
            (0x11u8..0x99).map(|n| Address::from_evm_bytes([n; 20]).to_string()).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let payee = self.one_of(name::PAYEE, only.chain(listed).flatten().map(Address::as_str), &others);
        Address::evm(&payee).map_err(|_| Unconfirmed::NoPayment("no such payee"))
    }

    fn origin(&self) -> Result<Origin, Unconfirmed> {
        let text = self.text(name::HOST);
        let itself = text.parse::<Host>().ok().filter(|host| host.as_str() == text);
        let host = itself.or_else(|| {
            // One that fits the same rules, as hosts are written.
            let below =
                self.policies.iter().flat_map(|policy| patterns(policy)).filter_map(
                    |pattern| match pattern {
                        HostPattern::Below(name) if text.ends_with(&format!(".{name}")) => {
                            Some(name.as_str())
                        }
                        _ => None,
                    },
                );
            let host = below.max_by_key(|name| name.len()).map(|name| format!("some.{name}"));
            host.unwrap_or_else(|| "elsewhere.example".to_owned()).parse().ok()
        });
        let host = host.ok_or(Unconfirmed::NoPayment("no such host"))?;
        let port = self.number(name::PORT).and_then(|port| u16::try_from(port).ok()).unwrap_or(443);
        Ok(Origin { host, port, tls: self.flag(name::SAFE) })
    }

    fn path(&self) -> String {
        if self.context.contains_key(name::PLAIN) && !self.flag(name::PLAIN) {
            return "/%".to_owned();
        }
        let text = self.text(name::PATH);
        let written =
            |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '"' | '<' | '>' | '`' | '{' | '}');
        if text.starts_with('/') && is_plain(text) && text.chars().all(written) {
            return text.to_owned();
        }
        let paths = self.matchers().filter_map(|matcher| matcher.paths.as_ref()).flatten();
        let above = paths
            .filter_map(|path| path.strip_suffix("/*"))
            .filter(|above| text.starts_with(&format!("{above}/")));
        above
            .max_by_key(|above| above.len())
            .map_or_else(|| "/elsewhere".to_owned(), |above| format!("{above}/some"))
    }

    fn agent(&self) -> Result<Option<AgentName>, Unconfirmed> {
        let text = self.text(name::AGENT);
        if text.is_empty() {
            return Ok(None);
        }
        if let Ok(agent) = text.parse() {
            return Ok(Some(agent));
        }
        let rules = self.matchers().filter_map(|matcher| matcher.agents.as_ref()).flatten();
        let named = self.policies.iter().flat_map(|policy| policy.budgets.keys()).chain(rules);
        let above =
            named.filter(|name| text.starts_with(&format!("{name}/"))).max_by_key(|name| name.as_str().len());
        let agent = above.map_or_else(|| "somebody".to_owned(), |name| format!("{name}/somebody"));
        agent.parse().map(Some).map_err(|_| Unconfirmed::NoPayment("no such agent"))
    }

    fn screened(&self, policy: &Policy, request: &Request) -> Option<Screened> {
        let screener = policy.screen.as_ref()?;
        let said = match self.number(&screen_key(screener))? {
            2.. => Screening::Allow,
            1 => Screening::Hold,
            _ => Screening::Deny,
        };
        Some(Screened { asks: screener.asks.clone(), question: Question::of(request), said, reason: None })
    }

    fn history(&self, policy: &Policy, request: &Request, now: Timestamp) -> History {
        let refusals = policy.breaker.and_then(|breaker| self.number(&refusals_key(breaker.within)));
        let stranger = if request.payee == Address::from_evm_bytes([0xee; 20]) { 0xdd } else { 0xee };
        let pinned = match (self.flag(name::PINNED), self.flag(name::PINNED_HERE)) {
            (false, _) => Vec::new(),
            (true, true) => vec![request.payee.clone()],
            (true, false) => vec![Address::from_evm_bytes([stranger; 20])],
        };
        let by = "the counterexample".to_owned();
        let mut mentions = Vec::new();
        if self.flag(name::HOST_NAMED) {
            mentions.push(Mention { what: Named::Host(request.origin.host.clone()), by: by.clone() });
        }
        if self.flag(name::PAYEE_NAMED) {
            mentions.push(Mention { what: Named::Payee(request.payee.clone()), by });
        }
        let voices = self.voices();
        let approval =
            Approval { id: "apr_of_the_counterexample".to_owned(), voices, grant: self.flag(name::GRANT) };
        let mut history = History {
            pinned,
            refusals: u32::try_from(refusals.unwrap_or(0).max(0)).unwrap_or(u32::MAX),
            usual_price: jumped(self.context, PRICE_IS).map(|_| 1),
            approval: (voices > 0).then_some(approval),
            mentions,
            ..History::default()
        };
        history.sums = Some(self.sums(policy, request, now, &mut history));
        history
    }

    /// What was spent before, from what it would be afterwards; and as much of what limits follow as gives them room.
    fn sums(&self, policy: &Policy, request: &Request, now: Timestamp, history: &mut History) -> Sums {
        let minute = jumped(self.context, MINUTE_IS).unwrap_or(0);
        let mut sums = vec![(OWN_MINUTE, minute.into()), (OWN_DAY, 0)];
        for (budget, held) in &policy.budgets {
            for (number, limit) in held.numbered() {
                let asked = request.charge.amount_in(&limit.bucket).unwrap_or(0);
                let after = self.number(&limit_key(policy, budget, limit));
                let after =
                    after.map_or(asked, |after| match self.model.scale(&limit.bucket).amounts(after) {
                        (over, u128::MAX) => over.saturating_add(1).max(asked),
                        (_, most) => most.max(asked),
                    });
                sums.push((number, after.saturating_sub(asked)));
                if let Some(follow) = &limit.follows
                    && let Followed::Index(index) = &follow.what
                    && let Some(known) = policy.indexes.get(index)
                    && self.flag(&room_keys(policy, budget, limit, follow).0)
                {
                    let value = IndexValue { bucket: known.bucket.clone(), value: known.most, set: now };
                    history.indexes.insert(index.clone(), value);
                }
            }
            for (number, count) in held.numbered_counts() {
                let after = self.number(&meter_key(policy, budget, Per::All, count.span, None)).unwrap_or(1);
                sums.push((number, u128::try_from(after.saturating_sub(1)).unwrap_or(0)));
            }
            for (number, limit, past) in held.followed() {
                let Some(follow) = &limit.follows else { continue };
                let (room, unknown) = room_keys(policy, budget, limit, follow);
                if self.flag(&unknown) {
                    continue;
                }
                // So much that the smallest part of it reaches the ceiling in each of its windows.
                let windows = past.reach().as_secs().max(1);
                let much = limit.most.saturating_mul(100).saturating_mul(windows.into());
                let (sum, payments) =
                    if self.flag(&room) { (much.min(u128::MAX / 1_000_000), 1) } else { (0, 0) };
                for (place, _, of_payments) in past.parts() {
                    let whole = place % 2 == 0;
                    let value = match (whole, of_payments) {
                        (true, true) => payments,
                        (true, false) => sum,
                        (false, _) => 0,
                    };
                    sums.push((number.saturating_add(place), value));
                }
            }
        }
        Sums::imagined(sums)
    }
}
