//! Payments over JSON-RPC and MCP: in errors and in `_meta`, as native JSON.
//!
//! Spec: draft-payment-transport-mcp-00. The id of a challenge is the same as over HTTP: it binds the canonical form of
//! `request`.

use super::{
    Challenge, Credential, IntentName, MAX_CHALLENGES, MethodName, MppError, Problem, ProblemType, Receipt,
};
use crate::x402::fields::Fields;
use crate::{Json, Object};

/// Spec: "Error Code Mapping". MCP gives the same number to its elicitation by URL: see [`RpcError::classify`].
pub const PAYMENT_REQUIRED: i64 = -32042;
pub const VERIFICATION_FAILED: i64 = -32043;
/// A credential that cannot be read.
pub const INVALID_PARAMS: i64 = -32602;
pub const INTERNAL_ERROR: i64 = -32603;

/// Keys of `_meta`.
pub const CREDENTIAL: &str = "org.paymentauth/credential";
pub const RECEIPT: &str = "org.paymentauth/receipt";
/// In the result of a tool, where a client's library would swallow the data of an error (mppx).
pub const PAYMENT_REQUIRED_META: &str = "org.paymentauth/payment-required";

const META: &str = "_meta";
/// How many methods, and intents of each, a peer may announce.
const MAX_CAPABILITIES: usize = 64;

/// What a server asks for: the data of an error, or the value of [`PAYMENT_REQUIRED_META`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRequired {
    pub http_status: Option<u16>,
    /// Alternatives, of which one is to be met. Never empty.
    pub challenges: Vec<Challenge>,
    /// Challenges that we cannot read. They are not printed.
    pub unreadable: Vec<MppError>,
    pub problem: Option<Problem>,
    pub failure: Option<Failure>,
}

/// Why a payment was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failure {
    /// For machines.
    pub reason: Option<String>,
    /// For people.
    pub detail: Option<String>,
}

/// The error of an answer, as far as it concerns payments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RpcError {
    PaymentRequired(Box<PaymentRequired>),
    /// Paid, and not accepted; with fresh challenges, if there are any that can be read.
    VerificationFailed(Option<Box<PaymentRequired>>),
    /// The number of a payment's error, and MCP's meaning of it: the user is to visit a page.
    UrlElicitation,
    /// The number of a payment's error, and data that say nothing of the kind.
    Unclear(MppError),
    /// Some other error.
    Other,
}

/// What a peer can pay or take, by method.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Capability(pub Vec<(MethodName, Vec<IntentName>)>);

impl PaymentRequired {
    pub fn new(challenges: Vec<Challenge>, problem: Option<Problem>) -> Self {
        Self { http_status: Some(402), challenges, unreadable: Vec::new(), problem, failure: None }
    }

    pub fn from_object(data: &Object) -> Result<Self, MppError> {
        let mut fields = Fields::of(Json::Object(data.clone()))?;
        let (mut challenges, mut unreadable) = (Vec::new(), Vec::new());
        for json in fields.array("challenges", MAX_CHALLENGES)? {
            match Challenge::from_json(json) {
                Ok(challenge) => challenges.push(challenge),
                Err(error) => unreadable.push(error),
            }
        }
        if challenges.is_empty() {
            return Err(unreadable.into_iter().next().unwrap_or(MppError::empty("challenges")));
        }
        let status = fields.take("httpStatus").and_then(|status| status.as_u64());
        let failure = fields.optional_object("failure")?.map(|object| Failure {
            reason: object.get_str("reason").map(str::to_owned),
            detail: object.get_str("detail").map(str::to_owned),
        });
        Ok(Self {
            http_status: status.and_then(|status| u16::try_from(status).ok()),
            challenges,
            unreadable,
            problem: fields.take("problem").map(Problem::from_json).transpose()?,
            failure,
        })
    }

    /// The data of an error, or the value of [`PAYMENT_REQUIRED_META`].
    pub fn to_object(&self) -> Object {
        let challenges: Vec<Json> = self.challenges.iter().map(|one| Json::from(one.to_native())).collect();
        let failure = self.failure.as_ref().map(|failure| {
            Object::new()
                .with_some("reason", failure.reason.as_deref())
                .with_some("detail", failure.detail.as_deref())
        });
        Object::new()
            .with_some("httpStatus", self.http_status.map(u64::from))
            .with("challenges", challenges)
            .with_some("problem", self.problem.as_ref().map(Problem::to_object))
            .with_some("failure", failure)
    }

    /// The number of the error, which depends on what went wrong.
    ///
    /// Spec: "Error Code Mapping".
    pub fn code(&self) -> i64 {
        self.problem.as_ref().map_or(PAYMENT_REQUIRED, |problem| code_of(&problem.kind))
    }

    /// The `error` of an answer.
    pub fn to_error(&self) -> Object {
        let code = self.code();
        let message = match code {
            VERIFICATION_FAILED => "Payment Verification Failed",
            INVALID_PARAMS => "Invalid params",
            INTERNAL_ERROR => "Internal error",
            _ => "Payment Required",
        };
        Object::new().with("code", number(code)).with("message", message).with("data", self.to_object())
    }

    /// What the result of a tool asks for, if it does.
    pub fn of_result(result: &Object) -> Result<Option<Self>, MppError> {
        match meta(result).and_then(|meta| meta.get(PAYMENT_REQUIRED_META)) {
            Some(Json::Object(data)) => Self::from_object(data).map(Some),
            None | Some(Json::Null) => Ok(None),
            Some(_) => Err(MppError::wrong_type(PAYMENT_REQUIRED_META, "an object")),
        }
    }

    /// Puts this into the result of a tool.
    pub fn put_into(&self, result: &mut Object) {
        put(result, PAYMENT_REQUIRED_META, self.to_object());
    }
}

/// The number of the error that tells of a problem.
pub fn code_of(kind: &ProblemType) -> i64 {
    match kind {
        ProblemType::PaymentRequired => PAYMENT_REQUIRED,
        ProblemType::MalformedCredential | ProblemType::InvalidPayload | ProblemType::BadRequest => {
            INVALID_PARAMS
        }
        ProblemType::InternalPaymentError => INTERNAL_ERROR,
        _ => VERIFICATION_FAILED,
    }
}

impl RpcError {
    /// Says what an answer's `error` means.
    ///
    /// An elicitation has `elicitations` in its data, a payment has `challenges`. Data with both are a payment: it is
    /// what a client that pays can act on, and paying obeys its policy.
    pub fn classify(error: &Object) -> Self {
        let code = match error.get("code") {
            Some(Json::Number(code)) => code.as_safe_integer(),
            _ => None,
        };
        let data = error.get("data").and_then(Json::as_object);
        let required = data.filter(|data| data.contains_key("challenges")).map(PaymentRequired::from_object);
        match (code, required) {
            (Some(PAYMENT_REQUIRED), Some(Ok(required))) => Self::PaymentRequired(Box::new(required)),
            (Some(PAYMENT_REQUIRED), Some(Err(error))) => Self::Unclear(error),
            (Some(PAYMENT_REQUIRED), None) if data.is_some_and(|data| data.contains_key("elicitations")) => {
                Self::UrlElicitation
            }
            (Some(PAYMENT_REQUIRED), None) => Self::Unclear(MppError::missing("challenges")),
            (Some(VERIFICATION_FAILED), required) => {
                Self::VerificationFailed(required.and_then(Result::ok).map(Box::new))
            }
            _ => Self::Other,
        }
    }
}

/// The credential of a request: in `params._meta`, as in MCP, or in `_meta` beside it.
///
/// # Errors
/// [`MppError::SeveralCredentials`] if both places have one; else why it cannot be read.
///
/// Spec: "Metadata Placement": servers look in both.
pub fn credential(request: &Object) -> Result<Option<Credential>, MppError> {
    let there = |object: Option<&Object>| {
        object.and_then(meta).and_then(|meta| meta.get(CREDENTIAL)).filter(|json| !json.is_null()).cloned()
    };
    let params = request.get("params").and_then(Json::as_object);
    match (there(Some(request)), there(params)) {
        (Some(_), Some(_)) => Err(MppError::SeveralCredentials),
        (Some(json), None) | (None, Some(json)) => Credential::from_json(json).map(Some),
        (None, None) => Ok(None),
    }
}

/// Puts a credential into a request: into its `params` where these are an object, as MCP has it; else beside them.
pub fn put_credential(request: &mut Object, credential: &Credential) {
    match request.remove("params") {
        Some(Json::Object(mut params)) => {
            put(&mut params, CREDENTIAL, credential.to_native());
            request.insert("params", params);
        }
        other => {
            if let Some(params) = other {
                request.insert("params", params);
            }
            put(request, CREDENTIAL, credential.to_native());
        }
    }
}

/// The receipt of an answer: in `result._meta`, as in MCP, or in `_meta` beside it.
pub fn receipt(answer: &Object) -> Result<Option<Receipt>, MppError> {
    let there = |object: Option<&Object>| {
        object.and_then(meta).and_then(|meta| meta.get(RECEIPT)).filter(|json| !json.is_null()).cloned()
    };
    let result = answer.get("result").and_then(Json::as_object);
    there(result).or_else(|| there(Some(answer))).map(Receipt::from_json).transpose()
}

/// Puts a receipt into an answer's `result`, or beside it if that is no object.
///
/// # Errors
/// [`MppError::Member`] if the receipt does not say which challenge it is about.
///
/// Spec: "Receipt Structure".
pub fn put_receipt(answer: &mut Object, receipt: &Receipt) -> Result<(), MppError> {
    if receipt.challenge_id.is_none() {
        return Err(MppError::missing("challengeId"));
    }
    match answer.remove("result") {
        Some(Json::Object(mut result)) => {
            put(&mut result, RECEIPT, receipt.to_object());
            answer.insert("result", result);
        }
        other => {
            if let Some(result) = other {
                answer.insert("result", result);
            }
            put(answer, RECEIPT, receipt.to_object());
        }
    }
    Ok(())
}

/// Whether a message is a request that can be answered: one without an id is not, and is never served for money.
///
/// Spec: "Notifications".
pub fn can_be_paid(message: &Object) -> bool {
    matches!(message.get("id"), Some(Json::String(_) | Json::Number(_)))
}

impl Capability {
    /// What stands under `capabilities.experimental.payment`.
    ///
    /// Spec: "Capability Advertisement".
    pub fn to_object(&self) -> Object {
        let entry = |(method, intents): &(MethodName, Vec<IntentName>)| {
            let intents: Vec<Json> = intents.iter().map(|intent| Json::from(intent.as_str())).collect();
            (method.as_str().to_owned(), Object::new().with("intents", intents))
        };
        Object::new().with("methods", self.0.iter().map(entry).collect::<Object>())
    }

    /// Methods and intents whose names are none are passed over: a peer may know more than we do.
    pub fn from_object(object: &Object) -> Result<Self, MppError> {
        let methods = crate::x402::fields::object(object, "methods")?;
        if methods.len() > MAX_CAPABILITIES {
            return Err(MppError::too_many("methods", MAX_CAPABILITIES));
        }
        let mut all = Vec::new();
        for (name, config) in methods.iter() {
            let intents =
                config.as_object().and_then(|config| config.get("intents")).and_then(Json::as_array);
            let intents = intents.ok_or(MppError::missing("intents"))?;
            if intents.len() > MAX_CAPABILITIES {
                return Err(MppError::too_many("intents", MAX_CAPABILITIES));
            }
            if let Ok(method) = name.parse() {
                let read = |json: &Json| json.as_str().and_then(|text| text.parse().ok());
                all.push((method, intents.iter().filter_map(read).collect()));
            }
        }
        Ok(Self(all))
    }
}

fn meta(object: &Object) -> Option<&Object> {
    object.get(META).and_then(Json::as_object)
}

fn put(object: &mut Object, key: &'static str, value: Object) {
    let mut meta = match object.remove(META) {
        Some(Json::Object(meta)) => meta,
        _ => Object::new(),
    };
    meta.insert(key, value);
    object.insert(META, meta);
}

fn number(code: i64) -> Json {
    let text = code.to_string();
    // INVARIANT: digits with a sign are a number.
    crate::json::parse(text.as_bytes(), super::RECEIPT_LIMITS).unwrap_or(Json::Null)
}
