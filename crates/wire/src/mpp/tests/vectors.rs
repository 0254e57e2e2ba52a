//! What the published package wrote, read and written again.

use super::{latin1, object};
use crate::json::{self, Json};
use crate::mpp::sse::{Event, Reader};
use crate::mpp::ws::{Frame, Framing};
use crate::mpp::{
    AcceptPayment, BodyDigest, Challenge, ChallengeSecret, ChallengeSecrets, Challenges, Credential,
    EncodedRequest, IssuedUnder, MppError, Payload, Problem, ProblemType, Receipt, Source, Terms, evm,
    header, jcs, rpc,
};
use crate::{Object, Uint256};

fn load(name: &str) -> Json {
    let path = format!("{}/../../vectors/mpp/{name}", env!("CARGO_MANIFEST_DIR"));
    json::parse(&std::fs::read(&path).expect(&path), super::LIMITS).expect(&path)
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

fn secrets(text: &str) -> ChallengeSecrets {
    ChallengeSecrets::new(ChallengeSecret::new(text.as_bytes()).expect(text))
}

#[test]
fn challenges_come_back_byte_for_byte() {
    let file = load("challenges.json");
    let secrets = secrets(text(&file, "secret"));
    let mut ascii = 0;
    for case in cases(&file, "challenges") {
        let (name, value) = (text(&case, "name"), text(&case, "header"));
        let challenge = Challenge::parse(&latin1(value)).expect(name);
        assert_eq!(&Json::from(challenge.to_native()), get(&case, "json"), "{name}");
        assert_eq!(challenge.to_echo().to_string(), get(&case, "echo").to_string(), "{name}");
        assert_eq!(secrets.verify(&challenge), Ok(IssuedUnder::Current), "{name}");
        assert_eq!(secrets.id(&challenge).as_ref(), Ok(&challenge.id), "{name}");
        let printed = challenge.to_header().expect(name);
        assert!(printed.is_ascii(), "{name}");
        assert_eq!(Challenge::parse(printed.as_bytes()).as_ref(), Ok(&challenge), "{name}");
        if value.is_ascii() && !value.contains("\\u00") {
            assert_eq!(printed, value, "{name}");
            ascii += 1;
        }
        // A credential's echo and the native form are the same challenge.
        for json in [challenge.to_echo(), challenge.to_native()] {
            assert_eq!(Challenge::from_json(json.into()).as_ref(), Ok(&challenge), "{name}");
        }
        assert!(challenge.terms().is_ok(), "{name}: {:?}", challenge.terms());
    }
    assert!(ascii >= 8, "{ascii}");
}

#[test]
fn lists_of_challenges_are_read_as_the_published_client_reads_them() {
    for case in cases(&load("challenges.json"), "lists") {
        let name = text(&case, "name");
        let read = Challenges::parse([&*latin1(text(&case, "header"))]).expect(name);
        let read: Vec<Json> = read.challenges.iter().map(|one| Json::from(one.to_native())).collect();
        assert_eq!(&Json::Array(read), get(&case, "challenges"), "{name}");
    }
}

fn is_malformed<T: std::fmt::Debug>(case: &Json, read: Result<T, MppError>) {
    let code = read.as_ref().err().map(MppError::code);
    let name = case.as_object().and_then(|case| case.get_str("name").or(case.get_str("header")));
    assert_eq!(code, Some(text(case, "code")), "{name:?}: {read:?}");
}

#[test]
fn malformed_messages_have_stable_codes() {
    for case in cases(&load("challenges.json"), "malformed") {
        is_malformed(&case, Challenge::parse(&latin1(text(&case, "header"))));
    }
    for case in cases(&load("credentials.json"), "malformed") {
        is_malformed(&case, Credential::parse(text(&case, "header").as_bytes()));
    }
    for case in cases(&load("receipts.json"), "malformed") {
        is_malformed(&case, Receipt::parse(text(&case, "header").as_bytes()));
    }
    for case in cases(&load("preferences.json"), "malformed") {
        is_malformed(&case, AcceptPayment::parse([text(&case, "header").as_bytes()]));
    }
}

#[test]
fn ids_are_those_of_the_public_cases() {
    let file = load("ids.json");
    let rows = cases(&file, "ids");
    assert!(rows.len() >= 28);
    for case in rows {
        let mut input = get(&case, "input").as_object().expect("an object").clone();
        input.insert("id", "to be computed");
        let challenge = Challenge::from_json(input.into()).expect("readable");
        let secrets = secrets(text(&case, "secret"));
        assert_eq!(secrets.id(&challenge).as_deref(), Ok(text(&case, "id")), "{challenge:?}");
    }
}

#[test]
fn json_is_canonical_as_the_published_package_has_it() {
    for case in cases(&load("ids.json"), "canonical") {
        let object = get(&case, "object").as_object().expect("an object");
        assert_eq!(jcs::print(object).as_deref(), Ok(text(&case, "text")));
    }
}

#[test]
fn credentials_come_back_byte_for_byte() {
    let file = load("credentials.json");
    let secrets = secrets(text(&load("challenges.json"), "secret"));
    for case in cases(&file, "credentials") {
        let (name, value) = (text(&case, "name"), text(&case, "header"));
        let credential = Credential::parse(value.as_bytes()).expect(name);
        assert_eq!(secrets.verify(&credential.challenge), Ok(IssuedUnder::Current), "{name}");
        assert_eq!(credential.to_header().as_deref(), Ok(value), "{name}");
        // Over JSON-RPC it is the same credential.
        assert_eq!(Credential::from_json(credential.to_native().into()), Ok(credential), "{name}");
    }
}

#[test]
fn the_published_clients_authorization_is_read() {
    let file = load("credentials.json");
    let payer = text(&file, "payer");
    let case = cases(&file, "credentials").remove(0);
    let credential = Credential::parse(text(&case, "header").as_bytes()).expect("readable");
    let Ok(Payload::EvmCharge(payload)) = credential.payload() else { panic!("{:?}", credential.payload()) };
    let Ok(Terms::EvmCharge(terms)) = credential.challenge.terms() else { panic!("no charge") };
    assert_eq!(terms.credential_types, [evm::CredentialType::Authorization]);
    assert_eq!((terms.network.as_str(), terms.amount, terms.decimals), ("eip155:84532", 10_000, Some(6)));
    let evm::ChargePayload::Authorization { authorization, signature } = &payload else {
        panic!("{payload:?}")
    };
    assert_eq!((authorization.value, signature.len()), (terms.amount, 65));
    assert_eq!(authorization.from.as_str(), payer.to_lowercase());
    assert_eq!(&authorization.to, terms.recipient.address());
    let expires = credential.challenge.expires.as_ref().expect("an expiry").at();
    assert_eq!(authorization.valid_before, Uint256::from(expires.secs()));
    assert_eq!(
        credential.source.as_ref().and_then(Source::account),
        Some((&terms.network, &authorization.from))
    );
    // Printed and read again, it is the same, whatever the order.
    assert_eq!(evm::ChargePayload::from_object(&payload.to_object()), Ok(payload));
}

#[test]
fn opaque_that_arrives_as_an_object_is_normalised() {
    let file = load("credentials.json");
    let legacy = get(&file, "legacy");
    let credential = Credential::parse(text(legacy, "header").as_bytes()).expect("readable");
    assert_eq!(credential.challenge.opaque.as_deref(), Some(text(legacy, "opaque")));
    let map = credential.challenge.opaque_map().expect("a map");
    assert_eq!(map, [("a".into(), "2".into()), ("scope".into(), "GET /weather".into())]);
}

#[test]
fn receipts_come_back_byte_for_byte() {
    let mut sessions = 0;
    for case in cases(&load("receipts.json"), "receipts") {
        let (name, value) = (text(&case, "name"), text(&case, "header"));
        let receipt = Receipt::parse(value.as_bytes()).expect(name);
        assert_eq!(&Json::from(receipt.to_object()), get(&case, "json"), "{name}");
        if let Some(session) = receipt.session().expect(name) {
            sessions += 1;
            assert_eq!((session.accepted_cumulative, session.spent), (250_000, 237_500));
            assert_eq!(session.units, Some(500));
            assert_eq!(session.to_receipt().to_object(), receipt.to_object());
        } else {
            assert_eq!(receipt.to_header(), value, "{name}");
        }
    }
    assert_eq!(sessions, 1);
}

#[test]
fn problems_are_told_as_the_published_server_tells_them() {
    let problems = cases(&load("receipts.json"), "problems");
    let mut kinds = Vec::new();
    for case in &problems {
        let problem = Problem::from_json(get(case, "json").clone()).expect("a problem");
        let name = text(case, "name");
        assert!(!matches!(problem.kind, ProblemType::Other(_)), "{name}");
        assert_eq!(problem.print(), text(case, "text"), "{name}");
        assert_eq!(
            (problem.title.as_str(), problem.status),
            (problem.kind.title(), problem.kind.status()),
            "{name}"
        );
        // The published package calls a bad request a failed verification; the draft calls it invalid parameters.
        if problem.kind != ProblemType::BadRequest {
            assert_eq!(Some(rpc::code_of(&problem.kind)), number(get(case, "mcp")), "{name}");
        }
        kinds.push(problem.kind);
    }
    let unknown: Vec<_> = ProblemType::ALL.iter().filter(|kind| !kinds.contains(kind)).collect();
    assert_eq!(unknown, [&ProblemType::ChallengeNotFound, &ProblemType::TransactionReverted]);
}

fn number(json: &Json) -> Option<i64> {
    if let Json::Number(number) = json { number.as_safe_integer() } else { None }
}

#[test]
fn preferences_rank_as_the_published_server_ranks() {
    let file = load("preferences.json");
    let offers: Vec<_> = cases(&file, "offers")
        .iter()
        .map(|offer| {
            (
                text(offer, "method").parse().expect("a method"),
                text(offer, "intent").parse().expect("an intent"),
            )
        })
        .collect();
    for case in cases(&file, "preferences") {
        let header = text(&case, "header");
        let accept = AcceptPayment::parse([header.as_bytes()]).expect(header).expect("there");
        assert_eq!(accept.to_string(), text(&case, "printed"));
        let ranked = accept.rank(offers.iter().map(|(method, intent)| (method, intent)));
        let ranked: Vec<Json> =
            ranked.iter().map(|at| Json::from(u64::try_from(*at).expect("few"))).collect();
        assert_eq!(&Json::Array(ranked), get(&case, "ranked"), "{header}");
        let weights: Vec<u64> = accept.ranges().iter().map(|range| range.weight.into()).collect();
        let expected: Vec<u64> = cases(&case, "entries")
            .iter()
            .map(|entry| get(entry, "weight").as_u64().expect("a weight"))
            .collect();
        assert_eq!(weights, expected, "{header}");
    }
}

#[test]
fn events_are_read_and_printed_as_the_published_package_does() {
    for case in cases(&load("streams.json"), "events") {
        let (name, printed) = (text(&case, "name"), text(&case, "text"));
        let events = Reader::new().push(printed.as_bytes()).expect(name);
        let [Ok(event)] = &events[..] else { panic!("{name}: {events:?}") };
        match event {
            Event::Message(data) => assert_eq!(data, text(get(&case, "json"), "data"), "{name}"),
            Event::NeedVoucher(need) => {
                assert_eq!(&Json::from(need.to_object()), get(get(&case, "json"), "data"))
            }
            Event::Receipt(receipt) => {
                assert_eq!(&Json::from(receipt.to_object()), get(get(&case, "json"), "data"))
            }
            Event::Other { .. } => panic!("{name}"),
        }
        let again = Reader::new().push(event.print().as_bytes()).expect(name);
        assert_eq!(again, [Ok(event.clone())], "{name}");
        if name != "receipt" {
            assert_eq!(event.print(), printed, "{name}");
        }
    }
}

#[test]
fn frames_of_both_framings_come_back() {
    let mut seen = [0, 0];
    for case in cases(&load("streams.json"), "frames") {
        let line = text(&case, "text");
        let (framing, frame) = Frame::parse(line.as_bytes()).expect(line);
        let expected = if text(&case, "framing") == "mppx" { Framing::Mppx } else { Framing::MppRs };
        assert_eq!(framing, expected, "{line}");
        let printed = frame.print(framing).expect(line);
        assert_eq!(object(&printed), object(line));
        assert_eq!(Frame::parse(printed.as_bytes()), Ok((framing, frame)));
        seen[usize::from(framing == Framing::Mppx)] += 1;
    }
    assert_eq!(seen, [8, 7]);
}

#[test]
fn digests_are_those_of_the_published_package() {
    let file = load("digests.json");
    for case in cases(&file, "bodies") {
        let digest = BodyDigest::of(text(&case, "body").as_bytes());
        let bare = text(&case, "digest");
        assert_eq!(digest.to_string(), bare);
        let inner = bare.strip_prefix("sha-256=").expect(bare);
        // Spec: RFC 9530, and the public cases' spelling without padding.
        for spelling in [bare.to_owned(), format!("sha-256=:{inner}:"), bare.trim_end_matches('=').to_owned()]
        {
            assert_eq!(spelling.parse(), Ok(digest), "{spelling}");
        }
    }
    let ours = [
        ("acceptPayment", header::ACCEPT_PAYMENT),
        ("authorization", header::AUTHORIZATION),
        ("paymentAuthorization", header::PAYMENT_AUTHORIZATION),
        ("paymentReceipt", header::PAYMENT_RECEIPT),
        ("paymentSession", header::PAYMENT_SESSION),
        ("paymentSessionSnapshot", header::PAYMENT_SESSION_SNAPSHOT),
        ("wwwAuthenticate", header::WWW_AUTHENTICATE),
    ];
    for (key, name) in ours {
        assert_eq!(text(get(&file, "names"), key).to_lowercase(), name);
    }
}

#[test]
fn terms_of_every_kind_print_as_the_request_that_they_were_read_from() {
    let mut kinds = [0; 5];
    for case in cases(&load("challenges.json"), "challenges") {
        let challenge = Challenge::parse(&latin1(text(&case, "header"))).expect("readable");
        let (kind, printed): (usize, Object) = match challenge.terms().expect("known or not") {
            Terms::EvmCharge(charge) => (0, charge.to_request().to_object()),
            Terms::EvmSession(session) => {
                // The draft's default is said aloud; nothing else differs.
                let mut request = session.to_request();
                let details = request.method_details.as_mut().expect("details");
                details.remove("credentialTypes").expect("said aloud");
                (1, request.to_object())
            }
            Terms::StripeCharge(charge) => (2, charge.to_request().to_object()),
            Terms::TempoCharge(charge) => (3, charge.to_request().to_object()),
            Terms::Other(object) => (4, object),
            other => panic!("{other:?}"),
        };
        kinds[kind] += 1;
        assert_eq!(EncodedRequest::new(printed).as_ref(), Ok(&challenge.request));
    }
    assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
}
