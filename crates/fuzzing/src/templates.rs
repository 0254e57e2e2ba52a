//! What the published packages wrote, to start from. The files are the golden vectors.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farthing_wire::{Json, Limits, json};

const V1: &str = include_str!("../../../vectors/x402-wire/v1.json");
const V2: &str = include_str!("../../../vectors/x402-wire/v2.json");
const FACILITATOR: &str = include_str!("../../../vectors/x402-wire/facilitator.json");
const MALFORMED: &str = include_str!("../../../vectors/x402-wire/malformed.json");

/// Published messages by where they go.
#[derive(Debug)]
pub(crate) struct Templates {
    /// Payments of both versions.
    pub payments: Vec<Json>,
    /// Challenges of version 2, then of version 1.
    pub challenges: Vec<Json>,
    pub receipts: Vec<Json>,
    /// Bodies of `/verify` and `/settle`.
    pub requests: Vec<Json>,
    /// Answers of a facilitator.
    pub answers: Vec<Json>,
    /// Headers that are no payments.
    pub malformed: Vec<Vec<u8>>,
}

pub(crate) fn templates() -> &'static Templates {
    static TEMPLATES: OnceLock<Templates> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let [v1, v2, facilitator, malformed] = [V1, V2, FACILITATOR, MALFORMED].map(read);
        let headers = |file: &Json, key| rows(file, key).iter().map(header).collect::<Vec<_>>();
        let bodies =
            |file: &Json, key| rows(file, key).iter().map(|row| read(text(row, "body"))).collect::<Vec<_>>();
        Templates {
            payments: [headers(&v2, "payments"), headers(&v1, "payments")].concat(),
            challenges: [headers(&v2, "challenges"), bodies(&v1, "challenges")].concat(),
            receipts: [headers(&v2, "receipts"), headers(&v1, "receipts")].concat(),
            requests: bodies(&facilitator, "requests"),
            answers: [
                bodies(&facilitator, "verify"),
                vec![read(text(get(&facilitator, "supported"), "body"))],
                headers(&v2, "receipts"),
            ]
            .concat(),
            malformed: rows(&malformed, "headers")
                .iter()
                .map(|row| text(row, "header").as_bytes().to_vec())
                .collect(),
        }
    })
}

fn read(text: &str) -> Json {
    const ROOMY: Limits = Limits { bytes: 1 << 22, values: 1 << 20, members: 1 << 12 };
    json::parse(text.as_bytes(), ROOMY).expect("a vector")
}

fn header(row: &Json) -> Json {
    let bytes = STANDARD.decode(text(row, "header")).expect("base64");
    read(std::str::from_utf8(&bytes).expect("UTF-8"))
}

fn get<'a>(json: &'a Json, key: &str) -> &'a Json {
    json.as_object().and_then(|object| object.get(key)).expect(key)
}

fn rows<'a>(json: &'a Json, key: &str) -> &'a [Json] {
    get(json, key).as_array().expect(key)
}

fn text<'a>(json: &'a Json, key: &str) -> &'a str {
    get(json, key).as_str().expect(key)
}
