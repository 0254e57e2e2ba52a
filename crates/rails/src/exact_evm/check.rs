use std::time::Duration;

use farthing_evm::{Address, B256, Permit, Signature, U256, known, unwrap_erc6492};
use farthing_primitives::Timestamp;

use super::{
    Approval, ApprovalFault, Checked, Deployment, Fact, MIN_REMAINING, Order, Policy, Presented,
    ProvenApproval, Refusal, Requirement, SignatureFault, Signer, Sponsored, moment,
};

/// Checks fields, window and signature, cheapest first. Nothing is read and nothing is stored.
///
/// What is compared against is `asked`, which is ours. A signature that no key of the payer made passes as
/// [`super::SignatureStatus::NeedsContract`], because the payer may be a contract; [`Checked::judge`] settles that.
///
/// # Errors
/// [`Refusal`], with the code that x402 peers expect.
///
/// Spec: x402 exact on EVM, section 1 phase 2 and section 2 phase 3.
pub fn check(
    asked: &Requirement,
    shown: &Presented,
    now: Timestamp,
    policy: &Policy,
) -> Result<Checked, Refusal> {
    decide(asked, shown, now, policy).map_err(|fact| Refusal { method: shown.method(), fact })
}

fn decide(asked: &Requirement, shown: &Presented, now: Timestamp, policy: &Policy) -> Result<Checked, Fact> {
    if shown.method() != asked.method {
        return Err(Fact::OtherMethod);
    }
    let (order, signer) = match shown {
        Presented::Eip3009 { authorization, signature } => {
            // Spec: section 1 phase 2 step 3: amount and recipient are exactly those asked for.
            if authorization.to != asked.pay_to {
                return Err(Fact::Recipient);
            }
            if authorization.value != U256::from(asked.amount) {
                return Err(Fact::Amount);
            }
            window(authorization.valid_after, authorization.valid_before, now, policy)?;
            // INVARIANT: a requirement for EIP-3009 has a domain; without one nothing can have been signed.
            let domain = asked.token.domain.as_ref().ok_or(Fact::Eip3009NotSupported)?;
            let digest = authorization.transfer_digest(domain);
            (Order::Eip3009(*authorization), signer(authorization.from, digest, signature, policy)?)
        }
        Presented::Permit2 { owner, transfer, signature, approval } => {
            // Spec: section 2: the spender is the proxy, which alone enforces the witness.
            if transfer.spender != known::X402_EXACT_PROXY {
                return Err(Fact::Spender);
            }
            if transfer.to != asked.pay_to {
                return Err(Fact::Recipient);
            }
            // Spec: section 2 phase 3 step 6.
            if transfer.token != asked.token.address {
                return Err(Fact::Token);
            }
            // Spec: section 2 phase 3 step 4. The proxy moves what was permitted, so more is not "covered" but taken.
            if transfer.amount != U256::from(asked.amount) {
                return Err(Fact::Amount);
            }
            window(transfer.valid_after, transfer.deadline, now, policy)?;
            let signer = signer(*owner, transfer.digest(&asked.token.permit2), signature, policy)?;
            let approval = match approval {
                Some(approval) => match approved(asked, *owner, approval, now, policy) {
                    Ok(proven) => Sponsored::Proven(proven),
                    Err(fault) => Sponsored::Wrong(fault),
                },
                None => Sponsored::No,
            };
            (Order::Permit2 { owner: *owner, transfer: *transfer, approval }, signer)
        }
    };
    Ok(Checked { money: asked.price(), chain_id: asked.token.chain_id, order, signer, gas: policy.gas })
}

/// Spec: x402 exact on EVM, section 1 phase 2 step 3 and section 2 phase 3 step 5, with the edges of the published
/// facilitators: refused are `end < now + 6` and `begin > now`, in whole seconds.
fn window(begin: U256, end: U256, now: Timestamp, policy: &Policy) -> Result<(), Fact> {
    let now_secs = now.secs();
    if begin > U256::from(now_secs) {
        return Err(Fact::NotYetValid { from: moment(begin) });
    }
    if end < U256::from(earliest_end(now_secs, policy)) {
        return Err(Fact::Expired { at: moment(end) });
    }
    if let Some(longest) = policy.max_validity
        && end > U256::from(now_secs.saturating_add(longest.as_secs()))
    {
        return Err(Fact::TooLong { at: moment(end) });
    }
    Ok(())
}

fn earliest_end(now_secs: u64, policy: &Policy) -> u64 {
    let remaining: Duration = policy.min_remaining.max(MIN_REMAINING);
    now_secs.saturating_add(remaining.as_secs())
}

fn signer(payer: Address, digest: B256, signature: &[u8], policy: &Policy) -> Result<Signer, Fact> {
    if signature.is_empty() {
        return Err(Fact::Signature(SignatureFault::Empty));
    }
    // The zero address is what failed recoveries look like in careless code, and nobody's account.
    if payer.is_zero() {
        return Err(Fact::Signature(SignatureFault::NotAccepted));
    }
    // Spec: ERC-6492: look for the wrapper first, then at what it holds.
    let wrapped = unwrap_erc6492(signature).map_err(|_| Fact::Signature(SignatureFault::Malformed))?;
    let inner = wrapped.as_ref().map_or(signature, |wrapped| &wrapped.signature);
    let error = match Signature::parse(inner).and_then(|parsed| Ok((parsed, parsed.recover(digest)?))) {
        Ok((parsed, recovered)) if recovered == payer => return Ok(Signer::Key(parsed)),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    if !policy.contract_wallets {
        return Err(Fact::Signature(SignatureFault::NotAKey(error)));
    }
    let inner = inner.to_vec().into();
    let deployment = wrapped.map(|wrapped| Deployment {
        allowed: policy.factories.contains(&wrapped.factory),
        factory: wrapped.factory,
        data: wrapped.factory_data,
    });
    Ok(Signer::Contract { digest, signature: inner, deployment })
}

/// Spec: x402 extension `eip2612GasSponsoring`, "verification logic".
fn approved(
    asked: &Requirement,
    owner: Address,
    approval: &Approval,
    now: Timestamp,
    policy: &Policy,
) -> Result<ProvenApproval, ApprovalFault> {
    if approval.from != owner {
        return Err(ApprovalFault::From);
    }
    if approval.asset != asked.token.address {
        return Err(ApprovalFault::Asset);
    }
    if approval.spender != known::PERMIT2 {
        return Err(ApprovalFault::Spender);
    }
    // The proxy reverts unless the two amounts are equal, whatever the extension's text says of the largest number.
    if approval.amount != U256::from(asked.amount) {
        return Err(ApprovalFault::Amount);
    }
    if approval.deadline < U256::from(earliest_end(now.secs(), policy)) {
        return Err(ApprovalFault::Expired);
    }
    let permit = Permit {
        owner,
        spender: approval.spender,
        value: approval.amount,
        nonce: approval.nonce,
        deadline: approval.deadline,
    };
    let domain = asked.token.domain.as_ref().ok_or(ApprovalFault::Signature)?;
    let signature = Signature::parse(&approval.signature).map_err(|_| ApprovalFault::Signature)?;
    // The proxy passes on `v`, `r` and `s`, so only a key can have signed.
    match signature.recover(permit.digest(domain)) {
        Ok(signer) if signer == owner => {
            Ok(ProvenApproval { nonce: approval.nonce, deadline: approval.deadline, signature })
        }
        _ => Err(ApprovalFault::Signature),
    }
}
