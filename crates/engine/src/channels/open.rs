//! How channels come to be, grow and end.

use farthing_channel::{
    BadSignature, ChannelId, Funding, Limits, NewPayee, Payee, PayeeAction, PayeeEvent, PayeeState, Receipt,
    Refusal, Shown, Terms, VerifiedVoucher, Why,
};
use farthing_evm::escrow::{self, Pull};
use farthing_evm::{B256, Revert, U256, to_alloy};
use farthing_payment::TxRef;
use farthing_primitives::{Address, AttemptId, PaymentId};

use super::desk::{Desk, chain_error, log_of};
use super::store::{Begun, ChannelBegin};
use super::till::{Change, Seller, Till, TillError};
use crate::{Prepared, StoreError, TxHash};

/// A channel that somebody opens, or says to have opened.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    pub seller: &'a Seller,
    pub escrow: Address,
    /// What is risked with it, and when it is settled.
    pub limits: Limits,
    pub payer: Address,
    pub salt: [u8; 32],
    /// Who signs vouchers, if it is not the payer.
    pub authorized_signer: Option<Address>,
    /// The channel and the voucher that come along.
    pub shown: Shown<'a>,
    pub by: OpenBy,
}

/// Who brings the deposit.
#[derive(Debug, Clone)]
pub enum OpenBy {
    /// We do, with what the payer signed, and pay the chain's fee.
    Pull { deposit: u128, pull: Pull },
    /// The payer did, by this transaction.
    Hash(TxHash),
}

/// More money for a channel.
#[derive(Debug, Clone)]
pub struct TopUp<'a> {
    pub seller: &'a Seller,
    pub channel: ChannelId,
    /// In atoms.
    pub additional: u128,
    pub by: TopUpBy,
}

/// Who brings it.
#[derive(Debug, Clone)]
pub enum TopUpBy {
    /// We do, with what `from` signed.
    Pull { from: Address, salt: [u8; 32], pull: Pull },
    /// Somebody did, by this transaction.
    Hash(TxHash),
}

/// A top-up that is as deep in the chain as we ask for. It tells no amounts: who tops up has not shown that it may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToppedUp {
    pub tx: Option<TxRef>,
}

/// A channel that is being closed: no voucher is taken any more, and what is owed is collected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    pub receipt: Receipt,
    /// The transaction that closes it, once there is one.
    pub tx: Option<TxRef>,
    /// Whether the escrow has paid out, as deep in the chain as we ask for.
    pub finalized: bool,
}

impl Till {
    /// Takes up a channel, and waits until its deposit is as deep in the chain as we ask for. Showing the same again
    /// gives the same.
    ///
    /// # Errors
    /// [`Refusal::NotConfirmed`] if that takes longer than the till waits: show it again. Nothing is stored of an
    /// opening that is refused before.
    ///
    /// Spec: draft-evm-session-00, "Open Verification".
    pub async fn open(&self, opening: &Opening<'_>) -> Result<Receipt, TillError> {
        let Opening { seller, escrow, payer, salt, authorized_signer, shown, .. } = opening;
        let desk = self.desk(seller.asset.network())?;
        if !desk.acts_for(&seller.payee) {
            return Err(TillError::Unavailable("payee_key"));
        }
        let parts = desk.parts(seller, escrow, payer, *salt, authorized_signer.as_ref())?;
        if parts.id().0 != shown.channel.0 {
            return Err(TillError::OtherChannel);
        }
        let grace = desk.trust(escrow, &self.0.config.escrow_code).await?;
        let terms = desk.terms(&parts, seller.asset.clone(), escrow.clone(), grace);
        let voucher = VerifiedVoucher::check(shown, &terms, desk)?;
        let place = self.place(terms.id);
        let (mut held, known) = self.occupy(&place, terms.id).await?;
        match known {
            Some(known) => {
                drop(held);
                seller.owns(&known)?;
                if let PayeeState::Void { reason } = known.state() {
                    let reason = reason.clone();
                    // It may have come to be after all.
                    self.look(desk, &known).await?;
                    if matches!(self.snapshot(terms.id).await?.state(), PayeeState::Void { .. }) {
                        return Err(TillError::NotDone(reason));
                    }
                }
            }
            None => {
                let now = self.now();
                let new = NewPayee {
                    book: PaymentId::new(now, self.0.world.random10()),
                    tenant: seller.tenant.clone(),
                    terms: terms.clone(),
                    limits: opening.limits,
                };
                let begin = |_| TillError::UntrustedEscrow;
                let payee = Payee::begin(new, Some(&voucher), now).map_err(begin)?;
                match &opening.by {
                    OpenBy::Pull { deposit, pull } => {
                        opened_with(opening, *deposit, pull, &parts, shown.cumulative)?;
                        let data = escrow::open_with(&parts, *deposit, pull);
                        let prepared = desk.prepare(payee.book(), escrow, data).await?;
                        let payee = attempted(&payee, &prepared, PayeeAction::Fund(Funding::Open), now)?;
                        let begin = ChannelBegin { payee: payee.clone(), slots: prepared.slots.clone() };
                        match self.0.store.begin_channel(begin).await {
                            Ok(Begun::New) => *held = Some(payee),
                            Ok(Begun::Known(_)) => {
                                desk.relayer().abandon(&prepared);
                                return Err(TillError::Unavailable("store"));
                            }
                            Err(error) => return Err(unmade(desk, prepared, error)),
                        }
                        drop(held);
                        desk.relayer().submit(&prepared).await;
                    }
                    OpenBy::Hash(tx) => {
                        self.opened_by(desk, opening, &payee, *tx).await?;
                        let begin = ChannelBegin { payee: payee.clone(), slots: Vec::new() };
                        match self.0.store.begin_channel(begin).await? {
                            Begun::New => *held = Some(payee),
                            Begun::Known(_) => return Err(TillError::Unavailable("store")),
                        }
                        drop(held);
                    }
                }
            }
        }
        self.attend_soon(terms.id);
        let opened = self
            .until(terms.id, self.0.config.answer_within, |payee, _| match payee.state() {
                PayeeState::Opening => None,
                PayeeState::Void { reason } => Some(Err(TillError::NotDone(reason.clone()))),
                PayeeState::Finalized => Some(Err(Refusal::Finalized.into())),
                PayeeState::Closing { .. } => Some(Err(Refusal::Closing.into())),
                PayeeState::Open => Some(Ok(())),
            })
            .await?;
        opened.unwrap_or(Err(Refusal::NotConfirmed.into()))?;
        self.receipt_of(terms.id, &voucher.proven()).await
    }

    /// A channel that the payer opened itself: what its transaction did, and what the escrow says.
    async fn opened_by(
        &self,
        desk: &Desk,
        opening: &Opening<'_>,
        payee: &Payee,
        tx: TxHash,
    ) -> Result<(), TillError> {
        let terms = payee.terms();
        // Spec: draft-evm-session-00, "Open Verification" 1 to 3.
        log_in(desk, terms, tx).await?;
        // Spec: as above, 4.
        let sight = desk.look(terms).await?;
        let latest = sight.latest.ok_or(Refusal::NotConfirmed)?;
        if latest.finalized {
            return Err(Refusal::Finalized.into());
        }
        if latest.close_requested.is_some() {
            return Err(Refusal::Closing.into());
        }
        enough(latest.deposit.saturating_sub(latest.settled), &opening.limits)?;
        if opening.shown.cumulative > latest.deposit {
            return Err(Refusal::ExceedsDeposit { deposit: latest.deposit }.into());
        }
        // What is deep enough of it is booked by the keeper, which looks at once.
        Ok(())
    }

    /// Adds to the deposit, and waits until that is as deep in the chain as we ask for.
    ///
    /// # Errors
    /// [`Refusal::NotConfirmed`] if it takes longer than the till waits. [`TillError::NotDone`] if it moved nothing.
    ///
    /// Spec: draft-evm-session-00, "TopUp Verification".
    pub async fn top_up(&self, top_up: &TopUp<'_>) -> Result<ToppedUp, TillError> {
        let TopUp { seller, channel, additional, by } = top_up;
        let payee = self.channel(seller, *channel).await?;
        let desk = self.desk(payee.terms().asset.network())?;
        match by {
            TopUpBy::Pull { from, salt, pull } => {
                let attempt = self.pull_more(desk, &payee, *additional, from, *salt, pull).await?;
                self.attend_soon(*channel);
                let within = self.0.config.answer_within;
                let done = self.until(*channel, within, |_, place| place.outcome(attempt)).await?;
                let done = done.ok_or(Refusal::NotConfirmed)?;
                match done.failed {
                    Some(reason) => Err(TillError::NotDone(reason)),
                    None => Ok(ToppedUp { tx: done.tx }),
                }
            }
            TopUpBy::Hash(tx) => {
                // `TopUp(channelId, payer, payee, additionalDeposit, newDeposit)`
                let log = log_in(desk, payee.terms(), *tx).await?;
                let words: Vec<Option<u128>> =
                    log.data.chunks(32).map(|word| u128::try_from(U256::from_be_slice(word)).ok()).collect();
                let [Some(added), Some(reached)] = words.as_slice() else {
                    return Err(TillError::OtherTransaction);
                };
                // Spec: draft-evm-session-00, "TopUp Verification" 4: exactly so much.
                if added != additional {
                    return Err(TillError::OtherTransaction);
                }
                self.attend_soon(*channel);
                self.look(desk, &payee).await?;
                let within = self.0.config.answer_within;
                let done =
                    self.until(*channel, within, |p, _| (p.deposit() >= *reached).then_some(())).await?;
                done.ok_or(Refusal::NotConfirmed)?;
                Ok(ToppedUp { tx: Some(TxRef::new(tx.to_string())) })
            }
        }
    }

    async fn pull_more(
        &self,
        desk: &Desk,
        payee: &Payee,
        additional: u128,
        from: &Address,
        salt: [u8; 32],
        pull: &Pull,
    ) -> Result<AttemptId, TillError> {
        match payee.state() {
            PayeeState::Opening | PayeeState::Open => {}
            // The payer's own top-up takes its forced close back.
            PayeeState::Closing { why: Why::Forced { .. }, .. } => {}
            PayeeState::Closing { .. } => return Err(Refusal::Closing.into()),
            PayeeState::Finalized => return Err(Refusal::Finalized.into()),
            PayeeState::Void { .. } => return Err(Refusal::NotFound.into()),
        }
        let from = to_alloy(from).ok_or(TillError::Malformed("not an address of this chain"))?;
        let (channel, salt) = (B256::from(payee.terms().id.0), B256::from(salt));
        if let Pull::Authorization { nonce, .. } = pull
            && *nonce != farthing_evm::voucher::top_up_nonce(channel, additional, from, salt)
        {
            return Err(TillError::Reverted(Revert::Named("NonceMismatch")));
        }
        let data = escrow::top_up_with(channel, additional, from, salt, pull);
        let prepared = desk.prepare(payee.book(), &payee.terms().escrow, data).await?;
        let action = PayeeAction::Fund(Funding::TopUp { amount: additional });
        self.attempt(desk, payee.terms().id, prepared, action).await
    }

    /// Makes a transaction durable, and then visible.
    pub(super) async fn attempt(
        &self,
        desk: &Desk,
        id: ChannelId,
        prepared: Prepared,
        action: PayeeAction,
    ) -> Result<AttemptId, TillError> {
        let made = self
            .change(id, |payee, now| {
                let attempt = PayeeEvent::Attempted { attempt: prepared.attempt, action: action.clone() };
                let step = payee.step(attempt, now)?;
                let step = match prepared.tx.clone() {
                    Some(tx) => step.and(PayeeEvent::Named { attempt: prepared.attempt, tx }, now)?,
                    None => step,
                };
                Ok((Change { slots: prepared.slots.clone(), ..Change::from(step) }, ()))
            })
            .await;
        if let Err(error) = made {
            // What may be durable after all is found by the relayer, which asks the store.
            if error != TillError::Unavailable("store") {
                desk.relayer().abandon(&prepared);
            }
            return Err(error);
        }
        desk.relayer().submit(&prepared).await;
        Ok(prepared.attempt)
    }

    /// Closes a channel because its payer asks for it, and waits until the escrow has paid out.
    ///
    /// # Errors
    /// As [`Till::voucher`]; [`Refusal::Finalized`] once it is closed.
    ///
    /// Spec: draft-evm-session-00, "Cooperative Close".
    pub async fn close(&self, seller: &Seller, shown: &Shown<'_>) -> Result<Closed, TillError> {
        let voucher = self.verified(seller, shown).await?;
        let id = shown.channel;
        let asked = |payee: &Payee, now| {
            Ok((Change::from(payee.step(PayeeEvent::CloseAsked(voucher.clone()), now)?), ()))
        };
        self.change(id, asked).await?;
        self.attend_soon(id);
        let closing = |payee: &Payee| {
            let mut attempts = payee.attempts();
            let taking = attempts.find(|(_, action, _)| matches!(action, PayeeAction::Take(_)));
            taking.and_then(|(attempt, _, tx)| Some((attempt, tx?.clone())))
        };
        // Its transaction is remembered while it is on its way: afterwards the channel has forgotten it.
        let last = std::sync::Mutex::new(None);
        let within = self.0.config.answer_within;
        self.until(id, within, |payee, _| {
            if let Some((_, tx)) = closing(payee) {
                *crate::live::lock(&last) = Some(tx);
            }
            matches!(payee.state(), PayeeState::Finalized).then_some(())
        })
        .await?;
        let payee = self.snapshot(id).await?;
        let tx = crate::live::lock(&last).clone();
        let finalized = *payee.state() == PayeeState::Finalized;
        Ok(Closed { receipt: payee.receipt(&voucher.proven())?, tx, finalized })
    }
}

/// The payee once the transaction that brings its deposit is made.
fn attempted(
    payee: &Payee,
    prepared: &Prepared,
    action: PayeeAction,
    now: farthing_primitives::Timestamp,
) -> Result<Payee, TillError> {
    let attempt = prepared.attempt;
    let step = payee.step(PayeeEvent::Attempted { attempt, action }, now)?;
    let Some(tx) = prepared.tx.clone() else { return Ok(step.next) };
    Ok(step.and(PayeeEvent::Named { attempt, tx }, now)?.next)
}

/// The checks of a pulled opening that need no chain.
///
/// Spec: draft-evm-session-00, "Open Verification" and "Front-Running Protection".
fn opened_with(
    opening: &Opening<'_>,
    deposit: u128,
    pull: &Pull,
    parts: &farthing_evm::voucher::ChannelParts,
    cumulative: u128,
) -> Result<(), TillError> {
    enough(deposit, &opening.limits)?;
    if cumulative > deposit {
        return Err(Refusal::ExceedsDeposit { deposit }.into());
    }
    match pull {
        Pull::Authorization { nonce, .. } if *nonce != parts.open_nonce() => {
            Err(TillError::Reverted(Revert::Named("NonceMismatch")))
        }
        Pull::Authorization { signature, .. } | Pull::Permit2 { signature, .. }
            if signature.len() > farthing_channel::MAX_SIGNATURE_LEN =>
        {
            Err(BadSignature::Malformed.into())
        }
        _ => Ok(()),
    }
}

fn enough(deposit: u128, limits: &Limits) -> Result<(), TillError> {
    let least = limits.min_deposit.max(1);
    if deposit < least { Err(TillError::DepositTooSmall { least }) } else { Ok(()) }
}

/// The escrow's log about the channel in a transaction of somebody else.
///
/// Spec: draft-evm-session-00, "Transaction Outcome Checks": one that reverted is refused at once.
async fn log_in(desk: &Desk, terms: &Terms, tx: TxHash) -> Result<farthing_evm::Log, TillError> {
    let receipts = desk.chain().receipts(vec![tx]).await.map_err(chain_error)?;
    let receipt = receipts.into_iter().next().flatten().ok_or(Refusal::NotConfirmed)?;
    if !receipt.success {
        return Err(TillError::Reverted(Revert::Empty));
    }
    log_of(&receipt, &terms.escrow, terms.id).cloned().ok_or(TillError::OtherTransaction)
}

/// A transaction whose commit failed was never made, unless the store cannot tell.
fn unmade(desk: &Desk, prepared: Prepared, error: StoreError) -> TillError {
    if !matches!(error, StoreError::Unknown(_)) {
        desk.relayer().abandon(&prepared);
    }
    error.into()
}
