//! Asking without paying, and choosing what to pay.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::Duration;

use farthing_approval::GrantAsk;
use farthing_evm::U256;
use farthing_policy::{Charge, Decision, Names, Origin, named_by};
use farthing_primitives::{Network, PullMethod, RequestHash, Timestamp};
use farthing_wire::x402::WireError;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use sha2::{Digest, Sha256};
use url::Url;

use super::challenge::Challenge;
use super::exchange::{Answer, Body, HttpRequest, Reach};
use super::{Client, FetchError, MAX_REDIRECTS, Options, Sessions, Step};
use crate::authorizer::{Denied, Intent, Ticket};
use crate::offer::Offer;
use crate::purse::Quote;

/// How many sellers one call may compare.
pub const MAX_SELLERS: usize = 32;
/// How many of them are asked at once.
const SELLERS_AT_ONCE: usize = 8;

/// Everything that a seller would be paid by, and what the wallet thinks of each.
#[derive(Debug)]
pub struct Plan {
    /// Who really asks, after redirects.
    pub url: Url,
    pub origin: Origin,
    /// In the seller's order.
    pub considered: Vec<Considered>,
    /// The cheapest permitted offer, by its place in `considered`.
    pub best: Option<usize>,
    /// Offers that we cannot read.
    pub unreadable: Vec<WireError>,
    /// What the seller says to people. Decides nothing.
    pub error: Option<String>,
    pub(super) request: HttpRequest,
    /// What came of asking people, where a rule wants their approval and the caller wants them asked.
    pub ticket: Option<Result<Ticket, Denied>>,
}

impl Plan {
    pub fn chosen(&self) -> Option<&Considered> {
        self.best.and_then(|best| self.considered.get(best))
    }
}

/// An offer, and what stands against it.
#[derive(Debug)]
pub struct Considered {
    pub intent: Intent,
    /// `None` if the registry does not know the token.
    pub charge: Option<Charge>,
    pub objection: Option<Objection>,
    /// Present if the policy allows it.
    pub decision: Option<Decision>,
    /// What it takes besides, if it is a session that is permitted.
    pub session: Option<Quote>,
}

/// Why an offer is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Objection {
    #[error("{0}")]
    Denied(Denied),
    #[error("the wallet has {has} atoms of {needs} needed")]
    Funds { has: u128, needs: u128 },
    #[error(
        "Permit2 may take {has} atoms of {needs} needed, and the seller sponsors no approval that could be signed"
    )]
    Allowance { has: U256, needs: u128 },
}

impl Objection {
    /// A stable name for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::Denied(denied) => denied.code(),
            Self::Funds { .. } => "insufficient_funds",
            Self::Allowance { .. } => "permit2_allowance_required",
        }
    }
}

/// One seller of several, as it answered.
#[derive(Debug)]
pub struct Asked {
    pub url: Url,
    pub answer: AskedAnswer,
}

#[derive(Debug)]
pub enum AskedAnswer {
    /// It asks for nothing.
    Free(Box<Answer>),
    Priced(Box<Plan>),
    Failed(FetchError),
}

impl Asked {
    /// The charge of the best permitted offer.
    pub fn best(&self) -> Option<&Charge> {
        if let AskedAnswer::Priced(plan) = &self.answer {
            plan.chosen().and_then(|chosen| chosen.charge.as_ref())
        } else {
            None
        }
    }
}

/// An answer to an unpaid request, and the request that it really answers.
pub(super) struct Unpaid {
    pub request: HttpRequest,
    pub answer: Answer,
}

impl Client {
    /// Asks, following redirects if told to, and pays nothing.
    pub(super) async fn ask(
        &self,
        mut request: HttpRequest,
        options: &Options,
        deadline: Duration,
    ) -> Result<Unpaid, FetchError> {
        for _ in 0..=MAX_REDIRECTS {
            let origin = Origin::of(&request.url)?;
            let reach = self.reach(&origin, options).await?;
            options.tell(&Step::Asking(&request));
            let answer = self.send(&request, None, reach, deadline).await?;
            options.tell(&Step::Answered(&answer));
            let Some(target) = target(&answer).filter(|_| options.follow) else {
                return Ok(Unpaid { request, answer });
            };
            let next = redirect(&request, answer.status, &target?)?;

            let next_origin = Origin::of(&next.url)?;
            // Where it leads is a stranger's word, also if nobody reads it.
            if next_origin.host != origin.host {
                let mut names = Names::default();
                names.hosts.insert(next_origin.host.clone());
                self.inner.authorizer.mention(&names, &named_by(&origin.authority(), None)).await?;
            }
            let credentials_dropped = next_origin != origin;
            options.tell(&Step::Redirected { to: super::shown(&next.url), credentials_dropped });
            request = next;
        }
        Err(FetchError::Redirects)
    }

    /// How far a request to `origin` may go.
    pub(super) async fn reach(&self, origin: &Origin, options: &Options) -> Result<Reach, FetchError> {
        let private = options.allow_private || self.inner.authorizer.may_reach_private(origin).await?;
        Ok(if private { Reach::Anywhere } else { Reach::Public })
    }

    /// What a 402 would cost, and whether it may be paid.
    pub(super) async fn plan(&self, unpaid: Unpaid, options: &Options) -> Result<Plan, FetchError> {
        let Unpaid { request, answer } = unpaid;
        let challenge = match Challenge::read(&answer, self.inner.world.now()) {
            Ok(challenge) => challenge,
            Err(error) => return Err(FetchError::Challenge { error, answer: Box::new(answer) }),
        };
        let origin = Origin::of(&request.url)?;
        let hash = request_hash(&request);
        let mut considered = Vec::with_capacity(challenge.offers.len());
        let mut times: BTreeMap<Network, Option<Timestamp>> = BTreeMap::new();
        for offer in challenge.offers {
            let is_session = matches!(offer, Offer::Session(_));
            if (options.sessions == Sessions::Never && is_session)
                || (options.sessions == Sessions::Only && !is_session)
            {
                continue;
            }
            // One header cannot hold both what logs us in and what pays.
            let own_header = match &offer {
                Offer::Mpp(offer) => Some(offer.credential_header()),
                Offer::Session(offer) => Some(offer.credential_header()),
                Offer::V1(_) | Offer::V2(_) => None,
            };
            if let Some(name) = own_header.and_then(|name| name.parse::<HeaderName>().ok())
                && request.headers.contains_key(&name)
            {
                continue;
            }
            let network = offer.money().asset().network().clone();
            let view = self.view(&network);
            let chain_time = match (view, times.get(&network)) {
                (None, _) => None,
                (Some(_), Some(time)) => *time,
                (Some(view), None) => *times.entry(network).or_insert(view.time().await),
            };
            let intent = Intent {
                offer,
                origin: origin.clone(),
                private: answer.private,
                method: request.method.to_string(),
                url: request.url.to_string(),
                request_hash: hash,
                body: Some(Sha256::digest(&request.body).into()),
                tool: options.tool.clone(),
                max: options.max.clone(),
                only: options.only.clone(),
                devnet: view.is_some_and(|view| view.is_devnet()),
                chain_time,
                permit_nonce: None,
                deposit: options.deposit.clone(),
            };
            considered.push(self.consider(intent).await);
        }
        let mut plan = Plan {
            url: request.url.clone(),
            origin,
            considered,
            best: None,
            unreadable: challenge.unreadable,
            error: challenge.error,
            request,
            ticket: None,
        };
        self.choose(&mut plan).await;
        if options.ask_people && !options.dry_run && plan.best.is_none() {
            plan.ticket = self.ask_people(&plan, options.grant.as_ref()).await;
        }
        options.tell(&Step::Challenged(&plan));
        Ok(plan)
    }

    /// Asks people for the cheapest offer that they alone stand in the way of.
    async fn ask_people(&self, plan: &Plan, grant: Option<&GrantAsk>) -> Option<Result<Ticket, Denied>> {
        let waits = |considered: &&Considered| match &considered.objection {
            Some(Objection::Denied(Denied::Policy(decision))) => decision.asks_for_approval().is_some(),
            _ => false,
        };
        let cheapest = plan.considered.iter().filter(waits);
        let cheapest = cheapest.min_by(|a, b| compare(a.charge.as_ref(), b.charge.as_ref()))?;
        Some(match grant {
            None => self.inner.authorizer.ask_people(&cheapest.intent).await,
            Some(grant) => self.inner.authorizer.ask_for_grant(&cheapest.intent, grant).await,
        })
    }

    async fn consider(&self, intent: Intent) -> Considered {
        let charge = Charge::of(self.inner.authorizer.registry(), intent.offer.money()).ok();
        if matches!(intent.offer, Offer::Session(_)) {
            return match self.consider_session(&intent).await {
                Ok(quote) if quote.decision.is_allowed() => {
                    let decision = Some(quote.decision.clone());
                    Considered { intent, charge, objection: None, decision, session: Some(quote) }
                }
                Ok(quote) => {
                    let denied = Objection::Denied(Denied::Policy(Box::new(quote.decision)));
                    Considered { intent, charge, objection: Some(denied), decision: None, session: None }
                }
                Err(objection) => {
                    Considered { intent, charge, objection: Some(objection), decision: None, session: None }
                }
            };
        }
        let (decision, objection) = match self.inner.authorizer.preview(&intent).await {
            Ok(decision) if decision.is_allowed() => (Some(decision), None),
            Ok(decision) => (None, Some(Objection::Denied(Denied::Policy(Box::new(decision))))),
            Err(denied) => (None, Some(Objection::Denied(denied))),
        };
        Considered { intent, charge, objection, decision, session: None }
    }

    /// Finds the cheapest permitted offer that can be funded, as far as a chain can be asked.
    async fn choose(&self, plan: &mut Plan) {
        let mut order: Vec<usize> =
            (0..plan.considered.len()).filter(|i| plan.considered[*i].objection.is_none()).collect();
        // The sort is stable: of equals, a channel that is open comes first and one that would have to be opened last,
        // before that what needs no allowance, then what the seller named first. What is priced by a unit whose number
        // nobody knows compares with nothing.
        order.sort_by(|a, b| {
            let (a, b) = (&plan.considered[*a], &plan.considered[*b]);
            let rank = |c: &Considered| match &c.session {
                Some(quote) if quote.channel.is_some() => 0,
                Some(_) => 3,
                None => 1 + u8::from(c.intent.offer.pays_by_permit2(&self.inner.tokens)),
            };
            let unknown = |c: &Considered| match &c.intent.offer {
                Offer::Session(offer) => !offer.is_by_request(),
                _ => false,
            };
            let by_price = || compare(a.charge.as_ref(), b.charge.as_ref());
            unknown(a).cmp(&unknown(b)).then_with(by_price).then(rank(a).cmp(&rank(b)))
        });
        for i in order {
            match self.fund(&mut plan.considered[i].intent).await {
                Some(objection) => plan.considered[i].objection = Some(objection),
                None => {
                    plan.best = Some(i);
                    return;
                }
            }
        }
    }

    /// Whether the wallet can pay this, by what the chain says; prepares an approval where one is needed.
    async fn fund(&self, intent: &mut Intent) -> Option<Objection> {
        // A session's deposit was looked at before.
        if matches!(intent.offer, Offer::Session(_)) {
            return None;
        }
        let money = intent.offer.money();
        let view = self.view(money.asset().network())?;
        let payer = self.inner.authorizer.payer();
        let needs = money.atoms();
        // What the chain cannot say now, the seller's facilitator will.
        if let Some(has) = view.balance(money.asset(), payer).await
            && has < needs
        {
            return Some(Objection::Funds { has, needs });
        }
        let method = intent.offer.requirement(&self.inner.tokens).ok()?.method();
        if method == PullMethod::Permit2
            && let Some(state) = view.permit2(money.asset(), payer).await
            && state.allowance < U256::from(needs)
        {
            match state.nonce.filter(|_| intent.offer.sponsors_approval()) {
                Some(nonce) => intent.permit_nonce = Some(nonce),
                None => return Some(Objection::Allowance { has: state.allowance, needs }),
            }
        }
        None
    }

    /// Asks several sellers, unpaid and at once, and says who is best: what is free, else the cheapest permitted.
    ///
    /// The answers are in the order of the requests.
    pub async fn compare(
        &self,
        requests: Vec<HttpRequest>,
        options: &Options,
    ) -> Result<(Vec<Asked>, Option<usize>), FetchError> {
        if requests.is_empty() || requests.len() > MAX_SELLERS {
            return Err(FetchError::Sellers);
        }
        let deadline = self.deadline();
        let asked: Vec<Asked> = futures_util::stream::iter(requests)
            .map(|request| async move {
                let url = request.url.clone();
                Asked { url, answer: self.quote(request, options, deadline).await }
            })
            .buffered(SELLERS_AT_ONCE)
            .collect()
            .await;
        let free = asked.iter().position(
            |asked| matches!(&asked.answer, AskedAnswer::Free(answer) if answer.status.is_success()),
        );
        let best = free.or_else(|| {
            let priced = (0..asked.len()).filter(|i| asked[*i].best().is_some());
            priced.min_by(|a, b| compare(asked[*a].best(), asked[*b].best()))
        });
        Ok((asked, best))
    }

    async fn quote(&self, request: HttpRequest, options: &Options, deadline: Duration) -> AskedAnswer {
        let unpaid = match self.ask(request, options, deadline).await {
            Ok(unpaid) => unpaid,
            Err(error) => return AskedAnswer::Failed(error),
        };
        if unpaid.answer.status != StatusCode::PAYMENT_REQUIRED {
            return AskedAnswer::Free(Box::new(unpaid.answer));
        }
        match self.plan(unpaid, options).await {
            Ok(plan) => AskedAnswer::Priced(Box::new(plan)),
            Err(error) => AskedAnswer::Failed(error),
        }
    }
}

/// Cheapest first. Dollars compare with dollars and an asset with itself; what cannot be compared comes after dollars,
/// and stays in its order.
pub(crate) fn compare(a: Option<&Charge>, b: Option<&Charge>) -> Ordering {
    let (Some(a), Some(b)) = (a, b) else { return b.is_some().cmp(&a.is_some()) };
    match (a.dollars(), b.dollars()) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) if a.money().asset() == b.money().asset() => a.money().atoms().cmp(&b.money().atoms()),
        (None, None) => Ordering::Equal,
    }
}

/// Names a request: method, URL, body, and the caller's own `Idempotency-Key`. The journal finds by it what was paid for.
pub fn request_hash(request: &HttpRequest) -> RequestHash {
    let mut hash = Sha256::new();
    hash.update(b"farthing purchase v1");
    for part in [request.method.as_str().as_bytes(), request.url.as_str().as_bytes(), &request.body] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    // Whoever names two requests differently means two purchases. Sellers tell them apart too.
    for key in request.headers.get_all("idempotency-key") {
        hash.update((key.len() as u64).to_be_bytes());
        hash.update(key.as_bytes());
    }
    RequestHash(hash.finalize().into())
}

/// Where an answer sends us, if it does.
fn target(answer: &Answer) -> Option<Result<Url, FetchError>> {
    if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers.get(header::LOCATION)?;
    let url = location.to_str().ok().and_then(|text| answer.url.join(text).ok());
    Some(url.ok_or(FetchError::BadRedirect))
}

/// What may go along to another origin: nothing that could be a credential.
const HARMLESS: [HeaderName; 4] =
    [header::ACCEPT, header::ACCEPT_LANGUAGE, header::CONTENT_TYPE, header::USER_AGENT];

/// The request that a redirect asks for.
///
/// Spec: RFC 9110 section 15.4: 303 becomes GET; 301 and 302 do for POST, as everywhere.
fn redirect(request: &HttpRequest, status: StatusCode, target: &Url) -> Result<HttpRequest, FetchError> {
    let becomes_get = match status.as_u16() {
        303 => request.method != Method::HEAD,
        301 | 302 => request.method == Method::POST,
        _ => false,
    };
    let mut next = HttpRequest { url: target.clone(), ..request.clone() };
    if becomes_get {
        next.method = Method::GET;
        next.body = bytes::Bytes::new();
        next.headers.remove(header::CONTENT_TYPE);
        next.headers.remove(header::CONTENT_LENGTH);
    }
    if Origin::of(target)? != Origin::of(&request.url)? {
        if !next.body.is_empty() {
            return Err(FetchError::BodyElsewhere);
        }
        let mut kept = HeaderMap::new();
        for name in HARMLESS {
            if let Some(value) = next.headers.get(&name) {
                kept.insert(name, value.clone());
            }
        }
        next.headers = kept;
    }
    Ok(next)
}

/// Where a paid request may be repeated: at its own origin only.
pub(super) fn same_origin_target(request: &HttpRequest, answer: &Answer) -> Option<Url> {
    let target = target(answer)?.ok()?;
    let kept = matches!(answer.status.as_u16(), 307 | 308) || request.method != Method::POST;
    let same = Origin::of(&target).ok()? == Origin::of(&request.url).ok()?;
    (kept && same).then_some(target)
}

/// An unpaid answer as it is handed out.
pub(super) fn whole(answer: Answer) -> Result<Answer, FetchError> {
    match answer.body {
        Body::TooLarge { limit } => Err(FetchError::TooLarge { limit }),
        Body::Truncated(_) => Err(FetchError::Truncated),
        Body::Complete(_) => Ok(answer),
    }
}
