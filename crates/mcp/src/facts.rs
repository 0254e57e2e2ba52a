//! What the wallet itself knows, as JSON for a model. Nothing that a counterparty wrote in words gets in here.

use farthing_approval::Status;
use farthing_primitives::{Money, Registry};
use farthing_wallet::client::{Objection, Payment, Plan, Settlement};
use farthing_wallet::journal::Purchase;
use farthing_wallet::{Budget, Denied, Limits, Ticket, Used};
use serde_json::{Value, json};

pub fn money(registry: &Registry, money: &Money) -> Value {
    let asset = registry.get(money.asset());
    json!({
        "atoms": money.atoms().to_string(),
        "amount": asset.map(|asset| asset.format(money.atoms())),
        "symbol": asset.map(|asset| asset.symbol.as_str()),
        "asset": money.asset().to_string(),
        "network": money.asset().network().to_string(),
    })
}

pub fn payment(registry: &Registry, payment: &Payment) -> Value {
    json!({
        "id": payment.id.to_string(),
        "money": money(registry, &payment.money),
        "payee": payment.payee.to_string(),
        "payer": payment.payer.to_string(),
        "expires": payment.expires.to_string(),
        "bought_earlier": payment.earlier.map(|at| at.to_string()),
        // What it is contradicted by is in the counterparty's words.
        "settlement": payment.settlement.name(),
        "signed_only": payment.settlement == Settlement::Unproven,
        "transaction": payment.tx.as_deref().filter(|tx| is_plain(tx)),
    })
}

/// How many offers of one seller a model is told of: whoever writes hundreds fills its context.
pub const MAX_OFFERS_SHOWN: usize = 16;

/// The first offers, and the one that is chosen, and what stands against each.
pub fn offers(registry: &Registry, plan: &Plan) -> Value {
    let shown = |(i, _): &(usize, _)| *i < MAX_OFFERS_SHOWN || plan.best == Some(*i);
    let offers = plan.considered.iter().enumerate().filter(shown).map(|(i, considered)| {
        let offer = &considered.intent.offer;
        json!({
            "dialect": offer.dialect().to_string(),
            "money": money(registry, &offer.money()),
            "payee": offer.payee().to_string(),
            "permitted": considered.objection.is_none(),
            "objection": considered.objection.as_ref().map(|objection| objection.code()),
            "chosen": plan.best == Some(i),
        })
    });
    offers.collect::<Vec<_>>().into()
}

/// Why nothing was signed. Of a policy's decision its words are ours, and hold the numbers.
pub fn denied(denied: &Denied) -> Value {
    let text = match denied {
        Denied::Policy(decision) => {
            Some(decision.denials().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        }
        _ => None,
    };
    json!({ "code": denied.code(), "text": text })
}

/// What the plan's first objection is, if nothing is chosen.
pub fn objection(plan: &Plan) -> Option<Value> {
    let first = plan.considered.iter().find_map(|considered| considered.objection.as_ref())?;
    Some(match first {
        Objection::Denied(one) => denied(one),
        other => json!({ "code": other.code(), "text": null }),
    })
}

/// Whether a rule that wants people to approve is all that stands against an offer.
pub fn waits_for_people(plan: &Plan) -> bool {
    plan.considered.iter().any(|considered| match &considered.objection {
        Some(Objection::Denied(Denied::Policy(decision))) => decision.asks_for_approval().is_some(),
        _ => false,
    })
}

/// What people were asked, and how far they are.
pub fn ticket(ticket: &Ticket) -> Value {
    let (voices, quorum) = match ticket.status {
        Status::Pending { voices, quorum } => (voices, quorum),
        Status::Approved { voices } => (voices, ticket.quorum),
        Status::Denied | Status::Expired => (0, ticket.quorum),
    };
    let mut facts = json!({
        "id": ticket.id.to_string(),
        "status": if ticket.used { "used" } else { ticket.status.name() },
        "voices": voices,
        "quorum": quorum,
        "expires": ticket.expires.to_string(),
    });
    if let Some(left) = ticket.left {
        facts["left"] = json!({ "payments": left.payments, "atoms": left.atoms.to_string() });
    }
    facts
}

pub fn purchase(registry: &Registry, purchase: &Purchase) -> Value {
    json!({
        "id": purchase.id.to_string(),
        "state": purchase.state.name(),
        "confirmed": purchase.confirmed,
        "delivered": purchase.delivered,
        "created": purchase.created.to_string(),
        "host": purchase.authority,
        "method": purchase.method,
        "money": money(registry, &purchase.money),
        "payee": purchase.payee.to_string(),
        "transaction": purchase.tx.as_deref().filter(|tx| is_plain(tx)),
    })
}

/// What the owner allows, and what is spent and left of it.
pub fn budget(budget: &Budget) -> Value {
    let mut facts = match &budget.limits {
        Limits::Policy(shares) => {
            let limits: Vec<Value> = shares
                .iter()
                .map(|share| {
                    json!({
                        "budget": share.budget,
                        "of": share.of,
                        "within": share.within,
                        "limit": share.limit,
                        "spent": share.spent,
                        "left": share.left,
                    })
                })
                .collect();
            json!({ "budgets": limits, "enforced_by": "process" })
        }
        Limits::ByHand { caps, networks, hosts } => {
            let used = |used: &Used| json!({ "limit": used.limit, "spent": used.spent, "left": used.left });
            let caps: Vec<Value> = caps
                .iter()
                .map(|cap| {
                    json!({
                        "of": cap.of,
                        "per_payment": cap.per_payment,
                        "hour": used(&cap.hour),
                        "day": used(&cap.day),
                    })
                })
                .collect();
            json!({ "caps": caps, "networks": networks, "hosts": hosts })
        }
    };
    facts["frozen"] = budget.frozen.into();
    facts
}

/// A transaction's name, and no message to the reader.
fn is_plain(text: &str) -> bool {
    text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}
