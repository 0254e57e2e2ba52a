//! Calldata and return values of the contracts that we call.
//!
//! `mod`ules hold the generated types; the functions beside them are what the other crates use. Return values are read
//! strictly: a call to an address without code succeeds with no bytes, and must not pass for a zero.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolValue, sol};

use crate::typed::{TransferAuthorization, WitnessTransfer};
use crate::{Signature, Wrapped};

/// The token: ERC-20, EIP-3009 and EIP-2612.
pub mod token {
    use super::sol;

    sol! {
        function name() external view returns (string);
        function version() external view returns (string);
        function decimals() external view returns (uint8);
        function balanceOf(address account) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function nonces(address owner) external view returns (uint256);
        function transfer(address to, uint256 value) external returns (bool);
        function approve(address spender, uint256 value) external returns (bool);
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
        function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external;
        function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s)
            external;
    }

    /// The overload that takes `v`, `r` and `s`; every EIP-3009 token has it.
    pub mod by_vrs {
        use super::sol;
        sol! {
            function transferWithAuthorization(
                address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce,
                uint8 v, bytes32 r, bytes32 s
            ) external;
            function receiveWithAuthorization(
                address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce,
                uint8 v, bytes32 r, bytes32 s
            ) external;
        }
    }

    /// The overload that takes a signature of any length, for wallets that are contracts.
    pub mod by_bytes {
        use super::sol;
        sol! {
            function transferWithAuthorization(
                address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce,
                bytes signature
            ) external;
            function receiveWithAuthorization(
                address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce,
                bytes signature
            ) external;
        }
    }
}

/// A wallet that is a contract.
///
/// Spec: ERC-1271.
pub mod wallet {
    use super::sol;
    sol! {
        function isValidSignature(bytes32 hash, bytes signature) external view returns (bytes4);
    }
}

/// Permit2 and the x402 exact proxy.
pub mod permit2 {
    use super::sol;
    sol! {
        struct TokenPermissions { address token; uint256 amount; }
        struct PermitTransferFrom { TokenPermissions permitted; uint256 nonce; uint256 deadline; }
        struct Witness { address to; uint256 validAfter; }
        struct EIP2612Permit { uint256 value; uint256 deadline; bytes32 r; bytes32 s; uint8 v; }

        function PERMIT2() external view returns (address);
        function nonceBitmap(address owner, uint256 word) external view returns (uint256);
        function settle(
            PermitTransferFrom permit, address owner, Witness witness, bytes signature
        ) external;
        function settleWithPermit(
            EIP2612Permit permit2612, PermitTransferFrom permit, address owner, Witness witness, bytes signature
        ) external;
    }
}

/// Multicall3.
pub mod multicall {
    use super::sol;
    sol! {
        struct Call { address target; bytes callData; }
        struct Call3 { address target; bool allowFailure; bytes callData; }
        struct Result { bool success; bytes returnData; }

        function aggregate3(Call3[] calls) external payable returns (Result[] returnData);
        function tryAggregate(bool requireSuccess, Call[] calls) external payable returns (Result[] returnData);
        function getCurrentBlockTimestamp() external view returns (uint256 timestamp);
    }
}

/// What ERC-1271 says when it agrees, as a whole word.
const ERC1271_MAGIC: [u8; 4] = [0x16, 0x26, 0xba, 0x7e];

pub fn balance_of(account: Address) -> Bytes {
    token::balanceOfCall { account }.abi_encode().into()
}

pub fn allowance(owner: Address, spender: Address) -> Bytes {
    token::allowanceCall { owner, spender }.abi_encode().into()
}

/// The next EIP-2612 nonce of `owner`.
pub fn nonces(owner: Address) -> Bytes {
    token::noncesCall { owner }.abi_encode().into()
}

pub fn transfer(to: Address, value: U256) -> Bytes {
    token::transferCall { to, value }.abi_encode().into()
}

/// The recipient and the amount of a call of `transfer`, if it is that and nothing more.
pub fn as_transfer(data: &[u8]) -> Option<(Address, U256)> {
    let call = token::transferCall::abi_decode_validate(data).ok()?;
    (*transfer(call.to, call.value) == *data).then_some((call.to, call.value))
}

pub fn approve(spender: Address, value: U256) -> Bytes {
    token::approveCall { spender, value }.abi_encode().into()
}

/// Whether an EIP-3009 nonce is used or cancelled.
pub fn authorization_state(authorizer: Address, nonce: B256) -> Bytes {
    token::authorizationStateCall { authorizer, nonce }.abi_encode().into()
}

/// `cancelAuthorization`, with a signature over [`crate::CancelAuthorization::digest`].
pub fn cancel_authorization(authorizer: Address, nonce: B256, signature: &Signature) -> Bytes {
    let (v, r, s) = (signature.v(), signature.r(), signature.s());
    token::cancelAuthorizationCall { authorizer, nonce, v, r, s }.abi_encode().into()
}

/// `transferWithAuthorization` for an account with a key: the overload that every EIP-3009 token has.
pub fn transfer_with_authorization(auth: &TransferAuthorization, signature: &Signature) -> Bytes {
    token::by_vrs::transferWithAuthorizationCall {
        from: auth.from,
        to: auth.to,
        value: auth.value,
        validAfter: auth.valid_after,
        validBefore: auth.valid_before,
        nonce: auth.nonce,
        v: signature.v(),
        r: signature.r(),
        s: signature.s(),
    }
    .abi_encode()
    .into()
}

/// `transferWithAuthorization` for a wallet that is a contract: the signature is passed on as it is.
pub fn transfer_with_authorization_bytes(auth: &TransferAuthorization, signature: &[u8]) -> Bytes {
    token::by_bytes::transferWithAuthorizationCall {
        from: auth.from,
        to: auth.to,
        value: auth.value,
        validAfter: auth.valid_after,
        validBefore: auth.valid_before,
        nonce: auth.nonce,
        signature: Bytes::copy_from_slice(signature),
    }
    .abi_encode()
    .into()
}

/// ERC-1271.
pub fn is_valid_signature(digest: B256, signature: &[u8]) -> Bytes {
    wallet::isValidSignatureCall { hash: digest, signature: Bytes::copy_from_slice(signature) }
        .abi_encode()
        .into()
}

/// The word of Permit2's bitmap that holds `nonce`, and the bit in it.
pub fn nonce_place(nonce: U256) -> (U256, u8) {
    (nonce >> 8, nonce.byte(0))
}

/// Permit2's bitmap word for `nonce`.
pub fn nonce_bitmap(owner: Address, nonce: U256) -> Bytes {
    permit2::nonceBitmapCall { owner, word: nonce_place(nonce).0 }.abi_encode().into()
}

/// Which Permit2 the x402 proxy uses: what it answers proves that it is deployed.
pub fn proxy_permit2() -> Bytes {
    permit2::PERMIT2Call {}.abi_encode().into()
}

fn permit_transfer(transfer: &WitnessTransfer) -> (permit2::PermitTransferFrom, permit2::Witness) {
    let permit = permit2::PermitTransferFrom {
        permitted: permit2::TokenPermissions { token: transfer.token, amount: transfer.amount },
        nonce: transfer.nonce,
        deadline: transfer.deadline,
    };
    (permit, permit2::Witness { to: transfer.to, validAfter: transfer.valid_after })
}

/// `settle` of the x402 exact proxy.
pub fn settle(owner: Address, transfer: &WitnessTransfer, signature: &[u8]) -> Bytes {
    let (permit, witness) = permit_transfer(transfer);
    permit2::settleCall { permit, owner, witness, signature: Bytes::copy_from_slice(signature) }
        .abi_encode()
        .into()
}

/// `settleWithPermit` of the x402 exact proxy: first the EIP-2612 allowance for Permit2, then the transfer.
///
/// The allowance is exactly the amount of the transfer, because the proxy refuses any other.
pub fn settle_with_permit(
    owner: Address,
    transfer: &WitnessTransfer,
    signature: &[u8],
    permit_deadline: U256,
    permit_signature: &Signature,
) -> Bytes {
    let (permit, witness) = permit_transfer(transfer);
    let permit2612 = permit2::EIP2612Permit {
        value: transfer.amount,
        deadline: permit_deadline,
        r: permit_signature.r(),
        s: permit_signature.s(),
        v: permit_signature.v(),
    };
    let signature = Bytes::copy_from_slice(signature);
    permit2::settleWithPermitCall { permit2612, permit, owner, witness, signature }.abi_encode().into()
}

/// One call inside of [`aggregate3`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub to: Address,
    pub data: Bytes,
    /// Whether the others count although this one reverts.
    pub may_fail: bool,
}

/// Many calls in one, in their order; each sees what the ones before it did.
pub fn aggregate3(calls: impl IntoIterator<Item = Call>) -> Bytes {
    let calls = calls
        .into_iter()
        .map(|call| multicall::Call3 { target: call.to, allowFailure: call.may_fail, callData: call.data })
        .collect();
    multicall::aggregate3Call { calls }.abi_encode().into()
}

/// What each call of an [`aggregate3`] of `expected` calls returned; `None` if that is not what the bytes are.
///
/// Several results may point at one place in the bytes, so a small answer could stand for much: the results together
/// are never longer than the answer.
pub fn aggregate3_results(data: &[u8], expected: usize) -> Option<Vec<(bool, Bytes)>> {
    let list = data.get(as_len(data.get(..32)?)?..)?;
    let (count, places) = list.split_at_checked(32)?;
    if as_len(count)? != expected {
        return None;
    }
    let mut left = data.len();
    let one = |n: usize| {
        let place = places.get(n.checked_mul(32)?..)?.get(..32)?;
        let result = places.get(as_len(place)?..)?;
        let success = as_bool(result.get(..32)?)?;
        let (len, rest) = result.get(as_len(result.get(32..64)?)?..)?.split_at_checked(32)?;
        let returned = rest.get(..as_len(len)?)?;
        left = left.checked_sub(returned.len())?;
        Some((success, Bytes::copy_from_slice(returned)))
    };
    (0..expected).map(one).collect()
}

/// A word that counts bytes.
pub(crate) fn as_len(word: &[u8]) -> Option<usize> {
    usize::try_from(as_uint(word)?).ok()
}

/// A returned `uint256`: exactly one word.
pub fn as_uint(data: &[u8]) -> Option<U256> {
    (data.len() == 32).then(|| U256::from_be_slice(data))
}

/// A returned `bool`: exactly one word, 0 or 1.
pub fn as_bool(data: &[u8]) -> Option<bool> {
    match as_uint(data)? {
        U256::ZERO => Some(false),
        U256::ONE => Some(true),
        _ => None,
    }
}

/// The longest text that is read of a contract, in bytes.
pub const MAX_STRING_LEN: usize = 256;

/// A returned `string`, of at most [`MAX_STRING_LEN`] bytes.
pub fn as_string(data: &[u8]) -> Option<String> {
    if data.len() > 64 + MAX_STRING_LEN {
        return None;
    }
    // An offset that points into the head leaves room for a longer text.
    String::abi_decode(data).ok().filter(|text| text.len() <= MAX_STRING_LEN)
}

/// Whether a contract agreed that a signature is its own.
///
/// Spec: ERC-1271: the magic value, left-aligned in one word.
pub fn is_magic(data: &[u8]) -> bool {
    data.len() == 32 && data[..4] == ERC1271_MAGIC && data[4..].iter().all(|byte| *byte == 0)
}

pub(crate) fn encode_wrapped(wrapped: &Wrapped) -> Vec<u8> {
    (wrapped.factory, wrapped.factory_data.clone(), wrapped.signature.clone()).abi_encode_params()
}
