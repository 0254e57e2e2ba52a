//! How a policy is written, and how it is read: all of it, or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use farthing_primitives::{Address, AssetId, Network, parse_atoms};
use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::budget::Count;
use super::follow::{LEAST_AFTER, PRICE_AFTER};
use super::{
    Allow, Approve, Asks, Budget, Calendar, Deny, Expression, Follow, Followed, Hours, Index, Limit,
    MAX_PERCENT, MAX_SCREEN_WITHIN, Matcher, Mode, PayTo, Per, Policy, SCREEN_WITHIN, Screener, Span,
    Weekday,
};
use crate::{AgentName, Breaker, Bucket, Dollars, HostPattern, Origin, Taint};

/// The longest file that is read, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// How deep a file may be nested.
pub const MAX_DEPTH: usize = 16;
/// The most budgets, and the most rules of each kind.
pub const MAX_RULES: usize = 10_000;
/// The most indexes.
pub const MAX_INDEXES: usize = 100;
/// The longest place and the longest text of an error, in bytes: a file's own words are in them, as long as it likes.
const MAX_ERROR_PLACE: usize = 200;
const MAX_ERROR_TEXT: usize = 1024;
/// The longest window of a limit that rolls: ten years.
const MAX_SPAN: Duration = Duration::from_secs(3653 * 86_400);
/// How long a signed payment stays valid at most if a policy does not say.
const DEFAULT_VALIDITY: Duration = Duration::from_secs(300);
/// The most people who have to agree.
pub(crate) const MAX_QUORUM: u32 = 100;

/// Why a file is no policy. Where the text itself is at fault, line and column are named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy is longer than {MAX_FILE_BYTES} bytes")]
    TooLong,
    #[error("the policy cannot be read: {0}")]
    Text(String),
    #[error("the policy is of version {0}, and this program reads version 1")]
    Version(u32),
    #[error("{at}: {what}")]
    Value { at: String, what: String },
    #[error("the budget {child} allows more than {parent}, which it is part of: {limit}")]
    ChildWider { child: AgentName, parent: AgentName, limit: String },
    #[error("there are more than {MAX_RULES} {0}")]
    TooMany(&'static str),
}

impl PolicyError {
    /// The same with as much of the file's own words as a person reads, and with none that move a cursor.
    fn bounded(self) -> Self {
        match self {
            Self::Text(text) => Self::Text(shown(&text, MAX_ERROR_TEXT)),
            Self::Value { at, what } => {
                Self::Value { at: shown(&at, MAX_ERROR_PLACE), what: shown(&what, MAX_ERROR_TEXT) }
            }
            Self::ChildWider { child, parent, limit } => {
                Self::ChildWider { child, parent, limit: shown(&limit, MAX_ERROR_TEXT) }
            }
            Self::TooLong | Self::Version(_) | Self::TooMany(_) => self,
        }
    }
}

fn shown(text: &str, most: usize) -> String {
    const CUT: &str = "…";
    let plain = |c: char| if c.is_control() && c != '\n' { ' ' } else { c };
    let shown: String = text.chars().map(plain).collect();
    if shown.len() <= most {
        return shown;
    }
    let end = shown.floor_char_boundary(most.saturating_sub(CUT.len()));
    format!("{}{CUT}", &shown[..end])
}

/// A policy for machines that spend. Nothing is paid that it does not allow.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Policy")]
struct FileRecord {
    /// Always 1.
    version: u32,
    /// `enforce` decides; `observe` is looked at beside what decides, and changes nothing.
    #[serde(default)]
    mode: ModeRecord,
    /// The budget of whoever pays without a name.
    #[serde(default, deserialize_with = "given")]
    owner: Option<String>,
    /// The longest time that a signed payment may stay valid, `5m` unless said.
    #[serde(default, deserialize_with = "given")]
    max_validity: Option<String>,
    /// `allow` lets an address be paid for that seems to hold a key, a password or the number of a card.
    #[serde(default)]
    secrets_in_url: SecretsRecord,
    /// What becomes of payments to hosts and payees that a tool's output named first: they wait for people (`ask`, unless
    /// said), are not made (`deny`), or are payments like others (`off`).
    #[serde(default)]
    taint: TaintRecord,
    #[serde(default, deserialize_with = "given")]
    breaker: Option<BreakerRecord>,
    /// Who is asked before a payment is signed.
    #[serde(default, deserialize_with = "given")]
    screen: Option<ScreenRecord>,
    /// Numbers that the owner sets (`farthing policy index set`), and that limits may follow.
    #[serde(default)]
    indexes: BTreeMap<String, IndexRecord>,
    /// Budgets by name. `acme/research` is part of `acme`: what it spends counts in both, and it can only be narrower.
    #[serde(default)]
    budgets: BTreeMap<String, BudgetRecord>,
    /// One of these has to cover a payment.
    #[serde(default)]
    allow: Vec<AllowRecord>,
    /// None of these may fit a payment.
    #[serde(default)]
    deny: Vec<DenyRecord>,
    /// What these fit waits for people to say yes.
    #[serde(default)]
    approve: Vec<ApproveRecord>,
}

#[derive(Deserialize, JsonSchema, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum ModeRecord {
    #[default]
    Enforce,
    Observe,
}

#[derive(Deserialize, JsonSchema, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum SecretsRecord {
    #[default]
    Deny,
    Allow,
}

#[derive(Deserialize, JsonSchema, Default, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum TaintRecord {
    #[default]
    Ask,
    Deny,
    Off,
}

/// When payments stop by themselves.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BreakerRecord {
    /// So many refusals by one seller, of what was paid for, within `within`.
    #[serde(default, deserialize_with = "given")]
    refusals: Option<u32>,
    /// `10m` unless said.
    #[serde(default, deserialize_with = "given")]
    within: Option<String>,
    /// A price from so many times the last one for the same thing on.
    #[serde(default, deserialize_with = "given")]
    price_jump: Option<u32>,
    /// So many times as many payments in a minute as in an average one of the last day.
    #[serde(default, deserialize_with = "given")]
    velocity_jump: Option<u32>,
}

/// Somebody who is asked about payee, network, asset, amount and host, and says allow, deny or hold. No answer denies.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ScreenRecord {
    /// A program by its whole path, and its arguments. It gets one line of JSON, and answers with one.
    #[serde(default, deserialize_with = "given")]
    command: Option<Vec<String>>,
    /// An address over https, or on this machine: the same by POST. One of both.
    #[serde(default, deserialize_with = "given")]
    url: Option<String>,
    /// How long it may take, at most `10s`; `2s` unless said.
    #[serde(default, deserialize_with = "given")]
    within: Option<String>,
    /// How many people have to say yes to what it holds; one unless said.
    #[serde(default, deserialize_with = "given")]
    quorum: Option<u32>,
}

/// A number that the owner sets, and what it may be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IndexRecord {
    least: Amount,
    most: Amount,
    /// From this age on it is not followed any more, and limits that follow it are at their floor.
    stale_after: String,
}

/// What may be spent here and in everything that is part of it.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
struct BudgetRecord {
    #[serde(deserialize_with = "given")]
    per_payment: Option<Bound>,
    /// By length: `1h`, `24h`, `30d`.
    rolling: BTreeMap<String, Bound>,
    /// By part of the calendar, in UTC: `hour`, `day`, `week`, `month`. Twice as much can go around its edge.
    calendar: BTreeMap<String, Bound>,
    #[serde(deserialize_with = "given")]
    lifetime: Option<Bound>,
    /// What one payee may get, by length.
    per_payee: BTreeMap<String, Bound>,
    /// What one host and port may ask for, by length.
    per_host: BTreeMap<String, Bound>,
    /// What may be paid for one tool, by length.
    per_tool: BTreeMap<String, Bound>,
    /// How many payments, by length.
    payments: BTreeMap<String, u32>,
}

/// The conditions that every kind of rule has.
struct MatchRecord {
    agents: Option<Vec<String>>,
    hosts: Option<Vec<String>>,
    paths: Option<Vec<String>>,
    methods: Option<Vec<String>>,
    tools: Option<Vec<String>>,
    networks: Option<Vec<String>>,
    assets: Option<Vec<String>>,
    schemes: Option<Vec<String>>,
    payees: Option<Vec<String>>,
    hours: Option<HoursRecord>,
    when: Option<String>,
}

/// Some hours of some days.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HoursRecord {
    /// All days unless said.
    #[serde(default, deserialize_with = "given")]
    days: Option<Vec<DayRecord>>,
    /// `08:00`, which is in.
    from: String,
    /// `18:00`, which is not; `24:00` is the end of the day.
    to: String,
    /// `+01:00`; UTC unless said.
    #[serde(default, deserialize_with = "given")]
    offset: Option<String>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum DayRecord {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

// `flatten` cannot refuse unknown fields, so each kind of rule lists what it shares with the others.
macro_rules! rule_record {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Deserialize, JsonSchema, Default)]
        #[serde(deny_unknown_fields, default)]
        struct $name {
            /// What decisions call it.
            #[serde(deserialize_with = "given")]
            name: Option<String>,
            /// Agents, with all that are part of them.
            #[serde(deserialize_with = "given")]
            agents: Option<Vec<String>>,
            /// `example.com`, `example.com:8443`, `*.example.com` (every name below it) or `*`.
            #[serde(deserialize_with = "given")]
            hosts: Option<Vec<String>>,
            /// `/v1/now`, or `/v1/*` for everything below.
            #[serde(deserialize_with = "given")]
            paths: Option<Vec<String>>,
            #[serde(deserialize_with = "given")]
            methods: Option<Vec<String>>,
            #[serde(deserialize_with = "given")]
            tools: Option<Vec<String>>,
            /// By CAIP-2: `eip155:8453`.
            #[serde(deserialize_with = "given")]
            networks: Option<Vec<String>>,
            /// By CAIP-19: `eip155:8453/erc20:0x…`.
            #[serde(deserialize_with = "given")]
            assets: Option<Vec<String>>,
            #[serde(deserialize_with = "given")]
            schemes: Option<Vec<String>>,
            /// Addresses of an EVM network.
            #[serde(deserialize_with = "given")]
            payees: Option<Vec<String>>,
            #[serde(deserialize_with = "given")]
            hours: Option<HoursRecord>,
            /// An expression that has to be true besides: `amount > usd("0.05") && weekday in ["sat", "sun"]`.
            #[serde(deserialize_with = "given")]
            when: Option<String>,
            $($(#[$field_doc])* $field: $kind,)*
        }

        impl $name {
            fn conditions(&mut self) -> MatchRecord {
                MatchRecord {
                    agents: self.agents.take(),
                    hosts: self.hosts.take(),
                    paths: self.paths.take(),
                    methods: self.methods.take(),
                    tools: self.tools.take(),
                    networks: self.networks.take(),
                    assets: self.assets.take(),
                    schemes: self.schemes.take(),
                    payees: self.payees.take(),
                    hours: self.hours.take(),
                    when: self.when.take(),
                }
            }
        }
    };
}

rule_record! {
    /// Payments that may be made, within the budgets.
    AllowRecord {
        /// `pin` (whoever the host asks to pay first, and nobody else later), or addresses.
        #[serde(deserialize_with = "given")]
        pay_to: Option<PayToRecord>,
        /// The most for one payment.
        #[serde(deserialize_with = "given")]
        max: Option<Amount>,
        #[serde(deserialize_with = "given")]
        max_validity: Option<String>,
        /// It may be on this machine or its network.
        private: bool,
        /// It may be asked without TLS.
        plaintext: bool,
    }
}

rule_record! {
    /// Payments that may not be made, whatever else allows them.
    DenyRecord {
        /// Only those of more than this.
        #[serde(deserialize_with = "given")]
        over: Option<Amount>,
    }
}

rule_record! {
    /// Payments that wait for people.
    ApproveRecord {
        /// Only those of more than this.
        #[serde(deserialize_with = "given")]
        over: Option<Amount>,
        /// Only where this host was never paid.
        new_payee: bool,
        /// How many people have to say yes; one unless said.
        #[serde(deserialize_with = "given")]
        quorum: Option<u32>,
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum PayToRecord {
    Word(String),
    Addresses(Vec<String>),
}

/// A key that is there has a value. One whose value was forgotten would be no condition and no limit.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let given = Option::deserialize(deserializer)?;
    given.map(Some).ok_or_else(|| de::Error::custom("a key without a value: leave it out, or say what it is"))
}

/// An amount, exactly: `$0.05`, or by asset in atoms, `{"eip155:8453/erc20:0x…": "50000"}`. A number without either is
/// refused: nobody could tell of what.
struct Amount(Vec<(Bucket, u128)>);

impl JsonSchema for Amount {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "Dollars, as \"$0.05\"; or atoms by asset (CAIP-19), as digits.",
            "oneOf": [
                { "type": "string", "pattern": r"^\$(0|[1-9][0-9]*)(\.[0-9]{1,18})?$" },
                {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": { "type": "string", "pattern": "^(0|[1-9][0-9]*)$" },
                },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount as \"$0.05\", or atoms by asset")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                dollars(text)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Amount, A::Error> {
                let mut amounts = Vec::new();
                while let Some((asset, atoms)) = map.next_entry::<String, Atoms>()? {
                    amounts.push((Bucket::Asset(asset_id(&asset)?), atoms.0));
                }
                if amounts.is_empty() {
                    return Err(de::Error::custom("an amount of nothing"));
                }
                Ok(Amount(amounts))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// What a limit is: an amount, or what a rule makes of something, between a floor and a ceiling.
enum Bound {
    Fixed(Amount),
    Follows(Box<FollowRecord>),
}

#[derive(Default)]
struct FollowRecord {
    follow: Option<String>,
    index: Option<String>,
    percent: Option<u32>,
    per: Option<String>,
    last: Option<String>,
    after: Option<String>,
    floor: Option<Amount>,
    ceiling: Option<Amount>,
}

impl JsonSchema for Bound {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bound".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let amount = generator.subschema_for::<Amount>();
        schemars::json_schema!({
            "description": "An amount; or what follows prices, spending or an index, between a floor and a ceiling.",
            "anyOf": [
                amount,
                {
                    "type": "object",
                    "required": ["follow", "percent", "floor", "ceiling"],
                    "additionalProperties": false,
                    "properties": {
                        "follow": { "enum": ["price", "spend", "index"] },
                        "percent": { "type": "integer", "minimum": 1, "maximum": MAX_PERCENT },
                        "floor": amount,
                        "ceiling": amount,
                        "index": { "type": "string", "description": "Of an index: its name." },
                        "last": { "type": "string", "description": "Of prices and spending: how far back." },
                        "after": { "type": "string", "description": "Of prices: how old they have to be, 1d unless said." },
                        "per": {
                            "enum": ["host", "payee", "all"],
                            "description": "Of prices: of the same host unless said.",
                        },
                    },
                },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Bound;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount as \"$0.05\", atoms by asset, or what it follows")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bound, E> {
                dollars(text).map(Bound::Fixed)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Bound, A::Error> {
                fn once<E: de::Error, T>(place: &mut Option<T>, key: &str, value: T) -> Result<(), E> {
                    match place.replace(value) {
                        None => Ok(()),
                        Some(_) => Err(E::custom(format!("{key} is said twice"))),
                    }
                }
                let (mut amounts, mut record, mut follows) = (Vec::new(), FollowRecord::default(), false);
                while let Some(key) = map.next_key::<String>()? {
                    follows |= !key.contains('/');
                    match key.as_str() {
                        "follow" => once(&mut record.follow, &key, map.next_value()?)?,
                        "index" => once(&mut record.index, &key, map.next_value()?)?,
                        "percent" => once(&mut record.percent, &key, map.next_value()?)?,
                        "per" => once(&mut record.per, &key, map.next_value()?)?,
                        "last" => once(&mut record.last, &key, map.next_value()?)?,
                        "after" => once(&mut record.after, &key, map.next_value()?)?,
                        "floor" => once(&mut record.floor, &key, map.next_value()?)?,
                        "ceiling" => once(&mut record.ceiling, &key, map.next_value()?)?,
                        asset => {
                            let id = asset_id(asset)?;
                            amounts.push((Bucket::Asset(id), map.next_value::<Atoms>()?.0));
                        }
                    }
                }
                match (follows, amounts.is_empty()) {
                    (true, true) => Ok(Bound::Follows(Box::new(record))),
                    (true, false) => Err(de::Error::custom("a limit is an amount, or follows something")),
                    (false, true) => Err(de::Error::custom("an amount of nothing")),
                    (false, false) => Ok(Bound::Fixed(Amount(amounts))),
                }
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

fn dollars<E: de::Error>(text: &str) -> Result<Amount, E> {
    if !text.starts_with('$') {
        return Err(E::custom(format!("{text:?} does not say of what: dollars are written \"$0.05\"")));
    }
    let dollars = Dollars::parse(text).map_err(|error| E::custom(format!("{text:?}: {error}")))?;
    Ok(Amount(vec![(Bucket::Dollar, dollars.0)]))
}

fn asset_id<E: de::Error>(text: &str) -> Result<AssetId, E> {
    text.parse().map_err(|_| E::custom(format!("{text:?} is not an asset by CAIP-19")))
}

/// Digits, in quotation marks or without.
struct Atoms(u128);

impl<'de> Deserialize<'de> for Atoms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_atoms(&text).map(Self).map_err(|error| de::Error::custom(format!("{text:?}: {error}")))
    }
}

/// The JSON Schema (2020-12) of the file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(FileRecord).into()
}

impl Policy {
    /// Reads a policy from YAML (or JSON, which is YAML).
    ///
    /// # Errors
    /// [`PolicyError`]: a key that is not known, a value that is not exactly what it should be, or a budget that is
    /// wider than the one it is part of.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        read(text).map_err(PolicyError::bounded)
    }
}

fn read(text: &str) -> Result<Policy, PolicyError> {
    if text.len() > MAX_FILE_BYTES {
        return Err(PolicyError::TooLong);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
        strict_booleans: true,
    };
    let file: FileRecord = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| PolicyError::Text(error.to_string()))?;
    compile(file)
}

fn compile(file: FileRecord) -> Result<Policy, PolicyError> {
    if file.version != 1 {
        return Err(PolicyError::Version(file.version));
    }
    for (what, count) in [
        ("budgets", file.budgets.len()),
        ("rules that allow", file.allow.len()),
        ("rules that deny", file.deny.len()),
        ("rules that ask for approval", file.approve.len()),
    ] {
        if count > MAX_RULES {
            return Err(PolicyError::TooMany(what));
        }
    }
    let owner = file.owner.as_deref().map(|name| parsed("owner", name)).transpose()?;
    let max_validity = match &file.max_validity {
        Some(text) => length("max_validity", text)?,
        None => DEFAULT_VALIDITY,
    };
    let (breaker, price_jump, velocity_jump) = match file.breaker {
        None => (None, None, None),
        Some(record) => {
            let within = record.within.as_deref().unwrap_or("10m");
            let within = length("breaker.within", within)?;
            for (key, times) in [("price_jump", record.price_jump), ("velocity_jump", record.velocity_jump)] {
                if times.is_some_and(|times| times < 2) {
                    return Err(value(format!("breaker.{key}"), "is at least 2"));
                }
            }
            let breaker = record.refusals.map(|refusals| Breaker { refusals, within });
            (breaker, record.price_jump, record.velocity_jump)
        }
    };
    if file.indexes.len() > MAX_INDEXES {
        return Err(value("indexes", format!("are more than {MAX_INDEXES}")));
    }
    let mut indexes = BTreeMap::new();
    for (name, record) in file.indexes {
        let read = index(&format!("indexes.{name}"), &name, record)?;
        indexes.insert(name, read);
    }
    let mut budgets = BTreeMap::new();
    for (name, record) in file.budgets {
        let at = format!("budgets.{name}");
        budgets.insert(parsed(&at, &name)?, budget(&at, record, &indexes)?);
    }
    let mut numbered: u32 = 0;
    for budget in budgets.values_mut() {
        budget.first = numbered;
        numbered = numbered.saturating_add(budget.held());
    }
    if let Some(owner) = owner.as_ref().filter(|owner| !budgets.contains_key(*owner)) {
        return Err(value("owner", format!("there is no budget {owner}")));
    }
    narrower(&budgets)?;
    let policy = Policy {
        mode: match file.mode {
            ModeRecord::Enforce => Mode::Enforce,
            ModeRecord::Observe => Mode::Observe,
        },
        owner,
        max_validity,
        secrets_in_url: file.secrets_in_url == SecretsRecord::Allow,
        taint: match file.taint {
            TaintRecord::Ask => Taint::Ask,
            TaintRecord::Deny => Taint::Deny,
            TaintRecord::Off => Taint::Off,
        },
        breaker,
        price_jump,
        velocity_jump,
        budgets,
        indexes,
        allow: each("allow", file.allow, allow)?.into(),
        deny: each("deny", file.deny, deny)?.into(),
        approve: each("approve", file.approve, approve)?.into(),
        screen: file.screen.map(screen).transpose()?,
    };
    Ok(policy)
}

fn each<R, T>(
    kind: &str,
    records: Vec<R>,
    read: impl Fn(&str, R) -> Result<T, PolicyError>,
) -> Result<Vec<T>, PolicyError> {
    records.into_iter().enumerate().map(|(i, record)| read(&format!("{kind}[{i}]"), record)).collect()
}

fn allow(at: &str, mut record: AllowRecord) -> Result<Allow, PolicyError> {
    let matcher = matcher(at, record.conditions())?;
    if matcher.hosts.is_none() {
        return Err(value(
            format!("{at}.hosts"),
            "is missing: who may be paid is said by name, or by \"*\" for all",
        ));
    }
    let pay_to = match record.pay_to {
        None => PayTo::Pin,
        Some(PayToRecord::Word(word)) if word == "pin" => PayTo::Pin,
        Some(PayToRecord::Word(word)) => {
            return Err(value(
                format!("{at}.pay_to"),
                format!("is \"pin\" or a list of addresses, not {word:?}"),
            ));
        }
        Some(PayToRecord::Addresses(texts)) => PayTo::Only(addresses(&format!("{at}.pay_to"), &texts)?),
    };
    Ok(Allow {
        name: rule_name(at, record.name)?,
        matcher,
        pay_to,
        most: record.max.map(|amount| amount.0).unwrap_or_default(),
        max_validity: record
            .max_validity
            .map(|text| length(&format!("{at}.max_validity"), &text))
            .transpose()?,
        private: record.private,
        plaintext: record.plaintext,
    })
}

fn deny(at: &str, mut record: DenyRecord) -> Result<Deny, PolicyError> {
    let matcher = matcher(at, record.conditions())?;
    Ok(Deny {
        name: rule_name(at, record.name)?,
        matcher,
        over: record.over.map(|amount| amount.0).unwrap_or_default(),
    })
}

fn approve(at: &str, mut record: ApproveRecord) -> Result<Approve, PolicyError> {
    let matcher = matcher(at, record.conditions())?;
    let quorum = read_quorum(at, record.quorum)?;
    Ok(Approve {
        name: rule_name(at, record.name)?,
        matcher,
        over: record.over.map(|amount| amount.0).unwrap_or_default(),
        new_payee: record.new_payee,
        quorum,
    })
}

fn read_quorum(at: &str, given: Option<u32>) -> Result<u32, PolicyError> {
    let quorum = given.unwrap_or(1);
    if !(1..=MAX_QUORUM).contains(&quorum) {
        return Err(value(format!("{at}.quorum"), format!("is between 1 and {MAX_QUORUM}")));
    }
    Ok(quorum)
}

/// How long the address or the whole command of a screener may be, in bytes: decisions name it, and so does the audit log.
const MAX_ASKS_BYTES: usize = 1024;

fn screen(record: ScreenRecord) -> Result<Screener, PolicyError> {
    let asks = match (record.command, record.url) {
        (Some(words), None) => {
            // What is found by a search path may be another program tomorrow.
            if !words.first().is_some_and(|program| program.starts_with('/')) {
                return Err(value("screen.command", "is a program by its whole path, and its arguments"));
            }
            let length = words.iter().fold(0usize, |sum, word| sum.saturating_add(word.len() + 1));
            if length > MAX_ASKS_BYTES || words.iter().any(|word| word.chars().any(char::is_control)) {
                return Err(value("screen.command", "is one line of at most 1024 bytes"));
            }
            Asks::Command(words)
        }
        (None, Some(text)) => {
            let url = text.parse::<url::Url>().ok().filter(|url| url.as_str().len() <= MAX_ASKS_BYTES);
            let safe =
                |url: &url::Url| Origin::of(url).is_ok_and(|origin| origin.tls || origin.is_loopback());
            let url = url.filter(|url| safe(url) && url.fragment().is_none());
            Asks::Url(url.ok_or_else(|| {
                value(
                    "screen.url",
                    "is an address over https, or on this machine, without a name or password",
                )
            })?)
        }
        _ => return Err(value("screen", "has either a command or a url")),
    };
    let within = match record.within {
        None => SCREEN_WITHIN,
        Some(text) => length("screen.within", &text)?,
    };
    if within > MAX_SCREEN_WITHIN {
        return Err(value("screen.within", "is at most 10s: whoever pays waits for it"));
    }
    Ok(Screener { asks, within, quorum: read_quorum("screen", record.quorum)? })
}

fn matcher(at: &str, record: MatchRecord) -> Result<Matcher, PolicyError> {
    let lists = [
        ("agents", &record.agents),
        ("hosts", &record.hosts),
        ("paths", &record.paths),
        ("methods", &record.methods),
        ("tools", &record.tools),
        ("networks", &record.networks),
        ("assets", &record.assets),
        ("schemes", &record.schemes),
        ("payees", &record.payees),
    ];
    // A rule that fits nothing stops nothing.
    if let Some((key, _)) = lists.iter().find(|(_, list)| list.as_ref().is_some_and(Vec::is_empty)) {
        return Err(value(format!("{at}.{key}"), "is empty, and fits nothing: leave it out for all"));
    }
    let when = record.when.map(|text| {
        Expression::parse(&text)
            .map_err(|error| value(format!("{at}.when"), format!("{error} (in {text:?})")))
    });
    let when = when.transpose()?;
    let hours = record.hours.map(|hours| read_hours(&format!("{at}.hours"), hours)).transpose()?;
    let paths = record.paths.map(|paths| {
        paths.iter().map(|path| read_path(&format!("{at}.paths"), path)).collect::<Result<Vec<_>, _>>()
    });
    let methods = record.methods.map(|methods| {
        let plain = |method: &String| {
            !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
        };
        match methods.iter().find(|method| !plain(method)) {
            Some(odd) => Err(value(
                format!("{at}.methods"),
                format!("{odd:?} is no method: they are written in capitals"),
            )),
            None => Ok(BTreeSet::from_iter(methods)),
        }
    });
    Ok(Matcher {
        agents: list::<AgentName>(at, "agents", record.agents.as_deref())?,
        hosts: list::<HostPattern>(at, "hosts", record.hosts.as_deref())?,
        paths: paths.transpose()?,
        methods: methods.transpose()?,
        tools: record.tools.map(BTreeSet::from_iter),
        networks: list::<Network>(at, "networks", record.networks.as_deref())?.map(BTreeSet::from_iter),
        assets: list::<AssetId>(at, "assets", record.assets.as_deref())?.map(BTreeSet::from_iter),
        schemes: record.schemes.map(BTreeSet::from_iter),
        payees: record.payees.map(|texts| addresses(&format!("{at}.payees"), &texts)).transpose()?,
        hours,
        when,
    })
}

/// The longest name of a rule, in characters.
const MAX_NAME_LEN: usize = 64;

/// What decisions call a rule: one line that people read, so nothing in it moves a cursor.
fn rule_name(at: &str, name: Option<String>) -> Result<String, PolicyError> {
    let name = name.unwrap_or_else(|| at.to_owned());
    let plain =
        !name.is_empty() && name.chars().count() <= MAX_NAME_LEN && !name.chars().any(char::is_control);
    if plain { Ok(name) } else { Err(value(format!("{at}.name"), "is one line of at most 64 characters")) }
}

/// Payees of EVM networks. Those of others cannot be named yet, and are pinned.
fn addresses(at: &str, texts: &[String]) -> Result<Vec<Address>, PolicyError> {
    let evm = Network::eip155(1);
    texts
        .iter()
        .map(|text| Address::parse(&evm, text).map_err(|_| value(at, format!("{text:?} is not an address"))))
        .collect()
}

fn list<T: std::str::FromStr<Err: fmt::Display>>(
    at: &str,
    key: &str,
    texts: Option<&[String]>,
) -> Result<Option<Vec<T>>, PolicyError> {
    let read = |text: &String| parsed(&format!("{at}.{key}"), text);
    texts.map(|texts| texts.iter().map(read).collect()).transpose()
}

fn parsed<T: std::str::FromStr<Err: fmt::Display>>(at: &str, text: &str) -> Result<T, PolicyError> {
    text.parse().map_err(|error| value(at, format!("{text:?}: {error}")))
}

fn value(at: impl Into<String>, what: impl Into<String>) -> PolicyError {
    PolicyError::Value { at: at.into(), what: what.into() }
}

fn read_path(at: &str, path: &str) -> Result<String, PolicyError> {
    let body = path.strip_suffix("/*").unwrap_or(path);
    // One that climbs fits no request, and would deny nothing.
    let climbs = body.split('/').any(|part| part == "." || part == "..");
    if !path.starts_with('/')
        || climbs
        || body.contains(['*', '?', '#', '%', '\\', ';'])
        || body.contains("//")
    {
        return Err(value(
            at,
            format!("{path:?} is no path: \"/v1/now\", or \"/v1/*\" for everything below"),
        ));
    }
    Ok(path.to_owned())
}

fn read_hours(at: &str, record: HoursRecord) -> Result<Hours, PolicyError> {
    let clock = |key: &str, text: &str| {
        let minutes = text.split_once(':').and_then(|(h, m)| {
            let part = |text: &str| (text.len() == 2).then(|| text.parse::<u16>().ok()).flatten();
            let (h, m) = (part(h)?, part(m)?);
            (m < 60 && h * 60 + m <= 1440 && text.bytes().all(|b| b.is_ascii_digit() || b == b':'))
                .then_some(h * 60 + m)
        });
        minutes
            .ok_or_else(|| value(format!("{at}.{key}"), format!("{text:?} is no time of day like \"08:00\"")))
    };
    let (from, to) = (clock("from", &record.from)?, clock("to", &record.to)?);
    if from >= to {
        return Err(value(at, "ends before it begins: hours around midnight take two rules"));
    }
    let offset = match record.offset.as_deref() {
        None => 0,
        Some(text) => {
            let (sign, rest) = match text.split_at_checked(1) {
                Some(("+", rest)) => (1, rest),
                Some(("-", rest)) => (-1, rest),
                _ => return Err(value(format!("{at}.offset"), format!("{text:?} is not like \"+01:00\""))),
            };
            let minutes = clock("offset", rest)?;
            sign * i16::try_from(minutes).map_err(|_| value(format!("{at}.offset"), "is too large"))?
        }
    };
    let all = || Weekday::ALL.to_vec();
    let days = record.days.map_or_else(all, |days| {
        days.into_iter()
            .map(|day| match day {
                DayRecord::Mon => Weekday::Mon,
                DayRecord::Tue => Weekday::Tue,
                DayRecord::Wed => Weekday::Wed,
                DayRecord::Thu => Weekday::Thu,
                DayRecord::Fri => Weekday::Fri,
                DayRecord::Sat => Weekday::Sat,
                DayRecord::Sun => Weekday::Sun,
            })
            .collect()
    });
    Ok(Hours { days: days.into_iter().collect(), from, to, offset })
}

/// The longest name of an index, in bytes.
const MAX_INDEX_NAME: usize = 64;

fn index(at: &str, name: &str, record: IndexRecord) -> Result<Index, PolicyError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    if name.is_empty() || name.len() > MAX_INDEX_NAME || !name.bytes().all(plain) {
        return Err(value(at, "is named by at most 64 of a-z, 0-9, - and _"));
    }
    let (bucket, least, most) = between(at, ("least", record.least), ("most", record.most))?;
    Ok(Index { bucket, least, most, stale_after: length(&format!("{at}.stale_after"), &record.stale_after)? })
}

/// Two amounts of one thing, of which the first is not more than the second.
fn between(
    at: &str,
    (low_key, low): (&str, Amount),
    (high_key, high): (&str, Amount),
) -> Result<(Bucket, u128, u128), PolicyError> {
    match (<[_; 1]>::try_from(low.0), <[_; 1]>::try_from(high.0)) {
        (Ok([(one, low)]), Ok([(bucket, high)])) if one == bucket && low <= high => Ok((bucket, low, high)),
        _ => Err(value(
            at,
            format!("{low_key} and {high_key} are amounts of one thing, and {low_key} is not more"),
        )),
    }
}

/// What a limit of this span follows, with its bucket and its ceiling.
fn follow(
    at: &str,
    span: Span,
    record: FollowRecord,
    indexes: &BTreeMap<String, Index>,
) -> Result<(Bucket, u128, Follow), PolicyError> {
    let missing = |key: &str| value(at, format!("{key} is missing"));
    let word = record.follow.ok_or_else(|| missing("follow"))?;
    let percent = record.percent.ok_or_else(|| missing("percent"))?;
    if !(1..=MAX_PERCENT).contains(&percent) {
        return Err(value(at, format!("percent is between 1 and {MAX_PERCENT}")));
    }
    let floor = record.floor.ok_or_else(|| missing("floor"))?;
    let ceiling = record.ceiling.ok_or_else(|| missing("ceiling"))?;
    let (bucket, floor, most) = between(at, ("floor", floor), ("ceiling", ceiling))?;
    let what = match (word.as_str(), record.index, record.per, record.last, record.after, span) {
        ("price", None, per, Some(last), after, Span::Payment) => {
            let per = match per.as_deref() {
                None | Some("host") => Per::Host,
                Some("payee") => Per::Payee,
                // A tool's name is said by whoever asks, or by whoever sells.
                Some("all") => Per::All,
                Some(_) => return Err(value(at, "per is none of host, payee and all")),
            };
            let after = after.map_or(Ok(PRICE_AFTER), |text| length(&format!("{at}.after"), &text))?;
            if after < LEAST_AFTER {
                return Err(value(at, "after is at least 1h: what is bought now is to raise nothing now"));
            }
            Followed::Price { per, last: length(&format!("{at}.last"), &last)?, after }
        }
        ("spend", None, None, Some(last), None, Span::Rolling(own)) => {
            let last = length(&format!("{at}.last"), &last)?;
            // Into whole windows, each of which was held to the limit of its time: so their average never is more than that.
            if !last.as_secs().is_multiple_of(own.as_secs()) {
                return Err(value(at, "last is no whole number of the windows that are limited"));
            }
            Followed::Spend { last }
        }
        ("index", Some(name), None, None, None, _) => match indexes.get(&name) {
            Some(index) if index.bucket == bucket => Followed::Index(name),
            Some(_) => {
                return Err(value(at, format!("the index {name} is of something else than the limit")));
            }
            None => return Err(value(at, format!("there is no index {name:?} under indexes"))),
        },
        _ => {
            return Err(value(
                at,
                "follows price (per_payment only, with last, and after and per if said), spend (windows by \
                 length only, with last) or index (with index)",
            ));
        }
    };
    Ok((bucket, most, Follow { what, percent, floor }))
}

fn budget(at: &str, record: BudgetRecord, indexes: &BTreeMap<String, Index>) -> Result<Budget, PolicyError> {
    let mut limits = Vec::new();
    let mut add = |per: Per, span: Span, at: String, bound: Bound| {
        match bound {
            Bound::Fixed(amount) => {
                let fixed = |(bucket, most)| Limit { per, span, bucket, most, follows: None };
                limits.extend(amount.0.into_iter().map(fixed));
            }
            Bound::Follows(record) => {
                let (bucket, most, follow) = follow(&at, span, *record, indexes)?;
                limits.push(Limit { per, span, bucket, most, follows: Some(follow) });
            }
        }
        Ok(())
    };
    if let Some(bound) = record.per_payment {
        add(Per::All, Span::Payment, format!("{at}.per_payment"), bound)?;
    }
    let windows = [
        (Per::All, "rolling", record.rolling),
        (Per::Payee, "per_payee", record.per_payee),
        (Per::Host, "per_host", record.per_host),
        (Per::Tool, "per_tool", record.per_tool),
    ];
    for (per, key, bounds) in windows {
        for (text, bound) in bounds {
            let span = Span::Rolling(length(&format!("{at}.{key}"), &text)?);
            add(per, span, format!("{at}.{key}.{text}"), bound)?;
        }
    }
    for (text, bound) in record.calendar {
        let part = Calendar::ALL.into_iter().find(|part| part.name() == text);
        let part = part.ok_or_else(|| {
            value(format!("{at}.calendar"), format!("{text:?} is none of hour, day, week and month"))
        })?;
        add(Per::All, Span::Calendar(part), format!("{at}.calendar.{text}"), bound)?;
    }
    if let Some(bound) = record.lifetime {
        add(Per::All, Span::Lifetime, format!("{at}.lifetime"), bound)?;
    }
    let mut counts = Vec::new();
    for (text, most) in record.payments {
        counts.push(Count { span: Span::Rolling(length(&format!("{at}.payments"), &text)?), most });
    }
    Ok(Budget { limits, counts, first: 0 })
}

/// Reads a length of time as a policy writes it, `30s`, `5m`, `24h` or `7d`: from a second to ten years.
pub fn length_of(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().saturating_sub(1))?;
    let each: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let number = u64::try_from(parse_atoms(digits).ok()?).ok()?;
    let length = Duration::from_secs(number.checked_mul(each)?);
    (!length.is_zero() && length <= MAX_SPAN).then_some(length)
}

fn length(at: &str, text: &str) -> Result<Duration, PolicyError> {
    let odd = || {
        format!(
            "{text:?} is no length of time between 1s and ten years, like \"30s\", \"5m\", \"24h\" or \"7d\""
        )
    };
    length_of(text).ok_or_else(|| value(at, odd()))
}

/// A budget that seems to promise more than the one above it would mislead whoever reads it.
fn narrower(budgets: &BTreeMap<AgentName, Budget>) -> Result<(), PolicyError> {
    for (name, budget) in budgets {
        for above in name.lineage().skip(1) {
            let Some(parent) = budgets.get(&above) else { continue };
            for limit in &budget.limits {
                let same = |other: &&Limit| {
                    other.per == limit.per && other.span == limit.span && other.bucket == limit.bucket
                };
                if parent.limits.iter().find(same).is_some_and(|other| limit.most > other.most) {
                    let limit = limit.to_string();
                    return Err(PolicyError::ChildWider { child: name.clone(), parent: above, limit });
                }
            }
        }
    }
    Ok(())
}
