//! Our JSON reader beside a general-purpose one.

use farthing_wire::json::{self, MAX_DEPTH};
use farthing_wire::{Json, JsonError, Limits, Object};

use super::is_short;

const LIMITS: Limits = Limits { bytes: 2048, values: 256, members: 32 };

pub(crate) fn run(data: &[u8]) {
    let ours = json::parse(data, LIMITS);
    let theirs = serde_json::from_slice::<serde_json::Value>(data);
    match (&ours, &theirs) {
        (Ok(ours), Ok(theirs)) => assert_eq!(&as_serde(ours), theirs),
        // The other reader keeps numbers as floats, and refuses those beyond them.
        (Ok(_), Err(error)) => assert!(error.to_string().starts_with("number out of range"), "{error}"),
        // Where two readers may differ, we take neither side; and everything has a bound.
        (
            Err(
                JsonError::DuplicateKey { .. }
                | JsonError::TooDeep
                | JsonError::TooLong { .. }
                | JsonError::TooManyValues { .. }
                | JsonError::TooManyMembers { .. },
            ),
            _,
        ) => {}
        (Err(error), Ok(_)) => panic!("refused, and others read it: {error}"),
        (Err(_), Err(_)) => {}
    }
    match ours {
        Ok(json) => is_read(&json, data),
        Err(error) => is_short(&error),
    }
}

fn is_read(json: &Json, data: &[u8]) {
    let (values, depth) = measure(json);
    assert!(values <= LIMITS.values && depth <= MAX_DEPTH, "{values} values, {depth} levels");
    let printed = json.to_string();
    // No amplification: what we print is never longer than what we read.
    assert!(printed.len() <= data.len(), "{} bytes of {}", printed.len(), data.len());
    let again = json::parse(printed.as_bytes(), LIMITS).expect("our own");
    assert_eq!(&again, json);
    assert_eq!(again.to_string(), printed);
    // The order of keys says nothing.
    let turned = turned(json);
    assert_eq!(&turned, json);
    assert!(turned.is_subset_of(json) && json.is_subset_of(&turned));
    if let Json::Object(object) = json {
        let more = object.clone().with("\u{0}more", true);
        assert!(object.is_subset_of(&more) && !more.is_subset_of(object));
    }
}

fn measure(json: &Json) -> (usize, usize) {
    let inside = |parts: &mut dyn Iterator<Item = &Json>| {
        parts.map(measure).fold((1, 0), |(values, depth), (v, d)| (values + v, depth.max(d)))
    };
    match json {
        Json::Array(items) => {
            let (values, depth) = inside(&mut items.iter());
            (values, depth + 1)
        }
        Json::Object(object) => {
            assert!(object.len() <= LIMITS.members);
            let (values, depth) = inside(&mut object.iter().map(|(_, value)| value));
            (values, depth + 1)
        }
        _ => (1, 0),
    }
}

fn turned(json: &Json) -> Json {
    match json {
        Json::Array(items) => items.iter().map(turned).collect::<Vec<_>>().into(),
        Json::Object(object) => {
            let members: Vec<_> = object.iter().collect();
            members.into_iter().rev().map(|(key, value)| (key, turned(value))).collect::<Object>().into()
        }
        other => other.clone(),
    }
}

fn as_serde(json: &Json) -> serde_json::Value {
    match json {
        Json::Null => serde_json::Value::Null,
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => serde_json::from_str(number.as_str()).expect("a number that others read"),
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => items.iter().map(as_serde).collect(),
        Json::Object(object) => {
            serde_json::Value::Object(object.iter().map(|(k, v)| (k.to_owned(), as_serde(v))).collect())
        }
    }
}
