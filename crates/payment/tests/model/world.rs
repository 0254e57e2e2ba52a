//! The world around one authorization: a chain, a process that may die, a buyer, strangers, a facilitator. Every step
//! that any of them can take, from any state.
//!
//! What the process does in a state is what `crates/engine/src/{engine,drive,recover,refund}.rs` do there; time is one
//! of three moments.

use std::sync::{Arc, Mutex};

use farthing_payment::{Delivery, Flow, Next, Payment, Role, State, Witness};

use crate::life::{Deal, Ev, Hand, Life, LifeId, Lives};

/// More attempts and beginnings than these do nothing that these do not.
const MOST_ATTEMPTS: u8 = 2;
const MOST_ROUNDS: u16 = 1;
/// The number of the refund's transaction, beside those of the attempts.
const REFUND: u8 = 9;

/// By what the payment settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rail {
    /// A relayer and a node of our own.
    Own,
    /// A remote facilitator, whom we check with a node of our own.
    Checked,
    /// A remote facilitator, and nothing but its word.
    Blind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clock {
    /// The authorization may be used.
    Alive,
    /// It is past its end by our clock; recent blocks may still be replaced by others that use it.
    Over,
    /// Its end is so deep in the chain that nothing changes any more.
    Buried,
}

/// What the chain says of the authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Auth {
    Unused,
    Moved(Hand),
    Cancelled,
}

/// A nonce of our relayer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    None,
    /// Durable with us; no node has its transaction.
    Kept,
    Sent,
    /// In a block, and moved the money.
    Worked,
    /// In a block, and moved nothing.
    Reverted,
    /// Another transaction has the nonce.
    Taken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain {
    clock: Clock,
    auth: Auth,
    slots: [Slot; MOST_ATTEMPTS as usize],
    /// Somebody besides the payer and us has seen the authorization.
    seen: bool,
    refund: Slot,
    /// Whether the refund is in a block that no reorganization replaces any more.
    refund_deep: bool,
    /// Whether the payee's authorization of the refund has ended unused.
    refund_dead: bool,
}

/// What the process is doing. All of it is lost when it dies. `buyer`: somebody waits for the goods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    Down,
    Idle,
    /// The driver is about to ask what is to be done.
    Drive {
        buyer: bool,
    },
    /// The attempt is durable; the facilitator is about to be asked, for the first time.
    Ask {
        buyer: bool,
    },
    /// It looked, and is about to commit what it found. `stale`: somebody else's commit came first.
    Found {
        ev: Ev,
        stale: bool,
        buyer: bool,
    },
    /// The call is durable; the upstream is called.
    Call {
        stale: bool,
    },
    /// The upstream's answer went to the buyer, or broke off, and that is about to be committed.
    Told {
        ev: Ev,
        stale: bool,
    },
    /// The stored answer left; that is about to be committed.
    Answered,
}

/// What only the laws know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Past {
    /// How often the upstream was called, up to two.
    calls: u8,
    /// The goods left for the buyer, whole.
    left: bool,
    /// A block that a proof of ours names is gone, and we have not noticed.
    gone: bool,
    /// An event did not fit, or the books do not say what the state says: the number of the message.
    broken: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    pub life: LifeId,
    pub task: Task,
    pub chain: Chain,
    pub past: Past,
}

/// Something that may happen next. `benign`: it happens by itself once the world heals, and nobody lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Happening {
    pub name: &'static str,
    pub benign: bool,
    pub next: World,
}

pub struct Model {
    pub deal: Deal,
    pub rail: Rail,
    lives: Mutex<Lives>,
    broken: Mutex<Vec<String>>,
}

struct Steps(Vec<Happening>);

impl Steps {
    fn good(&mut self, name: &'static str, next: World) {
        self.0.push(Happening { name, benign: true, next });
    }

    fn bad(&mut self, name: &'static str, next: World) {
        self.0.push(Happening { name, benign: false, next });
    }

    fn add(&mut self, benign: bool, name: &'static str, next: World) {
        self.0.push(Happening { name, benign, next });
    }
}

impl Chain {
    fn start() -> Self {
        Self {
            clock: Clock::Alive,
            auth: Auth::Unused,
            slots: [Slot::None; MOST_ATTEMPTS as usize],
            seen: false,
            refund: Slot::None,
            refund_deep: false,
            refund_dead: false,
        }
    }

    /// Whether a block may still come that uses the authorization.
    fn can_move(&self) -> bool {
        self.auth == Auth::Unused && self.clock != Clock::Buried
    }

    fn moved(&self) -> Option<Hand> {
        match self.auth {
            Auth::Moved(hand) => Some(hand),
            _ => None,
        }
    }

    /// The newest attempt: its number and slot.
    fn attempt(&self) -> Option<(u8, Slot)> {
        let at = self.slots.iter().rposition(|slot| *slot != Slot::None)?;
        Some((u8::try_from(at).expect("few"), self.slots[at]))
    }

    fn free_slot(&self) -> Option<u8> {
        let at = self.slots.iter().position(|slot| *slot == Slot::None)?;
        Some(u8::try_from(at).expect("few"))
    }
}

impl Task {
    /// Somebody else committed meanwhile.
    fn overtaken(self) -> Self {
        match self {
            Self::Found { ev, buyer, .. } => Self::Found { ev, buyer, stale: true },
            Self::Call { .. } => Self::Call { stale: true },
            Self::Told { ev, .. } => Self::Told { ev, stale: true },
            task => task,
        }
    }

    /// Nobody will be served any more: it does not matter whether somebody waits.
    fn unserved(self) -> Self {
        match self {
            Self::Drive { .. } => Self::Drive { buyer: false },
            Self::Ask { .. } => Self::Ask { buyer: false },
            Self::Found { ev, stale, .. } => Self::Found { ev, stale, buyer: false },
            task => task,
        }
    }
}

impl World {
    fn on(self, task: Task) -> Self {
        Self { task, ..self }
    }

    fn chain(self, change: impl FnOnce(&mut Chain)) -> Self {
        let mut next = self;
        change(&mut next.chain);
        next
    }

    fn past(self, change: impl FnOnce(&mut Past)) -> Self {
        let mut next = self;
        change(&mut next.past);
        next
    }
}

impl Model {
    pub fn new(deal: Deal, rail: Rail) -> Self {
        Self { deal, rail, lives: Mutex::new(Lives::new(deal)), broken: Mutex::default() }
    }

    pub fn start(&self) -> World {
        World { life: 0, task: Task::Idle, chain: Chain::start(), past: Past::default() }
    }

    pub fn life(&self, id: LifeId) -> Arc<Life> {
        self.lives.lock().expect("whole").get(id)
    }

    /// Everything that may happen in this state.
    pub fn happenings(&self, w: World) -> Vec<Happening> {
        let mut found = self.all_happenings(w);
        for happening in &mut found {
            self.forget(&mut happening.next);
        }
        found
    }

    /// Forgets what can make no difference any more, so that equal worlds are equal.
    fn forget(&self, w: &mut World) {
        let life = self.life(w.life);
        let Some(payment) = life.payment() else { return };
        w.past.gone &= names_a_block(payment) || about_to_name_a_block(w.task);
        let served = match self.deal.flow {
            Flow::Upfront | Flow::Background => {
                !matches!(payment.delivery, Delivery::None | Delivery::Failed)
            }
            Flow::Authorization => payment.delivery != Delivery::None,
        };
        if served || self.deal.role == Role::Facilitator {
            w.task = w.task.unserved();
        }
        let attempts =
            matches!(payment.state, State::Funded | State::Settling { .. } | State::Unknown { .. });
        if w.chain.clock == Clock::Buried && !attempts && !w.past.gone {
            w.chain.slots = [Slot::None; MOST_ATTEMPTS as usize];
        }
        if self.deal.repeatable || self.deal.flow != Flow::Authorization {
            w.past.calls = w.past.calls.min(1);
        }
    }

    fn all_happenings(&self, w: World) -> Vec<Happening> {
        let mut out = Steps(Vec::new());
        if w.past.broken != 0 {
            return out.0;
        }
        let life = self.life(w.life);
        self.chain_moves(w, life.payment(), &mut out);
        if w.task == Task::Down {
            self.restart(w, life.payment(), &mut out);
            return out.0;
        }
        out.bad("the process dies", w.on(Task::Down));
        self.relayer(w, &mut out);
        self.buyer(w, &life, &mut out);
        if let Some(payment) = life.payment() {
            self.tend(w, payment, &mut out);
            self.refund(w, payment, &mut out);
            self.task(w, payment, &mut out);
        }
        out.0
    }

    // ---- The chain, and whoever meddles with it.

    fn chain_moves(&self, w: World, payment: Option<&Payment>, out: &mut Steps) {
        let c = w.chain;
        match c.clock {
            Clock::Alive => out.good("the authorization ends", w.chain(|c| c.clock = Clock::Over)),
            Clock::Over => out.good("its end is deep", w.chain(|c| c.clock = Clock::Buried)),
            Clock::Buried => {}
        }
        for at in 0..MOST_ATTEMPTS {
            let slot = c.slots[usize::from(at)];
            let set = |to: Slot| w.chain(|c| c.slots[usize::from(at)] = to);
            if slot == Slot::Sent {
                if c.can_move() {
                    let moved = set(Slot::Worked).chain(|c| c.auth = Auth::Moved(Hand::Ours(at)));
                    out.good("our transaction moves the money", moved);
                    out.bad("our transaction reverts: the payer's money is elsewhere", set(Slot::Reverted));
                } else {
                    out.good("our transaction reverts", set(Slot::Reverted));
                }
            }
            if slot == Slot::Sent && c.clock != Clock::Buried {
                out.bad("another transaction has our nonce", set(Slot::Taken));
            }
        }
        if c.can_move() {
            if c.seen {
                let moved = w.chain(|c| c.auth = Auth::Moved(Hand::Other));
                // A facilitator that was asked does its work, sooner or later.
                out.add(self.rail != Rail::Own, "a stranger submits the authorization", moved);
            }
            if payment.is_some() {
                let moved = w.chain(|c| c.auth = Auth::Moved(Hand::Other));
                out.bad("the payer submits the authorization itself", moved);
                out.bad("the payer cancels the authorization", w.chain(|c| c.auth = Auth::Cancelled));
            }
        }
        let included = |slot: &Slot| matches!(slot, Slot::Worked | Slot::Reverted | Slot::Taken);
        let something = c.auth != Auth::Unused || c.slots.iter().any(included);
        if something && c.clock != Clock::Buried && payment.is_none_or(|p| p.round < MOST_ROUNDS) {
            let named = payment.is_some_and(names_a_block) || about_to_name_a_block(w.task);
            let back = |slot: &mut Slot| {
                if included(slot) {
                    *slot = Slot::Sent;
                }
            };
            let gone = w.chain(|c| {
                c.auth = Auth::Unused;
                c.slots.iter_mut().for_each(back);
            });
            out.bad("the chain is reorganized", gone.past(|past| past.gone |= named && c.moved().is_some()));
        }
        if c.refund == Slot::Sent {
            let set = |to: Slot| w.chain(|c| c.refund = to);
            if c.refund_dead {
                out.good("the refund reverts", set(Slot::Reverted));
            } else {
                out.good("the refund is included", set(Slot::Worked));
                out.bad("the refund reverts, or another transaction has its nonce", set(Slot::Reverted));
            }
        }
        if matches!(c.refund, Slot::Worked | Slot::Reverted) && !c.refund_deep && !c.refund_dead {
            out.bad("the refund's block is gone", w.chain(|c| c.refund = Slot::Sent));
        }
        if c.refund == Slot::Worked && !c.refund_deep {
            out.good("the refund is deep", w.chain(|c| c.refund_deep = true));
        }
        let refund_open = matches!(c.refund, Slot::Sent | Slot::Reverted);
        if refund_open && !c.refund_dead {
            out.good("the refund's authorization ends", w.chain(|c| c.refund_dead = true));
            if c.refund != Slot::Sent {
                out.bad("somebody else submits the refund", w.chain(|c| c.refund = Slot::Worked));
            }
        }
    }

    /// What is durable is sent, now or after a restart (`relayer.rs`: `submit`, `resolve`, `retrack`).
    fn relayer(&self, w: World, out: &mut Steps) {
        for at in 0..usize::from(MOST_ATTEMPTS) {
            if w.chain.slots[at] == Slot::Kept {
                let sent = w.chain(|c| {
                    c.slots[at] = Slot::Sent;
                    c.seen = true;
                });
                out.good("the relayer sends the transaction", sent);
            }
        }
        if w.chain.refund == Slot::Kept {
            out.good("the relayer sends the refund", w.chain(|c| c.refund = Slot::Sent));
        }
    }

    // ---- The buyer (`engine.rs`: `present`, `own`, `resume_held`).

    fn buyer(&self, w: World, life: &Life, out: &mut Steps) {
        // Whoever comes while the payment is under way waits for its outcome.
        if w.task != Task::Idle {
            return;
        }
        let drive = Task::Drive { buyer: true };
        let Some(mut payment) = life.payment().cloned() else {
            return out.good("a buyer shows the payment", self.claim(w, drive));
        };
        if payment.releases_claim() {
            // Nothing is left of it but voided entries: the next one meets the same world as the first.
            return out.bad("the buyer shows a released payment again", self.claim(w, drive));
        }
        let mut w = w;
        if payment.delivery == Delivery::Called {
            w = self.commit(w, &[Ev::CallLost], Task::Idle);
            if w.past.broken != 0 {
                return out.bad("the buyer shows a payment whose call was cut off", w);
            }
            payment = self.life(w.life).payment().expect("it is there").clone();
        }
        match (&payment.state, payment.delivery) {
            (State::Refused { .. }, Delivery::Failed)
                if payment.binding.repeatable && payment.round < MOST_ROUNDS =>
            {
                let again = self.commit(w, &[Ev::Represented], drive);
                out.bad("the buyer shows a refused payment again", again);
            }
            (State::Settled { .. }, Delivery::Stored | Delivery::Sent)
                if payment.flow == Flow::Authorization =>
            {
                out.bad("the buyer is shown the stored answer", w.past(|past| past.left = true));
            }
            (State::Settled { .. }, _) if payment.next() == Next::CallUpstream => {
                out.bad("the buyer comes back for what it paid", w.on(drive));
            }
            (
                State::Claimed
                | State::Funded
                | State::Settling { .. }
                | State::Confirming { .. }
                | State::Lapsing { .. }
                | State::Unknown { .. },
                _,
            ) => out.bad("the buyer shows an unfinished payment again", w.on(drive)),
            _ => {}
        }
    }

    // ---- The process (`drive.rs`, `recover.rs`).

    fn restart(&self, w: World, payment: Option<&Payment>, out: &mut Steps) {
        let name = "the process starts again";
        let drive = Task::Drive { buyer: false };
        let Some(payment) = payment else { return out.good(name, w.on(Task::Idle)) };
        let funded = matches!(payment.state, State::Funded);
        let lost = |then| {
            // Nobody in this process awaits the call, whatever becomes of the money.
            let called = payment.delivery == Delivery::Called;
            if called { self.commit(w, &[Ev::CallLost], then) } else { w.on(then) }
        };
        let next = match payment.next() {
            Next::CheckFunds => self.commit(w, &[Ev::FundsRefused], Task::Idle),
            Next::CallUpstream if funded => self.commit(w, &[Ev::FundsRefused], Task::Idle),
            Next::Settle if payment.delivery == Delivery::None => {
                self.commit(w, &[Ev::FundsRefused], Task::Idle)
            }
            Next::Settle | Next::Watch | Next::Confirm => lost(drive),
            // What was served on credit is charged for; the rest comes to rest at once.
            Next::AwaitUpstream => lost(drive),
            Next::WatchRefund | Next::CallUpstream | Next::Rest => lost(Task::Idle),
        };
        out.good(name, next);
    }

    fn task(&self, w: World, payment: &Payment, out: &mut Steps) {
        match w.task {
            Task::Down | Task::Idle => {}
            Task::Drive { buyer } => self.drive(w, payment, buyer, out),
            Task::Ask { buyer } => self.ask_facilitator(w, payment, true, buyer, out),
            // Somebody else's commit came first: the driver reads back and looks again.
            Task::Found { stale: true, buyer, .. } => {
                out.good("what was found is not durable", w.on(Task::Drive { buyer }));
            }
            Task::Found { ev, buyer, .. } => {
                let next = self.commit(w, &[ev], Task::Drive { buyer });
                let next = if ev == Ev::Reorged { next.past(|past| past.gone = false) } else { next };
                out.good("what was found is durable", next);
            }
            Task::Call { stale } => self.call(w, payment, stale, out),
            // How the delivery went is true, whatever became of the money meanwhile; unless it was written off with it.
            Task::Told { ev, stale } => {
                let drive = Task::Drive { buyer: true };
                let fits = !stale || self.lives.lock().expect("whole").fits(w.life, ev);
                let next = if fits { self.commit(w, &[ev], drive) } else { w.on(drive) };
                // Paid and not delivered: its buyer has to come for it.
                let owed = self.life(next.life).payment().is_some_and(|p| p.next() == Next::CallUpstream);
                out.good("the delivery is durable", if owed { next.on(Task::Idle) } else { next });
            }
            Task::Answered => {
                let next = match &payment.state {
                    State::Settled { .. } => self.commit(w, &[Ev::Sent], Task::Idle),
                    // A reorganization was noticed meanwhile: whoever did so waits until nobody is at the payment.
                    _ => w.on(Task::Drive { buyer: false }),
                };
                out.good("that the answer left is durable", next);
            }
        }
    }

    fn drive(&self, w: World, payment: &Payment, buyer: bool, out: &mut Steps) {
        match payment.next() {
            Next::CheckFunds => self.check_funds(w, payment, buyer, out),
            Next::CallUpstream if buyer => {
                let called = self.commit(w, &[Ev::CallStarted], Task::Idle);
                out.good("the call is durable", called.on(Task::Call { stale: false }));
            }
            Next::CallUpstream => {
                let given_back = payment.delivery == Delivery::None && matches!(payment.state, State::Funded);
                let next = if given_back {
                    self.commit(w, &[Ev::FundsRefused], Task::Idle)
                } else {
                    w.on(Task::Idle)
                };
                out.good("nobody waits for the goods", next);
            }
            Next::Settle => self.settle(w, payment, &[], buyer, out),
            Next::Watch | Next::Confirm => self.watch(w, payment, buyer, out),
            Next::AwaitUpstream | Next::WatchRefund | Next::Rest => self.rest(w, payment, out),
        }
    }

    fn check_funds(&self, w: World, payment: &Payment, buyer: bool, out: &mut Steps) {
        // A mirror of the chain may lag, and a facilitator lie: both answers may come at any time.
        let refused = self.commit(w, &[Ev::FundsRefused], Task::Drive { buyer });
        let honest = w.chain.auth == Auth::Unused && w.chain.clock == Clock::Alive;
        out.add(!honest, "the funds are refused, or cannot be asked for", refused);
        let confirmed = self.commit(w, &[Ev::FundsConfirmed], Task::Drive { buyer });
        let then = self.life(confirmed.life).payment().map_or(Next::Rest, Payment::next);
        match then {
            Next::Settle => self.settle(w, payment, &[Ev::FundsConfirmed], buyer, out),
            Next::CallUpstream if buyer => {
                let called = self.commit(w, &[Ev::FundsConfirmed, Ev::CallStarted], Task::Idle);
                let next = called.on(Task::Call { stale: false });
                out.add(honest, "the funds are there, and the call is durable", next);
            }
            _ => out.add(honest, "the funds are there", confirmed),
        }
    }

    /// Starts an attempt. `pending` becomes durable along with it.
    fn settle(&self, w: World, payment: &Payment, pending: &[Ev], buyer: bool, out: &mut Steps) {
        let with = |more: Ev| [pending, &[more]].concat();
        let alive = w.chain.clock == Clock::Alive;
        if alive {
            let honest = w.chain.auth == Auth::Unused;
            match self.attempt(w, &with, buyer) {
                Some(started) => {
                    out.add(honest, "an attempt is durable", started);
                    // The store's answer is lost: what is durable is read back.
                    out.bad("an attempt is durable, and we are not told", started.on(Task::Drive { buyer }));
                }
                None => return,
            }
        }
        if !payment.is_on_credit() {
            let refused = self.commit(w, &with(Ev::FundsRefused), Task::Drive { buyer });
            out.add(w.chain.auth != Auth::Unused || !alive, "no attempt would move money", refused);
        } else if !alive {
            let given_up = self.commit(w, &with(Ev::Dead), Task::Drive { buyer });
            out.good("no attempt can be made any more", given_up);
        } else if !pending.is_empty() {
            out.bad("no attempt can be made yet", self.commit(w, pending, Task::Drive { buyer }));
        }
    }

    /// The next attempt, durable; `None` if there were too many.
    fn attempt(&self, w: World, with: &impl Fn(Ev) -> Vec<Ev>, buyer: bool) -> Option<World> {
        if self.rail != Rail::Own {
            return Some(self.commit(w, &with(Ev::AttemptStarted(0)), Task::Ask { buyer }));
        }
        let at = w.chain.free_slot()?;
        let started = self.commit(w, &with(Ev::AttemptStarted(at)), Task::Drive { buyer });
        Some(started.chain(|c| c.slots[usize::from(at)] = Slot::Kept))
    }

    fn call(&self, w: World, payment: &Payment, stale: bool, out: &mut Steps) {
        let w = w.past(|past| past.calls = (past.calls + 1).min(2));
        let drive = Task::Drive { buyer: true };
        if payment.flow != Flow::Authorization {
            let sent = Task::Told { ev: Ev::Sent, stale };
            out.good("the goods leave", w.past(|past| past.left = true).on(sent));
            out.bad("the delivery breaks off", w.on(Task::Told { ev: Ev::CallFailed, stale }));
            out.bad("nobody says how the delivery went", w.on(Task::Told { ev: Ev::CallLost, stale }));
            return;
        }
        out.bad("the upstream fails", self.commit(w, &[Ev::CallFailed], Task::Idle));
        self.settle(w, payment, &[Ev::CallStored], true, out);
        out.bad("no attempt can be prepared yet", self.commit(w, &[Ev::CallStored], drive));
    }

    fn rest(&self, w: World, payment: &Payment, out: &mut Steps) {
        let answers = matches!(payment.state, State::Settled { .. })
            && matches!(payment.delivery, Delivery::Stored | Delivery::Sent)
            && payment.flow == Flow::Authorization;
        if answers {
            let then = if payment.delivery == Delivery::Stored { Task::Answered } else { Task::Idle };
            return out.good("the stored answer leaves", w.past(|past| past.left = true).on(then));
        }
        out.good("it rests", w.on(Task::Idle));
    }

    /// One look at what became of the attempt (`evm_rail.rs`: `progress`; `remote.rs`: `progress`).
    fn watch(&self, w: World, payment: &Payment, buyer: bool, out: &mut Steps) {
        match self.rail {
            Rail::Own => self.watch_slot(w, payment, buyer, out),
            Rail::Checked | Rail::Blind => self.watch_remote(w, payment, buyer, out),
        }
    }

    fn found(&self, w: World, ev: Ev, buyer: bool) -> World {
        w.on(Task::Found { ev, stale: false, buyer })
    }

    /// The transfer, in a block; deep enough, or not yet.
    fn included(&self, w: World, hand: Hand, buyer: bool, out: &mut Steps) {
        let reverted = matches!(w.chain.attempt(), Some((_, Slot::Reverted)));
        let fee = matches!(hand, Hand::Ours(_)) || reverted;
        let ev = |deep| Ev::Included { hand, deep, fee };
        out.good("the transfer is in a block, as deep as we ask for", self.found(w, ev(true), buyer));
        if w.chain.clock != Clock::Buried {
            out.bad("the transfer is in a block", self.found(w, ev(false), buyer));
        }
    }

    fn watch_slot(&self, w: World, payment: &Payment, buyer: bool, out: &mut Steps) {
        let c = w.chain;
        let over = c.clock != Clock::Alive;
        let (at, slot) = c.attempt().unwrap_or((0, Slot::None));
        match (&payment.state, slot, c.auth) {
            (State::Confirming { proof, .. }, ..) => {
                if w.past.gone || c.auth == Auth::Unused {
                    out.good("the block is gone", self.found(w, Ev::Reorged, buyer));
                } else if let Some(hand) = c.moved() {
                    let fee = proof.fee.is_some();
                    let ev = Ev::Included { hand, deep: true, fee };
                    out.good("the transfer is deep enough", self.found(w, ev, buyer));
                }
            }
            (State::Lapsing { .. }, _, Auth::Moved(hand)) => self.included(w, hand, buyer, out),
            (State::Lapsing { .. }, _, Auth::Unused) if c.clock == Clock::Buried => {
                out.good("it ended unused", self.found(w, Ev::Dead, buyer));
            }
            (State::Lapsing { .. }, _, Auth::Cancelled) if c.clock == Clock::Buried => {
                out.good("it was cancelled", self.found(w, Ev::Dead, buyer));
            }
            (State::Lapsing { .. }, ..) => {}
            (_, Slot::Worked, _) => self.included(w, Hand::Ours(at), buyer, out),
            (_, Slot::Reverted | Slot::Taken, Auth::Moved(hand)) => self.included(w, hand, buyer, out),
            (_, Slot::Reverted, _) | (_, Slot::Taken, Auth::Cancelled) => {
                out.good("the attempt moved nothing", self.found(w, Ev::Reverted, buyer));
            }
            (_, Slot::Taken, Auth::Unused) => self.replace(w, at, buyer, out),
            (_, _, Auth::Moved(hand)) if over => self.included(w, hand, buyer, out),
            (_, _, Auth::Unused) if c.clock == Clock::Buried => {
                out.good("it ended unused", self.found(w, Ev::Dead, buyer));
            }
            (State::Settling { .. }, ..) => {
                out.bad("it takes too long", self.found(w, Ev::Unclear, buyer));
            }
            _ => {}
        }
    }

    /// The slot can never be filled by us: another attempt of the same authorization, or none.
    fn replace(&self, w: World, lost: u8, buyer: bool, out: &mut Steps) {
        let drive = Task::Drive { buyer };
        let dropped = self.commit(w, &[Ev::AttemptDropped(lost)], drive);
        match w.chain.free_slot().filter(|_| w.chain.clock == Clock::Alive) {
            Some(at) => {
                let again = self.commit(w, &[Ev::AttemptReplaced(lost, at)], drive);
                let kept = again.chain(|c| c.slots[usize::from(at)] = Slot::Kept);
                out.good("another attempt is durable", kept);
                out.bad("another attempt would move no money", dropped);
            }
            None => out.good("no other attempt can be made", dropped),
        }
    }

    fn watch_remote(&self, w: World, payment: &Payment, buyer: bool, out: &mut Steps) {
        let c = w.chain;
        let checked = self.rail == Rail::Checked;
        if checked {
            if let Some(hand) = c.moved() {
                let ev = Ev::Included { hand, deep: true, fee: false };
                return out.good("our node shows the transfer", self.found(w, ev, buyer));
            }
            if c.clock == Clock::Buried {
                return out.good("our node shows that it is dead", self.found(w, Ev::Dead, buyer));
            }
        }
        if matches!(payment.state, State::Settling { .. } | State::Unknown { .. }) && c.clock == Clock::Alive
        {
            self.ask_facilitator(w, payment, false, buyer, out);
        }
        if c.clock == Clock::Buried {
            out.good("a person must look at it", w.on(Task::Idle));
        }
    }

    /// The facilitator is asked, and does and says what it likes (`remote.rs`: `settle`).
    fn ask_facilitator(&self, w: World, payment: &Payment, first: bool, buyer: bool, out: &mut Steps) {
        let drive = Task::Drive { buyer };
        let w = w.chain(|c| c.seen = true);
        let settling = matches!(payment.state, State::Settling { .. });
        match (self.rail, w.chain.moved()) {
            (Rail::Blind, moved) => {
                let ev = Ev::Included { hand: Hand::Word, deep: true, fee: false };
                let said = self.found(w, ev, buyer);
                out.add(moved.is_some(), "the facilitator says that it settled it", said);
            }
            (_, Some(hand)) => {
                let ev = Ev::Included { hand, deep: true, fee: false };
                out.good("the facilitator names the transfer", self.found(w, ev, buyer));
            }
            (_, None) => {}
        }
        if settling {
            out.good("the facilitator says nothing of worth", self.found(w, Ev::Unclear, buyer));
        } else {
            out.bad("the facilitator says nothing of worth again", w.on(drive));
        }
        if first {
            out.bad("the facilitator says that it did not settle it", self.found(w, Ev::Reverted, buyer));
        }
    }

    /// Settled payments are looked at again (`recover.rs`: `tend`).
    fn tend(&self, w: World, payment: &Payment, out: &mut Steps) {
        let State::Settled { proof, .. } = &payment.state else { return };
        if proof.witness == Witness::Facilitator || payment.round >= MOST_ROUNDS {
            return;
        }
        let then = if w.task == Task::Idle { Task::Drive { buyer: false } } else { w.task.overtaken() };
        let reorged = self.commit(w, &[Ev::Reorged], then);
        if w.past.gone {
            out.good("a reorganization is noticed", reorged.past(|past| past.gone = false));
        } else if w.chain.clock != Clock::Buried {
            out.bad("a node says that the block is gone", reorged);
        }
    }

    /// A refund, by a command of its own (`refund.rs`), once the settlement is beyond any reorganization.
    fn refund(&self, w: World, payment: &Payment, out: &mut Steps) {
        let c = w.chain;
        if self.rail != Rail::Own || payment.role != Role::Seller {
            return;
        }
        match &payment.state {
            State::Settled { .. } if c.clock == Clock::Buried && !w.past.gone && c.refund == Slot::None => {
                let started = self.commit(w, &[Ev::RefundStarted], w.task.overtaken());
                out.bad("a refund is durable", started.chain(|c| c.refund = Slot::Kept));
            }
            State::Refunding { .. } => match c.refund {
                Slot::Worked if c.refund_deep => {
                    let done = self.commit(w, &[Ev::RefundIncluded(Hand::Ours(REFUND))], w.task.overtaken());
                    out.good("the refund is done", done);
                }
                Slot::Reverted if c.refund_dead => {
                    let dropped = self.commit(w, &[Ev::RefundDropped], w.task.overtaken());
                    out.good("the refund came to nothing", dropped);
                }
                // What it was sent with may still be in a block: the token takes one of them.
                Slot::Reverted => {
                    let again = self.commit(w, &[Ev::RefundReplaced], w.task.overtaken());
                    out.good("the refund goes out again", again.chain(|c| c.refund = Slot::Kept));
                }
                _ => {}
            },
            _ => {}
        }
    }

    // ---- Commits.

    fn claim(&self, w: World, then: Task) -> World {
        let claimed = self.lives.lock().expect("whole").claim();
        self.with(w, claimed, then)
    }

    fn commit(&self, w: World, events: &[Ev], then: Task) -> World {
        let next = self.lives.lock().expect("whole").commit(w.life, events);
        self.with(w, next, then)
    }

    fn with(&self, w: World, life: Result<LifeId, String>, then: Task) -> World {
        match life {
            Ok(life) => World { life, task: then, ..w },
            Err(why) => {
                let mut broken = self.broken.lock().expect("whole");
                let at = broken.iter().position(|known| *known == why).unwrap_or_else(|| {
                    broken.push(why);
                    broken.len() - 1
                });
                w.past(|past| past.broken = u8::try_from(at + 1).expect("few"))
            }
        }
    }
}

/// Whether the state rests on a block that could go away.
fn names_a_block(payment: &Payment) -> bool {
    match &payment.state {
        State::Confirming { proof, .. } | State::Settled { proof, .. } => proof.witness == Witness::Chain,
        _ => false,
    }
}

fn about_to_name_a_block(task: Task) -> bool {
    matches!(task, Task::Found { ev: Ev::Included { hand, .. }, .. } if hand != Hand::Word)
}

mod laws;

pub use laws::LAWS;
