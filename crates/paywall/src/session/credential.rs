//! One credential of a session: what it opens here, and what it does.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use farthing_channel::{ChannelId, Receipt as State, Shown};
use farthing_engine::{Closed, OpenBy, Opening, Seller, Till, TillError, TopUp, TopUpBy, TxHash};
use farthing_evm::escrow::Pull;
use farthing_evm::{B256, U256};
use farthing_payment::TxRef;
use farthing_primitives::Address;
use farthing_rails::mpp::{self, Body as Bound, NotOpened};
use farthing_wire::mpp::evm::{
    ChannelWitness, DepositFor, Funding, Open, SessionPayload, TopUp as MoreFunds, Voucher,
};
use farthing_wire::mpp::{
    BodyDigest, Credential, IntentName, MethodName, Payload, ProblemType, Receipt, SessionReceipt, WireTime,
    header,
};
use farthing_wire::{Object, Uint256};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use tower::Service;

use super::refuse::{Told, is_payers, told};
use super::{Session, scoped};
use crate::answer;
use crate::body::{self, BoxError};
use crate::headers::make_private;
use crate::limit::Hold;
use crate::offer::Why;
use crate::price::{Paid, Route};
use crate::route::RouteTable;
use crate::service::{Answer, Visit, realm};

/// Whether a credential is one of a session: by what it says, which is not believed yet.
pub(crate) fn is_session(credential: &Credential) -> bool {
    let challenge = &credential.challenge;
    challenge.method.as_str() == MethodName::EVM && challenge.intent.as_str() == IntentName::SESSION
}

/// Why nothing is done.
#[derive(Debug)]
pub(super) enum Refused {
    Till(TillError),
    /// Before anything of the channel was looked at.
    Code(&'static str, ProblemType),
}

impl From<TillError> for Refused {
    fn from(error: TillError) -> Self {
        Self::Till(error)
    }
}

/// A credential that a challenge of ours opens, and what it is about.
pub(super) struct Paying<'a> {
    pub till: &'a Till,
    pub session: &'a Session,
    pub seller: Seller,
    pub channel: ChannelId,
    /// The challenge that it answers.
    pub challenge: &'a str,
    pub client: Option<IpAddr>,
}

/// A voucher that came along.
pub(super) struct Signed {
    pub cumulative: u128,
    pub signature: Vec<u8>,
}

impl Paying<'_> {
    /// A voucher as the till looks at it: by the steps that its own challenge asks for.
    pub fn shown<'a>(&self, voucher: &'a Signed) -> Shown<'a> {
        self.signed(voucher.cumulative, &voucher.signature)
    }

    fn signed<'a>(&self, cumulative: u128, signature: &'a [u8]) -> Shown<'a> {
        let min_delta = self.session.terms().min_voucher_delta;
        Shown { channel: self.channel, cumulative, signature, min_delta }
    }
}

impl Visit {
    /// A request that shows a credential of a session.
    pub(crate) async fn session<S, B, R>(
        &self,
        inner: S,
        request: Request<B>,
        credential: &Credential,
        client: Option<IpAddr>,
    ) -> Answer
    where
        S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + From<Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
        R: Body<Data = Bytes> + Send + 'static,
        R::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let Some(till) = self.shared.till.get() else { return answer::unavailable("session_unavailable") };
        let opened = self.opened(credential, &parts);
        let (session, payload) = match opened.and_then(|session| Ok((session, payload(credential)?))) {
            Ok(read) => read,
            // Nothing is held of a body for whoever shows no challenge of ours.
            Err(refused) => {
                return match self.digest(&parts.headers, body).await {
                    Ok(digest) => self.told(&parts, digest, refused, None, client).await,
                    Err(answer) => answer,
                };
            }
        };
        let (body, hold) = match self.spool(&parts.headers, body).await {
            Ok(spooled) => spooled,
            Err(answer) => return answer,
        };
        let channel = ChannelId(*payload.channel_id());
        let paying = Paying {
            till,
            session: &session,
            seller: Seller {
                tenant: self.shared.tenant.clone(),
                payee: session.payee().clone(),
                asset: session.asset().clone(),
            },
            channel,
            challenge: &credential.challenge.id,
            client,
        };
        match self.act(&paying, credential, payload, (&parts, &body)).await {
            Ok(Acted::Answer(answer)) => answer,
            Ok(Acted::Buys(_)) if !self.own_method => answer::error(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "nothing is sold by this method here",
            ),
            Ok(Acted::Buys(voucher)) => self.buy(inner, &paying, &voucher, parts, (body, hold)).await,
            Err(refused) => self.turned_away(&parts, &body, refused, Some(channel), client).await,
        }
    }

    /// The session that a credential's challenge opens on this route, if the challenge is ours.
    ///
    /// Spec: draft-evm-session-00, "Common Verification" 3 to 5. What was asked for is what it says: a route that asks
    /// for something else by now has replaced it, and is remembered for as long as its challenges hold.
    pub(super) fn opened(&self, credential: &Credential, parts: &Parts) -> Result<Arc<Session>, Refused> {
        let challenge = &credential.challenge;
        let not_found = |code| Refused::Code(code, ProblemType::ChallengeNotFound);
        if !mpp::is_ours(&self.shared.secrets, challenge) {
            return Err(not_found(NotOpened::NotOurs.code()));
        }
        let mut refused = NotOpened::Scope;
        for (pattern, session, realm) in self.sessions(parts) {
            let route = scoped(&pattern);
            let scope =
                mpp::Scope { tenant: &self.shared.tenant, route: &route, context: &[], http_method: "" };
            match mpp::opens(challenge, &realm, &scope, Bound::Any(&[]), self.shared.clock.now()) {
                Ok(()) if challenge.request == *session.request() => return Ok(session),
                Ok(()) | Err(NotOpened::Scope) => {}
                Err(error) => refused = error,
            }
        }
        Err(match refused {
            NotOpened::Ended(_) => not_found(refused.code()),
            other => Refused::Code(other.code(), other.problem()),
        })
    }

    /// The route's session as it is, and as it was while challenges of that time still hold, each with the realm that its
    /// challenges name.
    fn sessions(&self, parts: &Parts) -> Vec<(Arc<str>, Arc<Session>, String)> {
        let mut all = Vec::new();
        if let Some(session) = &self.paid.session {
            all.push((self.pattern.clone(), session.clone(), self.realm(parts)));
        }
        let now = self.shared.clock.now();
        for (_, old) in self.current.old.iter().filter(|(until, _)| *until > now) {
            let sold = sold_by_the_unit(&old.terms.routes, &parts.method, parts.uri.path());
            all.extend(sold.map(|(pattern, session)| (pattern, session, realm(&old.terms, parts))));
        }
        all
    }

    pub(super) async fn act(
        &self,
        paying: &Paying<'_>,
        credential: &Credential,
        payload: SessionPayload,
        (parts, body): (&Parts, &Bytes),
    ) -> Result<Acted, Refused> {
        let manages = is_management(&payload, parts, body);
        // The chain is asked about each, for whoever comes.
        if deposits(&payload)
            && !self.shared.contract_payments.admit(paying.client, self.shared.world.monotonic())
        {
            return Ok(Acted::Answer(answer::too_many("too many deposits from here")));
        }
        match payload {
            SessionPayload::Open(open) => {
                let state = self.open(paying, credential, &open).await?;
                let voucher = Signed { cumulative: open.cumulative, signature: open.voucher_signature };
                Ok(if manages { self.managed(paying, Some(&state), None) } else { Acted::Buys(voucher) })
            }
            SessionPayload::TopUp(more) => {
                let (tx, state) = self.top_up(paying, &more).await?;
                Ok(self.managed(paying, state.as_ref(), tx.as_ref()))
            }
            SessionPayload::Voucher(voucher) => {
                if voucher.deposit.is_some() {
                    self.deposit(paying, &voucher).await?;
                }
                let signed = Signed { cumulative: voucher.cumulative, signature: voucher.signature };
                if !manages {
                    return Ok(Acted::Buys(signed));
                }
                let state = paying.till.voucher(&paying.seller, &paying.shown(&signed)).await?;
                Ok(self.managed(paying, Some(&state), None))
            }
            SessionPayload::Close { cumulative, signature, .. } => {
                let signed = Signed { cumulative, signature };
                let closed = paying.till.close(&paying.seller, &paying.shown(&signed)).await?;
                Ok(self.closed(paying, &closed))
            }
        }
    }

    /// Spec: draft-evm-session-00, "Open Verification".
    async fn open(
        &self,
        paying: &Paying<'_>,
        credential: &Credential,
        open: &Open,
    ) -> Result<State, Refused> {
        let session = paying.session;
        let (payer, by) = match &open.funding {
            Funding::Hash(hash) => {
                accepted(session, &open.funding)?;
                // Spec: draft-evm-session-00, "Credential Structure": with a hash, the source says who paid.
                let source = credential.source.as_ref().and_then(|source| source.account());
                let payer = source.filter(|(network, _)| *network == session.network());
                let payer = payer.ok_or(Refused::Code("source_missing", ProblemType::BadRequest))?;
                (payer.1.clone(), OpenBy::Hash(TxHash(*hash)))
            }
            funding => {
                let Pulled { from, amount: deposit, pull } = pulled(session, funding)?;
                (from, OpenBy::Pull { deposit, pull })
            }
        };
        let shown = paying.signed(open.cumulative, &open.voucher_signature);
        let opening = Opening {
            seller: &paying.seller,
            escrow: session.terms().escrow.clone(),
            limits: session.terms().limits,
            payer,
            salt: open.salt,
            authorized_signer: open.authorized_signer.clone(),
            shown,
            by,
        };
        Ok(paying.till.open(&opening).await?)
    }

    /// Money that comes with a voucher, before the voucher is looked at.
    ///
    /// Spec: draft-evm-session-00, "Voucher Payload" and "Voucher Verification" 2: if the deposit fails, so does all.
    async fn deposit(&self, paying: &Paying<'_>, voucher: &Voucher) -> Result<(), Refused> {
        let Some(deposit) = &voucher.deposit else { return Ok(()) };
        let Pulled { from, amount, pull } = pulled(paying.session, &deposit.funding)?;
        match &deposit.for_what {
            DepositFor::Open { salt, authorized_signer } => {
                let shown = paying.signed(voucher.cumulative, &voucher.signature);
                let opening = Opening {
                    seller: &paying.seller,
                    escrow: paying.session.terms().escrow.clone(),
                    limits: paying.session.terms().limits,
                    payer: from,
                    salt: *salt,
                    authorized_signer: authorized_signer.clone(),
                    shown,
                    by: OpenBy::Pull { deposit: amount, pull },
                };
                paying.till.open(&opening).await?;
            }
            DepositFor::TopUp { salt } => {
                let by = TopUpBy::Pull { from, salt: salt.unwrap_or_default(), pull };
                let more = TopUp { seller: &paying.seller, channel: paying.channel, additional: amount, by };
                paying.till.top_up(&more).await?;
            }
        }
        Ok(())
    }

    /// Spec: draft-evm-session-00, "TopUp Verification".
    ///
    /// Whoever tops up has shown no signature of the channel's, so the amounts are told to its payer alone, whose
    /// signature the token has just accepted.
    async fn top_up(
        &self,
        paying: &Paying<'_>,
        more: &MoreFunds,
    ) -> Result<(Option<TxRef>, Option<State>), Refused> {
        let (by, from) = match &more.funding {
            Funding::Hash(hash) => {
                accepted(paying.session, &more.funding)?;
                (TopUpBy::Hash(TxHash(*hash)), None)
            }
            funding => {
                let Pulled { from, pull, .. } = pulled(paying.session, funding)?;
                let salt = more.salt.unwrap_or_default();
                (TopUpBy::Pull { from: from.clone(), salt, pull }, Some(from))
            }
        };
        let top_up = TopUp {
            seller: &paying.seller,
            channel: paying.channel,
            additional: more.additional_deposit,
            by,
        };
        let done = paying.till.top_up(&top_up).await?;
        let payee = paying.till.channel(&paying.seller, paying.channel).await?;
        let state = from.filter(|from| *from == payee.terms().payer).map(|_| State {
            accepted: payee.accepted(),
            spent: payee.spent(),
            units: payee.units(),
            deposit: payee.deposit(),
            settled: payee.settled(),
        });
        Ok((done.tx, state))
    }

    /// 204 and the receipt: the upstream is left alone.
    fn managed(&self, paying: &Paying<'_>, state: Option<&State>, tx: Option<&TxRef>) -> Acted {
        let mut answer = Response::new(body::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        make_private(answer.headers_mut());
        match state {
            Some(state) => self.put_state(answer.headers_mut(), paying, state, None, tx),
            // Spec: draft-httpauth-payment-00, "Payment-Receipt Header": a receipt of every success, with what may be told.
            None => {
                let channel = paying.channel.to_string();
                let time = WireTime::from(self.shared.world.now());
                let mut receipt = Receipt::new(MethodName::EVM, channel, time);
                receipt.challenge_id = Some(paying.challenge.to_owned());
                receipt.other = Object::new()
                    .with("chainId", paying.session.chain_id)
                    .with_some("txHash", tx.map(TxRef::as_str));
                put(answer.headers_mut(), &receipt);
            }
        }
        Acted::Answer(answer)
    }

    /// Spec: draft-evm-session-00, "Cooperative Close" 3 and 4: closed is what the chain says is.
    fn closed(&self, paying: &Paying<'_>, closed: &Closed) -> Acted {
        if closed.finalized {
            return self.managed(paying, Some(&closed.receipt), closed.tx.as_ref());
        }
        let tx = closed.tx.as_ref().map(TxRef::as_str).unwrap_or_default();
        let object = Object::new()
            .with("error", "close_pending")
            .with("message", "the channel is being closed: ask again with the same voucher")
            .with("channelId", paying.channel.to_string())
            .with("transaction", tx);
        let mut answer = answer::json(StatusCode::SERVICE_UNAVAILABLE, object);
        answer.headers_mut().insert(http::header::RETRY_AFTER, answer::RETRY_PENDING_SECS.into());
        Acted::Answer(answer)
    }

    /// Spec: draft-evm-session-00, "Receipt Generation": on every success; `units` are those of this request.
    pub(super) fn put_state(
        &self,
        headers: &mut HeaderMap,
        paying: &Paying<'_>,
        state: &State,
        units: Option<u64>,
        tx: Option<&TxRef>,
    ) {
        let words = Words::of(paying, tx);
        put(headers, &words.receipt(state, units, WireTime::from(self.shared.world.now())));
    }

    /// Says what is wrong; with fresh challenges where a payment would mend it.
    pub(super) async fn turned_away(
        &self,
        parts: &Parts,
        body: &[u8],
        refused: Refused,
        channel: Option<ChannelId>,
        client: Option<IpAddr>,
    ) -> Answer {
        self.told(parts, self.digest_of(body), refused, channel, client).await
    }

    /// The same, for a body that was hashed and is not held.
    async fn told(
        &self,
        parts: &Parts,
        digest: Option<BodyDigest>,
        refused: Refused,
        channel: Option<ChannelId>,
        client: Option<IpAddr>,
    ) -> Answer {
        let told = match &refused {
            Refused::Till(error) => told(error, channel.unwrap_or(ChannelId([0; 32]))),
            Refused::Code(code, kind) => Told::Problem {
                kind: kind.clone(),
                code: (*code).to_owned(),
                also: channel.map_or_else(Object::new, |id| Object::new().with("channelId", id.to_string())),
            },
        };
        if !matches!(&refused, Refused::Till(error) if !is_payers(error)) {
            self.refused(client);
        }
        if let Some(answer) = told.answer() {
            return answer;
        }
        let Told::Problem { kind, code, also } = told else {
            return answer::unavailable("session_unavailable");
        };
        let why = Why { code: Some(&code), problem: &kind, also: Some(&also) };
        self.challenge_for(parts, digest, why).await
    }
}

/// What a credential led to.
pub(super) enum Acted {
    Answer(Answer),
    /// It pays for what is asked.
    Buys(Signed),
}

/// What a receipt says beside the channel's state.
#[derive(Debug, Clone)]
pub(super) struct Words {
    challenge: String,
    channel: ChannelId,
    chain_id: u64,
    tx: Option<[u8; 32]>,
}

impl Words {
    pub fn of(paying: &Paying<'_>, tx: Option<&TxRef>) -> Self {
        Self {
            challenge: paying.challenge.to_owned(),
            channel: paying.channel,
            chain_id: paying.session.chain_id,
            // A transaction's hash is spelled as a channel's id is.
            tx: tx.and_then(|tx| tx.as_str().parse::<ChannelId>().ok()).map(|id| id.0),
        }
    }

    pub fn channel(&self) -> ChannelId {
        self.channel
    }

    pub fn receipt(&self, state: &State, units: Option<u64>, timestamp: WireTime) -> Receipt {
        let receipt = SessionReceipt {
            method: MethodName::EVM.to_owned(),
            timestamp,
            challenge_id: self.challenge.clone(),
            channel_id: self.channel.0,
            chain_id: Some(self.chain_id),
            accepted_cumulative: state.accepted,
            spent: state.spent,
            units,
            tx_hash: self.tx,
        };
        receipt.to_receipt()
    }
}

fn put(headers: &mut HeaderMap, receipt: &Receipt) {
    if let Ok(value) = HeaderValue::from_str(&receipt.to_header()) {
        headers.insert(header::PAYMENT_RECEIPT, value);
    }
}

/// Spec: draft-evm-session-00, "Error Responses": a malformed payload is 400.
pub(super) fn payload(credential: &Credential) -> Result<SessionPayload, Refused> {
    match credential.payload() {
        Ok(Payload::EvmSession(payload)) => Ok(*payload),
        Ok(_) => Err(Refused::Code("invalid_payload", ProblemType::BadRequest)),
        Err(error) => {
            tracing::debug!(%error, "a session's payload cannot be read");
            Err(Refused::Code("invalid_payload", ProblemType::BadRequest))
        }
    }
}

/// Whether a request only manages its channel, as the published package tells it: the upstream is not called then.
fn is_management(payload: &SessionPayload, parts: &Parts, body: &Bytes) -> bool {
    let about_the_channel = matches!(payload, SessionPayload::TopUp(_) | SessionPayload::Close { .. });
    let empty_post = parts.method == Method::POST && body.is_empty() && parts.uri.query().is_none();
    about_the_channel || parts.method == Method::HEAD || empty_post
}

fn deposits(payload: &SessionPayload) -> bool {
    match payload {
        SessionPayload::Open(_) | SessionPayload::TopUp(_) => true,
        SessionPayload::Voucher(voucher) => voucher.deposit.is_some(),
        SessionPayload::Close { .. } => false,
    }
}

/// A deposit that its owner lets us bring.
struct Pulled {
    from: Address,
    amount: u128,
    pull: Pull,
}

/// Spec: draft-evm-session-00, "Method Details": what is not offered is not taken.
fn accepted(session: &Session, funding: &Funding) -> Result<(), Refused> {
    if session.terms().credential_types.contains(&funding.kind()) {
        Ok(())
    } else {
        Err(Refused::Code("credential_type_not_accepted", ProblemType::InvalidPayload))
    }
}

/// Reads what we are to submit, and holds it to what was asked for. The token and the escrow check the rest before
/// anything is sent: a call that would revert costs no gas.
///
/// Spec: draft-evm-session-00, "Open Payload (feePayer: true)".
fn pulled(session: &Session, funding: &Funding) -> Result<Pulled, Refused> {
    accepted(session, funding)?;
    let mismatch = || Refused::Code("authorization_mismatch", ProblemType::VerificationFailed);
    match funding {
        Funding::Hash(_) => Err(Refused::Code("invalid_payload", ProblemType::BadRequest)),
        Funding::Authorization { authorization, signature } => {
            if authorization.to != session.terms().escrow {
                return Err(mismatch());
            }
            let pull = Pull::Authorization {
                valid_after: number(authorization.valid_after),
                valid_before: number(authorization.valid_before),
                nonce: B256::from(authorization.nonce),
                signature: signature.clone().into(),
            };
            Ok(Pulled { from: authorization.from.clone(), amount: authorization.value, pull })
        }
        Funding::Permit2 { permit, signature } => {
            let pays_us = match &permit.witness {
                ChannelWitness::Open { payee, .. } => payee == session.payee(),
                ChannelWitness::TopUp { .. } => true,
            };
            if !pays_us || permit.permitted.token != *session.asset().address() {
                return Err(mismatch());
            }
            let pull = Pull::Permit2 {
                nonce: number(permit.nonce),
                deadline: number(permit.deadline),
                signature: signature.clone().into(),
            };
            Ok(Pulled { from: permit.from.clone(), amount: permit.permitted.amount, pull })
        }
    }
}

fn number(value: Uint256) -> U256 {
    U256::from_be_bytes(value.to_be_bytes())
}

/// What is kept while a session's request is served.
pub(super) type Kept = (Bytes, Hold);

/// The methods that a route is looked for by, where a credential came by another than its own.
const OTHER_METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The routes with a session on this path: that of the request's own method first.
///
/// Spec: draft-evm-session-00, "Voucher Submission Transport": to the same URI, by any method.
pub(crate) fn routes_with_sessions(
    routes: &RouteTable<Route>,
    method: &Method,
    path: &str,
) -> Vec<(Arc<str>, Arc<Paid>)> {
    let mut all: Vec<(Arc<str>, Arc<Paid>)> = Vec::new();
    for method in std::iter::once(method).chain(&OTHER_METHODS) {
        let Ok(found) = routes.find(method, path) else { continue };
        if let Some((pattern, Route::Paid(paid))) = found.route
            && paid.session.is_some()
            && !all.iter().any(|(_, known)| Arc::ptr_eq(known, paid))
        {
            all.push((pattern.to_string().into(), paid.clone()));
        }
    }
    all
}

fn sold_by_the_unit(
    routes: &RouteTable<Route>,
    method: &Method,
    path: &str,
) -> impl Iterator<Item = (Arc<str>, Arc<Session>)> {
    let routes = routes_with_sessions(routes, method, path).into_iter();
    routes.filter_map(|(pattern, paid)| Some((pattern, paid.session.clone()?)))
}
