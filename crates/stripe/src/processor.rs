//! What is done with money: a token is looked at, charged, and the charge found out about.
//!
//! # Whose a charge is
//!
//! Under one idempotency key Stripe makes one charge, and gives its answer again to whoever repeats the request. The draft
//! and the published package refuse an answer that is a repetition: somebody else made that charge. Our own request after
//! a time-out is answered by a repetition too, and that is our own success. What tells them apart is durable and the same
//! in every process: each charge has our payment's id in its metadata, which no other payment has. So
//!
//! - a repetition of a charge that names our payment is ours, whichever process of ours asked first;
//! - one that names none, or another, is somebody else's: refused;
//! - the same key with other metadata is refused by Stripe itself (`idempotency_error`), which on our first request means
//!   the same.
//!
//! # What proves *never*
//!
//! A time-out is no failure. A charge came to nothing for certain only if
//!
//! 1. our first request was answered by an error that Stripe sends before it executes anything (a wrong parameter, a
//!    wrong key of ours), or by a decline, or by somebody else's repetition;
//! 2. a later request was answered by a decline: results of what was executed are kept under the key for a day;
//! 3. its PaymentIntent is canceled, by us or by anybody, or awaits a payment method that nobody will give it;
//! 4. no PaymentIntent that names our payment is in the whole list of those made since, and no request of ours can be
//!    under way any more: because Stripe has just refused another for a reason that is not kept, and [`LINGER`] has passed
//!    since the first; or because that long has passed since the last could have been sent.
//!
//! A request is repeated for [`POST_AGAIN_FOR`] and no longer: Stripe forgets keys after a day, and would then make a
//! second charge. What cannot be told by then is looked up, and stays unknown until it can be.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::{Fate, Funds, Processor, World};
use farthing_payment::{Fault, Payment, Reason, TxRef};
use farthing_primitives::Timestamp;

use crate::answer::{Failure, Granted, Intent, Page, Status, is_intent_id};
use crate::api::{Answer, Api, Call};
use crate::instruction::Charge;
use crate::method::idempotency_key;
use crate::witness::Witness;

/// What a charge's metadata calls our payment.
pub const PAYMENT_KEY: &str = "farthing_payment";
/// How long the same request is made again. Stripe keeps a key for a day at least; the rest is for a clock that is wrong.
///
/// Source: Stripe API reference, "Idempotent requests".
pub const POST_AGAIN_FOR: Duration = Duration::from_secs(20 * 3600);
/// How long after it was sent a request may still be under way.
pub const LINGER: Duration = Duration::from_secs(600);

/// How long a token may take to be looked at.
const CHECK_WITHIN: Duration = Duration::from_secs(10);
/// How long a charge may take: so that a repetition of it is answered while its buyer still waits.
const CHARGE_WITHIN: Duration = Duration::from_secs(20);
const LOOK_WITHIN: Duration = Duration::from_secs(20);
/// How many PaymentIntents are asked for at a time, and how many pages are read at most.
const PAGE: usize = 100;
const MAX_PAGES: usize = 100;
/// By how much our clock and Stripe's may differ.
const SKEW: Duration = Duration::from_secs(3600);

/// Charges through Stripe.
pub struct StripeProcessor {
    api: Arc<dyn Api>,
    world: Arc<dyn World>,
    check_tokens: bool,
}

impl std::fmt::Debug for StripeProcessor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StripeProcessor")
    }
}

/// What a list of PaymentIntents shows.
enum Sought {
    Found(Box<Intent>),
    /// The whole list has none of this payment.
    Nowhere,
    /// It could not be read, or is too long to be read to its end.
    Unread,
}

impl StripeProcessor {
    /// `check_tokens`: whether a token is looked at before the upstream is called.
    pub fn new(api: Arc<dyn Api>, world: Arc<dyn World>, check_tokens: bool) -> Self {
        Self { api, world, check_tokens }
    }

    /// Spec: draft-stripe-charge-00, "Settlement Procedure", step 2; what the published package sends, and our payment's
    /// id.
    async fn post(&self, payment: &Payment, charge: &Charge) -> Option<Answer> {
        let key = idempotency_key(&charge.challenge, &charge.token);
        let mut call = Call::post("v1/payment_intents", Some(key))
            .with("amount", charge.amount.to_string())
            .with("currency", charge.currency.as_str())
            .with("shared_payment_granted_token", charge.token.as_str())
            .with("confirm", "true")
            .with("automatic_payment_methods[enabled]", "true")
            .with("automatic_payment_methods[allow_redirects]", "never")
            .with("metadata[mpp_intent]", "charge")
            .with("metadata[mpp_challenge_id]", charge.challenge.as_str())
            .with("metadata[mpp_server_id]", charge.realm.as_str())
            .with(format!("metadata[{PAYMENT_KEY}]"), payment.id.to_string());
        if let Some(external_id) = &charge.external_id {
            call = call.with("metadata[external_id]", external_id.as_str());
        }
        self.api.call(call, CHARGE_WITHIN).await.ok()
    }

    async fn look(&self, id: &str) -> Option<Intent> {
        let call = Call::get(format!("v1/payment_intents/{id}"));
        let answer = self.api.call(call, LOOK_WITHIN).await.ok()?;
        Intent::read(&answer.body).filter(|intent| answer.status == 200 && intent.id == id)
    }

    /// What an answer to a charge means, if it has a PaymentIntent that names our payment.
    async fn judge(
        &self,
        payment: &Payment,
        charge: &Charge,
        intent: Intent,
        declined: Option<Reason>,
    ) -> Fate {
        let tx = TxRef::new(intent.id.as_str());
        // One of another amount is not the one that we asked for, whatever became of it: it proves nothing.
        if intent.amount != Some(charge.amount) || intent.currency != charge.currency {
            tracing::error!(payment = %payment.id, intent = %intent.id, "Stripe's charge is of another amount than it was told");
            return Fate::Unclear(Some(tx));
        }
        match intent.status {
            Status::Succeeded if intent.received.is_none_or(|received| received == charge.amount) => {
                Fate::Paid(tx)
            }
            Status::Succeeded => {
                tracing::error!(payment = %payment.id, intent = %intent.id, "Stripe received another amount than it was told");
                Fate::Unclear(Some(tx))
            }
            Status::Canceled => Fate::Never(declined.unwrap_or_else(action_required)),
            // Nobody will: its secret never leaves us, and we confirm nothing twice.
            Status::RequiresPaymentMethod => Fate::Never(declined.unwrap_or_else(|| payer("card_declined"))),
            Status::RequiresAction => self.cancel(payment, charge, &intent.id, declined).await,
            Status::Processing => Fate::Unclear(Some(tx)),
            Status::Other => {
                tracing::error!(payment = %payment.id, intent = %intent.id, "a PaymentIntent in a state that we do not know");
                Fate::Unclear(Some(tx))
            }
        }
    }

    /// Somebody would have to do something, and nobody is there to: it is ended, so that no money can move later.
    ///
    /// Canceling twice changes nothing, so it bears no idempotency key, under which a refusal would be kept.
    async fn cancel(&self, payment: &Payment, charge: &Charge, id: &str, declined: Option<Reason>) -> Fate {
        let unclear = Fate::Unclear(Some(TxRef::new(id)));
        let call = Call::post(format!("v1/payment_intents/{id}/cancel"), None)
            .with("cancellation_reason", "abandoned");
        let answer = self.api.call(call, LOOK_WITHIN).await;
        let canceled = answer.ok().filter(|answer| answer.status == 200);
        let canceled = canceled.and_then(|answer| Intent::read(&answer.body));
        // An answer that names another payment, or none, is no word about this one.
        let over =
            |intent: Intent| intent.id == id && names(&intent, payment) && intent.status == Status::Canceled;
        if canceled.is_some_and(over) {
            return Fate::Never(declined.unwrap_or_else(action_required));
        }
        // Canceled already, or not to be canceled any more: its own state says which.
        match self.look(id).await.filter(|intent| names(intent, payment)) {
            Some(intent) if intent.status != Status::RequiresAction => {
                Box::pin(self.judge(payment, charge, intent, declined)).await
            }
            _ => unclear,
        }
    }

    /// An intent of an answer may be as it was long ago: what it is now counts.
    async fn as_of_now(&self, payment: &Payment, intent: Intent, replayed: bool) -> Intent {
        // A success is not taken back; money that was sent back is another story.
        if !replayed || intent.status == Status::Succeeded {
            return intent;
        }
        let id = intent.id.clone();
        let now = self.look(&id).await.filter(|now| names(now, payment));
        now.unwrap_or(Intent { status: Status::Processing, ..intent })
    }

    /// `first`: nothing was sent in this payment's name before.
    async fn took(
        &self,
        payment: &Payment,
        charge: &Charge,
        answer: Option<Answer>,
        first: bool,
        since: Timestamp,
    ) -> Fate {
        let Some(answer) = answer else { return Fate::Unclear(None) };
        if (200..300).contains(&answer.status) {
            let Some(intent) = Intent::read(&answer.body) else { return Fate::Unclear(None) };
            if !names(&intent, payment) {
                if answer.replayed {
                    return Fate::Never(somebody_elses());
                }
                tracing::error!(payment = %payment.id, intent = %intent.id, "Stripe made a charge that does not name our payment");
                return Fate::Unclear(None);
            }
            let intent = self.as_of_now(payment, intent, answer.replayed).await;
            return self.judge(payment, charge, intent, None).await;
        }
        let Some(failure) = Failure::read(&answer.body) else {
            tracing::warn!(payment = %payment.id, status = answer.status, "not an answer of Stripe's");
            return Fate::Unclear(None);
        };
        let reason = reason_of(&failure, answer.status);
        match answer.status {
            _ if failure.intent.as_ref().is_some_and(|intent| names(intent, payment)) => {
                let Some(intent) = failure.intent else { return Fate::Unclear(None) };
                let intent = self.as_of_now(payment, intent, answer.replayed).await;
                self.judge(payment, charge, intent, Some(reason)).await
            }
            // Executed, and its result kept under the key: whichever request of ours it was, this is what became of it.
            402 if failure.kind == "card_error" => Fate::Never(reason),
            // The key was used before, and not by us.
            400 if first && failure.kind == "idempotency_error" => Fate::Never(somebody_elses()),
            // Refused before anything was executed.
            400..=404 if first => {
                tracing::warn!(
                    payment = %payment.id, status = answer.status, kind = %failure.kind, code = %failure.code,
                    param = %failure.param, "Stripe refuses a charge"
                );
                Fate::Never(reason)
            }
            // Our key does not open any more: that says nothing of what it opened before.
            401 | 403 => Fate::Unclear(None),
            // This one was refused without being executed, and such a result is not kept: an earlier one may have
            // been executed all the same, if it is not known under the key.
            400 | 402 | 404 => self.seek(payment, charge, since, true, reason).await,
            // What failed in the middle is kept under the key as a failure, and may have made a charge.
            500.. if answer.replayed => self.seek(payment, charge, since, false, reason).await,
            // Busy, or at it: ask again.
            _ => Fate::Unclear(None),
        }
    }

    /// Looks through all PaymentIntents since the attempt. `settled`: no request of ours can be under way but a late one.
    async fn seek(
        &self,
        payment: &Payment,
        charge: &Charge,
        since: Timestamp,
        settled: bool,
        reason: Reason,
    ) -> Fate {
        match self.search(payment, since).await {
            Sought::Found(intent) => self.judge(payment, charge, *intent, None).await,
            Sought::Nowhere if settled && self.world.now().since(since) >= LINGER => Fate::Never(reason),
            Sought::Nowhere => Fate::Unclear(None),
            Sought::Unread => {
                tracing::warn!(payment = %payment.id, "the list of PaymentIntents cannot be read to its end");
                Fate::Unclear(None)
            }
        }
    }

    async fn search(&self, payment: &Payment, since: Timestamp) -> Sought {
        let (from, to) = (since.minus(SKEW), since.plus(POST_AGAIN_FOR).plus(SKEW));
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut call = Call::get("v1/payment_intents")
                .with("limit", PAGE.to_string())
                .with("created[gte]", secs(from).to_string())
                .with("created[lte]", secs(to).to_string());
            if let Some(after) = &after {
                call = call.with("starting_after", after.as_str());
            }
            let Ok(answer) = self.api.call(call, LOOK_WITHIN).await else { return Sought::Unread };
            let Some(page) = Page::read(&answer.body).filter(|_| answer.status == 200) else {
                return Sought::Unread;
            };
            after = page.intents.last().map(|intent| intent.id.clone());
            let mut ours = page.intents.into_iter().filter(|intent| names(intent, payment));
            match (ours.next(), ours.next()) {
                (None, _) => {}
                (Some(intent), None) => return Sought::Found(Box::new(intent)),
                // Under one key there is one. Which of several is the payment's is not for us to say.
                (Some(_), Some(_)) => {
                    tracing::error!(payment = %payment.id, "Stripe lists several charges that name one payment");
                    return Sought::Unread;
                }
            }
            match (page.has_more, &after) {
                (false, _) => return Sought::Nowhere,
                // More, and nothing to go on from.
                (true, None) => return Sought::Unread,
                (true, Some(_)) => {}
            }
        }
        Sought::Unread
    }
}

#[async_trait]
impl Processor for StripeProcessor {
    /// Spec: draft-stripe-charge-00, "Verification Procedure", step 5.
    async fn check(&self, payment: &Payment) -> Funds {
        let Some(charge) = Charge::recall(&payment.terms.instruction) else {
            return Funds::Unavailable("instruction");
        };
        if !self.check_tokens {
            return Funds::Confirmed;
        }
        // INVARIANT: a token is letters, digits, `_` and `-`, so that it is one segment of a path; `read` sees to it.
        let call = Call::get(format!("v1/shared_payment/granted_tokens/{}", charge.token));
        let Ok(answer) = self.api.call(call, CHECK_WITHIN).await else { return Funds::Unavailable("stripe") };
        match answer.status {
            200 => {}
            400 | 404 => return Funds::Refused(payer("token_unknown")),
            status => {
                tracing::warn!(payment = %payment.id, status, "Stripe does not show a token");
                return Funds::Unavailable("stripe");
            }
        }
        let Some(granted) = Granted::read(&answer.body) else { return Funds::Unavailable("stripe") };
        let refused = |code| Funds::Refused(payer(code));
        if granted.deactivated {
            return refused("token_used_up");
        }
        if granted.expires.is_some_and(|expires| expires <= self.world.now()) {
            return refused("token_expired");
        }
        if granted.currency.is_some_and(|currency| currency != charge.currency) {
            return refused("token_for_other_currency");
        }
        if granted.max_amount.is_some_and(|most| most < charge.amount) {
            return refused("token_for_less");
        }
        Funds::Confirmed
    }

    async fn charge(&self, payment: &Payment) -> Fate {
        let (this, witness) = self.heard(payment);
        witness.weigh(this.charge_once(payment).await)
    }

    async fn find_out(&self, payment: &Payment, since: Timestamp) -> Fate {
        let (this, witness) = self.heard(payment);
        witness.weigh(this.ask(payment, since).await)
    }
}

impl StripeProcessor {
    /// The same, with somebody who hears all that is said.
    fn heard(&self, payment: &Payment) -> (Self, Arc<Witness>) {
        let witness = Witness::new(self.api.clone(), payment);
        let this = Self { api: witness.clone(), world: self.world.clone(), check_tokens: self.check_tokens };
        (this, witness)
    }

    async fn charge_once(&self, payment: &Payment) -> Fate {
        let Some(charge) = Charge::recall(&payment.terms.instruction) else { return Fate::Unclear(None) };
        let answer = self.post(payment, &charge).await;
        self.took(payment, &charge, answer, true, self.world.now()).await
    }

    async fn ask(&self, payment: &Payment, since: Timestamp) -> Fate {
        let Some(charge) = Charge::recall(&payment.terms.instruction) else { return Fate::Unclear(None) };
        if let Some(id) = payment.tx().map(TxRef::as_str).filter(|id| is_intent_id(id)) {
            return match self.look(id).await.filter(|intent| names(intent, payment)) {
                Some(intent) => self.judge(payment, &charge, intent, None).await,
                None => Fate::Unclear(None),
            };
        }
        let age = self.world.now().since(since);
        if age < POST_AGAIN_FOR {
            let answer = self.post(payment, &charge).await;
            return self.took(payment, &charge, answer, false, since).await;
        }
        let settled = age >= POST_AGAIN_FOR + LINGER;
        self.seek(payment, &charge, since, settled, Reason::new("never_charged", Fault::Us)).await
    }
}

/// Whether a PaymentIntent was made for this payment.
fn names(intent: &Intent, payment: &Payment) -> bool {
    intent.metadata(PAYMENT_KEY) == Some(payment.id.to_string().as_str())
}

fn secs(at: Timestamp) -> u64 {
    at.since(Timestamp::from_secs(0)).as_secs()
}

fn payer(code: &str) -> Reason {
    Reason::new(code, Fault::Payer)
}

fn action_required() -> Reason {
    payer("payment_action_required")
}

/// Spec: draft-stripe-charge-00, "SPT Single-Use Constraint"; the published package refuses it so.
fn somebody_elses() -> Reason {
    payer("payment_already_processed")
}

/// Why Stripe says no, as far as a buyer may know.
///
/// Source: docs.stripe.com/declines/codes: whoever pays with a stolen card is not told that it is known.
fn reason_of(failure: &Failure, status: u16) -> Reason {
    const TOLD: &[&str] = &[
        "card_not_supported",
        "currency_not_supported",
        "expired_card",
        "incorrect_cvc",
        "incorrect_number",
        "incorrect_zip",
        "insufficient_funds",
        "invalid_account",
        "invalid_amount",
        "issuer_not_available",
        "processing_error",
        "try_again_later",
        "withdrawal_count_limit_exceeded",
    ];
    if matches!(status, 401 | 403) {
        return Reason::new("stripe_refuses_us", Fault::Us);
    }
    if failure.kind == "card_error" || status == 402 {
        let code = if failure.decline_code.is_empty() { &failure.code } else { &failure.decline_code };
        return match code.as_str() {
            "authentication_required" => action_required(),
            code if TOLD.contains(&code) => payer(code),
            _ => payer("card_declined"),
        };
    }
    match (failure.code.as_str(), failure.param.as_str()) {
        // Nothing that a buyer could mend.
        ("amount_too_small" | "amount_too_large", _) => Reason::new(&failure.code, Fault::Us),
        (_, "shared_payment_granted_token") | ("resource_missing", _) => payer("token_not_accepted"),
        _ => Reason::new("stripe_refuses_charge", Fault::Us),
    }
}
