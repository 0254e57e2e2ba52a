use super::*;

const POLICY: &str = r#"
version: 1
budgets:
  acme: {per_payment: $0.05, rolling: {24h: $0.10}}
  acme/a: {rolling: {24h: $0.04}}
owner: acme
allow:
  - hosts: [api.weather.example]
    paths: [/v1/*]
    networks: [eip155:84532]
    schemes: [exact]
"#;
const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const PAYEE: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

fn decider() -> Decider {
    let journal = Journal::in_memory().unwrap();
    journal.apply_policy(POLICY, false).unwrap();
    Decider::new(Arc::new(journal), Registry::builtin(), [7; 32]).unwrap()
}

fn offer(atoms: &str) -> Value {
    json!({
        "scheme": "exact", "network": "eip155:84532", "asset": USDC, "amount": atoms, "payTo": PAYEE,
        "maxTimeoutSeconds": 60, "extra": { "name": "USDC", "version": "2" },
    })
}

fn payment(offers: Vec<Value>) -> Value {
    json!({
        "type": "payment", "id": 1, "method": "GET", "url": "https://api.weather.example/v1/now",
        "x402Version": 2, "offers": offers,
    })
}

fn with(mut question: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        question[key] = value.clone();
    }
    question
}

async fn ask(decider: &Decider, question: &Value) -> Value {
    answer(decider, question.to_string().as_bytes()).await
}

#[track_caller]
fn is_denied(answer: &Value, code: &str) {
    assert_eq!((&answer["type"], &answer["code"]), (&json!("deny"), &json!(code)), "{answer}");
}

#[tokio::test]
async fn the_cheapest_permitted_offer_is_allowed_and_counts() {
    let decider = decider();
    let mainnet = with(offer("1"), json!({ "network": "eip155:1" }));
    let fake = with(offer("1"), json!({ "asset": PAYEE }));
    let offers = vec![mainnet, fake, offer("30000"), offer("20000"), json!({ "scheme": 1 })];
    let allowed = ask(&decider, &payment(offers)).await;
    assert_eq!((&allowed["type"], &allowed["offer"]), (&json!("allow"), &json!(3)), "{allowed}");
    assert_eq!((&allowed["amount_atoms"], &allowed["id"]), (&json!("20000"), &json!(1)));
    // $0.10 are five times two cents, whoever asks.
    for _ in 0..4 {
        assert_eq!(ask(&decider, &payment(vec![offer("20000")])).await["type"], "allow");
    }
    is_denied(&ask(&decider, &payment(vec![offer("20000")])).await, "over_budget");
    assert_eq!(ask(&decider, &payment(vec![])).await["code"], "no_offer");
}

#[tokio::test]
async fn an_agent_has_its_own_budget_too() {
    let decider = decider();
    let of = |agent: &str| with(payment(vec![offer("20000")]), json!({ "agent": agent }));
    assert_eq!(ask(&decider, &of("acme/a")).await["type"], "allow");
    assert_eq!(ask(&decider, &of("acme/a")).await["type"], "allow");
    is_denied(&ask(&decider, &of("acme/a")).await, "over_budget");
    assert_eq!(ask(&decider, &of("acme")).await["type"], "allow");
    is_denied(&ask(&decider, &of("other")).await, "agent_unknown");
    is_denied(&ask(&decider, &of("Acme")).await, "malformed");
}

#[tokio::test]
async fn many_at_once_get_what_there_is_and_no_more() {
    let decider = Arc::new(decider());
    let asked = (0..1000).map(|_| {
        let decider = decider.clone();
        tokio::spawn(async move { ask(&decider, &payment(vec![offer("1000")])).await["type"] == "allow" })
    });
    let allowed = futures_util::future::join_all(asked).await;
    assert_eq!(allowed.into_iter().filter(|one| *one.as_ref().unwrap()).count(), 100);
}

#[tokio::test]
async fn attack_12_neither_transfers_nor_bare_signatures_are_allowed() {
    let decider = decider();
    is_denied(
        &ask(&decider, &json!({ "type": "transfer", "id": 1, "to": PAYEE, "atoms": "3000000" })).await,
        "transfer_not_allowed",
    );
    is_denied(
        &ask(&decider, &json!({ "type": "sign", "id": 1, "hash": "0x00" })).await,
        "signature_not_allowed",
    );
    assert_eq!(ask(&decider, &json!({ "type": "hello", "id": "x", "version": 1 })).await["type"], "hello");
    is_denied(&ask(&decider, &json!({ "type": "hello", "id": 1, "version": 2 })).await, "version");
    is_denied(
        &ask(&decider, &json!({ "type": "hello", "id": 1, "version": 1, "more": 1 })).await,
        "malformed",
    );
}

#[tokio::test]
async fn what_is_asked_wrongly_is_denied() {
    let decider = decider();
    let one = || payment(vec![offer("1000")]);
    for (change, code) in [
        (json!({ "url": "https://api.weather.example.evil.example/v1/now" }), "host_not_allowed"),
        (json!({ "url": "https://\u{430}pi.weather.example/v1/now" }), "host_not_allowed"),
        (json!({ "url": "https://api.weather.example/v2" }), "not_allowed"),
        (json!({ "url": "https://user:pass@api.weather.example/v1/now" }), "address"),
        (json!({ "url": "ftp://api.weather.example/v1/now" }), "address"),
        (json!({ "url": "nonsense" }), "malformed"),
        (json!({ "x402Version": 3 }), "malformed"),
        (json!({ "surprise": 1 }), "malformed"),
        (json!({ "method": "get" }), "malformed"),
        (json!({ "body_sha256": "00" }), "malformed"),
        (json!({ "max": "0.0005" }), "over_max"),
        (json!({ "offers": [offer("-1")] }), "offer_unreadable"),
        (json!({ "offers": [offer("1e3")] }), "offer_unreadable"),
        (json!({ "offers": [offer("0001")] }), "offer_unreadable"),
        (json!({ "offers": [offer("0")] }), "offer_unsupported"),
        (json!({ "offers": [offer("50001")] }), "over_budget"),
        (json!({ "offers": vec![offer("1"); 65] }), "too_many_offers"),
    ] {
        is_denied(&ask(&decider, &with(one(), change)).await, code);
    }
    for line in ["", "[]", "{", "null", "{\"type\":\"pay\"}", "{\"type\":\"payment\"}", "\u{1b}[2J"] {
        is_denied(&answer(&decider, line.as_bytes()).await, "malformed");
    }
    let deep = format!("{{\"type\":\"payment\",\"offers\":{}", "[".repeat(100_000));
    is_denied(&answer(&decider, deep.as_bytes()).await, "malformed");
    // A payee that changes is not paid.
    assert_eq!(ask(&decider, &one()).await["type"], "allow");
    let other = with(offer("1000"), json!({ "payTo": USDC }));
    is_denied(&ask(&decider, &payment(vec![other])).await, "payee_changed");
}

#[test]
fn a_wallets_journal_is_no_book_of_decisions() {
    let wallet = Journal::in_memory().unwrap();
    wallet.set_default_key("agent").unwrap();
    assert!(wallet.for_decisions().is_err());
    let governed = Journal::in_memory().unwrap();
    governed.apply_policy(POLICY, false).unwrap();
    assert!(governed.for_decisions().is_err());
    let own = Journal::in_memory().unwrap();
    own.for_decisions().unwrap();
    own.apply_policy(POLICY, false).unwrap();
    own.for_decisions().unwrap();
}
