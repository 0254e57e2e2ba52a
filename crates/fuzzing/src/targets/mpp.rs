//! MPP: what servers ask and clients show in headers, in JSON-RPC, in events and in frames. What is read prints, and
//! reads back as itself.

use farthing_wire::Object;
use farthing_wire::json::{self, Json};
use farthing_wire::mpp::rpc::{self, PaymentRequired, RpcError};
use farthing_wire::mpp::sse::{Event, Reader};
use farthing_wire::mpp::ws::{Frame, Framing};
use farthing_wire::mpp::{
    AcceptPayment, BODY_LIMITS, Challenge, ChallengeSecret, ChallengeSecrets, Challenges, Credential,
    EncodedRequest, IdempotencyKey, IssuedUnder, MAX_CHALLENGES, MppError, Payload, Problem, Receipt, Terms,
    encoding, evm, jcs,
};

use super::is_short;
use crate::input::Input;

/// An error has a short text and a name.
fn is_told(error: &MppError) {
    is_short(error);
    assert!(!error.code().is_empty() && error.credential_problem().slug().is_some());
}

fn secrets() -> ChallengeSecrets {
    let secret = |byte| ChallengeSecret::new(&[byte; 32]).expect("long enough");
    ChallengeSecrets::new(secret(1)).rotated(secret(2))
}

/// Challenges, preferences, keys of idempotency: lists and tokens in headers.
pub(crate) fn challenge(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => lines(&[input.rest()]),
        // Several lines, cut at line feeds, which no header has inside.
        1 => lines(&input.rest().split(|byte| *byte == b'\n').collect::<Vec<_>>()),
        2 => preferences(input.rest()),
        _ => match IdempotencyKey::parse([input.rest()]) {
            Ok(Some(key)) => {
                assert_eq!(IdempotencyKey::parse([key.to_string().as_bytes()]), Ok(Some(key)));
            }
            Ok(None) => unreachable!("there is a line"),
            Err(error) => is_told(&error),
        },
    }
}

fn lines(lines: &[&[u8]]) {
    match Challenges::parse(lines.iter().copied()) {
        Ok(all) => {
            assert!(
                !all.challenges.is_empty() && all.challenges.len() + all.unreadable.len() <= MAX_CHALLENGES
            );
            all.unreadable.iter().for_each(is_told);
            all.challenges.iter().for_each(is_challenge);
            // In one line or in many, they are the same.
            let printed: Vec<String> =
                all.challenges.iter().map(|one| one.to_header().expect("printable")).collect();
            if let Ok(again) = Challenges::parse([printed.join(", ").as_bytes()]) {
                assert_eq!(again.challenges, all.challenges);
            }
        }
        Err(error) => is_told(&error),
    }
}

fn is_challenge(challenge: &Challenge) {
    let header = challenge.to_header().expect("what is read is printable");
    assert!(header.is_ascii());
    survives(challenge, Challenge::parse(header.as_bytes()));
    survives(challenge, Challenge::from_json(challenge.to_echo().into()));
    // The native form is bound in canonical form, whatever spelling it came in.
    if let Ok(native) = Challenge::from_json(challenge.to_native().into()) {
        let canonical = EncodedRequest::new(challenge.request.object().clone()).expect("just printed");
        assert_eq!(native, Challenge { request: canonical, ..challenge.clone() });
    }
    assert!(secrets().verify(challenge).is_err(), "an id of ours, made by nobody");
    if let Ok(bound) = secrets().bind(challenge.clone()) {
        assert_eq!(secrets().verify(&bound), Ok(IssuedUnder::Current));
        let described = Challenge { description: None, ..bound.clone() };
        assert_eq!(secrets().verify(&described), Ok(IssuedUnder::Current));
    }
    match challenge.terms() {
        Ok(Terms::EvmCharge(charge)) => {
            assert!(charge.splits.is_empty() || charge.primary_amount() > 0);
            assert_eq!(evm::Charge::from_request(&charge.to_request()), Ok(charge));
        }
        Ok(Terms::EvmSession(session)) => {
            assert_eq!(evm::Session::from_request(&session.to_request()), Ok(*session));
        }
        Ok(_) => {}
        Err(error) => is_told(&error),
    }
    if let Err(error) = challenge.opaque_map() {
        is_told(&error);
    }
    if let Err(error) = challenge.body_digest() {
        is_told(&error);
    }
}

fn survives<T: PartialEq + std::fmt::Debug>(message: &T, again: Result<T, MppError>) {
    match again {
        Ok(again) => assert_eq!(&again, message),
        // Escapes and base64 make it longer.
        Err(error) => assert!(error.is_a_limit(), "{error:?} for our own {message:?}"),
    }
}

fn preferences(line: &[u8]) {
    match AcceptPayment::parse([line]) {
        Ok(Some(accept)) => {
            let printed = accept.to_string();
            assert_eq!(AcceptPayment::parse([printed.as_bytes()]), Ok(Some(accept.clone())));
            let names = [("evm", "charge"), ("evm", "session"), ("stripe", "charge")];
            let offers = names.map(|(m, i)| (m.parse().expect("a method"), i.parse().expect("an intent")));
            let ranked = accept.rank(offers.iter().map(|(method, intent)| (method, intent)));
            let weight = |at: &usize| accept.weight(&offers[*at].0, &offers[*at].1);
            assert!(ranked.iter().all(|at| weight(at) > 0));
            assert!(ranked.windows(2).all(|two| weight(&two[0]) >= weight(&two[1])));
        }
        Ok(None) => unreachable!("there is a line"),
        Err(error) => is_told(&error),
    }
}

/// Credentials, receipts and problems, in headers and in JSON-RPC.
pub(crate) fn credential(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 6 {
        0 => match Credential::find([input.rest()]) {
            Ok(Some(credential)) => is_credential(&credential),
            Ok(None) => {}
            Err(error) => is_told(&error),
        },
        1 => match Credential::parse(format!("Payment {}", encoding::encode(input.rest())).as_bytes()) {
            Ok(credential) => is_credential(&credential),
            Err(error) => is_told(&error),
        },
        2 => is_receipt(Receipt::parse(input.rest())),
        3 => is_receipt(Receipt::parse(encoding::encode(input.rest()).as_bytes())),
        4 => match Problem::parse(input.rest()) {
            Ok(problem) => assert_eq!(Problem::parse(problem.print().as_bytes()), Ok(problem)),
            Err(error) => is_told(&error),
        },
        _ => {
            if let Ok(Json::Object(message)) = json::parse(input.rest(), BODY_LIMITS) {
                is_message(&message);
            }
        }
    }
}

fn is_credential(credential: &Credential) {
    match credential.to_header() {
        Ok(header) => survives(credential, Credential::parse(header.as_bytes())),
        Err(error) => assert!(error.is_a_limit(), "{error:?}"),
    }
    is_challenge(&credential.challenge);
    match credential.payload() {
        Ok(Payload::EvmCharge(payload)) => {
            assert_eq!(evm::ChargePayload::from_object(&payload.to_object()), Ok(payload));
        }
        Ok(Payload::EvmSession(payload)) => {
            assert_eq!(evm::SessionPayload::from_object(&payload.to_object()), Ok(*payload));
        }
        Ok(_) => {}
        Err(error) => is_told(&error),
    }
    // What a debugger prints is not what was paid with.
    let unpaid = Credential { payload: Object::default(), ..credential.clone() };
    assert_eq!(format!("{credential:?}"), format!("{unpaid:?}"));
}

fn is_receipt(receipt: Result<Receipt, MppError>) {
    match receipt {
        Ok(receipt) => {
            survives(&receipt, Receipt::parse(receipt.to_header().as_bytes()));
            match receipt.session() {
                Ok(Some(session)) => assert_eq!(session.to_receipt().session(), Ok(Some(session))),
                Ok(None) => {}
                Err(error) => is_told(&error),
            }
        }
        Err(error) => is_told(&error),
    }
}

/// A message of JSON-RPC: as a request, an answer, an error, a tool's result, a capability.
fn is_message(message: &Object) {
    match rpc::credential(message) {
        Ok(Some(credential)) => {
            let mut request = Object::new().with("id", 1u64).with("params", Object::new());
            rpc::put_credential(&mut request, &credential);
            // A request that came in base64 need not have been canonical; natively, it is.
            if let Ok(again) = rpc::credential(&request) {
                assert_eq!(again.map(|again| again.to_native()), Some(credential.to_native()));
            }
        }
        Ok(None) => {}
        Err(error) => is_told(&error),
    }
    if let Err(error) = rpc::receipt(message) {
        is_told(&error);
    }
    match RpcError::classify(message) {
        RpcError::PaymentRequired(required) | RpcError::VerificationFailed(Some(required)) => {
            let printed = required.to_object();
            let again = PaymentRequired::from_object(&printed).expect("our own");
            assert_eq!(again.challenges, required.challenges);
            assert_eq!(again.to_object(), printed);
        }
        RpcError::Unclear(error) => is_told(&error),
        _ => {}
    }
    if let Err(error) = PaymentRequired::of_result(message) {
        is_told(&error);
    }
    if let Ok(capability) = rpc::Capability::from_object(message) {
        assert_eq!(rpc::Capability::from_object(&capability.to_object()), Ok(capability));
    }
    if let Ok(text) = jcs::print(message) {
        let again = json::parse(text.as_bytes(), BODY_LIMITS);
        // Escapes may make it longer than what was read.
        if let Ok(Json::Object(again)) = again {
            assert_eq!((&again, jcs::print(&again)), (message, Ok(text)));
        }
    }
}

/// Server-sent events, cut anywhere; and frames in both framings.
pub(crate) fn stream(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => {
            let size = usize::from(input.byte()).max(1);
            let bytes = input.rest();
            let whole = Reader::new().push(bytes).expect("short");
            let mut reader = Reader::new();
            let pieces: Vec<_> =
                bytes.chunks(size).flat_map(|piece| reader.push(piece).expect("short")).collect();
            assert_eq!(pieces, whole);
            for event in whole {
                match event {
                    Ok(event) => is_event(&event),
                    Err(error) => is_told(&error),
                }
            }
        }
        1 => is_event(&Event::Message(String::from_utf8_lossy(input.rest()).into_owned())),
        _ => match Frame::parse(input.rest()) {
            Ok((framing, frame)) => {
                let printed = frame.print(framing).expect("of its own framing");
                match Frame::parse(printed.as_bytes()) {
                    Ok(again) => assert_eq!(again, (framing, frame.clone())),
                    Err(error) => assert!(error.is_a_limit(), "{error:?} for our own {printed}"),
                }
                // In the other framing it says the same, or cannot be said.
                let other = if framing == Framing::Mppx { Framing::MppRs } else { Framing::Mppx };
                if let Some(printed) = frame.print(other) {
                    match Frame::parse(printed.as_bytes()) {
                        Ok((again, _)) => assert_eq!(again, other),
                        Err(error) => assert!(error.is_a_limit(), "{error:?} for our own {printed}"),
                    }
                }
            }
            Err(error) => is_told(&error),
        },
    }
}

/// One event prints as one event, with every line of its data.
fn is_event(event: &Event) {
    let printed = event.print();
    let events = Reader::new().push(printed.as_bytes()).expect("short");
    let expected = match event {
        Event::Message(data) => Event::Message(data.replace("\r\n", "\n").replace('\r', "\n")),
        other => other.clone(),
    };
    match &events[..] {
        [Ok(again)] => assert_eq!(again, &expected),
        [Err(error)] => assert!(error.is_a_limit(), "{error:?}"),
        other => panic!("{} events of one", other.len()),
    }
}
