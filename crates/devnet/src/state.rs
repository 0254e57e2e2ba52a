//! Accounts and storage as a value: copying it is cheap, and a copy never changes.
//!
//! Each block keeps its own copy, so that reads at any kept block, snapshots and reorgs need no undo log, and a call
//! runs without holding a lock.

use std::convert::Infallible;
use std::sync::Arc;

use alloy_primitives::map::HashMap;
use alloy_primitives::{Address, B256, Bytes, U256};
use revm::DatabaseRef;
use revm::bytecode::Bytecode;
use revm::primitives::KECCAK_EMPTY;
use revm::state::{AccountInfo, EvmState};

/// Two levels of 64 give 4096 buckets: a write copies two short arrays and one bucket at most.
const FANOUT: usize = 64;

/// `BLOCKHASH` reaches this far back, so older hashes are forgotten.
const BLOCK_HASHES: u64 = 256;

type Bucket<K, V> = Arc<HashMap<K, V>>;
type Row<K, V> = Arc<[Bucket<K, V>; FANOUT]>;

/// What spreads a key over the buckets. The map inside a bucket hashes properly; this needs only to be cheap.
trait Spread {
    fn spread(&self) -> u64;
}

impl Spread for Address {
    fn spread(&self) -> u64 {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[12..20]);
        u64::from_be_bytes(word)
    }
}

impl Spread for (Address, U256) {
    fn spread(&self) -> u64 {
        self.1.as_limbs().iter().fold(self.0.spread(), |sum, limb| sum.rotate_left(5) ^ limb)
    }
}

impl Spread for u64 {
    fn spread(&self) -> u64 {
        *self
    }
}

/// A map whose copies share everything that has not been written since.
#[derive(Debug)]
struct CowMap<K, V>(Arc<[Row<K, V>; FANOUT]>);

impl<K, V> Clone for CowMap<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for CowMap<K, V> {
    fn default() -> Self {
        let bucket: Bucket<K, V> = Arc::new(HashMap::default());
        let row: Row<K, V> = Arc::new(std::array::from_fn(|_| Arc::clone(&bucket)));
        Self(Arc::new(std::array::from_fn(|_| Arc::clone(&row))))
    }
}

impl<K: Spread + Eq + std::hash::Hash + Clone, V: Clone> CowMap<K, V> {
    /// Returns row and column; the multiplication brings the entropy of all bits to the top ones.
    fn place(key: &K) -> (usize, usize) {
        let top = key.spread().wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        (usize::from(top[0] >> 2), usize::from(top[1] >> 2))
    }

    fn get(&self, key: &K) -> Option<&V> {
        let (row, column) = Self::place(key);
        self.0[row][column].get(key)
    }

    fn bucket(&mut self, key: &K) -> &mut HashMap<K, V> {
        let (row, column) = Self::place(key);
        let row = Arc::make_mut(&mut Arc::make_mut(&mut self.0)[row]);
        Arc::make_mut(&mut row[column])
    }

    fn insert(&mut self, key: K, value: V) {
        self.bucket(&key).insert(key, value);
    }

    fn remove(&mut self, key: &K) {
        if self.get(key).is_some() {
            self.bucket(key).remove(key);
        }
    }

    fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().flat_map(|row| row.iter()).flat_map(|bucket| bucket.keys())
    }
}

/// The whole state after one block.
#[derive(Debug, Clone, Default)]
pub struct State {
    accounts: CowMap<Address, AccountInfo>,
    storage: CowMap<(Address, U256), U256>,
    hashes: CowMap<u64, B256>,
}

impl State {
    pub fn account(&self, address: Address) -> Option<&AccountInfo> {
        self.accounts.get(&address)
    }

    pub fn balance(&self, address: Address) -> U256 {
        self.account(address).map(|info| info.balance).unwrap_or_default()
    }

    pub fn nonce(&self, address: Address) -> u64 {
        self.account(address).map(|info| info.nonce).unwrap_or_default()
    }

    pub fn code(&self, address: Address) -> Bytes {
        self.account(address)
            .and_then(|info| info.code.as_ref())
            .map(Bytecode::original_bytes)
            .unwrap_or_default()
    }

    /// Returns whether the account has code that is not an EIP-7702 delegation: such an account sends no
    /// transactions (EIP-3607).
    pub fn is_contract(&self, address: Address) -> bool {
        self.account(address)
            .and_then(|info| info.code.as_ref())
            .is_some_and(|code| !code.is_empty() && !code.is_eip7702())
    }

    pub fn slot(&self, address: Address, slot: U256) -> U256 {
        self.storage.get(&(address, slot)).copied().unwrap_or_default()
    }

    fn edit(&mut self, address: Address, edit: impl FnOnce(&mut AccountInfo)) {
        let mut info = self.account(address).cloned().unwrap_or_default();
        edit(&mut info);
        self.accounts.insert(address, info);
    }

    pub fn set_balance(&mut self, address: Address, balance: U256) {
        self.edit(address, |info| info.balance = balance);
    }

    pub fn set_nonce(&mut self, address: Address, nonce: u64) {
        self.edit(address, |info| info.nonce = nonce);
    }

    /// Puts code at an address. Returns false, and changes nothing, for a malformed EIP-7702 designator.
    #[must_use]
    pub fn set_code(&mut self, address: Address, code: Bytes) -> bool {
        let Ok(code) = Bytecode::new_raw_checked(code) else { return false };
        self.edit(address, |info| {
            info.code_hash = if code.is_empty() { KECCAK_EMPTY } else { code.hash_slow() };
            info.code = Some(code);
        });
        true
    }

    pub fn set_slot(&mut self, address: Address, slot: U256, value: U256) {
        if value.is_zero() {
            self.storage.remove(&(address, slot));
        } else {
            self.storage.insert((address, slot), value);
        }
    }

    /// Forgets the whole storage of one account. Looks at every slot there is; only call overrides need it.
    pub fn clear_storage(&mut self, address: Address) {
        let slots: Vec<_> = self.storage.keys().filter(|(owner, _)| *owner == address).copied().collect();
        for key in slots {
            self.storage.remove(&key);
        }
    }

    pub fn set_block_hash(&mut self, number: u64, hash: B256) {
        self.hashes.insert(number, hash);
        if let Some(old) = number.checked_sub(BLOCK_HASHES) {
            self.hashes.remove(&old);
        }
    }

    /// Takes over what a transaction changed.
    pub fn apply(&mut self, changes: EvmState) {
        for (address, account) in changes {
            if !account.is_touched() {
                continue;
            }
            // An account that dies in the transaction that made it (EIP-6780) has never had storage here. EIP-161
            // removes an account that was touched and is empty.
            if account.is_selfdestructed() || account.is_empty() {
                self.accounts.remove(&address);
                continue;
            }
            for (slot, value) in &account.storage {
                if value.is_changed() {
                    self.set_slot(address, *slot, value.present_value());
                }
            }
            let mut info = account.info;
            if info.code.is_none() {
                info.code = self.account(address).and_then(|old| old.code.clone());
            }
            self.accounts.insert(address, info);
        }
    }
}

impl DatabaseRef for State {
    type Error = Infallible;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, Infallible> {
        Ok(self.account(address).cloned())
    }

    fn code_by_hash_ref(&self, _: B256) -> Result<Bytecode, Infallible> {
        // INVARIANT: every account carries its code, so nobody asks by hash.
        Ok(Bytecode::default())
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, Infallible> {
        Ok(self.slot(address, slot))
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, Infallible> {
        Ok(self.hashes.get(&number).copied().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_saw() {
        let mut state = State::default();
        for n in 0..10_000u64 {
            state.set_slot(Address::ZERO, U256::from(n), U256::from(n + 1));
        }
        let copy = state.clone();
        for n in 0..10_000u64 {
            state.set_slot(Address::ZERO, U256::from(n), U256::from(n % 2));
        }
        for n in 0..10_000u64 {
            assert_eq!(copy.slot(Address::ZERO, U256::from(n)), U256::from(n + 1));
            assert_eq!(state.slot(Address::ZERO, U256::from(n)), U256::from(n % 2));
        }
        state.clear_storage(Address::ZERO);
        assert_eq!(state.storage.keys().count(), 0);
        assert_eq!(copy.storage.keys().count(), 10_000);
    }

    #[test]
    fn keys_spread_over_the_buckets() {
        let mut state = State::default();
        for n in 0..100_000u64 {
            state.set_slot(Address::with_last_byte(7), U256::from(n), U256::ONE);
        }
        let largest = state.storage.0.iter().flat_map(|row| row.iter()).map(|bucket| bucket.len()).max();
        assert!(largest < Some(100), "largest bucket: {largest:?}");
    }
}
