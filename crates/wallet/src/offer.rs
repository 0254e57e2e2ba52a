use std::time::Duration;

use farthing_payment::Flow;
use farthing_primitives::{Address, Money, PullMethod, Timestamp};
use farthing_rails::exact_evm::buy::Nonce;
use farthing_rails::exact_evm::{Approval, Presented, Requirement, Tokens};
use farthing_rails::mpp;
use farthing_rails::x402::{self, OfferError};
use farthing_wire::Object;
use farthing_wire::mpp::evm::{Charge, CredentialType, Session, SessionPayload};
use farthing_wire::mpp::header::{AUTHORIZATION, PAYMENT_AUTHORIZATION};
use farthing_wire::mpp::{Challenge, Credential, MAX_CREDENTIAL_BYTES, Terms};
use farthing_wire::x402::extensions::{EIP2612_GAS_SPONSORING, PAYMENT_IDENTIFIER};
use farthing_wire::x402::{Extensions, Message, header, v1, v2};

use crate::journal::{Header, Said};

/// One way to pay, as the seller wrote it. What it says of decimals and names is carried along and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    V1(Box<v1::PaymentRequirements>),
    V2(Box<OfferV2>),
    Mpp(Box<OfferMpp>),
    /// Paid by the unit, through a channel: see [`crate::Purse`].
    Session(Box<OfferSession>),
}

/// A challenge of MPP that we could answer: `evm/charge` by authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferMpp {
    challenge: Challenge,
    charge: Charge,
    /// What was left of its time when it was read.
    left: Duration,
}

/// The scheme of sessions, as the owner's rules name it.
pub const SESSION: &str = "session";

/// Why a challenge is none that we could answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpayableError {
    #[error(transparent)]
    Offer(#[from] OfferError),
    #[error("the challenge wants its credential in the header {0:?}")]
    Header(String),
}

/// How long a challenge without an end is taken to hold.
const NO_END: Duration = Duration::from_secs(300);

impl OfferMpp {
    /// Reads what a challenge asks for. `now` is the wallet's own clock.
    ///
    /// # Errors
    /// [`UnpayableError`] for another method or intent, for other credential types, for splits, and for a header that is
    /// not the seller's to choose.
    pub fn read(challenge: Challenge, now: Timestamp) -> Result<Self, UnpayableError> {
        in_known_header(&challenge)?;
        let charge = mpp::charge(&challenge)?;
        // Spec: draft-evm-charge-00: the authorization should end when the challenge does.
        let left = challenge.expires.as_ref().map_or(NO_END, |expires| expires.at().since(now));
        Ok(Self { challenge, charge, left })
    }

    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// The header that the seller wants the credential in.
    pub fn credential_header(&self) -> &str {
        self.challenge.credential_header()
    }
}

/// A challenge of MPP's `evm/session`: a price for each unit, paid by vouchers on a channel.
///
/// Spec: draft-evm-session-00, "Request Schema".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferSession {
    challenge: Challenge,
    session: Session,
    left: Duration,
}

/// What one request is called as a unit; a price without a unit is one for a request too.
const UNIT_REQUEST: &str = "request";

/// The draft leaves the name of the header to the server. Another than these two would write over what the request says
/// of itself.
fn in_known_header(challenge: &Challenge) -> Result<(), UnpayableError> {
    let name = challenge.credential_header();
    match [AUTHORIZATION, PAYMENT_AUTHORIZATION].iter().any(|known| name.eq_ignore_ascii_case(known)) {
        true => Ok(()),
        false => Err(UnpayableError::Header(name.to_owned())),
    }
}

impl OfferSession {
    /// Reads what a challenge asks for. `now` is the wallet's own clock.
    ///
    /// # Errors
    /// [`UnpayableError`] for another method or intent, and for a header that is not the seller's to choose.
    pub fn read(challenge: Challenge, now: Timestamp) -> Result<Self, UnpayableError> {
        in_known_header(&challenge)?;
        let Ok(Terms::EvmSession(session)) = challenge.terms() else {
            let name = format!("{}/{}", challenge.method.as_str(), challenge.intent.as_str());
            return Err(OfferError::Scheme(name).into());
        };
        let left = challenge.expires.as_ref().map_or(NO_END, |expires| expires.at().since(now));
        Ok(Self { challenge, session: *session, left })
    }

    /// The header that the seller wants the credential in.
    pub fn credential_header(&self) -> &str {
        self.challenge.credential_header()
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    pub fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// How long the challenge holds.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// Whether a request is one unit, so that its price is known before it is asked for.
    pub fn is_by_request(&self) -> bool {
        self.session.unit_type.as_deref().is_none_or(|unit| unit == UNIT_REQUEST)
    }

    /// Whether the seller submits a deposit that we sign by EIP-3009.
    ///
    /// Spec: draft-evm-session-00, "Fee Payment": a format that is not listed is not sent.
    pub fn takes_authorizations(&self) -> bool {
        self.session.credential_types.contains(&CredentialType::Authorization)
    }

    /// The header that shows a step of the session.
    pub(crate) fn header(&self, payload: &SessionPayload) -> Result<Header, EchoError> {
        let credential = Credential::new(self.challenge.clone(), payload.to_object(), None);
        let value = credential.to_header().map_err(|_| EchoError::Credential)?;
        Ok(Header { name: self.credential_header().to_ascii_lowercase(), value })
    }
}

/// An offer of version 2, with what its payment echoes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferV2 {
    pub requirements: v2::PaymentRequirements,
    pub resource: v2::ResourceInfo,
    pub extensions: Option<Extensions>,
}

/// Why a payment that is signed cannot be written as a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EchoError {
    #[error(
        "the payment would be longer than {} bytes with all that the seller wants echoed",
        header::MAX_PAYMENT_HEADER_BYTES
    )]
    TooLong,
    #[error("the seller's payment-identifier extension cannot be answered")]
    PaymentIdentifier,
    #[error("the seller's eip2612GasSponsoring extension cannot be answered")]
    GasSponsoring,
    #[error("the amount does not fit the wire")]
    Amount,
    #[error("the credential would be longer than {MAX_CREDENTIAL_BYTES} bytes")]
    Credential,
    #[error("a session is paid by vouchers, not by a transfer")]
    Session,
}

impl Offer {
    /// The protocol that it came in.
    pub fn dialect(&self) -> &'static str {
        match self {
            Self::V1(_) => "x402-v1",
            Self::V2(_) => "x402-v2",
            Self::Mpp(_) | Self::Session(_) => "mpp",
        }
    }

    /// The version of x402, if it is one of its offers.
    pub fn version(&self) -> Option<u64> {
        match self {
            Self::V1(_) => Some(v1::VERSION),
            Self::V2(_) => Some(v2::VERSION),
            Self::Mpp(_) | Self::Session(_) => None,
        }
    }

    pub fn scheme(&self) -> &str {
        match self {
            Self::V1(offer) => &offer.scheme,
            Self::V2(offer) => &offer.requirements.scheme,
            // The transfer that is signed is the same.
            Self::Mpp(_) => x402::EXACT,
            Self::Session(_) => SESSION,
        }
    }

    /// What the seller says of what it sells.
    pub(crate) fn said(&self) -> Said {
        match self {
            Self::V1(offer) => Said { url: Some(offer.resource.clone()), challenge: None },
            Self::V2(offer) => Said { url: Some(offer.resource.url.clone()), challenge: None },
            Self::Mpp(offer) => Said { url: None, challenge: Some(offer.challenge.id.clone()) },
            Self::Session(offer) => Said { url: None, challenge: Some(offer.challenge.id.clone()) },
        }
    }

    /// What it costs; of a session, what one unit does.
    pub fn money(&self) -> Money {
        match self {
            Self::V1(offer) => offer.money(),
            Self::V2(offer) => offer.requirements.money(),
            Self::Mpp(offer) => offer.charge.money(),
            Self::Session(offer) => offer.session.unit_price(),
        }
    }

    pub fn payee(&self) -> &Address {
        match self {
            Self::V1(offer) => offer.pay_to.address(),
            Self::V2(offer) => offer.requirements.pay_to.address(),
            Self::Mpp(offer) => offer.charge.recipient.address(),
            Self::Session(offer) => offer.session.recipient.address(),
        }
    }

    pub fn max_timeout(&self) -> Duration {
        match self {
            Self::V1(offer) => Duration::from_secs(offer.max_timeout_seconds),
            Self::V2(offer) => Duration::from_secs(offer.requirements.max_timeout_seconds),
            Self::Mpp(offer) => offer.left,
            Self::Session(offer) => offer.left,
        }
    }

    /// Reads the offer with what our registry knows of its token.
    ///
    /// # Errors
    /// [`OfferError`], also for a payment flow that is none of ours.
    pub fn requirement(&self, tokens: &Tokens) -> Result<Requirement, OfferError> {
        self.flow()?;
        match self {
            Self::V1(offer) => x402::requirement_v1(offer, tokens),
            Self::V2(offer) => x402::requirement_v2(&offer.requirements, tokens),
            Self::Mpp(offer) => mpp::requirement(&offer.challenge, tokens, offer.left),
            // What a voucher pays is no transfer of its own.
            Self::Session(_) => Err(OfferError::Scheme(SESSION.to_owned())),
        }
    }

    /// In which order the seller settles and serves.
    pub fn flow(&self) -> Result<Flow, OfferError> {
        match self {
            // Spec: payment flows are a matter of version 2.
            Self::V1(_) | Self::Mpp(_) | Self::Session(_) => Ok(Flow::Authorization),
            Self::V2(offer) => x402::flow(offer.requirements.extra.as_ref()),
        }
    }

    /// Whether the seller submits an EIP-2612 approval for a payment by Permit2.
    pub fn sponsors_approval(&self) -> bool {
        match self {
            Self::V1(_) | Self::Mpp(_) | Self::Session(_) => false,
            Self::V2(offer) => {
                offer.extensions.as_ref().is_some_and(|all| all.get(EIP2612_GAS_SPONSORING).is_some())
            }
        }
    }

    pub(crate) fn pays_by_permit2(&self, tokens: &Tokens) -> bool {
        self.requirement(tokens).is_ok_and(|asked| asked.method() == PullMethod::Permit2)
    }

    /// The header that pays this offer. `payment_id` answers `payment-identifier` where it is announced.
    pub(crate) fn header(&self, presented: &Presented, payment_id: &str) -> Result<Header, EchoError> {
        match self {
            Self::V1(offer) => {
                let payment = x402::payment_v1(offer, presented).ok_or(EchoError::Amount)?;
                bounded(header::X_PAYMENT, payment.to_header())
            }
            Self::V2(offer) => offer.header(presented, payment_id),
            Self::Mpp(offer) => {
                let network = &offer.charge.network;
                let credential =
                    mpp::credential(&offer.challenge, presented, network).ok_or(EchoError::Amount)?;
                let value = credential.to_header().map_err(|_| EchoError::Credential)?;
                Ok(Header { name: offer.credential_header().to_ascii_lowercase(), value })
            }
            Self::Session(_) => Err(EchoError::Session),
        }
    }

    /// The nonce that the payment must have, if the seller chose it: `random` otherwise.
    ///
    /// A seller that names two challenges alike makes payments of which the token takes one.
    pub(crate) fn nonce(&self, random: Nonce) -> Nonce {
        match self {
            Self::V1(_) | Self::V2(_) | Self::Session(_) => random,
            Self::Mpp(offer) => mpp::nonce(&offer.challenge),
        }
    }
}

impl OfferV2 {
    fn header(&self, presented: &Presented, payment_id: &str) -> Result<Header, EchoError> {
        // Spec: x402 v2 section 5.1.2: the client includes at least the info it received.
        let mut extensions = self.extensions.clone();
        if let Some(all) = &mut extensions {
            if all.get(PAYMENT_IDENTIFIER).is_some() {
                let id = Object::new().with("id", payment_id);
                all.answer(PAYMENT_IDENTIFIER, id).map_err(|_| EchoError::PaymentIdentifier)?;
            }
            if let Presented::Permit2 { approval: Some(approval), .. } = presented {
                answer_sponsoring(all, approval)?;
            }
        }
        let resource = Some(self.resource.clone());
        let payment = x402::payment_v2(&self.requirements, presented, resource, extensions);
        bounded(header::PAYMENT_SIGNATURE, payment.ok_or(EchoError::Amount)?.to_header())
    }
}

fn answer_sponsoring(all: &mut Extensions, approval: &Approval) -> Result<(), EchoError> {
    let info = x402::approval_info(approval);
    all.answer(EIP2612_GAS_SPONSORING, info).map_err(|_| EchoError::GasSponsoring)
}

fn bounded(name: &str, value: String) -> Result<Header, EchoError> {
    if value.len() > header::MAX_PAYMENT_HEADER_BYTES {
        return Err(EchoError::TooLong);
    }
    Ok(Header { name: name.to_owned(), value })
}
