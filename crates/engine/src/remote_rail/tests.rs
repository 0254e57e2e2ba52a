// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use farthing_evm::{
    AuthorizationCanceled, AuthorizationUsed, B256, Log, Read, ReadResult, Transfer, U256, to_alloy,
};
use farthing_payment::{Binding, Bound, Event, Flow, NewPayment, Role, Terms};
use farthing_primitives::{PaymentId, PullMethod, RequestHash, TenantId, Timestamp};
use farthing_rails::exact_evm::buy::{Nonce, authorize};
use farthing_rails::exact_evm::{Policy, check};

use super::*;
use crate::Tag;
use crate::{BoxFuture, Broadcast, ChainError, Fees, Finality, Head, LogFilter, Receipt, SignedTx, TxHash};

const TX: &str = "0xabcdef0000000000000000000000000000000000000000000000000000000001";
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// A world whose wall clock is set by hand, on a runtime whose own clock is paused.
struct HandWorld {
    wall: AtomicU64,
    started: tokio::time::Instant,
    random: AtomicU64,
}

impl World for HandWorld {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
    fn random(&self, into: &mut [u8]) {
        let next = self.random.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        into.iter_mut().zip(next.iter().cycle()).for_each(|(byte, next)| *byte = *next);
    }
}

#[derive(Clone)]
enum Says {
    Answer(u16, String),
    No(NoAnswer),
    Never,
}

/// A facilitator that says what it is told to, in this order, and the last of it for ever.
struct Scripted {
    id: String,
    settle: Mutex<VecDeque<Says>>,
    verify: Mutex<Says>,
    supported: Mutex<Says>,
    settled: AtomicU64,
    bodies: Mutex<Vec<Bytes>>,
}

#[async_trait]
impl Facilitator for Scripted {
    fn id(&self) -> &str {
        &self.id
    }
    fn name(&self) -> &str {
        &self.id
    }
    async fn ask(&self, call: FacilitatorCall, _: Duration) -> Result<FacilitatorAnswer, NoAnswer> {
        let says = match call.ask {
            Ask::Supported => lock(&self.supported).clone(),
            Ask::Verify => lock(&self.verify).clone(),
            Ask::Settle => {
                self.settled.fetch_add(1, Ordering::SeqCst);
                lock(&self.bodies).push(call.body);
                let mut script = lock(&self.settle);
                if script.len() > 1 { script.pop_front().unwrap() } else { script[0].clone() }
            }
        };
        match says {
            Says::Answer(status, body) => Ok(FacilitatorAnswer { status, body: body.into() }),
            Says::No(error) => Err(error),
            Says::Never => std::future::pending().await,
        }
    }
}

fn scripted(id: &str, settle: impl IntoIterator<Item = Says>) -> Arc<Scripted> {
    Arc::new(Scripted {
        id: format!("https://{id}.example/"),
        settle: Mutex::new(settle.into_iter().collect()),
        verify: Mutex::new(ok(r#"{"isValid":true,"payer":"0x01"}"#)),
        supported: Mutex::new(Says::Answer(404, "no".to_owned())),
        settled: AtomicU64::new(0),
        bodies: Mutex::default(),
    })
}

fn ok(body: &str) -> Says {
    Says::Answer(200, body.to_owned())
}

fn success() -> String {
    format!(r#"{{"success":true,"transaction":"{TX}","network":"eip155:84532"}}"#)
}

/// A chain of which a test says what is in it. Blocks are two seconds apart, and `fork` tells two chains apart.
struct FakeChain {
    network: Network,
    state: Mutex<ChainState>,
}

#[derive(Clone)]
struct ChainState {
    tip: u64,
    /// When the newest block was made.
    time: Timestamp,
    safe: u64,
    finalized: u64,
    fork: u8,
    consumed: bool,
    receipts: HashMap<TxHash, Receipt>,
}

impl FakeChain {
    fn new() -> Arc<Self> {
        let state = ChainState {
            tip: 100,
            time: NOW,
            safe: 90,
            finalized: 80,
            fork: 1,
            consumed: false,
            receipts: HashMap::new(),
        };
        Arc::new(Self { network: Network::eip155(84532), state: Mutex::new(state) })
    }

    fn with(&self, change: impl FnOnce(&mut ChainState)) {
        change(&mut lock(&self.state));
    }

    fn hash(state: &ChainState, block: u64) -> [u8; 32] {
        let mut hash = [state.fork; 32];
        hash[..8].copy_from_slice(&block.to_be_bytes());
        hash
    }

    /// Puts a transaction with these logs into a block.
    fn include(&self, block: u64, logs: Vec<Log>) {
        self.with(|state| {
            let tx = parse_hash(&TxRef::new(TX)).unwrap();
            let block_hash = Self::hash(state, block);
            let receipt = Receipt { tx, success: true, block, block_hash, gas_used: 1, gas_price: 1, logs };
            state.receipts.insert(tx, receipt);
            state.consumed = true;
        });
    }

    /// The tip becomes this many blocks higher.
    fn grow(&self, blocks: u64) {
        self.with(|state| {
            state.tip += blocks;
            state.time = state.time.plus(Duration::from_secs(2 * blocks));
        });
    }
}

#[async_trait]
impl Chain for FakeChain {
    fn network(&self) -> &Network {
        &self.network
    }
    fn block_time(&self) -> Duration {
        Duration::from_secs(2)
    }
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<ReadResult>, ChainError> {
        self.read_at(reads, Tag::Latest).await
    }
    async fn read_at(&self, reads: Vec<Read>, _: Tag) -> Result<Vec<ReadResult>, ChainError> {
        let mut word = [0; 32];
        word[31] = u8::from(lock(&self.state).consumed);
        Ok(reads.iter().map(|_| ReadResult::Returned(word.to_vec().into())).collect())
    }
    async fn head(&self, at: Tag) -> Result<Option<Head>, ChainError> {
        let state = lock(&self.state).clone();
        let number = match at {
            Tag::Latest => state.tip,
            Tag::Safe => state.safe,
            Tag::Finalized => state.finalized,
            Tag::Number(number) => number,
        };
        let behind = Duration::from_secs(2 * state.tip.saturating_sub(number));
        Ok((number <= state.tip).then(|| Head {
            number,
            hash: Self::hash(&state, number),
            parent: [0; 32],
            timestamp: state.time.minus(behind),
            base_fee: 1,
        }))
    }
    async fn next_head(&self, _: Option<Head>, _: Duration) -> Result<Head, ChainError> {
        Ok(self.head(Tag::Latest).await?.unwrap())
    }
    async fn receipts(&self, txs: Vec<TxHash>) -> Result<Vec<Option<Receipt>>, ChainError> {
        let state = lock(&self.state);
        Ok(txs.iter().map(|tx| state.receipts.get(tx).cloned()).collect())
    }
    async fn nonce(&self, _: &Address, _: bool) -> Result<u64, ChainError> {
        panic!("nobody here has a nonce")
    }
    async fn native_balance(&self, _: &Address) -> Result<u128, ChainError> {
        panic!("nobody here has gas")
    }
    async fn fees(&self) -> Result<Fees, ChainError> {
        panic!("nobody here pays for gas")
    }
    async fn estimate_gas(
        &self,
        _: &Address,
        _: &Address,
        _: Bytes,
    ) -> Result<Result<u64, Bytes>, ChainError> {
        panic!("nobody here pays for gas")
    }
    async fn broadcast(&self, _: &SignedTx) -> Broadcast {
        panic!("nobody here sends")
    }
    async fn logs(&self, filter: LogFilter) -> Result<Vec<(TxHash, Log)>, ChainError> {
        let state = lock(&self.state);
        let mut found = Vec::new();
        for receipt in state.receipts.values() {
            for log in &receipt.logs {
                let here = (filter.from_block..=filter.to_block).contains(&receipt.block)
                    && to_alloy(&filter.address) == Some(log.address)
                    && filter
                        .topics
                        .iter()
                        .zip(&log.topics)
                        .all(|(wanted, topic)| wanted.is_none_or(|wanted| wanted == topic.0));
                if here {
                    found.push((receipt.tx, log.clone()));
                }
            }
        }
        Ok(found)
    }
}

struct House {
    world: Arc<HandWorld>,
    rail: RemoteRail,
}

fn house_on(facilitators: &[&Arc<Scripted>], chain: Option<Arc<FakeChain>>, depths: Depths) -> House {
    let world = Arc::new(HandWorld {
        wall: AtomicU64::new(NOW.millis()),
        started: tokio::time::Instant::now(),
        random: AtomicU64::new(1),
    });
    let config = RemoteRailConfig {
        network: Network::eip155(84532),
        facilitators: facilitators.iter().map(|one| Arc::clone(one) as Arc<dyn Facilitator>).collect(),
        registry: Registry::builtin(),
        depths,
        resource_url: Arc::new(|path| format!("https://shop.example{path}")),
    };
    let chain = chain.map(|chain| chain as Arc<dyn Chain>);
    let rail = RemoteRail::new(config, world.clone(), chain).unwrap();
    House { world, rail }
}

fn house(facilitators: &[&Arc<Scripted>]) -> House {
    house_on(facilitators, None, Depths::default())
}

fn payer() -> Key {
    Key::from_bytes([3; 32]).unwrap()
}

/// A payment that is funded.
fn funded() -> Payment {
    let registry = Registry::builtin();
    let asset = registry.dollar(&Network::eip155(84532)).unwrap();
    let payee = Address::from_evm_bytes([2; 20]);
    let token = Arc::new(Token::new(asset).unwrap());
    let asked = Requirement::new(token, &asset.atoms(1000), &payee, PullMethod::Eip3009, MINUTE).unwrap();
    let from = farthing_evm::from_alloy(payer().address());
    let unsigned = authorize(&asked, &from, Nonce([1; 32]), MINUTE, NOW).unwrap();
    let presented = unsigned.signed(&payer().sign(unsigned.digest()), None);
    let checked = check(&asked, &presented, NOW, &Policy::default()).unwrap();
    let new = NewPayment {
        id: PaymentId::new(NOW, [1; 10]),
        tenant: TenantId::local(),
        key: checked.key(),
        role: Role::Seller,
        flow: Flow::Upfront,
        terms: Terms {
            payer: from,
            payee,
            money: checked.money().clone(),
            expires: checked.expires(),
            dialect: Dialect::X402V2,
            instruction: checked.instruction(),
        },
        binding: Binding {
            method: "GET".to_owned(),
            resource: "/weather".to_owned(),
            request: RequestHash([7; 32]),
            bound: Bound::ByOffer,
            repeatable: true,
        },
    };
    step(&Payment::claim(new, NOW).0, Event::FundsConfirmed)
}

fn step(payment: &Payment, event: Event) -> Payment {
    payment.step(event, NOW).unwrap().next
}

/// A payment whose attempt is durable, and what the rail found when it gave it away.
async fn submitted(house: &House) -> (Payment, Progress) {
    let payment = funded();
    let prepared = house.rail.prepare(&payment).await.unwrap();
    let started = Event::AttemptStarted { attempt: prepared.attempt, tx: prepared.tx.clone() };
    let payment = step(&payment, started);
    let progress = house.rail.submit(&payment, prepared).await;
    (payment, progress)
}

/// What the token says when this payment is made.
fn paid() -> Vec<Log> {
    vec![log(AuthorizationUsed::TOPIC, B256::repeat_byte(1), 0), {
        let mut moved = log(Transfer::TOPIC, farthing_evm::Address::repeat_byte(2).into_word(), 1);
        moved.data = U256::from(1000).to_be_bytes::<32>().into();
        moved
    }]
}

fn log(topic: B256, second: B256, index: u64) -> Log {
    let registry = Registry::builtin();
    let asset = registry.dollar(&Network::eip155(84532)).unwrap();
    Log {
        address: to_alloy(asset.id.address()).unwrap(),
        topics: vec![topic, payer().address().into_word(), second],
        data: farthing_evm::Bytes::new(),
        index,
    }
}

fn is_reverted(progress: &Progress) -> bool {
    matches!(progress, Progress::Reverted { .. })
}

#[tokio::test(start_paused = true)]
async fn a_first_answer_is_believed_only_if_it_is_one() {
    let tx = || Some(TxRef::new(TX));
    let unclear = |tx| Progress::Unclear { tx };
    let check = async |says: Says, expected: Progress| {
        let house = house(&[&scripted("one", [says.clone()])]);
        let (_, progress) = submitted(&house).await;
        let said = match says {
            Says::Answer(status, body) => format!("{status} {}", body.get(..200).unwrap_or(&body)),
            Says::No(error) => error.to_string(),
            Says::Never => "nothing".to_owned(),
        };
        assert_eq!(progress, expected, "{said}");
    };
    let good = success();
    let said = |body: &str| ok(body);
    // A success that is not whole is nobody's.
    for body in [
        r#"{"success":true,"transaction":"","network":"eip155:84532"}"#.to_owned(),
        r#"{"success":true,"transaction":"0x12","network":"eip155:84532"}"#.to_owned(),
        // Signs are no digits.
        good.replace(TX, &format!("0x{}", "+1".repeat(32))),
        good.replace("84532", "8453"),
        good.replace("\"eip155:84532\"", "\"\""),
        good.replace("true,", "true,\"errorReason\":\"insufficient_funds\","),
        good.replace("true,", "true,\"payer\":\"0x0000000000000000000000000000000000000009\","),
        good.replace("true,", "true,\"amount\":\"999\","),
        good.replace("true", "\"true\""),
        good.replace("true", "1"),
        good.replace("true", "true,\"success\":false"),
        good[..good.len() - 1].to_owned(),
        format!("{good}{good}"),
        format!("[{good}]"),
        "<html><body>502 Bad Gateway</body></html>".to_owned(),
        String::new(),
        "null".to_owned(),
        "{}".to_owned(),
        format!("{{\"success\":true,\"transaction\":\"{}\"", "0".repeat(1000)),
        format!("{good}{}", " ".repeat(MAX_FACILITATOR_ANSWER)),
    ] {
        check(said(&body), unclear(None)).await;
    }
    // Any other status is no answer, whatever its body says.
    for status in [201, 204, 307, 400, 402, 409, 412, 429, 500, 502, 503, 504] {
        check(Says::Answer(status, good.clone()), unclear(None)).await;
        let refused = r#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}"#;
        check(Says::Answer(status, refused.to_owned()), unclear(None)).await;
    }
    // It looked, and refused.
    let failed = |code: &str, tx: &str| {
        ok(&format!(
            r#"{{"success":false,"errorReason":"{code}","transaction":"{tx}","network":"eip155:84532"}}"#
        ))
    };
    for code in ["insufficient_funds", "invalid_exact_evm_signature", "payment_expired"] {
        let reason = Reason::new(code, Fault::Payer);
        check(failed(code, ""), Progress::Reverted { reason, tx: None }).await;
        // Whoever names a transaction has sent one.
        check(failed(code, TX), unclear(tx())).await;
        // Also one that we cannot read: without its prefix, of another kind of chain, cut off.
        for unreadable in [&TX[2..], &TX[..20], "5VERv8NMvzbJMEkV8xnrLkEaWRtSz9CosKDYjCJjBRnb", "0X12", " "] {
            check(failed(code, unreadable), unclear(None)).await;
        }
    }
    // It may have sent something, or somebody has.
    for code in [
        "settlement_pending",
        "unexpected_settle_error",
        "invalid_transaction_state",
        "invalid_exact_evm_transaction_failed",
        "invalid_exact_evm_nonce_already_used",
        "duplicate_settlement",
        "something_that_we_do_not_know",
        "",
    ] {
        check(failed(code, ""), unclear(None)).await;
        check(failed(code, TX), unclear(tx())).await;
    }
    check(ok(r#"{"success":false,"transaction":"","network":"eip155:84532"}"#), unclear(None)).await;
    check(Says::No(NoAnswer::Lost), unclear(None)).await;
    check(Says::Never, unclear(None)).await;
    check(Says::No(NoAnswer::NotSent), Progress::Open).await;
}

#[tokio::test(start_paused = true)]
async fn a_whole_success_settles_by_the_facilitators_word_where_there_is_no_other() {
    let upper = success().replace("abcdef", "ABCDEF");
    let named = r#""amount":"1000","errorReason":"","payer":"#;
    let payer = farthing_evm::from_alloy(payer().address());
    for body in [success(), upper, success().replace("true,", &format!("true,{named}\"{payer}\","))] {
        let house = house(&[&scripted("one", [ok(&body)])]);
        let (_, Progress::Included { proof, deep, .. }) = submitted(&house).await else { panic!("{body}") };
        // One spelling, so that it counts once.
        assert_eq!((proof.tx.as_str(), proof.witness, deep), (TX, Witness::Facilitator, true));
        assert_eq!(house.rail.still_included(&proof).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_what_may_have_been_sent_before_is_not_called_a_failure() {
    let refused =
        r#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}"#;
    let one = scripted("one", [ok(refused)]);
    let house = house(&[&one]);
    let (payment, first) = submitted(&house).await;
    assert!(is_reverted(&first), "{first:?}");
    // After a restart nobody knows whether the request had left.
    let again = house.rail.progress(&payment, Duration::ZERO).await;
    assert_eq!(again, Progress::Unclear { tx: None });
    let bodies = lock(&one.bodies).clone();
    assert_eq!(bodies[0], bodies[1], "the identical request");
}

#[tokio::test(start_paused = true)]
async fn a_settlement_that_is_pending_is_asked_for_again_until_it_is_there() {
    let pending = format!(
        r#"{{"success":false,"errorReason":"settlement_pending","transaction":"{TX}","network":"eip155:84532"}}"#
    );
    let one = scripted(
        "one",
        [ok(&pending), Says::Answer(503, success()), Says::No(NoAnswer::Lost), ok(&success())],
    );
    let house = house(&[&one]);
    let (mut payment, mut progress) = submitted(&house).await;
    for _ in 0..3 {
        let Progress::Unclear { tx } = progress else { panic!("{progress:?}") };
        assert_eq!(tx.as_ref().map(TxRef::as_str), Some(TX), "what was named stays known");
        if matches!(payment.state, State::Settling { .. }) {
            payment = step(&payment, Event::Unclear { tx });
        }
        progress = house.rail.progress(&payment, Duration::ZERO).await;
    }
    assert!(matches!(progress, Progress::Included { deep: true, .. }), "{progress:?}");
    assert_eq!(one.settled.load(Ordering::SeqCst), 4);
}

#[tokio::test(start_paused = true)]
async fn only_the_facilitator_that_has_a_payment_is_asked_again_also_after_a_restart() {
    let one = scripted("one", [Says::No(NoAnswer::Lost)]);
    let two = scripted("two", [ok(&success())]);
    let (payment, first) = submitted(&house(&[&one, &two])).await;
    assert_eq!(first, Progress::Unclear { tx: None });
    // The next process has another order, and a preference of its own.
    let next = house(&[&two, &one]);
    assert_eq!(next.rail.funds(&payment).await, Funds::Confirmed);
    next.rail.progress(&payment, Duration::ZERO).await;
    next.rail.progress(&payment, Duration::ZERO).await;
    assert_eq!((one.settled.load(Ordering::SeqCst), two.settled.load(Ordering::SeqCst)), (3, 0));
    // Struck off the list: nobody else is asked in its place.
    let without = house(&[&two]);
    assert_eq!(without.rail.progress(&payment, Duration::ZERO).await, Progress::Open);
    assert_eq!(two.settled.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_never_left_leaves_the_next_to_another_facilitator() {
    let one = scripted("one", [Says::No(NoAnswer::NotSent)]);
    let two = scripted("two", [ok(&success())]);
    let house = house(&[&one, &two]);
    let before = house.world.monotonic();
    let (_, first) = submitted(&house).await;
    assert_eq!(first, Progress::Lost);
    assert_eq!(house.world.monotonic(), before, "there is another, so at once");
    let (_, second) = submitted(&house).await;
    assert!(matches!(second, Progress::Included { .. }), "{second:?}");
    assert_eq!((one.settled.load(Ordering::SeqCst), two.settled.load(Ordering::SeqCst)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_is_reached_the_attempt_stays_with_its_facilitator_and_is_not_tried_without_end() {
    let (one, two) =
        (scripted("one", [Says::No(NoAnswer::NotSent)]), scripted("two", [Says::No(NoAnswer::NotSent)]));
    let house = house(&[&one, &two]);
    assert_eq!(submitted(&house).await.1, Progress::Lost);
    let (payment, second) = submitted(&house).await;
    assert_eq!(second, Progress::Open);
    let before = house.world.monotonic();
    assert_eq!(house.rail.progress(&payment, Duration::ZERO).await, Progress::Open);
    assert!(house.world.monotonic() >= before + ASK_AGAIN);
    assert_eq!((one.settled.load(Ordering::SeqCst), two.settled.load(Ordering::SeqCst)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_question_asked_again_that_did_not_leave_says_nothing() {
    let one = scripted("one", [Says::No(NoAnswer::Lost), Says::No(NoAnswer::NotSent)]);
    let house = house(&[&one]);
    let (payment, _) = submitted(&house).await;
    // The first one may have left: this is not lost.
    assert_eq!(house.rail.progress(&payment, Duration::ZERO).await, Progress::Open);
}

#[tokio::test(start_paused = true)]
async fn a_verification_is_believed_only_if_it_is_one() {
    let other_says_no = r#"{"isValid":false,"invalidReason":"insufficient_funds"}"#;
    let refused = |code: &str| Funds::Refused(Reason::new(code, Fault::Payer));
    let check = async |says: Says, expected: Funds| {
        let (one, two) = (scripted("one", [ok("{}")]), scripted("two", [ok("{}")]));
        *lock(&one.verify) = says;
        *lock(&two.verify) = ok(other_says_no);
        assert_eq!(house(&[&one, &two]).rail.funds(&funded()).await, expected);
    };
    let asked_the_other = || refused("insufficient_funds");
    check(ok(r#"{"isValid":true}"#), Funds::Confirmed).await;
    check(ok(r#"{"isValid":true,"invalidReason":""}"#), Funds::Confirmed).await;
    check(ok(r#"{"isValid":false,"invalidReason":"payment_expired"}"#), refused("payment_expired")).await;
    check(ok(r#"{"isValid":false}"#), refused("unexpected_verify_error")).await;
    let approve = r#"{"isValid":false,"invalidReason":"permit2_allowance_required"}"#;
    check(Says::Answer(412, approve.to_owned()), refused("permit2_allowance_required")).await;
    check(ok(r#"{"isValid":true,"invalidReason":"payment_expired"}"#), asked_the_other()).await;
    for says in [
        Says::Answer(503, r#"{"isValid":true}"#.to_owned()),
        Says::Answer(302, r#"{"isValid":true}"#.to_owned()),
        ok("<html>"),
        ok(r#"{"isValid":tr"#),
        ok(r#"{"isValid":"true"}"#),
        ok(""),
        Says::No(NoAnswer::Lost),
        Says::No(NoAnswer::NotSent),
        Says::Never,
    ] {
        check(says, asked_the_other()).await;
    }
    let alone = scripted("one", [ok("{}")]);
    *lock(&alone.verify) = ok("<html>");
    assert_eq!(house(&[&alone]).rail.funds(&funded()).await, Funds::Unavailable("facilitator"));
}

#[tokio::test(start_paused = true)]
async fn a_facilitator_that_serves_other_networks_is_passed_over() {
    let one = scripted("one", [ok(&success())]);
    let two = scripted("two", [ok(&success())]);
    *lock(&one.supported) = ok(r#"{"kinds":[{"x402Version":2,"scheme":"exact","network":"eip155:8453"}]}"#);
    *lock(&two.supported) = ok(r#"{"kinds":[{"x402Version":1,"scheme":"exact","network":"base-sepolia"}]}"#);
    let house = house(&[&one, &two]);
    let (_, progress) = submitted(&house).await;
    assert!(matches!(progress, Progress::Included { .. }), "{progress:?}");
    assert_eq!((one.settled.load(Ordering::SeqCst), two.settled.load(Ordering::SeqCst)), (0, 1));
    let body = String::from_utf8(lock(&two.bodies)[0].to_vec()).unwrap();
    assert!(body.contains("\"x402Version\":1") && body.contains("base-sepolia"), "{body}");
    let alone = self::house(&[&one]);
    let refused = alone.rail.prepare(&funded()).await;
    assert_eq!(refused, Err(NotPrepared::Unavailable("facilitator")));
}

#[tokio::test(start_paused = true)]
async fn with_a_node_of_our_own_a_success_counts_when_the_chain_shows_it_deep_enough() {
    let chain = FakeChain::new();
    let one = scripted("one", [ok(&success())]);
    let house = house_on(&[&one], Some(chain.clone()), Depths::blocks(3));
    let (payment, first) = submitted(&house).await;
    assert_eq!(first, Progress::Unclear { tx: Some(TxRef::new(TX)) }, "in no block yet");
    let payment = step(&payment, Event::Unclear { tx: Some(TxRef::new(TX)) });
    chain.include(100, paid());
    let found = house.rail.progress(&payment, Duration::ZERO).await;
    let Progress::Included { proof, deep: false, .. } = found else { panic!("{found:?}") };
    assert_eq!((proof.block, proof.log_index, proof.witness), (100, 1, Witness::Chain));
    let payment = step(&payment, Event::Included { proof: proof.clone(), deep: false });
    chain.grow(1);
    let found = house.rail.progress(&payment, Duration::ZERO).await;
    assert!(matches!(found, Progress::Included { deep: false, .. }), "{found:?}");
    chain.grow(1);
    let found = house.rail.progress(&payment, Duration::ZERO).await;
    assert!(matches!(found, Progress::Included { deep: true, .. }), "{found:?}");
    assert_eq!(house.rail.still_included(&proof).await, Some(true));
    // Another chain has its block's place.
    chain.with(|state| {
        state.fork = 2;
        state.receipts.clear();
    });
    assert_eq!(house.rail.still_included(&proof).await, Some(false));
    assert_eq!(house.rail.progress(&payment, Duration::ZERO).await, Progress::Reorged);
    // A node that is behind has not seen it.
    chain.with(|state| state.tip = 99);
    assert_eq!(house.rail.still_included(&proof).await, None);
}

#[tokio::test(start_paused = true)]
async fn safe_and_final_are_what_the_chain_calls_so() {
    for (depth, named) in [(Finality::Safe, true), (Finality::Finalized, false)] {
        let chain = FakeChain::new();
        chain.include(100, paid());
        let one = scripted("one", [ok(&success())]);
        let depths = Depths { most: depth, steps: Vec::new() };
        let house = house_on(&[&one], Some(chain.clone()), depths);
        let (payment, found) = submitted(&house).await;
        let Progress::Included { proof, deep: false, .. } = found else { panic!("{found:?}") };
        let payment = step(&payment, Event::Included { proof, deep: false });
        chain.grow(1000);
        chain.with(|state| (state.safe, state.finalized) = (100, 99));
        let found = house.rail.progress(&payment, Duration::ZERO).await;
        assert!(matches!(found, Progress::Included { deep, .. } if deep == named), "{depth} {found:?}");
        chain.with(|state| state.finalized = 100);
        let found = house.rail.progress(&payment, Duration::ZERO).await;
        assert!(matches!(found, Progress::Included { deep: true, .. }), "{depth} {found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_node_of_our_own_a_success_that_moved_nothing_is_none() {
    let chain = FakeChain::new();
    let mut other = paid();
    other[1].data = U256::from(999).to_be_bytes::<32>().into();
    chain.include(100, other);
    chain.with(|state| state.consumed = false);
    let house = house_on(&[&scripted("one", [ok(&success())])], Some(chain), Depths::default());
    let (_, progress) = submitted(&house).await;
    assert_eq!(progress, Progress::Unclear { tx: Some(TxRef::new(TX)) });
}

#[tokio::test(start_paused = true)]
async fn a_facilitator_that_says_no_and_settles_is_found_out() {
    let refused =
        r#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"eip155:84532"}"#;
    let chain = FakeChain::new();
    let house = house_on(&[&scripted("one", [ok(refused)])], Some(chain.clone()), Depths::default());
    let (payment, first) = submitted(&house).await;
    let Progress::Reverted { reason, tx } = first else { panic!("{first:?}") };
    let lapsing = step(&payment, Event::Reverted { reason, tx });
    chain.include(101, paid());
    chain.grow(1);
    let found = house.rail.progress(&lapsing, Duration::ZERO).await;
    assert!(matches!(&found, Progress::Included { proof, .. } if proof.tx.as_str() == TX), "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn an_authorization_is_dead_by_the_chains_clock_and_no_other() {
    let chain = FakeChain::new();
    let house =
        house_on(&[&scripted("one", [Says::No(NoAnswer::Lost)])], Some(chain.clone()), Depths::blocks(4));
    let (payment, _) = submitted(&house).await;
    let look = async || house.rail.progress(&payment, Duration::ZERO).await;
    // Our clock leaps a year ahead: the chain's says that it lives.
    house.world.wall.store(NOW.plus(Duration::from_secs(31_536_000)).millis(), Ordering::SeqCst);
    assert_eq!(look().await, Progress::Unclear { tx: None });
    // Our clock is a year behind: the chain's says that it is over. One second less deep than is asked for, first.
    house.world.wall.store(NOW.minus(Duration::from_secs(31_536_000)).millis(), Ordering::SeqCst);
    let end = payment.terms.expires.plus(Duration::from_secs(2));
    chain.with(|state| state.time = end.plus(Duration::from_secs(5)));
    assert_eq!(look().await, Progress::Unclear { tx: None });
    chain.with(|state| state.time = end.plus(Duration::from_secs(6)));
    assert!(matches!(look().await, Progress::Dead(reason) if reason.code() == "authorization_expired"));
    // Used: whatever the clocks say, it is not dead.
    chain.with(|state| state.consumed = true);
    assert_eq!(look().await, Progress::Unclear { tx: None });
}

#[tokio::test(start_paused = true)]
async fn used_and_not_found_is_not_cancelled_before_the_token_says_so() {
    let chain = FakeChain::new();
    let house =
        house_on(&[&scripted("one", [Says::No(NoAnswer::Lost)])], Some(chain.clone()), Depths::default());
    let (payment, _) = submitted(&house).await;
    // A node that has no logs of it.
    chain.with(|state| state.consumed = true);
    assert_eq!(house.rail.progress(&payment, Duration::ZERO).await, Progress::Unclear { tx: None });
    chain.include(100, vec![log(AuthorizationCanceled::TOPIC, B256::repeat_byte(1), 0)]);
    let found = house.rail.progress(&payment, Duration::ZERO).await;
    let canceled = matches!(&found, Progress::Dead(reason) if reason.code() == "authorization_canceled");
    assert!(canceled, "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_served_on_credit_is_tried_though_our_clock_says_that_it_is_over() {
    let one = scripted("one", [ok(&success())]);
    let house = house(&[&one]);
    let payment = funded();
    house.world.wall.store(payment.terms.expires.millis() - 1, Ordering::SeqCst);
    assert!(house.rail.prepare(&payment).await.is_ok());
    house.world.wall.store(payment.terms.expires.millis(), Ordering::SeqCst);
    assert_eq!(house.rail.prepare(&payment).await, Err(NotPrepared::Refused(reasons::expired())));
    let mut served = payment;
    served.delivery = farthing_payment::Delivery::Sent;
    assert!(house.rail.prepare(&served).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn one_facilitator_is_listed_once() {
    let (one, again) = (scripted("one", [ok("{}")]), scripted("one", [ok("{}")]));
    let world = house(&[&one]).world;
    let with = |facilitators: Vec<Arc<dyn Facilitator>>| {
        let config = RemoteRailConfig {
            network: Network::eip155(84532),
            facilitators,
            registry: Registry::builtin(),
            depths: Depths::default(),
            resource_url: Arc::new(str::to_owned),
        };
        RemoteRail::new(config, world.clone(), None).err()
    };
    assert_eq!(with(Vec::new()), Some(RemoteRailError::NoFacilitator));
    let twice = RemoteRailError::Twice("https://one.example/".to_owned());
    assert_eq!(with(vec![one, again]), Some(twice));
}
