//! Getting a deposit back without the seller: the escrow is asked to close, and after the seller's time to answer the
//! rest is withdrawn, by transactions that the wallet's own key pays for.
//!
//! Each is written down with its bytes before it is sent, and the same bytes are sent again until the chain says what
//! became of them.

use std::time::Duration;

use farthing_channel::{ChannelId, PayerAction, PayerEvent, PayerState};
use farthing_engine::{Chain, ChainError, RelayerKey, SignedTx, TxHash, World};
use farthing_evm::escrow;
use farthing_evm::{B256, Bytes};
use farthing_payment::{Fault, Reason, TxRef};
use farthing_primitives::{AttemptId, Timestamp};

use crate::authorizer::{Denied, LocalAuthorizer};
use crate::chain_view::ChainView;
use crate::client::tx_hash;
use crate::journal::JournalError;
use crate::journal::channels::KeptChannel;
use crate::purse::{Purse, SessionDenied};
use crate::transact::{ContractCall, Fate, Sender, TransactError};

/// How long after the grace period a wallet waits before it withdraws: clocks and blocks differ.
pub const SLACK: Duration = Duration::from_secs(60);
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
    #[error(transparent)]
    Transact(#[from] TransactError),
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
        let failed = match self.sender().fate(tx, None).await? {
            Fate::Done(_) => return Ok(true),
            Fate::Failed => true,
            Fate::Sent => false,
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
        if terms.asset.network() != self.chain.network() {
            return Err(Denied::from(SessionDenied::NoChain).into());
        }
        let call = ContractCall { to: terms.escrow.clone(), data, revert: escrow::revert };
        let prepared = self.sender().prepare(&call).await?;
        let signed = &prepared.signed;
        let clock = (self.wallet.clock)();
        let attempt = AttemptId::new(clock.wall, self.wallet.random()?);
        let name = TxRef::new(signed.hash.to_string());
        // INVARIANT: durable before anybody sees it.
        self.wallet.journal.begin_transaction(&terms.id, attempt, action, &signed.raw, name, &clock)?;
        Ok(self.sender().broadcast(&prepared).await?)
    }

    fn sender(&self) -> Sender<'_> {
        Sender { chain: self.chain, key: self.key }
    }
}

/// The transaction of ours that a channel waits for.
fn transaction(kept: &KeptChannel) -> Option<(AttemptId, SignedTx)> {
    let attempt = kept.attempt.as_ref()?;
    let raw = attempt.raw.clone()?;
    let hash = tx_hash(kept.payer.pending()?.tx.as_ref()?.as_str())?;
    Some((attempt.id, SignedTx { hash, raw: raw.into() }))
}
