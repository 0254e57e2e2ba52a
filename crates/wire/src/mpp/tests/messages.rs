//! JSON-RPC, MCP, and the body that two protocols share.

use super::{challenge, object, parse, secrets};
use crate::mpp::rpc::{self, Capability, PaymentRequired, RpcError};
use crate::mpp::{
    Challenge, Credential, IssuedUnder, MppError, PaymentRequiredBody, Problem, ProblemType, Receipt,
};
use crate::x402::{Message, v1};
use crate::{Json, Object};

fn required() -> PaymentRequired {
    let problem =
        Problem::new(ProblemType::PaymentRequired, "Payment is required.").with_challenge(challenge().id);
    PaymentRequired::new(vec![challenge()], Some(problem))
}

#[test]
fn an_error_carries_native_challenges() {
    let error = required().to_error();
    assert_eq!(error.get("code").map(Json::to_string).as_deref(), Some("-32042"));
    let text = error.to_string();
    assert!(text.contains(r#""request":{"amount":"10000""#), "{text}");
    let RpcError::PaymentRequired(read) = RpcError::classify(&error) else { panic!("{text}") };
    assert_eq!(*read, required());
    // The id binds the canonical form, so it holds although members may come in any order.
    assert_eq!(secrets().verify(&read.challenges[0]), Ok(IssuedUnder::Current));
}

/// MCP gives -32042 to its elicitation by URL, too.
#[test]
fn the_two_meanings_of_a_number_are_told_apart() {
    let elicitation = object(
        r#"{"code":-32042,"message":"x","data":{"elicitations":[{"mode":"url","elicitationId":"1","url":"https://a.example"}]}}"#,
    );
    assert_eq!(RpcError::classify(&elicitation), RpcError::UrlElicitation);
    let unclear = object(r#"{"code":-32042,"message":"x"}"#);
    assert!(matches!(RpcError::classify(&unclear), RpcError::Unclear(_)));
    let empty = object(r#"{"code":-32042,"message":"x","data":{"challenges":[]}}"#);
    assert!(matches!(RpcError::classify(&empty), RpcError::Unclear(_)));
    let mut both = required().to_object();
    both.insert("elicitations", vec![Json::Null]);
    let both = Object::new().with("code", parse("-32042")).with("data", both);
    assert!(matches!(RpcError::classify(&both), RpcError::PaymentRequired(_)));
    let failed = object(r#"{"code":-32043,"message":"x","data":{"failure":{"reason":"signature-invalid"}}}"#);
    assert_eq!(RpcError::classify(&failed), RpcError::VerificationFailed(None));
    assert_eq!(RpcError::classify(&object(r#"{"code":-32601,"message":"x"}"#)), RpcError::Other);
    assert_eq!(RpcError::classify(&object(r#"{"code":"-32042"}"#)), RpcError::Other);
}

#[test]
fn a_failure_has_its_own_number() {
    let failure = rpc::Failure { reason: Some("signature-invalid".into()), detail: None };
    let problem = Problem::new(ProblemType::VerificationFailed, "no");
    let mut failed = PaymentRequired::new(vec![challenge()], Some(problem));
    failed.failure = Some(failure);
    let RpcError::VerificationFailed(Some(read)) = RpcError::classify(&failed.to_error()) else { panic!() };
    assert_eq!(*read, failed);
    assert_eq!(rpc::code_of(&ProblemType::MalformedCredential), rpc::INVALID_PARAMS);
    assert_eq!(rpc::code_of(&ProblemType::InternalPaymentError), rpc::INTERNAL_ERROR);
}

#[test]
fn a_credential_is_found_in_either_place_and_in_one() {
    let credential = Credential::new(challenge(), object(r#"{"type":"hash"}"#), None);
    for request in [
        r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"x","_meta":{"progressToken":1}}}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"eth_call","params":["latest",false]}"#,
        r#"{"jsonrpc":"2.0","id":2,"method":"eth_call"}"#,
    ] {
        let mut request = object(request);
        assert_eq!(rpc::credential(&request), Ok(None));
        rpc::put_credential(&mut request, &credential);
        let read = rpc::credential(&request).expect("readable").expect("there");
        assert_eq!(read, credential);
        assert_eq!(secrets().verify(&read.challenge), Ok(IssuedUnder::Current));
        let meta = Object::new().with(rpc::CREDENTIAL, credential.to_native());
        let mut twice = request.clone();
        twice.insert("_meta", meta.clone());
        twice.insert("params", Object::new().with("_meta", meta));
        assert_eq!(rpc::credential(&twice), Err(MppError::SeveralCredentials));
    }
    let kept = object(r#"{"params":{"_meta":{"a":1}},"id":1}"#);
    let mut with = kept.clone();
    rpc::put_credential(&mut with, &credential);
    assert!(kept.is_subset_of(&with), "what else is in _meta stays");
    let bad = object(r#"{"params":{"_meta":{"org.paymentauth/credential":"Payment e30"}}}"#);
    assert_eq!(rpc::credential(&bad).expect_err("text").code(), "wrong_type");
}

#[test]
fn a_receipt_says_which_challenge_it_is_about() {
    let receipt = Receipt::new("evm", "0xab", "2026-11-21T12:00:00Z".parse().expect("a time"));
    for answer in [r#"{"id":1,"result":{"content":[],"_meta":{"a":1}}}"#, r#"{"id":1,"result":"0x1"}"#] {
        let mut answer = object(answer);
        assert_eq!(rpc::put_receipt(&mut answer, &receipt), Err(MppError::missing("challengeId")));
        assert_eq!(rpc::receipt(&answer), Ok(None));
        let about = receipt.clone().about(&challenge());
        rpc::put_receipt(&mut answer, &about).expect("complete");
        assert_eq!(rpc::receipt(&answer), Ok(Some(about)));
    }
}

#[test]
fn a_tools_result_may_ask_for_payment() {
    let mut result = object(r#"{"content":[],"isError":true}"#);
    assert_eq!(PaymentRequired::of_result(&result), Ok(None));
    required().put_into(&mut result);
    assert_eq!(PaymentRequired::of_result(&result), Ok(Some(required())));
    let bad = object(r#"{"_meta":{"org.paymentauth/payment-required":[]}}"#);
    assert_eq!(PaymentRequired::of_result(&bad).expect_err("an array").code(), "wrong_type");
}

#[test]
fn capabilities_are_read_and_printed() {
    let text = r#"{"methods":{"evm":{"intents":["charge","session"]},"stripe":{"intents":["charge"]}}}"#;
    let read = Capability::from_object(&object(text)).expect("readable");
    assert_eq!(read.to_object().to_string(), text);
    let odd = object(r#"{"methods":{"EVM":{"intents":["charge"]},"evm":{"intents":["charge",1,"a b"]}}}"#);
    let read = Capability::from_object(&odd).expect("readable");
    assert_eq!(read.to_object().to_string(), r#"{"methods":{"evm":{"intents":["charge"]}}}"#);
    assert_eq!(Capability::from_object(&object("{}")).expect_err("nothing").code(), "missing_member");
}

#[test]
fn notifications_are_never_paid() {
    assert!(rpc::can_be_paid(&object(r#"{"id":1}"#)) && rpc::can_be_paid(&object(r#"{"id":"a"}"#)));
    assert!(!rpc::can_be_paid(&object("{}")) && !rpc::can_be_paid(&object(r#"{"id":null}"#)));
}

/// One body for readers of both protocols.
#[test]
fn a_402_is_read_as_a_problem_and_as_x402() {
    let offer = object(
        r#"{"scheme":"exact","network":"base-sepolia","maxAmountRequired":"10000","resource":"https://a.example/",
            "description":"","mimeType":"","payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":60,
            "asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e"}"#,
    );
    let x402 = Object::new().with("x402Version", 1u64).with("accepts", vec![Json::from(offer)]);
    let mut x402 = v1::PaymentRequired::from_json(x402.into()).expect("an offer");
    let problem = Problem::new(ProblemType::PaymentRequired, "Payment is required.");
    for error in [None, Some("X-PAYMENT header is required".to_owned())] {
        x402.error = error.clone();
        let body = PaymentRequiredBody { problem: problem.clone(), x402: Some(x402.clone()) }.print();
        let read = Problem::parse(body.as_bytes()).expect("a problem");
        assert_eq!((&read.kind, read.status, &read.detail), (&problem.kind, 402, &problem.detail));
        let offers = v1::PaymentRequired::parse(body.as_bytes()).expect("an x402 challenge");
        assert_eq!(offers.accepts, x402.accepts);
        assert_eq!(offers.error, error.or(Some("Payment Required".into())));
    }
    // Without offers for version 1 there is nothing of it.
    x402.accepts.clear();
    for x402 in [None, Some(x402)] {
        let body = PaymentRequiredBody { problem: problem.clone(), x402 };
        assert_eq!(body.print(), problem.print());
    }
}

#[test]
fn a_control_is_in_no_challenge_whatever_carries_it() {
    for field in ["id", "realm", "description", "digest", "header", "opaque"] {
        for control in ["\u{7f}", "\n", "\0"] {
            let mut native = challenge().to_native();
            native.insert(field, format!("a{control}b"));
            let refused = Challenge::from_json(native.into()).expect_err("a control");
            assert_eq!(refused.code(), "bad_form", "{field}");
        }
    }
}

#[test]
fn native_and_base64_are_one_challenge() {
    let mut native = challenge().to_native();
    assert!(native.get("request").is_some_and(|request| request.as_object().is_some()));
    assert_eq!(Challenge::from_json(native.clone().into()), Ok(challenge()));
    native.insert("request", 1u64);
    assert_eq!(Challenge::from_json(native.into()).expect_err("a number").code(), "wrong_type");
}
