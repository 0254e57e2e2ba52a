//! A model check: a payer, a payee and an escrow, in every state that they can be in together.
//!
//! Both sides are the production code; around them messages get lost, doubled and reordered (what was sent may arrive
//! at any time, any number of times, or never), processes die between a commit and what should follow it, blocks are
//! replaced (one deep), nodes lag, and the payer asks the escrow to close whenever it likes. The escrow is the draft's,
//! in a few lines. Time has four moments; the grace period takes two of them, and a payee's transaction gets into a
//! block before the next.
//!
//! What is taken as given: a payee looks at the escrow once after a start before it serves, and between two moments
//! while it is up ([`Limits::look_every`]).

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use super::*;

/// The length of a moment, in seconds. The margin is one of them.
const MOMENT: u64 = 300;
const GRACE_MOMENTS: u8 = 2;
const LAST_MOMENT: u8 = 3;
const DEPOSIT: u8 = 2;
const CREDIT: u8 = 1;
/// A model that grows beyond this is one that nobody waits for.
const MOST_STATES: usize = 1_500_000;

/// What else may happen, beside what always may.
#[derive(Debug, Clone, Copy, Default)]
struct Setting {
    tops_up: bool,
    reorgs: u8,
    crashes: u8,
    /// The payee's operator submits whatever the escrow takes, past its own machine.
    greedy: bool,
    up_to: bool,
    /// Receipts come, with what the payee says that it served.
    receipts: bool,
    /// The payee settles as it goes.
    settles: bool,
}

/// The escrow, as the draft describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Escrow {
    block: u8,
    deposit: u8,
    settled: u8,
    requested: Option<u8>,
    finalized: bool,
    refunded: u8,
    /// Who ended it: the payee by a close.
    closed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Tx {
    Open,
    TopUp,
    RequestClose,
    Withdraw,
    /// So much, by a voucher for so much.
    Settle(u8, u8),
    Close(u8, u8),
}

impl Escrow {
    /// What the transaction makes of it; `None` if it reverts.
    fn apply(mut self, tx: Tx, now: u8, up_to: bool) -> Option<Self> {
        let alive = self.deposit > 0 && !self.finalized;
        let covered = |amount: u8, voucher: u8| if up_to { amount <= voucher } else { amount == voucher };
        match tx {
            Tx::Open if self.deposit == 0 => self.deposit = DEPOSIT,
            Tx::TopUp if alive => {
                self.deposit += 1;
                self.requested = None;
            }
            Tx::RequestClose if alive && self.requested.is_none() => self.requested = Some(now),
            Tx::Withdraw if alive && self.requested.is_some_and(|at| now >= at + GRACE_MOMENTS) => {
                self.finalized = true;
                self.refunded = self.deposit - self.settled;
            }
            Tx::Settle(amount, voucher)
                if alive && amount > self.settled && amount <= self.deposit && covered(amount, voucher) =>
            {
                self.settled = amount;
            }
            Tx::Close(amount, voucher)
                if alive
                    && amount <= self.deposit
                    && (amount <= self.settled || covered(amount, voucher)) =>
            {
                self.settled = self.settled.max(amount);
                self.finalized = true;
                self.closed = true;
                self.refunded = self.deposit - self.settled;
            }
            _ => return None,
        }
        Some(self)
    }

    fn view(self) -> Option<View> {
        (self.deposit > 0).then(|| View {
            block: u64::from(self.block),
            deposit: self.deposit.into(),
            settled: self.settled.into(),
            close_requested: self.requested.map(moment),
            finalized: self.finalized,
        })
    }
}

fn moment(t: u8) -> Timestamp {
    after(MOMENT * u64::from(t))
}

/// What happens to a payee, without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ToPayee {
    Seen(Escrow, bool),
    Voucher(u8),
    CloseAsked(u8),
    Start(u8),
    Meter,
    Restarted,
    Begin,
    Attempt,
    Worked(Escrow),
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ToPayer {
    Seen(Escrow, bool),
    Raise,
    Received,
    Told(u8, u8),
    Leave,
    Asked,
    Intend(Tx),
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    t: u8,
    payee: u32,
    payer: u32,
    payee_up: bool,
    /// It looked since it started.
    looked: bool,
    payer_up: bool,
    /// All that cannot be replaced, and what the newest block makes of it.
    deep: Escrow,
    head: Escrow,
    /// The transaction in the newest block.
    last: Option<Tx>,
    /// Known to nodes and in no block, in a list without gaps.
    mempool: Mempool,
    /// The voucher that was sent with a close. All others up to the mark were sent, or may have been.
    sent_close: Option<u8>,
    /// A unit was charged and is about to leave.
    leaving: bool,
    starts: u8,
    reorgs: u8,
    crashes: u8,
    /// The payee was there in time to answer the forced close.
    could: bool,
}

/// A list without gaps.
type Mempool = [Option<Tx>; 3];

/// What may happen next, and what it makes of the world.
type Steps = Vec<(&'static str, World)>;

/// The states of one side that were reached, numbered.
struct Pool<S, E> {
    all: Vec<S>,
    ids: HashMap<Vec<u8>, u32>,
    steps: HashMap<(u32, E, u8), Option<u32>>,
}

impl<S, E: Hash + Eq + Copy> Pool<S, E> {
    fn new() -> Self {
        Self { all: Vec::new(), ids: HashMap::new(), steps: HashMap::new() }
    }

    fn number(&mut self, state: S, key: Vec<u8>) -> u32 {
        *self.ids.entry(key).or_insert_with(|| {
            self.all.push(state);
            u32::try_from(self.all.len() - 1).expect("few")
        })
    }

    fn get(&self, id: u32) -> &S {
        &self.all[id as usize]
    }
}

struct Model {
    setting: Setting,
    payees: Pool<Payee, ToPayee>,
    payers: Pool<Payer, ToPayer>,
}

/// Counts of commits and of time that decide nothing are left out, so that equal futures are equal states.
fn plain_payee(mut payee: Payee) -> Payee {
    payee.version = 0;
    payee.round = 0;
    (payee.active, payee.created, payee.updated) = (NOW, NOW, NOW);
    if let PayeeState::Closing { since, .. } = &mut payee.state {
        *since = NOW;
    }
    payee.charges.values_mut().for_each(|charge| charge.started = NOW);
    payee.taking.iter_mut().for_each(|taking| taking.since = NOW);
    payee
}

fn plain_payer(mut payer: Payer) -> Payer {
    payer.version = 0;
    (payer.created, payer.updated) = (NOW, NOW);
    if let PayerState::Leaving { since, asked } = &mut payer.state {
        *since = NOW;
        *asked = asked.map(|_| NOW);
    }
    payer.pending.iter_mut().for_each(|pending| pending.since = NOW);
    payer
}

fn small(atoms: u128) -> u8 {
    u8::try_from(atoms).expect("small")
}

impl Model {
    fn new(setting: Setting) -> (Self, World) {
        let capture = if setting.up_to { Capture::UpTo } else { Capture::Signed };
        let limits = Limits {
            credit: CREDIT.into(),
            most_unsettled: setting.settles.then_some(1),
            margin: Duration::from_secs(MOMENT),
            drain: Duration::ZERO,
            ..limits()
        };
        let grace = Duration::from_secs(MOMENT * u64::from(GRACE_MOMENTS));
        let terms = Terms { grace, ..terms(capture) };
        let new = NewPayee { book: payment(200), tenant: TenantId::local(), terms: terms.clone(), limits };
        let payee = Payee::begin(new, Some(&voucher(0)), NOW).expect("begins");
        let budget = Budget {
            most_deposit: u128::from(DEPOSIT) + 1,
            most_price: each(1),
            ahead: 1,
            trust: 0,
            patience: Duration::ZERO,
            slack: Duration::ZERO,
        };
        let payer = Payer::open(terms, budget, attempt(1), DEPOSIT.into(), NOW).expect("within the budget");
        let mut model = Self { setting, payees: Pool::new(), payers: Pool::new() };
        let world = World {
            t: 0,
            payee: model.number_payee(payee),
            payer: model.number_payer(payer),
            payee_up: true,
            looked: true,
            payer_up: true,
            deep: Escrow::default(),
            head: Escrow::default(),
            last: None,
            mempool: [None; 3],
            sent_close: None,
            leaving: false,
            starts: 0,
            reorgs: 0,
            crashes: 0,
            could: false,
        };
        (model, world)
    }

    fn number_payee(&mut self, payee: Payee) -> u32 {
        let payee = plain_payee(payee);
        let key = record::encode_payee(&payee);
        self.payees.number(payee, key)
    }

    fn number_payer(&mut self, payer: Payer) -> u32 {
        let payer = plain_payer(payer);
        let key = record::encode_payer(&payer);
        self.payers.number(payer, key)
    }

    /// The payee after the event; `None` if it refuses, or nothing changes.
    fn payee(&mut self, id: u32, event: ToPayee, t: u8) -> Option<u32> {
        if let Some(known) = self.payees.steps.get(&(id, event, t)) {
            return *known;
        }
        let payee = self.payees.get(id).clone();
        let now = moment(t);
        let taking = payee.taking.as_ref().map(|taking| taking.id);
        let step = |event| payee.step(event, now).ok().filter(|step| !step.is_empty()).map(|step| step.next);
        let next = match event {
            ToPayee::Seen(escrow, deep) => step(PayeeEvent::Seen { view: escrow.view(), deep }),
            ToPayee::Voucher(amount) => step(PayeeEvent::Voucher(voucher(amount.into()))),
            ToPayee::CloseAsked(amount) => step(PayeeEvent::CloseAsked(voucher(amount.into()))),
            ToPayee::Start(n) => step(stream(n, each(1))),
            ToPayee::Meter => {
                payee.stream().and_then(|charge| step(PayeeEvent::Metered { charge, units: 1 }))
            }
            ToPayee::Restarted => {
                let lost = payee.running().map(|charge| charge.id).collect::<Vec<_>>();
                let mut next = payee.clone();
                for charge in lost {
                    next = next.step(PayeeEvent::Lost { charge }, now).expect("it was running").next;
                }
                Some(next)
            }
            ToPayee::Begin => step(PayeeEvent::CloseDecided),
            ToPayee::Attempt => match payee.next(now) {
                PayeeNext::Settle(claim) => Some((1, Taking::Settle(claim))),
                PayeeNext::Close { claim, .. } => Some((2, Taking::Close(claim))),
                _ => None,
            }
            .map(|(n, taking)| {
                let (attempt, action) = (attempt(n), PayeeAction::Take(taking));
                payee.step(PayeeEvent::Attempted { attempt, action }, now).expect("it fits").next
            }),
            ToPayee::Worked(escrow) => taking
                .zip(escrow.view())
                .and_then(|(attempt, view)| step(PayeeEvent::Worked { attempt, proof: proof(None), view })),
            ToPayee::Failed => {
                taking.and_then(|attempt| step(PayeeEvent::Failed { attempt, reason: reason(), fee: None }))
            }
        };
        let next = next.map(|next| self.number_payee(next)).filter(|next| *next != id);
        self.payees.steps.insert((id, event, t), next);
        next
    }

    fn payer(&mut self, id: u32, event: ToPayer, t: u8) -> Option<u32> {
        if let Some(known) = self.payers.steps.get(&(id, event, t)) {
            return *known;
        }
        let payer = self.payers.get(id).clone();
        let pending = payer.pending.as_ref().map(|pending| pending.id);
        let event_of = |event| match event {
            ToPayer::Seen(escrow, deep) => Some(PayerEvent::Seen { view: escrow.view(), deep }),
            ToPayer::Raise => Some(PayerEvent::Raised { to: payer.signed() + 1 }),
            ToPayer::Received => Some(PayerEvent::Received { price: each(1), units: 1 }),
            ToPayer::Told(accepted, spent) => Some(PayerEvent::Told(Receipt {
                accepted: accepted.into(),
                spent: spent.into(),
                units: spent.into(),
                deposit: 0,
                settled: 0,
            })),
            ToPayer::Leave => Some(PayerEvent::LeaveDecided),
            ToPayer::Asked => Some(PayerEvent::CloseAsked),
            ToPayer::Intend(tx) => {
                let action = match tx {
                    Tx::TopUp => PayerAction::TopUp { amount: 1, reaches: 0 },
                    Tx::RequestClose => PayerAction::RequestClose,
                    _ => PayerAction::Withdraw,
                };
                Some(PayerEvent::Intended { attempt: attempt(1), action })
            }
            ToPayer::Failed => pending.map(|attempt| PayerEvent::Failed { attempt, reason: reason() }),
        };
        let step = event_of(event).and_then(|event| payer.step(event, moment(t)).ok());
        let next = step.map(|step| self.number_payer(step.next)).filter(|next| *next != id);
        self.payers.steps.insert((id, event, t), next);
        next
    }

    /// The payer's high-water mark.
    fn marked(&self, w: &World) -> u8 {
        small(self.payers.get(w.payer).signed())
    }

    fn taking(&self, w: &World) -> Option<Tx> {
        self.payees.get(w.payee).taking.as_ref().map(|taking| match &taking.action {
            Taking::Settle(claim) => Tx::Settle(small(claim.amount), signed_for(claim)),
            Taking::Close(claim) => Tx::Close(small(claim.amount), signed_for(claim)),
        })
    }

    fn pending(&self, w: &World) -> Option<Tx> {
        self.payers.get(w.payer).pending.as_ref().map(|pending| match pending.action {
            PayerAction::Open { .. } => Tx::Open,
            PayerAction::TopUp { .. } => Tx::TopUp,
            PayerAction::RequestClose => Tx::RequestClose,
            PayerAction::Withdraw => Tx::Withdraw,
        })
    }

    /// Every world that may come next, with what happened.
    fn nexts(&mut self, w: World) -> Steps {
        let mut out = Vec::new();
        self.chain(w, &mut out);
        if w.payee_up {
            self.payee_acts(w, &mut out);
        }
        if w.payer_up {
            self.payer_acts(w, &mut out);
        }
        self.processes(w, &mut out);
        out.retain(|(_, next)| *next != w);
        out
    }

    fn chain(&mut self, w: World, out: &mut Steps) {
        if w.last.is_none() {
            for (at, tx) in w.mempool.iter().enumerate().filter_map(|(at, tx)| tx.map(|tx| (at, tx))) {
                let mut next = World { mempool: without(w.mempool, at), ..w };
                match w.head.apply(tx, w.t, self.setting.up_to) {
                    Some(head) => {
                        // A block's height tells only where one may be replaced, or a node lags.
                        let block = w.deep.block + u8::from(self.setting.reorgs > 0);
                        next.head = Escrow { block, ..head };
                        next.last = Some(tx);
                        out.push(("a transaction is in a block", next));
                    }
                    None => out.push(("a transaction reverts", next)),
                }
            }
        } else {
            out.push(("a block is deep", World { deep: w.head, last: None, ..w }));
            if w.reorgs < self.setting.reorgs
                && let Some(mempool) = w.last.and_then(|tx| with(w.mempool, tx))
            {
                let head = Escrow { block: w.head.block, ..w.deep };
                let replaced = World { head, deep: head, last: None, mempool, reorgs: w.reorgs + 1, ..w };
                out.push(("a block is replaced", replaced));
            }
        }
        let payees_waits = w.mempool.iter().flatten().any(|tx| matches!(tx, Tx::Settle(..) | Tx::Close(..)));
        if w.t < LAST_MOMENT && w.last.is_none() && !payees_waits && (!w.payee_up || self.is_caught_up(&w)) {
            let in_time = w.head.requested.is_some_and(|at| w.t < at + GRACE_MOMENTS);
            let could = w.could || w.payee_up && in_time;
            out.push(("time passes", World { t: w.t + 1, could, ..w }));
        }
    }

    /// Nothing is left for the payee to do in this moment.
    fn is_caught_up(&mut self, w: &World) -> bool {
        let quiet = self.payee(w.payee, ToPayee::Seen(w.head, false), w.t).is_none()
            && self.payee(w.payee, ToPayee::Seen(w.deep, true), w.t).is_none();
        let next = self.payees.get(w.payee).next(moment(w.t));
        w.looked && quiet && matches!(next, PayeeNext::Rest { .. } | PayeeNext::WatchOpen)
    }

    fn payee_acts(&mut self, w: World, out: &mut Steps) {
        let on = |model: &mut Self, out: &mut Steps, name, event, change: &dyn Fn(&mut World)| {
            if let Some(payee) = model.payee(w.payee, event, w.t) {
                let mut next = World { payee, ..w };
                change(&mut next);
                out.push((name, next));
            }
        };
        on(self, out, "the payee sees the newest block", ToPayee::Seen(w.head, false), &|w| w.looked = true);
        on(self, out, "the payee sees what is deep", ToPayee::Seen(w.deep, true), &|w| w.looked = true);
        if self.setting.reorgs > 0 {
            on(self, out, "the payee asks a node that lags", ToPayee::Seen(w.deep, false), &|_| {});
        }
        for amount in 0..=self.marked(&w) {
            on(self, out, "a voucher arrives", ToPayee::Voucher(amount), &|_| {});
        }
        if let Some(amount) = w.sent_close {
            on(self, out, "a close arrives", ToPayee::CloseAsked(amount), &|_| {});
        }
        if !w.looked && self.payee(w.payee, ToPayee::Seen(w.head, false), w.t).is_none() {
            out.push(("the payee sees nothing new", World { looked: true, ..w }));
        }
        if w.looked {
            if w.starts <= self.setting.crashes {
                on(self, out, "a stream begins", ToPayee::Start(w.starts), &|w| w.starts += 1);
            }
            if !w.leaving {
                on(self, out, "a unit is charged", ToPayee::Meter, &|w| w.leaving = true);
            }
            if !self.setting.greedy {
                on(self, out, "a transaction of the payee is durable", ToPayee::Attempt, &|_| {});
            }
        }
        if self.payees.get(w.payee).next(moment(w.t)) == PayeeNext::BeginClose {
            on(self, out, "the payee wants to close", ToPayee::Begin, &|_| {});
        }
        if let Some(tx) = self.taking(&w) {
            let shows = match tx {
                Tx::Settle(amount, _) => w.deep.settled >= amount,
                _ => w.deep.finalized,
            };
            let under_way = w.mempool.contains(&Some(tx)) || w.last == Some(tx);
            if shows && !under_way {
                on(self, out, "the payee's transaction worked", ToPayee::Worked(w.deep), &|_| {});
            }
            if !shows && !under_way && w.last.is_none() {
                on(self, out, "the payee's transaction came to nothing", ToPayee::Failed, &|_| {});
                if let Some(mempool) = with(w.mempool, tx) {
                    out.push(("the payee's transaction is sent", World { mempool, ..w }));
                }
            }
        }
        if w.leaving {
            let left = World { leaving: false, ..w };
            out.push(("a unit is lost", left));
            if let Some(payer) = self.payer(w.payer, ToPayer::Received, w.t).filter(|_| w.payer_up) {
                out.push(("a unit arrives", World { payer, ..left }));
            }
        }
        if self.setting.receipts && w.payer_up {
            let payee = self.payees.get(w.payee);
            let receipt = ToPayer::Told(small(payee.accepted()), small(payee.spent()));
            if let Some(payer) = self.payer(w.payer, receipt, w.t) {
                out.push(("a receipt arrives", World { payer, ..w }));
            }
        }
        if self.setting.greedy && w.last.is_none() {
            let most = self.marked(&w);
            for tx in [Tx::Settle(most, most), Tx::Close(most, most)] {
                if let Some(head) = w.head.apply(tx, w.t, self.setting.up_to) {
                    let taken = World { head, last: Some(tx), ..w };
                    out.push(("the payee's operator takes what it can", taken));
                }
            }
        }
    }

    fn payer_acts(&mut self, w: World, out: &mut Steps) {
        let on = |model: &mut Self, out: &mut Steps, name, event, change: &dyn Fn(&mut World)| {
            if let Some(payer) = model.payer(w.payer, event, w.t) {
                let mut next = World { payer, ..w };
                change(&mut next);
                out.push((name, next));
            }
        };
        on(self, out, "the payer sees the newest block", ToPayer::Seen(w.head, false), &|_| {});
        on(self, out, "the payer sees what is deep", ToPayer::Seen(w.deep, true), &|_| {});
        on(self, out, "the mark is raised", ToPayer::Raise, &|_| {});
        on(self, out, "the payer wants to leave", ToPayer::Leave, &|_| {});
        match self.payers.get(w.payer).next(moment(w.t)) {
            PayerNext::AskClose { amount } => {
                let sent_close = Some(small(amount));
                on(self, out, "a close is sent", ToPayer::Asked, &|w| w.sent_close = sent_close);
                on(self, out, "a close is durable, and not sent", ToPayer::Asked, &|_| {});
            }
            PayerNext::RequestClose => {
                on(self, out, "a forced close is durable", ToPayer::Intend(Tx::RequestClose), &|_| {});
            }
            PayerNext::Withdraw => {
                on(self, out, "a withdrawal is durable", ToPayer::Intend(Tx::Withdraw), &|_| {});
            }
            _ => {}
        }
        if self.setting.tops_up {
            on(self, out, "a top-up is durable", ToPayer::Intend(Tx::TopUp), &|_| {});
        }
        if let Some(tx) = self.pending(&w) {
            let under_way = w.mempool.contains(&Some(tx)) || w.last == Some(tx);
            let shows = match tx {
                Tx::Open => w.deep.deposit > 0,
                Tx::TopUp => w.deep.deposit > DEPOSIT,
                Tx::RequestClose => w.deep.requested.is_some() || w.deep.finalized,
                _ => w.deep.finalized,
            };
            if !under_way && !shows {
                if let Some(mempool) = with(w.mempool, tx) {
                    out.push(("the payer's transaction is sent", World { mempool, ..w }));
                }
                if tx != Tx::Open && w.last.is_none() {
                    on(self, out, "the payer's transaction came to nothing", ToPayer::Failed, &|_| {});
                }
            }
        }
    }

    fn processes(&mut self, w: World, out: &mut Steps) {
        if w.payee_up && w.crashes < self.setting.crashes {
            let crashes = w.crashes + 1;
            let down = World { payee_up: false, looked: false, leaving: false, crashes, ..w };
            out.push(("the payee dies", down));
        }
        if !w.payee_up {
            let payee = self.payee(w.payee, ToPayee::Restarted, w.t).unwrap_or(w.payee);
            out.push(("the payee starts", World { payee_up: true, payee, ..w }));
        }
        if w.payer_up && w.crashes < self.setting.crashes {
            out.push(("the payer dies", World { payer_up: false, crashes: w.crashes + 1, ..w }));
        }
        if !w.payer_up {
            out.push(("the payer starts", World { payer_up: true, ..w }));
        }
    }

    fn broken_law(&self, w: &World) -> Option<&'static str> {
        let (payee, payer) = (self.payees.get(w.payee), self.payers.get(w.payer));
        let signed = payer.signed();
        let lost = payee.spent().saturating_sub(w.deep.settled.into());
        let laws = [
            ("nobody takes more than was signed", u128::from(w.head.settled.max(w.deep.settled)) <= signed),
            (
                "nothing was sent that was not durable before",
                w.sent_close.is_none_or(|sent| signed >= sent.into()),
            ),
            ("nothing is accepted that was not signed", payee.accepted() <= signed),
            ("the payer loses no more than it knows", u128::from(w.head.settled) <= payer.most_taken()),
            (
                "no voucher is above the deposit, or on one that is not there",
                payer.signed() <= payer.deposit() && (payer.signed() == 0 || w.deep.deposit > 0),
            ),
            ("what arrived was charged before", payer.used() + u128::from(w.leaving) <= payee.spent()),
            (
                "whoever rests has followed its transactions to their end",
                payee.attempts().next().is_none()
                    || !matches!(payee.next(moment(w.t)), PayeeNext::Rest { .. }),
            ),
            (
                "what is served is signed for, or on credit",
                payee.spent() <= payee.accepted() + u128::from(CREDIT),
            ),
            ("nothing is served on a deposit that is not there", payee.spent() == 0 || w.deep.deposit > 0),
            (
                "what the escrow got is paid out, and nothing else",
                !w.deep.finalized || w.deep.settled + w.deep.refunded == w.deep.deposit,
            ),
            (
                "a payee that is there in time loses no more than its credit",
                !(w.deep.finalized && (w.deep.closed || w.could))
                    || lost <= CREDIT.into()
                    || self.setting.greedy,
            ),
            (
                "a side that calls it closed is right",
                (*payee.state() != PayeeState::Finalized && *payer.state() != PayerState::Finalized)
                    || w.deep.finalized,
            ),
            (
                "the books of both sides say what the escrow said",
                payee.settled() <= w.deep.settled.into()
                    && payer.settled() <= w.deep.settled.into()
                    && payee.deposit() <= w.deep.deposit.into()
                    && payer.deposit() <= w.deep.deposit.into(),
            ),
            (
                "what the payee takes by the rules, it served, or it was signed for and paid ahead",
                self.setting.greedy || !self.setting.up_to || u128::from(w.head.settled) <= payee.spent(),
            ),
        ];
        laws.into_iter().find(|(_, holds)| !holds).map(|(name, _)| name)
    }

    /// Both sides know that it is over, or nothing is left to fetch.
    fn rests(&self, w: &World) -> bool {
        if w.deep.deposit > 0 && w.deep.settled == w.deep.deposit {
            return true;
        }
        *self.payees.get(w.payee).state() == PayeeState::Finalized
            && *self.payers.get(w.payer).state() == PayerState::Finalized
            && self.payees.get(w.payee).next(moment(w.t)) == PayeeNext::Rest { wake: None }
            && self.payers.get(w.payer).next(moment(w.t)) == PayerNext::Rest { wake: None }
    }
}

fn signed_for(claim: &Claim) -> u8 {
    claim.voucher.as_ref().map_or(0, |voucher| small(voucher.cumulative()))
}

fn with(mempool: Mempool, tx: Tx) -> Option<Mempool> {
    let mut all: Vec<Tx> = mempool.into_iter().flatten().collect();
    if all.len() == mempool.len() || all.contains(&tx) {
        return None;
    }
    all.push(tx);
    all.sort_unstable();
    Some(std::array::from_fn(|at| all.get(at).copied()))
}

fn without(mempool: Mempool, at: usize) -> Mempool {
    let mut all: Vec<Tx> = mempool.into_iter().flatten().collect();
    all.remove(at);
    std::array::from_fn(|at| all.get(at).copied())
}

/// Walks every state; panics with the way to the first that breaks a law, or from which no end can be reached.
fn check(setting: Setting) -> usize {
    let (mut model, start) = Model::new(setting);
    let mut ids: HashMap<World, u32> = HashMap::from([(start, 0)]);
    let mut worlds = vec![start];
    let mut came: Vec<(u32, &'static str)> = vec![(0, "it begins")];
    let mut back: Vec<Vec<u32>> = vec![Vec::new()];
    let mut seen: BTreeMap<&'static str, usize> = BTreeMap::new();
    let mut at = 0;
    while at < worlds.len() {
        assert!(
            at < MOST_STATES,
            "{setting:?} is too large: {} and {}",
            model.payees.all.len(),
            model.payers.all.len()
        );
        let world = worlds[at];
        if let Some(law) = model.broken_law(&world) {
            panic!("broken: {law}\n{}", story(&model, &worlds, &came, at));
        }
        for (name, next) in model.nexts(world) {
            *seen.entry(name).or_default() += 1;
            let to = *ids.entry(next).or_insert_with(|| {
                worlds.push(next);
                came.push((u32::try_from(at).expect("few"), name));
                back.push(Vec::new());
                u32::try_from(worlds.len() - 1).expect("few")
            });
            back[to as usize].push(u32::try_from(at).expect("few"));
        }
        at += 1;
    }
    let mut open: Vec<usize> = (0..worlds.len()).filter(|at| model.rests(&worlds[*at])).collect();
    assert!(!open.is_empty(), "nothing ever ends");
    let mut ends = vec![false; worlds.len()];
    while let Some(at) = open.pop() {
        if !std::mem::replace(&mut ends[at], true) {
            open.extend(back[at].iter().map(|from| *from as usize));
        }
    }
    // When time is over, a forced close can no longer run its course.
    let trapped = |at: &usize| !ends[*at] && worlds[*at].t == 0;
    if let Some(at) = (0..worlds.len()).find(trapped) {
        panic!("a trap\n{}", story(&model, &worlds, &came, at));
    }
    println!(
        "{setting:?}: {} states, {} of the payee, {} of the payer; {seen:?}",
        worlds.len(),
        model.payees.all.len(),
        model.payers.all.len()
    );
    let works = if setting.greedy {
        "the payee's operator takes what it can"
    } else {
        "the payee's transaction worked"
    };
    for needed in ["a unit arrives", "a block is deep", works] {
        assert!(seen.contains_key(needed), "it never happens that {needed}");
    }
    worlds.len()
}

fn story(model: &Model, worlds: &[World], came: &[(u32, &'static str)], mut at: usize) -> String {
    let mut lines = vec![
        format!("{:?}", worlds[at]),
        format!("{:?}", model.payees.get(worlds[at].payee)),
        format!("{:?}", model.payers.get(worlds[at].payer)),
    ];
    while at != 0 {
        let (from, name) = came[at];
        let world = worlds[at];
        let (payee, payer) = (model.payees.get(world.payee), model.payers.get(world.payer));
        lines.push(format!("{} {name:44} {} {}", world.t, payee.state().name(), payer.state().name()));
        at = from as usize;
    }
    lines.reverse();
    lines.join("\n")
}

#[test]
fn both_sides_are_safe_while_messages_get_lost_and_time_passes() {
    check(Setting::default());
}

#[test]
fn both_sides_are_safe_when_the_payee_takes_what_was_used_and_says_so() {
    check(Setting { up_to: true, receipts: true, ..Setting::default() });
}

#[test]
fn both_sides_are_safe_when_the_payee_settles_as_it_goes() {
    check(Setting { settles: true, ..Setting::default() });
}

#[test]
fn both_sides_are_safe_when_processes_die() {
    check(Setting { crashes: 1, ..Setting::default() });
}

#[test]
fn both_sides_are_safe_when_blocks_are_replaced() {
    check(Setting { reorgs: 1, ..Setting::default() });
}

#[test]
fn both_sides_are_safe_when_the_payer_tops_up_and_forces_closes() {
    check(Setting { tops_up: true, ..Setting::default() });
}

#[test]
fn a_payer_is_safe_from_a_payee_that_takes_what_it_can() {
    check(Setting { greedy: true, ..Setting::default() });
}
