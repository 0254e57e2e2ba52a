//! Mandates that somebody shows: chains of signed and disclosed JSON. Whatever is changed in one, it counts for what was
//! signed and within what was allowed, once, or not at all.

use std::sync::OnceLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_ap2::{
    Expect, Link, MAX_AGE, Memory, MerchantKey, PaymentMandate, PublicKey, Refused, Root, SKEW, Trust,
    Unreserved, family_of, verify_checkout, verify_payment,
};
use farthing_primitives::Timestamp;
use farthing_wire::Json;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::is_short;
use crate::edit::edit;
use crate::input::Input;

const NOW: u64 = 1_800_000_000;
/// The most that the open mandate allows, in cents.
const MOST: u64 = 20_000;

const CHECKOUT: &str = include_str!("../../../../vectors/ap2/checkout-chain.txt");
const PAYMENT: &str = include_str!("../../../../vectors/ap2/payment-chain.txt");
/// The keys that the published chains fit: `vectors/ap2/README.md`.
const PUBLISHED: [&str; 2] = [
    r#"{"kty":"EC","crv":"P-256","x":"vxIBPL4N3Xghx0iqkf8L2esJ5_OldPSAK1zVOmG9s8o","y":"ZjcIzzkmC37FTqV5hXVQwL2cj5BdqxTNcUjqp8p_xbU"}"#,
    r#"{"kty":"EC","crv":"P-256","x":"DP3xRGTVERecoZtBGYCbe0KHodLOd1gC07Ymxp8rjq0","y":"R8-rnvxa3M6HetLYH8NYR4gu_Dgh25E5tQG_GnpjcjE"}"#,
];

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 8 {
        0 => anything(&String::from_utf8_lossy(input.rest())),
        1 => {
            if let Ok((key, kid)) = PublicKey::from_jwk_text(input.rest()) {
                let shown: Value = serde_json::from_slice(data.get(1..).unwrap_or_default()).expect("JSON");
                assert!(shown["d"].is_null() && shown["kty"] == "EC" && shown["crv"] == "P-256");
                assert_eq!(shown["kid"].as_str(), kid.as_deref());
                assert_eq!(PublicKey::from_jwk_text(data.get(1..).unwrap_or_default()), Ok((key, kid)));
            }
        }
        2 | 3 => published(&mut input),
        _ => told(&mut input),
    }
}

/// Two people with keys: who approves, and the agent.
struct Signer {
    pair: EcdsaKeyPair,
    jwk: Value,
    key: PublicKey,
}

fn signers() -> &'static [Signer; 2] {
    static SIGNERS: OnceLock<[Signer; 2]> = OnceLock::new();
    SIGNERS.get_or_init(|| {
        // SHA-256 of "farthing ap2 test key NAME", and its point.
        let made = |private: &str, public: &str| {
            let (private, point) = (hex::decode(private).expect("hex"), hex::decode(public).expect("hex"));
            let (curve, chance) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
            let pair = EcdsaKeyPair::from_private_key_and_public_key(curve, &private, &point, &chance);
            let jwk = json!({ "kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]) });
            let key = PublicKey::from_jwk_text(jwk.to_string().as_bytes()).expect("a key").0;
            Signer { pair: pair.expect("a key"), jwk, key }
        };
        [
            made(
                "5851ed25e561b013736911cca391f4636b4dd30c26faeac9ccecac8d99d67692",
                "047a07eb143b27323a1e58ec586bfe4617d4b54cef5581ccc2f0d02a37384d7989204e285589ea7acf5f3eca32ff69141cb2b9aeeb908d9e3260987695a100cf48",
            ),
            made(
                "de582b412db54afde0cd6e4c6d621c7fd6d86e007c2f440cadc2040576340704",
                "0422530496228a090ab7655931aed6152033dfffa258326bbc042ab53a89439e4c331b1b5c74aef944c9c71d6798c52d9dfd33921b24b651fd1f7149fb4a71131c",
            ),
        ]
    })
}

fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sha256(text: &str) -> String {
    b64(&Sha256::digest(text))
}

impl Signer {
    fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", b64(header.as_bytes()), b64(payload.as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed");
        format!("{signed}.{}", b64(signature.as_ref()))
    }
}

fn roots() -> &'static [Root; 2] {
    static ROOTS: OnceLock<[Root; 2]> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let (published, _) = PublicKey::from_jwk_text(PUBLISHED[0].as_bytes()).expect("a key");
        [signers()[0].key, published].map(|key| Root { key, kid: None, trust: Trust::AgentProvider })
    })
}

fn merchants() -> &'static [MerchantKey; 1] {
    static MERCHANTS: OnceLock<[MerchantKey; 1]> = OnceLock::new();
    MERCHANTS.get_or_init(|| {
        let (key, _) = PublicKey::from_jwk_text(PUBLISHED[1].as_bytes()).expect("a key");
        [MerchantKey { merchant: "merchant_1".to_owned(), kid: None, key }]
    })
}

fn expect<'a>(audience: &'a str, nonce: &'a str, secs: u64) -> Expect<'a> {
    let now = Timestamp::from_secs(secs);
    Expect { roots: roots(), audience, nonce, now, max_age: MAX_AGE, direct: false }
}

fn refused(refused: &Refused) {
    is_short(refused);
    let code = refused.why.code();
    assert!(
        code.starts_with("ap2_")
            && code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    );
}

/// Whatever is shown: nobody signed it whom we trust, so it counts for nothing.
fn anything(chain: &str) {
    let _ = family_of(chain);
    let known = [CHECKOUT.trim_end(), PAYMENT.trim_end()].contains(&chain);
    let expect = expect("merchant", "n", NOW);
    match verify_checkout(chain, &expect, merchants(), None) {
        Ok(mandate) => panic!("{:?} out of nothing", mandate.look()),
        Err(why) => refused(&why),
    }
    let link = Link::Told { transaction_id: "t", open_checkout: None };
    match verify_payment(chain, &expect, link) {
        Ok(mandate) => panic!("{:?} out of nothing", mandate.look()),
        Err(why) => refused(&why),
    }
    assert!(!known || family_of(chain).is_some());
}

/// The published chains, changed in places: what still counts is what was signed.
fn published(input: &mut Input<'_>) {
    const AT: u64 = 1_777_342_380;
    let is_payment = input.flag();
    let good = if is_payment { PAYMENT } else { CHECKOUT };
    let mut bytes = good.as_bytes().to_vec();
    while !input.is_empty() {
        let at = usize::from(input.u16()) % (bytes.len() + 1);
        let end = (at + usize::from(input.byte() % 4)).min(bytes.len());
        let with = input.byte() % 4;
        bytes.splice(at..end, input.take(with.into()).iter().copied());
    }
    let chain = String::from_utf8_lossy(&bytes).into_owned();
    let _ = family_of(&chain);
    if is_payment {
        let of_provider = expect("credential-provider", "a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3", AT);
        let link = Link::Told {
            transaction_id: "NivWhuqfzcvZNapvIEJ2-3tsdQLkiuIcye2g46WVgX8",
            open_checkout: Some("FzLoxbbtgQGYZxoSM2NJYJtkFTSsdfUBoVEQ12k7JN8"),
        };
        match verify_payment(&chain, &of_provider, link) {
            Ok(mandate) => {
                let mandate = mandate.look();
                assert_eq!((mandate.amount.minor, mandate.amount.currency.as_str()), (19_900, "USD"));
                assert!(mandate.payee.id.is_some() && mandate.signed_at.is_some());
            }
            Err(why) => {
                assert!(chain != good, "{why} for the published chain");
                refused(&why);
            }
        }
    } else {
        let of_merchant = expect("merchant", "b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4", AT);
        match verify_checkout(&chain, &of_merchant, merchants(), None) {
            Ok(mandate) => {
                let mandate = mandate.look();
                assert_eq!(mandate.checkout_hash, "NivWhuqfzcvZNapvIEJ2-3tsdQLkiuIcye2g46WVgX8");
                assert_eq!(mandate.merchant.id.as_deref(), Some("merchant_1"));
            }
            Err(why) => {
                assert!(chain != good, "{why} for the published chain");
                refused(&why);
            }
        }
    }
}

fn shop(n: u8) -> Value {
    json!({ "id": format!("merchant_{n}"), "name": format!("Shop {n}") })
}

/// What the user approves, and what the agent makes of it.
fn templates() -> &'static [Json; 4] {
    static TEMPLATES: OnceLock<[Json; 4]> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let open = |more: Value| {
            let mut constraints = vec![
                json!({ "type": "payment.reference", "conditional_transaction_id": "open-checkout" }),
                json!({ "type": "payment.amount_range", "currency": "USD", "max": MOST, "min": 100 }),
                json!({ "type": "payment.allowed_payees", "allowed": [shop(1), shop(2)] }),
            ];
            constraints.extend(more.as_array().expect("a list").clone());
            json!({
                "vct": "mandate.payment.open.1",
                "constraints": constraints,
                "cnf": { "jwk": signers()[1].jwk },
                "iat": NOW - 600,
                "exp": NOW + 3000,
            })
        };
        let closed = json!({
            "vct": "mandate.payment.1",
            "transaction_id": "transaction",
            "payee": shop(1),
            "payment_amount": { "amount": 19_900, "currency": "USD" },
            "payment_instrument": { "id": "card-1", "type": "card", "description": "Card 4242" },
        });
        let more = json!([
            { "type": "payment.budget", "currency": "USD", "max": 30_000 },
            { "type": "payment.agent_recurrence", "frequency": "DAILY", "max_occurrences": 3 },
            { "type": "payment.allowed_payment_instruments", "allowed": [{ "id": "card-1", "type": "card" }] },
            { "type": "payment.execution_date", "not_after": "2027-02-01T00:00:00Z" },
        ]);
        let hop = json!({ "iat": NOW - 5, "aud": "credential-provider", "nonce": "nonce-p" });
        [open(json!([])), open(more), closed, hop].map(|value| {
            const ROOMY: farthing_wire::Limits = farthing_wire::Limits { bytes: 1 << 16, values: 1 << 12, members: 64 };
            farthing_wire::json::parse(value.to_string().as_bytes(), ROOMY).expect("JSON")
        })
    })
}

/// One SD-JWT: the mandate is disclosed in its place.
fn sd_jwt(by: &Signer, typ: &str, payload: &str, mandate: &Json) -> String {
    let disclosure = b64(format!(r#"["salt",{mandate}]"#).as_bytes());
    let inside = payload.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or_default();
    let comma = if inside.is_empty() { "" } else { "," };
    let payload = format!(r#"{{{inside}{comma}"delegate_payload":[{{"...":"{}"}}]}}"#, sha256(&disclosure));
    let jwt = by.sign(&format!(r#"{{"alg":"ES256","typ":"{typ}"}}"#), &payload);
    format!("{jwt}~{disclosure}~")
}

/// Mandates that are signed as a script changed them: the one that is accepted stays within the other.
fn told(input: &mut Input<'_>) {
    let [plain, rich, closed, hop] = templates();
    let which = input.byte();
    let open = if which & 1 == 0 { plain } else { rich };
    let script = input.blob();
    let open = edit(open.clone(), &mut Input::new(script));
    let script = input.blob();
    let hop = edit(hop.clone(), &mut Input::new(script));
    let closed = edit(closed.clone(), input);
    let [user, agent] = signers();
    let root = sd_jwt(user, "example+sd-jwt", "{}", &open);
    let hop = hop.to_string();
    let bound = match hop.strip_suffix('}') {
        Some("{") => format!(r#"{{"sd_hash":"{}"}}"#, sha256(&root)),
        Some(start) if hop.starts_with('{') => format!(r#"{start},"sd_hash":"{}"}}"#, sha256(&root)),
        _ => return,
    };
    let by = if which & 2 == 0 { agent } else { user };
    let leaf = sd_jwt(by, "kb+sd-jwt", &bound, &closed);
    let chain = format!("{root}~{leaf}");
    let _ = family_of(&chain);
    let expect = expect("credential-provider", "nonce-p", NOW);
    let link = || Link::Told { transaction_id: "transaction", open_checkout: Some("open-checkout") };
    let judge = || verify_payment(&chain, &expect, link());
    let (first, second) = (judge(), judge());
    assert_eq!(first.is_ok(), second.is_ok());
    match (first, second) {
        (Ok(first), Ok(second)) => {
            assert!(which & 2 == 0, "somebody else's key closed it");
            within(&first, &open, &closed);
            for change in [("other", "nonce-p", NOW), ("credential-provider", "other", NOW)] {
                let other = self::expect(change.0, change.1, change.2);
                assert!(verify_payment(&chain, &other, link()).is_err(), "it answers another question");
            }
            let elsewhere = Link::Told { transaction_id: "another", open_checkout: Some("open-checkout") };
            assert!(verify_payment(&chain, &expect, elsewhere).is_err(), "it pays for another checkout");
            let seen = Memory::default();
            let now = Timestamp::from_secs(NOW);
            if first.reserve(&seen, now).is_ok() {
                assert!(second.reserve(&seen, now.plus(Duration::from_secs(1))).is_err(), "used twice");
            }
        }
        (Err(why), _) => {
            refused(&why);
            assert!(
                which != 0 || !script.is_empty() || !is_as_written(&open, &closed),
                "{why} for a good chain"
            );
        }
        (Ok(_), Err(_)) => unreachable!("both or neither"),
    }
}

fn is_as_written(open: &Json, closed: &Json) -> bool {
    let [plain, _, good, _] = templates();
    open == plain && closed == good
}

/// Read by another reader, an accepted payment is within what was allowed.
fn within(mandate: &Unreserved<PaymentMandate>, open: &Json, closed: &Json) {
    let read = |json: &Json| serde_json::from_str::<Value>(&json.to_string()).expect("JSON");
    let (open, closed, mandate) = (read(open), read(closed), mandate.look());
    assert_eq!(closed["payment_amount"]["amount"].as_u64(), Some(mandate.amount.minor));
    assert_eq!(closed["payment_amount"]["currency"].as_str(), Some(mandate.amount.currency.as_str()));
    assert_eq!(closed["payee"]["id"].as_str(), mandate.payee.id.as_deref());
    assert_eq!(closed["transaction_id"], "transaction");
    let skew = SKEW.as_secs();
    for claims in [&open, &closed] {
        assert!(claims["exp"].as_u64().is_none_or(|at| at > NOW - skew), "ended");
        assert!(claims["nbf"].as_u64().is_none_or(|at| at <= NOW + skew), "not begun");
    }
    let constraints = open["constraints"].as_array().expect("a list");
    assert!(constraints.iter().any(|one| one["type"] == "payment.reference"));
    for one in constraints {
        match one["type"].as_str().expect("a type") {
            "payment.amount_range" => {
                assert_eq!(one["currency"].as_str(), Some(mandate.amount.currency.as_str()));
                let least = one["min"].as_u64().unwrap_or(0);
                assert!((least..=one["max"].as_u64().expect("a number")).contains(&mandate.amount.minor));
            }
            "payment.allowed_payees" => {
                let allowed = one["allowed"].as_array().expect("a list");
                assert!(allowed.iter().any(|payee| payee["id"].as_str() == mandate.payee.id.as_deref()));
            }
            "payment.allowed_payment_instruments" => {
                let allowed = one["allowed"].as_array().expect("a list");
                assert!(
                    allowed.iter().any(|card| card["id"].as_str() == Some(mandate.instrument.id.as_str()))
                );
            }
            "payment.budget" => {
                assert_eq!(one["currency"].as_str(), Some(mandate.amount.currency.as_str()));
            }
            _ => {}
        }
    }
    // What the open mandate says of the transaction, the closed one says.
    for name in ["transaction_id", "payee", "payment_amount", "payment_instrument", "pisp", "execution_date"]
    {
        assert!(open[name].is_null() || open[name] == closed[name], "{name} is another");
    }
}

/// The published chains, for seeds.
pub(crate) fn chains() -> [&'static str; 2] {
    [CHECKOUT, PAYMENT]
}
