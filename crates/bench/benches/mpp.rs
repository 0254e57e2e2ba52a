//! MPP's codec beside what it cannot beat: the HMAC alone for a challenge that is issued, and for a credential that is
//! checked the HMAC, the base64 and a general-purpose JSON reader over the same bytes. All in one run, by criterion:
//! `cargo bench -p farthing-bench --bench mpp`.

use std::hint::black_box;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use farthing_primitives::Timestamp;
use farthing_wire::mpp::{
    Challenge, ChallengeSecret, ChallengeSecrets, Credential, EncodedRequest, IntentName, MethodName,
};
use farthing_wire::{Json, Object};
use hmac::{Hmac, Mac};
use sha2::Sha256;

const SECRET: [u8; 32] = [7; 32];

fn request() -> Object {
    let details = Object::new()
        .with("chainId", 84532u64)
        .with("credentialTypes", vec![Json::from("authorization")])
        .with("decimals", 6u64);
    Object::new()
        .with("amount", "10000")
        .with("currency", "0x036CbD53842c5426634e7929541eC2318f3dCF7e")
        .with("recipient", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C")
        .with("methodDetails", details)
}

/// From a route's terms to the text of a header. A route's request is printed once; the expiry is new each time.
fn issue(secrets: &ChallengeSecrets, request: &EncodedRequest, now: Timestamp) -> String {
    let challenge = Challenge {
        id: String::new(),
        realm: "api.example.com".to_owned(),
        method: MethodName::evm(),
        intent: IntentName::charge(),
        request: request.clone(),
        description: None,
        digest: None,
        expires: Some(now.into()),
        header: None,
        opaque: None,
    };
    must(secrets.bind(challenge).and_then(|challenge| challenge.to_header()))
}

/// From a header to a payload that is read, for a challenge of ours.
fn check(secrets: &ChallengeSecrets, header: &[u8]) {
    let credential = must(Credential::parse(header));
    must(secrets.verify(&credential.challenge));
    must(credential.payload());
}

fn hmac(text: &[u8]) -> [u8; 32] {
    let mut mac: Hmac<Sha256> = must(Mac::new_from_slice(&SECRET));
    mac.update(text);
    mac.finalize().into_bytes().into()
}

/// The bytes that any check of this credential reads: the token, the request in it, and the text that the id binds.
fn bare_check(token: &[u8], request: &[u8], bound: &[u8]) {
    for text in [token, request] {
        let bytes = must(URL_SAFE_NO_PAD.decode(text));
        black_box(must(serde_json::from_slice::<serde_json::Value>(&bytes)));
    }
    black_box(hmac(bound));
}

/// A measurement of something that fails would be worth nothing.
fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    black_box(result).unwrap_or_else(|error| unreachable!("what is measured works: {error:?}"))
}

fn mpp(criterion: &mut Criterion) {
    let secrets = ChallengeSecrets::new(must(ChallengeSecret::new(&SECRET)));
    let request = must(EncodedRequest::new(request()));
    let now = Timestamp::from_secs(1_800_000_000);
    let challenge = must(Challenge::parse(issue(&secrets, &request, now).as_bytes()));
    let bound = format!("api.example.com|evm|charge|{}|{now}||", request.as_str());
    assert_eq!(URL_SAFE_NO_PAD.encode(hmac(bound.as_bytes())), challenge.id, "the same work");
    let hash = format!("0x{}", "ab".repeat(32));
    let payload = Object::new()
        .with("type", "authorization")
        .with("from", "0x857b06519E91e3A54538791bDbb0E22373e36b66")
        .with("to", "0x209693Bc6afc0C5328bA36FaF03C514EF312287C")
        .with("value", "10000")
        .with("validAfter", "0")
        .with("validBefore", "1800000300")
        .with("nonce", hash.as_str())
        .with("signature", format!("0x{}", "cd".repeat(65)));
    let header = must(Credential::new(challenge, payload, None).to_header());
    let token = header.trim_start_matches("Payment ").as_bytes();

    let mut group = criterion.benchmark_group("mpp");
    group.throughput(Throughput::Elements(1));
    group.bench_function("issue", |b| b.iter(|| black_box(issue(&secrets, &request, now))));
    group.bench_function("issue, bare HMAC", |b| b.iter(|| black_box(hmac(bound.as_bytes()))));
    group.bench_function("check", |b| b.iter(|| check(&secrets, header.as_bytes())));
    group.bench_function("check, bare HMAC and serde_json", |b| {
        b.iter(|| bare_check(token, request.as_str().as_bytes(), bound.as_bytes()));
    });
    group.finish();
}

criterion_group!(benches, mpp);
criterion_main!(benches);
