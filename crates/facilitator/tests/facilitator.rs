//! The facilitator against the cases of the list of known attacks, whose numbers the names carry, and its wire forms.

// A test that cannot go on says where.
#![allow(clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use farthing_engine::Store;
use farthing_evm::{Wrapped, wrap_erc6492};
use farthing_facilitator::*;
use farthing_primitives::{Registry, TenantId};
use farthing_rails::exact_evm::{GasCaps, Presented};
use http::{Request, StatusCode};

const KEY: &str = "a-key-of-the-first-tenant";
const OTHER_KEY: &str = "a-key-of-the-other-tenant";

fn tenant(name: &str, key: &str, limits: TenantLimits) -> Tenant {
    let keys = vec![KeyDigest::of(key).expect("long enough")];
    Tenant { id: name.parse::<TenantId>().expect("a name"), keys, limits }
}

fn assert_settle_failure(said: &Said, code: &str) {
    assert_eq!(said.status, StatusCode::OK, "{said:?}");
    assert!(!said.is("success"), "{said:?}");
    assert_eq!(said.text_of("errorReason"), code, "{said:?}");
}

fn assert_invalid(said: &Said, code: &str) {
    assert_eq!(said.status, StatusCode::OK, "{said:?}");
    assert!(!said.is("isValid"), "{said:?}");
    assert_eq!(said.text_of("invalidReason"), code, "{said:?}");
}

// ---------------------------------------------------------------------------------------------------------------------
// Wire forms.

#[tokio::test(start_paused = true)]
async fn the_answers_have_the_forms_of_both_versions() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    let payer = farthing_evm::eip55(shop.payer());
    for body in [shop.v1(1), shop.v2(1)] {
        let said = bench.ask("/verify", body).await;
        assert_eq!(said.status, StatusCode::OK);
        assert_eq!(said.text, format!(r#"{{"isValid":true,"payer":"{payer}"}}"#));
    }
    let said = bench.ask("/settle", shop.v1(1)).await;
    let tx = said.text_of("transaction");
    assert_eq!(
        said.text,
        format!(r#"{{"success":true,"payer":"{payer}","transaction":"{tx}","network":"base-sepolia"}}"#)
    );
    let said = bench.ask("/settle", shop.v2(2)).await;
    let tx = said.text_of("transaction");
    assert_eq!(
        said.text,
        format!(
            r#"{{"success":true,"payer":"{payer}","transaction":"{tx}","network":"eip155:84532","amount":"1000"}}"#
        )
    );
    let said = bench.ask("/verify", shop.v2(2)).await;
    assert_eq!(
        said.text,
        format!(
            r#"{{"isValid":false,"invalidReason":"invalid_exact_evm_nonce_already_used","payer":"{payer}"}}"#
        )
    );
    bench.fund(&shop, 0);
    for (body, network) in [(shop.v1(3), "base-sepolia"), (shop.v2(3), "eip155:84532")] {
        let said = bench.ask("/settle", body).await;
        let code = if network == "base-sepolia" {
            "invalid_exact_evm_insufficient_balance"
        } else {
            // The second try comes from a payer that cools down.
            "payer_cooling_down"
        };
        assert_eq!(
            said.text,
            format!(
                r#"{{"success":false,"errorReason":"{code}","payer":"{payer}","transaction":"","network":"{network}"}}"#
            )
        );
    }
}

#[tokio::test(start_paused = true)]
async fn supported_names_both_versions_what_is_sponsored_and_who_signs() {
    let said = bench().get("/supported").await;
    assert_eq!(said.status, StatusCode::OK);
    assert_eq!(
        said.text,
        concat!(
            r#"{"kinds":[{"x402Version":1,"scheme":"exact","network":"base-sepolia"},"#,
            r#"{"x402Version":2,"scheme":"exact","network":"eip155:84532"}],"#,
            r#""extensions":["eip2612GasSponsoring"],"#,
            r#""signers":{"eip155:*":["0xaAaAaAaaAaAaAaaAaAAAAAAAAaaaAaAaAaaAaaAa"]}}"#
        )
    );
}

#[tokio::test(start_paused = true)]
async fn health_tells_a_chain_that_is_down_from_a_process_that_is() {
    let bench = bench();
    let said = bench.get("/health").await;
    assert_eq!((said.status, said.text_of("status")), (StatusCode::OK, "ok".to_owned()));
    assert!(said.text.contains(r#""block":1"#) && said.text.contains("7000"), "{said:?}");
    bench.chain.script().down = true;
    assert_eq!(bench.get("/health").await.text, said.text, "repeated for a second");
    tokio::time::advance(Duration::from_secs(1)).await;
    let said = bench.get("/health").await;
    assert_eq!((said.status, said.text_of("status")), (StatusCode::SERVICE_UNAVAILABLE, "down".to_owned()));
    assert_eq!(bench.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(bench.get("/elsewhere").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn bad_input_has_a_stable_code_and_costs_no_read() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    let good = shop.v2(1);
    let with = |from: &str, to: &str| {
        let changed = good.replacen(from, to, 1);
        assert_ne!(changed, good, "{from}");
        changed
    };
    let rows = [
        ("".to_owned(), 400, "invalid_payload"),
        ("{".to_owned(), 400, "invalid_payload"),
        ("[]".to_owned(), 400, "invalid_payload"),
        ("{}".to_owned(), 400, "invalid_payload"),
        ("[".repeat(30_000), 400, "invalid_payload"),
        (r#"{"x402Version":2,"x402Version":2}"#.to_owned(), 400, "invalid_payload"),
        (good.replace(r#""x402Version":2"#, r#""x402Version":3"#), 200, "invalid_x402_version"),
        (with(r#""x402Version":2"#, r#""x402Version":1"#), 200, "invalid_x402_version"),
        (good.replace(r#""scheme":"exact""#, r#""scheme":"upto""#), 200, "unsupported_scheme"),
        (good.replace("eip155:84532", "eip155:1"), 200, "invalid_network"),
        (good.replace(r#""amount":"1000""#, r#""amount":"1e3""#), 200, "invalid_payment_requirements"),
        (with(r#""value":"1000""#, r#""value":"-1""#), 200, "invalid_payload"),
        (with(r#""signature":"0x"#, r#""signature":"zz"#), 200, "invalid_payload"),
    ];
    for (body, status, code) in rows {
        let excerpt: String = body.chars().take(300).collect();
        let verify = bench.ask("/verify", body.clone()).await;
        assert_eq!(
            (verify.status.as_u16(), verify.text_of("invalidReason").as_str()),
            (status, code),
            "{excerpt}"
        );
        let settle = bench.ask("/settle", body).await;
        assert_eq!(
            (settle.status.as_u16(), settle.text_of("errorReason").as_str()),
            (status, code),
            "{excerpt}"
        );
        // Spec: v2 section 5.3.2: there whatever happened.
        assert!(settle.get("transaction").is_some_and(|t| t.as_str().is_some()), "{settle:?}");
        assert!(settle.get("network").is_some_and(|t| t.as_str().is_some()), "{settle:?}");
    }
    let settle = bench.ask("/settle", good.replace(r#""amount":"1000""#, r#""amount":"1e3""#)).await;
    assert_eq!(settle.text_of("network"), "eip155:84532", "named although nothing else was read");
    let long = format!("{}{}", " ".repeat(MAX_REQUEST_BYTES), good);
    let said = bench.ask("/verify", long.clone()).await;
    assert_eq!((said.status.as_u16(), said.text_of("invalidReason").as_str()), (413, "request_too_large"));
    let request =
        Request::post("/settle").header("content-type", "application/json").header("content-length", "99999");
    let said = bench.send(request.body("{}".into()).expect("a request")).await;
    assert_eq!((said.status.as_u16(), said.text_of("errorReason").as_str()), (413, "request_too_large"));
    assert_eq!(bench.chain.script().reads, 0);
    assert_eq!(bench.payments().await, 0);
}

// ---------------------------------------------------------------------------------------------------------------------
// Known attacks.

#[tokio::test(start_paused = true)]
async fn attack_50_garbage_signatures_cost_no_read_and_those_of_contracts_few() {
    let mut config = FacilitatorConfig::default();
    config.policy.contract_wallets = false;
    let (strict, shop) = (bench_with(config), shop());
    strict.fund(&shop, 5000);
    let Presented::Eip3009 { authorization, signature } = shop.present(1) else { panic!("eip-3009") };
    let mut garbage = signature.to_vec();
    garbage[5] ^= 1;
    let forged = shop.v2_of(&Presented::Eip3009 { authorization, signature: garbage.into() });
    for path in ["/verify", "/settle"] {
        let said = strict.ask(path, forged.clone()).await;
        assert!(said.text.contains("invalid_exact_evm_signature"), "{said:?}");
    }
    assert_eq!((strict.payments().await, strict.chain.script().reads), (0, 0));

    let open = TenantLimits { contract_wallets_per_second: 2, ..TenantLimits::default() };
    let lax = bench_with(FacilitatorConfig { open, ..FacilitatorConfig::default() });
    lax.fund(&shop, 5000);
    let mut limited = 0;
    for n in 100..120 {
        let mut other = authorization;
        other.nonce.0[0] = n;
        let forged = shop.v2_of(&Presented::Eip3009 { authorization: other, signature: signature.clone() });
        let said = lax.ask(if n % 2 == 0 { "/verify" } else { "/settle" }, forged).await;
        match said.status {
            StatusCode::TOO_MANY_REQUESTS => {
                assert!(said.retry_after.is_some_and(|secs| secs >= 1), "{said:?}");
                limited += 1;
            }
            _ => assert!(said.text.contains("invalid_exact_evm_signature"), "{said:?}"),
        }
    }
    assert_eq!((limited, lax.chain.script().reads), (16, 4));
    assert_eq!(lax.payments().await, 0, "garbage claims nothing");
    // Nobody can cool a payer down with signatures that it did not make.
    assert!(lax.ask("/verify", shop.v2(99)).await.is("isValid"));
}

#[tokio::test(start_paused = true)]
async fn attack_52_verifying_stores_nothing_and_settling_asks_again() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    for _ in 0..5 {
        assert!(bench.ask("/verify", shop.v2(1)).await.is("isValid"));
    }
    assert_eq!(bench.payments().await, 0);
    assert_eq!(bench.chain.script().reads, 1, "the same payment in the same block is asked about once");
    bench.fund(&shop, 0);
    let said = bench.ask("/settle", shop.v2(1)).await;
    assert_settle_failure(&said, "invalid_exact_evm_insufficient_balance");
    assert!(bench.chain.script().broadcasts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn attack_52_a_verdict_lives_no_longer_than_a_block_and_ends_with_the_settlement() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    assert!(bench.ask("/verify", shop.v2(1)).await.is("isValid"));
    bench.fund(&shop, 0);
    tokio::time::advance(BLOCK).await;
    assert_invalid(&bench.ask("/verify", shop.v2(1)).await, "invalid_exact_evm_insufficient_balance");
    bench.fund(&shop, 5000);
    assert!(bench.ask("/verify", shop.v2(2)).await.is("isValid"));
    assert!(bench.ask("/settle", shop.v2(2)).await.is("success"));
    assert_invalid(&bench.ask("/verify", shop.v2(2)).await, "invalid_exact_evm_nonce_already_used");
}

#[tokio::test(start_paused = true)]
async fn attack_53_twenty_parallel_copies_in_both_versions_are_one_transfer_and_one_receipt() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 50_000);
    let copies = (0..20).map(|n| bench.ask("/settle", if n % 2 == 0 { shop.v2(1) } else { shop.v1(1) }));
    let said = futures_util::future::join_all(copies).await;
    let first = said[0].text_of("transaction");
    assert!(first.starts_with("0x") && first.len() == 66);
    for said in &said {
        assert!(said.is("success"), "{said:?}");
        assert_eq!(said.text_of("transaction"), first);
    }
    // Again later: from the books, also when the authorization has long expired.
    for wait in [0, 1, 3600] {
        tokio::time::advance(Duration::from_secs(wait)).await;
        for body in [shop.v1(1), shop.v2(1)] {
            assert_eq!(bench.ask("/settle", body).await.text_of("transaction"), first);
        }
    }
    let script = bench.chain.script();
    assert_eq!((script.broadcasts.len(), script.transfers), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn attack_53_an_expired_payment_that_was_never_settled_is_not_claimed() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    tokio::time::advance(Duration::from_secs(295)).await;
    let code = "invalid_exact_evm_payload_authorization_valid_before";
    assert_settle_failure(&bench.ask("/settle", shop.v2(1)).await, code);
    assert_invalid(&bench.ask("/verify", shop.v2(1)).await, code);
    assert_eq!((bench.payments().await, bench.chain.script().reads), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn attack_53_another_tenant_does_not_settle_it_a_second_time() {
    let tenants = vec![
        tenant("first", KEY, TenantLimits::default()),
        tenant("other", OTHER_KEY, TenantLimits::default()),
    ];
    let (bench, shop) = (bench_with(FacilitatorConfig { tenants, ..FacilitatorConfig::default() }), shop());
    bench.fund(&shop, 5000);
    assert!(bench.ask_with("/settle", shop.v2(1), Some(KEY)).await.is("success"));
    let said = bench.ask_with("/settle", shop.v2(1), Some(OTHER_KEY)).await;
    assert_settle_failure(&said, "duplicate_settlement");
    assert_eq!(bench.chain.script().transfers, 1);
}

#[tokio::test(start_paused = true)]
async fn attack_54_a_transaction_that_succeeds_and_moves_nothing_settles_nothing() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    bench.chain.script().silent = true;
    let said = bench.ask("/settle", shop.v2(1)).await;
    assert_settle_failure(&said, "invalid_exact_evm_transaction_failed");
    assert!(said.text_of("transaction").starts_with("0x"), "{said:?}");
    assert_eq!(bench.chain.script().transfers, 0);
}

#[tokio::test(start_paused = true)]
async fn attack_55_a_valid_signature_for_something_else_is_invalid() {
    let (bench, ours) = (bench(), shop());
    bench.fund(&ours, 50_000);
    let registry = Registry::builtin();
    let usdc = registry.dollar(&network()).expect("listed");
    let eurc = registry.by_symbol(&network(), "EURC").expect("listed");
    let rows = [
        (requirement(usdc.atoms(999), PAYEE), "invalid_exact_evm_payload_authorization_value_mismatch"),
        (requirement(usdc.atoms(1001), PAYEE), "invalid_exact_evm_payload_authorization_value_mismatch"),
        (requirement(usdc.atoms(1000), [0xbc; 20]), "invalid_exact_evm_recipient_mismatch"),
        (requirement(eurc.atoms(1000), PAYEE), "invalid_exact_evm_signature"),
    ];
    for (requirement, code) in rows {
        let theirs = Shop { requirement, ..shop() };
        // Signed for theirs and said to be accepted, shown for ours.
        let body = ours.v2_of(&theirs.present(1));
        assert_invalid(&bench.ask("/verify", body.clone()).await, code);
        assert_settle_failure(&bench.ask("/settle", body).await, code);
    }
    // What the payment says it accepted never counts: only its network and scheme are looked at.
    let lying = ours.v2(1).replacen(
        r#""accepted":{"scheme":"exact","network":"eip155:84532""#,
        r#""accepted":{"scheme":"exact","network":"eip155:8453""#,
        1,
    );
    assert_invalid(&bench.ask("/verify", lying).await, "invalid_exact_evm_network_mismatch");
    let script = bench.chain.script();
    assert_eq!((script.transfers, script.broadcasts.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn attack_56_a_wallet_s_factory_is_called_only_if_it_is_allowed() {
    let (bench, shop) = (bench(), shop());
    let Presented::Eip3009 { mut authorization, signature } = shop.present(1) else { panic!("eip-3009") };
    authorization.from = [0xcc; 20].into();
    bench.chain.script().balances.insert(authorization.from, 5000);
    let signature =
        wrap_erc6492(&Wrapped { factory: [0xdd; 20].into(), factory_data: vec![1, 2, 3].into(), signature });
    let body = shop.v2_of(&Presented::Eip3009 { authorization, signature });
    assert_invalid(&bench.ask("/verify", body.clone()).await, "eip6492_factory_not_allowed");
    assert_settle_failure(&bench.ask("/settle", body).await, "eip6492_factory_not_allowed");
    assert!(bench.chain.script().broadcasts.is_empty());
    assert_eq!(bench.payments().await, 0);
}

#[tokio::test(start_paused = true)]
async fn attack_57_an_unknown_token_is_refused_before_any_read_and_a_greedy_one_before_any_gas() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    let usdc = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
    let unknown = shop.v2(1).replace(usdc, &usdc.replace("036C", "136C"));
    assert_invalid(&bench.ask("/verify", unknown.clone()).await, "invalid_payment_requirements");
    assert_settle_failure(&bench.ask("/settle", unknown).await, "invalid_payment_requirements");
    assert_eq!(bench.chain.script().reads, 0);
    let cap = GasCaps::default().eip3009;
    bench.chain.script().gas = Some(cap + 1);
    assert_settle_failure(&bench.ask("/settle", shop.v2(1)).await, "settlement_exceeds_gas_cap");
    assert!(bench.chain.script().broadcasts.is_empty());
    bench.chain.script().gas = Some(cap);
    assert!(bench.ask("/settle", shop.v2(1)).await.is("success"));
}

#[tokio::test(start_paused = true)]
async fn attack_58_our_exact_transfer_by_somebody_else_is_the_settlement() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    bench.chain.script().front_run = true;
    let said = bench.ask("/settle", shop.v2(1)).await;
    assert!(said.is("success"), "{said:?}");
    assert_eq!(said.text_of("transaction"), format!("0x{}", "fe".repeat(32)));
    assert_eq!(bench.chain.script().transfers, 1);
}

#[tokio::test(start_paused = true)]
async fn attack_59_who_drains_its_balance_before_settlement_is_not_served_for_a_while() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    assert!(bench.ask("/verify", shop.v2(1)).await.is("isValid"));
    bench.chain.script().drain = true;
    let said = bench.ask("/settle", shop.v2(1)).await;
    assert_settle_failure(&said, "invalid_exact_evm_transaction_failed");
    bench.chain.script().drain = false;
    bench.fund(&shop, 5000);
    tokio::time::advance(Duration::from_millis(10)).await;
    let reads = bench.chain.script().reads;
    assert_invalid(&bench.ask("/verify", shop.v2(2)).await, "payer_cooling_down");
    assert_settle_failure(&bench.ask("/settle", shop.v2(2)).await, "payer_cooling_down");
    assert_eq!(bench.chain.script().reads, reads);
    assert_eq!(bench.chain.script().broadcasts.len(), 1);
    // What became of the first is told all the same.
    let again = bench.ask("/settle", shop.v2(1)).await;
    assert_eq!(again.text_of("errorReason"), "invalid_exact_evm_transaction_failed");
    // Others are served, and so is this one in the end.
    let other = Shop { key: farthing_evm::Key::from_bytes([8; 32]).expect("a key"), ..common::shop() };
    bench.fund(&other, 5000);
    assert!(bench.ask("/settle", other.v2(3)).await.is("success"));
    tokio::time::advance(Duration::from_secs(31)).await;
    let said = bench.ask("/settle", shop.v2(2)).await;
    assert!(said.is("success"), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn attack_61_nobody_settles_without_a_key() {
    let tenants = vec![
        tenant("first", KEY, TenantLimits::default()),
        tenant("other", OTHER_KEY, TenantLimits::default()),
    ];
    let (bench, shop) = (bench_with(FacilitatorConfig { tenants, ..FacilitatorConfig::default() }), shop());
    bench.fund(&shop, 5000);
    assert!(!bench.service.is_open());
    for key in [None, Some(""), Some("a-key-of-the-first-tenan"), Some("a-key-of-the-first-tenant ")] {
        for path in ["/verify", "/settle"] {
            let said = bench.ask_with(path, shop.v2(1), key).await;
            assert_eq!(said.status, StatusCode::UNAUTHORIZED, "{key:?}");
            assert!(said.text.contains("unauthorized"));
        }
    }
    let basic = Request::post("/settle").header("authorization", format!("Basic {KEY}"));
    let said = bench.send(basic.body(shop.v2(1).into()).expect("a request")).await;
    assert_eq!(said.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bench.chain.script().reads, 0);
    for key in [KEY, OTHER_KEY] {
        assert!(bench.ask_with("/verify", shop.v2(1), Some(key)).await.is("isValid"));
    }
    // What everybody may know needs none.
    assert_eq!(bench.get("/supported").await.status, StatusCode::OK);
    assert_eq!(bench.get("/health").await.status, StatusCode::OK);
}

#[tokio::test]
async fn attack_61_without_keys_only_loopback_is_listened_on() {
    let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("a socket");
    let served = serve(listener, bench().service, std::future::pending()).await;
    assert!(matches!(served, Err(ServeError::Open(_))), "{served:?}");
}

#[tokio::test]
async fn what_is_under_way_ends_before_the_service_does() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("bound");
    let (stop, stopped) = futures_channel::oneshot::channel::<()>();
    let stopped = async move { stopped.await.expect("told") };
    let served = tokio::spawn(serve(listener, bench().service, stopped));
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    let head =
        "POST /verify HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("sent");
    // Another connection's answer: by then the first is accepted.
    let mut idle = tokio::net::TcpStream::connect(address).await.expect("connected");
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.expect("sent");
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.expect("answered");
    assert_eq!(&answer, b"HTTP/1.1 200");
    stop.send(()).expect("listening");
    stream.write_all(b"}").await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered, then closed");
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("invalid_payload"), "{answer}");
    served.await.expect("no panic").expect("served");
}

#[tokio::test(start_paused = true)]
async fn attack_61_without_keys_a_page_in_a_browser_cannot_ask() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
        let mut request = Request::post("/settle");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let said = bench.send(request.body(shop.v2(1).into()).expect("a request")).await;
        assert_eq!(said.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    assert_eq!(bench.chain.script().broadcasts.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn attack_61_a_tenant_has_a_rate_and_another_its_own() {
    let slow = TenantLimits { requests_per_second: Some(1), ..TenantLimits::default() };
    let tenants = vec![tenant("first", KEY, slow), tenant("other", OTHER_KEY, TenantLimits::default())];
    let (bench, shop) = (bench_with(FacilitatorConfig { tenants, ..FacilitatorConfig::default() }), shop());
    bench.fund(&shop, 5000);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(bench.ask_with("/verify", shop.v2(1), Some(KEY)).await.status.as_u16());
    }
    assert_eq!(statuses, [200, 200, 429]);
    let said = bench.ask_with("/settle", shop.v2(1), Some(KEY)).await;
    assert_eq!((said.status.as_u16(), said.retry_after), (429, Some(1)));
    assert_eq!(said.text_of("errorReason"), "rate_limited");
    assert!(bench.ask_with("/verify", shop.v2(1), Some(OTHER_KEY)).await.is("isValid"));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(bench.ask_with("/verify", shop.v2(1), Some(KEY)).await.is("isValid"));
}

#[tokio::test(start_paused = true)]
async fn attack_61_settlements_in_flight_are_limited_and_a_copy_of_one_is_not_another() {
    let open = TenantLimits { settlements_in_flight: 1, ..TenantLimits::default() };
    let (bench, shop) = (bench_with(FacilitatorConfig { open, ..FacilitatorConfig::default() }), shop());
    bench.fund(&shop, 5000);
    bench.chain.script().stuck = true;
    let asking = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let other = bench.ask("/settle", shop.v2(2)).await;
        assert_eq!((other.status.as_u16(), other.retry_after), (429, Some(1)));
        assert_eq!(other.text_of("errorReason"), "too_many_settlements");
        let copy = bench.ask("/settle", shop.v2(1));
        let freed = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bench.chain.unstick();
        };
        futures_util::future::join(copy, freed).await.0
    };
    let (first, copy) = futures_util::future::join(bench.ask("/settle", shop.v2(1)), asking).await;
    assert!(first.is("success"), "{first:?}");
    assert_eq!(first.text, copy.text);
    assert!(bench.ask("/settle", shop.v2(2)).await.is("success"));
}

#[tokio::test(start_paused = true)]
async fn attack_61_gas_is_budgeted_by_tenant_and_in_all() {
    // A settlement may cost its gas cap at 10 wei, and costs 80,000 gas.
    let (most, costs) = (u128::from(GasCaps::default().eip3009) * 10, 800_000);
    let limits = |per_day| TenantLimits {
        gas: GasBudget { per_day: Some(per_day), ..GasBudget::default() },
        ..TenantLimits::default()
    };
    let tenants =
        vec![tenant("first", KEY, limits(most + costs)), tenant("other", OTHER_KEY, limits(u128::MAX))];
    let gas = GasBudget { per_hour: Some(most + 2 * costs), ..GasBudget::default() };
    let (bench, shop) =
        (bench_with(FacilitatorConfig { tenants, gas, ..FacilitatorConfig::default() }), shop());
    bench.fund(&shop, 50_000);
    for nonce in [1, 1, 1, 2] {
        let said = bench.ask_with("/settle", shop.v2(nonce), Some(KEY)).await;
        assert!(said.is("success"), "a repeat costs nothing: {said:?}");
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let said = bench.ask_with("/settle", shop.v2(3), Some(KEY)).await;
    assert_eq!((said.status.as_u16(), said.text_of("errorReason").as_str()), (429, "gas_budget_exhausted"));
    assert!(
        bench.ask_with("/settle", shop.v2(1), Some(KEY)).await.is("success"),
        "what was settled is told still"
    );
    assert!(bench.ask_with("/settle", shop.v2(3), Some(OTHER_KEY)).await.is("success"));
    let said = bench.ask_with("/settle", shop.v2(4), Some(OTHER_KEY)).await;
    assert_eq!((said.status.as_u16(), said.text_of("errorReason").as_str()), (503, "gas_budget_exhausted"));
    assert_eq!(bench.chain.script().broadcasts.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn attack_61_a_restart_gives_nobody_a_new_gas_budget() {
    let (most, costs) = (u128::from(GasCaps::default().eip3009) * 10, 800_000);
    let config = |tenant_s: u128, of_all: u128| {
        let gas = |per_day| GasBudget { per_day: Some(per_day), ..GasBudget::default() };
        let limits = |per_day| TenantLimits { gas: gas(per_day), ..TenantLimits::default() };
        let tenants =
            vec![tenant("first", KEY, limits(tenant_s)), tenant("other", OTHER_KEY, limits(u128::MAX))];
        FacilitatorConfig { tenants, gas: gas(of_all), ..FacilitatorConfig::default() }
    };
    let shop = shop();
    let before = bench_with(config(u128::MAX, u128::MAX));
    before.fund(&shop, 50_000);
    assert!(before.ask_with("/settle", shop.v2(1), Some(KEY)).await.is("success"));

    // One more would be within the budget if nothing had been spent; and so it is for the other, if not for all.
    let after = before.restarted(config(most + costs - 1, u128::MAX)).await;
    let said = after.ask_with("/settle", shop.v2(2), Some(KEY)).await;
    assert_eq!((said.status.as_u16(), said.text_of("errorReason").as_str()), (429, "gas_budget_exhausted"));
    let said = after.ask_with("/settle", shop.v2(2), Some(OTHER_KEY)).await;
    assert!(said.is("success"), "{said:?}");

    let after = before.restarted(config(u128::MAX, most + 2 * costs - 1)).await;
    let said = after.ask_with("/settle", shop.v2(3), Some(OTHER_KEY)).await;
    assert_eq!((said.status.as_u16(), said.text_of("errorReason").as_str()), (503, "gas_budget_exhausted"));
    tokio::time::advance(Duration::from_secs(25 * 3600)).await;
    let later = before.restarted(config(most, most)).await;
    assert!(later.ask_with("/verify", shop.v2(4), Some(KEY)).await.status != 429, "a day later it is over");
}

#[tokio::test(start_paused = true)]
async fn attack_61_what_was_tried_before_a_restart_counts_at_its_most() {
    let gas = |per_day| GasBudget { per_day: Some(per_day), ..GasBudget::default() };
    let config = |per_day| FacilitatorConfig { gas: gas(per_day), ..FacilitatorConfig::default() };
    let shop = shop();
    let before = bench_with(config(u128::MAX));
    before.fund(&shop, 50_000);
    before.chain.script().stuck = true;
    assert_settle_failure(&before.ask("/settle", shop.v2(1)).await, "settlement_pending");
    let caps = GasCaps::default();
    let most = u128::from(caps.eip3009) * 10;
    let after = before.restarted(config(2 * most - 1)).await;
    let said = after.ask("/settle", shop.v2(2)).await;
    assert_eq!((said.status.as_u16(), said.text_of("errorReason").as_str()), (503, "gas_budget_exhausted"));
}

// ---------------------------------------------------------------------------------------------------------------------
// What cannot be told.

#[tokio::test(start_paused = true)]
async fn a_settlement_without_a_receipt_is_pending_with_its_transaction_and_never_sent_as_another() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    bench.chain.script().stuck = true;
    let said = bench.ask("/settle", shop.v2(1)).await;
    assert_settle_failure(&said, "settlement_pending");
    let first = bench.chain.script().broadcasts[0].to_string();
    assert_eq!(said.text_of("transaction"), first);
    let (again, ()) = futures_util::future::join(bench.ask("/settle", shop.v2(1)), async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        bench.chain.unstick();
    })
    .await;
    assert!(again.is("success"), "{again:?}");
    assert_eq!(bench.chain.script().transfers, 1);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_is_down_is_no_verdict() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    bench.chain.script().down = true;
    let said = bench.ask("/verify", shop.v2(1)).await;
    assert_eq!((said.status.as_u16(), said.retry_after), (503, Some(1)));
    assert_eq!(said.text_of("invalidReason"), "unexpected_verify_error");
    let said = bench.ask("/settle", shop.v2(1)).await;
    assert_eq!((said.status.as_u16(), said.retry_after), (503, Some(1)));
    assert_eq!(said.text_of("errorReason"), "unexpected_settle_error");
    bench.chain.script().down = false;
    assert!(bench.ask("/verify", shop.v2(1)).await.is("isValid"));
    assert!(bench.ask("/settle", shop.v2(1)).await.is("success"));
}

#[tokio::test(start_paused = true)]
async fn a_seller_that_hangs_up_cancels_nothing() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    bench.chain.script().stuck = true;
    let gone = tokio::time::timeout(Duration::from_secs(1), bench.ask("/settle", shop.v2(1))).await;
    assert!(gone.is_err());
    bench.chain.unstick();
    tokio::time::sleep(Duration::from_secs(20)).await;
    let payment =
        bench.store.payments(farthing_engine::PaymentFilter { limit: 1, ..Default::default() }).await;
    let payment = payment.expect("read").pop().expect("one");
    assert_eq!((payment.state.name(), payment.binding.method.as_str()), ("settled", "SETTLE"));
    let said = bench.ask("/settle", shop.v2(1)).await;
    assert_eq!(said.text_of("transaction"), payment.tx().expect("settled").as_str());
    assert_eq!(bench.chain.script().transfers, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wallet_that_is_a_contract_is_verified_by_its_own_word() {
    let (bench, shop) = (bench(), shop());
    let Presented::Eip3009 { mut authorization, signature } = shop.present(1) else { panic!("eip-3009") };
    authorization.from = [0xcc; 20].into();
    bench.chain.script().balances.insert(authorization.from, 5000);
    let body = shop.v2_of(&Presented::Eip3009 { authorization, signature });
    assert_invalid(&bench.ask("/verify", body.clone()).await, "invalid_exact_evm_signature");
    tokio::time::advance(BLOCK).await;
    bench.chain.script().wallets.insert(authorization.from);
    assert!(bench.ask("/verify", body.clone()).await.is("isValid"));
    assert!(bench.ask("/settle", body).await.is("success"));
    assert_eq!(bench.chain.script().transfers, 1);
}

#[tokio::test(start_paused = true)]
async fn the_books_of_a_resource_keep_no_query() {
    let (bench, shop) = (bench(), shop());
    bench.fund(&shop, 5000);
    assert!(bench.ask("/settle", shop.v1(1)).await.is("success"));
    let payments =
        bench.store.payments(farthing_engine::PaymentFilter { limit: 1, ..Default::default() }).await;
    assert_eq!(payments.expect("read")[0].binding.resource, "https://a.example/w");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_said_at_the_start() {
    assert_eq!(KeyDigest::of("short").err(), Some(KeyTooShort));
    let bench = bench();
    let served = |tokens| ServedNetwork { chain: bench.chain.clone(), relayers: Vec::new(), tokens };
    let set_up = |networks: Vec<ServedNetwork>, registry: &Registry, tenants: Vec<Tenant>| {
        let config = FacilitatorConfig { tenants, ..FacilitatorConfig::default() };
        Facilitator::new(bench.service.engine().clone(), networks, registry, config).err()
    };
    let all = Registry::builtin();
    let elsewhere = all.dollar(&farthing_primitives::Network::eip155(1)).expect("listed").id.clone();
    let keyless = Tenant { keys: Vec::new(), ..tenant("first", KEY, TenantLimits::default()) };
    let first = || tenant("first", KEY, TenantLimits::default());
    let second = || tenant("second", KEY, TenantLimits::default());
    let id = || first().id;
    assert_eq!(set_up(Vec::new(), &all, Vec::new()), Some(SetupError::NoNetwork));
    assert_eq!(
        set_up(vec![served(None)], &Registry::empty(), Vec::new()),
        Some(SetupError::NoToken(network()))
    );
    let unknown = Some(SetupError::UnknownToken(elsewhere.clone()));
    assert_eq!(set_up(vec![served(Some(vec![elsewhere]))], &all, Vec::new()), unknown);
    let twice = Some(SetupError::TwiceServed(network()));
    assert_eq!(set_up(vec![served(None), served(None)], &all, Vec::new()), twice);
    assert_eq!(set_up(vec![served(None)], &all, vec![keyless]), Some(SetupError::NoKey(id())));
    assert_eq!(set_up(vec![served(None)], &all, vec![first(), first()]), Some(SetupError::TwiceTenant(id())));
    let shared = Some(SetupError::SharedKey(second().id));
    assert_eq!(set_up(vec![served(None)], &all, vec![first(), second()]), shared);
    assert_eq!(set_up(vec![served(None)], &all, vec![first()]), None);
}
