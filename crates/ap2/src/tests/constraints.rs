//! Each constraint, met and not.

use serde_json::{Value, json};

use super::kit::*;

fn with(constraint: Value) -> &'static str {
    Pair::new().code(|story| story.root().add_constraint(constraint))
}

#[test]
fn open_mandates_have_the_constraints_that_they_must() {
    let required = |story: &mut Story| {
        story.root().constraint(0)["type"] = json!("payment.amount_range");
        *story.root().constraint(0) =
            json!({ "type": "payment.amount_range", "currency": "USD", "max": 20000 });
    };
    assert_eq!(Pair::new().code(required), "ap2_required_constraint");
    let required = |story: &mut Story| {
        let merchants = story.root().constraint(1).clone();
        story.root().mandate()["constraints"] = json!([merchants]);
        story.root().sd.disclosures.remove(0);
    };
    assert_eq!(checkout_code(required), "ap2_required_constraint");
    assert_eq!(
        Pair::new().code(|story| story.root().mandate()["constraints"] = json!({})),
        "ap2_unused_disclosure"
    );
    let none = |story: &mut Story| {
        story.root().sd.disclosures.clear();
        story.root().mandate().as_object_mut().unwrap().remove("constraints");
    };
    assert_eq!(Pair::new().code(none), "ap2_member");
}

#[test]
fn an_amount_is_within_its_range_and_in_its_currency() {
    let range = |min: Option<u64>, max: u64, currency: &str| {
        let mut constraint = json!({ "type": "payment.amount_range", "currency": currency, "max": max });
        if let Some(min) = min {
            constraint["min"] = json!(min);
        }
        with(constraint)
    };
    assert_eq!(range(Some(19_900), 19_900, "USD"), "accepted");
    assert_eq!(range(None, 19_899, "USD"), "ap2_amount_range");
    assert_eq!(range(Some(19_901), 30_000, "USD"), "ap2_amount_range");
    assert_eq!(range(None, 30_000, "EUR"), "ap2_amount_range");
    assert_eq!(with(json!({ "type": "payment.amount_range", "max": 30_000 })), "ap2_constraint_form");
    assert_eq!(with(json!({ "type": "payment.amount_range", "currency": "USD" })), "ap2_constraint_form");
}

#[test]
fn a_merchant_is_known_by_all_that_is_said_of_it() {
    let payee =
        |allowed: Value| with(json!({ "type": "payment.allowed_payees", "allowed": [shop(2), allowed] }));
    assert_eq!(payee(shop(1)), "accepted");
    assert_eq!(payee(json!({ "id": "merchant_1", "name": "Shop 1" })), "accepted");
    // Name and website are the agent's own words of whoever has the id that is paid.
    assert_eq!(payee(json!({ "name": "Shop 1", "website": "https://shop-1.example" })), "ap2_payee");
    assert_eq!(payee(json!({ "name": "Shop 1" })), "ap2_payee");
    assert_eq!(payee(json!({ "id": "merchant_1", "name": "Shop 2" })), "ap2_payee");
    assert_eq!(
        payee(json!({ "id": "merchant_9", "name": "Shop 1", "website": "https://shop-1.example" })),
        "ap2_payee"
    );
    assert_eq!(
        payee(json!({ "id": "merchant_1", "name": "Shop 1", "website": "https://evil.example" })),
        "ap2_payee"
    );
    assert_eq!(payee(json!({ "id": "merchant_1" })), "ap2_constraint_form");
    assert_eq!(payee(json!("merchant_1")), "ap2_constraint_form");
    // A payee has an id.
    let nameless =
        |story: &mut Story| drop(story.leaf().mandate()["payee"].as_object_mut().unwrap().remove("id"));
    assert_eq!(Pair::new().code(nameless), "ap2_member");
    let merchant = |allowed: Value| {
        checkout_code(|story| {
            let allowed = json!({ "type": "checkout.allowed_merchants", "allowed": [allowed] });
            story.root().add_constraint(allowed);
        })
    };
    assert_eq!(merchant(shop(1)), "accepted");
    assert_eq!(merchant(shop(2)), "ap2_merchant");
}

#[test]
fn instruments_and_services_are_those_allowed() {
    let instrument = |id: &str, kind: &str| {
        with(
            json!({ "type": "payment.allowed_payment_instruments", "allowed": [{ "id": id, "type": kind }] }),
        )
    };
    assert_eq!(instrument("card-1", "card"), "accepted");
    assert_eq!(instrument("card-2", "card"), "ap2_instrument");
    assert_eq!(instrument("card-1", "UPI"), "ap2_instrument");
    let pisp = |domain: &str| json!({ "legal_name": "Pay Ltd", "brand_name": "Pay", "domain_name": domain });
    let service = |used: Option<Value>| {
        Pair::new().code(|story| {
            story
                .root()
                .add_constraint(json!({ "type": "payment.allowed_pisps", "allowed": [pisp("pay.example")] }));
            if let Some(used) = used {
                story.leaf().mandate()["pisp"] = used;
            }
        })
    };
    assert_eq!(service(Some(pisp("pay.example"))), "accepted");
    assert_eq!(service(Some(pisp("pay.evil"))), "ap2_pisp");
    assert_eq!(service(None), "ap2_pisp");
    assert_eq!(service(Some(json!({}))), "ap2_member");
}

#[test]
fn a_payment_is_for_its_own_open_checkout() {
    let other = Pair::new();
    let reference =
        |id: Value| Pair::new().code(|story| story.root().constraint(0)["conditional_transaction_id"] = id);
    assert_eq!(reference(json!(sha256(&other.checkout[0]))), "ap2_reference");
    assert_eq!(reference(json!("")), "ap2_reference");
    assert_eq!(reference(json!(null)), "ap2_constraint_form");
}

/// What a cart of the merchant's is refused with, by one list of wishes.
fn cart(wishes: Value, lines: &[(&str, u64)]) -> &'static str {
    let mut cart = checkout();
    let line = |(id, quantity): &(&str, u64)| json!({ "id": "li", "item": { "id": id, "title": "x", "price": 100 }, "quantity": quantity });
    cart["line_items"] = lines.iter().map(line).collect();
    let mut story = checkout_story(&checkout_jwt(&cart));
    story.root().sd.disclosures.remove(0);
    story.root().constraint(0)["items"] = wishes;
    code(as_merchant(&story.chain()))
}

fn wish(quantity: u64, ids: &[&str]) -> Value {
    let items: Vec<Value> = ids.iter().map(|id| json!({ "id": id, "title": "x" })).collect();
    json!({ "id": "w", "acceptable_items": items, "quantity": quantity })
}

#[test]
fn a_cart_is_what_was_wished_for_to_the_piece() {
    // The example of the specification: shoes of one kind or the other, and socks.
    let wishes = json!([wish(1, &["red", "blue"]), wish(1, &["socks"])]);
    assert_eq!(cart(wishes.clone(), &[("red", 1), ("socks", 1)]), "accepted");
    assert_eq!(cart(wishes.clone(), &[("socks", 1), ("blue", 1)]), "accepted");
    for lines in [
        &[("red", 1), ("blue", 1)][..],
        &[("red", 1)],
        &[("blue", 1)],
        &[("socks", 1)],
        &[],
        &[("red", 1), ("socks", 2)],
    ] {
        assert_eq!(cart(wishes.clone(), lines), "ap2_line_items", "{lines:?}");
    }
    // Who takes greedily what fits first, fails here.
    let wishes = json!([wish(2, &["a", "b"]), wish(1, &["a"])]);
    assert_eq!(cart(wishes.clone(), &[("a", 1), ("b", 2)]), "accepted");
    assert_eq!(cart(wishes.clone(), &[("a", 1), ("a", 1), ("b", 1)]), "accepted");
    assert_eq!(cart(wishes.clone(), &[("b", 3)]), "ap2_line_items");
    // What is used twice is there twice.
    assert_eq!(cart(json!([wish(1, &["a"]), wish(1, &["a"])]), &[("a", 1)]), "ap2_line_items");
    assert_eq!(cart(json!([]), &[]), "ap2_constraint_form");
    // A price that was approved is that price; a title is looks.
    let priced = |price: u64| json!([{ "id": "w", "acceptable_items": [{ "id": "a", "title": "Other", "price": price }], "quantity": 1 }]);
    assert_eq!(cart(priced(100), &[("a", 1)]), "accepted");
    assert_eq!(cart(priced(99), &[("a", 1)]), "ap2_line_items");
    let strange = json!([{ "id": "w", "acceptable_items": [{ "id": "a" }], "quantity": 1, "colour": "red" }]);
    assert_eq!(cart(strange, &[("a", 1)]), "ap2_constraint_form");
    let many: Vec<Value> = (0..65).map(|_| wish(1, &["a"])).collect();
    assert_eq!(cart(json!(many), &[("a", 65)]), "ap2_constraint_form");
}
