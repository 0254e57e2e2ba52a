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
