use std::fmt;
use std::str::FromStr;

use farthing_primitives::{Money, PaymentId, SlotId, TenantId};

use crate::{Account, AccountKind};

/// Why a transfer exists. With the payment it names the transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Purpose {
    /// The price of what the payer asked for: receivable ← revenue.
    Sale,
    /// The tokens arrived: treasury ← receivable.
    Settlement,
    /// They never will, though the service was given: loss ← receivable.
    WriteOff,
    /// They left again: refunds ← treasury.
    Refund,
    /// Somebody else's payment that we settled: payees ← payers.
    Relay,
    /// The chain's fee for it: gas ← relayer.
    Gas,
    /// The chain's fee for the refund: gas ← relayer.
    RefundGas,
    /// The chain's fee for a transaction of ours that moved no payment's money: gas ← relayer. Named after its slot.
    SlotGas,
    /// The block with a settlement is gone: receivable ← treasury.
    Reversal,
    /// And the sale is only expected once more: revenue ← receivable.
    SaleReversal,
    /// The same for a payment between others: payers ← payees.
    RelayReversal,
    /// And the fee that was paid in the block that is gone: relayer ← gas.
    GasReversal,
    /// A payer put money into an escrow for us to earn: escrow ← deposits.
    Deposit,
    /// We took what we earned from it: deposits ← escrow. What arrived is a settlement.
    Claim,
    /// The payer has the rest back: deposits ← escrow.
    Release,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown purpose of a transfer: {0:?}")]
pub struct UnknownPurpose(pub String);

impl Purpose {
    pub const ALL: [Self; 15] = [
        Self::Sale,
        Self::Settlement,
        Self::WriteOff,
        Self::Refund,
        Self::Relay,
        Self::Gas,
        Self::RefundGas,
        Self::SlotGas,
        Self::Reversal,
        Self::SaleReversal,
        Self::RelayReversal,
        Self::GasReversal,
        Self::Deposit,
        Self::Claim,
        Self::Release,
    ];

    /// The stable name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sale => "sale",
            Self::Settlement => "settlement",
            Self::WriteOff => "write-off",
            Self::Refund => "refund",
            Self::Relay => "relay",
            Self::Gas => "gas",
            Self::RefundGas => "refund-gas",
            Self::SlotGas => "slot-gas",
            Self::Reversal => "reversal",
            Self::SaleReversal => "sale-reversal",
            Self::RelayReversal => "relay-reversal",
            Self::GasReversal => "gas-reversal",
            Self::Deposit => "deposit",
            Self::Claim => "claim",
            Self::Release => "release",
        }
    }

    /// The accounts that a transfer of this purpose moves between: (debit, credit).
    pub fn accounts(self) -> (AccountKind, AccountKind) {
        use AccountKind as K;
        match self {
            Self::Sale => (K::Receivable, K::Revenue),
            Self::Settlement => (K::Treasury, K::Receivable),
            Self::WriteOff => (K::Loss, K::Receivable),
            Self::Refund => (K::Refunds, K::Treasury),
            Self::Relay => (K::Payees, K::Payers),
            Self::Gas | Self::RefundGas | Self::SlotGas => (K::Gas, K::Relayer),
            Self::Reversal => (K::Receivable, K::Treasury),
            Self::SaleReversal => (K::Revenue, K::Receivable),
            Self::RelayReversal => (K::Payers, K::Payees),
            Self::GasReversal => (K::Relayer, K::Gas),
            Self::Deposit => (K::Escrow, K::Deposits),
            Self::Claim | Self::Release => (K::Deposits, K::Escrow),
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = UnknownPurpose;

    fn from_str(text: &str) -> Result<Self, UnknownPurpose> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
            .ok_or_else(|| UnknownPurpose(text.chars().take(64).collect()))
    }
}

/// The name of a transfer. A payment has at most one for each purpose in each round.
///
/// A round ends when what was believed turns out otherwise: a refused payment is shown again, or a block with a
/// settlement is reorganized away. The entries of the old round stay; the new round starts its own.
///
/// A slot has at most one, for [`Purpose::SlotGas`]: see [`TransferId::of_slot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId {
    /// Of [`Purpose::SlotGas`] it is the slot's id, and no payment's.
    pub payment: PaymentId,
    pub round: u16,
    pub purpose: Purpose,
}

impl TransferId {
    /// The fee of a slot whose transaction moved no payment's money: a nonce is used once, so there is one at most.
    pub fn of_slot(slot: SlotId) -> Self {
        Self { payment: PaymentId::from_bytes(slot.to_bytes()), round: 0, purpose: Purpose::SlotGas }
    }
}

/// Where a transfer stands. Only pending ones change, and only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Reserved: shows in the pending balance only.
    Pending,
    /// Final.
    Posted,
    /// Undone before it counted.
    Voided,
}

/// One line that a commit adds to the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Reserves a transfer.
    Reserve { id: TransferId, tenant: TenantId, money: Money },
    /// Makes a reserved transfer final.
    Post { id: TransferId },
    /// Undoes a reserved transfer.
    Void { id: TransferId },
    /// Makes a transfer final at once.
    Transfer { id: TransferId, tenant: TenantId, money: Money },
}

impl Entry {
    pub fn id(&self) -> TransferId {
        match self {
            Self::Reserve { id, .. } | Self::Post { id } | Self::Void { id } | Self::Transfer { id, .. } => {
                *id
            }
        }
    }

    /// The phase that the transfer is in once this entry is in the books.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Reserve { .. } => Phase::Pending,
            Self::Post { .. } | Self::Transfer { .. } => Phase::Posted,
            Self::Void { .. } => Phase::Voided,
        }
    }
}

/// The two accounts of a transfer: (debit, credit).
pub(crate) fn accounts(id: TransferId, tenant: &TenantId, money: &Money) -> (Account, Account) {
    let (debit, credit) = id.purpose.accounts();
    let account = |kind| Account { tenant: tenant.clone(), kind, asset: money.asset().clone() };
    (account(debit), account(credit))
}
