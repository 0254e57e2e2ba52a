// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_approval::{
    ApproverKey, CredentialId, GrantRequest, GrantTerms, Passkey, PasskeyKey, Question, Site, Verdict,
};
use farthing_policy::{Caller, Charge, Origin};
use farthing_primitives::{Address, Network, Registry};
use farthing_wallet::journal::Journal;
use farthing_wallet::journal::approvals::KeptApproval;
use farthing_wallet::system_clock;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use super::desk::Desk;
use super::serve::routes;

const PAGE: &str = "http://localhost:8405";

const POLICY: &str = "
version: 1
owner: acme
budgets:
  acme: {per_payment: $1}
allow:
  - {name: seller, hosts: [seller.example]}
approve:
  - {name: dear, over: $0.50, quorum: 2}
";

fn key(n: u8) -> ApproverKey {
    ApproverKey::from_seed([n; 32]).unwrap()
}

fn passkey(n: u8, page: &str) -> Passkey {
    Passkey {
        id: CredentialId::new(&[n; 16]).unwrap(),
        key: PasskeyKey::Ed25519(key(n).public().0),
        site: Site::of(page).unwrap(),
        count: 0,
    }
}

/// A wallet in which an agent's payment waits, and its page.
struct World {
    journal: Arc<Journal>,
    desk: Arc<Desk>,
}

fn world() -> World {
    let journal = Journal::in_memory().unwrap();
    journal.apply_policy(POLICY, false).unwrap();
    let add = |name: &str, made: &Passkey, runs: Option<&str>| {
        let runs = runs.map(|agent| agent.parse().unwrap());
        journal.add_passkey(name, made, runs.as_ref(), &system_clock()).unwrap();
    };
    add("ada", &passkey(1, PAGE), None);
    add("bob", &passkey(2, PAGE), None);
    add("boss", &passkey(3, PAGE), Some("acme/research"));
    add("elsewhere", &passkey(4, "http://localhost:9999"), None);
    journal.add_approver("keyed", &key(5).public(), None, &system_clock()).unwrap();
    let journal = Arc::new(journal);
    let desk = Arc::new(Desk::new(journal.clone(), Site::of(PAGE).unwrap()).unwrap());
    World { journal, desk }
}

impl World {
    fn ask(&self, path: &str) -> KeptApproval {
        let registry = Registry::builtin();
        let money = registry.dollar(&Network::eip155(84532)).unwrap().atoms(600_000);
        let url = format!("https://seller.example{path}");
        let request = farthing_policy::Request {
            scheme: "exact".to_owned(),
            charge: Charge::of(&registry, money).unwrap(),
            price: None,
            payee: Address::from_evm_bytes([1; 20]),
            origin: Origin::of(&url.parse().unwrap()).unwrap(),
            private: false,
            max: None,
            only: None,
            validity: Duration::from_secs(60),
            screened: None,
            caller: Caller {
                payer: Some(Address::from_evm_bytes([2; 20])),
                method: "GET".to_owned(),
                path: path.to_owned(),
                url,
                body: Some([0; 32]),
                ..Caller::default()
            },
        };
        let agent = self.journal.for_agent("acme/research".parse().unwrap(), None);
        agent.ask_people(&request, &system_clock()).unwrap()
    }

    async fn waiting(&self, seen: &str) -> Value {
        let request = Request::get(format!("/waiting?seen={seen}")).body(Body::empty()).unwrap();
        self.send(request).await.1
    }

    async fn answer(&self, body: &Value) -> (u16, Value) {
        let request = Request::post("/answer").header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    async fn send(&self, request: Request) -> (u16, Value) {
        let answer = routes(self.desk.clone()).oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }
}

/// What the page sends when the device of person `n` signed.
fn said(n: u8, name: &str, kept: &KeptApproval, verdict: Verdict, count: u32) -> Value {
    let challenge = URL_SAFE_NO_PAD.encode(kept.request.message(verdict));
    let client = format!(r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"{PAGE}"}}"#);
    let present_and_verified = [0b101];
    let data = [&Sha256::digest("localhost")[..], &present_and_verified, &count.to_be_bytes()].concat();
    let signature = key(n).sign(&[&data[..], &Sha256::digest(&client)].concat());
    json!({
        "approval": kept.id.to_string(),
        "approver": name,
        "verdict": verdict.name(),
        "authenticator_data": URL_SAFE_NO_PAD.encode(data),
        "client_data": URL_SAFE_NO_PAD.encode(client),
        "signature": URL_SAFE_NO_PAD.encode(signature),
    })
}

#[tokio::test]
async fn the_page_hears_of_what_waits_and_who_may_answer() {
    let world = world();
    let looking = tokio::spawn({
        let desk = world.desk.clone();
        async move { desk.keep_looking().await }
    });
    let empty = world.waiting("").await;
    assert_eq!(empty["board"]["requests"], json!([]));
    let names: Vec<&str> = empty["board"]["people"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["ada", "bob", "boss"], "those whose passkeys are for this page");

    // Whoever has seen that gets an answer when there is something else.
    let seen = empty["tag"].as_str().unwrap().to_owned();
    let (shown, kept) = tokio::join!(world.waiting(&seen), async { world.ask("/now?city=<b>x</b>") });
    assert_ne!(shown["tag"], empty["tag"]);
    let request = &shown["board"]["requests"][0];
    assert_eq!(request["id"], kept.id.to_string());
    assert_eq!(request["host"], "seller.example");
    assert_eq!(request["agent"], "acme/research");
    assert_eq!(request["max"], "0.6 USDC");
    assert_eq!((&request["rule"], &request["quorum"]), (&json!("dear"), &json!(2)));
    assert_eq!(request["voters"], json!(["ada", "bob"]), "whoever runs it does not approve");
    for verdict in [Verdict::Approve, Verdict::Deny] {
        let challenge = URL_SAFE_NO_PAD.encode(kept.request.message(verdict));
        assert_eq!(request["challenge"][verdict.name()], challenge);
    }

    let (status, now) = world.answer(&said(1, "ada", &kept, Verdict::Approve, 0)).await;
    assert_eq!((status, &now["voices"]), (200, &json!(1)), "{now}");
    let after = world.waiting(shown["tag"].as_str().unwrap()).await;
    assert_eq!(after["board"]["requests"][0]["voters"], json!(["bob"]));
    let (status, now) = world.answer(&said(2, "bob", &kept, Verdict::Approve, 1)).await;
    assert_eq!((status, &now["status"]), (200, &json!("approved")), "{now}");
    assert_eq!(world.waiting(after["tag"].as_str().unwrap()).await["board"]["requests"], json!([]));
    looking.abort();
}

/// What the page gets of a grant says all that is signed, and its passkeys sign for a grant.
#[tokio::test]
async fn the_page_shows_a_grant_as_one_and_takes_its_answers() {
    let world = world();
    let one = world.ask("/now");
    let terms = GrantTerms {
        payments: 5,
        each: None,
        total: Some(2_000_000),
        lasts: Duration::from_secs(3600),
        below: Some("https://seller.example/".to_owned()),
        any_body: true,
    };
    let request = one.request.payment().unwrap();
    let grant = GrantRequest::new(&request.subject, request.max, &terms, system_clock().wall).unwrap();
    let kept = world.journal.offer_grant(&one.id, &grant, None, &system_clock()).unwrap();
    let desk = Arc::new(Desk::new(world.journal.clone(), Site::of(PAGE).unwrap()).unwrap());
    let world = World { desk, ..world };
    let shown = world.waiting("").await["board"]["requests"].clone();
    let of = |id: String| shown.as_array().unwrap().iter().find(|one| one["id"] == id).cloned().unwrap();
    let (shown, single) = (of(kept.id.to_string()), of(one.id.to_string()));
    assert_eq!((&shown["kind"], &single["kind"]), (&json!("grant"), &json!("payment")));
    assert_eq!(shown["grant"]["payments"], 5);
    assert_eq!((&shown["max"], &shown["grant"]["total"]), (&json!("0.6 USDC"), &json!("2 USDC")));
    assert_eq!((&shown["grant"]["below"], &shown["grant"]["any_body"]), (&json!(true), &json!(true)));
    assert!(single["grant"].is_null(), "{single}");
    assert_eq!(shown["voters"], json!(["ada", "bob"]), "whoever runs it does not approve");
    let challenge = URL_SAFE_NO_PAD.encode(Verdict::Approve.message_for_grant(&grant.digest()));
    assert_eq!(shown["challenge"]["approve"], challenge);
    // A yes to the one payment is none to the grant.
    let mut other = said(1, "ada", &one, Verdict::Approve, 0);
    other["approval"] = kept.id.to_string().into();
    assert_eq!(world.answer(&other).await.1["code"], "passkey_challenge");
    assert_eq!(world.answer(&said(1, "ada", &kept, Verdict::Approve, 0)).await.0, 200);
    let (status, now) = world.answer(&said(2, "bob", &kept, Verdict::Approve, 0)).await;
    assert_eq!(
        (status, &now["status"], &now["grant"]["left_payments"]),
        (200, &json!("approved"), &json!(5))
    );
}

#[tokio::test]
async fn what_does_not_count_is_told_by_its_name() {
    let world = world();
    let kept = world.ask("/now");
    let with = |name: &str, value: &str| {
        let mut body = said(1, "ada", &kept, Verdict::Approve, 0);
        body[name] = value.into();
        body
    };
    let other = world.ask("/other");
    for (body, status, code) in [
        (with("verdict", "deny"), 403, "passkey_challenge"),
        (with("approval", &other.id.to_string()), 403, "passkey_challenge"),
        (with("approver", "bob"), 403, "passkey_bad_signature"),
        (with("approver", "nobody"), 403, "approver_unknown"),
        (with("approver", "keyed"), 403, "passkey_or_key"),
        (said(3, "boss", &kept, Verdict::Approve, 0), 403, "approval_by_proposer"),
        (said(4, "elsewhere", &kept, Verdict::Approve, 0), 403, "passkey_origin"),
        (with("approval", "apr_00000000000000000000000000000000"), 404, "approval_unknown"),
        (with("approval", "apr_"), 400, "malformed"),
        (with("verdict", "maybe"), 400, "malformed"),
    ] {
        let (found, said) = world.answer(&body).await;
        assert_eq!((found, &said["code"]), (status, &json!(code)), "{said}");
    }
    for body in [with("signature", "no base64!"), with("extra", "x"), json!([])] {
        assert_eq!(world.answer(&body).await.0, 422);
    }
    let votes = |kept: &KeptApproval| world.journal.approval(&kept.id, &system_clock()).unwrap().votes;
    assert!(votes(&kept).is_empty() && votes(&other).is_empty());
}

#[tokio::test]
async fn tabs_that_wait_are_bounded_and_let_go_when_the_page_closes() {
    let world = world();
    let seen = world.waiting("").await["tag"].as_str().unwrap().to_owned();
    let app = routes(world.desk.clone());
    let ask = || {
        let request = Request::get(format!("/waiting?seen={seen}")).body(Body::empty()).unwrap();
        app.clone().oneshot(request)
    };
    let tabs: Vec<_> = (0..super::serve::MAX_WAITING).map(|_| tokio::spawn(ask())).collect();
    // All of them have their place when one more finds none.
    while ask_at_once(ask()).await != Some(503) {
        tokio::task::yield_now().await;
    }
    world.desk.close();
    for tab in tabs {
        assert_eq!(tab.await.unwrap().unwrap().status().as_u16(), 200);
    }
    assert_eq!(ask_at_once(ask()).await, Some(200));
}

/// The status of an answer that does not wait.
async fn ask_at_once(
    asked: impl Future<Output = Result<axum::response::Response, std::convert::Infallible>>,
) -> Option<u16> {
    let mut asked = std::pin::pin!(asked);
    let now = futures_util::future::poll_immediate(&mut asked).await?;
    Some(now.unwrap().status().as_u16())
}
