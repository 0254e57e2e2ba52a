//! The ABI against the artifact that is deployed.

use std::collections::BTreeMap;

use alloy_sol_types::{SolError, SolInterface};
use serde_json::Value;

use super::*;
use crate::keccak256;

fn artifact() -> Value {
    serde_json::from_str(ARTIFACT).unwrap()
}

/// The canonical type of an argument, tuples and all.
fn spelled(input: &Value) -> String {
    let name = input["type"].as_str().unwrap();
    let Some(suffix) = name.strip_prefix("tuple") else { return name.to_owned() };
    let parts: Vec<String> = input["components"].as_array().unwrap().iter().map(spelled).collect();
    format!("({}){suffix}", parts.join(","))
}

/// Keccak-256 of the signature by name, of everything of this kind in the artifact.
fn hashes(kind: &str) -> BTreeMap<String, B256> {
    let artifact = artifact();
    let of_kind = artifact["abi"].as_array().unwrap().iter().filter(|item| item["type"] == kind);
    of_kind
        .map(|item| {
            let inputs: Vec<String> = item["inputs"].as_array().unwrap().iter().map(spelled).collect();
            let name = item["name"].as_str().unwrap();
            (name.to_owned(), keccak256(format!("{name}({})", inputs.join(","))))
        })
        .collect()
}

fn parts() -> Parts {
    Parts {
        owner: Address::repeat_byte(1),
        guardian: Address::repeat_byte(2),
        hot_wallet: Address::repeat_byte(3),
        delay: 86_400,
        limits: vec![(Address::repeat_byte(4), LIMITS)],
    }
}

const LIMITS: Limits = Limits { per_hour: 1, per_day: u128::MAX, target: 3 };

#[test]
fn every_function_of_the_artifact_is_called_here_and_no_other() {
    let token = Address::repeat_byte(4);
    let mut ours: Vec<Bytes> = vec![
        refill(token),
        freeze(),
        tighten(token, LIMITS),
        cancel(Topic::Limits(token)),
        announce(Change::Unfreeze),
        apply(Topic::Delay),
        lengthen_delay(7),
        withdraw(token, token, 5),
        offer_ownership(token),
        accept_ownership(),
    ];
    ours.extend(state_reads());
    ours.extend(token_reads(token));
    let ours: BTreeMap<[u8; 4], usize> =
        ours.iter().map(|data| (data[..4].try_into().unwrap(), data.len())).collect();
    for (name, hash) in hashes("function") {
        // The constants are known here.
        let constant = name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        assert_eq!(ours.contains_key(&hash[..4]), !constant, "{name}");
    }
    let theirs = hashes("function");
    assert!(ours.keys().all(|selector| theirs.values().any(|hash| hash[..4] == *selector)));
}

#[test]
fn every_error_of_the_artifact_has_its_name() {
    let theirs = hashes("error");
    assert_eq!(theirs.len(), vault::AllowanceVaultErrors::COUNT);
    for (name, hash) in theirs {
        let mut data = hash[..4].to_vec();
        data.extend([0; 32]);
        assert_eq!(revert(&data).to_string(), name);
    }
    assert_eq!(revert(&vault::IsFrozen::SELECTOR).to_string(), "IsFrozen");
    assert_eq!(revert(b""), Revert::decode(b""));
}

#[test]
fn events_are_those_of_the_artifact() {
    let theirs = hashes("event");
    assert_eq!(theirs["Refilled"], vault::Refilled::SIGNATURE_HASH);
    assert_eq!(theirs["Announced"], vault::Announced::SIGNATURE_HASH);
    let word = |byte| B256::left_padding_from(&Address::repeat_byte(byte)[..]);
    let amount = B256::from(U256::from(40_000_000));
    let mut log = Log {
        address: Address::ZERO,
        topics: vec![vault::Refilled::SIGNATURE_HASH, word(4), word(3), word(9)],
        data: amount.to_vec().into(),
        index: 0,
    };
    let said = Refilled {
        token: Address::repeat_byte(4),
        hot_wallet: Address::repeat_byte(3),
        by: Address::repeat_byte(9),
        amount: 40_000_000,
    };
    assert_eq!(Refilled::decode(&log), Some(said));
    log.topics.pop();
    assert_eq!(Refilled::decode(&log), None, "a topic is missing");

    let change = Change::Limits { token: Address::repeat_byte(4), limits: LIMITS };
    let data = (LIMITS.to_abi(), 0_u32, U256::from(1_800_086_400_u64)).abi_encode_params();
    let mut log = Log {
        address: Address::ZERO,
        topics: vec![vault::Announced::SIGNATURE_HASH, B256::ZERO, word(4)],
        data: data.into(),
        index: 0,
    };
    assert_eq!(Announcement::decode(&log), Some(Announcement { change, ready_at: 1_800_086_400 }));
    log.topics[1] = B256::with_last_byte(5);
    assert_eq!(Announcement::decode(&log), None, "no such kind");
}

#[test]
fn the_code_that_is_known_is_the_one_that_is_built() {
    let artifact = artifact();
    let hex = |field: &Value| field.as_str().unwrap().parse::<Bytes>().unwrap();
    assert_eq!(hex(&artifact["deployment"]["runtimeCodeHash"]), CODE_HASH.to_vec());
    assert_eq!(keccak256(hex(&artifact["deployedBytecode"])), CODE_HASH);
    assert_eq!(hex(&artifact["deployment"]["deployer"]), CREATE2_DEPLOYER.to_vec());
}

#[test]
fn a_vault_lies_where_its_parts_put_it() {
    let one = parts();
    let data = one.deployment();
    assert_eq!(data[..32], [0; 32], "the salt");
    let code = &data[32..];
    assert!(code.starts_with(&CREATION_CODE));
    // Spec: EIP-1014: keccak256(0xff ++ deployer ++ salt ++ keccak256(code))[12..].
    let mut preimage = vec![0xff];
    preimage.extend(CREATE2_DEPLOYER);
    preimage.extend([0; 32]);
    preimage.extend(keccak256(code));
    assert_eq!(one.address(), Address::from_slice(&keccak256(preimage)[12..]));
    let others = [
        Parts { owner: Address::repeat_byte(9), ..one.clone() },
        Parts { guardian: Address::ZERO, ..one.clone() },
        Parts { hot_wallet: Address::repeat_byte(9), ..one.clone() },
        Parts { delay: 3_600, ..one.clone() },
        Parts { limits: Vec::new(), ..one.clone() },
    ];
    assert!(others.iter().all(|other| other.address() != one.address()));
}

fn words(words: &[u128]) -> Bytes {
    words.iter().flat_map(|word| U256::from(*word).to_be_bytes::<32>()).collect::<Vec<u8>>().into()
}

#[test]
fn a_vault_is_read_strictly() {
    let nothing = words(&[0; 7]);
    let mut answers = vec![words(&[1]), words(&[0]), words(&[2]), words(&[3]), words(&[86_400]), words(&[1])];
    answers.push(words(&[32, 1, 4]));
    answers.extend([words(&[1, 9, 0, 0, 0, 0, 1_800_000_000]), nothing.clone(), nothing.clone(), nothing]);
    let number = |n| Address::left_padding_from(&[n]);
    let state = as_state(&answers).unwrap();
    assert_eq!((state.owner, state.hot_wallet, state.guardian), (number(1), number(3), number(2)));
    assert_eq!((state.delay, state.frozen, &state.tokens[..]), (86_400, true, &[number(4)][..]));
    let waiting = Announcement { change: Change::HotWallet(number(9)), ready_at: 1_800_000_000 };
    assert_eq!(state.announced, [waiting]);

    for at in 0..answers.len() {
        let mut wrong = answers.clone();
        wrong[at] = Bytes::new();
        assert_eq!(as_state(&wrong), None, "an answer of a place without code, at {at}");
        wrong[at] = [0xff; 32].into();
        assert_eq!(as_state(&wrong), None, "a word that is too large, at {at}");
    }
    let mut wrong = answers.clone();
    wrong[6] = words(&[&[32, 17][..], &[4; 17][..]].concat());
    assert_eq!(as_state(&wrong), None, "more tokens than a vault has");
    wrong.pop();
    assert_eq!(as_state(&wrong), None);
}

#[test]
fn a_token_is_read_strictly() {
    let answers = [
        words(&[1, u128::MAX, 3]),
        words(&[5, 6]),
        words(&[7]),
        words(&[0, 4, 10, 20, 30, 0, 1_800_000_000]),
    ];
    let token = as_token_state(&answers).unwrap();
    assert_eq!((token.limits, token.used_hour, token.used_day, token.refillable), (LIMITS, 5, 6, 7));
    let limits = Limits { per_hour: 10, per_day: 20, target: 30 };
    let change = Change::Limits { token: Address::left_padding_from(&[4]), limits };
    assert_eq!(token.announced, Some(Announcement { change, ready_at: 1_800_000_000 }));
    for at in 0..answers.len() {
        let mut wrong = answers.clone();
        wrong[at] = Bytes::new();
        assert_eq!(as_token_state(&wrong), None, "no answer at {at}");
    }
}

#[test]
fn limits_are_within_others_when_none_is_above() {
    let limits = Limits { per_hour: 5, per_day: 5, target: 5 };
    assert!(limits.are_within(&limits));
    assert!(Limits { per_hour: 0, ..limits }.are_within(&limits));
    for looser in
        [Limits { per_hour: 6, ..limits }, Limits { per_day: 6, ..limits }, Limits { target: 6, ..limits }]
    {
        assert!(!looser.are_within(&limits));
    }
}

#[test]
fn every_change_is_what_it_says() {
    let who = Address::repeat_byte(9);
    let changes = [
        Change::Limits { token: who, limits: LIMITS },
        Change::HotWallet(who),
        Change::Guardian(who),
        Change::Delay(7),
        Change::Unfreeze,
    ];
    for change in changes {
        let encoded = change.to_abi();
        assert_eq!(Change::of_abi(&encoded), Some(change));
        let (kind, slot) = change.topic().to_abi();
        assert_eq!(encoded.kind as u8, kind as u8);
        assert_eq!(slot, if matches!(kind, Kind::Limits) { who } else { Address::ZERO });
    }
}
