//! Signatures, bindings, disclosures, times, limits.

use std::time::Duration;

use farthing_primitives::Timestamp;
use serde_json::{Value, json};

use super::kit::*;
use crate::{Family, MAX_CHAIN_BYTES, MAX_DISCLOSURES, MAX_HOPS, family_of, verify_checkout, verify_payment};

#[test]
fn a_checkout_and_its_payment_say_what_they_authorize() {
    let pair = Pair::new();
    let checkout = as_merchant(&pair.checkout.join("~")).unwrap();
    let checkout = checkout.look();
    assert_eq!(checkout.merchant.name, "Shop 1");
    assert_eq!(checkout.checkout_hash, sha256(&pair.jwt));
    assert_eq!(checkout.lines[0].id, "shoe-red");
    assert_eq!(checkout.total.as_ref().unwrap().minor, 19_900);
    assert_eq!(checkout.reference, sha256(&pair.checkout[1]));
    let payment = pair.judged().unwrap();
    let payment = payment.look();
    assert_eq!(payment.amount.to_string(), "19900 USD (minor units)");
    assert_eq!(payment.payee.id.as_deref(), Some("merchant_1"));
    assert_eq!(payment.instrument.id, "card-1");
    assert_eq!(payment.transaction_id, checkout.checkout_hash);
    let used: Vec<&str> = payment.constraints.iter().map(|used| used.constraint).collect();
    assert_eq!(used, ["payment.reference", "payment.amount_range", "payment.allowed_payees"]);
    assert_eq!(family_of(&pair.payment.chain()), Some(Family::Payment));
    assert_eq!(family_of(&pair.checkout.join("~")), Some(Family::Checkout));
    assert_eq!(family_of("~~"), None);
}

#[test]
fn whatever_character_of_a_chain_is_changed_it_is_refused() {
    let pair = Pair::new();
    let (chain, checkout, roots) = (pair.payment.chain(), pair.checkout.join("~"), roots());
    let told = (sha256(&pair.jwt), sha256(&pair.checkout[0]));
    let link = crate::Link::Told { transaction_id: &told.0, open_checkout: Some(&told.1) };
    let of_provider = expect(&roots, "credential-provider", "nonce-p");
    assert_eq!(code(verify_payment(&chain, &of_provider, link)), "accepted");
    // The longer one by a prime: every kind of place is met.
    for (text, step) in [(&chain, 1), (&checkout, 7)] {
        for at in (0..text.len()).step_by(step) {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            let verdict = match text == &chain {
                true => code(verify_payment(&changed, &of_provider, link)),
                false => code(as_merchant(&changed)),
            };
            assert_ne!(verdict, "accepted", "at {at}");
        }
    }
}

#[test]
fn a_hop_is_bound_to_the_one_before_it() {
    let pair = Pair::new();
    assert_eq!(pair.code(|story| story.leaf().binding = Some("issuer_jwt_hash")), "accepted");
    assert_eq!(pair.code(|story| story.leaf().binding = None), "ap2_binding_claim");
    assert_eq!(pair.code(|story| story.leaf().payload["issuer_jwt_hash"] = json!("x")), "ap2_binding_claim");
    // The same agent, and another open mandate of the same user.
    let (one, other) = (pair.payment.hops(), pair.payment.hops());
    let mixed = [one[0].clone(), other[1].clone()].join("~");
    assert_eq!(code(as_provider(&mixed, &pair.checkout.join("~"))), "ap2_binding");
    // With sd_hash nothing can be withheld afterwards; with the other, what does not decide can.
    let mut story = checkout_story(&pair.jwt);
    let blue = Sd::default().element(json!({ "id": "shoe-blue", "title": "Blue" }));
    let mut sd = story.root().sd.clone();
    sd.element(json!({ "id": "more", "title": "More" }));
    story.root().sd.disclosures.push(sd.disclosures[2].clone());
    story.root().constraint(0)["items"][0]["acceptable_items"][1] =
        json!({ "...": sha256(&sd.disclosures[2]) });
    drop(blue);
    for (binding, expected) in [("sd_hash", "ap2_binding"), ("issuer_jwt_hash", "accepted")] {
        story.leaf().binding = Some(binding);
        let hops = story.hops();
        let short = hops[0].replace(&format!("{}~", sd.disclosures[2]), "");
        assert_ne!(short, hops[0]);
        assert_eq!(code(as_merchant(&[short, hops[1].clone()].join("~"))), expected);
        assert_eq!(code(as_merchant(&hops.join("~"))), "accepted");
    }
}

#[test]
fn only_a_trusted_key_begins_a_chain_and_only_what_it_is_trusted_for() {
    let pair = Pair::new();
    assert_eq!(pair.code(|story| story.root().by = Who::Stranger), "ap2_signature");
    assert_eq!(pair.code(|story| story.root().header["kid"] = json!("provider-2")), "ap2_untrusted_root");
    assert_eq!(pair.code(|story| story.root().header["kid"] = json!("issuer-1")), "ap2_untrusted_root");
    assert_eq!(pair.code(|story| story.root().header["kid"] = json!(1)), "ap2_header");
    // A certificate is nobody's word here.
    let x5c = json!({ "alg": "ES256", "typ": "example+sd-jwt", "x5c": ["MIIB"] });
    assert_eq!(
        pair.code(|story| {
            story.root().by = Who::Stranger;
            story.root().header = x5c;
        }),
        "ap2_signature"
    );
    for typ in [json!(null), json!("JWT"), json!("kb+sd-jwt"), json!("kb-sd-jwt"), json!("sd-jwt")] {
        let verdict = pair.code(|story| story.root().header["typ"] = typ);
        assert!(["ap2_typ", "ap2_header"].contains(&verdict), "{verdict}");
    }
    assert_eq!(pair.code(|story| story.leaf().header["typ"] = json!("example+sd-jwt")), "ap2_typ");
    assert_eq!(pair.code(|story| story.leaf().header["typ"] = json!("kb-sd-jwt")), "accepted");
    for alg in ["none", "HS256", "ES384", "EdDSA", "es256"] {
        assert_eq!(pair.code(|story| story.root().header["alg"] = json!(alg)), "ap2_algorithm");
        assert_eq!(pair.code(|story| story.leaf().header["alg"] = json!(alg)), "ap2_algorithm");
    }
    assert_eq!(pair.code(|story| story.leaf().header["crit"] = json!(["exp"])), "ap2_header");
}

/// A credential, and what its holder signs.
fn by_credential(change: impl FnOnce(&mut Story)) -> &'static str {
    let pair = Pair::new();
    let mut story = pair.payment.clone();
    let mut leaf = story.drafts.pop().unwrap();
    leaf.mandate()["exp"] = json!(NOW + 60);
    let mut credential = Draft::root(json!({}), Sd::default());
    credential.mandate = None;
    credential.header["kid"] = json!("issuer-1");
    credential.header["typ"] = json!("dc+sd-jwt");
    let last_four = Sd::default().member("card_last_four", json!("4242"));
    credential.payload = json!({
        "vct": "com.example.card", "iat": NOW - 9000, "exp": NOW + 9000, "_sd": [last_four],
        "cnf": { "jwk": Who::Agent.jwk() },
    });
    let mut story = Story { drafts: vec![credential, leaf] };
    change(&mut story);
    code(as_provider(&story.chain(), &pair.checkout.join("~")))
}

#[test]
fn the_holder_of_a_credential_approves_a_payment() {
    assert_eq!(by_credential(|_| {}), "accepted");
    assert_eq!(
        by_credential(|story| story.root().payload["vct"] = json!("com.example.library")),
        "ap2_untrusted_root"
    );
    assert_eq!(by_credential(|story| story.root().payload["exp"] = json!(NOW - 61)), "ap2_expired");
    assert_eq!(by_credential(|story| story.root().payload["status"] = json!({})), "ap2_status_unchecked");
    assert_eq!(by_credential(|story| story.leaf().by = Who::Stranger), "ap2_signature");
    let keyless = |story: &mut Story| drop(story.root().payload.as_object_mut().unwrap().remove("cnf"));
    assert_eq!(by_credential(keyless), "ap2_cnf_missing");
    assert_eq!(by_credential(|story| drop(story.drafts.pop())), "ap2_mandate_order");
}

#[test]
fn a_mandate_that_answers_no_nonce_counts_only_where_it_is_asked_for() {
    let jwt = checkout_jwt(&checkout());
    let mut story = checkout_story(&jwt);
    let leaf = story.drafts.pop().unwrap();
    let closed = Draft { mandate: leaf.mandate, sd: leaf.sd, ..story.drafts.remove(0) };
    let chain = Story { drafts: vec![closed] }.chain();
    assert_eq!(code(as_merchant(&chain)), "ap2_unbound");
    let roots = roots();
    let direct = crate::Expect { direct: true, ..expect(&roots, "merchant", "nonce-m") };
    let judged = verify_checkout(&chain, &direct, &merchants(), Some(&jwt)).unwrap();
    assert!(judged.look().opens.is_empty());
    assert_eq!(code(verify_checkout(&chain, &direct, &merchants(), Some("other"))), "ap2_checkout_hash");
}

#[test]
fn each_of_several_open_mandates_binds() {
    let pair = Pair::new();
    let reference = pair.payment.drafts[0].mandate.as_ref().unwrap()["constraints"][0].clone();
    let between = |max: u64| {
        json!({ "vct": "mandate.payment.open.1", "constraints":
            [reference, { "type": "payment.amount_range", "currency": "USD", "max": max }] })
    };
    assert_eq!(pair.code(|story| delegate(story, between(19_900))), "accepted");
    assert_eq!(pair.code(|story| delegate(story, between(19_899))), "ap2_amount_range");
    let first = |story: &mut Story| {
        delegate(story, between(90_000));
        story.root().constraint(1)["max"] = json!(19_899);
    };
    assert_eq!(pair.code(first), "ap2_amount_range");
    let unknown = |story: &mut Story| {
        delegate(story, between(19_900));
        story.drafts[1].add_constraint(json!({ "type": "new" }));
    };
    assert_eq!(pair.code(unknown), "ap2_unknown_constraint");
    let typ = |story: &mut Story| {
        delegate(story, between(19_900));
        story.drafts[1].header["typ"] = json!("kb+sd-jwt");
    };
    assert_eq!(pair.code(typ), "ap2_typ");
    let no_nonce = |story: &mut Story| {
        delegate(story, between(19_900));
        story.drafts[1].payload.as_object_mut().unwrap().remove("nonce");
    };
    assert_eq!(pair.code(no_nonce), "ap2_claim");
    let closed_between = |story: &mut Story| {
        delegate(story, between(19_900));
        story.drafts[1].mandate()["vct"] = json!("mandate.payment.1");
    };
    assert_eq!(pair.code(closed_between), "ap2_mandate_order");
    // The sub-agent does not sign for the agent.
    let skipped = |story: &mut Story| {
        delegate(story, between(19_900));
        story.leaf().by = Who::Agent;
    };
    assert_eq!(pair.code(skipped), "ap2_signature");
}

#[test]
fn a_mandate_is_of_its_kind_and_version_to_the_letter() {
    let pair = Pair::new();
    for vct in [
        "mandate.payment",
        "mandate.payment.2",
        "mandate.payment.1 ",
        "mandate.checkout.1",
        "Mandate.payment.1",
    ] {
        assert_eq!(pair.code(|story| story.leaf().mandate()["vct"] = json!(vct)), "ap2_vct", "{vct}");
    }
    assert_eq!(
        pair.code(|story| story.leaf().mandate()["vct"] = json!("mandate.payment.open.1")),
        "ap2_mandate_order"
    );
    // A checkout shown as a payment.
    assert_eq!(code(as_merchant(&pair.payment.chain())), "ap2_vct");
}

#[test]
fn time_has_edges() {
    let pair = Pair::new();
    let exp = |secs: u64| pair.code(|story| story.root().mandate()["exp"] = json!(secs));
    assert_eq!(exp(NOW - 59), "accepted");
    assert_eq!(exp(NOW - 60), "ap2_expired");
    let closed = |name: &str, value: Value| pair.code(|story| story.leaf().mandate()[name] = value);
    assert_eq!(closed("exp", json!(NOW - 60)), "ap2_expired");
    assert_eq!(closed("exp", json!(1.5)), "ap2_claim");
    assert_eq!(closed("exp", json!("2030")), "ap2_claim");
    assert_eq!(closed("nbf", json!(NOW + 60)), "accepted");
    assert_eq!(closed("nbf", json!(NOW + 61)), "ap2_not_yet_valid");
    let iat = |secs: u64| pair.code(|story| story.leaf().payload["iat"] = json!(secs));
    assert_eq!(iat(NOW + 60), "accepted");
    assert_eq!(iat(NOW + 61), "ap2_not_yet_valid");
    assert_eq!(iat(NOW - 3660), "accepted");
    assert_eq!(iat(NOW - 3661), "ap2_too_old");
    let without = |story: &mut Story| drop(story.leaf().payload.as_object_mut().unwrap().remove("iat"));
    assert_eq!(pair.code(without), "ap2_claim");
    assert_eq!(pair.code(|story| story.root().payload["exp"] = json!(NOW - 60)), "ap2_expired");
    assert_eq!(pair.code(|story| story.root().mandate()["status"] = json!({})), "ap2_status_unchecked");
    // A checkout ends, too.
    let mut cart = checkout();
    cart["expires_at"] = json!("2027-01-15T07:59:00Z");
    assert_eq!(code(as_merchant(&checkout_story(&checkout_jwt(&cart)).chain())), "ap2_expired");
    cart["expires_at"] = json!("2027-01-15T08:30:00Z");
    assert_eq!(code(as_merchant(&checkout_story(&checkout_jwt(&cart)).chain())), "accepted");
    let (roots, chain) = (roots(), checkout_story(&checkout_jwt(&cart)).chain());
    let mut later = expect(&roots, "merchant", "nonce-m");
    later.now = later.now.plus(Duration::from_secs(3000));
    later.max_age = Duration::from_secs(9000);
    assert_eq!(code(verify_checkout(&chain, &later, &merchants(), None)), "ap2_expired");
}

#[test]
fn disclosures_are_those_that_were_signed() {
    let pair = Pair::new();
    let mut more = Sd::default();
    more.element(json!({ "id": "x" }));
    let extra = more.disclosures.remove(0);
    assert_eq!(pair.code(|story| story.root().sd.disclosures.push(extra)), "ap2_unused_disclosure");
    let twice = |story: &mut Story| {
        let again = story.root().sd.disclosures[0].clone();
        story.root().sd.disclosures.push(again);
    };
    assert_eq!(pair.code(twice), "ap2_unused_disclosure");
    let same_digest = |story: &mut Story| {
        let place = story.root().constraint(2)["allowed"][0].clone();
        story.root().constraint(2)["allowed"][1] = place;
    };
    assert_eq!(pair.code(same_digest), "ap2_repeated_digest");
    // A member's disclosure where an element is meant, and the other way round.
    let member = |story: &mut Story| {
        let mut sd = Sd::default();
        let digest = sd.member("id", json!("merchant_1"));
        story.root().constraint(2)["allowed"][0] = json!({ "...": digest });
        story.root().sd = sd;
    };
    assert_eq!(pair.code(member), "ap2_disclosure");
    let element = |story: &mut Story| {
        let mut sd = Sd::default();
        let place = sd.element(json!("x"));
        story.leaf().mandate()["_sd"] = json!([place["..."]]);
        story.leaf().sd = sd;
    };
    assert_eq!(pair.code(element), "ap2_disclosure");
    // It takes the place of what is said openly.
    let over = |story: &mut Story| {
        let mut sd = Sd::default();
        let digest = sd.member("payment_amount", json!({ "amount": 1, "currency": "USD" }));
        story.leaf().mandate()["_sd"] = json!([digest]);
        story.leaf().sd = sd;
    };
    assert_eq!(pair.code(over), "ap2_disclosure");
    for name in ["_sd", "..."] {
        let reserved = |story: &mut Story| {
            let mut sd = Sd::default();
            let digest = sd.member(name, json!([]));
            story.leaf().mandate()["_sd"] = json!([digest]);
            story.leaf().sd = sd;
        };
        assert_eq!(pair.code(reserved), "ap2_disclosure");
    }
    let beside = |story: &mut Story| story.root().constraint(2)["allowed"][1]["id"] = json!("merchant_1");
    assert_eq!(pair.code(beside), "ap2_disclosure");
    assert_eq!(pair.code(|story| story.root().mandate()["_sd"] = json!("x")), "ap2_disclosure");
    assert_eq!(pair.code(|story| story.root().payload["_sd_alg"] = json!("md5")), "ap2_hash_algorithm");
    for bad in ["[]", "[1,2]", r#"["s"]"#, r#"["s",1,2]"#, r#"["","x"]"#, r#"["s","a","b","c"]"#, "{}"] {
        let malformed = |story: &mut Story| story.root().sd.disclosures.push(b64(bad.as_bytes()));
        assert_eq!(pair.code(malformed), "ap2_disclosure", "{bad}");
    }
    assert_eq!(pair.code(|story| story.root().sd.disclosures.push("=".to_owned())), "ap2_base64");
    // Two readers would read two things.
    let both = b64(br#"["s",{"a":1,"a":2}]"#);
    assert_eq!(pair.code(|story| story.root().sd.disclosures.push(both)), "ap2_json");
}

#[test]
fn constraints_and_ends_cannot_be_withheld() {
    let pair = Pair::new();
    let hidden_constraint = |story: &mut Story| {
        let limit =
            Sd::default().element(json!({ "type": "payment.amount_range", "currency": "USD", "max": 1 }));
        story.root().add_constraint(limit);
    };
    assert_eq!(pair.code(hidden_constraint), "ap2_withheld");
    let shown_constraint = |story: &mut Story| {
        let limit = json!({ "type": "payment.amount_range", "currency": "USD", "max": 1 });
        let limit = story.root().sd.element(limit);
        story.root().add_constraint(limit);
    };
    assert_eq!(pair.code(shown_constraint), "ap2_amount_range");
    let hidden_max = |story: &mut Story| {
        let digest = Sd::default().member("min", json!(90_000));
        story.root().constraint(1)["_sd"] = json!([digest]);
    };
    assert_eq!(pair.code(hidden_max), "ap2_withheld");
    let hidden_end = |story: &mut Story| {
        let digest = Sd::default().member("exp", json!(NOW - 9000));
        story.leaf().mandate()["_sd"] = json!([digest]);
    };
    assert_eq!(pair.code(hidden_end), "ap2_withheld");
    let hidden_outside = |story: &mut Story| {
        let digest = Sd::default().member("exp", json!(NOW - 9000));
        story.root().payload["_sd"] = json!([digest]);
    };
    assert_eq!(pair.code(hidden_outside), "ap2_withheld");
    // The schema makes an exception of these.
    let hidden_pisp = |story: &mut Story| {
        let mut sd = Sd::default();
        let pisp = json!({ "legal_name": "A", "brand_name": "B", "domain_name": "c.example" });
        let other = sd.element(pisp.clone());
        story.root().add_constraint(json!({ "type": "payment.allowed_pisps", "allowed": [pisp, other] }));
        story.leaf().mandate()["pisp"] = pisp;
    };
    assert_eq!(pair.code(hidden_pisp), "ap2_withheld");
}

#[test]
fn exactly_one_mandate_of_a_signature_is_shown() {
    let pair = Pair::new();
    let with = |mandates: Value, disclosures: &[String]| {
        let mut story = pair.payment.clone();
        story.root().mandate = None;
        story.root().payload["delegate_payload"] = mandates;
        story.root().sd.disclosures.extend_from_slice(disclosures);
        code(as_provider(&story.chain(), &pair.checkout.join("~")))
    };
    let open = pair.payment.drafts[0].mandate.clone().unwrap();
    let mut sd = Sd { disclosures: Vec::new(), ..pair.payment.drafts[0].sd.clone() };
    let (this, other) = (sd.element(open.clone()), sd.element(json!({ "vct": "mandate.checkout.open.1" })));
    assert_eq!(with(json!([this, other]), &sd.disclosures[..1]), "accepted");
    assert_eq!(with(json!([this, other]), &sd.disclosures), "ap2_delegate_payload");
    assert_eq!(
        with(json!([this, { "vct": "mandate.payment.open.1" }]), &sd.disclosures[..1]),
        "ap2_delegate_payload"
    );
    assert_eq!(with(json!([open]), &[]), "accepted");
    // What is shown belongs to the mandate, so without the mandate it belongs to nothing.
    assert_eq!(with(json!([this]), &[]), "ap2_unused_disclosure");
    let none = |mandates: Value| {
        pair.code(|story| {
            story.root().mandate = None;
            story.root().sd.disclosures.clear();
            story.root().payload["delegate_payload"] = mandates;
        })
    };
    assert_eq!(none(json!([])), "ap2_delegate_payload");
    assert_eq!(none(json!([this])), "ap2_delegate_payload");
    assert_eq!(none(json!([this["..."]])), "ap2_delegate_payload");
    assert_eq!(none(json!({ "a": 1 })), "ap2_delegate_payload");
    assert_eq!(pair.code(|story| story.leaf().mandate = None), "ap2_delegate_payload");
}

#[test]
fn other_algorithms_for_digests_are_those_of_the_token() {
    let jwt = checkout_jwt(&checkout());
    let mut story = checkout_story(&jwt);
    story.leaf().payload["_sd_alg"] = json!("sha-512");
    let mut sd = Sd { wide: true, ..Sd::default() };
    let digest = sd.member("checkout_jwt", json!(jwt));
    story.leaf().sd = sd;
    story.leaf().mandate()["_sd"] = json!([digest]);
    // By the wrong algorithm.
    assert_eq!(code(as_merchant(&story.chain())), "ap2_checkout_hash");
    story.leaf().mandate()["checkout_hash"] = json!(sha512(&jwt));
    let hops = story.hops();
    assert_eq!(code(as_merchant(&hops.join("~"))), "accepted");
    // The payment names the checkout by its own algorithm.
    let payment = payment_story(&jwt, &hops[0]);
    assert_eq!(code(as_provider(&payment.chain(), &hops.join("~"))), "accepted");
}

#[test]
fn a_chain_has_one_form_and_limits() {
    let pair = Pair::new();
    let (chain, checkout) = (pair.payment.chain(), pair.checkout.join("~"));
    let judged = |text: String| code(as_provider(&text, &checkout));
    for text in [
        String::new(),
        "~".to_owned(),
        "~~".to_owned(),
        format!("{chain}~"),
        format!("~{chain}"),
        chain.replace("~~", "~~~"),
        chain.replace("~~", "~"),
        chain.trim_end_matches('~').to_owned(),
        format!("{chain}{}", Who::Agent.sign(&json!({ "alg": "ES256", "typ": "kb+jwt" }), &json!({}))),
        format!(" {chain}"),
        format!("{chain}\n"),
        chain.split("~~").next().unwrap().to_owned() + "~",
    ] {
        assert_ne!(judged(text.clone()), "accepted", "{text:.20}");
    }
    assert_eq!(judged("a".repeat(MAX_CHAIN_BYTES + 1)), "ap2_too_long");
    assert_eq!(judged("a~~".repeat(MAX_HOPS)), "ap2_too_many_hops");
    let many = |story: &mut Story| {
        for _ in 0..MAX_DISCLOSURES {
            story.root().sd.element(json!(1));
        }
    };
    assert_eq!(pair.code(many), "ap2_too_many_disclosures");
    let deep = (0..15).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(pair.code(|story| story.leaf().mandate()["risk_data"] = deep), "ap2_too_deep");
    let constraint = json!({ "type": "payment.amount_range", "currency": "USD", "max": 90_000 });
    let many = |story: &mut Story| (0..30).for_each(|_| story.root().add_constraint(constraint.clone()));
    assert_eq!(pair.code(many), "ap2_member");
}

#[test]
fn a_chain_that_is_an_inch_off_never_panics() {
    use proptest::prelude::*;
    let pair = Pair::new();
    let (chain, roots) = (pair.payment.chain(), roots());
    let told = (sha256(&pair.jwt), sha256(&pair.checkout[0]));
    let edit = (0..chain.len(), 0..40_usize, prop::collection::vec(any::<u8>(), 0..20));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(500));
    runner
        .run(&edit, |(at, cut, put)| {
            let mut bytes = chain.clone().into_bytes();
            let end = (at + cut).min(bytes.len());
            bytes.splice(at..end, put);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let link = crate::Link::Told { transaction_id: &told.0, open_checkout: Some(&told.1) };
            let judged = verify_payment(&text, &expect(&roots, "credential-provider", "nonce-p"), link);
            prop_assert_eq!(judged.is_ok(), text == chain);
            family_of(&text);
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_moment_that_the_tests_speak_of() {
    assert_eq!(Timestamp::from_secs(NOW).to_string(), "2027-01-15T08:00:00.000Z");
}
