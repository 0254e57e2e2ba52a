//! Signs chains, also wrong ones.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_primitives::Timestamp;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};

use crate::{
    CheckoutMandate, Expect, Link, MAX_AGE, MerchantKey, PaymentMandate, PublicKey, Refused, Root, Trust,
    Unreserved, verify_checkout, verify_payment,
};

pub const NOW: u64 = 1_800_000_000;

/// SHA-256 of "farthing ap2 test key NAME", modulo the order of the curve, and its point.
const KEYS: [(&str, &str); 5] = [
    (
        "5851ed25e561b013736911cca391f4636b4dd30c26faeac9ccecac8d99d67692",
        "047a07eb143b27323a1e58ec586bfe4617d4b54cef5581ccc2f0d02a37384d7989204e285589ea7acf5f3eca32ff69141cb2b9aeeb908d9e3260987695a100cf48",
    ),
    (
        "de582b412db54afde0cd6e4c6d621c7fd6d86e007c2f440cadc2040576340704",
        "0422530496228a090ab7655931aed6152033dfffa258326bbc042ab53a89439e4c331b1b5c74aef944c9c71d6798c52d9dfd33921b24b651fd1f7149fb4a71131c",
    ),
    (
        "eb17ade712850f946db094689592eeb58721a85587a33bfa59540e59170d9f57",
        "04d583a0ee04d51fd9805dd52c58dd7605192e40c3f958ea7305348ebe228b8b8dfb25557dbaa59a8fa2f15fd99e52b5a5465ecc875b545434c5ce7e49f0d2672b",
    ),
    (
        "66a93f8269eacfd44edfe5a664c29ffbcfc6e899cb59117cb21196dcea689d97",
        "0444a0986747363a552e6ea0ae1b19b803facdec2e101946789dd5ebfaaf5f7d8a49b7ee7f4b582051c00491ffa341ad5b7633061f2f2de04fa8359bba9fdde1fa",
    ),
    (
        "76968a14f20ae378f1f4c9a4a47bd54685be24de6a853182f9d8a5f891e1790e",
        "042711ce9ee4bba0a0048aa9d3f547ae53ebe0eed03c8f7c82e9de32f1a810536e3203d4845ab94f586f924dc50132e446b26032494a445864961ed63ea87fde11",
    ),
];

#[derive(Debug, Clone, Copy)]
pub enum Who {
    Provider,
    Agent,
    Merchant,
    Stranger,
    SubAgent,
}

impl Who {
    fn pair(self) -> (Vec<u8>, Vec<u8>) {
        let (private, public) = KEYS[self as usize];
        (hex::decode(private).unwrap(), hex::decode(public).unwrap())
    }

    pub fn jwk(self) -> Value {
        let (_, point) = self.pair();
        json!({ "kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]) })
    }

    pub fn key(self) -> PublicKey {
        PublicKey::from_jwk_text(self.jwk().to_string().as_bytes()).unwrap().0
    }

    pub fn sign(self, header: &Value, payload: &Value) -> String {
        let (private, public) = self.pair();
        let rng = SystemRandom::new();
        let pair = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &private,
            &public,
            &rng,
        )
        .unwrap();
        let signed =
            format!("{}.{}", b64(header.to_string().as_bytes()), b64(payload.to_string().as_bytes()));
        let signature = pair.sign(&rng, signed.as_bytes()).unwrap();
        format!("{signed}.{}", b64(signature.as_ref()))
    }
}

pub fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn sha256(text: &str) -> String {
    b64(&Sha256::digest(text))
}

pub fn sha512(text: &str) -> String {
    b64(&Sha512::digest(text))
}

/// The disclosures of one SD-JWT, being made.
#[derive(Debug, Clone, Default)]
pub struct Sd {
    pub disclosures: Vec<String>,
    pub salts: usize,
    pub wide: bool,
}

impl Sd {
    fn digest(&mut self, mut parts: Vec<Value>) -> String {
        self.salts += 1;
        parts.insert(0, json!(format!("salt-{}", self.salts)));
        let text = b64(Value::Array(parts).to_string().as_bytes());
        let digest = if self.wide { sha512(&text) } else { sha256(&text) };
        self.disclosures.push(text);
        digest
    }

    pub fn element(&mut self, value: Value) -> Value {
        json!({ "...": self.digest(vec![value]) })
    }

    pub fn member(&mut self, name: &str, value: Value) -> String {
        self.digest(vec![json!(name), value])
    }
}

/// One SD-JWT, not signed yet.
#[derive(Debug, Clone)]
pub struct Draft {
    pub by: Who,
    pub header: Value,
    /// All but `delegate_payload`.
    pub payload: Value,
    /// The mandate; none for a credential.
    pub mandate: Option<Value>,
    pub sd: Sd,
    /// How it is bound to what comes before.
    pub binding: Option<&'static str>,
}

impl Draft {
    pub fn root(mandate: Value, sd: Sd) -> Self {
        Self {
            by: Who::Provider,
            header: json!({ "alg": "ES256", "typ": "example+sd-jwt", "kid": "provider-1" }),
            payload: json!({ "_sd_alg": "sha-256" }),
            mandate: Some(mandate),
            sd,
            binding: None,
        }
    }

    pub fn leaf(mandate: Value, audience: &str, nonce: &str, sd: Sd) -> Self {
        Self {
            by: Who::Agent,
            header: json!({ "alg": "ES256", "typ": "kb+sd-jwt" }),
            payload: json!({ "_sd_alg": "sha-256", "iat": NOW - 5, "aud": audience, "nonce": nonce }),
            mandate: Some(mandate),
            sd,
            binding: Some("sd_hash"),
        }
    }

    pub fn mandate(&mut self) -> &mut Value {
        self.mandate.as_mut().unwrap()
    }

    pub fn constraint(&mut self, at: usize) -> &mut Value {
        &mut self.mandate()["constraints"][at]
    }

    pub fn add_constraint(&mut self, constraint: Value) {
        self.mandate()["constraints"].as_array_mut().unwrap().push(constraint);
    }

    /// Signs it, after `before`, which ends in `~` as this does.
    pub fn signed(&self, before: Option<&str>) -> String {
        let mut sd = self.sd.clone();
        let mut payload = self.payload.clone();
        if let Some(mandate) = &self.mandate {
            payload["delegate_payload"] = json!([sd.element(mandate.clone())]);
        }
        if let (Some(binding), Some(before)) = (self.binding, before) {
            let hashed = if binding == "sd_hash" { before } else { before.split('~').next().unwrap() };
            payload[binding] = json!(sha256(hashed));
        }
        let jwt = self.by.sign(&self.header, &payload);
        [jwt].into_iter().chain(sd.disclosures).map(|part| part + "~").collect()
    }
}

/// A chain, not signed yet.
#[derive(Debug, Clone)]
pub struct Story {
    pub drafts: Vec<Draft>,
}

impl Story {
    pub fn root(&mut self) -> &mut Draft {
        &mut self.drafts[0]
    }

    pub fn leaf(&mut self) -> &mut Draft {
        self.drafts.last_mut().unwrap()
    }

    pub fn hops(&self) -> Vec<String> {
        let mut hops: Vec<String> = Vec::new();
        for draft in &self.drafts {
            let next = draft.signed(hops.last().map(String::as_str));
            hops.push(next);
        }
        hops
    }

    pub fn chain(&self) -> String {
        self.hops().join("~")
    }
}

pub fn shop(n: u32) -> Value {
    json!({ "id": format!("merchant_{n}"), "name": format!("Shop {n}"), "website": format!("https://shop-{n}.example") })
}

pub fn checkout() -> Value {
    json!({
        "id": "checkout-1",
        "merchant": shop(1),
        "line_items": [
            { "id": "li_0", "item": { "id": "shoe-red", "title": "Red shoe", "price": 9950 }, "quantity": 2 },
        ],
        "status": "incomplete",
        "currency": "USD",
        "totals": [{ "type": "subtotal", "amount": 19000 }, { "type": "total", "amount": 19900 }],
        "links": [],
    })
}

pub fn checkout_jwt(checkout: &Value) -> String {
    Who::Merchant.sign(&json!({ "alg": "ES256", "typ": "JWT", "kid": "merchant-key-1" }), checkout)
}

fn cnf(who: Who) -> Value {
    json!({ "jwk": who.jwk() })
}

/// Two of a pair of shoes, red or blue, from one of two shops; the agent shows what applies.
pub fn checkout_story(jwt: &str) -> Story {
    let mut sd = Sd::default();
    let red = sd.element(json!({ "id": "shoe-red", "title": "Red shoe" }));
    let one = sd.element(shop(1));
    // Two that are withheld: made, and not shown.
    let mut hidden = Sd { salts: 100, ..Sd::default() };
    let (blue, two) =
        (hidden.element(json!({ "id": "shoe-blue", "title": "Blue" })), hidden.element(shop(2)));
    let open = json!({
        "vct": "mandate.checkout.open.1",
        "constraints": [
            { "type": "checkout.line_items", "items": [{ "id": "line_1", "acceptable_items": [red, blue], "quantity": 2 }] },
            { "type": "checkout.allowed_merchants", "allowed": [one, two] },
        ],
        "cnf": cnf(Who::Agent),
        "iat": NOW - 600,
        "exp": NOW + 3000,
    });
    let mut closed_sd = Sd::default();
    let hidden_jwt = closed_sd.member("checkout_jwt", json!(jwt));
    let closed = json!({ "vct": "mandate.checkout.1", "checkout_hash": sha256(jwt), "_sd": [hidden_jwt] });
    Story { drafts: vec![Draft::root(open, sd), Draft::leaf(closed, "merchant", "nonce-m", closed_sd)] }
}

pub fn payment_story(jwt: &str, open_checkout: &str) -> Story {
    let mut sd = Sd::default();
    let one = sd.element(shop(1));
    let mut hidden = Sd { salts: 100, ..Sd::default() };
    let two = hidden.element(shop(2));
    let open = json!({
        "vct": "mandate.payment.open.1",
        "constraints": [
            { "type": "payment.reference", "conditional_transaction_id": sha256(open_checkout) },
            { "type": "payment.amount_range", "currency": "USD", "max": 20000, "min": 0 },
            { "type": "payment.allowed_payees", "allowed": [one, two] },
        ],
        "cnf": cnf(Who::Agent),
        "iat": NOW - 600,
        "exp": NOW + 3000,
    });
    let closed = json!({
        "vct": "mandate.payment.1",
        "transaction_id": sha256(jwt),
        "payee": shop(1),
        "payment_amount": { "amount": 19900, "currency": "USD" },
        "payment_instrument": { "id": "card-1", "type": "card", "description": "Card 4242" },
    });
    Story {
        drafts: vec![
            Draft::root(open, sd),
            Draft::leaf(closed, "credential-provider", "nonce-p", Sd::default()),
        ],
    }
}

/// An agent between: what it got is open, and so is what it gives.
pub fn delegate(story: &mut Story, mut open: Value) {
    open["cnf"] = cnf(Who::SubAgent);
    let mut between = Draft::leaf(open, "agent-2", "nonce-a", Sd::default());
    between.header["typ"] = json!("kb+sd-jwt+kb");
    story.leaf().by = Who::SubAgent;
    let at = story.drafts.len() - 1;
    story.drafts.insert(at, between);
}

pub fn roots() -> Vec<Root> {
    vec![
        Root { key: Who::Provider.key(), kid: Some("provider-1".to_owned()), trust: Trust::AgentProvider },
        Root {
            key: Who::Provider.key(),
            kid: Some("issuer-1".to_owned()),
            trust: Trust::Credential { vct: "com.example.card".to_owned() },
        },
    ]
}

pub fn merchants() -> Vec<MerchantKey> {
    vec![MerchantKey { merchant: "merchant_1".to_owned(), kid: None, key: Who::Merchant.key() }]
}

pub fn expect<'a>(roots: &'a [Root], audience: &'a str, nonce: &'a str) -> Expect<'a> {
    Expect { roots, audience, nonce, now: Timestamp::from_secs(NOW), max_age: MAX_AGE, direct: false }
}

pub fn as_merchant(chain: &str) -> Result<Unreserved<CheckoutMandate>, Refused> {
    verify_checkout(chain, &expect(&roots(), "merchant", "nonce-m"), &merchants(), None)
}

/// A payment for the checkout of a chain that is right.
pub fn as_provider(chain: &str, checkout: &str) -> Result<Unreserved<PaymentMandate>, Refused> {
    let checkout = as_merchant(checkout).expect("the checkout is right");
    verify_payment(
        chain,
        &expect(&roots(), "credential-provider", "nonce-p"),
        Link::Checkout(checkout.look()),
    )
}

/// A checkout, and a payment for it: both right.
pub struct Pair {
    pub jwt: String,
    pub checkout: Vec<String>,
    pub payment: Story,
}

impl Pair {
    pub fn new() -> Self {
        Self::of(&checkout())
    }

    pub fn of(checkout: &Value) -> Self {
        let jwt = checkout_jwt(checkout);
        let checkout = checkout_story(&jwt).hops();
        let payment = payment_story(&jwt, &checkout[0]);
        Self { jwt, checkout, payment }
    }

    pub fn judged(&self) -> Result<Unreserved<PaymentMandate>, Refused> {
        as_provider(&self.payment.chain(), &self.checkout.join("~"))
    }

    /// The code that the payment is refused with, after a change.
    pub fn code(&self, change: impl FnOnce(&mut Story)) -> &'static str {
        let mut payment = self.payment.clone();
        change(&mut payment);
        code(as_provider(&payment.chain(), &self.checkout.join("~")))
    }
}

pub fn checkout_code(change: impl FnOnce(&mut Story)) -> &'static str {
    let mut story = checkout_story(&checkout_jwt(&checkout()));
    change(&mut story);
    code(as_merchant(&story.chain()))
}

pub fn code<T: std::fmt::Debug>(result: Result<T, Refused>) -> &'static str {
    match result {
        Ok(_) => "accepted",
        Err(refused) => refused.why.code(),
    }
}

pub fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}
