//! What was signed and not shown yet. It is in memory alone: the journal knows the intent, and what nobody saw is nobody's
//! when the process ends.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use farthing_payment::Instruction;
use farthing_primitives::{PurchaseId, Timestamp};

use crate::journal::Header;

/// How many are kept at most. What is signed beyond that is written down at once.
const MAX_KEPT: usize = 1_024;

/// A payment as it would be shown, and what the chain is asked by.
type Signed = (Header, Instruction);

#[derive(Debug, Default)]
pub(crate) struct Unshown(Mutex<BTreeMap<PurchaseId, (Signed, Timestamp)>>);

impl Unshown {
    /// Keeps what could be shown until it `expires`; gives it back if there is no room.
    pub fn keep(
        &self,
        id: PurchaseId,
        signed: Signed,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<(), Signed> {
        let mut kept = self.lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (_, expires)| *expires > now);
        }
        if kept.len() >= MAX_KEPT {
            return Err(signed);
        }
        kept.insert(id, (signed, expires));
        Ok(())
    }

    /// It stays until it was shown: a wallet that is frozen now may show it later.
    pub fn get(&self, id: &PurchaseId) -> Option<Signed> {
        self.lock().get(id).map(|(signed, _)| signed.clone())
    }

    pub fn forget(&self, id: &PurchaseId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PurchaseId, (Signed, Timestamp)>> {
        // Each change is one call, so nothing is ever half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> PurchaseId {
        let mut bytes = [0; 16];
        bytes[8..].copy_from_slice(&n.to_be_bytes());
        PurchaseId::from_bytes(bytes)
    }

    fn signed(n: u64) -> Signed {
        (Header { name: "X-PAYMENT".to_owned(), value: n.to_string() }, Instruction::new(vec![1]))
    }

    #[test]
    fn it_is_bounded_and_what_can_pay_no_more_makes_room() {
        let unshown = Unshown::default();
        let (early, late) = (Timestamp::from_millis(1_000), Timestamp::from_millis(2_000));
        let start = Timestamp::from_millis(0);
        for n in 0..MAX_KEPT as u64 {
            let expires = if n == 7 { early } else { late };
            assert_eq!(unshown.keep(id(n), signed(n), expires, start), Ok(()));
        }
        assert_eq!(unshown.keep(id(5_000), signed(5_000), late, start), Err(signed(5_000)));
        assert_eq!(unshown.keep(id(5_000), signed(5_000), late, early), Ok(()));
        assert_eq!((unshown.get(&id(7)), unshown.get(&id(8))), (None, Some(signed(8))));
        unshown.forget(&id(8));
        assert_eq!(unshown.get(&id(8)), None);
    }
}
