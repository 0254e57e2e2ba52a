//! What chains, wallets and payers' signatures say in bytes: signatures in all forms, wrapped ones, return values,
//! reverts, events; and the digests beside those of another implementation.

use alloy_consensus::transaction::SignerRecoverable;
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope};
use alloy_eips::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_sol_types::{Eip712Domain, SolCall, SolEvent, SolStruct, SolValue, sol};
use farthing_evm::{
    AuthorizationUsed, CancelAuthorization, Domain, Log, MAX_SIGNATURE_LEN, Permit, Revert, Signature,
    SignedTransaction, Transfer, TransferAuthorization, WitnessTransfer, Wrapped, abi, delegation,
    from_alloy, known, recover, to_alloy, unwrap_erc6492, wrap_erc6492,
};

use super::is_short;
use crate::input::Input;
use crate::money::payer;

/// The same types by another implementation.
mod theirs {
    use super::sol;
    sol! {
        event Transfer(address indexed from, address indexed to, uint256 value);
        event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
        struct TransferWithAuthorization {
            address from; address to; uint256 value; uint256 validAfter; uint256 validBefore; bytes32 nonce;
        }
        struct ReceiveWithAuthorization {
            address from; address to; uint256 value; uint256 validAfter; uint256 validBefore; bytes32 nonce;
        }
        struct CancelAuthorization { address authorizer; bytes32 nonce; }
        struct Permit { address owner; address spender; uint256 value; uint256 nonce; uint256 deadline; }
        struct TokenPermissions { address token; uint256 amount; }
        struct Witness { address to; uint256 validAfter; }
        struct PermitWitnessTransferFrom {
            TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; Witness witness;
        }
    }
}

const MAGIC: [u8; 32] = {
    let mut magic = [0x64; 32];
    let mut at = 1;
    while at < 32 {
        magic[at] = 0x92;
        at += 2;
    }
    magic
};

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 9 {
        0 => signature(&mut input),
        1 => wrapped(input.rest()),
        2 => wrapped(&[input.rest(), &MAGIC].concat()),
        3 => wrapping(&mut input),
        4 => revert(input.rest()),
        5 => returned(&mut input),
        6 => events(&mut input),
        7 => digests(&mut input),
        _ => transaction(&mut input),
    }
}

/// A transaction that somebody else signed, read here and by another implementation.
fn transaction(input: &mut Input<'_>) {
    let mut raw = vec![2];
    if input.flag() {
        raw.extend_from_slice(input.rest());
    } else {
        let unsigned = TxEip1559 {
            chain_id: input.u64(),
            nonce: input.u64(),
            gas_limit: input.u64(),
            max_fee_per_gas: input.u128(),
            max_priority_fee_per_gas: input.u128(),
            to: TxKind::Call(Address::new(input.array())),
            value: U256::from(input.u128()),
            access_list: Default::default(),
            input: Bytes::copy_from_slice(input.blob()),
        };
        let signed = payer().sign(unsigned.signature_hash()).to_bytes();
        let signature = alloy_primitives::Signature::from_raw_array(&signed).expect("a signature");
        raw = TxEnvelope::from(unsigned.into_signed(signature)).encoded_2718();
        // One byte of it may be another.
        if let Some(at) = usize::from(input.u16()).checked_rem(raw.len()).filter(|_| input.flag()) {
            raw[at] = input.byte();
        }
    }
    let ours = SignedTransaction::parse(&raw);
    let mut rest = raw.as_slice();
    let theirs = TxEnvelope::decode_2718(&mut rest).ok().filter(|_| rest.is_empty());
    let Some(TxEnvelope::Eip1559(theirs)) = theirs else {
        // What a list of accesses holds is not looked at: nobody is sold to for one.
        assert!(ours.is_err() || ours.is_ok_and(|ours| ours.has_access_list), "read by one of two");
        return;
    };
    let Ok(ours) = ours else {
        let signer = theirs.recover_signer();
        assert!(signer.is_err() || theirs.tx().to.is_create(), "refused by one of two");
        return;
    };
    let tx = theirs.tx();
    assert_eq!((ours.chain_id, ours.nonce, ours.gas), (tx.chain_id, tx.nonce, tx.gas_limit));
    assert_eq!((ours.max_fee, ours.max_priority_fee), (tx.max_fee_per_gas, tx.max_priority_fee_per_gas));
    assert_eq!((Some(&ours.to), ours.value), (tx.to.to(), tx.value));
    assert_eq!((&ours.data, ours.has_access_list), (&tx.input, !tx.access_list.is_empty()));
    assert_eq!((ours.hash, Ok(ours.from)), (*theirs.hash(), theirs.recover_signer().map_err(|_| ())));
    // It has one spelling.
    assert_eq!(TxEnvelope::Eip1559(theirs).encoded_2718(), raw);
}

fn signature(input: &mut Input<'_>) {
    let digest = B256::new(input.array());
    let bytes = input.rest();
    match Signature::parse(bytes) {
        Ok(signature) => {
            // One signature has one form, whatever form it came in, and the signer stays the same.
            let canonical = signature.to_bytes();
            assert_eq!(Signature::parse(&canonical), Ok(signature));
            assert_eq!(recover(digest, bytes), recover(digest, &canonical));
            assert!(matches!(signature.v(), 27 | 28));
            let mut compact = canonical[..64].to_vec();
            compact[32] |= u8::from(signature.y_is_odd()) << 7;
            assert_eq!(Signature::parse(&compact), Ok(signature));
            if let Ok(signer) = signature.recover(digest) {
                // Each other recovery bit, digest or `r` is somebody else's.
                let mut other = canonical;
                other[64] = 55 - other[64];
                assert_ne!(recover(digest, &other), Ok(signer));
                let mut other = digest;
                other[31] ^= 1;
                assert_ne!(signature.recover(other), Ok(signer));
            }
        }
        Err(error) => is_short(&error),
    }
    let ours = payer().sign(digest);
    assert_eq!(ours.recover(digest), Ok(payer().address()));
    // What the curve allows twice, we allow once.
    let order = U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16);
    let high = order.expect("a number") - U256::from_be_bytes(ours.s().0);
    let mut twin = ours.to_bytes();
    twin[32..64].copy_from_slice(&high.to_be_bytes::<32>());
    twin[64] = 55 - twin[64];
    assert!(Signature::parse(&twin).is_err());
}

fn wrapped(bytes: &[u8]) {
    let ours = unwrap_erc6492(bytes);
    match &ours {
        Ok(Some(parts)) => {
            // No amplification: what is taken out lies within.
            assert!(parts.factory_data.len().max(parts.signature.len()) <= bytes.len());
            assert!(!parts.signature.ends_with(&MAGIC));
            let again = wrap_erc6492(parts);
            if again.len() <= MAX_SIGNATURE_LEN {
                assert_eq!(unwrap_erc6492(&again).as_ref(), Ok(&Some(parts.clone())));
            }
        }
        Ok(None) => assert!(!bytes.ends_with(&MAGIC)),
        Err(error) => is_short(error),
    }
    // Another decoder takes out the same; where it reads and we do not, it is what we refuse on purpose.
    let Some(body) = bytes.strip_suffix(&MAGIC) else { return };
    if let Ok((factory, data, inner)) = <(Address, Bytes, Bytes)>::abi_decode_params_validate(body)
        && bytes.len() <= MAX_SIGNATURE_LEN
        && !inner.ends_with(&MAGIC)
    {
        assert_eq!(ours, Ok(Some(Wrapped { factory, factory_data: data, signature: inner })));
    }
}

fn wrapping(input: &mut Input<'_>) {
    let parts = Wrapped {
        factory: Address::new(input.array()),
        factory_data: input.blob().to_vec().into(),
        signature: input.blob().to_vec().into(),
    };
    let nested = parts.signature.ends_with(&MAGIC);
    let bytes = wrap_erc6492(&parts);
    match unwrap_erc6492(&bytes) {
        Ok(Some(found)) => assert_eq!(found, parts),
        other => assert!(nested, "{other:?}"),
    }
    // A wrapper with anything behind it is none.
    assert_eq!(unwrap_erc6492(&[&bytes[..], &[0]].concat()), Ok(None));
    let code = input.rest();
    if let Some(to) = delegation(code) {
        assert_eq!(code, [&[0xef, 0x01, 0x00], to.as_slice()].concat());
    }
}

fn revert(data: &[u8]) {
    let revert = Revert::decode(data);
    let text = revert.to_string();
    // A contract may have said nothing at all.
    assert!(!text.is_empty() || revert == Revert::Text(String::new()));
    assert!(text.len() <= 128 && text.bytes().all(|b| (0x20..=0x7e).contains(&b)), "{text:?}");
    assert_eq!(revert == Revert::Empty, data.is_empty());
}

fn returned(input: &mut Input<'_>) {
    let expected = usize::from(input.byte() % 8);
    let data = input.rest();
    if let Some(results) = abi::aggregate3_results(data, expected) {
        assert_eq!(results.len(), expected);
        // No amplification: a node cannot make many large results of one.
        let total: usize = results.iter().map(|(_, data)| data.len()).sum();
        assert!(total <= data.len(), "{total} bytes out of {}", data.len());
        let theirs = abi::multicall::aggregate3Call::abi_decode_returns(data).expect("another decoder");
        let theirs: Vec<_> = theirs.into_iter().map(|r| (r.success, r.returnData)).collect();
        assert_eq!(results, theirs);
    } else if let Ok(theirs) = abi::multicall::aggregate3Call::abi_decode_returns_validate(data) {
        let total: usize = theirs.iter().map(|r| r.returnData.len()).sum();
        assert!(theirs.len() != expected || total > data.len(), "an answer that was not read");
    }
    if let Some(text) = abi::as_string(data) {
        assert!(text.len() <= 256);
        assert_eq!(abi::as_string(&text.abi_encode()), Some(text));
    }
    if let Some(truth) = abi::as_bool(data) {
        assert_eq!(abi::as_uint(data), Some(U256::from(truth)));
    }
    if let Some(number) = abi::as_uint(data) {
        assert_eq!(number.to_be_bytes::<32>(), data);
        let (word, bit) = abi::nonce_place(number);
        assert_eq!((word << 8) | U256::from(bit), number);
    }
    assert!(!abi::is_magic(data) || (data.len() == 32 && data.starts_with(&[0x16, 0x26, 0xba, 0x7e])));
}

fn events(input: &mut Input<'_>) {
    let known = [Transfer::TOPIC, AuthorizationUsed::TOPIC, B256::ZERO];
    let mut topics = vec![*input.pick(&known)];
    for _ in 0..input.byte() % 5 {
        let mut topic = B256::new(input.array());
        if input.flag() {
            topic[..12].fill(0);
        }
        topics.push(topic);
    }
    let data = Bytes::copy_from_slice(input.rest());
    let log = Log { address: Address::ZERO, topics: topics.clone(), data: data.clone(), index: 0 };
    let ours = Transfer::decode(&log).map(|t| (t.from, t.to, t.value));
    let theirs = theirs::Transfer::decode_raw_log_validate(topics.iter().copied(), &data).ok();
    let theirs = theirs.filter(|_| data.len() == 32).map(|t| (t.from, t.to, t.value));
    assert_eq!(ours, theirs);
    let ours = AuthorizationUsed::decode(&log).map(|u| (u.authorizer, u.nonce));
    let theirs = theirs::AuthorizationUsed::decode_raw_log_validate(topics.iter().copied(), &data).ok();
    assert_eq!(ours, theirs.filter(|_| data.is_empty()).map(|u| (u.authorizer, u.nonce)));
}

fn digests(input: &mut Input<'_>) {
    let (chain_id, contract) = (input.u64(), Address::new(input.array()));
    let (name, version) = (input.text(), input.text());
    let domain = Domain::new(&name, &version, chain_id, contract);
    let reference = Eip712Domain::new(
        Some(name.into()),
        Some(version.into()),
        Some(U256::from(chain_id)),
        Some(contract),
        None,
    );
    assert_eq!(domain.separator(), reference.separator());
    let (from, to) = (Address::new(input.array()), Address::new(input.array()));
    let mut number = || U256::from_be_bytes(input.array::<32>());
    let (value, after, before, nonce) = (number(), number(), number(), number());
    let auth = TransferAuthorization {
        from,
        to,
        value,
        valid_after: after,
        valid_before: before,
        nonce: nonce.into(),
    };
    let sent = theirs::TransferWithAuthorization {
        from,
        to,
        value,
        validAfter: after,
        validBefore: before,
        nonce: nonce.into(),
    };
    assert_eq!(auth.transfer_digest(&domain), sent.eip712_signing_hash(&reference));
    let received = theirs::ReceiveWithAuthorization {
        from,
        to,
        value,
        validAfter: after,
        validBefore: before,
        nonce: nonce.into(),
    };
    assert_eq!(auth.receive_digest(&domain), received.eip712_signing_hash(&reference));
    let cancel = CancelAuthorization { authorizer: from, nonce: nonce.into() };
    let cancelled = theirs::CancelAuthorization { authorizer: from, nonce: nonce.into() };
    assert_eq!(cancel.digest(&domain), cancelled.eip712_signing_hash(&reference));
    let permit = Permit { owner: from, spender: to, value, nonce, deadline: before };
    let permitted = theirs::Permit { owner: from, spender: to, value, nonce, deadline: before };
    assert_eq!(permit.digest(&domain), permitted.eip712_signing_hash(&reference));
    let transfer = WitnessTransfer {
        token: contract,
        amount: value,
        spender: from,
        nonce,
        deadline: before,
        to,
        valid_after: after,
    };
    let witnessed = theirs::PermitWitnessTransferFrom {
        permitted: theirs::TokenPermissions { token: contract, amount: value },
        spender: from,
        nonce,
        deadline: before,
        witness: theirs::Witness { to, validAfter: after },
    };
    let permit2 = Eip712Domain::new(
        Some("Permit2".into()),
        None,
        Some(U256::from(chain_id)),
        Some(known::PERMIT2),
        None,
    );
    assert_eq!(transfer.digest(&Domain::permit2(chain_id)), witnessed.eip712_signing_hash(&permit2));
    assert_eq!(to_alloy(&from_alloy(from)), Some(from));
}
