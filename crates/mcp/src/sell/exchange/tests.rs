use super::*;

const CHALLENGE: &str = r#"Payment id="abc", realm="shop.example", method="evm", intent="charge", request="eyJhbW91bnQiOiIxMDAwIn0", expires="2099-01-01T00:00:00.000Z""#;

fn object(json: Value) -> Map<String, Value> {
    match json {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

fn x402() -> Value {
    json!({ "x402Version": 2, "error": "payment_required", "accepts": [], "resource": { "url": "http://a/" } })
}

fn problem(slug: &str, error: &str) -> Bytes {
    let uri = format!("https://paymentauth.org/problems/{slug}");
    let body = json!({
        "type": uri, "title": "t", "status": 402, "detail": "d", "error": error, "x402Version": 1, "accepts": []
    });
    Bytes::from(body.to_string())
}

/// A 402 as the paywall gives it.
fn asked() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::WWW_AUTHENTICATE, CHALLENGE.parse().unwrap());
    let required = encode(&to_wire(&x402(), OWN_ANSWER).unwrap());
    headers.insert(PAYMENT_REQUIRED, required.parse().unwrap());
    headers
}

const PAY: StatusCode = StatusCode::PAYMENT_REQUIRED;

#[test]
fn arguments_have_one_form() {
    let one = canonical(&object(json!({ "b": [1.5, { "d": null, "c": "é\"" }], "a": true }))).unwrap();
    assert_eq!(&one[..], "{\"a\":true,\"b\":[1.5,{\"c\":\"é\\\"\",\"d\":null}]}".as_bytes());
    // Spec: RFC 8785 section 3.2.3: by code units, so that U+1F600 comes before U+FB33.
    let keys = canonical(&object(json!({ "\u{fb33}": 1, "\u{1f600}": 2 }))).unwrap();
    assert_eq!(&keys[..], "{\"\u{1f600}\":2,\"\u{fb33}\":1}".as_bytes());
    let long = canonical(&object(json!({ "a": "x".repeat(MAX_ARGUMENT_BYTES) }))).unwrap_err();
    assert_eq!(long.code.0, -32602);
}

#[test]
fn an_unpaid_call_is_asked_in_both_dialects() {
    let body = problem("payment-required", "payment_required");
    // As a result: x402's form, twice the same, and the challenges beside it.
    let result = answer((PAY, &asked(), &body), Shown::Nothing, Unpaid::Result).unwrap();
    assert_eq!(result.is_error, Some(true));
    assert_eq!(result.structured_content, Some(x402()));
    let ContentBlock::Text(text) = &result.content[0] else { panic!() };
    assert_eq!(serde_json::from_str::<Value>(&text.text).unwrap(), x402());
    let required = &result.meta.unwrap().0[PAYMENT_REQUIRED_META];
    assert_eq!(required["challenges"][0]["id"], "abc");
    assert_eq!(required["challenges"][0]["request"], json!({ "amount": "1000" }));
    assert!(asks_for_payment(&answer((PAY, &asked(), &body), Shown::Nothing, Unpaid::Result).unwrap()));
    // As an error: MPP's form, and the offers beside it.
    let error = answer((PAY, &asked(), &body), Shown::Nothing, Unpaid::Error).unwrap_err();
    let data = error.data.unwrap();
    assert_eq!(error.code.0, -32042);
    assert_eq!((&data["httpStatus"], &data[X402_REQUIRED]), (&json!(402), &x402()));
    assert_eq!(data["problem"]["type"], "https://paymentauth.org/problems/payment-required");
    assert!(data["problem"].get("accepts").is_none() && data.get("failure").is_none(), "{data}");
}

#[test]
fn a_refused_payment_is_told_in_its_own_dialect() {
    let body = problem("verification-failed", "invalid_signature");
    let error = answer((PAY, &asked(), &body), Shown::Mpp, Unpaid::Result).unwrap_err();
    let data = error.data.unwrap();
    assert_eq!((error.code.0, &data["challenges"][0]["id"]), (-32043, &json!("abc")));
    assert_eq!(data["failure"], json!({ "reason": "invalid_signature", "detail": "d" }));
    let malformed = problem("malformed-credential", "malformed_credential");
    let error = answer((PAY, &asked(), &malformed), Shown::Mpp, Unpaid::Result).unwrap_err();
    assert_eq!(error.code.0, -32602);
    let result = answer((PAY, &asked(), &body), Shown::X402, Unpaid::Error).unwrap();
    assert_eq!((result.is_error, result.structured_content), (Some(true), Some(x402())));
}

#[test]
fn what_is_pending_or_failed_asks_nobody_to_pay() {
    let mut headers = HeaderMap::new();
    headers.insert(header::RETRY_AFTER, "2".parse().unwrap());
    let body = Bytes::from(
        json!({ "error": "settlement_pending", "message": "m", "payment": "pay_1", "odd": {} }).to_string(),
    );
    let error =
        answer((StatusCode::SERVICE_UNAVAILABLE, &headers, &body), Shown::Mpp, Unpaid::Result).unwrap_err();
    assert_eq!(error.code.0, -32603);
    let data = error.data.unwrap();
    assert_eq!(
        data,
        json!({
            "httpStatus": 503, "error": "settlement_pending", "message": "m", "payment": "pay_1", "retryAfter": 2
        })
    );
    // A settlement that failed: 402, with what became of it and no offer.
    let said =
        json!({ "success": false, "errorReason": "insufficient_funds", "network": "n", "transaction": "" });
    headers.insert(PAYMENT_RESPONSE, encode(&to_wire(&said, OWN_ANSWER).unwrap()).parse().unwrap());
    let result = answer((PAY, &headers, &Bytes::from_static(b"{}")), Shown::X402, Unpaid::Result).unwrap();
    assert_eq!(result.is_error, Some(true));
    assert_eq!(result.structured_content, Some(said));
    assert!(!asks_for_payment(&result));
    let conflict = Bytes::from(json!({ "error": "payment_used_up" }).to_string());
    let error =
        answer((StatusCode::CONFLICT, &HeaderMap::new(), &conflict), Shown::Mpp, Unpaid::Result).unwrap_err();
    assert_eq!((error.code.0, error.data.unwrap().get("challenges")), (-32043, None));
}

#[test]
fn goods_come_with_the_receipt_of_who_paid() {
    let receipt = json!({ "status": "success", "method": "evm", "timestamp": "2026-01-01T00:00:00Z",
        "reference": "0xaa", "challengeId": "abc" });
    let mut headers = HeaderMap::new();
    let encoded = farthing_wire::mpp::encoding::encode(receipt.to_string());
    headers.insert(PAYMENT_RECEIPT, encoded.parse().unwrap());
    let body =
        Bytes::from(json!({ RESULT: { "content": [{ "type": "text", "text": "goods" }] } }).to_string());
    let result = answer((StatusCode::OK, &headers, &body), Shown::Mpp, Unpaid::Result).unwrap();
    assert_eq!(result.meta.unwrap().0[RECEIPT], receipt);
    let error = Bytes::from(
        json!({ RPC_ERROR: { "code": -32042, "message": "visit", "data": { "elicitations": [] } } })
            .to_string(),
    );
    let error =
        answer((StatusCode::UNPROCESSABLE_ENTITY, &HeaderMap::new(), &error), Shown::Mpp, Unpaid::Result);
    assert_eq!(error.unwrap_err().data, Some(json!({ "elicitations": [] })));
}

#[test]
fn payments_become_headers() {
    let none = payment(&Map::new()).unwrap();
    assert_eq!((none.shown, none.headers.len()), (Shown::Nothing, 0));
    let challenge = json!({ "id": "abc", "realm": "r", "method": "evm", "intent": "charge",
        "request": { "amount": "1000" }, "expires": "2099-01-01T00:00:00.000Z" });
    let credential = json!({ "challenge": challenge, "payload": { "type": "authorization" } });
    let mpp = payment(&object(json!({ CREDENTIAL: credential, IDEMPOTENCY_KEY_META: "k" }))).unwrap();
    assert_eq!(mpp.shown, Shown::Mpp);
    let read = Credential::parse(mpp.headers[AUTHORIZATION].as_bytes()).unwrap();
    assert_eq!(read.challenge.request.as_str(), "eyJhbW91bnQiOiIxMDAwIn0");
    assert_eq!(mpp.headers[IDEMPOTENCY_KEY], "k");
    let second = json!({ "x402Version": 2, "payload": {} });
    let v2 = payment(&object(json!({ X402_PAYMENT: second }))).unwrap();
    assert_eq!(v2.shown, Shown::X402);
    assert!(v2.headers.contains_key(PAYMENT_SIGNATURE));
    let first = payment(&object(json!({ X402_PAYMENT: { "x402Version": 1 } }))).unwrap();
    assert!(first.headers.contains_key(X_PAYMENT));
    for bad in [
        json!({ CREDENTIAL: 7 }),
        json!({ CREDENTIAL: { "challenge": {} } }),
        json!({ CREDENTIAL: credential, X402_PAYMENT: second }),
        json!({ X402_PAYMENT: { "x402Version": 2, "payload": "x".repeat(20_000) } }),
        json!({ IDEMPOTENCY_KEY_META: 7 }),
        json!({ IDEMPOTENCY_KEY_META: "a\nb" }),
    ] {
        assert_eq!(payment(&object(bad.clone())).unwrap_err().code.0, -32602, "{bad}");
    }
    // What is null is not there.
    assert_eq!(payment(&object(json!({ X402_PAYMENT: null }))).unwrap().shown, Shown::Nothing);
}

#[test]
fn a_credential_beside_the_params_is_found() {
    let message = |json: &Value| Bytes::from(json.to_string());
    let read = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap();
    let beside =
        json!({ "id": 1, "params": { "name": "a" }, "_meta": { CREDENTIAL: { "payload": {} }, "x": 1 } });
    let moved = json!({ "id": 1, "params": { "name": "a", "_meta": { CREDENTIAL: { "payload": {} } } }, "_meta": { "x": 1 } });
    assert_eq!(read(&lowered(message(&beside))), moved);
    for same in [
        moved,
        json!({ "params": [], "_meta": { CREDENTIAL: {} } }),
        json!([CREDENTIAL]),
        json!({ "params": {} }),
    ] {
        assert_eq!(lowered(message(&same)), message(&same));
    }
    assert_eq!(lowered(Bytes::from_static(b"{org.paymentauth/credential")), "{org.paymentauth/credential");
    // Two of them are none.
    let two = json!({ "params": { "_meta": { CREDENTIAL: {} } }, "_meta": { CREDENTIAL: {} } });
    let meta = read(&lowered(message(&two)))["params"]["_meta"].clone();
    assert_eq!(payment(&object(meta)).unwrap_err().code.0, -32602);
}
