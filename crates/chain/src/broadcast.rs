//! What a node's answer to `eth_sendRawTransaction` says about the transaction.

use alloy_json_rpc::ErrorPayload;
use alloy_primitives::B256;
use farthing_engine::{Broadcast, TxHash};

use crate::node::Answer;
use crate::wire;

/// It has it already: geth and erigon, anvil, Nethermind, OpenEthereum and Besu, in this order.
const KNOWN: &[&str] = &["already known", "already imported", "alreadyknown", "known transaction"];
/// geth, erigon, reth, anvil, Besu; Nethermind; OpenEthereum.
const NONCE_TOO_LOW: &[&str] = &["nonce too low", "nonce_too_low", "oldnonce", "nonce is too low"];
/// geth, erigon, reth, anvil, Besu; Nethermind; OpenEthereum.
const UNDERPRICED: &[&str] = &[
    "replacement transaction underpriced",
    "replacementnotallowed",
    "replacement not allowed",
    "another transaction with same nonce",
];
/// geth, erigon, reth, anvil; Nethermind; Besu; Hardhat.
const NO_GAS: &[&str] =
    &["insufficient funds", "insufficientfunds", "upfront cost exceeds", "doesn't have enough funds"];
/// What no node says of a transaction that it has or may have. Anything else that a node says is doubt, not refusal.
const REJECTED: &[&str] = &[
    "transaction underpriced",
    "fee too low",
    "feetoolow",
    "gas price below",
    "tip below",
    "less than block base fee",
    "less than the block base fee",
    "lower than block base fee",
    "higher than max fee per gas",
    "exceeds the configured cap",
    "intrinsic gas too low",
    "intrinsic gas",
    "floor data gas",
    "exceeds block gas limit",
    "gas limit too high",
    "gaslimitexceeded",
    "nonce too high",
    "nonce gap",
    "noncegap",
    "invalid sender",
    "invalid signature",
    "invalid chain id",
    "chain id",
    "chainid",
    "only replay-protected",
    "transaction type not supported",
    "oversized data",
    "initcode",
    "rlp:",
    "failed to decode",
    "txpool is full",
    "pool is full",
    "queue limit",
    "in-flight transaction limit",
    "future transaction tries to replace pending",
];
/// Invalid request, no such method, invalid parameters, unreadable: the node has not looked at the transaction.
const NOT_TAKEN_CODES: &[i64] = &[-32600, -32601, -32602, -32700];

/// Only what a node says in known words is a refusal; everything else is [`Broadcast::Ambiguous`], because a
/// transaction that was thought refused and is mined after all pays twice.
pub(crate) fn classify(answer: &Answer, hash: TxHash) -> Broadcast {
    match answer {
        Ok(raw) => match wire::read::<B256>(raw) {
            Ok(answered) if answered.0 == hash.0 => Broadcast::Accepted,
            Ok(answered) => Broadcast::Ambiguous(format!("the node names another transaction: {answered}")),
            Err(_) => Broadcast::Ambiguous("the node answers no hash".to_owned()),
        },
        Err(error) => classify_error(error),
    }
}

fn classify_error(error: &ErrorPayload) -> Broadcast {
    let message = error.message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let text = || wire::text(&format!("{} (code {})", error.message, error.code));
    if says(KNOWN) {
        Broadcast::Accepted
    } else if says(NONCE_TOO_LOW) {
        Broadcast::NonceTooLow
    } else if says(UNDERPRICED) {
        Broadcast::Underpriced
    } else if says(NO_GAS) {
        Broadcast::NoGas
    } else if says(REJECTED) || NOT_TAKEN_CODES.contains(&error.code) {
        Broadcast::Rejected(text())
    } else {
        Broadcast::Ambiguous(text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: i64, message: &'static str) -> Broadcast {
        classify(&Err(ErrorPayload { code, message: message.into(), data: None }), TxHash([7; 32]))
    }

    #[test]
    fn what_nodes_say_of_a_transaction() {
        let rows: &[(i64, &'static str, &str)] = &[
            (-32000, "already known", "accepted"),
            (-32003, "transaction already imported", "accepted"),
            (-32010, "AlreadyKnown", "accepted"),
            (-32010, "Transaction with the same hash was already imported.", "accepted"),
            (-32000, "Known transaction", "accepted"),
            (-32000, "known transaction: 0707", "accepted"),
            (-32000, "nonce too low", "low"),
            (-32000, "nonce too low: next nonce 5, tx nonce 4", "low"),
            (-32003, "nonce too low", "low"),
            (-32010, "OldNonce, Current nonce: 5, nonce of rejected tx: 4", "low"),
            (-32001, "Nonce too low", "low"),
            (-32000, "replacement transaction underpriced", "underpriced"),
            (-32003, "Replacement transaction underpriced", "underpriced"),
            (-32010, "ReplacementNotAllowed", "underpriced"),
            (-32000, "insufficient funds for gas * price + value: balance 0, tx cost 9", "no gas"),
            (-32003, "Insufficient funds for gas * price + value", "no gas"),
            (-32010, "InsufficientFunds, Account balance: 0, cumulative cost: 9", "no gas"),
            (-32004, "Upfront cost exceeds account balance", "no gas"),
            (-32000, "transaction underpriced: gas tip cap 1, minimum needed 2", "rejected"),
            (-32000, "max fee per gas less than block base fee: address 0x, maxFeePerGas: 1", "rejected"),
            (-32000, "intrinsic gas too low: gas 9, minimum needed 21000", "rejected"),
            (-32000, "exceeds block gas limit", "rejected"),
            (-32000, "invalid chain id for signer: have 1 want 2", "rejected"),
            (-32000, "tx fee (9.00 ether) exceeds the configured cap (1.00 ether)", "rejected"),
            (-32000, "txpool is full", "rejected"),
            (-32602, "Failed to decode transaction", "rejected"),
            (-32601, "the method eth_sendRawTransaction does not exist", "rejected"),
            (-32603, "Internal error", "ambiguous"),
            (-32000, "context deadline exceeded", "ambiguous"),
            (-32000, "request timed out", "ambiguous"),
            (-32002, "timeout waiting for sequencer", "ambiguous"),
            (-32000, "upstream connect error or disconnect/reset before headers", "ambiguous"),
            (-32000, "something that no node says today", "ambiguous"),
            (-32000, "", "ambiguous"),
        ];
        for (code, message, expected) in rows {
            let got = match says(*code, message) {
                Broadcast::Accepted => "accepted",
                Broadcast::NonceTooLow => "low",
                Broadcast::Underpriced => "underpriced",
                Broadcast::NoGas => "no gas",
                Broadcast::Rejected(_) => "rejected",
                Broadcast::Ambiguous(_) => "ambiguous",
            };
            assert_eq!(got, *expected, "{code} {message}");
        }
    }

    #[test]
    fn an_accepted_transaction_is_named_by_its_hash() {
        let hash = |digits: &str| {
            let raw = serde_json::value::RawValue::from_string(format!("\"0x{}\"", digits.repeat(32)));
            classify(&Ok(raw.unwrap()), TxHash([7; 32]))
        };
        assert_eq!(hash("07"), Broadcast::Accepted);
        assert!(matches!(hash("08"), Broadcast::Ambiguous(_)));
        assert!(matches!(hash("0"), Broadcast::Ambiguous(_)));
    }

    #[test]
    fn a_node_s_text_is_bounded() {
        let long = classify(
            &Err(ErrorPayload { code: 1, message: "\u{7}x".repeat(10_000).into(), data: None }),
            TxHash([0; 32]),
        );
        let Broadcast::Ambiguous(text) = long else { panic!("{long:?}") };
        assert!(text.len() <= 200 && !text.contains('\u{7}'), "{text}");
    }
}
