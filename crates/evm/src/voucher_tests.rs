use std::path::Path;

use alloy_primitives::{Bytes, hex, keccak256};
use serde_json::Value;

use super::*;
use crate::{Key, recover};

fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/evm/voucher.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn rows<'a>(file: &'a Value, name: &str) -> &'a [Value] {
    let rows = file[name].as_array().unwrap();
    assert!(!rows.is_empty());
    rows
}

fn parse<T: std::str::FromStr>(value: &Value) -> T
where
    T::Err: std::fmt::Debug,
{
    value.as_str().unwrap().parse().unwrap()
}

fn number(value: &Value) -> U256 {
    U256::from_str_radix(value.as_str().unwrap(), 10).unwrap()
}

#[test]
fn type_hashes_are_those_of_their_types() {
    let relayed = "(bytes32 channelId,uint128 cumulativeAmount,uint256 nonce,uint256 deadline)";
    let open = "ChannelOpenWitness(address payee,bytes32 salt,address authorizedSigner)";
    let top_up = "ChannelTopUpWitness(bytes32 channelId)";
    let permit = |name: &str, witness: &str| {
        format!(
            "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,\
             uint256 deadline,{name} witness){witness}TokenPermissions(address token,uint256 amount)"
        )
    };
    let rows = [
        (VOUCHER_TYPEHASH, "Voucher(bytes32 channelId,uint128 cumulativeAmount)".to_owned()),
        (SETTLE_AUTHORIZATION_TYPEHASH, format!("SettleAuthorization{relayed}")),
        (CLOSE_AUTHORIZATION_TYPEHASH, format!("CloseAuthorization{relayed}")),
        (OPEN_WITNESS_TYPEHASH, open.to_owned()),
        (TOP_UP_WITNESS_TYPEHASH, top_up.to_owned()),
        (PERMIT2_OPEN_TYPEHASH, permit("ChannelOpenWitness", open)),
        (PERMIT2_TOP_UP_TYPEHASH, permit("ChannelTopUpWitness", top_up)),
    ];
    for (hash, ty) in rows {
        assert_eq!(hash, keccak256(ty.as_bytes()), "{ty}");
    }
}

#[test]
fn channel_ids_and_nonces_are_those_of_viem() {
    let file = vectors();
    for row in rows(&file, "channels") {
        let parts = ChannelParts {
            payer: parse(&row["payer"]),
            payee: parse(&row["payee"]),
            token: parse(&row["token"]),
            salt: parse(&row["salt"]),
            authorized_signer: parse(&row["authorizedSigner"]),
            escrow: parse(&row["escrow"]),
            chain_id: row["chainId"].as_u64().unwrap(),
        };
        assert_eq!(parts.id(), parse::<B256>(&row["id"]), "{row}");
        assert_eq!(parts.open_nonce(), parse::<B256>(&row["openNonce"]), "{row}");
        let nonce = top_up_nonce(parts.id(), parse(&row["additionalDeposit"]), parts.payer, parts.salt);
        assert_eq!(nonce, parse::<B256>(&row["topUpNonce"]), "{row}");
        let signer = if parts.authorized_signer.is_zero() { parts.payer } else { parts.authorized_signer };
        assert_eq!(parts.voucher_signer(), signer);
    }
}

#[test]
fn digests_and_signatures_are_those_of_viem() {
    let file = vectors();
    let keys: Vec<Key> =
        rows(&file, "keys").iter().map(|key| Key::from_hex(key.as_str().unwrap()).unwrap()).collect();
    for row in rows(&file, "digests") {
        let (message, kind) = (&row["message"], row["kind"].as_str().unwrap());
        let chain_id = row["domain"]["chainId"].as_u64().unwrap();
        let contract = parse(&row["domain"]["verifyingContract"]);
        let authorization = || PayeeAuthorization {
            channel: parse(&message["channelId"]),
            cumulative: parse(&message["cumulativeAmount"]),
            nonce: number(&message["nonce"]),
            deadline: number(&message["deadline"]),
        };
        let deposit = |witness| PermitDeposit {
            token: parse(&message["permitted"]["token"]),
            amount: number(&message["permitted"]["amount"]),
            escrow: parse(&message["spender"]),
            nonce: number(&message["nonce"]),
            deadline: number(&message["deadline"]),
            witness,
        };
        let witness = &message["witness"];
        let escrow = escrow_domain(chain_id, contract);
        let permit2 = Domain::permit2_at(chain_id, contract);
        let (domain, digest) = match kind {
            "Voucher" => {
                let voucher = Voucher {
                    channel: parse(&message["channelId"]),
                    cumulative: parse(&message["cumulativeAmount"]),
                };
                (escrow, voucher.digest(&escrow))
            }
            "SettleAuthorization" => (escrow, authorization().settle_digest(&escrow)),
            "CloseAuthorization" => (escrow, authorization().close_digest(&escrow)),
            "ChannelOpen" => {
                let witness = DepositWitness::Open {
                    payee: parse(&witness["payee"]),
                    salt: parse(&witness["salt"]),
                    authorized_signer: parse(&witness["authorizedSigner"]),
                };
                (permit2, deposit(witness).digest(&permit2))
            }
            "ChannelTopUp" => {
                let witness = DepositWitness::TopUp { channel: parse(&witness["channelId"]) };
                (permit2, deposit(witness).digest(&permit2))
            }
            other => panic!("a vector of an unknown kind: {other}"),
        };
        assert_eq!(domain.separator(), parse::<B256>(&row["separator"]), "{row}");
        assert_eq!(digest, parse::<B256>(&row["digest"]), "{row}");
        let signature: Bytes = parse(&row["signature"]);
        let signer: Address = parse(&row["signer"]);
        assert_eq!(recover(digest, &signature), Ok(signer), "{row}");
        let key = keys.iter().find(|key| key.address() == signer).unwrap();
        assert_eq!(key.sign(digest).to_bytes()[..], signature[..], "{row}");
    }
}

#[test]
fn a_voucher_is_checked_whole() {
    let key = Key::from_bytes([7; 32]).unwrap();
    let other = Key::from_bytes([8; 32]).unwrap();
    let escrow = Address::repeat_byte(0xe5);
    let domain = escrow_domain(196, escrow);
    let voucher = Voucher { channel: B256::repeat_byte(1), cumulative: 250_000 };
    let good = key.sign(voucher.digest(&domain)).to_bytes();
    let check = |voucher: Voucher, domain: &Domain, signature: &[u8]| {
        voucher.check(domain, signature, key.address()).map_err(|error| match error {
            VoucherError::OtherSigner => "other signer",
            VoucherError::Signature(SigError::HighS) => "high s",
            VoucherError::Signature(_) => "malformed",
        })
    };
    assert_eq!(check(voucher, &domain, &good), Ok(()));
    let tampered = Voucher { cumulative: 250_001, ..voucher };
    assert_eq!(check(tampered, &domain, &good), Err("other signer"), "another amount");
    let elsewhere = Voucher { channel: B256::repeat_byte(2), ..voucher };
    assert_eq!(check(elsewhere, &domain, &good), Err("other signer"), "another channel");
    assert_eq!(check(voucher, &escrow_domain(1, escrow), &good), Err("other signer"), "another chain");
    let imitation = escrow_domain(196, Address::repeat_byte(0xe6));
    assert_eq!(check(voucher, &imitation, &good), Err("other signer"), "another escrow");
    let tempo = Domain::new("Tempo Stream Channel", "1", 196, escrow);
    assert_eq!(check(voucher, &tempo, &good), Err("other signer"), "another protocol");
    let foreign = other.sign(voucher.digest(&domain)).to_bytes();
    assert_eq!(check(voucher, &domain, &foreign), Err("other signer"));
    assert!(check(voucher, &domain, &good[..63]).is_err(), "cut short");
    assert_eq!(check(voucher, &domain, &[]), Err("malformed"));
    // The other of the two values of s signs the same for a careless reader.
    let order = U256::from_be_bytes(hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"));
    let mut high = good;
    let s = U256::from_be_slice(&good[32..64]);
    high[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
    high[64] = 55 - good[64];
    assert_eq!(check(voucher, &domain, &high), Err("high s"));
}
