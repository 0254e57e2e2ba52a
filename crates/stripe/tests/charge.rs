//! `stripe/charge` as a buyer sees it, over the real paywall, engine and client, against a stand-in for Stripe.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use farthing_engine::{RefundError, Store};
use farthing_payment::{State, Witness};
use farthing_paywall::{Amount, MethodOffer, Paid, Price, Route, RouteTable, Terms as PaywallTerms, Way};
use farthing_primitives::{Address, Network, PullMethod, Registry};
use farthing_rails::method::Method as _;
use farthing_stripe::{Currency, LINGER, POST_AGAIN_FOR, StripeCharge};
use farthing_wire::mpp::{Challenges, ProblemType, Terms};
use support::{PROFILE, Shop, Trouble, VISA, credential, credential_with, get, shown};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_token_buys_once_and_the_books_have_cents_that_stripe_holds() {
    let shop = Shop::open().await;
    let unpaid = shop.send(get()).await;
    assert_eq!((unpaid.status, unpaid.problem()), (402, ProblemType::PaymentRequired));
    let challenge = unpaid.challenge();
    let Ok(Terms::StripeCharge(asked)) = challenge.terms() else { panic!("{challenge:?}") };
    assert_eq!((asked.charge.amount, asked.charge.currency.as_str()), (50, "usd"));
    assert_eq!((asked.network_id.as_str(), asked.payment_method_types.len()), (PROFILE, 2));
    let token = shop.stand_in.grant(VISA, "usd", 50);
    let mine = credential(&challenge, &token);
    let got = shop.send(shown(&mine)).await;
    assert_eq!((got.status, got.body.as_str()), (200, "a report"), "{got:?}");
    let receipt = got.receipt();
    assert_eq!(
        (receipt.method.as_str(), receipt.challenge_id.as_deref()),
        ("stripe", Some(challenge.id.as_str()))
    );
    let charged = shop.stand_in.intents().remove(0);
    assert_eq!(receipt.reference.as_deref(), charged["id"].as_str());
    assert_eq!(receipt.external_id, None);
    assert_eq!(charged["metadata"]["mpp_challenge_id"], challenge.id.as_str());
    let payment = shop.payments().await.remove(0);
    assert_eq!(charged["metadata"]["farthing_payment"], payment.id.to_string().as_str());
    assert_eq!(payment.terms.money.asset().to_string(), format!("stripe:{PROFILE}/iso4217:usd"));
    assert!(matches!(&payment.state, State::Settled { proof, .. } if proof.witness == Witness::Facilitator));
    // The token is worth money: it is in no key, and in no name.
    assert!(!payment.key.as_str().contains(&token));

    shop.send(shown(&mine)).await.assert_refused(&ProblemType::InvalidChallenge);
    // The same token for another challenge.
    let other = credential(&shop.ask().await, &token);
    shop.send(shown(&other)).await.assert_refused(&ProblemType::InvalidChallenge);
    assert_eq!((shop.stand_in.charged(), shop.served()), ((50, 1), 1));
    shop.assert_books(50).await;
}

#[tokio::test(start_paused = true)]
async fn copies_at_once_buy_once() {
    let shop = Shop::open().await;
    let challenge = shop.ask().await;
    let token = shop.stand_in.grant(VISA, "usd", 50);
    let mine = credential(&challenge, &token);
    let copies = (0..6).map(|_| shop.send(shown(&mine)));
    let got = futures_of(copies).await;
    let goods = got.iter().filter(|got| got.status == 200).count();
    assert_eq!((goods, shop.served(), shop.stand_in.charged()), (1, 1, (50, 1)), "{got:?}");
    assert!(got.iter().all(|got| [200, 402, 409].contains(&got.status)), "{got:?}");
    shop.assert_books(50).await;
}

#[tokio::test(start_paused = true)]
async fn one_challenge_is_paid_once_whatever_tokens_it_is_shown_with() {
    let shop = Shop::open().await;
    let challenge = shop.ask().await;
    let tokens: Vec<_> = (0..4).map(|_| shop.stand_in.grant(VISA, "usd", 50)).collect();
    let shows = tokens.iter().map(|token| credential(&challenge, token)).collect::<Vec<_>>();
    let got = futures_of(shows.iter().map(|mine| shop.send(shown(mine)))).await;
    assert_eq!(got.iter().filter(|got| got.status == 200).count(), 1, "{got:?}");
    let later = shop.stand_in.grant(VISA, "usd", 50);
    shop.send(shown(&credential(&challenge, &later))).await.assert_refused(&ProblemType::InvalidChallenge);
    assert_eq!((shop.served(), shop.stand_in.charged()), (1, (50, 1)));
    shop.assert_books(50).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_one_charge_and_one_sale() {
    for trouble in [
        vec![Trouble::LoseAnswer],
        vec![Trouble::LoseRequest],
        vec![Trouble::LoseAnswer, Trouble::Busy],
        vec![Trouble::Busy],
        vec![Trouble::InUse],
        vec![Trouble::Html],
    ] {
        let shop = Shop::open().await;
        shop.stand_in.trouble(trouble.clone());
        let got = shop.buy(VISA).await;
        assert_eq!((got.status, shop.served()), (200, 1), "{trouble:?}: {got:?}");
        assert_eq!(shop.stand_in.charged(), (50, 1), "{trouble:?}");
        shop.assert_books(50).await;
    }
}

#[tokio::test(start_paused = true)]
async fn while_it_cannot_be_told_nobody_is_asked_to_pay_again() {
    let shop = Shop::open().await;
    shop.stand_in.trouble([Trouble::LoseAnswer, Trouble::LoseAnswer, Trouble::LoseAnswer]);
    let challenge = shop.ask().await;
    let token = shop.stand_in.grant(VISA, "usd", 50);
    let mine = credential(&challenge, &token);
    let got = shop.send(shown(&mine)).await;
    assert_eq!(got.status, 503, "{got:?}");
    assert!(!got.headers.contains_key("www-authenticate") && got.headers.contains_key("retry-after"));
    assert!(got.body.contains("settlement_pending"), "{got:?}");
    // Another token for the same challenge does not get around it.
    let other = shop.stand_in.grant(VISA, "usd", 50);
    let around = shop.send(shown(&credential(&challenge, &other))).await;
    assert_eq!((around.status, around.headers.contains_key("www-authenticate")), (409, false), "{around:?}");
    shop.settle_down(HOUR).await;
    let got = shop.send(shown(&mine)).await;
    assert_eq!((got.status, got.body.as_str(), shop.served()), (200, "a report", 1));
    assert_eq!(shop.stand_in.charged(), (50, 1));
    shop.assert_books(50).await;
}

/// At each change of the store, before it and after it, the process dies. Whatever was left, the next one ends it: the
/// same credential brings one report for one charge, or nothing for none.
#[tokio::test(start_paused = true)]
async fn a_death_at_any_step_neither_loses_nor_doubles_a_charge() {
    let mut deaths = 0;
    for lost in [false, true] {
        for point in 0..40 {
            let shop = Shop::open().await;
            let challenge = shop.ask().await;
            let mine = credential(&challenge, &shop.stand_in.grant(VISA, "usd", 50));
            if lost {
                shop.stand_in.trouble([Trouble::LoseAnswer]);
            }
            shop.store.stop_at(point);
            let first = tokio::time::timeout(HOUR, shop.send(shown(&mine))).await;
            if !shop.store.stopped() {
                break;
            }
            deaths += 1;
            let (shop, _) = shop.restart().await;
            shop.settle_down(HOUR).await;
            let got = shop.send(shown(&mine)).await;
            let told = first.as_ref().ok().map(|first| first.status);
            // Whoever has had the answer is told that it is used up, everybody else gets it.
            let had = told == Some(200);
            assert!(
                got.status == 200 || (had && got.status == 402),
                "{point} {lost}: {told:?}, then {got:?}"
            );
            assert_eq!(shop.stand_in.charged(), (50, 1), "{point} {lost}");
            assert!(shop.served() <= 2, "{point} {lost}");
            shop.assert_books(50).await;
            let (shop, _) = shop.restart().await;
            shop.send(shown(&mine)).await;
            shop.settle_down(HOUR).await;
            assert_eq!(shop.stand_in.charged(), (50, 1), "{point} {lost}");
        }
    }
    assert!(deaths >= 16, "only {deaths} deaths");
}

#[tokio::test(start_paused = true)]
async fn a_decline_is_final_and_tells_what_a_buyer_may_know() {
    for (method, code) in [
        ("pm_card_visa_chargeDeclined", "card_declined"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_visa_chargeDeclinedStolenCard", "card_declined"),
    ] {
        for lost in [false, true] {
            let shop = Shop::open().await;
            if lost {
                shop.stand_in.trouble([Trouble::LoseAnswer]);
            }
            let got = shop.buy(method).await;
            got.assert_refused(&ProblemType::VerificationFailed);
            assert!(got.body.contains(code), "{method}: {got:?}");
            assert!(!got.body.contains("stolen"), "{got:?}");
            assert_eq!(shop.states().await, ["failed"]);
            assert_eq!(shop.stand_in.charged(), (0, 0));
            shop.assert_books(0).await;
            // A fresh challenge with another card buys.
            assert_eq!(shop.buy(VISA).await.status, 200);
            shop.assert_books(50).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_needs_an_action_is_canceled_so_that_no_money_moves_later() {
    for trouble in [vec![], vec![Trouble::LoseAnswer]] {
        let shop = Shop::open().await;
        shop.stand_in.trouble(trouble);
        let got = shop.buy("pm_card_authenticationRequired").await;
        got.assert_refused(&ProblemType::PaymentActionRequired);
        assert_eq!(shop.stand_in.intents()[0]["status"], "canceled");
        assert_eq!(shop.states().await, ["failed"]);
        shop.assert_books(0).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_bank_is_still_at_is_unknown_until_it_has_decided() {
    for (decision, charged) in [("succeeded", 50), ("requires_payment_method", 0), ("canceled", 0)] {
        let shop = Shop::open().await;
        let challenge = shop.ask().await;
        let mine = credential(&challenge, &shop.stand_in.grant("pm_standin_processing", "usd", 50));
        let got = shop.send(shown(&mine)).await;
        assert_eq!((got.status, shop.states().await), (503, vec!["unknown"]), "{got:?}");
        let (shop, recovered) = shop.restart().await;
        assert_eq!(recovered.driven, 1);
        shop.stand_in.decide(decision);
        shop.settle_down(HOUR).await;
        shop.assert_books(charged).await;
        let got = shop.send(shown(&mine)).await;
        assert_eq!(got.status, if charged == 0 { 402 } else { 200 }, "{decision}: {got:?}");
        assert_eq!(shop.served(), 1);
    }
}

/// Two shops answer the same challenges with one account at Stripe and books of their own. What one has charged is no
/// payment to the other; and the draft's refusal does not hit a shop's own repetition, also after a restart.
#[tokio::test(start_paused = true)]
async fn somebody_elses_charge_is_refused_and_our_own_is_ours() {
    let shop = Shop::open().await;
    let twin = shop.twin().await;
    let challenge = shop.ask().await;
    let mine = credential(&challenge, &shop.stand_in.grant(VISA, "usd", 5_000));
    assert_eq!(shop.send(shown(&mine)).await.status, 200);
    // Used up: it is not even tried.
    let used = twin.send(shown(&mine)).await;
    used.assert_refused(&ProblemType::VerificationFailed);
    assert!(used.body.contains("token_used_up"), "{used:?}");

    // Both at once: both have looked at the token before either charges.
    let challenge = shop.ask().await;
    let mine = credential(&challenge, &shop.stand_in.grant(VISA, "usd", 50));
    shop.stand_in.trouble([Trouble::LoseAnswer]);
    let first = shop.send(shown(&mine));
    let (one, other) = tokio::join!(first, twin.send(shown(&mine)));
    let (served, refused) = if one.status == 200 { (one, other) } else { (other, one) };
    assert_eq!(served.status, 200, "{served:?}");
    refused.assert_refused(&ProblemType::VerificationFailed);
    assert!(refused.body.contains("payment_already_processed"), "{refused:?}");
    assert_eq!(shop.stand_in.charged(), (100, 2));
    shop.assert_books_with(&twin, 100).await;
}

/// The draft's refusal of a repetition, where nothing else tells that the charge is not ours: whether we ask for the first
/// time, or cannot know whether our first question arrived.
#[tokio::test(start_paused = true)]
async fn a_repetition_that_does_not_name_our_payment_is_no_payment() {
    for before in [vec![], vec![Trouble::LoseRequest]] {
        let shop = Shop::open().await;
        shop.stand_in.trouble(before.into_iter().chain([Trouble::Foreign]));
        let got = shop.buy(VISA).await;
        got.assert_refused(&ProblemType::VerificationFailed);
        assert!(got.body.contains("payment_already_processed"), "{got:?}");
        assert_eq!(shop.states().await, ["failed"]);
        shop.assert_books(0).await;
    }
}

/// Nothing is concluded from an answer that contradicts what was asked; what is so afterwards counts.
#[tokio::test(start_paused = true)]
async fn a_charge_of_another_amount_is_not_taken_for_ours() {
    let shop = Shop::open().await;
    shop.stand_in.trouble([Trouble::OtherAmount]);
    let got = shop.buy(VISA).await;
    assert_eq!(got.status, 200, "{got:?}");
    let asked = shop.stand_in.asked();
    assert!(asked.last().unwrap().starts_with("GET v1/payment_intents/pi_"), "{asked:?}");
    shop.assert_books(50).await;
}

#[tokio::test(start_paused = true)]
async fn a_charge_of_unknown_outcome_outlives_a_restart_and_its_key() {
    // Executed, and a failure is all that is kept: only the list tells.
    let shop = Shop::open().await;
    shop.stand_in.trouble([Trouble::FailAfter]);
    assert_eq!(shop.buy(VISA).await.status, 200);
    shop.assert_books(50).await;

    // Never executed, and a failure is all that is kept: nothing is concluded for as long as it is asked for again.
    let shop = Shop::open().await;
    shop.stand_in.trouble([Trouble::FailBefore]);
    let got = shop.buy(VISA).await;
    assert_eq!((got.status, shop.states().await), (503, vec!["unknown"]), "{got:?}");
    let (shop, _) = shop.restart().await;
    shop.settle_down(HOUR).await;
    assert_eq!(shop.states().await, ["unknown"]);
    // Once it is not any more, and the whole list has no such charge, it was none.
    shop.world.advance(POST_AGAIN_FOR + LINGER);
    let (shop, _) = shop.restart().await;
    shop.settle_down(HOUR).await;
    assert_eq!(shop.states().await, ["failed"]);
    shop.assert_books(0).await;
}

/// After its key is forgotten, the same request would be a second charge.
#[tokio::test(start_paused = true)]
async fn nothing_is_sent_again_once_stripe_may_have_forgotten_it() {
    let shop = Shop::open().await;
    shop.stand_in.trouble(std::iter::repeat_n(Trouble::LoseAnswer, 2));
    let challenge = shop.ask().await;
    // A token that would pay for more than one.
    let token = shop.stand_in.grant(VISA, "usd", 5_000);
    let mine = credential(&challenge, &token);
    assert_eq!(shop.send(shown(&mine)).await.status, 503);
    shop.world.advance(25 * HOUR);
    let (shop, recovered) = shop.restart().await;
    assert_eq!(recovered.driven, 1);
    let before = shop.stand_in.asked().len();
    shop.settle_down(HOUR).await;
    let since = shop.stand_in.asked().split_off(before);
    assert!(since.iter().all(|asked| asked.starts_with("GET ")), "{since:?}");
    shop.assert_books(50).await;
    assert_eq!((shop.send(shown(&mine)).await.status, shop.served()), (200, 1));
}

/// One is made, the other is canceled: that no money moved is proved by neither.
#[tokio::test(start_paused = true)]
async fn several_charges_that_name_one_payment_prove_nothing() {
    let shop = Shop::open().await;
    shop.stand_in.trouble(std::iter::repeat_n(Trouble::LoseAnswer, 2));
    assert_eq!(shop.buy(VISA).await.status, 503);
    shop.stand_in.repeat("canceled");
    shop.world.advance(25 * HOUR);
    let (shop, _) = shop.restart().await;
    shop.settle_down(HOUR).await;
    assert_eq!(shop.states().await, ["unknown"]);
}

#[tokio::test(start_paused = true)]
async fn tokens_that_do_not_buy_have_no_work_done_for_them() {
    let shop = Shop::open().await;
    let revoked = shop.stand_in.grant(VISA, "usd", 50);
    shop.stand_in.revoke(&revoked);
    for (token, code) in [
        ("spt_unknown".to_owned(), "token_unknown"),
        (revoked, "token_used_up"),
        (shop.stand_in.grant(VISA, "usd", 49), "token_for_less"),
        (shop.stand_in.grant(VISA, "eur", 50), "token_for_other_currency"),
    ] {
        let got = shop.send(shown(&credential(&shop.ask().await, &token))).await;
        got.assert_refused(&ProblemType::VerificationFailed);
        assert!(got.body.contains(code), "{code}: {got:?}");
    }
    for token in ["", "spt_", "tok_1", "spt_a/../b", &format!("spt_{}", "a".repeat(400))] {
        let got = shop.send(shown(&credential(&shop.ask().await, token))).await;
        got.assert_refused(&ProblemType::InvalidPayload);
    }
    assert_eq!((shop.served(), shop.stand_in.charged()), (0, (0, 0)));
    shop.assert_books(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_tampered_challenge_buys_nothing() {
    let shop = Shop::open().await;
    let token = shop.stand_in.grant(VISA, "usd", 5_000);
    let challenge = shop.ask().await;
    let mut cheaper = challenge.clone();
    let request = challenge.request.object().clone();
    let request = farthing_wire::Object::new()
        .with("amount", "1")
        .with("currency", "usd")
        .with("methodDetails", request.get("methodDetails").unwrap().clone());
    cheaper.request = farthing_wire::mpp::EncodedRequest::new(request).unwrap();
    let mut elsewhere = challenge.clone();
    elsewhere.realm = "elsewhere.example".to_owned();
    let mut longer = challenge.clone();
    longer.expires = None;
    for changed in [cheaper, elsewhere, longer] {
        let got = shop.send(shown(&credential(&changed, &token))).await;
        got.assert_refused(&ProblemType::InvalidChallenge);
    }
    shop.world.advance(HOUR);
    shop.send(shown(&credential(&challenge, &token))).await.assert_refused(&ProblemType::PaymentExpired);
    assert_eq!((shop.served(), shop.stand_in.charged()), (0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_merchants_reference_is_echoed_or_refused() {
    let shop = Shop::selling("0.50 USD", Some("order_12345")).await;
    for echo in [None, Some("order_1"), Some("")] {
        let token = shop.stand_in.grant(VISA, "usd", 50);
        let got = shop.send(shown(&credential_with(&shop.ask().await, &token, echo))).await;
        got.assert_refused(&ProblemType::InvalidChallenge);
    }
    let token = shop.stand_in.grant(VISA, "usd", 50);
    let got = shop.send(shown(&credential_with(&shop.ask().await, &token, Some("order_12345")))).await;
    assert_eq!((got.status, got.receipt().external_id.as_deref()), (200, Some("order_12345")));
    assert_eq!(shop.stand_in.charged(), (50, 1));
}

#[tokio::test(start_paused = true)]
async fn below_the_least_charge_there_is_no_challenge() {
    let shop = Shop::selling("0.49 USD", None).await;
    let got = shop.send(get()).await;
    assert!(!got.headers.contains_key("www-authenticate"), "{got:?}");
    assert_eq!(got.status, 503, "there is no other way to pay: {got:?}");
    assert!(got.body.contains("no_way_to_pay"), "{got:?}");
    assert_eq!(shop.served(), 0);
}

/// One answer asks for a token of a chain, in both protocols, and for a card.
#[tokio::test(start_paused = true)]
async fn a_card_stands_beside_a_token_in_one_answer() {
    let shop = Shop::open().await;
    let registry = Registry::builtin();
    let network = Network::from_name("base-sepolia").unwrap();
    let pay_to = Address::evm("0x209693Bc6afc0C5328bA36FaF03C514EF312287C").unwrap();
    let usdc = registry.dollar(&network).unwrap();
    let way = Arc::new(Way::new(&registry, usdc, pay_to, PullMethod::Eip3009).unwrap());
    let mut paid = Paid::new(Price::Fixed(vec![way.offer(&Amount::parse("$0.40").unwrap()).unwrap()]));
    let method = support::method();
    let money = Currency::price("0.50 USD", method.network()).unwrap();
    paid.methods = vec![MethodOffer { method, money, external_id: None }];
    let routes = RouteTable::new(vec![("GET /report".parse().unwrap(), Route::paid(paid))]).unwrap();
    shop.paywall.reload(PaywallTerms::new(routes));
    let got = shop.send(get()).await;
    assert!(got.headers.contains_key("payment-required"), "{got:?}");
    let lines = got.headers.get_all("www-authenticate").iter().map(http::HeaderValue::as_bytes);
    let all = Challenges::parse(lines).unwrap().challenges;
    let methods: Vec<_> = all.iter().map(|challenge| challenge.method.as_str()).collect();
    assert_eq!(methods, ["evm", "stripe"]);
    // Each buys what it asks for; the books keep them apart.
    let token = shop.stand_in.grant(VISA, "usd", 50);
    assert_eq!(shop.send(shown(&credential(&all[1], &token))).await.status, 200);
    // What is made for one method is no payment by the other.
    let mut crossed = credential(&all[0], &token);
    shop.send(shown(&crossed)).await.assert_refused(&ProblemType::InvalidPayload);
    crossed.challenge.method = all[1].method.clone();
    shop.send(shown(&crossed)).await.assert_refused(&ProblemType::InvalidChallenge);
    shop.assert_books(50).await;
}

#[tokio::test(start_paused = true)]
async fn a_refund_is_refused_by_name() {
    let shop = Shop::open().await;
    assert_eq!(shop.buy(VISA).await.status, 200);
    let payment = shop.payments().await.remove(0);
    let refused = shop.engine.refund(payment.id, &support::some_key()).await;
    assert!(matches!(refused, Err(RefundError::Elsewhere { .. })), "{refused:?}");
    let after = shop.books.payment(payment.id).await.unwrap().unwrap();
    assert_eq!(after.state.name(), "settled");
    shop.assert_books(50).await;
}

#[test]
fn two_profiles_never_share_books() {
    let long = "profile_test_61U92KWAstyE3VYhXA6U91t01FSQ3ByrZzKJOCR0y5ey";
    let network = |id: &str| StripeCharge::new(id, vec!["card".to_owned()]).unwrap().network().clone();
    assert_eq!(network("profile_1").as_str(), "stripe:profile_1");
    assert_ne!(network(long), network(&long.replace("y5ey", "y5ez")));
    for wrong in ["", "a b", "profile/1", &"a".repeat(200)] {
        assert!(StripeCharge::new(wrong, vec!["card".to_owned()]).is_err(), "{wrong:?}");
    }
    assert!(StripeCharge::new("profile_1", vec![]).is_err());
    assert!(StripeCharge::new("profile_1", vec!["Card".to_owned()]).is_err());
}

async fn futures_of<F: Future>(all: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    futures_util::future::join_all(all).await
}
