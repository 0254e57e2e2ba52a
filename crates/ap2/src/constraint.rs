//! The constraints of open mandates, and the values that they preset.
//!
//! Spec: AP2 agent_authorization.md, "Verification and Processing Rules" steps 2 and 3; the schemas of open mandates.

use farthing_primitives::Timestamp;
use farthing_wire::{Json, Object};

use crate::chain::Open;
use crate::checkout::{Checkout, Line};
use crate::flow::deals_out;
use crate::mandate::{Amount, Instrument, Merchant, Pisp, currency, minor_units, moment, text};
use crate::payment::Link;
use crate::refusal::{Refusal, quoted};
use crate::replay::{Frequency, OpenUse, Recurrence};
use crate::{MAX_CONSTRAINTS, MAX_REQUIREMENTS};

/// A constraint that was met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    pub constraint: &'static str,
    /// How, in words.
    pub how: String,
}

/// A closed payment mandate.
#[derive(Debug)]
pub(crate) struct Payment {
    pub payee: Merchant,
    pub amount: Amount,
    pub instrument: Instrument,
    pub pisp: Option<Pisp>,
    pub execution_date: Option<Timestamp>,
    pub transaction_id: String,
}

const LINE_ITEMS: &str = "checkout.line_items";
const MERCHANTS: &str = "checkout.allowed_merchants";
const REFERENCE: &str = "payment.reference";
const AMOUNT: &str = "payment.amount_range";
const PAYEES: &str = "payment.allowed_payees";
const INSTRUMENTS: &str = "payment.allowed_payment_instruments";
const PISPS: &str = "payment.allowed_pisps";
const EXECUTION: &str = "payment.execution_date";
const RECURRENCE: &str = "payment.agent_recurrence";
const BUDGET: &str = "payment.budget";

/// Whatever the open mandate says of the transaction, the closed one says too, and says the same.
///
/// What stays out is about the mandate itself: which it is, whom it is bound to, and when it counts.
///
/// Spec: step 2: "... verify the closed Mandate Content has these values unchanged".
pub(crate) fn presets(open: &Object, closed: &Object) -> Result<(), Refusal> {
    const OF_THE_MANDATE: [&str; 8] = ["vct", "constraints", "cnf", "iat", "exp", "nbf", "iss", "jti"];
    for (name, value) in open.iter().filter(|(name, _)| !OF_THE_MANDATE.contains(name)) {
        if closed.get(name) != Some(value) {
            return Err(Refusal::PresetChanged(quoted(name)));
        }
    }
    Ok(())
}

/// The members of one constraint. A member that is not known might be a limit, so it is refused, as an unknown constraint is.
struct Members<'a> {
    kind: &'static str,
    object: &'a Object,
}

impl<'a> Members<'a> {
    fn of(kind: &'static str, object: &'a Object, known: &[&str]) -> Result<Self, Refusal> {
        match object.iter().find(|(name, _)| *name != "type" && !known.contains(name)) {
            Some((name, _)) => Err(Refusal::ConstraintForm { constraint: kind, member: quoted(name) }),
            None => Ok(Self { kind, object }),
        }
    }

    fn bad(&self, member: &str) -> Refusal {
        Refusal::ConstraintForm { constraint: self.kind, member: member.to_owned() }
    }

    fn need<T>(&self, member: &str, read: impl FnOnce(&'a Json) -> Option<T>) -> Result<T, Refusal> {
        self.object.get(member).and_then(read).ok_or_else(|| self.bad(member))
    }

    fn may<T>(&self, member: &str, read: impl FnOnce(&'a Json) -> Option<T>) -> Result<Option<T>, Refusal> {
        self.object.get(member).map(|value| read(value).ok_or_else(|| self.bad(member))).transpose()
    }

    /// The elements of a list of what is allowed. One that shows nothing allows nothing: what is withheld is no wildcard.
    ///
    /// Spec: checkout_mandate.md, "Allowed Merchants": "... if the `allowed` contains no revealed elements, the constraint
    /// is invalid".
    fn allowed<T>(&self, read: impl Fn(&Json) -> Option<T>) -> Result<Vec<T>, Refusal> {
        let shown = self.need("allowed", Json::as_array)?;
        if shown.is_empty() {
            return Err(Refusal::NothingDisclosed(self.kind));
        }
        shown.iter().map(read).collect::<Option<Vec<T>>>().ok_or_else(|| self.bad("allowed"))
    }
}

/// The constraints of an open mandate with their types. One without a type has none by its looks.
///
/// Spec: agent_authorization.md, "Mandates using SD-JWT VCs": `type` is required.
fn all(open: &Object) -> Result<Vec<(&str, &Object)>, Refusal> {
    let all = open.get("constraints").and_then(Json::as_array);
    let all = all.filter(|all| all.len() <= MAX_CONSTRAINTS).ok_or(Refusal::Member("constraints"))?;
    let mut out = Vec::new();
    for constraint in all {
        let constraint = constraint.as_object().ok_or(Refusal::ConstraintType)?;
        out.push((constraint.get_str("type").ok_or(Refusal::ConstraintType)?, constraint));
    }
    Ok(out)
}

pub(crate) fn checkout_constraints(
    open: &Object,
    checkout: &Checkout,
    used: &mut Vec<Used>,
) -> Result<(), Refusal> {
    let all = all(open)?;
    // Spec: open_checkout_mandate.json: `contains` line_items.
    if !all.iter().any(|(kind, _)| *kind == LINE_ITEMS) {
        return Err(Refusal::RequiredConstraint(LINE_ITEMS));
    }
    for (kind, object) in all {
        used.push(match kind {
            LINE_ITEMS => line_items(&Members::of(LINE_ITEMS, object, &["items"])?, checkout)?,
            MERCHANTS => {
                let members = Members::of(MERCHANTS, object, &["allowed"])?;
                let allowed = members.allowed(Merchant::read)?;
                if !allowed.iter().any(|allowed| allowed.allows(&checkout.merchant)) {
                    return Err(Refusal::Merchant);
                }
                let how = format!("{} is one of {} shown", checkout.merchant.name, allowed.len());
                Used { constraint: MERCHANTS, how }
            }
            // Spec: step 3: "Any unknown Constraints MUST be treated as failing evaluation".
            unknown => return Err(Refusal::UnknownConstraint(quoted(unknown))),
        });
    }
    Ok(())
}

/// One of the things that were asked for.
struct Requirement<'a> {
    acceptable: Vec<&'a Object>,
    quantity: u64,
}

/// Spec: checkout_mandate.md, "Line Items".
fn line_items(members: &Members<'_>, checkout: &Checkout) -> Result<Used, Refusal> {
    let items = members.need("items", Json::as_array)?;
    // Spec: open_checkout_mandate.json: at least one.
    if items.is_empty() || items.len() > MAX_REQUIREMENTS {
        return Err(members.bad("items"));
    }
    let mut wanted = Vec::new();
    for item in items {
        let item = item.as_object().ok_or_else(|| members.bad("items"))?;
        let item = Members::of(LINE_ITEMS, item, &["id", "acceptable_items", "quantity"])?;
        if item.object.contains_key("type") {
            return Err(item.bad("type"));
        }
        item.need("id", |_| text(item.object, "id"))?;
        let quantity = item.need("quantity", minor_units)?;
        let shown = item.need("acceptable_items", Json::as_array)?;
        if shown.is_empty() {
            return Err(Refusal::NothingDisclosed(LINE_ITEMS));
        }
        let acceptable =
            shown.iter().map(|shown| shown.as_object().filter(|object| text(object, "id").is_some()));
        let acceptable =
            acceptable.collect::<Option<Vec<_>>>().ok_or_else(|| item.bad("acceptable_items"))?;
        if quantity == 0 {
            return Err(item.bad("quantity"));
        }
        wanted.push(Requirement { acceptable, quantity });
    }
    let lines = checkout.lines.as_ref().ok_or(Refusal::CheckoutForm("line_items"))?;
    let wants: Vec<u64> = wanted.iter().map(|wanted| wanted.quantity).collect();
    let has: Vec<u64> = lines.iter().map(|line| line.quantity).collect();
    let fits = |wish: usize, line: usize| {
        let (Some(wish), Some(line)) = (wanted.get(wish), lines.get(line)) else { return false };
        wish.acceptable.iter().any(|acceptable| is_item(acceptable, line))
    };
    if !deals_out(&wants, &has, fits) {
        return Err(Refusal::LineItems);
    }
    let pieces: u64 = has.iter().sum();
    Ok(Used { constraint: LINE_ITEMS, how: format!("{pieces} of {pieces} pieces are what was asked for") })
}

/// The id decides, and whatever else was said of the thing but its looks: a price that was approved is that price.
fn is_item(acceptable: &Object, line: &Line) -> bool {
    const LOOKS: [&str; 2] = ["title", "image_url"];
    acceptable.iter().all(|(name, value)| LOOKS.contains(&name) || line.item.get(name) == Some(value))
}

pub(crate) fn payment_constraints(
    open: &Open,
    payment: &Payment,
    link: &Link<'_>,
    now: Timestamp,
    usage: &mut OpenUse,
    used: &mut Vec<Used>,
) -> Result<(), Refusal> {
    let all = all(&open.claims)?;
    // Spec: open_payment_mandate.json: `contains` reference.
    if !all.iter().any(|(kind, _)| *kind == REFERENCE) {
        return Err(Refusal::RequiredConstraint(REFERENCE));
    }
    for (kind, object) in all {
        let met = match kind {
            REFERENCE => {
                let members = Members::of(REFERENCE, object, &["conditional_transaction_id"])?;
                let meant = members.need("conditional_transaction_id", Json::as_str)?;
                match link.has_open(meant, open.hash) {
                    Some(true) => {}
                    Some(false) => return Err(Refusal::Reference),
                    None => return Err(Refusal::ReferenceUnresolved),
                }
                Used { constraint: REFERENCE, how: "it is for this checkout's open mandate".to_owned() }
            }
            AMOUNT => amount_range(object, payment)?,
            PAYEES => {
                let members = Members::of(PAYEES, object, &["allowed"])?;
                let allowed = members.allowed(Merchant::read)?;
                if !allowed.iter().any(|allowed| allowed.allows(&payment.payee)) {
                    return Err(Refusal::Payee);
                }
                Used { constraint: PAYEES, how: one_of(&payment.payee.name, allowed.len()) }
            }
            INSTRUMENTS => {
                let members = Members::of(INSTRUMENTS, object, &["allowed"])?;
                let allowed = members.allowed(Instrument::read)?;
                if !allowed.iter().any(|allowed| allowed.is(&payment.instrument)) {
                    return Err(Refusal::Instrument);
                }
                Used { constraint: INSTRUMENTS, how: one_of(&payment.instrument.id, allowed.len()) }
            }
            PISPS => {
                let members = Members::of(PISPS, object, &["allowed"])?;
                let allowed = members.allowed(Pisp::read)?;
                let pisp =
                    payment.pisp.as_ref().filter(|pisp| allowed.contains(pisp)).ok_or(Refusal::Pisp)?;
                Used { constraint: PISPS, how: one_of(&pisp.brand_name, allowed.len()) }
            }
            EXECUTION => execution_date(object, payment, now)?,
            RECURRENCE => {
                let (recurrence, met) = recurrence(object)?;
                usage.recurrence.push(recurrence);
                met
            }
            BUDGET => {
                let budget = budget(object)?;
                if budget.currency != payment.amount.currency {
                    return Err(Refusal::Budget);
                }
                let how = format!("at most {budget} in all");
                usage.budgets.push(budget);
                Used { constraint: BUDGET, how }
            }
            // Spec: step 3: "Any unknown Constraints MUST be treated as failing evaluation".
            unknown => return Err(Refusal::UnknownConstraint(quoted(unknown))),
        };
        used.push(met);
    }
    Ok(())
}

fn one_of(name: &str, many: usize) -> String {
    format!("{name} is one of {many} shown")
}

/// Spec: payment_mandate.md, "Amount Range"; the schema has whole minor units, the prose an example with a point.
fn amount_range(object: &Object, payment: &Payment) -> Result<Used, Refusal> {
    let members = Members::of(AMOUNT, object, &["currency", "max", "min"])?;
    let currency = members.need("currency", currency)?;
    let max = members.need("max", minor_units)?;
    let min = members.may("min", minor_units)?.unwrap_or(0);
    let amount = &payment.amount;
    if amount.currency != currency || amount.minor < min || amount.minor > max {
        return Err(Refusal::AmountRange);
    }
    Ok(Used { constraint: AMOUNT, how: format!("{amount} is from {min} to {max}") })
}

/// Spec: payment_mandate.md, "Execution Date"; payment_mandate.json: a payment without a date is executed at once.
fn execution_date(object: &Object, payment: &Payment, now: Timestamp) -> Result<Used, Refusal> {
    let members = Members::of(EXECUTION, object, &["not_before", "not_after"])?;
    let edge = |name: &'static str| members.object.get(name).map(|value| moment(value, name)).transpose();
    let (first, last) = (edge("not_before")?, edge("not_after")?);
    let at = payment.execution_date.unwrap_or(now);
    if first.is_some_and(|first| at < first) || last.is_some_and(|last| at > last) {
        return Err(Refusal::ExecutionDate);
    }
    Ok(Used { constraint: EXECUTION, how: format!("{at} is in its time") })
}

/// Spec: payment_mandate.md, "Agent Recurrence".
fn recurrence(object: &Object) -> Result<(Recurrence, Used), Refusal> {
    let members = Members::of(RECURRENCE, object, &["frequency", "max_occurrences"])?;
    let frequency = members.need("frequency", |value| value.as_str().and_then(Frequency::named))?;
    let max_occurrences = members.may("max_occurrences", minor_units)?;
    let how = match max_occurrences {
        Some(most) => format!("{}, {most} times at most", frequency.name()),
        None => frequency.name().to_owned(),
    };
    Ok((Recurrence { frequency, max_occurrences }, Used { constraint: RECURRENCE, how }))
}

/// Spec: payment_mandate.md, "Budget". No unit is stated, and AP2's code takes a hundred minor units for one whatever the
/// currency. Here it is minor units, as in every other amount: never more than was meant.
fn budget(object: &Object) -> Result<Amount, Refusal> {
    let members = Members::of(BUDGET, object, &["max", "currency"])?;
    Ok(Amount { minor: members.need("max", minor_units)?, currency: members.need("currency", currency)? })
}
