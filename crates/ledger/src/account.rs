use std::fmt;
use std::str::FromStr;

use farthing_primitives::{AssetId, TenantId};

/// What an account stands for in the books of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AccountKind {
    /// What payers owe for what they were or will be served. Debit: owed. Credit: paid, or written off.
    Receivable,
    /// What was earned. Grows by credit.
    Revenue,
    /// Tokens that arrived at our own addresses on chain. Grows by debit.
    Treasury,
    /// Served, and never to be paid. Grows by debit.
    Loss,
    /// Given back. Grows by debit.
    Refunds,
    /// Fees of the chain that we bore, in its native asset. Grows by debit.
    Gas,
    /// The relayer keys' native asset on chain. Falls by credit.
    Relayer,
    /// What a facilitator moved between parties that are not its own: the payees' side. Grows by debit.
    Payees,
    /// The payers' side of the same. Grows by credit.
    Payers,
    /// What payers have in an escrow for us to earn. Not ours until it is taken. Grows by debit.
    Escrow,
    /// The payers' side of the same. Grows by credit.
    Deposits,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of account: {0:?}")]
pub struct UnknownKind(pub String);

impl AccountKind {
    pub const ALL: [Self; 11] = [
        Self::Receivable,
        Self::Revenue,
        Self::Treasury,
        Self::Loss,
        Self::Refunds,
        Self::Gas,
        Self::Relayer,
        Self::Payees,
        Self::Payers,
        Self::Escrow,
        Self::Deposits,
    ];

    /// The stable name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receivable => "receivable",
            Self::Revenue => "revenue",
            Self::Treasury => "treasury",
            Self::Loss => "loss",
            Self::Refunds => "refunds",
            Self::Gas => "gas",
            Self::Relayer => "relayer",
            Self::Payees => "payees",
            Self::Payers => "payers",
            Self::Escrow => "escrow",
            Self::Deposits => "deposits",
        }
    }
}

impl fmt::Display for AccountKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AccountKind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| UnknownKind(text.chars().take(64).collect()))
    }
}

/// One account: a tenant's, of one kind, in one asset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account {
    pub tenant: TenantId,
    pub kind: AccountKind,
    pub asset: AssetId,
}
