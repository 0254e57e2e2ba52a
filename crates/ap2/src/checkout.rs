//! Checkout mandates, and the merchant-signed checkouts that they approve.
//!
//! Spec: AP2 specification.md, "Verification: Merchant"; checkout_mandate.md.

use farthing_primitives::Timestamp;
use farthing_wire::{Json, Object};

use crate::chain::{self, Chain, Expect, Family, MandateId, time};
use crate::constraint::{Used, checkout_constraints, presets};
use crate::disclose::Hash;
use crate::jose::{Jwt, PublicKey};
use crate::mandate::{Amount, Merchant, currency, minor_units, moment, text};
use crate::refusal::{Refusal, Refused};
use crate::replay::{OpenUse, Reservation, Unreserved};
use crate::{MAX_LINES, SKEW};

/// A key that signs checkouts of one merchant, and of no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerchantKey {
    /// The `id` of the merchant in its checkouts.
    pub merchant: String,
    pub kid: Option<String>,
    pub key: PublicKey,
}

/// Some pieces of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What identifies the thing, often its SKU.
    pub id: String,
    pub quantity: u64,
    pub(crate) item: Object,
}

/// What a merchant signed.
#[derive(Debug, Clone)]
pub(crate) struct Checkout {
    pub merchant: Merchant,
    /// None if it lists nothing that we can read; AP2 leaves open what a checkout is.
    pub lines: Option<Vec<Line>>,
    pub total: Option<Amount>,
}

/// A checkout that somebody was authorized to complete.
#[derive(Debug, Clone)]
pub struct CheckoutMandate {
    pub id: MandateId,
    /// The open mandates that led to it; none if a user approved this very checkout.
    pub opens: Vec<MandateId>,
    pub merchant: Merchant,
    pub lines: Vec<Line>,
    /// What it costs, where the checkout says it as UCP does.
    pub total: Option<Amount>,
    /// The hash of the checkout as it was received, which a payment names as its `transaction_id`.
    pub checkout_hash: String,
    /// The constraints of the open mandates, and how they were met.
    pub constraints: Vec<Used>,
    /// What a receipt refers to this by: the hash of the last SD-JWT as received. Spec: AP2 agent_authorization.md.
    pub reference: String,
    pub signed_at: Option<Timestamp>,
    pub(crate) jwt: String,
    pub(crate) open_texts: Vec<String>,
}

impl CheckoutMandate {
    /// Whether a payment's `conditional_transaction_id` means an open mandate of this checkout, by the hash that the
    /// payment's SD-JWT uses.
    ///
    /// Spec: AP2 payment_mandate.md, "Reference".
    pub(crate) fn is_meant_by(&self, reference: &str, hash: Hash) -> bool {
        self.open_texts.iter().any(|text| hash.of_text(text) == reference)
    }
}

/// Checks a chain that ends in a closed checkout mandate.
///
/// `sent` is the checkout that the merchant sent for approval, if the verifier is that merchant: the mandate has to be
/// about it, to the byte.
///
/// # Errors
/// [`Refused`], whose code is stable. Nothing that is returned counts before it is reserved: [`Unreserved::reserve`].
pub fn verify_checkout(
    chain: &str,
    expect: &Expect<'_>,
    merchants: &[MerchantKey],
    sent: Option<&str>,
) -> Result<Unreserved<CheckoutMandate>, Refused> {
    const FAMILY: Family = Family::Checkout;
    let chain = chain::verify(chain, FAMILY, expect)?;
    let at_closed = |why| FAMILY.at(Some(chain.hop), why);
    let (jwt, checkout_hash) = approved(&chain, sent).map_err(at_closed)?;
    let checkout = read(&jwt, merchants, expect.now).map_err(at_closed)?;
    let mut constraints = Vec::new();
    for open in &chain.opens {
        presets(&open.claims, &chain.closed)
            .and_then(|()| checkout_constraints(&open.claims, &checkout, &mut constraints))
            .map_err(|why| FAMILY.at(Some(open.hop), why))?;
    }
    let reservation = Reservation {
        family: FAMILY,
        closed: chain.id,
        transaction: Hash::Sha256.of_text(&jwt),
        amount: None,
        // Spec: checkout_mandate.md, "Line Items", the note: an open mandate is not split over several checkouts.
        opens: chain.opens.iter().map(|open| OpenUse::once(open.id)).collect(),
    };
    let mandate = CheckoutMandate {
        id: chain.id,
        opens: chain.opens.iter().map(|open| open.id).collect(),
        merchant: checkout.merchant,
        lines: checkout.lines.unwrap_or_default(),
        total: checkout.total,
        checkout_hash,
        constraints,
        reference: chain.reference,
        signed_at: chain.signed_at,
        jwt,
        open_texts: chain.opens.into_iter().map(|open| open.text).collect(),
    };
    Ok(Unreserved::new(mandate, reservation))
}

/// The checkout in the mandate, and its hash.
fn approved(chain: &Chain, sent: Option<&str>) -> Result<(String, String), Refusal> {
    let jwt = chain.closed.get_str("checkout_jwt").ok_or(Refusal::Member("checkout_jwt"))?;
    let said = chain.closed.get_str("checkout_hash").ok_or(Refusal::Member("checkout_hash"))?;
    // Spec: checkout_mandate.md, "Mandate Schema": the hash of the value as it was received, by the SD-JWT's algorithm.
    let hash = chain.hash.of_text(jwt);
    // Spec: security_and_privacy_considerations.md, "Manipulated Checkout": of the latest checkout that was sent.
    if hash != said || sent.is_some_and(|sent| sent != jwt) {
        return Err(Refusal::CheckoutHash);
    }
    Ok((jwt.to_owned(), hash))
}

/// Reads a checkout that its merchant signed.
///
/// Spec: AP2 specification.md, "Checkout Mandate": a merchant-signed JWT; its payload as UCP has it.
pub(crate) fn read(jwt: &str, merchants: &[MerchantKey], now: Timestamp) -> Result<Checkout, Refusal> {
    let jwt = Jwt::parse(jwt).map_err(|_| Refusal::CheckoutForm("JWT"))?;
    let claims = &jwt.payload;
    let merchant =
        claims.get("merchant").and_then(Merchant::read).ok_or(Refusal::CheckoutForm("merchant"))?;
    let mut of_it = merchants
        .iter()
        .filter(|key| {
            merchant.id.as_deref() == Some(key.merchant.as_str()) && jwt.may_mean(key.kid.as_deref())
        })
        .peekable();
    if of_it.peek().is_none() {
        return Err(Refusal::MerchantUnknown);
    }
    if !of_it.any(|key| jwt.is_signed_by(&key.key)) {
        return Err(Refusal::CheckoutSignature);
    }
    if let Some(at) =
        time(claims, "iat")?.into_iter().chain(time(claims, "nbf")?).find(|at| *at > now.plus(SKEW))
    {
        return Err(Refusal::NotYetValid { at });
    }
    let until = claims.get("expires_at").map(|at| moment(at, "expires_at")).transpose()?;
    if let Some(at) = time(claims, "exp")?.into_iter().chain(until).find(|at| *at <= now.minus(SKEW)) {
        return Err(Refusal::Expired { at });
    }
    Ok(Checkout { merchant, lines: lines(claims)?, total: total(claims)? })
}

/// Spec: UCP `types/line_item.json`: `{item: {id, …}, quantity, …}`.
fn lines(claims: &Object) -> Result<Option<Vec<Line>>, Refusal> {
    const BAD: Refusal = Refusal::CheckoutForm("line_items");
    let Some(lines) = claims.get("line_items") else { return Ok(None) };
    let lines = lines.as_array().filter(|lines| lines.len() <= MAX_LINES).ok_or(BAD)?;
    let line = |line: &Json| {
        let line = line.as_object()?;
        let item = line.get("item")?.as_object()?;
        let quantity = line.get("quantity").and_then(minor_units).filter(|quantity| *quantity > 0)?;
        Some(Line { id: text(item, "id")?, quantity, item: item.clone() })
    };
    lines.iter().map(line).collect::<Option<Vec<_>>>().map(Some).ok_or(BAD)
}

/// Spec: UCP `types/checkout.json`: exactly one entry of `totals` is the total.
fn total(claims: &Object) -> Result<Option<Amount>, Refusal> {
    const BAD: Refusal = Refusal::CheckoutForm("totals");
    let Some(totals) = claims.get("totals") else { return Ok(None) };
    let currency = claims.get("currency").and_then(currency).ok_or(Refusal::CheckoutForm("currency"))?;
    let mut found = None;
    for entry in totals.as_array().filter(|totals| totals.len() <= MAX_LINES).ok_or(BAD)? {
        let entry = entry.as_object().ok_or(BAD)?;
        if entry.get_str("type") == Some("total") {
            let minor = entry.get("amount").and_then(minor_units).ok_or(BAD)?;
            if found.replace(Amount { minor, currency: currency.clone() }).is_some() {
                return Err(BAD);
            }
        }
    }
    found.map(Some).ok_or(BAD)
}
