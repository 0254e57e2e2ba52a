//! Sessions on EVM. No published package has them yet: these are the draft's own examples, their shortened values
//! written out, and printed by ourselves alone.

use super::object;
use crate::mpp::evm::{ChargePayload, CredentialType, DepositFor, Funding, Session, SessionPayload};
use crate::mpp::{MppError, SessionReceipt, SessionRequest};
use crate::{Json, Object};

const CHANNEL: &str = "0x6d0f4fdf1f2f6a1f6c1b0fbd6a7d5c2c0a8d3d7b1f6a9c1b3e2d4a5b6c7d8e9f";
const SALT: &str = "0xaaaa1234bbbb5678cccc9012dddd3456eeee7890ffff1234aaaa5678bbbb9012";
const SIGNER: &str = "0x742d35cc6634c0532925a3b844bc9e7595f8fe00";
const FROM: &str = "0xaabbccddee11223344556677889900aabbccddee";
const ESCROW: &str = "0x1234567890abcdef1234567890abcdef12345678";
const TOKEN: &str = "0x74b7f16337b8972027f6196a17a631ac6de26d22";
const HASH: &str = "0x9f8e7d6c5b4a39281700abcdef1234567890abcdef1234567890abcdef123456";

fn signature(byte: &str) -> String {
    format!("0x{}", byte.repeat(65))
}

fn authorization(value: &str) -> String {
    format!(
        r#"{{"from":"{FROM}","to":"{ESCROW}","value":"{value}","validAfter":"0","validBefore":"1743523500","nonce":"{HASH}"}}"#
    )
}

fn permit(amount: &str, witness: &str) -> String {
    format!(
        r#"{{"from":"{FROM}","permitted":{{"token":"{TOKEN}","amount":"{amount}"}},"nonce":"1","deadline":"1743523500","witness":{witness}}}"#
    )
}

fn opening() -> String {
    format!(r#"{{"payee":"{SIGNER}","salt":"{SALT}","authorizedSigner":"{SIGNER}"}}"#)
}

/// Every payload of the draft, as we print it.
fn payloads() -> Vec<String> {
    let (a, b) = (signature("ab"), signature("12"));
    let (pull, top_up) = (authorization("10000000"), authorization("5000000"));
    let (open2, more2) =
        (permit("10000000", &opening()), permit("5000000", &format!(r#"{{"channelId":"{CHANNEL}"}}"#)));
    let tail = format!(r#""authorizedSigner":"{SIGNER}","salt":"{SALT}""#);
    vec![
        format!(
            r#"{{"action":"open","type":"hash","channelId":"{CHANNEL}","hash":"{HASH}","cumulativeAmount":"0","signature":"{a}",{tail}}}"#
        ),
        format!(
            r#"{{"action":"open","type":"authorization","channelId":"{CHANNEL}","authorization":{pull},"signature":"{a}","cumulativeAmount":"0","voucherSignature":"{b}",{tail}}}"#
        ),
        format!(
            r#"{{"action":"open","type":"permit2","channelId":"{CHANNEL}","authorization":{open2},"signature":"{a}","cumulativeAmount":"0","voucherSignature":"{b}",{tail}}}"#
        ),
        format!(
            r#"{{"action":"topUp","type":"hash","channelId":"{CHANNEL}","hash":"{HASH}","additionalDeposit":"5000000"}}"#
        ),
        format!(
            r#"{{"action":"topUp","type":"authorization","channelId":"{CHANNEL}","salt":"{SALT}","authorization":{top_up},"signature":"{a}","additionalDeposit":"5000000"}}"#
        ),
        format!(
            r#"{{"action":"topUp","type":"permit2","channelId":"{CHANNEL}","authorization":{more2},"signature":"{a}","additionalDeposit":"5000000"}}"#
        ),
        format!(
            r#"{{"action":"voucher","channelId":"{CHANNEL}","cumulativeAmount":"250000","signature":"{a}"}}"#
        ),
        format!(
            r#"{{"action":"voucher","channelId":"{CHANNEL}","cumulativeAmount":"15000000","signature":"{a}","deposit":{{"action":"topUp","type":"authorization","salt":"{SALT}","authorization":{top_up},"signature":"{b}"}}}}"#
        ),
        format!(
            r#"{{"action":"voucher","channelId":"{CHANNEL}","cumulativeAmount":"100","signature":"{a}","deposit":{{"action":"open","type":"permit2","salt":"{SALT}","authorizedSigner":"{SIGNER}","authorization":{open2},"signature":"{b}"}}}}"#
        ),
        format!(
            r#"{{"action":"close","channelId":"{CHANNEL}","cumulativeAmount":"500000","signature":"{a}"}}"#
        ),
    ]
}

#[test]
fn every_payload_of_the_draft_comes_back() {
    for text in payloads() {
        let read = SessionPayload::from_object(&object(&text)).expect(&text);
        assert_eq!(read.to_object().to_string(), text);
        assert_eq!(read.channel_id()[..2], [0x6d, 0x0f]);
    }
}

#[test]
fn every_member_of_a_payload_is_needed_and_has_its_type() {
    // What may be left out, and then means something else that is whole.
    let optional = |text: &str, key: &str| match key {
        "authorizedSigner" => !text.contains("permit2"),
        "deposit" => true,
        // With a hash there is no other signature; a voucher's signature is then in its place.
        _ => false,
    };
    for text in payloads() {
        let whole = object(&text);
        for (key, _) in whole.iter() {
            let mut less = whole.clone();
            less.remove(key);
            let read = SessionPayload::from_object(&less);
            assert_eq!(read.is_ok(), optional(&text, key), "{text} without {key}: {read:?}");
            let odd = whole.clone().with(key, true);
            assert!(SessionPayload::from_object(&odd).is_err(), "{text} with true for {key}");
        }
    }
}

#[test]
fn what_is_said_twice_is_said_alike() {
    let change = |at: usize, from: &str, to: &str| {
        let text = payloads()[at].replacen(from, to, 1);
        assert_ne!(text, payloads()[at]);
        SessionPayload::from_object(&object(&text)).map(|_| ())
    };
    let other = "0x209693bc6afc0c5328ba36faf03c514ef312287c";
    let amount = MppError::Contradiction { field: "additionalDeposit", other: "authorization" };
    for at in [4, 5] {
        assert_eq!(
            change(at, "\"additionalDeposit\":\"5000000\"", "\"additionalDeposit\":\"5000001\""),
            Err(amount.clone())
        );
    }
    let witness = Err(MppError::Contradiction { field: "witness", other: "payload" });
    assert_eq!(
        change(
            2,
            &format!("\"authorizedSigner\":\"{SIGNER}\""),
            &format!("\"authorizedSigner\":\"{other}\"")
        ),
        witness
    );
    assert_eq!(change(2, &format!("\"salt\":\"{SALT}\""), &format!("\"salt\":\"{HASH}\"")), witness);
    assert_eq!(change(2, &opening(), &format!(r#"{{"channelId":"{CHANNEL}"}}"#)), witness);
    assert_eq!(change(5, CHANNEL, HASH), witness);
    assert_eq!(change(8, &format!("\"salt\":\"{SALT}\""), &format!("\"salt\":\"{HASH}\"")), witness);
    let unknown = |field| Err(MppError::Unknown { field });
    assert_eq!(change(0, "\"type\":\"hash\"", "\"type\":\"transaction\""), unknown("type"));
    assert_eq!(change(6, "voucher", "refund"), unknown("action"));
    assert_eq!(change(7, "\"action\":\"topUp\"", "\"action\":\"close\""), unknown("action"));
}

#[test]
fn a_deposit_is_never_a_hash() {
    let text = format!(
        r#"{{"action":"voucher","channelId":"{CHANNEL}","cumulativeAmount":"1","signature":"{}","deposit":{{"action":"topUp","type":"hash","hash":"{HASH}"}}}}"#,
        signature("ab")
    );
    assert_eq!(SessionPayload::from_object(&object(&text)), Err(MppError::Unknown { field: "type" }));
    let Ok(SessionPayload::Voucher(voucher)) = SessionPayload::from_object(&object(&payloads()[8])) else {
        panic!("no voucher")
    };
    let deposit = voucher.deposit.expect("a deposit");
    assert!(matches!(deposit.for_what, DepositFor::Open { authorized_signer: Some(_), .. }));
    assert_eq!(
        (deposit.funding.amount(), deposit.funding.kind()),
        (Some(10_000_000), CredentialType::Permit2)
    );
    assert!(matches!(deposit.funding, Funding::Permit2 { .. }));
}

#[test]
fn the_drafts_requests_are_read() {
    let new = object(
        r#"{"amount":"100","unitType":"llm_token","suggestedDeposit":"5000000",
            "currency":"0x74b7F16337b8972027F6196A17a631ac6dE26d22","recipient":"0x742d35cc6634c0532925a3b844bc9e7595f8fe00",
            "methodDetails":{"escrowContract":"0x1234567890abcdef1234567890abcdef12345678","chainId":196,"minVoucherDelta":"10000"}}"#,
    );
    let session = SessionRequest::from_object(&new).expect("shared members");
    let session = Session::from_request(&session).expect("details");
    assert_eq!(
        (session.amount, session.suggested_deposit, session.min_voucher_delta),
        (100, Some(5_000_000), 10_000)
    );
    assert_eq!((session.network.as_str(), session.fee_payer), ("eip155:196", false));
    assert_eq!(session.credential_types, [CredentialType::Hash], "the draft's default");
    assert_eq!((session.channel_id, session.unit_price().atoms()), (None, 100));
    assert_eq!(Session::from_request(&session.to_request()), Ok(session.clone()));

    let mut details = session.to_request().method_details.expect("details");
    details.insert("channelId", CHANNEL);
    details.insert("feePayer", true);
    details.insert("credentialTypes", super::parse(r#"["permit2","of-tomorrow","authorization","permit2"]"#));
    details.insert("sessionProtocol", "v2");
    let request = SessionRequest { method_details: Some(details), ..session.to_request() };
    let resumed = Session::from_request(&request).expect("details");
    assert!(resumed.fee_payer && resumed.channel_id.is_some());
    assert_eq!(resumed.credential_types, [CredentialType::Permit2, CredentialType::Authorization]);
    assert_eq!(resumed.other_details.get_str("sessionProtocol"), Some("v2"));
    assert_eq!(Session::from_request(&resumed.to_request()), Ok(resumed));
}

#[test]
fn the_drafts_receipts_are_read() {
    let text = format!(
        r#"{{"method":"evm","intent":"session","status":"success","timestamp":"2026-04-01T12:10:00Z","challengeId":"kM9xPqWvT2nJrHsY4aDfEb","reference":"{CHANNEL}","channelId":"{CHANNEL}","chainId":196,"acceptedCumulative":"250000","spent":"250000","txHash":"{HASH}"}}"#
    );
    let receipt = crate::mpp::Receipt::from_json(object(&text).into()).expect("readable");
    let session = receipt.session().expect("whole").expect("a session");
    assert_eq!((session.chain_id, session.spent, session.units), (Some(196), 250_000, None));
    assert_eq!(Json::from(session.to_receipt().to_object()), Json::from(object(&text)));
    let without = |key: &str| {
        let mut less = object(&text);
        less.remove(key);
        crate::mpp::Receipt::from_json(less.into()).expect("a receipt").session()
    };
    for key in ["challengeId", "channelId", "acceptedCumulative", "spent"] {
        assert_eq!(without(key).expect_err(key).code(), "missing_member");
    }
    assert_eq!(without("intent"), Ok(None::<SessionReceipt>));
}

#[test]
fn permit2_charges_are_read() {
    let entry = |amount: &str| format!(r#"{{"token":"{TOKEN}","amount":"{amount}"}}"#);
    let to = |amount: &str| format!(r#"{{"to":"{SIGNER}","requestedAmount":"{amount}"}}"#);
    let payload = |permitted: &str, transfers: &str| {
        format!(
            r#"{{"type":"permit2","permit":{{"permitted":[{permitted}],"nonce":"1","deadline":"1743523500"}},"transferDetails":[{transfers}],"witness":{{"challengeHash":"{HASH}","externalId":"order_1"}},"signature":"{}"}}"#,
            signature("ab")
        )
    };
    let two = payload(&format!("{},{}", entry("1000"), entry("50")), &format!("{},{}", to("1000"), to("50")));
    for text in [payload(&entry("1000"), &to("1000")), two] {
        let read = ChargePayload::from_object(&object(&text)).expect(&text);
        assert_eq!(read.to_object().to_string(), text);
        assert_eq!(read.credential_type(), CredentialType::Permit2);
    }
    let uneven = payload(&entry("1000"), &format!("{},{}", to("1000"), to("50")));
    let error = MppError::Contradiction { field: "transferDetails", other: "permitted" };
    assert_eq!(ChargePayload::from_object(&object(&uneven)), Err(error));
    let code = |text: &str| ChargePayload::from_object(&object(text)).expect_err(text).code();
    assert_eq!(code(&payload("", "")), "empty_member");
    let many = vec![entry("1"); 12].join(",");
    assert_eq!(code(&payload(&many, &many)), "too_many");
    assert_eq!(code(&payload("1", &to("1"))), "wrong_type");
    assert_eq!(ChargePayload::from_object(&Object::new()).expect_err("nothing").code(), "missing_member");
    assert_eq!(code(r#"{"type":"bundle"}"#), "unknown");
}
