//! Once is once.

use farthing_primitives::Timestamp;
use serde_json::{Value, json};

use super::kit::*;
use crate::{Memory, ReserveError, Unreserved};

fn reserve<T: std::fmt::Debug>(seen: &Memory, mandate: Unreserved<T>, at: &str) -> &'static str {
    let now: Timestamp = at.parse::<farthing_wire::mpp::WireTime>().unwrap().at();
    match mandate.reserve(seen, now) {
        Ok(_) => "accepted",
        Err(ReserveError::Refused(refused)) => refused.why.code(),
        Err(ReserveError::Unknown(never)) => match never {},
    }
}

const T: &str = "2027-01-15T08:00:00Z";

/// The other signature that fits: s becomes n - s.
fn flipped(chain: &str) -> String {
    const N: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    let (before, leaf) = chain.rsplit_once("~~").unwrap();
    let (jwt, disclosures) = leaf.split_once('~').unwrap();
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let mut signature = crate::jose::decode(signature).unwrap();
    let n = hex::decode(N).unwrap();
    let mut borrow = 0_i16;
    for at in (0..32).rev() {
        let digit = i16::from(n[at]) - i16::from(signature[32 + at]) - borrow;
        borrow = i16::from(digit < 0);
        signature[32 + at] = u8::try_from(digit + 256 * borrow).unwrap();
    }
    format!("{before}~~{signed}.{}~{disclosures}", b64(&signature))
}

#[test]
fn attack_63_a_replayed_mandate_is_refused_however_it_is_dressed() {
    let pair = Pair::new();
    let mut story = pair.payment.clone();
    // Bound without the disclosures, so that they can be shown in another order.
    story.leaf().binding = Some("issuer_jwt_hash");
    let (chain, checkout) = (story.chain(), pair.checkout.join("~"));
    let seen = Memory::default();
    let present = |chain: &str| reserve(&seen, as_provider(chain, &checkout).unwrap(), T);
    assert_eq!(present(&chain), "accepted");
    assert_eq!(present(&chain), "ap2_replayed");
    assert_ne!(flipped(&chain), chain);
    assert_eq!(present(&flipped(&chain)), "ap2_replayed");
    let (root, leaf) = chain.split_once("~~").unwrap();
    let mut parts: Vec<&str> = root.split('~').collect();
    parts[1..].reverse();
    let turned = format!("{}~~{leaf}", parts.join("~"));
    assert_ne!(turned, chain);
    assert_eq!(present(&turned), "ap2_replayed");
    // Signed anew by the agent: another closed mandate, and the open one is used up.
    assert_eq!(present(&story.chain()), "ap2_transaction_used");
    // A checkout is approved once, too.
    let approve = |chain: &str| reserve(&seen, as_merchant(chain).unwrap(), T);
    assert_eq!(approve(&checkout), "accepted");
    assert_eq!(approve(&checkout), "ap2_replayed");
    assert_eq!(approve(&flipped(&checkout)), "ap2_replayed");
}

#[test]
fn an_open_mandate_without_a_word_of_repetition_is_used_once() {
    let (one, seen) = (Pair::new(), Memory::default());
    assert_eq!(reserve(&seen, one.judged().unwrap(), T), "accepted");
    // The agent signs for another checkout with the same open mandates: the same signed root, other leaves.
    let roots = (one.checkout[0].clone(), one.payment.hops());
    let seen = Memory::default();
    for expected in ["accepted", "ap2_open_used"] {
        let mut cart = checkout();
        cart["id"] = json!(expected);
        let jwt = checkout_jwt(&cart);
        let leaf = checkout_story(&jwt).leaf().signed(Some(&roots.0));
        let checkout = [roots.0.clone(), leaf].join("~");
        let leaf = payment_story(&jwt, &roots.0).leaf().signed(Some(&roots.1[0]));
        let payment = [roots.1[0].clone(), leaf].join("~");
        assert_eq!(reserve(&seen, as_provider(&payment, &checkout).unwrap(), T), expected);
    }
}

#[test]
fn one_checkout_has_one_name_by_whatever_algorithm_it_is_named() {
    let pair = Pair::new();
    let jwt = checkout_jwt(&checkout());
    let mut story = pair.payment.clone();
    let often = json!({ "type": "payment.agent_recurrence", "frequency": "ON_DEMAND" });
    story.root().add_constraint(often);
    let root = story.hops().remove(0);
    let leaf = checkout_story(&jwt).leaf().signed(Some(&pair.checkout[0]));
    let checkout = [pair.checkout[0].clone(), leaf].join("~");
    let payment = |wide: bool| {
        let mut story = payment_story(&jwt, &pair.checkout[0]);
        if wide {
            story.leaf().payload["_sd_alg"] = json!("sha-512");
            story.leaf().sd.wide = true;
            story.leaf().mandate()["transaction_id"] = json!(sha512(&jwt));
        }
        [root.clone(), story.leaf().signed(Some(&root))].join("~")
    };
    let seen = Memory::default();
    assert_eq!(reserve(&seen, as_provider(&payment(false), &checkout).unwrap(), T), "accepted");
    assert_eq!(reserve(&seen, as_provider(&payment(true), &checkout).unwrap(), T), "ap2_transaction_used");
    // Who does not see the checkout knows it by one name only.
    let (id, open) = (sha512(&jwt), sha256(&pair.checkout[0]));
    let link = crate::Link::Told { transaction_id: &id, open_checkout: Some(&open) };
    let roots = roots();
    let judged =
        crate::verify_payment(&payment(true), &expect(&roots, "credential-provider", "nonce-p"), link);
    assert_eq!(judged.unwrap_err().why.code(), "ap2_hash_algorithm");
}

/// One open mandate, used for a new checkout at each of these times.
fn uses(constraints: &[Value], times: &[(&str, &str)]) {
    let first = Pair::new();
    let mut story = first.payment.clone();
    constraints.iter().for_each(|constraint| story.root().add_constraint(constraint.clone()));
    let root = story.hops().remove(0);
    let seen = Memory::default();
    for (n, (at, expected)) in times.iter().enumerate() {
        let mut cart = checkout();
        cart["id"] = json!(n);
        let jwt = checkout_jwt(&cart);
        let leaf = checkout_story(&jwt).leaf().signed(Some(&first.checkout[0]));
        let checkout = [first.checkout[0].clone(), leaf].join("~");
        let leaf = payment_story(&jwt, &first.checkout[0]).leaf().signed(Some(&root));
        let payment = [root.clone(), leaf].join("~");
        assert_eq!(
            reserve(&seen, as_provider(&payment, &checkout).unwrap(), at),
            *expected,
            "use {n} at {at}"
        );
    }
}

#[test]
fn repetition_keeps_its_distance_and_its_number() {
    let recurrence = |frequency: &str, most: u64| json!({ "type": "payment.agent_recurrence", "frequency": frequency, "max_occurrences": most });
    uses(
        &[recurrence("ON_DEMAND", 2)],
        &[
            ("2027-01-15T08:00:00Z", "accepted"),
            ("2027-01-15T08:00:00Z", "accepted"),
            ("2028-01-15T08:00:00Z", "ap2_recurrence"),
        ],
    );
    uses(
        &[recurrence("DAILY", 9)],
        &[
            ("2027-01-15T08:00:00Z", "accepted"),
            ("2027-01-16T07:59:59.999Z", "ap2_recurrence"),
            ("2027-01-16T08:00:00Z", "accepted"),
            // A clock that went back frees nothing.
            ("2027-01-10T08:00:00Z", "ap2_recurrence"),
        ],
    );
    uses(
        &[recurrence("MONTHLY", 9)],
        &[
            ("2027-01-31T08:00:00Z", "accepted"),
            ("2027-02-28T07:59:59Z", "ap2_recurrence"),
            ("2027-02-28T08:00:00Z", "accepted"),
            ("2027-03-28T08:00:00Z", "accepted"),
        ],
    );
    uses(
        &[recurrence("QUARTERLY", 9)],
        &[
            ("2027-11-30T08:00:00Z", "accepted"),
            ("2028-02-29T07:00:00Z", "ap2_recurrence"),
            ("2028-02-29T08:00:00Z", "accepted"),
        ],
    );
    uses(
        &[recurrence("ANNUALLY", 9)],
        &[
            ("2027-01-15T08:00:00Z", "accepted"),
            ("2028-01-15T07:00:00Z", "ap2_recurrence"),
            ("2028-01-15T08:00:00Z", "accepted"),
        ],
    );
    uses(&[recurrence("DAILY", 0)], &[(T, "ap2_recurrence")]);
    // All of them hold.
    uses(
        &[recurrence("ON_DEMAND", 9), recurrence("WEEKLY", 9)],
        &[
            ("2027-01-15T08:00:00Z", "accepted"),
            ("2027-01-22T07:00:00Z", "ap2_recurrence"),
            ("2027-01-22T08:00:00Z", "accepted"),
        ],
    );
    let bad = |constraint: Value| Pair::new().code(|story| story.root().add_constraint(constraint));
    assert_eq!(
        bad(json!({ "type": "payment.agent_recurrence", "frequency": "HOURLY" })),
        "ap2_constraint_form"
    );
    assert_eq!(bad(json!({ "type": "payment.agent_recurrence" })), "ap2_constraint_form");
}

#[test]
fn a_budget_is_for_all_uses_together() {
    let recurrence = json!({ "type": "payment.agent_recurrence", "frequency": "ON_DEMAND" });
    let budget = |max: u64| json!({ "type": "payment.budget", "max": max, "currency": "USD" });
    uses(&[recurrence.clone(), budget(39_800)], &[(T, "accepted"), (T, "accepted"), (T, "ap2_budget")]);
    uses(&[recurrence, budget(39_799)], &[(T, "accepted"), (T, "ap2_budget")]);
    uses(&[budget(19_900)], &[(T, "accepted"), (T, "ap2_open_used")]);
    uses(&[budget(19_899)], &[(T, "ap2_budget")]);
}

#[test]
fn of_many_that_come_at_once_one_is_the_first() {
    let pair = Pair::new();
    let (chain, checkout, seen) = (pair.payment.chain(), pair.checkout.join("~"), Memory::default());
    let accepted = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| reserve(&seen, as_provider(&chain, &checkout).unwrap(), T)))
            .collect();
        tries.into_iter().filter_map(|one| one.join().ok()).filter(|verdict| *verdict == "accepted").count()
    });
    assert_eq!(accepted, 1);
}
