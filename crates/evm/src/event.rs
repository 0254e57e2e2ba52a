//! What a transaction's logs prove.

use alloy_primitives::{Address, B256, Bytes, U256, b256};

/// One log of one transaction, as a node reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    pub address: Address,
    pub topics: Vec<B256>,
    pub data: Bytes,
    /// The log's place in its block.
    pub index: u64,
}

/// `Transfer(address indexed from, address indexed to, uint256 value)`
///
/// Spec: ERC-20.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    pub from: Address,
    pub to: Address,
    pub value: U256,
}

impl Transfer {
    pub const TOPIC: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

    /// Reads a log, whoever emitted it: compare the emitter with the token.
    pub fn decode(log: &Log) -> Option<Self> {
        let [topic, from, to] = log.topics.as_slice() else { return None };
        (*topic == Self::TOPIC && log.data.len() == 32).then_some(())?;
        Some(Self { from: address(from)?, to: address(to)?, value: U256::from_be_slice(&log.data) })
    }
}

/// `AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce)`
///
/// Spec: EIP-3009.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorizationUsed {
    pub authorizer: Address,
    pub nonce: B256,
}

impl AuthorizationUsed {
    pub const TOPIC: B256 = b256!("98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5");

    /// Reads a log, whoever emitted it: compare the emitter with the token.
    pub fn decode(log: &Log) -> Option<Self> {
        let [topic, authorizer, nonce] = log.topics.as_slice() else { return None };
        (*topic == Self::TOPIC && log.data.is_empty()).then_some(())?;
        Some(Self { authorizer: address(authorizer)?, nonce: *nonce })
    }
}

/// `AuthorizationCanceled(address indexed authorizer, bytes32 indexed nonce)`
///
/// Spec: EIP-3009.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorizationCanceled {
    pub authorizer: Address,
    pub nonce: B256,
}

impl AuthorizationCanceled {
    pub const TOPIC: B256 = b256!("1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81");

    /// Reads a log, whoever emitted it: compare the emitter with the token.
    pub fn decode(log: &Log) -> Option<Self> {
        let [topic, authorizer, nonce] = log.topics.as_slice() else { return None };
        (*topic == Self::TOPIC && log.data.is_empty()).then_some(())?;
        Some(Self { authorizer: address(authorizer)?, nonce: *nonce })
    }
}

fn address(topic: &B256) -> Option<Address> {
    topic[..12].iter().all(|byte| *byte == 0).then(|| Address::from_slice(&topic[12..]))
}
