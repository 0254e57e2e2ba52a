//! Offers and challenges: what a request costs, said in all dialects at once.
//!
//! An x402 v2 client reads one header, an MPP client another, a v1 client the body; none minds the others. Nothing is
//! stored: in v2 the offer carries our seal, in MPP the challenge its id, and both come back with the payment.

use std::time::Duration;

use farthing_engine::World;
use farthing_payment::Flow;
use farthing_primitives::{TenantId, Timestamp};
use farthing_rails::exact_evm::Requirement;
use farthing_rails::mpp;
use farthing_rails::offer::{BindingKey, Salt, bind};
use farthing_rails::x402::{self, Extras};
use farthing_wire::Object;
use farthing_wire::mpp::{
    AcceptPayment, BodyDigest, ChallengeSecrets, PaymentRequiredBody, Problem, ProblemType,
};
use farthing_wire::x402::extensions::{EIP2612_GAS_SPONSORING, Eip2612GasSponsoring};
use farthing_wire::x402::{Extensions, Message, v1, v2};
use http::HeaderMap;

use crate::headers::clean_paid_request;
use crate::price::{Offer, Paid, Price, PriceError, PriceHook, Quote};
use crate::session::{Session, scoped};

/// What is said of the thing for sale, beside its price.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Resource<'a> {
    pub url: &'a str,
    pub description: Option<&'a str>,
    pub mime_type: Option<&'a str>,
}

/// What ties an offer to one route, and for a quote to one request.
#[derive(Clone, Copy)]
pub(crate) struct Seal<'a> {
    pub key: &'a BindingKey,
    pub secrets: &'a ChallengeSecrets,
    pub world: &'a dyn World,
    pub tenant: &'a TenantId,
    pub route: &'a str,
    pub context: &'a [u8],
    pub method: &'a str,
}

/// What a challenge says beside x402 v2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside<'a> {
    pub mpp: Option<Speech<'a>>,
    /// Whether the body says what version 1 reads there.
    pub v1_body: bool,
}

/// How MPP is spoken with one client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speech<'a> {
    pub realm: &'a str,
    /// Of the body that came with the unpaid request.
    pub digest: Option<BodyDigest>,
    /// The client logs in by `Authorization`, and must put its payment elsewhere.
    pub own_header: bool,
    /// What it says that it can pay.
    pub accepts: Option<&'a AcceptPayment>,
    /// What the route sells by the unit, if it does.
    pub session: Option<&'a Session>,
    /// The route as our configuration names it.
    pub pattern: &'a str,
}

/// Why a payment is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Why<'a> {
    /// The stable code of what was refused; `None` if nothing was shown.
    pub code: Option<&'a str>,
    /// What MPP calls that.
    pub problem: &'a ProblemType,
    /// What the method adds to the problem.
    pub also: Option<&'a Object>,
}

/// A challenge in all dialects.
#[derive(Debug)]
pub(crate) struct Challenge {
    pub v2: v2::PaymentRequired,
    pub body: PaymentRequiredBody,
    /// One for each way to pay, the most welcome first.
    pub mpp: Vec<farthing_wire::mpp::Challenge>,
}

impl Challenge {
    /// The value of `PAYMENT-REQUIRED`.
    pub fn header(&self) -> String {
        self.v2.to_header()
    }

    /// The values of `WWW-Authenticate`.
    pub fn mpp_headers(&self) -> Vec<String> {
        self.mpp.iter().filter_map(|challenge| challenge.to_header().ok()).collect()
    }

    /// The body that v1 clients read, and readers of problems.
    pub fn body(&self) -> String {
        self.body.print()
    }
}

/// The route's name inside of a seal: what the payer agreed to changes with the order of service and settlement.
pub(crate) fn sealed_route(pattern: &str, paid: &Paid) -> String {
    match paid.flow {
        Flow::Upfront => format!("{pattern} upfront"),
        Flow::Authorization | Flow::Background => pattern.to_owned(),
    }
}

/// What a quote's seal covers beside the route: all that the hook was told of the request that it quoted.
pub(crate) fn seal_context(paid: &Paid, resource: &str, headers: &HeaderMap) -> Vec<u8> {
    let Price::Quoted { hook, .. } = &paid.price else { return Vec::new() };
    let mut context = Vec::new();
    // Each field after its length, so that no two requests make the same bytes.
    let mut field = |bytes: &[u8]| {
        context.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        context.extend_from_slice(bytes);
    };
    field(resource.as_bytes());
    let told = told(hook.as_ref(), headers);
    for name in hook.depends_on() {
        let values: Vec<_> = told.get_all(name).iter().collect();
        field(&(values.len() as u64).to_be_bytes());
        values.iter().for_each(|value| field(value.as_bytes()));
    }
    context
}

/// Those of a request's headers that a hook is told.
pub(crate) fn told(hook: &dyn PriceHook, headers: &HeaderMap) -> HeaderMap {
    let mut told = HeaderMap::new();
    for name in hook.depends_on() {
        for value in headers.get_all(name) {
            told.append(name, value.clone());
        }
    }
    // What the service behind never sees must not set its price, and differs between asking and paying.
    clean_paid_request(&mut told);
    told
}

/// The offers of a quote, in every way that can express its amount.
pub(crate) fn quoted(
    quote: &Quote,
    ways: &[std::sync::Arc<crate::price::Way>],
) -> Result<Vec<Offer>, PriceError> {
    let mut offers = Vec::with_capacity(ways.len());
    for way in ways {
        match way.offer(&quote.amount) {
            Ok(mut offer) => {
                if let Some(pay_to) = &quote.pay_to {
                    offer.pay_to = pay_to.clone();
                }
                offers.push(offer);
            }
            // Dollars have no amount in an asset that does not stand for them; the other ways may.
            Err(PriceError::NotDollars(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(offers)
}

/// Requirements of these offers that hold for `max_timeout`.
pub(crate) fn requirements(
    offers: &[Offer],
    max_timeout: Duration,
) -> Result<Vec<Requirement>, farthing_rails::exact_evm::RequirementError> {
    offers.iter().map(|offer| offer.requirement(max_timeout)).collect()
}

/// Says what the requirements are, and why if a payment was refused.
pub(crate) fn challenge(
    asked: &[Requirement],
    paid: &Paid,
    resource: Resource<'_>,
    seal: Seal<'_>,
    beside: Beside<'_>,
    why: Why<'_>,
    now: Timestamp,
) -> Challenge {
    let error =
        why.code.unwrap_or("PAYMENT-SIGNATURE, X-PAYMENT or Payment-Authorization header is required");
    let v2_offers = asked.iter().map(|requirement| sealed_offer(requirement, paid, seal, now)).collect();
    let mut v2 = v2::PaymentRequired::new(
        v2::ResourceInfo {
            url: resource.url.to_owned(),
            description: resource.description.map(str::to_owned),
            mime_type: resource.mime_type.map(str::to_owned),
            ..v2::ResourceInfo::default()
        },
        v2_offers,
    );
    v2.error = Some(error.to_owned());
    v2.extensions = announced(paid);
    let named = x402::Resource {
        url: resource.url,
        description: resource.description.unwrap_or_default(),
        mime_type: resource.mime_type.unwrap_or_default(),
    };
    let mut v1 = v1::PaymentRequired::new(
        asked.iter().filter_map(|requirement| x402::offer_v1(requirement, named)).collect(),
    );
    v1.error = Some(error.to_owned());
    let mpp = beside.mpp.map_or_else(Vec::new, |speech| spoken(asked, paid, resource, seal, speech, now));
    let mut problem = Problem::new(why.problem.clone(), detail(why));
    problem.challenge_id = mpp.first().map(|challenge| challenge.id.clone());
    if let Some(also) = why.also {
        problem.other = also.clone();
    }
    Challenge { v2, body: PaymentRequiredBody { problem, x402: beside.v1_body.then_some(v1) }, mpp }
}

/// For people.
fn detail(why: Why<'_>) -> String {
    match why.code {
        None => "This resource has a price. Pay by one of the ways that this answer names.".to_owned(),
        Some(code) => format!("The payment is not accepted: {code}."),
    }
}

/// The challenges of MPP for these requirements.
fn spoken(
    asked: &[Requirement],
    paid: &Paid,
    resource: Resource<'_>,
    seal: Seal<'_>,
    speech: Speech<'_>,
    now: Timestamp,
) -> Vec<farthing_wire::mpp::Challenge> {
    let scope = mpp::Scope {
        tenant: seal.tenant,
        route: seal.route,
        context: seal.context,
        http_method: seal.method,
    };
    let description = resource.description.map(one_line);
    let words = mpp::Words {
        realm: speech.realm,
        description: description.as_deref(),
        digest: speech.digest,
        own_header: speech.own_header,
    };
    let make = |requirement: &Requirement| {
        let expires = now.plus(requirement.max_timeout());
        mpp::challenge(seal.secrets, requirement, &paid.credential_types, &scope, words, expires, seal.salt())
    };
    let charges = asked.iter().filter_map(make);
    let others = paid.methods.iter().filter_map(|offer| {
        let expires = now.plus(paid.max_timeout);
        mpp::method_challenge(seal.secrets, offer, &scope, words, expires, seal.salt())
    });
    let session = speech.session.and_then(|session| by_the_unit(session, seal, speech, resource, now));
    let made: Vec<_> = charges.chain(others).chain(session).collect();
    let ranked = speech.accepts.map(|accepts| accepts.rank(made.iter().map(|c| (&c.method, &c.intent))));
    match ranked {
        // Spec: draft-httpauth-payment-00, "Client Payment Preferences": without a match, as if nothing were said.
        Some(order) if !order.is_empty() => order.into_iter().map(|at| made[at].clone()).collect(),
        _ => made,
    }
}

/// The challenge of a session, which is bound to no body and no method: a channel pays for many requests of a route.
fn by_the_unit(
    session: &Session,
    seal: Seal<'_>,
    speech: Speech<'_>,
    resource: Resource<'_>,
    now: Timestamp,
) -> Option<farthing_wire::mpp::Challenge> {
    let route = scoped(speech.pattern);
    let scope = mpp::Scope { tenant: seal.tenant, route: &route, context: &[], http_method: "" };
    let description = resource.description.map(one_line);
    let words = mpp::Words {
        realm: speech.realm,
        description: description.as_deref(),
        digest: None,
        own_header: speech.own_header,
    };
    let expires = now.plus(session.terms().holds);
    mpp::session_challenge(seal.secrets, session.request(), &scope, words, expires, seal.salt())
}

/// A text in one line: no header can hold a line break, nor any other control character.
fn one_line(text: &str) -> String {
    let blank = |c: char| c.is_whitespace() || c.is_control();
    text.split(blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

impl Seal<'_> {
    fn salt(&self) -> Salt {
        let mut salt = [0; 9];
        self.world.random(&mut salt);
        Salt(salt)
    }
}

fn sealed_offer(asked: &Requirement, paid: &Paid, seal: Seal<'_>, now: Timestamp) -> v2::PaymentRequirements {
    let bound = x402::bound(asked, seal.tenant, seal.route, seal.context, seal.method);
    let text = bind(seal.key, &bound, now.plus(asked.max_timeout()), seal.salt());
    x402::offer_v2(asked, Extras { seal: Some(&text), upfront: paid.flow == Flow::Upfront })
}

/// The extensions that we announce with this route's offers.
pub(crate) fn announced(paid: &Paid) -> Option<Extensions> {
    let mut extensions = Extensions::new();
    // Spec: extensions/payment_identifier. Nobody has to: the authorization itself buys once, named or not.
    extensions.announce_payment_identifier(false);
    if !paid.ways().iter().any(|way| way.sponsors_approval()) {
        return Some(extensions);
    }
    let text = |pattern: &str| Object::new().with("type", "string").with("pattern", pattern);
    let properties = Object::new()
        .with("from", text("^0x[a-fA-F0-9]{40}$"))
        .with("asset", text("^0x[a-fA-F0-9]{40}$"))
        .with("spender", text("^0x[a-fA-F0-9]{40}$"))
        .with("amount", text("^[0-9]+$"))
        .with("nonce", text("^[0-9]+$"))
        .with("deadline", text("^[0-9]+$"))
        .with("signature", text("^0x[a-fA-F0-9]+$"))
        .with("version", text("^[0-9]+(\\.[0-9]+)*$"));
    let schema = Object::new().with("type", "object").with("properties", properties);
    extensions.insert(EIP2612_GAS_SPONSORING, Eip2612GasSponsoring::announcement(), schema);
    Some(extensions)
}
