//! Hears everything that Stripe says of one payment while it is asked about, so that no proof of *never* is believed beside
//! a word that contradicts it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::Fate;
use farthing_payment::Payment;
use farthing_wire::{Json, Object};

use crate::answer::object;
use crate::api::{Answer, Api, Call, Kind, NoAnswer};
use crate::processor::PAYMENT_KEY;

/// An [`Api`] that remembers what it heard of one payment.
pub(crate) struct Witness {
    api: Arc<dyn Api>,
    payment: String,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// Some answer said that a charge of this payment succeeded.
    succeeded: bool,
    /// Whether the last word of a charge of this payment was that it is over.
    over: Option<bool>,
}

impl Witness {
    pub(crate) fn new(api: Arc<dyn Api>, payment: &Payment) -> Arc<Self> {
        Arc::new(Self { api, payment: payment.id.to_string(), heard: Mutex::default() })
    }

    /// What a verdict is worth, given all that was heard. Only *never* can be doubted: that it was paid is a charge's own
    /// word, and what is unclear is asked about again.
    pub(crate) fn weigh(&self, fate: Fate) -> Fate {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        match fate {
            Fate::Never(_) if heard.succeeded || heard.over == Some(false) => {
                tracing::error!(payment = %self.payment, "Stripe contradicts itself about a charge");
                Fate::Unclear(None)
            }
            fate => fate,
        }
    }

    fn hear(&self, call: &Call, answer: &Answer) {
        let Some(body) = object(&answer.body) else { return };
        let inside = body.get("error").and_then(Json::as_object);
        let inside = inside.and_then(|error| error.get("payment_intent")).and_then(Json::as_object);
        let listed = body.get("data").and_then(Json::as_array).unwrap_or_default();
        // A list is an answer to the question for one; elsewhere it may only cast doubt.
        let is_list = call.path == "v1/payment_intents" && call.kind == Kind::Get;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let direct = std::iter::once(&body).chain(inside).map(|intent| (intent, true));
        let listed = listed.iter().filter_map(Json::as_object).map(|intent| (intent, is_list));
        for (intent, counts) in direct.chain(listed) {
            let Some(status) = self.status_of(intent) else { continue };
            heard.succeeded |= status == "succeeded";
            if counts {
                heard.over = Some(matches!(status, "canceled" | "requires_payment_method"));
            }
        }
    }

    /// Of a charge that names this payment, whatever else is wrong with it.
    fn status_of<'a>(&self, intent: &'a Object) -> Option<&'a str> {
        let named = intent.get("metadata")?.as_object()?.get_str(PAYMENT_KEY)?;
        (named == self.payment).then(|| intent.get_str("status"))?
    }
}

#[async_trait]
impl Api for Witness {
    async fn call(&self, call: Call, within: Duration) -> Result<Answer, NoAnswer> {
        let answer = self.api.call(call.clone(), within).await?;
        self.hear(&call, &answer);
        Ok(answer)
    }
}
