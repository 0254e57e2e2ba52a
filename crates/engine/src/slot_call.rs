//! The call that a relayer's slot makes, and how it is read out of a stored transaction.

use bytes::Bytes;
use farthing_primitives::Address;

/// One call that a slot makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotCall {
    pub to: Address,
    pub data: Bytes,
    pub gas: u64,
}

/// The call that a stored transaction of ours makes, so that a better offer for its nonce makes the same one.
///
/// Spec: EIP-1559: `0x02 || rlp([chain_id, nonce, priority_fee, max_fee, gas, to, value, data, …])`.
pub(crate) fn call_in(raw: &[u8]) -> Option<SlotCall> {
    let (mut fields, _) = rlp_item(raw.strip_prefix(&[2])?)?;
    let mut next = || {
        let (field, rest) = rlp_item(fields)?;
        fields = rest;
        Some(field)
    };
    let mut values = Vec::with_capacity(8);
    for _ in 0..8 {
        values.push(next()?);
    }
    let gas: &[u8] = values.get(4)?;
    let to: [u8; 20] = (*values.get(5)?).try_into().ok()?;
    let gas = (gas.len() <= 8).then(|| gas.iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))?;
    Some(SlotCall { to: Address::from_evm_bytes(to), data: Bytes::copy_from_slice(values.get(7)?), gas })
}

/// The content of the first item, and what follows it.
fn rlp_item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => return bytes.split_at_checked(1),
        0x80..=0xb7 => (usize::from(first - 0x80), rest),
        0xc0..=0xf7 => (usize::from(first - 0xc0), rest),
        _ => {
            let digits = usize::from(if first < 0xc0 { first - 0xb7 } else { first - 0xf7 });
            let (len, rest) = rest.split_at_checked(digits)?;
            let len = len
                .iter()
                .try_fold(0usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?;
            (len, rest)
        }
    };
    rest.split_at_checked(len)
}
