use farthing_evm::{
    Address, AuthorizationCanceled, AuthorizationUsed, B256, Log, Transfer, from_alloy, known,
};
use farthing_primitives::Address as Account;

use super::{Checked, Order};

/// The log that moved exactly this payment's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferProof {
    /// The transfer's place in its block. With the chain and the transaction it pays for one thing only.
    pub log_index: u64,
}

/// Why logs of a transaction that succeeded prove nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the token did not say that it used this authorization")]
    NoAuthorizationUsed,
    #[error("the token moved nothing, or not exactly the price from the payer to the payee")]
    NoTransfer,
}

impl ProofError {
    /// Spec: x402, the code of the published facilitators.
    pub fn code(self) -> &'static str {
        "invalid_exact_evm_transfer_event_mismatch"
    }
}

/// Which logs to look for to learn who used an authorization, if it was not we.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    pub address: Account,
    /// `None` matches any.
    pub topics: Vec<Option<[u8; 32]>>,
}

impl Checked {
    /// Finds in a transaction's logs that the money moved. `logs` are all of them, in their order.
    ///
    /// A transaction's success is no proof: some tokens return where others revert. What counts is that the token
    /// itself says that it moved exactly the price from the payer to the payee and, for EIP-3009, by this
    /// authorization.
    pub fn proof(&self, logs: &[Log]) -> Result<TransferProof, ProofError> {
        self.proof_besides(logs, &[])
    }

    /// The same, for a transaction that settles several payments: `taken` are log indexes that prove others.
    pub fn proof_besides(&self, logs: &[Log], taken: &[u64]) -> Result<TransferProof, ProofError> {
        let token = self.token();
        let ours = |log: &&Log| {
            log.address == token
                && !taken.contains(&log.index)
                && Transfer::decode(log).is_some_and(|transfer| {
                    transfer.from == self.owner()
                        && transfer.to == self.payee()
                        && transfer.value == self.amount()
                })
        };
        let found = match &self.order {
            Order::Permit2 { .. } => logs.iter().find(ours),
            Order::Eip3009(auth) => {
                let uses =
                    |log: &Log| if log.address == token { AuthorizationUsed::decode(log) } else { None };
                let used = AuthorizationUsed { authorizer: auth.from, nonce: auth.nonce };
                let at = logs
                    .iter()
                    .position(|log| uses(log) == Some(used))
                    .ok_or(ProofError::NoAuthorizationUsed)?;
                // Circle's token, and the EIP's own text, say so first and transfer then: the transfer is the one before
                // the next use.
                let after = &logs[at + 1..];
                let until = after.iter().position(|log| uses(log).is_some()).unwrap_or(after.len());
                after[..until].iter().find(ours).or_else(|| {
                    // A token that transfers first is believed only where nothing else can account for the transfer.
                    let only = logs.iter().filter(|log| uses(log).is_some()).count() == 1;
                    let mut before = logs[..at].iter().filter(ours);
                    before.next().filter(|_| only && before.next().is_none())
                })
            }
        };
        found.map(|log| TransferProof { log_index: log.index }).ok_or(ProofError::NoTransfer)
    }

    /// Whether a transaction's logs show that this authorization is spent without having paid, and how: its payer
    /// cancelled it, or the token used it and moved something else. Only what the token itself says counts.
    pub fn spent_otherwise(&self, logs: &[Log]) -> Option<&'static str> {
        let Order::Eip3009(auth) = &self.order else { return None };
        let token = self.token();
        let of_token = || logs.iter().filter(|log| log.address == token);
        let canceled = AuthorizationCanceled { authorizer: auth.from, nonce: auth.nonce };
        if of_token().any(|log| AuthorizationCanceled::decode(log) == Some(canceled)) {
            return Some("authorization_canceled");
        }
        let used = AuthorizationUsed { authorizer: auth.from, nonce: auth.nonce };
        let is_used = of_token().any(|log| AuthorizationUsed::decode(log) == Some(used));
        self.proof(logs).err().filter(|_| is_used).map(ProofError::code)
    }

    /// How to find the transaction that used this authorization, when [`Checked::consumed`] says that one did.
    ///
    /// For EIP-3009 the token names the nonce, so a match is this authorization, used or cancelled. Permit2 names none: there a match is
    /// a transfer of the payer to the payee, and proves this payment only if nothing else accounts for it.
    pub fn trace(&self) -> Trace {
        let (owner, payee) = (self.owner().into_word(), self.payee().into_word());
        let topics: [Option<B256>; 3] = match &self.order {
            // Both events have the authorizer and the nonce in the same places.
            Order::Eip3009(auth) => [None, Some(owner), Some(auth.nonce)],
            Order::Permit2 { .. } => [Some(Transfer::TOPIC), Some(owner), Some(payee)],
        };
        Trace {
            address: from_alloy(self.token()),
            topics: topics.into_iter().map(|topic| topic.map(|topic| topic.0)).collect(),
        }
    }

    /// Whether a match of [`Checked::trace`] can only be this authorization.
    pub fn trace_is_unambiguous(&self) -> bool {
        matches!(self.order, Order::Eip3009(_))
    }

    /// The contract that our settlement calls when no wallet has to be deployed.
    pub fn settles_at(&self) -> Account {
        let address: Address = match &self.order {
            Order::Eip3009(_) => self.token(),
            Order::Permit2 { .. } => known::X402_EXACT_PROXY,
        };
        from_alloy(address)
    }
}
