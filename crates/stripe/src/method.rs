//! What `stripe/charge` says, and what its credentials present. Asks nobody.

use farthing_payment::ConsumptionKey;
use farthing_primitives::{Address, Money, Network};
use farthing_rails::method::{Declined, Method, MethodOffer, Presented};
use farthing_wire::mpp::stripe::Charge as WireCharge;
use farthing_wire::mpp::{ChargeRequest, Credential, MethodName, Payload, Terms};
use sha2::{Digest, Sha256};

use crate::currency::Currency;
use crate::instruction::Charge;

/// The longest token that is taken, in bytes: with a challenge's id it has to fit an idempotency key.
pub const MAX_TOKEN_BYTES: usize = 200;
/// The longest idempotency key that Stripe takes.
///
/// Source: Stripe API reference, "Idempotent requests".
const MAX_KEY_BYTES: usize = 255;
/// The longest name of a profile, in bytes.
const MAX_PROFILE_BYTES: usize = 128;
/// The longest value of metadata, in characters.
///
/// Source: Stripe API reference, "Metadata".
const MAX_METADATA: usize = 500;
/// The most characters of a CAIP-2 reference.
const MAX_REFERENCE: usize = 32;
/// Who pays is for Stripe to know: to us they all have one name.
const PAYER: &str = "shared-payment-token";

/// Why there is no such method.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    #[error("not the id of a Stripe profile: up to {MAX_PROFILE_BYTES} letters, digits, \"_\" and \"-\"")]
    Profile,
    #[error("needs at least one payment method type, e.g. \"card\"")]
    NoType,
    #[error("not a payment method type (expected e.g. \"card\"): lower-case letters, digits and \"_\"")]
    Type,
}

/// The method, for one seller's profile.
#[derive(Debug, Clone)]
pub struct StripeCharge {
    name: MethodName,
    network: Network,
    network_id: String,
    payee: Address,
    payer: Address,
    types: Vec<String>,
}

impl StripeCharge {
    /// `network_id` is the seller's Business Network Profile, `types` what can be paid with.
    pub fn new(network_id: &str, types: Vec<String>) -> Result<Self, MethodError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if network_id.is_empty() || network_id.len() > MAX_PROFILE_BYTES || !network_id.bytes().all(plain) {
            return Err(MethodError::Profile);
        }
        if types.is_empty() {
            return Err(MethodError::NoType);
        }
        let is_type = |text: &String| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            !text.is_empty() && text.len() <= 64 && text.bytes().all(plain)
        };
        if !types.iter().all(is_type) {
            return Err(MethodError::Type);
        }
        let network = network_of(network_id).ok_or(MethodError::Profile)?;
        let payee = Address::parse(&network, network_id).map_err(|_| MethodError::Profile)?;
        let payer = Address::parse(&network, PAYER).map_err(|_| MethodError::Profile)?;
        Ok(Self {
            name: MethodName::stripe(),
            network,
            network_id: network_id.to_owned(),
            payee,
            payer,
            types,
        })
    }
}

/// Where money is that Stripe holds for a profile. Its name is the profile's where that is short enough, else the
/// beginning of it and a hash: two profiles never share books.
fn network_of(network_id: &str) -> Option<Network> {
    if network_id.len() <= MAX_REFERENCE {
        return format!("stripe:{network_id}").parse().ok();
    }
    let hash = hex::encode(Sha256::digest(network_id.as_bytes()));
    let head = network_id.strip_prefix("profile_").unwrap_or(network_id);
    let (head, hash) = (head.get(..16).unwrap_or(head), hash.get(..15)?);
    format!("stripe:{head}-{hash}").parse().ok()
}

impl Method for StripeCharge {
    fn name(&self) -> &MethodName {
        &self.name
    }

    fn network(&self) -> &Network {
        &self.network
    }

    /// Below the least that Stripe charges, there is no offer.
    ///
    /// Spec: draft-stripe-charge-00, "Request Schema".
    fn request(&self, offer: &MethodOffer) -> Option<ChargeRequest> {
        let currency = Currency::of(&offer.money)?;
        if *offer.money.asset().network() != self.network || !currency.takes(offer.money.atoms()) {
            return None;
        }
        let mut charge = ChargeRequest::new(offer.money.atoms(), currency.code);
        charge.external_id.clone_from(&offer.external_id);
        let charge = WireCharge {
            charge,
            network_id: self.network_id.clone(),
            payment_method_types: self.types.clone(),
            metadata: None,
        };
        Some(charge.to_request())
    }

    fn read(&self, credential: &Credential) -> Result<Presented, Declined> {
        let Ok(Terms::StripeCharge(asked)) = credential.challenge.terms() else {
            return Err(Declined::CHALLENGE);
        };
        let currency = Currency::named(&asked.charge.currency).ok_or(Declined::CHALLENGE)?;
        let asset = currency.asset(&self.network).ok_or(Declined::CHALLENGE)?;
        let money = Money::new(asset.id, asked.charge.amount);
        // A challenge of before the profile was changed brings no money to this one.
        if asked.network_id != self.network_id || !currency.takes(money.atoms()) {
            return Err(Declined::CHALLENGE);
        }
        let Ok(Payload::StripeCharge(shown)) = credential.payload() else { return Err(Declined::PAYLOAD) };
        let challenge = credential.challenge.id.as_str();
        if shown.token.len() > MAX_TOKEN_BYTES
            || idempotency_key(challenge, &shown.token).len() > MAX_KEY_BYTES
        {
            return Err(Declined::PAYLOAD);
        }
        // The published package demands the echo of a reference that the challenge has, and lets a client have one of
        // its own where it has none.
        if asked.charge.external_id.is_some() && shown.external_id != asked.charge.external_id {
            return Err(Declined::EXTERNAL_ID);
        }
        let charge = Charge {
            token: shown.token.clone(),
            challenge: challenge.to_owned(),
            realm: credential.challenge.realm.chars().take(MAX_METADATA).collect(),
            amount: u64::try_from(money.atoms()).map_err(|_| Declined::CHALLENGE)?,
            currency: currency.code.to_owned(),
            external_id: asked.charge.external_id.clone(),
        };
        Ok(Presented {
            money,
            key: consumption_key(&self.network, &shown.token),
            payer: self.payer.clone(),
            payee: self.payee.clone(),
            instruction: charge.write(),
            external_id: asked.charge.external_id,
        })
    }
}

/// One token buys once, whatever challenge it is shown for. It is worth money, so its hash is what is kept and logged.
fn consumption_key(network: &Network, token: &str) -> ConsumptionKey {
    let hash = hex::encode(Sha256::digest(token.as_bytes()));
    ConsumptionKey::new(format!("{network}/spt:{hash}"))
}

/// What Stripe knows a charge by, in the spelling of the published package: whoever else answers the same challenge with
/// the same token, in our name, is found out.
///
/// Spec: draft-stripe-charge-00, "Settlement Procedure", "Idempotency".
pub fn idempotency_key(challenge: &str, token: &str) -> String {
    format!("mpp_{challenge}_{token}")
}
