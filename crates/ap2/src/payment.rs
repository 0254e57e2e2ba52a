//! Payment mandates.
//!
//! Spec: AP2 specification.md, "Verification: Credential Provider and Network"; payment_mandate.md.

use farthing_primitives::Timestamp;
use farthing_wire::Json;

use crate::chain::{self, Chain, Expect, Family, MandateId};
use crate::checkout::CheckoutMandate;
use crate::constraint::{Payment, Used, payment_constraints, presets};
use crate::disclose::Hash;
use crate::mandate::{Amount, Instrument, Merchant, Pisp, moment, text};
use crate::refusal::{Refusal, Refused};
use crate::replay::{OpenUse, Reservation, Unreserved};

/// How the verifier knows which checkout is paid. Without knowing it there is no verdict: a payment mandate that names no
/// known checkout pays for anything.
#[derive(Debug, Clone, Copy)]
pub enum Link<'a> {
    /// It has seen the checkout's own chain.
    Checkout(&'a CheckoutMandate),
    /// It was told by somebody it trusts, such as the merchant that asks it for money.
    Told {
        /// The hash of the merchant-signed checkout.
        transaction_id: &'a str,
        /// The hash of the open checkout mandate, with its disclosures.
        open_checkout: Option<&'a str>,
    },
}

impl Link<'_> {
    fn transaction_id(&self, hash: Hash) -> String {
        match self {
            // Spec: payment_mandate.json: over checkout_jwt as received, by this SD-JWT's algorithm.
            Self::Checkout(checkout) => hash.of_text(&checkout.jwt),
            Self::Told { transaction_id, .. } => (*transaction_id).to_owned(),
        }
    }

    /// Whether the open checkout mandate is that one; none if nobody said which it is.
    pub(crate) fn has_open(&self, reference: &str, hash: Hash) -> Option<bool> {
        match self {
            Self::Checkout(checkout) => Some(checkout.is_meant_by(reference, hash)),
            Self::Told { open_checkout, .. } => open_checkout.map(|told| told == reference),
        }
    }
}

/// A payment that somebody was authorized to make.
#[derive(Debug, Clone)]
pub struct PaymentMandate {
    pub id: MandateId,
    /// The open mandates that led to it; none if a user approved this very payment.
    pub opens: Vec<MandateId>,
    pub payee: Merchant,
    pub amount: Amount,
    pub instrument: Instrument,
    pub pisp: Option<Pisp>,
    /// When it is to be executed; at once if nothing is said.
    pub execution_date: Option<Timestamp>,
    pub transaction_id: String,
    /// The constraints of the open mandates, and how they were met. Budgets and repetition are judged when it is reserved.
    pub constraints: Vec<Used>,
    /// What a receipt refers to this by: the hash of the last SD-JWT as received. Spec: AP2 agent_authorization.md.
    pub reference: String,
    pub signed_at: Option<Timestamp>,
}

/// Checks a chain that ends in a closed payment mandate.
///
/// # Errors
/// [`Refused`], whose code is stable. Nothing that is returned counts before it is reserved: [`Unreserved::reserve`].
pub fn verify_payment(
    chain: &str,
    expect: &Expect<'_>,
    link: Link<'_>,
) -> Result<Unreserved<PaymentMandate>, Refused> {
    const FAMILY: Family = Family::Payment;
    let chain = chain::verify(chain, FAMILY, expect)?;
    let payment = read(&chain, &link).map_err(|why| FAMILY.at(Some(chain.hop), why))?;
    let (mut constraints, mut opens) = (Vec::new(), Vec::new());
    for open in &chain.opens {
        let mut usage = OpenUse::once(open.id);
        presets(&open.claims, &chain.closed)
            .and_then(|()| {
                payment_constraints(open, &payment, &link, expect.now, &mut usage, &mut constraints)
            })
            .map_err(|why| FAMILY.at(Some(open.hop), why))?;
        opens.push(usage);
    }
    let reservation = Reservation {
        family: FAMILY,
        closed: chain.id,
        // One checkout has one name, by whatever algorithm an agent has its payment name it.
        transaction: match link {
            Link::Checkout(checkout) => Hash::Sha256.of_text(&checkout.jwt),
            Link::Told { transaction_id, .. } => transaction_id.to_owned(),
        },
        amount: Some(payment.amount.clone()),
        opens,
    };
    let mandate = PaymentMandate {
        id: chain.id,
        opens: chain.opens.iter().map(|open| open.id).collect(),
        payee: payment.payee,
        amount: payment.amount,
        instrument: payment.instrument,
        pisp: payment.pisp,
        execution_date: payment.execution_date,
        transaction_id: payment.transaction_id,
        constraints,
        reference: chain.reference,
        signed_at: chain.signed_at,
    };
    Ok(Unreserved::new(mandate, reservation))
}

/// Spec: AP2 `payment_mandate.json`.
fn read(chain: &Chain, link: &Link<'_>) -> Result<Payment, Refusal> {
    let closed = &chain.closed;
    let member = |name: &'static str| closed.get(name).ok_or(Refusal::Member(name));
    let transaction_id = text(closed, "transaction_id").ok_or(Refusal::Member("transaction_id"))?;
    if matches!(link, Link::Told { .. }) && chain.hash != Hash::Sha256 {
        // The checkout is not here to be named by another: it could be paid once by each.
        return Err(Refusal::HashAlgorithm);
    }
    // Spec: security_and_privacy_considerations.md, "Manipulated Checkout" and "Manipulated Payment".
    if transaction_id != link.transaction_id(chain.hash) {
        return Err(Refusal::TransactionId);
    }
    let payee = Merchant::read(member("payee")?).filter(|payee| payee.id.is_some());
    let payee = payee.ok_or(Refusal::Member("payee"))?;
    let amount = Amount::read(member("payment_amount")?, "payment_amount")?;
    if let Link::Checkout(checkout) = link {
        // AP2 does not say it: what is paid to somebody else, or is another sum, does not pay for this checkout.
        if payee.id != checkout.merchant.id {
            return Err(Refusal::PayeeDiffers);
        }
        if checkout.total.as_ref().is_some_and(|total| *total != amount) {
            return Err(Refusal::TotalDiffers);
        }
    }
    let instrument = Instrument::read(member("payment_instrument")?);
    let pisp = |value: &Json| Pisp::read(value).ok_or(Refusal::Member("pisp"));
    Ok(Payment {
        payee,
        amount,
        instrument: instrument.ok_or(Refusal::Member("payment_instrument"))?,
        pisp: closed.get("pisp").map(pisp).transpose()?,
        execution_date: closed.get("execution_date").map(|at| moment(at, "execution_date")).transpose()?,
        transaction_id,
    })
}
