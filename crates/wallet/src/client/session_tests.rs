//! The production client against a seller of sessions and an escrow that follow a script: no tokio, no socket, no clock
//! but the script's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use farthing_channel::{ChannelId, PayerState};
use farthing_engine::TxHash;
use farthing_evm::escrow::OnChain;
use farthing_evm::voucher::{ChannelParts, Voucher, escrow_domain, top_up_nonce};
use farthing_evm::{B256, Domain, Key, Signature, TransferAuthorization, U256, to_alloy};
use farthing_policy::{Bucket, Caps, Clock, HostRule, Rules};
use farthing_primitives::{Address, AssetId, Network, Registry, Timestamp};
use farthing_rails::exact_evm::Checked;
use farthing_wire::mpp::evm::{CredentialType, Funding, Session, SessionPayload};
use farthing_wire::mpp::sse::{Event, NeedVoucher};
use farthing_wire::mpp::{
    self, Challenge, Credential, EncodedRequest, IntentName, MethodName, Payload, Problem, ProblemType,
    SessionReceipt, WireTime,
};
use farthing_wire::x402::WireAddress;
use farthing_wire::{Json, Object};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::simulated::{Scripted, run};
use super::tests::KEY;
use super::*;
use crate::authorizer::LocalAuthorizer;
use crate::chain_view::{ChannelSight, EscrowFacts, Permit2State, Sight};
use crate::escrows::{ESCROW, ESCROW_CODE};
use crate::journal::{Journal, State};

const SELLER: &str = "https://seller.example/forecast";
const STREAM: &str = "https://seller.example/stream";
const PRICE: u128 = 100;
const SUGGESTED: u128 = 1_000;
const GRACE: Duration = Duration::from_secs(900);

fn network() -> Network {
    Network::eip155(84532)
}

fn payee() -> Address {
    Address::from_evm_bytes([1; 20])
}

fn usdc() -> AssetId {
    Registry::builtin().dollar(&network()).unwrap().id.clone()
}

/// What happens to one exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The buyer's process is killed when everything is durable, and the seller never sees it.
    KilledBefore,
    /// The seller does it, and the buyer's process is killed before the answer.
    KilledAfter,
    /// The seller does it, and the answer is lost.
    Lost,
    /// The seller does nothing, and says that it cannot now.
    Busy,
    /// The seller has not seen the top-up yet that the chain shows.
    Behind,
}

/// What a fault waits for.
type When = fn(&SessionPayload, &Method) -> bool;

#[derive(Default)]
struct Till {
    channels: BTreeMap<[u8; 32], OnChain>,
    accepted: u128,
    spent: u128,
    served: Vec<String>,
    /// Answers by the name of their request.
    answers: BTreeMap<String, String>,
    /// All vouchers, in their order.
    vouchers: Vec<u128>,
    opens: usize,
    faults: Vec<(When, Fault)>,
    /// How much more its receipts claim than is true.
    claims: u128,
    min_delta: u128,
    /// What a stream gives before it ends.
    units: u128,
    /// A stream that asks for more than it gives.
    gives_nothing: bool,
    /// After which units it breaks off, and after which it was asked to go on.
    breaks: Vec<u128>,
    resumed_after: Vec<u128>,
    /// What a request sets aside, in units, where that is more than one.
    sets_aside: u128,
    escrow_code: [u8; 32],
}

/// A seller and the escrow on its chain.
struct Shop {
    world: Arc<Scripted>,
    till: Mutex<Till>,
    unit: &'static str,
}

impl Shop {
    fn new(world: &Arc<Scripted>) -> Arc<Self> {
        Self::by(world, "request")
    }

    fn by(world: &Arc<Scripted>, unit: &'static str) -> Arc<Self> {
        let till = Till { escrow_code: ESCROW_CODE, sets_aside: 1, ..Till::default() };
        Arc::new(Self { world: world.clone(), till: Mutex::new(till), unit })
    }

    fn till(&self) -> MutexGuard<'_, Till> {
        self.till.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self, when: When, fault: Fault) {
        self.till().faults.push((when, fault));
    }

    fn challenge(&self) -> Challenge {
        let till = self.till();
        let address =
            |bytes| WireAddress::parse(&network(), Address::from_evm_bytes(bytes).as_str()).unwrap();
        let session = Session {
            network: network(),
            amount: PRICE,
            unit_type: Some(self.unit.to_owned()),
            suggested_deposit: Some(SUGGESTED),
            currency: WireAddress::parse(&network(), usdc().address().as_str()).unwrap(),
            recipient: address([1; 20]),
            description: None,
            external_id: None,
            escrow: address(ESCROW),
            channel_id: None,
            min_voucher_delta: till.min_delta,
            fee_payer: true,
            credential_types: vec![CredentialType::Authorization],
            permit2: None,
            other_details: Object::new(),
        };
        Challenge {
            id: format!("challenge-{}", till.served.len()),
            realm: "seller.example".to_owned(),
            method: MethodName::evm(),
            intent: IntentName::session(),
            request: EncodedRequest::new(session.to_request().to_object()).unwrap(),
            description: None,
            digest: None,
            expires: Some(WireTime::from(self.world.true_time().plus(Duration::from_secs(300)))),
            header: None,
            opaque: None,
        }
    }

    fn asks(&self) -> (u16, HeaderMap, String) {
        let mut headers = HeaderMap::new();
        let challenge = self.challenge().to_header().unwrap();
        headers.insert(mpp::header::WWW_AUTHENTICATE, HeaderValue::from_str(&challenge).unwrap());
        (402, headers, "{}".to_owned())
    }

    fn receipt(&self, till: &Till, channel: [u8; 32]) -> HeaderMap {
        let receipt = SessionReceipt {
            method: "evm".to_owned(),
            timestamp: WireTime::from(self.world.true_time()),
            challenge_id: "challenge".to_owned(),
            channel_id: channel,
            chain_id: Some(84532),
            accepted_cumulative: till.accepted + till.claims,
            spent: till.spent + till.claims,
            units: Some(1),
            tx_hash: None,
        };
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(&receipt.to_receipt().to_header()).unwrap();
        headers.insert(mpp::header::PAYMENT_RECEIPT, value);
        headers
    }

    /// What a good seller does, with every check that the specification asks of it.
    fn does(&self, request: &HttpRequest, credential: &Credential) -> (u16, HeaderMap, String) {
        let Ok(Payload::EvmSession(payload)) = credential.payload() else { panic!("no session") };
        let mut till = self.till();
        let id = *payload.channel_id();
        let voucher_is_good = |cumulative: u128, signature: &[u8], payer| {
            let domain = escrow_domain(84532, ESCROW.into());
            Voucher { channel: B256::from(id), cumulative }.check(&domain, signature, payer).is_ok()
        };
        match &*payload {
            SessionPayload::Open(open) => {
                assert_eq!(request.method, Method::HEAD);
                let Funding::Authorization { authorization, signature } = &open.funding else { panic!() };
                let payer = to_alloy(&authorization.from).unwrap();
                let parts = ChannelParts {
                    payer,
                    payee: to_alloy(&payee()).unwrap(),
                    token: to_alloy(usdc().address()).unwrap(),
                    salt: B256::from(open.salt),
                    authorized_signer: Default::default(),
                    escrow: ESCROW.into(),
                    chain_id: 84532,
                };
                assert_eq!((parts.id().0, parts.open_nonce().0), (id, authorization.nonce));
                pulled(authorization, signature);
                assert!(voucher_is_good(open.cumulative, &open.voucher_signature, payer));
                till.opens += 1;
                till.channels.entry(id).or_insert(OnChain {
                    payer,
                    payee: parts.payee,
                    token: parts.token,
                    authorized_signer: Default::default(),
                    deposit: authorization.value,
                    settled: 0,
                    close_requested_at: 0,
                    finalized: false,
                });
                (204, self.receipt(&till, id), String::new())
            }
            SessionPayload::TopUp(more) => {
                let Funding::Authorization { authorization, signature } = &more.funding else { panic!() };
                let payer = to_alloy(&authorization.from).unwrap();
                let salt = B256::from(more.salt.unwrap());
                let nonce = top_up_nonce(B256::from(id), more.additional_deposit, payer, salt);
                assert_eq!(nonce.0, authorization.nonce);
                pulled(authorization, signature);
                let channel = till.channels.get_mut(&id).unwrap();
                channel.deposit += more.additional_deposit;
                (204, self.receipt(&till, id), String::new())
            }
            SessionPayload::Voucher(voucher) => {
                let channel = till.channels[&id];
                if channel.finalized {
                    return (410, HeaderMap::new(), "{}".to_owned());
                }
                assert!(voucher_is_good(voucher.cumulative, &voucher.signature, channel.payer));
                assert!(voucher.cumulative <= channel.deposit, "beyond the deposit");
                let before = till.vouchers.last().copied().unwrap_or(0);
                assert!(voucher.cumulative >= before, "less than it sent: {before} {}", voucher.cumulative);
                till.vouchers.push(voucher.cumulative);
                if voucher.cumulative > till.accepted {
                    assert!(voucher.cumulative - till.accepted >= till.min_delta, "less than a step");
                }
                till.accepted = till.accepted.max(voucher.cumulative);
                if request.method == Method::HEAD {
                    return (204, self.receipt(&till, id), String::new());
                }
                let name = request.headers[mpp::header::IDEMPOTENCY_KEY].to_str().unwrap().to_owned();
                if let Some(answer) = till.answers.get(&name).cloned() {
                    return (200, self.receipt(&till, id), answer);
                }
                let set_aside = PRICE * till.sets_aside;
                if till.accepted < till.spent + set_aside {
                    return (402, HeaderMap::new(), needs(&till, id, till.spent + set_aside));
                }
                till.spent += set_aside;
                let answer = format!("forecast {}", till.served.len());
                till.served.push(name.clone());
                till.answers.insert(name, answer.clone());
                (200, self.receipt(&till, id), answer)
            }
            SessionPayload::Close { cumulative, signature, .. } => {
                let channel = till.channels[&id];
                assert!(voucher_is_good(*cumulative, signature, channel.payer));
                assert!(*cumulative >= till.spent, "a voucher for less than was served");
                let channel = till.channels.get_mut(&id).unwrap();
                channel.settled = *cumulative;
                channel.finalized = true;
                (204, self.receipt(&till, id), String::new())
            }
        }
    }
}

fn needs(till: &Till, id: [u8; 32], required: u128) -> String {
    let need = NeedVoucher {
        channel_id: id,
        required_cumulative: required,
        accepted_cumulative: till.accepted,
        deposit: till.channels[&id].deposit,
        spent: Some(till.spent),
    };
    let mut problem = Problem::new(ProblemType::InsufficientBalance, "more");
    problem.other = need.to_object();
    Json::Object(problem.to_object()).to_string()
}

/// The token's own check.
fn pulled(authorization: &farthing_wire::x402::exact_evm::Authorization, signature: &[u8]) {
    let registry = Registry::builtin();
    let named = registry.get(&usdc()).unwrap().domain.clone().unwrap();
    let domain = Domain::new(&named.name, &named.version, 84532, to_alloy(usdc().address()).unwrap());
    let from = to_alloy(&authorization.from).unwrap();
    let transfer = TransferAuthorization {
        from,
        to: ESCROW.into(),
        value: U256::from(authorization.value),
        valid_after: U256::ZERO,
        valid_before: U256::from_be_bytes(authorization.valid_before.to_be_bytes()),
        nonce: B256::from(authorization.nonce),
    };
    assert_eq!(authorization.to, Address::from_evm_bytes(ESCROW));
    let signed = Signature::parse(signature).unwrap().recover(transfer.receive_digest(&domain)).unwrap();
    assert_eq!(signed, from, "the escrow alone may take it");
}

struct Line(Arc<Shop>);

impl Line {
    fn whole(request: &HttpRequest, reply: (u16, HeaderMap, String)) -> Answer {
        Answer {
            status: StatusCode::from_u16(reply.0).unwrap(),
            version: Version::HTTP_11,
            headers: reply.1,
            body: Body::Complete(reply.2.into()),
            url: request.url.clone(),
            private: false,
        }
    }
}

#[async_trait]
impl Exchange for Line {
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        _: Reach,
        within: Duration,
    ) -> Result<Answer, SendError> {
        let shop = &self.0;
        let Some(payment) = payment else { return Ok(Self::whole(request, shop.asks())) };
        let credential = Credential::parse(payment.value.as_bytes()).unwrap();
        let Ok(Payload::EvmSession(payload)) = credential.payload() else { panic!() };
        let fault = {
            let mut till = shop.till();
            let at = till.faults.iter().position(|(when, _)| when(&payload, &request.method));
            at.map(|at| till.faults.remove(at).1)
        };
        match fault {
            Some(Fault::KilledBefore) => std::future::pending().await,
            Some(Fault::Busy) => return Ok(Self::whole(request, (503, HeaderMap::new(), String::new()))),
            Some(Fault::Behind) => {
                let problem = Problem::new(ProblemType::AmountExceedsDeposit, "too much");
                let body = Json::Object(problem.to_object()).to_string();
                return Ok(Self::whole(request, (402, HeaderMap::new(), body)));
            }
            Some(Fault::KilledAfter) => {
                shop.does(request, &credential);
                std::future::pending().await
            }
            Some(Fault::Lost) => {
                shop.does(request, &credential);
                shop.world.pass(within);
                Err(SendError::Timeout)
            }
            None => Ok(Self::whole(request, shop.does(request, &credential))),
        }
    }

    async fn open(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        reach: Reach,
        within: Duration,
    ) -> Result<Opened, SendError> {
        if request.url.path() != "/stream" {
            return Ok(Opened { answer: self.send(request, payment, reach, within).await?, rest: None });
        }
        let credential = Credential::parse(payment.unwrap().value.as_bytes()).unwrap();
        let Ok(Payload::EvmSession(payload)) = credential.payload() else { panic!() };
        let id = *payload.channel_id();
        let SessionPayload::Voucher(voucher) = &*payload else { panic!() };
        let mut headers = {
            let mut till = self.0.till();
            till.vouchers.push(voucher.cumulative);
            till.accepted = till.accepted.max(voucher.cumulative);
            self.0.receipt(&till, id)
        };
        headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
        let mut given = 0;
        if let Some(last) = request.headers.get("last-event-id") {
            given = last.to_str().unwrap().parse().unwrap();
            self.0.till().resumed_after.push(given);
            headers.insert("x-farthing-replayed", HeaderValue::from_static("2"));
        }
        let answer = Self::whole(request, (200, headers, String::new()));
        let rest = Events { shop: self.0.clone(), id, given, asked: None };
        Ok(Opened { answer, rest: Some(Box::new(rest)) })
    }
}

/// A stream that gives one unit after the other, as long as it is paid.
struct Events {
    shop: Arc<Shop>,
    id: [u8; 32],
    given: u128,
    /// For what it asked last.
    asked: Option<u128>,
}

#[async_trait]
impl Pieces for Events {
    async fn next(&mut self, _: Duration) -> Result<Option<Bytes>, SendError> {
        let mut till = self.shop.till();
        if let Some(at) = till.breaks.iter().position(|unit| *unit == self.given) {
            till.breaks.remove(at);
            return Err(SendError::Broken("cut".to_owned()));
        }
        if self.given == till.units {
            self.given += 1;
            let value = self.shop.receipt(&till, self.id);
            let receipt = mpp::Receipt::parse(value[mpp::header::PAYMENT_RECEIPT].as_bytes()).unwrap();
            return Ok(Some(Event::Receipt(receipt).print().into()));
        }
        if self.given > till.units {
            return Ok(None);
        }
        if till.accepted >= till.spent + PRICE && !till.gives_nothing {
            till.spent += PRICE;
            self.given += 1;
            self.asked = None;
            let event = Event::Message(format!("token {}", self.given)).print();
            return Ok(Some(format!("id: {}\n{event}", self.given).into()));
        }
        let required = till.accepted.max(till.spent) + PRICE.max(till.min_delta);
        if self.asked == Some(required) {
            return Err(SendError::Timeout);
        }
        self.asked = Some(required);
        let need = NeedVoucher {
            channel_id: self.id,
            required_cumulative: required,
            accepted_cumulative: till.accepted,
            deposit: till.channels[&self.id].deposit,
            spent: None,
        };
        Ok(Some(Event::NeedVoucher(need).print().into()))
    }
}

/// The chain as the buyer's node shows it.
struct Node(Arc<Shop>);

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Node")
    }
}

#[async_trait]
impl ChainView for Node {
    fn network(&self) -> &Network {
        static NETWORK: std::sync::OnceLock<Network> = std::sync::OnceLock::new();
        NETWORK.get_or_init(network)
    }

    fn is_devnet(&self) -> bool {
        false
    }

    async fn time(&self) -> Option<Timestamp> {
        Some(self.0.world.true_time())
    }

    async fn settled_time(&self) -> Option<Timestamp> {
        Some(self.0.world.true_time())
    }

    async fn balance(&self, _: &AssetId, _: &Address) -> Option<u128> {
        Some(1_000_000)
    }

    async fn permit2(&self, _: &AssetId, _: &Address) -> Option<Permit2State> {
        None
    }

    async fn sight(&self, _: &Checked, _: Option<TxHash>) -> Sight {
        Sight::Unavailable
    }

    async fn escrow(&self, _: &Address) -> Option<EscrowFacts> {
        Some(EscrowFacts { code_hash: self.0.till().escrow_code, grace: GRACE })
    }

    async fn channel(&self, _: &Address, id: &ChannelId) -> Option<ChannelSight> {
        let found = self.0.till().channels.get(&id.0).copied();
        let time = self.0.world.true_time();
        Some(ChannelSight {
            latest: found,
            block: time.secs(),
            deep: found,
            deep_block: time.secs(),
            deep_time: time,
        })
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Who buys.

fn disk() -> Journal {
    let journal = Journal::in_memory().unwrap();
    let change = |rules: &mut Rules| {
        rules.networks.insert(network());
        rules.hosts.push(HostRule::new("seller.example".parse().unwrap()));
        rules.schemes.insert("session".to_owned());
        Ok(())
    };
    journal.change_rules(change).unwrap();
    journal
}

struct Life {
    client: Client,
    journal: Arc<Journal>,
}

fn live(disk: &Journal, n: u32, shop: &Arc<Shop>) -> Life {
    let this = format!("life {n}");
    let own = this.clone();
    let journal = Arc::new(disk.as_process(&this, move |other| other != own));
    let key = Key::from_bytes(KEY).unwrap();
    let wallet = LocalAuthorizer::new(key, journal.clone(), Registry::builtin()).in_world(shop.world.clone());
    let client = Client::builder()
        .wallet(wallet)
        .exchange(Arc::new(Line(shop.clone())))
        .world(shop.world.clone())
        .chain(Arc::new(Node(shop.clone())))
        .build()
        .unwrap();
    Life { client, journal }
}

impl Life {
    /// `None` if the process was killed.
    fn fetch(&self, url: &str, options: &Options) -> Option<Result<Outcome, FetchError>> {
        run(self.client.fetch_once(HttpRequest::get(url.parse().unwrap()), options))
    }

    fn buys(&self, url: &str) -> (String, Payment) {
        self.buys_for(url, &Options::default())
    }

    fn buys_for(&self, url: &str, options: &Options) -> (String, Payment) {
        match self.fetch(url, options) {
            Some(Ok(Outcome::Paid { answer, payment })) => {
                (String::from_utf8(answer.body.complete().unwrap().to_vec()).unwrap(), payment)
            }
            other => panic!("{other:?}"),
        }
    }

    fn channel(&self) -> crate::journal::channels::KeptChannel {
        let mut channels = self.journal.channels().unwrap();
        assert_eq!(channels.len(), 1);
        channels.remove(0)
    }

    fn counted(&self, world: &Scripted) -> u128 {
        let clock = Clock { wall: world.now(), steady: None };
        self.journal.spent(&Bucket::Dollar, &clock).unwrap()[0].1 / 1_000_000_000_000
    }
}

fn at(n: u32) -> String {
    format!("{SELLER}?day={n}")
}

fn is_open(payload: &SessionPayload, _: &Method) -> bool {
    matches!(payload, SessionPayload::Open(_))
}

fn is_purchase(payload: &SessionPayload, method: &Method) -> bool {
    matches!(payload, SessionPayload::Voucher(_)) && *method == Method::GET
}

#[test]
fn requests_are_paid_from_one_channel_and_the_deposit_counts_once() {
    let world = Scripted::new(1);
    let shop = Shop::new(&world);
    let life = live(&disk(), 1, &shop);
    for n in 0..5 {
        let (body, payment) = life.buys(&at(n));
        assert_eq!(body, format!("forecast {n}"));
        assert_eq!((payment.settlement, payment.shown), (Settlement::Claimed, 1));
        assert_eq!(payment.money.atoms(), PRICE);
    }
    let till = shop.till();
    assert_eq!((till.opens, till.accepted, till.spent), (1, 5 * PRICE, 5 * PRICE));
    assert_eq!(till.vouchers, (1..=5).map(|n| n * PRICE).collect::<Vec<_>>(), "exact increments");
    drop(till);
    let kept = life.channel();
    assert_eq!(*kept.payer.state(), PayerState::Open);
    assert_eq!((kept.payer.signed(), kept.payer.used(), kept.payer.deposit()), (500, 500, SUGGESTED));
    assert_eq!(life.counted(&world), SUGGESTED, "the deposit, and no voucher besides");
    assert!(life.journal.open_purchases().unwrap().is_empty());
}

#[test]
fn a_wallet_whose_owner_did_not_allow_sessions_pays_none() {
    let world = Scripted::new(1);
    let shop = Shop::new(&world);
    let disk = disk();
    disk.change_rules(|rules| {
        rules.schemes.remove("session");
        Ok(())
    })
    .unwrap();
    let life = live(&disk, 1, &shop);
    let Some(Ok(outcome @ Outcome::Denied { .. })) = life.fetch(&at(0), &Options::default()) else {
        panic!()
    };
    assert_eq!(super::tests::objections(&outcome), ["scheme_not_allowed"]);
    assert_eq!(shop.till().opens, 0);
    assert_eq!(life.counted(&world), 0);
}

#[test]
fn a_deposit_goes_only_where_the_escrow_is_what_it_should_be() {
    let world = Scripted::new(1);
    let shop = Shop::new(&world);
    shop.till().escrow_code = [7; 32];
    let life = live(&disk(), 1, &shop);
    let Some(Ok(Outcome::Denied { denied: Some(denied), .. })) = life.fetch(&at(0), &Options::default())
    else {
        panic!()
    };
    assert_eq!(denied.code(), "escrow_code_differs");
    assert_eq!((shop.till().opens, life.counted(&world)), (0, 0));
    assert!(life.journal.channels().unwrap().is_empty());
}

#[test]
fn a_deposit_is_no_more_than_the_rules_and_the_call_allow() {
    let world = Scripted::new(1);
    for (max, per_payment, expected) in
        [(None, 400, 400), (Some("0.0003"), 100_000, 300), (None, 100_000, 1_000)]
    {
        let shop = Shop::new(&world);
        let disk = disk();
        disk.change_rules(|rules| {
            let micro = 1_000_000_000_000u128;
            let caps =
                Caps { per_payment: per_payment * micro, hour: 1_000_000 * micro, day: 5_000_000 * micro };
            rules.caps.insert(Bucket::Dollar, caps);
            Ok(())
        })
        .unwrap();
        let life = live(&disk, 1, &shop);
        let options = Options { max: max.map(str::to_owned), ..Options::default() };
        life.buys_for(&at(0), &options);
        assert_eq!(life.channel().payer.deposit(), expected);
    }
}

/// Kill points: after the journal's commit and before sending; after sending and before the answer. Of the deposit and
/// of a voucher.
#[test]
fn a_buyer_that_is_killed_anywhere_deposits_once_and_pays_each_request_once() {
    for when in [is_open as When, is_purchase as When] {
        for fault in [Fault::KilledBefore, Fault::KilledAfter] {
            let world = Scripted::new(3);
            let shop = Shop::new(&world);
            let disk = disk();
            shop.fails(when, fault);
            assert!(live(&disk, 1, &shop).fetch(&at(0), &Options::default()).is_none(), "{fault:?}");
            let second = live(&disk, 2, &shop);
            assert_eq!(second.buys(&at(0)).0, "forecast 0", "{fault:?}");
            assert_eq!(second.buys(&at(1)).0, "forecast 1");
            let till = shop.till();
            assert_eq!((till.spent, till.accepted), (2 * PRICE, 2 * PRICE), "{fault:?}");
            assert_eq!(till.channels.len(), 1);
            assert_eq!(till.channels.values().next().unwrap().deposit, SUGGESTED);
            drop(till);
            assert_eq!(second.counted(&world), SUGGESTED);
            assert_eq!(second.channel().payer.signed(), 2 * PRICE);
        }
    }
}

#[test]
fn a_lost_answer_is_asked_for_again_with_the_same_voucher() {
    let world = Scripted::new(4);
    let shop = Shop::new(&world);
    shop.fails(is_purchase, Fault::Lost);
    shop.fails(is_purchase, Fault::Busy);
    let life = live(&disk(), 1, &shop);
    let (body, payment) = life.buys(&at(0));
    assert_eq!((body.as_str(), payment.shown), ("forecast 0", 3));
    let till = shop.till();
    assert_eq!((till.spent, till.vouchers.clone()), (PRICE, vec![PRICE, PRICE]));
    assert_eq!(till.served, [payment.id.to_string()]);
}

#[test]
fn a_deposit_that_runs_out_is_topped_up_within_the_rules() {
    let world = Scripted::new(5);
    let shop = Shop::new(&world);
    let life = live(&disk(), 1, &shop);
    for n in 0..12 {
        life.buys(&at(n));
    }
    let till = shop.till();
    assert_eq!((till.opens, till.spent), (1, 12 * PRICE));
    assert_eq!(till.channels.values().next().unwrap().deposit, 2 * SUGGESTED);
    drop(till);
    assert_eq!(life.counted(&world), 2 * SUGGESTED);
    // And where they leave no room, nothing is vouched beyond it.
    life.journal
        .change_rules(|rules| {
            let caps = rules.caps.get_mut(&Bucket::Dollar).unwrap();
            caps.hour = 2_000 * 1_000_000_000_000;
            Ok(())
        })
        .unwrap();
    for n in 12..20 {
        life.buys(&at(n));
    }
    let Some(Ok(Outcome::Denied { denied: Some(denied), .. })) = life.fetch(&at(20), &Options::default())
    else {
        panic!()
    };
    assert_eq!(denied.code(), "over_hour_cap");
    assert_eq!(shop.till().accepted, 2 * SUGGESTED);
}

#[test]
fn a_seller_that_has_not_seen_a_top_up_yet_is_waited_for() {
    let world = Scripted::new(5);
    let shop = Shop::new(&world);
    shop.fails(is_purchase, Fault::Behind);
    let life = live(&disk(), 1, &shop);
    let (_, payment) = life.buys(&at(0));
    assert_eq!((payment.shown, shop.till().vouchers.len()), (2, 1));
}

#[test]
fn a_step_is_at_least_what_the_seller_wants() {
    let world = Scripted::new(6);
    let shop = Shop::new(&world);
    shop.till().min_delta = 250;
    let life = live(&disk(), 1, &shop);
    for n in 0..6 {
        life.buys(&at(n));
    }
    let mut steps = shop.till().vouchers.clone();
    steps.dedup();
    assert_eq!(steps, [250, 500, 750], "what was vouched is used first");
}

#[test]
fn what_a_seller_sets_aside_is_covered_by_the_same_purchase() {
    let world = Scripted::new(6);
    let shop = Shop::new(&world);
    shop.till().sets_aside = 3;
    let life = live(&disk(), 1, &shop);
    let (_, payment) = life.buys(&at(0));
    assert_eq!((payment.money.atoms(), payment.shown), (3 * PRICE, 2));
    assert_eq!(shop.till().accepted, 3 * PRICE);
    // But no more than the call may cost.
    let options = Options { max: Some("0.0002".to_owned()), ..Options::default() };
    let Some(Ok(Outcome::Refused { reason, .. })) = life.fetch(&at(1), &options) else { panic!() };
    assert!(reason.contains("not covered"), "{reason}");
    assert_eq!(shop.till().accepted, 4 * PRICE, "its first unit");
}

#[test]
fn a_request_that_also_covers_what_was_charged_before_is_not_counted_for_more_than_was_sold() {
    let world = Scripted::new(6);
    let shop = Shop::new(&world);
    shop.till().min_delta = 250;
    let life = live(&disk(), 1, &shop);
    life.buys(&at(0));
    // The seller charged for something that broke off on its way, and asks for a voucher that covers both.
    shop.till().spent += PRICE;
    let (_, payment) = life.buys(&at(1));
    let (spent, accepted) = {
        let till = shop.till();
        (till.spent, till.accepted)
    };
    assert_eq!((spent, accepted), (3 * PRICE, 500));
    assert_eq!(payment.money.atoms(), 2 * PRICE);
    let kept = life.channel();
    assert_eq!((kept.payer.used(), kept.payer.closing_amount()), (3 * PRICE, 3 * PRICE));
}

#[test]
fn a_seller_that_claims_more_than_was_vouched_gets_no_further_voucher() {
    let world = Scripted::new(7);
    let shop = Shop::new(&world);
    let life = live(&disk(), 1, &shop);
    life.buys(&at(0));
    shop.till().claims = 10;
    let (_, payment) = life.buys(&at(1));
    assert!(matches!(payment.settlement, Settlement::Contradicted(_)), "{payment:?}");
    let Some(Ok(Outcome::Denied { denied: Some(denied), .. })) = life.fetch(&at(2), &Options::default())
    else {
        panic!()
    };
    assert_eq!(denied.code(), "seller_overclaims");
    assert_eq!(shop.till().accepted, 2 * PRICE);
}

#[test]
fn a_stream_is_paid_as_it_goes_and_topped_up() {
    let world = Scripted::new(8);
    let shop = Shop::by(&world, "llm_token");
    shop.till().units = 15;
    let life = live(&disk(), 1, &shop);
    let (body, payment) = life.buys(STREAM);
    let tokens = body.lines().filter(|line| line.starts_with("data: token")).count();
    assert_eq!(tokens, 15);
    assert!(!body.contains("payment-"), "the payment's own events are not the goods");
    assert_eq!((payment.money.atoms(), payment.settlement), (15 * PRICE, Settlement::Claimed));
    let till = shop.till();
    assert_eq!((till.opens, till.spent, till.accepted), (1, 15 * PRICE, 15 * PRICE));
    assert_eq!(till.channels.values().next().unwrap().deposit, 2 * SUGGESTED);
    drop(till);
    let kept = life.channel();
    assert_eq!((kept.payer.used(), kept.payer.signed()), (15 * PRICE, 15 * PRICE));
    assert_eq!(kept.payer.overclaim(), None);
}

/// A cut connection, three times: each event comes once, and is paid for once.
#[test]
fn a_stream_that_breaks_off_goes_on_after_the_last_event() {
    let world = Scripted::new(8);
    let shop = Shop::by(&world, "llm_token");
    shop.till().units = 8;
    shop.till().breaks = vec![1, 5, 8];
    let life = live(&disk(), 1, &shop);
    let (body, payment) = life.buys(STREAM);
    let tokens: Vec<&str> = body.lines().filter(|line| line.starts_with("data: ")).collect();
    let all: Vec<String> = (1..=8).map(|n| format!("data: token {n}")).collect();
    assert_eq!(tokens, all);
    assert_eq!((payment.money.atoms(), payment.note), (8 * PRICE, None));
    assert_eq!((payment.resumed.times, payment.resumed.replayed), (3, 6));
    let till = shop.till();
    assert_eq!((till.resumed_after.clone(), till.spent), (vec![1, 5, 8], 8 * PRICE));
}

/// What broke off before anything came is asked for by its name, from its beginning.
#[test]
fn a_stream_that_breaks_off_before_its_first_event_is_asked_for_again() {
    let world = Scripted::new(8);
    let shop = Shop::by(&world, "llm_token");
    shop.till().units = 3;
    shop.till().breaks = vec![0];
    let life = live(&disk(), 1, &shop);
    let (body, payment) = life.buys(STREAM);
    assert_eq!(body.lines().filter(|line| line.starts_with("data: ")).count(), 3);
    assert_eq!((payment.note, payment.resumed.times), (None, 1));
    let till = shop.till();
    assert_eq!((till.resumed_after.clone(), till.spent), (vec![], 3 * PRICE));
}

/// A seller that breaks off again and again is asked a bounded number of times.
#[test]
fn a_stream_that_always_breaks_off_is_given_up() {
    let world = Scripted::new(8);
    let shop = Shop::by(&world, "llm_token");
    shop.till().units = 3;
    shop.till().breaks = vec![2; 100];
    let life = live(&disk(), 1, &shop);
    let Some(Ok(Outcome::Paid { payment, .. })) = life.fetch(STREAM, &Options::default()) else { panic!() };
    assert_eq!((payment.note.as_deref(), payment.resumed.times), (Some("stream_broke_off"), 5));
    assert_eq!(shop.till().spent, 2 * PRICE);
}

/// What came of a stream came, and no seller keeps it: whoever was killed in it buys another, with what was vouched.
#[test]
fn a_buyer_that_is_killed_in_a_stream_has_what_came_and_pays_for_no_more() {
    let world = Scripted::new(8);
    let shop = Shop::by(&world, "llm_token");
    shop.till().units = 3;
    let disk = disk();
    let is_next = |payload: &SessionPayload, method: &Method| {
        matches!(payload, SessionPayload::Voucher(_)) && *method == Method::HEAD
    };
    shop.fails(is_next, Fault::KilledBefore);
    assert!(live(&disk, 1, &shop).fetch(STREAM, &Options::default()).is_none());
    let taken = {
        let till = shop.till();
        (till.spent, till.accepted)
    };
    assert_eq!(taken, (PRICE, PRICE));
    let second = live(&disk, 2, &shop);
    let (body, _) = second.buys(STREAM);
    assert_eq!(body.lines().filter(|line| line.starts_with("data: ")).count(), 3);
    let till = shop.till();
    assert_eq!((till.spent, till.accepted), (4 * PRICE, 4 * PRICE), "what the killed one vouched is used");
    drop(till);
    assert_eq!(second.journal.history(10).unwrap().len(), 2);
    assert_eq!(second.channel().payer.overclaim(), None);
}

#[test]
fn a_stream_ends_where_the_call_may_cost_no_more() {
    let world = Scripted::new(9);
    let shop = Shop::by(&world, "llm_token");
    shop.till().units = 50;
    let life = live(&disk(), 1, &shop);
    let options =
        Options { max: Some("0.0004".to_owned()), deposit: Some("0.001".to_owned()), ..Options::default() };
    let (body, payment) = life.buys_for(STREAM, &options);
    assert_eq!(body.lines().filter(|line| line.starts_with("data: ")).count(), 4);
    assert!(payment.note.unwrap().starts_with("stream_ended_by_us"));
    assert_eq!((shop.till().accepted, payment.money.atoms()), (4 * PRICE, 4 * PRICE));
}

#[test]
fn a_stream_that_gives_nothing_gets_one_voucher() {
    let world = Scripted::new(10);
    let shop = Shop::by(&world, "llm_token");
    {
        let mut till = shop.till();
        (till.units, till.gives_nothing) = (50, true);
    }
    let life = live(&disk(), 1, &shop);
    let (body, payment) = life.buys(STREAM);
    assert_eq!(body, "");
    assert!(payment.note.unwrap().contains("nothing came since"));
    assert_eq!(shop.till().accepted, 2 * PRICE, "the first, and one more before it was seen through");
}

#[test]
fn a_channel_is_closed_for_what_was_used_and_frees_the_budget() {
    let world = Scripted::new(11);
    let shop = Shop::new(&world);
    shop.till().min_delta = 250;
    let life = live(&disk(), 1, &shop);
    life.buys(&at(0));
    let id = life.channel().id();
    let closed = run(life.client.close_channel(&id, &Options::default())).unwrap().unwrap();
    assert_eq!(*closed.payer.state(), PayerState::Finalized);
    let channel = *shop.till().channels.values().next().unwrap();
    assert_eq!((channel.settled, channel.finalized), (PRICE, true), "not what was vouched ahead");
    assert_eq!(life.counted(&world), PRICE, "what was taken, and no deposit any more");
    // The next purchase opens another.
    {
        let mut till = shop.till();
        (till.accepted, till.spent) = (0, 0);
        till.vouchers.clear();
    }
    life.buys(&at(1));
    assert_eq!(shop.till().channels.len(), 2);
}

#[test]
fn a_channel_that_the_seller_closed_is_noticed_and_another_opened() {
    let world = Scripted::new(12);
    let shop = Shop::new(&world);
    let life = live(&disk(), 1, &shop);
    life.buys(&at(0));
    shop.till()
        .channels
        .values_mut()
        .for_each(|channel| (channel.settled, channel.finalized) = (PRICE, true));
    let Some(Ok(Outcome::Refused { .. })) = life.fetch(&at(1), &Options::default()) else { panic!() };
    assert_eq!(*life.channel().payer.state(), PayerState::Finalized);
    {
        let mut till = shop.till();
        (till.accepted, till.spent) = (0, 0);
        till.vouchers.clear();
    }
    life.buys(&at(1));
    assert_eq!(shop.till().channels.len(), 2);
}

#[test]
fn channels_are_found_again_when_the_journal_is_lost() {
    let world = Scripted::new(13);
    let shop = Shop::new(&world);
    let life = live(&disk(), 1, &shop);
    life.buys(&at(0));
    let lost = life.channel();
    let life = live(&disk(), 1, &shop);
    let request = HttpRequest::get(SELLER.parse().unwrap());
    let intent = run(life.client.session_offer(request, &Options::default())).unwrap().unwrap();
    assert_eq!(run(life.client.rebuild_channels(&intent)).unwrap().unwrap(), 1);
    assert_eq!(run(life.client.rebuild_channels(&intent)).unwrap().unwrap(), 0, "once");
    let found = life.channel();
    assert_eq!(found.id(), lost.id());
    assert_eq!(found.payer.locked(), SUGGESTED);
    assert!(matches!(found.payer.state(), PayerState::Leaving { .. }), "nobody knows what was signed");
    // A new one is opened under the next number.
    {
        let mut till = shop.till();
        (till.accepted, till.spent) = (0, 0);
        till.vouchers.clear();
    }
    life.buys(&at(1));
    assert_eq!(shop.till().channels.len(), 2);
    assert_eq!(life.counted(&world), 2 * SUGGESTED);
}

#[test]
fn a_deposit_that_never_came_in_lapses_and_frees_the_budget() {
    let world = Scripted::new(14);
    let shop = Shop::new(&world);
    for _ in 0..40 {
        shop.fails(is_open, Fault::Busy);
    }
    let life = live(&disk(), 1, &shop);
    let Some(Err(FetchError::Deposit { channel, .. })) = life.fetch(&at(0), &Options::default()) else {
        panic!()
    };
    assert_eq!(life.counted(&world), SUGGESTED, "it may still come in");
    world.pass(Duration::from_secs(1_000));
    let kept = run(life.client.look_at_channel(&channel)).unwrap().unwrap();
    assert!(matches!(kept.payer.state(), PayerState::Void { .. }));
    assert_eq!(life.counted(&world), 0);
    shop.till().faults.clear();
    life.buys(&at(0));
    assert_eq!(shop.till().channels.len(), 1);
    assert_eq!(life.journal.history(10).unwrap()[0].state, State::Settled);
}

#[test]
fn a_seller_chooses_no_header_of_ours_for_a_sessions_credential() {
    let world = Scripted::new(1);
    let shop = Shop::new(&world);
    for (name, read) in [("Cookie", false), ("Host", false), ("payment-AUTHORIZATION", true)] {
        let challenge = Challenge { header: Some(name.to_owned()), ..shop.challenge() };
        let offer = crate::offer::OfferSession::read(challenge, world.true_time());
        assert_eq!(offer.is_ok(), read, "{name}");
    }
}
