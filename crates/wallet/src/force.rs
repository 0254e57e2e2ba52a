//! Getting a deposit back without the seller: the escrow is asked to close, and after the seller's time to answer the
//! rest is withdrawn, by transactions that the wallet's own key pays for.
//!
//! Each is written down with its bytes before it is sent, and the same bytes are sent again until the chain says what
//! became of them.

use std::time::Duration;

use farthing_channel::{ChannelId, PayerAction, PayerEvent, PayerState};
use farthing_engine::{Broadcast, Chain, ChainError, RelayerKey, SignedTx, TxHash, UnsignedTx, World};
use farthing_evm::escrow;
use farthing_evm::{B256, Bytes};
use farthing_payment::{Fault, Reason, TxRef};
use farthing_primitives::{Address, AttemptId, Timestamp};

use crate::authorizer::{Denied, LocalAuthorizer};
use crate::chain_view::ChainView;
use crate::client::tx_hash;
use crate::journal::JournalError;
use crate::journal::channels::KeptChannel;
use crate::purse::{Purse, SessionDenied};

/// How long after the grace period a wallet waits before it withdraws: clocks and blocks differ.
pub const SLACK: Duration = Duration::from_secs(60);
/// How much more gas than estimated a transaction may use, in quarters of the estimate.
const GAS_QUARTERS: u64 = 5;
/// How long to wait between looks at the chain.
const PAUSE: Duration = Duration::from_millis(500);

/// What the next step of getting a deposit back came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forced {
    /// The escrow was asked to close: the seller has until then to answer.
    Requested { tx: TxHash, until: Timestamp },
    /// The rest is back.
    Withdrawn { tx: TxHash },
    /// A transaction is sent, and in no block yet: ask again.
    Sent { tx: TxHash },
    /// The seller may still answer.
    Waiting { until: Timestamp },
    /// The channel is over.
    Over,
    /// The deposit never came in, or may still: there is nothing to get back.
    NotOpen,
    /// The seller took all of it.
    NothingLeft,
}

/// Why a step could not be made. Nothing is lost: it can be made later.
#[derive(Debug, thiserror::Error)]
pub enum ForceError {
    #[error(
        "{account} pays for this transaction itself, and has {has} wei of {needs} that it may cost: send it as much of \
         the chain's own coin, and run the same command again"
    )]
    NoGas { account: Address, has: u128, needs: u128 },
    #[error("the escrow would refuse it: {0}")]
    Refused(String),
    #[error("the node refuses the transaction: {0}")]
    Rejected(String),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Who does it, and by what.
pub struct Force<'a> {
    pub wallet: &'a LocalAuthorizer,
    pub chain: &'a dyn Chain,
    pub view: &'a dyn ChainView,
    /// The payer's own: nobody else may ask the escrow.
    pub key: &'a dyn RelayerKey,
    pub world: &'a (dyn World + 'static),
    /// How long a transaction is waited for.
    pub patience: Duration,
}

impl std::fmt::Debug for Force<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Force of {:?}", self.wallet)
    }
}

impl Force<'_> {
    /// Makes the next step for a channel.
    ///
    /// Spec: draft-evm-session-00, "Forced Close".
    ///
    /// # Errors
    /// [`ForceError`].
    pub async fn step(&self, id: &ChannelId) -> Result<Forced, ForceError> {
        let mut kept = self.look(id).await?;
        if let Some((attempt, tx)) = transaction(&kept) {
            // One of ours is on its way: it, and no other.
            match self.settle(id, &kept, attempt, &tx).await? {
                true => kept = self.look(id).await?,
                false => return Ok(Forced::Sent { tx: tx.hash }),
            }
        }
        let payer = &kept.payer;
        let terms = payer.terms();
        let (action, data) = match payer.state() {
            PayerState::Void { .. } | PayerState::Opening => return Ok(Forced::NotOpen),
            PayerState::Over { .. } | PayerState::Finalized => return Ok(Forced::Over),
            _ if payer.deposit() == payer.settled() => return Ok(Forced::NothingLeft),
            PayerState::Open | PayerState::Leaving { .. } => {
                (PayerAction::RequestClose, escrow::request_close(B256::from(id.0)))
            }
            PayerState::Requested { at, .. } => {
                let until = at.plus(terms.grace).plus(payer.budget().slack);
                if self.world.now() < until {
                    return Ok(Forced::Waiting { until });
                }
                (PayerAction::Withdraw, escrow::withdraw(B256::from(id.0)))
            }
        };
        let tx = self.send(&kept, action, data).await?;
        let started = self.world.monotonic();
        loop {
            let kept = self.look(id).await?;
            match (action, kept.payer.state()) {
                (PayerAction::Withdraw, PayerState::Over { .. } | PayerState::Finalized) => {
                    return Ok(Forced::Withdrawn { tx });
                }
                (PayerAction::RequestClose, PayerState::Requested { at, .. }) => {
                    let until = at.plus(kept.payer.terms().grace).plus(kept.payer.budget().slack);
                    return Ok(Forced::Requested { tx, until });
                }
                _ => {}
            }
            if let Some((attempt, signed)) = transaction(&kept) {
                self.settle(id, &kept, attempt, &signed).await?;
            }
            if self.world.monotonic().saturating_sub(started) >= self.patience {
                return Ok(Forced::Sent { tx });
            }
            self.world.sleep(PAUSE).await;
        }
    }

    async fn look(&self, id: &ChannelId) -> Result<KeptChannel, ForceError> {
        let kept = self.wallet.channel(id).await?;
        match self.view.channel(&kept.payer.terms().escrow, id).await {
            Some(sight) => Ok(self.wallet.saw(id, sight).await?),
            None => Err(Denied::from(SessionDenied::NoChain).into()),
        }
    }

    /// Whether a transaction of ours is in a block, or never will be. If not, it is sent again.
    async fn settle(
        &self,
        id: &ChannelId,
        kept: &KeptChannel,
        attempt: AttemptId,
        tx: &SignedTx,
    ) -> Result<bool, ForceError> {
        let receipts = self.chain.receipts(vec![tx.hash]).await?;
        let failed = match receipts.into_iter().next().flatten() {
            Some(receipt) if receipt.success => return Ok(true),
            Some(_) => true,
            // Its number was used by another transaction, so that it never comes.
            None => match self.chain.broadcast(tx).await {
                Broadcast::NonceTooLow => self
                    .chain
                    .receipts(vec![tx.hash])
                    .await?
                    .into_iter()
                    .next()
                    .flatten()
                    .is_none_or(|receipt| !receipt.success),
                _ => false,
            },
        };
        if failed && kept.payer.pending().is_some_and(|pending| pending.id == attempt) {
            let reason = Reason::new("transaction_failed", Fault::Chain);
            let clock = (self.wallet.clock)();
            self.wallet.journal.step_channel(id, &clock, |kept, now| {
                kept.payer.step(PayerEvent::Failed { attempt, reason }, now)
            })?;
        }
        Ok(failed)
    }

    /// Signs a call of the escrow, writes it down, and sends it.
    async fn send(&self, kept: &KeptChannel, action: PayerAction, data: Bytes) -> Result<TxHash, ForceError> {
        let terms = kept.payer.terms();
        let account = self.key.address();
        let not_evm = || ForceError::from(Denied::from(SessionDenied::NotEvm));
        let chain_id = terms.asset.network().evm_chain_id().ok_or_else(not_evm)?;
        let data: bytes::Bytes = data.to_vec().into();
        let gas = match self.chain.estimate_gas(&account, &terms.escrow, data.clone()).await? {
            Ok(gas) => gas.saturating_mul(GAS_QUARTERS) / 4,
            Err(why) => return Err(ForceError::Refused(escrow::revert(&why).to_string())),
        };
        let fees = self.chain.fees().await?;
        let needs = fees.max_fee.saturating_mul(u128::from(gas));
        let has = self.chain.native_balance(&account).await?;
        if has < needs {
            return Err(ForceError::NoGas { account, has, needs });
        }
        let nonce = self.chain.nonce(&account, true).await?;
        let unsigned = UnsignedTx { chain_id, nonce, to: terms.escrow.clone(), data, gas, fees };
        let signed = self.key.sign(&unsigned);
        let clock = (self.wallet.clock)();
        let attempt = AttemptId::new(clock.wall, self.wallet.random()?);
        let name = TxRef::new(signed.hash.to_string());
        // INVARIANT: durable before anybody sees it.
        self.wallet.journal.begin_transaction(&terms.id, attempt, action, &signed.raw, name, &clock)?;
        match self.chain.broadcast(&signed).await {
            Broadcast::Accepted | Broadcast::Ambiguous(_) | Broadcast::Underpriced => Ok(signed.hash),
            Broadcast::NoGas => Err(ForceError::NoGas { account, has, needs }),
            Broadcast::NonceTooLow => Ok(signed.hash),
            Broadcast::Rejected(why) => Err(ForceError::Rejected(why)),
        }
    }
}

/// The transaction of ours that a channel waits for.
fn transaction(kept: &KeptChannel) -> Option<(AttemptId, SignedTx)> {
    let attempt = kept.attempt.as_ref()?;
    let raw = attempt.raw.clone()?;
    let hash = tx_hash(kept.payer.pending()?.tx.as_ref()?.as_str())?;
    Some((attempt.id, SignedTx { hash, raw: raw.into() }))
}
