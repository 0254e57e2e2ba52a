//! Charges by methods that are plug-ins: whatever MPP can name and an EVM chain does not settle.
//!
//! A new method is one module with two traits. [`Method`], here, is what it says and reads, without I/O: the request of
//! its challenges, and what a credential presents. `Processor`, in the engine, is what it does with money: ask, charge,
//! find out. Nothing else of the house changes: the challenge is bound and opened like any other, the payment has the
//! same states, claims, books and recovery. `docs/selling/methods.md` walks through one.
//!
//! Spec: draft-payment-intent-charge-00.

use std::fmt;
use std::sync::Arc;

use farthing_payment::{ConsumptionKey, Instruction};
use farthing_primitives::{Address, Money, Network, Timestamp};
use farthing_wire::mpp::{ChargeRequest, Credential, MethodName, Receipt, WireTime};

/// A way to be paid by intent `charge`, as far as it can be said without asking anybody.
///
/// Everything that [`Method::read`] is given comes from a stranger, except the challenge: its id was verified before,
/// so that its request is what [`Method::request`] made.
pub trait Method: Send + Sync + fmt::Debug {
    /// What challenges call it. Not `evm`, which is built in.
    fn name(&self) -> &MethodName;

    /// Where the money is that it brings, for the books: its assets are of this network, and the engine finds the
    /// method's rail by it. Never that of another method, nor of a chain.
    fn network(&self) -> &Network;

    /// The request of a challenge for this offer. `None` where it is not offered: it is too little, for one.
    fn request(&self, offer: &MethodOffer) -> Option<ChargeRequest>;

    /// What a credential presents for its own challenge, read strictly and asking nobody.
    ///
    /// # Errors
    /// [`Declined`], for which the client is challenged anew.
    fn read(&self, credential: &Credential) -> Result<Presented, Declined>;

    /// The receipt of a payment that is settled. `reference` is what the processor calls it, `external_id` that of
    /// [`Presented::external_id`].
    ///
    /// Spec: draft-httpauth-payment-00, "Payment-Receipt Header".
    fn receipt(
        &self,
        challenge_id: &str,
        reference: &str,
        external_id: Option<&str>,
        settled: Timestamp,
    ) -> Receipt {
        let mut receipt = Receipt::new(self.name().as_str(), reference, WireTime::from(settled));
        receipt.challenge_id = Some(challenge_id.to_owned());
        receipt.external_id = external_id.map(str::to_owned);
        receipt
    }
}

/// What a route asks for by one method.
#[derive(Debug, Clone)]
pub struct MethodOffer {
    pub method: Arc<dyn Method>,
    /// Of the method's network.
    pub money: Money,
    /// The merchant's own reference, which the client has to echo.
    pub external_id: Option<String>,
}

/// What a credential presents, in the house's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// What the challenge asks for, in full.
    pub money: Money,
    /// What the method consumes once: a token, a preimage, a voucher's code. The same for the same thing, whichever
    /// challenge it is shown for. It is stored and logged, so where knowing it is worth money, it is a hash.
    pub key: ConsumptionKey,
    /// Who pays, where the method knows it; else one name for all. Not what a credential says of itself.
    pub payer: Address,
    pub payee: Address,
    /// All that the processor needs, also after a restart, so that what it sends is the same each time.
    pub instruction: Instruction,
    /// For the receipt.
    pub external_id: Option<String>,
}

/// Why a credential is not accepted: a stable code that the client sees, as an error of a payment's header does.
///
/// [`crate::mpp::problem_of`] says which problem it is told as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct Declined {
    pub code: &'static str,
}

impl Declined {
    /// The payload is not what the method's schema says.
    pub const PAYLOAD: Self = Self { code: "invalid_payload" };
    /// The challenge is none of this method.
    pub const CHALLENGE: Self = Self { code: "challenge_not_ours" };
    /// The client does not echo the reference that the challenge has.
    pub const EXTERNAL_ID: Self = Self { code: "external_id_mismatch" };
}
