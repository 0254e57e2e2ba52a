mod hostile;
mod messages;
mod properties;
mod session;
mod traps;
mod vectors;

use super::{Challenge, ChallengeSecret, ChallengeSecrets, EncodedRequest, IntentName, MethodName};
use crate::Object;
use crate::json::{self, Json, Limits};

pub(super) const LIMITS: Limits = Limits { bytes: 1 << 22, values: 1 << 20, members: 1 << 10 };
const SECRET: &[u8] = b"test-vector-secret-minimum-32-byte-secret";

fn parse(text: &str) -> Json {
    json::parse(text.as_bytes(), LIMITS).expect(text)
}

fn object(text: &str) -> Object {
    match parse(text) {
        Json::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn secrets() -> ChallengeSecrets {
    ChallengeSecrets::new(ChallengeSecret::new(SECRET).expect("long enough"))
}

/// A challenge for a charge on EVM, bound under [`secrets`].
fn challenge() -> Challenge {
    let request = object(
        r#"{"amount":"10000","currency":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "recipient":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
            "methodDetails":{"chainId":84532,"credentialTypes":["authorization"]}}"#,
    );
    let challenge = Challenge {
        id: String::new(),
        realm: "api.example.com".into(),
        method: MethodName::evm(),
        intent: IntentName::charge(),
        request: EncodedRequest::new(request).expect("canonical"),
        description: None,
        digest: None,
        expires: Some("2026-11-21T12:05:00.123Z".parse().expect("a time")),
        header: None,
        opaque: None,
    };
    secrets().bind(challenge).expect("bindable")
}

/// The value of a header that is written as one character for each byte.
fn latin1(text: &str) -> Vec<u8> {
    // Where the vectors go beyond Latin-1, Node would refuse the header; a raw server might send UTF-8.
    let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
    bytes.unwrap_or_else(|| text.as_bytes().to_vec())
}
