//! From a payment header to a sale: everything that can be said of a payment without asking the chain.

use std::sync::Arc;
use std::time::Duration;

use farthing_engine::Sale;
use farthing_payment::{Binding, Bound, Dialect, Flow, Terms};
use farthing_primitives::{Money, PullMethod, RequestHash, TenantId, Timestamp};
use farthing_rails::exact_evm::{
    Checked, Fact, MIN_REMAINING, Policy, Presented, Refusal, Requirement, SignatureStatus, Token, Tokens,
    check,
};
use farthing_rails::method::{Declined, Method as PayMethod, MethodOffer, Presented as ByMethod};
use farthing_rails::mpp::{self, Body, CredentialError, NotOpened};
use farthing_rails::offer::{BindingKey, SEAL_KEY, SealError};
use farthing_rails::pushed_evm::Pushed;
use farthing_rails::x402::{self, Extras, OfferError, PaymentError};
use farthing_wire::mpp::header::PAYMENT_AUTHORIZATION;
use farthing_wire::mpp::{ChallengeSecrets, Credential, IntentName, MppError};
use farthing_wire::x402::exact_evm::Payload;
use farthing_wire::x402::header::{PAYMENT_SIGNATURE, X_PAYMENT};
use farthing_wire::x402::{ErrorCode, Message, WireError, requirements_match, v1, v2};
use http::{HeaderMap, Method};

use crate::headers::pays;
use crate::offer::{announced, seal_context, sealed_route};
use crate::price::Paid;

/// A payment that was read, and nothing more.
#[derive(Debug)]
pub(crate) enum Shown {
    V1(v1::PaymentPayload),
    V2(Box<v2::PaymentPayload>),
    Mpp(Box<Credential>),
}

/// Why a payment header is no payment. All are answered with 400, but for a credential of MPP that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("more than one payment header")]
    Several,
    #[error("the payment cannot be read: {0}")]
    Wire(#[from] WireError),
    #[error("the credential cannot be read: {0}")]
    Mpp(MppError),
}

impl HeaderError {
    pub fn code(&self) -> String {
        match self {
            Self::Several => "ambiguous_payment".to_owned(),
            Self::Wire(error) => error.code().as_str().to_owned(),
            Self::Mpp(error) => error.code().to_owned(),
        }
    }
}

impl From<MppError> for HeaderError {
    fn from(error: MppError) -> Self {
        match error {
            MppError::SeveralCredentials => Self::Several,
            error => Self::Mpp(error),
        }
    }
}

/// The headers that a credential of MPP may be in.
fn credential_lines(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let authorization = headers.get_all(http::header::AUTHORIZATION).iter();
    authorization.chain(headers.get_all(PAYMENT_AUTHORIZATION).iter()).map(http::HeaderValue::as_bytes)
}

impl Shown {
    /// Whether the request carries anything that might be one.
    pub fn is_there(headers: &HeaderMap) -> bool {
        headers.contains_key(PAYMENT_SIGNATURE)
            || headers.contains_key(X_PAYMENT)
            || headers.contains_key(PAYMENT_AUTHORIZATION)
            || headers.get_all(http::header::AUTHORIZATION).iter().any(pays)
    }

    /// The payment that the request carries, if it carries any.
    ///
    /// Two headers, of one dialect or of several, or one folded from two, are refused: two readers might take two
    /// different payments from them.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, HeaderError> {
        let mut v2 = headers.get_all(PAYMENT_SIGNATURE).iter();
        let mut v1 = headers.get_all(X_PAYMENT).iter();
        let (first_v2, first_v1) = (v2.next(), v1.next());
        if v2.next().is_some() || v1.next().is_some() || (first_v2.is_some() && first_v1.is_some()) {
            return Err(HeaderError::Several);
        }
        let folded = |value: &http::HeaderValue| value.as_bytes().contains(&b',');
        if first_v2.is_some_and(folded) || first_v1.is_some_and(folded) {
            return Err(HeaderError::Several);
        }
        let credential = Credential::find(credential_lines(headers));
        if !matches!(credential, Ok(None)) && (first_v2.is_some() || first_v1.is_some()) {
            return Err(HeaderError::Several);
        }
        if let Some(credential) = credential? {
            return Ok(Some(Self::Mpp(Box::new(credential))));
        }
        Ok(match (first_v2, first_v1) {
            (Some(value), _) => Some(Self::V2(Box::new(v2::PaymentPayload::from_header(value.as_bytes())?))),
            (None, Some(value)) => Some(Self::V1(v1::PaymentPayload::from_header(value.as_bytes())?)),
            (None, None) => None,
        })
    }

    /// What only the buyer can show again.
    ///
    /// Once a payment is settled, its authorization and signature are public on the chain, and whoever copies them
    /// must not be given what was bought with them. In v2 the buyer alone knows the seal of the offer that it was
    /// made, in MPP the id of its challenge. In v1 there is no such thing; there the buyer must come from the same
    /// address.
    pub fn presenter(&self, client: Option<std::net::IpAddr>) -> Vec<u8> {
        match self {
            Self::V2(payment) => {
                let extra = payment.accepted.extra.as_ref();
                extra.and_then(|extra| extra.get_str(SEAL_KEY)).unwrap_or_default().as_bytes().to_vec()
            }
            // The chain sees a hash of it alone.
            Self::Mpp(credential) => credential.challenge.id.as_bytes().to_vec(),
            Self::V1(_) => client.map(|client| client.to_string()).unwrap_or_default().into_bytes(),
        }
    }

    /// What the buyer calls its payment, if it does.
    ///
    /// Spec: extensions/payment_identifier.
    pub fn name(&self) -> Result<Option<String>, WireError> {
        let Self::V2(payment) = self else { return Ok(None) };
        let Some(extensions) = &payment.extensions else { return Ok(None) };
        Ok(extensions.payment_identifier()?.and_then(|identifier| identifier.id))
    }

    pub fn dialect(&self) -> Dialect {
        match self {
            Self::V1(_) => Dialect::X402V1,
            Self::V2(_) => Dialect::X402V2,
            Self::Mpp(_) => Dialect::Mpp,
        }
    }

    /// The challenge that the payment answers, in MPP.
    pub fn challenge_id(&self) -> Option<String> {
        match self {
            Self::Mpp(credential) => Some(credential.challenge.id.clone()),
            Self::V1(_) | Self::V2(_) => None,
        }
    }

    /// The network by the name that the payment's version uses.
    pub fn network_name(&self) -> String {
        match self {
            Self::V1(payment) => payment.network.name().to_owned(),
            Self::V2(payment) => payment.accepted.network.to_string(),
            Self::Mpp(credential) => mpp::any_charge(&credential.challenge)
                .map(|charge| charge.network.to_string())
                .unwrap_or_default(),
        }
    }

    fn presented(&self, asked: &Requirement) -> Result<Presented, Refused> {
        match self {
            Self::V1(payment) => Ok(x402::presented_v1(asked, payment)?),
            Self::V2(payment) => Ok(x402::presented_v2(asked, payment)?),
            Self::Mpp(credential) => Ok(mpp::presented(credential, asked.network())?),
        }
    }
}

/// A route that the request may be for: today's, and those that a reload replaced while their offers still hold.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub pattern: Arc<str>,
    pub paid: Arc<Paid>,
    /// What it asks for now; for a v2 payment of a quote, nothing.
    pub asked: Vec<Requirement>,
    /// The protection space that its challenges name.
    pub realm: String,
}

/// The request, as far as a payment depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bought<'a> {
    pub method: &'a Method,
    /// Canonical path and query.
    pub resource: &'a str,
    /// As the client sent them.
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub request: RequestHash,
}

/// What a payment is judged by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Judge<'a> {
    pub tenant: &'a TenantId,
    pub key: &'a BindingKey,
    pub secrets: &'a ChallengeSecrets,
    pub tokens: &'a Tokens,
    /// The wall clock, for what the payer signed by one.
    pub now: Timestamp,
    /// The clock that never goes back, for what we offered.
    pub mark: Timestamp,
}

/// Why a payment is not accepted. The payer may be challenged again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub code: String,
}

/// The plug-in that a payment was made by, which says its receipt.
#[derive(Debug, Clone)]
pub(crate) struct PaidBy {
    pub method: Arc<dyn PayMethod>,
    pub external_id: Option<String>,
}

/// A payment as far as it can be judged here.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub sale: Sale,
    pub by: Option<PaidBy>,
    pub paid: Arc<Paid>,
    /// Nobody's key signed it: only the chain can vouch for it, and a stranger can have it asked at will.
    pub asks_a_read: bool,
    /// Not to be claimed anew for this reason, but perhaps bought already.
    pub lapsed: Option<Refused>,
}

impl From<ErrorCode> for Refused {
    fn from(code: ErrorCode) -> Self {
        Self { code: code.as_str().to_owned() }
    }
}

impl From<OfferError> for Refused {
    fn from(error: OfferError) -> Self {
        error.code().into()
    }
}

impl From<PaymentError> for Refused {
    fn from(error: PaymentError) -> Self {
        error.code().into()
    }
}

impl From<CredentialError> for Refused {
    fn from(error: CredentialError) -> Self {
        Self { code: error.code().to_owned() }
    }
}

impl From<NotOpened> for Refused {
    fn from(error: NotOpened) -> Self {
        Self { code: error.code().to_owned() }
    }
}

impl From<Declined> for Refused {
    fn from(declined: Declined) -> Self {
        Self { code: declined.code.to_owned() }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        x402::refusal_code(&refusal).into()
    }
}

/// Judges a payment against what the route asks for.
///
/// A payment that is not acceptable now, but is well signed, is admitted as lapsed: if it was taken before, it still
/// buys what it bought then.
pub(crate) fn admit(
    shown: &Shown,
    candidates: &[Candidate],
    bought: Bought<'_>,
    judge: Judge<'_>,
) -> Result<Admitted, Refused> {
    if let Shown::Mpp(credential) = shown
        && let Some(offer) = plugged(credential, candidates)
    {
        return by_method(credential, offer, candidates, bought, judge);
    }
    if let Shown::Mpp(credential) = shown {
        match mpp::pushed(credential, judge.tokens) {
            Ok(None) => {}
            pushed => return by_transfer(credential, pushed, candidates, bought, judge),
        }
    }
    let refused = match fresh(shown, candidates, bought, judge) {
        Ok((checked, candidate, bound)) => {
            return Ok(admitted(&checked, candidate, bound, shown.dialect(), bought, judge, None));
        }
        Err(refused) => refused,
    };
    match recognised(shown, candidates, judge) {
        Some((checked, candidate)) => {
            let bound = Bound::ByFirstUse;
            let lapsed = Some(refused);
            Ok(admitted(&checked, candidate, bound, shown.dialect(), bought, judge, lapsed))
        }
        None => Err(refused),
    }
}

fn fresh<'a>(
    shown: &Shown,
    candidates: &'a [Candidate],
    bought: Bought<'_>,
    judge: Judge<'_>,
) -> Result<(Checked, &'a Candidate, Bound), Refused> {
    match shown {
        Shown::V2(payment) => {
            let (asked, candidate) = accepted_offer(payment, candidates, bought, judge)?;
            echoed_extensions(payment, &candidate.paid)?;
            let presented = shown.presented(&asked)?;
            let checked = check(&asked, &presented, judge.now, &candidate.paid.policy)?;
            Ok((checked, candidate, Bound::ByOffer))
        }
        Shown::Mpp(credential) => {
            let (asked, candidate) = opened(credential, candidates, bought, judge)?;
            let presented = shown.presented(&asked)?;
            let checked = check(&asked, &presented, judge.now, &candidate.paid.policy)?;
            Ok((checked, candidate, Bound::ByOffer))
        }
        // Spec: x402 v1 section 5.2: a payment names scheme and network alone, so any offer of these may be meant.
        Shown::V1(_) => {
            let (checked, candidate) = best(
                candidates.iter().flat_map(|candidate| candidate.asked.iter().map(move |a| (a, candidate))),
                |(asked, candidate)| {
                    let presented = shown.presented(asked)?;
                    let checked = check(asked, &presented, judge.now, &candidate.paid.policy)?;
                    Ok((checked, *candidate))
                },
            )?;
            Ok((checked, candidate, Bound::ByFirstUse))
        }
    }
}

/// The offer that a v2 payment accepts, if it is ours for this route: because it carries our seal.
fn accepted_offer<'a>(
    payment: &v2::PaymentPayload,
    candidates: &'a [Candidate],
    bought: Bought<'_>,
    judge: Judge<'_>,
) -> Result<(Requirement, &'a Candidate), Refused> {
    let accepted = &payment.accepted;
    let asked = x402::requirement_v2(accepted, judge.tokens)?;
    let not_ours = Refused::from(ErrorCode::InvalidPaymentRequirements);
    // HEAD is priced as its GET: an offer made to one holds for the other.
    let method = priced_method(bought.method);
    for (place, candidate) in candidates.iter().enumerate() {
        let route = sealed_route(&candidate.pattern, &candidate.paid);
        let context = seal_context(&candidate.paid, bought.resource, bought.headers);
        let bound = x402::bound(&asked, judge.tenant, &route, &context, method);
        let holds = match x402::verify_seal(judge.key, &bound, accepted, judge.mark) {
            Ok(_) => true,
            // It ended, but it is what we ask for today: the first candidate is today's, the others were replaced.
            Err(SealError::Ended(_)) => place == 0 && candidate.asked.contains(&asked),
            Err(SealError::Malformed | SealError::NotOurs) => false,
        };
        if !holds {
            continue;
        }
        // Spec: x402 v2 section 5.2.2: all the same outside `extra`, and in `extra` at least what we wrote.
        let seal = accepted.extra_str(farthing_rails::offer::SEAL_KEY);
        let upfront = candidate.paid.flow == Flow::Upfront;
        let ours = x402::offer_v2(&asked, Extras { seal, upfront });
        return match requirements_match(&ours, accepted) {
            Ok(()) => Ok((asked, candidate)),
            Err(_) => Err(not_ours),
        };
    }
    Err(not_ours)
}

/// The charge that a credential answers, if the challenge is ours and opens this route for this request.
///
/// Spec: draft-httpauth-payment-00: a challenge that is ours opens nothing by that alone.
fn opened<'a>(
    credential: &Credential,
    candidates: &'a [Candidate],
    bought: Bought<'_>,
    judge: Judge<'_>,
) -> Result<(Requirement, &'a Candidate), Refused> {
    let candidate = opens(credential, candidates, bought, judge)?;
    let asked = mpp::requirement(&credential.challenge, judge.tokens, candidate.paid.max_timeout)?;
    Ok((asked, candidate))
}

/// The plug-in that a credential is for, among those of the route, today's or an older one's.
fn plugged<'a>(credential: &Credential, candidates: &'a [Candidate]) -> Option<&'a MethodOffer> {
    let challenge = &credential.challenge;
    if challenge.intent.as_str() != IntentName::CHARGE {
        return None;
    }
    let offers = candidates.iter().flat_map(|candidate| &candidate.paid.methods);
    offers.into_iter().find(|offer| *offer.method.name() == challenge.method)
}

/// Judges a payment by a method that is a plug-in.
///
/// Nothing of it is signed by the payer, so what it says of itself counts only as far as the challenge is ours. One that
/// is not fit to be claimed anew may have been taken before, by whoever can show it again: what is consumed once says
/// so, and then what was accepted then is what counts.
fn by_method(
    credential: &Credential,
    offer: &MethodOffer,
    candidates: &[Candidate],
    bought: Bought<'_>,
    judge: Judge<'_>,
) -> Result<Admitted, Refused> {
    let opened = opens(credential, candidates, bought, judge);
    let presented = match (offer.method.read(credential), &opened) {
        (Ok(presented), _) => presented,
        // What the challenge is worth comes first.
        (Err(_), Err(refused)) => return Err(refused.clone()),
        (Err(declined), Ok(_)) => return Err(declined.into()),
    };
    let (candidate, lapsed) = match opened {
        Ok(candidate) => (Some(candidate), None),
        Err(refused) => (candidates.first(), Some(refused)),
    };
    let candidate = candidate.ok_or(NotOpened::Scope)?;
    let ends = credential.challenge.expires.as_ref().ok_or(NotOpened::NotOurs)?.at();
    let paid = candidate.paid.clone();
    let ByMethod { money, key, payer, payee, instruction, external_id } = presented;
    let sale = Sale {
        tenant: judge.tenant.clone(),
        key,
        terms: Terms { payer, payee, money, expires: ends, dialect: Dialect::Mpp, instruction },
        binding: binding(&paid, if lapsed.is_some() { Bound::ByFirstUse } else { Bound::ByOffer }, bought),
        flow: paid.flow,
        exposure: paid.exposure.clone(),
        // Spec: draft-httpauth-payment-00: a challenge is paid once, also where two tokens could each pay it.
        name: Some(credential.challenge.id.clone()),
    };
    let by = Some(PaidBy { method: offer.method.clone(), external_id });
    Ok(Admitted { sale, by, asks_a_read: false, paid, lapsed })
}

/// Judges a transfer that its payer makes itself.
///
/// It names no challenge. One that is not fit to be claimed anew may have been taken before, for this very challenge and
/// request: what it consumes once says so.
fn by_transfer(
    credential: &Credential,
    pushed: Result<Option<Pushed>, CredentialError>,
    candidates: &[Candidate],
    bought: Bought<'_>,
    judge: Judge<'_>,
) -> Result<Admitted, Refused> {
    let opened = opens(credential, candidates, bought, judge);
    let pushed = match (pushed, &opened) {
        (Ok(Some(pushed)), _) => pushed,
        // What the challenge is worth comes first.
        (_, Err(refused)) => return Err(refused.clone()),
        (Err(error), Ok(_)) => return Err(error.into()),
        (Ok(None), Ok(_)) => return Err(CredentialError::Type("").into()),
    };
    let (candidate, lapsed) = match opened {
        Ok(candidate) => (Some(candidate), None),
        Err(refused) => (candidates.first(), Some(refused)),
    };
    let candidate = candidate.ok_or(NotOpened::Scope)?;
    let paid = candidate.paid.clone();
    let is_sent = pushed.unsent().is_none();
    let sale = Sale {
        tenant: judge.tenant.clone(),
        key: pushed.key(),
        terms: Terms {
            payer: pushed.payer(),
            payee: pushed.pay_to(),
            money: pushed.money().clone(),
            expires: credential.challenge.expires.as_ref().ok_or(NotOpened::NotOurs)?.at(),
            dialect: Dialect::Mpp,
            instruction: pushed.instruction(),
        },
        binding: binding(&paid, if lapsed.is_some() { Bound::ByFirstUse } else { Bound::ByOffer }, bought),
        // What is paid already cannot be left uncharged when the service fails: it is owed then.
        flow: if is_sent { Flow::Upfront } else { paid.flow },
        exposure: paid.exposure.clone().filter(|_| !is_sent),
        // Spec: draft-httpauth-payment-00: a challenge is paid once, also where two transfers could each pay it.
        name: Some(credential.challenge.id.clone()),
    };
    // Anybody can make up a hash, and looking it up costs a read.
    Ok(Admitted { sale, by: None, paid, asks_a_read: is_sent, lapsed })
}

fn binding(paid: &Paid, bound: Bound, bought: Bought<'_>) -> Binding {
    Binding {
        method: bought.method.as_str().to_owned(),
        resource: bought.resource.to_owned(),
        request: bought.request,
        bound,
        repeatable: paid.repeatable(bought.method),
    }
}

/// The route that a credential's challenge was made for, if we made it and it opens it for this request.
fn opens<'a>(
    credential: &Credential,
    candidates: &'a [Candidate],
    bought: Bought<'_>,
    judge: Judge<'_>,
) -> Result<&'a Candidate, Refused> {
    let challenge = &credential.challenge;
    if !mpp::is_ours(judge.secrets, challenge) {
        return Err(NotOpened::NotOurs.into());
    }
    let mut refused = NotOpened::Scope;
    for candidate in candidates {
        let route = sealed_route(&candidate.pattern, &candidate.paid);
        let context = seal_context(&candidate.paid, bought.resource, bought.headers);
        let http_method = priced_method(bought.method);
        let scope = mpp::Scope { tenant: judge.tenant, route: &route, context: &context, http_method };
        let body = if candidate.paid.digest { Body::Bound(bought.body) } else { Body::Any(bought.body) };
        match mpp::opens(challenge, &candidate.realm, &scope, body, judge.mark) {
            Ok(()) => return Ok(candidate),
            // Of another route of the same table: one that fits tells more.
            Err(NotOpened::Scope) => {}
            Err(error) => refused = error,
        }
    }
    Err(refused.into())
}

/// Spec: x402 v2 section 5.1.2: a client may add to an extension's info, and change nothing.
fn echoed_extensions(payment: &v2::PaymentPayload, paid: &Paid) -> Result<(), Refused> {
    let Some(echoed) = &payment.extensions else { return Ok(()) };
    let ours = announced(paid).unwrap_or_default();
    ours.check_echo(echoed).map_err(|_| ErrorCode::ExtensionEchoMismatch.into())
}

/// The payment as its own words have it, if the signature supports them: enough to recognise what was taken before.
fn recognised<'a>(
    shown: &Shown,
    candidates: &'a [Candidate],
    judge: Judge<'_>,
) -> Option<(Checked, &'a Candidate)> {
    let candidate = candidates.first()?;
    let (payload, tokens): (_, Vec<Arc<Token>>) = match shown {
        Shown::V2(payment) => {
            let token = judge.tokens.get(&payment.accepted.asset_id()).cloned();
            (&payment.payload, token.into_iter().collect())
        }
        Shown::V1(payment) => {
            let ways = candidates.iter().flat_map(|candidate| candidate.paid.ways());
            let tokens = ways.map(|way| way.token().clone());
            (&payment.payload, tokens.filter(|token| token.network() == payment.network.network()).collect())
        }
        Shown::Mpp(credential) => {
            // Whether we made the challenge cannot be told once its secret is gone. But the nonce names it, the payer
            // signed that, and what was sold for it is bound to its id: nothing else is found by it.
            let asked = mpp::requirement(&credential.challenge, judge.tokens, Duration::from_secs(1)).ok()?;
            return Some((said_by_itself(shown, &asked, judge)?, candidate));
        }
    };
    let (pay_to, atoms, pull) = match Payload::parse(payload).ok()? {
        Payload::Eip3009 { authorization, .. } => {
            (authorization.to, authorization.value, PullMethod::Eip3009)
        }
        Payload::Permit2 { authorization, .. } => {
            (authorization.witness_to, authorization.amount, PullMethod::Permit2)
        }
    };
    let said = |token: &Arc<Token>| {
        let price = Money::new(token.asset().id.clone(), atoms);
        let asked = Requirement::new(token.clone(), &price, &pay_to, pull, Duration::from_secs(1)).ok()?;
        said_by_itself(shown, &asked, judge)
    };
    let checked =
        best(tokens.into_iter(), |token| said(token).ok_or(Refused { code: String::new() })).ok()?;
    Some((checked, candidate))
}

fn said_by_itself(shown: &Shown, asked: &Requirement, judge: Judge<'_>) -> Option<Checked> {
    let presented = shown.presented(asked).ok()?;
    let policy = Policy::default();
    match check(asked, &presented, judge.now, &policy) {
        Ok(checked) => Some(checked),
        // As it was while it could still be used.
        Err(Refusal { fact: Fact::Expired { at }, .. }) => {
            check(asked, &presented, at.minus(MIN_REMAINING), &policy).ok()
        }
        Err(_) => None,
    }
}

trait Signed {
    fn proven(&self) -> bool;
}

impl Signed for Checked {
    fn proven(&self) -> bool {
        self.signature_status() == SignatureStatus::Proven
    }
}

impl<T> Signed for (Checked, T) {
    fn proven(&self) -> bool {
        self.0.proven()
    }
}

/// The first that a key has signed; else the first that a contract might have; else the first refusal.
fn best<T, R: Signed>(
    all: impl Iterator<Item = T>,
    mut judge: impl FnMut(&T) -> Result<R, Refused>,
) -> Result<R, Refused> {
    let (mut unproven, mut refused) = (None, None);
    for one in all {
        match judge(&one) {
            Ok(checked) if checked.proven() => return Ok(checked),
            Ok(checked) => {
                unproven.get_or_insert(checked);
            }
            Err(error) => {
                refused.get_or_insert(error);
            }
        }
    }
    unproven.ok_or_else(|| refused.unwrap_or_else(|| ErrorCode::InvalidPaymentRequirements.into()))
}

fn admitted(
    checked: &Checked,
    candidate: &Candidate,
    bound: Bound,
    dialect: Dialect,
    bought: Bought<'_>,
    judge: Judge<'_>,
    lapsed: Option<Refused>,
) -> Admitted {
    let paid = candidate.paid.clone();
    let sale = Sale {
        tenant: judge.tenant.clone(),
        key: checked.key(),
        terms: Terms {
            payer: checked.payer(),
            payee: checked.pay_to(),
            money: checked.money().clone(),
            expires: checked.expires(),
            dialect,
            instruction: checked.instruction(),
        },
        binding: binding(&paid, bound, bought),
        flow: paid.flow,
        exposure: paid.exposure.clone(),
        name: None,
    };
    Admitted { sale, by: None, asks_a_read: !checked.proven(), paid, lapsed }
}

/// The method that is priced, and sealed into offers.
pub(crate) fn priced_method(method: &Method) -> &str {
    if method == Method::HEAD { "GET" } else { method.as_str() }
}
