//! What a chain node answers. It may lie; it must not confuse or exhaust us.

use alloy_json_rpc::ErrorPayload;
use farthing_engine::TxHash;
use farthing_evm::{AuthorizationUsed, Transfer};
use serde_json::value::RawValue;

use crate::input::Input;
use crate::rpc_wire::{fee_history, head, logs, quantity, rate_limited, receipt, revert, text, wide};

/// The transaction that the seeds speak of.
const TX: TxHash = TxHash([0x11; 32]);

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let which = input.byte();
    let Ok(json) = std::str::from_utf8(input.rest()) else { return };
    said(json);
    let Ok(raw) = serde_json::from_str::<&RawValue>(json) else { return };
    match which % 6 {
        0 => numbers(raw),
        1 => {
            if let Ok(Some(head)) = head(raw) {
                assert!(head.timestamp.secs() <= u64::MAX / 1000);
            }
        }
        2 => {
            if let Ok(logs) = logs(raw) {
                // No amplification: each log takes more than its hashes in hex.
                assert!(logs.len() * 128 <= json.len());
                for (_, log) in &logs {
                    let _ = (Transfer::decode(log), AuthorizationUsed::decode(log));
                }
            }
        }
        3 => {
            if let Ok(Some(receipt)) = receipt(raw, TX) {
                assert_eq!(receipt.tx, TX);
                // In whole units of gas, the fee is never below what was paid, and it can be counted or is refused.
                let _ = receipt.gas_price.checked_mul(u128::from(receipt.gas_used));
            }
        }
        4 => {
            if let Ok((_, tips)) = fee_history(raw) {
                assert!(tips.len() <= json.len());
            }
        }
        _ => {
            if let Ok(error) = serde_json::from_str::<ErrorPayload>(json) {
                let _ = rate_limited(&error);
                if let Some(data) = revert(&error) {
                    assert!(data.len() <= json.len());
                }
            }
        }
    }
}

/// What is repeated of a node is short, and moves no cursor.
fn said(message: &str) {
    let kept = text(message);
    assert!(kept.chars().count() <= 200 && !kept.chars().any(char::is_control));
}

/// Spec: Ethereum JSON-RPC, "quantity". Leading zeros are let pass.
fn numbers(raw: &RawValue) {
    let expected = serde_json::from_str::<String>(raw.get()).ok().and_then(|text| {
        let digits = text.strip_prefix("0x")?;
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
        plain.then(|| u128::from_str_radix(digits, 16).ok()).flatten()
    });
    assert_eq!(wide(raw).ok(), expected);
    assert_eq!(quantity(raw).ok(), expected.and_then(|number| u64::try_from(number).ok()));
}
