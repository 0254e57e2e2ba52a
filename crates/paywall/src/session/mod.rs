//! Selling by the unit, from a voucher channel: MPP's `evm/session` over HTTP.
//!
//! What a credential does is decided in `credential`; an answer that is read to its end is sold in `call`, a stream of
//! events in `stream`. The channel itself is the [`Till`](farthing_engine::Till)'s.
//!
//! Spec: draft-evm-session-00.

mod call;
mod count;
mod credential;
pub(crate) mod events;
mod meter;
mod refuse;
mod relay;
pub(crate) mod resume;
pub(crate) mod socket;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use farthing_channel::{Limits, MeterError, Price};
use farthing_evm::{eip55, to_alloy};
use farthing_primitives::{Address, AssetId, Network};
use farthing_wire::Object;
use farthing_wire::mpp::evm::{CredentialType, Session as Asked};
use farthing_wire::mpp::{EncodedRequest, MppError};
use farthing_wire::x402::WireAddress;

use crate::price::Way;

pub use count::{Count, CountError, MAX_JSON_PATH};
pub(crate) use credential::{is_session, routes_with_sessions};

/// The default of [`SessionTerms::holds`]: as long as a stream may well take.
pub const DEFAULT_HOLDS: Duration = Duration::from_secs(3600);
/// The default of [`SessionTerms::patience`].
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(60);

/// What a route that is sold by the unit asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTerms {
    /// The token, and whom it is paid to.
    pub way: Arc<Way>,
    /// The contract that holds the deposits.
    pub escrow: Address,
    /// So many atoms for so many units.
    pub price: Price,
    /// How units are counted.
    pub count: Count,
    /// Whether answers that are streams of events are passed on, and charged, event by event.
    pub stream: bool,
    /// What an answer that is no stream may cost at most, in units: so much is set aside before the upstream is called.
    pub most_units: u64,
    /// What buyers are advised to deposit, in atoms.
    pub suggested_deposit: Option<u128>,
    /// What is risked with a channel. `credit` is the exposure: what may be served and not covered by a voucher.
    pub limits: Limits,
    /// The least that a voucher for this route has to add, in atoms.
    pub min_voucher_delta: u128,
    /// How deposits may be brought, the most welcome first.
    pub credential_types: Vec<CredentialType>,
    /// How long a challenge holds. Each voucher names one, so it is to be long; it opens this route alone.
    pub holds: Duration,
    /// How long a stream waits for a voucher before it ends.
    pub patience: Duration,
}

/// Why nothing can be sold on these terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("{0} is no EVM network")]
    NotEvm(Network),
    #[error("the escrow's address is not one of an EVM network")]
    Escrow,
    #[error("there is no way to bring a deposit")]
    NoCredentialType,
    #[error("a price of nothing sells nothing")]
    NoPrice,
    #[error("counting events needs a stream")]
    EventsWithoutStream,
    #[error("no voucher could add the least that it has to: at most {most} atoms are to be deposited")]
    DeltaTooLarge { most: u128 },
    #[error("the least deposit is more than the suggested one of {suggested} atoms")]
    DepositTooLarge { suggested: u128 },
    #[error("the least deposit does not pay for one request, which may cost {cost} atoms")]
    DepositTooSmall { cost: u128 },
    #[error(transparent)]
    Price(#[from] MeterError),
    #[error("the challenge cannot be written: {0}")]
    Unwritable(#[from] MppError),
}

/// A route's session: its terms, and what its challenges say.
#[derive(Debug, Clone)]
pub struct Session {
    terms: SessionTerms,
    request: EncodedRequest,
    chain_id: u64,
}

impl Session {
    /// # Errors
    /// [`SessionError`] where the terms contradict each other, or cannot be said in a challenge.
    pub fn new(terms: SessionTerms) -> Result<Self, SessionError> {
        let asset = &terms.way.asset().id;
        let network = asset.network();
        let chain_id = network.evm_chain_id().ok_or_else(|| SessionError::NotEvm(network.clone()))?;
        if terms.price.atoms() == 0 {
            return Err(SessionError::NoPrice);
        }
        if terms.credential_types.is_empty() {
            return Err(SessionError::NoCredentialType);
        }
        if terms.count == Count::Events && !terms.stream {
            return Err(SessionError::EventsWithoutStream);
        }
        // What one request needs before it is served: a stream, its first unit.
        let cost = terms.price.most(if terms.stream { 1 } else { terms.most_units })?;
        if terms.limits.min_deposit.saturating_add(terms.limits.credit) < cost {
            return Err(SessionError::DepositTooSmall { cost });
        }
        if let Some(suggested) = terms.suggested_deposit {
            if terms.limits.min_deposit > suggested {
                return Err(SessionError::DepositTooLarge { suggested });
            }
            if terms.min_voucher_delta > suggested {
                return Err(SessionError::DeltaTooLarge { most: suggested });
            }
        }
        let currency = checksummed(network, asset.address()).ok_or(SessionError::Escrow)?;
        let recipient = checksummed(network, terms.way.pay_to()).ok_or(SessionError::Escrow)?;
        let pulls =
            |kind: &CredentialType| matches!(kind, CredentialType::Authorization | CredentialType::Permit2);
        let asked = Asked {
            network: network.clone(),
            amount: terms.price.atoms(),
            unit_type: Some(unit_text(&terms.price)),
            suggested_deposit: terms.suggested_deposit,
            currency,
            recipient,
            description: None,
            external_id: None,
            escrow: checksummed(network, &terms.escrow).ok_or(SessionError::Escrow)?,
            channel_id: None,
            min_voucher_delta: terms.min_voucher_delta,
            // Spec: draft-evm-session-00, "Method Details": with a type that we submit, and only then.
            fee_payer: terms.credential_types.iter().any(pulls),
            credential_types: terms.credential_types.clone(),
            permit2: None,
            other_details: Object::new(),
        };
        let request = EncodedRequest::new(asked.to_request().to_object())?;
        Ok(Self { request, chain_id, terms })
    }

    pub fn terms(&self) -> &SessionTerms {
        &self.terms
    }

    pub fn asset(&self) -> &AssetId {
        &self.terms.way.asset().id
    }

    pub fn network(&self) -> &Network {
        self.asset().network()
    }

    /// Whom it pays.
    pub fn payee(&self) -> &Address {
        self.terms.way.pay_to()
    }

    /// What a challenge asks for.
    pub(crate) fn request(&self) -> &EncodedRequest {
        &self.request
    }
}

/// What a session's challenge is bound to: the route, whatever it costs otherwise and by whichever of its methods.
///
/// Spec: draft-evm-session-00, "Session Flow": vouchers may come by any method.
pub(crate) fn scoped(pattern: &str) -> String {
    format!("{pattern} session")
}

/// The unit that the amount is for. A price for several units names them together: the amount on the wire is whole.
fn unit_text(price: &Price) -> String {
    match price.per().get() {
        1 => price.unit().as_str().to_owned(),
        per => format!("{per} {}", price.unit().as_str()),
    }
}

/// Spec: draft-evm-session-00, "Hexadecimal Values": addresses of a request are written with their checksum.
fn checksummed(network: &Network, address: &Address) -> Option<WireAddress> {
    WireAddress::parse(network, &eip55(to_alloy(address)?)).ok()
}
