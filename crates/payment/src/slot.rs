use std::sync::Arc;

use farthing_primitives::{Address, AttemptId, Network, PaymentId, SlotId, Timestamp};

use crate::TxRef;

/// One signed transaction that may fill a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    pub tx: TxRef,
    /// The signed transaction, to be broadcast again as it is.
    pub raw: Arc<[u8]>,
    /// Wei for each unit of gas.
    pub max_fee: u128,
    pub priority_fee: u128,
    pub signed: Timestamp,
}

/// Where a slot stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotState {
    /// None of its variants is in a block, as far as we know.
    Open,
    /// A variant is in a block.
    Included { tx: TxRef, block: u64, block_hash: [u8; 32] },
    /// The same, and nothing is left to do for it: as deep as its payment asks for, and its fee is in the books.
    ///
    /// A reorganization may still take it away, and is noticed by its payment, which takes it up again.
    Final { tx: TxRef },
    /// The nonce was used by a transaction that is not ours.
    Lost,
}

/// A nonce of a relayer key on a chain, and what may fill it.
///
/// A chain executes at most one transaction for each slot, so any number of variants of one slot can pay once.
/// Several payments may share a slot (a batch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    pub id: SlotId,
    pub network: Network,
    pub relayer: Address,
    pub nonce: u64,
    pub attempt: AttemptId,
    pub payments: Vec<PaymentId>,
    pub variants: Vec<Variant>,
    pub state: SlotState,
    pub updated: Timestamp,
}

impl SlotState {
    /// The stable name that is stored and shown.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Included { .. } => "included",
            Self::Final { .. } => "final",
            Self::Lost => "lost",
        }
    }
}
