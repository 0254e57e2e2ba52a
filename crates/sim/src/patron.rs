//! A machine that buys by the unit with the production wallet and its purse. Sometimes its owner cheats behind the wallet's
//! back.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_chain::LocalKey;
use farthing_channel::{ChannelId, PayerState};
use farthing_evm::{B256, Key, escrow, voucher};
use farthing_primitives::PurchaseId;
use farthing_wallet::client::{
    Answer, Body, Exchange, HttpRequest, Opened, Options, Outcome, Pieces, Reach, SendError, Sessions,
};
use farthing_wallet::force::{Force, Forced};
use farthing_wallet::journal::channels::KeptChannel;
use farthing_wallet::journal::{Header, Journal};
use farthing_wallet::{Offer, Purse};
use farthing_wire::mpp::evm::{Funding, SessionPayload};
use farthing_wire::mpp::{Credential, Payload};
use http::Method;

use crate::chain::Tx;
use crate::escrow::{ESCROW, GRACE};
use crate::exec::{WORLD, lock};
use crate::gateway::{BLOCK_TIME, NETWORK, short};
use crate::home::{self, Home, PATIENCE, Rig, answered, failed};
use crate::meters::{Kind, Meter};

/// Where patrons' numbers begin, beside those of other buyers.
pub const FIRST: usize = 200;
/// What one deposit may be, and all of an hour, in atoms.
const DEPOSIT: u128 = 5_000;
const BUDGET: u128 = 200_000;
/// How often a patron looks at its channels.
const ROUND: Duration = Duration::from_secs(30);
/// How long it waits before it tries again.
const AGAIN: Duration = Duration::from_secs(10);
/// How often it tries to buy one thing.
const TRIES: u32 = 4;
/// For how many blocks a cheat tries to withdraw.
const STUBBORN: u32 = 40;

#[derive(Debug)]
pub struct Patron {
    pub home: Home,
    /// What is wanted and not had: its number, where, and how many units.
    pub wants: Mutex<Vec<(u64, Meter, u64)>>,
    /// Channels that the escrow was, or shall be, asked to close.
    pub forcing: Mutex<BTreeSet<ChannelId>>,
    /// The nonce of what it signed for a deposit last.
    pub newest_deposit: Mutex<Option<B256>>,
    /// It went away for good.
    pub gone: AtomicBool,
}

impl Deref for Patron {
    type Target = Home;

    fn deref(&self) -> &Home {
        &self.home
    }
}

/// A journal with rules for sessions.
pub fn journal() -> Journal {
    home::journal(DEPOSIT, BUDGET, |rules| {
        rules.schemes.insert(farthing_wallet::SESSION.to_owned());
        rules.breaker = None;
    })
}

fn options() -> Options {
    Options { sessions: Sessions::Only, ..Options::default() }
}

impl Patron {
    pub fn address(&self) -> farthing_evm::Address {
        Key::from_bytes(self.key).map(|key| key.address()).unwrap_or_default()
    }

    pub fn boot(self: &Arc<Self>) {
        let Some(rig) = self.start(Arc::new(ToGateway { patron: self.clone() })) else { return };
        let patron = self.clone();
        self.run(async move {
            patron.came_all(&patron.recover_in_the_end(&rig, &options()).await);
            loop {
                rig.world.sleep(ROUND).await;
                patron.look_around(&rig).await;
            }
        });
        let open = lock(&self.wants).clone();
        open.into_iter().for_each(|(n, meter, units)| self.pursue(n, meter, units));
        let forcing = lock(&self.forcing).clone();
        forcing.into_iter().for_each(|id| self.pursue_force(id));
    }

    /// What is open is asked about; what cannot be asked now is asked in the next round.
    async fn look_around(&self, rig: &Rig) {
        let _ = rig.client.reconcile_all().await;
        for kept in rig.wallet.channels().await.unwrap_or_default() {
            if !matches!(kept.payer.state(), PayerState::Finalized | PayerState::Void { .. }) {
                let _ = rig.client.look_at_channel(&kept.id()).await;
            }
        }
    }

    pub fn want(self: &Arc<Self>, meter: Meter, units: u64) {
        let n = self.wanted.fetch_add(1, Ordering::Relaxed);
        lock(&self.wants).push((n, meter, units));
        self.note(|| format!("wants {units} of {} #{n}", meter.path));
        self.pursue(n, meter, units);
    }

    fn request(&self, n: u64, meter: Meter, units: u64) -> Option<HttpRequest> {
        let url = format!("https://api.example{}?n={}-{n}&u={units}", meter.path, self.number);
        let method = if meter.method == "POST" { Method::POST } else { Method::GET };
        let body = if meter.method == "POST" { Bytes::from_static(b"{}") } else { Bytes::new() };
        Some(HttpRequest { method, body, ..HttpRequest::get(url.parse().ok()?) })
    }

    fn pursue(self: &Arc<Self>, n: u64, meter: Meter, units: u64) {
        let Some(rig) = self.rig() else { return };
        let Some(request) = self.request(n, meter, units) else { return };
        let patron = self.clone();
        self.run(async move {
            for _ in 0..TRIES {
                let outcome = rig.client.fetch_once(request.clone(), &options()).await;
                let outcome = outcome.map_err(|error| error.to_string());
                patron.came(&outcome);
                match outcome {
                    Ok(Outcome::Unknown { .. }) | Err(_) => rig.world.sleep(AGAIN).await,
                    Ok(Outcome::Free(answer)) if !answer.status.is_success() => rig.world.sleep(AGAIN).await,
                    // What was streamed is not streamed twice for one payment.
                    Ok(Outcome::Refused { .. }) if meter.kind != Kind::Stream => rig.world.sleep(AGAIN).await,
                    Ok(_) => break,
                }
            }
            lock(&patron.wants).retain(|(wanted, ..)| *wanted != n);
        });
    }

    /// The newest channel that is not over.
    async fn newest(&self, rig: &Rig) -> Option<KeptChannel> {
        let mut all = rig.wallet.channels().await.ok()?;
        all.retain(|kept| {
            matches!(
                kept.payer.state(),
                PayerState::Open | PayerState::Leaving { .. } | PayerState::Requested { .. }
            )
        });
        all.into_iter().max_by_key(|kept| kept.number)
    }

    pub fn top_up(self: &Arc<Self>) {
        let Some(rig) = self.rig() else { return };
        let patron = self.clone();
        self.run(async move {
            let Some(kept) = patron.newest(&rig).await else { return };
            let Ok(url) = kept.url.parse() else { return };
            let offer = rig.client.session_offer(HttpRequest::get(url), &options()).await;
            let done = match offer {
                Ok(intent) => rig.client.top_up_channel(&intent, &kept.id(), &options()).await,
                Err(error) => Err(error),
            };
            patron.note(|| match done {
                Ok(kept) => format!("topped up to {}", kept.payer.deposit()),
                Err(error) => format!("no top-up: {error}"),
            });
        });
    }

    /// Asks the seller to close.
    pub fn leave(self: &Arc<Self>) {
        let Some(rig) = self.rig() else { return };
        let patron = self.clone();
        self.run(async move {
            let Some(kept) = patron.newest(&rig).await else { return };
            let closed = rig.client.close_channel(&kept.id(), &options()).await;
            patron.note(|| match closed {
                Ok(kept) => format!("leaves: {}", kept.payer.state().name()),
                Err(error) => format!("cannot leave: {error}"),
            });
        });
    }

    /// Gets the deposit back without the seller.
    pub fn force(self: &Arc<Self>) {
        let Some(rig) = self.rig() else { return };
        let patron = self.clone();
        self.run(async move {
            let Some(kept) = patron.newest(&rig).await else { return };
            if lock(&patron.forcing).insert(kept.id()) {
                patron.pursue_force(kept.id());
            }
        });
    }

    fn pursue_force(self: &Arc<Self>, id: ChannelId) {
        let Some(rig) = self.rig() else { return };
        let Ok(key) = Key::from_bytes(self.key) else { return };
        let patron = self.clone();
        self.run(async move {
            let key = LocalKey::new(key);
            let force = Force {
                wallet: &rig.wallet,
                chain: rig.chain.as_ref(),
                view: rig.view.as_ref(),
                key: &key,
                world: rig.world.as_ref(),
                patience: Duration::from_secs(30),
            };
            let mut tries = 0;
            loop {
                let step = force.step(&id).await;
                patron.note(|| format!("forces {}: {step:?}", short(&id.to_string())));
                match step {
                    Ok(Forced::Requested { until, .. } | Forced::Waiting { until }) => {
                        let wait = until.since(rig.world.now());
                        rig.world.sleep(wait.max(Duration::from_secs(1))).await;
                    }
                    Ok(Forced::Sent { .. }) => rig.world.sleep(Duration::from_secs(5)).await,
                    Ok(_) => break,
                    Err(_) => {
                        tries += 1;
                        if tries > 60 {
                            break;
                        }
                        rig.world.sleep(AGAIN).await;
                    }
                }
            }
            lock(&patron.forcing).remove(&id);
        });
    }

    /// Its owner asks the escrow behind the wallet's back, and takes all that it can get as early as it can.
    pub fn cheat(self: &Arc<Self>) {
        let mine = {
            let chain = lock(&self.tip.chain);
            let records = &chain.tip().state.escrow.records;
            let mine =
                records.iter().filter(|(_, record)| record.payer == self.address() && !record.finalized);
            mine.max_by_key(|(_, record)| record.deposit).map(|(id, _)| *id)
        };
        let Some(id) = mine else { return };
        let patron = self.clone();
        let send = move |data: farthing_evm::Bytes| {
            let tx = Tx::of_owner(patron.address(), ESCROW, data.0, patron.exec.micros());
            lock(&patron.tip.chain).offer(tx);
        };
        send(escrow::request_close(id));
        let patron = self.clone();
        let task = async move {
            let mut tries = 0;
            loop {
                patron.exec.sleep(BLOCK_TIME).await;
                let (record, time) = {
                    let chain = lock(&patron.tip.chain);
                    let tip = chain.tip();
                    (tip.state.escrow.records.get(&id).copied(), tip.time)
                };
                let Some(record) = record.filter(|record| !record.finalized) else { break };
                if record.close_requested_at == 0 || time + 2 < record.close_requested_at + GRACE {
                    // Its own wallet may have taken the request back.
                    tries += u32::from(record.close_requested_at == 0);
                } else {
                    send(escrow::withdraw(id));
                    tries += 1;
                }
                if tries > STUBBORN {
                    break;
                }
            }
        };
        self.exec.spawn(WORLD, Box::pin(task));
    }

    /// Shows the seller a voucher for less than what was used, to close with.
    pub fn close_stale(self: &Arc<Self>) {
        let Some(rig) = self.rig() else { return };
        let Ok(key) = Key::from_bytes(self.key) else { return };
        let patron = self.clone();
        self.run(async move {
            let Some(kept) = patron.newest(&rig).await else { return };
            let Ok(url) = kept.url.parse() else { return };
            let Ok(intent) = rig.client.session_offer(HttpRequest::get(url), &options()).await else {
                return;
            };
            let Offer::Session(offer) = &intent.offer else { return };
            let cumulative = kept.payer.signed() / 2;
            let word = voucher::Voucher { channel: B256::from(kept.id().0), cumulative };
            let signature = key.sign(word.digest(&voucher::escrow_domain(NETWORK, ESCROW))).to_bytes();
            let close =
                SessionPayload::Close { channel_id: kept.id().0, cumulative, signature: signature.to_vec() };
            let credential = Credential::new(offer.challenge().clone(), close.to_object(), None);
            let Ok(value) = credential.to_header() else { return };
            let header = Header { name: offer.credential_header().to_ascii_lowercase(), value };
            let Ok(url) = intent.url.parse() else { return };
            let request = HttpRequest { method: Method::HEAD, ..HttpRequest::get(url) };
            let exchange = ToGateway { patron: patron.clone() };
            let said = exchange.send(&request, Some(&header), Reach::Public, PATIENCE).await;
            patron
                .note(|| format!("asks to close with {cumulative}: {:?}", said.map(|answer| answer.status)));
        });
    }

    /// The last word, when all is well.
    pub fn look_again(self: &Arc<Self>) {
        let Some(rig) = self.rig() else { return };
        let patron = self.clone();
        self.run(async move {
            if let Ok(shown) = patron.recover(&rig, &options()).await {
                patron.came_all(&shown);
            }
            patron.look_around(&rig).await;
        });
    }

    fn came_all(&self, shown: &[Result<Outcome, String>]) {
        shown.iter().for_each(|outcome| self.came(outcome));
    }

    /// Takes down what a call brought.
    fn came(&self, outcome: &Result<Outcome, String>) {
        match outcome {
            Ok(Outcome::Paid { answer, payment }) => {
                let body = match &answer.body {
                    Body::Complete(body) | Body::Truncated(body) => body.clone(),
                    Body::TooLarge { .. } => Bytes::new(),
                };
                self.got(payment.id, &String::from_utf8_lossy(&body));
                self.note(|| {
                    let (id, how) = (payment.id, payment.settlement.name());
                    format!("{id} is paid with {} atoms, {how}, {:?}", payment.money.atoms(), payment.note)
                });
            }
            Ok(Outcome::Free(answer)) => {
                if answer.status.is_success() {
                    self.ledger.broken(format!("patron {} was served for nothing", self.number));
                }
                self.note(|| format!("told {}", answer.status));
            }
            Ok(Outcome::Refused { payment, reason, .. }) => {
                self.note(|| format!("{} is refused: {reason}", payment.id));
            }
            Ok(Outcome::Unknown { payment, why, .. }) => {
                self.note(|| format!("{} is unknown: {why}", payment.id));
            }
            Ok(Outcome::Denied { denied, plan }) => self.note(|| {
                let objections = plan.considered.iter().map(|c| format!("{:?}", c.objection));
                let objections = objections.collect::<Vec<_>>().join(", ");
                format!(
                    "denied: {}, {objections}",
                    denied.as_ref().map_or("no offer", |denied| denied.code())
                )
            }),
            Ok(Outcome::Planned(_)) => {}
            Err(error) => self.note(|| format!("failed: {error}")),
        }
    }

    /// Checker: what was charged once is not delivered for two purchases.
    fn got(&self, purchase: PurchaseId, body: &str) {
        let charges: BTreeSet<_> =
            body.lines().filter_map(|line| line.split_once(" of ")?.1.trim().parse().ok()).collect();
        let mut facts = lock(&self.ledger.facts);
        for charge in charges {
            let mine = (self.number, purchase);
            let whose = *facts.channels.goods.entry(charge).or_insert(mine);
            if whose != mine {
                drop(facts);
                return self.ledger.broken(format!("{charge} was delivered for {whose:?} and for {mine:?}"));
            }
        }
    }

    /// Checker: a voucher leaves the wallet once its mark is durable, and never above the deposit.
    fn shows(&self, payment: &Header) {
        let Ok(credential) = Credential::parse(payment.value.as_bytes()) else {
            return self.ledger.broken(format!("patron {} shows no credential", self.number));
        };
        let Ok(Payload::EvmSession(payload)) = credential.payload() else {
            return self.ledger.broken(format!("patron {} shows no session", self.number));
        };
        let channel = ChannelId(*payload.channel_id());
        let (cumulative, funding) = match *payload {
            SessionPayload::Open(open) => (open.cumulative, Some(open.funding)),
            SessionPayload::TopUp(more) => (0, Some(more.funding)),
            SessionPayload::Voucher(voucher) => (voucher.cumulative, None),
            SessionPayload::Close { cumulative, .. } => (cumulative, None),
        };
        let Ok(kept) = self.journal.channel(&channel) else {
            return self.ledger.broken(format!("{channel} is shown, and the journal does not know it"));
        };
        let signed = kept.payer.signed();
        if cumulative > signed {
            self.ledger.broken(format!("a voucher for {cumulative} leaves, and the mark is {signed}"));
        }
        let mut facts = lock(&self.ledger.facts);
        if let Some(Funding::Authorization { authorization, .. }) = funding {
            facts.channels.deposits.insert(B256::new(authorization.nonce));
            *lock(&self.newest_deposit) = Some(B256::new(authorization.nonce));
        }
        let known = facts.channels.vouchers.entry(B256::from(channel.0)).or_default();
        let new = cumulative > *known;
        *known = cumulative.max(*known);
        facts.channels.signed += u64::from(new);
        drop(facts);
        self.note(|| format!("shows {cumulative} on {}", short(&channel.to_string())));
    }
}

/// The wallet's way to the gateway.
struct ToGateway {
    patron: Arc<Patron>,
}

impl ToGateway {
    fn looks_at(&self, payment: Option<&Header>) {
        if let Some(payment) = payment {
            self.patron.shows(payment);
        }
    }
}

#[async_trait]
impl Exchange for ToGateway {
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        _: Reach,
        within: Duration,
    ) -> Result<Answer, SendError> {
        self.looks_at(payment);
        self.patron.home.send(request, payment, within).await
    }

    async fn open(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        _: Reach,
        within: Duration,
    ) -> Result<Opened, SendError> {
        self.looks_at(payment);
        let coming = self.patron.home.open(request, payment, within).await?;
        let answer = answered(request, coming.status, coming.headers, Bytes::new());
        Ok(Opened { answer, rest: Some(Box::new(Rest(coming.pieces))) })
    }
}

struct Rest(crate::net::Pieces);

#[async_trait]
impl Pieces for Rest {
    async fn next(&mut self, within: Duration) -> Result<Option<Bytes>, SendError> {
        self.0.next(within).await.map_err(failed)
    }
}
