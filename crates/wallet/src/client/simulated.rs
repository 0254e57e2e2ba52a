//! The production client in a scripted world: no tokio, no socket, no clock but the script's. Whatever waits for
//! anything else would wait for ever, and fails the test.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use farthing_engine::BoxFuture;
use farthing_evm::Key;
use farthing_policy::Bucket;
use farthing_primitives::{Registry, Timestamp};
use farthing_wire::x402::exact_evm::Payload;
use farthing_wire::x402::{ErrorCode, Message, SettlementResponse, header, v2};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::tests::{FakeChain, KEY, TX, allow, cent, objections};
use super::*;
use crate::authorizer::LocalAuthorizer;
use crate::chain_view::Sight;
use crate::journal::{Journal, State};

pub(super) const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const SELLER: &str = "https://seller.example/forecast";

/// Runs a future that waits for nothing but its script. `None` if it waits for ever.
pub(super) fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

/// Time that passes when somebody sleeps, and when the script says so.
pub(super) struct Scripted {
    elapsed: Mutex<Duration>,
    /// What somebody did to the wall clock, in seconds.
    wall_secs: Mutex<i64>,
    drawn: Mutex<u64>,
    seed: u64,
}

impl Scripted {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            elapsed: Mutex::default(),
            wall_secs: Mutex::default(),
            drawn: Mutex::default(),
            seed,
        })
    }

    pub(super) fn pass(&self, time: Duration) {
        *self.elapsed.lock().unwrap() += time;
    }

    fn set_wall(&self, secs: i64) {
        *self.wall_secs.lock().unwrap() = secs;
    }

    /// The right time.
    pub(super) fn true_time(&self) -> Timestamp {
        START.plus(self.monotonic())
    }
}

impl World for Scripted {
    fn now(&self) -> Timestamp {
        let secs = *self.wall_secs.lock().unwrap();
        Timestamp::from_millis(self.true_time().millis().saturating_add_signed(secs * 1000))
    }

    fn monotonic(&self) -> Duration {
        *self.elapsed.lock().unwrap()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.pass(duration);
        Box::pin(std::future::ready(()))
    }

    fn spawn(&self, _: BoxFuture<'static, ()>) {
        panic!("the client starts no tasks");
    }

    fn random(&self, into: &mut [u8]) {
        for byte in into {
            let mut drawn = self.drawn.lock().unwrap();
            *drawn = drawn.wrapping_add(1);
            *byte = (self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(*drawn) % 251) as u8;
        }
    }
}

/// What a seller does with a request, and with how many payments it was shown before.
type Script = Box<dyn Fn(Option<&v2::PaymentPayload>, usize) -> Reply + Send + Sync>;

enum Reply {
    Now(u16, Option<Box<SettlementResponse>>, &'static str),
    Lost,
    /// The answer never comes, and nor does anything else: the process is killed while it waits.
    Killed,
}

struct Network {
    world: Arc<Scripted>,
    script: Mutex<Script>,
    shown: Mutex<Vec<String>>,
    asked: AtomicUsize,
}

impl Network {
    fn new(
        world: &Arc<Scripted>,
        script: impl Fn(Option<&v2::PaymentPayload>, usize) -> Reply + Send + Sync + 'static,
    ) -> Arc<Self> {
        let script: Script = Box::new(script);
        let (shown, asked) = (Mutex::default(), AtomicUsize::new(0));
        Arc::new(Self { world: world.clone(), script: Mutex::new(script), shown, asked })
    }

    fn turns(&self, script: impl Fn(Option<&v2::PaymentPayload>, usize) -> Reply + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Box::new(script);
    }

    fn shown(&self) -> Vec<String> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Exchange for Network {
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        reach: Reach,
        within: Duration,
    ) -> Result<Answer, SendError> {
        assert_eq!(reach, Reach::Public);
        self.asked.fetch_add(1, Ordering::Relaxed);
        let paid = payment.map(|header| v2::PaymentPayload::from_header(header.value.as_bytes()).unwrap());
        let reply = {
            let mut shown = self.shown.lock().unwrap();
            let reply = (self.script.lock().unwrap())(paid.as_ref(), shown.len());
            shown.extend(payment.map(|header| header.value.clone()));
            reply
        };
        let (status, receipt, body) = match reply {
            Reply::Now(status, receipt, body) => (status, receipt, body),
            Reply::Lost => {
                self.world.pass(within);
                return Err(SendError::Timeout);
            }
            Reply::Killed => std::future::pending().await,
        };
        let mut headers = HeaderMap::new();
        if let Some(receipt) = receipt {
            headers.insert(header::PAYMENT_RESPONSE, HeaderValue::from_str(&receipt.to_header()).unwrap());
        }
        if status == 402 && payment.is_none() {
            let asked = HeaderValue::from_str(&cent().to_header()).unwrap();
            headers.insert(header::PAYMENT_REQUIRED, asked);
        }
        Ok(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            version: Version::HTTP_11,
            headers,
            body: Body::Complete(body.into()),
            url: request.url.clone(),
            private: false,
        })
    }
}

fn ask() -> Reply {
    Reply::Now(402, None, "{}")
}

fn goods(paid: &v2::PaymentPayload) -> Reply {
    let Ok(Payload::Eip3009 { authorization, .. }) = Payload::parse(&paid.payload) else { panic!() };
    let receipt = SettlementResponse::settled("eip155:84532", TX, Some(&authorization.from.to_string()));
    Reply::Now(200, Some(Box::new(receipt)), "sunny")
}

fn serve(paid: Option<&v2::PaymentPayload>, _: usize) -> Reply {
    paid.map_or_else(ask, goods)
}

/// The buyer's disk: a journal that outlives the processes over it.
fn disk() -> Journal {
    let journal = Journal::in_memory().unwrap();
    allow(&journal, "seller.example");
    journal
}

/// A process of the buyer's, in one of its lives.
struct Life {
    client: Client,
    journal: Arc<Journal>,
}

fn live(
    disk: &Journal,
    n: u32,
    world: &Arc<Scripted>,
    network: &Arc<Network>,
    chain: Option<&Arc<FakeChain>>,
) -> Life {
    let this = format!("life {n}");
    let own = this.clone();
    let journal = Arc::new(disk.as_process(&this, move |other| other != own));
    let key = Key::from_bytes(KEY).unwrap();
    let wallet = LocalAuthorizer::new(key, journal.clone(), Registry::builtin()).in_world(world.clone());
    let mut builder = Client::builder().wallet(wallet).exchange(network.clone()).world(world.clone());
    if let Some(chain) = chain {
        builder = builder.chain(chain.clone());
    }
    Life { client: builder.build().unwrap(), journal }
}

fn request() -> HttpRequest {
    HttpRequest::get(SELLER.parse().unwrap())
}

/// `None` if the process was killed.
fn fetch(life: &Life) -> Option<Outcome> {
    run(life.client.fetch_once(request(), &Options::default())).map(Result::unwrap)
}

fn held(journal: &Journal, world: &Scripted) -> u128 {
    let clock = farthing_policy::Clock { wall: world.now(), steady: None };
    journal.spent(&Bucket::Dollar, &clock).unwrap()[0].1 / 1_000_000_000_000
}

#[test]
fn a_purchase_needs_no_runtime_and_its_seed_replays_it() {
    let story = |seed| {
        let world = Scripted::new(seed);
        let network = Network::new(&world, |paid, before| match (paid, before) {
            (None, _) => ask(),
            (Some(_), 0) => Reply::Lost,
            (Some(_), 1) => Reply::Now(503, None, ""),
            (Some(paid), _) => goods(paid),
        });
        let life = live(&disk(), 1, &world, &network, None);
        let Some(Outcome::Paid { answer, payment }) = fetch(&life) else { panic!() };
        assert_eq!(answer.body.complete().unwrap().as_ref(), b"sunny");
        let shown = network.shown();
        assert!(shown.len() == 3 && shown.iter().all(|header| *header == shown[0]));
        // One time-out, and two pauses of which the second is twice as long.
        let patience = Patience::default();
        assert_eq!(world.monotonic(), patience.answer + 3 * patience.first_pause);
        (payment, shown)
    };
    assert_eq!(story(1), story(1));
    assert_ne!(story(1).1, story(2).1);
}

#[test]
fn a_buyer_that_is_killed_while_it_waits_pays_once() {
    // Killed while it asks for the price, while it pays, and while it shows its payment for the second time.
    for kill_at in 0..3 {
        let world = Scripted::new(7);
        let network = Network::new(&world, |_, _| Reply::Killed);
        network.turns(move |paid, before| match paid {
            None if kill_at == 0 => Reply::Killed,
            None => ask(),
            Some(_) if before + 1 == kill_at => Reply::Killed,
            Some(_) => Reply::Now(503, None, ""),
        });
        let disk = disk();
        assert!(fetch(&live(&disk, 1, &world, &network, None)).is_none());
        let before = network.shown();
        network.turns(serve);
        let second = live(&disk, 2, &world, &network, None);
        let recovered = run(second.client.recover(&Options::default())).unwrap().unwrap();
        let again: Vec<_> = recovered.shown.iter().map(|(_, shown)| shown.as_ref().unwrap()).collect();
        if before.is_empty() {
            assert!(again.is_empty());
        } else {
            assert!(matches!(again[..], [Outcome::Paid { .. }]), "{again:?}");
        }
        // Whoever wanted it asks again: what was bought is bought, and otherwise it is bought now.
        assert!(matches!(fetch(&second), Some(Outcome::Paid { .. })));
        let shown = network.shown();
        let purchases = second.journal.history(10).unwrap();
        let bought = if before.is_empty() { 1 } else { 2 };
        assert_eq!(purchases.len(), bought);
        assert!(purchases.iter().all(|purchase| purchase.state == State::Settled && purchase.delivered));
        let mut distinct = shown.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), bought, "no payment but those of the purchases");
        assert_eq!(held(&second.journal, &world), 10_000 * bought as u128);
    }
}

#[test]
fn a_killed_buyer_that_asks_for_the_same_again_buys_nothing_new() {
    let world = Scripted::new(3);
    let network = Network::new(&world, |paid, _| if paid.is_some() { Reply::Killed } else { ask() });
    let disk = disk();
    assert!(fetch(&live(&disk, 1, &world, &network, None)).is_none());
    assert!(fetch(&live(&disk, 2, &world, &network, None)).is_none());
    network.turns(serve);
    let third = live(&disk, 3, &world, &network, None);
    assert!(matches!(fetch(&third), Some(Outcome::Paid { .. })));
    let shown = network.shown();
    assert!(shown.len() == 3 && shown.iter().all(|header| *header == shown[0]));
    assert_eq!((third.journal.history(10).unwrap().len(), held(&third.journal, &world)), (1, 10_000));
}

#[test]
fn a_process_that_lives_on_and_asks_again_pays_once() {
    let world = Scripted::new(5);
    let network = Network::new(&world, |paid, _| if paid.is_some() { Reply::Lost } else { ask() });
    let disk = disk();
    let life = live(&disk, 1, &world, &network, None);
    assert!(matches!(fetch(&life), Some(Outcome::Unknown { .. })));
    network.turns(serve);
    assert!(matches!(fetch(&life), Some(Outcome::Paid { .. })));
    let shown = network.shown();
    assert!(shown.iter().all(|header| *header == shown[0]), "one payment, however often");
    assert_eq!(life.journal.history(10).unwrap().len(), 1);
}

#[test]
fn what_the_chain_settled_while_nobody_looked_is_asked_for_and_not_bought_anew() {
    let world = Scripted::new(4);
    let chain = Arc::new(FakeChain {
        time: Mutex::new(Some(START)),
        ..FakeChain::seeing(Sight::Settled { tx: tx_hash(TX).unwrap() })
    });
    let network = Network::new(&world, |paid, _| if paid.is_some() { Reply::Killed } else { ask() });
    let disk = disk();
    assert!(fetch(&live(&disk, 1, &world, &network, Some(&chain))).is_none());
    let second = live(&disk, 2, &world, &network, Some(&chain));
    // The owner looks first: the money moved. Then the goods are asked for, with what paid for them.
    let sights = run(second.client.reconcile_all()).unwrap().unwrap();
    assert!(matches!(sights[..], [(_, Ok(Sight::Settled { .. }))]), "{sights:?}");
    network.turns(serve);
    let Some(Outcome::Paid { payment, .. }) = fetch(&second) else { panic!() };
    assert_eq!(payment.settlement, Settlement::Confirmed);
    let shown = network.shown();
    assert_eq!((shown.len(), &shown[0]), (2, &shown[1]));
    assert_eq!(held(&second.journal, &world), 10_000);
}

#[test]
fn what_nobody_answers_for_is_held_until_the_chain_proves_it_dead() {
    let world = Scripted::new(5);
    let chain = Arc::new(FakeChain {
        time: Mutex::new(Some(START)),
        ..FakeChain::seeing(Sight::Unused { as_of: START })
    });
    let network = Network::new(&world, |paid, _| if paid.is_some() { Reply::Killed } else { ask() });
    let disk = disk();
    assert!(fetch(&live(&disk, 1, &world, &network, Some(&chain))).is_none());
    network.turns(|_, _| Reply::Lost);
    // Its end is a minute after its beginning, and the margin one more: a second before that proves nothing.
    for (n, (secs, state)) in
        [(0, State::Unknown), (119, State::Unknown), (120, State::Released)].into_iter().enumerate()
    {
        *chain.sight.lock().unwrap() = Sight::Unused { as_of: START.plus(Duration::from_secs(secs)) };
        let life = live(&disk, 2 + u32::try_from(n).unwrap(), &world, &network, Some(&chain));
        let recovered = run(life.client.recover(&Options::default())).unwrap().unwrap();
        let purchase = life.journal.history(1).unwrap().remove(0);
        assert_eq!(purchase.state, state, "{secs} s");
        assert_eq!(recovered.shown.len(), usize::from(state != State::Released), "what is dead is not shown");
        assert_eq!(held(&life.journal, &world), if state == State::Released { 0 } else { 10_000 });
    }
}

/// Known attack 15: the answer was lost, and the seller settled; shown again, it refuses what is used up.
#[test]
fn attack_15_a_refusal_of_what_was_taken_before_is_no_leave_to_pay_again() {
    let (used, other) = (ErrorCode::InvalidExactEvmNonceAlreadyUsed, ErrorCode::from("no"));
    let settled = Sight::Settled { tx: tx_hash(TX).unwrap() };
    let unused = Sight::Unused { as_of: START };
    let never = Sight::Unused { as_of: START.plus(Duration::from_secs(86_400)) };
    for (code, sight, state) in [
        (&used, Some(settled), State::Settled),
        (&other, Some(settled), State::Settled),
        (&used, Some(Sight::Used), State::Unknown),
        (&other, Some(Sight::Used), State::Unknown),
        (&used, Some(Sight::Unavailable), State::Unknown),
        (&other, Some(Sight::Unavailable), State::Unknown),
        (&used, None, State::Unknown),
        (&other, None, State::Unknown),
        // It does not have the money yet.
        (&used, Some(unused), State::Unknown),
        (&other, Some(unused), State::Unknown),
        // It lies, or errs; it never will.
        (&used, Some(never), State::Refused),
        (&other, Some(never), State::Refused),
    ] {
        let world = Scripted::new(12);
        let no = SettlementResponse::failed("eip155:84532", code.clone(), None);
        let network = Network::new(&world, move |paid, before| match (paid, before) {
            (None, _) => ask(),
            (Some(_), 0) => Reply::Lost,
            (Some(_), _) => Reply::Now(402, Some(Box::new(no.clone())), "{}"),
        });
        let chain = sight
            .map(|sight| Arc::new(FakeChain { time: Mutex::new(Some(START)), ..FakeChain::seeing(sight) }));
        let disk = disk();
        let first = live(&disk, 1, &world, &network, chain.as_ref());
        let outcome = fetch(&first).unwrap();
        let purchase = first.journal.history(1).unwrap().remove(0);
        assert_eq!(purchase.state, state, "{code} {sight:?}");
        assert_eq!(matches!(outcome, Outcome::Unknown { .. }), state == State::Unknown, "{outcome:?}");
        // The same command again makes another payment only where nobody took the first.
        network.turns(serve);
        fetch(&live(&disk, 2, &world, &network, None)).unwrap();
        let bought = first.journal.history(10).unwrap().len();
        assert_eq!(bought, if state == State::Refused { 2 } else { 1 }, "{code} {sight:?}");
    }
}

/// Known attack 14: a seller that refuses, or whose facilitator lies to it, and settles all that it was shown.
#[test]
fn attack_14_a_refused_payment_that_can_still_be_settled_is_the_only_one() {
    let world = Scripted::new(15);
    let network = Network::new(&world, |paid, _| match paid {
        None => ask(),
        Some(_) => Reply::Now(402, None, "{}"),
    });
    let disk = disk();
    for turn in 1..=5 {
        let outcome = fetch(&live(&disk, turn, &world, &network, None)).unwrap();
        assert!(matches!(outcome, Outcome::Refused { .. } | Outcome::Unknown { .. }), "{outcome:?}");
    }
    let life = live(&disk, 6, &world, &network, None);
    assert_eq!(life.journal.history(10).unwrap().len(), 1);
    assert_eq!(held(&life.journal, &world), 10_000, "the price of one");
    let shown = network.shown();
    assert!(shown.len() >= 5 && shown.iter().all(|header| *header == shown[0]), "one payment, however often");
    // A seller that comes round gives what it is for.
    network.turns(serve);
    assert!(matches!(fetch(&life).unwrap(), Outcome::Paid { .. }));
    assert_eq!(life.journal.history(10).unwrap().len(), 1);

    // What was refused once and can be settled no more stands in nobody's way.
    let world = Scripted::new(16);
    let network = Network::new(&world, |paid, _| match paid {
        None => ask(),
        Some(_) => Reply::Now(402, None, "{}"),
    });
    let life = live(&self::disk(), 1, &world, &network, None);
    assert!(matches!(fetch(&life).unwrap(), Outcome::Refused { .. }));
    world.pass(Duration::from_secs(86_400));
    network.turns(serve);
    assert!(matches!(fetch(&life).unwrap(), Outcome::Paid { .. }));
    assert_eq!(life.journal.history(10).unwrap().len(), 2);
}

/// Known attack 15: what a gateway of ours says to a payment that is taken, and to one that is being answered.
#[test]
fn attack_15_a_conflict_says_that_the_payment_is_taken_and_not_that_another_is_wanted() {
    for (code, state) in [
        (r#"{"error":"payment_already_used"}"#, State::Unknown),
        (r#"{"error":"payment_for_other_request"}"#, State::Unknown),
        (r#"{"error":"payment_in_progress"}"#, State::Unknown),
        (r#"{"error":"payment_identifier_taken"}"#, State::Refused),
        ("no", State::Refused),
    ] {
        let world = Scripted::new(13);
        let network = Network::new(&world, move |paid, _| match paid {
            None => ask(),
            Some(_) => Reply::Now(409, None, code),
        });
        let disk = disk();
        let first = live(&disk, 1, &world, &network, None);
        fetch(&first).unwrap();
        assert_eq!(first.journal.history(1).unwrap()[0].state, state, "{code}");
        // Whatever it says, it can still settle the first: that is shown again, and no other is made.
        network.turns(serve);
        fetch(&live(&disk, 2, &world, &network, None)).unwrap();
        assert_eq!(first.journal.history(10).unwrap().len(), 1, "{code}");
    }
    // What is known to be paid is not unknown again.
    let world = Scripted::new(14);
    let network = Network::new(&world, |paid, _| match paid {
        None => ask(),
        Some(_) => {
            let receipt = SettlementResponse::settled("eip155:84532", TX, None);
            Reply::Now(402, Some(Box::new(receipt)), "{}")
        }
    });
    let disk_of_payer = disk();
    assert!(matches!(fetch(&live(&disk_of_payer, 1, &world, &network, None)), Some(Outcome::Refused { .. })));
    network.turns(|_, _| Reply::Now(409, None, r#"{"error":"payment_already_used"}"#));
    let second = live(&disk_of_payer, 2, &world, &network, None);
    let Some(Outcome::Refused { payment, .. }) = fetch(&second) else { panic!() };
    assert_eq!(payment.settlement, Settlement::Claimed);
    let purchases = second.journal.history(2).unwrap();
    assert_eq!((purchases.len(), purchases[0].state), (1, State::Settled));
    // Whoever waits for the other copy has its answer.
    let world = Scripted::new(13);
    let network = Network::new(&world, |paid, before| match (paid, before) {
        (None, _) => ask(),
        (Some(_), 0) => Reply::Now(409, None, r#"{"error":"payment_in_progress"}"#),
        (Some(paid), _) => goods(paid),
    });
    assert!(matches!(fetch(&live(&disk(), 1, &world, &network, None)), Some(Outcome::Paid { .. })));
}

/// A settlement that the chain showed, and then took back.
#[test]
fn what_a_reorganization_took_away_is_released_when_it_can_never_come_back() {
    let end = 60 + crate::REORG_MARGIN.as_secs();
    let settled = Sight::Settled { tx: tx_hash(TX).unwrap() };
    let unused = |secs| Sight::Unused { as_of: START.plus(Duration::from_secs(secs)) };
    // When, what the chain says, whether it is asked at all, and what the books say then.
    let taken_back = [
        (10, unused(10), false, (State::Settled, false)),
        (end - 1, unused(end - 1), false, (State::Settled, false)),
        (end, unused(end), true, (State::Released, false)),
    ];
    let kept = [
        (end, Sight::Unavailable, true, (State::Settled, false)),
        (end, settled, true, (State::Settled, true)),
        (end + 1, unused(end + 1), false, (State::Settled, true)),
    ];
    for story in [taken_back, kept] {
        let world = Scripted::new(11);
        let network = Network::new(&world, serve);
        let chain = Arc::new(FakeChain { time: Mutex::new(Some(START)), ..FakeChain::seeing(settled) });
        let life = live(&disk(), 1, &world, &network, Some(&chain));
        let Some(Outcome::Paid { payment, .. }) = fetch(&life) else { panic!() };
        assert_eq!(payment.settlement, Settlement::Confirmed);
        for (secs, sight, asked, (state, finalized)) in story {
            *chain.time.lock().unwrap() = Some(START.plus(Duration::from_secs(secs)));
            *chain.sight.lock().unwrap() = sight;
            let sights = run(life.client.reconcile_all()).unwrap().unwrap();
            assert_eq!(sights.len(), usize::from(asked), "{secs} s, {sight:?}");
            let purchase = life.journal.get(&payment.id).unwrap();
            assert_eq!((purchase.state, purchase.finalized), (state, finalized), "{secs} s, {sight:?}");
            assert_eq!(held(&life.journal, &world), if state == State::Released { 0 } else { 10_000 });
        }
    }
}

#[test]
fn an_error_that_says_in_a_receipt_that_nothing_was_charged_is_a_refusal() {
    let no = || Some(SettlementResponse::failed("eip155:84532", ErrorCode::from("upstream_not_ok"), None));
    for (status, method, times) in [
        (500, Method::GET, 3),
        (502, Method::GET, 3),
        (502, Method::POST, 1),
        (503, Method::GET, 12),
        (503, Method::POST, 12),
    ] {
        let world = Scripted::new(6);
        let network = Network::new(&world, move |paid, _| match paid {
            None => ask(),
            Some(_) => Reply::Now(status, no().map(Box::new), "broken"),
        });
        let life = live(&disk(), 1, &world, &network, None);
        let asked = HttpRequest { method, ..request() };
        let outcome = run(life.client.fetch(asked, &Options::default())).unwrap().unwrap();
        let Outcome::Refused { answer, payment, reason } = outcome else { panic!("{outcome:?}") };
        assert_eq!((answer.status.as_u16(), reason.as_str()), (status, "upstream_not_ok"));
        assert_eq!((payment.shown, network.shown().len()), (times, times as usize));
        // The seller's word is a word.
        assert_eq!(life.journal.get(&payment.id).unwrap().state, State::Refused);
        assert_eq!(held(&life.journal, &world), 10_000);
    }
    // Without a receipt it is a failure like any other; and one that says that it took the money is no refusal.
    for receipt in [None, Some(SettlementResponse::settled("eip155:84532", TX, None))] {
        let world = Scripted::new(6);
        let said = receipt.clone();
        let network = Network::new(&world, move |paid, _| match paid {
            None => ask(),
            Some(_) => Reply::Now(500, said.clone().map(Box::new), "broken"),
        });
        let life = live(&disk(), 1, &world, &network, None);
        assert!(matches!(fetch(&life), Some(Outcome::Unknown { .. })), "{receipt:?}");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Time.

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
const DAY: i64 = 86_400;

/// A buyer, an honest seller, and a chain whose clock is right if there is one.
fn in_time(with_chain: bool) -> (Arc<Scripted>, Life, Option<Arc<FakeChain>>) {
    let world = Scripted::new(8);
    let network = Network::new(&world, serve);
    let chain = with_chain.then(|| {
        Arc::new(FakeChain { time: Mutex::new(Some(START)), ..FakeChain::seeing(Sight::Unavailable) })
    });
    let life = live(&disk(), 1, &world, &network, chain.as_ref());
    (world, life, chain)
}

/// `paid`, or why not.
fn buy(life: &Life) -> String {
    match fetch(life).unwrap() {
        Outcome::Paid { .. } => "paid".to_owned(),
        denied => objections(&denied).remove(0),
    }
}

#[test]
fn a_leap_to_the_past_empties_no_budget() {
    for chain in [false, true] {
        let (world, life, _) = in_time(chain);
        let cap = |rules: &mut farthing_policy::Rules| {
            let caps = rules.caps.get_mut(&Bucket::Dollar).unwrap();
            caps.hour = 20_000_000_000_000_000;
            Ok(())
        };
        life.journal.change_rules(cap).unwrap();
        assert_eq!([buy(&life), buy(&life), buy(&life)], ["paid", "paid", "over_hour_cap"]);
        let before = held(&life.journal, &world);
        for back in [-1, -3_600, -30 * DAY] {
            world.set_wall(back);
            let expected = if chain && back < -54 { "clock_behind_chain" } else { "over_hour_cap" };
            assert_eq!(buy(&life), expected, "{back} s");
            assert_eq!(held(&life.journal, &world), before);
        }
    }
}

#[test]
fn a_leap_to_the_past_does_not_hold_the_budget_for_ever() {
    let (world, life, _) = in_time(false);
    let cap = |rules: &mut farthing_policy::Rules| {
        rules.caps.get_mut(&Bucket::Dollar).unwrap().hour = 10_000_000_000_000_000;
        Ok(())
    };
    life.journal.change_rules(cap).unwrap();
    assert_eq!([buy(&life), buy(&life)], ["paid", "over_hour_cap"]);
    world.set_wall(-DAY);
    world.pass(Duration::from_secs(HOUR));
    assert_eq!(buy(&life), "over_hour_cap", "it could move for a minute more");
    world.pass(Duration::from_secs(MINUTE));
    assert_eq!(buy(&life), "paid", "the hour went by, whatever the wall says");
}

#[test]
fn a_leap_to_the_future_signs_nothing_and_ends_no_window() {
    for chain in [false, true] {
        let (world, life, _) = in_time(chain);
        assert_eq!(buy(&life), "paid");
        let code = if chain { "clock_ahead_of_chain" } else { "clock_set_forward" };
        for forward in [DAY, 365 * DAY] {
            world.set_wall(forward);
            assert_eq!(buy(&life), code, "{forward} s");
        }
        let history = life.journal.history(10).unwrap();
        assert_eq!(history.len(), 1);
        // Put right again, and nothing has happened.
        world.set_wall(0);
        assert_eq!(buy(&life), "paid");
        assert_eq!(held(&life.journal, &world), 20_000);
    }
}

#[test]
fn a_chain_that_says_so_too_makes_a_leap_right() {
    let (world, life, _) = in_time(true);
    world.set_wall(-DAY);
    assert_eq!(buy(&life), "clock_behind_chain", "a machine that starts with yesterday's time");
    world.set_wall(0);
    assert_eq!(buy(&life), "paid", "and finds out what time it is");
}

#[test]
fn a_clock_that_cannot_be_right_signs_nothing_and_moves_no_books() {
    let (world, life, _) = in_time(false);
    assert_eq!(buy(&life), "paid");
    for wall in [-(START.secs() as i64), 100 * 365 * DAY] {
        world.set_wall(wall);
        assert_eq!(buy(&life), "clock_absurd");
        assert_eq!(held(&life.journal, &world), 10_000);
    }
    world.set_wall(0);
    assert_eq!(buy(&life), "paid");
    assert_eq!(held(&life.journal, &world), 20_000);
}

#[test]
fn what_is_signed_begins_ever_and_ends_with_the_sellers_patience_or_the_owners() {
    for (owner, ends) in [(300, 60), (45, 45)] {
        let (world, network) = {
            let world = Scripted::new(9);
            (world.clone(), Network::new(&world, serve))
        };
        let life = live(&disk(), 1, &world, &network, None);
        let short = |rules: &mut farthing_policy::Rules| {
            rules.max_validity = Duration::from_secs(owner);
            Ok(())
        };
        life.journal.change_rules(short).unwrap();
        assert_eq!(buy(&life), "paid");
        let paid = v2::PaymentPayload::from_header(network.shown()[0].as_bytes()).unwrap();
        let Ok(Payload::Eip3009 { authorization, .. }) = Payload::parse(&paid.payload) else { panic!() };
        // Spec: EIP-3009: valid while validAfter < now < validBefore. Zero begins for the slowest of clocks.
        assert_eq!(authorization.valid_after.to_u128(), Some(0));
        assert_eq!(authorization.valid_before.to_u128(), Some(u128::from(START.secs()) + ends));
        let purchase = life.journal.history(1).unwrap().remove(0);
        assert_eq!(purchase.expires, START.plus(Duration::from_secs(u64::try_from(ends).unwrap())));
    }
}

#[test]
fn what_lives_longer_on_a_slow_chain_counts_for_longer() {
    let counts_for = |behind: u64| {
        let world = Scripted::new(10);
        let network = Network::new(&world, serve);
        let time = Mutex::new(Some(START.minus(Duration::from_secs(behind))));
        let chain = Arc::new(FakeChain { time, ..FakeChain::seeing(Sight::Unavailable) });
        let life = live(&disk(), 1, &world, &network, Some(&chain));
        assert_eq!(buy(&life), "paid");
        let mut counted = 0;
        while held(&life.journal, &world) > 0 {
            world.pass(Duration::from_secs(1));
            counted += 1;
        }
        counted
    };
    assert_eq!(counts_for(0), HOUR + MINUTE);
    assert_eq!(counts_for(600), HOUR + MINUTE + 600);
}

#[test]
fn an_offer_is_not_taken_with_a_clock_that_is_wrong_for_its_chain() {
    let (world, life, _) = in_time(true);
    world.set_wall(-DAY);
    let dry = Options { dry_run: true, ..Options::default() };
    let Ok(Outcome::Planned(plan)) = run(life.client.fetch(request(), &dry)).unwrap() else { panic!() };
    assert!(plan.best.is_none(), "a dry run says so too");
    assert!(life.journal.history(1).unwrap().is_empty());
}
