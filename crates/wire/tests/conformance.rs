//! The adapter of the public conformance harness, without a process in between: what the public cases ask of a codec.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

#[path = "../examples/conformance/answer.rs"]
mod answer;

use answer::answer;
use farthing_wire::json::{self, Json, Limits};
use farthing_wire::{Object, mpp::encoding::encode};

const LIMITS: Limits = Limits { bytes: 1 << 20, values: 1 << 16, members: 1024 };

fn ask(op: &str, input: Object) -> Object {
    answer(Object::new().with("schema", 1u64).with("op", op).with("input", input).to_string().as_bytes())
}

fn value(op: &str, input: Object) -> Object {
    let answer = ask(op, input);
    match answer.get("value") {
        Some(Json::Object(value)) => value.clone(),
        _ => panic!("{op}: {answer}"),
    }
}

fn error(op: &str, input: Object) -> String {
    let answer = ask(op, input);
    assert_eq!(answer.get("ok"), Some(&Json::Bool(false)), "{op}: {answer}");
    let error = answer.get("error").and_then(Json::as_object).expect("an error");
    error.get_str("type").expect("a type").to_owned()
}

fn object(text: &str) -> Object {
    match json::parse(text.as_bytes(), LIMITS) {
        Ok(Json::Object(object)) => object,
        other => panic!("{text}: {other:?}"),
    }
}

fn header(value: &str) -> Object {
    Object::new().with("header", value)
}

/// Parsing gives the object, printing it and parsing that gives the object again.
fn comes_back(kind: &str, wire: &str, expected: &str) {
    let read = value(&format!("{kind}.parse"), header(wire));
    assert_eq!(read, object(expected), "{wire}");
    let printed = value(&format!("{kind}.format"), object(expected));
    assert_eq!(value(&format!("{kind}.parse"), printed), read, "{wire}");
}

#[test]
fn challenges_come_back() {
    let id = |rest: &str| {
        format!("Payment id=\"c\", realm=\"api\", method=\"tempo\", intent=\"charge\", request=\"e30\"{rest}")
    };
    let plain = |rest: &str| {
        format!(r#"{{"id":"c","realm":"api","method":"tempo","intent":"charge","request":{{}}{rest}}}"#)
    };
    for (wire, json) in [
        ("", ""),
        (
            r#", description="Pay \"premium\" API", digest="sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=", expires="2026-01-29T12:05:00Z""#,
            r#","description":"Pay \"premium\" API","digest":"sha-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=","expires":"2026-01-29T12:05:00Z""#,
        ),
        (r#", description="Path C:\\tempo\\api""#, r#","description":"Path C:\\tempo\\api""#),
        (r#", description="Pay with the Payment scheme""#, r#","description":"Pay with the Payment scheme""#),
        (r#", opaque="trace-123""#, r#","opaque":"trace-123""#),
        (r#", foo="bar", baz="qux""#, ""),
        ("", r#","description":null"#),
    ] {
        let expected = plain(if json.contains("null") { "" } else { json });
        comes_back("challenge", &id(wire), &expected);
    }
    let odd = "payment  request=\"e30\" ,  realm=\"contact Payment support\" ,intent=\"stream\", id=\"c\", method=\"tempo\"";
    let read = value("challenge.parse", header(odd));
    assert_eq!(
        (read.get_str("realm"), read.get_str("intent")),
        (Some("contact Payment support"), Some("stream"))
    );
    let cut = value(
        "challenge.parse",
        header(&id(", description=\"Payment for \"Premium\" service \u{2014} 50% off!\"")),
    );
    assert_eq!(cut.get_str("description"), Some("Payment for "));
    let printed = value("challenge.format", object(&plain(r#","expires":"2026-01-29T12:05:00Z""#)));
    assert_eq!(printed.get_str("header"), Some(&*id(", expires=\"2026-01-29T12:05:00Z\"")));
}

#[test]
fn bad_challenges_are_parse_errors() {
    let parts = ["id=\"c\"", "realm=\"api\"", "method=\"tempo\"", "intent=\"charge\"", "request=\"e30\""];
    let mut bad: Vec<String> = (0..parts.len())
        .map(|out| {
            let rest: Vec<_> =
                parts.iter().enumerate().filter(|(at, _)| *at != out).map(|(_, part)| *part).collect();
            format!("Payment {}", rest.join(", "))
        })
        .collect();
    let all = format!("Payment {}", parts.join(", "));
    bad.extend([
        String::new(),
        "Payment".into(),
        "Bearer token123".into(),
        all.replace("\"c\"", "\"\""),
        all.replace("e30", "not-valid!!!"),
        all.replace("e30", "bm90IGpzb24"),
        format!("{all}, id=\"d\""),
    ]);
    for wire in bad {
        assert_eq!(error("challenge.parse", header(&wire)), "parse_error", "{wire}");
    }
    let split = object(
        r#"{"id":"c","realm":"a","method":"tempo","intent":"charge","request":{},"description":"a\r\nb"}"#,
    );
    assert_eq!(error("challenge.format", split), "format_error");
}

#[test]
fn credentials_and_receipts_come_back() {
    let json = r#"{"challenge":{"id":"c","realm":"api","method":"tempo","intent":"charge","request":{"amount":"1"},"expires":"2026-01-29T12:30:00Z","header":"Payment-Authorization"},"payload":{"type":"hash","hash":"0x12"},"source":"did:pkh:eip155:42431:0x1234567890abcdef1234567890abcdef12345678"}"#;
    let wire = value("credential.format", object(json));
    comes_back("credential", wire.get_str("header").expect("a header"), json);
    let bare = object(
        r#"{"challenge":{"id":"c","realm":"api","method":"tempo","intent":"charge","request":{}},"payload":{},"source":null}"#,
    );
    assert!(
        value("credential.format", bare)
            .get_str("header")
            .is_some_and(|value| value.starts_with("Payment ey"))
    );
    for text in [
        r#"{"payload":{}}"#,
        "[]",
        r#"{"challenge":{"realm":"api","method":"tempo","intent":"charge","request":"e30"},"payload":{}}"#,
    ] {
        let wire = format!("Payment {}", encode(text));
        assert_eq!(error("credential.parse", header(&wire)), "parse_error", "{text}");
    }
    for wire in ["Bearer eyJjaGFsbGVuZ2UiOnt9fQ", "Payment not-valid!!!", ""] {
        assert_eq!(error("credential.parse", header(wire)), "parse_error", "{wire}");
    }
    let json = r#"{"status":"success","method":"tempo","timestamp":"2026-01-29T12:00:00Z","reference":"ref_123","externalId":"e","extra":{"a":1}}"#;
    let wire = value("receipt.format", object(json));
    comes_back("receipt", wire.get_str("header").expect("a header"), json);
    assert_eq!(error("receipt.parse", header("e30")), "parse_error");
    assert_eq!(error("receipt.format", object(r#"{"status":"failed"}"#)), "format_error");
}

#[test]
fn base64url_and_ids_are_exact() {
    for (text, encoded) in [
        ("", ""),
        ("a", "YQ"),
        ("ab", "YWI"),
        (">>>???", "Pj4-Pz8_"),
        ("tabs\tand\nnewlines", "dGFicwlhbmQKbmV3bGluZXM"),
    ] {
        assert_eq!(
            value("base64url.encode", Object::new().with("text", text)).get_str("text"),
            Some(encoded)
        );
        assert_eq!(
            value("base64url.decode", Object::new().with("text", encoded)).get_str("text"),
            Some(text)
        );
    }
    for bad in ["not-valid!!!", "_w", "YQ==", "YR"] {
        assert_eq!(error("base64url.decode", Object::new().with("text", bad)), "encoding_error", "{bad}");
    }
    let input = |secret: &str| {
        object(r#"{"realm":"api.example.com","method":"tempo","intent":"charge","request":{"amount":"1000000"}}"#)
            .with("secretKey", secret)
    };
    let id = value("challenge.id", input("test-vector-secret-minimum-32-byte-secret"));
    assert_eq!(id.get_str("id"), Some("6QDs0BmhrI_v67iWeCMvGqQJEFQ6ErWKlk7zi5xL6t0"));
    assert_eq!(error("challenge.id", input("short")), "generation_error");
}

#[test]
fn requests_that_are_none_are_answered() {
    assert_eq!(error("tempo.receipt.verify", Object::new()), "unsupported_operation");
    for request in ["", "[]", r#"{"schema":2,"op":"challenge.parse","input":{}}"#] {
        let text = answer(request.as_bytes()).to_string();
        assert!(text.starts_with(r#"{"ok":false,"error":{"type":"unknown_error""#), "{text}");
    }
    assert_eq!(error("challenge.parse", Object::new()), "parse_error");
}
