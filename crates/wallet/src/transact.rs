//! Transactions that a key of ours pays for itself: how they are made, sent, and looked after.
//!
//! Whoever uses this writes the signed bytes down before [`Sender::broadcast`], and sends the same bytes again until
//! [`Sender::fate`] knows what became of them.

use farthing_engine::{
    Broadcast, Chain, ChainError, Fees, Receipt, RelayerKey, SignedTx, Tag, TxHash, UnsignedTx,
};
use farthing_evm::{Bytes, Revert};
use farthing_primitives::Address;

/// How much more gas than estimated a transaction may use, in quarters of the estimate.
const GAS_QUARTERS: u64 = 5;

/// Why a transaction could not be sent. Nothing is lost: it can be sent later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactError {
    #[error(
        "{account} pays for this transaction itself, and has {has} wei of {needs} that it may cost: send it as much of \
         the chain's own coin, and run the same command again"
    )]
    NoGas { account: Address, has: u128, needs: u128 },
    #[error("{to} is a contract of a network that has no EVM chain id")]
    NotEvm { to: Address },
    #[error("the contract would refuse it: {0}")]
    Refused(Revert),
    #[error("the node refuses the transaction: {0}")]
    Rejected(String),
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A call of a contract.
#[derive(Debug, Clone)]
pub struct ContractCall {
    pub to: Address,
    pub data: Bytes,
    /// How the contract's errors are read.
    pub revert: fn(&[u8]) -> Revert,
}

/// A signed transaction and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub signed: SignedTx,
    pub nonce: u64,
    pub fees: Fees,
    /// What it may cost, in wei.
    pub needs: u128,
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is in a block, and did what it says.
    Done(Receipt),
    /// It is in a block, and did nothing; or never will be in one, since another used its number.
    Failed,
    /// It is on its way, and was sent again.
    Sent,
}

/// A key, and the chain that it pays on.
#[derive(Clone, Copy)]
pub struct Sender<'a> {
    pub chain: &'a dyn Chain,
    pub key: &'a dyn RelayerKey,
}

impl std::fmt::Debug for Sender<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sender of {} on {}", self.key.address(), self.chain.network())
    }
}

impl Sender<'_> {
    /// Signs a call with the next number of the account, at what the chain asks for now.
    ///
    /// # Errors
    /// [`TransactError::Refused`] if the contract would refuse it now; [`TransactError::NoGas`] if the account can't pay.
    pub async fn prepare(&self, call: &ContractCall) -> Result<Prepared, TransactError> {
        let nonce = self.chain.nonce(&self.key.address(), true).await?;
        let fees = self.chain.fees().await?;
        self.prepare_as(call, nonce, fees).await
    }

    /// The same with a number and fees of the caller's choice: another transaction of that number gives way to higher
    /// fees.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub async fn prepare_as(
        &self,
        call: &ContractCall,
        nonce: u64,
        fees: Fees,
    ) -> Result<Prepared, TransactError> {
        let account = self.key.address();
        let chain_id = self
            .chain
            .network()
            .evm_chain_id()
            .ok_or_else(|| TransactError::NotEvm { to: call.to.clone() })?;
        let data: bytes::Bytes = call.data.to_vec().into();
        let gas = match self.chain.estimate_gas(&account, &call.to, data.clone()).await? {
            Ok(gas) => gas.saturating_mul(GAS_QUARTERS) / 4,
            Err(why) => return Err(TransactError::Refused((call.revert)(&why))),
        };
        let needs = fees.max_fee.saturating_mul(u128::from(gas));
        let has = self.chain.native_balance(&account).await?;
        if has < needs {
            return Err(TransactError::NoGas { account, has, needs });
        }
        let unsigned = UnsignedTx { chain_id, nonce, to: call.to.clone(), data, gas, fees };
        Ok(Prepared { signed: self.key.sign(&unsigned), nonce, fees, needs })
    }

    /// Sends what is written down already.
    ///
    /// # Errors
    /// [`TransactError::NoGas`] and [`TransactError::Rejected`]: no node has it. Whatever else a node says leaves open
    /// what became of it.
    pub async fn broadcast(&self, prepared: &Prepared) -> Result<TxHash, TransactError> {
        match self.chain.broadcast(&prepared.signed).await {
            Broadcast::Accepted
            | Broadcast::Ambiguous(_)
            | Broadcast::Underpriced
            | Broadcast::NonceTooLow => Ok(prepared.signed.hash),
            Broadcast::NoGas => {
                let account = self.key.address();
                let has = self.chain.native_balance(&account).await?;
                Err(TransactError::NoGas { account, has, needs: prepared.needs })
            }
            Broadcast::Rejected(why) => Err(TransactError::Rejected(why)),
        }
    }

    /// What became of a transaction. One that is in no block is sent again.
    ///
    /// `nonce` is its number, where it is known: then a node that says that the number was used, and hasn't seen the block
    /// itself, is not enough to give the transaction up.
    ///
    /// # Errors
    /// If the chain cannot be asked: nothing may be concluded.
    pub async fn fate(&self, tx: &SignedTx, nonce: Option<u64>) -> Result<Fate, ChainError> {
        if let Some(receipt) = self.receipt(tx).await? {
            return Ok(told(receipt));
        }
        let Broadcast::NonceTooLow = self.chain.broadcast(tx).await else { return Ok(Fate::Sent) };
        // Its number was used: by itself just now, or by another transaction, so that it never comes.
        let Some(nonce) = nonce else { return Ok(self.receipt(tx).await?.map_or(Fate::Failed, told)) };
        let standing = self.chain.standing(&self.key.address(), Tag::Latest, tx.hash).await?;
        Ok(match standing.receipt {
            Some(receipt) => told(receipt),
            None if standing.nonce > nonce => Fate::Failed,
            None => Fate::Sent,
        })
    }

    async fn receipt(&self, tx: &SignedTx) -> Result<Option<Receipt>, ChainError> {
        Ok(self.chain.receipts(vec![tx.hash]).await?.into_iter().next().flatten())
    }
}

fn told(receipt: Receipt) -> Fate {
    if receipt.success { Fate::Done(receipt) } else { Fate::Failed }
}
