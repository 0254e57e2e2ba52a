//! What buyers call their payments.

use farthing_payment::Payment;
use farthing_primitives::{Address, TenantId};
use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use crate::read;

/// Short, so that many fit a page of the index. Neither tenants nor payers share names: a name that a buyer chose takes
/// none from another, and tells nobody else of its payment.
pub(crate) fn hash(tenant: &TenantId, payer: &Address, name: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    // Each field goes in after its length, so that no two names make the same bytes.
    for field in [tenant.as_str(), payer.as_str(), name] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

pub(crate) const HOLDER: &str =
    "SELECT id FROM payments WHERE named = ?1 AND named IS NOT NULL AND released = 0";

/// The payment that has this name now.
pub(crate) fn holder(
    connection: &Connection,
    named: &[u8; 32],
) -> Result<Option<Payment>, farthing_engine::StoreError> {
    let held = |error: rusqlite::Error| read::store_error(&error);
    let mut select = connection.prepare_cached(HOLDER).map_err(held)?;
    let id: Option<[u8; 16]> = select.query_row([named], |row| row.get(0)).optional().map_err(held)?;
    match id {
        Some(id) => read::payment(connection, farthing_primitives::PaymentId::from_bytes(id)),
        None => Ok(None),
    }
}
