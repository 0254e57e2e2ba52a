//! What the published packages wrote, read and written again.

use crate::json::{self, Json, Limits};
use crate::x402::exact_evm::Payload;
use crate::x402::facilitator::{PaymentRequest, SupportedResponse, VerifyResponse};
use crate::x402::{Message, SettlementResponse, WireError, header, requirements_match, v1, v2};

const LIMITS: Limits = Limits { bytes: 1 << 22, values: 1 << 20, members: 1 << 10 };

fn load(name: &str) -> Json {
    let path = format!("{}/../../vectors/x402-wire/{name}", env!("CARGO_MANIFEST_DIR"));
    json::parse(&std::fs::read(&path).expect(&path), LIMITS).expect(&path)
}

/// The cases under `key`, of which there is at least one.
fn cases(file: &Json, key: &str) -> Vec<Json> {
    let cases = get(file, key).as_array().expect(key).to_vec();
    assert!(!cases.is_empty(), "{key}");
    cases
}

fn get<'a>(json: &'a Json, key: &str) -> &'a Json {
    json.as_object().expect("an object").get(key).expect(key)
}

fn text<'a>(json: &'a Json, key: &str) -> &'a str {
    get(json, key).as_str().expect(key)
}

/// Reads a header, and gets the very same bytes when it prints what it read.
fn same_header<T: Message>(case: &Json) -> T {
    let value = text(case, "header");
    let name = text(case, "name");
    let message = T::from_header(value.as_bytes()).expect(name);
    assert_eq!(&message.to_json(), get(case, "json"));
    assert_eq!(message.to_header(), value, "{}", message.print());
    message
}

/// The same for a body.
fn same_body<T: Message>(case: &Json) -> T {
    let body = text(case, "body");
    let message = T::parse(body.as_bytes()).expect(body);
    assert_eq!(&message.to_json(), get(case, "json"));
    assert_eq!(message.print(), body);
    message
}

#[test]
fn version_2_headers_come_back_byte_for_byte() {
    let file = load("v2.json");
    for case in cases(&file, "challenges") {
        let challenge: v2::PaymentRequired = same_header(&case);
        assert!(challenge.unreadable.is_empty());
        assert!(challenge.accepts.iter().all(|offer| offer.max_timeout_seconds == 60));
    }
    for case in cases(&file, "payments") {
        let payment: v2::PaymentPayload = same_header(&case);
        scheme_payload_survives(&payment.payload);
    }
    for case in cases(&file, "receipts") {
        same_header::<SettlementResponse>(&case);
    }
}

#[test]
fn version_1_messages_come_back_byte_for_byte() {
    let file = load("v1.json");
    for case in cases(&file, "challenges") {
        let challenge: v1::PaymentRequired = same_body(&case);
        let offer = &challenge.accepts[0];
        assert_eq!((offer.network.network().as_str(), offer.max_amount_required), ("eip155:84532", 1000));
    }
    for case in cases(&file, "payments") {
        let payment: v1::PaymentPayload = same_header(&case);
        scheme_payload_survives(&payment.payload);
    }
    for case in cases(&file, "receipts") {
        // Version 1 servers write the payer last, which no reader minds.
        let receipt = SettlementResponse::from_header(text(&case, "header").as_bytes()).expect("a receipt");
        assert_eq!(&receipt.to_json(), get(&case, "json"));
    }
}

/// Reading the scheme's part and printing it loses nothing but the case of addresses.
fn scheme_payload_survives(payload: &crate::Object) {
    let read = Payload::parse(payload).expect("a payload");
    let printed = read.to_object();
    assert_eq!(Payload::parse(&printed), Ok(read));
    let lower = json::parse(payload.to_string().to_ascii_lowercase().as_bytes(), LIMITS);
    assert_eq!(json::parse(printed.to_string().to_ascii_lowercase().as_bytes(), LIMITS), lower);
}

#[test]
fn the_published_permit_for_sponsored_gas_is_read() {
    let file = load("v2.json");
    let case = cases(&file, "payments").into_iter().find(|case| text(case, "name") == "sponsored");
    let payment: v2::PaymentPayload = same_header(&case.expect("listed"));
    let extensions = payment.extensions.expect("extensions");
    let permit = extensions.eip2612_gas_sponsoring().expect("well-formed").expect("signed");
    assert_eq!(permit.spender.as_str(), "0x000000000022d473030f116ddee9f6b43ac78ba3");
    assert_eq!((permit.amount.to_u128(), permit.nonce.to_u128()), (Some(1000), Some(3)));
    assert_eq!((permit.signature.len(), permit.version.as_str()), (65, "1"));
    let Payload::Permit2 { authorization, .. } = Payload::parse(&payment.payload).expect("readable") else {
        panic!("not Permit2");
    };
    assert_eq!((&authorization.from, &authorization.token), (&permit.from, &permit.asset));

    // The server announces, the client answers, and what comes of it is what the published client sends.
    let challenge = cases(&file, "challenges").into_iter().find(|case| text(case, "name") == "sponsored");
    let challenge: v2::PaymentRequired = same_header(&challenge.expect("listed"));
    let announced = challenge.extensions.expect("extensions");
    assert_eq!(announced.eip2612_gas_sponsoring(), Ok(None));
    // What we announce asks for the same members in the same forms.
    let mut ours = crate::x402::Extensions::new();
    ours.announce_eip2612_gas_sponsoring();
    let schema = |extensions: &crate::x402::Extensions| {
        get(extensions.get("eip2612GasSponsoring").expect("there"), "schema").clone()
    };
    assert!(schema(&ours).is_subset_of(&schema(&announced)));
    let mut answered = announced.clone();
    answered.answer("eip2612GasSponsoring", permit.to_info()).expect("announced");
    assert_eq!(announced.check_echo(&answered), Ok(()));
    assert_eq!(
        answered.to_json().to_string().to_lowercase(),
        extensions.to_json().to_string().to_lowercase()
    );
}

#[test]
fn the_published_payment_identifier_is_read() {
    let file = load("v2.json");
    let read = |list: &str, name: &str| {
        let case = cases(&file, list).into_iter().find(|case| text(case, "name") == name).expect(name);
        let json = header::decode(text(&case, "header").as_bytes(), LIMITS).expect("a header");
        let extensions = get(&json, "extensions").as_object().expect("an object").clone();
        let extensions = crate::x402::Extensions::from_object(extensions).expect("few");
        extensions.payment_identifier().expect("well-formed").expect("there")
    };
    let announced = read("challenges", "extended");
    assert_eq!((announced.required, announced.id), (true, None));
    let case = cases(&file, "challenges").into_iter().find(|case| text(case, "name") == "extended");
    let published = get(get(case.as_ref().expect("listed"), "json"), "extensions").clone();
    let mut ours = crate::x402::Extensions::new();
    ours.announce_payment_identifier(true);
    assert!(ours.to_json().is_subset_of(&published), "{}", ours.to_json());
    let chosen = read("payments", "identified");
    assert_eq!(chosen.id.as_deref(), Some("pay_7d5d747be160e280504c099d984bcfe0"));
}

#[test]
fn facilitators_are_asked_as_the_published_servers_ask() {
    let file = load("facilitator.json");
    let mut versions = Vec::new();
    for case in cases(&file, "requests") {
        let body = text(&case, "body");
        let request = PaymentRequest::parse(body.as_bytes()).expect(body);
        assert_eq!(request.print(), body);
        assert!(Payload::parse(request.scheme_payload()).is_ok());
        versions.push(request.version());
    }
    assert_eq!(versions, [2, 2, 1, 2, 1]);
    for case in cases(&file, "verify") {
        let body = text(&case, "body");
        let answer = VerifyResponse::parse(body.as_bytes()).expect(body);
        // The one difference: a null that was absent to us stays absent.
        assert_eq!(answer.print(), body.replace(",\"payer\":null", ""));
    }
    let supported: SupportedResponse = same_body(get(&file, "supported"));
    assert_eq!((supported.kinds.len(), supported.signers[0].0.as_str()), (2, "eip155:*"));
}

#[test]
fn offers_match_as_the_published_server_matches_them() {
    let mut verdicts = [0, 0];
    for case in cases(&load("matching.json"), "pairs") {
        let read = |key| v2::PaymentRequirements::from_json(get(&case, key).clone()).expect(key);
        let expected = get(&case, "matches").as_bool().expect("a verdict");
        let matched = requirements_match(&read("ours"), &read("accepted"));
        assert_eq!(matched.is_ok(), expected, "{}: {matched:?}", text(&case, "name"));
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 5), "{verdicts:?}");
}

#[test]
fn extensions_come_back_as_the_published_server_wants_them() {
    let extensions = |json: &Json| match json {
        Json::Object(object) => crate::x402::Extensions::from_object(object.clone()).expect("few"),
        _ => crate::x402::Extensions::new(),
    };
    let mut verdicts = [0, 0];
    for case in cases(&load("echo.json"), "echoes") {
        let (announced, echoed) = (extensions(get(&case, "announced")), extensions(get(&case, "echoed")));
        let expected = get(&case, "valid").as_bool().expect("a verdict");
        assert_eq!(announced.check_echo(&echoed).is_ok(), expected, "{}", text(&case, "name"));
        verdicts[usize::from(expected)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 5), "{verdicts:?}");
}

fn code_of<T>(result: &Result<T, WireError>) -> Json {
    result.as_ref().err().map_or(Json::Null, |error| error.code().as_str().into())
}

#[test]
fn malformed_payments_have_stable_codes() {
    let file = load("malformed.json");
    for case in cases(&file, "headers") {
        let read = v2::PaymentPayload::from_header(text(&case, "header").as_bytes());
        assert_eq!(&code_of(&read), get(&case, "code"), "{}: {:?}", text(&case, "name"), read.err());
        // We may be stricter than the published schema, never looser.
        let taken_by_peer = get(&case, "taken_by_peer").as_bool().expect("a verdict");
        assert!(taken_by_peer || !get(&case, "code").is_null(), "{}", text(&case, "name"));
    }
    for case in cases(&file, "payloads") {
        let read = Payload::parse(get(&case, "payload").as_object().expect("an object"));
        assert_eq!(&code_of(&read), get(&case, "code"), "{}: {:?}", text(&case, "name"), read.err());
    }
}

#[test]
fn a_value_beyond_our_books_is_refused_by_name() {
    let file = load("malformed.json");
    let case =
        cases(&file, "payloads").into_iter().find(|case| text(case, "name") == "a value beyond 128 bits");
    let case = case.expect("listed");
    let read = Payload::parse(get(&case, "payload").as_object().expect("an object"));
    assert_eq!(read, Err(WireError::BeyondU128 { field: "value" }));
}
