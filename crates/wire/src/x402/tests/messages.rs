//! What the vectors do not show: offers that cannot be read, envelopes that contradict themselves, codes, bounds.

use crate::x402::error_code::MAX_CODE_BYTES;
use crate::x402::extra::{self, PaymentFlow, TransferMethod};
use crate::x402::facilitator::{PaymentRequest, SupportedResponse, VerifyResponse};
use crate::x402::header::{MAX_PAYMENT_HEADER_BYTES, encode};
use crate::x402::{ErrorCode, Message, SettlementResponse, WireError, v1, v2};
use crate::{Json, JsonError, Object};

const ASSET: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";

fn offer() -> Object {
    Object::new()
        .with("scheme", "exact")
        .with("network", "eip155:84532")
        .with("amount", "10000")
        .with("asset", ASSET)
        .with("payTo", ASSET)
        .with("maxTimeoutSeconds", 60u64)
}

fn challenge(accepts: Vec<Json>) -> Result<v2::PaymentRequired, WireError> {
    let resource = Object::new().with("url", "https://a.example/");
    let json = Object::new().with("x402Version", 2u64).with("resource", resource).with("accepts", accepts);
    v2::PaymentRequired::from_json(json.into())
}

#[test]
fn an_offer_that_cannot_be_read_hides_no_other() {
    let fiat = offer().with("asset", "USD");
    let huge = offer().with("amount", "340282366920938463463374607431768211456");
    let read = challenge(vec![fiat.clone().into(), offer().into(), huge.into()]).expect("one is readable");
    assert_eq!(read.accepts.len(), 1);
    assert!(matches!(read.unreadable[0], WireError::Address { field: "asset", .. }));
    assert_eq!(read.unreadable[1], WireError::BeyondU128 { field: "amount" });
    assert_eq!(challenge(vec![fiat.into()]), Err(WireError::NoReadableRequirements));
    assert_eq!(challenge(vec![]), Err(WireError::Empty { field: "accepts" }));
    let many = vec![Json::from(offer()); v2::MAX_ACCEPTS];
    assert!(challenge(many.clone()).is_ok());
    let more = [many, vec![offer().into()]].concat();
    assert_eq!(challenge(more), Err(WireError::TooMany { field: "accepts", limit: v2::MAX_ACCEPTS }));
}

#[test]
fn version_1_passes_over_networks_without_a_name() {
    let offer = |network: &str| {
        let mut offer = offer()
            .with("network", network)
            .with("maxAmountRequired", "5")
            .with("resource", "https://a.example/");
        offer.remove("amount");
        Json::from(offer)
    };
    let read = |accepts: Vec<Json>| {
        v1::PaymentRequired::from_json(
            Object::new().with("x402Version", 1u64).with("accepts", accepts).into(),
        )
    };
    let challenge = read(vec![offer("moonbeam"), offer("base"), offer("eip155:8453")]).expect("one is known");
    assert_eq!(challenge.accepts.len(), 1);
    assert_eq!(challenge.accepts[0].network.network().as_str(), "eip155:8453");
    // Spec: v1 section 5.1.2 requires these two; nothing depends on them.
    assert_eq!(
        (challenge.accepts[0].description.as_str(), challenge.accepts[0].mime_type.as_str()),
        ("", "")
    );
    assert_eq!(challenge.unreadable.len(), 2);
    assert_eq!(
        read(vec![offer("moonbeam")]).expect_err("none").code(),
        ErrorCode::InvalidPaymentRequirements
    );
}

#[test]
fn addresses_keep_the_case_they_came_in() {
    let read = v2::PaymentRequirements::from_json(offer().into()).expect("well-formed");
    assert_eq!((read.asset.as_str(), read.asset.address().as_str()), (ASSET, &*ASSET.to_lowercase()));
    assert_eq!(read.to_json(), offer().into());
    assert_eq!(read.money().atoms(), 10_000);
}

fn envelope(outer: Option<Json>, inner: Json) -> Result<PaymentRequest, WireError> {
    let payload = Object::new()
        .with("x402Version", inner)
        .with("accepted", offer())
        .with("scheme", "exact")
        .with("network", "base-sepolia")
        .with("payload", Object::new());
    let json = Object::new()
        .with_some("x402Version", outer)
        .with("paymentPayload", payload)
        .with("paymentRequirements", offer().with("maxAmountRequired", "5").with("resource", "x"));
    PaymentRequest::from_json(json.into())
}

#[test]
fn an_envelope_agrees_with_what_is_in_it() {
    let v2 = || Json::from(2u64);
    assert!(envelope(Some(v2()), v2()).is_ok());
    assert!(envelope(None, v2()).is_ok());
    assert!(envelope(Some(Json::Null), v2()).is_ok());
    for (outer, inner) in [
        (Some(1u64.into()), v2()),
        (Some(v2()), 1u64.into()),
        (Some("2".into()), v2()),
        (None, 3u64.into()),
        (None, Json::Null),
    ] {
        let error = envelope(outer, inner).expect_err("contradiction");
        assert_eq!(error.code(), ErrorCode::InvalidX402Version);
    }
    // The requirements of a v2 request, read as those of v1: a network by CAIP-2 is not one of v1.
    assert_eq!(
        envelope(Some(1u64.into()), 1u64.into()).expect_err("mixed").code(),
        ErrorCode::InvalidNetwork
    );
}

#[test]
fn faults_of_the_server_and_of_the_buyer_have_different_codes() {
    let request = |payload: Object, requirements: Object| {
        let payload = payload.with("x402Version", 2u64).with("payload", Object::new());
        let json = Object::new().with("paymentPayload", payload).with("paymentRequirements", requirements);
        PaymentRequest::from_json(json.into()).expect_err("malformed").code()
    };
    let accepted = || Object::new().with("accepted", offer());
    let mut unpriced = offer();
    unpriced.remove("amount");
    assert_eq!(request(accepted(), unpriced), ErrorCode::InvalidPaymentRequirements);
    assert_eq!(request(Object::new(), offer()), ErrorCode::InvalidPayload);
    assert_eq!(request(accepted(), offer().with("network", "nowhere")), ErrorCode::InvalidNetwork);
}

#[test]
fn a_header_is_measured_before_it_is_read() {
    let payment = |bytes: usize| {
        // Three bytes of text are four of base64.
        let json = Object::new().with("x", "y".repeat(bytes / 4 * 3 - 8));
        encode(&json.into())
    };
    let fits = payment(MAX_PAYMENT_HEADER_BYTES);
    assert_eq!(fits.len(), MAX_PAYMENT_HEADER_BYTES);
    assert_eq!(v2::PaymentPayload::from_header(fits.as_bytes()), Err(WireError::Version(None)));
    let long = payment(MAX_PAYMENT_HEADER_BYTES + 4);
    let limit = MAX_PAYMENT_HEADER_BYTES;
    assert_eq!(v2::PaymentPayload::from_header(long.as_bytes()), Err(WireError::HeaderTooLong { limit }));
    assert_eq!(v1::PaymentPayload::from_header(long.as_bytes()), Err(WireError::HeaderTooLong { limit }));
    // A challenge may be longer than a payment.
    assert_eq!(v2::PaymentRequired::from_header(long.as_bytes()), Err(WireError::Version(None)));
}

#[test]
fn a_payment_has_no_room_for_many_small_values() {
    let json = Json::from(vec![Json::from(0u64); 2000]);
    let error = v2::PaymentPayload::from_header(encode(&json).as_bytes());
    assert!(matches!(error, Err(WireError::Json(JsonError::TooManyValues { .. }))), "{error:?}");
}

#[test]
fn pending_is_neither_success_nor_failure() {
    let pending = SettlementResponse::pending("eip155:84532", "0xab", Some("0xcd"));
    assert_eq!(
        pending.print(),
        r#"{"success":false,"errorReason":"settlement_pending","payer":"0xcd","transaction":"0xab","network":"eip155:84532"}"#
    );
    assert!(pending.is_pending());
    let failed = SettlementResponse::failed("base", ErrorCode::InsufficientFunds, None);
    assert_eq!(
        failed.print(),
        r#"{"success":false,"errorReason":"insufficient_funds","transaction":"","network":"base"}"#
    );
    assert!(!failed.is_pending());
    assert_eq!(failed.parsed_network().expect("known").as_str(), "eip155:8453");
    let settled = SettlementResponse::settled("eip155:84532", "0xab", None);
    assert!(settled.success && !settled.is_pending());
}

#[test]
fn answers_of_old_peers_are_read() {
    let read = |text: &str| SettlementResponse::parse(text.as_bytes());
    let sparse = read(r#"{"success":false,"errorReason":null,"transaction":null}"#).expect("tolerated");
    assert_eq!((sparse.transaction.as_str(), sparse.network.as_str(), sparse.error_reason), ("", "", None));
    assert_eq!(read("{}"), Err(WireError::Missing { field: "success" }));
    assert!(matches!(read(r#"{"success":"true"}"#), Err(WireError::WrongType { field: "success", .. })));
    assert_eq!(read("<html>"), Err(WireError::Json(JsonError::Unexpected { at: 0 })));
    assert!(VerifyResponse::parse(br#"{"isValid":1}"#).is_err());
    let kinds = br#"{"kinds":[{"x402Version":1,"scheme":"exact","network":"base"}]}"#;
    let supported = SupportedResponse::parse(kinds).expect("v1 has kinds alone");
    assert_eq!((supported.kinds.len(), supported.extensions.len(), supported.signers.len()), (1, 0, 0));
}

#[test]
fn codes_have_one_name_each() {
    for code in ErrorCode::ALL {
        assert_eq!(&ErrorCode::from(code.as_str()), code);
        assert!(
            code.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "{code}"
        );
    }
    let mut names: Vec<_> = ErrorCode::ALL.iter().map(ErrorCode::as_str).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ErrorCode::ALL.len());
    assert_eq!(ErrorCode::SettlementPending.as_str(), "settlement_pending");
    assert_eq!(ErrorCode::from("rpc: out of gas"), ErrorCode::Other("rpc: out of gas".into()));
}

#[test]
fn a_peers_own_code_is_cut_between_characters() {
    let long = format!("{}€uro", "x".repeat(MAX_CODE_BYTES - 1));
    assert_eq!(ErrorCode::from(long).as_str(), "x".repeat(MAX_CODE_BYTES - 1));
}

#[test]
fn the_reserved_members_of_extra_have_defaults() {
    let with = |key: &str, value: Json| Some(Object::new().with(key, value));
    let method = |extra: Option<Object>| TransferMethod::of(extra.as_ref());
    let flow = |extra: Option<Object>| PaymentFlow::of(extra.as_ref());
    assert_eq!((method(None), flow(None)), (Ok(TransferMethod::Eip3009), Ok(PaymentFlow::Authorization)));
    for known in [TransferMethod::Eip3009, TransferMethod::Permit2] {
        assert_eq!(method(with(extra::ASSET_TRANSFER_METHOD, known.as_str().into())), Ok(known));
    }
    for known in [PaymentFlow::Authorization, PaymentFlow::Upfront, PaymentFlow::Escrow] {
        assert_eq!(flow(with(extra::PAYMENT_FLOW, known.as_str().into())), Ok(known));
    }
    assert_eq!(method(with(extra::ASSET_TRANSFER_METHOD, Json::Null)), Ok(TransferMethod::Eip3009));
    assert_eq!(
        method(with(extra::ASSET_TRANSFER_METHOD, "erc7710".into())),
        Err(WireError::UnsupportedPayload)
    );
    assert_eq!(flow(with(extra::PAYMENT_FLOW, "later".into())), Err(WireError::UnsupportedFlow));
    assert!(matches!(flow(with(extra::PAYMENT_FLOW, true.into())), Err(WireError::WrongType { .. })));
}
