//! Paying once, and finding out what became of it.

use std::time::Duration;

use farthing_engine::ConflictKind;
use farthing_primitives::{PurchaseId, Timestamp};
use farthing_wire::x402::ErrorCode;
use farthing_wire::{Limits, mpp};
use http::{StatusCode, header};

use super::challenge::{Challenge, Receipt, check_receipt, is_mpp};
use super::exchange::{Answer, Body, HttpRequest, SendError, printable};
use super::plan::{Unpaid, request_hash, same_origin_target, whole};
use super::session::lags_behind;
use super::{
    Asked, AskedAnswer, Client, FetchError, MAX_REDIRECTS, Options, Outcome, Payment, Plan, Settlement, Step,
};
use crate::chain_view::Sight;
use crate::journal::{self, Goods, Header, Purchase, State};
use crate::offer::Offer;
use crate::purse::Brought;

/// How often a payment is shown to a seller whose handler fails, if asking again is harmless.
const SHOWN_TO_FAILING: u32 = 3;

/// The longest pause that a seller can ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// As a gateway of ours says that another copy of a payment is being answered.
const IN_PROGRESS: &str = ConflictKind::InProgress.code();

/// The longest refusal whose code is looked for.
const MAX_CONFLICT: Limits = Limits { bytes: 16 * 1024, values: 128, members: 128 };

/// A refusal.
struct No {
    reason: String,
    /// Whether the payment was shown before, and may have been taken then.
    in_doubt: bool,
}

/// What one showing of a payment came to.
enum Shown {
    Served,
    Refused(String),
    /// Nothing is known, or nothing is final.
    Open {
        why: String,
        seller: Seller,
        /// It says in a receipt that it charged nothing.
        not_charged: bool,
    },
    Redirected(url::Url),
}

/// What a seller does who has no answer for us.
#[derive(Clone, Copy)]
enum Seller {
    /// It is at work, or cannot be reached.
    AtWork,
    Failing,
}

impl Client {
    /// Asks; if the answer is a price that the wallet's owner allows, pays the cheapest offer, once.
    ///
    /// # Errors
    /// [`FetchError`] if nothing was shown to a seller. After that, everything is an [`Outcome`].
    pub async fn fetch(&self, request: HttpRequest, options: &Options) -> Result<Outcome, FetchError> {
        let deadline = self.deadline();
        let unpaid = self.ask(request, options, deadline).await?;
        if unpaid.answer.status != StatusCode::PAYMENT_REQUIRED {
            return Ok(Outcome::Free(whole(unpaid.answer)?));
        }
        let plan = self.plan(unpaid, options).await?;
        self.pay(plan, options, deadline).await
    }

    /// The same; but a payment that an earlier call left open for exactly this request is shown again instead of another
    /// being made.
    pub async fn fetch_once(&self, request: HttpRequest, options: &Options) -> Result<Outcome, FetchError> {
        if options.dry_run {
            return self.fetch(request, options).await;
        }
        self.inner.authorizer.recover().await?;
        if let Some(outcome) = self.again(&request, options).await? {
            return Ok(outcome);
        }
        let deadline = self.deadline();
        let asked = request_hash(&request);
        let unpaid = self.ask(request, options, deadline).await?;
        if unpaid.answer.status != StatusCode::PAYMENT_REQUIRED {
            return Ok(Outcome::Free(whole(unpaid.answer)?));
        }
        // What is paid for is named by where the redirects led.
        if request_hash(&unpaid.request) != asked
            && let Some(outcome) = self.again(&unpaid.request, options).await?
        {
            return Ok(outcome);
        }
        let plan = self.plan(unpaid, options).await?;
        self.pay(plan, options, deadline).await
    }

    /// Goes on from the answer that `request` got unpaid, by whoever asked: if it is a price that the wallet's owner
    /// allows, pays the cheapest offer, once. Whoever wants an earlier payment shown again calls
    /// [`Client::resume_any`] before it asks.
    ///
    /// # Errors
    /// [`FetchError`] if nothing was shown to a seller. After that, everything is an [`Outcome`].
    pub async fn pay_for(
        &self,
        request: HttpRequest,
        answer: Answer,
        options: &Options,
    ) -> Result<Outcome, FetchError> {
        if answer.status != StatusCode::PAYMENT_REQUIRED {
            return Ok(Outcome::Free(whole(answer)?));
        }
        let deadline = self.deadline();
        let plan = self.plan(Unpaid { request, answer }, options).await?;
        self.pay(plan, options, deadline).await
    }

    /// Shows what an earlier call paid for one of these requests and left open, `None` if there is no
    /// such payment, and they may be paid for.
    ///
    /// Whoever asks several sellers and takes one of them asks this first: today another might be the best.
    pub async fn resume_any(
        &self,
        requests: &[HttpRequest],
        options: &Options,
    ) -> Result<Option<Outcome>, FetchError> {
        self.inner.authorizer.recover().await?;
        for request in requests {
            if let Some(outcome) = self.again(request, options).await? {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    /// Says that the answer of a payment is where whoever paid wanted it: see [`Options::acknowledged`].
    pub async fn received(&self, id: &PurchaseId) -> Result<(), FetchError> {
        Ok(self.inner.authorizer.received(id).await?)
    }

    /// Shows the payment that an earlier call left open for exactly this request, if there is one.
    async fn again(&self, request: &HttpRequest, options: &Options) -> Result<Option<Outcome>, FetchError> {
        let abandoned = self.inner.authorizer.abandoned(Some(&request_hash(request))).await?;
        // The latest: earlier ones were followed by it, so somebody wanted it besides.
        let Some(earlier) = abandoned.into_iter().next_back() else { return Ok(None) };
        options.tell(&Step::Resuming(&earlier));
        self.resume(&earlier.id, Some(request.clone()), options).await.map(Some)
    }

    /// The same as [`Client::take`]; but a payment that an earlier call left open for exactly this request is shown again
    /// instead of another being made.
    pub async fn take_once(&self, asked: Asked, options: &Options) -> Result<Outcome, FetchError> {
        if let AskedAnswer::Priced(plan) = &asked.answer
            && !options.dry_run
            && let Some(outcome) = self.again(&plan.request, options).await?
        {
            return Ok(outcome);
        }
        self.take(asked, options).await
    }

    /// Takes what one seller of [`Client::compare`] offered: the free answer, or the best permitted offer.
    pub async fn take(&self, asked: Asked, options: &Options) -> Result<Outcome, FetchError> {
        match asked.answer {
            AskedAnswer::Free(answer) => Ok(Outcome::Free(whole(*answer)?)),
            AskedAnswer::Priced(plan) => {
                let deadline = self.deadline();
                self.pay(*plan, options, deadline).await
            }
            AskedAnswer::Failed(error) => Err(error),
        }
    }

    /// Pays what a plan chose; or says what it would pay, in a dry run.
    async fn pay(&self, plan: Plan, options: &Options, deadline: Duration) -> Result<Outcome, FetchError> {
        if options.dry_run {
            return Ok(Outcome::Planned(plan));
        }
        let Some(chosen) = plan.chosen() else { return Ok(Outcome::Denied { plan, denied: None }) };
        if matches!(chosen.intent.offer, Offer::Session(_)) {
            return self.pay_session(plan, options, deadline).await;
        }
        let authorization = match self.inner.authorizer.authorize(chosen.intent.clone()).await {
            Ok(authorization) => authorization,
            Err(denied) => return Ok(Outcome::Denied { plan, denied: Some(denied) }),
        };
        options.tell(&Step::Authorized(&authorization));
        let request = plan.request;
        let purchase = self.inner.authorizer.purchase(&authorization.id).await?;
        self.show(request, purchase, Some(authorization.decision), options, deadline).await
    }

    /// Shows an earlier payment again and signs nothing. `request` is what it was made for; `None` is enough where
    /// that had no body and no headers of its own.
    pub async fn resume(
        &self,
        id: &PurchaseId,
        request: Option<HttpRequest>,
        options: &Options,
    ) -> Result<Outcome, FetchError> {
        let purchase = self.inner.authorizer.purchase(id).await?;
        let request = match request {
            Some(request) => request,
            None => HttpRequest {
                method: purchase.method.parse().map_err(|_| FetchError::OtherRequest)?,
                ..HttpRequest::get(purchase.url.parse().map_err(|_| FetchError::OtherRequest)?)
            },
        };
        if request_hash(&request) != purchase.request_hash {
            return Err(FetchError::OtherRequest);
        }
        if purchase.header.is_none() || purchase.state == State::Released {
            return Err(FetchError::NothingToShow(purchase.state));
        }
        let deadline = self.deadline();
        self.show(request, purchase, None, options, deadline).await
    }

    pub(super) async fn show(
        &self,
        mut request: HttpRequest,
        purchase: Purchase,
        decision: Option<farthing_policy::Decision>,
        options: &Options,
        deadline: Duration,
    ) -> Result<Outcome, FetchError> {
        let id = purchase.id;
        let harmless = request.method.is_safe();
        let mut payment = Payment {
            id,
            money: purchase.money.clone(),
            payee: purchase.payee.clone(),
            payer: purchase.payer.clone(),
            expires: purchase.expires,
            earlier: decision.is_none().then_some(purchase.created),
            decision,
            settlement: Settlement::Unproven,
            tx: purchase.tx.clone(),
            receipt: None,
            shown: 0,
            streamed: false,
            resumed: super::Resumed::default(),
            note: None,
        };
        let origin = farthing_policy::Origin::of(&request.url)?;
        let reach = self.reach(&origin, options).await?;
        let mut pause = self.inner.patience.first_pause;
        let (mut redirects, mut raises) = (0, 0);
        // Whether an earlier showing may have been taken: nothing came of it that says otherwise.
        let mut in_doubt = purchase.shown > 0;
        loop {
            payment.shown += 1;
            options.tell(&Step::Presenting { id, time: payment.shown });
            // INVARIANT: the same payment, every time. Nothing in this loop can sign.
            let header = match self.inner.authorizer.present(&id).await {
                Ok(header) => header,
                Err(error) if payment.shown > 1 => {
                    return Ok(Outcome::Unknown { answer: None, payment, why: error.to_string() });
                }
                Err(error) => return Err(error.into()),
            };
            // By its name the seller knows the request again, and gives what was bought a second time.
            if is_mpp(&header.name)
                && !request.headers.contains_key(mpp::header::IDEMPOTENCY_KEY)
                && let Ok(value) = id.to_string().parse()
            {
                request.headers.insert(mpp::header::IDEMPOTENCY_KEY, value);
            }
            let (mut ended, mut streamed) = (None, false);
            let sent = match purchase.channel {
                None => self.send(&request, Some(&header), reach, deadline).await,
                Some(_) => {
                    let sent =
                        self.send_metered(&request, &header, &purchase, reach, options, deadline).await;
                    sent.map(|metered| {
                        (ended, streamed) = (metered.ended, metered.streamed);
                        payment.streamed |= streamed;
                        payment.resumed = metered.resumed;
                        metered.answer
                    })
                }
            };
            match &sent {
                Ok(answer) => options.tell(&Step::Paid(answer)),
                Err(error) => options.tell(&Step::NoAnswer(error)),
            }
            let receipt = match (&sent, purchase.channel) {
                (Ok(answer), None) => {
                    Receipt::read(&answer.headers, &header.name, purchase.money.asset().network())
                }
                // That of a session is about its channel.
                (Ok(_), Some(_)) | (Err(_), _) => Receipt::None,
            };
            payment.receipt = receipt.json().or(payment.receipt);
            payment.tx = receipt.tx().map(|tx| tx.to_string()).or(payment.tx);
            let session = purchase.channel.map(|_| streamed);
            match judge(&request, &header, &sent, &receipt, options.follow, session) {
                Shown::Served => {
                    let Ok(answer) = sent else { continue };
                    match purchase.channel {
                        None => self.settle(&purchase, &receipt, &answer, &mut payment, options).await,
                        Some(_) => {
                            let how = (streamed, ended.as_deref());
                            self.settle_session(&purchase, &answer, how, options, &mut payment).await;
                        }
                    }
                    return Ok(Outcome::Paid { answer, payment });
                }
                Shown::Refused(reason) => {
                    let Ok(answer) = sent else { continue };
                    if purchase.channel.is_some() {
                        let now = self.inner.world.monotonic();
                        if lags_behind(&answer)
                            && payment.shown < self.inner.patience.presentations
                            && now.saturating_add(pause) < deadline
                        {
                            options.tell(&Step::Pausing { why: &reason, pause });
                            self.inner.world.sleep(pause).await;
                            pause = (pause * 2).min(self.inner.patience.longest_pause);
                            continue;
                        }
                        let covered = self.cover(&answer, &purchase, &mut raises, options, deadline).await;
                        let reason = match covered {
                            // The same purchase, with a voucher that covers it.
                            Some(Ok(_)) => continue,
                            Some(Err(error)) => format!("{reason}; not covered: {error}"),
                            None => reason,
                        };
                        return Ok(self.refuse_session(&purchase, reason, answer, payment).await);
                    }
                    let no = No { reason, in_doubt };
                    return Ok(self.refuse(&purchase, &receipt, no, answer, payment).await);
                }
                Shown::Redirected(url) if redirects < MAX_REDIRECTS => {
                    redirects += 1;
                    // It may have taken the payment, and have put the goods elsewhere.
                    in_doubt = true;
                    request.url = url;
                }
                Shown::Redirected(_) => {
                    let Ok(answer) = sent else { continue };
                    let no = No { reason: "redirected too often".to_owned(), in_doubt };
                    return Ok(self.refuse(&purchase, &receipt, no, answer, payment).await);
                }
                Shown::Open { why, seller, not_charged } => {
                    let again = match seller {
                        Seller::AtWork => self.inner.patience.presentations,
                        Seller::Failing if harmless => {
                            self.inner.patience.presentations.min(SHOWN_TO_FAILING)
                        }
                        // A handler that failed half way must not be started again.
                        Seller::Failing => 1,
                    };
                    let asked = sent.as_ref().ok().and_then(retry_after);
                    let wait = asked.unwrap_or(pause).max(pause);
                    let now = self.inner.world.monotonic();
                    // A stream that broke off would begin anew: whoever wants that asks again.
                    let last = streamed || payment.shown >= again || now.saturating_add(wait) >= deadline;
                    // Its word frees nothing, as that of a refusal; but what it says is no secret either.
                    if last && not_charged {
                        let Ok(answer) = sent else { continue };
                        let no = No { reason: why, in_doubt };
                        return Ok(self.refuse(&purchase, &receipt, no, answer, payment).await);
                    }
                    in_doubt |= !not_charged;
                    let unknown = journal::Outcome::Unknown {
                        tx: payment.tx.clone(),
                        goods: Goods::Missing,
                        receipt: payment.receipt.clone(),
                        note: why.clone(),
                    };
                    self.conclude(&id, unknown, &mut payment).await;
                    if last {
                        let answer = sent.ok().filter(|answer| answer.body.complete().is_some());
                        return Ok(Outcome::Unknown { answer, payment, why });
                    }
                    options.tell(&Step::Pausing { why: &why, pause: wait });
                    self.inner.world.sleep(wait).await;
                    pause = (pause * 2).min(self.inner.patience.longest_pause);
                }
            }
        }
    }

    /// The goods are here: how much is known of the money?
    async fn settle(
        &self,
        purchase: &Purchase,
        receipt: &Receipt,
        answer: &Answer,
        payment: &mut Payment,
        options: &Options,
    ) {
        let mut note = None;
        let settlement = match receipt {
            Receipt::None => Settlement::Unproven,
            Receipt::Unreadable(why) => Settlement::Contradicted(why.clone()),
            Receipt::Said(said) if said.is_pending() => Settlement::Unproven,
            Receipt::Said(said) => match check_receipt(said, purchase) {
                Err(mismatch) => Settlement::Contradicted(mismatch.to_string()),
                Ok(tx) => match self.look(purchase, tx).await {
                    None | Some(Sight::Unavailable) => Settlement::Claimed,
                    Some(Sight::Settled { tx }) => {
                        // The seller may know of an earlier variant only.
                        payment.tx = Some(tx.to_string());
                        Settlement::Confirmed
                    }
                    // The authorization is gone, if not by this transaction.
                    Some(Sight::Used) => Settlement::Contradicted(
                        "the chain knows the payment by another transaction than the seller".to_owned(),
                    ),
                    Some(Sight::Unused { .. }) => {
                        Settlement::Contradicted("the chain does not show the payment".to_owned())
                    }
                },
            },
        };
        // Goods that weigh nothing are for the owner to judge; they are not bought again.
        let empty = answer.body.complete().is_some_and(|body| body.is_empty());
        if empty && answer.status != StatusCode::NO_CONTENT && purchase.method != "HEAD" {
            note = Some("paid_and_empty".to_owned());
        }
        let goods = match answer.body.complete() {
            None => Goods::Missing,
            Some(_) if options.acknowledged => Goods::InHand,
            Some(_) => Goods::Delivered,
        };
        if let Body::TooLarge { limit } = answer.body {
            note = Some(format!("paid_and_longer_than_{limit}_bytes"));
        }
        let outcome = match &settlement {
            Settlement::Confirmed | Settlement::Claimed => journal::Outcome::Settled {
                tx: payment.tx.clone(),
                confirmed: settlement == Settlement::Confirmed,
                goods,
                receipt: payment.receipt.clone(),
                note: note.clone(),
            },
            Settlement::Unproven | Settlement::Contradicted(_) => journal::Outcome::Unknown {
                tx: payment.tx.clone(),
                goods,
                receipt: payment.receipt.clone(),
                note: note.clone().unwrap_or_else(|| match &settlement {
                    Settlement::Contradicted(why) => format!("receipt_contradicted: {why}"),
                    _ => "delivered_without_receipt".to_owned(),
                }),
            },
        };
        payment.settlement = settlement;
        payment.note = note;
        self.conclude(&purchase.id, outcome, payment).await;
    }

    /// The seller refused. What it says frees nothing; what the chain says is worth asking for.
    async fn refuse(
        &self,
        purchase: &Purchase,
        receipt: &Receipt,
        No { reason, in_doubt }: No,
        answer: Answer,
        mut payment: Payment,
    ) -> Outcome {
        // It may refuse because it, or another copy of it, took the payment when it was shown before: to a seller that
        // knows no better that is a replay. Only the chain can say that nobody did.
        let taken =
            in_doubt || says_used(receipt) || refusal_code(&answer).is_some_and(|code| is_taken(&code));
        let looked = match receipt.tx() {
            Some(tx) => self.look(purchase, tx).await,
            None if taken || payment.shown > 1 => Some(self.sight(purchase, None).await),
            None => None,
        };
        let confirmed = matches!(looked, Some(Sight::Settled { .. }));
        if let Some(Sight::Settled { tx }) = looked {
            payment.tx = Some(tx.to_string());
        }
        // Unused so far is not unused: a transaction of the seller's may be on its way until the authorization has ended.
        let proven = looked.is_some_and(|sight| sight.proves_unused(purchase.expires));
        let gone = looked == Some(Sight::Used) || (taken && !proven);
        let outcome = if confirmed || receipt.said().is_some_and(|said| said.success) {
            payment.settlement = if confirmed { Settlement::Confirmed } else { Settlement::Claimed };
            payment.note = Some("paid_without_goods".to_owned());
            journal::Outcome::Settled {
                tx: payment.tx.clone(),
                confirmed,
                goods: Goods::Missing,
                receipt: payment.receipt.clone(),
                note: payment.note.clone(),
            }
        } else if gone && purchase.state == State::Settled {
            // That it was paid is known; that the goods are gone, too.
            let confirmed = purchase.confirmed;
            payment.settlement = if confirmed { Settlement::Confirmed } else { Settlement::Claimed };
            payment.note = Some("paid_without_goods".to_owned());
            return Outcome::Refused { answer, payment, reason };
        } else if gone {
            let (tx, receipt) = (payment.tx.clone(), payment.receipt.clone());
            let unknown =
                journal::Outcome::Unknown { tx, goods: Goods::Missing, receipt, note: reason.clone() };
            self.conclude(&purchase.id, unknown, &mut payment).await;
            return Outcome::Unknown { answer: Some(answer), payment, why: reason };
        } else {
            journal::Outcome::Refused { receipt: payment.receipt.clone(), note: reason.clone() }
        };
        self.conclude(&purchase.id, outcome, &mut payment).await;
        Outcome::Refused { answer, payment, reason }
    }

    /// The seller refused what a voucher pays for. What was vouched is not spent, and pays for the next request.
    async fn refuse_session(
        &self,
        purchase: &Purchase,
        reason: String,
        answer: Answer,
        mut payment: Payment,
    ) -> Outcome {
        let outcome = match answer.status {
            // It was served before, and is not kept: nobody can be asked for it any more.
            StatusCode::CONFLICT => journal::Outcome::Settled {
                tx: None,
                confirmed: false,
                goods: Goods::Delivered,
                receipt: None,
                note: Some(reason.clone()),
            },
            _ => journal::Outcome::Refused { receipt: None, note: reason.clone() },
        };
        let brought = Brought { outcome, receipt: None, served: false, streamed: false, is_whole: false };
        self.conclude_session(&purchase.id, brought, &mut payment).await;
        // Is the channel over, and we did not know?
        if answer.status == StatusCode::GONE
            && let Some(channel) = purchase.channel
            && let Err(error) = self.look_at_channel(&channel).await
        {
            tracing::warn!(%channel, %error, "a channel that is said to be over cannot be looked at");
        }
        Outcome::Refused { answer, payment, reason }
    }

    /// Writes down what is known. If that fails, the purchase stays as it was: reserved, and open.
    async fn conclude(&self, id: &PurchaseId, outcome: journal::Outcome, payment: &mut Payment) {
        if let Err(error) = self.inner.authorizer.conclude(id, outcome).await {
            tracing::error!(%id, %error, "the outcome of a purchase could not be written down");
            payment.note = Some("outcome_not_written_down".to_owned());
        }
    }
}

/// What an answer to a payment means. Only a complete answer with a status of success is service; only a clear no is a
/// refusal; everything else is open. `session` is there if a voucher paid, and says whether for a stream.
fn judge(
    request: &HttpRequest,
    header: &Header,
    sent: &Result<Answer, SendError>,
    receipt: &Receipt,
    follow: bool,
    session: Option<bool>,
) -> Shown {
    let at_work = |why: String| Shown::Open { why, seller: Seller::AtWork, not_charged: false };
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) => return at_work(error.to_string()),
    };
    let status = answer.status;
    if status.is_success() {
        return match answer.body {
            Body::Complete(_) | Body::TooLarge { .. } => Shown::Served,
            // What came of a stream is what was bought.
            Body::Truncated(_) if session == Some(true) => Shown::Served,
            Body::Truncated(_) => at_work("the answer broke off".to_owned()),
        };
    }
    // Spec: x402, `settlement_pending`: ask again with the identical payment, never sign a second.
    if receipt.is_pending() {
        return at_work("settlement_pending".to_owned());
    }
    match status.as_u16() {
        // Another copy of it is being answered.
        409 if refusal_code(answer).as_deref() == Some(IN_PROGRESS) => at_work(IN_PROGRESS.to_owned()),
        402 => Shown::Refused(reason(answer, receipt, header)),
        301 | 302 | 303 | 307 | 308 => match same_origin_target(request, answer).filter(|_| follow) {
            Some(url) => Shown::Redirected(url),
            None => Shown::Refused(format!("redirected ({status})")),
        },
        // The same request is being served already.
        409 if session.is_some() && answer.headers.contains_key(header::RETRY_AFTER) => {
            at_work(status.to_string())
        }
        408 | 425 | 429 | 500..=599 => {
            let not_charged = receipt.said().is_some_and(|said| !said.success);
            let seller = match status.as_u16() {
                500 | 501 | 505.. => Seller::Failing,
                // It may be on its way through a gateway still; unless the gateway says that it is not.
                502 | 504 if not_charged => Seller::Failing,
                _ => Seller::AtWork,
            };
            let why = if not_charged { reason(answer, receipt, header) } else { status.to_string() };
            Shown::Open { why, seller, not_charged }
        }
        _ => Shown::Refused(reason(answer, receipt, header)),
    }
}

/// Whether the seller says that the authorization is used up. Its nonce is ours alone, so it can only have been used for
/// this payment.
fn says_used(receipt: &Receipt) -> bool {
    let reason = receipt.said().and_then(|said| said.error_reason.as_ref());
    matches!(reason, Some(ErrorCode::InvalidExactEvmNonceAlreadyUsed | ErrorCode::Permit2InvalidNonce))
}

/// The code of a refusal that a gateway of ours says in the body of its answer.
fn refusal_code(answer: &Answer) -> Option<String> {
    if answer.status != StatusCode::CONFLICT {
        return None;
    }
    let body = answer.body.complete().filter(|body| body.len() <= MAX_CONFLICT.bytes)?;
    let said = farthing_wire::json::parse(body, MAX_CONFLICT).ok()?;
    said.as_object()?.get_str("error").map(str::to_owned)
}

/// Whether a code says that the payment was taken: for what we asked, or for what another copy of it asked.
fn is_taken(code: &str) -> bool {
    [ConflictKind::UsedUp, ConflictKind::OtherRequest].into_iter().any(|kind| kind.code() == code)
}

/// Why the seller says no: a code if there is one, else its words, cut short. For people and logs; decides nothing.
fn reason(answer: &Answer, receipt: &Receipt, header: &Header) -> String {
    if let Some(code) = receipt.said().and_then(|said| said.error_reason.as_ref()) {
        return printable(code.as_str());
    }
    let said = if is_mpp(&header.name) {
        let body = answer.body.complete().and_then(|body| mpp::Problem::parse(body).ok());
        body.map(|problem| if problem.detail.is_empty() { problem.title } else { problem.detail })
    } else {
        Challenge::read(answer, Timestamp::from_secs(0)).ok().and_then(|challenge| challenge.error)
    };
    let said = said.filter(|text| !text.is_empty() && !text.contains(&header.value));
    said.map_or_else(|| answer.status.to_string(), |text| printable(&text).chars().take(200).collect())
}

/// Spec: RFC 9110 section 10.2.3; only the form in seconds.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs).map(|asked| asked.min(MAX_RETRY_AFTER))
}
