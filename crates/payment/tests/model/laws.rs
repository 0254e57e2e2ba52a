//! What must hold in every state of the world.

use farthing_payment::{Delivery, Flow, Next, Payment, State, Witness};

use super::{Clock, Model, Rail, Slot, Task, World};
use crate::life::nothing_pends;

/// A law: its name, and whether it holds.
pub type Law = (&'static str, fn(&Model, &World) -> bool);

pub const LAWS: &[Law] = &[
    ("every event that the process commits fits, and the books say what the state says", |_, w| {
        w.past.broken == 0
    }),
    ("nothing is called settled that did not move on the chain or by an accepted word", settled_moved),
    ("nothing is called refused or failed whose transfer stands on the chain or may yet come", never_moves),
    ("nobody rests while money is in doubt", doubt_is_watched),
    ("whatever was shown to others keeps its claim", seen_keeps_the_claim),
    ("the upstream is called only by who holds the claim, and once unless it may be repeated", called_once),
    ("goods leave only for money that is there or promised and funded", goods_leave_funded),
    ("goods that left and will never be paid show as a loss", lost_goods_show),
    ("at rest nothing pends in the books", rest_is_booked),
    ("a refund is done exactly if it moved on the chain", refund_moved),
];

impl Model {
    /// The first law that this state breaks.
    pub fn broken_law(&self, w: &World) -> Option<String> {
        let (name, _) = LAWS.iter().find(|(_, holds)| !holds(self, w))?;
        let detail = match w.past.broken {
            0 => String::new(),
            n => format!(": {}", self.broken.lock().expect("whole")[usize::from(n) - 1]),
        };
        Some(format!("{name}{detail}"))
    }

    /// Whether nothing more has to happen.
    pub fn rests(&self, w: &World) -> bool {
        if w.task != Task::Idle || w.past.gone {
            return false;
        }
        let life = self.life(w.life);
        let Some(payment) = life.payment() else { return true };
        match payment.next() {
            Next::Rest => true,
            // An entitlement: paid, and its buyer may come for the goods.
            Next::CallUpstream => matches!(payment.state, State::Settled { .. }),
            // With nothing but a facilitator's word, what it never told stays open, and is never called failed.
            Next::Watch => self.rail == Rail::Blind && w.chain.clock == Clock::Buried,
            _ => false,
        }
    }
}

fn settled_moved(model: &Model, w: &World) -> bool {
    model.life(w.life).payment().is_none_or(|payment| match &payment.state {
        State::Settled { proof, .. } | State::Refunding { proof, .. } | State::Refunded { proof, .. } => {
            proof.witness == Witness::Facilitator || w.chain.moved().is_some() || w.past.gone
        }
        _ => true,
    })
}

/// What nobody but we has seen only the payer can submit; and then it knows.
fn never_moves(model: &Model, w: &World) -> bool {
    model.life(w.life).payment().is_none_or(|payment| match &payment.state {
        State::Refused { .. } | State::Failed { .. } => {
            !w.chain.seen || w.chain.moved().is_none() && !w.chain.can_move()
        }
        _ => true,
    })
}

fn doubt_is_watched(model: &Model, w: &World) -> bool {
    let life = model.life(w.life);
    let Some(payment) = life.payment() else { return true };
    let doubt = w.chain.seen && w.chain.can_move() && !w.past.gone;
    !(doubt && payment.next() == Next::Rest && !by_word(payment))
}

/// We took a facilitator's word for it, and look no further.
fn by_word(payment: &Payment) -> bool {
    matches!(&payment.state, State::Settled { proof, .. } if proof.witness == Witness::Facilitator)
}

fn seen_keeps_the_claim(model: &Model, w: &World) -> bool {
    let life = model.life(w.life);
    !w.chain.seen || life.payment().is_none_or(|payment| !payment.releases_claim())
}

fn called_once(model: &Model, w: &World) -> bool {
    let life = model.life(w.life);
    if w.past.calls == 0 {
        return true;
    }
    let held = life.payment().is_some_and(|payment| !payment.releases_claim());
    // Who paid and got nothing, or not all of it, may ask again, whatever it asks for.
    let again = model.deal.repeatable || model.deal.flow != Flow::Authorization;
    held && (w.past.calls == 1 || again)
}

fn goods_leave_funded(model: &Model, w: &World) -> bool {
    let life = model.life(w.life);
    let leaves = matches!(w.task, Task::Told { ev: crate::life::Ev::Sent, .. } | Task::Answered);
    let Some(payment) = life.payment() else { return !w.past.left };
    let settled_once = payment.round > 0 || matches!(payment.state, State::Settled { .. });
    let paid = settled_once || matches!(payment.state, State::Refunding { .. } | State::Refunded { .. });
    !leaves || paid || model.deal.flow == Flow::Background && matches!(payment.state, State::Funded)
}

fn lost_goods_show(model: &Model, w: &World) -> bool {
    let life = model.life(w.life);
    let Some(payment) = life.payment() else { return true };
    let failed = matches!(payment.state, State::Failed { .. });
    // What the books say of each delivery is a law of the records.
    // A delivery that broke off counts as none: its buyer may come again.
    let undone = matches!(payment.delivery, Delivery::None | Delivery::Stored);
    !(failed && w.past.left && undone)
}

fn rest_is_booked(model: &Model, w: &World) -> bool {
    let life = model.life(w.life);
    let open = life.payment().is_some_and(|payment| payment.next() == Next::Watch);
    !model.rests(w) || open || nothing_pends(&life)
}

fn refund_moved(model: &Model, w: &World) -> bool {
    let life = model.life(w.life);
    let Some(payment) = life.payment() else { return true };
    let moved = w.chain.refund == Slot::Worked && w.chain.refund_deep;
    let open = matches!(w.chain.refund, Slot::Kept | Slot::Sent | Slot::Reverted | Slot::Worked);
    let may_move = open && !w.chain.refund_dead;
    match &payment.state {
        State::Refunded { .. } => moved,
        State::Refunding { .. } => true,
        _ => !moved && !may_move,
    }
}

impl Model {
    /// So that the laws do not hold because nothing ever happens.
    pub fn settles(&self, w: &World) -> bool {
        self.life(w.life).payment().is_some_and(|payment| matches!(payment.state, State::Settled { .. }))
    }
}
