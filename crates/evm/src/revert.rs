//! Why a contract said no.

use std::fmt;

use alloy_primitives::U256;
use alloy_sol_types::{SolError, SolValue, sol};

/// The longest reason that we keep, in characters.
const MAX_REASON_LEN: usize = 120;

sol! {
    error Error(string reason);
    error Panic(uint256 code);
}

mod known {
    use super::sol;
    sol! {
        // Permit2.
        error InvalidNonce();
        error SignatureExpired(uint256 signatureDeadline);
        error InvalidAmount(uint256 maxAmount);
        error InvalidSignature();
        error InvalidSignatureLength();
        error InvalidSigner();
        error InvalidContractSignature();
        // The x402 proxy.
        error InvalidPermit2Address();
        error InvalidDestination();
        error PaymentTooEarly();
        error InvalidOwner();
        error Permit2612AmountMismatch();
        error ReentrancyGuardReentrantCall();
        // OpenZeppelin's tokens.
        error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
        error ERC20InsufficientAllowance(address spender, uint256 allowance, uint256 needed);
        error ERC20InvalidReceiver(address receiver);
        error ERC20InvalidSender(address sender);
        error ERC2612ExpiredSignature(uint256 deadline);
        error ERC2612InvalidSigner(address signer, address owner);
        error EnforcedPause();
        // EIP-3009 as some tokens write it.
        error AuthorizationExpired(uint256 validBefore, uint256 timestamp);
        error AuthorizationNotYetValid(uint256 validAfter, uint256 timestamp);
        error AuthorizationAlreadyUsed(address authorizer, bytes32 nonce);
        error AuthorizationUsedOrCanceled(address authorizer, bytes32 nonce);
    }
}

/// `InvalidAmount()` of the proxy, which Permit2 spells with an argument.
const PROXY_INVALID_AMOUNT: [u8; 4] = [0x2c, 0x52, 0x11, 0xc6];

macro_rules! names {
    ($($name:ident),* $(,)?) => { &[$((known::$name::SELECTOR, stringify!($name))),*] };
}

const NAMES: &[([u8; 4], &str)] = names![
    InvalidNonce,
    SignatureExpired,
    InvalidAmount,
    InvalidSignature,
    InvalidSignatureLength,
    InvalidSigner,
    InvalidContractSignature,
    InvalidPermit2Address,
    InvalidDestination,
    PaymentTooEarly,
    InvalidOwner,
    Permit2612AmountMismatch,
    ReentrancyGuardReentrantCall,
    ERC20InsufficientBalance,
    ERC20InsufficientAllowance,
    ERC20InvalidReceiver,
    ERC20InvalidSender,
    ERC2612ExpiredSignature,
    ERC2612InvalidSigner,
    EnforcedPause,
    AuthorizationExpired,
    AuthorizationNotYetValid,
    AuthorizationAlreadyUsed,
    AuthorizationUsedOrCanceled,
];

/// The reason of a revert, in a form that is safe to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revert {
    /// No data: out of gas, no such function, or a bare `revert()`.
    Empty,
    /// `Error(string)`: printable ASCII, cut to a bounded length.
    Text(String),
    /// `Panic(uint256)`; codes beyond 64 bits become the largest.
    Panic(u64),
    /// A custom error that we know by name.
    Named(&'static str),
    /// Another custom error, by its selector.
    Unknown([u8; 4]),
    /// Bytes that are no error at all.
    Garbage,
}

impl Revert {
    pub fn decode(data: &[u8]) -> Self {
        let Some((selector, rest)) = data.split_first_chunk::<4>() else {
            return if data.is_empty() { Self::Empty } else { Self::Garbage };
        };
        if *selector == Error::SELECTOR {
            // Nobody writes a reason of kilobytes; reading only the start of one would not decode.
            let bounded = rest.len() <= 4096;
            return match bounded.then(|| String::abi_decode(rest).ok()).flatten() {
                Some(text) => Self::Text(printable(&text)),
                None => Self::Garbage,
            };
        }
        if *selector == Panic::SELECTOR {
            return match U256::abi_decode(rest) {
                Ok(code) => Self::Panic(u64::try_from(code).unwrap_or(u64::MAX)),
                Err(_) => Self::Garbage,
            };
        }
        if *selector == PROXY_INVALID_AMOUNT {
            return Self::Named("InvalidAmount");
        }
        NAMES
            .iter()
            .find(|(known, _)| known == selector)
            .map_or(Self::Unknown(*selector), |(_, name)| Self::Named(name))
    }
}

fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .take(MAX_REASON_LEN)
        .collect()
}

impl fmt::Display for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("reverted without a reason"),
            Self::Text(text) => f.write_str(text),
            Self::Panic(code) => write!(f, "panic {code:#04x}"),
            Self::Named(name) => f.write_str(name),
            Self::Unknown([a, b, c, d]) => write!(f, "error {a:02x}{b:02x}{c:02x}{d:02x}"),
            Self::Garbage => f.write_str("reverted with data that is no error"),
        }
    }
}
