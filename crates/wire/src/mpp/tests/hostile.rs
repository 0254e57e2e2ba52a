//! Bounds, and forms that nobody should send.

use super::{challenge, object};
use crate::mpp::sse::{MAX_EVENT_BYTES, Reader};
use crate::mpp::ws::{Frame, MAX_FRAME_BYTES};
use crate::mpp::{
    AcceptPayment, Challenge, Challenges, Credential, EncodedRequest, IdempotencyKey,
    MAX_CHALLENGE_HEADER_BYTES, MAX_CHALLENGES, MAX_CREDENTIAL_BYTES, MAX_IDEMPOTENCY_KEY_BYTES, MAX_RANGES,
    MAX_REQUEST_BYTES, MppError, Problem, ProblemType, Receipt, Source, WireTime, encoding, stripe, tempo,
};
use crate::{Json, Object};

fn code<T: std::fmt::Debug>(read: Result<T, MppError>) -> &'static str {
    read.expect_err("refused").code()
}

#[test]
fn everything_has_a_bound() {
    let good = challenge().to_header().expect("printable");
    let many = vec![&*good; MAX_CHALLENGES + 1];
    assert_eq!(code(Challenges::parse(many.iter().map(|line| line.as_bytes()))), "too_many_challenges");
    assert!(Challenges::parse(many[1..].iter().map(|line| line.as_bytes())).is_ok());
    let long = vec![b' '; MAX_CHALLENGE_HEADER_BYTES + 1];
    assert_eq!(code(Challenges::parse([&*long])), "too_long");
    let half = vec![b' '; MAX_CHALLENGE_HEADER_BYTES / 2 + 1];
    assert_eq!(code(Challenges::parse([&*half, &*half])), "too_long");
    let params: String = (0..65).map(|n| format!(", x{n}=1")).collect();
    assert_eq!(code(Challenge::parse(format!("{good}{params}").as_bytes())), "too_many_params");
    let backslashes = format!("{good}, fuzz=\"{}", "\\".repeat(12_000));
    assert_eq!(code(Challenge::parse(backslashes.as_bytes())), "unterminated_string");

    let request = |len: usize| EncodedRequest::new(Object::new().with("a", "x".repeat(len)));
    let fits = MAX_REQUEST_BYTES / 4 * 3 - r#"{"a":""}"#.len();
    let text = request(fits).expect("at the limit").as_str().to_owned();
    assert_eq!(text.len(), MAX_REQUEST_BYTES);
    assert!(EncodedRequest::parse(&text).is_ok());
    assert_eq!(code(request(fits + 1)), "too_long");
    assert_eq!(code(EncodedRequest::parse(&format!("{text}AAAA"))), "too_long");

    let token = [b"Payment ", &*vec![b'A'; MAX_CREDENTIAL_BYTES]].concat();
    assert_eq!(code(Credential::parse(&token)), "too_long");
    let bearer = [b"Bearer ", &*vec![b'A'; MAX_CREDENTIAL_BYTES]].concat();
    assert_eq!(Credential::find([&*bearer]), Ok(None));
    let payload = Object::new().with("a", "x".repeat(MAX_CREDENTIAL_BYTES));
    assert_eq!(code(Credential::new(challenge(), payload, None).to_header()), "too_long");
    let deep = format!("{{\"challenge\":{}", "[".repeat(100));
    assert_eq!(
        code(Credential::parse(format!("Payment {}", encoding::encode(deep)).as_bytes())),
        "too_much_json"
    );

    let ranges = vec!["evm/charge"; MAX_RANGES + 1].join(",");
    assert_eq!(code(AcceptPayment::parse([ranges.as_bytes()])), "too_many_ranges");
    assert_eq!(code(AcceptPayment::parse([&*vec![b','; 5000]])), "too_long");
    assert_eq!(AcceptPayment::parse([]), Ok(None));

    assert_eq!(code(Receipt::parse(&vec![b'A'; 20_000])), "too_long");
    assert_eq!(code(Frame::parse(&vec![b' '; MAX_FRAME_BYTES + 1])), "too_long");
    assert_eq!(code(Problem::parse(&vec![b' '; 300_000])), "too_long");
    let uri = format!("https://example.com/{}", "\u{e9}".repeat(500));
    assert!(ProblemType::from_uri(&uri).uri().len() <= 256);
}

#[test]
fn a_stream_is_read_however_it_is_cut() {
    let text =
        "\u{feff}: hello\r\ndata: a\rdata:b\n\r\nevent: payment-need-voucher\ndata: {}\n\nid: 7\n\ndata\n\n";
    let whole = Reader::new().push(text.as_bytes()).expect("short");
    assert_eq!(whole.len(), 3);
    assert_eq!(whole[0], Ok(crate::mpp::sse::Event::Message("a\nb".into())));
    assert_eq!(whole[1].as_ref().expect_err("nothing in it").code(), "missing_member");
    assert_eq!(whole[2], Ok(crate::mpp::sse::Event::Message(String::new())));
    for size in [1, 2, 3, 7] {
        let mut reader = Reader::new();
        let pieces: Vec<_> =
            text.as_bytes().chunks(size).flat_map(|piece| reader.push(piece).expect("short")).collect();
        assert_eq!(pieces, whole, "in pieces of {size}");
    }
    let mut reader = Reader::new();
    let piece = vec![b'x'; MAX_EVENT_BYTES];
    assert_eq!(reader.push(&piece), Ok(vec![]));
    assert_eq!(reader.push(b"x").map(|_| ()), Err(MppError::TooLong { limit: MAX_EVENT_BYTES }));
    assert!(reader.push(b"\n\n").is_err(), "the stream is over");
}

#[test]
fn a_key_of_idempotency_is_short_and_printable() {
    let parse = |line: &[u8]| IdempotencyKey::parse([line]).map(|key| key.map(|key| key.as_str().to_owned()));
    assert_eq!(IdempotencyKey::parse([]), Ok(None));
    assert_eq!(parse(b"abc").expect("bare"), Some("abc".into()));
    assert_eq!(parse(b" \"a\\\"b\\\\\" ").expect("quoted"), Some("a\"b\\".into()));
    assert_eq!(
        parse(b"\"8e03978e-40d5-43dd-bc93-6894a57f9324\""),
        parse(b"8e03978e-40d5-43dd-bc93-6894a57f9324")
    );
    for (line, expected) in [
        (&b""[..], "empty_member"),
        (b"\"\"", "empty_member"),
        (b"\"", "bad_form"),
        (b"a\"b", "bad_form"),
        (b"\"a\"b\"", "bad_form"),
        (b"\"a\\n\"", "bad_form"),
        (b"caf\xe9", "bad_form"),
        (b"a\tb", "bad_form"),
        (&[b'a'; MAX_IDEMPOTENCY_KEY_BYTES + 1], "too_long"),
        (&[b'a'; 4096], "too_long"),
    ] {
        assert_eq!(code(IdempotencyKey::parse([line])), expected, "{line:?}");
    }
    assert_eq!(code(IdempotencyKey::parse([&b"a"[..], b"a"])), "duplicate_param");
    let key = IdempotencyKey::parse([&b"\"a\\\"b\\\\\""[..]]).expect("quoted").expect("there");
    assert_eq!(IdempotencyKey::parse([key.to_string().as_bytes()]), Ok(Some(key)));
}

#[test]
fn moments_are_those_of_the_calendar() {
    let at = |text: &str| text.parse::<WireTime>().map(|time| time.at().millis());
    for (text, millis) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T23:59:59.999Z", 951_868_799_999),
        ("2026-11-21T12:05:00.1239Z", 1_795_262_700_123),
        ("2026-11-21T12:05:00.1Z", 1_795_262_700_100),
        ("2026-11-21T14:05:00+02:00", 1_795_262_700_000),
        ("2026-11-21T00:05:00-12:00", 1_795_262_700_000),
        ("1969-12-31T23:59:59Z", 0),
        ("9999-12-31T23:59:60Z", 253_402_300_800_000),
    ] {
        assert_eq!(at(text), Ok(millis), "{text}");
    }
    for text in [
        "",
        "2026-11-21",
        "2026-11-21T12:05:00",
        "2026-11-21t12:05:00z",
        "2026-11-21 12:05:00Z",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-04-31T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00+0200",
        "2026-01-01T00:00:00+24:00",
        "+026-01-01T00:00:00Z",
        "2026-01-01T00:00:00ZZ",
        "2026-01-01T00:00:00.0000000000000000000000Z",
        "\u{e9}026-01-01T00:00:0Z",
    ] {
        assert_eq!(at(text), Err(MppError::BadForm { field: "a time" }), "{text}");
    }
}

#[test]
fn sources_are_told_apart() {
    let read = |text: &str| Source::parse(text);
    let text = "did:pkh:eip155:8453:0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
    let source = read(text).expect("an account");
    let (network, address) = source.account().expect("an account");
    assert_eq!(network.as_str(), "eip155:8453");
    // The text stays as it was, and ours means the same.
    assert_eq!(source.as_str(), text);
    let ours = Source::evm(network.clone(), address.clone()).expect("on EVM");
    assert_eq!((ours.account(), ours.as_str()), (source.account(), &*text.to_lowercase()));
    for other in ["did:key:z6Mk", "did:pkh:solana:abc:def"] {
        let source = read(other).expect("some identifier");
        assert_eq!((source.as_str(), source.account()), (other, None));
    }
    for (text, expected) in [
        ("did:pkh:eip155:1", "bad_form"),
        ("did:pkh:eip155:01:0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "bad_form"),
        ("did:pkh:eip155:+1:0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "bad_form"),
        ("did:pkh:eip155:99999999999999999999:0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "bad_form"),
        ("did:pkh:eip155:1:bob", "bad_address"),
        ("did:pkh:eip155:1:0x209693Bc6afc0C5328bA36FaF03C514EF312287C:x", "bad_address"),
    ] {
        assert_eq!(code(read(text)), expected, "{text}");
    }
    assert_eq!(code(read(&"x".repeat(513))), "too_many");
}

#[test]
fn numbers_have_a_canonical_form_or_none() {
    let print = |text: &str| crate::mpp::jcs::print(&object(text));
    assert_eq!(print(r#"{"a":1.0,"b":1e3,"c":-0.0,"d":12e-1}"#), Err(MppError::UnsafeNumber));
    assert_eq!(print(r#"{"a":1.0,"b":1e3,"c":-0.0}"#).as_deref(), Ok(r#"{"a":1,"b":1000,"c":0}"#));
    for number in ["0.5", "9007199254740992", "-9007199254740992", "1e99", "1e400", "1e-1"] {
        assert_eq!(print(&format!("{{\"a\":{number}}}")), Err(MppError::UnsafeNumber), "{number}");
    }
}

#[test]
fn payloads_of_other_methods_are_read_or_refused() {
    let spt = |text: &str| stripe::ChargePayload::from_object(&object(text));
    assert!(spt(r#"{"spt":"spt_1N4Zv"}"#).is_ok());
    for (text, expected) in [
        ("{}", "missing_member"),
        (r#"{"spt":""}"#, "empty_member"),
        (r#"{"spt":"pm_1"}"#, "bad_form"),
        (r#"{"spt":"spt_"}"#, "bad_form"),
        (r#"{"spt":"spt_1&confirm=false"}"#, "bad_form"),
        (r#"{"spt":1}"#, "wrong_type"),
    ] {
        assert_eq!(code(spt(text)), expected, "{text}");
    }
    let tempo = |text: &str| tempo::ChargePayload::from_object(&object(text));
    for text in [
        r#"{"signature":"0x76","type":"transaction"}"#,
        r#"{"signature":"0xab","type":"proof"}"#,
        r#"{"hash":"0x6d0f4fdf1f2f6a1f6c1b0fbd6a7d5c2c0a8d3d7b1f6a9c1b3e2d4a5b6c7d8e9f","type":"hash"}"#,
    ] {
        assert_eq!(tempo(text).map(|payload| payload.to_object().to_string()).as_deref(), Ok(text));
    }
    assert_eq!(code(tempo(r#"{"type":"keyAuthorization","signature":"0x01"}"#)), "unknown");
    assert_eq!(code(tempo(r#"{"type":"hash","hash":"0xab"}"#)), "bad_hex");
    assert_eq!(code(tempo(r#"{"type":"transaction","signature":"0x"}"#)), "empty_member");
    assert_eq!(code(tempo(r#"{"type":"transaction","signature":"76"}"#)), "bad_hex");
}

#[test]
fn frames_of_nobody_are_the_applications() {
    for text in
        [r#"{"a":1}"#, r#"{"type":"ping"}"#, r#"{"mpp":"ping"}"#, r#"{"mpp":1,"type":"message","data":""}"#]
    {
        assert_eq!(code(Frame::parse(text.as_bytes())), "unknown", "{text}");
    }
    for (text, expected) in [
        ("[]", "wrong_type"),
        ("{", "not_json"),
        (r#"{"mpp":"authorization"}"#, "missing_member"),
        (r#"{"mpp":"message","data":1}"#, "wrong_type"),
        (r#"{"mpp":"payment-error","status":99999,"message":"x"}"#, "wrong_type"),
        (r#"{"mpp":"payment-receipt","data":{"status":"failed"}}"#, "bad_form"),
        (r#"{"type":"needVoucher","channelId":"0x1"}"#, "bad_hex"),
        (r#"{"type":"challenge"}"#, "missing_member"),
    ] {
        assert_eq!(code(Frame::parse(text.as_bytes())), expected, "{text}");
    }
    let null = Frame::parse(br#"{"type":"message","data":null}"#).expect("null is data");
    assert_eq!(null.1, Frame::Message(Json::Null));
}
