//! Calls of the escrow of payment channels, what they return, and why they revert.
//!
//! Spec: draft-evm-session-00, "Contract Functions"; views and `settleMany` as in `contracts/`.

// The ABI's own names.
#![allow(non_snake_case)]

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolError, sol};

use crate::Revert;
use crate::abi::{as_len, as_uint};
use crate::voucher::{ChannelParts, PayeeAuthorization};

mod calls {
    use super::sol;
    sol! {
        struct Claim { bytes32 channelId; uint128 cumulativeAmount; bytes signature; }

        function open(address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner)
            external returns (bytes32 channelId);
        function settle(bytes32 channelId, uint128 cumulativeAmount, bytes signature) external;
        function topUp(bytes32 channelId, uint128 additionalDeposit) external;
        function close(bytes32 channelId, uint128 cumulativeAmount, bytes signature) external;
        function requestClose(bytes32 channelId) external;
        function withdraw(bytes32 channelId) external;
        function openWithAuthorization(
            address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner, address from,
            uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature
        ) external returns (bytes32 channelId);
        function openWithPermit2(
            address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner, address from,
            uint256 nonce, uint256 deadline, bytes signature
        ) external returns (bytes32 channelId);
        function topUpWithAuthorization(
            bytes32 channelId, uint128 additionalDeposit, address from, bytes32 topUpSalt, uint256 validAfter,
            uint256 validBefore, bytes32 nonce, bytes signature
        ) external;
        function topUpWithPermit2(
            bytes32 channelId, uint128 additionalDeposit, address from, uint256 nonce, uint256 deadline,
            bytes signature
        ) external;
        function settleWithAuthorization(
            bytes32 channelId, uint128 cumulativeAmount, uint256 nonce, uint256 deadline, bytes payeeSignature,
            bytes voucherSignature
        ) external;
        function closeWithAuthorization(
            bytes32 channelId, uint128 cumulativeAmount, uint256 nonce, uint256 deadline, bytes payeeSignature,
            bytes voucherSignature
        ) external;
        function settleMany(address token, Claim[] claims) external returns (uint256 paid);

        function CLOSE_GRACE_PERIOD() external view returns (uint64);
        function getChannel(bytes32 channelId) external view returns (bytes memory);
        function getChannelsBatch(bytes32[] channelIds) external view returns (bytes memory);
    }
}

mod errors {
    use super::sol;
    sol! {
        error ChannelAlreadyExists();
        error ChannelNotFound();
        error ChannelFinalized();
        error NotPayee();
        error NotPayer();
        error AmountNotIncreasing();
        error AmountExceedsDeposit();
        error InvalidSignature();
        error NonceMismatch();
        error NonceAlreadyUsed();
        error AuthorizationExpired();
        error CloseNotReady();
        error ZeroDeposit();
        error DepositOverflow();
        error InvalidPayee();
        error InvalidPayer();
        error TransferFailed();
        error InexactDeposit();
        error TokenMismatch();
        error NothingToSettle();
        error Reentered();
    }
}

macro_rules! names {
    ($($name:ident),* $(,)?) => { &[$((errors::$name::SELECTOR, stringify!($name))),*] };
}

/// The escrow's own errors, by selector.
const NAMES: &[([u8; 4], &str)] = names![
    ChannelAlreadyExists,
    ChannelNotFound,
    ChannelFinalized,
    NotPayee,
    NotPayer,
    AmountNotIncreasing,
    AmountExceedsDeposit,
    InvalidSignature,
    NonceMismatch,
    NonceAlreadyUsed,
    AuthorizationExpired,
    CloseNotReady,
    ZeroDeposit,
    DepositOverflow,
    InvalidPayee,
    InvalidPayer,
    TransferFailed,
    InexactDeposit,
    TokenMismatch,
    NothingToSettle,
    Reentered,
];

/// The words of one channel in a returned struct.
const CHANNEL_WORDS: usize = 8;

/// What the escrow says of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OnChain {
    pub payer: Address,
    pub payee: Address,
    pub token: Address,
    /// Zero stands for the payer.
    pub authorized_signer: Address,
    pub deposit: u128,
    pub settled: u128,
    /// In seconds; zero if the payer did not ask.
    pub close_requested_at: u64,
    pub finalized: bool,
}

impl OnChain {
    /// Whether any channel was ever opened there: one that never was is all zero, and nobody can be its payer.
    pub fn exists(&self) -> bool {
        !self.payer.is_zero()
    }

    /// Whose signature a voucher needs.
    pub fn voucher_signer(&self) -> Address {
        if self.authorized_signer.is_zero() { self.payer } else { self.authorized_signer }
    }
}

/// A deposit that its owner allows us to bring: by an EIP-3009 authorization whose nonce commits to its purpose, or
/// through Permit2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pull {
    Authorization { valid_after: U256, valid_before: U256, nonce: B256, signature: Bytes },
    Permit2 { nonce: U256, deadline: U256, signature: Bytes },
}

/// `openWithAuthorization` or `openWithPermit2`, for the payer that `parts` name.
pub fn open_with(parts: &ChannelParts, deposit: u128, pull: &Pull) -> Bytes {
    let &ChannelParts { payer: from, payee, token, salt, authorized_signer: authorizedSigner, .. } = parts;
    match pull.clone() {
        Pull::Authorization { valid_after: validAfter, valid_before: validBefore, nonce, signature } => {
            calls::openWithAuthorizationCall {
                payee,
                token,
                deposit,
                salt,
                authorizedSigner,
                from,
                validAfter,
                validBefore,
                nonce,
                signature,
            }
            .abi_encode()
        }
        Pull::Permit2 { nonce, deadline, signature } => calls::openWithPermit2Call {
            payee,
            token,
            deposit,
            salt,
            authorizedSigner,
            from,
            nonce,
            deadline,
            signature,
        }
        .abi_encode(),
    }
    .into()
}

/// `topUpWithAuthorization` (which needs the salt that its nonce commits to) or `topUpWithPermit2`.
pub fn top_up_with(channel: B256, additional: u128, from: Address, salt: B256, pull: &Pull) -> Bytes {
    let (channelId, additionalDeposit, topUpSalt) = (channel, additional, salt);
    match pull.clone() {
        Pull::Authorization { valid_after: validAfter, valid_before: validBefore, nonce, signature } => {
            calls::topUpWithAuthorizationCall {
                channelId,
                additionalDeposit,
                from,
                topUpSalt,
                validAfter,
                validBefore,
                nonce,
                signature,
            }
            .abi_encode()
        }
        Pull::Permit2 { nonce, deadline, signature } => {
            calls::topUpWithPermit2Call { channelId, additionalDeposit, from, nonce, deadline, signature }
                .abi_encode()
        }
    }
    .into()
}

/// `open`, by the payer itself.
pub fn open(parts: &ChannelParts, deposit: u128) -> Bytes {
    let &ChannelParts { payee, token, salt, authorized_signer: authorizedSigner, .. } = parts;
    calls::openCall { payee, token, deposit, salt, authorizedSigner }.abi_encode().into()
}

/// `topUp`, by the payer itself.
pub fn top_up(channel: B256, additional: u128) -> Bytes {
    calls::topUpCall { channelId: channel, additionalDeposit: additional }.abi_encode().into()
}

/// `requestClose`, by the payer.
pub fn request_close(channel: B256) -> Bytes {
    calls::requestCloseCall { channelId: channel }.abi_encode().into()
}

/// `withdraw`, by the payer.
pub fn withdraw(channel: B256) -> Bytes {
    calls::withdrawCall { channelId: channel }.abi_encode().into()
}

/// `settle`, by the payee itself.
pub fn settle(channel: B256, cumulative: u128, voucher: Bytes) -> Bytes {
    calls::settleCall { channelId: channel, cumulativeAmount: cumulative, signature: voucher }
        .abi_encode()
        .into()
}

/// `close`, by the payee itself; no voucher for no more than what was settled.
pub fn close(channel: B256, cumulative: u128, voucher: Bytes) -> Bytes {
    calls::closeCall { channelId: channel, cumulativeAmount: cumulative, signature: voucher }
        .abi_encode()
        .into()
}

/// `settleWithAuthorization`, by anybody whom the payee allows it.
pub fn settle_with_authorization(allowed: &PayeeAuthorization, payee: Bytes, voucher: Bytes) -> Bytes {
    let &PayeeAuthorization { channel, cumulative, nonce, deadline } = allowed;
    calls::settleWithAuthorizationCall {
        channelId: channel,
        cumulativeAmount: cumulative,
        nonce,
        deadline,
        payeeSignature: payee,
        voucherSignature: voucher,
    }
    .abi_encode()
    .into()
}

/// `closeWithAuthorization`, by anybody whom the payee allows it.
pub fn close_with_authorization(allowed: &PayeeAuthorization, payee: Bytes, voucher: Bytes) -> Bytes {
    let &PayeeAuthorization { channel, cumulative, nonce, deadline } = allowed;
    calls::closeWithAuthorizationCall {
        channelId: channel,
        cumulativeAmount: cumulative,
        nonce,
        deadline,
        payeeSignature: payee,
        voucherSignature: voucher,
    }
    .abi_encode()
    .into()
}

/// `settleMany`: (channel, cumulative amount, voucher) of channels of the caller in one token.
pub fn settle_many(token: Address, claims: Vec<(B256, u128, Bytes)>) -> Bytes {
    let claim =
        |(channelId, cumulativeAmount, signature)| calls::Claim { channelId, cumulativeAmount, signature };
    calls::settleManyCall { token, claims: claims.into_iter().map(claim).collect() }.abi_encode().into()
}

pub fn get_channel(channel: B256) -> Bytes {
    calls::getChannelCall { channelId: channel }.abi_encode().into()
}

pub fn get_channels(channels: Vec<B256>) -> Bytes {
    calls::getChannelsBatchCall { channelIds: channels }.abi_encode().into()
}

pub fn grace_period() -> Bytes {
    calls::CLOSE_GRACE_PERIODCall {}.abi_encode().into()
}

/// What `CLOSE_GRACE_PERIOD` returned, in seconds: exactly one word that fits `uint64`.
pub fn as_grace_period(data: &[u8]) -> Option<u64> {
    u64::try_from(as_uint(data)?).ok()
}

/// What `getChannel` returned: exactly the words of one channel, each within its type.
pub fn as_channel(data: &[u8]) -> Option<OnChain> {
    if data.len() != CHANNEL_WORDS * 32 {
        return None;
    }
    let word = |index: usize| data.get(index * 32..index * 32 + 32);
    let address = |index| {
        let (zeros, address) = word(index)?.split_at_checked(12)?;
        zeros.iter().all(|byte| *byte == 0).then(|| Address::from_slice(address))
    };
    let amount = |index| u128::try_from(as_uint(word(index)?)?).ok();
    Some(OnChain {
        payer: address(0)?,
        payee: address(1)?,
        token: address(2)?,
        authorized_signer: address(3)?,
        deposit: amount(4)?,
        settled: amount(5)?,
        close_requested_at: u64::try_from(amount(6)?).ok()?,
        finalized: match amount(7)? {
            0 => false,
            1 => true,
            _ => return None,
        },
    })
}

/// What `getChannelsBatch` returned of `expected` channels.
pub fn as_channels(data: &[u8], expected: usize) -> Option<Vec<OnChain>> {
    let (offset, rest) = data.split_at_checked(32)?;
    let (count, rest) = rest.split_at_checked(32)?;
    if as_len(offset)? != 32
        || as_len(count)? != expected
        || rest.len() != expected.checked_mul(CHANNEL_WORDS * 32)?
    {
        return None;
    }
    rest.chunks(CHANNEL_WORDS * 32).map(as_channel).collect()
}

/// Why the escrow said no. Some names are also those of other contracts' errors, which have other arguments.
pub fn revert(data: &[u8]) -> Revert {
    match data.split_first_chunk::<4>() {
        Some((selector, [])) => NAMES
            .iter()
            .find(|(known, _)| known == selector)
            .map_or_else(|| Revert::decode(data), |(_, name)| Revert::Named(name)),
        _ => Revert::decode(data),
    }
}

#[cfg(test)]
#[path = "escrow_tests.rs"]
mod tests;
