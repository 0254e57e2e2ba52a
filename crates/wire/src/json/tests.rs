use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { bytes: 4096, values: 64, members: 20 };

fn read(text: &str) -> Result<Json, JsonError> {
    parse(text.as_bytes(), LIMITS)
}

#[test]
fn values_print_as_they_were_read() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1.50",
        "1e21",
        "1.5E-7",
        "12345678901234567890123456789",
        r#""""#,
        r#""\"\\\b\f\n\r\t\u0001 é € 💶""#,
        "[]",
        "{}",
        r#"{"b":1,"a":[1,{"z":null,"y":""}],"":{}}"#,
    ] {
        assert_eq!(read(text).expect(text).to_string(), text);
    }
    assert_eq!(read(" { \"a\" :\t[ 1 ,\r\n2 ] } ").expect("blanks").to_string(), r#"{"a":[1,2]}"#);
    assert_eq!(read(r#""\u00e9\ud83d\udcb6\/""#), Ok(Json::from("é💶/")));
}

#[test]
fn what_is_not_json_is_refused_by_name() {
    let check = |text: &str, expected: JsonError| assert_eq!(read(text), Err(expected), "{text:?}");
    for text in [
        "", " ", "[", "[1", "[1,", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "\"", "\"a", "\"\\", "\"\\u12", "-",
        "1.", "1e",
    ] {
        check(text, JsonError::UnexpectedEnd);
    }
    for (text, at) in [
        ("nul", 0),
        ("True", 0),
        ("[,]", 1),
        ("[1,]", 3),
        ("{,}", 1),
        ("{\"a\":1,}", 7),
        ("{a:1}", 1),
        ("+1", 0),
        (".5", 0),
        ("1.e5", 2),
        ("-a", 1),
        ("'a'", 0),
        ("NaN", 0),
        ("/**/1", 0),
    ] {
        check(text, JsonError::Unexpected { at });
    }
    check("1 2", JsonError::Trailing { at: 2 });
    check("01", JsonError::Trailing { at: 1 });
    check("\"a\nb\"", JsonError::ControlCharacter { at: 2 });
    check("\"\\t\tb\"", JsonError::ControlCharacter { at: 3 });
    check(r#""\x""#, JsonError::InvalidEscape { at: 1 });
    check(r#""\u00g0""#, JsonError::InvalidEscape { at: 1 });
    check(r#""\ud800""#, JsonError::LoneSurrogate { at: 1 });
    check(r#""\ud800\u0041""#, JsonError::LoneSurrogate { at: 1 });
    check(r#""\udc00""#, JsonError::LoneSurrogate { at: 1 });
    assert_eq!(parse(b"\"\xff\"", LIMITS), Err(JsonError::NotUtf8));
}

#[test]
fn a_key_must_not_occur_twice() {
    let check = |text: &str| assert!(matches!(read(text), Err(JsonError::DuplicateKey { .. })), "{text}");
    check(r#"{"a":1,"a":1}"#);
    check(r#"{"a":1,"b":{"c":1,"\u0063":2}}"#);
    // Above a dozen members, the check goes another way.
    let many: Vec<String> = (0..18).map(|n| format!("\"k{n}\":{n}")).collect();
    check(&format!("{{{},\"k0\":0}}", many.join(",")));
    assert!(read(&format!("{{{}}}", many.join(","))).is_ok());
}

#[test]
fn bounds_hold_at_their_edges() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(read(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(read(&nested(MAX_DEPTH + 1)), Err(JsonError::TooDeep));
    let roomy = Limits { bytes: 1 << 22, ..LIMITS };
    assert_eq!(parse("[".repeat(1 << 21).as_bytes(), roomy), Err(JsonError::TooDeep));
    assert_eq!(parse(r#"{"a":"#.repeat(1 << 18).as_bytes(), roomy), Err(JsonError::TooDeep));

    let list = |items: usize| format!("[{}]", vec!["0"; items].join(","));
    assert!(read(&list(LIMITS.values - 1)).is_ok());
    assert_eq!(read(&list(LIMITS.values)), Err(JsonError::TooManyValues { limit: LIMITS.values }));

    let object = |members: usize| {
        let members: Vec<String> = (0..members).map(|n| format!("\"{n}\":0")).collect();
        format!("{{{}}}", members.join(","))
    };
    assert!(read(&object(LIMITS.members)).is_ok());
    assert_eq!(read(&object(LIMITS.members + 1)), Err(JsonError::TooManyMembers { limit: LIMITS.members }));

    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
    assert!(read(&text(LIMITS.bytes)).is_ok());
    assert_eq!(read(&text(LIMITS.bytes + 1)), Err(JsonError::TooLong { limit: LIMITS.bytes }));
}

#[test]
fn equality_is_of_values_not_of_spelling() {
    let same = |a: &str, b: &str| assert_eq!(read(a).expect(a), read(b).expect(b));
    let differ = |a: &str, b: &str| assert_ne!(read(a).expect(a), read(b).expect(b));
    same(r#"{"a":1,"b":{"c":2,"d":3}}"#, r#"{"b":{"d":3,"c":2},"a":1}"#);
    same("1", "1.0");
    same("100", "1e2");
    same("0.001", "1E-3");
    same("120", "12.0e+1");
    same("0", "-0.00e7");
    differ("1", "-1");
    differ("1", "10");
    differ("1", "\"1\"");
    differ("9007199254740992", "9007199254740993");
    differ("1e99999999999999999999", "1e99999999999999999998");
    differ("[1,2]", "[2,1]");
    differ("{}", "[]");
    differ(r#"{"a":null}"#, "{}");
    differ(r#"{"a":1}"#, r#"{"a":1,"b":2}"#);
    differ(r#"{"a":1,"b":2}"#, r#"{"a":1,"c":2}"#);
}

#[test]
fn a_whole_number_is_plain_digits() {
    let check = |text: &str, expected| assert_eq!(read(text).expect(text).as_u64(), expected, "{text}");
    check("0", Some(0));
    check("18446744073709551615", Some(u64::MAX));
    check("18446744073709551616", None);
    check("-1", None);
    check("1.0", None);
    check("1e3", None);
    check("\"1\"", None);
}

#[test]
fn building_keeps_the_first_place_of_a_key() {
    let mut object = Object::new().with("b", 1u64).with("a", "x").with_some("c", None::<&str>);
    object.insert("b", true);
    assert_eq!(object.to_string(), r#"{"b":true,"a":"x"}"#);
    assert_eq!(object.remove("b"), Some(Json::Bool(true)));
    assert_eq!(object.remove("b"), None);
    assert_eq!(object.get_str("a"), Some("x"));
}

/// Any value, with numbers in the spelling that other readers keep.
pub(crate) fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<i64>().prop_map(|n| Json::Number(Number::from_checked(&n.to_string()))),
        any::<String>().prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::vec(("[a-e]{0,2}|\\PC{1,3}", inner), 0..5)
                .prop_map(|members| Json::from(members.into_iter().collect::<Object>())),
        ]
    })
}

fn as_serde(json: &Json) -> serde_json::Value {
    match json {
        Json::Null => serde_json::Value::Null,
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => serde_json::from_str(number.as_str()).expect("a number"),
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(as_serde).collect(),
        Json::Object(object) => {
            serde_json::Value::Object(object.iter().map(|(k, v)| (k.to_owned(), as_serde(v))).collect())
        }
    }
}

const ROOMY: Limits = Limits { bytes: 1 << 20, values: 1 << 16, members: 1 << 10 };

proptest! {
    #[test]
    fn parsing_undoes_printing(json in any_json()) {
        let text = json.to_string();
        let again = parse(text.as_bytes(), ROOMY).expect("printed");
        prop_assert_eq!(again.to_string(), text);
        prop_assert_eq!(again, json);
    }

    #[test]
    fn another_printer_and_reader_agree(json in any_json()) {
        let theirs = as_serde(&json);
        prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&json.to_string()).expect("ours"), &theirs);
        prop_assert_eq!(parse(theirs.to_string().as_bytes(), ROOMY).expect("theirs"), json);
    }

    #[test]
    fn the_order_of_keys_never_matters(json in any_json()) {
        let turned = reversed(&json);
        prop_assert_eq!(&turned, &json);
        prop_assert!(turned.is_subset_of(&json) && json.is_subset_of(&turned));
    }

    /// Texts near JSON: both readers take them and read the same, or we name one of our stricter rules.
    #[test]
    fn we_take_nothing_that_others_refuse(
        json in any_json(),
        at in any::<prop::sample::Index>(),
        splice in "[\\[\\]{}\",:0-9eE+.\\\\untrf -]{0,3}",
    ) {
        let mut text: Vec<char> = json.to_string().chars().collect();
        let at = at.index(text.len());
        text.splice(at..at + usize::from(splice.len() % 2 == 0), splice.chars());
        let text: String = text.into_iter().collect();
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match (parse(text.as_bytes(), ROOMY), theirs) {
            (Ok(ours), Ok(theirs)) => prop_assert_eq!(as_serde(&ours), theirs, "{}", text),
            // The other reader keeps numbers as floats, and refuses those beyond them.
            (Ok(_), Err(error)) => prop_assert!(error.to_string().starts_with("number out of range"), "{}: {}", text, error),
            (Err(JsonError::DuplicateKey { .. }), _) => {}
            (Err(error), theirs) => prop_assert!(theirs.is_err(), "{:?} for {}", error, text),
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes, ROOMY);
    }
}

fn reversed(json: &Json) -> Json {
    match json {
        Json::Array(items) => items.iter().map(reversed).collect::<Vec<_>>().into(),
        Json::Object(object) => {
            let members: Vec<_> = object.iter().collect();
            members.into_iter().rev().map(|(key, value)| (key, reversed(value))).collect::<Object>().into()
        }
        other => other.clone(),
    }
}
