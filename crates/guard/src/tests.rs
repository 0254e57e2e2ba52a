//! The guard through its own protocol: what honest fronts get, and what hostile ones do not.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use farthing_approval::{ApproverKey, Ballot, GrantAsk, Status, Uses, Verdict};
use farthing_engine::TxHash;
use farthing_evm::Key;
use farthing_policy::{AgentName, HostRule, Names, Rules};
use farthing_primitives::{
    Address, AssetId, Network, PullMethod, PurchaseId, Registry, RequestHash, Timestamp,
};
use farthing_rails::exact_evm::{Checked, Requirement, Tokens};
use farthing_rails::x402::{Extras, offer_v2};
use farthing_wallet::journal::agents::CredentialKind;
use farthing_wallet::journal::session_keys::SessionTerms;
use farthing_wallet::journal::{Goods, Journal, Outcome, Proof, Purchase, State};
use farthing_wallet::signer::Signer;
use farthing_wallet::{
    AgentToken, Authorizer, Books, Budget, ChainView, Denied, Intent, Limits, LocalAuthorizer, Mentions,
    Offer, OfferV2, Permit2State, Sight, system_clock,
};
use farthing_wire::x402::{Message, v2};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};

use crate::protocol::*;
use crate::*;

const CHAIN: u64 = 84_532;
/// What one purchase costs, in atoms of USDC: a cent.
const CENT: u128 = 10_000;
/// A cent in the unit of the rules.
const CENT_IN_RULES: u128 = 10_000_000_000_000_000;

// ---------------------------------------------------------------------------------------------------------------------
// A chain that says what it is told to.

struct Chain {
    sight: Mutex<Sight>,
    time: Mutex<Option<Timestamp>>,
    devnet: bool,
}

impl Chain {
    fn saying(sight: Sight) -> Arc<Self> {
        Arc::new(Self {
            sight: Mutex::new(sight),
            time: Mutex::new(Some(system_clock().wall)),
            devnet: false,
        })
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

#[async_trait]
impl ChainView for Chain {
    fn network(&self) -> &Network {
        static NETWORK: std::sync::OnceLock<Network> = std::sync::OnceLock::new();
        NETWORK.get_or_init(|| Network::eip155(CHAIN))
    }

    fn is_devnet(&self) -> bool {
        self.devnet
    }

    async fn time(&self) -> Option<Timestamp> {
        *self.time.lock().unwrap()
    }

    async fn settled_time(&self) -> Option<Timestamp> {
        *self.time.lock().unwrap()
    }

    async fn balance(&self, _asset: &AssetId, _owner: &Address) -> Option<u128> {
        Some(u128::MAX)
    }

    async fn permit2(&self, _asset: &AssetId, _owner: &Address) -> Option<Permit2State> {
        None
    }

    async fn sight(&self, _payment: &Checked, _tx: Option<TxHash>) -> Sight {
        *self.sight.lock().unwrap()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// A guard, and who talks to it.

struct House {
    journal: Arc<Journal>,
    guard: Mutex<Guard>,
    views: Vec<Arc<dyn ChainView>>,
    /// Nobody answers the door.
    away: AtomicBool,
    connections: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl fmt::Debug for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("House")
    }
}

fn wallet(journal: &Arc<Journal>) -> LocalAuthorizer {
    LocalAuthorizer::new(Key::from_bytes([7; 32]).unwrap(), journal.clone(), Registry::builtin())
}

impl House {
    fn open(views: Vec<Arc<dyn ChainView>>) -> Arc<Self> {
        let journal = Arc::new(Journal::in_memory().unwrap());
        let allow = |rules: &mut Rules| {
            rules.networks.insert(Network::eip155(CHAIN));
            rules.hosts.push(HostRule::new("seller.example".parse().unwrap()));
            Ok(())
        };
        journal.change_rules(allow).unwrap();
        let guard = Mutex::new(Guard::new(&wallet(&journal), views.clone()).unwrap());
        Arc::new(Self { journal, guard, views, away: AtomicBool::new(false), connections: Mutex::default() })
    }

    fn guard(&self) -> Guard {
        self.guard.lock().unwrap().clone()
    }

    /// Another process over the same books, as after a kill: the old one's connections are gone with it.
    fn restart(&self) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
        *self.guard.lock().unwrap() = Guard::new(&wallet(&self.journal), self.views.clone()).unwrap();
    }

    fn token(&self, agent: &str) -> String {
        let token = AgentToken::random(agent.parse().unwrap()).unwrap();
        let name: AgentName = agent.parse().unwrap();
        self.journal.add_agent(&name, CredentialKind::Token, &token.credential(), &system_clock()).unwrap();
        token.reveal().to_string()
    }

    fn pipe(&self, peer: &str) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let peer = Peer { key: peer.to_owned(), certificate: None };
        let connection = tokio::spawn(serve(self.guard(), theirs, peer));
        self.connections.lock().unwrap().push(connection);
        ours
    }

    async fn front(self: &Arc<Self>, agent: &str) -> RemoteAuthorizer {
        let token = self.token(agent);
        self.connect(&token).await
    }

    async fn connect(self: &Arc<Self>, token: &str) -> RemoteAuthorizer {
        RemoteAuthorizer::connect(Arc::new(Door(self.clone())), Some(token)).await.unwrap()
    }

    /// A connection that speaks for itself.
    async fn raw(&self, token: &str) -> Raw {
        let mut raw = Raw::new(self.pipe("raw"));
        let front = "0123456789abcdef";
        let said = raw.ask("hello", json!({ "version": 1, "token": token, "front": front })).await;
        assert!(said["ok"].is_object(), "{said}");
        raw
    }
}

#[derive(Debug, Clone)]
struct Door(Arc<House>);

#[async_trait]
impl Dial for Door {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        match self.0.away.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::ConnectionRefused.into()),
            false => Ok(Box::new(self.0.pipe("test"))),
        }
    }
}

struct Raw {
    stream: BufReader<DuplexStream>,
    id: u64,
}

impl Raw {
    fn new(stream: DuplexStream) -> Self {
        Self { stream: BufReader::new(stream), id: 0 }
    }

    async fn say(&mut self, bytes: &[u8]) {
        // Whoever is thrown out cannot finish.
        let _ = self.stream.get_mut().write_all(bytes).await;
    }

    /// The next line; `None` at the end.
    async fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(30), self.stream.read_line(&mut line));
        match read.await.expect("an answer").unwrap_or(0) {
            0 => None,
            _ => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    async fn ask(&mut self, what: &str, with: Value) -> Value {
        self.id += 1;
        let line = json!({ "id": self.id, "do": what, "with": with });
        self.say(format!("{line}\n").as_bytes()).await;
        self.hear().await.expect("an answer")
    }

    async fn code(&mut self, what: &str, with: Value) -> String {
        let said = self.ask(what, with).await;
        said["error"]["code"].as_str().unwrap_or_else(|| panic!("{what} was allowed: {said}")).to_owned()
    }
}

fn offer(atoms: u128) -> Offer {
    let registry = Registry::builtin();
    let usdc = registry.dollar(&Network::eip155(CHAIN)).unwrap();
    let token = Tokens::new(&registry).get(&usdc.id).unwrap().clone();
    let payee = Address::from_evm_bytes([1; 20]);
    let asked =
        Requirement::new(token, &usdc.atoms(atoms), &payee, PullMethod::Eip3009, Duration::from_secs(60));
    Offer::V2(Box::new(OfferV2 {
        requirements: offer_v2(&asked.unwrap(), Extras::default()),
        resource: v2::ResourceInfo::new("https://seller.example/"),
        extensions: None,
    }))
}

fn intent(n: u8) -> Intent {
    let url: url::Url = "https://seller.example/goods".parse().unwrap();
    Intent {
        offer: offer(CENT),
        origin: farthing_policy::Origin::of(&url).unwrap(),
        private: false,
        method: "GET".to_owned(),
        url: url.into(),
        request_hash: RequestHash([n; 32]),
        body: None,
        tool: None,
        max: None,
        only: None,
        devnet: false,
        chain_time: None,
        permit_nonce: None,
        deposit: None,
    }
}

fn intent_json(n: u8) -> Value {
    serde_json::to_value(IntentRecord::of(&intent(n)).unwrap()).unwrap()
}

fn code(denied: Result<impl fmt::Debug, Denied>) -> String {
    denied.unwrap_err().code().to_owned()
}

fn held(house: &House) -> u128 {
    let spent = house.journal.spent(&farthing_policy::Bucket::Dollar, &system_clock()).unwrap();
    spent[0].1 / CENT_IN_RULES
}

fn cap(house: &House, cents: u128) {
    let cap = |rules: &mut Rules| {
        let caps = rules.caps.get_mut(&farthing_policy::Bucket::Dollar).unwrap();
        (caps.hour, caps.day) = (cents * CENT_IN_RULES, cents * CENT_IN_RULES);
        Ok(())
    };
    house.journal.change_rules(cap).unwrap();
}

// ---------------------------------------------------------------------------------------------------------------------
// Honest fronts.

#[tokio::test]
async fn a_purchase_lives_through_the_socket_as_it_does_without() {
    let house = House::open(Vec::new());
    let front = house.front("acme/buyer").await;
    assert_eq!(front.payer(), wallet(&house.journal).payer());
    assert!(front.preview(&intent(1)).await.unwrap().is_allowed());
    assert_eq!(held(&house), 0);
    let authorization = front.authorize(intent(1)).await.unwrap();
    assert!(authorization.decision.is_allowed());
    assert_eq!(held(&house), 1);
    let id = authorization.id;
    let signed = front.purchase(&id).await.unwrap();
    assert_eq!((signed.state, signed.agent.as_ref()), (State::Intended, Some(front.agent())));
    let header = front.present(&id).await.unwrap();
    assert_eq!(front.present(&id).await.unwrap(), header, "the same bytes, every time");
    assert_eq!(header, house.journal.get(&id).unwrap().header.unwrap());
    let paid = v2::PaymentPayload::from_header(header.value.as_bytes()).unwrap();
    assert_eq!(paid.accepted.amount, CENT);
    let shown = front.purchase(&id).await.unwrap();
    assert_eq!((shown.header, shown.shown), (Some(header), 2));
    assert!(Checked::recall(&shown.instruction.unwrap()).is_ok());
    let unknown = Outcome::Unknown {
        tx: None,
        goods: Goods::Missing,
        receipt: Some("{}".to_owned()),
        note: "time-out".to_owned(),
    };
    Authorizer::conclude(&front, &id, unknown).await.unwrap();
    let left = front.abandoned(Some(&RequestHash([1; 32]))).await.unwrap();
    assert_eq!(left.iter().map(|purchase| purchase.id).collect::<Vec<_>>(), [id]);
    assert_eq!(Authorizer::open(&front).await.unwrap().len(), 1);
    let tx = format!("0x{}", "ab".repeat(32));
    let settled = Outcome::Settled {
        tx: Some(tx.clone()),
        confirmed: true,
        goods: Goods::InHand,
        receipt: None,
        note: None,
    };
    Authorizer::conclude(&front, &id, settled).await.unwrap();
    front.received(&id).await.unwrap();
    let done = house.journal.get(&id).unwrap();
    assert_eq!((done.state, done.delivered, done.tx), (State::Settled, true, Some(tx)));
    assert!(!done.confirmed, "a front's word for the chain's is none");
}

#[tokio::test]
async fn a_denial_says_which_rules_denied() {
    let house = House::open(Vec::new());
    let front = house.front("buyer").await;
    let mut elsewhere = intent(1);
    elsewhere.url = "https://other.example/".to_owned();
    let Denied::Policy(decision) = front.authorize(elsewhere).await.unwrap_err() else { panic!() };
    let codes: Vec<_> = decision.denials().map(|fact| fact.code().to_owned()).collect();
    assert_eq!(codes, ["host_not_allowed"]);
    assert!(decision.to_string().contains("other.example:443"), "{decision}");
    let decision = front.preview(&Intent { offer: offer(CENT * 1_000), ..intent(1) }).await.unwrap();
    assert!(!decision.is_allowed());
    assert_eq!(held(&house), 0);
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let house = House::open(Vec::new());
    cap(&house, 1_000);
    let front = house.front("buyer").await;
    let mut made = HashSet::new();
    for n in 0..=u8::try_from(MAX_LISTED).unwrap() {
        let id = front.authorize(intent(n)).await.unwrap().id;
        front.present(&id).await.unwrap();
        made.insert(id);
    }
    let listed = Authorizer::open(&front).await.unwrap();
    assert_eq!(listed.len(), MAX_LISTED + 1);
    assert_eq!(listed.iter().map(|purchase| purchase.id).collect::<HashSet<_>>(), made);
}

#[tokio::test]
async fn twenty_agents_at_a_cap_get_what_fits_and_no_more() {
    let house = House::open(Vec::new());
    cap(&house, 100);
    let mut fronts = Vec::new();
    for n in 0..20 {
        let token = house.token(&format!("agent-{n}"));
        // This machine may be busy, and here everybody waits for everybody.
        let patience = Duration::from_secs(300);
        let door = Arc::new(Door(house.clone()));
        fronts.push(RemoteAuthorizer::connect_within(door, Some(&token), patience).await.unwrap());
    }
    let mut asking = tokio::task::JoinSet::new();
    for n in 0..1_000usize {
        let front = fronts[n % fronts.len()].clone();
        asking.spawn(async move {
            match front.authorize(intent(0)).await {
                Ok(authorization) => Some(front.present(&authorization.id).await.unwrap().value),
                Err(denied) => {
                    assert!(["over_hour_cap", "over_day_cap"].contains(&denied.code()), "{denied}");
                    None
                }
            }
        });
    }
    let signed: HashSet<String> = asking.join_all().await.into_iter().flatten().collect();
    assert_eq!(signed.len(), 100, "exactly as many signatures as fit, each of its own");
    assert_eq!(house.journal.history(10_000).unwrap().len(), 100);
    assert_eq!(held(&house), 100);
}

#[tokio::test]
async fn a_guard_that_is_away_is_a_denial_and_the_front_comes_back_to_it() {
    let house = House::open(Vec::new());
    let front = house.front("buyer").await;
    let before = front.authorize(intent(1)).await.unwrap();
    let header = front.present(&before.id).await.unwrap();
    let unseen = front.authorize(intent(2)).await.unwrap();

    house.away.store(true, Ordering::SeqCst);
    let front_elsewhere = RemoteAuthorizer::connect(Arc::new(Door(house.clone())), Some("a:b")).await;
    assert!(matches!(front_elsewhere, Err(ConnectError::Io(_))));
    house.restart();
    house.away.store(false, Ordering::SeqCst);
    let again = house.guard();
    again.sweep().await.unwrap();
    assert_eq!(held(&house), 1, "what could be out is held, whoever is gone, and what nobody saw is not");
    assert_eq!(front.present(&before.id).await.unwrap(), header, "nothing is signed twice");
    assert_eq!(code(front.present(&unseen.id).await), "wrong_state");
    assert_eq!(house.journal.history(10).unwrap().len(), 2);
}

/// Accepts, and never says a word.
#[derive(Debug)]
struct Mute(Mutex<Vec<DuplexStream>>);

#[async_trait]
impl Dial for Mute {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        self.0.lock().unwrap().push(theirs);
        Ok(Box::new(ours))
    }
}

#[tokio::test]
async fn without_an_answer_in_time_nothing_is_paid() {
    let mute = Arc::new(Mute(Mutex::default()));
    let patience = Duration::from_millis(20);
    let silent = RemoteAuthorizer::connect_within(mute, Some("a:b"), patience).await;
    assert!(matches!(silent, Err(ConnectError::Silent)));

    let house = House::open(Vec::new());
    let token = house.token("buyer");
    let front = house.connect(&token).await;
    house.away.store(true, Ordering::SeqCst);
    house.restart();
    assert_eq!(code(front.authorize(intent(1)).await), "authorizer_unavailable");
    assert_eq!(code(front.preview(&intent(1)).await), "authorizer_unavailable");
    assert_eq!(held(&house), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Hostile ones: the lines of the table in docs/reference/guard.md.

#[tokio::test]
async fn what_pays_leaves_by_present_alone() {
    let house = House::open(Vec::new());
    let token = house.token("thief");
    let mut thief = house.raw(&token).await;
    let mut heard = String::new();
    let mut authorized = Vec::new();
    for n in [1, 2] {
        let said = thief.ask("authorize", json!({ "intent": intent_json(n) })).await;
        authorized.push(said["ok"]["id"].as_str().unwrap().to_owned());
        heard += &said.to_string();
        let id = authorized.last().unwrap();
        for (what, with) in
            [("purchase", json!({ "id": id })), ("open_purchases", json!({})), ("abandoned", json!({}))]
        {
            heard += &thief.ask(what, with).await.to_string();
        }
    }
    let [shown, given_up] = [&authorized[0], &authorized[1]].map(|id| json!({ "id": id }));
    thief.ask("present", shown).await;
    let purchase = house.journal.get(&authorized[0].parse().unwrap()).unwrap();
    let (secret, instruction) = (purchase.header.unwrap().value, purchase.instruction.unwrap());
    let signature = hex::encode(&instruction.as_bytes()[instruction.as_bytes().len() - 60..]);
    assert!(!heard.contains(&secret) && !heard.contains(&signature), "a payment leaked before it was shown");
    // Nobody has seen the other, so it may be given up. After that there is nothing to show.
    assert_eq!(held(&house), 2);
    assert!(thief.ask("release", given_up.clone()).await["ok"].is_object());
    assert_eq!(held(&house), 1);
    assert_eq!(thief.code("present", given_up.clone()).await, "wrong_state");
    assert!(!thief.ask("purchase", given_up).await.to_string().contains("\"value\":\""));
}

#[tokio::test]
async fn no_word_of_an_agents_frees_what_it_showed() {
    for (sight, ends) in [
        (Sight::Unavailable, "presented"),
        (Sight::Used, "presented"),
        (Sight::Unused { as_of: system_clock().wall }, "presented"),
    ] {
        let chain: Arc<dyn ChainView> = Chain::saying(sight);
        let house = House::open(vec![chain]);
        let front = house.front("thief").await;
        let id = front.authorize(intent(1)).await.unwrap().id;
        front.present(&id).await.unwrap();
        for proof in [Proof::UnusedAfterExpiry, Proof::NeverShown] {
            assert_eq!(code(front.release(&id, proof).await), "not_proven", "{sight:?}");
        }
        assert_eq!(house.journal.get(&id).unwrap().state.name(), ends);
        let refused = Outcome::Refused { receipt: None, note: "it says that it charged nothing".to_owned() };
        Authorizer::conclude(&front, &id, refused).await.unwrap();
        assert_eq!(code(front.release(&id, Proof::NeverShown).await), "not_proven");
        house.guard().sweep().await.unwrap();
        assert_eq!(held(&house), 1, "{sight:?}");
    }
}

#[tokio::test]
async fn what_the_chain_proves_is_freed_and_confirmed_by_the_guard() {
    let late = system_clock().wall.plus(Duration::from_secs(86_400));
    let chain = Chain::saying(Sight::Unused { as_of: late });
    let house = House::open(vec![chain.clone()]);
    let front = house.front("buyer").await;
    let (a, b) = (front.authorize(intent(1)).await.unwrap().id, front.authorize(intent(2)).await.unwrap().id);
    front.present(&a).await.unwrap();
    front.present(&b).await.unwrap();
    front.release(&a, Proof::UnusedAfterExpiry).await.unwrap();
    assert_eq!((held(&house), house.journal.get(&a).unwrap().state), (1, State::Released));
    // That a purchase is confirmed and final the guard finds out on its own.
    *chain.sight.lock().unwrap() = Sight::Settled { tx: TxHash([3; 32]) };
    house.guard().sweep().await.unwrap();
    assert!(house.journal.get(&b).unwrap().confirmed);
}

#[tokio::test]
async fn only_what_the_guard_reads_counts_as_confirmed_or_final() {
    let house = House::open(Vec::new());
    let token = house.token("liar");
    let mut liar = house.raw(&token).await;
    let said = liar.ask("authorize", json!({ "intent": intent_json(1) })).await;
    let id = said["ok"]["id"].as_str().unwrap().to_owned();
    liar.ask("present", json!({ "id": id })).await;
    let confirmed = json!({ "id": id, "outcome": { "is": "settled", "confirmed": true } });
    assert_eq!(liar.code("conclude", confirmed).await, "malformed");
    let no_hash = json!({ "id": id, "outcome": { "is": "settled", "tx": "0x\n" } });
    assert_eq!(liar.code("conclude", no_hash).await, "malformed");
    let settled = json!({ "id": id, "outcome": { "is": "settled", "note": "a\u{1b}[2Jb".repeat(1_000) } });
    assert!(liar.ask("conclude", settled).await["ok"].is_object());
    assert!(liar.ask("finalize", json!({ "id": id })).await["ok"].is_object());
    let kept = house.journal.get(&id.parse().unwrap()).unwrap();
    assert_eq!((kept.state, kept.confirmed, kept.finalized), (State::Settled, false, false));
    let note = kept.note.unwrap();
    assert!(note.chars().count() <= MAX_NOTE_CHARS && !note.contains('\u{1b}'), "{note:?}");
}

#[tokio::test]
async fn the_clock_and_the_kind_of_a_chain_are_not_an_agents_to_say() {
    let house = House::open(Vec::new());
    let token = house.token("liar");
    let mut liar = house.raw(&token).await;
    for claim in ["devnet", "chain_time", "permit_nonce", "origin", "funds"] {
        let mut intent = intent_json(1);
        intent[claim] = json!(1);
        assert_eq!(liar.code("authorize", json!({ "intent": intent })).await, "malformed", "{claim}");
    }
    let old = Chain::saying(Sight::Unavailable);
    *old.time.lock().unwrap() = Some(system_clock().wall.minus(Duration::from_secs(7_200)));
    let house = House::open(vec![old]);
    let front = house.front("liar").await;
    let claims = Intent { chain_time: Some(system_clock().wall), devnet: true, ..intent(1) };
    assert_eq!(code(front.authorize(claims).await), "clock_ahead_of_chain");
}

#[tokio::test]
async fn an_agent_finds_nothing_of_anothers() {
    let house = House::open(Vec::new());
    let victim = house.front("victim").await;
    let token = house.token("thief");
    let id = victim.authorize(intent(1)).await.unwrap().id;
    victim.present(&id).await.unwrap();
    let mut thief = house.raw(&token).await;
    let nobody = PurchaseId::new(system_clock().wall, [9; 10]);
    for id in [id, nobody] {
        let with = json!({ "id": id.to_string() });
        for what in ["present", "release", "received", "finalize", "purchase"] {
            assert_eq!(thief.code(what, with.clone()).await, "not_found", "{what}");
        }
        let outcome = json!({ "id": id.to_string(), "outcome": { "is": "refused" } });
        assert_eq!(thief.code("conclude", outcome).await, "not_found");
        let need = json!({ "required": "1", "accepted": "0", "deposit": "0" });
        let raise = json!({ "id": id.to_string(), "need": need, "went_on": false });
        assert_eq!(thief.code("raise", raise).await, "not_found");
    }
    let channel = format!("0x{}", "11".repeat(32));
    for what in ["channel", "look"] {
        assert_eq!(thief.code(what, json!({ "channel": channel })).await, "not_found");
    }
    let attempt = id.to_string().replace("buy_", "att_");
    let said = thief.ask("show_deposit", json!({ "id": attempt })).await;
    assert!(said["ok"].is_null(), "{said}");
    for what in ["open_purchases", "abandoned"] {
        assert_eq!(thief.ask(what, json!({})).await["ok"]["purchases"], json!([]));
    }
    assert_eq!(thief.ask("channels", json!({})).await["ok"]["channels"], json!([]));
}

#[tokio::test]
async fn there_is_no_way_to_a_key_or_to_a_signature_over_a_hash() {
    let house = House::open(Vec::new());
    let token = house.token("thief");
    let mut thief = house.raw(&token).await;
    for what in
        ["sign", "sign_hash", "key", "export", "rules", "unfreeze", "adopt", "saw", "hello", "", "Authorize"]
    {
        assert_eq!(thief.code(what, json!({ "id": "x" })).await, "method_unknown", "{what}");
    }
    let typed = json!({ "intent": intent_json(1), "digest": "00".repeat(32) });
    assert_eq!(thief.code("authorize", typed).await, "malformed");
}

#[tokio::test]
async fn a_freeze_holds_on_open_connections_and_in_the_middle_of_a_purchase() {
    let house = House::open(Vec::new());
    let (frozen, other) = (house.front("acme/a").await, house.front("acme/b").await);
    let signed = frozen.authorize(intent(1)).await.unwrap().id;
    let shown = frozen.authorize(intent(2)).await.unwrap().id;
    let header = frozen.present(&shown).await.unwrap();
    let name: AgentName = "acme/a".parse().unwrap();
    house.journal.freeze_agent(&name, &system_clock()).unwrap();
    assert_eq!(code(frozen.authorize(intent(3)).await), "frozen");
    assert_eq!(code(frozen.present(&signed).await), "frozen");
    assert_eq!(frozen.present(&shown).await.unwrap(), header, "no new signature, and the goods are owed");
    assert!(other.authorize(intent(4)).await.is_ok());
    house.journal.freeze_agent(&"acme".parse().unwrap(), &system_clock()).unwrap();
    assert_eq!(code(other.authorize(intent(5)).await), "frozen");
    for name in ["acme", "acme/a"] {
        house.journal.unfreeze_agent(&name.parse().unwrap()).unwrap();
    }
    assert!(frozen.present(&signed).await.is_ok());
    house
        .journal
        .change_rules(|rules| {
            rules.frozen = true;
            Ok(())
        })
        .unwrap();
    assert_eq!(code(other.authorize(intent(6)).await), "frozen");
}

/// A guard whose owner reaches it by a socket.
async fn reached(house: &Arc<House>, folder: &std::path::Path) -> std::path::PathBuf {
    let path = folder.join("owner/owner.sock");
    let socket = OwnerSocket::bind(&path).await.unwrap();
    let guard = house.guard();
    tokio::spawn(async move { socket.serve(&guard).await });
    path
}

#[tokio::test]
async fn an_agent_pays_by_its_session_key_until_that_ends() {
    let house = House::open(Vec::new());
    let owners = wallet(&house.journal).payer().clone();
    let open: OpenSessionKey = Arc::new(|terms: &SessionTerms| -> Result<Arc<dyn Signer>, String> {
        match terms.name.as_str() {
            "scout" => Ok(Arc::new(Key::from_bytes([8; 32]).unwrap())),
            _ => Err("the file is gone".to_owned()),
        }
    });
    let guard = Guard::with_session_keys(&wallet(&house.journal), Vec::new(), Some(open)).unwrap();
    *house.guard.lock().unwrap() = guard;
    let (scout, other) = (house.token("acme/scout"), house.token("acme/other"));
    let early = house.connect(&scout).await;
    assert_eq!(early.payer(), &owners);
    let make = |n: u8, name: &str, agent: &str| {
        let agent: AgentName = agent.parse().unwrap();
        let (key, hour) = (Key::from_bytes([n; 32]).unwrap(), Duration::from_secs(3600));
        house.journal.add_session_key(&key, name, Some(&agent), &owners, hour, &system_clock()).unwrap()
    };
    let made = make(8, "scout", "acme/scout");
    // On a connection that is older than its key an agent pays nothing, and so not with the wallet's.
    assert_eq!(code(early.authorize(intent(1)).await), "session_key_needed");
    let front = house.connect(&scout).await;
    assert_eq!(front.payer(), &made.terms.address);
    let signed = front.authorize(intent(2)).await.unwrap();
    assert_eq!(signed.payer, made.terms.address);
    let unshown = front.authorize(intent(3)).await.unwrap().id;
    let header = front.present(&signed.id).await.unwrap();
    let others = house.connect(&other).await;
    assert_eq!(others.authorize(intent(4)).await.unwrap().payer, owners);
    house.journal.end_session_key("scout", false, &system_clock()).unwrap();
    assert_eq!(code(front.authorize(intent(5)).await), "session_key_ended");
    assert_eq!(code(front.preview(&intent(5)).await), "session_key_ended");
    assert_eq!(code(front.present(&unshown).await), "session_key_ended");
    assert_eq!(front.present(&signed.id).await.unwrap(), header, "no new signature, and the goods are owed");
    assert_eq!(code(early.authorize(intent(6)).await), "session_key_needed");
    // Who has one that cannot be opened is not let in to pay with another.
    make(9, "lost", "acme/lost");
    let lost = house.token("acme/lost");
    let refused = RemoteAuthorizer::connect(Arc::new(Door(house.clone())), Some(&lost)).await.unwrap_err();
    assert!(refused.to_string().contains("cannot open the session key lost"), "{refused}");
    house.journal.end_session_key("scout", true, &system_clock()).unwrap();
    assert_eq!(house.connect(&scout).await.authorize(intent(7)).await.unwrap().payer, owners);
}

#[tokio::test]
async fn the_owners_socket_revokes_on_open_connections_and_in_the_middle_of_a_purchase() {
    let house = House::open(Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let path = reached(&house, folder.path()).await;
    let (gone, other) = (house.front("acme/a").await, house.front("acme/b").await);
    let signed = gone.authorize(intent(1)).await.unwrap().id;
    let name: AgentName = "acme/a".parse().unwrap();
    assert_eq!(revoke_at(&path, &name).await, Revocation::Done);
    assert_eq!(code(gone.authorize(intent(2)).await), "token_revoked");
    assert_eq!(code(gone.present(&signed).await), "token_revoked");
    assert!(other.authorize(intent(3)).await.is_ok());
    assert_eq!(revoke_at(&path, &name).await, Revocation::Unknown, "twice is once");
    assert_eq!(revoke_at(&path, &"nobody".parse().unwrap()).await, Revocation::Unknown);
    assert!(other.authorize(intent(4)).await.is_ok());
    // Who hears nothing has to do it.
    assert_eq!(revoke_at(&folder.path().join("none"), &name).await, Revocation::NotDone);
}

#[tokio::test]
async fn the_owners_socket_does_what_it_understands_and_nothing_else() {
    let house = House::open(Vec::new());
    let folder = tempfile::tempdir().unwrap();
    let path = reached(&house, folder.path()).await;
    let front = house.front("acme/a").await;
    for line in [
        "",
        "{}",
        "[]",
        r#"{"revoke":"ACME/A"}"#,
        r#"{"revoke":"acme/a","freeze":{"all":true}}"#,
        r#"{"revoke":"acme/a","more":1}"#,
        r#"{"unfreeze":{"all":true}}"#,
        r#"{"freeze":{}}"#,
    ] {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        BufReader::new(stream).read_line(&mut said).await.unwrap();
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said, json!({ "frozen": false, "revoked": false, "unknown": false }), "{line}");
    }
    assert!(front.authorize(intent(1)).await.is_ok());
    assert!(freeze_at(&path, &Whom::All).await);
    assert_eq!(code(front.authorize(intent(2)).await), "frozen");
}

#[tokio::test]
async fn a_freeze_while_requests_are_under_way_lets_none_through_after_it() {
    let house = House::open(Vec::new());
    cap(&house, 1_000);
    let front = house.front("buyer").await;
    let asking: Vec<_> = (0..64)
        .map(|n| {
            let front = front.clone();
            tokio::spawn(async move {
                let id = front.authorize(intent(n)).await.ok()?.id;
                front.present(&id).await.ok()
            })
        })
        .collect();
    let name: AgentName = "buyer".parse().unwrap();
    let journal = house.journal.clone();
    let signed_by_then = tokio::task::spawn_blocking(move || {
        while journal.history(1).unwrap().is_empty() {
            std::thread::yield_now();
        }
        journal.freeze_agent(&name, &system_clock()).unwrap();
        signatures(&journal)
    });
    let signed_by_then = signed_by_then.await.unwrap();
    for asked in asking {
        let _ = asked.await.unwrap();
    }
    assert_eq!(
        signatures(&house.journal),
        signed_by_then,
        "something was signed after the freeze had returned"
    );
    let shown = house.journal.history(100).unwrap().iter().filter(|one| one.shown > 0).count();
    assert!(shown <= signed_by_then);
}

fn signatures(journal: &Journal) -> usize {
    journal.history(1_000).unwrap().iter().filter(|purchase| purchase.header.is_some()).count()
}

#[tokio::test]
async fn a_revoked_token_is_worth_nothing_on_open_connections_either() {
    let house = House::open(Vec::new());
    let token = house.token("buyer");
    let front = house.connect(&token).await;
    let id = front.authorize(intent(1)).await.unwrap().id;
    let name: AgentName = "buyer".parse().unwrap();
    let new = AgentToken::random(name.clone()).unwrap();
    house.journal.rotate_agent(&name, CredentialKind::Token, &new.credential(), &system_clock()).unwrap();
    assert_eq!(code(front.present(&id).await), "token_revoked");
    assert_eq!(code(front.authorize(intent(2)).await), "token_revoked");
    let old = RemoteAuthorizer::connect(Arc::new(Door(house.clone())), Some(&token)).await;
    assert!(matches!(old, Err(ConnectError::Refused(refusal)) if refusal.code == "token_wrong"));
    let front = house.connect(&new.reveal()).await;
    assert!(front.present(&id).await.is_ok(), "its purchases are its own still");
}

#[tokio::test]
async fn tokens_are_not_guessed_for_long() {
    let house = House::open(Vec::new());
    let right = house.token("buyer");
    let hello = |token: &str| json!({ "version": 1, "token": token, "front": "0123456789abcdef" });
    let wrong = format!("buyer:{}", "00".repeat(32));
    for n in 0..MAX_WRONG_TOKENS {
        let said = Raw::new(house.pipe("guesser")).ask("hello", hello(&wrong)).await;
        assert_eq!(said["error"]["code"], "token_wrong", "{n}");
    }
    for token in [&wrong, &right] {
        let said = Raw::new(house.pipe("guesser")).ask("hello", hello(token)).await;
        assert_eq!(said["error"]["code"], "too_many_attempts");
    }
    let said = Raw::new(house.pipe("somebody else")).ask("hello", hello(&right)).await;
    assert_eq!(said["ok"]["agent"], "buyer");
}

#[tokio::test]
async fn whoever_says_no_hello_is_not_listened_to() {
    let house = House::open(Vec::new());
    let token = house.token("buyer");
    let good = json!({ "version": 1, "token": token, "front": "0123456789abcdef" });
    for (what, change, code) in [
        ("purchase", json!({}), "hello_first"),
        ("hello", json!({ "version": 2 }), "version_unknown"),
        ("hello", json!({ "token": "buyer" }), "token_wrong"),
        ("hello", json!({ "token": null }), "token_wrong"),
        ("hello", json!({ "front": "../../etc" }), "malformed"),
        ("hello", json!({ "front": "short" }), "malformed"),
        ("hello", json!({ "admin": true }), "malformed"),
    ] {
        let mut with = good.clone();
        for (name, value) in change.as_object().unwrap() {
            with[name] = value.clone();
        }
        let mut raw = Raw::new(house.pipe("stranger"));
        assert_eq!(raw.code(what, with.clone()).await, code, "{with}");
        assert_eq!(raw.hear().await, None, "and it is over");
    }
}

#[tokio::test]
async fn lines_that_are_none_end_the_connection() {
    let house = House::open(Vec::new());
    let token = house.token("hostile");
    let deep = format!("{}1{}\n", "[".repeat(5_000), "]".repeat(5_000));
    let long = "x".repeat(MAX_LINE_BYTES + 2);
    let wide = format!("{{\"id\":1,\"do\":\"channels\",\"with\":[{}0]}}\n", "0,".repeat(10_000));
    for garbage in [
        "garbage\n",
        "\n",
        "{}\n",
        "[]\n",
        "null\n",
        "{\"id\":-1,\"do\":\"channels\"}\n",
        "{\"id\":1,\"do\":\"channels\",\"as\":\"root\"}\n",
        "{\"id\":1,\"id\":2,\"do\":\"channels\"}\n",
        "{\"id\":1,\"do\":\"channels\"}}\n",
        "{\"id\":1e400,\"do\":\"channels\"}\n",
        &deep,
        &long,
        &wide,
    ] {
        let mut raw = house.raw(&token).await;
        raw.say(garbage.as_bytes()).await;
        let said = raw.hear().await.unwrap();
        assert_eq!(said["error"]["code"], "malformed", "{:.80}", garbage);
        assert_eq!(raw.hear().await, None, "{:.80}", garbage);
    }
    let mut raw = house.raw(&token).await;
    raw.say(&[0xff, 0xfe, b'\n']).await;
    assert_eq!(raw.hear().await.unwrap()["error"]["code"], "malformed");
}

#[tokio::test(start_paused = true)]
async fn whoever_begins_and_does_not_end_is_thrown_out() {
    let house = House::open(Vec::new());
    let mut silent = Raw::new(house.pipe("silent"));
    assert_eq!(silent.hear().await, None, "it said no hello in time");
    let mut slow = Raw::new(house.pipe("slow"));
    slow.say(b"{\"id\":1").await;
    assert_eq!(slow.hear().await, None);
}

#[tokio::test]
async fn an_agent_has_so_many_connections_and_no_more() {
    let house = House::open(Vec::new());
    let token = house.token("swarm");
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS_PER_AGENT {
        open.push(house.raw(&token).await);
    }
    let hello = json!({ "version": 1, "token": token, "front": "0123456789abcdef" });
    let mut one_more = Raw::new(house.pipe("swarm"));
    assert_eq!(one_more.code("hello", hello.clone()).await, "too_many_connections");
    let others = house.token("other");
    house.raw(&others).await;
    drop(open.pop());
    // The guard notices when it notices.
    loop {
        let said = Raw::new(house.pipe("swarm")).ask("hello", hello.clone()).await;
        if said["ok"].is_object() {
            break;
        }
        assert_eq!(said["error"]["code"], "too_many_connections");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn offers_are_read_by_the_guards_own_parsers() {
    let house = House::open(Vec::new());
    let token = house.token("liar");
    let mut liar = house.raw(&token).await;
    let good = intent_json(1);
    let text = good["offer"]["text"].as_str().unwrap();
    let mut two: Value = serde_json::from_str(text).unwrap();
    let first = two["accepts"][0].clone();
    two["accepts"].as_array_mut().unwrap().push(first);
    for (dialect, text) in [
        ("x402-v2", "{}".to_owned()),
        ("x402-v2", two.to_string()),
        ("x402-v2", text.replace(&format!("\"{CENT}\""), "\"-1\"")),
        ("x402-v2", text.replace(&format!("\"{CENT}\""), "\"1e4\"")),
        ("x402-v1", text.to_owned()),
        ("mpp", text.to_owned()),
        ("raw", text.to_owned()),
    ] {
        let mut intent = good.clone();
        intent["offer"] = json!({ "dialect": dialect, "text": text });
        let code = liar.code("authorize", json!({ "intent": intent })).await;
        assert_eq!(code, "offer_unreadable", "{dialect}: {text:.80}");
    }
    for (field, value) in [
        ("url", json!("https://user:pass@seller.example/")),
        ("url", json!("file:///etc/passwd")),
        ("url", json!(format!("https://seller.example/{}", "a".repeat(MAX_URL_BYTES)))),
        ("method", json!("G E T")),
        ("request_hash", json!("00")),
        ("max", json!("9".repeat(65))),
    ] {
        let mut intent = good.clone();
        intent[field] = value;
        assert_eq!(liar.code("authorize", json!({ "intent": intent })).await, "malformed", "{field}");
    }
    assert_eq!(held(&house), 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// People, and the books.

const POLICY: &str = r#"
version: 1
owner: acme
budgets:
  acme: {per_payment: $0.05, rolling: {24h: $1}}
  acme/a: {rolling: {24h: $0.50}}
allow:
  - name: seller
    hosts: [seller.example]
    networks: [eip155:84532]
    schemes: [exact]
approve:
  - name: dear
    over: $0.02
    quorum: 1
"#;

fn dear(n: u8) -> Intent {
    Intent { offer: offer(3 * CENT), body: Some([0; 32]), ..intent(n) }
}

#[tokio::test]
async fn people_are_asked_through_the_socket_and_their_yes_is_good_once() {
    let house = House::open(Vec::new());
    house.journal.apply_policy(POLICY, false).unwrap();
    let (front, other) = (house.front("acme/a").await, house.front("acme/b").await);
    let asked_for = front.preview(&dear(1)).await.unwrap();
    assert_eq!(asked_for.asks_for_approval(), Some(1), "a front can tell that people could agree");
    assert_eq!(code(front.authorize(dear(1)).await), "approval_required");
    assert_eq!(code(front.ask_people(&dear(1)).await), "approvers_none");
    let ada = ApproverKey::from_seed([1; 32]).unwrap();
    house.journal.add_approver("ada", &ada.public(), None, &system_clock()).unwrap();
    let ticket = front.ask_people(&dear(1)).await.unwrap();
    assert_eq!((ticket.status, ticket.used), (Status::Pending { voices: 0, quorum: 1 }, false));
    assert!(ticket.text.contains("https://seller.example/goods"), "{}", ticket.text);
    assert_eq!(front.ask_people(&dear(1)).await.unwrap().id, ticket.id, "the same is asked once");
    assert_eq!(code(other.ticket(&ticket.id).await), "approval_unknown", "it is nobody else's");
    assert_eq!(code(front.authorize(dear(1)).await), "approval_required");

    let kept = house.journal.approval(&ticket.id, &system_clock()).unwrap();
    let yes = Ballot::cast(&ada, &kept.request, Verdict::Approve);
    house.journal.vote(&ticket.id, "ada", &yes, &system_clock()).unwrap();
    assert_eq!(front.ticket(&ticket.id).await.unwrap().status, Status::Approved { voices: 1 });
    assert_eq!(code(other.authorize(dear(1)).await), "approval_required", "nor is the yes");
    let paid = front.authorize(dear(1)).await.unwrap();
    assert!(front.present(&paid.id).await.is_ok());
    assert!(front.ticket(&ticket.id).await.unwrap().used);
    assert_eq!(code(front.authorize(dear(2)).await), "approval_required", "one yes, one payment");
    assert_eq!(code(front.ask_people(&intent(3)).await), "approval_not_needed");
    let beyond = Intent { offer: offer(6 * CENT), ..dear(4) };
    assert_eq!(code(front.ask_people(&beyond).await), "over_budget", "no approval lifts a limit");
}

#[tokio::test]
async fn an_agent_asks_for_a_grant_and_gives_itself_none() {
    let house = House::open(Vec::new());
    house.journal.apply_policy(POLICY, false).unwrap();
    let (front, other) = (house.front("acme/a").await, house.front("acme/b").await);
    let ada = ApproverKey::from_seed([1; 32]).unwrap();
    house.journal.add_approver("ada", &ada.public(), None, &system_clock()).unwrap();
    let ask = |bounds: &str| bounds.parse::<GrantAsk>().unwrap();
    for (bounds, why) in [
        ("n=0,until=1h", "grant_payments"),
        ("n=2,until=31d", "grant_length"),
        ("n=2,until=1h,total=0.07", "grant_amounts"),
        ("n=2,until=1h,each=0.02", "grant_amounts"),
        ("n=2,until=1h,each=cheap", "grant_amount"),
        ("n=2,until=1h,below=https://other.example/", "grant_place"),
    ] {
        assert_eq!(code(front.ask_for_grant(&dear(1), &ask(bounds)).await), why, "{bounds}");
    }
    let two = ask("n=2,total=0.06,until=1h,below=https://seller.example/,body=any");
    assert_eq!(code(front.ask_for_grant(&intent(1), &two).await), "approval_not_needed");
    let ticket = front.ask_for_grant(&dear(1), &two).await.unwrap();
    assert_eq!(ticket.left, Some(Uses { payments: 2, atoms: 6 * CENT }));
    assert_eq!(code(other.ticket(&ticket.id).await), "approval_unknown", "it is nobody else's");
    assert_eq!(code(front.authorize(dear(1)).await), "approval_required", "to ask is not to be told yes");

    let kept = house.journal.approval(&ticket.id, &system_clock()).unwrap();
    let yes = Ballot::cast(&ada, &kept.request, Verdict::Approve);
    house.journal.vote(&ticket.id, "ada", &yes, &system_clock()).unwrap();
    assert_eq!(code(other.authorize(dear(1)).await), "approval_required");
    for n in 1..=2 {
        let paid = front.authorize(dear(n)).await.unwrap();
        assert!(front.present(&paid.id).await.is_ok());
    }
    let ticket = front.ticket(&ticket.id).await.unwrap();
    assert_eq!((ticket.used, ticket.left), (true, Some(Uses::default())));
    assert_eq!(code(front.authorize(dear(3)).await), "approval_required", "two, and not three");
}

#[tokio::test]
async fn an_agent_reads_its_own_part_of_the_books() {
    let house = House::open(Vec::new());
    let by_hand = house.front("acme/hand").await.budget().await.unwrap();
    assert!(matches!(&by_hand.limits, Limits::ByHand { hosts, .. } if hosts == &["seller.example"]));
    house.journal.apply_policy(POLICY, false).unwrap();
    let (front, other) = (house.front("acme/a").await, house.front("acme/b").await);
    let hosts: Vec<String> = front.hosts().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["seller.example"]);
    let mut bought = Vec::new();
    for n in 0..=u8::try_from(MAX_LISTED).unwrap() {
        bought.push(front.authorize(intent(n)).await.unwrap().id);
    }
    bought.reverse();
    let ids = |all: Vec<Purchase>| all.into_iter().map(|one| one.id).collect::<Vec<_>>();
    assert_eq!(ids(front.history(100).await.unwrap()), bought, "latest first, also over several pages");
    assert_eq!(ids(front.history(3).await.unwrap()), bought[..3]);
    assert_eq!(ids(other.history(100).await.unwrap()), []);
    let hash = intent(7).request_hash;
    assert_eq!(front.latest_for(&hash).await.unwrap().unwrap().request_hash, hash);
    assert!(other.latest_for(&hash).await.unwrap().is_none());
    let shares = |budget: Budget| match budget.limits {
        Limits::Policy(shares) => shares,
        by_hand @ Limits::ByHand { .. } => panic!("{by_hand:?}"),
    };
    let seen = front.budget().await.unwrap();
    assert!(!seen.frozen);
    assert!(shares(seen).iter().any(|one| one.budget == "acme/a" && one.spent.as_deref() == Some("0.25")));
    assert!(!shares(other.budget().await.unwrap()).iter().any(|one| one.budget == "acme/a"));
    house.journal.freeze_agent(&"acme/a".parse().unwrap(), &system_clock()).unwrap();
    assert!(front.budget().await.unwrap().frozen);
    assert!(!other.budget().await.unwrap().frozen);
}

#[tokio::test]
async fn names_of_calls_are_an_agents_own_and_so_many() {
    let house = House::open(Vec::new());
    let (front, other) = (house.front("a").await, house.front("b").await);
    let (one, two) = (RequestHash([1; 32]), RequestHash([2; 32]));
    assert_eq!(front.bind_call("errand", &one).await.unwrap(), one);
    assert_eq!(front.bind_call("errand", &two).await.unwrap(), one, "a name is for one request");
    assert_eq!(other.bind_call("errand", &two).await.unwrap(), two);
    let secret = front.call_secret().await.unwrap();
    assert_eq!(front.call_secret().await.unwrap(), secret);
    let owners = wallet(&house.journal).call_secret().await.unwrap();
    assert!(secret != owners && secret != other.call_secret().await.unwrap());
    for name in ["", &"x".repeat(MAX_CALL_NAME_BYTES + 1)] {
        assert_eq!(code(front.bind_call(name, &one).await), "malformed");
    }
    let guard = house.guard();
    let name: AgentName = "a".parse().unwrap();
    let may = (0..MAX_CALL_NAMES).filter(|_| guard.may_name(&name)).count();
    assert_eq!(may, usize::try_from(MAX_CALL_NAMES).unwrap() - 2, "two were named above");
    assert_eq!(code(front.bind_call("more", &one).await), "too_many_calls");
    assert!(other.bind_call("more", &one).await.is_ok(), "others may");
}

#[tokio::test]
async fn attack_13_what_an_agent_read_is_told_through_the_socket_and_never_taken_back() {
    let house = House::open(Vec::new());
    let policy = POLICY.replace("hosts: [seller.example]", "hosts: [\"*.example\"]");
    assert_ne!(policy, POLICY);
    house.journal.apply_policy(&policy, true).unwrap();
    let (front, other) = (house.front("acme/a").await, house.front("acme/b").await);
    assert!(front.preview(&intent(1)).await.unwrap().is_allowed());
    let names = Names::of("pay at https://seller.example");
    front.mention(&names, "tools.example:443 search").await.unwrap();
    let held = front.preview(&intent(1)).await.unwrap();
    assert_eq!(held.asks_for_approval(), Some(1));
    assert!(held.findings.iter().any(|fact| fact.code() == "named_first"), "{held:?}");
    assert_eq!(code(front.authorize(intent(1)).await), "approval_required");
    assert!(other.authorize(intent(2)).await.is_ok(), "the other never read it");
    // Thousands of names take several lines, and what did not fit is said.
    let mut many = Names::default();
    many.hosts.extend((0..600).map(|n| format!("h{n}.example").parse::<farthing_policy::Host>().unwrap()));
    many.cut();
    other.mention(&many, "tools.example:443").await.unwrap();
    assert_eq!(house.journal.mentions().unwrap().len(), 602);
    // There is no word for taking anything back, and what is no name is refused.
    let token = house.token("acme/c");
    let mut raw = house.raw(&token).await;
    let by = "tools.example:443";
    for (with, code) in [
        (json!({ "by": "two\nlines", "hosts": ["a.example"] }), "malformed"),
        (json!({ "by": "x".repeat(201), "hosts": ["a.example"] }), "malformed"),
        (json!({ "by": by, "hosts": ["no host"] }), "malformed"),
        (json!({ "by": by, "payees": ["0x12"] }), "malformed"),
        (json!({ "by": by, "hosts": vec!["a.example"; 257] }), "malformed"),
        (json!({ "by": by, "forget": true }), "malformed"),
    ] {
        assert_eq!(raw.code("mention", with.clone()).await, code, "{with}");
    }
    assert_eq!(raw.code("forget_mentions", json!({})).await, "method_unknown");
    assert_eq!(house.journal.mentions().unwrap().len(), 602);
}
