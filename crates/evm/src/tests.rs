use std::path::Path;

use alloy_primitives::{Address, B256, Bytes, U256, hex, keccak256};
use alloy_sol_types::SolValue;
use proptest::prelude::*;
use serde_json::Value;

use super::abi::{self, Call};
use super::*;

fn vectors(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/evm").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn list(value: &Value) -> &[Value] {
    let rows = value.as_array().unwrap();
    assert!(!rows.is_empty());
    rows
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn bytes(value: &Value) -> Bytes {
    text(value).parse().unwrap()
}

fn address(value: &Value) -> Address {
    text(value).parse().unwrap()
}

fn word(value: &Value) -> B256 {
    text(value).parse().unwrap()
}

fn number(value: &Value) -> U256 {
    U256::from_str_radix(text(value), 10).unwrap()
}

fn domain(value: &Value) -> Domain {
    let chain_id = value["chainId"].as_u64().unwrap();
    match value.get("version") {
        Some(version) => {
            Domain::new(text(&value["name"]), text(version), chain_id, address(&value["verifyingContract"]))
        }
        None => Domain::permit2(chain_id),
    }
}

fn authorization(value: &Value) -> TransferAuthorization {
    TransferAuthorization {
        from: address(&value["from"]),
        to: address(&value["to"]),
        value: number(&value["value"]),
        valid_after: number(&value["validAfter"]),
        valid_before: number(&value["validBefore"]),
        nonce: word(&value["nonce"]),
    }
}

fn witness_transfer(value: &Value) -> WitnessTransfer {
    let spender = value.get("spender").map_or(known::X402_EXACT_PROXY, address);
    WitnessTransfer {
        token: address(&value["permitted"]["token"]),
        amount: number(&value["permitted"]["amount"]),
        spender,
        nonce: number(&value["nonce"]),
        deadline: number(&value["deadline"]),
        to: address(&value["witness"]["to"]),
        valid_after: number(&value["witness"]["validAfter"]),
    }
}

fn digest(kind: &str, domain: &Domain, message: &Value) -> B256 {
    match kind {
        "TransferWithAuthorization" => authorization(message).transfer_digest(domain),
        "ReceiveWithAuthorization" => authorization(message).receive_digest(domain),
        "CancelAuthorization" => {
            let cancel = CancelAuthorization {
                authorizer: address(&message["authorizer"]),
                nonce: word(&message["nonce"]),
            };
            cancel.digest(domain)
        }
        "Permit" => Permit {
            owner: address(&message["owner"]),
            spender: address(&message["spender"]),
            value: number(&message["value"]),
            nonce: number(&message["nonce"]),
            deadline: number(&message["deadline"]),
        }
        .digest(domain),
        "PermitWitnessTransferFrom" => witness_transfer(message).digest(domain),
        other => panic!("a vector of an unknown kind: {other}"),
    }
}

#[test]
fn type_hashes_are_those_of_their_types() {
    let transfer =
        "address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce";
    let rows = [
        (AUTHORIZATION_TYPEHASH, format!("TransferWithAuthorization({transfer})")),
        (RECEIVE_TYPEHASH, format!("ReceiveWithAuthorization({transfer})")),
        (CANCEL_TYPEHASH, "CancelAuthorization(address authorizer,bytes32 nonce)".to_owned()),
        (
            PERMIT_TYPEHASH,
            "Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)".to_owned(),
        ),
        (TOKEN_PERMISSIONS_TYPEHASH, "TokenPermissions(address token,uint256 amount)".to_owned()),
        (WITNESS_TYPEHASH, "Witness(address to,uint256 validAfter)".to_owned()),
        (
            PERMIT2_WITNESS_TYPEHASH,
            "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,\
             Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,uint256 validAfter)"
                .to_owned(),
        ),
    ];
    for (hash, ty) in rows {
        assert_eq!(hash, keccak256(ty.as_bytes()), "{ty}");
    }
}

#[test]
fn digests_and_signatures_are_those_of_viem() {
    let file = vectors("typed-data.json");
    let keys: Vec<Key> = list(&file["keys"]).iter().map(|key| Key::from_hex(text(key)).unwrap()).collect();
    for (key, expected) in keys.iter().zip(list(&file["addresses"])) {
        assert_eq!(eip55(key.address()), text(expected));
    }
    for row in list(&file["digests"]) {
        let domain = domain(&row["domain"]);
        assert_eq!(domain.separator(), word(&row["separator"]), "{row}");
        let digest = digest(text(&row["kind"]), &domain, &row["message"]);
        assert_eq!(digest, word(&row["digest"]), "{row}");
        let signer = address(&row["signer"]);
        assert_eq!(recover(digest, &bytes(&row["signature"])), Ok(signer), "{row}");
        let key = keys.iter().find(|key| key.address() == signer).unwrap();
        assert_eq!(key.sign(digest).to_bytes()[..], bytes(&row["signature"])[..], "{row}");
    }
}

#[test]
fn a_signature_has_one_canonical_form() {
    let file = vectors("signatures.json");
    let key = Key::from_hex(text(&file["key"])).unwrap();
    for row in list(&file["signatures"]) {
        let digest = word(&row["digest"]);
        let canonical = bytes(&row["canonical"]);
        assert_eq!(key.sign(digest).to_bytes()[..], canonical[..]);
        for spelling in ["canonical", "parity", "compact"] {
            let signature = Signature::parse(&bytes(&row[spelling])).unwrap();
            assert_eq!(signature.to_bytes()[..], canonical[..], "{spelling} of {row}");
            assert_eq!(signature.recover(digest), Ok(address(&row["signer"])));
        }
    }
}

#[test]
fn spoiled_signatures_are_refused_by_name() {
    for row in list(&vectors("signatures.json")["bad"]) {
        let name = match recover(word(&row["digest"]), &bytes(&row["signature"])) {
            Err(SigError::HighS) => "high-s",
            Err(SigError::RecoveryByte(_)) => "recovery-byte",
            Err(SigError::Length(_)) => "length",
            Err(SigError::Unrecoverable) => "unrecoverable",
            Ok(signer) => panic!("{row} was accepted as {signer}"),
        };
        assert_eq!(name, text(&row["error"]), "{row}");
    }
}

#[test]
fn the_lower_half_of_s_ends_where_tokens_end_it() {
    let half = hex!("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0");
    let with = |s: [u8; 32]| Signature::parse(&[&[1; 32][..], &s, &[27]].concat());
    assert!(with(half).is_ok());
    let mut above = half;
    above[31] += 1;
    assert_eq!(with(above), Err(SigError::HighS));
}

#[test]
fn calldata_is_that_of_viem() {
    let file = vectors("calldata.json");
    for row in list(&file["calldata"]) {
        let input = &row["inputs"];
        let signature = || bytes(&input["signature"]);
        let parsed = || Signature::parse(&signature()).unwrap();
        let data = match text(&row["function"]) {
            "balanceOf" => abi::balance_of(address(&input["account"])),
            "allowance" => abi::allowance(address(&input["owner"]), address(&input["spender"])),
            "nonces" => abi::nonces(address(&input["owner"])),
            "transfer" => abi::transfer(address(&input["to"]), number(&input["value"])),
            "approve" => abi::approve(address(&input["spender"]), number(&input["value"])),
            "authorizationState" => {
                abi::authorization_state(address(&input["authorizer"]), word(&input["nonce"]))
            }
            "cancelAuthorization" => {
                abi::cancel_authorization(address(&input["authorizer"]), word(&input["nonce"]), &parsed())
            }
            "isValidSignature" => abi::is_valid_signature(word(&input["hash"]), &signature()),
            "nonceBitmap" => {
                let nonce = number(&input["nonce"]);
                assert_eq!(u64::from(abi::nonce_place(nonce).1), input["bit"].as_u64().unwrap());
                abi::nonce_bitmap(address(&input["owner"]), nonce)
            }
            "transferWithAuthorization" => {
                let auth = authorization(&input["authorization"]);
                match text(&input["overload"]) {
                    "vrs" => abi::transfer_with_authorization(&auth, &parsed()),
                    _ => abi::transfer_with_authorization_bytes(&auth, &signature()),
                }
            }
            "settle" => {
                let transfer = &input["transfer"];
                abi::settle(address(&transfer["from"]), &witness_transfer(transfer), &signature())
            }
            "settleWithPermit" => {
                let transfer = &input["transfer"];
                let permit = Signature::parse(&bytes(&input["permitSignature"])).unwrap();
                let deadline = number(&input["permitDeadline"]);
                let owner = address(&transfer["from"]);
                abi::settle_with_permit(owner, &witness_transfer(transfer), &signature(), deadline, &permit)
            }
            "aggregate3" => abi::aggregate3(list(&input["calls"]).iter().map(|call| Call {
                to: address(&call["target"]),
                data: bytes(&call["callData"]),
                may_fail: call["allowFailure"].as_bool().unwrap(),
            })),
            other => panic!("a vector of an unknown function: {other}"),
        };
        assert_eq!(data, bytes(&row["data"]), "{row}");
    }
    let result = &file["aggregate3_result"];
    let expected: Vec<_> = list(&result["results"])
        .iter()
        .map(|r| (r["success"].as_bool().unwrap(), bytes(&r["returnData"])))
        .collect();
    let data = bytes(&result["data"]);
    assert_eq!(abi::aggregate3_results(&data, 2), Some(expected));
    assert_eq!(abi::aggregate3_results(&data, 1), None);
    assert_eq!(abi::aggregate3_results(&data[..data.len() - 1], 2), None);
    assert_eq!(abi::aggregate3_results(&[], 2), None);
}

#[test]
fn wrapped_signatures_are_taken_apart() {
    let file = vectors("erc6492.json");
    for row in list(&file["wrapped"]) {
        let expected = Wrapped {
            factory: address(&row["factory"]),
            factory_data: bytes(&row["factoryData"]),
            signature: bytes(&row["signature"]),
        };
        let wrapped = bytes(&row["wrapped"]);
        assert_eq!(unwrap_erc6492(&wrapped), Ok(Some(expected.clone())));
        assert_eq!(wrap_erc6492(&expected), wrapped);
    }
    for (name, signature) in file["malformed"].as_object().unwrap() {
        assert_eq!(unwrap_erc6492(&bytes(signature)), Err(WrapError::Malformed), "{name}");
    }
    assert_eq!(unwrap_erc6492(&[0; 65]), Ok(None));
    assert_eq!(unwrap_erc6492(&[]), Ok(None));
    assert_eq!(unwrap_erc6492(&[0; MAX_SIGNATURE_LEN]), Ok(None));
    assert_eq!(unwrap_erc6492(&[0; MAX_SIGNATURE_LEN + 1]), Err(WrapError::TooLong(MAX_SIGNATURE_LEN + 1)));
}

#[test]
fn reverts_are_read_and_bounded() {
    let file = vectors("reverts.json");
    for row in list(&file["reverts"]) {
        assert_eq!(Revert::decode(&bytes(&row["data"])).to_string(), text(&row["text"]), "{row}");
    }
    assert_eq!(Transfer::TOPIC, word(&file["topics"]["Transfer"]));
    assert_eq!(AuthorizationUsed::TOPIC, word(&file["topics"]["AuthorizationUsed"]));
    assert_eq!(AuthorizationCanceled::TOPIC, keccak256(b"AuthorizationCanceled(address,bytes32)"));
}

#[test]
fn delegations_are_recognised() {
    let to = Address::repeat_byte(7);
    let code = [&[0xef, 0x01, 0x00][..], to.as_slice()].concat();
    assert_eq!(delegation(&code), Some(to));
    assert_eq!(delegation(&code[..22]), None);
    assert_eq!(delegation(&[&code[..], &[0]].concat()), None);
    assert_eq!(delegation(&[]), None);
    assert_eq!(delegation(&hex!("6080604052")), None);
}

#[test]
fn return_values_are_read_strictly() {
    let one = U256::ONE.to_be_bytes::<32>();
    let two = U256::from(2).to_be_bytes::<32>();
    // An address without code answers everything with nothing: that is no zero.
    assert_eq!(abi::as_uint(&[]), None);
    assert_eq!(abi::as_bool(&[]), None);
    assert!(!abi::is_magic(&[]));
    assert_eq!(abi::as_uint(&one), Some(U256::ONE));
    assert_eq!(abi::as_uint(&[&one[..], &one[..]].concat()), None);
    assert_eq!(abi::as_bool(&one), Some(true));
    assert_eq!(abi::as_bool(&[0; 32]), Some(false));
    assert_eq!(abi::as_bool(&two), None);
    let mut magic = [0; 32];
    magic[..4].copy_from_slice(&hex!("1626ba7e"));
    assert!(abi::is_magic(&magic));
    assert!(!abi::is_magic(&magic[..4]));
    magic[31] = 1;
    assert!(!abi::is_magic(&magic));
    assert_eq!(abi::as_string(&vec![0; 100_000]), None);
    // Found by fuzzing: the head itself as part of the text.
    let mut overlapping = vec![b'x'; 64 + 256];
    overlapping[..32].copy_from_slice(&U256::ONE.to_be_bytes::<32>());
    overlapping[31..33].copy_from_slice(&[1, 31]);
    assert_eq!(String::abi_decode(&overlapping).unwrap().len(), 287);
    assert_eq!(abi::as_string(&overlapping), None);
}

#[test]
fn addresses_convert_both_ways() {
    let ours = farthing_primitives::Address::evm("0x036CbD53842c5426634e7929541eC2318f3dCF7e").unwrap();
    let theirs = to_alloy(&ours).unwrap();
    assert_eq!(from_alloy(theirs), ours);
    assert_eq!(eip55(theirs), "0x036CbD53842c5426634e7929541eC2318f3dCF7e");
    let solana = farthing_primitives::Network::from_v1_name("solana").unwrap();
    let other =
        farthing_primitives::Address::parse(&solana, "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v").unwrap();
    assert_eq!(to_alloy(&other), None);
}

#[test]
fn keys_do_not_print_and_bad_ones_are_refused() {
    let secret = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
    let key = Key::from_hex(secret).unwrap();
    let printed = format!("{key:?}").to_lowercase();
    assert!(!printed.contains(&secret[..8]), "{printed}");
    assert_eq!(key.expose_secret()[..], hex::decode(secret).unwrap()[..]);
    assert_eq!(Key::from_hex("").unwrap_err(), KeyError::Malformed);
    assert_eq!(Key::from_hex(&"g".repeat(64)).unwrap_err(), KeyError::Malformed);
    assert_eq!(Key::from_hex(&"0".repeat(64)).unwrap_err(), KeyError::OutOfRange);
    assert_eq!(Key::from_hex(&"f".repeat(64)).unwrap_err(), KeyError::OutOfRange);
}

#[test]
fn events_are_read_exactly() {
    let (from, to) = (Address::repeat_byte(1), Address::repeat_byte(2));
    let log = Log {
        address: Address::repeat_byte(9),
        topics: vec![Transfer::TOPIC, from.into_word(), to.into_word()],
        data: U256::from(5).to_be_bytes::<32>().into(),
        index: 0,
    };
    assert_eq!(Transfer::decode(&log), Some(Transfer { from, to, value: U256::from(5) }));
    let change = |edit: fn(&mut Log)| {
        let mut log = log.clone();
        edit(&mut log);
        Transfer::decode(&log)
    };
    assert_eq!(change(|log| log.topics[0] = AuthorizationUsed::TOPIC), None);
    assert_eq!(change(|log| log.topics.truncate(2)), None);
    // An NFT's transfer has the same topic and one more indexed field.
    assert_eq!(change(|log| log.topics.push(B256::ZERO)), None);
    assert_eq!(change(|log| log.topics[1] = B256::repeat_byte(1)), None);
    assert_eq!(change(|log| log.data = vec![0; 31].into()), None);
    let used = Log {
        topics: vec![AuthorizationUsed::TOPIC, from.into_word(), B256::repeat_byte(3)],
        data: Bytes::new(),
        ..log
    };
    assert_eq!(
        AuthorizationUsed::decode(&used),
        Some(AuthorizationUsed { authorizer: from, nonce: B256::repeat_byte(3) })
    );
    assert_eq!(AuthorizationUsed::decode(&Log { data: vec![0].into(), ..used.clone() }), None);
    assert_eq!(AuthorizationCanceled::decode(&used), None);
    let mut canceled = used;
    canceled.topics[0] = AuthorizationCanceled::TOPIC;
    let expected = AuthorizationCanceled { authorizer: from, nonce: B256::repeat_byte(3) };
    assert_eq!(AuthorizationCanceled::decode(&canceled), Some(expected));
    assert_eq!(AuthorizationUsed::decode(&canceled), None);
}

/// Found by fuzzing: a node that lets all results point at one place would have its answer copied for each of them.
#[test]
fn results_are_never_longer_than_the_answer() {
    let word = |n: usize| U256::from(n).to_be_bytes::<32>().to_vec();
    let shared = |results: usize, len: usize| {
        let places = vec![word(32 * results); results].concat();
        let tail = [word(1), word(64), word(len), vec![7; len]].concat();
        [word(32), word(results), places, tail].concat()
    };
    let data = shared(1, 100);
    assert_eq!(abi::aggregate3_results(&data, 1), Some(vec![(true, vec![7; 100].into())]));
    for (results, len) in [(2, 4096), (64, 4096)] {
        assert_eq!(abi::aggregate3_results(&shared(results, len), results), None);
    }
    // Neither true nor false is no answer.
    let mut odd = data;
    odd[32 * 3 + 31] = 2;
    assert_eq!(abi::aggregate3_results(&odd, 1), None);
}

fn view(n: u8) -> Read {
    Read { to: Address::repeat_byte(n), data: Bytes::new(), kind: ReadKind::View }
}

fn simulation(payer: u8) -> Read {
    Read { kind: ReadKind::Simulation { contends: B256::repeat_byte(payer) }, ..view(payer) }
}

#[test]
fn views_run_before_simulations_and_rivals_apart() {
    let groups = [
        vec![view(1), view(1), simulation(1)],
        vec![view(2), simulation(2)],
        // The same payer again: its simulation must not see the first one's transfer.
        vec![view(1), simulation(1)],
        // A wallet that is a contract has calls of its own.
        vec![view(3), Read { kind: ReadKind::Untrusted, ..view(3) }, simulation(3)],
    ];
    assert_eq!(
        call::plan(&groups, 100),
        [
            vec![(0, 0), (0, 1), (1, 0), (2, 0), (0, 2), (1, 1)],
            vec![(2, 1)],
            vec![(3, 0)],
            vec![(3, 1)],
            vec![(3, 2)],
        ]
    );
    assert_eq!(call::plan(&[], 100), Vec::<Vec<_>>::new());
    assert!(call::plan(&groups, 0).iter().all(|call| call.len() == 1));
}

#[test]
fn only_a_bare_failure_among_neighbours_is_suspicious() {
    assert!(call::suspicious(&ReadResult::Reverted(Bytes::new()), 1));
    assert!(!call::suspicious(&ReadResult::Reverted(Bytes::new()), 0));
    assert!(!call::suspicious(&ReadResult::Reverted(vec![1].into()), 1));
    assert!(!call::suspicious(&ReadResult::Returned(Bytes::new()), 1));
}

proptest! {
    #[test]
    fn what_is_signed_recovers_to_the_signer(secret in any::<[u8; 32]>(), digest in any::<[u8; 32]>()) {
        let Ok(key) = Key::from_bytes(secret) else { return Ok(()) };
        let signature = key.sign(digest.into());
        prop_assert_eq!(recover(digest.into(), &signature.to_bytes()), Ok(key.address()));
        prop_assert_eq!(Signature::parse(&signature.to_bytes()), Ok(signature));
    }

    #[test]
    fn arbitrary_signatures_and_reverts_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = recover(B256::ZERO, &bytes);
        let _ = Revert::decode(&bytes);
        let _ = abi::as_string(&bytes);
        let _ = abi::aggregate3_results(&bytes, 1);
        let mut wrapped = bytes;
        wrapped.extend_from_slice(&[0x64, 0x92].repeat(16));
        if let Ok(Some(parts)) = unwrap_erc6492(&wrapped) {
            prop_assert_eq!(unwrap_erc6492(&wrap_erc6492(&parts)), Ok(Some(parts)));
        }
    }

    #[test]
    fn wrapping_and_unwrapping_agree(
        factory in any::<[u8; 20]>(),
        data in prop::collection::vec(any::<u8>(), 0..100),
        inner in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let parts = Wrapped { factory: factory.into(), factory_data: data.into(), signature: inner.into() };
        prop_assert_eq!(unwrap_erc6492(&wrap_erc6492(&parts)), Ok(Some(parts)));
    }

    #[test]
    fn a_plan_runs_every_read_once(kinds in prop::collection::vec(prop::collection::vec((0u8..4, 0u8..3), 0..5), 0..12), max in 1usize..7) {
        let groups: Vec<Vec<Read>> = kinds
            .iter()
            .map(|group| {
                group
                    .iter()
                    .map(|(payer, kind)| match kind {
                        0 => view(*payer),
                        1 => simulation(*payer),
                        _ => Read { kind: ReadKind::Untrusted, ..view(*payer) },
                    })
                    .collect()
            })
            .collect();
        let plan = call::plan(&groups, max);
        let mut seen: Vec<_> = plan.iter().flatten().copied().collect();
        seen.sort_unstable();
        let mut all: Vec<_> =
            groups.iter().enumerate().flat_map(|(g, group)| (0..group.len()).map(move |r| (g, r))).collect();
        all.sort_unstable();
        prop_assert_eq!(seen, all);
        for call in &plan {
            prop_assert!((1..=max).contains(&call.len()));
            let kinds: Vec<_> = call.iter().map(|(g, r)| groups[*g][*r].kind).collect();
            let simulated: Vec<_> = kinds.iter().filter(|kind| **kind != ReadKind::View).collect();
            let distinct: std::collections::HashSet<_> = simulated.iter().collect();
            prop_assert_eq!(distinct.len(), simulated.len());
            let first = kinds.iter().position(|kind| *kind != ReadKind::View).unwrap_or(kinds.len());
            prop_assert!(kinds[first..].iter().all(|kind| *kind != ReadKind::View));
            prop_assert!(!kinds.contains(&ReadKind::Untrusted) || kinds.len() == 1);
        }
    }
}
