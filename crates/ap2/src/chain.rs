//! A chain of delegated SD-JWTs, from a key that is trusted to a closed mandate.
//!
//! Spec: the draft, section "Verification"; AP2 agent_authorization.md, "Verification and Processing Rules" step 1.

use std::fmt;
use std::time::Duration;

use farthing_primitives::Timestamp;
use farthing_wire::{Json, Object};
use sha2::{Digest, Sha256};

use crate::disclose::{Hash, Hop, Shown, Step};
use crate::jose::PublicKey;
use crate::refusal::{Refusal, Refused};
use crate::{MAX_CHAIN_BYTES, MAX_DELEGATES, MAX_HOPS, SKEW};

/// What a mandate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Checkout,
    Payment,
}

impl Family {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Checkout => "checkout",
            Self::Payment => "payment",
        }
    }

    /// Spec: AP2 specification.md, "Mandate Versioning": the exact text, version included.
    const fn closed(self) -> &'static str {
        match self {
            Self::Checkout => "mandate.checkout.1",
            Self::Payment => "mandate.payment.1",
        }
    }

    const fn open(self) -> &'static str {
        match self {
            Self::Checkout => "mandate.checkout.open.1",
            Self::Payment => "mandate.payment.open.1",
        }
    }

    pub(crate) fn at(self, hop: Option<usize>, why: Refusal) -> Refused {
        Refused { family: self, hop, why }
    }
}

/// What a trusted key is trusted for.
///
/// Spec: AP2 agent_authorization.md, "Mandate Delegation": a trusted agent provider, or the issuer of a user credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// It signs mandates that a user has approved.
    AgentProvider,
    /// It signs credentials of this type, and their holders sign mandates. Another type would make the holder of anything
    /// that the issuer ever signed one who may pay.
    Credential { vct: String },
}

/// A key that a chain may begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    pub key: PublicKey,
    pub kid: Option<String>,
    pub trust: Trust,
}

/// What a verifier expects of the chain that it is shown.
#[derive(Debug, Clone)]
pub struct Expect<'a> {
    pub roots: &'a [Root],
    /// Who is asked, as the verifier named itself.
    pub audience: &'a str,
    /// What the verifier asked with. It is the verifier's to ask with each one once.
    pub nonce: &'a str,
    pub now: Timestamp,
    /// How old the closed mandate's signature may be.
    pub max_age: Duration,
    /// Whether a closed mandate counts that a trusted agent provider signed itself. It is for no audience and answers no
    /// nonce: only its checkout, its end and its single use bind it.
    pub direct: bool,
}

/// The name of one mandate: a hash of what was signed. It is the same whatever else is done to the token: another order of
/// disclosures, fewer of them, or the other signature that fits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MandateId(pub [u8; 32]);

impl MandateId {
    fn of(vct: &str, hop: &Hop<'_>, digest: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"farthing ap2 mandate v1");
        for part in [vct, hop.jwt.signed, digest] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for MandateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mnd_{}", hex::encode(self.0))
    }
}

impl fmt::Debug for MandateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A mandate that leaves a choice to whoever has its key, within constraints.
#[derive(Debug)]
pub(crate) struct Open {
    pub hop: usize,
    pub id: MandateId,
    pub claims: Object,
    /// Its SD-JWT as it was shown.
    pub text: String,
    pub hash: Hash,
}

/// A chain whose signatures, bindings and times are right.
#[derive(Debug)]
pub(crate) struct Chain {
    pub opens: Vec<Open>,
    /// Where the closed mandate is.
    pub hop: usize,
    pub closed: Object,
    pub id: MandateId,
    pub hash: Hash,
    /// What a receipt names it by.
    pub reference: String,
    pub signed_at: Option<Timestamp>,
}

/// Which kind of mandate a chain ends in, by its own word: nothing is checked yet.
pub fn family_of(chain: &str) -> Option<Family> {
    let last = hops(chain).ok()?.into_iter().next_back()?;
    let hop = Hop::parse(last).ok()?;
    let mandate = delegated(&hop, &hop.shown().ok()?).ok()??.claims;
    [Family::Checkout, Family::Payment]
        .into_iter()
        .find(|family| [family.open(), family.closed()].map(Some).contains(&mandate.get_str("vct")))
}

/// Spec: the draft, "Compact Serialization": `<SD-JWT>~~<KB-SD-JWT>~…~`. A chain that ends without `~` has a bare KB-JWT at
/// its end; in AP2 the closed mandate is the proof of possession, so there is none.
fn hops(chain: &str) -> Result<Vec<&str>, Refusal> {
    if chain.len() > MAX_CHAIN_BYTES {
        return Err(Refusal::TooLong { limit: MAX_CHAIN_BYTES });
    }
    let mut hops = Vec::new();
    let mut rest = chain;
    loop {
        if hops.len() == MAX_HOPS {
            return Err(Refusal::TooManyHops { limit: MAX_HOPS });
        }
        let Some(at) = rest.find("~~") else { break };
        let (hop, next) = rest.split_at(at + 1);
        hops.push(hop);
        rest = next.get(1..).unwrap_or_default();
    }
    hops.push(rest);
    Ok(hops)
}

pub(crate) fn verify(chain: &str, family: Family, expect: &Expect<'_>) -> Result<Chain, Refused> {
    let texts = hops(chain).map_err(|why| family.at(None, why))?;
    let mut walk = Walk { family, expect, last: texts.len() - 1, before: None, opens: Vec::new() };
    for (at, text) in texts.into_iter().enumerate() {
        if let Some(chain) = walk.step(at, text).map_err(|why| family.at(Some(at), why))? {
            return Ok(chain);
        }
    }
    Err(family.at(None, Refusal::Order))
}

struct Walk<'a, 'e> {
    family: Family,
    expect: &'e Expect<'e>,
    last: usize,
    before: Option<Before<'a>>,
    opens: Vec<Open>,
}

/// What the next hop is held against.
struct Before<'a> {
    hop: Hop<'a>,
    key: PublicKey,
}

impl<'a> Walk<'a, '_> {
    /// Checks one hop; the last one gives the chain.
    fn step(&mut self, at: usize, text: &'a str) -> Result<Option<Chain>, Refusal> {
        let is_last = at == self.last;
        let hop = Hop::parse(text)?;
        match self.before.take() {
            None => self.root(&hop)?,
            Some(before) => bound(&hop, &before, is_last)?,
        }
        // Nothing of a hop is looked at before its signature was.
        let shown = hop.shown()?;
        let delegated = delegated(&hop, &shown)?;
        self.times(&shown.claims)?;
        let signed_at = if at == 0 { None } else { Some(self.question(&shown.claims, is_last)?) };
        let Some(Delegated { claims, digest }) = delegated else {
            // A user credential. Spec: the draft, "Optional Key Binding": a key is required of all but the last.
            if is_last {
                return Err(Refusal::Order);
            }
            let key = key_of(&shown.claims)?.ok_or(Refusal::NoCnf)?;
            self.before = Some(Before { hop, key });
            return Ok(None);
        };
        // Two keys that may go on would be one too many.
        if shown.claims.contains_key("cnf") {
            return Err(Refusal::UnexpectedCnf);
        }
        if !shown.withheld.iter().all(|place| may_be_withheld(place, &claims)) {
            return Err(Refusal::Withheld);
        }
        self.times(&claims)?;
        let vct = claims.get_str("vct").ok_or(Refusal::Vct)?;
        let is_closed = vct == self.family.closed();
        if !is_closed && vct != self.family.open() {
            return Err(Refusal::Vct);
        }
        if is_closed != is_last {
            return Err(Refusal::Order);
        }
        let id = MandateId::of(vct, &hop, &digest);
        match (key_of(&claims)?, is_last) {
            (Some(key), false) => {
                self.opens.push(Open { hop: at, id, claims, text: hop.text.to_owned(), hash: hop.hash });
                self.before = Some(Before { hop, key });
                Ok(None)
            }
            // Spec: the draft, "KB-SD-JWT+KB": cnf is a must in every hop but the last, and AP2's code refuses it there.
            (None, false) => Err(Refusal::NoCnf),
            (Some(_), true) => Err(Refusal::UnexpectedCnf),
            (None, true) => {
                if at == 0 && !self.expect.direct {
                    return Err(Refusal::Unbound);
                }
                Ok(Some(Chain {
                    opens: std::mem::take(&mut self.opens),
                    hop: at,
                    id,
                    closed: claims,
                    hash: hop.hash,
                    reference: hop.hash.of_text(hop.text),
                    signed_at,
                }))
            }
        }
    }

    /// Spec: the draft, "Verification" step 2: the first SD-JWT is signed by its issuer, who is trusted.
    fn root(&self, hop: &Hop<'_>) -> Result<(), Refusal> {
        // Spec: RFC 9901 section 9.11, RFC 8725 section 3.11: a token for one purpose is no token for another. A hop is no
        // beginning.
        let typ = hop.jwt.typ().ok_or(Refusal::Typ)?;
        if !typ.ends_with("+sd-jwt") || typ.starts_with("kb") {
            return Err(Refusal::Typ);
        }
        let payload = &hop.jwt.payload;
        let mut fitting = self.expect.roots.iter().filter(|root| {
            let of_its_kind = match &root.trust {
                Trust::AgentProvider => payload.contains_key("delegate_payload"),
                Trust::Credential { vct } => {
                    !payload.contains_key("delegate_payload") && payload.get_str("vct") == Some(vct)
                }
            };
            of_its_kind && hop.jwt.may_mean(root.kid.as_deref())
        });
        let Some(first) = fitting.next() else { return Err(Refusal::UntrustedRoot) };
        if std::iter::once(first).chain(fitting).any(|root| hop.jwt.is_signed_by(&root.key)) {
            Ok(())
        } else {
            Err(Refusal::Signature)
        }
    }

    /// Whether the payload counts now.
    fn times(&self, claims: &Object) -> Result<(), Refusal> {
        let (late, early) = (self.expect.now.minus(SKEW), self.expect.now.plus(SKEW));
        // Spec: draft-ietf-oauth-status-list: who cannot ask, cannot say that it was not revoked.
        if claims.contains_key("status") {
            return Err(Refusal::StatusUnchecked);
        }
        if let Some(at) = time(claims, "iat")?.filter(|at| *at > early) {
            return Err(Refusal::NotYetValid { at });
        }
        // Spec: RFC 7519 sections 4.1.4 and 4.1.5: valid from nbf on, and not at exp any more.
        if let Some(at) = time(claims, "nbf")?.filter(|at| *at > early) {
            return Err(Refusal::NotYetValid { at });
        }
        if let Some(at) = time(claims, "exp")?.filter(|at| *at <= late) {
            return Err(Refusal::Expired { at });
        }
        Ok(())
    }

    /// Whether the hop answers a question, and the last one ours. Every hop says which, also those that answered others'.
    ///
    /// Spec: RFC 9901 sections 4.3 and 7.3 step 5; the draft, "KB-SD-JWT and KB-SD-JWT+KB": iat, aud and nonce are musts.
    fn question(&self, claims: &Object, is_last: bool) -> Result<Timestamp, Refusal> {
        let signed_at = time(claims, "iat")?.ok_or(Refusal::Claim("iat"))?;
        let text = |name: &'static str| {
            claims.get_str(name).filter(|text| !text.is_empty()).ok_or(Refusal::Claim(name))
        };
        let (audience, nonce) = (text("aud")?, text("nonce")?);
        if is_last {
            if audience != self.expect.audience {
                return Err(Refusal::Audience);
            }
            if nonce != self.expect.nonce {
                return Err(Refusal::Nonce);
            }
            if self.expect.now.since(signed_at) > self.expect.max_age.saturating_add(SKEW) {
                return Err(Refusal::TooOld { at: signed_at });
            }
        }
        Ok(signed_at)
    }
}

/// Whether the hop was signed by the key that the one before names, for the one before.
///
/// Spec: the draft, "Verification" steps 3 and 4.
fn bound(hop: &Hop<'_>, before: &Before<'_>, is_last: bool) -> Result<(), Refusal> {
    // Both spellings are in the draft, and AP2's code takes both.
    let typs = if is_last { ["kb+sd-jwt", "kb-sd-jwt"] } else { ["kb+sd-jwt+kb", "kb-sd-jwt+kb"] };
    if !hop.jwt.typ().is_some_and(|typ| typs.contains(&typ)) {
        return Err(Refusal::Typ);
    }
    if !hop.jwt.is_signed_by(&before.key) {
        return Err(Refusal::Signature);
    }
    let payload = &hop.jwt.payload;
    // Spec: RFC 9901 section 4.3.1: over what was received, by the algorithm of the token that is hashed.
    let (said, hashed) = match (payload.get("sd_hash"), payload.get("issuer_jwt_hash")) {
        (Some(said), None) => (said, before.hop.text),
        (None, Some(said)) => (said, before.hop.jwt.text),
        _ => return Err(Refusal::BindingClaim),
    };
    if said.as_str() != Some(before.hop.hash.of_text(hashed).as_str()) {
        return Err(Refusal::Binding);
    }
    if !payload.contains_key("delegate_payload") {
        return Err(Refusal::DelegatePayload);
    }
    Ok(())
}

/// The mandate that a hop shows, and the digest that stands for it in what was signed.
struct Delegated {
    claims: Object,
    digest: String,
}

/// Spec: the draft, "KB-SD-JWT and KB-SD-JWT+KB": an array of objects; if there are several, all are behind digests, and
/// exactly one is shown. Bare digests, which AP2's code also takes, are in no specification.
fn delegated(hop: &Hop<'_>, shown: &Shown) -> Result<Option<Delegated>, Refusal> {
    let Some(array) = hop.jwt.payload.get("delegate_payload") else { return Ok(None) };
    let array = array.as_array().ok_or(Refusal::DelegatePayload)?;
    if array.is_empty() || array.len() > MAX_DELEGATES {
        return Err(Refusal::DelegatePayload);
    }
    let mut digest = String::new();
    for item in array {
        let item = item.as_object().ok_or(Refusal::DelegatePayload)?;
        match item.get_str("...") {
            Some(of_it) if hop.shows(of_it) => of_it.clone_into(&mut digest),
            Some(_) => {}
            None if array.len() > 1 => return Err(Refusal::DelegatePayload),
            None => {}
        }
    }
    match shown.claims.get("delegate_payload") {
        Some(Json::Array(shown)) => match shown.as_slice() {
            [Json::Object(claims)] => Ok(Some(Delegated { claims: claims.clone(), digest })),
            _ => Err(Refusal::DelegatePayload),
        },
        _ => Err(Refusal::DelegatePayload),
    }
}

/// Where something may be withheld: other mandates of the same signature, and what a list of allowed things allows besides.
/// Anywhere else it might be an end, a constraint or a preset value, and whoever withholds it is whom it binds.
///
/// Spec: AP2's schemas: `x-selectively-disclosable-array`; checkout_mandate.md: the lists count by their revealed elements.
fn may_be_withheld(place: &[Step], mandate: &Object) -> bool {
    let is = |step: &Step, name: &str| matches!(step, Step::Member(member) if member == name);
    let element = |step: &Step| matches!(step, Step::Element(_));
    let Some((first, rest)) = place.split_first() else { return false };
    if !is(first, "delegate_payload") {
        return false;
    }
    match rest {
        [] => true,
        [one, constraints, Step::Element(at), allowed]
            if element(one) && is(constraints, "constraints") && is(allowed, "allowed") =>
        {
            // Spec: open_payment_mandate.json: all but this one.
            let constraints = mandate.get("constraints").and_then(Json::as_array);
            let constraint = constraints.and_then(|all| all.get(*at)).and_then(Json::as_object);
            constraint.is_some_and(|constraint| constraint.get_str("type") != Some("payment.allowed_pisps"))
        }
        [one, constraints, n, items, m, acceptable] => {
            [one, n, m].into_iter().all(element)
                && is(constraints, "constraints")
                && is(items, "items")
                && is(acceptable, "acceptable_items")
        }
        _ => false,
    }
}

/// Spec: RFC 7800 section 3.2: `{"jwk": …}`.
fn key_of(claims: &Object) -> Result<Option<PublicKey>, Refusal> {
    let Some(cnf) = claims.get("cnf") else { return Ok(None) };
    let jwk = cnf.as_object().and_then(|cnf| cnf.get("jwk")).and_then(Json::as_object).ok_or(Refusal::Key)?;
    PublicKey::from_jwk(jwk).map(Some).map_err(|_| Refusal::Key)
}

/// A moment in whole seconds since 1970.
pub(crate) fn time(claims: &Object, name: &'static str) -> Result<Option<Timestamp>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            value.as_u64().map(|secs| Some(Timestamp::from_secs(secs))).ok_or(Refusal::Claim(name))
        }
    }
}
