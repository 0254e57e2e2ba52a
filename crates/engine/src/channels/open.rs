//! How channels come to be, grow and end.

use std::time::Duration;

use farthing_channel::{
    BadSignature, ChannelId, Funding, Limits, NewPayee, Payee, PayeeAction, PayeeEvent, PayeeState, Receipt,
    Refusal, Shown, Terms, VerifiedVoucher, Why,
};
use farthing_evm::escrow::{self, Pull};
use farthing_evm::voucher::ChannelParts;
use farthing_evm::{B256, Bytes, Revert, U256, to_alloy};
use farthing_payment::TxRef;
use farthing_primitives::{Address, AttemptId, PaymentId};

use super::desk::{Deed, Desk, Made, chain_error, logs_of};
use super::store::{Begun, ChannelBegin};
use super::till::{Change, Held, Place, Seller, Till, TillError};
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
        // What costs nothing comes first: the signature does not cover the grace period.
        let unread = desk.terms(&parts, seller.asset.clone(), escrow.clone(), Duration::ZERO);
        let voucher = VerifiedVoucher::check(shown, &unread, desk)?;
        let grace = desk.trust(escrow, &self.0.config.escrow_code).await?;
        let terms = Terms { grace, ..unread };
        let place = self.place(terms.id);
        let (held, known) = self.occupy(&place, terms.id).await?;
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
            None => self.take_on(desk, opening, &parts, &terms, &voucher, held).await?,
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

    /// Begins a channel that is not known yet, with the transaction of ours that brings its deposit if there is one.
    async fn take_on(
        &self,
        desk: &Desk,
        opening: &Opening<'_>,
        parts: &ChannelParts,
        terms: &Terms,
        voucher: &VerifiedVoucher,
        mut held: Held,
    ) -> Result<(), TillError> {
        let now = self.now();
        let new = NewPayee {
            book: PaymentId::new(now, self.0.world.random10()),
            tenant: opening.seller.tenant.clone(),
            terms: terms.clone(),
            limits: opening.limits,
        };
        let payee = Payee::begin(new, Some(voucher), now).map_err(|_| TillError::UntrustedEscrow)?;
        let prepared = match &opening.by {
            OpenBy::Pull { deposit, pull } => {
                opened_with(opening, *deposit, pull, parts)?;
                let data = escrow::open_with(parts, *deposit, pull);
                match desk.prepare(payee.book(), &terms.escrow, data).await {
                    Ok(prepared) => Some(prepared),
                    // Somebody submitted it first; the channel is the one that was meant, since its id says so.
                    Err(TillError::Reverted(Revert::Named("ChannelAlreadyExists"))) => None,
                    Err(why) => return Err(why),
                }
            }
            OpenBy::Hash(tx) => {
                // Spec: draft-evm-session-00, "Open Verification" 1 to 3.
                log_in(desk, terms, *tx, Deed::Opened, |_| true).await?;
                None
            }
        };
        let payee = match &prepared {
            Some(prepared) => attempted(&payee, prepared, PayeeAction::Fund(Funding::Open), now)?,
            None => {
                stands(desk, opening, terms).await?;
                payee
            }
        };
        let (till, id, seller) = (self.clone(), terms.id, opening.seller.clone());
        self.apart(async move {
            let desk = till.desk(payee.terms().asset.network())?;
            let slots = prepared.as_ref().map(|prepared| prepared.slots.clone()).unwrap_or_default();
            let begun = till.0.store.begin_channel(ChannelBegin { payee: payee.clone(), slots }).await;
            if begun == Ok(Begun::New) {
                *held = Some(payee);
            } else {
                // Where the store cannot tell, it is the relayer that asks it.
                if let Some(prepared) = prepared.filter(|_| !matches!(begun, Err(StoreError::Unknown(_)))) {
                    desk.relayer().abandon(&prepared);
                }
                till.attend_soon(id);
                return match begun? {
                    // Another process came first, with the same.
                    Begun::Known(known) => seller.owns(&known),
                    Begun::New => Ok(()),
                };
            }
            drop(held);
            if let Some(prepared) = prepared {
                desk.relayer().submit(&prepared).await;
            }
            // What is deep enough of it is booked by the keeper, which looks at once.
            till.attend_soon(id);
            Ok(())
        })
        .await
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
                let data = top_up_call(&payee, *additional, from, *salt, pull)?;
                let attempt = match desk.made(&payee, &data, &self.0.store).await? {
                    // Showing the same again gives the same.
                    Some(Made::Done(tx)) => return Ok(ToppedUp { tx: Some(tx) }),
                    Some(Made::OnItsWay(attempt)) => attempt,
                    None => self.pull_more(desk, &payee, *additional, data).await?,
                };
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
                // Spec: draft-evm-session-00, "TopUp Verification" 4: exactly so much.
                let exactly = |words: &[u128]| matches!(words, [added, _] if added == additional);
                let words = log_in(desk, payee.terms(), *tx, Deed::ToppedUp, exactly).await?;
                let reached = words.get(1).copied().unwrap_or(u128::MAX);
                self.attend_soon(*channel);
                self.look(desk, &payee).await?;
                let within = self.0.config.answer_within;
                let done =
                    self.until(*channel, within, |p, _| (p.deposit() >= reached).then_some(())).await?;
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
        data: Bytes,
    ) -> Result<AttemptId, TillError> {
        match payee.state() {
            PayeeState::Opening | PayeeState::Open => {}
            // The payer's own top-up takes its forced close back.
            PayeeState::Closing { why: Why::Forced { .. }, .. } => {}
            PayeeState::Closing { .. } => return Err(Refusal::Closing.into()),
            PayeeState::Finalized => return Err(Refusal::Finalized.into()),
            PayeeState::Void { .. } => return Err(Refusal::NotFound.into()),
        }
        // What brought the money before may be seen in the escrow, and not be done with.
        let free = |payee: &Payee, _: &Place| {
            let mut attempts = payee.attempts();
            attempts.all(|(_, action, _)| !matches!(action, PayeeAction::Fund(_))).then_some(())
        };
        let freed = self.until(payee.terms().id, self.0.config.answer_within, free).await?;
        freed.ok_or(TillError::Unavailable("channel_busy"))?;
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

    /// Closes a channel because its payer asks for it, and waits until the escrow has paid out. Asking the same again
    /// gives the same.
    ///
    /// # Errors
    /// As [`Till::voucher`]; [`Refusal::Finalized`] once it is closed, by whatever else than this voucher.
    ///
    /// Spec: draft-evm-session-00, "Cooperative Close".
    pub async fn close(&self, seller: &Seller, shown: &Shown<'_>) -> Result<Closed, TillError> {
        let voucher = self.verified(seller, shown).await?;
        let id = shown.channel;
        let before = self.snapshot(id).await?;
        if before.last().is_none_or(|last| last.cumulative() != voucher.cumulative()) {
            let asked = |payee: &Payee, now| {
                Ok((Change::from(payee.step(PayeeEvent::CloseAsked(voucher.clone()), now)?), ()))
            };
            self.change(id, asked).await?;
        }
        self.attend_soon(id);
        let over = |payee: &Payee, _: &Place| matches!(payee.state(), PayeeState::Finalized).then_some(());
        self.until(id, self.0.config.answer_within, over).await?;
        let payee = self.snapshot(id).await?;
        let tx = self.desk(payee.terms().asset.network())?.closed_by(&payee, &self.0.store).await?;
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
    parts: &ChannelParts,
) -> Result<(), TillError> {
    enough(deposit, &opening.limits)?;
    if opening.shown.cumulative > deposit {
        return Err(Refusal::ExceedsDeposit { deposit }.into());
    }
    pulls(pull, parts.open_nonce())
}

/// A channel that is in the escrow already, and that nothing is known of here.
///
/// Spec: draft-evm-session-00, "Open Verification" 4.
async fn stands(desk: &Desk, opening: &Opening<'_>, terms: &Terms) -> Result<(), TillError> {
    let latest = desk.look(terms).await?.latest.ok_or(Refusal::NotConfirmed)?;
    if latest.finalized {
        return Err(Refusal::Finalized.into());
    }
    if latest.close_requested.is_some() {
        return Err(Refusal::Closing.into());
    }
    // Whoever settled it served for those vouchers; they would be taken here once more.
    if latest.settled > 0 {
        return Err(TillError::UsedElsewhere);
    }
    enough(latest.deposit, &opening.limits)?;
    if opening.shown.cumulative > latest.deposit {
        return Err(Refusal::ExceedsDeposit { deposit: latest.deposit }.into());
    }
    Ok(())
}

/// The call that adds what `from` signed for.
fn top_up_call(
    payee: &Payee,
    additional: u128,
    from: &Address,
    salt: [u8; 32],
    pull: &Pull,
) -> Result<Bytes, TillError> {
    let from = to_alloy(from).ok_or(TillError::Malformed("not an address of this chain"))?;
    let (channel, salt) = (B256::from(payee.terms().id.0), B256::from(salt));
    pulls(pull, farthing_evm::voucher::top_up_nonce(channel, additional, from, salt))?;
    Ok(escrow::top_up_with(channel, additional, from, salt, pull))
}

/// Whether this can be what was signed for it.
fn pulls(pull: &Pull, bound: B256) -> Result<(), TillError> {
    match pull {
        Pull::Authorization { nonce, .. } if *nonce != bound => {
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

/// The data of the escrow's log about the channel in a transaction of somebody else, of one that is as `wanted`.
///
/// Spec: draft-evm-session-00, "Transaction Outcome Checks": one that reverted is refused at once.
async fn log_in(
    desk: &Desk,
    terms: &Terms,
    tx: TxHash,
    deed: Deed,
    wanted: impl Fn(&[u128]) -> bool,
) -> Result<Vec<u128>, TillError> {
    let receipts = desk.chain().receipts(vec![tx]).await.map_err(chain_error)?;
    let receipt = receipts.into_iter().next().flatten().ok_or(Refusal::NotConfirmed)?;
    if !receipt.success {
        return Err(TillError::Reverted(Revert::Empty));
    }
    let found = logs_of(&receipt, &terms.escrow, terms.id).filter(|log| deed.is(log));
    // What does not fit is no amount, and nobody asks for it.
    let words = |log: &farthing_evm::Log| {
        let word = |word| u128::try_from(U256::from_be_slice(word)).unwrap_or(u128::MAX);
        log.data.chunks(32).map(word).collect::<Vec<u128>>()
    };
    found.map(words).find(|words| wanted(words)).ok_or(TillError::OtherTransaction)
}
