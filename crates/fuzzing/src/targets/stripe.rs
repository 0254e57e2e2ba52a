//! What Stripe, or whoever sits between it and us, answers. Whatever it is, a payment counts as paid only by a charge
//! that names it and is whole, it comes to nothing only by a word that can be believed, and each request is one that may
//! be made.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::{BoxFuture, Fate, Funds, Processor, World};
use farthing_payment::{Binding, Bound, Dialect, Flow, NewPayment, Payment, Reason, Role, Terms};
use farthing_primitives::{PaymentId, RequestHash, TenantId, Timestamp};
use farthing_rails::method::{Method, MethodOffer};
use farthing_stripe::{
    Answer, Api, Call, Currency, Kind, LINGER, NoAnswer, PAYMENT_KEY, POST_AGAIN_FOR, StripeCharge,
    StripeProcessor,
};
use farthing_wire::mpp::stripe::ChargePayload;
use farthing_wire::mpp::{Challenge, Credential, EncodedRequest, IntentName};
use futures_util::FutureExt;
use serde_json::{Value, json};

use super::is_short;
use crate::input::Input;
use crate::money::NOW;

const CENTS: u64 = 50;
const INTENTS: &[&str] = &["pi_1", "pi_2", "pi_", "pi_../x", ""];
const STATUSES: &[&str] = &[
    "succeeded",
    "canceled",
    "processing",
    "requires_action",
    "requires_capture",
    "requires_payment_method",
    "new",
];
const KINDS: &[&str] = &["card_error", "invalid_request_error", "idempotency_error", "api_error", ""];
const CODES: &[&str] =
    &["card_declined", "authentication_required", "resource_missing", "expired_card", "\u{1b}"];
const HTTP: &[u16] = &[200, 200, 200, 201, 302, 400, 401, 402, 403, 404, 409, 424, 429, 500, 503];
/// No fate is worth more questions than a whole list has pages, and a few.
const MOST_CALLS: usize = 110;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (what, age) = (input.byte() % 4, Duration::from_secs(u64::from(input.u16()) * 2));
    let mut answers = VecDeque::new();
    while !input.is_empty() {
        answers.push_back(answer(&mut input));
    }
    let stand_in = Arc::new(StandIn { answers: Mutex::new(answers), ..StandIn::default() });
    let processor = StripeProcessor::new(stand_in.clone(), Arc::new(Still), true);
    let payment = payment();
    // Nothing here waits for anything but answers, and those are there.
    match what {
        0 => {
            let funds = processor.check(payment).now_or_never().expect("no waiting");
            checked(&funds, &stand_in.seen());
        }
        1 => {
            let fate = processor.charge(payment).now_or_never().expect("no waiting");
            believed(&fate, &stand_in.seen(), Duration::ZERO, true);
        }
        _ => {
            let fate = processor.find_out(payment, NOW.minus(age)).now_or_never().expect("no waiting");
            believed(&fate, &stand_in.seen(), age, false);
        }
    }
    asked(&stand_in.seen());
}

/// One answer: none at all, anything, or nearly what Stripe sends.
fn answer(input: &mut Input<'_>) -> Option<Answer> {
    let how = input.byte();
    let (status, replayed) = (*input.pick(HTTP), how & 16 == 16);
    let body = match how % 8 {
        0 => return None,
        1 => input.blob().to_vec(),
        2 => json!({ "error": error(input) }).to_string().into_bytes(),
        3 => {
            let data: Vec<Value> = (0..input.byte() % 4).map(|_| intent(input)).collect();
            json!({ "data": data, "has_more": input.flag() }).to_string().into_bytes()
        }
        4 => {
            let limits = json!({ "currency": *input.pick(&["usd", "eur"]), "max_amount": input.byte(), "expires_at": input.u64() });
            let gone = if input.flag() { json!(1) } else { Value::Null };
            json!({ "id": "spt_1", "deactivated_at": gone, "usage_limits": limits }).to_string().into_bytes()
        }
        _ => intent(input).to_string().into_bytes(),
    };
    Some(Answer { status, replayed, body: body.into() })
}

fn error(input: &mut Input<'_>) -> Value {
    let inside = if input.flag() { intent(input) } else { Value::Null };
    json!({ "type": input.pick(KINDS), "code": input.pick(CODES), "param": "amount", "payment_intent": inside })
}

/// A PaymentIntent, mostly of our payment and mostly whole.
fn intent(input: &mut Input<'_>) -> Value {
    let (id, status) = (*input.pick(INTENTS), *input.pick(STATUSES));
    let odd = input.byte();
    let amount = if odd & 1 == 1 { json!(input.byte()) } else { json!(CENTS) };
    let received = match odd >> 1 & 3 {
        0 => Value::Null,
        1 => json!(CENTS),
        2 => json!(input.byte()),
        _ => json!("50"),
    };
    let currency = if odd & 8 == 8 { "eur" } else { "usd" };
    let whose = match odd >> 4 & 3 {
        0 | 1 => payment().id.to_string(),
        2 => PaymentId::from_bytes([9; 16]).to_string(),
        _ => String::new(),
    };
    let metadata = json!({ PAYMENT_KEY: whose });
    json!({ "id": id, "status": status, "amount": amount, "amount_received": received, "currency": currency, "metadata": metadata })
}

/// Answers in order, and then not at all.
#[derive(Default)]
struct StandIn {
    answers: Mutex<VecDeque<Option<Answer>>>,
    calls: Mutex<Vec<(Call, Option<Answer>)>>,
}

impl StandIn {
    fn seen(&self) -> Vec<(Call, Option<Answer>)> {
        self.calls.lock().expect("whole").clone()
    }
}

#[async_trait]
impl Api for StandIn {
    async fn call(&self, call: Call, _: Duration) -> Result<Answer, NoAnswer> {
        let answer = self.answers.lock().expect("whole").pop_front().flatten();
        self.calls.lock().expect("whole").push((call, answer.clone()));
        answer.ok_or(NoAnswer)
    }
}

/// A world in which no time passes.
struct Still;

impl World for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
    fn spawn(&self, _: BoxFuture<'static, ()>) {}
    fn random(&self, into: &mut [u8]) {
        into.fill(7);
    }
}

/// Half a dollar, claimed by what a credential presents.
fn payment() -> &'static Payment {
    static PAYMENT: OnceLock<Payment> = OnceLock::new();
    PAYMENT.get_or_init(|| {
        let method = Arc::new(StripeCharge::new("profile_1", vec!["card".to_owned()]).expect("a method"));
        let money = Currency::price("0.50 USD", method.network()).expect("a price");
        let offer = MethodOffer { method: method.clone(), money, external_id: None };
        let request = method.request(&offer).expect("offered");
        let challenge = Challenge {
            id: "challenge-1".to_owned(),
            realm: "shop.example".to_owned(),
            method: method.name().clone(),
            intent: IntentName::charge(),
            request: EncodedRequest::new(request.to_object()).expect("short"),
            description: None,
            digest: None,
            expires: None,
            header: None,
            opaque: None,
        };
        let payload = ChargePayload { token: "spt_1".to_owned(), external_id: None };
        let credential = Credential::new(challenge, payload.to_object(), None);
        let shown = method.read(&credential).expect("right");
        let terms = Terms {
            payer: shown.payer,
            payee: shown.payee,
            money: shown.money,
            expires: NOW.plus(Duration::from_secs(60)),
            dialect: Dialect::Mpp,
            instruction: shown.instruction,
        };
        let binding = Binding {
            method: "GET".to_owned(),
            resource: "/report".to_owned(),
            request: RequestHash([0; 32]),
            bound: Bound::ByOffer,
            repeatable: true,
        };
        let new = NewPayment {
            id: PaymentId::new(NOW, [1; 10]),
            tenant: TenantId::local(),
            key: shown.key,
            role: Role::Seller,
            flow: Flow::Authorization,
            terms,
            binding,
        };
        Payment::claim(new, NOW).0
    })
}

/// The charges of our payment in what Stripe answered, in order: id, status, and whether each is whole.
fn charges(seen: &[(Call, Option<Answer>)]) -> Vec<(String, String, bool)> {
    let ours = |intent: &Value| {
        let is_ours = intent["metadata"][PAYMENT_KEY] == payment().id.to_string().as_str();
        let (id, status) = (intent["id"].as_str()?, intent["status"].as_str()?);
        let received = &intent["amount_received"];
        let whole = intent["amount"] == CENTS
            && intent["currency"] == "usd"
            && (received.as_u64().is_none() || *received == CENTS);
        is_ours.then(|| (id.to_owned(), status.to_owned(), whole))
    };
    let mut all = Vec::new();
    for (call, answer) in seen {
        let body = answer.as_ref().and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
        let Some(body) = body else { continue };
        // A list is the answer to a question for one, and nowhere else.
        let list = call.path == "v1/payment_intents" && call.kind == Kind::Get;
        let listed = body["data"].as_array().filter(|_| list).into_iter().flatten();
        all.extend([&body, &body["error"]["payment_intent"]].into_iter().chain(listed).filter_map(ours));
    }
    all
}

fn believed(fate: &Fate, seen: &[(Call, Option<Answer>)], age: Duration, first: bool) {
    let charges = charges(seen);
    match fate {
        Fate::Paid(tx) => {
            let paid = |(id, status, whole): &(String, String, bool)| {
                id == tx.as_str() && status == "succeeded" && *whole
            };
            assert!(charges.iter().any(paid), "paid by {tx:?} of {charges:?}");
        }
        Fate::Never(reason) => {
            is_reason(reason);
            assert!(!charges.iter().any(|(_, status, _)| status == "succeeded"), "never, and {charges:?}");
            // The last word of a charge is that it is over.
            if let Some((_, status, _)) = charges.last() {
                assert!(["canceled", "requires_payment_method"].contains(&status.as_str()), "{charges:?}");
            }
            let answers: Vec<&Answer> = seen.iter().filter_map(|(_, answer)| answer.as_ref()).collect();
            assert!(!answers.is_empty(), "silence is no word");
            // It is the word of a charge, or of an answer that is one: not of a service that is busy or broken.
            let spoke = |answer: &&Answer| (200..=404).contains(&answer.status);
            assert!(!charges.is_empty() || answers.iter().any(spoke), "{answers:?}");
            // An empty list says nothing while a request may be under way.
            let listed = |answer: &&Answer| answer.body.windows(6).any(|word| word == b"\"data\"");
            if !first && age < LINGER && charges.is_empty() {
                assert!(!answers.iter().all(listed), "an empty list says nothing so early");
            }
        }
        Fate::Unclear(tx) => {
            let known = |tx: &&str| charges.iter().any(|(id, _, _)| id == tx);
            assert!(tx.as_ref().is_none_or(|tx| known(&tx.as_str())), "{tx:?} of {charges:?}");
        }
    }
}

fn checked(funds: &Funds, seen: &[(Call, Option<Answer>)]) {
    let [(_, answer)] = seen else { panic!("{} questions", seen.len()) };
    match funds {
        Funds::Confirmed => {
            let answer = answer.as_ref().expect("silence confirms nothing");
            let shown: Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert!(answer.status == 200 && shown["deactivated_at"].is_null());
            let limits = &shown["usage_limits"];
            assert!(limits["max_amount"].as_u64().is_none_or(|most| most >= CENTS));
            assert!(limits["currency"].as_str().is_none_or(|currency| currency == "usd"));
            assert!(limits["expires_at"].as_u64().is_none_or(|at| Timestamp::from_secs(at) > NOW));
        }
        Funds::Refused(reason) => {
            is_reason(reason);
            assert!(answer.is_some(), "silence refuses nothing");
        }
        Funds::Unavailable(_) => {}
    }
}

fn is_reason(reason: &Reason) {
    is_short(reason);
    assert!(reason.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason:?}");
}

/// What we ask: at most one charge, always the same, under the same key; and nothing that a stranger wrote is in a path.
fn asked(seen: &[(Call, Option<Answer>)]) {
    assert!(seen.len() <= MOST_CALLS, "{} questions", seen.len());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/_-".contains(&b);
    assert!(seen.iter().all(|(call, _)| call.path.bytes().all(plain) && !call.path.contains("//")));
    let charges: Vec<&Call> = seen
        .iter()
        .map(|(call, _)| call)
        .filter(|call| call.path == "v1/payment_intents" && call.kind != Kind::Get)
        .collect();
    assert!(charges.len() <= 1);
    static ONE: OnceLock<Call> = OnceLock::new();
    for charge in charges {
        assert_eq!(ONE.get_or_init(|| charge.clone()), charge);
        assert_eq!(charge.kind, Kind::Post(Some("mpp_challenge-1_spt_1".to_owned())));
    }
    // After so long Stripe may have forgotten the key.
    assert!(POST_AGAIN_FOR < Duration::from_secs(24 * 3600));
}
