//! The payer's side: what to sign for an offer, and what to present once it is signed.
//!
//! The [`Requirement`] here is the wallet's own reading of an offer, with a [`super::Token`] of the wallet's own registry: a seller
//! who names another domain or other decimals changes nothing.

use std::time::Duration;

use farthing_evm::{
    Address, B256, Bytes, Permit, Signature, TransferAuthorization, U256, WitnessTransfer, known, to_alloy,
};
use farthing_payment::ConsumptionKey;
use farthing_primitives::{Address as Account, Money, PullMethod, Timestamp};

use super::{Approval, MIN_REMAINING, Order, Presented, Requirement, Sponsored, eip3009_key, permit2_key};

/// Why there is nothing to sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuyError {
    #[error("the payer {0} is not an address of an EVM chain")]
    Payer(Account),
    #[error("a validity of {0:?} is too short for anybody to settle in")]
    TooShort(Duration),
    #[error("the token has no EIP-712 domain to sign for")]
    NoDomain,
    #[error("the offer is not paid through Permit2, so it needs no approval")]
    NoApproval,
}

/// What makes the authorization unique: 32 unpredictable bytes, used once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 32]);

/// A transfer of exactly the price, to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    order: Order,
    digest: B256,
    key: ConsumptionKey,
    money: Money,
}

/// Prepares the payment of an offer, valid from ever until `validity` from now or the offer's own limit, whichever is
/// sooner.
///
/// The beginning is zero, as in the published v2 client: a beginning in the past restrains nobody, and one close to now
/// fails on a chain whose clock is behind ours.
///
/// # Errors
/// [`BuyError::TooShort`] if what is left is not more than facilitators demand to settle ([`MIN_REMAINING`]).
pub fn authorize(
    offer: &Requirement,
    payer: &Account,
    nonce: Nonce,
    validity: Duration,
    now: Timestamp,
) -> Result<Unsigned, BuyError> {
    let from = to_alloy(payer).ok_or_else(|| BuyError::Payer(payer.clone()))?;
    let validity = validity.min(offer.max_timeout);
    if validity <= MIN_REMAINING {
        return Err(BuyError::TooShort(validity));
    }
    let end = U256::from(now.secs().saturating_add(validity.as_secs()));
    let amount = U256::from(offer.amount);
    let token = &offer.token;
    let (order, digest, key) = match offer.method {
        PullMethod::Eip3009 => {
            let domain = token.domain.as_ref().ok_or(BuyError::NoDomain)?;
            let auth = TransferAuthorization {
                from,
                to: offer.pay_to,
                value: amount,
                valid_after: U256::ZERO,
                valid_before: end,
                nonce: B256::new(nonce.0),
            };
            let key = eip3009_key(token.chain_id, token.address, &auth);
            (Order::Eip3009(auth), auth.transfer_digest(domain), key)
        }
        PullMethod::Permit2 => {
            let transfer = WitnessTransfer {
                token: token.address,
                amount,
                spender: known::X402_EXACT_PROXY,
                nonce: U256::from_be_bytes(nonce.0),
                deadline: end,
                to: offer.pay_to,
                valid_after: U256::ZERO,
            };
            let key = permit2_key(token.chain_id, from, transfer.nonce);
            let digest = transfer.digest(&token.permit2);
            (Order::Permit2 { owner: from, transfer, approval: Sponsored::No }, digest, key)
        }
    };
    Ok(Unsigned { order, digest, key, money: offer.price() })
}

impl Unsigned {
    /// What the payer's key signs.
    pub fn digest(&self) -> B256 {
        self.digest
    }

    /// What the payment will consume: the name to ask the chain by when an answer was lost.
    pub fn key(&self) -> &ConsumptionKey {
        &self.key
    }

    pub fn money(&self) -> &Money {
        &self.money
    }

    /// From this moment on the authorization can move no money.
    pub fn expires(&self) -> Timestamp {
        self.order.expires()
    }

    /// What to present. `approval` counts with Permit2 only.
    pub fn signed(&self, signature: &Signature, approval: Option<Approval>) -> Presented {
        let signature = Bytes::copy_from_slice(&signature.to_bytes());
        match &self.order {
            Order::Eip3009(authorization) => Presented::Eip3009 { authorization: *authorization, signature },
            Order::Permit2 { owner, transfer, .. } => {
                let approval = approval.map(Box::new);
                Presented::Permit2 { owner: *owner, transfer: *transfer, signature, approval }
            }
        }
    }
}

/// An allowance for Permit2 of exactly the price, to be signed, for a relayer to submit.
///
/// Spec: x402 extension `eip2612GasSponsoring`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsignedApproval {
    permit: Permit,
    asset: Address,
    digest: B256,
}

/// Prepares the approval for a payment; `nonce` is what the token's `nonces(payer)` says.
///
/// It ends when the payment does.
pub fn approve(offer: &Requirement, payment: &Unsigned, nonce: U256) -> Result<UnsignedApproval, BuyError> {
    let Order::Permit2 { owner, transfer, .. } = &payment.order else { return Err(BuyError::NoApproval) };
    let domain = offer.token.domain.as_ref().ok_or(BuyError::NoDomain)?;
    let permit = Permit {
        owner: *owner,
        spender: known::PERMIT2,
        value: transfer.amount,
        nonce,
        deadline: transfer.deadline,
    };
    Ok(UnsignedApproval { permit, asset: transfer.token, digest: permit.digest(domain) })
}

impl UnsignedApproval {
    pub fn digest(&self) -> B256 {
        self.digest
    }

    pub fn signed(&self, signature: &Signature) -> Approval {
        Approval {
            from: self.permit.owner,
            asset: self.asset,
            spender: self.permit.spender,
            amount: self.permit.value,
            nonce: self.permit.nonce,
            deadline: self.permit.deadline,
            signature: Bytes::copy_from_slice(&signature.to_bytes()),
        }
    }
}
