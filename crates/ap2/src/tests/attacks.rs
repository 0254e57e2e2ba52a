//! The attack, and nine things that AP2's own verifier lets through.

use serde_json::json;

use super::kit::*;
use crate::{Link, verify_checkout, verify_payment};

#[test]
fn attack_63_a_tampered_cart_is_refused() {
    let jwt = checkout_jwt(&checkout());
    let mut cheaper = checkout();
    cheaper["totals"][1]["amount"] = json!(1);
    // The merchant's payload is changed, and its signature kept.
    let parts: Vec<&str> = jwt.split('.').collect();
    let forged = format!("{}.{}.{}", parts[0], b64(cheaper.to_string().as_bytes()), parts[2]);
    assert_eq!(code(as_merchant(&checkout_story(&forged).chain())), "ap2_checkout_signature");
    // Somebody else signs the cart.
    let header = json!({ "alg": "ES256", "typ": "JWT" });
    let strangers = Who::Stranger.sign(&header, &checkout());
    assert_eq!(code(as_merchant(&checkout_story(&strangers).chain())), "ap2_checkout_signature");
    // Another cart of the merchant's under the hash that was approved.
    let other = checkout_jwt(&cheaper);
    let swapped = checkout_code(|story| {
        let mut sd = Sd::default();
        let digest = sd.member("checkout_jwt", json!(other));
        story.leaf().mandate()["_sd"] = json!([digest]);
        story.leaf().sd = sd;
    });
    assert_eq!(swapped, "ap2_checkout_hash");
    // A disclosure that is put in by somebody on the way.
    let hops = checkout_story(&jwt).hops();
    let mut sd = Sd::default();
    sd.member("checkout_jwt", json!(other));
    let mut leaf: Vec<&str> = hops[1].split('~').collect();
    leaf[1] = &sd.disclosures[0];
    let chain = [hops[0].clone(), leaf.join("~")].join("~");
    assert_eq!(code(as_merchant(&chain)), "ap2_unused_disclosure");
    // The merchant's own word for another session than the one it asks about.
    let story = checkout_story(&jwt).chain();
    let sent = verify_checkout(&story, &expect(&roots(), "merchant", "nonce-m"), &merchants(), Some(&other));
    assert_eq!(code(sent), "ap2_checkout_hash");
    let sent = verify_checkout(&story, &expect(&roots(), "merchant", "nonce-m"), &merchants(), Some(&jwt));
    assert_eq!(code(sent), "accepted");
    // More in it than was asked for.
    let mut more = checkout();
    more["line_items"][0]["quantity"] = json!(3);
    assert_eq!(code(as_merchant(&checkout_story(&checkout_jwt(&more)).chain())), "ap2_line_items");
    // A payment for another cart.
    let pair = Pair::new();
    assert_eq!(
        pair.code(|story| story.leaf().mandate()["transaction_id"] = json!(sha256(&other))),
        "ap2_transaction_id"
    );
}

#[test]
fn attack_63_an_unknown_constraint_is_refused() {
    let strange = json!({ "type": "payment.only_on_sundays" });
    assert_eq!(Pair::new().code(|story| story.root().add_constraint(strange)), "ap2_unknown_constraint");
    let strange = json!({ "type": "checkout.gift_wrap", "wanted": true });
    assert_eq!(checkout_code(|story| story.root().add_constraint(strange)), "ap2_unknown_constraint");
    // One of the other family, and one of another version.
    for kind in
        ["checkout.allowed_merchants", "payment.amount_range.2", "payment.Amount_range", "amount_range", ""]
    {
        let strange = json!({ "type": kind, "allowed": [shop(1)] });
        assert_eq!(Pair::new().code(|story| story.root().add_constraint(strange)), "ap2_unknown_constraint");
    }
    // A member of a known one that is not known might be a limit.
    let strange = |story: &mut Story| story.root().constraint(1)["per_item"] = json!(5);
    assert_eq!(Pair::new().code(strange), "ap2_constraint_form");
}

#[test]
fn attack_63_a_wrong_cnf_is_refused() {
    let pair = Pair::new();
    // Signed by a key that the open mandate does not name.
    assert_eq!(pair.code(|story| story.leaf().by = Who::Stranger), "ap2_signature");
    let names =
        |jwk: serde_json::Value| pair.code(|story| story.root().mandate()["cnf"] = json!({ "jwk": jwk }));
    assert_eq!(names(Who::Stranger.jwk()), "ap2_signature");
    let with = |name: &str, value: serde_json::Value| {
        let mut jwk = Who::Agent.jwk();
        jwk[name] = value;
        names(jwk)
    };
    assert_eq!(with("crv", json!("secp256k1")), "ap2_key");
    assert_eq!(with("kty", json!("RSA")), "ap2_key");
    assert_eq!(with("alg", json!("ES384")), "ap2_key");
    assert_eq!(with("use", json!("enc")), "ap2_key");
    assert_eq!(with("key_ops", json!(["sign"])), "ap2_key");
    assert_eq!(with("x", json!("AA")), "ap2_key");
    assert_eq!(with("d", json!("AA")), "ap2_key");
    // A point that is not on the curve made no signature.
    assert_eq!(with("x", json!(b64(&[7; 32]))), "ap2_signature");
    assert_eq!(with("kid", json!("agent-1")), "accepted");
    assert_eq!(pair.code(|story| story.root().mandate()["cnf"] = json!({ "kid": "agent" })), "ap2_key");
    let without = |story: &mut Story| drop(story.root().mandate().as_object_mut().unwrap().remove("cnf"));
    assert_eq!(pair.code(without), "ap2_cnf_missing");
    // Beside the mandate's there is another one.
    assert_eq!(
        pair.code(|story| story.root().payload["cnf"] = json!({ "jwk": Who::Stranger.jwk() })),
        "ap2_cnf_unexpected"
    );
}

#[test]
fn unsafe_1_a_last_hop_that_looks_like_one_between_is_not_read_past() {
    let pair = Pair::new();
    let cnf = json!({ "jwk": Who::SubAgent.jwk() });
    let between = |story: &mut Story| {
        story.leaf().header["typ"] = json!("kb+sd-jwt+kb");
        story.leaf().mandate()["cnf"] = cnf.clone();
        story.leaf().payload["aud"] = json!("somebody else");
    };
    assert_eq!(pair.code(between), "ap2_typ");
    assert_eq!(pair.code(|story| story.leaf().mandate()["cnf"] = cnf.clone()), "ap2_cnf_unexpected");
    assert_eq!(pair.code(|story| story.leaf().payload["aud"] = json!("somebody else")), "ap2_audience");
    assert_eq!(pair.code(|story| story.leaf().payload["aud"] = json!(["credential-provider"])), "ap2_claim");
    assert_eq!(pair.code(|story| story.leaf().payload["nonce"] = json!("another")), "ap2_nonce");
    assert_eq!(pair.code(|story| story.leaf().payload["nonce"] = json!("")), "ap2_claim");
}

#[test]
fn unsafe_2_what_is_withheld_is_no_wildcard() {
    // The agent shows none of the acceptable items, and none of the merchants.
    assert_eq!(checkout_code(|story| drop(story.root().sd.disclosures.remove(0))), "ap2_nothing_disclosed");
    assert_eq!(checkout_code(|story| drop(story.root().sd.disclosures.remove(1))), "ap2_nothing_disclosed");
    assert_eq!(Pair::new().code(|story| story.root().sd.disclosures.clear()), "ap2_nothing_disclosed");
    // There never were any.
    let empty = |story: &mut Story| {
        story.root().constraint(0)["items"][0]["acceptable_items"] = json!([]);
        story.root().sd.disclosures.remove(0);
    };
    assert_eq!(checkout_code(empty), "ap2_nothing_disclosed");
    // The one that applies is withheld, and another shown.
    let other = |story: &mut Story| {
        let mut sd = Sd::default();
        let blue = sd.element(json!({ "id": "shoe-blue", "title": "Blue" }));
        story.root().constraint(0)["items"][0]["acceptable_items"] = json!([blue]);
        story.root().sd.disclosures[0] = sd.disclosures.remove(0);
    };
    assert_eq!(checkout_code(other), "ap2_line_items");
}

#[test]
fn unsafe_3_too_little_is_not_what_was_asked_for() {
    assert_eq!(
        checkout_code(|story| story.root().constraint(0)["items"][0]["quantity"] = json!(3)),
        "ap2_line_items"
    );
    assert_eq!(
        checkout_code(|story| story.root().constraint(0)["items"][0]["quantity"] = json!(1)),
        "ap2_line_items"
    );
    assert_eq!(
        checkout_code(|story| story.root().constraint(0)["items"][0]["quantity"] = json!(0)),
        "ap2_constraint_form"
    );
}

#[test]
fn unsafe_4_times_are_compared_as_times() {
    // NOW is 2027-01-15T08:00:00Z.
    let window = |first: &str, last: &str, at: Option<&str>| {
        Pair::new().code(|story| {
            let (first, last) = (json!(first), json!(last));
            story.root().add_constraint(
                json!({ "type": "payment.execution_date", "not_before": first, "not_after": last }),
            );
            if let Some(at) = at {
                story.leaf().mandate()["execution_date"] = json!(at);
            }
        })
    };
    // Nothing is said, so it is executed now: too early, too late, and in time.
    assert_eq!(window("2027-01-15T08:00:00.001Z", "2028-01-01T00:00:00Z", None), "ap2_execution_date");
    assert_eq!(window("2026-01-01T00:00:00Z", "2027-01-15T07:59:59Z", None), "ap2_execution_date");
    assert_eq!(window("2027-01-15T08:00:00Z", "2027-01-15T08:00:00Z", None), "accepted");
    // By their text these are in the window.
    let (first, last) = ("2027-02-01T00:00:00Z", "2027-02-02T00:00:00Z");
    assert_eq!(window(first, last, Some("2027-02-01T09:00:00+14:00")), "ap2_execution_date");
    assert_eq!(window(first, last, Some("2027-02-01T23:00:00-14:00")), "ap2_execution_date");
    // And these are not.
    assert_eq!(window(first, last, Some("2027-01-31T23:00:00-02:00")), "accepted");
    assert_eq!(window(first, last, Some("2027-02-02T00:00:00.000Z")), "accepted");
    for bad in ["2027-02-01", "1801440000", "2027-02-30T00:00:00Z", "2027-02-02T00:00:00.0001Z", "tomorrow"] {
        assert_eq!(window(first, last, Some(bad)), "ap2_date", "{bad}");
        assert_eq!(window(bad, last, None), "ap2_date", "{bad}");
    }
}

#[test]
fn unsafe_5_what_the_open_mandate_says_stays_as_it_is() {
    let pair = Pair::new();
    let preset = |name: &str, open: serde_json::Value, closed: Option<serde_json::Value>| {
        pair.code(|story| {
            story.root().mandate()[name] = open;
            if let Some(closed) = closed {
                story.leaf().mandate()[name] = closed;
            }
        })
    };
    let pisp = |name: &str| json!({ "legal_name": name, "brand_name": "Pay", "domain_name": "pay.example" });
    assert_eq!(preset("pisp", pisp("A"), Some(pisp("B"))), "ap2_preset_changed");
    assert_eq!(preset("pisp", pisp("A"), None), "ap2_preset_changed");
    assert_eq!(preset("pisp", pisp("A"), Some(pisp("A"))), "accepted");
    assert_eq!(preset("risk_data", json!({ "score": 1 }), Some(json!({ "score": 2 }))), "ap2_preset_changed");
    assert_eq!(preset("payee", shop(2), None), "ap2_preset_changed");
    assert_eq!(preset("payee", shop(1), None), "accepted");
    let amount = |amount: u64| json!({ "amount": amount, "currency": "USD" });
    assert_eq!(preset("payment_amount", amount(19_899), None), "ap2_preset_changed");
    assert_eq!(
        preset("payment_instrument", json!({ "id": "card-2", "type": "card" }), None),
        "ap2_preset_changed"
    );
    // Also what we do not know.
    assert_eq!(preset("deliver_to", json!("home"), None), "ap2_preset_changed");
    // The presets of every open mandate hold, and none can be withheld.
    let hidden = |story: &mut Story| {
        let digest = Sd::default().member("payee", shop(2));
        story.root().mandate()["_sd"] = json!([digest]);
    };
    assert_eq!(pair.code(hidden), "ap2_withheld");
}

#[test]
fn unsafe_6_a_constraint_without_a_type_has_none_by_its_looks() {
    let typeless = json!({ "currency": "USD", "max": 20000 });
    assert_eq!(Pair::new().code(|story| story.root().add_constraint(typeless)), "ap2_constraint_type");
    let typeless =
        |story: &mut Story| drop(story.root().constraint(1).as_object_mut().unwrap().remove("type"));
    assert_eq!(checkout_code(typeless), "ap2_constraint_type");
    assert_eq!(
        Pair::new().code(|story| story.root().constraint(1)["type"] = json!(7)),
        "ap2_constraint_type"
    );
    assert_eq!(Pair::new().code(|story| story.root().add_constraint(json!("free"))), "ap2_constraint_type");
}

#[test]
fn unsafe_7_an_amount_is_a_whole_number_and_never_below_zero() {
    for bad in [json!(-1), json!(199.5), json!("19900"), json!(19900.0), json!(null), json!([19900])] {
        let amount = |story: &mut Story| story.leaf().mandate()["payment_amount"]["amount"] = bad.clone();
        assert_eq!(Pair::new().code(amount), "ap2_amount", "{bad}");
        for (member, expected) in [("max", "ap2_constraint_form"), ("min", "ap2_constraint_form")] {
            let limit = |story: &mut Story| story.root().constraint(1)[member] = bad.clone();
            assert_eq!(Pair::new().code(limit), expected, "{member} {bad}");
        }
        let mut cart = checkout();
        cart["totals"][1]["amount"] = bad.clone();
        assert_eq!(
            code(as_merchant(&checkout_story(&checkout_jwt(&cart)).chain())),
            "ap2_checkout_form",
            "{bad}"
        );
        let mut cart = checkout();
        cart["line_items"][0]["quantity"] = bad.clone();
        assert_eq!(
            code(as_merchant(&checkout_story(&checkout_jwt(&cart)).chain())),
            "ap2_checkout_form",
            "{bad}"
        );
    }
    for bad in [json!("usd"), json!("US"), json!("USDC"), json!("")] {
        let currency = |story: &mut Story| story.leaf().mandate()["payment_amount"]["currency"] = bad.clone();
        assert_eq!(Pair::new().code(currency), "ap2_amount", "{bad}");
    }
}

#[test]
fn unsafe_8_the_merchants_signature_is_checked() {
    let mut cart = checkout();
    let header = json!({ "alg": "ES256", "typ": "JWT" });
    let judge = |jwt: &str| code(as_merchant(&checkout_story(jwt).chain()));
    assert_eq!(judge(&Who::Stranger.sign(&header, &cart)), "ap2_checkout_signature");
    assert_eq!(judge(&Who::Agent.sign(&header, &cart)), "ap2_checkout_signature");
    let none = format!("{}.{}.", b64(br#"{"alg":"none"}"#), b64(cart.to_string().as_bytes()));
    assert_eq!(judge(&none), "ap2_checkout_form");
    assert_eq!(judge(&Who::Merchant.sign(&json!({ "alg": "ES384" }), &cart)), "ap2_checkout_form");
    // A merchant's key signs for that merchant only.
    cart["merchant"] = shop(2);
    assert_eq!(judge(&checkout_jwt(&cart)), "ap2_merchant_unknown");
    cart.as_object_mut().unwrap().remove("merchant");
    assert_eq!(judge(&checkout_jwt(&cart)), "ap2_checkout_form");
}

#[test]
fn unsafe_9_a_budget_is_in_minor_units_of_its_currency() {
    // 1000 yen are 1000 minor units, and no 100,000.
    let mut cart = checkout();
    cart["currency"] = json!("JPY");
    cart["totals"][1]["amount"] = json!(1001);
    let pair = Pair::of(&cart);
    let judged = |max: u64, currency: &str| {
        let mut payment = pair.payment.clone();
        payment.leaf().mandate()["payment_amount"] = json!({ "amount": 1001, "currency": "JPY" });
        payment.root().constraint(1)["currency"] = json!("JPY");
        payment.root().add_constraint(json!({ "type": "payment.budget", "max": max, "currency": currency }));
        let judged = as_provider(&payment.chain(), &pair.checkout.join("~"));
        match judged {
            Ok(unreserved) => match unreserved.reserve(&crate::Memory::default(), now()) {
                Ok(_) => "accepted",
                Err(crate::ReserveError::Refused(refused)) => refused.why.code(),
                Err(crate::ReserveError::Unknown(never)) => match never {},
            },
            Err(refused) => refused.why.code(),
        }
    };
    assert_eq!(judged(1000, "JPY"), "ap2_budget");
    assert_eq!(judged(1001, "JPY"), "accepted");
    assert_eq!(judged(100_000, "USD"), "ap2_budget");
    let fraction = json!({ "type": "payment.budget", "max": 1000.5, "currency": "USD" });
    assert_eq!(Pair::new().code(|story| story.root().add_constraint(fraction)), "ap2_constraint_form");
}

#[test]
fn a_payment_for_a_checkout_that_nobody_named_is_refused() {
    let pair = Pair::new();
    let (chain, roots) = (pair.payment.chain(), roots());
    let judged = |transaction_id: &str, open_checkout: Option<&str>| {
        let link = Link::Told { transaction_id, open_checkout };
        code(verify_payment(&chain, &expect(&roots, "credential-provider", "nonce-p"), link))
    };
    let (id, open) = (sha256(&pair.jwt), sha256(&pair.checkout[0]));
    assert_eq!(judged(&id, Some(&open)), "accepted");
    assert_eq!(judged("", Some(&open)), "ap2_transaction_id");
    assert_eq!(judged(&id, None), "ap2_reference_unresolved");
    assert_eq!(judged(&id, Some(&id)), "ap2_reference");
    // The payee and the sum are those of the checkout, where it is seen.
    let payee = |story: &mut Story| {
        story.leaf().mandate()["payee"] = shop(2);
        story.root().constraint(2)["allowed"] = json!([shop(1), shop(2)]);
        story.root().sd.disclosures.clear();
    };
    assert_eq!(pair.code(payee), "ap2_payee_differs");
    assert_eq!(
        pair.code(|story| story.leaf().mandate()["payment_amount"]["amount"] = json!(19_899)),
        "ap2_total_differs"
    );
}

#[test]
fn what_is_withheld_and_what_it_is_called_take_little_room() {
    let judged = |member: String, places: usize| {
        let mut pair = Pair::new();
        let hidden: Vec<_> = (0..places).map(|n| json!({ "_sd": [sha256(&n.to_string())] })).collect();
        pair.payment.leaf().payload[member] = json!(hidden);
        crate::family_of(&pair.payment.chain())
    };
    assert!(judged("x".to_owned(), crate::MAX_DISCLOSURES - 8).is_some());
    assert!(judged("x".to_owned(), crate::MAX_DISCLOSURES + 1).is_none());
    assert!(judged("x".repeat(crate::MAX_TEXT_BYTES + 1), 0).is_none());
}
