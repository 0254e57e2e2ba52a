use farthing_channel::record::{decode_payer, encode_payer};
use farthing_channel::{ChannelId, Need, Receipt};
use farthing_payment::{ConsumptionKey, Instruction};
use farthing_policy::{AgentName, Decision, Fact, Origin};
use farthing_primitives::{
    Address, AttemptId, Money, Network, PurchaseId, RequestHash, Timestamp, parse_atoms,
};
use farthing_wallet::journal::channels::{AttemptState, KeptAttempt, KeptChannel};
use farthing_wallet::journal::{Goods, Header, Outcome, Purchase, State};
use farthing_wallet::{
    Answered, Authorization, Brought, Deposit, Intent, Offer, OfferMpp, OfferSession, OfferV2, Quote, Spent,
};
use farthing_wire::mpp;
use farthing_wire::x402::{Message, v1, v2};
use serde::{Deserialize, Serialize};

use super::{MAX_NOTE_CHARS, MAX_OFFER_BYTES, MAX_RECEIPT_BYTES, MAX_URL_BYTES, Refusal, WaitsRecord};

/// Turns what was read into what it means, or says why it means nothing.
pub(super) type Read<T> = Result<T, Refusal>;

pub(super) fn no(what: &str) -> Refusal {
    Refusal::malformed(format!("{what} cannot be read"))
}

/// An amount in atoms, as decimal digits: JSON numbers lose digits in careless readers.
fn atoms(text: &str) -> Read<u128> {
    parse_atoms(text).map_err(|_| no("an amount"))
}

fn bytes32(text: &str, what: &str) -> Read<[u8; 32]> {
    let mut bytes = [0u8; 32];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut bytes).map_err(|_| no(what))?;
    Ok(bytes)
}

pub(crate) fn channel_id(text: &str) -> Read<ChannelId> {
    bytes32(text, "a channel's id").map(ChannelId)
}

pub(crate) fn print_channel(id: &ChannelId) -> String {
    format!("0x{}", hex::encode(id.0))
}

pub(crate) fn purchase_id(text: &str) -> Read<PurchaseId> {
    text.parse().map_err(|_| no("a purchase's id"))
}

pub(crate) fn attempt_id(text: &str) -> Read<AttemptId> {
    text.parse().map_err(|_| no("an attempt's id"))
}

pub(crate) fn request_hash(text: &str) -> Read<RequestHash> {
    bytes32(text, "a request's hash").map(RequestHash)
}

pub(crate) fn print_hash(hash: &RequestHash) -> String {
    hex::encode(hash.0)
}

fn time(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

/// What a front says first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    pub version: u32,
    /// `NAME:SECRET`; may be left out where a certificate says who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// By which the front is known again when it connects again: 8 to 64 of `a`–`z`, `0`–`9`.
    pub front: String,
}

/// What the guard says to that.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    pub version: u32,
    pub agent: String,
    /// Whose money is spent.
    pub payer: String,
}

/// An offer as the counterparty wrote it, one alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferRecord {
    /// `x402-v1`, `x402-v2` or `mpp`.
    pub dialect: String,
    /// Of x402 the challenge as JSON with this offer alone in `accepts`; of MPP one value of `WWW-Authenticate`.
    pub text: String,
}

impl OfferRecord {
    pub fn of(offer: &Offer) -> Read<Self> {
        let unprintable = |_| Refusal::malformed("the offer cannot be passed on");
        let text = match offer {
            Offer::V1(offer) => v1::PaymentRequired::new(vec![(**offer).clone()]).print(),
            Offer::V2(offer) => {
                let mut asked =
                    v2::PaymentRequired::new(offer.resource.clone(), vec![offer.requirements.clone()]);
                asked.extensions = offer.extensions.clone();
                asked.print()
            }
            Offer::Mpp(offer) => offer.challenge().to_header().map_err(unprintable)?,
            Offer::Session(offer) => offer.challenge().to_header().map_err(unprintable)?,
        };
        Ok(Self { dialect: offer.dialect().to_owned(), text })
    }

    /// Reads it by our own parsers and our own clock.
    pub fn read(&self, now: Timestamp) -> Read<Offer> {
        if self.text.len() > MAX_OFFER_BYTES {
            return Err(Refusal::malformed(format!("an offer is longer than {MAX_OFFER_BYTES} bytes")));
        }
        let text = self.text.as_bytes();
        let unreadable = |error: &dyn std::fmt::Display| Refusal::new("offer_unreadable", error.to_string());
        let several = || Refusal::new("offer_unreadable", "there is not one offer alone");
        match self.dialect.as_str() {
            "x402-v1" => {
                let read = v1::PaymentRequired::parse(text).map_err(|error| unreadable(&error))?;
                let [offer] = <[_; 1]>::try_from(read.accepts).map_err(|_| several())?;
                Ok(Offer::V1(Box::new(offer)))
            }
            "x402-v2" => {
                let read = v2::PaymentRequired::parse(text).map_err(|error| unreadable(&error))?;
                let [requirements] = <[_; 1]>::try_from(read.accepts).map_err(|_| several())?;
                let (resource, extensions) = (read.resource, read.extensions);
                Ok(Offer::V2(Box::new(OfferV2 { requirements, resource, extensions })))
            }
            "mpp" => {
                let challenge = mpp::Challenge::parse(text).map_err(|error| unreadable(&error))?;
                if let Ok(session) = OfferSession::read(challenge.clone(), now) {
                    return Ok(Offer::Session(Box::new(session)));
                }
                let charge = OfferMpp::read(challenge, now).map_err(|error| unreadable(&error))?;
                Ok(Offer::Mpp(Box::new(charge)))
            }
            _ => Err(Refusal::new("offer_unreadable", "the dialect is not known")),
        }
    }
}

/// A payment that an agent wants to make. What time it is, what the chain says and whether it is one for development
/// are not its to say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntentRecord {
    pub offer: OfferRecord,
    pub method: String,
    /// The address that is really asked. Its host is the one that the rules are about.
    pub url: String,
    /// The connection goes to an address of the agent's machine or its network.
    pub private: bool,
    /// SHA-256, as the agent names the request; the same names the same.
    pub request_hash: String,
    /// The SHA-256 of the request's body: what people approve is bound to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The tool on whose behalf it is paid, as the agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deposit: Option<String>,
}

impl IntentRecord {
    pub fn of(intent: &Intent) -> Read<Self> {
        Ok(Self {
            offer: OfferRecord::of(&intent.offer)?,
            method: intent.method.clone(),
            url: intent.url.clone(),
            private: intent.private,
            request_hash: print_hash(&intent.request_hash),
            body: intent.body.map(hex::encode),
            tool: intent.tool.clone(),
            max: intent.max.clone(),
            only: intent.only.as_ref().map(ToString::to_string),
            deposit: intent.deposit.clone(),
        })
    }

    /// What is left to be filled in is what the guard reads from the chain.
    pub fn read(&self, now: Timestamp) -> Read<Intent> {
        if self.url.len() > MAX_URL_BYTES {
            return Err(Refusal::malformed(format!("the URL is longer than {MAX_URL_BYTES} bytes")));
        }
        let url: url::Url = self.url.parse().map_err(|_| no("the URL"))?;
        let origin = Origin::of(&url).map_err(Refusal::malformed)?;
        let method: http::Method = self.method.parse().map_err(|_| no("the method"))?;
        // Methods are told apart by case (RFC 9110 section 9.1), and rules name them in capitals: `get` is no way around one.
        if method.as_str().bytes().any(|b| b.is_ascii_lowercase()) {
            return Err(no("the method"));
        }
        for amount in [&self.max, &self.deposit].into_iter().flatten() {
            // Longer than any amount is.
            if amount.len() > MAX_AMOUNT_CHARS {
                return Err(no("an amount"));
            }
        }
        if self.tool.as_ref().is_some_and(|tool| tool.len() > MAX_TOOL_BYTES) {
            return Err(no("the name of the tool"));
        }
        Ok(Intent {
            offer: self.offer.read(now)?,
            private: self.private || origin.host.is_local(),
            origin,
            method: method.to_string(),
            url: url.into(),
            request_hash: request_hash(&self.request_hash)?,
            body: self.body.as_deref().map(|hash| bytes32(hash, "the body's hash")).transpose()?,
            tool: self.tool.clone(),
            max: self.max.clone(),
            only: self
                .only
                .as_ref()
                .map(|only| only.parse::<Network>().map_err(|_| no("the network")))
                .transpose()?,
            devnet: false,
            chain_time: None,
            permit_nonce: None,
            deposit: self.deposit.clone(),
        })
    }
}

/// What one rule found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FindingRecord {
    pub code: String,
    pub denies: bool,
    pub text: String,
    /// People could agree to what this rule denies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<WaitsRecord>,
}

impl FindingRecord {
    fn of(fact: &Fact) -> Self {
        let waits = match fact {
            Fact::ApprovalRequired { rule, quorum, pending } => {
                Some(WaitsRecord { rule: rule.clone(), quorum: *quorum, pending: pending.clone() })
            }
            _ => None,
        };
        Self { code: fact.code().to_owned(), denies: fact.denies(), text: fact.to_string(), waits }
    }
}

impl From<FindingRecord> for Fact {
    fn from(FindingRecord { code, denies, text, waits }: FindingRecord) -> Self {
        match waits {
            Some(WaitsRecord { rule, quorum, pending }) => Self::ApprovalRequired { rule, quorum, pending },
            None => Self::Told { code, denies, text },
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRecord {
    pub allowed: bool,
    pub findings: Vec<FindingRecord>,
}

impl DecisionRecord {
    pub fn of(decision: &Decision) -> Self {
        let findings = decision.findings.iter().map(FindingRecord::of).collect();
        Self { allowed: decision.is_allowed(), findings }
    }

    pub fn read(self) -> Read<Decision> {
        let decision = Decision::from_findings(self.findings.into_iter().map(Into::into).collect());
        if decision.is_allowed() == self.allowed { Ok(decision) } else { Err(no("a decision")) }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoneyRecord {
    /// CAIP-19.
    pub asset: String,
    pub atoms: String,
}

impl MoneyRecord {
    pub fn of(money: &Money) -> Self {
        Self { asset: money.asset().to_string(), atoms: money.atoms().to_string() }
    }

    pub fn read(&self) -> Read<Money> {
        Ok(Money::new(self.asset.parse().map_err(|_| no("an asset"))?, atoms(&self.atoms)?))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthorizationRecord {
    pub id: String,
    pub decision: DecisionRecord,
    pub money: MoneyRecord,
    pub payee: String,
    pub payer: String,
    pub expires_ms: u64,
}

impl AuthorizationRecord {
    pub fn of(authorization: &Authorization) -> Self {
        Self {
            id: authorization.id.to_string(),
            decision: DecisionRecord::of(&authorization.decision),
            money: MoneyRecord::of(&authorization.money),
            payee: authorization.payee.to_string(),
            payer: authorization.payer.to_string(),
            expires_ms: authorization.expires.millis(),
        }
    }

    pub fn read(self) -> Read<Authorization> {
        let money = self.money.read()?;
        Ok(Authorization {
            id: purchase_id(&self.id)?,
            decision: self.decision.read()?,
            payee: address(&money, &self.payee)?,
            payer: address(&money, &self.payer)?,
            money,
            expires: time(self.expires_ms),
        })
    }
}

fn address(money: &Money, text: &str) -> Read<Address> {
    Address::parse(money.asset().network(), text).map_err(|_| no("an address"))
}

/// A signed payment, or its name alone where nobody may see it yet.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderRecord {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

impl std::fmt::Debug for HeaderRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeaderRecord({})", self.name)
    }
}

impl HeaderRecord {
    pub fn of(header: &Header) -> Self {
        Self { name: header.name.clone(), value: Some(header.value.clone()) }
    }

    fn read(self) -> Header {
        Header { name: self.name, value: self.value.unwrap_or_default() }
    }

    /// One that is to be shown, and so has a value.
    pub fn shown(self) -> Read<Header> {
        let Self { name, value: Some(value) } = self else { return Err(no("a payment")) };
        Ok(Header { name, value })
    }
}

/// How much of a purchase is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    Whole,
    /// Without what may be long.
    Listed,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PurchaseRecord {
    pub id: String,
    pub state: String,
    pub created_ms: u64,
    pub updated_ms: u64,
    pub expires_ms: u64,
    pub authority: String,
    pub method: String,
    pub url: String,
    pub request_hash: String,
    pub money: MoneyRecord,
    pub payee: String,
    pub payer: String,
    pub consumption: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderRecord>,
    /// What the chain is asked by, in hexadecimal; opaque.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    pub shown: u32,
    pub tx: Option<String>,
    pub confirmed: bool,
    pub finalized: bool,
    pub delivered: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    pub note: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cumulative: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
}

impl PurchaseRecord {
    pub(crate) fn of(purchase: &Purchase, detail: Detail) -> Self {
        // INVARIANT: what pays leaves by `present` alone, which writes it down first. Otherwise an agent could take a
        // payment, say that nobody has seen it, and have its budget back.
        let is_out = purchase.shown > 0;
        let whole = detail == Detail::Whole;
        let header = purchase.header.as_ref().map(|header| HeaderRecord {
            name: header.name.clone(),
            value: (is_out && whole).then(|| header.value.clone()),
        });
        let instruction = purchase.instruction.as_ref().filter(|_| is_out && whole);
        Self {
            id: purchase.id.to_string(),
            state: purchase.state.name().to_owned(),
            created_ms: purchase.created.millis(),
            updated_ms: purchase.updated.millis(),
            expires_ms: purchase.expires.millis(),
            authority: purchase.authority.clone(),
            method: purchase.method.clone(),
            url: purchase.url.clone(),
            request_hash: print_hash(&purchase.request_hash),
            money: MoneyRecord::of(&purchase.money),
            payee: purchase.payee.to_string(),
            payer: purchase.payer.to_string(),
            consumption: purchase.consumption.as_str().to_owned(),
            header,
            instruction: instruction.map(|instruction| hex::encode(instruction.as_bytes())),
            shown: purchase.shown,
            tx: purchase.tx.clone(),
            confirmed: purchase.confirmed,
            finalized: purchase.finalized,
            delivered: purchase.delivered,
            receipt: purchase.receipt.clone().filter(|_| whole),
            note: purchase.note.clone(),
            channel: purchase.channel.as_ref().map(print_channel),
            cumulative: purchase.cumulative.map(|atoms| atoms.to_string()),
            tool: purchase.tool.clone(),
        }
    }

    /// `agent` is whose it is: a guard shows nothing else.
    pub fn read(self, agent: &AgentName) -> Read<Purchase> {
        let money = self.money.read()?;
        let state = State::ALL.into_iter().find(|state| state.name() == self.state);
        let instruction = self.instruction.map(hex::decode).transpose().map_err(|_| no("an instruction"))?;
        Ok(Purchase {
            id: purchase_id(&self.id)?,
            state: state.ok_or_else(|| no("a state"))?,
            created: time(self.created_ms),
            updated: time(self.updated_ms),
            expires: time(self.expires_ms),
            authority: self.authority,
            method: self.method,
            url: self.url,
            request_hash: request_hash(&self.request_hash)?,
            payee: address(&money, &self.payee)?,
            payer: address(&money, &self.payer)?,
            money,
            consumption: ConsumptionKey::new(self.consumption),
            header: self.header.map(HeaderRecord::read),
            instruction: instruction.map(Instruction::new),
            shown: self.shown,
            tx: self.tx,
            confirmed: self.confirmed,
            finalized: self.finalized,
            delivered: self.delivered,
            receipt: self.receipt,
            note: self.note,
            channel: self.channel.as_deref().map(channel_id).transpose()?,
            cumulative: self.cumulative.as_deref().map(atoms).transpose()?,
            agent: Some(agent.clone()),
            tool: self.tool,
        })
    }
}

/// What an agent says became of a purchase. Whether the chain confirms it is not among that.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeRecord {
    /// `settled`, `unknown` or `refused`.
    pub is: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx: Option<String>,
    /// `missing`, `in_hand` or `delivered`; of a refusal nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goods: Option<String>,
    /// The seller's receipt, as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl OutcomeRecord {
    pub fn of(outcome: &Outcome) -> Self {
        let name = |goods: &Goods| match goods {
            Goods::Missing => "missing",
            Goods::InHand => "in_hand",
            Goods::Delivered => "delivered",
        };
        // What a guard would not write down is not sent: a long receipt is one that it does not have.
        let bounded =
            |receipt: &Option<String>| receipt.clone().filter(|receipt| receipt.len() <= MAX_RECEIPT_BYTES);
        match outcome {
            Outcome::Settled { tx, confirmed: _, goods, receipt, note } => Self {
                is: "settled".to_owned(),
                tx: tx.clone(),
                goods: Some(name(goods).to_owned()),
                receipt: bounded(receipt),
                note: note.as_deref().map(short),
            },
            Outcome::Unknown { tx, goods, receipt, note } => Self {
                is: "unknown".to_owned(),
                tx: tx.clone(),
                goods: Some(name(goods).to_owned()),
                receipt: bounded(receipt),
                note: Some(short(note)),
            },
            Outcome::Refused { receipt, note } => Self {
                is: "refused".to_owned(),
                tx: None,
                goods: None,
                receipt: bounded(receipt),
                note: Some(short(note)),
            },
        }
    }

    pub fn read(self) -> Read<Outcome> {
        if self.receipt.as_ref().is_some_and(|receipt| receipt.len() > MAX_RECEIPT_BYTES) {
            return Err(Refusal::malformed(format!("a receipt is longer than {MAX_RECEIPT_BYTES} bytes")));
        }
        // Only what is the hash of a transaction is asked for, and printed.
        let tx = self.tx.map(|tx| farthing_wallet::client::tx_hash(&tx).map(|tx| tx.to_string()));
        let tx = tx.map(|tx| tx.ok_or_else(|| no("a transaction"))).transpose()?;
        let goods = match self.goods.as_deref() {
            None | Some("missing") => Goods::Missing,
            Some("in_hand") => Goods::InHand,
            Some("delivered") => Goods::Delivered,
            Some(_) => return Err(no("what became of the goods")),
        };
        let note = self.note.as_deref().map(short);
        match self.is.as_str() {
            "settled" => Ok(Outcome::Settled { tx, confirmed: false, goods, receipt: self.receipt, note }),
            "unknown" => {
                Ok(Outcome::Unknown { tx, goods, receipt: self.receipt, note: note.unwrap_or_default() })
            }
            "refused" if tx.is_none() && goods == Goods::Missing => {
                Ok(Outcome::Refused { receipt: self.receipt, note: note.unwrap_or_default() })
            }
            _ => Err(no("an outcome")),
        }
    }
}

/// What a stranger wrote, as it is kept: no control characters, and not at any length.
fn short(text: &str) -> String {
    farthing_wallet::client::printable(text).chars().take(MAX_NOTE_CHARS).collect()
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteRecord {
    pub decision: DecisionRecord,
    pub channel: Option<String>,
    pub deposit: Option<MoneyRecord>,
}

impl QuoteRecord {
    pub fn of(quote: &Quote) -> Self {
        Self {
            decision: DecisionRecord::of(&quote.decision),
            channel: quote.channel.as_ref().map(print_channel),
            deposit: quote.deposit.as_ref().map(MoneyRecord::of),
        }
    }

    pub fn read(self) -> Read<Quote> {
        Ok(Quote {
            decision: self.decision.read()?,
            channel: self.channel.as_deref().map(channel_id).transpose()?,
            deposit: self.deposit.as_ref().map(MoneyRecord::read).transpose()?,
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepositRecord {
    pub channel: String,
    pub attempt: String,
    pub decision: Option<DecisionRecord>,
}

impl DepositRecord {
    pub fn of(deposit: &Deposit) -> Self {
        Self {
            channel: print_channel(&deposit.channel),
            attempt: deposit.attempt.to_string(),
            decision: deposit.decision.as_ref().map(DecisionRecord::of),
        }
    }

    pub fn read(self) -> Read<Deposit> {
        Ok(Deposit {
            channel: channel_id(&self.channel)?,
            attempt: attempt_id(&self.attempt)?,
            decision: self.decision.map(DecisionRecord::read).transpose()?,
        })
    }
}

/// What came of a wish to pay by voucher: a voucher, or how much the deposit is too small.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpentRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<AuthorizationRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl SpentRecord {
    pub fn of(spent: &Spent) -> Self {
        match spent {
            Spent::Ready(authorization) => {
                Self { authorization: Some(AuthorizationRecord::of(authorization)), missing: None }
            }
            Spent::NeedsTopUp { missing } => Self { authorization: None, missing: Some(missing.to_string()) },
        }
    }

    pub fn read(self) -> Read<Spent> {
        match (self.authorization, self.missing) {
            (Some(authorization), None) => Ok(Spent::Ready(Box::new(authorization.read()?))),
            (None, Some(missing)) => Ok(Spent::NeedsTopUp { missing: atoms(&missing)? }),
            _ => Err(no("an answer")),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnsweredRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voucher: Option<HeaderRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

impl AnsweredRecord {
    pub fn of(answered: &Answered) -> Self {
        match answered {
            Answered::Voucher(header) => Self { voucher: Some(HeaderRecord::of(header)), missing: None },
            Answered::NeedsTopUp { missing } => Self { voucher: None, missing: Some(missing.to_string()) },
        }
    }

    pub fn read(self) -> Read<Answered> {
        match (self.voucher, self.missing) {
            (Some(header), None) => Ok(Answered::Voucher(header.shown()?)),
            (None, Some(missing)) => Ok(Answered::NeedsTopUp { missing: atoms(&missing)? }),
            _ => Err(no("an answer")),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NeedRecord {
    pub required: String,
    pub accepted: String,
    pub deposit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<String>,
}

impl NeedRecord {
    pub fn of(need: &Need) -> Self {
        Self {
            required: need.required.to_string(),
            accepted: need.accepted.to_string(),
            deposit: need.deposit.to_string(),
            spent: need.spent.map(|spent| spent.to_string()),
        }
    }

    pub fn read(&self) -> Read<Need> {
        Ok(Need {
            required: atoms(&self.required)?,
            accepted: atoms(&self.accepted)?,
            deposit: atoms(&self.deposit)?,
            spent: self.spent.as_deref().map(atoms).transpose()?,
        })
    }
}

/// What a seller says of a channel, as an agent tells it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptRecord {
    pub accepted: String,
    pub spent: String,
    pub units: String,
    pub deposit: String,
    pub settled: String,
    /// The receipt itself, as JSON.
    pub json: String,
}

impl ReceiptRecord {
    pub fn of(receipt: &Receipt, json: &str) -> Self {
        Self {
            accepted: receipt.accepted.to_string(),
            spent: receipt.spent.to_string(),
            units: receipt.units.to_string(),
            deposit: receipt.deposit.to_string(),
            settled: receipt.settled.to_string(),
            json: json.to_owned(),
        }
    }

    pub fn read(self) -> Read<(Receipt, String)> {
        if self.json.len() > MAX_RECEIPT_BYTES {
            return Err(Refusal::malformed(format!("a receipt is longer than {MAX_RECEIPT_BYTES} bytes")));
        }
        let receipt = Receipt {
            accepted: atoms(&self.accepted)?,
            spent: atoms(&self.spent)?,
            units: atoms(&self.units)?,
            deposit: atoms(&self.deposit)?,
            settled: atoms(&self.settled)?,
        };
        Ok((receipt, self.json))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BroughtRecord {
    pub outcome: OutcomeRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ReceiptRecord>,
    pub served: bool,
    pub streamed: bool,
    pub is_whole: bool,
}

impl BroughtRecord {
    pub fn of(brought: &Brought) -> Self {
        Self {
            outcome: OutcomeRecord::of(&brought.outcome),
            receipt: brought.receipt.as_ref().map(|(receipt, json)| ReceiptRecord::of(receipt, json)),
            served: brought.served,
            streamed: brought.streamed,
            is_whole: brought.is_whole,
        }
    }

    pub fn read(self) -> Read<Brought> {
        Ok(Brought {
            outcome: self.outcome.read()?,
            receipt: self.receipt.map(ReceiptRecord::read).transpose()?,
            served: self.served,
            streamed: self.streamed,
            is_whole: self.is_whole,
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttemptRecord {
    pub id: String,
    /// `intended`, `signed` or `shown`.
    pub state: String,
    pub expires_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    pub abandoned: bool,
}

/// A channel. The bytes of a deposit come from `show_deposit` alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelRecord {
    pub id: String,
    pub state: String,
    /// All that was deposited, vouched and used, in atoms.
    pub deposit: String,
    pub signed: String,
    pub used: String,
    /// The channel's own record, in hexadecimal; opaque.
    pub record: String,
    pub number: u64,
    pub authority: String,
    pub method: String,
    pub url: String,
    pub created_ms: u64,
    pub updated_ms: u64,
    pub receipt: Option<String>,
    pub note: Option<String>,
    pub attempt: Option<AttemptRecord>,
}

const ATTEMPT_STATES: [(AttemptState, &str); 3] =
    [(AttemptState::Intended, "intended"), (AttemptState::Signed, "signed"), (AttemptState::Shown, "shown")];

impl ChannelRecord {
    pub(crate) fn of(kept: &KeptChannel, detail: Detail) -> Self {
        let payer = &kept.payer;
        let attempt = |attempt: &KeptAttempt| AttemptRecord {
            id: attempt.id.to_string(),
            state: ATTEMPT_STATES
                .into_iter()
                .find_map(|(state, name)| (state == attempt.state).then(|| name.to_owned()))
                .unwrap_or_default(),
            expires_ms: attempt.expires.millis(),
            url: attempt.url.clone(),
            abandoned: attempt.abandoned,
        };
        Self {
            id: print_channel(&kept.id()),
            state: payer.state().name().to_owned(),
            deposit: payer.deposit().to_string(),
            signed: payer.signed().to_string(),
            used: payer.used().to_string(),
            record: hex::encode(encode_payer(payer)),
            number: kept.number,
            authority: kept.authority.clone(),
            method: kept.method.clone(),
            url: kept.url.clone(),
            created_ms: kept.created.millis(),
            updated_ms: kept.updated.millis(),
            receipt: kept.receipt.clone().filter(|_| detail == Detail::Whole),
            note: kept.note.clone(),
            attempt: kept.attempt.as_ref().map(attempt),
        }
    }

    pub fn read(self) -> Read<KeptChannel> {
        let record = hex::decode(&self.record).map_err(|_| no("a channel"))?;
        let payer = decode_payer(&record).map_err(|_| no("a channel"))?;
        let attempt = |attempt: AttemptRecord| {
            let state = ATTEMPT_STATES.into_iter().find(|(_, name)| *name == attempt.state);
            Ok::<_, Refusal>(KeptAttempt {
                id: attempt_id(&attempt.id)?,
                state: state.ok_or_else(|| no("a state"))?.0,
                expires: time(attempt.expires_ms),
                header: None,
                url: attempt.url,
                raw: None,
                abandoned: attempt.abandoned,
            })
        };
        Ok(KeptChannel {
            payer,
            number: self.number,
            authority: self.authority,
            method: self.method,
            url: self.url,
            created: time(self.created_ms),
            updated: time(self.updated_ms),
            receipt: self.receipt,
            note: self.note,
            attempt: self.attempt.map(attempt).transpose()?,
        })
    }
}

/// The longest amount in whole units.
pub(crate) const MAX_AMOUNT_CHARS: usize = 64;

/// The longest name of a tool.
const MAX_TOOL_BYTES: usize = 256;

// ---------------------------------------------------------------------------------------------------------------------
// What requests say.

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithIntent {
    pub intent: IntentRecord,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithId {
    pub id: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithOutcome {
    pub id: String,
    pub outcome: OutcomeRecord,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_hash: Option<String>,
    /// What comes after this one: the last of the list before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithUrl {
    pub url: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithIntentFrom {
    pub intent: IntentRecord,
    pub from: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithTopUp {
    pub intent: IntentRecord,
    pub channel: String,
    pub missing: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithIntentAndChannel {
    pub intent: IntentRecord,
    pub channel: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithNeed {
    pub id: String,
    pub need: NeedRecord,
    pub went_on: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithBrought {
    pub id: String,
    pub brought: BroughtRecord,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithReceipt {
    pub channel: String,
    pub receipt: ReceiptRecord,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithOffer {
    pub channel: String,
    pub offer: OfferRecord,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithChannel {
    pub channel: String,
}

// ---------------------------------------------------------------------------------------------------------------------
// What answers say.

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Purchases {
    pub purchases: Vec<PurchaseRecord>,
    /// Whether there are more after the last.
    pub more: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    pub channels: Vec<ChannelRecord>,
    pub more: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct May {
    pub may: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Done {}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaybeChannel {
    pub channel: Option<ChannelRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    pub number: u64,
    pub channel: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaybeDeposit {
    pub deposit: Option<DepositRecord>,
}
