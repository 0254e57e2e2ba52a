//! MPP's `evm/session`: what a voucher buys, and all that it does not.

mod counting;
mod resumed;
mod shop;
mod sockets;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use farthing_channel::{PayeeState, Price, Unit};
use farthing_evm::Key;
use farthing_wire::mpp::evm::{CredentialType, Funding, SessionPayload};
use farthing_wire::mpp::{Problem, ProblemType, Receipt};
use farthing_wire::{Json, Object};

use self::shop::*;
use super::support::{Backend, Got, body, dollars, get, request, terms};
use crate::{Count, Session, SessionError, SessionTerms, Terms};

/// Refused with 402 as MPP wants it: the problem, fresh challenges, no receipt, nothing sold.
fn assert_402(got: &Got, kind: &ProblemType) {
    assert_eq!((got.status, &problem(got)), (402, kind), "{}", got.body);
    assert!(challenges(got).iter().any(|challenge| challenge.intent.as_str() == "session"));
    assert!(got.header("payment-receipt").is_none());
    got.assert_no_goods();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_402_offers_the_session_beside_the_charge_and_x402() {
    let routes = vec![
        ("GET /both", sold_both_ways(by_request())),
        ("GET /units", sold(by_request())),
        ("GET /once", dollars("$0.002")),
    ];
    let shop = Shop::open(routes, Backend::ok()).await;

    let both = shop.send(get("/both")).await;
    let intents: Vec<_> = challenges(&both).iter().map(|c| c.intent.as_str().to_owned()).collect();
    assert_eq!(intents, ["charge", "session"]);
    assert_eq!(both.challenge().accepts.len(), 1, "x402 is offered too");
    assert_eq!(both.challenge_v1().accepts.len(), 1);

    let units = shop.send(get("/units")).await;
    assert_eq!((units.status, problem(&units)), (402, ProblemType::PaymentRequired));
    assert!(units.header("payment-required").is_none(), "x402 has no offer for it");
    assert!(!units.body.contains("accepts"), "{}", units.body);
    let challenge = challenges(&units).remove(0);
    assert!(challenge.expires.is_some());
    assert_eq!(challenge.digest, None, "a channel pays for many requests");
    let asked = asked(&challenge);
    assert_eq!((asked.amount, asked.unit_type.as_deref()), (UNIT, Some("request")));
    assert_eq!((asked.suggested_deposit, asked.fee_payer), (Some(10 * UNIT), true));
    assert_eq!(asked.credential_types, [CredentialType::Authorization, CredentialType::Hash]);
    assert_eq!((asked.asset_id(), asked.escrow.address()), (usdc().id, &escrow()));
    assert_eq!(asked.recipient.address(), &payee());

    assert_eq!(challenges(&shop.send(get("/once")).await).len(), 1);
    // What prefers a session is offered it first.
    let mut prefers = get("/both");
    prefers.headers_mut().insert("accept-payment", "evm/session, evm/charge;q=0.5".parse().unwrap());
    assert_eq!(challenges(&shop.send(prefers).await)[0].intent.as_str(), "session");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_till_nothing_is_sold_by_the_unit() {
    let rig = super::support::Rig::new(vec![("GET /units", sold(by_request()))], Backend::ok());
    let got = rig.get("/units").await;
    assert_eq!((got.status, got.code().as_str()), (503, "session_unavailable"));
    got.assert_no_challenge();
    // A single payment buys all the same.
    let rig = super::support::Rig::new(vec![("GET /both", sold_both_ways(by_request()))], Backend::ok());
    assert_eq!(challenges(&rig.get("/both").await).len(), 1);
    assert_eq!(rig.buy("/both").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_buys_what_it_comes_with() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = Buyer::new(shop.challenge("/units").await);
    let before = shop.balance(&buyer.address()).await;
    let got = shop.send(buyer.shows(get("/units"), &buyer.open(1000, UNIT))).await;
    assert_eq!((got.status, got.body.as_str()), (200, "sunny"), "{}", got.body);
    assert!(got.header("cache-control").unwrap().contains("private"));
    let receipt = receipt(&got);
    assert_eq!((receipt.accepted_cumulative, receipt.spent, receipt.units), (UNIT, UNIT, Some(1)));
    assert_eq!((receipt.channel_id, receipt.chain_id), (buyer.id().0, Some(84532)));
    assert_eq!(receipt.challenge_id, buyer.challenge.id);
    assert_eq!(shop.balance(&buyer.address()).await, before - 1000);
    // The service sees who pays, and not what pays.
    let (_, _, headers, _) = shop.backend.last();
    assert_eq!(headers["x-farthing-payer"].to_str().unwrap(), buyer.address().as_str());
    assert!(!headers.contains_key("authorization"));
    // Shown again it is the same purchase.
    let again = shop.send(buyer.shows(get("/units"), &buyer.open(1000, UNIT))).await;
    assert_eq!((again.status, again.body.as_str(), shop.backend.calls()), (200, "sunny", 1));
    assert_eq!(shop.channel(buyer.id()).await.spent(), UNIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn management_leaves_the_upstream_alone() {
    // The route knows GET alone: vouchers may come by any method.
    let shop =
        Shop::open(vec![("GET /units", sold(by_request())), ("POST /units", dollars("$1"))], Backend::ok())
            .await;
    let buyer = shop.customer("/units", 1000).await;
    for (method, cumulative) in [("POST", 100), ("HEAD", 200), ("HEAD", 200)] {
        let got = shop.send(buyer.shows(request(method, "/units", ""), &buyer.voucher(cumulative))).await;
        assert_eq!((got.status, got.body.as_str()), (204, ""), "{method}");
        assert_eq!(receipt(&got).accepted_cumulative, cumulative, "{method}");
        assert_eq!(receipt(&got).units, None);
    }
    let got = shop.send(buyer.manage("/units?by=body", &buyer.voucher(300))).await;
    assert_eq!((got.status, got.code().as_str()), (405, "method_not_allowed"), "with a query it would buy");
    assert_eq!((shop.backend.calls(), shop.channel(buyer.id()).await.accepted()), (0, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_request_is_charged_once_and_a_lost_answer_is_given_again() {
    let shop = Shop::open(vec![("GET|POST /units", sold(by_request()))], Backend::ok()).await;
    let buyer = shop.customer("/units", 1000).await;
    for round in 1..=3 {
        let got = shop.send(buyer.buy("/units", round * UNIT)).await;
        assert_eq!((got.status, receipt(&got).spent), (200, round * UNIT), "{}", got.body);
    }
    let again = shop.send(buyer.buy("/units", 3 * UNIT)).await;
    assert_eq!((again.status, again.body.as_str(), receipt(&again).spent), (200, "sunny", 3 * UNIT));
    assert_eq!(shop.backend.calls(), 3);
    // Another body is another request, and this voucher is used up.
    let other = buyer.shows(request("POST", "/units", "more"), &buyer.voucher(3 * UNIT));
    let refused = shop.send(other).await;
    assert_402(&refused, &ProblemType::InsufficientBalance);
    let told = Problem::parse(refused.body.as_bytes()).unwrap().other;
    assert_eq!(told.get_str("requiredCumulative"), Some("400"));
    assert_eq!((told.get_str("acceptedCumulative"), told.get_str("deposit")), (Some("300"), Some("1000")));
    let bought = buyer.shows(request("POST", "/units", "more"), &buyer.voucher(4 * UNIT));
    assert_eq!(shop.send(bought).await.status, 200);
    assert_eq!(shop.backend.last().3, "more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_names_a_request_whatever_voucher_it_comes_with() {
    let shop = Shop::open(vec![("GET /units/{n}", sold(by_request()))], Backend::ok()).await;
    let buyer = shop.customer("/units/1", 1000).await;
    // One voucher ahead for all.
    for (key, calls) in [("a", 1), ("b", 2), ("a", 2), ("b", 2), ("c", 3)] {
        let got = shop.send(named(buyer.buy("/units/1", 500), key)).await;
        assert_eq!((got.status, shop.backend.calls()), (200, calls), "{key}: {}", got.body);
        assert_eq!(receipt(&got).spent, u128::try_from(calls).unwrap() * UNIT);
        assert!(!got.headers.contains_key("x-farthing-request"), "what is kept for us is nobody else's");
    }
    // Also with a greater voucher and a fresh challenge.
    let later = Buyer {
        challenge: shop.challenge("/units/1").await,
        key: Key::from_bytes(*secret()).unwrap(),
        salt: buyer.salt,
    };
    let got = shop.send(named(later.buy("/units/1", 600), "a")).await;
    assert_eq!((got.status, shop.backend.calls(), receipt(&got).spent), (200, 3, 3 * UNIT));
    let other = shop.send(named(buyer.buy("/units/2", 600), "a")).await;
    assert_eq!((other.status, other.code().as_str()), (409, "idempotency_conflict"));
    other.assert_no_goods();
    let bad = shop.send(named(buyer.buy("/units/2", 600), "\"")).await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "invalid_idempotency_key"));
    assert_eq!((shop.backend.calls(), shop.channel(buyer.id()).await.spent()), (3, 3 * UNIT));
}

fn secret() -> &'static [u8; 32] {
    &farthing_devnet::DEV_ACCOUNTS[1].private_key.0
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_never_share_an_increment() {
    let shop = Arc::new(Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await);
    let buyer = shop.customer("/units", 1000).await;
    // Enough for three of them.
    let asking = (0..8).map(|n| {
        let (shop, request) = (shop.clone(), named(buyer.buy("/units", 3 * UNIT), &format!("k{n}")));
        tokio::spawn(async move { shop.send(request).await.status })
    });
    let mut statuses = Vec::new();
    for asked in asking.collect::<Vec<_>>() {
        statuses.push(asked.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 402, 402, 402, 402, 402]);
    let channel = shop.channel(buyer.id()).await;
    assert_eq!((channel.spent(), shop.backend.calls()), (3 * UNIT, 3));
}

/// Copies of one request at once are one purchase: the others hear that it is under way, or get its answer.
#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_request_at_once_are_charged_once() {
    let shop = Arc::new(Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await);
    let buyer = shop.customer("/units", 1000).await;
    let asking = (0..8).map(|_| {
        let (shop, request) = (shop.clone(), buyer.buy("/units", 8 * UNIT));
        tokio::spawn(async move { shop.send(request).await })
    });
    let mut served = 0;
    for asked in asking.collect::<Vec<_>>() {
        let got = asked.await.unwrap();
        match got.status {
            200 => served += 1,
            409 => assert_eq!(got.code(), "in_progress"),
            other => panic!("{other}: {}", got.body),
        }
    }
    assert!(served >= 1);
    assert_eq!((shop.channel(buyer.id()).await.spent(), shop.backend.calls()), (UNIT, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_vouchers_have_their_problems_tell_nothing_and_change_nothing() {
    let routes = vec![("GET /units", sold(SessionTerms { min_voucher_delta: 50, ..by_request() }))];
    let shop = Shop::open(routes, Backend::ok()).await;
    let buyer = shop.customer("/units", 1000).await;
    assert_eq!(shop.send(buyer.manage("/units", &buyer.voucher(400))).await.status, 204);

    let voucher = |cumulative, signature| {
        SessionPayload::Voucher(farthing_wire::mpp::evm::Voucher {
            channel_id: buyer.id().0,
            cumulative,
            signature,
            deposit: None,
        })
    };
    let mut tampered = buyer.sign(500);
    tampered[10] ^= 1;
    let stranger = Buyer {
        key: Key::from_bytes([5; 32]).unwrap(),
        challenge: buyer.challenge.clone(),
        salt: buyer.salt,
    };
    let forged = {
        let parts = buyer.parts();
        let domain = farthing_evm::voucher::escrow_domain(parts.chain_id, parts.escrow);
        let digest = farthing_evm::voucher::Voucher { channel: parts.id(), cumulative: 500 }.digest(&domain);
        stranger.key.sign(digest).to_bytes().to_vec()
    };
    // None of these has shown that it may know anything of the channel.
    let unproven = [
        (voucher(500, tampered), &[ProblemType::SignerMismatch, ProblemType::InvalidSignature][..], 402),
        (voucher(500, forged.clone()), &[ProblemType::SignerMismatch], 402),
        // Also if it is for less than what was accepted, or for more than there is.
        (voucher(100, forged.clone()), &[ProblemType::SignerMismatch], 402),
        (voucher(9_999_999, forged), &[ProblemType::SignerMismatch], 402),
        (voucher(500, high_s(&buyer.sign(500))), &[ProblemType::InvalidSignature], 402),
        (voucher(500, vec![1; 64]), &[ProblemType::SignerMismatch, ProblemType::InvalidSignature], 402),
        (stranger.voucher(500), &[ProblemType::ChannelNotFound], 410),
    ];
    for (payload, kinds, status) in unproven {
        for request in [buyer.manage("/units", &payload), buyer.shows(get("/units"), &payload)] {
            let got = shop.send(request).await;
            assert_eq!(got.status, status, "{payload:?}: {}", got.body);
            assert!(kinds.contains(&problem(&got)), "{payload:?}: {}", got.body);
            for amount in ["400", "1000", "500"] {
                assert!(!got.body.contains(&format!("\"{amount}\"")), "{payload:?}: {}", got.body);
            }
            got.assert_no_goods();
        }
    }
    // These have, and are told.
    let proven = [
        (1001, ProblemType::AmountExceedsDeposit),
        (399, ProblemType::DeltaTooSmall),
        (420, ProblemType::DeltaTooSmall),
    ];
    for (cumulative, kind) in proven {
        assert_402(&shop.send(buyer.manage("/units", &buyer.voucher(cumulative))).await, &kind);
    }
    let channel = shop.channel(buyer.id()).await;
    assert_eq!((channel.accepted(), channel.spent(), channel.units()), (400, 0, 0));
    assert_eq!((channel.running().count(), shop.backend.calls()), (0, 0));
}

/// The other signature that the curve has for the same message.
fn high_s(signature: &[u8]) -> Vec<u8> {
    use farthing_evm::U256;
    let order = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141".parse::<U256>().unwrap();
    let s = U256::from_be_slice(&signature[32..64]);
    let mut other = signature.to_vec();
    other[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
    other[64] = 55 - other[64];
    other
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_opens_its_own_route_alone_while_it_holds() {
    let dear = SessionTerms {
        price: Price::each(5 * UNIT, Unit::Request),
        limits: farthing_channel::Limits { min_deposit: 500, ..by_request().limits },
        ..by_request()
    };
    let routes = vec![
        ("GET /cheap", sold(by_request())),
        ("GET /dear", sold(dear)),
        ("GET /same", sold(by_request())),
    ];
    let shop = Shop::open(routes, Backend::ok()).await;
    let buyer = shop.customer("/cheap", 5000).await;
    for path in ["/dear", "/same"] {
        assert_402(&shop.send(buyer.buy(path, 500)).await, &ProblemType::InvalidChallenge);
    }
    let mut elsewhere = buyer.buy("/cheap", 500);
    elsewhere.headers_mut().insert("host", "other.example".parse().unwrap());
    assert_402(&shop.send(elsewhere).await, &ProblemType::InvalidChallenge);
    // The same channel pays on another route with that one's own challenge.
    let there = Buyer {
        challenge: shop.challenge("/dear").await,
        key: Key::from_bytes(*secret()).unwrap(),
        salt: buyer.salt,
    };
    let got = shop.send(there.buy("/dear", 500)).await;
    assert_eq!((got.status, receipt(&got).spent), (200, 500));

    let mut changed = buyer.challenge.clone();
    changed.description = Some("anything".to_owned());
    changed.realm.push('x');
    let forged = Buyer { challenge: changed, key: Key::from_bytes(*secret()).unwrap(), salt: buyer.salt };
    assert_402(&shop.send(forged.buy("/cheap", 900)).await, &ProblemType::ChallengeNotFound);
    shop.world.advance(Duration::from_secs(600));
    assert_402(&shop.send(buyer.buy("/cheap", 900)).await, &ProblemType::ChallengeNotFound);
    assert_eq!((shop.backend.calls(), shop.channel(buyer.id()).await.accepted()), (1, 500));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_price_of_challenges_that_still_hold() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = shop.customer("/units", 5000).await;
    let dearer = SessionTerms {
        price: Price::each(3 * UNIT, Unit::Request),
        limits: farthing_channel::Limits { min_deposit: 300, ..by_request().limits },
        ..by_request()
    };
    shop.paywall.reload(terms(vec![("GET /units", sold(dearer))]));
    let got = shop.send(buyer.buy("/units", 100)).await;
    assert_eq!((got.status, receipt(&got).spent), (200, 100), "what was agreed on");
    let anew = Buyer {
        challenge: shop.challenge("/units").await,
        key: Key::from_bytes(*secret()).unwrap(),
        salt: buyer.salt,
    };
    let got = shop.send(anew.buy("/units", 400)).await;
    assert_eq!((got.status, receipt(&got).spent), (200, 400));
    shop.paywall.reload(Terms::new(crate::RouteTable::new(Vec::new()).unwrap()));
    assert_eq!(shop.send(anew.buy("/units", 900)).await.status, 404, "what is not sold any more is not sold");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channels_challenge_holds_for_its_time_when_the_realm_is_another_after_a_reload() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = shop.customer("/units", 5000).await;
    let mpp = crate::Mpp { spoken: true, realm: Some("elsewhere".to_owned()) };
    shop.paywall.reload(Terms { mpp, ..terms(vec![("GET /units", sold(by_request()))]) });
    assert_eq!(shop.challenge("/units").await.realm, "elsewhere");
    let got = shop.send(buyer.buy("/units", 100)).await;
    assert_eq!((got.status, receipt(&got).spent), (200, 100));
    // And no longer: the terms that it was made by are forgotten then.
    shop.world.advance(Duration::from_secs(601));
    assert_402(&shop.send(buyer.buy("/units", 200)).await, &ProblemType::InvalidChallenge);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_and_unwanted_payloads_are_refused() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = Buyer::new(shop.challenge("/units").await);
    let raw = |payload: Object| {
        let credential = farthing_wire::mpp::Credential::new(buyer.challenge.clone(), payload, None);
        let mut request = get("/units");
        request.headers_mut().insert("authorization", credential.to_header().unwrap().parse().unwrap());
        request
    };
    for payload in [
        Object::new(),
        Object::new().with("action", "steal"),
        buyer.voucher(1).to_object().with("cumulativeAmount", "-1"),
        buyer.voucher(1).to_object().with("channelId", "0x12"),
        buyer.voucher(1).to_object().with("signature", Json::Null),
    ] {
        let got = shop.send(raw(payload.clone())).await;
        assert_eq!((got.status, problem(&got)), (400, ProblemType::BadRequest), "{payload:?}");
    }
    // A hash without saying who paid; and a way that is not offered.
    let by_hash = |mut open: farthing_wire::mpp::evm::Open| {
        open.funding = Funding::Hash([9; 32]);
        SessionPayload::Open(open)
    };
    let SessionPayload::Open(open) = buyer.open(1000, 0) else { panic!("an opening") };
    assert_eq!(shop.send(raw(by_hash(open.clone()).to_object())).await.status, 400);
    let no_hashes = SessionTerms { credential_types: vec![CredentialType::Authorization], ..by_request() };
    shop.paywall.reload(terms(vec![("GET /units", sold(no_hashes))]));
    let strict = Buyer {
        challenge: shop.challenge("/units").await,
        key: Key::from_bytes(*secret()).unwrap(),
        salt: buyer.salt,
    };
    assert_402(
        &shop.send(strict.manage("/units", &by_hash(open.clone()))).await,
        &ProblemType::InvalidPayload,
    );
    // A deposit that is to go elsewhere, or is too small; a channel that is another.
    let mut elsewhere = open.clone();
    if let Funding::Authorization { authorization, .. } = &mut elsewhere.funding {
        authorization.to = payee();
    }
    let got = shop.send(buyer.manage("/units", &SessionPayload::Open(elsewhere))).await;
    assert_402(&got, &ProblemType::VerificationFailed);
    assert_402(
        &shop.send(buyer.manage("/units", &buyer.open(99, 0))).await,
        &ProblemType::InsufficientBalance,
    );
    let mut other = open;
    other.salt = [1; 32];
    let got = shop.send(buyer.manage("/units", &SessionPayload::Open(other))).await;
    assert_eq!((got.status, problem(&got)), (410, ProblemType::ChannelNotFound));
    // More than the buyer has: the escrow would revert, and nothing is sent.
    let poor = buyer.open(u128::from(u64::MAX), 0);
    let got = shop.send(buyer.manage("/units", &poor)).await;
    assert!(matches!(got.status, 402 | 409), "{}", got.body);
    assert_eq!(shop.backend.calls(), 0);
    assert!(shop.store_is_empty().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_lets_vouchers_go_further() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = shop.customer("/units", 200).await;
    assert_402(
        &shop.send(buyer.manage("/units", &buyer.voucher(300))).await,
        &ProblemType::AmountExceedsDeposit,
    );
    let got = shop.patiently(|| buyer.manage("/units", &buyer.top_up(800))).await;
    assert_eq!(got.status, 204, "{}", got.body);
    assert!(receipt(&got).tx_hash.is_some(), "its payer is told");
    assert_eq!(shop.send(buyer.manage("/units", &buyer.voucher(1000))).await.status, 204);
    assert_eq!(shop.channel(buyer.id()).await.deposit(), 1000);
    // The same signature brings nothing twice: who lost the answer gets it again.
    let again = shop.patiently(|| buyer.manage("/units", &buyer.top_up(800))).await;
    assert_eq!((again.status, receipt(&again).tx_hash), (204, receipt(&got).tx_hash), "{}", again.body);
    assert_eq!(shop.channel(buyer.id()).await.deposit(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_pays_both_sides_to_the_atom_and_ends_the_channel() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = Buyer::new(shop.challenge("/units").await);
    let (mine, theirs) = (shop.balance(&buyer.address()).await, shop.balance(&payee()).await);
    assert_eq!(shop.send(buyer.manage("/units", &buyer.open(1000, 0))).await.status, 204);
    for round in 1..=3 {
        assert_eq!(shop.send(buyer.buy("/units", round * UNIT)).await.status, 200);
    }
    let got = shop.send(buyer.manage("/units", &buyer.close(300))).await;
    assert_eq!(got.status, 204, "{}", got.body);
    let said = receipt(&got);
    assert_eq!((said.spent, said.accepted_cumulative), (300, 300));
    assert!(said.tx_hash.is_some());
    assert_eq!(shop.balance(&buyer.address()).await, mine - 300);
    assert_eq!(shop.balance(&payee()).await, theirs + 300);
    assert_eq!(shop.balance(&escrow()).await, 0);
    assert_eq!(*shop.channel(buyer.id()).await.state(), PayeeState::Finalized);
    shop.books_balance().await;
    for request in [
        buyer.buy("/units", 400),
        buyer.manage("/units", &buyer.voucher(400)),
        buyer.manage("/units", &buyer.close(200)),
    ] {
        let got = shop.send(request).await;
        assert_eq!((got.status, problem(&got)), (410, ProblemType::ChannelFinalized), "{}", got.body);
        assert!(challenges_of(&got).is_empty());
    }
    // Who lost the answer of its close gets it again.
    let again = shop.send(buyer.manage("/units", &buyer.close(300))).await;
    assert_eq!((again.status, receipt(&again).tx_hash), (204, said.tx_hash), "{}", again.body);
    assert_eq!(shop.backend.calls(), 3);
}

fn challenges_of(got: &Got) -> Vec<&http::HeaderValue> {
    got.headers.get_all("www-authenticate").iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_can_bring_its_deposit_along() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = Buyer::new(shop.challenge("/units").await);
    let SessionPayload::Open(open) = buyer.open(1000, UNIT) else { panic!("an opening") };
    let payload = SessionPayload::Voucher(farthing_wire::mpp::evm::Voucher {
        channel_id: buyer.id().0,
        cumulative: UNIT,
        signature: buyer.sign(UNIT),
        deposit: Some(farthing_wire::mpp::evm::Deposit {
            for_what: farthing_wire::mpp::evm::DepositFor::Open { salt: buyer.salt, authorized_signer: None },
            funding: open.funding,
        }),
    });
    let got = shop.send(buyer.shows(get("/units"), &payload)).await;
    assert_eq!((got.status, receipt(&got).spent), (200, UNIT), "{}", got.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_does_not_give_is_not_charged() {
    for (backend, status, code) in [
        (Backend::status(http::StatusCode::INTERNAL_SERVER_ERROR), 500, None),
        (Backend::status(http::StatusCode::PAYMENT_REQUIRED), 502, Some("upstream_wants_payment")),
        (
            Backend::new(|| http::Response::new(crate::body::boxed(super::support::Broken(false)))),
            502,
            Some("upstream_truncated"),
        ),
    ] {
        let shop = Shop::open(vec![("GET /units", sold(by_request()))], backend).await;
        let buyer = shop.customer("/units", 1000).await;
        let got = shop.send(buyer.buy("/units", UNIT)).await;
        assert_eq!(got.status, status, "{}", got.body);
        if let Some(code) = code {
            assert_eq!(got.code(), code);
        }
        assert!(got.header("payment-receipt").is_none(), "only success has one");
        assert_eq!(shop.channel(buyer.id()).await.spent(), 0);
        // And the same voucher tries again.
        assert_eq!(shop.send(buyer.buy("/units", UNIT)).await.status, status);
        assert_eq!(shop.backend.calls(), 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_finds_what_it_bought() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = shop.customer("/units", 1000).await;
    let asked = tokio::time::timeout(Duration::ZERO, shop.send(buyer.buy("/units", UNIT))).await;
    drop(asked);
    // Whether it was begun or not, asking again ends with one charge.
    let mut got = shop.send(buyer.buy("/units", UNIT)).await;
    while got.status == 409 {
        tokio::task::yield_now().await;
        got = shop.send(buyer.buy("/units", UNIT)).await;
    }
    assert_eq!((got.status, got.body.as_str(), receipt(&got).spent), (200, "sunny", UNIT));
}

#[test]
fn terms_that_contradict_each_other_are_no_session() {
    let made = |terms| Session::new(terms).map(|_| ());
    let limits = by_request().limits;
    assert_eq!(made(by_request()), Ok(()));
    assert_eq!(
        made(SessionTerms { price: Price::each(0, Unit::Request), ..by_request() }),
        Err(SessionError::NoPrice)
    );
    assert_eq!(
        made(SessionTerms { credential_types: Vec::new(), ..by_request() }),
        Err(SessionError::NoCredentialType)
    );
    assert_eq!(made(SessionTerms { stream: false, ..by_event() }), Err(SessionError::EventsWithoutStream));
    let tiny = farthing_channel::Limits { min_deposit: UNIT - 1, ..limits };
    assert_eq!(
        made(SessionTerms { limits: tiny, ..by_request() }),
        Err(SessionError::DepositTooSmall { cost: UNIT })
    );
    let huge = farthing_channel::Limits { min_deposit: 2000, ..limits };
    assert_eq!(
        made(SessionTerms { limits: huge, ..by_request() }),
        Err(SessionError::DepositTooLarge { suggested: 1000 })
    );
    assert_eq!(
        made(SessionTerms { min_voucher_delta: 2000, ..by_request() }),
        Err(SessionError::DeltaTooLarge { most: 1000 })
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_charged_by_what_they_took() {
    fn answering(header: Option<&'static str>, text: &'static str) -> Backend {
        Backend::new(move || {
            let mut answer = http::Response::new(body(text));
            if let Some(units) = header {
                answer.headers_mut().insert("x-units", units.parse().unwrap());
            }
            answer
        })
    }
    let by = |count: &str| SessionTerms {
        count: count.parse::<Count>().unwrap(),
        most_units: 10,
        // Three atoms for two units: what is left of an atom is carried.
        price: Price::new(3, std::num::NonZeroU64::new(2).unwrap(), Unit::Token),
        limits: farthing_channel::Limits { min_deposit: 100, ..by_request().limits },
        suggested_deposit: None,
        ..by_request()
    };
    let cases = [
        ("header:x-units", Some("7"), "sunny", Ok((7, [10, 21, 31]))),
        ("json:usage.total", None, r#"{"usage": {"total": 5}}"#, Ok((5, [7, 15, 22]))),
        ("bytes", None, "sunny", Ok((5, [7, 15, 22]))),
        // A request never costs more than was set aside for it.
        ("header:x-units", Some("1000"), "sunny", Ok((10, [15, 30, 45]))),
        ("header:x-units", None, "sunny", Err("upstream_units_unknown")),
        ("header:x-units", Some("7.5"), "sunny", Err("upstream_units_unknown")),
        ("json:usage.total", None, r#"{"usage": {"total": -5}}"#, Err("upstream_units_unknown")),
    ];
    for (count, header, text, expected) in cases {
        let shop = Shop::open(vec![("GET /units", sold(by(count)))], answering(header, text)).await;
        let buyer = shop.customer("/units", 1000).await;
        let asked = asked(&buyer.challenge);
        assert_eq!((asked.amount, asked.unit_type.as_deref()), (3, Some("2 token")));
        for (round, key) in ["a", "b", "c"].into_iter().enumerate() {
            let got = shop.send(named(buyer.buy("/units", 500), key)).await;
            match expected {
                Ok((units, spent)) => {
                    assert_eq!(got.status, 200, "{count}: {}", got.body);
                    assert_eq!(
                        (receipt(&got).units, receipt(&got).spent),
                        (Some(units), spent[round]),
                        "{count}"
                    );
                }
                Err(code) => {
                    assert_eq!((got.status, got.code().as_str()), (502, code), "{count}");
                    assert_eq!(shop.channel(buyer.id()).await.spent(), 0);
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_of_somebody_elses_top_up_tells_no_amounts() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = shop.customer("/units", 1000).await;
    let friend = Buyer {
        key: Key::from_bytes(farthing_devnet::DEV_ACCOUNTS[2].private_key.0).unwrap(),
        challenge: buyer.challenge.clone(),
        salt: buyer.salt,
    };
    let payload = friend.top_up_of(&buyer, 500);
    let got = shop.patiently(|| friend.manage("/units", &payload)).await;
    assert_eq!(got.status, 204, "{}", got.body);
    let said = Receipt::parse(got.headers["payment-receipt"].as_bytes()).unwrap();
    assert_eq!(said.reference.as_deref(), Some(buyer.id().to_string().as_str()));
    assert!(!said.other.contains_key("acceptedCumulative") && !said.other.contains_key("spent"));
    assert_eq!(shop.channel(buyer.id()).await.deposit(), 1500);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_have_the_chain_asked_without_end() {
    let shop = Shop::open(vec![("GET /units", sold(by_request()))], Backend::ok()).await;
    let buyer = Buyer::new(shop.challenge("/units").await);
    let SessionPayload::Open(mut open) = buyer.open(1000, 0) else { panic!("an opening") };
    open.funding = Funding::Hash([9; 32]);
    let unknown = SessionPayload::Open(open);
    let first = shop.send(buyer.manage("/units", &unknown)).await;
    // It may be on its way: nobody is asked for another deposit.
    assert_eq!((first.status, first.code().as_str()), (503, "deposit_not_confirmed"));
    assert!(first.header("retry-after").is_some());
    first.assert_no_challenge();
    let mut last = first;
    for _ in 0..100 {
        last = shop.send(buyer.manage("/units", &unknown)).await;
        if last.status != 503 {
            break;
        }
    }
    assert_eq!((last.status, last.code().as_str()), (429, "too_many_requests"));
    assert!(shop.store_is_empty().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_forgets_nothing_that_was_bought() {
    let routes = || vec![("GET /units", sold(by_request()))];
    let shop = Shop::open(routes(), Backend::ok()).await;
    let buyer = shop.customer("/units", 1000).await;
    assert_eq!(shop.send(named(buyer.buy("/units", UNIT), "mine")).await.status, 200);
    let shop = shop.restarted(routes()).await;
    let got = shop.patiently(|| named(buyer.buy("/units", UNIT), "mine")).await;
    assert_eq!((got.status, got.body.as_str()), (200, "sunny"));
    assert_eq!(receipt(&got).spent, UNIT);
    assert_eq!(shop.backend.calls(), 1);
    // The challenge holds, and the channel goes on.
    let got = shop.patiently(|| buyer.buy("/units", 2 * UNIT)).await;
    assert_eq!((got.status, shop.backend.calls()), (200, 2), "{}", got.body);
    assert_eq!(receipt(&got).spent, 2 * UNIT);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_challenge_of_ours_is_asked_anew_for_all_that_is_sold() {
    let shop = Shop::open(vec![("POST /both", sold_both_ways(by_request()))], Backend::ok()).await;
    let unpaid = shop.send(request("POST", "/both", "what is asked")).await;
    let mut challenge = challenges(&unpaid).pop().unwrap();
    assert_eq!((challenge.intent.as_str(), challenge.digest.as_deref()), ("session", None));
    challenge.id = "made-up".to_owned();
    let buyer = Buyer::new(challenge);
    let got = shop.send(buyer.shows(request("POST", "/both", "what is asked"), &buyer.voucher(UNIT))).await;
    assert_402(&got, &ProblemType::ChallengeNotFound);
    // The charge among them is one for this body.
    let charge = challenges(&got).remove(0);
    assert_eq!((charge.intent.as_str(), charge.digest), ("charge", challenges(&unpaid).remove(0).digest));
}
