//! Requests that are paid from a channel.

use std::time::Duration;

use farthing_channel::{
    Again, ChannelId, Need, NewCharge, PayeeError, PayeeEvent, Price, Proven, Receipt, Refusal, Shown,
};
use farthing_primitives::{PaymentId, RequestHash};

use super::till::{Change, Seller, Till, TillError};
use crate::StoredResponse;
use crate::live::lock;

/// How often a request is looked up again that another copy of it came between.
const TRIES: usize = 4;

/// A request that asks to be served from a channel.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    pub seller: &'a Seller,
    /// The voucher that came along. It is accepted if it adds something; if not, it proves who asks.
    pub shown: Shown<'a>,
    /// What is asked for, or the key that its client gave it: charged once, however often it is asked.
    pub request: RequestHash,
    pub price: Price,
    /// What it may use at most; `None` is a stream, which is paid as it goes.
    pub most_units: Option<u64>,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Started {
    /// Serve it.
    Serve(Ticket),
    /// It was served and paid before: give this again.
    Again { charge: PaymentId, answer: StoredResponse, receipt: Receipt },
}

/// Why a stream waits no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The units that it waited for are covered now.
    Covered,
    /// Nobody came in time.
    TimedOut,
    /// The stream is over: another took its place, or the channel is being closed.
    Over,
}

/// The right to serve one request. One that is dropped comes to nothing: a call is not charged, and a stream for what
/// was metered.
#[derive(Debug)]
pub struct Ticket {
    till: Till,
    channel: ChannelId,
    charge: PaymentId,
    proven: Proven,
    /// The least that a voucher for it has to add.
    min_delta: u128,
    done: bool,
}

impl Till {
    /// Begins to serve a request, or says what became of it before. What it may cost is set aside when this returns.
    ///
    /// # Errors
    /// [`Refusal::NeedsVoucher`] if the vouchers do not cover it; the one that came along is accepted all the same.
    /// [`TillError::UnderWay`] while a copy of the request is being served.
    ///
    /// Spec: draft-evm-session-00, "Per-Request Processing" and "Request Idempotency".
    pub async fn start_charge(&self, asked: &Asked<'_>) -> Result<Started, TillError> {
        let id = asked.shown.channel;
        let voucher = self.verified(asked.seller, &asked.shown).await?;
        let proven = voucher.proven();
        for _ in 0..TRIES {
            let former = self.0.store.charge(id, asked.request).await?;
            match former.map(|charge| (charge.id, charge.again())) {
                Some((charge, Again::Wait)) if lock(&self.place(id).mine).contains(&charge) => {
                    return Err(TillError::UnderWay(charge));
                }
                // A former process began it: reading the channel puts an end to it.
                Some((charge, Again::Wait)) => {
                    if self.snapshot(id).await?.running().any(|running| running.id == charge) {
                        return Err(TillError::UnderWay(charge));
                    }
                    continue;
                }
                Some((charge, Again::GiveStored)) => {
                    let answer = self.0.store.charge_answer(charge).await?;
                    let answer = answer.ok_or(TillError::AnswerGone(charge))?;
                    return Ok(Started::Again {
                        charge,
                        answer,
                        receipt: self.receipt_of(id, &proven).await?,
                    });
                }
                Some((_, Again::Start)) | None => {}
            }
            let charge = PaymentId::new(self.now(), self.0.world.random10());
            // It is ours before it is durable, so that nobody takes it for a former process's; and if this caller goes
            // away, it comes to nothing.
            lock(&self.place(id).mine).insert(charge);
            let mut ticket = Ticket {
                till: self.clone(),
                channel: id,
                charge,
                proven: proven.clone(),
                min_delta: asked.shown.min_delta,
                done: false,
            };
            let started = self
                .change(id, |payee, now| {
                    let accepted = match payee
                        .step(PayeeEvent::Voucher(voucher.clone()), now)
                        .map_err(TillError::from)
                    {
                        Ok(step) => Some(step),
                        // Requests overtake each other: an older voucher of who pays is proof enough.
                        Err(TillError::Refused(Refusal::Decreasing { .. })) => None,
                        Err(error) => return Err(error),
                    };
                    let new = NewCharge {
                        id: charge,
                        request: asked.request,
                        price: asked.price.clone(),
                        most_units: asked.most_units,
                        proven: proven.clone(),
                    };
                    let event = PayeeEvent::Started(new);
                    let begun = match accepted.clone() {
                        Some(step) => step.and(event, now),
                        None => payee.step(event, now),
                    };
                    match (begun, accepted) {
                        (Ok(step), _) => Ok((Change::from(step), Ok(()))),
                        (Err(why), Some(step)) => Ok((Change::from(step), Err(by_steps(why, asked)))),
                        (Err(why), None) => Err(by_steps(why, asked)),
                    }
                })
                .await;
            match started {
                Ok((_, Ok(()))) => return Ok(Started::Serve(ticket)),
                Ok((_, Err(why))) | Err(why) => {
                    let copied = why == TillError::Unavailable("store")
                        && self
                            .0
                            .store
                            .charge(id, asked.request)
                            .await?
                            .is_some_and(|other| other.id != charge);
                    // What is not known to be durable is undone when the ticket is dropped.
                    ticket.done = !matches!(why, TillError::Unavailable(_));
                    drop(ticket);
                    if !copied {
                        lock(&self.place(id).mine).remove(&charge);
                        return Err(why);
                    }
                }
            }
        }
        Err(TillError::Unavailable("store"))
    }
}

/// A need that comes before anything is begun, by the steps of the challenge that is answered.
fn by_steps(why: PayeeError, asked: &Asked<'_>) -> TillError {
    TillError::from(match why {
        PayeeError::Refused(Refusal::NeedsVoucher(need)) => {
            PayeeError::Refused(Refusal::NeedsVoucher(need.by_steps(asked.shown.min_delta)))
        }
        other => other,
    })
}

impl Ticket {
    /// Names the charge.
    pub fn id(&self) -> PaymentId {
        self.charge
    }

    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    /// What is asked of the payer, by the steps of the challenge that it pays by.
    pub fn asks(&self, need: Need) -> Need {
        need.by_steps(self.min_delta)
    }

    /// What the payer is told of the channel as it is now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn receipt(&self) -> Result<Receipt, TillError> {
        self.till.receipt_of(self.channel, &self.proven).await
    }

    /// A call is answered: it took so many units, and is charged in the commit that stores its answer. What is given to
    /// the payer is given after this.
    ///
    /// # Errors
    /// Nothing is charged then, and nothing may be delivered.
    pub async fn finish(mut self, units: u64, answer: StoredResponse) -> Result<Receipt, TillError> {
        if answer.body.len() > self.till.0.config.max_answer {
            return Err(TillError::AnswerTooLong);
        }
        let (charge, till) = (self.charge, self.till.clone());
        let serve = |payee: &farthing_channel::Payee, now| {
            let step = payee.step(PayeeEvent::Served { charge, units }, now)?;
            Ok((Change { answer: Some((charge, answer.clone())), ..Change::from(step) }, ()))
        };
        let (payee, ()) = till.change(self.channel, serve).await?;
        self.over();
        Ok(payee.receipt(&self.proven)?)
    }

    /// So many units of a stream are about to leave: they are charged when this returns.
    ///
    /// # Errors
    /// [`Refusal::NeedsVoucher`] says what it takes to go on: see [`Ticket::wait`]. [`Refusal::StreamEnded`] if another
    /// took its place. They may not leave then.
    ///
    /// Spec: draft-evm-session-00, "Insufficient Balance During Streaming".
    pub async fn meter(&self, units: u64) -> Result<Receipt, TillError> {
        let charge = self.charge;
        let metered = |payee: &farthing_channel::Payee, now| match payee
            .step(PayeeEvent::Metered { charge, units }, now)
            .map_err(TillError::from)
        {
            Ok(step) => Ok((Change::from(step), Ok(()))),
            Err(why @ TillError::Refused(Refusal::NeedsVoucher(_))) => {
                let paused = payee.step(PayeeEvent::Paused { charge, units }, now)?;
                Ok((Change::from(paused), Err(why)))
            }
            Err(why) => Err(why),
        };
        let (payee, told) = self.till.change(self.channel, metered).await?;
        told?;
        Ok(payee.receipt(&self.proven)?)
    }

    /// Waits until vouchers (and a top-up, if it takes one) cover so many more units, beside what others on the channel
    /// were promised meanwhile; with `None`, for the stream's end alone.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn wait(&self, units: Option<u64>, patience: Duration) -> Result<Woken, TillError> {
        let charge = self.charge;
        let woken = self
            .till
            .until(self.channel, patience, |payee, _| {
                if payee.running().all(|running| running.id != charge) {
                    Some(Woken::Over)
                } else {
                    units.filter(|units| payee.covers_more(charge, *units)).map(|_| Woken::Covered)
                }
            })
            .await?;
        Ok(woken.unwrap_or(Woken::TimedOut))
    }

    /// A stream came to its end, with so many units that were not metered before.
    ///
    /// # Errors
    /// As [`Ticket::meter`].
    pub async fn end(mut self, units: u64) -> Result<Receipt, TillError> {
        let (charge, till) = (self.charge, self.till.clone());
        let serve = |payee: &farthing_channel::Payee, now| {
            Ok((Change::from(payee.step(PayeeEvent::Served { charge, units }, now)?), ()))
        };
        let (payee, ()) = till.change(self.channel, serve).await?;
        self.over();
        Ok(payee.receipt(&self.proven)?)
    }

    /// There will be no answer: a call is not charged, and a stream for what was metered.
    ///
    /// # Errors
    /// If that could not be made durable; the channel's next reader in another process does it.
    pub async fn fail(mut self) -> Result<(), TillError> {
        let till = self.till.clone();
        lose(&till, self.channel, self.charge).await?;
        self.over();
        Ok(())
    }

    fn over(&mut self) {
        self.done = true;
        lock(&self.till.place(self.channel).mine).remove(&self.charge);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let (till, channel, charge) = (self.till.clone(), self.channel, self.charge);
        self.till.0.world.spawn(Box::pin(async move {
            if let Err(error) = lose(&till, channel, charge).await {
                tracing::debug!(%charge, %error, "a charge that came to nothing");
            }
            // From now on it is nobody's: whoever reads the channel anew puts an end to it.
            lock(&till.place(channel).mine).remove(&charge);
        }));
    }
}

async fn lose(till: &Till, channel: ChannelId, charge: PaymentId) -> Result<(), TillError> {
    let lost = |payee: &farthing_channel::Payee, now| {
        Ok((Change::from(payee.step(PayeeEvent::Lost { charge }, now)?), ()))
    };
    till.change(channel, lost).await.map(|_| ())
}
