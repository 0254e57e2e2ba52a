use farthing_ledger::{Entry, Purpose, TransferId};
use farthing_primitives::{Money, PaymentId, Timestamp};

use crate::payee::{
    Charge, ChargeState, Funding, NewCharge, Payee, PayeeAction, PayeeError, PayeeEvent, PayeeState, Taking,
    Why,
};
use crate::{Attempt, Exact, Need, Price, Refusal, VerifiedVoucher, View};

/// What one atomic store call makes durable: the next state, what the books gain, and the charges that changed.
///
/// The commit applies only over [`PayeeStep::expected`]; what others can see of it happens after it is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayeeStep {
    /// The version that the channel must have in the store.
    pub expected: u64,
    pub next: Payee,
    pub entries: Vec<Entry>,
    /// The rows to insert or to overwrite.
    pub charges: Vec<Charge>,
}

/// What a step gathers.
#[derive(Default)]
struct Gain {
    entries: Vec<Entry>,
    charges: Vec<Charge>,
}

type Done = Result<(), PayeeError>;

impl PayeeStep {
    /// Whether there is nothing to commit: the event was known, or tells nothing new.
    pub fn is_empty(&self) -> bool {
        self.next.version == self.expected
    }

    /// Adds another event to the same commit.
    pub fn and(self, event: PayeeEvent, now: Timestamp) -> Result<Self, PayeeError> {
        let more = self.next.step(event, now)?;
        Ok(Self {
            expected: self.expected,
            next: more.next,
            entries: [self.entries, more.entries].concat(),
            charges: [self.charges, more.charges].concat(),
        })
    }
}

impl Payee {
    /// What the chain may do to the books of one channel until it is closed. Their counter goes a bit further.
    pub const MOST_ROUNDS: u16 = 60_000;

    /// Moves the channel by one event.
    ///
    /// # Errors
    /// [`PayeeError`] if it does not fit or is refused. Nothing is changed then.
    pub fn step(&self, event: PayeeEvent, now: Timestamp) -> Result<PayeeStep, PayeeError> {
        let mut next = self.clone();
        let mut gain = Gain::default();
        next.apply(event, now, &mut gain)?;
        if next != *self {
            next.version += 1;
            next.updated = now;
        }
        Ok(PayeeStep { expected: self.version, next, entries: gain.entries, charges: gain.charges })
    }

    fn apply(&mut self, event: PayeeEvent, now: Timestamp, gain: &mut Gain) -> Done {
        let misfit = PayeeError::DoesNotFit { event: event.name(), state: self.state.name() };
        match event {
            PayeeEvent::Seen { view: Some(view), deep } => self.see(&view, deep, now, gain),
            PayeeEvent::Seen { view: None, deep } => {
                // Its block went away. What it said of the deposit is believed again once it is deep again.
                if !deep && matches!(self.state, PayeeState::Open | PayeeState::Closing { .. }) {
                    self.state = PayeeState::Opening;
                }
                Ok(())
            }
            // A deposit that was deep once does not fail any more: its block will be replaced by another with it.
            PayeeEvent::OpenFailed(reason) if self.state == PayeeState::Opening && self.deposit == 0 => {
                self.state = PayeeState::Void { reason };
                Ok(())
            }
            PayeeEvent::Voucher(voucher) => self.accept(&voucher, now),
            PayeeEvent::Started(new) => self.start(new, now, gain),
            PayeeEvent::Metered { charge, units } => self.meter(charge, units, now, gain),
            PayeeEvent::Paused { charge, units } => self.pause(charge, units),
            PayeeEvent::Served { charge, units } => self.serve(charge, units, now, gain),
            PayeeEvent::Lost { charge } => {
                let charge = self.running_charge(charge)?;
                self.cut_off(charge, gain);
                Ok(())
            }
            PayeeEvent::CloseAsked(voucher) => self.close_asked(&voucher, now, gain),
            PayeeEvent::CloseDecided if self.state == PayeeState::Open => {
                self.begin_closing(Why::Decided, now, gain);
                Ok(())
            }
            PayeeEvent::Attempted { attempt, action } => {
                match (action, &self.state) {
                    (
                        PayeeAction::Fund(action),
                        PayeeState::Opening | PayeeState::Open | PayeeState::Closing { .. },
                    ) if self.funding.is_none() => {
                        self.funding = Some(Attempt { id: attempt, action, since: now, tx: None });
                    }
                    (PayeeAction::Take(action @ Taking::Settle(_)), PayeeState::Open)
                        if self.taking.is_none() =>
                    {
                        self.taking = Some(Attempt { id: attempt, action, since: now, tx: None });
                    }
                    // A close takes the place of a settlement that got stuck: whichever is included first, the other
                    // does no harm.
                    (PayeeAction::Take(action @ Taking::Close(_)), PayeeState::Closing { .. })
                        if !self.closes() =>
                    {
                        // What is not served yet is not covered by what is claimed.
                        self.cut_off_all(gain);
                        self.taking = Some(Attempt { id: attempt, action, since: now, tx: None });
                    }
                    _ => return Err(misfit),
                }
                Ok(())
            }
            PayeeEvent::Named { attempt, tx } => {
                let funding = self.funding.as_mut().filter(|a| a.id == attempt).map(|a| &mut a.tx);
                let taking = self.taking.as_mut().filter(|a| a.id == attempt).map(|a| &mut a.tx);
                *funding.or(taking).ok_or(misfit)? = Some(tx);
                Ok(())
            }
            PayeeEvent::Worked { attempt, proof, view } => {
                if !self.forget(attempt) {
                    return Err(misfit);
                }
                self.pay_gas(proof.fee, gain)?;
                self.see(&view, true, now, gain)
            }
            PayeeEvent::Failed { attempt, reason, fee } => {
                let opens =
                    self.funding.as_ref().is_some_and(|a| a.id == attempt && a.action == Funding::Open)
                        && self.state == PayeeState::Opening
                        && self.deposit == 0;
                if !self.forget(attempt) {
                    return Err(misfit);
                }
                self.pay_gas(fee, gain)?;
                if opens {
                    self.state = PayeeState::Void { reason };
                }
                Ok(())
            }
            PayeeEvent::Limited(limits) => {
                self.limits = limits;
                Ok(())
            }
            PayeeEvent::OpenFailed(_) | PayeeEvent::CloseDecided => Err(misfit),
        }
    }

    // ---- What the chain says.

    fn see(&mut self, view: &View, deep: bool, now: Timestamp, gain: &mut Gain) -> Done {
        if !view.is_sound() {
            return Err(PayeeError::Unsound);
        }
        if self.state == PayeeState::Finalized {
            return Ok(());
        }
        if deep {
            // A node that lags behind what we know tells nothing.
            if view.deposit < self.deposit || view.settled < self.settled {
                return Ok(());
            }
            if view.finalized {
                return self.finalize(view, gain);
            }
            self.grow(view, gain)?;
            if matches!(self.state, PayeeState::Opening | PayeeState::Void { .. }) {
                self.open(now);
            }
        }
        self.look(view, now, gain);
        Ok(())
    }

    /// Too small a deposit waits for a top-up.
    fn open(&mut self, now: Timestamp) {
        if self.deposit < self.limits.min_deposit {
            self.state = PayeeState::Opening;
            return;
        }
        // What came along with the open was believed before the deposit was known.
        self.best = self.best.take().filter(|best| best.cumulative() <= self.deposit);
        self.state = PayeeState::Open;
        self.active = now;
    }

    /// What is not deep yet stops the service at once; it gives nothing.
    fn look(&mut self, view: &View, now: Timestamp, gain: &mut Gain) {
        let (noticed, since) = match &self.state {
            PayeeState::Open => (None, now),
            PayeeState::Closing { why: Why::Forced { block, .. } | Why::Over { block }, since } => {
                (Some(*block), *since)
            }
            PayeeState::Closing { since, .. } => (None, *since),
            PayeeState::Opening | PayeeState::Finalized | PayeeState::Void { .. } => return,
        };
        if noticed.is_some_and(|block| view.block < block) {
            return;
        }
        let block = view.block;
        if view.finalized {
            self.begin_closing(Why::Over { block }, since, gain);
        } else if let Some(requested) = view.close_requested {
            // Spec: draft-evm-session-00, "Voucher Verification" 1: no voucher while a forced close pends.
            self.begin_closing(Why::Forced { requested, block }, since, gain);
        } else if noticed.is_some() {
            // Spec: draft-evm-session-00, `topUp`: it takes a forced close back. So does a reorganization.
            if self.last.is_some() {
                self.state = PayeeState::Closing { why: Why::Asked, since };
            } else if self.closes() {
                self.state = PayeeState::Closing { why: Why::Decided, since };
            } else {
                self.state = PayeeState::Open;
            }
        }
    }

    fn grow(&mut self, view: &View, gain: &mut Gain) -> Done {
        let (deposited, taken) = (view.deposit - self.deposit, view.settled - self.settled);
        self.deposit = view.deposit;
        self.settled = view.settled;
        self.post(
            &[(Purpose::Deposit, deposited), (Purpose::Settlement, taken), (Purpose::Claim, taken)],
            gain,
        )
    }

    fn finalize(&mut self, view: &View, gain: &mut Gain) -> Done {
        self.cut_off_all(gain);
        self.grow(view, gain)?;
        self.state = PayeeState::Finalized;
        let lost = self.spent().saturating_sub(self.settled);
        let released = self.deposit - self.settled;
        self.post(&[(Purpose::WriteOff, lost), (Purpose::Release, released)], gain)
    }

    // ---- Vouchers.

    /// Spec: draft-evm-session-00, "Voucher Verification": 1, then (the signature was verified) 6 to 10.
    fn accept(&mut self, voucher: &VerifiedVoucher, now: Timestamp) -> Done {
        if !voucher.is_of(&self.terms) {
            return Err(PayeeError::OtherChannel);
        }
        self.is_open()?;
        let (cumulative, accepted) = (voucher.cumulative(), self.accepted());
        // Spec: 6. The same amount again changes nothing, also if another signature stands under it.
        if cumulative == accepted {
            self.best.get_or_insert_with(|| voucher.voucher().clone());
            return Ok(());
        }
        if cumulative < accepted {
            return Err(Refusal::Decreasing { accepted }.into());
        }
        // Spec: 8.
        if cumulative > self.deposit {
            return Err(Refusal::ExceedsDeposit { deposit: self.deposit }.into());
        }
        // Spec: 7. What was asked for, and the last that there is, may be less.
        let asked = self.need.is_some_and(|need| cumulative >= need);
        let least = voucher.min_delta();
        if cumulative - accepted < least && cumulative != self.deposit && !asked {
            return Err(Refusal::DeltaTooSmall { accepted, least }.into());
        }
        self.best = Some(voucher.voucher().clone());
        self.need = self.need.filter(|need| cumulative < *need);
        self.active = now;
        Ok(())
    }

    fn close_asked(&mut self, voucher: &VerifiedVoucher, now: Timestamp, gain: &mut Gain) -> Done {
        if !voucher.is_of(&self.terms) {
            return Err(PayeeError::OtherChannel);
        }
        match &self.state {
            PayeeState::Open => {}
            // It is asked once more, or we thought of it ourselves.
            PayeeState::Closing { why: Why::Asked | Why::Decided, .. } => return Ok(()),
            _ => return self.is_open().map_err(PayeeError::from),
        }
        if voucher.cumulative() > self.deposit {
            return Err(Refusal::ExceedsDeposit { deposit: self.deposit }.into());
        }
        if voucher.cumulative() > self.accepted() {
            self.best = Some(voucher.voucher().clone());
        }
        self.last = Some(voucher.voucher().clone());
        self.begin_closing(Why::Asked, now, gain);
        Ok(())
    }

    fn begin_closing(&mut self, why: Why, since: Timestamp, gain: &mut Gain) {
        self.state = PayeeState::Closing { why, since };
        self.need = None;
        if let Some(stream) = self.stream.and_then(|id| self.charges.get(&id).cloned()) {
            self.cut_off(stream, gain);
        }
    }

    fn is_open(&self) -> Result<(), Refusal> {
        match &self.state {
            PayeeState::Open => Ok(()),
            PayeeState::Opening => Err(Refusal::NotConfirmed),
            PayeeState::Closing { .. } => Err(Refusal::Closing),
            PayeeState::Finalized => Err(Refusal::Finalized),
            PayeeState::Void { .. } => Err(Refusal::NotFound),
        }
    }

    // ---- Charges.

    /// What is spent if everything that is running uses what it may, and `more` besides.
    fn spent_with(&self, more: Option<(&Price, u64)>) -> Result<Exact, PayeeError> {
        let reserved = self.charges.values().filter_map(|c| c.most_units.map(|units| (&c.price, units)));
        let sum = reserved.chain(more).try_fold(self.spent, |sum, (price, units)| sum.plus(price, units))?;
        Ok(sum)
    }

    /// Whether vouchers, the deposit and our credit cover that.
    pub(crate) fn covers(&self, more: Option<(&Price, u64)>) -> Result<(), PayeeError> {
        let required = self.spent_with(more)?.floor();
        if required <= self.accepted().saturating_add(self.limits.credit) {
            return Ok(());
        }
        let (accepted, spent) = (self.accepted(), Some(self.spent()));
        Err(Refusal::NeedsVoucher(Need { required, accepted, deposit: self.deposit, spent }).into())
    }

    fn start(&mut self, new: NewCharge, now: Timestamp, gain: &mut Gain) -> Done {
        if !new.proven.is_of(&self.terms) {
            return Err(PayeeError::OtherChannel);
        }
        self.is_open()?;
        let same = |c: &&Charge| c.request == new.request || c.id == new.id;
        if let Some(running) = self.charges.values().find(same) {
            return Err(PayeeError::UnderWay(running.id));
        }
        // Spec: draft-evm-session-00, "Concurrency Model": a new stream ends the one before.
        if new.most_units.is_none()
            && let Some(former) = self.stream.and_then(|id| self.charges.get(&id).cloned())
        {
            self.cut_off(former, gain);
        }
        if self.charges.len() >= usize::from(self.limits.most_in_flight) {
            return Err(Refusal::TooManyInFlight(self.limits.most_in_flight).into());
        }
        // A stream needs something to begin with: its first unit.
        self.covers(Some((&new.price, new.most_units.unwrap_or(1))))?;
        let charge = Charge {
            id: new.id,
            request: new.request,
            price: new.price,
            most_units: new.most_units,
            units: 0,
            atoms: 0,
            state: ChargeState::Running,
            started: now,
        };
        let reserved = charge.most_units.map_or(Ok(0), |units| charge.price.most(units))?;
        if reserved > 0 {
            let (id, tenant) = (sale(charge.id, 0), self.tenant.clone());
            gain.entries.push(Entry::Reserve { id, tenant, money: self.money(reserved) });
        }
        if charge.is_stream() {
            self.stream = Some(charge.id);
        }
        self.active = now;
        self.charges.insert(charge.id, charge.clone());
        gain.charges.push(charge);
        Ok(())
    }

    /// Spec: draft-evm-session-00, "Per-Request Processing" 3: `spent` is durable before anything is delivered.
    fn meter(&mut self, id: PaymentId, units: u64, now: Timestamp, gain: &mut Gain) -> Done {
        let mut charge = self.running_stream(id)?;
        self.is_open()?;
        self.covers(Some((&charge.price, units)))?;
        self.spend(&mut charge, units, now)?;
        self.charges.insert(id, charge.clone());
        gain.charges.push(charge);
        Ok(())
    }

    fn pause(&mut self, id: PaymentId, units: u64) -> Done {
        let charge = self.running_stream(id)?;
        match self.covers(Some((&charge.price, units))) {
            Err(PayeeError::Refused(Refusal::NeedsVoucher(need))) => {
                self.need = Some(need.required);
                Ok(())
            }
            other => other,
        }
    }

    fn serve(&mut self, id: PaymentId, units: u64, now: Timestamp, gain: &mut Gain) -> Done {
        if self.charges.get(&id).is_none_or(Charge::is_stream) {
            let mut stream = self.running_stream(id)?;
            if units > 0 {
                self.covers(Some((&stream.price, units)))?;
                self.spend(&mut stream, units, now)?;
            }
            stream.state = ChargeState::Served;
            self.end(stream, gain);
            return Ok(());
        }
        let mut charge = self.running_charge(id)?;
        if charge.most_units.is_some_and(|most| units > most) {
            return Err(PayeeError::TooManyUnits);
        }
        self.spend(&mut charge, units, now)?;
        charge.state = ChargeState::Served;
        self.end(charge, gain);
        Ok(())
    }

    fn spend(&mut self, charge: &mut Charge, units: u64, now: Timestamp) -> Done {
        let spent = self.spent.plus(&charge.price, units)?;
        let atoms = spent.floor() - self.spent.floor();
        let add = |a: u128, b: u128| a.checked_add(b).ok_or(PayeeError::Overflow);
        charge.units = add(charge.units, u128::from(units))?;
        charge.atoms = add(charge.atoms, atoms)?;
        self.units = add(self.units, u128::from(units))?;
        self.spent = spent;
        self.active = now;
        Ok(())
    }

    fn running_charge(&self, id: PaymentId) -> Result<Charge, PayeeError> {
        self.charges.get(&id).cloned().ok_or(PayeeError::NotRunning(id))
    }

    pub(crate) fn running_stream(&self, id: PaymentId) -> Result<Charge, PayeeError> {
        match self.charges.get(&id) {
            Some(charge) if charge.is_stream() => Ok(charge.clone()),
            Some(_) => Err(PayeeError::NotRunning(id)),
            None => Err(Refusal::StreamEnded.into()),
        }
    }

    fn cut_off_all(&mut self, gain: &mut Gain) {
        for charge in self.charges.clone().into_values() {
            self.cut_off(charge, gain);
        }
    }

    fn cut_off(&mut self, mut charge: Charge, gain: &mut Gain) {
        charge.state = if charge.is_stream() { ChargeState::Ended } else { ChargeState::Lost };
        self.end(charge, gain);
    }

    /// A charge that runs no more goes into the books.
    fn end(&mut self, charge: Charge, gain: &mut Gain) {
        self.charges.remove(&charge.id);
        if self.stream == Some(charge.id) {
            self.stream = None;
            self.need = None;
        }
        // INVARIANT: it was computed when the charge began.
        let reserved = charge.most_units.and_then(|units| charge.price.most(units).ok()).unwrap_or(0);
        let round = u16::from(reserved > 0);
        if reserved > 0 && charge.atoms == reserved {
            gain.entries.push(Entry::Post { id: sale(charge.id, 0) });
        } else {
            if reserved > 0 {
                gain.entries.push(Entry::Void { id: sale(charge.id, 0) });
            }
            if charge.atoms > 0 {
                let (id, tenant) = (sale(charge.id, round), self.tenant.clone());
                gain.entries.push(Entry::Transfer { id, tenant, money: self.money(charge.atoms) });
            }
        }
        gain.charges.push(charge);
    }

    // ---- Books.

    fn money(&self, atoms: u128) -> Money {
        Money::new(self.terms.asset.clone(), atoms)
    }

    /// Each thing that the chain does to the channel has a round of its own.
    fn post(&mut self, moves: &[(Purpose, u128)], gain: &mut Gain) -> Done {
        if moves.iter().all(|(_, atoms)| *atoms == 0) {
            return Ok(());
        }
        self.round = self.round.checked_add(1).ok_or(PayeeError::TooManyRounds)?;
        for (purpose, atoms) in moves.iter().filter(|(_, atoms)| *atoms > 0) {
            let id = TransferId { payment: self.book, round: self.round, purpose: *purpose };
            let (tenant, money) = (self.tenant.clone(), self.money(*atoms));
            gain.entries.push(Entry::Transfer { id, tenant, money });
        }
        Ok(())
    }

    fn pay_gas(&mut self, fee: Option<Money>, gain: &mut Gain) -> Done {
        let Some(money) = fee.filter(|fee| !fee.is_zero()) else { return Ok(()) };
        self.round = self.round.checked_add(1).ok_or(PayeeError::TooManyRounds)?;
        let id = TransferId { payment: self.book, round: self.round, purpose: Purpose::Gas };
        gain.entries.push(Entry::Transfer { id, tenant: self.tenant.clone(), money });
        Ok(())
    }

    fn forget(&mut self, attempt: farthing_primitives::AttemptId) -> bool {
        let funds = self.funding.take_if(|a| a.id == attempt).is_some();
        let takes = self.taking.take_if(|a| a.id == attempt).is_some();
        funds || takes
    }
}

/// The name of a charge's sale.
fn sale(charge: PaymentId, round: u16) -> TransferId {
    TransferId { payment: charge, round, purpose: Purpose::Sale }
}
