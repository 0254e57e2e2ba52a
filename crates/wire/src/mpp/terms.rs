use super::{
    Challenge, ChargeRequest, Credential, IntentName, MethodName, MppError, SessionRequest,
    SubscriptionRequest, evm, stripe, tempo,
};
use crate::Object;

/// What a challenge asks for, as far as we know its method and intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Terms {
    EvmCharge(evm::Charge),
    EvmSession(Box<evm::Session>),
    StripeCharge(stripe::Charge),
    TempoCharge(tempo::Charge),
    /// A charge by a method that we do not know: what all charges have, and the details unread.
    Charge(ChargeRequest),
    Session(SessionRequest),
    Subscription(SubscriptionRequest),
    /// An intent that we do not know.
    Other(Object),
}

/// What a credential shows, as far as we know its method and intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    EvmCharge(evm::ChargePayload),
    EvmSession(Box<evm::SessionPayload>),
    StripeCharge(stripe::ChargePayload),
    TempoCharge(tempo::ChargePayload),
    /// For a module of that method to read.
    Other(Object),
}

impl Challenge {
    /// Reads the request by the rules of the challenge's method and intent.
    ///
    /// # Errors
    /// [`MppError`] if the method's rules are broken: a buyer passes over such a challenge. What is unknown is no error.
    pub fn terms(&self) -> Result<Terms, MppError> {
        let request = self.request.object();
        Ok(match (self.method.as_str(), self.intent.as_str()) {
            (MethodName::EVM, IntentName::CHARGE) => {
                Terms::EvmCharge(evm::Charge::from_request(&ChargeRequest::from_object(request)?)?)
            }
            (MethodName::EVM, IntentName::SESSION) => {
                let session = evm::Session::from_request(&SessionRequest::from_object(request)?)?;
                Terms::EvmSession(Box::new(session))
            }
            (MethodName::STRIPE, IntentName::CHARGE) => {
                Terms::StripeCharge(stripe::Charge::from_request(ChargeRequest::from_object(request)?)?)
            }
            (MethodName::TEMPO, IntentName::CHARGE) => {
                Terms::TempoCharge(tempo::Charge::from_request(ChargeRequest::from_object(request)?)?)
            }
            (_, IntentName::CHARGE) => Terms::Charge(ChargeRequest::from_object(request)?),
            (_, IntentName::SESSION) => Terms::Session(SessionRequest::from_object(request)?),
            (_, IntentName::SUBSCRIPTION) => Terms::Subscription(SubscriptionRequest::from_object(request)?),
            _ => Terms::Other(request.clone()),
        })
    }
}

impl Credential {
    /// Reads the payload by the rules of the challenge's method and intent.
    ///
    /// # Errors
    /// [`MppError`], which [`MppError::payload_problem`] tells the client.
    pub fn payload(&self) -> Result<Payload, MppError> {
        let payload = &self.payload;
        Ok(match (self.challenge.method.as_str(), self.challenge.intent.as_str()) {
            (MethodName::EVM, IntentName::CHARGE) => {
                Payload::EvmCharge(evm::ChargePayload::from_object(payload)?)
            }
            (MethodName::EVM, IntentName::SESSION) => {
                Payload::EvmSession(Box::new(evm::SessionPayload::from_object(payload)?))
            }
            (MethodName::STRIPE, IntentName::CHARGE) => {
                Payload::StripeCharge(stripe::ChargePayload::from_object(payload)?)
            }
            (MethodName::TEMPO, IntentName::CHARGE) => {
                Payload::TempoCharge(tempo::ChargePayload::from_object(payload)?)
            }
            _ => Payload::Other(payload.clone()),
        })
    }
}
