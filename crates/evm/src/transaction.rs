//! Signed transactions that somebody else made: what they do, and who pays for them.

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::{Decodable, Header};

use crate::{SigError, Signature};

/// The first byte of a transaction with a priority fee.
///
/// Spec: EIP-1559, EIP-2718.
const DYNAMIC_FEE: u8 = 2;

/// Why bytes are not a signed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    #[error("not a transaction of type 2")]
    Type,
    #[error("not the one spelling that a transaction has")]
    Encoding,
    #[error("the transaction creates a contract")]
    Creation,
    #[error("the signature is not one: {0}")]
    Signature(#[from] SigError),
}

/// A transaction of type 2 as it was signed. Its bytes have one reading: what another spelling says is refused, so that
/// the hash is the one that every node gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTransaction {
    pub chain_id: u64,
    pub nonce: u64,
    /// Wei for each unit of gas.
    pub max_priority_fee: u128,
    pub max_fee: u128,
    pub gas: u64,
    pub to: Address,
    /// Of the native asset, in wei.
    pub value: U256,
    pub data: Bytes,
    pub has_access_list: bool,
    /// Whose key signed it.
    pub from: Address,
    pub hash: B256,
}

impl From<alloy_rlp::Error> for TransactionError {
    fn from(_: alloy_rlp::Error) -> Self {
        Self::Encoding
    }
}

impl SignedTransaction {
    /// Reads a transaction and recovers its signer.
    ///
    /// # Errors
    /// [`TransactionError`]; other types of transactions are refused, among them those without a chain id.
    ///
    /// Spec: EIP-1559: `0x02 || rlp([chain_id, nonce, max_priority_fee_per_gas, max_fee_per_gas, gas_limit,
    /// destination, amount, data, access_list, signature_y_parity, signature_r, signature_s])`.
    pub fn parse(raw: &[u8]) -> Result<Self, TransactionError> {
        let (kind, mut list) = raw.split_first().ok_or(TransactionError::Type)?;
        if *kind != DYNAMIC_FEE {
            return Err(TransactionError::Type);
        }
        // The decoder refuses every spelling but the shortest.
        let all = Header::decode_bytes(&mut list, true)?;
        if !list.is_empty() {
            return Err(TransactionError::Encoding);
        }
        let mut rest = all;
        let (chain_id, nonce) = (u64::decode(&mut rest)?, u64::decode(&mut rest)?);
        let (max_priority_fee, max_fee) = (u128::decode(&mut rest)?, u128::decode(&mut rest)?);
        let gas = u64::decode(&mut rest)?;
        let to = match Header::decode_bytes(&mut rest, false)? {
            [] => return Err(TransactionError::Creation),
            to => Address::from(<[u8; 20]>::try_from(to).map_err(|_| TransactionError::Encoding)?),
        };
        let value = U256::decode(&mut rest)?;
        let data = Bytes::copy_from_slice(Header::decode_bytes(&mut rest, false)?);
        let access_list = Header::decode_bytes(&mut rest, true)?;
        let signed_over = &all[..all.len() - rest.len()];
        let y_parity = u64::decode(&mut rest)?;
        let (r, s) = (U256::decode(&mut rest)?, U256::decode(&mut rest)?);
        if !rest.is_empty() || y_parity > 1 {
            return Err(TransactionError::Encoding);
        }
        let mut signature = [0u8; 65];
        signature[..32].copy_from_slice(&r.to_be_bytes::<32>());
        signature[32..64].copy_from_slice(&s.to_be_bytes::<32>());
        signature[64] = u8::from(y_parity == 1);
        let mut unsigned = vec![DYNAMIC_FEE];
        Header { list: true, payload_length: signed_over.len() }.encode(&mut unsigned);
        unsigned.extend_from_slice(signed_over);
        let from = Signature::parse(&signature)?.recover(keccak256(&unsigned))?;
        Ok(Self {
            chain_id,
            nonce,
            max_priority_fee,
            max_fee,
            gas,
            to,
            value,
            data,
            has_access_list: !access_list.is_empty(),
            from,
            hash: keccak256(raw),
        })
    }

    /// The most wei that it may cost whoever signed it; `None` if that is more than anybody has.
    pub fn most_cost(&self) -> Option<u128> {
        u128::from(self.gas).checked_mul(self.max_fee)?.checked_add(u128::try_from(self.value).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made with viem 2.55, from the first of the development keys that everybody knows.
    const RAW: &str = "02f87183014a3480830f42408477359400830186a094036cbd53842c5426634e7929541ec2318f3dcf7e8084deadbeefc080a0479a62770a72fc5b7776cd6e02b4f0d539801b96881b1f74947fba16e5d9db5da003d612ae0330d0ddb7b8baa3d8f936828a19eb8bc2b367b05d8168b344cc51e8";

    fn raw() -> Vec<u8> {
        hex::decode(RAW).unwrap()
    }

    #[test]
    fn a_transaction_of_another_library_is_read() {
        let tx = SignedTransaction::parse(&raw()).unwrap();
        assert_eq!((tx.chain_id, tx.nonce, tx.gas), (84_532, 0, 100_000));
        assert_eq!((tx.max_priority_fee, tx.max_fee), (1_000_000, 2_000_000_000));
        assert_eq!(format!("{:#x}", tx.to), "0x036cbd53842c5426634e7929541ec2318f3dcf7e");
        assert_eq!((tx.value, tx.data.as_ref()), (U256::ZERO, &[0xde, 0xad, 0xbe, 0xef][..]));
        assert!(!tx.has_access_list);
        assert_eq!(format!("{:#x}", tx.from), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        let hash = "0x9e02747902beb1e6ce5ed4a3c28bc177586611b435da1961094c6d54a99aadf8";
        assert_eq!(format!("{:#x}", tx.hash), hash);
        assert_eq!(tx.most_cost(), Some(200_000_000_000_000));
    }

    #[test]
    fn other_types_and_spellings_are_refused() {
        let good = raw();
        let check = |change: &dyn Fn(&mut Vec<u8>), expected| {
            let mut bytes = good.clone();
            change(&mut bytes);
            assert_eq!(SignedTransaction::parse(&bytes), Err(expected), "{}", hex::encode(&bytes));
        };
        check(&Vec::clear, TransactionError::Type);
        check(&|bytes| bytes[0] = 1, TransactionError::Type);
        // A legacy transaction is a list at once.
        check(
            &|bytes| {
                bytes.remove(0);
            },
            TransactionError::Type,
        );
        check(&|bytes| bytes.push(0), TransactionError::Encoding);
        check(&|bytes| bytes.truncate(40), TransactionError::Encoding);
        // The length in two bytes, though one does.
        check(
            &|bytes| {
                bytes[1] = 0xf9;
                bytes.insert(2, 0);
            },
            TransactionError::Encoding,
        );
        // A zero that is written as one.
        check(&|bytes| bytes[7] = 0, TransactionError::Encoding);
        // The contract creation of the same length: no destination, and 20 bytes more of data.
        let mut creation = good.clone();
        let at = 1 + 2 + 4 + 1 + 4 + 5 + 4;
        assert_eq!(creation[at], 0x94);
        creation.drain(at + 1..at + 21);
        creation[at] = 0x80;
        creation[2] -= 20;
        assert_eq!(SignedTransaction::parse(&creation), Err(TransactionError::Creation));
    }

    /// Of the two signatures of one transaction, nodes take the one with the lower `s`: the other has another hash.
    #[test]
    fn the_other_signature_of_a_transaction_is_no_second_one() {
        let order =
            U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16);
        let mut bytes = raw();
        let at = bytes.len() - 32;
        let s = U256::from_be_slice(&bytes[at..]);
        bytes[at..].copy_from_slice(&(order.unwrap() - s).to_be_bytes::<32>());
        let parity = at - 1 - 32 - 1 - 1;
        assert_eq!(bytes[parity], 0x80);
        bytes[parity] = 1;
        assert_eq!(SignedTransaction::parse(&bytes), Err(TransactionError::Signature(SigError::HighS)));
    }

    proptest! {
        #[test]
        fn a_changed_transaction_is_refused_or_another(at in 0usize..115, to in any::<u8>()) {
            let good = raw();
            let mut bytes = good.clone();
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok(tx) = SignedTransaction::parse(&bytes)
                && bytes != good
            {
                prop_assert_ne!(tx.hash, SignedTransaction::parse(&good).unwrap().hash);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            let _ = SignedTransaction::parse(&bytes);
            bytes.insert(0, DYNAMIC_FEE);
            let _ = SignedTransaction::parse(&bytes);
        }
    }
}
