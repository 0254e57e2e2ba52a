//! What is left on a session key, sent to where the key says: the one thing that an ended key still signs.

use farthing_evm::{B256, Bytes, Domain, TransferAuthorization, U256, abi, to_alloy};
use farthing_primitives::{Asset, PullMethod};

use crate::journal::session_keys::{SessionTerms, Sweep};
use crate::signer::{SignError, Signer, ToSign};

/// Why there is no way home.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WayHomeError {
    #[error("{0} does not move by a signature alone (EIP-3009)")]
    Token(String),
    #[error("the key that was opened is another than the one that the wallet knows by this name")]
    OtherKey,
    #[error("nothing was signed: {0}")]
    Sign(#[from] SignError),
}

/// The call of the token that moves what a sweep says, which anybody may make. Asked again, it is the same.
///
/// What was written down says how much and until when; to whom is the key's own word from when it was made.
///
/// Spec: EIP-3009, `transferWithAuthorization`.
///
/// # Errors
/// [`WayHomeError`].
pub fn call_home(
    signer: &dyn Signer,
    terms: &SessionTerms,
    sweep: &Sweep,
    asset: &Asset,
) -> Result<Bytes, WayHomeError> {
    let no_token = || WayHomeError::Token(asset.symbol.clone());
    if asset.id != sweep.asset || asset.pull != PullMethod::Eip3009 {
        return Err(no_token());
    }
    if signer.address() != terms.address {
        return Err(WayHomeError::OtherKey);
    }
    let named = asset.domain.as_ref().ok_or_else(no_token)?;
    let chain = asset.id.network().evm_chain_id().ok_or_else(no_token)?;
    let token = to_alloy(asset.id.address()).ok_or_else(no_token)?;
    let domain = Domain::new(&named.name, &named.version, chain, token);
    let transfer = TransferAuthorization {
        from: to_alloy(&terms.address).ok_or(WayHomeError::OtherKey)?,
        to: to_alloy(&terms.home).ok_or(WayHomeError::OtherKey)?,
        value: U256::from(sweep.atoms),
        valid_after: U256::ZERO,
        valid_before: U256::from(sweep.expires.secs()),
        nonce: B256::from(sweep.nonce),
    };
    let signature = signer.sign(&ToSign::way_home(&transfer, &domain))?;
    Ok(abi::transfer_with_authorization(&transfer, &signature))
}
