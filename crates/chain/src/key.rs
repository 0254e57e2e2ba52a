use alloy_consensus::{SignableTransaction, TxEip1559};
use alloy_eips::Encodable2718;
use alloy_primitives::{Signature, TxKind, U256};
use farthing_engine::{RelayerKey, SignedTx, TxHash, UnsignedTx};
use farthing_evm::{Key, from_alloy, to_alloy};
use farthing_primitives::Address;

/// A relayer's key in this process.
#[derive(Debug)]
pub struct LocalKey(Key);

impl LocalKey {
    pub fn new(key: Key) -> Self {
        Self(key)
    }
}

impl RelayerKey for LocalKey {
    fn address(&self) -> Address {
        from_alloy(self.0.address())
    }

    /// Signs the transaction, which sends no native value. The same transaction has the same bytes each time.
    ///
    /// # Panics
    /// If `to` is not an EVM address, which the engine's EVM slots never hold.
    ///
    /// Spec: EIP-1559, EIP-2718.
    fn sign(&self, tx: &UnsignedTx) -> SignedTx {
        // INVARIANT: a transaction with an EVM chain id goes to an EVM address. Signing it to anything else would make
        // a contract creation or a burn of it.
        #[allow(clippy::expect_used)]
        let to = to_alloy(&tx.to).expect("an EVM transaction goes to an EVM address");
        let unsigned = TxEip1559 {
            chain_id: tx.chain_id,
            nonce: tx.nonce,
            gas_limit: tx.gas,
            max_fee_per_gas: tx.fees.max_fee,
            max_priority_fee_per_gas: tx.fees.priority_fee,
            to: TxKind::Call(to),
            value: U256::ZERO,
            access_list: Default::default(),
            input: tx.data.clone().into(),
        };
        let signature = self.0.sign(unsigned.signature_hash());
        let signature =
            Signature::from_scalars_and_parity(signature.r(), signature.s(), signature.y_is_odd());
        let signed = unsigned.into_signed(signature);
        SignedTx { hash: TxHash(signed.hash().0), raw: signed.encoded_2718().into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farthing_engine::Fees;

    /// The expected bytes were made with viem 2.55, from the first of the development keys that everybody knows.
    #[test]
    fn a_signed_transaction_is_what_others_sign() {
        let key = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        let key = LocalKey::new(Key::from_hex(key).unwrap());
        assert_eq!(key.address().as_str(), "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266");
        let check = |nonce, raw: &str, hash: &str| {
            let tx = UnsignedTx {
                chain_id: 84_532,
                nonce,
                to: Address::evm("0x036CbD53842c5426634e7929541eC2318f3dCF7e").unwrap(),
                data: bytes::Bytes::from_static(&[0xde, 0xad, 0xbe, 0xef]),
                gas: 100_000,
                fees: Fees { max_fee: 2_000_000_000, priority_fee: 1_000_000 },
            };
            let signed = key.sign(&tx);
            assert_eq!(alloy_primitives::hex::encode_prefixed(&signed.raw), raw);
            assert_eq!(signed.hash.to_string(), hash);
        };
        check(
            0,
            "0x02f87183014a3480830f42408477359400830186a094036cbd53842c5426634e7929541ec2318f3dcf7e8084deadbeefc080a0479a62770a72fc5b7776cd6e02b4f0d539801b96881b1f74947fba16e5d9db5da003d612ae0330d0ddb7b8baa3d8f936828a19eb8bc2b367b05d8168b344cc51e8",
            "0x9e02747902beb1e6ce5ed4a3c28bc177586611b435da1961094c6d54a99aadf8",
        );
        check(
            300,
            "0x02f87383014a3482012c830f42408477359400830186a094036cbd53842c5426634e7929541ec2318f3dcf7e8084deadbeefc001a09ba54ef7da77eda73c688824ee4e38b40b80a054a7bca343d27a91ab8dea876ea04eb2663b23bc58532cbc14639f5e324329deb94c46985ad447255efcdaa7f6ea",
            "0xdfd4cc3497629f5ce7df224e2961efdfb164f8c47d0291e0e455c7e5efc61825",
        );
    }
}
