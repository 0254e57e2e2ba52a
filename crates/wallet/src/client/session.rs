//! Paying by the unit: deposits, vouchers and streams.
//!
//! A request is paid by the same code as any other, with a voucher in its header: shown again as often as it takes, and
//! asked for by its name. What is different comes before, the deposit, and while a stream goes on, more vouchers.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use farthing_channel::{ChannelId, Need, PayerState, Receipt as State};
use farthing_primitives::{Network, PurchaseId};
use farthing_wire::mpp::sse::{self, Event, NeedVoucher};
use farthing_wire::mpp::{self, Problem, ProblemType};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::exchange::{Answer, Body, HttpRequest, Opened, Reach, SendError};
use super::last_id::LastId;
use super::plan::Considered;
use super::{Client, FetchError, Objection, Options, Outcome, Pieces, Plan, Resumed, Settlement, Step};
use crate::authorizer::{Denied, Intent};
use crate::journal::channels::{AttemptState, KeptChannel, STREAMS};
use crate::journal::{self, Goods, Header, Purchase};
use crate::offer::{Offer, OfferSession};
use crate::purse::{Answered, Brought, Deposit, Purse, Quote, SessionDenied, Spent};

/// How many channels of the same parties are looked at for a number that is free on the chain.
const MOST_NUMBERS: u64 = 64;
/// How often the way to an open channel is begun anew: another process may come between.
const TRIES: usize = 4;
/// How often a stream that broke off is asked for again.
const MOST_RESUMED: u32 = 5;
const LAST_EVENT_ID: http::HeaderName = http::HeaderName::from_static("last-event-id");
/// By which a gateway of ours says how many events come again, for nothing.
const REPLAYED: http::HeaderName = http::HeaderName::from_static("x-farthing-replayed");
/// How often one request tops a channel up.
const TOP_UPS: usize = 2;
/// How often a request's voucher is raised because it did not cover what the request may cost.
const RAISES: u32 = 3;

/// How sessions are chosen among the offers of one 402.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sessions {
    /// As any other offer, by price. What is priced by a unit whose number nobody knows comes last.
    #[default]
    ByPrice,
    /// No other offer is taken.
    Only,
    Never,
}

/// What became of a showing that brings no goods.
enum Managed {
    Done(Option<(State, String)>),
    /// A clear no.
    Refused(String),
    /// Nothing is known.
    Open(String),
}

impl Client {
    pub(super) fn purse(&self) -> Result<&dyn Purse, Denied> {
        self.inner.authorizer.purse().ok_or(Denied::Unavailable)
    }

    /// What a session would take, and what stands against it.
    pub(super) async fn consider_session(&self, intent: &Intent) -> Result<Quote, Objection> {
        let denied = Objection::Denied;
        let Offer::Session(offer) = &intent.offer else {
            return Err(denied(SessionDenied::NoSession.into()));
        };
        let purse = self.purse().map_err(denied)?;
        let network = &offer.session().network;
        // What the escrow holds and what is at its address has to be looked at.
        let view = self.view(network).ok_or(denied(SessionDenied::NoChain.into()))?;
        let funds = view.balance(&offer.session().asset_id(), self.inner.authorizer.payer()).await;
        let quote = purse.quote(intent, funds).await.map_err(denied)?;
        if let Some(deposit) = &quote.deposit
            && let Some(has) = funds
            && has < deposit.atoms()
        {
            return Err(Objection::Funds { has, needs: deposit.atoms() });
        }
        Ok(quote)
    }

    /// Pays for a request from a channel, which is opened first if there is none.
    pub(super) async fn pay_session(
        &self,
        plan: Plan,
        options: &Options,
        deadline: Duration,
    ) -> Result<Outcome, FetchError> {
        let Some(chosen) = plan.chosen() else { return Ok(Outcome::Denied { plan, denied: None }) };
        let intent = chosen.intent.clone();
        let spent = self.vouch(&intent, options, deadline).await;
        let authorization = match spent {
            Ok(authorization) => authorization,
            Err(FetchError::Denied(denied)) => return Ok(Outcome::Denied { plan, denied: Some(denied) }),
            Err(error) => return Err(error),
        };
        options.tell(&Step::Authorized(&authorization));
        let purchase = self.inner.authorizer.purchase(&authorization.id).await?;
        self.show(plan.request, purchase, Some(authorization.decision), options, deadline).await
    }

    async fn vouch(
        &self,
        intent: &Intent,
        options: &Options,
        deadline: Duration,
    ) -> Result<crate::authorizer::Authorization, FetchError> {
        let purse = self.purse()?;
        let channel = self.channel_for(intent, options, deadline).await?.id();
        for _ in 0..=TOP_UPS {
            match purse.spend(intent, &channel).await? {
                Spent::Ready(authorization) => return Ok(*authorization),
                Spent::NeedsTopUp { missing } => {
                    let deposit = purse.top_up(intent, &channel, missing).await?;
                    self.bring(&deposit, options, deadline).await?;
                }
            }
        }
        Err(FetchError::Deposit { channel, why: "the deposit is still too small".to_owned() })
    }

    /// The open channel for an offer; opens it if there is none.
    pub async fn channel_for(
        &self,
        intent: &Intent,
        options: &Options,
        deadline: Duration,
    ) -> Result<KeptChannel, FetchError> {
        let purse = self.purse()?;
        let Offer::Session(offer) = &intent.offer else {
            return Err(Denied::from(SessionDenied::NoSession).into());
        };
        let no_chain = || FetchError::from(Denied::from(SessionDenied::NoChain));
        let view = self.view(&offer.session().network).ok_or_else(no_chain)?;
        let escrow = offer.session().escrow.address().clone();
        purse.lapse().await?;
        for _ in 0..TRIES {
            if let Some(kept) = purse.usable(intent).await? {
                if *kept.payer.state() == PayerState::Open {
                    return Ok(kept);
                }
                // Somebody opens it, or did when it was stopped: the same deposit is brought.
                let kept = match kept.payer.pending() {
                    Some(pending) => {
                        let deposit = Deposit { channel: kept.id(), attempt: pending.id, decision: None };
                        self.bring(&deposit, options, deadline).await?
                    }
                    None => self.look_at_channel(&kept.id()).await?,
                };
                if *kept.payer.state() == PayerState::Open {
                    return Ok(kept);
                }
                continue;
            }
            let facts = view.escrow(&escrow).await.ok_or_else(no_chain)?;
            let mut from = 0;
            let number = loop {
                let (number, id) = purse.candidate(intent, from).await?;
                // The id of a channel that ended never comes again, also where our memory of it is lost.
                let sight = view.channel(&escrow, &id).await.ok_or_else(no_chain)?;
                if sight.latest.is_none() {
                    break number;
                }
                if from >= MOST_NUMBERS {
                    let why = "too many channels are on the chain that the journal lost".to_owned();
                    return Err(FetchError::Deposit { channel: id, why });
                }
                from = number.saturating_add(1);
            };
            let funds = view.balance(&offer.session().asset_id(), self.inner.authorizer.payer()).await;
            if let Some(deposit) = purse.open(intent, number, facts, funds).await? {
                let kept = self.bring(&deposit, options, deadline).await?;
                if *kept.payer.state() == PayerState::Open {
                    return Ok(kept);
                }
            }
        }
        Err(Denied::from(SessionDenied::NotUsable("opened and closed again and again")).into())
    }

    /// Brings a deposit: shows it to the seller, where it was signed for, and looks at the chain until it is there. What
    /// is shown again is the same.
    async fn bring(
        &self,
        deposit: &Deposit,
        options: &Options,
        deadline: Duration,
    ) -> Result<KeptChannel, FetchError> {
        let purse = self.purse()?;
        let channel = deposit.channel;
        let failed = |why: String| FetchError::Deposit { channel, why };
        let mut pause = self.inner.patience.first_pause;
        let mut shown = 0;
        loop {
            let kept = purse.channel(&channel).await?;
            let mine = kept.attempt.as_ref().filter(|attempt| attempt.id == deposit.attempt);
            // Nothing of it is on its way any more: it is done, or it came to nothing.
            let Some(attempt) = mine else { return Ok(kept) };
            let mut why = "the chain does not show it yet".to_owned();
            let mut refused = false;
            if attempt.state != AttemptState::Intended && shown < self.inner.patience.presentations {
                shown += 1;
                let url = attempt.url.as_ref().unwrap_or(&kept.url);
                let url: Url = url.parse().map_err(|_| FetchError::OtherRequest)?;
                let header = purse.show_deposit(&deposit.attempt).await?;
                options.tell(&Step::Depositing { channel, time: shown });
                match self.manage(&url, &header, options, deadline).await? {
                    Managed::Done(_) => {}
                    Managed::Refused(said) => (why, refused) = (said, true),
                    Managed::Open(said) => why = said,
                }
            }
            let kept = self.look_at_channel(&channel).await?;
            if kept.attempt.as_ref().is_none_or(|attempt| attempt.id != deposit.attempt) {
                return Ok(kept);
            }
            let now = self.inner.world.monotonic();
            if refused || now.saturating_add(pause) >= deadline {
                return Err(failed(why));
            }
            options.tell(&Step::Pausing { why: &why, pause });
            self.inner.world.sleep(pause).await;
            pause = (pause * 2).min(self.inner.patience.longest_pause);
        }
    }

    /// Asks the chain about a channel, and writes down what it says.
    ///
    /// # Errors
    /// [`FetchError::Denied`] with `chain_required` where no chain can be asked.
    pub async fn look_at_channel(&self, channel: &ChannelId) -> Result<KeptChannel, FetchError> {
        let purse = self.purse()?;
        let kept = purse.channel(channel).await?;
        let terms = kept.payer.terms();
        let Some(view) = self.view(terms.asset.network()) else {
            return Err(Denied::from(SessionDenied::NoChain).into());
        };
        match view.channel(&terms.escrow, channel).await {
            Some(sight) => Ok(purse.saw(channel, sight).await?),
            // A chain that cannot be asked now says nothing.
            None => Ok(kept),
        }
    }

    /// Shows something that manages a channel: the seller calls nothing for it.
    ///
    /// Spec: draft-evm-session-00, "Voucher Submission Transport": to the same URI; HEAD has no body.
    async fn manage(
        &self,
        url: &Url,
        payment: &Header,
        options: &Options,
        deadline: Duration,
    ) -> Result<Managed, FetchError> {
        let request = HttpRequest { method: Method::HEAD, ..HttpRequest::get(url.clone()) };
        let origin = farthing_policy::Origin::of(url)?;
        let reach = self.reach(&origin, options).await?;
        let sent = self.send(&request, Some(payment), reach, deadline).await;
        Ok(match sent {
            Err(error) => Managed::Open(error.to_string()),
            Ok(answer) if answer.status.is_success() => Managed::Done(session_receipt(&answer.headers)),
            Ok(answer) => match answer.status.as_u16() {
                408 | 409 | 425 | 429 | 500..=599 => Managed::Open(answer.status.to_string()),
                _ => Managed::Refused(format!("the seller refused: {}", answer.status)),
            },
        })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // A request that a voucher pays for.

    /// Sends a request with its voucher, and pays a stream as it goes on. The answer holds what was bought: events of
    /// the payment are taken out, and the last receipt is in the header that receipts have.
    pub(super) async fn send_metered(
        &self,
        request: &HttpRequest,
        payment: &Header,
        purchase: &Purchase,
        reach: Reach,
        options: &Options,
        deadline: Duration,
    ) -> Result<Metered, SendError> {
        if let Some(framing) = request.socket {
            let request = (request, framing);
            return self.send_over_socket(request, payment, purchase, reach, options, deadline).await;
        }
        let left = deadline.saturating_sub(self.inner.world.monotonic());
        let within = left.min(self.inner.patience.answer);
        let Opened { mut answer, rest } =
            self.inner.exchange.open(request, Some(payment), reach, within).await?;
        let is_stream = answer.status.is_success() && is_event_stream(&answer.headers);
        let mut source = Source { rest, read: Some(std::mem::replace(&mut answer.body, empty())) };
        if !is_stream {
            answer.body = self.read_all(&mut source, deadline).await;
            let resumed = Resumed::default();
            return Ok(Metered { answer, ended: None, streamed: false, resumed });
        }
        // Sellers keep no streams: what comes is delivered as it comes, and cannot be asked for again.
        let began = journal::Outcome::Settled {
            tx: None,
            confirmed: false,
            goods: Goods::Delivered,
            receipt: None,
            note: Some(STREAMS.to_owned()),
        };
        if let Err(error) = self.inner.authorizer.conclude(&purchase.id, began).await {
            return Err(SendError::Broken(error.to_string()));
        }
        let mut stream = Stream::default();
        let mut resumed = Resumed::default();
        let ended = loop {
            let left = deadline.saturating_sub(self.inner.world.monotonic());
            let piece = match source.next(left.min(self.inner.patience.answer)).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break End::Over,
                Err(_) => {
                    let (how, what) = ((purchase, reach), (request, payment));
                    let going_on =
                        self.go_on_after(&stream, what, how, &mut resumed, options, deadline).await;
                    let Some(rest) = going_on else { break End::Broken };
                    source = rest;
                    stream.go_on();
                    continue;
                }
            };
            match self.take_in(&mut stream, &piece, request, purchase, options, deadline).await {
                Ok(None) => {}
                Ok(Some(end)) => break end,
                Err(error) => break End::Stopped(error.to_string()),
            }
        };
        if let Some(receipt) = &stream.receipt
            && let Ok(value) = HeaderValue::from_str(&receipt.to_header())
        {
            answer.headers.insert(mpp::header::PAYMENT_RECEIPT, value);
        }
        let goods = stream.goods.freeze();
        let (body, ended) = match ended {
            End::Over => (Body::Complete(goods), None),
            End::Broken => (Body::Truncated(goods), None),
            End::TooLong => (Body::TooLarge { limit: self.inner.max_body }, None),
            // We stopped it: what came is what was bought.
            End::Stopped(why) => (Body::Complete(goods), Some(why)),
        };
        answer.body = body;
        Ok(Metered { answer, ended, streamed: true, resumed })
    }

    /// Asks for the rest of a stream that broke off, after the last event that arrived: a bounded number of times, each
    /// after a longer pause. `None` if there is none to be had.
    ///
    /// Spec: HTML, section 9.2.4: by the header `Last-Event-ID`. The name of the purchase tells the seller which stream.
    async fn go_on_after(
        &self,
        stream: &Stream,
        (request, payment): (&HttpRequest, &Header),
        (purchase, reach): (&Purchase, Reach),
        resumed: &mut Resumed,
        options: &Options,
        deadline: Duration,
    ) -> Option<Source> {
        // After the last receipt there is nothing to go on with.
        if stream.receipt.is_some() {
            return None;
        }
        let mut request = request.clone();
        match stream.last_id.get() {
            Some(last) => drop(request.headers.insert(LAST_EVENT_ID, HeaderValue::from_str(last).ok()?)),
            // Nothing came: its name alone asks for all of it.
            None if stream.goods.is_empty() => {}
            // What came has no id, and would come a second time.
            None => return None,
        }
        let (mut payment, mut raises) = (payment.clone(), 0);
        let mut pause = self.inner.patience.first_pause;
        while resumed.times < MOST_RESUMED {
            resumed.times += 1;
            let now = self.inner.world.monotonic();
            if now.saturating_add(pause) >= deadline {
                return None;
            }
            self.inner.world.sleep(pause).await;
            pause = (pause * 2).min(self.inner.patience.longest_pause);
            let left = deadline.saturating_sub(self.inner.world.monotonic());
            let within = left.min(self.inner.patience.answer);
            let Ok(Opened { mut answer, rest }) =
                self.inner.exchange.open(&request, Some(&payment), reach, within).await
            else {
                continue;
            };
            let mut source = Source { rest, read: Some(std::mem::replace(&mut answer.body, empty())) };
            if answer.status.is_success() && is_event_stream(&answer.headers) {
                let again = answer.headers.get(REPLAYED).and_then(|value| value.to_str().ok()?.parse().ok());
                resumed.replayed = resumed.replayed.saturating_add(again.unwrap_or(0));
                return Some(source);
            }
            match answer.status.as_u16() {
                // Its service goes on, and what was vouched is used up.
                402 => {
                    answer.body = self.read_all(&mut source, deadline).await;
                    let need = needed(&answer, &channel_of(purchase).ok()?)?;
                    raises += 1;
                    if raises > RAISES {
                        return None;
                    }
                    payment = self.raised((&need, true), purchase, options, deadline).await.ok()?;
                }
                408 | 425 | 429 | 500..=599 => {}
                // It says that there is no rest.
                _ => return None,
            }
        }
        None
    }

    /// Takes in a piece of a stream, and answers what it needs to go on.
    async fn take_in(
        &self,
        stream: &mut Stream,
        piece: &[u8],
        request: &HttpRequest,
        purchase: &Purchase,
        options: &Options,
        deadline: Duration,
    ) -> Result<Option<End>, FetchError> {
        let Ok(events) = stream.reader.push(piece) else { return Ok(Some(End::TooLong)) };
        stream.last_id.push(piece);
        for event in events {
            match event {
                // What nobody can read may be what it asks for: it is not paid any further.
                Err(error) => return Ok(Some(End::Stopped(format!("an event cannot be read: {error}")))),
                Ok(Event::Receipt(receipt)) => stream.receipt = Some(receipt),
                Ok(Event::NeedVoucher(need)) => {
                    if let Some(why) = stream.objection(&need, purchase) {
                        return Ok(Some(End::Stopped(why)));
                    }
                    stream.arrived = false;
                    self.go_on(&need, request, purchase, options, deadline).await?;
                }
                Ok(event) => {
                    stream.arrived = true;
                    let text = event.print();
                    if stream.goods.len().saturating_add(text.len()) > self.inner.max_body {
                        return Ok(Some(End::TooLong));
                    }
                    options.tell(&Step::Streamed(&event));
                    stream.goods.extend_from_slice(text.as_bytes());
                }
            }
        }
        Ok(None)
    }

    /// Answers a stream's need by a voucher, after a top-up if it takes one.
    ///
    /// Spec: draft-evm-session-00, "Insufficient Balance During Streaming".
    async fn go_on(
        &self,
        need: &NeedVoucher,
        request: &HttpRequest,
        purchase: &Purchase,
        options: &Options,
        deadline: Duration,
    ) -> Result<(), FetchError> {
        let need = need_of(need);
        let mut header = self.raised((&need, true), purchase, options, deadline).await?;
        let mut pause = self.inner.patience.first_pause;
        for time in 1.. {
            options.tell(&Step::Vouching { id: purchase.id, required: need.required });
            let done = self.manage(&request.url, &header, options, deadline).await?;
            let why = match done {
                Managed::Done(Some((state, json))) => {
                    self.purse()?.told(&channel_of(purchase)?, state, &json).await?;
                    return Ok(());
                }
                Managed::Done(None) => return Ok(()),
                Managed::Refused(why) => {
                    // Another purchase on the channel may have vouched for more meanwhile, and an older voucher is none:
                    // then the same need is answered by the newest.
                    let newest = self.raised((&need, true), purchase, options, deadline).await?;
                    let signed = self.purse()?.channel(&channel_of(purchase)?).await?.payer.signed();
                    // A top-up that the chain showed us may not be deep enough for the seller yet.
                    let lags = signed > need.deposit;
                    if newest == header && !lags {
                        // It may be covered already, by less than a step less: then the stream goes on, and else its seller
                        // ends it.
                        options.tell(&Step::NotTaken { id: purchase.id, why: &why });
                        return Ok(());
                    }
                    header = newest;
                    why
                }
                Managed::Open(why) => why,
            };
            let now = self.inner.world.monotonic();
            if time >= self.inner.patience.presentations || now.saturating_add(pause) >= deadline {
                return Err(FetchError::Voucher(why));
            }
            self.inner.world.sleep(pause).await;
            pause = (pause * 2).min(self.inner.patience.longest_pause);
        }
        Ok(())
    }

    /// The voucher for a need of a purchase, with the deposit that it takes; and whether it is a stream that went on.
    pub(super) async fn raised(
        &self,
        (need, went_on): (&Need, bool),
        purchase: &Purchase,
        options: &Options,
        deadline: Duration,
    ) -> Result<Header, FetchError> {
        let purse = self.purse()?;
        let channel = channel_of(purchase)?;
        for _ in 0..=TOP_UPS {
            match purse.raise(&purchase.id, need, went_on, options.max.as_deref()).await? {
                Answered::Voucher(header) => return Ok(header),
                // Spec: as above: beyond the deposit, a top-up comes first.
                Answered::NeedsTopUp { missing } => {
                    let intent = self.intent_of(purchase, options).await?;
                    let deposit = purse.top_up(&intent, &channel, missing).await?;
                    self.bring(&deposit, options, deadline).await?;
                }
            }
        }
        Err(FetchError::Deposit { channel, why: "the deposit is still too small".to_owned() })
    }

    /// What a purchase was made for, for the deposit that it needs besides.
    async fn intent_of(&self, purchase: &Purchase, options: &Options) -> Result<Intent, FetchError> {
        let no_session = || FetchError::from(Denied::from(SessionDenied::NoSession));
        let header = self.inner.authorizer.purchase(&purchase.id).await?.header;
        let offer = crate::purse::offer_of(header.as_ref(), self.inner.world.now()).ok_or_else(no_session)?;
        let url: Url = purchase.url.parse().map_err(|_| FetchError::OtherRequest)?;
        let origin = farthing_policy::Origin::of(&url)?;
        let view = self.view(purchase.money.asset().network());
        Ok(Intent {
            private: origin.host.is_local(),
            origin,
            method: purchase.method.clone(),
            url: purchase.url.clone(),
            request_hash: purchase.request_hash,
            body: None,
            tool: purchase.tool.clone(),
            max: options.max.clone(),
            only: None,
            devnet: view.is_some_and(|view| view.is_devnet()),
            chain_time: match view {
                Some(view) => view.time().await,
                None => None,
            },
            permit_nonce: None,
            deposit: options.deposit.clone(),
            offer: Offer::Session(Box::new(offer)),
        })
    }

    async fn read_all(&self, source: &mut Source, deadline: Duration) -> Body {
        if source.rest.is_none() {
            return source.read.take().unwrap_or_else(empty);
        }
        let mut read = BytesMut::new();
        loop {
            let left = deadline.saturating_sub(self.inner.world.monotonic());
            match source.next(left.min(self.inner.patience.answer)).await {
                Ok(Some(piece)) => {
                    if read.len().saturating_add(piece.len()) > self.inner.max_body {
                        return Body::TooLarge { limit: self.inner.max_body };
                    }
                    read.extend_from_slice(&piece);
                }
                Ok(None) => return Body::Complete(read.freeze()),
                Err(_) => return Body::Truncated(read.freeze()),
            }
        }
    }

    /// The goods are here: what does the seller say of the channel?
    pub(super) async fn settle_session(
        &self,
        purchase: &Purchase,
        answer: &Answer,
        (streamed, ended): (bool, Option<&str>),
        options: &Options,
        payment: &mut super::Payment,
    ) {
        let receipt = session_receipt(&answer.headers);
        let fits = receipt.as_ref().map(|(state, _)| fits(&answer.headers, state, purchase));
        let settlement = match fits {
            None => Settlement::Unproven,
            Some(Err(why)) => Settlement::Contradicted(why),
            Some(Ok(())) => Settlement::Claimed,
        };
        payment.receipt = receipt.as_ref().map(|(_, json)| json.clone()).or(payment.receipt.take());
        payment.tx = None;
        payment.note = match (&answer.body, ended) {
            (Body::TooLarge { limit }, _) => Some(format!("paid_and_longer_than_{limit}_bytes")),
            (Body::Truncated(_), _) => Some("stream_broke_off".to_owned()),
            (_, Some(why)) => Some(format!("stream_ended_by_us: {why}")),
            _ => None,
        };
        let goods = journal::channels::delivered(answer.body.complete().is_some(), options.acknowledged);
        // The voucher is the payment, and it is the seller's. Whether the seller's word fits is another matter.
        let outcome = journal::Outcome::Settled {
            tx: None,
            confirmed: false,
            goods,
            receipt: payment.receipt.clone(),
            note: match &settlement {
                Settlement::Contradicted(why) => Some(format!("receipt_contradicted: {why}")),
                _ => payment.note.clone(),
            },
        };
        payment.settlement = settlement;
        let is_whole = payment.note.is_none();
        let brought = Brought { outcome, receipt, served: true, streamed, is_whole };
        self.conclude_session(&purchase.id, brought, payment).await;
        if let Ok(now) = self.inner.authorizer.purchase(&purchase.id).await {
            payment.money = now.money;
        }
    }

    /// Writes down what is known, and tells of a seller that claims what cannot be.
    pub(super) async fn conclude_session(
        &self,
        id: &PurchaseId,
        brought: Brought,
        payment: &mut super::Payment,
    ) {
        let concluded = match self.purse() {
            Ok(purse) => purse.conclude(id, brought).await,
            Err(error) => Err(error),
        };
        match concluded {
            Ok(kept) => {
                if let Some(overclaim) = kept.payer.overclaim() {
                    payment.settlement =
                        Settlement::Contradicted(format!("the seller claims too much: {overclaim:?}"));
                }
            }
            Err(error) => {
                tracing::error!(%id, %error, "the outcome of a purchase could not be written down");
                payment.note = Some("outcome_not_written_down".to_owned());
            }
        }
    }

    /// The header to show next, where the seller says that a voucher covers too little: what it needs, if that is
    /// within what the call may cost.
    pub(super) async fn cover(
        &self,
        answer: &Answer,
        purchase: &Purchase,
        raises: &mut u32,
        options: &Options,
        deadline: Duration,
    ) -> Option<Result<Header, FetchError>> {
        let need = needed(answer, &channel_of(purchase).ok()?)?;
        *raises += 1;
        if *raises > RAISES {
            return None;
        }
        Some(self.raised((&need, false), purchase, options, deadline).await)
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What owners ask for.

    /// Asks a seller what it wants, pays nothing, and returns the first session that it offers.
    pub async fn session_offer(&self, request: HttpRequest, options: &Options) -> Result<Intent, FetchError> {
        let deadline = self.deadline();
        let options = Options { sessions: Sessions::Only, ..options.clone() };
        let unpaid = self.ask(request, &options, deadline).await?;
        if unpaid.answer.status != StatusCode::PAYMENT_REQUIRED {
            return Err(Denied::from(SessionDenied::NoSession).into());
        }
        let plan = self.plan(unpaid, &options).await?;
        let session = |considered: Considered| {
            matches!(considered.intent.offer, Offer::Session(_)).then_some(considered.intent)
        };
        plan.considered
            .into_iter()
            .find_map(session)
            .ok_or_else(|| Denied::from(SessionDenied::NoSession).into())
    }

    /// Opens a channel for a session that a seller offers, and buys nothing yet.
    pub async fn open_channel(&self, intent: &Intent, options: &Options) -> Result<KeptChannel, FetchError> {
        let deadline = self.deadline();
        self.channel_for(intent, options, deadline).await
    }

    /// Puts more money into a channel: what [`Intent::deposit`] says, else what the seller suggests.
    pub async fn top_up_channel(
        &self,
        intent: &Intent,
        channel: &ChannelId,
        options: &Options,
    ) -> Result<KeptChannel, FetchError> {
        let deadline = self.deadline();
        let deposit = self.purse()?.top_up(intent, channel, 0).await?;
        self.bring(&deposit, options, deadline).await
    }

    /// Asks a channel's payee to close it, with a voucher for what was used, and looks at the chain.
    ///
    /// # Errors
    /// [`FetchError::Voucher`] if the payee does not: the escrow can be asked once its patience is over.
    pub async fn close_channel(
        &self,
        channel: &ChannelId,
        options: &Options,
    ) -> Result<KeptChannel, FetchError> {
        let deadline = self.deadline();
        let purse = self.purse()?;
        let kept = purse.channel(channel).await?;
        let url: Url = kept.url.parse().map_err(|_| FetchError::OtherRequest)?;
        let method = kept.method.parse().map_err(|_| FetchError::OtherRequest)?;
        let request = HttpRequest { method, ..HttpRequest::get(url) };
        let intent = self.session_offer(request, options).await?;
        let Offer::Session(offer) = &intent.offer else {
            return Err(Denied::from(SessionDenied::NoSession).into());
        };
        if !is_for(offer, &kept) {
            return Err(FetchError::Voucher("the seller asks for another channel by now".to_owned()));
        }
        let url: Url = intent.url.parse().map_err(|_| FetchError::OtherRequest)?;
        // INVARIANT: the wish is on the disk: no voucher but this one is signed any more.
        let header = purse.leave(channel, offer).await?;
        let mut pause = self.inner.patience.first_pause;
        loop {
            let said = match self.manage(&url, &header, options, deadline).await? {
                Managed::Done(Some((state, json))) => {
                    purse.told(channel, state, &json).await?;
                    None
                }
                Managed::Done(None) => None,
                Managed::Refused(why) => Some((why, true)),
                Managed::Open(why) => Some((why, false)),
            };
            let kept = self.look_at_channel(channel).await?;
            let over = matches!(kept.payer.state(), PayerState::Over { .. } | PayerState::Finalized);
            let Some((why, refused)) = said else { return Ok(kept) };
            if over {
                return Ok(kept);
            }
            let now = self.inner.world.monotonic();
            if refused || now.saturating_add(pause) >= deadline {
                return Err(FetchError::Voucher(why));
            }
            options.tell(&Step::Pausing { why: &why, pause });
            self.inner.world.sleep(pause).await;
            pause = (pause * 2).min(self.inner.patience.longest_pause);
        }
    }

    /// Finds the channels of a seller that are on the chain and that the journal lost, and takes them up. Returns how
    /// many.
    pub async fn rebuild_channels(&self, intent: &Intent) -> Result<usize, FetchError> {
        let purse = self.purse()?;
        let Offer::Session(offer) = &intent.offer else {
            return Err(Denied::from(SessionDenied::NoSession).into());
        };
        let no_chain = || FetchError::from(Denied::from(SessionDenied::NoChain));
        let view = self.view(&offer.session().network).ok_or_else(no_chain)?;
        let escrow = offer.session().escrow.address().clone();
        let facts = view.escrow(&escrow).await.ok_or_else(no_chain)?;
        let (mut from, mut found) = (0, 0);
        loop {
            let (number, id) = purse.candidate(intent, from).await?;
            let sight = view.channel(&escrow, &id).await.ok_or_else(no_chain)?;
            // Numbers are given in order, so that the first that is free is the last.
            if sight.latest.is_none() || number >= MOST_NUMBERS {
                return Ok(found);
            }
            found += usize::from(purse.adopt(intent, number, sight, facts.grace).await?);
            from = number.saturating_add(1);
        }
    }
}

/// A request's answer, and why we stopped it, if we did.
pub(super) struct Metered {
    pub answer: Answer,
    pub ended: Option<String>,
    /// Whether it was a stream.
    pub streamed: bool,
    pub resumed: Resumed,
}

/// How a stream came to its end.
pub(super) enum End {
    Over,
    Broken,
    TooLong,
    Stopped(String),
}

/// Where the pieces of an answer come from.
struct Source {
    rest: Option<Box<dyn Pieces>>,
    read: Option<Body>,
}

impl Source {
    async fn next(&mut self, within: Duration) -> Result<Option<Bytes>, SendError> {
        match (&mut self.rest, self.read.take()) {
            (Some(rest), _) => rest.next(within).await,
            (None, Some(Body::Complete(bytes))) => Ok(Some(bytes).filter(|bytes| !bytes.is_empty())),
            (None, Some(_)) => Err(SendError::Broken("it broke off".to_owned())),
            (None, None) => Ok(None),
        }
    }
}

/// What came of a stream so far.
#[derive(Default)]
pub(super) struct Stream {
    reader: sse::Reader,
    last_id: LastId,
    pub goods: BytesMut,
    pub receipt: Option<mpp::Receipt>,
    /// Whether something came since the last voucher.
    pub arrived: bool,
    vouchers: u32,
}

impl Stream {
    /// Another connection goes on after the last whole event.
    fn go_on(&mut self) {
        self.reader = sse::Reader::new();
        self.last_id.go_on();
    }

    /// Why a need is not answered, before anything is signed for it.
    pub fn objection(&mut self, need: &NeedVoucher, purchase: &Purchase) -> Option<String> {
        self.vouchers = self.vouchers.saturating_add(1);
        if purchase.channel.map(|id| id.0) != Some(need.channel_id) {
            return Some("it asks for a voucher on another channel".to_owned());
        }
        if need.required_cumulative <= need.accepted_cumulative {
            return Some("it asks for a voucher that it has".to_owned());
        }
        // The first may be used up before anything comes; after that, nothing is paid for nothing.
        if !self.arrived && self.vouchers > 1 {
            return Some("it asks for another voucher, and nothing came since the last".to_owned());
        }
        None
    }
}

pub(super) fn need_of(need: &NeedVoucher) -> Need {
    Need {
        required: need.required_cumulative,
        accepted: need.accepted_cumulative,
        deposit: need.deposit,
        spent: need.spent,
    }
}

pub(super) fn channel_of(purchase: &Purchase) -> Result<ChannelId, FetchError> {
    purchase.channel.ok_or_else(|| Denied::from(SessionDenied::NoSession).into())
}

fn empty() -> Body {
    Body::Complete(Bytes::new())
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.is_some_and(|value| {
        value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(sse::CONTENT_TYPE)
    })
}

/// Whether an offer is one that a channel pays.
fn is_for(offer: &OfferSession, kept: &KeptChannel) -> bool {
    let (asked, terms) = (offer.session(), kept.payer.terms());
    *asked.recipient.address() == terms.payee
        && asked.asset_id() == terms.asset
        && *asked.escrow.address() == terms.escrow
}

/// What a seller's receipt says of a channel, and the same as JSON. One that cannot be read is none.
fn session_receipt(headers: &HeaderMap) -> Option<(State, String)> {
    let (read, json) = parse_receipt(headers)?;
    let state = State {
        accepted: read.accepted_cumulative,
        spent: read.spent,
        units: u128::from(read.units.unwrap_or(0)),
        deposit: 0,
        settled: 0,
    };
    Some((state, json))
}

fn parse_receipt(headers: &HeaderMap) -> Option<(mpp::SessionReceipt, String)> {
    let mut lines = headers.get_all(mpp::header::PAYMENT_RECEIPT).iter();
    let (line, more) = (lines.next()?, lines.next());
    let receipt = mpp::Receipt::parse(line.as_bytes()).ok().filter(|_| more.is_none())?;
    let session = receipt.session().ok()??;
    Some((session, receipt.to_object().to_string()))
}

/// Whether a receipt is one for this purchase, and claims no more than was vouched.
///
/// Spec: draft-evm-session-00, "Receipt Generation".
fn fits(headers: &HeaderMap, state: &State, purchase: &Purchase) -> Result<(), String> {
    let Some((read, _)) = parse_receipt(headers) else { return Ok(()) };
    if purchase.channel.map(|id| id.0) != Some(read.channel_id) {
        return Err("it is for another channel".to_owned());
    }
    let network = read.chain_id.map(Network::eip155);
    if network.is_some_and(|network| network != *purchase.money.asset().network()) {
        return Err("it is for another network".to_owned());
    }
    if state.spent > state.accepted {
        return Err(format!("it says that {} was charged and {} vouched", state.spent, state.accepted));
    }
    Ok(())
}

/// Whether a seller says that a voucher is above the deposit: none is signed that is, so it has not seen yet what the
/// chain showed us.
pub(super) fn lags_behind(answer: &Answer) -> bool {
    let problem = answer.body.complete().and_then(|body| Problem::parse(body).ok());
    answer.status == StatusCode::PAYMENT_REQUIRED
        && problem.is_some_and(|problem| problem.kind == ProblemType::AmountExceedsDeposit)
}

/// What a seller says that a request needs, where its voucher covers too little.
///
/// Spec: draft-evm-session-00, "Error Responses"; the members are those of `payment-need-voucher`.
fn needed(answer: &Answer, channel: &ChannelId) -> Option<Need> {
    if answer.status != StatusCode::PAYMENT_REQUIRED {
        return None;
    }
    let body = answer.body.complete()?;
    let problem = Problem::parse(body).ok()?;
    if problem.kind != ProblemType::InsufficientBalance {
        return None;
    }
    let need = NeedVoucher::from_object(&problem.other).ok()?;
    let for_more = need.required_cumulative > need.accepted_cumulative && need.channel_id == channel.0;
    for_more.then(|| need_of(&need))
}
