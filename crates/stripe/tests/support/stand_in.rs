//! A stand-in for Stripe, written from its public API reference. It is not Stripe: what the reference does not say, or
//! says and does not mean, is not here.
//!
//! It has what `stripe/charge` uses: shared payment tokens with their limits, PaymentIntents that are confirmed as they
//! are made, canceled, shown and listed, and idempotency keys as the reference describes them: kept for a day, compared
//! with their parameters, answered again with `Idempotent-Replayed: true`, and not kept for a request that fails
//! validation. Tests can make it lose requests and answers.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

/// What becomes of the next charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// It never arrives.
    LoseRequest,
    /// It is executed, and its answer never arrives.
    LoseAnswer,
    /// It is executed, and answered with 500, which is kept under its key.
    FailAfter,
    /// It fails before anything is made of it, and that is kept.
    FailBefore,
    /// Too many requests.
    Busy,
    /// Another request with this key is being executed.
    InUse,
    /// A page of some proxy's.
    Html,
    /// Nothing is executed, and the answer is a repetition of somebody else's charge: as if parameters were not compared.
    Foreign,
    /// It is executed, and the answer tells of another amount.
    OtherAmount,
    /// Nothing happens to it.
    None,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub replayed: bool,
    pub body: String,
}

#[derive(Debug, Clone)]
struct Token {
    payment_method: String,
    currency: String,
    max_amount: u64,
    expires_at: u64,
    deactivated: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct Kept {
    parameters: String,
    status: u16,
    body: String,
    at: u64,
}

#[derive(Default)]
struct State {
    now: u64,
    tokens: HashMap<String, Token>,
    /// In the order in which they were made.
    intents: Vec<Value>,
    keys: HashMap<String, Kept>,
    troubles: VecDeque<Trouble>,
    asked: Vec<String>,
    next: u64,
}

/// How long keys are kept, in seconds.
const KEYS_KEPT: u64 = 24 * 3600;

pub struct StandIn {
    secret_key: String,
    state: Mutex<State>,
}

type Fields = BTreeMap<String, String>;

impl StandIn {
    pub fn new(secret_key: &str, now: u64) -> Self {
        let state = State { now, ..State::default() };
        Self { secret_key: secret_key.to_owned(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn set_time(&self, now: u64) {
        self.state().now = now;
    }

    /// What becomes of the next charges, in their order.
    pub fn trouble(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.state().troubles.extend(troubles);
    }

    /// A token, as its buyer's agent would have got it.
    pub fn grant(&self, payment_method: &str, currency: &str, max_amount: u64) -> String {
        let mut state = self.state();
        let expires_at = state.now + 3600;
        state.grant(payment_method, currency, max_amount, expires_at)
    }

    /// Takes a token back.
    pub fn revoke(&self, token: &str) {
        self.state().tokens.get_mut(token).unwrap().deactivated = Some("revoked");
    }

    /// What was charged in all, in minor units, and how often.
    pub fn charged(&self) -> (u64, usize) {
        let state = self.state();
        let paid = state.intents.iter().filter(|intent| intent["status"] == "succeeded");
        let amounts: Vec<u64> = paid.map(|intent| intent["amount_received"].as_u64().unwrap()).collect();
        (amounts.iter().sum(), amounts.len())
    }

    pub fn intents(&self) -> Vec<Value> {
        self.state().intents.clone()
    }

    /// Has a bank come to a decision on what is `processing`, or a customer do what was required.
    pub fn decide(&self, status: &str) {
        let mut state = self.state();
        for intent in &mut state.intents {
            if intent["status"] == "processing" {
                intent["status"] = json!(status);
                if status == "succeeded" {
                    intent["amount_received"] = intent["amount"].clone();
                }
            }
        }
    }

    /// Has the last charge a second time, which Stripe never does, in another state.
    pub fn repeat(&self, status: &str) {
        let mut state = self.state();
        let mut again = state.intents.last().unwrap().clone();
        (again["id"], again["status"]) = (json!("pi_again"), json!(status));
        state.intents.push(again);
    }

    /// Verbs and paths of all that was asked.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Answers one request; `None` if it or its answer is lost. `fields` is the form, or the query of a GET.
    pub fn answer(
        &self,
        verb: &str,
        path: &str,
        fields: &Fields,
        key: Option<&str>,
        authorization: &str,
    ) -> Option<Reply> {
        let mut state = self.state();
        state.asked.push(format!("{verb} {path}"));
        let is_charge = verb == "POST" && path == "v1/payment_intents";
        let trouble = match is_charge {
            true => state.troubles.pop_front().unwrap_or(Trouble::None),
            false => Trouble::None,
        };
        match trouble {
            Trouble::LoseRequest => return None,
            Trouble::Html => {
                return Some(Reply { status: 502, replayed: false, body: "<html>bad gateway".to_owned() });
            }
            Trouble::Busy => return Some(error(429, "invalid_request_error", "rate_limit", "")),
            Trouble::InUse => {
                return Some(error(409, "invalid_request_error", "idempotency_key_in_use", ""));
            }
            _ => {}
        }
        if authorization != self.secret_key {
            return Some(error(401, "invalid_request_error", "", ""));
        }
        if trouble == Trouble::Foreign {
            let challenge = fields.get("metadata[mpp_challenge_id]");
            let intent = json!({
                "id": "pi_somebodyelses", "object": "payment_intent", "amount": 50, "amount_received": 50,
                "currency": "usd", "metadata": {"mpp_challenge_id": challenge}, "status": "succeeded",
            });
            return Some(Reply { status: 200, replayed: true, body: intent.to_string() });
        }
        let reply = match (verb, key) {
            ("POST", Some(key)) => state.once(path, key, fields, trouble),
            _ => state.execute(verb, path, fields).unwrap_or_else(|refused| refused),
        };
        let reply = match trouble {
            Trouble::OtherAmount => {
                Reply { body: reply.body.replace("\"amount\":50", "\"amount\":49"), ..reply }
            }
            _ => reply,
        };
        (trouble != Trouble::LoseAnswer).then_some(reply)
    }
}

fn reply(status: u16, value: &Value) -> Reply {
    Reply { status, replayed: false, body: value.to_string() }
}

fn error(status: u16, kind: &str, code: &str, param: &str) -> Reply {
    let mut error = json!({"type": kind, "message": "the stand-in refuses this"});
    for (name, value) in [("code", code), ("param", param)] {
        if !value.is_empty() {
            error[name] = json!(value);
        }
    }
    reply(status, &json!({"error": error}))
}

impl State {
    fn id(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}_standin{:08}", self.next)
    }

    fn grant(&mut self, payment_method: &str, currency: &str, max_amount: u64, expires_at: u64) -> String {
        let id = self.id("spt");
        let token = Token {
            payment_method: payment_method.to_owned(),
            currency: currency.to_owned(),
            max_amount,
            expires_at,
            deactivated: None,
        };
        self.tokens.insert(id.clone(), token);
        id
    }

    /// A POST under an idempotency key.
    fn once(&mut self, path: &str, key: &str, fields: &Fields, trouble: Trouble) -> Reply {
        if key.is_empty() || key.len() > 255 {
            return error(400, "invalid_request_error", "", "");
        }
        let parameters = format!("{path} {fields:?}");
        let now = self.now;
        self.keys.retain(|_, kept| now < kept.at + KEYS_KEPT);
        if let Some(kept) = self.keys.get(key) {
            return match kept.parameters == parameters {
                true => Reply { status: kept.status, replayed: true, body: kept.body.clone() },
                false => error(400, "idempotency_error", "", ""),
            };
        }
        let executed = match trouble {
            Trouble::FailBefore => Ok(error(500, "api_error", "", "")),
            Trouble::FailAfter => self.execute("POST", path, fields).map(|_| error(500, "api_error", "", "")),
            _ => self.execute("POST", path, fields),
        };
        match executed {
            Ok(reply) => {
                let (status, body) = (reply.status, reply.body.clone());
                self.keys.insert(key.to_owned(), Kept { parameters, status, body, at: now });
                reply
            }
            // Not kept: nothing was executed.
            Err(refused) => refused,
        }
    }

    fn execute(&mut self, verb: &str, path: &str, fields: &Fields) -> Result<Reply, Reply> {
        let parts: Vec<&str> = path.split('/').collect();
        match (verb, parts.as_slice()) {
            ("POST", ["v1", "payment_intents"]) => self.charge(fields),
            ("GET", ["v1", "payment_intents"]) => Ok(self.list(fields)),
            ("GET", ["v1", "payment_intents", id]) => Ok(reply(200, &self.intents[self.find(id)?])),
            ("POST", ["v1", "payment_intents", id, "cancel"]) => {
                let at = self.find(id)?;
                let intent = &mut self.intents[at];
                if !matches!(intent["status"].as_str(), Some("requires_action" | "requires_payment_method")) {
                    return Err(error(400, "invalid_request_error", "payment_intent_unexpected_state", ""));
                }
                intent["status"] = json!("canceled");
                Ok(reply(200, &intent.clone()))
            }
            ("GET", ["v1", "shared_payment", "granted_tokens", id]) => {
                let token = self.tokens.get(*id).ok_or_else(|| missing("id"))?;
                Ok(reply(200, &shown(id, token, self.now)))
            }
            ("POST", ["v1", "test_helpers", "shared_payment", "granted_tokens"]) => {
                let field = |name: &str| fields.get(name).ok_or_else(|| missing(name));
                let number = |name: &str| field(name)?.parse::<u64>().map_err(|_| missing(name));
                let (method, currency) = (field("payment_method")?, field("usage_limits[currency]")?);
                let most = number("usage_limits[max_amount]")?;
                let expires = number("usage_limits[expires_at]").unwrap_or(self.now + 3600);
                let id = self.grant(method, currency, most, expires);
                Ok(reply(200, &shown(&id, &self.tokens[&id], self.now)))
            }
            _ => Err(error(404, "invalid_request_error", "", "")),
        }
    }

    fn find(&self, id: &str) -> Result<usize, Reply> {
        self.intents.iter().position(|intent| intent["id"] == id).ok_or_else(|| missing("intent"))
    }

    fn charge(&mut self, fields: &Fields) -> Result<Reply, Reply> {
        let field = |name: &str| fields.get(name).ok_or_else(|| missing(name));
        let amount: u64 = field("amount")?.parse().map_err(|_| missing("amount"))?;
        let (currency, id) = (field("currency")?, field("shared_payment_granted_token")?);
        let confirmed = fields.get("confirm").is_some_and(|confirm| confirm == "true");
        let automatic = fields.get("automatic_payment_methods[enabled]").is_some_and(|it| it == "true");
        if !confirmed || !automatic {
            return Err(missing("confirm"));
        }
        if currency == "usd" && amount < 50 {
            return Err(error(400, "invalid_request_error", "amount_too_small", "amount"));
        }
        let unfit = || error(400, "invalid_request_error", "", "shared_payment_granted_token");
        let token = self.tokens.get(id).cloned().ok_or_else(unfit)?;
        if token.deactivated.is_some()
            || token.expires_at <= self.now
            || token.currency != *currency
            || token.max_amount < amount
        {
            return Err(unfit());
        }
        let metadata: BTreeMap<&str, &str> = fields
            .iter()
            .filter_map(|(name, value)| {
                Some((name.strip_prefix("metadata[")?.strip_suffix(']')?, value.as_str()))
            })
            .collect();
        if metadata.iter().any(|(name, value)| name.len() > 40 || value.len() > 500) {
            return Err(missing("metadata"));
        }
        let (status, decline) = match token.payment_method.as_str() {
            "pm_card_visa" => ("succeeded", None),
            "pm_card_authenticationRequired" => ("requires_action", None),
            "pm_standin_processing" => ("processing", None),
            "pm_card_visa_chargeDeclinedInsufficientFunds" => {
                ("requires_payment_method", Some("insufficient_funds"))
            }
            "pm_card_visa_chargeDeclinedStolenCard" => ("requires_payment_method", Some("stolen_card")),
            _ => ("requires_payment_method", Some("generic_decline")),
        };
        let intent = json!({
            "id": self.id("pi"), "object": "payment_intent", "amount": amount,
            "amount_received": if status == "succeeded" { amount } else { 0 },
            "client_secret": "never to be shown", "created": self.now, "currency": currency,
            "livemode": false, "metadata": metadata, "status": status,
        });
        self.intents.push(intent.clone());
        if status == "succeeded" {
            self.tokens.get_mut(id).unwrap().deactivated = Some("consumed");
        }
        let Some(decline) = decline else { return Ok(reply(200, &intent)) };
        Ok(reply(
            402,
            &json!({"error": {
                "type": "card_error", "code": "card_declined", "decline_code": decline,
                "message": "the stand-in declines this card", "payment_intent": intent,
            }}),
        ))
    }

    fn list(&self, fields: &Fields) -> Reply {
        let number = |name: &str, or: u64| fields.get(name).map_or(or, |text| text.parse().unwrap());
        let (from, to) = (number("created[gte]", 0), number("created[lte]", u64::MAX));
        let limit = usize::try_from(number("limit", 10)).unwrap();
        let mut newest: Vec<&Value> = self.intents.iter().rev().collect();
        newest.retain(|intent| (from..=to).contains(&intent["created"].as_u64().unwrap()));
        if let Some(after) = fields.get("starting_after") {
            let at = newest.iter().position(|intent| intent["id"] == after.as_str()).unwrap();
            newest.drain(..=at);
        }
        let more = newest.len() > limit;
        newest.truncate(limit);
        reply(200, &json!({"object": "list", "url": "/v1/payment_intents", "has_more": more, "data": newest}))
    }
}

fn missing(param: &str) -> Reply {
    error(
        if param == "id" || param == "intent" { 404 } else { 400 },
        "invalid_request_error",
        "resource_missing",
        param,
    )
}

fn shown(id: &str, token: &Token, now: u64) -> Value {
    let expired = (token.expires_at <= now).then_some("expired");
    let reason = token.deactivated.or(expired);
    json!({
        "id": id, "object": "shared_payment.granted_token", "created": 0, "livemode": false,
        "deactivated_at": reason.map(|_| now), "deactivated_reason": reason,
        "usage_limits": {
            "currency": token.currency, "max_amount": token.max_amount, "expires_at": token.expires_at,
        },
    })
}

/// A form, or a query.
pub fn fields_of(text: &str) -> Fields {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}
