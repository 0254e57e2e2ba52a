//! Transfers that the payer makes itself: nothing of them is ours but the look at the chain, and for a signed transaction
//! the sending.
//!
//! There is no slot and no fee. What can be certain of such a payment is little: it is in a block, or another transaction
//! has its nonce, deep enough. A transaction that is in no block may come into one for as long as its nonce is free.

use std::time::Duration;

use farthing_evm::Revert;
use farthing_payment::{Fault, Payment, Proof, Reason, State, TxRef, Witness};
use farthing_primitives::AttemptId;
use farthing_rails::pushed_evm::{Called, Pushed, Unsent};

use super::{EvmRail, MAX_SKEW};
use crate::rail::{Funds, NotPrepared, Prepared, Progress};
use crate::relayer::at;
use crate::{Broadcast, Head, Receipt, SignedTx, Standing, Tag, TxHash};

/// How often, a block or so apart, a transaction that was said to be sent is looked for, before its payer is told to ask
/// again.
const LOOKS: u32 = 2;
/// By how much a node's receipts may be behind its nonces.
const RECEIPT_LAG: Duration = Duration::from_secs(1);

impl EvmRail {
    /// Whether the transfer was made, or would be.
    pub(super) async fn pushed_funds(&self, pushed: &Pushed) -> Funds {
        let found = match pushed.unsent() {
            Some(unsent) => self.would_move(pushed, unsent).await,
            None => self.has_moved(pushed).await,
        };
        found.map_or_else(|not| not, |()| Funds::Confirmed)
    }

    /// Whether a transaction that the payer says it has sent is in a block, and is the transfer that was asked for.
    ///
    /// Spec: draft-evm-charge-00, "Hash Verification", steps 2 to 4, and that it is a standard `transfer`.
    async fn has_moved(&self, pushed: &Pushed) -> Result<(), Funds> {
        let hash = TxHash(pushed.hash());
        let mut missing = "transaction_not_found";
        let mut seen = self.chain.head(Tag::Latest).await.map_err(|_| silent())?;
        for look in 0..LOOKS {
            if look > 0 {
                seen = self.chain.next_head(seen, self.chain.block_time() * 2).await.ok();
            }
            let Some(known) = self.chain.transaction(hash).await.map_err(|_| silent())? else { continue };
            let called = Called { from: &known.from, to: known.to.as_ref(), data: &known.data };
            pushed.is_made_by(called).map_err(|unfit| Funds::Refused(unfit.reason()))?;
            let receipts = self.chain.receipts(vec![hash]).await.map_err(|_| silent())?;
            match receipts.into_iter().next().flatten() {
                Some(receipt) => return self.is_the_one(pushed, &receipt).await,
                None => missing = "transaction_pending",
            }
        }
        // Its money may be under way: nobody is told to pay anew before the chain says that it is not.
        Err(Funds::Refused(Reason::new(missing, Fault::Chain)))
    }

    async fn is_the_one(&self, pushed: &Pushed, receipt: &Receipt) -> Result<(), Funds> {
        let refused = |code: &str| Funds::Refused(Reason::new(code, Fault::Payer));
        if !receipt.success {
            return Err(refused("transaction_reverted"));
        }
        pushed.proof(&receipt.logs).map_err(|error| refused(error.code()))?;
        let block = self.chain.head(at(receipt.block)).await.map_err(|_| silent())?;
        let block = block.filter(|block| block.hash == receipt.block_hash).ok_or_else(silent)?;
        match pushed.not_before() {
            // It was made for something else, before this was asked for.
            Some(not_before) if block.timestamp.plus(MAX_SKEW) < not_before => {
                Err(refused("transaction_before_challenge"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a transaction that nobody has sent yet would be executed now, and move the money.
    ///
    /// What could not be executed now is not given to everybody to see, who could send it later.
    ///
    /// Spec: draft-evm-charge-00, "Transaction Verification", before step 6.
    async fn would_move(&self, pushed: &Pushed, unsent: &Unsent) -> Result<(), Funds> {
        let refused = |code: &str| Funds::Refused(Reason::new(code, Fault::Payer));
        let payer = pushed.payer();
        let Standing { nonce, receipt } =
            self.chain.standing(&payer, Tag::Latest, TxHash(pushed.hash())).await.map_err(|_| silent())?;
        // Whoever saw it on the chain could show it too: only what nobody has seen is its payer's to show.
        if receipt.is_some() {
            return Err(refused("transaction_already_sent"));
        }
        let pending = self.chain.nonce(&payer, true).await.map_err(|_| silent())?;
        if unsent.nonce != nonce || pending > nonce {
            return Err(refused("transaction_nonce_not_next"));
        }
        let balance =
            self.chain.read_at(vec![pushed.balance_read()], Tag::Latest).await.map_err(|_| silent())?;
        let balance = balance.first().and_then(|result| result.returned()).ok_or_else(silent)?;
        match pushed.has_enough(balance) {
            Some(true) => {}
            Some(false) => return Err(refused("insufficient_balance")),
            None => return Err(Funds::Refused(Reason::new("asset_not_deployed_contract", Fault::Payee))),
        }
        if self.chain.native_balance(&payer).await.map_err(|_| silent())? < unsent.most_cost {
            return Err(refused("insufficient_gas_balance"));
        }
        let head = self.chain.head(Tag::Latest).await.map_err(|_| silent())?.ok_or_else(silent)?;
        if unsent.max_fee < head.base_fee {
            return Err(refused("transaction_fee_too_low"));
        }
        let (token, data) = pushed.call();
        match self.chain.estimate_gas(&payer, &token, data.into()).await.map_err(|_| silent())? {
            Ok(gas) if gas <= unsent.gas => Ok(()),
            Ok(_) => Err(refused("transaction_gas_too_low")),
            Err(data) => {
                let revert = Revert::decode(&data);
                tracing::debug!(%revert, "a shown transaction would revert");
                Err(refused("transaction_would_revert"))
            }
        }
    }

    /// An attempt is the transaction itself. What was looked at when it was shown may have changed since, and is looked
    /// at again before it is sent.
    pub(super) async fn pushed_prepared(&self, pushed: &Pushed) -> Result<Prepared, NotPrepared> {
        if let Some(unsent) = pushed.unsent()
            && !self.is_known(pushed).await?
        {
            self.would_move(pushed, unsent).await.map_err(|not| match not {
                Funds::Refused(reason) => NotPrepared::Refused(reason),
                Funds::Confirmed | Funds::Unavailable(_) => NotPrepared::Unavailable("chain"),
            })?;
        }
        let attempt = AttemptId::new(self.world.now(), self.world.random10());
        Ok(Prepared { attempt, tx: Some(tx_of(pushed)), slots: Vec::new() })
    }

    /// Whether its payer has sent it as well, after it was claimed: then it has only to be followed.
    async fn is_known(&self, pushed: &Pushed) -> Result<bool, NotPrepared> {
        let known = self.chain.transaction(TxHash(pushed.hash())).await;
        known.map(|known| known.is_some()).map_err(|_| NotPrepared::Unavailable("chain"))
    }

    /// The attempt is durable: the transaction is sent, if that is ours to do.
    pub(super) async fn pushed_submit(&self, payment: &Payment, pushed: &Pushed) -> Progress {
        if let Some(unsent) = pushed.unsent()
            && let Some(refused) = self.send_pushed(pushed, unsent).await
        {
            return refused;
        }
        self.pushed_progress(payment, pushed, self.chain.block_time() * 2).await
    }

    /// Gives it to the node, now or again. What the node says of it for certain is news.
    async fn send_pushed(&self, pushed: &Pushed, unsent: &Unsent) -> Option<Progress> {
        let tx = SignedTx { hash: TxHash(pushed.hash()), raw: unsent.raw.0.clone() };
        let code = match self.chain.broadcast(&tx).await {
            // Whose nonce it is, a look at the chain tells.
            Broadcast::Accepted | Broadcast::Ambiguous(_) | Broadcast::NonceTooLow => return None,
            Broadcast::Underpriced => "transaction_underpriced",
            Broadcast::NoGas => "insufficient_gas_balance",
            Broadcast::Rejected(text) => {
                tracing::debug!(text, tx = %tx.hash, "a shown transaction was not taken");
                "transaction_rejected"
            }
        };
        // Its payer, or whoever has seen it, may still send it.
        Some(Progress::Reverted { reason: Reason::new(code, Fault::Payer), tx: Some(tx_of(pushed)) })
    }

    /// What became of the transfer: at once if there is news, else after about `patience`.
    pub(super) async fn pushed_progress(
        &self,
        payment: &Payment,
        pushed: &Pushed,
        patience: Duration,
    ) -> Progress {
        let Ok(Some(head)) = self.chain.head(Tag::Latest).await else { return self.wait(patience).await };
        let standing = self.chain.standing(&pushed.payer(), Tag::Latest, TxHash(pushed.hash())).await;
        let Ok(Standing { nonce, receipt }) = standing else { return self.wait(patience).await };
        let found = match receipt {
            Some(receipt) => self.pushed_receipt(payment, pushed, &receipt, &head).await,
            None => self.pushed_missing(payment, pushed, nonce, &head).await,
        };
        match found {
            // It is known that it came to nothing, and not for certain yet that it stays so.
            Progress::Reverted { .. } if matches!(payment.state, State::Lapsing { .. } | State::Funded) => {}
            Progress::Open => {}
            found => return found,
        }
        let _ = self.chain.next_head(Some(head), patience).await;
        Progress::Open
    }

    async fn pushed_receipt(
        &self,
        payment: &Payment,
        pushed: &Pushed,
        receipt: &Receipt,
        head: &Head,
    ) -> Progress {
        // A log that was credited to another payment pays for no second one, whatever else is true of it.
        if let State::Lapsing { reason, .. } = &payment.state
            && reason.code() == crate::reasons::ALREADY_CREDITED
        {
            return Progress::Dead(reason.clone());
        }
        if let Some(found) = pushed.proof(&receipt.logs).ok().filter(|_| receipt.success) {
            let proof = Proof {
                tx: tx_of(pushed),
                witness: Witness::Chain,
                block: receipt.block,
                block_hash: receipt.block_hash,
                log_index: found.log_index,
                // Its payer has paid for the gas.
                fee: None,
            };
            let deep = self.evidence.is_deep(payment, receipt.block, head).await;
            return Progress::Included { proof, deep, slots: Vec::new() };
        }
        let reason = Reason::new("transaction_reverted", Fault::Payer);
        match self.evidence.deep_block(pushed.money(), head).await {
            Some(deep) if deep.number >= receipt.block => Progress::Dead(reason),
            _ => Progress::Reverted { reason, tx: Some(tx_of(pushed)) },
        }
    }

    /// It is in no block. `nonce` is how many transactions of its payer are.
    async fn pushed_missing(&self, payment: &Payment, pushed: &Pushed, nonce: u64, head: &Head) -> Progress {
        // Nobody but its payer has what was sent by its payer, nor knows its nonce any more.
        let Some(unsent) = pushed.unsent() else { return Progress::Open };
        if nonce > unsent.nonce {
            return self.pushed_replaced(pushed, unsent, head).await;
        }
        let waits = matches!(payment.state, State::Settling { .. } | State::Unknown { .. });
        let hash = TxHash(pushed.hash());
        if waits && matches!(self.chain.transaction(hash).await, Ok(None)) {
            // Lost on its way, or its block was replaced. In the pool it is not paid for twice.
            return self.send_pushed(pushed, unsent).await.unwrap_or(Progress::Open);
        }
        Progress::Open
    }

    /// Another transaction of its payer has used its nonce. Once that is too deep to change, it never moves anything.
    async fn pushed_replaced(&self, pushed: &Pushed, unsent: &Unsent, head: &Head) -> Progress {
        let reason = Reason::new("transaction_replaced", Fault::Payer);
        let Some(deep) = self.evidence.deep_block(pushed.money(), head).await else { return Progress::Open };
        let (payer, hash) = (pushed.payer(), TxHash(pushed.hash()));
        // A node may tell of a nonce before it tells of the transaction that used it, and that may be this one: it is asked
        // again when it has had the time to.
        self.world.sleep(RECEIPT_LAG).await;
        match self.chain.standing(&payer, at(deep.number), hash).await {
            Ok(Standing { nonce, receipt: None }) if nonce > unsent.nonce => Progress::Dead(reason),
            Ok(Standing { receipt: None, .. }) => Progress::Reverted { reason, tx: Some(tx_of(pushed)) },
            _ => Progress::Open,
        }
    }
}

fn silent() -> Funds {
    Funds::Unavailable("chain")
}

fn tx_of(pushed: &Pushed) -> TxRef {
    TxRef::new(TxHash(pushed.hash()).to_string())
}
