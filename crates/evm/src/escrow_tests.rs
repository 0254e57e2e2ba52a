//! The ABI against the artifact that is deployed.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use serde_json::Value;

use super::*;

const ARTIFACT: &str = include_str!("../../../contracts/artifacts/PaymentChannelEscrow.json");

/// The canonical signature of a type, tuples and all.
fn spelled(input: &Value) -> String {
    let name = input["type"].as_str().unwrap();
    match name.strip_prefix("tuple") {
        Some(suffix) => {
            let parts: Vec<String> = input["components"].as_array().unwrap().iter().map(spelled).collect();
            format!("({}){suffix}", parts.join(","))
        }
        None => name.to_owned(),
    }
}

/// Selector by signature, of everything of this kind in the artifact.
fn artifact(kind: &str) -> BTreeMap<String, [u8; 4]> {
    let artifact: Value = serde_json::from_str(ARTIFACT).unwrap();
    let of_kind = artifact["abi"].as_array().unwrap().iter().filter(|item| item["type"] == kind);
    of_kind
        .map(|item| {
            let inputs: Vec<String> = item["inputs"].as_array().unwrap().iter().map(spelled).collect();
            let signature = format!("{}({})", item["name"].as_str().unwrap(), inputs.join(","));
            let selector = keccak256(&signature)[..4].try_into().unwrap();
            (signature, selector)
        })
        .collect()
}

fn parts() -> ChannelParts {
    ChannelParts {
        payer: Address::repeat_byte(1),
        payee: Address::repeat_byte(2),
        token: Address::repeat_byte(3),
        salt: B256::repeat_byte(4),
        authorized_signer: Address::ZERO,
        escrow: Address::repeat_byte(5),
        chain_id: 1,
    }
}

#[test]
fn every_call_is_one_of_the_artifact() {
    let (id, bytes) = (B256::repeat_byte(7), Bytes::from_static(b"signature"));
    let authorization = Pull::Authorization {
        valid_after: U256::ZERO,
        valid_before: U256::MAX,
        nonce: id,
        signature: bytes.clone(),
    };
    let permit = Pull::Permit2 { nonce: U256::ONE, deadline: U256::MAX, signature: bytes.clone() };
    let allowed = PayeeAuthorization { channel: id, cumulative: 5, nonce: U256::ONE, deadline: U256::MAX };
    let ours = [
        ("open", open(&parts(), 5)),
        ("openWithAuthorization", open_with(&parts(), 5, &authorization)),
        ("openWithPermit2", open_with(&parts(), 5, &permit)),
        ("topUp", top_up(id, 5)),
        ("topUpWithAuthorization", top_up_with(id, 5, Address::ZERO, id, &authorization)),
        ("topUpWithPermit2", top_up_with(id, 5, Address::ZERO, id, &permit)),
        ("requestClose", request_close(id)),
        ("withdraw", withdraw(id)),
        ("settle", settle(id, 5, bytes.clone())),
        ("close", close(id, 5, bytes.clone())),
        ("settleWithAuthorization", settle_with_authorization(&allowed, bytes.clone(), bytes.clone())),
        ("closeWithAuthorization", close_with_authorization(&allowed, bytes.clone(), bytes.clone())),
        ("settleMany", settle_many(Address::ZERO, vec![(id, 5, bytes.clone())])),
        ("getChannel", get_channel(id)),
        ("getChannelsBatch", get_channels(vec![id, id])),
        ("CLOSE_GRACE_PERIOD", grace_period()),
    ];
    let theirs = artifact("function");
    for (name, data) in ours {
        let (signature, selector) =
            theirs.iter().find(|(signature, _)| signature.split('(').next() == Some(name)).unwrap();
        assert_eq!(data[..4], selector[..], "{signature}");
    }
}

#[test]
fn every_error_of_the_artifact_has_its_name() {
    let theirs = artifact("error");
    assert_eq!(theirs.len(), NAMES.len());
    for (signature, selector) in theirs {
        let name = signature.strip_suffix("()").expect("an error without arguments");
        assert!(matches!(revert(&selector), Revert::Named(known) if known == name), "{signature}");
    }
    // The name of another contract's error, which has arguments.
    let other = [keccak256("AuthorizationExpired(uint256,uint256)")[..4].to_vec(), vec![0; 64]].concat();
    assert_eq!(revert(&other), Revert::Named("AuthorizationExpired"));
    assert_eq!(revert(&[]), Revert::Empty);
    assert_eq!(revert(&[1, 2, 3, 4]), Revert::Unknown([1, 2, 3, 4]));
}

#[test]
fn a_channel_is_read_strictly() {
    let word = |number: u128| U256::from(number).to_be_bytes::<32>();
    let words = |payer: u128, finalized: u128| {
        [payer, 2, 3, 0, 1000, 400, 77, finalized].into_iter().flat_map(word).collect::<Vec<u8>>()
    };
    let good = words(1, 1);
    let read = as_channel(&good).unwrap();
    assert_eq!((read.deposit, read.settled, read.close_requested_at), (1000, 400, 77));
    assert!(read.finalized && read.exists());
    assert_eq!(read.voucher_signer(), read.payer);
    assert!(!as_channel(&words(0, 0)).unwrap().exists());
    // No code there answers nothing, which is no channel of zeros.
    assert_eq!(as_channel(&[]), None);
    assert_eq!(as_channel(&good[..255]), None);
    assert_eq!(as_channel(&[good.clone(), vec![0]].concat()), None);
    assert_eq!(as_channel(&words(1, 2)), None, "neither yes nor no");
    assert_eq!(
        as_channel(&words(u128::MAX, 0)).unwrap().payer,
        Address::left_padding_from(&u128::MAX.to_be_bytes())
    );
    let mut beyond = good.clone();
    beyond[4 * 32] = 1;
    assert_eq!(as_channel(&beyond), None, "a deposit beyond 128 bits");
    let mut dirty = good.clone();
    dirty[0] = 1;
    assert_eq!(as_channel(&dirty), None, "an address beyond 160 bits");
    let batch = [word(32).to_vec(), word(2).to_vec(), good.clone(), good.clone()].concat();
    assert_eq!(as_channels(&batch, 2), Some(vec![read, read]));
    assert_eq!(as_channels(&batch, 3), None);
    assert_eq!(as_channels(&batch[..batch.len() - 1], 2), None);
    assert_eq!(as_grace_period(&word(900)), Some(900));
    assert_eq!(as_grace_period(&[]), None);
}
