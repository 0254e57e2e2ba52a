//! What a seller asks and what it says it got. Read strictly: nothing that two readers could read differently.

use farthing_engine::TxHash;
use farthing_primitives::{Network, Timestamp};
use farthing_wire::mpp;
use farthing_wire::x402::{Message, SettlementResponse, WireError, header, v1, v2};
use http::HeaderMap;

use super::exchange::{Answer, printable};
use crate::journal::Purchase;
use crate::offer::{Offer, OfferMpp, OfferSession, OfferV2};

/// A 402 that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// In the seller's order; those of x402 before those of MPP.
    pub offers: Vec<Offer>,
    /// Offers that we cannot read, and pass over.
    pub unreadable: Vec<WireError>,
    /// What the seller says to people. Decides nothing.
    pub error: Option<String>,
}

/// Why a 402 asks nothing that we could answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    #[error("the seller says it in more than one {0} header")]
    Ambiguous(&'static str),
    #[error("the seller's {name} header cannot be read: {error}")]
    Header { name: &'static str, error: WireError },
    #[error("the answer has no payment-required header, and its body is no x402 challenge: {0}")]
    Body(WireError),
    #[error(
        "the answer has no {} header, and its body is longer than a challenge or broken off",
        header::PAYMENT_REQUIRED
    )]
    BodyTooLong,
}

impl Challenge {
    /// Reads a 402: the challenges of MPP that we could answer, and beside them x402, version 2 if its header is there,
    /// else version 1 from the body. A header that cannot be read is never a reason to look into the body.
    ///
    /// # Errors
    /// Of x402, if MPP asks for nothing that we could pay either.
    pub fn read(answer: &Answer, now: Timestamp) -> Result<Self, ChallengeError> {
        let mut spoken = Self::mpp(&answer.headers, now);
        match Self::x402(answer) {
            Ok(mut read) => {
                read.offers.append(&mut spoken);
                Ok(read)
            }
            Err(error) if spoken.is_empty() => Err(error),
            Err(_) => Ok(Self { offers: spoken, unreadable: Vec::new(), error: None }),
        }
    }

    fn mpp(headers: &HeaderMap, now: Timestamp) -> Vec<Offer> {
        let lines =
            headers.get_all(mpp::header::WWW_AUTHENTICATE).into_iter().map(http::HeaderValue::as_bytes);
        let read = mpp::Challenges::parse(lines).map_or_else(|_| Vec::new(), |read| read.challenges);
        let offer = |challenge: mpp::Challenge| {
            let session =
                OfferSession::read(challenge.clone(), now).map(|offer| Offer::Session(Box::new(offer)));
            session.or_else(|_| OfferMpp::read(challenge, now).map(|offer| Offer::Mpp(Box::new(offer)))).ok()
        };
        read.into_iter().filter_map(offer).collect()
    }

    fn x402(answer: &Answer) -> Result<Self, ChallengeError> {
        let name = header::PAYMENT_REQUIRED;
        if let Some(value) = single(&answer.headers, name)? {
            let read = v2::PaymentRequired::from_header(value);
            return Ok(Self::v2(read.map_err(|error| ChallengeError::Header { name, error })?));
        }
        let body = answer.body.complete().filter(|body| body.len() <= header::MAX_BODY_BYTES);
        let body = body.ok_or(ChallengeError::BodyTooLong)?;
        Ok(Self::v1(v1::PaymentRequired::parse(body).map_err(ChallengeError::Body)?))
    }

    fn v2(read: v2::PaymentRequired) -> Self {
        let v2::PaymentRequired { error, resource, accepts, extensions, unreadable, .. } = read;
        let offer = |requirements| {
            Offer::V2(Box::new(OfferV2 {
                requirements,
                resource: resource.clone(),
                extensions: extensions.clone(),
            }))
        };
        Self { offers: accepts.into_iter().map(offer).collect(), unreadable, error }
    }

    fn v1(read: v1::PaymentRequired) -> Self {
        let offers = read.accepts.into_iter().map(|offer| Offer::V1(Box::new(offer))).collect();
        Self { offers, unreadable: read.unreadable, error: read.error }
    }
}

/// The header's value, if it occurs exactly once.
fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a [u8]>, ChallengeError> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(ChallengeError::Ambiguous(name));
    }
    Ok(first.map(http::HeaderValue::as_bytes))
}

/// What the answer to a payment says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    None,
    Unreadable(String),
    Said(Box<SettlementResponse>),
}

impl Receipt {
    /// Reads the receipt of the dialect that was paid in. A receipt of another is none. `network` is where it was paid.
    pub fn read(headers: &HeaderMap, payment_header: &str, network: &Network) -> Self {
        if is_mpp(payment_header) {
            return Self::read_mpp(headers, network);
        }
        let name = if payment_header == header::X_PAYMENT {
            header::X_PAYMENT_RESPONSE
        } else {
            header::PAYMENT_RESPONSE
        };
        match single(headers, name) {
            Err(error) => Self::Unreadable(error.to_string()),
            Ok(None) => Self::None,
            Ok(Some(value)) => match SettlementResponse::from_header(value) {
                Ok(said) => Self::Said(Box::new(said)),
                Err(error) => Self::Unreadable(error.to_string()),
            },
        }
    }

    /// The same in the words of x402. A receipt of MPP exists for success alone.
    fn read_mpp(headers: &HeaderMap, network: &Network) -> Self {
        let value = match single(headers, mpp::header::PAYMENT_RECEIPT) {
            Err(error) => return Self::Unreadable(error.to_string()),
            Ok(None) => return Self::None,
            Ok(Some(value)) => value,
        };
        match mpp::Receipt::parse(value) {
            Err(error) => Self::Unreadable(error.to_string()),
            Ok(receipt) => {
                // The published package does not say on which chain.
                let chain = receipt.other.get("chainId").and_then(farthing_wire::Json::as_u64);
                let network = chain.map_or_else(|| network.clone(), Network::eip155);
                let tx = receipt.reference.unwrap_or_default();
                Self::Said(Box::new(SettlementResponse::settled(network.as_str(), &tx, None)))
            }
        }
    }

    pub fn said(&self) -> Option<&SettlementResponse> {
        if let Self::Said(said) = self { Some(said) } else { None }
    }

    pub fn is_pending(&self) -> bool {
        self.said().is_some_and(SettlementResponse::is_pending)
    }

    pub fn json(&self) -> Option<String> {
        self.said().map(Message::print)
    }

    pub fn tx(&self) -> Option<TxHash> {
        self.said().and_then(|said| tx_hash(&said.transaction))
    }
}

/// Whether a payment that goes into this header is one of MPP.
pub fn is_mpp(payment_header: &str) -> bool {
    [mpp::header::AUTHORIZATION, mpp::header::PAYMENT_AUTHORIZATION].contains(&payment_header)
}

/// Reads `0x` and 64 hex digits.
pub fn tx_hash(text: &str) -> Option<TxHash> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut bytes).ok()?;
    Some(TxHash(bytes))
}

/// Why a receipt is not one for this purchase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("it says that the payment failed: {0}")]
    Failed(String),
    #[error("it is for the network {0:?}")]
    Network(String),
    #[error("it is for the payer {0:?}")]
    Payer(String),
    #[error("it is for an amount of {0:?}")]
    Amount(String),
    #[error("{0:?} is no transaction")]
    Transaction(String),
}

/// Compares what a receipt says with what was paid. That it fits proves nothing, but that it doesn't tells much.
pub fn check_receipt(said: &SettlementResponse, purchase: &Purchase) -> Result<TxHash, Mismatch> {
    let cut = |text: &str| text.chars().take(80).collect::<String>();
    if !said.success {
        let reason = said.error_reason.as_ref().map_or("no reason", |reason| reason.as_str());
        return Err(Mismatch::Failed(printable(reason)));
    }
    if said.parsed_network().as_ref() != Some(purchase.money.asset().network()) {
        return Err(Mismatch::Network(cut(&said.network)));
    }
    // Peers write addresses in any case.
    if said.payer.as_ref().is_some_and(|payer| !payer.eq_ignore_ascii_case(purchase.payer.as_str())) {
        return Err(Mismatch::Payer(cut(said.payer.as_deref().unwrap_or_default())));
    }
    let amount = said.amount.as_deref().filter(|amount| !amount.is_empty());
    if amount.is_some_and(|amount| farthing_primitives::parse_atoms(amount) != Ok(purchase.money.atoms())) {
        return Err(Mismatch::Amount(cut(amount.unwrap_or_default())));
    }
    tx_hash(&said.transaction).ok_or_else(|| Mismatch::Transaction(cut(&said.transaction)))
}
