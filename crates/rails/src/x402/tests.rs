use std::path::Path;

use farthing_evm::Key;
use farthing_primitives::{Asset, Eip712Domain, Registry};
use farthing_wire::x402::Message;
use farthing_wire::{Json, Limits, json};

use super::*;
use crate::exact_evm::buy::{self, Nonce};
use crate::exact_evm::{Checked, Policy, SignatureStatus, check};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);

/// When the packages made the vectors, by the clock that they were given.
const VECTORS_MADE: Timestamp = Timestamp::from_secs(1_795_251_263);

fn tokens() -> Tokens {
    Tokens::new(&Registry::builtin())
}

fn payee() -> Account {
    Account::evm("0x209693Bc6afc0C5328bA36FaF03C514EF312287C").unwrap()
}

fn asked(method: PullMethod) -> Requirement {
    let registry = Registry::builtin();
    let asset = registry.dollar(&Network::eip155(84532)).unwrap();
    let token = tokens().get(&asset.id).unwrap().clone();
    Requirement::new(token, &asset.atoms(1000), &payee(), method, MINUTE).unwrap()
}

fn vectors(name: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/x402-wire").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn payments(file: &str) -> Vec<(String, Vec<u8>)> {
    let file = vectors(file);
    let rows = file["payments"].as_array().unwrap();
    assert!(!rows.is_empty());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    rows.iter().map(|row| (text(&row["name"]), text(&row["header"]).into_bytes())).collect()
}

#[test]
fn payments_of_the_published_clients_pass() {
    for (name, header) in payments("v2.json") {
        let payment = v2::PaymentPayload::from_header(&header).unwrap();
        let asked = requirement_v2(&payment.accepted, &tokens()).unwrap();
        let shown = presented_v2(&asked, &payment).unwrap();
        let checked = check(&asked, &shown, VECTORS_MADE, &Policy::default()).unwrap();
        assert_eq!(checked.signature_status(), SignatureStatus::Proven, "{name}");
        if let Presented::Permit2 { approval, .. } = &shown {
            assert_eq!(approval.is_some(), name == "sponsored", "{name}");
        }
        // What we would write is what they wrote.
        let ours =
            payment_v2(&payment.accepted, &shown, payment.resource.clone(), payment.extensions.clone());
        assert_eq!(lower(&ours.unwrap().payload), lower(&payment.payload), "{name}");
    }
    for (name, header) in payments("v1.json") {
        let payment = v1::PaymentPayload::from_header(&header).unwrap();
        let asked = asked(PullMethod::Eip3009);
        let shown = presented_v1(&asked, &payment).unwrap();
        let checked = check(&asked, &shown, VECTORS_MADE, &Policy::default()).unwrap();
        assert_eq!(checked.signature_status(), SignatureStatus::Proven, "{name}");
        let offer = offer_v1(&asked, RESOURCE).unwrap();
        assert_eq!(lower(&payment_v1(&offer, &shown).unwrap().payload), lower(&payment.payload), "{name}");
    }
}

/// The same with addresses in one case: both are right.
fn lower(object: &Object) -> Object {
    let text = Json::from(object.clone()).to_string().to_lowercase();
    let limits = Limits { bytes: 100_000, values: 100, members: 100 };
    match json::parse(text.as_bytes(), limits).unwrap() {
        Json::Object(object) => object,
        other => panic!("not an object: {other:?}"),
    }
}

const RESOURCE: Resource<'static> =
    Resource { url: "https://api.example.com/a", description: "A thing", mime_type: "application/json" };

#[test]
fn our_offers_are_as_the_published_server_writes_them() {
    let offer = offer_v2(&asked(PullMethod::Eip3009), Extras::default());
    assert_eq!(
        offer.print(),
        r#"{"scheme":"exact","network":"eip155:84532","amount":"1000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":60,"extra":{"name":"USDC","version":"2"}}"#
    );
    let extras = Extras { seal: Some("1.5.x"), upfront: true };
    let offer = offer_v2(&asked(PullMethod::Permit2), extras);
    assert_eq!(
        Json::from(offer.extra.unwrap()).to_string(),
        r#"{"name":"USDC","version":"2","assetTransferMethod":"permit2","paymentFlow":"upfront","farthing":"1.5.x"}"#
    );
    let offer = offer_v1(&asked(PullMethod::Eip3009), RESOURCE).unwrap();
    assert_eq!(offer.network.name(), "base-sepolia");
    assert_eq!(offer.max_amount_required, 1000);
    assert_eq!(Json::from(offer.extra.unwrap()).to_string(), r#"{"name":"USDC","version":"2"}"#);
    // Version 1 knows one transfer method.
    assert_eq!(offer_v1(&asked(PullMethod::Permit2), RESOURCE), None);
}

#[test]
fn offers_read_back_as_what_was_asked() {
    for method in [PullMethod::Eip3009, PullMethod::Permit2] {
        let asked = asked(method);
        assert_eq!(requirement_v2(&offer_v2(&asked, Extras::default()), &tokens()), Ok(asked));
    }
    let asked = asked(PullMethod::Eip3009);
    assert_eq!(requirement_v1(&offer_v1(&asked, RESOURCE).unwrap(), &tokens()), Ok(asked));
    // A token whose own way is Permit2 and that can do both is asked for by name.
    let mut registry = Registry::empty();
    let token = Asset {
        id: "eip155:1/erc20:0x1111111111111111111111111111111111111111".parse().unwrap(),
        symbol: "BOTH".to_owned(),
        decimals: 6,
        pull: PullMethod::Permit2,
        domain: Some(Eip712Domain { name: "Both".to_owned(), version: "1".to_owned() }),
    };
    registry.insert(token.clone()).unwrap();
    let tokens = Tokens::new(&registry);
    let known = tokens.get(&token.id).unwrap().clone();
    let asked = Requirement::new(known, &token.atoms(1), &payee(), PullMethod::Eip3009, MINUTE).unwrap();
    assert_eq!(requirement_v2(&offer_v2(&asked, Extras::default()), &tokens), Ok(asked));
}

#[test]
fn offers_are_read_by_our_registry_and_not_by_their_words() {
    type Spoil = fn(&mut v2::PaymentRequirements);
    fn extra(offer: &mut v2::PaymentRequirements, key: &str, value: &str) {
        offer.extra.as_mut().unwrap().insert(key, value);
    }
    fn address(text: &str) -> WireAddress {
        WireAddress::parse(&Network::eip155(1), text).unwrap()
    }
    let rows: &[(&str, Spoil, Option<ErrorCode>)] = &[
        ("nothing", |_| (), None),
        ("no domain", |o| o.extra = None, None),
        ("more in extra", |o| extra(o, "decimals", "18"), None),
        ("the method by name", |o| extra(o, "assetTransferMethod", "eip3009"), None),
        ("another scheme", |o| o.scheme = "upto".to_owned(), Some(ErrorCode::UnsupportedScheme)),
        ("another case", |o| o.scheme = "Exact".to_owned(), Some(ErrorCode::UnsupportedScheme)),
        (
            "an unknown token that says USDC",
            |o| o.asset = address("0x1111111111111111111111111111111111111111"),
            Some(ErrorCode::InvalidPaymentRequirements),
        ),
        (
            "USDC of another chain",
            |o| o.network = Network::eip155(8453),
            Some(ErrorCode::InvalidPaymentRequirements),
        ),
        ("another name", |o| extra(o, "name", "USD Coin"), Some(ErrorCode::InvalidExactEvmTokenNameMismatch)),
        (
            "another version",
            |o| extra(o, "version", "1"),
            Some(ErrorCode::InvalidExactEvmTokenVersionMismatch),
        ),
        (
            "another method",
            |o| extra(o, "assetTransferMethod", "erc7710"),
            Some(ErrorCode::UnsupportedAssetTransferMethod),
        ),
        ("for nothing", |o| o.amount = 0, Some(ErrorCode::InvalidPaymentRequirements)),
        (
            "to nobody",
            |o| o.pay_to = address("0x0000000000000000000000000000000000000000"),
            Some(ErrorCode::InvalidPaymentRequirements),
        ),
    ];
    for (name, spoil, code) in rows {
        let mut offer = offer_v2(&asked(PullMethod::Eip3009), Extras::default());
        spoil(&mut offer);
        let got = requirement_v2(&offer, &tokens()).err().map(|error| error.code());
        assert_eq!(got, *code, "{name}");
    }
    let usdt = Registry::builtin().by_symbol(&Network::eip155(1), "USDT").unwrap().clone();
    let token = tokens().get(&usdt.id).unwrap().clone();
    let asked = Requirement::new(token, &usdt.atoms(5), &payee(), PullMethod::Permit2, MINUTE).unwrap();
    let mut offer = offer_v2(&asked, Extras::default());
    extra(&mut offer, "assetTransferMethod", "eip3009");
    let error = requirement_v2(&offer, &tokens()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidExactEvmMissingEip712Domain);
    // Where an offer for it says no method, Permit2 is meant.
    offer.extra = None;
    assert_eq!(requirement_v2(&offer, &tokens()), Ok(asked));
}

#[test]
fn flows_are_known_or_refused() {
    let with = |text: &str| Object::new().with("paymentFlow", text);
    assert_eq!(flow(None), Ok(Flow::Authorization));
    assert_eq!(flow(Some(&Object::new())), Ok(Flow::Authorization));
    assert_eq!(flow(Some(&with("authorization"))), Ok(Flow::Authorization));
    assert_eq!(flow(Some(&with("upfront"))), Ok(Flow::Upfront));
    let error = flow(Some(&with("escrow"))).unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnsupportedPaymentFlow);
}

fn payment(asked: &Requirement) -> (Presented, v2::PaymentPayload) {
    let key = Key::from_bytes([7; 32]).unwrap();
    let payer = from_alloy(key.address());
    let unsigned = buy::authorize(asked, &payer, Nonce([9; 32]), MINUTE, NOW).unwrap();
    let shown = unsigned.signed(&key.sign(unsigned.digest()), None);
    let offer = offer_v2(asked, Extras::default());
    let payment = payment_v2(&offer, &shown, None, None).unwrap();
    (shown, payment)
}

fn checked(asked: &Requirement, shown: &Presented) -> Checked {
    check(asked, shown, NOW, &Policy::default()).unwrap()
}

/// One authorization shown in two dialects is one payment.
#[test]
fn the_key_is_the_same_in_both_dialects() {
    let asked = asked(PullMethod::Eip3009);
    let (shown, by_v2) = payment(&asked);
    let by_v2 = v2::PaymentPayload::from_header(by_v2.to_header().as_bytes()).unwrap();
    let by_v1 = payment_v1(&offer_v1(&asked, RESOURCE).unwrap(), &shown).unwrap();
    let by_v1 = v1::PaymentPayload::from_header(by_v1.to_header().as_bytes()).unwrap();
    let through_v2 = presented_v2(&asked, &by_v2).unwrap();
    let through_v1 = presented_v1(&asked, &by_v1).unwrap();
    assert_eq!(through_v2, shown);
    assert_eq!(through_v1, shown);
    assert_eq!(checked(&asked, &through_v1), checked(&asked, &through_v2));
    assert_eq!(checked(&asked, &through_v1).key(), checked(&asked, &through_v2).key());
}

#[test]
fn payments_elsewhere_are_refused_by_name() {
    let asked = asked(PullMethod::Eip3009);
    let (_, good) = payment(&asked);
    let code = |spoil: fn(&mut v2::PaymentPayload)| {
        let mut payment = good.clone();
        spoil(&mut payment);
        presented_v2(&asked, &payment).err().map(|error| error.code())
    };
    assert_eq!(code(|_| ()), None);
    assert_eq!(code(|p| p.accepted.scheme = "upto".to_owned()), Some(ErrorCode::InvalidExactEvmScheme));
    assert_eq!(
        code(|p| p.accepted.network = Network::eip155(8453)),
        Some(ErrorCode::InvalidExactEvmNetworkMismatch)
    );
    assert_eq!(code(|p| p.payload = Object::new()), Some(ErrorCode::UnsupportedPayloadType));
    assert_eq!(code(|p| p.payload.insert("signature", "0x")), Some(ErrorCode::InvalidPayload));
    // What the payer says of price and payee counts for nothing: the signature covers them.
    assert_eq!(code(|p| p.accepted.amount = 1), None);

    let network = v1::NamedNetwork::parse("base").unwrap();
    let by_v1 = |scheme: &str, network: &v1::NamedNetwork| {
        let payment = v1::PaymentPayload::new(scheme, network.clone(), good.payload.clone());
        presented_v1(&asked, &payment).err().map(|error| error.code())
    };
    let sepolia = v1::NamedNetwork::parse("base-sepolia").unwrap();
    assert_eq!(by_v1("exact", &sepolia), None);
    assert_eq!(by_v1("exact", &network), Some(ErrorCode::InvalidExactEvmNetworkMismatch));
    assert_eq!(by_v1("deferred", &sepolia), Some(ErrorCode::InvalidExactEvmScheme));
}

#[test]
fn a_malformed_approval_is_refused_where_it_would_count() {
    let mut extensions = Extensions::new();
    extensions.insert("eip2612GasSponsoring", Object::new().with("from", "nobody"), Object::new());
    for (method, code) in
        [(PullMethod::Eip3009, None), (PullMethod::Permit2, Some(ErrorCode::InvalidEip2612ExtensionFormat))]
    {
        let asked = asked(method);
        let (_, mut payment) = payment(&asked);
        payment.extensions = Some(extensions.clone());
        assert_eq!(presented_v2(&asked, &payment).err().map(|error| error.code()), code);
    }
}

#[test]
fn an_approval_survives_the_wire() {
    let asked = asked(PullMethod::Permit2);
    let key = Key::from_bytes([7; 32]).unwrap();
    let unsigned = buy::authorize(&asked, &from_alloy(key.address()), Nonce([9; 32]), MINUTE, NOW).unwrap();
    let approval = buy::approve(&asked, &unsigned, U256::from(3)).unwrap();
    let approval = approval.signed(&key.sign(approval.digest()));
    let shown = unsigned.signed(&key.sign(unsigned.digest()), Some(approval.clone()));
    let mut extensions = Extensions::new();
    extensions.insert("eip2612GasSponsoring", Eip2612GasSponsoring::announcement(), Object::new());
    extensions.answer("eip2612GasSponsoring", approval_info(&approval)).unwrap();
    let offer = offer_v2(&asked, Extras::default());
    let sent = payment_v2(&offer, &shown, None, Some(extensions)).unwrap().to_header();
    let came = v2::PaymentPayload::from_header(sent.as_bytes()).unwrap();
    assert_eq!(presented_v2(&asked, &came), Ok(shown));
}

// Seals.

#[test]
fn a_seal_holds_for_its_route_and_for_no_other() {
    let key = BindingKey::new([1; 32], None);
    let local = TenantId::local();
    let asked = asked(PullMethod::Eip3009);
    let ends = NOW.plus(MINUTE);
    let seal = offer::bind(&key, &bound(&asked, &local, "/a", b"", "GET"), ends, offer::Salt([7; 9]));
    let accepted = offer_v2(&asked, Extras { seal: Some(&seal), upfront: false });
    let at = |route, method| verify_seal(&key, &bound(&asked, &local, route, b"", method), &accepted, NOW);
    assert_eq!(at("/a", "GET"), Ok(ends));
    assert_eq!(at("/b", "GET"), Err(SealError::NotOurs));
    assert_eq!(at("/a", "POST"), Err(SealError::NotOurs));
    let unsealed = offer_v2(&asked, Extras::default());
    let result = verify_seal(&key, &bound(&asked, &local, "/a", b"", "GET"), &unsealed, NOW);
    assert_eq!(result, Err(SealError::Malformed));
}
